//! One queue's frames to the device.
//!
//! A frame is copied, head and payload, straight into chunks of the UMEM, after what its sender left undone is done: AF_XDP takes nothing over. Of the
//! queue's chunks for transmitting, each is free, in which case its number lies on a stack, the one used last on top; or it is with the kernel, on
//! its way through the transmit ring, the device, and the completion ring back. Both rings have room for all chunks there are, so a free chunk is all that it takes.
//!
//! Nobody waits for a device. Without enough free chunks a frame is dropped whole. The kernel is told of new frames once a batch, if it asks to be; in copy mode
//! it sends them within that call. What it could not send, since the device was busy, it is reminded of with the next batch, or by the worker that looks for frames
//! of the queue in vain ([`Socket::remind`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use datapath::drops::TxDrop;
use datapath::frame::{Batch, Offload};
use datapath::memory::{Segment, prefetch_write};
use datapath::offload::{Accepts, Sink};
use datapath::port::Transmitted;
use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use super::memory::Rings;
use super::queue::Socket;
use crate::uplink::{Mtu, TxQueue};

/// The most chunks that a frame may take: the kernel puts each into one piece of its own buffer, and these have at most 17 (`MAX_SKB_FRAGS`).
const PIECES_MAX: usize = 16;

/// A queue's transmitting half, in service.
#[derive(Debug)]
pub struct Tx {
    socket: Arc<Socket>,
    mtu: Mtu,
    /// The queue's chunks for transmitting begin here.
    first: u64,
    /// The most chunks that a frame may take.
    pieces: usize,
    free: Vec<u64>,
    /// How far the transmit ring was written, and published, and the completion ring read.
    filled: u32,
    published: u32,
    completed: u32,
}

impl Tx {
    /// Takes a queue into service, with its chunks for transmitting: as many as the rings have entries, from `first` on. A packet longer than `mtu` is dropped, and one
    /// longer than a chunk unless a frame may have several `pieces`.
    pub fn start(socket: Arc<Socket>, mtu: Mtu, first: u64, pieces: bool) -> Self {
        let chunk_size = socket.umem.chunk_size() as u64;
        let free = (0..u64::from(socket.size)).rev().map(|chunk| first + chunk * chunk_size).collect();
        let Rings { tx, completion, .. } = &socket.rings;
        let (filled, completed) = (tx.producer(), completion.consumer());
        Self { socket, mtu, first, pieces: if pieces { PIECES_MAX } else { 1 }, free, filled, published: filled, completed }
    }

    /// Takes back the chunks of frames that were sent.
    fn reap(&mut self) {
        let Socket { umem, rings: Rings { completion, .. }, size, .. } = &*self.socket;
        let end = completion.producer();
        if end == self.completed {
            return;
        }
        let len = u64::from(*size) * umem.chunk_size() as u64;
        while self.completed != end {
            let chunk = umem.chunk_of(completion.read(self.completed));
            self.completed = self.completed.wrapping_add(1);
            // Anything else would be a mistake of the kernel's, and show as a chunk that is lost.
            if chunk.wrapping_sub(self.first) < len && self.free.len() < *size as usize {
                self.free.push(chunk);
            }
        }
        completion.consume(self.completed);
    }
}

impl TxQueue for Tx {
    fn transmit(&mut self, batch: &Batch, slots: &[u16], transmitted: &mut Transmitted) {
        self.reap();
        let accepts = Accepts::nothing(self.mtu.get());
        for &slot in slots {
            match accepts.finish(batch, slot, self) {
                Ok(()) => transmitted.sent(batch.frame(slot).len()),
                Err(reason) => transmitted.dropped(reason),
            }
        }
        self.published = self.filled;
        self.socket.rings.tx.produce(self.filled);
        self.socket.kick();
        self.socket.tx_ours.store(self.free.len() as u32, Ordering::Relaxed);
    }
}

impl Sink for Tx {
    #[inline(always)]
    fn write<'p>(&mut self, _: &Offload, _: usize, pieces: impl Iterator<Item = Segment<'p>>, len: usize) -> Result<(), TxDrop> {
        let chunk_size = self.socket.umem.chunk_size();
        let count = len.div_ceil(chunk_size);
        if count > self.pieces {
            return Err(TxDrop::TooLong);
        }
        let Some(rest) = self.free.len().checked_sub(count) else { return Err(TxDrop::RingFull) };
        let (mut used, mut room) = (0, 0);
        let mut at = 0;
        for mut piece in pieces {
            while !piece.is_empty() {
                if room == 0 {
                    // More bytes than were said would be a mistake of ours: they are left out.
                    let Some(&chunk) = self.free[rest..].iter().rev().nth(used) else { break };
                    (at, room, used) = (chunk, chunk_size, used + 1);
                }
                let part = piece.part(0, room);
                self.socket.umem.write(at, &part);
                (at, room) = (at + part.len() as u64, room - part.len());
                piece = piece.part(part.len(), usize::MAX);
            }
        }
        let mut left = len;
        for &chunk in self.free[rest..].iter().rev() {
            let len = left.min(chunk_size);
            left -= len;
            let options = if left == 0 { XdpDescOptions::empty() } else { XdpDescOptions::XDP_PKT_CONTD };
            self.socket.rings.tx.write(self.filled, XdpDesc { addr: chunk, len: len as u32, options });
            self.filled = self.filled.wrapping_add(1);
        }
        self.free.truncate(rest);
        if let Some(&next) = self.free.last() {
            prefetch_write(self.socket.umem.address(next));
        }
        Ok(())
    }

    fn reserve(&mut self, frames: usize) -> Result<usize, TxDrop> {
        if frames > self.free.len() { Err(TxDrop::RingFull) } else { Ok(self.filled.wrapping_sub(self.published) as usize) }
    }

    fn back_to(&mut self, place: usize) {
        while self.filled.wrapping_sub(self.published) as usize > place {
            self.filled = self.filled.wrapping_sub(1);
            self.free.push(self.socket.rings.tx.read(self.filled).addr);
        }
    }
}

//! One queue's frames from the device.
//!
//! Of the queue's chunks for receiving, each is with the kernel (in the fill ring, being filled, or in the receive ring) or with us, for as long as a batch is
//! under way: its payload is on loan until the batch has been forwarded. Then all go back to the fill ring, which has room for all there are.
//!
//! A frame longer than a chunk comes in several descriptors, which the kernel hands over together.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datapath::drops::DropReason;
use datapath::frame::{BATCH, Batch, ETHERNET_HEADER, FRAME_MAX, lend};
use datapath::memory::prefetch;
use datapath::port::{PortNo, RxQueue};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::xdp::{XdpDesc, XdpDescOptions};
use rustix::net::{RecvFlags, recv};

use super::memory::{Rings, Umem};
use super::queue::Socket;

/// The most descriptors of a batch: as many frames of a chunk, or fewer longer ones.
const DESCRIPTORS: usize = 64;

/// A queue's receiving half, in service.
#[derive(Debug)]
pub struct Rx {
    socket: Arc<Socket>,
    port: PortNo,
    busy_poll: bool,
    /// Has the socket in it while we want to be notified. Elsewhere it would have the kernel notify, under a lock, of every few frames.
    epoll: Arc<OwnedFd>,
    armed: bool,
    /// How far the receive ring was read, and the fill ring written.
    taken: u32,
    filled: u32,
    /// Chunks that are ours; none between two batches.
    held: Vec<u64>,
}

impl Rx {
    /// Takes a queue into service, and gives the kernel its chunks for receiving: as many as the rings have entries, from `first` on. With `busy_poll`, a look in
    /// vain has the device look, too.
    pub fn start(socket: Arc<Socket>, port: PortNo, first: u64, busy_poll: bool) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let chunk_size = socket.umem.chunk_size() as u64;
        let held = (0..u64::from(socket.size)).map(|chunk| first + chunk * chunk_size).collect();
        let Rings { rx, fill, .. } = &socket.rings;
        let (taken, filled) = (rx.consumer(), fill.producer());
        let mut rx = Self { socket, port, busy_poll, epoll, armed: false, taken, filled, held };
        rx.give_back();
        Ok(rx)
    }

    /// Becomes readable with the next frame, while the queue is armed.
    pub fn kick(&self) -> Arc<OwnedFd> {
        self.epoll.clone()
    }

    /// Gives all chunks that we hold to the kernel.
    fn give_back(&mut self) {
        let fill = &self.socket.rings.fill;
        for chunk in self.held.drain(..) {
            fill.write(self.filled, chunk);
            self.filled = self.filled.wrapping_add(1);
        }
        fill.produce(self.filled);
        self.socket.rx_ours.store(0, Ordering::Relaxed);
        if fill.needs_wakeup() {
            // The kernel is to look at the fill ring again. If this fails, it is asked again with the next batch.
            let _ = poll(&mut [PollFd::new(&*self.socket, PollFlags::IN)], Some(&Timespec::default()));
        }
    }
}

impl RxQueue for Rx {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        let available = (self.waiting() as u32).min(DESCRIPTORS as u32);
        if available == 0 {
            self.socket.remind();
            if self.busy_poll {
                // What it brings is found next time.
                let _ = recv(&*self.socket, &mut [0u8; 0][..], RecvFlags::DONTWAIT);
            }
            return 0;
        }
        let (umem, rx) = (&*self.socket.umem, &self.socket.rings.rx);
        let mut descriptors = [NONE; DESCRIPTORS];
        for (i, descriptor) in descriptors[..available as usize].iter_mut().enumerate() {
            *descriptor = rx.read(self.taken.wrapping_add(i as u32));
            let first = umem.address(descriptor.addr);
            prefetch(first);
            prefetch(first.wrapping_add(64));
        }
        let (mut taken, held) = (0, &mut self.held);
        let frames = lend(batch, self.port, umem, |lending| {
            let mut rest = &descriptors[..available as usize];
            for _ in 0..BATCH {
                let Some(last) = rest.iter().position(|piece| !piece.options.contains(XdpDescOptions::XDP_PKT_CONTD)) else { break };
                let pieces;
                (pieces, rest) = rest.split_at(last + 1);
                taken += pieces.len();
                held.extend(pieces.iter().map(|piece| umem.chunk_of(piece.addr)));
                match check(umem, pieces) {
                    Ok(()) => lending.push(pieces.iter().filter_map(|piece| umem.segment(piece.addr, piece.len))),
                    Err(reason) => lending.reject(reason),
                }
            }
            lending.consume(consume)
        });
        self.taken = self.taken.wrapping_add(taken as u32);
        rx.consume(self.taken);
        self.give_back();
        frames
    }

    fn waiting(&mut self) -> usize {
        self.socket.rings.rx.producer().wrapping_sub(self.taken) as usize
    }

    fn arm(&mut self) -> bool {
        if !self.armed {
            self.armed = epoll::add(&self.epoll, &*self.socket, EventData::new_u64(0), EventFlags::IN | EventFlags::ET).is_ok();
        }
        // Who can't be notified has to look.
        !self.armed || self.waiting() > 0 || self.socket.remind()
    }

    fn disarm(&mut self) {
        if std::mem::take(&mut self.armed) {
            // It is there, so this does not fail.
            let _ = epoll::delete(&self.epoll, &*self.socket);
        }
    }
}

const NONE: XdpDesc = XdpDesc { addr: 0, len: 0, options: XdpDescOptions::empty() };

/// Whether these pieces are a frame.
#[inline(always)]
fn check(umem: &Umem, pieces: &[XdpDesc]) -> Result<(), DropReason> {
    let mut len = 0;
    for piece in pieces {
        umem.segment(piece.addr, piece.len).ok_or(DropReason::BadDescriptor)?;
        len += piece.len as usize;
    }
    match len {
        ..ETHERNET_HEADER => Err(DropReason::Truncated),
        ETHERNET_HEADER..=FRAME_MAX => Ok(()),
        _ => Err(DropReason::TooLong),
    }
}

//! A queue of a tap, in service: done by the workers.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use datapath::drops::{DropReason, TxDrop};
use datapath::frame::{BATCH, Batch, Checksum, ETHERNET_HEADER, FRAME_MAX, Lending, Offload, lend};
use datapath::memory::Segment;
use datapath::offload::{Accepts, Sink};
use datapath::port::{PortNo, RxQueue, Transmitted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_backend::offload::Header;

use super::Abilities;
use crate::uplink::{Mtu, Queue, TxQueue, sys};

/// Room for the longest frame and its header, and one byte by which a longer one is known.
const ROOM: usize = Header::LEN + FRAME_MAX + 1;

/// Makes a queue of a descriptor.
pub fn queue(descriptor: OwnedFd, abilities: &Abilities, port: PortNo, mtu: &Mtu) -> Queue {
    let tap = Arc::new(descriptor);
    let rx = Rx { tap: tap.clone(), port, rooms: vec![0; BATCH * ROOM].into() };
    let tx = Tx { wire: Wire { tap: tap.clone(), room: sys::Room::default() }, abilities: *abilities, mtu: mtu.clone() };
    Queue { rx: Box::new(rx), tx: Box::new(tx), kick: tap, watch: None }
}

/// Frames that the host sends.
struct Rx {
    tap: Arc<OwnedFd>,
    port: PortNo,
    /// Where a batch is read to. Memory that no frame was long enough for is never touched.
    rooms: Box<[u8]>,
}

impl RxQueue for Rx {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        let mut lengths = [0; BATCH];
        let mut count = 0;
        for (room, length) in self.rooms.chunks_exact_mut(ROOM).zip(&mut lengths) {
            match rustix::io::read(&*self.tap, room) {
                Ok(read) => *length = read,
                // Nothing there, or the device is gone, which netlink tells of.
                Err(_) => break,
            }
            count += 1;
        }
        if count == 0 {
            return 0;
        }
        lend(batch, self.port, &*self.rooms, |lending| {
            for (room, &length) in self.rooms.chunks_exact(ROOM).zip(&lengths[..count]) {
                take(lending, &room[..length]);
            }
            lending.consume(consume)
        })
    }

    fn is_costly(&self) -> bool {
        true
    }

    /// Whoever waits for the descriptor is told of frames whether the queue is armed or not; only what is there already must be found out.
    fn arm(&mut self) -> bool {
        let mut tap = [PollFd::new(&*self.tap, PollFlags::IN)];
        poll(&mut tap, Some(&Timespec::default())).is_ok() && tap[0].revents().contains(PollFlags::IN)
    }

    fn disarm(&mut self) {}
}

/// Adds what was read to the batch, or counts why it is no frame.
fn take<'m>(lending: &mut Lending<'_, 'm>, bytes: &'m [u8]) {
    let Some((header, frame)) = bytes.split_first_chunk::<{ Header::LEN }>().filter(|(_, frame)| frame.len() >= ETHERNET_HEADER) else {
        return lending.reject(DropReason::Truncated);
    };
    if frame.len() > FRAME_MAX {
        return lending.reject(DropReason::TooLong);
    }
    lending.push([Segment::from(frame)]);
    let header = Header::from_bytes(header);
    let added = lending.last();
    match header.offload(added.head(), added.len()) {
        Some(offload) => added.offload = offload,
        None => return lending.reject_last(DropReason::BadOffload),
    }
    // The kernel, unlike a guest, is believed.
    if header.is_valid() && added.offload.checksum == Checksum::Unknown {
        added.offload.checksum = Checksum::Valid;
    }
}

/// Frames that the host receives.
struct Tx {
    wire: Wire,
    abilities: Abilities,
    mtu: Mtu,
}

impl TxQueue for Tx {
    fn transmit(&mut self, batch: &Batch, slots: &[u16], transmitted: &mut Transmitted) {
        let udp = self.abilities.udp_segmentation;
        let accepts = Accepts { checksum: true, tcp4: true, tcp6: true, ecn: true, udp, mtu: self.mtu.get() };
        for &slot in slots {
            match accepts.finish(batch, slot, &mut self.wire) {
                Ok(()) => transmitted.sent(batch.frame(slot).len()),
                Err(reason) => transmitted.dropped(reason),
            }
        }
    }
}

/// Where a tap's frames are written.
struct Wire {
    tap: Arc<OwnedFd>,
    room: sys::Room,
}

impl Sink for Wire {
    fn write<'p>(&mut self, left: &Offload, headers: usize, pieces: impl Iterator<Item = Segment<'p>>, len: usize) -> Result<(), TxDrop> {
        let header = Header::passing_on(left, headers).to_bytes(0);
        sys::write_frame(&*self.tap, &header, pieces, len, &mut self.room).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => TxDrop::RingFull,
            ErrorKind::InvalidInput => TxDrop::Offload,
            // The device is down, or gone.
            _ => TxDrop::LinkDown,
        })
    }

    /// The kernel does not say; what it has no room for it refuses one by one.
    fn reserve(&mut self, _frames: usize) -> Result<usize, TxDrop> {
        Ok(0)
    }

    /// What the host has received can't be taken back. TCP and UDP make do with the first segments of a frame.
    fn back_to(&mut self, _place: usize) {}
}

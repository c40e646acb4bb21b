//! The ring that a guest receives by: frames from the switch.
//!
//! Each frame is written straight into the guest's buffers: its header, its head from our copy, its payload from wherever its sender keeps it. A guest
//! with mergeable buffers gets a frame in as many of them as it takes; any other gets it in one, or not at all. What the guest did not agree to
//! take over, checksums and segmentation, is done here, for this guest only: the frame in the batch stays as it is.
//!
//! Nobody waits for a guest. Without enough free buffers a frame is dropped whole, and the buffers it would have filled stay with the ring: which
//! buffers a frame gets is found out before they are written, and nothing is given back before `Ring::complete`.

use std::fs::File;

use datapath::drops::TxDrop;
use datapath::frame::{BATCH, Batch, Offload};
use datapath::memory::{Segment, demote, prefetch_write};
use datapath::offload::{Accepts, Sink};
use datapath::port::Transmitted;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_MRG_RXBUF,
};

use crate::memory::Room;
use crate::offload::Header;
use crate::ring::{Ring, RingError, RingSetup, recycle};
use crate::rx::header_len;

/// The bytes of a room that were asked for already when its turn comes.
const HEADER_AND_HEAD: usize = 128;
/// The most bytes of a frame that are brought closer before it is moved. More would drive each other out of the first cache.
const APPROACH_MAX: usize = 2048;

/// How many frames later a frame's first cache lines are passed on to the guest: by then its bytes have left the store buffer, and
/// the fence before the next notification does not have to wait for them.
const DEMOTE_BEHIND: usize = 8;

/// A guest's receive queue, in service.
#[derive(Debug)]
pub struct TxRing {
    ring: Ring,
    accepts: Accepts,
    header_len: usize,
    mergeable: bool,
    /// The buffers of one frame and the chains they belong to; kept for their allocations.
    rooms: Vec<Room<'static>>,
    chains: Vec<Filled>,
}

impl TxRing {
    /// Takes a ring into service. A frame whose layer 3 part is longer than `mtu` bytes is dropped, and so is one whose segments would be.
    pub fn start(setup: RingSetup, mtu: Option<u16>) -> Result<Self, RingError> {
        let features = setup.features;
        let mut ring = Ring::start(setup)?;
        // Free buffers are looked for when there is a frame to be sent; nobody waits for them.
        ring.disarm();
        Ok(Self {
            ring,
            accepts: accepts(features, mtu),
            header_len: header_len(features),
            mergeable: features & (1 << VIRTIO_NET_F_MRG_RXBUF) != 0,
            rooms: Vec::new(),
            chains: Vec::new(),
        })
    }

    /// The index of the next chain to be taken (GET_VRING_BASE).
    pub fn next(&self) -> u16 {
        self.ring.next()
    }

    /// What broke the ring, if anything did.
    pub fn fault(&self) -> Option<&RingError> {
        self.ring.fault()
    }

    /// Replaces the eventfd that notifies the driver.
    pub fn set_call(&mut self, call: Option<File>) {
        self.ring.set_call(call);
    }

    /// Replaces the eventfd that tells the front end of a fault.
    pub fn set_error(&mut self, error: Option<File>) {
        self.ring.set_error(error);
    }

    /// Changes the MTU (NET_SET_MTU).
    pub fn set_mtu(&mut self, mtu: Option<u16>) {
        self.accepts.mtu = mtu.map_or(usize::MAX, usize::from);
    }

    /// Transmits the frames of `batch` whose slots are listed, in order; each is counted in `transmitted`, as sent or as dropped.
    pub fn transmit(&mut self, batch: &Batch, slots: &[u16], transmitted: &mut Transmitted) {
        let available = usize::from(self.ring.available());
        let (memory, next, header_len, accepts) = (&self.ring.memory, self.ring.next(), self.header_len, self.accepts);
        let mut filling = Filling {
            ring: &self.ring,
            accepts,
            header_len,
            mergeable: self.mergeable,
            available,
            taken: 0,
            rooms: recycle(std::mem::take(&mut self.rooms)),
            chains: std::mem::take(&mut self.chains),
            fault: None,
        };
        let (mut frames, mut bytes) = (0, 0);
        for chunk in slots.chunks(BATCH) {
            // The chains that the chunk will take if each frame takes one: their heads, and those that are one buffer.
            let first = filling.taken;
            let ahead = if filling.fault.is_none() { chunk.len().min(filling.available - first) } else { 0 };
            let mut heads = [0; BATCH];
            for (i, head) in heads[..ahead].iter_mut().enumerate() {
                *head = memory.available_entry(next.wrapping_add((first + i) as u16));
                memory.prefetch_descriptor(*head);
            }
            let mut wholes = [None; BATCH];
            for (whole, &head) in wholes.iter_mut().zip(&heads[..ahead]) {
                *whole = memory.write_whole(head);
                if let Some(room) = whole {
                    prefetch_write(room.as_ptr());
                    prefetch_write(room.as_ptr().wrapping_add(64));
                }
            }

            let mut taken = first;
            for (at, &slot) in chunk.iter().enumerate() {
                if let (Some(&slot), Some(Some(room))) = (chunk.get(at + 1), wholes.get(taken - first + 1)) {
                    approach(batch, slot, *room);
                }
                let frame = batch.frame(slot);
                let total = header_len + frame.len();
                let index = taken - first;
                let whole = wholes.get(index).copied().flatten().filter(|room| room.len() >= total);
                if let (Some(room), true) = (whole, accepts.is_ready(frame)) {
                    let header = Header::passing_on(&accepts.left(&frame.offload), 0);
                    // A legacy header is shorter; the frame overwrites the rest.
                    room.write_array(header.to_bytes(1));
                    let room = room.skip(header_len);
                    let copied = room.copy_from(&Segment::from(frame.head()));
                    batch.payload(slot).iter().fold(room.skip(copied), |room, piece| room.skip(room.copy_from(piece)));
                    memory.write_used(next.wrapping_add(taken as u16), heads[index % BATCH], total as u32);
                    taken += 1;
                    if let Some(Some(room)) = index.checked_sub(DEMOTE_BEHIND).map(|earlier| wholes[earlier]) {
                        pass_on(room);
                    }
                } else {
                    filling.taken = taken;
                    let result = filling.work(batch, slot);
                    taken = filling.taken;
                    if let Err(reason) = result {
                        transmitted.dropped(reason);
                        if filling.fault.is_some() {
                            // Nothing more goes to a ring that is broken, not even to the chains before the one that broke it.
                            wholes = [None; BATCH];
                        }
                        continue;
                    }
                }
                frames += 1;
                bytes += frame.len() as u64;
            }
            for room in wholes[..(taken - first).min(BATCH)].iter().rev().take(DEMOTE_BEHIND).flatten() {
                pass_on(*room);
            }
            filling.taken = taken;
        }
        transmitted.frames += frames;
        transmitted.bytes += bytes;
        let Filling { taken, rooms, chains, fault, .. } = filling;
        (self.rooms, self.chains) = (recycle(rooms), chains);
        self.ring.complete(taken as u16);
        if let Some(fault) = fault {
            self.ring.fail(fault);
        }
    }
}

/// Brings the room for what follows the head of a long frame closer. (What is read from one end to the other, the CPU foresees by itself.)
#[inline(always)]
fn approach(batch: &Batch, slot: u16, room: Room<'_>) {
    let len = batch.frame(slot).len().min(room.len()).min(APPROACH_MAX);
    for line in (HEADER_AND_HEAD..len).step_by(64) {
        prefetch_write(room.as_ptr().wrapping_add(line));
    }
}

/// Leaves the beginning of a frame that was written where the guest, on another CPU, finds it soonest.
#[inline(always)]
fn pass_on(room: Room<'_>) {
    demote(room.as_ptr());
    demote(room.as_ptr().wrapping_add(64));
}

/// What a guest takes over (virtio 1.2, 5.1.3).
fn accepts(features: u64, mtu: Option<u16>) -> Accepts {
    let has = |bit: u32| features & (1 << bit) != 0;
    let checksum = has(VIRTIO_NET_F_GUEST_CSUM);
    Accepts {
        checksum,
        tcp4: checksum && has(VIRTIO_NET_F_GUEST_TSO4),
        tcp6: checksum && has(VIRTIO_NET_F_GUEST_TSO6),
        ecn: has(VIRTIO_NET_F_GUEST_ECN),
        // One kind in our offload, for both versions of IP.
        udp: checksum && has(VIRTIO_NET_F_GUEST_USO4) && has(VIRTIO_NET_F_GUEST_USO6),
        mtu: mtu.map_or(usize::MAX, usize::from),
    }
}

/// A chain that a frame is written to.
#[derive(Clone, Copy, Debug)]
struct Filled {
    head: u16,
    len: usize,
}

/// A ring's free buffers while a batch is written to them. Chains are numbered from the ring's next one on.
struct Filling<'m> {
    ring: &'m Ring,
    accepts: Accepts,
    header_len: usize,
    mergeable: bool,
    /// How many chains there were when last looked.
    available: usize,
    /// How many of them were filled.
    taken: usize,
    rooms: Vec<Room<'m>>,
    chains: Vec<Filled>,
    fault: Option<RingError>,
}

impl<'m> Filling<'m> {
    /// The position of a chain in the ring.
    #[inline(always)]
    fn position(&self, chain: usize) -> u16 {
        self.ring.next().wrapping_add(chain as u16)
    }

    /// The head of a chain, or none if the driver has not made that many available.
    fn head(&mut self, chain: usize) -> Result<u16, TxDrop> {
        if self.fault.is_some() || self.ring.fault().is_some() {
            return Err(TxDrop::BadDescriptor);
        }
        if chain >= self.available {
            self.available = self.ring.look().map_err(|fault| self.fail(fault))?.into();
            if chain >= self.available {
                return Err(TxDrop::RingFull);
            }
        }
        Ok(self.ring.memory.available_entry(self.position(chain)))
    }

    fn fail(&mut self, fault: RingError) -> TxDrop {
        self.fault = Some(fault);
        TxDrop::BadDescriptor
    }

    /// Writes the frame in `slot`, after doing what the guest did not take over.
    #[inline(never)]
    fn work(&mut self, batch: &Batch, slot: u16) -> Result<(), TxDrop> {
        let accepts = self.accepts;
        accepts.finish(batch, slot, self)
    }

    /// Writes a header and `len` bytes of frame to as many chains as they take, whatever these are like.
    #[inline(never)]
    fn write_pieces<'p>(&mut self, header: Header, pieces: impl Iterator<Item = Segment<'p>>, len: usize) -> Result<(), TxDrop> {
        let total = self.header_len + len;
        self.rooms.clear();
        self.chains.clear();
        let mut found = 0;
        while found < total {
            if !self.chains.is_empty() && !self.mergeable {
                return Err(TxDrop::TooLong);
            }
            let head = self.head(self.taken + self.chains.len())?;
            let before = self.rooms.len();
            self.ring.memory.write_chain(head, &mut self.rooms).map_err(|fault| self.fail(fault))?;
            let len = self.rooms[before..].iter().map(Room::len).sum();
            found += len;
            self.chains.push(Filled { head, len });
        }
        let header = header.to_bytes(self.chains.len() as u16);
        let mut rooms = Rooms(&mut self.rooms);
        rooms.put(Segment::from(&header[..self.header_len]));
        pieces.for_each(|piece| rooms.put(piece));
        let mut left = total;
        for index in 0..self.chains.len() {
            let Filled { head, len } = self.chains[index];
            let written = len.min(left);
            self.give_back(head, written);
            left -= written;
        }
        Ok(())
    }

    /// Writes the used entry of the next chain. It is published with the batch.
    #[inline(always)]
    fn give_back(&mut self, head: u16, written: usize) {
        self.ring.memory.write_used(self.position(self.taken), head, written as u32);
        self.taken += 1;
    }
}

impl Sink for Filling<'_> {
    fn write<'p>(&mut self, left: &Offload, headers: usize, pieces: impl Iterator<Item = Segment<'p>>, len: usize) -> Result<(), TxDrop> {
        self.write_pieces(Header::passing_on(left, headers), pieces, len)
    }

    /// Each frame takes a chain at least.
    fn reserve(&mut self, frames: usize) -> Result<usize, TxDrop> {
        self.head(self.taken + frames - 1)?;
        Ok(self.taken)
    }

    fn back_to(&mut self, place: usize) {
        self.taken = place;
    }
}

/// Rooms to be filled one after another.
struct Rooms<'a, 'm>(&'a mut [Room<'m>]);

impl Rooms<'_, '_> {
    /// Writes the next bytes, as far as there is room.
    fn put(&mut self, mut piece: Segment<'_>) {
        while let Some(room) = self.0.first_mut().filter(|_| !piece.is_empty()) {
            let copied = room.copy_from(&piece);
            piece = piece.part(copied, usize::MAX);
            *room = room.skip(copied);
            if room.len() == 0 {
                self.0 = &mut std::mem::take(&mut self.0)[1..];
            }
        }
    }
}

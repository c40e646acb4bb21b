//! The ring that a guest receives by: frames from the switch.
//!
//! Each frame is written straight into the guest's buffers: its header, its head from our copy, its payload from wherever its sender keeps it. A guest
//! with mergeable buffers gets a frame in as many of them as it takes; any other gets it in one, or not at all. What the guest did not agree to
//! take over, checksums and segmentation, is done here, for this guest only: the frame in the batch stays as it is.
//!
//! Nobody waits for a guest. Without enough free buffers a frame is dropped whole, and the buffers it would have filled stay with the ring: which
//! buffers a frame gets is found out before they are written, and nothing is given back before [`Ring::complete`].

use std::fs::File;
use std::iter::once;

use datapath::drops::TxDrop;
use datapath::frame::{BATCH, Batch, Checksum, ETHERNET_HEADER, Frame, HEAD_MAX, Offload, Segmentation, SegmentationKind};
use datapath::memory::{Segment, prefetch};
use datapath::port::Transmitted;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_MRG_RXBUF,
};

use crate::memory::Room;
use crate::offload::{Header, Headers, Pieces, Segmenter, Sum};
use crate::ring::{Chain, Ring, RingError, RingSetup, recycle};
use crate::rx::header_len;

/// A guest's receive queue, in service.
#[derive(Debug)]
pub struct TxRing {
    ring: Ring,
    accepts: Accepts,
    mtu: Option<u16>,
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
            accepts: Accepts::new(features),
            mtu,
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
        self.mtu = mtu;
    }

    /// Transmits the frames of `batch` whose slots are listed, in order; each is counted in `transmitted`, as sent or as dropped.
    pub fn transmit(&mut self, batch: &Batch, slots: &[u16], transmitted: &mut Transmitted) {
        let available = self.ring.available();
        let mut filling = Filling {
            ring: &self.ring,
            header_len: self.header_len,
            mergeable: self.mergeable,
            available: available.into(),
            taken: 0,
            ahead: [(0, Chain::Beyond); BATCH],
            ahead_from: 0,
            ahead_len: 0,
            rooms: recycle(std::mem::take(&mut self.rooms)),
            chains: std::mem::take(&mut self.chains),
        };
        let mut fault = None;
        for chunk in slots.chunks(BATCH) {
            filling.look_ahead(chunk.len());
            for &slot in chunk {
                let frame = batch.frame(slot);
                let result = match self.ring.fault().is_none() && fault.is_none() {
                    true => self.accepts.work(frame, self.mtu).map_err(Refusal::Drop).and_then(|work| filling.carry_out(work, batch, slot)),
                    false => Err(Refusal::Drop(TxDrop::BadDescriptor)),
                };
                match result {
                    Ok(()) => transmitted.sent(frame.len()),
                    Err(Refusal::Drop(reason)) => transmitted.dropped(reason),
                    Err(Refusal::Fault(error)) => {
                        transmitted.dropped(TxDrop::BadDescriptor);
                        fault = Some(error);
                    }
                }
            }
        }
        let Filling { taken, rooms, chains, .. } = filling;
        (self.rooms, self.chains) = (recycle(rooms), chains);
        self.ring.complete(taken as u16);
        if let Some(fault) = fault {
            self.ring.fail(fault);
        }
    }
}

/// What a guest agreed to take over (virtio 1.2, 5.1.3).
#[derive(Clone, Copy, Debug)]
struct Accepts {
    checksum: bool,
    tcp4: bool,
    tcp6: bool,
    ecn: bool,
    udp: bool,
}

/// What is to be done with a frame for a guest.
enum Work {
    /// To be written as it is, behind this header.
    Write(Header),
    /// To be given its checksum, from `start` on, at `start + offset`.
    Checksum { start: usize, offset: usize },
    /// To be cut into segments, which are given their checksums unless the guest takes over these.
    Segment { headers: Headers, size: u16, partial: bool },
}

impl Accepts {
    fn new(features: u64) -> Self {
        let has = |bit: u32| features & (1 << bit) != 0;
        let checksum = has(VIRTIO_NET_F_GUEST_CSUM);
        Self {
            checksum,
            tcp4: checksum && has(VIRTIO_NET_F_GUEST_TSO4),
            tcp6: checksum && has(VIRTIO_NET_F_GUEST_TSO6),
            ecn: has(VIRTIO_NET_F_GUEST_ECN),
            // One kind in our offload, for both versions of IP.
            udp: checksum && has(VIRTIO_NET_F_GUEST_USO4) && has(VIRTIO_NET_F_GUEST_USO6),
        }
    }

    /// Finds out what is to be done with a frame, or why it can't be sent.
    #[inline(always)]
    fn work(&self, frame: &Frame, mtu: Option<u16>) -> Result<Work, TxDrop> {
        let Offload { checksum, segmentation } = frame.offload;
        if segmentation.is_some() {
            return self.segmentation_work(frame, mtu);
        }
        let network = if frame.layout.network == 0 { ETHERNET_HEADER } else { usize::from(frame.layout.network) };
        if mtu.is_some_and(|mtu| frame.len().saturating_sub(network) > usize::from(mtu)) {
            return Err(TxDrop::TooLong);
        }
        if self.checksum {
            return Ok(Work::Write(Header::passing_on(&frame.offload, 0)));
        }
        match checksum {
            Checksum::Unknown | Checksum::Valid => Ok(Work::Write(Header::default())),
            Checksum::Partial { start, offset } => {
                let (start, offset) = (usize::from(start), usize::from(offset));
                if start + offset + 2 > frame.len() { Err(TxDrop::Offload) } else { Ok(Work::Checksum { start, offset }) }
            }
        }
    }

    fn segmentation_work(&self, frame: &Frame, mtu: Option<u16>) -> Result<Work, TxDrop> {
        let Some(Segmentation { kind, ecn, size }) = frame.offload.segmentation else { return Err(TxDrop::Offload) };
        // The frame may have been changed since its headers were checked.
        let headers = Headers::of(frame.head(), &frame.offload).ok_or(TxDrop::Offload)?;
        let payload = frame.len().saturating_sub(headers.end).min(size.into());
        let packet = headers.end - headers.network + payload;
        if mtu.is_some_and(|mtu| packet > usize::from(mtu)) {
            return Err(TxDrop::TooLong);
        }
        let accepted = match kind {
            SegmentationKind::Tcp4 => self.tcp4,
            SegmentationKind::Tcp6 => self.tcp6,
            SegmentationKind::Udp => self.udp,
        };
        if accepted && (self.ecn || !ecn) {
            Ok(Work::Write(Header::passing_on(&frame.offload, headers.end)))
        } else if packet > usize::from(u16::MAX) || size == 0 {
            Err(TxDrop::Offload)
        } else {
            Ok(Work::Segment { headers, size, partial: self.checksum })
        }
    }
}

/// Why a frame is not written.
enum Refusal {
    /// It is dropped.
    Drop(TxDrop),
    /// The ring can't be followed any further.
    Fault(RingError),
}

impl From<RingError> for Refusal {
    fn from(fault: RingError) -> Self {
        Self::Fault(fault)
    }
}

/// A chain that a frame is written to.
#[derive(Clone, Copy, Debug)]
struct Filled {
    head: u16,
    len: usize,
}

/// A ring's free buffers while a batch is written to them.
struct Filling<'m> {
    ring: &'m Ring,
    header_len: usize,
    mergeable: bool,
    /// How many chains there are from the ring's next one on, when last looked.
    available: usize,
    /// How many of them were filled.
    taken: usize,
    /// The chains that were looked at before their turn, from the `ahead_from`th on.
    ahead: [(u16, Chain<Room<'m>>); BATCH],
    ahead_from: usize,
    ahead_len: usize,
    rooms: Vec<Room<'m>>,
    chains: Vec<Filled>,
}

impl<'m> Filling<'m> {
    /// Brings the next `count` chains and their buffers closer.
    #[inline(always)]
    fn look_ahead(&mut self, count: usize) {
        let memory = &self.ring.memory;
        let first = self.ring.next().wrapping_add(self.taken as u16);
        self.ahead_from = self.taken;
        self.ahead_len = count.min(self.available - self.taken);
        let ahead = &mut self.ahead[..self.ahead_len];
        for (i, (head, _)) in ahead.iter_mut().enumerate() {
            *head = memory.available_entry(first.wrapping_add(i as u16));
            memory.prefetch_descriptor(*head);
        }
        for (head, chain) in ahead {
            *chain = memory.look_to_write(*head);
            if let Chain::Whole(room) = chain {
                prefetch(room.as_ptr());
                prefetch(room.as_ptr().wrapping_add(64));
            }
        }
    }

    /// The `index`th chain from the ring's next one on, and its head.
    #[inline(always)]
    fn chain(&mut self, index: usize) -> Result<(u16, Chain<Room<'m>>), Refusal> {
        if let Some(&chain) = self.ahead[..self.ahead_len].get(index.wrapping_sub(self.ahead_from)) {
            return Ok(chain);
        }
        if index >= self.available {
            self.available = self.ring.look()?.into();
            if index >= self.available {
                return Err(Refusal::Drop(TxDrop::RingFull));
            }
        }
        let head = self.ring.memory.available_entry(self.ring.next().wrapping_add(index as u16));
        Ok((head, self.ring.memory.look_to_write(head)))
    }

    #[inline(always)]
    fn carry_out(&mut self, work: Work, batch: &Batch, slot: u16) -> Result<(), Refusal> {
        let frame = Pieces::of(batch, slot);
        let len = batch.frame(slot).len();
        match work {
            Work::Write(header) => self.write(header, frame, len),
            Work::Checksum { start, offset } => {
                let mut sum = Sum::default();
                sum.add_pieces(frame.after(start), len - start);
                let checksum = sum.transport_checksum();
                let at = start + offset;
                self.write(Header::default(), frame.first(at).chain(once(Segment::from(&checksum[..]))).chain(frame.after(at + 2)), len)
            }
            Work::Segment { headers, size, partial } => {
                let taken = self.taken;
                let segmenter = Segmenter::new(headers, batch.frame(slot).head(), len, size);
                self.write_segments(&segmenter, frame.after(headers.end), partial).inspect_err(|_| self.taken = taken)
            }
        }
    }

    fn write_segments(&mut self, segmenter: &Segmenter, mut payload: Pieces<'_, '_>, partial: bool) -> Result<(), Refusal> {
        // Each takes a chain at least: no work is done for a frame that a guest has no room for, however small its segments.
        self.chain(self.taken + segmenter.count() - 1)?;
        let mut head = [0; HEAD_MAX];
        for index in 0..segmenter.count() {
            let len = segmenter.payload_len(index);
            let sum = (!partial).then(|| {
                let mut sum = Sum::default();
                sum.add_pieces(payload, len);
                sum
            });
            let head = segmenter.headers(index, sum, &mut head);
            let header = if partial { Header::passing_on(&segmenter.offload(), 0) } else { Header::default() };
            self.write(header, once(Segment::from(head)).chain(payload.first(len)), head.len() + len)?;
            payload = payload.after(len);
        }
        Ok(())
    }

    /// Writes a header and a frame of `len` bytes to the next chain, or to as many as it takes.
    #[inline(always)]
    fn write<'p>(&mut self, header: Header, pieces: impl Iterator<Item = Segment<'p>>, len: usize) -> Result<(), Refusal> {
        let total = self.header_len + len;
        let (head, chain) = self.chain(self.taken)?;
        match chain {
            Chain::Whole(room) if room.len() >= total => {
                // A legacy header is shorter; the frame overwrites the rest.
                room.write_array(header.to_bytes(1));
                let mut room = room.skip(self.header_len);
                for piece in pieces {
                    room = room.skip(room.copy_from(&piece));
                }
                self.give_back(head, total);
                Ok(())
            }
            _ => self.write_parts(header, pieces, total),
        }
    }

    /// As `write`, over any buffers. `total` includes the header.
    fn write_parts<'p>(&mut self, header: Header, pieces: impl Iterator<Item = Segment<'p>>, total: usize) -> Result<(), Refusal> {
        self.rooms.clear();
        self.chains.clear();
        let mut found = 0;
        while found < total {
            if !self.chains.is_empty() && !self.mergeable {
                return Err(Refusal::Drop(TxDrop::TooLong));
            }
            let (head, chain) = self.chain(self.taken + self.chains.len())?;
            let before = self.rooms.len();
            match chain {
                Chain::Whole(room) => self.rooms.push(room),
                Chain::First(descriptor) => self.ring.memory.write_chain(head, descriptor, &mut self.rooms)?,
                Chain::Beyond => return Err(RingError::Index { head, index: head }.into()),
            }
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
        self.ring.memory.write_used(self.ring.next().wrapping_add(self.taken as u16), head, written as u32);
        self.taken += 1;
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

//! The driver's side of virtio-net: a guest without the guest.
//!
//! [`Ram`] is a guest's memory, shared by a file as a front end shares it. A [`DriverRing`] is a split ring in it as a driver fills and reads it, and
//! also lets a test write what no driver would. A [`Transmitter`] and a [`Receiver`] are what a virtio-net driver makes of a ring.
//!
//! All of it uses vm-memory's checked accesses, so it can be wrong in other ways than the switch is.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vhost_backend::memory::{Memory, RegionSpec, RingAddresses};
use vhost_backend::ring::RingSetup;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// Descriptor flag: the chain goes on at `next`.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes to the buffer.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// VIRTIO_RING_F_INDIRECT_DESC.
pub const F_INDIRECT: u64 = 1 << 28;
/// VIRTIO_RING_F_EVENT_IDX.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
pub const F_VERSION_1: u64 = 1 << 32;
/// VIRTIO_NET_F_MRG_RXBUF.
pub const F_MRG_RXBUF: u64 = 1 << 15;

/// A guest's memory, in one shared file.
#[derive(Debug)]
pub struct Ram {
    file: File,
    regions: Vec<RegionSpec>,
    memory: GuestMemoryMmap<()>,
}

impl Ram {
    /// Memory with regions at these guest addresses, of these sizes (whole pages), in the order of their addresses.
    pub fn new(regions: &[(u64, u64)]) -> Arc<Self> {
        let file = File::from(rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd"));
        let mut offset = 0;
        let mut specs = Vec::new();
        for &(guest_address, size) in regions {
            // Any address will do that is not the guest's nor ours.
            specs.push(RegionSpec { guest_address, size, user_address: 0x5500_0000_0000 + guest_address, offset });
            offset += size;
        }
        file.set_len(offset).expect("a sized memfd");
        let ranges = specs.iter().map(|spec| {
            let file = FileOffset::new(file.try_clone().expect("a descriptor"), spec.offset);
            (GuestAddress(spec.guest_address), spec.size as usize, Some(file))
        });
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges.collect::<Vec<_>>()).expect("mapped memory");
        Arc::new(Self { file, regions: specs, memory })
    }

    /// The regions, all in [`Ram::file`].
    pub fn regions(&self) -> &[RegionSpec] {
        &self.regions
    }

    /// The file that the regions are in.
    pub fn file(&self) -> File {
        self.file.try_clone().expect("a descriptor")
    }

    /// The memory, as vm-memory sees it.
    pub fn memory(&self) -> &GuestMemoryMmap<()> {
        &self.memory
    }

    /// The memory, mapped by the back end.
    pub fn map(&self) -> Arc<Memory> {
        Arc::new(
            self.regions.iter().fold(Memory::new(), |memory, &spec| memory.with(spec, self.file()).expect("the back end maps the memory")),
        )
    }

    /// The front end's address of a guest address.
    pub fn user(&self, address: u64) -> u64 {
        let region =
            self.regions.iter().find(|r| (r.guest_address..r.guest_address + r.size).contains(&address)).expect("an address in a region");
        address - region.guest_address + region.user_address
    }

    /// Reads guest memory.
    pub fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).expect("readable guest memory");
        bytes
    }

    /// Writes guest memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).expect("writable guest memory");
    }

    /// All bytes, region after region, for comparing.
    pub fn dump(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut file = self.file();
        file.seek(SeekFrom::Start(0)).expect("a seekable memfd");
        file.read_to_end(&mut bytes).expect("a readable memfd");
        bytes
    }

    fn load(&self, address: u64) -> u16 {
        u16::from_le(self.memory.load(GuestAddress(address), Ordering::Acquire).expect("an aligned address in guest memory"))
    }

    fn store(&self, address: u64, value: u16) {
        self.memory.store(value.to_le(), GuestAddress(address), Ordering::Release).expect("an aligned address in guest memory");
    }
}

/// An eventfd, as a front end passes it for kicks, calls and errors.
#[derive(Debug)]
pub struct Event(File);

impl Default for Event {
    fn default() -> Self {
        let fd: OwnedFd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("an eventfd");
        Self(fd.into())
    }
}

impl Event {
    /// The descriptor to be passed.
    pub fn file(&self) -> File {
        self.0.try_clone().expect("a descriptor")
    }

    /// Signals it.
    pub fn signal(&self) {
        (&self.0).write_all(&1u64.to_ne_bytes()).expect("a writable eventfd");
    }

    /// How often it was signalled since the last call.
    pub fn take(&self) -> u64 {
        let mut count = [0; 8];
        (&self.0).read(&mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its guest address.
    pub address: u64,
    /// Its length.
    pub len: u32,
    /// Whether it is for the device to write to.
    pub writable: bool,
}

/// A split ring, as its driver sees it.
#[derive(Debug)]
pub struct DriverRing {
    ram: Arc<Ram>,
    size: u16,
    at: u64,
    event_idx: bool,
    free: Vec<u16>,
    /// The descriptors of each chain that the device has, by its head.
    chains: Vec<Vec<u16>>,
    next_available: u16,
    published: u16,
    next_used: u16,
    /// Notifies the device.
    pub kick: Event,
    /// Notifies the driver.
    pub call: Event,
    /// Tells of a fault.
    pub error: Event,
}

impl DriverRing {
    /// The bytes that a ring of `size` entries takes.
    pub const fn footprint(size: u16) -> u64 {
        Self::used_offset(size) + (4 + 8 * size as u64 + 2).next_multiple_of(64)
    }

    const fn used_offset(size: u16) -> u64 {
        (16 * size as u64 + 4 + 2 * size as u64 + 2).next_multiple_of(64)
    }

    /// A ring of `size` entries at a guest address, which must be a multiple of 16.
    pub fn new(ram: &Arc<Ram>, at: u64, size: u16, event_idx: bool) -> Self {
        ram.write(at, &vec![0; Self::footprint(size) as usize]);
        Self {
            ram: ram.clone(),
            size,
            at,
            event_idx,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            next_available: 0,
            published: 0,
            next_used: 0,
            kick: Event::default(),
            call: Event::default(),
            error: Event::default(),
        }
    }

    /// What the back end needs to serve the ring.
    pub fn setup(&self, memory: Arc<Memory>, features: u64) -> RingSetup {
        RingSetup {
            name: "the ring under test".into(),
            memory,
            size: self.size,
            addresses: self.addresses(),
            next: self.used_index(),
            features: features | if self.event_idx { F_EVENT_IDX } else { 0 },
            call: Some(self.call.file()),
            error: Some(self.error.file()),
            breaks: Arc::new(AtomicU64::new(0)),
        }
    }

    /// The ring's areas in the front end's addresses.
    pub fn addresses(&self) -> RingAddresses {
        let user = |address| self.ram.user(address);
        RingAddresses { descriptors: user(self.at), available: user(self.available_at()), used: user(self.used_at()) }
    }

    /// The number of entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The guest address of the descriptor table.
    pub fn descriptors_at(&self) -> u64 {
        self.at
    }

    /// The guest address of the available ring.
    pub fn available_at(&self) -> u64 {
        self.at + 16 * u64::from(self.size)
    }

    /// The guest address of the used ring.
    pub fn used_at(&self) -> u64 {
        self.at + Self::used_offset(self.size)
    }

    /// How many descriptors are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Writes a descriptor of the table.
    pub fn write_descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.ram.write(self.at + 16 * u64::from(index), &descriptor(address, len, flags, next));
    }

    /// Makes `buffers` available as one chain, once published. Returns its head, or `None` if there are too few descriptors.
    pub fn offer(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || buffers.len() > self.free.len() {
            return None;
        }
        let chain = self.free.split_off(self.free.len() - buffers.len());
        for (i, (&index, buffer)) in chain.iter().zip(buffers).enumerate() {
            let (flags, next) = chain.get(i + 1).map_or((0, 0), |&next| (NEXT, next));
            self.write_descriptor(index, buffer.address, buffer.len, flags | if buffer.writable { WRITE } else { 0 }, next);
        }
        let head = chain[0];
        self.chains[usize::from(head)] = chain;
        self.make_available(head);
        Some(head)
    }

    /// As [`DriverRing::offer`], by one descriptor and an indirect table that is written to `table`.
    pub fn offer_indirect(&mut self, buffers: &[Buffer], table: u64) -> Option<u16> {
        let head = self.free.pop()?;
        for (i, buffer) in buffers.iter().enumerate() {
            let next = if i + 1 < buffers.len() { NEXT } else { 0 };
            let flags = next | if buffer.writable { WRITE } else { 0 };
            self.ram.write(table + 16 * i as u64, &descriptor(buffer.address, buffer.len, flags, i as u16 + 1));
        }
        self.write_descriptor(head, table, 16 * buffers.len() as u32, INDIRECT, 0);
        self.chains[usize::from(head)] = vec![head];
        self.make_available(head);
        Some(head)
    }

    /// Writes a head into the available ring, as the next entry to be published, whatever it may be.
    pub fn make_available(&mut self, head: u16) {
        self.ram.store(self.available_at() + 4 + 2 * u64::from(self.next_available % self.size), head);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Publishes what was made available, and says whether the device asked to be notified of it.
    pub fn publish(&mut self) -> bool {
        let before = self.published;
        self.set_available_index(self.next_available);
        self.published = self.next_available;
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.event_idx { need_event(self.available_event(), self.published, before) } else { self.used_flags() & 1 == 0 }
    }

    /// Publishes, and kicks the device if it asked for it.
    pub fn publish_and_kick(&mut self) {
        if self.publish() {
            self.kick.signal();
        }
    }

    /// Takes the next chain that the device gave back: its head, and the bytes written to it.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if self.used_index() == self.next_used {
            return None;
        }
        let (head, written) = self.used_entry(self.next_used);
        self.next_used = self.next_used.wrapping_add(1);
        let chain = std::mem::take(self.chains.get_mut(usize::from(head)).expect("a head within the table"));
        assert!(!chain.is_empty(), "the device gave chain {head} back, which it does not have");
        self.free.extend(chain);
        Some((head, written))
    }

    /// Asks for a notification of the next chain that is given back, or for none, and says whether there is one already.
    pub fn want_calls(&mut self, wanted: bool) -> bool {
        if self.event_idx {
            self.set_used_event(if wanted { self.next_used } else { self.next_used.wrapping_sub(1) });
        } else {
            self.set_available_flags(u16::from(!wanted));
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        self.used_index() != self.next_used
    }

    /// Writes the available index.
    pub fn set_available_index(&self, index: u16) {
        self.ram.store(self.available_at() + 2, index);
    }

    /// Writes the flags of the available ring.
    pub fn set_available_flags(&self, flags: u16) {
        self.ram.store(self.available_at(), flags);
    }

    /// Writes the used index to be notified of.
    pub fn set_used_event(&self, index: u16) {
        self.ram.store(self.available_at() + 4 + 2 * u64::from(self.size), index);
    }

    /// The flags of the used ring.
    pub fn used_flags(&self) -> u16 {
        self.ram.load(self.used_at())
    }

    /// The used index.
    pub fn used_index(&self) -> u16 {
        self.ram.load(self.used_at() + 2)
    }

    /// The available index that the device asked to be notified of.
    pub fn available_event(&self) -> u16 {
        self.ram.load(self.used_at() + 4 + 8 * u64::from(self.size))
    }

    /// The entry of the used ring for an index: a head and the bytes written.
    pub fn used_entry(&self, index: u16) -> (u16, u32) {
        let bytes = self.ram.read(self.used_at() + 4 + 8 * u64::from(index % self.size), 8);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        (u16::try_from(word(0)).expect("a head of 16 bits"), word(4))
    }
}

/// The bytes of a descriptor.
pub fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// Whether passing from `before` to `now` passes the index asked for (virtio 1.2, 2.7.7.2).
pub fn need_event(asked: u16, now: u16, before: u16) -> bool {
    now.wrapping_sub(asked).wrapping_sub(1) < now.wrapping_sub(before)
}

/// The header before each frame (virtio 1.2, 5.1.6), of 12 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub struct NetHeader {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
    pub num_buffers: u16,
}

impl NetHeader {
    /// The length in memory.
    pub const LEN: usize = 12;

    /// The bytes in memory.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let fields = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        for (to, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Reads the header from the first bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }
}

/// The buffers of a ring: as many bytes for each descriptor.
#[derive(Clone, Copy, Debug)]
struct Buffers {
    at: u64,
    stride: u32,
}

impl Buffers {
    fn of(&self, descriptor: u16) -> u64 {
        self.at + u64::from(descriptor) * u64::from(self.stride)
    }
}

/// A driver's transmit queue.
#[derive(Debug)]
pub struct Transmitter {
    /// The ring, for what the methods here do not do.
    pub ring: DriverRing,
    buffers: Buffers,
}

impl Transmitter {
    /// The bytes that a queue takes.
    pub const fn footprint(size: u16, stride: u32) -> u64 {
        DriverRing::footprint(size) + size as u64 * stride as u64
    }

    /// A queue at a guest address with a buffer of `stride` bytes for each descriptor.
    pub fn new(ram: &Arc<Ram>, at: u64, size: u16, stride: u32, event_idx: bool) -> Self {
        let ring = DriverRing::new(ram, at, size, event_idx);
        Self { ring, buffers: Buffers { at: at + DriverRing::footprint(size), stride } }
    }

    /// Queues a frame, once published; header and frame together take as many buffers as they need. False if there are too few.
    pub fn push(&mut self, header: NetHeader, frame: &[u8]) -> bool {
        let bytes = [&header.to_bytes(), frame].concat();
        let cuts: Vec<usize> = bytes.chunks(self.buffers.stride as usize).map(<[u8]>::len).collect();
        self.push_cut(&bytes, &cuts)
    }

    /// Queues `bytes`, header included, cut into buffers of these lengths, each at most a stride.
    pub fn push_cut(&mut self, bytes: &[u8], cuts: &[usize]) -> bool {
        self.reclaim();
        if cuts.len() > self.ring.free.len() {
            return false;
        }
        // `offer` takes the last free descriptors, and each has its own buffer.
        let chain = self.ring.free[self.ring.free.len() - cuts.len()..].to_vec();
        let mut from = 0;
        let buffers: Vec<Buffer> = chain
            .iter()
            .zip(cuts)
            .map(|(&index, &len)| {
                assert!(len <= self.buffers.stride as usize);
                let address = self.buffers.of(index);
                self.ring.ram.write(address, &bytes[from..from + len]);
                from += len;
                Buffer { address, len: len as u32, writable: false }
            })
            .collect();
        self.ring.offer(&buffers).is_some()
    }

    /// Sends one frame with an empty header: queues, publishes and kicks. False if the ring is full.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let queued = self.push(NetHeader::default(), frame);
        self.ring.publish_and_kick();
        queued
    }

    /// Takes back what the device has sent, and says how many frames that was.
    pub fn reclaim(&mut self) -> usize {
        std::iter::from_fn(|| self.ring.take_used()).count()
    }
}

/// A driver's receive queue, with mergeable buffers or without.
#[derive(Debug)]
pub struct Receiver {
    /// The ring, for what the methods here do not do.
    pub ring: DriverRing,
    buffers: Buffers,
    /// How many descriptors make a buffer.
    parts: u16,
}

impl Receiver {
    /// The bytes that a queue takes.
    pub const fn footprint(size: u16, stride: u32) -> u64 {
        Transmitter::footprint(size, stride)
    }

    /// A queue at a guest address; each buffer is a chain of `parts` descriptors with `stride` bytes each.
    pub fn new(ram: &Arc<Ram>, at: u64, size: u16, stride: u32, parts: u16, event_idx: bool) -> Self {
        let ring = DriverRing::new(ram, at, size, event_idx);
        Self { ring, buffers: Buffers { at: at + DriverRing::footprint(size), stride }, parts }
    }

    /// Gives the device all free buffers, at most `max`, and kicks it if it asked for that. Returns how many.
    pub fn fill(&mut self, max: usize) -> usize {
        let mut count = 0;
        while count < max && self.ring.free.len() >= usize::from(self.parts) {
            let chain = self.ring.free[self.ring.free.len() - usize::from(self.parts)..].to_vec();
            let buffer = |&index: &u16| Buffer { address: self.buffers.of(index), len: self.buffers.stride, writable: true };
            let buffers: Vec<Buffer> = chain.iter().map(buffer).collect();
            self.ring.offer(&buffers).expect("free descriptors");
            count += 1;
        }
        self.ring.publish_and_kick();
        count
    }

    /// Takes the next frame out of its buffers, which are not given back to the device before [`Receiver::fill`].
    pub fn receive(&mut self) -> Option<(NetHeader, Vec<u8>)> {
        let mut bytes = self.take_buffer()?;
        let header = NetHeader::from_bytes(&bytes);
        for _ in 1..header.num_buffers {
            bytes.extend(self.take_buffer().expect("all buffers of a frame are published together"));
        }
        Some((header, bytes.split_off(NetHeader::LEN)))
    }

    /// Takes the next buffer: all bytes that were written to it, header included.
    pub fn take_buffer(&mut self) -> Option<Vec<u8>> {
        if self.ring.used_index() == self.ring.next_used {
            return None;
        }
        let (head, _) = self.ring.used_entry(self.ring.next_used);
        let chain = self.ring.chains[usize::from(head)].clone();
        let (_, written) = self.ring.take_used()?;
        let mut bytes = Vec::new();
        for index in chain {
            let len = (written as usize - bytes.len()).min(self.buffers.stride as usize);
            bytes.extend(self.ring.ram.read(self.buffers.of(index), len));
        }
        assert_eq!(bytes.len(), written as usize, "more written than the buffers hold");
        Some(bytes)
    }
}

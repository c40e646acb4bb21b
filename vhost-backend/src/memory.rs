//! Guest memory: the one room for `unsafe` in this crate.
//!
//! A front end shares the guest's memory as files: each region of guest-physical addresses is a piece of a file, which is mapped once, when the
//! front end announces it. Everything a ring does is then loads and stores through these mappings, while the guest runs and writes to the
//! same bytes. What has to hold for that to be sound, and who sees to it:
//!
//! - **An address from a guest is a number until it is checked.** [`Memory`] translates guest-physical addresses (descriptors) and the front
//!   end's own addresses (where the rings are), and only a range that lies in mapped regions becomes a pointer. A pointer lives in a [`Segment`]
//!   (readable), a `Room` (writable) or a `RingMemory` (the three areas of a ring), whose fields nobody else can set.
//! - **A pointer does not outlive its mapping.** A [`Memory`] is immutable and counted: adding or removing a region makes a new one. A ring holds
//!   its memory as long as it lives, segments and rooms borrow from the ring, and what is put on loan to a batch is taken back by
//!   [`datapath::frame::lend`] before it returns. A mapping goes when the last ring over it has been taken from its worker (see [`crate::slot`]).
//! - **No Rust reference to guest memory exists.** The guest may write at any time, so bytes are copied in and out by raw pointers, indices and
//!   descriptors are read once, by volatile or atomic accesses, into values of our own, and only those are judged. A race yields other bytes,
//!   never another address. Copies allow for overlap: two guests' buffers may be the same memory.
//! - **A mapping stays readable.** A region that ends beyond its file is refused, since touching a page beyond the end of a file raises SIGBUS. *What
//!   remains:* a front end that shrinks its file later (ftruncate) still makes the next access raise SIGBUS, which ends the process. A guest
//!   can't do that; a hostile front end can, unless the file is sealed against it (F_SEAL_SHRINK, which QEMU's memfd back end sets by default).
//!   [`Memory::is_sealed`] says whether all files are.
//!
//! Regions are few, and a ring's buffers lie mostly in one, so each ring remembers the region it hit last. A buffer that runs over the end of a
//! region goes on in the next one if the two touch in guest-physical addresses; it is then two segments.
//!
//! The orderings are virtio's (1.2, 2.7.13 and 2.7.14): an index is read with acquire before the entries it covers, and written with release after them;
//! between publishing an index and reading the other side's wish for notifications lies a full fence (`fence`).

use std::cell::Cell;
use std::fs::File;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use datapath::memory::Segment;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{FileOffset, MmapRegion};

/// The most regions that a memory has.
pub const MAX_REGIONS: usize = 64;

/// Where a region lies: for the guest, for its front end, and in the file it is shared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// The guest-physical address of its first byte.
    pub guest_address: u64,
    /// Its length in bytes.
    pub size: u64,
    /// The address of its first byte in the front end's process.
    pub user_address: u64,
    /// The offset of its first byte in the file.
    pub offset: u64,
}

impl From<&VhostUserMemoryRegion> for RegionSpec {
    fn from(region: &VhostUserMemoryRegion) -> Self {
        Self { guest_address: region.guest_phys_addr, size: region.memory_size, user_address: region.user_addr, offset: region.mmap_offset }
    }
}

/// Why guest memory was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No bytes, or an end beyond the address space.
    #[error("the memory region at guest address {0:#x} is empty or runs over the end of the address space")]
    Extent(u64),
    /// The file ends before the region does.
    #[error("the memory region at guest address {address:#x} ends at byte {end:#x} of its file, which has only {file:#x} bytes")]
    BeyondFile {
        /// The region's guest address.
        address: u64,
        /// Where it ends in the file.
        end: u64,
        /// The length of the file.
        file: u64,
    },
    /// Guest or user addresses belong to a region already.
    #[error("the memory region at guest address {0:#x} overlaps the one at {1:#x}")]
    Overlap(u64, u64),
    /// More than [`MAX_REGIONS`].
    #[error("more than {MAX_REGIONS} memory regions")]
    TooMany,
    /// There is no such region to remove.
    #[error("there is no memory region of {1:#x} bytes at guest address {0:#x} to remove")]
    Unknown(u64, u64),
    /// The file can't be examined.
    #[error("the file of the memory region at guest address {0:#x} can't be examined: {1}")]
    File(u64, std::io::Error),
    /// The file can't be mapped.
    #[error("the file of the memory region at guest address {0:#x} can't be mapped: {1}")]
    Map(u64, vm_memory::mmap::MmapRegionError),
}

/// One region and its mapping. Invariant: `host ..host + spec.size` is mapped, readable and writable, as long as `mapping` lives.
#[derive(Debug)]
struct Region {
    spec: RegionSpec,
    /// The offset of the region's first byte in the mapping.
    skip: usize,
    sealed: bool,
    mapping: MmapRegion<()>,
}

impl Region {
    fn map(spec: RegionSpec, file: File) -> Result<Self, MemoryError> {
        let address = spec.guest_address;
        let end = spec.offset.checked_add(spec.size);
        let (Some(end), Some(_), Some(_)) = (end, address.checked_add(spec.size), spec.user_address.checked_add(spec.size)) else {
            return Err(MemoryError::Extent(address));
        };
        if spec.size == 0 {
            return Err(MemoryError::Extent(address));
        }
        let stat = rustix::fs::fstat(&file).map_err(|e| MemoryError::File(address, e.into()))?;
        let file_size = u64::try_from(stat.st_size).unwrap_or(0);
        if end > file_size {
            return Err(MemoryError::BeyondFile { address, end, file: file_size });
        }
        // A file of huge pages is mapped and unmapped in whole ones, and they are its block size.
        let block =
            u64::try_from(stat.st_blksize).ok().filter(|size| size.is_power_of_two()).unwrap_or(1).max(rustix::param::page_size() as u64);
        let first = spec.offset & !(block - 1);
        let length =
            end.checked_next_multiple_of(block).and_then(|end| usize::try_from(end - first).ok()).ok_or(MemoryError::Extent(address))?;
        let sealed = rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(rustix::fs::SealFlags::SHRINK));
        let mapping = MmapRegion::from_file(FileOffset::new(file, first), length).map_err(|e| MemoryError::Map(address, e))?;
        Ok(Self { spec, skip: (spec.offset - first) as usize, sealed, mapping })
    }

    /// The address of the byte at `offset`, which must be within the region.
    fn host(&self, offset: u64) -> NonNull<u8> {
        debug_assert!(offset < self.spec.size);
        // SAFETY: `map` mapped skip + size bytes, and offset < size.
        unsafe { NonNull::new_unchecked(self.mapping.as_ptr().add(self.skip + offset as usize)) }
    }
}

/// The memory of a guest, as its front end announced it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// In the order of their guest addresses; none overlap, in guest or user addresses.
    regions: Vec<Arc<Region>>,
}

impl Memory {
    /// Memory with no regions.
    pub fn new() -> Self {
        Self::default()
    }

    /// This memory and one region more, mapped from `file`.
    pub fn with(&self, spec: RegionSpec, file: File) -> Result<Self, MemoryError> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let region = Region::map(spec, file)?;
        let overlap = |a: u64, b: u64, size: u64| a < b + size && b < a + spec.size;
        let clash = self.regions.iter().map(|other| other.spec).find(|other| {
            overlap(spec.guest_address, other.guest_address, other.size) || overlap(spec.user_address, other.user_address, other.size)
        });
        if let Some(other) = clash {
            return Err(MemoryError::Overlap(spec.guest_address, other.guest_address));
        }
        let mut regions = self.regions.clone();
        let at = regions.partition_point(|other| other.spec.guest_address < spec.guest_address);
        regions.insert(at, Arc::new(region));
        Ok(Self { regions })
    }

    /// This memory without a region, named by its addresses and size; its offset does not matter.
    pub fn without(&self, spec: RegionSpec) -> Result<Self, MemoryError> {
        let same = |region: &Arc<Region>| RegionSpec { offset: spec.offset, ..region.spec } == spec;
        let at = self.regions.iter().position(same).ok_or(MemoryError::Unknown(spec.guest_address, spec.size))?;
        let mut regions = self.regions.clone();
        regions.remove(at);
        Ok(Self { regions })
    }

    /// How many regions there are.
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// Whether every region's file is sealed against shrinking, so that no access can raise SIGBUS.
    pub fn is_sealed(&self) -> bool {
        self.regions.iter().all(|region| region.sealed)
    }

    /// The region that holds a guest address.
    fn region(&self, guest_address: u64) -> Option<&Region> {
        let after = self.regions.partition_point(|region| region.spec.guest_address <= guest_address);
        let region = self.regions.get(after.checked_sub(1)?)?;
        (guest_address - region.spec.guest_address < region.spec.size).then_some(region)
    }

    /// The address of `len` bytes (not zero) at a front-end address. They must lie in one region, and be aligned to `align`.
    fn user(&self, address: u64, len: u64, align: u64) -> Option<NonNull<u8>> {
        let region = self.regions.iter().find(|region| address.wrapping_sub(region.spec.user_address) < region.spec.size)?;
        let offset = address - region.spec.user_address;
        let host = region.host(offset);
        // The host's address is what has to be aligned: a region may begin anywhere in its file.
        (len <= region.spec.size - offset && (host.as_ptr() as u64).is_multiple_of(align)).then_some(host)
    }
}

/// Where a ring's three areas are, in the front end's addresses (SET_VRING_ADDR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring: what the driver hands over.
    pub available: u64,
    /// The used ring: what the device hands back.
    pub used: u64,
}

/// One entry of a descriptor table (virtio 1.2, 2.7.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// The size of a descriptor in memory.
    pub const SIZE: usize = 16;

    fn from_words(address: u64, rest: u64) -> Self {
        let rest = u64::from_le(rest);
        Self { address: u64::from_le(address), len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }

    /// The descriptor at `index` of an indirect table, or `None` beyond its end.
    pub fn of_table(table: &Segment<'_>, index: u16) -> Option<Self> {
        let mut bytes = [0; Self::SIZE];
        let copied = table.part(usize::from(index) * Self::SIZE, Self::SIZE).copy_to(&mut bytes);
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        (copied == Self::SIZE).then(|| Self::from_words(word(0), word(8)))
    }
}

/// The stretch of guest addresses that was hit last. Invariant: `host ..host + len` is mapped as long as the memory it was taken from.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: u64,
    len: u64,
    host: NonNull<u8>,
}

/// The three areas of a ring in guest memory, and the memory its descriptors point into. Every position is taken modulo the ring's size.
#[derive(Debug)]
pub(crate) struct RingMemory {
    // Invariant: each pointer is aligned for what is behind it and has the whole area for `mask + 1` entries mapped behind it, by `memory`.
    descriptors: NonNull<u8>,
    available: NonNull<u8>,
    used: NonNull<u8>,
    mask: u16,
    window: Cell<Window>,
    memory: Arc<Memory>,
}

// SAFETY: the pointers are into mappings that `memory` keeps, which are valid in any thread.
unsafe impl Send for RingMemory {}

impl RingMemory {
    /// Finds the areas of a ring of `size` entries, a power of two. Fails with the name of the area that does not lie, aligned, in one region.
    pub fn new(memory: Arc<Memory>, size: u16, addresses: RingAddresses) -> Result<Self, &'static str> {
        assert!(size.is_power_of_two());
        let entries = u64::from(size);
        // Both rings are followed by an event index (virtio 1.2, 2.7.6 and 2.7.8).
        let descriptors = memory.user(addresses.descriptors, entries * Descriptor::SIZE as u64, 16).ok_or("descriptor table")?;
        let available = memory.user(addresses.available, 4 + 2 * entries + 2, 2).ok_or("available ring")?;
        let used = memory.user(addresses.used, 4 + 8 * entries + 2, 4).ok_or("used ring")?;
        let window = Cell::new(Window { start: 0, len: 0, host: NonNull::dangling() });
        Ok(Self { descriptors, available, used, mask: size - 1, window, memory })
    }

    /// The number of entries.
    pub fn size(&self) -> u16 {
        self.mask + 1
    }

    fn index(&self, area: NonNull<u8>, offset: usize) -> &AtomicU16 {
        // SAFETY: callers pass an area and the even offset of a u16 field in it; it stays mapped while `self` does. Both sides access the
        // field as an atomic of its own size, through which any value may appear.
        unsafe { AtomicU16::from_ptr(area.as_ptr().add(offset).cast()) }
    }

    /// How far the driver got, for reading the entries before it.
    pub fn available_index(&self) -> u16 {
        u16::from_le(self.index(self.available, 2).load(Ordering::Acquire))
    }

    /// The head of the chain that the driver made available at `position`.
    #[inline(always)]
    pub fn available_entry(&self, position: u16) -> u16 {
        u16::from_le(self.index(self.available, 4 + 2 * usize::from(position & self.mask)).load(Ordering::Relaxed))
    }

    /// Whether the driver's flags say that it wants no notifications.
    pub fn available_flags(&self) -> u16 {
        u16::from_le(self.index(self.available, 0).load(Ordering::Relaxed))
    }

    /// The used index whose passing the driver wants to be notified of.
    pub fn used_event(&self) -> u16 {
        u16::from_le(self.index(self.available, 4 + 2 * usize::from(self.size())).load(Ordering::Relaxed))
    }

    /// How far the used ring was filled, by us or by whoever served the ring before.
    pub fn used_index(&self) -> u16 {
        u16::from_le(self.index(self.used, 2).load(Ordering::Relaxed))
    }

    /// Publishes the entries of the used ring before `index`.
    pub fn publish_used(&self, index: u16) {
        self.index(self.used, 2).store(index.to_le(), Ordering::Release);
    }

    /// Writes our flags.
    pub fn set_used_flags(&self, flags: u16) {
        self.index(self.used, 0).store(flags.to_le(), Ordering::Relaxed);
    }

    /// Writes the available index whose passing we want to be notified of.
    pub fn set_available_event(&self, index: u16) {
        self.index(self.used, 4 + 8 * usize::from(self.size())).store(index.to_le(), Ordering::Relaxed);
    }

    /// Writes an entry of the used ring: `written` bytes were written to the chain that begins with the descriptor `head`.
    #[inline(always)]
    pub fn write_used(&self, position: u16, head: u16, written: u32) {
        let entry = (u64::from(head) | u64::from(written) << 32).to_le();
        // SAFETY: the masked position is within the used ring, whose entries are aligned to 4 only.
        unsafe { self.used.as_ptr().add(4 + 8 * usize::from(position & self.mask)).cast::<u64>().write_unaligned(entry) };
    }

    /// A copy of the descriptor at `index`, or `None` beyond the table's end.
    #[inline(always)]
    pub fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index > self.mask {
            return None;
        }
        // SAFETY: the index is within the table, which is aligned to 16. Each word is read once; whatever they hold is judged by the caller.
        let (address, rest) = unsafe {
            let at = self.descriptors.as_ptr().add(usize::from(index) * Descriptor::SIZE).cast::<u64>();
            (at.read_volatile(), at.add(1).read_volatile())
        };
        Some(Descriptor::from_words(address, rest))
    }

    /// Brings the descriptor at `index` closer, if there is one.
    #[inline(always)]
    pub fn prefetch_descriptor(&self, index: u16) {
        datapath::memory::prefetch(self.descriptors.as_ptr().wrapping_add(usize::from(index & self.mask) * Descriptor::SIZE));
    }

    /// The address of the first of `len` bytes at a guest address, and how many of them lie in one region, one at least. `None`: it is in no region.
    #[inline(always)]
    fn locate(&self, address: u64, len: u32) -> Option<(NonNull<u8>, usize)> {
        let mut window = self.window.get();
        if address.wrapping_sub(window.start) >= window.len {
            window = self.find_window(address)?;
        }
        let offset = address - window.start;
        let len = u64::from(len).min(window.len - offset) as usize;
        // SAFETY: offset < window.len, and the whole window is mapped.
        Some((unsafe { window.host.add(offset as usize) }, len))
    }

    /// Makes the region that holds a guest address the window.
    #[cold]
    #[inline(never)]
    fn find_window(&self, address: u64) -> Option<Window> {
        let region = self.memory.region(address)?;
        let window = Window { start: region.spec.guest_address, len: region.spec.size, host: region.host(0) };
        self.window.set(window);
        Some(window)
    }

    /// The `len` bytes at a guest address, to be read, if they lie in one region.
    #[inline(always)]
    pub fn segment(&self, address: u64, len: u32) -> Option<Segment<'_>> {
        let (start, found) = self.locate(address, len)?;
        // SAFETY: `found` bytes are mapped from `start` as long as `self.memory` lives, that is `self`.
        (found == len as usize).then(|| unsafe { Segment::new(start, found) })
    }

    /// The `len` bytes at a guest address, to be written, if they lie in one region.
    #[inline(always)]
    pub fn room(&self, address: u64, len: u32) -> Option<Room<'_>> {
        let (start, found) = self.locate(address, len)?;
        (found == len as usize).then_some(Room { start, len: found, ring: PhantomData })
    }

    /// Adds the `len` bytes at a guest address to `segments`, to be read. False if they do not all lie in regions.
    pub fn segments<'m>(&'m self, address: u64, len: u32, segments: &mut Vec<Segment<'m>>) -> bool {
        // SAFETY: as in `segment`.
        self.split(address, len, |start, len| segments.push(unsafe { Segment::new(start, len) }))
    }

    /// Adds the `len` bytes at a guest address to `rooms`, to be written. False if they do not all lie in regions.
    pub fn rooms<'m>(&'m self, address: u64, len: u32, rooms: &mut Vec<Room<'m>>) -> bool {
        self.split(address, len, |start, len| rooms.push(Room { start, len, ring: PhantomData }))
    }

    #[inline(always)]
    fn split(&self, mut address: u64, mut len: u32, mut add: impl FnMut(NonNull<u8>, usize)) -> bool {
        while len > 0 {
            let Some((start, found)) = self.locate(address, len) else { return false };
            add(start, found);
            len -= found as u32;
            // No region wraps around, so an address beyond the last one is in none.
            address = address.wrapping_add(found as u64);
        }
        true
    }
}

/// A full fence: what this thread wrote is visible to the other side before what it reads next is read.
pub(crate) fn fence() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// The first `N` bytes of a segment, read once. `None` if it is shorter.
#[inline(always)]
pub(crate) fn read_array<const N: usize>(from: &Segment<'_>) -> Option<[u8; N]> {
    // SAFETY: N bytes are readable by the invariant of segments; an array of bytes needs no alignment.
    (from.len() >= N).then(|| unsafe { from.as_ptr().cast::<[u8; N]>().read_volatile() })
}

/// A run of bytes in a guest's receive buffer, to be written to. Invariant: mapped and writable for `'m`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'m> {
    start: NonNull<u8>,
    len: usize,
    ring: PhantomData<&'m [u8]>,
}

// SAFETY: a room is an address that stays writable for its lifetime, whichever thread writes.
unsafe impl Send for Room<'_> {}

impl Room<'_> {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address, for a prefetch.
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// The part from `offset` to the end.
    #[must_use]
    pub fn skip(&self, offset: usize) -> Self {
        let offset = offset.min(self.len);
        // SAFETY: within, or one past, the room's bytes.
        Self { start: unsafe { self.start.add(offset) }, len: self.len - offset, ring: PhantomData }
    }

    /// Writes `bytes` to the start. False, and nothing done, if the room is shorter.
    #[inline(always)]
    pub fn write_array<const N: usize>(&self, bytes: [u8; N]) -> bool {
        if self.len < N {
            return false;
        }
        // SAFETY: N bytes are writable; an array of bytes needs no alignment.
        unsafe { self.start.as_ptr().cast::<[u8; N]>().write_volatile(bytes) };
        true
    }

    /// Copies the first bytes of `from` to the start, as many as both have, and says how many.
    #[inline(always)]
    pub fn copy_from(&self, from: &Segment<'_>) -> usize {
        let len = self.len.min(from.len());
        // SAFETY: `len` bytes are readable and writable by the invariants of both. `copy` allows for overlap, which a guest could arrange. No
        // reference to these bytes exists: nobody makes one to guest memory, and a segment of our own memory is not guest memory.
        unsafe { std::ptr::copy(from.as_ptr(), self.start.as_ptr(), len) };
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const PAGE: u64 = 4096;

    fn file(pages: u64) -> File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("memory", flags).expect("a memfd"));
        file.set_len(pages * PAGE).expect("a sized memfd");
        file
    }

    fn spec(guest_address: u64, size: u64, offset: u64) -> RegionSpec {
        RegionSpec { guest_address, size, user_address: guest_address.wrapping_add(0x7000_0000), offset }
    }

    /// A memory of one region that begins within a page of its file, and a ring in its second page.
    fn ring(file: &File) -> RingMemory {
        let memory =
            Memory::new().with(spec(0x10_0000, 3 * PAGE - 256, 256), file.try_clone().expect("a descriptor")).expect("mapped memory");
        let user = 0x7010_0000 + PAGE - 256;
        let addresses = RingAddresses { descriptors: user, available: user + 1024, used: user + 2048 };
        RingMemory::new(Arc::new(memory), 8, addresses).expect("a ring")
    }

    #[test]
    fn regions_come_and_go() {
        let file = file(8);
        let low = spec(0, 2 * PAGE, 0);
        let memory = Memory::new().with(low, file.try_clone().expect("a descriptor")).expect("mapped memory");
        let two = memory.with(spec(2 * PAGE, PAGE, 3 * PAGE), file.try_clone().expect("a descriptor")).expect("mapped memory");
        assert_eq!((memory.region_count(), two.region_count()), (1, 2));
        assert!(two.region(3 * PAGE - 1).is_some() && two.region(3 * PAGE).is_none());
        let rest = two.without(RegionSpec { offset: 0, ..low }).expect("it is there");
        assert!(rest.region(0).is_none() && rest.region(2 * PAGE).is_some());
        assert!(matches!(rest.without(low), Err(MemoryError::Unknown(0, size)) if size == 2 * PAGE));
    }

    #[test]
    fn regions_that_can_not_be_are_refused() {
        let file = file(4);
        let map = |memory: &Memory, spec| memory.with(spec, file.try_clone().expect("a descriptor"));
        let empty = Memory::new();
        assert!(matches!(map(&empty, spec(0, 0, 0)), Err(MemoryError::Extent(0))));
        assert!(matches!(map(&empty, spec(u64::MAX - 100, 4096, 0)), Err(MemoryError::Extent(_))));
        assert!(matches!(map(&empty, spec(0, 4096, u64::MAX - 100)), Err(MemoryError::Extent(_))));
        assert!(matches!(map(&empty, spec(0, 4 * PAGE, 1)), Err(MemoryError::BeyondFile { end: 16_385, file: 16_384, .. })));
        let one = map(&empty, spec(PAGE, 2 * PAGE, 0)).expect("mapped memory");
        for address in [1, PAGE, 3 * PAGE - 1] {
            assert!(matches!(map(&one, spec(address, PAGE, 0)), Err(MemoryError::Overlap(..))));
        }
        // The front end's addresses must be unambiguous too.
        let twin = RegionSpec { user_address: 0x7000_0000 + PAGE, ..spec(0x100_0000, PAGE, 0) };
        assert!(matches!(map(&one, twin), Err(MemoryError::Overlap(..))));
        let full = (0..MAX_REGIONS as u64).fold(empty, |memory, i| map(&memory, spec(i * PAGE, PAGE, 0)).expect("mapped memory"));
        assert!(matches!(map(&full, spec(1 << 40, PAGE, 0)), Err(MemoryError::TooMany)));
    }

    #[test]
    fn sealed_files_are_told() {
        let (open, sealed) = (file(1), file(1));
        rustix::fs::fcntl_add_seals(&sealed, rustix::fs::SealFlags::SHRINK).expect("a seal");
        let memory = Memory::new().with(spec(0, PAGE, 0), sealed).expect("mapped memory");
        assert!(memory.is_sealed());
        assert!(!memory.with(spec(PAGE, PAGE, 0), open).expect("mapped memory").is_sealed());
    }

    #[test]
    fn a_region_may_begin_anywhere_in_its_file() {
        let file = file(3);
        let ring = ring(&file);
        file.write_all_at(&[1, 2, 3], 256 + 100).expect("a written file");
        let bytes = ring.segment(0x10_0000 + 100, 3).and_then(|segment| read_array(&segment));
        assert_eq!(bytes, Some([1, 2, 3]));
        assert!(ring.room(0x10_0000 + 3 * PAGE - 256 - 2, 2).expect("room").write_array([8, 9]));
        let mut last = [0; 2];
        file.read_exact_at(&mut last, 3 * PAGE - 2).expect("a read file");
        assert_eq!(last, [8, 9]);
        assert!(ring.room(0x10_0000 + 3 * PAGE - 256 - 1, 2).is_none());
        assert!(ring.segment(0x10_0000 - 1, 1).is_none());
        assert!(ring.segment(u64::MAX, u32::MAX).is_none());
    }

    #[test]
    fn the_areas_of_a_ring_are_laid_out_as_the_standard_says() {
        let file = file(3);
        let ring = ring(&file);
        let at = |offset: u64, bytes: &[u8]| file.write_all_at(bytes, PAGE + offset).expect("a written file");
        at(3 * 16, &[1, 0, 0, 0, 0, 0, 0, 0x80, 2, 0, 0, 0, 3, 0, 4, 0]);
        assert_eq!(ring.descriptor(3), Some(Descriptor { address: 0x8000_0000_0000_0001, len: 2, flags: 3, next: 4 }));
        assert_eq!(ring.descriptor(8), None);
        at(1024, &[1, 0, 0x34, 0x12]);
        at(1024 + 4 + 2 * 5, &[7, 0]);
        at(1024 + 4 + 2 * 8, &[9, 0]);
        assert_eq!((ring.available_flags(), ring.available_index(), ring.available_entry(8 + 5), ring.used_event()), (1, 0x1234, 7, 9));
        ring.set_used_flags(1);
        ring.publish_used(0x4321);
        ring.write_used(8 + 2, 6, 0x11);
        ring.set_available_event(0x0a0b);
        let mut used = [0; 4 + 8 * 8 + 2];
        file.read_exact_at(&mut used, PAGE + 2048).expect("a read file");
        assert_eq!(used[..4], [1, 0, 0x21, 0x43]);
        assert_eq!(used[4 + 8 * 2..4 + 8 * 3], [6, 0, 0, 0, 0x11, 0, 0, 0]);
        assert_eq!(used[4 + 8 * 8..], [0x0b, 0x0a]);
        assert_eq!(ring.used_index(), 0x4321);
    }
}

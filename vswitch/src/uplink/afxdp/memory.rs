//! Memory that is shared with the kernel: the UMEM, where frames lie, and the rings that say whose they are. With [`super::sys`], the rooms for
//! `unsafe` of this module.
//!
//! The kernel is trusted, but other than guest memory all of this is written by it at any time, so no Rust reference to it is made except to atomics: frames
//! are copied in and out by raw pointers within bounds that are checked here, ring entries are read and written by volatile accesses, and a ring's
//! indices are atomic. What keeps two sides from using a frame at once is the protocol of the rings (see [`super::rx`] and [`super::tx`]); breaking it would
//! garble frames, never leave the mapping.
//!
//! The UMEM is a memfd, sealed against shrinking, so that no access to it can fail: the launcher has the kernel register it, and the switch maps it.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use datapath::memory::Segment;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::sockopt;
use rustix::net::xdp::{
    XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc, XdpMmapOffsets, XdpRingFlags,
    XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};

/// A mapping, for as long as it lives.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is an address range that any thread may use; how it is used is up to its owners here.
unsafe impl Send for Mapping {}
// SAFETY: as above; all accesses are atomic, volatile, or copies by raw pointers.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping, at an address that the kernel chooses, touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, fd, offset) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` made the mapping, and whoever uses it borrows from `self` or keeps it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The frames' memory: chunks of one size, a power of two, each named by the offset of its first byte.
#[derive(Debug)]
pub struct Umem {
    mapping: Mapping,
    chunk: u32,
}

impl Umem {
    /// Maps the `chunks` chunks of `chunk` bytes that `file` holds.
    pub fn map(file: impl AsFd, chunks: u32, chunk: u32) -> io::Result<Self> {
        let len = chunks as usize * chunk as usize;
        let sealed = rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK);
        if !sealed || rustix::fs::fstat(&file)?.st_size < len as i64 || !chunk.is_power_of_two() || len == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the memory for frames is not what it was said to be"));
        }
        Ok(Self { mapping: Mapping::new(file, 0, len)?, chunk })
    }

    /// Makes a file for so many chunks.
    pub fn file(chunks: u32, chunk: u32) -> io::Result<OwnedFd> {
        let file = rustix::fs::memfd_create("umem", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, u64::from(chunks) * u64::from(chunk))?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(file)
    }

    /// Has the kernel keep these pages for `socket` and the sockets that will share them with it. They stay when `self` is gone.
    pub fn register(&self, socket: impl AsFd) -> rustix::io::Result<()> {
        let registration = XdpUmemReg {
            addr: self.mapping.start.as_ptr() as u64,
            len: self.mapping.len as u64,
            chunk_size: self.chunk,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(socket, registration)
    }

    /// The size of a chunk in bytes.
    pub fn chunk_size(&self) -> usize {
        self.chunk as usize
    }

    /// The chunk that a byte lies in.
    #[inline(always)]
    pub fn chunk_of(&self, address: u64) -> u64 {
        address & !u64::from(self.chunk - 1)
    }

    /// The `len` bytes at `address`, if they lie in the UMEM.
    #[inline(always)]
    pub fn segment(&self, address: u64, len: u32) -> Option<Segment<'_>> {
        let at = self.locate(address, len as usize)?;
        // SAFETY: `locate` found the bytes within the mapping, which lives as long as `self`.
        Some(unsafe { Segment::new(at, len as usize) })
    }

    /// Copies all of `from` to `address`. False, and nothing done, if it would not lie in the UMEM.
    #[inline(always)]
    pub fn write(&self, address: u64, from: &Segment<'_>) -> bool {
        let Some(at) = self.locate(address, from.len()) else { return false };
        // SAFETY: the bytes are readable by the invariant of segments and writable by `locate`. `copy` allows for overlap. No reference to these bytes
        // exists, since nobody makes one to the UMEM.
        unsafe { std::ptr::copy(from.as_ptr(), at.as_ptr(), from.len()) };
        true
    }

    /// The address of a byte, for a prefetch.
    #[inline(always)]
    pub fn address(&self, address: u64) -> *const u8 {
        self.mapping.start.as_ptr().wrapping_add(address as usize)
    }

    #[inline(always)]
    fn locate(&self, address: u64, len: usize) -> Option<NonNull<u8>> {
        let address = usize::try_from(address).ok()?;
        // SAFETY: within the mapping, or one past it if there are no bytes.
        (len <= self.mapping.len && address <= self.mapping.len - len).then(|| unsafe { self.mapping.start.add(address) })
    }
}

/// What the entries of a ring are: plain numbers.
pub trait Entry: Copy {}
impl Entry for u64 {}
impl Entry for XdpDesc {}

/// One of a socket's four rings. One side produces entries, the other consumes them; each keeps its own index and reads the other's.
#[derive(Debug)]
pub struct Ring<T> {
    mapping: Mapping,
    producer: u64,
    consumer: u64,
    flags: u64,
    entries: u64,
    mask: u32,
    entry: PhantomData<T>,
}

impl<T: Entry> Ring<T> {
    fn map(socket: impl AsFd, page: u64, offsets: XdpRingOffset, size: u32) -> io::Result<Self> {
        let XdpRingOffset { producer, consumer, desc: entries, flags } = offsets;
        let unknown = || io::Error::other("the kernel lays the rings of AF_XDP sockets out in a way that is not known here");
        let flags = flags.ok_or_else(unknown)?;
        let words = [(producer, 4), (consumer, 4), (flags, 4), (entries, u64::from(size) * size_of::<T>() as u64)];
        let aligned = words[..3].iter().all(|(offset, _)| offset.is_multiple_of(4)) && entries.is_multiple_of(8) && size.is_power_of_two();
        let end = words.iter().map(|(offset, len)| offset.checked_add(*len)).try_fold(0, |most, end| end.map(|end| end.max(most)));
        let len = end.and_then(|end| usize::try_from(end).ok()).filter(|_| aligned).ok_or_else(unknown)?;
        Ok(Self { mapping: Mapping::new(socket, page, len)?, producer, consumer, flags, entries, mask: size - 1, entry: PhantomData })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: `map` mapped up to the end of each of the three words, which are aligned; both sides access them as atomics.
        unsafe { AtomicU32::from_ptr(self.mapping.start.as_ptr().add(offset as usize).cast()) }
    }

    /// How far the producer got, for reading the entries before it.
    #[inline(always)]
    pub fn producer(&self) -> u32 {
        self.word(self.producer).load(Ordering::Acquire)
    }

    /// How far the consumer got, for writing to the entries before it.
    #[inline(always)]
    pub fn consumer(&self) -> u32 {
        self.word(self.consumer).load(Ordering::Acquire)
    }

    /// Hands over the entries before `index`.
    #[inline(always)]
    pub fn produce(&self, index: u32) {
        self.word(self.producer).store(index, Ordering::Release);
    }

    /// Gives the entries before `index` back.
    #[inline(always)]
    pub fn consume(&self, index: u32) {
        self.word(self.consumer).store(index, Ordering::Release);
    }

    /// How many entries the producer handed over that the consumer has not taken.
    pub fn len(&self) -> u32 {
        self.producer().wrapping_sub(self.consumer())
    }

    /// Whether the kernel wants a system call to go on. Read after what was produced has become visible.
    #[inline(always)]
    pub fn needs_wakeup(&self) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        self.word(self.flags).load(Ordering::Relaxed) & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
    }

    fn entry(&self, index: u32) -> *mut T {
        // SAFETY: `map` mapped `mask + 1` entries from there on, and aligned.
        unsafe { self.mapping.start.as_ptr().add(self.entries as usize).cast::<T>().add((index & self.mask) as usize) }
    }

    /// The entry at `index`, modulo the ring's size.
    #[inline(always)]
    pub fn read(&self, index: u32) -> T {
        // SAFETY: mapped and aligned; any bytes are a number.
        unsafe { self.entry(index).read_volatile() }
    }

    /// Writes the entry at `index`, modulo the ring's size.
    #[inline(always)]
    pub fn write(&self, index: u32, entry: T) {
        // SAFETY: mapped and aligned.
        unsafe { self.entry(index).write_volatile(entry) }
    }
}

/// The rings of one socket, all of the same size.
#[derive(Debug)]
pub struct Rings {
    /// Frames that came.
    pub rx: Ring<XdpDesc>,
    /// Empty chunks for frames to come.
    pub fill: Ring<u64>,
    /// Frames to be sent.
    pub tx: Ring<XdpDesc>,
    /// Chunks of frames that were sent.
    pub completion: Ring<u64>,
}

impl Rings {
    /// Has the kernel make the rings, before the socket is bound.
    pub fn create(socket: impl AsFd, size: u32) -> rustix::io::Result<()> {
        sockopt::set_xdp_umem_fill_ring_size(&socket, size)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, size)?;
        sockopt::set_xdp_rx_ring_size(&socket, size)?;
        sockopt::set_xdp_tx_ring_size(&socket, size)
    }

    /// Maps the rings of a socket.
    pub fn map(socket: impl AsFd, size: u32) -> io::Result<Self> {
        let XdpMmapOffsets { rx, tx, fr, cr } = sockopt::xdp_mmap_offsets(&socket)?;
        Ok(Self {
            rx: Ring::map(&socket, XDP_PGOFF_RX_RING, rx, size)?,
            fill: Ring::map(&socket, XDP_UMEM_PGOFF_FILL_RING, fr, size)?,
            tx: Ring::map(&socket, XDP_PGOFF_TX_RING, tx, size)?,
            completion: Ring::map(&socket, XDP_UMEM_PGOFF_COMPLETION_RING, cr, size)?,
        })
    }
}

//! The memory of a guest that the load generator plays: the one room for `unsafe` in this crate.
//!
//! tests/src/driver.rs reaches guest memory by vm-memory's checked accesses, which is right for tests and too slow for a generator that has to be faster
//! than any switch. Here an access is one comparison and one load or store. What has to hold:
//!
//! - The mapping lives as long as the [`Memory`], whose length never changes, and every access is checked against that length. A memory belongs to one thread.
//! - No Rust reference to the bytes exists, since the switch under test reads and writes them at any time: they are copied in and out. (The
//!   exception, for taps, is of memory that no other process has.)
//! - An index of a ring is loaded with acquire before what it covers, and stored with release after it (virtio 1.2, 2.7.13 and 2.7.14).

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The size of a huge page, to which a memory's length is rounded up.
const HUGE_PAGE: usize = 2 << 20;

/// Memory shared by a file.
#[derive(Debug)]
pub struct Memory {
    file: File,
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// At least `len` bytes of zeros: in huge pages if there are enough free ones, else in ordinary pages.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new(len: usize) -> io::Result<Memory> {
        let len = len.next_multiple_of(HUGE_PAGE);
        Self::map(len, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB).or_else(|_| Self::map(len, MemfdFlags::empty()))
    }

    fn map(len: usize, pages: MemfdFlags) -> io::Result<Memory> {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC | pages)?);
        ftruncate(&file, len as u64)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: the kernel chooses an address where nothing is mapped.
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, &file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Memory { file, start, len })
    }

    /// The file, to be passed to the switch.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The length in bytes.
    pub fn size(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn address(&self, at: usize, len: usize) -> *mut u8 {
        assert!(len <= self.len && at <= self.len - len, "{len} bytes at {at} of {}", self.len);
        // SAFETY: the range was just checked to lie in the mapping.
        unsafe { self.start.as_ptr().add(at) }
    }

    /// The bytes at `at`.
    ///
    /// # Panics
    ///
    /// Like all accesses, if they are not all in the memory.
    #[inline(always)]
    pub fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let from = self.address(at, N);
        // SAFETY: N bytes are mapped there, and bytes are not aligned.
        unsafe { from.cast::<[u8; N]>().read() }
    }

    /// Writes bytes.
    #[inline(always)]
    pub fn put<const N: usize>(&self, at: usize, bytes: [u8; N]) {
        let to = self.address(at, N);
        // SAFETY: N bytes are mapped there, and bytes are not aligned.
        unsafe { to.cast::<[u8; N]>().write(bytes) }
    }

    /// Writes as many bytes as there are.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let to = self.address(at, bytes.len());
        // SAFETY: as many bytes are mapped there, and no slice is of this memory.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    #[inline(always)]
    fn word(&self, at: usize) -> &AtomicU16 {
        assert!(at.is_multiple_of(2), "a ring's index at an odd address");
        let word = self.address(at, 2);
        // SAFETY: two bytes are mapped there as long as self lives, aligned, and an atomic may change at any time.
        unsafe { AtomicU16::from_ptr(word.cast()) }
    }

    /// Loads a ring's index: what it covers can be read then.
    #[inline(always)]
    pub fn load(&self, at: usize) -> u16 {
        u16::from_le(self.word(at).load(Ordering::Acquire))
    }

    /// Stores a ring's index: what it covers was written before.
    #[inline(always)]
    pub fn store(&self, at: usize, value: u16) {
        self.word(at).store(value.to_le(), Ordering::Release);
    }

    /// Says that the line at `at` will be read soon.
    #[inline(always)]
    pub fn will_read(&self, at: usize) {
        let _address = self.address(at, 1);
        // SAFETY: prefetching has no effect that a program could see.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(_address.cast())
        }
    }

    /// Says that the line at `at` will be written soon.
    #[inline(always)]
    pub fn will_write(&self, at: usize) {
        let _address = self.address(at, 1);
        // SAFETY: prefetching has no effect that a program could see.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(_address.cast())
        }
    }

    /// The bytes at `at`, for sending them to a tap. The memory must not be shared with a switch.
    pub fn bytes(&mut self, at: usize, len: usize) -> &mut [u8] {
        let start = self.address(at, len);
        // SAFETY: the bytes are mapped and initialised; self is borrowed, and nobody else has the file.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrowed from it is left.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_shared() {
        let memory = Memory::new(5000).unwrap();
        memory.put(4990, *b"0123456789");
        assert_eq!(&memory.get::<4>(4993), b"3456");
        memory.store(4096, 0x1234);
        assert_eq!((memory.load(4096), memory.get(4096)), (0x1234, [0x34, 0x12]));
        assert_eq!(memory.file().metadata().unwrap().len(), memory.size() as u64);
    }

    #[test]
    #[should_panic(expected = "10 bytes at")]
    fn an_access_beyond_the_end_panics() {
        let memory = Memory::new(1).unwrap();
        memory.put(memory.size() - 9, [0; 10]);
    }
}

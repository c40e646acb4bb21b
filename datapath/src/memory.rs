//! The one room for `unsafe` in this crate: memory that belongs to somebody else.
//!
//! The payload of a frame stays where its sender put it (guest memory, an AF_XDP buffer) until it is copied, once, to where it goes. That
//! memory is shared with a hostile guest and may change while it is read, so no Rust reference to it is ever made: a [`Segment`] is a
//! checked address and a length, and all that can be done with it is to copy bytes out.

use std::marker::PhantomData;
use std::ptr::NonNull;

/// A run of bytes in memory shared with somebody else.
///
/// The lifetime is that of the loan: the bytes stay mapped and readable for `'a`, though their values may change at any time.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    start: NonNull<u8>,
    len: usize,
    loan: PhantomData<&'a [u8]>,
}

// SAFETY: a segment is an address that stays readable for its lifetime whichever thread reads it; it gives no reference and no write access.
unsafe impl Send for Segment<'_> {}

impl<'a> Segment<'a> {
    /// A segment of `len` bytes from `start`.
    ///
    /// # Safety
    ///
    /// The bytes must stay mapped and readable for `'a`. They may be written by others meanwhile.
    pub unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, loan: PhantomData }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of the first byte, for a port that copies into memory of its own kind.
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// The part from `offset`, at most `len` bytes long. Beyond the end there is nothing, never an error.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Self {
        let offset = offset.min(self.len);
        // SAFETY: offset <= self.len, so the address stays within (or one past) the bytes that `new` was promised.
        let start = unsafe { self.start.add(offset) };
        Self { start, len: len.min(self.len - offset), loan: PhantomData }
    }

    /// Copies the first bytes into `to`, as many as both have, and says how many.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let len = self.len.min(to.len());
        // SAFETY: `len` bytes are readable from `start` by the promise of `new`, and writable in `to`. `ptr::copy` allows for overlap, which a
        // guest could arrange. A racing write by the guest yields some bytes, old or new, that are trusted by nobody.
        unsafe { std::ptr::copy(self.start.as_ptr(), to.as_mut_ptr(), len) };
        len
    }
}

/// The payloads on loan to a batch: their segments, one after another, until the batch is cleared.
#[derive(Debug, Default)]
pub(crate) struct Loans(Vec<Segment<'static>>);

impl Loans {
    /// Keeps a segment beyond the lifetime that the compiler sees.
    ///
    /// # Safety
    ///
    /// The segment's bytes must stay mapped and readable until [`Loans::clear`].
    pub(crate) unsafe fn push(&mut self, segment: Segment<'_>) {
        self.0.push(Segment { start: segment.start, len: segment.len, loan: PhantomData });
    }

    /// The segments in `range`, for as long as they are kept here.
    pub(crate) fn get(&self, range: std::ops::Range<usize>) -> &[Segment<'_>] {
        &self.0[range]
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl<'a> From<&'a [u8]> for Segment<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { start: NonNull::from(bytes).cast(), len: bytes.len(), loan: PhantomData }
    }
}

/// Asks the CPU to bring the cache line at `at` closer, for reading. Any address is allowed.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it never faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch(at.cast(), std::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks the CPU to bring the cache line at `at` closer, for writing: it is taken from whoever has it. Any address is allowed.
#[inline(always)]
pub fn prefetch_write<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it never faults, whatever the address. CPUs without this one take it for no operation.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Tells the CPU that another one will use the cache line at `at` next: it moves to a cache that they share, from where it is fetched sooner.
/// Any address is allowed.
#[inline(always)]
pub fn demote<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that never faults, whatever the address. CPUs without this one take it for no operation.
    unsafe {
        std::arch::asm!("cldemote [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::Segment;

    #[test]
    fn parts_never_leave_the_segment() {
        let bytes = [1u8, 2, 3, 4, 5];
        let segment = Segment::from(&bytes[..]);
        let mut to = [0u8; 8];
        assert_eq!(segment.part(1, 3).copy_to(&mut to), 3);
        assert_eq!(to[..3], [2, 3, 4]);
        assert_eq!(segment.part(3, 100).len(), 2);
        assert_eq!(segment.part(100, 1).copy_to(&mut to), 0);
    }
}

//! A split ring (virtio 1.2, 2.7), walked over checked pointers.
//!
//! The driver makes chains of descriptors available; we take them in order, and give them back in the same order. So the available and the used
//! index are the same number whenever nobody serves the ring, and a `Ring` keeps just one: `Ring::next`. It is also what makes a ring survive
//! us: whoever serves it next goes on where the used index in guest memory says, and no chain is lost or given back twice, whatever happened
//! to us between taking a chain and giving it back.
//!
//! To share few cache lines with the guest, a batch reads the available index once, writes its used entries side by side, publishes them
//! by one store of the used index, and makes at most one system call to notify the driver, if the driver wants it (its flags, or its used_event
//! with EVENT_IDX).
//!
//! Everything in the ring is hostile. What can't be followed (an index beyond the table, a loop, an address outside memory) breaks this ring and
//! no other: the fault is kept, counted, logged once and reported to the front end by its error eventfd, and the ring stays still until the
//! front end starts it anew.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datapath::memory::Segment;
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    VRING_USED_F_NO_NOTIFY,
};

use crate::memory::{Descriptor, Memory, RingAddresses, RingMemory, Room, fence};

/// The most descriptors of a chain, those of its indirect table included: what Linux's vhost takes too (UIO_MAXIOV).
pub const CHAIN_MAX: usize = 1024;
/// The most entries of a ring (virtio 1.2, 2.7).
pub const SIZE_MAX: u16 = 32768;

/// What is needed to serve a ring.
#[derive(Debug)]
pub struct RingSetup {
    /// What the log calls the ring, such as "vm1 rx queue 0".
    pub name: String,
    /// The guest's memory.
    pub memory: Arc<Memory>,
    /// The number of entries (SET_VRING_NUM).
    pub size: u16,
    /// Where the ring is (SET_VRING_ADDR).
    pub addresses: RingAddresses,
    /// Where the front end believes that the ring is to be resumed (SET_VRING_BASE). The used index in guest memory wins.
    pub next: u16,
    /// The virtio feature bits that were negotiated.
    pub features: u64,
    /// The eventfd that notifies the driver (SET_VRING_CALL). Like the next, it must not block: a full one must not stall whoever writes to it.
    pub call: Option<File>,
    /// The eventfd that tells the front end of a fault (SET_VRING_ERR).
    pub error: Option<File>,
    /// Counts the faults that broke a ring.
    pub breaks: Arc<AtomicU64>,
}

/// Why a ring can't be served, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Not a power of two, or too large.
    #[error("a ring of {0} entries; it must be a power of two, at most {SIZE_MAX}")]
    Size(u16),
    /// An area is not in guest memory.
    #[error("the {0} is misaligned or not within one region of guest memory")]
    Area(&'static str),
    /// More is available than the ring holds.
    #[error("the available index went from {from} to {to}, further than the {size} entries of the ring")]
    Available {
        /// The index that we got to.
        from: u16,
        /// The index that the driver published.
        to: u16,
        /// The size of the ring.
        size: u16,
    },
    /// A descriptor beyond the table.
    #[error("descriptor {index} of the chain that begins at {head} is beyond the table")]
    Index {
        /// The first descriptor of the chain.
        head: u16,
        /// The index that is beyond the table.
        index: u16,
    },
    /// A loop, or a chain beyond [`CHAIN_MAX`].
    #[error("the chain that begins at descriptor {0} loops or has too many descriptors")]
    Length(u16),
    /// A device-writable buffer to read from, or the reverse.
    #[error("the chain that begins at descriptor {0} has a buffer of the wrong direction")]
    Direction(u16),
    /// An indirect table that is empty, has a broken entry, is nested, followed by more, or not in guest memory.
    #[error("the chain that begins at descriptor {0} has a malformed indirect table")]
    Indirect(u16),
    /// A buffer that is not in guest memory.
    #[error("the chain that begins at descriptor {head} has a buffer of {len} bytes at {address:#x}, which is not guest memory")]
    Address {
        /// The first descriptor of the chain.
        head: u16,
        /// The buffer's guest address.
        address: u64,
        /// The buffer's length.
        len: u32,
    },
}

/// Whether a chain is read from or written to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

impl Descriptor {
    /// Whether this descriptor is a whole chain of the given direction.
    #[inline(always)]
    pub fn is_single(&self, direction: Direction) -> bool {
        let write = if direction == Direction::Write { WRITE } else { 0 };
        self.flags & (NEXT | INDIRECT | WRITE) == write
    }
}

/// An empty vector that keeps the allocation of another one, whose type differs in lifetimes only.
pub(crate) fn recycle<A, B>(mut vector: Vec<A>) -> Vec<B> {
    vector.clear();
    vector.into_iter().map(|_| unreachable!("the vector is empty")).collect()
}

/// A split ring in service.
#[derive(Debug)]
pub(crate) struct Ring {
    pub memory: RingMemory,
    next: u16,
    event_idx: bool,
    call: Option<File>,
    error: Option<File>,
    fault: Option<RingError>,
    breaks: Arc<AtomicU64>,
    name: String,
}

impl Ring {
    /// Takes a ring into service. The driver is notified once, in case whoever served the ring before did not get to it.
    pub fn start(setup: RingSetup) -> Result<Self, RingError> {
        let RingSetup { name, memory, size, addresses, next: base, features, call, error, breaks } = setup;
        if !size.is_power_of_two() || size > SIZE_MAX {
            return Err(RingError::Size(size));
        }
        let memory = RingMemory::new(memory, size, addresses).map_err(RingError::Area)?;
        let next = memory.used_index();
        if next != base {
            tracing::info!(port = name, "resumed at the used index {next}; the front end said {base}");
        }
        let event_idx = features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let ring = Self { memory, next, event_idx, call, error, fault: None, breaks, name };
        ring.notify();
        Ok(ring)
    }

    /// The index of the next chain to be taken: all before it were given back.
    pub fn next(&self) -> u16 {
        self.next
    }

    pub fn set_call(&mut self, call: Option<File>) {
        self.call = call;
    }

    pub fn set_error(&mut self, error: Option<File>) {
        self.error = error;
    }

    /// What broke the ring.
    pub fn fault(&self) -> Option<&RingError> {
        self.fault.as_ref()
    }

    /// Breaks the ring.
    #[cold]
    pub fn fail(&mut self, fault: RingError) {
        tracing::warn!(port = self.name, "broken by its guest: {fault}; it stands still until the driver is reset");
        self.breaks.fetch_add(1, Ordering::Relaxed);
        self.fault = Some(fault);
        if let Some(mut error) = self.error.as_ref() {
            // Full or closed: the front end knows, or is gone.
            let _ = error.write(&1u64.to_ne_bytes());
        }
    }

    /// How many chains can be taken. None any more from a broken ring.
    #[inline]
    pub fn available(&mut self) -> u16 {
        if self.fault.is_some() {
            return 0;
        }
        self.look().unwrap_or_else(|fault| {
            self.fail(fault);
            0
        })
    }

    /// How many chains the driver made available that were not given back.
    #[inline]
    pub fn look(&self) -> Result<u16, RingError> {
        let to = self.memory.available_index();
        let count = to.wrapping_sub(self.next);
        if count > self.memory.size() {
            return Err(RingError::Available { from: self.next, to, size: self.memory.size() });
        }
        Ok(count)
    }

    /// Publishes the next `count` entries of the used ring, which were written, and notifies the driver if it wants that.
    pub fn complete(&mut self, count: u16) {
        if count == 0 {
            return;
        }
        let before = self.next;
        self.next = before.wrapping_add(count);
        self.memory.publish_used(self.next);
        fence();
        let wanted = if self.event_idx {
            // vring_need_event (virtio 1.2, 2.7.7.2): one of before.. self.next is the index asked for.
            let asked = self.memory.used_event();
            self.next.wrapping_sub(asked).wrapping_sub(1) < self.next.wrapping_sub(before)
        } else {
            self.memory.available_flags() & VRING_AVAIL_F_NO_INTERRUPT as u16 == 0
        };
        if wanted {
            self.notify();
        }
    }

    fn notify(&self) {
        if let Some(mut call) = self.call.as_ref() {
            // Full: the driver has a notification pending. Closed: nobody is there to be notified.
            let _ = call.write(&1u64.to_ne_bytes());
        }
    }

    /// Asks the driver to notify us of the next chain, and says whether there is one already.
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            self.memory.set_available_event(self.next);
        } else {
            self.memory.set_used_flags(0);
        }
        fence();
        self.available() > 0
    }

    /// Tells the driver that no notifications are needed.
    pub fn disarm(&mut self) {
        if self.event_idx {
            // Behind us, where the driver's index comes by once in 65,536 chains.
            self.memory.set_available_event(self.next.wrapping_sub(1));
        } else {
            self.memory.set_used_flags(VRING_USED_F_NO_NOTIFY as u16);
        }
    }
}

impl RingMemory {
    /// The buffer of the chain that begins with the descriptor at `head`, if it is one buffer in one region, to be read.
    #[inline(always)]
    pub fn read_whole(&self, head: u16) -> Option<Segment<'_>> {
        let descriptor = self.descriptor(head).filter(|descriptor| descriptor.is_single(Direction::Read))?;
        self.segment(descriptor.address, descriptor.len)
    }

    /// The buffer of the chain that begins with the descriptor at `head`, if it is one buffer in one region, to be written.
    #[inline(always)]
    pub fn write_whole(&self, head: u16) -> Option<Room<'_>> {
        let descriptor = self.descriptor(head).filter(|descriptor| descriptor.is_single(Direction::Write))?;
        self.room(descriptor.address, descriptor.len)
    }

    /// Adds the buffers of the chain that begins with the descriptor at `head` to `segments`.
    pub fn read_chain<'m>(&'m self, head: u16, segments: &mut Vec<Segment<'m>>) -> Result<(), RingError> {
        self.walk(head, Direction::Read, |address, len| self.segments(address, len, segments))
    }

    /// Adds the buffers of the chain that begins with the descriptor at `head` to `rooms`.
    pub fn write_chain<'m>(&'m self, head: u16, rooms: &mut Vec<Room<'m>>) -> Result<(), RingError> {
        self.walk(head, Direction::Write, |address, len| self.rooms(address, len, rooms))
    }

    /// Calls `add` for each buffer of a chain: its descriptors, of which the last may refer to an indirect table (virtio 1.2, 2.7.5.3).
    #[inline]
    fn walk(&self, head: u16, direction: Direction, mut add: impl FnMut(u64, u32) -> bool) -> Result<(), RingError> {
        let mut descriptor = self.descriptor(head).ok_or(RingError::Index { head, index: head })?;
        let mut table: Option<Segment<'_>> = None;
        let mut left = CHAIN_MAX.min(usize::from(self.size()));
        loop {
            if descriptor.flags & INDIRECT != 0 {
                let Descriptor { address, len, flags, .. } = descriptor;
                if table.is_some() || flags & NEXT != 0 || len == 0 || !(len as usize).is_multiple_of(Descriptor::SIZE) {
                    return Err(RingError::Indirect(head));
                }
                let found = self.segment(address, len).ok_or(RingError::Indirect(head))?;
                left = CHAIN_MAX.min(len as usize / Descriptor::SIZE);
                descriptor = Descriptor::of_table(&found, 0).ok_or(RingError::Indirect(head))?;
                table = Some(found);
                continue;
            }
            if left == 0 {
                return Err(RingError::Length(head));
            }
            left -= 1;
            if (descriptor.flags & WRITE != 0) != (direction == Direction::Write) {
                return Err(RingError::Direction(head));
            }
            let Descriptor { address, len, flags, next: index } = descriptor;
            if !add(address, len) {
                return Err(RingError::Address { head, address, len });
            }
            if flags & NEXT == 0 {
                return Ok(());
            }
            let next = table.as_ref().map_or_else(|| self.descriptor(index), |table| Descriptor::of_table(table, index));
            descriptor = next.ok_or(RingError::Index { head, index })?;
        }
    }
}

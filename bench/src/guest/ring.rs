//! A guest's two rings, as fast as a driver can be.
//!
//! What a driver and a device share are cache lines that travel between two CPUs, and each journey costs more than all instructions of a frame. So
//! every descriptor and everything in a buffer that does not vary is written once, before the ring starts. Buffers are used in turn: as long as the device gives
//! them back in the order it got them, no entry of the available ring has to be written again either. The index of the available ring is
//! published once per burst, and that of the used ring read only when there are too few buffers to go on.
//!
//! Nothing is left out that the standard asks of a driver: entries given back are read, in whatever order they come, and the device is kicked
//! when it has asked for it. Notifications to the driver are off, as they are in a guest that polls.

use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};

use ::tests::driver::{Event, NEXT, NetHeader, WRITE, descriptor, need_event};
use vhost_backend::memory::RingAddresses;

use super::{GUEST_BASE, USER_BASE};
use crate::memory::Memory;

/// The entries of a ring.
pub const SIZE: u16 = 1024;
/// How far ahead of its use a line is asked for.
const AHEAD: u16 = 8;

const DESCRIPTORS: usize = 0;
const AVAILABLE: usize = 16 * SIZE as usize;
const USED: usize = (AVAILABLE + 4 + 2 * SIZE as usize + 2).next_multiple_of(128);
/// The bytes that a ring takes.
pub const FOOTPRINT: usize = (USED + 4 + 8 * SIZE as usize + 2).next_multiple_of(128);

/// What both directions have in common.
#[derive(Debug)]
struct Ring {
    memory: Rc<Memory>,
    /// The offset of the ring in the memory.
    at: usize,
    event_idx: bool,
    /// What is written in the available ring.
    entries: [u16; SIZE as usize],
    next_available: u16,
    published: u16,
    next_used: u16,
    /// The used index when it was read last.
    used: u16,
    kick: Event,
    call: Event,
}

impl Ring {
    fn new(memory: Rc<Memory>, at: usize, event_idx: bool) -> Self {
        // Without event_idx: no interrupts. With it, that word says nothing; the event asked for stays that of index 0, which is one
        // notification in 65,536 frames, as with Linux.
        memory.store(at + AVAILABLE, 1);
        let (kick, call) = (Event::default(), Event::default());
        let entries = [0; SIZE as usize];
        Self { memory, at, event_idx, entries, next_available: 0, published: 0, next_used: 0, used: 0, kick, call }
    }

    fn describe(&self, index: u16, buffer: usize, len: usize, flags: u16, next: u16) {
        let bytes = descriptor(GUEST_BASE + buffer as u64, len as u32, flags, next);
        self.memory.put(self.at + DESCRIPTORS + 16 * usize::from(index), bytes);
    }

    #[inline(always)]
    fn make_available(&mut self, head: u16) {
        let entry = self.next_available % SIZE;
        if self.entries[usize::from(entry)] != head {
            self.entries[usize::from(entry)] = head;
            self.memory.put(self.at + AVAILABLE + 4 + 2 * usize::from(entry), head.to_le_bytes());
        }
        self.next_available = self.next_available.wrapping_add(1);
    }

    #[inline(always)]
    fn publish(&mut self) {
        let before = self.published;
        self.memory.store(self.at + AVAILABLE + 2, self.next_available);
        self.published = self.next_available;
        // The index must be seen before it is asked what the device wants (virtio 1.2, 2.7.13.4.1).
        fence(Ordering::SeqCst);
        let kick = if self.event_idx {
            need_event(self.memory.load(self.at + USED + 4 + 8 * usize::from(SIZE)), self.published, before)
        } else {
            self.memory.load(self.at + USED) & 1 == 0
        };
        if kick {
            self.kick.signal();
        }
    }

    /// Asks the device how far it is.
    #[inline(always)]
    fn look(&mut self) -> u16 {
        self.used = self.memory.load(self.at + USED + 2);
        self.used.wrapping_sub(self.next_used)
    }

    /// The entry of the used ring `ahead` of the next one: a head and the bytes written.
    #[inline(always)]
    fn used_entry(&self, ahead: u16) -> (u16, usize) {
        let entry = self.next_used.wrapping_add(ahead) % SIZE;
        let word = u64::from_le_bytes(self.memory.get(self.at + USED + 4 + 8 * usize::from(entry)));
        let head = word as u32;
        assert!(head < u32::from(SIZE), "the switch gave back descriptor {head} of {SIZE}");
        (head as u16, (word >> 32) as usize)
    }

    fn addresses(&self) -> RingAddresses {
        let user = |offset| USER_BASE + (self.at + offset) as u64;
        RingAddresses { descriptors: user(DESCRIPTORS), available: user(AVAILABLE), used: user(USED) }
    }
}

/// What the back end is told of a ring.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Where its areas are, in the front end's addresses.
    pub addresses: RingAddresses,
    /// Notifies the device.
    pub kick: &'a Event,
    /// Notifies the driver.
    pub call: &'a Event,
}

/// The transmit queue of the guest: each slot is a buffer with a frame's unvarying bytes in it, in one or several descriptors.
#[derive(Debug)]
pub struct Transmit {
    ring: Ring,
    buffers: usize,
    stride: usize,
    parts: u16,
    /// The free slots, in a circle: `free` of them, from `first` on.
    circle: [u16; SIZE as usize],
    first: u16,
    free: u16,
    slots: u16,
}

impl Transmit {
    /// The length of a descriptor of a frame that has several.
    const PART: usize = 4096;

    /// How many descriptors a frame of `len` bytes takes, and how far apart two frames' buffers are. Small ones lie an odd number of lines apart, so
    /// that they do not all compete for the same places in a cache.
    fn shape(len: usize) -> (u16, usize) {
        let len = len + NetHeader::LEN;
        if len <= Self::PART {
            return (1, (len.div_ceil(64) | 1) * 64);
        }
        (len.div_ceil(Self::PART) as u16, len.next_multiple_of(Self::PART) + 64)
    }

    /// The bytes that the buffers for frames of `len` bytes take.
    pub fn buffers(len: usize) -> usize {
        let (parts, stride) = Self::shape(len);
        usize::from(SIZE / parts) * stride
    }

    /// A ring at one offset, with its buffers at another, all of which hold this frame.
    pub fn new(memory: &Rc<Memory>, at: usize, buffers: usize, header: NetHeader, frame: &[u8], event_idx: bool) -> Self {
        let (parts, stride) = Self::shape(frame.len());
        let (ring, slots) = (Ring::new(memory.clone(), at, event_idx), SIZE / parts);
        for slot in 0..slots {
            let buffer = buffers + usize::from(slot) * stride;
            memory.put(buffer, header.to_bytes());
            memory.write(buffer + NetHeader::LEN, frame);
            let mut left = NetHeader::LEN + frame.len();
            for part in 0..parts {
                let (index, len) = (slot * parts + part, left.min(Self::PART));
                left -= len;
                let (flags, next) = if part + 1 < parts { (NEXT, index + 1) } else { (0, 0) };
                ring.describe(index, buffer + usize::from(part) * Self::PART, len, flags, next);
            }
        }
        let circle = std::array::from_fn(|i| i as u16);
        Self { ring, buffers, stride, parts, circle, first: 0, free: slots, slots }
    }

    #[inline(always)]
    fn frame_of(&self, slot: u16) -> usize {
        self.buffers + usize::from(slot) * self.stride + NetHeader::LEN
    }

    #[inline(always)]
    fn nth_free(&self, n: u16) -> u16 {
        self.circle[usize::from((self.first + n) % SIZE)]
    }

    #[inline(always)]
    fn reclaim(&mut self) {
        for _ in 0..self.ring.look() {
            let (head, _) = self.ring.used_entry(0);
            let slot = head / self.parts;
            assert!(slot < self.slots && self.free < self.slots, "the switch gave back a frame that it did not have");
            self.circle[usize::from((self.first + self.free) % SIZE)] = slot;
            self.free += 1;
            self.ring.next_used = self.ring.next_used.wrapping_add(1);
        }
    }

    /// Sends as many frames as there are free slots, `want` at most, and returns how many. `vary` is called for each with the offset of the frame's
    /// first byte.
    #[inline(always)]
    pub fn send(&mut self, want: usize, mut vary: impl FnMut(&Memory, usize)) -> usize {
        let want = (want as u16).min(self.slots);
        if self.free < want {
            self.reclaim();
        }
        let count = self.free.min(want);
        if count == 0 {
            return 0;
        }
        for n in 0..count {
            // Also beyond this burst, for the next one.
            if n + AHEAD < self.free {
                self.ring.memory.will_write(self.frame_of(self.nth_free(n + AHEAD)));
            }
            let slot = self.nth_free(n);
            vary(&self.ring.memory, self.frame_of(slot));
            self.ring.make_available(slot * self.parts);
        }
        self.first = (self.first + count) % SIZE;
        self.free -= count;
        self.ring.publish();
        usize::from(count)
    }

    /// What the back end is told.
    pub fn setup(&self) -> Setup<'_> {
        Setup { addresses: self.ring.addresses(), kick: &self.ring.kick, call: &self.ring.call }
    }
}

/// The receive queue of the guest, of mergeable buffers.
#[derive(Debug)]
pub struct Receive {
    ring: Ring,
    buffers: usize,
    room: usize,
    stride: usize,
}

impl Receive {
    /// The room in each buffer, for frames of `len` bytes: what Linux chooses for large and for small ones, about.
    fn shape(len: usize) -> (usize, usize) {
        let room = if len > 2000 { 4096 } else { 2048 };
        (room, room + 64)
    }

    /// The bytes that the buffers for frames of `len` bytes take.
    pub fn buffers(len: usize) -> usize {
        usize::from(SIZE) * Self::shape(len).1
    }

    /// A ring at one offset, with its buffers at another, all of them available.
    pub fn new(memory: &Rc<Memory>, at: usize, buffers: usize, len: usize, event_idx: bool) -> Self {
        let (room, stride) = Self::shape(len);
        let mut ring = Ring::new(memory.clone(), at, event_idx);
        for index in 0..SIZE {
            ring.describe(index, buffers + usize::from(index) * stride, room, WRITE, 0);
            ring.make_available(index);
        }
        ring.publish();
        Self { ring, buffers, room, stride }
    }

    #[inline(always)]
    fn buffer_of(&self, head: u16) -> usize {
        self.buffers + usize::from(head) * self.stride
    }

    /// Takes the frames that have come, `max` buffers at most, gives their buffers back, and returns how many frames. `take` is called for each
    /// with the offset of its first byte and its length; what lies beyond the first buffer's room is elsewhere.
    #[inline(always)]
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(&Memory, usize, usize)) -> usize {
        let buffers = self.ring.look().min(max as u16);
        if buffers == 0 {
            return 0;
        }
        for ahead in 0..AHEAD.min(buffers) {
            self.ring.memory.will_read(self.buffer_of(self.ring.used_entry(ahead).0));
        }
        let (mut left, mut frames) = (buffers, 0);
        while left > 0 {
            if left > AHEAD {
                self.ring.memory.will_read(self.buffer_of(self.ring.used_entry(AHEAD).0));
            }
            let (head, mut len) = self.ring.used_entry(0);
            let buffer = self.buffer_of(head);
            let parts = u16::from_le_bytes(self.ring.memory.get(buffer + 10)).max(1);
            if parts > 1 {
                if parts > self.ring.used.wrapping_sub(self.ring.next_used) {
                    break;
                }
                len += (1..parts).map(|part| self.ring.used_entry(part).1).sum::<usize>();
            }
            debug_assert!(len <= usize::from(parts) * self.room);
            take(&self.ring.memory, buffer + NetHeader::LEN, len.saturating_sub(NetHeader::LEN));
            for _ in 0..parts {
                let (head, _) = self.ring.used_entry(0);
                self.ring.make_available(head);
                self.ring.next_used = self.ring.next_used.wrapping_add(1);
            }
            left = left.saturating_sub(parts);
            frames += 1;
        }
        self.ring.publish();
        frames
    }

    /// What the back end is told.
    pub fn setup(&self) -> Setup<'_> {
        Setup { addresses: self.ring.addresses(), kick: &self.ring.kick, call: &self.ring.call }
    }
}

//! Traffic at the least cost for whoever makes it: the same frames are sent over and over, from the same buffers, and received into the same ones, which
//! nobody looks into.

use std::sync::atomic::{Ordering, fence};

use crate::driver::{DriverRing, NetHeader, Receiver, Transmitter, need_event};

/// A queue that sends.
#[derive(Debug)]
pub struct Sending<'a> {
    ring: &'a DriverRing,
    sent: u16,
}

impl<'a> Sending<'a> {
    /// Fills the ring with copies of `frame`, none of which is sent yet.
    pub fn new(queue: &'a mut Transmitter, frame: &[u8]) -> Self {
        while queue.push(NetHeader::default(), frame) {}
        Self { sent: queue.ring.used_index(), ring: &queue.ring }
    }

    /// How many frames there is room for.
    pub fn room(&self) -> u16 {
        self.ring.size() - self.sent.wrapping_sub(self.ring.used_index())
    }

    /// Sends so many frames, no more than there is room for, with one kick at most.
    pub fn send(&mut self, count: u16) {
        let before = self.sent;
        self.sent = before.wrapping_add(count);
        self.ring.set_available_index(self.sent);
        fence(Ordering::SeqCst);
        if need_event(self.ring.available_event(), self.sent, before) {
            self.ring.kick.signal();
        }
    }

    /// Keeps the ring full, in bites as large as those of a sender that is not slower than the switch.
    pub fn flood(&mut self) {
        let room = self.room();
        if room >= 64 {
            self.send(room);
        }
    }
}

/// A queue that receives.
#[derive(Debug)]
pub struct Receiving<'a> {
    ring: &'a DriverRing,
    received: u16,
}

impl<'a> Receiving<'a> {
    /// All buffers of the queue are the switch's.
    pub fn new(queue: &'a mut Receiver) -> Self {
        queue.fill(usize::MAX);
        Self { received: queue.ring.used_index(), ring: &queue.ring }
    }

    /// Gives the buffers back that were filled. Returns how many.
    pub fn receive(&mut self) -> u16 {
        let used = self.ring.used_index();
        let count = used.wrapping_sub(self.received);
        if count > 0 {
            self.received = used;
            self.ring.set_available_index(used.wrapping_add(self.ring.size()));
        }
        count
    }
}

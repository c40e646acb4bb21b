//! The ring that a guest receives by: frames from the switch.

use std::fs::File;

use datapath::frame::Batch;
use datapath::port::Transmitted;

use crate::ring::{Ring, RingError, RingSetup};

/// A guest's receive queue, in service.
#[derive(Debug)]
pub struct TxRing {
    ring: Ring,
    mtu: Option<u16>,
}

impl TxRing {
    /// Takes a ring into service. A frame whose layer 3 part is longer than `mtu` bytes is dropped, as are segments that would be.
    pub fn start(setup: RingSetup, mtu: Option<u16>) -> Result<Self, RingError> {
        let mut ring = Ring::start(setup)?;
        // Free buffers are looked for when there is a frame to be sent; nobody waits for them.
        ring.disarm();
        Ok(Self { ring, mtu })
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
        let _ = (batch, slots, transmitted);
        unimplemented!("comes next")
    }
}

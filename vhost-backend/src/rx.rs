//! The ring that a guest transmits by: frames towards the switch.

use datapath::frame::Batch;
use datapath::port::{PortNo, RxQueue};

use crate::ring::{Ring, RingError, RingSetup};
use std::fs::File;

/// A guest's transmit queue, in service.
#[derive(Debug)]
pub struct RxRing {
    ring: Ring,
    port: PortNo,
}

impl RxRing {
    /// Takes a ring into service, with notifications wanted. Its frames come in through `port`.
    pub fn start(setup: RingSetup, port: PortNo) -> Result<Self, RingError> {
        let mut ring = Ring::start(setup)?;
        ring.arm();
        Ok(Self { ring, port })
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
}

impl RxQueue for RxRing {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        let _ = (batch, consume, self.port);
        unimplemented!("comes next")
    }

    fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    fn disarm(&mut self) {
        self.ring.disarm();
    }
}

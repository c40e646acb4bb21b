//! Uplinks: ports over network devices of the host.
//!
//! A device is opened by the launcher ([`open`]), which has the privilege it takes, and handed to the switch: its descriptors, and an [`Opened`] that says what they
//! are. The switch makes [`Queue`]s of them ([`Opened::serve`]), and puts those into the [`Queues`] of the port, which the workers have as long as the port lives.
//! A device that goes takes its queues along; one that comes back is opened anew.
//!
//! What the kernel has to say of devices - that one came, went, is up or down - comes over netlink ([`links`]).

pub mod afxdp;
pub mod handed;
pub mod links;
mod queues;
mod sys;
pub mod tap;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use datapath::frame::Batch;
use datapath::port::{PortNo, RxQueue, Transmitted};
use serde::{Deserialize, Serialize};

use crate::config::Device;
use handed::Inherited;
pub use queues::Queues;

/// One queue of a device, in service. Its descriptors are closed with it.
pub struct Queue {
    /// Frames towards the switch.
    pub rx: Box<dyn RxQueue>,
    /// Frames from the switch.
    pub tx: Box<dyn TxQueue>,
    /// Becomes readable when frames come; to be watched edge-triggered, never read.
    pub kick: Arc<OwnedFd>,
    /// How an AF_XDP queue fares.
    pub watch: Option<afxdp::Watch>,
}

/// The transmit side of one queue, used by one worker at a time.
pub trait TxQueue: Send {
    /// Transmits the frames of `batch` whose slots are listed, in order; each is counted in `transmitted`, as sent or as dropped.
    fn transmit(&mut self, batch: &Batch, slots: &[u16], transmitted: &mut Transmitted);
}

/// A device that the launcher has opened. Its descriptors come beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Its number in the kernel, by which netlink speaks of it.
    pub index: u32,
    /// What its descriptors are.
    pub leg: Leg,
}

/// What the descriptors of a device are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leg {
    /// One for each queue of a tap.
    Tap(tap::Abilities),
    /// The memory, the sockets and the rest of an AF_XDP device.
    AfXdp(afxdp::Layout),
}

/// The most bytes behind the Ethernet header and tags of a frame that a device takes: what netlink says, for the queues to go by.
#[derive(Clone, Debug, Default)]
pub struct Mtu(Arc<AtomicU32>);

impl Mtu {
    /// Changes it.
    pub fn set(&self, mtu: u32) {
        self.0.store(mtu, Ordering::Relaxed);
    }

    /// What it is; without bounds if it is not known yet.
    pub fn get(&self) -> usize {
        match self.0.load(Ordering::Relaxed) {
            0 => usize::MAX,
            mtu => mtu as usize,
        }
    }
}

/// Opens a device, with the privilege that it takes, or takes it out of a descriptor. An error is one line that names the device and says what to do.
pub fn open(device: &Device, inherited: &mut Inherited) -> Result<(Opened, Vec<OwnedFd>), String> {
    match device {
        Device::Handed(handed) => inherited.take(handed).map_err(|error| error.to_string()),
        Device::Tap(tap) => tap::open(tap).map_err(|error| error.to_string()),
        Device::AfXdp(device) => afxdp::open(device).map_err(|error| error.to_string()),
    }
}

impl Opened {
    /// Makes queues of the descriptors. Their frames come in through `port`.
    pub fn serve(&self, descriptors: Vec<OwnedFd>, port: PortNo, mtu: &Mtu) -> Result<Vec<Queue>, String> {
        match &self.leg {
            Leg::Tap(abilities) => Ok(descriptors.into_iter().map(|descriptor| tap::queue(descriptor, abilities, port, mtu)).collect()),
            Leg::AfXdp(layout) => afxdp::queues(layout, descriptors, port, mtu),
        }
    }

    /// What an operator should know of how the device is used.
    pub fn notes(&self) -> &[String] {
        match &self.leg {
            Leg::Tap(_) => &[],
            Leg::AfXdp(layout) => &layout.notes,
        }
    }
}

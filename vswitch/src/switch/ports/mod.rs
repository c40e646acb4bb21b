//! The ports, as the control thread has them, one struct for each way in which frames come and go.

mod device;
mod vhost_user;

use std::sync::Arc;

use datapath::Nanos;
use datapath::port::{Output, PortNo, RxQueue};
use datapath::tables::{PortCounters, VlanMode};

pub use device::DevicePort;
pub use vhost_user::{News, VhostUserPort};

use super::worker::Kicks;
use crate::config::{PortConfig, PortKind, VlanSpec, stable_address};
use crate::event::Poller;
use crate::uplink::afxdp::Watch;

/// The first pause between two attempts to connect, or to open a device.
pub const RETRY_FIRST: Nanos = 50_000_000;
/// The longest.
const RETRY_LONGEST: Nanos = 1_000_000_000;
/// The MTU of a port that nobody said anything else of: Ethernet's.
const MTU_DEFAULT: u16 = 1500;

/// A port.
pub enum SwitchPort {
    /// A guest's, over vhost-user.
    VhostUser(VhostUserPort),
    /// Over a network device of the host.
    Device(DevicePort),
}

impl SwitchPort {
    /// A port that nobody is connected to, or whose device is not open.
    pub fn new(no: PortNo, config: &PortConfig, now: Nanos) -> Self {
        match &config.spec.kind {
            PortKind::VhostUser(vhost_user) => Self::VhostUser(VhostUserPort::new(no, &config.name, vhost_user, now)),
            PortKind::Device(device) => Self::Device(DevicePort::new(no, device)),
        }
    }

    /// The port as the tables have it, for this many workers. Its link is down.
    pub fn table_entry(&self, no: PortNo, config: &PortConfig, datapath_id: u64, workers: usize) -> datapath::tables::Port {
        let output: Arc<dyn Output> = match self {
            Self::VhostUser(port) => port.output(),
            Self::Device(port) => port.output(),
        };
        datapath::tables::Port {
            no,
            name: config.name.to_string(),
            hw_addr: stable_address(&[&datapath_id.to_be_bytes(), &no.0.to_be_bytes()]).0,
            config: Default::default(),
            link_up: false,
            speed: None,
            mtu: config.spec.kind.mtu().unwrap_or(MTU_DEFAULT),
            icmp_too_big: config.spec.icmp_too_big,
            vlan: vlan_mode(&config.spec.vlan),
            output,
            counters: Arc::new(PortCounters::new(workers)),
        }
    }

    /// The queues that workers are to serve; to be asked for once.
    pub fn rx_queues(&self) -> Vec<Box<dyn RxQueue>> {
        match self {
            Self::VhostUser(port) => port.rx_queues(),
            Self::Device(port) => port.rx_queues(),
        }
    }

    /// Says whom the kicks of each queue wake.
    pub fn set_kicks(&mut self, kicks: Vec<Kicks>) {
        match self {
            Self::VhostUser(port) => port.set_kicks(kicks),
            Self::Device(port) => port.set_kicks(kicks),
        }
    }

    /// Whether a front end is connected, or the device is open.
    pub fn is_connected(&self) -> bool {
        match self {
            Self::VhostUser(port) => port.is_connected(),
            Self::Device(port) => port.is_open(),
        }
    }

    /// Why it has no device, if it is to have one.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::VhostUser(_) => None,
            Self::Device(port) => port.error(),
        }
    }

    /// How the queues of its device fare, if they are AF_XDP's.
    pub fn watches(&self) -> &[Watch] {
        match self {
            Self::VhostUser(_) => &[],
            Self::Device(port) => port.watches(),
        }
    }

    /// When the next attempt to connect, or to open the device, is due.
    pub fn due(&self) -> Option<Nanos> {
        self.retry().due()
    }

    /// Whether such an attempt is due. Then it is to be made; there is no other until it has failed or what it led to ends.
    pub fn take_attempt(&mut self, now: Nanos) -> Option<Nanos> {
        match self {
            Self::VhostUser(port) => port.retry.take(now),
            Self::Device(port) => port.retry.take(now),
        }
    }

    /// Ends what the port does. No worker touches the guest's memory, or the device, when this returns.
    pub fn close(&mut self, poller: &Poller) {
        match self {
            Self::VhostUser(port) => port.close(poller),
            Self::Device(port) => port.close(),
        }
    }

    /// The guest's port, if it is one.
    pub fn vhost_user(&mut self) -> Option<&mut VhostUserPort> {
        match self {
            Self::VhostUser(port) => Some(port),
            Self::Device(_) => None,
        }
    }

    /// The device's port, if it is one.
    pub fn device(&mut self) -> Option<&mut DevicePort> {
        match self {
            Self::VhostUser(_) => None,
            Self::Device(port) => Some(port),
        }
    }

    fn retry(&self) -> &Retry {
        match self {
            Self::VhostUser(port) => &port.retry,
            Self::Device(port) => &port.retry,
        }
    }
}

/// When something is tried again: later after each failure.
#[derive(Debug, Default)]
struct Retry {
    /// The next attempt, and the pause after it.
    next: Option<(Nanos, Nanos)>,
}

impl Retry {
    /// The first attempt is due at this time.
    fn at(at: Nanos) -> Self {
        Self { next: Some((at, RETRY_FIRST)) }
    }

    fn due(&self) -> Option<Nanos> {
        self.next.map(|(at, _)| at)
    }

    /// The pause after the attempt, if it is due.
    fn take(&mut self, now: Nanos) -> Option<Nanos> {
        let (at, pause) = self.next?;
        (at <= now).then(|| {
            self.next = None;
            pause
        })
    }

    /// An attempt failed; the next one comes after `pause`.
    fn failed(&mut self, pause: Nanos, now: Nanos) {
        self.next = Some((now + pause, (pause * 2).min(RETRY_LONGEST)));
    }
}

/// How a port carries VLANs, as the tables have it.
pub fn vlan_mode(vlan: &VlanSpec) -> VlanMode {
    match vlan {
        VlanSpec::All => VlanMode::default(),
        VlanSpec::Access(vlan) => VlanMode::Access(*vlan),
        VlanSpec::Trunk { ranges, native } => {
            VlanMode::Trunk { vlans: ranges.iter().flat_map(|(first, last)| *first..=*last).collect(), native: *native }
        }
    }
}

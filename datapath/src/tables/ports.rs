//! The switch's ports, as the tables see them.

use std::sync::Arc;

use super::counters::PortCounters;
use super::vlan::VlanMode;
use crate::port::{Output, PortNo};

/// A port. It never changes: a modification puts another in its place, which shares its output and counters.
#[derive(Clone)]
pub struct Port {
    /// Its number: 1 to [`PortNo::MAX`], or [`PortNo::LOCAL`].
    pub no: PortNo,
    /// Its name, unique in the switch.
    pub name: String,
    /// Its Ethernet address.
    pub hw_addr: [u8; 6],
    /// What controllers want of it.
    pub config: PortConfig,
    /// Whether somebody is at the other end.
    pub link_up: bool,
    /// How fast its link is, in Mbit/s, if that means anything.
    pub speed: Option<u32>,
    /// The most bytes behind the Ethernet header of a frame.
    pub mtu: u16,
    /// Whether who sends it a longer packet is told so, by ICMP.
    pub icmp_too_big: bool,
    /// How it carries VLANs in the learning switch (NORMAL).
    pub vlan: VlanMode,
    /// Where its frames go.
    pub output: Arc<dyn Output>,
    /// What it counted.
    pub counters: Arc<PortCounters>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({} {:?} {:?}, link {})", self.no, self.name, self.config, if self.link_up { "up" } else { "down" })
    }
}

impl Port {
    /// Whether frames from it are taken in.
    pub fn receives(&self) -> bool {
        !self.config.intersects(PortConfig(PortConfig::PORT_DOWN.0 | PortConfig::NO_RECV.0))
    }

    /// Whether somebody is at the other end and may be sent frames (`OFPPS_LIVE`).
    pub fn is_live(&self) -> bool {
        self.link_up && !self.config.intersects(PortConfig::PORT_DOWN)
    }

    /// Whether frames may be sent to it.
    pub fn forwards(&self) -> bool {
        !self.config.intersects(PortConfig(PortConfig::PORT_DOWN.0 | PortConfig::NO_FWD.0))
    }
}

/// `OFPPC_*`: what controllers want of a port (OpenFlow 1.3.5, 7.2.1; NO_FLOOD is OpenFlow 1.0's).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortConfig(pub u32);

impl PortConfig {
    /// The port is administratively down.
    pub const PORT_DOWN: Self = Self(1);
    /// Frames that come in are dropped.
    pub const NO_RECV: Self = Self(1 << 2);
    /// Floods leave it out.
    pub const NO_FLOOD: Self = Self(1 << 4);
    /// Frames sent to it are dropped.
    pub const NO_FWD: Self = Self(1 << 5);
    /// Frames that came in don't make packet-ins.
    pub const NO_PACKET_IN: Self = Self(1 << 6);
    /// All bits that there are.
    pub const ALL: Self = Self(0b111_0101);

    /// Whether any of `bits` is set.
    pub fn intersects(self, bits: Self) -> bool {
        self.0 & bits.0 != 0
    }
}

/// All ports, by number.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    sorted: Vec<Arc<Port>>,
}

impl Ports {
    fn find(&self, no: PortNo) -> Result<usize, usize> {
        // Ports are numbered from 1 unless someone asks for other numbers, so most often this is the place.
        let guess = no.0.wrapping_sub(1) as usize;
        match self.sorted.get(guess) {
            Some(port) if port.no == no => Ok(guess),
            _ => self.sorted.binary_search_by_key(&no, |port| port.no),
        }
    }

    /// The port with this number.
    pub fn get(&self, no: PortNo) -> Option<&Arc<Port>> {
        self.find(no).ok().map(|at| &self.sorted[at])
    }

    /// The port with this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Port>> {
        self.iter().find(|port| port.name == name)
    }

    /// All ports, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Port>> + Clone {
        self.sorted.iter()
    }

    /// The number of ports.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are no ports.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Puts a port in, in the place of one with the same number, which is returned.
    pub(super) fn insert(&mut self, port: Arc<Port>) -> Option<Arc<Port>> {
        match self.find(port.no) {
            Ok(at) => Some(std::mem::replace(&mut self.sorted[at], port)),
            Err(at) => {
                self.sorted.insert(at, port);
                None
            }
        }
    }

    /// Takes the port with this number out.
    pub(super) fn remove(&mut self, no: PortNo) -> Option<Arc<Port>> {
        self.find(no).ok().map(|at| self.sorted.remove(at))
    }
}

/// Why a change to the ports was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortError {
    /// `OFPPMFC_BAD_PORT`: there is no port with this number.
    NoSuchPort(PortNo),
    /// `OFPPMFC_BAD_HW_ADDR`: the port has another Ethernet address.
    BadHwAddr(PortNo),
    /// `OFPPMFC_BAD_CONFIG`: unknown configuration bits.
    BadConfig(PortNo),
    /// A port can't have this number.
    BadNumber(PortNo),
    /// Another port has this number.
    NumberInUse(PortNo),
    /// Another port has this name.
    NameInUse(String),
}

impl std::fmt::Display for PortError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchPort(no) => write!(f, "there is no port {no}"),
            Self::BadHwAddr(no) => write!(f, "port {no} has another Ethernet address; give the one that it has"),
            Self::BadConfig(no) => write!(f, "unknown configuration bits for port {no}"),
            Self::BadNumber(no) => write!(f, "{no} can't be the number of a port; choose one from 1 to {}", PortNo::MAX),
            Self::NumberInUse(no) => write!(f, "port number {no} is in use; choose another"),
            Self::NameInUse(name) => write!(f, "port name {name} is in use; choose another"),
        }
    }
}

impl std::error::Error for PortError {}

//! The switches that are measured.
//!
//! Each is started from what is installed, in a directory and, if it needs one, in a network namespace of its own. A namespace has no name: it is that of a
//! process, and ends with it. Every process ends with the value that stands for it, or else with this program, however that ends.

mod bridge;
mod ovs;
mod vswitch;
mod wire;

use std::fs::File;
use std::path::{Path, PathBuf};

use ::tests::process::Process;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::guest::{Listener, Socket};
use crate::host::Host;
use crate::rules::Rules;

/// A switch that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Ours, busy polling.
    Vswitch,
    /// Ours, polling adaptively.
    VswitchAdaptive,
    /// Open vSwitch with DPDK.
    #[serde(rename = "ovs-dpdk")]
    Ovs,
    /// DPDK's vhost port alone: it forwards all that comes from the one port to the other.
    Wire,
    /// The kernel's bridge, with taps.
    #[serde(rename = "kernel-bridge")]
    Bridge,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 5] = [Peer::Vswitch, Peer::VswitchAdaptive, Peer::Ovs, Peer::Wire, Peer::Bridge];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Vswitch => "vswitch",
            Peer::VswitchAdaptive => "vswitch-adaptive",
            Peer::Ovs => "ovs-dpdk",
            Peer::Wire => "wire",
            Peer::Bridge => "kernel-bridge",
        }
    }

    /// What to install if it can't be measured here.
    pub fn missing(self, host: &Host) -> Option<String> {
        match self {
            Peer::Vswitch | Peer::VswitchAdaptive => vswitch::missing(host),
            Peer::Ovs => ovs::missing(),
            Peer::Wire => wire::missing(),
            Peer::Bridge => bridge::missing(),
        }
    }

    /// Which version it is.
    pub fn version(self, host: &Host) -> String {
        match self {
            Peer::Vswitch | Peer::VswitchAdaptive => vswitch::version(host),
            Peer::Ovs => ovs::version(),
            Peer::Wire => wire::version(),
            Peer::Bridge => bridge::version(),
        }
    }

    /// Starts it. Its files are in `dir`.
    ///
    /// # Errors
    ///
    /// It does not start, or refuses the rules.
    pub fn start(self, host: &Host, dir: &Path, setup: &Setup) -> Result<Box<dyn Switch>> {
        Ok(match self {
            Peer::Vswitch => Box::new(vswitch::Vswitch::start(host, dir, setup, "busy")?),
            Peer::VswitchAdaptive => Box::new(vswitch::Vswitch::start(host, dir, setup, "adaptive")?),
            Peer::Ovs => Box::new(ovs::Ovs::start(host, dir, setup)?),
            Peer::Wire => Box::new(wire::Wire::start(host, dir)?),
            Peer::Bridge => Box::new(bridge::Bridge::start(host, dir)?),
        })
    }
}

/// How a switch is set up for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Its rules.
    pub rules: Rules,
    /// How many ports it has: the first two are those that are used.
    pub ports: usize,
    /// Whether Open vSwitch's exact match cache is on.
    pub exact_match_cache: bool,
    /// Whether frames may be longer than the MTU, to be cut up by whoever needs that.
    pub tso: bool,
}

/// How the guests reach a switch.
#[derive(Debug)]
pub enum Ends {
    /// Through vhost-user.
    Sockets(Vec<Socket>),
    /// Through taps in this network namespace.
    Taps(File, [&'static str; 2]),
}

/// What a switch did between two points in time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// The cycles that it spent on each frame, without those in which it found none.
    pub cycles_per_frame: Option<f64>,
    /// What else it says.
    pub counters: Map<String, Value>,
}

/// A switch that runs. Dropping it ends it.
pub trait Switch {
    /// How the guests reach it. To be asked for once.
    fn ends(&mut self) -> Result<Ends>;

    /// The socket that it speaks OpenFlow on, if it does.
    fn openflow(&self) -> Option<PathBuf> {
        None
    }

    /// The process and the thread that forwards, if one does.
    fn forwarder(&self) -> Option<(u32, i32)>;

    /// The process that it is, with those that this has started.
    fn process(&self) -> Option<&Process>;

    /// The counting begins.
    fn begin(&mut self) -> Result<()>;

    /// What it did since then.
    fn end(&mut self) -> Result<Spent>;
}

/// The sockets of `count` ports.
fn sockets(dir: &Path, count: usize, listener: Listener) -> Result<Vec<Socket>> {
    let new =
        |port| Socket::new(&dir.join(format!("p{port}.sock")), listener).map_err(|e| crate::error::Error::io(format!("p{port}.sock"), e));
    (0..count).map(new).collect()
}

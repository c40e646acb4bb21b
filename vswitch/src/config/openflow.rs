//! How the switch deals with its controllers.

use std::fmt;
use std::time::Duration;

use super::Versions;

/// See the module. Its defaults are Open vSwitch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlow {
    /// The versions that it offers, at least one.
    pub versions: Versions,
    /// A controller that is silent for so long is asked whether it is there, and given up after as long again; `None`: never.
    pub inactivity_probe: Option<Duration>,
    /// The longest pause between attempts to connect to a controller.
    pub max_backoff: Duration,
    /// How many packet-ins a connection gets; `None`: as many as it takes.
    pub packet_ins: Option<Rate>,
}

/// A rate of packet-ins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Per second, from 1 to [`Rate::MAX`].
    pub per_second: u32,
    /// At once, after a time without any; from 1 to [`Rate::MAX`].
    pub burst: u32,
}

impl Rate {
    /// The highest rate, and the largest burst.
    pub const MAX: u32 = 1_000_000;

    /// The burst of a rate for which none is given: a quarter of it.
    pub fn burst_of(per_second: u32) -> u32 {
        (per_second / 4).max(1)
    }
}

impl Default for OpenFlow {
    fn default() -> Self {
        Self {
            versions: Versions::SPOKEN,
            inactivity_probe: Some(Duration::from_secs(5)),
            max_backoff: Duration::from_secs(8),
            packet_ins: None,
        }
    }
}

impl fmt::Display for OpenFlow {
    /// As the config file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probe = self.inactivity_probe.unwrap_or_default().as_secs();
        write!(f, "versions {}, inactivity-probe-s {probe}, max-backoff-s {}", self.versions, self.max_backoff.as_secs())?;
        match self.packet_ins {
            Some(Rate { per_second, burst }) => write!(f, ", packet-in-rate {per_second}, packet-in-burst {burst}"),
            None => f.write_str(", packet-in-rate 0"),
        }
    }
}

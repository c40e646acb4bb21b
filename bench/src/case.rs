//! The cases: which rules, which frames, and who is measured.

use std::time::Duration;

use crate::frames::{Order, Vary, Workload};
use crate::peer::{Peer, Setup};
use crate::rules::Rules;
use crate::traffic::Pace;

/// What a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// How many frames come through.
    Rate,
    /// How many flows are cached.
    Installs,
    /// How many bytes.
    Bytes,
    /// How long a frame takes.
    Latency,
    /// What it costs.
    Cost,
}

/// A case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// Its name, for `--cases`.
    pub name: &'static str,
    /// What it is, in a few words.
    pub says: &'static str,
    /// What it is about.
    pub about: About,
    /// How the switches are set up.
    pub setup: Setup,
    /// What the guests send.
    pub workload: Workload,
    /// How much of it.
    pub pace: Pace,
    /// Who is measured in it, ours first: that is what the others are compared with.
    pub peers: &'static [Peer],
}

const TWO_PORTS: Setup = Setup { rules: Rules::Ports, ports: 2, exact_match_cache: true, tso: false };
const OURS_AND_OVS: &[Peer] = &[Peer::Vswitch, Peer::Ovs];
const WITH_WIRE: &[Peer] = &[Peer::Vswitch, Peer::Ovs, Peer::Wire];
const EVERYBODY: &[Peer] = &[Peer::Vswitch, Peer::Ovs, Peer::Wire, Peer::Bridge];

const ONE_RULE: Case = Case {
    name: "inout1",
    says: "one rule per direction",
    about: About::Rate,
    setup: TWO_PORTS,
    workload: Workload::PLAIN,
    pace: Pace::Flood,
    peers: EVERYBODY,
};

const UNIQUE: Case = Case {
    name: "unique",
    says: "every frame a new flow that needs a megaflow of its own",
    setup: Setup { rules: Rules::Unique, ..TWO_PORTS },
    workload: Workload { vary: Vary::Ports, order: Order::New(1), ..Workload::PLAIN },
    peers: OURS_AND_OVS,
    ..ONE_RULE
};

const fn pipeline(name: &'static str, says: &'static str, flows: u32, order: Order) -> Case {
    let setup = Setup { rules: Rules::Pipeline, ..TWO_PORTS };
    Case { name, says, setup, workload: Workload { flows, order, ..Workload::PLAIN }, peers: OURS_AND_OVS, ..ONE_RULE }
}

const fn masks(name: &'static str, says: &'static str, classes: u32) -> Case {
    let workload = Workload { flows: 1_000_000, vary: Vary::Classes(classes), order: Order::Random, ..Workload::PLAIN };
    let setup = Setup { rules: Rules::Masks(classes), exact_match_cache: false, ..TWO_PORTS };
    Case { name, says, setup, workload, peers: OURS_AND_OVS, ..ONE_RULE }
}

const BOTH_OURS: &[Peer] = &[Peer::VswitchAdaptive, Peer::Vswitch];

const fn latency(name: &'static str, says: &'static str, pace: Pace, peers: &'static [Peer]) -> Case {
    Case { name, says, about: About::Latency, pace, peers, ..ONE_RULE }
}

const fn cost(name: &'static str, says: &'static str, ports: usize, pace: Pace, peers: &'static [Peer]) -> Case {
    Case { name, says, about: About::Cost, setup: Setup { rules: Rules::Normal, ports, ..TWO_PORTS }, pace, peers, ..ONE_RULE }
}

/// All cases, in the order of the report.
pub const CASES: &[Case] = &[
    ONE_RULE,
    Case { name: "inout1-bidi", says: "one rule per direction, both ways", pace: Pace::FloodBothWays, peers: WITH_WIRE, ..ONE_RULE },
    Case {
        name: "normal1",
        says: "the learning switch",
        setup: Setup { rules: Rules::Normal, ..TWO_PORTS },
        peers: &[Peer::Vswitch, Peer::Ovs, Peer::Bridge],
        ..ONE_RULE
    },
    pipeline("pipe10-1", "ten tables, one flow", 1, Order::InTurn),
    pipeline("pipe10-1k", "ten tables, 1,000 flows at random", 1_000, Order::Random),
    pipeline("pipe10-10k", "ten tables, 10,000 flows at random", 10_000, Order::Random),
    pipeline("pipe10-100k", "ten tables, 100,000 flows at random", 100_000, Order::Random),
    pipeline("pipe10-1m", "ten tables, a million flows at random", 1_000_000, Order::Random),
    pipeline("pipe10-100k-zipf", "ten tables, 100,000 flows by Zipf's law", 100_000, Order::Zipf),
    masks("masks8", "8 masks, a million flows", 8),
    masks("masks32", "32 masks, a million flows", 32),
    masks("masks64", "64 masks, a million flows", 64),
    UNIQUE,
    Case {
        name: "installs",
        says: "every flow new and sent twice, each with a megaflow of its own",
        about: About::Installs,
        workload: Workload { order: Order::New(2), ..UNIQUE.workload },
        ..UNIQUE
    },
    Case {
        name: "inout1-1500",
        says: "one rule, frames of 1,514 bytes",
        workload: Workload { size: 1514, ..Workload::PLAIN },
        peers: WITH_WIRE,
        ..ONE_RULE
    },
    Case {
        name: "inout-tso",
        says: "one rule, TCP segments of 65,000 bytes to be cut up later (TSO)",
        about: About::Bytes,
        setup: Setup { tso: true, ..TWO_PORTS },
        workload: Workload { size: 65_000, tso: true, ..Workload::PLAIN },
        peers: WITH_WIRE,
        ..ONE_RULE
    },
    latency("lat100k", "latency at 100,000 frames a second", Pace::Rate(100_000.0), WITH_WIRE),
    latency("ping", "there and back, one frame at a time, ten thousand a second", Pace::Ping(Duration::from_micros(100)), WITH_WIRE),
    latency(
        "wake-up",
        "there and back, twenty times a second: each frame wakes a switch that sleeps",
        Pace::Ping(Duration::from_millis(50)),
        BOTH_OURS,
    ),
    Case { name: "adaptive", says: "adaptive polling, one rule", peers: BOTH_OURS, ..ONE_RULE },
    Case {
        name: "ports64",
        says: "one rule, 64 guests of whom 62 are idle",
        setup: Setup { ports: 64, ..TWO_PORTS },
        peers: OURS_AND_OVS,
        ..ONE_RULE
    },
    cost("cpu-10k", "10,000 frames a second", 2, Pace::Rate(1e4), BOTH_OURS),
    cost("cpu-100k", "100,000 frames a second", 2, Pace::Rate(1e5), BOTH_OURS),
    cost("cpu-1m", "a million frames a second", 2, Pace::Rate(1e6), BOTH_OURS),
    cost("idle-0", "no port", 0, Pace::Idle, &[Peer::VswitchAdaptive]),
    cost("idle-2", "2 idle guests", 2, Pace::Idle, &[Peer::VswitchAdaptive, Peer::Ovs]),
    cost("idle-100", "100 idle guests", 100, Pace::Idle, &[Peer::VswitchAdaptive]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(CASES[..index].iter().all(|other| other.name != case.name), "{}", case.name);
        }
    }
}

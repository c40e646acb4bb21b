//! Which flows a select group gives to which bucket: a running switch, and 10,000 flows of one frame each.
//!
//!     cargo run --release -p tests --example shares [FLOWS]
//!
//! First the buckets' shares for several weightings. A share that is left to chance differs from its weight by one standard deviation or less in two cases of
//! three, whatever chooses, so that is shown beside it. Then how many flows move when a bucket is added or removed: no way to choose moves fewer than
//! those that the new bucket is to have, or the old one had.

use tests::flows::destinations;
use tests::frontend::{Guest, Options};
use tests::stats;
use tests::switch::Switch;

/// The most buckets.
const BUCKETS: usize = 8;
const WEIGHTINGS: [&[u16]; 7] = [&[1, 1], &[1, 1, 1, 1], &[1; 8], &[1, 2, 3], &[10, 1], &[100, 50, 25, 10], &[1000, 1, 999]];
/// What the group was, and what it becomes.
const CHANGES: [(&[u16], &[u16]); 6] = [
    (&[1, 1], &[1, 1, 1]),
    (&[1, 1, 1], &[1, 1]),
    (&[1, 1, 1, 1], &[1, 1, 1, 1, 1]),
    (&[1; 8], &[1, 1, 1, 1, 1, 1, 1]),
    (&[3, 2, 1], &[3, 2, 1, 4]),
    (&[1, 1, 1, 1], &[1, 1, 1, 2]),
];

struct Bench {
    switch: Switch,
    sender: Guest,
    receivers: Vec<Guest>,
    flows: u32,
}

impl Bench {
    /// Has the group have buckets of these weights, the first of which is port 2.
    fn set(&mut self, weights: &[u16]) {
        let buckets = weights.iter().zip(2..).map(|(weight, port)| format!(",bucket=weight:{weight},output:{port}"));
        let group = format!("group_id=1,type=select{}", buckets.collect::<String>());
        self.switch.ofctl("mod-group", &[&group]);
    }

    /// The port of each flow, counted from 0.
    fn destinations(&mut self) -> Vec<usize> {
        let found = destinations(&mut self.sender, &mut self.receivers, self.flows);
        found.into_iter().map(|to| to.expect("every flow has a bucket")).collect()
    }
}

fn main() {
    let flows = std::env::args().nth(1).map_or(10_000, |flows| flows.parse().expect("a number of flows"));
    let ports: Vec<_> = (1..=BUCKETS + 1).map(|port| format!("vm{port}=vhost-user:vm{port}.sock")).collect();
    let args: Vec<_> = ["--fail-mode", "secure"].into_iter().chain(ports.iter().flat_map(|port| ["--port", port])).collect();
    let switch = Switch::start(&args);
    let guest = |port| Guest::connect(&switch.path(&format!("vm{port}.sock")), Options::default()).expect("a guest");
    let sender = guest(1);
    let receivers = (2..BUCKETS + 2).map(guest).collect();
    switch.ofctl("add-group", &["group_id=1,type=select,bucket=output:2"]);
    switch.ofctl("add-flow", &["in_port=1,actions=group:1"]);
    let mut bench = Bench { switch, sender, receivers, flows };

    println!("weights: share of {flows} flows, deviation from the weight's share (its standard deviation, were it left to chance)");
    for weights in WEIGHTINGS {
        bench.set(weights);
        let destinations = bench.destinations();
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let shares = weights.iter().enumerate().map(|(at, weight)| {
            let got = destinations.iter().filter(|to| **to == at).count() as f64;
            let share = f64::from(*weight) / total;
            let wanted = share * f64::from(flows);
            format!("{got:.0} {:+.1} % ({:.1})", 100.0 * (got / wanted - 1.0), 100.0 * ((1.0 - share) / wanted).sqrt())
        });
        println!("{weights:?}: {}", shares.collect::<Vec<_>>().join(", "));
        let counted = stats::group(&bench.switch, 1);
        let came = |at| destinations.iter().filter(|to| **to == at).count() as u64;
        assert_eq!(counted.buckets, (0..weights.len()).map(came).collect::<Vec<_>>(), "the buckets count what came out");
        assert_eq!(bench.destinations(), destinations, "a flow stays where it is");
    }

    println!("weights before and after: share of flows that moved, the least possible; of those between buckets whose weight stayed");
    for (before, after) in CHANGES {
        bench.set(before);
        let old = bench.destinations();
        bench.set(after);
        let new = bench.destinations();
        let moved: Vec<_> = old.iter().zip(&new).filter(|(old, new)| old != new).collect();
        let share = |weights: &[u16], at: usize| {
            f64::from(weights.get(at).copied().unwrap_or(0)) / weights.iter().map(|weight| f64::from(*weight)).sum::<f64>()
        };
        let least: f64 = (0..BUCKETS).map(|at| (share(after, at) - share(before, at)).max(0.0)).sum();
        let stays = |at: usize| before.get(at) == after.get(at);
        let needless = moved.iter().filter(|(old, new)| stays(**old) && stays(**new)).count();
        let percent = |count: usize| 100.0 * count as f64 / f64::from(flows);
        println!("{before:?} {after:?}: {:.1} % ({:.1} %); {:.1} %", percent(moved.len()), 100.0 * least, percent(needless));
    }
    bench.switch.stop();
}

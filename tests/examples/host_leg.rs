//! A process of the host talks TCP with a guest: through a tap and the switch, and, the same guest, through the kernel's bridge. Both run at the same
//! time and are measured in turns. Prints the medians, and the median of the turns' ratios.
//!
//!     cargo run --release -p tests --example host_leg [TURNS]

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};
use tests::guest::{Connection, Guest, Options};
use tests::namespace::Namespace;
use tests::pair::connect;
use tests::process::{PATIENCE, until};
use tests::switch::Switch;
use vswitch::config::Tap;
use vswitch::uplink::tap;

/// A host (10.0.0.2) and a guest (10.0.0.1).
struct Side {
    guest: Guest,
    _switch: Option<Switch>,
    host: Namespace,
}

impl Side {
    fn switch() -> Self {
        let host = Namespace::new("switch");
        let switch = Switch::start_in(&host, &["--port", "vm1=vhost-user:{}/vm1.sock", "--port", "host=tap:host0"]);
        host.address("host0", "10.0.0.2/24");
        let guest = Guest::start(&Options::new(switch.path("vm1.sock"), 1));
        Self { guest, _switch: Some(switch), host }
    }

    fn bridge() -> Self {
        let host = Namespace::new("bridge");
        let tap = Tap { name: "guest0".parse().expect("a name"), queues: 1, persistent: false, mtu: None };
        let opened = host.thread(move || tap::open(&tap)).join().expect("opened").expect("a tap");
        let tap: OwnedFd = opened.1.into_iter().next().expect("a queue");
        fcntl_setfd(&tap, FdFlags::empty()).expect("it is to be inherited");
        host.run("ip", &["link", "add", "br0", "type", "bridge"]);
        host.run("ip", &["link", "set", "guest0", "master", "br0"]);
        host.run("ip", &["link", "set", "br0", "up"]);
        host.address("br0", "10.0.0.2/24");
        let guest = Guest::start(&Options { connection: Connection::Tap(tap.as_raw_fd()), ..Options::new("", 1) });
        Self { guest, _switch: None, host }
    }

    fn start(mut self) -> Self {
        connect(&mut self.guest, 1);
        until(PATIENCE, "the host hears the guest", || self.host.pings("10.0.0.1").then_some(()));
        self.guest.run("iperf3 -s -D >/dev/null");
        self
    }

    /// Received megabits per second, for five seconds.
    fn rate(&self, back: bool) -> f64 {
        let direction: &[&str] = if back { &["-R"] } else { &[] };
        let report = self.host.run("iperf3", &[&["-J", "-t", "5", "-c", "10.0.0.1"], direction].concat());
        let report: serde_json::Value = serde_json::from_str(&report).expect("iperf3 writes JSON");
        report["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate") / 1e6
    }

    /// The mean round trip of pings, in microseconds.
    fn round_trip(&self) -> f64 {
        let text = self.host.run("ping", &["-q", "-c", "200", "-i", "0.01", "10.0.0.1"]);
        let times = text.lines().find_map(|line| line.strip_prefix("rtt ")?.split(" = ").nth(1)).expect("ping counts");
        times.split('/').nth(1).and_then(|mean| mean.parse::<f64>().ok()).expect("a mean") * 1000.0
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() {
    let turns = std::env::args().nth(1).map_or(5, |turns| turns.parse().expect("a number of turns"));
    let (switch, bridge) = (Side::switch().start(), Side::bridge().start());
    type Measure = fn(&Side) -> f64;
    let measures: [(&str, Measure); 3] = [
        ("host to guest, Mb/s", |side| side.rate(false)),
        ("guest to host, Mb/s", |side| side.rate(true)),
        ("ping, microseconds", Side::round_trip),
    ];
    println!("{:24}{:>12}{:>12}{:>8}  ratios", "", "switch", "bridge", "ratio");
    for (what, measure) in measures {
        let pairs: Vec<(f64, f64)> = (0..turns).map(|_| (measure(&switch), measure(&bridge))).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let ratios: Vec<_> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
        let (least, most) = (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
        println!("{what:24}{:>12.0}{:>12.0}{:>8.2}  {least:.2} to {most:.2}", median(&ours), median(&theirs), median(&ratios));
    }
}

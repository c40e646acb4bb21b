//! How long a fast-failover group sends to a port that is gone: a running switch, and a guest that sends numbered frames at a steady rate while the port
//! that they go to goes down.
//!
//!     cargo run --release -p tests --example failover [ROUNDS [FRAMES/S]]
//!
//! A frame is lost if neither the guest that was there received it before it left, nor the other one at all. The frames lost in a round, divided by the rate, are
//! the time that the switch took. A port goes down in four ways: its front end closes the connection; it disables its queues; it stops its rings (GET_VRING_BASE);
//! a controller sets it down (`ovs-ofctl mod-port`). The bucket watches the port, or a group that does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::flows::{SHORTEST, all_taken, udp};
use tests::frontend::{Guest, Options};
use tests::process::{PATIENCE, until};
use tests::stats;
use tests::switch::Switch;

/// How a port goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Disconnect,
    Disable,
    Stop,
    PortMod,
}

struct Bench {
    switch: Switch,
    /// The sender, the guest whose port goes down, and the one that stands in for it.
    guests: [Guest; 3],
    rate: f64,
}

impl Bench {
    fn new(rate: f64) -> Self {
        let ports = [1, 2, 3].map(|port| format!("vm{port}=vhost-user:vm{port}.sock"));
        let args: Vec<_> = ["--fail-mode", "secure"].into_iter().chain(ports.iter().flat_map(|port| ["--port", port])).collect();
        let switch = Switch::start(&args);
        let options = Options { ring_size: 4096, ..Options::default() };
        let guests = [1, 2, 3].map(|port| Guest::connect(&switch.path(&format!("vm{port}.sock")), options).expect("a guest"));
        Self { switch, guests, rate }
    }

    fn wait_for_link(&self, up: bool) {
        until(PATIENCE, "the link changes", || {
            let port = self.switch.ctl_json(&["port", "show", "vm2"]);
            ((port["link"] == "up") == up).then_some(())
        });
    }

    /// Lets the port of the second guest go down under traffic. Returns how many frames were lost.
    fn round(&mut self, way: Way) -> u64 {
        let Self { switch, guests: [sender, leaving, other], rate } = self;
        let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let before = stats::group(switch, 1).buckets;
        let (received, stood_in) = std::thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                let mut stood_in = 0;
                let mut next = Instant::now();
                while !done.load(Ordering::Relaxed) {
                    stood_in += other.receive(0).len() as u64;
                    let now = Instant::now();
                    if now < next {
                        std::hint::spin_loop();
                        continue;
                    }
                    // What could not be sent in time is not sent at all: no bursts.
                    next = (next + Duration::from_secs_f64(1.0 / *rate)).max(now);
                    let frame = udp(1, sent.load(Ordering::Relaxed), SHORTEST);
                    sent.fetch_add(sender.send(0, [&frame[..]]) as u64, Ordering::Relaxed);
                }
                all_taken(sender);
                stood_in + other.receive(0).len() as u64
            });
            let mut received = 0;
            let enough = *rate as u64 / 100;
            let mut take = |leaving: &mut Guest| {
                received += leaving.receive(0).len() as u64;
                received
            };
            until(PATIENCE, "frames arrive", || (take(leaving) >= enough).then_some(()));
            match way {
                Way::Disconnect => {
                    // What comes from here on is lost.
                    take(leaving);
                    leaving.disconnect();
                }
                Way::Disable => leaving.set_queue_pairs(0).expect("a change of the queue pairs"),
                Way::Stop => leaving.stop().expect("a stop"),
                Way::PortMod => drop(switch.ofctl("mod-port", &["vm2", "down"])),
            }
            let changed = sent.load(Ordering::Relaxed);
            until(PATIENCE, "frames go on", || (sent.load(Ordering::Relaxed) >= changed + enough).then_some(()));
            if way != Way::Disconnect {
                take(leaving);
            }
            done.store(true, Ordering::Relaxed);
            (received, traffic.join().expect("the traffic"))
        });
        let sent = sent.into_inner();
        let after = stats::group(switch, 1).buckets;
        assert_eq!(after.iter().sum::<u64>() - before.iter().sum::<u64>(), sent, "each frame is counted by one bucket");
        assert!(stood_in > 0, "no frame was received by the guest that stands in");
        sent - received - stood_in
    }

    /// Lets the port come up again.
    fn restore(&mut self, way: Way) {
        let path = self.switch.path("vm2.sock");
        let guest = &mut self.guests[1];
        match way {
            Way::Disconnect => guest.reconnect(&path).expect("a reconnection"),
            Way::Disable => guest.set_queue_pairs(1).expect("a change of the queue pairs"),
            Way::Stop => guest.start().expect("a start"),
            Way::PortMod => drop(self.switch.ofctl("mod-port", &["vm2", "up"])),
        }
        if way != Way::PortMod {
            self.wait_for_link(true);
        }
        self.guests.iter_mut().for_each(|guest| drop(guest.receive(0)));
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u32>().expect("a number"));
    let rounds = args.next().unwrap_or(50);
    let rate = args.next().unwrap_or(100_000).into();
    let mut bench = Bench::new(rate);
    println!("{rounds} rounds at {rate} frames a second: frames lost (ms), median and worst");
    for watched in ["watch_port", "watch_group"] {
        bench.switch.ofctl("del-groups", &[]);
        if watched == "watch_group" {
            // A select group, so that it may have a bucket that watches a port.
            bench.switch.ofctl("add-group", &["group_id=2,type=select,bucket=watch_port:2,output:2"]);
        }
        let bucket = if watched == "watch_port" { "watch_port:2,output:2" } else { "watch_group:2,group:2" };
        bench.switch.ofctl("add-group", &[&format!("group_id=1,type=ff,bucket={bucket},bucket=watch_port:3,output:3")]);
        bench.switch.ofctl("add-flow", &["in_port=1,actions=group:1"]);
        for way in [Way::Disconnect, Way::Disable, Way::Stop, Way::PortMod] {
            let mut lost: Vec<_> = (0..rounds)
                .map(|_| {
                    let lost = bench.round(way);
                    bench.restore(way);
                    lost
                })
                .collect();
            lost.sort_unstable();
            let show = |lost: u64| format!("{lost} ({:.2})", lost as f64 / rate * 1e3);
            println!("{watched}, {way:?}: {}, {}", show(lost[lost.len() / 2]), show(lost[lost.len() - 1]));
        }
    }
    bench.switch.stop();
}

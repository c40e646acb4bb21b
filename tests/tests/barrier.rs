//! A barrier covers the datapath, however much is cached: not one frame that is sent after its reply goes by the rules of before.
//!
//! `VSWITCH_ROUNDS=N` has it try N times. It prints how long the barriers took, and asserts nothing about that.

use std::time::Duration;

use tests::barrier::{Rounds, udp_frame};
use tests::frontend::{Guest, Options};
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

const FLOWS: u32 = 100_000;
/// Frames that no cache knows, and that go nowhere, keep the workers at work meanwhile: then the reply finds them in the middle of a breath.
const BUSY: &str = "priority=20,udp,in_port=4,actions=move:NXM_OF_UDP_SRC[]->NXM_NX_REG0[0..15],move:NXM_OF_UDP_DST[]->NXM_NX_REG0[16..31]";
/// The rounds after which all flows are seen again, lest they become idle.
const BLOCK: usize = 1000;

/// The cached flows of all workers.
fn cached(switch: &Switch) -> u64 {
    let workers = switch.ctl_json(&["workers"]);
    workers.as_array().expect("a list").iter().map(|worker| worker["megaflows"].as_u64().expect("a number")).sum()
}

#[test]
fn no_frame_after_the_reply_goes_by_the_old_rules() {
    let rounds: usize = std::env::var("VSWITCH_ROUNDS").map_or(10_000, |number| number.parse().expect("VSWITCH_ROUNDS is a number"));
    let (switch, mut stage, mut other) = start(&[], FLOWS);
    switch.ofctl("add-flow", &[BUSY]);

    let mut latencies = std::thread::scope(|scope| {
        let rounds = scope.spawn(|| run(&mut stage, &switch, FLOWS, rounds));
        let mut flow = 0u32;
        while !rounds.is_finished() {
            for pair in 0..other.pairs() {
                flow = flow.wrapping_add(1);
                other.transmitter(pair).send(&udp_frame(flow, 0));
            }
        }
        rounds.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{} rounds; from a change to its barrier reply: {:?}, 99 % within {:?}, all within {:?}",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// The control thread does for those that sleep what a barrier asks of them.
#[test]
fn workers_that_sleep_go_by_the_new_rules_when_they_wake() {
    let (switch, mut stage, _other) = start(&["--poll", "interrupt"], 100);
    run(&mut stage, &switch, 100, 3000);
}

/// A switch with two workers, and guests at three ports that play the rounds; and one more.
fn start(more: &[&str], flows: u32) -> (Switch, Rounds, Guest) {
    let ports: Vec<_> = (1..=4).map(|number| format!("vm{number}=vhost-user:vm{number}.sock,queues=2")).collect();
    let usable = rustix::thread::sched_getaffinity(None).expect("the affinity");
    let cpus: Vec<_> = (0..1024).filter(|cpu| usable.is_set(*cpu)).take(2).map(|cpu| cpu.to_string()).collect();
    let cpus = cpus.join(",");
    let args = ["--fail-mode", "secure", "--cpus", &cpus].into_iter().chain(more.iter().copied());
    let switch = Switch::start(&args.chain(ports.iter().flat_map(|port| ["--port", port])).collect::<Vec<_>>());
    let [one, two, three, other] = [1, 2, 3, 4].map(|number| {
        let options = Options { queue_pairs: 2, ..Options::default() };
        let guest = Guest::connect(&switch.path(&format!("vm{number}.sock")), options).expect("a guest");
        let port = format!("vm{number}");
        until(PATIENCE, "the link is up", || (switch.ctl_json(&["port", "show", &port])["link"] == "up").then_some(()));
        guest
    });
    let stage = Rounds::new(&switch.path("br0.mgmt"), [one, two, three], flows, PATIENCE);
    (switch, stage, other)
}

/// Goes through so many rounds while all flows are cached, and says how long each change took until its barrier reply.
fn run(stage: &mut Rounds, switch: &Switch, flows: u32, rounds: usize) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while latencies.len() < rounds {
        stage.warm_up();
        until(PATIENCE, "all flows are cached", || (cached(switch) >= u64::from(flows)).then_some(()));
        let mut block = Vec::new();
        for number in 0..BLOCK.min(rounds - latencies.len()) {
            let round = stage.round();
            assert_eq!(
                (round.stale, round.lost),
                (0, 0),
                "stale and lost of {} frames, round {number} after {}",
                round.sent,
                latencies.len()
            );
            block.push(round.latency);
        }
        // On a very slow machine they may be idle already, and the block does not count.
        if cached(switch) >= u64::from(flows) {
            latencies.append(&mut block);
        }
    }
    latencies
}

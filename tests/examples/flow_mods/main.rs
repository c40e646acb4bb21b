//! How fast flow-mods go in, from one connection, what a rule costs in memory and how long a list takes: this switch beside Open vSwitch's userspace switch.
//!
//!     cargo run --release -p tests --example flow_mods [RULES [TABLES [ROUNDS [SHAPE]]]]
//!     cargo run --release -p tests --example flow_mods here [RULES [TABLES [ROUNDS [SHAPE]]]]
//!
//! RULES (100,000) of a SHAPE are spread over TABLES (10) and go through the stages of [`Stage`]: each sends prepared bytes with a barrier behind them, and lasts
//! until the barrier's reply. That is done ROUNDS (5) times, with the two switches in turn, each started anew. Then our switch does it all once more while frames are
//! forwarded between two other ports, and none may be lost. SHAPE is `routes`, `masks` or `flows`, see [`Shape`].
//!
//! Figures are medians over the rounds, with the lowest and the highest in brackets; a ratio is that of the two switches in the same round. Processor time is that of
//! the whole switch: a machine that has other things to do lengthens it less than the time by the clock.
//!
//! With `here`, the messages go to an agent in this process, without workers: that can be run under `perf` or `valgrind --tool=callgrind`.

mod exchange;
mod frames;
mod here;
mod rules;

use std::path::Path;
use std::time::{Duration, Instant};

use exchange::{connect, exchange};
use frames::{Fate, Frames};
use here::Here;
use rules::{Rules, Shape, Stage};
use tests::open_vswitch::OpenVSwitch;
use tests::switch::Switch;

/// How long frames are forwarded without flow-mods, to compare with.
const UNDISTURBED: Duration = Duration::from_secs(3);

/// What a switch did in a round.
struct Round {
    /// Rules a second, and nanoseconds of processor time for each, by stage.
    stages: Vec<(f64, f64)>,
    /// Bytes of private memory for each rule.
    memory: f64,
}

/// Sends the messages of all stages.
fn round(rules: Rules, socket: &Path, memory: &dyn Fn() -> u64, cpu: &dyn Fn() -> Duration) -> Round {
    let stream = connect(socket);
    let (mut stages, mut bytes) = (Vec::new(), 0.0);
    for stage in Stage::ALL {
        let (messages, count) = rules.messages(stage);
        let (memory_before, cpu_before, start) = (memory(), cpu(), Instant::now());
        let listed = exchange(&stream, &messages);
        let (took, used) = (start.elapsed(), cpu() - cpu_before);
        assert_eq!(listed > 0, stage == Stage::List);
        stages.push((f64::from(count) / took.as_secs_f64(), used.as_nanos() as f64 / f64::from(count)));
        if stage == Stage::Add {
            bytes = memory().saturating_sub(memory_before) as f64 / f64::from(count);
        }
    }
    Round { stages, memory: bytes }
}

/// The median, the lowest and the highest.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn thousands((median, low, high): (f64, f64, f64)) -> String {
    format!("{:.0} ({:.0} - {:.0})", median / 1000.0, low / 1000.0, high / 1000.0)
}

fn plain((median, low, high): (f64, f64, f64)) -> String {
    format!("{median:.0} ({low:.0} - {high:.0})")
}

fn ratio((median, low, high): (f64, f64, f64)) -> String {
    format!("{median:.2} ({low:.2} - {high:.2})")
}

fn report(rounds: &[(Round, Round)]) {
    println!("| stage | vswitch, thousands of rules/s | Open vSwitch | ratio | processor time, ns/rule, vswitch | Open vSwitch |");
    println!("|---|---|---|---|---|---|");
    for (i, stage) in Stage::ALL.into_iter().enumerate() {
        let rates = [spread(rounds.iter().map(|(ours, _)| ours.stages[i].0)), spread(rounds.iter().map(|(_, theirs)| theirs.stages[i].0))];
        let cpu = [spread(rounds.iter().map(|(ours, _)| ours.stages[i].1)), spread(rounds.iter().map(|(_, theirs)| theirs.stages[i].1))];
        let ratios = spread(rounds.iter().map(|(ours, theirs)| ours.stages[i].0 / theirs.stages[i].0));
        println!(
            "| {stage:?} | {} | {} | {} | {} | {} |",
            thousands(rates[0]),
            thousands(rates[1]),
            ratio(ratios),
            plain(cpu[0]),
            plain(cpu[1])
        );
    }
    let memory = [spread(rounds.iter().map(|(ours, _)| ours.memory)), spread(rounds.iter().map(|(_, theirs)| theirs.memory))];
    println!("Memory, bytes/rule: {}, Open vSwitch {}", plain(memory[0]), plain(memory[1]));
}

fn compare(rules: Rules, count: u32) {
    let mut rounds = Vec::new();
    for number in 1..=count {
        eprintln!("round {number}");
        let switch = Switch::start(&["--fail-mode", "secure"]);
        let ours = round(rules, &switch.path("br0.mgmt"), &|| switch.memory(), &|| switch.cpu_time());
        drop(switch);
        let Some(peer) = OpenVSwitch::start("00000000000000ab", &["p1", "p2"]) else { return };
        let theirs = round(rules, &peer.socket(), &|| peer.memory(), &|| peer.cpu_time());
        rounds.push((ours, theirs));
    }
    report(&rounds);
}

/// The stages with frames beside them: how many are lost, and how long they take.
fn beside_frames(rules: Rules) {
    let port = |number| format!("vm{number}=vhost-user:{{}}/vm{number}.sock");
    let switch = Switch::start(&["--fail-mode", "secure", "--port", &port(1), "--port", &port(2)]);
    switch.ofctl("add-flow", &["priority=1000,in_port=1,actions=output:2"]);
    let frames = Frames::start(&switch);
    std::thread::sleep(UNDISTURBED);
    tell("without flow-mods", frames.end());
    let frames = Frames::start(&switch);
    let done = round(rules, &switch.path("br0.mgmt"), &|| switch.memory(), &|| switch.cpu_time());
    tell("with flow-mods", frames.end());
    let rates = Stage::ALL.into_iter().zip(done.stages).map(|(stage, (rate, _))| format!("{stage:?} {:.0}", rate / 1000.0));
    println!("Thousands of rules/s beside the frames: {}", rates.collect::<Vec<_>>().join(", "));
}

fn tell(when: &str, Fate { sent, lost, longest }: Fate) {
    println!("Frames {when}: {sent} sent, {lost} lost, the slowest burst took {:.1} ms", longest.as_secs_f64() * 1000.0);
}

fn here(rules: Rules, rounds: u32) {
    let mut here = Here::new();
    for _ in 0..rounds {
        for stage in Stage::ALL {
            let (messages, count) = rules.messages(stage);
            let start = Instant::now();
            here.exchange(&messages);
            println!("{stage:?}: {:.0} ns/rule", start.elapsed().as_nanos() as f64 / f64::from(count));
        }
    }
}

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let is_here = args.first().is_some_and(|arg| arg == "here");
    if is_here {
        args.remove(0);
    }
    let number = |i: usize, default: u32| args.get(i).map_or(default, |arg| arg.parse().expect("a number"));
    let shape = match args.get(3).map(String::as_str) {
        None | Some("routes") => Shape::Routes,
        Some("masks") => Shape::Masks,
        Some("flows") => Shape::Flows,
        Some(other) => panic!("{other} is no shape: routes, masks, flows"),
    };
    let rules = Rules { count: number(0, 100_000), tables: number(1, 10) as u8, shape };
    if is_here {
        return here(rules, number(2, 5));
    }
    compare(rules, number(2, 5));
    beside_frames(rules);
}

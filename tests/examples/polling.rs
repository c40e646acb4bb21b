//! What waiting costs: a running switch with one worker, and guests that this program plays in one thread.
//!
//!     cargo run --release -p tests --example polling -- ports [COUNT...]     many ports, two of which are busy
//!     cargo run --release -p tests --example polling -- rates [FRAMES/S...]  one pair at low rates, adaptive and busy
//!     cargo run --release -p tests --example polling -- memory [COUNT]       memory and CPU of idle ports
//!
//! The worker runs on CPU 1, this program on CPU 0. Both must be free for the figures to mean anything. The guests send and receive the same
//! buffers over and over, and never look into them, so that the worker is what limits the rate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use tests::frontend::{Guest, Options};
use tests::switch::Switch;
use tests::wheel::{Receiving, Sending};

const RING: u16 = 1024;

/// A switch, and a guest on each of its ports.
struct Bench {
    switch: Switch,
    guests: Vec<Guest>,
}

impl Bench {
    /// Every odd port sends to the next one.
    fn new(poll: &str, ports: usize) -> Self {
        let ports: Vec<_> = (1..=ports).map(|port| format!("vm{port}=vhost-user:vm{port}.sock")).collect();
        let mut args = vec!["--poll", poll, "--cpus", "1", "--fail-mode", "secure"];
        args.extend(ports.iter().flat_map(|port| ["--port", port]));
        run_on(&[0, 1]);
        let switch = Switch::start(&args);
        run_on(&[0]);
        for port in (1..ports.len()).step_by(2) {
            switch.ofctl("add-flow", &[&format!("in_port={port},actions=output:{}", port + 1)]);
        }
        let options = |port| Options { ring_size: if port < 4 { RING } else { 256 }, ..Options::default() };
        let guests =
            (0..ports.len()).map(|port| Guest::connect(&switch.path(&format!("vm{}.sock", port + 1)), options(port)).expect("a guest"));
        let guests = guests.collect();
        std::thread::sleep(Duration::from_millis(100));
        Self { switch, guests }
    }
}

/// Keeps this thread, and what it starts from now on, to these CPUs.
fn run_on(cpus: &[usize]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).expect("the machine has these CPUs");
}

/// A pair of guests, one of which sends to the other.
struct Pair<'a> {
    sending: Sending<'a>,
    receiving: Receiving<'a>,
    /// When the frames under way were sent.
    under_way: VecDeque<Instant>,
    latencies: Vec<Duration>,
}

impl<'a> Pair<'a> {
    fn new(guests: &'a mut [Guest]) -> Self {
        let [from, to] = guests else { panic!("a pair is two guests") };
        let mut frame = [0; 60];
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        let (sending, receiving) = (Sending::new(from.transmitter(0), &frame), Receiving::new(to.receiver(0)));
        Self { sending, receiving, under_way: VecDeque::new(), latencies: Vec::new() }
    }

    /// Sends a frame and notes the time.
    fn send_timed(&mut self) {
        self.under_way.push_back(Instant::now());
        self.sending.send(1);
    }

    /// Receives frames that were sent timed.
    fn receive_timed(&mut self) -> usize {
        let count = usize::from(self.receiving.receive());
        if count > 0 {
            let now = Instant::now();
            self.latencies.extend(self.under_way.drain(..count.min(self.under_way.len())).map(|sent| now - sent));
        }
        count
    }

    /// The median and the 99th percentile of the latencies, in microseconds.
    fn percentiles(&mut self) -> String {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        let at =
            |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6);
        format!("{:.1} / {:.1} (n = {})", at(0.5), at(0.99), latencies.len())
    }
}

/// Floods for a while, and lets `beside` be done in between.
fn flood(pair: &mut Pair<'_>, time: Duration, mut beside: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        pair.sending.flood();
        pair.receiving.receive();
        beside();
    }
}

/// A lone frame every three milliseconds, whose receipt is waited for.
struct Lone<'a, 'b> {
    pair: &'b mut Pair<'a>,
    next: Instant,
}

impl<'a, 'b> Lone<'a, 'b> {
    fn new(pair: &'b mut Pair<'a>) -> Self {
        Self { pair, next: Instant::now() }
    }

    fn turn(&mut self) {
        if !self.pair.under_way.is_empty() {
            self.pair.receive_timed();
        } else if Instant::now() >= self.next {
            self.pair.send_timed();
            self.next = Instant::now() + Duration::from_millis(3);
        }
    }
}

fn ports(counts: &[usize]) {
    println!(
        "ports: idle share of a core, adaptive | busy pair: Mpps, cycles per frame | lone frame beside it, p50 / p99 us | alone, busy | alone, adaptive"
    );
    for count in counts {
        let mut bench = Bench::new("adaptive", *count);
        let idle = bench.switch.cpu_share(Duration::from_secs(2));
        let asleep = lone_frames(&mut Pair::new(&mut bench.guests[2..4]));
        let mut bench = Bench::new("busy", *count);
        let (first, others) = bench.guests.split_at_mut(2);
        let (mut busy, mut quiet) = (Pair::new(first), Pair::new(&mut others[..2]));
        let alone = lone_frames(&mut quiet);
        flood(&mut busy, Duration::from_millis(300), || ());
        let (start, before) = (Instant::now(), worker(&bench.switch));
        flood(&mut busy, Duration::from_secs(2), || ());
        let (elapsed, after) = (start.elapsed(), worker(&bench.switch));
        let (frames, cycles) = (after.0 - before.0, after.1 - before.1);
        let mut lone = Lone::new(&mut quiet);
        flood(&mut busy, Duration::from_millis(1500), || lone.turn());
        println!(
            "{count}: {:.2} % | {:.2}, {:.0} | {} | {alone} | {asleep}",
            idle * 100.0,
            frames as f64 / elapsed.as_secs_f64() / 1e6,
            cycles as f64 / frames as f64,
            quiet.percentiles()
        );
    }
}

/// The latencies of lone frames with nothing beside them.
fn lone_frames(pair: &mut Pair<'_>) -> String {
    let end = Instant::now() + Duration::from_millis(1000);
    let mut lone = Lone::new(pair);
    while Instant::now() < end {
        lone.turn();
    }
    pair.percentiles()
}

fn rates(rates: &[usize]) {
    println!("frames/s: adaptive: CPU s per million frames, latency p50 / p99 us | busy: the same");
    for rate in rates {
        let figures = ["adaptive", "busy"].map(|poll| {
            let mut bench = Bench::new(poll, 2);
            let mut pair = Pair::new(&mut bench.guests);
            pace(&mut pair, *rate, Duration::from_millis(300));
            pair.latencies.clear();
            let before = bench.switch.cpu_time();
            let frames = pace(&mut pair, *rate, Duration::from_secs(2));
            let spent = bench.switch.cpu_time() - before;
            format!("{:.2}, {}", spent.as_secs_f64() / frames as f64 * 1e6, pair.percentiles())
        });
        println!("{rate}: {}", figures.join(" | "));
    }
}

/// Sends so many frames a second, as evenly as it can. Returns how many have come.
fn pace(pair: &mut Pair<'_>, rate: usize, time: Duration) -> usize {
    let (start, gap) = (Instant::now(), Duration::from_secs(1) / rate as u32);
    let (mut next, mut received) = (start, 0);
    loop {
        let now = Instant::now();
        if now >= start + time {
            return received;
        }
        // What the machine kept us from sending in time is not made up for.
        if now >= next && pair.sending.room() > 0 {
            pair.send_timed();
            next = if now > next + Duration::from_millis(1) { now + gap } else { next + gap };
        }
        received += pair.receive_timed();
    }
}

fn memory(count: usize) {
    let few = Bench::new("adaptive", 2);
    let many = Bench::new("adaptive", count);
    let (before, after) = (few.switch.memory(), many.switch.memory());
    println!(
        "memory with 2 ports: {} KiB; with {count}: {} KiB, {} more for each",
        before >> 10,
        after >> 10,
        (after - before) / (count as u64 - 2)
    );
    for bench in [few, many] {
        println!("idle, {} ports: {:.3} % of a core", bench.guests.len(), bench.switch.cpu_share(Duration::from_secs(5)) * 100.0);
    }
}

/// The frames that the worker has forwarded, and the cycles that it took for that.
fn worker(switch: &Switch) -> (u64, u64) {
    let worker = &switch.ctl_json(&["workers"])[0];
    (worker["frames"].as_u64().expect("a number"), worker["busy_cycles"].as_u64().expect("a number"))
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().unwrap_or_default();
    let numbers: Vec<usize> = arguments.map(|argument| argument.parse().expect("a number")).collect();
    let or = |default: &[usize]| if numbers.is_empty() { default.to_vec() } else { numbers.clone() };
    tests::target::vswitch();
    match case.as_str() {
        "ports" => ports(&or(&[4, 64, 256])),
        "rates" => rates(&or(&[10_000, 100_000, 1_000_000])),
        "memory" => memory(or(&[100])[0]),
        other => panic!("{other:?}: there are the cases ports, rates and memory"),
    }
}

//! How exactly meters keep their rates: a running switch with one worker and with two, and guests that send more than a meter lets through.
//!
//!     cargo run --release -p tests --example meters [SECONDS [ROUNDS]]
//!
//! Two guests send to a third one, through one meter, three times as much as it allows; with two workers, each serves one of them. What the third guest receives
//! and, where the meter remarks, what of that has its DSCP as it was sent, divided by the rate and the time, is how much of its rate the meter gave. A meter
//! without a burst size of its own lets a tenth of a second through at once at the beginning, which is a part of what comes in the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::flows::{all_taken, udp};
use tests::frontend::{Guest, Options};
use tests::stats;
use tests::switch::Switch;

/// Where a frame has its TOS.
const TOS: usize = 15;
/// AF11, which a meter raises to AF12.
const AF11: u8 = 10;
const AF12: u8 = 12;
/// How much is offered, in rates.
const OFFERED: f64 = 3.0;

struct Case {
    unit: &'static str,
    band: &'static str,
    rate: u32,
    /// The bytes of a frame.
    len: usize,
    /// The band's burst size, if it has one.
    burst: Option<u32>,
}

impl Case {
    const fn new(unit: &'static str, band: &'static str, rate: u32, len: usize) -> Self {
        Self { unit, band, rate, len, burst: None }
    }

    /// In frames a second.
    fn frames(&self) -> f64 {
        if self.unit == "pktps" { self.rate.into() } else { f64::from(self.rate) * 1000.0 / (8 * self.len) as f64 }
    }
}

const CASES: [Case; 10] = [
    Case::new("kbps", "drop", 1_000, 1000),
    Case::new("kbps", "drop", 100_000, 1000),
    Case::new("kbps", "drop", 1_000_000, 1400),
    Case::new("kbps", "drop", 50_000, 64),
    Case::new("pktps", "drop", 500, 64),
    Case::new("pktps", "drop", 20_000, 64),
    Case::new("pktps", "drop", 200_000, 64),
    Case { burst: Some(200), ..Case::new("pktps", "drop", 20_000, 64) },
    Case::new("kbps", "dscp_remark", 20_000, 500),
    Case::new("pktps", "dscp_remark", 20_000, 64),
];

struct Bench {
    switch: Switch,
    senders: [Guest; 2],
    receiver: Guest,
}

impl Bench {
    fn new(workers: usize) -> Self {
        let ports = [1, 2, 3].map(|port| format!("vm{port}=vhost-user:vm{port}.sock"));
        let cpus = if workers == 1 { "1" } else { "0,1" };
        let args: Vec<_> =
            ["--cpus", cpus, "--fail-mode", "secure"].into_iter().chain(ports.iter().flat_map(|port| ["--port", port])).collect();
        let switch = Switch::start(&args);
        let guest = |port| {
            let options = Options { ring_size: 4096, ..Options::default() };
            Guest::connect(&switch.path(&format!("vm{port}.sock")), options).expect("a guest")
        };
        let (senders, receiver) = ([guest(1), guest(2)], guest(3));
        Self { switch, senders, receiver }
    }

    /// How much of its rate a meter gave, and how many frames came.
    fn run(&mut self, case: &Case, time: Duration) -> (f64, u64) {
        let Case { unit, band, rate, len, burst } = case;
        let remark = *band == "dscp_remark";
        let burst = burst.map(|burst| format!(",burst_size={burst}")).unwrap_or_default();
        let flags = if burst.is_empty() { format!("{unit},stats") } else { format!("{unit},burst,stats") };
        let prec = if remark { ",prec_level=1" } else { "" };
        self.switch.ofctl("add-meter", &[&format!("meter=1,{flags},bands=type={band},rate={rate}{burst}{prec}")]);
        self.switch.ofctl("add-flow", &["actions=meter:1,output:3"]);
        let (done, sending) = (AtomicBool::new(false), &mut self.senders);
        let (receiver, offered) = (&mut self.receiver, case.frames() * OFFERED);
        let mut plain = 0;
        let mut remarked = 0;
        let mut sort = |frames: Vec<Vec<u8>>| {
            for frame in frames {
                match frame[TOS] >> 2 {
                    AF11 => plain += 1,
                    AF12 => remarked += 1,
                    other => panic!("a frame has DSCP {other}"),
                }
            }
        };
        let sent: u64 = std::thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                let mut frame = udp(1, 0, *len);
                frame[TOS] = AF11 << 2;
                tests::linear::correct_checksums(&mut frame);
                let (start, mut sent) = (Instant::now(), [0u64; 2]);
                while start.elapsed() < time {
                    let due = (start.elapsed().as_secs_f64() * offered) as u64;
                    for (sender, sent) in sending.iter_mut().zip(&mut sent) {
                        let behind = (due / 2).saturating_sub(*sent) as usize;
                        let count = behind.min(64);
                        *sent += sender.send(0, std::iter::repeat_n(&frame[..], count)) as u64;
                    }
                }
                sending.iter_mut().for_each(all_taken);
                done.store(true, Ordering::Relaxed);
                sent.iter().sum()
            });
            while !done.load(Ordering::Relaxed) {
                sort(receiver.receive(0));
                std::thread::yield_now();
            }
            sort(receiver.receive(0));
            traffic.join().expect("the traffic")
        });
        let counted = stats::meter(&self.switch, 1);
        assert_eq!(counted.all, sent, "what the meter measured is what was sent");
        let port = self.switch.ctl_json(&["port", "show", "vm3"]);
        assert_eq!(port["drops"]["tx-ring-full"].as_u64().unwrap_or(0), 0, "the receiver is fast enough: {port}");
        let too_many = if remark { remarked } else { sent - plain };
        assert_eq!((counted.bands[0], if remark { plain + remarked } else { plain + too_many }), (too_many, sent), "what was too fast");
        self.switch.ofctl("del-meters", &[]);
        assert!(sent as f64 > 2.0 * case.frames() * time.as_secs_f64(), "{sent} frames are too few to tell");
        (plain as f64 / (case.frames() * time.as_secs_f64()), plain + remarked)
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u32>().expect("a number"));
    let time = Duration::from_secs(args.next().unwrap_or(10).into());
    let rounds = args.next().unwrap_or(3);
    println!("of its rate that a meter gave in {time:?}, percent: median of {rounds} rounds (least, most), for one and for two workers");
    for case in &CASES {
        let figures = [1, 2].map(|workers| {
            let mut bench = Bench::new(workers);
            let mut given: Vec<_> = (0..rounds).map(|_| 100.0 * bench.run(case, time).0).collect();
            given.sort_by(f64::total_cmp);
            bench.switch.stop();
            format!("{:.2} ({:.2}, {:.2})", given[given.len() / 2], given[0], given[given.len() - 1])
        });
        let Case { unit, band, rate, len, burst } = case;
        let burst = burst.map_or(String::new(), |burst| format!(", burst {burst}"));
        println!("{band} {rate} {unit}{burst}, {len}-byte frames: {}, {}", figures[0], figures[1]);
    }
}

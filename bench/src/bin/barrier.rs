//! How long a barrier takes while flows are cached, and by which rules the frames go that are sent right after its reply: `tests::barrier`, with our switch and
//! Open vSwitch in turn.
//!
//!     cargo build --release -p vswitch -p bench && target/release/barrier [--flows N,...] [--rounds N] [--turns N] [--switches SWITCH,...]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ::tests::barrier::Rounds;
use ::tests::frontend::{Guest, Options};
use bench::error::{Error, Result};
use bench::histogram::Histogram;
use bench::host::Host;
use bench::peer::{Ends, Peer, Setup, Switch};
use bench::rules::Rules;
use clap::Parser;
use serde_json::Value;

/// How long a switch may take to cache all flows. Open vSwitch begins with a limit of 10,000, and raises it by 1,000 with each dump of what is cached.
const WARM_UP: Duration = Duration::from_secs(120);

/// When a frame that has not come out is given up.
const LOST: Duration = Duration::from_secs(1);

/// Measure how long a barrier takes, and how many frames after its reply go by the old rules
#[derive(Debug, Parser)]
#[command(name = "barrier")]
struct Arguments {
    /// The numbers of cached flows
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1_000, 100_000])]
    flows: Vec<u32>,
    /// How many rule changes
    #[arg(long, value_name = "N", default_value_t = 100)]
    rounds: usize,
    /// How often each switch is run
    #[arg(long, value_name = "N", default_value_t = 3)]
    turns: usize,
    /// Only these of vswitch, vswitch-adaptive and ovs-dpdk
    #[arg(long, value_name = "SWITCH,...", value_delimiter = ',')]
    switches: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("barrier: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(|error| Error::io("a signal handler", error))?;
    }
    let vswitch = std::env::current_exe().unwrap_or_default().with_file_name("vswitch");
    let mut host = Host::new(None, &[], vswitch, interrupted)?;
    let mut peers = vec![Peer::Vswitch, Peer::VswitchAdaptive, Peer::Ovs];
    peers.retain(|peer| arguments.switches.is_empty() || arguments.switches.iter().any(|name| name == peer.name()));
    peers.retain(|peer| match peer.missing(&host) {
        None => true,
        Some(what) => {
            eprintln!("SKIPPED: {}: {what}", peer.name());
            false
        }
    });
    if peers.contains(&Peer::Ovs) {
        host.reserve_huge_pages()?;
    }
    println!(
        "{:>8}  {:16}  {:>8}  {:>29}  {:>18}  {:>29}",
        "cached", "switch", "changes", "barrier p50, p99, max in µs", "stale, lost frames", "stale for p50, p99, max in ms"
    );
    for &flows in &arguments.flows {
        for turn in 0..arguments.turns {
            // Every other time the other way round.
            if turn > 0 {
                peers.reverse();
            }
            for &peer in &peers {
                measure(&host, peer, flows, arguments.rounds)?;
            }
        }
    }
    Ok(())
}

fn measure(host: &Host, peer: Peer, flows: u32, rounds: usize) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("vswitch-bench-").tempdir().map_err(|error| Error::io("a temporary directory", error))?;
    let setup = Setup { rules: Rules::Unique, ports: 3, exact_match_cache: true, tso: false };
    let mut switch = peer.start(host, dir.path(), &setup)?;
    let no_openflow = || Error::failed(format!("{} speaks no OpenFlow", peer.name()));
    let (openflow, Ends::Sockets(sockets)) = (switch.openflow().ok_or_else(no_openflow)?, switch.ends()?) else {
        return Err(no_openflow());
    };
    let mut guests = Vec::new();
    for socket in &sockets {
        let mut guest = Guest::new(Options::default());
        let connected = socket.meet(&host.interrupted).and_then(|connection| guest.attach(connection)).and_then(|()| guest.start());
        connected.map_err(|error| Error::io("a guest", error))?;
        guests.push(guest);
    }
    let guests = guests.try_into().map_err(|_| Error::failed("three guests are needed"))?;
    let mut stage = Rounds::new(&openflow, guests, flows, LOST);

    let (mut barriers, mut stale_for, mut longest) = (Histogram::default(), Histogram::default(), [Duration::ZERO; 2]);
    let (mut sent, mut stale, mut lost) = (0, 0, 0);
    let mut cached = u64::MAX;
    for _ in 0..rounds {
        // A change may empty the cache: Open vSwitch drops what it takes too long to look at again.
        cached = warm_up(host, switch.as_mut(), &mut stage, flows)?.min(cached);
        let round = stage.round();
        barriers.add(round.latency.as_nanos() as u64);
        stale_for.add(round.stale_for.as_nanos() as u64);
        longest = [longest[0].max(round.latency), longest[1].max(round.stale_for)];
        sent += round.sent;
        stale += round.stale;
        lost += round.lost;
    }
    let quantiles = |histogram: &Histogram, unit: f64| [0.5, 0.99].map(|share| histogram.quantile(share).unwrap_or_default() / unit);
    let ([half, most], [stale_half, stale_most]) = (quantiles(&barriers, 1e3), quantiles(&stale_for, 1e6));
    println!(
        "{cached:8}  {:16}  {rounds:8}  {half:9.1}{most:10.1}{:10.1}  {:>18}  {stale_half:9.2}{stale_most:10.2}{:10.2}",
        peer.name(),
        longest[0].as_secs_f64() * 1e6,
        format!("{stale}, {lost} of {sent}"),
        longest[1].as_secs_f64() * 1e3
    );
    Ok(())
}

/// Has the switch cache all flows, and says how many it did.
fn warm_up(host: &Host, switch: &mut dyn Switch, stage: &mut Rounds, flows: u32) -> Result<u64> {
    let start = Instant::now();
    loop {
        stage.warm_up();
        let cached = switch.end()?.counters.get("megaflows").and_then(Value::as_u64).unwrap_or_default();
        if cached >= flows.into() || start.elapsed() > WARM_UP {
            return Ok(cached);
        }
        host.sleep(Duration::from_millis(100))?;
    }
}

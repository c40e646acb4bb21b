//! `scripts/bench`: the command line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bench::case::{CASES, Case};
use bench::error::{Error, Result};
use bench::host::Host;
use bench::peer::Peer;
use bench::report::{Measured, Report, measured_of};
use bench::run::{Line, Timing, measure};
use clap::Parser;

/// Measure vswitch and the other switches that are installed, in turn, under the same load
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
struct Arguments {
    /// Only these cases
    #[arg(long, value_name = "CASE,...", value_delimiter = ',')]
    cases: Vec<String>,
    /// Only these switches
    #[arg(long, value_name = "SWITCH,...", value_delimiter = ',')]
    switches: Vec<String>,
    /// How often each switch is run in each case
    #[arg(long, value_name = "N", default_value_t = 5)]
    pairs: usize,
    /// One short run of each: whether all works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// The seconds of a window, of which each run has three
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    window: f64,
    /// The CPU of the load generator [default: the first]
    #[arg(long, value_name = "CPU")]
    guest_cpu: Option<usize>,
    /// The CPUs of our workers; the other switches use the first of them [default: the last CPU]
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    switch_cpus: Vec<usize>,
    /// The switch to measure [default: the vswitch program beside this one]
    #[arg(long, value_name = "FILE")]
    vswitch: Option<PathBuf>,
    /// Write report.md and its charts to this directory [default: docs/bench; nowhere if not all is measured]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Append all that each run showed to this file, as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run nothing: report what such a file says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cases", "switches", "quick", "json"])]
    from: Option<PathBuf>,
    /// List cases and switches, and what is missing
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scripts/bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone()).map_err(|error| Error::io("a signal handler", error))?;
    }
    let vswitch = arguments.vswitch.clone().unwrap_or_else(|| std::env::current_exe().unwrap_or_default().with_file_name("vswitch"));
    let mut host = Host::new(arguments.guest_cpu, &arguments.switch_cpus, vswitch, interrupted)?;
    let cases = chosen(CASES.iter(), &arguments.cases, |case| case.name)?;
    let peers = chosen(Peer::ALL.iter(), &arguments.switches, |peer| peer.name())?;
    if arguments.list {
        list(&host);
        return Ok(());
    }
    if let Some(path) = &arguments.from {
        let report = Report { measured: measured_of(read_lines(path)?)?, notes: Vec::new() };
        return finish(&report, &host, arguments);
    }
    host.reserve_huge_pages()?;
    let seconds = Duration::from_secs_f64;
    let timing = if arguments.quick {
        Timing { warm_up: seconds(0.1), window: seconds(0.3), windows: 1 }
    } else {
        Timing { warm_up: seconds(arguments.window), window: seconds(arguments.window), windows: 3 }
    };
    let mut report = Report { measured: Vec::new(), notes: Vec::new() };
    let mut available = Vec::new();
    for &&peer in &peers {
        match peer.missing(&host) {
            None => available.push(peer),
            Some(what) => {
                eprintln!("SKIPPED: {}: {what}", peer.name());
                report.notes.push(format!("{} was not measured: {what}", peer.name()));
            }
        }
    }
    let pairs = if arguments.quick { 1 } else { arguments.pairs };
    for case in cases {
        let measured = measure_case(&host, case, &available, pairs, timing, arguments, &mut report.notes)?;
        report.measured.push(measured);
    }
    finish(&report, &host, arguments)
}

/// Prints the report, and writes it where it is wanted.
fn finish(report: &Report, host: &Host, arguments: &Arguments) -> Result<()> {
    print!("{}", report.to_markdown(host));
    let part = arguments.quick || !arguments.cases.is_empty() || !arguments.switches.is_empty();
    match &arguments.report {
        Some(dir) => report.write(host, dir),
        None if part => Ok(()),
        None => report.write(host, Path::new("docs/bench")),
    }
}

fn read_lines(path: &Path) -> Result<Vec<Line>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(name.to_string(), error))?;
    let line = |(number, text)| serde_json::from_str(text).map_err(|error| Error::failed(format!("{name}:{}: {error}", number + 1)));
    text.lines().enumerate().map(line).collect()
}

/// Runs the switches of a case in turn: in every other pair, the other way round.
fn measure_case(
    host: &Host,
    case: &'static Case,
    available: &[Peer],
    pairs: usize,
    timing: Timing,
    arguments: &Arguments,
    notes: &mut Vec<String>,
) -> Result<Measured> {
    let mut measured = Measured { case, pairs: Vec::new() };
    for pair in 0..pairs {
        let mut order: Vec<Peer> = case.peers.iter().copied().filter(|peer| available.contains(peer)).collect();
        if pair % 2 == 1 {
            order.reverse();
        }
        let mut runs = BTreeMap::new();
        for peer in order {
            match measure(host, case, peer, timing) {
                Ok(run) => {
                    eprintln!("{run}, {}, pair {}", case.name, pair + 1);
                    if let Some(path) = &arguments.json {
                        let file = File::options().create(true).append(true).open(path);
                        let line = Line { case: case.name.into(), pair: pair + 1, run: run.clone() };
                        let text = serde_json::to_string(&line).map_err(std::io::Error::other);
                        let written = file.and_then(|mut file| writeln!(file, "{}", text?));
                        written.map_err(|error| Error::io(path.display().to_string(), error))?;
                    }
                    runs.insert(peer, run);
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => {
                    eprintln!("FAILED: {}, {}, pair {}: {error}", peer.name(), case.name, pair + 1);
                    notes.push(format!("{}, `{}`, pair {} failed: {error}", peer.name(), case.name, pair + 1));
                }
            }
        }
        measured.pairs.push(runs);
    }
    Ok(measured)
}

/// Those that are named; all, if none are.
fn chosen<'a, T>(all: impl Iterator<Item = &'a T> + Clone, names: &[String], name: impl Fn(&T) -> &'static str) -> Result<Vec<&'a T>> {
    if let Some(unknown) = names.iter().find(|wanted| !all.clone().any(|one| name(one) == wanted.as_str())) {
        let known: Vec<_> = all.map(name).collect();
        return Err(Error::failed(format!("there is no {unknown}: choose from {}", known.join(", "))));
    }
    Ok(all.filter(|one| names.is_empty() || names.iter().any(|wanted| wanted == name(one))).collect())
}

fn list(host: &Host) {
    println!("Switches:");
    for peer in Peer::ALL {
        let what = peer.missing(host).map_or_else(|| peer.version(host), |what| format!("missing: {what}"));
        println!("  {:18} {what}", peer.name());
    }
    println!("Cases:");
    for case in CASES {
        let peers: Vec<_> = case.peers.iter().map(|peer| peer.name()).collect();
        println!("  {:18} {} ({})", case.name, case.says, peers.join(", "));
    }
}

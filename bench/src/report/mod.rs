//! What came out, written down.

pub mod svg;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::case::{About, CASES, Case};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::peer::Peer;
use crate::run::{Line, Run, median};
use svg::{Bar, Chart, number};

/// The runs of a case: of each pair, those of the switches that ran.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The case.
    pub case: &'static Case,
    /// The runs by switch, pair after pair.
    pub pairs: Vec<BTreeMap<Peer, Run>>,
}

impl Measured {
    /// What the runs of a switch say, each by a number. Runs that have no such number are left out.
    fn values(&self, peer: Peer, value: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        self.pairs.iter().filter_map(|pair| value(pair.get(&peer)?)).collect()
    }

    /// The same as a share of what the case's first switch showed in the same pair: its own number divided by this one's.
    fn ratios(&self, peer: Peer, value: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        let first = self.case.peers[0];
        self.pairs.iter().filter_map(|pair| Some(value(pair.get(&first)?)? / value(pair.get(&peer)?)?)).collect()
    }

    /// The switches that have at least one run, in the case's order.
    fn peers(&self) -> impl Iterator<Item = Peer> {
        self.case.peers.iter().copied().filter(|peer| self.pairs.iter().any(|pair| pair.contains_key(peer)))
    }

    /// The number that the case is about.
    fn main_value(&self) -> fn(&Run) -> Option<f64> {
        match self.case.about {
            About::Rate => |run| Some(run.mpps),
            About::Installs => Run::installs_per_second,
            About::Bytes => |run| Some(run.gbps),
            About::Latency => |run| run.latency.map(|(p50, _)| p50),
            About::Cost => |run| run.cpus.map(|cpus| 100.0 * cpus),
        }
    }

    fn main_unit(&self) -> &'static str {
        match self.case.about {
            About::Rate => "Mpps",
            About::Installs => "installed/s",
            About::Bytes => "Gb/s",
            About::Latency => "µs",
            About::Cost => "% of a CPU",
        }
    }

    /// The first columns of a switch's row.
    fn names(&self, peer: Peer) -> String {
        let case = if peer == self.case.peers[0] { format!("`{}`: {}", self.case.name, self.case.says) } else { String::new() };
        format!("| {case} | {}", peer.name())
    }

    /// A ratio's column of a switch's row: empty for the one that the others are compared with.
    fn ratio(&self, peer: Peer, value: impl Fn(&Run) -> Option<f64>) -> String {
        if peer == self.case.peers[0] { String::new() } else { with_spread(&self.ratios(peer, value)) }
    }
}

/// The median, and the lowest and the highest value.
fn with_spread(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".into();
    }
    let (low, high) = spread(values);
    let middle = number(median(values.iter().copied()));
    if values.len() == 1 { middle } else { format!("{middle} ({} - {})", number(low), number(high)) }
}

fn spread(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// The cases that raw results are of, each with its runs.
///
/// # Errors
///
/// There is no such case.
pub fn measured_of(lines: Vec<Line>) -> Result<Vec<Measured>> {
    let unknown = lines.iter().find(|line| CASES.iter().all(|case| case.name != line.case));
    if let Some(unknown) = unknown {
        return Err(Error::failed(format!("there is no case {}", unknown.case)));
    }
    let of = |case: &'static Case| {
        let mut pairs: BTreeMap<usize, BTreeMap<Peer, Run>> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.case == case.name) {
            pairs.entry(line.pair).or_default().insert(line.run.peer, line.run.clone());
        }
        Measured { case, pairs: pairs.into_values().collect() }
    };
    Ok(CASES.iter().map(of).filter(|measured| !measured.pairs.is_empty()).collect())
}

/// The share of a CPU that a thread gets which polls without pause, if nothing else runs there.
const UNDISTURBED: f64 = 0.97;

/// What was measured, and what could not be.
#[derive(Debug)]
pub struct Report {
    /// The cases.
    pub measured: Vec<Measured>,
    /// Switches that are not installed and what to do about it, and runs that failed.
    pub notes: Vec<String>,
}

impl Report {
    /// The report as a page.
    pub fn to_markdown(&self, host: &Host) -> String {
        let mut page = String::from("# Bench report\n\n");
        let mut line = |text: &str| {
            page.push_str(text);
            page.push('\n');
        };
        line(&format!("Written by `scripts/bench` ([how](../bench.md)) on {}.\n", today()));
        line(&machine(host));
        let mut peers: Vec<Peer> = self.measured.iter().flat_map(Measured::peers).collect();
        peers.sort();
        peers.dedup();
        for peer in peers {
            line(&format!("- {}: {}", peer.name(), peer.version(host)));
        }
        line(
            "\nOf the windows of a run, the median counts. Each value is the median of the runs, with the lowest and the highest in brackets. A ratio is the first switch's \
             value divided by this one's in the same pair of runs. Where sending seldom finds the ring full, the load generator is the limit and not the switch; \
             then cycles per frame say more. They are those of the polls that found frames.",
        );
        let of =
            |about: &[About]| -> Vec<&Measured> { self.measured.iter().filter(|measured| about.contains(&measured.case.about)).collect() };
        let mut section = |title: &str, about: &[About], head: &str, row: fn(&Measured, Peer) -> String| {
            let measured = of(about);
            if !measured.is_empty() {
                line(&format!(
                    "\n## {title}\n\n{head}\n{}",
                    head.lines().last().unwrap_or_default().replace(|c| c != '|', "-").replace("|-", "|--")
                ));
                measured.iter().for_each(|measured| measured.peers().for_each(|peer| line(&row(measured, peer))));
            }
        };
        let rates = "![Rates](rates.svg)\n\n![Cycles per frame](cycles.svg)\n\n\
                     | case | switch | rate | ratio | ring full | cycles per frame | ratio of cycles | upcalls per second | megaflows |";
        section("Rates", &[About::Rate, About::Installs, About::Bytes], rates, rate_row);
        section("Latencies", &[About::Latency], "In microseconds.\n\n| case | switch | median | ratio | 99 % | lost |", latency_row);
        let costs = "The CPU time and private memory of all of a switch's processes, without the huge pages that DPDK shares out.\n\n\
                     | case | switch | % of a CPU | ms per million frames | latency, µs | memory, MiB |";
        section("Costs", &[About::Cost], costs, cost_row);
        let notes: Vec<_> = self.notes.iter().cloned().chain(self.disturbance()).collect();
        if !notes.is_empty() {
            line("\n## Notes\n");
            notes.iter().for_each(|note| line(&format!("- {note}")));
        }
        page
    }

    /// What has to be said if the machine had other things to do.
    fn disturbance(&self) -> Option<String> {
        let polls = |run: &&Run| run.peer != Peer::VswitchAdaptive;
        let busy = self.measured.iter().filter(|measured| measured.case.about != About::Cost);
        let runs: Vec<_> = busy.flat_map(|measured| measured.pairs.iter().flat_map(BTreeMap::values)).filter(polls).collect();
        let share = |run: &Run| run.guests_on_cpu.min(run.forwarder_on_cpu.unwrap_or(1.0));
        let disturbed = runs.iter().filter(|run| share(run) < UNDISTURBED).count();
        let least = 100.0 * runs.iter().map(|run| share(run)).fold(1.0, f64::min);
        (disturbed > 0).then(|| {
            format!(
                "The machine was not quiet: in {disturbed} of {} runs the guests or the switch had less than {:.0} % of their CPU, at the least {least:.0} %.",
                runs.len(),
                100.0 * UNDISTURBED
            )
        })
    }

    fn chart(&self, title: &str, value: impl Fn(&Measured) -> Option<fn(&Run) -> Option<f64>>) -> Chart {
        let bars = |measured: &Measured| -> Vec<Bar> {
            let Some(value) = value(measured) else { return Vec::new() };
            let values = measured.peers().map(|peer| (peer, measured.values(peer, value)));
            let values = values.filter(|(_, values)| !values.is_empty());
            let series = |peer| Peer::ALL.iter().position(|&other| other == peer).unwrap_or(0);
            values.map(|(peer, v)| Bar { series: series(peer), spread: spread(&v), value: median(v) }).collect()
        };
        let groups = self.measured.iter().map(|measured| (measured.case.name.to_owned(), bars(measured)));
        let series = Peer::ALL.map(|peer| peer.name().to_owned()).to_vec();
        Chart { title: title.into(), series, groups: groups.filter(|(_, bars)| !bars.is_empty()).collect() }
    }

    /// Writes the page and its charts to a directory.
    ///
    /// # Errors
    ///
    /// It can't be written to.
    pub fn write(&self, host: &Host, dir: &Path) -> Result<()> {
        let put = |name: &str, text: String| {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|error| Error::io(path.display().to_string(), error))
        };
        std::fs::create_dir_all(dir).map_err(|error| Error::io(dir.display().to_string(), error))?;
        put("report.md", self.to_markdown(host))?;
        let rates = |measured: &Measured| (measured.case.about == About::Rate).then(|| measured.main_value());
        put("rates.svg", self.chart("Frames at the sink, millions per second (more is better)", rates).to_svg())?;
        let cycles = |measured: &Measured| (measured.case.about == About::Rate).then_some(cycles_per_frame as fn(&Run) -> Option<f64>);
        put("cycles.svg", self.chart("Processing cycles per frame (less is better)", cycles).to_svg())
    }
}

fn cycles_per_frame(run: &Run) -> Option<f64> {
    run.spent.cycles_per_frame
}

fn rate_row(measured: &Measured, peer: Peer) -> String {
    let value = measured.main_value();
    format!(
        "{} | {} {} | {} | {} % | {} | {} | {} | {} |",
        measured.names(peer),
        with_spread(&measured.values(peer, value)),
        measured.main_unit(),
        measured.ratio(peer, value),
        number(100.0 * median(measured.values(peer, |run| Some(run.full)))),
        with_spread(&measured.values(peer, cycles_per_frame)),
        measured.ratio(peer, cycles_per_frame),
        with_spread(&measured.values(peer, Run::upcalls_per_second)),
        with_spread(&measured.values(peer, |run| run.spent.counters.get("megaflows")?.as_f64())),
    )
}

fn latency_row(measured: &Measured, peer: Peer) -> String {
    let value = measured.main_value();
    format!(
        "{} | {} | {} | {} | {} |",
        measured.names(peer),
        with_spread(&measured.values(peer, value)),
        measured.ratio(peer, value),
        with_spread(&measured.values(peer, |run| run.latency.map(|(_, p99)| p99))),
        number(measured.values(peer, |run| Some(run.lost as f64)).iter().sum()),
    )
}

fn cost_row(measured: &Measured, peer: Peer) -> String {
    format!(
        "{} | {} | {} | {} | {} |",
        measured.names(peer),
        with_spread(&measured.values(peer, measured.main_value())),
        with_spread(&measured.values(peer, |run| run.cpu_per_million().map(|seconds| 1e3 * seconds))),
        with_spread(&measured.values(peer, |run| run.latency.map(|(p50, _)| p50))),
        with_spread(&measured.values(peer, |run| run.memory.map(|bytes| bytes as f64 / f64::from(1 << 20)))),
    )
}

fn machine(host: &Host) -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value.trim().to_owned()));
    let model = field("model name").unwrap_or_else(|| "a CPU without a name".into());
    let cpus = std::thread::available_parallelism().map_or(0, usize::from).max(host.switch_cpus.len() + 1);
    let virtual_ = if text.contains(" hypervisor") { ", virtual" } else { "" };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut line = format!("{model}{virtual_}; Linux {}; at least {cpus} CPUs; ", kernel.trim());
    let cpus: Vec<_> = host.switch_cpus.iter().map(usize::to_string).collect();
    writeln!(line, "forwarding on CPU {}, the guests on CPU {}.", cpus.join(", "), host.guest_cpu).expect("a string takes all");
    line
}

fn today() -> String {
    let mut date = std::process::Command::new("date");
    crate::host::output(date.arg("+%Y-%m-%d")).map_or_else(|_| "an unknown day".into(), |day| day.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CASES;
    use crate::peer::Spent;

    fn run(peer: Peer, mpps: f64) -> Run {
        Run {
            peer,
            mpps,
            gbps: 0.0,
            full: 0.5,
            latency: None,
            lost: 0,
            forwarder_on_cpu: None,
            guests_on_cpu: 1.0,
            cpus: Some(0.5),
            memory: None,
            seconds: 1.0,
            spent: Spent { cycles_per_frame: Some(1000.0 / mpps), ..Spent::default() },
        }
    }

    fn measured() -> Measured {
        let pair = |ours, theirs| BTreeMap::from([(Peer::Vswitch, run(Peer::Vswitch, ours)), (Peer::Ovs, run(Peer::Ovs, theirs))]);
        let alone = BTreeMap::from([(Peer::Vswitch, run(Peer::Vswitch, 9.0))]);
        Measured { case: &CASES[0], pairs: vec![pair(10.0, 5.0), pair(6.0, 4.0), pair(8.0, 4.0), alone] }
    }

    #[test]
    fn ratios_are_those_of_pairs() {
        let ratios = measured().ratios(Peer::Ovs, |run| Some(run.mpps));
        assert_eq!(ratios, [2.0, 1.5, 2.0]);
        assert_eq!(with_spread(&ratios), "2.00 (1.50 - 2.00)");
        assert_eq!(with_spread(&[]), "-");
    }

    #[test]
    fn raw_results_are_read_back() {
        let line = |pair, peer, mpps| Line { case: "ping".into(), pair, run: run(peer, mpps) };
        let lines = [line(1, Peer::Vswitch, 1.0), line(2, Peer::Vswitch, 3.0), line(2, Peer::Ovs, 2.0)];
        let text = lines.map(|line| serde_json::to_string(&line).unwrap());
        let lines: Vec<Line> = text.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let [measured] = &measured_of(lines).unwrap()[..] else { panic!("one case") };
        assert_eq!((measured.case.name, measured.pairs.len()), ("ping", 2));
        assert_eq!(measured.ratios(Peer::Ovs, |run| Some(run.mpps)), [1.5]);
        assert!(measured_of(vec![Line { case: "pong".into(), pair: 1, run: run(Peer::Ovs, 1.0) }]).is_err());
    }

    #[test]
    fn upcalls_that_open_vswitch_did_not_cache_are_upcalls() {
        let counters = |text: &str| Run {
            seconds: 2.0,
            spent: Spent { counters: serde_json::from_str(text).unwrap(), ..Spent::default() },
            ..run(Peer::Ovs, 1.0)
        };
        let theirs = counters(r#"{"miss with success upcall": 6.0, "miss with failed upcall": 4.0}"#);
        assert_eq!((theirs.upcalls_per_second(), theirs.installs_per_second()), (Some(5.0), Some(3.0)));
        let ours = counters(r#"{"upcalls": 10, "installed": 4}"#);
        assert_eq!((ours.upcalls_per_second(), ours.installs_per_second()), (Some(5.0), Some(2.0)));
        assert_eq!(counters("{}").upcalls_per_second(), None);
    }

    #[test]
    fn a_busy_machine_is_named() {
        let mut report = Report { measured: vec![measured()], notes: Vec::new() };
        assert_eq!(report.disturbance(), None);
        report.measured[0].pairs[1].get_mut(&Peer::Ovs).unwrap().guests_on_cpu = 0.5;
        let note = report.disturbance().unwrap();
        assert!(note.contains("in 1 of 7 runs") && note.contains("at the least 50 %"), "{note}");
    }

    #[test]
    fn rows_are_those_of_switches_that_ran() {
        let measured = measured();
        let lines: Vec<_> = measured.peers().map(|peer| rate_row(&measured, peer)).collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("| `inout1`: one rule per direction | vswitch | 8.50 (6.00 - 10.0) Mpps |  | 50.0 % |"),
            "{}",
            lines[0]
        );
        assert!(lines[1].starts_with(
            "|  | ovs-dpdk | 4.00 (4.00 - 5.00) Mpps | 2.00 (1.50 - 2.00) | 50.0 % | 250 (200 - 250) | 0.500 (0.500 - 0.667) |"
        ));
    }
}

//! One run: a switch is started, loaded, measured and ended.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use ::tests::process::Process;

use crate::case::Case;
use crate::error::{Error, Result};
use crate::frames::Template;
use crate::guest::tap::Tap;
use crate::guest::{Port, Socket};
use crate::host::Host;
use crate::peer::{Ends, Peer, Spent, Switch};
use crate::traffic::{Counts, Traffic, cpu_time};

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Before the first window.
    pub warm_up: Duration,
    /// Each window.
    pub window: Duration,
    /// How many windows.
    pub windows: usize,
}

/// What happened in a window.
#[derive(Clone, Copy, Debug)]
struct Window {
    duration: Duration,
    counts: Counts,
}

/// Open vSwitch's upcalls that installed a megaflow. Those that found its flow limit reached are "failed", though their frames are forwarded.
const OVS_INSTALLED: &str = "miss with success upcall";

/// What a run showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Who.
    pub peer: Peer,
    /// Millions of frames a second at the sink, the median of the windows.
    pub mpps: f64,
    /// The same in gigabits of frames a second.
    pub gbps: f64,
    /// The share of attempts to send that found the ring full: near 1, the switch was the limit; near 0, the load generator.
    pub full: f64,
    /// Latency, or round trip, in microseconds: the median and the 99th percentile.
    pub latency: Option<(f64, f64)>,
    /// Pings without an answer.
    pub lost: u64,
    /// The share of the time that the thread which forwards was on a CPU.
    pub forwarder_on_cpu: Option<f64>,
    /// The share of the time that the load generator was on its CPU.
    pub guests_on_cpu: f64,
    /// The CPUs that all of the switch's processes used, on average.
    pub cpus: Option<f64>,
    /// The private memory of the switch's processes, in bytes.
    pub memory: Option<u64>,
    /// How long all windows took, in seconds.
    pub seconds: f64,
    /// What the switch says.
    #[serde(flatten)]
    pub spent: Spent,
}

impl Run {
    /// How many frames of a second took the slow path.
    pub fn upcalls_per_second(&self) -> Option<f64> {
        self.per_second(&["upcalls", OVS_INSTALLED, "miss with failed upcall"])
    }

    /// How many megaflows were installed in a second.
    pub fn installs_per_second(&self) -> Option<f64> {
        self.per_second(&["installed", OVS_INSTALLED])
    }

    /// The sum of those of these counters that the switch has.
    fn per_second(&self, names: &[&str]) -> Option<f64> {
        let counts = names.iter().filter_map(|name| self.spent.counters.get(*name)?.as_f64());
        counts.reduce(|sum, count| sum + count).map(|sum| sum / self.seconds)
    }

    /// The CPU time that a million frames took, in seconds.
    pub fn cpu_per_million(&self) -> Option<f64> {
        self.cpus.filter(|_| self.mpps > 0.0).map(|cpus| cpus / self.mpps)
    }
}

/// A run and where it belongs: a line of the raw results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The case's name.
    pub case: String,
    /// Which of the pairs, from 1.
    pub pair: usize,
    /// The run.
    #[serde(flatten)]
    pub run: Run,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.3} Mpps, {:.2} Gb/s, ring full {:.0} %", self.peer.name(), self.mpps, self.gbps, 100.0 * self.full)?;
        if let Some(cycles) = self.spent.cycles_per_frame {
            write!(f, ", {cycles:.0} cycles per frame")?;
        }
        if let Some((p50, p99)) = self.latency {
            write!(f, ", latency {p50:.1} µs, 99 % {p99:.1} µs")?;
        }
        write!(f, ", guests {:.0} % on CPU", 100.0 * self.guests_on_cpu)?;
        self.cpus.map_or(Ok(()), |cpus| write!(f, ", switch {:.2} % of a CPU", 100.0 * cpus))
    }
}

/// The middle value; the mean of the two middle ones, if they are even.
///
/// # Panics
///
/// Panics if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Starts the load of a case on a switch; returns once frames come through.
///
/// # Errors
///
/// They don't.
pub fn start_traffic(host: &Host, case: &Case, switch: &mut dyn Switch) -> Result<Traffic> {
    let interrupted = host.interrupted.clone();
    match switch.ends()? {
        Ends::Sockets(sockets) => Traffic::start(host.guest_cpu, case.workload, case.pace, move |templates| {
            let start = |(port, socket): (usize, &Socket)| {
                let Template { header, frame, .. } = &templates[port.min(1)];
                Port::start(socket, *header, frame, &interrupted).map_err(|error| Error::io(format!("guest {port}"), error))
            };
            sockets.iter().enumerate().map(start).collect::<Result<Vec<Port>>>()
        }),
        Ends::Taps(namespace, names) => Traffic::start(host.guest_cpu, case.workload, case.pace, move |templates| {
            let attach = |port: usize| {
                Tap::attach(&namespace, names[port], &templates[port].frame)
                    .map_err(|error| Error::io(format!("tap {}", names[port]), error))
            };
            Ok(vec![attach(0)?, attach(1)?])
        }),
    }
}

/// Measures a switch in a case.
///
/// # Errors
///
/// It does not start or does not forward, or the user does not want to wait.
pub fn measure(host: &Host, case: &Case, peer: Peer, timing: Timing) -> Result<Run> {
    let dir = tempfile::Builder::new().prefix("vswitch-bench-").tempdir().map_err(|error| Error::io("a temporary directory", error))?;
    let mut switch = peer.start(host, dir.path(), &case.setup)?;
    let traffic = start_traffic(host, case, switch.as_mut())?;
    host.sleep(timing.warm_up)?;

    let used = |switch: &dyn Switch| {
        let forwarder = switch.forwarder().and_then(|(process, thread)| cpu_time(process, thread).ok());
        let guests = cpu_time(std::process::id(), traffic.thread_id()).unwrap_or_default();
        (forwarder, guests, switch.process().map(Process::cpu_time))
    };
    switch.begin()?;
    traffic.record(true);
    let (start, before) = (Instant::now(), used(switch.as_ref()));
    let mut windows = Vec::new();
    for _ in 0..timing.windows {
        let (start, before) = (Instant::now(), traffic.counts());
        host.sleep(timing.window)?;
        windows.push(Window { duration: start.elapsed(), counts: traffic.counts() - before });
    }
    let (seconds, after) = (start.elapsed().as_secs_f64(), used(switch.as_ref()));
    let spent = switch.end()?;
    let memory = switch.process().map(Process::memory);
    if !traffic.is_alive() {
        return Err(traffic.stop().err().unwrap_or_else(|| Error::failed("the load generator ended")));
    }
    let latencies = traffic.stop()?;

    let per_second = |count: fn(&Counts) -> u64| median(windows.iter().map(|w| count(&w.counts) as f64 / w.duration.as_secs_f64()));
    let sum = |count: fn(&Counts) -> u64| windows.iter().map(|window| count(&window.counts)).sum::<u64>();
    let share = |before: Option<Duration>, after: Option<Duration>| Some(after?.checked_sub(before?)?.as_secs_f64() / seconds);
    Ok(Run {
        peer,
        mpps: per_second(|counts| counts.received) / 1e6,
        gbps: per_second(|counts| counts.bytes) * 8.0 / 1e9,
        full: sum(|counts| counts.full) as f64 / sum(|counts| counts.attempts).max(1) as f64,
        latency: latencies.quantile(0.5).zip(latencies.quantile(0.99)).map(|(p50, p99)| (p50 / 1e3, p99 / 1e3)),
        lost: sum(|counts| counts.lost),
        forwarder_on_cpu: share(before.0, after.0),
        guests_on_cpu: share(Some(before.1), Some(after.1)).unwrap_or(0.0),
        cpus: share(before.2, after.2),
        memory,
        seconds,
        spent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([7.0]), 7.0);
    }
}

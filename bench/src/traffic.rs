//! The thread that is both guests: it sends at the one end and counts at the other, until it is told to stop.
//!
//! It only ever counts up, in counters that anybody may read; who measures reads them at the beginning and at the end of a window.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, gettid, sched_setaffinity};

use crate::error::{Error, Result};
use crate::frames::{Direction, FLOW_AT, Flows, Template, Workload};
use crate::guest::End;
use crate::histogram::Histogram;

/// Frames that are sent at once, at most.
const BURST: usize = 32;
/// Frames that are taken at once, at most.
const BITE: usize = 64;
/// How long the path between the guests may take to forward its first frame.
const PATIENCE: Duration = Duration::from_secs(15);

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As much as there is room for.
    Flood,
    /// As much as there is room for, both ways.
    FloodBothWays,
    /// This many frames a second, each with the time at which it was sent.
    Rate(f64),
    /// One frame, which the other guest answers by one, and the next after this time.
    Ping(Duration),
    /// Nothing.
    Idle,
}

/// What the thread has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames sent.
    pub sent: u64,
    /// Our frames that came through.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that came and were not ours.
    pub foreign: u64,
    /// How often it was tried to send a burst.
    pub attempts: u64,
    /// How often there was no room for any of it.
    pub full: u64,
    /// Pings without an answer.
    pub lost: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            received: self.received - before.received,
            bytes: self.bytes - before.bytes,
            foreign: self.foreign - before.foreign,
            attempts: self.attempts - before.attempts,
            full: self.full - before.full,
            lost: self.lost - before.lost,
        }
    }
}

/// In lines of their own: the thread writes here all the time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Published {
    sent: AtomicU64,
    received: AtomicU64,
    bytes: AtomicU64,
    foreign: AtomicU64,
    attempts: AtomicU64,
    full: AtomicU64,
    lost: AtomicU64,
}

impl Published {
    fn store(&self, counts: &Counts) {
        let pairs = [
            (&self.sent, counts.sent),
            (&self.received, counts.received),
            (&self.bytes, counts.bytes),
            (&self.foreign, counts.foreign),
            (&self.attempts, counts.attempts),
            (&self.full, counts.full),
            (&self.lost, counts.lost),
        ];
        pairs.iter().for_each(|(to, count)| to.store(*count, Ordering::Relaxed));
    }

    fn load(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            sent: load(&self.sent),
            received: load(&self.received),
            bytes: load(&self.bytes),
            foreign: load(&self.foreign),
            attempts: load(&self.attempts),
            full: load(&self.full),
            lost: load(&self.lost),
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    record: AtomicBool,
    published: Published,
}

/// The running thread. Dropping it stops it.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Histogram>>>,
    id: i32,
}

impl Traffic {
    /// Starts the thread on a CPU and returns once frames come through. `make` makes the ends, on
    /// that thread: the two that are used, and any that stay idle.
    ///
    /// # Errors
    ///
    /// The ends can't be made, or nothing comes through in time.
    pub fn start<E: End, M>(cpu: usize, workload: Workload, pace: Pace, make: M) -> Result<Self>
    where
        M: FnOnce(&[Template; 2]) -> Result<Vec<E>> + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let (ready, readiness) = mpsc::channel();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("guests".into()).spawn(move || {
            let mut cpus = CpuSet::new();
            cpus.set(cpu);
            sched_setaffinity(None, &cpus).map_err(|error| Error::io(format!("the load generator can't run on CPU {cpu}"), error))?;
            let templates = [Direction::Forth, Direction::Back].map(|direction| Template::new(&workload, direction));
            let ends = make(&templates)?;
            let mut guests = Guests::new(ends, &templates, workload, theirs);
            if pace != Pace::Idle {
                guests.wait_for_path()?;
            }
            // The receiver may have given up.
            let _ = ready.send(gettid().as_raw_nonzero().get());
            match pace {
                Pace::Flood => guests.flood(false),
                Pace::FloodBothWays => guests.flood(true),
                Pace::Rate(rate) => guests.at_rate(rate),
                Pace::Ping(pause) => guests.ping(pause),
                Pace::Idle => guests.idle(),
            }
            Ok(guests.histogram)
        });
        let thread = thread.map_err(|error| Error::io("the load generator's thread", error))?;
        match readiness.recv() {
            Ok(id) => Ok(Self { shared, thread: Some(thread), id }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err(Error::failed("the load generator panicked: what it wrote says why")),
            },
        }
    }

    /// The id of the thread.
    pub fn thread_id(&self) -> i32 {
        self.id
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.shared.published.load()
    }

    /// Whether latencies are to be recorded from now on.
    pub fn record(&self, wanted: bool) {
        self.shared.record.store(wanted, Ordering::Relaxed);
    }

    /// Whether the thread still runs.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops it, and returns the latencies that were recorded.
    ///
    /// # Errors
    ///
    /// It had failed.
    pub fn stop(mut self) -> Result<Histogram> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().unwrap_or_else(|_| Err(Error::failed("the load generator panicked: what it wrote says why")))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Both guests, as their thread has them.
struct Guests<E> {
    ends: Vec<E>,
    flows: [Flows; 2],
    mark: (usize, [u8; 4]),
    stamp_at: usize,
    counts: Counts,
    histogram: Histogram,
    shared: Arc<Shared>,
    start: Instant,
    next_chores: u64,
}

impl<E: End> Guests<E> {
    fn new(ends: Vec<E>, templates: &[Template; 2], workload: Workload, shared: Arc<Shared>) -> Self {
        Self {
            ends,
            flows: [Direction::Forth, Direction::Back].map(|direction| Flows::new(&workload, direction)),
            mark: templates[0].mark(),
            stamp_at: templates[0].stamp_at(),
            counts: Counts::default(),
            histogram: Histogram::default(),
            shared,
            start: Instant::now(),
            next_chores: 0,
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn wait_for_path(&mut self) -> Result<()> {
        while self.start.elapsed() < PATIENCE {
            self.chores(self.now());
            self.send(0, 1, None);
            std::thread::sleep(Duration::from_millis(2));
            if self.receive(1, false) > 0 && self.counts.received > 0 {
                self.counts = Counts::default();
                return Ok(());
            }
        }
        Err(Error::failed(format!("no frame came through in {PATIENCE:?}")))
    }

    /// Once in a second, the second guest sends a frame, so that its address stays learned; the first one takes what comes.
    #[inline(always)]
    fn chores(&mut self, now: u64) {
        if now >= self.next_chores {
            self.next_chores = now + 1_000_000_000;
            let flow = self.flows[1].next_flow();
            self.ends[1].send(1, |memory, at| memory.put(at + FLOW_AT, flow));
            self.ends[0].receive(BITE, |_, _, _| {});
        }
    }

    #[inline(always)]
    fn send(&mut self, from: usize, want: usize, stamp: Option<u64>) -> usize {
        let (flows, stamp_at) = (&mut self.flows[from], self.stamp_at);
        let sent = self.ends[from].send(want, |memory, at| {
            memory.put(at + FLOW_AT, flows.next_flow());
            if let Some(stamp) = stamp {
                memory.put(at + stamp_at, stamp.to_ne_bytes());
            }
        });
        self.counts.attempts += 1;
        self.counts.full += u64::from(sent == 0);
        self.counts.sent += sent as u64;
        sent
    }

    #[inline(always)]
    fn receive(&mut self, at: usize, stamped: bool) -> usize {
        let (mark, stamp_at) = (self.mark, self.stamp_at);
        let now = if stamped && self.shared.record.load(Ordering::Relaxed) { self.start.elapsed().as_nanos() as u64 } else { 0 };
        let (counts, histogram) = (&mut self.counts, &mut self.histogram);
        self.ends[at].receive(BITE, |memory, at, len| {
            if memory.get(at + mark.0) != mark.1 {
                counts.foreign += 1;
                return;
            }
            counts.received += 1;
            counts.bytes += len as u64;
            if now != 0 {
                let stamp = u64::from_ne_bytes(memory.get(at + stamp_at));
                histogram.add(now.saturating_sub(stamp));
            }
        })
    }

    fn running(&self) -> bool {
        self.shared.published.store(&self.counts);
        !self.shared.stop.load(Ordering::Relaxed)
    }

    fn idle(&self) {
        while self.running() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn flood(&mut self, both_ways: bool) {
        while self.running() {
            self.chores(self.now());
            let mut moved = self.send(0, BURST, None) + self.receive(1, false);
            if both_ways {
                moved += self.send(1, BURST, None) + self.receive(0, false);
            }
            if moved == 0 {
                // The switch is busy with the lines that would be looked at.
                (0..8).for_each(|_| std::hint::spin_loop());
            }
        }
    }

    fn at_rate(&mut self, rate: f64) {
        let gap = 1e9 / rate;
        let mut next = self.now() as f64;
        while self.running() {
            let now = self.now();
            self.chores(now);
            let due = ((now as f64 - next) / gap).clamp(0.0, BURST as f64) as usize;
            if due > 0 {
                let sent = self.send(0, due, Some(now));
                // What could not be sent is not made up for.
                next = if sent < due { now as f64 } else { next + due as f64 * gap };
            }
            self.receive(1, true);
        }
    }

    fn ping(&mut self, pause: Duration) {
        while self.running() {
            let start = self.now();
            self.chores(start);
            match self.round_trip(start) {
                Some(end) if self.shared.record.load(Ordering::Relaxed) => self.histogram.add(end - start),
                Some(_) => {}
                None => self.counts.lost += 1,
            }
            while self.now() < start + pause.as_nanos() as u64 {
                std::hint::spin_loop();
            }
        }
    }

    /// Sends a frame one way and then the other, and returns when it was back. `None` if it was lost.
    fn round_trip(&mut self, start: u64) -> Option<u64> {
        let (mark, stamp_at) = (self.mark, self.stamp_at);
        for from in [0, 1] {
            if self.send(from, 1, Some(start)) == 0 {
                return None;
            }
            let mut come = false;
            while !come {
                self.ends[1 - from].receive(BITE, |memory, at, _| {
                    come |= memory.get(at + mark.0) == mark.1 && u64::from_ne_bytes(memory.get(at + stamp_at)) == start;
                });
                if !come && self.now() > start + 10_000_000 {
                    return None;
                }
            }
            self.counts.received += 1;
        }
        Some(self.now())
    }
}

/// For how long a thread was on a CPU since it began.
///
/// # Errors
///
/// There is no such thread.
pub fn cpu_time(process: u32, thread: i32) -> io::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat"))?;
    let nanoseconds = text.split_whitespace().next().unwrap_or_default().parse().map_err(io::Error::other)?;
    Ok(Duration::from_nanos(nanoseconds))
}

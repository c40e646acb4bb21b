//! A worker's thread: one CPU, one [`Worker`], one epoll.
//!
//! The thread breathes as long as frames come. After some time in vain (its patience) it arms all its queues, looks once more, and sleeps in its epoll,
//! where the kicks of its rings and a wake-up of its own are; all are edge-triggered and never read, so that a busy worker makes no system call.
//! What the control thread wants of a worker it posts as a closure, which the worker runs between two breaths, when no frame is under way.
//! Posting always wakes: the event stays with the epoll until the worker sleeps next, so none is missed and no flag says who sleeps.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use datapath::Nanos;
use datapath::worker::Worker;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::clock::{CoarseClock, cycles};
use crate::config::{Poll, Polling};

/// How often a worker with traffic looks after its caches.
const MAINTAIN_EVERY: Nanos = 250_000_000;
/// How often one without traffic does, as long as it has cached flows.
const MAINTAIN_IDLE_EVERY: Nanos = 1_000_000_000;
/// The patience of a worker that never sleeps.
const FOR_EVER: Nanos = Nanos::MAX;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// A running worker, as the control thread sees it.
#[derive(Debug)]
pub struct WorkerThread {
    cpu: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What a worker's thread did with its time, in cycles.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// In breaths that brought frames.
    pub busy_cycles: u64,
    /// In others, and asleep.
    pub idle_cycles: u64,
}

struct Shared {
    epoll: OwnedFd,
    wake: OwnedFd,
    jobs: Mutex<Vec<Job>>,
    has_jobs: AtomicBool,
    stop: AtomicBool,
    /// How long it polls in vain before it sleeps, in nanoseconds.
    patience: AtomicU64,
    /// Rings that can't kick: as long as there are any, it must not sleep.
    unkicked: AtomicUsize,
    busy_cycles: AtomicU64,
    idle_cycles: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

/// How a ring's owner makes the ring's kicks wake the worker.
#[derive(Clone, Debug)]
pub struct Kicks(Arc<Shared>);

impl WorkerThread {
    /// Starts a thread on `cpu` that drives `worker`.
    pub fn start(cpu: u16, polling: Polling, worker: Worker) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
        let shared = Arc::new(Shared {
            epoll,
            wake,
            jobs: Mutex::default(),
            has_jobs: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            patience: AtomicU64::new(patience(polling)),
            unkicked: AtomicUsize::new(0),
            busy_cycles: AtomicU64::new(0),
            idle_cycles: AtomicU64::new(0),
        });
        let (its, started) = (shared.clone(), channel());
        let thread = Builder::new().name(format!("worker-{cpu}")).spawn(move || {
            let mut cpus = CpuSet::new();
            cpus.set(cpu.into());
            let pinned = sched_setaffinity(None, &cpus);
            let ok = pinned.is_ok();
            // The starter waits for it.
            let _ = started.0.send(pinned);
            if ok {
                Thread { shared: &its, worker, clock: CoarseClock::start() }.run();
            }
        })?;
        match started.1.recv() {
            Ok(Ok(())) => Ok(Self { cpu, shared, thread: Some(thread) }),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(io::Error::other("the thread ended at once")),
        }
    }

    /// The CPU that it is pinned to.
    pub fn cpu(&self) -> u16 {
        self.cpu
    }

    /// The thread's name.
    pub fn name(&self) -> String {
        format!("worker-{}", self.cpu)
    }

    /// Runs `job` between two breaths. The answer comes when it is done; never, if the worker is gone.
    pub fn post<R: Send + 'static>(&self, job: impl FnOnce(&mut Worker) -> R + Send + 'static) -> Receiver<R> {
        let (sender, receiver) = channel();
        let job = Box::new(move |worker: &mut Worker| {
            // Whoever asked may not want the answer.
            let _ = sender.send(job(worker));
        });
        self.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        self.shared.has_jobs.store(true, Ordering::Release);
        self.shared.wake();
        receiver
    }

    /// Makes it take up newly published tables, if it sleeps.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Changes what it does when there is no work.
    pub fn set_polling(&self, polling: Polling) {
        self.shared.patience.store(patience(polling), Ordering::Relaxed);
        self.shared.wake();
    }

    /// What it did with its time so far.
    pub fn usage(&self) -> Usage {
        let read = |cycles: &AtomicU64| cycles.load(Ordering::Relaxed);
        Usage { busy_cycles: read(&self.shared.busy_cycles), idle_cycles: read(&self.shared.idle_cycles) }
    }

    /// For the owners of rings that it serves.
    pub fn kicks(&self) -> Kicks {
        Kicks(self.shared.clone())
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        let shared = self.shared.clone();
        drop(self.post(move |_| shared.stop.store(true, Ordering::Relaxed)));
        if let Some(thread) = self.thread.take() {
            // A panic of the worker has ended the process already.
            let _ = thread.join();
        }
    }
}

impl Kicks {
    /// A ring started: its kicks wake the worker, now for the first time. Without a kick the worker polls.
    pub fn add(&self, kick: Option<&OwnedFd>) -> io::Result<()> {
        match kick {
            Some(kick) => epoll::add(&self.0.epoll, kick, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?,
            None => {
                self.0.unkicked.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.0.wake();
        Ok(())
    }

    /// The ring is gone.
    pub fn remove(&self, kick: Option<&OwnedFd>) {
        match kick {
            // It fails only if it was not there.
            Some(kick) => drop(epoll::delete(&self.0.epoll, kick.as_fd())),
            None => {
                self.0.unkicked.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Shared {
    fn wake(&self) {
        // It fails only after 2^64 - 2 wake-ups.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn count(counter: &AtomicU64, more: u64) {
        // One writer: no locked instruction.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
}

fn patience(polling: Polling) -> Nanos {
    match polling.poll {
        Poll::Busy => FOR_EVER,
        Poll::Adaptive => polling.idle.as_nanos() as Nanos,
        Poll::Interrupt => 0,
    }
}

/// The thread's own.
struct Thread<'a> {
    shared: &'a Shared,
    worker: Worker,
    clock: CoarseClock,
}

impl Thread<'_> {
    fn run(mut self) {
        let mut cycle = cycles();
        let mut now = self.clock.at(cycle);
        let (mut last_frames, mut maintained) = (now, now);
        loop {
            let frames = self.worker.breathe(now);
            let after = cycles();
            Shared::count(if frames > 0 { &self.shared.busy_cycles } else { &self.shared.idle_cycles }, after.wrapping_sub(cycle));
            cycle = after;
            now = self.clock.at(cycle);

            if self.shared.has_jobs.load(Ordering::Relaxed) {
                self.run_jobs();
                if self.shared.stop.load(Ordering::Relaxed) {
                    return self.worker.settle();
                }
            }
            if now >= maintained + MAINTAIN_EVERY {
                self.worker.maintain(now);
                maintained = now;
            }
            if frames > 0 {
                last_frames = now;
                continue;
            }
            if now - last_frames >= self.shared.patience.load(Ordering::Relaxed) && self.shared.unkicked.load(Ordering::Relaxed) == 0 {
                let until = match last_frames >= maintained {
                    true => Some(maintained + MAINTAIN_EVERY),
                    false => (self.worker.stats().megaflows > 0).then_some(maintained + MAINTAIN_IDLE_EVERY),
                };
                self.sleep(until.map(|until| until.saturating_sub(now)));
                let woken = cycles();
                Shared::count(&self.shared.idle_cycles, woken.wrapping_sub(cycle));
                cycle = woken;
                now = self.clock.at(cycle);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Sleeps until a ring has work, somebody wakes the worker, or the time is over.
    fn sleep(&mut self, timeout: Option<Nanos>) {
        if !self.worker.arm() {
            let timeout = timeout.map(|nanos| Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 });
            let mut events = [const { MaybeUninit::uninit() }; 16];
            // Whatever it returns, an event or an interruption, the rings are looked at next.
            let _ = epoll::wait(&self.shared.epoll, &mut events[..], timeout.as_ref());
        }
        self.worker.disarm();
    }

    fn run_jobs(&mut self) {
        self.shared.has_jobs.store(false, Ordering::Relaxed);
        let jobs = std::mem::take(&mut *self.shared.jobs.lock().unwrap_or_else(PoisonError::into_inner));
        jobs.into_iter().for_each(|job| job(&mut self.worker));
    }
}

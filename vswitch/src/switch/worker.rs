//! A worker's thread: one CPU, one [`Worker`], one epoll.
//!
//! The thread breathes as long as frames come. After some time in vain (its [`Patience`]) it arms all its queues, looks once more, and sleeps in its epoll,
//! where the kicks of its rings and a wake-up of its own are; all are edge-triggered and never read.
//!
//! Of many queues, those that bring nothing for a millisecond or two are put to rest, armed. As long as any rests, the epoll is looked at every few
//! microseconds, which costs a tenth of one: so the cost of a breath depends on the queues that have frames, not on those that there are, and a
//! frame of a queue at rest waits no longer than one that wakes a sleeping worker. Without such queues, a busy worker makes no system call.
//!
//! What the control thread wants of a worker it posts as a closure, which the worker runs between two breaths, when no frame is under way.
//! Posting always wakes: the event stays with the epoll until the worker sleeps next, so none is missed.
//!
//! A worker that sleeps leaves all that it has, its [`State`], where the control thread can get at it. So what control asks of all workers and waits for, a
//! barrier above all, it does itself for those that sleep, and wakes nobody; being woken takes a thread tens of microseconds. A worker that wakes meanwhile waits
//! for its state.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use datapath::Nanos;
use datapath::port::PortNo;
use datapath::worker::Worker;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::clock::{CoarseClock, cycles};
use super::patience::Patience;
use crate::config::Polling;

/// How many times less often a worker looks after its caches while there is no traffic.
const IDLE_SLOWNESS: Nanos = 4;
/// How long a queue without frames is polled, once or twice, before it is put to rest.
const REST_EVERY: Nanos = 1_000_000;
/// How long after frames a worker breathes deeply.
const DEEPLY: Nanos = 2_000;
/// How late the time may be when there are frames, and how late a kick of a queue at rest may be heard: 2^15 cycles, some ten microseconds.
const BUSY_SLACK: u64 = 1 << 15;
/// The same when there are none.
const IDLE_SLACK: u64 = 1 << 12;
/// The most events that are heard at once.
const EVENTS: usize = 64;
/// The epoll's word for the wake-up; the others are the numbers of ports.
const WAKE: u64 = 0;

type Job = Box<dyn FnOnce(&mut State) + Send>;

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

// Two workers must not write to the same cache lines.
#[repr(align(128))]
struct Shared {
    epoll: OwnedFd,
    wake: OwnedFd,
    jobs: Mutex<Vec<Job>>,
    has_jobs: AtomicBool,
    /// The state of a worker that sleeps.
    parked: Mutex<Option<Box<State>>>,
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
pub struct Kicks {
    shared: Arc<Shared>,
    port: PortNo,
}

impl WorkerThread {
    /// Starts a thread on `cpu` that drives `worker`.
    pub fn start(cpu: u16, polling: Polling, worker: Worker) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN | EventFlags::ET)?;
        let shared = Arc::new(Shared {
            epoll,
            wake,
            jobs: Mutex::default(),
            has_jobs: AtomicBool::new(false),
            parked: Mutex::default(),
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
                let state = State { worker, patience: Patience::new(polling), unkicked: 0, stop: false };
                Thread { shared: its, clock: CoarseClock::start() }.run(Box::new(state));
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
        self.shared.post(move |state| {
            // Whoever asked may not want the answer.
            let _ = sender.send(job(&mut state.worker));
        });
        receiver
    }

    /// Runs `job`, behind all that was posted before, if the worker sleeps; it need not be woken for it. Gives the job back otherwise.
    pub fn if_asleep<R, J: FnOnce(&mut Worker) -> R>(&self, job: J) -> Result<R, J> {
        match &mut *lock(&self.shared.parked) {
            Some(state) => {
                self.shared.run_jobs(state);
                Ok(job(&mut state.worker))
            }
            None => Err(job),
        }
    }

    /// Changes what it does when there is no work.
    pub fn set_polling(&self, polling: Polling) {
        self.shared.post(move |state| state.patience.set(polling));
    }

    /// What it did with its time so far.
    pub fn usage(&self) -> Usage {
        let read = |cycles: &AtomicU64| cycles.load(Ordering::Relaxed);
        Usage { busy_cycles: read(&self.shared.busy_cycles), idle_cycles: read(&self.shared.idle_cycles) }
    }

    /// For the owner of a ring of `port` that it serves.
    pub fn kicks(&self, port: PortNo) -> Kicks {
        Kicks { shared: self.shared.clone(), port }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.shared.post(|state| state.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic of the worker has ended the process already.
            let _ = thread.join();
        }
    }
}

impl Kicks {
    /// A ring started: its kicks wake the worker, and it is looked at once without one. A ring without a kick is polled, and keeps the worker awake.
    pub fn add(&self, kick: Option<&OwnedFd>) -> io::Result<()> {
        if let Some(kick) = kick {
            epoll::add(&self.shared.epoll, kick, EventData::new_u64(self.port.0.into()), EventFlags::IN | EventFlags::ET)?;
        }
        let (port, unkicked) = (self.port, usize::from(kick.is_none()));
        self.shared.post(move |state| {
            state.unkicked += unkicked;
            state.worker.rouse(port);
        });
        Ok(())
    }

    /// The ring is gone.
    pub fn remove(&self, kick: Option<&OwnedFd>) {
        match kick {
            // It fails only if it was not there.
            Some(kick) => drop(epoll::delete(&self.shared.epoll, kick.as_fd())),
            None => self.shared.post(|state| state.unkicked -= 1),
        }
    }
}

impl Shared {
    fn post(&self, job: impl FnOnce(&mut State) + Send + 'static) {
        lock(&self.jobs).push(Box::new(job));
        self.has_jobs.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // It fails only after 2^64 - 2 wake-ups.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Waits for kicks and wake-ups. Hears of none if it is interrupted.
    fn wait<'a>(&self, events: &'a mut [MaybeUninit<epoll::Event>], timeout: Option<&Timespec>) -> &'a [epoll::Event] {
        epoll::wait(&self.epoll, events, timeout).map_or(&[], |(events, _)| events)
    }

    fn run_jobs(&self, state: &mut State) {
        self.has_jobs.store(false, Ordering::Relaxed);
        let jobs = std::mem::take(&mut *lock(&self.jobs));
        jobs.into_iter().for_each(|job| job(state));
    }

    fn count(counter: &AtomicU64, more: u64) {
        // One writer: no locked instruction.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What jobs may change: the thread's own while it is awake.
struct State {
    worker: Worker,
    patience: Patience,
    /// Rings that can't kick: as long as there are any, it must not sleep, nor put queues to rest.
    unkicked: usize,
    stop: bool,
}

/// The thread's own.
struct Thread {
    shared: Arc<Shared>,
    clock: CoarseClock,
}

impl Thread {
    fn run(mut self, mut state: Box<State>) {
        let (mut cycle, mut listened) = (cycles(), 0);
        let mut now = self.clock.at(cycle, 0);
        let (mut idle_since, mut maintained, mut rested) = (now, now, now);
        let mut maintain_after = 0;
        let (mut busy, mut slept) = (false, false);
        loop {
            let deeply = busy || now - idle_since < DEEPLY;
            let frames = if deeply { state.worker.breathe_deeply(now) } else { state.worker.breathe(now) };
            let after = cycles();
            Shared::count(if frames > 0 { &self.shared.busy_cycles } else { &self.shared.idle_cycles }, after.wrapping_sub(cycle));
            cycle = after;

            let slack = if frames > 0 { BUSY_SLACK } else { IDLE_SLACK };
            now = self.clock.at(cycle, slack);
            let listens = state.worker.has_resting() && cycle.wrapping_sub(listened) > slack;
            if listens {
                listened = cycle;
            }
            let heard = listens && {
                let mut events = [const { MaybeUninit::uninit() }; EVENTS];
                state.rouse(self.shared.wait(&mut events, Some(&Timespec::default())))
            };
            if self.shared.has_jobs.load(Ordering::Acquire) {
                self.shared.run_jobs(&mut state);
            }
            if state.stop {
                return state.worker.settle();
            }
            if now >= maintained + maintain_after {
                maintain_after = state.worker.maintain(now);
                maintained = now;
            }
            if now >= rested + REST_EVERY && state.unkicked == 0 {
                state.worker.rest();
                rested = now;
            }
            if frames > 0 {
                if std::mem::take(&mut slept) {
                    state.patience.learn(now - idle_since, frames);
                }
                busy = true;
                continue;
            }
            if std::mem::take(&mut busy) {
                now = self.clock.at(cycle, 0);
                idle_since = now;
            }
            // What woke it may be a word of the control thread's, which is heeded by a breath: it must not sleep before the next one.
            if !deeply && !heard && state.unkicked == 0 && state.patience.is_over(now - idle_since) {
                let until = match idle_since >= maintained {
                    true => Some(maintained + maintain_after),
                    false => (state.worker.stats().megaflows > 0).then_some(maintained + IDLE_SLOWNESS * maintain_after),
                };
                state = self.sleep(state, until.map(|until| until.saturating_sub(now)));
                slept = true;
                let woken = cycles();
                Shared::count(&self.shared.idle_cycles, woken.wrapping_sub(cycle));
                cycle = woken;
                now = self.clock.at(cycle, 0);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Sleeps until a ring has work, somebody wakes the worker, or the time is over. The state is where control finds it meanwhile.
    fn sleep(&self, mut state: Box<State>, timeout: Option<Nanos>) -> Box<State> {
        if !state.worker.arm() {
            // Who published tables before this did not find the state, and leaves it to the worker to take them up.
            let outdated = lock(&self.shared.parked).insert(state).worker.is_outdated();
            let timeout = if outdated { Some(0) } else { timeout };
            let timeout = timeout.map(|nanos| Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 });
            let mut events = [const { MaybeUninit::uninit() }; EVENTS];
            let events = self.shared.wait(&mut events, timeout.as_ref());
            state = lock(&self.shared.parked).take().expect("who borrows the state holds the lock");
            // Whatever it heard, nothing or an interruption, the rings are looked at next.
            state.rouse(events);
        }
        state.worker.disarm();
        state
    }
}

impl State {
    /// Rouses the queues that were kicked. Whether there was any event.
    fn rouse(&mut self, events: &[epoll::Event]) -> bool {
        for event in events.iter().filter(|event| event.data.u64() != WAKE) {
            self.worker.rouse(PortNo(event.data.u64() as u32));
        }
        !events.is_empty()
    }
}

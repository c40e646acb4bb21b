//! Two workers on two threads, with fake guests behind real sessions: what control changes under them takes effect when they have said so, and loses
//! nothing.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use datapath::action::NoControllers;
use datapath::cache::CacheLimits;
use datapath::key::{Field, Match};
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, Port, PortCounters, PortTotals, RuleFilter, VlanMode};
use datapath::worker::Worker;
use etherparse::PacketBuilder;
use tests::frontend::{Guest, Options};
use tests::random::Random;
use tests::rig::Rig;

const WORKERS: usize = 2;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// A worker on its thread, which polls until it is dropped.
struct Thread {
    jobs: Option<Sender<Job>>,
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    /// Starts a worker, and does something between each two breaths.
    fn start(mut worker: Worker, mut between: impl FnMut(&mut Worker) + Send + 'static) -> Self {
        let (jobs, inbox): (_, Receiver<Job>) = channel();
        let acknowledged = worker.acknowledged();
        let thread = std::thread::spawn(move || {
            for now in 0.. {
                match inbox.try_recv() {
                    Ok(job) => job(&mut worker),
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                    Err(std::sync::mpsc::TryRecvError::Empty) => {}
                }
                if worker.breathe(now) == 0 {
                    std::thread::yield_now();
                }
                between(&mut worker);
                if now % 1000 == 0 {
                    worker.maintain(now);
                }
            }
        });
        Self { jobs: Some(jobs), acknowledged, thread: Some(thread) }
    }

    /// Runs a job between two breaths, and waits for it.
    fn run(&self, job: impl FnOnce(&mut Worker) + Send + 'static) {
        let (done, wait) = channel();
        let job = Box::new(move |worker: &mut Worker| {
            job(worker);
            done.send(()).expect("somebody waits");
        });
        self.jobs.as_ref().expect("not dropped").send(job).expect("the worker runs");
        wait.recv().expect("the worker runs");
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.thread.take().expect("dropped once").join();
        if !std::thread::panicking() {
            ended.expect("the worker did not panic");
        }
    }
}

/// A rig, and workers that serve its queues in turn.
struct Bench {
    threads: Vec<Thread>,
    rig: Rig,
}

impl Bench {
    fn new(guests: usize, queue_pairs: usize) -> Self {
        let rig = Rig::new(&vec![Options { queue_pairs, ..Options::default() }; guests], WORKERS, |_| VlanMode::default());
        let mut workers: Vec<_> = (0..WORKERS).map(|number| rig.worker(number, CacheLimits::default(), Box::new(NoControllers))).collect();
        for (at, (port, queue)) in rig.queues().into_iter().enumerate() {
            workers[at % WORKERS].add_input(port, queue);
        }
        Self { threads: workers.into_iter().map(|worker| Thread::start(worker, |_| ())).collect(), rig }
    }

    /// Makes the frames of a port go out of others.
    fn rule(&mut self, from: u32, to: &[PortNo]) {
        let apply = to.iter().map(|port| OfAction::Output { port: *port, max_len: 0 }).collect();
        let instructions = Instructions { apply, ..Instructions::default() };
        let flow_mod = FlowMod { matching: Match::ANY.with(Field::InPort, from.into()), instructions, ..FlowMod::default() };
        self.rig.draft.flow_mod(&flow_mod, 0).expect("a good rule");
    }

    /// Publishes, and waits until no worker goes by older tables.
    fn barrier(&self) {
        self.rig.publish();
        let epoch = self.rig.draft.epoch();
        let acknowledged = |thread: &Thread| thread.acknowledged.load(Ordering::Acquire) >= epoch;
        wait_until("the workers acknowledge", || self.threads.iter().all(acknowledged));
    }

    /// Waits until all that the guests gave is taken, and nothing is under way.
    fn quiesce(&mut self) {
        for guest in &mut self.rig.guests {
            for pair in 0..guest.pairs() {
                let transmitter = guest.transmitter(pair);
                wait_until("the rings are served", || {
                    transmitter.reclaim();
                    transmitter.ring.free() == usize::from(transmitter.ring.size())
                });
            }
        }
        self.threads.iter().for_each(|thread| thread.run(Worker::settle));
    }

    fn totals(&self, guest: usize) -> PortTotals {
        self.rig.totals(PortNo(guest as u32 + 1))
    }
}

/// Half a minute is for ever.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// A frame of the flow `flow`, with this number in it.
fn frame(flow: u16, number: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(flow, 2000).write(&mut frame, &number.to_be_bytes()).expect("a vector takes all");
    frame
}

/// The numbers of the frames that a guest received.
fn received(guest: &mut Guest) -> Vec<u64> {
    let frames = (0..guest.pairs()).flat_map(|pair| guest.receive(pair)).collect::<Vec<_>>();
    frames.iter().map(|frame| u64::from_be_bytes(frame[frame.len() - 8..].try_into().expect("eight bytes"))).collect()
}

#[test]
fn frames_after_a_barrier_follow_the_new_rules() {
    let mut bench = Bench::new(4, 2);
    // Other traffic, so that the workers are busy.
    bench.rule(4, &[PortNo::IN_PORT]);
    bench.rule(1, &[PortNo(3)]);
    bench.barrier();
    let mut early = 0;
    for round in 0..1000 {
        // These may go either way, and some lie in the rings while the rules change.
        for pair in 0..2 {
            let frames: Vec<_> = (0..4).map(|flow| frame(flow, 2 * round)).collect();
            assert_eq!(bench.rig.guests[0].send(pair, frames.iter().map(Vec::as_slice)), frames.len());
            bench.rig.guests[3].send(pair, frames.iter().map(Vec::as_slice));
        }
        let (right, wrong) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        bench.rule(1, &[PortNo(right as u32 + 1)]);
        bench.barrier();
        for pair in 0..2 {
            let frames: Vec<_> = (0..4).map(|flow| frame(flow, 2 * round + 1)).collect();
            assert_eq!(bench.rig.guests[0].send(pair, frames.iter().map(Vec::as_slice)), frames.len());
        }
        let mut late = 0;
        wait_until("all frames have come", || {
            for guest in [right, wrong] {
                for number in received(&mut bench.rig.guests[guest]) {
                    if number == 2 * round + 1 {
                        assert_eq!(guest, right, "round {round}: a frame followed the old rules after the barrier");
                        late += 1;
                    } else {
                        assert_eq!(number, 2 * round, "a frame of another round");
                        early += 1;
                    }
                }
            }
            received(&mut bench.rig.guests[3]);
            late == 8 && early == 8 * (round + 1)
        });
    }
    // A rule that is added anew keeps its counters: no frame was counted twice, or not at all, while it was replaced.
    bench.quiesce();
    let matching = Match::ANY.with(Field::InPort, 1);
    let filter = RuleFilter { matching, priority: Some(FlowMod::default().priority), ..RuleFilter::ALL };
    let frames: Vec<_> = bench.rig.draft.rules(&filter).map(|rule| rule.counters.frames()).collect();
    assert_eq!(frames, [16_000]);
    assert_eq!(bench.totals(0).forwarded, 16_000);
}

/// Gives frames of the guest `from` to its queues, as many as they take, and lets all guests take theirs. Returns how many.
fn traffic(rig: &mut Rig, from: usize, number: u64) -> usize {
    let frames: Vec<_> = (0..32).map(|flow| frame(flow, number)).collect();
    let pairs = rig.guests[from].pairs();
    let count = (0..pairs).map(|pair| rig.guests[from].send(pair, frames.iter().map(Vec::as_slice))).sum();
    for guest in &mut rig.guests {
        received(guest);
    }
    count
}

#[test]
fn a_port_removed_under_traffic_is_left_alone() {
    let mut bench = Bench::new(3, 2);
    bench.rule(1, &[PortNo::FLOOD]);
    bench.rule(2, &[PortNo(1), PortNo(3)]);
    bench.barrier();
    let (mut from_first, mut from_second, mut before) = (0, 0, PortTotals::default());
    for round in 0..100 {
        for _ in 0..3 {
            from_first += traffic(&mut bench.rig, 0, round);
            from_second += traffic(&mut bench.rig, 1, round);
        }
        // As the switch does it: the workers let go of the queues, then of the tables that name the port.
        bench.threads.iter().for_each(|thread| thread.run(|worker| worker.remove_inputs(PortNo(2))));
        let port: Arc<Port> = bench.rig.draft.remove_port(PortNo(2)).expect("the port is there");
        bench.barrier();
        let gone = port.counters.totals();
        let used = rings(&mut bench.rig.guests[1]);
        from_first += traffic(&mut bench.rig, 0, round);
        bench.threads.iter().for_each(|thread| thread.run(|_| ()));
        assert_eq!(
            (port.counters.totals(), rings(&mut bench.rig.guests[1])),
            (gone, used),
            "round {round}: nothing reaches a removed port"
        );
        assert_eq!(gone.rx_frames, gone.forwarded + gone.to_controller + gone.dropped(), "round {round}");
        before.rx_frames += gone.rx_frames;
        before.forwarded += gone.forwarded;
        // It comes back, with what its guest has sent meanwhile.
        let again = Port { counters: Arc::new(PortCounters::new(WORKERS)), ..Port::clone(&port) };
        bench.rig.draft.add_port(again).expect("the number is free");
        bench.barrier();
        for (thread, queue) in bench.threads.iter().zip(bench.rig.ports.rx_queues(1)) {
            thread.run(move |worker| worker.add_input(PortNo(2), queue));
        }
    }
    bench.quiesce();
    let (first, second) = (bench.totals(0), bench.totals(1));
    assert_eq!(first.rx_frames, from_first as u64);
    assert_eq!(before.rx_frames + second.rx_frames, from_second as u64);
    assert_eq!(before.forwarded + second.forwarded, from_second as u64);
    let third = bench.totals(2);
    assert_eq!(third.tx_frames + third.tx_dropped(), (from_first + from_second) as u64, "each frame had a copy for the third port");
    assert_eq!(first.tx_frames + first.tx_dropped(), from_second as u64);
}

#[test]
fn a_session_killed_under_traffic_loses_nothing_of_others() {
    let mut bench = Bench::new(3, 2);
    (1..=3).for_each(|port| bench.rule(port, &[PortNo::ALL]));
    bench.barrier();
    let mut given = [0; 3];
    for round in 0..100 {
        for _ in 0..3 {
            for (guest, given) in given.iter_mut().enumerate() {
                *given += traffic(&mut bench.rig, guest, round);
            }
        }
        bench.rig.disconnect(1);
        let used = rings(&mut bench.rig.guests[1]);
        given[0] += traffic(&mut bench.rig, 0, round);
        bench.threads.iter().for_each(|thread| thread.run(|_| ()));
        assert_eq!(rings(&mut bench.rig.guests[1]), used, "round {round}: nobody touches the memory of a guest that is gone");
        bench.rig.connect(1);
    }
    bench.quiesce();
    let all: usize = given.iter().sum();
    for (guest, given) in given.into_iter().enumerate() {
        let totals = bench.totals(guest);
        assert_eq!((totals.rx_frames, totals.forwarded), (given as u64, given as u64), "guest {guest}: no chain lost or doubled");
        assert_eq!(totals.tx_frames + totals.tx_dropped(), (all - given) as u64, "guest {guest}: each copy is counted");
        bench.rig.guests[guest].stop().expect("the rings say where they stopped");
    }
}

/// The used index of each ring of a guest.
fn rings(guest: &mut Guest) -> Vec<u16> {
    (0..guest.pairs()).flat_map(|pair| [guest.receiver(pair).ring.used_index(), guest.transmitter(pair).ring.used_index()]).collect()
}

#[test]
fn queues_that_rest_lose_no_frame() {
    const GUESTS: usize = 12;
    let mut rig = Rig::new(&[Options::default(); GUESTS], 1, |_| VlanMode::default());
    let mut worker = rig.worker(0, CacheLimits::default(), Box::new(NoControllers));
    rig.queues().into_iter().for_each(|(port, queue)| worker.add_input(port, queue));
    let kicks: Vec<_> = rig.guests.iter_mut().map(|guest| guest.transmitter(0).ring.kick.file()).collect();
    // Puts to rest whatever has nothing at the moment, so that guests send while their queues fall asleep and are roused.
    let thread = Thread::start(worker, move |worker| {
        worker.rest();
        for (mut kick, port) in kicks.iter().zip(1..) {
            if kick.read(&mut [0; 8]).is_ok() {
                worker.rouse(PortNo(port));
            }
        }
    });
    let mut bench = Bench { threads: vec![thread], rig };
    (1..=GUESTS as u32).for_each(|port| bench.rule(port, &[PortNo(port % GUESTS as u32 + 1)]));
    bench.barrier();
    let mut random = Random::new(7);
    for number in 0..20_000 {
        let from = random.below(GUESTS as u64) as usize;
        wait_until("there is room for a frame", || {
            bench.rig.guests[from].transmitter(0).reclaim();
            bench.rig.guests[from].send(0, [&frame(1, number)[..]]) == 1
        });
        // Now and then, every queue has the time to fall asleep.
        if random.below(16) == 0 {
            let to = (from + 1) % GUESTS;
            wait_until("the frame has come", || received(&mut bench.rig.guests[to]).contains(&number));
        }
    }
    bench.quiesce();
    assert_eq!((0..GUESTS).map(|guest| bench.totals(guest).forwarded).sum::<u64>(), 20_000);
}

#[test]
fn each_worker_keeps_to_queues_of_its_own_and_flows_to_their_order() {
    const PAIRS: usize = 4;
    let mut bench = Bench::new(3, PAIRS);
    (1..=2).for_each(|port| bench.rule(port, &[PortNo(3)]));
    bench.barrier();
    // The flow with a number goes through the queue with this number, which one worker serves of both guests.
    let flows = 4 * PAIRS as u16;
    let (mut sent, mut seen) = (vec![0; usize::from(2 * flows)], vec![0; usize::from(2 * flows)]);
    let mut queues = [false; PAIRS];
    for _ in 0..200 {
        for (flow, sent) in (0..2 * flows).zip(&mut sent) {
            let (guest, pair) = (usize::from(flow / flows), usize::from(flow) % PAIRS);
            bench.rig.guests[guest].transmitter(pair).reclaim();
            *sent += bench.rig.guests[guest].send(pair, [*sent + 1, *sent + 2].map(|number| frame(flow, number)).iter().map(Vec::as_slice))
                as u64;
        }
        for (queue, used) in queues.iter_mut().enumerate() {
            for frame in bench.rig.guests[2].receive(queue) {
                let flow = usize::from(u16::from_be_bytes([frame[34], frame[35]]));
                let number = u64::from_be_bytes(frame[frame.len() - 8..].try_into().expect("eight bytes"));
                assert_eq!(flow % WORKERS, queue % WORKERS, "the queue {queue} belongs to the other worker");
                assert!(number > seen[flow], "flow {flow}: frame {number} came after {}", seen[flow]);
                seen[flow] = number;
                *used = true;
            }
        }
    }
    assert_eq!(queues, [true; PAIRS], "all queues are used");
}

//! The stages of the datapath, one by one, in one thread and without another CPU: for counting instructions, and for looking at nanoseconds.
//!
//! A stage that needs frames gets them from a queue that makes them, and gives them to an output that takes all: the stage `source` is that alone, and
//! part of every stage behind it.

mod rules;

use std::sync::{Arc, Mutex};

use ::tests::driver::{DriverRing, F_MRG_RXBUF, F_VERSION_1, NetHeader, Ram, WRITE};
use datapath::action::NoControllers;
use datapath::cache::CacheLimits;
use datapath::frame::{BATCH, Batch, Offload};
use datapath::key::{FlowKey, extract};
use datapath::port::{DummyPort, Output, PortNo, RxQueue, Share, Transmitted};
use datapath::tables::{MacTable, Port, PortConfig, PortCounters, Tables, VlanMode};
use datapath::worker::{Published, Worker, WorkerSettings};
use vhost_backend::rx::RxRing;
use vhost_backend::tx::TxRing;

use crate::frames::{Direction, FLOW_AT, Flows, Order, Template, Vary, Workload};
use crate::rules::Rules;

/// Of the hashes: any but a simple one, which may happen to cancel out the bits of a frame.
const SEED: u64 = 0x5eed_9c3b_1f27_d6a5;

/// How many frames [`Stage::prepare`]'s function takes through the stage with each call.
pub const FRAMES: usize = BATCH;

/// A stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// What happens to each frame.
    pub says: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Source,
    Extract,
    Rings(usize),
    Worker { rules: Rules, workload: Workload, cache: Cache, rings: bool },
}

/// How the worker's caches are bounded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cache {
    AsUsual,
    /// There is room for eight microflows only.
    Megaflows,
    /// No megaflow is ever installed.
    None,
    /// Each is installed with its first frame.
    AtOnce,
}

const fn worker(name: &'static str, says: &'static str, rules: Rules, workload: Workload, cache: Cache) -> Stage {
    Stage { name, says, kind: Kind::Worker { rules, workload, cache, rings: false } }
}

const fn flows(flows: u32, vary: Vary, order: Order) -> Workload {
    Workload { flows, vary, order, ..Workload::PLAIN }
}

const ONE: Workload = Workload::PLAIN;
const NEW: Workload = flows(1, Vary::Ports, Order::New(1));

/// All stages.
pub const STAGES: &[Stage] = &[
    Stage { name: "extract", says: "the key is extracted", kind: Kind::Extract },
    Stage { name: "source", says: "the frame is made, and nothing done to it", kind: Kind::Source },
    worker("microflow", "a hit among one flow, one output", Rules::Ports, ONE, Cache::AsUsual),
    worker("microflow-1k", "a hit among 1,000 flows, one output", Rules::Ports, flows(1000, Vary::Ports, Order::InTurn), Cache::AsUsual),
    worker(
        "rewrite-1k",
        "a hit among 1,000 flows; addresses, TTL and DSCP are set",
        Rules::Pipeline,
        flows(1000, Vary::Services, Order::InTurn),
        Cache::AsUsual,
    ),
    worker(
        "megaflow-8",
        "found among megaflows with 8 masks",
        Rules::Masks(8),
        flows(1, Vary::Classes(8), Order::New(1)),
        Cache::Megaflows,
    ),
    worker(
        "megaflow-64",
        "found among megaflows with 64 masks",
        Rules::Masks(64),
        flows(1, Vary::Classes(64), Order::New(1)),
        Cache::Megaflows,
    ),
    worker("translate-1", "translated by one rule, nothing is cached", Rules::Ports, ONE, Cache::None),
    worker(
        "translate-10",
        "translated by ten tables, nothing is cached",
        Rules::Pipeline,
        flows(1000, Vary::Services, Order::InTurn),
        Cache::None,
    ),
    worker("unique", "every frame is of a new flow, translated and not admitted", Rules::Unique, NEW, Cache::AsUsual),
    worker("install", "the same, but each installs a megaflow, and the oldest go", Rules::Unique, NEW, Cache::AtOnce),
    Stage { name: "rings-64", says: "64 bytes from a guest's ring to another's, nothing between", kind: Kind::Rings(64) },
    Stage { name: "rings-1514", says: "the same with 1,514 bytes", kind: Kind::Rings(1514) },
    Stage {
        name: "switch-64",
        says: "64 bytes from a guest's ring through a worker to another's, one rule",
        kind: Kind::Worker { rules: Rules::Ports, workload: ONE, cache: Cache::AsUsual, rings: true },
    },
];

impl Stage {
    /// Prepares the stage. Each call of what is returned takes [`FRAMES`] frames through it.
    ///
    /// # Panics
    ///
    /// What is returned panics if frames do not take the way that the stage is about.
    pub fn prepare(self) -> Box<dyn FnMut()> {
        match self.kind {
            Kind::Source => {
                let (mut source, sink, mut batch) = (Source::new(&ONE), Sink, Batch::new());
                Box::new(move || {
                    source.serve(&mut batch, &mut |batch| {
                        std::hint::black_box(sink.transmit(Share::WHOLE, batch, &SLOTS));
                    });
                })
            }
            Kind::Extract => prepare_extract(),
            Kind::Rings(len) => {
                let (mut from, mut rx) = sending(len);
                let (mut to, mut tx) = receiving();
                let mut batch = Batch::new();
                Box::new(move || {
                    from.step();
                    to.step();
                    let mut transmitted = Transmitted::default();
                    rx.serve(&mut batch, &mut |batch| tx.transmit(batch, &SLOTS, &mut transmitted));
                    assert_eq!(transmitted.frames, FRAMES as u64);
                })
            }
            Kind::Worker { rules, workload, cache, rings: false } => {
                let mut loaded = Loaded::new(rules, cache, Arc::new(Sink));
                loaded.worker.add_input(PortNo(1), Box::new(Source::new(&workload)));
                Box::new(move || loaded.breathe())
            }
            Kind::Worker { rules, workload, cache, rings: true } => {
                let (mut from, rx) = sending(workload.size);
                let (mut to, tx) = receiving();
                let mut loaded = Loaded::new(rules, cache, Arc::new(OneRing(Mutex::new(tx))));
                loaded.worker.add_input(PortNo(1), Box::new(rx));
                Box::new(move || {
                    from.step();
                    to.step();
                    loaded.breathe();
                })
            }
        }
    }
}

const SLOTS: [u16; FRAMES] = {
    let mut slots = [0; FRAMES];
    let mut at = 0;
    while at < FRAMES {
        slots[at] = at as u16;
        at += 1;
    }
    slots
};

fn prepare_extract() -> Box<dyn FnMut()> {
    let workload = flows(1000, Vary::Services, Order::InTurn);
    let (template, mut flows) = (Template::new(&workload, Direction::Forth), Flows::new(&workload, Direction::Forth));
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|_| {
            let mut frame = template.frame.clone();
            frame[FLOW_AT..FLOW_AT + 16].copy_from_slice(&flows.next_flow());
            frame
        })
        .collect();
    Box::new(move || {
        for frame in &frames {
            let mut key = FlowKey::ZERO;
            std::hint::black_box(extract(frame, frame.len(), PortNo(1), &mut key));
            std::hint::black_box(&key);
        }
    })
}

/// A port that makes frames.
struct Source {
    template: Template,
    flows: Flows,
}

impl Source {
    fn new(workload: &Workload) -> Self {
        Self { template: Template::new(workload, Direction::Forth), flows: Flows::new(workload, Direction::Forth) }
    }
}

impl RxQueue for Source {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        for _ in 0..FRAMES {
            self.template.frame[FLOW_AT..FLOW_AT + 16].copy_from_slice(&self.flows.next_flow());
            batch.push_bytes(PortNo(1), Offload::default(), &self.template.frame);
        }
        consume(batch);
        batch.clear();
        FRAMES
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn disarm(&mut self) {}
}

/// A port that takes all.
struct Sink;

impl Output for Sink {
    fn transmit(&self, _: Share, batch: &Batch, slots: &[u16]) -> Transmitted {
        let mut transmitted = Transmitted::default();
        slots.iter().for_each(|slot| transmitted.sent(batch.frame(*slot).len()));
        transmitted
    }
}

/// A guest's receive queue.
struct OneRing(Mutex<TxRing>);

impl Output for OneRing {
    fn transmit(&self, _: Share, batch: &Batch, slots: &[u16]) -> Transmitted {
        let mut transmitted = Transmitted::default();
        self.0.lock().expect("no holder panics").transmit(batch, slots, &mut transmitted);
        transmitted
    }
}

/// A worker with rules, and two ports.
struct Loaded {
    worker: Worker,
    now: u64,
}

impl Loaded {
    /// The time that passes with each breath, in nanoseconds.
    const BREATH: u64 = 10_000;
    /// How often the caches are looked after, in breaths.
    const MAINTAINED: u64 = 128;

    fn new(rules: Rules, cache: Cache, to: Arc<dyn Output>) -> Self {
        let mut tables = Tables::new(Arc::new(MacTable::new(1024, 1024)));
        for (no, output) in (1..).zip([Arc::new(DummyPort::new(PortNo(1))) as Arc<dyn Output>, to]) {
            let port = Port {
                no: PortNo(no),
                name: format!("vm{no}"),
                hw_addr: [0; 6],
                config: PortConfig::default(),
                link_up: true,
                speed: None,
                mtu: 1500,
                icmp_too_big: false,
                vlan: VlanMode::default(),
                output,
                counters: Arc::new(PortCounters::new(1)),
            };
            tables.add_port(port).expect("the port is new");
        }
        for rule in rules.text().lines() {
            tables.flow_mod(&rules::parse(rule), 0).unwrap_or_else(|error| panic!("{rule}: {error}"));
        }
        // Megaflows that are not used any more go soon, so that there is always room for more.
        let usual = CacheLimits { idle: 1000 * Self::BREATH, ..CacheLimits::default() };
        let limits = match cache {
            Cache::AsUsual => usual,
            Cache::Megaflows => CacheLimits { microflows: 8, ..usual },
            Cache::None => CacheLimits { megaflows: 0, ..usual },
            Cache::AtOnce => CacheLimits { admission: false, ..usual },
        };
        let settings = WorkerSettings { share: Share::WHOLE, seed: SEED, limits };
        Self { worker: Worker::new(settings, Arc::new(Published::new(tables)), Box::new(NoControllers)), now: 0 }
    }

    fn breathe(&mut self) {
        self.now += Self::BREATH;
        // A port that has caused translations may be passed over for a breath.
        while self.worker.breathe(self.now) == 0 {}
        if self.now.is_multiple_of(Self::MAINTAINED * Self::BREATH) {
            self.worker.maintain(self.now);
        }
    }
}

const SIZE: u16 = 256;
const STRIDE: u64 = 2048;

/// A guest's ring, all of whose buffers are given to the switch again and again.
struct Endless {
    ring: DriverRing,
    available: u16,
}

impl Endless {
    fn new(content: &[u8], len: u32, flags: u16) -> (Self, vhost_backend::ring::RingSetup) {
        let ram = Ram::new(&[(0, 4 << 20)]);
        let mut ring = DriverRing::new(&ram, 0, SIZE, true);
        for index in 0..SIZE {
            let address = (1 << 20) + u64::from(index) * STRIDE;
            ram.write(address, content);
            ring.write_descriptor(index, address, len, flags, 0);
            ring.make_available(index);
        }
        // No notification, or hardly one.
        ring.set_used_event(u16::MAX / 2);
        let setup = ring.setup(ram.map(), F_VERSION_1 | F_MRG_RXBUF);
        (Self { ring, available: 0 }, setup)
    }

    fn step(&mut self) {
        self.available = self.available.wrapping_add(FRAMES as u16);
        self.ring.set_available_index(self.available);
    }
}

fn sending(len: usize) -> (Endless, RxRing) {
    let template = Template::new(&Workload { size: len, ..ONE }, Direction::Forth);
    let buffer = [&template.header.to_bytes()[..], &template.frame].concat();
    let (ring, setup) = Endless::new(&buffer, (NetHeader::LEN + len) as u32, 0);
    (ring, RxRing::start(setup, PortNo(1)).expect("a ring"))
}

fn receiving() -> (Endless, TxRing) {
    let (ring, setup) = Endless::new(&[], STRIDE as u32, WRITE);
    (ring, TxRing::start(setup, None).expect("a ring"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_goes_on() {
        for stage in STAGES {
            let mut step = stage.prepare();
            (0..300).for_each(|_| step());
        }
    }

    /// What a worker counts per hundred frames of a stage: microflow hits, megaflow hits and upcalls.
    fn way(name: &str) -> [u64; 3] {
        let stage = STAGES.iter().find(|stage| stage.name == name).unwrap();
        let Kind::Worker { rules, workload, cache, .. } = stage.kind else { panic!("{name} has no worker") };
        let mut loaded = Loaded::new(rules, cache, Arc::new(Sink));
        loaded.worker.add_input(PortNo(1), Box::new(Source::new(&workload)));
        (0..200).for_each(|_| loaded.breathe());
        let before = loaded.worker.stats();
        (0..200).for_each(|_| loaded.breathe());
        let after = loaded.worker.stats();
        let share = |before: u64, after: u64| (after - before) * 100 / (200 * FRAMES as u64);
        [
            share(before.microflow_hits, after.microflow_hits),
            share(before.megaflow_hits, after.megaflow_hits),
            share(before.upcalls, after.upcalls),
        ]
    }

    #[test]
    fn frames_take_the_way_that_a_stage_is_about() {
        assert_eq!(way("microflow"), [100, 0, 0]);
        assert_eq!(way("rewrite-1k"), [100, 0, 0]);
        for name in ["megaflow-8", "megaflow-64"] {
            let [microflow, megaflow, upcalls] = way(name);
            assert!(megaflow >= 85 && upcalls == 0, "{name}: {microflow} {megaflow} {upcalls}");
        }
        for name in ["translate-1", "translate-10", "unique", "install"] {
            let [_, _, upcalls] = way(name);
            assert!(upcalls >= 99, "{name}: {upcalls}");
        }
    }
}

//! Whatever the caches hold, what is done to a frame is what the tables say: three switches - with caches, with caches that never have room, and the
//! linear reference - get the same random rules and frames, and must do the same, byte for byte and count for count.
//!
//! `VSWITCH_FRAMES` sets the number of frames (100,000 unless said otherwise), `VSWITCH_SEED` the seed of the first run.

use std::collections::HashMap;
use std::sync::Arc;

use datapath::action::{Controllers, ToController};
use datapath::cache::CacheLimits;
use datapath::drops::DropReason;
use datapath::frame::Batch;
use datapath::key::KEY_WORDS;
use datapath::port::{DummyPort, PortNo, Share};
use datapath::tables::{FlowMod, MacTable, Port, PortConfig, PortCounters, PortTotals, RuleFilter, Tables};
use datapath::translate::{Scratch, translate};
use datapath::worker::{Published, Worker, WorkerSettings};
use tests::generate::{PORTS, Subject, flow_mod, frame, group_mod, meter_mod, random_priority, setting, vlan_of};
use tests::linear::{LinearPort, LinearSwitch, RuleCounts, RuleId};
use tests::random::Random;

/// Takes all, and counts it.
struct CountingControllers(Arc<std::sync::atomic::AtomicUsize>);

impl Controllers for CountingControllers {
    fn give(&mut self, _: &Batch, _: u16, _: &ToController) -> Result<(), DropReason> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn learn(&mut self, _: PortNo, _: &Arc<FlowMod>) {}
}

/// A worker with its ports and tables.
struct World {
    draft: Tables,
    published: Arc<Published>,
    worker: Worker,
    ports: Vec<DummyPort>,
    to_controller: Arc<std::sync::atomic::AtomicUsize>,
    rule_counts: RuleCounts,
}

impl World {
    fn new(limits: CacheLimits) -> Self {
        let mut draft = Tables::new(Arc::new(MacTable::new(1024, 1024)));
        let ports: Vec<_> = (1..=PORTS).map(|number| DummyPort::new(PortNo(number))).collect();
        for (port, number) in ports.iter().zip(1..) {
            let port = Port {
                no: PortNo(number),
                name: format!("vm{number}"),
                hw_addr: [2, 0, 0, 0, 0xff, number as u8],
                config: PortConfig::default(),
                link_up: true,
                speed: None,
                mtu: 1500,
                icmp_too_big: false,
                vlan: vlan_of(number),
                output: Arc::new(port.clone()),
                counters: Arc::new(PortCounters::new(1)),
            };
            draft.add_port(port).expect("the port is new");
        }
        let published = Arc::new(Published::new(draft.clone()));
        let to_controller = Arc::default();
        let settings = WorkerSettings { share: Share::WHOLE, seed: 0x5eed, limits };
        let mut worker = Worker::new(settings, published.clone(), Box::new(CountingControllers(Arc::clone(&to_controller))));
        for (port, number) in ports.iter().zip(1..) {
            worker.add_input(PortNo(number), Box::new(port.clone()));
        }
        Self { draft, published, worker, ports, to_controller, rule_counts: RuleCounts::default() }
    }

    /// Carries a flow-mod out, if the tables take it.
    fn flow_mod(&mut self, flow_mod: &FlowMod) -> bool {
        self.change(|tables| tables.flow_mod(flow_mod, 0).is_ok())
    }

    /// Carries any change to the tables out, and says whether they took it.
    fn change(&mut self, change: impl FnOnce(&mut Tables) -> bool) -> bool {
        self.worker.settle();
        if !self.rule_counts.change(&mut self.draft, change) {
            return false;
        }
        self.published.publish(self.draft.clone());
        self.worker.take_up();
        true
    }

    /// The frames that each group, and each of its buckets, got.
    fn group_counts(&mut self) -> HashMap<(u32, Option<usize>), u64> {
        self.worker.settle();
        let counts = self.draft.groups().flat_map(|group| {
            let buckets = group.buckets.iter().enumerate().map(|(at, bucket)| ((group.id, Some(at)), bucket.counters.frames()));
            std::iter::once(((group.id, None), group.counters.frames())).chain(buckets).collect::<Vec<_>>()
        });
        counts.filter(|(_, frames)| *frames > 0).collect()
    }

    /// The frames that each meter measured, and those that were too many.
    fn meter_counts(&self) -> HashMap<u32, (u64, u64)> {
        self.draft.meters().map(|meter| (meter.id, (meter.frames(), meter.bands()[0].frames()))).collect()
    }

    /// Lets `frames` come in through `port`, and returns what came out of each port.
    fn forward(&mut self, port: u32, frames: &[Vec<u8>], room: &[usize], now: u64) -> Vec<Vec<Vec<u8>>> {
        self.ports.iter().zip(room).for_each(|(port, room)| port.set_room(*room));
        frames.iter().for_each(|frame| self.ports[port as usize - 1].offer(frame));
        while self.worker.breathe(now) > 0 || self.worker.arm() {}
        self.ports.iter().map(DummyPort::take).collect()
    }

    fn totals(&self) -> Vec<PortTotals> {
        (1..=PORTS).map(|port| self.draft.ports().get(PortNo(port)).expect("it is there").counters.totals()).collect()
    }

    /// What each rule that ever was counted.
    fn counts(&mut self) -> HashMap<RuleId, (u64, u64)> {
        self.worker.settle();
        self.rule_counts.counts(&self.draft)
    }

    /// Megaflows are disjoint, and no bit outside a mask matters.
    fn check_megaflows(&mut self, random: &mut Random, now: u64) {
        // Whatever is stale now is translated again, or goes.
        for _ in 0..4 {
            self.worker.maintain(now);
        }
        let flows = self.worker.flows();
        let mut scratch = Scratch::default();
        for (i, flow) in flows.iter().enumerate() {
            for other in &flows[..i] {
                let both = flow.mask.masked(&other.mask);
                assert!(!flow.key.agrees(&other.key, &both), "megaflows overlap:\n{flow:?}\n{other:?}");
            }
        }
        for _ in 0..flows.len().min(20) {
            let flow = random.one_of(&flows);
            let says = translate(&self.draft, &flow.key, now, &mut scratch, false);
            assert_eq!((says.mask, &says.actions), (flow.mask, &flow.actions), "a megaflow says what the tables say");
            for bit in 0..KEY_WORDS * 64 {
                if flow.mask.0[bit / 64] >> (bit % 64) & 1 == 0 {
                    let mut key = flow.key;
                    key.0[bit / 64] ^= 1 << (bit % 64);
                    let flipped = translate(&self.draft, &key, now, &mut scratch, false);
                    assert_eq!(
                        (flipped.mask, &flipped.actions),
                        (flow.mask, &flow.actions),
                        "bit {} of word {} matters",
                        bit % 64,
                        bit / 64
                    );
                }
            }
        }
    }
}

/// Changes groups, or lets a port that some may watch go down or up.
fn change_groups(random: &mut Random, cached: &mut World, uncached: &mut World, reference: &mut LinearSwitch) {
    let number = PortNo(random.below(u64::from(PORTS)) as u32 + 1);
    let up = random.once_in(2);
    for world in [&mut *cached, &mut *uncached] {
        assert!(world.change(|tables| tables.set_link(number, up).is_ok()));
    }
    reference.port(number).link_up = up;
    for _ in 0..1 + random.below(4) {
        let change = group_mod(random);
        let done = cached.change(|tables| tables.group_mod(&change, 0).is_ok());
        assert_eq!(done, uncached.change(|tables| tables.group_mod(&change, 0).is_ok()));
        if done {
            reference.group_counts.retain(|(group, _), _| *group != change.group);
        }
    }
    reference.groups = cached.draft.groups().cloned().collect();
    reference.rules = cached.draft.rules(&RuleFilter::ALL).cloned().collect();
}

/// Changes meters.
fn change_meters(random: &mut Random, subject: Subject, cached: &mut World, uncached: &mut World, reference: &mut LinearSwitch) {
    let counts = reference.meter_counts();
    assert_eq!(cached.meter_counts(), counts, "meters count each frame that comes to them");
    assert_eq!(uncached.meter_counts(), counts, "meters count each frame that comes to them");
    for _ in 0..1 + random.below(3) {
        let change = meter_mod(random, subject);
        let done = cached.change(|tables| tables.meter_mod(&change, 0).is_ok());
        assert_eq!(done, uncached.change(|tables| tables.meter_mod(&change, 0).is_ok()));
        if done {
            reference.meter_mod(&change);
        }
    }
    reference.rules = cached.draft.rules(&RuleFilter::ALL).cloned().collect();
}

/// One history of rules and frames. Returns the number of frames.
fn history(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let limits = CacheLimits {
        admission: random.once_in(2),
        microflows: 1 << random.below(9),
        idle: random.one_of(&[50, u64::MAX / 2]),
        ..CacheLimits::default()
    };
    let mut cached = World::new(limits);
    let mut uncached = World::new(CacheLimits { megaflows: 0, ..limits });
    let subject = random.one_of(&[Subject::Usual, Subject::All]);
    let mut reference = LinearSwitch::new((1..=PORTS).map(|no| LinearPort::new(PortNo(no), vlan_of(no))).collect());
    let (mut frames, mut now, mut priority) = (0, 0, 0);
    // A table-miss rule in most histories, so that frames get further than the first table.
    let mut pool: Vec<_> = (0..40).map(|_| frame(&mut random, subject)).collect();
    for round in 0..60 {
        if round == 0 || random.once_in(6) {
            change_meters(&mut random, subject, &mut cached, &mut uncached, &mut reference);
        }
        for _ in 0..if round == 0 { 25 } else { random.below(3) } {
            priority += 1;
            let flow_mod = flow_mod(&mut random, subject, &reference.rules, random_priority(priority));
            assert_eq!(cached.flow_mod(&flow_mod), uncached.flow_mod(&flow_mod));
            reference.rules = cached.draft.rules(&RuleFilter::ALL).cloned().collect();
        }
        if subject == Subject::All && (round == 0 || random.once_in(4)) {
            change_groups(&mut random, &mut cached, &mut uncached, &mut reference);
        }
        let port = random.below(u64::from(PORTS)) as u32 + 1;
        let room: Vec<_> = (0..PORTS).map(|_| random.one_of(&[usize::MAX, usize::MAX, 7])).collect();
        let replaced = random.below(pool.len() as u64) as usize;
        pool[replaced] = frame(&mut random, subject);
        // Frames of a flow mostly come one after the other.
        let mut current = random.one_of(&pool);
        let batch: Vec<_> = (0..random.below(40))
            .map(|_| {
                if random.below(3) > 0 {
                    current = random.one_of(&pool);
                }
                current.clone()
            })
            .collect();
        frames += batch.len();

        let mut expected = vec![Vec::new(); PORTS as usize];
        let mut controller = 0;
        for frame in &batch {
            let verdict = reference.forward(PortNo(port), frame);
            controller += verdict.to_controller;
            for (to, bytes) in verdict.sent {
                let to = to.0 as usize - 1;
                if expected[to].len() < room[to] {
                    expected[to].push(bytes);
                }
            }
        }
        for (name, world) in [("cached", &mut cached), ("uncached", &mut uncached)] {
            let sent = world.forward(port, &batch, &room, now);
            for (no, (sent, expected)) in sent.iter().zip(&expected).enumerate() {
                let heads =
                    |frames: &[Vec<u8>]| frames.iter().map(|frame| format!("{:02x?}", &frame[..frame.len().min(64)])).collect::<Vec<_>>();
                assert!(
                    sent == expected,
                    "seed {seed}, round {round}: to port {} the {name} switch sent\n{:#?}\nand not\n{:#?}",
                    no + 1,
                    heads(sent),
                    heads(expected)
                );
            }
            let given = world.to_controller.swap(0, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(given, controller, "seed {seed}, round {round}: frames the {name} switch gave to controllers");
        }
        now += random.below(30);
        if random.once_in(10) {
            cached.check_megaflows(&mut random, now);
        }
    }
    assert_eq!(cached.totals(), uncached.totals(), "seed {seed}");
    for totals in cached.totals() {
        assert_eq!(totals.rx_frames, totals.forwarded + totals.to_controller + totals.dropped(), "seed {seed}: each frame has one outcome");
    }
    let counts = cached.counts();
    assert_eq!(counts, uncached.counts(), "seed {seed}: rules count the same");
    assert_eq!(counts, reference.counts, "seed {seed}: rules count each frame once for each time it matched");
    let groups = cached.group_counts();
    assert_eq!(groups, uncached.group_counts(), "seed {seed}: groups count the same");
    assert_eq!(groups, reference.group_counts, "seed {seed}: groups count each frame that they and their buckets get");
    assert_eq!(cached.worker.stats().audit_mismatches, 0);
    frames
}

#[test]
fn caches_change_nothing() {
    let wanted = setting("VSWITCH_FRAMES", 100_000) as usize;
    let mut seed = setting("VSWITCH_SEED", 1);
    let (mut frames, mut histories) = (0, 0);
    while frames < wanted {
        frames += history(seed);
        seed += 1;
        histories += 1;
    }
    println!("{frames} frames in {histories} histories");
}

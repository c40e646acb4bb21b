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
use datapath::key::{Field, FieldRange, KEY_WORDS, Match};
use datapath::port::{DummyPort, PortNo};
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, FlowModCommand, MacTable, Port, PortConfig, PortCounters, PortTotals, Rule, RuleFilter, Tables, VlanMode};
use datapath::translate::{Scratch, translate};
use datapath::worker::{Published, Worker, WorkerSettings};
use tests::linear::{LinearPort, LinearSwitch, RuleId, rule_id};
use tests::random::Random;

const PORTS: u32 = 5;

/// Takes all, and counts it.
struct CountingControllers(Arc<std::sync::atomic::AtomicUsize>);

impl Controllers for CountingControllers {
    fn give(&mut self, _: &Batch, _: u16, _: &ToController) -> Result<(), DropReason> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

/// A worker with its ports and tables.
struct World {
    draft: Tables,
    published: Arc<Published>,
    worker: Worker,
    ports: Vec<DummyPort>,
    to_controller: Arc<std::sync::atomic::AtomicUsize>,
    /// What rules that are gone had counted.
    gone: HashMap<RuleId, (u64, u64)>,
}

fn vlan_of(port: u32) -> VlanMode {
    match port {
        1 => VlanMode::Access(10),
        2 => VlanMode::Trunk { vlans: (10..=20).collect(), native: None },
        3 => VlanMode::Trunk { vlans: (10..=30).collect(), native: Some(20) },
        _ => VlanMode::default(),
    }
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
                mtu: 1500,
                vlan: vlan_of(number),
                output: Arc::new(port.clone()),
                counters: Arc::new(PortCounters::new(1)),
            };
            draft.add_port(port).expect("the port is new");
        }
        let published = Arc::new(Published::new(draft.clone()));
        let to_controller = Arc::default();
        let settings = WorkerSettings { number: 0, seed: 0x5eed, limits };
        let mut worker = Worker::new(settings, published.clone(), Box::new(CountingControllers(Arc::clone(&to_controller))));
        for (port, number) in ports.iter().zip(1..) {
            worker.add_input(PortNo(number), Box::new(port.clone()));
        }
        Self { draft, published, worker, ports, to_controller, gone: HashMap::new() }
    }

    /// Carries a flow-mod out, if the tables take it.
    fn flow_mod(&mut self, flow_mod: &FlowMod) -> bool {
        self.worker.settle();
        let before: Vec<_> = self.draft.rules(&RuleFilter::ALL).cloned().collect();
        if self.draft.flow_mod(flow_mod, 0).is_err() {
            return false;
        }
        self.published.publish(self.draft.clone());
        self.worker.take_up();
        let after: Vec<_> = self.draft.rules(&RuleFilter::ALL).cloned().collect();
        for rule in before {
            if !after.iter().any(|kept| Arc::ptr_eq(&kept.counters, &rule.counters)) {
                let gone = self.gone.entry(rule_id(&rule)).or_default();
                *gone = (gone.0 + rule.counters.frames(), gone.1 + rule.counters.bytes());
            }
        }
        true
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
        let mut counts = self.gone.clone();
        for rule in self.draft.rules(&RuleFilter::ALL) {
            let count = counts.entry(rule_id(rule)).or_default();
            *count = (count.0 + rule.counters.frames(), count.1 + rule.counters.bytes());
        }
        counts.retain(|_, count| *count != (0, 0));
        counts
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

const MACS: [u64; 6] = [0x0200_0000_0001, 0x0200_0000_0002, 0x0200_0000_0003, 0xffff_ffff_ffff, 0x0100_5e00_0001, 0x0180_c200_000e];
const ADDRESSES: [[u8; 4]; 4] = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 1, 1], [192, 168, 0, 1]];
const TRANSPORT_PORTS: [u16; 4] = [53, 80, 1000, 65535];
const VLANS: [u16; 4] = [0, 10, 20, 30];

fn mac(random: &mut Random, choices: usize) -> [u8; 6] {
    let bytes = random.one_of(&MACS[..choices]).to_be_bytes();
    bytes[2..].try_into().expect("six bytes")
}

fn frame(random: &mut Random) -> Vec<u8> {
    use etherparse::{PacketBuilder, VlanId};
    let ethernet = PacketBuilder::ethernet2(mac(random, 3), mac(random, MACS.len()));
    let payload = vec![random.number() as u8; random.one_of(&[0, 5, 20, 300])];
    let (source, destination) = (random.one_of(&ADDRESSES), random.one_of(&ADDRESSES));
    let (from, to) = (random.one_of(&TRANSPORT_PORTS), random.one_of(&TRANSPORT_PORTS));
    let ttl = random.one_of(&[1, 2, 64]);
    let v6 = |address: [u8; 4]| std::array::from_fn(|i| if i < 12 { 0xfd } else { address[i - 12] });
    let mut frame = Vec::new();
    // The builder's steps differ in type with each protocol.
    macro_rules! upper {
        ($lower:expr) => {
            match random.below(4) {
                0 => $lower.ipv4(source, destination, ttl).udp(from, to).write(&mut frame, &payload),
                1 => $lower.ipv4(source, destination, ttl).tcp(from, to, 1, 2).write(&mut frame, &payload),
                2 => $lower.ipv4(source, destination, ttl).icmpv4_echo_request(1, 2).write(&mut frame, &payload),
                _ => $lower.ipv6(v6(source), v6(destination), ttl).udp(from, to).write(&mut frame, &payload),
            }
        };
    }
    let written = if random.once_in(2) {
        upper!(ethernet)
    } else {
        upper!(ethernet.single_vlan(VlanId::try_new(random.one_of(&VLANS)).expect("a VLAN id")))
    };
    written.expect("a vector takes all");
    frame
}

fn matching(random: &mut Random) -> Match {
    let mut matching = Match::ANY;
    if random.once_in(3) {
        matching = matching.with(Field::InPort, u128::from(random.below(u64::from(PORTS)) + 1));
    }
    if random.once_in(4) {
        matching = matching.with_masked(Field::EthDst, random.one_of(&MACS).into(), random.one_of(&[u128::MAX, 0x0100_0000_0000, 3]));
    }
    if random.once_in(6) {
        matching = matching.with(Field::EthSrc, random.one_of(&MACS).into());
    }
    match random.below(8) {
        0 => matching = matching.with(Field::VlanVid, 0),
        1 => matching = matching.with(Field::VlanVid, 0x1000 | u128::from(random.one_of(&VLANS))),
        2 => matching = matching.with_masked(Field::VlanVid, 0x1000, 0x1000),
        _ => {}
    }
    if random.once_in(5) {
        matching = matching.with_masked(Field::Metadata, random.below(4).into(), random.one_of(&[1, 3, u128::MAX]));
    }
    if random.once_in(5) {
        matching = matching.with(Field::Reg0, random.below(3).into());
    }
    let address = |random: &mut Random| u128::from(u32::from_be_bytes(random.one_of(&ADDRESSES)));
    let prefix = |random: &mut Random| u128::from(u32::MAX << random.one_of(&[0, 8, 16, 31]));
    match random.below(4) {
        0 => {
            matching = matching.with(Field::EthType, 0x0800);
            if random.once_in(2) {
                let mask = prefix(random);
                matching = matching.with_masked(Field::Ipv4Dst, address(random) & mask, mask);
            }
            if random.once_in(3) {
                let mask = prefix(random);
                matching = matching.with_masked(Field::Ipv4Src, address(random) & mask, mask);
            }
            if random.once_in(2) {
                matching = matching.with(Field::IpProto, 17).with(Field::UdpDst, random.one_of(&TRANSPORT_PORTS).into());
            }
        }
        1 => {
            matching =
                matching.with(Field::EthType, 0x0800).with(Field::IpProto, 6).with(Field::TcpSrc, random.one_of(&TRANSPORT_PORTS).into())
        }
        2 if random.once_in(2) => matching = matching.with(Field::EthType, 0x86dd),
        _ => {}
    }
    matching
}

const TABLES: u8 = 4;

fn action(random: &mut Random, table: u8) -> OfAction {
    let last = table == TABLES - 1;
    let to = |port| OfAction::Output { port, max_len: 0xffff };
    let set = |field: Field, value: u128| OfAction::SetField { field, value, mask: field.ones() };
    match random.below(16) {
        0..4 => to(PortNo(random.below(u64::from(PORTS)) as u32 + 1)),
        4 => to(PortNo::NORMAL),
        5 => to(random.one_of(&[PortNo::FLOOD, PortNo::ALL, PortNo::IN_PORT, PortNo::CONTROLLER])),
        6 => set(random.one_of(&[Field::EthDst, Field::EthSrc]), random.one_of(&MACS).into()),
        7 => set(Field::VlanVid, 0x1000 | u128::from(random.one_of(&VLANS))),
        8 => set(random.one_of(&[Field::Ipv4Src, Field::Ipv4Dst]), u32::from_be_bytes(random.one_of(&ADDRESSES)).into()),
        9 => set(random.one_of(&[Field::UdpDst, Field::UdpSrc, Field::TcpDst]), random.one_of(&TRANSPORT_PORTS).into()),
        10 => set(random.one_of(&[Field::IpDscp, Field::VlanPcp]), random.below(8).into()),
        11 => {
            let field = random.one_of(&[Field::Reg0, Field::Metadata]);
            OfAction::SetField { field, value: random.below(4).into(), mask: random.one_of(&[1, 3]) }
        }
        12 => {
            let source =
                FieldRange { field: random.one_of(&[Field::Ipv4Dst, Field::UdpDst, Field::InPort, Field::EthSrc]), offset: 0, bits: 2 };
            OfAction::Move { source, destination: FieldRange { field: Field::Reg0, offset: 0, bits: 2 } }
        }
        13 => OfAction::DecNwTtl,
        14 => OfAction::PopVlan,
        15 if !last => {
            let port = random.one_of(&[PortNo::IN_PORT, PortNo::IN_PORT, PortNo(2)]);
            OfAction::Resubmit { port, table: Some(table + 1 + random.below(u64::from(TABLES - table - 1)) as u8) }
        }
        _ => to(PortNo(1)),
    }
}

/// No two rules have the same priority: which of two equals wins is nobody's promise.
fn flow_mod(random: &mut Random, rules: &[Arc<Rule>], priority: u16) -> FlowMod {
    let table = random.one_of(&[0, 0, 1, 2, 3]);
    let last = table == TABLES - 1;
    let mut apply: Vec<_> = (0..random.below(4)).map(|_| action(random, table)).collect();
    // Only two tags are parsed, and frames may come with one: a tag that is pushed is popped before the next table, or goes on last.
    let push = OfAction::PushVlan(random.one_of(&[0x8100, 0x88a8]));
    if random.once_in(6) {
        apply.extend([
            push.clone(),
            OfAction::Output { port: PortNo(random.below(u64::from(PORTS)) as u32 + 1), max_len: 0 },
            OfAction::PopVlan,
        ]);
    }
    let mut write = Vec::new();
    if random.once_in(3) {
        write.push(OfAction::Output { port: PortNo(random.below(u64::from(PORTS)) as u32 + 1), max_len: 0 });
    }
    if random.once_in(6) {
        write.push(OfAction::SetField { field: Field::EthSrc, value: MACS[0].into(), mask: Field::EthSrc.ones() });
    }
    if random.once_in(8) {
        write.push(OfAction::DecNwTtl);
    }
    if random.once_in(8) {
        write.push(push);
    }
    let instructions = Instructions {
        meter: None,
        apply,
        clear: random.once_in(10),
        write,
        metadata: random.once_in(4).then(|| (random.below(4), 3)),
        goto: (!last && random.once_in(2)).then(|| table + 1 + random.below(u64::from(TABLES - table - 1)) as u8),
    };
    let fresh = FlowMod { table, matching: matching(random), priority, instructions, ..FlowMod::default() };
    if rules.is_empty() || random.once_in(2) {
        return fresh;
    }
    let old = random.one_of(rules);
    let command = random.one_of(&[
        FlowModCommand::Add,
        FlowModCommand::Modify,
        FlowModCommand::ModifyStrict,
        FlowModCommand::Delete,
        FlowModCommand::DeleteStrict,
        FlowModCommand::DeleteStrict,
    ]);
    // The instructions were made for `table`.
    let instructions = if old.table == table { fresh.instructions } else { old.instructions.clone() };
    FlowMod { command, table: old.table, matching: old.matching.expand(), priority: old.priority, instructions, ..fresh }
}

/// Scatters 0, 1, 2, ... over all priorities, without meeting one twice.
fn random_priority(count: u16) -> u16 {
    count.wrapping_mul(40503)
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
    let mut reference = LinearSwitch::new((1..=PORTS).map(|no| LinearPort { no: PortNo(no), vlan: vlan_of(no) }).collect());
    let (mut frames, mut now, mut priority) = (0, 0, 0);
    // A table-miss rule in most histories, so that frames get further than the first table.
    let mut pool: Vec<_> = (0..40).map(|_| frame(&mut random)).collect();
    for round in 0..60 {
        for _ in 0..if round == 0 { 25 } else { random.below(3) } {
            priority += 1;
            let flow_mod = flow_mod(&mut random, &reference.rules, random_priority(priority));
            assert_eq!(cached.flow_mod(&flow_mod), uncached.flow_mod(&flow_mod));
            reference.rules = cached.draft.rules(&RuleFilter::ALL).cloned().collect();
        }
        let port = random.below(u64::from(PORTS)) as u32 + 1;
        let room: Vec<_> = (0..PORTS).map(|_| random.one_of(&[usize::MAX, usize::MAX, 7])).collect();
        let replaced = random.below(pool.len() as u64) as usize;
        pool[replaced] = frame(&mut random);
        let batch: Vec<_> = (0..random.below(40)).map(|_| random.one_of(&pool)).collect();
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
                assert_eq!(sent, expected, "seed {seed}, round {round}: the {name} switch sent something else to port {}", no + 1);
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
    assert_eq!(cached.worker.stats().audit_mismatches, 0);
    frames
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number")))
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

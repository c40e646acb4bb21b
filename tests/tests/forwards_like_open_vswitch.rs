//! Open vSwitch's userspace datapath, given the same rules and frames, sends the same frames through the same ports.
//!
//! The rules are made of the frames that are to meet them ([`tests::meet`]). They go to Open vSwitch as OpenFlow messages; here they go to a worker without
//! threads. Each frame comes twice, so that it meets both switches' caches, and what a rule learns from the first the second meets.
//!
//! `VSWITCH_RULE_SETS` sets the number of rule sets (12 unless said otherwise), each with 20 frames; `VSWITCH_SEED` the seed of the first.

use std::collections::BTreeMap;

use datapath::cache::CacheLimits;
use datapath::tables::{FlowMod, FlowModCommand, RuleFilter, VlanMode};
use tests::generate::{random_priority, setting};
use tests::meet::{self, Met, PORTS, Rules, TABLES, frame};
use tests::open_vswitch::OpenVSwitch;
use tests::openflow::Client;
use tests::process::{PATIENCE, until};
use tests::random::Random;
use tests::small_switch::SmallSwitch;
use vswitch::openflow::wire::{FlowModMessage, Message, NO_BUFFER};

const FRAMES: usize = 20;
const RULES: u16 = 30;
/// Frames with this Ethernet type go to the last port, whatever the other rules say: what came before them has been forwarded.
const LAST: [u8; 2] = [0xbe, 0xef];
const NAMES: [&str; 6] = ["p1", "p2", "p3", "p4", "p5", "p6"];

/// Open vSwitch, and how many frames each of its ports had sent when that was asked last.
struct Theirs {
    switch: OpenVSwitch,
    openflow: Client,
    seen: [usize; NAMES.len()],
    lasts: u32,
}

fn message(flow_mod: FlowMod) -> Message {
    Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER }))
}

impl Theirs {
    fn start() -> Option<Self> {
        let switch = OpenVSwitch::start("00000000000000ab", &NAMES)?;
        // So that it sees two VLAN tags, as we do.
        switch.configure(&["set", "Open_vSwitch", ".", "other_config:vlan-limit=2"]);
        let openflow = Client::connect(&switch.socket());
        Some(Self { switch, openflow, seen: [0; NAMES.len()], lasts: 0 })
    }

    /// Lets a frame come in through port 1, and returns what came out of each port.
    fn forward(&mut self, frame: &[u8]) -> Vec<Vec<Vec<u8>>> {
        self.lasts += 1;
        let last = [&[2u8; 12][..], &LAST, &self.lasts.to_be_bytes(), &[0; 60]].concat();
        self.switch.forget();
        self.switch.receive_all(NAMES[0], &[frame, &last]);
        until(PATIENCE, "the last frame comes out", || self.switch.sent(NAMES[5]).last().is_some_and(|frame| *frame == last).then_some(()));
        let sent = NAMES.map(|name| self.switch.sent(name));
        let new = sent.iter().zip(&mut self.seen).map(|(sent, seen)| sent[std::mem::replace(seen, sent.len())..].to_vec());
        let mut new: Vec<_> = new.collect();
        new[5].pop();
        new
    }
}

/// Gives both switches the rules, of which both refuse the same.
fn add_rules(seed: u64, ours: &mut SmallSwitch, theirs: &mut Theirs, rules: &[FlowMod]) {
    let refused: BTreeMap<_, _> =
        theirs.openflow.try_carry_out(&rules.iter().cloned().map(message).collect::<Vec<_>>()).into_iter().collect();
    for (at, rule) in rules.iter().enumerate() {
        let result = ours.tables.flow_mod(rule, 0);
        assert_eq!(result.is_err(), refused.contains_key(&at), "seed {seed}: {rule:?}: {result:?}, {:?}", refused.get(&at));
    }
}

/// One rule set and its frames. Returns how many frames there were, and how many came out.
fn rule_set(seed: u64, theirs: &mut Theirs) -> (usize, usize) {
    let mut random = Random::new(seed);
    let limits = CacheLimits { admission: random.once_in(2), ..CacheLimits::default() };
    let mut ours = SmallSwitch::new(PORTS + 1, limits, |_| VlanMode::default());
    let (pushes, exits) = (random.once_in(2), random.once_in(4));
    let met: Vec<_> = (0..FRAMES).map(|_| frame(&mut random, if pushes { 1 } else { 2 })).collect();
    let mut rules = Rules { met: &met, pushes, exits, random: &mut random };

    let all = FlowMod { command: FlowModCommand::Delete, table: RuleFilter::ALL_TABLES, ..FlowMod::default() };
    theirs.openflow.carry_out(vec![message(all), Message::GroupMod(meet::no_groups())]);
    theirs.switch.control(&["fdb/flush"]);
    for group in rules.groups() {
        let taken = ours.tables.group_mod(&group, 0).is_ok();
        let refused = theirs.openflow.try_carry_out(&[Message::GroupMod(group.clone())]);
        assert_eq!(taken, refused.is_empty(), "seed {seed}: {group:?}: {refused:?}");
    }
    let fixed = std::iter::once(meet::last_rule(LAST)).chain((0..TABLES).map(meet::miss_rule));
    let rules: Vec<_> = fixed.chain((0..RULES).map(|n| rules.rule(random_priority(n) | 8))).collect();
    add_rules(seed, &mut ours, theirs, &rules);
    ours.publish();

    let mut sent = 0;
    for round in 0..2 {
        for Met { frame, .. } in &met {
            let expected = theirs.forward(frame);
            let found = ours.forward(1, std::slice::from_ref(frame), round);
            ours.learn(round);
            sent += usize::from(found.iter().any(|frames| !frames.is_empty()));
            if found != expected {
                let show = |all: &[Vec<Vec<u8>>]| {
                    let frames = all.iter().zip(NAMES).flat_map(|(frames, port)| frames.iter().map(move |frame| (port, frame)));
                    frames.map(|(port, frame)| format!("  {port} {frame:02x?}\n")).collect::<String>()
                };
                for rule in &rules {
                    eprintln!("table={},priority={},{} {:?}", rule.table, rule.priority, rule.matching, rule.instructions);
                }
                panic!("seed {seed}, round {round}, {frame:02x?}\nours\n{}theirs\n{}", show(&found), show(&expected));
            }
        }
    }
    (2 * FRAMES, sent)
}

#[test]
fn frames_go_where_open_vswitch_sends_them() {
    let Some(mut theirs) = Theirs::start() else { return };
    let (sets, first) = (setting("VSWITCH_RULE_SETS", 12), setting("VSWITCH_SEED", 1));
    let (mut frames, mut forwarded) = (0, 0);
    for seed in first..first + sets {
        let (came, sent) = rule_set(seed, &mut theirs);
        (frames, forwarded) = (frames + came, forwarded + sent);
    }
    println!("{frames} frames in {sets} rule sets, {forwarded} of them forwarded");
}

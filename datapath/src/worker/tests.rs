use super::*;
use crate::action::NoControllers;
use crate::key::{Field, Match};
use crate::port::DummyPort;
use crate::tables::instruction::{CONTROLLER_WHOLE, Instructions, OfAction};
use crate::tables::{FlowMod, MacTable, Port, PortConfig, PortCounters, RuleFilter, RuleFlags, VlanMode, VlanSet};

/// A worker with `count` ports, and the tables it works by.
struct Rig {
    published: Arc<Published>,
    draft: Tables,
    worker: Worker,
    ports: Vec<DummyPort>,
}

impl Rig {
    fn new(count: u32, limits: CacheLimits) -> Self {
        let mut draft = Tables::new(Arc::new(MacTable::new(1024, 1024)));
        let ports: Vec<_> = (1..=count).map(|number| DummyPort::new(PortNo(number))).collect();
        for (port, number) in ports.iter().zip(1..) {
            let port = Port {
                no: PortNo(number),
                name: format!("vm{number}"),
                hw_addr: [2, 0, 0, 0, 0, number as u8],
                config: PortConfig::default(),
                link_up: true,
                speed: None,
                mtu: 1500,
                icmp_too_big: false,
                vlan: VlanMode::Trunk { vlans: VlanSet::all(), native: None },
                output: Arc::new(port.clone()),
                counters: Arc::new(PortCounters::new(1)),
            };
            draft.add_port(port).expect("the port is new");
        }
        let published = Arc::new(Published::new(draft.clone()));
        let settings = WorkerSettings { share: Share::WHOLE, seed: 1, limits };
        let mut worker = Worker::new(settings, published.clone(), Box::new(NoControllers));
        for (port, number) in ports.iter().zip(1..) {
            worker.add_input(PortNo(number), Box::new(port.clone()));
        }
        Self { published, draft, worker, ports }
    }

    fn rule(&mut self, matching: Match, apply: Vec<OfAction>) -> Arc<crate::tables::Rule> {
        let instructions = Instructions { apply: apply.into(), ..Instructions::default() };
        let flow_mod = FlowMod { matching, instructions, flags: RuleFlags::RESET_COUNTS, ..FlowMod::default() };
        self.draft.flow_mod(&flow_mod, 0).expect("a good rule");
        self.published.publish(self.draft.clone());
        let filter = RuleFilter { matching, priority: Some(flow_mod.priority), ..RuleFilter::ALL };
        self.draft.rules(&filter).next().expect("the rule was added").clone()
    }
}

fn output(port: u32) -> Vec<OfAction> {
    vec![OfAction::Output { port: PortNo(port), max_len: CONTROLLER_WHOLE }]
}

fn udp(source_port: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(source_port, 2000);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 20]).expect("a vector takes all");
    frame
}

#[test]
fn a_flow_is_translated_twice_and_then_cached() {
    let mut rig = Rig::new(2, CacheLimits::default());
    let rule = rig.rule(Match::ANY.with(Field::InPort, 1), output(2));
    for now in 0..4 {
        rig.ports[0].offer(&udp(1));
        assert_eq!(rig.worker.breathe(now), 1);
    }
    let stats = rig.worker.stats();
    assert_eq!((stats.frames, stats.upcalls, stats.microflow_hits, stats.megaflows), (4, 2, 2, 1));
    // Another flow of the same megaflow is the same microflow: nobody looks at what tells the two apart.
    rig.ports[0].offer(&udp(2));
    rig.worker.breathe(5);
    assert_eq!(rig.worker.stats().microflow_hits, 3);
    assert_eq!(rig.ports[1].take().len(), 5);
    rig.worker.settle();
    assert_eq!((rule.counters.frames(), rule.counters.bytes(), rule.counters.used()), (5, 5 * 62, 5));
}

#[test]
fn a_new_epoch_holds_from_the_next_breath() {
    let mut rig = Rig::new(3, CacheLimits { admission: false, ..CacheLimits::default() });
    let first = rig.rule(Match::ANY.with(Field::InPort, 1), output(2));
    for _ in 0..2 {
        rig.ports[0].offer(&udp(1));
        rig.worker.breathe(0);
    }
    let second = rig.rule(Match::ANY.with(Field::InPort, 1), output(3));
    rig.ports[0].offer(&udp(1));
    rig.worker.breathe(0);
    assert_eq!(rig.worker.acknowledged().load(Ordering::Acquire), rig.draft.epoch());
    assert_eq!((rig.ports[1].take().len(), rig.ports[2].take().len()), (2, 1));
    rig.worker.settle();
    assert_eq!((first.counters.frames(), second.counters.frames()), (2, 1), "frames are credited to the rule they were forwarded by");
}

#[test]
fn a_station_that_moved_and_returned_teaches_again() {
    let mut rig = Rig::new(2, CacheLimits { admission: false, ..CacheLimits::default() });
    rig.rule(Match::ANY, vec![OfAction::Output { port: PortNo::NORMAL, max_len: 0 }]);
    // To itself, so that where it goes depends on where it was learned.
    let mut frame = udp(1);
    frame.copy_within(6..12, 0);
    for port in [0, 1] {
        rig.ports[port].offer(&frame);
        rig.worker.breathe(0);
    }
    // The megaflow of the first port is stale now. A translation that teaches nothing must not make it current.
    rig.worker.maintain(0);
    rig.ports[0].offer(&frame);
    rig.worker.breathe(0);
    assert!(rig.ports.iter().all(|port| port.take().is_empty()));
}

#[test]
fn idle_megaflows_go_and_their_counts_stay() {
    let mut rig = Rig::new(2, CacheLimits { admission: false, idle: 100, ..CacheLimits::default() });
    let rule = rig.rule(Match::ANY.with(Field::InPort, 1), output(2));
    rig.ports[0].offer(&udp(1));
    rig.worker.breathe(0);
    rig.worker.maintain(100);
    assert_eq!(rig.worker.stats().megaflows, 1);
    rig.worker.maintain(101);
    assert_eq!((rig.worker.stats().megaflows, rig.worker.stats().masks), (0, 0));
    assert_eq!(rule.counters.frames(), 1);
}

/// A rule that looks at every flow's UDP ports, so that each needs a megaflow of its own.
fn flow_by_flow(rig: &mut Rig, from: u32) {
    let matching = Match::ANY.with(Field::InPort, from.into()).with(Field::EthType, 0x800).with(Field::IpProto, 17);
    rig.rule(matching.with(Field::UdpSrc, 0xffff), Vec::new());
    let flow_mod = FlowMod {
        matching,
        priority: 1,
        instructions: Instructions { apply: output(3).into(), ..Instructions::default() },
        ..FlowMod::default()
    };
    rig.draft.flow_mod(&flow_mod, 0).expect("a good rule");
    rig.published.publish(rig.draft.clone());
}

#[test]
fn megaflows_of_a_port_that_has_many_go_sooner() {
    let limits = CacheLimits { admission: false, megaflows: 128, megaflows_per_port: 64, idle: 5000, ..CacheLimits::default() };
    let mut rig = Rig::new(3, limits);
    flow_by_flow(&mut rig, 1);
    flow_by_flow(&mut rig, 2);
    let send = |rig: &mut Rig, port: usize, flows: std::ops::Range<u16>, now| {
        flows.for_each(|flow| rig.ports[port].offer(&udp(flow)));
        while rig.worker.breathe(now) > 0 || rig.worker.arm() {}
    };
    send(&mut rig, 0, 0..10, 0);
    send(&mut rig, 1, 0..100, 0);
    assert_eq!(rig.worker.stats().megaflows, 10 + 64, "a port has its share");
    // A flow finds room as soon as others were idle for a while, without waiting for the background work.
    send(&mut rig, 1, 200..230, 101);
    let found_room = rig.worker.stats().installed as usize - (10 + 64);
    assert!(found_room > 20, "{found_room}");
    rig.worker.maintain(101);
    assert_eq!(rig.worker.stats().megaflows, 10 + 64 / 2, "half of a share is left alone, and so are the few of another port");
    rig.worker.maintain(5001);
    assert_eq!(rig.worker.stats().megaflows, found_room);
}

#[test]
fn background_work_comes_in_small_pieces() {
    let mut rig = Rig::new(3, CacheLimits { admission: false, ..CacheLimits::default() });
    flow_by_flow(&mut rig, 1);
    for flow in 0..20_000 {
        rig.ports[0].offer(&udp(flow));
    }
    while rig.worker.breathe(0) > 0 || rig.worker.arm() {}
    assert_eq!(rig.worker.stats().megaflows, 20_000);
    // All go, since fewer bits count now, without any frame asking for them.
    let instructions = Instructions { apply: output(2).into(), ..Instructions::default() };
    let matching = Match::ANY.with(Field::InPort, 1);
    rig.draft.flow_mod(&FlowMod { matching, priority: 0xffff, instructions, ..FlowMod::default() }, 0).expect("a good rule");
    rig.published.publish(rig.draft.clone());
    let (mut now, mut most) = (0, 0);
    while rig.worker.stats().megaflows > 0 && now < 10_000_000_000 {
        let before = rig.worker.stats().megaflows;
        now += rig.worker.maintain(now);
        most = most.max(before - rig.worker.stats().megaflows);
    }
    assert!((1..=256).contains(&most) && now < 2_000_000_000, "{most} in a call, {now} ns in all");
}

#[test]
fn a_deep_breath_waits_for_the_only_busy_queue() {
    let mut rig = Rig::new(3, CacheLimits::default());
    rig.rule(Match::ANY.with(Field::InPort, 1), output(3));
    let offer = |rig: &Rig, port: usize, frames| (0..frames).for_each(|_| rig.ports[port].offer(&udp(1)));
    // A few frames are taken at once.
    offer(&rig, 0, 3);
    assert_eq!(rig.worker.breathe_deeply(0), 3);
    // After a full batch, a few more are left for a deep breath to come, but not for any other.
    offer(&rig, 0, BATCH + DEEP - 1);
    assert_eq!(rig.worker.breathe_deeply(0), BATCH);
    assert_eq!(rig.worker.breathe_deeply(0), 0);
    offer(&rig, 0, 1);
    assert_eq!(rig.worker.breathe_deeply(0), BATCH);
    assert_eq!(rig.worker.breathe(0), BATCH);
    // Where another queue has work too, there is no time to wait.
    offer(&rig, 1, 1);
    assert_eq!(rig.worker.breathe_deeply(0), 1);
    assert_eq!(rig.worker.breathe_deeply(0), BATCH);
}

#[test]
fn every_frame_has_one_outcome() {
    let mut rig = Rig::new(3, CacheLimits::default());
    rig.rule(Match::ANY.with(Field::InPort, 1), output(2));
    rig.rule(Match::ANY.with(Field::InPort, 3), Vec::new());
    rig.ports[1].set_room(3);
    for _ in 0..5 {
        rig.ports.iter().for_each(|port| port.offer(&udp(1)));
    }
    rig.ports[0].offer(&[0; 13]);
    while rig.worker.breathe(0) > 0 {}
    let totals = |number| rig.draft.ports().get(PortNo(number)).expect("it is there").counters.totals();
    let one = totals(1);
    assert_eq!((one.rx_frames, one.forwarded, one.drops[DropReason::Truncated as usize]), (6, 5, 1));
    let two = totals(2);
    assert_eq!((two.rx_frames, two.drops[DropReason::NoMatch as usize]), (5, 5));
    assert_eq!((two.tx_frames, two.tx_drops[crate::drops::TxDrop::RingFull as usize]), (3, 2));
    assert_eq!(totals(3).drops[DropReason::Rule as usize], 5);
}

#[test]
fn a_port_that_causes_translations_is_passed_over_while_others_have_work() {
    let mut rig = Rig::new(3, CacheLimits { admission: false, ..CacheLimits::default() });
    flow_by_flow(&mut rig, 1);
    rig.rule(Match::ANY.with(Field::InPort, 2), output(3));
    let served = |rig: &Rig, number| rig.draft.ports().get(PortNo(number)).expect("it is there").counters.totals().rx_frames;
    for i in 0..32 * 64u16 {
        rig.ports[0].offer(&udp(i));
        rig.ports[1].offer(&udp(1));
    }
    for _ in 0..64 {
        rig.worker.breathe(0);
    }
    assert_eq!(served(&rig, 2), 32 * 64);
    // A translation with one lookup costs as much as six frames.
    assert!((32 * 64 / 8..32 * 64 / 5).contains(&served(&rig, 1)), "{}", served(&rig, 1));
    // Alone, it is served in every breath.
    let before = served(&rig, 1);
    for _ in 0..10 {
        rig.worker.breathe(0);
    }
    assert!(served(&rig, 1) >= before + 8 * 32);
}

#[test]
fn a_packet_out_is_carried_out_and_credited_to_no_port() {
    let mut rig = Rig::new(2, CacheLimits::default());
    let rule = rig.rule(Match::ANY.with(Field::InPort, 1), output(2));
    rig.worker.inject(PortNo(1), &udp(1), &[OfAction::Output { port: PortNo::TABLE, max_len: 0 }].into(), 7);
    rig.worker.inject(PortNo::CONTROLLER, &udp(1), &output(1).into(), 7);
    assert_eq!((rig.ports[0].take().len(), rig.ports[1].take().len()), (1, 1));
    assert_eq!(rule.counters.frames(), 1);
    assert_eq!(rig.draft.ports().get(PortNo(1)).expect("it is there").counters.totals().rx_frames, 0);
}

/// Select groups in groups of all kinds: a frame that is given to two of them, each of which gives it to two, and so on, goes on only so often.
#[test]
fn a_frame_goes_on_only_so_often() {
    use crate::tables::group::{BucketSpec, GROUP_ANY, GroupCommand, GroupKind, GroupMod};
    let mut rig = Rig::new(2, CacheLimits::default());
    let put = |tables: &mut Tables, group, kind, actions: &[Vec<OfAction>]| {
        let bucket = |actions: &Vec<OfAction>| BucketSpec {
            weight: 1,
            watch_port: PortNo::ANY,
            watch_group: GROUP_ANY,
            actions: actions[..].into(),
        };
        let buckets = actions.iter().map(bucket).collect();
        tables.group_mod(&GroupMod { command: GroupCommand::Add, group, kind, buckets }, 0).expect("a group");
    };
    put(&mut rig.draft, 1, GroupKind::Select, &[output(2)]);
    for level in 1..30 {
        put(&mut rig.draft, 2 * level, GroupKind::All, &vec![vec![OfAction::Group(2 * level - 1)]; 2]);
        put(&mut rig.draft, 2 * level + 1, GroupKind::Select, &[vec![OfAction::Group(2 * level)]]);
    }
    rig.rule(Match::ANY.with(Field::InPort, 1), vec![OfAction::Group(7)]);
    rig.ports[0].offer(&udp(1));
    rig.worker.breathe(0);
    assert_eq!((rig.worker.stats().resumed, rig.ports[1].take().len()), (1 + 2 + 4 + 8, 8));
    rig.rule(Match::ANY.with(Field::InPort, 1), vec![OfAction::Group(59)]);
    rig.ports[0].offer(&udp(1));
    // The port pays for its translations with breaths.
    while rig.worker.breathe(0) == 0 {}
    assert_eq!(rig.worker.stats().resumed, 15 + RESUMES_MAX as u64);
}

/// A frame that is too long for its output is dropped there, and its sender told where it came in, in the tags that it came in with.
#[test]
fn a_packet_too_long_for_a_port_is_answered_if_the_port_says_so() {
    use crate::drops::TxDrop;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice, VlanId};
    /// A port that sends nothing: all is too long for it.
    struct Narrow;
    impl crate::port::Output for Narrow {
        fn transmit(&self, _: Share, _: &Batch, slots: &[u16]) -> crate::port::Transmitted {
            let mut transmitted = crate::port::Transmitted::default();
            slots.iter().for_each(|_| transmitted.dropped(TxDrop::TooLong));
            transmitted
        }
    }
    let tagged = |len| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).single_vlan(VlanId::try_new(10).expect("an id"));
        builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut frame, &vec![7; len]).expect("a vector takes all");
        frame
    };
    for icmp_too_big in [false, true] {
        let mut rig = Rig::new(3, CacheLimits::default());
        let port = rig.draft.remove_port(PortNo(2)).expect("it is there");
        rig.draft.add_port(Port { icmp_too_big, mtu: 1300, output: Arc::new(Narrow), ..Port::clone(&port) }).expect("it is gone");
        // The first copy is as it came in, the other a duplicate without the tag.
        let apply = [output(3), vec![OfAction::PopVlan], output(2)].concat();
        rig.rule(Match::ANY.with(Field::VlanVid, 0x100a), apply);
        rig.ports[0].offer(&tagged(1272));
        rig.ports[0].offer(&tagged(1273));
        rig.worker.breathe(0);
        let totals = |number| rig.draft.ports().get(PortNo(number)).expect("it is there").counters.totals();
        assert_eq!((totals(1).rx_frames, totals(1).forwarded, totals(2).tx_drops[TxDrop::TooLong as usize]), (2, 2, 2));
        assert_eq!((totals(2).tx_frames, totals(3).tx_frames, rig.ports[2].take().len()), (0, 2, 2));
        let answers = rig.ports[0].take();
        assert_eq!((answers.len(), totals(1).tx_frames), (usize::from(icmp_too_big), u64::from(icmp_too_big)));
        for answer in &answers {
            assert_eq!(
                (answer.len() as u64, &answer[..16]),
                (totals(1).tx_bytes, &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 10][..])
            );
            let Ok(SlicedPacket { transport: Some(TransportSlice::Icmpv4(icmp)), .. }) = SlicedPacket::from_ethernet(answer) else {
                panic!("no ICMP message: {answer:02x?}");
            };
            assert_eq!((icmp.type_u8(), icmp.code_u8(), icmp.bytes5to8()), (3, 4, [0, 0, 5, 20]));
        }
        // One that a controller sends in the name of a port is answered there, too; its own are not.
        for (in_port, answers) in [(PortNo(1), usize::from(icmp_too_big)), (PortNo::CONTROLLER, 0)] {
            rig.worker.inject(in_port, &tagged(1400), &output(2).into(), 7);
            assert_eq!(rig.ports[0].take().len(), answers, "{in_port}");
        }
    }
}

#[test]
fn frames_that_continue_have_the_key_of_the_one_before() {
    let leaders = |continuing: u32| (0..32).map(|slot| leader(continuing, slot)).collect::<Vec<_>>();
    assert_eq!(leaders(0), (0..32).collect::<Vec<_>>());
    assert_eq!(leaders(!1), [0; 32]);
    assert_eq!(leaders(0b1_0110)[..6], [0, 0, 0, 3, 3, 5]);
}

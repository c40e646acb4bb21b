//! Groups, meters and queues, and Nicira's ways to get frames.

use datapath::key::{Field, Match};
use datapath::tables::group::{BucketSpec, GROUP_ALL, GROUP_ANY, GroupCommand, GroupKind, GroupMod};
use datapath::tables::instruction::{CONTROLLER_WHOLE, Instructions};
use datapath::tables::meter::{BandKind, BandSpec, METER_ALL, MeterCommand, MeterFlags, MeterMod};
use datapath::tables::{RemovedReason, RuleFlags};

use super::peers::{Peer, flow_mod, role, to_controller};
use super::*;
use crate::openflow::wire::error::*;
use crate::openflow::wire::*;

fn bucket(actions: &[OfAction]) -> BucketSpec {
    BucketSpec { weight: 1, watch_port: PortNo::ANY, watch_group: GROUP_ANY, actions: actions.into() }
}

fn group_mod(command: GroupCommand, group: u32, buckets: Vec<BucketSpec>) -> Message {
    Message::GroupMod(GroupMod { command, group, kind: GroupKind::Select, buckets })
}

fn meter_mod(command: MeterCommand, meter: u32) -> Message {
    let bands = vec![BandSpec { kind: BandKind::Drop, rate: 1000, burst: 77 }];
    let bands = if command == MeterCommand::Delete { vec![] } else { bands };
    Message::MeterMod(MeterMod { command, meter, flags: MeterFlags(MeterFlags::KBPS.0 | MeterFlags::BURST.0), bands })
}

fn applies(actions: &[OfAction]) -> FlowMod {
    FlowMod { instructions: Instructions { apply: actions.into(), ..Instructions::default() }, ..FlowMod::default() }
}

fn metered(meter: u32) -> FlowMod {
    FlowMod { instructions: Instructions { meter: Some(meter), ..Instructions::default() }, ..FlowMod::default() }
}

impl Peer {
    fn body(&mut self, bench: &mut Bench, request: MultipartRequest) -> MultipartBody {
        match self.ask(bench, &Message::MultipartRequest(Box::new(request))).pop() {
            Some(Message::MultipartReply(reply)) => reply.body,
            other => panic!("{other:?}"),
        }
    }
}

const fn output(port: u32) -> OfAction {
    OfAction::Output { port: PortNo(port), max_len: 0 }
}

#[test]
fn groups_are_added_described_counted_and_deleted_with_their_rules() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    let buckets = vec![bucket(&[output(1)]), bucket(&[output(2)])];
    assert!(peer.ask(&mut bench, &group_mod(GroupCommand::Add, 7, buckets.clone())).is_empty());
    peer.ask(&mut bench, &group_mod(GroupCommand::Add, 8, vec![bucket(&[OfAction::Group(7)])]));
    let rule = FlowMod { flags: RuleFlags::SEND_FLOW_REM, ..applies(&[OfAction::Group(7)]) };
    peer.ask(&mut bench, &flow_mod(rule));
    assert_eq!(peer.body(&mut bench, MultipartRequest::GroupFeatures), MultipartBody::GroupFeatures(GroupFeatures::SUPPORTED));
    let MultipartBody::GroupDesc(descs) = peer.body(&mut bench, MultipartRequest::GroupDesc) else { panic!() };
    assert_eq!(descs[0], GroupDesc { group: 7, kind: GroupKind::Select, buckets });
    let group = bench.agent.tables().group(7).unwrap();
    group.counters.credit(3, 300, 0);
    group.buckets[1].counters.credit(2, 200, 0);
    bench.now = 2 * SECOND;
    let MultipartBody::Group(stats) = peer.body(&mut bench, MultipartRequest::Group(7)) else { panic!() };
    let age = Age { seconds: 2, nanoseconds: 0 };
    assert_eq!(stats, [GroupStats { group: 7, references: 2, frames: 3, bytes: 300, age, buckets: vec![(0, 0), (2, 200)] }]);
    let MultipartBody::Group(stats) = peer.body(&mut bench, MultipartRequest::Group(GROUP_ALL)) else { panic!() };
    assert_eq!(stats.iter().map(|group| group.group).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(peer.body(&mut bench, MultipartRequest::Group(99)), MultipartBody::Group(vec![]));

    assert_eq!(peer.refused(&mut bench, &group_mod(GroupCommand::Add, 7, vec![])), GroupModFailed::GroupExists.into());
    assert_eq!(peer.refused(&mut bench, &group_mod(GroupCommand::Modify, 9, vec![])), GroupModFailed::UnknownGroup.into());
    assert_eq!(peer.refused(&mut bench, &group_mod(GroupCommand::Delete, 7, vec![])), GroupModFailed::ChainedGroup.into());
    let looping = vec![bucket(&[OfAction::Group(8)])];
    assert_eq!(peer.refused(&mut bench, &group_mod(GroupCommand::Modify, 7, looping)), GroupModFailed::Loop.into());
    let unwatched = GroupMod { command: GroupCommand::Add, group: 3, kind: GroupKind::FastFailover, buckets: vec![bucket(&[])] };
    assert_eq!(peer.refused(&mut bench, &Message::GroupMod(unwatched)), GroupModFailed::BadWatch.into());
    let twice = GroupMod { command: GroupCommand::Add, group: 3, kind: GroupKind::Indirect, buckets: vec![] };
    assert_eq!(peer.refused(&mut bench, &Message::GroupMod(twice)), GroupModFailed::InvalidGroup.into());
    let unknown = vec![bucket(&[OfAction::Group(77)])];
    assert_eq!(peer.refused(&mut bench, &group_mod(GroupCommand::Add, 3, unknown)), BadAction::BadOutGroup.into());

    peer.ask(&mut bench, &group_mod(GroupCommand::Delete, 8, vec![]));
    let answers = peer.ask(&mut bench, &group_mod(GroupCommand::Delete, GROUP_ALL, vec![]));
    let [Message::FlowRemoved(removed)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((removed.reason, bench.rules()), (RemovedReason::GroupDelete, 0));
    assert_eq!(peer.refused(&mut bench, &flow_mod(applies(&[OfAction::Group(7)]))), BadAction::BadOutGroup.into());
}

#[test]
fn meters_are_added_described_counted_and_deleted_with_their_rules() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    assert!(peer.ask(&mut bench, &meter_mod(MeterCommand::Add, 5)).is_empty());
    peer.ask(&mut bench, &flow_mod(FlowMod { flags: RuleFlags::SEND_FLOW_REM, ..metered(5) }));
    assert_eq!(peer.body(&mut bench, MultipartRequest::MeterFeatures), MultipartBody::MeterFeatures(MeterFeatures::SUPPORTED));
    let MultipartBody::MeterConfig(configs) = peer.body(&mut bench, MultipartRequest::MeterConfig(METER_ALL)) else { panic!() };
    let bands = vec![BandSpec { kind: BandKind::Drop, rate: 1000, burst: 77 }];
    assert_eq!(configs, [MeterConfig { meter: 5, flags: MeterFlags(0b101), bands }]);
    bench.agent.tables().meter(5).unwrap().measure(100, SECOND);
    bench.now = 3 * SECOND;
    let MultipartBody::Meter(stats) = peer.body(&mut bench, MultipartRequest::Meter(5)) else { panic!() };
    let age = Age { seconds: 3, nanoseconds: 0 };
    assert_eq!(stats, [MeterStats { meter: 5, rules: 1, frames: 1, bytes: 100, age, bands: vec![(0, 0)] }]);
    for request in [MultipartRequest::Meter(6), MultipartRequest::MeterConfig(6)] {
        let request = Message::MultipartRequest(Box::new(request));
        assert_eq!(peer.refused(&mut bench, &request), MeterModFailed::UnknownMeter.into());
    }
    assert_eq!(peer.refused(&mut bench, &meter_mod(MeterCommand::Add, 5)), MeterModFailed::MeterExists.into());
    assert_eq!(peer.refused(&mut bench, &meter_mod(MeterCommand::Modify, 6)), MeterModFailed::UnknownMeter.into());
    assert_eq!(peer.refused(&mut bench, &meter_mod(MeterCommand::Add, 0)), MeterModFailed::InvalidMeter.into());
    let with = |flags: u16, kind: BandKind, rate: u32, burst: u32| {
        let flags = MeterFlags(flags);
        Message::MeterMod(MeterMod { command: MeterCommand::Add, meter: 6, flags, bands: vec![BandSpec { kind, rate, burst }] })
    };
    for (message, error) in [
        (with(3, BandKind::Drop, 1, 1), MeterModFailed::BadFlags),
        (with(1, BandKind::Drop, 0, 1), MeterModFailed::BadRate),
        (with(5, BandKind::Drop, 1, 0), MeterModFailed::BadBurst),
        (with(1, BandKind::DscpRemark(3), 1, 1), MeterModFailed::BadBandValue),
    ] {
        assert_eq!(peer.refused(&mut bench, &message), error.into());
    }
    let many = MeterMod {
        command: MeterCommand::Add,
        meter: 6,
        flags: MeterFlags::KBPS,
        bands: vec![BandSpec { kind: BandKind::Drop, rate: 1, burst: 0 }; 9],
    };
    assert_eq!(peer.refused(&mut bench, &Message::MeterMod(many)), MeterModFailed::OutOfBands.into());
    let answers = peer.ask(&mut bench, &meter_mod(MeterCommand::Delete, 5));
    let [Message::FlowRemoved(removed)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((removed.reason, bench.rules()), (RemovedReason::Delete, 0));
    assert_eq!(peer.refused(&mut bench, &flow_mod(metered(5))), MeterModFailed::UnknownMeter.into());
}

#[test]
fn ports_have_queues() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    let ask = |peer: &mut Peer, bench: &mut Bench, port: PortNo| match peer.ask(bench, &Message::QueueGetConfigRequest(port)).pop() {
        Some(Message::QueueGetConfigReply(config)) => config,
        other => panic!("{other:?}"),
    };
    let config = ask(&mut peer, &mut bench, PortNo(2));
    assert_eq!((config.port, config.queues.len()), (PortNo(2), 8));
    assert_eq!(config.queues[3], QueueDesc { port: PortNo(2), queue: 3, min_rate: None, max_rate: None });
    assert_eq!(ask(&mut peer, &mut bench, PortNo::ANY).queues.len(), 16);
    assert_eq!(peer.refused(&mut bench, &Message::QueueGetConfigRequest(PortNo(9))), QueueOpFailed::BadPort.into());

    let mut transmitted = Transmitted::default();
    transmitted.sent(60);
    bench.agent.tables().ports().get(PortNo(1)).unwrap().counters.stripe(0).transmitted(5, &transmitted);
    let MultipartBody::Queue(stats) = peer.body(&mut bench, MultipartRequest::Queue(PortNo(1), 5)) else { panic!() };
    assert_eq!(stats, [QueueStats { port: PortNo(1), queue: 5, bytes: 60, frames: 1, errors: 0, age: Age::default() }]);
    let MultipartBody::Queue(stats) = peer.body(&mut bench, MultipartRequest::Queue(PortNo::ANY, QUEUE_ALL)) else { panic!() };
    assert_eq!(stats.len(), 16);
    for (port, queue, error) in [(PortNo(9), 0, QueueOpFailed::BadPort), (PortNo(1), 8, QueueOpFailed::BadQueue)] {
        let request = Message::MultipartRequest(Box::new(MultipartRequest::Queue(port, queue)));
        assert_eq!(peer.refused(&mut bench, &request), error.into());
    }
    assert_eq!(peer.refused(&mut bench, &flow_mod(applies(&[OfAction::SetQueue(8)]))), BadAction::BadQueue.into());
}

#[test]
fn packet_outs_are_checked_as_rules_are() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    let out = |actions: &[OfAction]| {
        let (in_port, data) = (PortNo::CONTROLLER, vec![0; 60]);
        Message::PacketOut(PacketOut { buffer_id: NO_BUFFER, in_port, actions: actions.into(), data })
    };
    assert_eq!(peer.refused(&mut bench, &out(&[OfAction::Group(1)])), BadAction::BadOutGroup.into());
    assert_eq!(peer.refused(&mut bench, &out(&[OfAction::SetQueue(9)])), BadAction::BadQueue.into());
    assert_eq!(peer.refused(&mut bench, &out(&[OfAction::Resubmit { port: PortNo(1), table: Some(254) }])), BadAction::BadArgument.into());
    peer.ask(&mut bench, &group_mod(GroupCommand::Add, 1, vec![]));
    bench.datapath.told.clear();
    for actions in [&[OfAction::Group(1)][..], &[OfAction::SetQueue(1), output(2)], &[OfAction::PopVlan, output(PortNo::TABLE.0)]] {
        assert!(peer.ask(&mut bench, &out(actions)).is_empty());
    }
    assert_eq!(bench.datapath.told.len(), 3);
}

#[test]
fn frames_come_in_the_format_and_to_the_controller_that_is_asked_for() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut standard = Peer::greeted(&mut bench, Origin::Controller);
    let mut nicira = Peer::greeted(&mut bench, Origin::Controller);
    let mut third = Peer::greeted(&mut bench, Origin::Controller);
    assert!(nicira.ask(&mut bench, &Message::SetPacketInFormat(PacketInFormat::Nicira)).is_empty());
    assert!(third.ask(&mut bench, &Message::SetPacketInFormat(PacketInFormat::Nicira2)).is_empty());
    let to = datapath::action::ToController { userdata: [1, 2].into(), cookie: 6, table: 4, ..to_controller(1) };
    bench.packet_in(2, &to, vec![7; 60]);
    bench.turn();
    let got = |peer: &mut Peer| match &peer.received()[..] {
        [(0, Message::PacketIn(packet_in))] => PacketIn::clone(packet_in),
        other => panic!("{other:?}"),
    };
    let expected = PacketIn {
        format: PacketInFormat::Standard,
        total_len: 60,
        reason: 1,
        table: 4,
        cookie: 6,
        matching: Match::ANY.with(Field::InPort, 2),
        data: vec![7; 60],
        userdata: vec![],
    };
    assert_eq!(got(&mut standard), expected);
    assert_eq!(got(&mut nicira), PacketIn { format: PacketInFormat::Nicira, ..expected.clone() });
    assert_eq!(got(&mut third), PacketIn { format: PacketInFormat::Nicira2, userdata: vec![1, 2], ..expected });

    third.ask(&mut bench, &Message::SetControllerId(7));
    bench.packet_in(2, &to, vec![7; 60]);
    bench.packet_in(2, &datapath::action::ToController { controller_id: 7, ..to }, vec![8; 60]);
    bench.turn();
    assert_eq!((got(&mut standard).data[0], got(&mut third).data[0]), (7, 8));
}

#[test]
fn fragments_are_treated_as_it_is_asked_for() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    let mut other = Peer::greeted(&mut bench, Origin::Controller);
    let set = |flags| Message::SetConfig(Config { flags, miss_send_len: 200 });
    let config = |peer: &mut Peer, bench: &mut Bench| match peer.ask(bench, &Message::GetConfigRequest)[..] {
        [Message::GetConfigReply(Config { flags, miss_send_len })] => (flags, miss_send_len),
        ref other => panic!("{other:?}"),
    };
    assert_eq!(config(&mut peer, &mut bench), (0, 128));
    assert!(peer.ask(&mut bench, &set(1)).is_empty());
    assert!(bench.datapath.tables.as_ref().unwrap().drops_fragments());
    // The one is the switch's, the other the connection's.
    assert_eq!((config(&mut peer, &mut bench), config(&mut other, &mut bench)), ((1, 200), (1, 128)));
    assert_eq!(peer.refused(&mut bench, &set(2)), SwitchConfigFailed::BadFlags.into());
    assert_eq!(peer.refused(&mut bench, &set(4)), SwitchConfigFailed::BadFlags.into());
    other.ask(&mut bench, &role(Role::Slave, 1));
    assert_eq!(other.refused(&mut bench, &set(0)), BadRequest::IsSlave.into());
    assert!(other.ask(&mut bench, &set(1)).is_empty());
    assert!(peer.ask(&mut bench, &set(3)).is_empty());
    assert!(!bench.datapath.tables.as_ref().unwrap().drops_fragments());
    assert_eq!(config(&mut peer, &mut bench), (3, 200));
}

#[test]
fn what_is_learned_is_added_once_and_published_together() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let rule = |metadata: u64, port| FlowMod { matching: Match::ANY.with(Field::Metadata, metadata.into()), ..applies(&[output(port)]) };
    bench.agent.learn(&rule(1, 1), bench.now);
    bench.agent.learn(&rule(2, 1), bench.now);
    bench.agent.learn(&rule(1, 1), bench.now);
    bench.turn();
    assert_eq!((bench.rules(), &bench.datapath.told[..]), (2, &[Told::Publish { rules: 2 }][..]));
    let epoch = bench.agent.tables().epoch();
    bench.learn(&rule(2, 1));
    assert_eq!(bench.agent.tables().epoch(), epoch);
    // Another port: the rule is another.
    bench.learn(&rule(2, 2));
    assert!(bench.agent.tables().epoch() > epoch && bench.rules() == 2);
    // What the tables don't take, they don't take, and what could not be listed neither.
    bench.learn(&FlowMod { table: 254, ..rule(3, 1) });
    let long = vec![OfAction::SetField { field: Field::Reg0, value: 1, mask: 1 }; 5000];
    bench.learn(&applies(&long));
    assert_eq!(bench.rules(), 2);
}

#[test]
fn a_switchs_own_messages_are_not_for_it() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    for message in [
        Message::QueueGetConfigReply(QueueConfig { port: PortNo(1), queues: vec![] }),
        Message::BarrierReply,
        Message::FlowMonitorPaused,
        Message::FlowMonitorResumed,
        Message::MultipartReply(MultipartReply { body: MultipartBody::Queue(vec![]), more: false }),
        Message::RoleReply(RoleMessage { role: None, generation_id: Some(0) }),
    ] {
        assert_eq!(peer.refused(&mut bench, &message), BadRequest::BadType.into());
    }
    let everything = OfAction::Controller { max_len: CONTROLLER_WHOLE, controller_id: 0, reason: 1, userdata: [1].into() };
    assert!(peer.ask(&mut bench, &flow_mod(applies(&[everything]))).is_empty());
}

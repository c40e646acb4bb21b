//! Controllers that speak OpenFlow 1.0, beside some of OpenFlow 1.3.

use datapath::action::{OFPR_ACTION, OFPR_INVALID_TTL, OFPR_NO_MATCH};
use datapath::key::{Field, FieldRange, Match};
use datapath::tables::instruction::Instructions;
use datapath::tables::{FlowModCommand, RuleFlags};

use super::peers::{Peer, flow_mod, to_controller};
use super::*;
use crate::config::Version;
use crate::openflow::wire::error::*;
use crate::openflow::wire::*;

fn greeted(bench: &mut Bench, origin: Origin) -> Peer {
    Peer::speaking(bench, origin, Version::V10)
}

/// Sends a request that is not answered.
#[track_caller]
fn tell(bench: &mut Bench, peer: &mut Peer, message: &Message) {
    let answers = peer.ask(bench, message);
    assert!(answers.is_empty(), "{answers:?}");
}

fn packet_ins(messages: Vec<(u32, Message)>) -> Vec<PacketIn> {
    let packet_in = |message| if let Message::PacketIn(packet_in) = message { *packet_in } else { panic!("{message:?}") };
    messages.into_iter().map(|(_, message)| packet_in(message)).collect()
}

fn set_config(flags: u16, miss_send_len: u16) -> Message {
    Message::SetConfig(Config { flags, miss_send_len })
}

/// What a worker makes of a frame that no rule matches.
fn miss() -> ToController {
    ToController { max_len: 0xffff, cookie: u64::MAX, ..to_controller(OFPR_NO_MATCH) }
}

#[test]
fn features_name_the_ports_whose_numbers_fit() {
    let mut bench = Bench::new(FailMode::Secure, false);
    bench.agent.add_port(port(0xfeff, "last"), 0).unwrap();
    bench.agent.add_port(port(0xff00, "beyond"), 0).unwrap();
    bench.turn();
    let mut peer = greeted(&mut bench, Origin::Listener);
    let answers = peer.ask(&mut bench, &Message::FeaturesRequest);
    let [Message::FeaturesReply(features)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(
        features.ports.iter().map(|port| (port.number.0, port.name.as_str())).collect::<Vec<_>>(),
        [(1, "vm1"), (2, "vm2"), (0xfeff, "last")]
    );
    // Nor does one hear of the others later.
    tell(&mut bench, &mut peer, &set_config(0, 64));
    bench.agent.set_link(PortNo(0xff00), false).unwrap();
    bench.agent.set_link(PortNo(2), false).unwrap();
    bench.turn();
    let told = peer.received();
    assert!(matches!(&told[..], [(0, Message::PortStatus(status))] if status.port.number == PortNo(2)), "{told:?}");
}

#[test]
fn expired_ttls_are_asked_for_by_a_flag_of_the_configuration() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = greeted(&mut bench, Origin::Listener);
    let mut newer = Peer::greeted(&mut bench, Origin::Listener);
    let asks = INVALID_TTL_TO_CONTROLLER | FragmentHandling::Drop as u16;
    assert_eq!(newer.refused(&mut bench, &set_config(asks, 64)), SwitchConfigFailed::BadFlags.into());
    tell(&mut bench, &mut peer, &set_config(asks, 64));
    let gives = |bench: &Bench| bench.datapath.tables.as_ref().expect("they were published").invalid_ttl_to_controller();
    assert!(gives(&bench));
    let mut config = |peer: &mut Peer| match peer.ask(&mut bench, &Message::GetConfigRequest)[..] {
        [Message::GetConfigReply(config)] => (config.flags, config.miss_send_len),
        ref other => panic!("{other:?}"),
    };
    assert_eq!(config(&mut peer), (asks, 64));
    assert_eq!(config(&mut newer), (FragmentHandling::Drop as u16, 0));
    bench.packet_in(1, &to_controller(OFPR_INVALID_TTL), vec![0; 60]);
    bench.turn();
    assert_eq!((peer.received().len(), newer.received().len()), (1, 0));
    tell(&mut bench, &mut peer, &set_config(0, 64));
    assert!(!gives(&bench));
}

#[test]
fn frames_that_no_rule_matches_come_while_somebody_wants_them() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let gives = |bench: &Bench| bench.datapath.tables.as_ref().is_some_and(|tables| tables.misses_to_controller());
    let mut newer = Peer::greeted(&mut bench, Origin::Controller);
    assert!(!gives(&bench), "OpenFlow 1.3 has rules for that");
    let mut peer = greeted(&mut bench, Origin::Controller);
    let mut tool = greeted(&mut bench, Origin::Listener);
    assert!(gives(&bench));
    bench.packet_in(2, &miss(), vec![7; 60]);
    bench.turn();
    let [packet_in] = &packet_ins(peer.received())[..] else { panic!("not one") };
    assert_eq!((packet_in.reason, packet_in.total_len, packet_in.data.len()), (OFPR_NO_MATCH, 60, 60));
    assert_eq!((tool.received().len(), newer.received().len()), (0, 0));
    // What a table-miss rule sends is an action's.
    bench.packet_in(2, &ToController { cookie: 5, ..miss() }, vec![7; 60]);
    bench.turn();
    assert_eq!(packet_ins(peer.received())[0].reason, OFPR_ACTION);
    assert_eq!(packet_ins(newer.received())[0].reason, OFPR_NO_MATCH);

    // Who looks on asks by a miss_send_len, and those who are slaves or want no such frames don't count.
    tell(&mut bench, &mut tool, &set_config(0, 100));
    tell(&mut bench, &mut peer, &Message::SetAsync(Async { packet_in: [0b10, 0b11], ..Async::DEFAULT }));
    bench.packet_in(2, &miss(), vec![7; 150]);
    bench.turn();
    // A frame is whole that is not kept in a buffer.
    let [packet_in] = &packet_ins(tool.received())[..] else { panic!("not one") };
    assert_eq!((packet_in.total_len, packet_in.data.len()), (150, 150));
    assert_eq!(peer.received().len(), 0);
    assert!(gives(&bench));
    drop(tool);
    bench.turn();
    assert!(!gives(&bench));
}

#[test]
fn a_role_has_no_generation() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut newer = Peer::greeted(&mut bench, Origin::Controller);
    let mut peer = greeted(&mut bench, Origin::Controller);
    newer.ask(&mut bench, &super::peers::role(Role::Master, 5));
    let take = |bench: &mut Bench, peer: &mut Peer, role: Role| {
        let message = RoleMessage { role: Some(role), generation_id: None };
        let answers = peer.ask(bench, &Message::RoleRequest(message));
        assert!(matches!(answers[..], [Message::RoleReply(reply)] if reply == message), "{answers:?}");
    };
    take(&mut bench, &mut peer, Role::Slave);
    // OpenFlow 1.0 has no error of slaves' own.
    assert_eq!(peer.refused(&mut bench, &flow_mod(FlowMod::default())), BadRequest::Eperm.into());
    take(&mut bench, &mut peer, Role::Master);
    tell(&mut bench, &mut peer, &flow_mod(FlowMod::default()));
    assert_eq!(newer.refused(&mut bench, &flow_mod(FlowMod::default())), BadRequest::IsSlave.into());
    // The generation that there was still counts for those who name one.
    assert_eq!(newer.refused(&mut bench, &super::peers::role(Role::Master, 4)), RoleRequestFailed::Stale.into());
    newer.ask(&mut bench, &super::peers::role(Role::Master, 5));
    assert_eq!(peer.refused(&mut bench, &flow_mod(FlowMod::default())), BadRequest::Eperm.into());
}

#[test]
fn removals_are_told_in_the_format_that_is_set() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut plain = greeted(&mut bench, Origin::Controller);
    let mut nicira = greeted(&mut bench, Origin::Controller);
    tell(&mut bench, &mut nicira, &Message::SetFlowFormat(FlowFormat::Nxm));
    tell(&mut bench, &mut nicira, &Message::FlowModTableId(true));
    let matching = Match::ANY.with(Field::InPort, 2);
    let rule = FlowMod {
        table: 4,
        matching: matching.with(Field::Metadata, 3),
        cookie: 6,
        flags: RuleFlags::SEND_FLOW_REM,
        instructions: Instructions { apply: [OfAction::Output { port: PortNo(1), max_len: 0 }].into(), ..Instructions::default() },
        ..FlowMod::default()
    };
    tell(&mut bench, &mut nicira, &flow_mod(rule));
    assert_eq!(bench.agent.tables().rule_count(4), 1);
    // Without that, the table is the first for an addition, and any for others.
    tell(&mut bench, &mut plain, &flow_mod(FlowMod::default()));
    assert_eq!(bench.agent.tables().rule_count(0), 1);
    let delete = FlowMod { command: FlowModCommand::Delete, matching, table: RuleFilter::ALL_TABLES, ..FlowMod::default() };
    tell(
        &mut bench,
        &mut plain,
        &flow_mod(FlowMod { command: FlowModCommand::Delete, matching: Match::ANY.with(Field::InPort, 1), ..delete.clone() }),
    );
    assert_eq!(bench.rules(), 2);
    plain.send(&flow_mod(delete), 9);
    bench.turn();
    let removed = |peer: &mut Peer| match &peer.received()[..] {
        [(0, Message::FlowRemoved(removed))] => (removed.table, removed.cookie, removed.matching),
        other => panic!("{other:?}"),
    };
    assert_eq!(removed(&mut plain), (0, 6, matching));
    assert_eq!(removed(&mut nicira), (4, 6, matching.with(Field::Metadata, 3)));
}

#[test]
fn frames_come_in_niciras_formats() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut peer = greeted(&mut bench, Origin::Controller);
    let to = ToController { userdata: [1, 2].into(), cookie: 6, table: 4, ..to_controller(OFPR_ACTION) };
    let mut told = |format: PacketInFormat| {
        tell(&mut bench, &mut peer, &Message::SetPacketInFormat(format));
        bench.packet_in(2, &to, vec![7; 60]);
        bench.turn();
        let [packet_in] = &packet_ins(peer.received())[..] else { panic!("not one") };
        assert_eq!((packet_in.format, packet_in.matching.get(Field::InPort).map(|port| port.value)), (format, Some(2)));
        (packet_in.table, packet_in.cookie, packet_in.userdata.clone())
    };
    assert_eq!(told(PacketInFormat::Nicira), (4, 6, vec![]));
    assert_eq!(told(PacketInFormat::Nicira2), (4, 6, vec![1, 2]));
    assert_eq!(told(PacketInFormat::Standard), (0, u64::MAX, vec![]));
}

#[test]
fn rules_of_one_version_are_seen_and_changed_in_the_other() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut newer = Peer::greeted(&mut bench, Origin::Listener);
    let mut older = greeted(&mut bench, Origin::Listener);
    let output = OfAction::Output { port: PortNo(2), max_len: 0 };
    let matching = Match::ANY.with(Field::EthType, 0x800).with(Field::IpProto, 6);
    let rule = FlowMod {
        matching,
        instructions: Instructions { apply: [output.clone()].into(), goto: Some(3), ..Instructions::default() },
        ..FlowMod::default()
    };
    tell(&mut bench, &mut newer, &flow_mod(rule));
    let request = |matching: Match| {
        let filter = RuleFilter { matching, ..RuleFilter::ALL };
        Message::MultipartRequest(Box::new(MultipartRequest::Flow(filter)))
    };
    let listed = |bench: &mut Bench, peer: &mut Peer| match peer.ask(bench, &request(Match::ANY)).remove(0) {
        Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(mut rules), more: false }) if rules.len() == 1 => {
            rules.remove(0)
        }
        other => panic!("{other:?}"),
    };
    let resubmit = OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(3) };
    let seen = listed(&mut bench, &mut older);
    assert_eq!((seen.matching, seen.instructions.apply.to_vec()), (matching, vec![output, resubmit]));

    // A modification changes actions and cookie, and needs no tag in the match to set a VLAN.
    let tag = OfAction::SetVlanVid(7);
    let change = FlowMod {
        command: FlowModCommand::Modify,
        new_cookie: Some(12),
        or_add: true,
        instructions: Instructions { apply: [tag].into(), ..Instructions::default() },
        ..FlowMod::default()
    };
    tell(&mut bench, &mut older, &flow_mod(change));
    let seen = listed(&mut bench, &mut newer);
    let load = OfAction::Load { destination: FieldRange { field: Field::VlanTci, offset: 0, bits: 13 }, value: 0x1007 };
    assert_eq!((seen.cookie, seen.instructions.goto, seen.instructions.apply.to_vec()), (12, None, vec![load]));
}

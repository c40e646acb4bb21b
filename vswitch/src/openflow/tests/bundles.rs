//! Bundles, and requests of several messages.

use datapath::key::Match;
use datapath::tables::group::{GroupCommand, GroupKind, GroupMod};
use datapath::tables::{FlowModCommand, RuleFlags};

use super::peers::{Peer, flow_mod, role};
use super::*;
use crate::openflow::wire::error::*;
use crate::openflow::wire::*;

const FLAGS: u16 = ATOMIC | ORDERED;

fn control(kind: BundleControlType) -> Message {
    Message::BundleControl(BundleControl { bundle: 9, kind, flags: FLAGS })
}

fn rule(priority: u16) -> FlowMod {
    FlowMod { priority, ..FlowMod::default() }
}

fn group_mod(command: GroupCommand) -> Message {
    Message::GroupMod(GroupMod { command, group: 1, kind: GroupKind::All, buckets: vec![] })
}

/// A message for bundle 9, which is to be sent with this xid.
fn added(message: &Message, xid: u32) -> Message {
    let mut bytes = Vec::new();
    encode(message, xid, &mut bytes);
    Message::BundleAdd(BundleAdd { bundle: 9, flags: FLAGS, message: bytes })
}

impl Peer {
    /// Adds a message to bundle 9.
    fn add(&mut self, bench: &mut Bench, message: &Message) -> Vec<Message> {
        let added = added(message, 77);
        self.ask(bench, &added)
    }

    fn control(&mut self, bench: &mut Bench, kind: BundleControlType) -> BundleControlType {
        match &self.ask(bench, &control(kind))[..] {
            [Message::BundleControl(BundleControl { bundle: 9, kind, .. })] => *kind,
            other => panic!("{kind:?} was answered by {other:?}"),
        }
    }
}

#[test]
fn a_bundle_is_made_all_at_once() {
    use BundleControlType::*;
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    assert_eq!(peer.control(&mut bench, OpenRequest), OpenReply);
    for message in [group_mod(GroupCommand::Add), flow_mod(rule(1)), flow_mod(rule(2))] {
        assert!(peer.add(&mut bench, &message).is_empty());
    }
    let frame = PacketOut {
        buffer_id: NO_BUFFER,
        in_port: PortNo::CONTROLLER,
        actions: [OfAction::Output { port: PortNo::TABLE, max_len: 0 }].into(),
        data: vec![0; 60],
    };
    peer.add(&mut bench, &Message::PacketOut(frame));
    let down = PortMod {
        number: PortNo(1),
        hw_addr: [2, 0, 0, 0, 0, 1],
        config: PortConfig::PORT_DOWN,
        mask: PortConfig::PORT_DOWN,
        advertise: 0,
    };
    peer.add(&mut bench, &Message::PortMod(down));
    assert_eq!(peer.control(&mut bench, CloseRequest), CloseReply);
    assert_eq!((bench.rules(), bench.agent.tables().groups().count()), (0, 0));
    assert_eq!(bench.datapath.told, []);

    let answers = peer.ask(&mut bench, &control(CommitRequest));
    assert!(
        matches!(answers[..], [Message::PortStatus(_), Message::BundleControl(BundleControl { kind: CommitReply, .. })]),
        "{answers:?}"
    );
    assert_eq!((bench.rules(), bench.agent.tables().groups().count()), (2, 1));
    // The frame meets the new rules.
    assert!(matches!(bench.datapath.told[..], [Told::Publish { rules: 2 }, Told::Inject { .. }]), "{:?}", bench.datapath.told);
    assert_eq!(peer.refused(&mut bench, &control(CommitRequest)), BundleFailed::BadId.into());
}

#[test]
fn a_bundle_with_a_message_that_fails_changes_nothing() {
    use BundleControlType::*;
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    peer.ask(&mut bench, &flow_mod(FlowMod { flags: RuleFlags::SEND_FLOW_REM, hard_timeout: 100, ..rule(7) }));
    let before = bench.agent.tables().epoch();
    peer.control(&mut bench, OpenRequest);
    peer.add(&mut bench, &flow_mod(FlowMod { command: FlowModCommand::Delete, ..rule(0) }));
    peer.add(&mut bench, &group_mod(GroupCommand::Add));
    peer.add(&mut bench, &flow_mod(rule(8)));
    // By another xid, to tell which one failed.
    let overlapping = flow_mod(FlowMod { flags: RuleFlags::CHECK_OVERLAP, ..rule(8) });
    peer.send(&added(&overlapping, 66), 66);
    bench.turn();
    assert!(peer.received().is_empty());
    peer.send(&control(CommitRequest), 55);
    bench.turn();
    let answers = peer.received();
    let [(66, Message::Error(first)), (55, Message::Error(second))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(first.error_code(), Some(FlowModFailed::Overlap.into()));
    assert!(matches!(decode(first.request()), Ok(Message::FlowMod(_))), "the error brings back the message that failed");
    assert_eq!(second.error_code(), Some(BundleFailed::MsgFailed.into()));
    assert_eq!((bench.rules(), bench.agent.tables().groups().count(), bench.agent.tables().epoch()), (1, 0, before));
    // The rule is there with its timeout, and nobody was told that it was deleted.
    bench.now = 101 * SECOND;
    bench.tick();
    assert!(peer.received().iter().any(|(_, message)| matches!(message, Message::FlowRemoved(_))));
    assert_eq!(bench.rules(), 0);
}

#[test]
fn what_can_not_be_with_bundles_has_its_error() {
    use BundleControlType::*;
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    for kind in [CloseRequest, DiscardRequest, CommitRequest] {
        assert_eq!(peer.refused(&mut bench, &control(kind)), BundleFailed::BadId.into());
    }
    let flags = |flags| Message::BundleControl(BundleControl { bundle: 9, kind: OpenRequest, flags });
    assert_eq!(peer.refused(&mut bench, &flags(4)), BundleFailed::BadFlags.into());
    assert_eq!(peer.refused(&mut bench, &control(OpenReply)), BundleFailed::BadType.into());
    peer.control(&mut bench, OpenRequest);
    assert_eq!(peer.refused(&mut bench, &control(OpenRequest)), BundleFailed::BundleExist.into());
    let other_flags = Message::BundleControl(BundleControl { bundle: 9, kind: CloseRequest, flags: ATOMIC });
    assert_eq!(peer.refused(&mut bench, &other_flags), BundleFailed::BadFlags.into());
    // Messages that can't be in a bundle, and one that is wrong in itself.
    for message in [Message::BarrierRequest, Message::EchoRequest(vec![]), control(OpenRequest)] {
        let added = added(&message, 77);
        assert_eq!(peer.refused(&mut bench, &added), BundleFailed::MsgUnsup.into());
    }
    let mut bytes = Vec::new();
    encode(&flow_mod(rule(1)), 77, &mut bytes);
    bytes[25] = 9;
    let wrong = Message::BundleAdd(BundleAdd { bundle: 9, flags: FLAGS, message: bytes });
    assert_eq!(peer.refused(&mut bench, &wrong), FlowModFailed::BadCommand.into());
    peer.control(&mut bench, CloseRequest);
    assert_eq!(peer.refused(&mut bench, &control(CloseRequest)), BundleFailed::BundleClosed.into());
    let late = added(&flow_mod(rule(1)), 77);
    assert_eq!(peer.refused(&mut bench, &late), BundleFailed::BundleClosed.into());
    assert_eq!(peer.control(&mut bench, DiscardRequest), DiscardReply);
    // A message opens a bundle if there is none; another connection does not see it.
    assert!(peer.add(&mut bench, &flow_mod(rule(1))).is_empty());
    let mut other = Peer::greeted(&mut bench, Origin::Controller);
    assert_eq!(other.refused(&mut bench, &control(CommitRequest)), BundleFailed::BadId.into());
    assert_eq!(peer.control(&mut bench, CommitRequest), CommitReply);
    assert_eq!(bench.rules(), 1);

    for bundle in 100..116 {
        let open = Message::BundleControl(BundleControl { bundle, kind: OpenRequest, flags: 0 });
        assert!(matches!(peer.ask(&mut bench, &open)[..], [Message::BundleControl(_)]));
    }
    assert_eq!(peer.refused(&mut bench, &control(OpenRequest)), BundleFailed::OutOfBundles.into());
    // A slave has none.
    other.ask(&mut bench, &role(Role::Slave, 1));
    assert_eq!(other.refused(&mut bench, &control(OpenRequest)), BadRequest::IsSlave.into());
}

#[test]
fn a_bundle_that_takes_too_long_is_discarded() {
    use BundleControlType::*;
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    peer.control(&mut bench, OpenRequest);
    bench.now += 9 * SECOND;
    assert!(peer.add(&mut bench, &flow_mod(rule(1))).is_empty());
    bench.now += 9 * SECOND;
    bench.tick();
    let answers = |peer: &mut Peer| -> Vec<_> {
        peer.received().into_iter().filter(|(_, message)| !matches!(message, Message::EchoRequest(_))).collect()
    };
    assert!(answers(&mut peer).is_empty());
    peer.send(&Message::EchoReply(vec![]), 0);
    bench.turn();
    bench.now += SECOND;
    bench.tick();
    let answers = answers(&mut peer);
    let [(77, Message::Error(error))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(error.error_code(), Some(BundleFailed::Timeout.into()));
    assert_eq!(peer.refused(&mut bench, &control(CommitRequest)), BundleFailed::BadId.into());
}

/// What a request for table features is answered with.
fn features(peer: &mut Peer, bench: &mut Bench, asked: Vec<TableFeatures>) -> Result<Vec<TableFeatures>, ErrorCode> {
    let mut features = Vec::new();
    let mut request = Vec::new();
    encode(&Message::MultipartRequest(Box::new(MultipartRequest::TableFeatures(asked))), 77, &mut request);
    peer.send_all(bench, &request);
    loop {
        bench.turn();
        let messages: Vec<_> = peer.received().into_iter().map(|(_, message)| message).collect();
        for message in messages {
            match message {
                Message::MultipartReply(MultipartReply { body: MultipartBody::TableFeatures(some), more }) => {
                    features.extend(some);
                    if !more {
                        return Ok(features);
                    }
                }
                Message::Error(error) => return Err(error.error_code().unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn tables_are_given_names_by_a_request_of_several_messages() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    let can = features(&mut peer, &mut bench, vec![]).unwrap();
    assert_eq!((can.len(), can[3].name.as_str(), can[3].max_entries), (TABLE_COUNT, "", 1_000_000));
    let mut named = can.clone();
    named.iter_mut().for_each(|table| table.name = format!("table {}", table.table));
    // Less may be asked for than there is, and the most entries are not the controller's to say.
    named[0].properties.pop();
    (named[1].metadata_write, named[1].max_entries) = (0xff, 5);
    let got = features(&mut peer, &mut bench, named.clone()).unwrap();
    assert_eq!((got[0].name.as_str(), got[253].name.as_str(), got[1].max_entries), ("table 0", "table 253", 1_000_000));
    assert_eq!(got[0].properties, can[0].properties);

    let refused = |peer: &mut Peer, bench: &mut Bench, change: &dyn Fn(&mut Vec<TableFeatures>)| {
        let mut asked = named.clone();
        asked[7].name = "seven".into();
        change(&mut asked);
        let error = features(peer, bench, asked).unwrap_err();
        assert_eq!(features(peer, bench, vec![]).unwrap()[7].name, "table 7", "nothing is changed");
        error
    };
    let mut case = |expected: TableFeaturesFailed, change: &dyn Fn(&mut Vec<TableFeatures>)| {
        assert_eq!(refused(&mut peer, &mut bench, change), expected.into());
    };
    case(TableFeaturesFailed::Eperm, &|asked| drop(asked.pop()));
    case(TableFeaturesFailed::BadTable, &|asked| asked[3].table = 254);
    case(TableFeaturesFailed::BadTable, &|asked| asked[3].table = 4);
    case(TableFeaturesFailed::BadArgument, &|asked| asked[3].properties[1].ids.push(FeatureId::Table(254)));
    case(TableFeaturesFailed::BadArgument, &|asked| asked[3].properties[2].ids.push(FeatureId::Type(1)));
    case(TableFeaturesFailed::BadArgument, &|asked| {
        asked[3].properties[6].ids.push(FeatureId::Field { field: datapath::key::Field::EthType, masked: false });
    });
    case(TableFeaturesFailed::BadArgument, &|asked| {
        asked[3].properties[4].ids.push(FeatureId::Field { field: datapath::key::Field::EthType, masked: true });
    });
    case(TableFeaturesFailed::BadType, &|asked| asked[3].properties[0].kind = 0xfffe);
    let mut slave = Peer::greeted(&mut bench, Origin::Controller);
    slave.ask(&mut bench, &role(Role::Slave, 1));
    assert_eq!(features(&mut slave, &mut bench, named).unwrap_err(), BadRequest::IsSlave.into());
    assert_eq!(features(&mut slave, &mut bench, vec![]).unwrap()[9].name, "table 9");
}

/// A multipart request of this type as bytes, with another to follow or not.
fn part(kind: u16, xid: u32, more: bool, body: &[u8]) -> Vec<u8> {
    let head = [&[4, 18, 0, 0], &xid.to_be_bytes()[..], &kind.to_be_bytes(), &[0, more.into(), 0, 0, 0, 0]].concat();
    let mut message = [&head[..], body].concat();
    let length = (message.len() as u16).to_be_bytes();
    message[2..4].copy_from_slice(&length);
    message
}

#[test]
fn parts_of_requests_are_put_together_within_bounds() {
    use std::io::Write;
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    let send = |peer: &mut Peer, bench: &mut Bench, bytes: &[u8]| {
        peer.stream.write_all(bytes).unwrap();
        bench.turn();
        peer.received()
    };
    // A request for port statistics in two pieces, with another request between them.
    assert!(send(&mut peer, &mut bench, &part(4, 5, true, &[0xff, 0xff])).is_empty());
    assert!(matches!(send(&mut peer, &mut bench, &part(3, 6, false, &[]))[..], [(6, Message::MultipartReply(_)), ..]));
    let answers = send(&mut peer, &mut bench, &part(4, 5, false, &[0xff, 0xff, 0, 0, 0, 0]));
    assert!(matches!(answers[..], [(5, Message::MultipartReply(MultipartReply { body: MultipartBody::Port(_), .. }))]), "{answers:?}");
    // Two at once are too many.
    let error = |answers: Vec<(u32, Message)>| match &answers[..] {
        [(xid, Message::Error(error))] => (*xid, error.error_code().unwrap()),
        other => panic!("{other:?}"),
    };
    assert!(send(&mut peer, &mut bench, &part(12, 7, true, &[])).is_empty());
    let answers = send(&mut peer, &mut bench, &part(12, 8, true, &[]));
    assert_eq!(error(answers), (8, BadRequest::MultipartBufferOverflow.into()));
    // And so is one without end.
    let piece = part(12, 7, true, &[0; 60_000]);
    let answer = (0..100).map(|_| send(&mut peer, &mut bench, &piece)).find(|answers| !answers.is_empty()).unwrap();
    assert_eq!(error(answer), (7, BadRequest::MultipartBufferOverflow.into()));
    // Who takes too long begins anew.
    assert!(send(&mut peer, &mut bench, &part(12, 9, true, &[])).is_empty());
    bench.now += 10 * SECOND;
    bench.tick();
    let answers: Vec<_> = peer.received().into_iter().filter(|(_, message)| !matches!(message, Message::EchoRequest(_))).collect();
    assert_eq!(error(answers), (9, Onf::MultipartRequestTimeout.into()));
    let answers = send(&mut peer, &mut bench, &part(12, 9, false, &[]));
    assert!(matches!(answers[0], (9, Message::MultipartReply(_))), "{answers:?}");
}

#[test]
fn many_messages_fit_a_bundle_and_what_is_no_rule_of_it_stays() {
    use BundleControlType::*;
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    peer.ask(&mut bench, &flow_mod(FlowMod { table: 3, ..rule(1) }));
    peer.control(&mut bench, OpenRequest);
    for i in 0..20_000u32 {
        let matching = Match::ANY.with(datapath::key::Field::Metadata, i.into());
        peer.send(&added(&flow_mod(FlowMod { matching, ..rule(5) }), i), i);
        if i % 50 == 0 {
            bench.turn();
        }
    }
    assert_eq!(peer.control(&mut bench, CommitRequest), CommitReply);
    assert_eq!(bench.rules(), 20_001);
}

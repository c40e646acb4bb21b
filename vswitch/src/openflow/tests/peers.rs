//! Controllers that are played here, message by message.

use std::io::{Read, Write};
use std::time::Duration;

use datapath::action::ToController;
use datapath::key::{Field, Match};
use datapath::tables::{FlowMod, FlowModCommand, RemovedReason, RuleFlags};

use super::*;
use crate::config::{Version, Versions};
use crate::openflow::wire::error::*;
use crate::openflow::wire::*;

/// One end of a connection.
pub struct Peer {
    pub id: ConnectionId,
    pub stream: UnixStream,
    dialect: Dialect,
    input: Vec<u8>,
}

impl Peer {
    pub fn raw(bench: &mut Bench, origin: Origin) -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let id = bench.connect(far, origin).unwrap();
        Self { id, stream: near, dialect: Dialect::new(VERSION), input: Vec::new() }
    }

    /// One that has said hello and been greeted.
    pub fn greeted(bench: &mut Bench, origin: Origin) -> Self {
        Self::speaking(bench, origin, Version::V13)
    }

    /// One that has said hello in this version and been greeted.
    pub fn speaking(bench: &mut Bench, origin: Origin, version: Version) -> Self {
        let mut peer = Self::raw(bench, origin);
        peer.dialect = Dialect::new(version.wire());
        let answers = peer.ask(bench, &Message::Hello(Hello::of(version.wire())));
        assert!(matches!(answers[..], [Message::Hello(_)]), "{answers:?}");
        peer
    }

    pub fn send(&mut self, message: &Message, xid: u32) {
        let mut bytes = Vec::new();
        self.dialect.encode(message, xid, &mut bytes);
        // What is said of the messages to come is meant for both sides.
        let _ = self.dialect.decode(&bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Sends more than fits the socket.
    pub fn send_all(&mut self, bench: &mut Bench, bytes: &[u8]) {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(_) => bench.turn(),
            }
        }
    }

    pub fn read(&mut self) -> bool {
        let mut chunk = vec![0; 1 << 20];
        match self.stream.read(&mut chunk) {
            Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            Err(_) => return false,
        }
        true
    }

    /// What has come.
    pub fn received(&mut self) -> Vec<(u32, Message)> {
        self.read();
        let mut messages = Vec::new();
        while let Some(header) = Header::decode(&self.input) {
            let length = usize::from(header.length);
            if self.input.len() < length {
                break;
            }
            messages.push((header.xid, self.dialect.decode(&self.input[..length]).unwrap()));
            self.input.drain(..length);
        }
        messages
    }

    /// The ports of the packet-ins that have come.
    pub fn ports(&mut self) -> Vec<u64> {
        let port = |message| match message {
            Message::PacketIn(packet_in) => Field::InPort.read(packet_in.matching.value()) as u64,
            other => panic!("{other:?}"),
        };
        self.received().into_iter().map(|(_, message)| port(message)).collect()
    }

    /// Sends a message and gives all that comes then.
    pub fn ask(&mut self, bench: &mut Bench, message: &Message) -> Vec<Message> {
        self.send(message, 77);
        bench.turn();
        self.received().into_iter().map(|(_, message)| message).collect()
    }

    /// Sends a message that is refused, and gives the error.
    pub fn refused(&mut self, bench: &mut Bench, message: &Message) -> ErrorCode {
        match &self.ask(bench, message)[..] {
            [Message::Error(error)] => {
                assert_eq!(Header::decode(error.request()).map(|header| header.xid), Some(77));
                error.error_code().unwrap()
            }
            other => panic!("{message:?} was answered by {other:?}"),
        }
    }
}

pub fn flow_mod(flow_mod: FlowMod) -> Message {
    Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER }))
}

pub fn to_controller(reason: u8) -> ToController {
    ToController { max_len: 128, reason, ..ToController::default() }
}

pub fn role(role: Role, generation_id: u64) -> Message {
    Message::RoleRequest(RoleMessage { role: Some(role), generation_id: Some(generation_id) })
}

#[test]
fn versions_are_negotiated() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut newer = Peer::raw(&mut bench, Origin::Listener);
    newer.stream.write_all(&[6, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x52]).unwrap();
    bench.turn();
    assert!(matches!(newer.received()[..], [(_, Message::Hello(Hello { versions: 0x12 }))]));
    assert!(matches!(newer.ask(&mut bench, &Message::FeaturesRequest)[..], [Message::FeaturesReply(_)]));

    // One that speaks OpenFlow 1.1 and 1.2.
    let mut other = Peer::raw(&mut bench, Origin::Listener);
    other.stream.write_all(&[3, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x0c]).unwrap();
    bench.turn();
    let answers = other.received();
    let [(_, Message::Hello(_)), (1, Message::Error(error))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(error.error_code(), Some(HelloFailed::Incompatible.into()));
    assert!(!bench.agent.is_connected(other.id) && bench.agent.is_connected(newer.id));

    let mut rude = Peer::raw(&mut bench, Origin::Listener);
    let answers = rude.ask(&mut bench, &Message::BarrierRequest);
    assert!(matches!(answers[..], [Message::Hello(_), Message::Error(_)]), "{answers:?}");
    assert!(!bench.agent.is_connected(rude.id));
}

#[test]
fn the_highest_version_that_both_sides_know_is_spoken() {
    let hello = |version: u8, bitmap: Option<u8>| match bitmap {
        Some(bitmap) => vec![version, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, bitmap],
        None => vec![version, 0, 0, 8, 0, 0, 0, 1],
    };
    let spoken = |offered: &[Version], hello: &[u8]| {
        let openflow = OpenFlow { versions: Versions::of(offered), ..OpenFlow::default() };
        let mut bench = Bench::with(Settings { openflow, ..settings(FailMode::Secure, false) });
        let mut peer = Peer::raw(&mut bench, Origin::Listener);
        peer.stream.write_all(hello).unwrap();
        bench.turn();
        let [(_, Message::Hello(ours)), ..] = peer.received()[..] else { panic!("no hello") };
        assert_eq!(ours.versions, Versions::of(offered).bitmap());
        bench.agent.connections().next().and_then(|(_, status)| status.version)
    };
    let both = [Version::V10, Version::V13];
    assert_eq!(spoken(&both, &hello(1, None)), Some(Version::V10));
    assert_eq!(spoken(&both, &hello(4, None)), Some(Version::V13));
    assert_eq!(spoken(&both, &hello(6, None)), Some(Version::V13));
    assert_eq!(spoken(&both, &hello(6, Some(0b110_0010))), Some(Version::V10));
    assert_eq!(spoken(&both, &hello(6, Some(0b111_0010))), Some(Version::V13));
    assert_eq!(spoken(&both, &hello(6, Some(0b110_0000))), None);
    assert_eq!(spoken(&[Version::V10], &hello(4, None)), Some(Version::V10));
    assert_eq!(spoken(&[Version::V13], &hello(1, None)), None);
}

#[test]
fn a_message_without_sense_is_answered_and_the_next_is_understood() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    peer.stream.write_all(&[4, 99, 0, 12, 0, 0, 0, 5, 1, 2, 3, 4]).unwrap();
    peer.stream.write_all(&[1, 5, 0, 8, 0, 0, 0, 6]).unwrap();
    let answers = peer.ask(&mut bench, &Message::EchoRequest(b"still there".to_vec()));
    let [Message::Error(kind), Message::Error(version), Message::EchoReply(data)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(kind, &Error::new(BadRequest::BadType.into(), &[4, 99, 0, 12, 0, 0, 0, 5, 1, 2, 3, 4]));
    assert_eq!(version, &Error::new(BadRequest::BadVersion.into(), &[1, 5, 0, 8, 0, 0, 0, 6]));
    assert_eq!(data, b"still there");
    assert_eq!(peer.refused(&mut bench, &Message::BarrierReply), BadRequest::BadType.into());

    // But behind a length that can't be, nothing is understood.
    peer.stream.write_all(&[4, 2, 0, 3, 0, 0, 0, 9]).unwrap();
    bench.turn();
    let answers = peer.received();
    assert!(matches!(&answers[..], [(9, Message::Error(error))] if (error.kind, error.code) == (1, 6)), "{answers:?}");
    assert!(!bench.agent.is_connected(peer.id));
}

#[test]
fn a_barrier_is_answered_after_all_workers_have_what_was_changed() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    for priority in 0..100 {
        peer.send(&flow_mod(FlowMod { priority, ..FlowMod::default() }), 1);
    }
    assert!(matches!(peer.ask(&mut bench, &Message::BarrierRequest)[..], [Message::BarrierReply]));
    assert_eq!(bench.datapath.told, [Told::Publish { rules: 100 }, Told::Barrier]);
}

#[test]
fn changes_without_barriers_are_published_soon_and_together() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    bench.now = SECOND;
    for priority in 0..100 {
        peer.send(&flow_mod(FlowMod { priority, ..FlowMod::default() }), 1);
        bench.turn_once();
    }
    assert_eq!(bench.datapath.told, [Told::Publish { rules: 1 }], "the first at once");
    let due = bench.agent.due().unwrap();
    assert!(due > bench.now && due < bench.now + SECOND / 10);
    bench.now = due;
    bench.turn_once();
    assert_eq!(bench.datapath.told[1..], [Told::Publish { rules: 100 }], "the others together");
    assert_eq!(bench.agent.due(), None);

    // A stream that goes on is published from time to time, and one that pauses is not made to wait.
    for millisecond in 0..100 {
        bench.now = 2 * SECOND + millisecond * SECOND / 1000;
        peer.send(&flow_mod(FlowMod { priority: 100, hard_timeout: millisecond as u16, ..FlowMod::default() }), 1);
        bench.turn_once();
    }
    assert_eq!(bench.datapath.told[2..], [Told::Publish { rules: 101 }, Told::Publish { rules: 101 }], "at its start, and after a while");
    assert!(bench.agent.due().unwrap() <= bench.now + SECOND / 500);
    bench.turn();
    assert_eq!(bench.datapath.told.len(), 5);
    bench.datapath.told.truncate(2);

    // A port is not made to wait.
    peer.send(&flow_mod(FlowMod { command: FlowModCommand::Delete, ..FlowMod::default() }), 1);
    bench.turn_once();
    assert_eq!(bench.datapath.told.len(), 2);
    bench.agent.set_link(PortNo(1), false).unwrap();
    bench.turn_once();
    assert_eq!(bench.datapath.told[2..], [Told::Publish { rules: 0 }]);
}

#[test]
fn a_frame_is_sent_out_by_what_was_said_before() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    peer.send(&flow_mod(FlowMod::default()), 1);
    let actions = vec![OfAction::Output { port: PortNo::TABLE, max_len: 0 }];
    let good = PacketOut { buffer_id: NO_BUFFER, in_port: PortNo(1), actions: actions.clone().into(), data: vec![0; 60] };
    peer.send(&Message::PacketOut(good.clone()), 2);
    bench.turn();
    assert_eq!(
        bench.datapath.told,
        [Told::Publish { rules: 1 }, Told::Inject { in_port: PortNo(1), frame: vec![0; 60], actions: actions.into() }]
    );
    let refused = |peer: &mut Peer, bench: &mut Bench, bad: PacketOut| peer.refused(bench, &Message::PacketOut(bad));
    assert_eq!(refused(&mut peer, &mut bench, PacketOut { buffer_id: 3, ..good.clone() }), BadRequest::BufferUnknown.into());
    assert_eq!(refused(&mut peer, &mut bench, PacketOut { data: vec![0; 13], ..good.clone() }), BadRequest::BadPacket.into());
    let group = PacketOut { actions: [OfAction::Group(1)].into(), ..good };
    assert_eq!(refused(&mut peer, &mut bench, group), BadAction::BadOutGroup.into());
    assert_eq!(bench.datapath.told.len(), 2);
}

#[test]
fn a_flow_mod_with_a_buffer_changes_nothing() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    let buffered = Message::FlowMod(Box::new(FlowModMessage { flow_mod: FlowMod::default(), buffer_id: 1 }));
    assert_eq!(peer.refused(&mut bench, &buffered), BadRequest::BufferUnknown.into());
    assert_eq!(bench.rules(), 0);
}

#[test]
fn a_removal_is_told_once_with_its_final_counters() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    let matching = Match::ANY.with(Field::InPort, 1);
    let silent = FlowMod { priority: 5, ..FlowMod::default() };
    let told = FlowMod { matching, cookie: 7, idle_timeout: 3, flags: RuleFlags::SEND_FLOW_REM, ..FlowMod::default() };
    peer.send(&flow_mod(silent), 1);
    peer.send(&flow_mod(told.clone()), 2);
    bench.turn();
    // Frames that the workers have counted and not credited yet when the rule goes.
    bench.datapath.unsettled = 11;
    bench.now = 2 * SECOND + 500_000_000;
    peer.send(&flow_mod(FlowMod { command: FlowModCommand::Delete, ..FlowMod::default() }), 3);
    let answers = peer.ask(&mut bench, &Message::BarrierRequest);
    let [Message::FlowRemoved(removed), Message::BarrierReply] = &answers[..] else { panic!("{answers:?}") };
    let expected = FlowRemoved {
        cookie: 7,
        priority: 0x8000,
        reason: RemovedReason::Delete,
        table: 0,
        age: Age { seconds: 2, nanoseconds: 500_000_000 },
        idle_timeout: 3,
        hard_timeout: 0,
        frames: 11,
        bytes: 660,
        matching,
    };
    assert_eq!(**removed, expected);

    peer.send(&flow_mod(told), 4);
    bench.turn();
    bench.now += 4 * SECOND;
    bench.tick();
    let answers = peer.received();
    assert!(matches!(&answers[..], [(0, Message::FlowRemoved(removed))] if removed.reason == RemovedReason::IdleTimeout), "{answers:?}");
    assert_eq!(bench.rules(), 0);
}

#[test]
fn asynchronous_messages_go_to_those_who_want_them() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut controller = Peer::greeted(&mut bench, Origin::Controller);
    let mut listener = Peer::greeted(&mut bench, Origin::Listener);
    let mut count = |bench: &mut Bench, reason: u8| {
        bench.packet_in(1, &to_controller(reason), vec![0; 60]);
        bench.turn();
        [&mut controller, &mut listener].map(|peer| peer.received().len())
    };
    assert_eq!(count(&mut bench, 1), [1, 0]);
    assert_eq!(count(&mut bench, 2), [0, 0], "an expired TTL is only told to those who ask");
    listener.ask(&mut bench, &Message::SetConfig(Config { flags: 0, miss_send_len: 64 }));
    let wants = Async { packet_in: [0b100, 0], ..Async::DEFAULT };
    let gives = |bench: &Bench| bench.datapath.tables.as_ref().expect("they were published").invalid_ttl_to_controller();
    assert!(!gives(&bench), "the workers drop what nobody wants");
    controller.ask(&mut bench, &Message::SetAsync(wants));
    assert!(gives(&bench));
    let answers = controller.ask(&mut bench, &Message::GetAsyncRequest);
    assert!(matches!(answers[..], [Message::GetAsyncReply(now)] if now == wants), "{answers:?}");
    let mut count = |bench: &mut Bench, reason: u8| {
        bench.packet_in(1, &to_controller(reason), vec![0; 60]);
        bench.turn();
        [&mut controller, &mut listener].map(|peer| peer.received().len())
    };
    assert_eq!(count(&mut bench, 1), [0, 1]);
    assert_eq!(count(&mut bench, 2), [1, 0]);

    // Ports come and go.
    bench.agent.add_port(port(9, "new"), 0).unwrap();
    bench.agent.set_link(PortNo(9), true).unwrap();
    bench.agent.set_link(PortNo(9), false).unwrap();
    bench.agent.remove_port(PortNo(9)).unwrap();
    bench.turn();
    let reasons: Vec<_> = listener
        .received()
        .into_iter()
        .map(|(_, message)| match message {
            Message::PortStatus(status) => (status.reason, status.port.state),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reasons, [(PortReason::Add, LIVE), (PortReason::Modify, LINK_DOWN), (PortReason::Delete, LINK_DOWN)]);

    // A port can be told not to bother controllers.
    let quiet = PortMod {
        number: PortNo(1),
        hw_addr: [2, 0, 0, 0, 0, 1],
        config: PortConfig::NO_PACKET_IN,
        mask: PortConfig::NO_PACKET_IN,
        advertise: 0,
    };
    let told = listener.ask(&mut bench, &Message::PortMod(quiet));
    assert!(matches!(told[..], [Message::PortStatus(_)]), "{told:?}");
    let told = listener.ask(&mut bench, &Message::PortMod(quiet));
    assert!(told.is_empty(), "it was quiet already: {told:?}");
    bench.packet_in(1, &to_controller(1), vec![0; 60]);
    bench.turn();
    assert_eq!(listener.received().len(), 0);
    assert_eq!(listener.refused(&mut bench, &Message::PortMod(PortMod { number: PortNo(7), ..quiet })), PortModFailed::BadPort.into());
    assert_eq!(listener.refused(&mut bench, &Message::PortMod(PortMod { hw_addr: [0; 6], ..quiet })), PortModFailed::BadHwAddr.into());
    assert_eq!(listener.refused(&mut bench, &Message::PortMod(PortMod { advertise: 1, ..quiet })), PortModFailed::BadAdvertise.into());
}

#[test]
fn there_is_one_master_and_slaves_change_nothing() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut first = Peer::greeted(&mut bench, Origin::Controller);
    let mut second = Peer::greeted(&mut bench, Origin::Controller);
    let has = |answers: Vec<Message>, role: Role, generation: u64| {
        assert!(
            matches!(answers[..], [Message::RoleReply(reply)] if reply == RoleMessage { role: Some(role), generation_id: Some(generation) }),
            "{answers:?}"
        );
    };
    let nothing = Message::RoleRequest(RoleMessage { role: None, generation_id: Some(0) });
    has(first.ask(&mut bench, &nothing), Role::Equal, u64::MAX);
    has(first.ask(&mut bench, &role(Role::Master, 5)), Role::Master, 5);
    has(second.ask(&mut bench, &role(Role::Master, 6)), Role::Master, 6);
    has(first.ask(&mut bench, &nothing), Role::Slave, 6);
    assert_eq!(first.refused(&mut bench, &role(Role::Master, 5)), RoleRequestFailed::Stale.into());
    assert_eq!(first.refused(&mut bench, &flow_mod(FlowMod::default())), BadRequest::IsSlave.into());
    assert_eq!(bench.rules(), 0);
    assert!(matches!(first.ask(&mut bench, &Message::BarrierRequest)[..], [Message::BarrierReply]));
    // A slave is told of ports only.
    bench.packet_in(1, &to_controller(1), vec![0; 60]);
    bench.agent.set_link(PortNo(1), false).unwrap();
    bench.turn();
    assert!(matches!(first.received()[..], [(_, Message::PortStatus(_))]));
    assert_eq!(second.received().len(), 2);
    has(first.ask(&mut bench, &role(Role::Equal, 0)), Role::Equal, 6);
    assert_eq!(first.ask(&mut bench, &flow_mod(FlowMod::default())).len(), 0);
    assert_eq!(bench.rules(), 1);
    // Generations go round: this one is just before 6.
    assert_eq!(second.refused(&mut bench, &role(Role::Slave, u64::MAX)), RoleRequestFailed::Stale.into());
}

#[test]
fn a_standalone_switch_without_controllers_has_one_rule_that_is_like_any_other() {
    let mut bench = Bench::new(FailMode::Standalone, false);
    assert_eq!(bench.rules(), 1);
    assert_eq!(bench.datapath.tables.as_ref().unwrap().rules(&RuleFilter::ALL).count(), 1, "it is published");
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    peer.ask(&mut bench, &flow_mod(FlowMod { command: FlowModCommand::Delete, ..FlowMod::default() }));
    bench.now = 100 * SECOND;
    bench.tick();
    assert_eq!(bench.rules(), 0);
    assert_eq!(Bench::new(FailMode::Secure, false).rules(), 0);
}

#[test]
fn a_standalone_switch_learns_while_its_controllers_are_away() {
    let mut bench = Bench::new(FailMode::Standalone, true);
    let at = |bench: &mut Bench, seconds: u64| {
        bench.now = seconds * SECOND;
        bench.tick();
        bench.rules()
    };
    assert_eq!([at(&mut bench, 0), at(&mut bench, 14), at(&mut bench, 15)], [0, 0, 1]);
    let mut controller = Peer::greeted(&mut bench, Origin::Controller);
    assert_eq!(at(&mut bench, 16), 0);
    // A rule of the controller's stays when the controller goes, below the one that stands in for it.
    controller.ask(&mut bench, &flow_mod(FlowMod { priority: 0, ..FlowMod::default() }));
    drop(controller);
    assert_eq!([at(&mut bench, 17), at(&mut bench, 18), at(&mut bench, 32), at(&mut bench, 33)], [1, 1, 1, 2]);
    // Whoever deletes all rules meanwhile can't delete that one for long.
    let mut tool = Peer::greeted(&mut bench, Origin::Listener);
    tool.ask(&mut bench, &flow_mod(FlowMod { command: FlowModCommand::Delete, ..FlowMod::default() }));
    assert_eq!([bench.rules(), at(&mut bench, 34), at(&mut bench, 35)], [0, 1, 1]);
    let _back = Peer::greeted(&mut bench, Origin::Controller);
    assert_eq!(at(&mut bench, 36), 0);

    // It takes three probe intervals, however long these are; without probes, as long as with the usual ones.
    for (interval, after) in [(Some(1), 3), (Some(20), 60), (None, 15)] {
        let openflow = OpenFlow { inactivity_probe: interval.map(Duration::from_secs), ..OpenFlow::default() };
        let mut bench = Bench::with(Settings { openflow, ..settings(FailMode::Standalone, true) });
        assert_eq!([at(&mut bench, 0), at(&mut bench, after - 1), at(&mut bench, after)], [0, 0, 1], "{interval:?}");
        let mut secure = Bench::with(Settings { openflow, ..settings(FailMode::Secure, true) });
        assert_eq!([0, after, 1000].map(|second| at(&mut secure, second)), [0, 0, 0]);
    }
}

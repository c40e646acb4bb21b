//! Controllers that are played here, message by message.

use std::io::{Read, Write};
use std::time::Duration;

use datapath::action::ToController;
use datapath::key::{Field, Match};
use datapath::tables::instruction::Instructions;
use datapath::tables::{FlowMod, FlowModCommand, RemovedReason, RuleFlags};

use super::*;
use crate::config::{Rate, Version, Versions};
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
    fn ports(&mut self) -> Vec<u64> {
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

/// Packet-ins at this rate.
fn limited(per_second: u32, burst: u32) -> OpenFlow {
    OpenFlow { packet_ins: Some(Rate { per_second, burst }), ..OpenFlow::default() }
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
fn a_controller_that_does_not_read_loses_packet_ins_and_stalls_nobody() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut slow = Peer::greeted(&mut bench, Origin::Controller);
    let mut quick = Peer::greeted(&mut bench, Origin::Controller);
    let mut got = 0;
    for _ in 0..2000 {
        bench.packet_in(1, &to_controller(1), vec![0; 1500]);
        bench.turn();
        got += quick.received().len();
    }
    assert_eq!(got, 2000);
    let mut late = 0;
    loop {
        bench.turn();
        match slow.received().len() {
            0 => break,
            more => late += more,
        }
    }
    assert!((100..1000).contains(&late), "{late} of 2000 packet-ins were kept for it");
    // It gets new ones again.
    bench.packet_in(1, &to_controller(1), vec![0; 1500]);
    bench.turn();
    assert_eq!(slow.received().len(), 1);
}

#[test]
fn packet_ins_come_by_the_rate_and_ports_take_turns() {
    let mut bench = Bench::with(Settings { openflow: limited(10, 2), ..settings(FailMode::Secure, true) });
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    bench.now = 10 * SECOND;
    for _ in 0..6 {
        bench.packet_in(1, &to_controller(1), vec![0; 60]);
    }
    bench.packet_in(2, &to_controller(1), vec![0; 60]);
    bench.turn_once();
    assert_eq!(peer.ports().len(), 2, "the burst");
    // The other five come each in its time, which the agent asks to be woken at; the one of the other port does not come last.
    let mut order = Vec::new();
    for tenth in 1..=5 {
        let due = 10 * SECOND + tenth * SECOND / 10;
        assert_eq!(bench.agent.due(), Some(due));
        bench.now = due - 1;
        bench.turn_once();
        assert!(peer.ports().is_empty());
        bench.now = due;
        bench.turn_once();
        order.append(&mut peer.ports());
    }
    assert_eq!(order, [1, 2, 1, 1, 1]);
    assert_eq!(bench.agent.due(), None);

    // A rate that is taken back lets all go that wait.
    for _ in 0..6 {
        bench.packet_in(1, &to_controller(1), vec![0; 60]);
    }
    bench.agent.configure(settings(FailMode::Secure, true), bench.now);
    bench.turn_once();
    assert_eq!(peer.ports().len(), 6);
}

#[test]
fn a_rate_limits_each_connection_by_itself_and_waits_for_no_slow_reader() {
    let mut bench = Bench::with(Settings { openflow: limited(1000, 1000), ..settings(FailMode::Secure, true) });
    let mut slow = Peer::greeted(&mut bench, Origin::Controller);
    let mut quick = Peer::greeted(&mut bench, Origin::Controller);
    bench.now = 10 * SECOND;
    let mut got = 0;
    for _ in 0..1000 {
        bench.packet_in(1, &to_controller(1), vec![0; 1500]);
        bench.turn_once();
        got += quick.ports().len();
    }
    assert_eq!(got, 1000);
    // The slow one is behind with reading; nothing is due for it until it reads.
    bench.packet_in(1, &to_controller(1), vec![0; 1500]);
    bench.now += SECOND / 1000;
    bench.turn_once();
    assert_eq!((quick.ports().len(), bench.agent.due()), (1, None));
    let mut late = 0;
    while let more @ 1.. = slow.ports().len() {
        late += more;
        bench.turn_once();
    }
    assert!((100..1000).contains(&late), "{late} of 1001 packet-ins were kept for it");
}

#[test]
fn what_must_not_be_lost_piles_up_to_a_limit() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let slow = Peer::greeted(&mut bench, Origin::Controller);
    let out = |bench: &Bench| bench.agent.connections().next().map_or(0, |(_, status)| status.messages_out);
    // Port-status, of 80 bytes each, within one turn.
    let mut link = true;
    for _ in 0..300_000 {
        link = !link;
        bench.agent.set_link(PortNo(1), link).unwrap();
    }
    let sent = out(&bench);
    assert!((200_000..250_000).contains(&sent), "{sent}");
    bench.turn();
    assert!(!bench.agent.is_connected(slow.id));
}

#[test]
fn a_peer_that_asks_without_reading_is_not_read_any_further() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    fill(&mut bench, &mut peer);
    // 3.3 MB each: far more than what may be queued if all were answered at once.
    let mut request = Vec::new();
    encode(&all_rules(), 1, &mut request);
    let mut asked = 0;
    while asked < 10_000 && peer.stream.write_all(&request).is_ok() {
        asked += 1;
        bench.turn();
    }
    assert!(asked < 10_000, "the socket's buffer fills up at last");
    assert!(bench.agent.is_connected(peer.id));
    // Once it reads, it gets all that it asked for, up to the last request that came through whole.
    let (mut replies, mut rules) = (0, 0);
    while replies < 8 {
        bench.turn();
        for (_, message) in peer.received() {
            let Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(some), more }) = message else { panic!() };
            rules += some.len();
            replies += usize::from(!more);
        }
    }
    assert!(rules >= 8 * 2000);
    drop(peer);
    bench.turn();
}

/// Adds so many rules that a list of them is longer than what is queued for a peer.
fn fill(bench: &mut Bench, peer: &mut Peer) {
    let instructions =
        Instructions { apply: vec![OfAction::Output { port: PortNo(1), max_len: 0 }; 100].into(), ..Instructions::default() };
    for priority in 0..2000 {
        peer.send(&flow_mod(FlowMod { priority, instructions: instructions.clone(), ..FlowMod::default() }), 1);
        bench.turn();
    }
}

fn all_rules() -> Message {
    Message::MultipartRequest(Box::new(MultipartRequest::Flow(RuleFilter::ALL)))
}

#[test]
fn a_peer_that_asks_for_much_work_gets_its_share_of_a_turn() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut busy = Peer::greeted(&mut bench, Origin::Listener);
    let mut other = Peer::greeted(&mut bench, Origin::Listener);
    let aggregate = Message::MultipartRequest(Box::new(MultipartRequest::Aggregate(RuleFilter::ALL)));
    for _ in 0..100 {
        busy.send(&aggregate, 1);
    }
    other.send(&Message::EchoRequest(vec![]), 2);
    bench.turn_once();
    assert_eq!(other.received().len(), 1);
    let first = busy.received().len();
    assert!(first < 10, "{first} requests were answered in one turn");
    assert_eq!(bench.agent.due(), Some(0), "there is more to do, though nothing more comes");
    bench.turn();
    assert_eq!(first + busy.received().len(), 100);
    assert_eq!(bench.agent.due(), None);
}

#[test]
fn a_slow_reader_of_a_long_answer_is_not_taken_for_dead() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    fill(&mut bench, &mut peer);
    peer.send(&all_rules(), 1);
    peer.send(&all_rules(), 1);
    bench.turn();
    for second in 1..60 {
        bench.now = second * SECOND;
        if second % 3 == 0 {
            peer.stream.read_exact(&mut vec![0; 100_000]).unwrap();
        }
        bench.turn();
        bench.tick();
    }
    assert!(bench.agent.is_connected(peer.id));
    for second in [80, 85] {
        assert!(bench.agent.is_connected(peer.id), "it is asked first");
        bench.now = second * SECOND;
        bench.tick();
    }
    assert!(!bench.agent.is_connected(peer.id));
}

#[test]
fn silent_controllers_are_asked_and_dead_ones_dropped() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut alive = Peer::greeted(&mut bench, Origin::Controller);
    let mut dead = Peer::greeted(&mut bench, Origin::Controller);
    let listener = Peer::greeted(&mut bench, Origin::Listener);
    let mute = Peer::raw(&mut bench, Origin::Controller);
    bench.now = 5 * SECOND;
    bench.tick();
    bench.tick();
    assert!(matches!(alive.received()[..], [(0, Message::EchoRequest(_))]), "asked once");
    assert_eq!(dead.received().len(), 1);
    alive.send(&Message::EchoReply(vec![]), 0);
    bench.turn();
    bench.now = 10 * SECOND;
    bench.tick();
    let connected = [&alive, &dead, &listener, &mute].map(|peer| bench.agent.is_connected(peer.id));
    assert_eq!(connected, [true, false, true, false]);
}

#[test]
fn the_probe_interval_is_the_operators() {
    for (interval, asked, ended) in [(Some(1), 1, 2), (Some(60), 60, 120), (None, u64::MAX, u64::MAX)] {
        let openflow = OpenFlow { inactivity_probe: interval.map(Duration::from_secs), ..OpenFlow::default() };
        let mut bench = Bench::with(Settings { openflow, ..settings(FailMode::Secure, true) });
        let mut peer = Peer::greeted(&mut bench, Origin::Controller);
        for second in 0..200 {
            bench.now = second * SECOND;
            bench.tick();
            assert_eq!(bench.agent.is_connected(peer.id), second < ended, "{interval:?}, {second}");
            assert_eq!(peer.received().len(), usize::from(second == asked), "{interval:?}, {second}");
        }
    }
    // Time in which nobody was asked does not count, such as that of a process that was stopped.
    let mut bench = Bench::new(FailMode::Secure, true);
    let peer = Peer::greeted(&mut bench, Origin::Controller);
    bench.now = 1000 * SECOND;
    bench.tick();
    assert!(bench.agent.is_connected(peer.id));
}

#[test]
fn a_controller_that_keeps_the_switch_busy_is_not_taken_for_silent() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    // Each costs a whole turn, so that it is long until the next are read.
    let aggregate = Message::MultipartRequest(Box::new(MultipartRequest::Aggregate(RuleFilter::ALL)));
    for _ in 0..100 {
        peer.send(&aggregate, 1);
    }
    for second in 1..50 {
        bench.now = second * SECOND;
        bench.turn_once();
        bench.agent.tick(&mut bench.datapath, bench.now);
        assert!(bench.agent.is_connected(peer.id), "{second}");
    }
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

#[test]
fn whoever_says_no_hello_is_no_controller() {
    let mut bench = Bench::new(FailMode::Standalone, true);
    let mut mute = Vec::new();
    for second in 0..=15 {
        bench.now = second * SECOND;
        if second % 5 == 0 {
            mute.push(Peer::raw(&mut bench, Origin::Controller));
        }
        let _tool = Peer::greeted(&mut bench, Origin::Listener);
        bench.tick();
        assert_eq!(bench.rules(), usize::from(second == 15), "{second}");
    }
}

#[test]
fn connections_are_counted() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let peers: Vec<_> = (0..64).map(|_| Peer::greeted(&mut bench, Origin::Listener)).collect();
    let connect = |bench: &mut Bench| bench.connect(UnixStream::pair().unwrap().1, Origin::Listener);
    assert_eq!(connect(&mut bench), None);
    drop(peers);
    bench.turn();
    assert!(connect(&mut bench).is_some());
}

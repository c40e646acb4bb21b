//! What is kept for one connection: how far the handshake got, the controller's role, what it wants to be told, and a long reply under way.

use std::collections::VecDeque;
use std::rc::Rc;

use datapath::Nanos;
use datapath::action::{OFPR_INVALID_TTL, OFPR_NO_MATCH};
use datapath::port::PortNo;
use datapath::tables::Removed;

use super::agent::{Bundles, Monitors, flow_removed};
use super::assembly::Assembly;
use super::connection::Connection;
use super::dump::Dump;
use super::packet_in_queue::PacketInQueue;
use super::wire::error::{BadRequest, HelloFailed};
use super::wire::{Async, Error, ErrorCode, Hello, INVALID_TTL_TO_CONTROLLER, Message, PacketInFormat, Role};
use crate::config::{OpenFlow, Version, Versions};
use crate::event::Interest;

/// How long whoever connected to a listener may be silent before it is asked whether it is there; as long again without an answer ends the connection.
const LISTENER_PROBE: Nanos = 60_000_000_000;
/// How long a peer may take to say hello, the TLS handshake included.
const HELLO_PATIENCE: Nanos = 10_000_000_000;
/// The `miss_send_len` of a configured controller (`OFP_DEFAULT_MISS_SEND_LEN`).
const DEFAULT_MISS_SEND_LEN: u16 = 128;
/// The most removed rules that a peer has yet to be told of: more than a mass deletion leaves, and a bound for one that never reads.
const REMOVALS: usize = 2 << 20;
/// How often the output is filled and sent in one go.
const WRITES: usize = 4;

/// How a connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The switch connected to a configured controller.
    Controller,
    /// Somebody connected to one of the switch's listeners. They get no asynchronous messages, unless they ask by setting a `miss_send_len`, as
    /// in Open vSwitch.
    Listener,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// How the connection came about.
    pub origin: Origin,
    /// The controller's target, or that of the listener.
    pub target: String,
    /// Where the peer is: `tcp:ADDRESS:PORT`, `ssl:ADDRESS:PORT` or `unix`.
    pub address: String,
}

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The TLS handshake is under way.
    Handshake,
    /// The peer is to say hello.
    Hello,
    /// OpenFlow is spoken.
    Active,
}

/// How a connection is.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who is at the other end.
    pub peer: Peer,
    /// How far it got.
    pub phase: Phase,
    /// What is spoken.
    pub version: Option<Version>,
    /// The peer's role.
    pub role: Role,
    /// When it began.
    pub since: Nanos,
    /// Messages that came.
    pub messages_in: u64,
    /// Messages that were sent, or are about to be.
    pub messages_out: u64,
    /// Packet-ins that were sent.
    pub packet_ins_sent: u64,
    /// Packet-ins that wait for their turn.
    pub packet_ins_queued: u64,
    /// Packet-ins dropped because the peer is behind with reading.
    pub packet_ins_congested: u64,
    /// Packet-ins dropped because too many waited for their turn.
    pub packet_ins_overrun: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    pub(super) connection: Connection,
    pub(super) peer: Peer,
    pub(super) role: Role,
    pub(super) wants: Async,
    /// The most bytes of a frame that a packet-in carries when no action says otherwise. Frames are never buffered, so all of them come whole; but a listener's
    /// peer that has set none gets no asynchronous messages.
    pub(super) miss_send_len: u16,
    pub(super) packet_in_format: PacketInFormat,
    /// Which frames for controllers are for this one.
    pub(super) controller_id: u16,
    /// A request of which messages are missing.
    pub(super) assembly: Option<Assembly>,
    pub(super) bundles: Bundles,
    pub(super) monitors: Monitors,
    /// What is spoken, once the peer said hello.
    pub(super) version: Option<Version>,
    /// Why it is over, or will be once its output is sent.
    pub(super) ended: Option<String>,
    /// Packet-ins that wait for their turn.
    packet_ins: PacketInQueue,
    packet_ins_sent: u64,
    /// Packet-ins that were dropped because the peer is behind with reading.
    packet_ins_congested: u64,
    /// Whether what was read was too much for one turn.
    pub(super) unfinished: bool,
    /// What is waited for, so that it need not be said twice.
    pub(super) interest: Interest,
    dump: Option<Dump>,
    /// Rules of which the peer is yet to be told that they were removed, and when that was.
    removals: VecDeque<(Removed, Nanos)>,
    /// What the peer may choose from.
    offered: Versions,
    /// When the connection began.
    since: Nanos,
    /// After how long a silence the peer is asked whether it is there, if ever.
    probe_interval: Option<Nanos>,
    /// When something came from the peer last.
    heard: Nanos,
    /// Whether it took something since that was looked at, while it was too far behind to be listened to.
    reads: bool,
    /// When it was asked whether it is there, if nothing came since.
    probed: Option<Nanos>,
}

impl Session {
    /// Greets the peer.
    pub fn new(connection: Connection, peer: Peer, openflow: &OpenFlow, now: Nanos) -> Self {
        let miss_send_len = if peer.origin == Origin::Controller { DEFAULT_MISS_SEND_LEN } else { 0 };
        let offered = openflow.versions;
        let mut session = Self {
            connection,
            peer,
            role: Role::Equal,
            wants: Async::DEFAULT,
            miss_send_len,
            packet_in_format: PacketInFormat::Standard,
            controller_id: 0,
            assembly: None,
            bundles: Bundles::default(),
            monitors: Monitors::default(),
            version: None,
            ended: None,
            packet_ins: PacketInQueue::default(),
            packet_ins_sent: 0,
            packet_ins_congested: 0,
            unfinished: false,
            interest: Interest::Read,
            dump: None,
            removals: VecDeque::new(),
            offered,
            since: now,
            probe_interval: None,
            heard: now,
            reads: false,
            probed: None,
        };
        session.configure(openflow);
        // The header of a hello has the highest version.
        session.connection.dialect.version = offered.highest().wire();
        session.send(&Message::Hello(Hello { versions: offered.bitmap() }), 0);
        session
    }

    /// Takes up what the operator decided since; the version stays.
    pub fn configure(&mut self, openflow: &OpenFlow) {
        self.probe_interval = match self.peer.origin {
            Origin::Controller => openflow.inactivity_probe.map(|interval| interval.as_nanos() as Nanos),
            Origin::Listener => Some(LISTENER_PROBE),
        };
        self.packet_ins.set_rate(openflow.packet_ins);
    }

    /// Sends a packet-in with a frame of `length` bytes from `in_port`, now or when the rate allows it, unless the peer is behind with reading.
    pub fn packet_in(&mut self, in_port: PortNo, packet_in: &Rc<Message>, length: usize, now: Nanos) {
        if self.connection.is_congested() {
            self.packet_ins_congested += 1;
        } else if self.packet_ins.passes(now) {
            self.packet_ins_sent += 1;
            self.send(packet_in, 0);
        } else {
            self.packet_ins.push(in_port, packet_in.clone(), length);
        }
    }

    /// Sends the packet-ins whose time has come.
    pub fn send_packet_ins(&mut self, now: Nanos) {
        while !self.is_over()
            && !self.connection.is_congested()
            && let Some(packet_in) = self.packet_ins.pop(now)
        {
            self.packet_ins_sent += 1;
            self.send(&packet_in, 0);
        }
    }

    /// When the next packet-in may be sent; a peer that is behind with reading is not waited for.
    pub fn packet_in_due(&self) -> Option<Nanos> {
        self.packet_ins.due().filter(|_| !self.connection.is_congested())
    }

    /// How it is.
    pub fn status(&self) -> Status {
        Status {
            peer: self.peer.clone(),
            phase: match self.is_greeted() {
                true => Phase::Active,
                false if self.connection.is_handshaking() => Phase::Handshake,
                false => Phase::Hello,
            },
            version: self.version,
            role: self.role,
            since: self.since,
            messages_in: self.connection.messages_in,
            messages_out: self.connection.messages_out,
            packet_ins_sent: self.packet_ins_sent,
            packet_ins_queued: self.packet_ins.len() as u64,
            packet_ins_congested: self.packet_ins_congested,
            packet_ins_overrun: self.packet_ins.dropped(),
        }
    }

    /// Queues a message, unless the peer has been given up.
    pub fn send(&mut self, message: &Message, xid: u32) {
        if self.is_over() {
            return;
        }
        self.connection.queue(message, xid);
        if self.connection.is_behind()
            && let Err(why) = self.connection.write()
        {
            self.end(why);
        }
    }

    /// Answers `request` with an error.
    pub fn refuse(&mut self, error: ErrorCode, xid: u32, request: &[u8]) {
        tracing::debug!("OpenFlow request refused: {error}");
        self.send(&Message::Error(Error::new(error, request)), xid);
    }

    /// Whether the peer said hello, so that there is a version to speak.
    pub fn is_greeted(&self) -> bool {
        self.version.is_some()
    }

    /// Whether it is at its end.
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// Ends it. What is queued is still sent as far as the socket takes it.
    pub fn end(&mut self, why: impl ToString) {
        self.ended.get_or_insert_with(|| why.to_string());
    }

    /// Whether the next request may be worked off: not before the answer to the last is on its way.
    pub fn takes_requests(&self) -> bool {
        self.ended.is_none() && self.dump.is_none() && !self.connection.is_congested()
    }

    /// Reads what came in.
    pub fn read(&mut self, now: Nanos) {
        match self.connection.read() {
            Ok(true) => self.hear(now),
            Ok(false) => {}
            Err(why) => self.end(why),
        }
    }

    /// Sends what is queued, and goes on with a long reply as there is room. A peer that reads as fast as this writes gets the rest another time.
    pub fn write(&mut self) {
        for _ in 0..WRITES {
            match self.connection.write() {
                Ok(sent) => self.reads |= sent && !self.takes_requests(),
                Err(why) => return self.end(why),
            }
            if self.connection.has_output() || self.dump.is_none() && self.removals.is_empty() {
                return;
            }
            self.send_removals();
            while self.dump.is_some() && !self.connection.is_congested() {
                self.dump_some();
            }
        }
    }

    /// Tells of rules that were removed, if the peer wants to know: of as many as it has room for, and of the others as it reads.
    pub fn tell_removed(&mut self, removed: &[Removed], now: Nanos) {
        let wanted = removed.iter().filter(|removed| self.wants(self.wants.flow_removed, removed.reason as u8));
        let wanted: Vec<_> = wanted.map(|removed| (removed.clone(), now)).collect();
        self.removals.extend(wanted);
        self.send_removals();
        if self.removals.len() > REMOVALS {
            self.end(format!("the peer is {REMOVALS} removed rules behind with reading"));
        }
    }

    fn send_removals(&mut self) {
        while !self.is_over()
            && !self.connection.is_congested()
            && let Some((removed, at)) = self.removals.pop_front()
        {
            self.send(&Message::FlowRemoved(Box::new(flow_removed(&removed, at))), 0);
        }
    }

    /// Begins to send a long reply.
    pub fn begin(&mut self, dump: Dump) {
        self.dump = Some(dump);
        self.dump_some();
    }

    /// Whether a long reply is under way.
    pub fn is_dumping(&self) -> bool {
        self.dump.is_some()
    }

    fn dump_some(&mut self) {
        let Some(dump) = &mut self.dump else { return };
        let (message, xid, more) = dump.next();
        if !more {
            self.dump = None;
        }
        self.send(&message, xid);
    }

    /// Takes the peer's first message, which must be a hello.
    pub fn greet(&mut self, message: Result<Message, ErrorCode>, xid: u32, bytes: &[u8]) {
        match message {
            Ok(Message::Hello(hello)) => {
                let common = hello.negotiate(Hello { versions: self.offered.bitmap() });
                self.version = common.and_then(Version::from_wire);
                if let Some(version) = self.version {
                    self.connection.dialect.version = version.wire();
                }
                match (self.version, self.peer.origin) {
                    (Some(version), Origin::Controller) => {
                        tracing::info!(controller = %self.peer.target, "connected to {}, by OpenFlow {version}", self.peer.address);
                    }
                    (Some(version), Origin::Listener) => {
                        tracing::debug!(listener = %self.peer.target, "{} is connected, by OpenFlow {version}", self.peer.address);
                    }
                    (None, _) => {
                        let (kind, code) = ErrorCode::from(HelloFailed::Incompatible).numbers();
                        let data = format!("this switch speaks OpenFlow {} only", self.offered).into_bytes();
                        self.send(&Message::Error(Error { kind, code, data }), xid);
                        self.end(format!("the peer does not speak OpenFlow {}", self.offered));
                    }
                }
            }
            Ok(Message::Error(error)) => self.end(format!("the peer refused: error type {}, code {}", error.kind, error.code)),
            Ok(_) => {
                self.refuse(BadRequest::BadType.into(), xid, bytes);
                self.end("the peer did not begin with a hello");
            }
            Err(error) => {
                self.refuse(error, xid, bytes);
                self.end(format!("the peer's first message is wrong: {error}"));
            }
        }
    }

    /// Asks a silent peer whether it is there, and ends the connection of one that did not answer.
    pub fn probe(&mut self, now: Nanos) {
        if !self.is_greeted() {
            if now.saturating_sub(self.since) >= HELLO_PATIENCE {
                let what = if self.connection.is_handshaking() { "the TLS handshake" } else { "its hello" };
                self.end(format!("the peer takes too long for {what}"));
            }
            return;
        }
        // One that takes what it is sent is there, and so is one whose messages wait for us.
        if std::mem::take(&mut self.reads) || self.unfinished {
            self.hear(now);
        }
        let Some(interval) = self.probe_interval else { return };
        match self.probed {
            Some(at) if now.saturating_sub(at) >= interval => {
                self.end(format!("the peer was asked whether it is there, and silent for {} s", interval / 1_000_000_000));
            }
            None if now.saturating_sub(self.heard) >= interval => {
                self.probed = Some(now);
                self.send(&Message::EchoRequest(Vec::new()), 0);
            }
            _ => {}
        }
    }

    fn hear(&mut self, now: Nanos) {
        self.heard = now;
        self.probed = None;
    }

    /// Whether the peer wants an asynchronous message of this reason, with `masks` being those for its kind.
    pub fn wants(&self, masks: [u32; 2], reason: u8) -> bool {
        let asked = self.peer.origin == Origin::Controller || self.miss_send_len != 0;
        let mask = masks[usize::from(self.role == Role::Slave)];
        self.is_greeted() && !self.is_over() && asked && reason < 32 && mask >> reason & 1 != 0
    }

    /// Whether the peer wants frames that no rule matches. OpenFlow 1.3 drops them, and has a rule for who wants them.
    pub fn wants_misses(&self) -> bool {
        self.version == Some(Version::V10) && self.wants(self.wants.packet_in, OFPR_NO_MATCH)
    }

    /// Takes what the peer says that it wants to be told. Who connected to a listener asks for asynchronous messages by that, too, as in Open vSwitch.
    pub fn set_async(&mut self, wants: Async) {
        self.wants = wants;
        if self.miss_send_len == 0 {
            self.miss_send_len = DEFAULT_MISS_SEND_LEN;
        }
    }

    /// In OpenFlow 1.0, the flag of a configuration that asks for frames whose TTL ran out ([`INVALID_TTL_TO_CONTROLLER`]), if it is set.
    pub fn invalid_ttl_flag(&self) -> u16 {
        let wanted = self.version == Some(Version::V10) && self.wants.packet_in[0] & 1 << OFPR_INVALID_TTL != 0;
        if wanted { INVALID_TTL_TO_CONTROLLER } else { 0 }
    }

    /// Sets or clears it as in `flags`, and returns the others.
    pub fn take_invalid_ttl_flag(&mut self, flags: u16) -> u16 {
        if self.version != Some(Version::V10) {
            return flags;
        }
        let bit = 1 << OFPR_INVALID_TTL;
        let wanted = if flags & INVALID_TTL_TO_CONTROLLER != 0 { bit } else { 0 };
        self.wants.packet_in[0] = self.wants.packet_in[0] & !bit | wanted;
        flags & !INVALID_TTL_TO_CONTROLLER
    }

    /// What is to be waited for.
    pub fn needs(&self) -> Interest {
        match (self.takes_requests(), self.connection.has_output() || !self.removals.is_empty()) {
            (true, false) if !self.unfinished => Interest::Read,
            (true, true) if !self.unfinished => Interest::ReadWrite,
            _ => Interest::Write,
        }
    }
}

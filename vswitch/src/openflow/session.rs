//! What is kept for one connection: how far the handshake got, the controller's role, what it wants to be told, and a long reply under way.

use std::sync::Arc;
use std::vec;

use datapath::Nanos;
use datapath::tables::Rule;

use super::connection::Connection;
use super::wire::error::{BadRequest, HelloFailed};
use super::wire::{Async, Config, Error, ErrorCode, Hello, Message, MultipartBody, MultipartReply, Role, VERSION};
use crate::event::Interest;

/// A silence of this long makes the switch ask a configured controller whether it is there; as long again without an answer ends the connection.
pub const PROBE_INTERVAL: Nanos = 5_000_000_000;
/// The same for whoever connected to a listener.
const LISTENER_PROBE_INTERVAL: Nanos = 60_000_000_000;
/// The `miss_send_len` of a configured controller (`OFP_DEFAULT_MISS_SEND_LEN`).
const DEFAULT_MISS_SEND_LEN: u16 = 128;
/// The most rules that are written into the output at once. Together they are shorter than what makes a connection be cut off.
const DUMP_CHUNK: usize = 128;

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

/// One connection.
#[derive(Debug)]
pub struct Session {
    pub(super) connection: Connection,
    pub(super) origin: Origin,
    pub(super) role: Role,
    pub(super) wants: Async,
    pub(super) config: Config,
    /// Whether the peer said hello.
    pub(super) greeted: bool,
    /// Why it is over, or will be once its output is sent.
    pub(super) ended: Option<String>,
    /// Packet-ins that the peer was too slow for.
    pub(super) dropped: u64,
    /// Whether what was read was too much for one turn.
    pub(super) unfinished: bool,
    /// What is waited for, so that it need not be said twice.
    pub(super) interest: Interest,
    dump: Option<Dump>,
    /// When something came from the peer last.
    heard: Nanos,
    /// Whether it took something since that was looked at, while it was too far behind to be listened to.
    reads: bool,
    /// Whether it was asked whether it is there.
    probed: bool,
}

/// Rules that a peer asked for and has not been sent yet.
#[derive(Debug)]
struct Dump {
    xid: u32,
    rules: vec::IntoIter<Arc<Rule>>,
    now: Nanos,
}

impl Session {
    /// Greets the peer.
    pub fn new(connection: Connection, origin: Origin, now: Nanos) -> Self {
        let miss_send_len = if origin == Origin::Controller { DEFAULT_MISS_SEND_LEN } else { 0 };
        let mut session = Self {
            connection,
            origin,
            role: Role::Equal,
            wants: Async::DEFAULT,
            config: Config { flags: 0, miss_send_len },
            greeted: false,
            ended: None,
            dropped: 0,
            unfinished: false,
            interest: Interest::Read,
            dump: None,
            heard: now,
            reads: false,
            probed: false,
        };
        session.send(&Message::Hello(Hello::of(VERSION)), 0);
        session
    }

    /// Queues a message.
    pub fn send(&mut self, message: &Message, xid: u32) {
        self.connection.queue(message, xid);
    }

    /// Answers `request` with an error.
    pub fn refuse(&mut self, error: ErrorCode, xid: u32, request: &[u8]) {
        tracing::debug!("OpenFlow request refused: {error}");
        self.send(&Message::Error(Error::new(error, request)), xid);
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
            Ok(true) => {
                self.heard = now;
                self.probed = false;
            }
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
            if self.connection.has_output() || self.dump.is_none() {
                return;
            }
            while self.dump.is_some() && !self.connection.is_congested() {
                self.dump_some();
            }
        }
    }

    /// Begins to send `rules` as the reply to a request for flow statistics.
    pub fn begin_dump(&mut self, xid: u32, rules: Vec<Arc<Rule>>, now: Nanos) {
        self.dump = Some(Dump { xid, rules: rules.into_iter(), now });
        self.dump_some();
    }

    fn dump_some(&mut self) {
        let Some(Dump { xid, rules, now }) = &mut self.dump else { return };
        let some = rules.by_ref().take(DUMP_CHUNK).map(|rule| super::agent::flow_stats(&rule, *now)).collect();
        let (more, xid) = (rules.len() > 0, *xid);
        if !more {
            self.dump = None;
        }
        self.send(&Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(some), more }), xid);
    }

    /// Takes the peer's first message, which must be a hello.
    pub fn greet(&mut self, message: Result<Message, ErrorCode>, xid: u32, bytes: &[u8]) {
        match message {
            Ok(Message::Hello(hello)) if hello.negotiate(Hello::of(VERSION)).is_some() => self.greeted = true,
            Ok(Message::Hello(_)) => {
                let (kind, code) = ErrorCode::from(HelloFailed::Incompatible).numbers();
                let says = b"this switch speaks OpenFlow 1.3 (version 0x04) only".to_vec();
                self.send(&Message::Error(Error { kind, code, data: says }), xid);
                self.end("the peer does not speak OpenFlow 1.3");
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
        if std::mem::take(&mut self.reads) {
            self.heard = now;
        }
        let interval = if self.origin == Origin::Controller { PROBE_INTERVAL } else { LISTENER_PROBE_INTERVAL };
        let silence = now.saturating_sub(self.heard);
        if silence >= 2 * interval {
            self.end(format!("the peer was silent for {} s", silence / 1_000_000_000));
        } else if silence >= interval && self.greeted && !self.probed {
            self.probed = true;
            self.send(&Message::EchoRequest(Vec::new()), 0);
        }
    }

    /// Whether the peer wants an asynchronous message of this reason, with `masks` being those for its kind.
    pub fn wants(&self, masks: [u32; 2], reason: u8) -> bool {
        let asked = self.origin == Origin::Controller || self.config.miss_send_len != 0;
        let mask = masks[usize::from(self.role == Role::Slave)];
        self.greeted && !self.is_over() && asked && reason < 32 && mask >> reason & 1 != 0
    }

    /// What is to be waited for.
    pub fn needs(&self) -> Interest {
        match (self.takes_requests(), self.connection.has_output()) {
            (true, false) if !self.unfinished => Interest::Read,
            (true, true) if !self.unfinished => Interest::ReadWrite,
            _ => Interest::Write,
        }
    }
}

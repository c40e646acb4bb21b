//! The agent: does what controllers ask.
//!
//! It owns the *draft* of the tables. Requests change the draft; before a barrier reply, before a packet-out, and else at the end of a turn of
//! the event loop, the draft is published through [`Datapath`] and the workers take it up. A publication makes the workers look at each cached
//! flow again, so that of flow-mods without barriers is put off a little if the last was just now: a stream of a thousand of them is a few
//! publications. A barrier reply means that no frame is forwarded by what was before.
//!
//! The agent does no waiting of its own. The owner calls [`Agent::ready`] when a connection's descriptor is ready (the agent registers it as it
//! needs), [`Agent::tick`] about once a second, and [`Agent::finish`] at the end of each turn, also of one that comes when [`Agent::due`] says.
//!
//! Whatever a connection sends, it delays itself only: in each turn it has so much work done ([`SLICE`]) and no more, and a peer that does not
//! take its answers gets no further ones ([`super::connection`]).

mod fail_mode;
mod flows;
mod packets;
mod ports;
mod roles;
mod stats;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use datapath::Nanos;
use datapath::action::OFPR_INVALID_TTL;
use datapath::port::PortNo;
use datapath::tables::instruction::OfAction;
use datapath::tables::{FlowModCommand, Removed, RuleFilter, TABLE_COUNT, Tables};

use super::connection::Connection;
use super::session::Session;
use super::wire::error::{BadRequest, GroupModFailed, MeterModFailed, QueueOpFailed, SwitchConfigFailed, TableModFailed};
use super::wire::{self, CAPABILITIES, ErrorCode, Features, Header, Message, ModCommand, PACKET_IN_STANDARD};
use crate::config::FailMode;
use crate::event::Registrar;
use fail_mode::FailOpen;
pub(super) use flows::flow_stats;

pub use super::session::Origin;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// The shortest time between publications of flow-mods that no barrier follows.
const PUBLISH_INTERVAL: Nanos = 5_000_000;

/// What one connection may cost in one turn, see [`cost`].
const SLICE: u32 = 1024;

/// What the agent needs of the rest of the switch.
pub trait Datapath {
    /// Gives the workers new tables, which they take up at their next breath.
    fn publish(&mut self, tables: Tables);

    /// Returns when every worker uses what was published last, and has credited all that it did by earlier tables.
    fn barrier(&mut self);

    /// Has every worker credit all that it counted so far.
    fn settle(&mut self);

    /// Does `actions` to `frame` as if it had come in through `in_port`, by what was published last.
    fn inject(&mut self, in_port: PortNo, frame: Vec<u8>, actions: Vec<OfAction>);
}

/// What a connection is known by; none is used twice.
pub type ConnectionId = u64;

/// What the operator decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The switch's name.
    pub name: String,
    /// Its number among switches.
    pub datapath_id: u64,
    /// What it does without a controller.
    pub fail_mode: FailMode,
    /// Whether controllers are configured.
    pub has_controllers: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    draft: Tables,
    /// The epoch of what was published last.
    published: u64,
    /// When that was.
    published_at: Nanos,
    /// Whether something changed that is to be published at the end of this turn.
    urgent: bool,
    /// Rules of which a removal is to be told once the workers use them no more.
    removed: Vec<Removed>,
    sessions: BTreeMap<ConnectionId, Session>,
    next_id: ConnectionId,
    registrar: Registrar,
    /// When each port was added.
    port_ages: BTreeMap<PortNo, Nanos>,
    /// The highest generation id that a master or slave gave.
    generation_id: Option<u64>,
    fail_open: FailOpen,
}

impl Agent {
    /// An agent for `tables`, which are published already. It puts what the fail mode asks for into its draft.
    pub fn new(settings: Settings, tables: Tables, registrar: Registrar, now: Nanos) -> Self {
        let port_ages = tables.ports().iter().map(|port| (port.no, now)).collect();
        let mut agent = Self {
            settings,
            published: tables.epoch(),
            published_at: now,
            urgent: false,
            draft: tables,
            removed: Vec::new(),
            sessions: BTreeMap::new(),
            next_id: 1,
            registrar,
            port_ages,
            generation_id: None,
            fail_open: FailOpen::default(),
        };
        agent.start_fail_mode(now);
        agent.urgent = true;
        agent
    }

    /// The draft of the tables.
    pub fn tables(&self) -> &Tables {
        &self.draft
    }

    /// Takes up other settings.
    pub fn configure(&mut self, settings: Settings, now: Nanos) {
        let same = (settings.fail_mode, settings.has_controllers) == (self.settings.fail_mode, self.settings.has_controllers);
        self.settings = settings;
        if !same {
            self.start_fail_mode(now);
            self.urgent = true;
        }
    }

    /// Takes over a connected stream socket. `None`: there are too many connections, or the socket can't be used; it is closed.
    pub fn connect(&mut self, socket: OwnedFd, origin: Origin, now: Nanos) -> Option<ConnectionId> {
        if self.sessions.len() >= MAX_CONNECTIONS {
            tracing::warn!("there are {MAX_CONNECTIONS} OpenFlow connections already; another one is refused");
            return None;
        }
        let mut session = Session::new(Connection::new(socket).ok()?, origin, now);
        session.write();
        session.interest = session.needs();
        let id = self.next_id;
        if let Err(error) = self.registrar.add(&session.connection, id, session.interest) {
            tracing::warn!("an OpenFlow connection can't be waited for: {error}");
            return None;
        }
        self.next_id += 1;
        self.sessions.insert(id, session);
        Some(id)
    }

    /// Ends a connection, at the next [`Agent::finish`].
    pub fn disconnect(&mut self, id: ConnectionId, why: &str) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.end(why);
        }
    }

    /// Whether a connection is still there.
    pub fn is_connected(&self, id: ConnectionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Whether some connection wants frames that a table-miss or an action gives to the controllers.
    pub fn wants_packet_ins(&self) -> bool {
        self.sessions.values().any(|session| (0..32).any(|reason| session.wants(session.wants.packet_in, reason)))
    }

    /// Has frames whose TTL ran out given to the controllers while one wants them.
    fn ask_for_invalid_ttl(&mut self) {
        let wanted = self.sessions.values().any(|session| session.wants(session.wants.packet_in, OFPR_INVALID_TTL));
        if self.draft.invalid_ttl_to_controller() != wanted {
            self.draft.set_invalid_ttl_to_controller(wanted);
            self.urgent = true;
        }
    }

    /// Sends what is queued for a connection, reads what it sent and works that off.
    pub fn ready(&mut self, id: ConnectionId, datapath: &mut dyn Datapath, now: Nanos) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.write();
        if session.takes_requests() && !session.unfinished {
            session.read(now);
        }
        self.work_off(id, datapath, now);
    }

    /// Works off what was read from a connection, for the cost of one slice.
    fn work_off(&mut self, id: ConnectionId, datapath: &mut dyn Datapath, now: Nanos) {
        let mut spent = 0;
        loop {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            session.write();
            session.unfinished = spent >= SLICE;
            if session.unfinished || !session.takes_requests() {
                return;
            }
            let Some(bytes) = session.connection.next_message() else { return };
            spent += self.receive(id, &bytes, datapath, now);
        }
    }

    /// What is to be done from time to time, about once a second.
    pub fn tick(&mut self, datapath: &mut dyn Datapath, now: Nanos) {
        self.sessions.values_mut().for_each(|session| session.probe(now));
        self.tick_fail_mode(now);
        self.expire_rules(datapath, now);
    }

    /// When [`Agent::finish`] is to be called at the latest, if that matters.
    pub fn due(&self) -> Option<Nanos> {
        match self.sessions.values().any(|session| session.unfinished) {
            true => Some(0),
            false => self.publication_due(),
        }
    }

    fn publication_due(&self) -> Option<Nanos> {
        (self.draft.epoch() != self.published).then_some(self.published_at + PUBLISH_INTERVAL)
    }

    /// Ends a turn: goes on with what took too long before, publishes what changed, sends what is queued and takes leave of connections that ended.
    pub fn finish(&mut self, datapath: &mut dyn Datapath, now: Nanos) {
        let unfinished: Vec<_> = self.sessions.iter().filter(|(_, session)| session.unfinished).map(|(id, _)| *id).collect();
        for id in unfinished {
            self.work_off(id, datapath, now);
        }
        self.ask_for_invalid_ttl();
        if self.urgent || self.publication_due().is_some_and(|due| due <= now) {
            self.commit(datapath, now);
        }
        self.sessions.retain(|id, session| {
            session.write();
            if let Some(why) = &session.ended {
                match session.origin {
                    Origin::Controller => {
                        tracing::info!("the controller's connection ended: {why}; {} packet-ins were dropped", session.dropped)
                    }
                    Origin::Listener => {
                        tracing::debug!("OpenFlow connection {id} ended: {why}; {} packet-ins were dropped", session.dropped)
                    }
                }
                self.registrar.remove(&session.connection);
                return false;
            }
            let needs = session.needs();
            if needs != session.interest {
                session.interest = needs;
                if let Err(error) = self.registrar.modify(&session.connection, *id, needs) {
                    tracing::warn!("OpenFlow connection {id} can't be waited for: {error}");
                }
            }
            true
        });
    }

    /// Works off one message, and says what it cost.
    fn receive(&mut self, id: ConnectionId, bytes: &[u8], datapath: &mut dyn Datapath, now: Nanos) -> u32 {
        let (Some(session), Some(header)) = (self.sessions.get_mut(&id), Header::decode(bytes)) else { return 0 };
        let message = wire::decode(bytes);
        if usize::from(header.length) != bytes.len() {
            session.refuse(BadRequest::BadLen.into(), header.xid, bytes);
            session.end("the peer sent a message shorter than a header; nothing after it can be understood");
            return 0;
        }
        if !session.greeted {
            session.greet(message, header.xid, bytes);
            return 0;
        }
        let cost = message.as_ref().map_or(1, cost);
        let result = message.and_then(|message| self.handle(id, message, header.xid, datapath, now));
        if let (Err(error), Some(session)) = (result, self.sessions.get_mut(&id)) {
            session.refuse(error, header.xid, bytes);
        }
        cost
    }

    fn send(&mut self, id: ConnectionId, message: Message, xid: u32) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.send(&message, xid);
        }
    }

    fn handle(&mut self, id: ConnectionId, message: Message, xid: u32, datapath: &mut dyn Datapath, now: Nanos) -> Result<(), ErrorCode> {
        if changes_the_switch(&message) && self.is_slave(id) {
            return Err(BadRequest::IsSlave.into());
        }
        match message {
            Message::Hello(_) | Message::EchoReply(_) => {}
            Message::Error(error) => tracing::warn!("a controller sent an error: type {}, code {}", error.kind, error.code),
            Message::EchoRequest(data) => self.send(id, Message::EchoReply(data), xid),
            Message::FeaturesRequest => {
                let features = Features {
                    datapath_id: self.settings.datapath_id,
                    buffers: 0,
                    tables: TABLE_COUNT as u8,
                    auxiliary_id: 0,
                    capabilities: CAPABILITIES,
                };
                self.send(id, Message::FeaturesReply(features), xid);
            }
            Message::GetConfigRequest => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.send(&Message::GetConfigReply(session.config), xid);
                }
            }
            Message::SetConfig(config) => {
                // Fragments are treated like any other frame, and there is no other way.
                if config.flags != 0 {
                    return Err(SwitchConfigFailed::BadFlags.into());
                }
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.config = config;
                }
            }
            Message::FlowMod(message) => self.flow_mod(&message, now)?,
            Message::PacketOut(packet_out) => self.packet_out(packet_out, datapath, now)?,
            Message::PortMod(port_mod) => self.port_mod(&port_mod)?,
            Message::MultipartRequest(request) => self.multipart(id, *request, xid, datapath, now)?,
            Message::BarrierRequest => {
                self.ask_for_invalid_ttl();
                self.commit(datapath, now);
                datapath.barrier();
                self.send(id, Message::BarrierReply, xid);
            }
            Message::RoleRequest(request) => self.role_request(id, &request, xid)?,
            Message::GetAsyncRequest => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.send(&Message::GetAsyncReply(session.wants), xid);
                }
            }
            Message::SetAsync(wants) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.wants = wants;
                }
            }
            Message::SetPacketInFormat(format) => {
                // The error is Open vSwitch's for a format that it doesn't have.
                if format != PACKET_IN_STANDARD {
                    return Err(BadRequest::Eperm.into());
                }
            }
            // There are no groups, meters and queues, and a table has nothing to be configured.
            Message::GroupMod(group_mod) => match group_mod.command {
                ModCommand::Add => return Err(GroupModFailed::OutOfGroups.into()),
                ModCommand::Modify => return Err(GroupModFailed::UnknownGroup.into()),
                ModCommand::Delete => {}
            },
            Message::MeterMod(meter_mod) => match meter_mod.command {
                ModCommand::Add => return Err(MeterModFailed::OutOfMeters.into()),
                ModCommand::Modify => return Err(MeterModFailed::UnknownMeter.into()),
                ModCommand::Delete => {}
            },
            Message::TableMod(table_mod) => {
                if usize::from(table_mod.table) >= TABLE_COUNT && table_mod.table != RuleFilter::ALL_TABLES {
                    return Err(TableModFailed::BadTable.into());
                }
                if table_mod.config != 0 {
                    return Err(TableModFailed::BadConfig.into());
                }
            }
            Message::QueueGetConfigRequest(port) => {
                if port != PortNo::ANY && self.draft.ports().get(port).is_none() {
                    return Err(QueueOpFailed::BadPort.into());
                }
                self.send(id, Message::QueueGetConfigReply(port), xid);
            }
            // What only a switch sends.
            Message::FeaturesReply(_)
            | Message::GetConfigReply(_)
            | Message::PacketIn(_)
            | Message::FlowRemoved(_)
            | Message::PortStatus(_)
            | Message::MultipartReply(_)
            | Message::BarrierReply
            | Message::QueueGetConfigReply(_)
            | Message::RoleReply(_)
            | Message::GetAsyncReply(_) => return Err(BadRequest::BadType.into()),
        }
        Ok(())
    }
}

/// What a message costs: one for what is done at once, more for what waits for the workers, a whole slice for what may look at every rule.
fn cost(message: &Message) -> u32 {
    match message {
        Message::FlowMod(message) if matches!(message.flow_mod.command, FlowModCommand::Modify | FlowModCommand::Delete) => SLICE,
        Message::MultipartRequest(_) => SLICE,
        Message::BarrierRequest | Message::PacketOut(_) => SLICE / 32,
        _ => 1,
    }
}

/// Whether a slave may not send this (OpenFlow 1.3.5, 6.3.4).
fn changes_the_switch(message: &Message) -> bool {
    matches!(
        message,
        Message::PacketOut(_)
            | Message::FlowMod(_)
            | Message::GroupMod(_)
            | Message::PortMod(_)
            | Message::TableMod(_)
            | Message::MeterMod(_)
    )
}

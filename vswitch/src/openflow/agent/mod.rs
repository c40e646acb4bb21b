//! The agent: does what controllers ask.
//!
//! It owns the *draft* of the tables. Requests change the draft; before a barrier reply, before a packet-out, and else at the end of a turn of
//! the event loop, the draft is published through [`Datapath`] and the workers take it up. A publication makes the workers look at each cached
//! flow again, and the changes after it copy what they change, so that of flow-mods without barriers is put off: a little if the last was just now, and a
//! little more while they keep coming. A stream of ten thousand of them is a few publications. A barrier reply means that no frame is forwarded by what was
//! before.
//!
//! The agent does no waiting of its own. The owner calls [`Agent::ready`] when a connection's descriptor is ready (the agent registers it as it
//! needs), [`Agent::tick`] about once a second, and [`Agent::finish`] at the end of each turn, also of one that comes when [`Agent::due`] says.
//!
//! Whatever a connection sends, it delays itself only: in each turn it has so much work done ([`SLICE`]) and no more, and a peer that does not
//! take its answers gets no further ones ([`super::connection`]).

mod bundles;
mod changes;
mod fail_mode;
mod flows;
mod groups;
mod monitors;
mod packets;
mod ports;
mod roles;
mod stats;
mod table_features;

use std::collections::BTreeMap;

use datapath::Nanos;
use datapath::action::OFPR_INVALID_TTL;
use datapath::port::PortNo;
use datapath::tables::instruction::OfActions;
use datapath::tables::{FlowModCommand, Removed, TABLE_COUNT, Tables};

use super::assembly::Assembly;
use super::connection::Connection;
use super::session::Session;
use super::stream::Stream;
use super::wire::error::{BadRequest, SwitchConfigFailed};
use super::wire::{BundleControlType, CAPABILITIES, Config, ErrorCode, Features, FragmentHandling, Header, Message, MultipartRequest};
use crate::config::{FailMode, OpenFlow};
use crate::event::Registrar;
pub(super) use bundles::Bundles;
use changes::{Changes, is_change};
use fail_mode::FailOpen;
pub(super) use flows::flow_stats;
pub(super) use monitors::{Monitors, RuleNews};
use ports::port_desc;

pub use super::session::{Origin, Peer, Phase, Status};
pub use super::wire::Role;

/// The most connections at a time that came by one listener. Controllers are as many as the operator wants, and find room whoever is there.
const MAX_CONNECTIONS: usize = 64;

/// The shortest time between publications of flow-mods that no barrier follows.
const PUBLISH_INTERVAL: Nanos = 5_000_000;
/// The pause after which a stream of them is published sooner than it would be if it went on.
const PUBLISH_PAUSE: Nanos = 1_000_000;
/// The time between publications of a stream without pauses.
const PUBLISH_STREAM: Nanos = 50_000_000;

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
    fn inject(&mut self, in_port: PortNo, frame: Vec<u8>, actions: OfActions);
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
    /// How it deals with controllers.
    pub openflow: OpenFlow,
}

/// A controller's connection that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it was known by.
    pub id: ConnectionId,
    /// Whether it ever was more than an attempt: the controller said hello.
    pub greeted: bool,
    /// Why it ended.
    pub why: String,
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
    /// The epoch of the draft at the end of the last turn that changed it.
    changed: u64,
    /// When that was.
    changed_at: Nanos,
    /// Whether something changed that is to be published at the end of this turn.
    urgent: bool,
    /// Rules of which a removal is to be told once the workers use them no more.
    removed: Vec<Removed>,
    sessions: BTreeMap<ConnectionId, Session>,
    /// What the owner was not told yet.
    ended: Vec<Ended>,
    next_id: ConnectionId,
    registrar: Registrar,
    /// When each port was added.
    port_ages: BTreeMap<PortNo, Nanos>,
    /// The names that controllers gave to tables.
    table_names: BTreeMap<u8, String>,
    /// What controllers want of IP fragments.
    fragments: FragmentHandling,
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
            changed: tables.epoch(),
            changed_at: now,
            urgent: false,
            draft: tables,
            removed: Vec::new(),
            sessions: BTreeMap::new(),
            ended: Vec::new(),
            next_id: 1,
            registrar,
            port_ages,
            table_names: BTreeMap::new(),
            fragments: FragmentHandling::Normal,
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
        self.sessions.values_mut().for_each(|session| session.configure(&self.settings.openflow));
        if !same {
            self.start_fail_mode(now);
            self.urgent = true;
        }
    }

    /// Takes over a connected stream. `None`: too many came by the same listener, or it can't be waited for; it is closed.
    pub fn connect(&mut self, stream: Stream, peer: Peer, now: Nanos) -> Option<ConnectionId> {
        let same = |other: &&Session| other.peer.origin == Origin::Listener && other.peer.target == peer.target;
        if peer.origin == Origin::Listener && self.sessions.values().filter(same).count() >= MAX_CONNECTIONS {
            tracing::warn!(listener = %peer.target, "{} is refused: there are {MAX_CONNECTIONS} connections already", peer.address);
            return None;
        }
        let mut session = Session::new(Connection::new(stream), peer, &self.settings.openflow, now);
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

    /// The controllers' connections that ended since it was called last.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// All connections, in the order in which they came.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, Status)> {
        self.sessions.iter().map(|(id, session)| (*id, session.status()))
    }

    /// Whether a connection is still there.
    #[cfg(test)]
    pub fn is_connected(&self, id: ConnectionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Whether some connection wants frames that a table-miss or an action gives to the controllers.
    pub fn wants_packet_ins(&self) -> bool {
        self.sessions.values().any(|session| (0..32).any(|reason| session.wants(session.wants.packet_in, reason)))
    }

    /// Has frames whose TTL ran out, and those that no rule matches, given to the controllers while one wants them.
    fn ask_for_frames(&mut self) {
        let wanted = self.sessions.values().any(|session| session.wants(session.wants.packet_in, OFPR_INVALID_TTL));
        if self.draft.invalid_ttl_to_controller() != wanted {
            self.draft.set_invalid_ttl_to_controller(wanted);
            self.urgent = true;
        }
        let wanted = self.sessions.values().any(|session| session.controller_id == 0 && session.wants_misses());
        if self.draft.misses_to_controller() != wanted {
            self.draft.set_misses_to_controller(wanted);
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
        for session in self.sessions.values_mut() {
            session.probe(now);
            if let Some((error, xid, request)) = Assembly::expire(&mut session.assembly, now) {
                session.refuse(error, xid, &request);
            }
        }
        self.expire_bundles(now);
        self.tick_fail_mode(now);
        self.expire_rules(datapath, now);
    }

    /// When [`Agent::finish`] is to be called at the latest, if that matters.
    pub fn due(&self) -> Option<Nanos> {
        match self.sessions.values().any(|session| session.unfinished) {
            true => Some(0),
            false => self.sessions.values().filter_map(Session::packet_in_due).chain(self.publication_due()).min(),
        }
    }

    fn publication_due(&self) -> Option<Nanos> {
        let soon = (self.changed_at + PUBLISH_PAUSE).min(self.published_at + PUBLISH_STREAM);
        (self.draft.epoch() != self.published).then_some(soon.max(self.published_at + PUBLISH_INTERVAL))
    }

    /// Ends a turn: goes on with what took too long before, publishes what changed, sends what is queued and takes leave of connections that ended.
    pub fn finish(&mut self, datapath: &mut dyn Datapath, now: Nanos) {
        let unfinished: Vec<_> = self.sessions.iter().filter(|(_, session)| session.unfinished).map(|(id, _)| *id).collect();
        for id in unfinished {
            self.work_off(id, datapath, now);
        }
        self.ask_for_frames();
        if self.draft.epoch() != self.changed {
            (self.changed, self.changed_at) = (self.draft.epoch(), now);
        }
        if self.urgent || self.publication_due().is_some_and(|due| due <= now) {
            self.commit(datapath, now);
        }
        self.resume_monitors();
        self.sessions.retain(|id, session| {
            session.send_packet_ins(now);
            session.write();
            // What waited for the end of a long reply is heard of by no event any more.
            session.unfinished |= session.takes_requests() && session.connection.has_message();
            if let Some(why) = session.ended.take() {
                self.registrar.remove(&session.connection);
                self.ended.extend(farewell(*id, session, why));
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
        if usize::from(header.length) != bytes.len() {
            session.refuse(BadRequest::BadLen.into(), header.xid, bytes);
            session.end("the peer sent a message shorter than a header; nothing after it can be understood");
            return 0;
        }
        if !session.is_greeted() {
            let hello = session.connection.dialect.decode(bytes);
            session.greet(hello, header.xid, bytes);
            return 0;
        }
        let message = match Assembly::take(&mut session.assembly, header.xid, bytes, now) {
            None => session.connection.dialect.decode(bytes),
            Some(Ok(Some(request))) => Ok(request),
            Some(Ok(None)) => return 1,
            Some(Err(error)) => Err(error),
        };
        let cost = message.as_ref().map_or(1, cost);
        let result = message.and_then(|message| self.handle(id, message, header.xid, bytes, datapath, now));
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

    /// Does what a message says, whose bytes these are.
    fn handle(
        &mut self,
        id: ConnectionId,
        message: Message,
        xid: u32,
        bytes: &[u8],
        datapath: &mut dyn Datapath,
        now: Nanos,
    ) -> Result<(), ErrorCode> {
        if changes_the_switch(&message) && self.is_slave(id) {
            return Err(BadRequest::IsSlave.into());
        }
        match message {
            message if is_change(&message) => {
                let mut changes = Changes::default();
                self.change(message, now, &mut changes)?;
                for packet_out in self.tell(changes, Some((id, xid))) {
                    self.send_out(packet_out, datapath, now);
                }
            }
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
                    ports: self.draft.ports().iter().map(|port| port_desc(port)).collect(),
                };
                self.send(id, Message::FeaturesReply(features), xid);
            }
            Message::GetConfigRequest => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    let flags = self.fragments as u16 | session.invalid_ttl_flag();
                    let config = Config { flags, miss_send_len: session.miss_send_len };
                    session.send(&Message::GetConfigReply(config), xid);
                }
            }
            Message::SetConfig(config) => self.set_config(id, config)?,
            Message::MultipartRequest(request) => self.multipart(id, *request, xid, datapath, now)?,
            Message::BarrierRequest => {
                self.ask_for_frames();
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
                    session.set_async(wants);
                }
            }
            Message::SetPacketInFormat(format) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.packet_in_format = format;
                }
            }
            // The connection goes by them.
            Message::SetFlowFormat(_) | Message::FlowModTableId(_) | Message::FlowAge => {}
            Message::SetControllerId(controller_id) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.controller_id = controller_id;
                }
            }
            Message::QueueGetConfigRequest(port) => {
                let config = self.queue_config(port)?;
                self.send(id, Message::QueueGetConfigReply(config), xid);
            }
            Message::BundleControl(control) => self.bundle_control(id, control, xid, bytes, datapath, now)?,
            Message::BundleAdd(add) => self.bundle_add(id, &add, xid, bytes, now)?,
            Message::FlowMonitorCancel(monitor) => self.cancel_monitor(id, monitor)?,
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
            | Message::GetAsyncReply(_)
            | Message::FlowMonitorPaused
            | Message::FlowMonitorResumed
            // What is a change was carried out.
            | Message::PacketOut(_)
            | Message::FlowMod(_)
            | Message::GroupMod(_)
            | Message::PortMod(_)
            | Message::TableMod(_)
            | Message::MeterMod(_) => return Err(BadRequest::BadType.into()),
        }
        Ok(())
    }

    fn set_config(&mut self, id: ConnectionId, config: Config) -> Result<(), ErrorCode> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let flags = session.take_invalid_ttl_flag(config.flags);
        let fragments = FragmentHandling::from_flags(flags).ok_or(SwitchConfigFailed::BadFlags)?;
        if fragments != self.fragments {
            if self.is_slave(id) {
                return Err(BadRequest::IsSlave.into());
            }
            self.fragments = fragments;
            self.draft.set_drops_fragments(fragments == FragmentHandling::Drop);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.miss_send_len = config.miss_send_len;
        }
        Ok(())
    }
}

/// Says in the log that a connection ended, and tells its owner if it was a controller's.
fn farewell(id: ConnectionId, session: &Session, why: String) -> Option<Ended> {
    let Status { peer: Peer { origin, target, address }, packet_ins_queued, packet_ins_congested, packet_ins_overrun, .. } =
        session.status();
    let dropped = packet_ins_queued + packet_ins_congested + packet_ins_overrun;
    match (origin, session.is_greeted()) {
        (Origin::Controller, false) => tracing::warn!(controller = %target, "no OpenFlow connection to {address}: {why}"),
        (Origin::Controller, true) => {
            tracing::info!(controller = %target, "the connection ended: {why}; {dropped} packet-ins were dropped")
        }
        (Origin::Listener, false) => tracing::warn!(listener = %target, "no OpenFlow connection from {address}: {why}"),
        (Origin::Listener, true) => {
            tracing::debug!(listener = %target, "the connection from {address} ended: {why}; {dropped} packet-ins were dropped")
        }
    }
    (origin == Origin::Controller).then(|| Ended { id, greeted: session.is_greeted(), why })
}

/// What a message costs: one for what is done at once, more for what waits for the workers, a whole slice for what may look at every rule.
fn cost(message: &Message) -> u32 {
    match message {
        Message::FlowMod(message) if matches!(message.flow_mod.command, FlowModCommand::Modify | FlowModCommand::Delete) => SLICE,
        Message::MultipartRequest(_) | Message::GroupMod(_) | Message::MeterMod(_) => SLICE,
        Message::BundleControl(control) if control.kind == BundleControlType::CommitRequest => SLICE,
        Message::BarrierRequest | Message::PacketOut(_) => SLICE / 32,
        _ => 1,
    }
}

/// Whether a slave may not send this (OpenFlow 1.3.5, 6.3.4).
fn changes_the_switch(message: &Message) -> bool {
    match message {
        Message::MultipartRequest(request) => matches!(&**request, MultipartRequest::TableFeatures(asked) if !asked.is_empty()),
        Message::BundleControl(_) | Message::BundleAdd(_) => true,
        message => is_change(message),
    }
}

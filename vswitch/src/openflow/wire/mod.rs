//! The messages of OpenFlow, from bytes and to bytes. Pure: no sockets, no state but what a connection's peers said of how they write.
//!
//! [`decode`] makes a [`Message`] of one whole message of OpenFlow 1.3.5, or says which of the standard's errors is the answer; [`encode`] appends the bytes
//! of a message. OpenFlow 1.0 ([`v10`]) has other bytes for the same messages; a [`Dialect`] goes by what the peers agreed on. Both directions are there, for the
//! switch and for those that talk to it in tests.
//!
//! A peer's bytes are hostile: every length is checked before it is used ([`bytes::Reader`] can't read past its end, and each reader knows
//! the error that its part is to be answered with), nothing panics, and what is decoded is no larger than a small multiple of the 65,535
//! bytes that a message has at most. Padding may hold anything, but where Open vSwitch minds. Lists end exactly where their length says.

mod action;
mod bundle;
mod bytes;
mod dialect;
pub mod error;
mod flow;
mod group;
mod hello;
mod instruction;
mod meter;
mod monitor;
mod multipart;
mod nicira;
mod oxm;
mod packet;
mod port;
mod queue;
mod switch;
mod v10;

pub use bundle::{ATOMIC, BundleAdd, BundleControl, BundleControlType, ORDERED};
pub use dialect::{Dialect, FlowFormat};
pub use error::{Error, ErrorCode};
pub use flow::{Age, FlowModMessage, FlowRemoved, NO_BUFFER};
pub use group::{GroupDesc, GroupFeatures, GroupStats};
pub use hello::Hello;
pub use instruction::can_be_sent;
pub use meter::{MeterConfig, MeterFeatures, MeterStats};
pub use monitor::{FullUpdate, MonitorFlags, MonitorRequest, RuleEvent, RuleUpdate};
pub use multipart::{
    Aggregate, Desc, FeatureId, FlowStats, MultipartBody, MultipartPart, MultipartReply, MultipartRequest, PortStats, TableFeatures,
    TableProperty, TableStats,
};
pub use nicira::NICIRA;
pub use packet::{MAX_PACKET_IN_DATA, PacketIn, PacketInFormat, PacketOut};
pub use port::{LINK_DOWN, LIVE, PortDesc, PortMod, PortReason, PortStatus};
pub use queue::{QUEUE_ALL, QueueConfig, QueueDesc, QueueStats};
pub use switch::{Async, CAPABILITIES, Config, Features, FragmentHandling, INVALID_TTL_TO_CONTROLLER, Role, RoleMessage, TableMod};

use bytes::{Put, Reader};
use datapath::key::field::OXM_ONF;
use datapath::port::PortNo;
use datapath::tables::group::GroupMod;
use datapath::tables::meter::MeterMod;
use error::{BadMatch, BadRequest};

/// OpenFlow 1.3's version on the wire.
pub const VERSION: u8 = 4;

/// The bytes of a message's header.
pub const HEADER: usize = 8;

// OFPT_*
const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const EXPERIMENTER: u8 = 4;
const FEATURES_REQUEST: u8 = 5;
const FEATURES_REPLY: u8 = 6;
const GET_CONFIG_REQUEST: u8 = 7;
const GET_CONFIG_REPLY: u8 = 8;
const SET_CONFIG: u8 = 9;
const PACKET_IN: u8 = 10;
const FLOW_REMOVED: u8 = 11;
const PORT_STATUS: u8 = 12;
const PACKET_OUT: u8 = 13;
const FLOW_MOD: u8 = 14;
const GROUP_MOD: u8 = 15;
const PORT_MOD: u8 = 16;
const TABLE_MOD: u8 = 17;
const MULTIPART_REQUEST: u8 = 18;
const MULTIPART_REPLY: u8 = 19;
const BARRIER_REQUEST: u8 = 20;
const BARRIER_REPLY: u8 = 21;
const QUEUE_GET_CONFIG_REQUEST: u8 = 22;
const QUEUE_GET_CONFIG_REPLY: u8 = 23;
const ROLE_REQUEST: u8 = 24;
const ROLE_REPLY: u8 = 25;
const GET_ASYNC_REQUEST: u8 = 26;
const GET_ASYNC_REPLY: u8 = 27;
const SET_ASYNC: u8 = 28;
const METER_MOD: u8 = 29;

// The ONF's messages for OpenFlow 1.3.
const ONF_BUNDLE_CONTROL: u32 = 2300;
const ONF_BUNDLE_ADD_MESSAGE: u32 = 2301;
/// As a multipart message a request for flow monitors or what they tell, as a message the end of one.
const ONF_FLOW_MONITOR: u32 = 1870;
const ONF_FLOW_MONITOR_PAUSED: u32 = 1871;
const ONF_FLOW_MONITOR_RESUMED: u32 = 1872;

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version.
    pub version: u8,
    /// `OFPT_*`.
    pub kind: u8,
    /// The bytes of the message, these eight included.
    pub length: u16,
    /// What an answer is recognised by.
    pub xid: u32,
}

impl Header {
    /// Reads the header at the start of `bytes`, if all of it is there.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let &[version, kind, l0, l1, x0, x1, x2, x3] = bytes.first_chunk()?;
        Some(Self { version, kind, length: u16::from_be_bytes([l0, l1]), xid: u32::from_be_bytes([x0, x1, x2, x3]) })
    }
}

/// A message without its header.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names are the standard's
pub enum Message {
    Hello(Hello),
    Error(Error),
    EchoRequest(Vec<u8>),
    EchoReply(Vec<u8>),
    FeaturesRequest,
    FeaturesReply(Features),
    GetConfigRequest,
    GetConfigReply(Config),
    SetConfig(Config),
    PacketIn(Box<PacketIn>),
    FlowRemoved(Box<FlowRemoved>),
    PortStatus(PortStatus),
    PacketOut(PacketOut),
    FlowMod(Box<FlowModMessage>),
    GroupMod(GroupMod),
    PortMod(PortMod),
    TableMod(TableMod),
    MultipartRequest(Box<MultipartRequest>),
    MultipartReply(MultipartReply),
    BarrierRequest,
    BarrierReply,
    QueueGetConfigRequest(PortNo),
    QueueGetConfigReply(QueueConfig),
    RoleRequest(RoleMessage),
    RoleReply(RoleMessage),
    GetAsyncRequest,
    GetAsyncReply(Async),
    SetAsync(Async),
    MeterMod(MeterMod),
    /// Nicira's NXT_SET_PACKET_IN_FORMAT.
    SetPacketInFormat(PacketInFormat),
    /// Nicira's NXT_SET_CONTROLLER_ID.
    SetControllerId(u16),
    /// Nicira's NXT_SET_FLOW_FORMAT, of OpenFlow 1.0.
    SetFlowFormat(FlowFormat),
    /// Nicira's NXT_FLOW_MOD_TABLE_ID.
    FlowModTableId(bool),
    /// Nicira's NXT_FLOW_AGE, which asks for what is always said.
    FlowAge,
    BundleControl(BundleControl),
    BundleAdd(BundleAdd),
    /// The end of the flow monitor with this id.
    FlowMonitorCancel(u32),
    /// That flow monitors tell nothing until [`Message::FlowMonitorResumed`], because the controller was too slow for them.
    FlowMonitorPaused,
    /// That what flow monitors told is complete again.
    FlowMonitorResumed,
}

/// Reads one message, which `message` holds exactly. A hello or an error may be of any version, all else must be OpenFlow 1.3.
pub fn decode(message: &[u8]) -> Result<Message, ErrorCode> {
    let header = Header::decode(message).filter(|header| usize::from(header.length) == message.len()).ok_or(BadRequest::BadLen)?;
    if header.version != VERSION && ![HELLO, ERROR].contains(&header.kind) {
        return Err(BadRequest::BadVersion.into());
    }
    let mut body = Reader::new(&message[HEADER..], BadRequest::BadLen);
    let empty = |message: Message| body.finish().map(|()| message);
    Ok(match header.kind {
        HELLO => Message::Hello(Hello::decode(header.version, body)?),
        ERROR => Message::Error(Error::decode(body)?),
        ECHO_REQUEST => Message::EchoRequest(body.rest().to_vec()),
        ECHO_REPLY => Message::EchoReply(body.rest().to_vec()),
        EXPERIMENTER => decode_experimenter(header, body)?,
        FEATURES_REQUEST => empty(Message::FeaturesRequest)?,
        FEATURES_REPLY => Message::FeaturesReply(Features::decode(body)?),
        GET_CONFIG_REQUEST => empty(Message::GetConfigRequest)?,
        GET_CONFIG_REPLY => Message::GetConfigReply(Config::decode(body)?),
        SET_CONFIG => Message::SetConfig(Config::decode(body)?),
        PACKET_IN => Message::PacketIn(Box::new(PacketIn::decode(body)?)),
        FLOW_REMOVED => Message::FlowRemoved(Box::new(FlowRemoved::decode(body)?)),
        PORT_STATUS => Message::PortStatus(PortStatus::decode(body)?),
        PACKET_OUT => Message::PacketOut(PacketOut::decode(body)?),
        FLOW_MOD => Message::FlowMod(Box::new(FlowModMessage::decode(body)?)),
        GROUP_MOD => Message::GroupMod(group::decode_group_mod(body)?),
        PORT_MOD => Message::PortMod(PortMod::decode(body)?),
        TABLE_MOD => Message::TableMod(TableMod::decode(body)?),
        MULTIPART_REQUEST => Message::MultipartRequest(Box::new(MultipartRequest::decode(body)?)),
        MULTIPART_REPLY => Message::MultipartReply(MultipartReply::decode(body)?),
        BARRIER_REQUEST => empty(Message::BarrierRequest)?,
        BARRIER_REPLY => empty(Message::BarrierReply)?,
        QUEUE_GET_CONFIG_REQUEST => Message::QueueGetConfigRequest(queue::decode_config_request(body)?),
        QUEUE_GET_CONFIG_REPLY => Message::QueueGetConfigReply(QueueConfig::decode(body)?),
        ROLE_REQUEST => Message::RoleRequest(RoleMessage::decode(body)?),
        ROLE_REPLY => Message::RoleReply(RoleMessage::decode(body)?),
        GET_ASYNC_REQUEST => empty(Message::GetAsyncRequest)?,
        GET_ASYNC_REPLY => Message::GetAsyncReply(Async::decode(body)?),
        SET_ASYNC => Message::SetAsync(Async::decode(body)?),
        METER_MOD => Message::MeterMod(meter::decode_meter_mod(body)?),
        _ => return Err(BadRequest::BadType.into()),
    })
}

/// Appends a message, in more than one part if it is a multipart message too long for one.
pub fn encode(message: &Message, xid: u32, out: &mut Vec<u8>) {
    match message {
        Message::MultipartRequest(request) => return request.encode(xid, out),
        Message::MultipartReply(reply) => return reply.encode(xid, out),
        _ => {}
    }
    let start = start_message(out, message.kind(), xid);
    match message {
        Message::Hello(body) => body.encode(out),
        Message::Error(body) => body.encode(out),
        Message::EchoRequest(data) | Message::EchoReply(data) => out.extend_from_slice(data),
        Message::FeaturesReply(body) => body.encode(out),
        Message::GetConfigReply(body) | Message::SetConfig(body) => body.encode(out),
        Message::PacketIn(body) if body.format == PacketInFormat::Standard => body.encode(out),
        Message::FlowRemoved(body) => body.encode(out),
        Message::PortStatus(body) => body.encode(out),
        Message::PacketOut(body) => body.encode(out),
        Message::FlowMod(body) => body.encode(out),
        Message::GroupMod(body) => group::put_group_mod(out, body),
        Message::PortMod(body) => body.encode(out),
        Message::TableMod(body) => body.encode(out),
        Message::QueueGetConfigRequest(port) => queue::put_config_request(out, *port),
        Message::QueueGetConfigReply(body) => body.encode(out),
        Message::RoleRequest(body) | Message::RoleReply(body) => body.encode(out),
        Message::GetAsyncReply(body) | Message::SetAsync(body) => body.encode(out),
        Message::MeterMod(body) => meter::put_meter_mod(out, body),
        Message::PacketIn(_)
        | Message::SetPacketInFormat(_)
        | Message::SetControllerId(_)
        | Message::SetFlowFormat(_)
        | Message::FlowModTableId(_)
        | Message::FlowAge => nicira::put_message(out, message),
        Message::BundleControl(body) => {
            put_onf(out, ONF_BUNDLE_CONTROL);
            body.encode(out);
        }
        Message::BundleAdd(body) => {
            put_onf(out, ONF_BUNDLE_ADD_MESSAGE);
            body.encode(out);
        }
        Message::FlowMonitorCancel(id) => {
            put_onf(out, ONF_FLOW_MONITOR);
            out.put_u32(*id);
        }
        Message::FlowMonitorPaused => put_onf(out, ONF_FLOW_MONITOR_PAUSED),
        Message::FlowMonitorResumed => put_onf(out, ONF_FLOW_MONITOR_RESUMED),
        Message::MultipartRequest(_)
        | Message::MultipartReply(_)
        | Message::FeaturesRequest
        | Message::GetConfigRequest
        | Message::BarrierRequest
        | Message::BarrierReply
        | Message::GetAsyncRequest => {}
    }
    finish_message(out, start);
}

impl Message {
    /// `OFPT_*`.
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Error(_) => ERROR,
            Self::EchoRequest(_) => ECHO_REQUEST,
            Self::EchoReply(_) => ECHO_REPLY,
            Self::FeaturesRequest => FEATURES_REQUEST,
            Self::FeaturesReply(_) => FEATURES_REPLY,
            Self::GetConfigRequest => GET_CONFIG_REQUEST,
            Self::GetConfigReply(_) => GET_CONFIG_REPLY,
            Self::SetConfig(_) => SET_CONFIG,
            Self::PacketIn(packet_in) if packet_in.format == PacketInFormat::Standard => PACKET_IN,
            Self::FlowRemoved(_) => FLOW_REMOVED,
            Self::PortStatus(_) => PORT_STATUS,
            Self::PacketOut(_) => PACKET_OUT,
            Self::FlowMod(_) => FLOW_MOD,
            Self::GroupMod(_) => GROUP_MOD,
            Self::PortMod(_) => PORT_MOD,
            Self::TableMod(_) => TABLE_MOD,
            Self::MultipartRequest(_) => MULTIPART_REQUEST,
            Self::MultipartReply(_) => MULTIPART_REPLY,
            Self::BarrierRequest => BARRIER_REQUEST,
            Self::BarrierReply => BARRIER_REPLY,
            Self::QueueGetConfigRequest(_) => QUEUE_GET_CONFIG_REQUEST,
            Self::QueueGetConfigReply(_) => QUEUE_GET_CONFIG_REPLY,
            Self::RoleRequest(_) => ROLE_REQUEST,
            Self::RoleReply(_) => ROLE_REPLY,
            Self::GetAsyncRequest => GET_ASYNC_REQUEST,
            Self::GetAsyncReply(_) => GET_ASYNC_REPLY,
            Self::SetAsync(_) => SET_ASYNC,
            Self::MeterMod(_) => METER_MOD,
            Self::PacketIn(_)
            | Self::SetPacketInFormat(_)
            | Self::SetControllerId(_)
            | Self::SetFlowFormat(_)
            | Self::FlowModTableId(_)
            | Self::FlowAge
            | Self::BundleControl(_)
            | Self::BundleAdd(_)
            | Self::FlowMonitorCancel(_)
            | Self::FlowMonitorPaused
            | Self::FlowMonitorResumed => EXPERIMENTER,
        }
    }
}

/// Appends a header and returns where it is.
fn start_message(out: &mut Vec<u8>, kind: u8, xid: u32) -> usize {
    let start = out.len();
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u16(0);
    out.put_u32(xid);
    start
}

/// Writes the length of the message that began at `start`.
fn finish_message(out: &mut Vec<u8>, start: usize) {
    out.set_length(start, 2);
}

fn decode_experimenter(header: Header, mut body: Reader) -> Result<Message, ErrorCode> {
    let experimenter = body.u32()?;
    match experimenter {
        NICIRA => nicira::decode_message(body),
        OXM_ONF => decode_onf(header, body),
        _ => Err(experimenter_error(experimenter)),
    }
}

/// Reads one of the ONF's messages from its type on.
fn decode_onf(header: Header, mut body: Reader) -> Result<Message, ErrorCode> {
    let message = match body.u32()? {
        ONF_BUNDLE_CONTROL => return BundleControl::decode(body).map(Message::BundleControl),
        ONF_BUNDLE_ADD_MESSAGE => return BundleAdd::decode(header, body).map(Message::BundleAdd),
        ONF_FLOW_MONITOR => Message::FlowMonitorCancel(body.u32()?),
        ONF_FLOW_MONITOR_PAUSED => Message::FlowMonitorPaused,
        ONF_FLOW_MONITOR_RESUMED => Message::FlowMonitorResumed,
        _ => return Err(experimenter_error(OXM_ONF)),
    };
    body.finish()?;
    Ok(message)
}

fn put_onf(out: &mut Vec<u8>, kind: u32) {
    out.put_u32(OXM_ONF);
    out.put_u32(kind);
}

/// The answer to a message of an experimenter that is not carried out.
fn experimenter_error(experimenter: u32) -> ErrorCode {
    match experimenter {
        NICIRA | OXM_ONF => BadRequest::BadExpType.into(),
        _ => BadRequest::BadExperimenter.into(),
    }
}

#[cfg(test)]
mod tests;

//! The messages of OpenFlow 1.3.5, from bytes and to bytes. Pure: no sockets, no state.
//!
//! [`decode`] makes a [`Message`] of one whole message, or says which of the standard's errors is the answer; [`encode`] appends the bytes of
//! a message. Both directions are there, for the switch and for those that talk to it in tests.
//!
//! A peer's bytes are hostile: every length is checked before it is used ([`bytes::Reader`] can't read past its end, and each reader knows
//! the error that its part is to be answered with), nothing panics, and what is decoded is no larger than a small multiple of the 65,535
//! bytes that a message has at most. Padding may hold anything. Lists end exactly where their length says.

mod action;
mod bytes;
pub mod error;
mod flow;
mod hello;
mod instruction;
mod multipart;
mod oxm;
mod packet;
mod port;
mod switch;
mod unsupported;

pub use action::NICIRA;
pub use error::{Error, ErrorCode};
pub use flow::{Age, FlowModMessage, FlowRemoved, NO_BUFFER};
pub use hello::Hello;
pub use multipart::{Aggregate, Desc, FlowStats, MultipartBody, MultipartReply, MultipartRequest, PortStats, TableFeatures, TableStats};
pub use packet::{MAX_PACKET_IN_DATA, PacketIn, PacketOut};
pub use port::{LINK_DOWN, LIVE, PortDesc, PortMod, PortReason, PortStatus};
pub use switch::{Async, CAPABILITIES, Config, Features, Role, RoleMessage};
pub use unsupported::{GroupMod, MeterMod, ModCommand, TableMod};

use bytes::{Put, Reader};
use datapath::key::field::OXM_ONF;
use datapath::port::PortNo;
use error::BadRequest;

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

/// Nicira's NXT_SET_PACKET_IN_FORMAT.
const SET_PACKET_IN_FORMAT: u32 = 16;
/// NXPIF_STANDARD: packet-ins are OFPT_PACKET_IN.
pub const PACKET_IN_STANDARD: u32 = 0;

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
    /// That the port has no queues.
    QueueGetConfigReply(PortNo),
    RoleRequest(RoleMessage),
    RoleReply(RoleMessage),
    GetAsyncRequest,
    GetAsyncReply(Async),
    SetAsync(Async),
    MeterMod(MeterMod),
    /// Nicira's NXT_SET_PACKET_IN_FORMAT: `NXPIF_*`, of which [`PACKET_IN_STANDARD`] is OFPT_PACKET_IN.
    SetPacketInFormat(u32),
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
        EXPERIMENTER => decode_experimenter(body)?,
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
        GROUP_MOD => Message::GroupMod(GroupMod::decode(body)?),
        PORT_MOD => Message::PortMod(PortMod::decode(body)?),
        TABLE_MOD => Message::TableMod(TableMod::decode(body)?),
        MULTIPART_REQUEST => Message::MultipartRequest(Box::new(MultipartRequest::decode(body)?)),
        MULTIPART_REPLY => Message::MultipartReply(MultipartReply::decode(body)?),
        BARRIER_REQUEST => empty(Message::BarrierRequest)?,
        BARRIER_REPLY => empty(Message::BarrierReply)?,
        QUEUE_GET_CONFIG_REQUEST => Message::QueueGetConfigRequest(unsupported::decode_queue_config(body)?),
        QUEUE_GET_CONFIG_REPLY => Message::QueueGetConfigReply(unsupported::decode_queue_config(body)?),
        ROLE_REQUEST => Message::RoleRequest(RoleMessage::decode(body)?),
        ROLE_REPLY => Message::RoleReply(RoleMessage::decode(body)?),
        GET_ASYNC_REQUEST => empty(Message::GetAsyncRequest)?,
        GET_ASYNC_REPLY => Message::GetAsyncReply(Async::decode(body)?),
        SET_ASYNC => Message::SetAsync(Async::decode(body)?),
        METER_MOD => Message::MeterMod(MeterMod::decode(body)?),
        _ => return Err(BadRequest::BadType.into()),
    })
}

/// Appends a message, in more than one part if it is a multipart reply too long for one.
pub fn encode(message: &Message, xid: u32, out: &mut Vec<u8>) {
    if let Message::MultipartReply(reply) = message {
        return reply.encode(xid, out);
    }
    let start = start_message(out, message.kind(), xid);
    match message {
        Message::Hello(body) => body.encode(out),
        Message::Error(body) => body.encode(out),
        Message::EchoRequest(data) | Message::EchoReply(data) => out.extend_from_slice(data),
        Message::FeaturesReply(body) => body.encode(out),
        Message::GetConfigReply(body) | Message::SetConfig(body) => body.encode(out),
        Message::PacketIn(body) => body.encode(out),
        Message::FlowRemoved(body) => body.encode(out),
        Message::PortStatus(body) => body.encode(out),
        Message::PacketOut(body) => body.encode(out),
        Message::FlowMod(body) => body.encode(out),
        Message::GroupMod(body) => body.encode(out),
        Message::PortMod(body) => body.encode(out),
        Message::TableMod(body) => body.encode(out),
        Message::MultipartRequest(body) => body.encode(out),
        Message::QueueGetConfigRequest(port) | Message::QueueGetConfigReply(port) => unsupported::put_queue_config(out, *port),
        Message::RoleRequest(body) | Message::RoleReply(body) => body.encode(out),
        Message::GetAsyncReply(body) | Message::SetAsync(body) => body.encode(out),
        Message::MeterMod(body) => body.encode(out),
        Message::SetPacketInFormat(format) => [NICIRA, SET_PACKET_IN_FORMAT, *format].into_iter().for_each(|word| out.put_u32(word)),
        Message::MultipartReply(_)
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
            Self::PacketIn(_) => PACKET_IN,
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
            Self::SetPacketInFormat(_) => EXPERIMENTER,
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

fn decode_experimenter(mut body: Reader) -> Result<Message, ErrorCode> {
    let experimenter = body.u32()?;
    if experimenter != NICIRA || body.u32()? != SET_PACKET_IN_FORMAT {
        return Err(experimenter_error(experimenter));
    }
    let format = body.u32()?;
    body.finish()?;
    Ok(Message::SetPacketInFormat(format))
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

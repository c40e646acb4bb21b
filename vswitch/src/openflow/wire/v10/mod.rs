//! OpenFlow 1.0 (wire version 1) with Nicira's extensions: other bytes for the same [`Message`]s.
//!
//! **Matches** are `struct ofp_match`, with a bit for each field that does not matter, or Nicira's extensible match (NXM), which can say whatever a rule
//! can match. Controllers may use either at any time. The switch describes rules the way they were asked for, and those that were removed as
//! NXT_SET_FLOW_FORMAT says; of what `struct ofp_match` has no place for, it then says nothing.
//!
//! **Rules have actions only.** What a controller says in actions is applied. What another controller said in OpenFlow 1.3's instructions is described as far as there
//! are actions for it, Nicira's among them: `goto_table` is a resubmit at the end. The action set and meters are left out.
//!
//! **Actions need nothing of the match.** Those that a frame has no place for are passed over, and a VLAN tag is pushed where one is to be set. There is one
//! action for the transport ports of any protocol; where the match does not tell the protocol, it is read as one for each.
//!
//! **A flow-mod** that modifies nothing adds, with or without a table, and a rule that is added counts from zero.
//!
//! **Ports** have numbers of 16 bits. Those that are reserved lie at the end in both widths. A port whose number does not fit is not told of.
//!
//! **Errors** that OpenFlow 1.0 has no code for go out in Nicira's wrapping, with the numbers that Open vSwitch gave them.

mod action;
mod error;
mod flow;
mod matching;
mod monitor;
mod nxm;
mod packet;
mod port;
mod queue;
mod stats;
mod switch;
mod vendor;

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode};
use super::{Config, Dialect, FlowFormat, HEADER, Hello, Message, PacketIn, PacketInFormat};
use datapath::action::{OFPR_ACTION, OFPR_NO_MATCH};

/// OpenFlow 1.0's version on the wire.
pub const VERSION: u8 = 1;

/// The most bytes of a message.
const MAX_MESSAGE: usize = 0xffff;

// OFPT_*
const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const VENDOR: u8 = 4;
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
const PORT_MOD: u8 = 15;
const STATS_REQUEST: u8 = 16;
const STATS_REPLY: u8 = 17;
const BARRIER_REQUEST: u8 = 18;
const BARRIER_REPLY: u8 = 19;
const QUEUE_GET_CONFIG_REQUEST: u8 = 20;
const QUEUE_GET_CONFIG_REPLY: u8 = 21;

/// Reads a whole message of this type.
pub(super) fn decode(kind: u8, message: &[u8], dialect: &mut Dialect) -> Result<Message, ErrorCode> {
    let mut body = Reader::new(&message[HEADER..], BadRequest::BadLen);
    let empty = |message: Message| body.finish().map(|()| message);
    Ok(match kind {
        HELLO => Message::Hello(Hello::decode(VERSION, body)?),
        ERROR => Message::Error(error::decode(body)?),
        ECHO_REQUEST => Message::EchoRequest(body.rest().to_vec()),
        ECHO_REPLY => Message::EchoReply(body.rest().to_vec()),
        VENDOR => vendor::decode(body, dialect)?,
        FEATURES_REQUEST => empty(Message::FeaturesRequest)?,
        FEATURES_REPLY => Message::FeaturesReply(switch::decode_features(body)?),
        GET_CONFIG_REQUEST => empty(Message::GetConfigRequest)?,
        GET_CONFIG_REPLY => Message::GetConfigReply(Config::decode(body)?),
        SET_CONFIG => Message::SetConfig(Config::decode(body)?),
        PACKET_IN => Message::PacketIn(Box::new(packet::decode_in(body)?)),
        FLOW_REMOVED => Message::FlowRemoved(Box::new(flow::decode_removed(body)?)),
        PORT_STATUS => Message::PortStatus(port::decode_status(body)?),
        PACKET_OUT => Message::PacketOut(packet::decode_out(body)?),
        FLOW_MOD => Message::FlowMod(Box::new(flow::decode_mod(body, dialect)?)),
        PORT_MOD => Message::PortMod(port::decode_mod(body)?),
        STATS_REQUEST => {
            let (request, form) = stats::decode_request(body)?;
            dialect.asked = form.unwrap_or(dialect.asked);
            Message::MultipartRequest(Box::new(request))
        }
        STATS_REPLY => Message::MultipartReply(stats::decode_reply(body)?),
        BARRIER_REQUEST => empty(Message::BarrierRequest)?,
        BARRIER_REPLY => empty(Message::BarrierReply)?,
        QUEUE_GET_CONFIG_REQUEST => Message::QueueGetConfigRequest(queue::decode_request(body)?),
        QUEUE_GET_CONFIG_REPLY => Message::QueueGetConfigReply(queue::decode_config(body)?),
        _ => return Err(BadRequest::BadType.into()),
    })
}

/// Appends a message; nothing if OpenFlow 1.0 has none for it.
pub(super) fn encode(message: &Message, xid: u32, dialect: &Dialect, out: &mut Vec<u8>) {
    let kind = match message {
        Message::MultipartReply(reply) => return stats::put_reply(out, reply, xid, dialect.asked),
        // What matches everything at the lowest priority is a rule like others here, and not one of misses.
        Message::PacketIn(packet_in) if packet_in.reason == OFPR_NO_MATCH && !packet_in.is_miss() => {
            let packet_in = PacketIn { reason: OFPR_ACTION, ..(**packet_in).clone() };
            return encode(&Message::PacketIn(Box::new(packet_in)), xid, dialect, out);
        }
        Message::PortStatus(status) if port::narrow(status.port.number).is_none() => return,
        _ => match message_type(message, dialect) {
            Some(kind) => kind,
            None => return,
        },
    };
    let start = start_message(out, kind, xid);
    let end = start + MAX_MESSAGE;
    match message {
        Message::Hello(body) => body.encode(out),
        Message::Error(body) => error::put(out, body),
        Message::EchoRequest(data) | Message::EchoReply(data) => out.extend_from_slice(data),
        Message::FeaturesReply(body) => switch::put_features(out, body),
        Message::GetConfigReply(body) | Message::SetConfig(body) => body.encode(out),
        Message::PacketIn(body) if kind == PACKET_IN => packet::put_in(out, body),
        Message::FlowRemoved(body) if kind == FLOW_REMOVED => flow::put_removed(out, body),
        Message::FlowRemoved(body) => {
            vendor::put_head(out, vendor::FLOW_REMOVED);
            flow::put_nicira_removed(out, body);
        }
        Message::PortStatus(body) => port::put_status(out, body),
        Message::PacketOut(body) => packet::put_out(out, body, end),
        Message::FlowMod(body) if kind == FLOW_MOD => flow::put_mod(out, body, dialect, end),
        Message::FlowMod(body) => {
            vendor::put_head(out, vendor::FLOW_MOD);
            flow::put_nicira_mod(out, body, dialect, end);
        }
        Message::PortMod(body) => port::put_mod(out, body),
        Message::MultipartRequest(body) => stats::put_request(out, body, dialect.told),
        Message::QueueGetConfigRequest(port) => queue::put_request(out, *port),
        Message::QueueGetConfigReply(body) => queue::put_config(out, body),
        _ if kind == VENDOR => vendor::put(out, message),
        _ => {}
    }
    out.set_length(start, 2);
}

/// `OFPT_*`, if OpenFlow 1.0 has the message.
fn message_type(message: &Message, dialect: &Dialect) -> Option<u8> {
    let nicira = dialect.told == FlowFormat::Nxm;
    Some(match message {
        Message::Hello(_) => HELLO,
        Message::Error(_) => ERROR,
        Message::EchoRequest(_) => ECHO_REQUEST,
        Message::EchoReply(_) => ECHO_REPLY,
        Message::FeaturesRequest => FEATURES_REQUEST,
        Message::FeaturesReply(_) => FEATURES_REPLY,
        Message::GetConfigRequest => GET_CONFIG_REQUEST,
        Message::GetConfigReply(_) => GET_CONFIG_REPLY,
        Message::SetConfig(_) => SET_CONFIG,
        Message::PacketIn(packet_in) if packet_in.format == PacketInFormat::Standard => PACKET_IN,
        Message::FlowRemoved(_) if !nicira => FLOW_REMOVED,
        Message::PortStatus(_) => PORT_STATUS,
        Message::PacketOut(_) => PACKET_OUT,
        Message::FlowMod(_) if !nicira => FLOW_MOD,
        Message::PortMod(_) => PORT_MOD,
        Message::MultipartRequest(_) => STATS_REQUEST,
        Message::MultipartReply(_) => STATS_REPLY,
        Message::BarrierRequest => BARRIER_REQUEST,
        Message::BarrierReply => BARRIER_REPLY,
        Message::QueueGetConfigRequest(_) => QUEUE_GET_CONFIG_REQUEST,
        Message::QueueGetConfigReply(_) => QUEUE_GET_CONFIG_REPLY,
        Message::PacketIn(_)
        | Message::FlowRemoved(_)
        | Message::FlowMod(_)
        | Message::RoleRequest(_)
        | Message::RoleReply(_)
        | Message::SetAsync(_)
        | Message::SetPacketInFormat(_)
        | Message::SetControllerId(_)
        | Message::SetFlowFormat(_)
        | Message::FlowModTableId(_)
        | Message::FlowAge
        | Message::FlowMonitorCancel(_)
        | Message::FlowMonitorPaused
        | Message::FlowMonitorResumed => VENDOR,
        _ => return None,
    })
}

/// Appends a header and returns where it is. The length is to be set.
fn start_message(out: &mut Vec<u8>, kind: u8, xid: u32) -> usize {
    let start = out.len();
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u16(0);
    out.put_u32(xid);
    start
}

#[cfg(test)]
mod tests;

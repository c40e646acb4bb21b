//! Nicira's messages (`NXT_*`), but for those that OpenFlow 1.3 has messages of its own for.

use super::super::bytes::{Put, Reader};
use super::super::error::{BadRequest, ErrorCode, Nicira};
use super::super::flow::NO_BUFFER;
use super::super::oxm::{decode_fields, decode_nx_match, put_fields, put_nx_match};
use super::super::packet::{MAX_PACKET_IN_DATA, NO_COOKIE, PacketIn, PacketInFormat};
use super::super::{BadMatch, Message};
use super::NICIRA;
use datapath::key::Match;

// NXT_*
/// Taken in OpenFlow 1.0 only: others have one format.
pub(in super::super) const SET_FLOW_FORMAT: u32 = 12;
const FLOW_MOD_TABLE_ID: u32 = 15;
const SET_PACKET_IN_FORMAT: u32 = 16;
const PACKET_IN: u32 = 17;
const FLOW_AGE: u32 = 18;
const SET_CONTROLLER_ID: u32 = 20;
const RESUME: u32 = 28;
const PACKET_IN2: u32 = 30;

// NXPINT_*: properties of NXT_PACKET_IN2.
const PACKET: u16 = 0;
const FULL_LEN: u16 = 1;
const TABLE_ID: u16 = 3;
const COOKIE: u16 = 4;
const REASON: u16 = 5;
const METADATA: u16 = 6;
const USERDATA: u16 = 7;

/// Reads a message from its subtype on.
pub(in super::super) fn decode_message(mut body: Reader) -> Result<Message, ErrorCode> {
    let message = match body.u32()? {
        SET_PACKET_IN_FORMAT => {
            let format = body.u32()?;
            // The error is Open vSwitch's for a format that it doesn't have.
            Message::SetPacketInFormat(PacketInFormat::from_number(format).ok_or(BadRequest::Eperm)?)
        }
        SET_CONTROLLER_ID => {
            if body.array::<6>()? != [0; 6] {
                return Err(Nicira::MustBeZero.into());
            }
            Message::SetControllerId(body.u16()?)
        }
        FLOW_MOD_TABLE_ID => {
            let set = body.u8()?;
            body.skip(7)?;
            Message::FlowModTableId(set != 0)
        }
        FLOW_AGE => Message::FlowAge,
        PACKET_IN => return decode_packet_in(body).map(|packet_in| Message::PacketIn(Box::new(packet_in))),
        PACKET_IN2 => return decode_packet_in2(body).map(|packet_in| Message::PacketIn(Box::new(packet_in))),
        RESUME => return Err(Nicira::ResumeNotSupported.into()),
        _ => return Err(BadRequest::BadExpType.into()),
    };
    body.finish()?;
    Ok(message)
}

/// Appends the body of a message from the experimenter's id on. Only those that [`decode_message`] reads are asked for.
pub(in super::super) fn put_message(out: &mut Vec<u8>, message: &Message) {
    let start = |out: &mut Vec<u8>, subtype: u32| {
        out.put_u32(NICIRA);
        out.put_u32(subtype);
    };
    match message {
        Message::SetPacketInFormat(format) => {
            start(out, SET_PACKET_IN_FORMAT);
            out.put_u32(*format as u32);
        }
        Message::SetControllerId(id) => {
            start(out, SET_CONTROLLER_ID);
            out.put_zeros(6);
            out.put_u16(*id);
        }
        Message::SetFlowFormat(format) => {
            start(out, SET_FLOW_FORMAT);
            out.put_u32(*format as u32);
        }
        Message::FlowModTableId(set) => {
            start(out, FLOW_MOD_TABLE_ID);
            out.put_u8(u8::from(*set));
            out.put_zeros(7);
        }
        Message::FlowAge => start(out, FLOW_AGE),
        Message::PacketIn(packet_in) if packet_in.format == PacketInFormat::Nicira => {
            start(out, PACKET_IN);
            put_packet_in(out, packet_in);
        }
        Message::PacketIn(packet_in) => {
            start(out, PACKET_IN2);
            put_packet_in2(out, packet_in);
        }
        _ => {}
    }
}

fn decode_packet_in(mut body: Reader) -> Result<PacketIn, ErrorCode> {
    body.skip(4)?;
    let (total_len, reason, table, cookie, length) = (body.u16()?, body.u8()?, body.u8()?, body.u64()?, body.u16()?);
    body.skip(6)?;
    let matching = decode_nx_match(&mut body, length)?;
    body.skip(2)?;
    let (data, userdata) = (body.rest().to_vec(), Vec::new());
    Ok(PacketIn { format: PacketInFormat::Nicira, total_len, reason, table, cookie, matching, data, userdata })
}

fn put_packet_in(out: &mut Vec<u8>, packet_in: &PacketIn) {
    out.put_u32(NO_BUFFER);
    out.put_u16(packet_in.total_len);
    out.put_u8(packet_in.reason);
    out.put_u8(packet_in.table);
    out.put_u64(packet_in.cookie);
    let length_at = out.len();
    out.put_zeros(8);
    let length = put_nx_match(out, &packet_in.matching);
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    out.put_zeros(2);
    out.extend_from_slice(&packet_in.data[..packet_in.data.len().min(MAX_PACKET_IN_DATA)]);
}

fn decode_packet_in2(mut body: Reader) -> Result<PacketIn, ErrorCode> {
    let mut packet_in = PacketIn {
        format: PacketInFormat::Nicira2,
        total_len: 0,
        reason: 0,
        table: 0,
        cookie: NO_COOKIE,
        matching: Match::ANY,
        data: Vec::new(),
        userdata: Vec::new(),
    };
    let mut total_len = None;
    while !body.is_empty() {
        let mut head = body.part(4, BadRequest::BadLen)?;
        let (kind, length) = (head.u16()?, usize::from(head.u16()?));
        let mut property = body.part(length.checked_sub(4).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        body.skip(length.next_multiple_of(8) - length)?;
        match kind {
            PACKET => packet_in.data = property.rest().to_vec(),
            FULL_LEN => total_len = Some(property.u32()?),
            TABLE_ID => packet_in.table = property.u8()?,
            COOKIE => {
                property.skip(4)?;
                packet_in.cookie = property.u64()?;
            }
            REASON => packet_in.reason = property.u8()?,
            METADATA => packet_in.matching = decode_fields(property.part(property.len(), BadMatch::BadLen)?)?,
            USERDATA => packet_in.userdata = property.rest().to_vec(),
            // A buffer's number, a continuation, and what else there may be.
            _ => {}
        }
    }
    if packet_in.data.is_empty() {
        return Err(BadRequest::BadLen.into());
    }
    packet_in.total_len = total_len.map_or(packet_in.data.len(), |length| length as usize).min(u16::MAX.into()) as u16;
    Ok(packet_in)
}

fn put_packet_in2(out: &mut Vec<u8>, packet_in: &PacketIn) {
    let property = |out: &mut Vec<u8>, kind: u16, put: &dyn Fn(&mut Vec<u8>)| {
        let start = out.len();
        out.put_u16(kind);
        out.put_u16(0);
        put(out);
        out.set_length(start, 2);
        out.pad_from(start);
    };
    // The heads and padding of userdata and packet come to less than this.
    let room = MAX_PACKET_IN_DATA - 64;
    let userdata = &packet_in.userdata[..packet_in.userdata.len().min(room)];
    let data = &packet_in.data[..packet_in.data.len().min(room - userdata.len())];
    property(out, PACKET, &|out| out.extend_from_slice(data));
    if usize::from(packet_in.total_len) != data.len() {
        property(out, FULL_LEN, &|out| out.put_u32(packet_in.total_len.into()));
    }
    property(out, TABLE_ID, &|out| out.put_u8(packet_in.table));
    if packet_in.cookie != NO_COOKIE {
        property(out, COOKIE, &|out| {
            out.put_zeros(4);
            out.put_u64(packet_in.cookie);
        });
    }
    property(out, REASON, &|out| out.put_u8(packet_in.reason));
    property(out, METADATA, &|out| put_fields(out, &packet_in.matching));
    if !userdata.is_empty() {
        property(out, USERDATA, &|out| out.extend_from_slice(userdata));
    }
}

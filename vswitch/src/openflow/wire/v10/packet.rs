//! OFPT_PACKET_IN and OFPT_PACKET_OUT (OpenFlow 1.0, 5.4.1 and 5.3.6).

use super::super::bytes::{Put, Reader};
use super::super::error::{BadAction, BadRequest, ErrorCode};
use super::super::packet::{MAX_PACKET_IN_DATA, NO_COOKIE};
use super::super::{NO_BUFFER, PacketIn, PacketInFormat, PacketOut};
use super::action::{decode_actions, put_actions};
use super::port::{is_ordinary, narrow, widen};
use datapath::key::{Field, Match};
use datapath::port::PortNo;

/// Reads OFPT_PACKET_IN, which says nothing of the table, the rule, and the pipeline's state.
pub(super) fn decode_in(mut body: Reader) -> Result<PacketIn, ErrorCode> {
    body.skip(4)?;
    let (total_len, in_port, reason) = (body.u16()?, widen(body.u16()?), body.u8()?);
    body.skip(1)?;
    Ok(PacketIn {
        format: PacketInFormat::Standard,
        total_len,
        reason,
        table: 0,
        cookie: NO_COOKIE,
        matching: Match::ANY.with(Field::InPort, in_port.0.into()),
        data: body.rest().to_vec(),
        userdata: Vec::new(),
    })
}

/// Appends the body of OFPT_PACKET_IN. A port whose number does not fit is none.
pub(super) fn put_in(out: &mut Vec<u8>, packet_in: &PacketIn) {
    let in_port = packet_in.matching.get(Field::InPort).map_or(PortNo::ANY, |port| PortNo(port.value as u32));
    out.put_u32(NO_BUFFER);
    out.put_u16(packet_in.total_len);
    out.put_u16(narrow(in_port).unwrap_or(PortNo::ANY.0 as u16));
    out.put_u8(packet_in.reason);
    out.put_zeros(1);
    out.extend_from_slice(&packet_in.data[..packet_in.data.len().min(MAX_PACKET_IN_DATA)]);
}

/// Reads OFPT_PACKET_OUT.
pub(super) fn decode_out(mut body: Reader) -> Result<PacketOut, ErrorCode> {
    let (buffer_id, in_port, actions_length) = (body.u32()?, widen(body.u16()?), body.u16()?);
    if !is_ordinary(in_port) && ![PortNo::CONTROLLER, PortNo::LOCAL, PortNo::ANY].contains(&in_port) {
        return Err(BadRequest::BadPort.into());
    }
    let actions = body.part(actions_length.into(), BadRequest::BadLen)?.rest();
    let actions = decode_actions(Reader::new(actions, BadAction::BadLen))?.into();
    Ok(PacketOut { buffer_id, in_port, actions, data: body.rest().to_vec() })
}

/// Appends the body of OFPT_PACKET_OUT.
pub(super) fn put_out(out: &mut Vec<u8>, packet_out: &PacketOut, end: usize) {
    out.put_u32(packet_out.buffer_id);
    out.put_u16(narrow(packet_out.in_port).unwrap_or_default());
    let length_at = out.len();
    out.put_zeros(2);
    let start = out.len();
    put_actions(out, &packet_out.actions, end - packet_out.data.len().min(end - start));
    let length = (out.len() - start) as u16;
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&packet_out.data);
}

//! OFPT_PACKET_IN and OFPT_PACKET_OUT (OpenFlow 1.3.5, 7.4.1 and 7.3.7).

use super::action::{decode_actions, put_actions};
use super::bytes::{Put, Reader};
use super::error::{BadAction, BadRequest, ErrorCode};
use super::flow::NO_BUFFER;
use super::oxm::{MAX_MATCH, decode_match, put_match};
use datapath::action::OFPR_NO_MATCH;
use datapath::key::Match;
use datapath::port::PortNo;
use datapath::tables::instruction::OfActions;

/// The cookie of a frame that no rule sent.
pub(super) const NO_COOKIE: u64 = u64::MAX;

/// The most bytes of a frame that fit into a packet-in, whatever its match.
pub const MAX_PACKET_IN_DATA: usize = 0xffff - 64 - MAX_MATCH;

/// Which message a frame comes to a controller in (`NXPIF_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum PacketInFormat {
    /// OFPT_PACKET_IN.
    #[default]
    Standard = 0,
    /// NXT_PACKET_IN.
    Nicira = 1,
    /// NXT_PACKET_IN2, the only one with `userdata`.
    Nicira2 = 2,
}

impl PacketInFormat {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        [Self::Standard, Self::Nicira, Self::Nicira2].into_iter().find(|format| *format as u32 == number)
    }
}

/// A frame for a controller. Frames are never buffered in the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketIn {
    /// The message that it comes in.
    pub format: PacketInFormat,
    /// The frame's full length.
    pub total_len: u16,
    /// `OFPR_*`: 0 no match, 1 an action, 2 invalid TTL.
    pub reason: u8,
    /// The table whose rule sent it.
    pub table: u8,
    /// The rule's cookie; all ones if there is none.
    pub cookie: u64,
    /// Ingress port and pipeline state.
    pub matching: Match,
    /// The frame, or its start.
    pub data: Vec<u8>,
    /// What the action that sent it says is to be given back.
    pub userdata: Vec<u8>,
}

impl PacketIn {
    /// Whether no rule matched the frame, not even a table-miss rule.
    pub fn is_miss(&self) -> bool {
        (self.reason, self.cookie) == (OFPR_NO_MATCH, NO_COOKIE)
    }

    /// Reads the body of OFPT_PACKET_IN.
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        body.skip(4)?;
        let (total_len, reason, table, cookie) = (body.u16()?, body.u8()?, body.u8()?, body.u64()?);
        let matching = decode_match(&mut body)?;
        body.skip(2)?;
        let (data, userdata) = (body.rest().to_vec(), Vec::new());
        Ok(Self { format: PacketInFormat::Standard, total_len, reason, table, cookie, matching, data, userdata })
    }

    /// Appends the body of OFPT_PACKET_IN.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(NO_BUFFER);
        out.put_u16(self.total_len);
        out.put_u8(self.reason);
        out.put_u8(self.table);
        out.put_u64(self.cookie);
        put_match(out, &self.matching);
        out.put_zeros(2);
        out.extend_from_slice(&self.data[..self.data.len().min(MAX_PACKET_IN_DATA)]);
    }
}

/// The body of OFPT_PACKET_OUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOut {
    /// A buffered packet, or [`NO_BUFFER`].
    pub buffer_id: u32,
    /// The port that the frame is said to have come from; [`PortNo::CONTROLLER`] or [`PortNo::ANY`] for none.
    pub in_port: PortNo,
    /// What to do with it.
    pub actions: OfActions,
    /// The frame, unless it is buffered.
    pub data: Vec<u8>,
}

impl PacketOut {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (buffer_id, in_port, actions_length) = (body.u32()?, PortNo(body.u32()?), body.u16()?);
        body.skip(6)?;
        if in_port > PortNo::MAX && ![PortNo::CONTROLLER, PortNo::LOCAL, PortNo::ANY].contains(&in_port) || in_port == PortNo(0) {
            return Err(BadRequest::BadPort.into());
        }
        let actions = body.part(actions_length.into(), BadRequest::BadLen)?.rest();
        let actions = decode_actions(Reader::new(actions, BadAction::BadLen))?;
        Ok(Self { buffer_id, in_port, actions, data: body.rest().to_vec() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.buffer_id);
        out.put_u32(self.in_port.0);
        let length_at = out.len();
        out.put_zeros(8);
        let start = out.len();
        put_actions(out, &self.actions);
        let length = out.len() - start;
        out[length_at..length_at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        out.extend_from_slice(&self.data);
    }
}

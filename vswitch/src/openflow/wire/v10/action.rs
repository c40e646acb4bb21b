//! Actions: the twelve of OpenFlow 1.0 (5.2.4), and Nicira's for the rest.

use super::super::action::MAX_DEPTH;
use super::super::bytes::{Put, Reader};
use super::super::error::{BadAction, ErrorCode, Nicira};
use super::super::nicira::{self, NICIRA};
use super::port::{is_ordinary, narrow, widen};
use datapath::key::{Field, FieldRange, Match, vlan};
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction};

// OFPAT_*
const OUTPUT: u16 = 0;
const SET_VLAN_VID: u16 = 1;
const SET_VLAN_PCP: u16 = 2;
const STRIP_VLAN: u16 = 3;
const SET_DL_SRC: u16 = 4;
const SET_DL_DST: u16 = 5;
const SET_NW_SRC: u16 = 6;
const SET_NW_DST: u16 = 7;
const SET_NW_TOS: u16 = 8;
const SET_TP_SRC: u16 = 9;
const SET_TP_DST: u16 = 10;
const ENQUEUE: u16 = 11;
const VENDOR: u16 = 0xffff;

/// The types of the standard's actions, as a bitmap: all of them.
pub(super) const SUPPORTED: u32 = (1 << (ENQUEUE + 1)) - 1;

// NXAST_*: those that are not the same in all versions.
const SET_TUNNEL: u16 = 2;
const SET_TUNNEL64: u16 = 9;
const WRITE_METADATA: u16 = 22;
const SET_MPLS_LABEL: u16 = 30;
const SET_MPLS_TC: u16 = 31;

/// The bits of `nw_tos` that are a DSCP.
const DSCP: u8 = 0xfc;

/// The transport ports of each protocol that has some: source and destination.
const PORTS: [[Field; 2]; 3] = [[Field::TcpSrc, Field::TcpDst], [Field::UdpSrc, Field::UdpDst], [Field::SctpSrc, Field::SctpDst]];

/// Actions as they were read.
#[derive(Debug, Default)]
struct Decoded {
    actions: Vec<OfAction>,
    /// What the last one writes into the metadata, if it is NXAST_WRITE_METADATA. There it is as good as OpenFlow 1.3's instruction; before others it
    /// is an action like them.
    metadata: Option<(u64, u64)>,
}

impl Decoded {
    fn into_actions(mut self) -> Vec<OfAction> {
        self.actions.extend(self.metadata.and_then(write_metadata));
        self.actions
    }
}

/// Reads actions to the end of `reader`, for what `matching` matches.
pub(super) fn decode_instructions(reader: Reader, matching: &Match) -> Result<Instructions, ErrorCode> {
    let Decoded { actions, metadata } = decode(reader, matching, 0)?;
    Ok(Instructions { apply: actions.into(), metadata, ..Instructions::default() })
}

/// Reads actions to the end of `reader`, for any frame.
pub(super) fn decode_actions(reader: Reader) -> Result<Vec<OfAction>, ErrorCode> {
    decode(reader, &Match::ANY, 0).map(Decoded::into_actions)
}

/// Reads actions that lie `depth` deep in others.
fn decode(mut reader: Reader, matching: &Match, depth: usize) -> Result<Decoded, ErrorCode> {
    if depth > MAX_DEPTH {
        return Err(BadAction::TooMany.into());
    }
    let mut decoded = Decoded::default();
    while !reader.is_empty() {
        let mut head = reader.part(4, BadAction::BadLen)?;
        let (kind, length) = (head.u16()?, usize::from(head.u16()?));
        if length < 8 || !length.is_multiple_of(8) {
            return Err(BadAction::BadLen.into());
        }
        let mut body = reader.part(length - 4, BadAction::BadLen)?;
        decoded.actions.extend(decoded.metadata.take().and_then(write_metadata));
        match kind {
            SET_TP_SRC | SET_TP_DST => {
                let port = body.u16()?;
                body.skip(2)?;
                let fields = PORTS.map(|fields| fields[usize::from(kind - SET_TP_SRC)]);
                match fields.into_iter().find(|field| matching.permits(*field)) {
                    Some(field) => decoded.actions.push(set(field, port)),
                    None => decoded.actions.extend(fields.map(|field| set(field, port))),
                }
            }
            VENDOR => {
                if body.u32()? != NICIRA {
                    return Err(BadAction::BadExperimenter.into());
                }
                match decode_write_metadata(&mut body, depth)? {
                    Some(metadata) => decoded.metadata = Some(metadata),
                    None => decoded
                        .actions
                        .push(nicira::decode_action(&mut body, |actions| Ok(decode(actions, matching, depth + 1)?.into_actions().into()))?),
                }
            }
            _ => decoded.actions.push(decode_standard(kind, &mut body)?),
        }
        body.finish()?;
    }
    Ok(decoded)
}

/// Reads the value and mask of NXAST_WRITE_METADATA, if it is that, and is not in a clone: there it is none of the actions.
fn decode_write_metadata(body: &mut Reader, depth: usize) -> Result<Option<(u64, u64)>, ErrorCode> {
    let mut rest = *body;
    if rest.u16()? != WRITE_METADATA || depth > 0 {
        return Ok(None);
    }
    rest.zeros(6, Nicira::MustBeZero)?;
    let metadata = (rest.u64()?, rest.u64()?);
    *body = rest;
    Ok(Some(metadata))
}

/// The action that writes bits of the metadata; none if there are none.
fn write_metadata((value, mask): (u64, u64)) -> Option<OfAction> {
    (mask != 0).then(|| OfAction::SetField { field: Field::Metadata, value: (value & mask).into(), mask: mask.into() })
}

fn set(field: Field, value: impl Into<u128>) -> OfAction {
    OfAction::SetField { field, value: value.into(), mask: field.ones() }
}

fn decode_standard(kind: u16, body: &mut Reader) -> Result<OfAction, ErrorCode> {
    Ok(match kind {
        OUTPUT => {
            let (port, max_len) = (widen(body.u16()?), body.u16()?);
            if !is_ordinary(port) && !(PortNo::IN_PORT..PortNo::ANY).contains(&port) {
                return Err(BadAction::BadOutPort.into());
            }
            OfAction::Output { port, max_len }
        }
        SET_VLAN_VID => {
            let vid = body.u16()?;
            body.skip(2)?;
            if vid & !0xfff != 0 {
                return Err(BadAction::BadArgument.into());
            }
            OfAction::SetVlanVid(vid)
        }
        SET_VLAN_PCP => {
            let pcp = body.u8()?;
            body.skip(3)?;
            if pcp > 7 {
                return Err(BadAction::BadArgument.into());
            }
            OfAction::SetVlanPcp(pcp)
        }
        STRIP_VLAN => {
            body.skip(4)?;
            OfAction::PopVlan
        }
        SET_DL_SRC | SET_DL_DST => {
            let address = body.uint(6)?;
            body.skip(6)?;
            set(if kind == SET_DL_SRC { Field::EthSrc } else { Field::EthDst }, address)
        }
        SET_NW_SRC | SET_NW_DST => set(if kind == SET_NW_SRC { Field::Ipv4Src } else { Field::Ipv4Dst }, body.u32()?),
        SET_NW_TOS => {
            let tos = body.u8()?;
            body.skip(3)?;
            if tos & !DSCP != 0 {
                return Err(BadAction::BadArgument.into());
            }
            set(Field::IpDscp, tos >> 2)
        }
        ENQUEUE => {
            let port = widen(body.u16()?);
            body.skip(6)?;
            let queue = body.u32()?;
            if !is_ordinary(port) && ![PortNo::IN_PORT, PortNo::LOCAL].contains(&port) {
                return Err(BadAction::BadOutPort.into());
            }
            OfAction::Enqueue { port, queue }
        }
        _ => return Err(BadAction::BadType.into()),
    })
}

/// Appends what actions can say of a rule, as far as there is room before `end`.
pub(super) fn put_instructions(out: &mut Vec<u8>, instructions: &Instructions, end: usize) {
    let Instructions { apply, metadata, goto, .. } = instructions;
    let Some(table) = *goto else {
        put_actions(out, apply, end);
        if let Some((value, mask)) = *metadata {
            put_within(out, end, |out| {
                put_nicira(out, WRITE_METADATA, |out| {
                    out.put_zeros(6);
                    out.put_u64(value);
                    out.put_u64(mask);
                })
            });
        }
        return;
    };
    // Going on in another table is an action, so the metadata has to be written by one, too.
    let resubmit = OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(table) };
    let actions: Vec<_> = apply.iter().cloned().chain(metadata.and_then(write_metadata)).chain([resubmit]).collect();
    put_actions(out, &actions, end);
}

/// Appends those actions that OpenFlow 1.0 has, as far as there is room before `end`. (A few are longer than they were in OpenFlow 1.3.)
pub(super) fn put_actions(out: &mut Vec<u8>, mut actions: &[OfAction], end: usize) {
    while let [first, others @ ..] = actions {
        let (has_room, rest) = match transport_port(actions) {
            Some((kind, port)) => (put_within(out, end, |out| put_transport_port(out, kind, port)), &actions[PORTS.len()..]),
            None => (put_within(out, end, |out| put_action(out, first, end)), others),
        };
        if !has_room {
            return;
        }
        actions = rest;
    }
}

/// Has something appended, but not beyond `end`. Returns whether there was room.
fn put_within(out: &mut Vec<u8>, end: usize, put: impl FnOnce(&mut Vec<u8>)) -> bool {
    let start = out.len();
    put(out);
    let has_room = out.len() <= end;
    if !has_room {
        out.truncate(start);
    }
    has_room
}

/// The one action, by type and port, that the first three are for: they set a port of any transport protocol.
fn transport_port(actions: &[OfAction]) -> Option<(u16, u16)> {
    let first = actions.first_chunk::<{ PORTS.len() }>()?;
    let OfAction::SetField { value, .. } = first[0] else { return None };
    let sets = |which: usize| *first == PORTS.map(|fields| set(fields[which], value));
    [SET_TP_SRC, SET_TP_DST].into_iter().zip(0..).find(|(_, which)| sets(*which)).map(|(kind, _)| (kind, value as u16))
}

/// Appends an action of the standard, all of it, with what `body` puts behind its header.
fn put_standard(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u16(kind);
    out.put_u16(0);
    body(out);
    out.pad_from(start);
    out.set_length(start, 2);
}

/// The same for one of Nicira's.
fn put_nicira(out: &mut Vec<u8>, subtype: u16, body: impl FnOnce(&mut Vec<u8>)) {
    put_standard(out, VENDOR, |out| {
        out.put_u32(NICIRA);
        out.put_u16(subtype);
        body(out);
    });
}

fn put_transport_port(out: &mut Vec<u8>, kind: u16, port: u16) {
    put_standard(out, kind, |out| out.put_u16(port));
}

/// Appends an action; nothing if OpenFlow 1.0 has none for it.
fn put_action(out: &mut Vec<u8>, action: &OfAction, end: usize) {
    match *action {
        OfAction::Output { port, max_len } => {
            if let Some(port) = narrow(port) {
                put_standard(out, OUTPUT, |out| {
                    out.put_u16(port);
                    out.put_u16(max_len);
                });
            }
        }
        OfAction::Enqueue { port, queue } => {
            if let Some(port) = narrow(port) {
                put_standard(out, ENQUEUE, |out| {
                    out.put_u16(port);
                    out.put_zeros(6);
                    out.put_u32(queue);
                });
            }
        }
        OfAction::SetField { field, value, mask } => put_set_field(out, field, value, mask),
        OfAction::SetVlanVid(vid) => put_standard(out, SET_VLAN_VID, |out| out.put_u16(vid)),
        OfAction::SetVlanPcp(pcp) => put_standard(out, SET_VLAN_PCP, |out| out.put_u8(pcp)),
        OfAction::PopVlan => put_standard(out, STRIP_VLAN, |out| out.put_zeros(4)),
        // Where a VLAN is set then, a tag is pushed.
        OfAction::PushVlan(_) => {}
        OfAction::PushPbb | OfAction::PopPbb | OfAction::CopyTtlOut | OfAction::CopyTtlIn => {}
        _ => put_standard(out, VENDOR, |out| nicira::put_action(out, action, |out, actions| put_actions(out, actions, end))),
    }
}

fn put_set_field(out: &mut Vec<u8>, field: Field, value: u128, mask: u128) {
    if mask != field.ones() {
        return put_loads(out, field, value, mask);
    }
    let mut address = |kind, bytes| put_standard(out, kind, |out| out.put_uint(value, bytes));
    match field {
        Field::EthSrc => address(SET_DL_SRC, 6),
        Field::EthDst => address(SET_DL_DST, 6),
        Field::Ipv4Src => address(SET_NW_SRC, 4),
        Field::Ipv4Dst => address(SET_NW_DST, 4),
        Field::TcpSrc | Field::UdpSrc | Field::SctpSrc => put_transport_port(out, SET_TP_SRC, value as u16),
        Field::TcpDst | Field::UdpDst | Field::SctpDst => put_transport_port(out, SET_TP_DST, value as u16),
        Field::IpDscp => put_standard(out, SET_NW_TOS, |out| out.put_u8((value as u8) << 2)),
        Field::NwTos => put_standard(out, SET_NW_TOS, |out| out.put_u8(value as u8)),
        Field::VlanVid if value as u16 & vlan::PRESENT != 0 => put_standard(out, SET_VLAN_VID, |out| out.put_u16(value as u16 & 0xfff)),
        Field::VlanPcp => put_standard(out, SET_VLAN_PCP, |out| out.put_u8(value as u8)),
        Field::MplsLabel => put_nicira_number(out, SET_MPLS_LABEL, value as u32),
        Field::MplsTc => put_nicira(out, SET_MPLS_TC, |out| out.put_u8(value as u8)),
        Field::TunnelId if value <= u32::MAX.into() => put_nicira_number(out, SET_TUNNEL, value as u32),
        Field::TunnelId => put_nicira(out, SET_TUNNEL64, |out| {
            out.put_zeros(6);
            out.put_u64(value as u64);
        }),
        _ => put_loads(out, field, value, mask),
    }
}

/// An action of Nicira's with a number of 32 bits.
fn put_nicira_number(out: &mut Vec<u8>, subtype: u16, number: u32) {
    put_nicira(out, subtype, |out| {
        out.put_zeros(2);
        out.put_u32(number);
    });
}

/// Appends a load for each run of bits of a field that is written; one of more than 64 bits needs two.
fn put_loads(out: &mut Vec<u8>, field: Field, value: u128, mut mask: u128) {
    while mask != 0 {
        let offset = mask.trailing_zeros();
        let bits = (mask >> offset).trailing_ones().min(64);
        let ones = u128::MAX >> (128 - bits);
        let destination = FieldRange { field, offset: offset as u8, bits: bits as u8 };
        let load = OfAction::Load { destination, value: (value >> offset & ones) as u64 };
        put_standard(out, VENDOR, |out| nicira::put_action(out, &load, |_, _| {}));
        mask &= !(ones << offset);
    }
}

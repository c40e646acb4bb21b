//! Actions of OpenFlow 1.3.5 (7.2.5), and those of experimenters that are taken beside them ([`super::nicira`]).
//!
//! What is there is every action of the standard. An action of OpenFlow 1.0 that a rule may have, and OpenFlow 1.3 hasn't, is sent as what amounts
//! to the same.

use super::bytes::{Put, Reader};
use super::error::{BadAction, BadMatch, ErrorCode, Nicira};
use super::nicira;
use super::oxm::{FieldErrors, FieldValue, Ids, decode_mention, put_field};
use datapath::key::field::OXM_ONF;
use datapath::key::{Field, FieldRange};
use datapath::port::PortNo;
use datapath::tables::instruction::{CONTROLLER_WHOLE, OfAction, OfActions};

// OFPAT_*
const OUTPUT: u16 = 0;
const COPY_TTL_OUT: u16 = 11;
const COPY_TTL_IN: u16 = 12;
const SET_MPLS_TTL: u16 = 15;
const DEC_MPLS_TTL: u16 = 16;
const PUSH_VLAN: u16 = 17;
const POP_VLAN: u16 = 18;
const PUSH_MPLS: u16 = 19;
const POP_MPLS: u16 = 20;
const SET_QUEUE: u16 = 21;
const GROUP: u16 = 22;
const SET_NW_TTL: u16 = 23;
const DEC_NW_TTL: u16 = 24;
const SET_FIELD: u16 = 25;
const PUSH_PBB: u16 = 26;
const POP_PBB: u16 = 27;
pub(super) const EXPERIMENTER: u16 = 0xffff;

/// ONFACT_COPY_FIELD (ONF extension 320): OpenFlow 1.5's action to move bits, for OpenFlow 1.3.
const ONF_COPY_FIELD: u16 = 3200;

/// How deep actions may lie in each other: those of a clone in a list are one deep.
pub(super) const MAX_DEPTH: usize = 16;

/// The types of the standard's actions, as a bitmap. All are carried out.
pub const SUPPORTED: u32 = 1 << OUTPUT
    | 1 << COPY_TTL_OUT
    | 1 << COPY_TTL_IN
    | 1 << SET_MPLS_TTL
    | 1 << DEC_MPLS_TTL
    | 1 << PUSH_VLAN
    | 1 << POP_VLAN
    | 1 << PUSH_MPLS
    | 1 << POP_MPLS
    | 1 << SET_QUEUE
    | 1 << GROUP
    | 1 << SET_NW_TTL
    | 1 << DEC_NW_TTL
    | 1 << SET_FIELD
    | 1 << PUSH_PBB
    | 1 << POP_PBB;

/// The Ethernet type of a PBB I-TAG.
const PBB: u16 = 0x88e7;

pub(super) const SET_ERRORS: FieldErrors = FieldErrors {
    unknown: ErrorCode::BadAction(BadAction::BadSetType),
    length: ErrorCode::BadAction(BadAction::BadSetLen),
    value: ErrorCode::BadAction(BadAction::BadSetArgument),
    mask: ErrorCode::BadAction(BadAction::BadSetArgument),
    outside: ErrorCode::BadAction(BadAction::BadSetArgument),
};

/// Reads actions to the end of `reader`.
pub(super) fn decode_actions(reader: Reader) -> Result<OfActions, ErrorCode> {
    decode_nested(reader, 0)
}

/// Reads actions that lie `depth` deep in others.
fn decode_nested(reader: Reader, depth: usize) -> Result<OfActions, ErrorCode> {
    decode_list(reader, depth, |kind, body| decode_action(kind, body, depth))
}

/// Reads actions of any version to the end of `reader`: `decode` reads one of a type, without the header that all have.
pub(super) fn decode_list(
    mut reader: Reader,
    depth: usize,
    mut decode: impl FnMut(u16, Reader) -> Result<OfAction, ErrorCode>,
) -> Result<OfActions, ErrorCode> {
    if depth > MAX_DEPTH {
        return Err(BadAction::TooMany.into());
    }
    let mut actions = Vec::new();
    while !reader.is_empty() {
        let mut head = reader.part(4, BadAction::BadLen)?;
        let (kind, length) = (head.u16()?, usize::from(head.u16()?));
        if length < 8 || !length.is_multiple_of(8) {
            return Err(BadAction::BadLen.into());
        }
        actions.push(decode(kind, reader.part(length - 4, BadAction::BadLen)?)?);
    }
    Ok(actions.into())
}

fn decode_action(kind: u16, mut body: Reader, depth: usize) -> Result<OfAction, ErrorCode> {
    let action = match kind {
        OUTPUT => {
            let (port, max_len) = (PortNo(body.u32()?), body.u16()?);
            body.skip(6)?;
            if !is_output(port) {
                return Err(BadAction::BadOutPort.into());
            }
            OfAction::Output { port, max_len }
        }
        PUSH_VLAN | PUSH_MPLS | PUSH_PBB | POP_MPLS => {
            let eth_type = body.u16()?;
            body.skip(2)?;
            match (kind, eth_type) {
                (PUSH_VLAN, 0x8100 | 0x88a8) => OfAction::PushVlan(eth_type),
                (PUSH_MPLS, 0x8847 | 0x8848) => OfAction::PushMpls(eth_type),
                (PUSH_PBB, PBB) => OfAction::PushPbb,
                (POP_MPLS, _) => OfAction::PopMpls(eth_type),
                _ => return Err(BadAction::BadArgument.into()),
            }
        }
        SET_QUEUE => OfAction::SetQueue(body.u32()?),
        GROUP => OfAction::Group(body.u32()?),
        SET_NW_TTL | SET_MPLS_TTL => {
            let ttl = body.u8()?;
            body.skip(3)?;
            if kind == SET_NW_TTL { OfAction::SetNwTtl(ttl) } else { OfAction::SetMplsTtl(ttl) }
        }
        COPY_TTL_OUT | COPY_TTL_IN | DEC_MPLS_TTL | DEC_NW_TTL | POP_VLAN | POP_PBB => {
            body.skip(4)?;
            match kind {
                COPY_TTL_OUT => OfAction::CopyTtlOut,
                COPY_TTL_IN => OfAction::CopyTtlIn,
                DEC_MPLS_TTL => OfAction::DecMplsTtl,
                DEC_NW_TTL => OfAction::DecNwTtl,
                POP_VLAN => OfAction::PopVlan,
                _ => OfAction::PopPbb,
            }
        }
        SET_FIELD => {
            let set = FieldValue::decode(&mut body, &SET_ERRORS)?;
            if set.masked {
                return Err(BadAction::BadSetArgument.into());
            }
            skip_padding(&mut body, BadAction::BadSetArgument)?;
            // The standard leaves in_port out; Nicira's actions may set it.
            if set.field == Field::InPort {
                return Err(BadAction::BadSetType.into());
            }
            set_field(set)?
        }
        EXPERIMENTER => match body.u32()? {
            nicira::NICIRA => nicira::decode_action(&mut body, |actions| decode_nested(actions, depth + 1))?,
            OXM_ONF => decode_copy_field(&mut body)?,
            _ => return Err(BadAction::BadExperimenter.into()),
        },
        _ => return Err(BadAction::BadType.into()),
    };
    body.finish()?;
    Ok(action)
}

fn decode_copy_field(body: &mut Reader) -> Result<OfAction, ErrorCode> {
    if body.u16()? != ONF_COPY_FIELD {
        return Err(BadAction::BadExpType.into());
    }
    body.skip(2)?;
    let (bits, source, destination) = (body.u16()?, body.u16()?, body.u16()?);
    body.skip(2)?;
    decode_move(body, bits, source, destination)
}

/// Reads the fields of an action that moves `bits` bits between fields, from one offset to another.
pub(super) fn decode_move(body: &mut Reader, bits: u16, source_offset: u16, destination_offset: u16) -> Result<OfAction, ErrorCode> {
    let (source, destination) = (known_field(body)?, known_field(body)?);
    skip_padding(body, Nicira::MustBeZero)?;
    let source = range(source, source_offset, bits)?;
    let destination = writable(range(destination, destination_offset, bits)?)?;
    Ok(OfAction::Move { source, destination })
}

/// Passes over the padding behind something of varying length: less than eight bytes, all of them zero.
pub(super) fn skip_padding(body: &mut Reader, not_zero: impl Into<ErrorCode>) -> Result<(), ErrorCode> {
    if body.len() >= 8 {
        return Err(BadAction::BadLen.into());
    }
    body.zeros(body.len(), not_zero)
}

/// The action that writes a field.
pub(super) fn set_field(set: FieldValue) -> Result<OfAction, ErrorCode> {
    if !set.field.info().writable {
        return Err(BadAction::BadSetType.into());
    }
    if set.mask != set.field.ones() && !set.field.info().maskable {
        return Err(BadAction::BadSetArgument.into());
    }
    Ok(OfAction::SetField { field: set.field, value: set.value, mask: set.mask })
}

/// Reads the mention of a field.
pub(super) fn mention(body: &mut Reader) -> Result<Field, ErrorCode> {
    decode_mention(body, BadAction::BadSetType.into(), BadAction::BadSetLen.into())
}

/// Reads the mention of a field, for the actions that Open vSwitch has another error for.
pub(super) fn known_field(body: &mut Reader) -> Result<Field, ErrorCode> {
    decode_mention(body, BadMatch::BadField.into(), BadMatch::BadField.into())
}

/// Bits of a field, if it has them.
pub(super) fn range(field: Field, offset: u16, bits: u16) -> Result<FieldRange, ErrorCode> {
    let fits = bits > 0 && u32::from(offset) + u32::from(bits) <= u32::from(field.bits());
    fits.then_some(FieldRange { field, offset: offset as u8, bits: bits as u8 }).ok_or(BadAction::BadSetLen.into())
}

/// Bits that an action of an experimenter writes, with the error that Open vSwitch has for those that can't be.
pub(super) fn writable(range: FieldRange) -> Result<FieldRange, ErrorCode> {
    if range.field.info().writable { Ok(range) } else { Err(BadAction::BadSetArgument.into()) }
}

/// Whether frames can be sent there: an ordinary port or a reserved one other than ANY.
fn is_output(port: PortNo) -> bool {
    (PortNo(1)..=PortNo::MAX).contains(&port) || (PortNo::IN_PORT..PortNo::ANY).contains(&port)
}

/// Appends actions.
pub(super) fn put_actions(out: &mut Vec<u8>, actions: &[OfAction]) {
    for action in actions {
        match action {
            // OpenFlow 1.0's way to say a queue is for one output.
            OfAction::Enqueue { port, queue } => {
                let output = OfAction::Output { port: *port, max_len: CONTROLLER_WHOLE };
                put_actions(out, &[OfAction::SetQueue(*queue), output, OfAction::PopQueue]);
            }
            // OpenFlow 1.0 pushes a tag if there is none; so does writing the TCI's bit that says that there is one.
            OfAction::SetVlanVid(vid) => put_actions(out, &[load_tci(0, 13, 0x1000 | u64::from(*vid))]),
            OfAction::SetVlanPcp(pcp) => put_actions(out, &[load_tci(12, 4, u64::from(*pcp) << 1 | 1)]),
            action => {
                let start = out.len();
                put_action(out, action);
                out.pad_from(start);
                out.set_length(start, 2);
            }
        }
    }
}

/// The bytes of actions when they are sent.
pub(super) fn encoded_length(actions: &[OfAction]) -> usize {
    let mut out = Vec::new();
    let mut length = |action: &OfAction| {
        out.clear();
        match action {
            OfAction::Clone(actions) => 16 + encoded_length(actions),
            action => {
                put_actions(&mut out, std::slice::from_ref(action));
                out.len()
            }
        }
    };
    actions.iter().map(&mut length).sum()
}

fn load_tci(offset: u8, bits: u8, value: u64) -> OfAction {
    OfAction::Load { destination: FieldRange { field: Field::VlanTci, offset, bits }, value }
}

/// Appends an action, without its padding and with its length left open.
fn put_action(out: &mut Vec<u8>, action: &OfAction) {
    let head = |out: &mut Vec<u8>, kind: u16| {
        out.put_u16(kind);
        out.put_u16(0);
    };
    let plain = |out: &mut Vec<u8>, kind: u16| {
        head(out, kind);
        out.put_zeros(4);
    };
    let short = |out: &mut Vec<u8>, kind: u16, value: u16| {
        head(out, kind);
        out.put_u16(value);
    };
    match *action {
        OfAction::Output { port, max_len } => {
            head(out, OUTPUT);
            out.put_u32(port.0);
            out.put_u16(max_len);
        }
        OfAction::SetField { field, value, mask } if mask == field.ones() && field != Field::InPort => {
            head(out, SET_FIELD);
            put_field(out, Ids::Oxm, field, value, mask);
        }
        OfAction::PushVlan(tpid) => short(out, PUSH_VLAN, tpid),
        OfAction::PushMpls(eth_type) => short(out, PUSH_MPLS, eth_type),
        OfAction::PopMpls(eth_type) => short(out, POP_MPLS, eth_type),
        OfAction::PushPbb => short(out, PUSH_PBB, PBB),
        OfAction::PopVlan => plain(out, POP_VLAN),
        OfAction::PopPbb => plain(out, POP_PBB),
        OfAction::SetNwTtl(ttl) => short(out, SET_NW_TTL, u16::from(ttl) << 8),
        OfAction::SetMplsTtl(ttl) => short(out, SET_MPLS_TTL, u16::from(ttl) << 8),
        OfAction::DecNwTtl => plain(out, DEC_NW_TTL),
        OfAction::DecMplsTtl => plain(out, DEC_MPLS_TTL),
        OfAction::CopyTtlOut => plain(out, COPY_TTL_OUT),
        OfAction::CopyTtlIn => plain(out, COPY_TTL_IN),
        OfAction::SetQueue(queue) => {
            head(out, SET_QUEUE);
            out.put_u32(queue);
        }
        OfAction::Group(group) => {
            head(out, GROUP);
            out.put_u32(group);
        }
        _ => {
            head(out, EXPERIMENTER);
            nicira::put_action(out, action, put_actions);
        }
    }
}

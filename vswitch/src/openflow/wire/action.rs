//! Actions: those of OpenFlow 1.3.5 (7.2.5) and of Nicira's extensions that [`OfAction`] has. The others are refused by the error that the
//! standard has for an unknown action.

use super::bytes::{Put, Reader};
use super::error::{BadAction, ErrorCode};
use super::oxm::{FieldErrors, FieldValue, decode_mention, put_field, put_header};
use datapath::key::{Field, FieldRange};
use datapath::port::PortNo;
use datapath::tables::instruction::OfAction;

/// Nicira's experimenter id.
pub const NICIRA: u32 = 0x0000_2320;

// OFPAT_*
const OUTPUT: u16 = 0;
const PUSH_VLAN: u16 = 17;
const POP_VLAN: u16 = 18;
const SET_QUEUE: u16 = 21;
const GROUP: u16 = 22;
const SET_NW_TTL: u16 = 23;
const DEC_NW_TTL: u16 = 24;
const SET_FIELD: u16 = 25;
const EXPERIMENTER: u16 = 0xffff;

// NXAST_*
const RESUBMIT: u16 = 1;
const REG_MOVE: u16 = 6;
const REG_LOAD: u16 = 7;
const RESUBMIT_TABLE: u16 = 14;
const CONTROLLER: u16 = 20;
const REG_LOAD2: u16 = 33;

/// The table number of NXAST_RESUBMIT_TABLE that means the current one.
const CURRENT_TABLE: u8 = 0xff;

/// The types of the standard's actions that are carried out, as a bitmap.
pub const SUPPORTED: u32 = 1 << OUTPUT | 1 << PUSH_VLAN | 1 << POP_VLAN | 1 << SET_NW_TTL | 1 << DEC_NW_TTL | 1 << SET_FIELD;

const SET_ERRORS: FieldErrors = FieldErrors {
    unknown: ErrorCode::BadAction(BadAction::BadSetType),
    length: ErrorCode::BadAction(BadAction::BadSetLen),
    value: ErrorCode::BadAction(BadAction::BadSetArgument),
    mask: ErrorCode::BadAction(BadAction::BadSetArgument),
    outside: ErrorCode::BadAction(BadAction::BadSetArgument),
};

/// Reads actions to the end of `reader`.
pub(super) fn decode_actions(mut reader: Reader) -> Result<Vec<OfAction>, ErrorCode> {
    let mut actions = Vec::new();
    while !reader.is_empty() {
        let mut head = reader.part(4, BadAction::BadLen)?;
        let (kind, length) = (head.u16()?, usize::from(head.u16()?));
        if length < 8 || !length.is_multiple_of(8) {
            return Err(BadAction::BadLen.into());
        }
        actions.push(decode_action(kind, reader.part(length - 4, BadAction::BadLen)?)?);
    }
    Ok(actions)
}

fn decode_action(kind: u16, mut body: Reader) -> Result<OfAction, ErrorCode> {
    let action = match kind {
        OUTPUT => {
            let (port, max_len) = (PortNo(body.u32()?), body.u16()?);
            body.skip(6)?;
            if !is_output(port) {
                return Err(BadAction::BadOutPort.into());
            }
            OfAction::Output { port, max_len }
        }
        PUSH_VLAN => {
            let tpid = body.u16()?;
            body.skip(2)?;
            if ![0x8100, 0x88a8].contains(&tpid) {
                return Err(BadAction::BadArgument.into());
            }
            OfAction::PushVlan(tpid)
        }
        POP_VLAN | DEC_NW_TTL => {
            body.skip(4)?;
            if kind == POP_VLAN { OfAction::PopVlan } else { OfAction::DecNwTtl }
        }
        SET_QUEUE => OfAction::SetQueue(body.u32()?),
        GROUP => OfAction::Group(body.u32()?),
        SET_NW_TTL => {
            let ttl = body.u8()?;
            body.skip(3)?;
            OfAction::SetNwTtl(ttl)
        }
        SET_FIELD => {
            let set = FieldValue::decode(&mut body, &SET_ERRORS)?;
            if set.masked {
                return Err(BadAction::BadSetArgument.into());
            }
            skip_padding(&mut body)?;
            set_field(set)?
        }
        EXPERIMENTER => match body.u32()? {
            NICIRA => decode_nicira(&mut body)?,
            _ => return Err(BadAction::BadExperimenter.into()),
        },
        _ => return Err(BadAction::BadType.into()),
    };
    body.finish()?;
    Ok(action)
}

fn decode_nicira(body: &mut Reader) -> Result<OfAction, ErrorCode> {
    match body.u16()? {
        subtype @ (RESUBMIT | RESUBMIT_TABLE) => {
            let (port, table) = (widen(body.u16()?), body.u8()?);
            body.skip(3)?;
            Ok(OfAction::Resubmit { port, table: (subtype == RESUBMIT_TABLE && table != CURRENT_TABLE).then_some(table) })
        }
        REG_MOVE => {
            let (bits, source_offset, destination_offset) = (body.u16()?, body.u16()?, body.u16()?);
            let (source, destination) = (mention(body)?, mention(body)?);
            skip_padding(body)?;
            let source = range(source, source_offset, bits)?;
            let destination = range(destination, destination_offset, bits)?;
            writable(destination.field)?;
            Ok(OfAction::Move { source, destination })
        }
        REG_LOAD => {
            let place = body.u16()?;
            let destination = range(mention(body)?, place >> 6, (place & 0x3f) + 1)?;
            let value = body.u64()?;
            writable(destination.field)?;
            if value.checked_shr(destination.bits.into()).is_some_and(|beyond| beyond != 0) {
                return Err(BadAction::BadArgument.into());
            }
            Ok(OfAction::Load { destination, value })
        }
        CONTROLLER => {
            let action = OfAction::Controller { max_len: body.u16()?, controller_id: body.u16()?, reason: body.u8()? };
            body.skip(1)?;
            Ok(action)
        }
        REG_LOAD2 => {
            let set = FieldValue::decode(body, &SET_ERRORS)?;
            skip_padding(body)?;
            set_field(set)
        }
        _ => Err(BadAction::BadExpType.into()),
    }
}

/// Passes over the padding behind a field of varying length: less than eight bytes.
fn skip_padding(body: &mut Reader) -> Result<(), ErrorCode> {
    if body.len() >= 8 {
        return Err(BadAction::BadLen.into());
    }
    body.rest();
    Ok(())
}

fn set_field(set: FieldValue) -> Result<OfAction, ErrorCode> {
    if !set.field.info().writable {
        return Err(BadAction::BadSetType.into());
    }
    if set.mask != set.field.ones() && !set.field.info().maskable {
        return Err(BadAction::BadSetArgument.into());
    }
    Ok(OfAction::SetField { field: set.field, value: set.value, mask: set.mask })
}

fn mention(body: &mut Reader) -> Result<Field, ErrorCode> {
    decode_mention(body, BadAction::BadSetType.into(), BadAction::BadLen.into())
}

fn range(field: Field, offset: u16, bits: u16) -> Result<FieldRange, ErrorCode> {
    let fits = bits > 0 && u32::from(offset) + u32::from(bits) <= u32::from(field.bits());
    fits.then_some(FieldRange { field, offset: offset as u8, bits: bits as u8 }).ok_or(BadAction::BadArgument.into())
}

/// For Nicira's actions, with the error that Open vSwitch has for them.
fn writable(field: Field) -> Result<(), ErrorCode> {
    if field.info().writable { Ok(()) } else { Err(BadAction::BadSetArgument.into()) }
}

/// Whether frames can be sent there: an ordinary port or a reserved one other than ANY.
fn is_output(port: PortNo) -> bool {
    (PortNo(1)..=PortNo::MAX).contains(&port) || (PortNo::IN_PORT..PortNo::ANY).contains(&port)
}

/// A port number of Nicira's 16 bits: the reserved ones, from 0xff00, move up.
fn widen(port: u16) -> PortNo {
    PortNo(if port >= 0xff00 { u32::from(port) | 0xffff_0000 } else { port.into() })
}

/// Appends actions.
pub(super) fn put_actions(out: &mut Vec<u8>, actions: &[OfAction]) {
    for action in actions {
        let start = out.len();
        put_action(out, action);
        out.pad_from(start);
        out.set_length(start, 2);
    }
}

/// Appends an action, without its padding and with its length left open.
fn put_action(out: &mut Vec<u8>, action: &OfAction) {
    let head = |out: &mut Vec<u8>, kind: u16| {
        out.put_u16(kind);
        out.put_u16(0);
    };
    let nicira = |out: &mut Vec<u8>, subtype: u16| {
        head(out, EXPERIMENTER);
        out.put_u32(NICIRA);
        out.put_u16(subtype);
    };
    match *action {
        OfAction::Output { port, max_len } => {
            head(out, OUTPUT);
            out.put_u32(port.0);
            out.put_u16(max_len);
        }
        OfAction::SetField { field, value, mask } => {
            if mask == field.ones() {
                head(out, SET_FIELD)
            } else {
                nicira(out, REG_LOAD2)
            }
            put_field(out, field, value, mask);
        }
        OfAction::Move { source, destination } => {
            nicira(out, REG_MOVE);
            out.put_u16(source.bits.into());
            out.put_u16(source.offset.into());
            out.put_u16(destination.offset.into());
            put_header(out, source.field, false);
            put_header(out, destination.field, false);
        }
        OfAction::Load { destination, value } => {
            nicira(out, REG_LOAD);
            out.put_u16(u16::from(destination.offset) << 6 | (u16::from(destination.bits) - 1));
            put_header(out, destination.field, false);
            out.put_u64(value);
        }
        OfAction::PushVlan(tpid) => {
            head(out, PUSH_VLAN);
            out.put_u16(tpid);
        }
        OfAction::PopVlan | OfAction::DecNwTtl => {
            head(out, if *action == OfAction::PopVlan { POP_VLAN } else { DEC_NW_TTL });
            out.put_zeros(4);
        }
        OfAction::SetNwTtl(ttl) => {
            head(out, SET_NW_TTL);
            out.put_u8(ttl);
        }
        OfAction::Resubmit { port, table } => {
            nicira(out, if table.is_some() { RESUBMIT_TABLE } else { RESUBMIT });
            out.put_u16(port.0 as u16);
            out.put_u8(table.unwrap_or(0));
        }
        OfAction::Controller { max_len, controller_id, reason } => {
            nicira(out, CONTROLLER);
            out.put_u16(max_len);
            out.put_u16(controller_id);
            out.put_u8(reason);
        }
        OfAction::SetQueue(queue) => {
            head(out, SET_QUEUE);
            out.put_u32(queue);
        }
        OfAction::Group(group) => {
            head(out, GROUP);
            out.put_u32(group);
        }
    }
}

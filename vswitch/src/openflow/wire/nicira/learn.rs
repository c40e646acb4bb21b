//! NXAST_LEARN: a rule that is made of fields of the frame, described in parts.
//!
//! A part has 16 bits of head: where a value comes from (bit 13: a field, or else the part itself), what is done with it (bits 11 and 12) and how many
//! bits it has. What follows depends on them. A head of zero is padding, to the end.

use super::super::action::{mention, range, writable};
use super::super::bytes::{Put, Reader};
use super::super::error::{BadAction, ErrorCode};
use super::super::oxm::{Ids, put_header};
use datapath::key::FieldRange;
use datapath::tables::instruction::{Learn, LearnSource, LearnSpec, LearnTarget, OfAction};

// NX_LEARN_F_*
const SEND_FLOW_REM: u16 = 1;
const DELETE_LEARNED: u16 = 1 << 1;

// NX_LEARN_*: parts of a head.
const SRC_IMMEDIATE: u16 = 1 << 13;
const DST: u16 = 3 << 11;
const DST_MATCH: u16 = 0;
const DST_LOAD: u16 = 1 << 11;
const DST_OUTPUT: u16 = 2 << 11;
const BITS: u16 = 0x7ff;

/// The most bits of a value.
const MAX_BITS: u16 = 128;

/// Reads the action from behind its subtype.
pub(super) fn decode(body: &mut Reader) -> Result<OfAction, ErrorCode> {
    let (idle_timeout, hard_timeout, priority, cookie) = (body.u16()?, body.u16()?, body.u16()?, body.u64()?);
    let (flags, table) = (body.u16()?, body.u8()?);
    body.zeros(1, BadAction::BadArgument)?;
    // Timeouts that begin with the end of a TCP connection.
    let (fin_idle_timeout, fin_hard_timeout) = (body.u16()?, body.u16()?);
    if flags & !(SEND_FLOW_REM | DELETE_LEARNED) != 0 || fin_idle_timeout != 0 || fin_hard_timeout != 0 || table == 0xff {
        return Err(BadAction::BadArgument.into());
    }
    let mut specs = Vec::new();
    while !body.is_empty() {
        let head = body.u16()?;
        if head == 0 {
            if body.rest().iter().any(|byte| *byte != 0) {
                return Err(BadAction::BadArgument.into());
            }
            break;
        }
        specs.push(decode_spec(head, body)?);
    }
    Ok(OfAction::Learn(
        Learn {
            table,
            priority,
            cookie,
            idle_timeout,
            hard_timeout,
            send_flow_removed: flags & SEND_FLOW_REM != 0,
            delete_learned: flags & DELETE_LEARNED != 0,
            specs: specs.into(),
        }
        .into(),
    ))
}

fn decode_spec(head: u16, body: &mut Reader) -> Result<LearnSpec, ErrorCode> {
    let (immediate, bits) = (head & SRC_IMMEDIATE != 0, head & BITS);
    if head & !(SRC_IMMEDIATE | DST | BITS) != 0 || bits > MAX_BITS {
        return Err(BadAction::BadArgument.into());
    }
    let field = |body: &mut Reader| {
        let (field, offset) = (mention(body)?, body.u16()?);
        range(field, offset, bits)
    };
    let source = match immediate {
        true => LearnSource::Value(body.uint(immediate_length(bits))?),
        false => LearnSource::Field(field(body)?),
    };
    let target = match head & DST {
        DST_MATCH => LearnTarget::Match(field(body)?),
        DST_LOAD => LearnTarget::Load(writable(field(body)?)?),
        DST_OUTPUT if !immediate => LearnTarget::Output,
        _ => return Err(BadAction::BadArgument.into()),
    };
    Ok(LearnSpec { source, target, bits })
}

/// The bytes of a value in the action itself: an even number.
fn immediate_length(bits: u16) -> usize {
    2 * usize::from(bits.div_ceil(16))
}

/// Appends the action from behind its subtype, without padding.
pub(super) fn put(out: &mut Vec<u8>, learn: &Learn) {
    out.put_u16(learn.idle_timeout);
    out.put_u16(learn.hard_timeout);
    out.put_u16(learn.priority);
    out.put_u64(learn.cookie);
    let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
    out.put_u16(flag(learn.send_flow_removed, SEND_FLOW_REM) | flag(learn.delete_learned, DELETE_LEARNED));
    out.put_u8(learn.table);
    out.put_zeros(1 + 4);
    for spec in &learn.specs {
        let (source, target) = (spec.source, spec.target);
        let immediate = if matches!(source, LearnSource::Value(_)) { SRC_IMMEDIATE } else { 0 };
        let destination = match target {
            LearnTarget::Match(_) => DST_MATCH,
            LearnTarget::Load(_) => DST_LOAD,
            LearnTarget::Output => DST_OUTPUT,
        };
        out.put_u16(immediate | destination | spec.bits);
        let field = |out: &mut Vec<u8>, range: FieldRange| {
            put_header(out, Ids::Nxm, range.field, false);
            out.put_u16(range.offset.into());
        };
        match source {
            LearnSource::Field(range) => field(out, range),
            LearnSource::Value(value) => out.put_uint(value, immediate_length(spec.bits)),
        }
        if let LearnTarget::Match(range) | LearnTarget::Load(range) = target {
            field(out, range);
        }
    }
}

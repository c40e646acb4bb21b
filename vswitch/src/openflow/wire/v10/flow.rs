//! OFPT_FLOW_MOD and OFPT_FLOW_REMOVED (OpenFlow 1.0, 5.3.3 and 5.4.2), and NXT_FLOW_MOD and NXT_FLOW_REMOVED, which have Nicira's extensible match.

use super::super::bytes::{Put, Reader};
use super::super::error::{BadAction, BadMatch, BadRequest, ErrorCode, FlowModFailed};
use super::super::instruction::{MAX_INSTRUCTIONS, can_be_sent};
use super::super::oxm::decode_nx_match;
use super::super::{Age, Dialect, FlowModMessage, FlowRemoved};
use super::action::{decode_instructions, put_instructions};
use super::matching;
use super::nxm::{self, Cookie};
use super::port::{narrow, widen};
use datapath::key::Match;
use datapath::tables::{FlowMod, FlowModCommand, RemovedReason, RuleFilter, RuleFlags};

/// The flags that both versions have: tell of its removal, and check for overlaps.
const SHARED_FLAGS: RuleFlags = RuleFlags(0b11);
/// `OFPFF_EMERG`: the rule is for when the controller is lost.
const EMERG: u16 = 1 << 2;
/// The most bytes of actions that OpenFlow 1.3 is sure to have room for when it tells of the rule: of eight, 48 may come.
const SHORT: usize = MAX_INSTRUCTIONS / 6;
/// A cookie that stays as it is when a rule is modified.
const SAME_COOKIE: u64 = u64::MAX;

/// What stands between the match and the actions, in another order in each form.
struct Fields {
    cookie: u64,
    command: u16,
    idle_timeout: u16,
    hard_timeout: u16,
    priority: u16,
    buffer_id: u32,
    out_port: u16,
    flags: u16,
}

impl Fields {
    fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        Ok(Self {
            cookie: body.u64()?,
            command: body.u16()?,
            idle_timeout: body.u16()?,
            hard_timeout: body.u16()?,
            priority: body.u16()?,
            buffer_id: body.u32()?,
            out_port: body.u16()?,
            flags: body.u16()?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.cookie);
        out.put_u16(self.command);
        out.put_u16(self.idle_timeout);
        out.put_u16(self.hard_timeout);
        out.put_u16(self.priority);
        out.put_u32(self.buffer_id);
        out.put_u16(self.out_port);
        out.put_u16(self.flags);
    }
}

/// Reads OFPT_FLOW_MOD.
pub(super) fn decode_mod(mut body: Reader, dialect: &Dialect) -> Result<FlowModMessage, ErrorCode> {
    let (matching, exact) = matching::decode(&mut body)?;
    let mut fields = Fields::decode(&mut body)?;
    if exact {
        fields.priority = u16::MAX;
    }
    if fields.flags & EMERG != 0 {
        // There is no such table, and no error that says so.
        return Err(FlowModFailed::TableFull.into());
    }
    flow_mod(fields, matching, None, body, dialect)
}

/// Reads NXT_FLOW_MOD.
pub(super) fn decode_nicira_mod(mut body: Reader, dialect: &Dialect) -> Result<FlowModMessage, ErrorCode> {
    let fields = Fields::decode(&mut body)?;
    let match_length = body.u16()?;
    body.skip(6)?;
    let (matching, cookie) = nxm::decode_with_cookie(&mut body, match_length)?;
    flow_mod(fields, matching, cookie, body, dialect)
}

fn flow_mod(
    fields: Fields,
    matching: Match,
    wanted: Option<Cookie>,
    actions: Reader,
    dialect: &Dialect,
) -> Result<FlowModMessage, ErrorCode> {
    let (table, command) = match (dialect.table_ids, fields.command.to_be_bytes()) {
        (true, [table, command]) => (table, command),
        (false, [0, command]) => (RuleFilter::ALL_TABLES, command),
        (false, _) => return Err(FlowModFailed::BadCommand.into()),
    };
    let command = match command {
        0 => FlowModCommand::Add,
        1 => FlowModCommand::Modify,
        2 => FlowModCommand::ModifyStrict,
        3 => FlowModCommand::Delete,
        4 => FlowModCommand::DeleteStrict,
        _ => return Err(FlowModFailed::BadCommand.into()),
    };
    let mut flags = RuleFlags(fields.flags);
    if !SHARED_FLAGS.contains(flags) {
        return Err(FlowModFailed::BadFlags.into());
    }
    let is_short = actions.len() <= SHORT;
    let instructions = decode_instructions(actions, &matching)?;
    if !is_short && !can_be_sent(&instructions) {
        return Err(BadAction::TooMany.into());
    }
    let mut flow_mod = FlowMod {
        command,
        table,
        matching,
        priority: fields.priority,
        idle_timeout: fields.idle_timeout,
        hard_timeout: fields.hard_timeout,
        instructions,
        out_port: widen(fields.out_port),
        lenient: true,
        ..FlowMod::default()
    };
    match command {
        FlowModCommand::Add if wanted.is_some() => return Err(BadMatch::BadField.into()),
        FlowModCommand::Add => {
            flow_mod.cookie = fields.cookie;
            flow_mod.table = if table == RuleFilter::ALL_TABLES { 0 } else { table };
            flags.0 |= RuleFlags::RESET_COUNTS.0;
        }
        FlowModCommand::Modify | FlowModCommand::ModifyStrict => {
            flow_mod.new_cookie = Some(fields.cookie).filter(|cookie| *cookie != SAME_COOKIE);
            flow_mod.or_add = true;
        }
        FlowModCommand::Delete | FlowModCommand::DeleteStrict => {}
    }
    if let Some(Cookie { value, mask }) = wanted {
        (flow_mod.cookie, flow_mod.cookie_mask) = (value, mask);
    }
    flow_mod.flags = flags;
    Ok(FlowModMessage { flow_mod, buffer_id: fields.buffer_id })
}

fn fields(message: &FlowModMessage, dialect: &Dialect) -> Fields {
    let change = &message.flow_mod;
    let (command, cookie) = match change.command {
        FlowModCommand::Add => (0, change.cookie),
        FlowModCommand::Modify => (1, change.new_cookie.unwrap_or(SAME_COOKIE)),
        FlowModCommand::ModifyStrict => (2, change.new_cookie.unwrap_or(SAME_COOKIE)),
        FlowModCommand::Delete => (3, 0),
        FlowModCommand::DeleteStrict => (4, 0),
    };
    Fields {
        cookie,
        command: if dialect.table_ids { u16::from_be_bytes([change.table, command]) } else { command.into() },
        idle_timeout: change.idle_timeout,
        hard_timeout: change.hard_timeout,
        priority: change.priority,
        buffer_id: message.buffer_id,
        out_port: narrow(change.out_port).unwrap_or_default(),
        flags: change.flags.0 & SHARED_FLAGS.0,
    }
}

/// Appends the body of OFPT_FLOW_MOD.
pub(super) fn put_mod(out: &mut Vec<u8>, message: &FlowModMessage, dialect: &Dialect, end: usize) {
    matching::put(out, &message.flow_mod.matching);
    fields(message, dialect).put(out);
    put_instructions(out, &message.flow_mod.instructions, end);
}

/// Appends the body of NXT_FLOW_MOD.
pub(super) fn put_nicira_mod(out: &mut Vec<u8>, message: &FlowModMessage, dialect: &Dialect, end: usize) {
    let change = &message.flow_mod;
    let adds = change.command == FlowModCommand::Add;
    let wanted = Cookie { value: change.cookie, mask: if adds { 0 } else { change.cookie_mask } };
    fields(message, dialect).put(out);
    let length_at = out.len();
    out.put_zeros(8);
    nxm::put(out, &change.matching, wanted, length_at);
    put_instructions(out, &change.instructions, end);
}

fn decode_reason(reason: u8) -> Result<RemovedReason, ErrorCode> {
    match reason {
        0 => Ok(RemovedReason::IdleTimeout),
        1 => Ok(RemovedReason::HardTimeout),
        2 => Ok(RemovedReason::Delete),
        _ => Err(BadRequest::BadLen.into()),
    }
}

/// Groups, and their removal, are of later versions.
fn encode_reason(reason: RemovedReason) -> u8 {
    (if reason == RemovedReason::GroupDelete { RemovedReason::Delete } else { reason }) as u8
}

/// Reads OFPT_FLOW_REMOVED, which says nothing of the table and the hard timeout.
pub(super) fn decode_removed(mut body: Reader) -> Result<FlowRemoved, ErrorCode> {
    let (matching, _) = matching::decode(&mut body)?;
    let (cookie, priority, reason) = (body.u64()?, body.u16()?, decode_reason(body.u8()?)?);
    body.skip(1)?;
    let (age, idle_timeout) = (Age::decode(&mut body)?, body.u16()?);
    body.skip(2)?;
    let (frames, bytes) = (body.u64()?, body.u64()?);
    body.finish()?;
    Ok(FlowRemoved { cookie, priority, reason, table: 0, age, idle_timeout, hard_timeout: 0, frames, bytes, matching })
}

/// Appends the body of OFPT_FLOW_REMOVED.
pub(super) fn put_removed(out: &mut Vec<u8>, removed: &FlowRemoved) {
    matching::put(out, &removed.matching);
    out.put_u64(removed.cookie);
    out.put_u16(removed.priority);
    out.put_u8(encode_reason(removed.reason));
    out.put_zeros(1);
    removed.age.encode(out);
    out.put_u16(removed.idle_timeout);
    out.put_zeros(2);
    out.put_u64(removed.frames);
    out.put_u64(removed.bytes);
}

/// Reads NXT_FLOW_REMOVED, which says nothing of the hard timeout.
pub(super) fn decode_nicira_removed(mut body: Reader) -> Result<FlowRemoved, ErrorCode> {
    let (cookie, priority, reason, table) = (body.u64()?, body.u16()?, decode_reason(body.u8()?)?, body.u8()?);
    let (age, idle_timeout, match_length) = (Age::decode(&mut body)?, body.u16()?, body.u16()?);
    let (frames, bytes) = (body.u64()?, body.u64()?);
    let matching = decode_nx_match(&mut body, match_length)?;
    body.finish()?;
    let table = table.saturating_sub(1);
    Ok(FlowRemoved { cookie, priority, reason, table, age, idle_timeout, hard_timeout: 0, frames, bytes, matching })
}

/// Appends the body of NXT_FLOW_REMOVED. The table is one more than it is, since zero means that it isn't known.
pub(super) fn put_nicira_removed(out: &mut Vec<u8>, removed: &FlowRemoved) {
    out.put_u64(removed.cookie);
    out.put_u16(removed.priority);
    out.put_u8(encode_reason(removed.reason));
    out.put_u8(removed.table.saturating_add(1));
    removed.age.encode(out);
    out.put_u16(removed.idle_timeout);
    let length_at = out.len();
    out.put_zeros(2);
    out.put_u64(removed.frames);
    out.put_u64(removed.bytes);
    nxm::put(out, &removed.matching, Cookie::default(), length_at);
}

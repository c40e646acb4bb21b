//! OFPT_FLOW_MOD and OFPT_FLOW_REMOVED (OpenFlow 1.3.5, 7.3.4.1 and 7.4.2).

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode, FlowModFailed};
use super::instruction::{decode_instructions, put_instructions};
use super::oxm::{decode_match, put_match};
use datapath::key::Match;
use datapath::port::PortNo;
use datapath::tables::{FlowMod, FlowModCommand, RemovedReason, RuleFlags};

/// `OFP_NO_BUFFER`: no buffered packet.
pub const NO_BUFFER: u32 = 0xffff_ffff;

/// The body of OFPT_FLOW_MOD.
#[derive(Clone, Debug)]
pub struct FlowModMessage {
    /// The change.
    pub flow_mod: FlowMod,
    /// A buffered packet to apply it to, or [`NO_BUFFER`].
    pub buffer_id: u32,
}

impl FlowModMessage {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (cookie, cookie_mask, table) = (body.u64()?, body.u64()?, body.u8()?);
        let command = match body.u8()? {
            0 => FlowModCommand::Add,
            1 => FlowModCommand::Modify,
            2 => FlowModCommand::ModifyStrict,
            3 => FlowModCommand::Delete,
            4 => FlowModCommand::DeleteStrict,
            _ => return Err(FlowModFailed::BadCommand.into()),
        };
        let (idle_timeout, hard_timeout, priority) = (body.u16()?, body.u16()?, body.u16()?);
        let (buffer_id, out_port, out_group) = (body.u32()?, PortNo(body.u32()?), body.u32()?);
        let flags = RuleFlags(body.u16()?);
        body.skip(2)?;
        if !RuleFlags::ALL.contains(flags) {
            return Err(FlowModFailed::BadFlags.into());
        }
        let matching = decode_match(&mut body)?;
        let instructions = decode_instructions(body)?;
        let flow_mod = FlowMod {
            command,
            table,
            matching,
            priority,
            cookie,
            cookie_mask,
            idle_timeout,
            hard_timeout,
            flags,
            instructions,
            out_port,
            out_group,
            ..FlowMod::default()
        };
        Ok(Self { flow_mod, buffer_id })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let change = &self.flow_mod;
        out.put_u64(change.cookie);
        out.put_u64(change.cookie_mask);
        out.put_u8(change.table);
        out.put_u8(match change.command {
            FlowModCommand::Add => 0,
            FlowModCommand::Modify => 1,
            FlowModCommand::ModifyStrict => 2,
            FlowModCommand::Delete => 3,
            FlowModCommand::DeleteStrict => 4,
        });
        out.put_u16(change.idle_timeout);
        out.put_u16(change.hard_timeout);
        out.put_u16(change.priority);
        out.put_u32(self.buffer_id);
        out.put_u32(change.out_port.0);
        out.put_u32(change.out_group);
        out.put_u16(change.flags.0);
        out.put_zeros(2);
        put_match(out, &change.matching);
        put_instructions(out, &change.instructions);
    }
}

/// How long something has been there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    /// Whole seconds.
    pub seconds: u32,
    /// The rest, in nanoseconds.
    pub nanoseconds: u32,
}

impl Age {
    /// The time from `since` to `now`.
    pub fn between(since: datapath::Nanos, now: datapath::Nanos) -> Self {
        let age = now.saturating_sub(since);
        Self { seconds: (age / 1_000_000_000) as u32, nanoseconds: (age % 1_000_000_000) as u32 }
    }

    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        Ok(Self { seconds: body.u32()?, nanoseconds: body.u32()? })
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.put_u32(self.seconds);
        out.put_u32(self.nanoseconds);
    }
}

/// The body of OFPT_FLOW_REMOVED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRemoved {
    /// The rule's cookie.
    pub cookie: u64,
    /// Its priority.
    pub priority: u16,
    /// Why it was removed.
    pub reason: RemovedReason,
    /// Its table.
    pub table: u8,
    /// How long it was there.
    pub age: Age,
    /// Seconds.
    pub idle_timeout: u16,
    /// Seconds.
    pub hard_timeout: u16,
    /// Frames it was used for.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The flows it was for.
    pub matching: Match,
}

impl FlowRemoved {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (cookie, priority) = (body.u64()?, body.u16()?);
        let reason = removed_reason(body.u8()?.into())?;
        let (table, age) = (body.u8()?, Age::decode(&mut body)?);
        let (idle_timeout, hard_timeout, frames, bytes) = (body.u16()?, body.u16()?, body.u64()?, body.u64()?);
        let matching = decode_match(&mut body)?;
        body.finish()?;
        Ok(Self { cookie, priority, reason, table, age, idle_timeout, hard_timeout, frames, bytes, matching })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.cookie);
        out.put_u16(self.priority);
        out.put_u8(self.reason as u8);
        out.put_u8(self.table);
        self.age.encode(out);
        out.put_u16(self.idle_timeout);
        out.put_u16(self.hard_timeout);
        out.put_u64(self.frames);
        out.put_u64(self.bytes);
        put_match(out, &self.matching);
    }
}

/// Why a rule was removed, by its number.
pub(super) fn removed_reason(number: u16) -> Result<RemovedReason, ErrorCode> {
    use RemovedReason::*;
    [IdleTimeout, HardTimeout, Delete, GroupDelete].into_iter().find(|reason| *reason as u16 == number).ok_or(BadRequest::BadLen.into())
}

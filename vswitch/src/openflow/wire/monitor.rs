//! Flow monitors: a controller is told of changes to rules, whoever makes them (OpenFlow 1.4's OFPMP_FLOW_MONITOR for OpenFlow 1.3, ONF extension 187, as Open vSwitch
//! has it).

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode, Nicira};
use super::flow::removed_reason;
use super::instruction::{decode_instructions, put_instructions};
use super::oxm::{decode_match, put_match};
use datapath::key::Match;
use datapath::port::PortNo;
use datapath::tables::RemovedReason;
use datapath::tables::instruction::Instructions;

/// `ONFFMF_*`: what a monitor is to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorFlags(pub u16);

impl MonitorFlags {
    /// The rules that there are at first.
    pub const INITIAL: Self = Self(1);
    /// Rules that are added.
    pub const ADD: Self = Self(1 << 1);
    /// Rules that are removed.
    pub const DELETE: Self = Self(1 << 2);
    /// Rules that change.
    pub const MODIFY: Self = Self(1 << 3);
    /// What the rules do, too.
    pub const ACTIONS: Self = Self(1 << 4);
    /// The controller's own changes in full, not only that they were made.
    pub const OWN: Self = Self(1 << 5);
    const ALL: Self = Self(0x3f);

    /// Whether any of `flags` is set.
    pub fn intersects(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// Refuses flags of a monitor that tells nothing, and unknown ones.
    pub(super) fn check(self) -> Result<Self, ErrorCode> {
        let tells = Self(Self::ADD.0 | Self::DELETE.0 | Self::MODIFY.0);
        let may_be = self.intersects(tells) && self.0 & !Self::ALL.0 == 0;
        if may_be { Ok(self) } else { Err(Nicira::BadMonitorFlags.into()) }
    }
}

/// A monitor that a controller asks for (`struct onf_flow_monitor_request`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorRequest {
    /// The controller's number for it.
    pub id: u32,
    /// What it is to tell.
    pub flags: MonitorFlags,
    /// Only of rules that output to this port; [`PortNo::ANY`] for no such condition.
    pub out_port: PortNo,
    /// The table, or 0xff for all.
    pub table: u8,
    /// Of rules for these flows or some of them.
    pub matching: Match,
}

impl MonitorRequest {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let (id, flags) = (body.u32()?, MonitorFlags(body.u16()?).check()?);
        // The length of the match, which says it itself.
        body.skip(2)?;
        let (out_port, table) = (PortNo(body.u32()?), body.u8()?);
        body.skip(3)?;
        Ok(Self { id, flags, out_port, table, matching: decode_match(body)? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.id);
        out.put_u16(self.flags.0);
        let length_at = out.len();
        out.put_u16(0);
        out.put_u32(self.out_port.0);
        out.put_u8(self.table);
        out.put_zeros(3);
        put_measured_match(out, &self.matching, length_at);
    }
}

/// Appends a match, and writes its length without padding at `at`.
fn put_measured_match(out: &mut Vec<u8>, matching: &Match, at: usize) {
    let start = out.len();
    put_match(out, matching);
    out.copy_within(start + 2..start + 4, at);
}

/// What happened to a rule (`ONFFME_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleEvent {
    /// It was added.
    Added,
    /// It was removed.
    Deleted(RemovedReason),
    /// It changed.
    Modified,
}

// ONFFME_* (and NXFME_*)
const ADDED: u16 = 0;
const DELETED: u16 = 1;
const MODIFIED: u16 = 2;
pub(super) const ABBREV: u16 = 3;

impl RuleEvent {
    /// What event and reason stand for.
    pub(super) fn from_numbers(event: u16, reason: u16) -> Result<Self, ErrorCode> {
        Ok(match event {
            ADDED => Self::Added,
            DELETED => Self::Deleted(removed_reason(reason)?),
            MODIFIED => Self::Modified,
            _ => return Err(Nicira::BadEvent.into()),
        })
    }

    /// Event and reason.
    pub(super) fn numbers(self) -> (u16, u16) {
        match self {
            Self::Added => (ADDED, 0),
            Self::Deleted(reason) => (DELETED, reason as u16),
            Self::Modified => (MODIFIED, 0),
        }
    }
}

/// What a monitor tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleUpdate {
    /// That the controller's own request with this xid changed rules.
    Abbreviated(u32),
    /// A change in full.
    Full(Box<FullUpdate>),
}

/// A change in full (`struct onf_flow_update_full`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullUpdate {
    /// What happened.
    pub event: RuleEvent,
    /// The rule's table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Seconds.
    pub idle_timeout: u16,
    /// Seconds.
    pub hard_timeout: u16,
    /// Its cookie.
    pub cookie: u64,
    /// The flows that it is for.
    pub matching: Match,
    /// What it does, if that is asked for.
    pub instructions: Instructions,
}

impl RuleUpdate {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let length = usize::from(body.u16()?);
        let mut body = body.part(length.checked_sub(2).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        let event = body.u16()?;
        if event == ABBREV {
            let xid = body.u32()?;
            body.finish()?;
            return Ok(Self::Abbreviated(xid));
        }
        let event = RuleEvent::from_numbers(event, body.u16()?)?;
        let (priority, idle_timeout, hard_timeout) = (body.u16()?, body.u16()?, body.u16()?);
        body.skip(2)?;
        let table = body.u8()?;
        body.skip(1)?;
        let (cookie, matching) = (body.u64()?, decode_match(&mut body)?);
        let instructions = decode_instructions(body)?;
        Ok(Self::Full(Box::new(FullUpdate { event, table, priority, idle_timeout, hard_timeout, cookie, matching, instructions })))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u16(0);
        match self {
            Self::Abbreviated(xid) => {
                out.put_u16(ABBREV);
                out.put_u32(*xid);
            }
            Self::Full(update) => {
                let (event, reason) = update.event.numbers();
                out.put_u16(event);
                out.put_u16(reason);
                out.put_u16(update.priority);
                out.put_u16(update.idle_timeout);
                out.put_u16(update.hard_timeout);
                let length_at = out.len();
                out.put_u16(0);
                out.put_u8(update.table);
                out.put_zeros(1);
                out.put_u64(update.cookie);
                put_measured_match(out, &update.matching, length_at);
                put_instructions(out, &update.instructions);
            }
        }
        out.set_length(start, 0);
    }
}

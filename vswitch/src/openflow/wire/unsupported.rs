//! What this version has no groups, meters and queues for: their messages are understood so far that the answer is the right one.

use super::action::decode_actions;
use super::bytes::{Put, Reader};
use super::error::{BadAction, ErrorCode, GroupModFailed, MeterModFailed};
use datapath::port::PortNo;

/// What is to become of a group or meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ModCommand {
    /// A new one.
    Add = 0,
    /// Change one.
    Modify = 1,
    /// Delete one, or all.
    Delete = 2,
}

impl ModCommand {
    fn from_number(number: u16) -> Option<Self> {
        [Self::Add, Self::Modify, Self::Delete].into_iter().find(|command| *command as u16 == number)
    }
}

/// The body of OFPT_GROUP_MOD (OpenFlow 1.3.5, 7.3.4.2), checked, without the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupMod {
    /// What to do.
    pub command: ModCommand,
    /// `OFPGT_*`: 0 all, 1 select, 2 indirect, 3 fast failover.
    pub kind: u8,
    /// The group, or `OFPG_ALL` (0xfffffffc).
    pub group: u32,
}

/// `OFPG_MAX`: the highest number of a group.
const MAX_GROUP: u32 = 0xffff_ff00;
/// `OFPG_ALL`: all groups, for deleting them.
const ALL_GROUPS: u32 = 0xffff_fffc;

impl GroupMod {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (command, kind) = (body.u16()?, body.u8()?);
        body.skip(1)?;
        let group = body.u32()?;
        let command = ModCommand::from_number(command).ok_or(GroupModFailed::BadCommand)?;
        if kind > 3 {
            return Err(GroupModFailed::BadType.into());
        }
        if group > MAX_GROUP && !(group == ALL_GROUPS && command == ModCommand::Delete) {
            return Err(GroupModFailed::InvalidGroup.into());
        }
        while !body.is_empty() {
            let length = usize::from(body.part(2, GroupModFailed::BadBucket)?.u16()?);
            let mut bucket = body.part(length.checked_sub(2).ok_or(GroupModFailed::BadBucket)?, GroupModFailed::BadBucket)?;
            // Weight, watched port and group, padding.
            bucket.skip(14)?;
            decode_actions(Reader::new(bucket.rest(), BadAction::BadLen))?;
        }
        Ok(Self { command, kind, group })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.command as u16);
        out.put_u8(self.kind);
        out.put_zeros(1);
        out.put_u32(self.group);
    }
}

/// The body of OFPT_METER_MOD (OpenFlow 1.3.5, 7.3.4.4), checked, without the bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterMod {
    /// What to do.
    pub command: ModCommand,
    /// `OFPMF_*`.
    pub flags: u16,
    /// The meter, or `OFPM_ALL` (0xffffffff).
    pub meter: u32,
}

impl MeterMod {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (command, flags, meter) = (body.u16()?, body.u16()?, body.u32()?);
        let command = ModCommand::from_number(command).ok_or(MeterModFailed::BadCommand)?;
        if flags & !0xf != 0 {
            return Err(MeterModFailed::BadFlags.into());
        }
        while !body.is_empty() {
            let mut head = body.part(4, MeterModFailed::BadBand)?;
            head.skip(2)?;
            let length = usize::from(head.u16()?);
            body.part(length.checked_sub(4).ok_or(MeterModFailed::BadBand)?, MeterModFailed::BadBand)?;
        }
        Ok(Self { command, flags, meter })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.command as u16);
        out.put_u16(self.flags);
        out.put_u32(self.meter);
    }
}

/// The body of OFPT_TABLE_MOD (OpenFlow 1.3.5, 7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableMod {
    /// The table, or 0xff for all.
    pub table: u8,
    /// Deprecated bits (`OFPTC_DEPRECATED_MASK`), without effect.
    pub config: u32,
}

impl TableMod {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let table = body.u8()?;
        body.skip(3)?;
        let config = body.u32()?;
        body.finish()?;
        Ok(Self { table, config })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.table);
        out.put_zeros(3);
        out.put_u32(self.config);
    }
}

/// The port of OFPT_QUEUE_GET_CONFIG_REQUEST and, since it has no queues, of the reply (OpenFlow 1.3.5, 7.3.6).
pub(super) fn decode_queue_config(mut body: Reader) -> Result<PortNo, ErrorCode> {
    let port = PortNo(body.u32()?);
    body.skip(4)?;
    body.finish()?;
    Ok(port)
}

pub(super) fn put_queue_config(out: &mut Vec<u8>, port: PortNo) {
    out.put_u32(port.0);
    out.put_zeros(4);
}

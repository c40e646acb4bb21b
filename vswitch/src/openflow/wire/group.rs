//! Groups: OFPT_GROUP_MOD (OpenFlow 1.3.5, 7.3.4.2), their counters, descriptions and features (7.3.5.8 to 7.3.5.10).

use super::action::{SUPPORTED, decode_actions, put_actions};
use super::bytes::{Put, Reader};
use super::error::{BadAction, BadRequest, ErrorCode, GroupModFailed};
use super::flow::Age;
use datapath::port::PortNo;
use datapath::tables::group::{BucketSpec, GROUP_ALL, GROUP_MAX, GroupCommand, GroupKind, GroupMod, MAX_GROUPS};

/// The bytes of a bucket before its actions.
const BUCKET_HEAD: usize = 16;
/// The most bytes of a group's buckets, so that they can be sent back in one message with its description.
const MAX_BUCKETS_LENGTH: usize = u16::MAX as usize - 16 - 8;
/// The most buckets of a group, so that their counters fit one message.
const MAX_BUCKETS: usize = (u16::MAX as usize - 16 - 40) / 16;

/// Reads the body of OFPT_GROUP_MOD.
pub(super) fn decode_group_mod(mut body: Reader) -> Result<GroupMod, ErrorCode> {
    let (command, kind) = (body.u16()?, body.u8()?);
    body.skip(1)?;
    let group = body.u32()?;
    let command = [GroupCommand::Add, GroupCommand::Modify, GroupCommand::Delete, GroupCommand::AddOrModify]
        .into_iter()
        .find(|known| *known as u16 == command)
        .ok_or(GroupModFailed::BadCommand)?;
    let kind = group_kind(kind).ok_or(GroupModFailed::BadType)?;
    if group > GROUP_MAX && !(group == GROUP_ALL && command == GroupCommand::Delete) {
        return Err(GroupModFailed::InvalidGroup.into());
    }
    if body.len() > MAX_BUCKETS_LENGTH {
        return Err(GroupModFailed::OutOfBuckets.into());
    }
    let buckets = decode_buckets(body)?;
    if buckets.len() > MAX_BUCKETS {
        return Err(GroupModFailed::OutOfBuckets.into());
    }
    Ok(GroupMod { command, group, kind, buckets })
}

/// Appends the body of OFPT_GROUP_MOD.
pub(super) fn put_group_mod(out: &mut Vec<u8>, change: &GroupMod) {
    out.put_u16(change.command as u16);
    out.put_u8(change.kind as u8);
    out.put_zeros(1);
    out.put_u32(change.group);
    put_buckets(out, &change.buckets);
}

fn group_kind(number: u8) -> Option<GroupKind> {
    [GroupKind::All, GroupKind::Select, GroupKind::Indirect, GroupKind::FastFailover].into_iter().find(|kind| *kind as u8 == number)
}

/// Reads buckets to the end of `reader`.
fn decode_buckets(mut reader: Reader) -> Result<Vec<BucketSpec>, ErrorCode> {
    let bad_bucket = GroupModFailed::BadBucket;
    let mut buckets = Vec::new();
    while !reader.is_empty() {
        let length = usize::from(reader.part(2, bad_bucket)?.u16()?);
        let mut bucket = reader.part(length.checked_sub(2).ok_or(bad_bucket)?, bad_bucket)?;
        let (weight, watch_port, watch_group) = (bucket.u16()?, PortNo(bucket.u32()?), bucket.u32()?);
        bucket.skip(4)?;
        let actions = decode_actions(bucket.part(bucket.len(), BadAction::BadLen)?)?;
        buckets.push(BucketSpec { weight, watch_port, watch_group, actions });
    }
    Ok(buckets)
}

fn put_buckets(out: &mut Vec<u8>, buckets: &[BucketSpec]) {
    for bucket in buckets {
        let start = out.len();
        out.put_u16(0);
        out.put_u16(bucket.weight);
        out.put_u32(bucket.watch_port.0);
        out.put_u32(bucket.watch_group);
        out.put_zeros(4);
        debug_assert_eq!(out.len() - start, BUCKET_HEAD);
        put_actions(out, &bucket.actions);
        out.set_length(start, 0);
    }
}

/// The counters of a group (`struct ofp_group_stats`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStats {
    /// Which.
    pub group: u32,
    /// The rules and groups that forward to it.
    pub references: u32,
    /// Frames that it processed.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it has been there.
    pub age: Age,
    /// The frames of each bucket, and their bytes.
    pub buckets: Vec<(u64, u64)>,
}

impl GroupStats {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let length = usize::from(body.u16()?);
        let mut body = body.part(length.checked_sub(2).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        body.skip(2)?;
        let (group, references) = (body.u32()?, body.u32()?);
        body.skip(4)?;
        let (frames, bytes, age) = (body.u64()?, body.u64()?, Age::decode(&mut body)?);
        let mut buckets = Vec::new();
        while !body.is_empty() {
            buckets.push((body.u64()?, body.u64()?));
        }
        Ok(Self { group, references, frames, bytes, age, buckets })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_zeros(4);
        out.put_u32(self.group);
        out.put_u32(self.references);
        out.put_zeros(4);
        out.put_u64(self.frames);
        out.put_u64(self.bytes);
        self.age.encode(out);
        for (frames, bytes) in &self.buckets {
            out.put_u64(*frames);
            out.put_u64(*bytes);
        }
        out.set_length(start, 0);
    }
}

/// What a group is (`struct ofp_group_desc`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDesc {
    /// Which.
    pub group: u32,
    /// What it does.
    pub kind: GroupKind,
    /// Its buckets.
    pub buckets: Vec<BucketSpec>,
}

impl GroupDesc {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let length = usize::from(body.u16()?);
        let mut body = body.part(length.checked_sub(2).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        let kind = group_kind(body.u8()?).ok_or(GroupModFailed::BadType)?;
        body.skip(1)?;
        Ok(Self { kind, group: body.u32()?, buckets: decode_buckets(body)? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u16(0);
        out.put_u8(self.kind as u8);
        out.put_zeros(1);
        out.put_u32(self.group);
        put_buckets(out, &self.buckets);
        out.set_length(start, 0);
    }
}

/// What groups can do (`struct ofp_group_features`). The arrays are by [`GroupKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupFeatures {
    /// The kinds that there are, as a bitmap.
    pub kinds: u32,
    /// `OFPGFC_*`.
    pub capabilities: u32,
    /// The most groups of each kind.
    pub max_groups: [u32; 4],
    /// The types of the standard's actions that buckets of each kind can have, as bitmaps.
    pub actions: [u32; 4],
}

impl GroupFeatures {
    /// What the groups of this switch can do: `OFPGFC_SELECT_WEIGHT`, `OFPGFC_SELECT_LIVENESS`, `OFPGFC_CHAINING` and `OFPGFC_CHAINING_CHECKS`, and
    /// every action. The most groups are those of all kinds together.
    pub const SUPPORTED: Self = Self { kinds: 0b1111, capabilities: 0b1111, max_groups: [MAX_GROUPS as u32; 4], actions: [SUPPORTED; 4] };

    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let mut four = || Ok::<_, ErrorCode>([body.u32()?, body.u32()?, body.u32()?, body.u32()?]);
        let [kinds, capabilities, m0, m1] = four()?;
        let [m2, m3, a0, a1] = four()?;
        Ok(Self { kinds, capabilities, max_groups: [m0, m1, m2, m3], actions: [a0, a1, body.u32()?, body.u32()?] })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.kinds);
        out.put_u32(self.capabilities);
        self.max_groups.iter().chain(&self.actions).for_each(|value| out.put_u32(*value));
    }
}

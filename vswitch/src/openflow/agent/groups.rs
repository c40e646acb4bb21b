//! Groups and meters: their changes, and what there is to say of them.

use datapath::Nanos;
use datapath::tables::group::{GROUP_ALL, Group, GroupMod, GroupModError};
use datapath::tables::meter::{METER_ALL, Meter, MeterMod, MeterModError};

use super::changes::Changes;
use super::flows::flow_mod_error;
use super::{Agent, Datapath};
use crate::openflow::wire::error::{GroupModFailed, MeterModFailed};
use crate::openflow::wire::{Age, ErrorCode, GroupDesc, GroupStats, MeterConfig, MeterStats};

impl Agent {
    pub(super) fn group_mod(&mut self, change: &GroupMod, now: Nanos, changes: &mut Changes) -> Result<(), ErrorCode> {
        let removed = self.draft.group_mod(change, now).map_err(group_mod_error)?;
        changes.note_removed(removed, self.is_watched());
        Ok(())
    }

    pub(super) fn meter_mod(&mut self, change: &MeterMod, now: Nanos, changes: &mut Changes) -> Result<(), ErrorCode> {
        let removed = self.draft.meter_mod(change, now).map_err(meter_mod_error)?;
        changes.note_removed(removed, self.is_watched());
        Ok(())
    }

    /// The counters of a group, or of all groups for [`GROUP_ALL`]; none of one that does not exist.
    pub(super) fn group_stats(&self, group: u32, datapath: &mut dyn Datapath, now: Nanos) -> Vec<GroupStats> {
        datapath.settle();
        let asked = self.draft.groups().filter(|found| group == GROUP_ALL || found.id == group);
        asked.map(|group| group_stats(group, self.draft.group_references(group.id), now)).collect()
    }

    pub(super) fn group_descs(&self) -> Vec<GroupDesc> {
        let desc = |group: &Group| GroupDesc {
            group: group.id,
            kind: group.kind,
            buckets: group.buckets.iter().map(|bucket| bucket.spec.clone()).collect(),
        };
        self.draft.groups().map(|group| desc(group)).collect()
    }

    /// The counters of a meter, or of all meters for [`METER_ALL`].
    pub(super) fn meter_stats(&self, meter: u32, now: Nanos) -> Result<Vec<MeterStats>, ErrorCode> {
        let stats = |meter: &Meter| MeterStats {
            meter: meter.id,
            rules: self.draft.meter_users(meter.id) as u32,
            frames: meter.frames(),
            bytes: meter.bytes(),
            age: Age::between(meter.created, now),
            bands: meter.bands().iter().map(|band| (band.frames(), band.bytes())).collect(),
        };
        self.meters(meter, stats)
    }

    /// What a meter is, or all meters are for [`METER_ALL`].
    pub(super) fn meter_configs(&self, meter: u32) -> Result<Vec<MeterConfig>, ErrorCode> {
        let config = |meter: &Meter| MeterConfig {
            meter: meter.id,
            flags: meter.flags,
            bands: meter.bands().iter().map(|band| band.spec()).collect(),
        };
        self.meters(meter, config)
    }

    fn meters<T>(&self, meter: u32, says: impl Fn(&Meter) -> T) -> Result<Vec<T>, ErrorCode> {
        if meter != METER_ALL && self.draft.meter(meter).is_none() {
            return Err(MeterModFailed::UnknownMeter.into());
        }
        Ok(self.draft.meters().filter(|found| meter == METER_ALL || found.id == meter).map(|meter| says(meter)).collect())
    }
}

fn group_stats(group: &Group, references: usize, now: Nanos) -> GroupStats {
    GroupStats {
        group: group.id,
        references: references as u32,
        frames: group.counters.frames(),
        bytes: group.counters.bytes(),
        age: Age::between(group.created, now),
        buckets: group.buckets.iter().map(|bucket| (bucket.counters.frames(), bucket.counters.bytes())).collect(),
    }
}

fn group_mod_error(error: GroupModError) -> ErrorCode {
    match error {
        GroupModError::Exists => GroupModFailed::GroupExists.into(),
        GroupModError::Invalid => GroupModFailed::InvalidGroup.into(),
        GroupModError::OutOfGroups => GroupModFailed::OutOfGroups.into(),
        GroupModError::OutOfBuckets => GroupModFailed::OutOfBuckets.into(),
        GroupModError::Loop => GroupModFailed::Loop.into(),
        GroupModError::Unknown => GroupModFailed::UnknownGroup.into(),
        GroupModError::Chained => GroupModFailed::ChainedGroup.into(),
        GroupModError::BadWatch => GroupModFailed::BadWatch.into(),
        GroupModError::BadAction(error) => flow_mod_error(error),
    }
}

fn meter_mod_error(error: MeterModError) -> ErrorCode {
    match error {
        MeterModError::Exists => MeterModFailed::MeterExists.into(),
        MeterModError::Invalid => MeterModFailed::InvalidMeter.into(),
        MeterModError::Unknown => MeterModFailed::UnknownMeter.into(),
        MeterModError::BadFlags => MeterModFailed::BadFlags.into(),
        MeterModError::BadRate => MeterModFailed::BadRate.into(),
        MeterModError::BadBurst => MeterModFailed::BadBurst.into(),
        MeterModError::BadBandValue => MeterModFailed::BadBandValue.into(),
        MeterModError::OutOfMeters => MeterModFailed::OutOfMeters.into(),
        MeterModError::OutOfBands => MeterModFailed::OutOfBands.into(),
    }
}

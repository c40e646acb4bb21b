//! Meters: how fast frames may come, and what is done to those that come faster (OpenFlow 1.3.5, 5.7 and 7.3.4.4).
//!
//! Workers share a meter. Each band is a token bucket that is one number, the time at which it would be full again, which is moved on by
//! compare-and-swap (the generic cell rate algorithm): a frame passes while that time is no further ahead than the burst. So a rate is kept exactly, by
//! any number of workers, without a lock and without a clock that ticks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Nanos;

/// The highest number of a meter (`OFPM_MAX`).
pub const METER_MAX: u32 = 0xffff_0000;
/// The meter of the frames for controllers (`OFPM_CONTROLLER`).
pub const METER_CONTROLLER: u32 = 0xffff_fffe;
/// All meters, in requests (`OFPM_ALL`).
pub const METER_ALL: u32 = 0xffff_ffff;
/// The most meters at a time.
pub const MAX_METERS: usize = 1 << 16;
/// The most bands of a meter.
pub const MAX_BANDS: usize = 8;
/// An assured-forwarding class has three drop precedences: one can be raised by two levels at most.
const PRECEDENCES_MAX: u8 = 2;

/// `OFPMF_*`: flags of a meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MeterFlags(pub u16);

impl MeterFlags {
    /// Rates are in kilobits a second.
    pub const KBPS: Self = Self(1);
    /// Rates are in frames a second.
    pub const PKTPS: Self = Self(1 << 1);
    /// The bands' burst sizes count.
    pub const BURST: Self = Self(1 << 2);
    /// Count. (It is done anyway.)
    pub const STATS: Self = Self(1 << 3);
    /// All flags that there are.
    pub const ALL: Self = Self(0xf);

    /// Whether all of `flags` are set.
    pub fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// What a band does to the frames that are too many for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BandKind {
    /// Drop them.
    Drop,
    /// Make it more likely that they are dropped later: raise the drop precedence in an assured-forwarding DSCP (RFC 2597) by so many levels.
    DscpRemark(u8),
}

/// A band as a controller describes it (`struct ofp_meter_band_header`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BandSpec {
    /// What it does.
    pub kind: BandKind,
    /// In kilobits or frames a second; not zero.
    pub rate: u32,
    /// In kilobits or frames. It counts only if the meter has [`MeterFlags::BURST`].
    pub burst: u32,
}

/// What is to become of a meter (`OFPMC_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum MeterCommand {
    /// A new one.
    Add = 0,
    /// Another in its place.
    Modify = 1,
    /// None any more; for [`METER_ALL`], of all.
    Delete = 2,
}

/// A change to the meters (OpenFlow 1.3.5, 7.3.4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterMod {
    /// What to do.
    pub command: MeterCommand,
    /// With which meter.
    pub meter: u32,
    /// What it is to measure.
    pub flags: MeterFlags,
    /// Its bands.
    pub bands: Vec<BandSpec>,
}

/// Why a meter-mod was refused. Nothing was changed. Each variant is one code of OFPET_METER_MOD_FAILED, named in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeterModError {
    /// `OFPMMFC_METER_EXISTS`: a meter of this number is there already.
    Exists,
    /// `OFPMMFC_INVALID_METER`: no meter can have this number.
    Invalid,
    /// `OFPMMFC_UNKNOWN_METER`: there is no such meter.
    Unknown,
    /// `OFPMMFC_BAD_FLAGS`: the rates are in both units.
    BadFlags,
    /// `OFPMMFC_BAD_RATE`: a rate is zero.
    BadRate,
    /// `OFPMMFC_BAD_BURST`: a burst is zero, although bursts count.
    BadBurst,
    /// `OFPMMFC_BAD_BAND_VALUE`: a DSCP can't be raised by so many levels.
    BadBandValue,
    /// `OFPMMFC_OUT_OF_METERS`: there are [`MAX_METERS`] meters.
    OutOfMeters,
    /// `OFPMMFC_OUT_OF_BANDS`: more than [`MAX_BANDS`] bands.
    OutOfBands,
}

/// A meter.
#[derive(Debug)]
pub struct Meter {
    /// Its number, up to [`METER_MAX`], or [`METER_CONTROLLER`].
    pub id: u32,
    /// What it measures.
    pub flags: MeterFlags,
    /// When it was added.
    pub created: Nanos,
    bands: Box<[Band]>,
    frames: AtomicU64,
    bytes: AtomicU64,
}

/// A band with its bucket and what it counted.
#[derive(Debug)]
pub struct Band {
    spec: BandSpec,
    bucket: TokenBucket,
    frames: AtomicU64,
    bytes: AtomicU64,
}

/// What becomes of a metered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metered {
    /// It goes on as it is.
    Passes,
    /// It is dropped.
    Dropped,
    /// It goes on, with the drop precedence in its DSCP raised by so many levels.
    Remarked(u8),
}

/// Without a burst size of its own, a band lets as much through at once as comes at its rate in this time.
const USUAL_BURST: Nanos = 100_000_000;
/// Fractions of a nanosecond that times are kept in, so that many small frames at a high rate add up right: 2^-6. The clock of a meter starts with it,
/// and lasts for nine years.
const FRACTION: u32 = 6;

/// The longest burst, two years: so the time of a bucket that is full of it can be told, too.
const BURST_MAX: u64 = u64::MAX / 4;

/// The state of a band: when, in fractions of a nanosecond since the meter was made, its bucket would be full again if no more frames came.
#[derive(Debug)]
struct TokenBucket {
    full_at: AtomicU64,
    /// What a unit (a bit or a frame) costs, as a fraction of units: time = units * numerator / rate.
    rate: u64,
    numerator: u64,
    /// How far ahead the bucket may be.
    burst: u64,
}

impl TokenBucket {
    /// A full bucket for `rate` and `burst` in thousands of bits, or in frames.
    fn new(flags: MeterFlags, spec: &BandSpec) -> Self {
        const SECOND: u64 = 1_000_000_000 << FRACTION;
        let by_frames = flags.contains(MeterFlags::PKTPS);
        // A kilobit a second is a bit a millisecond.
        let numerator = if by_frames { SECOND } else { SECOND / 1000 };
        let rate = u64::from(spec.rate.max(1));
        let burst = match flags.contains(MeterFlags::BURST) {
            true => (u128::from(spec.burst) * u128::from(SECOND) / u128::from(rate)).min(BURST_MAX.into()) as u64,
            false => USUAL_BURST << FRACTION,
        };
        // One frame passes a bucket that is full, however long it is.
        Self { full_at: AtomicU64::new(0), rate, numerator, burst: burst.max(1) }
    }

    /// Takes `units` at `now`, in fractions of a nanosecond, unless they are too many.
    fn take(&self, units: u64, now: u64) -> bool {
        let cost = units * self.numerator / self.rate;
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let start = full_at.max(now);
            let next = start + cost;
            // A frame longer than the burst passes when the bucket is full.
            if start > now && next - now > self.burst {
                return false;
            }
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => full_at = current,
            }
        }
    }
}

impl Meter {
    /// A meter with full buckets, whose description was checked.
    pub(super) fn new(id: u32, flags: MeterFlags, bands: &[BandSpec], created: Nanos) -> Self {
        let band = |spec: &BandSpec| Band {
            spec: *spec,
            bucket: TokenBucket::new(flags, spec),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        Self { id, flags, created, bands: bands.iter().map(band).collect(), frames: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Measures a frame of so many bytes. Of the bands that it is too fast for, the one with the highest rate says what becomes of it.
    pub fn measure(&self, bytes: usize, now: Nanos) -> Metered {
        let by_frames = self.flags.contains(MeterFlags::PKTPS);
        let units = if by_frames { 1 } else { bytes as u64 * 8 };
        let now = now.saturating_sub(self.created) << FRACTION;
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let exceeded = self.bands.iter().filter(|band| !band.bucket.take(units, now)).max_by_key(|band| band.spec.rate);
        let Some(band) = exceeded else { return Metered::Passes };
        band.frames.fetch_add(1, Ordering::Relaxed);
        band.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        match band.spec.kind {
            BandKind::Drop => Metered::Dropped,
            BandKind::DscpRemark(levels) => Metered::Remarked(levels),
        }
    }

    /// Its bands, in the order in which they were given.
    pub fn bands(&self) -> &[Band] {
        &self.bands
    }

    /// Whether a band may change a frame's DSCP.
    pub(crate) fn remarks(&self) -> bool {
        self.bands.iter().any(|band| matches!(band.spec.kind, BandKind::DscpRemark(_)))
    }

    /// Frames that it measured.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Band {
    /// What was asked for.
    pub fn spec(&self) -> BandSpec {
        self.spec
    }

    /// Frames that it was applied to.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// All meters, by number, and how many rules use each.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters {
    meters: BTreeMap<u32, Arc<Meter>>,
    users: BTreeMap<u32, usize>,
}

impl Meters {
    pub fn get(&self, id: u32) -> Option<&Arc<Meter>> {
        self.meters.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Meter>> {
        self.meters.values()
    }

    /// How many rules use a meter.
    pub fn users(&self, id: u32) -> usize {
        self.users.get(&id).copied().unwrap_or_default()
    }

    /// Another rule uses a meter.
    pub fn used(&mut self, id: u32) {
        *self.users.entry(id).or_default() += 1;
    }

    /// A rule that used it is gone.
    pub fn unused(&mut self, id: u32) {
        if let Some(users) = self.users.get_mut(&id) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&id);
            }
        }
    }

    /// Puts a meter in, in the place of one with its number, whose counters it does not keep.
    pub fn put(&mut self, change: &MeterMod, now: Nanos) {
        self.meters.insert(change.meter, Arc::new(Meter::new(change.meter, change.flags, &change.bands, now)));
    }

    pub fn remove(&mut self, id: u32) {
        self.meters.remove(&id);
    }

    /// Whether a change can be made.
    pub fn check(&self, change: &MeterMod) -> Result<(), MeterModError> {
        let exists = self.meters.contains_key(&change.meter);
        let delete = change.command == MeterCommand::Delete;
        let is_number = (1..=METER_MAX).contains(&change.meter) || change.meter == METER_CONTROLLER;
        match change.command {
            _ if !(is_number || delete && change.meter == METER_ALL) => return Err(MeterModError::Invalid),
            MeterCommand::Delete => return Ok(()),
            MeterCommand::Add if exists => return Err(MeterModError::Exists),
            MeterCommand::Modify if !exists => return Err(MeterModError::Unknown),
            MeterCommand::Add if self.meters.len() >= MAX_METERS => return Err(MeterModError::OutOfMeters),
            _ => {}
        }
        if change.bands.len() > MAX_BANDS {
            return Err(MeterModError::OutOfBands);
        }
        let MeterFlags(flags) = change.flags;
        if change.flags.contains(MeterFlags(MeterFlags::KBPS.0 | MeterFlags::PKTPS.0)) || flags & !MeterFlags::ALL.0 != 0 {
            return Err(MeterModError::BadFlags);
        }
        change.bands.iter().try_for_each(|band| match band {
            BandSpec { rate: 0, .. } => Err(MeterModError::BadRate),
            BandSpec { burst: 0, .. } if change.flags.contains(MeterFlags::BURST) => Err(MeterModError::BadBurst),
            BandSpec { kind: BandKind::DscpRemark(levels), .. } if !(1..=PRECEDENCES_MAX).contains(levels) => {
                Err(MeterModError::BadBandValue)
            }
            _ => Ok(()),
        })
    }
}

impl std::fmt::Display for MeterModError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exists => "the meter is there already",
            Self::Invalid => "no meter can have this number",
            Self::Unknown => "there is no such meter",
            Self::BadFlags => "the meter's rates are in two units at once",
            Self::BadRate => "a band's rate is zero",
            Self::BadBurst => "a band's burst size is zero",
            Self::BadBandValue => "a DSCP can't be raised by so many levels",
            Self::OutOfMeters => "there are as many meters as there can be",
            Self::OutOfBands => "the meter has too many bands",
        })
    }
}

impl std::error::Error for MeterModError {}

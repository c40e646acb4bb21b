//! Meters: OFPT_METER_MOD (OpenFlow 1.3.5, 7.3.4.4), their counters, configuration and features (7.3.5.11 to 7.3.5.13).

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode, MeterModFailed};
use super::flow::Age;
use datapath::tables::meter::{BandKind, BandSpec, MAX_BANDS, MAX_METERS, MeterCommand, MeterFlags, MeterMod};

// OFPMBT_*
const DROP: u16 = 1;
const DSCP_REMARK: u16 = 2;

/// The bytes of a band of any type.
const BAND: u16 = 16;

/// Reads the body of OFPT_METER_MOD.
pub(super) fn decode_meter_mod(mut body: Reader) -> Result<MeterMod, ErrorCode> {
    let (command, flags, meter) = (body.u16()?, MeterFlags(body.u16()?), body.u32()?);
    let command = [MeterCommand::Add, MeterCommand::Modify, MeterCommand::Delete]
        .into_iter()
        .find(|known| *known as u16 == command)
        .ok_or(MeterModFailed::BadCommand)?;
    if !MeterFlags::ALL.contains(flags) {
        return Err(MeterModFailed::BadFlags.into());
    }
    Ok(MeterMod { command, meter, flags, bands: decode_bands(body)? })
}

/// Appends the body of OFPT_METER_MOD.
pub(super) fn put_meter_mod(out: &mut Vec<u8>, change: &MeterMod) {
    out.put_u16(change.command as u16);
    out.put_u16(change.flags.0);
    out.put_u32(change.meter);
    put_bands(out, &change.bands);
}

/// Reads bands to the end of `reader`.
fn decode_bands(mut reader: Reader) -> Result<Vec<BandSpec>, ErrorCode> {
    let mut bands = Vec::new();
    while !reader.is_empty() {
        let mut band = reader.part(BAND.into(), MeterModFailed::BadBand)?;
        let (kind, length, rate, burst) = (band.u16()?, band.u16()?, band.u32()?, band.u32()?);
        let kind = match kind {
            _ if length != BAND => return Err(MeterModFailed::BadBand.into()),
            DROP => BandKind::Drop,
            DSCP_REMARK => BandKind::DscpRemark(band.u8()?),
            _ => return Err(MeterModFailed::BadBand.into()),
        };
        bands.push(BandSpec { kind, rate, burst });
    }
    Ok(bands)
}

fn put_bands(out: &mut Vec<u8>, bands: &[BandSpec]) {
    for band in bands {
        let (kind, levels) = match band.kind {
            BandKind::Drop => (DROP, 0),
            BandKind::DscpRemark(levels) => (DSCP_REMARK, levels),
        };
        out.put_u16(kind);
        out.put_u16(BAND);
        out.put_u32(band.rate);
        out.put_u32(band.burst);
        out.put_u8(levels);
        out.put_zeros(3);
    }
}

/// The counters of a meter (`struct ofp_meter_stats`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterStats {
    /// Which.
    pub meter: u32,
    /// The rules that use it.
    pub rules: u32,
    /// Frames that it measured.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it has been there.
    pub age: Age,
    /// The frames that each band was applied to, and their bytes.
    pub bands: Vec<(u64, u64)>,
}

impl MeterStats {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let (meter, length) = (body.u32()?, usize::from(body.u16()?));
        let mut body = body.part(length.checked_sub(6).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        body.skip(6)?;
        let (rules, frames, bytes, age) = (body.u32()?, body.u64()?, body.u64()?, Age::decode(&mut body)?);
        let mut bands = Vec::new();
        while !body.is_empty() {
            bands.push((body.u64()?, body.u64()?));
        }
        Ok(Self { meter, rules, frames, bytes, age, bands })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32(self.meter);
        out.put_zeros(8);
        out.put_u32(self.rules);
        out.put_u64(self.frames);
        out.put_u64(self.bytes);
        self.age.encode(out);
        for (frames, bytes) in &self.bands {
            out.put_u64(*frames);
            out.put_u64(*bytes);
        }
        out.set_length(start, 4);
    }
}

/// What a meter is (`struct ofp_meter_config`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterConfig {
    /// Which.
    pub meter: u32,
    /// What it measures.
    pub flags: MeterFlags,
    /// Its bands.
    pub bands: Vec<BandSpec>,
}

impl MeterConfig {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let length = usize::from(body.u16()?);
        let mut body = body.part(length.checked_sub(2).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        Ok(Self { flags: MeterFlags(body.u16()?), meter: body.u32()?, bands: decode_bands(body)? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u16(0);
        out.put_u16(self.flags.0);
        out.put_u32(self.meter);
        put_bands(out, &self.bands);
        out.set_length(start, 0);
    }
}

/// What meters can do (`struct ofp_meter_features`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeterFeatures {
    /// The most meters at a time.
    pub max_meters: u32,
    /// The types of bands (`OFPMBT_*`), as a bitmap.
    pub band_types: u32,
    /// The flags that a meter can have.
    pub capabilities: MeterFlags,
    /// The most bands of a meter.
    pub max_bands: u8,
    /// The highest colour; colours are of no use to OpenFlow.
    pub max_color: u8,
}

impl MeterFeatures {
    /// What the meters of this switch can do.
    pub const SUPPORTED: Self = Self {
        max_meters: MAX_METERS as u32,
        band_types: 1 << DROP | 1 << DSCP_REMARK,
        capabilities: MeterFlags::ALL,
        max_bands: MAX_BANDS as u8,
        max_color: 0,
    };

    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let (max_meters, band_types, capabilities) = (body.u32()?, body.u32()?, MeterFlags(body.u32()? as u16));
        let (max_bands, max_color) = (body.u8()?, body.u8()?);
        body.skip(2)?;
        Ok(Self { max_meters, band_types, capabilities, max_bands, max_color })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.max_meters);
        out.put_u32(self.band_types);
        out.put_u32(self.capabilities.0.into());
        out.put_u8(self.max_bands);
        out.put_u8(self.max_color);
        out.put_zeros(2);
    }
}

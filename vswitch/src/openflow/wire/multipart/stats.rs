//! The counters and descriptions in multipart replies (OpenFlow 1.3.5, 7.3.5.1 to 7.3.5.6).

use super::super::bytes::{Put, Reader};
use super::super::error::{BadRequest, ErrorCode};
use super::super::flow::Age;
use super::super::instruction::{decode_instructions, put_instructions};
use super::super::oxm::{decode_match, put_match};
use datapath::key::Match;
use datapath::port::PortNo;
use datapath::tables::RuleFlags;
use datapath::tables::instruction::Instructions;

/// Who made the switch (`struct ofp_desc`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desc {
    /// Manufacturer; at most 255 bytes are sent.
    pub manufacturer: String,
    /// Hardware; at most 255 bytes are sent.
    pub hardware: String,
    /// Software; at most 255 bytes are sent.
    pub software: String,
    /// Serial number; at most 31 bytes are sent.
    pub serial_number: String,
    /// For a person; at most 255 bytes are sent.
    pub datapath: String,
}

const DESC_STRING: usize = 256;
const SERIAL_NUMBER: usize = 32;

impl Desc {
    pub(in super::super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        Ok(Self {
            manufacturer: body.text(DESC_STRING)?,
            hardware: body.text(DESC_STRING)?,
            software: body.text(DESC_STRING)?,
            serial_number: body.text(SERIAL_NUMBER)?,
            datapath: body.text(DESC_STRING)?,
        })
    }

    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_text(&self.manufacturer, DESC_STRING);
        out.put_text(&self.hardware, DESC_STRING);
        out.put_text(&self.software, DESC_STRING);
        out.put_text(&self.serial_number, SERIAL_NUMBER);
        out.put_text(&self.datapath, DESC_STRING);
    }
}

/// A rule with its counters (`struct ofp_flow_stats`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// Its table.
    pub table: u8,
    /// How long it has been there.
    pub age: Age,
    /// Seconds since the last frame, if known: only Nicira's extensions to OpenFlow 1.0 tell.
    pub idle_age: Option<u16>,
    /// The same since it was last changed.
    pub change_age: Option<u16>,
    /// Its priority.
    pub priority: u16,
    /// Seconds.
    pub idle_timeout: u16,
    /// Seconds.
    pub hard_timeout: u16,
    /// Its flags.
    pub flags: RuleFlags,
    /// Its cookie.
    pub cookie: u64,
    /// Frames it was used for.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The flows it is for.
    pub matching: Match,
    /// What it does.
    pub instructions: Instructions,
}

impl FlowStats {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let length = usize::from(body.u16()?);
        let mut body = body.part(length.checked_sub(2).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        let table = body.u8()?;
        body.skip(1)?;
        let (age, priority) = (Age::decode(&mut body)?, body.u16()?);
        let (idle_timeout, hard_timeout, flags) = (body.u16()?, body.u16()?, RuleFlags(body.u16()?));
        body.skip(4)?;
        let (cookie, frames, bytes) = (body.u64()?, body.u64()?, body.u64()?);
        let matching = decode_match(&mut body)?;
        let instructions = decode_instructions(body)?;
        let (idle_age, change_age) = (None, None);
        Ok(Self {
            table,
            age,
            idle_age,
            change_age,
            priority,
            idle_timeout,
            hard_timeout,
            flags,
            cookie,
            frames,
            bytes,
            matching,
            instructions,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u16(0);
        out.put_u8(self.table);
        out.put_zeros(1);
        self.age.encode(out);
        out.put_u16(self.priority);
        out.put_u16(self.idle_timeout);
        out.put_u16(self.hard_timeout);
        out.put_u16(self.flags.0);
        out.put_zeros(4);
        out.put_u64(self.cookie);
        out.put_u64(self.frames);
        out.put_u64(self.bytes);
        put_match(out, &self.matching);
        put_instructions(out, &self.instructions);
        out.set_length(start, 0);
    }
}

/// Sums over rules (`struct ofp_aggregate_stats_reply`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aggregate {
    /// Frames they were used for.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The rules.
    pub rules: u32,
}

impl Aggregate {
    pub(in super::super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let sums = Self { frames: body.u64()?, bytes: body.u64()?, rules: body.u32()? };
        body.skip(4)?;
        Ok(sums)
    }

    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.frames);
        out.put_u64(self.bytes);
        out.put_u32(self.rules);
        out.put_zeros(4);
    }
}

/// The counters of a table (`struct ofp_table_stats`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableStats {
    /// Which.
    pub table: u8,
    /// Its rules.
    pub active: u32,
    /// Frames looked up in it.
    pub lookups: u64,
    /// Frames that one of its rules matched.
    pub matches: u64,
}

impl TableStats {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let table = body.u8()?;
        body.skip(3)?;
        Ok(Self { table, active: body.u32()?, lookups: body.u64()?, matches: body.u64()? })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.table);
        out.put_zeros(3);
        out.put_u32(self.active);
        out.put_u64(self.lookups);
        out.put_u64(self.matches);
    }
}

/// The counters of a port (`struct ofp_port_stats`). All ones stand for a counter that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStats {
    /// Which.
    pub number: PortNo,
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames received and dropped.
    pub rx_dropped: u64,
    /// Frames not sent.
    pub tx_dropped: u64,
    /// Frames received that were in error.
    pub rx_errors: u64,
    /// Frames that an error kept from being sent.
    pub tx_errors: u64,
    /// Frames received in error: alignment, overrun, CRC.
    pub rx_frame_overrun_crc: [u64; 3],
    /// Collisions.
    pub collisions: u64,
    /// How long it has been there.
    pub age: Age,
}

impl PortStats {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let number = PortNo(body.u32()?);
        body.skip(4)?;
        let counters = Self::decode_counters(number, body)?;
        Ok(Self { age: Age::decode(body)?, ..counters })
    }

    /// Reads the counters, which are the same in all versions.
    pub(in super::super) fn decode_counters(number: PortNo, body: &mut Reader) -> Result<Self, ErrorCode> {
        Ok(Self {
            number,
            rx_frames: body.u64()?,
            tx_frames: body.u64()?,
            rx_bytes: body.u64()?,
            tx_bytes: body.u64()?,
            rx_dropped: body.u64()?,
            tx_dropped: body.u64()?,
            rx_errors: body.u64()?,
            tx_errors: body.u64()?,
            rx_frame_overrun_crc: [body.u64()?, body.u64()?, body.u64()?],
            collisions: body.u64()?,
            age: Age::default(),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.number.0);
        out.put_zeros(4);
        self.put_counters(out);
        self.age.encode(out);
    }

    /// Appends the counters.
    pub(in super::super) fn put_counters(&self, out: &mut Vec<u8>) {
        let frames = [self.rx_frames, self.tx_frames, self.rx_bytes, self.tx_bytes];
        let failures = [self.rx_dropped, self.tx_dropped, self.rx_errors, self.tx_errors];
        for counter in [&frames[..], &failures, &self.rx_frame_overrun_crc, &[self.collisions]].concat() {
            out.put_u64(counter);
        }
    }
}

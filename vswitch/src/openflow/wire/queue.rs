//! Queues: OFPT_QUEUE_GET_CONFIG_REQUEST and its reply (OpenFlow 1.3.5, 7.3.6), and their counters (7.3.5.7).

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode};
use super::flow::Age;
use datapath::port::PortNo;

/// `OFPQ_ALL`: all queues, in requests.
pub const QUEUE_ALL: u32 = 0xffff_ffff;

// OFPQT_*
const MIN_RATE: u16 = 1;
const MAX_RATE: u16 = 2;

/// The bytes of a queue before its properties.
const QUEUE_HEAD: usize = 16;

/// A queue of a port (`struct ofp_packet_queue`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueDesc {
    /// The port.
    pub port: PortNo,
    /// Which of its queues.
    pub queue: u32,
    /// The rate that it gets at least, in tenths of a percent; `None` if no rate is set.
    pub min_rate: Option<u16>,
    /// The rate that it gets at most.
    pub max_rate: Option<u16>,
}

impl QueueDesc {
    fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let (queue, port, length) = (body.u32()?, PortNo(body.u32()?), usize::from(body.u16()?));
        body.skip(6)?;
        let mut properties = body.part(length.checked_sub(QUEUE_HEAD).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        let mut desc = Self { port, queue, min_rate: None, max_rate: None };
        while !properties.is_empty() {
            let (kind, length) = (properties.u16()?, usize::from(properties.u16()?));
            let mut property = properties.part(length.checked_sub(4).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
            property.skip(4)?;
            match kind {
                MIN_RATE => desc.min_rate = Some(property.u16()?),
                MAX_RATE => desc.max_rate = Some(property.u16()?),
                _ => {}
            }
        }
        Ok(desc)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32(self.queue);
        out.put_u32(self.port.0);
        out.put_zeros(8);
        for (kind, rate) in [(MIN_RATE, self.min_rate), (MAX_RATE, self.max_rate)] {
            if let Some(rate) = rate {
                out.put_u16(kind);
                out.put_u16(16);
                out.put_zeros(4);
                out.put_u16(rate);
                out.put_zeros(6);
            }
        }
        out.set_length(start, 8);
    }
}

/// Reads the body of OFPT_QUEUE_GET_CONFIG_REQUEST: a port, or [`PortNo::ANY`].
pub(super) fn decode_config_request(mut body: Reader) -> Result<PortNo, ErrorCode> {
    let port = PortNo(body.u32()?);
    body.skip(4)?;
    body.finish()?;
    Ok(port)
}

/// Appends the body of OFPT_QUEUE_GET_CONFIG_REQUEST.
pub(super) fn put_config_request(out: &mut Vec<u8>, port: PortNo) {
    out.put_u32(port.0);
    out.put_zeros(4);
}

/// The body of OFPT_QUEUE_GET_CONFIG_REPLY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// The port that was asked for.
    pub port: PortNo,
    /// The queues.
    pub queues: Vec<QueueDesc>,
}

impl QueueConfig {
    /// The most queues that fit one message.
    pub const MAX_QUEUES: usize = (u16::MAX as usize - 16) / QUEUE_HEAD;

    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let port = PortNo(body.u32()?);
        body.skip(4)?;
        let mut queues = Vec::new();
        while !body.is_empty() {
            queues.push(QueueDesc::decode(&mut body)?);
        }
        Ok(Self { port, queues })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_config_request(out, self.port);
        self.queues.iter().for_each(|queue| queue.encode(out));
    }
}

/// The counters of a queue (`struct ofp_queue_stats`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// The port.
    pub port: PortNo,
    /// Which of its queues.
    pub queue: u32,
    /// Bytes sent.
    pub bytes: u64,
    /// Frames sent.
    pub frames: u64,
    /// Frames dropped because there was no room for them.
    pub errors: u64,
    /// How long it has been there.
    pub age: Age,
}

impl QueueStats {
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        Ok(Self {
            port: PortNo(body.u32()?),
            queue: body.u32()?,
            bytes: body.u64()?,
            frames: body.u64()?,
            errors: body.u64()?,
            age: Age::decode(body)?,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.port.0);
        out.put_u32(self.queue);
        out.put_u64(self.bytes);
        out.put_u64(self.frames);
        out.put_u64(self.errors);
        self.age.encode(out);
    }
}

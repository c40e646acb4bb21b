//! OFPT_QUEUE_GET_CONFIG_REQUEST and its reply (OpenFlow 1.0, 5.3.4).

use super::super::bytes::{Put, Reader};
use super::super::error::{BadRequest, ErrorCode};
use super::super::{QueueConfig, QueueDesc};
use super::port::{narrow, widen};
use datapath::port::PortNo;

/// `OFPQT_MIN_RATE`, the only property of a queue.
const MIN_RATE: u16 = 1;
/// The bytes of that property.
const RATE_LENGTH: u16 = 16;
/// The bytes of a queue before its properties.
const HEAD: usize = 8;

/// Reads the port that a request is about.
pub(super) fn decode_request(mut body: Reader) -> Result<PortNo, ErrorCode> {
    let port = widen(body.u16()?);
    body.skip(2)?;
    body.finish()?;
    Ok(port)
}

pub(super) fn put_request(out: &mut Vec<u8>, port: PortNo) {
    out.put_u16(narrow(port).unwrap_or_default());
    out.put_zeros(2);
}

pub(super) fn decode_config(mut body: Reader) -> Result<QueueConfig, ErrorCode> {
    let port = widen(body.u16()?);
    body.skip(6)?;
    let mut queues = Vec::new();
    while !body.is_empty() {
        let (queue, length) = (body.u32()?, usize::from(body.u16()?));
        body.skip(2)?;
        let mut properties = body.part(length.checked_sub(HEAD).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
        let mut desc = QueueDesc { port, queue, min_rate: None, max_rate: None };
        while !properties.is_empty() {
            let (kind, length) = (properties.u16()?, usize::from(properties.u16()?));
            let mut property = properties.part(length.checked_sub(4).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
            property.skip(4)?;
            if kind == MIN_RATE {
                desc.min_rate = Some(property.u16()?);
            }
        }
        queues.push(desc);
    }
    Ok(QueueConfig { port, queues })
}

pub(super) fn put_config(out: &mut Vec<u8>, config: &QueueConfig) {
    out.put_u16(narrow(config.port).unwrap_or_default());
    out.put_zeros(6);
    for queue in &config.queues {
        let start = out.len();
        out.put_u32(queue.queue);
        out.put_zeros(4);
        if let Some(rate) = queue.min_rate {
            out.put_u16(MIN_RATE);
            out.put_u16(RATE_LENGTH);
            out.put_zeros(4);
            out.put_u16(rate);
            out.put_zeros(6);
        }
        out.set_length(start, 4);
    }
}

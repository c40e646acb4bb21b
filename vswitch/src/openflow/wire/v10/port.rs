//! Ports: their numbers, their description, OFPT_PORT_STATUS and OFPT_PORT_MOD (OpenFlow 1.0, 5.2.1, 5.3.3 and 5.4.3).

use super::super::bytes::{Put, Reader};
use super::super::error::ErrorCode;
use super::super::port::NAME_LENGTH;
use super::super::{LINK_DOWN, PortDesc, PortMod, PortReason, PortStatus};
use datapath::port::PortNo;
use datapath::tables::PortConfig;

/// `OFPP_MAX`: as many ports there are, at most; numbers from here on are reserved.
const MAX: u16 = 0xff00;
/// What reserved numbers have before their last 16 bits in OpenFlow 1.3.
const RESERVED: u32 = 0xffff_0000;

/// A number of 16 bits as one of 32: the reserved ones move up.
pub(super) fn widen(port: u16) -> PortNo {
    PortNo(if port >= MAX { RESERVED | u32::from(port) } else { port.into() })
}

/// The number in 16 bits, if it has one.
pub(super) fn narrow(port: PortNo) -> Option<u16> {
    Some(port.0 as u16).filter(|narrow| *narrow != MAX && widen(*narrow) == port)
}

/// Whether a port of the switch can have this number.
pub(super) fn is_ordinary(port: PortNo) -> bool {
    (1..MAX.into()).contains(&port.0)
}

/// Features up to 10 GbE are the same in both versions; from here on, those of OpenFlow 1.0 (`OFPPF_COPPER` and after) are four bits lower.
const FIRST_MOVED: u32 = 1 << 7;

fn decode_features(features: u32) -> u32 {
    features & (FIRST_MOVED - 1) | (features & 0xf80) << 4
}

/// Leaves out what OpenFlow 1.0 does not know: 40 GbE and faster, and other rates.
fn encode_features(features: u32) -> u32 {
    features & (FIRST_MOVED - 1) | features >> 4 & 0xf80
}

/// The bytes of a description.
pub(super) const DESC_LENGTH: usize = 48;

pub(super) fn decode_desc(body: &mut Reader) -> Result<PortDesc, ErrorCode> {
    Ok(PortDesc {
        number: widen(body.u16()?),
        hw_addr: body.array()?,
        name: body.text(NAME_LENGTH)?,
        config: PortConfig(body.u32()?),
        state: body.u32()?,
        features: [body.u32()?, body.u32()?, body.u32()?, body.u32()?].map(decode_features),
        current_speed: 0,
        max_speed: 0,
    })
}

/// Appends a description; nothing if its number does not fit.
pub(super) fn put_desc(out: &mut Vec<u8>, port: &PortDesc) {
    let Some(number) = narrow(port.number) else { return };
    out.put_u16(number);
    out.extend_from_slice(&port.hw_addr);
    out.put_text(&port.name, NAME_LENGTH);
    out.put_u32(port.config.0);
    // The others are of spanning trees there, and of liveness here.
    out.put_u32(port.state & LINK_DOWN);
    for features in port.features {
        out.put_u32(encode_features(features));
    }
}

pub(super) fn decode_status(mut body: Reader) -> Result<PortStatus, ErrorCode> {
    let reason = PortReason::from_number(body.u8()?)?;
    body.skip(7)?;
    let port = decode_desc(&mut body)?;
    body.finish()?;
    Ok(PortStatus { reason, port })
}

pub(super) fn put_status(out: &mut Vec<u8>, status: &PortStatus) {
    out.put_u8(status.reason as u8);
    out.put_zeros(7);
    put_desc(out, &status.port);
}

pub(super) fn decode_mod(mut body: Reader) -> Result<PortMod, ErrorCode> {
    let (number, hw_addr) = (widen(body.u16()?), body.array()?);
    let (config, mask, advertise) = (PortConfig(body.u32()?), PortConfig(body.u32()?), decode_features(body.u32()?));
    body.skip(4)?;
    body.finish()?;
    Ok(PortMod { number, hw_addr, config, mask, advertise })
}

pub(super) fn put_mod(out: &mut Vec<u8>, port_mod: &PortMod) {
    out.put_u16(narrow(port_mod.number).unwrap_or_default());
    out.extend_from_slice(&port_mod.hw_addr);
    out.put_u32(port_mod.config.0);
    out.put_u32(port_mod.mask.0);
    out.put_u32(encode_features(port_mod.advertise));
    out.put_zeros(4);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_numbers_lie_at_the_end_in_both_widths() {
        for (wide, short) in
            [(PortNo(1), 1), (PortNo(0xfeff), 0xfeff), (PortNo::IN_PORT, 0xfff8), (PortNo::ANY, 0xffff), (PortNo(0xffff_fff7), 0xfff7)]
        {
            assert_eq!((narrow(wide), widen(short)), (Some(short), wide));
        }
        for unsayable in [0xff00, 0xffff, 0x1_0000, 0xffff_feff, 0xffff_ff00] {
            assert_eq!(narrow(PortNo(unsayable)), None);
        }
    }

    #[test]
    fn features_that_both_versions_know_come_back() {
        // 10 GbE in full duplex, fibre, pause; and 100 GbE.
        assert_eq!(encode_features(1 << 6 | 1 << 12 | 1 << 14 | 1 << 8), 1 << 6 | 1 << 8 | 1 << 10);
        for bit in 0..12 {
            assert_eq!(encode_features(decode_features(1 << bit)), 1 << bit);
        }
    }
}

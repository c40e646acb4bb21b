//! Ports: their description, OFPT_PORT_STATUS and OFPT_PORT_MOD (OpenFlow 1.3.5, 7.2.1, 7.3.4.3 and 7.4.3).

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode};
use datapath::port::PortNo;
use datapath::tables::PortConfig;

/// `OFPPS_LINK_DOWN`, a bit of a port's state.
pub const LINK_DOWN: u32 = 1;
/// `OFPPS_LIVE`, a bit of a port's state.
pub const LIVE: u32 = 1 << 2;

/// The bytes of a name, its zero included (`OFP_MAX_PORT_NAME_LEN`).
pub(super) const NAME_LENGTH: usize = 16;

/// A port's description (`struct ofp_port`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDesc {
    /// Its number.
    pub number: PortNo,
    /// Its MAC address.
    pub hw_addr: [u8; 6],
    /// Its name; what does not fit 15 bytes is cut.
    pub name: String,
    /// What controllers want of it.
    pub config: PortConfig,
    /// `OFPPS_*`.
    pub state: u32,
    /// Features as `OFPPF_*`: current, advertised, supported, and advertised by the peer.
    pub features: [u32; 4],
    /// In kbit/s.
    pub current_speed: u32,
    /// In kbit/s.
    pub max_speed: u32,
}

impl PortDesc {
    /// Its bytes on the wire.
    pub const LENGTH: usize = 64;

    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let number = PortNo(body.u32()?);
        body.skip(4)?;
        let hw_addr = body.array()?;
        body.skip(2)?;
        Ok(Self {
            number,
            hw_addr,
            name: body.text(NAME_LENGTH)?,
            config: PortConfig(body.u32()?),
            state: body.u32()?,
            features: [body.u32()?, body.u32()?, body.u32()?, body.u32()?],
            current_speed: body.u32()?,
            max_speed: body.u32()?,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.number.0);
        out.put_zeros(4);
        out.extend_from_slice(&self.hw_addr);
        out.put_zeros(2);
        out.put_text(&self.name, NAME_LENGTH);
        out.put_u32(self.config.0);
        out.put_u32(self.state);
        for features in self.features {
            out.put_u32(features);
        }
        out.put_u32(self.current_speed);
        out.put_u32(self.max_speed);
    }
}

/// What happened to a port (`OFPPR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortReason {
    /// It was added.
    Add = 0,
    /// It was removed.
    Delete = 1,
    /// Its configuration or state changed.
    Modify = 2,
}

impl PortReason {
    pub(super) fn from_number(number: u8) -> Result<Self, ErrorCode> {
        [Self::Add, Self::Delete, Self::Modify].into_iter().find(|reason| *reason as u8 == number).ok_or(BadRequest::BadLen.into())
    }
}

/// The body of OFPT_PORT_STATUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// What happened.
    pub reason: PortReason,
    /// To this port, as it is now, or was.
    pub port: PortDesc,
}

impl PortStatus {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let reason = PortReason::from_number(body.u8()?)?;
        body.skip(7)?;
        let port = PortDesc::decode(&mut body)?;
        body.finish()?;
        Ok(Self { reason, port })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.reason as u8);
        out.put_zeros(7);
        self.port.encode(out);
    }
}

/// The body of OFPT_PORT_MOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMod {
    /// The port.
    pub number: PortNo,
    /// Its MAC address, as a check.
    pub hw_addr: [u8; 6],
    /// What is wanted of it, where `mask` has ones.
    pub config: PortConfig,
    /// The bits of the configuration that change.
    pub mask: PortConfig,
    /// `OFPPF_*` to advertise; zero for no change.
    pub advertise: u32,
}

impl PortMod {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let number = PortNo(body.u32()?);
        body.skip(4)?;
        let hw_addr = body.array()?;
        body.skip(2)?;
        let (config, mask, advertise) = (PortConfig(body.u32()?), PortConfig(body.u32()?), body.u32()?);
        body.skip(4)?;
        body.finish()?;
        Ok(Self { number, hw_addr, config, mask, advertise })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.number.0);
        out.put_zeros(4);
        out.extend_from_slice(&self.hw_addr);
        out.put_zeros(2);
        out.put_u32(self.config.0);
        out.put_u32(self.mask.0);
        out.put_u32(self.advertise);
        out.put_zeros(4);
    }
}

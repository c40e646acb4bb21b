//! What a controller asks of the switch as a whole: features, configuration, roles and which asynchronous messages it wants
//! (OpenFlow 1.3.5, 7.3.1, 7.3.2, 7.3.9 and 7.3.10).

use super::bytes::{Put, Reader};
use super::error::{ErrorCode, RoleRequestFailed};

/// `OFPC_FLOW_STATS`, `OFPC_TABLE_STATS` and `OFPC_PORT_STATS`: the statistics this switch keeps.
pub const CAPABILITIES: u32 = 0b111;

/// The body of OFPT_FEATURES_REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The lower 48 bits are a MAC address, the upper 16 the implementer's.
    pub datapath_id: u64,
    /// Packets the switch can buffer.
    pub buffers: u32,
    /// Tables.
    pub tables: u8,
    /// Zero on a main connection.
    pub auxiliary_id: u8,
    /// `OFPC_*`.
    pub capabilities: u32,
}

impl Features {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (datapath_id, buffers, tables, auxiliary_id) = (body.u64()?, body.u32()?, body.u8()?, body.u8()?);
        body.skip(2)?;
        let capabilities = body.u32()?;
        body.skip(4)?;
        body.finish()?;
        Ok(Self { datapath_id, buffers, tables, auxiliary_id, capabilities })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.datapath_id);
        out.put_u32(self.buffers);
        out.put_u8(self.tables);
        out.put_u8(self.auxiliary_id);
        out.put_zeros(2);
        out.put_u32(self.capabilities);
        out.put_zeros(4);
    }
}

/// The body of OFPT_SET_CONFIG and OFPT_GET_CONFIG_REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `OFPC_FRAG_*`: how IP fragments are treated; zero for no special treatment.
    pub flags: u16,
    /// The most bytes of a frame that a packet-in carries when no action says otherwise; 0xffff for the whole frame.
    pub miss_send_len: u16,
}

impl Config {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let config = Self { flags: body.u16()?, miss_send_len: body.u16()? };
        body.finish()?;
        Ok(config)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.flags);
        out.put_u16(self.miss_send_len);
    }
}

/// A controller's role (`OFPCR_ROLE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Full access, as every controller has at first.
    Equal = 1,
    /// Full access, and at most one has it.
    Master = 2,
    /// Read only.
    Slave = 3,
}

/// The body of OFPT_ROLE_REQUEST and OFPT_ROLE_REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleMessage {
    /// The role asked for or had; `None` (`OFPCR_ROLE_NOCHANGE`) only asks.
    pub role: Option<Role>,
    /// Tells an old master from a new one.
    pub generation_id: u64,
}

impl RoleMessage {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let role = body.u32()?;
        body.skip(4)?;
        let generation_id = body.u64()?;
        body.finish()?;
        let role = match role {
            0 => None,
            1 => Some(Role::Equal),
            2 => Some(Role::Master),
            3 => Some(Role::Slave),
            _ => return Err(RoleRequestFailed::BadRole.into()),
        };
        Ok(Self { role, generation_id })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.role.map_or(0, |role| role as u32));
        out.put_zeros(4);
        out.put_u64(self.generation_id);
    }
}

/// Which asynchronous messages a controller gets (the body of OFPT_SET_ASYNC and OFPT_GET_ASYNC_REPLY): a bit per reason, first as
/// master or equal, then as slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Async {
    /// By the reason of a packet-in.
    pub packet_in: [u32; 2],
    /// By the reason of a port-status.
    pub port_status: [u32; 2],
    /// By the reason of a flow-removed.
    pub flow_removed: [u32; 2],
}

impl Async {
    /// What the standard gives a controller that has said nothing (and Open vSwitch: no invalid TTL): all as master or equal, port changes only as slave.
    pub const DEFAULT: Self = Self { packet_in: [0b11, 0], port_status: [0b111, 0b111], flow_removed: [0b1111, 0] };

    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let mut pair = || Ok::<_, ErrorCode>([body.u32()?, body.u32()?]);
        let masks = Self { packet_in: pair()?, port_status: pair()?, flow_removed: pair()? };
        body.finish()?;
        Ok(masks)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for mask in [self.packet_in, self.port_status, self.flow_removed].as_flattened() {
            out.put_u32(*mask);
        }
    }
}

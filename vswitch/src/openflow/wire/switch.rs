//! What a controller asks of the switch as a whole: features, configuration, roles, which asynchronous messages it wants, and how tables are configured
//! (OpenFlow 1.3.5, 7.3.1 to 7.3.3, 7.3.9 and 7.3.10).

use super::bytes::{Put, Reader};
use super::error::{ErrorCode, RoleRequestFailed};
use super::port::PortDesc;

/// `OFPC_FLOW_STATS`, `OFPC_TABLE_STATS`, `OFPC_PORT_STATS`, `OFPC_GROUP_STATS` and `OFPC_QUEUE_STATS`: the statistics this switch keeps.
pub const CAPABILITIES: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;

/// The body of OFPT_FEATURES_REPLY.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// All ports; only OpenFlow 1.0 names them here.
    pub ports: Vec<PortDesc>,
}

impl Features {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (datapath_id, buffers, tables, auxiliary_id) = (body.u64()?, body.u32()?, body.u8()?, body.u8()?);
        body.skip(2)?;
        let capabilities = body.u32()?;
        body.skip(4)?;
        body.finish()?;
        Ok(Self { datapath_id, buffers, tables, auxiliary_id, capabilities, ports: Vec::new() })
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

/// `OFPC_INVALID_TTL_TO_CONTROLLER`, a flag of a configuration that asks for frames whose TTL ran out: of OpenFlow 1.1, and in Open vSwitch of 1.0.
pub const INVALID_TTL_TO_CONTROLLER: u16 = 1 << 2;

/// The body of OFPT_SET_CONFIG and OFPT_GET_CONFIG_REPLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How IP fragments are treated, as [`FragmentHandling`] has it.
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

/// How IP fragments are treated (`OFPC_FRAG_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FragmentHandling {
    /// Like other frames: the first one has its transport ports, those that follow have none.
    Normal = 0,
    /// They are dropped.
    Drop = 1,
    /// Open vSwitch's name for what is normal here.
    Match = 3,
}

impl FragmentHandling {
    /// What these flags say. `None`: something that the switch can't do, which is to put fragments together.
    pub fn from_flags(flags: u16) -> Option<Self> {
        [Self::Normal, Self::Drop, Self::Match].into_iter().find(|handling| *handling as u16 == flags)
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
    /// Tells an old master from a new one; `None` in OpenFlow 1.0, which does not.
    pub generation_id: Option<u64>,
}

impl RoleMessage {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let role = body.u32()?;
        body.skip(4)?;
        let generation_id = Some(body.u64()?);
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
        out.put_u64(self.generation_id.unwrap_or(u64::MAX));
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

/// The body of OFPT_TABLE_MOD (OpenFlow 1.3.5, 7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableMod {
    /// The table, or 0xff for all.
    pub table: u8,
    /// Deprecated bits (`OFPTC_DEPRECATED_MASK`), without effect.
    pub config: u32,
}

impl TableMod {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let table = body.u8()?;
        body.skip(3)?;
        let config = body.u32()?;
        body.finish()?;
        Ok(Self { table, config })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.table);
        out.put_zeros(3);
        out.put_u32(self.config);
    }
}

//! What a controller asks of the switch as a whole: features and roles (OpenFlow 1.0, 5.3.1, and Nicira's NXT_ROLE_REQUEST).

use super::super::bytes::{Put, Reader};
use super::super::error::{ErrorCode, RoleRequestFailed};
use super::super::{Features, Role, RoleMessage};
use super::action;
use super::port::{DESC_LENGTH, decode_desc, put_desc};

/// The capabilities that both versions have in the same place: statistics of flows, tables, ports and queues, and reassembling fragments.
const SHARED_CAPABILITIES: u32 = 0b110_0111;
/// `OFPC_ARP_MATCH_IP`: rules can match the IP addresses in ARP.
const ARP_MATCH_IP: u32 = 1 << 7;

/// The ports that fit one message.
const MAX_PORTS: usize = (0xffff - 32) / DESC_LENGTH;

pub(super) fn decode_features(mut body: Reader) -> Result<Features, ErrorCode> {
    let (datapath_id, buffers, tables) = (body.u64()?, body.u32()?, body.u8()?);
    body.skip(3)?;
    let capabilities = body.u32()? & SHARED_CAPABILITIES;
    body.skip(4)?;
    let mut ports = Vec::new();
    while !body.is_empty() {
        ports.push(decode_desc(&mut body)?);
    }
    Ok(Features { datapath_id, buffers, tables, auxiliary_id: 0, capabilities, ports })
}

pub(super) fn put_features(out: &mut Vec<u8>, features: &Features) {
    out.put_u64(features.datapath_id);
    out.put_u32(features.buffers);
    out.put_u8(features.tables);
    out.put_zeros(3);
    out.put_u32(features.capabilities & SHARED_CAPABILITIES | ARP_MATCH_IP);
    out.put_u32(action::SUPPORTED);
    features.ports.iter().take(MAX_PORTS).for_each(|port| put_desc(out, port));
}

// NX_ROLE_*
const OTHER: u32 = 0;
const MASTER: u32 = 1;
const SLAVE: u32 = 2;

/// There is no generation, and no asking without being told.
pub(super) fn decode_role(mut body: Reader) -> Result<RoleMessage, ErrorCode> {
    let role = match body.u32()? {
        OTHER => Role::Equal,
        MASTER => Role::Master,
        SLAVE => Role::Slave,
        _ => return Err(RoleRequestFailed::BadRole.into()),
    };
    body.finish()?;
    Ok(RoleMessage { role: Some(role), generation_id: None })
}

pub(super) fn put_role(out: &mut Vec<u8>, message: &RoleMessage) {
    out.put_u32(match message.role {
        Some(Role::Master) => MASTER,
        Some(Role::Slave) => SLAVE,
        Some(Role::Equal) | None => OTHER,
    });
}

//! Changing a frame's headers, and the checksums that cover them.

use crate::drops::DropReason;
use crate::frame::{ETHERNET_HEADER, Frame};
use crate::key::Field;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Where the Ethernet type, or the outermost tag's TPID, lies.
const TYPE: usize = 12;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn is_tpid(ethernet_type: u16) -> bool {
    matches!(ethernet_type, 0x8100 | 0x88a8)
}

/// Pushes a tag outside of all others. It copies the outermost tag's VLAN and priority.
pub(super) fn push_vlan(frame: &mut Frame, tpid: u16) -> Result<(), DropReason> {
    let outer = u16_at(frame.head(), TYPE).ok_or(DropReason::NotApplicable)?;
    let tci = if is_tpid(outer) { u16_at(frame.head(), TYPE + 2).unwrap_or(0) } else { 0 };
    let tag = frame.insert(TYPE, 4).ok_or(DropReason::NotApplicable)?;
    tag[..2].copy_from_slice(&tpid.to_be_bytes());
    tag[2..].copy_from_slice(&tci.to_be_bytes());
    Ok(())
}

/// Pops the outermost tag.
pub(super) fn pop_vlan(frame: &mut Frame) -> Result<(), DropReason> {
    let tagged = u16_at(frame.head(), TYPE).is_some_and(is_tpid) && frame.head().len() >= ETHERNET_HEADER + 4;
    if tagged && frame.remove(TYPE, 4) { Ok(()) } else { Err(DropReason::NotApplicable) }
}

/// The type of what follows the Ethernet header and its tags.
fn network_type(frame: &Frame) -> Option<u16> {
    u16_at(frame.head(), usize::from(frame.layout.network).checked_sub(2)?)
}

/// The TTL or hop limit.
pub(super) fn ttl(frame: &Frame) -> Result<u8, DropReason> {
    let offset = match network_type(frame) {
        Some(IPV4) => 8,
        Some(IPV6) => 7,
        _ => return Err(DropReason::NotApplicable),
    };
    frame.head().get(usize::from(frame.layout.network) + offset).copied().ok_or(DropReason::NotApplicable)
}

/// Writes the bits `mask` of a field.
pub(super) fn set_field(_frame: &mut Frame, _field: Field, _value: u128, _mask: u128) -> Result<(), DropReason> {
    Err(DropReason::Unsupported)
}

//! Changing a frame's headers, and the checksums that cover them.
//!
//! A checksum is never computed anew: it is changed by what the change of a field changes in it (RFC 1624; for SCTP's CRC, which is linear, in
//! the same spirit). So the payload, which mostly is not here, is not read, a wrong checksum stays wrong, and UDP without a checksum
//! (RFC 768) stays without. While a transport checksum is still to be computed ([`Checksum::Partial`]), its field holds the sum of
//! the pseudo header: addresses change it, plainly added and not complemented, and nothing else does.

use super::Action;
use super::place::{Cover, Ip, NOT_APPLICABLE, Place, behind_ipv6, place, u16_at};
use crate::drops::DropReason;
use crate::frame::{Checksum, Frame};
use crate::key::Field;
use crate::key::vlan::PRESENT;
use crate::wire::checksum;
use crate::wire::ethernet::ethertype;
use crate::wire::ipv4::{Ipv4, proto};
use crate::wire::ipv6::{Ipv6, extensions, exthdr};
use crate::wire::sctp::Sctp;
use crate::wire::tcp::Tcp;

/// Does what routers do, if `action` is that: writes a whole Ethernet address, which no checksum covers, or decrements a TTL that does not run out. False, and
/// nothing done, if it is something else.
#[inline(always)]
pub(super) fn route(head: &mut [u8], network: usize, action: &Action) -> bool {
    match action {
        Action::Set { field, value, mask } => set_address(head, *field, *value, *mask),
        Action::DecTtl { .. } => decrement_ttl(head, network) == Ok(true),
        _ => false,
    }
}

/// Decrements the TTL or hop limit of the IP header at `network`. False, and nothing done, if it runs out.
#[inline(always)]
pub(super) fn decrement_ttl(head: &mut [u8], network: usize) -> Result<bool, DropReason> {
    let kind = network.checked_sub(2).and_then(|at| u16_at(head, at)).ok_or(NOT_APPLICABLE)?;
    let header = head.get_mut(network..).ok_or(NOT_APPLICABLE)?;
    match kind {
        ethertype::IPV4 => {
            let mut ip = Ipv4::new_checked_mut(header).filter(|ip| ip.header_len().is_some()).ok_or(NOT_APPLICABLE)?;
            if ip.ttl() <= 1 {
                return Ok(false);
            }
            // The TTL is the upper half of its word: the sum loses 0x0100 and the checksum gains it (RFC 1141).
            let (sum, carry) = ip.checksum().overflowing_add(0x0100);
            ip.set_checksum(sum + u16::from(carry));
            ip.set_ttl(ip.ttl() - 1);
        }
        ethertype::IPV6 => {
            let mut ip = Ipv6::new_checked_mut(header).filter(|ip| ip.version_class_label() >> 28 == 6).ok_or(NOT_APPLICABLE)?;
            if ip.hop_limit() <= 1 {
                return Ok(false);
            }
            ip.set_hop_limit(ip.hop_limit() - 1);
        }
        _ => return Err(NOT_APPLICABLE),
    }
    Ok(true)
}

/// Writes the bits `mask` of a field.
pub(super) fn set_field(frame: &mut Frame, field: Field, value: u128, mask: u128) -> Result<(), DropReason> {
    if set_address(frame.head_mut(), field, value, mask) { Ok(()) } else { set_any_field(frame, field, value, mask) }
}

/// Makes it more likely that a frame is dropped later on, if its DSCP is one of assured forwarding (RFC 2597): by so many of the three levels of its class.
pub(super) fn raise_drop_precedence(frame: &mut Frame, levels: u8) -> Result<(), DropReason> {
    let Some(dscp) = Ip::of(frame).map(|ip| ip.tos() >> 2) else { return Ok(()) };
    let (class, precedence) = (dscp >> 3, dscp >> 1 & 3);
    if dscp & 1 != 0 || !(1..=4).contains(&class) || precedence == 0 {
        return Ok(());
    }
    let raised = class << 3 | precedence.saturating_add(levels).min(3) << 1;
    set_field(frame, Field::IpDscp, raised.into(), Field::IpDscp.ones())
}

/// Writes a whole Ethernet address. False, and nothing done, if it is another field, or less.
#[inline(always)]
fn set_address(head: &mut [u8], field: Field, value: u128, mask: u128) -> bool {
    const WHOLE: u128 = (1 << 48) - 1;
    let Some(addresses) = head.first_chunk_mut::<12>() else { return false };
    let address = match field {
        Field::EthDst if mask == WHOLE => &mut addresses[..6],
        Field::EthSrc if mask == WHOLE => &mut addresses[6..],
        _ => return false,
    };
    address.copy_from_slice(&(value as u64).to_be_bytes()[2..]);
    true
}

fn set_any_field(frame: &mut Frame, field: Field, value: u128, mask: u128) -> Result<(), DropReason> {
    let Some(Place { at, len, shift, cover }) = place(frame, field)? else { return Ok(()) };
    let mask = match field {
        // In the frame, this bit is the tag's drop eligible indicator, which stays.
        Field::VlanVid | Field::VlanTci => mask & field.ones() & !u128::from(PRESENT),
        _ => mask & field.ones(),
    } << shift;
    let bytes = frame.head().get(at..at + len).ok_or(NOT_APPLICABLE)?;
    let old = bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    let new = old & !mask | value << shift & mask;
    if new == old {
        return Ok(());
    }
    // What can't follow the change is found before anything is written.
    match cover {
        Cover::None => {}
        Cover::Ipv4Header => update_ipv4_header(frame, old, new)?,
        Cover::Address { destination } => {
            if let Some(proto) = pseudo_header_of(frame, destination)? {
                update_transport(frame, proto, true, old, new)?;
            }
            if matches!(Ip::of(frame), Some(Ip::V4(_))) {
                update_ipv4_header(frame, old, new)?;
            }
        }
        Cover::Transport(proto::SCTP) => update_sctp(frame, at, new as u16)?,
        Cover::Transport(proto) => update_transport(frame, proto, false, old, new)?,
    }
    frame.head_mut()[at..at + len].copy_from_slice(&new.to_be_bytes()[16 - len..]);
    Ok(())
}

/// The transport protocol whose checksum covers an IP header's addresses, or only the destination. `None` if there is no such header: the frame
/// is a later fragment, another protocol, or cut short.
fn pseudo_header_of(frame: &Frame, destination: bool) -> Result<Option<u8>, DropReason> {
    let parsed = frame.layout.transport != 0;
    match Ip::of(frame).ok_or(NOT_APPLICABLE)? {
        Ip::V4(ip) => Ok(parsed.then_some(ip.proto())),
        Ip::V6(ip) => {
            let found = extensions(ip.next_header(), behind_ipv6(frame));
            if parsed {
                let routed = destination && found.seen & exthdr::ROUTER != 0 && is_routed(ip.next_header(), behind_ipv6(frame));
                return Ok(found.proto.filter(|_| !routed));
            }
            // Extension headers can be so long that a transport header is there, but can't be reached.
            let later = found.fragment.is_some_and(|offset| offset != 0);
            let reached = frame.head().len() == frame.len() || found.proto.is_some() && found.len + Tcp::LEN <= behind_ipv6(frame).len();
            if later || reached { Ok(None) } else { Err(NOT_APPLICABLE) }
        }
    }
}

/// Whether a routing header among IPv6's extension headers, all of which are there, has segments left. Then the header's destination is
/// not the one in the pseudo header (RFC 8200, 8.1).
fn is_routed(mut next: u8, mut headers: &[u8]) -> bool {
    while let Some(&[following, len, _, segments_left]) = headers.first_chunk() {
        let len = match next {
            proto::ROUTING if segments_left > 0 => return true,
            proto::HOP_BY_HOP | proto::DESTINATION | proto::ROUTING => (usize::from(len) + 1) * 8,
            proto::AUTH => (usize::from(len) + 2) * 4,
            proto::FRAGMENT => 8,
            _ => return false,
        };
        (next, headers) = (following, headers.get(len..).unwrap_or_default());
    }
    false
}

/// Updates the checksum of an IPv4 header, in which `old` becomes `new`.
fn update_ipv4_header(frame: &mut Frame, old: u128, new: u128) -> Result<(), DropReason> {
    let network = usize::from(frame.layout.network);
    let mut ip = frame.head_mut().get_mut(network..).and_then(Ipv4::new_checked_mut).ok_or(NOT_APPLICABLE)?;
    ip.set_checksum(checksum::update(ip.checksum(), old, new));
    Ok(())
}

/// Updates the checksum of the transport header, in which, or in whose pseudo header, `old` becomes `new`.
fn update_transport(frame: &mut Frame, proto: u8, pseudo: bool, old: u128, new: u128) -> Result<(), DropReason> {
    let offset = match proto {
        proto::TCP => 16,
        proto::UDP => 6,
        proto::ICMPV6 => 2,
        proto::ICMP if !pseudo => 2,
        _ => return Ok(()),
    };
    let start = frame.layout.transport;
    let partial = frame.offload.checksum == Checksum::Partial { start, offset };
    if partial && !pseudo {
        return Ok(());
    }
    let bytes = frame.head_mut().get_mut(usize::from(start) + usize::from(offset)..).ok_or(NOT_APPLICABLE)?;
    let bytes = bytes.first_chunk_mut::<2>().ok_or(NOT_APPLICABLE)?;
    let sum = u16::from_be_bytes(*bytes);
    let sum = match proto {
        _ if partial => checksum::update_sum(sum, old, new),
        proto::UDP => checksum::update_udp(sum, old, new),
        _ => checksum::update(sum, old, new),
    };
    *bytes = sum.to_be_bytes();
    Ok(())
}

/// Updates the CRC of an SCTP header for a port, at `port_at`, that becomes `port`. The CRC covers the whole packet, so how a port changes it depends on
/// how much follows: a first fragment does not say that, and is refused.
fn update_sctp(frame: &mut Frame, port_at: usize, port: u16) -> Result<(), DropReason> {
    let start = frame.layout.transport;
    if frame.offload.checksum == (Checksum::Partial { start, offset: 8 }) {
        return Ok(());
    }
    let at = usize::from(start);
    let ip = Ip::of(frame).filter(|ip| ip.fragment(frame).is_none()).ok_or(NOT_APPLICABLE)?;
    let len = match ip {
        Ip::V4(ip) => usize::from(ip.total_len()),
        Ip::V6(ip) => Ipv6::LEN + usize::from(ip.payload_len()),
    };
    let after = (usize::from(frame.layout.network) + len).checked_sub(at + 4).ok_or(NOT_APPLICABLE)?;
    let header = frame.head_mut().get_mut(at..).ok_or(NOT_APPLICABLE)?;
    let old = *header.first_chunk::<4>().ok_or(NOT_APPLICABLE)?;
    let mut new = old;
    new[port_at - at..][..2].copy_from_slice(&port.to_be_bytes());
    let mut sctp = Sctp::new_checked_mut(header).ok_or(NOT_APPLICABLE)?;
    let crc = checksum::update_crc32c(sctp.checksum().swap_bytes(), old, new, after);
    sctp.set_checksum(crc.swap_bytes());
    Ok(())
}

//! Changing a frame's headers, and the checksums that cover them.
//!
//! A checksum is never computed anew: it is changed by what the change of a field changes in it (RFC 1624). So the payload, which mostly is not
//! here, is not read, a wrong checksum stays wrong, and UDP without a checksum (RFC 768) stays without. While a transport checksum is
//! still to be computed ([`Checksum::Partial`]), its field holds the sum of the pseudo header: addresses change it, plainly added and not
//! complemented, and nothing else does.

use crate::drops::DropReason;
use crate::frame::{Checksum, ETHERNET_HEADER, Frame};
use crate::key::Field;
use crate::wire::arp::Arp;
use crate::wire::checksum;
use crate::wire::ethernet::ethertype;
use crate::wire::icmp::{Nd, SOURCE_LINK_LAYER, TARGET_LINK_LAYER, find_link_layer};
use crate::wire::ipv4::{FRAGMENT_OFFSET, Ipv4, MORE_FRAGMENTS, proto};
use crate::wire::ipv6::{Ipv6, extensions, exthdr};
use crate::wire::sctp::Sctp;

/// Where the Ethernet type, or the outermost tag's TPID, lies.
const TYPE: usize = 12;

/// What is returned for a frame that an action can't be applied to.
const NOT_APPLICABLE: DropReason = DropReason::NotApplicable;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn is_tagged(frame: &Frame) -> bool {
    u16_at(frame.head(), TYPE).is_some_and(ethertype::is_vlan) && frame.head().len() >= ETHERNET_HEADER + 4
}

/// Pushes a tag outside of all others. It copies the outermost tag's VLAN and priority.
pub(super) fn push_vlan(frame: &mut Frame, tpid: u16) -> Result<(), DropReason> {
    let tci = if is_tagged(frame) { u16_at(frame.head(), TYPE + 2).unwrap_or(0) } else { 0 };
    let tag = frame.insert(TYPE, 4).ok_or(NOT_APPLICABLE)?;
    tag[..2].copy_from_slice(&tpid.to_be_bytes());
    tag[2..].copy_from_slice(&tci.to_be_bytes());
    Ok(())
}

/// Pops the outermost tag.
pub(super) fn pop_vlan(frame: &mut Frame) -> Result<(), DropReason> {
    if is_tagged(frame) && frame.remove(TYPE, 4) { Ok(()) } else { Err(NOT_APPLICABLE) }
}

/// The TTL or hop limit.
pub(super) fn ttl(frame: &Frame) -> Result<u8, DropReason> {
    let offset = match network_type(frame) {
        Some(ethertype::IPV4) => 8,
        Some(ethertype::IPV6) => 7,
        _ => return Err(NOT_APPLICABLE),
    };
    frame.head().get(usize::from(frame.layout.network) + offset).copied().ok_or(NOT_APPLICABLE)
}

/// Writes the bits `mask` of a field.
pub(super) fn set_field(frame: &mut Frame, field: Field, value: u128, mask: u128) -> Result<(), DropReason> {
    let Some(Place { at, len, shift, cover }) = place(frame, field)? else { return Ok(()) };
    let mask = match field {
        // Bit 12 of the flow's TCI says that there is a tag; in the frame it is the tag's drop eligible indicator, which stays.
        Field::VlanVid | Field::VlanTci => mask & field.ones() & !0x1000,
        _ => mask & field.ones(),
    } << shift;
    let bytes = frame.head().get(at..at + len).ok_or(NOT_APPLICABLE)?;
    let old = bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    let new = old & !mask | value << shift & mask;
    if new == old {
        return Ok(());
    }
    let change = Change { old, new };
    // What can't follow the change is found before anything is written.
    match cover {
        Cover::None => {}
        Cover::Ipv4Header => update_ipv4_header(frame, change)?,
        Cover::Address { destination } => {
            if let Some(upper) = upper_layer(frame)?
                && !(destination && upper.routed)
            {
                update_transport(frame, upper.proto, upper.at, change, true)?;
            }
            if network_type(frame) == Some(ethertype::IPV4) {
                update_ipv4_header(frame, change)?;
            }
        }
        Cover::Transport(proto::SCTP) => update_sctp(frame, usize::from(frame.layout.transport), at, new as u16)?,
        Cover::Transport(proto) => update_transport(frame, proto, usize::from(frame.layout.transport), change, false)?,
    }
    frame.head_mut()[at..at + len].copy_from_slice(&new.to_be_bytes()[16 - len..]);
    Ok(())
}

/// What a change does to the bytes of a [`Place`].
#[derive(Clone, Copy)]
struct Change {
    old: u128,
    new: u128,
}

/// A run of bytes of the head, an even number of them, that a field lies in.
struct Place {
    /// The first byte, at an even distance from the start of its header.
    at: usize,
    len: usize,
    /// How far the field lies from the low end of these bytes.
    shift: u32,
    cover: Cover,
}

/// The checksums that cover a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cover {
    None,
    /// That of the IPv4 header.
    Ipv4Header,
    /// By the pseudo header, that of the transport; and that of an IPv4 header.
    Address {
        destination: bool,
    },
    /// That of the transport, which has this IP protocol number.
    Transport(u8),
}

/// Where a field lies. `None` if the frame just does not have it, as a later fragment has no ports; an error if it should have it.
fn place(frame: &Frame, field: Field) -> Result<Option<Place>, DropReason> {
    use Field::*;
    let (network, transport) = (usize::from(frame.layout.network), usize::from(frame.layout.transport));
    let is_ipv4 = network_type(frame) == Some(ethertype::IPV4);
    let ip_header = if is_ipv4 { Cover::Ipv4Header } else { Cover::None };
    let place = |at, len, shift, cover| Place { at, len, shift, cover };
    let found = match field {
        EthDst => place(0, 6, 0, Cover::None),
        EthSrc => place(6, 6, 0, Cover::None),
        VlanVid | VlanPcp | VlanTci if !is_tagged(frame) => return Ok(None),
        VlanVid | VlanTci => place(TYPE + 2, 2, 0, Cover::None),
        VlanPcp => place(TYPE + 2, 2, 13, Cover::None),
        IpDscp => place(network, 2, if is_ipv4 { 2 } else { 6 }, ip_header),
        IpEcn | NwTos => place(network, 2, if is_ipv4 { 0 } else { 4 }, ip_header),
        NwTtl if is_ipv4 => place(network + 8, 2, 8, ip_header),
        NwTtl => place(network + 6, 2, 0, ip_header),
        Ipv4Src => place(network + 12, 4, 0, Cover::Address { destination: false }),
        Ipv4Dst => place(network + 16, 4, 0, Cover::Address { destination: true }),
        Ipv6Src => place(network + 8, 16, 0, Cover::Address { destination: false }),
        Ipv6Dst => place(network + 24, 16, 0, Cover::Address { destination: true }),
        Ipv6Label => place(network, 4, 0, Cover::None),
        ArpOp | ArpSha | ArpSpa | ArpTha | ArpTpa if !is_arp(frame) => return Ok(None),
        ArpOp => place(network + 6, 2, 0, Cover::None),
        ArpSha => place(network + 8, 6, 0, Cover::None),
        ArpSpa => place(network + 14, 4, 0, Cover::None),
        ArpTha => place(network + 18, 6, 0, Cover::None),
        ArpTpa => place(network + 24, 4, 0, Cover::None),
        MplsLabel => place(network, 4, 12, Cover::None),
        MplsTc => place(network, 4, 9, Cover::None),
        MplsTtl => place(network, 4, 0, Cover::None),
        PbbUca => place(network, 4, 27, Cover::None),
        PbbIsid => place(network, 4, 0, Cover::None),
        TcpSrc | UdpSrc | SctpSrc | TcpDst | UdpDst | SctpDst | IcmpType | IcmpCode | Icmpv6Type | Icmpv6Code | NdTarget | NdSll
        | NdTll => {
            if transport == 0 {
                return if is_later_fragment(frame) { Ok(None) } else { Err(NOT_APPLICABLE) };
            }
            match field {
                TcpSrc => place(transport, 2, 0, Cover::Transport(proto::TCP)),
                TcpDst => place(transport + 2, 2, 0, Cover::Transport(proto::TCP)),
                UdpSrc => place(transport, 2, 0, Cover::Transport(proto::UDP)),
                UdpDst => place(transport + 2, 2, 0, Cover::Transport(proto::UDP)),
                SctpSrc => place(transport, 2, 0, Cover::Transport(proto::SCTP)),
                SctpDst => place(transport + 2, 2, 0, Cover::Transport(proto::SCTP)),
                IcmpType => place(transport, 2, 8, Cover::Transport(proto::ICMP)),
                IcmpCode => place(transport, 2, 0, Cover::Transport(proto::ICMP)),
                Icmpv6Type => place(transport, 2, 8, Cover::Transport(proto::ICMPV6)),
                Icmpv6Code => place(transport, 2, 0, Cover::Transport(proto::ICMPV6)),
                NdTarget => place(transport + 8, 16, 0, Cover::Transport(proto::ICMPV6)),
                _ => {
                    let options = transport + Nd::LEN;
                    let kind = if field == NdSll { SOURCE_LINK_LAYER } else { TARGET_LINK_LAYER };
                    match find_link_layer(frame.head().get(options..).ok_or(NOT_APPLICABLE)?, kind) {
                        Some(option) => place(options + option + 2, 6, 0, Cover::Transport(proto::ICMPV6)),
                        None => return Ok(None),
                    }
                }
            }
        }
        _ => return Err(NOT_APPLICABLE),
    };
    Ok(Some(found))
}

/// The type of what follows the Ethernet header and its tags.
fn network_type(frame: &Frame) -> Option<u16> {
    u16_at(frame.head(), usize::from(frame.layout.network).checked_sub(2)?)
}

/// Whether it is ARP for IPv4 over Ethernet; that of other protocols has no field that a flow knows.
fn is_arp(frame: &Frame) -> bool {
    behind(frame, frame.layout.network).and_then(Arp::new_checked).is_some_and(|arp| arp.kind() == Arp::ETHERNET_IPV4)
}

/// The head from one of its layout's offsets on.
fn behind(frame: &Frame, offset: u16) -> Option<&[u8]> {
    frame.head().get(usize::from(offset)..)
}

/// Whether it is a fragment other than the first, which begins with no transport header.
fn is_later_fragment(frame: &Frame) -> bool {
    let Some(network) = behind(frame, frame.layout.network) else { return false };
    match network_type(frame) {
        Some(ethertype::IPV4) => Ipv4::new_checked(network).is_some_and(|ip| ip.flags_offset() & FRAGMENT_OFFSET != 0),
        Some(ethertype::IPV6) => Ipv6::new_checked(network)
            .is_some_and(|ip| extensions(ip.next_header(), &network[Ipv6::LEN..]).fragment.is_some_and(|offset| offset != 0)),
        _ => false,
    }
}

/// What the addresses of an IP header count for, in a pseudo header.
struct Upper {
    proto: u8,
    /// Where its header begins.
    at: usize,
    /// A routing header is yet to replace the destination.
    routed: bool,
}

/// The upper layer of an IP frame. `None` if there is none whose checksum could be here.
fn upper_layer(frame: &Frame) -> Result<Option<Upper>, DropReason> {
    let start = usize::from(frame.layout.network);
    let network = behind(frame, frame.layout.network).ok_or(NOT_APPLICABLE)?;
    if network_type(frame) == Some(ethertype::IPV4) {
        let ip = Ipv4::new_checked(network).ok_or(NOT_APPLICABLE)?;
        let header_len = ip.header_len().ok_or(NOT_APPLICABLE)?;
        let later = ip.flags_offset() & FRAGMENT_OFFSET != 0;
        return Ok((!later).then_some(Upper { proto: ip.proto(), at: start + header_len, routed: false }));
    }
    let ip = Ipv6::new_checked(network).ok_or(NOT_APPLICABLE)?;
    let found = extensions(ip.next_header(), &network[Ipv6::LEN..]);
    match found.proto {
        _ if found.fragment.is_some_and(|offset| offset != 0) => Ok(None),
        Some(proto) => {
            let routed = found.seen & exthdr::ROUTER != 0 && is_routed(ip.next_header(), &network[Ipv6::LEN..]);
            Ok(Some(Upper { proto, at: start + Ipv6::LEN + found.len, routed }))
        }
        // Headers that end with the frame have nothing behind them. But if they end with the head, there may be something.
        None if frame.head().len() == frame.len() => Ok(None),
        None => Err(NOT_APPLICABLE),
    }
}

/// Whether a routing header among IPv6's extension headers, all of which are there, has segments left.
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

fn update_ipv4_header(frame: &mut Frame, change: Change) -> Result<(), DropReason> {
    let network = usize::from(frame.layout.network);
    let mut ip = frame.head_mut().get_mut(network..).and_then(Ipv4::new_checked_mut).ok_or(NOT_APPLICABLE)?;
    ip.set_checksum(checksum::update(ip.checksum(), change.old, change.new));
    Ok(())
}

/// Updates the checksum of the transport header at `at`; `pseudo` says that the change is one of the pseudo header.
fn update_transport(frame: &mut Frame, proto: u8, at: usize, change: Change, pseudo: bool) -> Result<(), DropReason> {
    let offset = match proto {
        proto::TCP => 16,
        proto::UDP => 6,
        proto::ICMPV6 => 2,
        proto::ICMP if !pseudo => 2,
        _ => return Ok(()),
    };
    let partial = frame.offload.checksum == Checksum::Partial { start: at as u16, offset };
    if partial && !pseudo {
        return Ok(());
    }
    let whole = frame.head().len() == frame.len();
    let field = at + usize::from(offset);
    let Some(bytes) = frame.head_mut().get_mut(field..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
        // If the frame ends before its checksum, there is nothing to update. If only the head does, it can't be reached.
        return if whole { Ok(()) } else { Err(NOT_APPLICABLE) };
    };
    let old = u16::from_be_bytes(*bytes);
    let Change { old: from, new: to } = change;
    let new = match proto {
        _ if partial => checksum::update_sum(old, from, to),
        proto::UDP => checksum::update_udp(old, from, to),
        _ => checksum::update(old, from, to),
    };
    *bytes = new.to_be_bytes();
    Ok(())
}

/// Updates the CRC of an SCTP header at `at` for a port, at `port_at`, that becomes `port`. The CRC covers the whole packet, so how a port changes
/// it depends on how much follows: a first fragment does not say that, and is refused.
fn update_sctp(frame: &mut Frame, at: usize, port_at: usize, port: u16) -> Result<(), DropReason> {
    if frame.offload.checksum == (Checksum::Partial { start: at as u16, offset: 8 }) {
        return Ok(());
    }
    let network = behind(frame, frame.layout.network).ok_or(NOT_APPLICABLE)?;
    let end = match network_type(frame) {
        Some(ethertype::IPV4) => {
            let ip = Ipv4::new_checked(network).ok_or(NOT_APPLICABLE)?;
            (ip.flags_offset() & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == 0).then_some(usize::from(ip.total_len()))
        }
        Some(ethertype::IPV6) => {
            let ip = Ipv6::new_checked(network).ok_or(NOT_APPLICABLE)?;
            let is_fragment = extensions(ip.next_header(), &network[Ipv6::LEN..]).fragment.is_some();
            (!is_fragment).then_some(Ipv6::LEN + usize::from(ip.payload_len()))
        }
        _ => None,
    };
    let end = usize::from(frame.layout.network) + end.ok_or(NOT_APPLICABLE)?;
    let after = end.checked_sub(at + 4).ok_or(NOT_APPLICABLE)?;
    let header = frame.head_mut().get_mut(at..).ok_or(NOT_APPLICABLE)?;
    let old = *header.first_chunk::<4>().ok_or(NOT_APPLICABLE)?;
    let mut new = old;
    new[port_at - at..][..2].copy_from_slice(&port.to_be_bytes());
    let mut sctp = Sctp::new_checked_mut(header).ok_or(NOT_APPLICABLE)?;
    let crc = checksum::update_crc32c(sctp.checksum().swap_bytes(), old, new, after);
    sctp.set_checksum(crc.swap_bytes());
    Ok(())
}

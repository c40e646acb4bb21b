//! From the bytes of a frame to its flow key.
//!
//! A key says what is certain and no more. A header is read if all of its fixed part is in the head; a transport header, if it lies within the
//! IP datagram and the datagram within the frame. What is left out is zero: the words after the first header that is cut short,
//! contradicts itself or lies beyond the head (a chain of IPv6 extension headers may be longer than that: then even the protocol is
//! unknown).

use super::{FlowKey, fragment, vlan};
use crate::frame::{Frame, Layout};
use crate::port::PortNo;
use crate::wire::arp::Arp;
use crate::wire::ethernet::{Ethernet, Snap, ethertype};
use crate::wire::icmp::{self, Icmp, Nd};
use crate::wire::ipv4::{self, Ipv4, proto};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mpls::{self, Mpls};
use crate::wire::pbb::{self, Pbb};
use crate::wire::sctp::Sctp;
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::Udp;
use crate::wire::vlan::VlanTag;

/// Writes the flow key of a frame, `frame_len` bytes long, that came in through `in_port` and begins with `head`. Returns where its headers
/// are, or `None` if it is shorter than an Ethernet header.
#[inline]
pub fn extract(head: &[u8], frame_len: usize, in_port: PortNo, key: &mut FlowKey) -> Option<Layout> {
    if let Some(layout) = extract_usual(head, frame_len, in_port, key) {
        return Some(layout);
    }
    extract_any(head, frame_len, in_port, key)
}

/// The bytes of the usual frame up to its transport header, and the ports: no VLAN tag, an IPv4 header without options.
const USUAL: usize = Ethernet::LEN + Ipv4::LEN + 4;

/// Does what [`extract_any`] does with nearly all frames that nearly all guests send, in three fifths of the instructions: TCP or UDP, whole, over IPv4
/// without options, untagged. `None`, with nothing written, if this is no such frame.
#[inline(always)]
fn extract_usual(head: &[u8], frame_len: usize, in_port: PortNo, key: &mut FlowKey) -> Option<Layout> {
    const VERSION_AND_LENGTH: u8 = 0x45;
    let bytes: &[u8; USUAL] = head.first_chunk()?;
    let word = |at: usize| u64::from_be_bytes(*bytes[at..].first_chunk().expect("a word of a header"));
    // From the source address to the type; from the total length to the protocol.
    let (src_and_kind, ip) = (word(6), word(16));
    let (total_len, fragment) = ((ip >> 48) as usize, ip as u32 >> 16 & u32::from(ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET));
    if src_and_kind as u16 != ethertype::IPV4
        || bytes[Ethernet::LEN] != VERSION_AND_LENGTH
        || fragment != 0
        || Ethernet::LEN + total_len > frame_len
    {
        return None;
    }
    let segment = head.get(Ethernet::LEN + Ipv4::LEN..head.len().min(Ethernet::LEN + total_len))?;
    let flags = match ip as u8 {
        proto::UDP => Udp::new_checked(segment).map(|_| 0)?,
        proto::TCP => Tcp::new_checked(segment).map(|tcp| tcp.offset_flags() & tcp::FLAGS)?,
        _ => return None,
    };
    let ports = word(USUAL - 8) << 32;
    *key = FlowKey::ZERO;
    key.0[..6].copy_from_slice(&[
        u64::from(in_port.0) << 32,
        word(0) & !0xffff | u64::from(ethertype::IPV4),
        src_and_kind & !0xffff,
        network_word(0, ip as u8, bytes[Ethernet::LEN + 1], (ip >> 8) as u8),
        word(Ethernet::LEN + 12),
        ports | u64::from(flags) << 16,
    ]);
    Some(Layout { network: Ethernet::LEN as u16, transport: (Ethernet::LEN + Ipv4::LEN) as u16 })
}

/// The whole of [`extract()`].
fn extract_any(head: &[u8], frame_len: usize, in_port: PortNo, key: &mut FlowKey) -> Option<Layout> {
    let ethernet = Ethernet::new_checked(head)?;
    *key = FlowKey::ZERO;
    key.0[0] = u64::from(in_port.0) << 32;
    let mut kind = ethernet.ethertype();
    let mut network = Ethernet::LEN;
    let tci = if ethertype::is_vlan(kind) { tags(head, key, &mut kind, &mut network) } else { 0 };
    if kind < ethertype::MIN {
        kind = ethertype::NONE;
        if let Some(snap) = head.get(network..).and_then(Snap::new_checked)
            && snap.llc_and_oui() == Snap::RFC1042
            && snap.ethertype() >= ethertype::MIN
        {
            kind = snap.ethertype();
            network += Snap::LEN;
        }
    }
    key.0[1] = ethernet.dst() << 16 | u64::from(kind);
    key.0[2] = ethernet.src() << 16 | u64::from(tci);
    let datagram = head.get(network..).unwrap_or_default();
    let len = frame_len.saturating_sub(network);
    let transport = match kind {
        ethertype::IPV4 => extract_ipv4(datagram, len, key),
        ethertype::IPV6 => extract_ipv6(datagram, len, key),
        _ => {
            extract_other(kind, datagram, key);
            None
        }
    };
    Some(Layout { network: network as u16, transport: transport.map_or(0, |offset| (network + offset) as u16) })
}

/// Whether the key of a frame is that of the one before it, which was extracted: all that goes into a key is the same, seen without
/// taking the frame apart. A no means nothing. Only IPv4 without tags and options is looked at.
#[inline(always)]
pub fn continues(frame: &Frame, before: &Frame) -> bool {
    const LAYOUT: Layout = Layout { network: Ethernet::LEN as u16, transport: (Ethernet::LEN + Ipv4::LEN) as u16 };
    // Up to the flags of a TCP header. What goes into the key of any other protocol ends sooner.
    const END: usize = Ethernet::LEN + Ipv4::LEN + 14;
    let (Some(bytes), Some(others)) = (frame.head().first_chunk::<END>(), before.head().first_chunk::<END>()) else { return false };
    let differing = |at: usize| {
        let word = |bytes: &[u8; END]| u64::from_be_bytes(*bytes[at..].first_chunk().expect("a word of a header"));
        word(bytes) ^ word(others)
    };
    // All but the identification and the checksum of the IP header, and of TCP nothing but ports and flags.
    let tcp = if bytes[Ethernet::LEN + 9] == proto::TCP { differing(END - 8) & u64::from(tcp::FLAGS) } else { 0 };
    before.layout == LAYOUT
        && (frame.len(), frame.head().len(), frame.in_port) == (before.len(), before.head().len(), before.in_port)
        && differing(0) | differing(8) | differing(16) & 0xffff_0000_ffff_ffff | differing(26) | differing(30) | tcp == 0
}

/// The same for a frame of a batch, which is told its layout. False if it is shorter than an Ethernet header.
#[inline]
pub fn extract_frame(frame: &mut Frame, key: &mut FlowKey) -> bool {
    let layout = extract(frame.head(), frame.len(), frame.in_port, key);
    frame.layout = layout.unwrap_or_default();
    layout.is_some()
}

/// Up to two VLAN tags. Moves `network` behind them, and `kind` to the Ethernet type there. Returns the outer one's TCI as the key has it.
#[cold]
fn tags(head: &[u8], key: &mut FlowKey, kind: &mut u16, network: &mut usize) -> u16 {
    let mut tag = || {
        // A tag begins with the type that announced it; the type of what follows must be there too.
        let tag = VlanTag::new_checked(head.get(*network - 2..)?).filter(|tag| ethertype::is_vlan(tag.tpid()))?;
        *kind = u16::from_be_bytes(*head.get(*network + 2..)?.first_chunk()?);
        *network += VlanTag::LEN;
        Some(vlan::Tag::new(tag.tpid(), tag.tci()))
    };
    let outer = tag();
    let inner = outer.and_then(|_| tag());
    key.0[vlan::INNER_WORD] = vlan::inner_word(outer, inner);
    outer.map_or(0, |outer| outer.tci)
}

/// Returns the offset of the transport header in `datagram`, the part in the head of the `len` bytes behind the Ethernet header.
#[inline(always)]
fn extract_ipv4(datagram: &[u8], len: usize, key: &mut FlowKey) -> Option<usize> {
    let ip = Ipv4::new_checked(datagram)?;
    let header_len = ip.header_len()?;
    let fragment = match ip.flags_offset() & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) {
        0 => 0,
        ipv4::MORE_FRAGMENTS => fragment::ANY,
        _ => fragment::ANY | fragment::LATER,
    };
    key.0[3] |= network_word(fragment, ip.proto(), ip.tos(), ip.ttl());
    key.0[4] = u64::from(ip.src()) << 32 | u64::from(ip.dst());
    let total_len = usize::from(ip.total_len());
    if fragment & fragment::LATER != 0 || total_len > len {
        return None;
    }
    let segment = datagram.get(header_len..total_len.min(datagram.len()))?;
    let found = match ip.proto() {
        proto::ICMP if segment.len() < icmp::ICMPV4_MIN => None,
        proto::ICMP => extract_icmp(segment, key),
        other => extract_transport(other, segment, key),
    };
    found.map(|()| header_len)
}

/// Returns the offset of the transport header in `datagram`, the part in the head of the `len` bytes behind the Ethernet header.
fn extract_ipv6(datagram: &[u8], len: usize, key: &mut FlowKey) -> Option<usize> {
    let ip = Ipv6::new_checked(datagram).filter(|ip| ip.version_class_label() >> 28 == 6)?;
    let total_len = Ipv6::LEN + usize::from(ip.payload_len());
    let payload = datagram.get(Ipv6::LEN..total_len.min(datagram.len()))?;
    let extensions = match ip.next_header() {
        next @ (proto::TCP | proto::UDP | proto::ICMPV6) => ipv6::Extensions { proto: Some(next), ..Default::default() },
        next => ipv6::extensions(next, payload),
    };
    let fragment = match extensions.fragment {
        None => 0,
        Some(0) => fragment::ANY,
        Some(_) => fragment::ANY | fragment::LATER,
    };
    key.0[3] |= network_word(fragment, extensions.proto.unwrap_or_default(), ip.traffic_class(), ip.hop_limit());
    (key.0[8], key.0[9]) = ((ip.src() >> 64) as u64, ip.src() as u64);
    (key.0[10], key.0[11]) = ((ip.dst() >> 64) as u64, ip.dst() as u64);
    key.0[14] = u64::from(ip.flow_label()) << 32 | u64::from(extensions.seen) << 16;
    if fragment & fragment::LATER != 0 || total_len > len {
        return None;
    }
    let segment = payload.get(extensions.len..)?;
    let found = match extensions.proto? {
        proto::ICMPV6 => extract_icmp(segment, key).inspect(|()| extract_nd(segment, key)),
        other => extract_transport(other, segment, key),
    };
    found.map(|()| Ipv6::LEN + extensions.len)
}

/// The low half of the word that IP shares with the inner VLAN tag.
#[inline(always)]
fn network_word(fragment: u8, proto: u8, tos: u8, ttl: u8) -> u64 {
    u64::from(u32::from_be_bytes([fragment, proto, tos, ttl]))
}

/// TCP, UDP and SCTP.
#[inline(always)]
fn extract_transport(protocol: u8, segment: &[u8], key: &mut FlowKey) -> Option<()> {
    let (src, dst, flags) = match protocol {
        proto::TCP => Tcp::new_checked(segment).map(|tcp| (tcp.src(), tcp.dst(), tcp.offset_flags() & tcp::FLAGS))?,
        proto::UDP => Udp::new_checked(segment).map(|udp| (udp.src(), udp.dst(), 0))?,
        proto::SCTP => Sctp::new_checked(segment).map(|sctp| (sctp.src(), sctp.dst(), 0))?,
        _ => return None,
    };
    key.0[5] = u64::from(src) << 48 | u64::from(dst) << 32 | u64::from(flags) << 16;
    Some(())
}

/// ICMP and ICMPv6.
fn extract_icmp(message: &[u8], key: &mut FlowKey) -> Option<()> {
    let icmp = Icmp::new_checked(message)?;
    key.0[5] = u64::from(icmp.kind()) << 48 | u64::from(icmp.code()) << 32;
    Some(())
}

/// Neighbour discovery, whatever the code: OpenFlow asks for the type only (1.3.5, table 12).
fn extract_nd(message: &[u8], key: &mut FlowKey) {
    let Some(nd) = Nd::new_checked(message) else {
        return;
    };
    let (option, word) = match nd.kind() {
        icmp::NEIGHBOR_SOLICITATION => (icmp::SOURCE_LINK_LAYER, 6),
        icmp::NEIGHBOR_ADVERTISEMENT => (icmp::TARGET_LINK_LAYER, 7),
        _ => return,
    };
    (key.0[12], key.0[13]) = ((nd.target() >> 64) as u64, nd.target() as u64);
    let options = &message[Nd::LEN..];
    if let Some(found) = icmp::find_link_layer(options, option).and_then(|at| icmp::LinkLayerAddress::new_checked(&options[at..])) {
        key.0[word] = found.address() << 16;
    }
}

/// What is neither IPv4 nor IPv6.
#[cold]
fn extract_other(kind: u16, datagram: &[u8], key: &mut FlowKey) {
    match kind {
        ethertype::ARP | ethertype::RARP => {
            if let Some(arp) = Arp::new_checked(datagram).filter(|arp| arp.kind() == Arp::ETHERNET_IPV4) {
                key.0[4] = u64::from(arp.spa()) << 32 | u64::from(arp.tpa());
                key.0[5] = u64::from(arp.op());
                key.0[6] = arp.sha() << 16;
                key.0[7] = arp.tha() << 16;
            }
        }
        ethertype::MPLS | ethertype::MPLS_MULTICAST => {
            let entries = datagram.chunks_exact(Mpls::LEN).take(3).map_while(Mpls::new_checked).map(|mpls| mpls.entry());
            for (i, entry) in entries.enumerate() {
                key.0[15 + i / 2] |= u64::from(entry) << (32 - i % 2 * 32);
                if entry & mpls::BOTTOM_OF_STACK != 0 {
                    break;
                }
            }
        }
        ethertype::PBB => {
            if let Some(pbb) = Pbb::new_checked(datagram) {
                key.0[16] = u64::from(pbb.tci() & pbb::UCA != 0) << 24 | u64::from(pbb.tci() & pbb::ISID);
            }
        }
        _ => (),
    }
}

#[cfg(test)]
mod tests;

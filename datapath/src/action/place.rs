//! Where a field lies in a frame, and which checksums cover it.

use crate::drops::DropReason;
use crate::frame::{ETHERNET_HEADER, Frame};
use crate::key::Field;
use crate::wire::arp::Arp;
use crate::wire::ethernet::ethertype;
use crate::wire::icmp::{Nd, SOURCE_LINK_LAYER, TARGET_LINK_LAYER, find_link_layer};
use crate::wire::ipv4::{FRAGMENT_OFFSET, Ipv4, MORE_FRAGMENTS, proto};
use crate::wire::ipv6::{Ipv6, extensions};

/// Where the Ethernet type, or the outermost tag's TPID, lies.
pub(super) const TYPE: usize = 12;

/// What is returned for a frame that an action can't be applied to.
pub(super) const NOT_APPLICABLE: DropReason = DropReason::NotApplicable;

/// A run of bytes of the head, an even number of them, that a field lies in.
pub(super) struct Place {
    /// The first byte, at an even distance from the start of its header.
    pub at: usize,
    pub len: usize,
    /// How far the field lies from the low end of these bytes.
    pub shift: u32,
    pub cover: Cover,
}

/// The checksums that cover a field.
#[derive(Clone, Copy)]
pub(super) enum Cover {
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
pub(super) fn place(frame: &Frame, field: Field) -> Result<Option<Place>, DropReason> {
    use Field::*;
    let network = usize::from(frame.layout.network);
    let (at, len, shift) = match field {
        EthDst => (0, 6, 0),
        EthSrc => (6, 6, 0),
        VlanVid | VlanPcp | VlanTci if !is_tagged(frame) => return Ok(None),
        VlanVid | VlanTci => (TYPE + 2, 2, 0),
        VlanPcp => (TYPE + 2, 2, 13),
        ArpOp | ArpSha | ArpSpa | ArpTha | ArpTpa if !is_arp(frame) => return Ok(None),
        ArpOp => (network + 6, 2, 0),
        ArpSha => (network + 8, 6, 0),
        ArpSpa => (network + 14, 4, 0),
        ArpTha => (network + 18, 6, 0),
        ArpTpa => (network + 24, 4, 0),
        MplsLabel => (network, 4, 12),
        MplsTc => (network, 4, 9),
        MplsTtl => (network, 4, 0),
        PbbUca => (network, 4, 27),
        PbbIsid => (network, 4, 0),
        IpDscp | IpEcn | NwTos | NwTtl | Ipv4Src | Ipv4Dst | Ipv6Src | Ipv6Dst | Ipv6Label => return ip_place(frame, field).map(Some),
        _ if frame.layout.transport != 0 => return transport_place(frame, field),
        _ if is_later_fragment(frame) => return Ok(None),
        _ => return Err(NOT_APPLICABLE),
    };
    Ok(Some(Place { at, len, shift, cover: Cover::None }))
}

/// Where a field of an IP header lies.
fn ip_place(frame: &Frame, field: Field) -> Result<Place, DropReason> {
    use Field::*;
    let (offset, len, shift, cover) = match (Ip::of(frame).ok_or(NOT_APPLICABLE)?, field) {
        (Ip::V4(_), IpDscp) => (0, 2, 2, Cover::Ipv4Header),
        (Ip::V4(_), IpEcn | NwTos) => (0, 2, 0, Cover::Ipv4Header),
        (Ip::V4(_), NwTtl) => (8, 2, 8, Cover::Ipv4Header),
        (Ip::V4(_), Ipv4Src) => (12, 4, 0, Cover::Address { destination: false }),
        (Ip::V4(_), Ipv4Dst) => (16, 4, 0, Cover::Address { destination: true }),
        (Ip::V6(_), IpDscp) => (0, 2, 6, Cover::None),
        (Ip::V6(_), IpEcn | NwTos) => (0, 2, 4, Cover::None),
        (Ip::V6(_), Ipv6Label) => (0, 4, 0, Cover::None),
        (Ip::V6(_), NwTtl) => (6, 2, 0, Cover::None),
        (Ip::V6(_), Ipv6Src) => (8, 16, 0, Cover::Address { destination: false }),
        (Ip::V6(_), Ipv6Dst) => (24, 16, 0, Cover::Address { destination: true }),
        _ => return Err(NOT_APPLICABLE),
    };
    Ok(Place { at: usize::from(frame.layout.network) + offset, len, shift, cover })
}

/// Where a field of a transport header lies, which there is.
fn transport_place(frame: &Frame, field: Field) -> Result<Option<Place>, DropReason> {
    use Field::*;
    let transport = usize::from(frame.layout.transport);
    let (offset, len, shift, proto) = match field {
        TcpSrc => (0, 2, 0, proto::TCP),
        TcpDst => (2, 2, 0, proto::TCP),
        UdpSrc => (0, 2, 0, proto::UDP),
        UdpDst => (2, 2, 0, proto::UDP),
        SctpSrc => (0, 2, 0, proto::SCTP),
        SctpDst => (2, 2, 0, proto::SCTP),
        IcmpType => (0, 2, 8, proto::ICMP),
        IcmpCode => (0, 2, 0, proto::ICMP),
        Icmpv6Type => (0, 2, 8, proto::ICMPV6),
        Icmpv6Code => (0, 2, 0, proto::ICMPV6),
        NdTarget => (8, 16, 0, proto::ICMPV6),
        NdSll | NdTll => {
            let options = frame.head().get(transport + Nd::LEN..).ok_or(NOT_APPLICABLE)?;
            match find_link_layer(options, if field == NdSll { SOURCE_LINK_LAYER } else { TARGET_LINK_LAYER }) {
                Some(option) => (Nd::LEN + option + 2, 6, 0, proto::ICMPV6),
                None => return Ok(None),
            }
        }
        _ => return Err(NOT_APPLICABLE),
    };
    Ok(Some(Place { at: transport + offset, len, shift, cover: Cover::Transport(proto) }))
}

/// The IP header of a frame.
pub(super) enum Ip<'a> {
    V4(Ipv4<&'a [u8; Ipv4::LEN]>),
    V6(Ipv6<&'a [u8; Ipv6::LEN]>),
}

impl<'a> Ip<'a> {
    /// The IP header, if there is one and it is one.
    pub fn of(frame: &'a Frame) -> Option<Self> {
        let network = usize::from(frame.layout.network);
        let header = frame.head().get(network..)?;
        match u16_at(frame.head(), network.checked_sub(2)?)? {
            ethertype::IPV4 => Ipv4::new_checked(header).filter(|ip| ip.header_len().is_some()).map(Self::V4),
            ethertype::IPV6 => Ipv6::new_checked(header).filter(|ip| ip.version_class_label() >> 28 == 6).map(Self::V6),
            _ => None,
        }
    }

    /// The IP header at `at`, behind MPLS entries, of which the version is all that tells what it is.
    pub fn behind_mpls(frame: &'a Frame, at: usize) -> Option<Self> {
        let header = frame.head().get(at..)?;
        match header.first()? >> 4 {
            4 => Ipv4::new_checked(header).map(Self::V4),
            6 => Ipv6::new_checked(header).map(Self::V6),
            _ => None,
        }
    }

    /// TTL or hop limit.
    pub fn ttl(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.ttl(),
            Self::V6(ip) => ip.hop_limit(),
        }
    }

    /// TOS or traffic class.
    pub fn tos(&self) -> u8 {
        match self {
            Self::V4(ip) => ip.tos(),
            Self::V6(ip) => ip.traffic_class(),
        }
    }

    /// If it is a fragment, its offset in units of eight bytes, and `None` else.
    pub fn fragment(&self, frame: &Frame) -> Option<u16> {
        match self {
            Self::V4(ip) => match ip.flags_offset() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) {
                0 => None,
                fragment => Some(fragment & FRAGMENT_OFFSET),
            },
            Self::V6(ip) => extensions(ip.next_header(), behind_ipv6(frame)).fragment,
        }
    }
}

/// The head behind the IPv6 header.
pub(super) fn behind_ipv6(frame: &Frame) -> &[u8] {
    frame.head().get(usize::from(frame.layout.network) + Ipv6::LEN..).unwrap_or_default()
}

/// Whether it is a fragment other than the first, which begins with no transport header.
fn is_later_fragment(frame: &Frame) -> bool {
    Ip::of(frame).and_then(|ip| ip.fragment(frame)).is_some_and(|offset| offset != 0)
}

/// Whether it is ARP for IPv4 over Ethernet; that of other protocols has no field that a flow knows.
fn is_arp(frame: &Frame) -> bool {
    let network = frame.head().get(usize::from(frame.layout.network)..);
    network.and_then(Arp::new_checked).is_some_and(|arp| arp.kind() == Arp::ETHERNET_IPV4)
}

/// Whether there is a VLAN tag.
pub(super) fn is_tagged(frame: &Frame) -> bool {
    u16_at(frame.head(), TYPE).is_some_and(ethertype::is_vlan) && frame.head().len() >= ETHERNET_HEADER + 4
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

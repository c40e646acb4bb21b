//! Matches as text: as `ovs-ofctl` prints them.
//!
//! `tcp,in_port=1,nw_src=10.0.0.0/24,tp_dst=80`: conditions separated by commas, in the order of Open vSwitch's `match_format`, the most common
//! Ethernet types and protocols as shorthands, and of the names of a field the one that OpenFlow 1.0 had. [`Match::parse`] reads it back.

use super::field::Format;
use super::{Field, FieldMatch, Flow, FlowMask, Match, vlan};
use crate::port::PortNo;
use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Words for an Ethernet type, or for one and an IP protocol.
pub(super) const SHORTHANDS: [(&str, u128, Option<u128>); 14] = [
    ("ip", 0x0800, None),
    ("ipv6", 0x86dd, None),
    ("arp", 0x0806, None),
    ("rarp", 0x8035, None),
    ("mpls", 0x8847, None),
    ("mplsm", 0x8848, None),
    ("icmp", 0x0800, Some(1)),
    ("tcp", 0x0800, Some(6)),
    ("udp", 0x0800, Some(17)),
    ("sctp", 0x0800, Some(132)),
    ("tcp6", 0x86dd, Some(6)),
    ("udp6", 0x86dd, Some(17)),
    ("sctp6", 0x86dd, Some(132)),
    ("icmp6", 0x86dd, Some(58)),
];

/// Fields behind the registers, in the order of printing, with their names there.
const ROWS: [(Field, &str); 43] = [
    (Field::TunnelId, "tun_id"),
    (Field::Metadata, "metadata"),
    (Field::InPort, "in_port"),
    (Field::VlanTci, "vlan_tci"),
    (Field::EthSrc, "dl_src"),
    (Field::EthDst, "dl_dst"),
    (Field::EthType, "dl_type"),
    (Field::Ipv6Src, "ipv6_src"),
    (Field::Ipv6Dst, "ipv6_dst"),
    (Field::Ipv6Label, "ipv6_label"),
    (Field::Ipv6Exthdr, "ipv6_exthdr"),
    (Field::Ipv4Src, "nw_src"),
    (Field::Ipv4Dst, "nw_dst"),
    (Field::ArpSpa, "arp_spa"),
    (Field::ArpTpa, "arp_tpa"),
    (Field::IpProto, "nw_proto"),
    (Field::ArpOp, "arp_op"),
    (Field::ArpSha, "arp_sha"),
    (Field::ArpTha, "arp_tha"),
    (Field::NwTos, "nw_tos"),
    (Field::IpEcn, "nw_ecn"),
    (Field::NwTtl, "nw_ttl"),
    (Field::MplsLabel, "mpls_label"),
    (Field::MplsTc, "mpls_tc"),
    (Field::MplsTtl, "mpls_ttl"),
    (Field::MplsBos, "mpls_bos"),
    (Field::PbbIsid, "pbb_isid"),
    (Field::PbbUca, "pbb_uca"),
    (Field::IpFrag, "nw_frag"),
    (Field::TcpSrc, "tp_src"),
    (Field::TcpDst, "tp_dst"),
    (Field::UdpSrc, "tp_src"),
    (Field::UdpDst, "tp_dst"),
    (Field::SctpSrc, "tp_src"),
    (Field::SctpDst, "tp_dst"),
    (Field::IcmpType, "icmp_type"),
    (Field::IcmpCode, "icmp_code"),
    (Field::Icmpv6Type, "icmp_type"),
    (Field::Icmpv6Code, "icmp_code"),
    (Field::NdTarget, "nd_target"),
    (Field::NdSll, "nd_sll"),
    (Field::NdTll, "nd_tll"),
    (Field::TcpFlags, "tcp_flags"),
];

/// The names of TCP's flags, from the least significant.
pub(super) const TCP_FLAGS: [&str; 12] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];

/// Words for fragments, with value and mask of `ip_frag`. The last two are one, since what is not the first fragment is a fragment.
pub(super) const FRAGMENTS: [(&str, u128, u128); 6] =
    [("no", 0, 3), ("yes", 1, 1), ("first", 1, 3), ("not_later", 0, 2), ("later", 2, 2), ("later", 3, 3)];

/// What a key has that is no field: name, word, shift, width. Rules can't match it, but a cached flow may depend on it.
const OTHERS: [(&str, usize, u32, u32); 7] = [
    ("vlan_tpid", 3, 44, 4),
    ("vlan_tci1", 3, 48, 16),
    ("vlan_tpid1", 3, 40, 4),
    ("mpls_lse1", 15, 0, 32),
    ("mpls_lse2", 16, 32, 32),
    ("continuation", 0, 12, 20),
    ("choice", 0, 0, 12),
];

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut list = List { f, first: true, left: *self.mask() };
        for field in [Field::PktMark, Field::ConjId] {
            if let Some(found) = self.get(field) {
                list.item(format_args!("{}={}", field.name(), found.text()))?;
                list.done(field);
            }
        }
        let [eth_type, proto] =
            [Field::EthType, Field::IpProto].map(|field| self.get(field).filter(FieldMatch::is_exact).map(|found| found.value));
        let shorthand = |proto| SHORTHANDS.iter().find(|(_, e, p)| Some(*e) == eth_type && *p == proto);
        if let Some((word, _, proto)) = proto.and_then(|proto| shorthand(Some(proto))).or_else(|| shorthand(None)) {
            list.item(format_args!("{word}"))?;
            list.done(Field::EthType);
            if proto.is_some() {
                list.done(Field::IpProto);
            }
        }
        let registers =
            Field::ALL.iter().filter(|field| !field.info().view && field.name().starts_with("reg")).map(|field| (*field, field.name()));
        // First the fields that mean something; then what is left, for a cached flow may depend on bits without what their fields need.
        for with_prerequisite in [true, false] {
            for (field, name) in registers.clone().chain(ROWS) {
                let left = field.read(&list.left);
                if left == 0 || with_prerequisite && !self.permits(field) {
                    continue;
                }
                list.done(field);
                let found = FieldMatch { field, value: field.read(self.value()) & left, mask: left };
                match field {
                    Field::VlanTci => list.vlan(found.value as u16, left as u16)?,
                    _ => list.item(format_args!("{name}={}", found.text()))?,
                }
            }
        }
        list.others(self.value())
    }
}

/// A list being printed.
struct List<'a, 'f> {
    f: &'a mut Formatter<'f>,
    first: bool,
    /// The bits asked for that are not printed yet.
    left: FlowMask,
}

impl List<'_, '_> {
    fn item(&mut self, item: fmt::Arguments<'_>) -> fmt::Result {
        let comma = if std::mem::take(&mut self.first) { "" } else { "," };
        write!(self.f, "{comma}{item}")
    }

    fn done(&mut self, field: Field) {
        field.write(&mut self.left, 0);
    }

    /// A VLAN tag: by VLAN and priority if it is there and each is asked for wholly or not at all.
    fn vlan(&mut self, tci: u16, mask: u16) -> fmt::Result {
        let (vid, pcp) = (mask & 0x0fff, mask & 0xe000);
        if tci & vlan::PRESENT != 0 && matches!((vid, pcp), (0x0fff, 0 | 0xe000) | (0, 0xe000)) {
            if vid != 0 {
                self.item(format_args!("dl_vlan={}", tci & 0x0fff))?;
            }
            if pcp != 0 {
                self.item(format_args!("dl_vlan_pcp={}", tci >> 13))?;
            }
            Ok(())
        } else if mask == 0xffff {
            self.item(format_args!("vlan_tci={tci:#06x}"))
        } else {
            self.item(format_args!("vlan_tci={tci:#06x}/{mask:#06x}"))
        }
    }

    /// What no field covers.
    fn others(&mut self, value: &Flow) -> fmt::Result {
        for (name, word, shift, bits) in OTHERS {
            let ones = u64::MAX >> (64 - bits);
            let [value, mask] = [value, &self.left].map(|words| words.0[word] >> shift & ones);
            // That a frame has just come in goes without saying.
            if word == 0 && value == 0 {
                continue;
            }
            if mask == ones {
                self.item(format_args!("{name}={value:#x}"))?;
            } else if mask != 0 {
                self.item(format_args!("{name}={value:#x}/{mask:#x}"))?;
            }
        }
        Ok(())
    }
}

impl FieldMatch {
    /// The value as text in the field's own format, with its mask unless it is exact.
    pub fn text(self) -> impl Display {
        fmt::from_fn(move |f| self.write_text(f))
    }

    fn write_text(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { field, value, mask } = *self;
        let exact = self.is_exact();
        match field.info().format {
            Format::Decimal if exact => write!(f, "{value}"),
            Format::Port if exact => write!(f, "{}", PortNo(value as u32)),
            Format::Fragment if let Some((word, ..)) = FRAGMENTS.iter().find(|(_, v, m)| (*v, *m) == (value, mask)) => f.write_str(word),
            Format::TcpFlags => write_tcp_flags(f, value, mask, exact),
            Format::Mac => {
                write_mac(f, value)?;
                if exact {
                    return Ok(());
                }
                f.write_str("/")?;
                write_mac(f, mask)
            }
            Format::Ipv4 => match prefix(mask, 32) {
                Some(32) => write!(f, "{}", Ipv4Addr::from(value as u32)),
                Some(len) => write!(f, "{}/{len}", Ipv4Addr::from(value as u32)),
                None => write!(f, "{}/{}", Ipv4Addr::from(value as u32), Ipv4Addr::from(mask as u32)),
            },
            Format::Ipv6 => {
                write_ipv6(f, value)?;
                match prefix(mask, 128) {
                    Some(128) => Ok(()),
                    Some(len) => write!(f, "/{len}"),
                    None => {
                        f.write_str("/")?;
                        write_ipv6(f, mask)
                    }
                }
            }
            Format::Hex(digits) => {
                write_hex(f, value, digits)?;
                if exact {
                    return Ok(());
                }
                f.write_str("/")?;
                write_hex(f, mask, digits)
            }
            Format::Decimal | Format::Port | Format::Fragment => write!(f, "{value:#x}/{mask:#x}"),
        }
    }
}

/// The length of the prefix that a mask is, if it is one.
fn prefix(mask: u128, bits: u32) -> Option<u32> {
    let mask = mask << (128 - bits);
    (mask.leading_ones() == mask.count_ones()).then(|| mask.count_ones())
}

/// In hexadecimal like C's `%#x`, which leaves a zero bare, or with a number of digits.
fn write_hex(f: &mut Formatter<'_>, value: u128, digits: u8) -> fmt::Result {
    if value == 0 && digits == 1 { f.write_str("0") } else { write!(f, "0x{value:0width$x}", width = usize::from(digits)) }
}

fn write_mac(f: &mut Formatter<'_>, value: u128) -> fmt::Result {
    let [a, b, c, d, e, g] = std::array::from_fn(|i| (value >> (40 - 8 * i)) as u8);
    write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
}

/// Like `inet_ntop`, which shows the last 32 bits as an IPv4 address if only zeros come before.
fn write_ipv6(f: &mut Formatter<'_>, value: u128) -> fmt::Result {
    if value >> 16 != 0 && value >> 32 == 0 {
        write!(f, "::{}", Ipv4Addr::from(value as u32))
    } else {
        write!(f, "{}", Ipv6Addr::from(value))
    }
}

fn write_tcp_flags(f: &mut Formatter<'_>, value: u128, mask: u128, exact: bool) -> fmt::Result {
    if exact && value == 0 {
        return f.write_str("0");
    }
    let mut separator = "";
    for (bit, name) in TCP_FLAGS.iter().enumerate() {
        let set = value >> bit & 1 != 0;
        if exact && set {
            write!(f, "{separator}{name}")?;
            separator = "|";
        } else if !exact && mask >> bit & 1 != 0 {
            write!(f, "{}{name}", if set { "+" } else { "-" })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Matches from text: what `ovs-ofctl` takes, and [`super::text`] prints.

use super::field::Format;
use super::text::{FRAGMENTS, SHORTHANDS, TCP_FLAGS};
use super::{Field, Match, Prerequisite, vlan};
use crate::port::PortNo;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why text is no match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseMatchError {
    /// There is no such field.
    UnknownField(String),
    /// A field without a value.
    NoValue(String),
    /// A value that the field can't have.
    BadValue {
        /// The field, as named.
        name: String,
        /// The value.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A mask for a field that must be matched wholly.
    NotMaskable(String),
    /// A field that means nothing without another condition.
    NoPrerequisite {
        /// The field, as named.
        name: String,
        /// What is missing.
        wants: &'static str,
    },
}

impl fmt::Display for ParseMatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownField(name) => write!(f, "`{name}` is not a field that can be matched; see ovs-fields(7) for their names"),
            Self::NoValue(name) => write!(f, "`{name}` has no value; write `{name}=VALUE`"),
            Self::BadValue { name, text, expected } => write!(f, "`{text}` is no value of `{name}`; write {expected}"),
            Self::NotMaskable(name) => write!(f, "`{name}` can't be matched in part; leave its mask out"),
            Self::NoPrerequisite { name, wants } => write!(f, "`{name}` means something only together with {wants}; add that"),
        }
    }
}

impl std::error::Error for ParseMatchError {}

/// Names that mean one field or another, depending on what else is asked for; and OpenFlow 1.0's VLAN, which is almost `vlan_vid`.
const SHARED_NAMES: [(&str, &[Field]); 8] = [
    ("tp_src", &[Field::TcpSrc, Field::UdpSrc, Field::SctpSrc]),
    ("tp_dst", &[Field::TcpDst, Field::UdpDst, Field::SctpDst]),
    ("icmp_type", &[Field::IcmpType, Field::Icmpv6Type]),
    ("icmp_code", &[Field::IcmpCode, Field::Icmpv6Code]),
    ("nw_src", &[Field::Ipv4Src, Field::ArpSpa]),
    ("nw_dst", &[Field::Ipv4Dst, Field::ArpTpa]),
    ("nw_proto", &[Field::IpProto, Field::ArpOp]),
    ("dl_vlan", &[Field::VlanVid]),
];

impl Match {
    /// Reads a match from text such as `tcp,in_port=vm1,nw_src=10.0.0.0/24,tp_dst=80`. `port` finds a port by name. The order of the conditions
    /// does not matter; of two conditions on one field, the last counts.
    pub fn parse(text: &str, port: impl Fn(&str) -> Option<PortNo>) -> Result<Self, ParseMatchError> {
        let mut matching = Self::ANY;
        let mut waiting = Vec::new();
        for item in text.split([',', ' ', '\t', '\n']).filter(|item| !item.is_empty()) {
            if let Some((_, eth_type, proto)) = SHORTHANDS.iter().find(|(word, ..)| *word == item) {
                matching = matching.with(Field::EthType, *eth_type);
                if let Some(proto) = proto {
                    matching = matching.with(Field::IpProto, *proto);
                }
            } else if item != "eth" {
                waiting.push(Condition::parse(item)?);
            }
        }
        // A condition is taken once what it needs has been taken.
        let mut taken: Vec<(Condition, Field)> = Vec::new();
        while !waiting.is_empty() {
            let before = waiting.len();
            for condition in std::mem::take(&mut waiting) {
                if condition.fields == [Field::VlanPcp] && matching.get(Field::VlanVid).is_none() {
                    matching = matching.with_masked(Field::VlanVid, vlan::PRESENT.into(), vlan::PRESENT.into());
                }
                match condition.fields.iter().find(|field| matching.permits(**field)).copied() {
                    Some(field) => {
                        let (value, mask) = condition.value_and_mask(field, &port)?;
                        matching = matching.with_masked(field, value, mask);
                        taken.push((condition, field));
                    }
                    None => waiting.push(condition),
                }
            }
            if waiting.len() == before {
                return Err(waiting[0].no_prerequisite());
            }
        }
        // What one condition needs, another may have replaced.
        match taken.iter().find(|(_, field)| !matching.permits(*field)) {
            Some((condition, _)) => Err(condition.no_prerequisite()),
            None => Ok(matching),
        }
    }
}

impl FromStr for Match {
    type Err = ParseMatchError;

    /// As [`Match::parse`], with port numbers and the reserved ports' names only.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, |_| None)
    }
}

/// One `name=value`.
struct Condition<'a> {
    name: &'a str,
    value: &'a str,
    /// What the name may mean.
    fields: Vec<Field>,
}

impl<'a> Condition<'a> {
    fn parse(item: &'a str) -> Result<Self, ParseMatchError> {
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        let shared = SHARED_NAMES.iter().find(|(shared, _)| *shared == name);
        let fields = shared.map_or_else(|| Field::by_name(name).into_iter().collect(), |(_, fields)| fields.to_vec());
        if fields.is_empty() {
            return Err(ParseMatchError::UnknownField(name.into()));
        }
        if value.is_empty() {
            return Err(ParseMatchError::NoValue(name.into()));
        }
        Ok(Self { name, value, fields })
    }

    fn value_and_mask(&self, field: Field, port: &impl Fn(&str) -> Option<PortNo>) -> Result<(u128, u128), ParseMatchError> {
        if self.value == "*" {
            return Ok((0, 0));
        }
        let (mut value, mut mask) = self.read(field, port)?;
        match self.name {
            // OpenFlow 1.0's number of a VLAN, or of none.
            "dl_vlan" if value == 0xffff => (value, mask) = (0, field.ones()),
            "dl_vlan" if value < 0x1000 => value |= u128::from(vlan::PRESENT),
            "dl_vlan" => return Err(self.bad("a VLAN id, or 0xffff for none")),
            // The two bits of ECN are not a part of it, though it is written as if they were.
            "nw_tos" if value <= 0xff => value &= field.ones(),
            _ => (),
        }
        if value > field.ones() || mask > field.ones() {
            return Err(self.bad("a number that fits the field"));
        }
        if mask != field.ones() && mask != 0 && !field.info().maskable {
            return Err(ParseMatchError::NotMaskable(self.name.into()));
        }
        Ok((value, mask))
    }

    /// Value and mask as they are written.
    fn read(&self, field: Field, port: &impl Fn(&str) -> Option<PortNo>) -> Result<(u128, u128), ParseMatchError> {
        let (value, mask) = self.value.split_once('/').map_or((self.value, None), |(value, mask)| (value, Some(mask)));
        let ones = field.ones();
        let whole = |parse: fn(&str) -> Option<u128>, expected| {
            let value = parse(value).ok_or_else(|| self.bad(expected))?;
            let mask = mask.map_or(Some(ones), parse).ok_or_else(|| self.bad(expected))?;
            Ok((value, mask))
        };
        match field.info().format {
            Format::Decimal | Format::Hex(_) => whole(number, "a number, or a number and a mask: 5, 0x10/0xf0"),
            Format::Mac => whole(mac, "an Ethernet address: 02:00:00:00:00:01"),
            Format::Ipv4 => {
                let expected = "an IPv4 address or network: 10.0.0.1, 10.0.0.0/24";
                let parse = |text: &str| text.parse().ok().map(|address: Ipv4Addr| u128::from(address.to_bits()));
                self.network(parse, value, mask, 32).ok_or_else(|| self.bad(expected))
            }
            Format::Ipv6 => {
                let expected = "an IPv6 address or network: fe80::1, fe80::/64";
                let parse = |text: &str| text.parse().ok().map(|address: Ipv6Addr| address.to_bits());
                self.network(parse, value, mask, 128).ok_or_else(|| self.bad(expected))
            }
            Format::Port => {
                let found = number(self.value).map(|number| PortNo(number.try_into().unwrap_or(u32::MAX)));
                let found = found.or_else(|| port(self.value)).or_else(|| reserved_port(self.value));
                found.map(|port| (port.0.into(), ones)).ok_or_else(|| self.bad("the name or number of a port"))
            }
            Format::Fragment => match FRAGMENTS.iter().find(|(word, ..)| *word == self.value) {
                Some((_, value, mask)) => Ok((*value, *mask)),
                None => whole(number, "no, yes, first, later or not_later"),
            },
            Format::TcpFlags => {
                let expected = "flags: syn|ack for exactly these, +syn-ack for these two only";
                tcp_flags(self.value).map_or_else(|| whole(number, expected), Ok)
            }
        }
    }

    /// An address with the length of a prefix, or with a mask.
    fn network(&self, parse: impl Fn(&str) -> Option<u128>, value: &str, mask: Option<&str>, bits: u32) -> Option<(u128, u128)> {
        let ones = u128::MAX >> (128 - bits);
        let mask = match mask {
            None => ones,
            Some(mask) => match mask.parse::<u32>() {
                Ok(0) => 0,
                Ok(len) if len <= bits => ones << (bits - len) & ones,
                Ok(_) => return None,
                Err(_) => parse(mask)?,
            },
        };
        Some((parse(value)?, mask))
    }

    fn bad(&self, expected: &'static str) -> ParseMatchError {
        ParseMatchError::BadValue { name: self.name.into(), text: self.value.into(), expected }
    }

    fn no_prerequisite(&self) -> ParseMatchError {
        let wants = if self.fields.len() == 1 { wants(self.fields[0].info().prerequisite) } else { shared_wants(self.name) };
        ParseMatchError::NoPrerequisite { name: self.name.into(), wants }
    }
}

/// What to write for a prerequisite.
fn wants(prerequisite: Prerequisite) -> &'static str {
    match prerequisite {
        Prerequisite::None => "nothing",
        Prerequisite::InPort => "`in_port`",
        Prerequisite::Vlan => "`dl_vlan`",
        Prerequisite::Ip => "`ip` or `ipv6`",
        Prerequisite::Ipv4 => "`ip`",
        Prerequisite::Ipv6 => "`ipv6`",
        Prerequisite::Arp => "`arp` or `rarp`",
        Prerequisite::Mpls => "`mpls` or `mplsm`",
        Prerequisite::Pbb => "`dl_type=0x88e7`",
        Prerequisite::Tcp => "`tcp` or `tcp6`",
        Prerequisite::Udp => "`udp` or `udp6`",
        Prerequisite::Sctp => "`sctp` or `sctp6`",
        Prerequisite::Icmp4 => "`icmp`",
        Prerequisite::Icmp6 => "`icmp6`",
        Prerequisite::Nd => "`icmp6,icmp_type=135,icmp_code=0` (or 136)",
        Prerequisite::NdSolicitation => "`icmp6,icmp_type=135,icmp_code=0`",
        Prerequisite::NdAdvertisement => "`icmp6,icmp_type=136,icmp_code=0`",
    }
}

/// What to write for a name of several fields.
fn shared_wants(name: &str) -> &'static str {
    match name {
        "tp_src" | "tp_dst" => "`tcp`, `udp`, `sctp`, `tcp6`, `udp6` or `sctp6`",
        "icmp_type" | "icmp_code" => "`icmp` or `icmp6`",
        "nw_proto" => "`ip`, `ipv6` or `arp`",
        _ => "`ip` or `arp`",
    }
}

/// A number in decimal, or in hexadecimal after `0x`.
fn number(text: &str) -> Option<u128> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    // `from_str_radix` would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then(|| u128::from_str_radix(digits, radix).ok()).flatten()
}

fn mac(text: &str) -> Option<u128> {
    let mut address = 0;
    let mut count = 0;
    for part in text.split(':') {
        let valid = matches!(part.len(), 1 | 2) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        address = address << 8 | u128::from(u8::from_str_radix(part, 16).ok().filter(|_| valid)?);
        count += 1;
        if count > 6 {
            return None;
        }
    }
    (count == 6).then_some(address)
}

fn reserved_port(name: &str) -> Option<PortNo> {
    let ports =
        [PortNo::IN_PORT, PortNo::TABLE, PortNo::NORMAL, PortNo::FLOOD, PortNo::ALL, PortNo::CONTROLLER, PortNo::LOCAL, PortNo::ANY];
    ports.into_iter().find(|port| port.to_string().eq_ignore_ascii_case(name))
}

/// Flags by name, as value and mask: `syn|ack` asks for all flags, `+syn-ack` for the ones named.
fn tcp_flags(text: &str) -> Option<(u128, u128)> {
    let flag = |name: &str| TCP_FLAGS.iter().position(|flag| *flag == name).map(|bit| 1u128 << bit);
    if !text.starts_with(['+', '-']) {
        let value = text.split('|').try_fold(0, |value, name| Some(value | flag(name)?))?;
        return Some((value, Field::TcpFlags.ones()));
    }
    let (mut value, mut mask) = (0, 0);
    let mut rest = text;
    while !rest.is_empty() {
        let (sign, names) = rest.split_at(1);
        let end = names.find(['+', '-']).unwrap_or(names.len());
        let bit = flag(&names[..end])?;
        mask |= bit;
        if sign == "+" {
            value |= bit;
        }
        rest = &names[end..];
    }
    Some((value, mask))
}

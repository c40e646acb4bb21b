//! `struct ofp_match` (OpenFlow 1.0, 5.2.3): twelve fields, and a bit for each that does not matter; of IP addresses, the number of low bits that don't.
//!
//! A field that a frame of the type and protocol asked for does not have is passed over, as the standard says. What a rule looks at beyond the twelve
//! fields is not described, and a field of which it looks at some bits only is described as if it looked at all (so does Open vSwitch):
//! Nicira's extensible match is there for more.

use super::super::bytes::{Put, Reader};
use super::super::error::{BadMatch, ErrorCode};
use super::port::{narrow, widen};
use datapath::key::{Field, Match, vlan};
use datapath::port::PortNo;

/// The bytes of the structure.
pub(super) const LENGTH: usize = 40;

// OFPFW_*: bits of the fields that don't matter.
const IN_PORT: u32 = 1;
const DL_VLAN: u32 = 1 << 1;
const DL_SRC: u32 = 1 << 2;
const DL_DST: u32 = 1 << 3;
const DL_TYPE: u32 = 1 << 4;
const NW_PROTO: u32 = 1 << 5;
const TP_SRC: u32 = 1 << 6;
const TP_DST: u32 = 1 << 7;
const NW_SRC_SHIFT: u32 = 8;
const NW_DST_SHIFT: u32 = 14;
const NW_BITS: u32 = 0x3f;
const DL_VLAN_PCP: u32 = 1 << 20;
const NW_TOS: u32 = 1 << 21;
/// All of them (`OFPFW_ALL`).
pub(super) const ALL: u32 = (1 << 22) - 1;

/// The VLAN of frames without a tag (`OFP_VLAN_NONE`).
const VLAN_NONE: u16 = 0xffff;

// The parts of a tag.
const VID: u16 = 0xfff;
const PCP_SHIFT: u16 = 13;
const PCP: u16 = 0b111 << PCP_SHIFT;

const ETH_TYPE_IPV4: u128 = 0x0800;
const ETH_TYPE_IPV6: u128 = 0x86dd;
const ETH_TYPES_ARP: [u128; 2] = [0x0806, 0x8035];

/// A match, and whether every field matters in it: such a rule goes before all others.
pub(super) fn decode(reader: &mut Reader) -> Result<(Match, bool), ErrorCode> {
    let mut body = reader.part(LENGTH, BadMatch::BadLen)?;
    let wildcards = body.u32()? & ALL;
    let in_port = widen(body.u16()?);
    let (dl_src, dl_dst) = (body.uint(6)?, body.uint(6)?);
    let (dl_vlan, dl_vlan_pcp) = (body.u16()?, body.u8()?);
    body.skip(1)?;
    let (dl_type, nw_tos, nw_proto) = (body.u16()?, body.u8()?, body.u8()?);
    body.skip(2)?;
    let (nw_src, nw_dst, tp_src, tp_dst) = (body.u32()?, body.u32()?, body.u16()?, body.u16()?);

    let matters = |bit: u32| wildcards & bit == 0;
    let mut matching = Match::ANY;
    let mut exactly = |when: bool, field: Field, value: u128| {
        if when {
            matching = matching.with(field, value);
        }
    };
    exactly(matters(IN_PORT), Field::InPort, in_port.0.into());
    exactly(matters(DL_SRC), Field::EthSrc, dl_src);
    exactly(matters(DL_DST), Field::EthDst, dl_dst);
    exactly(matters(DL_TYPE), Field::EthType, dl_type.into());
    let dl_type = if matters(DL_TYPE) { dl_type.into() } else { 0 };
    let arp = ETH_TYPES_ARP.contains(&dl_type);
    let ip = [ETH_TYPE_IPV4, ETH_TYPE_IPV6].contains(&dl_type);
    exactly(ip && matters(NW_TOS), Field::IpDscp, (nw_tos >> 2).into());
    exactly(ip && matters(NW_PROTO), Field::IpProto, nw_proto.into());
    exactly(arp && matters(NW_PROTO), Field::ArpOp, nw_proto.into());
    for (bit, fields, value) in [(TP_SRC, SOURCES, tp_src), (TP_DST, DESTINATIONS, tp_dst)] {
        if let Some(field) = fields.into_iter().find(|field| matching.permits(*field)).filter(|_| matters(bit)) {
            if u128::from(value) > field.ones() {
                return Err(BadMatch::BadValue.into());
            }
            matching = matching.with(field, value.into());
        }
    }
    for (shift, field, arp_field, value) in
        [(NW_SRC_SHIFT, Field::Ipv4Src, Field::ArpSpa, nw_src), (NW_DST_SHIFT, Field::Ipv4Dst, Field::ArpTpa, nw_dst)]
    {
        let mask = u32::MAX.checked_shl(wildcards >> shift & NW_BITS).unwrap_or(0);
        if dl_type == ETH_TYPE_IPV4 || arp {
            matching = matching.with_masked(if arp { arp_field } else { field }, value.into(), mask.into());
        }
    }
    if matters(DL_VLAN) && dl_vlan == VLAN_NONE {
        matching = matching.with_masked(Field::VlanTci, 0, u128::MAX);
    } else {
        let tci = vlan::PRESENT | dl_vlan & VID | u16::from(dl_vlan_pcp) << PCP_SHIFT;
        let vid = if matters(DL_VLAN) { vlan::PRESENT | VID } else { 0 };
        let pcp = if matters(DL_VLAN_PCP) { vlan::PRESENT | PCP } else { 0 };
        matching = matching.with_masked(Field::VlanTci, tci.into(), (vid | pcp).into());
    }
    Ok((matching, wildcards == 0))
}

/// The fields in the place of `tp_src`.
pub(super) const SOURCES: [Field; 5] = [Field::TcpSrc, Field::UdpSrc, Field::SctpSrc, Field::IcmpType, Field::Icmpv6Type];
/// The fields in the place of `tp_dst`.
pub(super) const DESTINATIONS: [Field; 5] = [Field::TcpDst, Field::UdpDst, Field::SctpDst, Field::IcmpCode, Field::Icmpv6Code];

/// Appends what `struct ofp_match` can say of a match.
pub(super) fn put(out: &mut Vec<u8>, matching: &Match) {
    let find = |fields: &[Field]| fields.iter().filter(|field| matching.permits(**field)).find_map(|field| matching.get(*field));
    let mut wildcards = 0;
    let mut value = |bit: u32, fields: &[Field]| match find(fields) {
        Some(found) => found.value,
        None => {
            wildcards |= bit;
            0
        }
    };
    let (dl_src, dl_dst, dl_type) = (value(DL_SRC, &[Field::EthSrc]), value(DL_DST, &[Field::EthDst]), value(DL_TYPE, &[Field::EthType]));
    let (nw_tos, nw_proto) = (value(NW_TOS, &[Field::NwTos]), value(NW_PROTO, &[Field::IpProto, Field::ArpOp]));
    let (tp_src, tp_dst) = (value(TP_SRC, &SOURCES), value(TP_DST, &DESTINATIONS));
    let in_port = find(&[Field::InPort]).and_then(|found| narrow(PortNo(found.value as u32)));
    if in_port.is_none() {
        wildcards |= IN_PORT;
    }
    let mut address = |shift: u32, fields: [Field; 2]| {
        let (value, mask) = find(&fields).map_or((0, 0), |found| (found.value as u32, found.mask as u32));
        wildcards |= mask.trailing_zeros() << shift;
        value
    };
    let (nw_src, nw_dst) = (address(NW_SRC_SHIFT, [Field::Ipv4Src, Field::ArpSpa]), address(NW_DST_SHIFT, [Field::Ipv4Dst, Field::ArpTpa]));
    let [tci, tci_mask] = [matching.value(), matching.mask()].map(|words| Field::VlanTci.read(words) as u16);
    let untagged = tci_mask & vlan::PRESENT != 0 && tci & vlan::PRESENT == 0;
    let (mut dl_vlan, mut dl_vlan_pcp) = (0, 0);
    match tci_mask & VID {
        _ if untagged => dl_vlan = VLAN_NONE,
        0 => wildcards |= DL_VLAN,
        _ => dl_vlan = tci & VID,
    }
    match tci_mask & PCP {
        _ if untagged => {}
        0 => wildcards |= DL_VLAN_PCP,
        _ => dl_vlan_pcp = (tci >> PCP_SHIFT) as u8,
    }
    out.put_u32(wildcards);
    out.put_u16(in_port.unwrap_or(0));
    out.put_uint(dl_src, 6);
    out.put_uint(dl_dst, 6);
    out.put_u16(dl_vlan);
    out.put_u8(dl_vlan_pcp);
    out.put_zeros(1);
    out.put_u16(dl_type as u16);
    out.put_u8(nw_tos as u8);
    out.put_u8(nw_proto as u8);
    out.put_zeros(2);
    out.put_u32(nw_src);
    out.put_u32(nw_dst);
    out.put_u16(tp_src as u16);
    out.put_u16(tp_dst as u16);
}

//! The hash of a flow key.

use super::FlowKey;
use crate::wire::ethernet::ethertype;

/// Of word 3: the inner VLAN tag and the protocol. Not ip_frag, TOS and TTL.
const NETWORK: u64 = 0xffff_ff00_00ff_0000;
/// Of word 5: the ports, and ARP's opcode. Not the TCP flags.
const TRANSPORT: u64 = 0xffff_ffff_0000_ffff;

/// A hash over what tells flows apart: port, Ethernet addresses and type, VLANs, protocol, addresses, transport ports, labels, tunnel. It is the
/// same for all frames of a flow, whatever their TTL, TOS or TCP flags. A `seed` that guests don't know keeps them from finding flows that
/// collide.
#[inline]
pub fn hash(key: &FlowKey, seed: u64) -> u64 {
    let words = &key.0;
    // Odd numbers with no pattern: the first digits of the fraction of pi.
    let mut hash = mix(words[0] ^ seed, words[1] ^ 0x243f_6a88_85a3_08d3)
        ^ mix(words[2] ^ seed, words[3] & NETWORK ^ 0x1319_8a2e_0370_7345)
        ^ mix(words[4] ^ seed, words[5] & TRANSPORT ^ 0xa409_3822_299f_31d1);
    match words[1] as u16 {
        ethertype::IPV4 => (),
        ethertype::IPV6 => {
            hash ^= mix(words[8] ^ seed, words[9] ^ 0x082e_fa98_ec4e_6c89) ^ mix(words[10] ^ seed, words[11] ^ 0x4528_21e6_38d0_1377);
        }
        _ => hash ^= mix(words[15] ^ seed, words[16] ^ 0xbe54_66cf_34e9_0c6d),
    }
    if words[17] != 0 {
        hash ^= mix(words[17] ^ seed, 0xc0ac_29b7_c97c_50dd);
    }
    mix(hash ^ seed, 0x3f84_d5b5_b547_0917)
}

/// Both halves of the product, folded.
#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Field, Flow};
    use std::collections::HashSet;

    fn udp() -> Flow {
        let mut flow = Flow::ZERO;
        Field::EthType.write(&mut flow, 0x0800);
        Field::IpProto.write(&mut flow, 17);
        flow
    }

    #[test]
    fn what_changes_within_a_flow_does_not_count() {
        let mut flow = udp();
        let before = hash(&flow.key(), 1);
        for field in [Field::NwTtl, Field::IpDscp, Field::IpEcn, Field::TcpFlags, Field::IpFrag] {
            field.write(&mut flow, u128::MAX);
        }
        assert_eq!(hash(&flow.key(), 1), before);
        assert_ne!(hash(&flow.key(), 2), before);
    }

    #[test]
    fn what_tells_flows_apart_counts() {
        for field in [
            Field::InPort,
            Field::EthSrc,
            Field::EthDst,
            Field::VlanVid,
            Field::Ipv4Src,
            Field::Ipv4Dst,
            Field::IpProto,
            Field::UdpSrc,
            Field::UdpDst,
        ] {
            let mut flow = udp();
            let before = hash(&flow.key(), 1);
            field.write(&mut flow, 3);
            assert_ne!(hash(&flow.key(), 1), before, "{field:?}");
        }
        let mut flow = Flow::ZERO;
        Field::EthType.write(&mut flow, 0x86dd);
        for field in [Field::Ipv6Src, Field::Ipv6Dst, Field::TunnelId] {
            let before = hash(&flow.key(), 1);
            field.write(&mut flow, 1 << 40);
            assert_ne!(hash(&flow.key(), 1), before, "{field:?}");
        }
    }

    #[test]
    fn neighbouring_flows_spread_in_any_bits() {
        let (mut low, mut high) = (HashSet::new(), HashSet::new());
        for address in 0..256 {
            for port in 0..256 {
                let mut flow = udp();
                Field::Ipv4Src.write(&mut flow, 0x0a00_0000 + address);
                Field::UdpSrc.write(&mut flow, 1024 + port);
                let hash = hash(&flow.key(), 0x1234_5678_9abc_def1);
                low.insert(hash as u16);
                high.insert(hash >> 48);
            }
        }
        // 65536 balls in as many boxes fill 1 - 1/e of them, 41427.
        for filled in [low.len(), high.len()] {
            assert!((41_000..42_000).contains(&filled), "{filled}");
        }
    }
}

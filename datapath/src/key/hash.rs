//! The hashes of a flow key.

use super::{FlowKey, KEY_WORDS, KeyMask};
use crate::wire::ethernet::ethertype;

/// Of word 5: the ports, and ARP's opcode. Not the TCP flags.
const TRANSPORT: u64 = 0xffff_ffff_0000_ffff;

/// Odd numbers with no pattern: the first digits of the fraction of pi.
const ODD: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345];

/// The bits of keys that some mask looks at. All else about a key makes no difference.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    bits: KeyMask,
    /// The words that have such bits.
    occupied: u32,
}

impl Examined {
    /// No bits.
    pub const NONE: Self = Self { bits: KeyMask::ZERO, occupied: 0 };

    /// Adds the bits of a mask.
    pub fn include(&mut self, mask: &KeyMask) {
        self.bits.include(mask);
        self.occupied = self.bits.occupied();
    }

    /// A hash of these bits of a key. A `seed` that guests don't know keeps them from finding keys that collide.
    ///
    /// A factor of zero or of all ones makes a product that says nothing of the other factor, and what is added up is as if it were not there when two summands
    /// are the same. So both factors of each pair have something secret, and a pair's are those of no other: one has what came of the pairs before it.
    #[inline]
    pub fn hash(&self, key: &FlowKey, seed: u64) -> u64 {
        let pair = |before: u64, at: usize| {
            let word = |i: usize| key.0[i] & self.bits.0[i];
            mix(word(2 * at) ^ before, word(2 * at + 1) ^ seed)
        };
        let looks_at = |at: usize| self.occupied >> (2 * at) & 0b11 != 0;
        // Every mask has the port in it. An IPv4 key has nothing beyond the third pair.
        let mut hash = pair(seed.rotate_left(32), 0);
        for at in 1..3 {
            if looks_at(at) {
                hash = pair(hash, at);
            }
        }
        if self.occupied >> 6 != 0 {
            hash = (3..KEY_WORDS / 2).filter(|at| looks_at(*at)).fold(hash, pair);
        }
        mix(hash ^ seed, ODD[0])
    }
}

/// Spreads flows over queues: a hash of Ethernet addresses, IP addresses and transport ports, and so the same for all frames of a flow, whatever their TTL,
/// TOS or TCP flags.
#[inline]
pub fn spread(key: &FlowKey) -> u32 {
    let words = &key.0;
    let (mut one, mut other) = (words[1] ^ words[4].rotate_left(32), words[2] ^ words[5] & TRANSPORT);
    if words[1] as u16 == ethertype::IPV6 {
        one ^= words[8] ^ words[9].rotate_left(32);
        other ^= words[10] ^ words[11].rotate_left(16);
    }
    mix(one ^ ODD[0], other ^ ODD[1]) as u32
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
    use crate::key::{Field, Flow, Words};
    use std::collections::HashSet;

    fn udp() -> Flow {
        let mut flow = Flow::ZERO;
        Field::EthType.write(&mut flow, 0x0800);
        Field::IpProto.write(&mut flow, 17);
        flow
    }

    #[test]
    fn frames_of_a_flow_go_to_the_same_queue() {
        let mut flow = udp();
        let before = spread(&flow.key());
        for field in [Field::NwTtl, Field::IpDscp, Field::IpEcn, Field::TcpFlags, Field::IpFrag] {
            field.write(&mut flow, u128::MAX);
        }
        assert_eq!(spread(&flow.key()), before);
    }

    #[test]
    fn flows_go_to_all_queues() {
        let spread_by = |kind: u128, field: Field| {
            let places = (0..1000u128).map(|value| {
                let mut flow = udp();
                Field::EthType.write(&mut flow, kind);
                field.write(&mut flow, value);
                (u64::from(spread(&flow.key())) * 4) >> 32
            });
            let mut counts = [0; 4];
            places.for_each(|place| counts[place as usize] += 1);
            counts
        };
        for (kind, field) in [
            (0x88b5, Field::EthSrc),
            (0x88b5, Field::EthDst),
            (0x0800, Field::Ipv4Src),
            (0x0800, Field::Ipv4Dst),
            (0x0800, Field::UdpSrc),
            (0x0800, Field::UdpDst),
            (0x86dd, Field::Ipv6Src),
            (0x86dd, Field::Ipv6Dst),
            (0x86dd, Field::UdpDst),
        ] {
            let counts = spread_by(kind, field);
            assert!(counts.iter().all(|count| (200..300).contains(count)), "{field:?} of {kind:04x}: {counts:?}");
        }
    }

    #[test]
    fn every_bit_that_is_examined_counts_and_no_other() {
        for bit in 0..64 * KEY_WORDS {
            let (before, mut after, mut mask) = (FlowKey::ZERO, FlowKey::ZERO, KeyMask::ZERO);
            after.0[bit / 64] ^= 1 << (bit % 64);
            mask.0[bit / 64] |= 1 << (bit % 64);
            let mut examined = Examined::NONE;
            examined.include(&mask);
            assert_ne!(examined.hash(&before, 1), examined.hash(&after, 1), "bit {bit}");
            assert_ne!(examined.hash(&after, 1), examined.hash(&after, 2), "bit {bit}");
            let mut others = Examined::NONE;
            others.include(&Words(mask.0.map(|word| !word)));
            assert_eq!(others.hash(&before, 1), others.hash(&after, 1), "bit {bit}");
        }
    }

    #[test]
    fn no_word_makes_another_one_count_for_nothing() {
        const SEED: u64 = 0x1234_5678_9abc_def1;
        // Digits of pi, of which a hash might be made.
        const SRC: u64 = 0x4528_21e6_38d0_1377;
        const DST: u64 = 0xbe54_66cf_34e9_0c6d;
        let mut all = Examined::NONE;
        all.include(&Words([u64::MAX; KEY_WORDS]));
        let hashes = |key: &dyn Fn(u64) -> FlowKey| (0..1000).map(|high| all.hash(&key(high << 32), SEED)).collect::<HashSet<_>>().len();
        for (at, digits) in [(8, SRC), (10, DST)] {
            for low in [0, u64::MAX, digits, !digits] {
                let with = |high| {
                    let mut key = FlowKey::ZERO;
                    (key.0[at], key.0[at + 1]) = (high, low);
                    key
                };
                assert_eq!(hashes(&with), 1000, "words {at} and {}: {low:x}", at + 1);
            }
        }
        // Two pairs that are as far apart as such constants, or the same.
        for apart in [SRC ^ DST, 0] {
            let with = |high| {
                let mut key = FlowKey::ZERO;
                key.0[8..12].copy_from_slice(&[high, high, high, high ^ apart]);
                key
            };
            assert_eq!(hashes(&with), 1000, "{apart:x} apart");
        }
    }

    #[test]
    fn neighbouring_flows_spread_in_any_bits() {
        let (mut low, mut high) = (HashSet::new(), HashSet::new());
        let mut all = Examined::NONE;
        all.include(&Words([u64::MAX; KEY_WORDS]));
        for address in 0..256 {
            for port in 0..256 {
                let mut flow = udp();
                Field::Ipv4Src.write(&mut flow, 0x0a00_0000 + address);
                Field::UdpSrc.write(&mut flow, 1024 + port);
                let hash = all.hash(&flow.key(), 0x1234_5678_9abc_def1);
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

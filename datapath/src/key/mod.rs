//! What is known of a frame: the flow key, and the state that a pipeline adds to it.
//!
//! Both are arrays of 64-bit words, so that hashing, masking and comparing need no knowledge of fields. [`FlowKey`] is what [`extract()`] finds
//! in a frame; it is all that the caches ever search. [`Flow`] is a flow key followed by the words that a pipeline carries (metadata,
//! registers); it is what OpenFlow rules match and what a translation changes. A field is a run of bits at a fixed place, listed once in
//! [`field`]; everything that is done with fields is done through that table.
//!
//! The places, most significant bits first (`|` separates, the number is the width in bits):
//!
//! ```text
//! word  0  in_port 32 | continuation 20 | choice 12                              stage 0, metadata
//!       1  eth_dst 48 | eth_type 16                                             stage 1, L2
//!       2  eth_src 48 | outer VLAN TCI 16 (pcp 3, present 1, vid 12)
//!       3  inner VLAN TCI 16 | TPIDs 8 | 0 8 | ip_frag 8 | ip_proto 8 | ip_tos 8 | ip_ttl 8     stage 2, L3
//!       4  ipv4_src 32 | ipv4_dst 32                  (arp_spa, arp_tpa)
//!       5  tp_src 16 | tp_dst 16 | tcp_flags 16 | arp_op 16  (icmp_type, icmp_code)           stage 3, L4
//!       6  arp_sha 48 | 0 16                          (nd_sll)
//!       7  arp_tha 48 | 0 16                          (nd_tll)
//!       8  ipv6_src 128                               9 its low half                          stage 2
//!      10  ipv6_dst 128                              11 its low half                          stage 2
//!      12  nd_target 128                             13 its low half                          stage 3
//!      14  ipv6_label 32 | ipv6_exthdr 16 | 0 16                                              stage 2
//!      15  mpls entry 0 32 | mpls entry 1 32                                                  stage 2
//!      16  mpls entry 2 32 | pbb flags 8 (uca 1) | pbb_isid 24                                stage 2
//!      17  tunnel_id 64                                                                       stage 0
//! state
//!      18  metadata 64                                                                        stage 0
//!   19-26  reg0 32 | reg1 32 ... reg14 32 | reg15 32  (xreg, xxreg)                           stage 0
//!      27  pkt_mark 32 | conj_id 32                                                           stage 0
//! ```
//!
//! An IPv4 frame fills words 0 to 5 only: less than a cache line. Words of things that a frame does not have are zero.

mod extract;
pub mod field;
mod hash;
mod matching;
mod parse;
mod text;
pub mod vlan;

pub use extract::{continues, extract, extract_frame};
pub use field::{Field, FieldInfo, FieldRange, Prerequisite};
pub use hash::{Examined, spread};
pub use matching::{FieldMatch, Match};
pub use parse::ParseMatchError;

pub use crate::wire::ipv6::exthdr;

/// The bits of the field `ip_frag`.
pub mod fragment {
    /// It is a fragment.
    pub const ANY: u8 = 1;
    /// It is not the first one, so that it has no transport header.
    pub const LATER: u8 = 2;
}

/// The words of a flow key.
pub const KEY_WORDS: usize = 18;
/// The words of a pipeline's state.
pub const STATE_WORDS: usize = 10;
/// The words of a key with its state.
pub const FLOW_WORDS: usize = KEY_WORDS + STATE_WORDS;

/// The words that each stage of a staged lookup looks at, as a bitmap of word numbers: metadata, L2, L3, L4.
pub const STAGES: [u32; 4] = [
    1 | 1 << 17 | ((1 << STATE_WORDS) - 1) << KEY_WORDS,
    1 << 1 | 1 << 2,
    1 << 3 | 1 << 4 | 0b1111 << 8 | 0b111 << 14,
    1 << 5 | 1 << 6 | 1 << 7 | 0b11 << 12,
];

/// A run of words: values, or the mask that says which of their bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Words<const N: usize>(pub [u64; N]);

/// What [`extract()`] finds in a frame.
pub type FlowKey = Words<KEY_WORDS>;
/// The bits of a [`FlowKey`] that count.
pub type KeyMask = Words<KEY_WORDS>;
/// A key with the state that a pipeline carries.
pub type Flow = Words<FLOW_WORDS>;
/// The bits of a [`Flow`] that count.
pub type FlowMask = Words<FLOW_WORDS>;

impl<const N: usize> Default for Words<N> {
    fn default() -> Self {
        Self::ZERO
    }
}

impl<const N: usize> Words<N> {
    /// All bits zero.
    pub const ZERO: Self = Self([0; N]);

    /// These bits of one word.
    pub const fn with_word(word: usize, bits: u64) -> Self {
        let mut words = [0; N];
        words[word] = bits;
        Self(words)
    }

    /// The words that are not zero, as a bitmap of word numbers.
    pub fn occupied(&self) -> u32 {
        self.0.iter().enumerate().fold(0, |map, (i, word)| map | u32::from(*word != 0) << i)
    }

    /// These values where `mask` has ones, zero elsewhere.
    #[must_use]
    pub fn masked(&self, mask: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & mask.0[i]))
    }

    /// Whether both agree in all bits of `mask`.
    pub fn agrees(&self, other: &Self, mask: &Self) -> bool {
        (0..N).all(|i| (self.0[i] ^ other.0[i]) & mask.0[i] == 0)
    }

    /// Adds the bits of `other`.
    pub fn include(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }
}

impl Flow {
    /// A key at the start of its pipeline: all state is zero.
    pub fn new(key: &FlowKey) -> Self {
        let mut words = [0; FLOW_WORDS];
        words[..KEY_WORDS].copy_from_slice(&key.0);
        Self(words)
    }

    /// The words of the key.
    pub fn key(&self) -> FlowKey {
        Words(std::array::from_fn(|i| self.0[i]))
    }
}

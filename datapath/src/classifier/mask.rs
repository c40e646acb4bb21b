//! What it takes to hash, compare and store words under a mask, at the cost of the mask's occupied words only.
//!
//! A mask that looks at an IPv4 address and a port has two or three words that are not zero, of 27. Everything here walks those by the mask's
//! bitmap of occupied words; a masked key is stored as those words alone, in the order of their numbers. The classifier and the megaflow
//! cache share it: one works on flows, the other on flow keys.

use crate::key::Words;

/// A mask that knows which of its words are not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask<const N: usize> {
    bits: Words<N>,
    occupied: u32,
}

/// The numbers of the bits set in `map`, from the lowest.
pub fn set_bits(map: u32) -> impl Iterator<Item = usize> {
    SetBits(map)
}

struct SetBits(u32);

impl Iterator for SetBits {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

/// Mixes a word into a hash: a multiplication whose two halves are folded, so that every bit of the word reaches every bit of the hash.
#[inline(always)]
pub fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}

impl<const N: usize> Mask<N> {
    /// The mask with these bits.
    pub fn new(bits: &Words<N>) -> Self {
        Self { bits: *bits, occupied: bits.occupied() }
    }

    /// Its bits.
    pub fn bits(&self) -> &Words<N> {
        &self.bits
    }

    /// The words that are not zero, as a bitmap of word numbers.
    pub fn occupied(&self) -> u32 {
        self.occupied
    }

    /// The number of words in a packed key.
    pub fn packed_len(&self) -> usize {
        self.occupied.count_ones() as usize
    }

    /// The hash of `words` under this mask. Whoever fears chosen collisions starts from a secret `basis`.
    #[inline]
    pub fn hash(&self, words: &Words<N>, basis: u64) -> u64 {
        self.hash_part(words, self.occupied, basis)
    }

    /// The hash of those of the `words` under this mask that are in the bitmap `part`, which must be within [`Mask::occupied`]. Going on with
    /// another part from the hash of the first gives the hash of both.
    #[inline]
    pub fn hash_part(&self, words: &Words<N>, part: u32, basis: u64) -> u64 {
        set_bits(part).fold(basis, |hash, i| mix(hash, words.0[i] & self.bits.0[i]))
    }

    /// The same, and adds the bits that it looks at to `examined`.
    #[inline]
    pub fn examine_part(&self, words: &Words<N>, part: u32, examined: &mut Words<N>, basis: u64) -> u64 {
        set_bits(part).fold(basis, |hash, i| {
            examined.0[i] |= self.bits.0[i];
            mix(hash, words.0[i] & self.bits.0[i])
        })
    }

    /// The words that the mask occupies, masked: a packed key.
    pub fn packed(&self, words: &Words<N>) -> impl Iterator<Item = u64> {
        set_bits(self.occupied).map(|i| words.0[i] & self.bits.0[i])
    }

    /// A packed key in its place among all words; the others are zero.
    pub fn unpack(&self, key: &[u64]) -> Words<N> {
        let mut words = Words::ZERO;
        for (i, word) in set_bits(self.occupied).zip(key) {
            words.0[i] = *word;
        }
        words
    }

    /// Whether `words` under this mask are the packed `key`.
    #[inline]
    pub fn matches(&self, key: &[u64], words: &Words<N>) -> bool {
        debug_assert_eq!(key.len(), self.packed_len());
        set_bits(self.occupied).zip(key).fold(0, |difference, (i, word)| difference | (words.0[i] & self.bits.0[i]) ^ word) == 0
    }
}

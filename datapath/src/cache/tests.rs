//! The search for megaflows against a search through all of them.

use super::megaflow::{Current, Megaflows};
use super::verdict;
use super::{CacheLimits, FlowId};
use crate::frame::BATCH;
use crate::key::{FlowKey, KEY_WORDS, KeyMask, Words};
use crate::port::PortNo;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.number() >> 32) % end
    }

    /// A key of one of `ports` ports, with few values in each byte.
    fn key(&mut self, ports: u64) -> FlowKey {
        let few = 0x0303_0303_0303_0303 << self.below(7);
        let mut key: FlowKey = Words(std::array::from_fn(|_| self.number() & self.number() & few));
        key.0[0] = (1 + self.below(ports)) << 32 | key.0[0] & 0xff;
        key
    }

    /// A mask with the port in it, and whole words, bytes, prefixes and single bits.
    fn mask(&mut self) -> KeyMask {
        let mut mask = KeyMask::ZERO;
        for _ in 0..self.below(6) {
            let bits = [u64::MAX, 0xff << (8 * self.below(8)), u64::MAX << self.below(64), 1 << self.below(64)];
            mask.0[self.below(KEY_WORDS as u64) as usize] |= bits[self.below(4) as usize];
        }
        mask.0[0] |= 0xffff_ffff_0000_0000;
        mask
    }
}

struct Both {
    megaflows: Megaflows,
    reference: Vec<(FlowKey, KeyMask, FlowId)>,
    cursor: usize,
}

impl Both {
    fn new() -> Self {
        let limits = CacheLimits { masks_per_port: 300, ..CacheLimits::default() };
        Self { megaflows: Megaflows::new(limits, 0x5eed), reference: Vec::new(), cursor: 0 }
    }

    fn expect_same(&self, key: &FlowKey) -> Option<FlowId> {
        let found = self.megaflows.lookup(key);
        let all: Vec<_> = self.reference.iter().filter(|(of, mask, _)| of.agrees(key, mask)).map(|(.., id)| *id).collect();
        match found {
            Some(id) => assert!(all.contains(&id), "{key:?} is in {all:?}, not in {id:?}"),
            None => assert!(all.is_empty(), "{key:?} is in {all:?}"),
        }
        found
    }

    fn insert(&mut self, key: &FlowKey, mask: KeyMask) {
        let port = PortNo((key.0[0] >> 32) as u32);
        if self.expect_same(key).is_none() && self.megaflows.has_room(port, &mask) {
            let id = self.megaflows.insert(port, key, &mask, Current { verdict: verdict::NONE, learned: false, epoch: 0 }, 0);
            self.reference.push((*key, mask, id));
        }
    }

    fn remove(&mut self, at: usize) {
        let (.., id) = self.reference.swap_remove(at);
        self.megaflows.remove(id);
    }

    /// Some of the background work.
    fn visit(&mut self, count: usize) {
        for _ in 0..count {
            if self.cursor >= self.megaflows.places() {
                self.cursor = 0;
                self.megaflows.rank();
            }
            self.megaflows.visit(self.cursor);
            self.cursor += 1;
        }
    }
}

#[test]
fn the_search_finds_what_there_is() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let mut both = Both::new();
        let ports = 1 + seed % 3;
        let masks: Vec<_> = (0..[1, 2, 9, 70, 200, 1000][seed as usize]).map(|_| random.mask()).collect();
        for step in 0..4000 {
            // Mostly fewer, at the end.
            match random.below(if step < 2000 { 6 } else { 10 }) {
                0..3 => {
                    let mask = masks[random.below(masks.len() as u64) as usize];
                    let key = random.key(ports);
                    both.insert(&key, mask);
                }
                3 => both.visit(random.below(100) as usize),
                4 => {
                    let key = random.key(ports);
                    both.expect_same(&key);
                }
                _ if both.reference.is_empty() => (),
                5 => {
                    // Something like what there is.
                    let (mut key, ..) = both.reference[random.below(both.reference.len() as u64) as usize];
                    key.0[random.below(KEY_WORDS as u64) as usize] ^= 1 << random.below(32);
                    both.expect_same(&key);
                }
                _ => both.remove(random.below(both.reference.len() as u64) as usize),
            }
            if step % 1000 == 0 {
                let keys: Vec<_> = both.reference.iter().map(|(key, ..)| *key).collect();
                keys.iter().for_each(|key| assert!(both.expect_same(key).is_some()));
            }
        }
        let reached = both.megaflows.len();
        (0..reached).for_each(|_| both.remove(0));
        assert_eq!((both.megaflows.len(), both.megaflows.masks()), (0, 0));
    }
}

/// The chain of masks of a table in which each rule looks at one bit more, 200 of them: three words of columns.
#[test]
fn a_key_is_foreseen_in_the_right_one_of_many_subtables() {
    let mut random = Random(7);
    let mut both = Both::new();
    let bit = |number: usize| (4 + number / 64, 1u64 << (number % 64));
    for number in 0..200 {
        let mut mask = KeyMask::ZERO;
        mask.0[0] = 0xffff_ffff_0000_0000;
        (0..=number).map(bit).for_each(|(word, bit)| mask.0[word] |= bit);
        // A port that half of the megaflows tell apart.
        mask.0[9] = 0xffff << (number % 2 * 16);
        for value in 0..20 {
            let mut key: FlowKey = Words(std::array::from_fn(|_| random.number()));
            key.0[0] = 1 << 32;
            (0..number).map(bit).for_each(|(word, bit)| key.0[word] &= !bit);
            key.0[bit(number).0] |= bit(number).1;
            key.0[9] = value << 16 | value;
            both.insert(&key, mask);
        }
    }
    assert_eq!((both.megaflows.len(), both.megaflows.masks()), (4000, 200));
    // Twice round: the filter is begun, and made.
    both.visit(2 * 4000 + 2);
    for flows in both.reference.chunks(BATCH) {
        let keys: [FlowKey; BATCH] = std::array::from_fn(|slot| flows.get(slot).map_or(FlowKey::ZERO, |flow| flow.0));
        let slots = ((1u64 << flows.len()) - 1) as u32;
        let mut candidates = [None; BATCH];
        both.megaflows.foresee(PortNo(1), &keys, slots, &mut candidates);
        for ((key, _, id), candidate) in flows.iter().zip(candidates) {
            assert_eq!(candidate, Some(*id), "{key:?}");
            assert_eq!(both.megaflows.lookup(key), Some(*id));
        }
    }
}

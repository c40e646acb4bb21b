//! From hashes to the places of megaflows: a hash table that does not stop to grow.
//!
//! (hash, place) pairs lie in segments of a few thousand, each a table of its own with open addressing and linear probing, at most half full. The
//! number of segments grows by one at a time (linear hashing: segment `n` is split off the one whose number is `n` without its highest bit),
//! so that no insertion moves more than one segment, which takes some microseconds, however many pairs there are.

use crate::memory::prefetch;

/// Pairs per segment, on average, beyond which there is another segment.
const SEGMENT_LEN: usize = 1 << 10;
/// The slots of a segment to begin with.
const SEGMENT_MIN: usize = 16;

/// See the module.
pub(super) struct Slots {
    segments: Vec<Segment>,
    /// The bits of a hash that choose the segment: one less than the power of two that the number of segments is on its way to.
    ones: usize,
    len: usize,
}

struct Segment {
    slots: Vec<(u32, u32)>,
    len: usize,
}

/// A slot without a pair.
const EMPTY: (u32, u32) = (0, u32::MAX);

impl Slots {
    /// Without pairs.
    pub fn new() -> Self {
        Self { segments: vec![Segment::new(SEGMENT_MIN)], ones: 0, len: 0 }
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn number(&self, hash: u32) -> usize {
        let number = hash as usize & self.ones;
        if number < self.segments.len() { number } else { number & self.ones >> 1 }
    }

    #[inline]
    fn segment(&self, hash: u32) -> &Segment {
        &self.segments[self.number(hash)]
    }

    fn segment_mut(&mut self, hash: u32) -> &mut Segment {
        let number = self.number(hash);
        &mut self.segments[number]
    }

    /// Brings what [`Slots::probe`] looks at first closer.
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        let segment = self.segment(hash);
        prefetch(&segment.slots[segment.start(hash)]);
    }

    /// The places whose hash is `hash`, in probing order.
    #[inline]
    pub fn probe(&self, hash: u32) -> impl Iterator<Item = u32> {
        let segment = self.segment(hash);
        let (start, last) = (segment.start(hash), segment.slots.len() - 1);
        (0..=last)
            .map(move |step| segment.slots[(start + step) & last])
            .take_while(|slot| *slot != EMPTY)
            .filter(move |slot| slot.0 == hash)
            .map(|slot| slot.1)
    }

    /// Adds a pair.
    pub fn insert(&mut self, hash: u32, place: u32) {
        if self.len >= SEGMENT_LEN * self.segments.len() {
            self.split();
        }
        self.segment_mut(hash).insert((hash, place));
        self.len += 1;
    }

    fn split(&mut self) {
        let number = self.segments.len();
        let from = number - (1 << number.ilog2());
        let slots = self.segments[from].slots.len();
        let old = std::mem::replace(&mut self.segments[from], Segment::new(slots / 2));
        self.segments.push(Segment::new(slots / 2));
        self.ones = self.segments.len().next_power_of_two() - 1;
        for slot in old.slots.into_iter().filter(|slot| *slot != EMPTY) {
            self.segment_mut(slot.0).insert(slot);
        }
    }

    /// Removes a pair that is there.
    pub fn remove(&mut self, hash: u32, place: u32) {
        self.segment_mut(hash).remove((hash, place));
        self.len -= 1;
    }
}

impl Segment {
    fn new(slots: usize) -> Self {
        Self { slots: vec![EMPTY; slots.max(SEGMENT_MIN)], len: 0 }
    }

    /// Where the search for a hash starts. Its low bits chose the segment.
    #[inline]
    fn start(&self, hash: u32) -> usize {
        hash.rotate_left(16) as usize & (self.slots.len() - 1)
    }

    fn insert(&mut self, slot: (u32, u32)) {
        if (self.len + 1) * 2 > self.slots.len() {
            let larger = vec![EMPTY; self.slots.len() * 2];
            for slot in std::mem::replace(&mut self.slots, larger) {
                if slot != EMPTY {
                    self.settle(slot);
                }
            }
        }
        self.settle(slot);
        self.len += 1;
    }

    /// Puts a slot where probing finds it. There is an empty one: the segment is at most half full.
    fn settle(&mut self, slot: (u32, u32)) {
        let last = self.slots.len() - 1;
        let mut at = self.start(slot.0);
        while self.slots[at] != EMPTY {
            at = (at + 1) & last;
        }
        self.slots[at] = slot;
    }

    fn remove(&mut self, slot: (u32, u32)) {
        let last = self.slots.len() - 1;
        let mut at = self.start(slot.0);
        while self.slots[at] != slot {
            debug_assert!(self.slots[at] != EMPTY, "a megaflow is in its subtable");
            at = (at + 1) & last;
        }
        self.slots[at] = EMPTY;
        self.len -= 1;
        // Whatever follows without a gap may have been pushed on by the slot that is gone: put it in again.
        loop {
            at = (at + 1) & last;
            let slot = std::mem::replace(&mut self.slots[at], EMPTY);
            if slot == EMPTY {
                return;
            }
            self.settle(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn works_like_a_set(operations in prop::collection::vec((0..3u8, 0..200u32), 0..600)) {
            let (mut slots, mut reference) = (Slots::new(), HashSet::new());
            for (operation, key) in operations {
                // Few hashes, of which some start at the same slot.
                let pair = ((key % 8) << 16 | (key % 3) << 30, key);
                match operation {
                    0 | 1 if reference.insert(pair) => slots.insert(pair.0, pair.1),
                    2 if reference.remove(&pair) => slots.remove(pair.0, pair.1),
                    _ => {}
                }
                let found: HashSet<_> = slots.probe(pair.0).map(|place| (pair.0, place)).collect();
                prop_assert_eq!(found, reference.iter().filter(|other| other.0 == pair.0).copied().collect());
                prop_assert_eq!(slots.len(), reference.len());
            }
        }
    }

    #[test]
    fn no_insertion_moves_many() {
        let mut slots = Slots::new();
        let hash = |place: u32| place.wrapping_mul(0x9e37_79b9);
        (0..200_000).for_each(|place| slots.insert(hash(place), place));
        let longest = slots.segments.iter().map(|segment| segment.slots.len()).max();
        assert!(longest <= Some(8 * SEGMENT_LEN), "{longest:?}");
        assert!((0..200_000).all(|place| slots.probe(hash(place)).any(|other| other == place)));
        (0..200_000).step_by(2).for_each(|place| slots.remove(hash(place), place));
        assert!((0..200_000).all(|place| slots.probe(hash(place)).any(|other| other == place) == (place % 2 == 1)));
    }
}

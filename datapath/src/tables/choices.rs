//! Which bucket of a select group gets which flows.
//!
//! A table of slots, each with a bucket; a flow's hash chooses the slot. Filling it is Maglev's way (Eisenbud et al., NSDI 2016): every bucket has a
//! permutation of the slots of its own, and the buckets take turns, as often as their weights say, at taking the next slot of theirs that is still free. So
//! each bucket has its share of the slots to within one, and when a bucket comes or goes, few slots change between the others: its flows are spread, theirs
//! mostly stay. A bucket's permutation follows from what the bucket is, not from its place in the group.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::group::BucketSpec;
use crate::classifier::mix;

/// How many slots there are for the bucket with the least weight, if that can be: its share is right to within one of so many.
const SLOTS_FOR_LEAST: u64 = 64;
const SLOTS_MIN: usize = 1 << 8;
const SLOTS_MAX: usize = 1 << 16;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// The places of buckets in their group; a power of two of them.
    slots: Box<[u16]>,
    seed: u64,
}

impl Choices {
    /// Shares flows out to those buckets of `buckets` that are at the places `live`, by their weights. `None` if none of them has a weight. Groups with different
    /// `seed`s make different choices.
    pub(super) fn new<'a>(buckets: impl Fn(u16) -> &'a BucketSpec, live: &[u16], seed: u64) -> Option<Self> {
        let mut ordinals: HashMap<u64, u64> = HashMap::new();
        let mut takers: Vec<_> = live
            .iter()
            .map(|place| (*place, buckets(*place)))
            .filter(|(_, bucket)| bucket.weight > 0)
            .map(|(place, bucket)| {
                let mut hasher = DefaultHasher::new();
                (bucket.watch_port, bucket.watch_group, &bucket.actions).hash(&mut hasher);
                let identity = hasher.finish();
                // Buckets that are the same differ in which of them they are.
                let ordinal = ordinals.entry(identity).or_default();
                *ordinal += 1;
                Taker::new(place, bucket.weight, mix(mix(seed, identity), *ordinal))
            })
            .collect();
        let total: u64 = takers.iter().map(|taker| taker.weight).sum();
        let least = takers.iter().map(|taker| taker.weight).min()?;
        let wanted = (SLOTS_FOR_LEAST * total / least) as usize;
        let count = wanted.next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX);
        let mut slots = vec![None; count];
        // A taker's turn comes when it has the smallest share of what it is to have; ties are broken by what the takers are.
        let mut turns: BinaryHeap<Turn> = takers.iter_mut().enumerate().map(|(at, taker)| taker.turn(at)).collect();
        for _ in 0..count {
            let (_, _, at) = turns.pop()?.0;
            let taker = &mut takers[at];
            let slot = std::iter::repeat_with(|| taker.next_slot(count)).find(|slot| slots[*slot].is_none())?;
            slots[slot] = Some(taker.place);
            turns.push(taker.turn(at));
        }
        Some(Self { slots: slots.into_iter().flatten().collect(), seed })
    }

    /// The place of the bucket for the flow with this hash.
    #[inline]
    pub fn choose(&self, hash: u32) -> u16 {
        self.slots[mix(self.seed, hash.into()) as usize & (self.slots.len() - 1)]
    }
}

/// A bucket that takes slots.
struct Taker {
    place: u16,
    weight: u64,
    /// Where its permutation of the slots starts, and its step, which is odd, so that it comes by every slot.
    next: u64,
    step: u64,
    identity: u64,
    taken: u64,
}

/// How long a taker waits for its next slot, its identity, and its place among the takers; the least first.
type Turn = Reverse<(u128, u64, usize)>;

impl Taker {
    fn new(place: u16, weight: u16, identity: u64) -> Self {
        Self { place, weight: weight.into(), next: mix(identity, 1), step: mix(identity, 2) | 1, identity, taken: 0 }
    }

    fn next_slot(&mut self, count: usize) -> usize {
        let slot = self.next as usize & (count - 1);
        self.next = self.next.wrapping_add(self.step);
        slot
    }

    fn turn(&mut self, at: usize) -> Turn {
        self.taken += 1;
        Reverse(((u128::from(self.taken) << 64) / u128::from(self.weight), self.identity, at))
    }
}

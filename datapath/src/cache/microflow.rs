//! The microflow cache: from the hash of a flow key to the megaflow it is probably in.
//!
//! An entry is eight bytes, a tag and a megaflow's number, so that a bucket of eight fills one cache line and a few hundred thousand
//! microflows fit the second-level cache. It holds no key: a candidate is verified against the megaflow itself, under the megaflow's mask. As
//! megaflows are disjoint, any one that agrees is the right one, so a wrong or stale entry costs time and never truth; and a field that
//! nobody examines, a TTL say, never causes a miss.

use super::FlowId;
use crate::memory::prefetch;

const WAYS: usize = 8;

/// A cache line of entries. A zero tag is an empty entry.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket {
    tags: [u32; WAYS],
    flows: [u32; WAYS],
}

/// See the module.
pub(super) struct Microflows {
    buckets: Box<[Bucket]>,
    victim: usize,
}

impl Microflows {
    /// A cache of at least `entries` entries, which must not be zero.
    pub fn new(entries: usize) -> Self {
        Self { buckets: vec![Bucket::default(); entries.div_ceil(WAYS).next_power_of_two()].into(), victim: 0 }
    }

    fn index(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn tag(hash: u64) -> u32 {
        (hash >> 32) as u32 | 1
    }

    /// Brings the bucket of `hash` closer.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.index(hash)]);
    }

    /// The megaflow that the flow of `hash` was last seen in.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<FlowId> {
        let bucket = &self.buckets[self.index(hash)];
        let tag = Self::tag(hash);
        // No early exit: eight compares without a branch are one or two vector instructions.
        let matching = bucket.tags.iter().enumerate().fold(0u32, |map, (way, t)| map | u32::from(*t == tag) << way);
        (matching != 0).then(|| FlowId(bucket.flows[matching.trailing_zeros() as usize]))
    }

    /// Remembers that the flow of `hash` is in `flow`.
    pub fn insert(&mut self, hash: u64, flow: FlowId) {
        let index = self.index(hash);
        let bucket = &mut self.buckets[index];
        let tag = Self::tag(hash);
        let way = bucket.tags.iter().position(|t| *t == tag).or_else(|| bucket.tags.iter().position(|t| *t == 0)).unwrap_or_else(|| {
            self.victim = (self.victim + 1) % WAYS;
            self.victim
        });
        bucket.tags[way] = tag;
        bucket.flows[way] = flow.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_gives_way_to_the_newest() {
        let mut cache = Microflows::new(WAYS);
        for i in 1..=20u64 {
            cache.insert(i << 33, FlowId(i as u32));
            assert_eq!(cache.candidate(i << 33), Some(FlowId(i as u32)));
        }
        assert_eq!((1..=20u64).filter(|i| cache.candidate(i << 33).is_some()).count(), WAYS);
        cache.insert(20 << 33, FlowId(7));
        assert_eq!(cache.candidate(20 << 33), Some(FlowId(7)));
    }
}

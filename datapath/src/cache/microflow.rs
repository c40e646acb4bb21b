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
}

impl Microflows {
    /// A cache of at least `entries` entries, which must not be zero.
    pub fn new(entries: usize) -> Self {
        Self { buckets: vec![Bucket::default(); entries.div_ceil(WAYS).next_power_of_two()].into() }
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

    /// The way of its bucket that a flow would rather have, so that most are found at the first look.
    fn favourite(hash: u64) -> usize {
        (hash >> 61) as usize % WAYS
    }

    /// The megaflow that the flow of `hash` was last seen in.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<FlowId> {
        let bucket = &self.buckets[self.index(hash)];
        let (tag, way) = (Self::tag(hash), Self::favourite(hash));
        if bucket.tags[way] == tag {
            return Some(FlowId(bucket.flows[way]));
        }
        // No early exit: eight compares without a branch are one or two vector instructions.
        let matching = bucket.tags.iter().enumerate().fold(0u32, |map, (way, t)| map | u32::from(*t == tag) << way);
        (matching != 0).then(|| FlowId(bucket.flows[matching.trailing_zeros() as usize]))
    }

    /// Remembers that the flow of `hash` is in `flow`. In a full bucket it takes its favourite way from whoever has it.
    pub fn insert(&mut self, hash: u64, flow: FlowId) {
        let index = self.index(hash);
        let bucket = &mut self.buckets[index];
        let (tag, favourite) = (Self::tag(hash), Self::favourite(hash));
        let empty = || (0..WAYS).map(|step| (favourite + step) % WAYS).find(|way| bucket.tags[*way] == 0);
        let way = bucket.tags.iter().position(|t| *t == tag).or_else(empty).unwrap_or(favourite);
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
        let hash = |i: u64| i << 33 | i << 61;
        for i in 1..=20 {
            cache.insert(hash(i), FlowId(i as u32));
            assert_eq!(cache.candidate(hash(i)), Some(FlowId(i as u32)));
        }
        assert_eq!((1..=20).filter(|i| cache.candidate(hash(*i)).is_some()).count(), WAYS);
        cache.insert(hash(20), FlowId(7));
        assert_eq!(cache.candidate(hash(20)), Some(FlowId(7)));
    }

    #[test]
    fn flows_with_the_same_favourite_do_not_drive_each_other_out_while_there_is_room() {
        let mut cache = Microflows::new(WAYS);
        for i in 1..=WAYS as u64 {
            cache.insert(i << 33, FlowId(i as u32));
        }
        assert!((1..=WAYS as u64).all(|i| cache.candidate(i << 33) == Some(FlowId(i as u32))));
    }
}

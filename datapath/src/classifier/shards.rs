//! A hash table that is cheap to clone, and cheap to change after it was cloned.
//!
//! The entries are spread over small shards, each behind an `Arc`, and the shards over groups, each behind another. A clone copies the list of groups; a change
//! copies the group and the shard that it is in, if a clone still shares them. So a change costs about as much in a table of a million entries as in one of a
//! thousand, and one that follows another clone costs nothing that earlier ones have copied.
//! The number of shards grows by one at a time (linear hashing: shard `n` is split off the shard whose number is `n` without its highest
//! bit), so that no single insertion pays for all.
//!
//! Within a shard: open addressing with linear probing; the 32-bit hashes lie side by side, apart from the values, so that a search that finds
//! nothing usually reads one cache line.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

/// The entries of a shard, on average, before another is added: hardly any shard has so many that they don't fit into [`PLACES`].
const SHARD: usize = 6;
/// The places of a shard that need no memory of their own, so that a shard is copied with one allocation.
const PLACES: usize = 16;
/// The shards of a group.
const GROUP: usize = 64;

/// A multimap from 32-bit hashes to values. What makes two values the same is up to the caller.
#[derive(Clone, Debug)]
pub struct Shards<V> {
    /// All with [`GROUP`] places for shards, but for the first while it is the only one.
    groups: Vec<Arc<[Arc<Shard<V>>]>>,
    /// The number of shards; places behind them are empty.
    count: usize,
    /// The bits of a hash that choose the shard: one less than the power of two that the number of shards is on its way to.
    ones: usize,
    len: usize,
}

#[derive(Clone, Debug)]
struct Shard<V> {
    /// The hash of the value in each place; zero if there is none. Empty or a power of two in length.
    hashes: SmallVec<[u32; PLACES]>,
    values: SmallVec<[Option<V>; PLACES]>,
    len: usize,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self { groups: Vec::new(), count: 0, ones: 0, len: 0 }
    }
}

impl<V: Clone> Shards<V> {
    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values, in an order that depends on their hashes and history only.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.shards().flat_map(|shard| shard.values.iter().flatten())
    }

    fn shards(&self) -> impl Iterator<Item = &Arc<Shard<V>>> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// The hash of the only value, if there is exactly one.
    pub fn only(&self) -> Option<u32> {
        let hashes = || self.shards().flat_map(|shard| &shard.hashes);
        if self.len == 1 { hashes().find(|hash| **hash != 0).copied() } else { None }
    }

    /// Whether there is a value with this hash.
    #[inline]
    pub fn contains(&self, hash: u32) -> bool {
        self.find(hash, |_| true).is_some()
    }

    /// A value with this hash that `is` the one.
    #[inline]
    pub fn find<'a>(&'a self, hash: u32, is: impl FnMut(&'a V) -> bool) -> Option<&'a V> {
        let shard = self.shard(self.number(hash))?;
        shard.values[shard.place(hash, is)?].as_ref()
    }

    /// A value with this hash that `is` the one, to be changed.
    pub fn find_mut(&mut self, hash: u32, is: impl FnMut(&V) -> bool) -> Option<&mut V> {
        let number = self.number(hash);
        let place = self.shard(number)?.place(hash, is)?;
        self.shard_mut(number).values[place].as_mut()
    }

    /// Adds a value.
    pub fn insert(&mut self, hash: u32, value: V) {
        if self.len >= SHARD * self.count {
            self.split();
        }
        let number = self.number(hash);
        self.shard_mut(number).insert(nonzero(hash), value);
        self.len += 1;
    }

    /// Removes a value with this hash that `is` the one.
    pub fn remove(&mut self, hash: u32, is: impl FnMut(&V) -> bool) -> Option<V> {
        let number = self.number(hash);
        let place = self.shard(number)?.place(hash, is)?;
        let removed = self.shard_mut(number).remove(place);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
        removed
    }

    /// The number of the shard for a hash.
    #[inline]
    fn number(&self, hash: u32) -> usize {
        let number = nonzero(hash) as usize & self.ones;
        if number < self.count { number } else { number & self.ones >> 1 }
    }

    #[inline]
    fn shard(&self, number: usize) -> Option<&Shard<V>> {
        Some(&self.groups.get(number / GROUP)?[number % GROUP])
    }

    /// A shard that there is, to be changed.
    fn shard_mut(&mut self, number: usize) -> &mut Shard<V> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.groups[number / GROUP])[number % GROUP])
    }

    /// Adds a shard: splits it off another.
    fn split(&mut self) {
        let number = self.count;
        self.make_room(number);
        self.count += 1;
        self.ones = self.count.next_power_of_two() - 1;
        if number > 0 {
            let old = self.shard_mut(number - (1 << number.ilog2()));
            let old = std::mem::take(old);
            for (hash, value) in old.hashes.into_iter().zip(old.values) {
                if let Some(value) = value {
                    let number = self.number(hash);
                    self.shard_mut(number).insert(hash, value);
                }
            }
        }
    }

    /// Makes a place for shard `number`, the next one.
    fn make_room(&mut self, number: usize) {
        let has = self.groups.last().map_or(0, |last| (self.groups.len() - 1) * GROUP + last.len());
        if number < has {
            return;
        }
        let empty = Arc::<Shard<V>>::default();
        // A table of a few entries is small, as most are.
        let (taken, places) = if has < GROUP { (self.groups.pop(), (2 * has).max(1)) } else { (None, GROUP) };
        let taken = taken.iter().flat_map(|group| group.iter().cloned());
        self.groups.push(taken.chain(std::iter::repeat(empty)).take(places).collect());
    }
}

/// Zero marks a free place.
#[inline]
pub(super) fn nonzero(hash: u32) -> u32 {
    hash.max(1)
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self { hashes: SmallVec::new(), values: SmallVec::new(), len: 0 }
    }
}

impl<V> Shard<V> {
    /// Without values, but with this many places: none, or a power of two.
    fn with_places(places: usize) -> Self {
        Self { hashes: smallvec![0; places], values: std::iter::repeat_with(|| None).take(places).collect(), len: 0 }
    }

    /// The place where the search for a hash starts. The low bits of the hash chose the shard, so these are others.
    fn start(&self, hash: u32) -> usize {
        hash.rotate_left(16) as usize & (self.hashes.len() - 1)
    }

    /// The place of a value with this hash that `is` the one.
    #[inline]
    fn place<'a>(&'a self, hash: u32, mut is: impl FnMut(&'a V) -> bool) -> Option<usize> {
        let hash = nonzero(hash);
        let hashes = &self.hashes[..];
        let ones = hashes.len().checked_sub(1)?;
        let mut place = self.start(hash);
        // A quarter of the places is free, so the search ends.
        while hashes[place & ones] != 0 {
            if hashes[place & ones] == hash && self.values[place & ones].as_ref().is_some_and(&mut is) {
                return Some(place & ones);
            }
            place += 1;
        }
        None
    }

    fn insert(&mut self, hash: u32, value: V) {
        if (self.len + 1) * 4 > self.hashes.len() * 3 {
            let places = (self.hashes.len() * 2).max(PLACES);
            let old = std::mem::replace(self, Self::with_places(places));
            for (hash, value) in old.hashes.into_iter().zip(old.values) {
                if let Some(value) = value {
                    self.insert(hash, value);
                }
            }
        }
        let mut place = self.start(hash);
        while self.hashes[place] != 0 {
            place = (place + 1) & (self.hashes.len() - 1);
        }
        self.hashes[place] = hash;
        self.values[place] = Some(value);
        self.len += 1;
    }

    /// Takes the value out of `place` and closes the gap, so that every value can be reached from where its search starts.
    fn remove(&mut self, place: usize) -> Option<V> {
        let ones = self.hashes.len() - 1;
        let removed = self.values[place].take();
        self.hashes[place] = 0;
        self.len -= 1;
        let (mut gap, mut next) = (place, (place + 1) & ones);
        while self.hashes[next] != 0 {
            let from_start = next.wrapping_sub(self.start(self.hashes[next])) & ones;
            if from_start >= next.wrapping_sub(gap) & ones {
                self.hashes.swap(gap, next);
                self.values.swap(gap, next);
                gap = next;
            }
            next = (next + 1) & ones;
        }
        if self.len == 0 {
            *self = Self::default();
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut values: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
        values.sort();
        values
    }

    proptest! {
        /// Few different hashes, some of them meeting in the same place, and clones that must not see later changes.
        #[test]
        fn works_like_a_vector(operations in prop::collection::vec((0..3u8, 0..40u32, 0..3u32, any::<bool>()), 0..400)) {
            let mut shards = Shards::default();
            let mut reference: Vec<(u32, u32)> = Vec::new();
            let mut clones = Vec::new();
            for (operation, key, value, clone) in operations {
                let hash = (key % 8) | ((key / 8) << 16);
                match operation {
                    0 | 1 => {
                        shards.insert(hash, (hash, value));
                        reference.push((hash, value));
                    }
                    _ => {
                        let at = reference.iter().position(|entry| *entry == (hash, value));
                        prop_assert_eq!(shards.remove(hash, |entry| *entry == (hash, value)), at.map(|at| reference.swap_remove(at)));
                    }
                }
                prop_assert_eq!(shards.find(hash, |entry| *entry == (hash, value)).is_some(), reference.contains(&(hash, value)));
                prop_assert_eq!(shards.only(), (reference.len() == 1).then(|| nonzero(reference[0].0)));
                prop_assert_eq!(shards.len, reference.len());
                if clone && clones.len() < 5 {
                    clones.push((shards.clone(), reference.clone()));
                }
            }
            clones.push((shards, reference));
            for (shards, reference) in clones {
                prop_assert_eq!(sorted(shards.iter().copied().collect()), sorted(reference));
            }
        }
    }

    #[test]
    fn a_change_copies_one_small_shard_and_its_group() {
        let mut shards = Shards::default();
        let hashes = |i: u32| i.wrapping_mul(0x9e37_79b9);
        for i in 0..100_000 {
            shards.insert(hashes(i), Arc::new(i));
        }
        let longest = shards.shards().map(|shard| shard.len).max().unwrap_or(0);
        assert!(shards.groups.len() < 300 && longest < 30, "{} groups, the longest shard {longest}", shards.groups.len());
        let published = shards.clone();
        shards.remove(hashes(7), |value| **value == 7).expect("it is there");
        let copied = shards.groups.iter().zip(&published.groups).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
        let copied = shards.shards().zip(published.shards()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
        assert!(published.find(hashes(7), |value| **value == 7).is_some());
        assert!((0..100_000).all(|i| shards.find(hashes(i), |value| **value == i).is_some() == (i != 7)));
        (0..100_000).filter(|i| *i != 7).for_each(|i| drop(shards.remove(hashes(i), |value| **value == i).expect("it is there")));
        assert!(shards.groups.is_empty(), "what is empty takes no memory");
    }
}

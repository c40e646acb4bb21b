//! Which bucket of a select group gets which flows.
//!
//! A table of slots, each of which has a bucket; a flow's hash chooses the slot. Each bucket has its share of the slots, by weight, to within one. Flows stay
//! where they are as far as that can be: when the shares change, buckets that have too many slots give some up, and those that have too few get them; no slot
//! goes from one bucket to another for any other reason. So the flows that move are those that the new shares ask for, and no more.
//!
//! There are two steps. The *shares* are among all buckets, whether live or not. A modified group starts from the shares of the one before it, so they have a
//! history. What is *chosen* from follows from the shares alone: the slots of buckets that are not live are given to those that are. When a bucket lives again,
//! it has the flows that it had.
//!
//! Any slots are as good as any others, because the hash scatters the flows over all of them.

use std::collections::HashMap;

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
    /// The shares of `buckets`. `before` is what there was in their place: the shares, and whose they were. `None` if no bucket has a weight. Groups with
    /// different `seed`s make different choices.
    pub(super) fn shares(buckets: &[&BucketSpec], before: Option<(&Self, &[&BucketSpec])>, seed: u64) -> Option<Self> {
        let weights: Vec<u64> = buckets.iter().map(|bucket| bucket.weight.into()).collect();
        let (total, least) = (weights.iter().sum::<u64>(), weights.iter().filter(|weight| **weight > 0).min()?);
        let wanted = (SLOTS_FOR_LEAST * total / least) as usize;
        let count = wanted.next_power_of_two().clamp(SLOTS_MIN, SLOTS_MAX);
        let slots = match before {
            // Of a table of half the size, each slot becomes two.
            Some((shares, old)) => {
                let new_places = new_places(old, buckets);
                let count = count.max(shares.slots.len());
                (0..count).map(|slot| new_places[usize::from(shares.slots[slot & (shares.slots.len() - 1)])]).collect()
            }
            None => vec![None; count],
        };
        Some(Self { slots: give_out(slots, &weights), seed })
    }

    /// What to choose from while only those buckets of `buckets` are live that are at the places `live`. `None` if none of them has a weight.
    pub(super) fn among(&self, live: &[u16], buckets: &[&BucketSpec]) -> Option<Self> {
        let mut weights = vec![0; buckets.len()];
        live.iter().map(|place| usize::from(*place)).for_each(|place| weights[place] = buckets[place].weight.into());
        let any = weights.iter().any(|weight| *weight > 0);
        any.then(|| Self { slots: give_out(self.slots.iter().copied().map(Some).collect(), &weights), seed: self.seed })
    }

    /// The place of the bucket for the flow with this hash.
    #[inline]
    pub fn choose(&self, hash: u32) -> u16 {
        self.slots[mix(self.seed, hash.into()) as usize & (self.slots.len() - 1)]
    }
}

/// Where each of the buckets `old` is among `new`, if it is the same but for its weight.
fn new_places(old: &[&BucketSpec], new: &[&BucketSpec]) -> Vec<Option<u16>> {
    let identity = |bucket: &BucketSpec| BucketSpec { weight: 0, ..bucket.clone() };
    let mut places: HashMap<BucketSpec, Vec<u16>> = HashMap::new();
    // The first of several that are the same is the last in its list, and so found first.
    for (place, bucket) in new.iter().enumerate().rev() {
        places.entry(identity(bucket)).or_default().push(place as u16);
    }
    old.iter().map(|bucket| places.get_mut(&identity(bucket))?.pop()).collect()
}

/// Gives each bucket its part of the slots, by these weights, one of which is not zero. Slots stay with the bucket that has them, as far as it may have so many.
fn give_out(mut slots: Vec<Option<u16>>, weights: &[u64]) -> Box<[u16]> {
    let mut due = parts(slots.len(), weights);
    for slot in &mut slots {
        *slot = slot.filter(|place| {
            let due = &mut due[usize::from(*place)];
            let stays = *due > 0;
            *due -= usize::from(stays);
            stays
        });
    }
    let mut takers = (0..).zip(due).flat_map(|(place, due)| std::iter::repeat_n(place, due));
    slots.into_iter().filter_map(|slot| slot.or_else(|| takers.next())).collect()
}

/// `count`, in parts by weight, each of which is right to within one: what is left when all are rounded down goes to those that lost most by it.
fn parts(count: usize, weights: &[u64]) -> Vec<usize> {
    let total: u64 = weights.iter().sum();
    let mut parts: Vec<_> = weights.iter().map(|weight| (count as u64 * weight / total) as usize).collect();
    let mut losers: Vec<_> = (0..weights.len()).collect();
    losers.sort_by_key(|place| std::cmp::Reverse(count as u64 * weights[*place] % total));
    let left = count - parts.iter().sum::<usize>();
    losers.iter().take(left).for_each(|place| parts[*place] += 1);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::PortNo;
    use crate::tables::group::GROUP_ANY;
    use crate::tables::instruction::OfAction;

    /// A bucket that sends to a port.
    fn bucket(weight: u16, port: u32) -> BucketSpec {
        let actions = [OfAction::Output { port: PortNo(port), max_len: 0 }][..].into();
        BucketSpec { weight, watch_port: PortNo::ANY, watch_group: GROUP_ANY, actions }
    }

    fn shares(buckets: &[BucketSpec], before: Option<(&Choices, &[BucketSpec])>) -> Choices {
        let old: Vec<_> = before.iter().flat_map(|before| before.1).collect();
        let before = before.map(|(shares, _)| (shares, &old[..]));
        Choices::shares(&buckets.iter().collect::<Vec<_>>(), before, 1).expect("buckets with weights")
    }

    fn counts(choices: &Choices, buckets: usize) -> Vec<usize> {
        (0..buckets).map(|at| choices.slots.iter().filter(|slot| usize::from(**slot) == at).count()).collect()
    }

    #[test]
    fn shares_are_right_to_within_a_slot() {
        for weights in [&[1, 1][..], &[1, 2, 3], &[0, 5, 0], &[100, 50, 25, 10], &[u16::MAX, 1], &[7; 300]] {
            let buckets: Vec<_> = weights.iter().zip(1..).map(|(weight, port)| bucket(*weight, port)).collect();
            let choices = shares(&buckets, None);
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (count, weight) in counts(&choices, weights.len()).into_iter().zip(weights) {
                let exact = choices.slots.len() as f64 * f64::from(*weight) / total;
                assert!((count as f64 - exact).abs() < 1.0, "{count} slots for {weight} of {weights:?}");
            }
        }
        let weightless = bucket(0, 1);
        assert_eq!(Choices::shares(&[&weightless], None, 1), None);
        assert_eq!(Choices::shares(&[], None, 1), None);
    }

    #[test]
    fn no_flow_moves_that_need_not() {
        let before = [bucket(3, 1), bucket(2, 2), bucket(1, 3), bucket(1, 3)];
        let old = shares(&before, None);
        let after = [[bucket(1, 9)].as_slice(), &before[..2]].concat();
        let new = shares(&after, Some((&old, &before)));
        // The first two had 3/7 and 2/7, and are to have 3/6 and 2/6: they lose nothing.
        for hash in 0..10_000 {
            let (from, to) = (old.choose(hash), new.choose(hash));
            assert!(from >= 2 || to == from + 1, "bucket {from} is not to lose what {to} has now");
        }
        // Fewer slots would do, but nothing is gained by that.
        let heavy = [bucket(1000, 1), bucket(1, 2)];
        let fine = shares(&heavy, None);
        let coarse = shares(&[bucket(1, 1), bucket(1, 2)], Some((&fine, &heavy)));
        assert_eq!(coarse.slots.len(), fine.slots.len());
        let moved = (0..10_000).filter(|hash| fine.choose(*hash) == 1 && coarse.choose(*hash) != 1).count();
        assert_eq!(moved, 0);
    }

    #[test]
    fn only_flows_of_buckets_that_die_move_and_they_come_back() {
        let buckets = [bucket(3, 1), bucket(2, 2), bucket(0, 3), bucket(5, 4)];
        let refs: Vec<_> = buckets.iter().collect();
        let shares = shares(&buckets, None);
        assert_eq!(shares.among(&[0, 1, 2, 3], &refs), Some(shares.clone()));
        let without = shares.among(&[0, 2, 3], &refs).expect("two with weights");
        assert_eq!(counts(&without, 4)[1..3], [0, 0]);
        let moved = |other: &Choices| (0..shares.slots.len()).filter(|slot| shares.slots[*slot] != other.slots[*slot]).count();
        // To within the rounding of two shares.
        let dead = counts(&shares, 4)[1];
        assert!((dead..=dead + 2).contains(&moved(&without)), "{} moved, {dead} died", moved(&without));
        assert_eq!(shares.among(&[2], &refs), None);
        assert_eq!(shares.among(&[], &refs), None);
    }
}

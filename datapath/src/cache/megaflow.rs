//! The megaflow cache: tuple space search over masked keys, without priorities.
//!
//! A megaflow says that every frame whose key agrees with its own in the bits of a mask has the same actions. Megaflows of one mask share a
//! *subtable*, a hash table of masked keys. The megaflows that are current are disjoint, so the first match wins and the subtables can be
//! searched in any order. Which of them are worth a search is said by a [`Filter`].
//!
//! Every mask has the ingress port in it, so what the frames of one port bring in is a [`Space`] of its own: its subtables, its filter, the bits
//! that its masks look at. The frames of other ports neither find anything there nor are slowed down by it.
//!
//! A [`Megaflow`] is two cache lines: the first has the masked key, the second the counters and the number of its [verdict](super::verdict). The room
//! for all of them is reserved at the start, and used from its front, so that the cache never stops to move what it has.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::ops::Bound;

use super::filter::Filter;
use super::slots::Slots;
use super::verdict::VerdictId;
use super::{CacheLimits, FlowId};
use crate::Nanos;
use crate::classifier::mask::{Mask, mix, set_bits};
use crate::frame::BATCH;
use crate::key::{Examined, FlowKey, KEY_WORDS, KeyMask};
use crate::memory::prefetch;
use crate::port::PortNo;

/// Masked words that are kept beside the counters; an IPv4 key has no more.
const INLINE_WORDS: usize = 6;
/// The subtable of a place that is not in use.
const NOWHERE: u32 = u32::MAX;

/// The megaflows of one mask.
struct Subtable {
    mask: Mask<KEY_WORDS>,
    places: Slots,
    /// Hits since the subtables were last ranked.
    hits: u64,
    /// The port whose frames it is for.
    in_port: PortNo,
}

impl Subtable {
    fn new(mask: &KeyMask, in_port: PortNo) -> Self {
        Self { mask: Mask::new(mask), places: Slots::new(), hits: 0, in_port }
    }

    #[inline]
    fn hash(&self, key: &FlowKey, seed: u64) -> u32 {
        let hash = self.mask.hash(key, seed);
        (hash >> 32) as u32 ^ hash as u32
    }
}

/// See the module.
#[repr(C, align(64))]
pub(crate) struct Megaflow {
    /// The first masked words.
    key: [u64; INLINE_WORDS],
    subtable: u32,
    hash: u32,
    /// Whether the verdict relies on learned addresses, and so can go stale within an epoch.
    pub(super) learned: bool,
    // The second line starts here.
    /// The epoch of the tables that the verdict comes from.
    pub(super) epoch: u64,
    /// What becomes of the frames.
    pub(super) verdict: VerdictId,
    /// Frames so far.
    pub(super) frames: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// When the last of them came.
    pub(super) used: Nanos,
    /// When it was installed.
    pub(super) created: Nanos,
    /// The masked words that `key` has no room for.
    rest: Box<[u64]>,
}

const _: () = assert!(size_of::<Megaflow>() == 128 && offset_of!(Megaflow, epoch) == 64);

impl Megaflow {
    /// Says something newer, under the same mask.
    pub(super) fn renew(&mut self, current: Current) {
        Current { verdict: self.verdict, learned: self.learned, epoch: self.epoch } = current;
    }
}

/// What a megaflow says, and as of when.
#[derive(Clone, Copy)]
pub(super) struct Current {
    /// What becomes of the frames. It is held.
    pub verdict: VerdictId,
    /// Whether that relies on learned addresses.
    pub learned: bool,
    /// The epoch of the tables it comes from.
    pub epoch: u64,
}

/// See the module.
pub(crate) struct Megaflows {
    flows: Vec<Megaflow>,
    free: Vec<u32>,
    subtables: Vec<Subtable>,
    spaces: BTreeMap<PortNo, Space>,
    /// The filter that is being made for a port's space, from the megaflows that were visited since the subtables were last ranked, and new ones.
    renewal: Option<(PortNo, Filter)>,
    limits: CacheLimits,
    seed: u64,
}

/// The megaflows of the frames of one port.
#[derive(Default)]
struct Space {
    entries: usize,
    /// Knows the subtables.
    filter: Filter,
    /// The bits that some mask looks at.
    examined: Examined,
}

impl Megaflows {
    pub(super) fn new(limits: CacheLimits, seed: u64) -> Self {
        Self {
            flows: Vec::with_capacity(limits.megaflows),
            free: Vec::new(),
            subtables: Vec::new(),
            spaces: BTreeMap::new(),
            renewal: None,
            limits,
            seed,
        }
    }

    /// The number of megaflows.
    pub fn len(&self) -> usize {
        self.flows.len() - self.free.len()
    }

    /// The number of masks.
    pub fn masks(&self) -> usize {
        self.spaces.values().map(|space| space.filter.len()).sum()
    }

    /// The bits that tell the megaflows of the frames of `in_port` apart. Frames whose keys agree in them are in the same.
    pub(super) fn examined(&self, in_port: PortNo) -> &Examined {
        self.spaces.get(&in_port).map_or(&Examined::NONE, |space| &space.examined)
    }

    /// Brings a megaflow closer.
    #[inline]
    pub(super) fn prefetch(&self, id: FlowId) {
        if let Some(flow) = self.flows.get(id.0 as usize) {
            prefetch(flow);
            prefetch(&flow.epoch);
        }
    }

    /// Whether `key` is in the megaflow `id`, which may be the number of one that is gone.
    #[inline]
    pub(super) fn contains(&self, id: FlowId, key: &FlowKey) -> bool {
        let Some(flow) = self.flows.get(id.0 as usize) else { return false };
        let Some(subtable) = self.subtables.get(flow.subtable as usize) else { return false };
        Self::agrees(flow, &subtable.mask, key)
    }

    #[inline]
    fn agrees(flow: &Megaflow, mask: &Mask<KEY_WORDS>, key: &FlowKey) -> bool {
        let bits = mask.bits();
        let mut words = set_bits(mask.occupied());
        let differing = flow.key[..mask.packed_len().min(INLINE_WORDS)]
            .iter()
            .zip(&mut words)
            .fold(0, |differing, (value, i)| differing | (key.0[i] & bits.0[i]) ^ value);
        differing == 0 && flow.rest.iter().zip(words).all(|(value, i)| key.0[i] & bits.0[i] == *value)
    }

    /// The megaflow that `key` is in.
    pub(super) fn lookup(&self, key: &FlowKey) -> Option<FlowId> {
        let space = self.spaces.get(&in_port(key))?;
        space.filter.candidates(key).find_map(|number| {
            let subtable = &self.subtables[number as usize];
            let hash = subtable.hash(key, self.seed);
            subtable.places.probe(hash).find(|place| Self::agrees(&self.flows[*place as usize], &subtable.mask, key)).map(FlowId)
        })
    }

    /// Where to look first for the megaflows of those of `keys` whose bits are set in `slots`, all of `in_port`. What each step needs is asked for before any
    /// takes it, so that the waits for memory overlap. A candidate must be confirmed, and a key without one searched for.
    pub(super) fn foresee(&self, in_port: PortNo, keys: &[FlowKey; BATCH], slots: u32, candidates: &mut [Option<FlowId>; BATCH]) {
        let Some(space) = self.spaces.get(&in_port) else { return };
        let mut first = [(NOWHERE, 0); BATCH];
        for slot in set_bits(slots) {
            if let Some(number) = space.filter.candidates(&keys[slot]).next() {
                let subtable = &self.subtables[number as usize];
                let hash = subtable.hash(&keys[slot], self.seed);
                subtable.places.prefetch(hash);
                first[slot] = (number, hash);
            }
        }
        for slot in set_bits(slots) {
            let (number, hash) = first[slot];
            if let Some(place) = self.subtables.get(number as usize).and_then(|subtable| subtable.places.probe(hash).next()) {
                self.prefetch(FlowId(place));
                candidates[slot] = Some(FlowId(place));
            }
        }
    }

    /// Counts a hit of a search, by which subtables are ranked.
    #[inline]
    pub(super) fn count_hit(&mut self, id: FlowId) {
        self.subtables[self.flows[id.0 as usize].subtable as usize].hits += 1;
    }

    /// Whether a frame of `in_port` may install a megaflow under `mask`: there is room in the cache and in the port's share of entries and masks.
    pub(super) fn has_room(&self, in_port: PortNo, mask: &KeyMask) -> bool {
        let (entries, masks) = self.spaces.get(&in_port).map_or((0, 0), |space| (space.entries, space.filter.len()));
        self.len() < self.limits.megaflows
            && entries < self.limits.megaflows_per_port
            && (masks < self.limits.masks_per_port || self.find_subtable(in_port, mask).is_some())
    }

    /// The subtable for this mask.
    fn find_subtable(&self, in_port: PortNo, mask: &KeyMask) -> Option<u32> {
        self.spaces.get(&in_port)?.filter.subtables().find(|number| self.subtables[*number as usize].mask.bits() == mask)
    }

    /// Whether the port of a megaflow has more than half of what would be its share of a cache full of the megaflows of all ports that have some.
    pub(super) fn is_crowded(&self, id: FlowId) -> bool {
        let port = self.subtables[self.flow(id).subtable as usize].in_port;
        let entries = self.spaces.get(&port).map_or(0, |space| space.entries);
        entries > self.limits.megaflows_per_port.min(self.limits.megaflows / self.spaces.len().max(1)) / 2
    }

    /// The hash of the megaflow that `key` would be in under `mask`.
    pub(super) fn hash(&self, key: &FlowKey, mask: &KeyMask) -> u64 {
        key.0.iter().zip(&mask.0).fold(self.seed, |hash, (word, bits)| mix(mix(hash, word & bits), *bits))
    }

    /// Installs a megaflow: [`Megaflows::has_room`] was asked, and there is none that contains the key.
    pub(super) fn insert(&mut self, in_port: PortNo, key: &FlowKey, mask: &KeyMask, current: Current, now: Nanos) -> FlowId {
        let number = self.subtable_of(mask, in_port);
        let space = self.spaces.entry(in_port).or_default();
        space.entries += 1;
        space.filter.add(number, mask, key);
        if let Some((_, filter)) = self.renewal.as_mut().filter(|(port, _)| *port == in_port) {
            filter.add(number, mask, key);
        }
        let subtable = &mut self.subtables[number as usize];
        let hash = subtable.hash(key, self.seed);
        let mut words = set_bits(subtable.mask.occupied()).map(|i| key.0[i] & mask.0[i]);
        let mut inline = [0; INLINE_WORDS];
        for (value, word) in inline.iter_mut().zip(&mut words) {
            *value = word;
        }
        let flow = Megaflow {
            key: inline,
            rest: words.collect(),
            subtable: number,
            learned: current.learned,
            hash,
            epoch: current.epoch,
            verdict: current.verdict,
            frames: 0,
            bytes: 0,
            used: now,
            created: now,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.flows[place as usize] = flow;
                place
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as u32
            }
        };
        subtable.places.insert(hash, place);
        FlowId(place)
    }

    fn subtable_of(&mut self, mask: &KeyMask, in_port: PortNo) -> u32 {
        if let Some(number) = self.find_subtable(in_port, mask) {
            return number;
        }
        // A subtable that is empty is out of its space, and its place is free.
        let number = self.subtables.iter().position(|subtable| subtable.places.len() == 0).unwrap_or_else(|| {
            self.subtables.push(Subtable::new(mask, in_port));
            self.subtables.len() - 1
        });
        self.subtables[number] = Subtable::new(mask, in_port);
        let space = self.spaces.entry(in_port).or_default();
        space.examined.include(mask);
        space.filter.add_column(number as u32, mask);
        if let Some((_, filter)) = self.renewal.as_mut().filter(|(port, _)| *port == in_port) {
            filter.add_column(number as u32, mask);
        }
        number as u32
    }

    /// Removes a megaflow, whose verdict is to be released.
    pub(super) fn remove(&mut self, id: FlowId) {
        let flow = &mut self.flows[id.0 as usize];
        let number = std::mem::replace(&mut flow.subtable, NOWHERE);
        flow.rest = Box::default();
        let hash = flow.hash;
        self.free.push(id.0);
        let subtable = &mut self.subtables[number as usize];
        subtable.places.remove(hash, id.0);
        let in_port = subtable.in_port;
        let space = self.spaces.entry(in_port).or_default();
        space.entries -= 1;
        if subtable.places.len() == 0 {
            space.filter.remove_column(number);
            if let Some((_, filter)) = self.renewal.as_mut().filter(|(port, _)| *port == in_port) {
                filter.remove_column(number);
            }
        }
        if space.entries == 0 {
            self.spaces.remove(&in_port);
            self.renewal.take_if(|(port, _)| *port == in_port);
        }
        if self.free.len() == self.flows.len() {
            // Whoever looks at all places need not look at those of better days.
            self.flows.clear();
            self.free.clear();
        }
    }

    /// Tells the filter that is being made of the megaflow at a place, if there is one.
    pub(super) fn visit(&mut self, place: usize) {
        let Some(id) = self.at(place) else { return };
        let number = self.flow(id).subtable;
        let subtable = &self.subtables[number as usize];
        if self.renewal.as_ref().is_some_and(|(port, _)| *port == subtable.in_port) {
            let key = self.key(id);
            if let Some((_, filter)) = &mut self.renewal {
                filter.add(number, subtable.mask.bits(), &key);
            }
        }
    }

    /// To be called when all megaflows were visited since the last call: the filter that was being made is the one of its space from now on, and that of the
    /// next space is begun, with the most used subtables first.
    pub(super) fn rank(&mut self) {
        let renewed = self.renewal.take();
        let last = renewed.as_ref().map(|(port, _)| *port);
        if let Some((port, mut filter)) = renewed
            && let Some(space) = self.spaces.get_mut(&port)
        {
            filter.choose();
            space.filter = filter;
            space.examined = Examined::NONE;
            for number in space.filter.subtables() {
                space.examined.include(self.subtables[number as usize].mask.bits());
            }
        }
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        let Some((port, space)) = self.spaces.range((after, Bound::Unbounded)).next().or_else(|| self.spaces.iter().next()) else { return };
        let mut numbers: Vec<u32> = space.filter.subtables().collect();
        numbers.sort_by_key(|number| std::cmp::Reverse(self.subtables[*number as usize].hits));
        let subtables = &self.subtables;
        let filter = Filter::of(numbers.iter().map(|number| (*number, subtables[*number as usize].mask.bits())));
        self.renewal = Some((*port, filter));
        for number in numbers {
            self.subtables[number as usize].hits /= 2;
        }
    }

    /// The number of places, used or not: [`Megaflows::at`] takes the numbers below it.
    pub(super) fn places(&self) -> usize {
        self.flows.len()
    }

    /// The megaflow at a place, if there is one.
    pub(super) fn at(&self, place: usize) -> Option<FlowId> {
        self.flows.get(place).filter(|flow| flow.subtable != NOWHERE).map(|_| FlowId(place as u32))
    }

    /// What a hit needs of a megaflow.
    #[inline]
    pub(super) fn flow(&self, id: FlowId) -> &Megaflow {
        &self.flows[id.0 as usize]
    }

    /// The same, to be changed.
    #[inline]
    pub(super) fn flow_mut(&mut self, id: FlowId) -> &mut Megaflow {
        &mut self.flows[id.0 as usize]
    }

    /// The key of a megaflow, outside the mask zero.
    pub(super) fn key(&self, id: FlowId) -> FlowKey {
        let flow = self.flow(id);
        let mask = &self.subtables[flow.subtable as usize].mask;
        let mut key = FlowKey::ZERO;
        for (i, word) in set_bits(mask.occupied()).zip(flow.key.iter().chain(&flow.rest)) {
            key.0[i] = *word;
        }
        key
    }

    /// The mask of a megaflow.
    pub(super) fn mask(&self, id: FlowId) -> &KeyMask {
        self.subtables[self.flow(id).subtable as usize].mask.bits()
    }
}

/// The port that a key came in through.
#[inline]
fn in_port(key: &FlowKey) -> PortNo {
    PortNo((key.0[0] >> 32) as u32)
}

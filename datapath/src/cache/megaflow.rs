//! The megaflow cache: tuple space search over masked keys, without priorities.
//!
//! A megaflow says that every frame whose key agrees with its own in the bits of a mask has the same actions. Megaflows of one mask share a
//! *subtable*, a hash table of masked keys. The megaflows that are current are disjoint, so the first match wins and the subtables can be
//! searched in any order: the most used first.
//!
//! A [`Megaflow`] is two cache lines: the first has the masked key, the second the counters and the number of its [verdict](super::verdict). The room
//! for all of them is reserved at the start, and used from its front, so that the cache never stops to move what it has.

use std::collections::HashMap;

use super::verdict::VerdictId;
use super::{CacheLimits, FlowId};
use crate::Nanos;
use crate::classifier::mask::{Mask, mix, set_bits};
use crate::key::{FlowKey, KEY_WORDS, KeyMask};
use crate::memory::prefetch;
use crate::port::PortNo;

/// Masked words that are kept beside the counters; an IPv4 key has no more.
const INLINE_WORDS: usize = 6;
/// The subtable of a place that is not in use.
const NOWHERE: u16 = u16::MAX;

/// The megaflows of one mask: open addressing with linear probing over (hash, place) pairs. Empty slots have place [`u32::MAX`].
struct Subtable {
    mask: Mask<KEY_WORDS>,
    slots: Vec<(u32, u32)>,
    len: usize,
    /// Hits since the subtables were last ranked.
    hits: u64,
    /// The port whose frames brought this mask in; it counts against that port's share.
    cause: PortNo,
}

impl Subtable {
    const EMPTY: (u32, u32) = (0, u32::MAX);

    fn new(mask: &KeyMask, cause: PortNo) -> Self {
        Self { mask: Mask::new(mask), slots: vec![Self::EMPTY; 16], len: 0, hits: 0, cause }
    }

    #[inline]
    fn hash(&self, key: &FlowKey, seed: u64) -> u32 {
        let hash = self.mask.hash(key, seed);
        (hash >> 32) as u32 ^ hash as u32
    }

    /// The places whose hash is `hash`, in probing order.
    #[inline]
    fn probe(&self, hash: u32) -> impl Iterator<Item = u32> {
        let last = self.slots.len() - 1;
        (0..=last)
            .map(move |step| self.slots[(hash as usize + step) & last])
            .take_while(|slot| *slot != Self::EMPTY)
            .filter(move |slot| slot.0 == hash)
            .map(|slot| slot.1)
    }

    fn insert(&mut self, hash: u32, place: u32) {
        if (self.len + 1) * 2 > self.slots.len() {
            let larger = vec![Self::EMPTY; self.slots.len() * 2];
            for slot in std::mem::replace(&mut self.slots, larger) {
                if slot != Self::EMPTY {
                    self.settle(slot);
                }
            }
        }
        self.settle((hash, place));
        self.len += 1;
    }

    /// Puts a slot where probing finds it. There is an empty one: the table is at most half full.
    fn settle(&mut self, slot: (u32, u32)) {
        let last = self.slots.len() - 1;
        let mut at = slot.0 as usize & last;
        while self.slots[at] != Self::EMPTY {
            at = (at + 1) & last;
        }
        self.slots[at] = slot;
    }

    fn remove(&mut self, hash: u32, place: u32) {
        let last = self.slots.len() - 1;
        let mut at = hash as usize & last;
        while self.slots[at] != (hash, place) {
            debug_assert!(self.slots[at] != Self::EMPTY, "a megaflow is in its subtable");
            at = (at + 1) & last;
        }
        self.slots[at] = Self::EMPTY;
        self.len -= 1;
        // Whatever follows without a gap may have been pushed on by the slot that is gone: put it in again.
        loop {
            at = (at + 1) & last;
            let slot = std::mem::replace(&mut self.slots[at], Self::EMPTY);
            if slot == Self::EMPTY {
                return;
            }
            self.settle(slot);
        }
    }
}

/// See the module.
#[repr(align(64))]
pub(crate) struct Megaflow {
    /// The first masked words.
    key: [u64; INLINE_WORDS],
    subtable: u16,
    /// Whether the verdict relies on learned addresses, and so can go stale within an epoch.
    pub(super) learned: bool,
    hash: u32,
    // The second line starts here.
    /// The epoch of the tables that the verdict comes from.
    pub(super) epoch: u64,
    /// What becomes of the frames.
    pub(super) verdict: VerdictId,
    /// The port whose frame brought it in.
    in_port: PortNo,
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

const _: () = assert!(size_of::<Megaflow>() == 128);

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
    /// The subtables in use, most used first.
    ranking: Vec<u16>,
    per_port: HashMap<PortNo, PortShare>,
    limits: CacheLimits,
    seed: u64,
}

#[derive(Default)]
struct PortShare {
    entries: usize,
    masks: usize,
}

impl Megaflows {
    pub(super) fn new(limits: CacheLimits, seed: u64) -> Self {
        Self {
            flows: Vec::with_capacity(limits.megaflows),
            free: Vec::new(),
            subtables: Vec::new(),
            ranking: Vec::new(),
            per_port: HashMap::new(),
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
        self.ranking.len()
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
        let Some(subtable) = self.subtables.get(usize::from(flow.subtable)) else { return false };
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
    pub(super) fn lookup(&mut self, key: &FlowKey) -> Option<FlowId> {
        let found = self.ranking.iter().find_map(|number| {
            let subtable = &self.subtables[usize::from(*number)];
            let hash = subtable.hash(key, self.seed);
            let place = subtable.probe(hash).find(|place| Self::agrees(&self.flows[*place as usize], &subtable.mask, key))?;
            Some((*number, place))
        });
        let (number, place) = found?;
        self.subtables[usize::from(number)].hits += 1;
        Some(FlowId(place))
    }

    /// Whether a frame of `in_port` may install a megaflow under `mask`: there is room in the cache and in the port's share of entries and masks.
    pub(super) fn has_room(&self, in_port: PortNo, mask: &KeyMask) -> bool {
        let (entries, masks) = self.per_port.get(&in_port).map_or((0, 0), |share| (share.entries, share.masks));
        let known = || self.ranking.iter().any(|number| self.subtables[usize::from(*number)].mask.bits() == mask);
        self.len() < self.limits.megaflows
            && entries < self.limits.megaflows_per_port
            && (masks < self.limits.masks_per_port && self.ranking.len() < usize::from(NOWHERE) || known())
    }

    /// Whether the port of a megaflow has more than half of what would be its share of a cache full of the megaflows of all ports that have some.
    pub(super) fn is_crowded(&self, id: FlowId) -> bool {
        let entries = self.per_port.get(&self.flow(id).in_port).map_or(0, |share| share.entries);
        entries > self.limits.megaflows_per_port.min(self.limits.megaflows / self.per_port.len().max(1)) / 2
    }

    /// The hash of the megaflow that `key` would be in under `mask`.
    pub(super) fn hash(&self, key: &FlowKey, mask: &KeyMask) -> u64 {
        key.0.iter().zip(&mask.0).fold(self.seed, |hash, (word, bits)| mix(mix(hash, word & bits), *bits))
    }

    /// Installs a megaflow: [`Megaflows::has_room`] was asked, and there is none that contains the key.
    pub(super) fn insert(&mut self, in_port: PortNo, key: &FlowKey, mask: &KeyMask, current: Current, now: Nanos) -> FlowId {
        let number = self.subtable_of(mask, in_port);
        self.per_port.entry(in_port).or_default().entries += 1;
        let subtable = &mut self.subtables[usize::from(number)];
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
            in_port,
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
        subtable.insert(hash, place);
        FlowId(place)
    }

    fn subtable_of(&mut self, mask: &KeyMask, cause: PortNo) -> u16 {
        if let Some(number) = self.ranking.iter().find(|number| self.subtables[usize::from(**number)].mask.bits() == mask) {
            return *number;
        }
        self.per_port.entry(cause).or_default().masks += 1;
        // A subtable that is empty is out of the ranking, and its place is free.
        let number = self.subtables.iter().position(|subtable| subtable.len == 0).unwrap_or_else(|| {
            self.subtables.push(Subtable::new(mask, cause));
            self.subtables.len() - 1
        });
        self.subtables[number] = Subtable::new(mask, cause);
        self.ranking.push(number as u16);
        number as u16
    }

    /// Removes a megaflow, whose verdict is to be released.
    pub(super) fn remove(&mut self, id: FlowId) {
        let flow = &mut self.flows[id.0 as usize];
        let number = std::mem::replace(&mut flow.subtable, NOWHERE);
        flow.rest = Box::default();
        let (hash, in_port) = (flow.hash, flow.in_port);
        let subtable = &mut self.subtables[usize::from(number)];
        subtable.remove(hash, id.0);
        let (cause, empty) = (subtable.cause, subtable.len == 0);
        if empty {
            self.ranking.retain(|ranked| *ranked != number);
        }
        self.release_share(in_port, |share| share.entries -= 1);
        if empty {
            self.release_share(cause, |share| share.masks -= 1);
        }
        self.free.push(id.0);
        if self.free.len() == self.flows.len() {
            // Whoever looks at all places need not look at those of better days.
            self.flows.clear();
            self.free.clear();
        }
    }

    fn release_share(&mut self, port: PortNo, release: impl FnOnce(&mut PortShare)) {
        if let Some(share) = self.per_port.get_mut(&port) {
            release(share);
            if share.entries == 0 && share.masks == 0 {
                self.per_port.remove(&port);
            }
        }
    }

    /// Puts the most used subtables first, and halves what is remembered of their use.
    pub(super) fn rank(&mut self) {
        let subtables = &mut self.subtables;
        self.ranking.sort_by_key(|number| std::cmp::Reverse(subtables[usize::from(*number)].hits));
        for number in &self.ranking {
            subtables[usize::from(*number)].hits /= 2;
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
        let mask = &self.subtables[usize::from(flow.subtable)].mask;
        let mut key = FlowKey::ZERO;
        for (i, word) in set_bits(mask.occupied()).zip(flow.key.iter().chain(&flow.rest)) {
            key.0[i] = *word;
        }
        key
    }

    /// The mask of a megaflow.
    pub(super) fn mask(&self, id: FlowId) -> &KeyMask {
        self.subtables[usize::from(self.flow(id).subtable)].mask.bits()
    }
}

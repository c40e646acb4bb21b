//! The caches of one worker: microflows in front of megaflows, and the admission to them.
//!
//! The caches are invisible: whatever they hold, the actions carried out are those that a translation on the current tables gives. Three things
//! make that so. A candidate counts only if the whole of the megaflow's mask agrees. A megaflow carries the epoch of the tables it
//! was translated under, and the state of the learned addresses it relied on; when either has moved on, it is translated again before it
//! is used. And the frames that were counted are *settled* - credited to the rules they were forwarded by - before those can change.

mod admission;
mod filter;
mod megaflow;
mod microflow;
mod slots;
#[cfg(test)]
mod tests;
mod verdict;

use std::fmt;
use std::sync::Arc;

use admission::Admission;
use megaflow::{Current, Megaflows};
use microflow::Microflows;
use verdict::{Verdict, VerdictId, Verdicts};

use crate::Nanos;
use crate::action::Action;
use crate::frame::BATCH;
use crate::key::{FlowKey, KeyMask};
use crate::port::PortNo;
use crate::tables::{FlowMod, Tables};
use crate::translate::{Scratch, translate_into};

/// How long it takes at most to look at every megaflow once.
const SWEEP: Nanos = 1_000_000_000;
/// How often some of them are looked at.
const MAINTAIN_MIN: Nanos = 1_000_000;
const MAINTAIN_MAX: Nanos = 250_000_000;
/// How much is done at once, in megaflows looked at.
const WORK: usize = 1 << 10;
/// What a translation counts for.
const TRANSLATION_WORK: usize = 4;
/// How much is done when there is no room for a megaflow.
const ROOM_WORK: usize = 4;
/// How many times sooner a megaflow is idle if its port has many.
const CROWDED_HASTE: Nanos = 50;

/// The number of a megaflow of one worker. Numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(u32);

/// The bounds of one worker's caches.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Microflow entries, of eight bytes each.
    pub microflows: usize,
    /// Megaflows in all.
    pub megaflows: usize,
    /// Megaflows that the frames of one port may install.
    pub megaflows_per_port: usize,
    /// Masks that the frames of one port may bring in.
    pub masks_per_port: usize,
    /// Whether a flow is cached from its second frame only, instead of from its first.
    pub admission: bool,
    /// A megaflow that saw no frame for so long is removed; one of a port that has more than half of its share of them, much sooner.
    pub idle: Nanos,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            microflows: 1 << 18,
            megaflows: 1 << 19,
            megaflows_per_port: 1 << 18,
            masks_per_port: 512,
            admission: true,
            idle: 10_000_000_000,
        }
    }
}

/// A cached flow, for people.
#[derive(Clone, Debug)]
pub struct CachedFlow {
    /// The key, outside the mask zero.
    pub key: FlowKey,
    /// The bits that count.
    pub mask: KeyMask,
    /// What is done.
    pub actions: Box<[Action]>,
    /// Frames so far.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When it was installed.
    pub created: Nanos,
    /// When its last frame came.
    pub used: Nanos,
}

/// A frame, as a cache sees it.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Its key.
    pub key: &'a FlowKey,
    /// The key's hash.
    pub hash: u64,
    /// How long it is.
    pub bytes: usize,
}

/// What an upcall comes to.
#[derive(Clone, Copy)]
pub(crate) enum Found {
    /// This megaflow holds the key now, and is current.
    Megaflow(FlowId),
    /// Nothing was cached: carry this out once. The frame is counted.
    Once(VerdictId),
}

/// See the module.
pub(crate) struct FlowCache {
    microflows: Microflows,
    megaflows: Megaflows,
    admission: Admission,
    verdicts: Verdicts,
    limits: CacheLimits,
    /// Where the background revalidation goes on.
    cursor: usize,
    /// Megaflows installed so far.
    installed: u64,
    /// Lookups in tables that upcalls took so far.
    lookups: u64,
    /// Rules that are to be added for what the last upcall saw.
    learned: Vec<Arc<FlowMod>>,
    seed: u64,
    scratch: Scratch,
}

impl fmt::Debug for FlowCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowCache").field("megaflows", &self.megaflows.len()).finish_non_exhaustive()
    }
}

impl FlowCache {
    pub fn new(limits: CacheLimits, seed: u64) -> Self {
        Self {
            microflows: Microflows::new(limits.microflows),
            megaflows: Megaflows::new(limits, seed),
            admission: Admission::new(limits.megaflows),
            verdicts: Verdicts::new(seed),
            limits,
            cursor: 0,
            installed: 0,
            lookups: 0,
            learned: Vec::new(),
            seed,
            scratch: Scratch::default(),
        }
    }

    pub fn megaflows(&self) -> &Megaflows {
        &self.megaflows
    }

    /// The number of megaflows installed so far.
    pub fn installed(&self) -> u64 {
        self.installed
    }

    /// The number of lookups in tables that upcalls took so far.
    pub fn lookups(&self) -> u64 {
        self.lookups
    }

    /// What the microflow cache goes by: the hash of those bits of a key of `in_port` that some megaflow depends on. It changes with the megaflows; what was cached
    /// under another is found no more.
    #[inline]
    pub fn hasher(&self, in_port: PortNo) -> impl Fn(&FlowKey) -> u64 {
        let (examined, seed) = (self.megaflows.examined(in_port), self.seed);
        move |key| examined.hash(key, seed)
    }

    /// Brings the microflows of `hash` closer.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.microflows.prefetch(hash);
    }

    /// The megaflow that the flow of `hash` was last seen in, and the wish to have it near.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<FlowId> {
        let id = self.microflows.candidate(hash)?;
        self.megaflows.prefetch(id);
        Some(id)
    }

    /// Whether `candidate` is the megaflow of `key`, and current.
    #[inline]
    pub fn confirm(&self, candidate: FlowId, key: &FlowKey, tables: &Tables) -> bool {
        self.megaflows.contains(candidate, key) && self.current(candidate, tables)
    }

    #[inline]
    fn current(&self, id: FlowId, tables: &Tables) -> bool {
        let flow = self.megaflows.flow(id);
        flow.epoch == tables.epoch() && (!flow.learned || self.verdicts.get(flow.verdict).effects.is_current(tables))
    }

    /// The current megaflow of a key for which there is no confirmed candidate. The error, for [`FlowCache::upcall`], is a stale one if there is one.
    pub fn search(&mut self, key: &FlowKey, hash: u64, tables: &Tables) -> Result<FlowId, Option<FlowId>> {
        let id = self.megaflows.lookup(key).ok_or(None)?;
        if !self.current(id, tables) {
            return Err(Some(id));
        }
        self.remember(hash, id);
        Ok(id)
    }

    /// Candidates for those of a batch's `keys` for which the microflow cache has none: those whose bits are set in `slots`.
    #[inline]
    pub fn foresee(&self, in_port: PortNo, keys: &[FlowKey; BATCH], slots: u32, candidates: &mut [Option<FlowId>; BATCH]) {
        self.megaflows.foresee(in_port, keys, slots, candidates);
    }

    /// Lets the next frame with this hash find a megaflow that had to be searched for.
    #[inline]
    pub fn remember(&mut self, hash: u64, id: FlowId) {
        self.megaflows.count_hit(id);
        self.microflows.insert(hash, id);
    }

    /// Translates a key that [`FlowCache::search`] did not find, and caches the result if it is admitted and there is room. If not, counts the
    /// frame and its `bytes`.
    pub fn upcall(&mut self, in_port: PortNo, seen: &Seen<'_>, mut stale: Option<FlowId>, tables: &Tables, now: Nanos) -> Found {
        let Seen { key, hash, bytes } = *seen;
        translate_into(tables, key, now, &mut self.scratch, true);
        self.lookups += self.scratch.said.effects.lookups() as u64;
        self.learned.append(&mut self.scratch.said.learned);
        let mask = self.scratch.said.mask;
        let current = self.hold(tables);
        // A stale megaflow that contains the key says now what it will say from now on, or goes.
        while let Some(id) = stale {
            if *self.megaflows.mask(id) == mask {
                self.replace(id, current);
                self.microflows.insert(hash, id);
                return Found::Megaflow(id);
            }
            self.remove(id);
            stale = self.megaflows.lookup(key);
        }
        let admitted = !self.limits.admission || self.admission.admit(self.megaflows.hash(key, &mask));
        if !admitted || !self.has_room(in_port, &mask, tables, now) {
            self.verdicts.count(current.verdict, bytes, now);
            self.verdicts.release(current.verdict);
            return Found::Once(current.verdict);
        }
        let id = self.megaflows.insert(in_port, key, &mask, current, now);
        self.installed += 1;
        // Its mask may have changed the hash.
        let hash = self.hasher(in_port)(key);
        self.microflows.insert(hash, id);
        Found::Megaflow(id)
    }

    /// The rules that are to be added for what the last upcall saw.
    pub fn take_learned(&mut self) -> impl Iterator<Item = Arc<FlowMod>> {
        self.learned.drain(..)
    }

    /// Whether a megaflow may be installed. If there is no room, looks whether some has become free.
    fn has_room(&mut self, in_port: PortNo, mask: &KeyMask, tables: &Tables, now: Nanos) -> bool {
        self.megaflows.has_room(in_port, mask) || {
            self.revalidate(ROOM_WORK, tables, now);
            self.megaflows.has_room(in_port, mask)
        }
    }

    /// What was translated last, held for a megaflow.
    fn hold(&mut self, tables: &Tables) -> Current {
        let verdict = self.verdicts.of(&self.scratch.said, tables);
        self.verdicts.hold(verdict);
        Current { verdict, learned: self.scratch.said.effects.relies_on_learning(), epoch: tables.epoch() }
    }

    /// What is done to a frame that was counted.
    pub fn verdict(&self, id: VerdictId) -> &Verdict {
        self.verdicts.get(id)
    }

    /// What is done to the frames of what was found.
    pub fn verdict_of(&self, found: Found) -> &Verdict {
        self.verdicts.get(match found {
            Found::Megaflow(id) => self.megaflows.flow(id).verdict,
            Found::Once(id) => id,
        })
    }

    /// Counts a frame of a megaflow and says what is done to it.
    #[inline]
    pub fn hit(&mut self, id: FlowId, bytes: usize, now: Nanos) -> &Verdict {
        let flow = self.megaflows.flow_mut(id);
        flow.frames += 1;
        flow.bytes += bytes as u64;
        flow.used = now;
        self.verdicts.count(flow.verdict, bytes, now)
    }

    /// Credits every frame to the rules it was forwarded by.
    pub fn settle(&mut self, tables: &Tables) {
        self.verdicts.settle(usize::MAX, tables);
    }

    fn replace(&mut self, id: FlowId, current: Current) {
        let flow = self.megaflows.flow_mut(id);
        self.verdicts.release(flow.verdict);
        flow.renew(current);
    }

    fn remove(&mut self, id: FlowId) {
        self.verdicts.release(self.megaflows.flow(id).verdict);
        self.megaflows.remove(id);
    }

    /// Does some of the background work, in a time that has a bound: settles, and [revalidates](Self::revalidate). Returns when it wants to be called again,
    /// from now: so soon that all megaflows are looked at within [`SWEEP`], or in about twice that, if all have to be translated.
    pub fn maintain(&mut self, tables: &Tables, now: Nanos) -> Nanos {
        self.verdicts.settle(WORK, tables);
        let done = self.revalidate(WORK, tables, now);
        let slices = self.megaflows.places() / done.max(1) + 1;
        (SWEEP / slices as Nanos).clamp(MAINTAIN_MIN, MAINTAIN_MAX)
    }

    /// Looks after the next places, as many as come to `work`: idle megaflows go, stale ones are translated again and kept if they still say the same.
    /// Returns how many places these were.
    fn revalidate(&mut self, work: usize, tables: &Tables, now: Nanos) -> usize {
        let (mut done, mut work) = (0, work);
        while work > 0 && done < self.megaflows.places() {
            if self.cursor >= self.megaflows.places() {
                self.cursor = 0;
                self.megaflows.rank();
            }
            let place = self.cursor;
            self.cursor += 1;
            done += 1;
            work -= 1;
            let Some(id) = self.megaflows.at(place) else { continue };
            if self.is_idle(id, now) {
                self.remove(id);
            } else if !self.current(id, tables) {
                work = work.saturating_sub(TRANSLATION_WORK - 1);
                // Zeros stand for the bits that did not count. If they count now, the mask differs and the megaflow goes.
                translate_into(tables, &self.megaflows.key(id), now, &mut self.scratch, false);
                if self.scratch.said.mask == *self.megaflows.mask(id) && self.scratch.said.effects.is_current(tables) {
                    let current = self.hold(tables);
                    self.replace(id, current);
                } else {
                    self.remove(id);
                }
            }
            self.megaflows.visit(place);
        }
        done
    }

    /// Whether a megaflow was not used for so long that it goes.
    fn is_idle(&self, id: FlowId, now: Nanos) -> bool {
        let idle = now.saturating_sub(self.megaflows.flow(id).used);
        idle > self.limits.idle || idle > self.limits.idle / CROWDED_HASTE && self.megaflows.is_crowded(id)
    }

    /// Whether a megaflow says what a translation says now. For audits: it changes nothing.
    pub fn audit(&mut self, id: FlowId, key: &FlowKey, tables: &Tables, now: Nanos) -> bool {
        translate_into(tables, key, now, &mut self.scratch, false);
        // What was learned since the megaflow was confirmed is no mismatch.
        !self.current(id, tables) || self.verdicts.get(self.megaflows.flow(id).verdict).acts_as(&self.scratch.said)
    }

    /// All megaflows, for people.
    pub fn flows(&self) -> Vec<CachedFlow> {
        (0..self.megaflows.places())
            .filter_map(|place| self.megaflows.at(place))
            .map(|id| {
                let flow = self.megaflows.flow(id);
                CachedFlow {
                    key: self.megaflows.key(id),
                    mask: *self.megaflows.mask(id),
                    actions: self.verdicts.get(flow.verdict).actions[..].into(),
                    frames: flow.frames,
                    bytes: flow.bytes,
                    created: flow.created,
                    used: flow.used,
                }
            })
            .collect()
    }
}

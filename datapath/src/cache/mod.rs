//! The caches of one worker: microflows in front of megaflows, and the admission to them.
//!
//! The caches are invisible: whatever they hold, the actions carried out are those that a translation on the current tables gives. Three things
//! make that so. A candidate counts only if the whole of the megaflow's mask agrees. A megaflow carries the epoch of the tables it
//! was translated under, and the state of the learned addresses it relied on; when either has moved on, it is translated again before it
//! is used. And the counters of a megaflow are *settled* - credited to the rules it came from - before those can change.

mod admission;
mod megaflow;
mod microflow;

use std::fmt;

use admission::Admission;
use megaflow::{Megaflow, Megaflows};
use microflow::Microflows;

use crate::Nanos;
use crate::action::Action;
use crate::key::{FlowKey, KeyMask};
use crate::port::PortNo;
use crate::tables::Tables;
use crate::translate::{Scratch, Translation, translate};

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
    /// A megaflow that saw no frame for so long is removed.
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

/// What an upcall comes to.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack for one call; a box would be an allocation per frame")]
pub(crate) enum Found {
    /// This megaflow holds the key now, and is current.
    Megaflow(FlowId),
    /// Nothing was cached: carry this out once.
    Once(Translation),
}

/// See the module.
pub(crate) struct FlowCache {
    microflows: Microflows,
    megaflows: Megaflows,
    admission: Admission,
    limits: CacheLimits,
    /// Megaflows with unsettled counters.
    dirty: Vec<FlowId>,
    /// Where the background revalidation goes on.
    cursor: usize,
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
            admission: Admission::new(1 << 14),
            limits,
            dirty: Vec::new(),
            cursor: 0,
            scratch: Scratch::default(),
        }
    }

    pub fn megaflows(&self) -> &Megaflows {
        &self.megaflows
    }

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
        flow.epoch == tables.epoch() && (!flow.learned || self.megaflows.origin(id).effects.is_current(tables))
    }

    /// The current megaflow of a key for which there is no confirmed candidate; `None` if the key needs a translation.
    pub fn search(&mut self, key: &FlowKey, hash: u64, tables: &Tables) -> Option<FlowId> {
        let id = self.megaflows.lookup(key)?;
        if !self.current(id, tables) {
            return None;
        }
        self.microflows.insert(hash, id);
        Some(id)
    }

    /// Translates a key that [`FlowCache::search`] did not find, and caches the result if it is admitted and there is room.
    pub fn upcall(&mut self, in_port: PortNo, key: &FlowKey, hash: u64, tables: &Tables, now: Nanos) -> Found {
        let translation = translate(tables, key, now, &mut self.scratch, true);
        let mask = translation.mask;
        // A stale megaflow that contains the key says now what it will say from now on, or goes.
        while let Some(stale) = self.megaflows.lookup(key) {
            if *self.megaflows.mask(stale) == mask {
                self.replace(stale, translation, tables, now);
                self.microflows.insert(hash, stale);
                return Found::Megaflow(stale);
            }
            self.remove(stale, tables);
        }
        let seen = !self.limits.admission || self.admission.admit(self.megaflows.hash(key, &mask));
        if !seen || !self.megaflows.has_room(in_port, &mask) {
            return Found::Once(translation);
        }
        let id = self.megaflows.insert(in_port, key, translation, tables.epoch(), now);
        self.microflows.insert(hash, id);
        Found::Megaflow(id)
    }

    /// Counts a frame of a megaflow and gives its actions.
    #[inline]
    pub fn hit(&mut self, id: FlowId, bytes: usize, now: Nanos) -> &Megaflow {
        let flow = self.megaflows.flow_mut(id);
        if flow.frames == 0 {
            self.dirty.push(id);
        }
        flow.frames += 1;
        flow.bytes += bytes as u64;
        flow.used = now;
        flow
    }

    /// Credits every megaflow's frames to the rules they were forwarded by.
    pub fn settle(&mut self, tables: &Tables) {
        while let Some(id) = self.dirty.pop() {
            self.settle_one(id, tables);
        }
    }

    fn settle_one(&mut self, id: FlowId, tables: &Tables) {
        let (flow, origin) = self.megaflows.parts_mut(id);
        if flow.frames > 0 {
            origin.effects.credit(tables, flow.frames, flow.bytes, flow.used);
            origin.frames += std::mem::take(&mut flow.frames);
            origin.bytes += std::mem::take(&mut flow.bytes);
        }
    }

    fn replace(&mut self, id: FlowId, translation: Translation, tables: &Tables, now: Nanos) {
        self.settle_one(id, tables);
        let (flow, origin) = self.megaflows.parts_mut(id);
        flow.renew(origin, translation, tables.epoch());
        flow.used = now;
    }

    fn remove(&mut self, id: FlowId, tables: &Tables) {
        self.settle_one(id, tables);
        self.megaflows.remove(id);
    }

    /// Looks after up to `budget` places: idle megaflows go, stale ones are translated again and kept if they still say the same.
    pub fn revalidate(&mut self, budget: usize, tables: &Tables, now: Nanos) {
        for _ in 0..budget.min(self.megaflows.places()) {
            if self.cursor >= self.megaflows.places() {
                self.cursor = 0;
                self.megaflows.rank();
            }
            let place = self.cursor;
            self.cursor += 1;
            let Some(id) = self.megaflows.at(place) else { continue };
            if self.megaflows.flow(id).used + self.limits.idle < now {
                self.remove(id, tables);
            } else if !self.current(id, tables) {
                // Zeros stand for the bits that did not count. If they count now, the mask differs and the megaflow goes.
                let key = self.megaflows.origin(id).key;
                let translation = translate(tables, &key, now, &mut self.scratch, false);
                if translation.mask == *self.megaflows.mask(id) && translation.effects.is_current(tables) {
                    let used = self.megaflows.flow(id).used;
                    self.replace(id, translation, tables, used);
                } else {
                    self.remove(id, tables);
                }
            }
        }
    }

    /// Whether a megaflow says what a translation says now. For audits: it changes nothing.
    pub fn audit(&mut self, id: FlowId, key: &FlowKey, tables: &Tables, now: Nanos) -> bool {
        let translation = translate(tables, key, now, &mut self.scratch, false);
        // What was learned since the megaflow was confirmed is no mismatch.
        !self.current(id, tables) || self.megaflows.flow(id).says(&translation)
    }

    /// All megaflows, for people.
    pub fn flows(&self) -> Vec<CachedFlow> {
        (0..self.megaflows.places())
            .filter_map(|place| self.megaflows.at(place))
            .map(|id| {
                let (flow, origin) = (self.megaflows.flow(id), self.megaflows.origin(id));
                CachedFlow {
                    key: origin.key,
                    mask: *self.megaflows.mask(id),
                    actions: flow.actions.clone(),
                    frames: origin.frames + flow.frames,
                    bytes: origin.bytes + flow.bytes,
                    created: origin.created,
                    used: flow.used,
                }
            })
            .collect()
    }
}

//! What translations say, stored once however many megaflows say it.
//!
//! Flows are many and what becomes of them is not: a hundred thousand megaflows may differ in their addresses and go the same way by the same rules.
//! A [`Verdict`] is what they share: the actions, and the rules that their frames are credited to. So a megaflow needs no memory of its own for
//! them, a translation that says nothing new allocates nothing, and settling costs what the verdicts cost, not the megaflows: a frame is
//! counted with the verdict that it was forwarded by, and credited to that verdict's rules once for all. Flows that take different rules still
//! have few different things done to them, so verdicts share their lists of actions in turn: these are few enough to stay near.
//!
//! A verdict that no megaflow uses (its flows were not admitted to the cache) stays until it is settled without having been needed since it was settled
//! before, or until there are too many such.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::mem::offset_of;
use std::sync::Arc;

use crate::Nanos;
use crate::action::Action;
use crate::classifier::{Shards, mix};
use crate::drops::DropReason;
use crate::tables::Tables;
use crate::translate::{Effects, Said};

/// Verdicts to be settled, beyond which a new one makes those go that no megaflow uses.
const PENDING_MAX: usize = 1 << 12;

/// The number of no verdict.
pub(super) const NONE: VerdictId = VerdictId(u32::MAX);

/// The number of a verdict of one worker. Numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VerdictId(u32);

/// See the module. What a hit needs comes first, in a cache line of its own.
#[repr(C, align(64))]
pub(crate) struct Verdict {
    /// What to do with a frame.
    pub actions: Arc<[Action]>,
    /// Frames since it was last settled.
    frames: u64,
    /// Their bytes.
    bytes: u64,
    /// When the last of them came.
    used: Nanos,
    /// Megaflows that say this.
    users: u32,
    hash: u32,
    /// The outcome of a frame for which `actions` do nothing.
    pub reason: DropReason,
    /// Whether it is to be settled: frames were counted, or it may have to go.
    pending: bool,
    /// Whether frames go on with what was frozen.
    pub resumes: bool,
    /// What each frame is to be credited to, and what the actions rely on.
    pub effects: Effects,
}

const _: () = assert!(offset_of!(Verdict, effects) <= 64);

impl Verdict {
    /// Whether this is what a translation came to.
    pub fn says(&self, said: &Said) -> bool {
        self.acts_as(said) && self.effects.are(&said.effects)
    }

    /// Whether frames fare as a translation says, for whatever cause.
    pub fn acts_as(&self, said: &Said) -> bool {
        *self.actions == said.actions[..] && self.reason == said.reason
    }
}

/// The verdicts of one worker.
pub(super) struct Verdicts {
    verdicts: Vec<Verdict>,
    free: Vec<u32>,
    /// The numbers of those that exist, by their hashes.
    index: Shards<u32>,
    /// The lists of actions of these, by their hashes.
    lists: Shards<Arc<[Action]>>,
    /// Those to be settled, in this order.
    pending: VecDeque<VerdictId>,
    /// The one asked for last: the next is often the same.
    last: VerdictId,
    seed: u64,
}

impl Verdicts {
    /// None yet. What they are found by depends on `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            verdicts: Vec::new(),
            free: Vec::new(),
            index: Shards::default(),
            lists: Shards::default(),
            pending: VecDeque::new(),
            last: NONE,
            seed,
        }
    }

    #[inline]
    pub fn get(&self, id: VerdictId) -> &Verdict {
        &self.verdicts[id.0 as usize]
    }

    /// The verdict of a translation, which is to be [held](Self::hold) before any other is released.
    pub fn of(&mut self, said: &Said, tables: &Tables) -> VerdictId {
        if self.verdicts.get(self.last.0 as usize).is_some_and(|last| last.says(said)) {
            return self.last;
        }
        let mut hasher = Mixer(self.seed);
        said.actions.hash(&mut hasher);
        said.effects.feed(&mut hasher);
        let hash = (hasher.0 >> 32) as u32;
        let verdicts = &self.verdicts;
        let known = self.index.find(hash, |number| verdicts[*number as usize].says(said)).copied();
        self.last = VerdictId(known.unwrap_or_else(|| self.add(said, hash, tables)));
        self.last
    }

    fn add(&mut self, said: &Said, hash: u32, tables: &Tables) -> u32 {
        if self.pending.len() >= PENDING_MAX {
            self.settle(usize::MAX, tables);
            self.settle(usize::MAX, tables);
        }
        let verdict = Verdict {
            actions: self.share(&said.actions),
            reason: said.reason,
            frames: 0,
            bytes: 0,
            used: 0,
            users: 0,
            hash,
            pending: false,
            resumes: resumes(&said.actions),
            effects: said.effects.clone(),
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.verdicts[number as usize] = verdict;
                number
            }
            None => {
                self.verdicts.push(verdict);
                (self.verdicts.len() - 1) as u32
            }
        };
        self.index.insert(hash, number);
        number
    }

    /// The one list of these actions.
    fn share(&mut self, actions: &[Action]) -> Arc<[Action]> {
        let hash = self.hash_of(actions);
        self.lists.find(hash, |list| **list == *actions).cloned().unwrap_or_else(|| {
            let list: Arc<[Action]> = actions.into();
            self.lists.insert(hash, list.clone());
            list
        })
    }

    fn hash_of(&self, actions: &[Action]) -> u32 {
        let mut hasher = Mixer(self.seed);
        actions.hash(&mut hasher);
        (hasher.0 >> 32) as u32
    }

    /// A megaflow uses the verdict.
    pub fn hold(&mut self, id: VerdictId) {
        self.verdicts[id.0 as usize].users += 1;
    }

    /// A megaflow uses it no longer.
    pub fn release(&mut self, id: VerdictId) {
        let verdict = &mut self.verdicts[id.0 as usize];
        verdict.users -= 1;
        if verdict.users == 0 && !verdict.pending {
            self.remove(id);
        }
    }

    /// Counts a frame that is forwarded by the verdict.
    #[inline]
    pub fn count(&mut self, id: VerdictId, bytes: usize, now: Nanos) -> &Verdict {
        let verdict = &mut self.verdicts[id.0 as usize];
        if !verdict.pending {
            verdict.pending = true;
            self.pending.push_back(id);
        }
        verdict.frames += 1;
        verdict.bytes += bytes as u64;
        verdict.used = now;
        verdict
    }

    /// Credits the frames counted with up to `count` verdicts. What nobody needed since the last time goes.
    pub fn settle(&mut self, count: usize, tables: &Tables) {
        for _ in 0..count.min(self.pending.len()) {
            let Some(id) = self.pending.pop_front() else { return };
            let verdict = &mut self.verdicts[id.0 as usize];
            if verdict.frames > 0 {
                verdict.effects.credit(tables, verdict.frames, verdict.bytes, verdict.used);
                (verdict.frames, verdict.bytes) = (0, 0);
                if verdict.users == 0 {
                    self.pending.push_back(id);
                    continue;
                }
            }
            verdict.pending = false;
            if verdict.users == 0 {
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: VerdictId) {
        let verdict = &mut self.verdicts[id.0 as usize];
        let actions = std::mem::take(&mut verdict.actions);
        verdict.effects = Effects::default();
        self.index.remove(verdict.hash, |number| *number == id.0);
        // One reference is in the lists, another here.
        if Arc::strong_count(&actions) == 2 {
            self.lists.remove(self.hash_of(&actions), |list| Arc::ptr_eq(list, &actions));
        }
        if self.last == id {
            self.last = NONE;
        }
        self.free.push(id.0);
    }
}

/// Whether actions go on with what was frozen.
fn resumes(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::Recirculate(_) => true,
        Action::Copy(actions) => resumes(actions),
        _ => false,
    })
}

/// A hash that guests can't foresee, over whatever derives [`Hash`].
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, i: u8) {
        self.write_u64(i.into());
    }

    fn write_u16(&mut self, i: u16) {
        self.write_u64(i.into());
    }

    fn write_u32(&mut self, i: u32) {
        self.write_u64(i.into());
    }

    #[inline]
    fn write_u64(&mut self, i: u64) {
        self.0 = mix(self.0, i);
    }

    fn write_u128(&mut self, i: u128) {
        self.write_u64(i as u64);
        self.write_u64((i >> 64) as u64);
    }

    fn write_usize(&mut self, i: usize) {
        self.write_u64(i as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::PortNo;
    use crate::tables::MacTable;

    fn says(port: u32) -> Said {
        let mut said = Said::default();
        said.actions.push(Action::Output(PortNo(port)));
        said
    }

    #[test]
    fn equal_ones_are_one() {
        let tables = Tables::new(Arc::new(MacTable::new(1, 1)));
        let mut verdicts = Verdicts::new(7);
        let ids: Vec<_> = (0..100).map(|port| verdicts.of(&says(port), &tables)).collect();
        assert!((0..100).rev().all(|port| verdicts.of(&says(port), &tables) == ids[port as usize]));
        ids.iter().for_each(|id| verdicts.hold(*id));
        verdicts.hold(ids[5]);
        ids.iter().for_each(|id| verdicts.release(*id));
        assert_eq!(verdicts.free.len(), 99);
        assert_eq!(verdicts.of(&says(5), &tables), ids[5]);
        assert_ne!(verdicts.of(&says(6), &tables), ids[5]);
    }

    #[test]
    fn the_same_actions_are_one_list() {
        let tables = Tables::new(Arc::new(MacTable::new(1, 1)));
        let mut verdicts = Verdicts::new(7);
        let ids = [DropReason::Rule, DropReason::NoMatch].map(|reason| {
            let mut said = says(1);
            said.reason = reason;
            let id = verdicts.of(&said, &tables);
            verdicts.hold(id);
            id
        });
        assert_ne!(ids[0], ids[1]);
        assert!(Arc::ptr_eq(&verdicts.get(ids[0]).actions, &verdicts.get(ids[1]).actions));
        ids.iter().for_each(|id| {
            assert_eq!(verdicts.lists.iter().count(), 1);
            verdicts.release(*id);
        });
        assert!(verdicts.lists.is_empty());
    }

    #[test]
    fn what_nobody_uses_goes_in_time() {
        let tables = Tables::new(Arc::new(MacTable::new(1, 1)));
        let mut verdicts = Verdicts::new(7);
        let once = |verdicts: &mut Verdicts, port| {
            let id = verdicts.of(&says(port), &tables);
            verdicts.hold(id);
            verdicts.count(id, 60, 1);
            verdicts.release(id);
            id
        };
        let used = verdicts.of(&says(0), &tables);
        verdicts.hold(used);
        verdicts.count(used, 60, 1);
        let id = once(&mut verdicts, 1);
        verdicts.settle(usize::MAX, &tables);
        assert_eq!(once(&mut verdicts, 1), id, "it was needed not long ago");
        verdicts.settle(usize::MAX, &tables);
        verdicts.settle(usize::MAX, &tables);
        assert_eq!(verdicts.free.len(), 1);
        // Any number of them takes little room.
        (0..10 * PENDING_MAX as u32).for_each(|port| {
            once(&mut verdicts, port);
        });
        assert!(verdicts.verdicts.len() <= PENDING_MAX + 1);
        assert_eq!(verdicts.of(&says(0), &tables), used);
    }
}

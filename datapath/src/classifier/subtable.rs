//! One tuple of the search: the rules that have the same mask.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mask::{Mask, set_bits};
use super::shards::Shards;
use super::{Classified, CompactMatch};
use crate::key::{FLOW_WORDS, Flow, FlowMask, Match, STAGES};

/// The rules with one mask. Of those with the same match, only the one of the highest priority can ever be found: the others are hidden.
#[derive(Clone, Debug)]
pub struct Subtable<V> {
    mask: Arc<Mask<FLOW_WORDS>>,
    /// The stages that the mask has words in, but for the last.
    stages: Vec<Stage>,
    /// The words of the last of those stages.
    last: u32,
    rules: Shards<V>,
    hidden: Shards<V>,
    /// How many rules there are of each priority, hidden ones included.
    priorities: BTreeMap<u16, u32>,
}

/// A part of the mask that can tell, before later parts are looked at, that no rule matches.
#[derive(Clone, Debug)]
struct Stage {
    words: u32,
    /// The hashes of the rules' words up to this stage; the value says how many rules (hidden ones left out) have it.
    hashes: Shards<u32>,
}

/// Any number that is not zero, lest zero words hash to zero.
const BASIS: u64 = 0x6a09_e667_f3bc_c908;

/// The bits of a hash that the tables of the search go by.
#[inline]
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl<V: Classified> Subtable<V> {
    /// Without rules yet.
    pub fn new(mask: Arc<Mask<FLOW_WORDS>>) -> Self {
        let mut words: Vec<u32> = STAGES.iter().map(|stage| stage & mask.occupied()).filter(|words| *words != 0).collect();
        let last = words.pop().unwrap_or(0);
        let stages = words.into_iter().map(|words| Stage { words, hashes: Shards::default() }).collect();
        Self { mask, stages, last, rules: Shards::default(), hidden: Shards::default(), priorities: BTreeMap::new() }
    }

    pub fn mask(&self) -> &Arc<Mask<FLOW_WORDS>> {
        &self.mask
    }

    /// The highest priority of its rules; zero if it has none.
    pub fn max_priority(&self) -> u16 {
        self.priorities.last_key_value().map_or(0, |(priority, _)| *priority)
    }

    pub fn has_priority(&self, priority: u16) -> bool {
        self.priorities.contains_key(&priority)
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.rules.iter().chain(self.hidden.iter())
    }

    /// The rule of the highest priority that matches `flow`. Adds the bits looked at to `examined`.
    pub fn lookup(&self, flow: &Flow, examined: &mut FlowMask) -> Option<&V> {
        let mut hash = BASIS;
        for stage in &self.stages {
            hash = self.mask.examine_part(flow, stage.words, examined, hash);
            if !stage.hashes.contains(short(hash)) {
                return None;
            }
        }
        hash = self.mask.examine_part(flow, self.last, examined, hash);
        self.rules.find(short(hash), |rule| rule.matching().is_for(flow))
    }

    /// The hash of a match after each stage, the last one included.
    fn hashes(&self, value: &Flow) -> impl Iterator<Item = u32> {
        self.stages.iter().map(|stage| stage.words).chain([self.last]).scan(BASIS, |hash, words| {
            *hash = self.mask.hash_part(value, words, *hash);
            Some(short(*hash))
        })
    }

    fn hash(&self, value: &Flow) -> u32 {
        self.hashes(value).last().unwrap_or_default()
    }

    /// The rule with exactly this match, which must have this subtable's mask, and priority.
    pub fn get(&self, matching: &Match, priority: u16) -> Option<&V> {
        let hash = self.hash(matching.value());
        let is = |rule: &V| rule.priority() == priority && rule.matching().is_for(matching.value());
        self.rules.find(hash, is).or_else(|| self.hidden.find(hash, is))
    }

    /// The rules with exactly this match, which must have this subtable's mask.
    pub fn with_match(&self, matching: &Match) -> impl Iterator<Item = &V> {
        let hash = self.hash(matching.value());
        self.rules.find_all(hash).into_iter().chain(self.hidden.find_all(hash)).filter(|rule| rule.matching().is_for(matching.value()))
    }

    /// Adds a rule with this subtable's mask. Returns the one with the same match and priority that it takes the place of.
    pub fn insert(&mut self, rule: V) -> Option<V> {
        let value = self.mask.unpack(&rule.matching().key);
        let hash = self.hash(&value);
        let same = |other: &V| other.matching().key == rule.matching().key;
        let same_priority = |other: &V| other.priority() == rule.priority() && same(other);
        if let Some(hidden) = self.hidden.find_mut(hash, same_priority) {
            return Some(std::mem::replace(hidden, rule));
        }
        if let Some(shown) = self.rules.find(hash, same) {
            if shown.priority() > rule.priority() {
                self.count(rule.priority());
                self.hidden.insert(hash, rule);
                return None;
            }
            let shown = self.rules.find_mut(hash, same)?;
            let old = std::mem::replace(shown, rule.clone());
            if old.priority() == rule.priority() {
                return Some(old);
            }
            self.hidden.insert(hash, old);
        } else {
            let hashes: Vec<u32> = self.hashes(&value).collect();
            for (stage, hash) in self.stages.iter_mut().zip(hashes) {
                match stage.hashes.find_mut(hash, |_| true) {
                    Some(count) => *count += 1,
                    None => stage.hashes.insert(hash, 1),
                }
            }
            self.rules.insert(hash, rule.clone());
        }
        self.count(rule.priority());
        None
    }

    /// Removes the rule with exactly this match, which must have this subtable's mask, and priority.
    pub fn remove(&mut self, matching: &Match, priority: u16) -> Option<V> {
        let value = matching.value();
        let hash = self.hash(value);
        let is = |rule: &V| rule.priority() == priority && rule.matching().is_for(value);
        let removed = match self.hidden.remove(hash, is) {
            Some(hidden) => hidden,
            None => {
                let removed = self.rules.remove(hash, is)?;
                let next = self.hidden.find_all(hash).into_iter().filter(|rule| rule.matching().is_for(value)).map(V::priority).max();
                let next = next.and_then(|next| self.hidden.remove(hash, |rule| rule.priority() == next && rule.matching().is_for(value)));
                match next {
                    Some(next) => self.rules.insert(hash, next),
                    None => self.forget(value),
                }
                removed
            }
        };
        if let Some(count) = self.priorities.get_mut(&priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&priority);
            }
        }
        Some(removed)
    }

    fn count(&mut self, priority: u16) {
        *self.priorities.entry(priority).or_default() += 1;
    }

    /// A match has no rule any more: its hashes leave the stages.
    fn forget(&mut self, value: &Flow) {
        let hashes: Vec<u32> = self.hashes(value).collect();
        for (stage, hash) in self.stages.iter_mut().zip(hashes) {
            if let Some(count) = stage.hashes.find_mut(hash, |_| true) {
                *count -= 1;
                if *count == 0 {
                    stage.hashes.remove(hash, |_| true);
                }
            }
        }
    }

    /// The rules for flows that all are among those of `matching`, whose mask must be part of this subtable's.
    pub fn included(&self, matching: &Match) -> impl Iterator<Item = &V> {
        self.iter().filter(|rule| rule.matching().agrees(matching))
    }

    /// Whether a rule of this priority is for a flow that `matching` is for too.
    pub fn overlaps(&self, matching: &Match, priority: u16) -> bool {
        self.has_priority(priority) && self.iter().any(|rule| rule.priority() == priority && rule.matching().agrees(matching))
    }
}

impl CompactMatch {
    /// Whether the two ask for the same in the bits that both ask for something in.
    fn agrees(&self, other: &Match) -> bool {
        set_bits(self.mask.occupied())
            .zip(&self.key)
            .all(|(i, word)| (word ^ other.value().0[i]) & self.mask.bits().0[i] & other.mask().0[i] == 0)
    }
}

//! One tuple of the search: the rules that have the same mask.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::mask::{Mask, set_bits};
use super::shards::{Shards, nonzero};
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
    /// The hidden ones of each match that has any, by falling priority.
    hidden: Shards<Vec<V>>,
    /// How many rules there are of each priority, hidden ones included.
    priorities: BTreeMap<u16, u32>,
}

/// A part of the mask that can tell, before later parts are looked at, that no rule matches.
#[derive(Clone, Debug)]
struct Stage {
    words: u32,
    /// The hashes of the rules' words up to this stage; the value says how many rules (hidden ones left out) have it.
    hashes: Shards<u32>,
    /// The only one of them, if there is one only: often, all rules are for the same metadata or the same protocol.
    only: Option<u32>,
}

impl Stage {
    #[inline]
    fn contains(&self, hash: u32) -> bool {
        match self.only {
            Some(only) => nonzero(hash) == only,
            None => self.hashes.contains(hash),
        }
    }

    /// Another match has this hash.
    fn add(&mut self, hash: u32) {
        match self.hashes.find_mut(hash, |_| true) {
            Some(count) => *count += 1,
            None => {
                self.hashes.insert(hash, 1);
                self.only = self.hashes.only();
            }
        }
    }

    /// A match with this hash is gone.
    fn remove(&mut self, hash: u32) {
        if let Some(count) = self.hashes.find_mut(hash, |_| true) {
            *count -= 1;
            if *count == 0 {
                self.hashes.remove(hash, |_| true);
                self.only = self.hashes.only();
            }
        }
    }
}

/// Any number that is not zero, lest zero words hash to zero.
const BASIS: u64 = 0x6a09_e667_f3bc_c908;

/// One for each stage.
type Hashes = SmallVec<[u32; STAGES.len()]>;

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
        let stages = words.into_iter().map(|words| Stage { words, hashes: Shards::default(), only: None }).collect();
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
        self.rules.iter().chain(self.hidden.iter().flatten())
    }

    /// The rule of the highest priority that matches `flow`. Adds the bits looked at to `examined`.
    pub fn lookup(&self, flow: &Flow, examined: &mut FlowMask) -> Option<&V> {
        let mut hash = BASIS;
        for stage in &self.stages {
            hash = self.mask.examine_part(flow, stage.words, examined, hash);
            if !stage.contains(short(hash)) {
                return None;
            }
        }
        hash = self.mask.examine_part(flow, self.last, examined, hash);
        self.rules.find(short(hash), |rule| rule.matching().is_for(flow))
    }

    /// Visits all rules that match `flow`. Adds the bits looked at to `examined`.
    pub fn all<'a>(&'a self, flow: &Flow, examined: &mut FlowMask, mut visit: impl FnMut(&'a V)) {
        let Some(shown) = self.lookup(flow, examined) else { return };
        visit(shown);
        if !self.hidden.is_empty() {
            let is = |rules: &Vec<V>| rules.first().is_some_and(|rule| rule.matching().is_for(flow));
            self.hidden.find(self.hash(flow), is).into_iter().flatten().for_each(visit);
        }
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
        self.rules.find(hash, is).or_else(|| {
            let hidden = self.hidden.find(hash, |rules| is_of(rules, matching.value()))?;
            Some(&hidden[find(hidden, priority).ok()?])
        })
    }

    /// The rules with exactly this match, which must have this subtable's mask.
    pub fn with_match(&self, matching: &Match) -> impl Iterator<Item = &V> {
        let hash = self.hash(matching.value());
        let shown = self.rules.find(hash, |rule| rule.matching().is_for(matching.value()));
        let hidden = self.hidden.find(hash, |rules| is_of(rules, matching.value()));
        shown.into_iter().chain(hidden.into_iter().flatten())
    }

    /// Adds a rule with this subtable's mask. Returns the one with the same match and priority that it takes the place of.
    pub fn insert(&mut self, rule: V) -> Option<V> {
        let value = self.mask.unpack(&rule.matching().key);
        let hash = self.hash(&value);
        let priority = rule.priority();
        let same = |other: &V| other.matching().is_for(&value);
        let Some(shown) = self.rules.find(hash, same) else {
            let hashes: Hashes = self.hashes(&value).collect();
            self.stages.iter_mut().zip(hashes).for_each(|(stage, hash)| stage.add(hash));
            self.rules.insert(hash, rule);
            self.count(priority);
            return None;
        };
        let hidden = if shown.priority() > priority {
            rule
        } else {
            let old = std::mem::replace(self.rules.find_mut(hash, same)?, rule);
            if old.priority() == priority {
                return Some(old);
            }
            old
        };
        let replaced = match self.hidden.find_mut(hash, |rules| is_of(rules, &value)) {
            None => {
                self.hidden.insert(hash, vec![hidden]);
                None
            }
            Some(rules) => match find(rules, hidden.priority()) {
                Ok(at) => Some(std::mem::replace(&mut rules[at], hidden)),
                Err(at) => {
                    rules.insert(at, hidden);
                    None
                }
            },
        };
        if replaced.is_none() {
            self.count(priority);
        }
        replaced
    }

    /// Removes the rule with exactly this match, which must have this subtable's mask, and priority.
    pub fn remove(&mut self, matching: &Match, priority: u16) -> Option<V> {
        let value = matching.value();
        let hash = self.hash(value);
        let is = |rule: &V| rule.priority() == priority && rule.matching().is_for(value);
        let removed = match self.rules.remove(hash, is) {
            None => self.unhide(hash, value, Some(priority))?,
            Some(removed) => {
                match self.unhide(hash, value, None) {
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

    /// Takes a hidden rule with this match out: that of a priority, or else that of the highest one.
    fn unhide(&mut self, hash: u32, value: &Flow, priority: Option<u16>) -> Option<V> {
        let is = |rules: &Vec<V>| is_of(rules, value);
        let at = match priority {
            Some(priority) => find(self.hidden.find(hash, is)?, priority).ok()?,
            None => 0,
        };
        let rules = self.hidden.find_mut(hash, is)?;
        let rule = rules.remove(at);
        if rules.is_empty() {
            self.hidden.remove(hash, Vec::is_empty);
        }
        Some(rule)
    }

    fn count(&mut self, priority: u16) {
        *self.priorities.entry(priority).or_default() += 1;
    }

    /// A match has no rule any more: its hashes leave the stages.
    fn forget(&mut self, value: &Flow) {
        let hashes: Hashes = self.hashes(value).collect();
        self.stages.iter_mut().zip(hashes).for_each(|(stage, hash)| stage.remove(hash));
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

/// Whether hidden rules are those of the match with this value.
fn is_of<V: Classified>(rules: &[V], value: &Flow) -> bool {
    rules.first().is_some_and(|rule| rule.matching().is_for(value))
}

/// The place of a priority among hidden rules.
fn find<V: Classified>(rules: &[V], priority: u16) -> Result<usize, usize> {
    rules.binary_search_by(|rule| priority.cmp(&rule.priority()))
}

impl CompactMatch {
    /// Whether the two ask for the same in the bits that both ask for something in.
    fn agrees(&self, other: &Match) -> bool {
        set_bits(self.mask.occupied())
            .zip(&self.key)
            .all(|(i, word)| (word ^ other.value().0[i]) & self.mask.bits().0[i] & other.mask().0[i] == 0)
    }
}

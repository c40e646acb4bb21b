//! Finds the rule of the highest priority that matches a flow.

mod mask;

use std::sync::Arc;

pub use mask::{Mask, mix, set_bits};

use crate::key::{FLOW_WORDS, Flow, FlowMask, Match};

/// A [`Match`] in little memory: its mask is shared with the other rules that have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactMatch {
    mask: Arc<Mask<FLOW_WORDS>>,
    key: Box<[u64]>,
}

impl CompactMatch {
    /// `matching`, made compact.
    pub fn new(matching: &Match) -> Self {
        let mask = Mask::new(matching.mask());
        Self { key: mask.pack(matching.value()), mask: Arc::new(mask) }
    }

    /// As it was.
    pub fn expand(&self) -> Match {
        Match::new(&self.mask.unpack(&self.key), self.mask.bits())
    }

    /// Whether it is for `flow`.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.mask.matches(&self.key, flow)
    }
}

/// What a classifier holds.
pub trait Classified: Clone {
    /// The flows that it is for.
    fn matching(&self) -> &CompactMatch;
    /// The higher, the sooner.
    fn priority(&self) -> u16;
}

/// A set of rules, no two of them with the same match and priority.
#[derive(Clone, Debug)]
pub struct Classifier<V> {
    rules: Vec<V>,
}

impl<V> Default for Classifier<V> {
    fn default() -> Self {
        Self { rules: Vec::new() }
    }
}

impl<V: Classified> Classifier<V> {
    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule of the highest priority that matches `flow`. Or-s into `examined` the bits that the answer depends on: every flow that agrees
    /// in them gets the same answer.
    pub fn lookup(&self, flow: &Flow, examined: &mut FlowMask) -> Option<&V> {
        self.rules.iter().find(|rule| {
            examined.include(rule.matching().mask.bits());
            rule.matching().matches(flow)
        })
    }

    /// The rule with exactly this match and priority.
    pub fn get(&self, matching: &Match, priority: u16) -> Option<&V> {
        self.rules.iter().find(|rule| rule.priority() == priority && rule.matching().expand() == *matching)
    }

    /// Adds a rule. Returns the one with the same match and priority that it takes the place of.
    pub fn insert(&mut self, rule: V) -> Option<V> {
        let same = self.rules.iter_mut().find(|other| other.priority() == rule.priority() && other.matching() == rule.matching());
        if let Some(same) = same {
            return Some(std::mem::replace(same, rule));
        }
        let at = self.rules.partition_point(|other| other.priority() >= rule.priority());
        self.rules.insert(at, rule);
        None
    }

    /// Removes the rule with exactly this match and priority.
    pub fn remove(&mut self, matching: &Match, priority: u16) -> Option<V> {
        let at = self.rules.iter().position(|rule| rule.priority() == priority && rule.matching().expand() == *matching)?;
        Some(self.rules.remove(at))
    }

    /// All rules, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.rules.iter()
    }
}

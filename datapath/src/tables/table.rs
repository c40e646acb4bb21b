//! One flow table: its rules, and how conjunctions are met.
//!
//! **Conjunctions** (Nicira's) let a table of n + m rules say what would otherwise take n × m: "one of these n sources, and one of these m destinations". Each
//! source and each destination is a *clause*, a rule whose action says of which conjunction it is which clause. Of a conjunction all of whose clauses a flow
//! meets, by rules of one priority, the flow has the number as its `conj_id`, and is matched again with that.
//!
//! A clause is never what a lookup finds, so clauses are kept apart from the other rules. A lookup first finds the best of those; then, if there are any, it
//! gathers the clauses of a higher priority that the flow meets, and looks for the highest priority at which they make up a conjunction.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::instruction::OfAction;
use super::rule::Rule;
use crate::classifier::{Classifier, CompactMatch};
use crate::key::{Field, Flow, FlowMask, Match};

/// See the module. A clone is cheap.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    rules: Classifier<Arc<Rule>>,
    clauses: Classifier<Arc<Rule>>,
}

impl Table {
    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len() + self.clauses.len()
    }

    /// The rule for `flow`. Or-s into `examined` the bits that the answer depends on.
    pub fn lookup(&self, flow: &Flow, examined: &mut FlowMask) -> Option<&Arc<Rule>> {
        let found = self.rules.lookup(flow, examined);
        if self.clauses.is_empty() { found } else { self.lookup_conjunctions(found, flow, examined) }
    }

    /// The same, where the rule `found` is for the flow, and a conjunction of a higher priority may be.
    fn lookup_conjunctions<'a>(&'a self, found: Option<&'a Arc<Rule>>, flow: &Flow, examined: &mut FlowMask) -> Option<&'a Arc<Rule>> {
        // By priority and conjunction, the clauses that are met.
        let mut met: BTreeMap<(u16, u32), u64> = BTreeMap::new();
        let mut complete = Vec::new();
        self.clauses.all(flow, found.map(|found| found.priority), examined, |rule| {
            for action in rule.instructions.apply.iter() {
                if let OfAction::Conjunction { id, clause, clauses } = *action {
                    let met = met.entry((rule.priority, id)).or_default();
                    *met |= 1 << clause;
                    if *met == u64::MAX >> (64 - clauses) {
                        complete.push((rule.priority, id));
                    }
                }
            }
        });
        // The highest priority first, and then the lowest number.
        complete.sort_unstable_by_key(|(priority, id)| (Reverse(*priority), *id));
        complete.dedup();
        let mut flow = *flow;
        let rules = complete.into_iter().find_map(|(_, id)| {
            Field::ConjId.write(&mut flow, id.into());
            self.rules.lookup(&flow, examined)
        });
        rules.or(found)
    }

    /// `matching` made compact, for a rule to be put here.
    pub fn compact(&self, matching: &Match) -> CompactMatch {
        self.rules.compact(matching)
    }

    /// The rule with exactly this match and priority.
    pub fn get(&self, matching: &Match, priority: u16) -> Option<&Arc<Rule>> {
        self.rules.get(matching, priority).or_else(|| self.clauses.get(matching, priority))
    }

    /// Puts a rule in. Returns the one with the same match and priority that it takes the place of.
    pub fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let (its, other) = match is_clause(&rule) {
            false => (&mut self.rules, &mut self.clauses),
            true => (&mut self.clauses, &mut self.rules),
        };
        let moved = if other.is_empty() { None } else { other.remove(&rule.matching.expand(), rule.priority) };
        its.insert(rule).or(moved)
    }

    /// Removes the rule with exactly this match and priority.
    pub fn remove(&mut self, matching: &Match, priority: u16) -> Option<Arc<Rule>> {
        self.rules.remove(matching, priority).or_else(|| self.clauses.remove(matching, priority))
    }

    /// The rules for flows that all are among those of `matching`.
    pub fn included<'a>(&'a self, matching: &'a Match) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.rules.included(matching).chain(self.clauses.included(matching))
    }

    /// Whether a rule of this priority is for a flow that `matching` is for too.
    pub fn overlaps(&self, matching: &Match, priority: u16) -> bool {
        self.rules.overlaps(matching, priority) || self.clauses.overlaps(matching, priority)
    }
}

/// Whether a rule is a clause of a conjunction. (It may have notes beside, and nothing else.)
fn is_clause(rule: &Rule) -> bool {
    rule.instructions.apply.iter().any(|action| matches!(action, OfAction::Conjunction { .. }))
}

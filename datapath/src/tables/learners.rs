//! Rules that learn, and want what they have learned to go with them.
//!
//! What was learned is told by its table and cookie. It goes when the last rule that learns into that table with that cookie does.

use std::collections::BTreeMap;

use super::instruction::OfAction;
use super::rule::Rule;

/// How many rules learn into each table with each cookie, of those that want it to go with them.
#[derive(Clone, Debug, Default)]
pub(super) struct Learners {
    counts: BTreeMap<(u8, u64), usize>,
}

impl Learners {
    /// Another rule learns.
    pub fn add(&mut self, learned: &[(u8, u64)]) {
        learned.iter().for_each(|learned| *self.counts.entry(*learned).or_default() += 1);
    }

    /// A rule that learned is gone. Returns the tables and cookies that nobody learns any more.
    pub fn remove(&mut self, learned: &[(u8, u64)]) -> Vec<(u8, u64)> {
        let mut orphaned = Vec::new();
        for learned in learned {
            if let Some(count) = self.counts.get_mut(learned) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(learned);
                    orphaned.push(*learned);
                }
            }
        }
        orphaned
    }
}

/// The tables and cookies that a rule learns, if what it learns is to go with it.
pub(super) fn learned_by(rule: &Rule) -> Vec<(u8, u64)> {
    let mut learned = Vec::new();
    rule.instructions.each_action(&mut |action| {
        if let OfAction::Learn(learn) = action
            && learn.delete_learned
        {
            learned.push((learn.table, learn.cookie));
        }
    });
    learned
}

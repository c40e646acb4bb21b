//! Finds the rules whose time is over, without looking at the others.
//!
//! A wheel of 256 slots, one for a second each. A rule with a timeout lies in the slot of the second that it may expire in; when that
//! comes, it expires, or was used meanwhile and moves on to a later slot. A rule that has more than 256 seconds left just stays for another
//! turn. The slots are copied on write, as everything else in the tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rule::{Removed, Rule};
use crate::Nanos;
use crate::classifier::{Shards, mix};

/// The rules that have timeouts.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    slots: Vec<Arc<Shards<Arc<Rule>>>>,
    /// The second up to which, and not including, all that was due has been taken out.
    second: u64,
}

const SLOTS: u64 = 256;
const SECOND: Nanos = 1_000_000_000;

impl Default for Timers {
    fn default() -> Self {
        Self { slots: vec![Arc::default(); SLOTS as usize], second: 0 }
    }
}

impl Timers {
    /// Watches a rule, if it has a timeout.
    pub fn insert(&mut self, rule: &Arc<Rule>) {
        if let Some((deadline, _)) = rule.deadline() {
            // What is due already is taken out with what is due next.
            let slot = ((deadline / SECOND).max(self.second) % SLOTS) as u8;
            rule.timer_slot.store(slot, Ordering::Relaxed);
            Arc::make_mut(&mut self.slots[usize::from(slot)]).insert(hash(rule), rule.clone());
        }
    }

    /// Watches a rule no longer.
    pub fn remove(&mut self, rule: &Arc<Rule>) {
        if (rule.idle_timeout, rule.hard_timeout) == (0, 0) {
            return;
        }
        let slot = &mut self.slots[usize::from(rule.timer_slot.load(Ordering::Relaxed))];
        let is = |other: &Arc<Rule>| Arc::ptr_eq(rule, other);
        if slot.find(hash(rule), is).is_some() {
            Arc::make_mut(slot).remove(hash(rule), is);
        }
    }

    /// Takes out the rules that are due at `now`.
    pub fn expire(&mut self, now: Nanos) -> Vec<Removed> {
        let last = now / SECOND;
        let mut due = Vec::new();
        for second in self.second.max((last + 1).saturating_sub(SLOTS))..=last {
            let mut later = Vec::new();
            for rule in self.slots[(second % SLOTS) as usize].iter() {
                match rule.deadline() {
                    Some((deadline, reason)) if deadline <= now => due.push(Removed { rule: rule.clone(), reason }),
                    Some((deadline, _)) if deadline / SECOND % SLOTS != second % SLOTS => later.push(rule.clone()),
                    _ => {}
                }
            }
            for rule in later {
                self.remove(&rule);
                self.insert(&rule);
            }
        }
        self.second = self.second.max(last);
        due.iter().for_each(|removed| self.remove(&removed.rule));
        due
    }
}

/// Spreads the rules of a slot over its shards.
fn hash(rule: &Rule) -> u32 {
    (mix(mix(rule.created, rule.matching.hash()), u64::from(rule.priority)) >> 32) as u32
}

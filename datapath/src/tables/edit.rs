//! Changes to the flow tables: flow-mods and timeouts (OpenFlow 1.3.5, 6.4 and 6.5).

use std::sync::Arc;

use super::check::{check_instructions, check_match};
use super::flow_mod::{FlowMod, FlowModCommand, FlowModError, FlowModOutcome};
use super::rule::{Removed, RemovedReason, Rule, RuleCounters, RuleFilter, RuleFlags};
use super::{TABLE_COUNT, Tables};
use crate::Nanos;
use crate::port::PortNo;

impl Tables {
    /// Carries out a flow-mod, all of it or, on an error, nothing.
    ///
    /// For idle timeouts and counters to be exact, the workers' counts should have been [credited](RuleCounters::credit) before.
    pub fn flow_mod(&mut self, flow_mod: &FlowMod, now: Nanos) -> Result<FlowModOutcome, FlowModError> {
        if !RuleFlags::ALL.contains(flow_mod.flags) {
            return Err(FlowModError::BadFlags);
        }
        let delete = matches!(flow_mod.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        if usize::from(flow_mod.table) >= TABLE_COUNT && !(delete && flow_mod.table == RuleFilter::ALL_TABLES) {
            return Err(FlowModError::BadTableId);
        }
        check_match(&flow_mod.matching)?;
        if !delete {
            check_instructions(flow_mod)?;
        }
        let mut outcome = FlowModOutcome::default();
        match flow_mod.command {
            FlowModCommand::Add => self.add(flow_mod, now)?,
            FlowModCommand::Modify | FlowModCommand::ModifyStrict => self.modify(flow_mod, now),
            FlowModCommand::Delete | FlowModCommand::DeleteStrict => outcome.removed = self.delete(flow_mod),
        }
        Ok(outcome)
    }

    fn add(&mut self, flow_mod: &FlowMod, now: Nanos) -> Result<(), FlowModError> {
        let table = &self.tables[usize::from(flow_mod.table)];
        if flow_mod.flags.contains(RuleFlags::CHECK_OVERLAP) && table.overlaps(&flow_mod.matching, flow_mod.priority) {
            return Err(FlowModError::Overlap);
        }
        let old = table.get(&flow_mod.matching, flow_mod.priority);
        if old.is_none() && table.len() >= self.max_rules {
            return Err(FlowModError::TableFull);
        }
        let counters = match old {
            Some(old) if !flow_mod.flags.contains(RuleFlags::RESET_COUNTS) => {
                // Shared, not copied: workers may hold counts that they have not credited yet. The idle timeout starts anew.
                old.counters.credit(0, 0, now);
                old.counters.clone()
            }
            _ => Arc::new(RuleCounters::new(now)),
        };
        self.put_rule(Rule {
            table: flow_mod.table,
            priority: flow_mod.priority,
            matching: table.compact(&flow_mod.matching),
            cookie: flow_mod.cookie,
            instructions: flow_mod.instructions.clone(),
            idle_timeout: flow_mod.idle_timeout,
            hard_timeout: flow_mod.hard_timeout,
            flags: flow_mod.flags,
            created: now,
            modified: now,
            counters,
            timer_slot: Default::default(),
        });
        Ok(())
    }

    fn modify(&mut self, flow_mod: &FlowMod, now: Nanos) {
        for old in self.selected(flow_mod) {
            let counters = if flow_mod.flags.contains(RuleFlags::RESET_COUNTS) {
                Arc::new(RuleCounters::new(old.counters.used()))
            } else {
                old.counters.clone()
            };
            self.put_rule(Rule {
                instructions: flow_mod.instructions.clone(),
                modified: now,
                counters,
                matching: old.matching.clone(),
                timer_slot: Default::default(),
                ..*old
            });
        }
    }

    fn delete(&mut self, flow_mod: &FlowMod) -> Vec<Removed> {
        let removed: Vec<_> = self.selected(flow_mod).into_iter().map(|rule| Removed { rule, reason: RemovedReason::Delete }).collect();
        removed.iter().for_each(|removed| self.timers.remove(&removed.rule));
        self.remove_rules(&removed);
        removed
    }

    /// The rules that a modification or deletion is about.
    fn selected(&self, flow_mod: &FlowMod) -> Vec<Arc<Rule>> {
        let strict = matches!(flow_mod.command, FlowModCommand::ModifyStrict | FlowModCommand::DeleteStrict);
        let delete = matches!(flow_mod.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        let filter = RuleFilter {
            table: flow_mod.table,
            matching: flow_mod.matching,
            priority: strict.then_some(flow_mod.priority),
            cookie: flow_mod.cookie,
            cookie_mask: flow_mod.cookie_mask,
            out_port: if delete { flow_mod.out_port } else { PortNo::ANY },
            out_group: if delete { flow_mod.out_group } else { RuleFilter::ANY_GROUP },
        };
        self.rules(&filter).cloned().collect()
    }

    /// Removes the rules whose time is over, and says which timeout it was. The cost depends on the rules that are due, not on all rules.
    ///
    /// For idle timeouts to be exact, the workers' counts should have been [credited](RuleCounters::credit) before.
    pub fn expire(&mut self, now: Nanos) -> Vec<Removed> {
        let removed = self.timers.expire(now);
        self.remove_rules(&removed);
        removed
    }

    /// Puts a rule in, in the place of the one with the same match and priority.
    fn put_rule(&mut self, rule: Rule) {
        let rule = Arc::new(rule);
        self.timers.insert(&rule);
        if let Some(old) = Arc::make_mut(&mut self.tables[usize::from(rule.table)]).insert(rule) {
            self.timers.remove(&old);
        }
        self.epoch += 1;
    }

    fn remove_rules(&mut self, removed: &[Removed]) {
        for of_table in removed.chunk_by(|a, b| a.rule.table == b.rule.table) {
            let table = &mut self.tables[usize::from(of_table[0].rule.table)];
            if of_table.len() == table.len() {
                *table = Arc::default();
                continue;
            }
            let table = Arc::make_mut(table);
            for Removed { rule, .. } in of_table {
                table.remove(&rule.matching.expand(), rule.priority);
            }
        }
        if !removed.is_empty() {
            self.epoch += 1;
        }
    }
}

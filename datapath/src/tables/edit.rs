//! Changes to the flow tables: flow-mods, group-mods, meter-mods and timeouts (OpenFlow 1.3.5, 6.4 to 6.7).

use std::sync::Arc;

use super::check::{check_bucket, check_instructions, check_match, check_packet_out};
use super::flow_mod::{FlowMod, FlowModCommand, FlowModError, FlowModOutcome};
use super::group::{GROUP_ALL, GroupCommand, GroupMod, GroupModError, Groups};
use super::instruction::OfAction;
use super::learners::learned_by;
use super::meter::{METER_ALL, MeterCommand, MeterMod, MeterModError};
use super::rule::{Counters, Removed, RemovedReason, Rule, RuleFilter, RuleFlags};
use super::{TABLE_COUNT, Tables};
use crate::Nanos;

impl Tables {
    /// Carries out a flow-mod, all of it or, on an error, nothing.
    ///
    /// For idle timeouts and counters to be exact, the workers' counts should have been [credited](Counters::credit) before.
    pub fn flow_mod(&mut self, flow_mod: &FlowMod, now: Nanos) -> Result<FlowModOutcome, FlowModError> {
        if !RuleFlags::ALL.contains(flow_mod.flags) {
            return Err(FlowModError::BadFlags);
        }
        let delete = matches!(flow_mod.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        let modify = matches!(flow_mod.command, FlowModCommand::Modify | FlowModCommand::ModifyStrict);
        let may_be_all = delete || modify && flow_mod.or_add;
        if usize::from(flow_mod.table) >= TABLE_COUNT && !(may_be_all && flow_mod.table == RuleFilter::ALL_TABLES) {
            return Err(FlowModError::BadTableId);
        }
        check_match(&flow_mod.matching)?;
        if !delete {
            check_instructions(flow_mod, self)?;
        }
        let removed = match flow_mod.command {
            FlowModCommand::Add => self.add(flow_mod, now)?,
            FlowModCommand::Modify | FlowModCommand::ModifyStrict => self.modify(flow_mod, now)?,
            FlowModCommand::Delete | FlowModCommand::DeleteStrict => self.delete(flow_mod),
        };
        Ok(FlowModOutcome { removed })
    }

    fn add(&mut self, flow_mod: &FlowMod, now: Nanos) -> Result<Vec<Removed>, FlowModError> {
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
            _ => Arc::new(Counters::new(now)),
        };
        Ok(self.put_rule(Rule {
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
        }))
    }

    fn modify(&mut self, flow_mod: &FlowMod, now: Nanos) -> Result<Vec<Removed>, FlowModError> {
        let rules = self.selected(flow_mod);
        if flow_mod.adds(rules.len()) {
            let table = if flow_mod.table == RuleFilter::ALL_TABLES { 0 } else { flow_mod.table };
            return self.add(&FlowMod { table, cookie: flow_mod.new_cookie.unwrap_or_default(), ..flow_mod.clone() }, now);
        }
        let mut removed = Vec::new();
        for old in rules {
            let counters = if flow_mod.flags.contains(RuleFlags::RESET_COUNTS) {
                Arc::new(Counters::new(old.counters.used()))
            } else {
                old.counters.clone()
            };
            removed.extend(self.put_rule(Rule {
                cookie: flow_mod.new_cookie.unwrap_or(old.cookie),
                instructions: flow_mod.instructions.clone(),
                modified: now,
                counters,
                matching: old.matching.clone(),
                timer_slot: Default::default(),
                ..*old
            }));
        }
        Ok(removed)
    }

    fn delete(&mut self, flow_mod: &FlowMod) -> Vec<Removed> {
        self.take_out(self.selected(flow_mod), RemovedReason::Delete)
    }

    fn take_out(&mut self, rules: Vec<Arc<Rule>>, reason: RemovedReason) -> Vec<Removed> {
        let removed: Vec<_> = rules.into_iter().map(|rule| Removed { rule, reason }).collect();
        removed.iter().for_each(|removed| self.timers.remove(&removed.rule));
        self.remove_rules(removed)
    }

    /// Carries out a group-mod, all of it or, on an error, nothing. Returns the rules that went with a group (OpenFlow 1.3.5, 6.7).
    pub fn group_mod(&mut self, change: &GroupMod, now: Nanos) -> Result<Vec<Removed>, GroupModError> {
        self.groups.check(change)?;
        change.buckets.iter().try_for_each(|bucket| check_bucket(bucket, self)).map_err(GroupModError::BadAction)?;
        let mut removed = Vec::new();
        if change.command != GroupCommand::Delete {
            Arc::make_mut(&mut self.groups).put(change, &self.ports, now);
        } else if change.group == GROUP_ALL {
            let users = self.rules(&RuleFilter::ALL).filter(|rule| !rule.groups().is_empty()).cloned().collect();
            removed = self.take_out(users, RemovedReason::GroupDelete);
            self.groups = Arc::new(Groups::default());
        } else if self.groups.get(change.group).is_some() {
            if self.groups.has_users(change.group) {
                let filter = RuleFilter { out_group: change.group, ..RuleFilter::ALL };
                removed = self.take_out(self.rules(&filter).cloned().collect(), RemovedReason::GroupDelete);
            }
            Arc::make_mut(&mut self.groups).remove(change.group, &self.ports);
        }
        self.epoch += 1;
        Ok(removed)
    }

    /// Carries out a meter-mod, all of it or, on an error, nothing. Returns the rules that went with a meter (OpenFlow 1.3.5, 6.8).
    pub fn meter_mod(&mut self, change: &MeterMod, now: Nanos) -> Result<Vec<Removed>, MeterModError> {
        self.meters.check(change)?;
        let mut removed = Vec::new();
        if change.command != MeterCommand::Delete {
            Arc::make_mut(&mut self.meters).put(change, now);
        } else {
            let goes = |id: u32| change.meter == METER_ALL || id == change.meter;
            let meters: Vec<_> = self.meters().map(|meter| meter.id).filter(|id| goes(*id)).collect();
            if meters.iter().any(|id| self.meters.users(*id) > 0) {
                let users = self.rules(&RuleFilter::ALL).filter(|rule| rule.instructions.meter.is_some_and(goes)).cloned().collect();
                removed = self.take_out(users, RemovedReason::Delete);
            }
            let left = Arc::make_mut(&mut self.meters);
            meters.into_iter().for_each(|id| left.remove(id));
        }
        self.epoch += 1;
        Ok(removed)
    }

    /// Whether the actions of a packet-out can be carried out.
    pub fn check_packet_out(&self, actions: &[OfAction]) -> Result<(), FlowModError> {
        check_packet_out(actions, self)
    }

    /// The rules that a modification or deletion is about.
    fn selected(&self, flow_mod: &FlowMod) -> Vec<Arc<Rule>> {
        self.rules(&flow_mod.filter()).cloned().collect()
    }

    /// Removes the rules whose time is over, and says which timeout it was. The cost depends on the rules that are due, not on all rules.
    ///
    /// For idle timeouts to be exact, the workers' counts should have been [credited](Counters::credit) before.
    pub fn expire(&mut self, now: Nanos) -> Vec<Removed> {
        let removed = self.timers.expire(now);
        self.remove_rules(removed)
    }

    /// Puts a rule in, in the place of the one with the same match and priority. Returns what goes because that learned it.
    fn put_rule(&mut self, rule: Rule) -> Vec<Removed> {
        let rule = Arc::new(rule);
        self.timers.insert(&rule);
        self.note_uses(&rule);
        self.epoch += 1;
        match Arc::make_mut(&mut self.tables[usize::from(rule.table)]).insert(rule) {
            Some(old) => {
                self.timers.remove(&old);
                self.forget_uses(&old)
            }
            None => Vec::new(),
        }
    }

    /// Notes which groups and which meter a rule uses.
    fn note_uses(&mut self, rule: &Rule) {
        let groups = rule.groups();
        if !groups.is_empty() {
            Arc::make_mut(&mut self.groups).used_by_rule(&groups);
        }
        if let Some(meter) = rule.instructions.meter {
            Arc::make_mut(&mut self.meters).used(meter);
        }
        let learned = learned_by(rule);
        if !learned.is_empty() {
            Arc::make_mut(&mut self.learners).add(&learned);
        }
    }

    /// Forgets them. Returns what goes because nobody learns it any more.
    fn forget_uses(&mut self, rule: &Rule) -> Vec<Removed> {
        let groups = rule.groups();
        if !groups.is_empty() {
            Arc::make_mut(&mut self.groups).unused_by_rule(&groups);
        }
        if let Some(meter) = rule.instructions.meter {
            Arc::make_mut(&mut self.meters).unused(meter);
        }
        let learned = learned_by(rule);
        if learned.is_empty() {
            return Vec::new();
        }
        let orphaned = Arc::make_mut(&mut self.learners).remove(&learned);
        let rules = orphaned.into_iter().flat_map(|(table, cookie)| {
            let filter = RuleFilter { table, cookie, cookie_mask: u64::MAX, ..RuleFilter::ALL };
            self.rules(&filter).cloned().collect::<Vec<_>>()
        });
        let rules = rules.collect();
        self.take_out(rules, RemovedReason::Delete)
    }

    /// Removes rules, and what goes because they learned it. Returns all of them.
    fn remove_rules(&mut self, mut removed: Vec<Removed>) -> Vec<Removed> {
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
        let orphans: Vec<_> = removed.iter().flat_map(|removed| self.forget_uses(&removed.rule)).collect();
        removed.extend(orphans);
        removed
    }
}

//! Rules: flow-mods, their expiry, publishing, and telling of removals.

use std::sync::Arc;

use datapath::Nanos;
use datapath::key::Match;
use datapath::tables::{FlowMod, FlowModCommand, FlowModError, Removed, Rule, RuleFilter};

use super::changes::{Changes, RuleChange};
use super::{Agent, Datapath};
use crate::openflow::wire::error::{BadAction, BadInstruction, BadMatch, BadRequest, FlowModFailed, MeterModFailed, Nicira};
use crate::openflow::wire::{Age, ErrorCode, FlowModMessage, FlowRemoved, FlowStats, NO_BUFFER, RuleEvent, can_be_sent};

impl Agent {
    pub(super) fn flow_mod(&mut self, message: &FlowModMessage, now: Nanos, changes: &mut Changes) -> Result<(), ErrorCode> {
        let change = &message.flow_mod;
        let deletes = matches!(change.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        if message.buffer_id != NO_BUFFER && !deletes {
            // Frames are never buffered, so there is none of that id.
            return Err(BadRequest::BufferUnknown.into());
        }
        let watched = self.is_watched();
        let before = if watched && !deletes { self.rules_before(change) } else { Vec::new() };
        let outcome = self.draft.flow_mod(change, now).map_err(flow_mod_error)?;
        changes.note_removed(outcome.removed, watched);
        if watched && !deletes {
            self.note_changed(change, before, changes);
        }
        Ok(())
    }

    /// The rules that a flow-mod which adds or modifies may put others in the place of.
    fn rules_before(&self, change: &FlowMod) -> Vec<Arc<Rule>> {
        match change.command {
            FlowModCommand::Add => self.draft.rule(change.table, &change.matching, change.priority).cloned().into_iter().collect(),
            _ => self.draft.rules(&change.filter()).cloned().collect(),
        }
    }

    /// Notes what a flow-mod did to the rules that were there `before`, and what it added.
    fn note_changed(&self, change: &FlowMod, before: Vec<Arc<Rule>>, changes: &mut Changes) {
        let after = |table: u8, matching: &Match, priority: u16| self.draft.rule(table, matching, priority).cloned();
        if change.adds(before.len()) {
            let table = if change.table == RuleFilter::ALL_TABLES { 0 } else { change.table };
            let added = after(table, &change.matching, change.priority);
            let before = before.into_iter().next();
            changes.rules.extend(added.map(|rule| RuleChange { event: RuleEvent::Added, rule, before }));
            return;
        }
        for before in before {
            let Some(rule) = after(before.table, &before.matching.expand(), before.priority) else { continue };
            if (&rule.instructions, rule.cookie) != (&before.instructions, before.cookie) {
                changes.rules.push(RuleChange { event: RuleEvent::Modified, rule, before: Some(before) });
            }
        }
    }

    /// Adds a rule that an action learned, unless it is there already. It is published as flow-mods are that no barrier follows.
    pub fn learn(&mut self, rule: &FlowMod, now: Nanos) {
        let same = |known: &Rule| {
            known.instructions == rule.instructions
                && (known.cookie, known.idle_timeout, known.hard_timeout) == (rule.cookie, rule.idle_timeout, rule.hard_timeout)
        };
        if self.draft.rule(rule.table, &rule.matching, rule.priority).is_some_and(|known| same(known)) {
            return;
        }
        let outcome = match can_be_sent(&rule.instructions) {
            true => self.own_flow_mod(rule.clone(), now),
            false => Err(BadAction::TooMany.into()),
        };
        if let Err(error) = outcome {
            tracing::debug!(table = rule.table, "a rule can't be learned: {error}");
        }
    }

    /// Removes the rules whose time is over.
    pub(super) fn expire_rules(&mut self, datapath: &mut dyn Datapath, now: Nanos) {
        // Or a rule that is in use would look idle.
        datapath.settle();
        let mut changes = Changes::default();
        changes.note_removed(self.draft.expire(now), self.is_watched());
        self.tell(changes, None);
    }

    /// Publishes the draft if it changed, and tells of the rules that were removed, with their final counters.
    pub(super) fn commit(&mut self, datapath: &mut dyn Datapath, now: Nanos) {
        self.urgent = false;
        if self.draft.epoch() != self.published {
            self.published = self.draft.epoch();
            self.published_at = now;
            datapath.publish(self.draft.clone());
        }
        if self.removed.is_empty() {
            return;
        }
        datapath.barrier();
        let removed = std::mem::take(&mut self.removed);
        self.sessions.values_mut().for_each(|session| session.tell_removed(&removed, now));
    }
}

/// The removal of a rule at `now` as a controller is told of it.
pub(in crate::openflow) fn flow_removed(removed: &Removed, now: Nanos) -> FlowRemoved {
    let rule = &removed.rule;
    FlowRemoved {
        cookie: rule.cookie,
        priority: rule.priority,
        reason: removed.reason,
        table: rule.table,
        age: Age::between(rule.created, now),
        idle_timeout: rule.idle_timeout,
        hard_timeout: rule.hard_timeout,
        frames: rule.counters.frames(),
        bytes: rule.counters.bytes(),
        matching: rule.matching.expand(),
    }
}

/// A rule as a request for flow statistics is told of it.
pub(in crate::openflow) fn flow_stats(rule: &Rule, now: Nanos) -> FlowStats {
    FlowStats {
        table: rule.table,
        age: Age::between(rule.created, now),
        idle_age: Some(seconds_since(rule.counters.used(), now)),
        change_age: Some(seconds_since(rule.modified, now)),
        priority: rule.priority,
        idle_timeout: rule.idle_timeout,
        hard_timeout: rule.hard_timeout,
        flags: rule.flags,
        cookie: rule.cookie,
        frames: rule.counters.frames(),
        bytes: rule.counters.bytes(),
        matching: rule.matching.expand(),
        instructions: rule.instructions.clone(),
    }
}

/// Whole seconds, as many as 16 bits say.
fn seconds_since(time: Nanos, now: Nanos) -> u16 {
    u16::try_from(now.saturating_sub(time) / 1_000_000_000).unwrap_or(u16::MAX)
}

pub(super) fn flow_mod_error(error: FlowModError) -> ErrorCode {
    match error {
        FlowModError::TableFull => FlowModFailed::TableFull.into(),
        FlowModError::BadTableId => FlowModFailed::BadTableId.into(),
        FlowModError::Overlap => FlowModFailed::Overlap.into(),
        FlowModError::BadFlags => FlowModFailed::BadFlags.into(),
        FlowModError::BadGotoTable => BadInstruction::BadTableId.into(),
        FlowModError::UnknownMeter => MeterModFailed::UnknownMeter.into(),
        FlowModError::BadConjunction => Nicira::BadConjunction.into(),
        FlowModError::BadPrerequisite => BadMatch::BadPrereq.into(),
        FlowModError::BadActionType => BadAction::BadType.into(),
        FlowModError::BadOutPort => BadAction::BadOutPort.into(),
        FlowModError::BadOutGroup => BadAction::BadOutGroup.into(),
        FlowModError::BadQueue => BadAction::BadQueue.into(),
        FlowModError::BadArgument => BadAction::BadArgument.into(),
        FlowModError::MatchInconsistent => BadAction::MatchInconsistent.into(),
        FlowModError::BadSetType => BadAction::BadSetType.into(),
        FlowModError::BadSetArgument => BadAction::BadSetArgument.into(),
    }
}

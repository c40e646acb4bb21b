//! Rules: flow-mods, their expiry, publishing, and telling of removals.

use datapath::Nanos;
use datapath::tables::{FlowModCommand, FlowModError, Removed, Rule, RuleFlags};

use super::{Agent, Datapath};
use crate::openflow::wire::error::{BadAction, BadInstruction, BadMatch, BadRequest, FlowModFailed};
use crate::openflow::wire::{Age, ErrorCode, FlowModMessage, FlowRemoved, FlowStats, Message, NO_BUFFER};

impl Agent {
    pub(super) fn flow_mod(&mut self, message: &FlowModMessage, now: Nanos) -> Result<(), ErrorCode> {
        let deletes = matches!(message.flow_mod.command, FlowModCommand::Delete | FlowModCommand::DeleteStrict);
        if message.buffer_id != NO_BUFFER && !deletes {
            // Frames are never buffered, so there is none of that id.
            return Err(BadRequest::BufferUnknown.into());
        }
        let outcome = self.draft.flow_mod(&message.flow_mod, now).map_err(flow_mod_error)?;
        self.note_removed(outcome.removed);
        Ok(())
    }

    /// Removes the rules whose time is over.
    pub(super) fn expire_rules(&mut self, datapath: &mut dyn Datapath, now: Nanos) {
        // Or a rule that is in use would look idle.
        datapath.settle();
        let removed = self.draft.expire(now);
        self.note_removed(removed);
    }

    fn note_removed(&mut self, removed: Vec<Removed>) {
        self.removed.extend(removed.into_iter().filter(|removed| removed.rule.flags.contains(RuleFlags::SEND_FLOW_REM)));
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
        for removed in std::mem::take(&mut self.removed) {
            let reason = removed.reason as u8;
            let message = Message::FlowRemoved(Box::new(flow_removed(&removed, now)));
            for session in self.sessions.values_mut().filter(|session| session.wants(session.wants.flow_removed, reason)) {
                session.send(&message, 0);
            }
        }
    }
}

fn flow_removed(removed: &Removed, now: Nanos) -> FlowRemoved {
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

pub(super) fn flow_mod_error(error: FlowModError) -> ErrorCode {
    match error {
        FlowModError::TableFull => FlowModFailed::TableFull.into(),
        FlowModError::BadTableId => FlowModFailed::BadTableId.into(),
        FlowModError::Overlap => FlowModFailed::Overlap.into(),
        FlowModError::BadFlags => FlowModFailed::BadFlags.into(),
        FlowModError::BadGotoTable => BadInstruction::BadTableId.into(),
        FlowModError::UnsupportedInstruction => BadInstruction::UnsupInst.into(),
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

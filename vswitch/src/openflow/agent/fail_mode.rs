//! What the switch does without a controller.
//!
//! With none configured, a standalone switch has one rule to begin with, `priority=0 actions=NORMAL` in table 0, which is listed and can be deleted
//! like any other. With controllers configured, it begins with no rule; when none of them has been there for three probe intervals, a rule of a high
//! priority makes it a learning switch until one is back. The controllers' own rules stay, below that one. A secure switch does what
//! its rules say and nothing else. (So does Open vSwitch, whose latter rule is hidden and above any other, and which removes the controllers' rules.)

use std::sync::Arc;

use datapath::Nanos;
use datapath::key::Match;
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, FlowModCommand, Rule, RuleFilter};

use super::{Agent, Origin};
use crate::config::{FailMode, OpenFlow};

/// The priority of the rule that stands in for lost controllers: the highest.
const FAIL_OPEN_PRIORITY: u16 = u16::MAX;

/// For how many probe intervals controllers may be away.
const PROBES: u32 = 3;

/// The state of the fail mode.
#[derive(Debug, Default)]
pub(super) struct FailOpen {
    /// Since when no controller has been there.
    alone_since: Option<Nanos>,
    /// The rule that makes a learning switch.
    rule: Option<Arc<Rule>>,
}

impl Agent {
    /// Begins anew, with what the settings ask for.
    pub(super) fn start_fail_mode(&mut self, now: Nanos) {
        self.remove_learning_rule(now);
        self.fail_open.alone_since = Some(now);
        if self.settings.fail_mode == FailMode::Standalone && !self.settings.has_controllers {
            self.add_learning_rule(0, now);
        }
    }

    pub(super) fn tick_fail_mode(&mut self, now: Nanos) {
        if !self.settings.has_controllers {
            return;
        }
        if self.sessions.values().any(|session| session.peer.origin == Origin::Controller && session.is_greeted() && !session.is_over()) {
            self.fail_open.alone_since = None;
            self.remove_learning_rule(now);
            return;
        }
        let since = *self.fail_open.alone_since.get_or_insert(now);
        // Who never probes has decided nothing about controllers that can't be reached.
        let interval = self.settings.openflow.inactivity_probe.or(OpenFlow::default().inactivity_probe).unwrap_or_default();
        let patient = now.saturating_sub(since) < (PROBES * interval).as_nanos() as Nanos;
        if patient || self.settings.fail_mode != FailMode::Standalone {
            return;
        }
        if self.fail_open.rule.is_none() {
            tracing::warn!("no controller is reachable; the switch is a learning switch until one is (fail-mode standalone)");
        }
        // Also if it was deleted meanwhile, along with others: there is nobody to put anything in its place.
        if self.fail_open.rule.is_none() || self.learning_rule(FAIL_OPEN_PRIORITY).is_none() {
            self.add_learning_rule(FAIL_OPEN_PRIORITY, now);
        }
    }

    fn add_learning_rule(&mut self, priority: u16, now: Nanos) {
        let apply = [OfAction::Output { port: PortNo::NORMAL, max_len: 0 }].into();
        let add = FlowMod { priority, instructions: Instructions { apply, ..Instructions::default() }, ..FlowMod::default() };
        match self.own_flow_mod(add, now) {
            Ok(()) => self.fail_open.rule = self.learning_rule(priority),
            Err(error) => tracing::error!("the rule that makes a learning switch can't be added: {error}"),
        }
    }

    /// Removes the rule if it is still what it was.
    fn remove_learning_rule(&mut self, now: Nanos) {
        let Some(rule) = self.fail_open.rule.take() else { return };
        if self.learning_rule(rule.priority).is_some_and(|found| Arc::ptr_eq(&found, &rule)) {
            let delete = FlowMod { command: FlowModCommand::DeleteStrict, priority: rule.priority, ..FlowMod::default() };
            if let Err(error) = self.own_flow_mod(delete, now) {
                tracing::error!("the rule that made a learning switch can't be removed: {error}");
            }
        }
    }

    fn learning_rule(&self, priority: u16) -> Option<Arc<Rule>> {
        let filter = RuleFilter { table: 0, matching: Match::ANY, priority: Some(priority), ..RuleFilter::ALL };
        self.draft.rules(&filter).next().cloned()
    }
}

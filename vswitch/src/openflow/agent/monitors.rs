//! Flow monitors: controllers that are told what becomes of rules.
//!
//! Changes are told as they are made. A controller that takes them too slowly is told that they pause, and nothing more until it has taken all that is queued; then
//! it is told how the rules differ from those that there were when the pause began, and that the pause is over. In the same way, unsaid, what changed while the
//! rules that there are at first were sent comes after them. So what waits for a controller is bounded, and what it knows in the end is right.

use std::collections::BTreeMap;
use std::sync::Arc;

use datapath::port::PortNo;
use datapath::tables::instruction::Instructions;
use datapath::tables::{RemovedReason, Rule, RuleFilter, TABLE_COUNT, Tables};

use super::changes::RuleChange;
use super::{Agent, ConnectionId};
use crate::openflow::dump::Dump;
use crate::openflow::wire::error::{BadRequest, Nicira};
use crate::openflow::wire::{
    ErrorCode, FullUpdate, Message, MonitorFlags, MonitorRequest, MultipartBody, MultipartReply, RuleEvent, RuleUpdate,
};

/// The most monitors of a connection.
const MAX_MONITORS: usize = 64;

/// The monitors of one connection.
#[derive(Debug, Default)]
pub(in crate::openflow) struct Monitors {
    by_id: BTreeMap<u32, MonitorRequest>,
    /// Set while changes are not told.
    pause: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    /// The tables that the controller knows.
    known: Tables,
    /// Whether the controller knows of the pause.
    announced: bool,
}

impl Monitors {
    /// Whether changes are to be noted for them.
    pub fn watch(&self) -> bool {
        !self.by_id.is_empty() && self.pause.is_none()
    }

    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// The flags of the monitors that a change is for, together; `None` if there are none.
    fn flags_for(&self, event: RuleEvent, rule: &Rule, before: Option<&Rule>) -> Option<MonitorFlags> {
        let wanted = match event {
            RuleEvent::Added => MonitorFlags::ADD,
            RuleEvent::Deleted(_) => MonitorFlags::DELETE,
            RuleEvent::Modified => MonitorFlags::MODIFY,
        };
        self.flags(wanted, rule, before)
    }

    /// The flags of the monitors with one of `wanted` that a rule is for.
    fn flags(&self, wanted: MonitorFlags, rule: &Rule, before: Option<&Rule>) -> Option<MonitorFlags> {
        let concerns = |monitor: &&MonitorRequest| {
            let outputs = |rule: &Rule| monitor.out_port == PortNo::ANY || rule.outputs_to(monitor.out_port);
            monitor.flags.intersects(wanted)
                && [RuleFilter::ALL_TABLES, rule.table].contains(&monitor.table)
                && (outputs(rule) || before.is_some_and(outputs))
                && monitor.matching.includes(&rule.matching.expand())
        };
        let flags = self.by_id.values().filter(concerns).fold(0, |flags, monitor| flags | monitor.flags.0);
        (flags != 0).then_some(MonitorFlags(flags))
    }

    /// How the rules that the monitors are for differ between two states of the tables.
    fn difference(&self, known: &Tables, now: &Tables) -> Vec<RuleNews> {
        let mut news = Vec::new();
        let mut note = |event: RuleEvent, rule: &Arc<Rule>, before: Option<&Arc<Rule>>| {
            if let Some(flags) = self.flags_for(event, rule, before.map(|before| &**before)) {
                news.push(RuleNews { event, rule: rule.clone(), flags });
            }
        };
        let counterpart = |tables: &'_ Tables, rule: &Rule| tables.rule(rule.table, &rule.matching.expand(), rule.priority).cloned();
        for rule in known.rules(&RuleFilter::ALL) {
            if counterpart(now, rule).is_none() {
                note(RuleEvent::Deleted(RemovedReason::Delete), rule, None);
            }
        }
        for rule in now.rules(&RuleFilter::ALL) {
            match counterpart(known, rule) {
                None => note(RuleEvent::Added, rule, None),
                Some(before) if Arc::ptr_eq(&before, rule) => {}
                Some(before) => note(RuleEvent::Modified, rule, Some(&before)),
            }
        }
        news
    }
}

/// What there is to tell of a rule.
#[derive(Debug)]
pub(in crate::openflow) struct RuleNews {
    event: RuleEvent,
    rule: Arc<Rule>,
    /// Those of the monitors that it is for.
    flags: MonitorFlags,
}

impl RuleNews {
    /// As it is sent.
    pub fn update(&self) -> RuleUpdate {
        let Self { event, rule, flags } = self;
        let says = flags.intersects(MonitorFlags::ACTIONS) && !matches!(event, RuleEvent::Deleted(_));
        RuleUpdate::Full(Box::new(FullUpdate {
            event: *event,
            table: rule.table,
            priority: rule.priority,
            idle_timeout: rule.idle_timeout,
            hard_timeout: rule.hard_timeout,
            cookie: rule.cookie,
            matching: rule.matching.expand(),
            instructions: if says { rule.instructions.clone() } else { Instructions::default() },
        }))
    }
}

impl Agent {
    /// Whether a change of rules is to be noted for a monitor.
    pub(super) fn is_watched(&self) -> bool {
        self.sessions.values().any(|session| session.monitors.watch())
    }

    /// Begins monitors, all of them or, on an error, none, and answers with the rules that there are at first, as far as that is asked for.
    pub(super) fn begin_monitors(&mut self, id: ConnectionId, asked: Vec<MonitorRequest>, xid: u32) -> Result<(), ErrorCode> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let monitors = &mut session.monitors;
        if asked.iter().any(|monitor| monitor.table != RuleFilter::ALL_TABLES && usize::from(monitor.table) >= TABLE_COUNT) {
            return Err(BadRequest::BadTableId.into());
        }
        let mut by_id = monitors.by_id.clone();
        // The new ones alone say which rules are sent at first.
        let mut new = Monitors::default();
        for monitor in asked {
            if by_id.insert(monitor.id, monitor.clone()).is_some() {
                return Err(Nicira::MonitorExists.into());
            }
            new.by_id.insert(monitor.id, monitor);
        }
        if by_id.len() > MAX_MONITORS {
            return Err(BadRequest::Eperm.into());
        }
        monitors.by_id = by_id;
        let mut first = Vec::new();
        if new.by_id.values().any(|monitor| monitor.flags.intersects(MonitorFlags::INITIAL)) {
            for rule in self.draft.rules(&RuleFilter::ALL) {
                if let Some(flags) = new.flags(MonitorFlags::INITIAL, rule, None) {
                    first.push(RuleNews { event: RuleEvent::Added, rule: rule.clone(), flags });
                }
            }
        }
        session.begin(Dump::news(xid, first));
        if session.is_dumping() && !session.monitors.is_paused() {
            session.monitors.pause = Some(Pause { known: self.draft.clone(), announced: false });
        }
        Ok(())
    }

    pub(super) fn cancel_monitor(&mut self, id: ConnectionId, monitor: u32) -> Result<(), ErrorCode> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.monitors.by_id.remove(&monitor).map(|_| ()).ok_or(Nicira::UnknownMonitor.into())
    }

    /// Tells the monitors of changes that a request made, of which `origin` is the connection and the xid.
    pub(super) fn tell_monitors(&mut self, changes: &[RuleChange], origin: Option<(ConnectionId, u32)>) {
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| session.monitors.watch()) {
            let own = origin.filter(|(origin, _)| origin == id).map(|(_, xid)| xid);
            let mut updates = Vec::new();
            let mut abbreviated = false;
            for RuleChange { event, rule, before } in changes {
                let Some(flags) = session.monitors.flags_for(*event, rule, before.as_deref()) else { continue };
                match own {
                    Some(xid) if !flags.intersects(MonitorFlags::OWN) => {
                        if !std::mem::replace(&mut abbreviated, true) {
                            updates.push(RuleUpdate::Abbreviated(xid));
                        }
                    }
                    _ => updates.push(RuleNews { event: *event, rule: rule.clone(), flags }.update()),
                }
            }
            if updates.is_empty() {
                continue;
            }
            session.send(&Message::MultipartReply(MultipartReply { body: MultipartBody::FlowMonitor(updates), more: false }), 0);
            if session.connection.is_congested() {
                session.send(&Message::FlowMonitorPaused, 0);
                session.monitors.pause = Some(Pause { known: self.draft.clone(), announced: true });
            }
        }
    }

    /// Goes on with monitors whose controllers have taken what was queued.
    pub(super) fn resume_monitors(&mut self) {
        for session in self.sessions.values_mut() {
            while !session.is_dumping() && !session.connection.has_output() && !session.is_over() {
                let Some(Pause { known, announced }) = session.monitors.pause.take() else { break };
                let news = if known.epoch() == self.draft.epoch() { Vec::new() } else { session.monitors.difference(&known, &self.draft) };
                if news.is_empty() {
                    if announced {
                        session.send(&Message::FlowMonitorResumed, 0);
                    }
                    break;
                }
                session.monitors.pause = Some(Pause { known: self.draft.clone(), announced });
                session.begin(Dump::news(0, news));
                session.write();
            }
        }
    }
}

//! Tables, instructions and actions, carried out on a flow (OpenFlow 1.3.5, 5.1 and 5.9 to 5.12).

use std::sync::Arc;

use super::flow::TrackedFlow;
use super::{ACTIONS_MAX, DEPTH_MAX, LOOKUPS_MAX, Lookup, Observer, Scratch, Step};
use crate::Nanos;
use crate::action::{Action, OFPR_ACTION, OFPR_INVALID_TTL, OFPR_NO_MATCH, ToController};
use crate::drops::DropReason;
use crate::key::vlan::PRESENT;
use crate::key::{Field, FieldRange, FlowKey, FlowMask, KEY_WORDS, Prerequisite};
use crate::port::PortNo;
use crate::tables::instruction::{CONTROLLER_WHOLE, OfAction};
use crate::tables::{PortConfig, Rule, TABLE_COUNT, Tables};
use crate::wire::ethernet::ethertype;

/// One translation. An error is why the frame is dropped, whatever was done so far.
pub(super) struct Pipeline<'a, O: Observer + ?Sized> {
    pub(super) tables: &'a Tables,
    pub(super) flow: TrackedFlow,
    pub(super) now: Nanos,
    pub(super) learn: bool,
    pub(super) scratch: &'a mut Scratch,
    observer: &'a mut O,
    /// The first reason for which the frame was not sent somewhere.
    stopped: Option<DropReason>,
    /// The rule whose instructions are carried out; none in a packet-out's actions.
    rule: Option<&'a Rule>,
    depth: usize,
    /// How many rules matched.
    matched: usize,
    /// How many actions were carried out or made.
    work: usize,
}

impl<'a, O: Observer + ?Sized> Pipeline<'a, O> {
    pub fn new(tables: &'a Tables, key: &FlowKey, now: Nanos, scratch: &'a mut Scratch, learn: bool, observer: &'a mut O) -> Self {
        scratch.clear();
        let mut flow = TrackedFlow::new(key);
        flow.examine(&Field::InPort.mask());
        Self { tables, flow, now, learn, scratch, observer, stopped: None, rule: None, depth: 0, matched: 0, work: 0 }
    }

    /// Translates a frame that came in.
    pub fn translate_frame(mut self) {
        let receives = self.tables.ports().get(self.in_port()).is_none_or(|port| port.receives());
        let result = if receives { self.table(0) } else { Err(DropReason::PortDown) };
        self.finish(result);
    }

    /// Translates the actions of a packet-out.
    pub fn translate_list(mut self, actions: &[OfAction]) {
        let result = actions.iter().try_for_each(|action| {
            if matches!(action, OfAction::Output { port: PortNo::TABLE, .. }) { self.table(0) } else { self.action(action) }
        });
        self.finish(result);
    }

    fn finish(mut self, result: Result<(), DropReason>) {
        let result = result.and_then(|()| self.carry_out_action_set());
        if let Err(reason) = result {
            self.observer.observe(Step::Stopped(reason));
            self.scratch.actions.clear();
            self.stopped = Some(reason);
        }
        trim(&mut self.scratch.actions);
        self.scratch.reason = self.stopped.unwrap_or(DropReason::Rule);
        self.scratch.mask = self.flow.examined();
        self.scratch.effects.rules.truncate(self.matched);
    }

    /// The ingress port, which is always examined unless an action wrote it.
    pub(super) fn in_port(&self) -> PortNo {
        PortNo(Field::InPort.read(self.flow.flow()) as u32)
    }

    pub(super) fn observe(&mut self, step: Step<'_>) {
        self.observer.observe(step);
    }

    /// Notes that something was not done, and goes on.
    pub(super) fn stop(&mut self, reason: DropReason) {
        self.observer.observe(Step::Stopped(reason));
        self.stopped.get_or_insert(reason);
    }

    /// Counts an action.
    fn work(&mut self) -> Result<(), DropReason> {
        self.work += 1;
        if self.work > ACTIONS_MAX { Err(DropReason::TooManyTables) } else { Ok(()) }
    }

    /// Adds a flat action.
    pub(super) fn make(&mut self, action: Action) -> Result<(), DropReason> {
        self.work()?;
        self.observer.observe(Step::Made(&action));
        self.scratch.actions.push(action);
        Ok(())
    }

    /// Goes through the tables from `table`.
    fn table(&mut self, table: u8) -> Result<(), DropReason> {
        match self.lookup(table)? {
            Some(rule) => self.instructions(rule),
            None => {
                self.miss();
                Ok(())
            }
        }
    }

    /// No rule, not even a table-miss rule, matched on the way through the tables: the frame ends here (OpenFlow 1.3.5, 5.4).
    fn miss(&mut self) {
        self.scratch.action_set.clear();
        self.stop(DropReason::NoMatch);
    }

    fn lookup(&mut self, table: u8) -> Result<Option<&'a Rule>, DropReason> {
        if usize::from(table) >= TABLE_COUNT {
            return Ok(None);
        }
        let effects = &mut self.scratch.effects;
        if effects.lookups.len() >= LOOKUPS_MAX {
            return Err(DropReason::TooManyTables);
        }
        let mut examined = FlowMask::ZERO;
        let rule = self.tables.lookup(table, self.flow.flow(), &mut examined);
        self.flow.examine(&examined);
        effects.lookups.push(Lookup { table, matched: rule.is_some() });
        if let Some(rule) = rule {
            match effects.rules.get_mut(self.matched) {
                Some(held) if Arc::ptr_eq(held, &rule.counters) => {}
                Some(other) => *other = rule.counters.clone(),
                None => effects.rules.push(rule.counters.clone()),
            }
            self.matched += 1;
        }
        let rule = rule.map(|rule| &**rule);
        self.observer.observe(Step::Lookup { table, flow: self.flow.flow(), rule });
        Ok(rule)
    }

    /// Carries out the instructions of a rule, and of those that it goes on to.
    fn instructions(&mut self, mut rule: &'a Rule) -> Result<(), DropReason> {
        let outer = self.rule;
        loop {
            self.rule = Some(rule);
            let instructions = &rule.instructions;
            if instructions.meter.is_some() {
                return Err(DropReason::Unsupported);
            }
            instructions.apply.iter().try_for_each(|action| self.action(action))?;
            if instructions.clear {
                self.scratch.action_set.clear();
            }
            for action in &instructions.write {
                self.work()?;
                self.scratch.action_set.write(action);
            }
            if let Some((value, mask)) = instructions.metadata {
                self.flow.write(Field::Metadata, (value & mask).into(), mask.into());
            }
            let Some(next) = instructions.goto else { break };
            match self.lookup(next)? {
                Some(next) => rule = next,
                None => {
                    self.miss();
                    break;
                }
            }
        }
        // The action set is carried out for the last rule on the way, what follows a resubmit for the rule that has it.
        if self.depth > 0 {
            self.rule = outer;
        }
        Ok(())
    }

    fn carry_out_action_set(&mut self) -> Result<(), DropReason> {
        if self.scratch.action_set.is_empty() {
            return Ok(());
        }
        self.observer.observe(Step::ActionSet);
        let set = std::mem::take(&mut self.scratch.action_set);
        let result = set.in_order().try_for_each(|action| self.action(&action));
        self.scratch.action_set = set;
        result
    }

    fn action(&mut self, action: &OfAction) -> Result<(), DropReason> {
        self.work()?;
        self.observer.observe(Step::Action(action));
        match *action {
            OfAction::Output { port, max_len } => self.output(port, max_len),
            OfAction::SetField { field, value, mask } => self.set(field, value, mask),
            OfAction::SetNwTtl(ttl) => self.set(Field::NwTtl, ttl.into(), 0xff),
            OfAction::Load { destination, value } => {
                self.set(destination.field, u128::from(value) << destination.offset, bits(destination))
            }
            OfAction::Move { source, destination } => {
                if !self.flow.meets(source.field.info().prerequisite) {
                    return Ok(());
                }
                let value = self.flow.read(source.field, bits(source)) >> source.offset;
                self.set(destination.field, value << destination.offset, bits(destination))
            }
            OfAction::PushVlan(tpid) => self.push_vlan(tpid),
            OfAction::PopVlan => self.pop_vlan(),
            OfAction::DecNwTtl => self.decrement_ttl(),
            OfAction::Resubmit { port, table } => self.resubmit(port, table),
            OfAction::Controller { max_len, controller_id, reason } => self.controller(max_len, reason, controller_id),
            OfAction::SetQueue(_) => Ok(()),
            OfAction::Group(_) => Err(DropReason::Unsupported),
        }
    }

    fn output(&mut self, port: PortNo, max_len: u16) -> Result<(), DropReason> {
        match port {
            PortNo::IN_PORT => self.send(self.in_port()),
            PortNo::NORMAL => self.normal(),
            PortNo::FLOOD | PortNo::ALL => {
                let (tables, in_port) = (self.tables, self.in_port());
                for to in tables.ports().iter().filter(|to| to.link_up && to.no != in_port) {
                    if port == PortNo::ALL || !to.config.intersects(PortConfig::NO_FLOOD) {
                        self.send(to.no)?;
                    }
                }
                Ok(())
            }
            PortNo::CONTROLLER => {
                // A rule that matches everything at the lowest priority is the table-miss rule.
                let missed = self.rule.is_some_and(|rule| rule.priority == 0 && rule.matching.expand().mask() == &FlowMask::ZERO);
                self.controller(max_len, if missed { OFPR_NO_MATCH } else { OFPR_ACTION }, 0)
            }
            port if port == self.in_port() => {
                self.stop(DropReason::NoDestination);
                Ok(())
            }
            port => self.send(port),
        }
    }

    /// Sends to a port of the switch, whichever it is, if it takes frames.
    pub(super) fn send(&mut self, port: PortNo) -> Result<(), DropReason> {
        if self.tables.ports().get(port).is_some_and(|port| port.forwards()) {
            self.make(Action::Output(port))
        } else {
            self.stop(DropReason::NoDestination);
            Ok(())
        }
    }

    fn controller(&mut self, max_len: u16, reason: u8, controller_id: u16) -> Result<(), DropReason> {
        let wanted = |config: PortConfig| reason != OFPR_NO_MATCH || !config.intersects(PortConfig::NO_PACKET_IN);
        if self.tables.ports().get(self.in_port()).is_some_and(|port| !wanted(port.config)) {
            self.stop(DropReason::NoMatch);
            return Ok(());
        }
        let to = self.to_controller(max_len, reason, controller_id);
        self.make(Action::Controller(to))
    }

    fn to_controller(&self, max_len: u16, reason: u8, controller_id: u16) -> Box<ToController> {
        let (table, cookie) = self.rule.map_or((0, u64::MAX), |rule| (rule.table, rule.cookie));
        // The state words are constants or copies of what was examined.
        let state = std::array::from_fn(|i| self.flow.flow().0[KEY_WORDS + i]);
        Box::new(ToController { max_len, reason, controller_id, table, cookie, state })
    }

    fn resubmit(&mut self, port: PortNo, table: Option<u8>) -> Result<(), DropReason> {
        if self.depth >= DEPTH_MAX {
            return Err(DropReason::TooManyTables);
        }
        let table = table.unwrap_or(self.rule.map_or(0, |rule| rule.table));
        let rule = if port == PortNo::IN_PORT {
            self.lookup(table)?
        } else {
            let saved = self.flow.pretend_in_port(port.0);
            let rule = self.lookup(table);
            self.flow.restore_in_port(saved);
            rule?
        };
        // Nothing found, nothing done: the actions after this one go on.
        if let Some(rule) = rule {
            self.depth += 1;
            self.instructions(rule)?;
            self.depth -= 1;
        }
        self.observer.observe(Step::Return);
        Ok(())
    }

    /// Writes constants into the bits `mask` of a field, if the frame has it.
    fn set(&mut self, field: Field, value: u128, mask: u128) -> Result<(), DropReason> {
        let mask = mask & field.ones();
        let value = value & mask;
        if mask == 0 || !self.flow.meets(field.info().prerequisite) {
            return Ok(());
        }
        match field {
            Field::InPortNxm => {
                let old = self.flow.read(field, field.ones() & !mask);
                self.flow.write(Field::InPort, widen_port(old | value), Field::InPort.ones());
                Ok(())
            }
            Field::VlanTci => self.set_tci(value, mask),
            // Bit 12 says that there is a tag. This is no way to push or pop one.
            Field::VlanVid if !self.flow.is_tagged() => Ok(()),
            Field::VlanVid => self.set_bits(field, value, mask & !u128::from(PRESENT)),
            _ => self.set_bits(field, value, mask),
        }
    }

    fn set_bits(&mut self, field: Field, value: u128, mask: u128) -> Result<(), DropReason> {
        let value = value & mask;
        self.flow.write(field, value, mask);
        // The ingress port and a tunnel's key are in no frame.
        if mask == 0 || field.is_state() || matches!(field, Field::InPort | Field::TunnelId) {
            return Ok(());
        }
        self.make(Action::Set { field, value, mask })
    }

    /// Nicira's VLAN TCI is written with all that it says: bit 12 pushes or pops a tag.
    fn set_tci(&mut self, value: u128, mask: u128) -> Result<(), DropReason> {
        let present = u128::from(PRESENT);
        if mask & present != 0 {
            match (self.flow.is_tagged(), value & present != 0) {
                (false, true) => self.push_vlan(ethertype::VLAN)?,
                (true, false) => return self.pop_vlan(),
                _ => {}
            }
        }
        if self.flow.is_tagged() { self.set_bits(Field::VlanTci, value, mask & !present) } else { Ok(()) }
    }

    fn push_vlan(&mut self, tpid: u16) -> Result<(), DropReason> {
        self.flow.push_vlan();
        self.make(Action::PushVlan(tpid))
    }

    fn pop_vlan(&mut self) -> Result<(), DropReason> {
        if !self.flow.is_tagged() {
            return Ok(());
        }
        self.flow.pop_vlan();
        self.make(Action::PopVlan)
    }

    fn decrement_ttl(&mut self) -> Result<(), DropReason> {
        if !self.flow.meets(Prerequisite::Ip) {
            return Ok(());
        }
        self.flow.decrement_ttl();
        let expired = self.tables.invalid_ttl_to_controller().then(|| self.to_controller(CONTROLLER_WHOLE, OFPR_INVALID_TTL, 0));
        self.make(Action::DecTtl { expired })
    }
}

/// The bits of a range, in their places.
fn bits(range: FieldRange) -> u128 {
    u128::MAX.checked_shr(128 - u32::from(range.bits)).unwrap_or(0).checked_shl(range.offset.into()).unwrap_or(0)
}

/// OpenFlow 1.0's 16 bits of a port number in 32: the reserved ports, from 0xff00, move up.
fn widen_port(port: u128) -> u128 {
    if port >= 0xff00 { port | 0xffff_0000 } else { port }
}

/// Takes away what is done to the frame after it was sent for the last time; and what is done last need not be done to a copy.
fn trim(actions: &mut Vec<Action>) {
    while let Some(last) = actions.pop() {
        match last {
            Action::Set { .. } | Action::PushVlan(_) | Action::PopVlan | Action::DecTtl { expired: None } => {}
            Action::Copy(inner) => {
                actions.extend(inner);
                return;
            }
            Action::Output(_) | Action::Controller(_) | Action::DecTtl { .. } => {
                actions.push(last);
                return;
            }
        }
    }
}

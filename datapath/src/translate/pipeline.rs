//! Tables, instructions and groups, carried out on a flow (OpenFlow 1.3.5, 5.1, 5.6, 5.7 and 5.9 to 5.11).
//!
//! The pipeline is a machine with a stack of steps to be done ([`Todo`]). A step that leads to others puts them on the stack and is done; so what
//! is left at any point is the stack, and freezing a translation is keeping it. A step that needs to look at unknown bits finds that out before it has done
//! anything, and goes back on the stack.

use std::sync::Arc;

use smallvec::SmallVec;

use super::flow::{TrackedFlow, Unknown};
use super::frozen::{self, Continuation, Frozen, PASSES_MAX};
use super::todo::{List, Original, Todo};
use super::{ACTIONS_MAX, DEPTH_MAX, LOOKUPS_MAX, Lookup, Observer, Said, Scratch, Step};
use crate::Nanos;
use crate::action::{Action, OFPR_NO_MATCH, ToController};
use crate::by_address::ByAddress;
use crate::drops::DropReason;
use crate::key::{Field, FlowKey, FlowMask, fragment};
use crate::port::PortNo;
use crate::tables::group::{Group, GroupKind};
use crate::tables::instruction::{CONTROLLER_WHOLE, OfAction, OfActions};
use crate::tables::{ActionSet, Counters, Rule, TABLE_COUNT, Tables};

/// Steps that a stack holds without a place of its own in memory: most pipelines never have more.
const USUAL_STEPS: usize = 2;

/// One translation.
pub(super) struct Pipeline<'a, O: Observer + ?Sized> {
    pub(super) tables: &'a Tables,
    pub(super) flow: &'a mut TrackedFlow,
    pub(super) now: Nanos,
    pub(super) learn: bool,
    pub(super) said: &'a mut Said,
    action_set: &'a mut ActionSet,
    observer: &'a mut O,
    todo: SmallVec<[Todo<'a>; USUAL_STEPS]>,
    /// What Nicira's actions have put on their stack.
    pub(super) stack: Vec<u128>,
    /// The queue that outputs go through.
    pub(super) queue: u32,
    /// The first reason for which the frame was not sent somewhere.
    stopped: Option<DropReason>,
    /// The rule whose instructions are carried out; none in a packet-out's actions.
    pub(super) rule: Option<&'a Arc<Rule>>,
    depth: usize,
    /// How many copies it is within.
    copies: usize,
    passes: u8,
    /// How many rules, groups and buckets the frame is to be credited to.
    credited: usize,
    /// How many actions were carried out or made.
    work: usize,
}

/// Why a step is not done.
pub(super) enum Stop {
    /// It looks at what only the frame tells, as it is then.
    Unknown,
    /// The frame is dropped, whatever was done so far.
    Dropped(DropReason),
}

/// What comes after an action.
pub(super) enum Next<'a> {
    /// The one behind it.
    Action,
    /// This step, and then the action behind it.
    Step(Todo<'a>),
    /// The end.
    Exit,
}

impl From<Unknown> for Stop {
    fn from(_: Unknown) -> Self {
        Self::Unknown
    }
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

impl<'a, O: Observer + ?Sized> Pipeline<'a, O> {
    pub fn new(tables: &'a Tables, key: &FlowKey, now: Nanos, scratch: &'a mut Scratch, learn: bool, observer: &'a mut O) -> Self {
        let Scratch { said, action_set, flow } = scratch;
        said.clear();
        action_set.clear();
        flow.begin(key);
        let mut pipeline = Self {
            tables,
            flow,
            now,
            learn,
            said,
            action_set,
            observer,
            todo: SmallVec::new(),
            stack: Vec::new(),
            queue: 0,
            stopped: None,
            rule: None,
            depth: 0,
            copies: 0,
            passes: 0,
            credited: 0,
            work: 0,
        };
        pipeline.examine_origin();
        pipeline
    }

    /// Where a frame came in, and whether it goes on with something, is always looked at.
    fn examine_origin(&mut self) {
        self.flow.examine_word(0, u64::MAX).unwrap_or_else(|Unknown| unreachable!("where a frame came in is known"));
    }

    /// Translates a frame that came in.
    pub fn translate_frame(&mut self) {
        let receives = self.tables.ports().get(self.in_port()).is_none_or(|port| port.receives());
        self.todo.push(Todo::ActionSet);
        let result = if !receives {
            Err(DropReason::PortDown)
        } else if self.drops_as_fragment() {
            Err(DropReason::Fragment)
        } else {
            self.table(0).and_then(|()| self.run())
        };
        self.finish(result);
    }

    fn drops_as_fragment(&mut self) -> bool {
        self.tables.drops_fragments() && self.flow.read(Field::IpFrag, fragment::ANY.into()) != Ok(0)
    }

    /// Translates the actions of a packet-out.
    pub fn translate_list(&mut self, actions: &'a OfActions) {
        self.todo.push(Todo::ActionSet);
        self.todo.push(Todo::Actions(List::borrowed(actions, 0)));
        let result = self.run();
        self.finish(result);
    }

    /// Goes on with what was frozen, for a frame that has this key now.
    pub fn translate_rest(&mut self, key: &FlowKey, continuation: &'a Arc<Continuation>) {
        let Frozen { todo, kept, action_set, stack, queue, rule, depth, passes, group } = &continuation.frozen;
        self.flow.resume(key, kept);
        self.examine_origin();
        self.action_set.clone_from(action_set);
        self.said.effects.continuation = Some(continuation.clone());
        self.stack.clone_from(stack);
        (self.queue, self.depth, self.passes) = (*queue, *depth, passes + 1);
        self.rule = rule.as_ref().map(|rule| &rule.0);
        self.todo.extend(todo.iter().map(|rest| rest.todo()));
        if let Some(group) = group {
            self.todo.push(Todo::Bucket(&group.0, frozen::choice(key)));
        }
        let result = self.run();
        self.finish(result);
    }

    /// Drops a frame.
    pub fn drop_frame(&mut self, reason: DropReason) {
        self.finish(Err(reason));
    }

    fn run(&mut self) -> Result<(), DropReason> {
        while let Some(todo) = self.todo.pop() {
            self.step(todo)?;
        }
        Ok(())
    }

    fn step(&mut self, todo: Todo<'a>) -> Result<(), DropReason> {
        match todo {
            Todo::Actions(list) => self.actions(list),
            Todo::AfterApply(rule) => match self.after_apply(rule)? {
                Some(next) => self.table(next),
                None => Ok(()),
            },
            Todo::Table(table) => self.table(table),
            Todo::Resubmit(port, table) => match self.search(port, table) {
                Ok(Some(rule)) => {
                    // Where nothing else is to be done, one return is as good as two.
                    if !matches!(self.todo.last(), Some(Todo::Return(..))) {
                        self.todo.push(Todo::Return(self.rule, self.depth));
                    }
                    self.depth += 1;
                    self.go_on_from(rule)
                }
                // Nothing found, nothing done: the actions after it go on.
                Ok(None) => {
                    self.observer.observe(Step::Return);
                    Ok(())
                }
                Err(stop) => self.put_off(stop, todo),
            },
            Todo::Return(rule, depth) => {
                (depth..self.depth).for_each(|_| self.observer.observe(Step::Return));
                (self.rule, self.depth) = (rule, depth);
                Ok(())
            }
            Todo::Group(group) => self.group(group),
            Todo::Bucket(group, place) => self.bucket(group, place),
            Todo::Copy(actions) => {
                let action_set = self.action_set.clone();
                self.begin_copy()?;
                *self.action_set = action_set;
                self.todo.push(Todo::ActionSet);
                self.todo.push(Todo::Actions(List::shared(actions)));
                Ok(())
            }
            Todo::EndCopy(original) => self.end_copy(*original),
            Todo::ActionSet if self.action_set.is_empty() => Ok(()),
            Todo::ActionSet => {
                self.observer.observe(Step::ActionSet);
                let set = self.action_set.take();
                self.actions(List::set(set))
            }
        }
    }

    fn finish(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            self.observer.observe(Step::Stopped(reason));
            self.said.actions.clear();
            self.stopped = Some(reason);
        }
        trim(&mut self.said.actions, 0);
        self.said.reason = self.stopped.unwrap_or(DropReason::Rule);
        self.said.mask = *self.flow.examined();
        self.said.effects.credits.truncate(self.credited);
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
        self.said.actions.push(action);
        Ok(())
    }

    /// No rule, not even a table-miss rule, matched on the way through the tables: the frame ends here (OpenFlow 1.3.5, 5.4), or goes to the controllers.
    fn miss(&mut self, table: u8) -> Result<(), DropReason> {
        self.action_set.clear();
        if self.tables.misses_to_controller() {
            self.rule = None;
            let to = self.to_controller(CONTROLLER_WHOLE, OFPR_NO_MATCH, 0);
            self.give(ToController { table, ..to })
        } else {
            self.stop(DropReason::NoMatch);
            Ok(())
        }
    }

    fn lookup(&mut self, table: u8) -> Result<Option<&'a Arc<Rule>>, Stop> {
        if usize::from(table) >= TABLE_COUNT {
            return Ok(None);
        }
        if self.said.effects.lookups.len() >= LOOKUPS_MAX {
            return Err(DropReason::TooManyTables.into());
        }
        let mut examined = FlowMask::ZERO;
        let rule = self.tables.lookup(table, self.flow.flow(), &mut examined);
        self.flow.examine(&examined)?;
        self.said.effects.lookups.push(Lookup { table, matched: rule.is_some() });
        if let Some(rule) = rule {
            self.credit(&rule.counters);
        }
        let (flow, unknown) = (self.flow.flow(), self.flow.unknown());
        self.observer.observe(Step::Lookup { table, flow, unknown, rule: rule.map(|rule| &**rule) });
        Ok(rule)
    }

    /// A lookup as if the frame had come in through another port.
    #[inline(always)]
    fn search(&mut self, port: PortNo, table: u8) -> Result<Option<&'a Arc<Rule>>, Stop> {
        if self.depth >= DEPTH_MAX {
            return Err(DropReason::TooManyTables.into());
        }
        if port == PortNo::IN_PORT {
            return self.lookup(table);
        }
        let saved = self.flow.pretend_in_port(port.0);
        let rule = self.lookup(table);
        self.flow.restore_in_port(saved);
        rule
    }

    /// Has the frame credited to a rule, a group or a bucket. Where the translation before credited the same, that need not be counted as held once more.
    #[inline(always)]
    fn credit(&mut self, counters: &Arc<Counters>) {
        let credits = &mut self.said.effects.credits;
        match credits.get_mut(self.credited) {
            Some(held) if Arc::ptr_eq(held, counters) => {}
            Some(other) => *other = counters.clone(),
            None => credits.push(counters.clone()),
        }
        self.credited += 1;
    }

    /// Goes through the tables from this one on.
    fn table(&mut self, table: u8) -> Result<(), DropReason> {
        match self.lookup(table) {
            Ok(Some(rule)) => self.go_on_from(rule),
            Ok(None) => self.miss(table),
            Err(stop) => self.put_off(stop, Todo::Table(table)),
        }
    }

    /// Carries out a rule, and those that it goes on to.
    fn go_on_from(&mut self, mut rule: &'a Arc<Rule>) -> Result<(), DropReason> {
        while let Some(next) = self.carry_out(rule)? {
            rule = match self.lookup(next) {
                Ok(Some(rule)) => rule,
                Ok(None) => return self.miss(next),
                Err(stop) => return self.put_off(stop, Todo::Table(next)),
            };
        }
        Ok(())
    }

    /// Carries out a rule, and returns the table that it goes on to. `None`: to none, or what it does first is on the stack.
    fn carry_out(&mut self, rule: &'a Arc<Rule>) -> Result<Option<u8>, DropReason> {
        self.rule = Some(rule);
        let instructions = &rule.instructions;
        if let Some(meter) = instructions.meter {
            // A rule goes with its meter.
            let meter = self.tables.meter(meter).ok_or(DropReason::Meter)?;
            self.make(Action::Meter(ByAddress(meter.clone())))?;
            if meter.remarks() {
                self.flow.doubt_field(Field::IpDscp);
            }
        }
        for (at, action) in instructions.apply.iter().enumerate() {
            match self.one(action) {
                Ok(Next::Action) => {}
                led => {
                    if instructions.go_beyond_apply() {
                        self.todo.push(Todo::AfterApply(rule));
                    }
                    self.leave(led, List::borrowed(&instructions.apply, at))?;
                    return Ok(None);
                }
            }
        }
        self.after_apply(rule)
    }

    fn after_apply(&mut self, rule: &'a Arc<Rule>) -> Result<Option<u8>, DropReason> {
        let instructions = &rule.instructions;
        if instructions.clear {
            self.action_set.clear();
        }
        for action in instructions.write.iter() {
            self.work()?;
            self.action_set.write(action);
        }
        if let Some((value, mask)) = instructions.metadata {
            self.flow.write(Field::Metadata, (value & mask).into(), mask.into());
        }
        Ok(instructions.goto)
    }

    /// Carries out actions until one leads elsewhere.
    fn actions(&mut self, mut list: List<'a>) -> Result<(), DropReason> {
        while let Some(action) = list.next() {
            match self.one(action) {
                Ok(Next::Action) => list.advance(),
                led => return self.leave(led, list),
            }
        }
        if let Some(memory) = list.into_memory() {
            self.action_set.reuse(memory);
        }
        Ok(())
    }

    /// Goes where the next action of a list has led.
    #[inline(always)]
    fn leave(&mut self, led: Result<Next<'a>, Stop>, mut list: List<'a>) -> Result<(), DropReason> {
        match led {
            Ok(Next::Action) => self.todo.push(Todo::Actions(list)),
            Ok(Next::Step(step)) => {
                list.advance();
                if !list.is_over() {
                    self.todo.push(Todo::Actions(list));
                }
                // At once: only resubmits nest here, and no deeper than they may.
                self.step(step)?;
            }
            Ok(Next::Exit) => {
                let last = self.todo.iter().rposition(|todo| matches!(todo, Todo::EndCopy(_) | Todo::ActionSet));
                self.todo.truncate(last.map_or(0, |last| last + 1));
            }
            Err(stop) => self.put_off(stop, Todo::Actions(list))?,
        }
        Ok(())
    }

    #[inline(always)]
    fn one(&mut self, action: &OfAction) -> Result<Next<'a>, Stop> {
        self.work()?;
        self.observer.observe(Step::Action(action));
        self.action(action)
    }

    /// Freezes the translation, if that is what stopped a step, which is then to be done first.
    fn put_off(&mut self, stop: Stop, step: Todo<'a>) -> Result<(), DropReason> {
        match stop {
            Stop::Dropped(reason) => Err(reason),
            Stop::Unknown => {
                self.todo.push(step);
                let within = self.todo.iter().rposition(|todo| matches!(todo, Todo::EndCopy(_))).map_or(0, |copy| copy + 1);
                let rest = self.todo.drain(within..).filter_map(Todo::keep).collect();
                let action_set = std::mem::take(self.action_set);
                let continuation = self.freeze(Frozen { todo: rest, action_set, ..self.now() })?;
                self.make(Action::Recirculate(ByAddress(continuation)))
            }
        }
    }

    /// The state of the translation, with nothing left to be done.
    fn now(&self) -> Frozen {
        Frozen {
            todo: Vec::new(),
            kept: self.flow.keep(),
            action_set: Default::default(),
            stack: self.stack.clone(),
            queue: self.queue,
            rule: self.rule.cloned().map(ByAddress),
            depth: self.depth,
            passes: self.passes,
            group: None,
        }
    }

    fn freeze(&mut self, frozen: Frozen) -> Result<Arc<Continuation>, DropReason> {
        if self.passes >= PASSES_MAX {
            return Err(DropReason::TooManyTables);
        }
        self.tables.continuations().of(frozen).ok_or(DropReason::TooManyTables)
    }

    fn group(&mut self, group: &'a Arc<Group>) -> Result<(), DropReason> {
        self.credit(&group.counters);
        let all = 0..group.buckets.len() as u16;
        match group.kind {
            GroupKind::All | GroupKind::Indirect => self.todo.extend(all.rev().map(|place| Todo::Bucket(group, place))),
            GroupKind::FastFailover => match group.live().first() {
                Some(place) => self.todo.push(Todo::Bucket(group, *place)),
                None => self.stop(DropReason::NoBucket),
            },
            GroupKind::Select if group.choices().is_none() => self.stop(DropReason::NoBucket),
            GroupKind::Select => {
                let continuation = self.freeze(Frozen { group: Some(ByAddress(group.clone())), ..self.now() })?;
                self.make(Action::Copy([Action::Recirculate(ByAddress(continuation))].into()))?;
            }
        }
        Ok(())
    }

    /// Does to a copy what a bucket says.
    fn bucket(&mut self, group: &'a Arc<Group>, place: u16) -> Result<(), DropReason> {
        if let Some(bucket) = group.buckets.get(usize::from(place)) {
            self.credit(&bucket.counters);
            self.begin_copy()?;
            self.todo.push(Todo::Actions(List::borrowed(&bucket.in_order, 0)));
        }
        Ok(())
    }

    /// What is done from here on is done to a copy, until its end. It begins with an empty action set.
    fn begin_copy(&mut self) -> Result<(), DropReason> {
        if self.copies >= DEPTH_MAX {
            return Err(DropReason::TooManyTables);
        }
        self.copies += 1;
        let original = Original {
            view: self.flow.save(),
            action_set: std::mem::take(self.action_set),
            stack: self.stack.clone(),
            queue: self.queue,
            rule: self.rule,
            depth: self.depth,
            made: self.said.actions.len(),
        };
        self.todo.push(Todo::EndCopy(Box::new(original)));
        Ok(())
    }

    fn end_copy(&mut self, original: Original<'a>) -> Result<(), DropReason> {
        let Original { view, action_set, stack, queue, rule, depth, made } = original;
        self.copies -= 1;
        self.flow.restore(view);
        *self.action_set = action_set;
        (self.stack, self.queue, self.rule, self.depth) = (stack, queue, rule, depth);
        trim(&mut self.said.actions, made);
        if self.said.actions[made..].iter().any(|action| !action.leaves_frame()) {
            let copy = self.said.actions.drain(made..).collect();
            self.said.actions.push(Action::Copy(copy));
        }
        Ok(())
    }
}

/// Of the actions from `first` on, takes away what is done to the frame after it was sent for the last time; and what is done last need not be done to a copy.
fn trim(actions: &mut Vec<Action>, first: usize) {
    while actions.len() > first
        && let Some(last) = actions.pop()
    {
        match last {
            Action::Copy(inner) => {
                actions.extend(inner);
                return;
            }
            last if last.matters_at_the_end() => {
                actions.push(last);
                return;
            }
            _ => {}
        }
    }
}

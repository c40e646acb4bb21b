//! Carrying a list of actions out.

use super::{Action, Controllers, Outcome, OutputSets, ToController, set, tags};
use crate::Nanos;
use crate::drops::DropReason;
use crate::frame::{Batch, Frame};
use crate::port::PortNo;
use crate::tables::meter::{Meter, Metered};
use crate::translate::Continuation;

/// Goes on with frames whose translation was frozen.
pub trait Resume {
    /// Finds out what the frame in `slot`, which may be changed, goes on with, and carries it out as [`execute`] does.
    fn resume(
        &mut self,
        continuation: &Continuation,
        slot: u16,
        batch: &mut Batch,
        outputs: &mut OutputSets,
        controllers: &mut dyn Controllers,
    ) -> Outcome;

    /// The time.
    fn now(&self) -> Nanos;
}

/// For actions with which no frame goes on, at this time.
#[derive(Clone, Copy, Debug)]
pub struct Whole(pub Nanos);

impl Resume for Whole {
    fn resume(&mut self, _: &Continuation, _: u16, _: &mut Batch, _: &mut OutputSets, _: &mut dyn Controllers) -> Outcome {
        debug_assert!(false, "these actions are the whole translation");
        Outcome::Dropped(DropReason::TooManyTables)
    }

    fn now(&self) -> Nanos {
        self.0
    }
}

/// Carries `actions` out on the frame in `slot`: lists it, or duplicates of it, in `outputs`, and gives it to `controllers`.
/// `reason` is why the frame is dropped if the actions send it nowhere; an action that can't be carried out is a better one, and the last.
pub fn execute(
    actions: &[Action],
    reason: DropReason,
    slot: u16,
    batch: &mut Batch,
    outputs: &mut OutputSets,
    controllers: &mut dyn Controllers,
    resume: &mut dyn Resume,
) -> Outcome {
    let mut execution = Execution { slot, listed: false, outcome: Outcome::Dropped(reason), batch, outputs, controllers, resume };
    execution.list(actions);
    execution.outcome
}

/// Carries out what most lists of actions begin with: what routers do to a frame that is not listed yet, and one output. Returns those that are left to be
/// [executed](execute); `None` if it was all, and the frame is forwarded.
#[inline(always)]
pub fn route<'a>(actions: &'a [Action], slot: u16, batch: &mut Batch, outputs: &mut OutputSets) -> Option<&'a [Action]> {
    let mut rest = actions;
    if !matches!(actions, [Action::Output(_)]) {
        let frame = batch.frame_mut(slot);
        let network = frame.layout.network.into();
        let head = frame.head_mut();
        let routed = actions.iter().take_while(|action| set::route(head, network, action)).count();
        rest = &actions[routed..];
    }
    let [Action::Output(port)] = rest else { return Some(rest) };
    outputs.push(*port, 0, slot);
    None
}

struct Execution<'a> {
    slot: u16,
    /// Whether the frame in `slot` is listed, and so must stay as it is.
    listed: bool,
    outcome: Outcome,
    batch: &'a mut Batch,
    outputs: &'a mut OutputSets,
    controllers: &'a mut dyn Controllers,
    resume: &'a mut dyn Resume,
}

impl Execution<'_> {
    /// Carries actions out until one says to stop, or can't be carried out.
    fn list(&mut self, actions: &[Action]) {
        for action in actions {
            match self.step(action) {
                Ok(true) => {}
                Ok(false) => return,
                Err(reason) => return self.dropped(reason),
            }
        }
    }

    /// Carries one action out, and says whether to go on.
    fn step(&mut self, action: &Action) -> Result<bool, DropReason> {
        match action {
            Action::Output(port) => self.output(*port, 0),
            Action::Enqueue(port, queue) => self.output(*port, *queue),
            Action::Controller(to) => self.give(to),
            Action::Set { field, value, mask } => set::set_field(self.writable()?, *field, *value, *mask)?,
            Action::PushVlan(tpid) => tags::push_vlan(self.writable()?, *tpid)?,
            Action::PopVlan => tags::pop_vlan(self.writable()?)?,
            Action::PushMpls(kind) => tags::push_mpls(self.writable()?, *kind)?,
            Action::PopMpls(kind) => tags::pop_mpls(self.writable()?, *kind)?,
            Action::PushPbb => tags::push_pbb(self.writable()?)?,
            Action::PopPbb => tags::pop_pbb(self.writable()?)?,
            Action::CopyTtlOut => tags::copy_ttl_out(self.writable()?)?,
            Action::CopyTtlIn => tags::copy_ttl_in(self.writable()?)?,
            Action::Copy(actions) => {
                let slot = self.slot;
                self.listed = true;
                self.list(actions);
                // The inner list may have listed the frame itself, before it changed anything.
                (self.slot, self.listed) = (slot, true);
            }
            Action::DecTtl { expired } => {
                let frame = self.writable()?;
                let network = frame.layout.network.into();
                if !set::decrement_ttl(frame.head_mut(), network)? {
                    self.expired(expired);
                    return Ok(false);
                }
            }
            Action::DecMplsTtl { expired } => {
                if !tags::decrement_mpls_ttl(self.writable()?)? {
                    self.expired(expired);
                    return Ok(false);
                }
            }
            Action::Meter(meter) => return self.meter(&meter.0),
            Action::Recirculate(continuation) => {
                // Whatever it goes on with may change it.
                self.writable()?;
                match self.resume.resume(&continuation.0, self.slot, self.batch, self.outputs, self.controllers) {
                    Outcome::Forwarded => self.outcome = Outcome::Forwarded,
                    Outcome::Controller => self.given(),
                    Outcome::Dropped(reason) => self.dropped(reason),
                }
                // It may be listed now.
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn output(&mut self, port: PortNo, queue: u32) {
        self.outputs.push(port, queue, self.slot);
        self.listed = true;
        self.outcome = Outcome::Forwarded;
    }

    fn meter(&mut self, meter: &Meter) -> Result<bool, DropReason> {
        match meter.measure(self.batch.frame(self.slot).len(), self.resume.now()) {
            Metered::Passes => {}
            Metered::Dropped => return Err(DropReason::Meter),
            Metered::Remarked(levels) => set::raise_drop_precedence(self.writable()?, levels)?,
        }
        Ok(true)
    }

    fn expired(&mut self, to: &[ToController]) {
        if to.is_empty() {
            self.dropped(DropReason::TtlExpired);
        }
        to.iter().for_each(|to| self.give(to));
    }

    fn give(&mut self, to: &ToController) {
        let too_fast = |meter: &Meter| meter.measure(self.batch.frame(self.slot).len(), self.resume.now()) == Metered::Dropped;
        if to.meter.as_ref().is_some_and(|meter| too_fast(&meter.0)) {
            return self.dropped(DropReason::Meter);
        }
        match self.controllers.give(self.batch, self.slot, to) {
            Ok(()) => self.given(),
            Err(reason) => self.dropped(reason),
        }
    }

    fn given(&mut self) {
        if self.outcome != Outcome::Forwarded {
            self.outcome = Outcome::Controller;
        }
    }

    /// Notes why the frame was dropped, if nothing better became of it.
    fn dropped(&mut self, reason: DropReason) {
        if matches!(self.outcome, Outcome::Dropped(_)) {
            self.outcome = Outcome::Dropped(reason);
        }
    }

    /// The frame, or a duplicate if it is listed as it is.
    fn writable(&mut self) -> Result<&mut Frame, DropReason> {
        if self.listed {
            if self.batch.len() > usize::from(u16::MAX) {
                return Err(DropReason::NotApplicable);
            }
            self.slot = self.batch.duplicate(self.slot);
            self.listed = false;
        }
        Ok(self.batch.frame_mut(self.slot))
    }
}

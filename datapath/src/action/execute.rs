//! Carrying a list of actions out.

use super::{Action, Controllers, Outcome, OutputSets, ToController, set};
use crate::drops::DropReason;
use crate::frame::{Batch, Frame};

/// Carries `actions` out on the frame in `slot`: lists it, or duplicates of it, in `outputs`, and gives it to `controllers`.
/// `reason` is why the frame is dropped if the actions send it nowhere; an action that can't be carried out is a better one, and the last.
#[inline]
pub fn execute(
    actions: &[Action],
    reason: DropReason,
    slot: u16,
    batch: &mut Batch,
    outputs: &mut OutputSets,
    controllers: &mut dyn Controllers,
) -> Outcome {
    if let [Action::Output(port)] = actions {
        outputs.push(*port, slot);
        return Outcome::Forwarded;
    }
    // Most other lists begin with what routers do to a frame that is not listed yet.
    let frame = batch.frame_mut(slot);
    let network = frame.layout.network.into();
    let head = frame.head_mut();
    let routed = actions.iter().take_while(|action| set::route(head, network, action)).count();
    let actions = &actions[routed..];
    if let [Action::Output(port)] = actions {
        outputs.push(*port, slot);
        return Outcome::Forwarded;
    }
    let mut execution = Execution { slot, listed: false, outcome: Outcome::Dropped(reason), batch, outputs, controllers };
    execution.list(actions);
    execution.outcome
}

struct Execution<'a> {
    slot: u16,
    /// Whether the frame in `slot` is listed, and so must stay as it is.
    listed: bool,
    outcome: Outcome,
    batch: &'a mut Batch,
    outputs: &'a mut OutputSets,
    controllers: &'a mut dyn Controllers,
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
            Action::Output(port) => {
                self.outputs.push(*port, self.slot);
                self.listed = true;
                self.outcome = Outcome::Forwarded;
            }
            Action::Controller(to) => self.give(to),
            Action::Set { field, value, mask } => set::set_field(self.writable()?, *field, *value, *mask)?,
            Action::PushVlan(tpid) => set::push_vlan(self.writable()?, *tpid)?,
            Action::PopVlan => set::pop_vlan(self.writable()?)?,
            Action::Copy(actions) => {
                let slot = self.slot;
                self.listed = true;
                self.list(actions);
                // The inner list may have listed the frame itself, before it changed anything.
                (self.slot, self.listed) = (slot, true);
            }
            Action::DecTtl { expired } => {
                if !self.decrement_ttl()? {
                    match expired {
                        Some(to) => self.give(to),
                        None => self.dropped(DropReason::TtlExpired),
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn decrement_ttl(&mut self) -> Result<bool, DropReason> {
        let frame = self.writable()?;
        let network = frame.layout.network.into();
        set::decrement_ttl(frame.head_mut(), network)
    }

    fn give(&mut self, to: &ToController) {
        match self.controllers.give(self.batch, self.slot, to) {
            Ok(()) if self.outcome != Outcome::Forwarded => self.outcome = Outcome::Controller,
            Ok(()) => {}
            Err(reason) => self.dropped(reason),
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

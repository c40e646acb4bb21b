//! A bench on which actions are carried out.

mod execute;
pub(crate) mod set;

use super::*;
use crate::frame::Offload;
use crate::key::{FlowKey, extract_frame};
use crate::wire::checksum::Sum;

/// The controllers of a test: they take what there is room for.
struct Taken {
    room: usize,
    frames: Vec<(Vec<u8>, ToController)>,
}

impl Controllers for Taken {
    fn give(&mut self, batch: &Batch, slot: u16, to: &ToController) -> Result<(), DropReason> {
        if self.frames.len() == self.room {
            return Err(DropReason::ControllerQueueFull);
        }
        self.frames.push((batch.to_vec(slot, to.max_len.into()), to.clone()));
        Ok(())
    }

    fn learn(&mut self, _: PortNo, _: &Arc<FlowMod>) {}
}

/// What became of one frame.
struct Done {
    outcome: Outcome,
    batch: Batch,
    outputs: OutputSets,
    taken: Taken,
}

impl Done {
    /// The copies that go to `port`.
    fn sent(&self, port: u32) -> Vec<Vec<u8>> {
        let slots = self.outputs.iter().filter(|(to, ..)| to.0 == port).flat_map(|(.., slots)| slots);
        slots.map(|slot| self.batch.to_vec(*slot, usize::MAX)).collect()
    }
}

/// Carries actions out on a frame from port 1; the controllers take one frame.
fn carry_out(actions: &[Action], offload: Offload, bytes: &[u8]) -> Done {
    let (mut batch, mut outputs) = (Batch::new(), OutputSets::default());
    let mut taken = Taken { room: 1, frames: Vec::new() };
    let slot = batch.push_bytes(PortNo(1), offload, bytes);
    assert!(extract_frame(batch.frame_mut(slot), &mut FlowKey::ZERO.clone()));
    let outcome = super::execute(actions, DropReason::Rule, slot, &mut batch, &mut outputs, &mut taken, &mut Whole(0));
    Done { outcome, batch, outputs, taken }
}

fn to(port: u32) -> Action {
    Action::Output(PortNo(port))
}

fn set(field: Field, value: u128) -> Action {
    Action::Set { field, value, mask: field.ones() }
}

fn sum(bytes: &[u8]) -> Sum {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum
}

/// The frame as `actions` leave it.
fn after(actions: &[Action], bytes: &[u8]) -> Vec<u8> {
    let done = carry_out(&[actions, &[to(2)]].concat(), Offload::default(), bytes);
    assert_eq!(done.outcome, Outcome::Forwarded);
    done.sent(2).remove(0)
}

/// Why `actions` can't be carried out.
fn refused(actions: &[Action], bytes: &[u8]) -> DropReason {
    match carry_out(&[actions, &[to(2)]].concat(), Offload::default(), bytes).outcome {
        Outcome::Dropped(reason) => reason,
        other => panic!("{other:?}"),
    }
}

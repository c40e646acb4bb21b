//! The pipeline's view of a frame is the frame: what tables would see after some actions is what is extracted from the frame on which these
//! actions, translated, were carried out.

use proptest::prelude::*;

use super::mask::Random;
use super::*;
use crate::action::tests::set::parts;
use crate::action::{Controllers, Outcome, OutputSets, ToController, execute};
use crate::frame::Offload;
use crate::key::{KEY_WORDS, extract_frame};

struct Nobody;

impl Controllers for Nobody {
    fn give(&mut self, _: &Batch, _: u16, _: &ToController) -> Result<(), DropReason> {
        Err(DropReason::NoController)
    }
}

/// Remembers the flow that was last looked up.
struct LastFlow(Flow);

impl Observer for LastFlow {
    fn observe(&mut self, step: Step<'_>) {
        if let Step::Lookup { flow, .. } = step {
            self.0 = *flow;
        }
    }
}

/// Actions that write to the frame, but for what it is parsed by; not the ingress port, which would be a reason not to send; and not what a message of
/// neighbour discovery may be too short for.
fn changes(random: &mut Random) -> Vec<OfAction> {
    let parsed_by = [Field::IcmpType, Field::IcmpCode, Field::Icmpv6Type, Field::Icmpv6Code];
    let others = [&parsed_by[..], &[Field::InPort, Field::InPortNxm, Field::NdTarget, Field::NdSll, Field::NdTll]].concat();
    let is_change = |action: &OfAction| match action {
        OfAction::SetField { field, .. } => !others.contains(field),
        OfAction::Load { destination, .. } | OfAction::Move { destination, .. } => !others.contains(&destination.field),
        OfAction::PushVlan(_) | OfAction::PopVlan | OfAction::DecNwTtl | OfAction::SetNwTtl(_) => true,
        _ => false,
    };
    let mut list: Vec<_> = (0..12).map(|_| random.action()).filter(is_change).collect();
    // A third tag would push the innermost out of the flow's sight.
    let mut pushes = 0;
    list.retain(|action| {
        pushes += usize::from(matches!(action, OfAction::PushVlan(_)));
        pushes < 2 || !matches!(action, OfAction::PushVlan(_))
    });
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn tables_see_the_frame_that_is_sent(parts in parts(), seed: u64) {
        let mut list = changes(&mut Random(seed));
        list.extend([resubmit(0), output(2)]);
        let tables = switch(2);
        let (mut batch, mut outputs, mut key) = (Batch::new(), OutputSets::default(), FlowKey::ZERO);
        let slot = batch.push_bytes(PortNo(9), Offload::default(), &parts.build());
        prop_assert!(extract_frame(batch.frame_mut(slot), &mut key));
        let mut last = LastFlow(Flow::ZERO);
        let mut scratch = Scratch::default();
        Pipeline::new(&tables, &key, 0, &mut scratch, false, &mut last).translate_list(&list);
        let translation = scratch.to_translation();
        let outcome = execute(&translation.actions, translation.reason, slot, &mut batch, &mut outputs, &mut Nobody);
        if outcome == Outcome::Dropped(DropReason::TtlExpired) {
            return Ok(());
        }
        prop_assert_eq!(outcome, Outcome::Forwarded, "{:?}", translation.actions);
        let (_, slots) = outputs.iter().next().expect("it was sent");
        let mut sent = FlowKey::ZERO;
        prop_assert!(extract_frame(&mut batch.frame(slots[0]).clone(), &mut sent));
        // The first word is of the port, the last of the tunnel, and the TPIDs are not followed.
        for word in 1..KEY_WORDS - 1 {
            let mask = if word == 3 { !(0xff << 40) } else { u64::MAX };
            prop_assert_eq!(sent.0[word] & mask, last.0.0[word] & mask, "word {}: {:x?}\n{:?}", word, key, translation.actions);
        }
    }
}

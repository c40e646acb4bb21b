//! The pipeline's view of a frame is the frame: what tables would see after some actions is what is extracted from the frame on which these
//! actions, translated, were carried out.

use proptest::prelude::*;

use super::mask::Random;
use super::*;
use crate::action::tests::set::parts;
use crate::action::{Controllers, NoControllers, Outcome, OutputSets, Resume, execute};
use crate::frame::Offload;
use crate::key::{KEY_WORDS, extract_frame};

/// Remembers the flow that was last looked up, and which of its bits were unknown.
struct LastFlow(Flow, KeyMask);

impl Observer for LastFlow {
    fn observe(&mut self, step: Step<'_>) {
        if let Step::Lookup { flow, unknown, .. } = step {
            (self.0, self.1) = (*flow, *unknown);
        }
    }
}

/// Goes on with frozen translations, without caches.
struct Again<'a> {
    tables: &'a Tables,
    last: &'a mut LastFlow,
}

impl Resume for Again<'_> {
    fn resume(
        &mut self,
        continuation: &Continuation,
        slot: u16,
        batch: &mut Batch,
        outputs: &mut OutputSets,
        controllers: &mut dyn Controllers,
    ) -> Outcome {
        let (mut scratch, mut key) = (Scratch::default(), FlowKey::ZERO);
        assert!(extract_frame(batch.frame_mut(slot), &mut key));
        key.0[0] |= u64::from(continuation.recirculation(0));
        super::super::run(self.tables, &key, 0, &mut scratch, false, self.last);
        let translation = scratch.to_translation();
        execute(&translation.actions, translation.reason, slot, batch, outputs, controllers, self)
    }

    fn now(&self) -> Nanos {
        0
    }
}

/// Actions that write to the frame, but for what it is parsed by; and not the ingress port, which would be a reason not to send.
fn changes(random: &mut Random) -> Vec<OfAction> {
    let parsed_by = [Field::IcmpType, Field::IcmpCode, Field::Icmpv6Type, Field::Icmpv6Code];
    let others = [&parsed_by[..], &[Field::InPort, Field::InPortNxm]].concat();
    let is_change = |action: &OfAction| match action {
        OfAction::SetField { field, .. } => !others.contains(field),
        OfAction::Load { destination, .. } | OfAction::Move { destination, .. } => !others.contains(&destination.field),
        OfAction::Output { .. } | OfAction::Resubmit { .. } => false,
        _ => true,
    };
    (0..12).map(|_| random.action()).filter(is_change).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn tables_see_the_frame_that_is_sent(parts in parts(), seed: u64) {
        let mut list = changes(&mut Random(seed));
        list.extend([resubmit(0), output(2)]);
        let tables = switch(2);
        let (mut batch, mut outputs, mut key) = (Batch::new(), OutputSets::default(), FlowKey::ZERO);
        let slot = batch.push_bytes(PortNo(9), Offload::default(), &parts.build());
        prop_assert!(extract_frame(batch.frame_mut(slot), &mut key));
        let mut last = LastFlow(Flow::ZERO, KeyMask::ZERO);
        let mut scratch = Scratch::default();
        let list = list.into();
        Pipeline::new(&tables, &key, 0, &mut scratch, false, &mut last).translate_list(&list);
        let translation = scratch.to_translation();
        let mut again = Again { tables: &tables, last: &mut last };
        let outcome = execute(&translation.actions, translation.reason, slot, &mut batch, &mut outputs, &mut NoControllers, &mut again);
        if let Outcome::Dropped(reason) = outcome {
            // A header that is cut short can't be changed.
            prop_assert!(matches!(reason, DropReason::TtlExpired | DropReason::NotApplicable), "{:?}", translation.actions);
            return Ok(());
        }
        let (.., slots) = outputs.iter().next().expect("it was sent");
        let mut sent = FlowKey::ZERO;
        prop_assert!(extract_frame(&mut batch.frame(slots[0]).clone(), &mut sent));
        // The first word is of the port, the last of the tunnel, and the TPIDs are not followed.
        for word in 1..KEY_WORDS - 1 {
            let mask = if word == 3 { !(0xff << 40) } else { u64::MAX } & !last.1.0[word];
            prop_assert_eq!(sent.0[word] & mask, last.0.0[word] & mask, "word {}: {:x?}\n{:?}", word, key, translation.actions);
        }
    }
}

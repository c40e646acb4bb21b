//! Lists of actions: order, copies, and outcomes.

use super::*;
use proptest::prelude::*;

/// An IPv4 frame with a TTL and nothing behind the header.
fn ipv4(ttl: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, ttl, 99, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let checksum = sum(&bytes[14..]).checksum();
    bytes[24..26].copy_from_slice(&checksum);
    bytes
}

fn controller(max_len: u16) -> ToController {
    ToController { max_len, reason: OFPR_ACTION, table: 3, cookie: 4, ..ToController::default() }
}

fn to_controller(max_len: u16) -> Action {
    Action::Controller(Box::new(controller(max_len)))
}

#[test]
fn an_action_is_small() {
    assert!(size_of::<Action>() <= 48, "{}", size_of::<Action>());
}

#[test]
fn each_output_sends_the_frame_as_it_was_then() {
    let bytes = ipv4(9);
    let marked = |value: u8| [&[value; 6], &bytes[6..]].concat();
    let mark = |value: u8| set(Field::EthDst, u128::from_be_bytes([value; 16]));
    let done = carry_out(&[to(2), mark(1), mark(2), to(3), to(2), mark(3), to(4)], Offload::default(), &bytes);
    assert_eq!(done.outcome, Outcome::Forwarded);
    assert_eq!(done.sent(2), [bytes.clone(), marked(2)]);
    assert_eq!((done.sent(3), done.sent(4)), (vec![marked(2)], vec![marked(3)]));
    assert_eq!(done.batch.len(), 3, "only a listed frame is duplicated");
}

#[test]
fn a_copy_leaves_the_frame_alone() {
    let bytes = ipv4(9);
    let copy = Action::Copy([Action::PushVlan(0x8100), set(Field::VlanVid, 7), to(3)].into());
    let tagged = [&bytes[..12], &[0x81, 0, 0, 7], &bytes[12..]].concat();
    let done = carry_out(&[copy.clone(), to(2), copy], Offload::default(), &bytes);
    assert_eq!((done.sent(2), done.sent(3)), (vec![bytes], vec![tagged.clone(), tagged]));
}

#[test]
fn what_fails_in_a_copy_ends_the_copy_only() {
    let done = carry_out(&[Action::Copy([Action::PopVlan, to(3)].into()), to(2)], Offload::default(), &ipv4(9));
    assert_eq!((done.outcome, done.sent(2).len(), done.sent(3).len()), (Outcome::Forwarded, 1, 0));
}

#[test]
fn tags_are_pushed_and_popped() {
    let bytes = ipv4(9);
    let push = |tpid| Action::PushVlan(tpid);
    let tagged = after(&[push(0x8100), set(Field::VlanVid, 0x1123), set(Field::VlanPcp, 5)], &bytes);
    assert_eq!(tagged, [&bytes[..12], &[0x81, 0, 0xa1, 0x23], &bytes[12..]].concat());
    let double = after(&[push(0x88a8)], &tagged);
    assert_eq!(double[12..20], [0x88, 0xa8, 0xa1, 0x23, 0x81, 0, 0xa1, 0x23], "the new tag copies the old one");
    assert_eq!(after(&[Action::PopVlan], &double), tagged);
    assert_eq!(after(&[Action::PopVlan, Action::PopVlan], &double), bytes);
    assert_eq!(refused(&[Action::PopVlan], &bytes), DropReason::NotApplicable);
    assert_eq!(refused(&[const { Action::PushVlan(0x8100) }; 17], &bytes), DropReason::NotApplicable, "the headroom is used up");
    assert_eq!(after(&[set(Field::VlanVid, 0x1005)], &bytes), bytes, "there is no tag to write");
    // The drop eligible indicator, which no field shows, stays.
    let eligible = [&bytes[..12], &[0x81, 0, 0x10, 0x01], &bytes[12..]].concat();
    assert_eq!(after(&[set(Field::VlanTci, 0x6002)], &eligible)[14..16], [0x70, 0x02]);
}

#[test]
fn a_ttl_that_runs_out_ends_the_list() {
    let decrement = |expired: Option<ToController>| Action::DecTtl { expired: expired.into_iter().collect() };
    assert_eq!(after(&[decrement(None)], &ipv4(9)), ipv4(8));
    assert_eq!(after(&[decrement(None)], &ipv4(2)), ipv4(1));
    for ttl in [0, 1] {
        assert_eq!(refused(&[decrement(None)], &ipv4(ttl)), DropReason::TtlExpired);
        let done = carry_out(&[decrement(Some(controller(100))), to(2)], Offload::default(), &ipv4(ttl));
        assert_eq!((done.outcome, done.sent(2).len()), (Outcome::Controller, 0));
        assert_eq!(done.taken.frames[0].0, ipv4(ttl));
        let done = carry_out(&[to(3), decrement(None), to(2)], Offload::default(), &ipv4(ttl));
        assert_eq!((done.outcome, done.sent(3).len(), done.sent(2).len()), (Outcome::Forwarded, 1, 0));
    }
    assert_eq!(refused(&[decrement(None)], &[0; 60]), DropReason::NotApplicable);
}

#[test]
fn a_frame_has_one_outcome() {
    let outcome = |actions: &[Action]| carry_out(actions, Offload::default(), &ipv4(9)).outcome;
    assert_eq!(outcome(&[]), Outcome::Dropped(DropReason::Rule));
    assert_eq!(outcome(&[to(2)]), Outcome::Forwarded);
    assert_eq!(outcome(&[to_controller(10)]), Outcome::Controller);
    assert_eq!(outcome(&[to_controller(10), to(2)]), Outcome::Forwarded);
    assert_eq!(outcome(&[to(2), to_controller(10)]), Outcome::Forwarded);
    assert_eq!(outcome(&[to_controller(10), Action::PopVlan]), Outcome::Controller);
    assert_eq!(outcome(&[Action::PopVlan, to(2)]), Outcome::Dropped(DropReason::NotApplicable));
    // There is room for one.
    assert_eq!(outcome(&[to_controller(10), to_controller(10)]), Outcome::Controller);
    let mut full = Taken { room: 0, frames: Vec::new() };
    let (mut batch, mut outputs) = (Batch::new(), OutputSets::default());
    let slot = batch.push_bytes(PortNo(1), Offload::default(), &ipv4(9));
    let outcome = super::super::execute(&[to_controller(10)], DropReason::Rule, slot, &mut batch, &mut outputs, &mut full, &mut Whole(0));
    assert_eq!(outcome, Outcome::Dropped(DropReason::ControllerQueueFull));
}

#[test]
fn a_controller_gets_the_frame_as_it_is_then_and_no_more_than_it_asks_for() {
    let bytes = ipv4(9);
    let done = carry_out(&[set(Field::EthDst, 0), to_controller(20), set(Field::EthDst, 5), to(2)], Offload::default(), &bytes);
    let (given, how) = &done.taken.frames[0];
    assert_eq!((given[..].len(), &given[..6], how.table, how.cookie), (20, &[0; 6][..], 3, 4));
}

fn any_action() -> impl Strategy<Value = Action> {
    let simple = prop_oneof![
        (1u32..5).prop_map(to),
        (any::<prop::sample::Index>(), any::<u128>(), any::<u128>()).prop_map(|(field, value, mask)| Action::Set {
            field: *field.get(Field::ALL),
            value,
            mask
        }),
        any::<u16>().prop_map(Action::PushVlan),
        Just(Action::PushVlan(0x8100)),
        Just(Action::PopVlan),
        Just(Action::DecTtl { expired: [].into() }),
        Just(Action::DecTtl { expired: [controller(100)].into() }),
        Just(to_controller(9999)),
    ];
    let copy = prop::collection::vec(simple.clone(), 0..4).prop_map(|actions| Action::Copy(actions.into()));
    prop_oneof![9 => simple, 1 => copy]
}

/// Beginnings that lead deep into the parsers.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kinds: [&[u8]; 8] = [
        &[8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 5, 6],
        &[8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 5, 132],
        &[8, 0, 0x4f, 0, 0, 60, 0, 0, 0x20, 1, 5, 17],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 60, 58, 5],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 200, 43, 5],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 200, 44, 5],
        &[8, 6, 0, 1, 8, 0, 6, 4],
        &[0x88, 0x47],
    ];
    let head = (
        prop::sample::select(kinds.to_vec()),
        prop::sample::select(vec![&[][..], &[0x81, 0, 0x20, 5], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]]),
    );
    (head, prop::collection::vec(any::<u8>(), 0..300), 14usize..400).prop_map(|((kind, tags), rest, len)| {
        let mut bytes = [&[2; 12], tags, kind, &rest].concat();
        bytes.truncate(len);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_action_on_no_frame_panics_and_outcomes_agree_with_outputs(
        actions in prop::collection::vec(any_action(), 0..12),
        bytes in any_frame(),
        partial in prop::option::of((0u16..100, 0u16..20)),
    ) {
        let checksum = partial.map_or_else(Default::default, |(start, offset)| crate::frame::Checksum::Partial { start, offset });
        let done = carry_out(&actions, Offload { checksum, segmentation: None }, &bytes);
        prop_assert_eq!(done.outcome == Outcome::Forwarded, !done.outputs.is_empty());
        prop_assert_eq!(done.outcome == Outcome::Controller, done.outputs.is_empty() && !done.taken.frames.is_empty());
        for slot in 0..done.batch.len() as u16 {
            prop_assert_eq!(done.batch.to_vec(slot, usize::MAX).len(), done.batch.frame(slot).len());
        }
    }
}

//! Groups in translations.

use super::*;
use crate::tables::group::{BucketSpec, GROUP_ANY, GroupCommand, GroupKind, GroupMod};

fn put(tables: &mut Tables, group: u32, kind: GroupKind, buckets: &[&[OfAction]]) {
    let bucket =
        |actions: &&[OfAction]| BucketSpec { weight: 1, watch_port: PortNo::ANY, watch_group: GROUP_ANY, actions: (*actions).into() };
    let buckets = buckets.iter().map(bucket).collect();
    tables.group_mod(&GroupMod { command: GroupCommand::AddOrModify, group, kind, buckets }, 0).expect("a group");
}

/// Whoever carries out actions that nest, or forgets them, needs a stack as deep.
#[test]
fn copies_nest_as_deep_as_resubmits_and_no_deeper() {
    let mut tables = switch(2);
    let deepest = DEPTH_MAX as u32;
    put(&mut tables, deepest, GroupKind::All, &[&[set(Field::EthSrc, 1), output(2)], &[output(2)]]);
    for group in (1..deepest).rev() {
        put(&mut tables, group, GroupKind::All, &[&[set(Field::EthSrc, 1), OfAction::Group(group + 1)], &[output(2)]]);
    }
    put(&mut tables, deepest + 1, GroupKind::Indirect, &[&[OfAction::Group(1)]]);
    let depth = |mut actions: &[Action]| {
        let mut depth = 0;
        while let [Action::Copy(inner), ..] | [_, Action::Copy(inner), ..] = actions {
            (actions, depth) = (inner, depth + 1);
        }
        depth
    };
    add(&mut tables, 0, 1, Match::ANY, apply([OfAction::Group(1), output(2)]));
    let found = run(&tables, &tcp());
    assert_eq!((depth(&found.actions), found.reason), (DEPTH_MAX, DropReason::Rule));
    add(&mut tables, 0, 1, Match::ANY, apply([OfAction::Group(deepest + 1), output(2)]));
    let found = run(&tables, &tcp());
    assert_eq!((found.actions.len(), found.reason), (0, DropReason::TooManyTables));
}

#[test]
fn a_failover_group_is_its_first_live_bucket_and_credits_it() {
    let mut tables = switch(3);
    let bucket = |port| BucketSpec { weight: 0, watch_port: PortNo(port), watch_group: GROUP_ANY, actions: [output(port)][..].into() };
    let change = GroupMod { command: GroupCommand::Add, group: 1, kind: GroupKind::FastFailover, buckets: [2, 3].map(bucket).into() };
    tables.group_mod(&change, 0).expect("a group");
    add(&mut tables, 0, 1, Match::ANY, apply([OfAction::Group(1)]));
    for (up, expected, place) in [(true, to(2), 0), (false, to(3), 1), (true, to(2), 0)] {
        tables.set_link(PortNo(2), up).expect("a port");
        let found = run(&tables, &tcp());
        assert_eq!(found.actions[..], [expected]);
        let group = tables.group(1).expect("it is there");
        let credits = found.effects.credits();
        assert!(Arc::ptr_eq(&credits[1], &group.counters) && Arc::ptr_eq(&credits[2], &group.buckets[place].counters));
    }
    tables.set_link(PortNo(2), false).expect("a port");
    tables.set_link(PortNo(3), false).expect("a port");
    let found = run(&tables, &tcp());
    assert_eq!((found.actions.len(), found.reason), (0, DropReason::NoBucket));
}

//! Groups: which changes are taken, who is live, who refers to whom.

use std::sync::Arc;

use crate::port::{DummyPort, PortNo};
use crate::tables::group::*;
use crate::tables::instruction::OfAction;
use crate::tables::{MacTable, Port, PortConfig, PortCounters, Tables, VlanMode};

fn switch(ports: u32) -> Tables {
    let mut tables = Tables::new(Arc::new(MacTable::new(64, 64)));
    for no in 1..=ports {
        let port = Port {
            no: PortNo(no),
            name: format!("port{no}"),
            hw_addr: [2, 0, 0, 0, 0, no as u8],
            config: PortConfig::default(),
            link_up: true,
            mtu: 1500,
            icmp_too_big: false,
            speed: None,
            vlan: VlanMode::default(),
            output: Arc::new(DummyPort::new(PortNo(no))),
            counters: Arc::new(PortCounters::new(1)),
        };
        tables.add_port(port).expect("the number is free");
    }
    tables
}

fn to_port(port: u32) -> BucketSpec {
    let actions = [OfAction::Output { port: PortNo(port), max_len: 0 }][..].into();
    BucketSpec { weight: 1, watch_port: PortNo::ANY, watch_group: GROUP_ANY, actions }
}

fn watches_port(port: u32) -> BucketSpec {
    BucketSpec { watch_port: PortNo(port), ..to_port(port) }
}

fn watches_group(group: u32) -> BucketSpec {
    BucketSpec { watch_group: group, ..to_port(1) }
}

fn put(tables: &mut Tables, group: u32, buckets: Vec<BucketSpec>) -> Result<(), GroupModError> {
    let change = GroupMod { command: GroupCommand::AddOrModify, group, kind: GroupKind::FastFailover, buckets };
    tables.group_mod(&change, 0).map(drop)
}

fn delete(tables: &mut Tables, group: u32) -> Result<(), GroupModError> {
    let change = GroupMod { command: GroupCommand::Delete, group, kind: GroupKind::All, buckets: vec![] };
    tables.group_mod(&change, 0).map(drop)
}

fn live(tables: &Tables, group: u32) -> Vec<u16> {
    tables.group(group).expect("it is there").live().to_vec()
}

#[test]
fn buckets_are_as_live_as_what_they_watch() {
    let mut tables = switch(2);
    put(&mut tables, 1, vec![watches_port(1), watches_port(2)]).expect("a group");
    put(&mut tables, 2, vec![watches_group(1), BucketSpec { watch_group: 1, ..watches_port(7) }]).expect("a group that watches a group");
    assert_eq!((live(&tables, 1), live(&tables, 2)), (vec![0, 1], vec![0, 1]));
    tables.set_link(PortNo(1), false).expect("a port");
    assert_eq!((live(&tables, 1), live(&tables, 2)), (vec![1], vec![0, 1]));
    tables.modify_port(PortNo(2), [2, 0, 0, 0, 0, 2], PortConfig::PORT_DOWN, PortConfig::ALL).expect("a port");
    assert_eq!((live(&tables, 1), live(&tables, 2)), (vec![], vec![]));
    tables.set_link(PortNo(1), true).expect("a port");
    assert_eq!((live(&tables, 1), live(&tables, 2)), (vec![0], vec![0, 1]));
    // A group that goes lives no more, and one that comes again does.
    delete(&mut tables, 1).expect("a deletion");
    assert_eq!(live(&tables, 2), []);
    put(&mut tables, 1, vec![watches_port(1)]).expect("a group");
    assert_eq!(live(&tables, 2), [0, 1]);
}

#[test]
fn what_is_watched_in_a_circle_lives_only_for_another_reason() {
    let mut tables = switch(1);
    put(&mut tables, 1, vec![watches_port(1)]).expect("a group");
    put(&mut tables, 2, vec![watches_group(1)]).expect("a group");
    put(&mut tables, 1, vec![watches_group(2)]).expect("a circle");
    assert_eq!((live(&tables, 1), live(&tables, 2)), (vec![], vec![]));
    put(&mut tables, 1, vec![watches_group(2), watches_port(1)]).expect("a way out");
    assert_eq!((live(&tables, 1), live(&tables, 2)), (vec![0, 1], vec![0]));
    tables.set_link(PortNo(1), false).expect("a port");
    assert_eq!((live(&tables, 1), live(&tables, 2)), (vec![], vec![]));
}

/// Each group watches the one before it twice: ways double with each, and are as long as there are groups.
#[test]
fn any_number_of_groups_may_watch_each_other() {
    let mut tables = switch(1);
    const GROUPS: u32 = 3000;
    put(&mut tables, 1, vec![watches_port(1)]).expect("a group");
    for group in 2..=GROUPS {
        put(&mut tables, group, vec![watches_group(group - 1); 2]).expect("a group");
    }
    assert_eq!(live(&tables, GROUPS), [0, 1]);
    tables.set_link(PortNo(1), false).expect("a port");
    assert_eq!(live(&tables, GROUPS), []);
    tables.set_link(PortNo(1), true).expect("a port");
    assert_eq!(live(&tables, GROUPS), [0, 1]);
}

#[test]
fn references_are_the_groups_and_rules_that_forward() {
    let mut tables = switch(1);
    let forwards = |groups: &[u32]| {
        let actions = groups.iter().map(|group| OfAction::Group(*group)).collect::<Vec<_>>();
        actions.into_iter().map(|action| BucketSpec { actions: [action][..].into(), ..watches_port(1) }).collect::<Vec<_>>()
    };
    put(&mut tables, 1, vec![watches_port(1)]).expect("a group");
    put(&mut tables, 2, forwards(&[1, 1])).expect("a chain");
    put(&mut tables, 3, forwards(&[1, 2])).expect("a chain");
    assert_eq!([1, 2, 3].map(|group| tables.group_references(group)), [2, 1, 0]);
    assert_eq!(put(&mut tables, 1, forwards(&[3])), Err(GroupModError::Loop));
    assert_eq!(delete(&mut tables, 2), Err(GroupModError::Chained));
    put(&mut tables, 3, forwards(&[1])).expect("a modification");
    assert_eq!([1, 2, 3].map(|group| tables.group_references(group)), [2, 0, 0]);
    delete(&mut tables, 2).expect("nobody forwards to it");
    assert_eq!(tables.group_references(1), 1);
    delete(&mut tables, GROUP_ALL).expect("a deletion of all");
    assert_eq!((tables.groups().count(), tables.group_references(1)), (0, 0));
}

/// The groups that are taken, of 1 to `groups`, each with these buckets.
fn taken(tables: &mut Tables, kind: GroupKind, groups: u32, buckets: &[BucketSpec]) -> u32 {
    let add = |group| GroupMod { command: GroupCommand::AddOrModify, group, kind, buckets: buckets.to_vec() };
    let refused = (1..=groups).find(|group| match tables.group_mod(&add(*group), 0) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error, GroupModError::OutOfBuckets);
            true
        }
    });
    refused.map_or(groups, |group| group - 1)
}

#[test]
fn all_groups_together_have_so_many_buckets_and_no_more() {
    let mut tables = switch(1);
    let many = vec![to_port(1); MAX_BUCKETS];
    assert_eq!(taken(&mut tables, GroupKind::All, 1000, &many), 256);
    assert_eq!(taken(&mut tables, GroupKind::All, 256, &many), 256, "each has room in its own place");
    delete(&mut tables, 7).expect("a deletion");
    put(&mut tables, 1000, vec![watches_port(1); MAX_BUCKETS]).expect("there is room again");

    let mut tables = switch(1);
    let fine = [to_port(1), BucketSpec { weight: u16::MAX, ..to_port(1) }];
    assert_eq!(taken(&mut tables, GroupKind::Select, 2000, &fine), 1024);
    assert_eq!(taken(&mut tables, GroupKind::Select, 1024, &fine), 1024, "each has room in its own place");
    delete(&mut tables, GROUP_ALL).expect("a deletion of all");
    assert_eq!(taken(&mut tables, GroupKind::Select, 2000, &[to_port(1), to_port(1)]), 2000);
}

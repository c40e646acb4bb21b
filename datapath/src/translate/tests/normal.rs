//! The learning switch.

use super::*;
use crate::tables::VlanSet;

const A: u128 = 0x0200_0000_000a;
const B: u128 = 0x0200_0000_000b;

/// A switch of `ports` ports where everything is NORMAL.
fn learning(ports: u32) -> Tables {
    let mut tables = switch(ports);
    add(&mut tables, 0, 0, Match::ANY, apply([output(PortNo::NORMAL.0)]));
    tables
}

fn mode(tables: &mut Tables, no: u32, vlan: VlanMode) {
    tables.set_vlan(PortNo(no), vlan).expect("there is such a port");
}

fn trunk(vlans: impl IntoIterator<Item = u16>) -> VlanMode {
    VlanMode::Trunk { vlans: vlans.into_iter().collect::<VlanSet>(), native: None }
}

fn frame(in_port: u32, src: u128, dst: u128) -> FlowKey {
    key(&[(Field::InPort, in_port.into()), (Field::EthSrc, src), (Field::EthDst, dst), (Field::EthType, 0x0800)])
}

fn tagged(in_port: u32, src: u128, dst: u128, tci: u128) -> FlowKey {
    with(frame(in_port, src, dst), Field::VlanTci, 0x1000 | tci)
}

fn vid(vlan: u128) -> Action {
    Action::Set { field: Field::VlanVid, value: vlan, mask: 0xfff }
}

#[test]
fn what_is_unknown_is_flooded_and_what_is_known_is_not() {
    let tables = learning(3);
    assert_eq!(actions(&tables, &frame(1, A, B)), [to(2), to(3)]);
    assert_eq!(actions(&tables, &frame(2, B, A)), [to(1)]);
    let found = run(&tables, &frame(1, A, B));
    assert_eq!(found.actions[..], [to(2)]);
    let mut mask = bits(&[Field::InPort, Field::EthSrc, Field::EthDst]);
    mask.0[2] |= 0x1000;
    assert_eq!(found.mask, mask);
    // A group is always flooded, and a station is not sent its own port's frames.
    assert_eq!(actions(&tables, &frame(1, A, 0xffff_ffff_ffff)), [to(2), to(3)]);
    let found = run(&tables, &frame(2, A, B));
    assert_eq!((found.actions.len(), found.reason), (0, DropReason::NoDestination));
}

#[test]
fn a_station_that_moves_makes_what_rests_on_it_stale() {
    let tables = learning(3);
    run(&tables, &frame(2, B, A));
    let old = run(&tables, &frame(1, A, B));
    assert!(old.effects.relies_on_learning() && old.effects.is_current(&tables));
    run(&tables, &frame(1, A, B));
    assert!(old.effects.is_current(&tables), "nothing moved");
    run(&tables, &frame(3, B, A));
    assert!(!old.effects.is_current(&tables));
    assert_eq!(actions(&tables, &frame(1, A, B)), [to(3)]);
    // The source counts as well: after A was seen elsewhere, its frames from port 1 must teach again.
    let from_1 = run(&tables, &frame(1, A, B));
    run(&tables, &frame(2, A, B));
    assert!(!from_1.effects.is_current(&tables));
}

#[test]
fn only_who_is_asked_to_learns_and_frames_keep_an_address_young() {
    let tables = learning(2);
    let mut scratch = Scratch::default();
    let unlearned = translate(&tables, &frame(1, A, B), 10, &mut scratch, false);
    assert!(tables.macs().is_empty());
    let learned = translate(&tables, &frame(1, A, B), 10, &mut scratch, true);
    assert!(!unlearned.effects.is_current(&tables), "it would not have learned");
    learned.effects.credit(&tables, 1, 60, 500);
    tables.macs().expire(200, 100);
    assert_eq!(tables.macs().lookup(0, A as u64).0, Some(PortNo(1)));
    tables.macs().expire(700, 100);
    assert_eq!(tables.macs().lookup(0, A as u64).0, None);
    assert!(!learned.effects.is_current(&tables));
}

#[test]
fn bridges_own_addresses_are_not_forwarded() {
    let tables = learning(3);
    for last in 0..16 {
        assert_eq!(run(&tables, &frame(1, A, 0x0180_c200_0000 + last)).reason, DropReason::Reserved);
    }
    assert_eq!(actions(&tables, &frame(1, A, 0x0180_c200_0010)), [to(2), to(3)]);
    assert!(tables.macs().lookup(0, 0x0180_c200_0000).0.is_none());
}

#[test]
fn access_ports_see_their_vlan_without_a_tag() {
    let mut tables = learning(5);
    mode(&mut tables, 1, VlanMode::Access(10));
    mode(&mut tables, 2, VlanMode::Access(10));
    mode(&mut tables, 3, VlanMode::Access(20));
    mode(&mut tables, 4, trunk([10, 20]));
    mode(&mut tables, 5, trunk([20]));
    let with_tag = |port| Action::Copy([Action::PushVlan(0x8100), vid(10), to(port)].into());
    // What comes last needs no copy.
    assert_eq!(actions(&tables, &frame(1, A, B)), [to(2), Action::PushVlan(0x8100), vid(10), to(4)]);
    assert_eq!(actions(&tables, &tagged(4, B, 0xffff_ffff_ffff, 10)), [Action::PopVlan, to(1), to(2)]);
    assert_eq!(actions(&tables, &tagged(4, 2 * A, 0xffff_ffff_ffff, 0x6014)), [to(5), Action::PopVlan, to(3)]);
    assert_eq!(actions(&tables, &frame(1, A, B)), [Action::PushVlan(0x8100), vid(10), to(4)]);
    // Actions behind NORMAL see the frame as it came.
    add(&mut tables, 0, 0, Match::ANY, apply([output(PortNo::NORMAL.0), output(3)]));
    assert_eq!(actions(&tables, &frame(1, A, 2 * B)), [to(2), with_tag(4), to(3)]);
}

#[test]
fn priority_tags_are_no_vlan() {
    let mut tables = learning(3);
    mode(&mut tables, 1, VlanMode::Access(10));
    mode(&mut tables, 2, VlanMode::Access(10));
    mode(&mut tables, 3, trunk([10]));
    let pop = [Action::PopVlan, to(2)];
    let found = actions(&tables, &tagged(1, A, B, 0xe000));
    assert_eq!(found, [Action::Copy(pop.clone().into()), vid(10), to(3)]);
    let trunks = learning(2);
    assert_eq!(actions(&trunks, &tagged(1, A, B, 0xe000)), pop);
}

#[test]
fn a_frame_of_a_vlan_that_its_port_does_not_carry_is_dropped() {
    let mut tables = learning(3);
    mode(&mut tables, 1, VlanMode::Access(10));
    mode(&mut tables, 2, trunk([10]));
    for refused in [tagged(1, A, B, 10), tagged(2, A, B, 11)] {
        let found = run(&tables, &refused);
        assert_eq!((found.actions.len(), found.reason), (0, DropReason::VlanIngress));
    }
    assert!(tables.macs().is_empty());
}

#[test]
fn the_same_address_may_be_in_two_vlans() {
    let mut tables = learning(4);
    for (port, vlan) in [(1, 10), (2, 10), (3, 20), (4, 20)] {
        mode(&mut tables, port, VlanMode::Access(vlan));
    }
    run(&tables, &frame(2, B, A));
    assert_eq!(actions(&tables, &frame(3, A, B)), [to(4)]);
    run(&tables, &frame(4, B, A));
    assert_eq!(actions(&tables, &frame(1, A, B)), [to(2)]);
    assert_eq!(actions(&tables, &frame(3, A, B)), [to(4)]);
}

#[test]
fn a_known_port_that_is_closed_or_gone() {
    let mut tables = learning(3);
    run(&tables, &frame(2, B, A));
    configure(&mut tables, 2, PortConfig::NO_FWD);
    let found = run(&tables, &frame(1, A, B));
    assert_eq!((found.actions.len(), found.reason), (0, DropReason::NoDestination));
    tables.remove_port(PortNo(2)).expect("there is such a port");
    assert_eq!(actions(&tables, &frame(1, A, B)), [to(3)]);
}

#[test]
fn a_packet_out_of_a_controller_teaches_nothing() {
    let tables = switch(2);
    let key = frame(PortNo::CONTROLLER.0, A, B);
    let found = packet_out(&tables, &[output(PortNo::NORMAL.0)], &key);
    assert_eq!(found.actions[..], [to(1), to(2)]);
    assert!(tables.macs().is_empty());
}

//! Instructions and actions, each by itself.

use super::*;
use crate::action::{OFPR_ACTION, OFPR_INVALID_TTL, OFPR_NO_MATCH};
use crate::key::{FieldRange, fragment};

fn tagged_ip() -> Match {
    Match::ANY.with_masked(Field::VlanVid, 0x1000, 0x1000).with(Field::EthType, 0x0800)
}

fn range(field: Field, offset: u8, bits: u8) -> FieldRange {
    FieldRange { field, offset, bits }
}

#[test]
fn a_frame_that_nothing_matches_is_dropped() {
    let found = run(&switch(2), &tcp());
    assert!(found.actions.is_empty());
    assert_eq!((found.reason, found.mask), (DropReason::NoMatch, bits(&[Field::InPort])));
}

#[test]
fn a_rule_without_actions_drops() {
    let mut tables = switch(2);
    add(&mut tables, 0, 1, Match::ANY, Instructions::default());
    let found = run(&tables, &tcp());
    assert_eq!((found.actions.len(), found.reason), (0, DropReason::Rule));
}

#[test]
fn outputs_are_those_that_the_ports_allow() {
    let mut tables = switch(4);
    configure(&mut tables, 3, PortConfig::NO_FWD);
    for (port, expected) in [
        (2, vec![to(2)]),
        (1, vec![]),
        (3, vec![]),
        (9, vec![]),
        (PortNo::IN_PORT.0, vec![to(1)]),
        (PortNo::ALL.0, vec![to(2), to(4)]),
        (PortNo::FLOOD.0, vec![to(2), to(4)]),
        (PortNo::LOCAL.0, vec![]),
    ] {
        add(&mut tables, 0, 1, Match::ANY, apply([output(port)]));
        let found = run(&tables, &tcp());
        assert_eq!(found.actions[..], expected, "{}", PortNo(port));
        assert!(!expected.is_empty() || found.reason == DropReason::NoDestination);
    }
}

#[test]
fn floods_leave_out_ports_that_are_closed_to_them() {
    let mut tables = switch(5);
    configure(&mut tables, 2, PortConfig::NO_FLOOD);
    configure(&mut tables, 3, PortConfig::PORT_DOWN);
    tables.set_link(PortNo(4), false).expect("there is such a port");
    for (port, expected) in [(PortNo::ALL, vec![to(2), to(5)]), (PortNo::FLOOD, vec![to(5)])] {
        add(&mut tables, 0, 1, Match::ANY, apply([output(port.0)]));
        assert_eq!(actions(&tables, &tcp()), expected);
    }
    // Who asks for port 4 gets it: its own counters say that the link is down.
    add(&mut tables, 0, 1, Match::ANY, apply([output(4)]));
    assert_eq!(actions(&tables, &tcp()), [to(4)]);
}

#[test]
fn a_port_that_does_not_receive_drops() {
    let mut tables = switch(2);
    add(&mut tables, 0, 1, Match::ANY, apply([output(2)]));
    for config in [PortConfig::PORT_DOWN, PortConfig::NO_RECV] {
        configure(&mut tables, 1, config);
        let found = run(&tables, &tcp());
        assert_eq!((found.actions.len(), found.reason), (0, DropReason::PortDown));
    }
}

#[test]
fn a_goto_that_misses_ends_the_frame_and_a_resubmit_that_misses_does_not() {
    let mut tables = switch(3);
    let write = Instructions { apply: [output(2)].into(), write: [output(3)].into(), goto: Some(5), ..Instructions::default() };
    add(&mut tables, 0, 1, Match::ANY, write);
    assert_eq!(actions(&tables, &tcp()), [to(2)]);
    add(&mut tables, 0, 1, Match::ANY, Instructions { write: [output(3)].into(), goto: Some(5), ..Instructions::default() });
    assert_eq!(run(&tables, &tcp()).reason, DropReason::NoMatch);
    add(&mut tables, 0, 1, Match::ANY, Instructions { write: [output(3)].into(), ..apply([resubmit(5), output(2)]) });
    assert_eq!(actions(&tables, &tcp()), [to(2), to(3)]);
}

#[test]
fn written_actions_are_carried_out_in_the_standards_order() {
    let mut tables = switch(3);
    let written = vec![
        output(2),
        set(Field::EthDst, 1),
        set(Field::VlanVid, 0x1007),
        OfAction::PushVlan(0x8100),
        OfAction::DecNwTtl,
        OfAction::PopVlan,
        set(Field::EthDst, 2),
        output(3),
    ];
    add(&mut tables, 0, 1, tagged_ip(), Instructions { write: written.into(), goto: Some(1), ..Instructions::default() });
    add(&mut tables, 1, 1, Match::ANY, Instructions { write: [set(Field::EthSrc, 5)].into(), ..Instructions::default() });
    let tagged = with(tcp(), Field::VlanTci, 0x1005);
    let vid = Action::Set { field: Field::VlanVid, value: 7, mask: 0xfff };
    let expected = [
        Action::PopVlan,
        Action::PushVlan(0x8100),
        Action::DecTtl { expired: [].into() },
        vid,
        set_to(Field::EthDst, 2),
        set_to(Field::EthSrc, 5),
        to(3),
    ];
    assert_eq!(actions(&tables, &tagged), expected);
    add(&mut tables, 1, 1, Match::ANY, Instructions { clear: true, write: [output(2)].into(), ..Instructions::default() });
    assert_eq!(actions(&tables, &tagged), [to(2)]);
}

#[test]
fn instructions_have_their_order() {
    let mut tables = switch(3);
    let all = Instructions {
        apply: [output(2)].into(),
        clear: true,
        write: [output(3)].into(),
        metadata: Some((0x55, 0xff)),
        goto: Some(1),
        ..Instructions::default()
    };
    add(&mut tables, 0, 1, Match::ANY, Instructions { write: [set(Field::EthDst, 1)].into(), goto: Some(1), ..Instructions::default() });
    add(&mut tables, 1, 1, Match::ANY, Instructions { goto: Some(2), ..all.clone() });
    add(&mut tables, 2, 2, Match::ANY.with(Field::Metadata, 0x55), apply([set(Field::EthSrc, 9), output(1)]));
    add(&mut tables, 2, 1, Match::ANY, Instructions::default());
    let found = actions(&tables, &with(tcp(), Field::InPort, 2));
    assert_eq!(found, [set_to(Field::EthSrc, 9), to(1), to(3)]);
    let found = actions(&tables, &tcp());
    assert_eq!(found, [to(2), set_to(Field::EthSrc, 9), to(3)]);
}

#[test]
fn what_is_done_after_the_last_output_is_left_out() {
    let mut tables = switch(2);
    let rest = apply([output(2), set(Field::EthDst, 1), OfAction::PushVlan(0x8100), OfAction::DecNwTtl]);
    add(&mut tables, 0, 1, Match::ANY.with(Field::EthType, 0x0800), rest);
    assert_eq!(actions(&tables, &tcp()), [to(2)]);
}

#[test]
fn fields_are_set_only_if_the_frame_has_them() {
    let mut tables = switch(2);
    let sets = [set(Field::UdpDst, 53), set(Field::TcpDst, 8080), set(Field::ArpOp, 2), set(Field::VlanPcp, 3), output(2)];
    let found = packet_out(&tables, &sets, &tcp());
    assert_eq!(found.actions[..], [set_to(Field::TcpDst, 8080), to(2)]);
    add(&mut tables, 0, 1, Match::ANY, apply([set(Field::Reg0, 7), output(2)]));
    assert_eq!(actions(&tables, &tcp()), [to(2)]);
}

#[test]
fn a_clone_takes_the_action_set_along() {
    let mut tables = switch(4);
    add(&mut tables, 0, 1, Match::ANY, Instructions { write: [output(2)].into(), goto: Some(1), ..Instructions::default() });
    add(&mut tables, 2, 1, Match::ANY, Instructions { write: [output(3)].into(), ..Instructions::default() });
    let clone = OfAction::Clone([resubmit(2)].into());
    add(&mut tables, 1, 1, Match::ANY, apply([OfAction::Clone([OfAction::Exit].into()), clone, output(4)]));
    assert_eq!(actions(&tables, &tcp()), [to(2), to(3), to(4), to(2)]);
}

#[test]
fn masked_writes_moves_and_loads() {
    let tables = switch(2);
    let masked = OfAction::SetField { field: Field::Ipv4Dst, value: 0xffff_0100, mask: 0xff00 };
    let list = [
        masked,
        OfAction::Load { destination: range(Field::Reg0, 8, 16), value: 0xabcd },
        OfAction::Move { source: range(Field::Reg0, 8, 16), destination: range(Field::TcpDst, 0, 16) },
        OfAction::Move { source: range(Field::TcpSrc, 0, 8), destination: range(Field::TcpDst, 8, 8) },
        OfAction::Move { source: range(Field::EthSrc, 0, 48), destination: range(Field::EthDst, 0, 48) },
        OfAction::Load { destination: range(Field::Ipv6Src, 64, 64), value: 1 },
        output(2),
    ];
    let found = packet_out(&tables, &list, &tcp());
    let expected = [
        Action::Set { field: Field::Ipv4Dst, value: 0x0100, mask: 0xff00 },
        set_to(Field::TcpDst, 0xabcd),
        Action::Set { field: Field::TcpDst, value: 0x4000, mask: 0xff00 },
        set_to(Field::EthDst, 0x0200_0000_0001),
        to(2),
    ];
    assert_eq!(found.actions[..], expected);
    let mut mask = bits(&[Field::InPort, Field::EthType, Field::IpProto, Field::EthSrc]);
    mask.0[5] |= 0xff << 48;
    // Whether there is a TCP header at all.
    mask.0[3] |= u64::from(fragment::LATER) << 24;
    assert_eq!(found.mask, mask);
}

#[test]
fn a_written_field_is_not_examined_and_a_state_field_never() {
    let mut tables = switch(2);
    let first = apply([set(Field::EthDst, 5), OfAction::Load { destination: range(Field::Reg3, 0, 32), value: 1 }]);
    add(&mut tables, 0, 1, Match::ANY, Instructions { goto: Some(1), ..first });
    add(
        &mut tables,
        1,
        1,
        Match::ANY.with(Field::EthDst, 5).with(Field::Reg3, 1).with(Field::EthSrc, 0x0200_0000_0001),
        apply([output(2)]),
    );
    let found = run(&tables, &tcp());
    assert_eq!(found.actions[..], [set_to(Field::EthDst, 5), to(2)]);
    assert_eq!(found.mask, bits(&[Field::InPort, Field::EthSrc]));
}

#[test]
fn vlan_tags_are_pushed_popped_and_looked_under() {
    let mut tables = switch(3);
    let push = [OfAction::PushVlan(0x88a8), set(Field::VlanVid, 0x1064), resubmit(1)];
    add(&mut tables, 0, 1, Match::ANY, apply(push.clone()));
    add(&mut tables, 1, 2, Match::ANY.with(Field::VlanVid, 0x1064), apply([OfAction::PopVlan, resubmit(2)]));
    add(&mut tables, 2, 2, Match::ANY.with(Field::VlanVid, 0x1005), apply([output(2)]));
    add(&mut tables, 2, 1, Match::ANY, apply([output(3)]));
    let vid = Action::Set { field: Field::VlanVid, value: 0x64, mask: 0xfff };
    for (key, port) in [(tcp(), 3), (with(tcp(), Field::VlanTci, 0x1005), 2), (with(tcp(), Field::VlanTci, 0x1006), 3)] {
        assert_eq!(actions(&tables, &key), [Action::PushVlan(0x88a8), vid.clone(), Action::PopVlan, to(port)]);
    }
    // A tag that comes up is the frame's inner one, looked at only when a table looks.
    let mut tables = switch(3);
    let tagged = Match::ANY.with_masked(Field::VlanVid, 0x1000, 0x1000);
    add(&mut tables, 0, 1, tagged, apply([OfAction::PopVlan, output(2), resubmit(1)]));
    let mut double = with(tcp(), Field::VlanTci, 0x1064);
    double.0[3] |= 0x1005 << 48;
    // Whether there is a third is seen from what seems to be behind the second.
    let mut mask = bits(&[Field::InPort, Field::EthType]);
    mask.0[2] |= 0x1000;
    mask.0[3] |= 0x1000 << 48;
    assert_eq!(run(&tables, &double).mask, mask);
    add(&mut tables, 1, 1, Match::ANY.with(Field::VlanVid, 0x1005), apply([output(3)]));
    let found = run(&tables, &double);
    assert_eq!(found.actions[..], [Action::PopVlan, to(2), to(3)]);
    mask.0[3] |= 0x1fff << 48;
    assert_eq!(found.mask, mask);
}

#[test]
fn a_tag_is_not_set_where_there_is_none_but_niciras_tci_pushes_and_pops() {
    let tables = switch(2);
    let list = |value| [OfAction::Load { destination: range(Field::VlanTci, 0, 16), value }, output(2)];
    let tagged = with(tcp(), Field::VlanTci, 0x1005);
    let run = |list: &[OfAction], key: &FlowKey| packet_out(&tables, list, key).actions;
    let tci = Action::Set { field: Field::VlanTci, value: 0x6007, mask: 0xefff };
    assert_eq!(run(&list(0x7007), &tcp())[..], [Action::PushVlan(0x8100), tci.clone(), to(2)]);
    assert_eq!(run(&list(0x7007), &tagged)[..], [tci, to(2)]);
    assert_eq!(run(&list(0), &tagged)[..], [Action::PopVlan, to(2)]);
    assert_eq!(run(&list(0), &tcp())[..], [to(2)]);
    assert_eq!(run(&[set(Field::VlanVid, 0x1007), output(2)], &tcp())[..], [to(2)]);
}

#[test]
fn a_decremented_ttl_is_examined_only_by_who_looks() {
    let mut tables = switch(3);
    let ip = Match::ANY.with(Field::EthType, 0x0800);
    add(&mut tables, 0, 1, ip, Instructions { goto: Some(1), ..apply([OfAction::DecNwTtl]) });
    add(&mut tables, 1, 1, ip, apply([output(2)]));
    let found = run(&tables, &tcp());
    assert_eq!(found.actions[..], [Action::DecTtl { expired: [].into() }, to(2)]);
    assert_eq!(found.mask, bits(&[Field::InPort, Field::EthType]));
    add(&mut tables, 1, 2, ip.with(Field::NwTtl, 63), apply([output(3)]));
    let found = run(&tables, &tcp());
    assert_eq!(found.actions[..], [Action::DecTtl { expired: [].into() }, to(3)]);
    assert_eq!(found.mask, bits(&[Field::InPort, Field::EthType, Field::NwTtl]));
    assert_eq!(actions(&tables, &with(tcp(), Field::NwTtl, 63))[1..], [to(2)]);
    // The controllers may ask for what has run out.
    tables.set_invalid_ttl_to_controller(true);
    let Action::DecTtl { expired } = &actions(&tables, &tcp())[0] else { panic!("the controllers want it") };
    assert_eq!(expired.iter().map(|to| (to.reason, to.table)).collect::<Vec<_>>(), [(OFPR_INVALID_TTL, 0)]);
}

#[test]
fn part_of_a_decremented_ttl_depends_on_all_of_it() {
    let tables = switch(2);
    let upper = OfAction::Move { source: range(Field::NwTtl, 4, 4), destination: range(Field::TcpDst, 0, 4) };
    let load = OfAction::Load { destination: range(Field::NwTtl, 4, 4), value: 2 };
    for (list, ttls, expected, examined) in [
        (vec![OfAction::DecNwTtl, upper.clone(), output(2)], [0x20, 0x21], [1, 2], 0xff),
        (vec![load, OfAction::DecNwTtl, upper, output(2)], [0x00, 0x01], [1, 2], 0x0f),
    ] {
        for (ttl, expected) in ttls.into_iter().zip(expected) {
            let found = packet_out(&tables, &list, &with(tcp(), Field::NwTtl, ttl));
            let copied = Action::Set { field: Field::TcpDst, value: expected, mask: 0xf };
            assert!(found.actions.contains(&copied), "{:?}", found.actions);
            assert_eq!(Field::NwTtl.read(&Flow::new(&found.mask)), examined);
        }
    }
}

#[test]
fn a_resubmit_pretends_a_port_for_the_lookup_only() {
    let mut tables = switch(3);
    let pretend = OfAction::Resubmit { port: PortNo(9), table: Some(1) };
    add(&mut tables, 0, 1, Match::ANY, apply([pretend]));
    add(&mut tables, 1, 1, Match::ANY.with(Field::InPort, 9), apply([output(1), output(2)]));
    assert_eq!(actions(&tables, &tcp()), [to(2)]);
    let load = OfAction::Load { destination: range(Field::InPortNxm, 0, 16), value: 0xffff };
    add(&mut tables, 0, 1, Match::ANY, apply([load, output(1), output(2)]));
    assert_eq!(actions(&tables, &tcp()), [to(1), to(2)]);
}

#[test]
fn resubmits_are_limited() {
    let mut tables = switch(2);
    add(&mut tables, 0, 1, Match::ANY, apply([output(2), resubmit(0)]));
    let found = run(&tables, &tcp());
    assert_eq!((found.actions.len(), found.reason), (0, DropReason::TooManyTables));
    // Not deep, but many.
    for table in 0..20 {
        add(&mut tables, table, 1, Match::ANY, apply([output(2), resubmit(table + 1), resubmit(table + 1)]));
    }
    let found = run(&tables, &tcp());
    assert_eq!((found.actions.len(), found.reason), (0, DropReason::TooManyTables));
    // No tables at all, but no end of actions.
    let found = packet_out(&tables, &vec![output(1); ACTIONS_MAX + 1], &tcp());
    assert_eq!((found.actions.len(), found.reason), (0, DropReason::TooManyTables));
}

#[test]
fn controllers_are_told_why_and_by_which_rule() {
    let mut tables = switch(2);
    let controller = OfAction::Output { port: PortNo::CONTROLLER, max_len: 128 };
    add(&mut tables, 0, 0, Match::ANY, Instructions { metadata: Some((0xf3, 3)), goto: Some(1), ..Instructions::default() });
    add(&mut tables, 1, 0, Match::ANY, apply([controller.clone()]));
    let given = |tables: &Tables| match &actions(tables, &tcp())[..] {
        [Action::Controller(to)] => to.clone(),
        other => panic!("{other:?}"),
    };
    let to = given(&tables);
    assert_eq!((to.reason, to.table, to.cookie, to.max_len, to.state[0]), (OFPR_NO_MATCH, 1, 0, 128, 3));
    add(&mut tables, 1, 7, Match::ANY, apply([controller]));
    let to = given(&tables);
    assert_eq!((to.reason, to.cookie), (OFPR_ACTION, 7));
    add(
        &mut tables,
        1,
        7,
        Match::ANY,
        apply([OfAction::Controller { max_len: 64, controller_id: 5, reason: 2, userdata: Arc::default() }]),
    );
    let to = given(&tables);
    assert_eq!((to.reason, to.controller_id, to.max_len), (2, 5, 64));
}

#[test]
fn a_port_may_keep_its_misses_from_the_controllers() {
    let mut tables = switch(2);
    add(&mut tables, 0, 0, Match::ANY, apply([output(PortNo::CONTROLLER.0)]));
    configure(&mut tables, 1, PortConfig::NO_PACKET_IN);
    assert_eq!((actions(&tables, &tcp()).len(), run(&tables, &tcp()).reason), (0, DropReason::NoMatch));
    assert_eq!(actions(&tables, &with(tcp(), Field::InPort, 2)).len(), 1);
}

#[test]
fn controllers_may_ask_for_what_no_rule_matches() {
    let mut tables = switch(2);
    add(
        &mut tables,
        0,
        1,
        Match::ANY.with(Field::InPort, 1),
        Instructions { write: [output(2)].into(), goto: Some(5), ..apply([resubmit(7)]) },
    );
    assert_eq!((actions(&tables, &tcp()).len(), run(&tables, &tcp()).reason), (0, DropReason::NoMatch));
    tables.set_misses_to_controller(true);
    // Once: what is resubmitted in vain misses nothing.
    let found = actions(&tables, &tcp());
    let [Action::Controller(to)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((to.reason, to.table, to.cookie, to.controller_id), (OFPR_NO_MATCH, 5, u64::MAX, 0));
    let found = actions(&tables, &with(tcp(), Field::InPort, 2));
    let [Action::Controller(to)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((to.reason, to.table, to.cookie), (OFPR_NO_MATCH, 0, u64::MAX));
    configure(&mut tables, 2, PortConfig::NO_PACKET_IN);
    assert_eq!(
        (actions(&tables, &with(tcp(), Field::InPort, 2)).len(), run(&tables, &with(tcp(), Field::InPort, 2)).reason),
        (0, DropReason::NoMatch)
    );
}

#[test]
fn a_packet_out_to_a_group_that_is_not_there_goes_on() {
    let tables = switch(2);
    let found = packet_out(&tables, &[OfAction::Group(1), output(2)], &tcp());
    assert_eq!((&found.actions[..], found.reason), (&[to(2)][..], DropReason::NoBucket));
}

#[test]
fn a_packet_out_may_go_through_the_tables() {
    let mut tables = switch(3);
    add(&mut tables, 0, 1, Match::ANY.with(Field::EthDst, 5), apply([output(2), output(3)]));
    let key = with(tcp(), Field::InPort, PortNo::CONTROLLER.0.into());
    let list = [set(Field::EthDst, 5), output(PortNo::TABLE.0)];
    let found = packet_out(&tables, &list, &key);
    assert_eq!(found.actions[..], [set_to(Field::EthDst, 5), to(2), to(3)]);
    // From a port, it does not go back there.
    let found = packet_out(&tables, &list, &with(key, Field::InPort, 2));
    assert_eq!(found.actions[..], [set_to(Field::EthDst, 5), to(3)]);
    assert_eq!(actions(&tables, &with(tcp(), Field::EthDst, 6)), []);
}

#[test]
fn rules_and_tables_are_credited_each_time() {
    let mut tables = switch(2);
    add(&mut tables, 0, 1, Match::ANY, apply([resubmit(1), resubmit(1), resubmit(2), output(2)]));
    add(&mut tables, 1, 1, Match::ANY, Instructions::default());
    let found = run(&tables, &tcp());
    assert_eq!(found.effects.credits().len(), 3);
    found.effects.credit(&tables, 10, 1000, 77);
    let counters = |table| (tables.counters(table).lookups(), tables.counters(table).matches());
    assert_eq!([counters(0), counters(1), counters(2)], [(10, 10), (20, 20), (10, 0)]);
    let rule = &found.effects.credits()[1];
    assert_eq!((rule.frames(), rule.bytes(), rule.used()), (20, 2000, 77));
}

#[test]
fn a_trace_sees_every_step() {
    struct Steps(Vec<String>);
    impl Observer for Steps {
        fn observe(&mut self, step: Step<'_>) {
            self.0.push(match step {
                Step::Lookup { table, rule, .. } => format!("table {table} {:?}", rule.map(|rule| rule.priority)),
                Step::Action(_) => "action".into(),
                other => format!("{other:?}"),
            });
        }
    }
    let mut tables = switch(2);
    add(&mut tables, 0, 1, Match::ANY, apply([resubmit(1), output(2), output(1)]));
    let mut steps = Steps(Vec::new());
    let traced = trace(&tables, &tcp(), 0, &mut Scratch::default(), &mut steps);
    let expected =
        ["table 0 Some(1)", "action", "table 1 None", "Return", "action", "Made(Output(PortNo(2)))", "action", "Stopped(NoDestination)"];
    assert_eq!(steps.0, expected);
    assert_eq!(traced.actions, run(&tables, &tcp()).actions);
}

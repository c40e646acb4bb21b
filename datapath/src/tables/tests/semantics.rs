//! The rules of OpenFlow 1.3.5 for flow-mods, one by one.

use std::sync::Arc;

use crate::Nanos;
use crate::key::{Field, FieldRange, Flow, FlowMask, Match};
use crate::port::PortNo;
use crate::tables::instruction::{Instructions, OfAction};
use crate::tables::{FlowMod, FlowModCommand, FlowModError, MacTable, RemovedReason, Rule, RuleFilter, RuleFlags, Tables};

const SECOND: Nanos = 1_000_000_000;

fn tables() -> Tables {
    Tables::new(Arc::new(MacTable::new(10, 10)))
}

fn output(port: u32) -> OfAction {
    OfAction::Output { port: PortNo(port), max_len: 0 }
}

fn apply(actions: impl Into<Vec<OfAction>>) -> Instructions {
    Instructions { apply: actions.into().into(), ..Instructions::default() }
}

fn ip() -> Match {
    Match::ANY.with(Field::EthType, 0x0800)
}

fn host(n: u128) -> Match {
    ip().with(Field::Ipv4Dst, n)
}

fn add(matching: Match, port: u32) -> FlowMod {
    FlowMod { matching, instructions: apply([output(port)]), ..FlowMod::default() }
}

fn only_rule(tables: &Tables) -> Arc<Rule> {
    let rules: Vec<_> = tables.rules(&RuleFilter::ALL).collect();
    let [rule] = rules[..] else { panic!("{} rules", rules.len()) };
    rule.clone()
}

#[test]
fn an_add_takes_the_place_of_the_same_rule_and_keeps_its_counters() {
    let mut tables = tables();
    tables.flow_mod(&FlowMod { cookie: 1, ..add(ip(), 1) }, SECOND).expect("valid");
    only_rule(&tables).counters.credit(5, 300, 2 * SECOND);
    let outcome = tables.flow_mod(&FlowMod { cookie: 2, ..add(ip(), 2) }, 3 * SECOND).expect("valid");
    assert!(outcome.removed.is_empty());
    let rule = only_rule(&tables);
    assert_eq!((rule.cookie, rule.created, rule.counters.frames(), rule.counters.bytes()), (2, 3 * SECOND, 5, 300));
    assert!(rule.outputs_to(PortNo(2)) && !rule.outputs_to(PortNo(1)));
    tables.flow_mod(&FlowMod { flags: RuleFlags::RESET_COUNTS, ..add(ip(), 2) }, 4 * SECOND).expect("valid");
    assert_eq!(only_rule(&tables).counters.frames(), 0);
}

#[test]
fn a_modify_changes_the_instructions_only() {
    let mut tables = tables();
    let first = FlowMod { cookie: 7, idle_timeout: 10, hard_timeout: 20, flags: RuleFlags::SEND_FLOW_REM, ..add(host(1), 1) };
    tables.flow_mod(&first, SECOND).expect("valid");
    only_rule(&tables).counters.credit(5, 300, 2 * SECOND);
    let modify = FlowMod { command: FlowModCommand::Modify, cookie: 9, idle_timeout: 1, ..add(ip(), 2) };
    tables.flow_mod(&modify, 3 * SECOND).expect("valid");
    let rule = only_rule(&tables);
    assert_eq!((rule.cookie, rule.idle_timeout, rule.hard_timeout, rule.flags), (7, 10, 20, RuleFlags::SEND_FLOW_REM));
    assert_eq!((rule.created, rule.modified, rule.counters.frames()), (SECOND, 3 * SECOND, 5));
    assert!(rule.outputs_to(PortNo(2)));
    let strict = FlowMod { command: FlowModCommand::ModifyStrict, ..add(ip(), 3) };
    let epoch = tables.epoch();
    tables.flow_mod(&strict, 3 * SECOND).expect("nothing to modify is no error");
    assert!(only_rule(&tables).outputs_to(PortNo(2)));
    assert_eq!(tables.epoch(), epoch);
    tables.flow_mod(&FlowMod { flags: RuleFlags::RESET_COUNTS, ..modify }, 4 * SECOND).expect("valid");
    let rule = only_rule(&tables);
    assert_eq!((rule.counters.frames(), rule.counters.used(), rule.flags), (0, 2 * SECOND, RuleFlags::SEND_FLOW_REM));
}

#[test]
fn as_openflow_10_has_it_a_modification_adds_what_it_does_not_find_and_changes_cookies() {
    let mut tables = tables();
    let modify = FlowMod { command: FlowModCommand::Modify, table: 255, new_cookie: Some(9), or_add: true, ..add(ip(), 1) };
    tables.flow_mod(&FlowMod { idle_timeout: 5, ..modify.clone() }, SECOND).expect("valid");
    let rule = only_rule(&tables);
    assert_eq!((rule.table, rule.cookie, rule.idle_timeout, rule.outputs_to(PortNo(1))), (0, 9, 5, true));
    // What is found is changed where it is, its timeouts are not.
    tables.flow_mod(&FlowMod { new_cookie: None, idle_timeout: 7, ..modify.clone() }, SECOND).expect("valid");
    assert_eq!((only_rule(&tables).cookie, only_rule(&tables).idle_timeout), (9, 5));
    tables.flow_mod(&FlowMod { new_cookie: Some(3), instructions: add(ip(), 2).instructions, ..modify.clone() }, SECOND).expect("valid");
    assert_eq!((only_rule(&tables).cookie, only_rule(&tables).outputs_to(PortNo(2))), (3, true));
    let refused = FlowMod { or_add: false, ..modify };
    assert_eq!(tables.flow_mod(&refused, SECOND).err(), Some(FlowModError::BadTableId));
}

#[test]
fn overlaps_are_refused_on_request() {
    let mut tables = tables();
    tables.flow_mod(&add(ip(), 1), 0).expect("valid");
    let check = |flow_mod: FlowMod| FlowMod { flags: RuleFlags::CHECK_OVERLAP, ..flow_mod };
    let in_port = add(Match::ANY.with(Field::InPort, 3), 2);
    assert_eq!(tables.flow_mod(&check(in_port.clone()), 0).err(), Some(FlowModError::Overlap));
    assert_eq!(tables.flow_mod(&check(add(ip(), 2)), 0).err(), Some(FlowModError::Overlap));
    assert!(tables.flow_mod(&FlowMod { priority: 1, ..check(in_port.clone()) }, 0).is_ok());
    assert!(tables.flow_mod(&FlowMod { table: 1, ..check(in_port.clone()) }, 0).is_ok());
    assert!(tables.flow_mod(&check(add(in_port.matching.with(Field::EthType, 0x0806), 2)), 0).is_ok());
}

#[test]
fn deletes_are_filtered_by_match_cookie_port_and_group() {
    let count = |delete: FlowMod| {
        let mut tables = tables();
        for table in [0, 5] {
            for n in 1..=4 {
                tables.flow_mod(&FlowMod { table, cookie: n, ..add(host(n.into()), n as u32 % 2 + 1) }, 0).expect("valid");
            }
            tables.flow_mod(&FlowMod { table, cookie: 8, ..add(ip(), 9) }, 0).expect("valid");
        }
        let removed = tables.flow_mod(&delete, 0).expect("valid").removed;
        assert!(removed.iter().all(|removed| removed.reason == RemovedReason::Delete));
        assert_eq!(tables.rules(&RuleFilter::ALL).count() + removed.len(), 10);
        removed.len()
    };
    let delete = FlowMod { command: FlowModCommand::Delete, ..FlowMod::default() };
    let strict = FlowMod { command: FlowModCommand::DeleteStrict, ..FlowMod::default() };
    assert_eq!(count(delete.clone()), 5);
    assert_eq!(count(FlowMod { table: 255, ..delete.clone() }), 10);
    assert_eq!(count(FlowMod { table: 77, ..delete.clone() }), 0);
    assert_eq!(count(FlowMod { matching: host(2), ..delete.clone() }), 1);
    assert_eq!(count(FlowMod { cookie: 1, cookie_mask: 1, ..delete.clone() }), 2);
    assert_eq!(count(FlowMod { out_port: PortNo(2), ..delete.clone() }), 2);
    assert_eq!(count(FlowMod { out_port: PortNo(9), table: 255, ..delete.clone() }), 2);
    assert_eq!(count(FlowMod { out_group: 1, ..delete }), 0);
    assert_eq!(count(FlowMod { matching: ip(), ..strict.clone() }), 1);
    assert_eq!(count(FlowMod { matching: ip(), priority: 1, ..strict.clone() }), 0);
    assert_eq!(count(FlowMod { table: 255, matching: host(3), cookie: 3, cookie_mask: u64::MAX, ..strict }), 2);
}

#[test]
fn a_full_table_refuses_new_rules_only() {
    let mut tables = tables();
    tables.max_rules = 2;
    tables.flow_mod(&add(host(1), 1), 0).expect("valid");
    tables.flow_mod(&add(host(2), 1), 0).expect("valid");
    assert_eq!(tables.flow_mod(&add(host(3), 1), 0).err(), Some(FlowModError::TableFull));
    tables.flow_mod(&add(host(2), 2), 0).expect("it replaces a rule");
    tables.flow_mod(&FlowMod { table: 1, ..add(host(3), 1) }, 0).expect("another table");
    assert_eq!((tables.rule_count(0), tables.rule_count(1)), (2, 1));
}

#[test]
fn rules_expire_when_their_time_is_over_and_not_before() {
    let mut tables = tables();
    let start = 1000 * SECOND + 7;
    tables.flow_mod(&FlowMod { hard_timeout: 1000, ..add(host(1), 1) }, start).expect("valid");
    tables.flow_mod(&FlowMod { idle_timeout: 10, ..add(host(2), 1) }, start).expect("valid");
    tables.flow_mod(&FlowMod { idle_timeout: 10, hard_timeout: 10, ..add(host(3), 1) }, start).expect("valid");
    tables.flow_mod(&add(host(4), 1), start).expect("valid");
    let mut expired = |now: Nanos| -> Vec<_> {
        let removed = tables.expire(now).into_iter();
        let removed = removed.map(|removed| (removed.rule.matching.expand(), removed.reason)).collect();
        if now == start + 9 * SECOND {
            let rule = tables.rules(&RuleFilter::ALL).find(|rule| rule.matching.expand() == host(2));
            rule.expect("it is there").counters.credit(1, 60, now);
        }
        removed
    };
    assert_eq!(expired(start), []);
    assert_eq!(expired(start + 9 * SECOND), []);
    assert_eq!(expired(start + 10 * SECOND - 1), []);
    assert_eq!(expired(start + 10 * SECOND), [(host(3), RemovedReason::HardTimeout)]);
    assert_eq!(expired(start + 19 * SECOND - 1), []);
    assert_eq!(expired(start + 19 * SECOND), [(host(2), RemovedReason::IdleTimeout)]);
    assert_eq!(expired(start + 1000 * SECOND - 1), []);
    assert_eq!(expired(start + 1000 * SECOND), [(host(1), RemovedReason::HardTimeout)]);
    assert_eq!(expired(u64::MAX), []);
    assert_eq!(tables.rule_count(0), 1);
}

#[test]
fn a_snapshot_does_not_see_later_changes() {
    let mut tables = tables();
    tables.flow_mod(&add(ip(), 1), 0).expect("valid");
    let snapshot = tables.clone();
    tables.flow_mod(&add(ip(), 2), 0).expect("valid");
    tables.flow_mod(&add(host(1), 3), 0).expect("valid");
    assert!(only_rule(&snapshot).outputs_to(PortNo(1)));
    assert!(snapshot.epoch() < tables.epoch());
    let mut flow = Flow::ZERO;
    Field::EthType.write(&mut flow, 0x0800);
    let found = tables.lookup(0, &flow, &mut FlowMask::default()).expect("a rule matches");
    assert!(found.outputs_to(PortNo(2)));
}

/// Every check of a flow-mod, with the error that it must give.
#[test]
fn what_makes_no_sense_is_refused() {
    use FlowModError::*;
    let tagged = Match::ANY.with_masked(Field::VlanVid, 0x1000, 0x1000);
    let tcp = ip().with(Field::IpProto, 6);
    let range = |field, offset, bits| FieldRange { field, offset, bits };
    let set = |field: Field, value| OfAction::SetField { field, value, mask: field.ones() };
    let part = |field, value, mask| OfAction::SetField { field, value, mask };
    let load = |destination, value| OfAction::Load { destination, value };
    let copy = |source, destination| OfAction::Move { source, destination };
    let vlan = |vid: u128| set(Field::VlanVid, 0x1000 | vid);
    let push = OfAction::PushVlan(0x8100);
    let cases: Vec<(Match, Vec<OfAction>, Option<FlowModError>)> = vec![
        (
            Match::ANY,
            vec![output(1), output(0xffff_ff00), output(PortNo::LOCAL.0), output(PortNo::NORMAL.0), output(PortNo::IN_PORT.0)],
            None,
        ),
        (Match::ANY, vec![output(PortNo::FLOOD.0), output(PortNo::ALL.0), output(PortNo::CONTROLLER.0)], None),
        (Match::ANY, vec![output(0)], Some(BadOutPort)),
        (Match::ANY, vec![output(PortNo::TABLE.0)], Some(BadOutPort)),
        (Match::ANY, vec![output(PortNo::ANY.0)], Some(BadOutPort)),
        (Match::ANY, vec![output(0xffff_ff01)], Some(BadOutPort)),
        (Match::ANY, vec![OfAction::SetQueue(7)], None),
        (Match::ANY, vec![OfAction::SetQueue(8)], Some(BadQueue)),
        (Match::ANY, vec![OfAction::Group(1)], Some(BadOutGroup)),
        (Match::ANY, vec![set(Field::EthDst, 5), set(Field::Metadata, 5), set(Field::Reg3, 5)], None),
        (Match::ANY, vec![set(Field::EthType, 0x0800)], Some(BadSetType)),
        (tcp, vec![set(Field::TcpFlags, 1)], Some(BadSetType)),
        (tcp, vec![set(Field::TcpDst, 80), set(Field::Ipv4Src, 1), set(Field::IpDscp, 63), OfAction::DecNwTtl], None),
        (tcp, vec![set(Field::IpDscp, 64)], Some(BadSetArgument)),
        (tcp, vec![part(Field::TcpDst, 3, 1)], Some(BadSetArgument)),
        (tcp, vec![part(Field::TcpDst, 0, 0)], Some(BadSetArgument)),
        (tcp, vec![set(Field::UdpDst, 80)], Some(MatchInconsistent)),
        (ip(), vec![set(Field::TcpDst, 80)], Some(MatchInconsistent)),
        (Match::ANY, vec![set(Field::Ipv4Src, 1)], Some(MatchInconsistent)),
        (Match::ANY, vec![OfAction::SetNwTtl(3)], Some(MatchInconsistent)),
        (Match::ANY, vec![OfAction::DecNwTtl], Some(MatchInconsistent)),
        (Match::ANY, vec![OfAction::PopVlan], Some(MatchInconsistent)),
        (Match::ANY.with(Field::VlanVid, 0), vec![OfAction::PopVlan], Some(MatchInconsistent)),
        (tagged, vec![OfAction::PopVlan], None),
        (tagged, vec![OfAction::PopVlan, OfAction::PopVlan], Some(MatchInconsistent)),
        (tagged, vec![push.clone(), OfAction::PopVlan, OfAction::PopVlan], None),
        (Match::ANY, vec![push.clone(), OfAction::PopVlan, set(Field::VlanPcp, 3)], Some(MatchInconsistent)),
        (Match::ANY, vec![push.clone(), vlan(5), set(Field::VlanPcp, 3)], None),
        (Match::ANY, vec![set(Field::VlanPcp, 3)], Some(MatchInconsistent)),
        (tagged, vec![set(Field::VlanPcp, 8)], Some(BadSetArgument)),
        (tagged, vec![set(Field::VlanVid, 5)], Some(BadSetArgument)),
        (tagged, vec![load(range(Field::VlanTci, 0, 16), 0), OfAction::PopVlan], Some(MatchInconsistent)),
        (Match::ANY, vec![OfAction::PushVlan(0x9100)], Some(BadArgument)),
        (Match::ANY, vec![load(range(Field::Reg0, 4, 4), 15)], None),
        (Match::ANY, vec![load(range(Field::Reg0, 4, 4), 16)], Some(BadSetArgument)),
        (Match::ANY, vec![load(range(Field::Reg0, 30, 4), 0)], Some(BadArgument)),
        (Match::ANY, vec![load(range(Field::Reg0, 0, 0), 0)], Some(BadArgument)),
        (Match::ANY, vec![load(range(Field::Ipv4Dst, 0, 8), 0)], Some(MatchInconsistent)),
        (Match::ANY, vec![copy(range(Field::EthSrc, 0, 48), range(Field::EthDst, 0, 48))], None),
        (Match::ANY, vec![copy(range(Field::EthSrc, 0, 32), range(Field::Reg0, 0, 16))], Some(BadArgument)),
        (Match::ANY, vec![copy(range(Field::Ipv4Src, 0, 32), range(Field::Reg0, 0, 32))], Some(MatchInconsistent)),
        (Match::ANY, vec![copy(range(Field::Reg0, 0, 16), range(Field::EthType, 0, 16))], Some(BadSetType)),
        (tagged, vec![copy(range(Field::Reg0, 0, 16), range(Field::VlanTci, 0, 16)), OfAction::PopVlan], Some(MatchInconsistent)),
        (Match::ANY, vec![OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(253) }], None),
        (Match::ANY, vec![OfAction::Resubmit { port: PortNo(3), table: None }], None),
        (Match::ANY, vec![OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(254) }], Some(BadArgument)),
        (Match::ANY, vec![OfAction::Resubmit { port: PortNo::FLOOD, table: None }], Some(BadArgument)),
        (Match::ANY.with(Field::IpProto, 6), vec![], Some(BadPrerequisite)),
        (Match::ANY.with(Field::EthType, 0x0806).with(Field::VlanPcp, 1), vec![], Some(BadPrerequisite)),
        (tagged.with(Field::VlanPcp, 1), vec![], None),
    ];
    for (matching, actions, error) in cases {
        let flow_mod = FlowMod { matching, instructions: apply(actions.clone()), ..FlowMod::default() };
        assert_eq!(tables().flow_mod(&flow_mod, 0).err(), error, "{matching:?} {actions:?}");
    }
    let written = |matching, write: Vec<OfAction>| {
        let instructions = Instructions { write: write.into(), ..Instructions::default() };
        tables().flow_mod(&FlowMod { matching, instructions, ..FlowMod::default() }, 0).err()
    };
    assert_eq!(written(Match::ANY, vec![vlan(5), set(Field::VlanPcp, 1), push.clone()]), None, "the push comes first in the set");
    assert_eq!(written(tagged, vec![set(Field::VlanPcp, 1), OfAction::PopVlan]), Some(MatchInconsistent), "the pop comes first");
    assert_eq!(written(tagged, vec![set(Field::VlanPcp, 1), push.clone(), OfAction::PopVlan]), None);
    assert_eq!(written(Match::ANY, vec![push, OfAction::PopVlan, OfAction::DecNwTtl]), None, "a later table may see the tag and the TTL");
    assert_eq!(written(Match::ANY, vec![OfAction::Resubmit { port: PortNo::IN_PORT, table: None }]), Some(BadActionType));
    assert_eq!(written(Match::ANY, vec![output(PortNo::TABLE.0)]), Some(BadOutPort));

    let instruct = |table, instructions| tables().flow_mod(&FlowMod { table, instructions, ..FlowMod::default() }, 0).err();
    let goto = |table| Instructions { goto: Some(table), ..Instructions::default() };
    assert_eq!(instruct(3, goto(4)), None);
    assert_eq!([instruct(3, goto(3)), instruct(3, goto(254)), instruct(253, goto(255))], [Some(BadGotoTable); 3]);
    assert_eq!(instruct(0, Instructions { meter: Some(1), ..Instructions::default() }), Some(UnknownMeter));
    assert_eq!([instruct(254, apply([])), instruct(255, apply([]))], [Some(BadTableId); 2]);
    assert_eq!(tables().flow_mod(&FlowMod { flags: RuleFlags(32), ..FlowMod::default() }, 0).err(), Some(BadFlags));
    let delete = FlowMod { command: FlowModCommand::Delete, instructions: goto(0), ..FlowMod::default() };
    assert!(tables().flow_mod(&delete, 0).is_ok(), "a delete's instructions don't count");
}

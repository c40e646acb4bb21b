//! Random flow-mods, frames and time, against a plain vector of rules that does what OpenFlow 1.3.5, 6.4 and 6.5 say, word for word, and what OpenFlow 1.0
//! says of a modification that finds nothing.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::Nanos;
use crate::key::{Field, Flow, FlowMask, Match};
use crate::port::PortNo;
use crate::tables::group::GROUP_ANY;
use crate::tables::instruction::{Instructions, OfAction};
use crate::tables::{FlowMod, FlowModCommand, FlowModError, MacTable, Removed, RemovedReason, Rule, RuleFilter, RuleFlags, Tables};

const SECOND: Nanos = 1_000_000_000;
const MAX_RULES: usize = 12;

/// Everything that is known of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    table: u8,
    priority: u16,
    matching: Vec<(Field, u128, u128)>,
    cookie: u64,
    out_port: PortNo,
    goto: Option<u8>,
    idle_timeout: u16,
    hard_timeout: u16,
    flags: u16,
    created: Nanos,
    frames: u64,
    used: Nanos,
}

fn fields(matching: &Match) -> Vec<(Field, u128, u128)> {
    matching.fields().map(|found| (found.field, found.value, found.mask)).collect()
}

fn known(rule: &Arc<Rule>) -> Known {
    let [OfAction::Output { port, .. }] = rule.instructions.apply[..] else { panic!("one output in each rule") };
    Known {
        table: rule.table,
        priority: rule.priority,
        matching: fields(&rule.matching.expand()),
        cookie: rule.cookie,
        out_port: port,
        goto: rule.instructions.goto,
        idle_timeout: rule.idle_timeout,
        hard_timeout: rule.hard_timeout,
        flags: rule.flags.0,
        created: rule.created,
        frames: rule.counters.frames(),
        used: rule.counters.used(),
    }
}

#[derive(Default)]
struct Reference(Vec<(Match, Known)>);

impl Reference {
    fn flow_mod(&mut self, flow_mod: &FlowMod, now: Nanos) -> Result<Vec<Known>, FlowModError> {
        use FlowModCommand::*;
        let delete = matches!(flow_mod.command, Delete | DeleteStrict);
        let modify = matches!(flow_mod.command, Modify | ModifyStrict);
        if flow_mod.table == 254 || (flow_mod.table == 255 && !delete && !(modify && flow_mod.or_add)) {
            return Err(FlowModError::BadTableId);
        }
        if !delete && flow_mod.instructions.goto.is_some_and(|goto| goto <= flow_mod.table) {
            return Err(FlowModError::BadGotoTable);
        }
        let (out_port, goto) = (output(&flow_mod.instructions), flow_mod.instructions.goto);
        match flow_mod.command {
            Add => {
                let mut here = self.0.iter().filter(|(_, rule)| rule.table == flow_mod.table);
                let overlap =
                    here.clone().any(|(matching, rule)| rule.priority == flow_mod.priority && matching.overlaps(&flow_mod.matching));
                if overlap && flow_mod.flags.contains(RuleFlags::CHECK_OVERLAP) {
                    return Err(FlowModError::Overlap);
                }
                let count = here.clone().count();
                let identical = here.any(|(matching, rule)| rule.priority == flow_mod.priority && *matching == flow_mod.matching);
                if count >= MAX_RULES && !identical {
                    return Err(FlowModError::TableFull);
                }
                let mut frames = 0;
                self.0.retain(|(matching, rule)| {
                    let identical = rule.table == flow_mod.table && rule.priority == flow_mod.priority && *matching == flow_mod.matching;
                    if identical && !flow_mod.flags.contains(RuleFlags::RESET_COUNTS) {
                        frames = rule.frames;
                    }
                    !identical
                });
                let rule = Known {
                    table: flow_mod.table,
                    priority: flow_mod.priority,
                    matching: fields(&flow_mod.matching),
                    cookie: flow_mod.cookie,
                    out_port,
                    goto,
                    idle_timeout: flow_mod.idle_timeout,
                    hard_timeout: flow_mod.hard_timeout,
                    flags: flow_mod.flags.0,
                    created: now,
                    frames,
                    used: now,
                };
                self.0.push((flow_mod.matching, rule));
                Ok(vec![])
            }
            Modify | ModifyStrict
                if flow_mod.or_add
                    && flow_mod.cookie_mask == 0
                    && !self.0.iter().any(|(matching, rule)| selects(flow_mod, matching, rule)) =>
            {
                let (table, cookie) = (if flow_mod.table == 255 { 0 } else { flow_mod.table }, flow_mod.new_cookie.unwrap_or(0));
                self.flow_mod(&FlowMod { command: Add, table, cookie, ..flow_mod.clone() }, now)
            }
            Modify | ModifyStrict => {
                for (_, rule) in self.0.iter_mut().filter(|(matching, rule)| selects(flow_mod, matching, rule)) {
                    (rule.out_port, rule.goto) = (out_port, goto);
                    rule.cookie = flow_mod.new_cookie.unwrap_or(rule.cookie);
                    if flow_mod.flags.contains(RuleFlags::RESET_COUNTS) {
                        rule.frames = 0;
                    }
                }
                Ok(vec![])
            }
            Delete | DeleteStrict => {
                let (removed, kept) = std::mem::take(&mut self.0).into_iter().partition(|(matching, rule)| {
                    selects(flow_mod, matching, rule) && (flow_mod.out_port == PortNo::ANY || flow_mod.out_port == rule.out_port)
                });
                self.0 = kept;
                Ok(only_rules(removed))
            }
        }
    }

    fn expire(&mut self, now: Nanos) -> Vec<(Known, RemovedReason)> {
        let due = |start: Nanos, timeout: u16| timeout != 0 && start + u64::from(timeout) * SECOND <= now;
        let mut removed = Vec::new();
        self.0.retain(|(_, rule)| {
            let (hard, idle) = (due(rule.created, rule.hard_timeout), due(rule.used, rule.idle_timeout));
            let hard_first = hard
                && (!idle || rule.created + u64::from(rule.hard_timeout) * SECOND <= rule.used + u64::from(rule.idle_timeout) * SECOND);
            if hard || idle {
                removed.push((rule.clone(), if hard_first { RemovedReason::HardTimeout } else { RemovedReason::IdleTimeout }));
            }
            !hard && !idle
        });
        removed.sort_by(|a, b| a.0.cmp(&b.0));
        removed
    }
}

fn output(instructions: &Instructions) -> PortNo {
    match instructions.apply[..] {
        [OfAction::Output { port, .. }] => port,
        _ => panic!("one output in each rule"),
    }
}

fn selects(flow_mod: &FlowMod, matching: &Match, rule: &Known) -> bool {
    let strict = matches!(flow_mod.command, FlowModCommand::ModifyStrict | FlowModCommand::DeleteStrict);
    let matched =
        if strict { *matching == flow_mod.matching && rule.priority == flow_mod.priority } else { flow_mod.matching.includes(matching) };
    matched && (flow_mod.table == 255 || flow_mod.table == rule.table) && (rule.cookie ^ flow_mod.cookie) & flow_mod.cookie_mask == 0
}

fn only_rules(rules: Vec<(Match, Known)>) -> Vec<Known> {
    let mut rules: Vec<_> = rules.into_iter().map(|(_, rule)| rule).collect();
    rules.sort();
    rules
}

fn any_match() -> impl Strategy<Value = Match> {
    let address = (0..4u128, select(vec![0u128, 0xffff_fffe, 0xffff_ffff]));
    (0..3u128, 0..2u128, address).prop_map(|(in_port, ip, (address, mask))| {
        let mut matching = Match::ANY;
        if in_port != 0 {
            matching = matching.with(Field::InPort, in_port);
        }
        if ip != 0 {
            matching = matching.with(Field::EthType, 0x0800).with_masked(Field::Ipv4Dst, address, mask);
        }
        matching
    })
}

fn any_flow() -> impl Strategy<Value = Flow> {
    (1..4u128, select(vec![0x0800u128, 0x0806]), 0..4u128).prop_map(|(in_port, eth_type, address)| {
        let mut flow = Flow::ZERO;
        Field::InPort.write(&mut flow, in_port);
        Field::EthType.write(&mut flow, eth_type);
        Field::Ipv4Dst.write(&mut flow, address);
        flow
    })
}

fn any_flow_mod() -> impl Strategy<Value = FlowMod> {
    use FlowModCommand::*;
    let command = select(vec![Add, Add, Add, Modify, ModifyStrict, Delete, DeleteStrict]);
    let place = (select(vec![0u8, 0, 0, 1, 253, 254, 255]), any_match(), 0..3u16);
    let cookie = (0..4u64, select(vec![0u64, 1, 3, u64::MAX]));
    let timeouts = (select(vec![0u16, 0, 3, 10, 600]), select(vec![0u16, 0, 5, 20, 300]));
    let filter = (select(vec![PortNo::ANY, PortNo::ANY, PortNo(1)]), 0..32u16);
    let modification = (select(vec![None, Some(2u64), Some(5)]), any::<bool>());
    let instructions = (1..3u32, select(vec![None, None, Some(1u8), Some(2)]));
    (command, place, cookie, timeouts, filter, modification, instructions).prop_map(
        |(command, (table, matching, priority), (cookie, cookie_mask), timeouts, (out_port, flags), (new_cookie, or_add), (port, goto))| {
            let (idle_timeout, hard_timeout) = timeouts;
            FlowMod {
                command,
                table,
                matching,
                priority,
                cookie,
                cookie_mask,
                idle_timeout,
                hard_timeout,
                // Overlap checks refuse much: have few.
                flags: RuleFlags(if flags % 4 == 2 { flags } else { flags & !RuleFlags::CHECK_OVERLAP.0 }),
                instructions: Instructions {
                    apply: [OfAction::Output { port: PortNo(port), max_len: 0 }].into(),
                    goto,
                    ..Instructions::default()
                },
                out_port,
                out_group: GROUP_ANY,
                new_cookie,
                or_add,
                lenient: false,
            }
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    FlowMod(Box<FlowMod>),
    Frame(Box<Flow>, Index),
    Time(Nanos),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_flow_mod().prop_map(|flow_mod| Step::FlowMod(Box::new(flow_mod))),
        3 => (any_flow(), any::<Index>()).prop_map(|(flow, which)| Step::Frame(Box::new(flow), which)),
        2 => (0..8 * SECOND).prop_map(Step::Time),
        1 => (0..700 * SECOND).prop_map(Step::Time),
    ]
}

fn sorted(removed: Vec<Removed>) -> Vec<(Known, RemovedReason)> {
    let mut removed: Vec<_> = removed.iter().map(|removed| (known(&removed.rule), removed.reason)).collect();
    removed.sort_by(|a, b| a.0.cmp(&b.0));
    removed
}

fn all_rules(tables: &Tables) -> Vec<Known> {
    let mut rules: Vec<_> = tables.rules(&RuleFilter::ALL).map(known).collect();
    rules.sort();
    rules
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn flow_tables_do_what_the_standard_says(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut tables = Tables::new(Arc::new(MacTable::new(10, 10)));
        tables.max_rules = MAX_RULES;
        let mut reference = Reference::default();
        let mut now = 5 * SECOND;
        let mut published: Option<(Tables, Vec<Known>)> = None;
        for step in steps {
            match step {
                Step::FlowMod(flow_mod) => {
                    let before = (tables.epoch(), all_rules(&tables));
                    let outcome = tables.flow_mod(&flow_mod, now).map(|outcome| sorted(outcome.removed));
                    let expected = reference.flow_mod(&flow_mod, now);
                    prop_assert_eq!(&outcome, &expected.map(|rules| rules.into_iter().map(|rule| (rule, RemovedReason::Delete)).collect()));
                    if before != (tables.epoch(), all_rules(&tables)) {
                        prop_assert!(outcome.is_ok() && tables.epoch() > before.0);
                    }
                }
                Step::Frame(flow, which) => {
                    let table = [0, 1][which.index(2)];
                    let found = tables.lookup(table, &flow, &mut FlowMask::default());
                    let matching = |(matching, rule): &&mut (Match, Known)| rule.table == table && matching.matches(&flow);
                    let best = reference.0.iter_mut().filter(matching).map(|(_, rule)| rule.priority).max();
                    prop_assert_eq!(found.map(|rule| rule.priority), best);
                    if let Some(found) = found {
                        let place = (found.priority, found.matching.expand());
                        let found = known(found);
                        let expected = reference.0.iter_mut().filter(matching).find(|(matching, rule)| (rule.priority, *matching) == place);
                        let (_, expected) = expected.expect("the rule found is in the reference");
                        prop_assert_eq!(&found, &*expected);
                        expected.frames += 1;
                        expected.used = now;
                    }
                    if let Some(found) = tables.lookup(table, &flow, &mut FlowMask::default()) {
                        found.counters.credit(1, 60, now);
                    }
                }
                Step::Time(time) => {
                    now += time;
                    prop_assert_eq!(sorted(tables.expire(now)), reference.expire(now));
                    // Counters are shared with the snapshots, so only what is there and what it does is compared.
                    let still = published.take().map(|(tables, rules)| (all_rules(&tables), rules));
                    if let Some((is, was)) = still {
                        let place = |rule: &Known| (rule.table, rule.priority, rule.matching.clone(), rule.cookie, rule.out_port, rule.created);
                        prop_assert_eq!(is.iter().map(place).collect::<Vec<_>>(), was.iter().map(place).collect::<Vec<_>>());
                    }
                    published = Some((tables.clone(), all_rules(&tables)));
                }
            }
            prop_assert_eq!(all_rules(&tables), only_rules(reference.0.clone()));
        }
        now += 100_000 * SECOND;
        prop_assert_eq!(sorted(tables.expire(now)), reference.expire(now));
        prop_assert_eq!(all_rules(&tables), only_rules(reference.0.clone()));
    }
}

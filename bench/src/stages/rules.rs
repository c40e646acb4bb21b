//! Reads the rules of [`crate::rules`] into flow-mods, as `ovs-ofctl` and our OpenFlow agent do it together. It knows the few actions that those have.

use datapath::key::{Field, FieldRange, Match};
use datapath::port::PortNo;
use datapath::tables::FlowMod;
use datapath::tables::instruction::{Instructions, OfAction};

/// A rule as a flow-mod.
///
/// # Panics
///
/// Panics, naming it, if it has something in it that is not understood.
pub fn parse(rule: &str) -> FlowMod {
    let (conditions, actions) = rule.split_once("actions=").unwrap_or_else(|| panic!("{rule}: no actions"));
    let mut flow_mod = FlowMod::default();
    let mut matching = Vec::new();
    for condition in conditions.split(',').filter(|condition| !condition.is_empty()) {
        match condition.split_once('=') {
            Some(("table", number)) => flow_mod.table = number.parse().unwrap_or_else(|_| panic!("{rule}: the table")),
            Some(("priority", number)) => flow_mod.priority = number.parse().unwrap_or_else(|_| panic!("{rule}: the priority")),
            _ => matching.push(condition),
        }
    }
    flow_mod.matching = Match::parse(&matching.join(","), |_| None).unwrap_or_else(|error| panic!("{rule}: {error}"));
    let apply =
        split(actions).into_iter().filter(|action| *action != "drop").map(|text| action(text).unwrap_or_else(|| panic!("{rule}: {text}")));
    flow_mod.instructions = Instructions { apply: apply.collect(), ..Instructions::default() };
    flow_mod
}

/// Actions are separated by commas, outside of parentheses.
fn split(actions: &str) -> Vec<&str> {
    let mut depth = 0;
    let outside = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    };
    actions.split(outside).collect()
}

fn action(text: &str) -> Option<OfAction> {
    if text == "NORMAL" {
        return Some(OfAction::Output { port: PortNo::NORMAL, max_len: 0 });
    }
    if text == "dec_ttl" {
        return Some(OfAction::DecNwTtl);
    }
    if let Some(table) = text.strip_prefix("resubmit(,") {
        return Some(OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(table.strip_suffix(')')?.parse().ok()?) });
    }
    let (name, argument) = text.split_once(':')?;
    match name {
        "output" => Some(OfAction::Output { port: PortNo(argument.parse().ok()?), max_len: 0 }),
        "set_field" => {
            let (value, field) = argument.split_once("->")?;
            let field = named(field)?;
            Some(OfAction::SetField { field, value: number(value)?, mask: field.ones() })
        }
        "move" => {
            let (source, destination) = argument.split_once("->")?;
            Some(OfAction::Move { source: range(source)?, destination: range(destination)? })
        }
        _ => None,
    }
}

fn named(name: &str) -> Option<Field> {
    match name {
        "NXM_OF_UDP_SRC" => Some(Field::UdpSrc),
        "NXM_OF_UDP_DST" => Some(Field::UdpDst),
        "NXM_NX_REG0" => Some(Field::Reg0),
        "ip_dst" => Some(Field::Ipv4Dst),
        other => Field::by_name(other),
    }
}

/// A number, an IPv4 address or an Ethernet address.
fn number(text: &str) -> Option<u128> {
    if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
        return Some(u32::from(address).into());
    }
    if text.contains(':') {
        return u128::from_str_radix(&text.replace(':', ""), 16).ok();
    }
    text.parse().ok()
}

/// `FIELD[]` or `FIELD[FIRST..LAST]`.
fn range(text: &str) -> Option<FieldRange> {
    let (name, bits) = text.strip_suffix(']')?.split_once('[')?;
    let field = named(name)?;
    if bits.is_empty() {
        return Some(FieldRange { field, offset: 0, bits: field.bits() });
    }
    let (first, last) = bits.split_once("..")?;
    let (first, last) = (first.parse::<u8>().ok()?, last.parse::<u8>().ok()?);
    Some(FieldRange { field, offset: first, bits: last - first + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    #[test]
    fn all_rules_are_understood() {
        for rules in [Rules::Ports, Rules::Normal, Rules::Pipeline, Rules::Masks(64), Rules::Unique] {
            rules.text().lines().for_each(|rule| drop(parse(rule)));
        }
    }

    #[test]
    fn a_rule_is_what_it_says() {
        let rule = parse("table=5,priority=100,udp,metadata=1,tp_dst=53,actions=set_field:46->ip_dscp,resubmit(,6)");
        assert_eq!((rule.table, rule.priority), (5, 100));
        assert_eq!(rule.matching, Match::parse("udp,metadata=1,tp_dst=53", |_| None).unwrap());
        let [OfAction::SetField { field: Field::IpDscp, value: 46, .. }, OfAction::Resubmit { table: Some(6), .. }] =
            rule.instructions.apply[..]
        else {
            panic!("{:?}", rule.instructions)
        };
        assert!(parse("priority=0,actions=drop").instructions.apply.is_empty());
    }

    #[test]
    #[should_panic(expected = "push_mpls")]
    fn an_unknown_action_is_named() {
        parse("actions=push_mpls:0x8847");
    }
}

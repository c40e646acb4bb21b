//! A switch to translate for.

mod agreement;
mod groups;
mod mask;
mod normal;
mod pipeline;

use std::sync::Arc;

use super::*;
use crate::frame::Batch;
use crate::key::{Field, Match};
use crate::port::{Output, Share, Transmitted};
use crate::tables::instruction::{CONTROLLER_WHOLE, Instructions};
use crate::tables::{FlowMod, MacTable, Port, PortConfig, PortCounters, VlanMode};

/// Transmits nothing.
struct Nowhere;

impl Output for Nowhere {
    fn transmit(&self, _: Share, _: &Batch, _: &[u16]) -> Transmitted {
        Transmitted::default()
    }
}

fn port(no: u32) -> Port {
    Port {
        no: PortNo(no),
        name: format!("port{no}"),
        hw_addr: [2, 0, 0, 0, 0, no as u8],
        config: PortConfig::default(),
        link_up: true,
        speed: None,
        mtu: 1500,
        icmp_too_big: false,
        vlan: VlanMode::default(),
        output: Arc::new(Nowhere),
        counters: Arc::new(PortCounters::new(1)),
    }
}

/// Tables and ports 1 to `ports`.
fn switch(ports: u32) -> Tables {
    let mut tables = Tables::new(Arc::new(MacTable::new(1024, 1024)));
    for no in 1..=ports {
        tables.add_port(port(no)).expect("the number is free");
    }
    tables
}

fn configure(tables: &mut Tables, no: u32, config: PortConfig) {
    tables.modify_port(PortNo(no), [2, 0, 0, 0, 0, no as u8], config, PortConfig::ALL).expect("there is such a port");
}

fn add(tables: &mut Tables, table: u8, priority: u16, matching: Match, instructions: Instructions) {
    let rule = FlowMod { table, priority, matching, instructions, cookie: u64::from(priority), ..FlowMod::default() };
    tables.flow_mod(&rule, 0).expect("the rule is fine");
}

fn apply(actions: impl Into<Vec<OfAction>>) -> Instructions {
    Instructions { apply: actions.into().into(), ..Instructions::default() }
}

fn output(port: u32) -> OfAction {
    OfAction::Output { port: PortNo(port), max_len: CONTROLLER_WHOLE }
}

fn set(field: Field, value: u128) -> OfAction {
    OfAction::SetField { field, value, mask: field.ones() }
}

fn resubmit(table: u8) -> OfAction {
    OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(table) }
}

/// A key with these fields.
fn key(fields: &[(Field, u128)]) -> FlowKey {
    let mut flow = Flow::ZERO;
    fields.iter().for_each(|(field, value)| field.write(&mut flow, *value));
    flow.key()
}

/// A TCP segment from port 1.
fn tcp() -> FlowKey {
    key(&[
        (Field::InPort, 1),
        (Field::EthDst, 0x0200_0000_0002),
        (Field::EthSrc, 0x0200_0000_0001),
        (Field::EthType, 0x0800),
        (Field::IpProto, 6),
        (Field::NwTtl, 64),
        (Field::Ipv4Src, 0x0a00_0001),
        (Field::Ipv4Dst, 0x0a00_0002),
        (Field::TcpSrc, 40000),
        (Field::TcpDst, 80),
    ])
}

fn with(mut key: FlowKey, field: Field, value: u128) -> FlowKey {
    let mut flow = Flow::new(&key);
    field.write(&mut flow, value);
    key = flow.key();
    key
}

fn run(tables: &Tables, key: &FlowKey) -> Translation {
    translate(tables, key, 0, &mut Scratch::default(), true)
}

/// What becomes of a packet-out with these actions.
fn packet_out(tables: &Tables, actions: &[OfAction], key: &FlowKey) -> Translation {
    translate_actions(tables, &actions.into(), key, 0, &mut Scratch::default())
}

fn actions(tables: &Tables, key: &FlowKey) -> Vec<Action> {
    run(tables, key).actions.into_vec()
}

fn to(port: u32) -> Action {
    Action::Output(PortNo(port))
}

fn set_to(field: Field, value: u128) -> Action {
    Action::Set { field, value, mask: field.ones() }
}

/// The bits of these fields.
fn bits(fields: &[Field]) -> KeyMask {
    let mut mask = KeyMask::ZERO;
    fields.iter().for_each(|field| mask.include(&field.mask().key()));
    if fields.contains(&Field::InPort) {
        // Whether the frame goes on with something is looked at with it.
        mask.0[0] = u64::MAX;
    }
    mask
}

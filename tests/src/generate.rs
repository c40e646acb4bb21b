//! Random rules and frames that have much to do with each other: few addresses, few ports, few VLANs. What they need of the linear reference
//! is what it can do.

use std::sync::Arc;

use datapath::key::{Field, FieldRange, Match};
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, FlowModCommand, Rule, VlanMode};

use crate::random::Random;

/// The ports that rules speak of: 1 to this.
pub const PORTS: u32 = 5;

/// How a port carries VLANs.
pub fn vlan_of(port: u32) -> VlanMode {
    match port {
        1 => VlanMode::Access(10),
        2 => VlanMode::Trunk { vlans: (10..=20).collect(), native: None },
        3 => VlanMode::Trunk { vlans: (10..=30).collect(), native: Some(20) },
        _ => VlanMode::default(),
    }
}

const MACS: [u64; 6] = [0x0200_0000_0001, 0x0200_0000_0002, 0x0200_0000_0003, 0xffff_ffff_ffff, 0x0100_5e00_0001, 0x0180_c200_000e];
const ADDRESSES: [[u8; 4]; 4] = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 1, 1], [192, 168, 0, 1]];
const TRANSPORT_PORTS: [u16; 4] = [53, 80, 1000, 65535];
const VLANS: [u16; 4] = [0, 10, 20, 30];

fn mac(random: &mut Random, choices: usize) -> [u8; 6] {
    let bytes = random.one_of(&MACS[..choices]).to_be_bytes();
    bytes[2..].try_into().expect("six bytes")
}

/// A frame: UDP, TCP or ICMP over IPv4 or IPv6, with a VLAN tag or without.
pub fn frame(random: &mut Random) -> Vec<u8> {
    let payload = vec![random.number() as u8; random.one_of(&[0, 5, 20, 300])];
    frame_of(random, &payload)
}

/// A frame with this payload.
pub fn frame_of(random: &mut Random, payload: &[u8]) -> Vec<u8> {
    use etherparse::{PacketBuilder, VlanId};
    let ethernet = PacketBuilder::ethernet2(mac(random, 3), mac(random, MACS.len()));
    let (source, destination) = (random.one_of(&ADDRESSES), random.one_of(&ADDRESSES));
    let (from, to) = (random.one_of(&TRANSPORT_PORTS), random.one_of(&TRANSPORT_PORTS));
    let ttl = random.one_of(&[1, 2, 64]);
    let v6 = |address: [u8; 4]| std::array::from_fn(|i| if i < 12 { 0xfd } else { address[i - 12] });
    let mut frame = Vec::new();
    // The builder's steps differ in type with each protocol.
    macro_rules! upper {
        ($lower:expr) => {
            match random.below(4) {
                0 => $lower.ipv4(source, destination, ttl).udp(from, to).write(&mut frame, payload),
                1 => $lower.ipv4(source, destination, ttl).tcp(from, to, 1, 2).write(&mut frame, payload),
                2 => $lower.ipv4(source, destination, ttl).icmpv4_echo_request(1, 2).write(&mut frame, payload),
                _ => $lower.ipv6(v6(source), v6(destination), ttl).udp(from, to).write(&mut frame, payload),
            }
        };
    }
    let written = if random.once_in(2) {
        upper!(ethernet)
    } else {
        upper!(ethernet.single_vlan(VlanId::try_new(random.one_of(&VLANS)).expect("a VLAN id")))
    };
    written.expect("a vector takes all");
    frame
}

fn matching(random: &mut Random) -> Match {
    let mut matching = Match::ANY;
    if random.once_in(3) {
        matching = matching.with(Field::InPort, u128::from(random.below(u64::from(PORTS)) + 1));
    }
    if random.once_in(4) {
        matching = matching.with_masked(Field::EthDst, random.one_of(&MACS).into(), random.one_of(&[u128::MAX, 0x0100_0000_0000, 3]));
    }
    if random.once_in(6) {
        matching = matching.with(Field::EthSrc, random.one_of(&MACS).into());
    }
    match random.below(8) {
        0 => matching = matching.with(Field::VlanVid, 0),
        1 => matching = matching.with(Field::VlanVid, 0x1000 | u128::from(random.one_of(&VLANS))),
        2 => matching = matching.with_masked(Field::VlanVid, 0x1000, 0x1000),
        _ => {}
    }
    if random.once_in(5) {
        matching = matching.with_masked(Field::Metadata, random.below(4).into(), random.one_of(&[1, 3, u128::MAX]));
    }
    if random.once_in(5) {
        matching = matching.with(Field::Reg0, random.below(3).into());
    }
    let address = |random: &mut Random| u128::from(u32::from_be_bytes(random.one_of(&ADDRESSES)));
    let prefix = |random: &mut Random| u128::from(u32::MAX << random.one_of(&[0, 8, 16, 31]));
    match random.below(4) {
        0 => {
            matching = matching.with(Field::EthType, 0x0800);
            if random.once_in(2) {
                let mask = prefix(random);
                matching = matching.with_masked(Field::Ipv4Dst, address(random) & mask, mask);
            }
            if random.once_in(3) {
                let mask = prefix(random);
                matching = matching.with_masked(Field::Ipv4Src, address(random) & mask, mask);
            }
            if random.once_in(2) {
                matching = matching.with(Field::IpProto, 17).with(Field::UdpDst, random.one_of(&TRANSPORT_PORTS).into());
            }
        }
        1 => {
            matching =
                matching.with(Field::EthType, 0x0800).with(Field::IpProto, 6).with(Field::TcpSrc, random.one_of(&TRANSPORT_PORTS).into())
        }
        2 if random.once_in(2) => matching = matching.with(Field::EthType, 0x86dd),
        _ => {}
    }
    matching
}

/// The tables that rules are in: 0 up to, not including, this.
pub const TABLES: u8 = 4;

fn action(random: &mut Random, table: u8) -> OfAction {
    let last = table == TABLES - 1;
    let to = |port| OfAction::Output { port, max_len: 0xffff };
    let set = |field: Field, value: u128| OfAction::SetField { field, value, mask: field.ones() };
    match random.below(16) {
        0..4 => to(PortNo(random.below(u64::from(PORTS)) as u32 + 1)),
        4 => to(PortNo::NORMAL),
        5 => to(random.one_of(&[PortNo::FLOOD, PortNo::ALL, PortNo::IN_PORT, PortNo::CONTROLLER])),
        6 => set(random.one_of(&[Field::EthDst, Field::EthSrc]), random.one_of(&MACS).into()),
        7 => set(Field::VlanVid, 0x1000 | u128::from(random.one_of(&VLANS))),
        8 => set(random.one_of(&[Field::Ipv4Src, Field::Ipv4Dst]), u32::from_be_bytes(random.one_of(&ADDRESSES)).into()),
        9 => set(random.one_of(&[Field::UdpDst, Field::UdpSrc, Field::TcpDst]), random.one_of(&TRANSPORT_PORTS).into()),
        10 => set(random.one_of(&[Field::IpDscp, Field::VlanPcp]), random.below(8).into()),
        11 => {
            let field = random.one_of(&[Field::Reg0, Field::Metadata]);
            OfAction::SetField { field, value: random.below(4).into(), mask: random.one_of(&[1, 3]) }
        }
        12 => {
            let source =
                FieldRange { field: random.one_of(&[Field::Ipv4Dst, Field::UdpDst, Field::InPort, Field::EthSrc]), offset: 0, bits: 2 };
            OfAction::Move { source, destination: FieldRange { field: Field::Reg0, offset: 0, bits: 2 } }
        }
        13 => OfAction::DecNwTtl,
        14 => OfAction::PopVlan,
        15 if !last => {
            let port = random.one_of(&[PortNo::IN_PORT, PortNo::IN_PORT, PortNo(2)]);
            OfAction::Resubmit { port, table: Some(table + 1 + random.below(u64::from(TABLES - table - 1)) as u8) }
        }
        _ => to(PortNo(1)),
    }
}

/// A flow-mod, most often one that adds a rule. Rules must differ in priority: which of two equals wins is nobody's promise.
pub fn flow_mod(random: &mut Random, rules: &[Arc<Rule>], priority: u16) -> FlowMod {
    let table = random.one_of(&[0, 0, 1, 2, 3]);
    let last = table == TABLES - 1;
    let mut apply: Vec<_> = (0..random.below(4)).map(|_| action(random, table)).collect();
    // Only two tags are parsed, and frames may come with one: a tag that is pushed is popped before the next table, or goes on last.
    let push = OfAction::PushVlan(random.one_of(&[0x8100, 0x88a8]));
    if random.once_in(6) {
        apply.extend([
            push.clone(),
            OfAction::Output { port: PortNo(random.below(u64::from(PORTS)) as u32 + 1), max_len: 0 },
            OfAction::PopVlan,
        ]);
    }
    let mut write = Vec::new();
    if random.once_in(3) {
        write.push(OfAction::Output { port: PortNo(random.below(u64::from(PORTS)) as u32 + 1), max_len: 0 });
    }
    if random.once_in(6) {
        write.push(OfAction::SetField { field: Field::EthSrc, value: MACS[0].into(), mask: Field::EthSrc.ones() });
    }
    if random.once_in(8) {
        write.push(OfAction::DecNwTtl);
    }
    if random.once_in(8) {
        write.push(push);
    }
    let instructions = Instructions {
        meter: None,
        apply,
        clear: random.once_in(10),
        write,
        metadata: random.once_in(4).then(|| (random.below(4), 3)),
        goto: (!last && random.once_in(2)).then(|| table + 1 + random.below(u64::from(TABLES - table - 1)) as u8),
    };
    let fresh = FlowMod { table, matching: matching(random), priority, instructions, ..FlowMod::default() };
    if rules.is_empty() || random.once_in(2) {
        return fresh;
    }
    let old = random.one_of(rules);
    let command = random.one_of(&[
        FlowModCommand::Add,
        FlowModCommand::Modify,
        FlowModCommand::ModifyStrict,
        FlowModCommand::Delete,
        FlowModCommand::DeleteStrict,
        FlowModCommand::DeleteStrict,
    ]);
    // The instructions were made for `table`.
    let instructions = if old.table == table { fresh.instructions } else { old.instructions.clone() };
    FlowMod { command, table: old.table, matching: old.matching.expand(), priority: old.priority, instructions, ..fresh }
}

/// Scatters 0, 1, 2, ... over all priorities, without meeting one twice.
pub fn random_priority(count: u16) -> u16 {
    count.wrapping_mul(40503)
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number")))
}

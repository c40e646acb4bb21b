//! Random rules and frames that have much to do with each other: few addresses, few ports, few VLANs. What they need of the linear reference
//! is what it can do.

use std::sync::Arc;

use datapath::key::{Field, FieldRange, Match};
use datapath::port::PortNo;
use datapath::tables::group::{BucketSpec, GROUP_ANY, GroupCommand, GroupKind, GroupMod};
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::meter::{BandKind, BandSpec, MeterCommand, MeterFlags, MeterMod};
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

/// What frames and rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// VLANs and IP, TTLs that run out, and meters that drop.
    Usual,
    /// These and groups, conjunctions, MPLS, PBB and third VLAN tags; and no TTL that runs out and meters that only remark, for what comes after a frame's end
    /// in a translation that was frozen is not translated.
    All,
}

/// A frame: UDP, TCP or ICMP over IPv4 or IPv6, with a VLAN tag or without.
pub fn frame(random: &mut Random, subject: Subject) -> Vec<u8> {
    let payload = vec![random.number() as u8; random.one_of(&[0, 5, 20, 300])];
    let ttls: &[u8] = if subject == Subject::Usual { &[1, 2, 64] } else { &[64] };
    let frame = frame_of(random, &payload, ttls);
    if subject == Subject::Usual {
        return frame;
    }
    match random.below(12) {
        // Only IPv4 is under MPLS, so that what a pop says comes up is what does.
        0..3 if frame[12..14] == [8, 0] => {
            let mut frame = frame;
            let labels = 1 + random.below(4);
            for at in 0..labels {
                frame.splice(14..14, [0, random.below(3) as u8 + 1, u8::from(at == 0), 64]);
            }
            frame[12..14].copy_from_slice(&[0x88, 0x47]);
            frame
        }
        3 => {
            let header = [&frame[..12], &[0x88, 0xe7, 0, 0, 0, random.below(3) as u8]].concat();
            [header, frame].concat()
        }
        4 => {
            let tags = [0x88, 0xa8, 0, random.one_of(&VLANS) as u8, 0x81, 0, 0, random.one_of(&VLANS) as u8];
            [&frame[..12], &tags, &frame[12..]].concat()
        }
        _ => frame,
    }
}

/// A frame with this payload and one of these TTLs.
pub fn frame_of(random: &mut Random, payload: &[u8], ttls: &[u8]) -> Vec<u8> {
    use etherparse::{PacketBuilder, VlanId};
    let ethernet = PacketBuilder::ethernet2(mac(random, 3), mac(random, MACS.len()));
    let (source, destination) = (random.one_of(&ADDRESSES), random.one_of(&ADDRESSES));
    let (from, to) = (random.one_of(&TRANSPORT_PORTS), random.one_of(&TRANSPORT_PORTS));
    let ttl = random.one_of(ttls);
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
        10 if random.once_in(2) => set(Field::IpDscp, random.one_of(&[0u8, 1, 10, 12, 22, 30]).into()),
        10 => set(Field::VlanPcp, random.below(8).into()),
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

/// The groups that there may be: 1 to this.
pub const GROUPS: u32 = 4;

/// An action that only [`Subject::All`] has, with what it needs to be asked for.
fn further_actions(random: &mut Random, matching: Match, table: u8) -> (Match, Vec<OfAction>) {
    let set = |field: Field, value: u128| OfAction::SetField { field, value, mask: field.ones() };
    let label = |random: &mut Random| set(Field::MplsLabel, u128::from(random.below(3)) << 4 | 1);
    let of_type = |kind: u128| Match::ANY.with(Field::EthType, kind);
    match random.below(12) {
        0 | 1 => {
            let mut push = vec![OfAction::PushMpls(random.one_of(&[0x8847, 0x8848])), label(random), set(Field::MplsTc, 5)];
            push.truncate(1 + random.below(3) as usize);
            (of_type(0x0800), push)
        }
        2..5 => {
            let bottom = random.once_in(2);
            let matching = of_type(random.one_of(&[0x8847, 0x8847, 0x8848])).with(Field::MplsBos, bottom.into());
            let mut actions = Vec::new();
            let ttl = random.one_of(&[OfAction::CopyTtlIn, OfAction::CopyTtlOut, OfAction::DecMplsTtl]);
            if random.once_in(2) {
                actions.push(ttl);
            }
            if random.once_in(3) {
                actions.push(label(random));
            } else {
                actions.push(OfAction::PopMpls(if bottom { 0x0800 } else { 0x8847 }));
                if bottom && random.once_in(2) {
                    actions.extend([set(Field::Ipv4Dst, 0x0a00_0001), OfAction::DecNwTtl]);
                }
            }
            (matching, actions)
        }
        5 => (matching, vec![OfAction::PushPbb, set(Field::PbbIsid, random.below(3).into())]),
        6 => (of_type(0x88e7), vec![OfAction::PopPbb]),
        7 => (matching, vec![OfAction::PushVlan(random.one_of(&[0x8100, 0x88a8]))]),
        8 => {
            let list = (0..1 + random.below(3)).map(|_| action(random, table)).collect::<Vec<_>>();
            (matching, vec![OfAction::Clone(list.into())])
        }
        9 => {
            let range = |field, bits| FieldRange { field, offset: 0, bits };
            let pop = OfAction::StackPop(range(Field::Reg0, 2));
            let push = OfAction::StackPush(range(random.one_of(&[Field::EthSrc, Field::Metadata]), 2));
            let mut list = vec![push, pop];
            list.rotate_left(random.below(2) as usize);
            (matching, list)
        }
        10 if random.once_in(3) => (matching, vec![OfAction::Exit]),
        _ => (matching, vec![OfAction::Group(1 + random.below(u64::from(GROUPS)) as u32)]),
    }
}

/// A rule that is a clause of a conjunction.
fn clause(random: &mut Random) -> Vec<OfAction> {
    (0..1 + random.below(2))
        .map(|_| OfAction::Conjunction { id: 1 + random.below(3) as u32, clause: random.below(2) as u8, clauses: 2 })
        .collect()
}

/// A change to the groups.
pub fn group_mod(random: &mut Random) -> GroupMod {
    let group = 1 + random.below(u64::from(GROUPS)) as u32;
    let command = if random.once_in(5) { GroupCommand::Delete } else { GroupCommand::AddOrModify };
    let kind = random.one_of(&[GroupKind::All, GroupKind::Select, GroupKind::Indirect, GroupKind::FastFailover]);
    let count = if kind == GroupKind::Indirect { 1 } else { random.below(4) };
    let buckets = (0..count).map(|_| {
        let mut actions: Vec<_> = (0..random.below(4))
            .map(|_| action(random, 0))
            .filter(|action| matches!(action, OfAction::Output { .. } | OfAction::SetField { .. } | OfAction::DecNwTtl | OfAction::PopVlan))
            .collect();
        if random.once_in(5) {
            actions.push(OfAction::PushVlan(0x8100));
        }
        if random.once_in(5) {
            actions.push(OfAction::Group(1 + random.below(u64::from(GROUPS)) as u32));
        }
        BucketSpec {
            weight: random.below(3) as u16,
            watch_port: if kind == GroupKind::FastFailover || random.once_in(3) { PortNo(1 + random.below(6) as u32) } else { PortNo::ANY },
            watch_group: GROUP_ANY,
            actions: actions.into(),
        }
    });
    let buckets = buckets.collect();
    GroupMod { command, group, kind, buckets }
}

/// The meters that there may be: 1 to this.
const METERS: u32 = 3;

/// A change to the meters. So little time passes in a history that a meter's first frames pass, as many as its burst, and no others.
pub fn meter_mod(random: &mut Random, subject: Subject) -> MeterMod {
    let kind = if subject == Subject::Usual { BandKind::Drop } else { BandKind::DscpRemark(1 + random.below(2) as u8) };
    MeterMod {
        command: random.one_of(&[MeterCommand::Add, MeterCommand::Add, MeterCommand::Modify, MeterCommand::Delete]),
        meter: 1 + random.below(u64::from(METERS)) as u32,
        flags: MeterFlags(MeterFlags::PKTPS.0 | MeterFlags::BURST.0),
        bands: vec![BandSpec { kind, rate: 1, burst: 1 + random.below(20) as u32 }],
    }
}

/// A flow-mod, most often one that adds a rule. Rules must differ in priority: which of two equals wins is nobody's promise.
pub fn flow_mod(random: &mut Random, subject: Subject, rules: &[Arc<Rule>], priority: u16) -> FlowMod {
    let table = random.one_of(&[0, 0, 1, 2, 3]);
    let last = table == TABLES - 1;
    let mut matching = matching(random);
    let mut apply: Vec<_> = (0..random.below(4)).map(|_| action(random, table)).collect();
    if subject == Subject::All && random.once_in(2) {
        let (also, further) = further_actions(random, matching, table);
        matching = also;
        // What is known of a frame's headers is not known behind a change of type.
        apply.retain(|action| matches!(action, OfAction::Output { .. } | OfAction::Resubmit { .. }));
        apply.splice(0..0, further);
    }
    if subject == Subject::All && random.once_in(8) {
        matching = matching.with(Field::ConjId, 1 + u128::from(random.below(3)));
    }
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
        meter: random.once_in(6).then(|| 1 + random.below(u64::from(METERS)) as u32),
        apply: apply.into(),
        clear: random.once_in(10),
        write: write.into(),
        metadata: random.once_in(4).then(|| (random.below(4), 3)),
        goto: (!last && random.once_in(2)).then(|| table + 1 + random.below(u64::from(TABLES - table - 1)) as u8),
    };
    let instructions = match subject == Subject::All && random.once_in(8) {
        true => Instructions { apply: clause(random).into(), ..Instructions::default() },
        false => instructions,
    };
    let fresh = FlowMod { table, matching, priority, instructions, ..FlowMod::default() };
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
    // The instructions were made for `table`, and what they do with MPLS for what the match says is under it.
    let mut mpls = false;
    fresh.instructions.each_action(&mut |action| mpls |= matches!(action, OfAction::PushMpls(_) | OfAction::PopMpls(_)));
    let instructions = if old.table == table && !mpls { fresh.instructions } else { old.instructions.clone() };
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

//! Random frames of all the protocols that OpenFlow knows, and random rules that are made of them: a rule asks for fields that some frame has, with that
//! frame's values, so that rules and frames meet. Of what rules do, it is what Open vSwitch can do, too.

use datapath::key::{self, Field, FieldRange, Flow, FlowKey, Match};
use datapath::port::PortNo;
use datapath::tables::FlowMod;
use datapath::tables::group::{BucketSpec, GROUP_ALL, GROUP_ANY, GroupCommand, GroupKind, GroupMod};
use datapath::tables::instruction::{
    Bundle, BundleAlgorithm, HashFields, Instructions, Learn, LearnSource, LearnSpec, LearnTarget, OfAction,
};
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};

use crate::linear::sum;
use crate::random::Random;

/// The ports that rules speak of: 1 to this.
pub const PORTS: u32 = 5;
/// The tables that rules are in: 0 up to, not including, this. The last one is what is learned.
pub const TABLES: u8 = 4;
const LEARNED: u8 = TABLES - 1;
/// The groups that there may be: 1 to this.
const GROUPS: u32 = 4;

const MACS: [[u8; 6]; 4] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3], [0x01, 0, 0x5e, 0, 0, 1]];
const HOSTS: [u8; 3] = [1, 2, 9];

/// A frame with the flow that its key is.
#[derive(Clone, Debug)]
pub struct Met {
    /// Its bytes.
    pub frame: Vec<u8>,
    /// What rules see of it, when it comes in through port 1.
    pub flow: Flow,
}

/// A frame with up to so many VLAN tags.
pub fn frame(random: &mut Random, tags: u64) -> Met {
    let frame = tagged(random, tags);
    let mut key = FlowKey::ZERO;
    key::extract(&frame, frame.len(), PortNo(1), &mut key).expect("an Ethernet frame");
    Met { flow: Flow::new(&key), frame }
}

fn tagged(random: &mut Random, tags: u64) -> Vec<u8> {
    let mut frame = untagged(random);
    match random.below(6) {
        0 if tags > 0 => drop(frame.splice(12..12, [0x81, 0, random.one_of(&[0x00, 0x60]), random.one_of(&[10, 20])])),
        1 if tags > 1 => drop(frame.splice(12..12, [0x88, 0xa8, 0, 30, 0x81, 0, 0x20, random.one_of(&[10, 20])])),
        _ => {}
    }
    frame
}

fn untagged(random: &mut Random) -> Vec<u8> {
    let (src, dst) = (random.one_of(&MACS[..3]), random.one_of(&MACS));
    let ethernet = || PacketBuilder::ethernet2(src, dst);
    let hosts = [random.one_of(&HOSTS), random.one_of(&HOSTS)];
    let v4 = hosts.map(|host| [10, 0, host / 8, host]);
    let v6 = hosts.map(|host| std::array::from_fn(|i| if i == 15 { host } else { 0xfd }));
    let ports = [random.one_of(&[53, 80, 1000]), random.one_of(&[53, 80, 1000])];
    // None expires: in Open vSwitch, only the list of actions that decrements an expired TTL ends, here the frame does.
    let (ttl, payload) = (random.one_of(&[32, 64]), [0x5a; 26]);
    let mut frame = Vec::new();
    let lower = |random: &mut Random| {
        let ip = ethernet();
        if random.once_in(3) { ip.ipv6(v6[0], v6[1], ttl) } else { ip.ipv4(v4[0], v4[1], ttl) }
    };
    let written = match random.below(12) {
        0..3 => lower(random).udp(ports[0], ports[1]).write(&mut frame, &payload),
        3..6 => {
            let tcp = lower(random).tcp(ports[0], ports[1], 1, 2);
            let tcp = if random.once_in(2) { tcp.syn() } else { tcp.ack(7) };
            tcp.write(&mut frame, &payload)
        }
        6 => ethernet().ipv4(v4[0], v4[1], ttl).icmpv4_raw(random.one_of(&[0, 3, 8]), 0, [0; 4]).write(&mut frame, &payload),
        7 => ethernet().ipv6(v6[0], v6[1], 255).icmpv6_raw(random.one_of(&[1, 128]), 0, [0; 4]).write(&mut frame, &payload),
        8 => {
            let arp = ArpPacket::new(
                ArpHardwareId::ETHERNET,
                EtherType::IPV4,
                if random.once_in(2) { ArpOperation::REQUEST } else { ArpOperation::REPLY },
                &src,
                &v4[0],
                &[0; 6],
                &v4[1],
            );
            ethernet().arp(arp.expect("addresses of equal length")).write(&mut frame)
        }
        9 => {
            frame = [&dst[..], &src, &[0x12, 0x34], &payload, &payload].concat();
            return frame;
        }
        10 => return neighbour_discovery(random, src, dst, v6),
        _ => {
            lower(random).udp(ports[0], ports[1]).write(&mut frame, &payload).expect("a vector takes all");
            if frame[12] == 8 {
                let labels = 1 + random.below(2);
                for at in 0..labels {
                    frame.splice(14..14, [0, random.below(2) as u8 + 1, u8::from(at == 0), 64]);
                }
                frame[12..14].copy_from_slice(&[0x88, 0x47]);
            }
            return frame;
        }
    };
    written.expect("a vector takes all");
    frame
}

/// A solicitation or an advertisement with its option.
fn neighbour_discovery(random: &mut Random, src: [u8; 6], dst: [u8; 6], [from, to]: [[u8; 16]; 2]) -> Vec<u8> {
    let (kind, option) = random.one_of(&[(135, 1), (136, 2)]);
    let mut message = [&[kind, 0, 0, 0, 0, 0, 0, 0], &to[..], &[option, 1], &src].concat();
    let pseudo = [&from[..], &to, &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58]].concat();
    let checksum = !sum(&message, u32::from(sum(&pseudo, 0)));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = [&[0x60, 0, 0, 0, 0, message.len() as u8, 58, 255], &from[..], &to].concat();
    [&dst[..], &src, &[0x86, 0xdd], &header, &message].concat()
}

/// Whether Open vSwitch has a field.
fn is_common(field: Field) -> bool {
    !matches!(field, Field::PbbIsid | Field::PbbUca | Field::Ipv6Exthdr | Field::InPort | Field::InPhyPort | Field::ConjId)
}

/// How many bits of a field Open vSwitch moves: of `vlan_vid`, not the one that says that there is a tag.
fn bits_of(field: Field) -> u8 {
    if field == Field::VlanVid { 12 } else { field.bits() }
}

/// Random rules made of some frames.
#[derive(Debug)]
pub struct Rules<'a> {
    /// What they are made of.
    pub met: &'a [Met],
    /// Whether they push a VLAN tag, and no more than one: Open vSwitch loses the third tag of a frame.
    pub pushes: bool,
    /// Whether some end the pipeline with `exit`, and so none writes an action set: Open vSwitch says that this would be carried out, but does not do it.
    pub exits: bool,
    /// What they are chosen by.
    pub random: &'a mut Random,
}

impl Rules<'_> {
    /// A match of some frames, most often.
    fn matching(&mut self) -> Match {
        let flow = self.random.one_of(self.met).flow;
        let fields: Vec<_> = Field::ALL.iter().copied().filter(|field| is_common(*field) && field.applies_to(&flow)).collect();
        let mut matching = Match::ANY;
        for _ in 0..self.random.below(4) {
            let field = self.random.one_of(&fields);
            if field.info().view {
                continue;
            }
            for required in field.info().prerequisite.requirements() {
                matching = matching.with_masked(required.field, required.field.read(&flow), required.mask);
            }
            let (value, mask) = match field {
                Field::Metadata | Field::Reg0 | Field::Reg1 | Field::PktMark => (self.random.below(3).into(), 3),
                field if field.is_state() => continue,
                field => (field.read(&flow), self.mask(field)),
            };
            matching = matching.with_masked(field, value & mask, mask & field.ones());
        }
        matching
    }

    fn mask(&mut self, field: Field) -> u128 {
        let prefix = u128::MAX << (u32::from(field.bits()) / 2);
        if field.info().maskable { self.random.one_of(&[u128::MAX, u128::MAX, prefix, 1, 3]) } else { u128::MAX }
    }

    /// A value for a field, most often one that some frame has.
    fn value(&mut self, field: Field) -> u128 {
        let flow = self.random.one_of(self.met).flow;
        let value = match field {
            field if field.is_state() => self.random.below(3).into(),
            // Of what ARP can ask for, Open vSwitch knows 8 bits.
            Field::ArpOp => self.random.below(256).into(),
            field if field.applies_to(&flow) && self.random.below(3) > 0 => field.read(&flow),
            _ => u128::from(self.random.number()) << 64 | u128::from(self.random.number()),
        };
        value & field.ones()
    }

    fn port(&mut self) -> PortNo {
        PortNo(1 + self.random.below(PORTS.into()) as u32)
    }

    fn range(&mut self, field: Field, bits: u8) -> FieldRange {
        FieldRange { field, offset: self.random.below(u64::from(bits_of(field) - bits) + 1) as u8, bits }
    }

    /// A field that frames which the rule is for have.
    fn field(&mut self, matching: &Match, writable: bool) -> Field {
        // Open vSwitch adds a tag to frames without one when it moves something into `vlan_vid`.
        let prerequisite = |field| if field == Field::VlanVid { Field::VlanPcp } else { field };
        // Of a frame with two tags, it takes both when `vlan_tci` is written with one that is none.
        let target = |field: Field| field.info().writable && field != Field::VlanTci;
        let fits = |field: &Field| is_common(*field) && matching.permits(prerequisite(*field)) && (!writable || target(*field));
        let fields: Vec<_> = Field::ALL.iter().copied().filter(fits).collect();
        let rare = |field: Field| field.is_state() || matches!(field, Field::InPortNxm | Field::TunnelId);
        let field = self.random.one_of(&fields);
        if rare(field) && self.random.below(4) > 0 { self.random.one_of(&[Field::EthDst, Field::EthSrc, Field::Reg0]) } else { field }
    }

    /// Actions that belong together, for the frames of a match.
    fn actions(&mut self, matching: &Match, table: u8) -> Vec<OfAction> {
        let to = |port| OfAction::Output { port, max_len: 0xffff };
        let set = |field: Field, value: u128| OfAction::SetField { field, value, mask: field.ones() };
        let has = |field| matching.permits(field);
        vec![match self.random.below(22) {
            0..5 => to(self.port()),
            5 => to(PortNo::NORMAL),
            6 => to(self.random.one_of(&[PortNo::FLOOD, PortNo::ALL, PortNo::IN_PORT])),
            7..10 => {
                let field = self.field(matching, true);
                let mask = if field.info().maskable && self.random.once_in(3) { 0xff & field.ones() } else { field.ones() };
                // A VLAN id is written with the bit that says that there is one, or not at all.
                let present = if field == Field::VlanVid { 0x1000 } else { 0 };
                OfAction::SetField { field, value: (self.value(field) | present) & mask, mask }
            }
            10 | 11 => {
                let (from, into) = (self.field(matching, false), self.field(matching, true));
                let bits = 1 + self.random.below(bits_of(from).min(bits_of(into)).into()) as u8;
                let (from, into) = (self.range(from, bits), self.range(into, bits));
                match self.random.below(3) {
                    0 => return vec![OfAction::StackPush(from), OfAction::StackPop(into)],
                    _ => OfAction::Move { source: from, destination: into },
                }
            }
            12 if has(Field::NwTtl) => self.random.one_of(&[OfAction::DecNwTtl, OfAction::DecNwTtl, OfAction::SetNwTtl(9)]),
            13 if has(Field::VlanPcp) => OfAction::PopVlan,
            13 if self.pushes && table == 0 => {
                let vid = set(Field::VlanVid, 0x1000 | u128::from(self.random.one_of(&[10u16, 20])));
                // The priority of a new tag would be the old one's, as the specification has it, or Open vSwitch's 0.
                return vec![OfAction::PushVlan(self.random.one_of(&[0x8100, 0x88a8])), vid, set(Field::VlanPcp, 5)];
            }
            14 if has(Field::MplsLabel) => {
                let kind = if matching.get(Field::MplsBos).is_some_and(|bos| bos.value == 1) { 0x0800 } else { 0x8847 };
                let ttl = [OfAction::DecMplsTtl, OfAction::SetMplsTtl(33)];
                if self.random.once_in(2) { OfAction::PopMpls(kind) } else { self.random.one_of(&ttl) }
            }
            14 if has(Field::Ipv4Src) => {
                // Label, traffic class and TTL of a new entry are Open vSwitch's own idea, so they are set.
                let label = set(Field::MplsLabel, 1 + u128::from(self.random.below(2)));
                return vec![OfAction::PushMpls(0x8847), label, set(Field::MplsTc, 3), OfAction::SetMplsTtl(60)];
            }
            15 | 16 if table < LEARNED => {
                let port = if self.random.once_in(4) { self.port() } else { PortNo::IN_PORT };
                let after = table + 1 + self.random.below((TABLES - table - 1).into()) as u8;
                OfAction::Resubmit { port, table: Some(after) }
            }
            17 => OfAction::Group(1 + self.random.below(GROUPS.into()) as u32),
            18 => {
                let inner: Vec<_> = (0..2).flat_map(|_| self.simple_actions(matching)).collect();
                OfAction::Clone(inner.into())
            }
            19 if table < LEARNED => self.learn(matching),
            20 if self.exits => OfAction::Exit,
            20 => OfAction::Note([1, 2, 3, 4, 5, 6].into()),
            21 => OfAction::Bundle(
                Bundle {
                    algorithm: BundleAlgorithm::ActiveBackup,
                    fields: HashFields::EthSrc,
                    basis: 0,
                    members: [self.port(), self.port()].into(),
                    destination: self.random.once_in(2).then_some(FieldRange { field: Field::Reg1, offset: 0, bits: 16 }),
                }
                .into(),
            ),
            _ => to(self.port()),
        }]
    }

    /// Actions that change no header's place.
    fn simple_actions(&mut self, matching: &Match) -> Vec<OfAction> {
        loop {
            let actions = self.actions(matching, LEARNED);
            let simple = |action: &OfAction| matches!(action, OfAction::Output { .. } | OfAction::SetField { .. } | OfAction::Move { .. });
            if actions.iter().all(simple) {
                return actions;
            }
        }
    }

    fn learn(&mut self, matching: &Match) -> OfAction {
        let whole = |field: Field| FieldRange { field, offset: 0, bits: field.bits() };
        let same = |source: Field, target: Field| LearnSpec {
            source: LearnSource::Field(whole(source)),
            target: LearnTarget::Match(whole(target)),
            bits: target.bits().into(),
        };
        let mut specs = vec![same(Field::EthSrc, self.random.one_of(&[Field::EthDst, Field::EthSrc]))];
        if matching.permits(Field::Ipv4Src) {
            specs.push(LearnSpec { source: LearnSource::Value(0x0800), target: LearnTarget::Match(whole(Field::EthType)), bits: 16 });
            specs.push(same(Field::Ipv4Src, Field::Ipv4Dst));
        }
        if self.random.once_in(2) {
            let target = LearnTarget::Load(FieldRange { field: Field::Reg0, offset: 0, bits: 8 });
            specs.push(LearnSpec { source: LearnSource::Value(self.random.below(3).into()), target, bits: 8 });
        }
        let in_port = LearnSource::Field(whole(Field::InPortNxm));
        specs.push(LearnSpec { source: in_port, target: LearnTarget::Output, bits: 16 });
        let learn = Learn {
            table: LEARNED,
            priority: 7,
            cookie: 0x1ea4,
            idle_timeout: 0,
            hard_timeout: 0,
            send_flow_removed: false,
            delete_learned: false,
            specs: specs.into(),
        };
        OfAction::Learn(learn.into())
    }

    /// A rule. Rules must differ in priority: which of two equals wins is nobody's promise.
    pub fn rule(&mut self, priority: u16) -> FlowMod {
        let table = self.random.one_of(&[0, 0, 0, 1, 2]);
        let mut matching = self.matching();
        if self.random.once_in(10) {
            let clauses = (0..1 + self.random.below(2))
                .map(|_| OfAction::Conjunction { id: 1 + self.random.below(2) as u32, clause: self.random.below(2) as u8, clauses: 2 })
                .collect();
            let instructions = Instructions { apply: clauses, ..Instructions::default() };
            // Clauses make up a conjunction only if they have one priority.
            return FlowMod { table, matching, priority: 1 + self.random.below(3) as u16, instructions, ..FlowMod::default() };
        }
        if self.random.once_in(10) {
            matching = matching.with(Field::ConjId, 1 + u128::from(self.random.below(2)));
        }
        let apply = loop {
            let apply: Vec<_> = (0..self.random.below(4)).flat_map(|_| self.actions(&matching, table)).collect();
            if apply.iter().filter(|action| matches!(action, OfAction::PushVlan(_))).count() < 2 {
                break apply;
            }
        };
        let writes = !self.exits;
        let mut write = Vec::new();
        if writes && self.random.once_in(3) {
            let kinds = self.simple_actions(&matching);
            write.extend(kinds.into_iter().filter(|action| !matches!(action, OfAction::Output { port: PortNo::NORMAL, .. })));
        }
        if writes && self.random.once_in(4) {
            write.push(OfAction::Output { port: self.port(), max_len: 0 });
        }
        if writes && self.random.once_in(8) {
            write.push(OfAction::Group(1 + self.random.below(GROUPS.into()) as u32));
        }
        let instructions = Instructions {
            meter: None,
            apply: apply.into(),
            clear: self.random.once_in(10),
            write: write.into(),
            metadata: self.random.once_in(5).then(|| (self.random.below(3), 3)),
            goto: self.random.once_in(2).then(|| table + 1 + self.random.below((TABLES - table - 1).into()) as u8),
        };
        FlowMod { table, matching, priority, instructions, ..FlowMod::default() }
    }

    /// The groups.
    pub fn groups(&mut self) -> Vec<GroupMod> {
        (1..=GROUPS).map(|group| self.group(group)).collect()
    }

    fn group(&mut self, group: u32) -> GroupMod {
        let kind = self.random.one_of(&[GroupKind::All, GroupKind::Indirect, GroupKind::FastFailover]);
        let count = if kind == GroupKind::Indirect { 1 } else { 1 + self.random.below(3) };
        let bucket = |_| {
            let mut actions: Vec<_> = (0..2).flat_map(|_| self.simple_actions(&Match::ANY)).collect();
            actions.retain(|action| !matches!(action, OfAction::Move { .. }));
            if group > 1 && self.random.once_in(4) {
                actions.push(OfAction::Group(1 + self.random.below(u64::from(group) - 1) as u32));
            }
            // A port that there is, or one that there is not, and so is down.
            let watch_port =
                if kind == GroupKind::FastFailover { PortNo(1 + self.random.below(u64::from(PORTS) + 3) as u32) } else { PortNo::ANY };
            BucketSpec { weight: 0, watch_port, watch_group: GROUP_ANY, actions: actions.into() }
        };
        GroupMod { command: GroupCommand::Add, group, kind, buckets: (0..count).map(bucket).collect() }
    }
}

/// A rule above all others: frames with this Ethernet type go to the last port, which no other rule names.
pub fn last_rule(kind: [u8; 2]) -> FlowMod {
    let apply = [OfAction::Output { port: PortNo(PORTS + 1), max_len: 0 }].into();
    FlowMod {
        priority: u16::MAX,
        matching: Match::ANY.with(Field::EthType, u16::from_be_bytes(kind).into()),
        instructions: Instructions { apply, ..Instructions::default() },
        ..FlowMod::default()
    }
}

/// A table's table-miss rule. Without it, Open vSwitch would carry out the action set of a frame for which it finds no rule; the specification has it dropped.
pub fn miss_rule(table: u8) -> FlowMod {
    FlowMod { table, priority: 0, ..FlowMod::default() }
}

/// Deletes all groups.
pub fn no_groups() -> GroupMod {
    GroupMod { command: GroupCommand::Delete, group: GROUP_ALL, kind: GroupKind::All, buckets: Vec::new() }
}

//! The promise of the mask: what agrees in it has the same actions.

use proptest::prelude::*;

use super::*;
use crate::key::{FieldRange, KEY_WORDS, Prerequisite, Words, vlan};

/// Pseudo-random choices from one seed (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// A value of a field, from so few that rules and frames meet.
    fn value(&mut self, field: Field) -> u128 {
        let value = match field {
            Field::InPort | Field::InPortNxm => return 1 + self.below(5) as u128,
            Field::EthType => return self.of(&[0x0800, 0x0800, 0x86dd, 0x0806, 0x8847, 0x88e7, 0x1234]),
            Field::IpProto => return self.of(&[6, 6, 17, 132, 1, 58]),
            Field::Icmpv6Type => return self.of(&[135, 136, 1]),
            Field::Icmpv6Code => return self.below(2) as u128,
            Field::VlanVid | Field::VlanTci => self.of(&[0, 0x1000, 0x1001, 0x1002]),
            Field::EthDst | Field::EthSrc => self.of(&[A, B, A + B, 0xffff_ffff_ffff, 0x0180_c200_0001]),
            Field::NwTtl | Field::MplsTtl => self.of(&[0, 1, 2, 3, 64]),
            // Most frames are whole.
            Field::IpFrag => self.of(&[0, 0, 0, 0, 1, 3]),
            _ => self.of(&[0, 1, 2, 0x5555_5555_5555_5555_5555, u128::MAX]),
        };
        value & field.ones()
    }

    fn field(&mut self) -> Field {
        // Half of the fields are registers: ask for the others more often.
        loop {
            let field = self.of(Field::ALL);
            if !field.is_state() || self.one_in(4) {
                return field;
            }
        }
    }

    fn key(&mut self) -> FlowKey {
        let mut flow = Flow::ZERO;
        for &field in Field::ALL.iter().filter(|field| !field.is_state()) {
            let value = self.value(field);
            if field.applies_to(&flow) {
                field.write(&mut flow, value);
            }
        }
        if self.one_in(2) && vlan::outer(&flow).is_some() {
            let inner = vlan::Tag::new(0x8100, self.below(3) as u16);
            let outer = vlan::outer(&flow);
            vlan::set(&mut flow, outer, Some(inner));
        }
        flow.key()
    }

    /// Asks for some fields, and for what they need.
    fn matching(&mut self) -> Match {
        let mut matching = Match::ANY;
        for _ in 0..self.below(4) {
            let field = self.field();
            for required in field.info().prerequisite.requirements() {
                if let Some(value) = required.values.first() {
                    matching = matching.with_masked(required.field, *value, required.mask);
                }
            }
            let value = self.value(field);
            let mask = if field.info().maskable && self.one_in(2) { self.of(&[1, 3, 0xf0, !1]) } else { u128::MAX };
            matching = matching.with_masked(field, value, mask);
        }
        matching
    }

    /// Also asks for what an action needs.
    fn permit(&mut self, mut matching: Match, action: &OfAction) -> Match {
        let fields = match action {
            OfAction::SetField { field, .. } => [*field; 2],
            OfAction::Load { destination, .. } => [destination.field; 2],
            OfAction::Move { source, destination } => [source.field, destination.field],
            OfAction::SetNwTtl(_) | OfAction::DecNwTtl => [Field::NwTtl; 2],
            OfAction::PopVlan => [Field::VlanPcp; 2],
            OfAction::PopMpls(_) | OfAction::SetMplsTtl(_) | OfAction::DecMplsTtl | OfAction::CopyTtlIn | OfAction::CopyTtlOut => {
                [Field::MplsLabel; 2]
            }
            OfAction::PopPbb => [Field::PbbIsid; 2],
            _ => return matching,
        };
        for field in fields {
            for required in field.info().prerequisite.requirements() {
                if !matching.permits(field) && !required.values.is_empty() {
                    matching = matching.with_masked(required.field, self.of(required.values), required.mask);
                }
            }
        }
        matching
    }

    fn range(&mut self, field: Field, bits: u8) -> FieldRange {
        FieldRange { field, offset: self.below(usize::from(field.bits() - bits) + 1) as u8, bits }
    }

    pub(super) fn action(&mut self) -> OfAction {
        let common =
            [Field::EthDst, Field::VlanVid, Field::VlanTci, Field::Ipv4Src, Field::TcpDst, Field::NwTtl, Field::IpDscp, Field::Reg1];
        let mut field = self.of(&common);
        if self.one_in(2) {
            field = self.field();
        }
        if !field.info().writable {
            field = Field::EthSrc;
        }
        match self.below(24) {
            20 => OfAction::PushMpls(self.of(&[0x8847, 0x8848])),
            21 => OfAction::PopMpls(self.of(&[0x0800, 0x86dd, 0x8847])),
            22 => self.of(&[OfAction::PushPbb, OfAction::PopPbb]),
            23 => self.of(&[OfAction::DecMplsTtl, OfAction::SetMplsTtl(9), OfAction::CopyTtlIn, OfAction::CopyTtlOut]),
            0..4 => output(1 + self.below(5) as u32),
            4 => output(PortNo::IN_PORT.0),
            5 => output(self.of(&[PortNo::ALL.0, PortNo::FLOOD.0, PortNo::CONTROLLER.0])),
            6 => output(PortNo::NORMAL.0),
            7 => OfAction::PushVlan(self.of(&[0x8100, 0x88a8])),
            8 => OfAction::PopVlan,
            9 => OfAction::DecNwTtl,
            10 => OfAction::SetNwTtl(self.below(3) as u8),
            11 | 12 => resubmit(self.below(4) as u8),
            13 => OfAction::Resubmit { port: PortNo(1 + self.below(5) as u32), table: Some(self.below(4) as u8) },
            14 | 15 => {
                let source = self.field();
                let bits = 1 + self.below(usize::from(source.bits().min(field.bits()))) as u8;
                OfAction::Move { source: self.range(source, bits), destination: self.range(field, bits) }
            }
            16 => {
                let bits = 1 + self.below(usize::from(field.bits().min(64))) as u8;
                OfAction::Load { destination: self.range(field, bits), value: self.next() & u64::MAX >> (64 - bits) }
            }
            _ => {
                let mask = if self.one_in(2) { field.ones() } else { self.of(&[1, 0xf0, 3]) & field.ones() };
                OfAction::SetField { field, value: self.value(field) & mask, mask }
            }
        }
    }

    fn actions(&mut self) -> Vec<OfAction> {
        (0..self.below(5)).map(|_| self.action()).collect()
    }

    fn instructions(&mut self, table: u8) -> Instructions {
        Instructions {
            meter: None,
            apply: self.actions().into(),
            clear: self.one_in(8),
            write: if self.one_in(3) { self.actions().into() } else { [].into() },
            metadata: self.one_in(4).then_some((1, 3)),
            goto: (table < 3 && self.one_in(2)).then_some(table + 1),
        }
    }

    /// Tables with rules and learned addresses, and ports of all kinds.
    fn tables(&mut self) -> Tables {
        let mut tables = switch(4);
        for no in 1..=4 {
            let vlan = match self.below(4) {
                0 => VlanMode::Access(self.below(3) as u16),
                1 => VlanMode::Trunk { vlans: [1].into_iter().collect(), native: None },
                _ => VlanMode::default(),
            };
            tables.set_vlan(PortNo(no), vlan).expect("there is such a port");
            if self.one_in(4) {
                let config = [PortConfig::NO_FWD, PortConfig::NO_FLOOD, PortConfig::NO_PACKET_IN, PortConfig::NO_RECV];
                configure(&mut tables, no, self.of(&config));
            }
        }
        tables.set_invalid_ttl_to_controller(self.one_in(2));
        tables.set_misses_to_controller(self.one_in(4));
        tables.macs().learn(0, A as u64, PortNo(1), 0);
        tables.macs().learn(1, B as u64, PortNo(2), 0);
        for _ in 0..50 {
            let table = self.below(4) as u8;
            let instructions = self.instructions(table);
            let priority = self.below(5) as u16;
            let mut matching = self.matching();
            for action in instructions.apply.iter().chain(instructions.write.iter()) {
                matching = self.permit(matching, action);
            }
            // Rules that contradict themselves are refused; there are enough others.
            let _ = tables.flow_mod(&FlowMod { table, priority, matching, instructions, ..FlowMod::default() }, 0);
        }
        tables
    }
}

const A: u128 = 0x0200_0000_000a;
const B: u128 = 0x0200_0000_000b;

/// What is translated: frames through the tables, or a packet-out's actions, which no flow-mod's checks have tamed.
struct Case {
    tables: Tables,
    list: Option<OfActions>,
    scratch: Scratch,
}

impl Case {
    fn run(&mut self, key: &FlowKey) -> Translation {
        match &self.list {
            None => translate(&self.tables, key, 0, &mut self.scratch, false),
            Some(list) => translate_actions(&self.tables, list, key, 0, &mut self.scratch),
        }
    }

    fn check_same(&mut self, key: &FlowKey, other: &FlowKey, expected: &Translation) {
        let found = self.run(other);
        assert_eq!(found.actions, expected.actions, "{key:x?}\n{other:x?}");
        assert_eq!((found.reason, found.mask), (expected.reason, expected.mask), "{key:x?}\n{other:x?}");
        let same_rules = found.effects.credits.iter().zip(&expected.effects.credits).all(|(a, b)| Arc::ptr_eq(a, b));
        assert!(same_rules && found.effects.credits.len() == expected.effects.credits.len());
        assert_eq!(found.effects.sightings, expected.effects.sightings);
        // A packet-out learns each time, and is not cached: what it depended on changes with that.
        if self.list.is_none() {
            assert_eq!(found.effects.dependencies, expected.effects.dependencies);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn bits_outside_the_mask_change_nothing(seed: u64) {
        let mut random = Random(seed);
        let list = random.one_in(2).then(|| random.actions());
        let mut case = Case { tables: random.tables(), list: list.map(Into::into), scratch: Scratch::default() };
        for round in 0..20 {
            let key = random.key();
            // A packet-out teaches: what it learns the first time, it knows the second time.
            case.run(&key);
            let expected = case.run(&key);
            case.check_same(&key, &key.masked(&expected.mask), &expected);
            for _ in 0..20 {
                let noise: FlowKey = Words(std::array::from_fn(|_| random.next()));
                let other = Words(std::array::from_fn(|i| key.0[i] ^ noise.0[i] & !expected.mask.0[i]));
                case.check_same(&key, &other, &expected);
            }
            for bit in (0..KEY_WORDS * 64).filter(|_| round == 0) {
                if expected.mask.0[bit / 64] >> (bit % 64) & 1 == 0 {
                    let mut other = key;
                    other.0[bit / 64] ^= 1 << (bit % 64);
                    case.check_same(&key, &other, &expected);
                }
            }
        }
    }
}

/// The test above would prove little if the random rules did nothing.
#[test]
fn random_tables_do_all_sorts_of_things() {
    let (mut forwarded, mut copied, mut set, mut narrow) = (0, 0, 0, 0);
    for seed in 0..100 {
        let mut random = Random(seed);
        let tables = random.tables();
        for _ in 0..30 {
            let found = run(&tables, &random.key());
            let has = |is: fn(&Action) -> bool| usize::from(found.actions.iter().any(is));
            forwarded += has(|action| matches!(action, Action::Output(_)));
            copied += has(|action| matches!(action, Action::Copy(_)));
            set += has(|action| matches!(action, Action::Set { .. }));
            narrow += usize::from(found.mask.occupied().count_ones() > 3);
        }
    }
    assert!(forwarded > 400 && copied > 20 && set > 120 && narrow > 600, "{forwarded} {copied} {set} {narrow}");
}

/// Requirements of fields are examined one after another, as far as they hold.
#[test]
fn prerequisites_are_examined_no_further_than_they_decide() {
    let mut flow = flow::TrackedFlow::default();
    flow.begin(&tcp());
    assert!(flow.meets(Prerequisite::Udp) == Ok(false));
    assert_eq!(*flow.examined(), bits(&[Field::EthType, Field::IpProto]));
    let mut flow = flow::TrackedFlow::default();
    flow.begin(&with(tcp(), Field::EthType, 0x0806));
    assert!(flow.meets(Prerequisite::Udp) == Ok(false));
    assert_eq!(*flow.examined(), bits(&[Field::EthType]));
}

use proptest::prelude::*;

use super::*;
use crate::key::{Field, Words};

#[derive(Debug, PartialEq)]
struct TestRule {
    matching: CompactMatch,
    priority: u16,
    id: usize,
}

impl Classified for Arc<TestRule> {
    fn matching(&self) -> &CompactMatch {
        &self.matching
    }

    fn priority(&self) -> u16 {
        self.priority
    }
}

/// What a classifier must do, done the slow way: every rule is tried.
#[derive(Clone, Default)]
struct Linear(Vec<(Match, Arc<TestRule>)>);

impl Linear {
    fn position(&self, matching: &Match, priority: u16) -> Option<usize> {
        self.0.iter().position(|(other, rule)| other == matching && rule.priority == priority)
    }

    fn insert(&mut self, matching: Match, rule: Arc<TestRule>) -> Option<Arc<TestRule>> {
        let old = self.remove(&matching, rule.priority);
        self.0.push((matching, rule));
        old
    }

    fn remove(&mut self, matching: &Match, priority: u16) -> Option<Arc<TestRule>> {
        self.position(matching, priority).map(|at| self.0.swap_remove(at).1)
    }

    /// The rules that may be found: several if rules of equal priority overlap.
    fn lookup(&self, flow: &Flow) -> Vec<&Arc<TestRule>> {
        let matching = || self.0.iter().filter(|(matching, _)| matching.matches(flow)).map(|(_, rule)| rule);
        let best = matching().map(|rule| rule.priority).max();
        matching().filter(|rule| Some(rule.priority) == best).collect()
    }
}

/// Words of every stage, and of the state.
const WORDS: [usize; 6] = [0, 1, 4, 5, 10, 18];

fn flow(values: &[u8]) -> Flow {
    let mut flow = Words::ZERO;
    for (i, value) in WORDS.into_iter().zip(values) {
        flow.0[i] = u64::from(*value) * 0x0101_0000_0001;
    }
    flow
}

/// Few values, so that flows do match.
fn any_flow() -> impl Strategy<Value = Flow> {
    prop::collection::vec(0..4u8, WORDS.len()).prop_map(|values| flow(&values))
}

/// Few masks, so that subtables fill.
fn any_match() -> impl Strategy<Value = Match> {
    let masks = prop_oneof![3 => Just(0u8), 1 => Just(1u8), 1 => Just(2u8), 2 => Just(0xffu8)];
    (any_flow(), prop::collection::vec(masks, WORDS.len())).prop_map(|(value, masks)| Match::new(&value, &flow(&masks)))
}

#[derive(Clone, Debug)]
enum Operation {
    Insert(Box<Match>, u16),
    Remove(prop::sample::Index),
    Snapshot,
}

fn any_operations(priorities: u16) -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        6 => (any_match(), 0..priorities).prop_map(|(matching, priority)| Operation::Insert(Box::new(matching), priority)),
        2 => any::<prop::sample::Index>().prop_map(Operation::Remove),
        1 => Just(Operation::Snapshot),
    ];
    prop::collection::vec(operation, 1..150)
}

type Snapshots = Vec<(Classifier<Arc<TestRule>>, Linear)>;

/// Carries the operations out on both; returns what there is in the end, and at some moments before.
fn run(operations: Vec<Operation>) -> Result<Snapshots, TestCaseError> {
    let (mut classifier, mut linear) = (Classifier::default(), Linear::default());
    let mut snapshots = Vec::new();
    for (id, operation) in operations.into_iter().enumerate() {
        match operation {
            Operation::Insert(matching, priority) => {
                let rule = Arc::new(TestRule { matching: classifier.compact(&matching), priority, id });
                prop_assert_eq!(rule.matching.expand(), *matching);
                prop_assert_eq!(classifier.insert(rule.clone()), linear.insert(*matching, rule.clone()));
                prop_assert_eq!(classifier.get(&matching, priority), Some(&rule));
            }
            Operation::Remove(index) if !linear.0.is_empty() => {
                let (matching, rule) = index.get(&linear.0).clone();
                prop_assert_eq!(classifier.remove(&matching, rule.priority), linear.remove(&matching, rule.priority));
                prop_assert_eq!(classifier.get(&matching, rule.priority), None);
                prop_assert_eq!(classifier.remove(&matching, rule.priority), None);
            }
            Operation::Remove(_) => {}
            Operation::Snapshot => snapshots.push((classifier.clone(), linear.clone())),
        }
        prop_assert_eq!(classifier.len(), linear.0.len());
    }
    snapshots.push((classifier, linear));
    Ok(snapshots)
}

fn ids<'a>(rules: impl Iterator<Item = &'a Arc<TestRule>>) -> Vec<usize> {
    let mut ids: Vec<usize> = rules.map(|rule| rule.id).collect();
    ids.sort();
    ids
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn finds_what_a_linear_search_finds(
        operations in prop_oneof![any_operations(4), any_operations(u16::MAX)],
        flows in prop::collection::vec(any_flow(), 20),
        wide in any_match(),
        priority in 0..4u16,
    ) {
        for (classifier, linear) in run(operations)? {
            for flow in &flows {
                let found = classifier.lookup(flow, &mut FlowMask::default());
                let expected = linear.lookup(flow);
                prop_assert!(found.map_or(expected.is_empty(), |found| expected.contains(&found)), "{:?} not in {:?}", found, expected);
            }
            prop_assert_eq!(ids(classifier.iter()), ids(linear.0.iter().map(|(_, rule)| rule)));
            let included = linear.0.iter().filter(|(matching, _)| wide.includes(matching)).map(|(_, rule)| rule);
            prop_assert_eq!(ids(classifier.included(&wide)), ids(included));
            let overlaps = linear.0.iter().any(|(matching, rule)| rule.priority == priority && matching.overlaps(&wide));
            prop_assert_eq!(classifier.overlaps(&wide, priority), overlaps);
        }
    }

    #[test]
    fn only_bits_examined_can_change_the_answer(
        operations in any_operations(6),
        flows in prop::collection::vec(any_flow(), 5),
        others in prop::collection::vec(any_flow(), 20),
    ) {
        for (classifier, _) in run(operations)? {
            for flow in &flows {
                let mut examined = FlowMask::ZERO;
                let found = classifier.lookup(flow, &mut examined);
                let check = |other: &Flow| {
                    let mut examined_again = FlowMask::ZERO;
                    prop_assert_eq!(classifier.lookup(other, &mut examined_again), found);
                    prop_assert_eq!(examined_again, examined);
                    Ok(())
                };
                for bit in 0..FLOW_WORDS * 64 {
                    if examined.0[bit / 64] >> (bit % 64) & 1 == 0 {
                        let mut other = *flow;
                        other.0[bit / 64] ^= 1 << (bit % 64);
                        check(&other)?;
                    }
                }
                for other in &others {
                    check(&Words(std::array::from_fn(|i| flow.0[i] & examined.0[i] | other.0[i] & !examined.0[i])))?;
                }
            }
        }
    }
}

fn classifier_of(rules: &[(Match, u16)]) -> Classifier<Arc<TestRule>> {
    let mut classifier = Classifier::default();
    for (id, (matching, priority)) in rules.iter().enumerate() {
        let matching = classifier.compact(matching);
        classifier.insert(Arc::new(TestRule { matching, priority: *priority, id }));
    }
    classifier
}

fn examined_fields(classifier: &Classifier<Arc<TestRule>>, flow: &Flow) -> Vec<Field> {
    let mut examined = FlowMask::ZERO;
    classifier.lookup(flow, &mut examined);
    let frame_fields = [Field::InPort, Field::EthType, Field::IpProto, Field::Ipv4Dst, Field::TcpDst, Field::Metadata];
    frame_fields.into_iter().filter(|field| field.read(&examined) != 0).collect()
}

fn web_server() -> Match {
    Match::ANY.with(Field::EthType, 0x0800).with(Field::IpProto, 6).with(Field::Ipv4Dst, 0x0a00_0001).with(Field::TcpDst, 80)
}

#[test]
fn later_stages_are_left_alone_once_an_earlier_one_rules_the_subtable_out() {
    let classifier = classifier_of(&[(web_server(), 10)]);
    let mut flow = Flow::ZERO;
    Field::EthType.write(&mut flow, 0x0806);
    assert_eq!(examined_fields(&classifier, &flow), [Field::EthType]);
    Field::EthType.write(&mut flow, 0x0800);
    assert_eq!(examined_fields(&classifier, &flow), [Field::EthType, Field::IpProto, Field::Ipv4Dst]);
    Field::IpProto.write(&mut flow, 6);
    Field::Ipv4Dst.write(&mut flow, 0x0a00_0001);
    assert_eq!(examined_fields(&classifier, &flow), [Field::EthType, Field::IpProto, Field::Ipv4Dst, Field::TcpDst]);
}

#[test]
fn subtables_that_cannot_win_are_not_visited() {
    let classifier = classifier_of(&[(Match::ANY.with(Field::InPort, 1), 20), (web_server(), 10), (Match::ANY, 0)]);
    let mut flow = Flow::ZERO;
    Field::InPort.write(&mut flow, 1);
    assert_eq!(examined_fields(&classifier, &flow), [Field::InPort]);
    Field::InPort.write(&mut flow, 2);
    assert_eq!(examined_fields(&classifier, &flow), [Field::InPort, Field::EthType]);
    let miss_only = classifier_of(&[(Match::ANY, 0)]);
    assert_eq!(examined_fields(&miss_only, &flow), []);
}

#[test]
fn the_stages_forget_the_rules_that_are_removed() {
    let mut classifier = classifier_of(&[(web_server(), 10), (web_server().with(Field::Ipv4Dst, 0x0a00_0002), 10), (web_server(), 5)]);
    let mut flow = Flow::ZERO;
    Field::EthType.write(&mut flow, 0x0800);
    Field::IpProto.write(&mut flow, 6);
    Field::Ipv4Dst.write(&mut flow, 0x0a00_0001);
    classifier.remove(&web_server(), 10).expect("it is there");
    assert!(examined_fields(&classifier, &flow).contains(&Field::TcpDst), "the rule of priority 5 is still there");
    classifier.remove(&web_server(), 5).expect("it is there");
    assert!(!examined_fields(&classifier, &flow).contains(&Field::TcpDst));
    assert_eq!(classifier.mask_count(), 1);
}

#[test]
fn many_priorities_of_one_match_cost_little() {
    let matching = Match::ANY.with(Field::InPort, 1);
    let mut classifier = Classifier::default();
    let priorities = || (0..20_000u16).map(|i| i.wrapping_mul(7919));
    for (id, priority) in priorities().enumerate() {
        let rule = Arc::new(TestRule { matching: classifier.compact(&matching), priority, id });
        assert_eq!(classifier.insert(rule), None);
    }
    let mut sorted: Vec<u16> = priorities().collect();
    sorted.sort_unstable_by_key(|priority| std::cmp::Reverse(*priority));
    for (gone, priority) in sorted.into_iter().enumerate() {
        let found = classifier.lookup(matching.value(), &mut FlowMask::default());
        assert_eq!(found.map(|rule| rule.priority), Some(priority));
        assert_eq!(classifier.remove(&matching, priority).map(|rule| rule.priority), Some(priority), "after {gone}");
    }
    assert!(classifier.is_empty());
}

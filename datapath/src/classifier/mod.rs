//! Finds the rule of the highest priority that matches a flow, and says which bits of the flow the answer depends on.
//!
//! **Tuple space search.** Rules whose matches have the same mask are a tuple; in a tuple, what a flow matches is found with one hash of the
//! flow's masked words, whatever the number of rules. Tables have many rules but few masks, so a lookup is a walk over a few subtables, one for
//! each mask. They are kept in the order of the highest priority in each, and the walk ends as soon as no subtable ahead can have a rule
//! that beats the one found.
//!
//! **Bits examined.** A lookup that looks at a bit makes every cached answer that comes of it narrower. Flows that agree in all bits examined take
//! the same walk to the same answer; so `examined` is what a megaflow has to match, and each bit that need not be looked at is worth
//! many cache entries. Subtables that are not reached cost nothing. In a subtable that is reached, the words are looked at in
//! [stages](crate::key::STAGES): metadata, L2, L3, L4. The hash of the words up to each stage is known for all rules of the subtable, and if no
//! rule has the flow's, the words of the later stages are left alone. So a rule for one TCP port in one subnet does not make every
//! frame's TCP port count, only those of that subnet. (Narrowing addresses down to the prefix that rules a match out, with tries, is left for
//! when a real table asks for it: it multiplies the masks that the megaflow cache has to search.)
//!
//! **Copy on write.** The workers look up in a snapshot while the control thread edits its draft. A classifier is a list of `Arc`'d subtables,
//! a subtable keeps its rules in small `Arc`'d [shards]: a clone copies lists of pointers, and the first edit afterwards copies the one shard that it
//! changes, a few rules. So does the next edit, of another shard: an edit after a publication costs the same in a table of a thousand rules and of a
//! million.
//!
//! **Memory.** A rule's match is stored once, as the words that its mask occupies ([`CompactMatch`]); the mask is shared by the subtable's
//! rules. A subtable stores a pointer and a hash for each rule, and a hash for each stage before the last.
//!
//! Rules of equal priority may overlap; which of them is found is undefined in OpenFlow. Here it depends on the subtables' order, hence on the
//! history of the table, but never on the lookup: the same snapshot always gives the same answer.

pub(crate) mod mask;
mod shards;
mod subtable;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;

pub use mask::{Mask, mix, set_bits};
pub(crate) use shards::Shards;
use subtable::Subtable;

use crate::key::{FLOW_WORDS, Flow, FlowMask, Match};

/// A [`Match`] in little memory: its mask is shared with the other rules that have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactMatch {
    mask: Arc<Mask<FLOW_WORDS>>,
    /// Most have so few words that they are found where the rule is.
    key: SmallVec<[u64; 4]>,
}

impl CompactMatch {
    /// As it was.
    pub fn expand(&self) -> Match {
        Match::new(&self.mask.unpack(&self.key), self.mask.bits())
    }

    /// A hash, the same for equal matches.
    pub fn hash(&self) -> u64 {
        self.key.iter().fold(u64::from(self.mask.occupied()), |hash, word| mix(hash, *word))
    }

    /// Whether it is for `flow`.
    #[inline]
    pub fn is_for(&self, flow: &Flow) -> bool {
        self.mask.matches(&self.key, flow)
    }
}

/// What a classifier holds: cheap to clone, as an `Arc` is.
pub trait Classified: Clone {
    /// The flows that it is for.
    fn matching(&self) -> &CompactMatch;
    /// The higher, the sooner.
    fn priority(&self) -> u16;
}

/// A set of rules, no two of them with the same match and priority. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Classifier<V> {
    /// By falling maximum priority.
    subtables: Vec<Place<V>>,
    len: usize,
}

/// A subtable, and what tells whether it is worth a visit.
#[derive(Clone, Debug)]
struct Place<V> {
    max_priority: u16,
    /// Of the mask, so that one is found among many.
    fingerprint: u64,
    subtable: Arc<Subtable<V>>,
}

impl<V> Default for Classifier<V> {
    fn default() -> Self {
        Self { subtables: Vec::new(), len: 0 }
    }
}

impl<V: Classified> Classifier<V> {
    /// The number of rules.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of different masks.
    pub fn mask_count(&self) -> usize {
        self.subtables.len()
    }

    /// The rule of the highest priority that matches `flow`. Or-s into `examined` the bits that the answer depends on: every flow that agrees
    /// in them gets the same answer.
    pub fn lookup(&self, flow: &Flow, examined: &mut FlowMask) -> Option<&V> {
        let mut best: Option<&V> = None;
        for place in &self.subtables {
            if best.is_some_and(|best| best.priority() >= place.max_priority) {
                break;
            }
            if let Some(found) = place.subtable.lookup(flow, examined)
                && best.is_none_or(|best| found.priority() > best.priority())
            {
                best = Some(found);
            }
        }
        best
    }

    /// Visits all rules that match `flow` and have a higher priority than `above`, in no order. Or-s into `examined` the bits that this depends on.
    pub fn all<'a>(&'a self, flow: &Flow, above: Option<u16>, examined: &mut FlowMask, mut visit: impl FnMut(&'a V)) {
        let is_above = |priority: u16| above.is_none_or(|above| priority > above);
        for place in self.subtables.iter().take_while(|place| is_above(place.max_priority)) {
            place.subtable.all(flow, examined, |rule| {
                if is_above(rule.priority()) {
                    visit(rule)
                }
            });
        }
    }

    /// `matching` made compact, for a rule to be inserted here: the mask is shared with the rules that there are.
    pub fn compact(&self, matching: &Match) -> CompactMatch {
        let mask = match self.find(matching.mask()) {
            Some(at) => self.subtables[at].subtable.mask().clone(),
            None => Arc::new(Mask::new(matching.mask())),
        };
        CompactMatch { key: mask.packed(matching.value()).collect(), mask }
    }

    /// The rule with exactly this match and priority.
    pub fn get(&self, matching: &Match, priority: u16) -> Option<&V> {
        self.subtables[self.find(matching.mask())?].subtable.get(matching, priority)
    }

    /// Adds a rule. Returns the one with the same match and priority that it takes the place of.
    pub fn insert(&mut self, rule: V) -> Option<V> {
        let at = self.find(rule.matching().mask.bits()).unwrap_or_else(|| {
            let mask = rule.matching().mask.clone();
            // The last place is right for priority zero.
            self.subtables.push(Place { max_priority: 0, fingerprint: fingerprint(mask.bits()), subtable: Arc::new(Subtable::new(mask)) });
            self.subtables.len() - 1
        });
        let old = Arc::make_mut(&mut self.subtables[at].subtable).insert(rule);
        self.len += usize::from(old.is_none());
        self.reorder(at);
        old
    }

    /// Removes the rule with exactly this match and priority.
    pub fn remove(&mut self, matching: &Match, priority: u16) -> Option<V> {
        let at = self.find(matching.mask())?;
        let removed = Arc::make_mut(&mut self.subtables[at].subtable).remove(matching, priority)?;
        self.len -= 1;
        if self.subtables[at].subtable.is_empty() {
            self.subtables.remove(at);
        } else {
            self.reorder(at);
        }
        Some(removed)
    }

    /// All rules.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        self.subtables.iter().flat_map(|place| place.subtable.iter())
    }

    /// The rules with exactly this match, whatever their priority.
    fn with_match<'a>(&'a self, matching: &'a Match) -> impl Iterator<Item = &'a V> {
        self.find(matching.mask()).into_iter().flat_map(|at| self.subtables[at].subtable.with_match(matching))
    }

    /// The rules for flows that all are among those of `matching`: those with that match or a more specific one.
    pub fn included<'a>(&'a self, matching: &'a Match) -> impl Iterator<Item = &'a V> {
        let narrower = self.subtables.iter().filter(|place| {
            let mask = place.subtable.mask().bits();
            mask != matching.mask() && mask.masked(matching.mask()) == *matching.mask()
        });
        self.with_match(matching).chain(narrower.flat_map(|place| place.subtable.included(matching)))
    }

    /// Whether a rule of this priority is for a flow that `matching` is for too.
    pub fn overlaps(&self, matching: &Match, priority: u16) -> bool {
        self.subtables.iter().any(|place| place.subtable.overlaps(matching, priority))
    }

    /// The place of the subtable with this mask.
    fn find(&self, mask: &FlowMask) -> Option<usize> {
        let fingerprint = fingerprint(mask);
        self.subtables.iter().position(|place| place.fingerprint == fingerprint && place.subtable.mask().bits() == mask)
    }

    /// Puts a subtable, whose rules changed, where its maximum priority belongs.
    fn reorder(&mut self, at: usize) {
        let max_priority = self.subtables[at].subtable.max_priority();
        if self.subtables[at].max_priority != max_priority {
            let place = Place { max_priority, ..self.subtables.remove(at) };
            let at = self.subtables.partition_point(|other| other.max_priority >= max_priority);
            self.subtables.insert(at, place);
        }
    }
}

/// A number that different masks seldom share.
fn fingerprint(mask: &FlowMask) -> u64 {
    let mut lanes = [0u64; 4];
    for words in mask.0.chunks(4) {
        lanes.iter_mut().zip(words).for_each(|(lane, word)| *lane = lane.rotate_left(11) ^ word);
    }
    lanes.into_iter().fold(0, mix)
}

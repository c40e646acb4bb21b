//! What becomes of a frame: OpenFlow's tables, carried out once for a whole megaflow.
//!
//! [`translate`] takes a flow key through the tables and returns the flat actions for it. That would be interpretation, were it not for the
//! mask that it returns as well: the bits of the key that the outcome depends on. Every key that agrees with this one in those bits
//! has the same actions, so the caches may give them to it without asking again. The promise is strict, and holds for any words as a
//! key, also for those that no frame has; a test flips every bit outside the mask and expects the very same actions.
//!
//! **How the mask comes about.** The pipeline's view of the frame, a [`crate::key::Flow`], changes on the way: actions write fields, and tables
//! look at what was written. So each bit of it has an origin. A *written* bit no longer depends on the frame: the state words start as zeros,
//! `set_field` and `load` write constants. Any other bit is that of the key, and whoever looks at it examines it: the lookups of
//! a table (the classifier says which bits it went by), a prerequisite that decides whether an action applies, a `move`, which copies it - the copy
//! is then a constant, since its source can't vary any more. Two origins are kept apart, because looking at once would cost too much:
//!
//! - A decremented TTL is *derived*. The actions do not depend on it (that it may run out is the executed action's affair), so a router's megaflow
//!   is one for all TTLs. Only if a later table looks at it is the frame's TTL examined, all of it.
//! - After `pop_vlan`, the outer tag's bits are those of the frame's inner tag.
//!
//! What an action uncovers or changes in a way that only shows in the frame (the header under an MPLS entry, a DSCP that a meter may have raised) is
//! *unknown*: whoever comes to look at it freezes the translation, which goes on with the frame as it is then, under a key that says so ([`frozen`]).
//!
//! The ingress port is always examined: whether it receives is the first thing asked, and nothing is ever sent back to it unasked.
//!
//! **What else comes out.** [`Effects`]: the rules and tables to be credited with each frame, the learned addresses that the outcome rests on (the
//! tables' epoch does not cover those: each is a dependency that can be checked with one load), and the sightings that keep them from ageing.
//!
//! **Bounds.** A translation makes at most [`LOOKUPS_MAX`] lookups, [`DEPTH_MAX`] deep, and handles at most [`ACTIONS_MAX`] actions; beyond, the frame is dropped,
//! with a reason. A translation takes the snapshot as it is and changes nothing but the learned addresses, and these only if asked to.

mod actions;
mod flow;
mod frozen;
mod hashing;
mod learning;
mod normal;
mod pipeline;
#[cfg(test)]
mod tests;
mod todo;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::Nanos;
use crate::action::Action;
use crate::drops::DropReason;
use crate::key::{Flow, FlowKey, KeyMask};
use crate::port::PortNo;
use crate::tables::instruction::{OfAction, OfActions};
use crate::tables::{ActionSet, Counters, FlowMod, MacDependency, Rule, Tables};
use flow::TrackedFlow;
use pipeline::Pipeline;

pub use frozen::{Continuation, Continuations};

/// The most lookups in one translation.
pub const LOOKUPS_MAX: usize = 4096;
/// How deep resubmits may nest, and how deep copies of the frame (by groups and `clone`), which nest in the flat actions, too.
pub const DEPTH_MAX: usize = 64;
/// The most actions of rules that a translation may carry out, and flat ones that it may give, together.
pub const ACTIONS_MAX: usize = 16_384;
/// How often a frame, with all copies of it, may go on with translations that were frozen. Groups of groups could ask for any number.
pub(crate) const RESUMES_MAX: usize = 1024;

/// What becomes of all frames of a megaflow.
#[derive(Clone, Debug)]
pub struct Translation {
    /// What to do with each of them.
    pub actions: Box<[Action]>,
    /// Why a frame is dropped for which these actions do nothing.
    pub reason: DropReason,
    /// The bits of the key that all of this depends on.
    pub mask: KeyMask,
    /// What each frame is to be accounted to, and what the actions rest on.
    pub effects: Effects,
}

/// What a translation leaves to be done for each frame, and what it rests on apart from the tables.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// What the rules that matched count, and the groups and buckets that were used, in this order; one that was used twice is here twice.
    credits: Vec<Arc<Counters>>,
    /// What rules count that were learned from such frames, and are kept from growing old by them.
    refreshed: Vec<Arc<Counters>>,
    /// What the frames go on with, if they do.
    continuation: Option<Arc<Continuation>>,
    lookups: Vec<Lookup>,
    sightings: Vec<Sighting>,
    dependencies: Vec<MacDependency>,
}

/// One lookup in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lookup {
    table: u8,
    matched: bool,
}

/// An Ethernet address that was seen as a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sighting {
    vlan: u16,
    mac: u64,
    port: PortNo,
}

impl Effects {
    /// Credits frames, the last of which came at `used`, to the rules and tables, and keeps the learned addresses young.
    pub fn credit(&self, tables: &Tables, frames: u64, bytes: u64, used: Nanos) {
        for counters in &self.credits {
            counters.credit(frames, bytes, used);
        }
        for counters in &self.refreshed {
            counters.refresh(used);
        }
        for lookup in &self.lookups {
            tables.counters(lookup.table).credit(frames, if lookup.matched { frames } else { 0 });
        }
        for sighting in &self.sightings {
            tables.macs().refresh(sighting.vlan, sighting.mac, sighting.port, used);
        }
    }

    /// Whether the learned addresses still say what the translation went by.
    #[inline]
    pub fn is_current(&self, tables: &Tables) -> bool {
        self.dependencies.iter().all(|dependency| tables.macs().is_current(dependency))
    }

    /// Whether the translation went by learned addresses at all.
    pub fn relies_on_learning(&self) -> bool {
        !self.dependencies.is_empty()
    }

    /// How many lookups in tables it took.
    pub(crate) fn lookups(&self) -> usize {
        self.lookups.len()
    }

    /// What the rules that matched count, and the groups and buckets that were used, in this order.
    pub fn credits(&self) -> &[Arc<Counters>] {
        &self.credits
    }

    /// Whether they are the same in all respects.
    pub(crate) fn are(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Counters>], b: &[Arc<Counters>]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b));
        same(&self.credits, &other.credits)
            && same(&self.refreshed, &other.refreshed)
            && self.continuation.as_ref().map(Arc::as_ptr) == other.continuation.as_ref().map(Arc::as_ptr)
            && self.lookups == other.lookups
            && self.sightings == other.sightings
            && self.dependencies == other.dependencies
    }

    /// Feeds a hash with what tells them apart.
    pub(crate) fn feed(&self, hasher: &mut impl Hasher) {
        self.credits.iter().chain(&self.refreshed).for_each(|counters| hasher.write_usize(Arc::as_ptr(counters).addr()));
        self.continuation.iter().for_each(|continuation| hasher.write_usize(Arc::as_ptr(continuation).addr()));
        hasher.write_usize(self.lookups.len());
        self.sightings.hash(hasher);
        self.dependencies.hash(hasher);
    }
}

/// Memory that translations use again, and what the last one came to.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) said: Said,
    action_set: ActionSet,
    flow: TrackedFlow,
}

/// What a translation came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub actions: Vec<Action>,
    pub reason: DropReason,
    pub mask: KeyMask,
    pub effects: Effects,
    /// Rules that are to be added, because a frame came that they are to be learned from.
    pub learned: Vec<Arc<FlowMod>>,
}

impl Default for Said {
    fn default() -> Self {
        Self { actions: Vec::new(), reason: DropReason::Rule, mask: KeyMask::ZERO, effects: Effects::default(), learned: Vec::new() }
    }
}

impl Said {
    /// Forgets the last translation, but for what was credited: where the next one credits the same, it need not be counted as held once more.
    fn clear(&mut self) {
        self.actions.clear();
        self.learned.clear();
        self.effects.refreshed.clear();
        self.effects.continuation = None;
        self.effects.lookups.clear();
        self.effects.sightings.clear();
        self.effects.dependencies.clear();
    }
}

impl Scratch {
    fn to_translation(&self) -> Translation {
        let Said { actions, reason, mask, effects, .. } = &self.said;
        Translation { actions: actions[..].into(), reason: *reason, mask: *mask, effects: effects.clone() }
    }
}

/// Translates a key, from table 0, or from where the translation of its frame was frozen. If `learn`, NORMAL learns the frame's source address; a revalidation or an audit, for which no frame came in, does not.
pub fn translate(tables: &Tables, key: &FlowKey, now: Nanos, scratch: &mut Scratch, learn: bool) -> Translation {
    translate_into(tables, key, now, scratch, learn);
    scratch.to_translation()
}

/// The same, and leaves the result in `scratch`, so that nothing is allocated.
pub(crate) fn translate_into(tables: &Tables, key: &FlowKey, now: Nanos, scratch: &mut Scratch, learn: bool) {
    run(tables, key, now, scratch, learn, &mut ());
}

fn run<O: Observer + ?Sized>(tables: &Tables, key: &FlowKey, now: Nanos, scratch: &mut Scratch, learn: bool, observer: &mut O) {
    if frozen::number(key).is_none() {
        return Pipeline::new(tables, key, now, scratch, learn, observer).translate_frame();
    }
    let continuation = tables.continuations().of_key(key);
    debug_assert!(continuation.is_some(), "whoever gave the key its number holds the continuation");
    let mut pipeline = Pipeline::new(tables, key, now, scratch, learn, observer);
    match &continuation {
        Some(continuation) => pipeline.translate_rest(key, continuation),
        None => pipeline.drop_frame(DropReason::TooManyTables),
    }
}

/// Translates the actions of a packet-out (OpenFlow 1.3.5, 7.3.7), in which [`PortNo::TABLE`] means the tables. The key's ingress port is the one that
/// the message names; if it is none of the switch's, nothing is learned.
pub fn translate_actions(tables: &Tables, actions: &OfActions, key: &FlowKey, now: Nanos, scratch: &mut Scratch) -> Translation {
    Pipeline::new(tables, key, now, scratch, true, &mut ()).translate_list(actions);
    scratch.to_translation()
}

/// Translates a key as [`translate`] does, without learning, and says each step to `observer`.
pub fn trace(tables: &Tables, key: &FlowKey, now: Nanos, scratch: &mut Scratch, observer: &mut dyn Observer) -> Translation {
    run(tables, key, now, scratch, false, observer);
    scratch.to_translation()
}

/// Is told the steps of a translation.
pub trait Observer {
    /// The next step.
    fn observe(&mut self, step: Step<'_>);
}

/// Watching nothing costs nothing.
impl Observer for () {
    #[inline(always)]
    fn observe(&mut self, _: Step<'_>) {}
}

/// A step of a translation.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A table was searched.
    Lookup {
        /// Which.
        table: u8,
        /// For this, unknown bits being zero.
        flow: &'a Flow,
        /// The bits of it that are unknown: the lookup did not go by them.
        unknown: &'a KeyMask,
        /// The rule that matched.
        rule: Option<&'a Rule>,
    },
    /// An action is carried out; those that it leads to follow, until its end.
    Action(&'a OfAction),
    /// The actions that a resubmit led to are done.
    Return,
    /// The action set is carried out next.
    ActionSet,
    /// NORMAL found the frame's VLAN.
    Vlan(u16),
    /// NORMAL learns that this address is in this VLAN on this port.
    Learn(u16, u64, PortNo),
    /// NORMAL knows that the destination is on this port.
    Known(PortNo),
    /// NORMAL sends to all ports of the VLAN.
    Flood,
    /// An action does nothing, or the frame is dropped.
    Stopped(DropReason),
    /// A flat action was made.
    Made(&'a Action),
}

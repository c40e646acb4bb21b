//! Translations that stop half way, and go on with the frame as it is then.
//!
//! What a header hides, no key tells: what is under an MPLS entry that is popped, the frame inside of a provider bridge's; nor is the DSCP known that a meter may
//! have changed. A pipeline that comes to look at such bits is *frozen* there. What it still has to do, and what it has found out, is a [`Continuation`]; the
//! frame is given it as the last of the actions so far, its key is extracted anew, and the second key says by the continuation's number whose it is. So what comes
//! of it is cached as anything else is, and the caches need not know: to them a frame that goes on is a frame. A select group chooses its bucket in the same way,
//! for each frame by its hash: the choice is a part of the second key, and no bit of the first.
//!
//! **Numbers.** Equal continuations are one. A number means the same for as long as anybody holds the continuation: the actions that lead to it, and whatever was
//! translated under it ([`super::Effects`]). Then it is used again. There are [`CONTINUATIONS_MAX`] of them; beyond, frames are dropped, with a reason.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::todo::Rest;
use crate::by_address::ByAddress;
use crate::key::{FLOW_WORDS, Flow, FlowKey, FlowMask, KEY_WORDS};
use crate::tables::group::{Group, MAX_BUCKETS};
use crate::tables::{ActionSet, Rule};

/// The most continuations at a time.
pub const CONTINUATIONS_MAX: usize = (1 << (32 - CHOICE_BITS)) - 1;
/// How often one frame may go on.
pub(super) const PASSES_MAX: u8 = 32;

/// In the low half of a key's first word: the number of the continuation, then the place of the bucket that was chosen.
const CHOICE_BITS: u32 = MAX_BUCKETS.trailing_zeros();

/// Words that a pipeline may have overwritten and that no frame brings back: those of its state, and of the key the ingress port's and the tunnel's.
const KEPT: [usize; FLOW_WORDS - KEY_WORDS + 2] = {
    let mut words = [0; FLOW_WORDS - KEY_WORDS + 2];
    let mut i = 1;
    while i < words.len() {
        words[i] = KEY_WORDS - 2 + i;
        i += 1;
    }
    words
};

/// What is known of a flow apart from what its frame says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kept {
    values: [u64; KEPT.len()],
    written: [u64; KEPT.len()],
}

impl Kept {
    /// The constants in these words of a flow.
    pub(super) fn of(flow: &Flow, written: &FlowMask) -> Self {
        let written = KEPT.map(|word| written.0[word]);
        Self { values: std::array::from_fn(|i| flow.0[KEPT[i]] & written[i]), written }
    }

    /// Puts them back.
    pub(super) fn put_back(&self, flow: &mut Flow, written: &mut FlowMask) {
        for (i, word) in KEPT.into_iter().enumerate() {
            flow.0[word] = flow.0[word] & !self.written[i] | self.values[i];
            written.0[word] = self.written[i];
        }
    }
}

/// What is left of a translation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Frozen {
    /// What is to be done, the next last.
    pub todo: Vec<Rest>,
    pub kept: Kept,
    pub action_set: ActionSet,
    /// What Nicira's actions have put on their stack.
    pub stack: Vec<u128>,
    pub queue: u32,
    /// The rule whose instructions are carried out.
    pub rule: Option<ByAddress<Rule>>,
    /// How many resubmits it is within.
    pub depth: usize,
    /// How often the frame has gone on before.
    pub passes: u8,
    /// The frame goes on in one of this group's buckets.
    pub group: Option<ByAddress<Group>>,
}

/// See the module.
pub struct Continuation {
    /// From 0; in keys, it is one more.
    number: u32,
    hash: u64,
    pub(super) frozen: Frozen,
    registry: Weak<Continuations>,
}

impl Continuation {
    /// What the first word of the key of a frame with this hash is to have beside the ingress port.
    pub(crate) fn recirculation(&self, hash: u32) -> u32 {
        let choices = self.frozen.group.as_ref().and_then(|group| group.0.choices());
        (self.number + 1) << CHOICE_BITS | u32::from(choices.map_or(0, |choices| choices.choose(hash)))
    }
}

impl fmt::Debug for Continuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Continuation({})", self.number)
    }
}

impl fmt::Display for Continuation {
    /// As in a key's `continuation`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.number + 1)
    }
}

impl Drop for Continuation {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.forget(self);
        }
    }
}

/// The place of the bucket that was chosen for a frame with this key.
pub(super) fn choice(key: &FlowKey) -> u16 {
    (key.0[0] & ((1 << CHOICE_BITS) - 1)) as u16
}

/// The number of the continuation that a key is for, from 0; `None` if its frame has just come in.
pub(super) fn number(key: &FlowKey) -> Option<u32> {
    (key.0[0] as u32 >> CHOICE_BITS).checked_sub(1)
}

/// All continuations that somebody holds. Shared by all snapshots of the tables; only translations lock it.
#[derive(Debug, Default)]
pub struct Continuations {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_number: Vec<Weak<Continuation>>,
    free: Vec<u32>,
    by_content: HashMap<u64, Vec<Weak<Continuation>>>,
}

impl Continuations {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The continuation with this content. `None` if there are too many.
    pub(super) fn of(self: &Arc<Self>, frozen: Frozen) -> Option<Arc<Continuation>> {
        let mut hasher = DefaultHasher::new();
        frozen.hash(&mut hasher);
        let hash = hasher.finish();
        // Whoever drops one needs the lock, so they are compared without it. That two workers make the same one at the same time does no harm.
        let alike: Vec<_> = self.state().by_content.get(&hash).into_iter().flatten().filter_map(Weak::upgrade).collect();
        if let Some(known) = alike.into_iter().find(|known| known.frozen == frozen) {
            return Some(known);
        }
        let mut state = self.state();
        let number = match state.free.pop() {
            Some(number) => number,
            None if state.by_number.len() < CONTINUATIONS_MAX => {
                state.by_number.push(Weak::new());
                (state.by_number.len() - 1) as u32
            }
            None => return None,
        };
        let made = Arc::new(Continuation { number, hash, frozen, registry: Arc::downgrade(self) });
        state.by_number[number as usize] = Arc::downgrade(&made);
        state.by_content.entry(hash).or_default().push(Arc::downgrade(&made));
        Some(made)
    }

    /// What the frame of a key goes on with, which somebody holds.
    pub(super) fn of_key(&self, key: &FlowKey) -> Option<Arc<Continuation>> {
        self.state().by_number.get(number(key)? as usize)?.upgrade()
    }

    /// Nobody holds it any more.
    fn forget(&self, gone: &Continuation) {
        let mut state = self.state();
        if let Some(same) = state.by_content.get_mut(&gone.hash) {
            same.retain(|known| known.strong_count() > 0);
            if same.is_empty() {
                state.by_content.remove(&gone.hash);
            }
        }
        state.by_number[gone.number as usize] = Weak::new();
        state.free.push(gone.number);
    }
}

//! The action set (OpenFlow 1.3.5, 5.10): at most one action of each kind, carried out at the end in the standard's order, not in that of writing.

use super::instruction::{OfAction, OfActions};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ActionSet {
    /// In the order in which they are carried out.
    actions: Vec<OfAction>,
}

/// The kinds of actions that a set can have, in the order in which they are carried out. Of each there is one, but for [`Kind::Set`]: one of each field,
/// or, once moves are among them, everything in the order of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    CopyTtlIn,
    PopVlan,
    PopPbb,
    PopMpls,
    PushMpls,
    PushPbb,
    PushVlan,
    CopyTtlOut,
    DecNwTtl,
    DecMplsTtl,
    Set,
    Queue,
    Group,
    Output,
}

/// The kind of an action; `None` if it can't be in a set.
fn kind(action: &OfAction) -> Option<Kind> {
    Some(match action {
        OfAction::CopyTtlIn => Kind::CopyTtlIn,
        OfAction::PopVlan => Kind::PopVlan,
        OfAction::PopPbb => Kind::PopPbb,
        OfAction::PopMpls(_) => Kind::PopMpls,
        OfAction::PushMpls(_) => Kind::PushMpls,
        OfAction::PushPbb => Kind::PushPbb,
        OfAction::PushVlan(_) => Kind::PushVlan,
        OfAction::CopyTtlOut => Kind::CopyTtlOut,
        OfAction::DecNwTtl => Kind::DecNwTtl,
        OfAction::DecMplsTtl => Kind::DecMplsTtl,
        OfAction::SetField { .. }
        | OfAction::Load { .. }
        | OfAction::Move { .. }
        | OfAction::SetNwTtl(_)
        | OfAction::SetMplsTtl(_)
        | OfAction::SetVlanVid(_)
        | OfAction::SetVlanPcp(_) => Kind::Set,
        OfAction::SetQueue(_) => Kind::Queue,
        OfAction::Group(_) => Kind::Group,
        OfAction::Output { .. } => Kind::Output,
        OfAction::OutputField { .. }
        | OfAction::Enqueue { .. }
        | OfAction::StackPush(_)
        | OfAction::StackPop(_)
        | OfAction::DecNwTtlFor(_)
        | OfAction::Resubmit { .. }
        | OfAction::Controller { .. }
        | OfAction::PopQueue
        | OfAction::Clone(_)
        | OfAction::Exit
        | OfAction::Note(_)
        | OfAction::Multipath(_)
        | OfAction::Bundle(_)
        | OfAction::Learn(_)
        | OfAction::Conjunction { .. } => return None,
    })
}

/// Whether an action can be in a set.
pub(super) fn may_be_written(action: &OfAction) -> bool {
    kind(action).is_some()
}

/// The actions of a set that was written in the order of `actions`, in the order in which they are carried out.
pub(super) fn in_order(actions: &[OfAction]) -> OfActions {
    let mut set = ActionSet::default();
    actions.iter().for_each(|action| set.write(action));
    set.take().into()
}

impl ActionSet {
    /// Whether there are no actions.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Empties the set, and keeps its memory.
    pub fn clear(&mut self) {
        self.actions.clear();
    }

    /// Puts an action in, in the place of one of its kind. One that can't be in a set, which no rule has, is ignored.
    pub fn write(&mut self, action: &OfAction) {
        let Some(of) = kind(action) else { return };
        let moves = self.actions.iter().any(|other| matches!(other, OfAction::Move { .. }));
        self.actions.retain(|other| match kind(other) {
            Some(Kind::Set) if of == Kind::Set => moves || !replaces(action, other),
            other => other != Some(of),
        });
        let at = self.actions.partition_point(|other| kind(other) <= Some(of));
        self.actions.insert(at, action.clone());
    }

    /// Empties the set, and returns its actions in the order in which they are carried out. If there is a group, an output is not.
    pub fn take(&mut self) -> Vec<OfAction> {
        if self.actions.iter().any(|action| matches!(action, OfAction::Group(_))) {
            self.actions.retain(|action| kind(action) != Some(Kind::Output));
        }
        std::mem::take(&mut self.actions)
    }

    /// Gives memory back, for what is written next.
    pub fn reuse(&mut self, mut actions: Vec<OfAction>) {
        if self.actions.is_empty() {
            actions.clear();
            self.actions = actions;
        }
    }
}

/// Whether `new` writes the same bits as `old`.
fn replaces(new: &OfAction, old: &OfAction) -> bool {
    match (new, old) {
        (OfAction::SetField { field: a, mask: new, .. }, OfAction::SetField { field: b, mask: old, .. }) => a == b && old & !new == 0,
        (OfAction::Load { destination: a, .. }, OfAction::Load { destination: b, .. }) => a == b,
        (OfAction::SetNwTtl(_), OfAction::SetNwTtl(_))
        | (OfAction::SetMplsTtl(_), OfAction::SetMplsTtl(_))
        | (OfAction::SetVlanVid(_), OfAction::SetVlanVid(_))
        | (OfAction::SetVlanPcp(_), OfAction::SetVlanPcp(_)) => true,
        _ => false,
    }
}

//! What a pipeline still has to do: a stack of steps, which can be kept for later.

use std::sync::Arc;

use super::flow::View;
use crate::by_address::ByAddress;
use crate::port::PortNo;
use crate::tables::group::Group;
use crate::tables::instruction::{OfAction, OfActions};
use crate::tables::{ActionSet, Rule};

/// A step that is to be done.
#[derive(Debug)]
pub(super) enum Todo<'a> {
    /// The rest of a list of actions.
    Actions(List<'a>),
    /// The instructions of a rule but for its meter and the actions that it applies.
    AfterApply(&'a Arc<Rule>),
    /// Go on in a table.
    Table(u8),
    /// Search a table, as if the frame had come in through this port or, for [`PortNo::IN_PORT`], through its own.
    Resubmit(PortNo, u8),
    /// What a resubmit led to is done: go on for this rule, within so many resubmits.
    Return(Option<&'a Arc<Rule>>, usize),
    /// Process through a group.
    Group(&'a Arc<Group>),
    /// The bucket of a group at this place.
    Bucket(&'a Arc<Group>, u16),
    /// Do this to a copy, and then what the action set says by then.
    Copy(OfActions),
    /// What is done to a copy is done: go on with the frame.
    EndCopy(Box<Original<'a>>),
    /// Carry out the action set.
    ActionSet,
}

/// A list of actions, and how far it was carried out.
#[derive(Debug)]
pub(super) struct List<'a> {
    actions: Actions<'a>,
    done: usize,
}

#[derive(Debug)]
enum Actions<'a> {
    Borrowed(&'a OfActions),
    Shared(OfActions),
    Set(Vec<OfAction>),
}

/// What goes on as it was before something was done to a copy.
#[derive(Debug)]
pub(super) struct Original<'a> {
    pub view: View,
    pub action_set: ActionSet,
    pub stack: Vec<u128>,
    pub queue: u32,
    pub rule: Option<&'a Arc<Rule>>,
    pub depth: usize,
    /// How many flat actions were made before.
    pub made: usize,
}

/// A step that is kept for later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rest {
    Actions(OfActions, usize),
    AfterApply(ByAddress<Rule>),
    Table(u8),
    Resubmit(PortNo, u8),
    Return(Option<ByAddress<Rule>>, usize),
    Group(ByAddress<Group>),
    Bucket(ByAddress<Group>, u16),
    Copy(OfActions),
    ActionSet,
}

impl<'a> List<'a> {
    /// The actions from `done` on.
    pub fn borrowed(actions: &'a OfActions, done: usize) -> Self {
        Self { actions: Actions::Borrowed(actions), done }
    }

    pub fn shared(actions: OfActions) -> Self {
        Self { actions: Actions::Shared(actions), done: 0 }
    }

    pub fn set(actions: Vec<OfAction>) -> Self {
        Self { actions: Actions::Set(actions), done: 0 }
    }

    fn all(&self) -> &[OfAction] {
        match &self.actions {
            Actions::Borrowed(actions) => actions,
            Actions::Shared(actions) => actions,
            Actions::Set(actions) => actions,
        }
    }

    /// The next action.
    pub fn next(&self) -> Option<&OfAction> {
        self.all().get(self.done)
    }

    /// Whether nothing more is to be done about it.
    pub fn is_over(&self) -> bool {
        self.next().is_none() && !matches!(self.actions, Actions::Set(_))
    }

    /// The next action is done.
    pub fn advance(&mut self) {
        self.done += 1;
    }

    /// The memory of an action set.
    pub fn into_memory(self) -> Option<Vec<OfAction>> {
        if let Actions::Set(actions) = self.actions { Some(actions) } else { None }
    }
}

impl Todo<'_> {
    /// The same, to be kept. `None` for the end of a copy, beyond which nothing is kept.
    pub fn keep(self) -> Option<Rest> {
        Some(match self {
            Self::Actions(List { actions: Actions::Borrowed(actions), done }) => Rest::Actions(actions.clone(), done),
            Self::Actions(List { actions: Actions::Shared(actions), done }) => Rest::Actions(actions, done),
            Self::Actions(List { actions: Actions::Set(actions), done }) => Rest::Actions(actions[done..].into(), 0),
            Self::AfterApply(rule) => Rest::AfterApply(ByAddress(rule.clone())),
            Self::Table(table) => Rest::Table(table),
            Self::Resubmit(port, table) => Rest::Resubmit(port, table),
            Self::Return(rule, depth) => Rest::Return(rule.cloned().map(ByAddress), depth),
            Self::Group(group) => Rest::Group(ByAddress(group.clone())),
            Self::Bucket(group, place) => Rest::Bucket(ByAddress(group.clone()), place),
            Self::Copy(actions) => Rest::Copy(actions),
            Self::ActionSet => Rest::ActionSet,
            Self::EndCopy(_) => return None,
        })
    }
}

impl Rest {
    /// The same, to be done now.
    pub fn todo(&self) -> Todo<'_> {
        match self {
            Self::Actions(actions, done) => Todo::Actions(List::borrowed(actions, *done)),
            Self::AfterApply(rule) => Todo::AfterApply(&rule.0),
            Self::Table(table) => Todo::Table(*table),
            Self::Resubmit(port, table) => Todo::Resubmit(*port, *table),
            Self::Return(rule, depth) => Todo::Return(rule.as_ref().map(|rule| &rule.0), *depth),
            Self::Group(group) => Todo::Group(&group.0),
            Self::Bucket(group, place) => Todo::Bucket(&group.0, *place),
            Self::Copy(actions) => Todo::Copy(actions.clone()),
            Self::ActionSet => Todo::ActionSet,
        }
    }
}

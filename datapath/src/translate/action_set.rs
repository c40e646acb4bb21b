//! The action set (OpenFlow 1.3.5, 5.10): at most one action of each kind, carried out at the end in the standard's order, not in that of writing.

use crate::tables::instruction::OfAction;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct ActionSet {
    pop_vlan: bool,
    push_vlan: Option<OfAction>,
    dec_ttl: bool,
    /// What writes fields: a `set_field` for each field, or, once moves are among them, everything in the order of writing.
    sets: Vec<OfAction>,
    queue: Option<OfAction>,
    group: Option<OfAction>,
    /// An output. (What else sends a frame is no action of a set: a flow-mod with it is refused.)
    output: Option<OfAction>,
}

impl ActionSet {
    /// Whether there are no actions.
    pub fn is_empty(&self) -> bool {
        let Self { pop_vlan, push_vlan, dec_ttl, sets, queue, group, output } = self;
        !pop_vlan && push_vlan.is_none() && !dec_ttl && sets.is_empty() && queue.is_none() && group.is_none() && output.is_none()
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        if self.is_empty() {
            return;
        }
        let mut sets = std::mem::take(&mut self.sets);
        sets.clear();
        *self = Self { sets, ..Self::default() };
    }

    /// Puts an action in, in the place of one of its kind.
    pub fn write(&mut self, action: &OfAction) {
        let place = match action {
            OfAction::PopVlan => return self.pop_vlan = true,
            OfAction::DecNwTtl => return self.dec_ttl = true,
            OfAction::SetField { .. } | OfAction::Load { .. } | OfAction::Move { .. } | OfAction::SetNwTtl(_) => {
                if !self.sets.iter().any(|set| matches!(set, OfAction::Move { .. })) {
                    self.sets.retain(|other| !replaces(action, other));
                }
                return self.sets.push(action.clone());
            }
            OfAction::PushVlan(_) => &mut self.push_vlan,
            OfAction::SetQueue(_) => &mut self.queue,
            OfAction::Group(_) => &mut self.group,
            OfAction::Output { .. } | OfAction::Controller { .. } | OfAction::Resubmit { .. } => &mut self.output,
        };
        *place = Some(action.clone());
    }

    /// The actions in the order in which they are carried out. A group goes before an output, which is then not carried out.
    pub fn in_order(&self) -> impl Iterator<Item = OfAction> + '_ {
        let pop = self.pop_vlan.then_some(OfAction::PopVlan);
        let dec_ttl = self.dec_ttl.then_some(OfAction::DecNwTtl);
        let last = self.group.as_ref().or(self.output.as_ref());
        pop.into_iter()
            .chain(self.push_vlan.clone())
            .chain(dec_ttl)
            .chain(self.sets.iter().cloned())
            .chain(self.queue.clone())
            .chain(last.cloned())
    }
}

/// Whether `new` writes the same bits as `old`.
fn replaces(new: &OfAction, old: &OfAction) -> bool {
    match (new, old) {
        (OfAction::SetField { field: a, mask: new, .. }, OfAction::SetField { field: b, mask: old, .. }) => a == b && old & !new == 0,
        (OfAction::Load { destination: a, .. }, OfAction::Load { destination: b, .. }) => a == b,
        (OfAction::SetNwTtl(_), OfAction::SetNwTtl(_)) => true,
        _ => false,
    }
}

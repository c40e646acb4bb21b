//! What is checked of a flow-mod before anything is changed.
//!
//! An action has to make sense for every frame that the rule matches, as far as the match tells: what an action needs of a frame (a VLAN tag,
//! an IP header) must be asked for by the match, or be there by an earlier action. So the check follows the actions with a match of its
//! own: what is known of the frame at each point.

use super::TABLE_COUNT;
use super::flow_mod::{FlowMod, FlowModError};
use super::instruction::{Instructions, OfAction};
use crate::key::{Field, FieldRange, Flow, FlowMask, Match};
use crate::port::PortNo;

/// The bit of `vlan_vid` that says that there is a tag (`OFPVID_PRESENT`).
const PRESENT: u128 = 0x1000;

/// Whether `matching` can be described by its fields: none without its prerequisites.
pub(super) fn check_match(matching: &Match) -> Result<(), FlowModError> {
    let mut described = FlowMask::ZERO;
    for found in matching.fields() {
        let mut mask = FlowMask::ZERO;
        found.field.write(&mut mask, found.mask);
        described.include(&mask);
    }
    if described == *matching.mask() { Ok(()) } else { Err(FlowModError::BadPrerequisite) }
}

/// Whether the instructions of a flow-mod can be carried out on what it matches.
pub(super) fn check_instructions(flow_mod: &FlowMod) -> Result<(), FlowModError> {
    let Instructions { meter, apply, clear: _, write, metadata: _, goto } = &flow_mod.instructions;
    if meter.is_some() {
        return Err(FlowModError::UnsupportedInstruction);
    }
    if goto.is_some_and(|to| to <= flow_mod.table || usize::from(to) >= TABLE_COUNT) {
        return Err(FlowModError::BadGotoTable);
    }
    let mut known = Known::new(&flow_mod.matching);
    apply.iter().try_for_each(|action| known.follow(action))?;
    // The action set is carried out in an order of its own, and has one action of a kind (OpenFlow 1.3.5, 5.10). That frames have a tag to be
    // popped and a TTL may only show in a later table, so it is not asked for here; a frame without is left as it is.
    if known.is_tagged() && write.contains(&OfAction::PopVlan) {
        known.follow(&OfAction::PopVlan)?;
    }
    let (pushes, others): (Vec<_>, Vec<_>) = write.iter().partition(|action| matches!(action, OfAction::PushVlan(_)));
    for action in pushes.into_iter().chain(others) {
        match action {
            OfAction::PopVlan | OfAction::SetNwTtl(_) | OfAction::DecNwTtl => {}
            OfAction::Resubmit { .. } | OfAction::Controller { .. } => return Err(FlowModError::BadActionType),
            action => known.follow(action)?,
        }
    }
    Ok(())
}

/// What is known of the frames at some point of the actions.
struct Known {
    value: Flow,
    mask: FlowMask,
    /// Whether there is certainly a second tag.
    inner_tag: bool,
}

impl Known {
    fn new(matching: &Match) -> Self {
        Self { value: *matching.value(), mask: *matching.mask(), inner_tag: false }
    }

    /// Checks one action, and goes on to what is known after it.
    fn follow(&mut self, action: &OfAction) -> Result<(), FlowModError> {
        match action {
            OfAction::Output { port, .. } => check_output(*port),
            OfAction::SetField { field, value, mask } => self.set(*field, *value, *mask),
            OfAction::Load { destination, value } => {
                let ones = range_ones(*destination)?;
                if u128::from(*value) & !ones != 0 {
                    return Err(FlowModError::BadSetArgument);
                }
                self.set(destination.field, u128::from(*value) << destination.offset, ones << destination.offset)
            }
            OfAction::Move { source, destination } => {
                let ones = range_ones(*destination)?;
                if range_ones(*source)? != ones {
                    return Err(FlowModError::BadArgument);
                }
                self.require(source.field)?;
                self.check_target(destination.field)?;
                let known = destination.field.read(&self.mask) & !(ones << destination.offset);
                destination.field.write(&mut self.mask, known);
                Ok(())
            }
            OfAction::PushVlan(tpid) => {
                if ![0x8100, 0x88a8].contains(tpid) {
                    return Err(FlowModError::BadArgument);
                }
                self.inner_tag = self.is_tagged();
                self.write(Field::VlanVid, PRESENT, PRESENT);
                Ok(())
            }
            OfAction::PopVlan => {
                if !self.is_tagged() {
                    return Err(FlowModError::MatchInconsistent);
                }
                Field::VlanTci.write(&mut self.mask, 0);
                if std::mem::take(&mut self.inner_tag) {
                    self.write(Field::VlanVid, PRESENT, PRESENT);
                }
                Ok(())
            }
            OfAction::SetNwTtl(_) | OfAction::DecNwTtl => self.require(Field::NwTtl),
            OfAction::Resubmit { port, table } => {
                if table.is_some_and(|table| usize::from(table) >= TABLE_COUNT) {
                    return Err(FlowModError::BadArgument);
                }
                if *port == PortNo::IN_PORT || is_port(*port) { Ok(()) } else { Err(FlowModError::BadArgument) }
            }
            OfAction::Controller { .. } => Ok(()),
            OfAction::SetQueue(_) => Err(FlowModError::BadQueue),
            OfAction::Group(_) => Err(FlowModError::BadOutGroup),
        }
    }

    fn set(&mut self, field: Field, value: u128, mask: u128) -> Result<(), FlowModError> {
        self.check_target(field)?;
        let untags = field == Field::VlanVid && mask & !value & PRESENT != 0;
        if mask & !field.ones() != 0 || mask == 0 || value & !mask != 0 || untags {
            return Err(FlowModError::BadSetArgument);
        }
        self.write(field, value, mask);
        Ok(())
    }

    fn write(&mut self, field: Field, value: u128, mask: u128) {
        let (old_value, old_mask) = (field.read(&self.value), field.read(&self.mask));
        field.write(&mut self.value, old_value & !mask | value);
        field.write(&mut self.mask, old_mask | mask);
    }

    fn is_tagged(&self) -> bool {
        self.require(Field::VlanPcp).is_ok()
    }

    fn check_target(&self, field: Field) -> Result<(), FlowModError> {
        if field.info().writable { self.require(field) } else { Err(FlowModError::BadSetType) }
    }

    /// That the frames have `field`.
    fn require(&self, field: Field) -> Result<(), FlowModError> {
        let met = field.info().prerequisite.is_met(&self.value, &self.mask);
        if met { Ok(()) } else { Err(FlowModError::MatchInconsistent) }
    }
}

/// Ones in as many low bits as the range has.
fn range_ones(range: FieldRange) -> Result<u128, FlowModError> {
    let fits = range.bits > 0 && u32::from(range.offset) + u32::from(range.bits) <= u32::from(range.field.bits());
    if fits { Ok(u128::MAX >> (128 - range.bits)) } else { Err(FlowModError::BadArgument) }
}

/// Whether a port of the switch may have this number, now or later.
pub(super) fn is_port(no: PortNo) -> bool {
    (PortNo(1)..=PortNo::MAX).contains(&no) || no == PortNo::LOCAL
}

/// Rules may name ports that do not exist yet: frames for them are dropped meanwhile (OpenFlow 1.3.5, 6.4).
fn check_output(port: PortNo) -> Result<(), FlowModError> {
    match port {
        PortNo::IN_PORT | PortNo::NORMAL | PortNo::FLOOD | PortNo::ALL | PortNo::CONTROLLER => Ok(()),
        port if is_port(port) => Ok(()),
        _ => Err(FlowModError::BadOutPort),
    }
}

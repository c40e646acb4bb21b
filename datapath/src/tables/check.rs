//! What is checked of a flow-mod or a bucket before anything is changed.
//!
//! An action has to make sense for every frame that the rule matches, as far as the match tells: what an action needs of a frame (a VLAN tag,
//! an IP header) must be asked for by the match, or be there by an earlier action. So the check follows the actions with a match of its
//! own: what is known of the frame at each point. Whoever can't know that (a bucket, OpenFlow 1.0) is lenient.

use super::flow_mod::{FlowMod, FlowModError};
use super::group::BucketSpec;
use super::instruction::{Instructions, Learn, LearnSource, LearnTarget, OfAction, each_action};
use super::{TABLE_COUNT, Tables, action_set};
use crate::key::{Field, FieldRange, Flow, FlowMask, Match};
use crate::port::{PortNo, QUEUES};
use crate::wire::ethernet::ethertype;

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
pub(super) fn check_instructions(flow_mod: &FlowMod, tables: &Tables) -> Result<(), FlowModError> {
    let instructions = &flow_mod.instructions;
    let Instructions { meter, apply, clear: _, write, metadata: _, goto } = instructions;
    if meter.is_some_and(|meter| tables.meter(meter).is_none()) {
        return Err(FlowModError::UnknownMeter);
    }
    if goto.is_some_and(|to| to <= flow_mod.table || usize::from(to) >= TABLE_COUNT) {
        return Err(FlowModError::BadGotoTable);
    }
    check_conjunctions(instructions)?;
    let mut known = Known::new(&flow_mod.matching, flow_mod.lenient, tables);
    apply.iter().try_for_each(|action| known.follow(action))?;
    known.follow_set(write)
}

/// Whether a bucket's actions can be carried out on frames that have what they need.
pub(super) fn check_bucket(bucket: &BucketSpec, tables: &Tables) -> Result<(), FlowModError> {
    Known::new(&Match::ANY, true, tables).follow_set(&bucket.actions)
}

/// Whether the actions of a packet-out can be carried out on frames that have what they need. They alone may begin at the first table.
pub(super) fn check_packet_out(actions: &[OfAction], tables: &Tables) -> Result<(), FlowModError> {
    let mut known = Known::new(&Match::ANY, true, tables);
    actions.iter().filter(|action| action.port() != Some(PortNo::TABLE)).try_for_each(|action| known.follow(action))
}

/// A rule of clauses has nothing else to do: it is never carried out.
fn check_conjunctions(instructions: &Instructions) -> Result<(), FlowModError> {
    let (mut clauses, mut others) = (false, instructions.meter.is_some() || instructions.clear || instructions.goto.is_some());
    others |= instructions.metadata.is_some() || !instructions.write.is_empty();
    each_action(&instructions.apply, &mut |action| match action {
        OfAction::Conjunction { .. } => clauses = true,
        OfAction::Note(_) => {}
        _ => others = true,
    });
    if clauses && others { Err(FlowModError::BadConjunction) } else { Ok(()) }
}

/// What is known of the frames at some point of the actions.
#[derive(Clone)]
struct Known<'a> {
    value: Flow,
    mask: FlowMask,
    /// Whether there is certainly a second tag.
    inner_tag: bool,
    lenient: bool,
    tables: &'a Tables,
}

impl<'a> Known<'a> {
    fn new(matching: &Match, lenient: bool, tables: &'a Tables) -> Self {
        Self { value: *matching.value(), mask: *matching.mask(), inner_tag: false, lenient, tables }
    }

    /// Checks the actions of an action set, which is carried out in an order of its own (OpenFlow 1.3.5, 5.10). That frames have a tag to be popped and a
    /// TTL may only show in a later table, so it is not asked for here; a frame without is left as it is.
    fn follow_set(mut self, actions: &[OfAction]) -> Result<(), FlowModError> {
        if actions.is_empty() {
            return Ok(());
        }
        if !actions.iter().all(action_set::may_be_written) {
            return Err(FlowModError::BadActionType);
        }
        for action in action_set::in_order(actions).iter() {
            let needs_frame = match action {
                OfAction::PopVlan => !self.is_tagged(),
                OfAction::PopMpls(_) => !self.has(Field::MplsLabel),
                OfAction::PopPbb => !self.has(Field::PbbIsid),
                OfAction::SetNwTtl(_) | OfAction::DecNwTtl => !self.has(Field::NwTtl),
                OfAction::SetMplsTtl(_) | OfAction::DecMplsTtl | OfAction::CopyTtlIn | OfAction::CopyTtlOut => !self.has(Field::MplsTtl),
                _ => false,
            };
            if !needs_frame {
                self.follow(action)?;
            }
        }
        // An output that a group makes superfluous is none of those in order.
        actions.iter().filter(|action| action.port().is_some()).try_for_each(|action| self.follow(action))
    }

    /// Checks one action, and goes on to what is known after it.
    fn follow(&mut self, action: &OfAction) -> Result<(), FlowModError> {
        match action {
            OfAction::Output { port, .. } => check_output(*port),
            OfAction::OutputField { source, .. } => self.check_source(*source).map(|_| ()),
            OfAction::Enqueue { port, queue } => check_output(*port).and(check_queue(*queue)),
            OfAction::SetQueue(queue) => check_queue(*queue),
            OfAction::SetField { field, value, mask } => self.set(*field, *value, *mask),
            OfAction::Load { destination, value } => {
                let ones = range_ones(*destination)?;
                if u128::from(*value) & !ones != 0 {
                    return Err(FlowModError::BadSetArgument);
                }
                self.set(destination.field, u128::from(*value) << destination.offset, ones << destination.offset)
            }
            OfAction::Move { source, destination } => {
                if self.check_source(*source)? != range_ones(*destination)? {
                    return Err(FlowModError::BadArgument);
                }
                self.overwrite(*destination)
            }
            OfAction::StackPush(source) => self.check_source(*source).map(|_| ()),
            OfAction::StackPop(destination) => self.overwrite(*destination),
            OfAction::PushVlan(tpid) => {
                if ![ethertype::VLAN, ethertype::SERVICE_VLAN].contains(tpid) {
                    return Err(FlowModError::BadArgument);
                }
                self.inner_tag = self.is_tagged();
                self.write(Field::VlanVid, PRESENT, PRESENT);
                Ok(())
            }
            OfAction::PopVlan => {
                self.require(Field::VlanPcp)?;
                self.forget(Field::VlanTci);
                if std::mem::take(&mut self.inner_tag) {
                    self.write(Field::VlanVid, PRESENT, PRESENT);
                }
                Ok(())
            }
            OfAction::SetVlanVid(vid) if u128::from(*vid) >= PRESENT => Err(FlowModError::BadArgument),
            OfAction::SetVlanPcp(pcp) if *pcp > 7 => Err(FlowModError::BadArgument),
            OfAction::SetVlanVid(_) | OfAction::SetVlanPcp(_) => {
                self.write(Field::VlanVid, PRESENT, PRESENT);
                Ok(())
            }
            OfAction::PushMpls(kind) => {
                if !ethertype::is_mpls(*kind) {
                    return Err(FlowModError::BadArgument);
                }
                self.change_type(Some(*kind));
                Ok(())
            }
            OfAction::PopMpls(kind) => {
                self.require(Field::MplsLabel)?;
                self.change_type(Some(*kind));
                Ok(())
            }
            OfAction::PushPbb => {
                self.change_type(Some(ethertype::PBB));
                self.inner_tag = false;
                self.write(Field::VlanTci, 0, Field::VlanTci.ones());
                Ok(())
            }
            OfAction::PopPbb => {
                self.require(Field::PbbIsid)?;
                self.change_type(None);
                self.inner_tag = false;
                [Field::VlanTci, Field::EthDst, Field::EthSrc].into_iter().for_each(|field| self.forget(field));
                Ok(())
            }
            OfAction::SetNwTtl(_) | OfAction::DecNwTtl | OfAction::DecNwTtlFor(_) => self.require(Field::NwTtl),
            OfAction::SetMplsTtl(_) | OfAction::DecMplsTtl | OfAction::CopyTtlOut | OfAction::CopyTtlIn => self.require(Field::MplsTtl),
            OfAction::Resubmit { port, table } => {
                if table.is_some_and(|table| usize::from(table) >= TABLE_COUNT) {
                    return Err(FlowModError::BadArgument);
                }
                if *port == PortNo::IN_PORT || is_port(*port) { Ok(()) } else { Err(FlowModError::BadArgument) }
            }
            OfAction::Controller { .. } | OfAction::PopQueue | OfAction::Exit | OfAction::Note(_) => Ok(()),
            OfAction::Group(group) if self.tables.group(*group).is_none() => Err(FlowModError::BadOutGroup),
            OfAction::Group(_) => Ok(()),
            OfAction::Clone(actions) => {
                let mut copy = self.clone();
                actions.iter().try_for_each(|action| copy.follow(action))
            }
            OfAction::Multipath(multipath) => self.overwrite(multipath.destination),
            OfAction::Bundle(bundle) => bundle.destination.map_or(Ok(()), |destination| self.overwrite(destination)),
            OfAction::Learn(learn) => self.check_learn(learn),
            OfAction::Conjunction { clause, clauses, .. } => {
                let can_be = (2..=64).contains(clauses) && clause < clauses;
                if can_be { Ok(()) } else { Err(FlowModError::BadConjunction) }
            }
        }
    }

    fn set(&mut self, field: Field, value: u128, mask: u128) -> Result<(), FlowModError> {
        self.check_target(field)?;
        let untags = field == Field::VlanVid && mask & !value & PRESENT != 0;
        if mask & !field.ones() != 0 || mask == 0 || value & !mask != 0 || untags {
            return Err(FlowModError::BadSetArgument);
        }
        if field == Field::VlanVid {
            // The field has no prerequisite, because it says itself whether there is a tag. But only a tag's can be written.
            self.require(Field::VlanPcp)?;
        }
        self.write(field, value, mask);
        Ok(())
    }

    /// Checks that bits of a field can be written with something that is not known here.
    fn overwrite(&mut self, destination: FieldRange) -> Result<(), FlowModError> {
        let ones = range_ones(destination)?;
        self.check_target(destination.field)?;
        let known = destination.field.read(&self.mask) & !(ones << destination.offset);
        destination.field.write(&mut self.mask, known);
        Ok(())
    }

    fn write(&mut self, field: Field, value: u128, mask: u128) {
        let (old_value, old_mask) = (field.read(&self.value), field.read(&self.mask));
        field.write(&mut self.value, old_value & !mask | value);
        field.write(&mut self.mask, old_mask | mask);
    }

    fn forget(&mut self, field: Field) {
        field.write(&mut self.mask, 0);
    }

    /// Another header begins behind the Ethernet header and its tags: nothing of it is known but its type, if that is.
    fn change_type(&mut self, kind: Option<u16>) {
        let fields = Field::ALL.iter().filter(|field| field.is_behind_ethernet());
        fields.for_each(|field| self.forget(*field));
        match kind {
            Some(kind) => self.write(Field::EthType, kind.into(), Field::EthType.ones()),
            None => self.forget(Field::EthType),
        }
    }

    fn is_tagged(&self) -> bool {
        self.has(Field::VlanPcp)
    }

    fn check_target(&self, field: Field) -> Result<(), FlowModError> {
        if field.info().writable { self.require(field) } else { Err(FlowModError::BadSetType) }
    }

    /// Checks that bits of a field can be read, and returns ones in as many low bits.
    fn check_source(&self, source: FieldRange) -> Result<u128, FlowModError> {
        self.require(source.field)?;
        range_ones(source)
    }

    /// Whether the frames certainly have `field`.
    fn has(&self, field: Field) -> bool {
        field.info().prerequisite.is_met(&self.value, &self.mask)
    }

    /// That the frames have `field`.
    fn require(&self, field: Field) -> Result<(), FlowModError> {
        if self.lenient || self.has(field) { Ok(()) } else { Err(FlowModError::MatchInconsistent) }
    }

    fn check_learn(&self, learn: &Learn) -> Result<(), FlowModError> {
        if usize::from(learn.table) >= TABLE_COUNT {
            return Err(FlowModError::BadArgument);
        }
        let range =
            |field: FieldRange, bits: u16| if u16::from(field.bits) == bits { range_ones(field) } else { Err(FlowModError::BadArgument) };
        for spec in &learn.specs {
            let ones = match spec.source {
                LearnSource::Field(source) => {
                    self.require(source.field)?;
                    range(source, spec.bits)?
                }
                LearnSource::Value(value) => {
                    let ones = u128::MAX.checked_shr(128 - u32::from(spec.bits.min(128))).unwrap_or(0);
                    if spec.bits > 128 || value & !ones != 0 {
                        return Err(FlowModError::BadArgument);
                    }
                    ones
                }
            };
            match spec.target {
                LearnTarget::Match(field) => range(field, spec.bits).map(|_| ())?,
                LearnTarget::Load(field) if !field.field.info().writable => return Err(FlowModError::BadSetArgument),
                LearnTarget::Load(field) => range(field, spec.bits).map(|_| ())?,
                LearnTarget::Output if ones > u128::from(u32::MAX) => return Err(FlowModError::BadArgument),
                LearnTarget::Output => {}
            }
        }
        Ok(())
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

fn check_queue(queue: u32) -> Result<(), FlowModError> {
    if queue < QUEUES { Ok(()) } else { Err(FlowModError::BadQueue) }
}

//! Actions, carried out on a flow one by one (OpenFlow 1.3.5, 5.12, and Nicira's extensions).

use std::sync::Arc;

use super::pipeline::{Next, Pipeline, Stop};
use super::todo::Todo;
use super::{Observer, hashing};
use crate::action::{Action, OFPR_ACTION, OFPR_INVALID_TTL, OFPR_NO_MATCH, ToController};
use crate::by_address::ByAddress;
use crate::drops::DropReason;
use crate::key::vlan::PRESENT;
use crate::key::{Field, FieldRange, FlowMask, KEY_WORDS, Prerequisite};
use crate::port::PortNo;
use crate::tables::PortConfig;
use crate::tables::instruction::{CONTROLLER_WHOLE, OfAction};
use crate::tables::meter::METER_CONTROLLER;
use crate::wire::ethernet::ethertype;

/// The most values that Nicira's stack holds, as in Open vSwitch.
const STACK_MAX: usize = 1024;

impl<'a, O: Observer + ?Sized> Pipeline<'a, O> {
    /// Carries out an action. If it looks at what is unknown, it has done nothing.
    pub(super) fn action(&mut self, action: &OfAction) -> Result<Next<'a>, Stop> {
        match action {
            OfAction::Output { port, max_len } => return self.output(*port, *max_len),
            OfAction::OutputField { source, max_len } => {
                let port = PortNo(self.read(*source)? as u32);
                return if port == PortNo::TABLE { Ok(Next::Action) } else { self.output(port, *max_len) };
            }
            OfAction::Enqueue { port, queue } => {
                let queue = std::mem::replace(&mut self.queue, *queue);
                let next = self.output(*port, CONTROLLER_WHOLE);
                self.queue = queue;
                return next;
            }
            OfAction::SetQueue(queue) => self.queue = *queue,
            OfAction::PopQueue => self.queue = 0,
            OfAction::SetField { field, value, mask } => self.set(*field, *value, *mask)?,
            OfAction::SetNwTtl(ttl) => self.set(Field::NwTtl, (*ttl).into(), 0xff)?,
            OfAction::SetMplsTtl(ttl) => self.set(Field::MplsTtl, (*ttl).into(), 0xff)?,
            OfAction::Load { destination, value } => self.write(*destination, (*value).into())?,
            OfAction::Move { source, destination } => {
                if self.flow.meets(source.field.info().prerequisite)? {
                    let value = self.read(*source)?;
                    self.write(*destination, value)?;
                }
            }
            OfAction::StackPush(source) => {
                let value = self.read(*source)?;
                if self.stack.len() >= STACK_MAX {
                    return Err(DropReason::TooManyTables.into());
                }
                self.stack.push(value);
            }
            OfAction::StackPop(destination) => {
                if let Some(value) = self.stack.last().copied() {
                    self.write(*destination, value)?;
                    self.stack.pop();
                }
            }
            OfAction::PushVlan(tpid) => self.push_vlan(*tpid)?,
            OfAction::PopVlan => self.pop_vlan()?,
            OfAction::SetVlanVid(vid) => self.set_tci(u128::from(*vid & 0x0fff | PRESENT), 0x1fff)?,
            OfAction::SetVlanPcp(pcp) => self.set_tci(u128::from(u16::from(*pcp) << 13 | PRESENT), 0xf000)?,
            OfAction::PushMpls(kind) => {
                self.flow.push_mpls(*kind)?;
                self.make(Action::PushMpls(*kind))?;
            }
            OfAction::PopMpls(kind) => {
                if self.flow.meets(Prerequisite::Mpls)? {
                    self.flow.pop_mpls(*kind);
                    self.make(Action::PopMpls(*kind))?;
                }
            }
            OfAction::PushPbb => {
                self.flow.push_pbb()?;
                self.make(Action::PushPbb)?;
            }
            OfAction::PopPbb => {
                if self.flow.meets(Prerequisite::Pbb)? {
                    self.flow.pop_pbb();
                    self.make(Action::PopPbb)?;
                }
            }
            OfAction::DecNwTtl => self.decrement_ttl(&[0])?,
            OfAction::DecNwTtlFor(controllers) => self.decrement_ttl(controllers)?,
            OfAction::DecMplsTtl => {
                if self.flow.meets(Prerequisite::Mpls)? {
                    self.flow.change_mpls_ttl();
                    let expired = self.expired(&[0]);
                    self.make(Action::DecMplsTtl { expired })?;
                }
            }
            OfAction::CopyTtlOut | OfAction::CopyTtlIn => {
                if self.flow.meets(Prerequisite::Mpls)? {
                    self.flow.change_mpls_ttl();
                    let out = *action == OfAction::CopyTtlOut;
                    self.make(if out { Action::CopyTtlOut } else { Action::CopyTtlIn })?;
                }
            }
            OfAction::Resubmit { port, table } => {
                let table = table.unwrap_or(self.rule.map_or(0, |rule| rule.table));
                return Ok(Next::Step(Todo::Resubmit(*port, table)));
            }
            OfAction::Controller { max_len, controller_id, reason, userdata } => {
                let to = ToController { userdata: userdata.clone(), ..self.to_controller(*max_len, *reason, *controller_id) };
                self.give(to)?;
            }
            OfAction::Group(group) => match self.tables.group(*group) {
                Some(group) => return Ok(Next::Step(Todo::Group(group))),
                // A rule goes with its group; only a packet-out may name one that is not there.
                None => self.stop(DropReason::NoBucket),
            },
            OfAction::Clone(actions) => return Ok(Next::Step(Todo::Copy(actions.clone()))),
            OfAction::Exit => return Ok(Next::Exit),
            OfAction::Multipath(multipath) => {
                let number = hashing::multipath(multipath, self.flow)?;
                self.write(multipath.destination, number.into())?;
            }
            OfAction::Bundle(bundle) => {
                let chosen = hashing::bundle(bundle, self.tables.ports(), self.flow)?;
                match (bundle.destination, chosen) {
                    (Some(destination), chosen) => self.write(destination, chosen.map_or(0xffff, |port| port.0).into())?,
                    (None, Some(port)) => return self.output(port, 0),
                    (None, None) => self.stop(DropReason::NoBucket),
                }
            }
            OfAction::Learn(learn) => self.learn_rule(learn)?,
            OfAction::Note(_) | OfAction::Conjunction { .. } => {}
        }
        Ok(Next::Action)
    }

    fn output(&mut self, port: PortNo, max_len: u16) -> Result<Next<'a>, Stop> {
        match port {
            PortNo::IN_PORT => self.send(self.in_port())?,
            PortNo::TABLE => return Ok(Next::Step(Todo::Table(0))),
            PortNo::NORMAL => self.normal()?,
            PortNo::FLOOD | PortNo::ALL => {
                let (tables, in_port) = (self.tables, self.in_port());
                for to in tables.ports().iter().filter(|to| to.link_up && to.no != in_port) {
                    if port == PortNo::ALL || !to.config.intersects(PortConfig::NO_FLOOD) {
                        self.send(to.no)?;
                    }
                }
            }
            PortNo::CONTROLLER => {
                // A rule that matches everything at the lowest priority is the table-miss rule.
                let missed = self.rule.is_some_and(|rule| rule.priority == 0 && rule.matching.expand().mask() == &FlowMask::ZERO);
                let to = self.to_controller(max_len, if missed { OFPR_NO_MATCH } else { OFPR_ACTION }, 0);
                self.give(to)?;
            }
            port if port == self.in_port() => self.stop(DropReason::NoDestination),
            port => self.send(port)?,
        }
        Ok(Next::Action)
    }

    /// Sends to a port of the switch, whichever it is, if it takes frames.
    pub(super) fn send(&mut self, port: PortNo) -> Result<(), DropReason> {
        if self.tables.ports().get(port).is_some_and(|port| port.forwards()) {
            self.make_output(port)
        } else {
            self.stop(DropReason::NoDestination);
            Ok(())
        }
    }

    /// Adds an output through the queue that is set.
    pub(super) fn make_output(&mut self, port: PortNo) -> Result<(), DropReason> {
        self.make(if self.queue == 0 { Action::Output(port) } else { Action::Enqueue(port, self.queue) })
    }

    pub(super) fn give(&mut self, to: ToController) -> Result<(), DropReason> {
        let wanted = |config: PortConfig| to.reason != OFPR_NO_MATCH || !config.intersects(PortConfig::NO_PACKET_IN);
        if self.tables.ports().get(self.in_port()).is_some_and(|port| !wanted(port.config)) {
            self.stop(DropReason::NoMatch);
            return Ok(());
        }
        self.make(Action::Controller(Box::new(to)))
    }

    pub(super) fn to_controller(&self, max_len: u16, reason: u8, controller_id: u16) -> ToController {
        let (table, cookie) = self.rule.map_or((0, u64::MAX), |rule| (rule.table, rule.cookie));
        // The state words are constants or copies of what was examined.
        let state = std::array::from_fn(|i| self.flow.flow().0[KEY_WORDS + i]);
        let meter = self.tables.meter(METER_CONTROLLER).cloned().map(ByAddress);
        ToController { max_len, reason, controller_id, table, cookie, state, userdata: Arc::default(), meter }
    }

    /// The bits of a range, which are examined.
    fn read(&mut self, range: FieldRange) -> Result<u128, Stop> {
        Ok(self.flow.read(range.field, bits(range))? >> range.offset)
    }

    /// Writes a constant into the bits of a range, as far as it has them.
    fn write(&mut self, range: FieldRange, value: u128) -> Result<(), Stop> {
        self.set(range.field, value.checked_shl(range.offset.into()).unwrap_or(0), bits(range))
    }

    /// Writes constants into the bits `mask` of a field, if the frame has it.
    fn set(&mut self, field: Field, value: u128, mask: u128) -> Result<(), Stop> {
        let mask = mask & field.ones();
        let value = value & mask;
        let prerequisite = field.info().prerequisite;
        if mask == 0 || !self.flow.meets(prerequisite)? || prerequisite.is_of_transport() && self.flow.is_later_fragment()? {
            return Ok(());
        }
        if field.is_behind_ethernet() && prerequisite != Prerequisite::Mpls {
            self.flow.must_know_headers()?;
        }
        match field {
            Field::InPortNxm => {
                let old = self.flow.read(field, field.ones() & !mask)?;
                self.flow.write(Field::InPort, widen_port(old | value), Field::InPort.ones());
                Ok(())
            }
            Field::VlanTci => self.set_tci(value, mask),
            // Bit 12 says that there is a tag. This is no way to push or pop one.
            Field::VlanVid if !self.flow.is_tagged()? => Ok(()),
            Field::VlanVid => self.set_bits(field, value, mask & !u128::from(PRESENT)),
            _ => self.set_bits(field, value, mask),
        }
    }

    fn set_bits(&mut self, field: Field, value: u128, mask: u128) -> Result<(), Stop> {
        let value = value & mask;
        if field.may_be_missing() {
            // Only the frame tells whether it has a place for it.
            self.flow.doubt_field(field);
        } else {
            self.flow.write(field, value, mask);
        }
        // The ingress port and a tunnel's key are in no frame.
        if mask == 0 || field.is_state() || matches!(field, Field::InPort | Field::TunnelId) {
            return Ok(());
        }
        Ok(self.make(Action::Set { field, value, mask })?)
    }

    /// Nicira's VLAN TCI is written with all that it says: bit 12 pushes or pops a tag.
    fn set_tci(&mut self, value: u128, mask: u128) -> Result<(), Stop> {
        let present = u128::from(PRESENT);
        let mut tagged = self.flow.is_tagged()?;
        if mask & present != 0 {
            match (tagged, value & present != 0) {
                (false, true) => {
                    self.push_vlan(ethertype::VLAN)?;
                    tagged = true;
                }
                (true, false) => return self.pop_vlan(),
                _ => {}
            }
        }
        if tagged { self.set_bits(Field::VlanTci, value, mask & !present) } else { Ok(()) }
    }

    fn push_vlan(&mut self, tpid: u16) -> Result<(), Stop> {
        self.flow.push_vlan()?;
        Ok(self.make(Action::PushVlan(tpid))?)
    }

    fn pop_vlan(&mut self) -> Result<(), Stop> {
        if self.flow.is_tagged()? {
            self.flow.pop_vlan()?;
            self.make(Action::PopVlan)?;
        }
        Ok(())
    }

    fn decrement_ttl(&mut self, controllers: &[u16]) -> Result<(), Stop> {
        if self.flow.meets(Prerequisite::Ip)? {
            self.flow.decrement_ttl()?;
            let expired = self.expired(controllers);
            self.make(Action::DecTtl { expired })?;
        }
        Ok(())
    }

    /// How frames whose TTL ran out are given to the controllers with these ids, if any wants them.
    fn expired(&self, controllers: &[u16]) -> Box<[ToController]> {
        let wanted = self.tables.invalid_ttl_to_controller();
        let ids = controllers.iter().filter(|_| wanted);
        ids.map(|id| self.to_controller(CONTROLLER_WHOLE, OFPR_INVALID_TTL, *id)).collect()
    }
}

/// The bits of a range, in their places.
fn bits(range: FieldRange) -> u128 {
    u128::MAX.checked_shr(128 - u32::from(range.bits)).unwrap_or(0).checked_shl(range.offset.into()).unwrap_or(0)
}

/// OpenFlow 1.0's 16 bits of a port number in 32: the reserved ports, from 0xff00, move up.
fn widen_port(port: u128) -> u128 {
    if port >= 0xff00 { port | 0xffff_0000 } else { port }
}

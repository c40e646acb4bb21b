//! NORMAL: a learning switch that knows VLANs (IEEE 802.1Q).
//!
//! The frame's VLAN follows from its tag and the mode of its ingress port. Its source address is learned in that VLAN. It goes to the port
//! where its destination was learned, or to all ports that carry the VLAN; each gets it with or without a tag, as its mode says. What needs another
//! tag than the frame has is done to a copy, so that the actions that follow NORMAL see the frame as it came.

use super::pipeline::{Pipeline, Stop};
use super::{Observer, Sighting, Step};
use crate::action::Action;
use crate::drops::DropReason;
use crate::key::Field;
use crate::port::PortNo;
use crate::tables::{MacDependency, Port, PortConfig, VlanMode};
use crate::wire::ethernet::ethertype;
use crate::wire::vlan::VID;

/// Addresses that bridges keep for themselves, but for the last four bits (IEEE 802.1Q, 8.6.3).
const RESERVED: u64 = 0x0180_c200_0000;
/// The bit of an address that says that it is a group's.
const GROUP: u64 = 1 << 40;

impl<O: Observer + ?Sized> Pipeline<'_, O> {
    pub(super) fn normal(&mut self) -> Result<(), Stop> {
        let destination = self.flow.read(Field::EthDst, Field::EthDst.ones())? as u64;
        if destination & !0xf == RESERVED {
            self.stop(DropReason::Reserved);
            return Ok(());
        }
        // A frame from none of the switch's ports, in a packet-out, may have any VLAN, and teaches nothing.
        let tables = self.tables;
        let ingress = tables.ports().get(self.in_port());
        let any = VlanMode::default();
        let mode = ingress.map_or(&any, |port| &port.vlan);
        let tag = if self.flow.is_tagged()? { Some(self.flow.read(Field::VlanTci, VID.into())? as u16) } else { None };
        let Some(vlan) = mode.ingress(tag) else {
            self.stop(DropReason::VlanIngress);
            return Ok(());
        };
        self.observe(Step::Vlan(vlan));
        if let Some(ingress) = ingress {
            self.sight(vlan, ingress.no)?;
        }
        let known = if destination & GROUP == 0 { self.destination(vlan, destination) } else { None };
        let carries = |port: &&Port| port.vlan.carries(vlan);
        match known.and_then(|port| tables.ports().get(port)).map(|port| &**port).filter(carries) {
            Some(port) if port.no == self.in_port() => {
                self.observe(Step::Known(port.no));
                self.stop(DropReason::NoDestination);
                Ok(())
            }
            Some(port) => {
                self.observe(Step::Known(port.no));
                Ok(self.send_in_vlan(vlan, tag, [port].into_iter())?)
            }
            None => {
                self.observe(Step::Flood);
                let in_port = self.in_port();
                let open = |port: &&Port| port.no != in_port && port.link_up && !port.config.intersects(PortConfig::NO_FLOOD);
                Ok(self.send_in_vlan(vlan, tag, tables.ports().iter().map(|port| &**port).filter(carries).filter(open))?)
            }
        }
    }

    /// Learns where the source address is. The outcome rests on it staying there: once it has moved, frames from here are to teach again.
    fn sight(&mut self, vlan: u16, port: PortNo) -> Result<(), Stop> {
        let mac = self.flow.read(Field::EthSrc, Field::EthSrc.ones())? as u64;
        if mac & GROUP != 0 {
            return Ok(());
        }
        let macs = self.tables.macs();
        let dependency = if self.learn {
            macs.learn(vlan, mac, port, self.now)
        } else {
            // The station is elsewhere: its next frame from here has to teach, so nobody may go by this translation.
            let (at, dependency) = macs.lookup(vlan, mac);
            if at == Some(port) { dependency } else { MacDependency::NEVER }
        };
        self.observe(Step::Learn(vlan, mac, port));
        self.said.effects.dependencies.push(dependency);
        self.said.effects.sightings.push(Sighting { vlan, mac, port });
        Ok(())
    }

    /// Where a station was learned.
    fn destination(&mut self, vlan: u16, mac: u64) -> Option<PortNo> {
        let (port, dependency) = self.tables.macs().lookup(vlan, mac);
        self.said.effects.dependencies.push(dependency);
        port
    }

    /// Sends a frame, which has the tag `tag`, to `ports`, each in the form that its mode asks for.
    fn send_in_vlan<'p>(&mut self, vlan: u16, tag: Option<u16>, ports: impl Iterator<Item = &'p Port> + Clone) -> Result<(), DropReason> {
        let before = self.said.actions.len();
        let as_it_is = |tagged: bool| if tagged { tag == Some(vlan) } else { tag.is_none() };
        // Copies come last, so that nothing is copied for the ports that take the frame as it is.
        let mut forms = [false, true];
        forms.sort_by_key(|tagged| !as_it_is(*tagged));
        for tagged in forms {
            let first = self.said.actions.len();
            if !as_it_is(tagged) {
                match (tagged, tag) {
                    (false, _) => self.make(Action::PopVlan)?,
                    (true, tag) => {
                        if tag.is_none() {
                            self.make(Action::PushVlan(ethertype::VLAN))?;
                        }
                        self.make(Action::Set { field: Field::VlanVid, value: vlan.into(), mask: VID.into() })?;
                    }
                }
            }
            let sent = self.said.actions.len();
            for port in ports.clone().filter(|port| port.forwards() && port.vlan.tags(vlan) == tagged) {
                self.make_output(port.no)?;
            }
            if self.said.actions.len() == sent {
                self.said.actions.truncate(first);
            } else if !as_it_is(tagged) {
                let copy = self.said.actions.drain(first..).collect();
                self.said.actions.push(Action::Copy(copy));
            }
        }
        if self.said.actions.len() == before {
            self.stop(DropReason::NoDestination);
        }
        Ok(())
    }
}

//! Ports: what comes and goes, port-status and port-mod.

use std::sync::Arc;

use datapath::Nanos;
use datapath::port::PortNo;
use datapath::tables::{Port, PortConfig, PortError, VlanMode};

use super::Agent;
use super::changes::Changes;
use crate::openflow::wire::error::PortModFailed;
use crate::openflow::wire::{ErrorCode, LINK_DOWN, LIVE, Message, PortDesc, PortMod, PortReason, PortStatus};

impl Agent {
    /// Adds a port to the draft and tells the controllers.
    pub fn add_port(&mut self, port: Port, now: Nanos) -> Result<Arc<Port>, PortError> {
        let port = self.draft.add_port(port)?;
        self.port_ages.insert(port.no, now);
        self.tell_of_port(&port, PortReason::Add);
        Ok(port)
    }

    /// Removes a port from the draft and tells the controllers.
    pub fn remove_port(&mut self, no: PortNo) -> Option<Arc<Port>> {
        let port = self.draft.remove_port(no)?;
        self.port_ages.remove(&no);
        self.tell_of_port(&port, PortReason::Delete);
        Some(port)
    }

    /// Says whether somebody is at the other end of a port.
    pub fn set_link(&mut self, no: PortNo, up: bool) -> Result<(), PortError> {
        if self.draft.ports().get(no).is_some_and(|port| port.link_up == up) {
            return Ok(());
        }
        let port = self.draft.set_link(no, up)?;
        self.tell_of_port(&port, PortReason::Modify);
        Ok(())
    }

    /// Says how the network device behind a port is.
    pub fn set_device(&mut self, no: PortNo, up: bool, mtu: u16, speed: Option<u32>) -> Result<(), PortError> {
        if self.draft.ports().get(no).is_some_and(|port| (port.link_up, port.mtu, port.speed) == (up, mtu, speed)) {
            return Ok(());
        }
        let port = self.draft.set_device(no, up, mtu, speed)?;
        self.tell_of_port(&port, PortReason::Modify);
        Ok(())
    }

    /// Changes how a port carries VLANs, which controllers are not told.
    pub fn set_vlan(&mut self, no: PortNo, vlan: VlanMode) -> Result<(), PortError> {
        self.urgent = true;
        self.draft.set_vlan(no, vlan).map(|_| ())
    }

    pub(super) fn port_mod(&mut self, port_mod: &PortMod, changes: &mut Changes) -> Result<(), ErrorCode> {
        let PortMod { number, hw_addr, config, mask, advertise } = *port_mod;
        if advertise != 0 {
            return Err(PortModFailed::BadAdvertise.into());
        }
        let before = self.draft.ports().get(number).map(|port| port.config);
        let port = self.draft.modify_port(number, hw_addr, config, mask).map_err(|error| match error {
            PortError::BadHwAddr(_) => PortModFailed::BadHwAddr,
            PortError::BadConfig(_) => PortModFailed::BadConfig,
            _ => PortModFailed::BadPort,
        })?;
        if before != Some(port.config) {
            changes.ports.push(port);
        }
        Ok(())
    }

    pub(super) fn tell_of_port(&mut self, port: &Port, reason: PortReason) {
        self.urgent = true;
        let message = Message::PortStatus(PortStatus { reason, port: port_desc(port) });
        for session in self.sessions.values_mut().filter(|session| session.wants(session.wants.port_status, reason as u8)) {
            session.send(&message, 0);
        }
    }
}

/// A port as controllers see it.
pub(super) fn port_desc(port: &Port) -> PortDesc {
    let live = port.link_up && !port.config.intersects(PortConfig::PORT_DOWN);
    let speed = port.speed.unwrap_or_default();
    let feature = features_of(speed);
    PortDesc {
        number: port.no,
        hw_addr: port.hw_addr,
        name: port.name.clone(),
        config: port.config,
        state: if live { LIVE } else { u32::from(!port.link_up) * LINK_DOWN },
        // What is advertised, by whom, is between the device and its peer.
        features: [feature, 0, feature, 0],
        current_speed: speed.saturating_mul(1000),
        max_speed: speed.saturating_mul(1000),
    }
}

/// The bit of `ofp_port_features` for a speed in Mbit/s, full duplex; OTHER for one that has none, and nothing for none.
fn features_of(speed: u32) -> u32 {
    match speed {
        0 => 0,
        10 => 1 << 1,
        100 => 1 << 3,
        1_000 => 1 << 5,
        10_000 => 1 << 6,
        40_000 => 1 << 7,
        100_000 => 1 << 8,
        1_000_000 => 1 << 9,
        _ => 1 << 10,
    }
}

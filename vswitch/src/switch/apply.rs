//! Carrying out the steps that a config asks for, at the start, by a reload, and by `ctl port add` and `ctl port del`.
//!
//! Some steps need a descriptor from the launcher. So the steps of one occasion are a [`Job`], which is over when its last answer has come. The config
//! that the switch keeps is changed with each step, when it is carried out: it says what is, not what was wanted.

use std::collections::HashSet;

use datapath::port::PortNo;
use datapath::tables::instruction::{CONTROLLER_WHOLE, OfAction};
use tracing::{debug, info, warn};

use super::ports::{RETRY_FIRST, SwitchPort, vlan_mode};
use super::show::details;
use super::{Switch, clock, link};
use crate::config::{Device, Name, PortConfig, PortKind, Role, Step, VhostUser};
use crate::document::PortDetails;
use crate::launcher::channel::Request;
use crate::openflow::agent::Datapath;

/// Steps that are being carried out.
pub struct Job {
    /// Those not done yet.
    open: usize,
    done: Vec<String>,
    errors: Vec<String>,
    then: Then,
}

/// Who has an OpenFlow port number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The port.
    pub name: Name,
    /// Tells it from one that had the same name and number before.
    serial: u64,
}

/// Who waits for a job.
pub enum Then {
    /// The start of the switch.
    Start,
    /// Somebody at the control socket, who added this port.
    PortAdded(u64, Name),
    /// Somebody at the control socket, who wants to know what a reload did.
    Reloaded(u64),
}

impl Switch {
    /// Begins to carry out `steps`; `done` is what was done already.
    pub(super) fn apply(&mut self, steps: Vec<Step>, done: Vec<String>, then: Then) {
        let job = self.next_job;
        self.next_job += 1;
        self.jobs.insert(job, Job { open: steps.len() + 1, done, errors: Vec::new(), then });
        // A port that comes later and asks for a number gets it, not one that comes first and takes any.
        let numbers = steps.iter().filter_map(|step| if let Step::AddPort(port) = step { port.spec.ofport } else { None });
        let asked_for: HashSet<_> = numbers.collect();
        for step in steps {
            let says = step.to_string();
            match step {
                Step::AddPort(port) => self.add_port(job, port, &asked_for, says),
                Step::RemovePort(name) => {
                    self.remove_port(&name);
                    self.step_done(job, Ok(says));
                }
                Step::SetVlan(name, vlan) => {
                    let no = self.number_of(&name);
                    if let Some(port) = self.config.ports.iter_mut().find(|port| port.name == name) {
                        port.spec.vlan = vlan.clone();
                    }
                    let set = no.map(|no| self.agent.set_vlan(no, vlan_mode(&vlan)));
                    debug_assert!(matches!(set, Some(Ok(()))), "the config names ports that are there");
                    self.step_done(job, Ok(says));
                }
                Step::SetPolling(polling) => {
                    self.config.polling = polling;
                    self.forwarding.workers.set_polling(polling);
                    self.step_done(job, Ok(says));
                }
                Step::SetFailMode(mode) => {
                    self.config.fail_mode = mode;
                    self.agent.configure(Self::agent_settings(&self.config), clock::now());
                    self.step_done(job, Ok(says));
                }
                Step::SetOpenFlow(openflow) => {
                    self.config.openflow = openflow;
                    self.agent.configure(Self::agent_settings(&self.config), clock::now());
                    self.step_done(job, Ok(says));
                }
                Step::Listen(target) => self.listen(job, target, says),
                Step::StopListening(target) => {
                    self.stop_listening(&target);
                    self.step_done(job, Ok(says));
                }
                Step::Connect(target) => {
                    self.add_controller(target);
                    self.step_done(job, Ok(says));
                }
                Step::Disconnect(target) => {
                    self.remove_controller(&target);
                    self.step_done(job, Ok(says));
                }
                Step::NeedsRestart(_) => self.step_done(job, Ok(says)),
            }
        }
        self.finish_part(job);
    }

    /// A step of a job was carried out, or can't be.
    pub(super) fn step_done(&mut self, job: u64, result: Result<String, String>) {
        if let Some(job) = self.jobs.get_mut(&job) {
            match result {
                Ok(says) => job.done.push(says),
                Err(error) => job.errors.push(error),
            }
        }
        self.finish_part(job);
    }

    fn finish_part(&mut self, id: u64) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.open -= 1;
        if job.open > 0 {
            return;
        }
        let Some(job) = self.jobs.remove(&id) else { return };
        self.publish();
        self.forwarding.barrier();
        match job.then {
            Then::Start => self.on_started(job.errors),
            Then::PortAdded(client, name) => match job.errors.into_iter().next() {
                None => {
                    let details = self.port_details(&name);
                    self.control.answer(client, details);
                }
                Some(error) => self.control.answer::<()>(client, Err(error)),
            },
            Then::Reloaded(client) if job.errors.is_empty() => self.control.answer(client, Ok(job.done)),
            Then::Reloaded(client) => self.control.answer::<()>(client, Err(job.errors.join("; "))),
        }
    }

    /// Adds a port, once its listener or its device is there.
    fn add_port(&mut self, job: u64, port: PortConfig, asked_for: &HashSet<PortNo>, says: String) {
        let Some(no) = self.free_number(&port, asked_for) else {
            let error = format!("port {}: its OpenFlow port number is in use; give another one with ofport=N", port.name);
            return self.step_done(job, Err(error));
        };
        self.config.ports.push(port.clone());
        let claim = Claim { name: port.name.clone(), serial: self.next_serial };
        self.next_serial += 1;
        self.numbers.insert(no, claim.clone());
        match port.spec.kind.clone() {
            PortKind::VhostUser(VhostUser { role: Role::Client, .. }) => {
                self.install_port(no, &port);
                self.step_done(job, Ok(says));
            }
            PortKind::VhostUser(VhostUser { role: Role::Server, socket, .. }) => {
                self.ask(Request::ListenUnix { path: socket, private: false }, move |switch, answered| {
                    if switch.numbers.get(&no) != Some(&claim) {
                        return switch.step_done(job, Err(format!("port {} was deleted before it was added", port.name)));
                    }
                    let listening = link::descriptor(answered).and_then(|listener| {
                        switch.install_port(no, &port);
                        let vhost_user = switch.ports.get_mut(&no).and_then(SwitchPort::vhost_user);
                        let listen = vhost_user.map(|port| port.listen(listener, &switch.poller));
                        listen.unwrap_or(Ok(())).map_err(|error| error.to_string())
                    });
                    match listening {
                        Ok(()) => switch.step_done(job, Ok(says)),
                        Err(error) => {
                            switch.remove_port(&port.name);
                            switch.step_done(job, Err(format!("port {}: {error}", port.name)));
                        }
                    }
                });
            }
            PortKind::Device(device) => self.add_device_port(job, no, claim, port, device, says),
        }
    }

    /// Adds a port over a device. One that somebody adds by hand is not added if its device can't be had: whoever typed it is there to read why.
    /// Otherwise it is added, and down, until the device can be had.
    fn add_device_port(&mut self, job: u64, no: PortNo, claim: Claim, port: PortConfig, device: Device, says: String) {
        self.ask(Request::OpenDevice(device), move |switch, answered| {
            if switch.numbers.get(&no) != Some(&claim) {
                return switch.step_done(job, Err(format!("port {} was deleted before it was added", port.name)));
            }
            if let Err(error) = &answered
                && switch.jobs.get(&job).is_some_and(|job| matches!(job.then, Then::PortAdded(..)))
            {
                switch.remove_port(&port.name);
                return switch.step_done(job, Err(format!("port {}: {error}", port.name)));
            }
            switch.install_port(no, &port);
            let done = match switch.on_device(no, answered, RETRY_FIRST) {
                Ok(()) => says,
                Err(error) => format!("{says}, but down: {error}"),
            };
            switch.step_done(job, Ok(done));
        });
    }

    /// The number that the port asks for, or the lowest that is free and that no other port asks for.
    fn free_number(&self, port: &PortConfig, asked_for: &HashSet<PortNo>) -> Option<PortNo> {
        let free = |no: &PortNo| !self.numbers.contains_key(no);
        match port.spec.ofport {
            Some(no) => Some(no).filter(free),
            None => (1..=PortNo::MAX.0).map(PortNo).find(|no| free(no) && !asked_for.contains(no)),
        }
    }

    /// Makes the port known to the tables and its queues to the workers.
    fn install_port(&mut self, no: PortNo, config: &PortConfig) {
        let mut port = SwitchPort::new(no, config, clock::now());
        let entry = port.table_entry(no, config, self.config.datapath_id.0, self.forwarding.workers.threads().len());
        if let Err(error) = self.agent.add_port(entry, clock::now()) {
            unreachable!("names and numbers are kept apart: {error}");
        }
        self.publish();
        port.set_kicks(self.forwarding.workers.add_queues(no, port.rx_queues()));
        self.ports.insert(no, port);
        info!(port = %config.name, ofport = %no, "port added");
    }

    /// Takes a port away, with all that was begun for it. Returns the last that there is to be said of it, counters included.
    pub(super) fn remove_port(&mut self, name: &Name) -> Option<PortDetails> {
        let no = self.number_of(name)?;
        self.numbers.remove(&no);
        let at = self.config.ports.iter().position(|port| port.name == *name)?;
        let config = self.config.ports.remove(at);
        if let PortKind::VhostUser(VhostUser { socket, role: Role::Server, .. }) = &config.spec.kind {
            self.ask(Request::Unlink(socket.clone()), |_, _| ());
        }
        let mut port = self.ports.remove(&no)?;
        let entry = self.agent.tables().ports().get(no).cloned()?;
        let last = details(&entry, &config, &port);
        port.close(&self.poller);
        self.forwarding.workers.remove_queues(no);
        let entry = self.agent.remove_port(no)?;
        // After this no worker counts for it.
        self.publish();
        self.forwarding.barrier();
        info!(port = %name, ofport = %no, "port removed");
        Some(PortDetails { summary: details(&entry, &config, &port).summary, ..last })
    }

    /// Tries to connect a client port to its front end, or to open a port's device; the next attempt comes after `pause`.
    pub(super) fn connect_port(&mut self, no: PortNo, pause: datapath::Nanos) {
        let Some(claim) = self.numbers.get(&no).cloned() else { return };
        let Some(config) = self.config.ports.iter().find(|port| port.name == claim.name) else { return };
        match &config.spec.kind {
            PortKind::VhostUser(VhostUser { socket, .. }) => {
                self.ask(Request::ConnectUnix(socket.clone()), move |switch, answered| {
                    let port = switch.ports.get_mut(&no).filter(|_| switch.numbers.get(&no) == Some(&claim));
                    let Some(port) = port.and_then(SwitchPort::vhost_user) else { return };
                    let served =
                        link::descriptor(answered).and_then(|fd| port.connected(fd, &switch.poller).map_err(|error| error.to_string()));
                    if let Err(error) = served {
                        debug!(port = %claim.name, "{error}");
                        port.attempt_failed(pause, clock::now());
                    }
                    switch.on_news(no);
                });
            }
            PortKind::Device(device) => self.ask(Request::OpenDevice(device.clone()), move |switch, answered| {
                if switch.numbers.get(&no) == Some(&claim) {
                    // The log has it.
                    let _ = switch.on_device(no, answered, pause);
                }
            }),
        }
    }

    /// Says to the tables whether somebody is at the other end of a port.
    pub(super) fn set_link(&mut self, no: PortNo, up: bool) {
        match self.agent.set_link(no, up) {
            Ok(()) => info!(port = self.name_of(no), "the link is {}", if up { "up" } else { "down" }),
            Err(error) => warn!("{error}"),
        }
    }

    /// Sends the announcement that a guest, who has just moved here, can't send itself: a reverse ARP request (RFC 903) through the tables.
    pub(super) fn announce(&mut self, no: PortNo, mac: [u8; 6]) {
        let mut frame = [0; 60];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&mac);
        frame[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        frame[22..28].copy_from_slice(&mac);
        frame[32..38].copy_from_slice(&mac);
        let through_the_tables = OfAction::Output { port: PortNo::TABLE, max_len: CONTROLLER_WHOLE };
        self.publish();
        self.forwarding.inject(no, frame.to_vec(), [through_the_tables].into());
    }

    /// The OpenFlow number of a port.
    pub(super) fn number_of(&self, name: &Name) -> Option<PortNo> {
        self.numbers.iter().find(|(_, claim)| claim.name == *name).map(|(no, _)| *no)
    }
}

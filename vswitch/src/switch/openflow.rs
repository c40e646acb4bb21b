//! OpenFlow connections until they are made: listeners, and controllers with their back-off. What is connected belongs to the agent.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use datapath::Nanos;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, getsockname, sockopt};
use tracing::{debug, info, warn};

use super::{Switch, clock, link};
use crate::config::{ControllerTarget, ListenTarget};
use crate::event::{Interest, Kind, Poller, Token};
use crate::launcher::channel::Request;
use crate::openflow::agent::{ConnectionId, Origin, Settings};

/// The pause before a lost controller is tried again, and the first between attempts.
const PAUSE_FIRST: Nanos = 1_000_000_000;
/// The longest pause between attempts.
const PAUSE_LONGEST: Nanos = 8_000_000_000;
/// How long an attempt may take.
const ATTEMPT: Nanos = 10_000_000_000;

/// A socket that tools and controllers connect to.
pub struct Listener {
    target: ListenTarget,
    socket: OwnedFd,
}

/// A controller that the switch is told to connect to.
pub struct Controller {
    target: ControllerTarget,
    attempts: u32,
    pause: Nanos,
    state: State,
}

enum State {
    /// Nothing until then.
    Waiting(Nanos),
    /// The launcher was asked for a socket.
    Asking,
    /// The connection is under way, until then at most.
    Connecting(OwnedFd, Nanos),
    /// The agent has it.
    Connected(ConnectionId),
}

/// All of them, by numbers that are never used twice.
#[derive(Default)]
pub struct Connections {
    listeners: BTreeMap<u64, Listener>,
    controllers: BTreeMap<u64, Controller>,
    next: u64,
}

impl Connections {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// When something is to be done.
    pub fn due(&self) -> Option<Nanos> {
        let due = self.controllers.values().filter_map(|controller| match controller.state {
            State::Waiting(at) | State::Connecting(_, at) => Some(at),
            State::Asking | State::Connected(_) => None,
        });
        due.min()
    }
}

impl Controller {
    fn failed(&mut self, why: &str, now: Nanos, poller: &Poller) {
        debug!("controller {}: {why}", self.target);
        if let State::Connecting(socket, _) = &self.state {
            poller.remove(socket);
        }
        self.state = State::Waiting(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
    }
}

impl Switch {
    /// What the agent needs to know of the config.
    pub(super) fn agent_settings(config: &crate::config::Config) -> Settings {
        Settings {
            name: config.name.to_string(),
            datapath_id: config.datapath_id.0,
            fail_mode: config.fail_mode,
            has_controllers: !config.controllers.is_empty(),
        }
    }

    /// Listens on `target`, as a step of `job`.
    pub(super) fn listen(&mut self, job: u64, target: ListenTarget, says: String) {
        let request = match &target {
            ListenTarget::Tcp(address) => Request::ListenTcp(*address),
            ListenTarget::Unix(path) => Request::ListenUnix { path: path.clone(), private: true },
        };
        self.ask(request, move |switch, answered| {
            let result = switch.add_listener(&target, answered);
            if result.is_ok() {
                switch.config.listen.push(target);
            }
            switch.step_done(job, result.map(|()| says));
        });
    }

    fn add_listener(&mut self, target: &ListenTarget, answered: link::Answered) -> Result<(), String> {
        let socket = link::descriptor(answered)?;
        let id = self.connections.number();
        let failed = |error: Errno| format!("{target}: {error}");
        self.poller.add(&socket, Token { kind: Kind::OpenFlowListener, id }, Interest::Read).map_err(failed)?;
        if let ListenTarget::Tcp(asked) = target {
            let address = getsockname(&socket).ok().and_then(|address| std::net::SocketAddr::try_from(address).ok()).unwrap_or(*asked);
            info!("listening for OpenFlow on TCP address {address}");
        }
        self.connections.listeners.insert(id, Listener { target: target.clone(), socket });
        Ok(())
    }

    /// Listens on `target` no longer. Connections that came that way stay.
    pub(super) fn stop_listening(&mut self, target: &ListenTarget) {
        self.config.listen.retain(|other| other != target);
        if let ListenTarget::Unix(path) = target {
            self.ask(Request::Unlink(path.clone()), |_, _| ());
        }
        for listener in self.connections.listeners.extract_if(.., |_, listener| listener.target == *target) {
            self.poller.remove(&listener.1.socket);
        }
    }

    pub(super) fn on_openflow_listener(&mut self, id: u64) {
        let Some(listener) = self.connections.listeners.get(&id) else { return };
        match accept_with(&listener.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => {
                at_once(&socket);
                self.agent.connect(socket, Origin::Listener, clock::now());
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => warn!("{}: a connection can't be accepted: {error}", listener.target),
        }
    }

    /// Connects to `target` and keeps trying.
    pub(super) fn add_controller(&mut self, target: ControllerTarget) {
        self.config.controllers.push(target.clone());
        let id = self.connections.number();
        let state = State::Waiting(clock::now());
        self.connections.controllers.insert(id, Controller { target, attempts: 0, pause: PAUSE_FIRST, state });
        self.agent.configure(Self::agent_settings(&self.config), clock::now());
    }

    /// Connects to `target` no longer.
    pub(super) fn remove_controller(&mut self, target: &ControllerTarget) {
        self.config.controllers.retain(|other| other != target);
        for (_, controller) in self.connections.controllers.extract_if(.., |_, controller| controller.target == *target) {
            match controller.state {
                State::Connecting(socket, _) => self.poller.remove(&socket),
                State::Connected(connection) => self.agent.disconnect(connection, "the controller was removed from the config"),
                State::Waiting(_) | State::Asking => {}
            }
        }
        self.agent.configure(Self::agent_settings(&self.config), clock::now());
    }

    /// Makes the attempts that are due, and gives up those that take too long.
    pub(super) fn connect_controllers(&mut self, now: Nanos) {
        let mut requests = Vec::new();
        for (id, controller) in &mut self.connections.controllers {
            match &controller.state {
                State::Waiting(at) if *at <= now => {
                    let request = match &controller.target {
                        ControllerTarget::Tcp { host, port } => {
                            Request::ConnectTcp { host: host.clone(), port: *port, attempt: controller.attempts }
                        }
                        ControllerTarget::Unix(path) => Request::ConnectUnix(path.clone()),
                    };
                    controller.attempts = controller.attempts.wrapping_add(1);
                    controller.state = State::Asking;
                    requests.push((*id, request));
                }
                State::Connecting(_, until) if *until <= now => controller.failed("it does not answer", now, &self.poller),
                State::Connected(connection) if !self.agent.is_connected(*connection) => {
                    controller.pause = PAUSE_FIRST;
                    controller.failed("the connection is lost", now, &self.poller);
                }
                _ => {}
            }
        }
        for (id, request) in requests {
            self.ask(request, move |switch, answered| switch.on_attempt(id, answered));
        }
    }

    fn on_attempt(&mut self, id: u64, answered: link::Answered) {
        let Some(controller) = self.connections.controllers.get_mut(&id) else { return };
        let now = clock::now();
        let socket = match link::descriptor(answered) {
            Ok(socket) => socket,
            Err(error) => return controller.failed(&error, now, &self.poller),
        };
        match self.poller.add(&socket, Token { kind: Kind::OpenFlowConnecting, id }, Interest::WriteOnce) {
            Ok(()) => controller.state = State::Connecting(socket, now + ATTEMPT),
            Err(error) => controller.failed(&error.to_string(), now, &self.poller),
        }
    }

    /// An attempt has come to its end.
    pub(super) fn on_openflow_connecting(&mut self, id: u64) {
        let Some(controller) = self.connections.controllers.get_mut(&id) else { return };
        let now = clock::now();
        let State::Connecting(socket, _) = &controller.state else { return };
        match sockopt::socket_error(socket) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => return controller.failed(&error.to_string(), now, &self.poller),
        }
        self.poller.remove(socket);
        let State::Connecting(socket, _) = std::mem::replace(&mut controller.state, State::Asking) else { return };
        at_once(&socket);
        match self.agent.connect(socket, Origin::Controller, now) {
            Some(connection) => {
                info!("connected to controller {}", controller.target);
                controller.state = State::Connected(connection);
            }
            None => controller.failed("the connection can't be served", now, &self.poller),
        }
    }
}

/// Has messages sent without waiting for more. It fails for Unix sockets, which do so anyway.
fn at_once(socket: &OwnedFd) {
    let _: Result<(), io::Error> = sockopt::set_tcp_nodelay(socket, true).map_err(io::Error::from);
}

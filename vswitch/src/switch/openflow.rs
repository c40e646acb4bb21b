//! OpenFlow connections until they are made: listeners, and controllers with their back-off. What is connected belongs to the agent.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use datapath::Nanos;
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with, getpeername, getsockname, sockopt};
use tracing::{debug, info, warn};

use super::{Switch, clock, link};
use crate::config::{ControllerTarget, ListenTarget, TlsFile, TlsFiles};
use crate::event::{Interest, Kind, Poller, Token};
use crate::launcher::channel::Request;
use crate::openflow::agent::{ConnectionId, Ended, Origin, Peer, Settings};
use crate::openflow::stream::Stream;
use crate::openflow::tls::{Tls, TlsError};

pub(super) const SECOND: Nanos = 1_000_000_000;

/// The first pause before a controller is tried again.
const PAUSE_FIRST: Nanos = SECOND;
/// How long an attempt may take until the socket is connected.
const ATTEMPT: Nanos = 10 * SECOND;

/// A socket that tools and controllers connect to.
pub struct Listener {
    target: ListenTarget,
    socket: OwnedFd,
}

/// A controller that the switch is told to connect to.
pub struct Controller {
    pub(super) target: ControllerTarget,
    attempts: u32,
    /// The pause before the next attempt if this one fails.
    pause: Nanos,
    pub(super) state: State,
    /// Why the last attempt failed or the last connection ended.
    pub(super) last_error: Option<String>,
}

pub(super) enum State {
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
    pub(super) controllers: BTreeMap<u64, Controller>,
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
    /// An attempt failed.
    fn failed(&mut self, why: String, now: Nanos, most: Duration, poller: &Poller) {
        // Said once, not again and again while a controller is away.
        match self.last_error.as_ref() == Some(&why) {
            true => debug!(controller = %self.target, "{why}"),
            false => warn!(controller = %self.target, "{why}"),
        }
        if let State::Connecting(socket, _) = &self.state {
            poller.remove(socket);
        }
        self.wait(why, now, most);
    }

    /// Waits before the next attempt.
    fn wait(&mut self, why: String, now: Nanos, most: Duration) {
        let most = most.as_nanos() as Nanos;
        self.state = State::Waiting(now + self.pause.min(most));
        self.pause = (self.pause * 2).min(most);
        self.last_error = Some(why);
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
            openflow: config.openflow,
        }
    }

    /// Has the launcher open the files that TLS needs, if any, and reads them; `opened` are those that are open already.
    pub(super) fn load_tls(
        &mut self,
        files: Option<TlsFiles>,
        mut opened: Vec<OwnedFd>,
        then: impl FnOnce(&mut Self, Result<Option<Tls>, String>) + 'static,
    ) {
        let Some(files) = files else { return then(self, Ok(None)) };
        let Some(next) = TlsFile::ALL.get(opened.len()) else {
            let mut opened = opened.into_iter();
            let open = |_| opened.next().map(Into::into).ok_or_else(|| "a file is missing".to_owned());
            return then(self, Tls::load(&files, open).map(Some).map_err(|error| error.to_string()));
        };
        self.ask(Request::OpenTls(*next), move |switch, answered| match link::descriptor(answered) {
            Ok(file) => {
                opened.push(file);
                switch.load_tls(Some(files), opened, then);
            }
            Err(error) => then(switch, Err(error)),
        });
    }

    /// Does TLS by `tls`, made of `files`, from now on; connections that are there stay as they are. Says so if it makes a difference.
    pub(super) fn use_tls(&mut self, files: Option<TlsFiles>, tls: Option<Tls>) -> Option<String> {
        let same = match (&self.tls, &tls) {
            (Some(old), Some(new)) => old.is_same(new),
            (old, new) => old.is_none() && new.is_none(),
        };
        self.config.tls = files;
        self.tls = tls;
        (!same).then(|| "TLS key and certificates changed, for new connections".to_owned())
    }

    /// Listens on `target`, as a step of `job`.
    pub(super) fn listen(&mut self, job: u64, target: ListenTarget, says: String) {
        let request = match &target {
            ListenTarget::Tcp(address) | ListenTarget::Ssl(address) => Request::ListenTcp(*address),
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
        if let ListenTarget::Tcp(asked) | ListenTarget::Ssl(asked) = target {
            let address = getsockname(&socket).ok().and_then(|address| SocketAddr::try_from(address).ok()).unwrap_or(*asked);
            info!("listening for OpenFlow{} on TCP address {address}", if target.is_tls() { " over TLS" } else { "" });
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
        let target = listener.target.to_string();
        let (socket, address) = match acceptfrom_with(&listener.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(accepted) => accepted,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(error) => return warn!(listener = %target, "a connection can't be accepted: {error}"),
        };
        at_once(&socket);
        let peer = Peer { origin: Origin::Listener, target, address: address_text(address, listener.target.is_tls()) };
        let stream = match listener.target.is_tls() {
            true => tls(&self.tls).and_then(|tls| tls.accept(socket)),
            false => Ok(Stream::plain(socket)),
        };
        match stream {
            Ok(stream) => drop(self.agent.connect(stream, peer, clock::now())),
            Err(error) => warn!(listener = %peer.target, "no OpenFlow connection from {}: {error}", peer.address),
        }
    }

    /// Connects to `target` and keeps trying.
    pub(super) fn add_controller(&mut self, target: ControllerTarget) {
        self.config.controllers.push(target.clone());
        let id = self.connections.number();
        let state = State::Waiting(clock::now());
        self.connections.controllers.insert(id, Controller { target, attempts: 0, pause: PAUSE_FIRST, state, last_error: None });
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
        let most = self.config.openflow.max_backoff;
        for (id, controller) in &mut self.connections.controllers {
            match &controller.state {
                State::Waiting(at) if *at <= now => {
                    let request = match &controller.target {
                        ControllerTarget::Tcp { host, port } | ControllerTarget::Ssl { host, port } => {
                            Request::ConnectTcp { host: host.clone(), port: *port, attempt: controller.attempts }
                        }
                        ControllerTarget::Unix(path) => Request::ConnectUnix(path.clone()),
                    };
                    controller.attempts = controller.attempts.wrapping_add(1);
                    controller.state = State::Asking;
                    requests.push((*id, request));
                }
                State::Connecting(_, until) if *until <= now => controller.failed("it does not answer".to_owned(), now, most, &self.poller),
                _ => {}
            }
        }
        for (id, request) in requests {
            self.ask(request, move |switch, answered| switch.on_attempt(id, answered));
        }
    }

    fn on_attempt(&mut self, id: u64, answered: link::Answered) {
        let Some(controller) = self.connections.controllers.get_mut(&id) else { return };
        let (now, most) = (clock::now(), self.config.openflow.max_backoff);
        let socket = match link::descriptor(answered) {
            Ok(socket) => socket,
            Err(error) => return controller.failed(error, now, most, &self.poller),
        };
        match self.poller.add(&socket, Token { kind: Kind::OpenFlowConnecting, id }, Interest::WriteOnce) {
            Ok(()) => controller.state = State::Connecting(socket, now + ATTEMPT),
            Err(error) => controller.failed(error.to_string(), now, most, &self.poller),
        }
    }

    /// An attempt has come to its end.
    pub(super) fn on_openflow_connecting(&mut self, id: u64) {
        let Some(controller) = self.connections.controllers.get_mut(&id) else { return };
        let (now, most) = (clock::now(), self.config.openflow.max_backoff);
        let State::Connecting(socket, _) = &controller.state else { return };
        match sockopt::socket_error(socket) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => return controller.failed(format!("can't connect: {error}"), now, most, &self.poller),
        }
        self.poller.remove(socket);
        let State::Connecting(socket, _) = std::mem::replace(&mut controller.state, State::Asking) else { return };
        at_once(&socket);
        let address = address_text(getpeername(&socket).ok().flatten(), controller.target.is_tls());
        let peer = Peer { origin: Origin::Controller, target: controller.target.to_string(), address };
        let stream = match &controller.target {
            ControllerTarget::Ssl { host, .. } => tls(&self.tls).and_then(|tls| tls.connect(host, socket)),
            ControllerTarget::Tcp { .. } | ControllerTarget::Unix(_) => Ok(Stream::plain(socket)),
        };
        let connected = stream.map_err(|error| error.to_string()).and_then(|stream| {
            let connected = self.agent.connect(stream, peer, now);
            connected.ok_or_else(|| "the connection can't be waited for".to_owned())
        });
        match connected {
            Ok(connection) => controller.state = State::Connected(connection),
            Err(error) => controller.failed(error, now, most, &self.poller),
        }
    }

    /// A controller's connection ended, which the agent has logged. It is tried again, soon if there was somebody who spoke OpenFlow.
    pub(super) fn on_connection_ended(&mut self, Ended { id, greeted, why }: Ended) {
        let mut controllers = self.connections.controllers.values_mut();
        let Some(controller) = controllers.find(|controller| matches!(controller.state, State::Connected(connection) if connection == id))
        else {
            return;
        };
        if greeted {
            controller.pause = PAUSE_FIRST;
        }
        controller.wait(why, clock::now(), self.config.openflow.max_backoff);
    }
}

/// TLS, which a config with `ssl` and `pssl` targets has.
fn tls(tls: &Option<Tls>) -> Result<&Tls, TlsError> {
    tls.as_ref().ok_or_else(|| TlsError::Setup("there is no key".to_owned()))
}

/// The address of a peer's socket, as a target.
fn address_text(address: Option<SocketAddrAny>, tls: bool) -> String {
    let scheme = if tls { "ssl" } else { "tcp" };
    match address.and_then(|address| SocketAddr::try_from(address).ok()) {
        Some(address) => format!("{scheme}:{address}"),
        None => "unix".to_owned(),
    }
}

/// Has messages sent without waiting for more. It fails for Unix sockets, which do so anyway.
fn at_once(socket: &OwnedFd) {
    let _: Result<(), io::Error> = sockopt::set_tcp_nodelay(socket, true).map_err(io::Error::from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = |longest: u64| {
            let target = "tcp:h".parse().expect("valid");
            let mut controller = Controller { target, attempts: 0, pause: PAUSE_FIRST, state: State::Asking, last_error: None };
            let pause = |_| {
                controller.wait("why".to_owned(), 7 * SECOND, Duration::from_secs(longest));
                match controller.state {
                    State::Waiting(at) => (at - 7 * SECOND) / SECOND,
                    _ => unreachable!("it waits"),
                }
            };
            (0..6).map(pause).collect::<Vec<_>>()
        };
        assert_eq!(pauses(8), [1, 2, 4, 8, 8, 8]);
        assert_eq!(pauses(1), [1; 6]);
        assert_eq!(pauses(3), [1, 2, 3, 3, 3, 3]);
    }
}

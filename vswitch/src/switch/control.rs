//! The control socket: one JSON request to a line, one JSON answer to a line, in order.
//!
//! A client has one request at a time under way, and gets its next line read when the answer is sent. So what a client can make the switch
//! keep is bounded: one line, and one answer.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use serde::Serialize;
use tracing::warn;

use super::apply::Then;
use super::{Switch, link};
use crate::config::{ConfigFile, LogLevel, Name, Origin, PortConfig, parse_port, steps};
use crate::document::{Answer, Request};
use crate::event::{Interest, Kind, Poller, Ready, Token};
use crate::openflow::agent::Datapath;
use crate::{config, launcher, log};

/// The longest request.
const LINE_MAX: usize = 16 << 10;
/// Clients at once.
const CLIENTS_MAX: usize = 64;

/// The listener and its clients.
pub struct Control {
    poller: Rc<Poller>,
    listener: Option<UnixListener>,
    clients: HashMap<u64, Client>,
    next: u64,
    /// Clients that were answered, and may have sent their next request already.
    answered: Vec<u64>,
}

struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// A request is under way.
    waiting: bool,
}

impl Control {
    /// Without a listener yet.
    pub fn new(poller: Rc<Poller>) -> Self {
        Self { poller, listener: None, clients: HashMap::new(), next: 0, answered: Vec::new() }
    }

    /// Takes clients from `socket` from now on.
    pub fn listen(&mut self, socket: OwnedFd) -> std::io::Result<()> {
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        self.poller.add(&listener, Token::only(Kind::ControlListener), Interest::Read)?;
        self.listener = Some(listener);
        Ok(())
    }

    fn accept(&mut self) -> std::io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.clients.len() >= CLIENTS_MAX {
            warn!("more than {CLIENTS_MAX} clients at the control socket: one was refused");
            return Ok(());
        }
        stream.set_nonblocking(true)?;
        self.poller.add(&stream, Token { kind: Kind::ControlClient, id: self.next }, Interest::Read)?;
        self.clients.insert(self.next, Client { stream, input: Vec::new(), output: Vec::new(), waiting: false });
        self.next += 1;
        Ok(())
    }

    /// The client's next request, if it has come and none is under way.
    fn next_request(&mut self, id: u64) -> Option<Vec<u8>> {
        let client = self.clients.get_mut(&id).filter(|client| !client.waiting && client.output.is_empty())?;
        let end = client.input.iter().position(|byte| *byte == b'\n')?;
        client.waiting = true;
        Some(client.input.drain(..=end).collect())
    }

    /// Answers the client's request with a document, or says why not.
    pub fn answer<T: Serialize>(&mut self, id: u64, result: Result<T, String>) {
        let document = result.and_then(|document| serde_json::to_value(document).map_err(|error| error.to_string()));
        let answer = document.map_or_else(Answer::Error, Answer::Document);
        // The client may have left.
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.waiting = false;
        if serde_json::to_writer(&mut client.output, &answer).is_ok() {
            client.output.push(b'\n');
        }
        self.answered.push(id);
        self.write(id);
    }

    fn read(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let mut bytes = [0; 4096];
        match client.stream.read(&mut bytes) {
            // It asks no more, but may be waiting for an answer, or reading one.
            Ok(0) if client.waiting => self.poller.remove(&client.stream),
            Ok(0) if !client.output.is_empty() => {
                let token = Token { kind: Kind::ControlClient, id };
                if self.poller.modify(&client.stream, token, Interest::Write).is_err() {
                    self.close(id);
                }
            }
            Ok(0) => self.close(id),
            Ok(count) => {
                client.input.extend_from_slice(&bytes[..count]);
                if client.input.len() > LINE_MAX {
                    self.close(id);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.close(id),
        }
    }

    fn write(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let token = Token { kind: Kind::ControlClient, id };
        while !client.output.is_empty() {
            match client.stream.write(&client.output) {
                Ok(count) => drop(client.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.poller.modify(&client.stream, token, Interest::ReadWrite).is_err() {
                        self.close(id);
                    }
                    return;
                }
                Err(_) => return self.close(id),
            }
        }
        // It fails for one that asks no more, and has its answer now.
        if self.poller.modify(&client.stream, token, Interest::Read).is_err() {
            self.close(id);
        }
    }

    fn close(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            self.poller.remove(&client.stream);
        }
    }
}

impl Switch {
    pub(super) fn on_control_listener(&mut self) {
        if let Err(error) = self.control.accept() {
            warn!("a client of the control socket can't be accepted: {error}");
        }
    }

    pub(super) fn on_control_client(&mut self, id: u64, ready: Ready) {
        if ready.writable {
            self.control.write(id);
        }
        if ready.readable {
            self.control.read(id);
        }
        self.serve_client(id);
    }

    /// Goes on with the clients that were answered since it was called last.
    pub(super) fn serve_answered_clients(&mut self) {
        for id in std::mem::take(&mut self.control.answered) {
            self.serve_client(id);
        }
    }

    fn serve_client(&mut self, id: u64) {
        while let Some(line) = self.control.next_request(id) {
            // What an answer says is what every worker goes by: whoever sees a link up can send to it.
            self.publish();
            self.forwarding.barrier();
            match serde_json::from_slice(&line) {
                Ok(request) => self.on_request(id, request),
                Err(error) => self.control.answer::<()>(id, Err(format!("not a request: {error}"))),
            }
        }
    }

    fn on_request(&mut self, id: u64, request: Request) {
        match request {
            Request::PortAdd { port } => match self.port_to_add(&port) {
                Ok(port) => {
                    let name = port.name.clone();
                    self.apply(vec![config::Step::AddPort(port)], Vec::new(), Then::PortAdded(id, name));
                }
                Err(error) => self.control.answer::<()>(id, Err(error)),
            },
            Request::PortDel { name } => {
                let known = self.known_port(&name);
                let details = known.and_then(|known| self.remove_port(&known).ok_or_else(|| format!("port {name} is gone")));
                self.control.answer(id, details);
            }
            Request::PortList => self.control.answer(id, Ok(self.port_list())),
            Request::PortShow { name } => {
                let details = self.known_port(&name).and_then(|name| self.port_details(&name));
                self.control.answer(id, details);
            }
            Request::Flows { worker } => {
                let flows = self.flows(worker);
                self.control.answer(id, flows);
            }
            Request::Workers => {
                let workers = self.worker_list();
                self.control.answer(id, Ok(workers));
            }
            Request::Connections => self.control.answer(id, Ok(self.connection_list())),
            Request::Drops => self.control.answer(id, Ok(self.drops())),
            Request::Reload => self.reload(id),
            Request::Log { level } => {
                let set = level.parse::<LogLevel>().map(log::set_level).map(|()| level);
                self.control.answer(id, set.map_err(|error| error.to_string()));
            }
        }
    }

    fn port_to_add(&self, text: &str) -> Result<PortConfig, String> {
        let (name, spec) = parse_port(text).map_err(|error| error.to_string())?;
        let port = PortConfig::new(&name, &spec, Origin::Ctl, &self.host.run_dir);
        self.config.check_addition(&port, &self.host.run_dir)?;
        Ok(port)
    }

    fn known_port(&self, text: &str) -> Result<Name, String> {
        let name = text.parse().ok().filter(|name| self.number_of(name).is_some_and(|no| self.ports.contains_key(&no)));
        name.ok_or_else(|| format!("there is no port {text}; `vswitch ctl port list` shows those that there are"))
    }

    /// Reads the config file and what it names again, and applies the difference.
    fn reload(&mut self, client: u64) {
        self.ask(launcher::channel::Request::OpenConfig, move |switch, answered| {
            let wanted = link::descriptor(answered).and_then(|file| {
                let path = switch.flags.config.as_ref().ok_or("no config file was given with --config")?;
                let file = ConfigFile::from_open(path, file.into()).map_err(|error| error.to_string())?;
                config::Config::new(&switch.flags, Some(&file), &switch.host).map_err(|error| error.to_string())
            });
            match wanted {
                Ok(wanted) => switch.load_tls(wanted.tls.clone(), Vec::new(), move |switch, tls| match tls {
                    Ok(tls) => {
                        let done = switch.use_tls(wanted.tls.clone(), tls).into_iter().collect();
                        switch.apply(steps(&switch.config, &wanted), done, Then::Reloaded(client));
                    }
                    Err(error) => switch.control.answer::<()>(client, Err(error)),
                }),
                Err(error) => switch.control.answer::<()>(client, Err(error)),
            }
        });
    }
}

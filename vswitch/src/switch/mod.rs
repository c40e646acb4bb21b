//! The switch process: one control thread, and the workers.
//!
//! The control thread is an event loop over everything that is not a frame: front ends' messages, the control socket, OpenFlow, the launcher's
//! answers, packet-ins, time. All of it changes one [`Switch`]; nothing in it blocks but the short waits for the workers to be between two
//! breaths. Frames are the workers' business ([`worker`]).
//!
//! The loop is plain epoll, by [`crate::event`]. An event manager with a subscriber for each descriptor would have every subscriber share the
//! one switch behind a lock, and could hand an event of a closed descriptor to the next owner of its number.

pub mod apply;
pub mod clock;
pub mod control;
pub mod devices;
pub mod forwarding;
pub mod link;
pub mod openflow;
pub mod packet_in;
pub mod patience;
pub mod ports;
pub mod show;
pub mod worker;
pub mod workers;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use datapath::Nanos;
use datapath::port::PortNo;
use datapath::tables::{DEFAULT_AGE, DEFAULT_CAPACITY, MacTable, Tables};
use datapath::worker::Published;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use tracing::{error, info};

use crate::cli::RunArgs;
use crate::config::{Config, ConfigError, ConfigFile, FileError, Host};
use crate::event::{Interest, Kind, Poller, Ready, Registrar, Token};
use crate::launcher::channel::{Channel, Request};
use crate::launcher::{drain, stop_signals};
use crate::log;
use crate::openflow::agent::Agent;
use crate::openflow::tls::{Tls, TlsError};
use crate::uplink::links::Links;
use apply::{Claim, Job, Then};
use control::Control;
use forwarding::Forwarding;
use link::Link;
use openflow::Connections;
use packet_in::{FromWorker, PacketIn, PacketIns};
use ports::{News, SwitchPort};
use workers::Workers;

/// How often time alone makes the control thread look around.
const TICK: Nanos = 1_000_000_000;
/// The most packet-ins, and rules that were learned, that are handled before others get their turn.
const PACKET_INS: usize = 64;
/// The share of the address table that one port may fill: a quarter.
const MACS_PER_PORT: usize = DEFAULT_CAPACITY / 4;

/// Why the switch ended, or did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SwitchError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Launcher(String),
    #[error("{0}")]
    Start(String),
    #[error("the workers can't be started: {0}")]
    Workers(io::Error),
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
}

impl SwitchError {
    /// Whether it is the command line that is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config(error) if error.is_usage())
    }
}

/// A running switch.
pub struct Switch {
    flags: RunArgs,
    host: Host,
    /// What it is now: changed step by step.
    config: Config,
    poller: Rc<Poller>,
    link: Link,
    /// Hears of network devices, once the launcher has opened it.
    links: Option<Links>,
    /// Speaks OpenFlow, and has the draft of the tables.
    agent: Agent,
    connections: Connections,
    /// What `ssl` and `pssl` targets need.
    tls: Option<Tls>,
    forwarding: Forwarding,
    packet_ins: PacketIns,
    /// Who has which number; also ports that are yet to come.
    numbers: BTreeMap<PortNo, Claim>,
    next_serial: u64,
    ports: BTreeMap<PortNo, SwitchPort>,
    /// Ports whose front end has more to say than fitted into its turn.
    unfinished: Vec<PortNo>,
    control: Control,
    jobs: HashMap<u64, Job>,
    next_job: u64,
    stop: UnixStream,
    ended: Option<Result<(), SwitchError>>,
    next_tick: Nanos,
}

/// The switch process, from its start to its end.
pub fn run(flags: RunArgs, host: Host) -> Result<(), SwitchError> {
    // Without its launcher a switch would hold sockets that nobody removes.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    abort_on_panic();
    allow_descriptors()?;
    // Else it would be named after the link that it was started by.
    rustix::thread::set_name(c"vswitch").map_err(io::Error::from)?;
    log::start();
    let channel = Channel::from_socket(io::stdin().as_fd().try_clone_to_owned()?);
    let mut link = Link::new(channel);

    let file = read_config(&flags, &mut link)?;
    let config = Config::new(&flags, file.as_ref(), &host)?;
    let tls = read_tls(&config, &mut link)?;
    Switch::new(flags, host, config, tls, link)?.run()
}

/// A panic is a bug; a switch that goes on with half of its threads would hide it.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// A port with many queues needs hundreds of descriptors: as many as the system allows, not as many as is usual.
fn allow_descriptors() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

fn read_config(flags: &RunArgs, link: &mut Link) -> Result<Option<ConfigFile>, SwitchError> {
    let Some(path) = &flags.config else { return Ok(None) };
    let file = link::descriptor(link.ask_and_wait(Request::OpenConfig)?).map_err(SwitchError::Launcher)?;
    Ok(Some(ConfigFile::from_open(path, file.into())?))
}

fn read_tls(config: &Config, link: &mut Link) -> Result<Option<Tls>, SwitchError> {
    let Some(files) = &config.tls else { return Ok(None) };
    let open = |what| link::descriptor(link.ask_and_wait(Request::OpenTls(what)).map_err(|error| error.to_string())?).map(Into::into);
    Ok(Some(Tls::load(files, open)?))
}

impl Switch {
    /// A switch without ports and listeners, which are yet to come by `config`.
    fn new(flags: RunArgs, host: Host, config: Config, tls: Option<Tls>, link: Link) -> Result<Self, SwitchError> {
        let poller = Rc::new(Poller::new().map_err(io::Error::from)?);
        let stop = stop_signals()?;
        let packet_ins = PacketIns::new().map_err(io::Error::from)?;
        poller.add(&stop, Token::only(Kind::Signal), Interest::Read).map_err(io::Error::from)?;
        poller.add(&link, Token::only(Kind::Launcher), Interest::Read).map_err(io::Error::from)?;
        poller.add(&packet_ins, Token::only(Kind::Workers), Interest::Read).map_err(io::Error::from)?;

        let tables = Tables::new(Arc::new(MacTable::new(DEFAULT_CAPACITY, MACS_PER_PORT)));
        let published = Arc::new(Published::new(tables.clone()));
        let workers =
            Workers::start(&config.cpus, config.polling, &published, &packet_ins, random_seed()?).map_err(SwitchError::Workers)?;
        let registrar = Registrar::new(poller.clone(), Kind::OpenFlowConnection);
        Ok(Self {
            flags,
            host,
            agent: Agent::new(Self::agent_settings(&config), tables, registrar, clock::now()),
            connections: Connections::default(),
            tls,
            config,
            control: Control::new(poller.clone()),
            poller,
            link,
            links: None,
            forwarding: Forwarding::new(published, workers),
            packet_ins,
            numbers: BTreeMap::new(),
            next_serial: 0,
            ports: BTreeMap::new(),
            unfinished: Vec::new(),
            jobs: HashMap::new(),
            next_job: 0,
            stop,
            ended: None,
            next_tick: clock::now() + TICK,
        })
    }

    fn run(mut self) -> Result<(), SwitchError> {
        self.start();
        let mut events = Vec::new();
        while self.ended.is_none() {
            self.poller.wait(&mut events, Some(self.time_left())).map_err(io::Error::from)?;
            for (token, ready) in events.drain(..) {
                self.on_event(token, ready);
            }
            for port in std::mem::take(&mut self.unfinished) {
                self.on_connection(port);
            }
            self.on_time();
            self.serve_answered_clients();
            self.publish();
            self.packet_ins.set_wanted(self.agent.wants_packet_ins());
        }
        for port in self.ports.values_mut() {
            port.close(&self.poller);
        }
        info!("the switch ends");
        self.ended.unwrap_or(Ok(()))
    }

    /// Opens the control socket, and takes up all that the config asks for as the first job.
    fn start(&mut self) {
        let control = Request::ListenUnix { path: self.host.run_dir.control_socket(), private: true };
        self.ask(control, |switch, answered| {
            if let Err(error) =
                link::descriptor(answered).and_then(|socket| switch.control.listen(socket).map_err(|error| error.to_string()))
            {
                switch.end(Err(SwitchError::Start(error)));
            }
        });
        self.watch_devices();
        let wanted = self.config.clone();
        self.config.ports.clear();
        self.config.listen.clear();
        self.config.controllers.clear();
        let steps = crate::config::steps(&self.config, &wanted);
        self.apply(steps, Vec::new(), Then::Start);
    }

    /// Everything that was asked for at the start is there, or something is not.
    fn on_started(&mut self, errors: Vec<String>) {
        if let Some(error) = errors.into_iter().next() {
            self.end(Err(SwitchError::Start(error)));
            return;
        }
        self.publish();
        let Config { name, datapath_id, ports, cpus, .. } = &self.config;
        info!(datapath_id = %datapath_id, ports = ports.len(), workers = cpus.len(), "switch {name} is ready");
        self.ask(Request::Ready, |_, _| ());
    }

    /// Has the workers take up what the agent's draft has become, and the controllers told.
    fn publish(&mut self) {
        self.agent.finish(&mut self.forwarding, clock::now());
        for ended in self.agent.take_ended() {
            self.on_connection_ended(ended);
        }
    }

    fn end(&mut self, how: Result<(), SwitchError>) {
        self.ended.get_or_insert(how);
    }

    /// Asks the launcher, and does `then` with its answer.
    fn ask(&mut self, request: Request, then: impl FnOnce(&mut Self, link::Answered) + 'static) {
        if let Err((then, error)) = self.link.ask(request, Box::new(then)) {
            then(self, Err(error));
        }
    }

    fn time_left(&self) -> Duration {
        if !self.unfinished.is_empty() {
            return Duration::ZERO;
        }
        let due =
            self.ports.values().filter_map(SwitchPort::due).chain(self.connections.due()).chain(self.agent.due()).chain([self.next_tick]);
        let due = due.min().unwrap_or_default();
        Duration::from_nanos(due.saturating_sub(clock::now()))
    }

    fn on_event(&mut self, token: Token, ready: Ready) {
        let port = PortNo(token.id as u32);
        match token.kind {
            Kind::Signal => {
                if drain(&self.stop) {
                    self.end(Ok(()));
                }
            }
            Kind::Launcher => self.on_launcher(),
            Kind::Workers => self.on_packet_ins(),
            Kind::ControlListener => self.on_control_listener(),
            Kind::ControlClient => self.on_control_client(token.id, ready),
            Kind::Devices => self.on_devices(),
            Kind::PortListener => self.on_listener(port),
            Kind::PortConnection => self.on_connection(port),
            Kind::OpenFlowListener => self.on_openflow_listener(token.id),
            Kind::OpenFlowConnecting => self.on_openflow_connecting(token.id),
            Kind::OpenFlowConnection => self.agent.ready(token.id, &mut self.forwarding, clock::now()),
        }
    }

    fn on_launcher(&mut self) {
        loop {
            match self.link.receive() {
                Ok(Some((then, answered))) => then(self, answered),
                Ok(None) => return,
                Err(error) => return self.end(Err(SwitchError::Launcher(format!("the launcher is gone: {error}")))),
            }
        }
    }

    fn on_packet_ins(&mut self) {
        let now = clock::now();
        for from in self.packet_ins.take(PACKET_INS) {
            match from {
                FromWorker::PacketIn(PacketIn { in_port, to, data, total_len, .. }) => {
                    self.agent.packet_in(in_port, &to, data, total_len, now)
                }
                FromWorker::Learned(learned) => self.agent.learn(&learned.rule, now),
            }
        }
    }

    fn on_listener(&mut self, no: PortNo) {
        if let Some(port) = self.ports.get_mut(&no).and_then(SwitchPort::vhost_user)
            && let Err(error) = port.on_listener(&self.poller)
        {
            error!(port = %self.name_of(no), "a front end can't be accepted: {error}");
        }
        self.on_news(no);
    }

    fn on_connection(&mut self, no: PortNo) {
        if let Some(port) = self.ports.get_mut(&no).and_then(SwitchPort::vhost_user)
            && port.on_connection(&self.poller, clock::now())
        {
            self.unfinished.push(no);
        }
        self.on_news(no);
    }

    /// Does what follows from what a guest's port said.
    fn on_news(&mut self, no: PortNo) {
        let Some(port) = self.ports.get_mut(&no).and_then(SwitchPort::vhost_user) else { return };
        for news in port.news() {
            match news {
                News::Link(up) => self.set_link(no, up),
                News::Announce(mac) => self.announce(no, mac),
            }
        }
    }

    fn on_time(&mut self) {
        let now = clock::now();
        let due: Vec<_> = self.ports.iter_mut().filter_map(|(no, port)| Some((*no, port.take_attempt(now)?))).collect();
        for (no, pause) in due {
            self.connect_port(no, pause);
        }
        self.connect_controllers(now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.look_after_devices();
            self.agent.tick(&mut self.forwarding, now);
            self.agent.tables().macs().expire(now, DEFAULT_AGE);
            log::report_suppressed();
        }
    }

    fn name_of(&self, no: PortNo) -> String {
        self.numbers.get(&no).map_or_else(|| no.to_string(), |claim| claim.name.to_string())
    }
}

/// What guests must not be able to guess, so that they can't aim at one place of a hash table.
fn random_seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let mut random = std::fs::File::open("/dev/urandom")?;
    io::Read::read_exact(&mut random, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

//! The ports: each a vhost-user port of the back end, with its listener or its attempts to connect, and the news that it has for the switch.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use datapath::Nanos;
use datapath::port::PortNo;
use datapath::tables::{PortCounters, VlanMode};
use tracing::error;
use vhost_backend::{Events, Port, Progress, Settings};

use super::worker::Kicks;
use crate::config::{PortConfig, PortKind, Role, VhostUser, VlanSpec, stable_address};
use crate::event::{Interest, Kind, Poller, Token};

/// The first pause between two attempts to connect.
const RETRY_FIRST: Nanos = 50_000_000;
/// The longest.
const RETRY_LONGEST: Nanos = 1_000_000_000;
/// The MTU of a port whose guest was not told one: Ethernet's.
const MTU_DEFAULT: u16 = 1500;

/// What a port says of itself.
#[derive(Debug)]
pub enum News {
    /// The guest became ready to receive, or ceased to be.
    Link(bool),
    /// A guest with this address moved here and can't say so itself.
    Announce([u8; 6]),
}

/// A port, as the control thread has it.
pub struct SwitchPort {
    /// Its number.
    pub no: PortNo,
    name: String,
    vhost: Port,
    listener: Option<UnixListener>,
    /// A client's next attempt to connect, and the pause after it.
    retry: Option<(Nanos, Nanos)>,
    news: Receiver<News>,
    kicks: Arc<OnceLock<Vec<Kicks>>>,
}

impl SwitchPort {
    /// A port that nobody is connected to.
    pub fn new(no: PortNo, config: &PortConfig, now: Nanos) -> Self {
        let PortKind::VhostUser(VhostUser { role, queues, mtu, .. }) = &config.spec.kind;
        let name = config.name.to_string();
        let settings = Settings { name: name.clone(), number: no, queue_pairs: *queues, mtu: *mtu };
        let (sender, news) = channel();
        let kicks = Arc::new(OnceLock::new());
        let events = RingEvents { port: name.clone(), kicks: kicks.clone(), started: vec![None; usize::from(*queues)], news: sender };
        let retry = (*role == Role::Client).then_some((now, RETRY_FIRST));
        Self { no, name, vhost: Port::new(settings, Box::new(events)), listener: None, retry, news, kicks }
    }

    /// The port as the tables have it, for this many workers.
    pub fn table_entry(&self, config: &PortConfig, datapath_id: u64, workers: usize) -> datapath::tables::Port {
        let PortKind::VhostUser(VhostUser { mtu, .. }) = &config.spec.kind;
        datapath::tables::Port {
            no: self.no,
            name: self.name.clone(),
            hw_addr: stable_address(&[&datapath_id.to_be_bytes(), &self.no.0.to_be_bytes()]).0,
            config: Default::default(),
            link_up: self.vhost.is_link_up(),
            mtu: mtu.unwrap_or(MTU_DEFAULT),
            vlan: vlan_mode(&config.spec.vlan),
            output: self.vhost.output(),
            counters: Arc::new(PortCounters::new(workers)),
        }
    }

    /// The queues that workers are to serve; to be asked for once.
    pub fn rx_queues(&self) -> Vec<Box<dyn datapath::port::RxQueue>> {
        self.vhost.rx_queues()
    }

    /// Says whom the kicks of each queue wake.
    pub fn set_kicks(&self, kicks: Vec<Kicks>) {
        // It is asked for once.
        let _ = self.kicks.set(kicks);
    }

    /// Whether a front end is connected.
    pub fn is_connected(&self) -> bool {
        self.vhost.connection().is_some()
    }

    /// Takes connections from `socket` from now on.
    pub fn listen(&mut self, socket: OwnedFd, poller: &Poller) -> io::Result<()> {
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        poller.add(&listener, self.token(Kind::PortListener), Interest::Read)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// When the next attempt to connect is due.
    pub fn due(&self) -> Option<Nanos> {
        self.retry.map(|(at, _)| at)
    }

    /// Whether an attempt to connect is due. Then it is to be made; there is no other until it has failed or the connection ends.
    pub fn take_attempt(&mut self, now: Nanos) -> Option<Nanos> {
        let (at, pause) = self.retry?;
        (at <= now).then(|| {
            self.retry = None;
            pause
        })
    }

    /// The attempt failed; the next one comes after `pause`.
    pub fn attempt_failed(&mut self, pause: Nanos, now: Nanos) {
        self.retry = Some((now + pause, (pause * 2).min(RETRY_LONGEST)));
    }

    /// The attempt succeeded: serves the connection.
    pub fn connected(&mut self, socket: OwnedFd, poller: &Poller) -> io::Result<()> {
        self.vhost.attach(UnixStream::from(socket))?;
        self.watch(poller)
    }

    /// Somebody may have connected.
    pub fn on_listener(&mut self, poller: &Poller) -> io::Result<()> {
        if let Some(listener) = &self.listener
            && self.vhost.accept(listener)?
        {
            self.watch(poller)?;
        }
        Ok(())
    }

    /// The front end may have sent something. True if there is more to do, after others had their turn.
    pub fn on_connection(&mut self, poller: &Poller, now: Nanos) -> bool {
        match self.vhost.on_readable() {
            Progress::Idle => false,
            Progress::More => true,
            Progress::Closed(session) => {
                poller.remove(&session);
                if self.listener.is_none() {
                    self.retry = Some((now + RETRY_FIRST, RETRY_FIRST));
                }
                false
            }
        }
    }

    /// Ends the connection and takes no more. No worker touches the guest's memory when this returns.
    pub fn close(&mut self, poller: &Poller) {
        if let Some(listener) = self.listener.take() {
            poller.remove(&listener);
        }
        if let Some(session) = self.vhost.disconnect() {
            poller.remove(&session);
        }
        self.retry = None;
    }

    /// What the port had to say since it was asked last.
    pub fn news(&self) -> Vec<News> {
        self.news.try_iter().collect()
    }

    fn watch(&self, poller: &Poller) -> io::Result<()> {
        match self.vhost.connection() {
            Some(connection) => Ok(poller.add(connection, self.token(Kind::PortConnection), Interest::ReadEdge)?),
            None => Ok(()),
        }
    }

    fn token(&self, kind: Kind) -> Token {
        Token { kind, id: self.no.0.into() }
    }
}

/// How a port carries VLANs, as the tables have it.
pub fn vlan_mode(vlan: &VlanSpec) -> VlanMode {
    match vlan {
        VlanSpec::All => VlanMode::default(),
        VlanSpec::Access(vlan) => VlanMode::Access(*vlan),
        VlanSpec::Trunk { ranges, native } => {
            VlanMode::Trunk { vlans: ranges.iter().flat_map(|(first, last)| *first..=*last).collect(), native: *native }
        }
    }
}

/// A ring's kick, while the ring is started; `None` in it if the ring has none.
type StartedKick = Option<Option<Arc<OwnedFd>>>;

/// Carries a port's events to the workers and to the control thread.
struct RingEvents {
    port: String,
    kicks: Arc<OnceLock<Vec<Kicks>>>,
    started: Vec<StartedKick>,
    news: Sender<News>,
}

impl RingEvents {
    fn kicks(&self, queue: usize) -> Option<&Kicks> {
        self.kicks.get().and_then(|kicks| kicks.get(queue))
    }
}

impl Events for RingEvents {
    fn link(&mut self, up: bool) {
        // Nobody listens any more once the port is being removed.
        let _ = self.news.send(News::Link(up));
    }

    fn rx_started(&mut self, queue: usize, kick: Option<Arc<OwnedFd>>) {
        self.rx_stopped(queue);
        let Some(kicks) = self.kicks(queue) else { return };
        let kick = match kicks.add(kick.as_deref()) {
            Ok(()) => kick,
            Err(error) => {
                error!(
                    port = self.port,
                    queue, "the guest's notifications can't be waited for ({error}): its worker polls, and never sleeps"
                );
                // Without a descriptor there is nothing that can fail.
                let _ = kicks.add(None);
                None
            }
        };
        self.started[queue] = Some(kick);
    }

    fn rx_stopped(&mut self, queue: usize) {
        if let Some(kick) = self.started.get_mut(queue).and_then(Option::take)
            && let Some(kicks) = self.kicks(queue)
        {
            kicks.remove(kick.as_deref());
        }
    }

    fn announce(&mut self, mac: [u8; 6]) {
        let _ = self.news.send(News::Announce(mac));
    }
}

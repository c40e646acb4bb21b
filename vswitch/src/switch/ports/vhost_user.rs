//! A port of a guest: a vhost-user port of the back end, with its listener or its attempts to connect, and the news that it has for the switch.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use datapath::Nanos;
use datapath::port::{Output, PortNo, RxQueue};
use tracing::error;
use vhost_backend::{Events, Port, Progress, Settings};

use super::{Kicks, RETRY_FIRST, Retry};
use crate::config::{Name, Role, VhostUser};
use crate::event::{Interest, Kind, Poller, Token};

/// What a port says of itself.
#[derive(Debug)]
pub enum News {
    /// The guest became ready to receive, or ceased to be.
    Link(bool),
    /// A guest with this address moved here and can't say so itself.
    Announce([u8; 6]),
}

/// See the module.
pub struct VhostUserPort {
    no: PortNo,
    vhost: Port,
    listener: Option<UnixListener>,
    /// A client's next attempt to connect.
    pub(super) retry: Retry,
    news: Receiver<News>,
    kicks: Arc<OnceLock<Vec<Kicks>>>,
}

impl VhostUserPort {
    /// A port that nobody is connected to.
    pub fn new(no: PortNo, name: &Name, config: &VhostUser, now: Nanos) -> Self {
        let VhostUser { role, queues, mtu, .. } = config;
        let name = name.to_string();
        let settings = Settings { name: name.clone(), number: no, queue_pairs: *queues, mtu: *mtu };
        let (sender, news) = channel();
        let kicks = Arc::new(OnceLock::new());
        let events = RingEvents { port: name, kicks: kicks.clone(), started: vec![None; usize::from(*queues)], news: sender };
        let retry = if *role == Role::Client { Retry::at(now) } else { Retry::default() };
        Self { no, vhost: Port::new(settings, Box::new(events)), listener: None, retry, news, kicks }
    }

    /// Where frames go.
    pub fn output(&self) -> Arc<dyn Output> {
        self.vhost.output()
    }

    /// The queues that workers are to serve; to be asked for once.
    pub fn rx_queues(&self) -> Vec<Box<dyn RxQueue>> {
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

    /// An attempt to connect failed; the next one comes after `pause`.
    pub fn attempt_failed(&mut self, pause: Nanos, now: Nanos) {
        self.retry.failed(pause, now);
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
                    self.retry = Retry::at(now + RETRY_FIRST);
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
        self.retry = Retry::default();
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

//! A port: what stays while front ends come and go.
//!
//! The owner of a port is an event loop. It hands in sockets that somebody else opened (a listener's connections, or in client mode a connection
//! made), watches the descriptor of the connection, and calls [`Port::on_readable`] when there is something to read. Nothing here blocks, and
//! nothing starts a thread. The workers hold the port's [`RxQueue`]s and its [`Output`], which are idle while no driver is behind them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datapath::port::{Output, PortNo, RxQueue};
use tracing::{info, warn};

use crate::device::Device;
use crate::queue::{Queues, RxHandle};
use crate::session::{Session, SessionError};

/// What a port is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name, for the log.
    pub name: String,
    /// Its number, which the frames that come in carry.
    pub number: PortNo,
    /// How many queue pairs are offered, 1 ..= [`Settings::MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// The longest IP packet that is sent to the guest, if it is to be shorter than the guest allows.
    pub mtu: Option<u16>,
}

impl Settings {
    /// vhost-user numbers the rings with which it passes descriptors in one byte.
    pub const MAX_QUEUE_PAIRS: u16 = 128;
}

/// What a port tells its owner, from within the calls that the owner makes. Implementations must not block, nor call the port.
pub trait Events: Send {
    /// The guest's driver became ready to receive frames, or ceased to be.
    fn link(&mut self, up: bool);

    /// The receive queue `queue` has a ring now. Frames may be in it already, announced to somebody who is gone: serve it once, whatever `kick`
    /// says. From then on an armed queue is kicked by an event on `kick` (to be watched edge-triggered, never read); without it, it must be polled.
    fn rx_started(&mut self, queue: usize, kick: Option<Arc<OwnedFd>>);

    /// The receive queue `queue` lost its ring. Its `kick` has no meaning any more.
    fn rx_stopped(&mut self, queue: usize);

    /// The guest that owns `mac` has moved here, and can't say so itself (SEND_RARP).
    fn announce(&mut self, mac: [u8; 6]);
}

/// What has become of the connection after [`Port::on_readable`].
#[must_use]
pub enum Progress {
    /// It waits for the front end.
    Idle,
    /// It was served for as long as one turn may take, and there may be more to read: call again, after other ports had theirs.
    More,
    /// It is over, for the reason in the log. Its descriptor is open until the session is dropped, so that it can be taken out of the event loop first.
    Closed(Session),
}

/// A virtio-net port behind vhost-user.
pub struct Port {
    name: String,
    queues: Arc<Queues>,
    device: Arc<Mutex<Device>>,
    session: Option<Session>,
}

impl Port {
    /// A port without a connection.
    pub fn new(settings: Settings, events: Box<dyn Events>) -> Self {
        let queues = Arc::new(Queues::new(settings.queue_pairs.clamp(1, Settings::MAX_QUEUE_PAIRS).into()));
        let name = settings.name.clone();
        Self { name, device: Arc::new(Mutex::new(Device::new(settings, queues.clone(), events))), queues, session: None }
    }

    /// The receive queues, one of each pair. To be asked for once: two workers must not poll the same queue.
    pub fn rx_queues(&self) -> Vec<Box<dyn RxQueue>> {
        (0..self.queues.len()).map(|index| Box::new(RxHandle::new(self.queues.clone(), index)) as Box<dyn RxQueue>).collect()
    }

    /// The transmit side.
    pub fn output(&self) -> Arc<dyn Output> {
        self.queues.clone()
    }

    /// Whether a guest's driver is ready to receive frames.
    pub fn is_link_up(&self) -> bool {
        self.device().is_link_up()
    }

    /// How many times a queue broke because of what the guest put into it.
    pub fn queue_breaks(&self) -> u64 {
        self.queues.breaks.load(Ordering::Relaxed)
    }

    /// The descriptor of the connection, to be watched for reading, edge-triggered: a partial message stays in the socket until the rest has come.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.session.as_ref().map(AsFd::as_fd)
    }

    /// Takes a connection from `listener`, which must not block. True if one began; it is then to be watched. One connection is served at a time: a
    /// second one is refused, but waits while the end of the first is yet to be read.
    pub fn accept(&mut self, listener: &UnixListener) -> io::Result<bool> {
        if self.session.as_ref().is_some_and(Session::is_hung_up) {
            return Ok(false);
        }
        match listener.accept() {
            Ok((stream, _)) => self.attach(stream),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Serves `stream`, a connected socket, unless a connection is being served already: then it is closed, and the log says so. True if it is
    /// served; it is then to be watched.
    pub fn attach(&mut self, stream: UnixStream) -> io::Result<bool> {
        if self.session.is_some() {
            warn!(port = self.name, "a second front end connected and was refused: a port serves one at a time");
            return Ok(false);
        }
        self.session = Some(Session::new(stream, self.device.clone())?);
        info!(port = self.name, "a front end connected");
        Ok(true)
    }

    /// Reads and handles what the front end sent.
    pub fn on_readable(&mut self) -> Progress {
        let Some(session) = &mut self.session else { return Progress::Idle };
        match session.on_readable() {
            Ok(false) => Progress::Idle,
            Ok(true) => Progress::More,
            Err(error) => {
                match error {
                    SessionError::Disconnected => info!(port = self.name, "{error}"),
                    _ => warn!(port = self.name, "{error}; the connection is closed, and the port is open for another"),
                }
                self.disconnect().map_or(Progress::Idle, Progress::Closed)
            }
        }
    }

    /// Ends the connection, if there is one: no worker touches the guest's memory any more when this returns.
    pub fn disconnect(&mut self) -> Option<Session> {
        let session = self.session.take()?;
        self.device().disconnect();
        Some(session)
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Port {
    /// The queues may live on in a worker; the guest's memory does not.
    fn drop(&mut self) {
        self.disconnect();
    }
}

//! A guest without the guest: the front end of a port, and what it sends and takes.

pub mod ring;
pub mod tap;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::tests::driver::{F_EVENT_IDX, F_MRG_RXBUF, F_VERSION_1, NetHeader};
use ::tests::frontend::{Connection, F_OFFLOADS, F_PROTOCOL_FEATURES};
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};
use vhost_backend::memory::RegionSpec;

use crate::memory::Memory;
use ring::{FOOTPRINT, Receive, SIZE, Setup, Transmit};

/// The guest-physical address of its memory.
const GUEST_BASE: u64 = 1 << 30;
/// The front end's address of it, as the back end is told: any will do that is unlike the guest's.
const USER_BASE: u64 = 0x5500_0000_0000;
/// VIRTIO_RING_F_INDIRECT_DESC.
const F_INDIRECT: u64 = 1 << 28;

/// Where frames go in and come out: a vhost-user port, or a tap.
pub trait End {
    /// Sends up to `want` frames, as many as there is room for, and returns how many. `vary` is called for each with the offset of its first byte: all
    /// bytes that it does not write are those of the frame that the end was made for.
    fn send(&mut self, want: usize, vary: impl FnMut(&Memory, usize)) -> usize;

    /// Takes up to `max` frames that have come, and returns how many. `take` is called for each with the offset of its first byte and its length.
    fn receive(&mut self, max: usize, take: impl FnMut(&Memory, usize, usize)) -> usize;
}

/// Which of the two ends of a vhost-user socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The switch does, and the guest connects.
    Switch,
    /// The guest does, and the switch connects (OVS's dpdkvhostuserclient).
    Guest,
}

/// A guest's end of a socket, before the two have met.
#[derive(Debug)]
pub enum Socket {
    /// The guest listens.
    Listening(UnixListener),
    /// The guest connects.
    Connecting(PathBuf),
}

impl Socket {
    /// The guest's end of the socket at `path`.
    ///
    /// # Errors
    ///
    /// The guest is to listen, and can't.
    pub fn new(path: &Path, listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Switch => Self::Connecting(path.to_owned()),
            Listener::Guest => {
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Self::Listening(listener)
            }
        })
    }

    /// Meets the switch. It is to come within ten seconds, or until `interrupted`.
    ///
    /// # Errors
    ///
    /// It did not come.
    pub fn meet(&self, interrupted: &AtomicBool) -> io::Result<Connection> {
        let start = Instant::now();
        loop {
            let result = match self {
                Self::Connecting(path) => Connection::connect(path),
                Self::Listening(listener) => listener.accept().and_then(|(stream, _)| {
                    stream.set_nonblocking(false)?;
                    Connection::new(stream)
                }),
            };
            if interrupted.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match result {
                Err(error) if start.elapsed() > Duration::from_secs(10) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                connected => return connected,
            }
        }
    }
}

/// A guest's virtio-net device with one pair of queues, started.
#[derive(Debug)]
pub struct Port {
    // As long as it is there, the back end serves the port.
    _connection: Connection,
    transmit: Transmit,
    receive: Receive,
}

impl Port {
    /// Meets the switch and starts a device whose every transmit buffer holds `frame`.
    ///
    /// # Errors
    ///
    /// The switch does not come, refuses something, or there is no memory.
    pub fn start(socket: &Socket, header: NetHeader, frame: &[u8], interrupted: &AtomicBool) -> io::Result<Self> {
        let mut connection = socket.meet(interrupted)?;
        connection.set(FrontendReq::SET_OWNER, &[], &[])?;
        let offered = connection.get(FrontendReq::GET_FEATURES)?;
        // What a Linux guest takes.
        let wanted = F_PROTOCOL_FEATURES | F_VERSION_1 | F_MRG_RXBUF | F_INDIRECT | F_EVENT_IDX | F_OFFLOADS;
        let features = offered & wanted;
        if features & F_VERSION_1 == 0 || features & F_MRG_RXBUF == 0 {
            return Err(io::Error::other(format!("the switch offers {offered:#x}: neither virtio 1 nor mergeable buffers can be missed")));
        }
        if features & F_PROTOCOL_FEATURES != 0 {
            let protocol = connection.get(FrontendReq::GET_PROTOCOL_FEATURES)? & Protocol::REPLY_ACK.bits();
            connection.set(FrontendReq::SET_PROTOCOL_FEATURES, &protocol.to_ne_bytes(), &[])?;
            connection.acknowledged = protocol != 0;
        }

        let sent_to = 2 * FOOTPRINT;
        let received_in = (sent_to + Transmit::buffers(frame.len())).next_multiple_of(4096);
        let memory = Rc::new(Memory::new(received_in + Receive::buffers(frame.len()))?);
        let event_idx = features & F_EVENT_IDX != 0;
        let receive = Receive::new(&memory, 0, received_in, frame.len(), event_idx);
        let transmit = Transmit::new(&memory, FOOTPRINT, sent_to, header, frame, event_idx);

        connection.set(FrontendReq::SET_FEATURES, &features.to_ne_bytes(), &[])?;
        let region = RegionSpec { guest_address: GUEST_BASE, size: memory.size() as u64, user_address: USER_BASE, offset: 0 };
        connection.set_mem_table(&[region], memory.file())?;
        for (index, setup) in [receive.setup(), transmit.setup()].iter().enumerate() {
            start_ring(&connection, index, setup)?;
        }
        if features & F_PROTOCOL_FEATURES != 0 {
            (0..2).try_for_each(|index| connection.set_vring(FrontendReq::SET_VRING_ENABLE, index, 1))?;
        }
        connection.sync()?;
        Ok(Self { _connection: connection, transmit, receive })
    }
}

fn start_ring(connection: &Connection, index: usize, setup: &Setup) -> io::Result<()> {
    connection.set_vring(FrontendReq::SET_VRING_NUM, index, SIZE.into())?;
    connection.set_vring(FrontendReq::SET_VRING_BASE, index, 0)?;
    connection.set_vring_addr(index, setup.addresses)?;
    connection.set_vring_fd(FrontendReq::SET_VRING_KICK, index, Some(&setup.kick.file()))?;
    connection.set_vring_fd(FrontendReq::SET_VRING_CALL, index, Some(&setup.call.file()))
}

impl End for Port {
    #[inline(always)]
    fn send(&mut self, want: usize, vary: impl FnMut(&Memory, usize)) -> usize {
        self.transmit.send(want, vary)
    }

    #[inline(always)]
    fn receive(&mut self, max: usize, take: impl FnMut(&Memory, usize, usize)) -> usize {
        self.receive.receive(max, take)
    }
}

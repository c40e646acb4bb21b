//! A vhost-user front end that plays a guest, without the guest: negotiates as QEMU 10 does, and drives the rings itself.
//!
//! [`Connection`] speaks the protocol message by message, so that a test can also send what no front end would. [`Guest`] is a virtio-net
//! driver on top: it survives its connection, as a guest does.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};
use vhost_backend::memory::{RegionSpec, RingAddresses};
use virtio_bindings::virtio_net::*;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::driver::{DriverRing, F_EVENT_IDX, F_INDIRECT, F_MRG_RXBUF, F_VERSION_1, NetHeader, Ram, Receiver, Transmitter};

/// vhost-user's own virtio feature: the protocol features can be negotiated.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_NET_F_MQ.
pub const F_MQ: u64 = 1 << VIRTIO_NET_F_MQ;
/// The offloads: checksums, TSO and USO, both ways.
pub const F_OFFLOADS: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_ECN
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_HOST_ECN
    | 1 << VIRTIO_NET_F_GUEST_USO4
    | 1 << VIRTIO_NET_F_GUEST_USO6
    | 1 << VIRTIO_NET_F_HOST_USO;
/// What a Linux guest under QEMU takes when it is offered.
pub const F_ALL: u64 =
    F_PROTOCOL_FEATURES | F_VERSION_1 | F_MRG_RXBUF | F_INDIRECT | F_EVENT_IDX | F_MQ | F_OFFLOADS | 1 << VIRTIO_NET_F_GUEST_ANNOUNCE;
/// The protocol features that QEMU 10 takes and this front end carries out.
pub const PROTOCOL_ALL: u64 = Protocol::MQ.bits()
    | Protocol::RARP.bits()
    | Protocol::REPLY_ACK.bits()
    | Protocol::MTU.bits()
    | Protocol::RESET_DEVICE.bits()
    | Protocol::CONFIGURE_MEM_SLOTS.bits()
    | Protocol::STATUS.bits();

const NEED_REPLY: u32 = 1 << 3;
const REPLY: u32 = 1 << 2;
/// In a ring's number: no descriptor is attached.
const NO_FD: u64 = 1 << 8;
/// ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK (virtio 1.2, 2.1).
const FEATURES_OK: u64 = 8;
const DRIVER_OK: u64 = 1 | 2 | 8 | 4;

/// A connection to a back end.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Whether REPLY_ACK was negotiated.
    pub acknowledged: bool,
    regions_added: Cell<bool>,
}

impl Connection {
    /// Connects to a back end that listens.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::new(UnixStream::connect(path)?)
    }

    /// A connection over `stream`. A back end that does not answer within half a minute fails the test.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, acknowledged: false, regions_added: Cell::new(false) })
    }

    /// Sends bytes as they are.
    pub fn send_raw(&self, bytes: &[u8], files: &[&File]) -> io::Result<()> {
        if files.is_empty() {
            return (&self.stream).write_all(bytes);
        }
        let fds: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
        let sent = self.stream.send_with_fds(&[bytes], &fds).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        (&self.stream).write_all(&bytes[sent..])
    }

    /// Sends a message, and does not wait for anything.
    pub fn send(&self, request: FrontendReq, flags: u32, payload: &[u8], files: &[&File]) -> io::Result<()> {
        self.send_raw(&[&header(request.into(), 1 | flags, payload.len())[..], payload].concat(), files)
    }

    /// Receives a message and returns its payload. Nothing more to read is an error of kind `UnexpectedEof`.
    pub fn receive(&self, request: FrontendReq) -> io::Result<Vec<u8>> {
        let mut head = [0; 12];
        (&self.stream).read_exact(&mut head)?;
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
        if (word(0), word(4)) != (request.into(), 1 | REPLY) {
            return Err(io::Error::other(format!("reply {} with flags {:#x} to {request:?}", word(0), word(4))));
        }
        let mut payload = vec![0; word(8) as usize];
        (&self.stream).read_exact(&mut payload)?;
        Ok(payload)
    }

    fn receive_number(&self, request: FrontendReq) -> io::Result<u64> {
        let payload = self.receive(request)?;
        payload.try_into().map(u64::from_ne_bytes).map_err(|other| io::Error::other(format!("{request:?} answered by {other:x?}")))
    }

    /// Asks for a number.
    pub fn get(&self, request: FrontendReq) -> io::Result<u64> {
        self.send(request, 0, &[], &[])?;
        self.receive_number(request)
    }

    /// Says something, and waits for the acknowledgement if there is to be one. A refusal is an error.
    pub fn set(&self, request: FrontendReq, payload: &[u8], files: &[&File]) -> io::Result<()> {
        if !self.acknowledged || !asks_acknowledgement(request) {
            return self.send(request, 0, payload, files);
        }
        self.send(request, NEED_REPLY, payload, files)?;
        match self.receive_number(request)? {
            0 => Ok(()),
            code => Err(io::Error::other(format!("{request:?} was refused with {code}"))),
        }
    }

    /// Waits until the back end has handled all that was sent.
    pub fn sync(&self) -> io::Result<()> {
        self.get(FrontendReq::GET_FEATURES).map(drop)
    }

    /// SET_VRING_NUM, _BASE or _ENABLE.
    pub fn set_vring(&self, request: FrontendReq, index: usize, value: u32) -> io::Result<()> {
        self.set(request, &[(index as u32).to_ne_bytes(), value.to_ne_bytes()].concat(), &[])
    }

    /// SET_VRING_ADDR.
    pub fn set_vring_addr(&self, index: usize, addresses: RingAddresses) -> io::Result<()> {
        let mut payload = [(index as u32).to_ne_bytes(), [0; 4]].concat();
        for address in [addresses.descriptors, addresses.used, addresses.available, 0] {
            payload.extend(address.to_ne_bytes());
        }
        self.set(FrontendReq::SET_VRING_ADDR, &payload, &[])
    }

    /// SET_VRING_KICK, _CALL or _ERR.
    pub fn set_vring_fd(&self, request: FrontendReq, index: usize, file: Option<&File>) -> io::Result<()> {
        let number = index as u64 | if file.is_some() { 0 } else { NO_FD };
        self.set(request, &number.to_ne_bytes(), file.as_slice())
    }

    /// GET_VRING_BASE: stops a ring, and says where.
    pub fn get_vring_base(&self, index: usize) -> io::Result<u16> {
        self.send(FrontendReq::GET_VRING_BASE, 0, &[(index as u32).to_ne_bytes(), [0; 4]].concat(), &[])?;
        let reply = self.receive(FrontendReq::GET_VRING_BASE)?;
        Ok(u16::from_ne_bytes([reply[4], reply[5]]))
    }

    /// SET_MEM_TABLE.
    pub fn set_mem_table(&self, regions: &[RegionSpec], file: &File) -> io::Result<()> {
        let mut payload = [(regions.len() as u32).to_ne_bytes(), [0; 4]].concat();
        regions.iter().for_each(|region| payload.extend(region_bytes(region)));
        self.set(FrontendReq::SET_MEM_TABLE, &payload, &vec![file; regions.len()])
    }

    /// ADD_MEM_REG.
    pub fn add_mem_reg(&self, region: &RegionSpec, file: &File) -> io::Result<()> {
        self.set(FrontendReq::ADD_MEM_REG, &[&[0; 8][..], &region_bytes(region)].concat(), &[file])
    }

    /// REM_MEM_REG.
    pub fn rem_mem_reg(&self, region: &RegionSpec) -> io::Result<()> {
        self.set(FrontendReq::REM_MEM_REG, &[&[0; 8][..], &region_bytes(region)].concat(), &[])
    }
}

/// A message's header.
pub fn header(request: u32, flags: u32, size: usize) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&request.to_ne_bytes());
    bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..].copy_from_slice(&(size as u32).to_ne_bytes());
    bytes
}

/// The messages that QEMU asks to be acknowledged, or may ask.
fn asks_acknowledgement(request: FrontendReq) -> bool {
    use FrontendReq::*;
    matches!(
        request,
        SET_MEM_TABLE | ADD_MEM_REG | REM_MEM_REG | SET_VRING_ADDR | SET_VRING_ENABLE | SET_FEATURES | NET_SET_MTU | RESET_DEVICE
    )
}

fn region_bytes(region: &RegionSpec) -> Vec<u8> {
    [region.guest_address, region.size, region.user_address, region.offset].map(u64::to_ne_bytes).concat()
}

/// What a guest is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Its queue pairs.
    pub queue_pairs: usize,
    /// The entries of each ring.
    pub ring_size: u16,
    /// The bytes of the buffer behind each descriptor.
    pub buffer: u32,
    /// How many descriptors make a receive buffer.
    pub buffer_parts: u16,
    /// The virtio features that it takes, if offered.
    pub features: u64,
    /// The protocol features that it takes, if offered.
    pub protocol_features: u64,
    /// Whether the first SET_VRING_ENABLE comes long before the first SET_FEATURES, as it does from QEMU.
    pub early_enable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_pairs: 1,
            ring_size: 256,
            buffer: 2048,
            buffer_parts: 1,
            features: F_ALL,
            protocol_features: PROTOCOL_ALL,
            early_enable: true,
        }
    }
}

/// A guest's virtio-net device and its driver.
#[derive(Debug)]
pub struct Guest {
    options: Options,
    ram: Arc<Ram>,
    /// The connection, while there is one.
    pub connection: Option<Connection>,
    offered: u64,
    protocol_features: u64,
    receivers: Vec<Receiver>,
    transmitters: Vec<Transmitter>,
    enabled: Vec<bool>,
}

impl Guest {
    /// A guest that is not connected. Its driver starts with the first call of [`Guest::start`].
    pub fn new(options: Options) -> Self {
        let memory = 0x1000 + options.queue_pairs as u64 * pair_footprint(&options);
        // Two regions, so that there is always something to be translated.
        let ram = Ram::new(&[(0, 0x10_0000), (0x1_0000_0000, memory.next_multiple_of(0x1000))]);
        Self {
            options,
            ram,
            connection: None,
            offered: 0,
            protocol_features: 0,
            receivers: Vec::new(),
            transmitters: Vec::new(),
            enabled: vec![true; options.queue_pairs],
        }
    }

    /// A guest whose driver is ready, behind a back end that listens.
    pub fn connect(path: &Path, options: Options) -> io::Result<Self> {
        let mut guest = Self::new(options);
        guest.reconnect(path)?;
        Ok(guest)
    }

    /// Connects again, or for the first time, and starts the driver's queues where they were.
    pub fn reconnect(&mut self, path: &Path) -> io::Result<()> {
        self.attach(Connection::connect(path)?)?;
        self.start()
    }

    /// Takes the connection of a back end that connects, and starts the driver's queues where they were.
    pub fn accept(&mut self, listener: &UnixListener) -> io::Result<()> {
        let (stream, _) = listener.accept()?;
        self.attach(Connection::new(stream)?)?;
        self.start()
    }

    /// Closes the connection, without a word.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// The guest's memory.
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// The virtio features that were negotiated.
    pub fn features(&self) -> u64 {
        self.offered & self.options.features
    }

    /// The protocol features that were negotiated.
    pub fn protocol_features(&self) -> Protocol {
        Protocol::from_bits_truncate(self.protocol_features)
    }

    /// The number of queue pairs.
    pub fn pairs(&self) -> usize {
        self.options.queue_pairs
    }

    /// A transmit queue.
    pub fn transmitter(&mut self, pair: usize) -> &mut Transmitter {
        &mut self.transmitters[pair]
    }

    /// All receive queues.
    pub fn receivers(&mut self) -> &mut [Receiver] {
        &mut self.receivers
    }

    /// A receive queue.
    pub fn receiver(&mut self, pair: usize) -> &mut Receiver {
        &mut self.receivers[pair]
    }

    /// What QEMU says when a connection is made: much of it again for each queue pair. On its first connection it also resets the device.
    pub fn attach(&mut self, mut connection: Connection) -> io::Result<()> {
        let first = self.receivers.is_empty();
        for pair in 0..self.options.queue_pairs {
            self.offered = connection.get(FrontendReq::GET_FEATURES)?;
            if self.features() & F_PROTOCOL_FEATURES != 0 {
                self.negotiate_protocol(&mut connection, pair == 0)?;
            } else if pair > 0 {
                return Err(io::Error::other("the back end has one queue pair only"));
            }
            if pair == 0 {
                connection.set(FrontendReq::SET_OWNER, &[], &[])?;
            }
            self.offered = connection.get(FrontendReq::GET_FEATURES)?;
            if self.receivers.is_empty() {
                self.lay_rings(self.features() & F_EVENT_IDX != 0);
            }
            for (index, ring) in self.rings().enumerate().skip(2 * pair).take(2) {
                connection.set_vring_fd(FrontendReq::SET_VRING_CALL, index, Some(&ring.call.file()))?;
                connection.set_vring_fd(FrontendReq::SET_VRING_ERR, index, Some(&ring.error.file()))?;
            }
        }
        if first && self.protocol_features().contains(Protocol::RESET_DEVICE) {
            self.send_enabled(&connection, self.options.early_enable)?;
            connection.set(FrontendReq::RESET_DEVICE, &[], &[])?;
            self.send_enabled(&connection, self.options.early_enable)?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    fn negotiate_protocol(&mut self, connection: &mut Connection, first: bool) -> io::Result<()> {
        self.protocol_features = connection.get(FrontendReq::GET_PROTOCOL_FEATURES)? & self.options.protocol_features;
        connection.set(FrontendReq::SET_PROTOCOL_FEATURES, &self.protocol_features.to_ne_bytes(), &[])?;
        connection.acknowledged = self.protocol_features().contains(Protocol::REPLY_ACK);
        if first {
            let with_pairs = self.protocol_features().contains(Protocol::MQ);
            let pairs = if with_pairs { connection.get(FrontendReq::GET_QUEUE_NUM)? } else { 1 };
            if pairs < self.options.queue_pairs as u64 {
                return Err(io::Error::other(format!(
                    "the back end has {pairs} queue pairs, the guest wants {}",
                    self.options.queue_pairs
                )));
            }
        }
        if self.protocol_features().contains(Protocol::CONFIGURE_MEM_SLOTS) {
            let slots = connection.get(FrontendReq::GET_MAX_MEM_SLOTS)?;
            assert!(slots >= self.ram.regions().len() as u64, "{slots} memory slots are too few");
        }
        Ok(())
    }

    fn lay_rings(&mut self, event_idx: bool) {
        let options = &self.options;
        let mut at = 0x1_0000_0000;
        for _ in 0..options.queue_pairs {
            self.receivers.push(Receiver::new(&self.ram, at, options.ring_size, options.buffer, options.buffer_parts, event_idx));
            self.transmitters.push(Transmitter::new(
                &self.ram,
                at + receiver_footprint(options),
                options.ring_size,
                options.buffer,
                event_idx,
            ));
            at += pair_footprint(options);
        }
    }

    /// All rings, in virtio's order.
    fn rings(&self) -> impl Iterator<Item = &DriverRing> {
        self.receivers.iter().zip(&self.transmitters).flat_map(|(receiver, transmitter)| [&receiver.ring, &transmitter.ring])
    }

    fn connected(&self) -> io::Result<&Connection> {
        self.connection.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Says which queue pairs are enabled, if this is the time to do so.
    fn send_enabled(&self, connection: &Connection, now: bool) -> io::Result<()> {
        if now && self.features() & F_PROTOCOL_FEATURES != 0 {
            (0..self.options.queue_pairs).try_for_each(|pair| self.send_pair_enabled(connection, pair))?;
        }
        Ok(())
    }

    fn send_pair_enabled(&self, connection: &Connection, pair: usize) -> io::Result<()> {
        [2 * pair, 2 * pair + 1]
            .into_iter()
            .try_for_each(|index| connection.set_vring(FrontendReq::SET_VRING_ENABLE, index, self.enabled[pair].into()))
    }

    /// What QEMU says when the driver is ready (DRIVER_OK), or when a connection is made under a driver that is: one queue pair after the other.
    /// Every receive buffer is made available.
    pub fn start(&mut self) -> io::Result<()> {
        for receiver in &mut self.receivers {
            receiver.fill(usize::MAX);
        }
        let connection = self.connected()?;
        let with_status = self.protocol_features().contains(Protocol::STATUS);
        let with_enabling = self.features() & F_PROTOCOL_FEATURES != 0;
        let rings: Vec<_> = self.rings().collect();
        for (pair, rings) in rings.chunks(2).enumerate() {
            if self.options.early_enable && with_enabling {
                self.send_pair_enabled(connection, pair)?;
            }
            connection.set(FrontendReq::SET_FEATURES, &self.features().to_ne_bytes(), &[])?;
            if with_status {
                self.add_status(FEATURES_OK)?;
            }
            if pair == 0 {
                self.announce_memory(connection)?;
            }
            for (ring, index) in rings.iter().zip(2 * pair..) {
                connection.set_vring(FrontendReq::SET_VRING_NUM, index, ring.size().into())?;
                connection.set_vring(FrontendReq::SET_VRING_BASE, index, ring.used_index().into())?;
                connection.set_vring_addr(index, ring.addresses())?;
                connection.set_vring_fd(FrontendReq::SET_VRING_KICK, index, Some(&ring.kick.file()))?;
                connection.set_vring_fd(FrontendReq::SET_VRING_CALL, index, Some(&ring.call.file()))?;
            }
        }
        if with_status {
            self.add_status(DRIVER_OK)?;
        }
        // The driver says through the control queue how many queue pairs it uses.
        self.send_enabled(connection, true)?;
        connection.sync()
    }

    fn announce_memory(&self, connection: &Connection) -> io::Result<()> {
        if !self.protocol_features().contains(Protocol::CONFIGURE_MEM_SLOTS) {
            return connection.set_mem_table(self.ram.regions(), &self.ram.file());
        }
        // QEMU adds what the connection does not have yet.
        if !connection.regions_added.replace(true) {
            self.ram.regions().iter().try_for_each(|region| connection.add_mem_reg(region, &self.ram.file()))?;
        }
        Ok(())
    }

    fn add_status(&self, bits: u64) -> io::Result<()> {
        let connection = self.connected()?;
        let status = connection.get(FrontendReq::GET_STATUS)?;
        if status & bits != bits {
            connection.set(FrontendReq::SET_STATUS, &(status | bits).to_ne_bytes(), &[])?;
        }
        Ok(())
    }

    /// What QEMU says when the driver is stopped.
    pub fn stop(&mut self) -> io::Result<()> {
        let connection = self.connected()?;
        for (index, ring) in self.rings().enumerate() {
            let base = connection.get_vring_base(index)?;
            if base != ring.used_index() {
                return Err(io::Error::other(format!("ring {index} was stopped at {base}, but its used index is {}", ring.used_index())));
            }
        }
        if self.protocol_features().contains(Protocol::STATUS) {
            connection.set(FrontendReq::SET_STATUS, &0u64.to_ne_bytes(), &[])?;
        }
        connection.sync()
    }

    /// Enables the first `count` queue pairs and disables the others, as `ethtool -L` in a guest does.
    pub fn set_queue_pairs(&mut self, count: usize) -> io::Result<()> {
        for (pair, enabled) in self.enabled.iter_mut().enumerate() {
            *enabled = pair < count;
        }
        self.send_enabled(self.connected()?, true)?;
        self.connected()?.sync()
    }

    /// Sends frames through a queue, as many as it has room for, with one kick at most. Returns how many.
    pub fn send<'a>(&mut self, pair: usize, frames: impl IntoIterator<Item = &'a [u8]>) -> usize {
        let transmitter = &mut self.transmitters[pair];
        let count = frames.into_iter().take_while(|frame| transmitter.push(NetHeader::default(), frame)).count();
        transmitter.ring.publish_and_kick();
        count
    }

    /// Takes all frames that have come through a queue, and makes its buffers available again.
    pub fn receive(&mut self, pair: usize) -> Vec<Vec<u8>> {
        let receiver = &mut self.receivers[pair];
        let frames = std::iter::from_fn(|| receiver.receive().map(|(_, frame)| frame)).collect();
        receiver.fill(usize::MAX);
        frames
    }
}

/// The bytes that the queues of a pair take, the receive queue first.
fn pair_footprint(options: &Options) -> u64 {
    receiver_footprint(options) + Transmitter::footprint(options.ring_size, options.buffer).next_multiple_of(64)
}

fn receiver_footprint(options: &Options) -> u64 {
    Receiver::footprint(options.ring_size, options.buffer).next_multiple_of(64)
}

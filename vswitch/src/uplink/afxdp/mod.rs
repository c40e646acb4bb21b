//! Uplinks over AF_XDP: frames are taken from a network device, and given to it, through memory that is shared with the kernel.
//!
//! The launcher opens one socket for each queue, all over one memory ([`open()`]); a short program in the kernel hands it the frames that are the switch's ([`program`]),
//! for as long as a descriptor of the program's link is open. The switch only maps what it is handed ([`queues`]), for which it needs no privilege. When both
//! processes are gone, however they ended, the kernel has closed the link and the sockets, and the device is the host's alone again.
//!
//! AF_XDP knows no offloads: frames go out finished ([`tx`]), and nothing is known about the checksums of those that come in ([`rx`]).
//!
//! The code is our own, since it is small: of the crates for AF_XDP, one is under a licence that does not go with ours, another needs a C tool-chain, and none splits the
//! work between a process that may open sockets and one that may not.

mod memory;
mod open;
mod program;
mod queue;
mod rx;
mod sys;
mod tx;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use datapath::port::PortNo;
use serde::{Deserialize, Serialize};

pub use open::{AfXdpError, open};
pub use queue::Account;

use super::{Mtu, Queue};
use memory::{Rings, Umem};
use queue::Socket;

/// What the descriptors of a device are: the memory, one socket for each queue, and others that are only kept open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The number of sockets.
    queues: u16,
    /// Entries of each ring, and chunks for each direction of a queue.
    ring: u32,
    /// The size of a chunk in bytes.
    chunk: u32,
    /// A frame may take several chunks.
    pieces: bool,
    /// Looking for frames drives the device.
    busy_poll: bool,
    /// How frames are taken.
    how: How,
    /// What an operator should know: one line each.
    pub notes: Vec<String>,
}

impl Layout {
    /// The number of queues.
    pub fn queues(&self) -> u16 {
        self.queues
    }
}

/// How frames are taken from a device, which may be less well than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct How {
    /// In the driver, not behind it.
    pub native: bool,
    /// The device itself writes to our memory, and reads from it.
    pub zero_copy: bool,
}

/// How a queue fares: to be asked while it is in service.
#[derive(Clone, Debug)]
pub struct Watch {
    how: How,
    socket: Arc<Socket>,
}

impl Watch {
    /// How frames are taken.
    pub fn how(&self) -> How {
        self.how
    }

    /// Where the chunks for receiving are.
    pub fn rx(&self) -> Account {
        self.socket.rx_account()
    }

    /// Where the chunks for transmitting are.
    pub fn tx(&self) -> Account {
        self.socket.tx_account()
    }

    /// How many frames the kernel dropped that came for this queue, since we were too slow, or they were too long.
    pub fn dropped_by_kernel(&self) -> u64 {
        self.socket.dropped_by_kernel()
    }
}

/// The chunks that the memory of so many queues has.
fn chunks(queues: u16, ring: u32) -> u32 {
    2 * ring * u32::from(queues)
}

/// Makes queues of the descriptors of a device. Their frames come in through `port`.
pub fn queues(layout: &Layout, descriptors: Vec<OwnedFd>, port: PortNo, mtu: &Mtu) -> Result<Vec<Queue>, String> {
    let Layout { queues, ring, chunk, pieces, .. } = *layout;
    let mut descriptors = descriptors.into_iter();
    let file = descriptors.next().ok_or("the launcher passed no memory for frames")?;
    let sockets: Vec<_> = descriptors.by_ref().take(queues.into()).collect();
    let device = Arc::new(descriptors.collect());
    let failed = |error| format!("what the launcher opened can't be mapped: {error}");
    let umem = Arc::new(Umem::map(&file, chunks(queues, ring), chunk).map_err(failed)?);
    let half = u64::from(ring) * u64::from(chunk);
    let mut made = Vec::with_capacity(sockets.len());
    for (fd, index) in sockets.into_iter().zip(0..) {
        let rings = Rings::map(&fd, ring).map_err(failed)?;
        let socket = Arc::new(Socket::new(fd, umem.clone(), rings, ring, Arc::clone(&device)));
        let first = 2 * index * half;
        let rx = rx::Rx::start(socket.clone(), port, first, layout.busy_poll).map_err(failed)?;
        made.push(Queue {
            kick: rx.kick(),
            rx: Box::new(rx),
            tx: Box::new(tx::Tx::start(socket.clone(), mtu.clone(), first + half, pieces)),
            watch: Some(Watch { how: layout.how, socket }),
        });
    }
    Ok(made)
}

//! What the two halves of a queue share: its socket, its rings, and the account of its chunks.
//!
//! Half of a queue's chunks are for receiving ([`super::rx`]), half for transmitting ([`super::tx`]); none ever changes sides, so that neither can starve the other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::net::{SendFlags, send, sockopt};
use serde::{Deserialize, Serialize};

use super::memory::{Rings, Umem};

/// How often the kernel is told at once, if it sends only a part each time: kernels before 6.17 send 32 frames.
const KICKS: usize = 64;

/// A queue's socket and what belongs to it.
#[derive(Debug)]
pub struct Socket {
    /// Where its frames lie, with those of the device's other queues.
    pub umem: Arc<Umem>,
    /// Its rings.
    pub rings: Rings,
    /// The number of chunks of each half, and of entries of each ring.
    pub size: u32,
    /// The chunks that are not with the kernel, for receiving and for transmitting; each written by who has them.
    pub rx_ours: AtomicU32,
    /// See above.
    pub tx_ours: AtomicU32,
    /// The kernel left frames in the transmit ring, since the device was busy.
    busy: AtomicBool,
    fd: OwnedFd,
    /// What keeps the device in our service: closed with the last of its queues.
    _device: Arc<Vec<OwnedFd>>,
}

/// Where the chunks of one half of a queue are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// All there are.
    pub chunks: u32,
    /// Free, or in our hands.
    pub ours: u32,
    /// On their way to the kernel: in the fill or the transmit ring.
    pub to_kernel: u32,
    /// With the kernel, in neither ring.
    pub in_kernel: u32,
    /// On their way back: in the receive or the completion ring.
    pub from_kernel: u32,
    /// In none of these places: always zero when no frames are under way.
    pub lost: i64,
}

impl Account {
    /// Of the chunks that were given to the kernel and have not come back, some are in one of the two rings.
    fn new(chunks: u32, ours: u32, with_kernel: u32, to_kernel: u32, from_kernel: u32) -> Self {
        let lost = i64::from(chunks) - i64::from(ours) - i64::from(with_kernel);
        Self { chunks, ours, to_kernel, in_kernel: with_kernel.saturating_sub(to_kernel).saturating_sub(from_kernel), from_kernel, lost }
    }
}

impl Socket {
    /// The socket `fd`, whose rings of `size` entries are mapped.
    pub fn new(fd: OwnedFd, umem: Arc<Umem>, rings: Rings, size: u32, device: Arc<Vec<OwnedFd>>) -> Self {
        let (rx_ours, tx_ours) = (AtomicU32::new(size), AtomicU32::new(size));
        Self { umem, rings, size, rx_ours, tx_ours, busy: AtomicBool::new(false), fd, _device: device }
    }

    /// Has the kernel send what is in the transmit ring, if it wants to be told.
    pub fn kick(&self) {
        let ring = &self.rings.tx;
        let mut waiting = ring.len();
        if waiting == 0 || !ring.needs_wakeup() {
            return;
        }
        let mut busy = false;
        for _ in 0..KICKS {
            let sent = send(self, &[], SendFlags::DONTWAIT);
            let left = ring.len();
            // Any other error is about the device, and will be news of its link.
            busy = left > 0 && matches!(sent, Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::BUSY | Errno::NOBUFS));
            if left >= waiting || !busy {
                break;
            }
            waiting = left;
        }
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Reminds the kernel of frames that it could not send. Whether it can't still.
    #[inline(always)]
    pub fn remind(&self) -> bool {
        if self.busy.load(Ordering::Relaxed) {
            self.kick();
        }
        self.busy.load(Ordering::Relaxed)
    }

    /// How many frames for this queue the kernel dropped. It counts, too, how often it found the fill ring empty: but a frame that is dropped for that is among
    /// these, and a device with zero-copy looks without having a frame.
    pub fn dropped_by_kernel(&self) -> u64 {
        // A device that is gone has no say.
        sockopt::xdp_statistics(self).map_or(0, |statistics| statistics.rx_dropped + statistics.rx_ring_full.unwrap_or(0))
    }

    /// Where the chunks for receiving are.
    pub fn rx_account(&self) -> Account {
        let Rings { rx, fill, .. } = &self.rings;
        // Each chunk is one entry of either ring, both of which have counted from zero.
        let with_kernel = fill.producer().wrapping_sub(rx.consumer());
        Account::new(self.size, self.rx_ours.load(Ordering::Relaxed), with_kernel, fill.len(), rx.len())
    }

    /// Where the chunks for transmitting are.
    pub fn tx_account(&self) -> Account {
        let Rings { tx, completion, .. } = &self.rings;
        let with_kernel = tx.producer().wrapping_sub(completion.consumer());
        Account::new(self.size, self.tx_ours.load(Ordering::Relaxed), with_kernel, tx.len(), completion.len())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

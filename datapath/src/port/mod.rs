//! What the datapath needs of a port, and nothing else: frames come from an [`RxQueue`], and go to an [`Output`].
//!
//! As everywhere, rx is towards the switch and tx is from the switch. A port says nothing here of NICs, rings or descriptors.

mod dummy;

pub use dummy::DummyPort;

use crate::drops::TxDrop;
use crate::frame::Batch;

/// An OpenFlow port number. Ports of the switch have 1 ..= [`PortNo::MAX`]; OpenFlow 1.3.5 (7.2.1) reserves the numbers above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortNo(pub u32);

impl PortNo {
    /// The highest number of an ordinary port (`OFPP_MAX`).
    pub const MAX: Self = Self(0xffff_ff00);
    /// Back to the ingress port.
    pub const IN_PORT: Self = Self(0xffff_fff8);
    /// Through the tables, from a packet-out.
    pub const TABLE: Self = Self(0xffff_fff9);
    /// The learning switch.
    pub const NORMAL: Self = Self(0xffff_fffa);
    /// All ports but the ingress port and those closed to floods.
    pub const FLOOD: Self = Self(0xffff_fffb);
    /// All ports but the ingress port.
    pub const ALL: Self = Self(0xffff_fffc);
    /// To the controllers.
    pub const CONTROLLER: Self = Self(0xffff_fffd);
    /// The switch's own leg on the host.
    pub const LOCAL: Self = Self(0xffff_fffe);
    /// Any port, or none: a wildcard in requests.
    pub const ANY: Self = Self(0xffff_ffff);
}

impl std::fmt::Display for PortNo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::IN_PORT => f.write_str("IN_PORT"),
            Self::TABLE => f.write_str("TABLE"),
            Self::NORMAL => f.write_str("NORMAL"),
            Self::FLOOD => f.write_str("FLOOD"),
            Self::ALL => f.write_str("ALL"),
            Self::CONTROLLER => f.write_str("CONTROLLER"),
            Self::LOCAL => f.write_str("LOCAL"),
            Self::ANY => f.write_str("ANY"),
            Self(n) => write!(f, "{n}"),
        }
    }
}

/// The queues that OpenFlow can send a frame through on each port, numbered from 0, the default. Nothing is queued inside the switch, so they differ in what
/// they count, and in nothing else. (They are not the queues of a virtio-net device.)
pub const QUEUES: u32 = 8;

/// How many frames are assigned to queues at once.
const CHUNK: usize = 64;

/// One receive queue of a port, polled by one worker at a time.
pub trait RxQueue: Send {
    /// Takes up to [`crate::frame::BATCH`] frames into the empty `batch`, hands it to `consume` if there are any, and gives their buffers back
    /// once `consume` returns, with at most one notification. Leaves the batch empty, and returns the number of frames.
    ///
    /// Frames that turn out not to be frames are frames here too: reported to `consume` by [`Batch::rejected`], and counted in the result.
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize;

    /// About how many frames wait to be taken. A queue that can't tell says [`usize::MAX`].
    fn waiting(&mut self) -> usize {
        usize::MAX
    }

    /// Whether a look at it in vain costs a system call. Such a queue is put to rest as soon as it is quiet, however few queues there are.
    fn is_costly(&self) -> bool {
        false
    }

    /// Asks to be notified of the next frame, and says whether there is work already (then the worker must not block).
    fn arm(&mut self) -> bool;

    /// Takes the wish for notifications back.
    fn disarm(&mut self);
}

/// A worker among the workers of a switch, who share the ports' transmit queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its number, from 0.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
}

impl Share {
    /// The only worker of a switch.
    pub const WHOLE: Self = Self { worker: 0, workers: 1 };
    /// The most queues that frames are spread over.
    pub const QUEUES_MAX: usize = 128;

    /// Which of `queues` queues, numbered from 0, is this worker's for a frame with this hash; there is one at least. With as many queues as workers, no two
    /// workers have one in common. Frames of a flow stay in order: they have the same hash, and come to the same worker.
    pub fn queue(self, queues: usize, hash: u32) -> usize {
        let Self { worker, workers } = self;
        if queues <= workers {
            return worker % queues;
        }
        let own = (queues - worker).div_ceil(workers);
        worker + workers * ((u64::from(hash) * own as u64) >> 32) as usize
    }

    /// Spreads frames of `batch` over this worker's share of `queues` queues, [`Share::QUEUES_MAX`] at most: hands each queue those that are its, in order.
    #[inline]
    pub fn spread(self, queues: usize, batch: &Batch, slots: &[u16], mut transmit: impl FnMut(usize, &[u16])) {
        if queues <= self.workers {
            return transmit(self.queue(queues, 0), slots);
        }
        for chunk in slots.chunks(CHUNK) {
            let (mut places, mut used) = ([0; CHUNK], 0u128);
            for (place, &slot) in places.iter_mut().zip(chunk) {
                *place = self.queue(queues, batch.frame(slot).hash);
                used |= 1 << *place;
            }
            while used != 0 {
                let queue = used.trailing_zeros() as usize;
                used &= used - 1;
                let (mut own, mut count) = ([0; CHUNK], 0);
                for (_, &slot) in places.iter().zip(chunk).filter(|(of, _)| **of == queue) {
                    own[count] = slot;
                    count += 1;
                }
                transmit(queue, &own[..count]);
            }
        }
    }
}

/// The transmit side of a port: all its queues, shared by the workers.
pub trait Output: Send + Sync {
    /// Transmits the frames of `batch` whose slots are listed, in order, and publishes them with at most one notification a queue. It is up to the
    /// port to have a worker keep to its share of the queues.
    ///
    /// Every listed frame is counted in the result, as sent or as dropped. The frames are left unchanged.
    fn transmit(&self, share: Share, batch: &Batch, slots: &[u16]) -> Transmitted;
}

/// What became of the frames given to [`Output::transmit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transmitted {
    /// Frames sent. A frame that was segmented for this port counts once.
    pub frames: u64,
    /// Their bytes as they were in the switch, without virtio's header.
    pub bytes: u64,
    /// Frames dropped, by [`TxDrop`].
    pub drops: [u32; TxDrop::COUNT],
}

impl Transmitted {
    /// Counts one frame of `bytes` bytes as sent.
    pub fn sent(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// Counts one frame as dropped.
    pub fn dropped(&mut self, reason: TxDrop) {
        self.drops[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::Share;

    /// The queues that a worker uses, of so many.
    fn of(worker: usize, workers: usize, queues: usize) -> Vec<usize> {
        let mut used: Vec<_> = (0..=u32::MAX).step_by(1 << 20).map(|hash| Share { worker, workers }.queue(queues, hash)).collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    #[test]
    fn every_queue_is_used_and_none_by_two_workers() {
        for workers in 1..=5 {
            for queues in workers..=12 {
                let mut all: Vec<_> = (0..workers).flat_map(|worker| of(worker, workers, queues)).collect();
                all.sort_unstable();
                assert_eq!(all, (0..queues).collect::<Vec<_>>(), "{workers} workers");
            }
        }
    }

    #[test]
    fn workers_without_a_queue_of_their_own_are_spread_evenly() {
        assert_eq!((0..5).map(|worker| of(worker, 5, 2)).collect::<Vec<_>>(), [[0], [1], [0], [1], [0]]);
    }
}

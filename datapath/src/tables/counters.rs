//! The counters of a port.
//!
//! Each worker has a stripe of its own, which only it writes: with a plain load and store, no locked instruction, on cache lines that nobody
//! else writes. A reader adds the stripes up; the sums are exact once the workers are quiet.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::drops::{DropReason, TxDrop};
use crate::port::{QUEUES, Transmitted};

/// The counters of one port.
#[derive(Debug)]
pub struct PortCounters {
    stripes: Box<[PortStripe]>,
}

/// What one worker counted for one port. Only that worker may add.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PortStripe {
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    forwarded: AtomicU64,
    to_controller: AtomicU64,
    drops: [AtomicU64; DropReason::COUNT],
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    tx_drops: [AtomicU64; TxDrop::COUNT],
    /// What went through each of OpenFlow's queues but the default.
    queues: [QueueCounters; QUEUES as usize - 1],
}

#[derive(Debug, Default)]
struct QueueCounters {
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

/// The sums of a queue's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTotals {
    /// Frames sent.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames not sent.
    pub dropped: u64,
}

/// The sums of a port's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    /// Frames that came in, whatever became of them.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Of the frames that came in, those sent to one port or more.
    pub forwarded: u64,
    /// Of the frames that came in, those given to a controller only.
    pub to_controller: u64,
    /// Of the frames that came in, those dropped, by [`DropReason`].
    pub drops: [u64; DropReason::COUNT],
    /// Frames sent.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames meant for this port and not sent, by [`TxDrop`].
    pub tx_drops: [u64; TxDrop::COUNT],
    /// Of the frames sent and not sent, those of each of OpenFlow's queues; most often all are of the first, the default.
    pub queues: [QueueTotals; QUEUES as usize],
}

/// Adds without a locked instruction: right as long as there is one writer.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl PortCounters {
    /// All zero, for this many workers.
    pub fn new(workers: usize) -> Self {
        Self { stripes: (0..workers).map(|_| PortStripe::default()).collect() }
    }

    /// The stripe of a worker. Panics if there is no such worker.
    pub fn stripe(&self, worker: usize) -> &PortStripe {
        &self.stripes[worker]
    }

    /// The sums over all workers.
    pub fn totals(&self) -> PortTotals {
        let mut totals = PortTotals::default();
        for stripe in &self.stripes {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            totals.rx_frames += read(&stripe.rx_frames);
            totals.rx_bytes += read(&stripe.rx_bytes);
            totals.forwarded += read(&stripe.forwarded);
            totals.to_controller += read(&stripe.to_controller);
            totals.drops.iter_mut().zip(&stripe.drops).for_each(|(sum, counter)| *sum += read(counter));
            totals.tx_frames += read(&stripe.tx_frames);
            totals.tx_bytes += read(&stripe.tx_bytes);
            totals.tx_drops.iter_mut().zip(&stripe.tx_drops).for_each(|(sum, counter)| *sum += read(counter));
            for (sum, queue) in totals.queues[1..].iter_mut().zip(&stripe.queues) {
                sum.frames += read(&queue.frames);
                sum.bytes += read(&queue.bytes);
                sum.dropped += read(&queue.dropped);
            }
        }
        let others = |of: fn(&QueueTotals) -> u64| totals.queues[1..].iter().map(of).sum::<u64>();
        // Each counter is read at a moment of its own.
        totals.queues[0] = QueueTotals {
            frames: totals.tx_frames.saturating_sub(others(|queue| queue.frames)),
            bytes: totals.tx_bytes.saturating_sub(others(|queue| queue.bytes)),
            dropped: totals.tx_dropped().saturating_sub(others(|queue| queue.dropped)),
        };
        totals
    }
}

impl PortStripe {
    /// Frames came in.
    pub fn received(&self, frames: u64, bytes: u64) {
        add(&self.rx_frames, frames);
        add(&self.rx_bytes, bytes);
    }

    /// Frames that came in were sent to one port or more.
    pub fn forwarded(&self, frames: u64) {
        add(&self.forwarded, frames);
    }

    /// Frames that came in were given to a controller only.
    pub fn to_controller(&self, frames: u64) {
        add(&self.to_controller, frames);
    }

    /// Frames that came in were dropped.
    pub fn dropped(&self, reason: DropReason, frames: u64) {
        add(&self.drops[reason as usize], frames);
    }

    /// Frames were given to the port's output, through one of OpenFlow's queues, 0 by default.
    pub fn transmitted(&self, queue: u32, transmitted: &Transmitted) {
        add(&self.tx_frames, transmitted.frames);
        add(&self.tx_bytes, transmitted.bytes);
        if let Some(queue) = (queue as usize).checked_sub(1).and_then(|queue| self.queues.get(queue)) {
            add(&queue.frames, transmitted.frames);
            add(&queue.bytes, transmitted.bytes);
            add(&queue.dropped, transmitted.drops.iter().map(|frames| u64::from(*frames)).sum());
        }
        for (counter, frames) in self.tx_drops.iter().zip(&transmitted.drops) {
            if *frames != 0 {
                add(counter, u64::from(*frames));
            }
        }
    }
}

impl PortTotals {
    /// Frames that came in and were dropped, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Frames meant for this port and not sent, for whatever reason.
    pub fn tx_dropped(&self) -> u64 {
        self.tx_drops.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stripes_add_up() {
        let counters = PortCounters::new(2);
        counters.stripe(0).received(3, 180);
        counters.stripe(0).forwarded(1);
        counters.stripe(0).dropped(DropReason::NoMatch, 2);
        counters.stripe(1).received(1, 60);
        counters.stripe(1).to_controller(1);
        let mut transmitted = Transmitted::default();
        transmitted.sent(60);
        transmitted.dropped(TxDrop::RingFull);
        counters.stripe(1).transmitted(0, &transmitted);
        counters.stripe(0).transmitted(5, &transmitted);
        let totals = counters.totals();
        assert_eq!((totals.rx_frames, totals.rx_bytes, totals.tx_frames, totals.tx_bytes), (4, 240, 2, 120));
        assert_eq!(totals.rx_frames, totals.forwarded + totals.to_controller + totals.dropped());
        assert_eq!(totals.tx_drops[TxDrop::RingFull as usize], 2);
        assert_eq!(totals.tx_dropped(), 2);
        assert_eq!(totals.queues[5], QueueTotals { frames: 1, bytes: 60, dropped: 1 });
        assert_eq!(totals.queues[0], totals.queues[5]);
    }
}

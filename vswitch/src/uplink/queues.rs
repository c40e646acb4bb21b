//! The queues of a port over a device, as the workers have them: they stay while the device comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datapath::drops::TxDrop;
use datapath::frame::Batch;
use datapath::port::{Output, RxQueue, Share, Transmitted};
use vhost_backend::slot::Slot;

use super::{Queue, TxQueue};

/// Places for the queues of a device.
pub struct Queues {
    pairs: Box<[Pair]>,
    /// Frames can leave the device.
    up: AtomicBool,
    costly: bool,
}

#[derive(Default)]
struct Pair {
    rx: Slot<Box<dyn RxQueue>>,
    tx: Slot<Box<dyn TxQueue>>,
}

impl Queues {
    /// Places for `count` queues, at most [`Share::QUEUES_MAX`]; `costly` says of their receive sides what [`RxQueue::is_costly`] does.
    pub fn new(count: u16, costly: bool) -> Arc<Self> {
        Arc::new(Self { pairs: (0..count).map(|_| Pair::default()).collect(), up: AtomicBool::new(false), costly })
    }

    /// The receive queues. To be asked for once: two workers must not poll the same queue.
    pub fn rx_queues(self: &Arc<Self>) -> Vec<Box<dyn RxQueue>> {
        (0..self.pairs.len()).map(|index| Box::new(RxHandle { queues: self.clone(), index }) as Box<dyn RxQueue>).collect()
    }

    /// Puts a queue into its place.
    pub fn put(&self, index: usize, queue: Queue) {
        self.pairs[index].tx.put(queue.tx);
        self.pairs[index].rx.put(queue.rx);
    }

    /// Says whether frames can leave the device; those that can't are dropped.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    /// Takes all queues out. No worker uses any when this returns.
    pub fn clear(&self) {
        for pair in &self.pairs {
            pair.rx.take();
            pair.tx.take();
        }
    }
}

impl Output for Queues {
    fn transmit(&self, share: Share, batch: &Batch, slots: &[u16]) -> Transmitted {
        let mut result = Transmitted::default();
        if !self.up.load(Ordering::Relaxed) {
            slots.iter().for_each(|_| result.dropped(TxDrop::LinkDown));
            return result;
        }
        share.spread(self.pairs.len(), batch, slots, |index, slots| {
            if self.pairs[index].tx.wait_use(|queue| queue.transmit(batch, slots, &mut result)).is_none() {
                slots.iter().for_each(|_| result.dropped(TxDrop::LinkDown));
            }
        });
        result
    }
}

/// A receive queue, as one worker holds it.
struct RxHandle {
    queues: Arc<Queues>,
    index: usize,
}

impl RxHandle {
    fn slot(&self) -> &Slot<Box<dyn RxQueue>> {
        &self.queues.pairs[self.index].rx
    }
}

impl RxQueue for RxHandle {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        self.slot().try_use(|queue| queue.serve(batch, consume)).unwrap_or(0)
    }

    fn waiting(&mut self) -> usize {
        self.slot().try_use(|queue| queue.waiting()).unwrap_or(0)
    }

    fn is_costly(&self) -> bool {
        self.queues.costly
    }

    /// Waits for a change of the queue to be over, as a guest's does: one that was neither armed nor said to have work would sleep for ever.
    fn arm(&mut self) -> bool {
        self.slot().wait_use(|queue| queue.arm()).unwrap_or(false)
    }

    fn disarm(&mut self) {
        self.slot().wait_use(|queue| queue.disarm());
    }
}

//! A port's queues as the workers see them: handles that live as long as the port, over slots whose rings come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use datapath::drops::{DropReason, TxDrop};
use datapath::frame::Batch;
use datapath::port::{Output, RxQueue, Share, Transmitted};

use crate::rx::RxRing;
use crate::slot::Slot;
use crate::tx::TxRing;

/// All queues of a port. They belong to the workers and the control thread alike; which rings exist and which are enabled is for
/// [`crate::device::Device`] to say.
pub(crate) struct Queues {
    pairs: Box<[Pair]>,
    /// The transmit queues in use, the first `active` of the list: enabled by the front end, with a ring. While the control thread changes it, a
    /// frame may be assigned to a queue of the old list or the new one; either has a slot, and the slot knows whether there is a ring.
    active: AtomicUsize,
    active_list: Box<[AtomicU8]>,
    /// How many rings broke because of what a guest put into them.
    pub breaks: Arc<AtomicU64>,
}

/// The receive and the transmit queue of a pair.
#[derive(Default)]
pub(crate) struct Pair {
    pub rx: Slot<RxRing>,
    pub rx_enabled: AtomicBool,
    pub tx: Slot<TxRing>,
}

impl Queues {
    /// `pairs` pairs of queues without rings, 1 ..= 128.
    pub fn new(pairs: usize) -> Self {
        Self {
            pairs: (0..pairs).map(|_| Pair::default()).collect(),
            active: AtomicUsize::new(0),
            active_list: (0..pairs).map(|_| AtomicU8::new(0)).collect(),
            breaks: Arc::default(),
        }
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn pair(&self, index: usize) -> &Pair {
        &self.pairs[index]
    }

    /// Sets the transmit queues that frames are spread over, and counts them.
    pub fn set_active(&self, queues: impl Iterator<Item = usize>) -> usize {
        let mut count = 0;
        for (place, queue) in self.active_list.iter().zip(queues) {
            place.store(queue as u8, Ordering::Relaxed);
            count += 1;
        }
        self.active.store(count, Ordering::Relaxed);
        count
    }

    /// Transmits to one queue.
    fn transmit_to(&self, queue: usize, batch: &Batch, slots: &[u16], result: &mut Transmitted) {
        if self.pairs[queue].tx.wait_use(|ring| ring.transmit(batch, slots, result)).is_none() {
            slots.iter().for_each(|_| result.dropped(TxDrop::LinkDown));
        }
    }
}

impl Output for Queues {
    fn transmit(&self, share: Share, batch: &Batch, slots: &[u16]) -> Transmitted {
        let mut result = Transmitted::default();
        match self.active.load(Ordering::Relaxed) {
            0 => slots.iter().for_each(|_| result.dropped(TxDrop::LinkDown)),
            active => share.spread(active, batch, slots, |place, slots| {
                let queue = self.active_list[place].load(Ordering::Relaxed).into();
                self.transmit_to(queue, batch, slots, &mut result);
            }),
        }
        result
    }
}

/// A receive queue, as one worker holds it.
pub(crate) struct RxHandle {
    queues: Arc<Queues>,
    index: usize,
}

impl RxHandle {
    pub fn new(queues: Arc<Queues>, index: usize) -> Self {
        Self { queues, index }
    }
}

impl RxQueue for RxHandle {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        let pair = self.queues.pair(self.index);
        pair.rx
            .try_use(|ring| {
                if pair.rx_enabled.load(Ordering::Relaxed) {
                    return ring.serve(batch, consume);
                }
                // vhost-user: what a guest sends through a disabled queue is processed and discarded.
                ring.serve(batch, &mut |batch| {
                    let count = batch.len();
                    batch.end_loans();
                    (0..count).for_each(|_| batch.reject(DropReason::QueueDisabled));
                    consume(batch);
                })
            })
            .unwrap_or(0)
    }

    fn waiting(&mut self) -> usize {
        self.queues.pair(self.index).rx.try_use(RxRing::waiting).unwrap_or(0)
    }

    /// Waits for a change of the ring to be over: a queue that was neither armed nor said to have work would sleep for ever.
    fn arm(&mut self) -> bool {
        self.queues.pair(self.index).rx.wait_use(RxRing::arm).unwrap_or(false)
    }

    /// Waits, too: a ring that stays armed has its guest notify of each batch.
    fn disarm(&mut self) {
        self.queues.pair(self.index).rx.wait_use(RxRing::disarm);
    }
}

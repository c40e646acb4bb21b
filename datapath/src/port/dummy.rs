//! A port without anything behind it, for tests and simulations: frames are offered to it and taken from it by hand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Output, PortNo, RxQueue, Share, Transmitted};
use crate::drops::TxDrop;
use crate::frame::{BATCH, Batch, Offload};

/// A port without anything behind it. Its clones are the same port.
#[derive(Clone, Debug)]
pub struct DummyPort {
    number: PortNo,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    offered: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    room: usize,
    armed: bool,
    notified: bool,
}

impl DummyPort {
    /// A port with this number and endless room.
    pub fn new(number: PortNo) -> Self {
        Self {
            number,
            state: Arc::new(Mutex::new(State {
                offered: VecDeque::new(),
                sent: Vec::new(),
                room: usize::MAX,
                armed: false,
                notified: false,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a frame come in, and notifies of it if that was asked for.
    pub fn offer(&self, frame: &[u8]) {
        let mut state = self.state();
        state.offered.push_back(frame.to_vec());
        state.notified |= std::mem::take(&mut state.armed);
    }

    /// Whether it has notified since it was asked last.
    pub fn take_notified(&self) -> bool {
        std::mem::take(&mut self.state().notified)
    }

    /// Takes the frames that were sent here.
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state().sent)
    }

    /// Lets at most `frames` lie here before they are taken; those beyond are dropped.
    pub fn set_room(&self, frames: usize) {
        self.state().room = frames;
    }
}

impl RxQueue for DummyPort {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        let frames: Vec<_> = {
            let mut state = self.state();
            let count = state.offered.len().min(BATCH);
            state.offered.drain(..count).collect()
        };
        if frames.is_empty() {
            return 0;
        }
        for frame in &frames {
            batch.push_bytes(self.number, Offload::default(), frame);
        }
        consume(batch);
        batch.clear();
        frames.len()
    }

    fn waiting(&mut self) -> usize {
        self.state().offered.len()
    }

    fn arm(&mut self) -> bool {
        let mut state = self.state();
        state.armed = true;
        !state.offered.is_empty()
    }

    fn disarm(&mut self) {
        self.state().armed = false;
    }
}

impl Output for DummyPort {
    fn transmit(&self, _: Share, batch: &Batch, slots: &[u16]) -> Transmitted {
        let mut transmitted = Transmitted::default();
        let mut state = self.state();
        for slot in slots {
            if state.sent.len() < state.room {
                state.sent.push(batch.to_vec(*slot, usize::MAX));
                transmitted.sent(batch.frame(*slot).len());
            } else {
                transmitted.dropped(TxDrop::RingFull);
            }
        }
        transmitted
    }
}

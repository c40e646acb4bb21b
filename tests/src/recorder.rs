//! A recorder between a queue and its worker: notes what the worker gets, in the order in which it gets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use datapath::drops::DropReason;
use datapath::frame::{Batch, Checksum};
use datapath::port::{PortNo, RxQueue};

use crate::offload::complete;

/// What a worker got, in order.
#[derive(Default)]
pub struct Record {
    /// The frames, with complete checksums, and where they came from.
    pub frames: Vec<(PortNo, Vec<u8>)>,
    /// What was rejected, by port and reason.
    pub rejected: HashMap<PortNo, [u64; DropReason::COUNT]>,
}

/// Notes what a queue gives to its worker.
pub struct Recorder {
    /// The queue.
    pub queue: Box<dyn RxQueue>,
    /// Its port.
    pub port: PortNo,
    /// Where it notes it; shared by the queues of a worker.
    pub record: Arc<Mutex<Record>>,
}

impl RxQueue for Recorder {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        let (port, record) = (self.port, &self.record);
        self.queue.serve(batch, &mut |batch| {
            let mut record = record.lock().expect("nobody panics with it");
            for slot in 0..batch.len() as u16 {
                let mut bytes = batch.to_vec(slot, usize::MAX);
                if let Checksum::Partial { start, offset } = batch.frame(slot).offload.checksum {
                    complete(&mut bytes, start.into(), offset.into());
                }
                record.frames.push((port, bytes));
            }
            let sums = record.rejected.entry(port).or_insert([0; DropReason::COUNT]);
            sums.iter_mut().zip(batch.rejected()).for_each(|(sum, count)| *sum += u64::from(*count));
            drop(record);
            consume(batch);
        })
    }

    fn waiting(&mut self) -> usize {
        self.queue.waiting()
    }

    fn arm(&mut self) -> bool {
        self.queue.arm()
    }

    fn disarm(&mut self) {
        self.queue.disarm();
    }
}

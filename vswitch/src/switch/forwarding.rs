//! The tables and the workers that forward by them: what the OpenFlow agent is given as its [`Datapath`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use datapath::Nanos;
use datapath::port::PortNo;
use datapath::tables::Tables;
use datapath::tables::instruction::OfAction;
use datapath::worker::Published;

use super::clock;
use super::workers::Workers;
use crate::openflow::datapath::Datapath;

/// Packet-outs that may be under way at once; a controller that sends more waits for the workers.
const PACKET_OUTS: usize = 64;

/// See the module.
pub struct Forwarding {
    tables: Tables,
    published: Arc<Published>,
    /// Whoever needs the workers for more than forwarding.
    pub workers: Workers,
    packet_outs: VecDeque<Receiver<()>>,
}

impl Forwarding {
    /// Workers that forward by `published`, of which `tables` is the draft.
    pub fn new(tables: Tables, published: Arc<Published>, workers: Workers) -> Self {
        Self { tables, published, workers, packet_outs: VecDeque::new() }
    }

    /// The draft, to read.
    pub fn draft(&self) -> &Tables {
        &self.tables
    }
}

impl Datapath for Forwarding {
    fn now(&self) -> Nanos {
        clock::now()
    }

    fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    fn publish(&mut self) {
        if self.tables.epoch() != self.published.epoch() {
            self.published.publish(self.tables.clone());
            self.workers.wake();
        }
    }

    fn barrier(&mut self) {
        self.workers.each(|worker| worker.take_up());
    }

    fn settle(&mut self) {
        self.workers.each(|worker| worker.settle());
    }

    fn packet_out(&mut self, in_port: PortNo, frame: &[u8], actions: &[OfAction]) {
        if self.packet_outs.len() >= PACKET_OUTS
            && let Some(oldest) = self.packet_outs.pop_front()
        {
            // Done, or the worker is gone, and the process with it.
            let _ = oldest.recv();
        }
        let (frame, actions) = (frame.to_vec(), actions.to_vec());
        // All by the same worker, so that they stay in order.
        let done = self.workers.threads()[0].post(move |worker| worker.inject(in_port, &frame, &actions, clock::now()));
        self.packet_outs.push_back(done);
    }
}

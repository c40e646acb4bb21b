//! The workers and the tables that they forward by: what the OpenFlow agent is given as its [`Datapath`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use datapath::port::PortNo;
use datapath::tables::Tables;
use datapath::tables::instruction::OfActions;
use datapath::worker::Published;

use super::clock;
use super::workers::Workers;
use crate::openflow::agent::Datapath;

/// Packet-outs that may be under way at once; a controller that sends more waits for the workers.
const PACKET_OUTS: usize = 64;

/// See the module.
pub struct Forwarding {
    published: Arc<Published>,
    /// Whoever needs the workers for more than forwarding.
    pub workers: Workers,
    packet_outs: VecDeque<Receiver<()>>,
}

impl Forwarding {
    /// Workers that forward by `published`.
    pub fn new(published: Arc<Published>, workers: Workers) -> Self {
        Self { published, workers, packet_outs: VecDeque::new() }
    }
}

impl Datapath for Forwarding {
    fn publish(&mut self, tables: Tables) {
        self.published.publish(tables);
        self.workers.take_up();
    }

    fn barrier(&mut self) {
        self.workers.each(|worker| worker.take_up());
    }

    fn settle(&mut self) {
        self.workers.each(|worker| worker.settle());
        // This comes about once a second; nobody waits for it, as somebody does for a barrier.
        self.published.give_up();
    }

    fn inject(&mut self, in_port: PortNo, frame: Vec<u8>, actions: OfActions) {
        if self.packet_outs.len() >= PACKET_OUTS
            && let Some(oldest) = self.packet_outs.pop_front()
        {
            // Done, or the worker is gone, and the process with it.
            let _ = oldest.recv();
        }
        // All by the same worker, so that they stay in order.
        let done = self.workers.threads()[0].post(move |worker| worker.inject(in_port, &frame, &actions, clock::now()));
        self.packet_outs.push_back(done);
    }
}

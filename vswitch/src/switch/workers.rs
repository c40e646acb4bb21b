//! All workers, and which of them serves which queue.

use std::io;
use std::sync::Arc;

use datapath::port::{PortNo, RxQueue};
use datapath::worker::{Published, Worker, WorkerSettings};

use super::packet_in::PacketIns;
use super::worker::{Kicks, WorkerThread};
use crate::config::Polling;

/// The workers of a switch, at least one.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<WorkerThread>,
    /// Which ports' queues each serves.
    served: Vec<Vec<PortNo>>,
}

impl Workers {
    /// Starts a worker on each of `cpus`.
    pub fn start(cpus: &[u16], polling: Polling, published: &Arc<Published>, packet_ins: &PacketIns, seed: u64) -> io::Result<Self> {
        let mut threads = Vec::with_capacity(cpus.len());
        for (number, cpu) in cpus.iter().enumerate() {
            let settings = WorkerSettings { number, seed, limits: Default::default() };
            let worker = Worker::new(settings, published.clone(), Box::new(packet_ins.sender()));
            threads.push(WorkerThread::start(*cpu, polling, worker)?);
        }
        Ok(Self { served: vec![Vec::new(); threads.len()], threads })
    }

    /// The threads, by their number.
    pub fn threads(&self) -> &[WorkerThread] {
        &self.threads
    }

    /// Runs `job` on every worker, between two breaths, and waits for all. By then all jobs posted before and all tables published before are
    /// taken up.
    pub fn each<R: Send + 'static>(&self, job: impl Fn(&mut Worker) -> R + Clone + Send + 'static) -> Vec<R> {
        let answers: Vec<_> = self.threads.iter().map(|thread| thread.post(job.clone())).collect();
        // A worker that is gone has taken the process with it.
        answers.into_iter().filter_map(|answer| answer.recv().ok()).collect()
    }

    /// Spreads the queues of `port`, which is published already, over the workers that serve the fewest. Returns, for each queue, whom its
    /// ring's kicks must wake.
    pub fn add_queues(&mut self, port: PortNo, queues: Vec<Box<dyn RxQueue>>) -> Vec<Kicks> {
        let assign = |queue| {
            let fewest = (0..self.threads.len()).min_by_key(|number| self.served[*number].len()).unwrap_or_default();
            self.served[fewest].push(port);
            let thread = &self.threads[fewest];
            // Nothing waits for it: the queue is served as soon as it is done.
            drop(thread.post(move |worker| worker.add_input(port, queue)));
            thread.kicks(port)
        };
        queues.into_iter().map(assign).collect()
    }

    /// Takes the queues of `port` away. When this returns, no worker has any of them.
    pub fn remove_queues(&mut self, port: PortNo) {
        self.served.iter_mut().for_each(|served| served.retain(|of| *of != port));
        self.each(move |worker| worker.remove_inputs(port));
    }

    /// Wakes those that sleep, so that they take up what was published.
    pub fn wake(&self) {
        self.threads.iter().for_each(WorkerThread::wake);
    }

    /// Changes what they do when there is no work.
    pub fn set_polling(&self, polling: Polling) {
        self.threads.iter().for_each(|thread| thread.set_polling(polling));
    }
}

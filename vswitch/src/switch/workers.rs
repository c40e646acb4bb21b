//! All workers, and which of them serves which queue.

use std::io;
use std::sync::Arc;

use datapath::port::{PortNo, RxQueue, Share};
use datapath::worker::{Published, Worker, WorkerSettings};

use super::packet_in::PacketIns;
use super::worker::{Kicks, WorkerThread};
use crate::config::Polling;

/// The workers of a switch, at least one.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<WorkerThread>,
    /// The queues that each serves: their port and their index.
    served: Vec<Vec<(PortNo, usize)>>,
}

impl Workers {
    /// Starts a worker on each of `cpus`.
    pub fn start(cpus: &[u16], polling: Polling, published: &Arc<Published>, packet_ins: &PacketIns, seed: u64) -> io::Result<Self> {
        let mut threads = Vec::with_capacity(cpus.len());
        for (number, cpu) in cpus.iter().enumerate() {
            let settings = WorkerSettings { share: Share { worker: number, workers: cpus.len() }, seed, limits: Default::default() };
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
    /// taken up. For those that sleep it is done here.
    pub fn each<R: Send + 'static>(&self, job: impl Fn(&mut Worker) -> R + Clone + Send + 'static) -> Vec<R> {
        let ask = |thread: &WorkerThread| thread.if_asleep(job.clone()).map_err(|job| thread.post(job));
        let answers: Vec<_> = self.threads.iter().map(ask).collect();
        // A worker that is gone has taken the process with it.
        answers.into_iter().filter_map(|answer| answer.map_or_else(|later| later.recv().ok(), Some)).collect()
    }

    /// Spreads the queues of `port`, which is published already, over the workers. Returns, for each queue, whom its ring's kicks must wake.
    ///
    /// Many guests use fewer queues than they are offered, the first ones. So each queue goes to the worker that serves the fewest queues with its index,
    /// and among equals to the one that serves the fewest at all.
    pub fn add_queues(&mut self, port: PortNo, queues: Vec<Box<dyn RxQueue>>) -> Vec<Kicks> {
        let assign = |(index, queue)| {
            let number = fewest(&self.served, index);
            self.served[number].push((port, index));
            let thread = &self.threads[number];
            // Nothing waits for it: the queue is served as soon as it is done.
            drop(thread.post(move |worker| worker.add_input(port, queue)));
            thread.kicks(port)
        };
        queues.into_iter().enumerate().map(assign).collect()
    }

    /// Takes the queues of `port` away. When this returns, no worker has any of them.
    pub fn remove_queues(&mut self, port: PortNo) {
        self.served.iter_mut().for_each(|served| served.retain(|(of, _)| *of != port));
        self.each(move |worker| worker.remove_inputs(port));
    }

    /// Has those that sleep take up what was published; the others do so with their next breath.
    pub fn take_up(&self) {
        for thread in &self.threads {
            let _ = thread.if_asleep(Worker::take_up);
        }
    }

    /// Changes what they do when there is no work.
    pub fn set_polling(&self, polling: Polling) {
        self.threads.iter().for_each(|thread| thread.set_polling(polling));
    }
}

/// The worker that serves the fewest queues with this index, and among equals the fewest.
fn fewest(served: &[Vec<(PortNo, usize)>], index: usize) -> usize {
    let load = |served: &Vec<(PortNo, usize)>| (served.iter().filter(|(_, of)| *of == index).count(), served.len());
    (0..served.len()).min_by_key(|number| load(&served[*number])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many queues each worker serves of those that guests use, if each port has `queues` queues of which its guest uses the first `used`.
    fn spread(workers: usize, ports: u32, queues: usize, used: usize) -> Vec<usize> {
        let mut served = vec![Vec::new(); workers];
        for port in 1..=ports {
            for index in 0..queues {
                let number = fewest(&served, index);
                served[number].push((PortNo(port), index));
            }
        }
        served.iter().map(|served| served.iter().filter(|(_, index)| *index < used).count()).collect()
    }

    #[test]
    fn guests_that_use_few_of_their_queues_are_spread_too() {
        for (workers, queues) in [(2, 1), (2, 2), (2, 4), (3, 2), (4, 4), (4, 3)] {
            for used in 1..=queues {
                let spread = spread(workers, 12, queues, used);
                assert!(spread.iter().all(|count| *count == 12 * used / workers), "{workers} workers, {used} of {queues}: {spread:?}");
            }
        }
    }
}

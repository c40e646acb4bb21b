//! A switch reduced to its ports: every frame goes out of all other ports (of a single port: back). It serves the tests of the vhost-user back end.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datapath::drops::DropReason;
use datapath::frame::Batch;
use datapath::port::{Output, RxQueue, Share, Transmitted};
use vhost_backend::Settings;

use crate::ports::{Ports, Tale};

/// The ports and their control loop, which runs until the hub is dropped.
pub struct Hub {
    ports: Ports,
    queues: Vec<Vec<Box<dyn RxQueue>>>,
    outputs: Vec<Arc<dyn Output>>,
    /// How many frames were rejected on their way in, by reason.
    pub rejected: [u64; DropReason::COUNT],
}

impl Hub {
    /// A hub of `ports` ports with `queue_pairs` queue pairs each, which listen at [`Hub::socket`].
    pub fn new(directory: &Path, ports: usize, queue_pairs: u16) -> Self {
        Self::with(directory, ports, true, |settings| settings.queue_pairs = queue_pairs)
    }

    /// A hub of `ports` ports, which listen or are to be given connections, with settings that `adjust` changes.
    pub fn with(directory: &Path, ports: usize, listen: bool, adjust: impl Fn(&mut Settings)) -> Self {
        let ports = Ports::new(directory, ports, listen, adjust);
        let queues = (0..ports.count()).map(|port| ports.rx_queues(port)).collect();
        let outputs = (0..ports.count()).map(|port| ports.output(port)).collect();
        Self { ports, queues, outputs, rejected: [0; DropReason::COUNT] }
    }

    /// Where a port listens.
    pub fn socket(&self, port: usize) -> PathBuf {
        self.ports.socket(port)
    }

    /// What a port has told.
    pub fn tale(&self, port: usize) -> &Tale {
        self.ports.tale(port)
    }

    /// Gives a port a connection.
    pub fn attach(&self, port: usize, stream: UnixStream) -> bool {
        self.ports.attach(port, stream)
    }

    /// A breath: takes a batch from every queue, and sends its frames out of every other port. Returns the frames that came in, and what became of
    /// the copies.
    pub fn breathe(&mut self) -> (usize, Transmitted) {
        let (mut batch, mut count, mut result) = (Batch::new(), 0, Transmitted::default());
        for (port, queues) in self.queues.iter_mut().enumerate() {
            for queue in queues {
                count += queue.serve(&mut batch, &mut |batch| {
                    let slots: Vec<u16> = (0..batch.len() as u16).collect();
                    for &slot in &slots {
                        let frame = batch.frame_mut(slot);
                        frame.hash = frame.head().iter().fold(0, |hash: u32, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
                    }
                    for (sum, count) in self.rejected.iter_mut().zip(batch.rejected()) {
                        *sum += u64::from(*count);
                    }
                    let alone = self.outputs.len() == 1;
                    for (_, output) in self.outputs.iter().enumerate().filter(|(other, _)| alone || *other != port) {
                        let sent = output.transmit(Share::WHOLE, batch, &slots);
                        result.frames += sent.frames;
                        result.bytes += sent.bytes;
                        result.drops.iter_mut().zip(sent.drops).for_each(|(sum, count)| *sum += count);
                    }
                });
            }
        }
        (count, result)
    }

    /// Breathes until `done` holds, resting a little whenever there is nothing to do.
    pub fn run_until(&mut self, done: impl Fn() -> bool) {
        while !done() {
            if self.breathe().0 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Asks all queues for notifications, and says whether any has work already.
    pub fn arm(&mut self) -> bool {
        // Every queue is to be armed, so this must not stop at the first.
        self.queues.iter_mut().flatten().fold(false, |work, queue| queue.arm() | work)
    }

    /// Takes the wish back.
    pub fn disarm(&mut self) {
        self.queues.iter_mut().flatten().for_each(|queue| queue.disarm());
    }
}

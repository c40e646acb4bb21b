//! How workers share a machine: each thread is a worker and the guests that it serves, so that no core is spent on load alone.
//!
//!     cargo run --release -p tests --example workers
//!
//! What is sent on one CPU is received on the same one, except where two workers send to the same guest: then the first one plays the receiver, and
//! what the second one wrote travels between the CPUs.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use datapath::action::NoControllers;
use datapath::cache::CacheLimits;
use datapath::key::{Field, Match};
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, VlanMode};
use datapath::worker::Worker;
use rustix::thread::{CpuSet, sched_setaffinity};
use tests::frontend::{Guest, Options};
use tests::rig::Rig;
use tests::wheel::{Receiving, Sending};

const WINDOW: Duration = Duration::from_secs(2);

fn main() {
    println!("frames sent, millions a second, and frames dropped for want of buffers, by one and by two workers");
    show("to a guest each", |workers| run(workers, None));
    show("to one guest with two queue pairs", |workers| run(workers, Some(2)));
    show("to one guest with one queue pair", |workers| run(workers, Some(1)));
}

fn show(what: &str, run: impl Fn(usize) -> (f64, f64)) {
    let [one, two] = [run(1), run(2)];
    println!("{what}: {:.2} ({:.2}) and {:.2} ({:.2}), {:.2} times as many", one.0, one.1, two.0, two.1, two.0 / one.0);
}

/// Has a guest for each worker send, to another for each or all to one with so many queue pairs.
fn run(workers: usize, shared: Option<usize>) -> (f64, f64) {
    let options = |queue_pairs| Options { queue_pairs, ring_size: 1024, ..Options::default() };
    let receivers = if shared.is_some() { 1 } else { workers };
    let mut guests = vec![options(1); workers];
    guests.extend(vec![options(shared.unwrap_or(1)); receivers]);
    let mut rig = Rig::new(&guests, workers, |_| VlanMode::default());
    for from in 0..workers {
        let to = workers + if shared.is_some() { 0 } else { from };
        let apply = vec![OfAction::Output { port: PortNo(to as u32 + 1), max_len: 0 }];
        let matching = Match::ANY.with(Field::InPort, from as u128 + 1);
        let flow_mod =
            FlowMod { matching, instructions: Instructions { apply: apply.into(), ..Instructions::default() }, ..FlowMod::default() };
        rig.draft.flow_mod(&flow_mod, 0).expect("a good rule");
    }
    rig.publish();
    let mut all: Vec<_> = (0..workers).map(|number| rig.worker(number, CacheLimits::default(), Box::new(NoControllers))).collect();
    for (port, queue) in rig.queues() {
        if let Some(worker) = all.get_mut(port.0 as usize - 1) {
            worker.add_input(port, queue);
        }
    }

    let (senders, receivers) = rig.guests.split_at_mut(workers);
    let mut receiving: Vec<_> = receivers.iter_mut().flat_map(Guest::receivers).map(Receiving::new).collect();
    let start = Barrier::new(workers);
    std::thread::scope(|scope| {
        for (number, (worker, sender)) in all.iter_mut().zip(senders).enumerate() {
            let sending = Sending::new(sender.transmitter(0), &[2; 60]);
            // The last worker has what is left, if one queue is all there is or the only worker has two.
            let own = if number + 1 == workers { receiving.len() } else { 1 };
            let (start, receiving) = (&start, receiving.drain(..own.min(receiving.len())).collect());
            scope.spawn(move || {
                let mut cpus = CpuSet::new();
                cpus.set(1 - number);
                sched_setaffinity(None, &cpus).expect("the machine has two CPUs");
                start.wait();
                drive(worker, sending, receiving);
            });
        }
    });
    let totals: Vec<_> = (workers..rig.guests.len()).map(|guest| rig.totals(PortNo(guest as u32 + 1))).collect();
    let rate = |frames: u64| frames as f64 / WINDOW.as_secs_f64() / 1e6;
    (rate(totals.iter().map(|totals| totals.tx_frames).sum()), rate(totals.iter().map(|totals| totals.tx_dropped()).sum()))
}

/// Breathes, and plays the guests in between, for the time of a measurement.
fn drive(worker: &mut Worker, mut sending: Sending<'_>, mut receiving: Vec<Receiving<'_>>) {
    let start = Instant::now();
    while start.elapsed() < WINDOW {
        sending.flood();
        // Some breaths for one look at the rings: a guest does not look after each batch either.
        for now in 0..8 {
            worker.breathe(now);
        }
        receiving.iter_mut().for_each(|queue| _ = queue.receive());
    }
}

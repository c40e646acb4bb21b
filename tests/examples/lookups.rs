//! What it costs to find the megaflow of a frame, by the number of masks and of flows, in one thread.
//!
//!     cargo run --release -p tests --example lookups MASKS FLOWS VARYING [MILLIONS]
//!
//! One table; its rule k is for the frames whose k-th address bit is set, so that each of MASKS classes of frames has a mask of its own. FLOWS flows come in random
//! order, spread over the classes. They differ in their UDP source port, and in a bit of VARYING bits of their source's Ethernet address; these
//! bits are looked at by a rule of the highest priority, which makes megaflows of flows. So VARYING 0 has as many megaflows as masks.
//! The ports carry nothing but heads: what is left is key, lookup and one output. For instruction counts, run it under `valgrind --tool=callgrind`.

use std::sync::Arc;
use std::time::Instant;

use datapath::action::{Controllers, ToController};
use datapath::cache::CacheLimits;
use datapath::drops::DropReason;
use datapath::frame::{BATCH, Batch, Offload};
use datapath::key::{Field, Match};
use datapath::port::{Output, PortNo, RxQueue, Share, Transmitted};
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, MacTable, Port, PortConfig, PortCounters, Tables, VlanMode};
use datapath::worker::{Published, Worker, WorkerSettings};
use tests::random::Random;

struct NoControllers;

impl Controllers for NoControllers {
    fn give(&mut self, _: &Batch, _: u16, _: &ToController) -> Result<(), DropReason> {
        Err(DropReason::NoController)
    }
}

/// Sends the flows in random order.
struct Source {
    frame: Vec<u8>,
    flows: u64,
    masks: u64,
    varying: u32,
    random: Random,
    /// Counts the first frames: each flow twice, so that it is cached.
    serial: u64,
}

impl RxQueue for Source {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        for _ in 0..BATCH {
            let flow = if self.serial < 2 * self.flows { self.serial / 2 } else { self.random.below(self.flows) };
            self.serial += 1;
            let class = flow % self.masks;
            let addresses: u64 = 1 << class;
            let rest = flow / self.masks;
            self.frame[26..34].copy_from_slice(&addresses.to_be_bytes());
            self.frame[34..36].copy_from_slice(&(rest as u16).to_be_bytes());
            self.frame[8..12].copy_from_slice(&((rest & ((1 << self.varying) - 1)) as u32).to_be_bytes());
            batch.push_bytes(PortNo(1), Offload::default(), &self.frame);
        }
        consume(batch);
        batch.clear();
        BATCH
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn disarm(&mut self) {}
}

struct Sink;

impl Output for Sink {
    fn transmit(&self, _: Share, batch: &Batch, slots: &[u16]) -> Transmitted {
        let mut transmitted = Transmitted::default();
        slots.iter().for_each(|slot| transmitted.sent(batch.frame(*slot).len()));
        transmitted
    }
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|argument| argument.parse().expect("a number")).collect();
    let (masks, flows, varying) = (numbers[0].min(64), numbers[1], numbers[2] as u32);
    let batches = numbers.get(3).copied().unwrap_or(4) * 1_000_000 / BATCH as u64;

    let mut tables = Tables::new(Arc::new(MacTable::new(1024, 1024)));
    let counters: Vec<_> = (0..2).map(|_| Arc::new(PortCounters::new(1))).collect();
    for (no, counters) in (1..).zip(&counters) {
        let port = Port {
            no: PortNo(no),
            name: format!("vm{no}"),
            hw_addr: [0; 6],
            config: PortConfig::default(),
            link_up: true,
            mtu: 1500,
            vlan: VlanMode::default(),
            output: Arc::new(Sink),
            counters: counters.clone(),
        };
        tables.add_port(port).expect("the port is new");
    }
    let mut rule = |matching: Match, priority, apply| {
        let instructions = Instructions { apply, ..Instructions::default() };
        tables.flow_mod(&FlowMod { matching, priority, instructions, ..FlowMod::default() }, 0).expect("a good rule");
    };
    let udp = Match::ANY.with(Field::InPort, 1).with(Field::EthType, 0x0800).with(Field::IpProto, 17);
    for class in 0..masks {
        let (field, bit) = if class < 32 { (Field::Ipv4Dst, 1u128 << class) } else { (Field::Ipv4Src, 1 << (class - 32)) };
        rule(udp.with_masked(field, bit, bit), 1000 - class as u16, vec![OfAction::Output { port: PortNo(2), max_len: 0 }]);
    }
    if varying > 0 {
        let bits = (1u128 << varying) - 1;
        // No frame has this address.
        rule(Match::ANY.with_masked(Field::EthSrc, 1 << 47, bits | 1 << 47), 2000, Vec::new());
    }
    let published = Arc::new(Published::new(tables));
    let mut worker = Worker::new(
        WorkerSettings { share: Share::WHOLE, seed: 0x5eed, limits: CacheLimits::default() },
        published,
        Box::new(NoControllers),
    );
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([0; 4], [0; 4], 64).udp(1, 2);
    builder.write(&mut frame, &[0; 18]).expect("a vector takes all");
    worker.add_input(PortNo(1), Box::new(Source { frame, flows, masks, varying, random: Random::new(1), serial: 0 }));

    for now in 0..2 * flows.div_ceil(BATCH as u64) {
        worker.breathe(now);
    }
    // The background work, all round the cache twice.
    for _ in 0..4 + worker.stats().megaflows / 64 {
        worker.maintain(0);
    }
    let (before, start) = (worker.stats(), Instant::now());
    for now in 0..batches {
        worker.breathe(now);
    }
    let elapsed = start.elapsed();
    let (stats, frames) = (worker.stats(), batches * BATCH as u64);
    println!(
        "{masks} masks, {flows} flows, {} megaflows under {} masks: {:.1} ns each; {:.1} % microflow hits, {:.1} % megaflow hits, {} upcalls",
        stats.megaflows,
        stats.masks,
        elapsed.as_nanos() as f64 / frames as f64,
        (stats.microflow_hits - before.microflow_hits) as f64 * 100.0 / frames as f64,
        (stats.megaflow_hits - before.megaflow_hits) as f64 * 100.0 / frames as f64,
        stats.upcalls - before.upcalls,
    );
}

//! How long a frame takes from one guest's ring to another's through a worker, in one thread.
//!
//!     cargo run --release -p tests --example forward [CASE [LENGTH [MILLIONS]]]
//!
//! CASE is `output` (one rule), `route` (Ethernet addresses rewritten, TTL decremented) or `normal` (the learning switch). Both guests' memory stays in
//! this CPU's caches: what crossing to another CPU costs is not measured. For instruction counts, run it under `valgrind --tool=callgrind`.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use datapath::action::{Controllers, ToController};
use datapath::cache::CacheLimits;
use datapath::drops::DropReason;
use datapath::frame::{BATCH, Batch};
use datapath::key::{Field, Match};
use datapath::port::{DummyPort, Output, PortNo, Share, Transmitted};
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, MacTable, Port, PortConfig, PortCounters, Tables, VlanMode};
use datapath::worker::{Published, Worker, WorkerSettings};
use tests::driver::{DriverRing, F_MRG_RXBUF, F_VERSION_1, NetHeader, Ram, WRITE};
use vhost_backend::rx::RxRing;
use vhost_backend::tx::TxRing;

const SIZE: u16 = 256;
const STRIDE: u64 = 2048;
const FEATURES: u64 = F_VERSION_1 | F_MRG_RXBUF;

/// A ring whose every entry has a buffer that begins with `content`, and that memory's back end.
fn ring(buffer_len: u32, flags: u16, content: &[u8]) -> (DriverRing, vhost_backend::ring::RingSetup) {
    let ram = Ram::new(&[(0, 4 << 20)]);
    let mut ring = DriverRing::new(&ram, 0, SIZE, true);
    for index in 0..SIZE {
        let address = (1 << 20) + u64::from(index) * STRIDE;
        ram.write(address, content);
        ring.write_descriptor(index, address, buffer_len, flags, 0);
        ring.make_available(index);
    }
    ring.set_used_event(u16::MAX / 2);
    let setup = ring.setup(ram.map(), FEATURES);
    (ring, setup)
}

/// A guest's receive queue that is shared as little as can be.
struct OneRing(Mutex<TxRing>);

impl Output for OneRing {
    fn transmit(&self, _: Share, batch: &Batch, slots: &[u16]) -> Transmitted {
        let mut transmitted = Transmitted::default();
        self.0.lock().expect("no holder panics").transmit(batch, slots, &mut transmitted);
        transmitted
    }
}

struct NoControllers;

impl Controllers for NoControllers {
    fn give(&mut self, _: &Batch, _: u16, _: &ToController) -> Result<(), DropReason> {
        Err(DropReason::NoController)
    }
}

fn actions(case: &str) -> Vec<OfAction> {
    let output = |port| OfAction::Output { port, max_len: 0 };
    let set = |field: Field, value| OfAction::SetField { field, value, mask: field.ones() };
    match case {
        "output" => vec![output(PortNo(2))],
        "route" => vec![OfAction::DecNwTtl, set(Field::EthSrc, 0x0200_0000_ff01), set(Field::EthDst, 0x0200_0000_0001), output(PortNo(2))],
        "normal" => vec![output(PortNo::NORMAL)],
        other => panic!("{other}: there are the cases output, route and normal"),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().unwrap_or_else(|| "output".into());
    let mut numbers = arguments.map(|argument| argument.parse::<usize>().expect("a number"));
    let len = numbers.next().unwrap_or(64);
    let batches = numbers.next().unwrap_or(20) * 1_000_000 / BATCH;

    let mut frame = vec![0; NetHeader::LEN];
    let builder =
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2);
    builder.write(&mut frame, &vec![0; len - 42]).expect("a vector takes all");

    let (from, setup) = ring(frame.len() as u32, 0, &frame);
    let rx = RxRing::start(setup, PortNo(1)).expect("a ring");
    let (to, setup) = ring(STRIDE as u32, WRITE, &[]);
    let tx = OneRing(Mutex::new(TxRing::start(setup, None).expect("a ring")));

    let mut tables = Tables::new(Arc::new(MacTable::new(1024, 1024)));
    let outputs: [Arc<dyn Output>; 2] = [Arc::new(DummyPort::new(PortNo(1))), Arc::new(tx)];
    let counters: Vec<_> = (0..2).map(|_| Arc::new(PortCounters::new(1))).collect();
    for (no, (output, counters)) in (1..).zip(outputs.into_iter().zip(&counters)) {
        let port = Port {
            no: PortNo(no),
            name: format!("vm{no}"),
            hw_addr: [0; 6],
            config: PortConfig::default(),
            link_up: true,
            mtu: 1500,
            vlan: VlanMode::default(),
            output,
            counters: counters.clone(),
        };
        tables.add_port(port).expect("the port is new");
    }
    let instructions = Instructions { apply: actions(&case), ..Instructions::default() };
    let matching = if case == "route" { Match::ANY.with(Field::EthType, 0x0800) } else { Match::ANY };
    tables.flow_mod(&FlowMod { matching, instructions, ..FlowMod::default() }, 0).expect("a good rule");
    let published = Arc::new(Published::new(tables));
    let settings = WorkerSettings { share: Share::WHOLE, seed: 1, limits: CacheLimits::default() };
    let mut worker = Worker::new(settings, published, Box::new(NoControllers));
    worker.add_input(PortNo(1), Box::new(rx));

    let mut available = 0u16;
    let start = Instant::now();
    for now in 0..batches as u64 {
        available = available.wrapping_add(BATCH as u16);
        from.set_available_index(available);
        to.set_available_index(available);
        worker.breathe(now);
    }
    let elapsed = start.elapsed();
    let frames = counters[1].totals().tx_frames;
    assert_eq!(frames, (batches * BATCH) as u64);
    println!("{case}: {frames} frames of {len} bytes, {:.2} ns each", elapsed.as_nanos() as f64 / frames as f64);
}

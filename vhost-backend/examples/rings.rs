//! How long a frame takes from one guest's ring to another's, with nothing between them, in one thread.
//!
//!     cargo run --release -p vhost-backend --example rings [LENGTH [MILLIONS]]
//!
//! The driver's side costs two stores for each batch, so what is measured is the rings; both guests' memory stays in this CPU's caches, so what is not
//! measured is what crossing to another CPU's costs. For instruction counts: `valgrind --tool=callgrind --cache-sim=yes`.

use std::time::Instant;

use datapath::frame::{BATCH, Batch};
use datapath::port::{PortNo, RxQueue, Transmitted};
use tests::driver::{DriverRing, F_MRG_RXBUF, F_VERSION_1, NetHeader, Ram, WRITE};
use vhost_backend::rx::RxRing;
use vhost_backend::tx::TxRing;

const SIZE: u16 = 256;
const STRIDE: u64 = 2048;
const FEATURES: u64 = F_VERSION_1 | F_MRG_RXBUF;

/// A ring whose every entry has a buffer, and that memory's back end.
fn ring(buffer_len: u32, flags: u16) -> (DriverRing, vhost_backend::ring::RingSetup) {
    let ram = Ram::new(&[(0, 4 << 20)]);
    let mut ring = DriverRing::new(&ram, 0, SIZE, true);
    for index in 0..SIZE {
        ring.write_descriptor(index, (1 << 20) + u64::from(index) * STRIDE, buffer_len, flags, 0);
        ring.make_available(index);
    }
    ring.set_used_event(u16::MAX / 2);
    let setup = ring.setup(ram.map(), FEATURES);
    (ring, setup)
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let len = arguments.next().unwrap_or(64);
    let batches = arguments.next().unwrap_or(20) * 1_000_000 / BATCH;

    let (from, setup) = ring((NetHeader::LEN + len) as u32, 0);
    let mut rx = RxRing::start(setup, PortNo(1)).expect("a ring");
    let (to, setup) = ring(STRIDE as u32, WRITE);
    let mut tx = TxRing::start(setup, None).expect("a ring");

    let slots: Vec<u16> = (0..BATCH as u16).collect();
    let mut batch = Batch::new();
    let mut transmitted = Transmitted::default();
    let mut available = 0u16;
    let start = Instant::now();
    for _ in 0..batches {
        available = available.wrapping_add(BATCH as u16);
        from.set_available_index(available);
        to.set_available_index(available);
        rx.serve(&mut batch, &mut |batch| tx.transmit(batch, &slots[..batch.len()], &mut transmitted));
    }
    let elapsed = start.elapsed();
    assert_eq!(transmitted.frames, (batches * BATCH) as u64, "{transmitted:?}");
    println!("{} frames of {len} bytes: {:.2} ns each", transmitted.frames, elapsed.as_nanos() as f64 / transmitted.frames as f64);
}

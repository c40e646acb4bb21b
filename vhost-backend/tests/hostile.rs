//! Rings full of rubbish: nothing panics, nothing outside the guest's memory is touched, and receiving changes nothing but the used ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datapath::frame::{BATCH, Batch, Checksum, Offload, Segmentation, SegmentationKind};
use datapath::port::{PortNo, RxQueue, Transmitted};
use proptest::prelude::*;
use tests::driver::{DriverRing, F_MRG_RXBUF, F_VERSION_1, Ram, descriptor};
use vhost_backend::memory::Memory;
use vhost_backend::ring::RingSetup;
use vhost_backend::rx::RxRing;
use vhost_backend::tx::TxRing;

const KIB: u64 = 1024;
/// The guest's memory. Before and behind it, in the same file, lies memory that is not.
const START: u64 = 64 * KIB;
const SEAM: u64 = 128 * KIB;
const END: u64 = 192 * KIB;
/// Where indirect tables may be found.
const TABLES: u64 = START + 16 * KIB;

/// Memory with guards around it, and the back end's view of the middle.
fn ram() -> (Arc<Ram>, Arc<Memory>) {
    let ram = Ram::new(&[(0, START), (START, SEAM - START), (SEAM, END - SEAM), (END, 64 * KIB)]);
    let memory = ram.regions()[1..3].iter().fold(Memory::new(), |memory, spec| memory.with(*spec, ram.file()).expect("mapped memory"));
    (ram, Arc::new(memory))
}

type RawDescriptor = (u64, u32, u16, u16);

fn raw_descriptor(size: u16) -> impl Strategy<Value = RawDescriptor> {
    let edges = vec![0, START - 1, START, TABLES, TABLES + 1, SEAM - 1, SEAM, END - 1, END, 256 * KIB, u64::MAX - 15, u64::MAX];
    let address = prop_oneof![6 => START..END, 2 => prop::sample::select(edges), 1 => any::<u64>()];
    let len = prop_oneof![4 => 0..2000u32, 2 => (0..40u32).prop_map(|n| n * 16), 1 => prop::sample::select(vec![1, 11, 12, 65_536, 131_072, u32::MAX])];
    let flags = prop_oneof![6 => Just(0u16), 3 => Just(1), 2 => Just(2), 2 => Just(3), 2 => Just(4), 1 => any::<u16>()];
    (address, len, flags, prop_oneof![8 => 0..size, 1 => any::<u16>()])
}

/// A ring as nobody would fill it.
#[derive(Clone, Debug)]
struct Rubbish {
    size: u16,
    descriptors: Vec<RawDescriptor>,
    tables: Vec<RawDescriptor>,
    heads: Vec<u16>,
    /// By how much the available index grows, each time.
    grows: Vec<u16>,
    event_idx: bool,
}

fn rubbish() -> impl Strategy<Value = Rubbish> {
    (0..7u32).prop_flat_map(|bits| {
        let size = 1u16 << bits;
        let descriptors = prop::collection::vec(raw_descriptor(size), usize::from(size));
        let tables = prop::collection::vec(raw_descriptor(size), 64);
        let heads = prop::collection::vec(prop_oneof![30 => 0..size, 1 => any::<u16>()], usize::from(size));
        let grow = prop_oneof![20 => 0..=size, 1 => any::<u16>()];
        (descriptors, tables, heads, prop::collection::vec(grow, 1..6), any::<bool>())
            .prop_map(move |(descriptors, tables, heads, grows, event_idx)| Rubbish { size, descriptors, tables, heads, grows, event_idx })
    })
}

impl Rubbish {
    fn write(&self, ram: &Arc<Ram>) -> DriverRing {
        let ring = DriverRing::new(ram, START, self.size, self.event_idx);
        for (index, &(address, len, flags, next)) in self.descriptors.iter().enumerate() {
            ring.write_descriptor(index as u16, address, len, flags, next);
        }
        for (at, &(address, len, flags, next)) in (TABLES..).step_by(16).zip(&self.tables) {
            ram.write(at, &descriptor(address, len, flags, next));
        }
        for (at, head) in (ring.available_at() + 4..).step_by(2).zip(&self.heads) {
            ram.write(at, &head.to_le_bytes());
        }
        ring
    }
}

/// Frames of all kinds: short, long, to be given a checksum, to be segmented.
fn frames() -> Batch {
    let mut batch = Batch::new();
    let mut tcp = vec![0; 5000];
    tcp[12..15].copy_from_slice(&[8, 0, 0x45]);
    tcp[23] = 6;
    tcp[46] = 0x50;
    let partial = Checksum::Partial { start: 34, offset: 16 };
    let segmentation = Some(Segmentation { kind: SegmentationKind::Tcp4, ecn: false, size: 500 });
    batch.push_bytes(PortNo(1), Offload::default(), &[1; 60]);
    batch.push_bytes(PortNo(1), Offload::default(), &[2; 1514]);
    batch.push_bytes(PortNo(1), Offload { checksum: partial, segmentation: None }, &tcp);
    batch.push_bytes(PortNo(1), Offload { checksum: partial, segmentation }, &tcp);
    batch
}

fn guards(bytes: &[u8]) -> [&[u8]; 2] {
    [&bytes[..START as usize], &bytes[END as usize..]]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn receiving_from_rubbish_changes_the_used_ring_only(rubbish in rubbish(), features in prop::sample::select(vec![F_VERSION_1 | F_MRG_RXBUF, 0])) {
        let (ram, memory) = ram();
        let driver = rubbish.write(&ram);
        let mut ring = RxRing::start(driver.setup(memory, features), PortNo(1)).expect("a ring");
        let mut batch = Batch::new();
        let mut index = 0u16;
        for grow in rubbish.grows {
            index = index.wrapping_add(grow);
            driver.set_available_index(index);
            let mut before = ram.dump();
            let count = ring.serve(&mut batch, &mut |batch| {
                for slot in 0..batch.len() as u16 {
                    assert_eq!(batch.to_vec(slot, usize::MAX).len(), batch.frame(slot).len());
                }
            });
            prop_assert!(count <= BATCH);
            let mut after = ram.dump();
            let used = driver.used_at() as usize..(driver.used_at() + 6 + 8 * u64::from(driver.size())) as usize;
            before[used.clone()].fill(0);
            after[used].fill(0);
            prop_assert_eq!(before, after);
            ring.arm();
        }
    }

    #[test]
    fn transmitting_to_rubbish_stays_within_the_guest(rubbish in rubbish(), features in prop::sample::select(vec![F_VERSION_1 | F_MRG_RXBUF, F_VERSION_1, 2, 0])) {
        let (ram, memory) = ram();
        let driver = rubbish.write(&ram);
        let mut ring = TxRing::start(driver.setup(memory, features), None).expect("a ring");
        let batch = frames();
        let before = ram.dump();
        let mut index = 0u16;
        for grow in rubbish.grows {
            index = index.wrapping_add(grow);
            driver.set_available_index(index);
            let mut transmitted = Transmitted::default();
            ring.transmit(&batch, &[0, 1, 2, 3, 3, 2, 1, 0], &mut transmitted);
            prop_assert_eq!(transmitted.frames + transmitted.drops.iter().map(|count| u64::from(*count)).sum::<u64>(), 8);
        }
        let after = ram.dump();
        prop_assert_eq!(guards(&before), guards(&after));
    }
}

#[test]
fn a_guest_that_writes_while_it_is_served_hurts_only_itself() {
    let (ram, memory) = ram();
    let stop = Arc::new(AtomicBool::new(false));
    let scribbler = std::thread::spawn({
        let (ram, stop) = (ram.clone(), stop.clone());
        move || {
            let mut state = 1u64;
            let mut random = move || {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            while !stop.load(Ordering::Relaxed) {
                let driver = DriverRing::new(&ram, START, 64, true);
                for index in 0..64 {
                    let (r, flags) = (random(), random() % 5);
                    driver.write_descriptor(index, START + r % (END - START), (r >> 40) as u32 % 3000, flags as u16, (r >> 32) as u16 % 65);
                    ram.write(driver.available_at() + 4 + 2 * u64::from(index), &((r >> 20) as u16 % 64).to_le_bytes());
                }
                (0..1000).for_each(|_| driver.set_available_index(driver.used_index().wrapping_add(random() as u16 % 64)));
            }
        }
    });
    let driver = DriverRing::new(&ram, START, 64, true);
    let setup = || RingSetup { name: String::new(), ..driver.setup(memory.clone(), F_VERSION_1 | F_MRG_RXBUF) };
    let before = ram.dump();
    let (mut batch, out) = (Batch::new(), frames());
    let mut rx = RxRing::start(setup(), PortNo(1)).expect("a ring");
    let mut tx = TxRing::start(setup(), None).expect("a ring");
    let (mut received, mut sent) = (0, Transmitted::default());
    for _ in 0..20_000 {
        received += rx.serve(&mut batch, &mut |batch| (0..batch.len() as u16).for_each(|slot| drop(batch.to_vec(slot, 100))));
        tx.transmit(&out, &[0, 1, 2, 3], &mut sent);
        if rx.fault().is_some() {
            rx = RxRing::start(setup(), PortNo(1)).expect("a ring");
        }
        if tx.fault().is_some() {
            tx = TxRing::start(setup(), None).expect("a ring");
        }
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().expect("the scribbler ends");
    assert!(received > 0 && sent.frames > 0, "something came through: {received} in, {} out", sent.frames);
    assert_eq!(guards(&before), guards(&ram.dump()));
}

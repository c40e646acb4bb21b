//! The rings against `virtio-queue`: two guests with the same memory, whose drivers do the same things, one served by our rings and one by devices that
//! are built on that crate as plainly as can be. Frames, memory and notifications must be the same.
//!
//! Where the two differ by intention: without EVENT_IDX `virtio-queue` would always notify, so that decision is made here, from the flags; and it ends a
//! chain silently where it can't be followed, which shows in what it yields (see `follow`).

use std::sync::Arc;

use datapath::drops::{DropReason, TxDrop};
use datapath::frame::{BATCH, Batch, FRAME_MAX, Offload};
use datapath::port::{PortNo, RxQueue, Transmitted};
use proptest::prelude::*;
use tests::driver::{Buffer, DriverRing, F_MRG_RXBUF, F_VERSION_1, INDIRECT, NEXT, Ram, descriptor};
use vhost_backend::rx::RxRing;
use vhost_backend::tx::TxRing;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Where indirect tables are written.
const TABLES: u64 = 0x1_0000;
/// Zeros, for headers; behind them, noise.
const ZEROS: u64 = 0x2_0000;
const NOISE: u64 = 0x3_0000;
/// Two regions meet here.
const SEAM: u64 = 0x4_0000;
const END: u64 = 0x5_0000;

/// One of the two guests.
struct Guest {
    ram: Arc<Ram>,
    driver: DriverRing,
    tables: u64,
}

impl Guest {
    fn new(size: u16, event_idx: bool) -> Self {
        let ram = Ram::new(&[(0, SEAM), (SEAM, END - SEAM)]);
        let noise: Vec<u8> = (0..END - NOISE).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
        ram.write(NOISE, &noise);
        let driver = DriverRing::new(&ram, 0, size, event_idx);
        Self { ram, driver, tables: TABLES }
    }

    fn queue(&self, event_idx: bool) -> Queue {
        let mut queue = Queue::new(1024).expect("a power of two");
        queue.set_size(self.driver.size());
        queue.try_set_desc_table_address(GuestAddress(self.driver.descriptors_at())).expect("aligned");
        queue.try_set_avail_ring_address(GuestAddress(self.driver.available_at())).expect("aligned");
        queue.try_set_used_ring_address(GuestAddress(self.driver.used_at())).expect("aligned");
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(self.ram.memory()));
        queue
    }

    /// What the driver does. True if the device should look at the ring now.
    fn carry_out(&mut self, step: &Step) -> bool {
        match step {
            Step::Offer { buffers, indirect, damage } => {
                let head = if *indirect {
                    let table = self.tables;
                    self.tables = TABLES + (self.tables - TABLES + 0x403) % 0xc000;
                    self.driver.offer_indirect(buffers, table)
                } else {
                    self.driver.offer(buffers)
                };
                if let (Some(head), Some(damage)) = (head, damage) {
                    self.damage(head, *damage);
                }
            }
            Step::Publish => {
                self.driver.publish();
            }
            Step::Reclaim => while self.driver.take_used().is_some() {},
            Step::UsedEvent(index) => self.driver.set_used_event(self.driver.used_index().wrapping_add(*index)),
            Step::Flags(flags) => self.driver.set_available_flags(*flags),
            Step::Serve => return true,
        }
        false
    }

    fn damage(&mut self, head: u16, damage: Damage) {
        let (driver, size) = (&self.driver, self.driver.size());
        match damage {
            Damage::NextBeyond => driver.write_descriptor(head, ZEROS, 100, NEXT, size),
            Damage::Loop => driver.write_descriptor(head, ZEROS, 100, NEXT, head),
            Damage::Address => driver.write_descriptor(head, END - 1, 2, 0, 0),
            Damage::Overflow => driver.write_descriptor(head, u64::MAX - 1, 100, 0, 0),
            Damage::OddTable => driver.write_descriptor(head, TABLES, 24, INDIRECT, 0),
            Damage::NoTable => driver.write_descriptor(head, END, 16, INDIRECT, 0),
            Damage::Nested => {
                self.ram.write(TABLES + 0xf000, &descriptor(TABLES, 16, INDIRECT, 0));
                driver.write_descriptor(head, TABLES + 0xf000, 16, INDIRECT, 0);
            }
            Damage::TableNextBeyond => {
                self.ram.write(TABLES + 0xf000, &descriptor(ZEROS, 100, NEXT, 1));
                driver.write_descriptor(head, TABLES + 0xf000, 16, INDIRECT, 0);
            }
            Damage::Head => self.driver.make_available(size + 1),
            Damage::Jump => driver.set_available_index(driver.used_index().wrapping_add(size + 1)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    NextBeyond,
    Loop,
    Address,
    Overflow,
    OddTable,
    NoTable,
    Nested,
    TableNextBeyond,
    Head,
    Jump,
}

#[derive(Clone, Debug)]
enum Step {
    Offer { buffers: Vec<Buffer>, indirect: bool, damage: Option<Damage> },
    Publish,
    Reclaim,
    UsedEvent(u16),
    Flags(u16),
    Serve,
}

fn steps(writable: bool) -> impl Strategy<Value = Vec<Step>> {
    // A header among the zeros, whole, with noise behind it, or in two pieces; then noise, also across the seam. Or too little for a header.
    let zeros = |len: std::ops::Range<u32>| (ZEROS..NOISE - 64, len).prop_map(move |(address, len)| Buffer { address, len, writable });
    let first = prop_oneof![
        4 => zeros(12..64).prop_map(|whole| vec![whole]),
        4 => (0..64u32).prop_map(move |len| vec![Buffer { address: NOISE - 12, len: 12 + len * 40, writable }]),
        1 => (zeros(0..12), zeros(12..64)).prop_map(|(one, two)| vec![one, two]),
    ];
    let rest = (NOISE..END - 4096, prop_oneof![0..100u32, 0..4096u32]).prop_map(move |(address, len)| Buffer { address, len, writable });
    let damage = prop::sample::select(vec![
        Damage::NextBeyond,
        Damage::Loop,
        Damage::Address,
        Damage::Overflow,
        Damage::OddTable,
        Damage::NoTable,
        Damage::Nested,
        Damage::TableNextBeyond,
        Damage::Head,
        Damage::Jump,
    ]);
    let buffers = prop_oneof![
        20 => (first, prop::collection::vec(rest, 0..6)).prop_map(|(first, rest)| [first, rest].concat()),
        1 => zeros(0..12).prop_map(|short| vec![short]),
    ];
    let offer = (buffers, any::<bool>(), prop::option::weighted(0.01, damage));
    let offer = offer.prop_map(|(buffers, indirect, damage)| Step::Offer { buffers, indirect, damage });
    let step = prop_oneof![
        8 => offer,
        2 => Just(Step::Publish),
        1 => Just(Step::Reclaim),
        1 => (0..6u16).prop_map(|index| Step::UsedEvent(index.wrapping_sub(2))),
        1 => (0..2u16).prop_map(Step::Flags),
        4 => Just(Step::Serve),
    ];
    prop::collection::vec(step, 1..120)
}

/// The buffers of the next chain by `virtio-queue`; `Err` if it can't be followed, `None` at the end.
fn follow(guest: &Guest, queue: &mut Queue, writable: bool) -> Result<Option<(u16, Vec<Buffer>)>, ()> {
    let memory = guest.ram.memory();
    let Some(chain) = queue.iter(memory).map_err(|_| ())?.next() else { return Ok(None) };
    let head = chain.head_index();
    let descriptors: Vec<_> = chain.collect();
    // A chain that was cut short still says that it goes on.
    if descriptors.last().is_none_or(|last| last.has_next()) {
        return Err(());
    }
    let buffers = descriptors.iter().map(|d| Buffer { address: d.addr().0, len: d.len(), writable: d.is_write_only() });
    let buffers: Vec<Buffer> = buffers.filter(|buffer| buffer.len > 0).collect();
    let sound = |b: &Buffer| b.writable == writable && GuestMemoryBackend::check_range(memory, GuestAddress(b.address), b.len as usize);
    if buffers.iter().all(sound) { Ok(Some((head, buffers))) } else { Err(()) }
}

/// Whether the driver is to be notified, now that the batch is in the used ring.
fn notify(guest: &Guest, queue: &mut Queue, event_idx: bool, given_back: usize) -> u64 {
    if given_back == 0 {
        return 0;
    }
    let asked = queue.needs_notification(guest.ram.memory()).expect("a ring in memory");
    let flags: u16 = guest.ram.memory().read_obj(GuestAddress(guest.driver.available_at())).expect("a ring in memory");
    u64::from(if event_idx { asked } else { flags & 1 == 0 })
}

const FEATURES: u64 = F_VERSION_1 | F_MRG_RXBUF;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn frames_come_in_as_by_virtio_queue(steps in steps(false), bits in 0..8u32, event_idx in any::<bool>()) {
        let mut guests = [(); 2].map(|()| Guest::new(1 << bits, event_idx));
        let mut ring = RxRing::start(guests[0].driver.setup(guests[0].ram.map(), FEATURES), PortNo(1)).expect("a ring");
        guests[0].driver.call.take();
        let mut queue = guests[1].queue(event_idx);
        for step in &steps {
            let [serve, _] = guests.each_mut().map(|guest| guest.carry_out(step));
            if !serve {
                continue;
            }
            let (mut frames, mut rejected) = (Vec::new(), 0);
            ring.serve(&mut Batch::new(), &mut |batch| {
                frames.extend((0..batch.len() as u16).map(|slot| batch.to_vec(slot, usize::MAX)));
                rejected = batch.rejected().iter().sum();
                assert_eq!(batch.rejected()[DropReason::BadOffload as usize], 0, "all headers are plain");
            });

            let guest = &guests[1];
            let (mut expected, mut expected_rejected, mut broken, mut taken) = (Vec::new(), 0, false, 0);
            for _ in 0..BATCH {
                match follow(guest, &mut queue, false) {
                    Ok(None) => break,
                    Ok(Some((head, buffers))) => {
                        let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| guest.ram.read(buffer.address, buffer.len as usize)).collect();
                        match bytes.get(12..) {
                            Some(frame) if (14..=FRAME_MAX).contains(&frame.len()) => expected.push(frame.to_vec()),
                            _ => expected_rejected += 1,
                        }
                        queue.add_used(guest.ram.memory(), head, 0).expect("a ring in memory");
                        taken += 1;
                    }
                    Err(()) => {
                        broken = true;
                        break;
                    }
                }
            }
            prop_assert_eq!(frames, expected);
            prop_assert_eq!(ring.fault().is_some(), broken, "{:?}", ring.fault());
            // A chain that breaks the ring is rejected, unless it is the available index that is wrong.
            prop_assert!(rejected == expected_rejected || broken && rejected == expected_rejected + 1);
            prop_assert_eq!(guests[0].driver.call.take(), notify(&guests[1], &mut queue, event_idx, taken));
            prop_assert_eq!(guests[0].ram.dump(), guests[1].ram.dump());
            if broken {
                break;
            }
            prop_assert_eq!(ring.arm(), queue.enable_notification(guests[1].ram.memory()).expect("a ring in memory"));
            prop_assert_eq!(guests[0].ram.dump(), guests[1].ram.dump());
        }
    }

    #[test]
    fn frames_go_out_as_by_virtio_queue(steps in steps(true), lens in prop::collection::vec(14..3000usize, 120), bits in 0..8u32, event_idx in any::<bool>()) {
        let mut guests = [(); 2].map(|()| Guest::new(1 << bits, event_idx));
        let mut ring = TxRing::start(guests[0].driver.setup(guests[0].ram.map(), FEATURES), None).expect("a ring");
        guests[0].driver.call.take();
        let mut queue = guests[1].queue(event_idx);
        // Our ring never wants to be kicked; this one says so as well.
        let (address, unwanted) = if event_idx { (4 + 8 * u64::from(queue.size()), u16::MAX) } else { (0, 1) };
        guests[1].ram.write(guests[1].driver.used_at() + address, &unwanted.to_le_bytes());
        for (step, lens) in steps.iter().zip(lens.windows(3).cycle()) {
            let [serve, _] = guests.each_mut().map(|guest| guest.carry_out(step));
            if !serve {
                continue;
            }
            let mut batch = Batch::new();
            let frames: Vec<Vec<u8>> = lens.iter().map(|&len| (0..len).map(|i| (i + len) as u8).collect()).collect();
            let slots: Vec<u16> = frames.iter().map(|frame| batch.push_bytes(PortNo(1), Offload::default(), frame)).collect();
            let mut transmitted = Transmitted::default();
            ring.transmit(&batch, &slots, &mut transmitted);

            let guest = &guests[1];
            let (mut expected, mut broken, mut taken) = (Transmitted::default(), false, 0);
            for frame in &frames {
                let start = queue.next_avail();
                let (mut chains, mut room) = (Vec::new(), 0);
                while room < frame.len() + 12 && !broken {
                    match follow(guest, &mut queue, true) {
                        Ok(None) => break,
                        Ok(Some((head, buffers))) => {
                            let len: usize = buffers.iter().map(|buffer| buffer.len as usize).sum();
                            room += len;
                            chains.push((head, len, buffers));
                        }
                        Err(()) => broken = true,
                    }
                }
                if broken || room < frame.len() + 12 {
                    queue.set_next_avail(start);
                    expected.dropped(if broken { TxDrop::BadDescriptor } else { TxDrop::RingFull });
                    continue;
                }
                let bytes = [&[0; 10][..], &(chains.len() as u16).to_le_bytes(), frame].concat();
                let mut left = &bytes[..];
                for (head, len, buffers) in chains {
                    let written = len.min(left.len());
                    for buffer in buffers {
                        let (now, later) = left.split_at(left.len().min(buffer.len as usize));
                        guest.ram.write(buffer.address, now);
                        left = later;
                    }
                    queue.add_used(guest.ram.memory(), head, written as u32).expect("a ring in memory");
                    taken += 1;
                }
                expected.sent(frame.len());
            }
            prop_assert_eq!(&transmitted, &expected);
            prop_assert_eq!(ring.fault().is_some(), broken, "{:?}", ring.fault());
            prop_assert_eq!(guests[0].driver.call.take(), notify(&guests[1], &mut queue, event_idx, taken));
            prop_assert_eq!(guests[0].ram.dump(), guests[1].ram.dump());
            if broken {
                break;
            }
        }
    }
}

//! Frames through the rings, seen from the driver's side.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use datapath::drops::{DropReason, TxDrop};
use datapath::frame::{BATCH, Batch, FRAME_MAX, HEAD_MAX, Offload};
use datapath::port::{PortNo, RxQueue, Transmitted};
use tests::driver::{Buffer, DriverRing, F_MRG_RXBUF, F_VERSION_1, NEXT, NetHeader, Ram, Receiver, Transmitter, WRITE};
use vhost_backend::ring::RingError;
use vhost_backend::rx::RxRing;
use vhost_backend::tx::TxRing;

const MODERN: u64 = F_VERSION_1 | F_MRG_RXBUF;
const PORT: PortNo = PortNo(7);
const MIB: u64 = 1 << 20;

fn ram() -> Arc<Ram> {
    Ram::new(&[(0, 4 * MIB)])
}

/// Everything that a ring takes in one breath, as bytes, and how many were rejected for each reason.
fn serve(ring: &mut RxRing) -> (Vec<Vec<u8>>, [u32; DropReason::COUNT]) {
    let mut batch = Batch::new();
    let mut frames = Vec::new();
    let mut rejected = [0; DropReason::COUNT];
    let count = ring.serve(&mut batch, &mut |batch| {
        rejected = *batch.rejected();
        for slot in 0..batch.len() as u16 {
            assert_eq!(batch.frame(slot).in_port, PORT);
            frames.push(batch.to_vec(slot, usize::MAX));
        }
    });
    assert_eq!(count, frames.len() + rejected.iter().sum::<u32>() as usize);
    assert!(batch.is_empty() && batch.rejected().iter().all(|count| *count == 0), "nothing stays in the batch");
    (frames, rejected)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + len) as u8).collect()
}

fn transmit(ring: &mut TxRing, frames: &[Vec<u8>]) -> Transmitted {
    let mut batch = Batch::new();
    let slots: Vec<u16> = frames.iter().map(|bytes| batch.push_bytes(PORT, Offload::default(), bytes)).collect();
    let mut transmitted = Transmitted::default();
    ring.transmit(&batch, &slots, &mut transmitted);
    transmitted
}

#[test]
fn frames_of_all_lengths_come_in_whole() {
    for event_idx in [false, true] {
        let ram = ram();
        let mut driver = Transmitter::new(&ram, 0, 256, 2048, event_idx);
        let mut ring = RxRing::start(driver.ring.setup(ram.map(), MODERN), PORT).expect("a ring");
        for len in [14, 60, 64, HEAD_MAX - 1, HEAD_MAX, HEAD_MAX + 1, 1514, 2036, 2037, 9014, 65_000, FRAME_MAX] {
            assert!(driver.push(NetHeader::default(), &frame(len)));
            driver.ring.publish();
            assert_eq!(serve(&mut ring).0, [frame(len)]);
            assert_eq!(driver.reclaim(), 1);
        }
    }
}

#[test]
fn a_frame_may_be_cut_anywhere() {
    let ram = ram();
    let mut driver = Transmitter::new(&ram, 0, 256, 2048, true);
    let mut ring = RxRing::start(driver.ring.setup(ram.map(), MODERN), PORT).expect("a ring");
    let bytes = [&NetHeader::default().to_bytes()[..], &frame(300)].concat();
    for first in 0..bytes.len() {
        assert!(driver.push_cut(&bytes, &[first, 0, bytes.len() - first]));
        assert!(driver.push_cut(&bytes, &[first / 2, first - first / 2, bytes.len() - first]));
        driver.ring.publish();
        assert_eq!(serve(&mut ring).0, [frame(300), frame(300)]);
    }
    let ones = vec![1; 256];
    assert!(driver.push_cut(&bytes[..256], &ones));
    driver.ring.publish();
    assert_eq!(serve(&mut ring).0, [frame(300)[..256 - 12].to_vec()]);
}

#[test]
fn indirect_tables_are_followed() {
    let ram = ram();
    let mut driver = DriverRing::new(&ram, 0, 16, false);
    let mut ring = RxRing::start(driver.setup(ram.map(), MODERN), PORT).expect("a ring");
    ram.write(MIB, &frame(400));
    ram.write(MIB - 12, &[0; 12]);
    let buffers: Vec<Buffer> = (0..40).map(|i| Buffer { address: MIB - 12 + i * 10, len: 10, writable: false }).collect();
    // Longer than the ring, which Linux does too; and at an odd address.
    driver.offer_indirect(&buffers, 2 * MIB + 3).expect("a free descriptor");
    driver.publish();
    assert_eq!(serve(&mut ring).0, [frame(400)[..388].to_vec()]);
    assert_eq!(driver.take_used().map(|(_, written)| written), Some(0));
}

#[test]
fn a_buffer_may_go_on_in_the_next_region() {
    let ram = Ram::new(&[(0, MIB), (MIB, MIB), (3 * MIB, MIB)]);
    let mut driver = DriverRing::new(&ram, 0, 16, false);
    let mut ring = RxRing::start(driver.setup(ram.map(), MODERN), PORT).expect("a ring");
    let bytes = [&NetHeader::default().to_bytes()[..], &frame(1000)].concat();
    ram.write(MIB - 500, &bytes);
    driver.offer(&[Buffer { address: MIB - 500, len: bytes.len() as u32, writable: false }]).expect("a free descriptor");
    driver.publish();
    assert_eq!(serve(&mut ring).0, [frame(1000)]);
    // Behind the second region is a hole.
    let head = driver.offer(&[Buffer { address: 2 * MIB - 500, len: bytes.len() as u32, writable: false }]).expect("a free descriptor");
    driver.publish();
    let (frames, rejected) = serve(&mut ring);
    assert!(frames.is_empty());
    assert_eq!(rejected[DropReason::BadDescriptor as usize], 1);
    assert_eq!(ring.fault(), Some(&RingError::Address { head, address: 2 * MIB - 500, len: 1012 }));
}

#[test]
fn what_is_no_frame_is_given_back_and_counted() {
    let ram = ram();
    let mut driver = Transmitter::new(&ram, 0, 256, 4096, false);
    let mut ring = RxRing::start(driver.ring.setup(ram.map(), MODERN), PORT).expect("a ring");
    assert!(driver.push_cut(&[0; 11], &[11]));
    assert!(driver.push(NetHeader::default(), &frame(13)));
    assert!(driver.push(NetHeader::default(), &frame(FRAME_MAX + 1)));
    assert!(driver.push(NetHeader { flags: 1, csum_start: 34, csum_offset: 65_535, ..Default::default() }, &frame(60)));
    assert!(driver.push(NetHeader { gso_type: 3, gso_size: 100, ..Default::default() }, &frame(60)));
    assert!(driver.push(NetHeader::default(), &frame(60)));
    driver.ring.publish();
    let (frames, rejected) = serve(&mut ring);
    assert_eq!(frames, [frame(60)]);
    let expected = [(DropReason::BadDescriptor, 1), (DropReason::Truncated, 1), (DropReason::TooLong, 1), (DropReason::BadOffload, 2)];
    assert!(expected.iter().all(|&(reason, count)| rejected[reason as usize] == count), "{rejected:?}");
    assert_eq!(driver.reclaim(), 6);
    assert_eq!(ring.fault(), None);
}

#[test]
fn a_batch_is_bounded_and_the_indices_wrap() {
    let ram = ram();
    let mut driver = Transmitter::new(&ram, 0, 256, 2048, true);
    let mut ring = RxRing::start(driver.ring.setup(ram.map(), MODERN), PORT).expect("a ring");
    for _ in 0..70_000 / 100 {
        for i in 0..100 {
            assert!(driver.push(NetHeader::default(), &frame(60 + i)));
        }
        driver.ring.publish();
        let mut all = Vec::new();
        for expected in [BATCH, BATCH, BATCH, 100 - 3 * BATCH, 0] {
            let (frames, _) = serve(&mut ring);
            assert_eq!(frames.len(), expected);
            all.extend(frames);
        }
        assert!(all.iter().enumerate().all(|(i, bytes)| *bytes == frame(60 + i)));
    }
    assert_eq!(ring.next(), 70_000u32 as u16);
}

#[test]
fn broken_chains_break_the_ring_and_are_named() {
    type Break = fn(&mut DriverRing);
    let cases: [(Break, RingError); 8] = [
        (|ring| ring.make_available(16), RingError::Index { head: 16, index: 16 }),
        (
            |ring| {
                ring.write_descriptor(2, 0x10000, 100, NEXT, 99);
                ring.make_available(2);
            },
            RingError::Index { head: 2, index: 99 },
        ),
        (
            |ring| {
                ring.write_descriptor(2, 0x10000, 100, NEXT, 3);
                ring.write_descriptor(3, 0x10000, 100, NEXT, 2);
                ring.make_available(2);
            },
            RingError::Length(2),
        ),
        (
            |ring| {
                ring.write_descriptor(2, 0x10000, 100, WRITE, 0);
                ring.make_available(2);
            },
            RingError::Direction(2),
        ),
        (
            |ring| {
                ring.write_descriptor(2, u64::MAX - 10, 100, 0, 0);
                ring.make_available(2);
            },
            RingError::Address { head: 2, address: u64::MAX - 10, len: 100 },
        ),
        (
            |ring| {
                ring.write_descriptor(2, 0x10000, 31, 4, 0);
                ring.make_available(2);
            },
            RingError::Indirect(2),
        ),
        (
            |ring| {
                // The table's first entry is indirect again.
                ring.write_descriptor(3, 0x10000, 16, 4, 0);
                ring.write_descriptor(2, 3 * 16, 16, 4, 0);
                ring.make_available(2);
            },
            RingError::Indirect(2),
        ),
        (
            |ring| {
                for _ in 0..17 {
                    ring.make_available(0);
                }
            },
            RingError::Available { from: 0, to: 17, size: 16 },
        ),
    ];
    for (break_it, expected) in cases {
        let ram = ram();
        let mut driver = DriverRing::new(&ram, 0, 16, false);
        let setup = driver.setup(ram.map(), MODERN);
        let breaks = setup.breaks.clone();
        let mut ring = RxRing::start(setup, PORT).expect("a ring");
        break_it(&mut driver);
        driver.publish();
        assert!(serve(&mut ring).0.is_empty());
        assert_eq!(ring.fault(), Some(&expected));
        assert_eq!(driver.used_index(), 0);
        assert_eq!((breaks.load(Ordering::Relaxed), driver.error.take()), (1, 1));
        // It stays still.
        assert!(serve(&mut ring).0.is_empty());
        assert!(!ring.arm());
        assert_eq!((breaks.load(Ordering::Relaxed), driver.error.take()), (1, 0));
    }
}

#[test]
fn frames_before_a_broken_chain_are_delivered() {
    let ram = ram();
    let mut driver = Transmitter::new(&ram, 0, 16, 2048, false);
    let mut ring = RxRing::start(driver.ring.setup(ram.map(), MODERN), PORT).expect("a ring");
    driver.push(NetHeader::default(), &frame(60));
    driver.ring.make_available(1000);
    driver.ring.publish();
    assert_eq!(serve(&mut ring).0, [frame(60)]);
    assert_eq!(driver.ring.used_index(), 1);
    assert!(ring.fault().is_some());
}

#[test]
fn frames_go_out_to_buffers_of_all_shapes() {
    for event_idx in [false, true] {
        for (stride, parts) in [(128, 1), (1526, 1), (2048, 1), (70_000, 1), (20, 2), (700, 3)] {
            let ram = Ram::new(&[(0, 32 * MIB)]);
            let mut driver = Receiver::new(&ram, 0, 256, stride, parts, event_idx);
            let mut ring = TxRing::start(driver.ring.setup(ram.map(), MODERN), None).expect("a ring");
            driver.fill(usize::MAX);
            for len in [14, 60, 100, HEAD_MAX, 1514, 2036] {
                let sent = transmit(&mut ring, &[frame(len), frame(len + 1)]);
                assert_eq!((sent.frames, sent.bytes), (2, 2 * len as u64 + 1), "{len} in {parts} x {stride}");
                for expected in [frame(len), frame(len + 1)] {
                    let (header, bytes) = driver.receive().expect("a frame");
                    assert_eq!(bytes, expected);
                    let buffers = (len + NetHeader::LEN) as u32;
                    assert!(u32::from(header.num_buffers) >= buffers / (stride * u32::from(parts)));
                    assert_eq!(NetHeader { num_buffers: 0, ..header }, NetHeader::default());
                }
                driver.fill(usize::MAX);
            }
        }
    }
}

#[test]
fn without_mergeable_buffers_a_frame_fits_one_or_is_dropped() {
    for (features, header_len) in [(F_VERSION_1, 12), (0, 10)] {
        let ram = ram();
        let mut driver = Receiver::new(&ram, 0, 16, 500, 2, false);
        let mut ring = TxRing::start(driver.ring.setup(ram.map(), features), None).expect("a ring");
        driver.fill(usize::MAX);
        let sent = transmit(&mut ring, &[frame(60), frame(1001 - header_len), frame(1000 - header_len)]);
        assert_eq!((sent.frames, sent.drops[TxDrop::TooLong as usize]), (2, 1));
        for expected in [60, 1000 - header_len] {
            let bytes = driver.take_buffer().expect("a frame");
            // The number of buffers is one, if there is such a field.
            assert_eq!(bytes[..header_len], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0][..header_len]);
            assert_eq!(bytes[header_len..], frame(expected));
        }
        assert!(driver.take_buffer().is_none());
    }
}

#[test]
fn a_full_ring_drops_whole_frames_and_loses_no_buffer() {
    let ram = ram();
    let mut driver = Receiver::new(&ram, 0, 16, 500, 1, false);
    let mut ring = TxRing::start(driver.ring.setup(ram.map(), MODERN), None).expect("a ring");
    assert_eq!(transmit(&mut ring, &[frame(60)]).drops[TxDrop::RingFull as usize], 1);
    for _ in 0..20_000 {
        driver.fill(7);
        // Each of 1,400 bytes takes three buffers; what does not fit leaves its buffers to the small one.
        let sent = transmit(&mut ring, &[frame(1400), frame(1400), frame(1401), frame(60), frame(61)]);
        assert_eq!((sent.frames, sent.bytes), (3, 2860));
        assert_eq!(sent.drops[TxDrop::RingFull as usize], 2);
        for len in [1400, 1400, 60] {
            assert_eq!(driver.receive().map(|(_, bytes)| bytes), Some(frame(len)));
        }
        assert!(driver.receive().is_none());
        assert_eq!(driver.ring.free(), 16);
    }
}

#[test]
fn nothing_goes_out_after_a_fault() {
    let ram = ram();
    let mut driver = DriverRing::new(&ram, 0, 16, false);
    let mut ring = TxRing::start(driver.setup(ram.map(), MODERN), None).expect("a ring");
    driver.offer(&[Buffer { address: MIB, len: 1000, writable: true }]).expect("a free descriptor");
    driver.make_available(16);
    driver.publish();
    // The first frame needs both chains and finds the second broken; the others would fit the first.
    let frames: Vec<Vec<u8>> = std::iter::once(frame(1500)).chain((0..BATCH).map(|_| frame(60))).collect();
    let sent = transmit(&mut ring, &frames);
    assert_eq!((sent.frames, sent.drops[TxDrop::BadDescriptor as usize]), (0, 33));
    assert_eq!((driver.used_index(), ring.fault()), (0, Some(&RingError::Index { head: 16, index: 16 })));
}

#[test]
fn longer_than_the_mtu_is_dropped() {
    let ram = ram();
    let mut driver = Receiver::new(&ram, 0, 16, 4096, 1, false);
    let mut ring = TxRing::start(driver.ring.setup(ram.map(), MODERN), Some(1500)).expect("a ring");
    driver.fill(usize::MAX);
    let sent = transmit(&mut ring, &[frame(1514), frame(1515)]);
    assert_eq!((sent.frames, sent.drops[TxDrop::TooLong as usize]), (1, 1));
}

#[test]
fn notifications_are_as_few_as_the_driver_wants() {
    for event_idx in [false, true] {
        let ram = ram();
        let mut driver = Transmitter::new(&ram, 0, 64, 2048, event_idx);
        let mut ring = RxRing::start(driver.ring.setup(ram.map(), MODERN), PORT).expect("a ring");
        assert_eq!(driver.ring.call.take(), 1, "one for what the last back end may have left");
        driver.ring.want_calls(true);
        for _ in 0..5 {
            driver.push(NetHeader::default(), &frame(60));
        }
        assert!(driver.ring.publish(), "a new ring wants kicks");
        serve(&mut ring);
        assert_eq!(driver.ring.call.take(), 1, "one for the batch");
        driver.reclaim();
        driver.ring.want_calls(false);
        ring.disarm();
        for _ in 0..100 {
            driver.push(NetHeader::default(), &frame(60));
            assert!(!driver.ring.publish(), "no kicks while polled");
            serve(&mut ring);
            driver.reclaim();
        }
        assert_eq!(driver.ring.call.take(), 0);
        assert!(!ring.arm());
        driver.push(NetHeader::default(), &frame(60));
        assert!(driver.ring.publish());
        assert!(ring.arm(), "there is work already");
    }
}

#[test]
fn a_ring_goes_on_where_the_last_one_stopped() {
    let ram = ram();
    let mut driver = Transmitter::new(&ram, 0, 64, 2048, true);
    let memory = ram.map();
    let mut ring = RxRing::start(driver.ring.setup(memory.clone(), MODERN), PORT).expect("a ring");
    for i in 0..3 * BATCH {
        driver.push(NetHeader::default(), &frame(60 + i));
        driver.ring.publish();
        if i % 5 == 4 {
            serve(&mut ring);
            driver.reclaim();
        }
        if i % 7 == 6 {
            let setup = driver.ring.setup(memory.clone(), MODERN);
            // Whatever the front end believes.
            ring = RxRing::start(vhost_backend::ring::RingSetup { next: 999, ..setup }, PORT).expect("a ring");
        }
    }
    serve(&mut ring);
    driver.reclaim();
    assert_eq!(driver.ring.free(), 64);
    assert_eq!(ring.next(), 3 * BATCH as u16);
}

#[test]
fn rings_that_can_not_be_are_refused() {
    let ram = ram();
    let driver = DriverRing::new(&ram, 0, 64, true);
    let setup = || driver.setup(ram.map(), MODERN);
    let refused = |setup| RxRing::start(setup, PORT).expect_err("no ring");
    for size in [0, 3, 65_535] {
        assert_eq!(refused(vhost_backend::ring::RingSetup { size, ..setup() }), RingError::Size(size));
    }
    let mut outside = setup();
    outside.addresses.used = ram.user(0) + 4 * MIB - 100;
    assert_eq!(refused(outside), RingError::Area("used ring"));
    let mut odd = setup();
    odd.addresses.available += 1;
    assert_eq!(refused(odd), RingError::Area("available ring"));
    let mut wild = setup();
    wild.addresses.descriptors = u64::MAX - 15;
    assert_eq!(refused(wild), RingError::Area("descriptor table"));
}

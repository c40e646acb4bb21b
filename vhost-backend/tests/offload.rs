//! The work that a guest leaves to the switch, passed on or done, seen from the receiving driver's side.
//!
//! Segments are checked against the plainest reference there is: put together again they are the original frame, and every checksum adds up.

use datapath::action::{Action, NoControllers, Outcome, OutputSets, Whole, execute};
use datapath::drops::{DropReason, TxDrop};
use datapath::frame::{Batch, Checksum, HEAD_MAX, HEADROOM, Offload, Segmentation, SegmentationKind};
use datapath::key::{FlowKey, extract_frame};
use datapath::port::{PortNo, RxQueue, Transmitted};
use proptest::prelude::*;
use tests::driver::{F_MRG_RXBUF, F_VERSION_1, NetHeader, Ram, Receiver, Transmitter};
use vhost_backend::rx::RxRing;
use vhost_backend::tx::TxRing;

const MODERN: u64 = F_VERSION_1 | F_MRG_RXBUF;
const CSUM: u64 = 1 << 1;
const TSO4: u64 = 1 << 7;
const TSO6: u64 = 1 << 8;
const ECN: u64 = 1 << 9;
const USO: u64 = 1 << 54 | 1 << 55;
const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;

/// The shape of a frame: which headers lie where.
#[derive(Clone, Copy, Debug)]
struct Shape {
    vlans: usize,
    ipv6: bool,
    /// Words of IPv4 options, or units of eight bytes of IPv6 destination options.
    ip_options: usize,
    tcp: bool,
    /// Words of TCP options.
    tcp_options: usize,
    tcp_flags: u8,
}

impl Shape {
    fn network(&self) -> usize {
        14 + 4 * self.vlans
    }

    fn transport(&self) -> usize {
        self.network() + if self.ipv6 { 40 + 8 * self.ip_options } else { 20 + 4 * self.ip_options }
    }

    fn payload(&self) -> usize {
        self.transport() + if self.tcp { 20 + 4 * self.tcp_options } else { 8 }
    }

    fn checksum_offset(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    fn kind(&self) -> SegmentationKind {
        match (self.tcp, self.ipv6) {
            (false, _) => SegmentationKind::Udp,
            (true, false) => SegmentationKind::Tcp4,
            (true, true) => SegmentationKind::Tcp6,
        }
    }

    fn gso_type(&self) -> u8 {
        match self.kind() {
            SegmentationKind::Tcp4 => 1,
            SegmentationKind::Tcp6 => 4,
            SegmentationKind::Udp => 5,
        }
    }

    /// A frame whose transport checksum is partial.
    fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame: Vec<u8> = (1..=12).collect();
        for vlan in 0..self.vlans {
            frame.extend([0x81, 0, 0, vlan as u8]);
        }
        frame.extend(if self.ipv6 { [0x86, 0xdd] } else { [8, 0] });
        let protocol = if self.tcp { 6 } else { 17 };
        let transport_len = self.payload() - self.transport() + payload.len();
        if self.ipv6 {
            let options = 8 * self.ip_options;
            frame.extend([0x60, 1, 2, 3]);
            frame.extend(((options + transport_len) as u16).to_be_bytes());
            frame.extend([if options > 0 { 60 } else { protocol }, 64]);
            frame.extend(100..132);
            if options > 0 {
                frame.extend([protocol, self.ip_options as u8 - 1]);
                frame.extend(vec![0; options - 2]);
            }
        } else {
            let header = 20 + 4 * self.ip_options;
            frame.extend([0x40 | (header / 4) as u8, 0]);
            frame.extend(((header + transport_len) as u16).to_be_bytes());
            frame.extend([0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend(vec![1; 4 * self.ip_options]);
            let checksum = !sum(&frame[self.network()..]);
            let at = self.network() + 10;
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        frame.extend([0x12, 0x34, 0x56, 0x78]);
        if self.tcp {
            frame.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 9, ((5 + self.tcp_options) << 4) as u8, self.tcp_flags, 0x40, 0, 0, 0, 0, 0]);
            frame.extend(vec![1; 4 * self.tcp_options]);
        } else {
            frame.extend((transport_len as u16).to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.extend(payload);
        let partial = sum(&self.pseudo(&frame));
        let at = self.transport() + self.checksum_offset();
        frame[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        frame
    }

    fn pseudo(&self, frame: &[u8]) -> Vec<u8> {
        let at = self.network();
        let addresses = if self.ipv6 { &frame[at + 8..at + 40] } else { &frame[at + 12..at + 20] };
        let len = (frame.len() - self.transport()) as u32;
        [addresses, &len.to_be_bytes(), &[0, 0, 0, if self.tcp { 6 } else { 17 }]].concat()
    }

    /// Whether the transport checksum adds up, and is not the one that means "none".
    fn transport_adds_up(&self, frame: &[u8]) -> bool {
        let at = self.transport() + self.checksum_offset();
        sum(&[&self.pseudo(frame), &frame[self.transport()..]].concat()) == 0xffff && frame[at..at + 2] != [0, 0]
    }

    fn offload(&self, size: Option<u16>) -> Offload {
        let segmentation = size.map(|size| Segmentation { kind: self.kind(), ecn: self.tcp_flags & CWR != 0, size });
        let checksum = Checksum::Partial { start: self.transport() as u16, offset: self.checksum_offset() as u16 };
        Offload { checksum, segmentation }
    }

    /// Checks that `segments` are a frame with this payload cut into pieces of `size`.
    fn check_segments(&self, segments: &[Vec<u8>], original: &[u8], size: usize) {
        let (network, transport, payload) = (self.network(), self.transport(), self.payload());
        let mut together: Vec<u8> = Vec::new();
        for (i, segment) in segments.iter().enumerate() {
            let last = i + 1 == segments.len();
            assert!(segment.len() - payload <= size && (last || segment.len() - payload == size));
            assert!(self.transport_adds_up(segment), "segment {i}");
            // Everything but the fields that must differ is as it was.
            let mut headers = segment[..payload].to_vec();
            let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
            let mut restore = |range: std::ops::Range<usize>| headers[range.clone()].copy_from_slice(&original[range]);
            if self.ipv6 {
                assert_eq!(usize::from(word(network + 4)), segment.len() - network - 40);
                restore(network + 4..network + 6);
            } else {
                assert_eq!(usize::from(word(network + 2)), segment.len() - network);
                assert_eq!(word(network + 4), 0xfffeu16.wrapping_add(i as u16), "the identification counts up");
                assert_eq!(sum(&segment[network..transport]), 0xffff);
                restore(network + 2..network + 6);
                restore(network + 10..network + 12);
            }
            if self.tcp {
                let sequence = u32::from_be_bytes(segment[transport + 4..transport + 8].try_into().expect("four bytes"));
                assert_eq!(sequence, 0xffff_ff00u32.wrapping_add((i * size) as u32));
                let kept = self.tcp_flags & !if last { 0 } else { FIN | PSH } & !if i == 0 { 0 } else { CWR };
                assert_eq!(segment[transport + 13], kept, "flags of segment {i}");
                restore(transport + 4..transport + 8);
                restore(transport + 13..transport + 14);
            } else {
                assert_eq!(usize::from(word(transport + 4)), segment.len() - transport);
                restore(transport + 4..transport + 6);
            }
            restore(transport + self.checksum_offset()..transport + self.checksum_offset() + 2);
            assert_eq!(headers, original[..payload]);
            together.extend(&segment[payload..]);
        }
        assert_eq!(together, original[payload..]);
    }
}

/// The ones' complement sum of big-endian words (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.fold(0, |sum, word| (sum + word) % 0xffff);
    // Zero is only the sum of zeros; any other multiple of 0xffff is written 0xffff.
    if sum == 0 && bytes.iter().any(|byte| *byte != 0) {
        sum = 0xffff;
    }
    sum as u16
}

/// A receiving guest that negotiated `features`, and what it gets of one frame.
fn deliver(features: u64, mtu: Option<u16>, stride: u32, frame: &[u8], offload: Offload) -> (Transmitted, Vec<(NetHeader, Vec<u8>)>) {
    let mut batch = Batch::new();
    let slot = batch.push_bytes(PortNo(1), offload, frame);
    let delivered = deliver_slot(features, mtu, stride, &batch, slot);
    assert_eq!(batch.to_vec(slot, usize::MAX), frame, "the frame stays as it is");
    delivered
}

/// The same of a frame that is in a batch already.
fn deliver_slot(features: u64, mtu: Option<u16>, stride: u32, batch: &Batch, slot: u16) -> (Transmitted, Vec<(NetHeader, Vec<u8>)>) {
    let ram = Ram::new(&[(0, 8 << 20)]);
    let mut driver = Receiver::new(&ram, 0, 256, stride, 1, true);
    let mut ring = TxRing::start(driver.ring.setup(ram.map(), features), mtu).expect("a ring");
    driver.fill(usize::MAX);
    let mut transmitted = Transmitted::default();
    ring.transmit(batch, &[slot], &mut transmitted);
    let received = std::iter::from_fn(|| driver.receive()).collect::<Vec<_>>();
    assert_eq!(
        256 - driver.ring.free(),
        driver.fill(0) + usize::from(ring.next() != driver.ring.used_index()) + (256 - driver.ring.free())
    );
    (transmitted, received)
}

/// A frame on its way through actions, by the plainest means.
#[derive(Clone)]
struct Tagged {
    bytes: Vec<u8>,
    /// Where what is behind the outermost Ethernet header and its VLAN tags begins.
    network: usize,
}

impl Tagged {
    fn kind(&self) -> u16 {
        u16::from_be_bytes([self.bytes[self.network - 2], self.bytes[self.network - 1]])
    }

    fn vlans(&self) -> usize {
        (self.network - 14) / 4
    }

    /// The frame with a tag, and the actions that push and pop it.
    fn pushed(&self, tag: Tag) -> (Self, Action, Action) {
        let Self { mut bytes, mut network } = self.clone();
        match tag {
            Tag::Vlan(tpid) => {
                let tci = if self.vlans() > 0 { [bytes[14], bytes[15]] } else { [0, 0] };
                bytes.splice(12..12, [tpid.to_be_bytes(), tci].concat());
                network += 4;
                (Self { bytes, network }, Action::PushVlan(tpid), Action::PopVlan)
            }
            Tag::Mpls => {
                let entry = match self.kind() {
                    0x8847 => [bytes[network], bytes[network + 1], bytes[network + 2] & !1, bytes[network + 3]],
                    // The TTL of all our frames.
                    0x0800 | 0x86dd => [0, 0, 1, 64],
                    _ => [0, 0, 1, 0],
                };
                bytes.splice(network..network, entry);
                bytes[network - 2..network].copy_from_slice(&[0x88, 0x47]);
                (Self { bytes, network }, Action::PushMpls(0x8847), Action::PopMpls(self.kind()))
            }
            Tag::Pbb => {
                let priority = if self.vlans() > 0 { bytes[14] & 0xe0 } else { 0 };
                let isid = if self.kind() == 0x88e7 { [bytes[network + 1], bytes[network + 2], bytes[network + 3]] } else { [0; 3] };
                let header = [&bytes[..12], &[0x88, 0xe7, priority], &isid].concat();
                bytes.splice(..0, header);
                (Self { bytes, network: 14 }, Action::PushPbb, Action::PopPbb)
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Tag {
    Vlan(u16),
    Mpls,
    Pbb,
}

fn tags() -> impl Strategy<Value = Vec<Tag>> {
    prop::collection::vec(prop::sample::select(vec![Tag::Vlan(0x8100), Tag::Vlan(0x88a8), Tag::Mpls, Tag::Mpls, Tag::Pbb]), 0..7)
}

fn shapes() -> impl Strategy<Value = Shape> {
    let flags = prop::sample::select(vec![ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR, ACK | PSH | CWR]);
    (0..3usize, any::<bool>(), 0..4usize, any::<bool>(), 0..11usize, flags).prop_map(
        |(vlans, ipv6, ip_options, tcp, tcp_options, flags)| Shape {
            vlans,
            ipv6,
            ip_options,
            tcp,
            tcp_options,
            tcp_flags: if tcp { flags } else { 0 },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn segments_put_together_are_the_frame(shape in shapes(), payload in prop::collection::vec(any::<u8>(), 0..20_000), size in 100..3000u16,
                                           checksum in any::<bool>(), stride in prop::sample::select(vec![500u32, 1526, 4096])) {
        let frame = shape.frame(&payload);
        let features = MODERN | if checksum { CSUM } else { 0 };
        let (transmitted, received) = deliver(features, None, stride, &frame, shape.offload(Some(size)));
        prop_assert_eq!((transmitted.frames, transmitted.bytes), (1, frame.len() as u64));
        prop_assert_eq!(received.len(), payload.len().div_ceil(usize::from(size)).max(1));
        let segments: Vec<Vec<u8>> = received.into_iter().map(|(header, mut bytes)| {
            let plain = NetHeader { num_buffers: 0, ..header };
            if !checksum {
                assert_eq!(plain, NetHeader::default());
                return bytes;
            }
            // Done by the guest, as its header asks it to.
            let (start, offset) = (shape.transport() as u16, shape.checksum_offset() as u16);
            assert_eq!(plain, NetHeader { flags: 1, csum_start: start, csum_offset: offset, ..NetHeader::default() });
            let checksum = !sum(&bytes[shape.transport()..]);
            let at = shape.transport() + shape.checksum_offset();
            bytes[at..at + 2].copy_from_slice(&if checksum == 0 { 0xffff } else { checksum }.to_be_bytes());
            bytes
        }).collect();
        shape.check_segments(&segments, &frame, size.into());
    }

    #[test]
    fn checksums_are_done_for_a_guest_that_does_not(shape in shapes(), payload in prop::collection::vec(any::<u8>(), 0..3000)) {
        let frame = shape.frame(&payload);
        let (_, received) = deliver(MODERN, None, 1526, &frame, shape.offload(None));
        prop_assert_eq!(received.len(), 1);
        let (header, bytes) = &received[0];
        prop_assert_eq!(NetHeader { num_buffers: 0, ..*header }, NetHeader::default());
        let mut restored = bytes.clone();
        let at = shape.transport() + shape.checksum_offset();
        restored[at..at + 2].copy_from_slice(&frame[at..at + 2]);
        prop_assert_eq!(restored, frame);
        prop_assert!(shape.transport_adds_up(bytes));
    }

    /// Whatever is pushed and popped outside of it, up to all of the head room, the frame inside has its checksum, and its segments are whole.
    #[test]
    fn tags_break_no_frame(shape in shapes(), longer in prop::sample::select(vec![0, 0, 7, 9, 10]), tags in tags(), pops in 0..3usize,
                           payload in prop::collection::vec(any::<u8>(), 0..5000), size in prop::option::of(100..3000u16),
                           features in prop::sample::select(vec![0, CSUM, CSUM | TSO4 | TSO6 | USO | ECN])) {
        // Longer IPv6 headers reach to the end of the head.
        let shape = Shape { ip_options: if shape.ipv6 { shape.ip_options.max(longer) } else { shape.ip_options }, ..shape };
        let size = size.filter(|_| shape.payload() <= HEAD_MAX);
        let original = shape.frame(&payload);
        let mut states = vec![Tagged { bytes: original.clone(), network: shape.network() }];
        let (mut pushes, mut undo) = (Vec::new(), Vec::new());
        for tag in tags {
            let last = states.last().expect("the frame as it came");
            // A key knows two VLAN tags; and nobody could tell that there is an I-TAG under an MPLS entry.
            if matches!(tag, Tag::Vlan(_)) && last.vlans() == 2 || matches!(tag, Tag::Mpls) && last.kind() == 0x88e7 {
                continue;
            }
            let (next, push, pop) = last.pushed(tag);
            states.push(next);
            pushes.push(push);
            undo.push(pop);
        }
        let too_long = states[pushes.len()].bytes.len() - original.len() > HEADROOM;
        let pops = pops.min(pushes.len());
        let mut batch = Batch::new();
        let slot = batch.push_bytes(PortNo(1), shape.offload(size), &original);
        let mut carry_out = |actions: &[Action]| {
            prop_assert!(extract_frame(batch.frame_mut(slot), &mut FlowKey::ZERO.clone()));
            let mut outputs = OutputSets::default();
            let actions = [actions, &[Action::Output(PortNo(2))]].concat();
            let outcome = execute(&actions, DropReason::Rule, slot, &mut batch, &mut outputs, &mut NoControllers, &mut Whole(0));
            let expected = if too_long { Outcome::Dropped(DropReason::NotApplicable) } else { Outcome::Forwarded };
            prop_assert_eq!(outcome, expected);
            Ok(())
        };
        carry_out(&pushes)?;
        if too_long {
            return Ok(());
        }
        // What a pop uncovers is looked at anew, as it is where a translation was frozen.
        undo.iter().rev().take(pops).try_for_each(|pop| carry_out(std::slice::from_ref(pop)))?;
        let expected = &states[pushes.len() - pops].bytes;
        prop_assert_eq!(&batch.to_vec(slot, usize::MAX), expected);

        let (transmitted, received) = deliver_slot(MODERN | features, None, 1526, &batch, slot);
        prop_assert_eq!((transmitted.frames, transmitted.bytes), (1, expected.len() as u64));
        let outside = expected.len() - original.len();
        let (network, start) = (outside + shape.network(), outside + shape.transport());
        let plain = pushes[..pushes.len() - pops].iter().all(|push| matches!(push, Action::PushVlan(_)));
        let mut inside = Vec::new();
        for (header, bytes) in &received {
            prop_assert_eq!(&bytes[..network], &expected[..network]);
            let mut frame = [&original[..shape.network()], &bytes[network..]].concat();
            if header.flags & 1 != 0 {
                prop_assert_eq!((usize::from(header.csum_start), usize::from(header.csum_offset)), (start, shape.checksum_offset()));
                if size.is_some() && header.gso_type == 0 {
                    let (at, checksum) = (shape.transport() + shape.checksum_offset(), !sum(&frame[shape.transport()..]));
                    frame[at..at + 2].copy_from_slice(&if checksum == 0 { 0xffff } else { checksum }.to_be_bytes());
                }
            } else {
                prop_assert!(shape.transport_adds_up(&frame));
            }
            prop_assert_eq!(header.flags & 1 != 0, features & CSUM != 0);
            prop_assert!(header.gso_type == 0 || plain, "nobody segments what is inside of other than VLAN tags");
            inside.push(frame);
        }
        match (size, received[0].0.gso_type) {
            (Some(size), 0) => shape.check_segments(&inside, &original, size.into()),
            (Some(_), _) => prop_assert_eq!(&inside[..], std::slice::from_ref(&original)),
            (None, _) => {
                let at = shape.transport() + shape.checksum_offset();
                prop_assert_eq!(inside.len(), 1);
                inside[0][at..at + 2].copy_from_slice(&original[at..at + 2]);
                prop_assert_eq!(&inside[0], &original);
            }
        }
    }

    #[test]
    fn any_header_is_survived_and_what_is_believed_fits_the_frame(
        flags in any::<u8>(), gso_type in prop::sample::select(vec![0u8, 1, 3, 4, 5, 0x81, 0x84, 0x85, 0x80, 77]), hdr_len in any::<u16>(), gso_size in 0..5000u16,
        start in 0..200u16, offset in 0..40u16, shape in shapes(), cut in 14..400usize, noise in prop::collection::vec((0..120usize, any::<u8>()), 0..4),
    ) {
        let mut frame = shape.frame(&[7; 300]);
        noise.into_iter().for_each(|(at, byte)| if at < frame.len() { frame[at] = byte });
        frame.truncate(cut);
        let ram = Ram::new(&[(0, 8 << 20)]);
        let mut sender = Transmitter::new(&ram, 0, 16, 2048, false);
        let mut rx = RxRing::start(sender.ring.setup(ram.map(), MODERN), PortNo(1)).expect("a ring");
        let mut driver = Receiver::new(&ram, 4 << 20, 256, 2048, 1, false);
        let mut tx = TxRing::start(driver.ring.setup(ram.map(), MODERN), None).expect("a ring");
        driver.fill(usize::MAX);
        let header = NetHeader { flags, gso_type, hdr_len, gso_size, csum_start: start, csum_offset: offset, num_buffers: 0 };
        prop_assert!(sender.push(header, &frame));
        // And the one that fits.
        let right = NetHeader { flags: 1, gso_type: shape.gso_type(), hdr_len: 0, gso_size: 77, csum_start: shape.transport() as u16,
                                csum_offset: shape.checksum_offset() as u16, num_buffers: 0 };
        prop_assert!(sender.push(right, &shape.frame(&[7; 300])));
        sender.ring.publish();
        rx.serve(&mut Batch::new(), &mut |batch| {
            for slot in 0..batch.len() as u16 {
                let frame = batch.frame(slot);
                if let Checksum::Partial { start, offset } = frame.offload.checksum {
                    assert!(usize::from(start) + usize::from(offset) + 2 <= frame.len());
                }
                let mut transmitted = Transmitted::default();
                tx.transmit(batch, &[slot], &mut transmitted);
                assert_eq!(transmitted.frames, 1, "what was believed can be done: {transmitted:?}");
            }
            assert_eq!(batch.frame(batch.len() as u16 - 1).offload, Offload { segmentation: Some(Segmentation { kind: shape.kind(), ecn: false, size: 77 }),
                                                                             ..shape.offload(None) });
        });
    }
}

#[test]
fn a_guest_that_takes_them_over_gets_offloads_as_they_came() {
    let tcp4 = Shape { vlans: 1, ipv6: false, ip_options: 0, tcp: true, tcp_options: 3, tcp_flags: ACK };
    let cases = [
        (tcp4, CSUM | TSO4, true),
        (tcp4, CSUM | TSO6, false),
        (tcp4, TSO4, false),
        (Shape { tcp_flags: ACK | CWR, ..tcp4 }, CSUM | TSO4, false),
        (Shape { tcp_flags: ACK | CWR, ..tcp4 }, CSUM | TSO4 | ECN, true),
        (Shape { ipv6: true, ..tcp4 }, CSUM | TSO6, true),
        (Shape { ipv6: true, ..tcp4 }, CSUM | TSO4, false),
        (Shape { tcp: false, tcp_flags: 0, ..tcp4 }, CSUM | USO, true),
        (Shape { tcp: false, tcp_flags: 0, ..tcp4 }, CSUM | TSO4 | TSO6 | 1 << 54, false),
    ];
    for (shape, features, whole) in cases {
        let frame = shape.frame(&[5; 40_000]);
        let (_, received) = deliver(MODERN | features, None, 4096, &frame, shape.offload(Some(1400)));
        assert_eq!(received.len() == 1, whole, "{shape:?} {features:x}");
        if whole {
            let ecn = if shape.tcp_flags & CWR != 0 { 0x80 } else { 0 };
            let expected = NetHeader {
                flags: 1,
                gso_type: shape.gso_type() | ecn,
                hdr_len: shape.payload() as u16,
                gso_size: 1400,
                csum_start: shape.transport() as u16,
                csum_offset: shape.checksum_offset() as u16,
                num_buffers: (frame.len() + 12).div_ceil(4096) as u16,
            };
            assert_eq!(received, [(expected, frame)]);
        }
    }
}

#[test]
fn a_verified_checksum_is_told_to_a_guest_that_listens() {
    let offload = Offload { checksum: Checksum::Valid, segmentation: None };
    for (features, flags) in [(MODERN | CSUM, 2), (MODERN, 0)] {
        let (_, received) = deliver(features, None, 2048, &[0; 60], offload);
        assert_eq!(received[0].0, NetHeader { flags, num_buffers: 1, ..NetHeader::default() });
    }
}

#[test]
fn what_can_not_be_sent_is_dropped_and_named() {
    let shape = Shape { vlans: 0, ipv6: false, ip_options: 0, tcp: true, tcp_options: 0, tcp_flags: ACK };
    let frame = shape.frame(&[5; 10_000]);
    let dropped = |mtu, frame: &[u8], offload| {
        let (transmitted, received) = deliver(MODERN, mtu, 2048, frame, offload);
        assert_eq!((transmitted.frames, received.len()), (0, 0));
        TxDrop::ALL.iter().copied().find(|reason| transmitted.drops[*reason as usize] == 1).expect("a reason")
    };
    assert_eq!(dropped(Some(1400), &frame, shape.offload(Some(1361))), TxDrop::TooLong);
    assert_eq!(deliver(MODERN, Some(1400), 2048, &frame, shape.offload(Some(1360))).1.len(), 8);
    assert_eq!(dropped(Some(1400), &frame, shape.offload(None)), TxDrop::TooLong);
    // Changed on its way through the switch so that the offload fits no more.
    let mut other = frame.clone();
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert_eq!(dropped(None, &other, shape.offload(Some(1000))), TxDrop::Offload);
    assert_eq!(dropped(None, &frame[..40], shape.offload(None)), TxDrop::Offload);
    // More segments than the guest has buffers.
    assert_eq!(dropped(None, &frame, shape.offload(Some(39))), TxDrop::RingFull);
    assert_eq!(deliver(MODERN, None, 2048, &frame, shape.offload(Some(40))).1.len(), 250);
}

//! The hot path allocates nothing, and notifies a guest at most once a batch: a worker over real rings, with an allocator that counts.
//!
//! Only what a thread allocates while it breathes is counted; the fake guests allocate as they like.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use datapath::action::NoControllers;
use datapath::cache::CacheLimits;
use datapath::key::{Field, Match};
use datapath::port::PortNo;
use datapath::tables::group::{BucketSpec, GROUP_ANY, GroupCommand, GroupKind, GroupMod};
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::meter::{BandKind, BandSpec, MeterCommand, MeterFlags, MeterMod};
use datapath::tables::{FlowMod, Tables, VlanMode};
use datapath::worker::Worker;
use etherparse::PacketBuilder;
use tests::driver::{DriverRing, NetHeader};
use tests::frontend::{F_ALL, F_OFFLOADS, Options};
use tests::rig::Rig;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts what is asked of it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that ends has no counter any more, and nobody asks for it.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: all is left to the system's allocator, under the promises that the caller made.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise, and all memory is from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, and all memory is from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

const BATCH: usize = 32;
const WARM_UP: usize = 100;
const BATCHES: usize = 1000;
/// The guest that takes no offloads.
const PLAIN: usize = 3;

/// Groups and meters that have the number of their kind (`GroupKind`): groups give each of their buckets' copies to one of ports 2 to 4, and change it before
/// that. Meter 1 lets all pass, meter 2 remarks.
fn groups_and_meters(tables: &mut Tables) {
    let set = OfAction::SetField { field: Field::EthSrc, value: 9, mask: 0xff };
    let bucket = |port| BucketSpec {
        weight: 1,
        watch_port: PortNo(port),
        watch_group: GROUP_ANY,
        actions: [OfAction::PushVlan(0x8100), set.clone(), output(PortNo(port))][..].into(),
    };
    for kind in [GroupKind::All, GroupKind::Select, GroupKind::Indirect, GroupKind::FastFailover] {
        let buckets = if kind == GroupKind::Indirect { vec![bucket(2)] } else { vec![bucket(2), bucket(3), bucket(4)] };
        tables.group_mod(&GroupMod { command: GroupCommand::Add, group: kind as u32, kind, buckets }, 0).expect("a good group");
    }
    for (meter, band) in [
        (1, BandSpec { kind: BandKind::Drop, rate: 1, burst: u32::MAX }),
        (2, BandSpec { kind: BandKind::DscpRemark(1), rate: 1, burst: 1 }),
    ] {
        let flags = MeterFlags(MeterFlags::PKTPS.0 | MeterFlags::BURST.0);
        tables.meter_mod(&MeterMod { command: MeterCommand::Add, meter, flags, bands: vec![band] }, 0).expect("a good meter");
    }
}

/// Sends batches from the first of four guests under one rule that applies actions, and expects `copies` of each frame in all, none of which is dropped.
fn expect_quiet_breaths(name: &str, apply: Vec<OfAction>, copies: usize, frame: impl Fn(usize) -> (NetHeader, Vec<u8>)) {
    expect_quiet(name, Instructions { apply: apply.into(), ..Instructions::default() }, copies, frame);
}

/// The same for any rule.
fn expect_quiet(name: &str, rule: Instructions, copies: usize, frame: impl Fn(usize) -> (NetHeader, Vec<u8>)) {
    let options = |guest| Options { ring_size: 1024, features: F_ALL & !if guest == PLAIN { F_OFFLOADS } else { 0 }, ..Options::default() };
    let mut rig = Rig::new(&[0, 1, 2, 3].map(options), 1, |_| VlanMode::default());
    let mut worker = rig.worker(0, CacheLimits::default(), Box::new(NoControllers));
    rig.queues().into_iter().for_each(|(port, queue)| worker.add_input(port, queue));
    groups_and_meters(&mut rig.draft);
    let normal = Instructions { apply: [output(PortNo::NORMAL)][..].into(), ..Instructions::default() };
    // Where a rule goes on to a table, what it made of the frame is looked at there.
    for (table, ether_type) in [(1, 0x0800), (1, 0x8847)] {
        let matching = Match::ANY.with(Field::EthType, ether_type);
        let instructions = Instructions { apply: [output(PortNo(3))][..].into(), ..Instructions::default() };
        rig.draft.flow_mod(&FlowMod { table, matching, instructions, ..FlowMod::default() }, 0).expect("a good rule");
    }
    let kind = u16::from_be_bytes(frame(0).1[12..14].try_into().expect("two bytes"));
    let matching = Match::ANY.with(Field::InPort, 1).with(Field::EthType, kind.into());
    for (matching, instructions) in [(Match::ANY, normal), (matching, rule)] {
        let flow_mod = FlowMod { matching, priority: u16::from(matching != Match::ANY), instructions, ..FlowMod::default() };
        rig.draft.flow_mod(&flow_mod, 0).expect("a good rule");
    }
    rig.publish();
    // The second guest makes its address known.
    rig.guests[1].send(0, [&udp(2, 1, 1, &[0; 10])[..]]);
    breathe(&mut worker);

    let mut serial = 0;
    for batch in 0..WARM_UP + BATCHES {
        let context = format!("{name}, batch {batch}");
        let wanted = batch % 2 == 0;
        for guest in &mut rig.guests {
            while guest.receiver(0).receive().is_some() {}
            guest.receiver(0).fill(usize::MAX);
            guest.transmitter(0).reclaim();
            prepare(&mut guest.receiver(0).ring, wanted);
            prepare(&mut guest.transmitter(0).ring, wanted);
        }
        let transmitter = rig.guests[0].transmitter(0);
        for _ in 0..BATCH {
            serial += 1;
            let (header, frame) = frame(serial);
            assert!(transmitter.push(header, &frame), "{context}: the ring holds a batch");
        }
        transmitter.ring.publish();
        let sent = sent(&rig);
        let (mut frames, mut allocations) = breathe(&mut worker);
        while batch < WARM_UP && frames == 0 {
            // The port pays for its translations with breaths.
            (frames, allocations) = breathe(&mut worker);
        }
        assert_eq!(frames, BATCH, "{context}");
        assert_eq!(self::sent(&rig) - sent, (BATCH * copies) as u64, "{context}: what is sent");
        if batch < WARM_UP {
            continue;
        }
        assert_eq!(allocations, 0, "{context}: allocations");
        for (number, guest) in rig.guests.iter_mut().enumerate() {
            let calls = [guest.receiver(0).ring.call.take(), guest.transmitter(0).ring.call.take()];
            let got = u64::from(guest.receiver(0).receive().is_some());
            let expected = if wanted { [got, u64::from(number == 0)] } else { [0, 0] };
            assert_eq!(calls, expected, "{context}: notifications of guest {number}, for both its rings");
        }
    }
}

/// Asks for a notification of the next completion, or for none, and forgets those that came.
fn prepare(ring: &mut DriverRing, wanted: bool) {
    ring.want_calls(wanted);
    ring.call.take();
}

/// Frames sent to all ports.
fn sent(rig: &Rig) -> u64 {
    (1..=rig.guests.len() as u32).map(|port| rig.totals(PortNo(port)).tx_frames).sum()
}

/// The frames of a breath, and its allocations.
fn breathe(worker: &mut Worker) -> (usize, u64) {
    let before = ALLOCATIONS.get();
    let frames = worker.breathe(1);
    (frames, ALLOCATIONS.get() - before)
}

fn output(port: PortNo) -> OfAction {
    OfAction::Output { port, max_len: 0 }
}

fn udp(from: u8, to: u8, source_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, from], [2, 0, 0, 0, 0, to]).ipv4([10, 0, 0, from], [10, 0, 0, to], 64);
    builder.udp(source_port, 2000).write(&mut frame, payload).expect("a vector takes all");
    frame
}

/// A frame with this many bytes of payload, of one of eight flows.
fn datagram(len: usize) -> impl Fn(usize) -> (NetHeader, Vec<u8>) {
    move |serial| (NetHeader::default(), udp(1, 2, 1000 + serial as u16 % 8, &vec![7; len]))
}

/// A datagram under an MPLS entry.
fn labelled(serial: usize) -> (NetHeader, Vec<u8>) {
    let (header, mut frame) = datagram(20)(serial);
    frame.splice(14..14, [0, 0, 0x11, 64]);
    frame[12..14].copy_from_slice(&[0x88, 0x47]);
    (header, frame)
}

/// A datagram in a provider bridge's frame.
fn bridged(serial: usize) -> (NetHeader, Vec<u8>) {
    let (header, frame) = datagram(20)(serial);
    (header, [&frame[..12], &[0x88, 0xe7, 0, 0, 0, 1], &frame].concat())
}

/// A TSO frame of 12,000 bytes.
fn tso(_: usize) -> (NetHeader, Vec<u8>) {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.tcp(1000, 80, 1, 2).write(&mut frame, &[7; 12_000]).expect("a vector takes all");
    (NetHeader { flags: 1, gso_type: 1, hdr_len: 54, gso_size: 1448, csum_start: 34, csum_offset: 16, num_buffers: 0 }, frame)
}

#[test]
fn the_allocator_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1]));
    assert_eq!(ALLOCATIONS.get() - before, 2);
}

#[test]
fn one_output() {
    expect_quiet_breaths("one output", vec![output(PortNo(2))], 1, datagram(20));
}

#[test]
fn ever_new_flows_in_one_megaflow() {
    let frame = |serial| (NetHeader::default(), udp(1, 2, serial as u16, &[7; 20]));
    expect_quiet_breaths("new flows", vec![output(PortNo(2))], 1, frame);
}

#[test]
fn changed_frames() {
    let set = OfAction::SetField { field: Field::Ipv4Dst, value: 0x0a00_0009, mask: Field::Ipv4Dst.ones() };
    expect_quiet_breaths("set-field and dec_ttl", vec![set, OfAction::DecNwTtl, output(PortNo(2))], 1, datagram(20));
}

#[test]
fn copies_on_write() {
    let set = OfAction::SetField { field: Field::EthSrc, value: 9, mask: 0xff };
    let actions = vec![output(PortNo(2)), set, output(PortNo(3)), OfAction::PushVlan(0x8100), output(PortNo(4))];
    expect_quiet_breaths("a change between outputs", actions, 3, datagram(20));
}

#[test]
fn flood() {
    expect_quiet_breaths("a flood to three", vec![output(PortNo::FLOOD)], 3, datagram(20));
}

#[test]
fn normal() {
    expect_quiet_breaths("NORMAL", vec![output(PortNo::NORMAL)], 1, datagram(20));
}

#[test]
fn payload_on_loan() {
    expect_quiet_breaths("large frames", vec![output(PortNo::FLOOD)], 3, datagram(9000));
}

#[test]
fn segmentation_passed_on() {
    expect_quiet_breaths("TSO passed on", vec![output(PortNo(2))], 1, tso);
}

#[test]
fn segmentation_in_software() {
    expect_quiet_breaths("TSO in software", vec![output(PortNo(PLAIN as u32 + 1))], 1, tso);
}

#[test]
fn drops() {
    expect_quiet_breaths("drops", vec![], 0, datagram(300));
    // A header that contradicts the frame.
    let bad = |_| (NetHeader { gso_type: 7, ..NetHeader::default() }, udp(1, 2, 1, &[7; 20]));
    expect_quiet_breaths("rejected frames", vec![output(PortNo(2))], 0, bad);
}

#[test]
fn groups() {
    for (kind, copies) in [(GroupKind::All, 3), (GroupKind::Select, 1), (GroupKind::Indirect, 1), (GroupKind::FastFailover, 1)] {
        // Group 0 is a group, too.
        let group = OfAction::Group(kind as u32);
        expect_quiet_breaths(&format!("{kind:?}"), vec![group.clone()], copies, datagram(20));
        expect_quiet_breaths(&format!("{kind:?} and an output"), vec![group, output(PortNo(4))], copies + 1, datagram(300));
    }
}

#[test]
fn meters() {
    for meter in [1, 2] {
        let rule = Instructions { meter: Some(meter), apply: [output(PortNo(2))][..].into(), ..Instructions::default() };
        expect_quiet("a meter", rule.clone(), 1, datagram(20));
        expect_quiet("a meter and a table", Instructions { apply: [][..].into(), goto: Some(1), ..rule }, 1, datagram(20));
    }
}

#[test]
fn tags() {
    let to = output(PortNo(2));
    expect_quiet_breaths("a pushed MPLS entry", vec![OfAction::PushMpls(0x8847), OfAction::DecMplsTtl, to.clone()], 1, datagram(20));
    expect_quiet_breaths("a pushed I-TAG", vec![OfAction::PushPbb, to.clone()], 1, datagram(300));
    expect_quiet_breaths("popped MPLS", vec![OfAction::CopyTtlIn, OfAction::PopMpls(0x0800), to.clone()], 1, labelled);
    expect_quiet_breaths("a popped I-TAG", vec![OfAction::PopPbb, to.clone()], 1, bridged);
    expect_quiet_breaths("TSO under a tag", vec![OfAction::PushMpls(0x8847), to], 1, tso);
}

#[test]
fn frozen_translations() {
    let rule = |apply: Vec<OfAction>| Instructions { apply: apply.into(), goto: Some(1), ..Instructions::default() };
    expect_quiet("a table behind a popped MPLS entry", rule(vec![OfAction::PopMpls(0x0800)]), 1, labelled);
    expect_quiet("a table behind a popped I-TAG", rule(vec![OfAction::PopPbb]), 1, bridged);
    let group = OfAction::Group(GroupKind::Select as u32);
    expect_quiet("a group behind a popped MPLS entry", rule(vec![OfAction::PopMpls(0x0800), group]), 2, labelled);
}

#[test]
fn queues_and_controllers() {
    let actions = vec![OfAction::SetQueue(3), output(PortNo(2)), OfAction::PopQueue, OfAction::Enqueue { port: PortNo(3), queue: 1 }];
    expect_quiet_breaths("queues", actions, 2, datagram(20));
    expect_quiet_breaths("nobody to give frames to", vec![output(PortNo::CONTROLLER)], 0, datagram(20));
}

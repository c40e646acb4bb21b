//! What a frame costs that no cache knows: new flows come in through a worker, in one thread, between ports without rings.
//!
//!     cargo run --release -p tests --example upcalls [RULES [FLOWS [MILLIONS]]]
//!
//! RULES is `ports` (one rule that copies both UDP ports into a register, so that each flow needs a megaflow of its own), `ten` (a pipeline of ten
//! tables, as a logical router has) or `normal` (the learning switch).
//!
//! FLOWS is `once` (each flow has one frame: it is translated, and not admitted to the cache), `twice` (two in succession: the second installs a
//! megaflow), `install` (admission is off: each installs a megaflow, as long as there is room), `full` (there never is room) or `beside` (as
//! `once`, beside a port of one flow).
//!
//! Time passes as it does, so that megaflows go when they are idle. For instruction counts, run it under `valgrind --tool=callgrind`.

use std::sync::Arc;
use std::time::Instant;

use datapath::action::NoControllers;
use datapath::cache::CacheLimits;
use datapath::frame::{BATCH, Batch, Offload};
use datapath::key::{Field, FieldRange, Match};
use datapath::port::{DummyPort, Output, PortNo, RxQueue, Share, Transmitted};
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, MacTable, Port, PortConfig, PortCounters, Tables, VlanMode};
use datapath::worker::{Published, Worker, WorkerSettings};

/// Where a frame of ours has its IPv4 destination and its UDP ports.
const IPV4_DST: usize = 30;
const PORTS: usize = 34;

/// A guest that sends as many frames as it is asked for, each flow with `repeat` of them.
struct Sender {
    port: PortNo,
    frame: Vec<u8>,
    change: fn(&mut [u8], u32),
    repeat: u32,
    count: u32,
}

impl RxQueue for Sender {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        for _ in 0..BATCH {
            (self.change)(&mut self.frame, self.count / self.repeat);
            self.count += 1;
            batch.push_bytes(self.port, Offload::default(), &self.frame);
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

/// Takes all.
struct Sink;

impl Output for Sink {
    fn transmit(&self, _: Share, batch: &Batch, slots: &[u16]) -> Transmitted {
        let mut transmitted = Transmitted::default();
        slots.iter().for_each(|slot| transmitted.sent(batch.frame(*slot).len()));
        transmitted
    }
}

/// Both ports of the flow's number, spread.
fn ports(frame: &mut [u8], flow: u32) {
    frame[PORTS..PORTS + 4].copy_from_slice(&flow.wrapping_mul(0x9e37_79b1).to_be_bytes());
}

/// One of 256 routed destinations, at one of the ports that the pipeline lets pass, from any port.
fn routed(frame: &mut [u8], flow: u32) {
    frame[IPV4_DST..IPV4_DST + 4].copy_from_slice(&[10, 1, flow as u8, 1]);
    let port = [80u16, 443, 8080, 53, 5432, 6379, 9092, 3306][(flow >> 8) as usize % 8];
    frame[PORTS..PORTS + 2].copy_from_slice(&(flow as u16).to_be_bytes());
    frame[PORTS + 2..PORTS + 4].copy_from_slice(&port.to_be_bytes());
}

fn same(_: &mut [u8], _: u32) {}

/// One of 256 stations.
fn stations(frame: &mut [u8], flow: u32) {
    frame[11] = flow as u8;
}

fn udp() -> Match {
    Match::ANY.with(Field::EthType, 0x0800).with(Field::IpProto, 17)
}

fn output(port: PortNo) -> OfAction {
    OfAction::Output { port, max_len: 0 }
}

fn add(tables: &mut Tables, table: u8, priority: u16, matching: Match, apply: Vec<OfAction>) {
    let instructions = Instructions { apply: apply.into(), ..Instructions::default() };
    tables.flow_mod(&FlowMod { table, priority, matching, instructions, ..FlowMod::default() }, 0).expect("a good rule");
}

fn copy_ports(tables: &mut Tables) {
    let copy = |field, offset| OfAction::Move {
        source: FieldRange { field, offset: 0, bits: 16 },
        destination: FieldRange { field: Field::Reg0, offset, bits: 16 },
    };
    let actions = vec![copy(Field::UdpSrc, 0), copy(Field::UdpDst, 16), output(PortNo(2))];
    add(tables, 0, 100, udp().with(Field::InPort, 1), actions);
}

/// Port security, an access list, marks, routes, resolution and a table of stations.
fn ten_tables(tables: &mut Tables) {
    let go_on = |table| OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(table) };
    let set = |field: Field, value| OfAction::SetField { field, value, mask: field.ones() };
    let any = Match::ANY;
    let ours = any.with(Field::Metadata, 1);
    let ip = ours.with(Field::EthType, 0x0800);
    let udp = ip.with(Field::IpProto, 17);
    let (guest, router) = (0x0200_0000_0001, 0x0200_0000_ff01);
    let group = |matching: Match| matching.with_masked(Field::EthDst, 1 << 40, 1 << 40);
    let prefix =
        |matching: Match, field, address: u32, bits: u32| matching.with_masked(field, address.into(), u128::from(u32::MAX << (32 - bits)));

    add(tables, 0, 100, any.with(Field::InPort, 1), vec![set(Field::Metadata, 1), go_on(1)]);
    add(tables, 1, 50, ours.with(Field::EthSrc, guest), vec![go_on(2)]);
    add(tables, 1, 100, group(ours), vec![]);
    add(tables, 1, 0, any, vec![]);
    add(tables, 2, 90, prefix(ip.with(Field::EthSrc, guest), Field::Ipv4Src, 0x0a00_0000, 16), vec![go_on(3)]);
    add(tables, 2, 80, ip, vec![]);
    add(tables, 2, 0, any, vec![go_on(3)]);
    add(tables, 3, 100, ip, vec![set(Field::Reg0, 1), go_on(4)]);
    add(tables, 3, 0, any, vec![go_on(4)]);
    for i in 0..200 {
        let banned = prefix(udp, Field::Ipv4Src, 0x0a00_0000 | i << 8, 24).with(Field::UdpDst, (7000 + i).into());
        add(tables, 4, 2001, banned, vec![]);
    }
    for i in 0..50 {
        add(tables, 4, 2002, prefix(ip, Field::Ipv4Dst, 0x0a09_0000 | i << 8, 24), vec![]);
    }
    for port in [80, 443, 8080, 53, 5432, 6379, 9092, 3306] {
        add(tables, 4, 1500, udp.with(Field::UdpDst, port), vec![go_on(5)]);
    }
    add(tables, 4, 0, any, vec![]);
    add(tables, 5, 100, udp.with(Field::UdpDst, 53), vec![set(Field::IpDscp, 46), go_on(6)]);
    add(tables, 5, 0, any, vec![go_on(6)]);
    for i in 0..32 {
        let balanced = udp.with(Field::Ipv4Dst, 0x0a02_0000 | i).with(Field::UdpDst, 80);
        add(tables, 6, 120, balanced, vec![set(Field::Ipv4Dst, 0x0a03_0000 | i), go_on(7)]);
    }
    add(tables, 6, 0, any, vec![go_on(7)]);
    for i in 0..256 {
        let actions = vec![OfAction::DecNwTtl, set(Field::EthSrc, router), set(Field::Reg1, u128::from(i) + 1), go_on(8)];
        add(tables, 7, 48, prefix(ip, Field::Ipv4Dst, 0x0a01_0000 | i << 8, 24), actions);
    }
    add(tables, 7, 32, prefix(ip, Field::Ipv4Dst, 0x0a01_0000, 16), vec![]);
    add(tables, 7, 0, any, vec![]);
    for i in 1..=256 {
        add(tables, 8, 100, ip.with(Field::Reg1, i), vec![set(Field::EthDst, 0x0200_0000_0002), go_on(9)]);
    }
    add(tables, 8, 0, any, vec![]);
    add(tables, 9, 50, ours.with(Field::EthDst, 0x0200_0000_0002), vec![output(PortNo(2))]);
    add(tables, 9, 100, group(any), vec![]);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rules = arguments.next().unwrap_or_else(|| "ports".into());
    let flows = arguments.next().unwrap_or_else(|| "once".into());
    let frames = arguments.next().map_or(4.0, |millions| millions.parse::<f64>().expect("a number")) * 1e6;

    let mut tables = Tables::new(Arc::new(MacTable::new(1024, 1024)));
    let counters: Vec<_> = (0..3).map(|_| Arc::new(PortCounters::new(1))).collect();
    let outputs: [Arc<dyn Output>; 3] = [Arc::new(DummyPort::new(PortNo(1))), Arc::new(Sink), Arc::new(DummyPort::new(PortNo(3)))];
    for (no, (output, counters)) in (1..).zip(outputs.into_iter().zip(&counters)) {
        let port = Port {
            no: PortNo(no),
            name: format!("vm{no}"),
            hw_addr: [0; 6],
            config: PortConfig::default(),
            link_up: no == 2,
            speed: None,
            mtu: 1500,
            icmp_too_big: false,
            vlan: VlanMode::default(),
            output,
            counters: counters.clone(),
        };
        tables.add_port(port).expect("the port is new");
    }
    let change = match &*rules {
        "ports" => {
            copy_ports(&mut tables);
            ports
        }
        "ten" => {
            ten_tables(&mut tables);
            routed
        }
        "normal" => {
            add(&mut tables, 0, 0, Match::ANY, vec![output(PortNo::NORMAL)]);
            stations
        }
        other => panic!("{other}: there are the rules ports, ten and normal"),
    };
    add(&mut tables, 0, 1, Match::ANY.with(Field::InPort, 3), vec![output(PortNo(2))]);

    let limits = CacheLimits::default();
    let (limits, repeat) = match &*flows {
        "once" | "beside" => (limits, 1),
        "twice" => (limits, 2),
        "install" => (CacheLimits { admission: false, ..limits }, 1),
        "full" => (CacheLimits { megaflows: 0, ..limits }, 1),
        other => panic!("{other}: flows come once, twice, install, full or beside"),
    };
    let settings = WorkerSettings { share: Share::WHOLE, seed: 1, limits };
    let mut worker = Worker::new(settings, Arc::new(Published::new(tables)), Box::new(NoControllers));

    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0xff, 1]).ipv4([10, 0, 0, 1], [10, 1, 0, 1], 64);
    builder.udp(1, 2).write(&mut frame, &[0; 22]).expect("a vector takes all");
    let sender = Sender { port: PortNo(1), frame, change, repeat, count: 0 };
    if flows == "beside" {
        worker.add_input(PortNo(3), Box::new(Sender { port: PortNo(3), frame: sender.frame.clone(), change: same, repeat: 1, count: 0 }));
    }
    worker.add_input(PortNo(1), Box::new(sender));

    let start = Instant::now();
    let (mut maintain_at, mut maintaining) = (0, 0);
    let (mut before, mut slowest) = (0, 0);
    while (worker.stats().frames as f64) < frames {
        let now = start.elapsed().as_nanos() as u64;
        slowest = slowest.max(now - before);
        before = now;
        worker.breathe(now);
        if now >= maintain_at {
            let began = start.elapsed();
            maintain_at = now + worker.maintain(now);
            maintaining += (start.elapsed() - began).as_nanos();
        }
    }
    let elapsed = start.elapsed().as_nanos() as f64;
    let stats = worker.stats();
    let received = |at: usize| counters[at].totals().rx_frames;
    println!(
        "{rules} {flows}: {} frames, {:.0} ns each; {} translated, {} installed, {:.0} a second; {} megaflows with {} masks; \
         {} frames beside; {:.1} % of the time for maintenance; slowest breath {} us",
        received(0),
        elapsed / received(0) as f64,
        stats.upcalls,
        stats.installed,
        stats.installed as f64 / elapsed * 1e9,
        stats.megaflows,
        stats.masks,
        received(2),
        100.0 * maintaining as f64 / elapsed,
        slowest / 1000,
    );
}

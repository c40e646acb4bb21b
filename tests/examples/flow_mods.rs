//! How fast flow-mods go in, from one connection, and what a rule costs in memory: this switch beside Open vSwitch's userspace switch.
//!
//!     cargo run --release -p tests --example flow_mods [RULES [TABLES [ROUNDS [SHAPE]]]]
//!     cargo run --release -p tests --example flow_mods here [RULES [TABLES [ROUNDS [SHAPE]]]]
//!
//! RULES (1,000,000) are spread over TABLES (10), added with a barrier behind them, listed, and deleted; and the same in a bundle. That is done ROUNDS (3) times, with
//! the switches in turn. SHAPE is `routes` (an IPv4 destination and an output) or `flows` (a TCP connection with both its addresses and ports, a field to set and an
//! output). With `here`, the messages go to an agent in this process, without workers: that can be run under `valgrind --tool=callgrind`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::key::{Field, Match};
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction, OfActions};
use datapath::tables::{FlowMod, FlowModCommand, MacTable, RuleFilter, Tables};
use tests::open_vswitch::OpenVSwitch;
use tests::switch::Switch;
use vswitch::config::{FailMode, OpenFlow};
use vswitch::event::{Kind, Poller, Registrar};
use vswitch::openflow::agent::{Agent, Datapath, Origin, Peer, Settings};
use vswitch::openflow::stream::Stream;
use vswitch::openflow::wire::{
    ATOMIC, BundleAdd, BundleControl, BundleControlType, FlowModMessage, Header, Hello, Message, MultipartRequest, NO_BUFFER, ORDERED,
    VERSION, encode,
};

/// `OFPT_ERROR`.
const ERROR: u8 = 1;
/// `OFPT_MULTIPART_REPLY`.
const MULTIPART_REPLY: u8 = 19;
/// `OFPT_BARRIER_REPLY`.
const BARRIER_REPLY: u8 = 21;

#[derive(Clone, Copy)]
struct Case {
    rules: u32,
    tables: u8,
    connections: bool,
}

impl Case {
    fn rule(self, i: u32) -> FlowMod {
        let table = (i % u32::from(self.tables)) as u8;
        let destination = Match::ANY.with(Field::EthType, 0x0800).with(Field::Ipv4Dst, u128::from(0x0a00_0000 + i));
        let output = OfAction::Output { port: PortNo(1 + i % 4), max_len: 0 };
        let (matching, apply): (_, OfActions) = if self.connections {
            let ports = Match::with(destination, Field::Ipv4Src, u128::from(0x0b00_0000 + i / 7)).with(Field::IpProto, 6);
            let ports = ports.with(Field::TcpSrc, u128::from(1024 + i % 5000)).with(Field::TcpDst, 443);
            let set = OfAction::SetField {
                field: Field::EthDst,
                value: u128::from(0x0200_0000_0000 + u64::from(i % 100)),
                mask: Field::EthDst.ones(),
            };
            (ports, [set, output].into())
        } else {
            (destination, [output].into())
        };
        FlowMod { table, matching, priority: 100, instructions: Instructions { apply, ..Instructions::default() }, ..FlowMod::default() }
    }

    /// The messages that add all rules, as they are or to a bundle that they open and commit.
    fn messages(self, bundle: bool) -> Vec<u8> {
        let mut stream = Vec::new();
        let control = |kind| Message::BundleControl(BundleControl { bundle: 1, kind, flags: ATOMIC | ORDERED });
        if bundle {
            encode(&control(BundleControlType::OpenRequest), 1, &mut stream);
        }
        for i in 0..self.rules {
            let flow_mod = Message::FlowMod(Box::new(FlowModMessage { flow_mod: self.rule(i), buffer_id: NO_BUFFER }));
            if bundle {
                let mut message = Vec::new();
                encode(&flow_mod, i, &mut message);
                encode(&Message::BundleAdd(BundleAdd { bundle: 1, flags: ATOMIC | ORDERED, message }), i, &mut stream);
            } else {
                encode(&flow_mod, i, &mut stream);
            }
        }
        if bundle {
            encode(&control(BundleControlType::CommitRequest), 1, &mut stream);
        }
        encode(&Message::BarrierRequest, 2, &mut stream);
        stream
    }
}

fn clear() -> Vec<u8> {
    let mut stream = Vec::new();
    let delete = FlowMod { command: FlowModCommand::Delete, table: RuleFilter::ALL_TABLES, ..FlowMod::default() };
    encode(&Message::FlowMod(Box::new(FlowModMessage { flow_mod: delete, buffer_id: NO_BUFFER })), 3, &mut stream);
    encode(&Message::BarrierRequest, 4, &mut stream);
    stream
}

fn list() -> Vec<u8> {
    let mut stream = Vec::new();
    encode(&Message::MultipartRequest(Box::new(MultipartRequest::Flow(RuleFilter::ALL))), 5, &mut stream);
    encode(&Message::BarrierRequest, 6, &mut stream);
    stream
}

/// What comes from a switch, until a barrier's reply.
#[derive(Default)]
struct Answers {
    input: Vec<u8>,
    /// The bytes of multipart replies.
    listed: usize,
}

impl Answers {
    /// Takes bytes that came. Returns whether the barrier's reply was among them.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        let (mut at, mut is_over) = (0, false);
        while let Some(header) = Header::decode(&self.input[at..]) {
            let Some(message) = self.input.get(at..at + usize::from(header.length)) else { break };
            match header.kind {
                ERROR => panic!("refused: {message:x?}"),
                MULTIPART_REPLY => self.listed += message.len(),
                BARRIER_REPLY => is_over = true,
                _ => {}
            }
            at += message.len();
        }
        self.input.drain(..at);
        is_over
    }
}

/// Sends all of `bytes`, while what comes is read, and gives the bytes of multipart replies that come before the barrier's.
fn exchange(mut stream: &UnixStream, bytes: &[u8]) -> usize {
    std::thread::scope(|scope| {
        scope.spawn(|| (&*stream).write_all(bytes).expect("the switch reads"));
        let (mut answers, mut chunk) = (Answers::default(), vec![0; 1 << 20]);
        loop {
            let count = stream.read(&mut chunk).expect("the switch answers");
            assert_ne!(count, 0, "the switch closed the connection");
            if answers.take(&chunk[..count]) {
                return answers.listed;
            }
        }
    })
}

fn greet(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("the switch listens");
    let mut hello = Vec::new();
    encode(&Message::Hello(Hello::of(VERSION)), 0, &mut hello);
    (&stream).write_all(&hello).expect("the switch reads");
    stream
}

fn timed(what: &str, who: &str, case: Case, work: impl FnOnce() -> usize) {
    let start = Instant::now();
    let listed = work();
    let took = start.elapsed();
    let listed = if listed > 0 { format!(", {} MB", listed / 1_000_000) } else { String::new() };
    println!(
        "  {who:13} {what:7} {:9.0} rules/s ({:6.0} ms{listed})",
        f64::from(case.rules) / took.as_secs_f64(),
        took.as_secs_f64() * 1000.0
    );
}

fn compare(case: Case, rounds: u32) {
    let (plain, bundle) = (case.messages(false), case.messages(true));
    for round in 0..rounds {
        println!("round {}", round + 1);
        // The switches anew each time, so that what is left of one round is not counted in the next.
        let measure = |who: &str, socket: &Path, memory: &dyn Fn() -> u64, cpu: &dyn Fn() -> Duration| {
            let stream = greet(socket);
            exchange(&stream, &clear());
            let (memory_before, cpu_before) = (memory(), cpu());
            timed("plain", who, case, || exchange(&stream, &plain));
            let (bytes, used) = (memory() - memory_before, cpu() - cpu_before);
            println!(
                "  {who:13} memory  {:9.0} bytes/rule, {:.0} ns of processor time/rule",
                bytes as f64 / f64::from(case.rules),
                used.as_nanos() as f64 / f64::from(case.rules)
            );
            timed("list", who, case, || exchange(&stream, &list()));
            timed("clear", who, case, || exchange(&stream, &clear()));
            timed("bundle", who, case, || exchange(&stream, &bundle));
        };
        {
            let switch = Switch::start(&["--fail-mode", "secure"]);
            measure("vswitch", &switch.path("br0.mgmt"), &|| switch.memory(), &|| switch.cpu_time());
        }
        if let Some(peer) = OpenVSwitch::start("00000000000000ab", &["p1", "p2"]) {
            measure("Open vSwitch", &peer.socket(), &|| peer.memory(), &|| peer.cpu_time());
        }
    }
}

/// No workers.
struct Nobody;

impl Datapath for Nobody {
    fn publish(&mut self, tables: Tables) {
        drop(tables);
    }

    fn barrier(&mut self) {}

    fn settle(&mut self) {}

    fn inject(&mut self, _: PortNo, _: Vec<u8>, _: OfActions) {}
}

/// An agent with what drives it, and the other end of its only connection. All in one thread, which profilers like.
struct Here {
    agent: Agent,
    poller: Rc<Poller>,
    stream: UnixStream,
    start: Instant,
}

impl Here {
    fn new() -> Here {
        let poller = Rc::new(Poller::new().expect("an epoll descriptor"));
        let registrar = Registrar::new(poller.clone(), Kind::OpenFlowConnection);
        let (name, openflow) = ("br0".into(), OpenFlow::default());
        let settings = Settings { name, datapath_id: 1, fail_mode: FailMode::Secure, has_controllers: false, openflow };
        let mut agent = Agent::new(settings, Tables::new(Arc::new(MacTable::new(1000, 1000))), registrar, 0);
        let (stream, far) = UnixStream::pair().expect("a pair of sockets");
        [&stream, &far].iter().for_each(|socket| socket.set_nonblocking(true).expect("a socket"));
        let peer = Peer { origin: Origin::Listener, target: "unix:here".into(), address: "unix".into() };
        agent.connect(Stream::plain(far.into()), peer, 0).expect("a connection");
        let mut here = Here { agent, poller, stream, start: Instant::now() };
        let mut hello = Vec::new();
        encode(&Message::Hello(Hello::of(VERSION)), 0, &mut hello);
        encode(&Message::BarrierRequest, 0, &mut hello);
        here.exchange(&hello);
        here
    }

    fn turn(&mut self) {
        let mut events = Vec::new();
        self.poller.wait(&mut events, Some(Duration::ZERO)).expect("epoll waits");
        let now = self.start.elapsed().as_nanos() as u64;
        events.iter().for_each(|(token, _)| self.agent.ready(token.id, &mut Nobody, now));
        self.agent.finish(&mut Nobody, now);
    }

    fn exchange(&mut self, bytes: &[u8]) -> usize {
        let (mut answers, mut chunk, mut sent) = (Answers::default(), vec![0; 1 << 20], 0);
        loop {
            sent += (&self.stream).write(&bytes[sent..]).unwrap_or(0);
            self.turn();
            let count = (&self.stream).read(&mut chunk).unwrap_or(0);
            if answers.take(&chunk[..count]) {
                return answers.listed;
            }
        }
    }
}

fn here(case: Case, rounds: u32) {
    let (plain, bundle) = (case.messages(false), case.messages(true));
    let mut here = Here::new();
    for _ in 0..rounds {
        for (what, messages) in [("plain", &plain), ("list", &list()), ("clear", &clear()), ("bundle", &bundle), ("clear", &clear())] {
            timed(what, "here", case, || here.exchange(messages));
        }
    }
}

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let is_here = args.first().is_some_and(|arg| arg == "here");
    if is_here {
        args.remove(0);
    }
    let number = |i: usize, default: u32| args.get(i).map_or(default, |arg| arg.parse().expect("a number"));
    let connections = args.get(3).is_some_and(|shape| shape == "flows");
    let case = Case { rules: number(0, 1_000_000), tables: number(1, 10) as u8, connections };
    if is_here { here(case, number(2, 3)) } else { compare(case, number(2, 3)) }
}

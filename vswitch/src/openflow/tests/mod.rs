//! The agent with connections, over a datapath that only remembers what it was told.

mod bundles;
mod groups;
mod monitors;
mod ofctl;
mod openflow10;
mod peers;
mod pki;
mod slow_peers;
mod tls;

use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use datapath::Nanos;
use datapath::action::ToController;
use datapath::frame::Batch;
use datapath::port::{Output, PortNo, Share, Transmitted};
use datapath::tables::instruction::OfAction;
use datapath::tables::{Counters, FlowMod, MacTable, Port, PortConfig, PortCounters, RuleFilter, TABLE_COUNT, Tables, VlanMode};

use super::agent::{Agent, ConnectionId, Datapath, Origin, Peer, Settings};
use super::stream::Stream;
use crate::config::{FailMode, OpenFlow};
use crate::event::{Kind, Poller, Registrar, Token};

const SECOND: Nanos = 1_000_000_000;

/// What a datapath was told.
#[derive(Debug, PartialEq)]
enum Told {
    Publish { rules: usize },
    Barrier,
    Inject { in_port: PortNo, frame: Vec<u8>, actions: datapath::tables::instruction::OfActions },
}

/// A datapath without workers.
#[derive(Default)]
struct FakeDatapath {
    told: Vec<Told>,
    tables: Option<Tables>,
    /// What a worker would credit when it is asked to settle: to every rule of the published tables, so many frames.
    unsettled: u64,
}

impl FakeDatapath {
    fn credit(&mut self) {
        let frames = std::mem::take(&mut self.unsettled);
        let Some(tables) = self.tables.as_ref().filter(|_| frames > 0) else { return };
        for rule in tables.rules(&RuleFilter::ALL) {
            let counters: &Counters = &rule.counters;
            counters.credit(frames, 60 * frames, 0);
        }
    }
}

impl Datapath for FakeDatapath {
    fn publish(&mut self, tables: Tables) {
        self.credit();
        self.told.push(Told::Publish { rules: (0..TABLE_COUNT as u8).map(|table| tables.rule_count(table)).sum() });
        self.tables = Some(tables);
    }

    fn barrier(&mut self) {
        self.told.push(Told::Barrier);
    }

    fn settle(&mut self) {
        self.credit();
    }

    fn inject(&mut self, in_port: PortNo, frame: Vec<u8>, actions: datapath::tables::instruction::OfActions) {
        self.told.push(Told::Inject { in_port, frame, actions });
    }
}

struct Nowhere;

impl Output for Nowhere {
    fn transmit(&self, _: Share, _: &Batch, _: &[u16]) -> Transmitted {
        Transmitted::default()
    }
}

fn port(no: u32, name: &str) -> Port {
    Port {
        no: PortNo(no),
        name: name.into(),
        hw_addr: [0x02, 0, 0, 0, 0, no as u8],
        config: PortConfig::default(),
        link_up: true,
        speed: None,
        mtu: 1500,
        icmp_too_big: false,
        vlan: VlanMode::default(),
        output: Arc::new(Nowhere),
        counters: Arc::new(PortCounters::new(1)),
    }
}

/// An agent with two ports, and what drives it.
struct Bench {
    agent: Agent,
    datapath: FakeDatapath,
    poller: Rc<Poller>,
    now: Nanos,
}

fn settings(fail_mode: FailMode, has_controllers: bool) -> Settings {
    Settings { name: "br0".into(), datapath_id: 0xabc, fail_mode, has_controllers, openflow: OpenFlow::default() }
}

impl Bench {
    fn new(fail_mode: FailMode, has_controllers: bool) -> Self {
        Self::with(settings(fail_mode, has_controllers))
    }

    fn with(settings: Settings) -> Self {
        let poller = Rc::new(Poller::new().unwrap());
        let registrar = Registrar::new(poller.clone(), Kind::OpenFlowConnection);
        let tables = Tables::new(Arc::new(MacTable::new(1000, 1000)));
        let mut bench = Self { agent: Agent::new(settings, tables, registrar, 0), datapath: FakeDatapath::default(), poller, now: 0 };
        bench.agent.add_port(port(1, "vm1"), 0).unwrap();
        bench.agent.add_port(port(2, "vm2"), 0).unwrap();
        bench.agent.finish(&mut bench.datapath, 0);
        bench.datapath.told.clear();
        bench
    }

    /// Takes over a socket, as of a peer that came this way.
    fn connect(&mut self, socket: UnixStream, origin: Origin) -> Option<ConnectionId> {
        socket.set_nonblocking(true).unwrap();
        let peer = Peer { origin, target: "unix:test".into(), address: "unix".into() };
        self.agent.connect(Stream::plain(socket.into()), peer, self.now)
    }

    /// Gives a frame of this port's to the controllers.
    fn packet_in(&mut self, port: u32, to: &ToController, data: Vec<u8>) {
        let length = data.len();
        self.agent.packet_in(PortNo(port), to, data, length, self.now);
    }

    /// A turn of an event loop. Returns whether something was ready.
    fn turn_once(&mut self) -> bool {
        let mut events = Vec::new();
        self.poller.wait(&mut events, Some(std::time::Duration::ZERO)).unwrap();
        for (Token { id, .. }, _) in &events {
            self.agent.ready(*id, &mut self.datapath, self.now);
        }
        self.agent.finish(&mut self.datapath, self.now);
        !events.is_empty()
    }

    /// Turns until nothing is ready, and what is due is done.
    fn turn(&mut self) {
        loop {
            while self.turn_once() {}
            match self.agent.due() {
                Some(due) => self.now = self.now.max(due),
                None => return,
            }
        }
    }

    fn tick(&mut self) {
        self.agent.tick(&mut self.datapath, self.now);
        self.turn();
    }

    /// Takes a rule that a worker learned.
    fn learn(&mut self, rule: &FlowMod) {
        self.agent.learn(rule, self.now);
        self.turn();
    }

    fn rules(&self) -> usize {
        self.agent.tables().rules(&RuleFilter::ALL).count()
    }
}

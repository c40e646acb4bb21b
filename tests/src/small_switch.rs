//! A switch without threads and sockets: one worker, ports without anything behind them, and the tables that the test changes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datapath::Nanos;
use datapath::action::{Controllers, ToController};
use datapath::cache::CacheLimits;
use datapath::drops::DropReason;
use datapath::frame::Batch;
use datapath::port::{DummyPort, PortNo, Share};
use datapath::tables::{FlowMod, MacTable, Port, PortConfig, PortCounters, Tables, VlanMode};
use datapath::worker::{Published, Worker, WorkerSettings};

/// See the module.
#[derive(Debug)]
pub struct SmallSwitch {
    /// What control changes, and [publishes](Self::publish).
    pub tables: Tables,
    /// Its only worker.
    pub worker: Worker,
    published: Arc<Published>,
    ports: Vec<DummyPort>,
    given: Arc<Given>,
}

/// What a worker gave away.
#[derive(Debug, Default)]
struct Given {
    frames: AtomicUsize,
    rules: Mutex<Vec<Arc<FlowMod>>>,
}

/// Takes all.
struct Taker(Arc<Given>);

impl Controllers for Taker {
    fn give(&mut self, _: &Batch, _: u16, _: &ToController) -> Result<(), DropReason> {
        self.0.frames.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn learn(&mut self, _: PortNo, rule: &Arc<FlowMod>) {
        self.0.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule.clone());
    }
}

impl SmallSwitch {
    /// A switch with ports 1 to `ports`, trunks of all VLANs unless `vlan_of` says otherwise.
    ///
    /// # Panics
    ///
    /// Panics if there are more ports than numbers.
    pub fn new(ports: u32, limits: CacheLimits, vlan_of: impl Fn(u32) -> VlanMode) -> Self {
        let mut tables = Tables::new(Arc::new(MacTable::new(1024, 1024)));
        let dummies: Vec<_> = (1..=ports).map(|number| DummyPort::new(PortNo(number))).collect();
        for (dummy, number) in dummies.iter().zip(1..) {
            let port = Port {
                no: PortNo(number),
                name: format!("vm{number}"),
                hw_addr: [2, 0, 0, 0, 0xff, number as u8],
                config: PortConfig::default(),
                link_up: true,
                speed: None,
                mtu: 1500,
                icmp_too_big: false,
                vlan: vlan_of(number),
                output: Arc::new(dummy.clone()),
                counters: Arc::new(PortCounters::new(1)),
            };
            tables.add_port(port).expect("the port is new");
        }
        let published = Arc::new(Published::new(tables.clone()));
        let given = Arc::<Given>::default();
        let settings = WorkerSettings { share: Share::WHOLE, seed: 0x5eed, limits };
        let mut worker = Worker::new(settings, published.clone(), Box::new(Taker(given.clone())));
        for (dummy, number) in dummies.iter().zip(1..) {
            worker.add_input(PortNo(number), Box::new(dummy.clone()));
        }
        Self { tables, worker, published, ports: dummies, given }
    }

    /// Has the worker go by the tables as they are now.
    pub fn publish(&mut self) {
        self.published.publish(self.tables.clone());
        self.worker.take_up();
    }

    /// A port, by its number.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn port(&self, number: u32) -> &DummyPort {
        &self.ports[number as usize - 1]
    }

    /// Lets `frames` come in through `port`, and returns what came out of each port.
    pub fn forward(&mut self, port: u32, frames: &[Vec<u8>], now: Nanos) -> Vec<Vec<Vec<u8>>> {
        frames.iter().for_each(|frame| self.port(port).offer(frame));
        while self.worker.breathe(now) > 0 || self.worker.arm() {}
        self.ports.iter().map(DummyPort::take).collect()
    }

    /// How many frames were given to controllers since this was asked last.
    pub fn take_given(&self) -> usize {
        self.given.frames.swap(0, Ordering::Relaxed)
    }

    /// Adds the rules that were learned, as far as the tables take them. Whether there were any.
    pub fn learn(&mut self, now: Nanos) -> bool {
        let rules = std::mem::take(&mut *self.given.rules.lock().unwrap_or_else(PoisonError::into_inner));
        for rule in &rules {
            // The tables may refuse what a frame made of it, as they may refuse a controller.
            let _ = self.tables.flow_mod(rule, now);
        }
        if !rules.is_empty() {
            self.publish();
        }
        !rules.is_empty()
    }
}

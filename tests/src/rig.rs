//! A switch in the test's own hands: its tables, its vhost-user ports with their control loop, and a fake guest behind each. Whoever tests makes the
//! workers and drives them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use datapath::action::Controllers;
use datapath::cache::CacheLimits;
use datapath::port::{PortNo, RxQueue, Share};
use datapath::tables::{MacTable, Port, PortConfig, PortCounters, PortTotals, Tables, VlanMode};
use datapath::worker::{Published, Worker, WorkerSettings};

use crate::frontend::{Connection, Guest, Options};
use crate::ports::Ports;

/// See the module. Port 1 and `guests[0]` belong together, and so on.
pub struct Rig {
    /// The guests.
    pub guests: Vec<Guest>,
    /// The ports. They end after the guests.
    pub ports: Ports,
    /// The tables as they are edited.
    pub draft: Tables,
    /// The tables as the workers see them.
    pub published: Arc<Published>,
    workers: usize,
}

impl Rig {
    /// Guests with these options behind ports that carry VLANs as `vlan` says, counted for `workers` workers. Every guest is connected and ready.
    pub fn new(options: &[Options], workers: usize, vlan: impl Fn(u32) -> VlanMode) -> Self {
        let ports = Ports::new("".as_ref(), options.len(), false, |settings| {
            settings.queue_pairs = options[settings.number.0 as usize - 1].queue_pairs as u16;
        });
        let mut draft = Tables::new(Arc::new(MacTable::new(1024, 1024)));
        for number in 1..=options.len() as u32 {
            let port = Port {
                no: PortNo(number),
                name: format!("vm{number}"),
                hw_addr: [2, 0, 0, 0, 0xff, number as u8],
                config: PortConfig::default(),
                link_up: true,
                speed: None,
                mtu: 1500,
                icmp_too_big: false,
                vlan: vlan(number),
                output: ports.output(number as usize - 1),
                counters: Arc::new(PortCounters::new(workers)),
            };
            draft.add_port(port).expect("the port is new");
        }
        let published = Arc::new(Published::new(draft.clone()));
        let guests = options.iter().map(|options| Guest::new(*options)).collect();
        let mut rig = Self { guests, ports, draft, published, workers };
        (0..options.len()).for_each(|guest| rig.connect(guest));
        rig
    }

    /// Connects a guest.
    pub fn connect(&mut self, guest: usize) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        assert!(self.ports.attach(guest, theirs), "guest {guest} is connected already");
        let it = &mut self.guests[guest];
        it.attach(Connection::new(ours).expect("a connection")).expect("negotiation");
        it.start().expect("a start");
    }

    /// Ends a guest's connection, and waits until the back end has forgotten it.
    pub fn disconnect(&mut self, guest: usize) {
        let tale = self.ports.tale(guest);
        let closed = tale.told().closed;
        self.guests[guest].disconnect();
        tale.wait(|told| told.closed > closed);
    }

    /// A worker on the published tables, without inputs.
    pub fn worker(&self, number: usize, limits: CacheLimits, controllers: Box<dyn Controllers + Send>) -> Worker {
        Worker::new(
            WorkerSettings { share: Share { worker: number, workers: self.workers }, seed: 0x5eed, limits },
            self.published.clone(),
            controllers,
        )
    }

    /// The receive queues of all ports, each with its port's number. To be asked for once.
    pub fn queues(&self) -> Vec<(PortNo, Box<dyn RxQueue>)> {
        let of_port = |port| self.ports.rx_queues(port).into_iter().map(move |queue| (PortNo(port as u32 + 1), queue));
        (0..self.guests.len()).flat_map(of_port).collect()
    }

    /// Publishes the draft.
    pub fn publish(&self) {
        self.published.publish(self.draft.clone());
    }

    /// What a port has counted.
    pub fn totals(&self, port: PortNo) -> PortTotals {
        self.draft.ports().get(port).expect("the port was not removed").counters.totals()
    }
}

//! An agent in this process, without workers, and the other end of its only connection. All in one thread, which profilers like.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::port::PortNo;
use datapath::tables::instruction::OfActions;
use datapath::tables::{MacTable, Tables};
use vswitch::config::{FailMode, OpenFlow};
use vswitch::event::{Kind, Poller, Registrar};
use vswitch::openflow::agent::{Agent, Datapath, Origin, Peer, Settings};
use vswitch::openflow::stream::Stream;
use vswitch::openflow::wire::{Message, encode};

use crate::exchange::{Answers, hello};

/// No workers, but somebody who keeps what was published last, as they do.
#[derive(Default)]
struct Nobody {
    published: Option<Tables>,
}

impl Datapath for Nobody {
    fn publish(&mut self, tables: Tables) {
        self.published = Some(tables);
    }

    fn barrier(&mut self) {}

    fn settle(&mut self) {}

    fn inject(&mut self, _: PortNo, _: Vec<u8>, _: OfActions) {}
}

/// See the module.
pub struct Here {
    agent: Agent,
    datapath: Nobody,
    poller: Rc<Poller>,
    stream: UnixStream,
    start: Instant,
}

impl Here {
    pub fn new() -> Here {
        let poller = Rc::new(Poller::new().expect("an epoll descriptor"));
        let registrar = Registrar::new(poller.clone(), Kind::OpenFlowConnection);
        let (name, openflow) = ("br0".into(), OpenFlow::default());
        let settings = Settings { name, datapath_id: 1, fail_mode: FailMode::Secure, has_controllers: false, openflow };
        let mut agent = Agent::new(settings, Tables::new(Arc::new(MacTable::new(1000, 1000))), registrar, 0);
        let (stream, far) = UnixStream::pair().expect("a pair of sockets");
        [&stream, &far].iter().for_each(|socket| socket.set_nonblocking(true).expect("a socket"));
        let peer = Peer { origin: Origin::Listener, target: "unix:here".into(), address: "unix".into() };
        agent.connect(Stream::plain(far.into()), peer, 0).expect("a connection");
        let mut here = Here { agent, datapath: Nobody::default(), poller, stream, start: Instant::now() };
        let mut messages = hello();
        encode(&Message::BarrierRequest, 0, &mut messages);
        here.exchange(&messages);
        here
    }

    fn turn(&mut self) {
        let mut events = Vec::new();
        self.poller.wait(&mut events, Some(Duration::ZERO)).expect("epoll waits");
        let now = self.start.elapsed().as_nanos() as u64;
        events.iter().for_each(|(token, _)| self.agent.ready(token.id, &mut self.datapath, now));
        self.agent.finish(&mut self.datapath, now);
    }

    /// As [`crate::exchange::exchange`].
    pub fn exchange(&mut self, bytes: &[u8]) -> usize {
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

//! Any bytes as what a controller sends.
//!
//! The first byte says which version is spoken and how much a read brings; the rest are messages, one behind the other, whatever they say of their length. They
//! are read twice:
//!
//! - by the codec, message by message. What is read can be written, and what was written is read as the same, and written as the same again;
//! - by an agent with two ports, over a socket, from the hello on: the handshake, multipart requests in parts, bundles, flow monitors and whatever
//!   the messages ask for. It must come to an end, and answer with whole messages.
//!
//! A panic, a message that is not the same, more than ten seconds or too much memory is a finding.

#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use datapath::frame::Batch;
use datapath::port::{Output, PortNo, Share, Transmitted};
use datapath::tables::instruction::OfActions;
use datapath::tables::{MacTable, Port, PortConfig, PortCounters, Tables, VlanMode};
use libfuzzer_sys::fuzz_target;
use vswitch::config::{FailMode, OpenFlow};
use vswitch::event::{Kind, Poller, Registrar, Token};
use vswitch::openflow::agent::{Agent, Datapath, Origin, Peer, Settings};
use vswitch::openflow::stream::Stream;
use vswitch::openflow::wire::{Dialect, HEADER, Header, Message};

fuzz_target!(|input: &[u8]| {
    let Some((how, stream)) = input.split_first() else { return };
    let version = if how & 1 == 0 { 4 } else { 1 };
    codec(version, stream);
    agent(version, usize::from(how >> 1) + 1, stream);
});

/// The messages of a stream, as far as they are whole.
fn messages(mut stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(Header::decode(stream)?.length).max(HEADER);
        let (message, rest) = stream.split_at_checked(length)?;
        stream = rest;
        Some(message)
    })
}

fn codec(version: u8, stream: &[u8]) {
    let mut dialect = Dialect::new(version);
    for bytes in messages(stream) {
        // A hello says its version in its header.
        let Ok(message) = dialect.decode(bytes) else { continue };
        if !matches!(message, Message::Hello(_)) {
            comes_back(dialect, &message);
        }
    }
}

fn comes_back(dialect: Dialect, message: &Message) {
    let encode = |message: &Message| {
        let mut out = Vec::new();
        // What is bundled has the xid of the message around it.
        let xid = match message {
            Message::BundleAdd(add) => Header::decode(&add.message).map_or(0, |header| header.xid),
            _ => 7,
        };
        dialect.encode(message, xid, &mut out);
        out
    };
    let bytes = encode(message);
    for part in messages(&bytes) {
        let again = { dialect }.decode(part).unwrap_or_else(|error| panic!("{error}: {message:?}"));
        if part.len() == bytes.len() {
            // OpenFlow 1.0 has several words for some things, and features of tables that are unknown are not told. Else, what is read is what was meant.
            let meant = format!("{message:?}");
            if dialect.version == 4 && !meant.contains("Unknown") {
                assert_eq!(format!("{again:?}"), meant);
            }
            assert_eq!(encode(&again), bytes, "{again:?} of {message:?}");
        }
    }
}

/// A datapath that does nothing.
struct Idle;

impl Datapath for Idle {
    fn publish(&mut self, _: Tables) {}
    fn barrier(&mut self) {}
    fn settle(&mut self) {}
    fn inject(&mut self, _: PortNo, _: Vec<u8>, _: OfActions) {}
}

impl Output for Idle {
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
        output: Arc::new(Idle),
        counters: Arc::new(PortCounters::new(1)),
    }
}

fn agent(version: u8, chunk: usize, stream: &[u8]) {
    let poller = Rc::new(Poller::new().expect("a poller"));
    let registrar = Registrar::new(poller.clone(), Kind::OpenFlowConnection);
    let fail_mode = FailMode::Secure;
    let settings = Settings { name: "br0".into(), datapath_id: 1, fail_mode, has_controllers: true, openflow: OpenFlow::default() };
    let mut agent = Agent::new(settings, Tables::new(Arc::new(MacTable::new(10, 10))), registrar, 0);
    for (no, name) in [(1, "vm1"), (2, "vm2")] {
        agent.add_port(port(no, name), 0).expect("a port");
    }
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    [&ours, &theirs].into_iter().for_each(|socket| socket.set_nonblocking(true).expect("a socket"));
    let peer = Peer { origin: Origin::Controller, target: "unix:fuzz".into(), address: "unix".into() };
    agent.connect(Stream::plain(ours.into()), peer, 0).expect("a connection");

    let (mut now, mut answers, mut is_over) = (0, Vec::new(), false);
    let mut turn = |agent: &mut Agent, theirs: &mut UnixStream, now| {
        let mut events = Vec::new();
        poller.wait(&mut events, Some(Duration::ZERO)).expect("to wait");
        for (Token { id, .. }, _) in &events {
            agent.ready(*id, &mut Idle, now);
        }
        agent.finish(&mut Idle, now);
        let mut buffer = [0; 64 << 10];
        loop {
            match theirs.read(&mut buffer) {
                Ok(length) if length > 0 => answers.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break !events.is_empty(),
                _ => {
                    is_over = true;
                    break false;
                }
            }
        }
    };
    let hello = [version, 0, 0, 8, 0, 0, 0, 1];
    for part in [&hello[..]].into_iter().chain(stream.chunks(chunk << 6)) {
        let mut rest = part;
        while !rest.is_empty() {
            match theirs.write(rest) {
                Ok(length) => rest = &rest[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The agent has hung up.
                Err(_) => return,
            }
            turn(&mut agent, &mut theirs, now);
        }
    }
    loop {
        while turn(&mut agent, &mut theirs, now) {}
        match agent.due() {
            Some(due) => now = now.max(due),
            None => break,
        }
    }
    let answered: usize = messages(&answers).map(|message| message.len()).sum();
    // Who can't be understood is cut off, with what it has not read.
    assert!(is_over || answered == answers.len(), "half a message was sent");
    assert!(messages(&answers).all(|message| usize::from(Header::decode(message).expect("a header").length) == message.len()));
}

//! A connection to a switch's OpenFlow socket, message by message, with the switch's own codec.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use vswitch::openflow::wire::{self, Header, Hello, Message, VERSION};

/// A controller's end of a connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    xid: u32,
}

impl Client {
    /// Connects, and exchanges hellos.
    ///
    /// # Panics
    ///
    /// Panics if nobody listens, or who does speaks no OpenFlow 1.3.
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_nonblocking(true).expect("a socket need not block");
        let mut client = Self { stream, received: Vec::new(), xid: 0 };
        client.send(&[Message::Hello(Hello::of(VERSION))]);
        client.wait_for(|message, _| matches!(message, Message::Hello(hello) if hello.negotiate(Hello::of(VERSION)).is_some()));
        client
    }

    /// Sends messages in one go. Returns the transaction id of the last.
    ///
    /// # Panics
    ///
    /// Panics if the connection is lost.
    pub fn send(&mut self, messages: &[Message]) -> u32 {
        let mut bytes = Vec::new();
        for message in messages {
            self.xid += 1;
            wire::encode(message, self.xid, &mut bytes);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("the OpenFlow connection is lost: {error}"),
            }
        }
        self.xid
    }

    /// Sends messages with a barrier behind them, and returns the moment its reply has come. It waits awake.
    ///
    /// # Panics
    ///
    /// Panics if one of them is refused, or the connection is lost.
    pub fn carry_out(&mut self, messages: Vec<Message>) {
        let barrier = self.send(&[messages, vec![Message::BarrierRequest]].concat());
        self.wait_for(|message, xid| matches!(message, Message::BarrierReply) && xid == barrier);
    }

    /// Sends messages with a barrier behind them, and returns which of them were refused, by their places, with the error's type and code.
    ///
    /// # Panics
    ///
    /// Panics if the connection is lost.
    pub fn try_carry_out(&mut self, messages: &[Message]) -> Vec<(usize, (u16, u16))> {
        let first = self.xid + 1;
        self.send(messages);
        let barrier = self.send(&[Message::BarrierRequest]);
        let mut refused = Vec::new();
        loop {
            let (message, xid) = self.receive();
            match message {
                Message::BarrierReply if xid == barrier => return refused,
                Message::EchoRequest(data) => drop(self.send(&[Message::EchoReply(data)])),
                Message::Error(error) => refused.push((xid.wrapping_sub(first) as usize, (error.kind, error.code))),
                _ => {}
            }
        }
    }

    /// Waits for a message, answers echo requests, and passes over others.
    fn wait_for(&mut self, is_it: impl Fn(&Message, u32) -> bool) {
        loop {
            let (message, xid) = self.receive();
            match message {
                message if is_it(&message, xid) => return,
                Message::EchoRequest(data) => drop(self.send(&[Message::EchoReply(data)])),
                Message::Error(error) => panic!("the switch refused message {xid}: type {}, code {}", error.kind, error.code),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> (Message, u32) {
        loop {
            if let Some(header) = Header::decode(&self.received)
                && self.received.len() >= usize::from(header.length)
            {
                let message: Vec<u8> = self.received.drain(..usize::from(header.length)).collect();
                let decoded = wire::decode(&message).unwrap_or_else(|error| panic!("the switch sent {message:02x?}: {error}"));
                return (decoded, header.xid);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the switch closed the OpenFlow connection"),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("the OpenFlow connection is lost: {error}"),
            }
        }
    }
}

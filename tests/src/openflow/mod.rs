//! A controller that is played, message by message: with plain bytes, which may be wrong, or with the switch's own codec ([`Client`]).

mod client;

pub use client::Client;

use std::io::{Read, Write};

#[allow(missing_docs, reason = "the names are the standard's, without OFPT_")]
mod kinds {
    pub const HELLO: u8 = 0;
    pub const ECHO_REQUEST: u8 = 2;
    pub const FEATURES_REQUEST: u8 = 5;
    pub const FEATURES_REPLY: u8 = 6;
    pub const PACKET_IN: u8 = 10;
    pub const FLOW_REMOVED: u8 = 11;
    pub const PORT_STATUS: u8 = 12;
    pub const PACKET_OUT: u8 = 13;
    pub const FLOW_MOD: u8 = 14;
    pub const BARRIER_REQUEST: u8 = 20;
    pub const ROLE_REQUEST: u8 = 24;
}

pub use kinds::*;

/// A controller's end of a connection, as simple as can be.
#[derive(Debug)]
pub struct Controller<S>(pub S);

/// The bytes of an OpenFlow 1.3 message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (8 + body.len() as u16).to_be_bytes();
    [&[4, kind, length[0], length[1], 0, 0, 0, 9], body].concat()
}

impl<S: Read + Write> Controller<S> {
    /// Says hello and hears it.
    ///
    /// # Panics
    ///
    /// Panics, as all of this does, if the switch closes the connection.
    pub fn greet(stream: S) -> Self {
        let mut controller = Self(stream);
        controller.send(HELLO, &[]);
        assert_eq!(controller.receive().expect("hello").0, HELLO);
        controller
    }

    /// Sends a message.
    pub fn send(&mut self, kind: u8, body: &[u8]) {
        self.0.write_all(&message(kind, body)).expect("the switch reads");
    }

    /// The type and body of the next message; `None` at the end of the connection.
    pub fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 8];
        self.0.read_exact(&mut header).ok()?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
        self.0.read_exact(&mut body).ok()?;
        Some((header[1], body))
    }

    /// The body of the next message of this type.
    pub fn wait_for(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (received, body) = self.receive().expect("the connection is there");
            match received {
                _ if received == kind => return body,
                ECHO_REQUEST => self.send(ECHO_REQUEST + 1, &body),
                _ => {}
            }
        }
    }
}

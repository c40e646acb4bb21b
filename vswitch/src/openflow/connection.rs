//! A connection's bytes: OpenFlow messages in, OpenFlow messages out, over any stream, without ever blocking.
//!
//! Both buffers are bounded. Input is read only as far as it can be worked off: one read's worth beyond a message under way. Output that the peer
//! does not take piles up to [`CONGESTED`] bytes; then no further request is read from that peer and no packet-in is queued for it (the owner
//! counts the drop), until it has taken enough. So a peer that is slow, or wants to be, delays itself only. Messages that must not be lost
//! (flow-removed, port-status) may still be queued, up to [`LIMIT`]; a peer so far behind is disconnected.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::stream::{READ_MAX, Stream};
use super::wire::{Dialect, HEADER, Header, Message, VERSION};

/// With this much output that the peer has not taken, it gets nothing more that it did not have to get.
const CONGESTED: usize = 256 << 10;
/// With this much it is disconnected.
const LIMIT: usize = 16 << 20;

/// Why a connection is at its end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The peer closed it.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket failed.
    #[error("{0}")]
    Failed(#[from] Errno),
    /// TLS failed, before the handshake was over or after.
    #[error("TLS: {0}")]
    Tls(String),
    /// The peer does not take what is sent.
    #[error("the peer is {} MiB behind with reading", LIMIT >> 20)]
    Behind,
}

/// A stream with its buffers.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    input: Vec<u8>,
    /// The bytes at the start of `input` that were worked off.
    done: usize,
    output: Vec<u8>,
    /// The bytes at the start of `output` that the stream has taken.
    sent: usize,
    /// How messages are written.
    pub dialect: Dialect,
    /// Messages that came.
    pub messages_in: u64,
    /// Messages that were queued to be sent.
    pub messages_out: u64,
}

impl Connection {
    /// Over this stream.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            done: 0,
            output: Vec::new(),
            sent: 0,
            dialect: Dialect::new(VERSION),
            messages_in: 0,
            messages_out: 0,
        }
    }

    /// Reads what has come, so much at most that the buffer stays within bounds. Returns whether there was anything.
    pub fn read(&mut self) -> Result<bool, Ended> {
        self.input.drain(..self.done);
        self.done = 0;
        if self.input.len() >= READ_MAX {
            return Ok(false);
        }
        self.input.reserve_exact(READ_MAX + usize::from(u16::MAX) - self.input.len());
        self.stream.read(&mut self.input)
    }

    /// Whether there is a message to be worked off.
    pub fn has_message(&self) -> bool {
        self.message_length().is_some()
    }

    /// The length of the next message, once all of it is there.
    fn message_length(&self) -> Option<usize> {
        let rest = &self.input[self.done..];
        let length = usize::from(Header::decode(rest)?.length).max(HEADER);
        (length <= rest.len()).then_some(length)
    }

    /// The next whole message, or, if its header gives a length that no message has, what there is of it: then nothing after it can be understood.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let length = self.message_length()?;
        let message = self.input[self.done..self.done + length].to_vec();
        self.done += length;
        self.messages_in += 1;
        Some(message)
    }

    /// Queues a message.
    pub fn queue(&mut self, message: &Message, xid: u32) {
        let mut at = self.output.len();
        self.dialect.encode(message, xid, &mut self.output);
        // A long multipart reply is several.
        while let Some(header) = Header::decode(&self.output[at..]) {
            self.messages_out += 1;
            at += usize::from(header.length).max(HEADER);
        }
    }

    /// Whether the TLS handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        self.stream.is_handshaking()
    }

    /// Whether the peer is behind with reading, so that it must not cause more output.
    pub fn is_congested(&self) -> bool {
        self.output.len() - self.sent >= CONGESTED
    }

    /// Whether so much output piled up that the peer is to be disconnected, unless the socket takes some now.
    pub fn is_behind(&self) -> bool {
        self.output.len() - self.sent > LIMIT
    }

    /// Whether there is output that the socket has not taken.
    pub fn has_output(&self) -> bool {
        self.output.len() > self.sent || self.stream.has_output()
    }

    /// Sends as much as the stream takes. Returns whether that was anything.
    pub fn write(&mut self) -> Result<bool, Ended> {
        let taken = self.stream.write(&self.output[self.sent..])?;
        self.sent += taken;
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(CONGESTED);
            self.sent = 0;
        } else if self.sent >= CONGESTED {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        if self.is_behind() { Err(Ended::Behind) } else { Ok(taken > 0) }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Connection, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        (Connection::new(Stream::plain(near.into())), far)
    }

    #[test]
    fn messages_are_found_in_any_pieces() {
        let (mut connection, mut peer) = pair();
        let mut stream = Vec::new();
        crate::openflow::wire::encode(&Message::EchoRequest(vec![7; 300]), 1, &mut stream);
        crate::openflow::wire::encode(&Message::BarrierRequest, 2, &mut stream);
        for piece in stream.chunks(7) {
            peer.write_all(piece).unwrap();
            connection.read().unwrap();
            if piece.as_ptr_range().end < stream.as_ptr_range().end {
                assert!(connection.next_message().is_none_or(|message| message.len() == 308));
            }
        }
        assert_eq!(connection.next_message().unwrap(), stream[308..]);
        assert_eq!(connection.next_message(), None);
        assert_eq!(connection.read(), Ok(false));
        drop(peer);
        assert_eq!(connection.read(), Err(Ended::Closed));
    }

    #[test]
    fn a_length_that_can_not_be_is_handed_out_as_it_came() {
        let (mut connection, mut peer) = pair();
        peer.write_all(&[4, 2, 0, 7, 0, 0, 0, 1]).unwrap();
        connection.read().unwrap();
        assert_eq!(connection.next_message().unwrap(), [4, 2, 0, 7, 0, 0, 0, 1]);
    }

    #[test]
    fn a_peer_that_sends_without_end_fills_a_bounded_buffer() {
        let (mut connection, mut peer) = pair();
        peer.set_nonblocking(true).unwrap();
        // The largest message, never finished, and more.
        let _ = peer.write(&[4, 2, 0xff, 0xff, 0, 0, 0, 1]);
        for _ in 0..100 {
            while peer.write(&[0; 4096]).is_ok() {}
            connection.read().unwrap();
        }
        assert!(connection.input.capacity() <= READ_MAX + usize::from(u16::MAX));
        assert_eq!(connection.next_message().unwrap().len(), 0xffff);
    }

    #[test]
    fn a_peer_that_does_not_read_is_noticed_and_in_the_end_cut_off() {
        let (mut connection, mut peer) = pair();
        let message = Message::EchoReply(vec![0; 60_000]);
        while !connection.is_congested() {
            connection.queue(&message, 0);
            connection.write().unwrap();
        }
        assert!(connection.has_output());
        // It reads after all.
        peer.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 20];
        while connection.has_output() {
            let _ = peer.read(&mut buffer);
            connection.write().unwrap();
        }
        assert!(!connection.is_congested());
        let cut = (0..1000).find_map(|_| {
            connection.queue(&message, 0);
            connection.write().err()
        });
        assert_eq!(cut, Some(Ended::Behind));
    }
}

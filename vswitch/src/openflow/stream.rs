//! A stream of bytes to a peer: a socket, or TLS over one. Neither ever blocks.
//!
//! What TLS keeps is bounded: of what came, one record that is not whole yet, or one message of a handshake (64 KiB); of what is to be sent,
//! [`SENDABLE_MAX`] bytes. All else stays with the caller.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::connection::Ended;
use super::tls;

/// The most bytes that are encrypted before the socket has taken them.
const SENDABLE_MAX: usize = 64 << 10;
/// Encrypted bytes read at once; a record is a little longer than that at most.
const RECORD: usize = 16 << 10;
/// The most bytes that a read brings.
pub const READ_MAX: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub enum Stream {
    /// A socket.
    Plain(Socket),
    /// TLS over a socket.
    Tls(Box<TlsStream>),
}

/// A connected stream socket that does not block.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// A TLS connection and its socket.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    tls: rustls::Connection,
}

impl Stream {
    /// Over a connected socket that does not block.
    pub fn plain(socket: OwnedFd) -> Self {
        Self::Plain(Socket(socket))
    }

    /// TLS, whose handshake is still to come, over a connected socket that does not block.
    pub(super) fn tls(socket: OwnedFd, mut tls: rustls::Connection) -> Self {
        tls.set_buffer_limit(Some(SENDABLE_MAX));
        Self::Tls(Box::new(TlsStream { socket: Socket(socket), tls }))
    }

    /// Whether the TLS handshake is still under way.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.tls.is_handshaking())
    }

    /// Appends what has come to `input`, which has room for [`READ_MAX`] bytes. Returns whether anything came, be it only for TLS.
    pub fn read(&mut self, input: &mut Vec<u8>) -> Result<bool, Ended> {
        match self {
            Self::Plain(socket) => match rustix::io::read(&socket.0, rustix::buffer::spare_capacity(input)) {
                Ok(0) => Err(Ended::Closed),
                Ok(_) => Ok(true),
                Err(Errno::AGAIN | Errno::INTR) => Ok(false),
                Err(error) => Err(error.into()),
            },
            Self::Tls(stream) => stream.read(input),
        }
    }

    /// Takes as much of `output` as there is room for; returns how much.
    pub fn write(&mut self, output: &[u8]) -> Result<usize, Ended> {
        match self {
            Self::Plain(socket) => socket.send(output),
            Self::Tls(stream) => stream.write(output),
        }
    }

    /// Whether it took bytes that the socket has not taken yet.
    pub fn has_output(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.tls.wants_write())
    }
}

impl Socket {
    /// Sends what the socket takes, if only nothing.
    fn send(&self, mut bytes: &[u8]) -> Result<usize, Ended> {
        let all = bytes.len();
        while !bytes.is_empty() {
            match rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all - bytes.len())
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsStream {
    fn read(&mut self, input: &mut Vec<u8>) -> Result<bool, Ended> {
        let mut encrypted = [0; RECORD];
        let count = match rustix::io::read(&self.socket.0, &mut encrypted) {
            Ok(0) if self.tls.is_handshaking() => return Err(Ended::Tls("the peer closed the connection".to_owned())),
            Ok(0) => return Err(Ended::Closed),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &encrypted[..count];
        while !rest.is_empty() {
            // It takes a piece at a time, and nothing after the peer's good-bye.
            if self.tls.read_tls(&mut rest).map_err(|error| Ended::Tls(error.to_string()))? == 0 {
                return Err(Ended::Closed);
            }
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The peer is told why, if there is room for it.
                    let _ = self.flush();
                    return Err(Ended::Tls(tls::explain(&error)));
                }
            };
            let start = input.len();
            input.resize(start + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut input[start..]).map_err(|error| Ended::Tls(error.to_string()))?;
        }
        Ok(true)
    }

    fn write(&mut self, output: &[u8]) -> Result<usize, Ended> {
        let mut taken = 0;
        loop {
            let more = self.tls.writer().write(&output[taken..]).map_err(|error| Ended::Tls(error.to_string()))?;
            taken += more;
            if !self.flush()? || more == 0 {
                return Ok(taken);
            }
        }
    }

    /// Sends what was encrypted. Returns whether the socket took all of it.
    fn flush(&mut self) -> Result<bool, Ended> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut &self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO).into()),
            }
        }
        Ok(true)
    }
}

impl Drop for TlsStream {
    /// Says good-bye, if there is room for it.
    fn drop(&mut self) {
        self.tls.send_close_notify();
        let _ = self.flush();
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.0.as_fd(),
            Self::Tls(stream) => stream.socket.0.as_fd(),
        }
    }
}

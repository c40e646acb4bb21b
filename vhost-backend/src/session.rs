//! One connection of a front end.
//!
//! The messages are taken apart and answered by the `vhost` crate's [`BackendReqHandler`], with the device behind it. Three things stand
//! between it and a socket that a hostile peer writes to:
//!
//! - It reads from a blocking socket. So it is called only once a whole message, header and payload, lies in the socket's buffer, which is
//!   found out without taking a byte away. A partial message waits there, at no cost but its own.
//! - It writes replies to the same blocking socket. So it is called only while there is room for a reply. Front ends wait for their replies;
//!   one that leaves them unread until the buffer is full is not one, and is disconnected.
//! - It refuses a few messages that QEMU sends, or refuses them too early: SET_VRING_ENABLE comes long before the first SET_FEATURES;
//!   SEND_RARP, NET_SET_MTU, SET_STATUS and GET_STATUS it does not know. These are answered here.
//!
//! A protocol error ends the connection, and nothing else: the port takes the next one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use tracing::trace;
use vhost::vhost_user::message::{FrontendReq, MAX_MSG_SIZE};
use vhost::vhost_user::{BackendReqHandler, Error as VhostError, VhostUserBackendReqHandlerMut};

use crate::device::Device;

/// The most messages that are handled before others get their turn.
const BUDGET: usize = 32;
const HEADER: usize = 12;
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// A front end's connection, until it is dropped.
pub struct Session {
    /// The same socket as the handler's.
    stream: UnixStream,
    handler: BackendReqHandler<Mutex<Device>>,
    device: Arc<Mutex<Device>>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("the front end disconnected")]
    Disconnected,
    #[error("reading from the front end failed: {0}")]
    Io(#[from] io::Error),
    #[error("the front end sent what is not a vhost-user message (request {request}, flags {flags:#x}, {size} bytes of payload)")]
    NotAMessage { request: u32, flags: u32, size: u32 },
    #[error("the front end does not read the replies to its messages")]
    RepliesUnread,
    #[error("the front end's {request:?} can't be carried out: {source}")]
    Refused { request: FrontendReq, source: VhostError },
}

/// A message's header, checked.
#[derive(Clone, Copy)]
struct Header {
    request: FrontendReq,
    flags: u32,
    size: usize,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Self, SessionError> {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (request, flags, size) = (word(0), word(4), word(8));
        match FrontendReq::try_from(request) {
            Ok(request) if flags & !NEED_REPLY == VERSION && size as usize <= MAX_MSG_SIZE => {
                Ok(Self { request, flags, size: size as usize })
            }
            _ => Err(SessionError::NotAMessage { request, flags, size }),
        }
    }
}

impl Session {
    /// Serves `stream`, a connected socket, on behalf of `device`.
    pub(crate) fn new(stream: UnixStream, device: Arc<Mutex<Device>>) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let handler = BackendReqHandler::from_stream(stream.try_clone()?, device.clone());
        Ok(Self { stream, handler, device })
    }

    /// Handles the messages that have come. Says whether there may be more, which is so when the budget of one call is used up.
    pub(crate) fn on_readable(&mut self) -> Result<bool, SessionError> {
        for _ in 0..BUDGET {
            let Some(header) = self.peek()? else { return Ok(false) };
            if !self.room_for_reply()? {
                return Err(SessionError::RepliesUnread);
            }
            trace!("{:?}", header.request);
            self.handle(header).map_err(|source| match source {
                VhostError::Disconnected | VhostError::SocketBroken(_) => SessionError::Disconnected,
                source => SessionError::Refused { request: header.request, source },
            })?;
        }
        Ok(true)
    }

    /// Whether the front end has closed its end.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.poll(PollFlags::empty()).is_ok_and(|events| events.contains(PollFlags::HUP))
    }

    /// The header of the next message, if all of that message is there. Takes nothing from the socket.
    fn peek(&self) -> Result<Option<Header>, SessionError> {
        let mut bytes = [0; HEADER];
        let (len, _) = match rustix::net::recv(&self.stream, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(rustix::io::Errno::CONNRESET) => return Err(SessionError::Disconnected),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        if len == 0 {
            return Err(SessionError::Disconnected);
        }
        if len == HEADER {
            let header = Header::parse(&bytes)?;
            let there = rustix::io::ioctl_fionread(&self.stream).map_err(io::Error::from)?;
            if there >= (HEADER + header.size) as u64 {
                return Ok(Some(header));
            }
        }
        // The rest of a partial message comes later, or never.
        if self.is_hung_up() { Err(SessionError::Disconnected) } else { Ok(None) }
    }

    /// A stream socket is writable while at least three quarters of its buffer are free, far more than any reply takes.
    fn room_for_reply(&self) -> io::Result<bool> {
        Ok(self.poll(PollFlags::OUT)?.contains(PollFlags::OUT))
    }

    fn poll(&self, interest: PollFlags) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(&self.stream, interest)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(fds[0].revents())
    }

    fn handle(&mut self, header: Header) -> Result<(), VhostError> {
        let expected = match header.request {
            FrontendReq::SET_VRING_ENABLE | FrontendReq::SEND_RARP | FrontendReq::NET_SET_MTU | FrontendReq::SET_STATUS => 8,
            FrontendReq::GET_STATUS => 0,
            _ => return self.handler.handle_request(),
        };
        if header.size != expected {
            return Err(VhostError::InvalidMessage);
        }
        let payload = self.take_payload(expected)?;
        let number = u64::from_ne_bytes(payload);
        let device = self.device.clone();
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match header.request {
            FrontendReq::SET_VRING_ENABLE => match [0, 4].map(|at| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| payload[at + byte]))) {
                [index, enable @ (0 | 1)] => device.set_vring_enable(index, enable == 1),
                _ => Err(VhostError::InvalidMessage),
            },
            FrontendReq::SEND_RARP => device.announce([0, 1, 2, 3, 4, 5].map(|byte| payload[byte])),
            FrontendReq::NET_SET_MTU => device.set_mtu(number),
            FrontendReq::SET_STATUS => device.set_status(number),
            _ => return self.reply(header, device.status()?),
        };
        if device.acknowledges() && header.flags & NEED_REPLY != 0 {
            self.reply(header, u64::from(result.is_err()))?;
        }
        result
    }

    /// Takes the next message from the socket and returns the first `expected` bytes of its payload; the rest is zero.
    fn take_payload(&mut self, expected: usize) -> Result<[u8; 8], VhostError> {
        let mut message = [0; HEADER + 8];
        let (taken, _) = rustix::net::recv(&self.stream, &mut message[..HEADER + expected], RecvFlags::DONTWAIT)
            .map_err(|error| VhostError::SocketError(error.into()))?;
        // Shorter only if file descriptors are attached in its midst.
        if taken != HEADER + expected {
            return Err(VhostError::InvalidMessage);
        }
        Ok([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| message[HEADER + byte]))
    }

    /// Replies to a message with one number.
    fn reply(&mut self, header: Header, value: u64) -> Result<(), VhostError> {
        let mut message = [0; HEADER + 8];
        message[..4].copy_from_slice(&u32::from(header.request).to_ne_bytes());
        message[4..8].copy_from_slice(&(VERSION | REPLY).to_ne_bytes());
        message[8..HEADER].copy_from_slice(&8u32.to_ne_bytes());
        message[HEADER..].copy_from_slice(&value.to_ne_bytes());
        match rustix::net::send(&self.stream, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE) => Err(VhostError::Disconnected),
            Err(error) => Err(VhostError::SocketError(error.into())),
        }
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

//! The socket between the launcher and the switch.
//!
//! The switch asks, the launcher answers, with a descriptor if one was asked for (SCM_RIGHTS). A message is a JSON document in one packet of a
//! Unix socket (SOCK_SEQPACKET), so that none is ever torn. Answers carry the number of their request and may come in any order. When
//! either process ends, the other finds the socket closed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::TlsFile;

/// The longest message. Paths are shorter than `sun_path`, and host names than 256 bytes.
const MESSAGE_MAX: usize = 4096;

/// What the switch asks of the launcher.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Open the config file for reading.
    OpenConfig,
    /// Open a file that TLS needs for reading. The launcher knows where it is.
    OpenTls(TlsFile),
    /// Listen on a Unix socket, in the place of one that nobody listens on any more.
    ListenUnix {
        /// Where.
        path: PathBuf,
        /// Only the user that runs the switch may connect.
        private: bool,
    },
    /// Listen on a TCP port.
    ListenTcp(SocketAddr),
    /// Unlink a Unix socket that was listened on.
    Unlink(PathBuf),
    /// Connect to a Unix socket.
    ConnectUnix(PathBuf),
    /// Begin to connect to a TCP port. The connection may be under way still.
    ConnectTcp {
        /// An address or a name.
        host: String,
        /// The port.
        port: u16,
        /// Counts the attempts, so that each of several addresses gets its turn.
        attempt: u32,
    },
    /// Tell whoever started the switch that it is ready.
    Ready,
}

/// A request and its number.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Repeated in the answer.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// An answer, without the descriptor that may come with it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number.
    pub id: u64,
    /// What went wrong, in one line.
    pub error: Option<String>,
}

/// One end of the socket.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Both ends.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: near }, far))
    }

    /// The end that another process passed on.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Another handle of the same end.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// Sends a message, with a descriptor or without.
    pub fn send<T: Serialize>(&self, message: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message to the launcher is too long; shorten the path or name"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.into_iter().collect();
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            unreachable!("there is room for one descriptor");
        }
        rustix::io::retry_on_intr(|| sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Takes the next message, if there is one. The other end's being gone is [`io::ErrorKind::UnexpectedEof`].
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut bytes = [0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(Some((serde_json::from_slice(&bytes[..received])?, fd)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_passes_with_its_message() {
        let (near, far) = Channel::pair().expect("a pair");
        let far = Channel::from_socket(far);
        assert!(far.receive::<Asked>().expect("open").is_none());

        let asked = Asked { id: 7, request: Request::ListenUnix { path: "/a b".into(), private: true } };
        near.send(&asked, None).expect("sent");
        let (received, fd) = far.receive::<Asked>().expect("open").expect("a message");
        assert_eq!((received, fd.is_none()), (asked, true));

        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        far.send(&Answer { id: 7, error: None }, Some(theirs.as_fd())).expect("sent");
        drop((theirs, far));
        let (_, fd) = near.receive::<Answer>().expect("open").expect("a message");
        let mut passed = UnixStream::from(fd.expect("a descriptor"));
        passed.write_all(b"x").expect("written");
        drop(passed);
        let mut read = Vec::new();
        ours.read_to_end(&mut read).expect("read");
        assert_eq!(read, b"x");
        assert_eq!(near.receive::<Answer>().expect_err("closed").kind(), io::ErrorKind::UnexpectedEof);
    }
}

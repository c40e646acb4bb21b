//! The socket between the launcher and the switch.
//!
//! The switch asks, the launcher answers, with what was asked for: descriptors (SCM_RIGHTS). A message is a JSON document in one packet of a
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

use crate::config::{Device, TlsFile};
use crate::uplink::Opened;

/// The longest message. Paths are shorter than `sun_path`, and host names than 256 bytes.
const MESSAGE_MAX: usize = 4096;
/// The most descriptors of a message: some for each queue of a device, and fewer than the kernel passes at once (253).
const DESCRIPTORS_MAX: usize = 160;

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
    /// Open a network device.
    OpenDevice(Device),
    /// Open a socket that hears of network devices.
    WatchDevices,
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

/// An answer, without the descriptors that may come with it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number.
    pub id: u64,
    /// What went wrong, in one line.
    pub error: Option<String>,
    /// What the descriptors are, if they are a device's.
    pub device: Option<Opened>,
}

/// What was asked for.
#[derive(Debug, Default)]
pub struct Given {
    /// Open descriptors.
    pub descriptors: Vec<OwnedFd>,
    /// What they are, if they are a device's.
    pub device: Option<Opened>,
}

impl From<OwnedFd> for Given {
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptors: vec![descriptor], device: None }
    }
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

    /// Sends a message, with descriptors or without.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[OwnedFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message to the launcher is too long; shorten the path or name"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more descriptors than one message has room for"));
        }
        rustix::io::retry_on_intr(|| sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Takes the next message, if there is one. The other end's being gone is [`io::ErrorKind::UnexpectedEof`].
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = [0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
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
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        Ok(Some((serde_json::from_slice(&bytes[..received])?, descriptors)))
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
    fn descriptors_pass_with_their_message() {
        let (near, far) = Channel::pair().expect("a pair");
        let far = Channel::from_socket(far);
        assert!(far.receive::<Asked>().expect("open").is_none());

        let asked = Asked { id: 7, request: Request::ListenUnix { path: "/a b".into(), private: true } };
        near.send(&asked, &[]).expect("sent");
        let (received, descriptors) = far.receive::<Asked>().expect("open").expect("a message");
        assert_eq!((received, descriptors.len()), (asked, 0));

        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let theirs = OwnedFd::from(theirs);
        let many: Vec<_> = (0..DESCRIPTORS_MAX).map(|_| theirs.try_clone().expect("a copy")).collect();
        far.send(&Answer { id: 7, error: None, device: None }, &many).expect("sent");
        drop((theirs, many, far));
        let (_, mut descriptors) = near.receive::<Answer>().expect("open").expect("a message");
        assert_eq!(descriptors.len(), DESCRIPTORS_MAX);
        let mut passed = UnixStream::from(descriptors.remove(0));
        drop(descriptors);
        passed.write_all(b"x").expect("written");
        drop(passed);
        let mut read = Vec::new();
        ours.read_to_end(&mut read).expect("read");
        assert_eq!(read, b"x");
        assert_eq!(near.receive::<Answer>().expect_err("closed").kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! Waiting for file descriptors: one epoll for the control thread.
//!
//! Everything that the control thread does changes one [`crate::switch::Switch`], so a descriptor is not tied to a callback but to a
//! [`Token`], which the switch takes apart. A token says whom an event is for, not which descriptor it is of, so an event of a descriptor
//! that was closed within the same round never reaches a stranger who was given its number.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io;

/// The kinds of things that the control thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Signal,
    Launcher,
    Workers,
    Devices,
    ControlListener,
    ControlClient,
    PortListener,
    PortConnection,
    OpenFlowListener,
    OpenFlowConnecting,
    OpenFlowConnection,
}

const KINDS: [Kind; 11] = [
    Kind::Signal,
    Kind::Launcher,
    Kind::Workers,
    Kind::Devices,
    Kind::ControlListener,
    Kind::ControlClient,
    Kind::PortListener,
    Kind::PortConnection,
    Kind::OpenFlowListener,
    Kind::OpenFlowConnecting,
    Kind::OpenFlowConnection,
];

/// What an event is about: a kind, and a number that tells those of a kind apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The kind.
    pub kind: Kind,
    /// The number, less than 2^56.
    pub id: u64,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Something to read, or room to write.
    ReadWrite,
    /// Room to write.
    Write,
    /// Something new to read: told once for each arrival, whether it is read or not.
    ReadEdge,
    /// Room to write, once; for a connection under way.
    WriteOnce,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// There is something to read, or the other end is gone.
    pub readable: bool,
    /// There is room to write, or the other end is gone.
    pub writable: bool,
}

/// An epoll instance.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// An instance that waits for nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Waits for `fd` from now on.
    pub fn add(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        epoll::add(&self.epoll, fd, token.data(), interest.flags())
    }

    /// Waits for something else of `fd`.
    pub fn modify(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        epoll::modify(&self.epoll, fd, token.data(), interest.flags())
    }

    /// Waits for `fd` no longer. To be called before it is closed.
    pub fn remove(&self, fd: impl AsFd) {
        // The only failure is that it was not waited for.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something happens, at most for `timeout`, and appends it to the empty `events`.
    pub fn wait(&self, events: &mut Vec<(Token, Ready)>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut happened = Vec::with_capacity(64);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut happened), timeout.as_ref()) {
            Ok(_) | Err(io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        events.extend(happened.iter().filter_map(|event| {
            let (flags, data) = (event.flags, event.data);
            let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            let ready = Ready {
                readable: gone || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                writable: gone || flags.contains(EventFlags::OUT),
            };
            Some((Token::from_data(data)?, ready))
        }));
        Ok(())
    }
}

impl Token {
    /// A token of a kind of which there is one.
    pub const fn only(kind: Kind) -> Self {
        Self { kind, id: 0 }
    }

    fn data(self) -> EventData {
        EventData::new_u64((self.kind as u64) << 56 | self.id)
    }

    fn from_data(data: EventData) -> Option<Self> {
        let data = data.u64();
        Some(Self { kind: *KINDS.get((data >> 56) as usize)?, id: data & ((1 << 56) - 1) })
    }
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN | EventFlags::RDHUP,
            Self::ReadWrite => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP,
            Self::Write => EventFlags::OUT,
            Self::ReadEdge => EventFlags::IN | EventFlags::RDHUP | EventFlags::ET,
            Self::WriteOnce => EventFlags::OUT | EventFlags::ONESHOT,
        }
    }
}

/// A [`Poller`] for descriptors of one kind, which its owner numbers as it likes, no number twice.
#[derive(Clone, Debug)]
pub struct Registrar {
    poller: Rc<Poller>,
    kind: Kind,
}

impl Registrar {
    /// For descriptors of this kind.
    pub fn new(poller: Rc<Poller>, kind: Kind) -> Self {
        Self { poller, kind }
    }

    /// Waits for `fd` from now on.
    pub fn add(&self, fd: impl AsFd, id: u64, interest: Interest) -> io::Result<()> {
        self.poller.add(fd, Token { kind: self.kind, id }, interest)
    }

    /// Waits for something else of `fd`.
    pub fn modify(&self, fd: impl AsFd, id: u64, interest: Interest) -> io::Result<()> {
        self.poller.modify(fd, Token { kind: self.kind, id }, interest)
    }

    /// Waits for `fd` no longer. To be called before it is closed.
    pub fn remove(&self, fd: impl AsFd) {
        self.poller.remove(fd);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn events_carry_their_token() {
        let poller = Rc::new(Poller::new().expect("epoll"));
        let (mut near, far) = UnixStream::pair().expect("a pair");
        let registrar = Registrar::new(poller.clone(), Kind::OpenFlowConnection);
        registrar.add(&far, (1 << 56) - 1, Interest::Read).expect("added");
        let wait = || {
            let mut events = Vec::new();
            poller.wait(&mut events, Some(Duration::ZERO)).expect("waited");
            events
        };
        assert_eq!(wait(), []);
        near.write_all(b"x").expect("written");
        let token = Token { kind: Kind::OpenFlowConnection, id: (1 << 56) - 1 };
        assert_eq!(wait(), [(token, Ready { readable: true, writable: false })]);
        registrar.modify(&far, token.id, Interest::ReadWrite).expect("modified");
        assert_eq!(wait(), [(token, Ready { readable: true, writable: true })]);
        registrar.remove(&far);
        assert_eq!(wait(), []);
    }
}

//! The switch's end of the socket to the launcher: asks without waiting, and remembers what to do with the answers.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};

use super::Switch;
use crate::launcher::channel::{Answer, Asked, Channel, Request};

/// A descriptor, if one was asked for, or what went wrong.
pub type Answered = Result<Option<OwnedFd>, String>;
/// What to do with an answer.
pub type Then = Box<dyn FnOnce(&mut Switch, Answered)>;

/// See the module.
pub struct Link {
    channel: Channel,
    next: u64,
    waiting: HashMap<u64, Then>,
}

impl Link {
    /// Over this channel.
    pub fn new(channel: Channel) -> Self {
        Self { channel, next: 0, waiting: HashMap::new() }
    }

    /// Asks, and does `then` when the answer has come. If asking fails, `then` is given back with the reason.
    pub fn ask(&mut self, request: Request, then: Then) -> Result<(), (Then, String)> {
        let id = self.next;
        self.next += 1;
        match self.channel.send(&Asked { id, request }, None) {
            Ok(()) => {
                self.waiting.insert(id, then);
                Ok(())
            }
            Err(error) => Err((then, format!("the launcher can't be asked: {error}"))),
        }
    }

    /// Asks, and waits for the answer. Only for the start, when nothing else was asked.
    pub fn ask_and_wait(&mut self, request: Request) -> io::Result<Answered> {
        let id = self.next;
        self.next += 1;
        self.channel.send(&Asked { id, request }, None)?;
        loop {
            poll(&mut [PollFd::new(&self.channel, PollFlags::IN)], None)?;
            if let Some((answer, fd)) = self.channel.receive::<Answer>()? {
                return Ok(answered(answer, fd));
            }
        }
    }

    /// The next answer that has come, and what to do with it.
    pub fn receive(&mut self) -> io::Result<Option<(Then, Answered)>> {
        while let Some((answer, fd)) = self.channel.receive::<Answer>()? {
            if let Some(then) = self.waiting.remove(&answer.id) {
                return Ok(Some((then, answered(answer, fd))));
            }
        }
        Ok(None)
    }
}

/// The descriptor that was asked for.
pub fn descriptor(answered: Answered) -> Result<OwnedFd, String> {
    answered.and_then(|fd| fd.ok_or_else(|| "the launcher passed no descriptor".to_owned()))
}

fn answered(answer: Answer, fd: Option<OwnedFd>) -> Answered {
    answer.error.map_or(Ok(fd), Err)
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

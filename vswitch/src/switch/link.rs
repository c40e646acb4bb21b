//! The switch's end of the socket to the launcher: asks without waiting, and remembers what to do with the answers.
//!
//! Only so many requests are under way as the socket holds. If both ends filled it, both would wait for ever for the other one to read.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};

use super::Switch;
use crate::launcher::channel::{Answer, Asked, Channel, Given, Request};

/// The most requests under way: a fraction of the packets that a socket holds by default, some hundreds.
const UNDER_WAY: usize = 32;

/// What was asked for, or what went wrong.
pub type Answered = Result<Given, String>;
/// What to do with an answer.
pub type Then = Box<dyn FnOnce(&mut Switch, Answered)>;

/// See the module.
pub struct Link {
    channel: Channel,
    next: u64,
    waiting: HashMap<u64, Then>,
    /// Requests that were not sent yet.
    backlog: VecDeque<(Asked, Then)>,
}

impl Link {
    /// Over this channel.
    pub fn new(channel: Channel) -> Self {
        Self { channel, next: 0, waiting: HashMap::new(), backlog: VecDeque::new() }
    }

    /// Asks, and does `then` when the answer has come. If asking fails, `then` is given back with the reason.
    pub fn ask(&mut self, request: Request, then: Then) -> Result<(), (Then, String)> {
        let id = self.next;
        self.next += 1;
        let asked = Asked { id, request };
        if self.waiting.len() >= UNDER_WAY || !self.backlog.is_empty() {
            self.backlog.push_back((asked, then));
            return Ok(());
        }
        self.send(asked, then)
    }

    fn send(&mut self, asked: Asked, then: Then) -> Result<(), (Then, String)> {
        match self.channel.send(&asked, &[]) {
            Ok(()) => {
                self.waiting.insert(asked.id, then);
                Ok(())
            }
            Err(error) => Err((then, format!("the launcher can't be asked: {error}"))),
        }
    }

    /// Asks, and waits for the answer. Only for the start, when nothing else was asked.
    pub fn ask_and_wait(&mut self, request: Request) -> io::Result<Answered> {
        let id = self.next;
        self.next += 1;
        self.channel.send(&Asked { id, request }, &[])?;
        loop {
            poll(&mut [PollFd::new(&self.channel, PollFlags::IN)], None)?;
            if let Some((answer, descriptors)) = self.channel.receive::<Answer>()? {
                return Ok(answered(answer, descriptors));
            }
        }
    }

    /// The next answer that has come, or a request's failure to be asked, and what to do with it.
    pub fn receive(&mut self) -> io::Result<Option<(Then, Answered)>> {
        while self.waiting.len() < UNDER_WAY
            && let Some((asked, then)) = self.backlog.pop_front()
        {
            if let Err((then, error)) = self.send(asked, then) {
                return Ok(Some((then, Err(error))));
            }
        }
        while let Some((answer, descriptors)) = self.channel.receive::<Answer>()? {
            if let Some(then) = self.waiting.remove(&answer.id) {
                return Ok(Some((then, answered(answer, descriptors))));
            }
        }
        Ok(None)
    }
}

/// The one descriptor that was asked for.
pub fn descriptor(answered: Answered) -> Result<OwnedFd, String> {
    answered.and_then(|given| given.descriptors.into_iter().next().ok_or_else(|| "the launcher passed no descriptor".to_owned()))
}

fn answered(answer: Answer, descriptors: Vec<OwnedFd>) -> Answered {
    answer.error.map_or(Ok(Given { descriptors, device: answer.device }), Err)
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_requests_can_be_under_way() {
        let (near, far) = Channel::pair().expect("a pair");
        let (mut link, launcher) = (Link::new(near), Channel::from_socket(far));
        // Far more than the socket holds; nobody answers yet.
        for _ in 0..5000 {
            assert!(link.ask(Request::Ready, Box::new(|_, _| ())).is_ok());
        }
        let (mut next, mut answered) = (0, 0);
        while answered < 5000 {
            while let Some((Asked { id, .. }, _)) = launcher.receive().expect("the link is there") {
                assert_eq!(id, next, "requests are sent in order");
                next += 1;
                launcher.send(&Answer { id, error: None, device: None }, &[]).expect("the link is there");
            }
            while link.receive().expect("the launcher is there").is_some() {
                answered += 1;
            }
        }
        assert!(link.receive().expect("the launcher is there").is_none());
    }
}

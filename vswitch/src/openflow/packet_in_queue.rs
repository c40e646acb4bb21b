//! What a connection's packet-ins wait in when they are more than its rate allows.
//!
//! A token bucket says when the next one may go. Those that can't go yet wait in a queue for each ingress port, and the queues are served in turn, so that
//! a port whose frames are many has only its own wait. What waits is bounded, for each port and in all; when it is too much, the longest queue
//! loses its oldest frame, and that is counted. The oldest, because a controller is to decide on what a guest sends now: a frame that waited for so long has
//! mostly been sent again, or was given up.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use datapath::Nanos;
use datapath::port::PortNo;

use super::wire::Message;
use crate::config::Rate;

/// The most bytes that wait of one port: two frames of the largest size, or some hundred usual ones.
const PORT_MAX: usize = 128 << 10;
/// The most bytes that wait in all.
const ALL_MAX: usize = 1 << 20;
/// What a frame counts for beside its own bytes, so that small ones are bounded, too.
const OVERHEAD: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct PacketInQueue {
    /// `None`: everything may go at once.
    bucket: Option<Bucket>,
    ports: HashMap<PortNo, PortQueue>,
    /// The ports of which frames wait, in the order in which they are served.
    turns: VecDeque<PortNo>,
    bytes: usize,
    frames: usize,
    dropped: u64,
}

/// The frames of one port, with what each counts for.
#[derive(Debug, Default)]
struct PortQueue {
    frames: VecDeque<(Rc<Message>, usize)>,
    bytes: usize,
}

impl PacketInQueue {
    /// Sets how many may go; what waits goes on waiting.
    pub fn set_rate(&mut self, rate: Option<Rate>) {
        let full = self.bucket.map_or(0, |bucket| bucket.full);
        self.bucket = rate.map(|rate| Bucket::new(rate, full));
    }

    /// Whether a frame may go at once: none waits, and there is a token, which is taken.
    pub fn passes(&mut self, now: Nanos) -> bool {
        self.frames == 0 && self.take_token(now)
    }

    /// Has a frame of `length` bytes from `port` wait.
    pub fn push(&mut self, port: PortNo, packet_in: Rc<Message>, length: usize) {
        let bytes = length + OVERHEAD;
        let queue = self.ports.entry(port).or_default();
        if queue.frames.is_empty() {
            self.turns.push_back(port);
        }
        queue.frames.push_back((packet_in, bytes));
        queue.bytes += bytes;
        self.bytes += bytes;
        self.frames += 1;
        while self.ports.get(&port).is_some_and(|queue| queue.bytes > PORT_MAX) {
            self.drop_oldest(port);
        }
        while self.bytes > ALL_MAX
            && let Some((port, _)) = self.ports.iter().max_by_key(|(_, queue)| queue.bytes)
        {
            self.drop_oldest(*port);
        }
    }

    /// The next frame that may go, if there is one.
    pub fn pop(&mut self, now: Nanos) -> Option<Rc<Message>> {
        if self.frames == 0 || !self.take_token(now) {
            return None;
        }
        let port = self.turns.pop_front()?;
        self.turns.push_back(port);
        self.pop_from(port)
    }

    /// When the next frame that waits may go.
    pub fn due(&self) -> Option<Nanos> {
        (self.frames > 0).then(|| self.bucket.map_or(0, |bucket| bucket.ready()))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.frames
    }

    /// How many were dropped because there were too many.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn take_token(&mut self, now: Nanos) -> bool {
        self.bucket.as_mut().is_none_or(|bucket| bucket.take(now))
    }

    fn drop_oldest(&mut self, port: PortNo) {
        self.pop_from(port);
        self.dropped += 1;
    }

    fn pop_from(&mut self, port: PortNo) -> Option<Rc<Message>> {
        let queue = self.ports.get_mut(&port)?;
        let (packet_in, bytes) = queue.frames.pop_front()?;
        queue.bytes -= bytes;
        self.bytes -= bytes;
        self.frames -= 1;
        if queue.frames.is_empty() {
            self.ports.remove(&port);
            self.turns.retain(|other| *other != port);
        }
        Some(packet_in)
    }
}

/// A token bucket, as the time at which it is full: a token for each interval that this is ahead is missing.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// The time in which one token comes.
    interval: Nanos,
    /// The time in which all come but one.
    slack: Nanos,
    full: Nanos,
}

impl Bucket {
    fn new(rate: Rate, full: Nanos) -> Self {
        let interval = 1_000_000_000 / Nanos::from(rate.per_second.max(1));
        Self { interval, slack: interval * Nanos::from(rate.burst.saturating_sub(1)), full }
    }

    /// When there is a token.
    fn ready(&self) -> Nanos {
        self.full.saturating_sub(self.slack)
    }

    fn take(&mut self, now: Nanos) -> bool {
        let ready = self.ready() <= now;
        if ready {
            self.full = self.full.max(now) + self.interval;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn frame(number: usize) -> Rc<Message> {
        Rc::new(Message::EchoRequest(vec![number as u8]))
    }

    fn number(frame: Rc<Message>) -> usize {
        match &*frame {
            Message::EchoRequest(data) => data[0].into(),
            other => unreachable!("{other:?}"),
        }
    }

    fn queue(per_second: u32, burst: u32) -> PacketInQueue {
        let mut queue = PacketInQueue::default();
        queue.set_rate(Some(Rate { per_second, burst }));
        queue
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut queue = queue(10, 4);
        let now = 100 * SECOND;
        assert_eq!((0..10).filter(|_| queue.passes(now)).count(), 4);
        queue.push(PortNo(1), frame(1), 60);
        assert!(queue.pop(now).is_none());
        assert_eq!(queue.due(), Some(now + SECOND / 10));
        assert!(!queue.passes(now + SECOND), "one that waits goes first");
        assert!(queue.pop(now + SECOND / 10).is_some());
        assert_eq!(queue.due(), None);
        // A long pause brings a burst, not more.
        assert_eq!((0..100).filter(|_| queue.passes(now + 1000 * SECOND)).count(), 4);
        queue.push(PortNo(1), frame(1), 60);
        queue.set_rate(None);
        assert_eq!(queue.due(), Some(0));
        assert!(queue.pop(0).is_some() && (0..100).all(|_| queue.passes(0)));
    }

    #[test]
    fn ports_take_turns_and_the_longest_queue_loses_its_oldest() {
        let mut queue = queue(1, 1);
        assert!(queue.passes(0));
        for count in 0..200 {
            queue.push(PortNo(1), frame(count), 1500);
        }
        queue.push(PortNo(2), frame(7), 60);
        queue.push(PortNo(2), frame(8), 60);
        let kept = PORT_MAX / (1500 + OVERHEAD);
        assert_eq!((queue.len(), queue.dropped()), (kept + 2, 200 - kept as u64));
        let order: Vec<_> = (1..6).map(|second| number(queue.pop(second * SECOND).expect("a token a second"))).collect();
        let first = 200 - kept;
        assert_eq!(order, [first, 7, first + 1, 8, first + 2]);

        // All ports together have their bound, too: the small one keeps what it has.
        queue.push(PortNo(2), frame(9), 60);
        for port in 3..100 {
            for _ in 0..100 {
                queue.push(PortNo(port), frame(0), 1500);
            }
        }
        assert!(queue.bytes <= ALL_MAX && queue.bytes > ALL_MAX - 2 * (1500 + OVERHEAD));
        assert_eq!(queue.ports[&PortNo(2)].frames.len(), 1);
    }

    proptest! {
        /// Whatever comes and goes, the sums are right, nothing is lost uncounted, and a port's frames stay in order.
        #[test]
        fn what_waits_is_accounted_for(steps in prop::collection::vec((1..4u32, 0..70_000usize, 0..3u64), 1..400)) {
            let mut queue = queue(2, 1);
            let (mut now, mut pushed, mut popped) = (0, 0u64, 0u64);
            for (port, length, pause) in steps {
                now += pause * SECOND / 4;
                queue.push(PortNo(port), frame(0), length);
                pushed += 1;
                popped += u64::from(queue.pop(now).is_some());
                prop_assert_eq!(pushed, popped + queue.dropped() + queue.len() as u64);
                prop_assert_eq!(queue.bytes, queue.ports.values().map(|queue| queue.bytes).sum::<usize>());
                prop_assert_eq!(queue.frames, queue.ports.values().map(|queue| queue.frames.len()).sum::<usize>());
                let sum = |queue: &PortQueue| queue.frames.iter().map(|(_, bytes)| bytes).sum::<usize>();
                prop_assert!(queue.ports.values().all(|queue| queue.bytes == sum(queue) && (1..=PORT_MAX).contains(&queue.bytes)));
                prop_assert!(queue.bytes <= ALL_MAX);
                let mut turns: Vec<_> = queue.turns.iter().copied().collect();
                turns.sort();
                let mut ports: Vec<_> = queue.ports.keys().copied().collect();
                ports.sort();
                prop_assert_eq!(turns, ports);
            }
        }
    }
}

//! How long a worker polls in vain before it sleeps.
//!
//! Falling asleep and being woken costs a worker some microseconds of work, and the frame that wakes it a delay. So polling on pays if the next frame
//! comes soon, and is a waste if it comes late whatever is done. Which of the two it will be is guessed from the last time: the patience is halved whenever
//! frames came so late that the longest patience would not have met them, and doubled whenever it would have. It never falls below what a sleep costs, by
//! which no more than twice the least possible work is spent, however wrong the guess.
//!
//! How late they came is not known: being woken may take longer than the frames do. But as many as lie there then have come in that time.

use datapath::Nanos;

use crate::config::{Poll, Polling};

/// About what it costs to fall asleep and to be woken.
const SLEEP_COST: Nanos = 5_000;

/// See the module.
#[derive(Debug)]
pub struct Patience {
    polling: Polling,
    now: Nanos,
}

impl Patience {
    /// As long as `polling` allows.
    pub fn new(polling: Polling) -> Self {
        Self { polling, now: longest(polling) }
    }

    /// Changes what is allowed.
    pub fn set(&mut self, polling: Polling) {
        if self.polling != polling {
            *self = Self::new(polling);
        }
    }

    /// Whether it is over when nothing came for `waited`.
    pub fn is_over(&self, waited: Nanos) -> bool {
        match self.polling.poll {
            Poll::Busy => false,
            Poll::Adaptive | Poll::Interrupt => waited >= self.now,
        }
    }

    /// The worker had slept, and found so many frames, at least one, `waited` after those before.
    pub fn learn(&mut self, waited: Nanos, frames: usize) {
        let longest = longest(self.polling);
        let next = if waited / frames as Nanos <= longest { self.now * 2 } else { self.now / 2 };
        self.now = next.clamp(SLEEP_COST.min(longest), longest);
    }
}

/// The longest patience, which does not matter to a worker that never sleeps.
fn longest(polling: Polling) -> Nanos {
    match polling.poll {
        Poll::Busy | Poll::Interrupt => 0,
        Poll::Adaptive => polling.idle.as_nanos() as Nanos,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn polling(poll: Poll, idle: u64) -> Polling {
        Polling { poll, idle: Duration::from_micros(idle) }
    }

    /// The share of the time that a worker polls when a frame comes every `gap`, and how often it sleeps in 1000 gaps.
    fn run(patience: &mut Patience, gap: Nanos) -> (f64, usize) {
        let (mut polled, mut sleeps) = (0, 0);
        for _ in 0..1000 {
            let until = (0..gap).step_by(500).find(|waited| patience.is_over(*waited));
            polled += until.unwrap_or(gap);
            if until.is_some() {
                sleeps += 1;
                patience.learn(gap, 1);
            }
        }
        (polled as f64 / (1000 * gap) as f64, sleeps)
    }

    #[test]
    fn short_gaps_are_polled_through_and_long_ones_slept_through() {
        let mut patience = Patience::new(polling(Poll::Adaptive, 50));
        assert_eq!(run(&mut patience, 40_000), (1.0, 0));
        let (polled, sleeps) = run(&mut patience, 100_000);
        assert!(polled < 0.06 && sleeps == 1000, "{polled}");
        // It takes a few sleeps to see that frames come faster.
        let (polled, sleeps) = run(&mut patience, 40_000);
        assert!(polled > 0.99 && sleeps < 5, "{polled} {sleeps}");
    }

    #[test]
    fn a_wrong_guess_costs_no_more_than_a_sleep() {
        let mut patience = Patience::new(polling(Poll::Adaptive, 50));
        for waited in [51_000, 60_000, 1_000_000, Nanos::MAX, 51_000] {
            patience.learn(waited, 1);
        }
        assert!(patience.is_over(SLEEP_COST) && !patience.is_over(SLEEP_COST - 1));
    }

    #[test]
    fn a_slow_wake_up_is_not_taken_for_a_long_gap() {
        let mut patience = Patience::new(polling(Poll::Adaptive, 50));
        patience.learn(51_000, 1);
        patience.learn(200_000, 5);
        assert!(!patience.is_over(49_999));
    }

    #[test]
    fn a_worker_that_is_to_poll_never_sleeps_and_one_that_is_not_never_polls() {
        let mut busy = Patience::new(polling(Poll::Busy, 50));
        let mut interrupt = Patience::new(polling(Poll::Interrupt, 50));
        for patience in [&mut busy, &mut interrupt] {
            patience.learn(0, 1);
            patience.learn(Nanos::MAX, 1);
        }
        assert!(!busy.is_over(Nanos::MAX) && interrupt.is_over(0));
        busy.set(polling(Poll::Adaptive, 3));
        assert!(busy.is_over(3_000) && !busy.is_over(2_999));
        busy.learn(Nanos::MAX, 1);
        assert!(!busy.is_over(2_999), "less patience than a sleep costs is what was asked for");
    }
}

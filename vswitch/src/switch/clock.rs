//! Time, cheaply: the CPU's cycle counter once per breath, the clock itself only when enough cycles have passed.
//!
//! Reading the clock costs a worker about 20 ns, as much as it may spend on a frame; reading the cycle counter a third of that. This is the
//! appliance's one room for `unsafe`, for the sake of that instruction.

use datapath::Nanos;

/// The time now, on the clock that all threads share.
pub fn now() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The CPU's cycle counter; on CPUs that have none, nanoseconds.
#[inline]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reading the time stamp counter has no effect on memory and is always permitted on the systems that we run on.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    now()
}

/// The clock as one thread reads it.
#[derive(Debug)]
pub struct CoarseClock {
    now: Nanos,
    read_at: u64,
}

impl CoarseClock {
    /// The clock, read.
    pub fn start() -> Self {
        Self { now: now(), read_at: cycles() }
    }

    /// The time when the cycle counter showed `cycles`, late by `slack` cycles at most, and never earlier than the time before.
    #[inline]
    pub fn at(&mut self, cycles: u64, slack: u64) -> Nanos {
        if cycles.wrapping_sub(self.read_at) > slack {
            *self = Self { now: now(), read_at: cycles };
        }
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_follows_the_clock() {
        let mut clock = CoarseClock::start();
        let start = now();
        let mut last = 0;
        while last < start + 1_000_000 {
            let coarse = clock.at(cycles(), 1 << 10);
            assert!(last <= coarse && coarse <= now());
            last = coarse;
        }
    }
}

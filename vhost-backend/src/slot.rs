//! A place for a ring, between the worker that serves it and the control thread that starts and stops it.
//!
//! The handle that a worker holds lives as long as the port; the ring in it comes and goes with connects, resets and removals. A worker uses
//! the ring under the slot's lock, and holds the lock for as long as it may touch guest memory. The control thread takes the ring back by
//! asking for it first: from then on no worker begins anew, so the wait is for one use that is under way, never for a worker that polls without
//! pause. What comes out of the slot is the only owner of the ring and of its hold on the guest's memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// A place for a ring `R`, on cache lines of its own: its neighbours are other workers'. Workers call [`Slot::try_use`] or [`Slot::wait_use`]; one control thread calls the rest.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slot<R> {
    revoked: AtomicBool,
    ring: Mutex<Option<R>>,
}

impl<R> Default for Slot<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Slot<R> {
    /// An empty slot.
    pub const fn new() -> Self {
        Self { revoked: AtomicBool::new(false), ring: Mutex::new(None) }
    }

    /// Uses the ring, if there is one and nobody else uses it. Never waits.
    pub fn try_use<T>(&self, with: impl FnOnce(&mut R) -> T) -> Option<T> {
        if self.revoked.load(Ordering::Relaxed) {
            return None;
        }
        match self.ring.try_lock() {
            Ok(mut ring) => ring.as_mut().map(with),
            // Should a worker have panicked: a ring is left in a state that is safe, if not useful.
            Err(TryLockError::Poisoned(ring)) => ring.into_inner().as_mut().map(with),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Uses the ring, if there is one, after whoever uses it now. The control thread goes first, and a change of
    /// the ring costs no frame.
    pub fn wait_use<T>(&self, with: impl FnOnce(&mut R) -> T) -> Option<T> {
        while self.revoked.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(with)
    }

    /// Puts a ring in, in place of what was there, which is returned.
    pub fn put(&self, ring: R) -> Option<R> {
        self.revoke(|place| place.replace(ring))
    }

    /// Takes the ring out. No worker uses it any more when this returns.
    pub fn take(&self) -> Option<R> {
        self.revoke(|place| place.take())
    }

    /// Changes the ring, if there is one, while no worker uses it.
    pub fn update<T>(&self, with: impl FnOnce(&mut R) -> T) -> Option<T> {
        self.revoke(|place| place.as_mut().map(with))
    }

    fn revoke<T>(&self, with: impl FnOnce(&mut Option<R>) -> T) -> T {
        self.revoked.store(true, Ordering::Relaxed);
        let mut place: MutexGuard<'_, Option<R>> = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let result = with(&mut place);
        self.revoked.store(false, Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::Slot;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_ring_comes_and_goes() {
        let slot = Slot::new();
        assert_eq!(slot.try_use(|ring: &mut u32| *ring), None);
        assert_eq!(slot.put(1), None);
        assert_eq!(slot.put(2), Some(1));
        assert_eq!(slot.try_use(|ring| std::mem::replace(ring, 3)), Some(2));
        assert_eq!(slot.update(|ring| *ring), Some(3));
        assert_eq!(slot.wait_use(|ring| *ring), Some(3));
        assert_eq!(slot.take(), Some(3));
        assert_eq!(slot.wait_use(|ring| *ring), None);
    }

    #[test]
    fn a_ring_in_use_is_left_alone() {
        let slot = Slot::new();
        slot.put(());
        slot.try_use(|()| assert_eq!(slot.try_use(|()| ()), None)).expect("the ring is there");
    }

    #[test]
    fn the_control_thread_gets_a_ring_that_is_polled_without_pause() {
        // The ring counts its uses; a use after `take` would count on.
        let slot = Arc::new(Slot::new());
        let uses = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicUsize::new(0));
        let polling = std::thread::spawn({
            let (slot, stop) = (slot.clone(), stop.clone());
            move || {
                while stop.load(Ordering::Relaxed) == 0 {
                    slot.try_use(|ring: &mut Arc<AtomicUsize>| ring.fetch_add(1, Ordering::Relaxed));
                }
            }
        });
        for _ in 0..50 {
            slot.put(uses.clone());
            let before = uses.load(Ordering::Relaxed);
            while uses.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            let ring = slot.take().expect("it was put in");
            let after = uses.load(Ordering::Relaxed);
            std::thread::yield_now();
            assert_eq!(uses.load(Ordering::Relaxed), after);
            drop(ring);
        }
        stop.store(1, Ordering::Relaxed);
        polling.join().expect("the polling thread ends");
    }
}

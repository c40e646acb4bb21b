//! Where Ethernet addresses were last seen: what NORMAL learns.
//!
//! **Sharing.** One table serves all workers and snapshots, on their slow path only. The addresses are spread over shards, each under a mutex of its
//! own, which is all that a lookup or an address seen again where it was takes. What adds, moves or removes an address takes a second
//! mutex first, that of the population: which port has how many addresses, and which it has not seen for the longest time.
//!
//! **Bounds.** Addresses come from guests, who may make up any number. A full table makes room for a new address at the expense of the port
//! that has the most, so a flooding guest drives out its own addresses and nobody else's. The address that goes is the one not
//! seen for the longest time. Its port's queue is ordered by when each address was queued, not seen; one that was seen since goes back into
//! the queue when it comes to the front, so seeing an address again costs no queue operation, and the order is exact all the same.
//!
//! **Cached answers.** What a translation learned from here is cached in megaflows. So that a change makes the right ones stale, the addresses are
//! hashed to buckets, and a bucket's generation changes with every change to what a lookup in it would answer. An answer comes with a
//! [`MacDependency`], the generation that it was given under; comparing that costs one load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::Nanos;
use crate::classifier::mix;
use crate::port::PortNo;

/// How many addresses are remembered, unless configured otherwise.
pub const DEFAULT_CAPACITY: usize = 8192;
/// How long an address is remembered, unless configured otherwise.
pub const DEFAULT_AGE: Nanos = 300 * 1_000_000_000;

const BUCKETS: usize = 4096;
const SHARDS: usize = 64;

/// The addresses learned, each in its VLAN.
#[derive(Debug)]
pub struct MacTable {
    population: Mutex<Population>,
    shards: Box<[Mutex<Shard>]>,
    generations: Box<[AtomicU32]>,
    capacity: usize,
    per_port: usize,
    seed: u64,
}

/// The addresses of some buckets, by [`Key`].
type Shard = BTreeMap<Key, Entry>;

/// A VLAN and an address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64);

#[derive(Clone, Copy, Debug)]
struct Entry {
    port: PortNo,
    /// When it was last seen.
    seen: Nanos,
    /// What that was when it was put into its port's queue.
    queued: Nanos,
}

/// What an answer of the table rests on: it holds as long as [`MacTable::is_current`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacDependency {
    bucket: u16,
    generation: u32,
}

impl MacDependency {
    /// An answer that does not hold.
    pub const NEVER: Self = Self { bucket: u16::MAX, generation: 0 };
}

impl Key {
    fn new(vlan: u16, mac: u64) -> Self {
        Self(u64::from(vlan) << 48 | mac & 0xffff_ffff_ffff)
    }
}

impl MacTable {
    /// An empty table for `capacity` addresses in all and `per_port` on one port.
    pub fn new(capacity: usize, per_port: usize) -> Self {
        Self {
            population: Mutex::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            generations: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            capacity,
            per_port,
            seed: 0,
        }
    }

    /// The same empty table with addresses spread over the buckets in a way that guests who don't know `seed` can't foresee: who knows which
    /// addresses share a bucket can make the cached answers of others stale.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    fn bucket(&self, key: Key) -> usize {
        mix(self.seed, key.0) as usize % BUCKETS
    }

    fn population(&self) -> MutexGuard<'_, Population> {
        self.population.lock().expect("no holder panics")
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        self.shards[self.bucket(key) % SHARDS].lock().expect("no holder panics")
    }

    /// What the answer for `key` rests on. The shard is locked, so that it is what the answer of now rests on.
    fn dependency(&self, key: Key, _shard: &Shard) -> MacDependency {
        let bucket = self.bucket(key);
        MacDependency { bucket: bucket as u16, generation: self.generations[bucket].load(Ordering::Acquire) }
    }

    /// The answer for `key` is changed, in the locked shard.
    fn changed(&self, key: Key, _shard: &mut Shard) {
        self.generations[self.bucket(key)].fetch_add(1, Ordering::Release);
    }

    /// Remembers that `mac` (in the low 48 bits) was seen in `vlan` at `port`. Group addresses are never learned. The dependency holds as
    /// long as this is known.
    pub fn learn(&self, vlan: u16, mac: u64, port: PortNo, now: Nanos) -> MacDependency {
        let key = Key::new(vlan, mac);
        let mut shard = self.shard(key);
        let is_group = mac >> 40 & 1 != 0;
        if is_group || see(&mut shard, key, port, now) {
            return self.dependency(key, &shard);
        }
        drop(shard);

        // The order of locks is: population, shard.
        let mut population = self.population();
        let old = self.shard(key).get(&key).copied();
        if let Some(old) = old {
            population.remove(old.port, old.queued, key);
        }
        if population.count(port) >= self.per_port {
            self.evict(port, &mut population);
        } else if population.len >= self.capacity
            && let Some(victim) = population.fullest(port)
        {
            self.evict(victim, &mut population);
        }
        let mut shard = self.shard(key);
        shard.remove(&key);
        if population.count(port) < self.per_port && population.len < self.capacity {
            shard.insert(key, Entry { port, seen: now, queued: now });
            population.insert(port, now, key);
        }
        self.changed(key, &mut shard);
        self.dependency(key, &shard)
    }

    /// Where `mac` (in the low 48 bits) was last seen in `vlan`, and what that answer rests on.
    pub fn lookup(&self, vlan: u16, mac: u64) -> (Option<PortNo>, MacDependency) {
        let key = Key::new(vlan, mac);
        let shard = self.shard(key);
        (shard.get(&key).map(|entry| entry.port), self.dependency(key, &shard))
    }

    /// Whether the answer still holds. Cheap: one load.
    pub fn is_current(&self, dependency: &MacDependency) -> bool {
        self.generations.get(usize::from(dependency.bucket)).is_some_and(|now| now.load(Ordering::Acquire) == dependency.generation)
    }

    /// Remembers that `mac` (in the low 48 bits) was seen at `now`, if it is known to be at `port`.
    pub fn refresh(&self, vlan: u16, mac: u64, port: PortNo, now: Nanos) {
        let key = Key::new(vlan, mac);
        see(&mut self.shard(key), key, port, now);
    }

    /// Forgets what was last seen before `now - age`. Returns how many addresses that were.
    pub fn expire(&self, now: Nanos, age: Nanos) -> usize {
        let mut population = self.population();
        let before = population.len;
        let ports: Vec<PortNo> = population.queues.keys().copied().collect();
        for port in ports {
            while let Some((seen, key)) = self.oldest(port, &mut population)
                && seen.saturating_add(age) <= now
            {
                self.remove(key, &mut population);
            }
        }
        before - population.len
    }

    /// Forgets what was learned at `port`. Returns how many addresses that were.
    pub fn flush(&self, port: PortNo) -> usize {
        let mut population = self.population();
        let keys: Vec<Key> = population.queues.get(&port).into_iter().flatten().map(|(_, key)| *key).collect();
        keys.iter().for_each(|key| self.remove(*key, &mut population));
        keys.len()
    }

    /// The number of addresses.
    pub fn len(&self) -> usize {
        self.population().len
    }

    /// Whether nothing was learned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The address of `port` that was not seen for the longest time, and when it was seen.
    fn oldest(&self, port: PortNo, population: &mut Population) -> Option<(Nanos, Key)> {
        loop {
            let (queued, key) = *population.queues.get(&port)?.first()?;
            let mut shard = self.shard(key);
            let entry = shard.get_mut(&key).expect("what is queued is in its shard");
            if entry.seen == queued {
                return Some((queued, key));
            }
            entry.queued = entry.seen;
            population.requeue(port, key, queued, entry.seen);
        }
    }

    /// Forgets the address of `port` that was not seen for the longest time.
    fn evict(&self, port: PortNo, population: &mut Population) {
        if let Some((_, key)) = self.oldest(port, population) {
            self.remove(key, population);
        }
    }

    /// Forgets an address.
    fn remove(&self, key: Key, population: &mut Population) {
        let mut shard = self.shard(key);
        if let Some(entry) = shard.remove(&key) {
            population.remove(entry.port, entry.queued, key);
            self.changed(key, &mut shard);
        }
    }
}

/// Notes that an address was seen, if it is known to be at `port`.
fn see(shard: &mut Shard, key: Key, port: PortNo, now: Nanos) -> bool {
    let entry = shard.get_mut(&key).filter(|entry| entry.port == port);
    entry.map(|entry| entry.seen = entry.seen.max(now)).is_some()
}

/// Which port has how many addresses, and in which order they leave.
#[derive(Debug, Default)]
struct Population {
    queues: BTreeMap<PortNo, BTreeSet<(Nanos, Key)>>,
    /// The ports by their number of addresses.
    sizes: BTreeSet<(usize, PortNo)>,
    len: usize,
}

impl Population {
    fn count(&self, port: PortNo) -> usize {
        self.queues.get(&port).map_or(0, BTreeSet::len)
    }

    /// The port that has the most addresses if `newcomer` gets another; of equals, the newcomer.
    fn fullest(&self, newcomer: PortNo) -> Option<PortNo> {
        let (most, port) = *self.sizes.last()?;
        Some(if self.count(newcomer) + 1 >= most && self.count(newcomer) > 0 { newcomer } else { port })
    }

    fn insert(&mut self, port: PortNo, queued: Nanos, key: Key) {
        self.resize(port, |queue| queue.insert((queued, key)));
    }

    fn remove(&mut self, port: PortNo, queued: Nanos, key: Key) {
        self.resize(port, |queue| queue.remove(&(queued, key)));
    }

    fn resize(&mut self, port: PortNo, change: impl FnOnce(&mut BTreeSet<(Nanos, Key)>) -> bool) {
        let queue = self.queues.entry(port).or_default();
        self.sizes.remove(&(queue.len(), port));
        self.len -= queue.len();
        change(queue);
        self.len += queue.len();
        if queue.is_empty() {
            self.queues.remove(&port);
        } else {
            self.sizes.insert((queue.len(), port));
        }
    }

    fn requeue(&mut self, port: PortNo, key: Key, from: Nanos, to: Nanos) {
        if let Some(queue) = self.queues.get_mut(&port) {
            queue.remove(&(from, key));
            queue.insert((to, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: u64 = 0x0200_0000_000a;
    const B: u64 = 0x0200_0000_000b;

    fn at(macs: &MacTable, vlan: u16, mac: u64) -> Option<u32> {
        macs.lookup(vlan, mac).0.map(|port| port.0)
    }

    #[test]
    fn addresses_are_learned_per_vlan_and_move() {
        let macs = MacTable::new(10, 10);
        let nowhere = macs.lookup(0, A).1;
        let learned = macs.learn(0, A, PortNo(1), 5);
        assert!(!macs.is_current(&nowhere) && macs.is_current(&learned));
        assert_eq!((at(&macs, 0, A), at(&macs, 1, A), at(&macs, 0, B)), (Some(1), None, None));
        assert_eq!(macs.learn(0, A, PortNo(1), 6), learned);
        macs.refresh(0, A, PortNo(1), 7);
        macs.refresh(0, A, PortNo(2), 8);
        assert!(macs.is_current(&learned), "nothing moved");
        macs.learn(0, A, PortNo(2), 9);
        assert!(!macs.is_current(&learned));
        assert_eq!((at(&macs, 0, A), macs.len()), (Some(2), 1));
    }

    #[test]
    fn group_addresses_are_not_learned() {
        let macs = MacTable::new(10, 10);
        macs.learn(0, 0xffff_ffff_ffff, PortNo(1), 0);
        macs.learn(0, 0x0100_5e00_0001, PortNo(1), 0);
        assert!(macs.is_empty());
    }

    #[test]
    fn addresses_age_unless_seen_again() {
        let macs = MacTable::new(10, 10);
        macs.learn(0, A, PortNo(1), 0);
        macs.learn(0, B, PortNo(1), 0);
        macs.refresh(0, A, PortNo(1), 50);
        let (_, dependency) = macs.lookup(0, B);
        assert_eq!((macs.expire(99, 100), macs.expire(100, 100)), (0, 1));
        assert!(!macs.is_current(&dependency));
        assert_eq!((at(&macs, 0, A), at(&macs, 0, B)), (Some(1), None));
        assert_eq!((macs.expire(149, 100), macs.expire(150, 100), macs.len()), (0, 1, 0));
    }

    #[test]
    fn who_floods_drives_out_its_own_addresses() {
        let macs = MacTable::new(DEFAULT_CAPACITY, DEFAULT_CAPACITY);
        for n in 0..1000 {
            macs.learn(0, n, PortNo(1), n);
        }
        for n in 0..100_000 {
            macs.learn(0, 0x0200_0000_0000 + n, PortNo(2), 1000 + n);
        }
        assert_eq!(macs.len(), DEFAULT_CAPACITY);
        assert!((0..1000).all(|n| at(&macs, 0, n) == Some(1)));
        assert_eq!((at(&macs, 0, 0x0200_0000_0000), at(&macs, 0, 0x0200_0000_0000 + 99_999)), (None, Some(2)));
        macs.learn(0, A << 8, PortNo(3), 200_000);
        assert_eq!((at(&macs, 0, A << 8), macs.len(), macs.flush(PortNo(1))), (Some(3), DEFAULT_CAPACITY, 1000));
    }

    #[test]
    fn workers_share_it() {
        let macs = MacTable::new(100, 60);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let macs = &macs;
                scope.spawn(move || {
                    let mut random = mix(worker, 1);
                    for now in 0..20_000 {
                        random = mix(random, 2);
                        let (mac, port) = (random >> 8 & 0xff, PortNo((random >> 32) as u32 % 5));
                        match random % 16 {
                            0 => _ = macs.expire(now, 1000),
                            1 => _ = macs.flush(port),
                            2..5 => macs.refresh(0, mac, port, now),
                            _ => _ = macs.learn(0, mac, port, now),
                        }
                        assert!(macs.len() <= 100);
                    }
                });
            }
        });
        let queued: usize = (0..5).map(|port| macs.population().count(PortNo(port))).sum();
        let stored: usize = macs.shards.iter().map(|shard| shard.lock().expect("no holder panics").len()).sum();
        assert_eq!((queued, stored), (macs.len(), macs.len()));
        let sizes: usize = macs.population().sizes.iter().map(|(size, _)| size).sum();
        assert_eq!(sizes, queued);
    }

    /// Says the same as the table, the slow way.
    #[derive(Default)]
    struct Reference(Vec<(Key, PortNo, Nanos)>);

    impl Reference {
        fn count(&self, port: PortNo) -> usize {
            self.0.iter().filter(|(_, other, _)| *other == port).count()
        }

        fn evict(&mut self, port: PortNo) {
            let oldest = self.0.iter().filter(|(_, other, _)| *other == port).min_by_key(|(key, _, seen)| (*seen, *key)).copied();
            self.0.retain(|entry| Some(*entry) != oldest);
        }

        fn learn(&mut self, key: Key, port: PortNo, now: Nanos, capacity: usize, per_port: usize) {
            if let Some((_, _, seen)) = self.0.iter_mut().find(|(other, at, _)| *other == key && *at == port) {
                *seen = now;
                return;
            }
            self.0.retain(|(other, _, _)| *other != key);
            if self.count(port) >= per_port {
                self.evict(port);
            } else if self.0.len() >= capacity {
                let most = (1..5).map(PortNo).max_by_key(|other| (self.count(*other), *other)).expect("there are ports");
                let own = self.count(port);
                self.evict(if own > 0 && own + 1 >= self.count(most) { port } else { most });
            }
            self.0.push((key, port, now));
        }
    }

    proptest! {
        #[test]
        fn answers_hold_as_long_as_they_are_current(operations in prop::collection::vec((0..10u8, 0..12u64, 1..5u32, 0..5u64), 0..300)) {
            let (capacity, per_port) = (8, 5);
            let macs = MacTable::new(capacity, per_port).seeded(7);
            let mut reference = Reference::default();
            let mut answers = Vec::new();
            let mut now = 0;
            for (operation, mac, port, time) in operations {
                let (key, port) = (Key::new(0, mac), PortNo(port));
                now += time;
                match operation {
                    0 => {
                        macs.expire(now, 20);
                        reference.0.retain(|(_, _, seen)| seen + 20 > now);
                    }
                    1 if time == 0 => {
                        macs.flush(port);
                        reference.0.retain(|(_, at, _)| *at != port);
                    }
                    2 | 3 => {
                        macs.refresh(0, mac, port, now);
                        if let Some(entry) = reference.0.iter_mut().find(|(other, at, _)| *other == key && *at == port) {
                            entry.2 = now;
                        }
                    }
                    _ => {
                        let dependency = macs.learn(0, mac, port, now);
                        reference.learn(key, port, now, capacity, per_port);
                        answers.push((mac, Some(port), dependency));
                    }
                }
                for mac in 0..12 {
                    let (found, dependency) = macs.lookup(0, mac);
                    prop_assert_eq!(found, reference.0.iter().find(|(key, _, _)| *key == Key::new(0, mac)).map(|(_, port, _)| *port));
                    answers.push((mac, found, dependency));
                }
                answers.retain(|(_, _, dependency)| macs.is_current(dependency));
                if answers.len() > 60 {
                    answers.drain(..20);
                }
                for (mac, answer, _) in &answers {
                    prop_assert_eq!(macs.lookup(0, *mac).0, *answer);
                }
                prop_assert_eq!(macs.len(), reference.0.len());
            }
        }
    }
}

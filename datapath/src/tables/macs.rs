//! Where Ethernet addresses were last seen: what NORMAL learns.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Nanos;
use crate::classifier::mix;
use crate::port::PortNo;

/// The default of [`MacTable::new`]'s capacity.
pub const DEFAULT_CAPACITY: usize = 8192;
/// How long an address is remembered, unless configured otherwise.
pub const DEFAULT_AGE: Nanos = 300 * 1_000_000_000;

const BUCKETS: usize = 4096;

/// The addresses learned, shared by all snapshots and workers.
#[derive(Debug)]
pub struct MacTable {
    entries: Mutex<BTreeMap<u64, Entry>>,
    generations: Box<[AtomicU32]>,
    capacity: usize,
    per_port: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    port: PortNo,
    used: Nanos,
}

/// What an answer of the table rests on: it holds as long as [`MacTable::is_current`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacDependency {
    bucket: u16,
    generation: u32,
}

impl MacDependency {
    /// An answer that does not hold.
    pub const NEVER: Self = Self { bucket: u16::MAX, generation: 0 };
}

impl MacTable {
    /// An empty table for `capacity` addresses in all and `per_port` on one port.
    pub fn new(capacity: usize, per_port: usize) -> Self {
        Self { entries: Mutex::default(), generations: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(), capacity, per_port }
    }

    fn key(vlan: u16, mac: u64) -> u64 {
        u64::from(vlan) << 48 | mac & 0xffff_ffff_ffff
    }

    fn bucket(key: u64) -> usize {
        mix(0, key) as usize % BUCKETS
    }

    fn dependency(&self, key: u64) -> MacDependency {
        let bucket = Self::bucket(key);
        MacDependency { bucket: bucket as u16, generation: self.generations[bucket].load(Ordering::Acquire) }
    }

    fn changed(&self, key: u64) {
        self.generations[Self::bucket(key)].fetch_add(1, Ordering::Release);
    }

    /// Remembers that `mac` (in the low 48 bits) was seen in `vlan` at `port`. Group addresses are never learned. The dependency holds as
    /// long as that is what the table says.
    pub fn learn(&self, vlan: u16, mac: u64, port: PortNo, now: Nanos) -> MacDependency {
        let key = Self::key(vlan, mac);
        if mac >> 40 & 1 != 0 {
            return self.dependency(key);
        }
        let mut entries = self.entries.lock().expect("no holder panics");
        let here = entries.values().filter(|entry| entry.port == port).count();
        if !entries.contains_key(&key) && (entries.len() >= self.capacity || here >= self.per_port) {
            return self.dependency(key);
        }
        let old = entries.insert(key, Entry { port, used: now });
        if old.is_none_or(|old| old.port != port) {
            self.changed(key);
        }
        self.dependency(key)
    }

    /// Where `mac` (in the low 48 bits) was last seen in `vlan`, and what that answer rests on.
    pub fn lookup(&self, vlan: u16, mac: u64) -> (Option<PortNo>, MacDependency) {
        let key = Self::key(vlan, mac);
        let entries = self.entries.lock().expect("no holder panics");
        (entries.get(&key).map(|entry| entry.port), self.dependency(key))
    }

    /// Whether the answer still holds. Cheap: one load.
    pub fn is_current(&self, dependency: &MacDependency) -> bool {
        self.generations.get(usize::from(dependency.bucket)).is_some_and(|now| now.load(Ordering::Acquire) == dependency.generation)
    }

    /// Remembers that `mac` was seen at `used` where the table has it, if that is `port`.
    pub fn refresh(&self, vlan: u16, mac: u64, port: PortNo, used: Nanos) {
        if let Some(entry) = self.entries.lock().expect("no holder panics").get_mut(&Self::key(vlan, mac))
            && entry.port == port
        {
            entry.used = entry.used.max(used);
        }
    }

    /// Forgets what was last seen before `now - age`. Returns how many.
    pub fn expire(&self, now: Nanos, age: Nanos) -> usize {
        self.forget(|entry| entry.used.saturating_add(age) <= now)
    }

    /// Forgets what was learned at `port`. Returns how many.
    pub fn flush(&self, port: PortNo) -> usize {
        self.forget(|entry| entry.port == port)
    }

    fn forget(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let mut entries = self.entries.lock().expect("no holder panics");
        let before = entries.len();
        entries.retain(|key, entry| {
            let forget = which(entry);
            if forget {
                self.changed(*key);
            }
            !forget
        });
        before - entries.len()
    }

    /// The number of addresses.
    pub fn len(&self) -> usize {
        self.entries.lock().expect("no holder panics").len()
    }

    /// Whether nothing was learned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

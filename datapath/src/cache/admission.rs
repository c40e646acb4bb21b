//! Admission: a flow is cached when it is seen for the second time.
//!
//! Very short flows (a port scan, a DNS look-up) then cost a translation but no entry. The filter is a table of the hashes last seen, two bytes
//! of each; a collision forgets one flow's first sighting, which delays its entry by a frame and changes nothing else. It remembers as many
//! flows as the cache may hold: with fewer, flows that take turns would forget each other, and none would ever be cached.

/// See the module.
pub(super) struct Admission {
    seen: Box<[u16]>,
}

impl Admission {
    /// A filter that remembers up to `entries` flows, rounded up to a power of two.
    pub fn new(entries: usize) -> Self {
        Self { seen: vec![0; entries.next_power_of_two()].into() }
    }

    /// Whether the flow of `hash` was seen before; from now on it was.
    pub fn admit(&mut self, hash: u64) -> bool {
        let tag = (hash >> 48) as u16 | 1;
        let seen = &mut self.seen[hash as usize & (self.seen.len() - 1)];
        std::mem::replace(seen, tag) == tag
    }
}

#[cfg(test)]
mod tests {
    use super::Admission;

    #[test]
    fn as_many_flows_as_fit_are_admitted_in_a_few_rounds() {
        let mut filter = Admission::new(1 << 12);
        let mut flows: Vec<u64> = (1..1 << 12).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        for _ in 0..10 {
            flows.retain(|hash| !filter.admit(*hash));
        }
        assert!(flows.is_empty(), "{}", flows.len());
    }

    #[test]
    fn the_second_sighting_is_admitted() {
        let mut filter = Admission::new(16);
        assert!(!filter.admit(0x1234_5678_9abc_def0));
        assert!(filter.admit(0x1234_5678_9abc_def0));
        assert!(!filter.admit(0x2234_5678_9abc_def0), "a collision is another flow");
        assert!(!filter.admit(0x1234_5678_9abc_def0), "and it took the place");
    }
}

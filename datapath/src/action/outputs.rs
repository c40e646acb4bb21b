//! Which frames of a batch go to which ports.

use crate::frame::BATCH;
use crate::port::PortNo;

/// For each port that frames of a batch go to, their slots in the order they were listed.
///
/// Listing and iterating cost what the ports in use cost, however many ports the switch has; and once warm nothing is allocated. The ports in
/// use are an array; an open-addressed table of their positions finds them by number. The table is never cleared: an element counts only
/// if the array's entry points back at it.
#[derive(Debug)]
pub struct OutputSets {
    /// The ports in use come first; those behind keep their memory for later.
    sets: Vec<Set>,
    used: usize,
    /// Positions in `sets`. The length is a power of two and at least twice `used`.
    table: Vec<u32>,
}

#[derive(Debug)]
struct Set {
    port: PortNo,
    /// The element of the table that leads here.
    element: u32,
    slots: Vec<u16>,
}

impl Default for OutputSets {
    fn default() -> Self {
        Self { sets: Vec::new(), used: 0, table: vec![0; 64] }
    }
}

impl OutputSets {
    /// Lists the frame in `slot` for `port`, behind those listed before.
    #[inline(always)]
    pub fn push(&mut self, port: PortNo, slot: u16) {
        // Neighbours in a batch mostly go the same way.
        match self.sets.get_mut(self.used.wrapping_sub(1)) {
            Some(last) if last.port == port => last.slots.push(slot),
            _ => self.push_elsewhere(port, slot),
        }
    }

    #[inline(never)]
    fn push_elsewhere(&mut self, port: PortNo, slot: u16) {
        let at = self.find(port);
        self.sets[at].slots.push(slot);
    }

    /// Each port in use and its slots. Ports come in the order they were first listed.
    pub fn iter(&self) -> impl Iterator<Item = (PortNo, &[u16])> {
        self.sets[..self.used].iter().map(|set| (set.port, &set.slots[..]))
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets all lists, and keeps their memory.
    pub fn clear(&mut self) {
        for set in &mut self.sets[..self.used] {
            set.slots.clear();
        }
        self.used = 0;
    }

    /// The position of a port's set, a new one if need be.
    fn find(&mut self, port: PortNo) -> usize {
        self.locate(port).unwrap_or_else(|element| self.add(port, element))
    }

    /// The position of a port's set, or else the element of the table that is to lead to it.
    fn locate(&self, port: PortNo) -> Result<usize, usize> {
        let last = self.table.len() - 1;
        let mut element = (u64::from(port.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & last;
        loop {
            let at = self.table[element] as usize;
            match self.sets[..self.used].get(at) {
                Some(set) if set.element as usize == element => {
                    if set.port == port {
                        return Ok(at);
                    }
                    element = (element + 1) & last;
                }
                _ => return Err(element),
            }
        }
    }

    #[cold]
    fn add(&mut self, port: PortNo, mut element: usize) -> usize {
        if 2 * (self.used + 1) > self.table.len() {
            self.table = vec![0; 2 * self.table.len()];
            let used = std::mem::take(&mut self.used);
            for at in 0..used {
                // Only the sets before this one count as yet.
                self.used = at;
                let Err(element) = self.locate(self.sets[at].port) else { unreachable!("a port has one set") };
                self.enter(at, element);
            }
            self.used = used;
            let Err(moved) = self.locate(port) else { unreachable!("the port has no set yet") };
            element = moved;
        }
        let at = self.used;
        if at == self.sets.len() {
            self.sets.push(Set { port, element: 0, slots: Vec::with_capacity(BATCH) });
        }
        self.sets[at].port = port;
        self.enter(at, element);
        self.used += 1;
        at
    }

    fn enter(&mut self, at: usize, element: usize) {
        self.table[element] = at as u32;
        self.sets[at].element = element as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_listed_by_port_in_order() {
        let mut outputs = OutputSets::default();
        assert!(outputs.is_empty());
        for (port, slot) in [(3, 0), (PortNo::LOCAL.0, 1), (3, 2), (3, 3), (PortNo::LOCAL.0, 0)] {
            outputs.push(PortNo(port), slot);
        }
        let lists: Vec<_> = outputs.iter().map(|(port, slots)| (port, slots.to_vec())).collect();
        assert_eq!(lists, [(PortNo(3), vec![0, 2, 3]), (PortNo::LOCAL, vec![1, 0])]);
        outputs.clear();
        assert!(outputs.is_empty());
        outputs.push(PortNo(4), 7);
        assert_eq!(outputs.iter().map(|(port, slots)| (port, slots.to_vec())).collect::<Vec<_>>(), [(PortNo(4), vec![7])]);
    }

    #[test]
    fn any_number_of_ports_is_found_again_breath_after_breath() {
        let mut outputs = OutputSets::default();
        for breath in 0..20u32 {
            let ports: Vec<u32> = (0..500).map(|i| (i * 7919 + breath * 13) ^ (i % 3) << 20).collect();
            for slot in 0..3 {
                for &port in &ports {
                    outputs.push(PortNo(port), slot);
                }
            }
            assert_eq!(outputs.iter().map(|(port, _)| port.0).collect::<Vec<_>>(), ports);
            assert!(outputs.iter().all(|(_, slots)| slots == [0, 1, 2]));
            outputs.clear();
        }
    }
}

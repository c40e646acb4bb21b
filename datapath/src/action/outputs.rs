//! Which frames of a batch go to which ports, and through which of OpenFlow's queues.

use crate::frame::BATCH;
use crate::port::PortNo;

/// For each port, and queue of it, that frames of a batch go to, their slots in the order they were listed.
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
    to: (PortNo, u32),
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
    /// Lists the frame in `slot` for a queue of `port`, 0 by default, behind those listed before.
    #[inline(always)]
    pub fn push(&mut self, port: PortNo, queue: u32, slot: u16) {
        // Neighbours in a batch mostly go the same way.
        match self.sets.get_mut(self.used.wrapping_sub(1)) {
            Some(last) if last.to == (port, queue) => last.slots.push(slot),
            _ => self.push_elsewhere((port, queue), slot),
        }
    }

    #[inline(never)]
    fn push_elsewhere(&mut self, to: (PortNo, u32), slot: u16) {
        let at = self.find(to);
        self.sets[at].slots.push(slot);
    }

    /// Each port in use, the queue of it, and its slots. They come in the order they were first listed.
    pub fn iter(&self) -> impl Iterator<Item = (PortNo, u32, &[u16])> {
        self.sets[..self.used].iter().map(|set| (set.to.0, set.to.1, &set.slots[..]))
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
    fn find(&mut self, to: (PortNo, u32)) -> usize {
        self.locate(to).unwrap_or_else(|element| self.add(to, element))
    }

    /// The position of a port's set, or else the element of the table that is to lead to it.
    fn locate(&self, to: (PortNo, u32)) -> Result<usize, usize> {
        let last = self.table.len() - 1;
        let number = u64::from(to.0.0) | u64::from(to.1) << 32;
        let mut element = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & last;
        loop {
            let at = self.table[element] as usize;
            match self.sets[..self.used].get(at) {
                Some(set) if set.element as usize == element => {
                    if set.to == to {
                        return Ok(at);
                    }
                    element = (element + 1) & last;
                }
                _ => return Err(element),
            }
        }
    }

    #[cold]
    fn add(&mut self, to: (PortNo, u32), mut element: usize) -> usize {
        if 2 * (self.used + 1) > self.table.len() {
            self.table = vec![0; 2 * self.table.len()];
            let used = std::mem::take(&mut self.used);
            for at in 0..used {
                // Only the sets before this one count as yet.
                self.used = at;
                let Err(element) = self.locate(self.sets[at].to) else { unreachable!("a port has one set") };
                self.enter(at, element);
            }
            self.used = used;
            let Err(moved) = self.locate(to) else { unreachable!("the port has no set yet") };
            element = moved;
        }
        let at = self.used;
        if at == self.sets.len() {
            self.sets.push(Set { to, element: 0, slots: Vec::with_capacity(BATCH) });
        }
        self.sets[at].to = to;
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
            outputs.push(PortNo(port), 0, slot);
        }
        outputs.push(PortNo(3), 2, 1);
        let lists = |outputs: &OutputSets| outputs.iter().map(|(port, queue, slots)| (port, queue, slots.to_vec())).collect::<Vec<_>>();
        assert_eq!(lists(&outputs), [(PortNo(3), 0, vec![0, 2, 3]), (PortNo::LOCAL, 0, vec![1, 0]), (PortNo(3), 2, vec![1])]);
        outputs.clear();
        assert!(outputs.is_empty());
        outputs.push(PortNo(4), 0, 7);
        assert_eq!(lists(&outputs), [(PortNo(4), 0, vec![7])]);
    }

    #[test]
    fn any_number_of_ports_is_found_again_breath_after_breath() {
        let mut outputs = OutputSets::default();
        for breath in 0..20u32 {
            let ports: Vec<u32> = (0..500).map(|i| (i * 7919 + breath * 13) ^ (i % 3) << 20).collect();
            for slot in 0..3 {
                for &port in &ports {
                    outputs.push(PortNo(port), 0, slot);
                }
            }
            assert_eq!(outputs.iter().map(|(port, ..)| port.0).collect::<Vec<_>>(), ports);
            assert!(outputs.iter().all(|(.., slots)| slots == [0, 1, 2]));
            outputs.clear();
        }
    }
}

//! The flow on its way through a pipeline, and where its bits come from. See the essay in [`super`].

use crate::key::{FLOW_WORDS, Field, Flow, FlowKey, FlowMask, KEY_WORDS, KeyMask, Prerequisite, Words, vlan};

/// The word of the outer TCI, in its low 16 bits, and that of the inner one, in its high 16 bits.
const OUTER: usize = 2;
const INNER: usize = 3;
const TCI: u64 = 0xffff;
const INNER_SHIFT: u32 = 48;
/// The bits of the TTL, which the inner TCI shares its word with.
const TTL: u64 = 0xff;
/// In a TCI: there is a tag.
const PRESENT: u64 = vlan::PRESENT as u64;

/// A flow, which of its bits no longer depend on the frame, and the bits of the frame's key that were looked at.
#[derive(Debug)]
pub(super) struct TrackedFlow {
    flow: Flow,
    /// These bits are constants.
    written: FlowMask,
    examined: KeyMask,
    /// The TTL's unwritten bits come from the key's TTL, but are not equal to them.
    ttl_derived: bool,
    /// The outer TCI's unwritten bits are those of the key's inner TCI.
    outer_is_inner: bool,
}

impl TrackedFlow {
    /// The flow of a frame that comes in. Its state is zero and known.
    pub fn new(key: &FlowKey) -> Self {
        let written = Words(std::array::from_fn(|i| if i < KEY_WORDS { 0 } else { u64::MAX }));
        Self { flow: Flow::new(key), written, examined: KeyMask::ZERO, ttl_derived: false, outer_is_inner: false }
    }

    /// The flow as it is now. Whoever goes by its bits says so with [`TrackedFlow::examine`].
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The bits of the key that were looked at so far.
    pub fn examined(&self) -> KeyMask {
        self.examined
    }

    /// Notes that the outcome depends on the bits `mask` of the flow as it is now.
    pub fn examine(&mut self, mask: &FlowMask) {
        let mut bits: KeyMask = Words(std::array::from_fn(|i| mask.0[i] & !self.written.0[i]));
        if self.outer_is_inner {
            bits.0[INNER] |= bits.0[OUTER] << INNER_SHIFT;
            bits.0[OUTER] &= !TCI;
        }
        if self.ttl_derived && bits.0[INNER] & TTL != 0 {
            bits.0[INNER] |= TTL;
        }
        self.examined.include(&bits);
    }

    /// The same for a single word.
    fn examine_word(&mut self, word: usize, mask: u64) {
        let mut bits = mask & !self.written.0[word];
        if word >= KEY_WORDS || bits == 0 {
            return;
        }
        if word == OUTER && self.outer_is_inner {
            self.examined.0[INNER] |= bits << INNER_SHIFT;
            bits &= !TCI;
        }
        if word == INNER && self.ttl_derived && bits & TTL != 0 {
            bits |= TTL;
        }
        self.examined.0[word] |= bits;
    }

    /// The bits `mask` of a field, which are examined.
    pub fn read(&mut self, field: Field, mask: u128) -> u128 {
        let info = field.info();
        let (word, mask) = (usize::from(info.word), mask & field.ones());
        if info.bits > 64 {
            self.examine_word(word, (mask >> 64) as u64);
            self.examine_word(word + 1, mask as u64);
        } else {
            self.examine_word(word, (mask as u64) << info.shift);
        }
        field.read(&self.flow) & mask
    }

    /// Writes constants into the bits `mask` of a field.
    pub fn write(&mut self, field: Field, value: u128, mask: u128) {
        let old = field.read(&self.flow);
        field.write(&mut self.flow, old & !mask | value & mask);
        let written = field.read(&self.written);
        field.write(&mut self.written, written | mask);
    }

    /// Whether the flow meets a prerequisite. What decides that is examined, and no more.
    pub fn meets(&mut self, prerequisite: Prerequisite) -> bool {
        prerequisite.requirements().iter().all(|required| {
            let value = self.read(required.field, required.mask);
            required.values.is_empty() || required.values.contains(&value)
        })
    }

    /// Puts another ingress port there, and returns what it takes to undo that.
    pub fn pretend_in_port(&mut self, port: u32) -> (u64, u64) {
        let saved = (self.flow.0[0], self.written.0[0]);
        self.write(Field::InPort, u128::from(port), Field::InPort.ones());
        saved
    }

    /// Undoes [`TrackedFlow::pretend_in_port`].
    pub fn restore_in_port(&mut self, saved: (u64, u64)) {
        (self.flow.0[0], self.written.0[0]) = saved;
    }

    /// Decrements the TTL, without looking at it if that can be helped.
    pub fn decrement_ttl(&mut self) {
        let known = self.written.0[INNER] & TTL;
        if known == 0 {
            self.ttl_derived = true;
        } else if known != TTL {
            // Borrowing mixes constant bits with bits of the frame.
            self.read(Field::NwTtl, Field::NwTtl.ones());
            self.written.0[INNER] |= TTL;
        }
        let ttl = Field::NwTtl.read(&self.flow) as u8;
        Field::NwTtl.write(&mut self.flow, u128::from(ttl.wrapping_sub(1)));
    }

    /// Whether there is a VLAN tag.
    pub fn is_tagged(&mut self) -> bool {
        self.read(Field::VlanTci, PRESENT.into()) != 0
    }

    /// Puts a tag outside of the others. The new one has the VLAN and priority of the outermost one; zeros if there is none.
    pub fn push_vlan(&mut self) {
        let inner = if self.is_tagged() {
            // The bits are copied, and so looked at: what was the outer tag is a constant from here on, twice.
            self.read(Field::VlanTci, TCI.into()) as u64
        } else {
            0
        };
        self.set_outer(if inner == 0 { PRESENT } else { inner });
        self.set_inner(inner);
    }

    /// Takes the outermost tag off.
    pub fn pop_vlan(&mut self) {
        let tci = self.flow.0[INNER] >> INNER_SHIFT;
        self.set_outer(tci);
        if self.written.0[INNER] >> INNER_SHIFT == 0 {
            self.written.0[OUTER] &= !TCI;
            self.outer_is_inner = true;
        }
        // A third tag would come up here. The key does not know it, and says that there is none.
        self.set_inner(0);
    }

    fn set_outer(&mut self, tci: u64) {
        self.flow.0[OUTER] = self.flow.0[OUTER] & !TCI | tci;
        self.written.0[OUTER] |= TCI;
    }

    fn set_inner(&mut self, tci: u64) {
        self.flow.0[INNER] = self.flow.0[INNER] << 16 >> 16 | tci << INNER_SHIFT;
        self.written.0[INNER] |= TCI << INNER_SHIFT;
    }
}

// The places that this module knows by number.
const _: () = {
    let tci = Field::VlanTci.info();
    let ttl = Field::NwTtl.info();
    assert!(tci.word as usize == OUTER && tci.shift == 0 && ttl.word as usize == INNER && ttl.shift == 0);
    assert!(KEY_WORDS < FLOW_WORDS);
};

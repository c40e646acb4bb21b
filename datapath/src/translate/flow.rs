//! The flow on its way through a pipeline, and where its bits come from. See the essay in [`super`].

use super::frozen::Kept;
use crate::key::{FLOW_WORDS, Field, Flow, FlowKey, FlowMask, KEY_WORDS, KeyMask, Prerequisite, Words, fragment, vlan};
use crate::wire::ethernet::ethertype;
use crate::wire::mpls::BOTTOM_OF_STACK;

/// The word of the outer TCI, in its low 16 bits, and that of the inner one, in its high 16 bits.
const OUTER: usize = 2;
const INNER: usize = 3;
const TCI: u64 = 0xffff;
const INNER_SHIFT: u32 = 48;
/// The bits of the TTL, which the inner TCI shares its word with.
const TTL: u64 = 0xff;
/// In a TCI: there is a tag.
const PRESENT: u64 = vlan::PRESENT as u64;
/// The words of the MPLS entries: the first two, and the third in the high bits.
const MPLS: usize = 15;

/// The bits that describe the headers behind the Ethernet header and its VLAN tags.
const BEHIND: FlowMask = {
    let mut words = [0; FLOW_WORDS];
    words[INNER] = 0xff_ffff_ffff;
    let mut word = INNER + 1;
    while word <= 16 {
        words[word] = u64::MAX;
        word += 1;
    }
    Words(words)
};

/// The outcome depends on bits of a field that only the frame, as it is then, tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown;

/// A flow, which of its bits no longer depend on the frame's key, and the bits of that key that were looked at.
#[derive(Debug, Default)]
pub(super) struct TrackedFlow {
    view: View,
    examined: KeyMask,
}

/// How the flow looks at some point of the pipeline.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    flow: Flow,
    /// These bits are not those of the key: they are constants, or unknown.
    written: FlowMask,
    /// These are unknown. (What is no part of the key is always known.)
    unknown: KeyMask,
    /// Whether any are.
    has_unknown: bool,
    /// The TTL's unwritten bits come from the key's TTL, but are not equal to them.
    ttl_derived: bool,
    /// The outer TCI's unwritten bits are those of the key's inner TCI.
    outer_is_inner: bool,
}

impl TrackedFlow {
    /// Becomes the flow of a frame that comes in. Its state is zero and known.
    pub fn begin(&mut self, key: &FlowKey) {
        let Self { view, examined } = self;
        view.flow.0[..KEY_WORDS].copy_from_slice(&key.0);
        view.flow.0[KEY_WORDS..].fill(0);
        view.written.0[..KEY_WORDS].fill(0);
        view.written.0[KEY_WORDS..].fill(u64::MAX);
        if view.has_unknown {
            view.unknown = KeyMask::ZERO;
        }
        (view.has_unknown, view.ttl_derived, view.outer_is_inner) = (false, false, false);
        *examined = KeyMask::ZERO;
    }

    /// Becomes the flow of a frame that goes on with a translation that was frozen.
    pub fn resume(&mut self, key: &FlowKey, kept: &Kept) {
        self.begin(key);
        kept.put_back(&mut self.view.flow, &mut self.view.written);
    }

    /// What has to be kept of it to go on later.
    pub fn keep(&self) -> Kept {
        Kept::of(&self.view.flow, &self.view.written)
    }

    /// The flow as it is now, unknown bits being zero. Whoever goes by its bits says so with [`TrackedFlow::examine`].
    pub fn flow(&self) -> &Flow {
        &self.view.flow
    }

    /// The bits of it that are unknown.
    pub fn unknown(&self) -> &KeyMask {
        &self.view.unknown
    }

    /// The bits of the key that were looked at so far.
    pub fn examined(&self) -> &KeyMask {
        &self.examined
    }

    /// How it looks now, to be [restored](Self::restore).
    pub fn save(&self) -> View {
        self.view.clone()
    }

    /// Lets it look again as it did. What was examined stays so.
    pub fn restore(&mut self, view: View) {
        self.view = view;
    }

    /// Notes that the outcome depends on the bits `mask` of the flow as it is now. If some are unknown, that it comes to look at these depends on the others.
    pub fn examine(&mut self, mask: &FlowMask) -> Result<(), Unknown> {
        let View { written, unknown, .. } = &self.view;
        let mut bits: KeyMask = Words(std::array::from_fn(|i| mask.0[i] & !written.0[i]));
        if self.view.outer_is_inner {
            bits.0[INNER] |= bits.0[OUTER] << INNER_SHIFT;
            bits.0[OUTER] &= !TCI;
        }
        if self.view.ttl_derived && bits.0[INNER] & TTL != 0 {
            bits.0[INNER] |= TTL;
        }
        self.examined.include(&bits);
        let looks = self.view.has_unknown && unknown.0.iter().zip(&mask.0).any(|(unknown, mask)| unknown & mask != 0);
        if looks { Err(Unknown) } else { Ok(()) }
    }

    /// The same for a single word.
    pub fn examine_word(&mut self, word: usize, mask: u64) -> Result<(), Unknown> {
        if word >= KEY_WORDS {
            return Ok(());
        }
        let looks = if mask & self.view.unknown.0[word] != 0 { Err(Unknown) } else { Ok(()) };
        let mut bits = mask & !self.view.written.0[word];
        if bits == 0 {
            return looks;
        }
        if word == OUTER && self.view.outer_is_inner {
            self.examined.0[INNER] |= bits << INNER_SHIFT;
            bits &= !TCI;
        }
        if word == INNER && self.view.ttl_derived && bits & TTL != 0 {
            bits |= TTL;
        }
        self.examined.0[word] |= bits;
        looks
    }

    /// The bits `mask` of a field, which are examined.
    pub fn read(&mut self, field: Field, mask: u128) -> Result<u128, Unknown> {
        let info = field.info();
        let (word, mask) = (usize::from(info.word), mask & field.ones());
        if info.bits > 64 {
            self.examine_word(word, (mask >> 64) as u64)?;
            self.examine_word(word + 1, mask as u64)?;
        } else {
            self.examine_word(word, (mask as u64) << info.shift)?;
        }
        Ok(field.read(&self.view.flow) & mask)
    }

    /// Writes constants into the bits `mask` of a field.
    pub fn write(&mut self, field: Field, value: u128, mask: u128) {
        let view = &mut self.view;
        let old = field.read(&view.flow);
        field.write(&mut view.flow, old & !mask | value & mask);
        let written = field.read(&view.written);
        field.write(&mut view.written, written | mask);
        if view.has_unknown {
            let mut known = FlowMask::ZERO;
            field.write(&mut known, mask);
            view.unknown.0.iter_mut().zip(&known.0).for_each(|(unknown, known)| *unknown &= !known);
        }
    }

    /// These bits are zeros from here on.
    fn blank(&mut self, mask: &FlowMask) {
        let view = &mut self.view;
        for (i, mask) in mask.0[..KEY_WORDS].iter().enumerate() {
            view.flow.0[i] &= !mask;
            view.written.0[i] |= mask;
            view.unknown.0[i] &= !mask;
        }
    }

    /// These bits are from here on what the frame says then.
    fn doubt(&mut self, mask: &FlowMask) {
        self.blank(mask);
        self.view.unknown.include(&mask.key());
        self.view.has_unknown = true;
    }

    /// A field is from here on what the frame says then.
    pub fn doubt_field(&mut self, field: Field) {
        self.doubt(&field.mask());
    }

    /// Fails if an MPLS entry or an I-TAG was popped, and it is unknown what came up. Who writes there needs to know where the headers are.
    pub fn must_know_headers(&self) -> Result<(), Unknown> {
        if self.view.unknown.0[INNER] & BEHIND.0[INNER] == BEHIND.0[INNER] { Err(Unknown) } else { Ok(()) }
    }

    /// Whether the flow meets a prerequisite. What decides that is examined, and no more.
    pub fn meets(&mut self, prerequisite: Prerequisite) -> Result<bool, Unknown> {
        for required in prerequisite.requirements() {
            let value = self.read(required.field, required.mask)?;
            if !required.values.is_empty() && !required.values.contains(&value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the frame is a fragment other than the first, so that it has no transport header.
    pub fn is_later_fragment(&mut self) -> Result<bool, Unknown> {
        Ok(self.read(Field::IpFrag, fragment::LATER.into())? != 0)
    }

    /// Puts another ingress port there, and returns what it takes to undo that.
    pub fn pretend_in_port(&mut self, port: u32) -> (u64, u64) {
        let saved = (self.view.flow.0[0], self.view.written.0[0]);
        self.write(Field::InPort, u128::from(port), Field::InPort.ones());
        saved
    }

    /// Undoes [`TrackedFlow::pretend_in_port`].
    pub fn restore_in_port(&mut self, saved: (u64, u64)) {
        (self.view.flow.0[0], self.view.written.0[0]) = saved;
    }

    /// Decrements the TTL, without looking at it if that can be helped.
    pub fn decrement_ttl(&mut self) -> Result<(), Unknown> {
        if self.view.unknown.0[INNER] & TTL != 0 {
            return Ok(());
        }
        let known = self.view.written.0[INNER] & TTL;
        if known == 0 {
            self.view.ttl_derived = true;
        } else if known != TTL {
            // Borrowing mixes constant bits with bits of the frame.
            self.read(Field::NwTtl, Field::NwTtl.ones())?;
            self.view.written.0[INNER] |= TTL;
        }
        let ttl = Field::NwTtl.read(&self.view.flow) as u8;
        Field::NwTtl.write(&mut self.view.flow, u128::from(ttl.wrapping_sub(1)));
        Ok(())
    }

    /// Whether there is a VLAN tag.
    pub fn is_tagged(&mut self) -> Result<bool, Unknown> {
        Ok(self.read(Field::VlanTci, PRESENT.into())? != 0)
    }

    /// Whether there is a second VLAN tag.
    fn is_tagged_twice(&mut self) -> Result<bool, Unknown> {
        self.examine_word(INNER, PRESENT << INNER_SHIFT)?;
        Ok(self.view.flow.0[INNER] >> INNER_SHIFT & PRESENT != 0)
    }

    /// Puts a tag outside of the others. The new one has the VLAN and priority of the outermost one; zeros if there is none.
    pub fn push_vlan(&mut self) -> Result<(), Unknown> {
        let inner = if self.is_tagged()? {
            // The bits are copied, and so looked at: what was the outer tag is a constant from here on, twice.
            let tci = self.read(Field::VlanTci, TCI.into())? as u64;
            if self.is_tagged_twice()? {
                // The key has two tags. A third one looks like what is behind them.
                self.doubt_network();
            }
            tci
        } else {
            0
        };
        self.set_outer(if inner == 0 { PRESENT } else { inner });
        self.set_inner(inner);
        Ok(())
    }

    /// Takes the outermost tag off.
    pub fn pop_vlan(&mut self) -> Result<(), Unknown> {
        let third = self.is_tagged_twice()? && ethertype::is_vlan(self.read(Field::EthType, u128::MAX)? as u16);
        let tci = self.view.flow.0[INNER] >> INNER_SHIFT;
        self.set_outer(tci);
        if self.view.written.0[INNER] >> INNER_SHIFT == 0 {
            self.view.written.0[OUTER] &= !TCI;
            self.view.outer_is_inner = true;
        }
        self.set_inner(0);
        if third {
            // It comes up here, and the key does not know it.
            self.doubt(&vlan::INNER_MASK);
            self.doubt_network();
        }
        Ok(())
    }

    fn set_outer(&mut self, tci: u64) {
        let view = &mut self.view;
        view.flow.0[OUTER] = view.flow.0[OUTER] & !TCI | tci;
        view.written.0[OUTER] |= TCI;
    }

    fn set_inner(&mut self, tci: u64) {
        let view = &mut self.view;
        view.flow.0[INNER] = view.flow.0[INNER] << 16 >> 16 | tci << INNER_SHIFT;
        view.written.0[INNER] |= TCI << INNER_SHIFT;
    }

    /// What is behind the Ethernet header and its tags is from here on what the frame says then.
    fn doubt_network(&mut self) {
        self.doubt(&BEHIND);
        self.doubt_field(Field::EthType);
    }

    /// Another header begins behind the Ethernet header and its tags.
    fn put_behind(&mut self, kind: u16, header: u64, word: usize) {
        self.blank(&BEHIND);
        self.write(Field::EthType, kind.into(), u128::MAX);
        self.view.flow.0[word] |= header;
    }

    /// Puts an MPLS entry outside of the others.
    pub fn push_mpls(&mut self, kind: u16) -> Result<(), Unknown> {
        let is_ip = self.meets(Prerequisite::Ip)?;
        if self.meets(Prerequisite::Mpls)? {
            // What is copied is looked at.
            self.examine_word(MPLS, u64::MAX)?;
            let entries = self.view.flow.0[MPLS];
            let outermost = entries >> 32 & !u64::from(BOTTOM_OF_STACK);
            self.put_behind(kind, outermost << 32 | entries >> 32, MPLS);
            self.view.flow.0[MPLS + 1] |= entries << 32;
        } else {
            self.put_behind(kind, u64::from(BOTTOM_OF_STACK) << 32, MPLS);
            if is_ip {
                // The frame's own.
                self.doubt_field(Field::MplsTtl);
            }
        }
        Ok(())
    }

    /// Takes the outermost MPLS entry off. What is under it is only known once the frame is looked at again.
    pub fn pop_mpls(&mut self, kind: u16) {
        self.doubt(&BEHIND);
        if ethertype::is_vlan(kind) || kind < ethertype::MIN {
            self.doubt(&vlan::OUTER_MASK);
            self.doubt(&vlan::INNER_MASK);
            self.doubt_field(Field::EthType);
        } else {
            self.write(Field::EthType, kind.into(), u128::MAX);
        }
    }

    /// The TTL of the outermost MPLS entry was copied to the next header, or so was, or was decremented.
    pub fn change_mpls_ttl(&mut self) {
        let mut ttls = Field::MplsTtl.mask();
        ttls.0[MPLS] |= TTL;
        self.doubt(&ttls);
    }

    /// Puts an I-TAG outside of all others. The Ethernet header outside of it has the addresses of the one inside.
    pub fn push_pbb(&mut self) -> Result<(), Unknown> {
        let isid = if self.meets(Prerequisite::Pbb)? { self.read(Field::PbbIsid, u128::MAX)? } else { 0 };
        self.put_behind(ethertype::PBB, 0, MPLS);
        self.write(Field::PbbIsid, isid, u128::MAX);
        self.blank(&vlan::OUTER_MASK);
        self.blank(&vlan::INNER_MASK);
        Ok(())
    }

    /// Takes the I-TAG and the Ethernet header outside of it off.
    pub fn pop_pbb(&mut self) {
        self.doubt(&vlan::OUTER_MASK);
        self.doubt(&vlan::INNER_MASK);
        self.doubt_field(Field::EthDst);
        self.doubt_field(Field::EthSrc);
        self.doubt_network();
    }
}

// The places that this module knows by number.
const _: () = {
    let tci = Field::VlanTci.info();
    let ttl = Field::NwTtl.info();
    let entry = Field::MplsTtl.info();
    assert!(tci.word as usize == OUTER && tci.shift == 0 && ttl.word as usize == INNER && ttl.shift == 0);
    assert!(entry.word as usize == MPLS && entry.shift == 32);
    assert!(KEY_WORDS < FLOW_WORDS);
};

//! VLAN tags in a flow key.
//!
//! The outer tag's TCI is a field. The inner one's TCI and both TPIDs are not, but the key has them, so that a pipeline can pop a tag and know
//! what is under it. A tag that is there has bit 12 set in its TCI, where a frame has the drop eligible indicator.

use super::{FLOW_WORDS, Flow, FlowMask, Words};
use crate::wire::ethernet::ethertype;
use crate::wire::vlan::DEI;

/// In a TCI of a flow key: there is a tag (`OFPVID_PRESENT`).
pub const PRESENT: u16 = DEI;

/// The word with the inner TCI in its upper 16 bits and the TPIDs in the 8 bits below: four bits for the outer one, then four for the inner one,
/// each 0 (no tag), 1 (0x8100) or 2 (0x88a8).
pub(super) const INNER_WORD: usize = 3;
/// The word with the outer TCI in its lower 16 bits.
const OUTER_WORD: usize = 2;
const INNER_TCI: u32 = 48;
const OUTER_TPID: u32 = 44;
const INNER_TPID: u32 = 40;

/// A VLAN tag that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its Ethernet type: 0x88a8, or else 0x8100.
    pub tpid: u16,
    /// Its TCI, with [`PRESENT`] set.
    pub tci: u16,
}

impl Tag {
    /// A tag; [`PRESENT`] is set.
    pub const fn new(tpid: u16, tci: u16) -> Self {
        Self { tpid, tci: tci | PRESENT }
    }

    fn tpid_code(self) -> u64 {
        if self.tpid == ethertype::SERVICE_VLAN { 2 } else { 1 }
    }
}

fn tpid(code: u64) -> u16 {
    if code & 0xf == 2 { ethertype::SERVICE_VLAN } else { ethertype::VLAN }
}

/// All of [`INNER_WORD`] that is about VLANs.
pub(super) fn inner_word(outer: Option<Tag>, inner: Option<Tag>) -> u64 {
    let inner = inner.map_or(0, |tag| u64::from(tag.tci) << INNER_TCI | tag.tpid_code() << INNER_TPID);
    inner | outer.map_or(0, |tag| tag.tpid_code() << OUTER_TPID)
}

/// The bits that say what the outer tag is.
pub const OUTER_MASK: FlowMask = mask(0xffff, 0xf << OUTER_TPID);
/// The bits that say what the inner tag is.
pub const INNER_MASK: FlowMask = mask(0, 0xffff << INNER_TCI | 0xf << INNER_TPID);

const fn mask(outer: u64, inner: u64) -> FlowMask {
    let mut words = [0; FLOW_WORDS];
    words[OUTER_WORD] = outer;
    words[INNER_WORD] = inner;
    Words(words)
}

/// The outer tag.
pub fn outer(flow: &Flow) -> Option<Tag> {
    let tci = flow.0[OUTER_WORD] as u16;
    (tci & PRESENT != 0).then(|| Tag { tpid: tpid(flow.0[INNER_WORD] >> OUTER_TPID), tci })
}

/// The inner tag.
pub fn inner(flow: &Flow) -> Option<Tag> {
    let tci = (flow.0[INNER_WORD] >> INNER_TCI) as u16;
    (tci & PRESENT != 0).then(|| Tag { tpid: tpid(flow.0[INNER_WORD] >> INNER_TPID), tci })
}

/// Writes both tags. There is no inner tag without an outer one.
pub fn set(flow: &mut Flow, outer: Option<Tag>, inner: Option<Tag>) {
    let inner = outer.and(inner);
    flow.0[OUTER_WORD] = flow.0[OUTER_WORD] & !0xffff | outer.map_or(0, |tag| u64::from(tag.tci));
    flow.0[INNER_WORD] = flow.0[INNER_WORD] & !(INNER_MASK.0[INNER_WORD] | OUTER_MASK.0[INNER_WORD]) | inner_word(outer, inner);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_what_was_set() {
        let (customer, service) = (Tag::new(0x8100, 0x6005), Tag::new(0x88a8, 100));
        for (outer_tag, inner_tag) in
            [(None, None), (Some(customer), None), (Some(service), Some(customer)), (Some(customer), Some(service))]
        {
            let mut flow = Words([u64::MAX; FLOW_WORDS]);
            set(&mut flow, outer_tag, inner_tag);
            assert_eq!((outer(&flow), inner(&flow)), (outer_tag, inner_tag));
            flow.include(&OUTER_MASK);
            flow.include(&INNER_MASK);
            assert_eq!(flow, Words([u64::MAX; FLOW_WORDS]));
        }
    }
}

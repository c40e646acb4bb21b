//! What a rule looks for in a flow.

use super::{Field, Flow, FlowKey, FlowMask, KeyMask, Words, vlan};

/// The flows that a rule is for: all that agree with `value` in the bits of `mask`.
///
/// Bits of `value` outside `mask` are zero, so that equal matches compare equal. A field with a prerequisite is only meaningful together with
/// what it asks for; the builder does not add that by itself (it can't: `ip_proto` may be of IPv4 or of IPv6), [`Match::permits`] says
/// whether it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    value: Flow,
    mask: FlowMask,
}

/// One field of a [`Match`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldMatch {
    /// Which.
    pub field: Field,
    /// Its value, in the bits of `mask`.
    pub value: u128,
    /// The bits that count, at least one.
    pub mask: u128,
}

impl FieldMatch {
    /// Whether all bits of the field count.
    pub fn is_exact(&self) -> bool {
        self.mask == self.field.ones()
    }
}

impl Match {
    /// The match of every flow.
    pub const ANY: Self = Self { value: Words::ZERO, mask: Words::ZERO };

    /// The match of the flows that agree with `value` in the bits of `mask`.
    pub fn new(value: &Flow, mask: &FlowMask) -> Self {
        Self { value: value.masked(mask), mask: *mask }
    }

    /// The match of the flows whose key agrees with `key` in the bits of `mask`: what a cached flow is for.
    pub fn of_key(key: &FlowKey, mask: &KeyMask) -> Self {
        Self::new(&Flow::new(key), &FlowMask::new(mask))
    }

    /// The values looked for; zero where they don't count.
    pub fn value(&self) -> &Flow {
        &self.value
    }

    /// The bits that count.
    pub fn mask(&self) -> &FlowMask {
        &self.mask
    }

    /// Also asks for `value` in all of `field`; replaces what was asked of it.
    #[must_use]
    pub fn with(self, field: Field, value: u128) -> Self {
        self.with_masked(field, value, u128::MAX)
    }

    /// Also asks for `value` in the bits `mask` of `field`; replaces what was asked of it.
    #[must_use]
    pub fn with_masked(mut self, field: Field, value: u128, mut mask: u128) -> Self {
        let present = u128::from(vlan::PRESENT);
        match field {
            // Ports that OpenFlow 1.0 has no number for are never meant, so all 32 bits are known.
            Field::InPortNxm => return self.with_masked(Field::InPort, widen_port(value), if mask == 0 { 0 } else { u128::MAX }),
            // Without a tag there is no priority to ask for.
            Field::VlanTci if mask & present != 0 && value & present == 0 => mask &= Field::VlanVid.ones(),
            _ => (),
        }
        field.write(&mut self.value, value & mask);
        field.write(&mut self.mask, mask);
        self
    }

    /// Whether what `field` needs in order to mean something is asked for already.
    pub fn permits(&self, field: Field) -> bool {
        field.info().prerequisite.is_met(&self.value, &self.mask)
    }

    /// Whether it is for `flow`.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.value.agrees(flow, &self.mask)
    }

    /// Whether every flow that `other` is for, this is for too.
    pub fn includes(&self, other: &Self) -> bool {
        self.mask.masked(&other.mask) == self.mask && self.value.agrees(&other.value, &self.mask)
    }

    /// Whether there are flows that both are for.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.value.agrees(&other.value, &self.mask.masked(&other.mask))
    }

    /// What is asked of `field`.
    pub fn get(&self, field: Field) -> Option<FieldMatch> {
        let mask = field.read(&self.mask);
        (mask != 0).then(|| FieldMatch { field, value: field.read(&self.value), mask })
    }

    /// The fields asked for, none of them views, in an order in which prerequisites come first. Of fields that share a place, the one whose
    /// prerequisites are asked for too.
    pub fn fields(&self) -> impl Iterator<Item = FieldMatch> + '_ {
        Field::in_words(self.mask.occupied()).filter_map(|field| self.get(field)).filter(|found| self.permits(found.field))
    }
}

/// OpenFlow 1.0's 16 bits of a port number in 32: the reserved ports, from 0xff00, move up.
fn widen_port(value: u128) -> u128 {
    let value = value & 0xffff;
    if value >= 0xff00 { value | 0xffff_0000 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_looks_at_its_bits_only() {
        let matching = Match::ANY.with(Field::EthType, 0x0800).with_masked(Field::Ipv4Src, 0x0a00_0001, 0xffff_ff00);
        let mut flow = Flow::ZERO;
        assert!(Match::ANY.matches(&flow) && !matching.matches(&flow));
        Field::EthType.write(&mut flow, 0x0800);
        Field::Ipv4Src.write(&mut flow, 0x0a00_00ff);
        assert!(matching.matches(&flow));
        Field::Ipv4Src.write(&mut flow, 0x0a00_01ff);
        assert!(!matching.matches(&flow));
    }

    #[test]
    fn fields_that_share_a_place_are_told_apart() {
        let udp = Match::ANY.with(Field::EthType, 0x86dd).with(Field::IpProto, 17).with(Field::UdpDst, 53);
        let fields: Vec<_> = udp.fields().map(|found| (found.field, found.value)).collect();
        assert_eq!(fields, [(Field::EthType, 0x86dd), (Field::IpProto, 17), (Field::UdpDst, 53)]);
        let solicitation = Match::ANY
            .with(Field::EthType, 0x86dd)
            .with(Field::IpProto, 58)
            .with(Field::Icmpv6Type, 135)
            .with(Field::Icmpv6Code, 0)
            .with(Field::NdSll, 0x0200_0000_0001);
        let last = solicitation.fields().last().expect("there are fields");
        assert_eq!((last.field, last.value, last.is_exact()), (Field::NdSll, 0x0200_0000_0001, true));
        assert!(!solicitation.permits(Field::NdTll) && solicitation.permits(Field::NdTarget));
    }

    #[test]
    fn a_port_of_sixteen_bits_is_a_port() {
        assert_eq!(Match::ANY.with(Field::InPortNxm, 0xfffe), Match::ANY.with(Field::InPort, 0xffff_fffe));
        assert_eq!(Match::ANY.with(Field::InPortNxm, 7), Match::ANY.with(Field::InPort, 7));
    }

    #[test]
    fn inclusion_and_overlap() {
        let net = Match::ANY.with(Field::EthType, 0x0800).with_masked(Field::Ipv4Src, 0x0a00_0000, 0xff00_0000);
        let host = net.with(Field::Ipv4Src, 0x0a01_0203);
        let other = net.with(Field::Ipv4Src, 0x0b01_0203);
        assert!(net.includes(&host) && !host.includes(&net) && Match::ANY.includes(&net) && !net.includes(&other));
        assert!(net.overlaps(&host) && host.overlaps(&net) && !host.overlaps(&other));
        assert!(host.overlaps(&Match::ANY.with(Field::InPort, 1)));
    }
}

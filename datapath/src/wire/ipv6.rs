//! IPv6 (RFC 8200) and its extension headers.

use super::ipv4::proto;

view! {
    /// An IPv6 header.
    Ipv6 [40] {
        /// Version (4 bits), traffic class (8), flow label (20).
        version_class_label, set_version_class_label: u32 at 0;
        /// The length of what follows, extension headers included.
        payload_len, set_payload_len: u16 at 4;
        /// What follows: see [`proto`].
        next_header, set_next_header: u8 at 6;
        /// Hop limit.
        hop_limit, set_hop_limit: u8 at 7;
        /// Source address.
        src, set_src: u128 at 8;
        /// Destination address.
        dst, set_dst: u128 at 24;
    }
}

impl<T: std::ops::Deref<Target = [u8; 40]>> Ipv6<T> {
    /// Traffic class: DSCP (6 bits) and ECN (2 bits).
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_label() >> 20) as u8
    }

    /// Flow label.
    #[inline(always)]
    pub fn flow_label(&self) -> u32 {
        self.version_class_label() & 0x000f_ffff
    }
}

impl<T: std::ops::DerefMut<Target = [u8; 40]>> Ipv6<T> {
    /// Writes the traffic class.
    pub fn set_traffic_class(&mut self, class: u8) {
        self.set_version_class_label(self.version_class_label() & 0xf00f_ffff | u32::from(class) << 20);
    }

    /// Writes the flow label, 20 bits.
    pub fn set_flow_label(&mut self, label: u32) {
        self.set_version_class_label(self.version_class_label() & 0xfff0_0000 | label & 0x000f_ffff);
    }
}

/// Which extension headers there are, as OpenFlow says it (OpenFlow 1.3.5, 7.2.3.8, `OFPIEH_*`).
pub mod exthdr {
    /// A header that says that nothing follows.
    pub const NO_NEXT: u16 = 1 << 0;
    /// Encapsulating security payload.
    pub const ESP: u16 = 1 << 1;
    /// Authentication header.
    pub const AUTH: u16 = 1 << 2;
    /// One or two destination options headers.
    pub const DEST: u16 = 1 << 3;
    /// Fragment header.
    pub const FRAG: u16 = 1 << 4;
    /// Routing header.
    pub const ROUTER: u16 = 1 << 5;
    /// Hop-by-hop options header.
    pub const HOP: u16 = 1 << 6;
    /// A header came more often than it should.
    pub const UNREP: u16 = 1 << 7;
    /// Headers came in another order than the one preferred (RFC 8200, 4.1).
    pub const UNSEQ: u16 = 1 << 8;
}

/// What a walk along the extension headers finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// The bits of [`exthdr`] for the headers that were seen.
    pub seen: u16,
    /// The upper-layer protocol. For a fragment other than the first it is [`proto::FRAGMENT`]. `None` if the headers end too early to tell.
    pub proto: Option<u8>,
    /// How many bytes the headers take: where the upper layer begins.
    pub len: usize,
    /// If it is a fragment, its offset in units of eight bytes.
    pub fragment: Option<u16>,
}

/// Walks along the extension headers that `bytes`, the datagram behind its IPv6 header, begins with; `first` is the IPv6 header's next header.
/// Each header has at least eight bytes, so the walk ends with the bytes.
pub fn extensions(first: u8, bytes: &[u8]) -> Extensions {
    let mut found = Extensions::default();
    let mut order = Order::default();
    let mut next = first;
    loop {
        order.see(next, &mut found.seen);
        if !matches!(next, proto::HOP_BY_HOP | proto::DESTINATION | proto::ROUTING | proto::AUTH | proto::FRAGMENT) {
            found.proto = Some(next);
            return found;
        }
        let Some(header) = bytes.get(found.len..).and_then(|rest| rest.first_chunk::<8>()) else {
            return found;
        };
        let len = match next {
            proto::FRAGMENT => 8,
            proto::AUTH => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if next == proto::FRAGMENT {
            let (offset, more) = (u16::from_be_bytes([header[2], header[3]]) >> 3, header[3] & 1 != 0);
            // A datagram whose only fragment this is (RFC 6946) is not one.
            if offset != 0 || more {
                found.fragment = Some(offset);
            }
            if offset != 0 {
                found.proto = Some(proto::FRAGMENT);
                found.len += len;
                return found;
            }
        }
        if found.len + len > bytes.len() {
            return found;
        }
        found.len += len;
        next = header[0];
    }
}

/// The order of headers that RFC 8200, 4.1, recommends: hop-by-hop, destination (if a routing header follows), routing, fragment,
/// authentication, encapsulating security, destination.
#[derive(Default)]
struct Order {
    rank: u8,
    destinations: u16,
}

impl Order {
    fn see(&mut self, header: u8, seen: &mut u16) {
        let (bit, rank) = match header {
            proto::HOP_BY_HOP => (exthdr::HOP, 1),
            proto::DESTINATION => (exthdr::DEST, if self.rank < 2 { 2 } else { 7 }),
            proto::ROUTING => (exthdr::ROUTER, 3),
            proto::FRAGMENT => (exthdr::FRAG, 4),
            proto::AUTH => (exthdr::AUTH, 5),
            proto::ESP => (exthdr::ESP, 6),
            proto::NO_NEXT => (exthdr::NO_NEXT, 8),
            _ => return,
        };
        let repeated = if header == proto::DESTINATION {
            self.destinations += 1;
            self.destinations > 2
        } else {
            *seen & bit != 0
        };
        if repeated {
            *seen |= exthdr::UNREP;
        }
        if rank < self.rank {
            *seen |= exthdr::UNSEQ;
        }
        self.rank = self.rank.max(rank);
        *seen |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers of eight bytes each, of the types `chain`, before a TCP header.
    fn walk(chain: &[u8]) -> Extensions {
        let mut bytes = Vec::new();
        for next in chain.iter().skip(1).chain(&[proto::TCP]) {
            bytes.extend([*next, 0, 0, 0, 0, 0, 0, 0]);
        }
        extensions(chain[0], &bytes)
    }

    #[test]
    fn headers_in_the_preferred_order() {
        use proto::*;
        let found = walk(&[HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, AUTH, DESTINATION]);
        let seen = exthdr::HOP | exthdr::DEST | exthdr::ROUTER | exthdr::FRAG | exthdr::AUTH;
        assert_eq!(found, Extensions { seen, proto: Some(TCP), len: 48, fragment: None });
        assert_eq!(walk(&[DESTINATION, FRAGMENT]).seen, exthdr::DEST | exthdr::FRAG);
    }

    #[test]
    fn headers_out_of_order_or_repeated() {
        use proto::*;
        assert_eq!(walk(&[ROUTING, HOP_BY_HOP]).seen, exthdr::ROUTER | exthdr::HOP | exthdr::UNSEQ);
        assert_eq!(walk(&[DESTINATION, DESTINATION]).seen, exthdr::DEST);
        assert_eq!(walk(&[DESTINATION, DESTINATION, DESTINATION]).seen, exthdr::DEST | exthdr::UNREP);
        assert_eq!(walk(&[AUTH, AUTH]).seen, exthdr::AUTH | exthdr::UNREP);
        assert_eq!(walk(&[FRAGMENT, DESTINATION, ROUTING]).seen, exthdr::FRAG | exthdr::DEST | exthdr::ROUTER | exthdr::UNSEQ);
    }

    #[test]
    fn headers_that_end_the_walk() {
        use proto::*;
        assert_eq!(extensions(NO_NEXT, &[]), Extensions { seen: exthdr::NO_NEXT, proto: Some(NO_NEXT), len: 0, fragment: None });
        assert_eq!(extensions(ESP, &[0; 8]), Extensions { seen: exthdr::ESP, proto: Some(ESP), len: 0, fragment: None });
        let later = [TCP, 0, 0x00, 0x09, 0, 0, 0, 1];
        assert_eq!(extensions(FRAGMENT, &later), Extensions { seen: exthdr::FRAG, proto: Some(FRAGMENT), len: 8, fragment: Some(1) });
        let first = [TCP, 0, 0x00, 0x01, 0, 0, 0, 1];
        assert_eq!(extensions(FRAGMENT, &first), Extensions { seen: exthdr::FRAG, proto: Some(TCP), len: 8, fragment: Some(0) });
        assert_eq!(
            extensions(HOP_BY_HOP, &[TCP, 1, 0, 0, 0, 0, 0, 0]),
            Extensions { seen: exthdr::HOP, proto: None, len: 0, fragment: None }
        );
    }
}

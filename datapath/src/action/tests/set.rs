//! Set fields: a frame changed is the same as a frame built anew, checksums and all.

use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};
use proptest::prelude::*;

use super::*;
use crate::frame::{Checksum, HEAD_MAX};
use crate::wire::checksum;

/// What a frame is built of.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    eth_dst: u64,
    eth_src: u64,
    /// Priority and VLAN.
    tag: Option<(u16, u16)>,
    ipv6: bool,
    tos: u8,
    ttl: u8,
    label: u32,
    src: u128,
    dst: u128,
    proto: u8,
    /// Two ports, or ICMP's type and code.
    numbers: (u16, u16),
    payload: Vec<u8>,
}

impl Parts {
    /// Builds the frame by etherparse, from IP on.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut bytes = [&self.eth_dst.to_be_bytes()[2..], &self.eth_src.to_be_bytes()[2..]].concat();
        if let Some((pcp, vid)) = self.tag {
            bytes.extend([0x81, 0]);
            bytes.extend((pcp << 13 | vid).to_be_bytes());
        }
        bytes.extend(if self.ipv6 { [0x86, 0xdd] } else { [8, 0] });
        let ip = if self.ipv6 {
            let mut ip = Ipv6Header { hop_limit: self.ttl, ..Ipv6Header::default() };
            ip.traffic_class = self.tos;
            ip.flow_label = self.label.try_into().expect("20 bits");
            (ip.source, ip.destination) = (self.src.to_be_bytes(), self.dst.to_be_bytes());
            IpHeaders::Ipv6(ip, Default::default())
        } else {
            let ip = Ipv4Header {
                dscp: (self.tos >> 2).try_into().expect("6 bits"),
                ecn: (self.tos & 3).try_into().expect("2 bits"),
                identification: 0x1234,
                fragment_offset: IpFragOffset::ZERO,
                time_to_live: self.ttl,
                protocol: IpNumber(self.proto),
                source: (self.src as u32).to_be_bytes(),
                destination: (self.dst as u32).to_be_bytes(),
                ..Ipv4Header::default()
            };
            IpHeaders::Ipv4(ip, Default::default())
        };
        let builder = PacketBuilder::ip(ip);
        let (a, b) = self.numbers;
        match self.proto {
            6 => builder.tcp(a, b, 0x1020_3040, 500).psh().write(&mut bytes, &self.payload),
            17 => builder.udp(a, b).write(&mut bytes, &self.payload),
            1 => builder.icmpv4_raw(a as u8, b as u8, [1, 2, 3, 4]).write(&mut bytes, &self.payload),
            _ => builder.icmpv6_raw(a as u8, b as u8, [1, 2, 3, 4]).write(&mut bytes, &self.payload),
        }
        .expect("a vector takes all");
        bytes
    }

    /// Changes what `field` means, if there is such a thing here.
    fn set(&mut self, field: Field, value: u128, mask: u128) -> bool {
        use Field::*;
        let ones = mask & field.ones();
        let change = |old: u128| old & !ones | value & ones;
        match (field, self.proto) {
            (EthDst, _) => self.eth_dst = change(self.eth_dst.into()) as u64,
            (EthSrc, _) => self.eth_src = change(self.eth_src.into()) as u64,
            (VlanVid, _) => self.tag = self.tag.map(|(pcp, vid)| (pcp, change(vid.into()) as u16 & 0xfff)),
            (VlanPcp, _) => self.tag = self.tag.map(|(pcp, vid)| (change(pcp.into()) as u16, vid)),
            (IpDscp, _) => self.tos = (change((self.tos >> 2).into()) as u8) << 2 | self.tos & 3,
            (IpEcn, _) => self.tos = change((self.tos & 3).into()) as u8 | self.tos & !3,
            (NwTos, _) => self.tos = change(self.tos.into()) as u8,
            (NwTtl, _) => self.ttl = change(self.ttl.into()) as u8,
            (Ipv6Label, _) if self.ipv6 => self.label = change(self.label.into()) as u32,
            (Ipv4Src, _) if !self.ipv6 => self.src = change(self.src),
            (Ipv4Dst, _) if !self.ipv6 => self.dst = change(self.dst),
            (Ipv6Src, _) if self.ipv6 => self.src = change(self.src),
            (Ipv6Dst, _) if self.ipv6 => self.dst = change(self.dst),
            (TcpSrc, 6) | (UdpSrc, 17) | (IcmpType, 1) | (Icmpv6Type, 58) => self.numbers.0 = change(self.numbers.0.into()) as u16,
            (TcpDst, 6) | (UdpDst, 17) | (IcmpCode, 1) | (Icmpv6Code, 58) => self.numbers.1 = change(self.numbers.1.into()) as u16,
            _ => return false,
        }
        true
    }
}

prop_compose! {
    /// Frames of all kinds that etherparse can build.
    pub(crate) fn parts()(
        ipv6 in any::<bool>(),
        kind in 0..3usize,
        macs in any::<(u32, u32)>(),
        tag in prop::option::of((0u16..8, 0u16..4096)),
        (tos, ttl, label) in any::<(u8, u8, u32)>(),
        (src, dst) in any::<(u128, u128)>(),
        numbers in any::<(u8, u8)>(),
        payload in prop_oneof![prop::collection::vec(any::<u8>(), 0..60), prop::collection::vec(any::<u8>(), 1000..1400)],
    ) -> Parts {
        Parts {
            eth_dst: macs.0.into(),
            eth_src: macs.1.into(),
            tag,
            ipv6,
            tos,
            ttl,
            label: label & 0xf_ffff,
            src: if ipv6 { src } else { src & 0xffff_ffff },
            dst: if ipv6 { dst } else { dst & 0xffff_ffff },
            proto: [6, 17, if ipv6 { 58 } else { 1 }][kind],
            numbers: (numbers.0.into(), numbers.1.into()),
            payload,
        }
    }
}

/// Values that carries like to get wrong.
fn any_value() -> impl Strategy<Value = u128> {
    prop_oneof![any::<u128>(), Just(0), Just(u128::MAX), Just(0xffff), Just(0xffff_0000)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_changed_frame_is_one_built_anew(
        parts in parts(),
        sets in prop::collection::vec((any::<prop::sample::Index>(), any_value(), any_value()), 1..6),
    ) {
        let (before, mut changed) = (parts.build(), parts);
        let mut actions = Vec::new();
        for (field, value, mask) in sets {
            let writable: Vec<_> = Field::ALL.iter().filter(|field| changed.clone().set(**field, 0, 0)).collect();
            let field = **field.get(&writable);
            changed.set(field, value, mask);
            actions.push(Action::Set { field, value, mask });
        }
        prop_assert_eq!(after(&actions, &before), changed.build());
    }
}

fn udp() -> Parts {
    Parts {
        eth_dst: 2,
        eth_src: 1,
        tag: None,
        ipv6: false,
        tos: 0,
        ttl: 64,
        label: 0,
        src: 0x0a00_0001,
        dst: 0x0a00_0002,
        proto: 17,
        numbers: (1000, 53),
        payload: b"question".to_vec(),
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut bytes = udp().build();
    bytes[40..42].fill(0);
    let found = after(&[set(Field::Ipv4Src, 0x0102_0304), set(Field::UdpDst, 54)], &bytes);
    assert_eq!((&found[26..30], &found[36..38], &found[40..42]), (&[1, 2, 3, 4][..], &[0, 54][..], &[0, 0][..]));
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut bytes = udp().build();
    bytes[41] ^= 1;
    let found = after(&[set(Field::Ipv4Src, 0x0102_0304)], &bytes);
    let mut right = udp();
    right.src = 0x0102_0304;
    let right = u16::from_be_bytes(right.build()[40..42].try_into().unwrap());
    let found = u16::from_be_bytes(found[40..42].try_into().unwrap());
    assert!(found != right && (found.abs_diff(right) == 1), "{found:x} {right:x}");
}

#[test]
fn a_partial_checksum_is_the_sum_of_the_pseudo_header() {
    for proto in [6, 17] {
        for ipv6 in [false, true] {
            let mut parts = Parts { ipv6, proto, ..udp() };
            let (at, offset) = (if ipv6 { 54 } else { 34 }, if proto == 6 { 16 } else { 6 });
            let len = if proto == 6 { 20 } else { 8 } + parts.payload.len() as u32;
            let partial = |parts: &Parts| {
                let (src, dst) = (parts.src.to_be_bytes(), parts.dst.to_be_bytes());
                let from = if ipv6 { 0 } else { 12 };
                let pseudo = [&src[from..], &dst[from..], &len.to_be_bytes(), &[0, proto]].concat();
                let mut bytes = parts.build();
                bytes[at + offset..at + offset + 2].copy_from_slice(&sum(&pseudo).partial());
                bytes
            };
            let before = partial(&parts);
            let address = if ipv6 { Field::Ipv6Dst } else { Field::Ipv4Dst };
            let port = if proto == 6 { Field::TcpDst } else { Field::UdpDst };
            parts.set(address, 0xfe80_1234_5678_9abc, u128::MAX);
            parts.set(port, 4321, u128::MAX);
            let actions = [set(address, 0xfe80_1234_5678_9abc), set(port, 4321), Action::PushVlan(0x8100), Action::PopVlan, to(2)];
            let checksum = Checksum::Partial { start: at as u16, offset: offset as u16 };
            let done = carry_out(&actions, Offload { checksum, segmentation: None }, &before);
            assert_eq!(done.sent(2), [partial(&parts)], "{proto} {ipv6}");
            // A checksum that is another's to compute does not make this one partial.
            let other = Checksum::Partial { start: 60, offset: 4 };
            let done = carry_out(&actions, Offload { checksum: other, segmentation: None }, &Parts { dst: 7, ..parts.clone() }.build());
            assert_eq!(done.sent(2), [parts.build()]);
        }
    }
}

#[test]
fn sctp_keeps_its_crc() {
    for payload in [0usize, 16, 1000] {
        let mut bytes = Parts { payload: vec![7; 4 + payload], ..udp() }.build();
        // Turn the datagram into a packet of SCTP: ports, tag, checksum, chunks.
        bytes[23] = 132;
        bytes[24..26].fill(0);
        let header = sum(&bytes[14..34]).checksum();
        bytes[24..26].copy_from_slice(&header);
        let seal = |bytes: &mut [u8]| {
            bytes[42..46].fill(0);
            let crc = checksum::crc32c(&bytes[34..]);
            bytes[42..46].copy_from_slice(&crc.to_le_bytes());
        };
        seal(&mut bytes);
        let found = after(&[set(Field::SctpSrc, 0xabcd), set(Field::SctpDst, 80)], &[&bytes[..], &[0; 3]].concat());
        bytes[34..38].copy_from_slice(&[0xab, 0xcd, 0, 80]);
        seal(&mut bytes);
        assert_eq!(found[..bytes.len()], bytes, "padding is not covered");
        // Addresses are not covered.
        assert_eq!(after(&[set(Field::Ipv4Dst, 5)], &bytes)[34..], bytes[34..]);
    }
}

#[test]
fn a_later_fragment_has_no_transport_header() {
    let mut bytes = udp().build();
    bytes[20..22].copy_from_slice(&[0x20, 0x10]);
    let found = after(&[set(Field::UdpDst, 1), set(Field::Ipv4Dst, 0x0102_0304)], &bytes);
    assert_eq!(found[30..34], [1, 2, 3, 4]);
    assert_eq!(found[34..], bytes[34..]);
    // The first one has, and its checksum is that of the whole datagram.
    let (mut whole, mut first) = (udp(), udp().build());
    first[20] = 0x20;
    whole.dst = 0x0102_0304;
    assert_eq!(after(&[set(Field::Ipv4Dst, 0x0102_0304)], &first)[34..], whole.build()[34..]);
}

#[test]
fn arp_is_rewritten() {
    let mut bytes = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 38]].concat();
    let sets = [
        set(Field::ArpOp, 2),
        set(Field::ArpSha, 0x0101_0101_0101),
        set(Field::ArpSpa, 0x0202_0202),
        set(Field::ArpTha, 0x0303_0303_0303),
        set(Field::ArpTpa, 0x0404_0404),
    ];
    let expected = [&bytes[..20], &[0, 2], &[1; 6], &[2; 4], &[3; 6], &[4; 4], &bytes[42..]].concat();
    assert_eq!(after(&sets, &bytes), expected);
    // Of another protocol's addresses there is nothing to write.
    bytes[16] = 9;
    assert_eq!(after(&sets, &bytes), bytes);
}

#[test]
fn neighbour_discovery_is_rewritten() {
    let message = |target: u8, option: [u8; 8]| {
        let payload = [&[target; 16][..], &[14, 1, 0, 0, 0, 0, 0, 0], &option].concat();
        Parts { ipv6: true, proto: 58, numbers: (135, 0), payload, ..udp() }.build()
    };
    let before = message(1, [1, 1, 9, 9, 9, 9, 9, 9]);
    let sets = [set(Field::NdTarget, u128::from_be_bytes([5; 16])), set(Field::NdSll, 0x0707_0707_0707)];
    assert_eq!(after(&sets, &before), message(5, [1, 1, 7, 7, 7, 7, 7, 7]));
    // Without the option, there is nothing to write.
    let before = message(1, [14, 1, 9, 9, 9, 9, 9, 9]);
    assert_eq!(after(&sets, &before), message(5, [14, 1, 9, 9, 9, 9, 9, 9]));
}

#[test]
fn labels_and_service_instances_are_rewritten() {
    let mpls = [&[2; 12][..], &[0x88, 0x47, 0x12, 0x34, 0x51, 64], &[0; 40]].concat();
    let found = after(&[set(Field::MplsLabel, 0xfedcb), set(Field::MplsTc, 5), set(Field::MplsTtl, 9)], &mpls);
    assert_eq!(found[14..18], [0xfe, 0xdc, 0xbb, 9]);
    let pbb = [&[2; 12][..], &[0x88, 0xe7, 0xf0, 1, 2, 3], &[0; 40]].concat();
    let found = after(&[set(Field::PbbIsid, 0x0a0b0c), set(Field::PbbUca, 1)], &pbb);
    assert_eq!(found[14..18], [0xf8, 0x0a, 0x0b, 0x0c]);
}

#[test]
fn ipv6_headers_between_are_no_obstacle() {
    let inner = Parts { ipv6: true, ..udp() };
    let with = |parts: &Parts, next: u8, extension: &[u8]| {
        let mut bytes = parts.build();
        let len = (bytes.len() - 54 + extension.len()) as u16;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
        bytes[20] = next;
        [&bytes[..54], extension, &bytes[54..]].concat()
    };
    let changed = Parts { dst: 77, ..inner.clone() };
    let destination = [set(Field::Ipv6Dst, 77)];
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(after(&destination, &with(&inner, 60, &options)), with(&changed, 60, &options));
    // Where a routing header is still to give the destination, the pseudo header has that one.
    let mut routing = [17, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let mut routed = with(&inner, 43, &routing);
    routed[38..54].copy_from_slice(&77u128.to_be_bytes());
    assert_eq!(after(&destination, &with(&inner, 43, &routing)), routed);
    routing[3] = 0;
    assert_eq!(after(&destination, &with(&inner, 43, &routing)), with(&changed, 43, &routing));
    // A transport header beyond the head can't be kept right: nothing is changed silently.
    let long = [&[17, 17, 1, 140], &[0; 140][..]].concat();
    let frame = with(&inner, 60, &long);
    assert!(frame.len() > HEAD_MAX);
    assert_eq!(refused(&destination, &frame), DropReason::NotApplicable);
    assert_eq!(after(&[set(Field::NwTtl, 5)], &frame)[21], 5);
}

#[test]
fn a_frame_that_lacks_the_field_is_refused() {
    let bytes = udp().build();
    for (field, len) in [(Field::UdpDst, 40), (Field::Ipv4Dst, 30), (Field::NwTtl, 20)] {
        assert_eq!(refused(&[set(field, 1)], &bytes[..len]), DropReason::NotApplicable);
    }
    for field in [Field::InPort, Field::TunnelId, Field::Reg0, Field::EthType, Field::TcpFlags, Field::Ipv6Src] {
        assert_eq!(refused(&[set(field, 1)], &bytes), DropReason::NotApplicable, "{field:?}");
    }
}

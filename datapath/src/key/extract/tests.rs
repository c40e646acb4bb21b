//! Keys of frames made by hand, of frames made and taken apart by etherparse, of frames cut short and of rubbish.

use super::*;
use crate::key::{Field, Flow, FlowKey, exthdr};
use crate::wire::ipv4::proto;
use etherparse::{
    IpAuthHeader, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions,
    LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice,
};
use proptest::prelude::*;

const DST: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SRC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The flow of a frame that is all head, and where its headers are.
fn flow_of(frame: &[u8]) -> (Flow, Layout) {
    let mut key = FlowKey::ZERO;
    let layout = extract(&frame[..frame.len().min(crate::frame::HEAD_MAX)], frame.len(), PortNo(7), &mut key).expect("not too short");
    (Flow::new(&key), layout)
}

/// An Ethernet frame: the addresses, then `parts`.
fn frame(parts: &[&[u8]]) -> Vec<u8> {
    [&DST[..], &SRC, &parts.concat()].concat()
}

/// Asserts the value of these fields of a frame, and that all others but port and addresses are zero.
#[track_caller]
fn assert_fields(frame: &[u8], expected: &[(Field, u128)]) -> Layout {
    let (flow, layout) = flow_of(frame);
    let mut rest = flow;
    for (field, value) in expected.iter().chain(&[(Field::InPort, 7), (Field::EthDst, 0x0200_0000_0002), (Field::EthSrc, 0x0200_0000_0001)])
    {
        assert_eq!(field.read(&flow), *value, "{field:?}");
        field.write(&mut rest, 0);
    }
    assert_eq!(rest, Flow::ZERO, "nothing else");
    layout
}

/// An IPv4 header, 10.0.0.1 to 10.0.0.2, TTL 64, TOS 0x2e.
fn ipv4(total_len: u16, flags_offset: u16, proto: u8) -> Vec<u8> {
    let mut header = [0u8; 20];
    let mut ip = Ipv4::new_checked_mut(&mut header).expect("20 bytes");
    ip.set_version_ihl(0x45);
    ip.set_tos(0x2e);
    ip.set_total_len(total_len);
    ip.set_flags_offset(flags_offset);
    ip.set_ttl(64);
    ip.set_proto(proto);
    ip.set_src(0x0a00_0001);
    ip.set_dst(0x0a00_0002);
    header.to_vec()
}

const IPV4_FIELDS: [(Field, u128); 6] = [
    (Field::EthType, 0x0800),
    (Field::IpDscp, 0x0b),
    (Field::IpEcn, 2),
    (Field::NwTtl, 64),
    (Field::Ipv4Src, 0x0a00_0001),
    (Field::Ipv4Dst, 0x0a00_0002),
];

fn ipv4_fields(more: &[(Field, u128)]) -> Vec<(Field, u128)> {
    [&IPV4_FIELDS[..], more].concat()
}

#[test]
fn too_short_for_ethernet() {
    let mut key = FlowKey::ZERO;
    assert_eq!(extract(&[0; 13], 13, PortNo(1), &mut key), None);
    assert!(extract(&[0; 14], 14, PortNo(1), &mut key).is_some());
}

#[test]
fn udp_with_padding() {
    let bytes = frame(&[&[8, 0], &ipv4(28, 0, proto::UDP), &[0x12, 0x34, 0, 53, 0, 8, 0, 0], &[0; 18]]);
    let layout = assert_fields(&bytes, &ipv4_fields(&[(Field::IpProto, 17), (Field::UdpSrc, 0x1234), (Field::UdpDst, 53)]));
    assert_eq!(layout, Layout { network: 14, transport: 34 });
}

#[test]
fn padding_is_no_transport_header() {
    // The datagram ends in the middle of the UDP header; what looks like the rest of it is padding.
    let bytes = frame(&[&[8, 0], &ipv4(27, 0, proto::UDP), &[0x12, 0x34, 0, 53, 0, 8, 0, 0], &[0; 18]]);
    assert_eq!(assert_fields(&bytes, &ipv4_fields(&[(Field::IpProto, 17)])), Layout { network: 14, transport: 0 });
}

#[test]
fn ipv4_that_contradicts_itself() {
    let udp = [0x12, 0x34, 0, 53, 0, 8, 0, 0];
    let proto = [(Field::IpProto, 17)];
    for total_len in [0, 10, 20, 29] {
        let bytes = frame(&[&[8, 0], &ipv4(total_len, 0, proto::UDP), &udp]);
        assert_eq!(assert_fields(&bytes, &ipv4_fields(&proto)).transport, 0, "total length {total_len}");
    }
    for version_ihl in [0x44, 0x55, 0x40, 0x00] {
        let mut bytes = frame(&[&[8, 0], &ipv4(28, 0, proto::UDP), &udp]);
        bytes[14] = version_ihl;
        assert_eq!(assert_fields(&bytes, &[(Field::EthType, 0x0800)]).transport, 0);
    }
    let mut bytes = frame(&[&[8, 0], &ipv4(28, 0, proto::UDP), &udp]);
    bytes[14] = 0x4f;
    assert_eq!(assert_fields(&bytes, &ipv4_fields(&proto)).transport, 0);
}

#[test]
fn ipv4_fragments() {
    let udp = [0x12, 0x34, 0, 53, 0, 100, 0, 0];
    let first = frame(&[&[8, 0], &ipv4(28, 0x2000, proto::UDP), &udp]);
    let ports = [(Field::IpProto, 17), (Field::IpFrag, 1), (Field::UdpSrc, 0x1234), (Field::UdpDst, 53)];
    assert_eq!(assert_fields(&first, &ipv4_fields(&ports)).transport, 34);
    for flags_offset in [0x2001, 0x0001, 0x1fff] {
        let later = frame(&[&[8, 0], &ipv4(28, flags_offset, proto::UDP), &udp]);
        assert_eq!(assert_fields(&later, &ipv4_fields(&[(Field::IpProto, 17), (Field::IpFrag, 3)])).transport, 0);
    }
    let whole = frame(&[&[8, 0], &ipv4(28, 0x4000, proto::UDP), &udp]);
    assert_eq!(flow_of(&whole).1.transport, 34);
    assert_eq!(Field::IpFrag.read(&flow_of(&whole).0), 0);
}

#[test]
fn tcp_flags_sctp_and_icmp() {
    let mut tcp = [0u8; 20];
    tcp[..4].copy_from_slice(&[0, 80, 0x80, 0]);
    tcp[12..14].copy_from_slice(&[0x5f, 0x12]);
    let bytes = frame(&[&[8, 0], &ipv4(40, 0, proto::TCP), &tcp]);
    let fields = [(Field::IpProto, 6), (Field::TcpSrc, 80), (Field::TcpDst, 0x8000), (Field::TcpFlags, 0xf12)];
    assert_eq!(assert_fields(&bytes, &ipv4_fields(&fields)).transport, 34);
    let bytes = frame(&[&[8, 0], &ipv4(32, 0, proto::SCTP), &[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]]);
    assert_fields(&bytes, &ipv4_fields(&[(Field::IpProto, 132), (Field::SctpSrc, 1), (Field::SctpDst, 2)]));
    let bytes = frame(&[&[8, 0], &ipv4(28, 0, proto::ICMP), &[8, 3, 0, 0, 0, 0, 0, 0]]);
    assert_fields(&bytes, &ipv4_fields(&[(Field::IpProto, 1), (Field::IcmpType, 8), (Field::IcmpCode, 3)]));
    let bytes = frame(&[&[8, 0], &ipv4(27, 0, proto::ICMP), &[8, 3, 0, 0, 0, 0, 0, 0]]);
    assert_fields(&bytes, &ipv4_fields(&[(Field::IpProto, 1)]));
}

#[test]
fn ipv4_of_icmpv6_has_no_transport() {
    let bytes = frame(&[&[8, 0], &ipv4(28, 0, proto::ICMPV6), &[135, 0, 0, 0, 0, 0, 0, 0]]);
    assert_eq!(assert_fields(&bytes, &ipv4_fields(&[(Field::IpProto, 58)])).transport, 0);
}

#[test]
fn vlan_tags() {
    let priority = frame(&[&[0x81, 0, 0x70, 0, 0x12, 0x34]]);
    let expected = [(Field::EthType, 0x1234), (Field::VlanVid, 0x1000), (Field::VlanPcp, 3)];
    let (mut flow, layout) = flow_of(&priority);
    assert_eq!(layout.network, 18);
    assert_eq!(vlan::outer(&flow), Some(vlan::Tag { tpid: 0x8100, tci: 0x7000 }));
    assert_eq!(vlan::inner(&flow), None);
    for (field, value) in expected {
        assert_eq!(field.read(&flow), value);
    }
    let two = frame(&[&[0x88, 0xa8, 0, 5, 0x81, 0, 0x20, 6, 0x08, 0x06]]);
    (flow, _) = flow_of(&two);
    assert_eq!(vlan::outer(&flow), Some(vlan::Tag { tpid: 0x88a8, tci: 0x1005 }));
    assert_eq!(vlan::inner(&flow), Some(vlan::Tag { tpid: 0x8100, tci: 0x3006 }));
    assert_eq!(Field::EthType.read(&flow), 0x0806);
    let three = frame(&[&[0x81, 0, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7, 8, 0]]);
    let (flow, layout) = flow_of(&three);
    assert_eq!((Field::EthType.read(&flow), layout.network), (0x8100, 22));
    let cut = frame(&[&[0x81, 0, 0, 5, 8]]);
    assert_eq!(assert_fields(&cut, &[(Field::EthType, 0x8100)]).network, 14);
}

#[test]
fn frames_without_an_ethernet_type() {
    let llc = frame(&[&[0, 3], &[0x42, 0x42, 3], &[0; 40]]);
    assert_eq!(assert_fields(&llc, &[(Field::EthType, 0x05ff)]).network, 14);
    let snap = frame(&[&[0, 36], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ipv4(28, 0, proto::UDP), &[0, 1, 0, 2, 0, 8, 0, 0]]);
    let layout = assert_fields(&snap, &ipv4_fields(&[(Field::IpProto, 17), (Field::UdpSrc, 1), (Field::UdpDst, 2)]));
    assert_eq!(layout, Layout { network: 22, transport: 42 });
    let oui = frame(&[&[0, 36], &[0xaa, 0xaa, 3, 0, 0, 0xc, 0x20, 0], &[0; 40]]);
    assert_eq!(assert_fields(&oui, &[(Field::EthType, 0x05ff)]).network, 14);
    let length = frame(&[&[0, 36], &[0xaa, 0xaa, 3, 0, 0, 0, 0x05, 0xff], &[0; 40]]);
    assert_fields(&length, &[(Field::EthType, 0x05ff)]);
}

#[test]
fn arp() {
    let mut message = [0u8; 28];
    let mut arp = Arp::new_checked_mut(&mut message).expect("28 bytes");
    arp.set_kind(Arp::ETHERNET_IPV4);
    arp.set_op(2);
    arp.set_sha(0x0200_0000_0001);
    arp.set_spa(0x0a00_0001);
    arp.set_tha(0x0200_0000_0002);
    arp.set_tpa(0x0a00_0002);
    let expected = [
        (Field::EthType, 0x0806),
        (Field::ArpOp, 2),
        (Field::ArpSha, 0x0200_0000_0001),
        (Field::ArpSpa, 0x0a00_0001),
        (Field::ArpTha, 0x0200_0000_0002),
        (Field::ArpTpa, 0x0a00_0002),
    ];
    assert_fields(&frame(&[&[8, 6], &message, &[0; 18]]), &expected);
    assert_fields(&frame(&[&[8, 6], &message[..27]]), &expected[..1]);
    message[5] = 16;
    assert_fields(&frame(&[&[8, 6], &message]), &expected[..1]);
}

#[test]
fn mpls_and_pbb() {
    let label = |label: u32, bos: bool, ttl: u8| (label << 12 | 5 << 9 | u32::from(bos) << 8 | u32::from(ttl)).to_be_bytes();
    let one = frame(&[&[0x88, 0x47], &label(16, true, 64), &[0xff; 40]]);
    let fields = [(Field::EthType, 0x8847), (Field::MplsLabel, 16), (Field::MplsTc, 5), (Field::MplsBos, 1), (Field::MplsTtl, 64)];
    assert_fields(&one, &fields);
    let four = frame(&[&[0x88, 0x48], &label(1, false, 1), &label(2, false, 2), &label(3, false, 3), &label(4, true, 4)]);
    let (flow, _) = flow_of(&four);
    let entries = [u32::from_be_bytes(label(1, false, 1)), u32::from_be_bytes(label(2, false, 2)), u32::from_be_bytes(label(3, false, 3))];
    assert_eq!(flow.0[15], u64::from(entries[0]) << 32 | u64::from(entries[1]));
    assert_eq!(flow.0[16], u64::from(entries[2]) << 32);
    let pbb = frame(&[&[0x88, 0xe7], &[0x08, 0x12, 0x34, 0x56], &[0xff; 14]]);
    assert_fields(&pbb, &[(Field::EthType, 0x88e7), (Field::PbbIsid, 0x12_3456), (Field::PbbUca, 1)]);
}

/// An IPv6 header, fe80::1 to fe80::2, hop limit 255, traffic class 0x2e, label 0x12345.
fn ipv6(payload_len: usize, next_header: u8) -> Vec<u8> {
    let mut header = [0u8; 40];
    let mut ip = Ipv6::new_checked_mut(&mut header).expect("40 bytes");
    ip.set_version_class_label(6 << 28);
    ip.set_traffic_class(0x2e);
    ip.set_flow_label(0x1_2345);
    ip.set_payload_len(payload_len as u16);
    ip.set_next_header(next_header);
    ip.set_hop_limit(255);
    ip.set_src(0xfe80 << 112 | 1);
    ip.set_dst(0xfe80 << 112 | 2);
    header.to_vec()
}

fn ipv6_fields(more: &[(Field, u128)]) -> Vec<(Field, u128)> {
    let fields = [
        (Field::EthType, 0x86dd),
        (Field::IpDscp, 0x0b),
        (Field::IpEcn, 2),
        (Field::NwTtl, 255),
        (Field::Ipv6Label, 0x1_2345),
        (Field::Ipv6Src, 0xfe80 << 112 | 1),
        (Field::Ipv6Dst, 0xfe80 << 112 | 2),
    ];
    [&fields[..], more].concat()
}

#[test]
fn neighbour_discovery() {
    let target = 0xfe80_u128 << 112 | 9;
    let message = |kind: u8, options: &[u8]| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.to_be_bytes(), options].concat();
    let (source, other) = ([1, 1, 2, 0, 0, 0, 0, 5], [14, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let icmp = |kind: u128| [(Field::IpProto, 58), (Field::Icmpv6Type, kind), (Field::NdTarget, target)];
    let check = |kind: u8, options: &[u8], more: &[(Field, u128)]| {
        let message = message(kind, options);
        let bytes = frame(&[&[0x86, 0xdd], &ipv6(message.len(), proto::ICMPV6), &message]);
        assert_eq!(assert_fields(&bytes, &ipv6_fields(&[&icmp(kind.into()), more].concat())).transport, 54);
    };
    check(135, &source, &[(Field::NdSll, 0x0200_0000_0005)]);
    check(135, &[&other[..], &source].concat(), &[(Field::NdSll, 0x0200_0000_0005)]);
    check(135, &[], &[]);
    check(135, &source[..7], &[]);
    check(135, &[[0; 8], source].concat(), &[]);
    check(135, &[2, 1, 2, 0, 0, 0, 0, 5], &[]);
    check(136, &[2, 1, 2, 0, 0, 0, 0, 5], &[(Field::NdTll, 0x0200_0000_0005)]);
    // Options past the end of the datagram are padding.
    let solicitation = message(135, &source);
    let bytes = frame(&[&[0x86, 0xdd], &ipv6(24, proto::ICMPV6), &solicitation]);
    assert_fields(&bytes, &ipv6_fields(&icmp(135)));
    // The code does not count.
    let mut other_code = message(135, &source);
    other_code[1] = 1;
    let bytes = frame(&[&[0x86, 0xdd], &ipv6(other_code.len(), proto::ICMPV6), &other_code]);
    let fields = [&icmp(135)[..], &[(Field::Icmpv6Code, 1), (Field::NdSll, 0x0200_0000_0005)]].concat();
    assert_fields(&bytes, &ipv6_fields(&fields));
}

#[test]
fn ipv6_extension_headers() {
    let udp = [0, 1, 0, 2, 0, 8, 0, 0];
    let bytes = frame(&[&[0x86, 0xdd], &ipv6(32, 0), &[60, 0, 0, 0, 0, 0, 0, 0], &[17, 1], &[0; 14], &udp]);
    let seen = u128::from(exthdr::HOP | exthdr::DEST);
    let fields = [(Field::IpProto, 17), (Field::Ipv6Exthdr, seen), (Field::UdpSrc, 1), (Field::UdpDst, 2)];
    assert_eq!(assert_fields(&bytes, &ipv6_fields(&fields)), Layout { network: 14, transport: 54 + 24 });
    // Longer than the head: the protocol is unknown.
    let bytes = frame(&[&[0x86, 0xdd], &ipv6(208, 0), &[17, 24], &[0; 198], &udp]);
    let layout = assert_fields(&bytes, &ipv6_fields(&[(Field::Ipv6Exthdr, exthdr::HOP.into())]));
    assert_eq!(layout.transport, 0);
}

#[test]
fn ipv6_fragments() {
    let udp = [0, 1, 0, 2, 0, 8, 0, 0];
    let with = |offset_more: u8| frame(&[&[0x86, 0xdd], &ipv6(16, 44), &[17, 0, 0, offset_more, 0, 0, 0, 1], &udp]);
    let ports = [(Field::UdpSrc, 1), (Field::UdpDst, 2), (Field::Ipv6Exthdr, exthdr::FRAG.into()), (Field::IpProto, 17)];
    assert_eq!(assert_fields(&with(0), &ipv6_fields(&ports)).transport, 62);
    assert_eq!(assert_fields(&with(1), &ipv6_fields(&[&ports[..], &[(Field::IpFrag, 1)]].concat())).transport, 62);
    let later = [(Field::Ipv6Exthdr, exthdr::FRAG.into()), (Field::IpProto, 44), (Field::IpFrag, 3)];
    assert_eq!(assert_fields(&with(8), &ipv6_fields(&later)).transport, 0);
}

#[test]
fn ipv6_that_contradicts_itself() {
    let udp = [0, 1, 0, 2, 0, 8, 0, 0];
    let fields = ipv6_fields(&[(Field::IpProto, 17)]);
    assert_fields(&frame(&[&[0x86, 0xdd], &ipv6(9, proto::UDP), &udp]), &fields);
    assert_fields(&frame(&[&[0x86, 0xdd], &ipv6(0, proto::UDP), &udp]), &fields);
    let mut version = frame(&[&[0x86, 0xdd], &ipv6(8, proto::UDP), &udp]);
    version[14] = 0x40;
    assert_fields(&version, &[(Field::EthType, 0x86dd)]);
}

#[test]
fn a_long_frame_is_parsed_from_its_head() {
    let mut bytes = frame(&[&[8, 0], &ipv4(1500, 0, proto::UDP), &[0, 1, 0, 2, 5, 0xc8, 0, 0]]);
    bytes.resize(1514, 0);
    let mut batch = crate::frame::Batch::new();
    let slot = batch.push_bytes(PortNo(7), Default::default(), &bytes);
    let mut key = FlowKey::ZERO;
    assert!(extract_frame(batch.frame_mut(slot), &mut key));
    assert_eq!(batch.frame(slot).layout, Layout { network: 14, transport: 34 });
    assert_eq!(Flow::new(&key), flow_of(&bytes).0);
    let slot = batch.push_bytes(PortNo(7), Default::default(), &bytes[..13]);
    assert!(!extract_frame(batch.frame_mut(slot), &mut key));
}

/// What a well-formed frame is made from.
#[derive(Clone, Debug)]
struct Recipe {
    tags: Vec<(bool, u16)>,
    ipv6: bool,
    addresses: [u8; 32],
    tos: u8,
    ttl: u8,
    label: u32,
    options: u8,
    extensions: [Option<u8>; 5],
    fragment: Option<(u16, bool)>,
    transport: u8,
    ports: (u16, u16),
    tcp_flags: u8,
    payload: usize,
    padding: usize,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let link =
        (prop::collection::vec(any::<(bool, u16)>(), 0..3), any::<bool>(), any::<[u8; 32]>(), any::<u8>(), any::<u8>(), 0..1u32 << 20);
    let extensions = prop::array::uniform5(prop::option::weighted(0.2, 0..2u8));
    let network = (0..11u8, extensions, prop::option::weighted(0.2, (prop_oneof![Just(0), 0..0x2000u16], any::<bool>())));
    let rest = (0..5u8, any::<(u16, u16)>(), any::<u8>(), 0..100usize, 0..47usize);
    (link, network, rest).prop_map(|((tags, ipv6, addresses, tos, ttl, label), (options, extensions, fragment), rest)| {
        let (transport, ports, tcp_flags, payload, padding) = rest;
        Recipe { tags, ipv6, addresses, tos, ttl, label, options, extensions, fragment, transport, ports, tcp_flags, payload, padding }
    })
}

impl Recipe {
    fn ip(&self) -> IpHeaders {
        let raw = |units: Option<u8>| units.map(|units| Ipv6RawExtHeader::new_raw(0.into(), &vec![0; 6 + usize::from(units) * 8]).unwrap());
        if self.ipv6 {
            let [hop_by_hop, destination, routing, last, auth] = self.extensions;
            let extensions = Ipv6Extensions {
                hop_by_hop_options: raw(hop_by_hop),
                destination_options: raw(destination),
                routing: raw(routing).map(|routing| Ipv6RoutingExtensions { routing, final_destination_options: raw(last) }),
                // etherparse 0.18 has the fragment header's offset in the wrong bits.
                fragment: None,
                auth: auth.map(|units| IpAuthHeader::new(0.into(), 1, 1, &vec![0; usize::from(units) * 8 + 4]).unwrap()),
            };
            let header = Ipv6Header {
                traffic_class: self.tos,
                flow_label: self.label.try_into().unwrap(),
                hop_limit: self.ttl,
                source: self.addresses[..16].try_into().unwrap(),
                destination: self.addresses[16..].try_into().unwrap(),
                ..Default::default()
            };
            IpHeaders::Ipv6(header, extensions)
        } else {
            let header = Ipv4Header {
                dscp: (self.tos >> 2).try_into().unwrap(),
                ecn: (self.tos & 3).try_into().unwrap(),
                fragment_offset: self.fragment.map_or(0, |(offset, _)| offset).try_into().unwrap(),
                more_fragments: self.fragment.is_some_and(|(_, more)| more),
                time_to_live: self.ttl,
                source: self.addresses[..4].try_into().unwrap(),
                destination: self.addresses[4..8].try_into().unwrap(),
                options: Ipv4Options::try_from(&vec![1; usize::from(self.options.min(10)) * 4][..]).unwrap(),
                ..Default::default()
            };
            IpHeaders::Ipv4(header, Default::default())
        }
    }

    fn build(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let payload = vec![0x5a; self.payload];
        let builder = PacketBuilder::ethernet2(SRC, DST).ip(self.ip());
        let (src, dst) = self.ports;
        match self.transport {
            0 => builder.udp(src, dst).write(&mut bytes, &payload),
            1 => {
                let [syn, ack, fin, rst, psh, urg, ece, cwr] = std::array::from_fn(|bit| self.tcp_flags >> bit & 1 != 0);
                let header =
                    TcpHeader { source_port: src, destination_port: dst, syn, ack, fin, rst, psh, urg, ece, cwr, ..Default::default() };
                builder.tcp_header(header).write(&mut bytes, &payload)
            }
            2 if self.ipv6 => builder.icmpv6_raw(src as u8, dst as u8, [0; 4]).write(&mut bytes, &payload),
            // Timestamps (13 and 14) have a length of their own.
            2 => builder.icmpv4_raw(if src as u8 & 0xfc == 12 { 8 } else { src as u8 }, dst as u8, [0; 4]).write(&mut bytes, &payload),
            // A protocol that has no fields.
            _ => builder.write(&mut bytes, IpNumber::GRE, &payload),
        }
        .expect("the parts fit");
        for (service, tci) in self.tags.iter().rev() {
            let tpid: u16 = if *service { 0x88a8 } else { 0x8100 };
            bytes.splice(12..12, [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
        }
        bytes.resize(bytes.len() + self.padding, 0);
        bytes
    }
}

/// What etherparse finds in a frame, as fields.
fn by_etherparse(bytes: &[u8]) -> Vec<(Field, u128)> {
    let packet = SlicedPacket::from_ethernet(bytes).expect("it is well-formed");
    let number = |bytes: &[u8]| bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { panic!("no Ethernet") };
    let mut fields = vec![(Field::EthSrc, number(&ethernet.source())), (Field::EthDst, number(&ethernet.destination()))];
    if let Some(vlan) = packet.vlan_ids().first() {
        fields.push((Field::VlanVid, 0x1000 | u128::from(vlan.value())));
    }
    match packet.net.as_ref().expect("it is IP") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let later = header.fragments_offset().value() != 0;
            fields.extend([
                (Field::EthType, 0x0800),
                (Field::IpDscp, header.dcp().value().into()),
                (Field::IpEcn, header.ecn().value().into()),
                (Field::NwTtl, header.ttl().into()),
                (Field::IpProto, header.protocol().0.into()),
                (Field::Ipv4Src, number(&header.source())),
                (Field::Ipv4Dst, number(&header.destination())),
                (Field::IpFrag, if later { 3 } else { header.more_fragments().into() }),
            ]);
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let extensions = Ipv6Extensions::from_slice(header.next_header(), ip.extensions().slice()).expect("read before").0;
            let bits = [
                (extensions.hop_by_hop_options.is_some(), exthdr::HOP),
                (extensions.destination_options.is_some(), exthdr::DEST),
                (extensions.routing.as_ref().is_some_and(|found| found.final_destination_options.is_some()), exthdr::DEST),
                (extensions.routing.is_some(), exthdr::ROUTER),
                (extensions.auth.is_some(), exthdr::AUTH),
            ];
            let seen = bits.iter().filter(|(there, _)| *there).fold(0, |seen, (_, bit)| seen | bit);
            fields.extend([
                (Field::EthType, 0x86dd),
                (Field::IpDscp, (header.traffic_class() >> 2).into()),
                (Field::IpEcn, (header.traffic_class() & 3).into()),
                (Field::NwTtl, header.hop_limit().into()),
                (Field::Ipv6Label, header.flow_label().value().into()),
                (Field::IpProto, ip.payload().ip_number.0.into()),
                (Field::Ipv6Exthdr, seen.into()),
                (Field::Ipv6Src, number(&header.source())),
                (Field::Ipv6Dst, number(&header.destination())),
            ]);
        }
        other => panic!("{other:?}"),
    }
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            fields.extend([(Field::UdpSrc, udp.source_port().into()), (Field::UdpDst, udp.destination_port().into())]);
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = number(&tcp.header_slice()[12..14]) & 0xfff;
            fields.extend([
                (Field::TcpSrc, tcp.source_port().into()),
                (Field::TcpDst, tcp.destination_port().into()),
                (Field::TcpFlags, flags),
            ]);
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            fields.extend([(Field::IcmpType, icmp.type_u8().into()), (Field::IcmpCode, icmp.code_u8().into())]);
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            fields.extend([(Field::Icmpv6Type, icmp.type_u8().into()), (Field::Icmpv6Code, icmp.code_u8().into())]);
        }
        None => (),
    }
    fields
}

/// Bytes that are rubbish in the likeness of a frame: Ethernet types and first bytes of headers that get far.
fn rubbish() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x0806, 0x8035, 0x8847, 0x88e7, 0x0010]);
    let start = prop::sample::select(vec![
        vec![0x45],
        vec![0x60, 0, 0, 0, 0, 40, 0],
        vec![0x60, 0, 0, 0, 0, 200, 58],
        vec![0xaa, 0xaa, 3, 0, 0, 0],
        vec![],
    ]);
    (kind, start, prop::collection::vec(any::<u8>(), 0..220))
        .prop_map(|(kind, start, rest)| [&SRC[..], &DST, &kind.to_be_bytes(), &start, &rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn agrees_with_etherparse(recipe in recipe()) {
        let bytes = recipe.build();
        let mut key = FlowKey::ZERO;
        let layout = extract(&bytes, bytes.len(), PortNo(1), &mut key).unwrap();
        let flow = Flow::new(&key);
        for (field, value) in by_etherparse(&bytes) {
            prop_assert_eq!(field.read(&flow), value, "{:?} of {:02x?}", field, &bytes);
        }
        prop_assert_eq!(usize::from(layout.network), 14 + 4 * recipe.tags.len());
        let tags: Vec<_> = recipe.tags.iter().map(|(service, tci)| vlan::Tag::new(if *service { 0x88a8 } else { 0x8100 }, *tci)).collect();
        prop_assert_eq!((vlan::outer(&flow), vlan::inner(&flow)), (tags.first().copied(), tags.get(1).copied()));
        let found = layout.transport != 0;
        prop_assert_eq!(found, recipe.transport < 3 && Field::IpFrag.read(&flow) < 2);
    }

    /// A frame of which less is seen tells less, never something else. (But for the Ethernet type, which may be a tag's if the tag is cut.)
    #[test]
    fn what_is_certain_stays(bytes in prop_oneof![recipe().prop_map(|recipe| recipe.build()), rubbish()], cut in any::<prop::sample::Index>(), whole: bool) {
        let cut = 14 + cut.index(bytes.len() - 13);
        let frame_len = if whole { bytes.len() } else { cut };
        let (mut less, mut more) = (FlowKey::ZERO, FlowKey::ZERO);
        let less_layout = extract(&bytes[..cut], frame_len, PortNo(1), &mut less).unwrap();
        let more_layout = extract(&bytes, bytes.len(), PortNo(1), &mut more).unwrap();
        let (less, more) = (Flow::new(&less), Flow::new(&more));
        if Field::EthType.read(&less) == Field::EthType.read(&more) {
            prop_assert!(less_layout.transport == 0 || less_layout == more_layout);
        }
        for field in Field::ALL.iter().filter(|field| **field != Field::EthType) {
            let (value, whole) = (field.read(&less), field.read(&more));
            let part = *field == Field::Ipv6Exthdr && value & !whole == 0;
            prop_assert!(value == 0 || value == whole || part, "{field:?} of {cut} bytes of {bytes:02x?}");
        }
        prop_assert!(usize::from(less_layout.transport) <= cut && usize::from(less_layout.network) <= cut);
    }

    #[test]
    fn rubbish_never_panics(bytes in prop_oneof![rubbish(), prop::collection::vec(any::<u8>(), 0..250)], frame_len in 0..70_000usize) {
        let mut key = FlowKey::ZERO;
        let layout = extract(&bytes, frame_len, PortNo(1), &mut key);
        prop_assert_eq!(layout.is_some(), bytes.len() >= 14);
        crate::key::spread(&key);
    }

    /// The usual frame with a few bytes changed, cut short or padded.
    #[test]
    fn the_short_way_leads_where_the_long_one_does(
        tcp: bool,
        len in 20..70u16,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in 0..90usize,
        frame_len in 30..100usize,
    ) {
        let protocol = if tcp { proto::TCP } else { proto::UDP };
        let mut bytes = frame(&[&[8, 0], &ipv4(len, 0, protocol), &[3; 60]]);
        for (at, value) in changes {
            let at = at.index(40);
            bytes[at] = value;
        }
        let head = &bytes[..cut.min(bytes.len())];
        let (mut short, mut long) = (FlowKey::ZERO, FlowKey::ZERO);
        if let Some(layout) = extract_usual(head, frame_len, PortNo(1), &mut short) {
            prop_assert_eq!(Some(layout), extract_any(head, frame_len, PortNo(1), &mut long));
            prop_assert_eq!(short, long);
        }
    }

    /// Two frames that differ in a few bytes, if at all.
    #[test]
    fn a_frame_that_continues_a_flow_has_its_key(
        protocol in prop_oneof![Just(proto::TCP), Just(proto::UDP), Just(proto::ICMP), Just(proto::SCTP), any::<u8>()],
        flags_offset in prop_oneof![4 => Just(0u16), 1 => any::<u16>()],
        changes in prop::collection::vec((0..60usize, any::<u8>()), 0..2),
        tagged in prop::bool::weighted(0.1),
        len in 38..80usize,
    ) {
        let tag: &[u8] = if tagged { &[0x81, 0, 0, 5] } else { &[] };
        let bytes = frame(&[tag, &[8, 0], &ipv4(60, flags_offset, protocol), &[3; 60]]);
        let mut other = bytes.clone();
        changes.iter().for_each(|(at, value)| other[*at] = *value);
        let mut batch = crate::frame::Batch::new();
        for bytes in [&bytes, &other] {
            batch.push_bytes(PortNo(1), Default::default(), &bytes[..len]);
        }
        let [mut key, mut next] = [FlowKey::ZERO; 2];
        extract_frame(batch.frame_mut(0), &mut key);
        let continued = continues(batch.frame(1), batch.frame(0));
        extract_frame(batch.frame_mut(1), &mut next);
        prop_assert!(!continued || key == next && batch.frame(0).layout == batch.frame(1).layout);
        // A new identification and checksum make no other flow.
        let usual = !tagged && flags_offset == 0 && protocol == proto::UDP && len >= 74;
        let same = changes.iter().all(|(at, value)| [18, 19, 24, 25].contains(at) || bytes[*at] == *value);
        prop_assert!(!(usual && same) || continued);
    }
}

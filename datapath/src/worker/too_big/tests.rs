use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, Icmpv6Type, IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, VlanId};

use super::*;
use crate::frame::{Checksum, Offload, Segmentation, SegmentationKind};
use crate::wire::icmp::NEIGHBOR_SOLICITATION;

const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MTU: u16 = 1300;

fn v4(from: [u8; 4], to: [u8; 4]) -> Ipv4Header {
    Ipv4Header { dont_fragment: true, ..Ipv4Header::new(0, 9, IpNumber::UDP, from, to).expect("a short one") }
}

fn v6(from: u128, to: u128) -> Ipv6Header {
    Ipv6Header { hop_limit: 9, source: from.to_be_bytes(), destination: to.to_be_bytes(), ..Ipv6Header::default() }
}

fn usual_v4() -> IpHeaders {
    IpHeaders::Ipv4(v4([10, 0, 0, 1], [10, 0, 0, 2]), Default::default())
}

fn usual_v6() -> IpHeaders {
    IpHeaders::Ipv6(v6(0xfd << 120 | 1, 0xfd << 120 | 2), Default::default())
}

/// A frame with these addresses and tags; `write` adds what the packet carries.
fn frame(
    ip: IpHeaders,
    macs: [[u8; 6]; 2],
    tags: &[u16],
    write: impl FnOnce(etherparse::PacketBuilderStep<IpHeaders>, &mut Vec<u8>),
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(macs[0], macs[1]);
    let vlan = |id: u16| VlanId::try_new(id).expect("an id");
    let step = match tags {
        [] => ethernet.ip(ip),
        [tag] => ethernet.single_vlan(vlan(*tag)).ip(ip),
        [outer, inner, ..] => ethernet.double_vlan(vlan(*outer), vlan(*inner)).ip(ip),
    };
    let mut bytes = Vec::new();
    write(step, &mut bytes);
    bytes
}

/// A UDP datagram of so many bytes.
fn udp(ip: IpHeaders, tags: &[u16], len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
    frame(ip, [SENDER, RECEIVER], tags, |step, bytes| step.udp(1000, 2000).write(bytes, &payload).expect("written"))
}

/// What a frame that went out as it came in, with a head as `change` leaves it, is answered.
fn answer_to(bytes: &[u8], offload: Offload, change: impl FnOnce(&mut Frame)) -> Option<Vec<u8>> {
    let mut batch = Batch::new();
    let slot = batch.push_bytes(PortNo(1), offload, bytes);
    let mut key = FlowKey::ZERO;
    assert!(key::extract_frame(batch.frame_mut(slot), &mut key));
    change(batch.frame_mut(slot));
    let packet = Packet::new(&key);
    let mut room = [0xee; ROOM];
    packet.may_be_answered(batch.frame(slot)).then(|| {
        let (len, layout) = packet.answer(&batch, slot, MTU, &mut room);
        let mut key = FlowKey::ZERO;
        assert_eq!(key::extract(&room[..len], len, PortNo(1), &mut key), Some(layout));
        room[..len].to_vec()
    })
}

fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    answer_to(bytes, Offload::default(), |_| ())
}

#[test]
fn the_answer_is_what_another_implementation_writes() {
    let packet_at = |tags: &[u16]| 14 + 4 * tags.len();
    for tags in [&[][..], &[10], &[20, 30]] {
        let sent = udp(usual_v4(), tags, 1400);
        let quoted = &sent[packet_at(tags)..][..576 - 28];
        let back = Ipv4Header { dscp: 48.try_into().expect("six bits"), time_to_live: 64, ..v4([10, 0, 0, 2], [10, 0, 0, 1]) };
        let too_long = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: MTU };
        let expected = frame(IpHeaders::Ipv4(back, Default::default()), [RECEIVER, SENDER], tags, |step, bytes| {
            step.icmpv4(Icmpv4Type::DestinationUnreachable(too_long)).write(bytes, quoted).expect("written");
        });
        assert_eq!(answer(&sent), Some(expected), "IPv4, {tags:?}");

        let sent = udp(usual_v6(), tags, 1400);
        let quoted = &sent[packet_at(tags)..][..1280 - 48];
        let back = Ipv6Header { hop_limit: 64, ..v6(0xfd << 120 | 2, 0xfd << 120 | 1) };
        let expected = frame(IpHeaders::Ipv6(back, Default::default()), [RECEIVER, SENDER], tags, |step, bytes| {
            step.icmpv6(Icmpv6Type::PacketTooBig { mtu: MTU.into() }).write(bytes, quoted).expect("written");
        });
        assert_eq!(answer(&sent), Some(expected), "IPv6, {tags:?}");
    }
}

#[test]
fn a_short_packet_is_quoted_whole() {
    let sent = udp(usual_v4(), &[], 200);
    let answer = answer(&sent).expect("an answer");
    assert_eq!(answer.len(), 14 + 28 + 228);
    assert_eq!(answer[42..], sent[14..]);
}

#[test]
fn packets_that_may_be_fragmented_and_first_fragments_are_answered() {
    for change in [|ip: &mut Ipv4Header| ip.dont_fragment = false, |ip: &mut Ipv4Header| ip.more_fragments = true] {
        let mut ip = v4([10, 0, 0, 1], [10, 0, 0, 2]);
        change(&mut ip);
        assert!(answer(&udp(IpHeaders::Ipv4(ip, Default::default()), &[], 1400)).is_some());
    }
}

#[test]
fn what_must_not_be_answered_is_not() {
    let between_v4 = |from, to| udp(IpHeaders::Ipv4(v4(from, to), Default::default()), &[], 1400);
    let host = [10, 0, 0, 1];
    for other in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [239, 255, 0, 1], [240, 0, 0, 1], [255; 4]] {
        assert_eq!(answer(&between_v4(other, host)), None, "from {other:?}");
        assert_eq!(answer(&between_v4(host, other)), None, "to {other:?}");
    }
    let between_v6 = |from, to| udp(IpHeaders::Ipv6(v6(from, to), Default::default()), &[], 1400);
    for other in [0, 1, 0xff02 << 112 | 1] {
        assert_eq!(answer(&between_v6(other, 0xfd << 120 | 1)), None, "from {other:x}");
        assert_eq!(answer(&between_v6(0xfd << 120 | 1, other)), None, "to {other:x}");
    }
    for macs in [[SENDER, [0xff; 6]], [SENDER, [1, 0, 0x5e, 0, 0, 1]], [[3, 0, 0, 0, 0, 1], RECEIVER]] {
        let sent = frame(usual_v4(), macs, &[], |step, bytes| step.udp(1, 2).write(bytes, &[0; 1400]).expect("written"));
        assert_eq!(answer(&sent), None, "{macs:?}");
    }
    let mut later = v4([10, 0, 0, 1], [10, 0, 0, 2]);
    later.fragment_offset = IpFragOffset::try_new(100).expect("an offset");
    assert_eq!(answer(&udp(IpHeaders::Ipv4(later, Default::default()), &[], 1400)), None);
    // Neither IP nor a header that is one.
    let mut other = udp(usual_v4(), &[], 1400);
    other[14] = 0x44;
    assert_eq!(answer(&other), None);
    other[12..14].copy_from_slice(&[0x88, 0xcc]);
    assert_eq!(answer(&other), None);
}

#[test]
fn icmp_errors_are_not_answered_and_other_messages_are() {
    let icmp4 = |kind| {
        frame(usual_v4(), [SENDER, RECEIVER], &[], |step, bytes| {
            step.icmpv4_raw(kind, 0, [0; 4]).write(bytes, &[0; 1400]).expect("written")
        })
    };
    for (kind, answered) in [(0, true), (3, false), (4, false), (5, false), (8, true), (11, false), (12, false), (13, true)] {
        assert_eq!(answer(&icmp4(kind)).is_some(), answered, "ICMP type {kind}");
    }
    let icmp6 = |kind| {
        frame(usual_v6(), [SENDER, RECEIVER], &[], |step, bytes| {
            step.icmpv6_raw(kind, 0, [0; 4]).write(bytes, &[0; 1400]).expect("written")
        })
    };
    for (kind, answered) in [(1, false), (2, false), (127, false), (128, true), (129, true), (NEIGHBOR_SOLICITATION, true), (137, false)] {
        assert_eq!(answer(&icmp6(kind)).is_some(), answered, "ICMPv6 type {kind}");
    }
    // Destination options that reach beyond the head: whether an error follows can't be seen.
    let mut hidden = icmp6(1);
    hidden[20] = 60;
    hidden[54..56].copy_from_slice(&[58, 40]);
    assert_eq!(answer(&hidden), None);
}

#[test]
fn the_way_back_is_that_of_the_frame_as_it_came_in() {
    let sent = udp(usual_v4(), &[10], 1400);
    // Routed: other Ethernet addresses, another VLAN, a lower TTL.
    let routed = answer_to(&sent, Offload::default(), |frame| {
        frame.head_mut()[..12].copy_from_slice(&[6; 12]);
        frame.head_mut()[15] = 77;
        frame.head_mut()[18 + 8] -= 1;
    });
    let (routed, plain) = (routed.expect("an answer"), answer(&sent).expect("an answer"));
    assert_eq!(routed[..38], plain[..38]);
    // The quotation is of the packet as it would have gone out.
    assert_eq!((plain[46 + 8], routed[46 + 8]), (9, 8));
    let untagged = answer_to(&sent, Offload::default(), |frame| assert!(frame.remove(12, 4)));
    assert_eq!(untagged.as_ref(), Some(&plain));
    // Translated: the sender would not know the packet.
    for at in [18 + 12, 18 + 16, 18 + 20, 18 + 22] {
        assert_eq!(answer_to(&sent, Offload::default(), |frame| frame.head_mut()[at] ^= 1), None, "byte {at}");
    }
}

#[test]
fn a_frame_to_be_segmented_is_as_long_as_its_segments() {
    let mut batch = Batch::new();
    let sent = frame(usual_v4(), [SENDER, RECEIVER], &[], |step, bytes| step.tcp(1, 2, 3, 4).write(bytes, &[0; 5000]).expect("written"));
    let kind = SegmentationKind::Tcp4;
    let mut packet = |size| {
        let offload =
            Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segmentation: Some(Segmentation { kind, ecn: false, size }) };
        let slot = batch.push_bytes(PortNo(1), offload, &sent);
        assert!(key::extract_frame(batch.frame_mut(slot), &mut FlowKey::default()));
        packet_len(batch.frame(slot))
    };
    assert_eq!((packet(1260), packet(1261), packet(60_000)), (Some(1300), Some(1301), Some(5040)));
}

#[test]
fn answers_to_a_port_are_limited_and_others_are_not_held_back() {
    let mut too_big = TooBig::new();
    let mut burst = |port, now| (0..1000).filter(|_| too_big.take(PortNo(port), now)).count();
    let second = 1_000_000_000;
    assert_eq!(burst(1, second), 50);
    assert_eq!(burst(2, second), 50);
    assert_eq!(burst(1, second + 999_999), 0);
    assert_eq!(burst(1, second + 1_000_000), 1);
    assert_eq!((0..1000).map(|millisecond| burst(1, 2 * second + millisecond * 1_000_000)).sum::<usize>(), 50 + 999);
}

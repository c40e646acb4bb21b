//! Answers to packets that are too long for a port: ICMP's "fragmentation needed" (RFC 792, with the MTU of RFC 1191) and ICMPv6's "packet
//! too big" (RFC 4443, 3.2), for senders that look for the MTU of their path.
//!
//! A switch has no address, and no route. So the answer comes from the address that the packet was for, and goes out where the packet came
//! in, with its Ethernet addresses exchanged and in its VLAN tags: these are taken from the key of the frame as it came in, since rules may
//! have routed it to where it was too long. If they changed its IP addresses or ports, the sender would not know it any more, and there is
//! no answer.
//!
//! A router fragments an IPv4 packet that may be fragmented, and answers the others. Nothing is fragmented here, so all are answered: a
//! sender that hears of the MTU can do it itself, and one that does not goes on in vain.
//!
//! There is no answer where RFC 1812 (4.3.2.7), RFC 1122 (3.2.2) and RFC 4443 (2.4(e)) ask for none: to ICMP errors, to fragments but the
//! first, to groups and broadcasts, to sources that are no single host. RFC 4443's exception for packets too big for groups is not taken:
//! the answer would come from a group.
//!
//! Whoever sends what is too long pays with frames that are lost, and is answered a thousand times a second at most. It takes the worker's
//! time, so the limit is each ingress port's: a port that sends nothing else does not keep others from being answered.

use crate::Nanos;
use crate::frame::{Batch, Frame, Layout, lend};
use crate::key::{self, Field, FlowKey, fragment, vlan};
use crate::memory::Segment;
use crate::offload::{Pieces, packet_len};
use crate::port::{PortNo, Share};
use crate::tables::{Port, Tables};
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{Ethernet, ethertype};
use crate::wire::icmp::Icmp;
use crate::wire::ipv4::{DONT_FRAGMENT, Ipv4, proto};
use crate::wire::ipv6::Ipv6;
use crate::wire::vlan::VlanTag;

/// The longest answers, from their IP header on: what every host takes, of IPv4 (RFC 1812, 4.3.2.3) and of IPv6 (RFC 4443, 3.2).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;
/// Room for the longest, with two tags.
const ROOM: usize = Ethernet::LEN + 2 * VlanTag::LEN + LONGEST_V6;
/// The ICMP header, with the MTU in its last 16 bits for IPv4 and its last 32 for IPv6.
const ICMP_HEADER: usize = 8;
/// ICMP type and code of "fragmentation needed".
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
/// ICMPv6 type and code of "packet too big".
const PACKET_TOO_BIG: (u8, u8) = (2, 0);
/// The precedence of errors, "internetwork control" (RFC 1812, 4.3.2.5).
const TOS: u8 = 6 << 5;
/// The time to live, and the hop limit.
const TTL: u8 = 64;
/// A group's address, in an Ethernet address.
const GROUP: u128 = 1 << 40;

/// How long a port's answers are apart in the long run.
const INTERVAL: Nanos = 1_000_000;
/// How many it may have at once after a pause.
const BURST: u64 = 50;
/// How many limits there are. Ports whose numbers agree modulo this share one.
const LIMITS: usize = 64;

/// What a worker needs to answer.
pub(super) struct TooBig {
    /// The answer, while it is sent.
    batch: Batch,
    bytes: [u8; ROOM],
    /// When each limit is back to a whole burst.
    limits: [Nanos; LIMITS],
}

/// The frames of a batch that were sent to one port, which dropped some for being too long.
pub(super) struct Refused<'a, K> {
    pub batch: &'a Batch,
    pub slots: &'a [u16],
    pub port: &'a Port,
    /// The key of a frame that came in.
    pub key: K,
}

impl TooBig {
    pub fn new() -> Self {
        Self { batch: Batch::new(), bytes: [0; ROOM], limits: [0; LIMITS] }
    }

    /// Answers the senders of packets that are longer than the port's MTU. Each answer goes to the packet's ingress port, and is counted
    /// there.
    #[cold]
    pub fn answer<'k>(&mut self, refused: &Refused<'_, impl Fn(u16) -> &'k FlowKey>, tables: &Tables, share: Share, now: Nanos) {
        let Refused { batch, slots, port, key } = refused;
        for &slot in *slots {
            let frame = batch.frame(slot);
            if packet_len(frame).is_none_or(|len| len <= usize::from(port.mtu)) {
                continue;
            }
            let came = Packet::new(key(batch.origin(slot)));
            // A packet-out comes from no port.
            let Some(ingress) = tables.ports().get(frame.in_port).filter(|ingress| ingress.forwards()) else { continue };
            if !came.may_be_answered(frame) || !self.take(frame.in_port, now) {
                continue;
            }
            let (len, layout) = came.answer(batch, slot, port.mtu, &mut self.bytes);
            let bytes = &self.bytes[..len];
            lend(&mut self.batch, ingress.no, bytes, |lending| {
                lending.push([Segment::from(bytes)]);
                let answer = lending.last();
                (answer.layout, answer.hash) = (layout, frame.hash);
                lending.consume(&mut |batch| {
                    let sent = ingress.output.transmit(share, batch, &[0]);
                    ingress.counters.stripe(share.worker).transmitted(0, &sent);
                })
            });
        }
    }

    /// Whether one more answer may go to a port: a token bucket, told by the time at which it would be full again.
    fn take(&mut self, port: PortNo, now: Nanos) -> bool {
        let full = &mut self.limits[port.0 as usize % LIMITS];
        let next = now.max(*full) + INTERVAL;
        let within = next <= now + BURST * INTERVAL;
        if within {
            *full = next;
        }
        within
    }
}

/// What its key says of a packet.
struct Packet(key::Flow);

impl Packet {
    fn new(key: &FlowKey) -> Self {
        Self(key::Flow::new(key))
    }

    fn get(&self, field: Field) -> u128 {
        field.read(&self.0)
    }

    fn is_ipv6(&self) -> bool {
        self.get(Field::EthType) == u128::from(ethertype::IPV6)
    }

    /// Whether it is one that is answered, of which `frame` is what was to be sent.
    fn may_be_answered(&self, frame: &Frame) -> bool {
        let mut key = FlowKey::ZERO;
        let Some(layout) = key::extract(frame.head(), frame.len(), frame.in_port, &mut key) else { return false };
        let goes = Self::new(&key);
        use Field::*;
        // The ports of all protocols are in the same place.
        let same =
            [EthType, IpProto, Ipv4Src, Ipv4Dst, Ipv6Src, Ipv6Dst, TcpSrc, TcpDst].iter().all(|field| self.get(*field) == goes.get(*field));
        let is_group = (self.get(EthSrc) | self.get(EthDst)) & GROUP != 0;
        let is_later = self.get(IpFrag) as u8 & fragment::LATER != 0;
        same && !is_group && !is_later && self.is_between_hosts() && !self.may_be_error(layout)
    }

    /// Whether it is IP, between addresses that can be a single host's.
    fn is_between_hosts(&self) -> bool {
        use Field::*;
        match self.get(EthType) as u16 {
            ethertype::IPV4 => [Ipv4Src, Ipv4Dst].iter().all(|field| matches!(self.get(*field) >> 24, 1..=126 | 128..=223)),
            ethertype::IPV6 => [Ipv6Src, Ipv6Dst].iter().all(|field| self.get(*field) > 1 && self.get(*field) >> 120 != 0xff),
            _ => false,
        }
    }

    /// Whether it is an ICMP error, or a redirect, or does not show that it is none.
    fn may_be_error(&self, layout: Layout) -> bool {
        let unseen = layout.transport == 0;
        match (self.is_ipv6(), self.get(Field::IpProto) as u8) {
            (false, proto::ICMP) => unseen || matches!(self.get(Field::IcmpType), 3 | 4 | 5 | 11 | 12),
            (true, proto::ICMPV6) => unseen || matches!(self.get(Field::Icmpv6Type), ..128 | 137),
            // What a chain of extension headers beyond the head ends in.
            (true, 0) => true,
            _ => false,
        }
    }

    /// Writes the answer, with what fits of the packet in `slot`. Returns its length, and where its headers are.
    fn answer(&self, batch: &Batch, slot: u16, mtu: u16, bytes: &mut [u8; ROOM]) -> (usize, Layout) {
        let network = self.write_ethernet(bytes);
        let (header, longest) = if self.is_ipv6() { (Ipv6::LEN, LONGEST_V6) } else { (Ipv4::LEN, LONGEST_V4) };
        let icmp = network + header;
        let mut end = icmp + ICMP_HEADER;
        let packet = Pieces::of(batch, slot).after(batch.frame(slot).layout.network.into());
        for piece in packet.first(longest - header - ICMP_HEADER) {
            end += piece.copy_to(&mut bytes[end..]);
        }
        let (ip, message) = bytes[network..end].split_at_mut(header);
        let pseudo = if self.is_ipv6() { self.write_ipv6(ip, message.len()) } else { self.write_ipv4(ip, message.len()) };
        write_icmp(message, if self.is_ipv6() { PACKET_TOO_BIG } else { FRAGMENTATION_NEEDED }, mtu, pseudo);
        (end, Layout { network: network as u16, transport: icmp as u16 })
    }

    /// Writes the way back: addresses, tags and type. Returns where they end.
    fn write_ethernet(&self, bytes: &mut [u8; ROOM]) -> usize {
        let mut ethernet = Ethernet::new_checked_mut(bytes).expect("there is room for a header");
        ethernet.set_dst(self.get(Field::EthSrc) as u64);
        ethernet.set_src(self.get(Field::EthDst) as u64);
        let mut at = Ethernet::LEN - 2;
        for tag in [vlan::outer(&self.0), vlan::inner(&self.0)].into_iter().flatten() {
            bytes[at..at + 2].copy_from_slice(&tag.tpid.to_be_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&(tag.tci & !vlan::PRESENT).to_be_bytes());
            at += VlanTag::LEN;
        }
        bytes[at..at + 2].copy_from_slice(&(self.get(Field::EthType) as u16).to_be_bytes());
        at + 2
    }

    /// Writes the header of an answer with `len` bytes behind it. ICMP has no pseudo header.
    fn write_ipv4(&self, header: &mut [u8], len: usize) -> Sum {
        header.fill(0);
        let mut ip = Ipv4::new_checked_mut(header).expect("there is room for a header");
        ip.set_version_ihl(0x45);
        ip.set_tos(TOS);
        ip.set_total_len((Ipv4::LEN + len) as u16);
        ip.set_flags_offset(DONT_FRAGMENT);
        ip.set_ttl(TTL);
        ip.set_proto(proto::ICMP);
        ip.set_src(self.get(Field::Ipv4Dst) as u32);
        ip.set_dst(self.get(Field::Ipv4Src) as u32);
        let mut sum = Sum::default();
        sum.add(header);
        Ipv4::new_checked_mut(header).expect("there is room for a header").set_checksum(u16::from_be_bytes(sum.checksum()));
        Sum::default()
    }

    /// Writes the header of an answer with `len` bytes behind it. Returns the sum of the pseudo header (RFC 8200, 8.1).
    fn write_ipv6(&self, header: &mut [u8], len: usize) -> Sum {
        let (src, dst) = (self.get(Field::Ipv6Dst), self.get(Field::Ipv6Src));
        let mut ip = Ipv6::new_checked_mut(header).expect("there is room for a header");
        ip.set_version_class_label(6 << 28);
        ip.set_payload_len(len as u16);
        ip.set_next_header(proto::ICMPV6);
        ip.set_hop_limit(TTL);
        ip.set_src(src);
        ip.set_dst(dst);
        let mut sum = Sum::default();
        sum.add(&src.to_be_bytes());
        sum.add(&dst.to_be_bytes());
        sum.add(&(len as u32).to_be_bytes());
        sum.add(&[0, 0, 0, proto::ICMPV6]);
        sum
    }
}

/// Writes the header of `message`, whose rest is there; `sum` is that of the pseudo header.
fn write_icmp(message: &mut [u8], (kind, code): (u8, u8), mtu: u16, mut sum: Sum) {
    message[Icmp::LEN..ICMP_HEADER].copy_from_slice(&u32::from(mtu).to_be_bytes());
    let mut icmp = Icmp::new_checked_mut(message).expect("there is room for a header");
    icmp.set_kind(kind);
    icmp.set_code(code);
    icmp.set_checksum(0);
    sum.add(message);
    message[2..Icmp::LEN].copy_from_slice(&sum.checksum());
}

#[cfg(test)]
mod tests;

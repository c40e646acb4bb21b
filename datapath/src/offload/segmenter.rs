//! Cutting a frame that stands for several: TCP segments (TSO) and UDP datagrams (USO).

use crate::frame::{Checksum, ETHERNET_HEADER, Offload, PUSHED_HEAD_MAX, Segmentation, SegmentationKind};
use crate::wire::checksum::Sum;

/// Where the headers of a frame that is to be segmented lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The IP header.
    pub network: usize,
    /// The TCP or UDP header.
    pub transport: usize,
    /// The first byte of payload.
    pub end: usize,
    /// Whether there are only VLAN tags around the IP header: else, no receiver can be asked to segment it.
    pub plain: bool,
    ipv6: bool,
    tcp: bool,
}

impl Headers {
    /// Finds the headers in a frame's head. `None` if they are not those that its offload needs: Ethernet with any number of VLAN tags, MPLS entries and
    /// frames in provider bridges' (actions may have pushed them), IP that is no fragment, and TCP or UDP whose checksum is the one left undone.
    pub fn of(head: &[u8], offload: &Offload) -> Option<Self> {
        let (Some(Segmentation { kind, .. }), Checksum::Partial { start, offset }) = (offload.segmentation, offload.checksum) else {
            return None;
        };
        let word = |at: usize| Some(u16::from_be_bytes(head.get(at..at + 2)?.try_into().expect("two bytes")));
        let mut network = ETHERNET_HEADER;
        let mut plain = true;
        let ipv6 = loop {
            match word(network - 2)? {
                0x8100 | 0x88a8 => network += 4,
                0x0800 => break false,
                0x86dd => break true,
                0x88e7 => {
                    plain = false;
                    network += 4 + ETHERNET_HEADER;
                }
                0x8847 | 0x8848 => {
                    plain = false;
                    // The version is all that tells what is under the bottom of the stack; it is looked at below.
                    while *head.get(network + 2)? & 1 == 0 {
                        network += 4;
                    }
                    network += 4;
                    break *head.get(network)? >> 4 == 6;
                }
                _ => return None,
            }
        };
        let tcp = kind != SegmentationKind::Udp;
        let protocol = if tcp { 6 } else { 17 };
        let transport = if ipv6 {
            let mut next = *head.get(network + 6)?;
            let mut at = network + 40;
            // Hop-by-hop and destination options. A routing header would make the pseudo header another one.
            while matches!(next, 0 | 60) {
                next = *head.get(at)?;
                at += (usize::from(*head.get(at + 1)?) + 1) * 8;
            }
            (next == protocol && head[network] >> 4 == 6).then_some(at)?
        } else {
            let (first, fragment) = (*head.get(network)?, word(network + 6)? & 0x3fff);
            let ours = first >> 4 == 4 && first & 15 >= 5 && fragment == 0 && *head.get(network + 9)? == protocol;
            ours.then_some(network + usize::from(first & 15) * 4)?
        };
        let (checksum_at, header) = if tcp { (16, usize::from(*head.get(transport + 12)? >> 4) * 4) } else { (6, 8) };
        let agrees = match kind {
            SegmentationKind::Tcp4 => !ipv6 && header >= 20,
            SegmentationKind::Tcp6 => ipv6 && header >= 20,
            SegmentationKind::Udp => true,
        };
        let end = transport + header;
        let agrees = agrees && usize::from(start) == transport && usize::from(offset) == checksum_at && end <= head.len();
        agrees.then_some(Self { network, transport, end, plain, ipv6, tcp })
    }

    /// The sum of the pseudo header for `len` bytes of transport header and payload (RFC 9293, 3.1; RFC 8200, 8.1).
    fn pseudo(&self, head: &[u8], len: usize) -> Sum {
        let mut sum = Sum::default();
        let addresses = if self.ipv6 { self.network + 8..self.network + 40 } else { self.network + 12..self.network + 20 };
        sum.add(&head[addresses]);
        sum.add(&[0, if self.tcp { 6 } else { 17 }]);
        sum.add(&(len as u32).to_be_bytes());
        sum
    }
}

/// Cuts a frame into segments: makes the headers of each.
pub struct Segmenter {
    headers: Headers,
    /// The frame's own headers.
    original: [u8; PUSHED_HEAD_MAX],
    size: usize,
    payload: usize,
}

impl Segmenter {
    /// A segmenter for a frame of `len` bytes that begins with `head`, whose headers were found by [`Headers::of`]. `size` is not zero.
    pub fn new(headers: Headers, head: &[u8], len: usize, size: u16) -> Self {
        let mut original = [0; PUSHED_HEAD_MAX];
        original[..headers.end].copy_from_slice(&head[..headers.end]);
        Self { headers, original, size: usize::from(size), payload: len.saturating_sub(headers.end) }
    }

    /// The number of segments, one at least.
    pub fn count(&self) -> usize {
        self.payload.div_ceil(self.size).max(1)
    }

    /// The number of payload bytes of a segment.
    pub fn payload_len(&self, index: usize) -> usize {
        (self.payload - index * self.size).min(self.size)
    }

    /// What is left undone in a segment whose checksum is partial.
    pub fn offload(&self) -> Offload {
        let Headers { transport, tcp, .. } = self.headers;
        Offload { checksum: Checksum::Partial { start: transport as u16, offset: if tcp { 16 } else { 6 } }, segmentation: None }
    }

    /// Writes the headers of segment `index` into `to` and returns them. With the sum of its payload the transport checksum is complete;
    /// without, it is partial.
    pub fn headers<'t>(&self, index: usize, payload: Option<Sum>, to: &'t mut [u8; PUSHED_HEAD_MAX]) -> &'t [u8] {
        let Headers { network, transport, end, ipv6, tcp, .. } = self.headers;
        let len = end - transport + self.payload_len(index);
        to[..end].copy_from_slice(&self.original[..end]);
        if ipv6 {
            put(to, network + 4, ((transport - network - 40 + len) as u16).to_be_bytes());
        } else {
            put(to, network + 2, ((transport - network + len) as u16).to_be_bytes());
            let id = u16::from_be_bytes([to[network + 4], to[network + 5]]);
            put(to, network + 4, id.wrapping_add(index as u16).to_be_bytes());
            put(to, network + 10, [0, 0]);
            let mut sum = Sum::default();
            sum.add(&to[network..transport]);
            put(to, network + 10, sum.checksum());
        }
        let checksum_at = if tcp {
            let at = transport + 4;
            let sequence = u32::from_be_bytes([to[at], to[at + 1], to[at + 2], to[at + 3]]);
            put(to, at, sequence.wrapping_add((index * self.size) as u32).to_be_bytes());
            // FIN and PSH are about the end of the data, CWR about the first segment after the window was reduced (RFC 3168, 6.1.2).
            if index + 1 < self.count() {
                to[transport + 13] &= !0x09;
            }
            if index > 0 {
                to[transport + 13] &= !0x80;
            }
            transport + 16
        } else {
            put(to, transport + 4, (len as u16).to_be_bytes());
            transport + 6
        };
        let mut sum = self.headers.pseudo(to, len);
        let checksum = match payload {
            None => sum.partial(),
            Some(payload) => {
                put(to, checksum_at, [0, 0]);
                sum.add(&to[transport..end]);
                sum.append(payload);
                sum.transport_checksum()
            }
        };
        put(to, checksum_at, checksum);
        &to[..end]
    }
}

fn put<const N: usize>(to: &mut [u8], at: usize, bytes: [u8; N]) {
    to[at..at + N].copy_from_slice(&bytes);
}

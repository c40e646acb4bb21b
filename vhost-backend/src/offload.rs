//! What a sender left undone: the virtio-net header, checksums and segmentation (virtio 1.2, 5.1.6).
//!
//! A guest says in the header before each frame which work it leaves to the device. We believe it as far as it agrees with the frame
//! ([`Header::offload`]), carry it along as an [`Offload`], and either pass it on to a guest that takes it ([`Header::passing_on`]) or do the work
//! for the one that does not: [`Pieces::sum`] computes a checksum, and [`Segmenter`] cuts a frame into segments.
//!
//! The head of the frame is our own copy; the payload is guest memory that may change between being summed and being copied. Then the checksum is
//! wrong, and the guest that did it has sent a broken frame.

use datapath::frame::{Batch, Checksum, ETHERNET_HEADER, Offload, PUSHED_HEAD_MAX, Segmentation, SegmentationKind};
use datapath::memory::Segment;
use datapath::wire::checksum::Sum;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4,
    VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
};

const NEEDS_CSUM: u8 = VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
const DATA_VALID: u8 = VIRTIO_NET_HDR_F_DATA_VALID as u8;
const GSO_NONE: u8 = VIRTIO_NET_HDR_GSO_NONE as u8;
const GSO_TCP4: u8 = VIRTIO_NET_HDR_GSO_TCPV4 as u8;
const GSO_TCP6: u8 = VIRTIO_NET_HDR_GSO_TCPV6 as u8;
const GSO_UDP: u8 = VIRTIO_NET_HDR_GSO_UDP_L4 as u8;
const GSO_ECN: u8 = VIRTIO_NET_HDR_GSO_ECN as u8;

/// The virtio-net header, without the number of buffers, which concerns the ring only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

impl Header {
    /// The length in memory, with the number of buffers.
    pub const LEN: usize = 12;
    /// The length in memory before virtio 1.0, without mergeable buffers: there is no number of buffers.
    pub const LEGACY_LEN: usize = 10;

    #[inline(always)]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self { flags: bytes[0], gso_type: bytes[1], hdr_len: word(2), gso_size: word(4), csum_start: word(6), csum_offset: word(8) }
    }

    #[inline(always)]
    pub fn to_bytes(self, buffers: u16) -> [u8; Self::LEN] {
        let words =
            [u16::from_le_bytes([self.flags, self.gso_type]), self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, buffers];
        // Two stores, where the compiler would make many of the parts.
        let all = words.iter().rev().fold(0u128, |all, word| all << 16 | u128::from(*word)).to_le_bytes();
        *all.first_chunk().expect("twelve of sixteen bytes")
    }

    /// Whether nothing is left to be done. That a guest calls a checksum valid means nothing: this flag is for devices to set.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.flags & NEEDS_CSUM == 0 && self.gso_type == GSO_NONE
    }

    /// What is left to be done on a frame of `len` bytes that begins with `head`. `None` if that contradicts the frame.
    pub fn offload(&self, head: &[u8], len: usize) -> Option<Offload> {
        let mut offload = Offload::default();
        if self.flags & NEEDS_CSUM != 0 {
            let (start, offset) = (usize::from(self.csum_start), usize::from(self.csum_offset));
            if start < ETHERNET_HEADER || start + offset + 2 > len {
                return None;
            }
            offload.checksum = Checksum::Partial { start: self.csum_start, offset: self.csum_offset };
        }
        if self.gso_type != GSO_NONE {
            let kind = match self.gso_type & !GSO_ECN {
                GSO_TCP4 => SegmentationKind::Tcp4,
                GSO_TCP6 => SegmentationKind::Tcp6,
                GSO_UDP => SegmentationKind::Udp,
                _ => return None,
            };
            let ecn = self.gso_type & GSO_ECN != 0;
            if self.gso_size == 0 || usize::from(self.hdr_len) > len || (ecn && kind == SegmentationKind::Udp) {
                return None;
            }
            offload.segmentation = Some(Segmentation { kind, ecn, size: self.gso_size });
            Headers::of(head, &offload)?;
        }
        Some(offload)
    }

    /// The header that leaves all work on a frame to its receiver, given the length of its headers if it is to be segmented.
    #[inline(always)]
    pub fn passing_on(offload: &Offload, headers: usize) -> Self {
        let mut header = Self::default();
        match offload.checksum {
            Checksum::Unknown => {}
            Checksum::Valid => header.flags = DATA_VALID,
            Checksum::Partial { start, offset } => {
                header.flags = NEEDS_CSUM;
                header.csum_start = start;
                header.csum_offset = offset;
            }
        }
        if let Some(Segmentation { kind, ecn, size }) = offload.segmentation {
            let kind = match kind {
                SegmentationKind::Tcp4 => GSO_TCP4,
                SegmentationKind::Tcp6 => GSO_TCP6,
                SegmentationKind::Udp => GSO_UDP,
            };
            header.gso_type = kind | if ecn { GSO_ECN } else { 0 };
            header.gso_size = size;
            header.hdr_len = headers as u16;
        }
        header
    }
}

/// The bytes of a frame, piece by piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces<'s, 'm> {
    current: Segment<'m>,
    rest: &'s [Segment<'m>],
}

impl<'s, 'm> Pieces<'s, 'm> {
    /// The bytes of these segments.
    pub fn new(segments: &'s [Segment<'m>]) -> Self {
        Self { current: Segment::from(&[][..]), rest: segments }
    }

    /// Takes the next bytes, as many as lie together, `max` at most. `None` at the end, or if `max` is zero.
    #[inline(always)]
    pub fn up_to(&mut self, max: usize) -> Option<Segment<'m>> {
        if max == 0 {
            return None;
        }
        while self.current.is_empty() {
            (self.current, self.rest) = self.rest.split_first().map(|(first, rest)| (*first, rest))?;
        }
        let taken = self.current.part(0, max);
        self.current = self.current.part(taken.len(), usize::MAX);
        Some(taken)
    }

    /// What comes after the next `count` bytes.
    pub fn after(mut self, mut count: usize) -> Self {
        while let Some(skipped) = self.up_to(count) {
            count -= skipped.len();
        }
        self
    }

    /// The sum of the next `len` bytes.
    pub fn sum(mut self, mut len: usize) -> Sum {
        // Guest memory is never referred to: it is copied into the first-level cache, and summed there.
        let mut buffer = [0; 1024];
        let mut sum = Sum::default();
        while let Some(piece) = self.up_to(len.min(buffer.len())) {
            let copied = piece.copy_to(&mut buffer);
            sum.add(&buffer[..copied]);
            len -= copied;
        }
        sum
    }

    /// The next `count` bytes.
    pub fn first(mut self, mut count: usize) -> impl Iterator<Item = Segment<'m>> {
        std::iter::from_fn(move || {
            let piece = self.up_to(count)?;
            count -= piece.len();
            Some(piece)
        })
    }
}

impl<'m> Iterator for Pieces<'_, 'm> {
    type Item = Segment<'m>;

    #[inline(always)]
    fn next(&mut self) -> Option<Segment<'m>> {
        self.up_to(usize::MAX)
    }
}

impl<'b> Pieces<'b, 'b> {
    /// All of the frame in `slot`.
    #[inline(always)]
    pub fn of(batch: &'b Batch, slot: u16) -> Self {
        Self { current: Segment::from(batch.frame(slot).head()), rest: batch.payload(slot) }
    }
}

/// Where the headers of a frame that is to be segmented lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    /// The IP header.
    pub network: usize,
    /// The TCP or UDP header.
    pub transport: usize,
    /// The first byte of payload.
    pub end: usize,
    /// Whether there are only VLAN tags around the IP header: else, no guest can be asked to segment it.
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
pub(crate) struct Segmenter {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, word by word.
    fn reference(bytes: &[u8]) -> [u8; 2] {
        let mut sum: u64 = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        (!(sum as u16)).to_be_bytes()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_sum_does_not_care_where_the_pieces_are_cut(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..4000),
                                                        mut cuts in prop::collection::vec(0..4000usize, 0..8), start in 0..4000usize) {
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let segments: Vec<Segment> = cuts.windows(2).map(|cut| Segment::from(&bytes[cut[0]..cut[1]])).collect();
            let start = start.min(bytes.len());
            let sum = Pieces::new(&segments).after(start).sum(bytes.len() - start);
            prop_assert_eq!(sum.checksum(), reference(&bytes[start..]));
            let mut appended = Sum::default();
            for cut in cuts.windows(2) {
                let mut next = Sum::default();
                next.add(&bytes[cut[0]..cut[1]]);
                appended.append(next);
            }
            prop_assert_eq!(appended.checksum(), reference(&bytes));
        }

        #[test]
        fn a_header_is_read_as_it_is_written(flags in 0..4u8, gso_type: u8, hdr_len: u16, gso_size: u16, csum_start: u16, csum_offset: u16) {
            let header = Header { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset };
            let bytes = header.to_bytes(0x1234);
            prop_assert_eq!(Header::from_bytes(&bytes), header);
            prop_assert_eq!(&bytes[..2], [flags, gso_type]);
            prop_assert_eq!(&bytes[8..], [csum_offset as u8, (csum_offset >> 8) as u8, 0x34, 0x12]);
        }
    }

    #[test]
    fn long_runs_of_ones_do_not_overflow() {
        let bytes = vec![0xff; 70_000];
        let sum = Pieces::new(&[Segment::from(&bytes[..])]).sum(bytes.len());
        assert_eq!(sum.checksum(), [0, 0]);
        assert_eq!(sum.transport_checksum(), [0xff, 0xff]);
    }

    #[test]
    fn what_contradicts_the_frame_is_not_believed() {
        // Ethernet, IPv4, TCP without options, a payload.
        let mut frame = [0; 100];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = 6;
        frame[46] = 0x50;
        let right = Header { flags: 1, gso_type: 1, hdr_len: 54, gso_size: 10, csum_start: 34, csum_offset: 16 };
        let whole = Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            segmentation: Some(Segmentation { kind: SegmentationKind::Tcp4, ecn: false, size: 10 }),
        };
        assert_eq!(right.offload(&frame, 100), Some(whole));
        // A guest's own "valid" is no work left, and no proof.
        assert_eq!(Header { flags: 2, ..Header::default() }.offload(&frame, 100), Some(Offload::default()));
        let wrong = [
            Header { csum_start: 13, ..right },
            Header { csum_start: 35, ..right },
            Header { csum_offset: 65, ..right },
            Header { csum_offset: 6, ..right },
            Header { gso_size: 0, ..right },
            Header { hdr_len: 101, ..right },
            Header { gso_type: 4, ..right },
            Header { gso_type: 3, ..right },
            Header { gso_type: 0x85, ..right },
            Header { flags: 0, ..right },
        ];
        for header in wrong {
            assert_eq!(header.offload(&frame, 100), None, "{header:?}");
        }
        let changes: [(usize, u8); 5] = [(12, 9), (14, 0x46), (20, 0x20), (23, 17), (46, 0x40)];
        for (at, byte) in changes {
            let mut other = frame;
            other[at] = byte;
            assert_eq!(right.offload(&other, 100), None, "byte {at}");
        }
        assert_eq!(right.offload(&frame[..53], 53), None);
    }
}

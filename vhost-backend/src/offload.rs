//! The virtio-net header: what a sender left undone, as virtio writes it (virtio 1.2, 5.1.6).
//!
//! A guest, or a tap's host, says in the header before each frame which work it leaves to others. We believe it as far as it agrees with the frame
//! ([`Header::offload`]), carry it along as an [`Offload`], and either pass it on ([`Header::passing_on`]) or do the work for the receiver that does not
//! take it over ([`datapath::offload`]).

use datapath::frame::{Checksum, ETHERNET_HEADER, Offload, Segmentation, SegmentationKind};
use datapath::offload::Headers;
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
pub struct Header {
    /// `VIRTIO_NET_HDR_F_...`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_...`.
    pub gso_type: u8,
    /// The length of all headers of a frame to be segmented; a hint.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where summing starts.
    pub csum_start: u16,
    /// Where the checksum goes, from there.
    pub csum_offset: u16,
}

impl Header {
    /// The length in memory, with the number of buffers.
    pub const LEN: usize = 12;
    /// The length in memory before virtio 1.0, without mergeable buffers: there is no number of buffers.
    pub const LEGACY_LEN: usize = 10;

    /// Reads a header.
    #[inline(always)]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self { flags: bytes[0], gso_type: bytes[1], hdr_len: word(2), gso_size: word(4), csum_start: word(6), csum_offset: word(8) }
    }

    /// Writes it, with the number of buffers that the frame takes.
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

    /// Whether it calls the checksum verified; to be asked only of a header that a device wrote, such as the kernel's tap.
    pub fn is_valid(&self) -> bool {
        self.flags & DATA_VALID != 0
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

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

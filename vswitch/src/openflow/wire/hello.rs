//! OFPT_HELLO with its version bitmap (OpenFlow 1.3.5, 7.5.1).

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode};

/// `OFPHET_VERSIONBITMAP`.
const VERSION_BITMAP: u16 = 1;

/// The first message of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions the sender speaks: bit N for wire version N (OpenFlow 1.3 is 4).
    pub versions: u32,
}

impl Hello {
    /// A hello for one version.
    pub fn of(version: u8) -> Self {
        Self { versions: 1 << version }
    }

    /// The version that two peers will speak: the highest that both know.
    pub fn negotiate(self, other: Self) -> Option<u8> {
        (self.versions & other.versions).checked_ilog2().map(|version| version as u8)
    }

    /// A peer that sends no bitmap speaks, by the standard's rule of the lower version, any version up to the header's.
    pub(super) fn decode(version: u8, mut body: Reader) -> Result<Self, ErrorCode> {
        let mut versions = ((1u64 << (u32::from(version).min(31) + 1)) - 2) as u32;
        while !body.is_empty() {
            let (kind, length) = (body.u16()?, usize::from(body.u16()?));
            let mut element = body.part(length.checked_sub(4).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
            if kind == VERSION_BITMAP {
                versions = element.u32()?;
            }
            // The last element's padding may be missing, as some peers send it.
            body.skip((length.next_multiple_of(8) - length).min(body.len()))?;
        }
        Ok(Self { versions })
    }

    /// The bitmap is left out if it says no more than the header's version: old peers may not know it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if ((self.versions >> 1) + 1).is_power_of_two() {
            return;
        }
        out.put_u16(VERSION_BITMAP);
        out.put_u16(8);
        out.put_u32(self.versions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(version: u8, body: &[u8]) -> Result<Hello, ErrorCode> {
        Hello::decode(version, Reader::new(body, BadRequest::BadLen))
    }

    #[test]
    fn without_a_bitmap_every_version_up_to_the_headers_counts() {
        let ours = Hello::of(4);
        assert_eq!(decode(4, &[]).unwrap().negotiate(ours), Some(4));
        assert_eq!(decode(6, &[]).unwrap().negotiate(ours), Some(4));
        assert_eq!(decode(1, &[]).unwrap().negotiate(ours), None);
        assert_eq!(decode(255, &[]).unwrap().negotiate(ours), Some(4));
        assert_eq!(decode(0, &[]).unwrap().negotiate(ours), None);
    }

    #[test]
    fn the_bitmap_decides_and_unknown_elements_are_passed_over() {
        let bitmap = [0, 1, 0, 8, 0, 0, 0, 0x52];
        assert_eq!(decode(6, &bitmap).unwrap().negotiate(Hello::of(4)), Some(4));
        assert_eq!(decode(6, &bitmap).unwrap().negotiate(Hello::of(5)), None);
        let unknown_first = [&[0, 9, 0, 5, 7, 0, 0, 0], bitmap.as_slice()].concat();
        assert_eq!(decode(6, &unknown_first).unwrap(), Hello { versions: 0x52 });
    }

    #[test]
    fn elements_that_lie_about_their_length_are_refused() {
        for body in [&[0, 1, 0, 3][..], &[0, 1, 0, 9, 0, 0, 0, 16], &[0, 1, 0, 6, 0, 0], &[0, 1, 0]] {
            assert_eq!(decode(4, body), Err(BadRequest::BadLen.into()), "{body:?}");
        }
    }
}

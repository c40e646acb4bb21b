//! Checksums: the Internet checksum (RFC 1071, RFC 1624) and CRC32c (RFC 9260, appendix A).
//!
//! The Internet checksum is the complement of a *sum*: the ones' complement sum of 16-bit words. Both are plain `u16`s here, named apart. A header
//! changed in place is corrected by the difference, never summed again: the checksum of a frame that came in damaged stays wrong. [`Sum`] is for
//! checksums that a sender left undone.

/// The sum of bytes that come piece by piece.
///
/// Words are added in the CPU's byte order, which yields the sum in that order (RFC 1071, 2(B)); a piece that begins at an odd byte has its sum swapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    total: u64,
    odd: bool,
}

impl Sum {
    /// Adds the next bytes, fewer than 2^32.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        let total: u64 = words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        self.append(Self { total, odd: !bytes.len().is_multiple_of(2) });
    }

    /// Adds the sum of the next bytes.
    #[inline]
    pub fn append(&mut self, next: Self) {
        let folded = fold(next.total);
        self.total += u64::from(if self.odd { folded.swap_bytes() } else { folded });
        self.odd ^= next.odd;
    }

    /// The sum itself, as it stands in a partial checksum, in network byte order.
    pub fn partial(self) -> [u8; 2] {
        fold(self.total).to_ne_bytes()
    }

    /// The checksum, in network byte order.
    pub fn checksum(self) -> [u8; 2] {
        (!fold(self.total)).to_ne_bytes()
    }

    /// The checksum of a transport protocol: zero, which means "none" in UDP, is written as its other representation.
    pub fn transport_checksum(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        }
    }
}

/// The ones' complement sum of 16-bit words that were added up.
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The sum of a number's 16-bit words.
const fn words(number: u128) -> u64 {
    fold((number >> 64) as u64) as u64 + fold(number as u64) as u64
}

/// The checksum after `old` became `new` in what it covers (RFC 1624, equation 3). Both are given as they lie in 16-bit words: a value's least significant
/// bit at the end of a word, so a byte that is the first of its word is shifted up by eight.
#[must_use]
pub const fn update(checksum: u16, old: u128, new: u128) -> u16 {
    !update_sum(!checksum, old, new)
}

/// The same of a sum, such as the pseudo header's that a partial checksum holds.
#[must_use]
pub const fn update_sum(sum: u16, old: u128, new: u128) -> u16 {
    fold(sum as u64 + !fold(words(old)) as u64 + words(new))
}

/// The same of a UDP checksum, where zero says that there is none, and so none is made.
#[must_use]
pub const fn update_udp(checksum: u16, old: u128, new: u128) -> u16 {
    match update(checksum, old, new) {
        _ if checksum == 0 => 0,
        0 => 0xffff,
        updated => updated,
    }
}

/// The sum of bytes, for tests.
#[cfg(test)]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    u16::from_be_bytes(sum.partial())
}

/// The sum of the pseudo header of a transport protocol over IPv4, for tests; `len` is that of the transport header and its payload.
#[cfg(test)]
pub(crate) fn pseudo_header_v4(src: u32, dst: u32, proto: u8, len: u32) -> u16 {
    fold(words(src.into()) + words(dst.into()) + u64::from(proto) + u64::from(len))
}

/// The sum of the pseudo header of a transport protocol over IPv6 (RFC 8200, 8.1), for tests.
#[cfg(test)]
pub(crate) fn pseudo_header_v6(src: u128, dst: u128, proto: u8, len: u32) -> u16 {
    fold(words(src) + words(dst) + u64::from(proto) + u64::from(len))
}

/// CRC32c's polynomial, bits reversed: the coefficient of x^31 is bit 0.
const CASTAGNOLI: u32 = 0x82f6_3b78;

/// CRC32c of `bytes`, for tests.
#[cfg(test)]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| times_x(crc)))
}

/// CRC32c after four bytes, `old`, became `new`, with `after` bytes following them. A CRC is linear: the difference of two CRCs is that of the
/// difference of what they cover, so the rest need not be read again.
#[must_use]
pub fn update_crc32c(crc: u32, old: [u8; 4], new: [u8; 4], after: usize) -> u32 {
    let difference = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
    // The four bytes themselves shift the difference by 32, each byte after them by 8.
    crc ^ multiply(difference, power_of_x(8 * after as u64 + 32))
}

/// `a` times x, modulo the polynomial.
const fn times_x(a: u32) -> u32 {
    if a & 1 != 0 { a >> 1 ^ CASTAGNOLI } else { a >> 1 }
}

/// `a` times `b`, modulo the polynomial.
fn multiply(mut a: u32, b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        if b >> bit & 1 != 0 {
            product ^= a;
        }
        a = times_x(a);
    }
    product
}

/// x to the power `exponent`, modulo the polynomial.
fn power_of_x(mut exponent: u64) -> u32 {
    let (mut power, mut square) = (1 << 31, 1 << 30);
    while exponent != 0 {
        if exponent & 1 != 0 {
            power = multiply(power, square);
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        // RFC 1071, 3; RFC 3720, B.4.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0x12]), 0x1200);
        assert_eq!((Sum::default().partial(), Sum::default().transport_checksum()), ([0, 0], [0xff, 0xff]));
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(update_udp(0, 1, 2), 0);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_its_words(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut expected = 0u32;
            for word in bytes.chunks(2) {
                expected += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
                expected = (expected & 0xffff) + (expected >> 16);
            }
            prop_assert_eq!(u32::from(sum(&bytes)), expected);
        }

        #[test]
        fn pieces_add_up(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let mut whole = Sum::default();
            pieces.iter().for_each(|piece| whole.add(piece));
            prop_assert_eq!(u16::from_be_bytes(whole.partial()), sum(&pieces.concat()));
            prop_assert_eq!(u16::from_be_bytes(whole.checksum()), !sum(&pieces.concat()));
        }

        #[test]
        fn updating_is_as_good_as_summing_again(bytes in prop::collection::vec(any::<u8>(), 64), new in any::<[u8; 16]>(), at in 0usize..24) {
            let at = at * 2;
            let mut changed = bytes.clone();
            changed[at..at + 16].copy_from_slice(&new);
            let old = u128::from_be_bytes(bytes[at..at + 16].try_into().unwrap());
            let updated = update(!sum(&bytes), old, u128::from_be_bytes(new));
            // Zero and its complement are one number; a receiver adds the checksum to the sum and takes either for right.
            prop_assert_eq!(fold(u64::from(sum(&changed)) + u64::from(updated)), 0xffff);
        }

        #[test]
        fn a_crc_is_updated_without_reading_what_follows(bytes in prop::collection::vec(any::<u8>(), 4..200), new: [u8; 4]) {
            let mut changed = bytes.clone();
            changed[..4].copy_from_slice(&new);
            let old = bytes[..4].try_into().unwrap();
            prop_assert_eq!(update_crc32c(crc32c(&bytes), old, new, bytes.len() - 4), crc32c(&changed));
        }

        #[test]
        fn pseudo_headers_are_sums_of_their_bytes(src: u128, dst: u128, proto: u8, len: u32) {
            let v6 = [&src.to_be_bytes()[..], &dst.to_be_bytes(), &len.to_be_bytes(), &[0, 0, 0, proto]].concat();
            prop_assert_eq!(pseudo_header_v6(src, dst, proto, len), sum(&v6));
            let (src, dst, len) = (src as u32, dst as u32, len as u16);
            let v4 = [&src.to_be_bytes()[..], &dst.to_be_bytes(), &[0, proto], &len.to_be_bytes()].concat();
            prop_assert_eq!(pseudo_header_v4(src, dst, proto, len.into()), sum(&v4));
        }
    }
}

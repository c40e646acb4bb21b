//! Checksums: the Internet checksum (RFC 1071, RFC 1624) and CRC32c (RFC 9260, appendix A).
//!
//! The Internet checksum is the complement of a *sum*: the ones' complement sum of 16-bit words. Both are plain `u16`s here, named apart. A header
//! changed in place is corrected by the difference, never summed again: the checksum of a frame that came in damaged stays wrong.

/// The ones' complement sum of any number of 16-bit words, held in a wider number.
const fn fold(mut sum: u128) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum >> 64) + (sum & u64::MAX as u128);
        sum = (sum >> 32) + (sum & u32::MAX as u128);
        sum = (sum >> 16) + (sum & u16::MAX as u128);
    }
    sum as u16
}

/// The sum of `bytes`; an odd one is padded with a zero. Sums of pieces of even length can be added with [`add`].
pub fn sum(bytes: &[u8]) -> u16 {
    // Sums of numbers of 32 bits, in the machine's order: the order of bytes commutes with the sum (RFC 1071, 2(B)).
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    u16::from_be(fold(u128::from(total) + u128::from(u32::from_ne_bytes(last))))
}

/// The sum of what two sums cover.
pub const fn add(a: u16, b: u16) -> u16 {
    fold(a as u128 + b as u128)
}

/// The checksum of bytes given their sum.
pub const fn finish(sum: u16) -> u16 {
    !sum
}

/// The sum of the pseudo header of TCP or UDP over IPv4; `len` is that of the transport header and its payload.
pub const fn pseudo_header_v4(src: u32, dst: u32, proto: u8, len: u32) -> u16 {
    fold(src as u128 + dst as u128 + proto as u128 + len as u128)
}

/// The sum of the pseudo header of TCP, UDP or ICMPv6 over IPv6 (RFC 8200, 8.1).
pub const fn pseudo_header_v6(src: u128, dst: u128, proto: u8, len: u32) -> u16 {
    add(add(fold(src), fold(dst)), fold(proto as u128 + len as u128))
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
    fold(sum as u128 + !fold(old) as u128 + fold(new) as u128)
}

/// The same of a UDP checksum, where zero says that there is none, and so none is made.
#[must_use]
pub const fn update_udp(checksum: u16, old: u128, new: u128) -> u16 {
    if checksum == 0 { 0 } else { udp(update(checksum, old, new)) }
}

/// The checksum as UDP sends it: never zero.
pub const fn udp(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// CRC32c's polynomial, bits reversed: the coefficient of x^31 is bit 0.
const CASTAGNOLI: u32 = 0x82f6_3b78;

static CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = times_x(crc);
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC32c of `bytes`. SCTP sends it least significant byte first.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| crc >> 8 ^ CRC32C[usize::from(crc as u8 ^ byte)])
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
        fn updating_is_as_good_as_summing_again(bytes in prop::collection::vec(any::<u8>(), 64), new in any::<[u8; 16]>(), at in 0usize..24) {
            let at = at * 2;
            let mut changed = bytes.clone();
            changed[at..at + 16].copy_from_slice(&new);
            let old = u128::from_be_bytes(bytes[at..at + 16].try_into().unwrap());
            let updated = update(finish(sum(&bytes)), old, u128::from_be_bytes(new));
            // Zero and its complement are one number; a receiver adds the checksum to the sum and takes either for right.
            prop_assert_eq!(add(sum(&changed), updated), 0xffff);
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
            let v4 = [&(src as u32).to_be_bytes()[..], &(dst as u32).to_be_bytes(), &[0, proto], &(len as u16).to_be_bytes()].concat();
            prop_assert_eq!(pseudo_header_v4(src as u32, dst as u32, proto, u32::from(len as u16)), sum(&v4));
        }
    }
}

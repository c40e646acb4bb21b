//! Reading bytes that may end too soon, and writing bytes with lengths that are known only later.

use super::error::ErrorCode;

/// What is left to read of a message or of a part of it, and the error to answer if that is too little or too much.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    bad_length: ErrorCode,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; whatever does not fit them is answered with `bad_length`.
    pub fn new(bytes: &'a [u8], bad_length: impl Into<ErrorCode>) -> Self {
        Self { rest: bytes, bad_length: bad_length.into() }
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], ErrorCode> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(self.bad_length)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A reader of the next `count` bytes, with an error of its own.
    pub fn part(&mut self, count: usize, bad_length: impl Into<ErrorCode>) -> Result<Self, ErrorCode> {
        let bad_length = bad_length.into();
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(bad_length)?;
        self.rest = rest;
        Ok(Self { rest: taken, bad_length })
    }

    /// Passes over padding, whatever it holds.
    pub fn skip(&mut self, count: usize) -> Result<(), ErrorCode> {
        self.take(count).map(|_| ())
    }

    /// Passes over padding that must be zero.
    pub fn zeros(&mut self, count: usize, not_zero: impl Into<ErrorCode>) -> Result<(), ErrorCode> {
        if self.take(count)?.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(not_zero.into()) }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ErrorCode> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(self.bad_length)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, ErrorCode> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes, the most significant first.
    pub fn u16(&mut self) -> Result<u16, ErrorCode> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, the most significant first.
    pub fn u32(&mut self) -> Result<u32, ErrorCode> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, the most significant first.
    pub fn u64(&mut self) -> Result<u64, ErrorCode> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next `count` bytes (at most 16) as a number, the most significant first.
    pub fn uint(&mut self, count: usize) -> Result<u128, ErrorCode> {
        Ok(self.take(count)?.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }

    /// A name in a field of `count` bytes, up to its first zero or the last byte, which is one; bytes that are not UTF-8 are replaced.
    pub fn text(&mut self, count: usize) -> Result<String, ErrorCode> {
        let bytes = self.take(count)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(count);
        // By something that is no longer, so that the name fits the field again.
        let mut text = String::from_utf8_lossy(&bytes[..end]).replace(char::REPLACEMENT_CHARACTER, "?");
        text.truncate(text.floor_char_boundary(count - 1));
        Ok(text)
    }

    /// Refuses what is left over.
    pub fn finish(self) -> Result<(), ErrorCode> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.bad_length) }
    }
}

/// Appends numbers, the most significant byte first.
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes.
    fn put_u16(&mut self, value: u16);
    /// Four bytes.
    fn put_u32(&mut self, value: u32);
    /// Eight bytes.
    fn put_u64(&mut self, value: u64);
    /// The low `count` bytes (at most 16) of a number.
    fn put_uint(&mut self, value: u128, count: usize);
    /// Padding.
    fn put_zeros(&mut self, count: usize);
    /// A name in a field of `count` bytes, cut so that a zero follows it.
    fn put_text(&mut self, text: &str, count: usize);
    /// What `body` appends, with a 16-bit length of all from `start` on written at `start + at` afterwards. Returns that length.
    fn set_length(&mut self, start: usize, at: usize) -> usize;
    /// Padding up to a multiple of eight bytes from `start`.
    fn pad_from(&mut self, start: usize);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_uint(&mut self, value: u128, count: usize) {
        self.extend_from_slice(&value.to_be_bytes()[16 - count..]);
    }

    fn put_zeros(&mut self, count: usize) {
        self.resize(self.len() + count, 0);
    }

    fn put_text(&mut self, text: &str, count: usize) {
        let kept = &text.as_bytes()[..text.floor_char_boundary(count - 1)];
        self.extend_from_slice(kept);
        self.put_zeros(count - kept.len());
    }

    fn set_length(&mut self, start: usize, at: usize) -> usize {
        let length = self.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "an OpenFlow structure of {length} bytes");
        self[start + at..start + at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        length
    }

    fn pad_from(&mut self, start: usize) {
        let length = self.len() - start;
        self.put_zeros(length.next_multiple_of(8) - length);
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::BadRequest;
    use super::*;

    #[test]
    fn reading_past_the_end_is_the_readers_own_error() {
        let mut reader = Reader::new(&[1, 2, 3], BadRequest::BadLen);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u16(), Err(BadRequest::BadLen.into()));
        assert_eq!(reader.finish(), Err(BadRequest::BadLen.into()));
        assert_eq!(reader.u8(), Ok(3));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn names_are_cut_at_a_character_and_end_with_a_zero() {
        let mut out = Vec::new();
        out.put_text("abcé", 5);
        assert_eq!(out, b"abc\0\0");
        assert_eq!(Reader::new(&out, BadRequest::BadLen).text(5), Ok("abc".into()));
        // What is no name comes back as it is read.
        for bytes in [&[0xff; 5], b"abcde", b"abc\xe2\x82", "abc\u{e9}".as_bytes()] {
            let read = Reader::new(bytes, BadRequest::BadLen).text(5).unwrap();
            out.clear();
            out.put_text(&read, 5);
            assert_eq!(Reader::new(&out, BadRequest::BadLen).text(5), Ok(read));
        }
    }
}

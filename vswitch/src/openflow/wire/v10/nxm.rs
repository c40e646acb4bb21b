//! Nicira's extensible match (NXM) in OpenFlow 1.0's messages, where it may also ask for a cookie, as if that were a field.

use super::super::bytes::{Put, Reader};
use super::super::error::{BadMatch, ErrorCode};
use super::super::oxm::{decode_fields, put_nx_fields};
use datapath::key::Match;

/// The header of NXM_NX_COOKIE: all of a cookie.
const COOKIE: [u8; 4] = [0, 1, 30 << 1, 8];
/// The header of NXM_NX_COOKIE_W: the bits of a cookie that a mask has.
const COOKIE_W: [u8; 4] = [0, 1, 30 << 1 | 1, 16];

/// A cookie to look for, in the bits of a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cookie {
    pub value: u64,
    pub mask: u64,
}

/// Reads a match of `length` bytes and its padding, and the cookie among its fields.
pub(super) fn decode_with_cookie(reader: &mut Reader, length: u16) -> Result<(Match, Option<Cookie>), ErrorCode> {
    let length = usize::from(length);
    let mut entries = reader.part(length, BadMatch::BadLen)?;
    reader.part(length.next_multiple_of(8) - length, BadMatch::BadLen)?;
    let (mut fields, mut cookie) = (Vec::with_capacity(length), None);
    while !entries.is_empty() {
        let header: [u8; 4] = entries.array()?;
        let mut payload = entries.part(header[3].into(), BadMatch::BadLen)?;
        if ![COOKIE, COOKIE_W].contains(&header) {
            fields.extend_from_slice(&header);
            fields.extend_from_slice(payload.rest());
            continue;
        }
        let value = payload.u64()?;
        let mask = if header == COOKIE_W { payload.u64()? } else { u64::MAX };
        if value & !mask != 0 {
            return Err(BadMatch::BadWildcards.into());
        }
        if cookie.replace(Cookie { value, mask }).is_some() {
            return Err(BadMatch::DupField.into());
        }
    }
    Ok((decode_fields(Reader::new(&fields, BadMatch::BadLen))?, cookie))
}

/// Appends a match and its padding, with the cookie to look for, if any of its bits count. Its length goes to `length_at`.
pub(super) fn put(out: &mut Vec<u8>, matching: &Match, cookie: Cookie, length_at: usize) {
    let start = out.len();
    put_nx_fields(out, matching);
    match cookie.mask {
        0 => {}
        u64::MAX => {
            out.extend_from_slice(&COOKIE);
            out.put_u64(cookie.value);
        }
        mask => {
            out.extend_from_slice(&COOKIE_W);
            out.put_u64(cookie.value);
            out.put_u64(mask);
        }
    }
    let length = (out.len() - start) as u16;
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    out.pad_from(start);
}

//! OXM: fields as type, length and value, and the matches made of them (OpenFlow 1.3.5, 7.2.3).
//!
//! A field's header is a class (16 bits), a number (7), whether a mask follows the value (1) and the length of what follows (8). In class
//! [`OXM_EXPERIMENTER`] what follows begins with the experimenter's id. The classes of Nicira's extensible match (NXM) fit the same header,
//! so both are decoded alike; what is sent is each field's first id in the table of fields, which is the one that `ovs-ofctl` expects in OpenFlow 1.3.

use super::bytes::{Put, Reader};
use super::error::{BadMatch, ErrorCode};
use datapath::key::field::{OXM_EXPERIMENTER, OXM_ONF};
use datapath::key::{Field, FlowMask, Match, Words};

/// `OFPMT_OXM`, the only match type of OpenFlow 1.3.
const OXM_MATCH: u16 = 1;

/// The longest encoded match: its header and every field with a mask.
pub const MAX_MATCH: usize = 4 + Field::ALL.len() * (8 + 2 * 16);

/// A field's header as read, whether the field is known or not.
#[derive(Clone, Copy, Debug)]
struct Header {
    field: Option<Field>,
    masked: bool,
    /// Bytes of value and mask.
    length: usize,
}

impl Header {
    /// Reads a header; what is too short is the reader's error.
    fn decode(reader: &mut Reader, bad_length: ErrorCode) -> Result<Self, ErrorCode> {
        let (class, number, length) = (reader.u16()?, reader.u8()?, usize::from(reader.u8()?));
        let (masked, number) = (number & 1 != 0, number >> 1);
        if class == OXM_EXPERIMENTER {
            let length = length.checked_sub(4).ok_or(bad_length)?;
            let known = reader.u32()? == OXM_ONF;
            return Ok(Self { field: Field::by_oxm(class, number).filter(|_| known), masked, length });
        }
        Ok(Self { field: Field::by_oxm(class, number), masked, length })
    }
}

/// A field with its value and mask as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FieldValue {
    pub(super) field: Field,
    pub(super) value: u128,
    /// The field's ones if there was no mask, or one of ones.
    pub(super) mask: u128,
    /// Whether there was a mask.
    pub(super) masked: bool,
}

/// What to answer to a field that can't be taken: it depends on where the field is.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldErrors {
    /// The field is not known.
    pub(super) unknown: ErrorCode,
    /// Its length is not the field's.
    pub(super) length: ErrorCode,
    /// The value has bits that the field doesn't have.
    pub(super) value: ErrorCode,
    /// The mask has bits that the field doesn't have.
    pub(super) mask: ErrorCode,
    /// The value has bits outside the mask.
    pub(super) outside: ErrorCode,
}

impl FieldValue {
    pub(super) fn decode(reader: &mut Reader, errors: &FieldErrors) -> Result<Self, ErrorCode> {
        let header = Header::decode(reader, errors.length)?;
        let mut payload = reader.part(header.length, errors.length)?;
        let field = header.field.ok_or(errors.unknown)?;
        let length = field.oxm_len();
        if header.length != length * (1 + usize::from(header.masked)) {
            return Err(errors.length);
        }
        let value = payload.uint(length)?;
        let mask = match header.masked {
            true => payload.uint(length)?,
            false => field.ones(),
        };
        let all_bytes = u128::MAX >> (128 - 8 * length);
        let mask = if mask == all_bytes { field.ones() } else { mask };
        if value & !field.ones() != 0 {
            return Err(errors.value);
        }
        if mask & !field.ones() != 0 {
            return Err(errors.mask);
        }
        if value & !mask != 0 {
            return Err(errors.outside);
        }
        Ok(Self { field, value, mask, masked: header.masked })
    }
}

/// Appends a field's header for a payload of value, and mask if `masked`; with `payload` false for a mere mention of the field.
pub(super) fn put_header(out: &mut Vec<u8>, field: Field, masked: bool) {
    let id = field.info().oxm[0];
    let experimenter = id.class == OXM_EXPERIMENTER;
    out.put_u16(id.class);
    out.put_u8(id.number << 1 | u8::from(masked));
    out.put_u8((field.oxm_len() * (1 + usize::from(masked)) + 4 * usize::from(experimenter)) as u8);
    if experimenter {
        out.put_u32(OXM_ONF);
    }
}

/// Appends a field with its value, and its mask if that isn't of ones.
pub(super) fn put_field(out: &mut Vec<u8>, field: Field, value: u128, mask: u128) {
    let masked = mask != field.ones();
    put_header(out, field, masked);
    out.put_uint(value, field.oxm_len());
    if masked {
        out.put_uint(mask, field.oxm_len());
    }
}

/// Reads a mention of a field: a header without its payload.
pub(super) fn decode_mention(reader: &mut Reader, unknown: ErrorCode, bad_length: ErrorCode) -> Result<Field, ErrorCode> {
    let header = Header::decode(reader, bad_length)?;
    header.field.filter(|field| !header.masked && header.length == field.oxm_len()).ok_or(unknown)
}

const MATCH_ERRORS: FieldErrors = FieldErrors {
    unknown: ErrorCode::BadMatch(BadMatch::BadField),
    length: ErrorCode::BadMatch(BadMatch::BadLen),
    value: ErrorCode::BadMatch(BadMatch::BadValue),
    mask: ErrorCode::BadMatch(BadMatch::BadMask),
    outside: ErrorCode::BadMatch(BadMatch::BadWildcards),
};

/// Reads `struct ofp_match` with its padding.
pub(super) fn decode_match(reader: &mut Reader) -> Result<Match, ErrorCode> {
    let mut head = reader.part(4, BadMatch::BadLen)?;
    let (kind, length) = (head.u16()?, usize::from(head.u16()?));
    if kind != OXM_MATCH {
        return Err(BadMatch::BadType.into());
    }
    let fields_length = length.checked_sub(4).ok_or(BadMatch::BadLen)?;
    let mut fields = reader.part(fields_length, BadMatch::BadLen)?;
    reader.part(length.next_multiple_of(8) - length, BadMatch::BadLen)?;

    let mut matching = Match::ANY;
    let mut seen: FlowMask = Words::ZERO;
    while !fields.is_empty() {
        let FieldValue { field, value, mask, .. } = FieldValue::decode(&mut fields, &MATCH_ERRORS)?;
        if !field.info().maskable && mask != 0 && mask != field.ones() {
            return Err(BadMatch::BadMask.into());
        }
        if !matching.permits(field) {
            return Err(BadMatch::BadPrereq.into());
        }
        if field == Field::InPhyPort {
            // Its prerequisite is in_port, and the two are the same here: a match of both is either redundant or of nothing.
            match matching.get(Field::InPort) {
                Some(port) if mask == 0 || port.value == value => continue,
                _ => return Err(BadMatch::BadValue.into()),
            }
        }
        if field == Field::VlanVid && mask == field.ones() && value != 0 && value & 0x1000 == 0 {
            // A VLAN id without OFPVID_PRESENT: no frame has that.
            return Err(BadMatch::BadValue.into());
        }
        if seen.masked(&field.mask()) != Words::ZERO {
            return Err(BadMatch::DupField.into());
        }
        seen.include(&field.mask());
        matching = matching.with_masked(field, value, mask);
    }
    Ok(matching)
}

/// Appends `struct ofp_match` with its padding.
pub(super) fn put_match(out: &mut Vec<u8>, matching: &Match) {
    let start = out.len();
    out.put_u16(OXM_MATCH);
    out.put_u16(0);
    for found in matching.fields() {
        put_field(out, found.field, found.value, found.mask);
    }
    out.set_length(start, 2);
    out.pad_from(start);
}

//! OXM: fields as type, length and value, and the matches made of them (OpenFlow 1.3.5, 7.2.3).
//!
//! A field's header is a class (16 bits), a number (7), whether a mask follows the value (1) and the length of what follows (8). In class
//! [`OXM_EXPERIMENTER`] what follows begins with the experimenter's id. The classes of Nicira's extensible match (NXM) fit the same header,
//! so both are decoded alike; [`Ids`] says which is sent.

use super::bytes::{Put, Reader};
use super::error::{BadMatch, ErrorCode};
use datapath::key::field::{NXM_NX, NXM_OF, OXM_EXPERIMENTER, OXM_ONF, OxmId};
use datapath::key::{Field, FlowMask, Match, Words};

/// `OFPMT_OXM`, the only match type of OpenFlow 1.3.
const OXM_MATCH: u16 = 1;

/// The longest encoded match: its header and every field with a mask.
pub const MAX_MATCH: usize = 4 + Field::ALL.len() * (8 + 2 * 16);

/// A field's header as read, whether the field is known or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mention {
    pub(super) field: Option<Field>,
    pub(super) masked: bool,
    /// Bytes of value and mask.
    length: usize,
}

impl Mention {
    /// Reads a header; what is too short is the reader's error.
    pub(super) fn decode(reader: &mut Reader, bad_length: ErrorCode) -> Result<Self, ErrorCode> {
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
        let header = Mention::decode(reader, errors.length)?;
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

/// Which of its ids a field is sent by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// The first in the table of fields, which is the one that `ovs-ofctl` expects in OpenFlow 1.3.
    Oxm,
    /// That of Nicira's extensible match, or else one whose header has four bytes: in Nicira's actions, which have no room for more.
    Nxm,
}

impl Ids {
    fn of(self, field: Field) -> OxmId {
        let ids = field.info().oxm;
        let find = |is: fn(&OxmId) -> bool| ids.iter().copied().find(is);
        match self {
            Self::Oxm => ids[0],
            Self::Nxm => find(|id| [NXM_OF, NXM_NX].contains(&id.class)).or(find(|id| id.class != OXM_EXPERIMENTER)).unwrap_or(ids[0]),
        }
    }
}

/// Appends a field's header for a payload of value, and mask if `masked`.
pub(super) fn put_header(out: &mut Vec<u8>, ids: Ids, field: Field, masked: bool) {
    let id = ids.of(field);
    let experimenter = id.class == OXM_EXPERIMENTER;
    out.put_u16(id.class);
    out.put_u8(id.number << 1 | u8::from(masked));
    out.put_u8((field.oxm_len() * (1 + usize::from(masked)) + 4 * usize::from(experimenter)) as u8);
    if experimenter {
        out.put_u32(OXM_ONF);
    }
}

/// Appends a field with its value, and its mask if that isn't of ones.
pub(super) fn put_field(out: &mut Vec<u8>, ids: Ids, field: Field, value: u128, mask: u128) {
    let masked = mask != field.ones();
    put_header(out, ids, field, masked);
    out.put_uint(value, field.oxm_len());
    if masked {
        out.put_uint(mask, field.oxm_len());
    }
}

/// Reads a mention of a field: a header without its payload.
pub(super) fn decode_mention(reader: &mut Reader, unknown: ErrorCode, bad_length: ErrorCode) -> Result<Field, ErrorCode> {
    let header = Mention::decode(reader, bad_length)?;
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
    let fields = reader.part(fields_length, BadMatch::BadLen)?;
    reader.part(length.next_multiple_of(8) - length, BadMatch::BadLen)?;
    decode_fields(fields)
}

/// Reads Nicira's extensible match: fields of `length` bytes, and padding.
pub(super) fn decode_nx_match(reader: &mut Reader, length: u16) -> Result<Match, ErrorCode> {
    let length = usize::from(length);
    let fields = reader.part(length, BadMatch::BadLen)?;
    reader.part(length.next_multiple_of(8) - length, BadMatch::BadLen)?;
    decode_fields(fields)
}

/// Reads a match's fields to the end of `fields`.
pub(super) fn decode_fields(mut fields: Reader) -> Result<Match, ErrorCode> {
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
    put_fields(out, matching);
    out.set_length(start, 2);
    out.pad_from(start);
}

/// Appends the fields of a match.
pub(super) fn put_fields(out: &mut Vec<u8>, matching: &Match) {
    matching.fields().for_each(|found| put_field(out, Ids::Oxm, found.field, found.value, found.mask));
}

/// Appends Nicira's extensible match with its padding, and returns its length without.
pub(super) fn put_nx_match(out: &mut Vec<u8>, matching: &Match) -> u16 {
    let start = out.len();
    put_nx_fields(out, matching);
    let length = out.len() - start;
    out.pad_from(start);
    length as u16
}

/// Appends the fields of Nicira's extensible match.
pub(super) fn put_nx_fields(out: &mut Vec<u8>, matching: &Match) {
    let mut put = |field: Field, value: u128, mask: u128| put_field(out, Ids::Nxm, field, value, mask);
    for found in matching.fields() {
        match found.field {
            // These have other widths there, and are seen together. A port that needs more than 16 bits goes by OXM's id.
            Field::InPort if Match::ANY.with(Field::InPortNxm, found.value).get(Field::InPort) == Some(found) => {
                put(Field::InPortNxm, found.value & Field::InPortNxm.ones(), Field::InPortNxm.ones());
            }
            Field::VlanVid => {
                let (pcp, pcp_mask) = matching.get(Field::VlanPcp).map_or((0, 0), |pcp| (pcp.value, pcp.mask));
                // Without a tag there is no priority; who asks for that in OpenFlow 1.0 asks for a TCI of zero.
                let untagged = found.value == 0 && found.is_exact();
                let mask = if untagged { Field::VlanTci.ones() } else { found.mask | pcp_mask << 13 };
                put(Field::VlanTci, found.value | pcp << 13, mask);
            }
            Field::VlanPcp => {}
            Field::IpDscp => put(Field::NwTos, found.value << 2, Field::NwTos.ones()),
            field => put(field, found.value, found.mask),
        }
    }
}

//! What a table can do (OpenFlow 1.3.5, 7.3.5.5). All tables of the switch can do the same, but for where goto-table leads.

use super::super::bytes::{Put, Reader};
use super::super::error::{ErrorCode, TableFeaturesFailed};
use super::super::{action, instruction, oxm};
use datapath::key::Field;

// OFPTFPT_*: properties; each also has a variant for the table-miss rule, which may be left out if it is the same.
const INSTRUCTIONS: u16 = 0;
const NEXT_TABLES: u16 = 2;
const WRITE_ACTIONS: u16 = 4;
const APPLY_ACTIONS: u16 = 6;
const MATCH: u16 = 8;
const WILDCARDS: u16 = 10;
const WRITE_SETFIELD: u16 = 12;
const APPLY_SETFIELD: u16 = 14;

const NAME_LENGTH: usize = 32;

/// The features of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFeatures {
    /// Which.
    pub table: u8,
    /// Its name; at most 31 bytes are sent.
    pub name: String,
    /// The most rules it can have.
    pub max_entries: u32,
    /// The tables that goto-table can lead to: those after this one, and before this number.
    pub tables: u8,
}

impl TableFeatures {
    /// Reads what differs between tables.
    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let bad_length = TableFeaturesFailed::BadLen;
        let length = usize::from(body.u16()?);
        let mut body = body.part(length.checked_sub(2).ok_or(bad_length)?, bad_length)?;
        let table = body.u8()?;
        body.skip(5)?;
        let name = body.text(NAME_LENGTH)?;
        body.skip(8 + 8 + 4)?;
        let mut features = Self { table, name, max_entries: body.u32()?, tables: table.saturating_add(1) };
        while !body.is_empty() {
            let (kind, length) = (body.u16()?, usize::from(body.u16()?));
            let property = body.part(length.checked_sub(4).ok_or(bad_length)?, bad_length)?.rest();
            body.skip(length.next_multiple_of(8) - length)?;
            if let (NEXT_TABLES, Some(last)) = (kind, property.iter().max()) {
                features.tables = last.saturating_add(1);
            }
        }
        Ok(features)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u16(0);
        out.put_u8(self.table);
        out.put_zeros(5);
        out.put_text(&self.name, NAME_LENGTH);
        out.put_u64(u64::MAX); // metadata that can be matched
        out.put_u64(u64::MAX); // and written
        out.put_u32(0);
        out.put_u32(self.max_entries);

        let next = self.table.saturating_add(1);
        let instructions = instruction::SUPPORTED.iter().filter(|kind| next < self.tables || **kind != instruction::GOTO_TABLE);
        put_property(out, INSTRUCTIONS, |out| instructions.for_each(|kind| put_type(out, *kind)));
        put_property(out, NEXT_TABLES, |out| out.extend(next..self.tables));
        for property in [WRITE_ACTIONS, APPLY_ACTIONS] {
            put_property(out, property, |out| {
                (0..32).filter(|kind| action::SUPPORTED >> kind & 1 != 0).for_each(|kind| put_type(out, kind))
            });
        }
        let fields = || Field::ALL.iter().copied().filter(|field| !field.info().view);
        for property in [MATCH, WILDCARDS] {
            let maskable = |field: Field| property == MATCH && field.info().maskable;
            put_property(out, property, |out| fields().for_each(|field| oxm::put_header(out, field, maskable(field))));
        }
        for property in [WRITE_SETFIELD, APPLY_SETFIELD] {
            let writable = fields().filter(|field| field.info().writable);
            put_property(out, property, |out| writable.for_each(|field| oxm::put_header(out, field, false)));
        }
        out.set_length(start, 0);
    }
}

fn put_property(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u16(kind);
    out.put_u16(0);
    body(out);
    out.set_length(start, 2);
    out.pad_from(start);
}

/// An instruction or action by its type only.
fn put_type(out: &mut Vec<u8>, kind: u16) {
    out.put_u16(kind);
    out.put_u16(4);
}

//! What a table can do (OpenFlow 1.3.5, 7.3.5.5), as the switch says it, and as a controller asks for it.

use super::super::bytes::{Put, Reader};
use super::super::error::{ErrorCode, TableFeaturesFailed};
use super::super::oxm::{Ids, Mention, put_header};
use super::super::{action, instruction};
use datapath::key::Field;

// OFPTFPT_*: properties. Each but the match and the wildcards has, one higher, a variant for the table-miss rule, which may be left out if it is the same.
const INSTRUCTIONS: u16 = 0;
const NEXT_TABLES: u16 = 2;
const NEXT_TABLES_MISS: u16 = 3;
const WRITE_ACTIONS: u16 = 4;
const APPLY_ACTIONS: u16 = 6;
const APPLY_ACTIONS_MISS: u16 = 7;
const MATCH: u16 = 8;
const WILDCARDS: u16 = 10;
const WRITE_SETFIELD: u16 = 12;
const APPLY_SETFIELD: u16 = 14;
const APPLY_SETFIELD_MISS: u16 = 15;
const EXPERIMENTER: u16 = 0xfffe;

/// The type of an experimenter's instruction or action.
const EXPERIMENTER_ID: u16 = 0xffff;

const NAME_LENGTH: usize = 32;

/// The features of a table (`struct ofp_table_features`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFeatures {
    /// Which.
    pub table: u8,
    /// Its name; at most 31 bytes are sent.
    pub name: String,
    /// The bits of the metadata that can be matched.
    pub metadata_match: u64,
    /// The bits of the metadata that can be written.
    pub metadata_write: u64,
    /// Deprecated bits.
    pub config: u32,
    /// The most rules it can have.
    pub max_entries: u32,
    /// What else there is to say.
    pub properties: Vec<TableProperty>,
}

/// A list of things that a table can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableProperty {
    /// `OFPTFPT_*`.
    pub kind: u16,
    /// The things.
    pub ids: Vec<FeatureId>,
}

/// A thing that a table can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureId {
    /// An instruction or action of this type.
    Type(u16),
    /// To go to this table.
    Table(u8),
    /// Something with this field; `masked`, also with some of its bits.
    Field {
        /// Which.
        field: Field,
        /// Whether masks are said to be possible.
        masked: bool,
    },
    /// An instruction, an action or a field that is not known here.
    Unknown,
}

impl TableFeatures {
    /// What every table of this switch can do, of `tables` that there are.
    pub fn of_switch(table: u8, name: &str, max_entries: u32, tables: u8) -> Self {
        let next = table.saturating_add(1);
        let types = |types: &mut dyn Iterator<Item = u16>| types.map(FeatureId::Type).collect();
        let instructions = types(&mut instruction::SUPPORTED.into_iter().filter(|kind| next < tables || *kind != instruction::GOTO_TABLE));
        let actions: Vec<_> = types(&mut (0..32).filter(|kind| action::SUPPORTED >> kind & 1 != 0));
        let fields = |of: &dyn Fn(Field) -> Option<bool>| {
            let known = Field::ALL.iter().copied().filter(|field| !field.info().view);
            known.filter_map(|field| of(field).map(|masked| FeatureId::Field { field, masked })).collect::<Vec<_>>()
        };
        // The standard's set-field, which leaves in_port out.
        let writable = fields(&|field| (field.info().writable && field != Field::InPort).then_some(false));
        let properties = [
            (INSTRUCTIONS, instructions),
            (NEXT_TABLES, (next..tables).map(FeatureId::Table).collect()),
            (WRITE_ACTIONS, actions.clone()),
            (APPLY_ACTIONS, actions),
            (MATCH, fields(&|field| Some(field.info().maskable))),
            (WILDCARDS, fields(&|_| Some(false))),
            (WRITE_SETFIELD, writable.clone()),
            (APPLY_SETFIELD, writable),
        ];
        let properties = properties.into_iter().map(|(kind, ids)| TableProperty { kind, ids }).collect();
        let name = name.to_owned();
        Self { table, name, metadata_match: u64::MAX, metadata_write: u64::MAX, config: 0, max_entries, properties }
    }

    /// Whether a table of the switch that can do this can do all that `asked` asks for. A property for the table-miss rule is that for other rules here.
    pub fn includes(&self, asked: &Self) -> Result<(), TableFeaturesFailed> {
        if asked.metadata_match & !self.metadata_match != 0 || asked.metadata_write & !self.metadata_write != 0 {
            return Err(TableFeaturesFailed::BadMetadata);
        }
        for property in &asked.properties {
            let base = if matches!(property.kind, MATCH | WILDCARDS) { property.kind } else { property.kind & !1 };
            let able = self.properties.iter().find(|able| able.kind == base).ok_or(TableFeaturesFailed::BadType)?;
            let can = |id: &FeatureId| match *id {
                FeatureId::Field { field, masked: false } => {
                    able.ids.iter().any(|able| matches!(able, FeatureId::Field { field: known, .. } if *known == field))
                }
                id => able.ids.contains(&id),
            };
            if !property.ids.iter().all(can) {
                return Err(TableFeaturesFailed::BadArgument);
            }
        }
        Ok(())
    }

    pub(super) fn decode(body: &mut Reader) -> Result<Self, ErrorCode> {
        let bad_length = TableFeaturesFailed::BadLen;
        let length = usize::from(body.part(2, bad_length)?.u16()?);
        let mut body = body.part(length.checked_sub(2).ok_or(bad_length)?, bad_length)?;
        let table = body.u8()?;
        body.skip(5)?;
        let name = body.text(NAME_LENGTH)?;
        let (metadata_match, metadata_write, config, max_entries) = (body.u64()?, body.u64()?, body.u32()?, body.u32()?);
        let mut properties = Vec::new();
        while !body.is_empty() {
            let (kind, length) = (body.u16()?, usize::from(body.u16()?));
            let property = body.part(length.checked_sub(4).ok_or(bad_length)?, bad_length)?;
            body.skip(length.next_multiple_of(8) - length)?;
            properties.push(TableProperty { kind, ids: decode_ids(kind, property)? });
        }
        Ok(Self { table, name, metadata_match, metadata_write, config, max_entries, properties })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u16(0);
        out.put_u8(self.table);
        out.put_zeros(5);
        out.put_text(&self.name, NAME_LENGTH);
        out.put_u64(self.metadata_match);
        out.put_u64(self.metadata_write);
        out.put_u32(self.config);
        out.put_u32(self.max_entries);
        for property in &self.properties {
            let start = out.len();
            out.put_u16(property.kind);
            out.put_u16(0);
            for id in &property.ids {
                match *id {
                    FeatureId::Type(kind) => {
                        out.put_u16(kind);
                        out.put_u16(4);
                    }
                    FeatureId::Table(table) => out.put_u8(table),
                    FeatureId::Field { field, masked } => put_header(out, Ids::Oxm, field, masked),
                    FeatureId::Unknown => {}
                }
            }
            out.set_length(start, 2);
            out.pad_from(start);
        }
        out.set_length(start, 0);
    }
}

fn decode_ids(kind: u16, mut property: Reader) -> Result<Vec<FeatureId>, ErrorCode> {
    let mut ids = Vec::new();
    while !property.is_empty() {
        ids.push(match kind {
            NEXT_TABLES..=NEXT_TABLES_MISS => FeatureId::Table(property.u8()?),
            INSTRUCTIONS..=APPLY_ACTIONS_MISS => {
                let (kind, length) = (property.u16()?, usize::from(property.u16()?));
                // Some take the padding of actions for a part of their types.
                property.skip(length.checked_sub(4).ok_or(TableFeaturesFailed::BadLen)?)?;
                if kind == EXPERIMENTER_ID { FeatureId::Unknown } else { FeatureId::Type(kind) }
            }
            MATCH | WILDCARDS | WRITE_SETFIELD..=APPLY_SETFIELD_MISS => {
                let mention = Mention::decode(&mut property, TableFeaturesFailed::BadLen.into())?;
                mention.field.map_or(FeatureId::Unknown, |field| FeatureId::Field { field, masked: mention.masked })
            }
            EXPERIMENTER.. => {
                property.rest();
                FeatureId::Unknown
            }
            _ => return Err(TableFeaturesFailed::BadType.into()),
        });
    }
    Ok(ids)
}

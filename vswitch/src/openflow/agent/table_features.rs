//! What the tables can do, and what of it a controller may change: their names.
//!
//! A request with a body describes the whole pipeline (OpenFlow 1.3.5, 7.3.5.5). It is granted if the switch's tables can do all that is asked of them, which
//! may be less than they can; they go on to be able to do it all. Tables can't be taken out of the pipeline. The most entries are the switch's to say.

use std::collections::BTreeSet;

use datapath::tables::{MAX_RULES, TABLE_COUNT};

use super::Agent;
use crate::openflow::wire::error::TableFeaturesFailed;
use crate::openflow::wire::{ErrorCode, TableFeatures};

impl Agent {
    pub(super) fn table_features(&self) -> Vec<TableFeatures> {
        (0..TABLE_COUNT as u8).map(|table| self.features_of(table)).collect()
    }

    fn features_of(&self, table: u8) -> TableFeatures {
        let name = self.table_names.get(&table).map_or("", String::as_str);
        TableFeatures::of_switch(table, name, MAX_RULES as u32, TABLE_COUNT as u8)
    }

    /// Makes the tables what is asked for, all of it or nothing.
    pub(super) fn set_table_features(&mut self, asked: &[TableFeatures]) -> Result<(), ErrorCode> {
        let tables: BTreeSet<_> = asked.iter().map(|asked| asked.table).collect();
        if tables.len() != asked.len() || tables.iter().any(|table| usize::from(*table) >= TABLE_COUNT) {
            return Err(TableFeaturesFailed::BadTable.into());
        }
        if tables.len() != TABLE_COUNT {
            return Err(TableFeaturesFailed::Eperm.into());
        }
        asked.iter().try_for_each(|asked| self.features_of(asked.table).includes(asked))?;
        self.table_names = asked.iter().filter(|asked| !asked.name.is_empty()).map(|asked| (asked.table, asked.name.clone())).collect();
        Ok(())
    }
}

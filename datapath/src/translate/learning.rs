//! Rules that are made of frames: Nicira's `learn`.
//!
//! A translation looks whether the rule to be learned is there, just as it would be. If so, the frames of the megaflow keep it from growing old. If not, the
//! translation asks for it ([`super::Said::learned`]); it is added by whoever owns the draft of the tables, and then this translation is stale. So nothing
//! needs to be remembered about what was asked for, and a rule that goes while its frames still come is learned again.

use std::sync::Arc;

use super::Observer;
use super::pipeline::{Pipeline, Stop};
use crate::key::{FieldRange, Match};
use crate::port::PortNo;
use crate::tables::instruction::{Instructions, Learn, LearnSource, LearnTarget, OfAction};
use crate::tables::{FlowMod, MacDependency, Rule, RuleFlags};

impl<O: Observer + ?Sized> Pipeline<'_, O> {
    pub(super) fn learn_rule(&mut self, learn: &Learn) -> Result<(), Stop> {
        let mut matching = Match::ANY;
        let mut apply = Vec::new();
        for spec in &learn.specs {
            let value = match spec.source {
                LearnSource::Value(value) => value,
                LearnSource::Field(FieldRange { field, offset, bits }) => {
                    let mask = u128::MAX >> (128 - bits) << offset;
                    self.flow.read(field, mask)? >> offset
                }
            };
            match spec.target {
                LearnTarget::Match(FieldRange { field, offset, bits }) => {
                    let mask = u128::MAX >> (128 - bits) << offset;
                    let (old, known) = matching.get(field).map_or((0, 0), |found| (found.value, found.mask));
                    matching = matching.with_masked(field, old & !mask | value << offset, known | mask);
                }
                LearnTarget::Load(range) => apply.extend(load(range, value)),
                LearnTarget::Output => apply.push(OfAction::Output { port: PortNo(value as u32), max_len: 0xffff }),
            }
        }
        let wanted = FlowMod {
            table: learn.table,
            matching,
            priority: learn.priority,
            cookie: learn.cookie,
            idle_timeout: learn.idle_timeout,
            hard_timeout: learn.hard_timeout,
            flags: if learn.send_flow_removed { RuleFlags::SEND_FLOW_REM } else { RuleFlags::default() },
            instructions: Instructions { apply: apply.into(), ..Instructions::default() },
            lenient: true,
            ..FlowMod::default()
        };
        match self.tables.rule(learn.table, &wanted.matching, wanted.priority) {
            Some(rule) if is_as_wanted(rule, &wanted) => self.said.effects.refreshed.push(rule.counters.clone()),
            _ if self.learn => self.said.learned.push(Arc::new(wanted)),
            // The next frame has to teach, so nobody may go by this translation.
            _ => self.said.effects.dependencies.push(MacDependency::NEVER),
        }
        Ok(())
    }
}

/// Writes a value of up to 128 bits; a load has 64.
fn load(FieldRange { field, offset, bits }: FieldRange, value: u128) -> impl Iterator<Item = OfAction> {
    let parts = (0..bits).step_by(64);
    parts.map(move |from| OfAction::Load {
        destination: FieldRange { field, offset: offset + from, bits: (bits - from).min(64) },
        value: (value >> from) as u64 & u64::MAX >> (64 - (bits - from).min(64)),
    })
}

fn is_as_wanted(rule: &Rule, wanted: &FlowMod) -> bool {
    (rule.cookie, rule.idle_timeout, rule.hard_timeout, rule.flags)
        == (wanted.cookie, wanted.idle_timeout, wanted.hard_timeout, wanted.flags)
        && rule.instructions == wanted.instructions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Field;

    #[test]
    fn wide_values_are_loaded_in_two_parts() {
        let range = FieldRange { field: Field::Ipv6Dst, offset: 0, bits: 128 };
        let value = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;
        let loads: Vec<_> = load(range, value).collect();
        let part = |offset, bits| FieldRange { offset, bits, ..range };
        assert_eq!(
            loads,
            [
                OfAction::Load { destination: part(0, 64), value: value as u64 },
                OfAction::Load { destination: part(64, 64), value: (value >> 64) as u64 },
            ]
        );
        let short = FieldRange { field: Field::Reg0, offset: 4, bits: 12 };
        assert_eq!(load(short, 0xabc).collect::<Vec<_>>(), [OfAction::Load { destination: short, value: 0xabc }]);
    }
}

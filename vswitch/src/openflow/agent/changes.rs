//! What changes the switch: carried out on the draft first, told of afterwards, so that several changes can be made that are all there or none.

use std::sync::Arc;

use datapath::Nanos;
use datapath::tables::{FlowMod, Port, Removed, Rule, RuleFilter, RuleFlags, TABLE_COUNT};

use super::{Agent, ConnectionId};
use crate::openflow::wire::error::{BadRequest, TableModFailed};
use crate::openflow::wire::{ErrorCode, FlowModMessage, Message, NO_BUFFER, PacketOut, PortReason, RuleEvent, TableMod};

/// What changes of the draft did that somebody is to be told of, or that is still to be done.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rules that are gone.
    pub removed: Vec<Removed>,
    /// Rules that came, changed and went, if a flow monitor wants to know.
    pub rules: Vec<RuleChange>,
    /// Ports that were configured.
    pub ports: Vec<Arc<Port>>,
    /// Frames that are to be sent out when the workers use the new tables.
    pub packet_outs: Vec<PacketOut>,
}

/// What happened to a rule.
#[derive(Debug)]
pub(super) struct RuleChange {
    pub event: RuleEvent,
    pub rule: Arc<Rule>,
    /// What was there before, in its place.
    pub before: Option<Arc<Rule>>,
}

impl Changes {
    /// Rules were removed.
    pub fn note_removed(&mut self, removed: Vec<Removed>, watched: bool) {
        if watched {
            let gone =
                |removed: &Removed| RuleChange { event: RuleEvent::Deleted(removed.reason), rule: removed.rule.clone(), before: None };
            self.rules.extend(removed.iter().map(gone));
        }
        if self.removed.is_empty() { self.removed = removed } else { self.removed.extend(removed) }
    }
}

/// Whether a slave may not send this (OpenFlow 1.3.5, 6.3.4), and a bundle may have it.
pub(super) fn is_change(message: &Message) -> bool {
    matches!(
        message,
        Message::PacketOut(_)
            | Message::FlowMod(_)
            | Message::GroupMod(_)
            | Message::PortMod(_)
            | Message::TableMod(_)
            | Message::MeterMod(_)
    )
}

impl Agent {
    /// Carries out a message that [`is_change`], on the draft.
    pub(super) fn change(&mut self, message: Message, now: Nanos, changes: &mut Changes) -> Result<(), ErrorCode> {
        match message {
            Message::FlowMod(message) => self.flow_mod(&message, now, changes),
            Message::GroupMod(change) => self.group_mod(&change, now, changes),
            Message::MeterMod(change) => self.meter_mod(&change, now, changes),
            Message::PortMod(port_mod) => self.port_mod(&port_mod, changes),
            Message::TableMod(table_mod) => table_mod_outcome(&table_mod),
            Message::PacketOut(packet_out) => {
                self.check_packet_out(&packet_out)?;
                changes.packet_outs.push(packet_out);
                Ok(())
            }
            _ => Err(BadRequest::BadType.into()),
        }
    }

    /// Tells of changes. `origin` is whose request made them, and its xid. Returns the frames that are to be sent out.
    pub(super) fn tell(&mut self, changes: Changes, origin: Option<(ConnectionId, u32)>) -> Vec<PacketOut> {
        self.removed.extend(changes.removed.into_iter().filter(|removed| removed.rule.flags.contains(RuleFlags::SEND_FLOW_REM)));
        if !changes.rules.is_empty() {
            self.tell_monitors(&changes.rules, origin);
        }
        changes.ports.iter().for_each(|port| self.tell_of_port(port, PortReason::Modify));
        changes.packet_outs
    }

    /// Carries out a flow-mod that is the switch's own.
    pub(super) fn own_flow_mod(&mut self, flow_mod: FlowMod, now: Nanos) -> Result<(), ErrorCode> {
        let mut changes = Changes::default();
        self.flow_mod(&FlowModMessage { flow_mod, buffer_id: NO_BUFFER }, now, &mut changes)?;
        self.tell(changes, None);
        Ok(())
    }
}

/// Tables have nothing to be configured: the only bits that there are were deprecated.
fn table_mod_outcome(table_mod: &TableMod) -> Result<(), ErrorCode> {
    if usize::from(table_mod.table) >= TABLE_COUNT && table_mod.table != RuleFilter::ALL_TABLES {
        return Err(TableModFailed::BadTable.into());
    }
    if table_mod.config != 0 {
        return Err(TableModFailed::BadConfig.into());
    }
    Ok(())
}

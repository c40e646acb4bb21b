//! Frames to and from controllers.

use datapath::Nanos;
use datapath::action::ToController;
use datapath::key::{Field, Flow, FlowMask, KEY_WORDS, Match};
use datapath::port::PortNo;
use datapath::tables::PortConfig;
use datapath::tables::instruction::OfAction;

use super::{Agent, Datapath};
use crate::openflow::wire::error::{BadAction, BadRequest};
use crate::openflow::wire::{ErrorCode, Message, NO_BUFFER, PacketIn, PacketOut};

/// The bytes of an Ethernet header: a shorter frame is none.
const SHORTEST_FRAME: usize = 14;

impl Agent {
    /// Gives a frame that came in through `in_port` to the controllers that want it and can take it: `data` is as much of it as `to` asks for.
    pub fn packet_in(&mut self, in_port: PortNo, to: &ToController, data: Vec<u8>, total_len: usize) {
        let silent = self.draft.ports().get(in_port).is_some_and(|port| port.config.intersects(PortConfig::NO_PACKET_IN));
        // No connection has an id of its own.
        if silent || to.controller_id != 0 {
            return;
        }
        let packet_in = PacketIn {
            total_len: u16::try_from(total_len).unwrap_or(u16::MAX),
            reason: to.reason,
            table: to.table,
            cookie: to.cookie,
            matching: pipeline_fields(in_port, to),
            data,
        };
        let message = Message::PacketIn(Box::new(packet_in));
        for session in self.sessions.values_mut().filter(|session| session.wants(session.wants.packet_in, to.reason)) {
            if session.connection.is_congested() {
                session.dropped += 1;
            } else {
                session.send(&message, 0);
            }
        }
    }

    pub(super) fn packet_out(&mut self, packet_out: PacketOut, datapath: &mut dyn Datapath, now: Nanos) -> Result<(), ErrorCode> {
        if packet_out.buffer_id != NO_BUFFER {
            return Err(BadRequest::BufferUnknown.into());
        }
        if packet_out.data.len() < SHORTEST_FRAME {
            return Err(BadRequest::BadPacket.into());
        }
        if packet_out.actions.iter().any(|action| matches!(action, OfAction::Group(_))) {
            return Err(BadAction::BadOutGroup.into());
        }
        if packet_out.actions.iter().any(|action| matches!(action, OfAction::SetQueue(_))) {
            return Err(BadAction::BadQueue.into());
        }
        // What was changed before goes before.
        self.commit(datapath, now);
        let in_port = if packet_out.in_port == PortNo::ANY { PortNo::CONTROLLER } else { packet_out.in_port };
        datapath.inject(in_port, packet_out.data, packet_out.actions);
        Ok(())
    }
}

/// The ingress port, and the metadata and registers that are not zero.
fn pipeline_fields(in_port: PortNo, to: &ToController) -> Match {
    let mut flow = Flow::ZERO;
    flow.0[KEY_WORDS..].copy_from_slice(&to.state);
    let mut mask = FlowMask::ZERO;
    for field in Field::ALL.iter().filter(|field| field.is_state() && !field.info().view && field.read(&flow) != 0) {
        mask.include(&field.mask());
    }
    Match::new(&flow, &mask).with(Field::InPort, in_port.0.into())
}

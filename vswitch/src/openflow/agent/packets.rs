//! Frames to and from controllers.

use std::rc::Rc;

use datapath::Nanos;
use datapath::action::ToController;
use datapath::key::{Field, Flow, FlowMask, KEY_WORDS, Match};
use datapath::port::PortNo;
use datapath::tables::PortConfig;

use super::flows::flow_mod_error;
use super::{Agent, Datapath};
use crate::openflow::session::Session;
use crate::openflow::wire::error::BadRequest;
use crate::openflow::wire::{ErrorCode, Message, NO_BUFFER, PacketIn, PacketInFormat, PacketOut};

/// The bytes of an Ethernet header: a shorter frame is none.
const SHORTEST_FRAME: usize = 14;

impl Agent {
    /// Gives a frame that came in through `in_port` to the controllers that want it and can take it: `data` is as much of it as `to` asks for.
    pub fn packet_in(&mut self, in_port: PortNo, to: &ToController, data: Vec<u8>, total_len: usize, now: Nanos) {
        if self.draft.ports().get(in_port).is_some_and(|port| port.config.intersects(PortConfig::NO_PACKET_IN)) {
            return;
        }
        let length = data.len();
        let packet_in = PacketIn {
            format: PacketInFormat::Standard,
            total_len: u16::try_from(total_len).unwrap_or(u16::MAX),
            reason: to.reason,
            table: to.table,
            cookie: to.cookie,
            matching: pipeline_fields(in_port, to),
            data,
            userdata: to.userdata.to_vec(),
        };
        // One message of each format that somebody wants.
        let mut messages: Vec<(PacketInFormat, Rc<Message>)> = Vec::new();
        let wants = |session: &&mut Session| {
            let wants = if packet_in.is_miss() { session.wants_misses() } else { session.wants(session.wants.packet_in, to.reason) };
            wants && session.controller_id == to.controller_id
        };
        for session in self.sessions.values_mut().filter(wants) {
            let format = session.packet_in_format;
            let message = match messages.iter().find(|(known, _)| *known == format) {
                Some((_, message)) => message.clone(),
                None => {
                    let message = Rc::new(Message::PacketIn(Box::new(PacketIn { format, ..packet_in.clone() })));
                    messages.push((format, message.clone()));
                    message
                }
            };
            session.packet_in(in_port, &message, length, now);
        }
    }

    /// Whether a packet-out can be carried out.
    pub(super) fn check_packet_out(&self, packet_out: &PacketOut) -> Result<(), ErrorCode> {
        if packet_out.buffer_id != NO_BUFFER {
            return Err(BadRequest::BufferUnknown.into());
        }
        if packet_out.data.len() < SHORTEST_FRAME {
            return Err(BadRequest::BadPacket.into());
        }
        self.draft.check_packet_out(&packet_out.actions).map_err(flow_mod_error)
    }

    /// Carries out a packet-out that was checked.
    pub(super) fn send_out(&mut self, packet_out: PacketOut, datapath: &mut dyn Datapath, now: Nanos) {
        // What was changed before goes before.
        self.commit(datapath, now);
        let in_port = if packet_out.in_port == PortNo::ANY { PortNo::CONTROLLER } else { packet_out.in_port };
        datapath.inject(in_port, packet_out.data, packet_out.actions);
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

//! OFPT_VENDOR (OpenFlow 1.0, 5.5.4): Nicira's messages (`NXT_*`), as OpenFlow 1.0 has no messages of its own for them.

use super::super::bytes::{Put, Reader};
use super::super::error::{BadRequest, ErrorCode};
use super::super::nicira::{self, NICIRA};
use super::super::{Async, Dialect, FlowFormat, Message};
use super::{flow, switch};

// NXT_*
const ROLE_REQUEST: u32 = 10;
const ROLE_REPLY: u32 = 11;
pub(super) const FLOW_MOD: u32 = 13;
pub(super) const FLOW_REMOVED: u32 = 14;
const SET_ASYNC_CONFIG: u32 = 19;
const FLOW_MONITOR_CANCEL: u32 = 21;
const FLOW_MONITOR_PAUSED: u32 = 22;
const FLOW_MONITOR_RESUMED: u32 = 23;

/// Reads the body of OFPT_VENDOR.
pub(super) fn decode(mut body: Reader, dialect: &Dialect) -> Result<Message, ErrorCode> {
    if body.u32()? != NICIRA {
        return Err(BadRequest::BadExperimenter.into());
    }
    let mut rest = body;
    let message = match rest.u32()? {
        ROLE_REQUEST => return switch::decode_role(rest).map(Message::RoleRequest),
        ROLE_REPLY => return switch::decode_role(rest).map(Message::RoleReply),
        FLOW_MOD => return flow::decode_nicira_mod(rest, dialect).map(|message| Message::FlowMod(Box::new(message))),
        FLOW_REMOVED => return flow::decode_nicira_removed(rest).map(|removed| Message::FlowRemoved(Box::new(removed))),
        SET_ASYNC_CONFIG => return Async::decode(rest).map(Message::SetAsync),
        nicira::SET_FLOW_FORMAT => {
            let format = rest.u32()?;
            // The error is Open vSwitch's for a format that it doesn't have.
            Message::SetFlowFormat(FlowFormat::from_number(format).ok_or(BadRequest::Eperm)?)
        }
        FLOW_MONITOR_CANCEL => Message::FlowMonitorCancel(rest.u32()?),
        FLOW_MONITOR_PAUSED => Message::FlowMonitorPaused,
        FLOW_MONITOR_RESUMED => Message::FlowMonitorResumed,
        _ => return nicira::decode_message(body),
    };
    rest.finish()?;
    Ok(message)
}

/// Appends vendor and subtype.
pub(super) fn put_head(out: &mut Vec<u8>, subtype: u32) {
    out.put_u32(NICIRA);
    out.put_u32(subtype);
}

/// Appends the body of OFPT_VENDOR for a message that OpenFlow 1.0 says so.
pub(super) fn put(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::RoleRequest(role) => {
            put_head(out, ROLE_REQUEST);
            switch::put_role(out, role);
        }
        Message::RoleReply(role) => {
            put_head(out, ROLE_REPLY);
            switch::put_role(out, role);
        }
        Message::SetAsync(wants) => {
            put_head(out, SET_ASYNC_CONFIG);
            wants.encode(out);
        }
        Message::FlowMonitorCancel(id) => {
            put_head(out, FLOW_MONITOR_CANCEL);
            out.put_u32(*id);
        }
        Message::FlowMonitorPaused => put_head(out, FLOW_MONITOR_PAUSED),
        Message::FlowMonitorResumed => put_head(out, FLOW_MONITOR_RESUMED),
        _ => nicira::put_message(out, message),
    }
}

//! Flow monitors as Nicira made them (NXST_FLOW_MONITOR): the model of those that OpenFlow 1.3 has from the ONF.

use super::super::bytes::{Put, Reader};
use super::super::error::{BadRequest, ErrorCode, Nicira};
use super::super::monitor::ABBREV;
use super::super::oxm::decode_nx_match;
use super::super::{FullUpdate, MonitorFlags, MonitorRequest, RuleEvent, RuleUpdate};
use super::MAX_MESSAGE;
use super::action::{decode_instructions, put_instructions};
use super::nxm::{self, Cookie};
use super::port::{narrow, widen};

/// Reads `struct nx_flow_monitor_request`.
pub(super) fn decode_request(body: &mut Reader) -> Result<MonitorRequest, ErrorCode> {
    let (id, flags, out_port) = (body.u32()?, MonitorFlags(body.u16()?).check()?, widen(body.u16()?));
    let (match_length, table) = (body.u16()?, body.u8()?);
    if body.array::<5>()? != [0; 5] {
        return Err(Nicira::MustBeZero.into());
    }
    Ok(MonitorRequest { id, flags, out_port, table, matching: decode_nx_match(body, match_length)? })
}

/// Appends `struct nx_flow_monitor_request`.
pub(super) fn put_request(out: &mut Vec<u8>, request: &MonitorRequest) {
    out.put_u32(request.id);
    out.put_u16(request.flags.0);
    out.put_u16(narrow(request.out_port).unwrap_or_default());
    let length_at = out.len();
    out.put_zeros(2);
    out.put_u8(request.table);
    out.put_zeros(5);
    nxm::put(out, &request.matching, Cookie::default(), length_at);
}

/// Reads `struct nx_flow_update_full` or `struct nx_flow_update_abbrev`.
pub(super) fn decode_update(body: &mut Reader) -> Result<RuleUpdate, ErrorCode> {
    let length = usize::from(body.u16()?);
    let mut body = body.part(length.checked_sub(2).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
    let event = body.u16()?;
    if event == ABBREV {
        let xid = body.u32()?;
        body.finish()?;
        return Ok(RuleUpdate::Abbreviated(xid));
    }
    let event = RuleEvent::from_numbers(event, body.u16()?)?;
    let (priority, idle_timeout, hard_timeout, match_length, table) = (body.u16()?, body.u16()?, body.u16()?, body.u16()?, body.u8()?);
    body.skip(1)?;
    let cookie = body.u64()?;
    let matching = decode_nx_match(&mut body, match_length)?;
    let instructions = decode_instructions(body, &matching)?;
    Ok(RuleUpdate::Full(Box::new(FullUpdate { event, table, priority, idle_timeout, hard_timeout, cookie, matching, instructions })))
}

/// Appends `struct nx_flow_update_full` or `struct nx_flow_update_abbrev`.
pub(super) fn put_update(out: &mut Vec<u8>, update: &RuleUpdate) {
    let start = out.len();
    out.put_u16(0);
    match update {
        RuleUpdate::Abbreviated(xid) => {
            out.put_u16(ABBREV);
            out.put_u32(*xid);
        }
        RuleUpdate::Full(update) => {
            let (event, reason) = update.event.numbers();
            out.put_u16(event);
            out.put_u16(reason);
            out.put_u16(update.priority);
            out.put_u16(update.idle_timeout);
            out.put_u16(update.hard_timeout);
            let length_at = out.len();
            out.put_zeros(2);
            out.put_u8(update.table);
            out.put_zeros(1);
            out.put_u64(update.cookie);
            nxm::put(out, &update.matching, Cookie::default(), length_at);
            put_instructions(out, &update.instructions, start + MAX_MESSAGE - super::stats::HEAD);
        }
    }
    out.set_length(start, 0);
}

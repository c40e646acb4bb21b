//! OFPT_STATS_REQUEST and OFPT_STATS_REPLY (OpenFlow 1.0, 5.3.5); of ports' descriptions as Open vSwitch has it, and Nicira's of rules and flow monitors.

use super::super::bytes::{Put, Reader};
use super::super::error::{BadRequest, ErrorCode};
use super::super::multipart::{MORE, Parts, all};
use super::super::nicira::NICIRA;
use super::super::oxm::decode_nx_match;
use super::super::{
    Age, Aggregate, Desc, FlowFormat, FlowStats, MultipartBody, MultipartReply, MultipartRequest, PortStats, QueueStats, TableStats,
};
use super::action::{decode_instructions, put_instructions};
use super::nxm::{self, Cookie};
use super::port::{decode_desc, narrow, put_desc, widen};
use super::{MAX_MESSAGE, STATS_REPLY, matching, monitor, start_message};
use datapath::port::PortNo;
use datapath::tables::{MAX_RULES, RuleFilter, RuleFlags};

// OFPST_*
const DESC: u16 = 0;
const FLOW: u16 = 1;
const AGGREGATE: u16 = 2;
const TABLE: u16 = 3;
const PORT: u16 = 4;
const QUEUE: u16 = 5;
const PORT_DESC: u16 = 13;
const VENDOR: u16 = 0xffff;

// NXST_*
const NICIRA_FLOW: u32 = 0;
const NICIRA_AGGREGATE: u32 = 1;
const FLOW_MONITOR: u32 = 2;

/// The bytes of a reply before its first entry, the longest: header, type, flags, vendor, subtype, padding.
pub(super) const HEAD: usize = 8 + 4 + 12;

/// A request, and in which form it asks for rules, if it does.
pub(super) fn decode_request(mut body: Reader) -> Result<(MultipartRequest, Option<FlowFormat>), ErrorCode> {
    let (kind, flags) = (body.u16()?, body.u16()?);
    if flags & MORE != 0 {
        return Err(BadRequest::BadMultipart.into());
    }
    let standard = Some(FlowFormat::OpenFlow10);
    let request = match kind {
        DESC => (MultipartRequest::Desc, None),
        FLOW => (MultipartRequest::Flow(decode_filter(&mut body)?), standard),
        AGGREGATE => (MultipartRequest::Aggregate(decode_filter(&mut body)?), standard),
        TABLE => (MultipartRequest::Table, None),
        PORT => {
            let port = widen(body.u16()?);
            body.skip(6)?;
            (MultipartRequest::Port(port), None)
        }
        QUEUE => {
            let port = widen(body.u16()?);
            body.skip(2)?;
            // Here, all ports are ALL; Open vSwitch takes NONE as well.
            let port = if port == PortNo::ALL { PortNo::ANY } else { port };
            (MultipartRequest::Queue(port, body.u32()?), None)
        }
        PORT_DESC => (MultipartRequest::PortDesc, None),
        VENDOR => {
            let nicira = Some(FlowFormat::Nxm);
            match decode_nicira(&mut body)? {
                NICIRA_FLOW => (MultipartRequest::Flow(decode_nicira_filter(&mut body)?), nicira),
                NICIRA_AGGREGATE => (MultipartRequest::Aggregate(decode_nicira_filter(&mut body)?), nicira),
                FLOW_MONITOR => (MultipartRequest::FlowMonitor(all(&mut body, monitor::decode_request)?), None),
                _ => return Err(BadRequest::BadExpType.into()),
            }
        }
        _ => return Err(BadRequest::BadMultipart.into()),
    };
    body.finish()?;
    Ok(request)
}

/// Reads vendor and subtype, of which the vendor must be Nicira.
fn decode_nicira(body: &mut Reader) -> Result<u32, ErrorCode> {
    if body.u32()? != NICIRA {
        return Err(BadRequest::BadExperimenter.into());
    }
    let subtype = body.u32()?;
    body.skip(4)?;
    Ok(subtype)
}

fn decode_filter(body: &mut Reader) -> Result<RuleFilter, ErrorCode> {
    let (matching, _) = matching::decode(body)?;
    let table = body.u8()?;
    body.skip(1)?;
    Ok(RuleFilter { table, matching, out_port: widen(body.u16()?), ..RuleFilter::ALL })
}

fn decode_nicira_filter(body: &mut Reader) -> Result<RuleFilter, ErrorCode> {
    let (out_port, match_length, table) = (widen(body.u16()?), body.u16()?, body.u8()?);
    body.skip(3)?;
    let (matching, cookie) = nxm::decode_with_cookie(body, match_length)?;
    let cookie = cookie.unwrap_or_default();
    Ok(RuleFilter { table, matching, out_port, cookie: cookie.value, cookie_mask: cookie.mask, ..RuleFilter::ALL })
}

/// Appends the body of a request, that for rules in this form.
pub(super) fn put_request(out: &mut Vec<u8>, request: &MultipartRequest, form: FlowFormat) {
    let (kind, subtype) = match (request, form) {
        (MultipartRequest::Desc, _) => (DESC, 0),
        (MultipartRequest::Flow(_), FlowFormat::OpenFlow10) => (FLOW, 0),
        (MultipartRequest::Aggregate(_), FlowFormat::OpenFlow10) => (AGGREGATE, 0),
        (MultipartRequest::Flow(_), FlowFormat::Nxm) => (VENDOR, NICIRA_FLOW),
        (MultipartRequest::Aggregate(_), FlowFormat::Nxm) => (VENDOR, NICIRA_AGGREGATE),
        (MultipartRequest::FlowMonitor(_), _) => (VENDOR, FLOW_MONITOR),
        (MultipartRequest::Table, _) => (TABLE, 0),
        (MultipartRequest::Port(_), _) => (PORT, 0),
        (MultipartRequest::Queue(..), _) => (QUEUE, 0),
        _ => (PORT_DESC, 0),
    };
    put_head(out, kind, subtype);
    match (request, form) {
        (MultipartRequest::Flow(filter) | MultipartRequest::Aggregate(filter), FlowFormat::OpenFlow10) => {
            matching::put(out, &filter.matching);
            out.put_u8(filter.table);
            out.put_zeros(1);
            out.put_u16(narrow(filter.out_port).unwrap_or_default());
        }
        (MultipartRequest::Flow(filter) | MultipartRequest::Aggregate(filter), FlowFormat::Nxm) => {
            out.put_u16(narrow(filter.out_port).unwrap_or_default());
            let length_at = out.len();
            out.put_zeros(2);
            out.put_u8(filter.table);
            out.put_zeros(3);
            nxm::put(out, &filter.matching, Cookie { value: filter.cookie, mask: filter.cookie_mask }, length_at);
        }
        (MultipartRequest::FlowMonitor(requests), _) => requests.iter().for_each(|request| monitor::put_request(out, request)),
        (MultipartRequest::Port(port), _) => {
            out.put_u16(narrow(*port).unwrap_or_default());
            out.put_zeros(6);
        }
        (MultipartRequest::Queue(port, queue), _) => {
            let port = if *port == PortNo::ANY { PortNo::ALL } else { *port };
            out.put_u16(narrow(port).unwrap_or_default());
            out.put_zeros(2);
            out.put_u32(*queue);
        }
        _ => {}
    }
}

fn put_head(out: &mut Vec<u8>, kind: u16, subtype: u32) {
    out.put_u16(kind);
    out.put_u16(0);
    if kind == VENDOR {
        out.put_u32(NICIRA);
        out.put_u32(subtype);
        out.put_zeros(4);
    }
}

/// Reads the body of a reply.
pub(super) fn decode_reply(mut body: Reader) -> Result<MultipartReply, ErrorCode> {
    let (kind, flags) = (body.u16()?, body.u16()?);
    let reply = match kind {
        DESC => MultipartBody::Desc(Box::new(Desc::decode(&mut body)?)),
        FLOW => MultipartBody::Flow(all(&mut body, decode_flow)?),
        AGGREGATE => MultipartBody::Aggregate(Aggregate::decode(&mut body)?),
        TABLE => MultipartBody::Table(all(&mut body, decode_table)?),
        PORT => MultipartBody::Port(all(&mut body, decode_port)?),
        QUEUE => MultipartBody::Queue(all(&mut body, decode_queue)?),
        PORT_DESC => MultipartBody::PortDesc(all(&mut body, decode_desc)?),
        VENDOR => match decode_nicira(&mut body)? {
            NICIRA_FLOW => MultipartBody::Flow(all(&mut body, decode_nicira_flow)?),
            NICIRA_AGGREGATE => MultipartBody::Aggregate(Aggregate::decode(&mut body)?),
            FLOW_MONITOR => MultipartBody::FlowMonitor(all(&mut body, monitor::decode_update)?),
            _ => return Err(BadRequest::BadExpType.into()),
        },
        _ => return Err(BadRequest::BadMultipart.into()),
    };
    body.finish()?;
    Ok(MultipartReply { body: reply, more: flags & MORE != 0 })
}

/// Appends a reply as one message or several, that with rules in this form. Nothing if OpenFlow 1.0 has no such reply.
pub(super) fn put_reply(out: &mut Vec<u8>, reply: &MultipartReply, xid: u32, form: FlowFormat) {
    let (kind, subtype) = match (&reply.body, form) {
        (MultipartBody::Desc(_), _) => (DESC, 0),
        (MultipartBody::Flow(_), FlowFormat::OpenFlow10) => (FLOW, 0),
        (MultipartBody::Flow(_), FlowFormat::Nxm) => (VENDOR, NICIRA_FLOW),
        (MultipartBody::Aggregate(_), FlowFormat::OpenFlow10) => (AGGREGATE, 0),
        (MultipartBody::Aggregate(_), FlowFormat::Nxm) => (VENDOR, NICIRA_AGGREGATE),
        (MultipartBody::Table(_), _) => (TABLE, 0),
        (MultipartBody::Port(_), _) => (PORT, 0),
        (MultipartBody::Queue(_), _) => (QUEUE, 0),
        (MultipartBody::PortDesc(_), _) => (PORT_DESC, 0),
        (MultipartBody::FlowMonitor(_), _) => (VENDOR, FLOW_MONITOR),
        _ => return,
    };
    let mut parts = Parts::new(out, |out| {
        let start = start_message(out, STATS_REPLY, xid);
        put_head(out, kind, subtype);
        start
    });
    match &reply.body {
        MultipartBody::Desc(desc) => parts.of([desc], |out, desc| desc.encode(out)),
        MultipartBody::Flow(rules) if form == FlowFormat::Nxm => parts.of(rules, put_nicira_flow),
        MultipartBody::Flow(rules) => parts.of(rules, put_flow),
        MultipartBody::Aggregate(sums) => parts.of([sums], |out, sums| sums.encode(out)),
        MultipartBody::Table(tables) => parts.of(tables, put_table),
        MultipartBody::Port(ports) => parts.of(ports, put_port),
        MultipartBody::Queue(queues) => parts.of(queues, put_queue),
        MultipartBody::PortDesc(ports) => parts.of(ports, put_desc),
        MultipartBody::FlowMonitor(updates) => parts.of(updates, monitor::put_update),
        _ => {}
    }
    parts.finish(reply.more);
}

/// A rule, as `struct ofp_flow_stats`.
fn decode_flow(body: &mut Reader) -> Result<FlowStats, ErrorCode> {
    let length = usize::from(body.u16()?);
    let mut body = body.part(length.checked_sub(2).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
    let table = body.u8()?;
    body.skip(1)?;
    let (matching, _) = matching::decode(&mut body)?;
    let (age, priority, idle_timeout, hard_timeout) = (Age::decode(&mut body)?, body.u16()?, body.u16()?, body.u16()?);
    body.skip(6)?;
    let (cookie, frames, bytes) = (body.u64()?, body.u64()?, body.u64()?);
    let instructions = decode_instructions(body, &matching)?;
    let (flags, idle_age, change_age) = (RuleFlags::default(), None, None);
    Ok(FlowStats {
        table,
        age,
        idle_age,
        change_age,
        priority,
        idle_timeout,
        hard_timeout,
        flags,
        cookie,
        frames,
        bytes,
        matching,
        instructions,
    })
}

fn put_flow(out: &mut Vec<u8>, rule: &FlowStats) {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(rule.table);
    out.put_zeros(1);
    matching::put(out, &rule.matching);
    rule.age.encode(out);
    out.put_u16(rule.priority);
    out.put_u16(rule.idle_timeout);
    out.put_u16(rule.hard_timeout);
    out.put_zeros(6);
    out.put_u64(rule.cookie);
    out.put_u64(rule.frames);
    out.put_u64(rule.bytes);
    put_instructions(out, &rule.instructions, start + MAX_MESSAGE - HEAD);
    out.set_length(start, 0);
}

/// A rule, as `struct nx_flow_stats`.
fn decode_nicira_flow(body: &mut Reader) -> Result<FlowStats, ErrorCode> {
    let length = usize::from(body.u16()?);
    let mut body = body.part(length.checked_sub(2).ok_or(BadRequest::BadLen)?, BadRequest::BadLen)?;
    let table = body.u8()?;
    body.skip(1)?;
    let (age, priority, idle_timeout, hard_timeout) = (Age::decode(&mut body)?, body.u16()?, body.u16()?, body.u16()?);
    let (match_length, idle_age, change_age) = (body.u16()?, body.u16()?.checked_sub(1), body.u16()?.checked_sub(1));
    let (cookie, frames, bytes) = (body.u64()?, body.u64()?, body.u64()?);
    let matching = decode_nx_match(&mut body, match_length)?;
    let instructions = decode_instructions(body, &matching)?;
    let flags = RuleFlags::default();
    Ok(FlowStats {
        table,
        age,
        idle_age,
        change_age,
        priority,
        idle_timeout,
        hard_timeout,
        flags,
        cookie,
        frames,
        bytes,
        matching,
        instructions,
    })
}

fn put_nicira_flow(out: &mut Vec<u8>, rule: &FlowStats) {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(rule.table);
    out.put_zeros(1);
    rule.age.encode(out);
    out.put_u16(rule.priority);
    out.put_u16(rule.idle_timeout);
    out.put_u16(rule.hard_timeout);
    let length_at = out.len();
    out.put_zeros(2);
    // In seconds, and one more, since zero means that it isn't known.
    for age in [rule.idle_age, rule.change_age] {
        out.put_u16(age.map_or(0, |age| age.saturating_add(1)));
    }
    out.put_u64(rule.cookie);
    out.put_u64(rule.frames);
    out.put_u64(rule.bytes);
    nxm::put(out, &rule.matching, Cookie::default(), length_at);
    put_instructions(out, &rule.instructions, start + MAX_MESSAGE - HEAD);
    out.set_length(start, 0);
}

/// The bytes of a table's name.
const TABLE_NAME: usize = 32;

fn decode_table(body: &mut Reader) -> Result<TableStats, ErrorCode> {
    let table = body.u8()?;
    body.skip(3 + TABLE_NAME + 8)?;
    Ok(TableStats { table, active: body.u32()?, lookups: body.u64()?, matches: body.u64()? })
}

fn put_table(out: &mut Vec<u8>, table: &TableStats) {
    out.put_u8(table.table);
    out.put_zeros(3 + TABLE_NAME);
    out.put_u32(matching::ALL);
    out.put_u32(MAX_RULES as u32);
    out.put_u32(table.active);
    out.put_u64(table.lookups);
    out.put_u64(table.matches);
}

fn decode_port(body: &mut Reader) -> Result<PortStats, ErrorCode> {
    let number = widen(body.u16()?);
    body.skip(6)?;
    PortStats::decode_counters(number, body)
}

fn put_port(out: &mut Vec<u8>, port: &PortStats) {
    let Some(number) = narrow(port.number) else { return };
    out.put_u16(number);
    out.put_zeros(6);
    port.put_counters(out);
}

fn decode_queue(body: &mut Reader) -> Result<QueueStats, ErrorCode> {
    let port = widen(body.u16()?);
    body.skip(2)?;
    Ok(QueueStats { port, queue: body.u32()?, bytes: body.u64()?, frames: body.u64()?, errors: body.u64()?, age: Age::default() })
}

fn put_queue(out: &mut Vec<u8>, queue: &QueueStats) {
    let Some(port) = narrow(queue.port) else { return };
    out.put_u16(port);
    out.put_zeros(2);
    out.put_u32(queue.queue);
    out.put_u64(queue.bytes);
    out.put_u64(queue.frames);
    out.put_u64(queue.errors);
}

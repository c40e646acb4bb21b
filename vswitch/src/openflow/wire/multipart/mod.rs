//! OFPT_MULTIPART_REQUEST and OFPT_MULTIPART_REPLY (OpenFlow 1.3.5, 7.3.5).
//!
//! What does not fit the 65,535 bytes of one message is sent as several, all but the last with `OFPMPF_REQ_MORE` or `OFPMPF_REPLY_MORE`. A reply is read
//! message by message. The messages of a request are put together first ([`MultipartPart`]), since only the last can be answered.

mod stats;
mod table_features;

pub use stats::{Aggregate, Desc, FlowStats, PortStats, TableStats};
pub use table_features::{FeatureId, TableFeatures, TableProperty};

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode};
use super::group::{GroupDesc, GroupFeatures, GroupStats};
use super::meter::{MeterConfig, MeterFeatures, MeterStats};
use super::monitor::{MonitorRequest, RuleUpdate};
use super::oxm::{decode_match, put_match};
use super::port::PortDesc;
use super::queue::QueueStats;
use super::{
    HEADER, Header, MULTIPART_REPLY, MULTIPART_REQUEST, ONF_FLOW_MONITOR, VERSION, experimenter_error, finish_message, start_message,
};
use datapath::key::field::OXM_ONF;
use datapath::port::PortNo;
use datapath::tables::RuleFilter;

// OFPMP_*
const DESC: u16 = 0;
const FLOW: u16 = 1;
const AGGREGATE: u16 = 2;
const TABLE: u16 = 3;
const PORT_STATS: u16 = 4;
const QUEUE: u16 = 5;
const GROUP: u16 = 6;
const GROUP_DESC: u16 = 7;
const GROUP_FEATURES: u16 = 8;
const METER: u16 = 9;
const METER_CONFIG: u16 = 10;
const METER_FEATURES: u16 = 11;
const TABLE_FEATURES: u16 = 12;
const PORT_DESC: u16 = 13;
const EXPERIMENTER: u16 = 0xffff;

/// `OFPMPF_REQ_MORE` and `OFPMPF_REPLY_MORE`; in OpenFlow 1.0 `OFPSF_REPLY_MORE`.
pub(super) const MORE: u16 = 1;

/// What a controller asks for.
#[derive(Clone, Debug)]
pub enum MultipartRequest {
    /// Who made the switch.
    Desc,
    /// The rules that pass this filter.
    Flow(RuleFilter),
    /// Sums over the rules that pass this filter.
    Aggregate(RuleFilter),
    /// The tables' counters.
    Table,
    /// The counters of a port, or of all for [`PortNo::ANY`].
    Port(PortNo),
    /// The counters of a queue (0xffffffff for all) of a port ([`PortNo::ANY`] for all).
    Queue(PortNo, u32),
    /// The counters of a group (0xfffffffc for all).
    Group(u32),
    /// All groups.
    GroupDesc,
    /// What groups can do.
    GroupFeatures,
    /// The counters of a meter (0xffffffff for all).
    Meter(u32),
    /// The bands of a meter (0xffffffff for all).
    MeterConfig(u32),
    /// What meters can do.
    MeterFeatures,
    /// What the tables can do, after they have been made to be like this, unless nothing is said.
    TableFeatures(Vec<TableFeatures>),
    /// All ports.
    PortDesc,
    /// Flow monitors, each of which is to begin.
    FlowMonitor(Vec<MonitorRequest>),
}

/// Reads all of a list.
pub(super) fn all<T>(body: &mut Reader, decode: impl Fn(&mut Reader) -> Result<T, ErrorCode>) -> Result<Vec<T>, ErrorCode> {
    let mut entries = Vec::new();
    while !body.is_empty() {
        entries.push(decode(body)?);
    }
    Ok(entries)
}

impl MultipartRequest {
    /// Reads the body of the only message of a request.
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (kind, flags) = (body.u16()?, body.u16()?);
        body.skip(4)?;
        if flags & MORE != 0 {
            return Err(BadRequest::MultipartBufferOverflow.into());
        }
        Self::decode_body(kind, body)
    }

    /// Reads what all messages of a request of this type together say.
    fn decode_body(kind: u16, mut body: Reader) -> Result<Self, ErrorCode> {
        let mut number = || {
            let number = body.u32()?;
            body.skip(4)?;
            Ok::<_, ErrorCode>(number)
        };
        let request = match kind {
            DESC => Self::Desc,
            FLOW => Self::Flow(decode_filter(&mut body)?),
            AGGREGATE => Self::Aggregate(decode_filter(&mut body)?),
            TABLE => Self::Table,
            PORT_STATS => Self::Port(PortNo(number()?)),
            QUEUE => Self::Queue(PortNo(body.u32()?), body.u32()?),
            GROUP => Self::Group(number()?),
            GROUP_DESC => Self::GroupDesc,
            GROUP_FEATURES => Self::GroupFeatures,
            METER => Self::Meter(number()?),
            METER_CONFIG => Self::MeterConfig(number()?),
            METER_FEATURES => Self::MeterFeatures,
            TABLE_FEATURES => Self::TableFeatures(all(&mut body, TableFeatures::decode)?),
            PORT_DESC => Self::PortDesc,
            EXPERIMENTER => {
                decode_experimenter(&mut body)?;
                Self::FlowMonitor(all(&mut body, MonitorRequest::decode)?)
            }
            _ => return Err(BadRequest::BadMultipart.into()),
        };
        body.finish()?;
        Ok(request)
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Desc => DESC,
            Self::Flow(_) => FLOW,
            Self::Aggregate(_) => AGGREGATE,
            Self::Table => TABLE,
            Self::Port(_) => PORT_STATS,
            Self::Queue(..) => QUEUE,
            Self::Group(_) => GROUP,
            Self::GroupDesc => GROUP_DESC,
            Self::GroupFeatures => GROUP_FEATURES,
            Self::Meter(_) => METER,
            Self::MeterConfig(_) => METER_CONFIG,
            Self::MeterFeatures => METER_FEATURES,
            Self::TableFeatures(_) => TABLE_FEATURES,
            Self::PortDesc => PORT_DESC,
            Self::FlowMonitor(_) => EXPERIMENTER,
        }
    }

    /// Appends the request as one message or several.
    pub(super) fn encode(&self, xid: u32, out: &mut Vec<u8>) {
        let mut parts = Parts::new(out, head(MULTIPART_REQUEST, xid, self.kind()));
        match self {
            Self::Flow(filter) | Self::Aggregate(filter) => put_filter(parts.out, filter),
            Self::Port(PortNo(number)) | Self::Group(number) | Self::Meter(number) | Self::MeterConfig(number) => {
                parts.out.put_u32(*number);
                parts.out.put_zeros(4);
            }
            Self::Queue(port, queue) => {
                parts.out.put_u32(port.0);
                parts.out.put_u32(*queue);
            }
            Self::TableFeatures(tables) => parts.of(tables, |out, table| table.encode(out)),
            Self::FlowMonitor(monitors) => parts.of(monitors, |out, monitor| monitor.encode(out)),
            _ => {}
        }
        parts.finish(false);
    }
}

/// Reads the head of an experimenter's multipart body, of which there is one: the ONF's flow monitor.
fn decode_experimenter(body: &mut Reader) -> Result<(), ErrorCode> {
    let experimenter = body.u32()?;
    if experimenter != OXM_ONF || body.u32()? != ONF_FLOW_MONITOR {
        return Err(experimenter_error(experimenter));
    }
    Ok(())
}

/// One message of a request that may have several.
#[derive(Clone, Copy, Debug)]
pub struct MultipartPart<'a> {
    kind: u16,
    /// Whether another one follows.
    pub more: bool,
    /// Its part of the body.
    body: &'a [u8],
}

impl<'a> MultipartPart<'a> {
    /// Looks at a message, which is one of a multipart request or not.
    pub fn of(message: &'a [u8]) -> Option<Self> {
        Header::decode(message).filter(|header| (header.version, header.kind) == (VERSION, MULTIPART_REQUEST))?;
        let (&[k0, k1, f0, f1, ..], body) = message.get(HEADER..)?.split_first_chunk::<8>()?;
        Some(Self { kind: u16::from_be_bytes([k0, k1]), more: u16::from_be_bytes([f0, f1]) & MORE != 0, body })
    }

    /// Appends it to those that came before: `whole` is empty before the first.
    pub fn append_to(&self, whole: &mut Vec<u8>) {
        // An experimenter's id and type are in each message.
        let head = if self.kind == EXPERIMENTER && !whole.is_empty() { 8 } else { 0 };
        whole.extend_from_slice(self.body.get(head..).unwrap_or_default());
    }

    /// Reads the request, whose messages together say `whole`, and of which this is the last.
    pub fn request(&self, whole: &[u8]) -> Result<MultipartRequest, ErrorCode> {
        MultipartRequest::decode_body(self.kind, Reader::new(whole, BadRequest::BadLen))
    }

    /// Whether it can be of the same request as another.
    pub fn goes_with(&self, other: &MultipartPart) -> bool {
        self.kind == other.kind
    }
}

fn decode_filter(body: &mut Reader) -> Result<RuleFilter, ErrorCode> {
    let table = body.u8()?;
    body.skip(3)?;
    let (out_port, out_group) = (PortNo(body.u32()?), body.u32()?);
    body.skip(4)?;
    let (cookie, cookie_mask) = (body.u64()?, body.u64()?);
    Ok(RuleFilter { table, matching: decode_match(body)?, priority: None, cookie, cookie_mask, out_port, out_group })
}

fn put_filter(out: &mut Vec<u8>, filter: &RuleFilter) {
    out.put_u8(filter.table);
    out.put_zeros(3);
    out.put_u32(filter.out_port.0);
    out.put_u32(filter.out_group);
    out.put_zeros(4);
    out.put_u64(filter.cookie);
    out.put_u64(filter.cookie_mask);
    put_match(out, &filter.matching);
}

/// What the switch answers, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartReply {
    /// What.
    pub body: MultipartBody,
    /// Whether another part follows.
    pub more: bool,
}

/// The body of a multipart reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultipartBody {
    /// Who made the switch.
    Desc(Box<Desc>),
    /// Rules.
    Flow(Vec<FlowStats>),
    /// Sums over rules.
    Aggregate(Aggregate),
    /// The tables' counters.
    Table(Vec<TableStats>),
    /// The ports' counters.
    Port(Vec<PortStats>),
    /// The queues' counters.
    Queue(Vec<QueueStats>),
    /// The groups' counters.
    Group(Vec<GroupStats>),
    /// Groups.
    GroupDesc(Vec<GroupDesc>),
    /// What groups can do.
    GroupFeatures(GroupFeatures),
    /// The meters' counters.
    Meter(Vec<MeterStats>),
    /// Meters.
    MeterConfig(Vec<MeterConfig>),
    /// What meters can do.
    MeterFeatures(MeterFeatures),
    /// What the tables can do.
    TableFeatures(Vec<TableFeatures>),
    /// Ports.
    PortDesc(Vec<PortDesc>),
    /// What flow monitors tell: as the answer to a request for them what there is, later what happens.
    FlowMonitor(Vec<RuleUpdate>),
}

impl MultipartReply {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (kind, flags) = (body.u16()?, body.u16()?);
        body.skip(4)?;
        let reply = match kind {
            DESC => MultipartBody::Desc(Box::new(Desc::decode(&mut body)?)),
            FLOW => MultipartBody::Flow(all(&mut body, FlowStats::decode)?),
            AGGREGATE => MultipartBody::Aggregate(Aggregate::decode(&mut body)?),
            TABLE => MultipartBody::Table(all(&mut body, TableStats::decode)?),
            PORT_STATS => MultipartBody::Port(all(&mut body, PortStats::decode)?),
            QUEUE => MultipartBody::Queue(all(&mut body, QueueStats::decode)?),
            GROUP => MultipartBody::Group(all(&mut body, GroupStats::decode)?),
            GROUP_DESC => MultipartBody::GroupDesc(all(&mut body, GroupDesc::decode)?),
            GROUP_FEATURES => MultipartBody::GroupFeatures(GroupFeatures::decode(&mut body)?),
            METER => MultipartBody::Meter(all(&mut body, MeterStats::decode)?),
            METER_CONFIG => MultipartBody::MeterConfig(all(&mut body, MeterConfig::decode)?),
            METER_FEATURES => MultipartBody::MeterFeatures(MeterFeatures::decode(&mut body)?),
            TABLE_FEATURES => MultipartBody::TableFeatures(all(&mut body, TableFeatures::decode)?),
            PORT_DESC => MultipartBody::PortDesc(all(&mut body, PortDesc::decode)?),
            EXPERIMENTER => {
                decode_experimenter(&mut body)?;
                MultipartBody::FlowMonitor(all(&mut body, RuleUpdate::decode)?)
            }
            _ => return Err(BadRequest::BadMultipart.into()),
        };
        body.finish()?;
        Ok(Self { body: reply, more: flags & MORE != 0 })
    }

    fn kind(&self) -> u16 {
        match self.body {
            MultipartBody::Desc(_) => DESC,
            MultipartBody::Flow(_) => FLOW,
            MultipartBody::Aggregate(_) => AGGREGATE,
            MultipartBody::Table(_) => TABLE,
            MultipartBody::Port(_) => PORT_STATS,
            MultipartBody::Queue(_) => QUEUE,
            MultipartBody::Group(_) => GROUP,
            MultipartBody::GroupDesc(_) => GROUP_DESC,
            MultipartBody::GroupFeatures(_) => GROUP_FEATURES,
            MultipartBody::Meter(_) => METER,
            MultipartBody::MeterConfig(_) => METER_CONFIG,
            MultipartBody::MeterFeatures(_) => METER_FEATURES,
            MultipartBody::TableFeatures(_) => TABLE_FEATURES,
            MultipartBody::PortDesc(_) => PORT_DESC,
            MultipartBody::FlowMonitor(_) => EXPERIMENTER,
        }
    }

    /// Appends the reply as one message or several.
    pub(super) fn encode(&self, xid: u32, out: &mut Vec<u8>) {
        let mut parts = Parts::new(out, head(MULTIPART_REPLY, xid, self.kind()));
        match &self.body {
            MultipartBody::Desc(desc) => desc.encode(parts.out),
            MultipartBody::Flow(rules) => parts.of(rules, |out, rule| rule.encode(out)),
            MultipartBody::Aggregate(sums) => sums.encode(parts.out),
            MultipartBody::Table(tables) => parts.of(tables, |out, table| table.encode(out)),
            MultipartBody::Port(ports) => parts.of(ports, |out, port| port.encode(out)),
            MultipartBody::Queue(queues) => parts.of(queues, |out, queue| queue.encode(out)),
            MultipartBody::Group(groups) => parts.of(groups, |out, group| group.encode(out)),
            MultipartBody::GroupDesc(groups) => parts.of(groups, |out, group| group.encode(out)),
            MultipartBody::GroupFeatures(features) => features.encode(parts.out),
            MultipartBody::Meter(meters) => parts.of(meters, |out, meter| meter.encode(out)),
            MultipartBody::MeterConfig(meters) => parts.of(meters, |out, meter| meter.encode(out)),
            MultipartBody::MeterFeatures(features) => features.encode(parts.out),
            MultipartBody::TableFeatures(tables) => parts.of(tables, |out, table| table.encode(out)),
            MultipartBody::PortDesc(ports) => parts.of(ports, |out, port| port.encode(out)),
            MultipartBody::FlowMonitor(updates) => parts.of(updates, |out, update| update.encode(out)),
        }
        parts.finish(self.more);
    }
}

/// What each of the messages of a request or reply begins with.
fn head(message: u8, xid: u32, kind: u16) -> impl Fn(&mut Vec<u8>) -> usize {
    move |out| {
        let start = start_message(out, message, xid);
        out.put_u16(kind);
        out.put_zeros(6);
        if kind == EXPERIMENTER {
            out.put_u32(OXM_ONF);
            out.put_u32(ONF_FLOW_MONITOR);
        }
        start
    }
}

/// The messages of one request or reply; the last one is under way.
pub(super) struct Parts<'a, B> {
    out: &'a mut Vec<u8>,
    /// Appends all that stands in each message before its entries, and returns where it began.
    begin: B,
    /// Where the message under way begins.
    start: usize,
}

impl<'a, B: Fn(&mut Vec<u8>) -> usize> Parts<'a, B> {
    pub(super) fn new(out: &'a mut Vec<u8>, begin: B) -> Self {
        Self { start: begin(out), out, begin }
    }

    /// Ends the last message. The flags are in the same place in all versions.
    pub(super) fn finish(&mut self, more: bool) {
        let flags = if more { MORE } else { 0 };
        self.out[self.start + 10..self.start + 12].copy_from_slice(&flags.to_be_bytes());
        finish_message(self.out, self.start);
    }

    /// Appends the entries; one that would make a message too long begins the next.
    pub(super) fn of<T>(&mut self, entries: impl IntoIterator<Item = T>, put: impl Fn(&mut Vec<u8>, T)) {
        for entry in entries {
            let at = self.out.len();
            put(self.out, entry);
            if self.out.len() - self.start > usize::from(u16::MAX) {
                let entry = self.out.split_off(at);
                self.finish(true);
                self.start = (self.begin)(self.out);
                self.out.extend_from_slice(&entry);
            }
        }
    }
}

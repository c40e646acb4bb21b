//! OFPT_MULTIPART_REQUEST and OFPT_MULTIPART_REPLY (OpenFlow 1.3.5, 7.3.5).
//!
//! A reply that does not fit the 65,535 bytes of one message is sent as several, all but the last with `OFPMPF_REPLY_MORE`.

mod stats;
mod table_features;

pub use stats::{Aggregate, Desc, FlowStats, PortStats, TableStats};
pub use table_features::TableFeatures;

use super::bytes::{Put, Reader};
use super::error::{BadRequest, ErrorCode, TableFeaturesFailed};
use super::oxm::{decode_match, put_match};
use super::port::PortDesc;
use super::{MULTIPART_REPLY, experimenter_error, finish_message, start_message};
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

/// `OFPMPF_REQ_MORE` and `OFPMPF_REPLY_MORE`.
const MORE: u16 = 1;

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
    /// What the tables can do. (A request that sets it is refused.)
    TableFeatures,
    /// All ports.
    PortDesc,
}

impl MultipartRequest {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (kind, flags) = (body.u16()?, body.u16()?);
        body.skip(4)?;
        if kind == TABLE_FEATURES && !body.is_empty() {
            return Err(TableFeaturesFailed::Eperm.into());
        }
        if flags & MORE != 0 {
            // No request that is granted needs more than one message.
            return Err(BadRequest::MultipartBufferOverflow.into());
        }
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
            TABLE_FEATURES => Self::TableFeatures,
            PORT_DESC => Self::PortDesc,
            EXPERIMENTER => return Err(experimenter_error(body.u32()?)),
            _ => return Err(BadRequest::BadMultipart.into()),
        };
        body.finish()?;
        Ok(request)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self {
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
            Self::TableFeatures => TABLE_FEATURES,
            Self::PortDesc => PORT_DESC,
        };
        out.put_u16(kind);
        out.put_zeros(6);
        match self {
            Self::Flow(filter) | Self::Aggregate(filter) => put_filter(out, filter),
            Self::Port(PortNo(number)) | Self::Group(number) | Self::Meter(number) | Self::MeterConfig(number) => {
                out.put_u32(*number);
                out.put_zeros(4);
            }
            Self::Queue(port, queue) => {
                out.put_u32(port.0);
                out.put_u32(*queue);
            }
            _ => {}
        }
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
    /// No queues.
    Queue,
    /// No groups' counters.
    Group,
    /// No groups.
    GroupDesc,
    /// That groups can do nothing.
    GroupFeatures,
    /// No meters' counters.
    Meter,
    /// No meters.
    MeterConfig,
    /// That meters can do nothing.
    MeterFeatures,
    /// What the tables can do.
    TableFeatures(Vec<TableFeatures>),
    /// Ports.
    PortDesc(Vec<PortDesc>),
}

/// The length of OFPMP_GROUP_FEATURES' body.
const GROUP_FEATURES_LENGTH: usize = 40;
/// The length of OFPMP_METER_FEATURES' body.
const METER_FEATURES_LENGTH: usize = 16;

impl MultipartReply {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (kind, flags) = (body.u16()?, body.u16()?);
        body.skip(4)?;
        fn all<T>(body: &mut Reader, decode: impl Fn(&mut Reader) -> Result<T, ErrorCode>) -> Result<Vec<T>, ErrorCode> {
            let mut entries = Vec::new();
            while !body.is_empty() {
                entries.push(decode(body)?);
            }
            Ok(entries)
        }
        let reply = match kind {
            DESC => MultipartBody::Desc(Box::new(Desc::decode(&mut body)?)),
            FLOW => MultipartBody::Flow(all(&mut body, FlowStats::decode)?),
            AGGREGATE => MultipartBody::Aggregate(Aggregate::decode(&mut body)?),
            TABLE => MultipartBody::Table(all(&mut body, TableStats::decode)?),
            PORT_STATS => MultipartBody::Port(all(&mut body, PortStats::decode)?),
            QUEUE => MultipartBody::Queue,
            GROUP => MultipartBody::Group,
            GROUP_DESC => MultipartBody::GroupDesc,
            GROUP_FEATURES => {
                body.skip(GROUP_FEATURES_LENGTH)?;
                MultipartBody::GroupFeatures
            }
            METER => MultipartBody::Meter,
            METER_CONFIG => MultipartBody::MeterConfig,
            METER_FEATURES => {
                body.skip(METER_FEATURES_LENGTH)?;
                MultipartBody::MeterFeatures
            }
            TABLE_FEATURES => MultipartBody::TableFeatures(all(&mut body, TableFeatures::decode)?),
            PORT_DESC => MultipartBody::PortDesc(all(&mut body, PortDesc::decode)?),
            EXPERIMENTER => return Err(experimenter_error(body.u32()?)),
            _ => return Err(BadRequest::BadMultipart.into()),
        };
        body.finish()?;
        Ok(Self { body: reply, more: flags & MORE != 0 })
    }

    /// Appends the reply as one message or several.
    pub(super) fn encode(&self, xid: u32, out: &mut Vec<u8>) {
        let mut parts = Parts { start: out.len(), xid, kind: DESC, out };
        match &self.body {
            MultipartBody::Desc(desc) => parts.of(DESC, [&**desc], |out, desc| desc.encode(out)),
            MultipartBody::Flow(rules) => parts.of(FLOW, rules, |out, rule| rule.encode(out)),
            MultipartBody::Aggregate(sums) => parts.of(AGGREGATE, [sums], |out, sums| sums.encode(out)),
            MultipartBody::Table(tables) => parts.of(TABLE, tables, |out, table| table.encode(out)),
            MultipartBody::Port(ports) => parts.of(PORT_STATS, ports, |out, port| port.encode(out)),
            MultipartBody::Queue => parts.zeros(QUEUE, 0),
            MultipartBody::Group => parts.zeros(GROUP, 0),
            MultipartBody::GroupDesc => parts.zeros(GROUP_DESC, 0),
            MultipartBody::GroupFeatures => parts.zeros(GROUP_FEATURES, GROUP_FEATURES_LENGTH),
            MultipartBody::Meter => parts.zeros(METER, 0),
            MultipartBody::MeterConfig => parts.zeros(METER_CONFIG, 0),
            MultipartBody::MeterFeatures => parts.zeros(METER_FEATURES, METER_FEATURES_LENGTH),
            MultipartBody::TableFeatures(tables) => parts.of(TABLE_FEATURES, tables, |out, table| table.encode(out)),
            MultipartBody::PortDesc(ports) => parts.of(PORT_DESC, ports, |out, port| port.encode(out)),
        }
        parts.finish(self.more);
    }
}

/// The messages of one reply; the last one is under way.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    xid: u32,
    kind: u16,
    /// Where the message under way begins.
    start: usize,
}

impl Parts<'_> {
    fn begin(&mut self) {
        self.start = start_message(self.out, MULTIPART_REPLY, self.xid);
        self.out.put_u16(self.kind);
        self.out.put_zeros(6);
    }

    fn finish(&mut self, more: bool) {
        let flags = if more { MORE } else { 0 };
        self.out[self.start + 10..self.start + 12].copy_from_slice(&flags.to_be_bytes());
        finish_message(self.out, self.start);
    }

    /// Appends the entries; one that would make a message too long begins the next.
    fn of<T>(&mut self, kind: u16, entries: impl IntoIterator<Item = T>, put: impl Fn(&mut Vec<u8>, T)) {
        self.kind = kind;
        self.begin();
        for entry in entries {
            let at = self.out.len();
            put(self.out, entry);
            if self.out.len() - self.start > usize::from(u16::MAX) {
                let entry = self.out.split_off(at);
                self.finish(true);
                self.begin();
                self.out.extend_from_slice(&entry);
            }
        }
    }

    fn zeros(&mut self, kind: u16, count: usize) {
        self.kind = kind;
        self.begin();
        self.out.put_zeros(count);
    }
}

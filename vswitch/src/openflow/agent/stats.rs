//! Multipart requests.

use std::sync::Arc;

use datapath::Nanos;
use datapath::drops::{DropReason, TxDrop};
use datapath::port::{PortNo, QUEUES};
use datapath::tables::{Port, Rule, RuleFilter, TABLE_COUNT};

use super::ports::port_desc;
use super::{Agent, ConnectionId, Datapath};
use crate::openflow::dump::Dump;
use crate::openflow::wire::error::{BadRequest, QueueOpFailed};
use crate::openflow::wire::{
    Age, Aggregate, Desc, ErrorCode, GroupFeatures, Message, MeterFeatures, MultipartBody, MultipartReply, MultipartRequest, PortStats,
    QUEUE_ALL, QueueConfig, QueueDesc, QueueStats, TableStats,
};

/// Frames that were in error, not merely unwanted.
const RX_ERRORS: [DropReason; 4] = [DropReason::Truncated, DropReason::BadDescriptor, DropReason::TooLong, DropReason::BadOffload];
/// Copies that an error kept from being sent.
const TX_ERRORS: [TxDrop; 2] = [TxDrop::BadDescriptor, TxDrop::Offload];

impl Agent {
    pub(super) fn multipart(
        &mut self,
        id: ConnectionId,
        request: MultipartRequest,
        xid: u32,
        datapath: &mut dyn Datapath,
        now: Nanos,
    ) -> Result<(), ErrorCode> {
        let body = match request {
            MultipartRequest::Desc => MultipartBody::Desc(Box::new(self.desc())),
            MultipartRequest::Flow(filter) => {
                let rules = self.settled_rules(&filter, datapath)?;
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.begin(Dump::rules(xid, rules, now));
                }
                return Ok(());
            }
            MultipartRequest::FlowMonitor(monitors) => return self.begin_monitors(id, monitors, xid),
            MultipartRequest::Aggregate(filter) => MultipartBody::Aggregate(sum(&self.settled_rules(&filter, datapath)?)),
            MultipartRequest::Table => {
                datapath.settle();
                MultipartBody::Table((0..TABLE_COUNT as u8).map(|table| self.table_stats(table)).collect())
            }
            MultipartRequest::Port(port) => MultipartBody::Port(self.ports(port)?.map(|port| self.port_stats(port, now)).collect()),
            MultipartRequest::PortDesc => MultipartBody::PortDesc(self.draft.ports().iter().map(|port| port_desc(port)).collect()),
            MultipartRequest::TableFeatures(asked) => {
                if !asked.is_empty() {
                    self.set_table_features(&asked)?;
                }
                MultipartBody::TableFeatures(self.table_features())
            }
            MultipartRequest::Queue(port, queue) => MultipartBody::Queue(self.queue_stats(port, queue, now)?),
            MultipartRequest::Group(group) => MultipartBody::Group(self.group_stats(group, datapath, now)),
            MultipartRequest::GroupDesc => MultipartBody::GroupDesc(self.group_descs()),
            MultipartRequest::GroupFeatures => MultipartBody::GroupFeatures(GroupFeatures::SUPPORTED),
            MultipartRequest::Meter(meter) => MultipartBody::Meter(self.meter_stats(meter, now)?),
            MultipartRequest::MeterConfig(meter) => MultipartBody::MeterConfig(self.meter_configs(meter)?),
            MultipartRequest::MeterFeatures => MultipartBody::MeterFeatures(MeterFeatures::SUPPORTED),
        };
        self.send(id, Message::MultipartReply(MultipartReply { body, more: false }), xid);
        Ok(())
    }

    fn desc(&self) -> Desc {
        Desc {
            manufacturer: env!("CARGO_PKG_NAME").into(),
            hardware: "virtio-net over vhost-user".into(),
            software: env!("CARGO_PKG_VERSION").into(),
            serial_number: "None".into(),
            datapath: self.settings.name.clone(),
        }
    }

    /// The rules that `filter` selects, with counters that are up to date.
    fn settled_rules(&self, filter: &RuleFilter, datapath: &mut dyn Datapath) -> Result<Vec<Arc<Rule>>, ErrorCode> {
        if filter.table != RuleFilter::ALL_TABLES && usize::from(filter.table) >= TABLE_COUNT {
            return Err(BadRequest::BadTableId.into());
        }
        datapath.settle();
        Ok(self.draft.rules(filter).cloned().collect())
    }

    fn table_stats(&self, table: u8) -> TableStats {
        let counters = self.draft.counters(table);
        TableStats { table, active: self.draft.rule_count(table) as u32, lookups: counters.lookups(), matches: counters.matches() }
    }

    /// The port with this number, or all of them for [`PortNo::ANY`].
    fn ports(&self, number: PortNo) -> Result<impl Iterator<Item = &Arc<Port>>, ErrorCode> {
        let ports = self.draft.ports();
        if number != PortNo::ANY && ports.get(number).is_none() {
            return Err(BadRequest::BadPort.into());
        }
        Ok(ports.iter().filter(move |port| number == PortNo::ANY || port.no == number))
    }

    /// The counters of a queue, or of all for [`QUEUE_ALL`], of a port, or of all for [`PortNo::ANY`].
    fn queue_stats(&self, port: PortNo, queue: u32, now: Nanos) -> Result<Vec<QueueStats>, ErrorCode> {
        let ports = self.ports(port).map_err(|_| QueueOpFailed::BadPort)?;
        if queue != QUEUE_ALL && queue >= QUEUES {
            return Err(QueueOpFailed::BadQueue.into());
        }
        let of_port = |port: &Port| {
            let (port, totals, age) = (port.no, port.counters.totals(), self.port_age(port, now));
            let asked = (0..).zip(totals.queues).filter(move |(number, _)| queue == QUEUE_ALL || *number == queue);
            asked.map(move |(number, totals)| QueueStats {
                port,
                queue: number,
                bytes: totals.bytes,
                frames: totals.frames,
                errors: totals.dropped,
                age,
            })
        };
        Ok(ports.flat_map(|port| of_port(port)).collect())
    }

    /// The queues of a port, or of as many ports as fit one message for [`PortNo::ANY`]. No rates can be set.
    pub(super) fn queue_config(&self, port: PortNo) -> Result<QueueConfig, ErrorCode> {
        let ports = self.ports(port).map_err(|_| QueueOpFailed::BadPort)?;
        let of_port = |port: PortNo| (0..QUEUES).map(move |queue| QueueDesc { port, queue, min_rate: None, max_rate: None });
        let queues = ports.flat_map(|port| of_port(port.no)).take(QueueConfig::MAX_QUEUES).collect();
        Ok(QueueConfig { port, queues })
    }

    fn port_age(&self, port: &Port, now: Nanos) -> Age {
        Age::between(self.port_ages.get(&port.no).copied().unwrap_or(now), now)
    }

    fn port_stats(&self, port: &Port, now: Nanos) -> PortStats {
        let totals = port.counters.totals();
        let rx_errors = RX_ERRORS.iter().map(|reason| totals.drops[*reason as usize]).sum();
        let tx_errors = TX_ERRORS.iter().map(|reason| totals.tx_drops[*reason as usize]).sum();
        PortStats {
            number: port.no,
            rx_frames: totals.rx_frames,
            tx_frames: totals.tx_frames,
            rx_bytes: totals.rx_bytes,
            tx_bytes: totals.tx_bytes,
            rx_dropped: totals.dropped() - rx_errors,
            tx_dropped: totals.tx_dropped() - tx_errors,
            rx_errors,
            tx_errors,
            rx_frame_overrun_crc: [u64::MAX; 3],
            collisions: u64::MAX,
            age: self.port_age(port, now),
        }
    }
}

fn sum(rules: &[Arc<Rule>]) -> Aggregate {
    rules.iter().fold(Aggregate::default(), |sums, rule| Aggregate {
        frames: sums.frames + rule.counters.frames(),
        bytes: sums.bytes + rule.counters.bytes(),
        rules: sums.rules + 1,
    })
}

//! Multipart requests.

use std::sync::Arc;

use datapath::Nanos;
use datapath::drops::{DropReason, TxDrop};
use datapath::port::PortNo;
use datapath::tables::{MAX_RULES, Port, Rule, RuleFilter, TABLE_COUNT};

use super::ports::port_desc;
use super::{Agent, ConnectionId, Datapath};
use crate::openflow::wire::error::{BadRequest, MeterModFailed, QueueOpFailed};
use crate::openflow::wire::{
    Age, Aggregate, Desc, ErrorCode, Message, MultipartBody, MultipartReply, MultipartRequest, PortStats, TableFeatures, TableStats,
};

/// `OFPQ_ALL`, and with the same value `OFPM_ALL`.
const ALL: u32 = 0xffff_ffff;

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
                    session.begin_dump(xid, rules, now);
                }
                return Ok(());
            }
            MultipartRequest::Aggregate(filter) => MultipartBody::Aggregate(sum(&self.settled_rules(&filter, datapath)?)),
            MultipartRequest::Table => {
                datapath.settle();
                MultipartBody::Table((0..TABLE_COUNT as u8).map(|table| self.table_stats(table)).collect())
            }
            MultipartRequest::Port(port) => MultipartBody::Port(self.ports(port)?.map(|port| self.port_stats(port, now)).collect()),
            MultipartRequest::PortDesc => MultipartBody::PortDesc(self.draft.ports().iter().map(|port| port_desc(port)).collect()),
            MultipartRequest::TableFeatures => MultipartBody::TableFeatures((0..TABLE_COUNT as u8).map(table_features).collect()),
            MultipartRequest::Queue(port, queue) => {
                drop(self.ports(port).map_err(|_| QueueOpFailed::BadPort)?);
                if queue != ALL {
                    return Err(QueueOpFailed::BadQueue.into());
                }
                MultipartBody::Queue
            }
            MultipartRequest::Group(_) => MultipartBody::Group,
            MultipartRequest::GroupDesc => MultipartBody::GroupDesc,
            MultipartRequest::GroupFeatures => MultipartBody::GroupFeatures,
            MultipartRequest::Meter(meter) | MultipartRequest::MeterConfig(meter) if meter != ALL => {
                return Err(MeterModFailed::UnknownMeter.into());
            }
            MultipartRequest::Meter(_) => MultipartBody::Meter,
            MultipartRequest::MeterConfig(_) => MultipartBody::MeterConfig,
            MultipartRequest::MeterFeatures => MultipartBody::MeterFeatures,
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
            age: Age::between(self.port_ages.get(&port.no).copied().unwrap_or(now), now),
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

fn table_features(table: u8) -> TableFeatures {
    TableFeatures { table, name: String::new(), max_entries: MAX_RULES as u32, tables: TABLE_COUNT as u8 }
}

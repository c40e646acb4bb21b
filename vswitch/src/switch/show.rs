//! What the switch shows of itself: the documents of the control socket.

use std::collections::BTreeMap;

use datapath::Nanos;
use datapath::action::list_text;
use datapath::cache::CachedFlow;
use datapath::drops::{DropReason, TxDrop};
use datapath::key::{Flow, FlowMask, Match};
use datapath::port::PortNo;
use datapath::tables;

use super::openflow::{Controller, SECOND, State};
use super::ports::SwitchPort;
use super::worker::WorkerThread;
use super::{Switch, clock};
use crate::config::{Device, Name, PortConfig, PortKind, Role, VlanSpec, XdpMode};
use crate::document::{self, AfXdp, AfXdpQueue, Drops, PortDetails, PortSummary};
use crate::openflow::agent::{ConnectionId, Origin, Phase, Role as OpenFlowRole, Status};
use crate::uplink::afxdp::{How, Watch};

impl Switch {
    /// All ports.
    pub(super) fn port_list(&self) -> Vec<PortSummary> {
        let config = |no: &PortNo| self.config.ports.iter().find(|port| self.numbers.get(no).is_some_and(|claim| claim.name == port.name));
        let entries = self.agent.tables().ports().iter();
        entries.filter_map(|entry| Some(details(entry, config(&entry.no)?, self.ports.get(&entry.no)?).summary)).collect()
    }

    /// One port, in full.
    pub(super) fn port_details(&self, name: &Name) -> Result<PortDetails, String> {
        let gone = || format!("port {name} is gone");
        let entry = self.agent.tables().ports().by_name(name.as_str()).ok_or_else(gone)?;
        let port = self.ports.get(&entry.no).ok_or_else(gone)?;
        let config = self.config.ports.iter().find(|port| port.name == *name).ok_or_else(gone)?;
        Ok(details(entry, config, port))
    }

    /// The cached flows, of one worker or of all.
    pub(super) fn flows(&self, only: Option<usize>) -> Result<Vec<document::Flow>, String> {
        let threads = self.forwarding.workers.threads();
        if let Some(number) = only.filter(|number| *number >= threads.len()) {
            return Err(format!("there is no worker {number}; there are {}, counted from 0", threads.len()));
        }
        let wanted = threads.iter().enumerate().filter(|(number, _)| only.is_none_or(|only| only == *number));
        let answers: Vec<_> = wanted.map(|(number, thread)| (number, thread.post(|worker| worker.flows()))).collect();
        let now = clock::now();
        let mut flows = Vec::new();
        for (worker, answer) in answers {
            let cached = answer.recv().unwrap_or_default();
            flows.extend(cached.iter().map(|flow| document::Flow {
                worker,
                r#match: match_text(flow),
                actions: list_text(&flow.actions).to_string(),
                frames: flow.frames,
                bytes: flow.bytes,
                age_ms: now.saturating_sub(flow.created) / 1_000_000,
            }));
        }
        Ok(flows)
    }

    /// The workers.
    pub(super) fn worker_list(&self) -> Vec<document::Worker> {
        let stats = self.forwarding.workers.each(|worker| worker.stats());
        let document = |(thread, stats): (&WorkerThread, datapath::worker::WorkerStats)| {
            let usage = thread.usage();
            document::Worker {
                name: thread.name(),
                cpu: thread.cpu(),
                frames: stats.frames,
                busy_cycles: usage.busy_cycles,
                idle_cycles: usage.idle_cycles,
                microflow_hits: stats.microflow_hits,
                megaflow_hits: stats.megaflow_hits,
                upcalls: stats.upcalls,
                installed: stats.installed,
                megaflows: stats.megaflows,
                masks: stats.masks,
                audits: stats.audits,
                audit_mismatches: stats.audit_mismatches,
            }
        };
        self.forwarding.workers.threads().iter().zip(stats).map(document).collect()
    }

    /// The controllers, with the connections to them, and then the connections that came by a listener.
    pub(super) fn connection_list(&self) -> Vec<document::Connection> {
        let now = clock::now();
        let statuses: BTreeMap<_, _> = self.agent.connections().collect();
        let controllers = self.connections.controllers.values().map(|one| controller(one, &statuses, now));
        let others = statuses.values().filter(|status| status.peer.origin == Origin::Listener);
        controllers.chain(others.map(|status| connection(status, now))).collect()
    }

    /// What was dropped, by port and reason.
    pub(super) fn drops(&self) -> Vec<Drops> {
        let ports = self.agent.tables().ports().iter();
        ports
            .flat_map(|port| {
                let counted = drops_of(port);
                counted.into_iter().map(|(reason, says, frames)| Drops {
                    port: port.name.clone(),
                    reason: reason.to_owned(),
                    frames,
                    says: says.to_owned(),
                })
            })
            .collect()
    }
}

/// A controller, with the connection to it, if there is one.
fn controller(controller: &Controller, statuses: &BTreeMap<ConnectionId, Status>, now: Nanos) -> document::Connection {
    let present = match controller.state {
        State::Connected(id) => statuses.get(&id).map(|status| connection(status, now)),
        _ => None,
    };
    let (state, at) = match controller.state {
        State::Waiting(at) => ("backoff", Some(at)),
        State::Asking | State::Connecting(..) | State::Connected(_) => ("connecting", None),
    };
    let absent = || document::Connection {
        kind: "controller".to_owned(),
        target: controller.target.to_string(),
        state: state.to_owned(),
        next_attempt_s: at.map(|at| at.saturating_sub(now).div_ceil(SECOND)),
        ..document::Connection::default()
    };
    document::Connection { last_error: controller.last_error.clone(), ..present.unwrap_or_else(absent) }
}

/// A connection that is there.
fn connection(status: &Status, now: Nanos) -> document::Connection {
    let dropped = [("congested", status.packet_ins_congested), ("queue-full", status.packet_ins_overrun)];
    let role = match status.role {
        OpenFlowRole::Equal => "equal",
        OpenFlowRole::Master => "master",
        OpenFlowRole::Slave => "slave",
    };
    document::Connection {
        kind: match status.peer.origin {
            Origin::Controller => "controller".to_owned(),
            Origin::Listener => "listener".to_owned(),
        },
        target: status.peer.target.clone(),
        peer: Some(status.peer.address.clone()),
        state: match status.phase {
            Phase::Handshake => "tls-handshake".to_owned(),
            Phase::Hello => "hello".to_owned(),
            Phase::Active => "active".to_owned(),
        },
        version: status.version.map(|version| version.to_string()),
        role: Some(role.to_owned()),
        connected_s: Some(now.saturating_sub(status.since) / SECOND),
        messages_in: status.messages_in,
        messages_out: status.messages_out,
        packet_ins: document::PacketIns {
            sent: status.packet_ins_sent,
            queued: status.packet_ins_queued,
            dropped: dropped.into_iter().filter(|(_, count)| *count > 0).map(|(reason, count)| (reason.to_owned(), count)).collect(),
        },
        last_error: None,
        next_attempt_s: None,
    }
}

/// The reasons for which frames from or to a port were dropped: name, sentence and number.
fn drops_of(port: &tables::Port) -> Vec<(&'static str, &'static str, u64)> {
    let totals = port.counters.totals();
    let rx = DropReason::ALL.iter().map(|reason| (reason.name(), reason.says())).zip(totals.drops);
    let tx = TxDrop::ALL.iter().map(|reason| (reason.name(), reason.says())).zip(totals.tx_drops);
    rx.chain(tx).filter(|(_, frames)| *frames > 0).map(|((name, says), frames)| (name, says, frames)).collect()
}

/// A port in full.
pub fn details(entry: &tables::Port, config: &PortConfig, port: &SwitchPort) -> PortDetails {
    let totals = entry.counters.totals();
    let (guest, device) = match &config.spec.kind {
        PortKind::VhostUser(vhost_user) => (Some(vhost_user), None),
        PortKind::Device(device) => (None, Some(device)),
    };
    let connected = port.is_connected();
    PortDetails {
        summary: PortSummary {
            name: entry.name.clone(),
            ofport: entry.no.0,
            kind: config.spec.kind.word().to_owned(),
            link: if entry.link_up { "up" } else { "down" }.to_owned(),
            link_speed: entry.speed,
            link_mtu: device.filter(|_| connected).map(|_| entry.mtu),
            error: port.error().map(str::to_owned),
            rx_frames: totals.rx_frames,
            rx_bytes: totals.rx_bytes,
            tx_frames: totals.tx_frames,
            tx_bytes: totals.tx_bytes,
            drops: drops_of(entry).into_iter().map(|(name, _, frames)| (name.to_owned(), frames)).collect::<BTreeMap<_, _>>(),
        },
        socket: guest.map(|guest| guest.socket.display().to_string()),
        role: guest.map(|guest| match guest.role {
            Role::Server => "server".to_owned(),
            Role::Client => "client".to_owned(),
        }),
        device: device.map(Device::name),
        af_xdp: af_xdp(port.watches()),
        connected,
        queues: config.spec.kind.queues(),
        mtu: config.spec.kind.mtu(),
        icmp_too_big: config.spec.icmp_too_big,
        vlan: vlan_text(&config.spec.vlan),
        hw_addr: address_text(entry.hw_addr),
        forwarded: totals.forwarded,
        to_controller: totals.to_controller,
    }
}

/// How frames are taken from a device whose queues are these.
fn af_xdp(queues: &[Watch]) -> Option<AfXdp> {
    let How { native, zero_copy } = queues.first()?.how();
    let queue = |watch: &Watch| AfXdpQueue { rx: watch.rx(), tx: watch.tx(), dropped_by_kernel: watch.dropped_by_kernel() };
    let mode = if native { XdpMode::Native } else { XdpMode::Generic };
    Some(AfXdp { mode: mode.to_string(), zero_copy, queues: queues.iter().map(queue).collect() })
}

fn vlan_text(vlan: &VlanSpec) -> String {
    match vlan {
        VlanSpec::All => "all".to_owned(),
        VlanSpec::Access(vlan) => format!("access {vlan}"),
        VlanSpec::Trunk { ranges, native } => {
            let range = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
            let native = native.map(|native| format!(" native {native}")).unwrap_or_default();
            format!("trunk {}{native}", ranges.iter().map(range).collect::<Vec<_>>().join(","))
        }
    }
}

fn address_text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// A cached flow's key and mask, as rules would be written.
fn match_text(flow: &CachedFlow) -> String {
    let (value, mask): (Flow, FlowMask) = (Flow::new(&flow.key), FlowMask::new(&flow.mask));
    let text = Match::new(&value, &mask).to_string();
    if text.is_empty() { "any".to_owned() } else { text }
}

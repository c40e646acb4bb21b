//! What the switch shows of itself: the documents of the control socket.

use std::collections::BTreeMap;
use std::fmt::Write;

use datapath::action::Action;
use datapath::cache::CachedFlow;
use datapath::drops::{DropReason, TxDrop};
use datapath::key::{Flow, FlowMask, Match};
use datapath::tables;

use super::worker::WorkerThread;
use super::{Switch, clock};
use crate::config::{Name, PortConfig, PortKind, Role, VhostUser, VlanSpec};
use crate::document::{self, Drops, PortDetails, PortSummary};

impl Switch {
    /// All ports.
    pub(super) fn port_list(&self) -> Vec<PortSummary> {
        self.agent.tables().ports().iter().map(|port| summary(port)).collect()
    }

    /// One port, in full.
    pub(super) fn port_details(&self, name: &Name) -> Result<PortDetails, String> {
        let gone = || format!("port {name} is gone");
        let entry = self.agent.tables().ports().by_name(name.as_str()).ok_or_else(gone)?;
        let port = self.ports.get(&entry.no).ok_or_else(gone)?;
        let config = self.config.ports.iter().find(|port| port.name == *name).ok_or_else(gone)?;
        Ok(details(entry, config, port.is_connected()))
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
                actions: actions_text(&flow.actions),
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

/// The reasons for which frames from or to a port were dropped: name, sentence and number.
fn drops_of(port: &tables::Port) -> Vec<(&'static str, &'static str, u64)> {
    let totals = port.counters.totals();
    let rx = DropReason::ALL.iter().map(|reason| (reason.name(), reason.says())).zip(totals.drops);
    let tx = TxDrop::ALL.iter().map(|reason| (reason.name(), reason.says())).zip(totals.tx_drops);
    rx.chain(tx).filter(|(_, frames)| *frames > 0).map(|((name, says), frames)| (name, says, frames)).collect()
}

fn summary(port: &tables::Port) -> PortSummary {
    let totals = port.counters.totals();
    PortSummary {
        name: port.name.clone(),
        ofport: port.no.0,
        kind: "vhost-user".to_owned(),
        link: if port.link_up { "up" } else { "down" }.to_owned(),
        rx_frames: totals.rx_frames,
        rx_bytes: totals.rx_bytes,
        tx_frames: totals.tx_frames,
        tx_bytes: totals.tx_bytes,
        drops: drops_of(port).into_iter().map(|(name, _, frames)| (name.to_owned(), frames)).collect::<BTreeMap<_, _>>(),
    }
}

/// A port in full.
pub fn details(entry: &tables::Port, config: &PortConfig, connected: bool) -> PortDetails {
    let PortKind::VhostUser(VhostUser { socket, role, queues, mtu }) = &config.spec.kind;
    let totals = entry.counters.totals();
    let role = match role {
        Role::Server => "server",
        Role::Client => "client",
    };
    PortDetails {
        summary: summary(entry),
        socket: socket.display().to_string(),
        role: role.to_owned(),
        connected,
        queues: *queues,
        mtu: *mtu,
        vlan: vlan_text(&config.spec.vlan),
        hw_addr: address_text(entry.hw_addr),
        forwarded: totals.forwarded,
        to_controller: totals.to_controller,
    }
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

/// Datapath actions, as rules would be written where rules have the like.
fn actions_text(actions: &[Action]) -> String {
    let mut text = String::new();
    for action in actions {
        let separator = if text.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = match action {
            Action::Output(port) => write!(text, "{separator}output:{port}"),
            Action::Set { field, value, mask } if *mask == field.ones() => {
                write!(text, "{separator}set_field:{value:#x}->{}", field.name())
            }
            Action::Set { field, value, mask } => write!(text, "{separator}set_field:{value:#x}/{mask:#x}->{}", field.name()),
            Action::PushVlan(tpid) => write!(text, "{separator}push_vlan:{tpid:#06x}"),
            Action::PopVlan => write!(text, "{separator}pop_vlan"),
            Action::DecTtl { .. } => write!(text, "{separator}dec_ttl"),
            Action::Copy(actions) => write!(text, "{separator}copy({})", actions_text(actions)),
            Action::Controller(to) => write!(text, "{separator}controller(reason={},max_len={})", to.reason, to.max_len),
        };
    }
    if text.is_empty() { "drop".to_owned() } else { text }
}

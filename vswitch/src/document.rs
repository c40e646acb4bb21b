//! What is said over the control socket: requests, and the documents that answer them.
//!
//! Both are JSON, one to a line. The documents are the operator's contract: `vswitch ctl --json` prints them as they come.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::uplink::afxdp::Account;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request", deny_unknown_fields)]
pub enum Request {
    /// Add a port, written `NAME=SPEC`. Answered by its [`PortDetails`].
    PortAdd {
        /// `NAME=SPEC`.
        port: String,
    },
    /// Delete a port. Answered by its last [`PortDetails`].
    PortDel {
        /// Its name.
        name: String,
    },
    /// All ports. Answered by a list of [`PortSummary`].
    PortList,
    /// One port. Answered by its [`PortDetails`].
    PortShow {
        /// Its name.
        name: String,
    },
    /// The cached flows. Answered by a list of [`Flow`].
    Flows {
        /// Only this worker's, counted from 0.
        worker: Option<usize>,
    },
    /// The workers. Answered by a list of [`Worker`].
    Workers,
    /// The OpenFlow connections, and controllers that there is none to. Answered by a list of [`Connection`].
    Connections,
    /// What was dropped. Answered by a list of [`Drops`].
    Drops,
    /// Read the config file again. Answered by a list of what was done, in words.
    Reload,
    /// Set how much is logged. Answered by the level.
    Log {
        /// The level.
        level: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The document that was asked for.
    Document(serde_json::Value),
    /// What is wrong and what to do, in one line.
    Error(String),
}

/// A port in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSummary {
    /// Its name.
    pub name: String,
    /// Its OpenFlow number.
    pub ofport: u32,
    /// How it is attached, as in its SPEC.
    pub kind: String,
    /// `up` or `down`.
    pub link: String,
    /// How fast the link is, in Mbit/s, if that means anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_speed: Option<u32>,
    /// The most bytes behind the Ethernet header of a frame, where the kernel says it: for ports over network devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_mtu: Option<u16>,
    /// Why its device can't be had, if it can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Frames that the switch received from it, whatever became of them.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that the switch sent to it.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames dropped, by reason, where there are any.
    pub drops: BTreeMap<String, u64>,
}

/// A port in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDetails {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: PortSummary,
    /// A guest's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// `server` if the switch listens on it, `client` if it connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The network device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How frames are taken from the device, if by AF_XDP, and while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub af_xdp: Option<AfXdp>,
    /// Whether a front end is connected, or the device is open.
    pub connected: bool,
    /// Queue pairs that the guest may use, or the queues of the device.
    pub queues: u16,
    /// The MTU that the operator gave.
    pub mtu: Option<u16>,
    /// Whether who sends it a packet longer than its MTU is told so, by ICMP.
    #[serde(default)]
    pub icmp_too_big: bool,
    /// `all`, `access 10`, `trunk 10-20,30` or `trunk 10-20,30 native 5`.
    pub vlan: String,
    /// Its Ethernet address for OpenFlow.
    pub hw_addr: String,
    /// Of the frames received, those sent to one port or more.
    pub forwarded: u64,
    /// Of the frames received, those given to a controller only.
    pub to_controller: u64,
}

/// How frames are taken from a device by AF_XDP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AfXdp {
    /// `native` or `generic`.
    pub mode: String,
    /// Whether the device itself writes to the switch's memory.
    pub zero_copy: bool,
    /// Its queues.
    pub queues: Vec<AfXdpQueue>,
}

/// A queue of such a device, and where the chunks of memory are that its frames lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AfXdpQueue {
    /// Those for receiving.
    pub rx: Account,
    /// Those for transmitting.
    pub tx: Account,
    /// Frames that came for the queue, and were dropped by the kernel before the switch saw them: it had no chunk or no room in the ring for them.
    pub dropped_by_kernel: u64,
}

/// A cached flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The worker that has it, counted from 0.
    pub worker: usize,
    /// The frames that are in it.
    pub r#match: String,
    /// What is done to them.
    pub actions: String,
    /// How many there were.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Milliseconds since it was cached.
    pub age_ms: u64,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its thread's name.
    pub name: String,
    /// Its CPU.
    pub cpu: u16,
    /// Frames that it took in.
    pub frames: u64,
    /// CPU cycles in breaths that brought frames.
    pub busy_cycles: u64,
    /// CPU cycles in others, and asleep.
    pub idle_cycles: u64,
    /// Frames found in the microflow cache.
    pub microflow_hits: u64,
    /// Frames found in the megaflow cache.
    pub megaflow_hits: u64,
    /// Frames that were translated.
    pub upcalls: u64,
    /// Megaflows that were installed.
    pub installed: u64,
    /// Megaflows cached now.
    pub megaflows: usize,
    /// Masks of theirs.
    pub masks: usize,
    /// Hits that were translated again to check the caches.
    pub audits: u64,
    /// Of these, those that came out different; anything but zero is a bug.
    pub audit_mismatches: u64,
}

/// An OpenFlow connection, or a controller that there is none to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// `controller` if the switch connects, `listener` if the peer did.
    pub kind: String,
    /// The controller's target, or that of the listener.
    pub target: String,
    /// Where the peer is: `tcp:ADDRESS:PORT`, `ssl:ADDRESS:PORT` or `unix`.
    pub peer: Option<String>,
    /// `backoff` (a pause before the next attempt), `connecting`, `tls-handshake`, `hello` (OpenFlow's is awaited) or `active`.
    pub state: String,
    /// The OpenFlow version that is spoken.
    pub version: Option<String>,
    /// `equal`, `master` or `slave`.
    pub role: Option<String>,
    /// Seconds since the connection began.
    pub connected_s: Option<u64>,
    /// Messages that came over it.
    pub messages_in: u64,
    /// Messages that were sent over it.
    pub messages_out: u64,
    /// Frames for the controller.
    pub packet_ins: PacketIns,
    /// Why the last attempt failed, or the last connection ended.
    pub last_error: Option<String>,
    /// Seconds until the next attempt.
    pub next_attempt_s: Option<u64>,
}

/// What became of the packet-ins of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketIns {
    /// Those that were sent.
    pub sent: u64,
    /// Those that wait for their turn, by the rate.
    pub queued: u64,
    /// Those that were dropped, by reason, where there are any: `congested` (the controller is behind with reading), `queue-full` (more came than the rate
    /// and the queue allow).
    pub dropped: BTreeMap<String, u64>,
}

/// The frames of one port that were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// The port's name.
    pub port: String,
    /// The reason's name.
    pub reason: String,
    /// How many.
    pub frames: u64,
    /// The reason in a sentence.
    pub says: String,
}

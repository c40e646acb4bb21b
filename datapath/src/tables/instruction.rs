//! OpenFlow's instructions and actions, as rules carry them (OpenFlow 1.3.5, 5.9 and 5.12, and Nicira's extensions).
//!
//! They are not what is executed on frames: a translation turns them into the flat datapath actions.

use std::sync::Arc;

use crate::key::{Field, FieldRange};
use crate::port::PortNo;

/// Actions, one after the other. Rules, snapshots and frozen translations share them.
pub type OfActions = Arc<[OfAction]>;

/// One action of a rule, in OpenFlow's sense.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OfAction {
    /// Send to a port, ordinary or reserved. `max_len` is for [`PortNo::CONTROLLER`]: the bytes that a controller wants of a frame that is
    /// buffered.
    Output {
        /// Where to.
        port: PortNo,
        /// Bytes for the controller; [`CONTROLLER_WHOLE`] not to buffer.
        max_len: u16,
    },
    /// Send to the port whose number is in these bits (NXAST_OUTPUT_REG).
    OutputField {
        /// Where the number is.
        source: FieldRange,
        /// As in [`OfAction::Output`].
        max_len: u16,
    },
    /// Send to a port through one of its queues, without setting the queue for what follows (OpenFlow 1.0, 5.2.4, OFPAT_ENQUEUE).
    Enqueue {
        /// Where to.
        port: PortNo,
        /// The port's queue.
        queue: u32,
    },
    /// Write a field, or part of it: the bits of `mask`.
    SetField {
        /// Which.
        field: Field,
        /// The value, in its low bits.
        value: u128,
        /// The bits that are written, in its low bits.
        mask: u128,
    },
    /// Copy bits between fields (NXAST_REG_MOVE). Both ranges are equally long.
    Move {
        /// From here.
        source: FieldRange,
        /// To here.
        destination: FieldRange,
    },
    /// Write a constant into bits of a field (NXAST_REG_LOAD).
    Load {
        /// To here.
        destination: FieldRange,
        /// The value, in its low bits.
        value: u64,
    },
    /// Put bits of a field on the translation's stack (NXAST_STACK_PUSH).
    StackPush(FieldRange),
    /// Take what was put on the stack last, or zero, and write it into bits of a field (NXAST_STACK_POP).
    StackPop(FieldRange),
    /// Push a VLAN tag with this TPID (0x8100 or 0x88a8).
    PushVlan(u16),
    /// Pop the outermost VLAN tag.
    PopVlan,
    /// Set the VLAN id of the outermost tag; push one if there is none (OpenFlow 1.0, OFPAT_SET_VLAN_VID).
    SetVlanVid(u16),
    /// Set the priority of the outermost tag; push one if there is none (OpenFlow 1.0, OFPAT_SET_VLAN_PCP).
    SetVlanPcp(u8),
    /// Push an MPLS entry, with this Ethernet type (0x8847 or 0x8848).
    PushMpls(u16),
    /// Pop the outermost MPLS entry; the frame has this Ethernet type then.
    PopMpls(u16),
    /// Push a provider backbone bridge's I-TAG.
    PushPbb,
    /// Pop the outermost I-TAG, with the backbone's Ethernet header.
    PopPbb,
    /// Set the TTL or hop limit.
    SetNwTtl(u8),
    /// Decrement the TTL or hop limit. Frames whose TTL runs out go to the controllers that have no id of their own.
    DecNwTtl,
    /// The same for the controllers with these ids (NXAST_DEC_TTL_CNT_IDS).
    DecNwTtlFor(Arc<[u16]>),
    /// Set the TTL of the outermost MPLS entry.
    SetMplsTtl(u8),
    /// Decrement the TTL of the outermost MPLS entry.
    DecMplsTtl,
    /// Copy the TTL of the header behind the outermost one with a TTL to that one: MPLS to MPLS, or IP to MPLS.
    CopyTtlOut,
    /// Copy the TTL of the outermost header with a TTL to the one behind it: MPLS to MPLS, or MPLS to IP.
    CopyTtlIn,
    /// Search a table as if the frame had come in through `port` and go on here afterwards (NXAST_RESUBMIT, NXAST_RESUBMIT_TABLE).
    Resubmit {
        /// The ingress port to pretend, or [`PortNo::IN_PORT`] for the real one.
        port: PortNo,
        /// The table, or `None` for the current one.
        table: Option<u8>,
    },
    /// Give to the controllers with more said than [`OfAction::Output`] can (NXAST_CONTROLLER, NXAST_CONTROLLER2).
    Controller {
        /// As in [`OfAction::Output`].
        max_len: u16,
        /// Which controllers; zero for all without an id of their own.
        controller_id: u16,
        /// The packet-in's reason, as in OpenFlow 1.3.5, 7.4.1.
        reason: u8,
        /// What the packet-in is to bring back. Only Nicira's second format of packet-ins does.
        userdata: Arc<[u8]>,
    },
    /// Set the queue for outputs that follow.
    SetQueue(u32),
    /// Set the queue for outputs that follow back to the default (NXAST_POP_QUEUE).
    PopQueue,
    /// Process through a group.
    Group(u32),
    /// Do this to a copy of the frame, and then what the action set says by then, as in Open vSwitch (NXAST_CLONE). The action set goes on as it was.
    Clone(OfActions),
    /// End the translation, but for the action set (NXAST_EXIT).
    Exit,
    /// Nothing: a controller's note (NXAST_NOTE).
    Note(Arc<[u8]>),
    /// Write one of some numbers, by the frame's flow, into bits of a field (NXAST_MULTIPATH).
    Multipath(Arc<Multipath>),
    /// Choose one of some ports, by the frame's flow, to send to or to write down (NXAST_BUNDLE, NXAST_BUNDLE_LOAD).
    Bundle(Arc<Bundle>),
    /// Add a rule made of the frame's fields (NXAST_LEARN).
    Learn(Arc<Learn>),
    /// The rule is a clause of a conjunction (NXAST_CONJUNCTION). A rule has nothing but such actions, or none.
    Conjunction {
        /// Which conjunction; rules match it as `conj_id`.
        id: u32,
        /// Which clause, from 0.
        clause: u8,
        /// How many clauses the conjunction has, 2 to 64.
        clauses: u8,
    },
}

/// `OFPCML_NO_BUFFER`: the whole frame, unbuffered.
pub const CONTROLLER_WHOLE: u16 = 0xffff;

/// What of a frame a hash is of (NX_HASH_FIELDS_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum HashFields {
    /// The Ethernet source address.
    EthSrc = 0,
    /// What tells flows apart up to the transport ports, the same for both directions.
    SymmetricL4 = 1,
    /// The same without Ethernet and VLAN, of TCP and SCTP.
    SymmetricL3L4 = 2,
    /// The same, of UDP too.
    SymmetricL3L4Udp = 3,
    /// The IP source address.
    NwSrc = 4,
    /// The IP destination address.
    NwDst = 5,
    /// IP addresses and protocol, the same for both directions.
    SymmetricL3 = 6,
}

/// How a hash becomes one of `n` numbers (NX_MP_ALG_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum MultipathAlgorithm {
    /// The remainder.
    Modulo = 0,
    /// The part of the hash's range that it is in.
    HashThreshold = 1,
    /// The number whose hash with the flow's is the highest.
    HighestRandomWeight = 2,
    /// Hash after hash, until one is below `n`; after that, the part of the range.
    IterativeHash = 3,
}

/// See [`OfAction::Multipath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Multipath {
    /// What is hashed.
    pub fields: HashFields,
    /// Starts the hash.
    pub basis: u16,
    /// How a number comes of the hash.
    pub algorithm: MultipathAlgorithm,
    /// The highest number: there are this many and one more.
    pub max_link: u16,
    /// For [`MultipathAlgorithm::IterativeHash`]: how many numbers a hash is for, at least `max_link` and one.
    pub argument: u32,
    /// Where the number goes.
    pub destination: FieldRange,
}

/// How a port is chosen (NX_BD_ALG_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum BundleAlgorithm {
    /// The first that is live.
    ActiveBackup = 0,
    /// Of those that are live, the one whose hash with the flow's is the highest.
    HighestRandomWeight = 1,
}

/// See [`OfAction::Bundle`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bundle {
    /// How a port is chosen.
    pub algorithm: BundleAlgorithm,
    /// What is hashed.
    pub fields: HashFields,
    /// Starts the hash.
    pub basis: u16,
    /// The ports to choose from.
    pub members: Box<[PortNo]>,
    /// Where the number of the port is written, [`PortNo::ANY`] in 16 bits (0xffff) for none; without this, the frame is sent there.
    pub destination: Option<FieldRange>,
}

/// See [`OfAction::Learn`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learn {
    /// The table that the rule goes into.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// Seconds, as in a flow-mod.
    pub idle_timeout: u16,
    /// Seconds, as in a flow-mod.
    pub hard_timeout: u16,
    /// Whether its removal is told of.
    pub send_flow_removed: bool,
    /// Whether what was learned goes when the rule that has this action does.
    pub delete_learned: bool,
    /// What it matches and does.
    pub specs: Box<[LearnSpec]>,
}

/// A part of a rule that is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LearnSpec {
    /// Where a value comes from.
    pub source: LearnSource,
    /// What is done with it.
    pub target: LearnTarget,
    /// How many bits it has, 1 to 128.
    pub bits: u16,
}

/// Where a value of a rule that is learned comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnSource {
    /// From the frame, as it is when it is learned from.
    Field(FieldRange),
    /// Always this.
    Value(u128),
}

/// What is done with a value of a rule that is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnTarget {
    /// The rule matches it.
    Match(FieldRange),
    /// The rule writes it.
    Load(FieldRange),
    /// The rule sends to this port.
    Output,
}

/// The instructions of a rule; each kind at most once, carried out in the order of OpenFlow 1.3.5, 5.9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// Meter first.
    pub meter: Option<u32>,
    /// Carry these actions out now, in their order.
    pub apply: OfActions,
    /// Empty the action set.
    pub clear: bool,
    /// Merge these into the action set.
    pub write: OfActions,
    /// Write metadata: value and mask. Bits of the value outside the mask are listed as they were given, and not written.
    pub metadata: Option<(u64, u64)>,
    /// Go on in this table.
    pub goto: Option<u8>,
}

impl OfAction {
    /// The group that it forwards to.
    pub fn group(&self) -> Option<u32> {
        if let Self::Group(group) = self { Some(*group) } else { None }
    }

    /// The port, ordinary or reserved, that it sends to.
    pub fn port(&self) -> Option<PortNo> {
        match self {
            Self::Output { port, .. } | Self::Enqueue { port, .. } => Some(*port),
            _ => None,
        }
    }
}

/// Visits actions, and those within them.
pub fn each_action<'a>(actions: &'a [OfAction], visit: &mut dyn FnMut(&'a OfAction)) {
    for action in actions {
        visit(action);
        if let OfAction::Clone(actions) = action {
            each_action(actions, visit);
        }
    }
}

impl Instructions {
    /// Whether there is anything but the meter and the actions that are applied.
    pub(crate) fn go_beyond_apply(&self) -> bool {
        self.clear || !self.write.is_empty() || self.metadata.is_some() || self.goto.is_some()
    }

    /// Visits all actions, and those within them.
    pub fn each_action<'a>(&'a self, visit: &mut dyn FnMut(&'a OfAction)) {
        each_action(&self.apply, visit);
        each_action(&self.write, visit);
    }
}

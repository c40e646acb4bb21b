//! OpenFlow's instructions and actions, as rules carry them (OpenFlow 1.3.5, 5.9 and 5.12, and Nicira's extensions).
//!
//! They are not what is executed on frames: a translation turns them into the flat datapath actions.

use crate::key::{Field, FieldRange};
use crate::port::PortNo;

/// One action of a rule, in OpenFlow's sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfAction {
    /// Send to a port, ordinary or reserved. `max_len` is for [`PortNo::CONTROLLER`]: the bytes that a controller wants of a frame that is
    /// buffered.
    Output {
        /// Where to.
        port: PortNo,
        /// Bytes for the controller; [`CONTROLLER_WHOLE`] not to buffer.
        max_len: u16,
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
    /// Push a VLAN tag with this TPID (0x8100 or 0x88a8).
    PushVlan(u16),
    /// Pop the outermost VLAN tag.
    PopVlan,
    /// Set the TTL or hop limit.
    SetNwTtl(u8),
    /// Decrement the TTL or hop limit.
    DecNwTtl,
    /// Search a table as if the frame had come in through `port` and go on here afterwards (NXAST_RESUBMIT, NXAST_RESUBMIT_TABLE).
    Resubmit {
        /// The ingress port to pretend, or [`PortNo::IN_PORT`] for the real one.
        port: PortNo,
        /// The table, or `None` for the current one.
        table: Option<u8>,
    },
    /// Give to the controllers with more said than [`OfAction::Output`] can (NXAST_CONTROLLER).
    Controller {
        /// As in [`OfAction::Output`].
        max_len: u16,
        /// Which controllers; zero for all without an id of their own.
        controller_id: u16,
        /// The packet-in's reason, as in OpenFlow 1.3.5, 7.4.1.
        reason: u8,
    },
    /// Set the queue for outputs that follow. Refused in rules until there are queues.
    SetQueue(u32),
    /// Process through a group. Refused in rules until there are groups.
    Group(u32),
}

/// `OFPCML_NO_BUFFER`: the whole frame, unbuffered.
pub const CONTROLLER_WHOLE: u16 = 0xffff;

/// The instructions of a rule; each kind at most once, carried out in the order of OpenFlow 1.3.5, 5.9.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// Meter first. Refused until there are meters.
    pub meter: Option<u32>,
    /// Carry these actions out now, in their order.
    pub apply: Vec<OfAction>,
    /// Empty the action set.
    pub clear: bool,
    /// Merge these into the action set.
    pub write: Vec<OfAction>,
    /// Write metadata: value and mask. Bits of the value outside the mask are listed as they were given, and not written.
    pub metadata: Option<(u64, u64)>,
    /// Go on in this table.
    pub goto: Option<u8>,
}

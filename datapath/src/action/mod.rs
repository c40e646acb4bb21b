//! What is done to frames: a flat list of actions, made once by a translation, carried out on every frame of a flow.
//!
//! All of OpenFlow's pipeline is gone here: reserved ports are resolved, the action set is merged, what a frame does not have is not
//! written. So executing needs no tables and no flow key, only the frame and its layout; and the key is not extracted again, because a
//! translation has already followed every change.
//!
//! Outputs are collected, not carried out: [`execute()`] lists a frame under each port it goes to, and the worker transmits the lists once per
//! batch. A listed frame must stay as it is, so an action that changes it changes a duplicate (copy on write). The usual list - one
//! output and nothing else - copies nothing.

mod execute;
mod outputs;
mod place;
mod set;
mod tags;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use execute::{Resume, Whole, execute, route};
pub use outputs::OutputSets;
pub use text::list as list_text;

use std::sync::Arc;

use crate::by_address::ByAddress;
use crate::drops::DropReason;
use crate::frame::Batch;
use crate::key::{Field, STATE_WORDS};
use crate::port::PortNo;
use crate::tables::FlowMod;
use crate::tables::meter::Meter;
use crate::translate::Continuation;

/// One step of what is done to a frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send the frame, as it is now, to an ordinary port or [`PortNo::LOCAL`].
    Output(PortNo),
    /// The same through one of the port's queues other than the default.
    Enqueue(PortNo, u32),
    /// Write the bits of `mask` of a field that the frame has. Checksums that cover the field follow.
    Set {
        /// Which field; never one of the pipeline's state.
        field: Field,
        /// The value, in its low bits.
        value: u128,
        /// The bits that are written, in its low bits.
        mask: u128,
    },
    /// Push a VLAN tag with this TPID. It copies the VLAN and priority of the tag outside of which it comes to lie; else they are zero.
    PushVlan(u16),
    /// Pop the outermost VLAN tag.
    PopVlan,
    /// Push an MPLS entry with this Ethernet type. It copies the label, traffic class and TTL of the entry outside of which it comes to lie, or else IP's TTL.
    PushMpls(u16),
    /// Pop the outermost MPLS entry, and give the frame this Ethernet type.
    PopMpls(u16),
    /// Push an I-TAG, and an Ethernet header with the frame's addresses outside of it. The I-TAG copies the I-SID of an I-TAG, or the priority of a VLAN tag, outside
    /// of which it comes to lie.
    PushPbb,
    /// Pop the outermost I-TAG and the Ethernet header outside of it.
    PopPbb,
    /// Copy the TTL of the header behind the outermost MPLS entry to that.
    CopyTtlOut,
    /// Copy the TTL of the outermost MPLS entry to the header behind it.
    CopyTtlIn,
    /// Decrement the TTL or hop limit. If it runs out, nothing more is done to the frame: it is given to the controllers, if they want
    /// such frames, or dropped.
    DecTtl {
        /// How to give a frame whose TTL ran out to the controllers; empty if they do not want it.
        expired: Box<[ToController]>,
    },
    /// The same with the TTL of the outermost MPLS entry.
    DecMplsTtl {
        /// As above.
        expired: Box<[ToController]>,
    },
    /// Measure the frame. If it comes too fast, nothing more is done to it, or its DSCP is changed.
    Meter(ByAddress<Meter>),
    /// Give the frame, as it is now, to the controllers.
    Controller(Box<ToController>),
    /// Do this to a copy of the frame; what follows is done to the frame as it is now.
    Copy(Box<[Action]>),
    /// Look at the frame anew, and go on with what was frozen. Nothing comes after it.
    Recirculate(ByAddress<Continuation>),
}

impl Action {
    /// Whether what follows finds the frame as it was.
    pub(crate) fn leaves_frame(&self) -> bool {
        matches!(self, Self::Output(_) | Self::Enqueue(..) | Self::Controller(_) | Self::Copy(_))
    }

    /// Whether it does anything if nothing follows.
    pub(crate) fn matters_at_the_end(&self) -> bool {
        match self {
            Self::DecTtl { expired } | Self::DecMplsTtl { expired } => !expired.is_empty(),
            Self::Meter(_) | Self::Recirculate(_) => true,
            action => action.leaves_frame(),
        }
    }
}

/// How a frame is given to the controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ToController {
    /// The bytes that they want of a frame that is buffered; one that is not, they get whole.
    pub max_len: u16,
    /// Why: one of the `OFPR_` constants below, or what an action of the rule says.
    pub reason: u8,
    /// Which controllers; zero for all without an id of their own.
    pub controller_id: u16,
    /// The table of the rule.
    pub table: u8,
    /// The rule's cookie; all ones if there is no rule (a packet-out, or a frame that none matched).
    pub cookie: u64,
    /// The words of a [`crate::key::Flow`] beyond its key, as the pipeline had set them: metadata and registers.
    pub state: [u64; STATE_WORDS],
    /// What the controller is to be given back with it.
    pub userdata: Arc<[u8]>,
    /// Measures the frames for controllers.
    pub meter: Option<ByAddress<Meter>>,
}

/// A table-miss rule matched (OpenFlow 1.3.5, 7.4.1), or none.
pub const OFPR_NO_MATCH: u8 = 0;
/// A rule's action says so.
pub const OFPR_ACTION: u8 = 1;
/// The TTL ran out.
pub const OFPR_INVALID_TTL: u8 = 2;

/// Takes the frames that actions give to the controllers.
pub trait Controllers {
    /// Takes a copy of as much of the frame in `slot` as `to` asks for. The error is why it was not taken.
    fn give(&mut self, batch: &Batch, slot: u16, to: &ToController) -> Result<(), DropReason>;

    /// Takes a rule that is to be added to the tables, because a frame came in through `in_port` that it is learned from. If it can't be taken, the next such
    /// frame brings it again.
    fn learn(&mut self, in_port: PortNo, rule: &Arc<FlowMod>);
}

/// Nobody to give frames to.
#[derive(Clone, Copy, Debug)]
pub struct NoControllers;

impl Controllers for NoControllers {
    fn give(&mut self, _: &Batch, _: u16, _: &ToController) -> Result<(), DropReason> {
        Err(DropReason::NoController)
    }

    fn learn(&mut self, _: PortNo, _: &Arc<FlowMod>) {}
}

/// What became of a frame, for the accounts of its ingress port. There is one for each frame, whatever the number of copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Listed for one port or more.
    Forwarded,
    /// Not forwarded, but given to a controller.
    Controller,
    /// Neither, and why.
    Dropped(DropReason),
}

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
#[cfg(test)]
pub(crate) mod tests;

pub use execute::execute;
pub use outputs::OutputSets;

use crate::drops::DropReason;
use crate::frame::Batch;
use crate::key::{Field, STATE_WORDS};
use crate::port::PortNo;

/// One step of what is done to a frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send the frame, as it is now, to an ordinary port or [`PortNo::LOCAL`].
    Output(PortNo),
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
    /// Decrement the TTL or hop limit. If it runs out, nothing more is done to the frame: it is given to the controllers, if they want
    /// such frames, or dropped.
    DecTtl {
        /// How to give a frame whose TTL ran out to the controllers; `None` if they do not want it.
        expired: Option<Box<ToController>>,
    },
    /// Give the frame, as it is now, to the controllers.
    Controller(Box<ToController>),
    /// Do this to a copy of the frame; what follows is done to the frame as it is now.
    Copy(Box<[Action]>),
}

/// How a frame is given to the controllers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToController {
    /// The bytes that they want of a frame that is buffered; one that is not, they get whole.
    pub max_len: u16,
    /// Why: one of the `OFPR_` constants below, or what an action of the rule says.
    pub reason: u8,
    /// Which controllers; zero for all without an id of their own.
    pub controller_id: u16,
    /// The table of the rule.
    pub table: u8,
    /// The rule's cookie; all ones if there is no rule (a packet-out).
    pub cookie: u64,
    /// The words of a [`crate::key::Flow`] beyond its key, as the pipeline had set them: metadata and registers.
    pub state: [u64; STATE_WORDS],
}

/// A table-miss rule matched (OpenFlow 1.3.5, 7.4.1).
pub const OFPR_NO_MATCH: u8 = 0;
/// A rule's action says so.
pub const OFPR_ACTION: u8 = 1;
/// The TTL ran out.
pub const OFPR_INVALID_TTL: u8 = 2;

/// Takes the frames that actions give to the controllers.
pub trait Controllers {
    /// Takes a copy of as much of the frame in `slot` as `to` asks for. The error is why it was not taken.
    fn give(&mut self, batch: &Batch, slot: u16, to: &ToController) -> Result<(), DropReason>;
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

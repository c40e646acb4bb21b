//! Nicira's extensions, as Open vSwitch has them (its `include/openflow/nicira-ext.h` and `lib/ofp-actions.c` describe them): actions, and messages.
//!
//! They are the same in all versions of OpenFlow, but for the actions in a clone, which are those of the version.

mod actions;
mod learn;
mod messages;

pub(super) use actions::{decode_action, put_action};
pub(super) use messages::{SET_FLOW_FORMAT, decode_message, put_message};

/// Nicira's experimenter id.
pub const NICIRA: u32 = 0x0000_2320;

//! The harness of the scenarios: fake guests, real guests, and the switch and its controllers as child processes.
//!
//! It panics, with what went wrong and what to look at, where a test can't go on. Whatever it starts lives in a temporary
//! directory of its own and ends with its owner, so that scenarios can run side by side.

pub mod barrier;
pub mod controllers;
pub mod driver;
pub mod flows;
pub mod frontend;
pub mod generate;
pub mod guest;
pub mod hosts;
pub mod hub;
pub mod lab;
pub mod linear;
pub mod meet;
pub mod namespace;
pub mod offload;
pub mod open_vswitch;
pub mod openflow;
pub mod pair;
pub mod pki;
pub mod ports;
pub mod process;
pub mod random;
pub mod recorder;
pub mod reference;
pub mod rig;
pub mod small_switch;
pub mod stats;
pub mod switch;
pub mod target;
pub mod uplink;
pub mod wheel;

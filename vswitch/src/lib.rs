//! The appliance as a library: what the binary is made of, so that tests can reach its parts.

pub mod cli;
pub mod config;
pub mod event;
pub mod openflow;

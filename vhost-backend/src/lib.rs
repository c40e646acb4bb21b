//! A virtio-net back end over vhost-user.
//!
//! This crate knows nothing of OpenFlow: it turns the rings of a guest into the datapath's [`datapath::port`] traits.

// Until rx and tx use the walker.
#![allow(dead_code)]

pub mod memory;
pub mod ring;
pub mod rx;
pub mod slot;
pub mod tx;

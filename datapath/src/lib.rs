//! The forwarding engine of `vswitch`.
//!
//! It has no I/O, no clock and no threads of its own: frames and time come in as arguments, so that all of it can be
//! simulated from a seed. It knows nothing of vhost, of sockets, of OpenFlow's bytes. What needs `unsafe` is done in [`memory`]; [`frame`] hands its promise on.
//!
//! A frame's way: a port's [`port::RxQueue`] fills a [`frame::Batch`]; [`key`] makes a flow key of each frame's head; [`cache`] finds the
//! megaflow, or [`translate`] makes one from the published [`tables`]; [`action`] carries out its actions and groups the
//! frames by output; each [`port::Output`] is given its frames in one call. [`worker`] is that loop.

pub mod action;
pub mod by_address;
pub mod cache;
pub mod classifier;
pub mod drops;
pub mod frame;
pub mod key;
pub mod memory;
pub mod offload;
pub mod port;
pub mod tables;
pub mod translate;
pub mod wire;
pub mod worker;

/// Nanoseconds since an arbitrary start, never going back. A parameter of this type is named `now`.
pub type Nanos = u64;

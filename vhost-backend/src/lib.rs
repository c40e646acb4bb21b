//! A virtio-net back end over vhost-user.
//!
//! This crate knows nothing of OpenFlow: it turns the rings of a guest into the datapath's [`datapath::port`] traits. It opens no socket and starts no
//! thread either: a [`Port`] is given sockets, is told when they are readable, and says what happens through its [`Events`].

mod device;
pub mod features;
pub mod memory;
pub mod offload;
mod port;
mod queue;
pub mod ring;
pub mod rx;
mod session;
pub mod slot;
pub mod tx;

pub use port::{Events, Port, Progress, Settings};
pub use session::Session;

//! A virtio-net back end over vhost-user.
//!
//! This crate knows nothing of OpenFlow: it turns the rings of a guest into the datapath's [`datapath::port`] traits.

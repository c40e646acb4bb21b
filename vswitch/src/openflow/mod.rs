//! OpenFlow 1.3 and 1.0: their messages as bytes and as types ([`wire`]), the connections they come over ([`stream`], [`tls`], [`connection`], [`session`]), and the
//! agent that does what they say ([`agent`]).

pub mod agent;
mod assembly;
mod connection;
mod dump;
mod packet_in_queue;
mod session;
pub mod stream;
pub mod tls;
pub mod wire;

#[cfg(test)]
mod tests;

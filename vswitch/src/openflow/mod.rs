//! OpenFlow 1.3: its messages as bytes and as types ([`wire`]), the connections they come over ([`connection`], [`session`]), and the agent that
//! does what they say ([`agent`]).

pub mod agent;
mod connection;
mod session;
pub mod wire;

#[cfg(test)]
mod tests;

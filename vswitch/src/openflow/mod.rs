//! OpenFlow 1.3: its messages as bytes and as types ([`wire`]).

pub mod wire;

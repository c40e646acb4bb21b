//! OpenFlow 1.3: its messages as bytes and as types ([`wire`]), and what its agent needs of the switch ([`datapath`]).

pub mod datapath;
pub mod wire;

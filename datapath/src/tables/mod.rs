//! What the controllers said: flow tables, ports and learned addresses, published to the workers as one snapshot.

pub mod instruction;

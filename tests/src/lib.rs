//! The harness of the scenarios: fake guests, real guests, and the switch as a child process.

pub mod driver;
pub mod frontend;
pub mod hub;

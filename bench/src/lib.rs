//! Measures vswitch and the switches that it wants to surpass, in turn, under the same load.
//!
//! [`traffic`] is the load: one thread that plays two guests, from [`guest`] (their ports) and [`frames`] (what they send). A [`peer`] is a switch that
//! can be started and asked what it did. A [`case`] says which rules and which load; [`run`] measures one switch in one case, and then all of
//! them in turn; [`report`] writes down what came out. [`stages`] are for who wants to see, without a second CPU, where the instructions go.

pub mod case;
pub mod error;
pub mod frames;
pub mod guest;
pub mod histogram;
pub mod host;
pub mod memory;
pub mod peer;
pub mod report;
pub mod rules;
pub mod run;
pub mod stages;
pub mod traffic;

//! What the OpenFlow agent needs of the switch that it speaks for, and how the switch drives the agent.
//!
//! The agent edits a draft of the tables ([`Datapath::tables`]); nothing of it is seen by the workers before [`Datapath::publish`]. All of it
//! happens on the control thread, in calls of the switch: a connection is handed in, its descriptor is ready, a port changed, a packet-in
//! came, rules expired, time passed. The switch accepts and makes connections, with back-off; the agent has them until they end.

use datapath::Nanos;
use datapath::port::PortNo;
use datapath::tables::Tables;
use datapath::tables::instruction::OfAction;

/// The switch, as the agent sees it.
pub trait Datapath {
    /// The time now.
    fn now(&self) -> Nanos;

    /// The draft of the tables.
    fn tables(&mut self) -> &mut Tables;

    /// Hands the draft to the workers, which take it up at their next breath.
    fn publish(&mut self);

    /// Waits until every worker forwards by the tables published last, and by no older ones. Takes at most one breath.
    fn barrier(&mut self);

    /// Brings the counters of all rules up to date with what the workers have forwarded until now.
    fn settle(&mut self);

    /// Carries out a packet-out: `actions` on `frame` as if it had come in through `in_port`.
    fn packet_out(&mut self, in_port: PortNo, frame: &[u8], actions: &[OfAction]);
}

/// Whom a connection is with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody who connected to a listener.
    Client,
    /// A controller that the switch was told to connect to; named in the log.
    Controller(crate::config::ControllerTarget),
}

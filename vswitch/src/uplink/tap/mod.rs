//! Taps: the host's own leg of the switch, and the one of a guest without vhost-user.
//!
//! A tap is a network device of the host whose wire is a descriptor: what the host sends through it is read from there, and what is written there the host
//! receives. Before each frame lies virtio-net's header, so that checksums and segments to be are passed on both ways as they are between guests: a 64 KiB
//! segment that the host's TCP made reaches a guest whole, and the other way round.
//!
//! **The exception.** The kernel takes and gives one frame with each system call, and carries a frame that is written through its whole receive path before the
//! call returns. So a tap costs a worker microseconds for a frame, where a guest costs tens of nanoseconds. Taps are for the host's own traffic,
//! which TCP hands over in large segments; to keep a quiet tap from costing anything, its queues rest ([`RxQueue::is_costly`]).
//!
//! One copy is the kernel's, between its memory and ours; from ours a frame is copied once to where it goes. What comes from a guest is written from the guest's
//! memory straight away.
//!
//! [`RxQueue::is_costly`]: datapath::port::RxQueue::is_costly

mod open;
mod queue;

pub use open::{Abilities, TapError, open};
pub use queue::queue;

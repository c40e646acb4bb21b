//! Frames on their way from the workers to the controllers.
//!
//! A worker hands a copy over and goes on; the control thread takes all that came whenever it is woken. Each ingress port may have only so many
//! frames under way on each worker, whatever the others do: a guest that floods the controllers fills its own share, not the queue.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use datapath::action::{Controllers, ToController};
use datapath::drops::DropReason;
use datapath::frame::Batch;
use datapath::port::PortNo;
use rustix::event::{EventfdFlags, eventfd};

/// The most frames of one port that are under way from one worker.
const SHARE: u32 = 64;

/// A frame for the controllers.
#[derive(Debug)]
pub struct PacketIn {
    /// The port that it came in through.
    pub in_port: PortNo,
    /// Why, from which rule, with what state.
    pub to: ToController,
    /// The whole frame, whatever `to.max_len` says: that is how much of a buffered frame a controller wants, and nothing is buffered here.
    /// A controller sends these bytes on.
    pub data: Vec<u8>,
    /// Its length.
    pub total_len: usize,
    /// Held until the frame is gone.
    _place: Place,
}

/// A place in a port's share, given back when the frame is gone.
#[derive(Debug)]
struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Shared {
    wake: OwnedFd,
    /// Whether the control thread was woken and has not looked yet.
    woken: AtomicBool,
    /// Whether there is a controller to take frames.
    wanted: AtomicBool,
}

/// The control thread's end.
#[derive(Debug)]
pub struct PacketIns {
    shared: Arc<Shared>,
    sender: Sender<PacketIn>,
    receiver: Receiver<PacketIn>,
}

/// A worker's end.
#[derive(Debug)]
pub struct PacketInSender {
    shared: Arc<Shared>,
    sender: Sender<PacketIn>,
    under_way: HashMap<PortNo, Arc<AtomicU32>>,
}

impl PacketIns {
    /// A queue without senders.
    pub fn new() -> rustix::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (sender, receiver) = channel();
        Ok(Self { shared: Arc::new(Shared { wake, woken: AtomicBool::new(false), wanted: AtomicBool::new(false) }), sender, receiver })
    }

    /// An end for one worker.
    pub fn sender(&self) -> PacketInSender {
        PacketInSender { shared: self.shared.clone(), sender: self.sender.clone(), under_way: HashMap::new() }
    }

    /// Says whether there is a controller to take frames. Without one they are dropped by the workers.
    pub fn set_wanted(&self, wanted: bool) {
        self.shared.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Takes up to `most` frames that have come.
    pub fn take(&self, most: usize) -> Vec<PacketIn> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        self.shared.woken.store(false, Ordering::Release);
        let taken: Vec<_> = self.receiver.try_iter().take(most).collect();
        if taken.len() == most {
            self.shared.wake();
        }
        taken
    }
}

impl AsFd for PacketIns {
    /// Readable when frames have come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}

impl Shared {
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // It fails only if it is readable already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

impl Controllers for PacketInSender {
    fn give(&mut self, batch: &Batch, slot: u16, to: &ToController) -> Result<(), DropReason> {
        if !self.shared.wanted.load(Ordering::Relaxed) {
            return Err(DropReason::NoController);
        }
        let frame = batch.frame(slot);
        let under_way = self.under_way.entry(frame.in_port).or_default();
        if under_way.load(Ordering::Relaxed) >= SHARE {
            return Err(DropReason::ControllerQueueFull);
        }
        under_way.fetch_add(1, Ordering::Relaxed);
        let packet_in = PacketIn {
            in_port: frame.in_port,
            to: to.clone(),
            data: batch.to_vec(slot, usize::MAX),
            total_len: frame.len(),
            _place: Place(under_way.clone()),
        };
        self.sender.send(packet_in).map_err(|_| DropReason::NoController)?;
        self.shared.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datapath::frame::Offload;
    use datapath::key::STATE_WORDS;

    use super::*;

    #[test]
    fn a_flooding_port_fills_its_own_share_only() {
        let packet_ins = PacketIns::new().expect("an eventfd");
        let mut sender = packet_ins.sender();
        let to = ToController { max_len: 20, reason: 1, controller_id: 0, table: 0, cookie: 0, state: [0; STATE_WORDS] };
        let mut batch = Batch::new();
        let flooder = batch.push_bytes(PortNo(1), Offload::default(), &[1; 60]);
        let other = batch.push_bytes(PortNo(2), Offload::default(), &[2; 60]);
        assert_eq!(sender.give(&batch, flooder, &to), Err(DropReason::NoController));

        packet_ins.set_wanted(true);
        for _ in 0..SHARE {
            assert_eq!(sender.give(&batch, flooder, &to), Ok(()));
        }
        assert_eq!(sender.give(&batch, flooder, &to), Err(DropReason::ControllerQueueFull));
        assert_eq!(sender.give(&batch, other, &to), Ok(()));

        let first = packet_ins.take(10);
        assert_eq!(first.len(), 10);
        assert_eq!((first[0].data.as_slice(), first[0].total_len), (&[1; 60][..], 60));
        drop(first);
        assert_eq!(sender.give(&batch, flooder, &to), Ok(()));
        let rest = packet_ins.take(1000);
        assert_eq!(rest.len() as u32, SHARE - 10 + 2);
        assert_eq!(rest[SHARE as usize - 10].in_port, PortNo(2));
    }
}

//! Frames on their way from the workers to the controllers, and rules on their way to the tables that workers learn from frames.
//!
//! A worker hands a copy over and goes on; the control thread takes all that came whenever it is woken. Each ingress port may have only so many
//! frames, and so many rules, under way on each worker, whatever the others do: a guest that floods the controllers fills its own share, not the queue.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use datapath::action::{Controllers, ToController};
use datapath::drops::DropReason;
use datapath::frame::Batch;
use datapath::port::PortNo;
use datapath::tables::FlowMod;
use rustix::event::{EventfdFlags, eventfd};

/// The most frames of one port that are under way from one worker; and the most rules.
const SHARE: u32 = 64;

/// What comes from a worker.
#[derive(Debug)]
pub enum FromWorker {
    /// A frame for the controllers.
    PacketIn(PacketIn),
    /// A rule that is to be added.
    Learned(Learned),
}

/// A rule that was learned from a frame.
#[derive(Debug)]
pub struct Learned {
    /// The rule.
    pub rule: Arc<FlowMod>,
    /// Held until the rule is gone.
    _place: Place,
}

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

/// How much of a port's share is used.
#[derive(Debug, Default)]
struct Share(Arc<AtomicU32>);

impl Share {
    /// A place, if there is one left.
    fn place(&self) -> Option<Place> {
        if self.0.load(Ordering::Relaxed) >= SHARE {
            return None;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Some(Place(self.0.clone()))
    }
}

/// A place in a port's share, given back when what had it is gone.
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
    sender: Sender<FromWorker>,
    receiver: Receiver<FromWorker>,
}

/// A worker's end.
#[derive(Debug)]
pub struct PacketInSender {
    shared: Arc<Shared>,
    sender: Sender<FromWorker>,
    frames: HashMap<PortNo, Share>,
    rules: HashMap<PortNo, Share>,
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
        PacketInSender { shared: self.shared.clone(), sender: self.sender.clone(), frames: HashMap::new(), rules: HashMap::new() }
    }

    /// Says whether there is a controller to take frames. Without one they are dropped by the workers.
    pub fn set_wanted(&self, wanted: bool) {
        self.shared.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Takes up to `most` frames and rules that have come.
    pub fn take(&self, most: usize) -> Vec<FromWorker> {
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
        let place = self.frames.entry(frame.in_port).or_default().place().ok_or(DropReason::ControllerQueueFull)?;
        let packet_in = PacketIn {
            in_port: frame.in_port,
            to: to.clone(),
            data: batch.to_vec(slot, usize::MAX),
            total_len: frame.len(),
            _place: place,
        };
        self.sender.send(FromWorker::PacketIn(packet_in)).map_err(|_| DropReason::NoController)?;
        self.shared.wake();
        Ok(())
    }

    fn learn(&mut self, in_port: PortNo, rule: &Arc<FlowMod>) {
        let Some(place) = self.rules.entry(in_port).or_default().place() else { return };
        // It fails only when the switch ends.
        let _ = self.sender.send(FromWorker::Learned(Learned { rule: rule.clone(), _place: place }));
        self.shared.wake();
    }
}

#[cfg(test)]
mod tests {
    use datapath::frame::Offload;

    use super::*;

    #[test]
    fn a_flooding_port_fills_its_own_share_only() {
        let packet_ins = PacketIns::new().expect("an eventfd");
        let mut sender = packet_ins.sender();
        let to = ToController { max_len: 20, reason: 1, ..ToController::default() };
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

        let taken = |most| {
            let frame = |from| if let FromWorker::PacketIn(packet_in) = from { Some(packet_in) } else { None };
            packet_ins.take(most).into_iter().filter_map(frame).collect::<Vec<_>>()
        };
        let first = taken(10);
        assert_eq!(first.len(), 10);
        assert_eq!((first[0].data.as_slice(), first[0].total_len), (&[1; 60][..], 60));
        drop(first);
        assert_eq!(sender.give(&batch, flooder, &to), Ok(()));
        let rest = taken(1000);
        assert_eq!(rest.len() as u32, SHARE - 10 + 2);
        assert_eq!(rest[SHARE as usize - 10].in_port, PortNo(2));
    }

    #[test]
    fn what_is_learned_has_a_share_of_its_own_and_needs_no_controller() {
        let from_workers = PacketIns::new().expect("an eventfd");
        let mut sender = from_workers.sender();
        let rule = Arc::new(FlowMod::default());
        (0..2 * SHARE).for_each(|_| sender.learn(PortNo(1), &rule));
        sender.learn(PortNo(2), &rule);
        let taken = from_workers.take(1000);
        assert_eq!(taken.len() as u32, SHARE + 1);
        assert!(taken.iter().all(|from| matches!(from, FromWorker::Learned(learned) if Arc::ptr_eq(&learned.rule, &rule))));
        drop(taken);
        sender.learn(PortNo(1), &rule);
        assert_eq!(from_workers.take(1000).len(), 1);
    }
}

//! Frames between two ports that the flow-mods say nothing of.
//!
//! A burst is sent, and the next when that came out, after a pause: so no ring overflows because somebody was not scheduled, and what is lost, the switch lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use std::sync::Arc;

use tests::barrier::udp_frame;
use tests::driver::NetHeader;
use tests::frontend::{Guest, Options};
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

/// The frames of a burst.
const BURST: u32 = 32;
/// Between a burst and the next.
const PAUSE: Duration = Duration::from_micros(500);
/// Frames that take longer are lost.
const LOST: Duration = Duration::from_secs(5);
/// The flows that the frames are of.
const FLOWS: u32 = 1024;

/// What became of the frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    pub sent: u64,
    pub lost: u64,
    /// The longest that a burst took.
    pub longest: Duration,
}

/// Frames that go on until they are asked about.
pub struct Frames {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Fate>,
}

impl Frames {
    /// Begins to send frames from port `vm1` of a switch to its port `vm2`.
    pub fn start(switch: &Switch) -> Frames {
        let sockets = ["vm1.sock", "vm2.sock"].map(|name| switch.path(name));
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = spawn(move || {
            let [mut sender, mut receiver] =
                sockets.map(|socket| Guest::connect(&socket, Options::default()).expect("the switch takes a guest"));
            let (mut fate, mut bursts) = (Fate::default(), 0);
            while !ends.load(Ordering::Relaxed) {
                let came = burst(&mut sender, &mut receiver, bursts, &mut fate.longest);
                fate.sent += u64::from(BURST);
                fate.lost += u64::from(BURST) - came;
                bursts += 1;
                sleep(PAUSE);
            }
            fate
        });
        Frames { over, thread }
    }

    /// Ends them.
    pub fn end(self) -> Fate {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the frames' thread does not panic")
    }
}

/// Sends a burst, and waits until it came out. Returns how many frames did.
fn burst(sender: &mut Guest, receiver: &mut Guest, number: u32, longest: &mut Duration) -> u64 {
    let queue = sender.transmitter(0);
    for i in 0..BURST {
        let frame = udp_frame((number * BURST + i) % FLOWS, number);
        until(PATIENCE, "the switch gives buffers back", || queue.push(NetHeader::default(), &frame).then_some(()));
    }
    let start = Instant::now();
    queue.ring.publish_and_kick();
    let mut came = 0;
    while came < u64::from(BURST) && start.elapsed() < LOST {
        came += receiver.receive(0).len() as u64;
        std::thread::yield_now();
    }
    *longest = (*longest).max(start.elapsed());
    came
}

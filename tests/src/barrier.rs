//! A rule changes, and frames are sent the moment the barrier reply arrives: which rules do they go by?
//!
//! A guest on port 1 sends frames of many flows to guests on ports 2 and 3. A rule in table 0 copies a frame's UDP ports to a register, so that each flow
//! is cached by itself; one in table 1 says where they all go. Each round changes table 1 in one of four ways, so that what went to the one port goes
//! to the other. A frame says when it was sent, so that the port where it comes out says by which rules it went.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use datapath::key::Match;
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, FlowModCommand};
use etherparse::PacketBuilder;
use vswitch::openflow::wire::{FlowModMessage, Message, NO_BUFFER};

use crate::driver::NetHeader;
use crate::frontend::Guest;
use crate::openflow::Client;
use crate::process::{PATIENCE, until};

const RULES: &str =
    "priority=10,udp,actions=move:NXM_OF_UDP_SRC[]->NXM_NX_REG0[0..15],move:NXM_OF_UDP_DST[]->NXM_NX_REG0[16..31],goto_table:1
table=1,priority=10,actions=output:2
";
/// The frames that are sent at once through each queue pair.
const BURST: u32 = 32;
/// How long it is before a warm-up looks for frames again.
const PAUSE: Duration = Duration::from_micros(100);
/// Where a frame has its payload, the number of its burst.
const PAYLOAD: usize = 14 + 20 + 8;

/// See the module.
#[derive(Debug)]
pub struct Rounds {
    sender: Guest,
    /// On ports 2 and 3.
    receivers: [Guest; 2],
    switch: Client,
    /// How many flows there are.
    flows: u32,
    /// The flow that is next.
    next: u32,
    /// The bursts so far.
    bursts: u32,
    /// The rounds so far.
    rounds: usize,
    /// How long frames may take to come out, and old rules to be forgotten.
    patience: Duration,
}

/// What happened in a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// From the change until the barrier reply.
    pub latency: Duration,
    /// The frames that were sent right after the reply.
    pub sent: usize,
    /// Those of them that went by the rules of before.
    pub stale: usize,
    /// Those of them that did not come out.
    pub lost: usize,
    /// From the reply until frames of those flows were sent that all went by the new rules; zero if the first did.
    pub stale_for: Duration,
}

impl Rounds {
    /// Sets up the switch that listens for OpenFlow on the socket `openflow`, and whose ports 1 to 3 these guests are on. Frames that take longer than
    /// `patience` are lost.
    ///
    /// # Panics
    ///
    /// Panics if the switch refuses something.
    pub fn new(openflow: &Path, [sender, two, three]: [Guest; 3], flows: u32, patience: Duration) -> Self {
        let target = format!("unix:{}", openflow.display());
        let rules = tempfile::NamedTempFile::new().expect("there is room for a temporary file");
        std::fs::write(rules.path(), RULES).expect("a file takes the rules");
        let replaced =
            Command::new("ovs-ofctl").args(["-O", "OpenFlow13", "-t", "60", "replace-flows", &target]).arg(rules.path()).output();
        let replaced = replaced.unwrap_or_else(|error| panic!("ovs-ofctl does not start ({error}): run scripts/setup"));
        assert!(replaced.status.success(), "ovs-ofctl replace-flows: {}", String::from_utf8_lossy(&replaced.stderr));
        Self { sender, receivers: [two, three], switch: Client::connect(openflow), flows, next: 0, bursts: 0, rounds: 0, patience }
    }

    /// Sends two frames of each flow, one after the other, which has a switch cache it if anything does.
    pub fn warm_up(&mut self) {
        for _ in 0..self.flows.div_ceil(self.burst_size() as u32 / 2) {
            self.stage(self.next, 2);
            self.send();
            // The switch has other work to do meanwhile.
            self.collect(|| std::thread::sleep(PAUSE));
        }
    }

    /// Changes the rules, sends frames the moment the barrier reply arrives, and further ones of the same flows until they go by the new rules.
    ///
    /// # Panics
    ///
    /// Panics if the switch refuses the change.
    pub fn round(&mut self) -> Round {
        let first = self.next;
        let (change, goes_to) = change(self.rounds);
        self.rounds += 1;
        self.stage(first, 1);
        let start = Instant::now();
        self.switch.carry_out(vec![change]);
        let replied = Instant::now();
        self.send();
        let mut went = self.collect(std::thread::yield_now);
        let (sent, stale) = (self.burst_size(), went[1 - goes_to]);
        let lost = sent - went[0] - went[1];
        let mut stale_for = Duration::ZERO;
        while went[1 - goes_to] > 0 && stale_for < self.patience {
            self.stage(first, 1);
            stale_for = replied.elapsed();
            self.send();
            went = self.collect(std::thread::yield_now);
        }
        Round { latency: replied - start, sent, stale, lost, stale_for }
    }

    fn burst_size(&self) -> usize {
        BURST as usize * self.sender.pairs()
    }

    /// Writes a burst into the rings without a word to the switch: so many frames of each flow, from this one on.
    fn stage(&mut self, from: u32, of_each: u32) {
        self.bursts += 1;
        let pairs = self.sender.pairs() as u32;
        for flow in (from..from + BURST * pairs / of_each).map(|flow| flow % self.flows) {
            let frame = udp_frame(flow, self.bursts);
            // A flow keeps to its queue.
            let queue = self.sender.transmitter((flow % pairs) as usize);
            for _ in 0..of_each {
                until(PATIENCE, "the switch gives buffers back", || queue.push(NetHeader::default(), &frame).then_some(()));
            }
        }
        self.next = (from + BURST * pairs / of_each) % self.flows;
    }

    /// Has the switch see what was staged.
    fn send(&mut self) {
        for pair in 0..self.sender.pairs() {
            self.sender.transmitter(pair).ring.publish_and_kick();
        }
    }

    /// Waits for the frames of the last burst, with a pause between two looks, and says how many came out on ports 2 and 3.
    fn collect(&mut self, pause: impl Fn()) -> [usize; 2] {
        let (start, size, burst) = (Instant::now(), self.burst_size(), self.bursts.to_be_bytes());
        let mut went = [0; 2];
        loop {
            for (guest, went) in self.receivers.iter_mut().zip(&mut went) {
                for pair in 0..guest.pairs() {
                    let frames = guest.receive(pair);
                    *went += frames.iter().filter(|frame| frame[PAYLOAD..PAYLOAD + 4] == burst).count();
                }
            }
            if went[0] + went[1] == size || start.elapsed() > self.patience {
                return went;
            }
            pause();
        }
    }
}

/// The change of a round, and the receiver that frames go to from then on.
fn change(round: usize) -> (Message, usize) {
    let (command, priority, goes_to) = match round % 4 {
        0 => (FlowModCommand::Add, 20, 1),
        1 => (FlowModCommand::DeleteStrict, 20, 0),
        2 => (FlowModCommand::ModifyStrict, 10, 1),
        _ => (FlowModCommand::ModifyStrict, 10, 0),
    };
    let output = OfAction::Output { port: PortNo(2 + goes_to as u32), max_len: 0 };
    let instructions = match command {
        FlowModCommand::DeleteStrict => Instructions::default(),
        _ => Instructions { apply: [output].into(), ..Instructions::default() },
    };
    let flow_mod = FlowMod { command, table: 1, matching: Match::ANY, priority, instructions, ..FlowMod::default() };
    (Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER })), goes_to)
}

/// A UDP frame of a flow, with the number of its burst.
pub fn udp_frame(flow: u32, burst: u32) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let udp = ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp((flow >> 16) as u16, flow as u16);
    let mut frame = Vec::new();
    udp.write(&mut frame, &burst.to_be_bytes()).expect("a vector takes all");
    frame
}

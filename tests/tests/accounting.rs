//! Every frame has one counted outcome, and the sums agree exactly: fake guests behind real vhost-user sessions and rings, real workers, random rules
//! and random frames, some of which are none; guests that stop giving buffers, disable queues, break their rings, disconnect and come back.
//!
//! A recorder between each queue and its worker notes what the worker gets, in the order in which it gets it. What the guests gave must be what was
//! recorded; what the ports and rules count must be what the linear reference makes of it; and what the guests receive must be that, too, byte for
//! byte, less what was counted as dropped.
//!
//! `VSWITCH_FRAMES` sets the number of frames (60,000 unless said otherwise), `VSWITCH_SEED` the seed of the first history.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use datapath::action::{Controllers, ToController};
use datapath::cache::CacheLimits;
use datapath::drops::{DropReason, TxDrop};
use datapath::frame::Batch;
use datapath::key::{Field, Match};
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction};
use datapath::tables::{FlowMod, PortConfig, PortTotals, RuleFilter};
use datapath::worker::Worker;
use tests::driver::{Buffer, F_EVENT_IDX, F_INDIRECT, F_MRG_RXBUF, NetHeader};
use tests::frontend::{F_ALL, F_OFFLOADS, Options};
use tests::generate::{PORTS, Subject, TABLES, flow_mod, frame_of, group_mod, meter_mod, random_priority, setting, vlan_of};
use tests::linear::{LinearPort, LinearSwitch, RuleCounts};
use tests::offload::{canonical, completed, follows, payload, put_together, tcp, undo_checksum};
use tests::random::Random;
use tests::recorder::{Record, Recorder};
use tests::rig::Rig;

/// What a guest put into one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    /// A frame, with its checksums complete.
    Frame(Vec<u8>),
    /// What is not a frame.
    Rejected(DropReason),
    /// What breaks the ring.
    Broken,
}

/// Refuses every third frame.
#[derive(Default)]
struct BusyControllers(u64);

impl BusyControllers {
    fn takes(&mut self) -> bool {
        self.0 += 1;
        !self.0.is_multiple_of(3)
    }
}

impl Controllers for BusyControllers {
    fn give(&mut self, _: &Batch, _: u16, _: &ToController) -> Result<(), DropReason> {
        if self.takes() { Ok(()) } else { Err(DropReason::ControllerQueueFull) }
    }

    fn learn(&mut self, _: PortNo, _: &Arc<FlowMod>) {}
}

/// A guest and what it did.
struct Player {
    /// The chains of each transmit queue, in order.
    given: Vec<Vec<Given>>,
    /// The frames that came, with their headers, by queue; to be looked at.
    received: Vec<Vec<(NetHeader, Vec<u8>)>>,
    /// It does not give buffers back.
    mute: bool,
    connected: bool,
    /// The copies that were sent to its port, by their bytes: those that did not come yet were dropped, or lie in a ring.
    copies: HashMap<Vec<u8>, u64>,
    copy_count: u64,
    came: u64,
    came_bytes: u64,
    expected: PortTotals,
}

struct History {
    random: Random,
    rig: Rig,
    players: Vec<Player>,
    reference: LinearSwitch,
    rule_counts: RuleCounts,
    records: Vec<Arc<Mutex<Record>>>,
    /// How far each record was looked at, and the controllers of its worker.
    seen: Vec<(usize, BusyControllers)>,
    priority: u16,
    serial: u64,
    /// The frames to be segmented, by their serial number: bytes of payload in a segment.
    segmented: HashMap<u64, usize>,
    /// NORMAL's learning and meters depend on the order of frames, which two workers do not promise.
    ordered: bool,
    /// Groups, or frames whose TTL runs out: see [`Subject::All`].
    subject: Subject,
}

impl History {
    fn new(seed: u64, workers: usize) -> (Self, Vec<Worker>) {
        let mut random = Random::new(seed);
        let options: Vec<_> = (0..PORTS).map(|_| options(&mut random)).collect();
        let rig = Rig::new(&options, workers, vlan_of);
        let limits = CacheLimits { admission: random.once_in(2), microflows: 1 << random.below(9), ..CacheLimits::default() };
        let records: Vec<Arc<Mutex<Record>>> = (0..workers).map(|_| Arc::default()).collect();
        let mut all: Vec<_> = (0..workers).map(|number| rig.worker(number, limits, Box::new(BusyControllers::default()))).collect();
        for (port, queue) in rig.queues() {
            let worker = random.below(workers as u64) as usize;
            all[worker].add_input(port, Box::new(Recorder { queue, port, record: records[worker].clone() }));
        }
        let players = options.iter().map(|options| Player {
            given: vec![Vec::new(); options.queue_pairs],
            received: vec![Vec::new(); options.queue_pairs],
            mute: false,
            connected: true,
            copies: HashMap::new(),
            copy_count: 0,
            came: 0,
            came_bytes: 0,
            expected: PortTotals::default(),
        });
        let history = Self {
            players: players.collect(),
            rig,
            reference: LinearSwitch::new((1..=PORTS).map(|no| LinearPort::new(PortNo(no), vlan_of(no))).collect()),
            rule_counts: RuleCounts::default(),
            seen: records.iter().map(|_| Default::default()).collect(),
            records,
            priority: 0,
            serial: 0,
            segmented: HashMap::new(),
            ordered: workers == 1,
            subject: random.one_of(&[Subject::Usual, Subject::All]),
            random,
        };
        (history, all)
    }

    fn player(&mut self) -> usize {
        self.random.below(self.players.len() as u64) as usize
    }

    /// Changes rules, ports and guests while there is no traffic.
    fn change(&mut self, round: usize, workers: &mut [Worker]) {
        workers.iter_mut().for_each(Worker::settle);
        if round.is_multiple_of(3) && !self.random.once_in(4) {
            // Frames that nothing else is said of get further than the first table.
            let output = |port| OfAction::Output { port, max_len: 0 };
            let flood = output(if self.ordered { PortNo::NORMAL } else { PortNo::FLOOD });
            let ether_type = |number| Match::ANY.with(Field::EthType, number);
            let rules = [
                (Match::ANY, vec![flood]),
                (ether_type(0x0800), vec![OfAction::DecNwTtl, output(PortNo::ALL)]),
                (ether_type(0x88b5), vec![output(PortNo::CONTROLLER)]),
            ];
            for ((matching, apply), priority) in rules.into_iter().zip(0..) {
                let instructions = Instructions { apply: apply.into(), ..Instructions::default() };
                let flow_mod = FlowMod { matching, priority, instructions, ..FlowMod::default() };
                assert!(self.rule_counts.carry_out(&mut self.rig.draft, &flow_mod));
            }
        }
        let changes = if round == 0 { 8 } else { self.random.below(3) };
        self.change_groups_and_meters(changes);
        for _ in 0..if round == 0 { 25 } else { self.random.below(3) } {
            self.priority += 1;
            let rules: Vec<_> = self.rig.draft.rules(&RuleFilter::ALL).cloned().collect();
            let flow_mod = flow_mod(&mut self.random, self.subject, &rules, random_priority(self.priority));
            if (self.ordered || !uses_normal(&flow_mod)) && (self.subject == Subject::Usual || !pushes_or_pops(&flow_mod)) {
                self.rule_counts.carry_out(&mut self.rig.draft, &flow_mod);
            }
        }
        self.reference.rules = self.rig.draft.rules(&RuleFilter::ALL).cloned().collect();
        let no = PortNo(self.player() as u32 + 1);
        if self.random.once_in(3) {
            let choices = [PortConfig::PORT_DOWN, PortConfig::NO_RECV, PortConfig::NO_FWD, PortConfig::NO_FLOOD];
            let config = self.random.one_of(&[PortConfig::default(), PortConfig::default(), self.random.clone().one_of(&choices)]);
            let hw_addr = self.rig.draft.ports().get(no).expect("it is there").hw_addr;
            self.rig.draft.modify_port(no, hw_addr, config, PortConfig::ALL).expect("a port-mod");
            self.reference.port(no).config = config;
        }
        if self.random.once_in(8) {
            let up = !self.random.once_in(3);
            self.rig.draft.set_link(no, up).expect("the port is there");
            self.reference.port(no).link_up = up;
        }
        // A port that goes down is another group.
        self.reference.groups = self.rig.draft.groups().cloned().collect();
        self.rig.publish();
        workers.iter_mut().for_each(Worker::take_up);
        let guest = self.player();
        if self.random.once_in(6) {
            self.players[guest].mute = !self.players[guest].mute;
        }
        self.disturb();
    }

    fn change_groups_and_meters(&mut self, count: u64) {
        for _ in 0..count {
            let change = group_mod(&mut self.random);
            let ordered = self.ordered;
            let is_wanted = |action: &OfAction| !is_push_or_pop(action) && (ordered || action.port() != Some(PortNo::NORMAL));
            if self.subject == Subject::Usual || !change.buckets.iter().flat_map(|bucket| bucket.actions.iter()).all(is_wanted) {
                continue;
            }
            if self.rule_counts.change(&mut self.rig.draft, |tables| tables.group_mod(&change, 0).is_ok()) {
                self.reference.group_counts.retain(|(group, _), _| *group != change.group);
            }
        }
        for _ in 0..if self.ordered { count } else { 0 } {
            let change = meter_mod(&mut self.random, self.subject);
            if self.rule_counts.change(&mut self.rig.draft, |tables| tables.meter_mod(&change, 0).is_ok()) {
                self.reference.meter_mod(&change);
            }
        }
    }

    /// What a guest can do at any time, under traffic or not.
    fn disturb(&mut self) {
        let guest = self.player();
        if self.random.once_in(8) {
            if self.players[guest].connected {
                self.rig.disconnect(guest);
            } else {
                self.rig.connect(guest);
            }
            self.players[guest].connected ^= true;
        }
        let pairs = self.players[guest].given.len() as u64;
        if self.players[guest].connected && self.random.once_in(6) {
            let enabled = self.random.below(pairs + 1) as usize;
            self.rig.guests[guest].set_queue_pairs(enabled).expect("a change of the queue pairs");
        }
    }

    /// Lets a guest send something through one of its queues. Returns how many chains it gave.
    fn give(&mut self) -> usize {
        let guest = self.player();
        let player = &mut self.players[guest];
        let pair = self.random.below(player.given.len() as u64) as usize;
        let mut count = 0;
        for _ in 0..self.random.below(40) {
            self.serial += 1;
            let transmitter = self.rig.guests[guest].transmitter(pair);
            let random = &mut self.random;
            let payload_len = random.one_of(&[8, 8, 24, 304, 304, 1456, 1456, 4000]);
            let payload = self.serial.to_be_bytes().repeat(payload_len / 8);
            let ttls: &[u8] = if self.subject == Subject::Usual { &[1, 2, 64] } else { &[64] };
            let mut frame = frame_of(random, &payload, ttls);
            let mut header = NetHeader::default();
            let given = match random.below(100) {
                0..60 => Given::Frame(frame.clone()),
                60..75 => {
                    let given = Given::Frame(frame.clone());
                    if let Some((start, offset)) = undo_checksum(&mut frame) {
                        header = NetHeader { flags: 1, csum_start: start as u16, csum_offset: offset as u16, ..header };
                    }
                    given
                }
                75..85 => {
                    frame = tcp(&self.serial.to_be_bytes().repeat(2 + random.below(1500) as usize), ttls, random);
                    let given = Given::Frame(frame.clone());
                    let (start, offset) = undo_checksum(&mut frame).expect("TCP");
                    let size = 8 * (30 + random.below(150));
                    self.segmented.insert(self.serial, size as usize);
                    header = NetHeader {
                        flags: 1,
                        gso_type: if frame[12..14] == [0x86, 0xdd] { 4 } else { 1 },
                        hdr_len: start as u16 + 20,
                        gso_size: size as u16,
                        csum_start: start as u16,
                        csum_offset: offset as u16,
                        ..header
                    };
                    given
                }
                85..88 => {
                    header = random.one_of(&[
                        NetHeader { gso_type: 7, gso_size: 100, ..header },
                        NetHeader { flags: 1, csum_start: 65_000, ..header },
                        NetHeader { flags: 1, gso_type: 1, csum_start: 34, csum_offset: 16, ..header },
                    ]);
                    Given::Rejected(DropReason::BadOffload)
                }
                88..92 => {
                    frame.truncate(random.below(14) as usize);
                    Given::Rejected(DropReason::Truncated)
                }
                92..94 => Given::Rejected(DropReason::BadDescriptor),
                94..96 => Given::Rejected(DropReason::TooLong),
                // Of no protocol that is parsed, as short as can be.
                96..99 => {
                    frame.truncate(14);
                    frame[12..].copy_from_slice(&[0x88, 0xb5]);
                    Given::Frame(frame.clone())
                }
                _ if random.once_in(10) => Given::Broken,
                _ => continue,
            };
            let queued = match given {
                Given::Rejected(DropReason::BadDescriptor) => transmitter.push_cut(&[0; 11][..random.below(11) as usize + 1], &[1]),
                Given::Rejected(DropReason::TooLong) => {
                    transmitter.reclaim();
                    transmitter.ring.offer(&[Buffer { address: 0, len: 33_000, writable: false }; 2]).is_some()
                }
                Given::Broken => {
                    transmitter.reclaim();
                    transmitter.ring.offer(&[Buffer { address: 1 << 40, len: 100, writable: false }]).is_some()
                }
                _ if random.once_in(2) => transmitter.push(header, &frame),
                _ => {
                    let bytes = [&header.to_bytes()[..], &frame].concat();
                    let cuts = cuts(random, bytes.len());
                    transmitter.push_cut(&bytes, &cuts)
                }
            };
            if queued {
                player.given[pair].push(given);
                count += 1;
            }
        }
        self.rig.guests[guest].transmitter(pair).ring.publish_and_kick();
        count
    }

    /// Lets a guest take what it received, and give buffers back unless it is mute.
    fn take(&mut self, guest: usize) {
        let player = &mut self.players[guest];
        for (pair, received) in player.received.iter_mut().enumerate() {
            let receiver = self.rig.guests[guest].receiver(pair);
            received.extend(std::iter::from_fn(|| receiver.receive()));
            if self.random.once_in(60) {
                // A buffer that can't be written breaks the ring when its turn comes.
                receiver.ring.offer(&[Buffer { address: 1 << 40, len: 2048, writable: true }]);
            }
            if !player.mute {
                receiver.fill(usize::MAX);
            }
        }
    }

    /// Adds what the reference says of the frames that were recorded since the last time.
    fn expect(&mut self) {
        for (record, (seen, controllers)) in self.records.iter().zip(&mut self.seen) {
            let record = record.lock().expect("no worker panicked");
            for (in_port, frame) in &record.frames[*seen..] {
                let config = self.reference.port(*in_port).config;
                let closed = config.intersects(PortConfig::PORT_DOWN) || config.intersects(PortConfig::NO_RECV);
                let verdict = self.reference.forward(*in_port, frame);
                let taken = (0..verdict.to_controller).filter(|_| controllers.takes()).count();
                let expected = &mut self.players[in_port.0 as usize - 1].expected;
                expected.rx_bytes += frame.len() as u64;
                if !verdict.sent.is_empty() {
                    expected.forwarded += 1;
                } else if taken > 0 {
                    expected.to_controller += 1;
                } else if closed {
                    expected.drops[DropReason::PortDown as usize] += 1;
                }
                for (port, bytes) in verdict.sent {
                    let player = &mut self.players[port.0 as usize - 1];
                    player.copy_count += 1;
                    *player.copies.entry(canonical(bytes)).or_default() += 1;
                }
            }
            *seen = record.frames.len();
        }
    }

    /// Traffic has stopped: every sum agrees.
    fn check(&mut self, context: &str) {
        (0..self.players.len()).for_each(|guest| self.take(guest));
        self.expect();
        for guest in 0..self.players.len() {
            let context = format!("{context}, port {}", guest + 1);
            self.check_ingress(guest, &context);
            self.check_egress(guest, &context);
        }
        let counts = self.rule_counts.counts(&self.rig.draft);
        assert_eq!(counts, self.reference.counts, "{context}: rules count each frame once for each time it matched");
        for table in 0..TABLES {
            let counters = self.rig.draft.counters(table);
            let expected = self.reference.lookups.get(&table).copied().unwrap_or_default();
            assert_eq!((counters.lookups(), counters.matches()), expected, "{context}: lookups and matches in table {table}");
        }
        let groups = self.rig.draft.groups().flat_map(|group| {
            let buckets = group.buckets.iter().enumerate().map(|(at, bucket)| ((group.id, Some(at)), bucket.counters.frames()));
            std::iter::once(((group.id, None), group.counters.frames())).chain(buckets).collect::<Vec<_>>()
        });
        let groups: HashMap<_, _> = groups.filter(|(_, frames)| *frames > 0).collect();
        assert_eq!(groups, self.reference.group_counts, "{context}: groups and buckets count each frame that they get");
        let meters = self.rig.draft.meters().map(|meter| (meter.id, (meter.frames(), meter.bands()[0].frames())));
        assert_eq!(
            meters.collect::<HashMap<_, _>>(),
            self.reference.meter_counts(),
            "{context}: meters count each frame that comes to them"
        );
    }

    fn check_ingress(&mut self, guest: usize, context: &str) {
        let port = PortNo(guest as u32 + 1);
        let totals = self.rig.totals(port);
        assert_eq!(totals.rx_frames, totals.forwarded + totals.to_controller + totals.dropped(), "{context}: each frame has one outcome");
        let (mut recorded, mut rejected) = (HashMap::<Vec<u8>, i64>::new(), [0; DropReason::COUNT]);
        let mut frames = 0;
        for record in &self.records {
            let record = record.lock().expect("no worker panicked");
            for (_, bytes) in record.frames.iter().filter(|(from, _)| *from == port) {
                *recorded.entry(canonical(bytes.clone())).or_default() += 1;
                frames += 1;
            }
            for (sum, count) in rejected.iter_mut().zip(record.rejected.get(&port).unwrap_or(&[0; DropReason::COUNT])) {
                *sum += *count;
            }
        }
        assert_eq!(totals.rx_frames, frames + rejected.iter().sum::<u64>(), "{context}: what comes in is counted");

        // What the rings gave back is what came in.
        let (mut processed, mut given_frames, mut given_rejected) = (0, 0, [0; DropReason::COUNT]);
        for (pair, given) in self.players[guest].given.iter().enumerate() {
            let used = usize::from(self.rig.guests[guest].transmitter(pair).ring.used_index());
            assert!(used <= given.len(), "{context}: more chains given back than there were");
            processed += used as u64;
            for given in &given[..used] {
                match given {
                    Given::Frame(bytes) => {
                        *recorded.entry(canonical(bytes.clone())).or_default() -= 1;
                        given_frames += 1;
                    }
                    Given::Rejected(reason) => given_rejected[*reason as usize] += 1,
                    Given::Broken => panic!("{context}: a chain that breaks the ring was given back"),
                }
            }
        }
        let breaks = totals.rx_frames.checked_sub(processed).unwrap_or_else(|| panic!("{context}: chains given back were not counted"));
        assert!(breaks <= self.rig.ports.port(guest).queue_breaks(), "{context}: frames came in that no guest gave");
        given_rejected[DropReason::BadDescriptor as usize] += breaks;
        given_rejected[DropReason::QueueDisabled as usize] = given_frames - frames;
        assert_eq!(rejected, given_rejected, "{context}: what is no frame is rejected for its own reason");
        assert!(recorded.values().all(|count| *count <= 0), "{context}: a frame came in twice, or changed");

        let expected = &self.players[guest].expected;
        assert_eq!(
            (totals.rx_bytes, totals.forwarded, totals.to_controller),
            (expected.rx_bytes, expected.forwarded, expected.to_controller),
            "{context}: bytes, frames forwarded and frames given to controllers"
        );
        rejected[DropReason::PortDown as usize] += expected.drops[DropReason::PortDown as usize];
        for reason in
            [DropReason::PortDown, DropReason::BadDescriptor, DropReason::QueueDisabled, DropReason::TooLong, DropReason::BadOffload]
        {
            assert_eq!(totals.drops[reason as usize], rejected[reason as usize], "{context}: {}", reason.name());
        }
    }

    fn check_egress(&mut self, guest: usize, context: &str) {
        let totals = self.rig.totals(PortNo(guest as u32 + 1));
        let player = &mut self.players[guest];
        for received in &mut player.received {
            let mut received = std::mem::take(received).into_iter().peekable();
            while let Some((header, bytes)) = received.next() {
                let first = completed(header, bytes);
                let (start, serial) = payload(&first);
                let size = serial.and_then(|serial| self.segmented.get(&serial)).copied().filter(|_| header.gso_type == 0);
                let whole = match size {
                    None => first,
                    Some(size) => {
                        // All segments of a frame lie side by side.
                        let mut whole = first.clone();
                        let mut last = first;
                        while last.len() - start == size
                            && let Some((header, bytes)) =
                                received.next_if(|(_, bytes)| payload(bytes).1 == serial && follows(&last, bytes))
                        {
                            last = completed(header, bytes);
                            whole.extend(&last[start..]);
                        }
                        put_together(&mut whole, &last);
                        whole
                    }
                };
                player.came += 1;
                player.came_bytes += whole.len() as u64;
                match player.copies.get_mut(&canonical(whole.clone())) {
                    Some(count) if *count > 0 => *count -= 1,
                    _ => panic!("{context}: a frame came that was not sent there, or came twice: {whole:02x?}"),
                }
            }
        }
        assert_eq!(totals.tx_frames + totals.tx_dropped(), player.copy_count, "{context}: each copy is sent or dropped, {totals:?}");
        assert_eq!((totals.tx_frames, totals.tx_bytes), (player.came, player.came_bytes), "{context}: what is sent is received");
    }

    /// Stops all guests: GET_VRING_BASE says of each ring what its used index says.
    fn stop(&mut self) {
        for (guest, player) in self.rig.guests.iter_mut().zip(&self.players).filter(|(_, player)| player.connected) {
            guest.stop().unwrap_or_else(|error| panic!("{error}, of {} chains", player.given.len()));
        }
    }
}

fn options(random: &mut Random) -> Options {
    let without = random.one_of(&[0, 0, F_MRG_RXBUF, F_EVENT_IDX, F_INDIRECT, F_OFFLOADS, F_OFFLOADS | F_MRG_RXBUF]);
    let ring_size = random.one_of(&[64, 128, 256]);
    Options {
        queue_pairs: random.below(3) as usize + 1,
        ring_size,
        buffer: 2048,
        buffer_parts: random.one_of(&[1, 2]),
        features: F_ALL & !without,
        ..Options::default()
    }
}

fn uses_normal(flow_mod: &FlowMod) -> bool {
    let mut found = false;
    flow_mod.instructions.each_action(&mut |action| found |= action.port() == Some(PortNo::NORMAL));
    found
}

/// Whether segments might not be found any more by those who put them together.
fn pushes_or_pops(flow_mod: &FlowMod) -> bool {
    let mut found = false;
    flow_mod.instructions.each_action(&mut |action| found |= is_push_or_pop(action));
    found
}

fn is_push_or_pop(action: &OfAction) -> bool {
    use OfAction::*;
    matches!(action, PushVlan(_) | PushMpls(_) | PopMpls(_) | PushPbb | PopPbb)
}

/// Cuts `len` bytes into a few buffers.
fn cuts(random: &mut Random, mut len: usize) -> Vec<usize> {
    let mut cuts = Vec::new();
    while len > 0 {
        let cut = len.min(random.one_of(&[1, 12, 13, 26, 500, 2048, 2048]));
        cuts.push(cut);
        len -= cut;
    }
    cuts
}

/// How much of what is to be tested was there.
#[derive(Default)]
struct Coverage {
    chains: usize,
    totals: PortTotals,
}

fn history(seed: u64, workers: usize, coverage: &mut Coverage) {
    let (mut history, mut workers) = History::new(seed, workers);
    for round in 0..20 {
        history.change(round, &mut workers);
        let now = round as u64;
        if let [worker] = &mut workers[..] {
            for _ in 0..history.random.below(20) {
                coverage.chains += history.give();
                if history.random.once_in(2) {
                    worker.breathe(now);
                }
                if history.random.once_in(4) {
                    let guest = history.player();
                    history.take(guest);
                }
                if history.random.once_in(10) {
                    history.disturb();
                }
            }
            drain(worker, now);
        } else {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                // Also if this thread panics: it must not wait for the workers for ever.
                let _stop = StopWhenDropped(&stop);
                for worker in &mut workers {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            if worker.breathe(now) == 0 {
                                std::thread::yield_now();
                            }
                        }
                        drain(worker, now);
                    });
                }
                for _ in 0..history.random.below(20) {
                    coverage.chains += history.give();
                    let guest = history.player();
                    history.take(guest);
                    history.disturb();
                }
            });
        }
        workers.iter_mut().for_each(Worker::settle);
        history.check(&format!("seed {seed}, round {round}"));
    }
    for port in 1..=PORTS {
        let totals = history.rig.totals(PortNo(port));
        let sum = &mut coverage.totals;
        sum.rx_frames += totals.rx_frames;
        sum.rx_bytes += totals.rx_bytes;
        sum.tx_bytes += totals.tx_bytes;
        sum.forwarded += totals.forwarded;
        sum.to_controller += totals.to_controller;
        sum.tx_frames += totals.tx_frames;
        sum.drops.iter_mut().zip(totals.drops).for_each(|(sum, count)| *sum += count);
        sum.tx_drops.iter_mut().zip(totals.tx_drops).for_each(|(sum, count)| *sum += count);
    }
    history.stop();
}

struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Breathes until nothing is left.
fn drain(worker: &mut Worker, now: u64) {
    while worker.breathe(now) > 0 || worker.arm() {}
    worker.disarm();
}

fn histories(workers: usize) {
    let wanted = setting("VSWITCH_FRAMES", 60_000) as usize;
    let mut seed = setting("VSWITCH_SEED", 1);
    let mut coverage = Coverage::default();
    while coverage.chains < wanted {
        history(seed, workers, &mut coverage);
        seed += 1;
    }
    println!("{} chains until seed {seed}: {:?}", coverage.chains, coverage.totals);
    let Coverage { totals, .. } = coverage;
    let floor = (wanted / 20) as u64;
    assert!(totals.forwarded > floor && totals.tx_frames > floor && totals.to_controller > 0, "too little was forwarded: {totals:?}");
    use DropReason::*;
    let met = [NoMatch, Rule, Truncated, PortDown, BadDescriptor, QueueDisabled, TooLong, BadOffload, TtlExpired, ControllerQueueFull];
    for reason in met {
        assert!(totals.drops[reason as usize] > 0, "no frame was dropped as {}", reason.name());
    }
    for reason in [TxDrop::RingFull, TxDrop::LinkDown, TxDrop::TooLong, TxDrop::BadDescriptor] {
        assert!(totals.tx_drops[reason as usize] > 0, "no copy was dropped as {}", reason.name());
    }
}

#[test]
fn one_worker_accounts_for_every_frame() {
    histories(1);
}

#[test]
fn two_workers_account_for_every_frame() {
    histories(2);
}

//! The worker: takes frames, finds their actions, carries them out, gives buffers back. One thread drives one worker.
//!
//! A *breath* serves every queue that the worker polls once, up to [`BATCH`] frames each, and runs each batch to completion: extract all keys, ask the
//! microflow cache for all candidates, and the megaflow cache for those it does not have, then, in the order of the frames, confirm or search or
//! translate, and carry out; at the end every
//! output gets its frames in one call, and the source its buffers. Nothing is kept between batches, so that between two breaths no
//! frame is under way: that is when a new snapshot of the tables is taken up, when it is acknowledged, and when a queue can be taken away.
//!
//! Ports are served in turn. A translation takes the time of many frames (`UPCALL_COST`), and a port that causes many is passed over for as many
//! breaths as it took more than its share, as long as others have work: a guest that scans pays with its own traffic, and gets as much of the
//! worker's time as another.

mod inputs;
mod too_big;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Nanos;
use crate::action::{Controllers, Outcome, OutputSets, Resume, Whole, execute, route};
use crate::cache::{CacheLimits, CachedFlow, FlowCache, FlowId, Found, Seen};
use crate::drops::{DropReason, TxDrop};
use crate::frame::{BATCH, Batch, Frame, Offload};
use crate::key::{self, FlowKey};
use crate::port::{PortNo, RxQueue, Share};
use crate::tables::instruction::OfActions;
use crate::tables::{PortStripe, Tables};
use crate::translate::{Continuation, RESUMES_MAX, Scratch, translate_actions};
use inputs::Inputs;
use too_big::{Refused, TooBig};

/// The frames that a queue must have for a breath to be deep.
const DEEP: usize = 4 * BATCH;
/// What a translation costs its port, in frames, and each of its lookups in a table.
const UPCALL_COST: u64 = 4;
const LOOKUP_COST: u64 = 2;
/// The most that a port can owe, in frames: a scan is forgotten soon after it ends.
const DEBT_MAX: u32 = 1 << 12;
/// One in this many megaflow hits is translated again and compared.
const AUDIT_EVERY: u32 = 1 << 16;

/// Where control publishes the tables and workers take them up.
///
/// Tables that were replaced are kept until no worker has them any more, and given up by control: a million rules take longer to be freed than a worker may
/// be away from its queues.
#[derive(Debug)]
pub struct Published {
    tables: Mutex<Arc<Tables>>,
    replaced: Mutex<Vec<Arc<Tables>>>,
    epoch: AtomicU64,
}

impl Published {
    /// Publishes the first tables.
    pub fn new(tables: Tables) -> Self {
        Self { epoch: AtomicU64::new(tables.epoch()), tables: Mutex::new(Arc::new(tables)), replaced: Mutex::default() }
    }

    /// Publishes tables whose epoch is higher than any before. Workers take them up at their next breath.
    pub fn publish(&self, tables: Tables) {
        let epoch = tables.epoch();
        let replaced = std::mem::replace(&mut *lock(&self.tables), Arc::new(tables));
        self.epoch.store(epoch, Ordering::Release);
        lock(&self.replaced).push(replaced);
        self.give_up();
    }

    /// Frees the tables that were replaced and that no worker has any more. To be called by control.
    pub fn give_up(&self) {
        // Nobody can get at them but who has them: a count of one is the last word.
        lock(&self.replaced).retain(|tables| Arc::strong_count(tables) > 1);
    }

    /// The tables published last.
    pub fn current(&self) -> Arc<Tables> {
        lock(&self.tables).clone()
    }

    /// Their epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a worker is made with.
#[derive(Clone, Copy, Debug)]
pub struct WorkerSettings {
    /// Which worker it is. Its number is that of its stripe in every port's counters.
    pub share: Share,
    /// Seeds its hashes. Guests must not be able to guess it.
    pub seed: u64,
    /// Bounds its caches.
    pub limits: CacheLimits,
}

/// What a worker counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Frames that came in.
    pub frames: u64,
    /// How often one of them went on with a translation that was frozen, and was looked up again.
    pub resumed: u64,
    /// Of all these, found in the microflow cache.
    pub microflow_hits: u64,
    /// Found in the megaflow cache.
    pub megaflow_hits: u64,
    /// Translated.
    pub upcalls: u64,
    /// Megaflows that were installed.
    pub installed: u64,
    /// Megaflows now.
    pub megaflows: usize,
    /// Masks now.
    pub masks: usize,
    /// Megaflow hits that were translated again.
    pub audits: u64,
    /// Of these, those that said something else. Anything but zero is a bug.
    pub audit_mismatches: u64,
}

/// See the module.
pub struct Worker {
    published: Arc<Published>,
    acknowledged: Arc<AtomicU64>,
    inputs: Inputs,
    /// Whether a port without debt had frames in the last breath.
    contended: bool,
    batch: Batch,
    tables: Arc<Tables>,
    engine: Engine,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("number", &self.engine.share.worker).field("inputs", &self.inputs.len()).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker without inputs, on the tables published now.
    pub fn new(settings: WorkerSettings, published: Arc<Published>, controllers: Box<dyn Controllers + Send>) -> Self {
        let tables = published.current();
        Self {
            acknowledged: Arc::new(AtomicU64::new(tables.epoch())),
            published,
            inputs: Inputs::default(),
            contended: false,
            tables,
            batch: Batch::new(),
            engine: Engine {
                share: settings.share,
                cache: FlowCache::new(settings.limits, settings.seed),
                controllers,
                outputs: OutputSets::default(),
                parsed: [false; BATCH],
                keys: [FlowKey::ZERO; BATCH],
                hashes: [0; BATCH],
                candidates: [None; BATCH],
                continuing: 0,
                unknown: 0,
                last: None,
                until_audit: AUDIT_EVERY,
                too_big: TooBig::new(),
                stats: WorkerStats::default(),
            },
        }
    }

    /// The epoch below which this worker forwards nothing any more.
    pub fn acknowledged(&self) -> Arc<AtomicU64> {
        self.acknowledged.clone()
    }

    /// Serves `queue` from now on. Its port must have been published before.
    pub fn add_input(&mut self, port: PortNo, queue: Box<dyn RxQueue>) {
        self.inputs.add(port, queue);
    }

    /// Serves the queues of `port` no longer.
    pub fn remove_inputs(&mut self, port: PortNo) {
        self.inputs.remove(port);
    }

    /// Whether tables were published that it has not taken up.
    pub fn is_outdated(&self) -> bool {
        self.published.epoch() != self.tables.epoch()
    }

    /// Takes up the tables published last, and says so to whoever waits for it.
    pub fn take_up(&mut self) {
        if self.is_outdated() {
            let tables = self.published.current();
            self.engine.cache.settle(&self.tables);
            self.tables = tables;
            self.acknowledged.store(self.tables.epoch(), Ordering::Release);
        }
    }

    /// Serves every queue that does not rest once. Returns the number of frames that came in.
    pub fn breathe(&mut self, now: Nanos) -> usize {
        self.serve(now, false)
    }

    /// The same, but leaves a queue alone that is about to have more: it brought a full batch last, has less than `DEEP` frames now, and no other queue
    /// brought any. To be called for some microseconds after there were frames, and no longer.
    ///
    /// A worker that is faster than its guest would otherwise take every frame at once, and both would spend their time on getting the
    /// cache lines of the ring from each other.
    pub fn breathe_deeply(&mut self, now: Nanos) -> usize {
        self.serve(now, true)
    }

    fn serve(&mut self, now: Nanos, deeply: bool) -> usize {
        self.take_up();
        let Self { inputs, contended, batch, tables, engine, .. } = self;
        let (mut frames, mut frames_of_others) = (0, 0);
        let brought = inputs.polled().iter().map(|input| input.brought).sum::<usize>();
        for input in inputs.polled() {
            if deeply && input.brought >= BATCH && brought == input.brought && input.queue.waiting() < DEEP {
                continue;
            }
            if input.debt > 0 && *contended {
                input.debt = input.debt.saturating_sub(BATCH as u32);
                continue;
            }
            let before = engine.translating();
            let served = input.queue.serve(batch, &mut |batch| engine.process(batch, input.port, tables, now));
            frames += served;
            input.brought = served;
            input.quiet &= served == 0;
            if input.debt == 0 {
                frames_of_others += served;
            }
            let cost = engine.translating() - before;
            input.debt = (input.debt + cost as u32).saturating_sub(BATCH as u32).min(DEBT_MAX);
        }
        *contended = frames_of_others > 0;
        frames
    }

    /// Asks every queue to notify of its next frame. True if there is work already, and the worker must not block.
    pub fn arm(&mut self) -> bool {
        self.inputs.arm()
    }

    /// Takes the wish for notifications back, before polling again. Queues that rest keep it.
    pub fn disarm(&mut self) {
        self.inputs.disarm();
    }

    /// Puts the queues that brought no frame since the last call to rest, unless there are only a few: they are asked to notify, and not served until
    /// [`Worker::rouse`]. For whoever hears their notifications.
    pub fn rest(&mut self) {
        self.inputs.rest();
    }

    /// Whether any queue rests.
    pub fn has_resting(&self) -> bool {
        self.inputs.any_rests()
    }

    /// Serves the queues of `port` again, should they rest, and takes the wish for notifications back: one of them has notified, or has a ring that is new,
    /// with notifications wanted, and perhaps with frames that were announced to somebody who is gone.
    pub fn rouse(&mut self, port: PortNo) {
        self.inputs.rouse(port);
    }

    /// Credits what was forwarded to the rules, exactly.
    pub fn settle(&mut self) {
        self.engine.cache.settle(&self.tables);
    }

    /// Does some of the background work: settles counters, expires idle megaflows and translates stale ones again. It takes a fraction of a millisecond at
    /// most. Returns the time after which there is more to do if frames come, a quarter of a second at most.
    pub fn maintain(&mut self, now: Nanos) -> Nanos {
        self.take_up();
        self.engine.cache.maintain(&self.tables, now)
    }

    /// Carries out a packet-out: `actions` on `frame` as if it had come in through `in_port`.
    pub fn inject(&mut self, in_port: PortNo, frame: &[u8], actions: &OfActions, now: Nanos) {
        self.take_up();
        self.batch.clear();
        let slot = self.batch.push_bytes(in_port, Offload::default(), frame);
        self.engine.inject(&mut self.batch, slot, actions, &self.tables, now);
        self.batch.clear();
    }

    /// What was counted so far.
    pub fn stats(&self) -> WorkerStats {
        let megaflows = self.engine.cache.megaflows();
        WorkerStats { installed: self.engine.cache.installed(), megaflows: megaflows.len(), masks: megaflows.masks(), ..self.engine.stats }
    }

    /// The megaflows of this worker.
    pub fn flows(&self) -> Vec<CachedFlow> {
        self.engine.cache.flows()
    }
}

/// All of a worker but its queues: what a batch needs on its way.
struct Engine {
    share: Share,
    cache: FlowCache,
    controllers: Box<dyn Controllers + Send>,
    outputs: OutputSets,
    /// Of each frame of the batch, as far as [`Engine::look_ahead`] got: whether it has an Ethernet header, its key, the key's hash, and
    /// the megaflow that it is probably in.
    parsed: [bool; BATCH],
    keys: [FlowKey; BATCH],
    hashes: [u64; BATCH],
    candidates: [Option<FlowId>; BATCH],
    /// The frames that have the key of the one before them, as bits: those of a flow mostly come one after the other. They have no key here, nor a
    /// candidate.
    continuing: u32,
    /// The frames that the microflow cache does not know, as bits.
    unknown: u32,
    /// The current megaflow of the frame before, if there is one.
    last: Option<FlowId>,
    until_audit: u32,
    too_big: TooBig,
    stats: WorkerStats,
}

impl Engine {
    /// What translations cost so far, in frames.
    fn translating(&self) -> u64 {
        UPCALL_COST * self.stats.upcalls + LOOKUP_COST * self.cache.lookups()
    }

    /// Runs a batch that came in through `in_port` to completion.
    fn process(&mut self, batch: &mut Batch, in_port: PortNo, tables: &Tables, now: Nanos) {
        let mut accounts = Accounts::new(batch);
        let count = batch.len();
        self.stats.frames += accounts.frames;
        match tables.ports().get(in_port) {
            Some(port) if port.receives() => {
                self.look_ahead(batch, in_port);
                let mut leader = 0;
                for slot in 0..count {
                    let continues = self.continuing >> slot & 1 != 0;
                    leader = if continues { leader } else { slot };
                    let outcome = match self.last.filter(|_| continues) {
                        Some(id) => {
                            self.stats.microflow_hits += 1;
                            self.carry_out(Found::Megaflow(id), batch, slot, leader, tables, now)
                        }
                        None if self.parsed[leader] => self.forward(batch, slot, leader, in_port, tables, now),
                        None => TRUNCATED,
                    };
                    accounts.count(outcome, 1);
                }
                self.last = None;
                self.transmit(batch, tables, now);
            }
            _ => accounts.count(Outcome::Dropped(DropReason::PortDown), count as u64),
        }
        if let Some(port) = tables.ports().get(in_port) {
            accounts.enter(port.counters.stripe(self.share.worker));
        }
    }

    /// Extracts the keys of a batch and asks for their candidates, so that what they need is near when it is used.
    fn look_ahead(&mut self, batch: &mut Batch, in_port: PortNo) {
        let count = batch.len();
        let hasher = self.cache.hasher(in_port);
        let found = self.parsed.iter_mut().zip(&mut self.keys).zip(&mut self.hashes);
        self.continuing = 0;
        let mut before: Option<&Frame> = None;
        for ((slot, frame), ((parsed, key), hash)) in batch.frames_mut().iter_mut().enumerate().zip(found) {
            if let Some(before) = before.filter(|before| key::continues(frame, before)) {
                (frame.layout, frame.hash) = (before.layout, before.hash);
                self.continuing |= 1 << slot;
            } else {
                *parsed = key::extract_frame(frame, key);
                frame.hash = key::spread(key);
                *hash = hasher(key);
                self.cache.prefetch(*hash);
            }
            before = Some(frame);
        }
        self.unknown = 0;
        for slot in (0..count).filter(|slot| self.continuing >> slot & 1 == 0) {
            let candidate = self.cache.candidate(self.hashes[slot]);
            self.candidates[slot] = candidate;
            self.unknown |= u32::from(candidate.is_none()) << slot;
        }
        if self.unknown != 0 {
            self.cache.foresee(in_port, &self.keys, self.unknown, &mut self.candidates);
        }
    }

    /// Finds the actions of the frame in `slot`, whose key is that of the one in `leader`, and carries them out.
    #[inline]
    fn forward(&mut self, batch: &mut Batch, slot: usize, leader: usize, in_port: PortNo, tables: &Tables, now: Nanos) -> Outcome {
        let (key, hash) = (&self.keys[leader], self.hashes[leader]);
        let bytes = batch.frame(slot as u16).len();
        let found = match self.candidates[leader].filter(|id| self.cache.confirm(*id, key, tables)) {
            Some(id) if self.unknown >> leader & 1 == 0 => {
                self.stats.microflow_hits += 1;
                Found::Megaflow(id)
            }
            Some(id) => {
                self.stats.megaflow_hits += 1;
                self.cache.remember(hash, id);
                Found::Megaflow(id)
            }
            None => match self.cache.search(key, hash, tables) {
                Ok(id) => {
                    self.stats.megaflow_hits += 1;
                    Found::Megaflow(id)
                }
                Err(stale) => {
                    self.stats.upcalls += 1;
                    let found = self.cache.upcall(in_port, &Seen { key, hash, bytes }, stale, tables, now);
                    self.cache.take_learned().for_each(|rule| self.controllers.learn(in_port, &rule));
                    found
                }
            },
        };
        self.carry_out(found, batch, slot, leader, tables, now)
    }

    #[inline(always)]
    fn carry_out(&mut self, found: Found, batch: &mut Batch, slot: usize, leader: usize, tables: &Tables, now: Nanos) -> Outcome {
        let verdict = match found {
            Found::Megaflow(id) => {
                self.last = Some(id);
                self.until_audit -= 1;
                if self.until_audit == 0 {
                    self.until_audit = AUDIT_EVERY;
                    self.stats.audits += 1;
                    self.stats.audit_mismatches += u64::from(!self.cache.audit(id, &self.keys[leader], tables, now));
                }
                self.cache.hit(id, batch.frame(slot as u16).len(), now)
            }
            Found::Once(id) => {
                self.last = None;
                self.cache.verdict(id)
            }
        };
        let slot = slot as u16;
        match route(&verdict.actions, slot, batch, &mut self.outputs) {
            None => Outcome::Forwarded,
            Some(rest) => {
                let routed = verdict.actions.len() - rest.len();
                self.carry_out_rest(found, routed, batch, slot, tables, now)
            }
        }
    }

    /// Carries out the actions behind the first `routed` ones.
    #[inline(never)]
    fn carry_out_rest(&mut self, found: Found, routed: usize, batch: &mut Batch, slot: u16, tables: &Tables, now: Nanos) -> Outcome {
        let Self { cache, stats, outputs, controllers, .. } = self;
        let verdict = cache.verdict_of(found);
        if !verdict.resumes {
            return execute(&verdict.actions[routed..], verdict.reason, slot, batch, outputs, &mut **controllers, &mut Whole(now));
        }
        // What frames go on with may change the caches, and the verdict with them.
        let (actions, reason) = (verdict.actions.clone(), verdict.reason);
        let mut resumer = Resumer { cache, stats, tables, now, bytes: batch.frame(slot).len(), left: RESUMES_MAX };
        execute(&actions[routed..], reason, slot, batch, outputs, &mut **controllers, &mut resumer)
    }

    /// Gives every output its frames.
    fn transmit(&mut self, batch: &Batch, tables: &Tables, now: Nanos) {
        let Self { share, outputs, keys, continuing, too_big, .. } = self;
        for (number, queue, slots) in outputs.iter() {
            let Some(port) = tables.ports().get(number) else {
                debug_assert!(false, "a translation outputs only to ports of its own snapshot");
                continue;
            };
            let sent = port.output.transmit(*share, batch, slots);
            port.counters.stripe(share.worker).transmitted(queue, &sent);
            if port.icmp_too_big && sent.drops[TxDrop::TooLong as usize] != 0 {
                let key = |slot: u16| &keys[leader(*continuing, slot)];
                too_big.answer(&Refused { batch, slots, port, key }, tables, *share, now);
            }
        }
        outputs.clear();
    }

    fn inject(&mut self, batch: &mut Batch, slot: u16, actions: &OfActions, tables: &Tables, now: Nanos) {
        let Self { cache, stats, outputs, controllers, keys, .. } = self;
        self.continuing = 0;
        let key = &mut keys[usize::from(slot)];
        if !key::extract_frame(batch.frame_mut(slot), key) {
            return;
        }
        batch.frame_mut(slot).hash = key::spread(key);
        let mut scratch = Scratch::default();
        let translation = translate_actions(tables, actions, key, now, &mut scratch);
        translation.effects.credit(tables, 1, batch.frame(slot).len() as u64, now);
        let in_port = batch.frame(slot).in_port;
        scratch.said.learned.iter().for_each(|rule| controllers.learn(in_port, rule));
        let mut resumer = Resumer { cache, stats, tables, now, bytes: batch.frame(slot).len(), left: RESUMES_MAX };
        execute(&translation.actions, translation.reason, slot, batch, outputs, &mut **controllers, &mut resumer);
        self.transmit(batch, tables, now);
    }
}

/// The slot of the frame whose key the one in `slot` has, given those that have the key of the one before them.
fn leader(continuing: u32, slot: u16) -> usize {
    let leaders = !continuing & u32::MAX >> (31 - slot);
    leaders.checked_ilog2().unwrap_or(0) as usize
}

/// Goes on with frames whose translation was frozen: looks them up as any other, by what they are now and what they go on with.
struct Resumer<'a> {
    cache: &'a mut FlowCache,
    stats: &'a mut WorkerStats,
    tables: &'a Tables,
    now: Nanos,
    /// The length of the frame when it came in, which is what rules count.
    bytes: usize,
    /// How often more it, or a copy of it, may go on.
    left: usize,
}

impl Resume for Resumer<'_> {
    fn resume(
        &mut self,
        continuation: &Continuation,
        slot: u16,
        batch: &mut Batch,
        outputs: &mut OutputSets,
        controllers: &mut dyn Controllers,
    ) -> Outcome {
        let Some(left) = self.left.checked_sub(1) else { return Outcome::Dropped(DropReason::TooManyTables) };
        self.left = left;
        let frame = batch.frame_mut(slot);
        let mut key = FlowKey::ZERO;
        if !key::extract_frame(frame, &mut key) {
            return TRUNCATED;
        }
        key.0[0] |= u64::from(continuation.recirculation(frame.hash));
        let in_port = frame.in_port;
        self.stats.resumed += 1;
        let found = self.find(in_port, &key);
        self.cache.take_learned().for_each(|rule| controllers.learn(in_port, &rule));
        let verdict = match found {
            Found::Megaflow(id) => self.cache.hit(id, self.bytes, self.now),
            Found::Once(id) => self.cache.verdict(id),
        };
        let (actions, reason) = (verdict.actions.clone(), verdict.reason);
        execute(&actions, reason, slot, batch, outputs, controllers, self)
    }

    fn now(&self) -> Nanos {
        self.now
    }
}

impl Resumer<'_> {
    fn find(&mut self, in_port: PortNo, key: &FlowKey) -> Found {
        let hash = self.cache.hasher(in_port)(key);
        if let Some(id) = self.cache.candidate(hash).filter(|id| self.cache.confirm(*id, key, self.tables)) {
            self.stats.microflow_hits += 1;
            return Found::Megaflow(id);
        }
        match self.cache.search(key, hash, self.tables) {
            Ok(id) => {
                self.stats.megaflow_hits += 1;
                Found::Megaflow(id)
            }
            Err(stale) => {
                self.stats.upcalls += 1;
                self.cache.upcall(in_port, &Seen { key, hash, bytes: self.bytes }, stale, self.tables, self.now)
            }
        }
    }
}

const TRUNCATED: Outcome = Outcome::Dropped(DropReason::Truncated);

/// What became of the frames of one batch, collected to be entered once.
struct Accounts {
    frames: u64,
    bytes: u64,
    forwarded: u64,
    to_controller: u64,
    drops: [u32; DropReason::COUNT],
}

impl Accounts {
    /// The accounts of a batch in which only the rejected frames have their outcome yet.
    fn new(batch: &Batch) -> Self {
        let drops = *batch.rejected();
        let rejected: u32 = drops.iter().sum();
        Self {
            frames: batch.len() as u64 + u64::from(rejected),
            bytes: batch.frames().iter().map(|frame| frame.len() as u64).sum(),
            forwarded: 0,
            to_controller: 0,
            drops,
        }
    }

    #[inline]
    fn count(&mut self, outcome: Outcome, frames: u64) {
        match outcome {
            Outcome::Forwarded => self.forwarded += frames,
            Outcome::Controller => self.to_controller += frames,
            Outcome::Dropped(reason) => self.drops[reason as usize] += frames as u32,
        }
    }

    fn enter(&self, stripe: &PortStripe) {
        stripe.received(self.frames, self.bytes);
        stripe.forwarded(self.forwarded);
        if self.forwarded != self.frames {
            stripe.to_controller(self.to_controller);
            for (reason, frames) in DropReason::ALL.iter().zip(&self.drops).filter(|(_, frames)| **frames != 0) {
                stripe.dropped(*reason, u64::from(*frames));
            }
        }
    }
}

#[cfg(test)]
mod tests;

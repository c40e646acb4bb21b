//! Rules: OpenFlow's flow entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::group::GROUP_ANY;
use super::instruction::Instructions;
use crate::Nanos;
use crate::classifier::{Classified, CompactMatch};
use crate::key::Match;
use crate::port::PortNo;

/// A flow entry (OpenFlow 1.3.5, 5.2). It never changes: a modification puts another in its place, which shares its counters.
#[derive(Debug)]
pub struct Rule {
    /// The table that it is in.
    pub table: u8,
    /// The higher, the sooner.
    pub priority: u16,
    /// The flows that it is for.
    pub matching: CompactMatch,
    /// The controller's mark.
    pub cookie: u64,
    /// What to do with the frames.
    pub instructions: Instructions,
    /// Seconds without a frame until it is removed; zero for never.
    pub idle_timeout: u16,
    /// Seconds since its creation until it is removed; zero for never.
    pub hard_timeout: u16,
    /// Its flags.
    pub flags: RuleFlags,
    /// When it was added.
    pub created: Nanos,
    /// When its instructions were last changed.
    pub modified: Nanos,
    /// What it was used for.
    pub counters: Arc<Counters>,
    /// Where the timers have it, if it has a timeout.
    pub(super) timer_slot: AtomicU8,
}

/// The frames that a rule, a group or a bucket was used for. Workers add what they counted by themselves, from time to time.
#[derive(Debug, Default)]
pub struct Counters {
    frames: AtomicU64,
    bytes: AtomicU64,
    used: AtomicU64,
    refreshed: AtomicU64,
}

impl Counters {
    /// No frames yet; the idle timeout starts at `now`.
    pub fn new(now: Nanos) -> Self {
        Self { frames: AtomicU64::new(0), bytes: AtomicU64::new(0), used: AtomicU64::new(now), refreshed: AtomicU64::new(0) }
    }

    /// Adds frames, the last of which came at `used`.
    pub fn credit(&self, frames: u64, bytes: u64, used: Nanos) {
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_max(used, Ordering::Relaxed);
    }

    /// A frame that the rule is learned from came: its hard timeout starts anew.
    pub fn refresh(&self, now: Nanos) {
        self.refreshed.fetch_max(now, Ordering::Relaxed);
    }

    /// When such a frame came last; zero if none did.
    pub fn refreshed(&self) -> Nanos {
        self.refreshed.load(Ordering::Relaxed)
    }

    /// How many frames.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When the last frame came, or when the rule was added.
    pub fn used(&self) -> Nanos {
        self.used.load(Ordering::Relaxed)
    }
}

/// `OFPFF_*`: flags of a flow-mod and its rule (OpenFlow 1.3.5, 7.3.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleFlags(pub u16);

impl RuleFlags {
    /// Say when the rule is removed.
    pub const SEND_FLOW_REM: Self = Self(1);
    /// Refuse the rule if it overlaps another of its priority.
    pub const CHECK_OVERLAP: Self = Self(1 << 1);
    /// Start counting anew.
    pub const RESET_COUNTS: Self = Self(1 << 2);
    /// Frames need not be counted.
    pub const NO_PKT_COUNTS: Self = Self(1 << 3);
    /// Bytes need not be counted.
    pub const NO_BYT_COUNTS: Self = Self(1 << 4);
    /// All flags that there are.
    pub const ALL: Self = Self(0x1f);

    /// Whether all of `flags` are set.
    pub fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl Rule {
    /// When it expires if no more frames come, and why.
    pub(super) fn deadline(&self) -> Option<(Nanos, RemovedReason)> {
        let after = |start: Nanos, timeout: u16| (timeout != 0).then(|| start.saturating_add(u64::from(timeout) * 1_000_000_000));
        let hard =
            after(self.created.max(self.counters.refreshed()), self.hard_timeout).map(|deadline| (deadline, RemovedReason::HardTimeout));
        let idle = after(self.counters.used(), self.idle_timeout).map(|deadline| (deadline, RemovedReason::IdleTimeout));
        hard.into_iter().chain(idle).min_by_key(|(deadline, _)| *deadline)
    }

    /// Whether one of its actions outputs to `port` (OpenFlow 1.3.5, 6.4).
    pub fn outputs_to(&self, port: PortNo) -> bool {
        let mut found = false;
        self.instructions.each_action(&mut |action| found |= action.port() == Some(port));
        found
    }

    /// Whether one of its actions is the group `group`.
    pub fn uses_group(&self, group: u32) -> bool {
        self.groups().contains(&group)
    }

    /// The groups that its actions forward to, each as often as it is named.
    pub(super) fn groups(&self) -> Vec<u32> {
        let mut groups = Vec::new();
        self.instructions.each_action(&mut |action| groups.extend(action.group()));
        groups
    }
}

impl Classified for Arc<Rule> {
    fn matching(&self) -> &CompactMatch {
        &self.matching
    }

    fn priority(&self) -> u16 {
        self.priority
    }
}

/// Which rules a request is about (OpenFlow 1.3.5, 6.4): all conditions must hold.
#[derive(Clone, Debug)]
pub struct RuleFilter {
    /// The table; all for [`RuleFilter::ALL_TABLES`].
    pub table: u8,
    /// Rules for these flows or some of them; with `priority`, for exactly these.
    pub matching: Match,
    /// Only the rule of this priority with exactly this match.
    pub priority: Option<u16>,
    /// The cookie, in the bits of `cookie_mask`.
    pub cookie: u64,
    /// The bits of the cookie that count.
    pub cookie_mask: u64,
    /// Only rules that output to this port; [`PortNo::ANY`] for no such condition.
    pub out_port: PortNo,
    /// Only rules that use this group; [`GROUP_ANY`] for no such condition.
    pub out_group: u32,
}

impl RuleFilter {
    /// `OFPTT_ALL`.
    pub const ALL_TABLES: u8 = 0xff;
    /// Every rule of every table.
    pub const ALL: Self = Self {
        table: Self::ALL_TABLES,
        matching: Match::ANY,
        priority: None,
        cookie: 0,
        cookie_mask: 0,
        out_port: PortNo::ANY,
        out_group: GROUP_ANY,
    };

    /// Whether the conditions other than the table and the match hold.
    pub(super) fn selects(&self, rule: &Rule) -> bool {
        (rule.cookie ^ self.cookie) & self.cookie_mask == 0
            && (self.out_port == PortNo::ANY || rule.outputs_to(self.out_port))
            && (self.out_group == GROUP_ANY || rule.uses_group(self.out_group))
    }
}

/// A rule that was removed. Its counters are final once no worker uses the tables that had it.
#[derive(Clone, Debug)]
pub struct Removed {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Why.
    pub reason: RemovedReason,
}

/// `OFPRR_*`: why a rule was removed (OpenFlow 1.3.5, 7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RemovedReason {
    /// No frame for its idle timeout.
    IdleTimeout = 0,
    /// Its hard timeout passed.
    HardTimeout = 1,
    /// A controller deleted it.
    Delete = 2,
    /// Its group was deleted.
    GroupDelete = 3,
}

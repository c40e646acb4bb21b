//! Groups: several ways to go on with a frame, and which of them to take (OpenFlow 1.3.5, 5.6 and 7.3.4.2).
//!
//! A group never changes: a modification, and a port that goes up or down, puts another in its place. So it is known when it is made which of its
//! buckets are live, and which one each hash of a flow chooses ([`Choices`]); and what was made of a group is stale with the tables' epoch.
//!
//! **Liveness.** A bucket that watches neither a port nor a group is live; one that watches a port is live as long as that port is; one that watches a
//! group, as long as that group has a live bucket.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::action_set::in_order;
use super::choices::Choices;
use super::instruction::{OfAction, OfActions, each_action};
use super::ports::Ports;
use super::rule::Counters;
use crate::Nanos;
use crate::port::PortNo;

/// The highest number of a group (`OFPG_MAX`).
pub const GROUP_MAX: u32 = 0xffff_ff00;
/// All groups, in requests (`OFPG_ALL`).
pub const GROUP_ALL: u32 = 0xffff_fffc;
/// No group, or any (`OFPG_ANY`).
pub const GROUP_ANY: u32 = 0xffff_ffff;
/// The most groups at a time.
pub const MAX_GROUPS: usize = 1 << 16;
/// The most buckets of a group.
pub const MAX_BUCKETS: usize = 1 << 12;

/// What becomes of a frame that a group processes (`OFPGT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GroupKind {
    /// Each bucket gets a copy.
    All = 0,
    /// One bucket gets it, chosen by a hash of its flow.
    Select = 1,
    /// The only bucket gets it.
    Indirect = 2,
    /// The first live bucket gets it.
    FastFailover = 3,
}

/// A way to go on with a frame.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// What was asked for.
    pub spec: BucketSpec,
    /// The actions in the order of an action set, in which they are carried out.
    pub(crate) in_order: OfActions,
    /// The frames that it got.
    pub counters: Arc<Counters>,
}

/// A bucket as a controller describes it (`struct ofp_bucket`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketSpec {
    /// Its share of the flows, in a select group; a bucket of weight zero gets none.
    pub weight: u16,
    /// Live as long as this port is; [`PortNo::ANY`] for no such condition.
    pub watch_port: PortNo,
    /// Live as long as this group is; [`GROUP_ANY`] for no such condition.
    pub watch_group: u32,
    /// An action set.
    pub actions: OfActions,
}

/// A group.
#[derive(Debug)]
pub struct Group {
    /// Its number, up to [`GROUP_MAX`].
    pub id: u32,
    /// What it does.
    pub kind: GroupKind,
    /// The ways to go on.
    pub buckets: Vec<Bucket>,
    /// When it was added.
    pub created: Nanos,
    /// The frames that it processed.
    pub counters: Arc<Counters>,
    /// The live buckets, by their places.
    live: Vec<u16>,
    /// In a select group: which bucket would get which flows if all were live.
    shares: Option<Arc<Choices>>,
    /// In a select group with live buckets: which of them gets which flows.
    choices: Option<Arc<Choices>>,
}

/// What is to become of a group (`OFPGC_*`; [`GroupCommand::AddOrModify`] is Open vSwitch's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum GroupCommand {
    /// A new one.
    Add = 0,
    /// Another in its place.
    Modify = 1,
    /// None any more; for [`GROUP_ALL`], of all.
    Delete = 2,
    /// A new one, or another in its place.
    AddOrModify = 0x8000,
}

/// A change to the groups (OpenFlow 1.3.5, 7.3.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMod {
    /// What to do.
    pub command: GroupCommand,
    /// With which group.
    pub group: u32,
    /// What it is to be.
    pub kind: GroupKind,
    /// Its buckets.
    pub buckets: Vec<BucketSpec>,
}

/// Why a group-mod was refused. Nothing was changed. Each variant is one code of OFPET_GROUP_MOD_FAILED, named in its text, or an error of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupModError {
    /// `OFPGMFC_GROUP_EXISTS`: a group of this number is there already.
    Exists,
    /// `OFPGMFC_INVALID_GROUP`: no group can have this number, or one of this kind these buckets.
    Invalid,
    /// `OFPGMFC_OUT_OF_GROUPS`: there are [`MAX_GROUPS`] groups.
    OutOfGroups,
    /// `OFPGMFC_OUT_OF_BUCKETS`: more than [`MAX_BUCKETS`] buckets.
    OutOfBuckets,
    /// `OFPGMFC_LOOP`: it would process its own frames, by way of other groups.
    Loop,
    /// `OFPGMFC_UNKNOWN_GROUP`: there is no such group.
    Unknown,
    /// `OFPGMFC_CHAINED_GROUP`: another group forwards to it.
    Chained,
    /// `OFPGMFC_BAD_WATCH`: a bucket of a fast-failover group watches nothing, or a port or group that can't be watched.
    BadWatch,
    /// An action of a bucket can't be carried out.
    BadAction(super::FlowModError),
}

impl Group {
    /// The live buckets, in their order, by their places.
    pub fn live(&self) -> &[u16] {
        &self.live
    }

    /// Which bucket of a select group gets a flow; `None` if no bucket that is live has a weight.
    pub fn choices(&self) -> Option<&Choices> {
        self.choices.as_deref()
    }

    fn specs(&self) -> Vec<&BucketSpec> {
        self.buckets.iter().map(|bucket| &bucket.spec).collect()
    }

    /// The groups that its buckets forward to, each once.
    fn forwards_to(&self) -> BTreeSet<u32> {
        self.buckets.iter().flat_map(|bucket| groups_in(&bucket.spec.actions)).collect()
    }

    fn watches_groups(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.spec.watch_group != GROUP_ANY)
    }

    /// The places of the buckets that are live if these groups are.
    fn live_buckets(&self, ports: &Ports, live_groups: &HashSet<u32>) -> Vec<u16> {
        let is_live = |bucket: &Bucket| bucket.spec.is_live(ports, live_groups);
        (0..).zip(&self.buckets).filter(|(_, bucket)| is_live(bucket)).map(|(place, _)| place).collect()
    }

    /// The same with these buckets live.
    fn with_live(&self, live: Vec<u16>) -> Self {
        let choices = self.shares.as_ref().and_then(|shares| match live.len() == self.buckets.len() {
            true => Some(shares.clone()),
            false => shares.among(&live, &self.specs()).map(Arc::new),
        });
        let (buckets, counters, shares) = (self.buckets.clone(), self.counters.clone(), self.shares.clone());
        Self { buckets, counters, live, shares, choices, ..*self }
    }

    /// Whether liveness is asked for.
    fn watches(&self) -> bool {
        self.buckets.iter().any(|bucket| bucket.spec.watch_port != PortNo::ANY || bucket.spec.watch_group != GROUP_ANY)
    }
}

/// The groups that actions forward to.
fn groups_in(actions: &[OfAction]) -> Vec<u32> {
    let mut groups = Vec::new();
    each_action(actions, &mut |action| groups.extend(action.group()));
    groups
}

/// All groups, by number, and who uses them.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<u32, Arc<Group>>,
    /// How many rules forward to each.
    users: BTreeMap<u32, usize>,
    /// How many groups do.
    forwarders: BTreeMap<u32, usize>,
    /// How many groups watch groups.
    watchers: usize,
}

/// One more in a map of counts.
fn count(counts: &mut BTreeMap<u32, usize>, id: u32) {
    *counts.entry(id).or_default() += 1;
}

/// One less.
fn discount(counts: &mut BTreeMap<u32, usize>, id: u32) {
    if let Some(left) = counts.get_mut(&id) {
        *left -= 1;
        if *left == 0 {
            counts.remove(&id);
        }
    }
}

impl Groups {
    pub fn get(&self, id: u32) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// How many rules and groups forward to a group.
    pub fn references(&self, id: u32) -> usize {
        [&self.users, &self.forwarders].map(|counts| counts.get(&id).copied().unwrap_or_default()).iter().sum()
    }

    /// Another rule uses these groups, each as often as it is named.
    pub fn used_by_rule(&mut self, groups: &[u32]) {
        groups.iter().for_each(|id| count(&mut self.users, *id));
    }

    /// A rule that used them is gone.
    pub fn unused_by_rule(&mut self, groups: &[u32]) {
        groups.iter().for_each(|id| discount(&mut self.users, *id));
    }

    /// Whether any rule uses a group.
    pub fn has_users(&self, id: u32) -> bool {
        self.users.contains_key(&id)
    }

    /// Puts a group in, in the place of one with its number.
    pub fn put(&mut self, change: &GroupMod, ports: &Ports, now: Nanos) {
        let old = self.get(change.group);
        let buckets: Vec<_> = change.buckets.iter().map(|spec| Bucket::new(spec, now)).collect();
        let shares = (change.kind == GroupKind::Select).then(|| {
            let old_specs = old.map(|old| old.specs());
            let before = old.and_then(|old| old.shares.as_deref()).zip(old_specs.as_deref());
            Choices::shares(&change.buckets.iter().collect::<Vec<_>>(), before, change.group.into())
        });
        let group = Group {
            id: change.group,
            kind: change.kind,
            buckets,
            created: old.map_or(now, |old| old.created),
            counters: Arc::new(Counters::new(now)),
            live: Vec::new(),
            shares: shares.flatten().map(Arc::new),
            choices: None,
        };
        self.replace(change.group, Some(group), ports);
    }

    pub fn remove(&mut self, id: u32, ports: &Ports) {
        self.replace(id, None, ports);
    }

    fn replace(&mut self, id: u32, new: Option<Group>, ports: &Ports) {
        if let Some(old) = self.groups.remove(&id) {
            old.forwards_to().into_iter().for_each(|to| discount(&mut self.forwarders, to));
            self.watchers -= usize::from(old.watches_groups());
        }
        if let Some(new) = new {
            new.forwards_to().into_iter().for_each(|to| count(&mut self.forwarders, to));
            self.watchers += usize::from(new.watches_groups());
            let new = new.with_live(new.live_buckets(ports, &HashSet::new()));
            self.groups.insert(id, Arc::new(new));
        }
        if self.watchers > 0 {
            self.follow_liveness(ports);
        }
    }

    /// Puts others in the place of the groups that have other live buckets than before.
    pub fn follow_liveness(&mut self, ports: &Ports) {
        let live_groups = if self.watchers > 0 { self.live_groups(ports) } else { HashSet::new() };
        let watching = self.iter().filter(|group| group.watches());
        let changed = watching.map(|group| (group, group.live_buckets(ports, &live_groups))).filter(|(group, live)| *live != group.live);
        let changed: Vec<_> = changed.map(|(group, live)| group.with_live(live)).collect();
        self.groups.extend(changed.into_iter().map(|group| (group.id, Arc::new(group))));
    }

    /// The groups that have a live bucket. What is watched in a circle is not live, unless something in the circle is for another reason.
    fn live_groups(&self, ports: &Ports) -> HashSet<u32> {
        let mut watchers: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut live = HashSet::new();
        let mut fresh = Vec::new();
        for group in self.iter() {
            if !group.live_buckets(ports, &HashSet::new()).is_empty() {
                live.insert(group.id);
                fresh.push(group.id);
            }
            for watched in group.buckets.iter().map(|bucket| bucket.spec.watch_group).filter(|watched| *watched != GROUP_ANY) {
                watchers.entry(watched).or_default().push(group.id);
            }
        }
        while let Some(group) = fresh.pop() {
            let watchers = watchers.get(&group).into_iter().flatten();
            fresh.extend(watchers.copied().filter(|watcher| live.insert(*watcher)));
        }
        live
    }

    /// Whether a change can be made, as far as the groups tell.
    pub fn check(&self, change: &GroupMod) -> Result<(), GroupModError> {
        let exists = self.groups.contains_key(&change.group);
        let delete = change.command == GroupCommand::Delete;
        match change.command {
            _ if change.group > GROUP_MAX && !(delete && change.group == GROUP_ALL) => return Err(GroupModError::Invalid),
            GroupCommand::Delete if self.forwarders.contains_key(&change.group) => return Err(GroupModError::Chained),
            GroupCommand::Delete => return Ok(()),
            GroupCommand::Add if exists => return Err(GroupModError::Exists),
            GroupCommand::Modify if !exists => return Err(GroupModError::Unknown),
            _ if !exists && self.groups.len() >= MAX_GROUPS => return Err(GroupModError::OutOfGroups),
            _ => {}
        }
        if change.buckets.len() > MAX_BUCKETS {
            return Err(GroupModError::OutOfBuckets);
        }
        if change.kind == GroupKind::Indirect && change.buckets.len() != 1 {
            return Err(GroupModError::Invalid);
        }
        change.buckets.iter().try_for_each(|bucket| self.check_watch(change, bucket))?;
        let next = change.buckets.iter().flat_map(|bucket| groups_in(&bucket.actions)).collect();
        if self.leads_to(next, change.group) { Err(GroupModError::Loop) } else { Ok(()) }
    }

    fn check_watch(&self, change: &GroupMod, bucket: &BucketSpec) -> Result<(), GroupModError> {
        let BucketSpec { watch_port, watch_group, .. } = *bucket;
        let watches = (watch_port, watch_group) != (PortNo::ANY, GROUP_ANY);
        let port = watch_port == PortNo::ANY || watch_port == PortNo::LOCAL || (PortNo(1)..=PortNo::MAX).contains(&watch_port);
        let group = watch_group == GROUP_ANY || watch_group != change.group && self.groups.contains_key(&watch_group);
        let enough = watches || change.kind != GroupKind::FastFailover;
        if port && group && enough { Ok(()) } else { Err(GroupModError::BadWatch) }
    }

    /// Whether frames that the groups `next` process can come to the group `id`.
    fn leads_to(&self, mut next: Vec<u32>, id: u32) -> bool {
        let mut seen = BTreeSet::new();
        while let Some(group) = next.pop() {
            if group == id {
                return true;
            }
            if seen.insert(group) {
                next.extend(self.get(group).into_iter().flat_map(|group| group.forwards_to()));
            }
        }
        false
    }
}

impl BucketSpec {
    /// Whether a bucket is live, given the groups that are.
    fn is_live(&self, ports: &Ports, live_groups: &HashSet<u32>) -> bool {
        let watches_nothing = (self.watch_port, self.watch_group) == (PortNo::ANY, GROUP_ANY);
        let port_lives = || ports.get(self.watch_port).is_some_and(|port| port.is_live());
        watches_nothing || port_lives() || live_groups.contains(&self.watch_group)
    }
}

impl Bucket {
    fn new(spec: &BucketSpec, now: Nanos) -> Self {
        Self { spec: spec.clone(), in_order: in_order(&spec.actions), counters: Arc::new(Counters::new(now)) }
    }
}

impl std::fmt::Display for GroupModError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exists => "the group is there already",
            Self::Invalid => "no group can have this number, or none of this kind these buckets",
            Self::OutOfGroups => "there are as many groups as there can be",
            Self::OutOfBuckets => "the group has too many buckets",
            Self::Loop => "the group would process its own frames",
            Self::Unknown => "there is no such group",
            Self::Chained => "another group forwards to the group",
            Self::BadWatch => "a bucket watches nothing, or what can't be watched",
            Self::BadAction(error) => return write!(f, "an action of a bucket: {error}"),
        })
    }
}

impl std::error::Error for GroupModError {}

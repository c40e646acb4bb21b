//! What the controllers said: flow tables, ports and learned addresses, published to the workers as one snapshot.

mod action_set;
mod check;
mod choices;
mod counters;
mod edit;
mod flow_mod;
pub mod group;
pub mod instruction;
mod learners;
mod macs;
pub mod meter;
mod ports;
mod rule;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod vlan;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use action_set::ActionSet;
pub use choices::Choices;
pub use counters::{PortCounters, PortStripe, PortTotals, QueueTotals};
pub use flow_mod::{FlowMod, FlowModCommand, FlowModError, FlowModOutcome};
pub use macs::{DEFAULT_AGE, DEFAULT_CAPACITY, MacDependency, MacTable};
pub use ports::{Port, PortConfig, PortError, Ports};
pub use rule::{Counters, Removed, RemovedReason, Rule, RuleFilter, RuleFlags};
pub use vlan::{VlanMode, VlanSet};

use check::is_port;
use group::{Group, Groups};
use learners::Learners;
use meter::{Meter, Meters};
use table::Table;
use timers::Timers;

use crate::key::{Flow, FlowMask, Match};
use crate::port::PortNo;
use crate::translate::Continuations;

/// The number of flow tables: 0 to 253. OpenFlow can't name more (`OFPTT_MAX` is 254, which is left to the switch itself).
pub const TABLE_COUNT: usize = 254;
/// The most rules in one table.
pub const MAX_RULES: usize = 1_000_000;

/// Everything that forwarding goes by. A clone is a snapshot, and cheap.
#[derive(Clone, Debug)]
pub struct Tables {
    tables: Vec<Arc<Table>>,
    ports: Arc<Ports>,
    macs: Arc<MacTable>,
    counters: Arc<[TableCounters]>,
    groups: Arc<Groups>,
    meters: Arc<Meters>,
    learners: Arc<Learners>,
    timers: Timers,
    continuations: Arc<Continuations>,
    max_rules: usize,
    epoch: u64,
    invalid_ttl_to_controller: bool,
    misses_to_controller: bool,
    drops_fragments: bool,
}

/// What a table was used for; shared by all snapshots.
#[derive(Debug, Default)]
pub struct TableCounters {
    lookups: AtomicU64,
    matches: AtomicU64,
}

impl TableCounters {
    /// Adds frames that were looked up, and those of them that a rule matched.
    pub fn credit(&self, lookups: u64, matches: u64) {
        self.lookups.fetch_add(lookups, Ordering::Relaxed);
        self.matches.fetch_add(matches, Ordering::Relaxed);
    }

    /// Frames looked up.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// Frames that a rule matched.
    pub fn matches(&self) -> u64 {
        self.matches.load(Ordering::Relaxed)
    }
}

impl Tables {
    /// Empty tables and no ports. Addresses are learned into `macs`.
    pub fn new(macs: Arc<MacTable>) -> Self {
        Self {
            tables: vec![Arc::default(); TABLE_COUNT],
            ports: Arc::default(),
            macs,
            counters: (0..TABLE_COUNT).map(|_| TableCounters::default()).collect(),
            groups: Arc::default(),
            meters: Arc::default(),
            learners: Arc::default(),
            timers: Timers::default(),
            continuations: Arc::default(),
            max_rules: MAX_RULES,
            epoch: 0,
            invalid_ttl_to_controller: false,
            misses_to_controller: false,
            drops_fragments: false,
        }
    }

    /// A number that grows with every change that can change what becomes of a frame.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether frames whose TTL ran out are given to the controllers, and not dropped.
    pub fn invalid_ttl_to_controller(&self) -> bool {
        self.invalid_ttl_to_controller
    }

    /// Says whether the controllers want the frames whose TTL ran out.
    pub fn set_invalid_ttl_to_controller(&mut self, wanted: bool) {
        self.invalid_ttl_to_controller = wanted;
        self.epoch += 1;
    }

    /// Whether frames that no rule matches are given to the controllers, and not dropped: so has OpenFlow 1.0 it (3.4).
    pub fn misses_to_controller(&self) -> bool {
        self.misses_to_controller
    }

    /// Says whether the controllers want the frames that no rule matches.
    pub fn set_misses_to_controller(&mut self, wanted: bool) {
        self.misses_to_controller = wanted;
        self.epoch += 1;
    }

    /// Whether IP fragments are dropped before the tables see them (`OFPC_FRAG_DROP`).
    pub fn drops_fragments(&self) -> bool {
        self.drops_fragments
    }

    /// Says whether IP fragments are dropped before the tables see them.
    pub fn set_drops_fragments(&mut self, drops: bool) {
        self.drops_fragments = drops;
        self.epoch += 1;
    }

    /// The ports.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The learned addresses.
    pub fn macs(&self) -> &Arc<MacTable> {
        &self.macs
    }

    /// The group with this number.
    pub fn group(&self, id: u32) -> Option<&Arc<Group>> {
        self.groups.get(id)
    }

    /// All groups, in the order of their numbers.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.iter()
    }

    /// How many rules and groups forward to a group.
    pub fn group_references(&self, id: u32) -> usize {
        self.groups.references(id)
    }

    /// The meter with this number.
    pub fn meter(&self, id: u32) -> Option<&Arc<Meter>> {
        self.meters.get(id)
    }

    /// All meters, in the order of their numbers.
    pub fn meters(&self) -> impl Iterator<Item = &Arc<Meter>> {
        self.meters.iter()
    }

    /// How many rules use a meter.
    pub fn meter_users(&self, id: u32) -> usize {
        self.meters.users(id)
    }

    /// The counters of a table. Panics if there is no such table.
    pub fn counters(&self, table: u8) -> &TableCounters {
        &self.counters[usize::from(table)]
    }

    /// The number of rules in a table. Panics if there is no such table.
    pub fn rule_count(&self, table: u8) -> usize {
        self.tables[usize::from(table)].len()
    }

    /// The rule of `table` that says what to do with `flow`. Or-s into `examined` the bits that the answer depends on.
    /// Panics if there is no such table.
    pub fn lookup(&self, table: u8, flow: &Flow, examined: &mut FlowMask) -> Option<&Arc<Rule>> {
        self.tables[usize::from(table)].lookup(flow, examined)
    }

    /// The rule of `table` with exactly this match and priority. `None` also if there is no such table.
    pub fn rule(&self, table: u8, matching: &Match, priority: u16) -> Option<&Arc<Rule>> {
        self.tables.get(usize::from(table))?.get(matching, priority)
    }

    /// What translations go on with that were frozen.
    pub(crate) fn continuations(&self) -> &Arc<Continuations> {
        &self.continuations
    }

    /// The rules that `filter` selects; none if it names a table that does not exist.
    pub fn rules<'a>(&'a self, filter: &'a RuleFilter) -> impl Iterator<Item = &'a Arc<Rule>> {
        let tables = match filter.table {
            RuleFilter::ALL_TABLES => &self.tables[..],
            table => self.tables.get(usize::from(table)).map_or(&[][..], std::slice::from_ref),
        };
        let strict = |table: &'a Table| table.get(&filter.matching, filter.priority?);
        let loose = |table: &'a Table| filter.priority.is_none().then(|| table.included(&filter.matching));
        tables
            .iter()
            .flat_map(move |table| strict(table).into_iter().chain(loose(table).into_iter().flatten()))
            .filter(|rule| filter.selects(rule))
    }

    /// Adds a port.
    pub fn add_port(&mut self, port: Port) -> Result<Arc<Port>, PortError> {
        if !is_port(port.no) {
            return Err(PortError::BadNumber(port.no));
        }
        if self.ports.get(port.no).is_some() {
            return Err(PortError::NumberInUse(port.no));
        }
        if self.ports.by_name(&port.name).is_some() {
            return Err(PortError::NameInUse(port.name));
        }
        Ok(self.put_port(port))
    }

    /// Removes a port and what was learned there. Rules that name it stay. Asking twice is harmless.
    pub fn remove_port(&mut self, no: PortNo) -> Option<Arc<Port>> {
        let port = Arc::make_mut(&mut self.ports).remove(no)?;
        self.macs.flush(no);
        self.ports_changed();
        Some(port)
    }

    /// Carries out a port-mod (OpenFlow 1.3.5, 7.3.4.3): sets the bits `mask` of the port's configuration to those of `config`.
    pub fn modify_port(&mut self, no: PortNo, hw_addr: [u8; 6], config: PortConfig, mask: PortConfig) -> Result<Arc<Port>, PortError> {
        let mut port = self.port(no)?;
        if port.hw_addr != hw_addr {
            return Err(PortError::BadHwAddr(no));
        }
        if mask.0 & !PortConfig::ALL.0 != 0 {
            return Err(PortError::BadConfig(no));
        }
        port.config = PortConfig(port.config.0 & !mask.0 | config.0 & mask.0);
        Ok(self.put_port(port))
    }

    /// Says whether somebody is at the other end of a port.
    pub fn set_link(&mut self, no: PortNo, up: bool) -> Result<Arc<Port>, PortError> {
        let port = self.port(no)?;
        Ok(self.put_port(Port { link_up: up, ..port }))
    }

    /// Says how the network device behind a port is.
    pub fn set_device(&mut self, no: PortNo, up: bool, mtu: u16, speed: Option<u32>) -> Result<Arc<Port>, PortError> {
        let port = self.port(no)?;
        Ok(self.put_port(Port { link_up: up, mtu, speed, ..port }))
    }

    /// Changes how a port carries VLANs.
    pub fn set_vlan(&mut self, no: PortNo, vlan: VlanMode) -> Result<Arc<Port>, PortError> {
        let port = self.port(no)?;
        Ok(self.put_port(Port { vlan, ..port }))
    }

    fn port(&self, no: PortNo) -> Result<Port, PortError> {
        self.ports.get(no).map(|port| Port::clone(port)).ok_or(PortError::NoSuchPort(no))
    }

    fn put_port(&mut self, port: Port) -> Arc<Port> {
        let port = Arc::new(port);
        Arc::make_mut(&mut self.ports).insert(port.clone());
        self.ports_changed();
        port
    }

    fn ports_changed(&mut self) {
        if self.groups.iter().next().is_some() {
            Arc::make_mut(&mut self.groups).follow_liveness(&self.ports);
        }
        self.epoch += 1;
    }
}

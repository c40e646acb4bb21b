//! A switch that is right by reading it: it looks at every rule for every frame, parses the frame anew after every change, and computes
//! every checksum from the first byte. What the datapath does in clever ways is held against it.
//!
//! It takes over from the datapath what is tested elsewhere: how a frame is parsed into a key, and what a flow-mod does to a list of rules.

use std::collections::HashMap;
use std::sync::Arc;

use datapath::key::{self, Field, Flow, FlowKey, KEY_WORDS, Match, STATE_WORDS};
use datapath::port::PortNo;
use datapath::tables::group::{BucketSpec, GROUP_ANY, Group, GroupKind};
use datapath::tables::instruction::OfAction;
use datapath::tables::meter::{BandKind, MeterCommand, MeterMod};
use datapath::tables::{FlowMod, PortConfig, Rule, RuleFilter, Tables, VlanMode};

/// A port of the reference.
#[derive(Clone, Debug)]
pub struct LinearPort {
    /// Its number.
    pub no: PortNo,
    /// How it carries VLANs.
    pub vlan: VlanMode,
    /// What controllers want of it.
    pub config: PortConfig,
    /// Whether somebody is at the other end.
    pub link_up: bool,
}

impl LinearPort {
    /// A port that is up and open.
    pub fn new(no: PortNo, vlan: VlanMode) -> Self {
        Self { no, vlan, config: PortConfig::default(), link_up: true }
    }

    fn has(&self, bits: &[PortConfig]) -> bool {
        bits.iter().any(|bit| self.config.intersects(*bit))
    }

    /// Whether a flood from `in_port` reaches it.
    fn is_flooded(&self, in_port: PortNo) -> bool {
        self.no != in_port && self.link_up && !self.has(&[PortConfig::NO_FLOOD])
    }
}

/// What became of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Where copies went, in the order they were sent.
    pub sent: Vec<(PortNo, Vec<u8>)>,
    /// How many copies the controllers got.
    pub to_controller: usize,
}

/// See the module.
#[derive(Debug)]
pub struct LinearSwitch {
    /// The ports, by number.
    pub ports: Vec<LinearPort>,
    /// All rules of all tables.
    pub rules: Vec<Arc<Rule>>,
    /// All groups.
    pub groups: Vec<Arc<Group>>,
    /// All meters, each with the frames that it measured since it was made.
    pub meters: HashMap<u32, (MeterMod, u64)>,
    /// Where stations were seen, by VLAN and address.
    macs: HashMap<(u16, u64), PortNo>,
    /// The frames and bytes of each rule, by what identifies it.
    pub counts: HashMap<RuleId, (u64, u64)>,
    /// The lookups in each table, and those of them that found a rule.
    pub lookups: HashMap<u8, (u64, u64)>,
    /// The frames that each group got, and each bucket of it, since they were forgotten.
    pub group_counts: HashMap<(u32, Option<usize>), u64>,
}

/// What identifies a rule: table, priority, match.
pub type RuleId = (u8, u16, Match);

/// What identifies `rule`.
pub fn rule_id(rule: &Rule) -> RuleId {
    (rule.table, rule.priority, rule.matching.expand())
}

/// What the rules of the switch under test count, those included that were removed or replaced meanwhile.
#[derive(Debug, Default)]
pub struct RuleCounts {
    gone: HashMap<RuleId, (u64, u64)>,
}

impl RuleCounts {
    /// Carries a flow-mod out, if the tables take it. The counters must be settled.
    pub fn carry_out(&mut self, tables: &mut Tables, flow_mod: &FlowMod) -> bool {
        self.change(tables, |tables| tables.flow_mod(flow_mod, 0).is_ok())
    }

    /// Carries any change to the tables out, and says whether they took it. The counters must be settled.
    pub fn change(&mut self, tables: &mut Tables, change: impl FnOnce(&mut Tables) -> bool) -> bool {
        let before: Vec<_> = tables.rules(&RuleFilter::ALL).cloned().collect();
        if !change(tables) {
            return false;
        }
        let after: Vec<_> = tables.rules(&RuleFilter::ALL).cloned().collect();
        for rule in before {
            if !after.iter().any(|kept| Arc::ptr_eq(&kept.counters, &rule.counters)) {
                let gone = self.gone.entry(rule_id(&rule)).or_default();
                *gone = (gone.0 + rule.counters.frames(), gone.1 + rule.counters.bytes());
            }
        }
        true
    }

    /// The frames and bytes of each rule that ever counted any. The counters must be settled.
    pub fn counts(&self, tables: &Tables) -> HashMap<RuleId, (u64, u64)> {
        let mut counts = self.gone.clone();
        for rule in tables.rules(&RuleFilter::ALL) {
            let count = counts.entry(rule_id(rule)).or_default();
            *count = (count.0 + rule.counters.frames(), count.1 + rule.counters.bytes());
        }
        counts.retain(|_, count| *count != (0, 0));
        counts
    }
}

/// Nothing more is done to a frame but what its action set says.
struct Exit;

impl LinearSwitch {
    /// A switch with these ports and no rules.
    pub fn new(ports: Vec<LinearPort>) -> Self {
        Self {
            ports,
            rules: Vec::new(),
            groups: Vec::new(),
            meters: HashMap::new(),
            macs: HashMap::new(),
            counts: HashMap::new(),
            lookups: HashMap::new(),
            group_counts: HashMap::new(),
        }
    }

    /// The port with this number.
    pub fn port(&mut self, no: PortNo) -> &mut LinearPort {
        self.ports.iter_mut().find(|port| port.no == no).expect("a port of the switch")
    }

    /// Forwards a frame. The source address of an NORMAL frame is learned for good.
    pub fn forward(&mut self, in_port: PortNo, frame: &[u8]) -> Verdict {
        if self.port(in_port).has(&[PortConfig::PORT_DOWN, PortConfig::NO_RECV]) {
            return Verdict::default();
        }
        let mut walk = Walk {
            size: frame.len() as u64,
            in_port,
            matched_port: in_port,
            bytes: frame.to_vec(),
            hash: flow_hash(frame, in_port),
            state: [0; STATE_WORDS],
            stack: Vec::new(),
            expired: false,
            set: Vec::new(),
            verdict: Verdict::default(),
            switch: self,
        };
        let _ = walk.table(0);
        let _ = walk.carry_out_set();
        walk.verdict
    }

    /// Carries a change to the meters out, which the tables have taken.
    pub fn meter_mod(&mut self, change: &MeterMod) {
        match change.command {
            MeterCommand::Delete => drop(self.meters.remove(&change.meter)),
            MeterCommand::Add | MeterCommand::Modify => drop(self.meters.insert(change.meter, (change.clone(), 0))),
        }
    }

    /// The frames that each meter measured, and those that were too many.
    pub fn meter_counts(&self) -> HashMap<u32, (u64, u64)> {
        self.meters.iter().map(|(id, (meter, frames))| (*id, (*frames, frames.saturating_sub(meter.bands[0].burst.into())))).collect()
    }

    /// Whether a bucket is live, if the groups `seen` lead here.
    fn is_live(&self, bucket: &BucketSpec, seen: &[u32]) -> bool {
        let port = self.ports.iter().find(|port| port.no == bucket.watch_port);
        let port_lives = port.is_some_and(|port| port.link_up && !port.has(&[PortConfig::PORT_DOWN]));
        let group = self.groups.iter().find(|group| group.id == bucket.watch_group && !seen.contains(&group.id));
        let group_lives = group.is_some_and(|group| {
            let seen = [seen, &[group.id]].concat();
            group.buckets.iter().any(|bucket| self.is_live(&bucket.spec, &seen))
        });
        let watches_nothing = bucket.watch_port == PortNo::ANY && bucket.watch_group == GROUP_ANY;
        watches_nothing || port_lives || group_lives
    }
}

struct Walk<'a> {
    switch: &'a mut LinearSwitch,
    size: u64,
    in_port: PortNo,
    /// What a match on the ingress port sees: a resubmit may pretend.
    matched_port: PortNo,
    bytes: Vec<u8>,
    /// That of the flow that came in.
    hash: u32,
    state: [u64; STATE_WORDS],
    stack: Vec<u128>,
    /// The TTL ran out, or a meter dropped it: rules go on matching, and nothing is sent any more.
    expired: bool,
    set: Vec<OfAction>,
    verdict: Verdict,
}

impl Walk<'_> {
    fn flow(&self) -> Flow {
        let mut key = FlowKey::ZERO;
        key::extract(&self.bytes, self.bytes.len(), self.matched_port, &mut key).expect("an Ethernet frame");
        let mut flow = Flow::new(&key);
        flow.0[KEY_WORDS..].copy_from_slice(&self.state);
        flow
    }

    fn lookup(&mut self, table: u8) -> Option<Arc<Rule>> {
        let rule = self.best_rule(table);
        let lookups = self.switch.lookups.entry(table).or_default();
        *lookups = (lookups.0 + 1, lookups.1 + u64::from(rule.is_some()));
        let rule = rule?;
        let count = self.switch.counts.entry(rule_id(&rule)).or_default();
        *count = (count.0 + 1, count.1 + self.size);
        Some(rule)
    }

    fn best_rule(&self, table: u8) -> Option<Arc<Rule>> {
        let flow = self.flow();
        let of_table: Vec<_> = self.switch.rules.iter().filter(|rule| rule.table == table).collect();
        let best = |flow: &Flow| {
            let matching = of_table.iter().filter(|rule| clauses(rule).is_empty() && rule.matching.expand().matches(flow));
            matching.max_by_key(|rule| rule.priority).map(|rule| Arc::clone(rule))
        };
        let found = best(&flow);
        let met: Vec<_> = of_table.iter().filter(|rule| !clauses(rule).is_empty() && rule.matching.expand().matches(&flow)).collect();
        let mut conjunctions: Vec<(u16, u32)> =
            met.iter().flat_map(|rule| clauses(rule).into_iter().map(|c| (rule.priority, c.0))).collect();
        conjunctions.sort_by_key(|(priority, id)| (std::cmp::Reverse(*priority), *id));
        for (priority, id) in conjunctions.into_iter().filter(|(priority, _)| found.as_ref().is_none_or(|found| *priority > found.priority))
        {
            let of_it = met.iter().filter(|rule| rule.priority == priority).flat_map(|rule| clauses(rule)).filter(|clause| clause.0 == id);
            let of_it: Vec<_> = of_it.collect();
            if of_it.iter().any(|(_, _, count)| (0..*count).all(|clause| of_it.iter().any(|met| met.1 == clause))) {
                let mut flow = flow;
                Field::ConjId.write(&mut flow, id.into());
                if let Some(rule) = best(&flow) {
                    return Some(rule);
                }
            }
        }
        found
    }

    /// Goes through the tables. A frame that no rule matched on the way has no action set.
    fn table(&mut self, table: u8) -> Result<(), Exit> {
        match self.lookup(table) {
            Some(rule) => self.rule(&rule),
            None => {
                self.set.clear();
                Ok(())
            }
        }
    }

    /// As many frames pass as the burst of its only band; time stands still.
    fn meter(&mut self, id: u32) {
        let (meter, frames) = self.switch.meters.get_mut(&id).expect("a rule goes with its meter");
        if self.expired {
            return;
        }
        *frames += 1;
        let band = meter.bands[0];
        match band.kind {
            _ if *frames <= band.burst.into() => {}
            BandKind::Drop => self.expired = true,
            BandKind::DscpRemark(levels) => {
                let dscp = Field::IpDscp.read(&self.flow());
                let (class, precedence) = (dscp >> 3, dscp >> 1 & 3);
                if dscp & 1 == 0 && (1..=4).contains(&class) && precedence > 0 {
                    self.write(Field::IpDscp, class << 3 | (precedence + u128::from(levels)).min(3) << 1, 0x3f);
                }
            }
        }
    }

    fn rule(&mut self, rule: &Rule) -> Result<(), Exit> {
        if let Some(meter) = rule.instructions.meter {
            self.meter(meter);
        }
        for action in rule.instructions.apply.iter() {
            self.action(action, rule.table)?;
        }
        if rule.instructions.clear {
            self.set.clear();
        }
        for action in rule.instructions.write.iter() {
            // The newest action of a kind stays; fields are kinds of their own.
            self.set.retain(|old| kind(old) != kind(action));
            self.set.push(action.clone());
        }
        if let Some((value, mask)) = rule.instructions.metadata {
            self.state[0] = self.state[0] & !mask | value & mask;
        }
        rule.instructions.goto.map_or(Ok(()), |next| self.table(next))
    }

    /// OpenFlow 1.3.5, 5.10: TTL inwards, pop, push, ..., decrement, set, ..., output.
    fn carry_out_set(&mut self) -> Result<(), Exit> {
        let mut set = std::mem::take(&mut self.set);
        set.sort_by_key(|action| match action {
            OfAction::CopyTtlIn => 0,
            OfAction::PopVlan => 1,
            OfAction::PopPbb => 2,
            OfAction::PopMpls(_) => 3,
            OfAction::PushMpls(_) => 4,
            OfAction::PushPbb => 5,
            OfAction::PushVlan(_) => 6,
            OfAction::CopyTtlOut => 7,
            OfAction::DecNwTtl => 8,
            OfAction::DecMplsTtl => 9,
            OfAction::SetField { .. } => 10,
            OfAction::Group(_) => 11,
            _ => 12,
        });
        if set.iter().any(|action| matches!(action, OfAction::Group(_))) {
            set.retain(|action| !matches!(action, OfAction::Output { .. }));
        }
        set.iter().try_for_each(|action| self.action(action, 0))
    }

    /// Does something to a copy of the frame.
    fn copy(&mut self, with: impl FnOnce(&mut Self) -> Result<(), Exit>) {
        let saved = (self.bytes.clone(), self.state, self.stack.clone(), std::mem::take(&mut self.set), self.expired);
        let _ = with(self);
        (self.bytes, self.state, self.stack, self.set, self.expired) = saved;
    }

    fn group(&mut self, id: u32) {
        let Some(group) = self.switch.groups.iter().find(|group| group.id == id).cloned() else { return };
        *self.switch.group_counts.entry((id, None)).or_default() += 1;
        let live = |at: &usize| self.switch.is_live(&group.buckets[*at].spec, &[id]);
        let buckets: Vec<usize> = match group.kind {
            GroupKind::All | GroupKind::Indirect => (0..group.buckets.len()).collect(),
            GroupKind::FastFailover => (0..group.buckets.len()).find(live).into_iter().collect(),
            GroupKind::Select => group.choices().map(|choices| choices.choose(self.hash).into()).into_iter().collect(),
        };
        for at in buckets {
            *self.switch.group_counts.entry((id, Some(at))).or_default() += 1;
            self.copy(|walk| {
                for action in group.buckets[at].spec.actions.iter() {
                    walk.set.retain(|old| kind(old) != kind(action));
                    walk.set.push(action.clone());
                }
                walk.carry_out_set()
            });
        }
    }

    /// Where the header behind the VLAN tags begins, of which the key knows two, and its Ethernet type.
    fn network(&self) -> (usize, u16) {
        let kind = |at: usize| u16::from_be_bytes([self.bytes[at - 2], self.bytes[at - 1]]);
        let mut at = 14;
        while at < 22 && matches!(kind(at), 0x8100 | 0x88a8) {
            at += 4;
        }
        (at, kind(at))
    }

    fn is_mpls(&self) -> bool {
        matches!(self.network().1, 0x8847 | 0x8848)
    }

    fn push_mpls(&mut self, kind: u16) {
        let (at, _) = self.network();
        let entry = if self.is_mpls() {
            [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2] & !1, self.bytes[at + 3]]
        } else {
            let ttl = ip(&self.bytes).map_or(0, |(at, version, _)| self.bytes[at + if version == 4 { 8 } else { 7 }]);
            [0, 0, 1, ttl]
        };
        self.bytes.splice(at..at, entry);
        self.bytes[at - 2..at].copy_from_slice(&kind.to_be_bytes());
    }

    fn push_pbb(&mut self) {
        let (at, kind) = self.network();
        let mut tag = if kind == 0x88e7 { [0, self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]] } else { [0; 4] };
        if self.tagged() {
            tag[0] = self.bytes[14] & 0xe0;
        }
        let header = [&self.bytes[..12], &[0x88, 0xe7], &tag].concat();
        self.bytes.splice(0..0, header);
    }

    /// Copies the TTL between the outermost MPLS entry and what is behind it: another, or IPv4.
    fn copy_ttl(&mut self, out: bool) {
        let (at, _) = self.network();
        let bottom = self.bytes[at + 2] & 1 != 0;
        let inner = if bottom { at + 4 + 8 } else { at + 4 + 3 };
        if out {
            self.bytes[at + 3] = self.bytes[inner];
        } else {
            self.bytes[inner] = self.bytes[at + 3];
            if bottom {
                self.bytes[at + 4 + 10..at + 4 + 12].fill(0);
                let checksum = !sum(&self.bytes[at + 4..at + 24], 0);
                self.bytes[at + 4 + 10..at + 4 + 12].copy_from_slice(&checksum.to_be_bytes());
            }
        }
    }

    fn action(&mut self, action: &OfAction, table: u8) -> Result<(), Exit> {
        match *action {
            OfAction::Output { port, .. } => self.output(port),
            OfAction::SetField { field, value, mask } => self.write(field, value, mask),
            OfAction::PushVlan(tpid) => {
                let tci = if self.tagged() { [self.bytes[14], self.bytes[15]] } else { [0, 0] };
                let tag = [tpid.to_be_bytes(), tci].concat();
                self.bytes.splice(12..12, tag);
            }
            OfAction::PopVlan if self.tagged() => drop(self.bytes.drain(12..16)),
            OfAction::PopVlan => {}
            OfAction::PushMpls(kind) => self.push_mpls(kind),
            OfAction::PopMpls(kind) if self.is_mpls() => {
                let (at, _) = self.network();
                self.bytes.drain(at..at + 4);
                self.bytes[at - 2..at].copy_from_slice(&kind.to_be_bytes());
            }
            OfAction::PushPbb => self.push_pbb(),
            OfAction::PopPbb if self.network().1 == 0x88e7 => drop(self.bytes.drain(..self.network().0 + 4)),
            OfAction::CopyTtlOut | OfAction::CopyTtlIn if self.is_mpls() => self.copy_ttl(*action == OfAction::CopyTtlOut),
            OfAction::DecMplsTtl if self.is_mpls() => {
                let (at, _) = self.network();
                assert!(self.bytes[at + 3] > 1, "the generator lets no MPLS entry expire");
                self.bytes[at + 3] -= 1;
            }
            OfAction::PopMpls(_) | OfAction::PopPbb | OfAction::CopyTtlOut | OfAction::CopyTtlIn | OfAction::DecMplsTtl => {}
            OfAction::Group(group) => self.group(group),
            OfAction::Clone(ref actions) => {
                let set = self.set.clone();
                self.copy(|walk| {
                    walk.set = set;
                    let _ = actions.iter().try_for_each(|action| walk.action(action, table));
                    walk.carry_out_set()
                });
            }
            OfAction::Exit => return Err(Exit),
            OfAction::Conjunction { .. } | OfAction::Note(_) => {}
            OfAction::StackPush(source) => {
                let value = source.field.read(&self.flow()) >> source.offset & u128::MAX >> (128 - u32::from(source.bits));
                self.stack.push(value);
            }
            OfAction::StackPop(to) => {
                if let Some(value) = self.stack.pop() {
                    let ones = u128::MAX >> (128 - u32::from(to.bits));
                    self.write(to.field, (value & ones) << to.offset, ones << to.offset);
                }
            }
            OfAction::DecNwTtl => self.decrement_ttl(),
            OfAction::Resubmit { port, table: to } => {
                let saved = self.matched_port;
                if port != PortNo::IN_PORT {
                    self.matched_port = port;
                }
                let rule = self.lookup(to.unwrap_or(table));
                self.matched_port = saved;
                if let Some(rule) = rule {
                    self.rule(&rule)?;
                }
            }
            OfAction::Move { source, destination } => {
                let ones = |bits: u8| u128::MAX >> (128 - u32::from(bits));
                let value = source.field.read(&self.flow()) >> source.offset & ones(source.bits);
                self.write(destination.field, value << destination.offset, ones(destination.bits) << destination.offset);
            }
            ref other => panic!("the generator makes no {other:?}"),
        }
        Ok(())
    }

    fn tagged(&self) -> bool {
        matches!(self.bytes[12..14], [0x81, 0x00] | [0x88, 0xa8])
    }

    fn output(&mut self, port: PortNo) {
        match port {
            PortNo::CONTROLLER => self.verdict.to_controller += usize::from(!self.expired),
            PortNo::IN_PORT => self.send(self.in_port, self.bytes.clone()),
            PortNo::ALL | PortNo::FLOOD => {
                let others = self.switch.ports.iter().filter(|to| match port {
                    PortNo::ALL => to.no != self.in_port && to.link_up,
                    _ => to.is_flooded(self.in_port),
                });
                let others: Vec<_> = others.map(|to| to.no).collect();
                others.iter().for_each(|no| self.send(*no, self.bytes.clone()));
            }
            PortNo::NORMAL => self.normal(),
            port if port == self.in_port => {}
            port if self.switch.ports.iter().any(|known| known.no == port) => self.send(port, self.bytes.clone()),
            _ => {}
        }
    }

    fn send(&mut self, port: PortNo, bytes: Vec<u8>) {
        let closed = [PortConfig::PORT_DOWN, PortConfig::NO_FWD];
        if !self.expired && !self.switch.port(port).has(&closed) {
            self.verdict.sent.push((port, bytes));
        }
    }

    fn normal(&mut self) {
        let address = |at: usize| self.bytes[at..at + 6].iter().fold(0u64, |address, byte| address << 8 | u64::from(*byte));
        let (destination, source) = (address(0), address(6));
        let group = |address: u64| address >> 40 & 1 == 1;
        if destination & !0xf == 0x0180_c200_0000 {
            return;
        }
        let tag = self.tagged().then(|| u16::from_be_bytes([self.bytes[14], self.bytes[15]]) & 0xfff);
        let mode = self.switch.ports.iter().find(|port| port.no == self.in_port).expect("frames come from ports").vlan.clone();
        let Some(vlan) = mode.ingress(tag) else { return };
        if !group(source) {
            self.switch.macs.insert((vlan, source), self.in_port);
        }
        let known = if group(destination) { None } else { self.switch.macs.get(&(vlan, destination)).copied() };
        let ports: Vec<_> = self.switch.ports.iter().filter(|port| port.vlan.carries(vlan)).cloned().collect();
        let known = known.filter(|known| ports.iter().any(|port| port.no == *known));
        let mut untagged = self.bytes.clone();
        if tag.is_some() {
            untagged.drain(12..16);
        }
        let mut tagged = self.bytes.clone();
        if tag.is_none() {
            tagged.splice(12..12, [0x81, 0, 0, 0]);
        }
        let tci = u16::from_be_bytes([tagged[14], tagged[15]]) & 0xf000 | vlan;
        tagged[14..16].copy_from_slice(&tci.to_be_bytes());
        for port in ports {
            let gets_it = known.map_or_else(|| port.is_flooded(self.in_port), |known| known == port.no && port.no != self.in_port);
            if gets_it {
                self.send(port.no, if port.vlan.tags(vlan) { tagged.clone() } else { untagged.clone() });
            }
        }
    }

    fn decrement_ttl(&mut self) {
        let Some((at, version, _)) = ip(&self.bytes) else { return };
        let ttl = &mut self.bytes[at + if version == 4 { 8 } else { 7 }];
        if *ttl <= 1 {
            self.expired = true;
            *ttl = ttl.saturating_sub(1);
        } else {
            *ttl -= 1;
        }
        correct_checksums(&mut self.bytes);
    }

    fn write(&mut self, field: Field, value: u128, mask: u128) {
        let mut flow = self.flow();
        if !field.applies_to(&flow) {
            return;
        }
        let value = field.read(&flow) & !mask | value & mask;
        field.write(&mut flow, value);
        self.state.copy_from_slice(&flow.0[KEY_WORDS..]);
        let ip = ip(&self.bytes);
        let put = |bytes: &mut [u8], at: usize, len: usize| bytes[at..at + len].copy_from_slice(&value.to_be_bytes()[16 - len..]);
        match field {
            Field::EthDst => put(&mut self.bytes, 0, 6),
            Field::EthSrc => put(&mut self.bytes, 6, 6),
            Field::VlanVid if self.tagged() => {
                let tci = u16::from_be_bytes([self.bytes[14], self.bytes[15]]) & 0xf000 | value as u16 & 0xfff;
                self.bytes[14..16].copy_from_slice(&tci.to_be_bytes());
            }
            Field::VlanPcp if self.tagged() => self.bytes[14] = self.bytes[14] & 0x1f | (value as u8) << 5,
            Field::IpDscp => match ip {
                Some((at, 4, _)) => self.bytes[at + 1] = self.bytes[at + 1] & 3 | (value as u8) << 2,
                Some((at, ..)) => {
                    let word = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]) & 0xf03f | (value as u16) << 6;
                    self.bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
                }
                None => {}
            },
            Field::MplsLabel | Field::MplsTc | Field::PbbIsid => {
                let (at, _) = self.network();
                let mut entry = u32::from_be_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"));
                let (shift, ones) = match field {
                    Field::MplsLabel => (12, 0xf_ffff),
                    Field::MplsTc => (9, 7),
                    _ => (0, 0xff_ffff),
                };
                entry = entry & !(ones << shift) | (value as u32) << shift;
                self.bytes[at..at + 4].copy_from_slice(&entry.to_be_bytes());
            }
            Field::Ipv4Src => put(&mut self.bytes, ip.expect("its prerequisite").0 + 12, 4),
            Field::Ipv4Dst => put(&mut self.bytes, ip.expect("its prerequisite").0 + 16, 4),
            Field::Ipv6Dst => put(&mut self.bytes, ip.expect("its prerequisite").0 + 24, 16),
            Field::UdpSrc | Field::TcpSrc => put(&mut self.bytes, ip.expect("its prerequisite").2, 2),
            Field::UdpDst | Field::TcpDst => put(&mut self.bytes, ip.expect("its prerequisite").2 + 2, 2),
            field if field.is_state() || field == Field::VlanVid || field == Field::VlanPcp => {}
            field => panic!("the generator writes no {field:?}"),
        }
        correct_checksums(&mut self.bytes);
    }
}

/// What a rule is a clause of: conjunctions, which clause, and of how many.
fn clauses(rule: &Rule) -> Vec<(u32, u8, u8)> {
    let clause = |action: &OfAction| match *action {
        OfAction::Conjunction { id, clause, clauses } => Some((id, clause, clauses)),
        _ => None,
    };
    rule.instructions.apply.iter().filter_map(clause).collect()
}

/// The hash by which a select group chooses for a frame.
fn flow_hash(frame: &[u8], in_port: PortNo) -> u32 {
    let mut key = FlowKey::ZERO;
    key::extract(frame, frame.len(), in_port, &mut key).expect("an Ethernet frame");
    key::spread(&key)
}

/// The first byte of a frame's IP header, its version, and the first byte of the transport header. The frame is well-formed.
pub fn ip(bytes: &[u8]) -> Option<(usize, u8, usize)> {
    let tagged = |at: usize| matches!(bytes[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]);
    let at = if tagged(12) { if tagged(16) { 22 } else { 18 } } else { 14 };
    match bytes[at - 2..at] {
        [0x08, 0x00] => Some((at, 4, at + 20)),
        [0x86, 0xdd] => Some((at, 6, at + 40)),
        _ => None,
    }
}

/// Where a frame's TCP or UDP header begins and where the checksum is in it. The frame is well-formed.
pub fn transport(bytes: &[u8]) -> Option<(usize, usize)> {
    let (at, version, transport) = ip(bytes)?;
    match bytes[if version == 4 { at + 9 } else { at + 6 }] {
        6 => Some((transport, 16)),
        17 => Some((transport, 6)),
        _ => None,
    }
}

/// Computes all checksums of a well-formed frame anew.
pub fn correct_checksums(bytes: &mut [u8]) {
    let Some((at, version, start)) = ip(bytes) else { return };
    let (protocol, end, addresses) = if version == 4 {
        bytes[at + 10..at + 12].fill(0);
        let sum = !sum(&bytes[at..at + 20], 0);
        bytes[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        (bytes[at + 9], at + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])), at + 12..at + 20)
    } else {
        (bytes[at + 6], start + usize::from(u16::from_be_bytes([bytes[at + 4], bytes[at + 5]])), at + 8..at + 40)
    };
    let Some((_, offset)) = transport(bytes) else { return };
    let place = start + offset;
    bytes[place..place + 2].fill(0);
    let pseudo = sum(&bytes[addresses], u32::from(protocol) + (end - start) as u32);
    let checksum = match !sum(&bytes[start..end], u32::from(pseudo)) {
        0 if protocol == 17 => 0xffff,
        checksum => checksum,
    };
    bytes[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The sum of 16-bit words with end-around carry (RFC 1071).
pub fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn kind(action: &OfAction) -> (std::mem::Discriminant<OfAction>, Option<Field>) {
    let field = if let OfAction::SetField { field, .. } = action { Some(*field) } else { None };
    (std::mem::discriminant(action), field)
}

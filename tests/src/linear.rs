//! A switch that is right by reading it: it looks at every rule for every frame, parses the frame anew after every change, and computes
//! every checksum from the first byte. What the datapath does in clever ways is held against it.
//!
//! It takes over from the datapath what is tested elsewhere: how a frame is parsed into a key, and what a flow-mod does to a list of rules.

use std::collections::HashMap;
use std::sync::Arc;

use datapath::key::{self, Field, Flow, FlowKey, KEY_WORDS, Match, STATE_WORDS};
use datapath::port::PortNo;
use datapath::tables::instruction::OfAction;
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
    /// Where stations were seen, by VLAN and address.
    macs: HashMap<(u16, u64), PortNo>,
    /// The frames and bytes of each rule, by what identifies it.
    pub counts: HashMap<RuleId, (u64, u64)>,
    /// The lookups in each table, and those of them that found a rule.
    pub lookups: HashMap<u8, (u64, u64)>,
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
        let before: Vec<_> = tables.rules(&RuleFilter::ALL).cloned().collect();
        if tables.flow_mod(flow_mod, 0).is_err() {
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

/// Why nothing more is done to a frame.
struct Ended;

impl LinearSwitch {
    /// A switch with these ports and no rules.
    pub fn new(ports: Vec<LinearPort>) -> Self {
        Self { ports, rules: Vec::new(), macs: HashMap::new(), counts: HashMap::new(), lookups: HashMap::new() }
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
            state: [0; STATE_WORDS],
            expired: false,
            set: Vec::new(),
            verdict: Verdict::default(),
            switch: self,
        };
        if walk.table(0).is_ok() {
            let _ = walk.carry_out_set();
        }
        walk.verdict
    }
}

struct Walk<'a> {
    switch: &'a mut LinearSwitch,
    size: u64,
    in_port: PortNo,
    /// What a match on the ingress port sees: a resubmit may pretend.
    matched_port: PortNo,
    bytes: Vec<u8>,
    state: [u64; STATE_WORDS],
    /// The TTL ran out: rules go on matching, and nothing is sent any more.
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
        let flow = self.flow();
        let matching = |rule: &&Arc<Rule>| rule.table == table && rule.matching.expand().matches(&flow);
        let rule = self.switch.rules.iter().filter(matching).max_by_key(|rule| rule.priority).cloned();
        let lookups = self.switch.lookups.entry(table).or_default();
        *lookups = (lookups.0 + 1, lookups.1 + u64::from(rule.is_some()));
        let rule = rule?;
        let count = self.switch.counts.entry(rule_id(&rule)).or_default();
        *count = (count.0 + 1, count.1 + self.size);
        Some(rule)
    }

    /// Goes through the tables. A frame that no rule matched on the way has no action set.
    fn table(&mut self, table: u8) -> Result<(), Ended> {
        match self.lookup(table) {
            Some(rule) => self.rule(&rule),
            None => {
                self.set.clear();
                Ok(())
            }
        }
    }

    fn rule(&mut self, rule: &Rule) -> Result<(), Ended> {
        for action in &rule.instructions.apply {
            self.action(action, rule.table)?;
        }
        if rule.instructions.clear {
            self.set.clear();
        }
        for action in &rule.instructions.write {
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
    fn carry_out_set(&mut self) -> Result<(), Ended> {
        let mut set = std::mem::take(&mut self.set);
        set.sort_by_key(|action| match action {
            OfAction::PopVlan => 0,
            OfAction::PushVlan(_) => 1,
            OfAction::DecNwTtl => 2,
            OfAction::SetField { .. } => 3,
            _ => 4,
        });
        set.iter().try_for_each(|action| self.action(action, 0))
    }

    fn action(&mut self, action: &OfAction, table: u8) -> Result<(), Ended> {
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
            OfAction::DecNwTtl => self.decrement_ttl()?,
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

    fn decrement_ttl(&mut self) -> Result<(), Ended> {
        let Some((at, version, _)) = ip(&self.bytes) else { return Ok(()) };
        let ttl = &mut self.bytes[at + if version == 4 { 8 } else { 7 }];
        if *ttl <= 1 {
            self.expired = true;
            *ttl = ttl.saturating_sub(1);
        } else {
            *ttl -= 1;
        }
        correct_checksums(&mut self.bytes);
        Ok(())
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

//! The rules, and the flow-mods that are made of them.

use datapath::key::{Field, Match};
use datapath::port::PortNo;
use datapath::tables::instruction::{Instructions, OfAction, OfActions};
use datapath::tables::{FlowMod, FlowModCommand, RuleFilter};
use vswitch::openflow::wire::{
    ATOMIC, BundleAdd, BundleControl, BundleControlType, FlowModMessage, Message, MultipartRequest, NO_BUFFER, ORDERED, encode,
};

/// The cookie of all rules of ours, so that they can be told from those that the frames beside go by.
const COOKIE: u64 = 0xf10e;

/// What the rules are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An IPv4 destination and an output: one mask in each table.
    Routes,
    /// The same with one of 64 masks on the source.
    Masks,
    /// A TCP connection with both its addresses and ports, a field to set and an output: one mask.
    Flows,
}

/// So many rules of a shape, spread over tables.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub count: u32,
    pub tables: u8,
    pub shape: Shape,
}

/// A stage of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Each rule is added.
    Add,
    /// Each gets another output, by a strict modification.
    Modify,
    /// One in three is deleted and one in three modified, strictly, and for one in three another is added.
    Mixed,
    /// All rules are listed.
    List,
    /// Each rule that there is is deleted, strictly.
    Delete,
    /// Each rule is added, in a bundle.
    Bundle,
    /// All are deleted by one message.
    Clear,
}

impl Stage {
    pub const ALL: [Stage; 7] = [Stage::Add, Stage::Modify, Stage::Mixed, Stage::List, Stage::Delete, Stage::Bundle, Stage::Clear];
}

impl Rules {
    /// The messages of a stage, with a barrier behind them, and how many rules they are about.
    pub fn messages(self, stage: Stage) -> (Vec<u8>, u32) {
        let mut stream = Vec::new();
        let mut rules = 0;
        let mut put = |flow_mod| {
            rules += 1;
            encode(&message(flow_mod), rules, &mut stream);
        };
        match stage {
            Stage::Add => (0..self.count).for_each(|i| put(self.rule(i))),
            Stage::Modify => (0..self.count).for_each(|i| put(self.modification(i, 1))),
            Stage::Mixed => (0..self.count).for_each(|i| {
                put(match self.fate(i) {
                    0 => deletion(self.rule(i)),
                    1 => self.modification(i, 2),
                    _ => self.rule(self.count + i),
                })
            }),
            Stage::Delete => (0..self.count).for_each(|i| match self.fate(i) {
                0 => {}
                1 => put(deletion(self.rule(i))),
                _ => [i, self.count + i].into_iter().for_each(|i| put(deletion(self.rule(i)))),
            }),
            Stage::List => {
                rules = self.count;
                let filter = RuleFilter { cookie: COOKIE, cookie_mask: u64::MAX, ..RuleFilter::ALL };
                encode(&Message::MultipartRequest(Box::new(MultipartRequest::Flow(filter))), 1, &mut stream);
            }
            Stage::Bundle => {
                rules = self.count;
                self.put_bundle(&mut stream);
            }
            Stage::Clear => {
                rules = self.count;
                let all =
                    FlowMod { command: FlowModCommand::Delete, table: RuleFilter::ALL_TABLES, cookie_mask: u64::MAX, ..FlowMod::default() };
                encode(&message(FlowMod { cookie: COOKIE, ..all }), 1, &mut stream);
            }
        }
        encode(&Message::BarrierRequest, 2, &mut stream);
        (stream, rules)
    }

    fn put_bundle(self, stream: &mut Vec<u8>) {
        let flags = ATOMIC | ORDERED;
        let control = |kind| Message::BundleControl(BundleControl { bundle: 1, kind, flags });
        encode(&control(BundleControlType::OpenRequest), 1, stream);
        for i in 0..self.count {
            let mut added = Vec::new();
            encode(&message(self.rule(i)), i, &mut added);
            encode(&Message::BundleAdd(BundleAdd { bundle: 1, flags, message: added }), i, stream);
        }
        encode(&control(BundleControlType::CommitRequest), 1, stream);
    }

    /// What becomes of a rule among mixed flow-mods; neighbours in a table have different fates.
    fn fate(self, i: u32) -> u32 {
        i / u32::from(self.tables) % 3
    }

    fn rule(self, i: u32) -> FlowMod {
        let matching = Match::ANY.with(Field::EthType, 0x0800).with(Field::Ipv4Dst, u128::from(0x0a00_0000 + i));
        let (matching, apply): (_, OfActions) = match self.shape {
            Shape::Routes => (matching, [output(i)].into()),
            Shape::Masks => {
                let mask = 0xff00_0000 | i / u32::from(self.tables) % 64 << 8;
                (matching.with_masked(Field::Ipv4Src, 0x0b00_0000, mask.into()), [output(i)].into())
            }
            Shape::Flows => {
                let matching = matching.with(Field::Ipv4Src, u128::from(0x0b00_0000 + i / 7)).with(Field::IpProto, 6);
                let matching = matching.with(Field::TcpSrc, u128::from(1024 + i % 5000)).with(Field::TcpDst, 443);
                let value = u128::from(0x0200_0000_0000 + u64::from(i % 100));
                (matching, [OfAction::SetField { field: Field::EthDst, value, mask: Field::EthDst.ones() }, output(i)].into())
            }
        };
        let table = (i % u32::from(self.tables)) as u8;
        let instructions = Instructions { apply, ..Instructions::default() };
        FlowMod { table, matching, priority: 100, cookie: COOKIE, instructions, ..FlowMod::default() }
    }

    fn modification(self, i: u32, by: u32) -> FlowMod {
        let instructions = Instructions { apply: [output(i + by)].into(), ..Instructions::default() };
        FlowMod { command: FlowModCommand::ModifyStrict, instructions, ..self.rule(i) }
    }
}

fn deletion(rule: FlowMod) -> FlowMod {
    FlowMod { command: FlowModCommand::DeleteStrict, instructions: Instructions::default(), ..rule }
}

fn output(i: u32) -> OfAction {
    OfAction::Output { port: PortNo(1 + i % 4), max_len: 0 }
}

fn message(flow_mod: FlowMod) -> Message {
    Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER }))
}

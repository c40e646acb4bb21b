//! Generated messages against `ovs-ofctl`, many in one process.
//!
//! - What we write it reads as what we mean: its text is the one that [`super::text`] has for the message.
//! - What it writes we read as what was meant: actions and instructions that it has read are written by it again, and rules, groups and packets that it is
//!   given as text come over a connection.
//!
//! What Open vSwitch does not have or does not take is refused there with the error that is expected; docs/openflow.md lists it.

use super::super::action::{decode_actions, put_actions};
use super::generate::{actions, messages};
use super::ofctl::{print, read_actions};
use super::text;
use super::*;
use datapath::tables::instruction::OfActions;
use datapath::tables::{MacTable, Tables};
use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};
use std::sync::Arc;

/// How many messages are compared: `VSWITCH_MESSAGES`, or a few thousand.
pub fn count() -> usize {
    std::env::var("VSWITCH_MESSAGES").ok().map_or(3000, |count| count.parse().expect("VSWITCH_MESSAGES is a number"))
}

/// Generates from `VSWITCH_SEED`, or from the same seed in each run.
pub fn runner() -> TestRunner {
    let seed: u64 = std::env::var("VSWITCH_SEED").ok().map_or(1, |seed| seed.parse().expect("VSWITCH_SEED is a number"));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Runs::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// What Open vSwitch says of what it does not have: actions, fields, ports beyond 16 bits.
const REFUSALS: [&str; 9] = [
    "OFPGMFC_INVALID_GROUP",
    "OFPGMFC_WATCH_UNSUPPORTED",
    "OFPBAC_BAD_TYPE",
    "OFPBMC_BAD_FIELD",
    "OFPBAC_BAD_SET_",
    "OFPBAC_BAD_OUT_PORT",
    "OFPBMC_BAD_VALUE",
    "NXBAC_BAD_CONJUNCTION",
    "OFPGMFC_BAD_WATCH",
];

/// Whether Open vSwitch refused a flow-mod because its actions make no sense for its match, and it is right, or goes further than this switch: it asks whether
/// a rule to be learned could be, and pushes no third VLAN tag.
fn is_inconsistent(message: &Message, printed: &str) -> bool {
    let flow_mod = match message {
        Message::FlowMod(body) => body.flow_mod.clone(),
        Message::BundleAdd(add) => match decode(&add.message) {
            Ok(Message::FlowMod(body)) => body.flow_mod,
            _ => return false,
        },
        _ => return false,
    };
    let all = format!("{:?}", flow_mod.instructions);
    printed.contains("OFPBAC_MATCH_INCONSISTENT") && (!is_sensible(&flow_mod) || all.contains("Learn"))
        || printed.contains("OFPBIC_BAD_TABLE_ID") && flow_mod.instructions.goto.is_some_and(|goto| goto <= flow_mod.table)
        || printed.contains("OFPBAC_BAD_SET_LEN") && all.contains("Learn") && all.contains("VlanVid")
        || printed.contains("OFPBAC_BAD_TAG") && all.matches("PushVlan").count() > 1
}

/// Messages that one process is given.
const BATCH: usize = 1000;

/// A message as `ovs-ofctl` can be asked about it.
pub fn presentable(message: Message) -> Message {
    match message {
        // An error that there is, about a message that there is; or the text that says why there is no version.
        Message::Error(error) => {
            let code = ErrorCode::ALL[usize::from(error.code) % ErrorCode::ALL.len()];
            let data = error.data[..error.data.len().min(40)].to_vec();
            let answered = match code {
                ErrorCode::HelloFailed(_) => b"no such version".to_vec(),
                _ => bytes(&Message::EchoRequest(data), error.kind.into()),
            };
            Message::Error(Error::new(code, &answered))
        }
        Message::BundleAdd(mut add) => {
            let xid = Header::decode(&add.message).unwrap().xid;
            add.message = bytes(&presentable(decode(&add.message).unwrap()), xid);
            Message::BundleAdd(add)
        }
        // Most actions make no sense for what the match matches. Most rules lose those; the others are to be refused there and here.
        Message::FlowMod(mut body) => {
            let flow_mod = &mut body.flow_mod;
            flow_mod.table = flow_mod.table.min(253);
            flow_mod.instructions.goto = flow_mod.instructions.goto.filter(|goto| (flow_mod.table + 1..254).contains(goto));
            if flow_mod.hard_timeout % 8 != 0 {
                let full = std::mem::take(&mut flow_mod.instructions);
                let kept = &mut flow_mod.instructions;
                (kept.meter, kept.clear, kept.metadata, kept.goto) = (full.meter, full.clear, full.metadata, full.goto);
                for action in full.apply.iter() {
                    keep_if_sensible(flow_mod, action, |instructions| &mut instructions.apply);
                }
                for action in full.write.iter() {
                    keep_if_sensible(flow_mod, action, |instructions| &mut instructions.write);
                }
            }
            Message::FlowMod(body)
        }
        Message::MultipartRequest(mut request) => {
            if let MultipartRequest::TableFeatures(tables) = &mut *request {
                tables.iter_mut().for_each(complete);
            }
            Message::MultipartRequest(request)
        }
        Message::MultipartReply(mut reply) => {
            if let MultipartBody::TableFeatures(tables) = &mut reply.body {
                tables.iter_mut().for_each(complete);
            }
            Message::MultipartReply(reply)
        }
        // Most buckets have weights and watches where they mean something only, and what is deleted has none.
        Message::GroupMod(mut group_mod) if group_mod.group % 8 != 0 => {
            match (group_mod.command, group_mod.kind) {
                (GroupCommand::Delete, _) => group_mod.buckets.clear(),
                (_, GroupKind::Indirect) => group_mod.buckets.truncate(1),
                _ => {}
            }
            for bucket in &mut group_mod.buckets {
                match group_mod.kind {
                    GroupKind::Select => {}
                    GroupKind::FastFailover => bucket.weight = 0,
                    _ => (bucket.weight, bucket.watch_port, bucket.watch_group) = (0, PortNo::ANY, GROUP_ANY),
                }
            }
            Message::GroupMod(group_mod)
        }
        message => message,
    }
}

/// Open vSwitch wants every property of a table.
fn complete(features: &mut TableFeatures) {
    features.properties = TableFeatures::of_switch(features.table, "", 0, 254).properties;
}

fn keep_if_sensible(flow_mod: &mut FlowMod, action: &OfAction, list: impl Fn(&mut Instructions) -> &mut OfActions) {
    let before = list(&mut flow_mod.instructions).clone();
    *list(&mut flow_mod.instructions) = before.iter().chain([action]).cloned().collect::<Vec<_>>().into();
    if !is_sensible(flow_mod) {
        *list(&mut flow_mod.instructions) = before;
    }
}

/// Whether the tables take a rule like this, as far as it depends on match and actions.
pub fn is_sensible(flow_mod: &FlowMod) -> bool {
    thread_local!(static TABLES: Tables = Tables::new(Arc::new(MacTable::new(1, 1))));
    let instructions = Instructions { meter: None, ..flow_mod.instructions.clone() };
    let rule = FlowMod { matching: flow_mod.matching, table: flow_mod.table, instructions, ..FlowMod::default() };
    TABLES.with(|tables| tables.clone().flow_mod(&rule, 0).is_ok())
}

/// What is printed for one message, as far as it is compared.
fn relevant(message: &Message, printed: &str, expected: &str) -> String {
    let lines = printed.lines().map(str::trim_end);
    let kept: Vec<_> = match message {
        // What follows is what the frame looks like.
        Message::PacketIn(_) | Message::PacketOut(_) => lines.take(expected.lines().count()).collect(),
        Message::MultipartRequest(_) | Message::MultipartReply(_) if printed.contains("TABLE_FEATURES") => {
            let head = ["OFPST_", "  table ", "    metadata: ", "    max_entries="];
            lines.filter(|line| head.iter().any(|head| line.starts_with(head))).collect()
        }
        Message::MultipartReply(_) => lines.filter(|line| !line.is_empty()).collect(),
        _ => lines.collect(),
    };
    kept.join("\n").trim_end().to_owned()
}

/// Fails with some of the differences that there are.
pub fn report(differences: &[String], of: usize) {
    let some: Vec<_> = differences.iter().take(30).map(|difference| difference.as_str()).collect();
    assert!(differences.is_empty(), "{} of {of} differ: {}", differences.len(), some.join("\n\n"));
}

#[test]
fn generated_messages_are_read_as_they_were_meant() {
    let mut runner = runner();
    let (mut alike, mut refused, mut differences) = (0, 0, Vec::new());
    while alike + refused < count() {
        let batch: Vec<_> = (0..BATCH)
            .map(|_| {
                let (message, xid) = messages().new_tree(&mut runner).unwrap().current();
                (presentable(message), xid)
            })
            .collect();
        let mut stream = Vec::new();
        for (message, xid) in &batch {
            encode(message, *xid, &mut stream);
            encode(&Message::BarrierReply, 0xfeed_beef, &mut stream);
        }
        let Some(text) = print(stream) else { return };
        let mut parts = text.split("OFPT_BARRIER_REPLY (OF1.3) (xid=0xfeedbeef):\n");
        for (message, xid) in &batch {
            let printed = parts.next().unwrap();
            match text::message(message, *xid) {
                // What the match does not make sure of.
                Ok(_) if is_inconsistent(message, printed) => refused += 1,
                Ok(expected) => {
                    let expected = expected.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
                    let printed = relevant(message, printed, &expected);
                    if printed != expected.trim_end() {
                        differences.push(format!("{printed}\n--- but expected was\n{expected}"));
                    }
                    alike += 1;
                }
                Err(error) => {
                    // Where several things are not taken, which of them is named depends on the order of looking.
                    if !printed.contains("***") || ![error].iter().chain(&REFUSALS).any(|error| printed.contains(error)) {
                        differences.push(format!("{printed}--- but expected was {error}"));
                    }
                    refused += 1;
                }
            }
        }
    }
    report(&differences, alike + refused);
    assert!(refused < alike / 2, "{alike} read alike and {refused} refused");
    println!("{alike} messages read alike, {refused} refused as expected");
}

#[test]
fn generated_actions_are_written_as_they_were_read() {
    let same = |bytes: &[u8], list: &[OfAction]| decode_actions(Reader::new(bytes, BadRequest::BadLen)).is_ok_and(|read| *read == *list);
    let mut runner = runner();
    let (mut alike, mut refused, mut differences) = (0, 0, Vec::new());
    while alike + refused < count() {
        let lists: Vec<_> = (0..BATCH)
            .map(|i| {
                let mut list = actions().new_tree(&mut runner).unwrap().current();
                // Most lists lose what Open vSwitch does not have.
                list.retain(|action| i % 8 == 0 || text::actions(std::slice::from_ref(action)).is_ok());
                list
            })
            .filter(|list| !list.is_empty())
            .collect();
        let written: Vec<_> = lists
            .iter()
            .map(|list| {
                let mut out = Vec::new();
                put_actions(&mut out, list);
                out
            })
            .collect();
        let Some(read) = read_actions("OpenFlow13", &written) else { return };
        for ((list, bytes), read) in lists.iter().zip(&written).zip(read) {
            let (expected, read) = (text::actions(list), read);
            match (&expected, read) {
                (Ok(expected), Ok((said, theirs))) => {
                    let ours = decode_actions(Reader::new(&theirs, BadRequest::BadLen)).map(|ours| text::actions(&ours));
                    // What `ovs-ofctl` has no word for, it need not write again.
                    if said != format!("actions={expected}") || ours != Ok(Ok(expected.clone())) || theirs == *bytes && !same(&theirs, list)
                    {
                        differences.push(format!("{said}\n{ours:?}\n--- but expected was\n{expected}"));
                    }
                    alike += 1;
                }
                (Err(_), Err(_)) => refused += 1,
                (_, read) => differences.push(format!("{read:?}\n--- but expected was\n{expected:?}")),
            }
        }
    }
    report(&differences, alike + refused);
    assert!(refused < alike / 2, "{alike} written alike and {refused} refused");
    println!("{alike} lists of actions written alike, {refused} refused as expected");
}

/// What the fuzzer starts from, written to `VSWITCH_FUZZ_SEEDS` if that is a directory (`scripts/fuzz` makes one).
#[test]
fn the_seeds_of_the_fuzzer_are_whole_messages() {
    let directory = std::env::var_os("VSWITCH_FUZZ_SEEDS").map(std::path::PathBuf::from);
    let mut runner = runner();
    for i in 0..500 {
        let mut seed = vec![0xfe];
        for _ in 0..3 {
            let (message, xid) = messages().new_tree(&mut runner).unwrap().current();
            let start = seed.len();
            encode(&message, xid, &mut seed);
            assert!(decode(&seed[start..]).is_ok(), "{message:?}");
        }
        if let Some(directory) = &directory {
            std::fs::write(directory.join(format!("openflow13-{i}")), seed).unwrap();
        }
    }
}

//! What `ovs-ofctl` reads in our messages.

use super::generate::matches;
use super::*;
use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::io::Write;
use std::process::{Command, Stdio};

/// The text that `ovs-ofctl` prints for messages that follow each other. `None`, loudly, if it is not installed.
pub fn print(stream: Vec<u8>) -> Option<String> {
    let mut command = Command::new("ovs-ofctl");
    command.args(["ofp-parse", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("SKIPPED: ovs-ofctl is not installed (Debian package openvswitch-common), so nothing was compared with it");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&stream));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// What `ovs-ofctl` says with these arguments to these lines of input. `None`, loudly, if it is not installed.
pub fn ofctl(args: &[&str], input: String) -> Option<String> {
    let mut command = Command::new("ovs-ofctl");
    command.args(["-voff"]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        eprintln!("SKIPPED: ovs-ofctl is not installed (Debian package openvswitch-common), so nothing was compared with it");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Many of what a strategy makes, the same in each run.
pub fn many<T>(count: usize, strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// What `ovs-ofctl` reads in a list of actions: as text, and the bytes that it would write; or the error.
pub type ReadActions = Result<(String, Vec<u8>), String>;

pub fn read_actions(version: &str, lists: &[Vec<u8>]) -> Option<Vec<ReadActions>> {
    let output = ofctl(&["parse-actions", version], lists.iter().map(|bytes| text(bytes) + "\n").collect())?;
    let mut lines = output.lines();
    let read = lists.iter().map(|bytes| {
        let said = lines.next().unwrap();
        // Which bytes are others when it is written again, or are not there.
        let mut theirs: Vec<Option<u8>> = bytes.iter().copied().map(Some).collect();
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let (at, change) = line.trim().split_once(':').unwrap();
            let (_, to) = change.split_once("->").unwrap();
            let (at, to) = (at.parse::<usize>().unwrap(), u8::from_str_radix(to.trim(), 16).ok());
            theirs.resize(theirs.len().max(at + 1), None);
            theirs[at] = to;
        }
        match said.strip_prefix(&format!("bad {version} actions: ")) {
            Some(error) => Err(error.to_owned()),
            None => Ok((said.to_owned(), theirs.into_iter().flatten().collect())),
        }
    });
    Some(read.collect())
}

#[test]
fn every_message_is_read_as_it_was_meant() {
    let mut stream = Vec::new();
    for (xid, message) in samples().iter().enumerate() {
        encode(message, xid_for(message, xid as u32), &mut stream);
    }
    if let Some(text) = print(stream) {
        for (line, expected) in text.lines().zip(include_str!("ofctl.txt").lines()) {
            assert_eq!(line, expected);
        }
        assert_eq!(text.lines().count(), include_str!("ofctl.txt").lines().count());
    }
}

#[test]
fn every_error_is_one_that_ovs_ofctl_knows() {
    let mut stream = Vec::new();
    for error in ErrorCode::ALL {
        encode(&Message::Error(Error::new(*error, &bytes(&Message::FeaturesRequest, 0))), 0, &mut stream);
    }
    let Some(text) = print(stream) else { return };
    // A code that is not the standard's is printed as a decoding error.
    assert!(!text.contains("***"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("OFPT_ERROR")).count(), ErrorCode::ALL.len());
}

#[test]
fn random_rules_are_listed_as_they_were_meant() {
    let mut runner = TestRunner::deterministic();
    let mut sample = |_| matches().new_tree(&mut runner).unwrap().current();
    // Fields that Open vSwitch does not have.
    let unknown = |matching: &Match| [Field::Ipv6Exthdr, Field::PbbIsid, Field::PbbUca].iter().any(|field| matching.get(*field).is_some());
    // And values that it does not take.
    let shorten = |matching: Match, field| match matching.get(field) {
        Some(found) => matching.with(field, 1 + found.value % 0xff),
        None => matching,
    };
    let matches: Vec<Match> = (0..1000)
        .map(&mut sample)
        .filter(|matching| !unknown(matching) && !matching.to_string().contains("nw_frag=0x"))
        .map(|matching| shorten(shorten(matching, Field::InPort), Field::ArpOp))
        .collect();
    assert!(matches.len() > 500);
    let rules = matches.iter().map(|matching| FlowStats { matching: *matching, ..flow_stats(Instructions::default()) }).collect();
    let mut stream = Vec::new();
    encode(&Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(rules), more: false }), 0, &mut stream);
    let Some(text) = print(stream) else { return };
    let mut listed = text.lines().filter_map(|line| line.split_once(" priority=100"));
    for matching in &matches {
        let (_, text) = listed.next().unwrap();
        let (text, _) = text.split_once(" actions=").unwrap();
        assert_eq!(text.trim_start_matches(','), matching.to_string());
    }
    assert_eq!(listed.next(), None);
}

//! Rules and groups that are typed: `ovs-ofctl` reads their text and sends them over a connection, and they are read as what was typed.

use super::differential::{count, is_sensible, presentable, report, runner};
use super::generate::{flow_mods, group_mods};
use super::*;
use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

/// Text that `ovs-ofctl` prints and does not read: what it has no word for.
const NOT_TYPED: [&str; 8] = ["<error>", "(drop)", "resubmit(,)", "ANY", "note:", "reason=", "dec_ttl()", "controller()"];

/// Whether a line can be typed and comes back with the same words. Where some bits of a field are set, they are loaded one run after the other.
fn is_typed(line: &str) -> bool {
    let sets_bits = |set: &str| set.split("->").next().is_some_and(|value| value.contains('/'));
    !NOT_TYPED.iter().any(|what| line.contains(what)) && !line.split("set_field:").skip(1).any(sets_bits)
}

/// What a command sends over a connection, but for the handshake and barriers; or the number of a line that it does not read. `None` if `ovs-ofctl` is not there.
fn sent(command: &str, lines: &str) -> Option<Result<Vec<Message>, usize>> {
    let directory = tempfile::tempdir().unwrap();
    let (socket, file) = (directory.path().join("switch"), directory.path().join("lines"));
    std::fs::write(&file, lines).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let target = format!("unix:{}", socket.display());
    let mut ofctl = Command::new("ovs-ofctl");
    ofctl.args(["-voff", "-O", "OpenFlow13", "--no-names", command, &target]).arg(&file).stdin(Stdio::null()).stderr(Stdio::piped());
    let child = ofctl.spawn().ok()?;
    let switch = std::thread::spawn(move || record(listener.accept().unwrap().0));
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        // The thread waits for a connection that may not come.
        _ = UnixStream::connect(&socket);
    }
    let messages = switch.join().unwrap();
    if output.status.success() {
        return Some(Ok(messages));
    }
    // "ovs-ofctl: FILE:LINE: what is wrong"
    let says = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = says.split(':').nth(2).and_then(|line| line.parse().ok());
    Some(Err(line.unwrap_or_else(|| panic!("{says}"))))
}

/// Plays a switch that takes everything.
fn record(mut connection: UnixStream) -> Vec<Message> {
    let mut messages = Vec::new();
    _ = connection.write_all(&bytes(&Message::Hello(Hello::of(VERSION)), 0));
    let mut head = [0; HEADER];
    while connection.read_exact(&mut head).is_ok() {
        let header = Header::decode(&head).unwrap();
        let mut message = head.to_vec();
        message.resize(header.length.into(), 0);
        connection.read_exact(&mut message[HEADER..]).unwrap();
        match decode(&message).unwrap_or_else(|error| panic!("{error}: {message:02x?}")) {
            Message::Hello(_) => {}
            Message::BarrierRequest => connection.write_all(&bytes(&Message::BarrierReply, header.xid)).unwrap(),
            Message::EchoRequest(data) => connection.write_all(&bytes(&Message::EchoReply(data), header.xid)).unwrap(),
            message => messages.push(message),
        }
    }
    messages
}

/// What is typed for a rule, if it can be, and what of the rule that says.
fn typed_rule(flow_mod: FlowMod) -> Option<(String, Message)> {
    let mut flow_mod = FlowMod { out_port: PortNo::ANY, out_group: GROUP_ANY, cookie_mask: 0, ..flow_mod };
    if flow_mod.command != FlowModCommand::Add {
        flow_mod.command = FlowModCommand::ModifyStrict;
        (flow_mod.cookie, flow_mod.cookie_mask) = (flow_mod.cookie & 0xff00, 0xff00);
    }
    let Message::FlowMod(body) = presentable(Message::FlowMod(Box::new(FlowModMessage { flow_mod, buffer_id: NO_BUFFER }))) else {
        unreachable!()
    };
    let rule = &body.flow_mod;
    let (matching, instructions) = (text::matching(&rule.matching, 0x8000).ok()?, text::instructions(&rule.instructions).ok()?);
    let command = if rule.command == FlowModCommand::Add { "add" } else { "modify_strict" };
    let cookie = if rule.cookie_mask == 0 { format!("{:#x}", rule.cookie) } else { format!("{:#x}/{:#x}", rule.cookie, rule.cookie_mask) };
    let flags = text::rule_flags(rule.flags).trim_end().replace(' ', ",");
    let line = format!(
        "{command} table={},priority={},cookie={cookie},idle_timeout={},hard_timeout={},{flags},{matching},actions={instructions}\n",
        rule.table, rule.priority, rule.idle_timeout, rule.hard_timeout
    );
    let taken = is_sensible(rule) && is_typed(&line);
    taken.then_some((line, Message::FlowMod(body)))
}

fn typed_group(group_mod: GroupMod) -> Option<(String, Message)> {
    let group_mod = GroupMod { command: GroupCommand::Add, ..group_mod };
    let message = presentable(Message::GroupMod(group_mod));
    let text = text::message(&message, 0).ok()?;
    let line = text.split_once(" ADD ")?.1.to_owned() + "\n";
    is_typed(&line).then_some((line, message))
}

/// Has so many things typed, and compares what they were read as.
fn compare(command: &str, count: usize, mut next: impl FnMut() -> Option<(String, Message)>) {
    let (mut compared, mut differences) = (0, Vec::new());
    for _ in 0..count.div_ceil(500) {
        let mut typed: Vec<_> = std::iter::repeat_with(&mut next).flatten().take(500).collect();
        let read = loop {
            let lines: String = typed.iter().map(|(line, _)| line.as_str()).collect();
            match sent(command, &lines) {
                Some(Ok(read)) => break read,
                // It prints some things that it does not read, such as addresses with masks that are no prefixes, and LOCAL as a port to watch.
                Some(Err(line)) => drop(typed.remove(line - 1)),
                None => {
                    eprintln!("SKIPPED: ovs-ofctl is not installed (Debian package openvswitch-common), so nothing was compared with it");
                    return;
                }
            }
        };
        assert!(typed.len() > 350, "only {} of 500 lines were read", typed.len());
        assert_eq!(read.len(), typed.len());
        compared += typed.len();
        for ((_, meant), read) in typed.iter().zip(&read) {
            let (meant, read) = (text::message(meant, 0), text::message(read, 0));
            if meant != read {
                differences.push(format!("{read:?}\n--- but expected was\n{meant:?}"));
            }
        }
    }
    report(&differences, compared);
    println!("{compared} lines were read by {command} as they were meant");
}

#[test]
fn typed_rules_are_read_as_they_were_meant() {
    let mut runner = runner();
    compare("add-flows", count() / 5, || typed_rule(flow_mods().new_tree(&mut runner).unwrap().current()));
}

#[test]
fn typed_groups_are_read_as_they_were_meant() {
    let mut runner = runner();
    compare("add-groups", count() / 10, || typed_group(group_mods().new_tree(&mut runner).unwrap().current()));
}

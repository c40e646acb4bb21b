//! Flow monitors.

use std::collections::BTreeMap;

use datapath::key::{Field, Match};
use datapath::tables::instruction::Instructions;
use datapath::tables::{FlowModCommand, RemovedReason};

use super::peers::{Peer, flow_mod};
use super::*;
use crate::openflow::wire::error::*;
use crate::openflow::wire::*;

const EVERYTHING: MonitorFlags = MonitorFlags(0x3f);

fn monitor(id: u32, flags: MonitorFlags) -> MonitorRequest {
    MonitorRequest { id, flags, out_port: PortNo::ANY, table: 0xff, matching: Match::ANY }
}

fn request(monitors: Vec<MonitorRequest>) -> Message {
    Message::MultipartRequest(Box::new(MultipartRequest::FlowMonitor(monitors)))
}

fn output(port: u32) -> Instructions {
    Instructions { apply: [OfAction::Output { port: PortNo(port), max_len: 0 }].into(), ..Instructions::default() }
}

fn rule(metadata: u64, port: u32) -> FlowMod {
    FlowMod { matching: Match::ANY.with(Field::Metadata, metadata.into()), instructions: output(port), ..FlowMod::default() }
}

/// What monitors tell of a rule: the event, its metadata, and whether it says what the rule does.
type News = (RuleEvent, u64, bool);

fn news(update: &RuleUpdate) -> News {
    let RuleUpdate::Full(update) = update else { panic!("{update:?}") };
    (update.event, Field::Metadata.read(update.matching.value()) as u64, update.instructions != Instructions::default())
}

/// The updates in messages that have nothing else.
fn updates(messages: Vec<Message>) -> Vec<RuleUpdate> {
    let updates = |message| match message {
        Message::MultipartReply(MultipartReply { body: MultipartBody::FlowMonitor(updates), .. }) => updates,
        other => panic!("{other:?}"),
    };
    messages.into_iter().flat_map(updates).collect()
}

fn told(peer: &mut Peer) -> Vec<News> {
    updates(peer.received().into_iter().map(|(_, message)| message).collect()).iter().map(news).collect()
}

#[test]
fn what_becomes_of_rules_is_told_to_those_who_asked() {
    use RuleEvent::*;
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut maker = Peer::greeted(&mut bench, Origin::Controller);
    let mut watcher = Peer::greeted(&mut bench, Origin::Listener);
    maker.ask(&mut bench, &flow_mod(rule(1, 1)));
    let first = updates(watcher.ask(&mut bench, &request(vec![monitor(5, EVERYTHING)])));
    assert_eq!(first.iter().map(news).collect::<Vec<_>>(), [(Added, 1, true)]);

    let mut change = |bench: &mut Bench, change: FlowMod| {
        assert!(maker.ask(bench, &flow_mod(change)).is_empty());
        told(&mut watcher)
    };
    assert_eq!(change(&mut bench, rule(2, 1)), [(Added, 2, true)]);
    // In the place of another, and with nothing changed: an addition is one.
    assert_eq!(change(&mut bench, rule(2, 1)), [(Added, 2, true)]);
    let modify = FlowMod { command: FlowModCommand::Modify, matching: Match::ANY, ..rule(0, 2) };
    let mut both = change(&mut bench, modify.clone());
    both.sort_by_key(|(_, metadata, _)| *metadata);
    assert_eq!(both, [(Modified, 1, true), (Modified, 2, true)]);
    // A modification that changes nothing is none.
    assert_eq!(change(&mut bench, modify), []);
    let delete = FlowMod { command: FlowModCommand::DeleteStrict, ..rule(2, 2) };
    assert_eq!(change(&mut bench, delete), [(Deleted(RemovedReason::Delete), 2, false)]);
    assert_eq!(change(&mut bench, FlowMod { hard_timeout: 5, ..rule(3, 1) }), [(Added, 3, true)]);
    bench.now += 6 * SECOND;
    bench.tick();
    let expired: Vec<_> = watcher.received().into_iter().map(|(_, message)| message).collect();
    assert_eq!(updates(expired).iter().map(news).collect::<Vec<_>>(), [(Deleted(RemovedReason::HardTimeout), 3, false)]);
    bench.learn(&rule(4, 1));
    assert_eq!(told(&mut watcher), [(Added, 4, true)]);
    bench.learn(&rule(4, 1));
    assert_eq!(told(&mut watcher), []);

    assert!(watcher.ask(&mut bench, &Message::FlowMonitorCancel(5)).is_empty());
    maker.ask(&mut bench, &flow_mod(rule(9, 1)));
    assert_eq!(told(&mut watcher), []);
    assert_eq!(watcher.refused(&mut bench, &Message::FlowMonitorCancel(5)), Nicira::UnknownMonitor.into());
}

#[test]
fn a_monitor_is_told_what_it_asked_for_only() {
    use RuleEvent::*;
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut maker = Peer::greeted(&mut bench, Origin::Controller);
    let mut watcher = Peer::greeted(&mut bench, Origin::Listener);
    let only = MonitorRequest {
        table: 1,
        out_port: PortNo(2),
        matching: Match::ANY.with_masked(Field::Metadata, 0, 1),
        ..monitor(1, MonitorFlags(MonitorFlags::ADD.0 | MonitorFlags::MODIFY.0))
    };
    // Its reply is empty, since what is there at first is not asked for.
    assert!(updates(watcher.ask(&mut bench, &request(vec![only]))).is_empty());
    for change in [
        FlowMod { table: 0, ..rule(2, 2) },
        FlowMod { table: 1, ..rule(3, 2) },
        FlowMod { table: 1, ..rule(2, 1) },
        FlowMod { table: 1, ..rule(4, 2) },
        // From port 2 to port 1: it was of interest before.
        FlowMod { table: 1, command: FlowModCommand::Modify, ..rule(4, 1) },
        FlowMod { table: 1, command: FlowModCommand::Delete, ..rule(4, 1) },
    ] {
        maker.ask(&mut bench, &flow_mod(change));
    }
    assert_eq!(told(&mut watcher), [(Added, 4, false), (Modified, 4, false)]);
}

#[test]
fn own_changes_are_told_by_their_xid_unless_they_are_asked_for_in_full() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    let brief = MonitorFlags(EVERYTHING.0 & !MonitorFlags::OWN.0);
    assert!(updates(peer.ask(&mut bench, &request(vec![monitor(1, brief)]))).is_empty());
    assert_eq!(updates(peer.ask(&mut bench, &flow_mod(rule(1, 1)))), [RuleUpdate::Abbreviated(77)]);
    peer.ask(&mut bench, &flow_mod(rule(2, 1)));
    let delete = FlowMod { command: FlowModCommand::Delete, ..FlowMod::default() };
    assert_eq!(updates(peer.ask(&mut bench, &flow_mod(delete.clone()))), [RuleUpdate::Abbreviated(77)]);
    // What changes nothing is not told.
    assert!(peer.ask(&mut bench, &flow_mod(delete)).is_empty());
    let table = MonitorRequest { table: 1, ..monitor(2, EVERYTHING) };
    peer.ask(&mut bench, &request(vec![table]));
    assert!(matches!(updates(peer.ask(&mut bench, &flow_mod(FlowMod { table: 1, ..rule(1, 1) })))[..], [RuleUpdate::Full(_)]));
    assert_eq!(peer.refused(&mut bench, &request(vec![monitor(3, brief), monitor(2, brief)])), Nicira::MonitorExists.into());
    assert_eq!(peer.refused(&mut bench, &request(vec![MonitorRequest { table: 254, ..monitor(4, brief) }])), BadRequest::BadTableId.into());
    let many = (100..200).map(|id| monitor(id, brief)).collect();
    assert_eq!(peer.refused(&mut bench, &request(many)), BadRequest::Eperm.into());
}

#[test]
fn a_watcher_that_is_too_slow_knows_the_rules_in_the_end() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut maker = Peer::greeted(&mut bench, Origin::Controller);
    let mut watcher = Peer::greeted(&mut bench, Origin::Listener);
    let many = |from: u64, to: u64, port: u32| (from..to).map(move |i| flow_mod(rule(i, port)));
    for message in many(0, 5000, 1) {
        maker.send(&message, 1);
        bench.turn();
    }
    // What there is at first is more than a socket takes; meanwhile, it changes.
    watcher.send(&request(vec![monitor(1, EVERYTHING)]), 9);
    bench.turn();
    let delete = |i: u64| flow_mod(FlowMod { command: FlowModCommand::DeleteStrict, ..rule(i, 1) });
    for message in (0..4000).step_by(2).map(delete).chain(many(4000, 9000, 2)) {
        maker.send(&message, 1);
        bench.turn();
    }
    let mut known = BTreeMap::new();
    let (mut paused, mut resumed) = (0, 0);
    let mut read = |watcher: &mut Peer, bench: &mut Bench, known: &mut BTreeMap<u64, Instructions>| {
        loop {
            let messages = watcher.received();
            if messages.is_empty() {
                break;
            }
            for (_, message) in messages {
                match message {
                    Message::FlowMonitorPaused => paused += 1,
                    Message::FlowMonitorResumed => resumed += 1,
                    message => {
                        for update in updates(vec![message]) {
                            let (event, metadata, _) = news(&update);
                            let RuleUpdate::Full(update) = update else { panic!() };
                            match event {
                                RuleEvent::Deleted(_) => drop(known.remove(&metadata).expect("it was known")),
                                _ => drop(known.insert(metadata, update.instructions)),
                            }
                        }
                    }
                }
            }
            bench.turn();
        }
        (paused, resumed)
    };
    let there = |bench: &Bench| -> BTreeMap<u64, Instructions> {
        let rule =
            |rule: &Arc<datapath::tables::Rule>| (Field::Metadata.read(rule.matching.expand().value()) as u64, rule.instructions.clone());
        bench.agent.tables().rules(&RuleFilter::ALL).map(rule).collect()
    };
    // Nobody is told of a pause that is over before the first rules have come.
    assert_eq!(read(&mut watcher, &mut bench, &mut known), (0, 0));
    assert!(known == there(&bench), "{} rules known, {} there", known.len(), there(&bench).len());
    // It sleeps again.
    for message in many(9000, 20_000, 1).chain((9000..19_000).map(delete)) {
        maker.send(&message, 1);
        bench.turn();
    }
    assert_eq!(read(&mut watcher, &mut bench, &mut known), (1, 1));
    assert!(known == there(&bench), "{} rules known, {} there", known.len(), there(&bench).len());
    // And then it is told as before.
    maker.ask(&mut bench, &flow_mod(rule(1, 7)));
    assert_eq!(told(&mut watcher), [(RuleEvent::Added, 1, true)]);
}

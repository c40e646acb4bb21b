//! Peers that do not read, ask for too much, or say nothing: they cost themselves something, and nobody else.

use std::io::{Read, Write};
use std::time::Duration;

use datapath::tables::FlowMod;
use datapath::tables::instruction::Instructions;

use super::peers::{Peer, flow_mod, to_controller};
use super::*;
use crate::config::Rate;
use crate::openflow::wire::*;

/// Packet-ins at this rate.
fn limited(per_second: u32, burst: u32) -> OpenFlow {
    OpenFlow { packet_ins: Some(Rate { per_second, burst }), ..OpenFlow::default() }
}

#[test]
fn a_controller_that_does_not_read_loses_packet_ins_and_stalls_nobody() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut slow = Peer::greeted(&mut bench, Origin::Controller);
    let mut quick = Peer::greeted(&mut bench, Origin::Controller);
    let mut got = 0;
    for _ in 0..2000 {
        bench.packet_in(1, &to_controller(1), vec![0; 1500]);
        bench.turn();
        got += quick.received().len();
    }
    assert_eq!(got, 2000);
    let mut late = 0;
    loop {
        bench.turn();
        match slow.received().len() {
            0 => break,
            more => late += more,
        }
    }
    assert!((100..1000).contains(&late), "{late} of 2000 packet-ins were kept for it");
    // It gets new ones again.
    bench.packet_in(1, &to_controller(1), vec![0; 1500]);
    bench.turn();
    assert_eq!(slow.received().len(), 1);
}

#[test]
fn packet_ins_come_by_the_rate_and_ports_take_turns() {
    let mut bench = Bench::with(Settings { openflow: limited(10, 2), ..settings(FailMode::Secure, true) });
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    bench.now = 10 * SECOND;
    for _ in 0..6 {
        bench.packet_in(1, &to_controller(1), vec![0; 60]);
    }
    bench.packet_in(2, &to_controller(1), vec![0; 60]);
    bench.turn_once();
    assert_eq!(peer.ports().len(), 2, "the burst");
    // The other five come each in its time, which the agent asks to be woken at; the one of the other port does not come last.
    let mut order = Vec::new();
    for tenth in 1..=5 {
        let due = 10 * SECOND + tenth * SECOND / 10;
        assert_eq!(bench.agent.due(), Some(due));
        bench.now = due - 1;
        bench.turn_once();
        assert!(peer.ports().is_empty());
        bench.now = due;
        bench.turn_once();
        order.append(&mut peer.ports());
    }
    assert_eq!(order, [1, 2, 1, 1, 1]);
    assert_eq!(bench.agent.due(), None);

    // A rate that is taken back lets all go that wait.
    for _ in 0..6 {
        bench.packet_in(1, &to_controller(1), vec![0; 60]);
    }
    bench.agent.configure(settings(FailMode::Secure, true), bench.now);
    bench.turn_once();
    assert_eq!(peer.ports().len(), 6);
}

#[test]
fn a_rate_limits_each_connection_by_itself_and_waits_for_no_slow_reader() {
    let mut bench = Bench::with(Settings { openflow: limited(1000, 1000), ..settings(FailMode::Secure, true) });
    let mut slow = Peer::greeted(&mut bench, Origin::Controller);
    let mut quick = Peer::greeted(&mut bench, Origin::Controller);
    bench.now = 10 * SECOND;
    let mut got = 0;
    for _ in 0..1000 {
        bench.packet_in(1, &to_controller(1), vec![0; 1500]);
        bench.turn_once();
        got += quick.ports().len();
    }
    assert_eq!(got, 1000);
    // The slow one is behind with reading; nothing is due for it until it reads.
    bench.packet_in(1, &to_controller(1), vec![0; 1500]);
    bench.now += SECOND / 1000;
    bench.turn_once();
    assert_eq!((quick.ports().len(), bench.agent.due()), (1, None));
    let mut late = 0;
    while let more @ 1.. = slow.ports().len() {
        late += more;
        bench.turn_once();
    }
    assert!((100..1000).contains(&late), "{late} of 1001 packet-ins were kept for it");
}

#[test]
fn what_must_not_be_lost_piles_up_to_a_limit() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let slow = Peer::greeted(&mut bench, Origin::Controller);
    let out = |bench: &Bench| bench.agent.connections().next().map_or(0, |(_, status)| status.messages_out);
    // Port-status, of 80 bytes each, within one turn.
    let mut link = true;
    for _ in 0..300_000 {
        link = !link;
        bench.agent.set_link(PortNo(1), link).unwrap();
    }
    let sent = out(&bench);
    assert!((200_000..250_000).contains(&sent), "{sent}");
    bench.turn();
    assert!(!bench.agent.is_connected(slow.id));
}

#[test]
fn a_peer_that_asks_without_reading_is_not_read_any_further() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    fill(&mut bench, &mut peer);
    // 3.3 MB each: far more than what may be queued if all were answered at once.
    let mut request = Vec::new();
    encode(&all_rules(), 1, &mut request);
    let mut asked = 0;
    while asked < 10_000 && peer.stream.write_all(&request).is_ok() {
        asked += 1;
        bench.turn();
    }
    assert!(asked < 10_000, "the socket's buffer fills up at last");
    assert!(bench.agent.is_connected(peer.id));
    // Once it reads, it gets all that it asked for, up to the last request that came through whole.
    let (mut replies, mut rules) = (0, 0);
    while replies < 8 {
        bench.turn();
        for (_, message) in peer.received() {
            let Message::MultipartReply(MultipartReply { body: MultipartBody::Flow(some), more }) = message else { panic!() };
            rules += some.len();
            replies += usize::from(!more);
        }
    }
    assert!(rules >= 8 * 2000);
    drop(peer);
    bench.turn();
}

/// Adds so many rules that a list of them is longer than what is queued for a peer.
fn fill(bench: &mut Bench, peer: &mut Peer) {
    let instructions =
        Instructions { apply: vec![OfAction::Output { port: PortNo(1), max_len: 0 }; 100].into(), ..Instructions::default() };
    for priority in 0..2000 {
        peer.send(&flow_mod(FlowMod { priority, instructions: instructions.clone(), ..FlowMod::default() }), 1);
        bench.turn();
    }
}

fn all_rules() -> Message {
    Message::MultipartRequest(Box::new(MultipartRequest::Flow(RuleFilter::ALL)))
}

#[test]
fn a_peer_that_asks_for_much_work_gets_its_share_of_a_turn() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut busy = Peer::greeted(&mut bench, Origin::Listener);
    let mut other = Peer::greeted(&mut bench, Origin::Listener);
    let aggregate = Message::MultipartRequest(Box::new(MultipartRequest::Aggregate(RuleFilter::ALL)));
    for _ in 0..100 {
        busy.send(&aggregate, 1);
    }
    other.send(&Message::EchoRequest(vec![]), 2);
    bench.turn_once();
    assert_eq!(other.received().len(), 1);
    let first = busy.received().len();
    assert!(first < 10, "{first} requests were answered in one turn");
    assert_eq!(bench.agent.due(), Some(0), "there is more to do, though nothing more comes");
    bench.turn();
    assert_eq!(first + busy.received().len(), 100);
    assert_eq!(bench.agent.due(), None);
}

#[test]
fn a_slow_reader_of_a_long_answer_is_not_taken_for_dead() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    fill(&mut bench, &mut peer);
    peer.send(&all_rules(), 1);
    peer.send(&all_rules(), 1);
    bench.turn();
    for second in 1..60 {
        bench.now = second * SECOND;
        if second % 3 == 0 {
            peer.stream.read_exact(&mut vec![0; 100_000]).unwrap();
        }
        bench.turn();
        bench.tick();
    }
    assert!(bench.agent.is_connected(peer.id));
    for second in [80, 85] {
        assert!(bench.agent.is_connected(peer.id), "it is asked first");
        bench.now = second * SECOND;
        bench.tick();
    }
    assert!(!bench.agent.is_connected(peer.id));
}

#[test]
fn silent_controllers_are_asked_and_dead_ones_dropped() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut alive = Peer::greeted(&mut bench, Origin::Controller);
    let mut dead = Peer::greeted(&mut bench, Origin::Controller);
    let listener = Peer::greeted(&mut bench, Origin::Listener);
    let mute = Peer::raw(&mut bench, Origin::Controller);
    bench.now = 5 * SECOND;
    bench.tick();
    bench.tick();
    assert!(matches!(alive.received()[..], [(0, Message::EchoRequest(_))]), "asked once");
    assert_eq!(dead.received().len(), 1);
    alive.send(&Message::EchoReply(vec![]), 0);
    bench.turn();
    bench.now = 10 * SECOND;
    bench.tick();
    let connected = [&alive, &dead, &listener, &mute].map(|peer| bench.agent.is_connected(peer.id));
    assert_eq!(connected, [true, false, true, false]);
}

#[test]
fn the_probe_interval_is_the_operators() {
    for (interval, asked, ended) in [(Some(1), 1, 2), (Some(60), 60, 120), (None, u64::MAX, u64::MAX)] {
        let openflow = OpenFlow { inactivity_probe: interval.map(Duration::from_secs), ..OpenFlow::default() };
        let mut bench = Bench::with(Settings { openflow, ..settings(FailMode::Secure, true) });
        let mut peer = Peer::greeted(&mut bench, Origin::Controller);
        for second in 0..200 {
            bench.now = second * SECOND;
            bench.tick();
            assert_eq!(bench.agent.is_connected(peer.id), second < ended, "{interval:?}, {second}");
            assert_eq!(peer.received().len(), usize::from(second == asked), "{interval:?}, {second}");
        }
    }
    // Time in which nobody was asked does not count, such as that of a process that was stopped.
    let mut bench = Bench::new(FailMode::Secure, true);
    let peer = Peer::greeted(&mut bench, Origin::Controller);
    bench.now = 1000 * SECOND;
    bench.tick();
    assert!(bench.agent.is_connected(peer.id));
}

#[test]
fn a_controller_that_keeps_the_switch_busy_is_not_taken_for_silent() {
    let mut bench = Bench::new(FailMode::Secure, true);
    let mut peer = Peer::greeted(&mut bench, Origin::Controller);
    // Each costs a whole turn, so that it is long until the next are read.
    let aggregate = Message::MultipartRequest(Box::new(MultipartRequest::Aggregate(RuleFilter::ALL)));
    for _ in 0..100 {
        peer.send(&aggregate, 1);
    }
    for second in 1..50 {
        bench.now = second * SECOND;
        bench.turn_once();
        bench.agent.tick(&mut bench.datapath, bench.now);
        assert!(bench.agent.is_connected(peer.id), "{second}");
    }
}

#[test]
fn whoever_says_no_hello_is_no_controller() {
    let mut bench = Bench::new(FailMode::Standalone, true);
    let mut mute = Vec::new();
    for second in 0..=15 {
        bench.now = second * SECOND;
        if second % 5 == 0 {
            mute.push(Peer::raw(&mut bench, Origin::Controller));
        }
        let _tool = Peer::greeted(&mut bench, Origin::Listener);
        bench.tick();
        assert_eq!(bench.rules(), usize::from(second == 15), "{second}");
    }
}

#[test]
fn connections_are_counted() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let peers: Vec<_> = (0..64).map(|_| Peer::greeted(&mut bench, Origin::Listener)).collect();
    let connect = |bench: &mut Bench| bench.connect(UnixStream::pair().unwrap().1, Origin::Listener);
    assert_eq!(connect(&mut bench), None);
    drop(peers);
    bench.turn();
    assert!(connect(&mut bench).is_some());
}
#[test]
fn what_waits_for_a_long_answer_is_worked_off_though_nothing_more_comes() {
    let mut bench = Bench::new(FailMode::Secure, false);
    let mut peer = Peer::greeted(&mut bench, Origin::Listener);
    fill(&mut bench, &mut peer);
    peer.send(&all_rules(), 1);
    peer.send(&Message::BarrierRequest, 2);
    bench.turn();
    // The rest of the answer goes out at the end of turns in which something else happened.
    let (mut last, mut quiet) = (0, 0);
    while quiet < 3 {
        let received = peer.received();
        quiet = if received.is_empty() { quiet + 1 } else { 0 };
        last = received.last().map_or(last, |(xid, _)| *xid);
        bench.agent.finish(&mut bench.datapath, bench.now);
    }
    bench.turn();
    let rest = peer.received();
    assert_eq!(rest.last().map_or(last, |(xid, _)| *xid), 2, "the barrier's reply comes");
}

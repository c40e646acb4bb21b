//! Groups and meters through the running program: `ovs-ofctl` says what they are, fake guests find out what they do, and what they count is what came out.

use serde_json::Value;
use tests::flows::{SHORTEST, all_taken, destinations, numbers, udp};
use tests::frontend::{Guest, Options};
use tests::linear::correct_checksums;
use tests::process::{PATIENCE, until};
use tests::stats;
use tests::switch::Switch;

/// Where a frame has its TOS.
const TOS: usize = 15;

/// A secure switch with ports vm1, vm2, ... and a guest on each.
fn start(ports: usize, args: &[&str]) -> (Switch, Vec<Guest>) {
    let ports: Vec<_> = (1..=ports).map(|port| format!("vm{port}=vhost-user:vm{port}.sock")).collect();
    let args: Vec<_> =
        ["--fail-mode", "secure"].iter().chain(args).copied().chain(ports.iter().flat_map(|port| ["--port", port])).collect();
    let switch = Switch::start(&args);
    let guests = (1..=ports.len())
        .map(|port| {
            let guest = Guest::connect(&switch.path(&format!("vm{port}.sock")), Options::default()).expect("a guest");
            wait_for_link(&switch, port, true);
            guest
        })
        .collect();
    (switch, guests)
}

fn port(switch: &Switch, port: usize) -> Value {
    switch.ctl_json(&["port", "show", &format!("vm{port}")])
}

fn wait_for_link(switch: &Switch, number: usize, up: bool) {
    until(PATIENCE, "the link changes", || ((port(switch, number)["link"] == "up") == up).then_some(()));
}

fn drops(switch: &Switch, number: usize, reason: &str) -> u64 {
    port(switch, number)["drops"][reason].as_u64().unwrap_or(0)
}

/// Sends frames of a flow from the first guest, and returns how many each of the others got.
fn arrivals(guests: &mut [Guest], flow: u32, count: u64) -> Vec<usize> {
    let (sender, receivers) = guests.split_first_mut().expect("guests");
    for serial in 0..count {
        let frame = udp(flow, serial, SHORTEST);
        until(PATIENCE, "the switch takes a frame", || (sender.send(0, [&frame[..]]) == 1).then_some(()));
    }
    all_taken(sender);
    receivers.iter_mut().map(|receiver| if receiver.connection.is_some() { receiver.receive(0).len() } else { 0 }).collect()
}

#[test]
fn failover_follows_the_port() {
    let (switch, mut guests) = start(3, &[]);
    for watches_group in [false, true] {
        let first = if watches_group { "watch_group:2,group:2" } else { "watch_port:2,output:2" };
        switch.ofctl("del-groups", &[]);
        switch.ofctl("add-group", &["group_id=2,type=ff,bucket=watch_port:2,output:2"]);
        switch.ofctl("add-group", &[&format!("group_id=1,type=ff,bucket={first},bucket=watch_port:3,output:3")]);
        switch.ofctl("add-flow", &["in_port=1,actions=group:1"]);
        assert_eq!(arrivals(&mut guests, 1, 10), [10, 0]);

        // The front end disconnects, disables its queues, stops its rings.
        guests[1].disconnect();
        wait_for_link(&switch, 2, false);
        assert_eq!(arrivals(&mut guests, 1, 11), [0, 11]);
        guests[1].reconnect(&switch.path("vm2.sock")).expect("a reconnection");
        wait_for_link(&switch, 2, true);
        assert_eq!(arrivals(&mut guests, 1, 12), [12, 0]);
        guests[1].set_queue_pairs(0).expect("no queue pairs");
        wait_for_link(&switch, 2, false);
        assert_eq!(arrivals(&mut guests, 1, 13), [0, 13]);
        guests[1].set_queue_pairs(1).expect("a queue pair");
        wait_for_link(&switch, 2, true);
        assert_eq!(arrivals(&mut guests, 1, 14), [14, 0]);
        guests[1].stop().expect("a stop");
        wait_for_link(&switch, 2, false);
        assert_eq!(arrivals(&mut guests, 1, 15), [0, 15]);
        guests[1].start().expect("a start");
        wait_for_link(&switch, 2, true);

        // A controller sets it down and up: what is sent after the command has ended meets what it said.
        switch.ofctl("mod-port", &["vm2", "down"]);
        assert_eq!(arrivals(&mut guests, 1, 16), [0, 16]);
        switch.ofctl("mod-port", &["vm3", "down"]);
        let before = drops(&switch, 1, "no-live-bucket");
        assert_eq!(arrivals(&mut guests, 1, 17), [0, 0]);
        assert_eq!(drops(&switch, 1, "no-live-bucket") - before, 17);
        switch.ofctl("mod-port", &["vm2", "up"]);
        switch.ofctl("mod-port", &["vm3", "up"]);
        assert_eq!(arrivals(&mut guests, 1, 18), [18, 0]);
        let counted = stats::group(&switch, 1);
        assert_eq!((counted.all, counted.buckets), ((10..=18).sum(), vec![10 + 12 + 14 + 18, 11 + 13 + 15 + 16]));
    }
    switch.stop();
}

#[test]
fn select_gives_each_bucket_its_flows_and_leaves_them_there() {
    const FLOWS: u32 = 2000;
    let (switch, mut guests) = start(5, &[]);
    let group = |what: &str| switch.ofctl("mod-group", &[&format!("group_id=1,type=select,{what}")]);
    switch.ofctl("add-group", &["group_id=1,type=select,bucket=output:2"]);
    switch.ofctl("add-flow", &["in_port=1,actions=group:1"]);
    let mut destinations = || {
        let (sender, receivers) = guests.split_first_mut().expect("guests");
        destinations(sender, receivers, FLOWS)
    };
    let shares = |found: &[Option<usize>]| (0..4).map(|at| found.iter().filter(|to| **to == Some(at)).count() as u64).collect::<Vec<_>>();

    group("bucket=weight:300,output:2,bucket=weight:100,output:3,bucket=weight:0,output:4,bucket=weight:100,watch_port:5,output:5");
    let first = destinations();
    let count = shares(&first);
    assert_eq!(stats::group(&switch, 1).buckets, count, "the buckets count what came out");
    // Five standard deviations of what chance would do.
    for (count, share) in count.iter().zip([0.6, 0.2, 0.0, 0.2]) {
        let (wanted, deviation) = (f64::from(FLOWS) * share, (f64::from(FLOWS) * share * (1.0 - share)).sqrt());
        assert!((*count as f64 - wanted).abs() <= 5.0 * deviation, "{count} flows for a share of {share}");
    }
    assert_eq!(destinations(), first, "flows stay where they are");

    // When a bucket's port goes down, its flows go elsewhere; when it comes up, they are back. Of the others, few move.
    switch.ofctl("mod-port", &["vm5", "down"]);
    let without = destinations();
    assert_eq!(shares(&without)[3], 0);
    assert_eq!(shares(&without).iter().sum::<u64>(), u64::from(FLOWS));
    let needless = first.iter().zip(&without).filter(|(old, new)| **old != Some(3) && old != new).count();
    assert!(needless < FLOWS as usize / 10, "{needless} flows moved although their bucket stayed");
    switch.ofctl("mod-port", &["vm5", "up"]);
    assert_eq!(destinations(), first);
    switch.stop();
}

#[test]
fn all_and_indirect_change_copies_only() {
    let (switch, mut guests) = start(4, &[]);
    switch.ofctl("add-group", &["group_id=3,type=indirect,bucket=set_field:9->ip_dscp,output:4"]);
    switch
        .ofctl("add-group", &["group_id=1,type=all,bucket=set_field:8->ip_dscp,output:2,bucket=push_vlan:0x8100,output:3,bucket=group:3"]);
    switch.ofctl("add-flow", &["in_port=1,actions=group:1,output:2"]);
    let frame = udp(1, 7, 1000);
    guests[0].send(0, [&frame[..]]);
    all_taken(&mut guests[0]);
    let remarked = |dscp: u8| {
        let mut frame = frame.clone();
        frame[TOS] = dscp << 2;
        correct_checksums(&mut frame);
        frame
    };
    let tagged = [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat();
    assert_eq!(guests[1].receive(0), [remarked(8), frame.clone()], "the group's copy, and the frame as it was");
    assert_eq!((guests[2].receive(0), guests[3].receive(0)), (vec![tagged], vec![remarked(9)]));
    let counted = stats::group(&switch, 1);
    assert_eq!((counted.all, counted.buckets), (1, vec![1, 1, 1]));
    switch.stop();
}

#[test]
fn a_meter_drops_what_is_too_fast_and_counts_it() {
    let (switch, mut guests) = start(3, &["--cpus", "0,1"]);
    // A frame a second, and ten at once: of what comes, ten pass at least, and no more than time allows.
    switch.ofctl("add-meter", &["meter=1,pktps,burst,stats,bands=type=drop,rate=1,burst_size=10"]);
    switch.ofctl("add-flow", &["actions=meter:1,output:3"]);
    let frame = udp(1, 0, SHORTEST);
    for _ in 0..10 {
        for sender in &mut guests[..2] {
            assert_eq!(sender.send(0, std::iter::repeat_n(&frame[..], 100)), 100);
        }
        guests[..2].iter_mut().for_each(all_taken);
    }
    let came = guests[2].receive(0).len() as u64;
    let counted = stats::meter(&switch, 1);
    assert!(came >= 10 && counted.bands[0] > 0, "{came} frames came, {counted:?}");
    assert_eq!((counted.all, counted.bands[0]), (2000, 2000 - came));
    assert_eq!(drops(&switch, 1, "meter") + drops(&switch, 2, "meter"), 2000 - came);
    switch.stop();
}

#[test]
fn a_meter_remarks_what_is_too_fast_and_counts_it() {
    let (switch, mut guests) = start(2, &[]);
    switch.ofctl("add-meter", &["meter=1,kbps,burst,stats,bands=type=dscp_remark,rate=1,burst_size=80,prec_level=1"]);
    switch.ofctl("add-flow", &["in_port=1,actions=meter:1,goto_table:1"]);
    // What is remarked is seen by later tables.
    switch.ofctl("add-flow", &["table=1,priority=2,ip,ip_dscp=12,actions=push_vlan:0x8100,output:2"]);
    switch.ofctl("add-flow", &["table=1,priority=1,actions=output:2"]);
    let mut frame = udp(1, 0, 1000);
    frame[TOS] = 10 << 2;
    correct_checksums(&mut frame);
    let sent = guests[0].send(0, std::iter::repeat_n(&frame[..], 200)) as u64;
    all_taken(&mut guests[0]);
    let came = guests[1].receive(0);
    let (plain, remarked): (Vec<_>, Vec<_>) = came.iter().partition(|came| **came == frame);
    let mut expected = frame.clone();
    expected[TOS] = 12 << 2;
    correct_checksums(&mut expected);
    let expected = [&expected[..12], &[0x81, 0, 0, 0], &expected[12..]].concat();
    assert!(remarked.iter().all(|came| **came == expected), "AF11 becomes AF12");
    // 80 kilobits are ten such frames.
    assert!(plain.len() >= 10 && !remarked.is_empty(), "{} frames passed", plain.len());
    let counted = stats::meter(&switch, 1);
    assert_eq!((counted.all, counted.bands[0], came.len() as u64), (sent, remarked.len() as u64, sent));
    assert_eq!(numbers(plain[0]), (1, 0));
    switch.stop();
}

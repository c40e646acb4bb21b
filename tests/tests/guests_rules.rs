//! Rules change while real guests talk.

use std::time::Duration;

use tests::pair::{Pair, answers, fetch, offer, wait_for_answer};
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

#[test]
fn a_rule_blocks_ping_and_its_removal_lets_it_through() {
    let Pair { mut a, mut b, switch } = Pair::start();
    wait_for_answer(&mut a, "10.0.0.2");
    offer(&mut b, 1);

    switch.ofctl("add-flow", &["priority=100,icmp,actions=drop"]);
    assert_eq!(answers(&mut a, 10, "10.0.0.2"), 0);
    a.run(&fetch("10.0.0.2"));
    let rules = switch.ofctl("dump-flows", &["icmp"]);
    assert!(rules.contains("n_packets=10,"), "each ping is credited to the rule that drops it:\n{rules}");

    switch.ofctl("del-flows", &["icmp"]);
    assert_eq!(answers(&mut a, 10, "10.0.0.2"), 10);

    // Only towards one port.
    switch.ofctl("add-flow", &["priority=100,in_port=vm2,icmp,actions=drop"]);
    assert_eq!(answers(&mut a, 5, "10.0.0.2"), 0);
    switch.ofctl("mod-flows", &["priority=100,in_port=vm2,icmp,actions=vm1"]);
    assert_eq!(answers(&mut a, 5, "10.0.0.2"), 5);
}

#[test]
fn a_transfer_survives_any_number_of_rule_changes() {
    let Pair { mut a, mut b, switch } = Pair::start();
    wait_for_answer(&mut a, "10.0.0.2");
    offer(&mut b, 24);
    let sent = b.run("sha256sum </tmp/www/file");

    let fetching = a.begin(&format!("for i in 1 2 3; do {}; done", fetch("10.0.0.2")));
    // Whichever of these a frame meets, it arrives.
    for round in 0..30 {
        switch.ofctl("add-flow", &["priority=10,in_port=vm1,actions=vm2"]);
        switch.ofctl("add-flow", &[&format!("priority=20,tcp,tp_dst={},actions=drop", 1000 + round)]);
        switch.ofctl("add-flow", &["table=1,actions=NORMAL"]);
        switch.ofctl("add-flow", &["priority=10,in_port=vm2,actions=resubmit(,1)"]);
        switch.ofctl("mod-flows", &["in_port=vm2,actions=vm1"]);
        for rules in ["table=1", "in_port=vm1", "in_port=vm2", "tcp"] {
            switch.ofctl("del-flows", &[rules]);
        }
    }
    assert_eq!(a.finish(fetching), sent.repeat(3), "the file did not arrive as it was sent");
}

#[test]
fn once_a_change_is_confirmed_no_frame_goes_by_the_old_rules() {
    let Pair { mut a, mut b, switch } = Pair::start();
    wait_for_answer(&mut a, "10.0.0.2");
    b.run("iperf3 -s -D >/dev/null");
    a.run("iperf3 -u -b 20M -t 600 -c 10.0.0.2 >/dev/null 2>&1 &");
    for _ in 0..5 {
        let before = sent_to(&switch, "vm2");
        until(PATIENCE, "traffic flows", || (sent_to(&switch, "vm2") > before + 100).then_some(()));
        // ovs-ofctl ends when the switch has answered its barrier.
        switch.ofctl("add-flow", &["cookie=1,priority=65535,actions=drop"]);
        let stopped = sent_to(&switch, "vm2");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(sent_to(&switch, "vm2"), stopped);
        switch.ofctl("del-flows", &["cookie=1/-1"]);
    }
}

/// The frames that the switch has given to a port.
fn sent_to(switch: &Switch, port: &str) -> u64 {
    let ports = switch.ctl_json(&["port", "list"]);
    let port = ports.as_array().into_iter().flatten().find(|entry| entry["name"] == port).expect("the port is listed").clone();
    port["tx_frames"].as_u64().expect("a counter")
}

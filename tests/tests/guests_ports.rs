//! Real guests on ports of every kind, and ports that come and go.

use tests::guest::{Connection, Guest, Options};
use tests::pair::{Pair, answers, connect, iperf, transfer, wait_for_answer, wait_for_link};
use tests::switch::Switch;

/// Deletes a guest's port and adds it with `words` more in its specification; the guest's link comes back by itself.
fn replace_port(switch: &Switch, guest: &mut Guest, number: u8, words: &str) {
    switch.ctl(&["port", "del", &format!("vm{number}")]);
    guest.run("until [ \"$(cat /sys/class/net/eth0/carrier)\" = 0 ]; do usleep 10000; done");
    let socket = switch.path(&format!("vm{number}.sock"));
    switch.ctl(&["port", "add", &format!("vm{number}=vhost-user:{}{words}", socket.display())]);
    wait_for_link(guest);
}

#[test]
fn a_deleted_port_is_dead_and_an_added_one_alive() {
    let Pair { mut a, mut b, switch } = Pair::start();
    wait_for_answer(&mut a, "10.0.0.2");
    let boot = b.boot_id();
    for _ in 0..3 {
        // Traffic flows while the port goes and comes.
        let pinging = a.begin("ping -q -i 0.01 -c 100 -W 1 10.0.0.2 >/dev/null; true");
        replace_port(&switch, &mut b, 2, "");
        a.finish(pinging);
        wait_for_answer(&mut a, "10.0.0.2");
        assert_eq!(answers(&mut a, 20, "10.0.0.2"), 20);
    }
    switch.ctl(&["port", "del", "vm2"]);
    assert_eq!(answers(&mut a, 5, "10.0.0.2"), 0);
    let ports = switch.ctl_json(&["port", "list"]);
    assert_eq!(ports.as_array().expect("a list").len(), 1, "{ports}");
    assert_eq!(b.boot_id(), boot, "the guest was reset");
}

#[test]
fn vlans_separate_access_ports_and_pass_trunks() {
    let Pair { mut a, mut b, switch } = Pair::with(",vlan=10", |_| ());
    wait_for_answer(&mut a, "10.0.0.2");
    assert_eq!(answers(&mut b, 20, "10.0.0.1"), 20, "two access ports of one VLAN");

    replace_port(&switch, &mut b, 2, ",vlan=20");
    assert_eq!(answers(&mut a, 5, "10.0.0.2"), 0, "access ports of two VLANs");
    assert_eq!(answers(&mut b, 5, "fd00::1"), 0, "access ports of two VLANs");

    // The trunk carries VLAN 10 with its tag, and the access port has it without.
    replace_port(&switch, &mut b, 2, ",trunk=10-19");
    assert_eq!(answers(&mut a, 5, "10.0.0.2"), 0, "the trunk's guest takes untagged frames for VLAN 10");
    b.run("ip addr flush dev eth0; ip link add link eth0 name vlan10 type vlan id 10; ip addr add 10.0.0.2/24 dev vlan10; ip link set vlan10 up");
    wait_for_answer(&mut a, "10.0.0.2");
    assert_eq!(answers(&mut b, 20, "10.0.0.1"), 20, "an access port and a trunk");
    transfer(&mut a, &mut b, "10.0.0.2", 8);
    transfer(&mut b, &mut a, "10.0.0.1", 8);

    // Tagged frames from trunk to trunk, but only those of its VLANs.
    replace_port(&switch, &mut a, 1, ",trunk=10-11");
    a.run("ip addr flush dev eth0");
    for (guest, number) in [(&mut a, 1), (&mut b, 2)] {
        for vlan in [11, 12] {
            guest.run(&format!(
                "ip link add link eth0 name vlan{vlan} type vlan id {vlan}; ip addr add 10.0.{vlan}.{number}/24 dev vlan{vlan}; ip link set vlan{vlan} up"
            ));
        }
    }
    wait_for_answer(&mut a, "10.0.11.2");
    transfer(&mut b, &mut a, "10.0.11.1", 8);
    assert_eq!(answers(&mut a, 5, "10.0.12.2"), 0, "VLAN 12 is not on vm1's trunk");
}

#[test]
fn every_queue_of_a_card_works() {
    let Pair { mut a, mut b, switch: _switch } = Pair::with(",queues=2", |options| options.queues = 2);
    for guest in [&mut a, &mut b] {
        guest.run("ethtool -L eth0 combined 2");
    }
    wait_for_answer(&mut a, "10.0.0.2");
    assert_eq!(answers(&mut a, 50, "10.0.0.2"), 50);
    let rate = iperf(&mut a, &mut b, "10.0.0.2", "-t 5 -P 8");
    println!("8 connections over 2 pairs of queues: {rate:.0} Mb/s");
    let counters = |guest: &mut Guest| guest.run("ethtool -S eth0 | grep -E '[rt]x_queue_[01]_packets'");
    for line in [counters(&mut a), counters(&mut b)].concat().lines() {
        let packets: u64 = line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("ethtool writes numbers");
        assert!(packets > 0, "an idle queue: {line}");
    }
    // The guest takes a pair of queues away and brings it back.
    b.run("ethtool -L eth0 combined 1");
    transfer(&mut b, &mut a, "10.0.0.1", 8);
    transfer(&mut a, &mut b, "10.0.0.2", 8);
    b.run("ethtool -L eth0 combined 2");
    transfer(&mut a, &mut b, "10.0.0.2", 8);
}

#[test]
fn qemu_may_be_the_server() {
    let switch = Switch::start(&["--port", "vm1=vhost-user:{}/vm1.sock", "--port", "vm2=vhost-user:{}/vm2.sock,client"]);
    let mut a = Guest::start(&Options::new(switch.path("vm1.sock"), 1));
    connect(&mut a, 1);
    // Two guests in turn on the same socket: the switch connects again by itself.
    for _ in 0..2 {
        let mut b = Guest::start(&Options { connection: Connection::Server, ..Options::new(switch.path("vm2.sock"), 2) });
        connect(&mut b, 2);
        wait_for_answer(&mut a, "10.0.0.2");
        assert_eq!(answers(&mut b, 50, "10.0.0.1"), 50);
        transfer(&mut a, &mut b, "10.0.0.2", 8);
    }
}

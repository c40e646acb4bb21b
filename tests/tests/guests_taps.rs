//! A process of the host and a real guest, through a tap: TCP both ways, with the segments that neither side cuts.

use std::net::IpAddr;

use tests::guest::{Guest, Options};
use tests::namespace::{Namespace, receive_from, send_to};
use tests::pair::connect;
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

/// A guest (10.0.0.1, fd00::1) and a host (10.0.0.2, fd00::2) with a tap.
fn start(words: &str, mtu: Option<u16>) -> (Guest, Switch, Namespace) {
    let host = Namespace::new("host");
    let mtu_word = mtu.map(|mtu| format!(",mtu={mtu}")).unwrap_or_default();
    let ports = [format!("vm1=vhost-user:{{}}/vm1.sock{words}{mtu_word}"), format!("host=tap:host0{mtu_word}")];
    let switch = Switch::start_in(&host, &["--port", &ports[0], "--port", &ports[1]]);
    host.address("host0", "10.0.0.2/24");
    host.address("host0", "fd00::2/64");
    let mut options = Options::new(switch.path("vm1.sock"), 1);
    options.mtu = mtu;
    let mut guest = Guest::start(&options);
    connect(&mut guest, 1);
    until(PATIENCE, "the host hears the guest", || host.pings("10.0.0.1").then_some(()));
    (guest, switch, host)
}

/// A file each way, over IPv4 and IPv6.
fn exchange(guest: &mut Guest, host: &Namespace, megabytes: usize) {
    for address in ["10.0.0.2", "fd00::2"] {
        let address: IpAddr = address.parse().expect("an address");
        let (port, sending) = send_to(host, address, megabytes);
        let received = guest.run(&format!("set -o pipefail; nc {address} {port} </dev/null | sha256sum"));
        assert_eq!(received.split_whitespace().next(), Some(sending.join().expect("the host sends").as_str()), "from the host");

        let sent = guest.run(&format!("dd if=/dev/urandom of=/tmp/file bs=64k count={} 2>/dev/null; sha256sum </tmp/file", megabytes * 16));
        let (port, receiving) = receive_from(host, address);
        guest.run(&format!("nc {address} {port} </tmp/file >/dev/null"));
        assert_eq!(sent.split_whitespace().next(), Some(receiving.join().expect("the host receives").as_str()), "from the guest");
    }
}

#[test]
fn a_host_and_a_guest_exchange_files_in_whole_segments() {
    let (mut guest, switch, host) = start("", None);
    exchange(&mut guest, &host, 8);
    let list = switch.ctl_json(&["port", "list"]);
    for port in list.as_array().expect("a list") {
        let mean = port["rx_bytes"].as_u64().expect("bytes") / port["rx_frames"].as_u64().expect("frames");
        assert!(mean > 1514, "segments pass whole, acknowledgements included: {port}");
    }
    guest.run("ethtool -K eth0 tx off sg off tso off gso off gro off");
    exchange(&mut guest, &host, 4);
    host.run("ethtool", &["-K", "host0", "tx", "off", "sg", "off", "tso", "off", "gso", "off"]);
    exchange(&mut guest, &host, 4);
}

#[test]
fn jumbo_frames_pass_between_host_and_guest() {
    let (mut guest, _switch, host) = start("", Some(9000));
    assert!(host.try_run("ping", &["-c", "3", "-i", "0.05", "-M", "do", "-s", "8972", "10.0.0.1"]).status.success());
    exchange(&mut guest, &host, 4);
}

#[test]
fn a_host_is_in_the_vlan_that_its_tap_is_in() {
    let (mut guest, switch, host) = start("", None);
    for port in ["host", "vm1"] {
        switch.ctl(&["port", "del", port]);
    }
    switch.ctl(&["port", "add", &format!("vm1=vhost-user:{},vlan=10", switch.path("vm1.sock").display())]);
    switch.ctl(&["port", "add", "host=tap:host0,vlan=20"]);
    host.address("host0", "10.0.0.2/24");
    assert!(!host.pings("10.0.0.1"), "VLANs 10 and 20 are apart");
    switch.ctl(&["port", "del", "host"]);
    switch.ctl(&["port", "add", "host=tap:host0,vlan=10"]);
    host.address("host0", "10.0.0.2/24");
    host.address("host0", "fd00::2/64");
    until(PATIENCE, "the host hears the guest", || host.pings("10.0.0.1").then_some(()));
    exchange(&mut guest, &host, 4);
}

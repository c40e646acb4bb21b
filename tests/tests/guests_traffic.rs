//! Two real guests exchange traffic of every kind: nothing is lost, nothing is corrupted.

use tests::guest::Guest;
use tests::pair::{Pair, answers, counter, iperf, transfer, wait_for_answer};

const OFFLOADS_OFF: &str = "ethtool -K eth0 tx off sg off tso off gso off gro off";
const OFFLOADS_ON: &str = "ethtool -K eth0 tx on sg on tso on gso on gro on";

/// 20 seconds of TCP each way, and a file each way.
fn exchange(a: &mut Guest, b: &mut Guest, what: &str) {
    for options in ["-t 20", "-t 20 -R"] {
        let rate = iperf(a, b, "10.0.0.2", options);
        println!("{what}: iperf3 {options}: {rate:.0} Mb/s");
        assert!(rate > 1.0, "{what}: hardly anything arrives");
    }
    transfer(a, b, "10.0.0.2", 24);
    transfer(b, a, "10.0.0.1", 24);
}

#[test]
fn pings_and_tcp_pass_with_offloads_and_without() {
    let Pair { mut a, mut b, switch } = Pair::start();
    wait_for_answer(&mut a, "10.0.0.2");
    assert_eq!(answers(&mut a, 100, "10.0.0.2"), 100);
    assert_eq!(answers(&mut b, 100, "10.0.0.1"), 100);

    let features = a.card()["guest-features"]["dev-features"].to_string();
    for feature in ["HOST_TSO4", "HOST_TSO6", "GUEST_TSO4", "GUEST_TSO6", "CSUM", "GUEST_CSUM", "MRG_RXBUF"] {
        assert!(features.contains(&format!("VIRTIO_NET_F_{feature}:")), "{feature} was not negotiated: {features}");
    }
    exchange(&mut a, &mut b, "offloads on");
    for guest in [&mut a, &mut b] {
        guest.run(OFFLOADS_OFF);
    }
    exchange(&mut a, &mut b, "offloads off");
    // One sends 64 KiB whole, the other in segments.
    a.run(OFFLOADS_ON);
    transfer(&mut a, &mut b, "10.0.0.2", 8);
    transfer(&mut b, &mut a, "10.0.0.1", 8);
    switch.stop();
}

#[test]
fn a_guest_without_offloads_gets_segments_with_checksums() {
    let Pair { mut a, mut b, switch: _switch } = Pair::with("", |options| options.offloads = options.number == 1);
    let features = b.card()["guest-features"]["dev-features"].to_string();
    assert!(!features.contains("TSO") && !features.contains("CSUM"), "{features}");
    wait_for_answer(&mut a, "10.0.0.2");
    for (from_a, from_b) in [("10.0.0.2", "10.0.0.1"), ("[fd00::2]", "[fd00::1]")] {
        transfer(&mut a, &mut b, from_a, 8);
        transfer(&mut b, &mut a, from_b, 8);
    }
    // The guest without offloads checks every checksum itself.
    assert_eq!(counter(&mut b, "Tcp", "InCsumErrors"), 0);
}

#[test]
fn ipv6_passes() {
    let Pair { mut a, mut b, switch: _switch } = Pair::start();
    wait_for_answer(&mut a, "fd00::2");
    assert_eq!(answers(&mut a, 50, "fd00::2"), 50);
    assert_eq!(answers(&mut b, 50, "-s 4000 fd00::1"), 50, "fragments");
    transfer(&mut a, &mut b, "[fd00::2]", 8);
    transfer(&mut b, &mut a, "[fd00::1]", 8);
}

#[test]
fn jumbo_frames_pass_whole() {
    let Pair { mut a, mut b, switch: _switch } = Pair::with(",mtu=9000", |options| options.mtu = Some(9000));
    for guest in [&mut a, &mut b] {
        assert_eq!(guest.run("cat /sys/class/net/eth0/mtu").trim(), "9000", "the MTU that the card tells");
    }
    wait_for_answer(&mut a, "10.0.0.2");
    assert_eq!(answers(&mut a, 50, "-s 8972 10.0.0.2"), 50);
    assert_eq!(counter(&mut b, "Ip", "ReasmReqds"), 0, "the frames came in fragments");
    // Segments of 9000 bytes, cut by the guests themselves.
    for guest in [&mut a, &mut b] {
        guest.run(OFFLOADS_OFF);
    }
    transfer(&mut a, &mut b, "10.0.0.2", 8);
    transfer(&mut b, &mut a, "10.0.0.1", 8);
}

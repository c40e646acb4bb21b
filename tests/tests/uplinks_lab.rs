//! Two hosts, a switch in each, joined by AF_XDP uplinks: what an end of one sends arrives at the other as it was sent.

use tests::lab::Lab;

/// Files each way: in a VLAN that is tagged on the wire, and in the native one, which is not.
fn exchange(options: &[&str]) {
    println!("{options:?}");
    let lab = Lab::up(options);
    for number in 1..=2 {
        lab.exchange(number, 2);
    }
    let mtu = options.iter().position(|option| *option == "--mtu").map_or("1500", |at| options[at + 1]);
    for host in ["a", "b"] {
        let uplink = lab.ctl(host, &["port", "show", "uplink"]);
        assert_eq!((uplink["link"].as_str(), uplink["link_mtu"].to_string()), (Some("up"), mtu.to_owned()), "{uplink}");
        assert!(uplink["rx_frames"].as_u64() > Some(1000), "the files went through the uplink: {uplink}");
    }
    // The VLANs are apart.
    let (a1, b2) = (lab.namespace("a1"), lab.namespace("b2"));
    b2.address("b2", "10.0.10.9/24");
    assert!(!a1.pings("10.0.10.9"));
}

#[test]
fn native_uplinks_carry_everything() {
    for mtu in ["1500", "9000"] {
        exchange(&["--mode", "native", "--mtu", mtu]);
        exchange(&["--mode", "native", "--mtu", mtu, "--no-offloads"]);
    }
}

#[test]
fn generic_uplinks_carry_everything() {
    for mtu in ["1500", "9000"] {
        exchange(&["--mode", "generic", "--mtu", mtu]);
        exchange(&["--mode", "generic", "--mtu", mtu, "--no-offloads"]);
    }
}

//! Real guests in two VLANs between which Faucet routes (`tests/controllers/faucet.yaml`).

use tests::controllers::Controller;
use tests::guest::{Guest, Options};
use tests::pair::{answers, counter, transfer, wait_for_answer, wait_for_link};
use tests::switch::Switch;

/// A guest on the port `vmNUMBER` whose addresses end in its number, in the VLAN with this id.
fn start(switch: &Switch, number: u8, vlan: u16) -> Guest {
    let mut guest = Guest::start(&Options::new(switch.path(&format!("vm{number}.sock")), number));
    guest.run("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad");
    guest.run(&format!("ip addr add 10.0.{vlan}.{number}/24 dev eth0; ip addr add fd00:{vlan}::{number}/64 dev eth0; ip link set eth0 up"));
    wait_for_link(&mut guest);
    guest.run(&format!("ip route add default via 10.0.{vlan}.254; ip -6 route add default via fd00:{vlan}::254"));
    guest
}

#[test]
fn faucet_routes_between_guests() {
    let Some(faucet) = Controller::faucet(include_str!("../controllers/faucet.yaml")) else { return };
    let args = ["--controller", &faucet.target(), "--datapath-id", "00000000000000fa", "--fail-mode", "secure"];
    let ports = ["--port", "vm1=vhost-user:vm1.sock,ofport=1", "--port", "vm3=vhost-user:vm3.sock,ofport=3"];
    let switch = Switch::start(&[&args[..], &ports].concat());
    let (mut office, mut server) = (start(&switch, 1, 100), start(&switch, 3, 200));

    for address in ["10.0.100.254", "fd00:100::254", "10.0.200.3", "fd00:200::3"] {
        wait_for_answer(&mut office, address);
        assert_eq!(answers(&mut office, 20, address), 20, "{address}");
    }
    let neighbours = office.run("ip neigh");
    let gateway = neighbours.lines().find(|line| line.starts_with("10.0.100.254 ")).unwrap_or_default();
    assert!(gateway.contains("0e:00:00:00:01:00"), "{neighbours}");
    let ping = office.run("ping -c 1 10.0.200.3");
    assert!(ping.contains("ttl=63"), "{ping}");

    // Segments of 64 KiB are routed whole, with headers rewritten.
    transfer(&mut office, &mut server, "10.0.200.3", 8);
    transfer(&mut server, &mut office, "10.0.100.1", 8);
    transfer(&mut office, &mut server, "[fd00:200::3]", 8);
    for guest in [&mut office, &mut server] {
        assert_eq!(counter(guest, "Tcp", "InCsumErrors"), 0);
    }

    // The access list names port 23.
    server.run("httpd -p 23 -h /tmp/www; httpd -p 24 -h /tmp/www");
    let fetch = |port| format!("wget -q -O - http://10.0.200.3:{port}/file >/dev/null");
    office.run(&fetch(24));
    assert_ne!(office.try_run(&format!("timeout 3 {}", fetch(23))).status, 0);
    let dropped = switch.ofctl("dump-flows", &["table=0,tcp,tp_dst=23"]);
    assert!(dropped.contains("actions=drop") && !dropped.contains("n_packets=0,"), "{dropped}");
    assert!(!faucet.output().contains("OFError"), "{}", faucet.output());
}

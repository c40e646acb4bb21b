//! Faucet runs the switch: VLANs, routing between two of them, an access list (`tests/controllers/faucet.yaml`).

use std::net::Ipv4Addr;

use tests::controllers::Controller;
use tests::hosts::{Host, Hosts, Mac, Packet, Pong, TTL};
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

const CONFIG: &str = include_str!("../controllers/faucet.yaml");

/// Faucet's own addresses in the two VLANs that it routes between.
const OFFICE_MAC: Mac = [0x0e, 0, 0, 0, 1, 0];
const SERVERS_MAC: Mac = [0x0e, 0, 0, 0, 2, 0];
const OFFICE_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 100, 254);
const SERVERS_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 200, 254);

/// The hosts: two in the office, a server, and one on the island that says it is in the office.
const ALICE: usize = 0;
const BOB: usize = 1;
const SERVER: usize = 2;
const ISLANDER: usize = 3;
const ADDRESSES: [Ipv4Addr; 4] =
    [Ipv4Addr::new(10, 0, 100, 1), Ipv4Addr::new(10, 0, 100, 2), Ipv4Addr::new(10, 0, 200, 3), Ipv4Addr::new(10, 0, 100, 4)];

struct Site {
    // The hosts end before the switch, and the switch before its controller.
    hosts: Hosts,
    switch: Switch,
    faucet: Controller,
}

impl Site {
    fn start() -> Option<Site> {
        let faucet = Controller::faucet(CONFIG)?;
        let ports: Vec<_> = (1..=4).map(|number| format!("vm{number}=vhost-user:vm{number}.sock")).collect();
        let mut args = vec!["--controller", "", "--datapath-id", "00000000000000fa", "--fail-mode", "secure"];
        let target = faucet.target();
        args[1] = &target;
        args.extend(ports.iter().flat_map(|port| ["--port", port]));
        let switch = Switch::start(&args);
        wait_until_configured(&switch);
        let gateways = [OFFICE_GATEWAY, OFFICE_GATEWAY, SERVERS_GATEWAY, OFFICE_GATEWAY];
        let host = |number: usize| Host::connect(&switch, number as u8 + 1, ADDRESSES[number], Some(gateways[number]));
        let hosts = Hosts::new((0..4).map(host).collect());
        for port in 1..=4 {
            wait_for_log(&faucet, &format!("Port {port} ({port}) up"));
        }
        Some(Site { hosts, switch, faucet })
    }

    /// The frames that rules like this have counted.
    fn counted(&self, rules: &str) -> u64 {
        let dump = self.switch.ofctl("dump-aggregate", &[rules]);
        let count = dump.split_once("packet_count=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        count.unwrap_or_else(|| panic!("no count in {dump}"))
    }

    /// Waits until each frame that came in was looked up in table 0 once, and so has gone where it goes.
    fn check_counters(&self) {
        until(PATIENCE, "the counters of table 0 and of the ports agree", || {
            let ports = self.switch.ctl_json(&["port", "list"]);
            let received: u64 = ports.as_array()?.iter().filter_map(|port| port["rx_frames"].as_u64()).sum();
            (self.counted("table=0") == received).then_some(())
        });
    }

    fn check_log(&self) {
        let log = self.faucet.output();
        for error in ["OFError", "exception"] {
            assert!(!log.contains(error), "Faucet complains:\n{log}");
        }
    }
}

/// Waits until Faucet has sent a new switch its rules, of which table 0's come last. Faucet looks at the ports before that, and asks to be told of changes
/// afterwards: what happens to a port in between escapes it.
fn wait_until_configured(switch: &Switch) {
    let is_configured = || !switch.ofctl("dump-aggregate", &["table=0"]).contains("flow_count=0");
    until(PATIENCE, "Faucet configures the switch", || is_configured().then_some(()));
}

fn wait_for_log(faucet: &Controller, line: &str) {
    until(PATIENCE, &format!("Faucet logs {line:?}"), || faucet.output().contains(line).then_some(()));
}

/// The frames with an echo request that a host heard.
fn pings(host: &Host) -> Vec<Packet<'_>> {
    let packets = host.heard.iter().map(|frame| Packet::of(frame));
    packets.filter(|packet| matches!(packet.icmp(), Some(etherparse::Icmpv4Type::EchoRequest(_)))).collect()
}

#[test]
fn frames_stay_in_their_vlan_or_are_routed() {
    let Some(mut site) = Site::start() else { return };
    let hosts = &mut site.hosts;
    let macs: Vec<Mac> = hosts.hosts.iter().map(|host| host.mac).collect();

    // Inside a VLAN: nothing changes on the way.
    assert_eq!(hosts.ping(ALICE, ADDRESSES[BOB]), Pong { mac: macs[BOB], ttl: TTL });
    assert_eq!(hosts.ping(BOB, ADDRESSES[ALICE]), Pong { mac: macs[ALICE], ttl: TTL });

    // The gateway is Faucet itself.
    assert_eq!(hosts.resolve(ALICE, OFFICE_GATEWAY), OFFICE_MAC);
    assert_eq!(hosts.ping(ALICE, OFFICE_GATEWAY).mac, OFFICE_MAC);
    assert_eq!(hosts.ping(SERVER, SERVERS_GATEWAY).mac, SERVERS_MAC);

    // Between the VLANs: the switch does what a router does.
    hosts.forget();
    assert_eq!(hosts.ping(ALICE, ADDRESSES[SERVER]), Pong { mac: OFFICE_MAC, ttl: TTL - 1 });
    let asked = pings(&hosts.hosts[SERVER]);
    assert!(!asked.is_empty());
    for ping in asked {
        let ip = ping.ipv4().expect("pings are IPv4");
        assert_eq!((ping.source, ping.destination, ping.tags()), (SERVERS_MAC, macs[SERVER], 0));
        assert_eq!((ip.source, ip.destination, ip.time_to_live), (ADDRESSES[ALICE].octets(), ADDRESSES[SERVER].octets(), TTL - 1));
    }
    assert_eq!(hosts.ping(SERVER, ADDRESSES[BOB]), Pong { mac: SERVERS_MAC, ttl: TTL - 1 });
    assert_eq!(hosts.ping(BOB, ADDRESSES[SERVER]), Pong { mac: OFFICE_MAC, ttl: TTL - 1 });

    // Once the hosts are known, frames are routed by the switch alone.
    let route = format!("table=3,ip,nw_dst={}", ADDRESSES[SERVER]);
    let before = site.counted(&route);
    let hosts = &mut site.hosts;
    hosts.forget();
    for _ in 0..20 {
        hosts.ping(ALICE, ADDRESSES[SERVER]);
    }
    let sent = pings(&hosts.hosts[SERVER]).len() as u64;
    until(PATIENCE, "the route counts", || (site.counted(&route) == before + sent).then_some(()));

    site.check_counters();
    site.check_log();
    site.switch.stop();
}

#[test]
fn a_vlan_without_a_router_is_an_island() {
    let Some(mut site) = Site::start() else { return };
    let hosts = &mut site.hosts;
    let alice = hosts.hosts[ALICE].mac;
    hosts.ping(ALICE, ADDRESSES[BOB]);
    hosts.ping(ALICE, ADDRESSES[SERVER]);
    hosts.forget();

    // The islander is in the same network as far as addresses go. It knows those of the office and its router, and nobody hears it.
    let islander = &mut hosts.hosts[ISLANDER];
    islander.send_arp_request(ADDRESSES[ALICE]);
    islander.send_ping(alice, ADDRESSES[ALICE], 1000);
    islander.send_arp_request(OFFICE_GATEWAY);
    islander.send_ping(OFFICE_MAC, ADDRESSES[ALICE], 1001);
    islander.send_ping(SERVERS_MAC, ADDRESSES[SERVER], 1002);
    // Nor does it hear anybody, while Bob hears Alice.
    let (mac, address) = (hosts.hosts[ISLANDER].mac, hosts.hosts[ISLANDER].address);
    hosts.hosts[ALICE].send_arp_request(address);
    hosts.hosts[ALICE].send_ping(mac, address, 1003);
    hosts.hosts[ALICE].send_ping(OFFICE_MAC, address, 1004);

    site.check_counters();
    site.hosts.run();
    for (number, host) in site.hosts.hosts.iter().enumerate() {
        let from_others = host.heard.iter().map(|frame| Packet::of(frame)).filter(|packet| match number {
            ISLANDER => true,
            _ => packet.source == mac || packet.ipv4().is_some_and(|ip| ip.source == address.octets()),
        });
        assert_eq!(from_others.map(|packet| format!("{packet:?}")).collect::<Vec<_>>(), [""; 0], "at host {number}");
    }
    let requests = site.hosts.hosts[BOB].heard.iter().filter_map(|frame| Packet::of(frame).arp());
    assert!(requests.into_iter().any(|arp| arp.target_ipv4_addr() == address), "Bob is in Alice's VLAN");
    site.check_log();
}

#[test]
fn the_access_list_drops_what_it_names() {
    let Some(mut site) = Site::start() else { return };
    let hosts = &mut site.hosts;
    let bob = hosts.hosts[BOB].mac;
    hosts.ping(ALICE, ADDRESSES[BOB]);
    hosts.ping(ALICE, ADDRESSES[SERVER]);
    let alice = &mut hosts.hosts[ALICE];
    for port in [23, 80] {
        alice.send_syn(bob, ADDRESSES[BOB], port);
        alice.send_syn(OFFICE_MAC, ADDRESSES[SERVER], port);
    }
    // Frames of a guest stay in order, so what has not come before the others does not come.
    for host in [BOB, SERVER] {
        let ports = |hosts: &[Host]| hosts[host].heard.iter().filter_map(|frame| Packet::of(frame).tcp_port()).collect::<Vec<_>>();
        hosts.until("a connection attempt arrives", |hosts| (!ports(hosts).is_empty()).then_some(()));
        assert_eq!(ports(&hosts.hosts), [80], "at host {host}");
    }
    // The list is for what comes in through Alice's port.
    let (alice, address) = (hosts.hosts[ALICE].mac, hosts.hosts[ALICE].address);
    hosts.hosts[BOB].send_syn(alice, address, 23);
    let telnet = |hosts: &mut [Host]| hosts[ALICE].heard.iter().any(|frame| Packet::of(frame).tcp_port() == Some(23)).then_some(());
    hosts.until("Bob's attempt arrives", telnet);

    site.check_counters();
    assert_eq!(site.counted("table=0,in_port=1,tcp,tp_dst=23"), 2);
    let port = site.switch.ctl_json(&["port", "show", "vm1"]);
    assert_eq!(port["drops"]["rule"], 2, "{port}");
    site.check_log();
}

#[test]
fn faucet_hears_of_links_and_may_be_away() {
    let Some(mut site) = Site::start() else { return };
    site.hosts.ping(ALICE, ADDRESSES[BOB]);
    site.hosts.ping(ALICE, ADDRESSES[SERVER]);

    // A link goes, and with it what Faucet knew of who is there, and comes back. (Faucet logs before it acts.)
    let knows_bob = |switch: &Switch| !switch.ofctl("dump-aggregate", &["table=6,dl_dst=02:00:00:00:00:02"]).contains("flow_count=0");
    until(PATIENCE, "Faucet knows where Bob is", || knows_bob(&site.switch).then_some(()));
    site.hosts.hosts[BOB].guest.disconnect();
    until(PATIENCE, "Faucet forgets where Bob is", || (!knows_bob(&site.switch)).then_some(()));
    let socket = site.switch.path("vm2.sock");
    site.hosts.hosts[BOB].guest.reconnect(&socket).expect("the guest connects again");
    until(PATIENCE, "Faucet knows where Bob is again", || {
        site.hosts.ping(ALICE, ADDRESSES[BOB]);
        knows_bob(&site.switch).then_some(())
    });

    // What is set up goes on without Faucet. (A secure switch keeps to its rules.)
    site.check_log();
    site.faucet.kill();
    site.hosts.ping(ALICE, ADDRESSES[BOB]);
    site.hosts.ping(SERVER, ADDRESSES[ALICE]);
    site.faucet.restart();
    wait_for_log(&site.faucet, "Cold start configuring DP");
    site.hosts.ping(ALICE, OFFICE_GATEWAY);
    site.hosts.ping(BOB, ADDRESSES[SERVER]);

    // A switch that was restarted is set up anew.
    site.switch.kill();
    wait_for_log(&site.faucet, "datapath down");
    site.switch.restart();
    wait_until_configured(&site.switch);
    for (number, host) in (1..).zip(&mut site.hosts.hosts) {
        host.guest.reconnect(&site.switch.path(&format!("vm{number}.sock"))).expect("the guest connects again");
    }
    site.hosts.ping(SERVER, ADDRESSES[BOB]);
    site.hosts.ping(ALICE, OFFICE_GATEWAY);
    site.check_log();
}

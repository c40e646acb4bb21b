//! `ovs-testcontroller` runs the switch: as a learning switch with exact and with wide rules, without rules, and as a hub.

use std::net::Ipv4Addr;

use tests::controllers::{Controller, ovs_testcontroller_is_installed};
use tests::hosts::{Host, Hosts};
use tests::process::{PATIENCE, Process, until};
use tests::switch::Switch;

/// The rules that it sends when hosts ping each other, besides the one that sends frames to it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rules {
    /// None.
    None,
    /// For each flow, up to its ICMP type.
    Exact,
    /// For each pair of Ethernet addresses.
    Addresses,
    /// As exact, and everybody gets everything.
    Flood,
}

/// A switch with three ports that forwards nothing by itself.
fn start(args: &[&str]) -> Switch {
    let ports: Vec<_> = (1..=3).map(|number| format!("vm{number}=vhost-user:vm{number}.sock")).collect();
    let ports = ports.iter().flat_map(|port| ["--port", port]);
    Switch::start(&["--fail-mode", "secure"].into_iter().chain(args.iter().copied()).chain(ports).collect::<Vec<_>>())
}

fn hosts(switch: &Switch) -> Hosts {
    Hosts::new((1..=3).map(|number| Host::connect(switch, number, Ipv4Addr::new(10, 0, 0, number), None)).collect())
}

/// Has hosts ping each other until the rules are as they should be.
fn talk(hosts: &mut Hosts, switch: &Switch, rules: Rules) {
    let [first, second] = [hosts.hosts[0].address, hosts.hosts[1].address];
    until(PATIENCE, &format!("the rules are {rules:?}"), || {
        hosts.ping(0, second);
        hosts.ping(1, first);
        hosts.ping(2, first);
        let dump = switch.ofctl("dump-flows", &[]);
        let has =
            |what: &str| dump.lines().any(|line| line.contains("dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02") && line.contains(what));
        let is_as_it_should_be = match rules {
            Rules::None => !has("actions="),
            Rules::Exact => has("icmp_type=8,icmp_code=0 actions=output:2"),
            Rules::Addresses => has("dl_dst=02:00:00:00:00:02 actions=output:2"),
            Rules::Flood => has("icmp_type=8,icmp_code=0 actions=FLOOD"),
        };
        is_as_it_should_be.then_some(())
    });
}

fn check_log(log: &str, version: u8) {
    assert!(log.contains(&format!("negotiated OpenFlow version {version:#04x}")) && !log.contains("OFPT_ERROR"), "{log}");
}

#[test]
fn it_sets_up_flows() {
    let ways: [(&[&str], Rules); 9] = [
        (&[], Rules::Exact),
        (&["--protocols=OpenFlow13", "--max-idle=permanent"], Rules::Exact),
        (&["--wildcards"], Rules::Addresses),
        (&["--noflow"], Rules::None),
        (&["--hub"], Rules::Flood),
        // By frames that no rule matches, and rules of OpenFlow 1.0's own match.
        (&["--protocols=OpenFlow10"], Rules::Exact),
        (&["--protocols=OpenFlow10", "--wildcards"], Rules::Addresses),
        (&["--protocols=OpenFlow10", "--noflow"], Rules::None),
        (&["--protocols=OpenFlow10", "--hub"], Rules::Flood),
    ];
    for (options, rules) in ways {
        let Some(controller) = Controller::ovs_testcontroller(options) else { return };
        let switch = start(&["--controller", &controller.target()]);
        talk(&mut hosts(&switch), &switch, rules);
        check_log(&controller.log(), if options.contains(&"--protocols=OpenFlow10") { 1 } else { 4 });
        switch.stop();
    }
}

#[test]
fn it_may_connect_to_the_switch() {
    if !ovs_testcontroller_is_installed() {
        return;
    }
    let switch = start(&[]);
    let dir = tempfile::tempdir().expect("there is room for a temporary directory");
    let control = format!("--unixctl={}", dir.path().join("control").display());
    let switch_socket = format!("unix:{}", switch.path("br0.mgmt").display());
    let args = [&control, &switch_socket, "-vsyslog:off", "-vvconn:console:dbg"];
    let controller = Process::start(dir.path(), "ovs-testcontroller", "ovs-testcontroller", args);
    // It asks for packet-ins by setting a miss_send_len.
    talk(&mut hosts(&switch), &switch, Rules::Exact);
    check_log(&controller.stderr(), 4);
}

//! A learning switch on os-ken (`tests/controllers/learning_switch.py`) runs the switch: rules that come and go, a controller that does, and two of them.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tests::controllers::Controller;
use tests::hosts::{Host, Hosts};
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

/// OFPCR_ROLE_*
const MASTER: u32 = 2;
const SLAVE: u32 = 3;

fn start(controllers: &[&Controller]) -> Switch {
    let targets: Vec<_> = controllers.iter().map(|controller| controller.target()).collect();
    let ports: Vec<_> = (1..=4).map(|number| format!("vm{number}=vhost-user:vm{number}.sock")).collect();
    let mut args = vec!["--fail-mode", "secure", "--datapath-id", "00000000000000ab"];
    args.extend(targets.iter().flat_map(|target| ["--controller", target]));
    args.extend(ports.iter().flat_map(|port| ["--port", port]));
    Switch::start(&args)
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

fn connect(switch: &Switch, number: u8) -> Host {
    Host::connect(switch, number, address(number), None)
}

/// What a controller has heard of this kind.
fn heard(controller: &Controller, event: &str) -> Vec<Value> {
    let output = controller.output();
    // The last line may be half written.
    let lines = output.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.starts_with('{'));
    let events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error} in {line}")));
    events.filter(|document| document["event"] == event).collect()
}

/// Waits until a controller has heard something of this kind.
fn wait_for(controller: &Controller, event: &str) -> Vec<Value> {
    until(PATIENCE, &format!("the controller hears of {event}"), || Some(heard(controller, event)).filter(|events| !events.is_empty()))
}

fn wait_for_table_miss(switch: &Switch) {
    let is_there = || switch.ofctl("dump-flows", &[]).contains("priority=0 actions=CONTROLLER");
    until(PATIENCE, "the rule that sends frames to the controller is there", || is_there().then_some(()));
}

#[test]
fn idle_rules_go_and_say_what_they_did() {
    let Some(controller) = Controller::learning_switch(&["IDLE_TIMEOUT=2"]) else { return };
    let switch = start(&[&controller]);
    wait_for_table_miss(&switch);
    let mut hosts = Hosts::new((1..=3).map(|number| connect(&switch, number)).collect());
    assert_eq!(wait_for(&controller, "features"), [json!({ "event": "features", "datapath": 0xab })]);

    let pairs = [("1", "2"), ("2", "1"), ("1", "3"), ("3", "1")];
    until(PATIENCE, "both pairs of hosts have their rules", || {
        hosts.ping(0, address(2));
        hosts.ping(2, address(1));
        let rules = switch.ofctl("dump-flows", &[]);
        let rule = |(from, to)| {
            let (source, destination) = (mac(from), mac(to));
            format!("idle_timeout=2, send_flow_rem priority=10,in_port={from},dl_src={source},dl_dst={destination} actions=output:{to}\n")
        };
        pairs.iter().all(|pair| rules.contains(&rule(*pair))).then_some(())
    });
    // Everybody was asked for the first address. The reason is OFPR_NO_MATCH, since the rule is the table-miss.
    let asked = json!({ "event": "packet-in", "in_port": 1, "reason": 0, "src": mac("1"), "dst": "ff:ff:ff:ff:ff:ff" });
    assert_eq!(heard(&controller, "packet-in")[0], asked);

    until(PATIENCE, "the rules time out", || (!switch.ofctl("dump-flows", &[]).contains("priority=10")).then_some(()));
    for (from, to) in pairs {
        let ends = json!({ "in_port": from.parse::<u32>().expect("a port"), "eth_src": mac(from), "eth_dst": mac(to) });
        let what = format!("the controller hears that the rule for {ends} was removed");
        // OFPRR_IDLE_TIMEOUT
        let is_told = || heard(&controller, "flow-removed").iter().any(|rule| rule["match"] == ends && rule["reason"] == 0);
        until(PATIENCE, &what, || is_told().then_some(()));
    }
    // Each frame was counted by a rule that is gone, or by the one that sent it to the controller.
    let ports = switch.ctl_json(&["port", "list"]);
    let received: u64 = ports.as_array().expect("a list").iter().map(|port| port["rx_frames"].as_u64().expect("a number")).sum();
    until(PATIENCE, "every frame is accounted for", || {
        let told: u64 = heard(&controller, "flow-removed").iter().map(|rule| rule["packets"].as_u64().expect("a number")).sum();
        let missed = heard(&controller, "packet-in").len() as u64;
        let rest = switch.ofctl("dump-aggregate", &[]);
        (told + missed == received && rest.contains(&format!("packet_count={missed} "))).then_some(())
    });
    assert_eq!(heard(&controller, "error"), [Value::Null; 0]);
}

fn mac(number: &str) -> String {
    format!("02:00:00:00:00:0{number}")
}

#[test]
fn a_controller_that_comes_back_goes_on() {
    let Some(mut controller) = Controller::learning_switch(&[]) else { return };
    let switch = start(&[&controller]);
    wait_for_table_miss(&switch);
    let mut hosts = Hosts::new((1..=3).map(|number| connect(&switch, number)).collect());
    hosts.ping(0, address(2));
    until(PATIENCE, "both directions have a rule", || {
        hosts.ping(0, address(2));
        (switch.ofctl("dump-flows", &[]).matches("priority=10").count() == 2).then_some(())
    });

    // Without it, a secure switch keeps to its rules: known ends go on, and who is new finds nobody.
    controller.kill();
    hosts.ping(0, address(2));
    until(PATIENCE, "the frames of a newcomer are dropped", || {
        hosts.hosts[2].send_arp_request(address(1));
        switch.ctl_json(&["port", "show", "vm3"])["drops"].get("no-controller").map(drop)
    });
    controller.restart();
    hosts.ping(2, address(1));
    hosts.ping(0, address(2));
    assert!(!heard(&controller, "packet-in").is_empty());
    assert_eq!(heard(&controller, "error"), [Value::Null; 0]);
}

#[test]
fn one_of_two_controllers_is_the_master() {
    let Some(mut master) = Controller::learning_switch(&["ROLE=master", "GENERATION=7"]) else { return };
    let Some(mut slave) = Controller::learning_switch(&["ROLE=slave", "GENERATION=7"]) else { return };
    let switch = start(&[&master, &slave]);
    assert_eq!(wait_for(&master, "role"), [json!({ "event": "role", "role": MASTER, "generation": 7 })]);
    assert_eq!(wait_for(&slave, "role"), [json!({ "event": "role", "role": SLAVE, "generation": 7 })]);
    // The slave's attempt at the table-miss rule: OFPET_BAD_REQUEST, OFPBRC_IS_SLAVE.
    assert_eq!(wait_for(&slave, "error"), [json!({ "event": "error", "type": 1, "code": 10 })]);
    wait_for_table_miss(&switch);

    // Both hear of ports, one is asked about frames.
    let mut hosts = Hosts::new((1..=2).map(|number| connect(&switch, number)).collect());
    for controller in [&master, &slave] {
        until(PATIENCE, "the controller hears of both links", || {
            let live = |port: u32| heard(controller, "port-status").iter().any(|status| status["port"] == port && status["state"] == 4);
            (live(1) && live(2)).then_some(())
        });
    }
    hosts.ping(0, address(2));
    assert!(!heard(&master, "packet-in").is_empty());
    assert_eq!(heard(&slave, "packet-in"), [Value::Null; 0]);

    // The slave takes over.
    slave.kill();
    slave.settings.extend(["ROLE=master".to_owned(), "GENERATION=8".to_owned()]);
    slave.restart();
    assert_eq!(wait_for(&slave, "role"), [json!({ "event": "role", "role": MASTER, "generation": 8 })]);
    hosts.hosts.extend((3..=4).map(|number| connect(&switch, number)));
    hosts.ping(2, address(4));
    assert!(!heard(&slave, "packet-in").is_empty());
    let asked_about = |controller| heard(controller, "packet-in").iter().map(|asked| asked["in_port"].as_u64()).max().flatten();
    assert!(asked_about(&master) < Some(3), "who was the master is a slave now");
    assert_eq!(heard(&slave, "error"), [Value::Null; 0]);

    // The old master does not know of it yet, and is told: OFPET_ROLE_REQUEST_FAILED, OFPRRFC_STALE.
    master.kill();
    master.restart();
    assert_eq!(wait_for(&master, "error"), [json!({ "event": "error", "type": 11, "code": 0 })]);
    assert_eq!(heard(&master, "role"), [Value::Null; 0]);
}

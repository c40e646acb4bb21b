//! OpenFlow through the running program: its listeners, and controllers that it connects to.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tests::frontend::{Guest, Options};
use tests::openflow::*;
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

#[test]
fn a_controller_is_connected_to_and_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let unix = dir.path().join("controller.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let tcp_target = format!("tcp:{}", tcp.local_addr().expect("an address"));
    let unix_target = format!("unix:{}", unix.display());
    let switch = Switch::start(&["--controller", &tcp_target, "--controller", &unix_target, "--datapath-id", "00000000000000ab"]);

    // The second comes late.
    let listener = UnixListener::bind(&unix).expect("bound");
    for _ in 0..2 {
        let mut first = Controller::greet(tcp.accept().expect("the switch connects").0);
        let mut second = Controller::greet(listener.accept().expect("the switch connects").0);
        second.send(FEATURES_REQUEST, &[]);
        assert_eq!(second.wait_for(FEATURES_REPLY)[..8], [0, 0, 0, 0, 0, 0, 0, 0xab]);
        switch.ctl(&["port", "add", "vm1=vhost-user:vm1.sock"]);
        for controller in [&mut first.wait_for(PORT_STATUS), &mut second.wait_for(PORT_STATUS)] {
            // Reason: add; port number 1.
            assert_eq!((controller[0], &controller[8..12]), (0, &[0, 0, 0, 1][..]));
        }
        switch.ctl(&["port", "del", "vm1"]);
    }
    switch.stop();
}

#[test]
fn lost_controllers_are_stood_in_for_unless_the_switch_is_secure() {
    let dir = tempfile::tempdir().expect("a directory");
    let unix = dir.path().join("controller.sock");
    let config = dir.path().join("config.toml").display().to_string();
    let text = format!("[openflow]\ncontrollers = ['unix:{}']\ninactivity-probe-s = 1\nmax-backoff-s = 1\n", unix.display());
    std::fs::write(&config, text).expect("written");
    let start = |fail_mode| {
        let ports = ["--port", "vm1=vhost-user:vm1.sock", "--port", "vm2=vhost-user:vm2.sock"];
        let switch = Switch::start(&[&["--config", &config, "--fail-mode", fail_mode], &ports[..]].concat());
        let guests = ["vm1.sock", "vm2.sock"].map(|name| Guest::connect(&switch.path(name), Options::default()).expect("a guest"));
        (switch, guests)
    };
    let (secure, [mut secure_one, mut secure_two]) = start("secure");
    let (standalone, [mut one, mut two]) = start("standalone");
    let frame: Vec<u8> = (0..100).collect();
    until(PATIENCE, "the switch becomes a learning switch", || {
        one.send(0, [frame.as_slice()]);
        (!two.receive(0).is_empty()).then_some(())
    });
    assert!(standalone.ofctl("dump-flows", &[]).contains("priority=65535 actions=NORMAL"));
    // The secure one, which has waited for longer, still drops all.
    let frames = until(PATIENCE, "the secure switch drops a frame", || {
        secure_one.send(0, [frame.as_slice()]);
        let port = secure.ctl_json(&["port", "show", "vm1"]);
        (port["drops"]["no-match"].as_u64() > Some(0)).then(|| port["forwarded"].clone())
    });
    assert_eq!((frames, secure_two.receive(0).len()), (json!(0), 0));

    // Once there is a controller, its rules are what counts, and there are none.
    let listener = UnixListener::bind(&unix).expect("bound");
    let controllers = [(); 2].map(|()| Controller::greet(listener.accept().expect("the switch connects").0));
    until(PATIENCE, "the rule is gone", || (!standalone.ofctl("dump-flows", &[]).contains("NORMAL")).then_some(()));
    drop(controllers);
    standalone.stop();
    secure.stop();
}

#[test]
fn connections_are_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let unix = dir.path().join("controller.sock");
    let listener = UnixListener::bind(&unix).expect("bound");
    let (there, away) = (format!("unix:{}", unix.display()), "tcp:127.0.0.1:1");
    let switch = Switch::start(&["--controller", &there, "--controller", away]);
    let mut controller = Controller::greet(listener.accept().expect("the switch connects").0);
    // OFPCR_ROLE_MASTER, generation 1.
    controller.send(ROLE_REQUEST, &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    controller.wait_for(ROLE_REQUEST + 1);
    let mut tool = Controller::greet(UnixStream::connect(switch.path("br0.mgmt")).expect("connected"));
    tool.send(ECHO_REQUEST, &[]);
    tool.wait_for(ECHO_REQUEST + 1);

    let shown = until(PATIENCE, "the second controller was tried", || {
        let shown = switch.ctl_json(&["connections"]);
        shown[1]["last_error"].is_string().then_some(shown)
    });
    let [first, second, third] = &shown.as_array().expect("a list")[..] else { panic!("{shown}") };
    let no_packet_ins = json!({"sent": 0, "queued": 0, "dropped": {}});
    let expected = json!({
        "kind": "controller", "target": there, "peer": "unix", "state": "active", "version": "1.3", "role": "master",
        "connected_s": first["connected_s"], "messages_in": 2, "messages_out": 2, "packet_ins": no_packet_ins,
        "last_error": null, "next_attempt_s": null,
    });
    assert_eq!(*first, expected);
    assert!(first["connected_s"].as_u64().is_some_and(|seconds| seconds < 1000), "{first}");
    assert_eq!((&second["target"], &second["state"], &second["role"]), (&json!(away), &json!("backoff"), &json!(null)), "{second}");
    assert_eq!(second["last_error"], "can't connect: Connection refused (os error 111)");
    assert!(second["next_attempt_s"].as_u64().is_some_and(|seconds| seconds <= 8), "{second}");
    let target = format!("punix:{}", switch.path("br0.mgmt").display());
    assert_eq!((&third["kind"], &third["target"], &third["state"]), (&json!("listener"), &json!(target), &json!("active")), "{third}");

    let table = switch.ctl(&["connections"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.lines().nth(2).expect("the second").contains("Connection refused"), "{table}");

    // One that leaves is tried again, and what went wrong is still told.
    drop(controller);
    let _again = Controller::greet(listener.accept().expect("the switch connects").0);
    let shown = until(PATIENCE, "it is connected again", || {
        let shown = switch.ctl_json(&["connections"]);
        (shown[0]["state"] == "active").then_some(shown)
    });
    assert_eq!((&shown[0]["last_error"], &shown[0]["role"]), (&json!("the peer closed the connection"), &json!("equal")), "{shown}");
    switch.stop();
}

#[test]
fn packet_ins_come_by_the_rate_and_are_accounted_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let config = dir.path().join("config.toml");
    let controllers = format!("controllers = ['tcp:{}']", tcp.local_addr().expect("an address"));
    std::fs::write(&config, format!("[openflow]\n{controllers}\npacket-in-rate = 100\npacket-in-burst = 10\n")).expect("written");
    let config = config.display().to_string();
    let switch = Switch::start(&["--config", &config, "--fail-mode", "secure", "--port", "vm1=vhost-user:vm1.sock"]);
    let mut controller = Controller::greet(tcp.accept().expect("the switch connects").0);
    let mut guest = Guest::connect(&switch.path("vm1.sock"), Options::default()).expect("a guest");
    switch.ofctl("add-flow", &["priority=0,actions=CONTROLLER:65535"]);
    let frame = [3; 1000];
    let mut sent = 0;
    // Far more than the rate, until more came than the burst and what may be under way or wait of one port.
    until(PATIENCE, "packet-ins come beyond the burst", || {
        sent += guest.send(0, std::iter::repeat_n(frame.as_slice(), 100)) as u64;
        guest.transmitter(0).reclaim();
        (switch.ctl_json(&["connections"])[0]["packet_ins"]["sent"].as_u64() > Some(150)).then_some(())
    });
    // What waits comes in the end; the rest is counted, on the port or on the connection.
    let connection = until(PATIENCE, "nothing waits any more", || {
        let connection = switch.ctl_json(&["connections"])[0].clone();
        let port = switch.ctl_json(&["port", "show", "vm1"]);
        (port["rx_frames"] == sent && connection["packet_ins"]["queued"] == 0).then_some(connection)
    });
    let packet_ins = &connection["packet_ins"];
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    let (delivered, overrun) = (number(&packet_ins["sent"]), number(&packet_ins["dropped"]["queue-full"]));
    let port = switch.ctl_json(&["port", "show", "vm1"]);
    assert_eq!(delivered + overrun, number(&port["to_controller"]), "{connection}, {port}");
    for _ in 0..delivered {
        assert!(controller.wait_for(PACKET_IN).ends_with(&frame));
    }
    switch.stop();
}

#[test]
fn frames_go_to_the_controller_and_back() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let target = format!("tcp:{}", tcp.local_addr().expect("an address"));
    let args = ["--controller", &target, "--fail-mode", "secure", "--port", "vm1=vhost-user:vm1.sock", "--port", "vm2=vhost-user:vm2.sock"];
    let switch = Switch::start(&args);
    let mut controller = Controller::greet(tcp.accept().expect("the switch connects").0);
    let [mut one, mut two] = ["vm1.sock", "vm2.sock"].map(|name| Guest::connect(&switch.path(name), Options::default()).expect("a guest"));
    until(PATIENCE, "the links are up", || {
        let list = switch.ctl_json(&["port", "list"]);
        list.as_array().expect("a list").iter().all(|port| port["link"] == "up").then_some(())
    });
    let frame: Vec<u8> = (0..100).collect();

    // A secure switch without rules forwards nothing.
    one.send(0, [frame.as_slice()]);
    until(PATIENCE, "the frame is dropped", || (switch.ctl_json(&["port", "show", "vm1"])["drops"]["no-match"] == 1).then_some(()));

    switch.ofctl("add-flow", &["priority=0,actions=CONTROLLER:65535"]);
    one.send(0, [frame.as_slice()]);
    let packet_in = controller.wait_for(PACKET_IN);
    assert!(packet_in.ends_with(&frame), "{packet_in:?}");

    // A packet-out from port 1 to port 2: no buffer, in_port 1, one action of 16 bytes.
    let output = [0, 0, 0, 16, 0, 0, 0, 2, 0xff, 0xff, 0, 0, 0, 0, 0, 0];
    let head = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 16, 0, 0, 0, 0, 0, 0];
    controller.send(PACKET_OUT, &[&head[..], &output, &frame].concat());
    let received = until(PATIENCE, "the frame arrives", || Some(two.receive(0)).filter(|frames| !frames.is_empty()));
    assert_eq!(received, [frame]);
}

#[test]
fn a_removed_rule_has_the_last_word_on_what_it_did() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let target = format!("tcp:{}", tcp.local_addr().expect("an address"));
    let args = ["--controller", &target, "--fail-mode", "secure", "--port", "vm1=vhost-user:vm1.sock", "--port", "vm2=vhost-user:vm2.sock"];
    let switch = Switch::start(&args);
    let mut controller = Controller::greet(tcp.accept().expect("the switch connects").0);
    let mut guest = Guest::connect(&switch.path("vm1.sock"), Options::default()).expect("a guest");
    switch.ofctl("add-flow", &["priority=0,actions=drop"]);

    // Rules come and go under traffic. Each frame is counted by the one that it met, whether that is still there or not.
    let done = AtomicBool::new(false);
    let (sent, told) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                sent += guest.send(0, std::iter::repeat_n([7; 100].as_slice(), 16)) as u64;
                guest.transmitter(0).reclaim();
            }
            sent
        });
        let mut told = 0;
        for cookie in 0..20u64 {
            switch.ofctl("add-flow", &[&format!("cookie={cookie},priority=10,in_port=1,send_flow_rem,actions=output:2")]);
            switch.ofctl("del-flows", &["in_port=1"]);
            let removed = controller.wait_for(FLOW_REMOVED);
            assert_eq!(removed[..8], cookie.to_be_bytes());
            let frames = u64::from_be_bytes(removed[24..32].try_into().expect("eight bytes"));
            assert_eq!(removed[32..40], (100 * frames).to_be_bytes(), "bytes");
            told += frames;
        }
        done.store(true, Ordering::Relaxed);
        (traffic.join().expect("the guest"), told)
    });
    until(PATIENCE, "all frames are taken", || (switch.ctl_json(&["port", "show", "vm1"])["rx_frames"] == sent).then_some(()));
    let rest = switch.ofctl("dump-aggregate", &[]);
    assert!(rest.contains(&format!("packet_count={} ", sent - told)), "{sent} frames, {told} by removed rules, {rest}");
    assert!(told > 0, "some of {sent} frames met the rules that were removed");
}

#[test]
fn a_flood_to_a_slow_controller_is_cut_and_counted() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
    let target = format!("tcp:{}", tcp.local_addr().expect("an address"));
    let switch = Switch::start(&["--controller", &target, "--fail-mode", "secure", "--port", "vm1=vhost-user:vm1.sock"]);
    // It says hello and nothing more, and never reads.
    let _controller = Controller::greet(tcp.accept().expect("the switch connects").0);
    let mut guest = Guest::connect(&switch.path("vm1.sock"), Options::default()).expect("a guest");
    switch.ofctl("add-flow", &["priority=0,actions=CONTROLLER:65535"]);
    let frame = vec![1; 1000];
    let mut sent = 0;
    while sent < 20_000 {
        sent += guest.send(0, std::iter::repeat_n(frame.as_slice(), 100));
        guest.transmitter(0).reclaim();
    }
    let port = until(PATIENCE, "all frames are taken", || {
        let port = switch.ctl_json(&["port", "show", "vm1"]);
        (port["rx_frames"] == sent).then_some(port)
    });
    let dropped: u64 = port["drops"].as_object().expect("an object").values().map(|frames| frames.as_u64().expect("a number")).sum();
    assert_eq!(port["to_controller"].as_u64().expect("a number") + dropped, sent as u64, "{port}");
}

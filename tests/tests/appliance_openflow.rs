//! OpenFlow through the running program: its listeners, and controllers that it connects to.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::frontend::{Guest, Options};
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

const HELLO: u8 = 0;
const ECHO_REQUEST: u8 = 2;
const FEATURES_REQUEST: u8 = 5;
const FEATURES_REPLY: u8 = 6;
const PACKET_IN: u8 = 10;
const FLOW_REMOVED: u8 = 11;
const PORT_STATUS: u8 = 12;
const PACKET_OUT: u8 = 13;

/// A controller's end of a connection, as simple as can be.
struct Controller<S>(S);

impl<S: Read + Write> Controller<S> {
    /// Says hello and hears it.
    fn greet(stream: S) -> Self {
        let mut controller = Self(stream);
        controller.send(HELLO, &[]);
        assert_eq!(controller.receive().expect("hello").0, HELLO);
        controller
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let length = (8 + body.len() as u16).to_be_bytes();
        let message = [&[4, kind, length[0], length[1], 0, 0, 0, 9], body].concat();
        self.0.write_all(&message).expect("the switch reads");
    }

    /// The type and body of the next message; `None` at the end of the connection.
    fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 8];
        self.0.read_exact(&mut header).ok()?;
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
        self.0.read_exact(&mut body).ok()?;
        Some((header[1], body))
    }

    /// The body of the next message of this type.
    fn wait_for(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (received, body) = self.receive().expect("the connection is there");
            match received {
                _ if received == kind => return body,
                ECHO_REQUEST => self.send(ECHO_REQUEST + 1, &body),
                _ => {}
            }
        }
    }
}

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

//! Frames through the running program: fake guests on its sockets, `ovs-ofctl` and `vswitch ctl` beside them.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::driver::F_EVENT_IDX;
use tests::frontend::{Guest, Options};
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

/// An Ethernet frame of `len` bytes between two of the guests, with an experimental type.
fn frame(from: u8, to: u8, len: usize) -> Vec<u8> {
    let address = |guest| [2, 0, 0, 0, 0, guest];
    let mut frame = [address(to), address(from)].concat();
    frame.extend([0x88, 0xb5]);
    frame.resize(len, from);
    frame
}

fn broadcast(from: u8, len: usize) -> Vec<u8> {
    let mut frame = frame(from, 0, len);
    frame[..6].fill(0xff);
    frame
}

/// A guest on a port, with its link up.
fn connect(switch: &Switch, name: &str) -> Guest {
    let guest = Guest::connect(&switch.path(&format!("{name}.sock")), Options::default()).expect("a guest");
    wait_for_link(switch, name);
    guest
}

fn wait_for_link(switch: &Switch, name: &str) {
    until(PATIENCE, &format!("{name}'s link is up"), || (port(switch, name)["link"] == "up").then_some(()));
}

/// Waits until `guest` has received `count` frames, and returns them.
fn receive(guest: &mut Guest, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    until(PATIENCE, &format!("{count} frames arrive"), || {
        frames.extend(guest.receive(0));
        (frames.len() >= count).then_some(())
    });
    assert_eq!(frames.len(), count);
    frames
}

fn send(guest: &mut Guest, frames: &[Vec<u8>]) {
    let mut rest = frames;
    until(PATIENCE, "the switch takes all frames", || {
        let sent = guest.send(0, rest.iter().map(Vec::as_slice));
        rest = &rest[sent..];
        guest.transmitter(0).reclaim();
        rest.is_empty().then_some(())
    });
}

fn port(switch: &Switch, name: &str) -> Value {
    switch.ctl_json(&["port", "show", name])
}

fn number(document: &Value, key: &str) -> u64 {
    document[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {document}"))
}

/// Waits until all that came in through a port has its outcome, and checks that the sums agree.
fn check_accounts(switch: &Switch, name: &str, received: u64) {
    let port = until(PATIENCE, &format!("{name} has taken {received} frames"), || {
        let port = port(switch, name);
        (number(&port, "rx_frames") >= received).then_some(port)
    });
    assert_eq!(number(&port, "rx_frames"), received, "{port}");
    let drops = port["drops"].as_object().expect("an object");
    let dropped: u64 =
        drops.iter().filter(|(reason, _)| !reason.starts_with("tx-")).map(|(_, frames)| frames.as_u64().expect("a number")).sum();
    assert_eq!(number(&port, "forwarded") + number(&port, "to_controller") + dropped, received, "{port}");
}

const TWO: [&str; 4] = ["--port", "vm1=vhost-user:vm1.sock", "--port", "vm2=vhost-user:vm2.sock"];

#[test]
fn guests_talk_and_are_counted() {
    let switch = Switch::start(&[&TWO[..], &["--port", "vm3=vhost-user:vm3.sock"]].concat());
    let [mut one, mut two, mut three] = ["vm1", "vm2", "vm3"].map(|name| connect(&switch, name));

    // Unknown at first: everybody gets it. Afterwards the switch has learned who is where.
    send(&mut one, &[frame(1, 2, 60)]);
    assert_eq!(receive(&mut two, 1), [frame(1, 2, 60)]);
    assert_eq!(receive(&mut three, 1), [frame(1, 2, 60)]);
    send(&mut two, &[frame(2, 1, 64)]);
    assert_eq!(receive(&mut one, 1), [frame(2, 1, 64)]);
    let many: Vec<_> = (0..1000).map(|i| frame(1, 2, 60 + i % 1400)).collect();
    // No more at once than the receiver has buffers for.
    for some in many.chunks(200) {
        send(&mut one, some);
        assert_eq!(receive(&mut two, some.len()), some);
    }
    assert_eq!(three.receive(0), Vec::<Vec<u8>>::new());

    let worker = &switch.ctl_json(&["workers"])[0];
    assert_eq!(number(worker, "frames"), 1002);
    assert_eq!(number(worker, "microflow_hits") + number(worker, "megaflow_hits") + number(worker, "upcalls"), 1002);
    assert!(number(worker, "upcalls") < 10 && number(worker, "busy_cycles") > 0, "{worker}");
    assert_eq!(number(worker, "audit_mismatches"), 0);
    let flows = switch.ctl_json(&["flows"]);
    let cached =
        flows.as_array().expect("a list").iter().find(|flow| flow["actions"] == "output:2").expect("the flow from 1 to 2 is cached");
    assert!(cached["match"].as_str().expect("text").contains("dl_dst=02:00:00:00:00:02"), "{cached}");

    check_accounts(&switch, "vm1", 1001);
    check_accounts(&switch, "vm2", 1);
    assert_eq!(number(&port(&switch, "vm2"), "tx_frames"), 1001);
    switch.stop();
}

#[test]
fn a_frame_of_a_quiet_guest_is_heard_of() {
    const GUESTS: u8 = 12;
    for poll in ["adaptive", "busy", "interrupt"] {
        let ports: Vec<_> = (1..=GUESTS).map(|guest| format!("vm{guest}=vhost-user:vm{guest}.sock")).collect();
        let switch = Switch::start(&[vec!["--poll", poll], ports.iter().flat_map(|port| ["--port", port]).collect()].concat());
        let mut guests: Vec<_> = (1..=GUESTS).map(|guest| connect(&switch, &format!("vm{guest}"))).collect();
        for from in 1..=GUESTS {
            send(&mut guests[usize::from(from - 1)], &[broadcast(from, 60)]);
            for to in (1..=GUESTS).filter(|to| *to != from) {
                assert_eq!(receive(&mut guests[usize::from(to - 1)], 1), [broadcast(from, 60)]);
            }
        }
        for quiet in 3..=GUESTS {
            // Two guests talk for long enough that the worker stops looking at the others.
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(5) {
                for (from, to) in [(1, 2), (2, 1)] {
                    send(&mut guests[usize::from(from) - 1], &[frame(from, to, 60)]);
                    assert_eq!(receive(&mut guests[usize::from(to) - 1], 1), [frame(from, to, 60)]);
                }
            }
            send(&mut guests[usize::from(quiet) - 1], &[frame(quiet, 1, 60)]);
            assert_eq!(receive(&mut guests[0], 1), [frame(quiet, 1, 60)]);
        }
        switch.stop();
    }
}

#[test]
fn a_worker_that_polls_wants_no_notifications() {
    let switch = Switch::start(&[&["--poll", "busy"], &TWO[..]].concat());
    for round in 0..20 {
        let options = Options { features: Options::default().features & !F_EVENT_IDX, ..Options::default() };
        let mut guest = Guest::connect(&switch.path("vm1.sock"), options).expect("a guest");
        let what = format!("guest {round} is told not to notify");
        until(PATIENCE, &what, || (guest.transmitter(0).ring.used_flags() == 1).then_some(()));
        guest.disconnect();
        until(PATIENCE, "the link is down", || (port(&switch, "vm1")["link"] == "down").then_some(()));
    }
    switch.stop();
}

#[test]
fn rules_change_what_happens() {
    let switch = Switch::start(&TWO);
    let [mut one, mut two] = ["vm1", "vm2"].map(|name| connect(&switch, name));
    send(&mut one, &vec![broadcast(1, 100); 20]);
    receive(&mut two, 20);

    // When ovs-ofctl is done, its barrier has been answered: not one more frame goes by the old rules.
    for round in 1..=5 {
        switch.ofctl("add-flow", &["priority=10,in_port=1,actions=drop"]);
        send(&mut one, &vec![broadcast(1, 100); 20]);
        check_accounts(&switch, "vm1", 40 * round);
        assert_eq!(two.receive(0), Vec::<Vec<u8>>::new());
        switch.ofctl("del-flows", &["in_port=1"]);
        send(&mut one, &vec![broadcast(1, 100); 20]);
        receive(&mut two, 20);
    }
    let drops = switch.ctl_json(&["drops"]);
    assert_eq!((&drops[0]["port"], &drops[0]["reason"], &drops[0]["frames"]), (&"vm1".into(), &"rule".into(), &100.into()), "{drops}");
    // The rule's own count is exact, too.
    switch.ofctl("add-flow", &["priority=10,in_port=1,actions=output:2"]);
    send(&mut one, &vec![broadcast(1, 100); 50]);
    receive(&mut two, 50);
    let flows = switch.ofctl("dump-flows", &["in_port=1"]);
    assert!(flows.contains("n_packets=50, n_bytes=5000"), "{flows}");
}

#[test]
fn a_port_is_deleted_under_traffic_and_added_again() {
    let switch = Switch::start(&TWO);
    let [mut one, mut two] = ["vm1", "vm2"].map(|name| connect(&switch, name));
    for _ in 0..3 {
        send(&mut one, &vec![broadcast(1, 60); 40]);
        receive(&mut two, 40);
        // Its last counters come with the answer.
        let last = switch.ctl_json(&["port", "del", "vm2"]);
        assert_eq!((number(&last, "tx_frames"), number(&last, "tx_bytes")), (40, 2400), "{last}");
        send(&mut one, &vec![broadcast(1, 60); 40]);
        switch.ctl(&["port", "add", "vm2=vhost-user:vm2.sock"]);
        two.disconnect();
        two.reconnect(&switch.path("vm2.sock")).expect("the port is back");
        wait_for_link(&switch, "vm2");
        two.receive(0);
    }
    check_accounts(&switch, "vm1", 240);
}

#[test]
fn a_killed_switch_is_replaced_under_its_guests() {
    let mut switch = Switch::start(&TWO);
    let [mut one, mut two] = ["vm1", "vm2"].map(|name| connect(&switch, name));
    for _ in 0..3 {
        send(&mut one, &vec![broadcast(1, 60); 40]);
        receive(&mut two, 40);
        switch.kill();
        switch.restart();
        for (guest, name) in [(&mut one, "vm1"), (&mut two, "vm2")] {
            guest.disconnect();
            guest.reconnect(&switch.path(&format!("{name}.sock"))).expect("the guest finds the new switch");
            wait_for_link(&switch, name);
        }
    }
}

#[test]
fn the_switch_connects_to_a_guest_that_listens() {
    let switch = Switch::start(&["--port", "vm1=vhost-user:vm1.sock,client", "--port", "vm2=vhost-user:vm2.sock"]);
    let mut two = connect(&switch, "vm2");
    for _ in 0..3 {
        // It comes late, and goes again.
        let _ = std::fs::remove_file(switch.path("vm1.sock"));
        let listener = UnixListener::bind(switch.path("vm1.sock")).expect("bound");
        let mut one = Guest::new(Options::default());
        one.accept(&listener).expect("the switch connects");
        wait_for_link(&switch, "vm1");
        send(&mut one, &vec![broadcast(1, 60); 40]);
        receive(&mut two, 40);
    }
}

#[test]
fn many_queues_are_spread_over_workers() {
    let cpus = rustix::thread::sched_getaffinity(None).expect("the affinity");
    let available: Vec<_> = (0..1024).filter(|cpu| cpus.is_set(*cpu)).take(2).map(|cpu| cpu.to_string()).collect();
    let switch = Switch::start(&[
        "--port",
        "vm1=vhost-user:vm1.sock,queues=4",
        "--port",
        "vm2=vhost-user:vm2.sock,queues=4",
        "--cpus",
        &available.join(","),
    ]);
    let options = Options { queue_pairs: 4, ..Options::default() };
    let [mut one, mut two] = ["vm1.sock", "vm2.sock"].map(|name| Guest::connect(&switch.path(name), options).expect("a guest"));
    ["vm1", "vm2"].iter().for_each(|name| wait_for_link(&switch, name));
    for queue in 0..4 {
        let frames = vec![broadcast(1, 60); 30];
        assert_eq!(one.send(queue, frames.iter().map(Vec::as_slice)), 30);
    }
    let mut count = 0;
    until(PATIENCE, "all frames arrive", || {
        count += (0..4).map(|queue| two.receive(queue).len()).sum::<usize>();
        (count >= 120).then_some(())
    });
    let workers = switch.ctl_json(&["workers"]);
    for worker in workers.as_array().expect("a list") {
        assert_eq!(number(worker, "frames"), 120 / available.len() as u64, "{workers}");
    }
}

#[test]
fn poll_modes_all_forward_and_sleep_if_they_may() {
    for poll in ["adaptive", "interrupt", "busy"] {
        let switch = Switch::start(&[&TWO[..], &["--poll", poll]].concat());
        let [mut one, mut two] = ["vm1", "vm2"].map(|name| connect(&switch, name));
        // Each frame finds the worker asleep, or about to fall asleep.
        for _ in 0..300 {
            send(&mut one, &[broadcast(1, 60)]);
            receive(&mut two, 1);
        }
        if poll != "busy" {
            let share = switch.cpu_share(Duration::from_secs(2));
            assert!(share < 0.05, "{poll}: an idle switch uses {share} of a processor");
        }
    }
}

//! Uplinks over AF_XDP: guests on two hosts, whose switches are joined by a pair of veth devices.
//!
//! It needs root, for network namespaces and XDP.

use std::process::Command;

use tests::driver::NetHeader;
use tests::frontend::{Guest, Options};
use tests::linear::correct_checksums;
use tests::namespace::Namespace;
use tests::offload::{tcp, undo_checksum};
use tests::process::{PATIENCE, until};
use tests::random::Random;
use tests::switch::Switch;
use tests::target;
use tests::uplink::{DEVICES, Traffic, UplinkHost, lay_wire, numbered, wire};

const LONGEST: u64 = 9000;

/// How many frames each way of carrying them is tried with.
fn frames() -> u64 {
    std::env::var("VSWITCH_FRAMES").map_or(20_000, |text| text.parse().expect("VSWITCH_FRAMES is a number"))
}

fn hosts(namespace: &Namespace, options: &str) -> [UplinkHost; 2] {
    // A ring in which the longest frames of a window have room.
    DEVICES.map(|device| UplinkHost::start(namespace, device, options, Options { ring_size: 1024, ..Options::default() }))
}

fn pass_frames(options: &str) {
    let wire = wire(9000);
    let [mut a, mut b] = hosts(&wire, options);
    let mode = a.port("up")["af_xdp"]["mode"].clone();
    assert_eq!(mode == "native", !options.contains("generic"), "{mode}");
    let (mut there, mut back) = (Traffic::new(1, LONGEST), Traffic::new(2, LONGEST));
    for _ in 0..4 {
        there.pass(frames() / 8, &mut a.guest, &mut b.guest);
        back.pass(frames() / 8, &mut b.guest, &mut a.guest);
    }
    for host in [&a, &b] {
        assert_eq!((host.drops("up"), host.drops("vm"), host.dropped_by_kernel()), (0, 0, 0));
        host.check_account();
    }
}

#[test]
fn frames_of_all_sizes_pass_native() {
    pass_frames("");
}

#[test]
fn frames_of_all_sizes_pass_generic() {
    pass_frames(",mode=generic");
}

#[test]
fn what_does_not_fit_is_counted_and_no_chunk_is_lost() {
    let wire = wire(9000);
    let [mut a, mut b] = hosts(&wire, "");
    let mut traffic = Traffic::new(3, LONGEST);
    traffic.flood(frames() / 4, &mut a.guest, Some(&mut b.guest));
    // The guest does not make room for a while.
    traffic.flood(frames() / 4, &mut a.guest, None);
    add_up(&wire, &a, &mut b, &mut traffic);
    assert!(b.port("vm")["drops"]["tx-ring-full"].as_u64() > Some(0), "the guest's ring was never full");
    // All goes on as before.
    traffic.pass(frames() / 10, &mut a.guest, &mut b.guest);
}

#[test]
fn what_the_kernel_drops_is_counted_once() {
    let wire = wire(1500);
    let [mut a, mut b] = DEVICES.map(|device| UplinkHost::start(&wire, device, "", Options { ring_size: 1024, ..Options::default() }));
    let mut traffic = Traffic::new(9, 300);
    // Nobody takes what comes, until the kernel has no room for more.
    let UplinkHost { switch, .. } = &b;
    switch.paused(|| {
        traffic.flood(4000, &mut a.guest, None);
        until(PATIENCE, "all have left", || (a.port("up")["tx_frames"].as_u64() >= Some(4000)).then_some(()));
    });
    add_up(&wire, &a, &mut b, &mut traffic);
    assert!(b.dropped_by_kernel() > 0);
}

/// Makes sure that every frame from `a` to `b` has come, or is counted once as dropped, and that no chunk is lost.
fn add_up(wire: &Namespace, a: &UplinkHost, b: &mut UplinkHost, traffic: &mut Traffic) {
    until(PATIENCE, "every frame has come, or is counted as dropped", || {
        traffic.drain(&mut b.guest);
        let (sent, received) = traffic.counts();
        let by_switches = a.drops("up") + a.drops("vm") + b.drops("up") + b.drops("vm");
        // What the device's own queue had no room for.
        let ways: serde_json::Value = serde_json::from_str(&wire.run("ip", &["-j", "-s", "link", "show", DEVICES[0]])).expect("JSON");
        let by_kernel = b.dropped_by_kernel() + ways[0]["stats64"]["tx"]["dropped"].as_u64().expect("a number");
        let adds_up = sent == received + by_switches + by_kernel;
        if !adds_up {
            eprintln!("{sent} were sent, {received} came, {by_switches} and {by_kernel} were counted as dropped");
        }
        adds_up.then_some(())
    });
    [a, b].into_iter().for_each(UplinkHost::check_account);
}

#[test]
fn a_device_goes_down_and_up_and_vanishes_and_returns() {
    let wire = wire(9000);
    let [mut a, mut b] = hosts(&wire, "");
    let mut traffic = Traffic::new(4, LONGEST);
    let some = frames() / 8;
    for _ in 0..2 {
        traffic.pass(some, &mut a.guest, &mut b.guest);
        let dropped = a.drops("up") + a.drops("vm");
        wire.run("ip", &["link", "set", DEVICES[0], "down"]);
        until(PATIENCE, "the link is down", || (a.port("up")["link"] == "down").then_some(()));
        traffic.flood(some, &mut a.guest, None);
        until(PATIENCE, "frames are dropped", || (a.drops("up") + a.drops("vm") == dropped + some).then_some(()));
        wire.run("ip", &["link", "set", DEVICES[0], "up"]);
        [&a, &b].into_iter().for_each(|host| host.wait_for_link("up"));
        traffic.pass(some, &mut a.guest, &mut b.guest);
        [&a, &b].into_iter().for_each(UplinkHost::check_account);

        // In the middle of everything.
        traffic.flood(some, &mut a.guest, None);
        wire.run("ip", &["link", "del", DEVICES[0]]);
        until(PATIENCE, "the device is gone", || (a.port("up")["connected"] == false && b.port("up")["link"] == "down").then_some(()));
        assert_eq!(a.port("vm")["link"], "up");
        traffic.drain(&mut b.guest);
        lay_wire(&wire, 9000);
        [&a, &b].into_iter().for_each(|host| host.wait_for_link("up"));
        [&a, &b].into_iter().for_each(UplinkHost::check_account);
    }
    traffic.pass(some, &mut a.guest, &mut b.guest);
}

#[test]
fn a_switch_that_is_killed_leaves_nothing_that_blocks_the_next() {
    let wire = wire(9000);
    let [mut a, mut b] = hosts(&wire, "");
    let mut traffic = Traffic::new(5, LONGEST);
    let some = frames() / 8;
    for _ in 0..3 {
        traffic.pass(some, &mut a.guest, &mut b.guest);
        traffic.flood(some, &mut a.guest, None);
        b.switch.kill();
        until(PATIENCE, "no XDP program is there", || {
            (!wire.run("ip", &["-d", "link", "show", DEVICES[1]]).contains("prog/xdp")).then_some(())
        });
        b.switch.restart();
        b.guest.disconnect();
        b.guest.reconnect(&b.switch.path("vm.sock")).expect("the switch is there again");
        b.wait_for_link("vm");
        b.wait_for_link("up");
        traffic.drain(&mut b.guest);
    }
    traffic.pass(some, &mut a.guest, &mut b.guest);
    [&a, &b].into_iter().for_each(UplinkHost::check_account);
    drop((a, b));
    until(PATIENCE, "the devices are the host's alone", || {
        let links = wire.run("ip", &["-d", "link"]);
        (!links.contains("xdp") && !links.contains("promiscuity 1")).then_some(())
    });
}

#[test]
fn what_a_guest_left_undone_is_finished() {
    let wire = wire(1500);
    let [mut a, mut b] = DEVICES.map(|device| UplinkHost::start(&wire, device, "", Options::default()));
    let mut random = Random::new(6);
    let mut expected = Vec::new();
    for serial in 0..200u64 {
        let right = numbered(serial, serial % 7, 60 + random.below(1400) as usize);
        let mut frame = right.clone();
        let (start, offset) = undo_checksum(&mut frame).expect("UDP");
        let header = NetHeader { flags: 1, csum_start: start as u16, csum_offset: offset as u16, ..NetHeader::default() };
        push(&mut a, header, &frame);
        expected.push(right);
    }
    let mut came = receive(&mut b, expected.len());
    assert_eq!(came, expected);

    // Segments to be: together they are what was sent, and each has a right checksum and fits the wire.
    for size in [1000usize, 20_000, 60_000] {
        let payload: Vec<u8> = (0..size).map(|at| (at * at) as u8).collect();
        let mut frame = tcp(&payload, &[64], &mut random);
        let (start, offset) = undo_checksum(&mut frame).expect("TCP");
        let gso_type = if frame[12] == 8 { 1 } else { 4 };
        let header = NetHeader {
            flags: 1,
            gso_type,
            hdr_len: start as u16 + 20,
            gso_size: 1400,
            csum_start: start as u16,
            csum_offset: offset as u16,
            ..NetHeader::default()
        };
        push(&mut a, header, &frame);
        came = receive(&mut b, size.div_ceil(1400));
        for segment in &came {
            assert!(segment.len() <= 1514, "{} bytes", segment.len());
            let mut right = segment.clone();
            correct_checksums(&mut right);
            assert_eq!(*segment, right);
        }
        let together: Vec<u8> = came.iter().flat_map(|segment| segment[start + 20..].to_vec()).collect();
        assert_eq!(together, payload);
    }
    // A packet that does not fit is dropped, and counted.
    push(&mut a, NetHeader::default(), &numbered(0, 0, 1515));
    until(PATIENCE, "it is dropped", || (a.port("up")["drops"]["tx-too-long"] == 1).then_some(()));
    [&a, &b].into_iter().for_each(UplinkHost::check_account);
}

fn push(host: &mut UplinkHost, header: NetHeader, frame: &[u8]) {
    until(PATIENCE, "there is room to send", || {
        let transmitter = host.guest.transmitter(0);
        transmitter.reclaim();
        let pushed = transmitter.push(header, frame);
        transmitter.ring.publish_and_kick();
        pushed.then_some(())
    });
}

fn receive(host: &mut UplinkHost, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    until(PATIENCE, "all frames come", || {
        frames.extend(host.guest.receive(0));
        (frames.len() >= count).then_some(())
    });
    frames
}

#[test]
fn tags_pass() {
    let wire = wire(1500);
    let [mut a, mut b] = hosts(&wire, "");
    for tags in [&[0x81, 0, 0x20, 5][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5]] {
        let mut frame = numbered(1, 1, 200);
        frame.splice(12..12, tags.iter().copied());
        push(&mut a, NetHeader::default(), &frame);
        assert_eq!(receive(&mut b, 1), [frame]);
    }
}

#[test]
fn queues_share_a_memory() {
    let wire = wire(9000);
    for device in DEVICES {
        wire.run("ethtool", &["-L", device, "rx", "2", "tx", "2"]);
    }
    let [mut a, mut b] = hosts(&wire, ",queues=2");
    let mut traffic = Traffic::new(7, LONGEST);
    traffic.pass(frames() / 10, &mut a.guest, &mut b.guest);
    for host in [&a, &b] {
        host.check_account();
        assert_eq!(host.port("up")["af_xdp"]["queues"].as_array().map(Vec::len), Some(2));
    }
    // One worker keeps to its share of the queues, which is both; their flows are spread over them.
    let stats = wire.run("ethtool", &["-S", DEVICES[1]]);
    for queue in ["rx_queue_0_xdp_packets: 0", "rx_queue_1_xdp_packets: 0"] {
        assert!(!stats.lines().any(|line| line.trim() == queue), "{stats}");
    }
}

#[test]
fn a_host_keeps_what_is_not_stolen() {
    let wire = wire(1500);
    wire.address(DEVICES[0], "10.0.0.9/24");
    let mut a = UplinkHost::start(&wire, DEVICES[0], ",steal=mac=02:00:00:00:00:02", Options::default());
    let mut b = UplinkHost::start(&wire, DEVICES[1], "", Options::default());
    let stolen = numbered(1, 1, 100);
    push(&mut b, NetHeader::default(), &stolen);
    assert_eq!(receive(&mut a, 1), [stolen]);
    // A broadcast is the host's: it answers, and our guest hears nothing.
    let mut request = vec![0; 42];
    request[..6].fill(0xff);
    request[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    request[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request[22..32].copy_from_slice(&[2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
    request[38..].copy_from_slice(&[10, 0, 0, 9]);
    push(&mut b, NetHeader::default(), &request);
    let reply = receive(&mut b, 1).remove(0);
    assert_eq!((&reply[..6], &reply[12..14], &reply[20..22]), (&request[6..12], &request[12..14], &[0, 2][..]));
    assert_eq!(a.guest.receive(0), [[0u8; 0]; 0]);
}

#[test]
fn what_is_wrong_with_a_device_is_one_line_and_no_other_port_minds() {
    let wire = wire(1500);
    let switch = Switch::start_in(&wire, &["--port", "vm=vhost-user:vm.sock", "--port", "up=af-xdp:up0"]);
    let run_dir = switch.path("");
    let add = |spec: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", wire.name()]).arg(target::vswitch()).arg("ctl").arg("--run-dir").arg(&run_dir);
        let output = command.args(["port", "add", spec]).output().expect("ctl starts");
        assert!(!output.status.success(), "{spec} was taken");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    for (spec, says) in [
        ("x=af-xdp:nope", "device nope: there is none of that name"),
        ("x=af-xdp:up1,queues=3", "device up1: it has 1 queues, and 3 are wanted; write queues=1"),
        ("x=af-xdp:up1,zero-copy=on", "device up1: its driver has no zero-copy"),
    ] {
        let text = add(spec);
        assert!(text.contains(says), "{spec}: {text}");
    }
    let second = Switch::start_in(&wire, &["--port", "x=af-xdp:up0", "--port", "vm=vhost-user:vm.sock"]);
    let error = second.ctl_json(&["port", "show", "x"])["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("device up0: ") && error.contains("it carries an XDP program already"), "{error}");
    assert_eq!(second.ctl_json(&["port", "show", "vm"])["kind"], "vhost-user");
    assert_eq!(switch.ctl_json(&["port", "show", "up"])["link"], "up");
}

/// The words by which a switch without any privilege is started, after `vswitch open` has opened `device`.
fn handing_over<'a>(namespace: &'a Namespace, device: &'a str) -> Vec<&'a str> {
    let program = target::vswitch().to_str().expect("the target directory has a plain name");
    let without = ["--", "setpriv", "--bounding-set=-all", "--", "bash", "-c", "exec \"$@\" 9</dev/null", "bash"];
    [&["ip", "netns", "exec", namespace.name(), program, "open", device][..], &without].concat()
}

#[test]
fn a_switch_without_privilege_takes_what_was_opened_for_it() {
    let wire = wire(9000);
    for device in DEVICES {
        wire.run("ethtool", &["-L", device, "rx", "2", "tx", "2"]);
    }
    let guest = Options { ring_size: 1024, ..Options::default() };
    let mut a = UplinkHost::start_by(&handing_over(&wire, "af-xdp:up0,queues=2"), "up=af-xdp:fd=3,queues=2", guest);
    let mut b = UplinkHost::start(&wire, DEVICES[1], ",queues=2", guest);
    let mut traffic = Traffic::new(8, LONGEST);
    traffic.pass(1000, &mut a.guest, &mut b.guest);
    [&a, &b].into_iter().for_each(UplinkHost::check_account);
    assert_eq!(a.port("up")["device"], "fd=3");

    // Nobody opens it again.
    wire.run("ip", &["link", "del", DEVICES[0]]);
    until(PATIENCE, "the port says what to do", || {
        let port = a.port("up");
        let error = port["error"].as_str().unwrap_or_default();
        error.contains("only a new `vswitch open` can open it again").then(|| assert_eq!(port["link"], "down"))
    });
    assert_eq!(a.port("vm")["link"], "up");
}

#[test]
fn what_is_wrong_with_a_handed_device_is_said() {
    let wire = wire(1500);
    let starter = handing_over(&wire, "af-xdp:up0");
    let uplinks = ["--port", "a=af-xdp:fd=3,queues=2", "--port", "b=af-xdp:fd=4", "--port", "c=af-xdp:fd=9"];
    let switch = Switch::start_by(&starter, &uplinks);
    for (port, says) in [
        ("a", "fd=3: its device was opened with 1 queues, and 2 are wanted; write queues=1"),
        ("b", "fd=4: vswitch was not started with a descriptor of this number"),
        ("c", "fd=9: this descriptor is none that `vswitch open` makes"),
    ] {
        let error = switch.ctl_json(&["port", "show", port])["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(says), "{error}");
    }
    // It is there still for who asks rightly, once.
    switch.ctl(&["port", "del", "a"]);
    switch.ctl(&["port", "add", "a=af-xdp:fd=3"]);
    until(PATIENCE, "the link is up", || (switch.ctl_json(&["port", "show", "a"])["link"] == "up").then_some(()));

    let open = |args: &[&str]| {
        let output = Command::new("ip").args(["netns", "exec", wire.name()]).arg(target::vswitch()).arg("open").args(args).output();
        let output = output.expect("ip starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (args, status, says) in [
        (&["af-xdp:up1", "--", "/nonexistent"][..], 1, "vswitch: /nonexistent can't be run: No such file or directory"),
        (&["af-xdp:nope", "--", "true"], 1, "vswitch: device nope: there is none of that name"),
        (&["af-xdp:up1"], 2, "<COMMAND>"),
        (&["tap:t", "--", "true"], 2, "`tap:t` is nothing that `vswitch open` opens"),
        (&["af-xdp:up1,vlan=3", "--", "true"], 2, "give them to `vswitch run`"),
    ] {
        let (code, text) = open(args);
        assert!(code == Some(status) && text.contains(says), "{args:?}: {code:?}, {text}");
    }
    assert_eq!(open(&["af-xdp:up1", "--", "true"]), (Some(0), String::new()));
}

#[test]
fn a_missing_capability_is_named() {
    let wire = wire(1500);
    for (without, names) in
        [("net_raw", "CAP_NET_RAW,"), ("net_admin", "CAP_NET_ADMIN,"), ("bpf,-sys_admin,-net_admin", "CAP_NET_ADMIN and CAP_BPF,")]
    {
        let bounding = format!("--bounding-set=-{without}");
        let starter = ["ip", "netns", "exec", wire.name(), "setpriv", &bounding, "--"];
        let switch = Switch::start_by(&starter, &["--port", "x=af-xdp:up0", "--port", "vm=vhost-user:vm.sock"]);
        let error = switch.ctl_json(&["port", "show", "x"])["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(&format!("device up0: AF_XDP needs {names}")) && error.contains("setcap"), "{error}");
        Guest::connect(&switch.path("vm.sock"), Options::default()).expect("the guest's port works");
    }
}

//! Taps: the host's own leg of the switch. Hosts are network namespaces, guests a front end that plays one; all of it takes root.

use std::net::{IpAddr, UdpSocket};

use etherparse::PacketBuilder;
use serde_json::Value;
use tests::driver::NetHeader;
use tests::frontend::{Guest, Options};
use tests::namespace::{Namespace, transfer};
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

fn port<'a>(list: &'a Value, name: &str) -> &'a Value {
    let ports = list.as_array().expect("a list");
    ports.iter().find(|port| port["name"] == name).unwrap_or_else(|| panic!("no port {name} in {list}"))
}

fn wait_for_link(switch: &Switch, name: &str, link: &str) {
    until(PATIENCE, &format!("the link of {name} is {link}"), || {
        (port(&switch.ctl_json(&["port", "list"]), name)["link"] == link).then_some(())
    });
}

/// A switch in a host of its own, and two hosts behind its taps `t1` (10.0.0.1, fd00::1) and `t2` (10.0.0.2, fd00::2).
struct Hosts {
    // The switch ends before its namespace.
    switch: Switch,
    _host: Namespace,
    ends: [Namespace; 2],
}

impl Hosts {
    fn start(words: &str, mtu: u32) -> Self {
        let host = Namespace::new("host");
        let spec = |number: u32| format!("t{number}=tap:t{number},mtu={mtu}{words}");
        let switch = Switch::start_in(&host, &["--port", &spec(1), "--port", &spec(2)]);
        let ends = [1, 2].map(|number| {
            let (end, tap) = (Namespace::new(&format!("end{number}")), format!("t{number}"));
            wait_for_link(&switch, &tap, "up");
            host.give(&tap, &end);
            end.address(&tap, &format!("10.0.0.{number}/24"));
            end.address(&tap, &format!("fd00::{number}/64"));
            end
        });
        Self { switch, _host: host, ends }
    }

    /// A file each way, over IPv4 and IPv6.
    fn exchange(&self, megabytes: usize) {
        let [a, b] = &self.ends;
        for (one, other) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let address = |text: &str| text.parse::<IpAddr>().expect("an address");
            transfer(a, b, address(other), megabytes);
            transfer(b, a, address(one), megabytes);
        }
    }

    /// The mean length of the frames that the switch has received from `t1`.
    fn mean_length(&self) -> u64 {
        let list = self.switch.ctl_json(&["port", "list"]);
        let number = |key: &str| port(&list, "t1")[key].as_u64().expect("a number");
        number("rx_bytes") / number("rx_frames")
    }

    fn offloads(&self, end: usize, on: bool) {
        let tap = format!("t{}", end + 1);
        let on = if on { "on" } else { "off" };
        self.ends[end].run("ethtool", &["-K", &tap, "tx", on, "sg", on, "tso", on, "gso", on]);
    }
}

#[test]
fn hosts_exchange_files_with_offloads_and_without() {
    for words in ["", ",queues=2"] {
        let hosts = Hosts::start(words, 1500);
        hosts.exchange(8);
        // Acknowledgements count too, and are short.
        assert!(hosts.mean_length() > 3000, "TCP segments pass whole: {}", hosts.mean_length());
        hosts.offloads(0, false);
        hosts.exchange(4);
        hosts.offloads(1, false);
        hosts.exchange(4);
        hosts.offloads(0, true);
        hosts.exchange(4);
        hosts.switch.stop();
    }
}

#[test]
fn jumbo_frames_pass() {
    let hosts = Hosts::start("", 9000);
    hosts.exchange(4);
    hosts.offloads(0, false);
    hosts.offloads(1, false);
    hosts.exchange(4);
    let pings = |size: &str| hosts.ends[0].try_run("ping", &["-c", "3", "-i", "0.01", "-M", "do", "-s", size, "10.0.0.2"]);
    assert!(pings("8972").status.success());
}

/// The narrow port drops what is too long for it, and the host that sent it learns the MTU of the path.
#[test]
fn a_host_learns_the_mtu_of_its_path() {
    let host = Namespace::new("host");
    let switch = Switch::start_in(&host, &["--port", "t1=tap:t1,mtu=1500", "--port", "t2=tap:t2,mtu=1300,icmp-too-big"]);
    let [a, b] = [1, 2].map(|number| {
        let (end, tap) = (Namespace::new(&format!("end{number}")), format!("t{number}"));
        wait_for_link(&switch, &tap, "up");
        host.give(&tap, &end);
        end.address(&tap, &format!("10.0.0.{number}/24"));
        end.address(&tap, &format!("fd00::{number}/64"));
        end
    });
    for (address, longest) in [("10.0.0.2", "1272"), ("fd00::2", "1252")] {
        let ping = |wait: &str, size: &str| a.try_run("ping", &["-c", "1", "-W", wait, "-M", "do", "-s", size, address]);
        assert!(ping("10", longest).status.success(), "{address}");
        assert!(!ping("1", "1400").status.success(), "{address}");
        until(PATIENCE, "the host knows the MTU", || a.run("ip", &["route", "get", address]).contains("mtu 1300").then_some(()));
    }
    let list = switch.ctl_json(&["port", "list"]);
    assert_eq!(port(&list, "t2")["drops"]["tx-too-long"], 2, "{list}");
    // TCP that is cut to the MTU, and datagrams that may be fragmented, get through.
    transfer(&a, &b, "10.0.0.2".parse().expect("an address"), 4);
    transfer(&a, &b, "fd00::2".parse().expect("an address"), 4);
    assert!(a.try_run("ping", &["-c", "1", "-W", "10", "-M", "dont", "-s", "1400", "10.0.0.2"]).status.success());
    assert_eq!(switch.ctl_json(&["port", "show", "t2"])["icmp_too_big"], true);
}

/// The leg for guests without vhost-user. Another switch has the descriptor of the tap that is QEMU's otherwise.
#[test]
fn a_bridge_joins_the_switch_to_the_taps_of_others() {
    let host = Namespace::new("host");
    let ours = Switch::start_in(&host, &["--port", "leg=tap:leg0", "--port", "a=tap:t1"]);
    let theirs = Switch::start_in(&host, &["--port", "guest=tap:qemu0", "--port", "b=tap:t2"]);
    host.run("ip", &["link", "add", "br0", "type", "bridge"]);
    host.run("ip", &["link", "set", "br0", "up"]);
    ["leg0", "qemu0"].iter().for_each(|tap| drop(host.run("ip", &["link", "set", tap, "master", "br0"])));
    let ends = [1, 2].map(|number| {
        let end = Namespace::new(&format!("end{number}"));
        host.give(&format!("t{number}"), &end);
        end.address(&format!("t{number}"), &format!("10.0.0.{number}/24"));
        end
    });
    let [a, b] = &ends;
    transfer(a, b, "10.0.0.2".parse().expect("an address"), 8);
    transfer(b, a, "10.0.0.1".parse().expect("an address"), 8);
    let leg = ours.ctl_json(&["port", "show", "leg"]);
    let number = |key: &str| leg[key].as_u64().expect("a number");
    assert!(number("tx_bytes") / number("tx_frames") > 3000, "segments pass the bridge whole: {leg}");
    drop(theirs);
}

#[test]
fn a_host_and_a_guest_leave_checksums_to_each_other() {
    checksums("", "", 0);
    // The guest's frames are tagged, the host's are not; what is left of the checksum moves along.
    checksums(",trunk=10", ",vlan=10", 4);
}

/// UDP between a host and a guest whose ports have these words; the guest's frames have so many bytes of tags.
fn checksums(guest_words: &str, host_words: &str, tag: usize) {
    let host = Namespace::new("host");
    let ports = [format!("vm1=vhost-user:{{}}/vm1.sock{guest_words}"), format!("host=tap:host0,ofport=local{host_words}")];
    let switch = Switch::start_in(&host, &["--port", &ports[0], "--port", &ports[1]]);
    let mut guest = Guest::connect(&switch.path("vm1.sock"), Options::default()).expect("a guest");
    wait_for_link(&switch, "vm1", "up");
    wait_for_link(&switch, "host", "up");
    host.address("host0", "10.0.0.1/24");
    host.run("ip", &["neigh", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "host0"]);
    let address = host.run("cat", &["/sys/class/net/host0/address"]);
    let mac: Vec<u8> = address.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    let socket = host.thread(|| UdpSocket::bind("10.0.0.1:5000").expect("a socket")).join().expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");

    // From the host: what it leaves of the checksum, the guest is told.
    socket.send_to(&[7; 100], "10.0.0.2:6000").expect("sent");
    let (header, frame) = until(PATIENCE, "the guest hears the host", || {
        let (header, frame) = guest.receiver(0).receive()?;
        guest.receiver(0).fill(usize::MAX);
        (frame[12 + tag..14 + tag] == [8, 0] && frame[23 + tag] == 17).then_some((header, frame))
    });
    assert_eq!((header.flags, usize::from(header.csum_start), header.csum_offset), (1, 34 + tag, 6), "the checksum is left to the guest");
    assert_eq!(&frame[42 + tag..], &[7; 100]);

    // From the guest: a frame whose checksum is the sum of the pseudo header only, which the host must not believe to be one. Three
    // datagrams in one: USO.
    let mut bytes = Vec::new();
    let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], mac.try_into().expect("six bytes"));
    packet.ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64).udp(6000, 5000).write(&mut bytes, &[9; 3000]).expect("written");
    let mut sum: u32 = bytes[26..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>() + 17 + 3008;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    bytes[40..42].copy_from_slice(&(sum as u16).to_be_bytes());
    bytes.splice(12..12, [0x81, 0, 0, 10].into_iter().take(tag));
    let (hdr_len, csum_start) = (42 + tag as u16, 34 + tag as u16);
    let header = NetHeader { flags: 1, gso_type: 5, hdr_len, gso_size: 1000, csum_start, csum_offset: 6, ..NetHeader::default() };
    assert!(guest.transmitter(0).push(header, &bytes));
    guest.transmitter(0).ring.publish_and_kick();
    for _ in 0..3 {
        let mut received = [0; 4000];
        let (length, _) = socket.recv_from(&mut received).expect("a datagram");
        assert_eq!(&received[..length], &[9; 1000]);
    }
    let list = switch.ctl_json(&["port", "list"]);
    assert_eq!(port(&list, "host")["ofport"], 0xffff_fffe_u32);
    switch.stop();
    assert!(!host.has("host0"), "the tap goes with the switch");
}

#[test]
fn a_device_that_cannot_be_had_leaves_the_other_ports_alone() {
    let host = Namespace::new("host");
    host.run("ip", &["link", "add", "other", "type", "veth", "peer", "name", "peer"]);
    host.run("ip", &["tuntap", "add", "single", "mode", "tap"]);
    let switch = Switch::start_in(
        &host,
        &["--port", "a=tap:other", "--port", "b=tap:single,queues=2", "--port", "good=tap:good0", "--port", "vm1=vhost-user:{}/vm1.sock"],
    );
    wait_for_link(&switch, "good", "up");
    let list = switch.ctl_json(&["port", "list"]);
    let says = |name: &str| port(&list, name)["error"].as_str().unwrap_or_default().to_owned();
    assert_eq!(says("a"), "tap other: a device of that name exists and is no tap, but of the kind veth; choose another name");
    assert!(says("b").starts_with("tap single: it exists with one queue, and 2 are wanted; delete it"), "{list}");
    assert_eq!((port(&list, "a")["link"].as_str(), says("good")), (Some("down"), String::new()));

    // Who adds one by hand is told, and nothing is added.
    let refused = |spec: &str| {
        let mut ctl = std::process::Command::new(tests::target::vswitch());
        let output = ctl.arg("ctl").arg("--run-dir").arg(switch.path("")).args(["port", "add", spec]).output().expect("ctl");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).trim().to_owned())
    };
    let busy = Switch::start_in(&host, &["--port", "x=tap:taken"]);
    let (status, error) = refused("c=tap:taken");
    assert_eq!(status, Some(1));
    assert!(error.ends_with("port c: tap taken: another process has it open; end that process or choose another name"), "{error}");
    let (_, error) = refused("c=tap:a-name-that-is-too-long");
    assert!(error.contains("it is longer than 15 bytes"), "{error}");
    assert!(switch.ctl_json(&["port", "list"]).as_array().expect("a list").iter().all(|port| port["name"] != "c"));
    drop(busy);

    // What stands in the way goes, and the ports come up by themselves.
    host.run("ip", &["link", "del", "other"]);
    host.run("ip", &["link", "del", "single"]);
    wait_for_link(&switch, "a", "up");
    wait_for_link(&switch, "b", "up");
}

#[test]
fn the_link_is_the_devices_and_comes_back_with_it() {
    let host = Namespace::new("host");
    let switch = Switch::start_in(&host, &["--port", "t=tap:t0"]);
    wait_for_link(&switch, "t", "up");
    host.run("ip", &["link", "set", "t0", "mtu", "4000"]);
    until(PATIENCE, "the MTU is seen", || (switch.ctl_json(&["port", "show", "t"])["link_mtu"] == 4000).then_some(()));
    assert_eq!(switch.ctl_json(&["port", "show", "t"])["link_speed"], 10_000);
    let described = switch.ofctl("dump-ports-desc", &[]);
    assert!(described.contains("LIVE") && described.contains("10GB-FD"), "{described}");
    host.run("ip", &["link", "set", "t0", "down"]);
    wait_for_link(&switch, "t", "down");
    assert!(switch.ofctl("dump-ports-desc", &[]).contains("LINK_DOWN"));
    host.run("ip", &["link", "set", "t0", "up"]);
    wait_for_link(&switch, "t", "up");
    // The switch makes anew what somebody deletes.
    host.run("ip", &["link", "del", "t0"]);
    until(PATIENCE, "the tap is back", || host.has("t0").then_some(()));
    wait_for_link(&switch, "t", "up");
    switch.ctl(&["port", "del", "t"]);
    assert!(!host.has("t0"));
}

#[test]
fn a_reload_brings_devices_and_takes_them_away() {
    let host = Namespace::new("host");
    host.run("ip", &["link", "add", "other", "type", "veth", "peer", "name", "peer"]);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.toml").display().to_string();
    let write = |ports: &[(&str, &str)]| {
        let ports = ports.iter().map(|(name, spec)| format!("[[port]]\nname = '{name}'\nspec = '{spec}'\n"));
        std::fs::write(&file, ports.collect::<String>()).expect("written");
    };
    write(&[("a", "tap:a0"), ("b", "tap:b0"), ("c", "tap:c0"), ("d", "tap:d0")]);
    let switch = Switch::start_in(&host, &["--config", &file]);
    ["a", "b", "c", "d"].iter().for_each(|name| wait_for_link(&switch, name, "up"));
    let index = |device: &str| host.run("cat", &[&format!("/sys/class/net/{device}/ifindex")]);
    let (kept, changed) = (index("a0"), index("c0"));

    // One stays, one goes, one is opened anew, one goes to another port, one comes, and one can't be had.
    write(&[("a", "tap:a0,vlan=7"), ("c", "tap:c0,queues=2"), ("e", "tap:d0"), ("f", "tap:f0"), ("g", "tap:other")]);
    let done = switch.ctl(&["reload"]);
    let expected = [
        "port b removed",
        "port c removed",
        "port d removed",
        "port a changed: VLANs",
        "port c added",
        "port e added",
        "port f added",
        "port g added, but down: tap other: a device of that name exists and is no tap, but of the kind veth; choose another name",
    ];
    assert_eq!(done.lines().collect::<Vec<_>>(), expected);
    ["a", "c", "e", "f"].iter().for_each(|name| wait_for_link(&switch, name, "up"));
    let list = switch.ctl_json(&["port", "list"]);
    assert!(port(&list, "g")["error"].as_str().is_some_and(|error| error.contains("is no tap")), "{list}");
    assert!(!host.has("b0") && host.has("d0") && host.has("f0"));
    assert_eq!(index("a0"), kept);
    assert_ne!(index("c0"), changed);
    assert_eq!(switch.ctl_json(&["port", "show", "c"])["queues"], 2);
    switch.stop();
}

#[test]
fn nothing_that_a_killed_switch_leaves_blocks_the_next() {
    let host = Namespace::new("host");
    let ports = ["--port", "a=tap:a0", "--port", "b=tap:b0,queues=2", "--port", "c=tap:c0,persistent"];
    let mut switch = Switch::start_in(&host, &ports);
    for _ in 0..2 {
        ["a", "b", "c"].iter().for_each(|name| wait_for_link(&switch, name, "up"));
        switch.kill();
        until(PATIENCE, "the taps are gone", || (!host.has("a0") && !host.has("b0")).then_some(()));
        assert!(host.has("c0"), "a persistent tap stays");
        switch.restart();
    }
    ["a", "b", "c"].iter().for_each(|name| wait_for_link(&switch, name, "up"));
    switch.stop();
    assert!(!host.has("a0") && host.has("c0"));
}

#[test]
fn without_capabilities_taps_that_root_made_will_do() {
    let host = Namespace::new("host");
    host.run("ip", &["tuntap", "add", "mine", "mode", "tap", "user", "root", "vnet_hdr"]);
    host.run("ip", &["link", "set", "mine", "up"]);
    let starter = ["ip", "netns", "exec", host.name(), "setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--"];
    let switch = Switch::start_by(&starter, &["--port", "a=tap:mine", "--port", "b=tap:new"]);
    wait_for_link(&switch, "a", "up");
    let list = switch.ctl_json(&["port", "list"]);
    let error = port(&list, "b")["error"].as_str().expect("an error");
    for part in ["tap new: this needs the capability CAP_NET_ADMIN", "AmbientCapabilities=", "setcap", "ip tuntap add new mode tap"] {
        assert!(error.contains(part), "{error}");
    }
}

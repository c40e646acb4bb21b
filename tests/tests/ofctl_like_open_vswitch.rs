//! `ovs-ofctl` prints the same of this switch as of Open vSwitch, in each version of OpenFlow, but for what `docs/ovs-ofctl.md` explains.
//!
//! Each command goes to both, and what it prints is compared line by line; and so are the frames that come out of the ports, the counters
//! after them, and what a monitor prints meanwhile. What differs must stand in a ```` ```diff ```` block of that
//! document, under the command, and what stands there must differ: it can neither lie nor grow old.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use tempfile::TempDir;
use tests::frontend::{Guest, Options};
use tests::open_vswitch::OpenVSwitch;
use tests::process::{PATIENCE, Process, until};
use tests::switch::Switch;

const EXPLAINED: &str = include_str!("../../docs/ovs-ofctl.md");
const COMMANDS: &str = include_str!("ofctl/commands.txt");
const COMMANDS_10: &str = include_str!("ofctl/commands10.txt");
const FLOWS: &str = include_str!("ofctl/flows.txt");
const FILES: [(&str, &str); 4] = [
    ("flows10.txt", include_str!("ofctl/flows10.txt")),
    ("few.txt", include_str!("ofctl/few.txt")),
    ("meet.txt", include_str!("ofctl/meet.txt")),
    ("meet10.txt", include_str!("ofctl/meet10.txt")),
];
const PORTS: [&str; 3] = ["vm1", "vm2", "vm3"];
/// Where `packet-out` says that a frame is from, and what is to be done with it. Each brings one packet-in.
const PACKET_OUTS: [(&str, &str); 8] = [
    ("controller", "mod_nw_dst:1.2.3.4,vm1,dec_ttl,vm3,CONTROLLER:65535"),
    ("vm2", "vm2,IN_PORT,CONTROLLER:65535"),
    ("vm1", "FLOOD,CONTROLLER:65535"),
    ("vm1", "ALL,CONTROLLER:65535"),
    ("controller", "ALL,CONTROLLER:65535"),
    ("vm1", "TABLE"),
    ("controller", "TABLE"),
    ("vm3", "CONTROLLER:20"),
];
const COUNTERS: [&str; 7] = [
    "--sort dump-flows",
    "--sort dump-flows table=3",
    "dump-aggregate",
    "dump-aggregate cookie=0x77/-1",
    "dump-tables",
    "dump-ports",
    "dump-ports vm2",
];
/// A version of OpenFlow that both switches are asked in.
struct Version {
    /// What `ovs-ofctl` calls it.
    name: &'static str,
    /// The heading of the part of the document that explains its differences.
    heading: &'static str,
    /// The commands that are compared.
    commands: &'static [&'static str],
    /// What the version has no words for: lines of `flows.txt` that have all of the words of one of these are left out.
    unsayable: &'static [&'static [&'static str]],
    /// The file with the rules that frames meet.
    meet: &'static str,
    /// The format of packet-ins that a monitor asks for.
    packet_ins: &'static str,
    /// A message that asks for packet-ins, port-status and flow-removed for every reason.
    set_async: &'static str,
}

const OPENFLOW_13: Version = Version {
    name: "OpenFlow13",
    heading: "# OpenFlow 1.3",
    commands: &[COMMANDS],
    unsayable: &[],
    meet: "@meet.txt",
    packet_ins: "standard",
    set_async: "041c002000000009000000070000000000000007000000000000000f00000000",
};
const OPENFLOW_10: Version = Version {
    name: "OpenFlow10",
    heading: "# OpenFlow 1.0",
    commands: &[COMMANDS, COMMANDS_10],
    unsayable: &[&["push_vlan"], &["reset_counts"], &["no_packet_counts"], &["no_byte_counts"], &["write_metadata", "goto_table"]],
    meet: "@meet10.txt",
    packet_ins: "nxt_packet_in2",
    set_async: "01040028000000090000232000000013000000070000000000000007000000000000000f00000000",
};
const DATAPATH_ID: &str = "00000000000000ab";

/// What differs, by command: lines of Open vSwitch only begin with `-`, our own ones with `+`.
type Differences = BTreeMap<String, Vec<String>>;

/// Both switches.
struct Both {
    version: Version,
    open_vswitch: OpenVSwitch,
    switch: Switch,
    guests: Vec<Guest>,
    dir: TempDir,
    differences: Differences,
}

impl Both {
    fn start(version: Version) -> Option<Both> {
        let open_vswitch = OpenVSwitch::start(DATAPATH_ID, &PORTS)?;
        let ports = PORTS.map(|port| format!("{port}=vhost-user:{port}.sock"));
        let mut args = vec!["--fail-mode", "secure", "--datapath-id", DATAPATH_ID];
        args.extend(ports.iter().flat_map(|port| ["--port", port.as_str()]));
        let switch = Switch::start(&args);
        let guests =
            PORTS.iter().map(|port| Guest::connect(&switch.path(&format!("{port}.sock")), Options::default()).expect("a guest")).collect();
        until(PATIENCE, "the links are up", || {
            let list = switch.ctl_json(&["port", "list"]);
            list.as_array().expect("a list").iter().all(|port| port["link"] == "up").then_some(())
        });
        let dir = tempfile::tempdir().expect("there is room for a temporary directory");
        let without = |unsayable: &[&[&str]]| -> String {
            let sayable = |line: &&str| !unsayable.iter().any(|words| words.iter().all(|word| line.contains(word)));
            FLOWS.split_inclusive('\n').filter(sayable).collect()
        };
        // `ovs-ofctl` can't read what Open vSwitch says of rules of OpenFlow 1.3 that write metadata, in OpenFlow 1.0.
        let (flows, flows_13) = (without(version.unsayable), without(&[&["write_metadata"]]));
        for (name, text) in FILES.into_iter().chain([("flows.txt", flows.as_str()), ("flows13.txt", &flows_13)]) {
            fs::write(dir.path().join(name), text).expect("the directory takes files");
        }
        Some(Both { version, open_vswitch, switch, guests, dir, differences: Differences::new() })
    }

    /// The sockets of Open vSwitch and of the switch.
    fn sockets(&self) -> [PathBuf; 2] {
        [self.open_vswitch.socket(), self.switch.path("br0.mgmt")]
    }

    /// Gives a command to both, and notes what differs in what it prints. In `command`, `@` stands before the name of a file, and the
    /// switch is left out.
    fn compare(&mut self, command: &str) {
        let outputs = self.sockets().map(|socket| {
            let target = format!("unix:{}", socket.display());
            let (options, words): (Vec<_>, Vec<_>) = command.split(' ').partition(|word| word.starts_with("--"));
            let mut ofctl = Command::new("ovs-ofctl");
            ofctl.args(["-O", self.version.name, "--timeout=60", "-vconsole:off"]).args(options).args([words[0], &target]);
            ofctl.args(words[1..].iter().map(|word| match word.strip_prefix('@') {
                Some(name) => self.dir.path().join(name).display().to_string(),
                None => (*word).to_owned(),
            }));
            let child = ofctl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            (child.unwrap_or_else(|error| panic!("ovs-ofctl does not start: {error}")), target)
        });
        let [theirs, ours] = outputs.map(|(child, target)| said(&child.wait_with_output().expect("it ends"), &target));
        self.note(command, &theirs, &ours);
    }

    /// Starts `ovs-ofctl monitor` at both, and waits until it is connected.
    fn monitor(&self) -> [Monitor; 2] {
        let dir = self.dir.path();
        let sockets = self.sockets();
        [0, 1].map(|i| {
            let (name, target) = (format!("monitor{i}"), format!("unix:{}", sockets[i].display()));
            let control = dir.join(format!("{name}.ctl"));
            let args = [
                "-O",
                self.version.name,
                "-vconsole:off",
                &format!("--unixctl={}", control.display()),
                &format!("-P{}", self.version.packet_ins),
                "monitor",
                &target,
                "65534",
            ];
            let monitor = Monitor { process: Process::start(dir, &name, "ovs-ofctl", args), control };
            until(PATIENCE, "the monitor is connected", || monitor.control(&["ofctl/barrier"]).then_some(()));
            monitor
        })
    }

    /// Does something that each monitor sees a message of, and waits until it has: so what is done next comes next.
    fn seen(&mut self, monitors: &[Monitor; 2], message: &str, act: impl FnOnce(&mut Self)) {
        let count = || monitors.each_ref().map(|monitor| monitor.said().matches(message).count());
        let before = count();
        act(self);
        until(PATIENCE, "both monitors see it", || (count().iter().zip(before).all(|(now, before)| *now > before)).then_some(()));
    }

    /// Compares all frames that have come out of each port.
    fn compare_frames(&mut self) {
        for (i, port) in PORTS.into_iter().enumerate() {
            let mut ours = Vec::new();
            let theirs = until(PATIENCE, "as many frames come out of both", || {
                ours.extend(self.guests[i].receive(0));
                let theirs = self.open_vswitch.sent(port);
                (theirs.len() == ours.len()).then_some(theirs)
            });
            let lines = |frames: &[Vec<u8>]| -> String { frames.iter().map(|frame| format!("{frame:02x?}\n")).collect() };
            assert!(!theirs.is_empty(), "{port} is tested");
            self.note(&format!("frames out of {port}"), &lines(&theirs), &lines(&ours));
        }
    }

    /// Notes what differs between two texts.
    fn note(&mut self, command: &str, theirs: &str, ours: &str) {
        let normal = |text: &str| -> Vec<String> { text.lines().map(normalise).collect() };
        let differing = difference(&normal(theirs), &normal(ours));
        if differing.is_empty() {
            return;
        }
        let noted = self.differences.entry(command.to_owned()).or_insert_with(|| differing.clone());
        assert_eq!(*noted, differing, "{command} differs in several ways: give each its own command");
    }
}

/// A running `ovs-ofctl monitor`.
struct Monitor {
    process: Process,
    control: PathBuf,
}

impl Monitor {
    /// What it has printed so far, without the switch's asking whether it is there.
    fn said(&self) -> String {
        let text = self.process.stdout() + &self.process.stderr();
        text.split_inclusive('\n').filter(|line| !line.starts_with("OFPT_ECHO_REQUEST")).collect()
    }

    /// Gives it a command. `ofctl/barrier` returns once it has printed all that the switch sent before. False: it failed, maybe because
    /// the monitor is not connected yet.
    fn control(&self, args: &[&str]) -> bool {
        let asked = Command::new("ovs-appctl").arg("-t").arg(&self.control).args(args).output();
        asked.expect("ovs-appctl starts").status.success()
    }
}

/// What a command printed, and how it ended.
fn said(output: &Output, target: &str) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).replace(target, "SWITCH");
    if output.status.success() { text } else { format!("{text}{}\n", output.status) }
}

/// A line without what is another in each run: durations and ages, and the ports' Ethernet addresses.
fn normalise(line: &str) -> String {
    let mut line = line.to_owned();
    for (name, ends) in [("duration", [',', ' ']), ("idle_age=", [',', ' ']), ("hard_age=", [',', ' ']), ("addr:", [' ', ' '])] {
        if let Some(start) = line.find(name).map(|at| at + name.len()) {
            let length = line[start..].find(ends).unwrap_or(line.len() - start);
            line.replace_range(start..start + length, "...");
        }
    }
    line
}

/// The lines of two texts that are not in their longest common subsequence.
fn difference(theirs: &[String], ours: &[String]) -> Vec<String> {
    // How many lines the texts from here on have in common.
    let mut common = vec![vec![0; ours.len() + 1]; theirs.len() + 1];
    for i in (0..theirs.len()).rev() {
        for j in (0..ours.len()).rev() {
            let best = common[i + 1][j].max(common[i][j + 1]);
            common[i][j] = if theirs[i] == ours[j] { common[i + 1][j + 1] + 1 } else { best };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < theirs.len() || j < ours.len() {
        if i < theirs.len() && j < ours.len() && theirs[i] == ours[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == ours.len() || i < theirs.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(format!("-{}", theirs[i]));
            i += 1;
        } else {
            lines.push(format!("+{}", ours[j]));
            j += 1;
        }
    }
    lines
}

/// The differences that the document explains under a heading.
fn explained(heading: &str) -> Differences {
    let mut explained = Differences::new();
    let mut command = None;
    let mut inside = false;
    let part = EXPLAINED.lines().skip_while(|line| *line != heading).skip(1);
    for line in part.take_while(|line| !line.starts_with("# ")) {
        if line.starts_with("```") {
            inside = line == "```diff";
            command = None;
        } else if let Some(name) = line.strip_prefix("@@ ").and_then(|line| line.strip_suffix(" @@")).filter(|_| inside) {
            assert!(explained.insert(name.to_owned(), Vec::new()).is_none(), "docs/ovs-ofctl.md explains {name} twice");
            command = Some(name);
        } else if inside {
            let command = command.unwrap_or_else(|| panic!("docs/ovs-ofctl.md: no @@ command @@ stands above {line}"));
            explained.get_mut(command).expect("it was inserted").push(line.to_owned());
        }
    }
    explained
}

fn show(differences: &Differences) -> String {
    differences.iter().map(|(command, lines)| format!("@@ {command} @@\n{}\n", lines.join("\n"))).collect()
}

#[test]
fn ofctl_prints_what_it_prints_of_open_vswitch_in_openflow_13() {
    compare_in(OPENFLOW_13);
}

#[test]
fn ofctl_prints_what_it_prints_of_open_vswitch_in_openflow_10() {
    compare_in(OPENFLOW_10);
}

fn compare_in(version: Version) {
    let Some(mut both) = Both::start(version) else { return };
    let commands = both.version.commands.iter().flat_map(|commands| commands.lines());
    for command in commands.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        both.compare(command);
    }

    meet_frames(&mut both);

    let (mut found, mut explained) = (both.differences, explained(both.version.heading));
    found.retain(|command, lines| explained.get(command) != Some(lines) || explained.remove(command).is_none());
    assert!(
        found.is_empty() && explained.is_empty(),
        "differences that docs/ovs-ofctl.md does not explain:\n{}\nand explanations of what is not so:\n{}",
        show(&found),
        show(&explained)
    );
}

/// Frames from the ports and from `packet-out`: where they come out, what a monitor sees, and what is counted.
fn meet_frames(both: &mut Both) {
    both.compare("del-flows");
    both.compare(&format!("add-flows {}", both.version.meet));
    let monitors = both.monitor();
    // Nobody is told of an invalid TTL who does not ask.
    assert!(monitors.iter().all(|monitor| monitor.control(&["ofctl/send", both.version.set_async])), "the monitors are there");

    let (udp, tcp) = (udp(64), tcp());
    let tagged = [&udp[..12], &[0x81, 0, 0x60, 9], &udp[12..]].concat();
    let long = [&udp[..12], &[0x12, 0x34], &[0x5a; 1000]].concat();
    for (port, frame) in [(0, &udp), (0, &self::udp(1)), (0, &tcp), (0, &long), (1, &tcp), (2, &tagged), (2, &udp)] {
        both.seen(&monitors, "_PACKET_IN", |both| {
            both.open_vswitch.receive(PORTS[port], frame);
            assert_eq!(both.guests[port].send(0, [&frame[..]]), 1);
        });
    }
    let packet: String = udp.iter().map(|byte| format!("{byte:02x}")).collect();
    for (in_port, actions) in PACKET_OUTS {
        let command = format!("packet-out in_port={in_port},packet={packet},actions={actions}");
        both.seen(&monitors, "_PACKET_IN", |both| both.compare(&command));
    }
    both.compare_frames();
    both.open_vswitch.settle();
    for command in COUNTERS {
        both.compare(command);
    }

    both.compare("mod-port vm3 no-flood");
    both.seen(&monitors, "_PORT_STATUS", |both| both.compare("mod-port vm3 no-packet-in"));
    both.seen(&monitors, "_FLOW_REMOVED", |both| both.compare("del-flows cookie=0x77/-1"));
    both.seen(&monitors, "_FLOW_REMOVED", |both| both.compare("add-flow table=9,cookie=5,hard_timeout=1,send_flow_rem,actions=drop"));
    assert!(monitors.iter().all(|monitor| monitor.control(&["ofctl/barrier"])), "the monitors are there");
    both.note("monitor", &monitors[0].said(), &monitors[1].said());
}

fn ip(ttl: u8) -> PacketBuilderStep<IpHeaders> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], ttl)
}

fn udp(ttl: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(ttl).udp(1000, 53).write(&mut frame, &[0x5a; 40]).expect("a vector takes all");
    frame
}

fn tcp() -> Vec<u8> {
    let mut frame = Vec::new();
    ip(64).tcp(1000, 80, 1, 100).syn().write(&mut frame, &[0x5a; 40]).expect("a vector takes all");
    frame
}

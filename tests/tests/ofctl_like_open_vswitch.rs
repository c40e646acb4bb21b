//! `ovs-ofctl` prints the same of this switch as of Open vSwitch, but for what `docs/ovs-ofctl.md` explains.
//!
//! Each command goes to both, and what it prints is compared line by line. What differs must stand in a ```` ```diff ```` block of that
//! document, under the command, and what stands there must differ: it can neither lie nor grow old.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tests::frontend::{Guest, Options};
use tests::open_vswitch::OpenVSwitch;
use tests::process::{PATIENCE, until};
use tests::switch::Switch;

const EXPLAINED: &str = include_str!("../../docs/ovs-ofctl.md");
const COMMANDS: &str = include_str!("ofctl/commands.txt");
const FILES: [(&str, &str); 2] = [("flows.txt", include_str!("ofctl/flows.txt")), ("few.txt", include_str!("ofctl/few.txt"))];
const PORTS: [&str; 3] = ["vm1", "vm2", "vm3"];
const DATAPATH_ID: &str = "00000000000000ab";

/// What differs, by command: lines of Open vSwitch only begin with `-`, our own ones with `+`.
type Differences = BTreeMap<String, Vec<String>>;

/// Both switches.
struct Both {
    open_vswitch: OpenVSwitch,
    switch: Switch,
    _guests: Vec<Guest>,
    dir: TempDir,
    differences: Differences,
}

impl Both {
    fn start() -> Option<Both> {
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
        for (name, text) in FILES {
            fs::write(dir.path().join(name), text).expect("the directory takes files");
        }
        Some(Both { open_vswitch, switch, _guests: guests, dir, differences: Differences::new() })
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
            ofctl.args(["-O", "OpenFlow13", "--timeout=60", "-vconsole:off"]).args(options).args([words[0], &target]);
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

/// What a command printed, and how it ended.
fn said(output: &Output, target: &str) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).replace(target, "SWITCH");
    if output.status.success() { text } else { format!("{text}{}\n", output.status) }
}

/// A line without what is another in each run: durations, and the ports' Ethernet addresses.
fn normalise(line: &str) -> String {
    let mut line = line.to_owned();
    for (name, ends) in [("duration", [',', ' ']), ("addr:", [' ', ' '])] {
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

/// The differences that the document explains.
fn explained() -> Differences {
    let mut explained = Differences::new();
    let mut command = None;
    let mut inside = false;
    for line in EXPLAINED.lines() {
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
fn ofctl_prints_what_it_prints_of_open_vswitch() {
    let Some(mut both) = Both::start() else { return };
    for command in COMMANDS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        both.compare(command);
    }

    let (mut found, mut explained) = (both.differences, explained());
    found.retain(|command, lines| explained.get(command) != Some(lines) || explained.remove(command).is_none());
    assert!(
        found.is_empty() && explained.is_empty(),
        "differences that docs/ovs-ofctl.md does not explain:\n{}\nand explanations of what is not so:\n{}",
        show(&found),
        show(&explained)
    );
}

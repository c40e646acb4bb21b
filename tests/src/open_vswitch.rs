//! Open vSwitch's own userspace switch, as the reference for what `ovs-ofctl` prints.
//!
//! It runs with dummy ports: a frame is given to a port with [`OpenVSwitch::receive`], and what leaves a port is recorded in a file. So it
//! touches no network, needs no privilege, and any number of them run side by side.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{PATIENCE, Process, until};

/// The version that the documented differences are from.
const VERSION: &str = "3.1.";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A running `ovs-vswitchd` with one bridge, `br0`. Dropping it ends it and removes its directory.
#[derive(Debug)]
pub struct OpenVSwitch {
    // First, so that they end before their directory goes.
    switch: Process,
    _database: Process,
    dir: TempDir,
}

impl OpenVSwitch {
    /// Starts it with these ports, numbered from 1. `None`, loudly, if it is not installed.
    pub fn start(datapath_id: &str, ports: &[&str]) -> Option<OpenVSwitch> {
        let dir = tempfile::tempdir().expect("there is room for a temporary directory");
        let version = command(dir.path(), "ovs-vswitchd").arg("--version").output().expect("env starts");
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        if !version.contains(VERSION) || !Path::new(SCHEMA).exists() {
            let found = if version.is_empty() { "nothing" } else { version.trim() };
            eprintln!(
                "SKIPPED: Open vSwitch {VERSION}x is not installed, but {found} (Debian package openvswitch-switch, or run scripts/setup)"
            );
            return None;
        }
        let file = |name: &str| dir.path().join(name).display().to_string();
        let socket = |kind: &str, name: &str| format!("{kind}:{}", file(name));
        succeed(command(dir.path(), "ovsdb-tool").arg("create").arg(file("conf.db")).arg(SCHEMA));
        let database = start(
            dir.path(),
            "ovsdb-server",
            &[file("conf.db"), format!("--remote={}", socket("punix", "db.sock")), format!("--unixctl={}", file("database.ctl"))],
        );
        until(PATIENCE, "the database listens", || dir.path().join("db.sock").exists().then_some(()));
        let options = ["--enable-dummy", "--disable-system", "-vconsole:off"].map(String::from);
        let control = format!("--unixctl={}", file("switch.ctl"));
        let switch = start(dir.path(), "ovs-vswitchd", &[&options[..], &[control, socket("unix", "db.sock")]].concat());

        let mut configure = command(dir.path(), "ovs-vsctl");
        configure.args([&format!("--db={}", socket("unix", "db.sock")), "--timeout=60", "init", "--", "add-br", "br0"]);
        configure.args(["--", "set", "bridge", "br0", "datapath_type=dummy", "fail-mode=secure", "protocols=OpenFlow10,OpenFlow13"]);
        configure.arg(format!("other-config:datapath-id={datapath_id}"));
        for (number, port) in (1..).zip(ports) {
            configure.args(["--", "add-port", "br0", port, "--", "set", "interface", port, "type=dummy"]);
            configure.arg(format!("ofport_request={number}")).arg(format!("options:tx_pcap={}", file(&format!("{port}.pcap"))));
        }
        succeed(&mut configure);
        Some(OpenVSwitch { switch, _database: database, dir })
    }

    /// The socket that `ovs-ofctl` connects to.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("br0.mgmt")
    }

    /// The private memory that the switch uses, in bytes.
    pub fn memory(&self) -> u64 {
        self.switch.memory()
    }

    /// The processor time that the switch has used.
    pub fn cpu_time(&self) -> Duration {
        self.switch.cpu_time()
    }

    /// Has a port receive a frame.
    pub fn receive(&self, port: &str, frame: &[u8]) {
        self.receive_all(port, &[frame]);
    }

    /// Has a port receive frames, one after the other.
    pub fn receive_all(&self, port: &str, frames: &[impl AsRef<[u8]>]) {
        let hex = |frame: &[u8]| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let frames: Vec<_> = frames.iter().map(|frame| hex(frame.as_ref())).collect();
        let args: Vec<_> = ["netdev-dummy/receive", port].into_iter().chain(frames.iter().map(String::as_str)).collect();
        self.control(&args);
    }

    /// Has its datapath forget what it has cached of rules that there are no more, which it would use for up to half a second otherwise.
    pub fn forget(&self) {
        self.control(&["revalidator/purge"]);
    }

    /// Has it do something with `ovs-vsctl`.
    pub fn configure(&self, args: &[&str]) {
        let database = format!("--db=unix:{}", self.dir.path().join("db.sock").display());
        succeed(command(self.dir.path(), "ovs-vsctl").args([&database, "--timeout=60"]).args(args));
    }

    /// Has it count all that it has forwarded.
    pub fn settle(&self) {
        self.control(&["revalidator/wait"]);
    }

    /// Has it do something with `ovs-appctl`.
    pub fn control(&self, args: &[&str]) {
        let control = self.dir.path().join("switch.ctl");
        succeed(command(self.dir.path(), "ovs-appctl").arg("-t").arg(control).args(args));
    }

    /// All frames that a port has sent so far.
    pub fn sent(&self, port: &str) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(self.dir.path().join(format!("{port}.pcap"))).expect("the port's file is there");
        // The headers of the file and of each frame, whose third word is the frame's length; another frame may be half written.
        let mut rest = bytes.get(24..).unwrap_or_default();
        let mut frames = Vec::new();
        while let Some(length) = rest.get(8..12) {
            let length = u32::from_ne_bytes(length.try_into().expect("four bytes")) as usize;
            let Some(frame) = rest.get(16..16 + length) else { break };
            frames.push(frame.to_owned());
            rest = &rest[16 + length..];
        }
        frames
    }
}

/// What the environment of each program is: daemons are not on everybody's path, and files go to the test's directory.
fn environment(dir: &Path) -> [String; 4] {
    let path = std::env::var("PATH").unwrap_or_default();
    let dir = dir.display();
    [format!("PATH={path}:/usr/sbin:/sbin"), format!("OVS_RUNDIR={dir}"), format!("OVS_LOGDIR={dir}"), format!("OVS_DBDIR={dir}")]
}

fn command(dir: &Path, program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(environment(dir)).arg(program);
    command
}

fn start(dir: &Path, program: &str, args: &[String]) -> Process {
    Process::start(dir, program, "env", environment(dir).iter().cloned().chain([program.to_owned()]).chain(args.iter().cloned()))
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

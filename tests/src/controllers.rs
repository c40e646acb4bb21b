//! Other people's controllers, beside the switch: Faucet, applications on os-ken, and Open vSwitch's `ovs-testcontroller`.
//!
//! Those in Python run in the environment that `tests/controllers/setup` makes in cargo's target directory.
//!
//! A controller's port has to be known before it is started. So that no two of them meet, on a machine with any number of tests, each process of
//! tests has a loopback address of its own (127.0.0.0/8 is the loopback network as a whole), made of its process id, and counts ports.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use crate::process::{PATIENCE, Process, until};
use crate::target;

const REQUIREMENTS: &str = include_str!("../controllers/requirements.txt");

/// A running controller. Dropping it ends it and removes its directory.
#[derive(Debug)]
pub struct Controller {
    // First, so that it ends before its directory goes.
    process: Process,
    /// Its environment variables, `NAME=VALUE`, beside those of the test; for its next start.
    pub settings: Vec<String>,
    command: Vec<String>,
    name: &'static str,
    address: SocketAddrV4,
    dir: TempDir,
}

impl Controller {
    /// Faucet, with this `faucet.yaml`. `None`, loudly, if it is not installed.
    pub fn faucet(config: &str) -> Option<Controller> {
        let (environment, dir) = (environment()?, directory());
        let path = dir.path().join("faucet.yaml");
        std::fs::write(&path, config).expect("the test's directory takes files");
        let settings = vec![
            format!("FAUCET_CONFIG={}", path.display()),
            "FAUCET_LOG=STDOUT".to_owned(),
            "FAUCET_EXCEPTION_LOG=STDOUT".to_owned(),
            // The metrics are served on any port.
            "FAUCET_PROMETHEUS_ADDR=127.0.0.1".to_owned(),
            "FAUCET_PROMETHEUS_PORT=0".to_owned(),
        ];
        Some(Controller::python("faucet", &environment, "faucet.faucet", settings, dir))
    }

    /// `tests/controllers/learning_switch.py` with these settings, `NAME=VALUE`. `None`, loudly, if os-ken is not installed.
    pub fn learning_switch(settings: &[&str]) -> Option<Controller> {
        let app = concat!(env!("CARGO_MANIFEST_DIR"), "/controllers/learning_switch.py");
        Some(Controller::python("learning_switch", &environment()?, app, words(settings), directory()))
    }

    /// `ovs-testcontroller` with these options. `None`, loudly, if it is not installed.
    pub fn ovs_testcontroller(options: &[&str]) -> Option<Controller> {
        if !ovs_testcontroller_is_installed() {
            return None;
        }
        let (address, dir) = (address(), directory());
        let listen = format!("ptcp:{}:{}", address.port(), address.ip());
        let control = format!("--unixctl={}", dir.path().join("control").display());
        // It logs every message.
        let command = words(&[&["ovs-testcontroller", &listen, &control, "-vsyslog:off", "-vvconn:console:dbg"], options].concat());
        Some(Controller::start("ovs-testcontroller", Vec::new(), command, address, dir))
    }

    /// An application for os-ken.
    fn python(name: &'static str, environment: &Path, app: &str, mut settings: Vec<String>, dir: TempDir) -> Controller {
        let address = address();
        // The application may lie in the source tree, where nothing is to be written.
        settings.extend(words(&["PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"]));
        let command = vec![
            environment.join("bin/osken-manager").display().to_string(),
            format!("--ofp-listen-host={}", address.ip()),
            format!("--ofp-tcp-listen-port={}", address.port()),
            app.to_owned(),
        ];
        Controller::start(name, settings, command, address, dir)
    }

    fn start(name: &'static str, settings: Vec<String>, command: Vec<String>, address: SocketAddrV4, dir: TempDir) -> Controller {
        let process = run(name, &settings, &command, address, dir.path());
        Controller { process, settings, command, name, address, dir }
    }

    /// What `vswitch run --controller` is to be told.
    pub fn target(&self) -> String {
        format!("tcp:{}", self.address)
    }

    /// What it has written to standard output since it was started last. That of Faucet is its log.
    pub fn output(&self) -> String {
        self.process.stdout()
    }

    /// What it has written to standard error since it was started last. That of `ovs-testcontroller` is its log.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`Controller::kill`], on the same port.
    pub fn restart(&mut self) {
        self.process = run(self.name, &self.settings, &self.command, self.address, self.dir.path());
    }
}

/// Whether `ovs-testcontroller` is installed. If it is not, this says so loudly.
pub fn ovs_testcontroller_is_installed() -> bool {
    let is_installed = Command::new("ovs-testcontroller").arg("--version").output().is_ok();
    if !is_installed {
        eprintln!("SKIPPED: ovs-testcontroller is not installed (Debian package openvswitch-testcontroller, or run scripts/setup)");
    }
    is_installed
}

/// Starts it, and waits until it listens.
fn run(name: &str, settings: &[String], command: &[String], address: SocketAddrV4, dir: &Path) -> Process {
    let mut process = Process::start(dir, name, "env", settings.iter().chain(command));
    until(PATIENCE, &format!("{name} listens on {address}"), || {
        if let Some(status) = process.exited() {
            panic!("{name} ended with {status} before it listened");
        }
        listens(address).then_some(())
    });
    process
}

/// Whether somebody listens on this address. The kernel's list tells without a connection, which would confuse who listens.
fn listens(address: SocketAddrV4) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists TCP sockets");
    // The address is written as the number that its bytes are in memory; 0A is TCP_LISTEN.
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    sockets.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&local) && words.nth(1) == Some("0A")
    })
}

/// An address that nobody else uses, see the module.
fn address() -> SocketAddrV4 {
    static NEXT: AtomicU16 = AtomicU16::new(6653);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(127, a, b, c), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("there is room for a temporary directory")
}

/// The Python environment.
fn environment() -> Option<PathBuf> {
    let environment = target::controllers();
    let made_from = std::fs::read_to_string(environment.join("requirements.txt")).unwrap_or_default();
    if made_from != REQUIREMENTS {
        eprintln!("SKIPPED: Faucet and os-ken are not installed in {} (run tests/controllers/setup)", environment.display());
        return None;
    }
    Some(environment)
}

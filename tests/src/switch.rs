//! The switch under test, as the program that an operator runs.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::process::{PATIENCE, Process, until};
use crate::target;

/// A running `vswitch run`, with a run directory of its own.
#[derive(Debug)]
pub struct Switch {
    // First, so that it ends before its directory goes.
    process: Process,
    command: Vec<String>,
    dir: TempDir,
}

impl Switch {
    /// Starts the switch with these arguments after `vswitch run --run-dir DIR`, and waits until it is ready. `{}` in an argument
    /// stands for the run directory.
    pub fn start(args: &[&str]) -> Switch {
        Self::start_by(&[], args)
    }

    /// Starts the switch in a network namespace.
    pub fn start_in(namespace: &Namespace, args: &[&str]) -> Switch {
        Self::start_by(&["ip", "netns", "exec", namespace.name()], args)
    }

    /// Starts the switch by another program, whose arguments end with the command to run.
    pub fn start_by(starter: &[&str], args: &[&str]) -> Switch {
        let dir = tempfile::tempdir().expect("there is room for a temporary directory");
        let path = dir.path().to_str().expect("temporary directories have plain names");
        let program = target::vswitch().to_str().expect("the target directory has a plain name");
        let args = args.iter().map(|arg| arg.replace("{}", path));
        let starter = starter.iter().map(|word| String::from(*word));
        let command: Vec<String> = starter.chain([program, "run", "--run-dir", path].map(String::from)).chain(args).collect();
        let process = run(&dir, &command);
        Switch { process, command, dir }
    }

    /// The path of a file in the run directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `vswitch ctl` with these arguments, and what it printed.
    ///
    /// # Panics
    ///
    /// Panics if it fails.
    pub fn ctl(&self, args: &[&str]) -> String {
        let mut command = Command::new(target::vswitch());
        command.arg("ctl").arg("--run-dir").arg(self.dir.path()).args(args);
        succeed(command)
    }

    /// `vswitch ctl --json` with these arguments, and the document it printed.
    ///
    /// # Panics
    ///
    /// Panics if it fails or prints anything else.
    pub fn ctl_json(&self, args: &[&str]) -> Value {
        let text = self.ctl(&[&["--json"], args].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("ctl --json {args:?} printed no JSON ({error}):\n{text}"))
    }

    /// `ovs-ofctl -O OpenFlow13 COMMAND SWITCH ARGS...`, and what it printed.
    ///
    /// # Panics
    ///
    /// Panics if it fails.
    pub fn ofctl(&self, command: &str, args: &[&str]) -> String {
        let output = self.try_ofctl(command, args);
        assert!(output.status.success(), "ovs-ofctl {command} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Like [`Switch::ofctl`], for a command that may fail.
    pub fn try_ofctl(&self, command: &str, args: &[&str]) -> Output {
        let mut ofctl = Command::new("ovs-ofctl");
        ofctl.args(["-O", "OpenFlow13", "-t", "60", command]).arg(format!("unix:{}", self.path("br0.mgmt").display())).args(args);
        ofctl.output().unwrap_or_else(|error| panic!("ovs-ofctl does not start ({error}): run scripts/setup"))
    }

    /// Kills every process of the switch, as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Has every process of the switch stand still while `work` is done.
    pub fn paused<T>(&self, work: impl FnOnce() -> T) -> T {
        self.process.pause();
        let done = work();
        self.process.go_on();
        done
    }

    /// Starts it again after [`Switch::kill`], with the same arguments and the same run directory, and waits until it is ready.
    pub fn restart(&mut self) {
        self.process = run(&self.dir, &self.command);
    }

    /// Ends it as an operator does.
    ///
    /// # Panics
    ///
    /// Panics if it does not end with success.
    pub fn stop(mut self) {
        let status = self.process.terminate(PATIENCE);
        assert!(status.success(), "the switch ended with {status}");
    }

    /// The share of one processor that the switch uses, measured for `window`.
    pub fn cpu_share(&self, window: Duration) -> f64 {
        self.process.cpu_share(window)
    }

    /// The processor time that the switch has used.
    pub fn cpu_time(&self) -> Duration {
        self.process.cpu_time()
    }

    /// The private memory that the switch uses, in bytes.
    pub fn memory(&self) -> u64 {
        self.process.memory()
    }

    /// How many file descriptors the switch has open.
    pub fn descriptors(&self) -> usize {
        self.process.descriptors()
    }

    /// What the switch has logged since it was started last.
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}

fn run(dir: &TempDir, command: &[String]) -> Process {
    let mut process = Process::start(dir.path(), "vswitch", &command[0], &command[1..]);
    until(PATIENCE, "the switch is ready", || {
        if let Some(status) = process.exited() {
            panic!("the switch ended with {status} before it was ready: {}", process.stderr());
        }
        process.stdout().lines().any(|line| line == "ready").then_some(())
    });
    process
}

fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

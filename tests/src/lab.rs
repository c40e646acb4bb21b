//! The two hosts of `scripts/lab`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::{Namespace, transfer};
use crate::target;

/// A lab that is up, and goes down when it is dropped. Hosts are `a` and `b`, with the ends `a1`, `a2`, `b1` and `b2`.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: TempDir,
}

impl Lab {
    /// A lab with these options of `scripts/lab up`.
    ///
    /// # Panics
    ///
    /// Panics if it does not come up.
    pub fn up(options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vsl-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { name, dir: tempfile::tempdir().expect("there is room for a temporary directory") };
        let output = lab.command().arg("up").args(options).output().expect("scripts/lab starts");
        assert!(output.status.success(), "scripts/lab up {options:?}: {}", String::from_utf8_lossy(&output.stderr));
        lab
    }

    /// The namespace of a host or an end.
    pub fn namespace(&self, place: &str) -> std::mem::ManuallyDrop<Namespace> {
        Namespace::existing(&format!("{}-{place}", self.name))
    }

    /// The run directory of a host's switch.
    pub fn run_dir(&self, host: &str) -> PathBuf {
        self.dir.path().join("lab").join(host)
    }

    /// `vswitch ctl --json` of a host's switch.
    ///
    /// # Panics
    ///
    /// Panics if it fails or prints anything else.
    pub fn ctl(&self, host: &str, args: &[&str]) -> Value {
        let output = Command::new(target::vswitch()).args(["ctl", "--json", "--run-dir"]).arg(self.run_dir(host)).args(args).output();
        let output = output.expect("ctl starts");
        assert!(output.status.success(), "ctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a document")
    }

    /// What the switch of a host has logged.
    pub fn log(&self, host: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("lab/{host}.log"))).unwrap_or_default()
    }

    /// A file each way between the ends with this number, over IPv4 and IPv6.
    pub fn exchange(&self, number: u32, megabytes: usize) {
        let (a, b) = (self.namespace(&format!("a{number}")), self.namespace(&format!("b{number}")));
        let vlan = number * 10;
        for prefix in [format!("10.0.{vlan}."), format!("fd00:{vlan}::")] {
            let address = |who: u32| format!("{prefix}{who}").parse::<IpAddr>().expect("an address");
            transfer(&a, &b, address(2), megabytes);
            transfer(&b, &a, address(1), megabytes);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lab"));
        command.env("LAB", &self.name).env("LAB_DIR", self.dir.path().join("lab")).env("VSWITCH", target::vswitch());
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in ["a", "b"] {
                eprintln!("--- the log of host {host}'s switch:\n{}", self.log(host));
            }
        }
        let _ = self.command().arg("down").status();
    }
}

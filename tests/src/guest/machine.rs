//! The machine that a guest runs on: QEMU's command line, and a boot snapshot of it.
//!
//! Guests are emulated (TCG), so that they run wherever the tests do. The machine starts without a network card; the card is plugged in
//! once the guest is up. So one snapshot serves guests with any card, and a guest starts in about a second instead of the time of a boot.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::agent::Agent;
use super::qmp::Qmp;
use crate::process::{PATIENCE, Process, until};
use crate::target;

const QEMU: &str = "qemu-system-x86_64";

/// The options that a snapshot depends on. Two processors, so that a card can have two pairs of queues at work.
const OPTIONS: &str = "-no-user-config -nodefaults -display none -accel tcg,thread=multi -cpu Nehalem -smp 2 -m 128M \
    -machine q35,memory-backend=memory -object memory-backend-memfd,id=memory,size=128M,share=on \
    -device pcie-root-port,id=slot0,bus=pcie.0,chassis=1,slot=1";
const KERNEL_PARAMETERS: &str = "console=ttyS0 quiet no_timer_check tsc=reliable mitigations=off nokaslr cryptomgr.notests audit=0";

/// A running machine whose guest answers.
#[derive(Debug)]
pub(super) struct Machine {
    // First, so that it ends before its directory goes.
    _qemu: Process,
    pub qmp: Qmp,
    pub agent: Agent,
}

impl Machine {
    /// Starts a machine with more options of QEMU's, its sockets and logs in `dir`: from the boot snapshot, which is made if there is
    /// none yet, or, if `cold`, by booting.
    pub fn start(dir: &Path, options: &[String], cold: bool) -> Machine {
        let image = target::guest_image();
        if !cold {
            let snapshot = snapshot(&image);
            if let Some(machine) = Machine::launch(dir, &image, options, Some(&snapshot), Duration::from_secs(60)) {
                return machine;
            }
            eprintln!("WARNING: the boot snapshot {} can't be restored; the guest boots instead, which takes longer", snapshot.display());
        }
        Machine::launch(dir, &image, options, None, PATIENCE).unwrap_or_else(|| panic!("the guest does not boot within {PATIENCE:?}"))
    }

    /// Starts QEMU; `None` if the guest does not answer in time.
    fn launch(dir: &Path, image: &Path, options: &[String], snapshot: Option<&Path>, limit: Duration) -> Option<Machine> {
        let mut args: Vec<String> = OPTIONS.split_whitespace().map(String::from).collect();
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        option("-kernel", image.join("vmlinux").display().to_string());
        option("-initrd", image.join("initramfs.cpio").display().to_string());
        option("-append", KERNEL_PARAMETERS.to_owned());
        for (port, log) in [("console", format!(",logfile={}/console.log", dir.display())), ("agent", String::new())] {
            option("-chardev", format!("socket,id={port},path={}/{port},server=on,wait=off{log}", dir.display()));
            option("-serial", format!("chardev:{port}"));
        }
        option("-qmp", format!("unix:{}/qmp,server=on,wait=off", dir.display()));
        if let Some(snapshot) = snapshot {
            option("-incoming", format!("file:{}", snapshot.display()));
        }
        args.extend_from_slice(options);

        let mut process = Process::start(dir, "qemu", QEMU, args);
        let mut connect = |name: &str| {
            until(PATIENCE, "QEMU opens its sockets", || {
                let ended = process.exited();
                UnixStream::connect(dir.join(name)).ok().map(Some).or(ended.map(|_| None))
            })
        };
        let (agent, qmp) = (connect("agent")?, connect("qmp")?);
        let mut machine = Machine { agent: Agent::new(agent), qmp: Qmp::new(qmp), _qemu: process };
        machine.agent.wait(limit).then_some(machine)
    }
}

/// The boot snapshot for this image, QEMU and machine; made now if it is missing.
fn snapshot(image: &Path) -> PathBuf {
    let version = Command::new(QEMU).arg("--version").output();
    let version = version.unwrap_or_else(|error| panic!("{QEMU} does not start ({error}): run scripts/setup")).stdout;
    let read = |name| fs::read(image.join(name)).unwrap_or_default();
    let mut key = DefaultHasher::new();
    (version, OPTIONS, KERNEL_PARAMETERS, read("recipe.sha256"), read("inputs.sha256")).hash(&mut key);
    let path = image.join(format!("snapshot-{:016x}", key.finish()));

    let lock = File::create(image.join("snapshot.lock")).expect("the guest image's directory takes files");
    lock.lock().expect("a file can be locked");
    if !path.exists() {
        let dir = tempfile::tempdir().expect("there is room for a temporary directory");
        let mut machine = Machine::launch(dir.path(), image, &[], None, PATIENCE).expect("the guest boots");
        let unfinished = path.with_extension("unfinished");
        machine.qmp.execute("migrate", json!({ "uri": format!("file:{}", unfinished.display()) }));
        until(PATIENCE, "QEMU writes the boot snapshot", || {
            let state = machine.qmp.execute("query-migrate", json!({}));
            assert_ne!(state["status"], "failed", "QEMU can't write the boot snapshot: {state}");
            (state["status"] == "completed").then_some(())
        });
        fs::rename(unfinished, &path).expect("the snapshot can be renamed");
    }
    path
}

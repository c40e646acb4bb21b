//! Real guests: Linux under QEMU, on a vhost-user network card.

mod agent;
mod machine;
mod qmp;

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

pub use agent::{Output, Running};

use crate::process::PATIENCE;
use machine::Machine;

/// QEMU's names for the offloads of a card, towards the device and towards the guest.
const OFFLOADS: [&str; 14] = [
    "csum",
    "gso",
    "host_tso4",
    "host_tso6",
    "host_ecn",
    "host_ufo",
    "host_uso", //
    "guest_csum",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "guest_ufo",
    "guest_uso4",
    "guest_uso6",
];

/// How a guest's network card reaches the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// QEMU connects to the switch's socket, and again whenever it is lost.
    Client,
    /// QEMU listens and the switch connects.
    Server,
    /// None: the card's frames go through a tap, open under this number, which QEMU inherits.
    Tap(RawFd),
}

/// What a guest is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The path of the vhost-user socket, if there is one.
    pub socket: PathBuf,
    /// Who listens on it.
    pub connection: Connection,
    /// The number of the guest, which gives the card's address 02:00:00:00:00:NN.
    pub number: u8,
    /// The card's pairs of queues, 1 or 2.
    pub queues: u16,
    /// The MTU that the card tells the guest, if any.
    pub mtu: Option<u16>,
    /// Whether the card offers the guest checksum and segmentation offload.
    pub offloads: bool,
    /// Boot instead of restoring the boot snapshot.
    pub cold: bool,
}

impl Options {
    /// Guest `number` with a plain card: QEMU is the client, one pair of queues, every offload, no word of the MTU.
    pub fn new(socket: impl AsRef<Path>, number: u8) -> Options {
        Options {
            socket: socket.as_ref().to_owned(),
            connection: Connection::Client,
            number,
            queues: 1,
            mtu: None,
            offloads: true,
            cold: false,
        }
    }
}

/// A running guest, driven by shell commands. Dropping it ends its QEMU and removes its files.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    dir: TempDir,
}

impl Guest {
    /// Starts a guest and plugs in its network card, `eth0`, which is left down and without an address. With
    /// [`Connection::Server`] the switch has to be connecting already: QEMU waits for it.
    pub fn start(options: &Options) -> Guest {
        let dir = tempfile::tempdir().expect("there is room for a temporary directory");
        let (socket, queues) = (options.socket.display(), options.queues);
        let vhost_user = |end: &str| {
            let chardev = format!("socket,id=vhost0,path={socket},{end}");
            ["-chardev".to_owned(), chardev, "-netdev".to_owned(), format!("vhost-user,id=net0,chardev=vhost0,queues={queues}")].to_vec()
        };
        let network = match options.connection {
            Connection::Client => vhost_user("reconnect-ms=100"),
            Connection::Server => vhost_user("server=on,wait=off"),
            Connection::Tap(fd) => ["-netdev".to_owned(), format!("tap,id=net0,fd={fd}")].to_vec(),
        };
        let mut guest = Guest { machine: Machine::start(dir.path(), &network, options.cold), dir };
        let mut card = json!({
            "driver": "virtio-net-pci", "id": "nic0", "bus": "slot0", "netdev": "net0", "romfile": "",
            "mac": format!("02:00:00:00:00:{:02x}", options.number),
        });
        if queues > 1 {
            card["mq"] = json!(true);
            card["vectors"] = json!(2 * queues + 2);
        }
        if let Some(mtu) = options.mtu {
            card["host_mtu"] = json!(mtu);
        }
        if !options.offloads {
            for feature in OFFLOADS {
                card[feature] = json!(false);
            }
        }
        guest.machine.qmp.execute("device_add", card);
        guest.run(&format!("hostname vm{}; until [ -e /sys/class/net/eth0 ]; do usleep 10000; done", options.number));
        guest
    }

    /// Runs a line of shell in the guest and returns what it wrote.
    ///
    /// # Panics
    ///
    /// Panics if it fails, or is not done within [`PATIENCE`].
    pub fn run(&mut self, command: &str) -> String {
        let running = self.begin(command);
        self.finish(running)
    }

    /// Runs a line of shell in the guest that may fail.
    pub fn try_run(&mut self, command: &str) -> Output {
        let running = self.begin(command);
        self.wait(&running)
    }

    /// Starts a command without waiting for it. The guest runs nothing else before it is finished.
    pub fn begin(&mut self, command: &str) -> Running {
        self.machine.agent.begin(command)
    }

    /// Waits for a command that was begun, and returns what it wrote.
    ///
    /// # Panics
    ///
    /// Panics if it fails, or is not done within [`PATIENCE`].
    pub fn finish(&mut self, running: Running) -> String {
        let output = self.wait(&running);
        assert_eq!(output.status, 0, "in the guest, {:?} failed:\n{}", running.command(), output.text);
        output.text
    }

    fn wait(&mut self, running: &Running) -> Output {
        let output = self.machine.agent.finish(running, PATIENCE);
        output.unwrap_or_else(|| panic!("in the guest, {:?} is not done within {PATIENCE:?}", running.command()))
    }

    /// Reboots the guest by its own `reboot`, as its user would, and waits until it is up again.
    pub fn reboot(&mut self) {
        let before = self.boot_id();
        let _ = self.begin("reboot -f");
        loop {
            assert!(self.machine.agent.wait(PATIENCE), "the guest does not come back within {PATIENCE:?} after its reboot");
            if self.boot_id() != before {
                return;
            }
        }
    }

    /// What differs from boot to boot.
    pub fn boot_id(&mut self) -> String {
        self.run("cat /proc/sys/kernel/random/boot_id")
    }

    /// The state of the card as QEMU sees it: the features negotiated with the guest and with the switch, among others.
    pub fn card(&mut self) -> Value {
        self.machine.qmp.execute("x-query-virtio-status", json!({ "path": "/machine/peripheral/nic0/virtio-backend" }))
    }

    /// The socket of the guest's first serial port, where a shell waits for a person.
    pub fn console(&self) -> PathBuf {
        self.dir.path().join("console")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = std::fs::read(self.dir.path().join("console.log")).unwrap_or_default();
            eprintln!("--- the guest's console, before this test failed:\n{}", String::from_utf8_lossy(&console));
        }
    }
}

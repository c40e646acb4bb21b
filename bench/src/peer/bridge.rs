//! The classical way: a tap for each guest, in a bridge of the kernel.
//!
//! Nothing forwards but the system call that writes to a tap, on the guests' own CPU: as if QEMU's threads and the guests had one CPU together.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ::tests::process::Process;

use super::{Ends, Spent, Switch};
use crate::error::{Error, Result};
use crate::host::{Host, output, program};

const TAPS: [&str; 2] = ["t0", "t1"];

pub(super) fn missing() -> Option<String> {
    if program("ip").is_none() {
        return Some("apt-get install iproute2".into());
    }
    (!Path::new("/dev/net/tun").exists()).then(|| "there is no /dev/net/tun: modprobe tun".into())
}

pub(super) fn version() -> String {
    let version = output(Command::new("uname").arg("-r")).unwrap_or_default();
    format!("Linux {}", version.trim())
}

#[derive(Debug)]
pub(super) struct Bridge {
    /// Does nothing, in a network namespace that ends with it.
    holder: Process,
}

impl Bridge {
    pub fn start(host: &Host, dir: &Path) -> Result<Self> {
        let holder = Process::start(dir, "namespace", "unshare", ["--net", "--", "sleep", "infinity"]);
        let bridge = Self { holder };
        let ours = std::fs::read_link("/proc/self/ns/net").map_err(|error| Error::io("/proc/self/ns/net", error))?;
        let theirs = format!("/proc/{}/ns/net", bridge.holder.id());
        host.wait(Duration::from_secs(10), "a network namespace", || std::fs::read_link(&theirs).ok().filter(|theirs| *theirs != ours))?;

        bridge.run("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])?;
        bridge.run("ip", &["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        bridge.run("ip", &["link", "set", "br0", "up"])?;
        for tap in TAPS {
            bridge.run("ip", &["tuntap", "add", tap, "mode", "tap"])?;
            bridge.run("ip", &["link", "set", tap, "master", "br0", "up"])?;
        }
        Ok(bridge)
    }

    fn run(&self, name: &str, args: &[&str]) -> Result<()> {
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.id());
        let program = program(name).unwrap_or_else(|| name.into());
        output(Command::new("nsenter").arg(namespace).arg(program).args(args)).map(drop)
    }
}

impl Switch for Bridge {
    fn ends(&mut self) -> Result<Ends> {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        let namespace = File::open(&path).map_err(|error| Error::io(path, error))?;
        Ok(Ends::Taps(namespace, TAPS))
    }

    fn forwarder(&self) -> Option<(u32, i32)> {
        None
    }

    fn process(&self) -> Option<&Process> {
        None
    }

    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn end(&mut self) -> Result<Spent> {
        Ok(Spent::default())
    }
}

//! DPDK's vhost port without a switch behind it: what can be reached with two copies and no look at a frame.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::tests::process::Process;

use super::{Ends, Spent, Switch, sockets};
use crate::error::Result;
use crate::guest::Listener;
use crate::host::{Host, is_there, package_version, program, thread_named};

const PROGRAM: &str = "dpdk-testpmd";

pub(super) fn missing() -> Option<String> {
    program(PROGRAM).is_none().then(|| "apt-get install dpdk".into())
}

pub(super) fn version() -> String {
    format!("DPDK {}", package_version("dpdk").unwrap_or_else(|| "of unknown version".into()))
}

#[derive(Debug)]
pub(super) struct Wire {
    process: Process,
    dir: PathBuf,
    thread: i32,
}

impl Wire {
    pub fn start(host: &Host, dir: &Path) -> Result<Self> {
        let (guest, switch) = (host.guest_cpu, host.switch_cpu());
        let device = |port: usize| format!("net_vhost{port},iface={},queues=1,client=0", dir.join(format!("p{port}.sock")).display());
        let (first, second) = (device(0), device(1));
        let (cpus, cores) = (format!("{guest},{switch}"), format!("0@{guest},1@{switch}"));
        // With statistics that are hardly ever printed, since without them it waits for a terminal.
        let args = [
            &["--cpu-list", &cpus, PROGRAM, "--lcores", &cores, "--no-pci", "--in-memory", "--single-file-segments", "-m", "512"][..],
            &["--no-telemetry", "--vdev", &first, "--vdev", &second, "--", "--forward-mode=io", "--auto-start", "--nb-cores=1"],
            &["--rxd=1024", "--txd=1024", "--total-num-mbufs=32768", "--no-mlockall", "--stats-period=3600"],
        ];
        let process = Process::start(dir, "testpmd", "taskset", args.concat());
        let thread = host.wait(Duration::from_secs(20), "testpmd forwards", || {
            is_there(&dir.join("p1.sock"))?;
            process.stdout().contains("start packet forwarding").then_some(())?;
            thread_named(process.id(), "rte-worker").or_else(|| thread_named(process.id(), "lcore-worker"))
        });
        let thread = thread.inspect_err(|_| eprintln!("{}{}", process.stdout(), process.stderr()))?;
        Ok(Self { process, dir: dir.to_owned(), thread })
    }
}

impl Switch for Wire {
    fn ends(&mut self) -> Result<Ends> {
        Ok(Ends::Sockets(sockets(&self.dir, 2, Listener::Switch)?))
    }

    fn forwarder(&self) -> Option<(u32, i32)> {
        Some((self.process.id(), self.thread))
    }

    fn process(&self) -> Option<&Process> {
        Some(&self.process)
    }

    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn end(&mut self) -> Result<Spent> {
        Ok(Spent::default())
    }
}

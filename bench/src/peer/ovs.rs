//! Open vSwitch with DPDK: its own database and daemon in a directory of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::tests::process::Process;
use serde_json::{Map, Value};

use super::{Ends, Setup, Spent, Switch, sockets};
use crate::error::{Error, Result};
use crate::guest::{Listener, Socket};
use crate::host::{Host, is_there, output, package_version, program, thread_named};

const DAEMON: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

pub(super) fn missing() -> Option<String> {
    let there = Path::new(DAEMON).exists() && Path::new(SCHEMA).exists() && program("ovsdb-server").is_some();
    (!there).then(|| "apt-get install openvswitch-switch-dpdk".into())
}

pub(super) fn version() -> String {
    let version = |package| package_version(package).unwrap_or_else(|| "of unknown version".into());
    format!("Open vSwitch {} with DPDK {}", version("openvswitch-switch-dpdk"), version("librte-eal23"))
}

#[derive(Debug)]
pub(super) struct Ovs {
    // First, so that it ends before its database.
    daemon: Process,
    _database: Process,
    dir: PathBuf,
    sockets: Vec<Socket>,
    thread: i32,
}

impl Ovs {
    pub fn start(host: &Host, dir: &Path, setup: &Setup) -> Result<Self> {
        let file = |name: &str| dir.join(name).display().to_string();
        output(tool(dir, "ovsdb-tool").arg("create").args([&file("conf.db"), SCHEMA]))?;
        let server = [
            file("conf.db"),
            format!("--remote=punix:{}", file("db.sock")),
            format!("--unixctl={}", file("db.ctl")),
            "--no-chdir".into(),
            "-vconsole:off".into(),
        ];
        let database = start(dir, "ovsdb-server", &[], program("ovsdb-server").as_deref().unwrap_or(Path::new("ovsdb-server")), &server);
        host.wait(Duration::from_secs(10), "the database listens", || is_there(&dir.join("db.sock")))?;
        configure(dir, true, &["init"])?;
        let mut settings = vec![
            "dpdk-init=true".to_owned(),
            format!("dpdk-lcore-mask={:#x}", 1u64 << host.guest_cpu),
            format!("pmd-cpu-mask={:#x}", 1u64 << host.switch_cpu()),
            "dpdk-socket-mem=1024".into(),
            "dpdk-extra=\"--in-memory --no-pci --no-telemetry\"".into(),
        ];
        if !setup.exact_match_cache {
            settings.push("emc-insert-inv-prob=0".into());
        }
        if setup.tso {
            settings.push("userspace-tso-enable=true".into());
        }
        let settings: Vec<_> = settings.iter().map(|setting| format!("other_config:{setting}")).collect();
        configure(dir, true, &[&["set", "Open_vSwitch", "."][..], &settings.iter().map(String::as_str).collect::<Vec<_>>()].concat())?;

        // In a network namespace of its own, so that the interfaces that it makes are nobody else's.
        let args = [format!("unix:{}", file("db.sock")), format!("--unixctl={}", file("ctl")), "--no-chdir".into(), "-vconsole:off".into()];
        let logging = format!("--log-file={}", file("vswitchd.log"));
        let daemon = start(dir, "ovs-vswitchd", &["unshare", "--net", "--"], Path::new(DAEMON), &[&args[..], &[logging]].concat());
        host.wait(Duration::from_secs(30), "Open vSwitch answers", || is_there(&dir.join("ctl")))?;
        configure(dir, false, &["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure"])?;

        let sockets = sockets(dir, setup.ports, Listener::Guest)?;
        for port in 0..setup.ports {
            let (name, path) = (format!("v{port}"), format!("options:vhost-server-path={}", file(&format!("p{port}.sock"))));
            let number = format!("ofport_request={}", port + 1);
            let args = ["add-port", "br0", &name, "--", "set", "Interface", &name, "type=dpdkvhostuserclient", &path, &number];
            configure(dir, false, &args)?;
        }
        let rules = dir.join("rules");
        std::fs::write(&rules, setup.rules.text()).map_err(|error| Error::io("rules", error))?;
        output(tool(dir, "ovs-ofctl").args(["-O", "OpenFlow13", "-t", "60", "add-flows", "br0"]).arg(&rules))?;
        let thread = host.wait(Duration::from_secs(20), "Open vSwitch has a thread that polls", || thread_named(daemon.id(), "pmd-c"))?;
        Ok(Self { daemon, _database: database, dir: dir.to_owned(), sockets, thread })
    }

    fn ask(&self, command: &str) -> Result<String> {
        output(tool(&self.dir, "ovs-appctl").arg("-T").arg("20").arg("-t").arg(self.dir.join("ctl")).arg(command))
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        let _ = self.ask("exit");
    }
}

/// What each program of Open vSwitch finds in its environment.
fn environment(dir: &Path) -> [String; 3] {
    ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"].map(|name| format!("{name}={}", dir.display()))
}

fn tool(dir: &Path, name: &str) -> Command {
    let mut command = Command::new("env");
    command.args(environment(dir)).arg(program(name).unwrap_or_else(|| name.into()));
    command
}

fn start(dir: &Path, name: &str, wrapper: &[&str], program: &Path, args: &[String]) -> Process {
    let wrapper = wrapper.iter().map(|word| word.to_string());
    let args = environment(dir).into_iter().chain(wrapper).chain([program.display().to_string()]).chain(args.iter().cloned());
    Process::start(dir, name, "env", args)
}

fn configure(dir: &Path, at_once: bool, args: &[&str]) -> Result<()> {
    let mut command = tool(dir, "ovs-vsctl");
    command.arg("--timeout=30").arg(format!("--db=unix:{}", dir.join("db.sock").display()));
    if at_once {
        command.arg("--no-wait");
    }
    output(command.args(args)).map(drop)
}

impl Switch for Ovs {
    fn ends(&mut self) -> Result<Ends> {
        Ok(Ends::Sockets(std::mem::take(&mut self.sockets)))
    }

    fn openflow(&self) -> Option<PathBuf> {
        Some(self.dir.join("br0.mgmt"))
    }

    fn forwarder(&self) -> Option<(u32, i32)> {
        Some((self.daemon.id(), self.thread))
    }

    fn process(&self) -> Option<&Process> {
        Some(&self.daemon)
    }

    fn begin(&mut self) -> Result<()> {
        self.ask("dpif-netdev/pmd-stats-clear").map(drop)
    }

    fn end(&mut self) -> Result<Spent> {
        let mut spent = spent(&self.ask("dpif-netdev/pmd-stats-show")?);
        if let Some(count) = flow_count(&self.ask("upcall/show")?) {
            spent.counters.insert("megaflows".into(), count.into());
        }
        Ok(spent)
    }
}

/// What the first polling thread says in `dpif-netdev/pmd-stats-show`.
fn spent(text: &str) -> Spent {
    let mut counters = Map::new();
    let section = text.split("pmd thread").nth(1).unwrap_or_default().split("main thread").next().unwrap_or_default();
    for line in section.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        // "idle cycles: 12 (3.40%)"
        let number = value.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        if let Some(number) = number {
            counters.insert(name.trim().into(), Value::from(number));
        }
    }
    let cycles_per_frame = counters.get("avg processing cycles per packet").and_then(Value::as_f64);
    Spent { cycles_per_frame, counters }
}

/// The number of megaflows in `upcall/show`: "  flows         : (current 1) (avg 1) (max 1) (limit 10000)".
fn flow_count(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.trim_start().starts_with("flows"))?;
    line.split_once("(current ")?.1.split(')').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "\
pmd thread numa_id 0 core_id 1:
  packets received: 18414880
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  phwol hits: 0
  mfex opt hits: 0
  simple match hits: 18414880
  emc hits: 0
  smc hits: 0
  megaflow hits: 0
  avg. subtable lookups per megaflow hit: 0.00
  miss with success upcall: 0
  miss with failed upcall: 0
  avg. packets per output batch: 32.00
  idle cycles: 97356 (0.00%)
  processing cycles: 6996711282 (100.00%)
  avg cycles per packet: 379.95 (6996808638/18414880)
  avg processing cycles per packet: 379.95 (6996711282/18414880)
main thread:
  packets received: 12
  avg processing cycles per packet: 1.00 (12/12)
";

    #[test]
    fn the_polling_thread_s_numbers_are_read() {
        let spent = spent(STATS);
        assert_eq!(spent.cycles_per_frame, Some(379.95));
        assert_eq!(spent.counters["packets received"], 18_414_880.0);
        assert_eq!(spent.counters["processing cycles"], 6_996_711_282.0);
        assert_eq!(super::spent("").cycles_per_frame, None);
    }

    #[test]
    fn the_number_of_megaflows_is_read() {
        let text = "netdev@ovs-netdev:\n  flows         : (current 4711) (avg 1) (max 1) (limit 10000)\n  dump duration : 1ms\n";
        assert_eq!(flow_count(text), Some(4711));
        assert_eq!(flow_count("nothing"), None);
    }
}

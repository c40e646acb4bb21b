//! Our switch, from its release build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::tests::process::Process;
use serde_json::{Map, Value};

use super::{Ends, Setup, Spent, Switch, sockets};
use crate::error::{Error, Result};
use crate::guest::Listener;
use crate::host::{Host, children, output, program, thread_named};

const COUNTERS: [&str; 7] = ["frames", "busy_cycles", "idle_cycles", "microflow_hits", "megaflow_hits", "upcalls", "installed"];

pub(super) fn missing(host: &Host) -> Option<String> {
    if !host.vswitch.is_file() {
        return Some(format!("there is no {}: cargo build --release", host.vswitch.display()));
    }
    program("ovs-ofctl").is_none().then(|| "the rules are loaded with ovs-ofctl: apt-get install openvswitch-common".into())
}

pub(super) fn version(host: &Host) -> String {
    output(Command::new(&host.vswitch).arg("--version")).map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}

#[derive(Debug)]
pub(super) struct Vswitch {
    process: Process,
    program: PathBuf,
    dir: PathBuf,
    run_dir: PathBuf,
    ports: usize,
    forwarder: (u32, i32),
    before: Vec<Value>,
}

impl Vswitch {
    pub fn start(host: &Host, dir: &Path, setup: &Setup, poll: &str) -> Result<Self> {
        let run_dir = dir.join("vswitch");
        let listen = format!("punix:{}", run_dir.join("mgmt").display());
        let cpus: Vec<_> = host.switch_cpus.iter().map(usize::to_string).collect();
        // It forwards only on CPUs that it may use.
        let all = format!("{},{}", host.guest_cpu, cpus.join(","));
        let mut args = ["--cpu-list".to_owned(), all, host.vswitch.display().to_string()].to_vec();
        args.extend(["run".into(), "--run-dir".into(), run_dir.display().to_string()]);
        args.extend(["--cpus", &cpus.join(","), "--poll", poll, "--fail-mode", "secure", "--listen", &listen].map(String::from));
        for port in 0..setup.ports {
            args.extend(["--port".into(), format!("v{port}=vhost-user:{}", dir.join(format!("p{port}.sock")).display())]);
        }
        let mut process = Process::start(dir, "vswitch-run", "taskset", args);
        let ready = host.wait(Duration::from_secs(20), "vswitch is ready", || {
            let ended = process.exited().map(|status| Err(Error::failed(format!("vswitch ended with {status}: {}", process.stderr()))));
            ended.or_else(|| process.stdout().lines().any(|line| line == "ready").then_some(Ok(())))
        });
        ready??;
        let rules = dir.join("rules");
        std::fs::write(&rules, setup.rules.text()).map_err(|error| Error::io("rules", error))?;
        let target = format!("unix:{}", run_dir.join("mgmt").display());
        output(Command::new("ovs-ofctl").args(["-O", "OpenFlow13", "-t", "60", "add-flows", &target]).arg(&rules))?;

        // The launcher's child is the switch; its worker forwards.
        let thread = format!("worker-{}", host.switch_cpu());
        let forwarder = host.wait(Duration::from_secs(5), &format!("vswitch has a thread {thread}"), || {
            children(process.id()).into_iter().find_map(|child| Some((child, thread_named(child, &thread)?)))
        })?;
        let program = host.vswitch.clone();
        Ok(Self { process, program, dir: dir.to_owned(), run_dir, ports: setup.ports, forwarder, before: Vec::new() })
    }

    fn ask(&self, what: &str) -> Result<Vec<Value>> {
        let text = output(Command::new(&self.program).arg("ctl").arg("--run-dir").arg(&self.run_dir).args(["--json", what]))?;
        match serde_json::from_str(&text) {
            Ok(Value::Array(list)) => Ok(list),
            _ => Err(Error::failed(format!("vswitch ctl --json {what} printed no JSON list:\n{text}"))),
        }
    }
}

impl Switch for Vswitch {
    fn ends(&mut self) -> Result<Ends> {
        Ok(Ends::Sockets(sockets(&self.dir, self.ports, Listener::Switch)?))
    }

    fn openflow(&self) -> Option<PathBuf> {
        Some(self.run_dir.join("mgmt"))
    }

    fn forwarder(&self) -> Option<(u32, i32)> {
        Some(self.forwarder)
    }

    fn process(&self) -> Option<&Process> {
        Some(&self.process)
    }

    fn begin(&mut self) -> Result<()> {
        self.before = self.ask("workers")?;
        Ok(())
    }

    fn end(&mut self) -> Result<Spent> {
        let mut spent = spent(&self.before, &self.ask("workers")?);
        for drop in self.ask("drops")? {
            let name = |key: &str| drop[key].as_str().unwrap_or("?").to_owned();
            spent.counters.insert(format!("drop {} {}", name("port"), name("reason")), drop["frames"].clone());
        }
        Ok(spent)
    }
}

/// What all workers did between two answers to `ctl workers`.
fn spent(before: &[Value], after: &[Value]) -> Spent {
    let sum = |list: &[Value], key: &str| list.iter().map(|worker| worker[key].as_u64().unwrap_or(0)).sum::<u64>();
    let mut counters = Map::new();
    for key in COUNTERS {
        counters.insert(key.into(), sum(after, key).saturating_sub(sum(before, key)).into());
    }
    for key in ["megaflows", "masks", "audit_mismatches"] {
        counters.insert(key.into(), sum(after, key).into());
    }
    let number = |key: &str| counters[key].as_f64().unwrap_or(0.0);
    let cycles_per_frame = (number("frames") > 0.0).then(|| number("busy_cycles") / number("frames"));
    Spent { cycles_per_frame, counters }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cycles_are_those_of_all_workers_since_the_beginning() {
        let before = [json!({"frames": 10, "busy_cycles": 1000}), json!({"frames": 0, "busy_cycles": 0})];
        let after =
            [json!({"frames": 40, "busy_cycles": 4000, "megaflows": 3}), json!({"frames": 70, "busy_cycles": 15000, "megaflows": 4})];
        let spent = spent(&before, &after);
        assert_eq!(spent.cycles_per_frame, Some(180.0));
        assert_eq!(spent.counters["megaflows"], 7);
        assert_eq!(super::spent(&after, &after).cycles_per_frame, None);
    }
}

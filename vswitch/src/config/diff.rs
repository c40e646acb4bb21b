//! What to do to a running switch so that it becomes what a config says: a pure function of the two.

use super::{Config, ControllerTarget, FailMode, ListenTarget, Name, OpenFlow, Origin, Polling, PortConfig, PortSpec, VlanSpec};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Step {
    RemovePort(Name),
    AddPort(PortConfig),
    SetVlan(Name, VlanSpec),
    StopListening(ListenTarget),
    Listen(ListenTarget),
    Disconnect(ControllerTarget),
    Connect(ControllerTarget),
    SetFailMode(FailMode),
    SetPolling(Polling),
    SetOpenFlow(OpenFlow),
    /// The config changes something that only a restart can change.
    NeedsRestart(&'static str),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RemovePort(name) => write!(f, "port {name} removed"),
            Self::AddPort(port) => write!(f, "port {} added", port.name),
            Self::SetVlan(name, _) => write!(f, "port {name} changed: VLANs"),
            Self::StopListening(target) => write!(f, "no longer listening on {target}"),
            Self::Listen(target) => write!(f, "listening on {target}"),
            Self::Disconnect(target) => write!(f, "controller {target} removed"),
            Self::Connect(target) => write!(f, "controller {target} added"),
            Self::SetFailMode(mode) => write!(f, "fail-mode set to {mode}"),
            Self::SetPolling(polling) => write!(f, "polling set to {}, idle-us {}", polling.poll, polling.idle.as_micros()),
            Self::SetOpenFlow(openflow) => write!(f, "OpenFlow set to {openflow}"),
            Self::NeedsRestart(what) => write!(f, "{what} is changed in the config and takes effect with the next start"),
        }
    }
}

/// The steps from `running` to `wanted`, in an order in which each can be done: what goes, then what changes, then what comes.
///
/// Ports that were added by `ctl port add` stay unless `wanted` has one of that name and it differs.
pub fn steps(running: &Config, wanted: &Config) -> Vec<Step> {
    let mut steps = Vec::new();
    let find = |config: &'_ Config, name: &Name| config.ports.iter().find(|port| port.name == *name).map(|port| port.spec.clone());
    let mut changed = Vec::new();
    for port in &running.ports {
        match find(wanted, &port.name) {
            None if port.origin == Origin::Config => steps.push(Step::RemovePort(port.name.clone())),
            None => {}
            Some(spec) if spec == port.spec => {}
            Some(spec) if (PortSpec { vlan: port.spec.vlan.clone(), ..spec.clone() }) == port.spec => {
                changed.push(Step::SetVlan(port.name.clone(), spec.vlan));
            }
            Some(_) => steps.push(Step::RemovePort(port.name.clone())),
        }
    }
    steps.extend(missing(&running.listen, &wanted.listen).map(Step::StopListening));
    steps.extend(missing(&running.controllers, &wanted.controllers).map(Step::Disconnect));

    steps.append(&mut changed);
    if running.fail_mode != wanted.fail_mode {
        steps.push(Step::SetFailMode(wanted.fail_mode));
    }
    if running.polling != wanted.polling {
        steps.push(Step::SetPolling(wanted.polling));
    }
    if running.openflow != wanted.openflow {
        steps.push(Step::SetOpenFlow(wanted.openflow));
    }

    let removed = |name: &Name| steps.iter().any(|step| matches!(step, Step::RemovePort(gone) if gone == name));
    let added: Vec<_> = wanted.ports.iter().filter(|port| removed(&port.name) || find(running, &port.name).is_none()).collect();
    steps.extend(added.into_iter().cloned().map(Step::AddPort));
    steps.extend(missing(&wanted.listen, &running.listen).map(Step::Listen));
    steps.extend(missing(&wanted.controllers, &running.controllers).map(Step::Connect));

    let fixed = [
        ("the switch's name", running.name != wanted.name),
        ("the datapath id", running.datapath_id != wanted.datapath_id),
        ("the workers' CPUs", running.cpus != wanted.cpus),
    ];
    steps.extend(fixed.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| Step::NeedsRestart(what)));
    steps
}

fn missing<'a, T: PartialEq + Clone>(from: &'a [T], present: &'a [T]) -> impl Iterator<Item = T> + 'a {
    from.iter().filter(|item| !present.contains(item)).cloned()
}

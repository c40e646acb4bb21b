//! What the operator wants: flags and config file, made into one checked [`Config`].
//!
//! Values are parsed twice. First each by itself, by clap ([`crate::cli`]) or from TOML ([`ConfigFile`]), into types that can't hold a
//! malformed value; then all together here, where one value may contradict another. The flags win over the file. What a running switch
//! must do to become what a config says is a pure function, [`steps`].

mod diff;
mod file;
mod kinds;
mod openflow;
mod run_dir;
mod spec;
mod target;
mod tls;
mod words;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use datapath::port::PortNo;
use toml::Spanned;

pub use diff::{Step, steps};
pub use file::{ConfigFile, FileError};
pub use kinds::{AfXdp, Device, DeviceName, Handed, Role, Steal, Tap, VhostUser, parse_device};
pub use openflow::{OpenFlow, Rate};
pub use run_dir::{NoRunDir, RunDir, SOCKET_PATH_MAX};
pub use spec::{Name, PortKind, PortSpec, QUEUES_MAX, SpecError, VlanSpec, parse_port};
pub use target::{ControllerTarget, ListenTarget, OPENFLOW_PORT, TargetError};
pub use tls::{TlsFile, TlsFiles};
pub use words::{DatapathId, FailMode, LogLevel, Poll, Version, Versions, XdpMode, ZeroCopy};

use crate::cli::RunArgs;

/// How long an adaptive worker polls in vain unless told otherwise, in microseconds.
const IDLE_US: u64 = 50;
/// The longest idle time before a worker sleeps, in microseconds.
const IDLE_US_MAX: u64 = 1_000_000;
/// The longest inactivity probe and the longest back-off, in seconds: an hour.
const SECONDS_MAX: u64 = 3600;

/// All that a switch is told before it starts, and by a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The switch's name.
    pub name: Name,
    /// What it does without a controller.
    pub fail_mode: FailMode,
    /// Its OpenFlow datapath id.
    pub datapath_id: DatapathId,
    /// The CPUs that forward, a worker each; at least one, no CPU twice.
    pub cpus: Vec<u16>,
    /// How workers wait.
    pub polling: Polling,
    /// Where it listens for OpenFlow; paths are absolute or relative to the working directory, no longer to the run directory.
    pub listen: Vec<ListenTarget>,
    /// Whom it connects to.
    pub controllers: Vec<ControllerTarget>,
    /// How it deals with them.
    pub openflow: OpenFlow,
    /// What it shows of itself over TLS, and whom it trusts there; given if there is an `ssl` or `pssl` target.
    pub tls: Option<TlsFiles>,
    /// Its ports, in their order; no name, OpenFlow number, socket or device twice.
    pub ports: Vec<PortConfig>,
}

/// How workers wait for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polling {
    /// What an idle worker does.
    pub poll: Poll,
    /// How long an adaptive worker polls in vain before it sleeps.
    pub idle: Duration,
}

/// One port that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Its name.
    pub name: Name,
    /// What it is; its socket is already below the run directory.
    pub spec: PortSpec,
    /// Who wants it.
    pub origin: Origin,
}

/// Who wants a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The flags or the config file: a reload may take it away.
    Config,
    /// `ctl port add`: only `ctl port del` takes it away.
    Ctl,
}

/// What a config depends on beside flags and file.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where sockets lie.
    pub run_dir: RunDir,
    /// The CPUs that the process may run on, in ascending order; not empty.
    pub cpus: Vec<u16>,
    /// Something that tells this machine from others.
    pub machine_id: String,
}

/// Values that are well formed and still can't be.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    place: Place,
    problem: Problem,
}

/// Where the operator wrote it.
#[derive(Clone, Debug)]
enum Place {
    Flag(&'static str),
    File { path: PathBuf, line: usize },
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("port {0} is given twice; give each port a name of its own")]
    DuplicatePort(Name),
    #[error("ports {first} and {second} both want the OpenFlow port number {ofport}; give each a number of its own")]
    DuplicateOfport { first: Name, second: Name, ofport: PortNo },
    #[error("ports {first} and {second} both want the device {device}; give each a device of its own")]
    DuplicateDevice { first: Name, second: Name, device: String },
    #[error("{second} wants the socket {} of {first}; give each a socket of its own", socket.display())]
    DuplicateSocket { first: String, second: String, socket: PathBuf },
    #[error("the socket path {} is {} bytes long; {SOCKET_PATH_MAX} are possible", .0.display(), .0.as_os_str().len())]
    LongSocket(PathBuf),
    #[error("no CPU is given; give at least one")]
    NoCpu,
    #[error("CPU {0} is given twice; a CPU has one worker")]
    DuplicateCpu(u16),
    #[error("CPU {cpu} is not one that this process may use; use some of {}", Cpus(available))]
    NoSuchCpu { cpu: u16, available: Vec<u16> },
    #[error("an idle time of {0} microseconds is too long; give at most {IDLE_US_MAX}")]
    LongIdle(u64),
    #[error("no OpenFlow version is given; give at least one")]
    NoVersion,
    #[error("{what} is {given}; give a number from {least} to {most}")]
    OutOfRange { what: &'static str, given: u64, least: u64, most: u64 },
    #[error("{user} needs a private key, a certificate and a CA certificate; give the {missing} with --{missing} FILE, or in [openflow]")]
    NoTlsFile { user: String, missing: TlsFile },
}

impl ConfigError {
    /// Whether it is the command line that is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self.place, Place::Flag(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::File { path, line } => write!(f, "config file {}, line {line}", path.display()),
        }
    }
}

struct Cpus<'a>(&'a [u16]);

impl fmt::Display for Cpus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(i, cpu)| write!(f, "{}{cpu}", if i == 0 { "" } else { "," }))
    }
}

impl Host {
    /// This machine.
    pub fn this(run_dir: RunDir) -> Self {
        let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
        let cpus = (0..rustix::thread::CpuSet::MAX_CPU as u16).filter(|cpu| set.is_set(usize::from(*cpu))).collect();
        let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let id = if id.is_empty() { rustix::system::uname().nodename().to_string_lossy().into_owned() } else { id };
        Self { run_dir, cpus, machine_id: id }
    }
}

impl Config {
    /// Makes one config of the flags and, if there is one, the file.
    pub fn new(flags: &RunArgs, file: Option<&ConfigFile>, host: &Host) -> Result<Self, ConfigError> {
        let nothing = file::Sections::default();
        let given = Given { flags, file, sections: file.map_or(&nothing, |file| &file.sections), host };
        let file::Sections { switch, workers, .. } = given.sections;
        let name = switch.name.clone().unwrap_or_else(|| "br0".parse().expect("a valid name"));
        let mut taken = Taken::default();
        let control = taken.socket("the control socket".into(), &host.run_dir.control_socket());
        control.map_err(|problem| ConfigError { place: Place::Flag("--run-dir"), problem })?;
        Ok(Self {
            fail_mode: flags.fail_mode.or(switch.fail_mode).unwrap_or(FailMode::Standalone),
            datapath_id: flags.datapath_id.or(switch.datapath_id).unwrap_or_else(|| default_datapath_id(host, &name)),
            cpus: given.cpus()?,
            polling: Polling { poll: flags.poll.or(workers.poll).unwrap_or(Poll::Adaptive), idle: given.idle()? },
            listen: given.listen(&name, &mut taken)?,
            controllers: given.controllers(),
            openflow: given.openflow()?,
            tls: given.tls()?,
            ports: given.ports(&mut taken)?,
            name,
        })
    }

    /// Says in one line why a port can't be added, if it can't.
    pub fn check_addition(&self, port: &PortConfig, run_dir: &RunDir) -> Result<(), String> {
        let mut taken = Taken::default();
        let check = |taken: &mut Taken| {
            taken.socket("the control socket".into(), &run_dir.control_socket())?;
            for target in &self.listen {
                if let ListenTarget::Unix(file) = target {
                    taken.socket(target.to_string(), file)?;
                }
            }
            self.ports.iter().try_for_each(|port| taken.port(port))?;
            taken.port(port)
        };
        check(&mut taken).map_err(|problem| problem.to_string())
    }
}

/// All that was given, of which the flags win.
struct Given<'a> {
    flags: &'a RunArgs,
    file: Option<&'a ConfigFile>,
    sections: &'a file::Sections,
    host: &'a Host,
}

impl Given<'_> {
    /// Where in the file something is.
    fn place(&self, span: Range<usize>) -> Place {
        match self.file {
            Some(file) => Place::File { path: file.path().to_owned(), line: file.line(&span) },
            None => unreachable!("a span comes from a file"),
        }
    }

    fn cpus(&self) -> Result<Vec<u16>, ConfigError> {
        let (cpus, place) = match &self.sections.workers.cpus {
            _ if !self.flags.cpus.is_empty() => (self.flags.cpus.clone(), Place::Flag("--cpus")),
            Some(cpus) => (cpus.get_ref().clone(), self.place(cpus.span())),
            None => (self.host.cpus.last().copied().into_iter().collect(), Place::Flag("--cpus")),
        };
        check_cpus(&cpus, &self.host.cpus).map_err(|problem| ConfigError { place, problem })?;
        Ok(cpus)
    }

    fn idle(&self) -> Result<Duration, ConfigError> {
        match &self.sections.workers.idle_us {
            Some(idle) if *idle.get_ref() > IDLE_US_MAX => {
                Err(ConfigError { place: self.place(idle.span()), problem: Problem::LongIdle(*idle.get_ref()) })
            }
            idle => Ok(Duration::from_micros(idle.as_ref().map_or(IDLE_US, |idle| *idle.get_ref()))),
        }
    }

    fn openflow(&self) -> Result<OpenFlow, ConfigError> {
        let default = OpenFlow::default();
        let section = &self.sections.openflow;
        let probe = self.number(&section.inactivity_probe_s, "inactivity-probe-s", 0, SECONDS_MAX)?.map(Duration::from_secs);
        let backoff = self.number(&section.max_backoff_s, "max-backoff-s", 1, SECONDS_MAX)?;
        let rate = self.number(&section.packet_in_rate, "packet-in-rate", 0, Rate::MAX.into())?.unwrap_or_default() as u32;
        let burst = self.number(&section.packet_in_burst, "packet-in-burst", 1, Rate::MAX.into())?;
        let burst = burst.map_or(Rate::burst_of(rate), |burst| burst as u32);
        Ok(OpenFlow {
            versions: self.versions()?.unwrap_or(default.versions),
            inactivity_probe: probe.map_or(default.inactivity_probe, |probe| Some(probe).filter(|probe| !probe.is_zero())),
            max_backoff: backoff.map_or(default.max_backoff, Duration::from_secs),
            packet_ins: (rate > 0).then_some(Rate { per_second: rate, burst }),
        })
    }

    fn versions(&self) -> Result<Option<Versions>, ConfigError> {
        match &self.sections.openflow.versions {
            _ if !self.flags.openflow.is_empty() => Ok(Some(Versions::of(&self.flags.openflow))),
            Some(versions) if versions.get_ref().is_empty() => {
                Err(ConfigError { place: self.place(versions.span()), problem: Problem::NoVersion })
            }
            versions => Ok(versions.as_ref().map(|versions| Versions::of(versions.get_ref()))),
        }
    }

    /// A number of the file, if it is given.
    fn number(&self, given: &Option<Spanned<u64>>, what: &'static str, least: u64, most: u64) -> Result<Option<u64>, ConfigError> {
        let Some(spanned) = given else { return Ok(None) };
        let given = *spanned.get_ref();
        match (least..=most).contains(&given) {
            true => Ok(Some(given)),
            false => Err(ConfigError { place: self.place(spanned.span()), problem: Problem::OutOfRange { what, given, least, most } }),
        }
    }

    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let controllers =
            self.wanted_controllers().filter(|(target, _)| target.is_tls()).map(|(target, place)| (target.to_string(), place));
        let listen = self.wanted_listen().filter(|(target, _)| target.is_tls()).map(|(target, place)| (target.to_string(), place));
        let given = self.tls_place().map(|place| ("TLS".to_owned(), place));
        match controllers.chain(listen).chain(given).next() {
            None => Ok(None),
            Some((user, place)) => match TlsFiles::find(self.flags, self.file) {
                Ok(files) => Ok(Some(files)),
                Err(missing) => Err(ConfigError { place, problem: Problem::NoTlsFile { user, missing } }),
            },
        }
    }

    /// Where the first of the files that TLS needs is given.
    fn tls_place(&self) -> Option<Place> {
        let RunArgs { private_key, certificate, ca_cert, .. } = self.flags;
        let flags = [("--private-key", private_key), ("--certificate", certificate), ("--ca-cert", ca_cert)];
        let flag = flags.into_iter().find(|(_, path)| path.is_some()).map(|(flag, _)| Place::Flag(flag));
        let section = &self.sections.openflow;
        let in_file = [&section.private_key, &section.certificate, &section.ca_cert].into_iter().flatten().next();
        flag.or_else(|| in_file.map(|path| self.place(path.span())))
    }

    /// The targets to listen on, if any are given, and where.
    fn wanted_listen(&self) -> impl Iterator<Item = (&ListenTarget, Place)> {
        let in_flags = self.flags.listen.iter().map(|target| (target, Place::Flag("--listen")));
        let in_file = self.sections.openflow.listen.iter().flatten().filter(|_| self.flags.listen.is_empty());
        in_flags.chain(in_file.map(|target| (target.get_ref(), self.place(target.span()))))
    }

    /// The controllers, and where they are given.
    fn wanted_controllers(&self) -> impl Iterator<Item = (&ControllerTarget, Place)> {
        let in_flags = self.flags.controllers.iter().map(|target| (target, Place::Flag("--controller")));
        let in_file = self.sections.openflow.controllers.iter().flatten().filter(|_| self.flags.controllers.is_empty());
        in_flags.chain(in_file.map(|target| (target.get_ref(), self.place(target.span()))))
    }

    fn listen(&self, switch: &Name, taken: &mut Taken) -> Result<Vec<ListenTarget>, ConfigError> {
        let default = ListenTarget::Unix(format!("{switch}.mgmt").into());
        let given = !self.flags.listen.is_empty() || self.sections.openflow.listen.is_some();
        let wanted = self.wanted_listen().chain((!given).then_some((&default, Place::Flag("--run-dir"))));
        let mut listen = Vec::new();
        for (target, place) in wanted {
            let target = match target {
                ListenTarget::Unix(file) => ListenTarget::Unix(self.host.run_dir.resolve(file)),
                tcp => tcp.clone(),
            };
            if listen.contains(&target) {
                continue;
            }
            if let ListenTarget::Unix(file) = &target {
                taken.socket(target.to_string(), file).map_err(|problem| ConfigError { place, problem })?;
            }
            listen.push(target);
        }
        Ok(listen)
    }

    fn controllers(&self) -> Vec<ControllerTarget> {
        let mut controllers = Vec::new();
        for (target, _) in self.wanted_controllers() {
            let target = match target {
                ControllerTarget::Unix(file) => ControllerTarget::Unix(self.host.run_dir.resolve(file)),
                tcp => tcp.clone(),
            };
            if !controllers.contains(&target) {
                controllers.push(target);
            }
        }
        controllers
    }

    /// The file's ports, but for those that a flag replaces, and then the flags'.
    fn ports(&self, taken: &mut Taken) -> Result<Vec<PortConfig>, ConfigError> {
        let by_flag: HashSet<&Name> = self.flags.ports.iter().map(|(name, _)| name).collect();
        let in_file = self.sections.port.iter().map(|port| (port.name.get_ref(), port.spec.get_ref(), self.place(port.name.span())));
        let in_flags = self.flags.ports.iter().map(|(name, spec)| (name, spec, Place::Flag("--port")));
        let mut ports = Vec::new();
        for (name, spec, place) in in_file.filter(|(name, ..)| !by_flag.contains(name)).chain(in_flags) {
            let port = PortConfig::new(name, spec, Origin::Config, &self.host.run_dir);
            taken.port(&port).map_err(|problem| ConfigError { place, problem })?;
            ports.push(port);
        }
        Ok(ports)
    }
}

impl PortConfig {
    /// A port whose socket is found from the run directory.
    pub fn new(name: &Name, spec: &PortSpec, origin: Origin, run_dir: &RunDir) -> Self {
        let mut spec = spec.clone();
        if let PortKind::VhostUser(vhost_user) = &mut spec.kind {
            vhost_user.socket = run_dir.resolve(&vhost_user.socket);
        }
        Self { name: name.clone(), spec, origin }
    }
}

/// What is already somebody's.
#[derive(Default)]
struct Taken {
    names: HashSet<Name>,
    ofports: HashMap<PortNo, Name>,
    devices: HashMap<String, Name>,
    sockets: HashMap<PathBuf, String>,
}

impl Taken {
    fn socket(&mut self, owner: String, socket: &Path) -> Result<(), Problem> {
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(Problem::LongSocket(socket.to_owned()));
        }
        match self.sockets.get(socket) {
            Some(first) => Err(Problem::DuplicateSocket { first: first.clone(), second: owner, socket: socket.to_owned() }),
            None => {
                self.sockets.insert(socket.to_owned(), owner);
                Ok(())
            }
        }
    }

    fn port(&mut self, port: &PortConfig) -> Result<(), Problem> {
        if !self.names.insert(port.name.clone()) {
            return Err(Problem::DuplicatePort(port.name.clone()));
        }
        if let Some(ofport) = port.spec.ofport
            && let Some(first) = self.ofports.insert(ofport, port.name.clone())
        {
            return Err(Problem::DuplicateOfport { first, second: port.name.clone(), ofport });
        }
        match &port.spec.kind {
            PortKind::VhostUser(vhost_user) => self.socket(format!("port {}", port.name), &vhost_user.socket),
            PortKind::Device(device) => match self.devices.insert(device.name(), port.name.clone()) {
                Some(first) => Err(Problem::DuplicateDevice { first, second: port.name.clone(), device: device.name() }),
                None => Ok(()),
            },
        }
    }
}

fn check_cpus(cpus: &[u16], available: &[u16]) -> Result<(), Problem> {
    if cpus.is_empty() {
        return Err(Problem::NoCpu);
    }
    for (i, cpu) in cpus.iter().enumerate() {
        if !available.contains(cpu) {
            return Err(Problem::NoSuchCpu { cpu: *cpu, available: available.to_vec() });
        }
        if cpus[..i].contains(cpu) {
            return Err(Problem::DuplicateCpu(*cpu));
        }
    }
    Ok(())
}

/// A datapath id that stays the same over restarts and differs between switches: zero in the 16 bits above a locally administered
/// address, as Open vSwitch has it.
fn default_datapath_id(host: &Host, name: &Name) -> DatapathId {
    let run_dir = host.run_dir.path().as_os_str().as_encoded_bytes();
    DatapathId(u64::from_be_bytes(stable_address(&[host.machine_id.as_bytes(), run_dir, name.as_str().as_bytes()]).1))
}

/// A locally administered unicast MAC address made from `parts`, the same for the same parts; also right-aligned in eight bytes.
pub fn stable_address(parts: &[&[u8]]) -> ([u8; 6], [u8; 8]) {
    // FNV-1a, with a separator after each part.
    let bytes = parts.iter().flat_map(|part| part.iter().copied().chain([0xff]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let [_, _, mac @ ..] = hash.to_be_bytes();
    let mac = [mac[0] & 0xfc | 0x02, mac[1], mac[2], mac[3], mac[4], mac[5]];
    (mac, [0, 0, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]])
}

#[cfg(test)]
mod tests;

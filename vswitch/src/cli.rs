//! The command line, as clap sees it. Each value is checked by its own type here; what concerns several values at once is checked when
//! the flags and the config file become one [`crate::config::Config`].

// clap shows these comments as they stand: the brackets in them are the usage's.
#![allow(rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{
    AfXdp, ControllerTarget, DatapathId, FailMode, ListenTarget, LogLevel, Name, Poll, PortSpec, Version, parse_device, parse_port,
};

/// A virtual switch for QEMU/KVM hosts.
#[derive(Debug, Parser)]
#[command(name = "vswitch", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The things that the binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a switch until SIGTERM or SIGINT
    Run(RunArgs),
    /// Talk to a running switch
    Ctl(CtlArgs),
    /// Open network devices, with privilege, for a switch without
    Open(OpenArgs),
}

/// The flags of `vswitch run`. They win over the config file.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Read this TOML file; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Add a port, NAME=vhost-user:SOCKET[,client], NAME=tap:DEVICE[,persistent] or
    /// NAME=af-xdp:DEVICE[,mode=native|generic][,zero-copy=auto|on|off][,steal=all|none|mac=ADDRESS]
    /// (or NAME=af-xdp:fd=N, for one that `vswitch open` opened), each with
    /// [,queues=N][,mtu=N][,icmp-too-big][,vlan=N][,trunk=A-B][,ofport=N|local]
    #[arg(long = "port", value_name = "NAME=SPEC", value_parser = parse_port)]
    pub ports: Vec<(Name, PortSpec)>,
    /// Listen for OpenFlow, ptcp:[PORT][:ADDRESS], pssl:[PORT][:ADDRESS] or punix:FILE [default: punix:RUN_DIR/SWITCH.mgmt]
    #[arg(long, value_name = "TARGET")]
    pub listen: Vec<ListenTarget>,
    /// Connect to an OpenFlow controller, tcp:HOST[:PORT], ssl:HOST[:PORT] or unix:FILE
    #[arg(long = "controller", value_name = "TARGET")]
    pub controllers: Vec<ControllerTarget>,
    /// The switch's private key for ssl and pssl targets, as PEM
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// The switch's certificate for ssl and pssl targets, as PEM
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// The certificates of the CAs that sign the peers' certificates, as PEM
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Where sockets lie [default: /run/vswitch for root, else $XDG_RUNTIME_DIR/vswitch]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The CPUs that forward, one worker each [default: the last CPU that the process may use]
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    pub cpus: Vec<u16>,
    /// What an idle worker does: sleep after a short while, poll for ever, or sleep at once [default: adaptive]
    #[arg(long, value_name = "adaptive|busy|interrupt")]
    pub poll: Option<Poll>,
    /// Without a controller, be a learning switch or do only what the rules say [default: standalone]
    #[arg(long, value_name = "standalone|secure")]
    pub fail_mode: Option<FailMode>,
    /// The OpenFlow datapath id, 16 hexadecimal digits [default: made from the machine, the run directory and the switch's name]
    #[arg(long, value_name = "HEX16")]
    pub datapath_id: Option<DatapathId>,
    /// The OpenFlow versions to offer [default: all that the switch speaks]
    #[arg(long, value_name = "VERSION,...", value_delimiter = ',')]
    pub openflow: Vec<Version>,
    /// Do not confine the switch process; this version never does, so the flag changes nothing
    #[arg(long)]
    pub no_sandbox: bool,
    /// Set by the launcher alone: this is the switch process, and its standard input is the socket to the launcher.
    #[arg(long, hide = true)]
    pub as_switch: bool,
}

/// The flags of `vswitch open`.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// The devices, af-xdp:DEVICE with the options of a port that are not about VLANs or OpenFlow: the first becomes descriptor 3, the second 4, and so on
    #[arg(value_name = "SPEC", required = true, value_parser = parse_device)]
    pub devices: Vec<AfXdp>,
    /// What to run with them: something that ends in `vswitch run --port NAME=af-xdp:fd=3`
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub command: Vec<OsString>,
}

/// The flags of `vswitch ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// The run directory of the switch [default: /run/vswitch for root, else $XDG_RUNTIME_DIR/vswitch]
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// What to ask.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What can be asked of a running switch.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Add, delete and show ports
    #[command(subcommand)]
    Port(PortCommand),
    /// Show the cached flows (megaflows)
    Flows {
        /// Only those of this worker, counted from 0
        #[arg(long, value_name = "N")]
        worker: Option<usize>,
    },
    /// Show what the workers do and how often each cache hits
    Workers,
    /// Show the OpenFlow connections, and the controllers that there is none to
    Connections,
    /// Show every dropped frame's reason
    Drops,
    /// Check a config file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Read the config file again and apply the difference
    Reload,
    /// Set how much the switch logs
    Log {
        /// off, error, warn, info, debug or trace
        level: LogLevel,
    },
}

/// What can be done with ports.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Add a port
    Add {
        /// NAME=SPEC, as `vswitch run --port` takes it
        #[arg(value_name = "NAME=SPEC")]
        port: String,
    },
    /// Delete a port
    Del {
        /// Its name
        name: String,
    },
    /// Show all ports
    List,
    /// Show one port in full
    Show {
        /// Its name
        name: String,
    },
}

/// What can be done with config files.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the file would be accepted; needs no running switch
    Check {
        /// The file
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, Command};

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_the_flags_of_the_contract() {
        let line = "vswitch run --config c.toml --port vm1=vhost-user:a --port vm2=vhost-user:b,client --listen punix:m --listen ptcp: \
                    --controller tcp:c --run-dir /r --cpus 1,2 --poll busy --fail-mode secure --datapath-id 00000000000000ff \
                    --openflow 1.3 --private-key k --certificate c --ca-cert a --no-sandbox";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("valid");
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!((run.ports.len(), run.listen.len(), run.controllers.len()), (2, 2, 1));
        assert_eq!(run.cpus, [1, 2]);
    }

    #[test]
    fn bad_values_are_usage_errors() {
        for flags in ["--port vm1", "--port a=tap:", "--poll often", "--datapath-id 1", "--openflow 1.1", "--cpus x", "--controller ptcp:"]
        {
            let error = Cli::try_parse_from(["vswitch", "run"].into_iter().chain(flags.split(' '))).expect_err(flags);
            assert_eq!(error.exit_code(), 2, "{flags}");
        }
    }
}

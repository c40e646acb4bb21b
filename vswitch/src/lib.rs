//! The appliance as a library: what the binary is made of, so that tests can reach its parts.
//!
//! [`cli`] and [`config`] make one checked config of flags and file. `vswitch run` is the [`launcher`], which starts the [`switch`] as a process
//! of its own and opens sockets for it; `vswitch open` ([`open`]) opens devices for a launcher without privilege. `vswitch ctl` ([`ctl`]) talks to the switch in
//! [`document`]s. [`openflow`] speaks for it to controllers, and [`uplink`] has its ports over network devices.

pub mod cli;
pub mod config;
pub mod ctl;
pub mod document;
pub mod event;
pub mod launcher;
pub mod log;
pub mod open;
pub mod openflow;
pub mod switch;
pub mod uplink;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, RunArgs};
use config::{Host, RunDir};

/// Something failed.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;

/// The program. Its exit status is 0, 1 (failed) or 2 (bad usage).
pub fn main() -> ExitCode {
    let run_dir = |given: &Option<PathBuf>| RunDir::find(given.as_deref()).map_err(|error| fail(USAGE, &error));
    let result = match Cli::parse().command {
        Command::Run(args) => run_dir(&args.run_dir).and_then(|run_dir| run(args, run_dir)),
        Command::Ctl(args) => run_dir(&args.run_dir).and_then(|run_dir| ctl::run(&args, run_dir).map_err(|error| fail(FAILED, &error))),
        Command::Open(args) => Err(fail(FAILED, &open::run(&args))),
    };
    result.map_or_else(|status| status, |()| ExitCode::SUCCESS)
}

fn run(args: RunArgs, run_dir: RunDir) -> Result<(), ExitCode> {
    if args.as_switch {
        return switch::run(args, Host::this(run_dir)).map_err(|error| fail(if error.is_usage() { USAGE } else { FAILED }, &error));
    }
    match launcher::run(&args, &run_dir) {
        Ok(0) => Ok(()),
        Ok(status) => Err(ExitCode::from(status)),
        Err(error) => Err(fail(FAILED, &error)),
    }
}

fn fail(status: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("vswitch: {error}");
    ExitCode::from(status)
}

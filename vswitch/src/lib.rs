//! The appliance as a library: what the binary is made of, so that tests can reach its parts.
//!
//! [`cli`] and [`config`] make one checked config of flags and file. `vswitch run` is the [`launcher`], which starts the [`switch`] as a process
//! of its own and opens sockets for it. `vswitch ctl` ([`ctl`]) talks to the switch in [`document`]s. [`openflow`] speaks for it to controllers, and [`uplink`] has its ports over network devices.

pub mod cli;
pub mod config;
pub mod ctl;
pub mod document;
pub mod event;
pub mod launcher;
pub mod log;
pub mod openflow;
pub mod switch;
pub mod uplink;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use config::{Host, RunDir};

/// Something failed.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;

/// The program. Its exit status is 0, 1 (failed) or 2 (bad usage).
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let given = match &command {
        Command::Run(args) => args.run_dir.as_deref(),
        Command::Ctl(args) => args.run_dir.as_deref(),
    };
    let run_dir = match RunDir::find(given) {
        Ok(run_dir) => run_dir,
        Err(error) => return fail(USAGE, &error),
    };
    let result = match command {
        Command::Run(args) if args.as_switch => {
            switch::run(args, Host::this(run_dir)).map_err(|error| fail(if error.is_usage() { USAGE } else { FAILED }, &error))
        }
        Command::Run(args) => return launcher::run(&args, &run_dir).map_or_else(|error| fail(FAILED, &error), ExitCode::from),
        Command::Ctl(args) => ctl::run(&args, run_dir).map_err(|error| fail(FAILED, &error)),
    };
    result.map_or_else(|status| status, |()| ExitCode::SUCCESS)
}

fn fail(status: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("vswitch: {error}");
    ExitCode::from(status)
}

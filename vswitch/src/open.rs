//! `vswitch open`: opens network devices with the privilege that it takes, and becomes another command, which may do without.
//!
//! The command finds each device in a descriptor of its own: a Unix socket, in which lies one message with what the launcher's answer to
//! [`Request::OpenDevice`](crate::launcher::channel::Request::OpenDevice) would have: what was opened, and its descriptors. A launcher that is told to
//! (`af-xdp:fd=N`) takes it from there ([`crate::uplink::handed`]). Nobody opens the device again if it goes; and if the command ends without a launcher's
//! having taken it, the socket is closed, and the device with it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};

use crate::cli::OpenArgs;
use crate::uplink::afxdp::{self, AfXdpError};
use crate::uplink::handed;

/// The descriptor of the first device: those before are for input, output and errors.
const FIRST: i32 = 3;

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error(transparent)]
    Device(#[from] AfXdpError),
    #[error("what was opened can't be handed over: {0}")]
    HandOver(io::Error),
    #[error("{} can't be run: {source}", command.display())]
    Command { command: OsString, source: io::Error },
}

/// Opens the devices and becomes the command; returns only if that fails.
pub fn run(args: &OpenArgs) -> OpenError {
    let devices = args.devices.iter().zip(FIRST..);
    let opened = devices.map(|(device, child_fd)| {
        let (opened, descriptors) = afxdp::open(device)?;
        Ok(FdMapping { parent_fd: handed::pack(&opened, &descriptors).map_err(OpenError::HandOver)?, child_fd })
    });
    let mappings: Vec<FdMapping> = match opened.collect() {
        Ok(mappings) => mappings,
        Err(error) => return error,
    };
    let [program, arguments @ ..] = &args.command[..] else { unreachable!("clap asks for a command") };
    let mut command = Command::new(program);
    match command.args(arguments).fd_mappings(mappings) {
        Ok(command) => OpenError::Command { command: program.clone(), source: command.exec() },
        Err(error) => OpenError::HandOver(io::Error::other(error)),
    }
}

//! Devices that another process opened, `vswitch open` ([`crate::open`]), so that the launcher needs no privilege.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use super::{Leg, Opened, sys};
use crate::config::Handed;
use crate::launcher::channel::Channel;

/// The descriptors that this process was started with, behind input, output and errors.
#[derive(Debug, Default)]
pub struct Inherited {
    numbers: Vec<i32>,
    /// What was found in them and not taken yet.
    found: HashMap<i32, (Opened, Vec<OwnedFd>)>,
}

/// Why there is no device in a descriptor.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum HandedError {
    #[error("fd={0}: vswitch was not started with a descriptor of this number; start it by `vswitch open`, whose first device is fd=3")]
    NoDescriptor(i32),
    #[error("fd={0}: this descriptor is none that `vswitch open` makes")]
    NotOurs(i32),
    #[error("fd={0}: the device in it was taken already, and is gone or was given up; only a new `vswitch open` can open it again")]
    Taken(i32),
    #[error("fd={descriptor}: its device was opened with {had} queues, and {queues} are wanted; write queues={had}")]
    Queues { descriptor: i32, queues: u16, had: u16 },
    #[error("fd={descriptor}: reading it failed: {source}")]
    System { descriptor: i32, source: io::Error },
}

impl Inherited {
    /// Finds them, and has no program that is started from here inherit them in turn. To be called before anything is opened.
    pub fn find() -> Self {
        // Who can't look has none.
        let numbers = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|number| *number > 2);
        let numbers: Vec<i32> = numbers.collect();
        // The directory itself was among them, and is closed now.
        let numbers = numbers.into_iter().filter(|number| sys::set_close_on_exec(*number).is_ok()).collect();
        Self { numbers, found: HashMap::new() }
    }

    /// Takes the device that lies in a descriptor.
    pub fn take(&mut self, handed: &Handed) -> Result<(Opened, Vec<OwnedFd>), HandedError> {
        let descriptor = handed.descriptor;
        if !self.numbers.contains(&descriptor) {
            return Err(HandedError::NoDescriptor(descriptor));
        }
        let (opened, descriptors) = match self.found.remove(&descriptor) {
            Some(found) => found,
            None => receive(descriptor)?,
        };
        let Leg::AfXdp(layout) = &opened.leg else { return Err(HandedError::NotOurs(descriptor)) };
        if layout.queues() != handed.queues {
            let error = HandedError::Queues { descriptor, queues: handed.queues, had: layout.queues() };
            self.found.insert(descriptor, (opened, descriptors));
            return Err(error);
        }
        Ok((opened, descriptors))
    }
}

/// A socket with a device in it, for a process that is started from here.
pub fn pack(opened: &Opened, descriptors: &[OwnedFd]) -> io::Result<OwnedFd> {
    let (near, far) = Channel::pair()?;
    near.send(opened, descriptors)?;
    Ok(far)
}

fn receive(descriptor: i32) -> Result<(Opened, Vec<OwnedFd>), HandedError> {
    let failed = |source| HandedError::System { descriptor, source };
    let socket = sys::duplicate(descriptor).map_err(failed)?;
    let is_ours = socket_domain(&socket) == Ok(AddressFamily::UNIX) && socket_type(&socket) == Ok(SocketType::SEQPACKET);
    if !is_ours {
        return Err(HandedError::NotOurs(descriptor));
    }
    match Channel::from_socket(socket).receive() {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(HandedError::NotOurs(descriptor)),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::UnexpectedEof => HandedError::Taken(descriptor),
            io::ErrorKind::InvalidData => HandedError::NotOurs(descriptor),
            _ => failed(error),
        }),
    }
}

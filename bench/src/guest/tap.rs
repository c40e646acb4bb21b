//! A tap: the classical way from a guest to the kernel's bridge, one system call for each frame, as QEMU's tap back end does it.

use std::fs::File;
use std::io;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_tap::{Iface, Mode};

use super::End;
use crate::memory::Memory;

/// The room for a frame.
const ROOM: usize = 2048;

/// The end of a tap that a guest's back end has.
#[derive(Debug)]
pub struct Tap {
    tap: Iface,
    /// The frame to be sent, and behind it the one that was received.
    memory: Memory,
    len: usize,
}

impl Tap {
    /// Attaches to the tap `name` that sends `frame`. The calling thread moves into the network namespace.
    ///
    /// # Errors
    ///
    /// There is no such tap, or this user may not attach to it.
    pub fn attach(namespace: &File, name: &str, frame: &[u8]) -> io::Result<Self> {
        move_into_link_name_space(rustix::fd::AsFd::as_fd(namespace), Some(LinkNameSpaceType::Network))?;
        let tap = Iface::without_packet_info(name, Mode::Tap)?;
        tap.set_non_blocking()?;
        let memory = Memory::new(2 * ROOM)?;
        memory.write(0, frame);
        Ok(Self { tap, memory, len: frame.len() })
    }
}

impl End for Tap {
    fn send(&mut self, want: usize, mut vary: impl FnMut(&Memory, usize)) -> usize {
        for sent in 0..want {
            vary(&self.memory, 0);
            if self.tap.send(self.memory.bytes(0, self.len)).is_err() {
                return sent;
            }
        }
        want
    }

    fn receive(&mut self, max: usize, mut take: impl FnMut(&Memory, usize, usize)) -> usize {
        for received in 0..max {
            match self.tap.recv(self.memory.bytes(ROOM, ROOM)) {
                Ok(len) => take(&self.memory, ROOM, len),
                Err(_) => return received,
            }
        }
        max
    }
}

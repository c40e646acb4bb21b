//! The XDP program that decides which frames are the switch's.
//!
//! It is a handful of instructions, so they are written down here, and no C tool-chain is needed. A frame that it takes goes to the AF_XDP socket of
//! the queue that it came in through; one of a queue without a socket goes on to the host, as do all frames that are not the switch's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::sys;
use crate::config::Steal;

/// `XDP_PASS`: the frame goes on to the host.
const PASS: i32 = 2;
/// `bpf_redirect_map`: fails into the action in its flags where the map has no entry.
const REDIRECT_MAP: i32 = 51;
/// Where `struct xdp_md` has the frame's beginning and end, and its queue.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const QUEUE: i16 = 16;

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug)]
struct Insn {
    code: u8,
    dst: u8,
    src: u8,
    offset: i16,
    immediate: i32,
}

impl Insn {
    const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Self {
        Self { code, dst, src, offset, immediate }
    }

    fn encode(self) -> u64 {
        let [low, high] = self.offset.to_ne_bytes();
        let registers = if cfg!(target_endian = "little") { self.src << 4 | self.dst } else { self.dst << 4 | self.src };
        let [a, b, c, d] = self.immediate.to_ne_bytes();
        u64::from_ne_bytes([self.code, registers, low, high, a, b, c, d])
    }
}

/// dst = *(u32 *)(src + offset)
const fn load_word(dst: u8, src: u8, offset: i16) -> Insn {
    Insn::new(0x61, dst, src, offset, 0)
}

/// dst = *(u16 *)(src + offset)
const fn load_half(dst: u8, src: u8, offset: i16) -> Insn {
    Insn::new(0x69, dst, src, offset, 0)
}

/// dst = immediate
const fn set(dst: u8, immediate: i32) -> Insn {
    Insn::new(0xb7, dst, 0, 0, immediate)
}

const EXIT: Insn = Insn::new(0x95, 0, 0, 0, 0);

/// Goes to the socket of the frame's queue. Expects the context in register 1.
fn redirect(map: i32) -> [Insn; 6] {
    [
        load_word(2, 1, QUEUE),
        // r1 = the map with this descriptor, a constant of 64 bits.
        Insn::new(0x18, 1, 1, 0, map),
        Insn::new(0, 0, 0, 0, 0),
        set(3, PASS),
        Insn::new(0x85, 0, 0, 0, REDIRECT_MAP),
        EXIT,
    ]
}

/// Passes a frame on to the host unless it is for `address`.
fn only_for(address: [u8; 6], rest: usize) -> Vec<Insn> {
    let [a, b, c, d, e, f] = address;
    // From the instruction at this place to the one behind `redirect`.
    let to_pass = |at: i16| 9 + rest as i16 - at - 1;
    vec![
        load_word(4, 1, DATA),
        load_word(5, 1, DATA_END),
        // r3 = r4 + 6: if that is beyond the end, there is no address.
        Insn::new(0xbf, 3, 4, 0, 0),
        Insn::new(0x07, 3, 0, 0, 6),
        Insn::new(0x2d, 3, 5, to_pass(4), 0),
        load_word(3, 4, 0),
        // Compared as 32 bits, else the immediate would be extended by its sign.
        Insn::new(0x56, 3, 0, to_pass(6), i32::from_ne_bytes([a, b, c, d])),
        load_half(3, 4, 4),
        Insn::new(0x55, 3, 0, to_pass(8), i32::from(u16::from_ne_bytes([e, f]))),
    ]
}

/// The program's instructions, given the descriptor of its map. `None` if nothing is to be taken.
fn instructions(steal: Steal, map: i32) -> Option<Vec<u64>> {
    let redirect = redirect(map);
    let all: Vec<Insn> = match steal {
        Steal::None => return None,
        Steal::All => redirect.to_vec(),
        Steal::Address(address) => [&only_for(address, redirect.len())[..], &redirect, &[set(0, PASS), EXIT]].concat(),
    };
    Some(all.into_iter().map(Insn::encode).collect())
}

/// Loads the program, with the map that it finds the sockets in. `None` if nothing is to be taken.
pub fn load(steal: Steal, map: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    instructions(steal, map.as_raw_fd()).map(|instructions| sys::load_xdp(&instructions)).transpose()
}

//! System calls that no library of ours makes: bpf(2), and options of AF_XDP sockets. With [`super::memory`], the
//! rooms for `unsafe` of this module.
//!
//! Each call gets a structure that is laid out as the kernel's header has it, with pointers to what lives at least as long as the call.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// bpf(2)'s commands (`enum bpf_cmd`).
const MAP_CREATE: c_int = 0;
const MAP_UPDATE_ELEM: c_int = 2;
const PROG_LOAD: c_int = 5;
const LINK_CREATE: c_int = 28;

const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
/// The program is content with frames in several pieces.
const XDP_HAS_FRAGS: u32 = 1 << 5;

/// Attach to the driver's receive path.
pub const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Attach behind it, where any device has it.
pub const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;

const SOL_XDP: c_int = 283;
/// How many frames one system call may send; since Linux 6.17.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

/// Calls bpf(2), and takes the descriptor that it returns, or zero.
fn bpf<T>(command: c_int, attributes: &T) -> io::Result<c_int> {
    // SAFETY: every `T` here is the beginning of `union bpf_attr`, all of its bytes initialised, and what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as c_int) }
}

fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: the kernel has just returned it, to nobody else. (bpf(2)'s descriptors close on exec.)
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes a map from a queue's number to its AF_XDP socket.
pub fn create_xskmap(entries: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    bpf(MAP_CREATE, &Attributes { map_type: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: entries, map_flags: 0 }).map(owned)
}

/// Puts a socket into such a map. The kernel takes it out again when the socket is closed.
pub fn set_socket(map: &OwnedFd, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let value = socket.as_raw_fd() as u32;
    let attributes =
        Attributes { map: map.as_raw_fd() as u32, padding: 0, key: &raw const queue as u64, value: &raw const value as u64, flags: 0 };
    bpf(MAP_UPDATE_ELEM, &attributes).map(drop)
}

/// Loads an XDP program.
pub fn load_xdp(instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let attributes = Attributes {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: XDP_HAS_FRAGS,
        prog_name: *b"vswitch\0\0\0\0\0\0\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: ATTACH_TYPE_XDP,
    };
    bpf(PROG_LOAD, &attributes).map(owned)
}

/// Attaches a program to a device, for as long as the returned link is open.
pub fn attach_xdp(program: &OwnedFd, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    bpf(LINK_CREATE, &Attributes { prog_fd: program.as_raw_fd() as u32, target_ifindex: ifindex, attach_type: ATTACH_TYPE_XDP, flags })
        .map(owned)
}

fn set_option<T>(socket: BorrowedFd<'_>, level: c_int, option: c_int, value: T) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as `T` has, all of them initialised.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size_of::<T>() as libc::socklen_t) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Allows a system call to send so many frames in copy mode. Kernels before 6.17 send 32.
pub fn set_send_budget(socket: BorrowedFd<'_>, frames: u32) -> io::Result<()> {
    set_option(socket, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames)
}

/// Has the device's work done in the system calls of this socket, up to `budget` frames each, rather than by interrupts.
pub fn set_busy_poll(socket: BorrowedFd<'_>, micros: c_int, budget: c_int) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 1i32)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, micros)?;
    set_option(socket, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, budget)
}

/// A socket that keeps a device promiscuous, so that frames for guests' addresses come in, and takes no frames itself.
pub fn keep_promiscuous(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = owned(socket);
    let member = libc::packet_mreq {
        mr_ifindex: ifindex as c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, member)?;
    Ok(socket)
}

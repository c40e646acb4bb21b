//! System calls on network devices that rustix does not have, and on descriptors that go by their number: the one room for `unsafe` of taps, and of what all
//! devices have in common.
//!
//! Each function is safe to call with any arguments: the kernel checks descriptors and names, and every pointer that it gets is to memory of ours that is as
//! large as the request says - or, for what [`write_frame`] reads, as large as a [`Segment`] promises.

use std::ffi::{c_int, c_short, c_uint};
use std::io;
use std::iter::once;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use datapath::memory::Segment;
use libc::{ifreq, iovec};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::config::DeviceName;

/// The most pieces of a frame that one system call takes (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

const ETHTOOL_GDRVINFO: u32 = 0x3;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GLINKSETTINGS: u32 = 0x4c;
/// In a device's flags: it takes VLAN tags out of what it receives.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
/// `SPEED_UNKNOWN`.
const SPEED_UNKNOWN: u32 = u32::MAX;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u32; 16],
}

/// `struct ethtool_link_settings` with room for the most masks that it can have.
#[repr(C)]
struct LinkSettings {
    command: u32,
    /// In Mbit/s.
    speed: u32,
    others: [u8; 7],
    /// How many words each of three masks has; asked with another number, the kernel answers with the right one, negative.
    mask_words: i8,
    reserved: [u32; 8],
    masks: [u32; 3 * 127],
}

/// `struct ethtool_channels`.
#[repr(C)]
struct Channels {
    command: u32,
    most: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    value: u32,
}

fn request(name: &DeviceName) -> ifreq {
    // SAFETY: an `ifreq` is bytes, for which zero is a value; the name is shorter than its place, so a zero ends it.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *place = byte as _;
    }
    request
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An ioctl of a socket about a device. `request` is filled by the kernel.
fn about(socket: impl AsFd, number: libc::Ioctl, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: the kernel reads and writes one `ifreq`, and nothing beyond it but where it was told to (`ethtool`).
    checked(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), number, request as *mut ifreq) }).map(drop)
}

/// Has the driver of a device fill `settings`, which begins with the command.
///
/// # Safety
///
/// The command must be one that writes no more than a `T`.
unsafe fn ethtool<T>(socket: impl AsFd, name: &DeviceName, settings: &mut T) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (settings as *mut T).cast();
    about(socket, libc::SIOCETHTOOL, &mut request)
}

/// Has a descriptor that this process was started with closed in programs that it starts. Fails if there is none of this number.
pub fn set_close_on_exec(number: i32) -> io::Result<()> {
    // SAFETY: used in this call alone, which fails if there is no such descriptor. Nobody closes it meanwhile: nobody owns what a process was started with.
    Ok(fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC)?)
}

/// A descriptor of our own for what this process was started with.
pub fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: as above.
    Ok(fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(number) }, 0)?)
}

/// The number of a device. Any socket of its network namespace will do, here and below.
pub fn index(socket: impl AsFd, name: &DeviceName) -> io::Result<u32> {
    let mut request = request(name);
    about(socket, libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: the kernel has written this field.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
}

/// The driver of a device, and what bus it says that it is on.
pub fn driver(socket: impl AsFd, name: &DeviceName) -> io::Result<(String, String)> {
    let nothing = [0; 32];
    let mut info =
        DriverInfo { command: ETHTOOL_GDRVINFO, driver: nothing, version: nothing, firmware: nothing, bus: nothing, rest: [0; 16] };
    // SAFETY: the command writes a `struct ethtool_drvinfo`, which is no longer than this.
    unsafe { ethtool(socket, name, &mut info) }?;
    let text = |bytes: &[u8]| bytes.split(|byte| *byte == 0).next().map(|text| String::from_utf8_lossy(text).into_owned());
    Ok((text(&info.driver).unwrap_or_default(), text(&info.bus).unwrap_or_default()))
}

/// The speed of a device in Mbit/s, if its driver knows one.
pub fn speed(socket: impl AsFd, name: &DeviceName) -> Option<u32> {
    let mut settings =
        LinkSettings { command: ETHTOOL_GLINKSETTINGS, speed: 0, others: [0; 7], mask_words: 0, reserved: [0; 8], masks: [0; 3 * 127] };
    for _ in 0..2 {
        // SAFETY: the command writes the fixed fields, and three masks of as many words as we say that there are, 127 at most.
        unsafe { ethtool(&socket, name, &mut settings) }.ok()?;
        if settings.mask_words >= 0 {
            break;
        }
        settings.command = ETHTOOL_GLINKSETTINGS;
        settings.mask_words = settings.mask_words.checked_neg()?;
    }
    Some(settings.speed).filter(|speed| !matches!(*speed, 0 | SPEED_UNKNOWN))
}

/// The most bytes behind the Ethernet header of a frame.
pub fn mtu(socket: impl AsFd, name: &DeviceName) -> io::Result<u32> {
    let mut request = request(name);
    about(socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the kernel has written this field.
    Ok(unsafe { request.ifr_ifru.ifru_mtu }.max(0) as u32)
}

/// How many receive and transmit queues a device has in use.
pub fn queue_counts(socket: impl AsFd, name: &DeviceName) -> io::Result<(u32, u32)> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, most: [0; 4], rx: 0, tx: 0, other: 0, combined: 0 };
    // SAFETY: the command writes a `struct ethtool_channels`, which is what this is.
    unsafe { ethtool(socket, name, &mut channels) }?;
    Ok((channels.rx.saturating_add(channels.combined), channels.tx.saturating_add(channels.combined)))
}

/// Has a device leave VLAN tags in the frames that it receives.
pub fn keep_vlan_tags(socket: impl AsFd, name: &DeviceName) -> io::Result<()> {
    let mut flags = Value { command: ETHTOOL_GFLAGS, value: 0 };
    // SAFETY: the command writes a `struct ethtool_value`, which is what this is.
    unsafe { ethtool(&socket, name, &mut flags) }?;
    if flags.value & ETH_FLAG_RXVLAN == 0 {
        return Ok(());
    }
    flags = Value { command: ETHTOOL_SFLAGS, value: flags.value & !ETH_FLAG_RXVLAN };
    // SAFETY: the command reads a `struct ethtool_value`.
    unsafe { ethtool(socket, name, &mut flags) }
}

/// Changes the MTU of a device.
pub fn set_mtu(socket: impl AsFd, name: &DeviceName, mtu: u16) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_mtu = mtu.into();
    about(socket, libc::SIOCSIFMTU, &mut request)
}

/// Brings a device up.
pub fn set_up(socket: impl AsFd, name: &DeviceName) -> io::Result<()> {
    let mut request = request(name);
    about(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the kernel has written this field.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as c_short;
    about(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Attaches an open `/dev/net/tun` to a device, which is made if it is not there.
pub fn attach_tun(tun: impl AsFd, name: &DeviceName, flags: c_int) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags as c_short;
    about(tun, libc::TUNSETIFF, &mut request)
}

/// Has an attached device stay when nobody is attached any more.
pub fn set_persistent(tun: impl AsFd) -> io::Result<()> {
    // SAFETY: the argument is a number.
    checked(unsafe { libc::ioctl(tun.as_fd().as_raw_fd(), libc::TUNSETPERSIST, 1) }).map(drop)
}

/// Says which work on frames we take over from the kernel (`TUN_F_*`).
pub fn set_offload(tun: impl AsFd, offload: c_uint) -> io::Result<()> {
    // SAFETY: the argument is a number.
    checked(unsafe { libc::ioctl(tun.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, offload) }).map(drop)
}

/// Sets the length of the header before each frame, and that it is little-endian.
pub fn set_header(tun: impl AsFd, len: usize) -> io::Result<()> {
    let (tun, len, yes) = (tun.as_fd().as_raw_fd(), len as c_int, 1);
    // SAFETY: each request reads one number.
    checked(unsafe { libc::ioctl(tun, libc::TUNSETVNETHDRSZ, &len as *const c_int) })?;
    // SAFETY: likewise.
    checked(unsafe { libc::ioctl(tun, libc::TUNSETVNETLE, &yes as *const c_int) }).map(drop)
}

/// Writes a header and then one frame, of `len` bytes. `room` is kept for its allocations.
pub fn write_frame<'a>(
    tun: impl AsFd,
    header: &[u8],
    mut pieces: impl Iterator<Item = Segment<'a>>,
    len: usize,
    room: &mut Room,
) -> io::Result<()> {
    let Room { pieces: vector, rest } = room;
    vector.clear();
    let entry = |piece: Segment<'_>| iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
    vector.push(entry(Segment::from(header)));
    vector.extend(pieces.by_ref().take(PIECES_MAX - 2).map(entry));
    // A frame that comes in more pieces than one call takes: those that are too many are copied.
    if let Some(first) = pieces.next() {
        rest.resize(len, 0);
        let copied = once(first).chain(pieces).fold(0, |filled, piece| filled + piece.copy_to(&mut rest[filled..]));
        vector.push(entry(Segment::from(&rest[..copied])));
    }
    // SAFETY: the kernel reads as many pieces as there are, and each is readable for `'a`, as its segment promises, or lies in `header` or `rest`; it
    // writes to none of them. That a guest writes meanwhile is nothing to the kernel, which copies.
    let written = unsafe { libc::writev(tun.as_fd().as_raw_fd(), vector.as_ptr(), vector.len() as c_int) };
    vector.clear();
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for the pieces of a frame, empty but within [`write_frame`].
#[derive(Default)]
pub struct Room {
    pieces: Vec<iovec>,
    rest: Vec<u8>,
}

// SAFETY: there are no pointers in it when it changes threads.
unsafe impl Send for Room {}

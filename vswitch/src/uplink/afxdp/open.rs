//! Opening a device for AF_XDP, with the privilege that it takes: done by the launcher.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::xdp::{SocketAddrXdp, SocketAddrXdpFlags as Flags, SocketAddrXdpWithSharedUmem, XdpOptionsFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use rustix::thread::{CapabilitySet, capabilities};

use super::memory::{Rings, Umem};
use super::{How, Layout, chunks, program, sys};
use crate::config::{AfXdp, DeviceName, Steal, XdpMode, ZeroCopy};
use crate::uplink::sys as device_sys;
use crate::uplink::{Leg, Opened};

/// Entries of each ring, and chunks for each direction of a queue: at a million frames a second, two milliseconds.
const RING: u32 = 2048;
/// The size of a chunk: two to a page if a frame of the device fits into half of one, behind the room that the kernel leaves before it.
const CHUNK_SMALL: u32 = 2048;
const CHUNK_LARGE: u32 = 4096;
/// `XDP_PACKET_HEADROOM`.
const HEADROOM: u32 = 256;
/// An Ethernet header with two VLAN tags.
const HEADER: u32 = 22;
/// How long a dying predecessor may hold the device: the kernel closes its sockets some time after it has ended.
const PATIENCE: Duration = Duration::from_millis(200);
/// How many frames one system call may send.
const BUDGET: u32 = RING;

/// How long a look for frames may poll the device, in microseconds, and how many frames it may bring.
const BUSY_MICROS: i32 = 20;
const BUSY_BUDGET: i32 = 64;

/// Why a device can't be opened for AF_XDP.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum AfXdpError {
    #[error("device {0}: there is none of that name; see `ip link`")]
    NoDevice(DeviceName),
    #[error(
        "device {device}: AF_XDP needs {}, which vswitch was started without; grant it: in a systemd unit AmbientCapabilities={}, else setcap \
         {}=ep VSWITCH",
        missing.join(" and "), missing.join(" "), missing.join(",").to_lowercase()
    )]
    NoPrivilege { device: DeviceName, missing: Vec<&'static str> },
    #[error(
        "device {device}: the system refuses {what} though vswitch has the capabilities for it; is it started in a container, or locked down?"
    )]
    Refused { device: DeviceName, what: &'static str },
    #[error(
        "device {device}: it has {had} queues, and {queues} are wanted; write queues={had}, or give it more: ethtool -L {device} combined {queues}"
    )]
    Queues { device: DeviceName, queues: u16, had: u32 },
    #[error(
        "device {0}: it carries an XDP program already; find whose it is with `ip link show {0}` and end that, or detach it: ip link set {0} xdp off"
    )]
    Program(DeviceName),
    #[error("device {0}: one of its queues is in use by another AF_XDP socket; end the process that has it")]
    Busy(DeviceName),
    #[error("device {0}: its driver has no zero-copy, or none for frames of its MTU; leave zero-copy=on out")]
    NoZeroCopy(DeviceName),
    #[error(
        "device {0}: the memory for frames may not be locked; raise the limit (in a systemd unit: LimitMEMLOCK=infinity; else: ulimit -l unlimited)"
    )]
    Locked(DeviceName),
    #[error("device {0}: the kernel has no AF_XDP; it needs Linux 6.6 or later with CONFIG_XDP_SOCKETS")]
    NoAfXdp(DeviceName),
    #[error("device {device}: its MTU can't be set to {mtu}: {source}")]
    Mtu { device: DeviceName, mtu: u16, source: io::Error },
    #[error("device {device}: {what} failed: {source}")]
    System { device: DeviceName, what: &'static str, source: io::Error },
}

/// Opens a device: the memory, a socket for each queue, and what keeps frames coming to them.
pub fn open(wanted: &AfXdp) -> Result<(Opened, Vec<OwnedFd>), AfXdpError> {
    let device = &wanted.device;
    let opening = Opening { wanted };
    let control = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let control = control.map_err(|error| opening.failed("opening a socket", error.into()))?;
    let index = device_sys::index(&control, device).map_err(|_| AfXdpError::NoDevice(device.clone()))?;
    check_privilege(device)?;
    let mut notes = Vec::new();
    opening.check_queues(&control, &mut notes)?;
    if let Some(mtu) = wanted.mtu {
        device_sys::set_mtu(&control, device, mtu).map_err(|source| AfXdpError::Mtu { device: device.clone(), mtu, source })?;
    }
    opening.keep_tags(&control, &mut notes);

    let mtu = device_sys::mtu(&control, device).map_err(|error| opening.failed("asking for its MTU", error))?;
    let fits = |chunk| mtu + HEADER <= chunk - HEADROOM;
    let chunk = if fits(CHUNK_SMALL) { CHUNK_SMALL } else { CHUNK_LARGE };
    let count = chunks(wanted.queues, RING);
    let file = Umem::file(count, chunk).map_err(|error| opening.failed("making memory for frames", error))?;
    let umem = Umem::map(&file, count, chunk).map_err(|error| opening.failed("mapping memory for frames", error))?;
    // First, so that whoever has the device already is named as one who has its frames; as long as there are no sockets in the map, all goes on to the host.
    let map = sys::create_xskmap(wanted.queues.into()).map_err(|error| opening.failed("making a map of sockets", error))?;
    let (link, native) = opening.attach(index, &map, &mut notes)?.unzip();
    let (sockets, pieces) = opening.sockets(&umem, index, fits(chunk))?;
    for (socket, queue) in sockets.iter().zip(0..) {
        sys::set_socket(&map, queue, socket.as_fd()).map_err(|error| opening.failed("entering a socket into the map", error))?;
    }
    let zero_copy = sockopt::xdp_options(&sockets[0]).is_ok_and(|options| options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY));
    if wanted.zero_copy == ZeroCopy::Auto && !zero_copy {
        notes.push("its driver has no zero-copy: the kernel copies each frame once".to_owned());
    }
    if !pieces {
        notes.push(format!(
            "with zero-copy, frames are taken in one piece each: should its MTU be raised beyond {}, delete the port and add it again",
            chunk - HEADROOM - HEADER
        ));
    }

    let promiscuous = match wanted.steal {
        Steal::None => None,
        _ => Some(sys::keep_promiscuous(index).map_err(|error| opening.failed("making it promiscuous", error))?),
    };
    let how = How { native: native.unwrap_or(false), zero_copy };
    let layout = Layout { queues: wanted.queues, ring: RING, chunk, pieces, busy_poll: wanted.busy_poll, how, notes };
    let descriptors = [file].into_iter().chain(sockets).chain(link).chain(promiscuous).collect();
    Ok((Opened { index, leg: Leg::AfXdp(layout) }, descriptors))
}

/// Makes sure that nothing fails later for lack of a capability, so that all are named that are missing.
fn check_privilege(device: &DeviceName) -> Result<(), AfXdpError> {
    let needed = [("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN), ("CAP_NET_RAW", CapabilitySet::NET_RAW), ("CAP_BPF", CapabilitySet::BPF)];
    // If they can't be found out, what fails says so.
    let Ok(has) = capabilities(None) else { return Ok(()) };
    // CAP_SYS_ADMIN is CAP_BPF too.
    let may = |capability| {
        has.effective.contains(capability) || capability == CapabilitySet::BPF && has.effective.contains(CapabilitySet::SYS_ADMIN)
    };
    let missing: Vec<_> = needed.into_iter().filter(|(_, capability)| !may(*capability)).map(|(name, _)| name).collect();
    if missing.is_empty() { Ok(()) } else { Err(AfXdpError::NoPrivilege { device: device.clone(), missing }) }
}

/// What is to be opened.
struct Opening<'a> {
    wanted: &'a AfXdp,
}

impl Opening<'_> {
    fn device(&self) -> DeviceName {
        self.wanted.device.clone()
    }

    fn failed(&self, what: &'static str, source: io::Error) -> AfXdpError {
        let device = self.device();
        match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => AfXdpError::Refused { device, what },
            Some(Errno::NOBUFS) => AfXdpError::Locked(device),
            Some(Errno::NODEV) => AfXdpError::NoDevice(device),
            Some(Errno::AFNOSUPPORT) => AfXdpError::NoAfXdp(device),
            _ => AfXdpError::System { device, what, source },
        }
    }

    /// Whether the device has as many queues as are wanted; a driver that does not say is asked by binding.
    fn check_queues(&self, control: &OwnedFd, notes: &mut Vec<String>) -> Result<(), AfXdpError> {
        let Ok((rx, tx)) = device_sys::queue_counts(control, &self.wanted.device) else { return Ok(()) };
        let queues = self.wanted.queues;
        if rx.min(tx) < queues.into() {
            return Err(AfXdpError::Queues { device: self.device(), queues, had: rx.min(tx) });
        }
        if rx > queues.into() && self.wanted.steal != Steal::None {
            notes.push(format!(
                "it has {rx} receive queues, and frames of all but {queues} go to the host; write queues={rx}, or: ethtool -L {} combined {queues}",
                self.wanted.device
            ));
        }
        Ok(())
    }

    /// Has the device leave VLAN tags in frames: a tag that it takes out is beside the frame, where AF_XDP does not see it.
    fn keep_tags(&self, control: &OwnedFd, notes: &mut Vec<String>) {
        if device_sys::keep_vlan_tags(control, &self.wanted.device).is_err() {
            notes.push(
                "it takes VLAN tags out of frames, and can't be told not to: tagged frames will come in without their tags".to_owned(),
            );
        }
    }

    /// A bound socket for each queue, all over the same memory; and whether frames may come and go in several pieces. If not, they must `fit` into a chunk.
    fn sockets(&self, umem: &Umem, index: u32, fit: bool) -> Result<(Vec<OwnedFd>, bool), AfXdpError> {
        let (mut sockets, mut pieces): (Vec<OwnedFd>, _) = (Vec::new(), true);
        for queue in 0..u32::from(self.wanted.queues) {
            let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
            let socket = socket.map_err(|error| self.failed("opening an AF_XDP socket", error.into()))?;
            if queue == 0 {
                umem.register(&socket).map_err(|error| self.failed("registering memory for frames", error.into()))?;
            }
            Rings::create(&socket, RING).map_err(|error| self.failed("making rings", error.into()))?;
            // Older kernels do not know it.
            let _ = sys::set_send_budget(socket.as_fd(), BUDGET);
            if self.wanted.busy_poll {
                sys::set_busy_poll(socket.as_fd(), BUSY_MICROS, BUSY_BUDGET)
                    .map_err(|error| self.failed("asking for busy polling", error))?;
            }
            let bound = match sockets.first() {
                None => self.bind_first(&socket, index, fit).map(|several| pieces = several),
                Some(first) => patiently(|| {
                    let addr = SocketAddrXdp::new(Flags::XDP_SHARED_UMEM, index, queue);
                    bind(&socket, &SocketAddrXdpWithSharedUmem { addr, shared_umem_fd: first.as_fd() })
                }),
            };
            bound.map_err(|error| self.bind_error(error, queue))?;
            sockets.push(socket);
        }
        Ok((sockets, pieces))
    }

    /// Binds the socket of the first queue, and says whether frames may have several pieces.
    ///
    /// Many drivers have zero-copy for frames in one piece only. For several, the kernel would copy rather than take one piece; so that is tried first, if all frames
    /// fit.
    fn bind_first(&self, socket: &OwnedFd, index: u32, fit: bool) -> Result<bool, Errno> {
        let bind = |flags| patiently(|| bind(socket, &SocketAddrXdp::new(flags | Flags::XDP_USE_NEED_WAKEUP, index, 0)));
        if fit && self.wanted.zero_copy != ZeroCopy::Off {
            match bind(Flags::XDP_ZEROCOPY) {
                Ok(()) => return Ok(false),
                Err(Errno::BUSY) => return Err(Errno::BUSY),
                // What has nothing to do with zero-copy is found again.
                Err(_) => {}
            }
        }
        let copies = match self.wanted.zero_copy {
            // The kernel tries zero-copy first.
            ZeroCopy::Auto => Flags::empty(),
            ZeroCopy::On => Flags::XDP_ZEROCOPY,
            ZeroCopy::Off => Flags::XDP_COPY,
        };
        bind(copies | Flags::XDP_USE_SG).map(|()| true)
    }

    fn bind_error(&self, error: Errno, queue: u32) -> AfXdpError {
        let device = self.device();
        match error {
            Errno::BUSY => AfXdpError::Busy(device),
            Errno::OPNOTSUPP if self.wanted.zero_copy == ZeroCopy::On => AfXdpError::NoZeroCopy(device),
            Errno::INVAL => AfXdpError::Queues { device, queues: self.wanted.queues, had: queue },
            other => self.failed("binding an AF_XDP socket", other.into()),
        }
    }

    /// Has frames come to the sockets in `map`, and says whether they are taken in the driver.
    fn attach(&self, index: u32, map: &OwnedFd, notes: &mut Vec<String>) -> Result<Option<(OwnedFd, bool)>, AfXdpError> {
        let loaded = program::load(self.wanted.steal, map).map_err(|error| self.failed("loading the XDP program", error))?;
        let Some(program) = loaded else { return Ok(None) };
        let attach = |flags| {
            patiently(|| sys::attach_xdp(&program, index, flags).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)))
        };
        if self.wanted.mode == XdpMode::Native {
            match attach(sys::XDP_FLAGS_DRV_MODE) {
                Ok(link) => return Ok(Some((link, true))),
                Err(error @ (Errno::BUSY | Errno::EXIST)) => return Err(self.attach_error(error)),
                Err(Errno::OPNOTSUPP) => {
                    notes.push("its driver has no XDP: frames are taken behind it (mode=generic), which costs more".to_owned())
                }
                Err(error) => {
                    notes.push(format!("its driver refuses XDP ({error}): frames are taken behind it (mode=generic), which costs more"))
                }
            }
        }
        attach(sys::XDP_FLAGS_SKB_MODE).map(|link| Some((link, false))).map_err(|error| self.attach_error(error))
    }

    fn attach_error(&self, error: Errno) -> AfXdpError {
        match error {
            Errno::BUSY | Errno::EXIST => AfXdpError::Program(self.device()),
            other => self.failed("attaching the XDP program", other.into()),
        }
    }
}

/// Tries again for a while as long as somebody else, who may be dying, has what is wanted.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(Errno::BUSY | Errno::EXIST) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}

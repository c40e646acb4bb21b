//! Opening a tap, with the privilege that it takes: done by the launcher.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use libc::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};
use vhost_backend::offload::Header;

use super::super::sys;
use super::super::{Leg, Opened};
use crate::config::{DeviceName, Tap};

const TUN: &str = "/dev/net/tun";

/// What a tap can do besides carrying frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// The kernel takes and gives UDP segments to be (USO); from Linux 6.2 on.
    pub udp_segmentation: bool,
}

/// Why a tap can't be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TapError {
    #[error("tap {name}: the kernel has no taps ({TUN}: {source}); load the module tun")]
    NoTun { name: DeviceName, source: io::Error },
    #[error(
        "tap {0}: this needs the capability CAP_NET_ADMIN; grant it (in a systemd unit: AmbientCapabilities=CAP_NET_ADMIN; else: setcap cap_net_admin+ep \
         VSWITCH), or have root make the tap for you: ip tuntap add {0} mode tap vnet_hdr user $USER"
    )]
    NoPrivilege(DeviceName),
    #[error("tap {name}: a device of that name exists and is no tap, but {what}; choose another name")]
    NotATap { name: DeviceName, what: String },
    #[error("tap {0}: another process has it open; end that process or choose another name")]
    Busy(DeviceName),
    #[error("tap {name}: it exists with one queue, and {queues} are wanted; delete it (ip link del {name}), or leave queues={queues} out")]
    OneQueue { name: DeviceName, queues: u16 },
    #[error("tap {name}: the kernel has no more queues for it than {had}, and {queues} are wanted; ask for fewer with queues=N")]
    Queues { name: DeviceName, queues: u16, had: usize },
    #[error("tap {name}: its MTU can't be set to {mtu}: {source}")]
    Mtu { name: DeviceName, mtu: u16, source: io::Error },
    #[error("tap {name}: {what} failed: {source}")]
    System { name: DeviceName, what: &'static str, source: io::Error },
}

/// Opens the tap: one descriptor for each queue. A tap that was not there is made and brought up; one that was there stays as it is, but for what
/// is asked for.
pub fn open(tap: &Tap) -> Result<(Opened, Vec<OwnedFd>), TapError> {
    let name = &tap.name;
    let system = |what| move |source| TapError::System { name: name.clone(), what, source };
    let control = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let control = control.map_err(io::Error::from).map_err(system("opening a socket"))?;
    let existed = sys::index(&control, name).is_ok();
    if existed {
        check_kind(&control, name)?;
    }

    let mut queues = vec![first_queue(tap, existed)?];
    for _ in 1..tap.queues {
        let tun = open_tun(name)?;
        match sys::attach_tun(&tun, name, FLAGS | IFF_MULTI_QUEUE) {
            Ok(()) => queues.push(tun),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => {
                return Err(TapError::Queues { name: name.clone(), queues: tap.queues, had: queues.len() });
            }
            Err(error) => return Err(attach_error(tap, error)),
        }
    }
    let tun = &queues[0];
    sys::set_header(tun, Header::LEN).map_err(system("setting the header"))?;
    let basic = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let udp_segmentation = sys::set_offload(tun, basic | TUN_F_USO4 | TUN_F_USO6).is_ok();
    if !udp_segmentation {
        sys::set_offload(tun, basic).map_err(system("setting offloads"))?;
    }
    if tap.persistent {
        sys::set_persistent(tun).map_err(system("making it persistent"))?;
    }
    if let Some(mtu) = tap.mtu {
        sys::set_mtu(&control, name, mtu).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => TapError::NoPrivilege(name.clone()),
            _ => TapError::Mtu { name: name.clone(), mtu, source },
        })?;
    }
    if !existed {
        sys::set_up(&control, name).map_err(system("bringing it up"))?;
    }
    let index = sys::index(&control, name).map_err(system("finding it"))?;
    Ok((Opened { index, leg: Leg::Tap(Abilities { udp_segmentation }) }, queues))
}

const FLAGS: c_int = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

/// Attaches the first queue. One that is to be the only one is made without the flag for several, which costs the kernel time for each frame; but
/// a tap that exists with that flag is taken all the same.
fn first_queue(tap: &Tap, existed: bool) -> Result<OwnedFd, TapError> {
    let tun = open_tun(&tap.name)?;
    let flags = if tap.queues > 1 { FLAGS | IFF_MULTI_QUEUE } else { FLAGS };
    let invalid = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    let attached = match sys::attach_tun(&tun, &tap.name, flags) {
        Err(error) if existed && tap.queues == 1 && invalid(&error) => sys::attach_tun(&tun, &tap.name, FLAGS | IFF_MULTI_QUEUE),
        Err(error) if existed && invalid(&error) => return Err(TapError::OneQueue { name: tap.name.clone(), queues: tap.queues }),
        attached => attached,
    };
    attached.map(|()| tun).map_err(|error| attach_error(tap, error))
}

fn attach_error(tap: &Tap, source: io::Error) -> TapError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TapError::NoPrivilege(tap.name.clone()),
        Some(libc::EBUSY) => TapError::Busy(tap.name.clone()),
        _ => TapError::System { name: tap.name.clone(), what: "attaching to it", source },
    }
}

fn open_tun(name: &DeviceName) -> Result<OwnedFd, TapError> {
    rustix::fs::open(TUN, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => TapError::NoPrivilege(name.clone()),
        other => TapError::NoTun { name: name.clone(), source: other.into() },
    })
}

/// Makes sure that an existing device is a tap.
fn check_kind(control: impl AsFd, name: &DeviceName) -> Result<(), TapError> {
    let what = match sys::driver(control, name) {
        Ok((driver, bus)) if driver == "tun" && bus == "tap" => return Ok(()),
        Ok((driver, _)) if driver == "tun" => "a tun, which carries no Ethernet frames".to_owned(),
        Ok((driver, _)) => format!("of the kind {driver}"),
        Err(_) => "of another kind".to_owned(),
    };
    Err(TapError::NotATap { name: name.clone(), what })
}

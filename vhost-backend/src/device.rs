//! The negotiated state of one virtio-net device: what the front end has said, and which rings run because of it.
//!
//! A ring *runs* while it lies in its [`crate::slot::Slot`], where a worker finds it. It is put there as soon as all is known that it takes (its size,
//! its addresses in mapped memory, the features, and the kick with which vhost-user starts a ring), and taken back before anything of that
//! changes or goes away: GET_VRING_BASE, a change of the memory, RESET_DEVICE, a status of zero, the end of the connection. Enabling is another
//! matter: a disabled ring that runs discards, and no frame is sent to it.
//!
//! **Where a ring resumes.** The front end says where to go on in the available ring (SET_VRING_BASE), and the guest's memory says how much
//! was completed (the used index). Rings are served in order here, and every completion is published before the next chain is taken, so the two
//! are the same number whenever a ring was stopped in peace. They differ only if somebody lost track, and then the used index is right, since
//! that is what the driver goes by: starting later would lose the chains between, starting earlier would complete them twice. So a ring resumes
//! from the used index, as DPDK's and QEMU's own back ends do. After the switch was killed, QEMU finds no answer to GET_VRING_BASE, takes the used
//! index itself and sends it with the next connection; frames that the dead switch had forwarded without completing them are forwarded again, at most
//! one batch, and no completion is lost or doubled. Interrupts and kicks may have been lost with the dead process, so a ring that starts notifies
//! its driver once, and is to be served once.
//!
//! Descriptors from a front end are written to by workers, so only an eventfd is taken for one, and made non-blocking: a socket or a pipe could block
//! its writer. *What remains:* the front end shares the eventfd, and one that turns it back to blocking and fills it blocks the worker's next
//! notification, until it is read. A guest can't do that; a hostile front end can.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, OFlags};
use tracing::{debug, warn};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::*;
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use crate::features::{self, OFFERED, OFFERED_PROTOCOL};
use crate::memory::{MAX_REGIONS, Memory, RingAddresses};
use crate::port::{Events, Settings};
use crate::queue::Queues;
use crate::ring::{RingError, RingSetup};
use crate::rx::RxRing;
use crate::tx::TxRing;

/// The range of MTUs that virtio allows (virtio 1.2, 5.1.4).
const MTU: std::ops::RangeInclusive<u64> = 68..=65_535;

/// The device behind one port, over all its connections.
pub(crate) struct Device {
    settings: Settings,
    queues: Arc<Queues>,
    events: Box<dyn Events>,
    /// What the front end acknowledged, once it has.
    features: Option<u64>,
    protocol_features: u64,
    status: u8,
    /// The MTU that the front end tells the guest.
    mtu: Option<u16>,
    memory: Arc<Memory>,
    /// In virtio's order: the even ones are filled here for the guest to receive, the odd ones hold what the guest sends.
    vrings: Box<[Vring]>,
    link_up: bool,
}

/// What the front end said of one ring.
#[derive(Default)]
struct Vring {
    size: Option<u16>,
    addresses: Option<RingAddresses>,
    base: u16,
    /// SET_VRING_KICK has come, with a descriptor or without.
    kicked: bool,
    kick: Option<Arc<OwnedFd>>,
    call: Option<File>,
    error: Option<File>,
    enabled: bool,
    running: bool,
}

impl Device {
    /// The device of a port without a connection.
    pub fn new(settings: Settings, queues: Arc<Queues>, events: Box<dyn Events>) -> Self {
        let vrings = (0..2 * queues.len()).map(|_| Vring::default()).collect();
        Self {
            settings,
            queues,
            events,
            features: None,
            protocol_features: 0,
            status: 0,
            mtu: None,
            memory: Arc::default(),
            vrings,
            link_up: false,
        }
    }

    /// Whether the guest can receive frames.
    pub fn is_link_up(&self) -> bool {
        self.link_up
    }

    /// Forgets all that a front end said, and takes all rings back.
    pub fn disconnect(&mut self) {
        self.stop_all();
        self.vrings.fill_with(Vring::default);
        self.memory = Arc::default();
        self.features = None;
        self.protocol_features = 0;
        self.status = 0;
        self.mtu = None;
        self.show();
    }

    /// SEND_RARP.
    pub fn announce(&mut self, mac: [u8; 6]) -> Result<()> {
        self.check_negotiated(VhostUserProtocolFeatures::RARP)?;
        self.events.announce(mac);
        Ok(())
    }

    /// NET_SET_MTU.
    pub fn set_mtu(&mut self, mtu: u64) -> Result<()> {
        self.check_negotiated(VhostUserProtocolFeatures::MTU)?;
        if !MTU.contains(&mtu) {
            return refuse(format!("an MTU of {mtu} is outside of {} to {}", MTU.start(), MTU.end()));
        }
        self.mtu = Some(mtu as u16);
        for pair in 0..self.queues.len() {
            self.queues.pair(pair).tx.update(|ring| ring.set_mtu(self.tx_mtu()));
        }
        Ok(())
    }

    /// SET_STATUS: virtio's device status. Zero resets the device.
    pub fn set_status(&mut self, status: u64) -> Result<()> {
        self.check_negotiated(VhostUserProtocolFeatures::STATUS)?;
        self.status = u8::try_from(status).or_else(|_| refuse(format!("a device status has eight bits, and {status:#x} has more")))?;
        if self.status == 0 {
            for index in 0..self.vrings.len() {
                self.stop(index);
                self.vrings[index].kicked = false;
                self.vrings[index].kick = None;
            }
            self.show();
        }
        Ok(())
    }

    /// GET_STATUS.
    pub fn status(&self) -> Result<u64> {
        self.check_negotiated(VhostUserProtocolFeatures::STATUS)?;
        Ok(self.status.into())
    }

    /// Whether messages that ask for it are acknowledged.
    pub fn acknowledges(&self) -> bool {
        self.check_negotiated(VhostUserProtocolFeatures::REPLY_ACK).is_ok()
    }

    fn check_negotiated(&self, feature: VhostUserProtocolFeatures) -> Result<()> {
        if self.protocol_features & feature.bits() != 0 { Ok(()) } else { Err(Error::InactiveOperation(feature)) }
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        let count = self.vrings.len();
        match self.vrings.get_mut(index as usize) {
            Some(vring) => Ok(vring),
            None => {
                refuse(format!("there is no ring {index}: the port has {count}, give it more queue pairs (queues=N) or the guest fewer"))
            }
        }
    }

    /// Whether frames may pass. Without vhost-user's protocol features there is no enabling: then all rings are.
    fn is_enabled(&self, index: usize) -> bool {
        self.vrings[index].enabled || self.features.is_some_and(|features| !features::has(features, features::PROTOCOL_FEATURES))
    }

    /// The longest packet for the guest: the operator and the front end may both have set a limit.
    fn tx_mtu(&self) -> Option<u16> {
        self.settings.mtu.into_iter().chain(self.mtu).min()
    }

    /// Changes what is known of a ring, while it does not run.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Vring)) -> Result<()> {
        self.vring(index)?;
        let at = index as usize;
        self.stop(at);
        change(&mut self.vrings[at]);
        self.start(at);
        self.show();
        Ok(())
    }

    /// Changes the memory. Unmapping what is gone takes its time, and comes last.
    fn change_memory(&mut self, memory: Memory) {
        let old = std::mem::replace(&mut self.memory, Arc::new(memory));
        self.restart_all();
        drop(old);
    }

    /// Takes all rings back, and puts those that can run in place anew.
    fn restart_all(&mut self) {
        self.stop_all();
        (0..self.vrings.len()).for_each(|index| self.start(index));
        self.show();
    }

    fn stop_all(&mut self) {
        (0..self.vrings.len()).for_each(|index| self.stop(index));
    }

    /// Puts a ring where a worker finds it, if all is known that it takes. A ring that can't be served does not run, and its front end is told.
    fn start(&mut self, index: usize) {
        let vring = &self.vrings[index];
        let (Some(size), Some(addresses), Some(features), true) = (vring.size, vring.addresses, self.features, vring.kicked) else {
            return;
        };
        let place = self.queues.pair(index / 2);
        let setup = || -> std::result::Result<_, StartError> {
            Ok(RingSetup {
                name: ring_name(&self.settings.name, index),
                memory: self.memory.clone(),
                size,
                addresses,
                next: vring.base,
                features,
                call: vring.call.as_ref().map(File::try_clone).transpose()?,
                error: vring.error.as_ref().map(File::try_clone).transpose()?,
                breaks: self.queues.breaks.clone(),
            })
        };
        let started = setup().and_then(|setup| {
            if is_rx(index) {
                place.rx.put(RxRing::start(setup, self.settings.number)?);
            } else {
                place.tx.put(TxRing::start(setup, self.tx_mtu())?);
            }
            Ok(())
        });
        match started {
            Ok(()) => {
                self.vrings[index].running = true;
                if is_rx(index) {
                    self.events.rx_started(index / 2, self.vrings[index].kick.clone());
                }
            }
            Err(error) => {
                warn!(port = ring_name(&self.settings.name, index), "can't be served: {error}");
                if let Some(mut fd) = vring.error.as_ref() {
                    // The front end that gave it may have left it full, or closed.
                    let _ = fd.write(&1u64.to_ne_bytes());
                }
            }
        }
    }

    /// Takes a ring back, if it runs: no worker touches the memory it lies in when this returns.
    fn stop(&mut self, index: usize) {
        let vring = &mut self.vrings[index];
        if !std::mem::take(&mut vring.running) {
            return;
        }
        let place = self.queues.pair(index / 2);
        if is_rx(index) {
            vring.base = place.rx.take().map_or(vring.base, |ring| ring.next());
            self.events.rx_stopped(index / 2);
        } else {
            vring.base = place.tx.take().map_or(vring.base, |ring| ring.next());
        }
    }

    /// Shows the workers which queues may be used, and the owner whether the guest can receive.
    fn show(&mut self) {
        for index in 0..self.queues.len() {
            self.queues.pair(index).rx_enabled.store(self.is_enabled(2 * index + 1), Ordering::Relaxed);
        }
        let active = (0..self.queues.len()).filter(|pair| self.vrings[2 * pair].running && self.is_enabled(2 * pair));
        let up = self.queues.set_active(active) > 0;
        if up != std::mem::replace(&mut self.link_up, up) {
            self.events.link(up);
        }
    }
}

/// Why a ring could not be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("its eventfds can't be duplicated: {0}")]
    Eventfd(#[from] io::Error),
}

/// Whether a ring holds what the guest sends.
fn is_rx(index: usize) -> bool {
    index % 2 == 1
}

fn ring_name(port: &str, index: usize) -> String {
    format!("{port} {} queue {}", if is_rx(index) { "rx" } else { "tx" }, index / 2)
}

/// A refusal of a message, which ends the connection.
fn refuse<T>(why: String) -> Result<T> {
    Err(Error::ReqHandlerError(io::Error::other(why)))
}

/// Passes on what is an eventfd, that is, has no file type and can be written to; and makes it non-blocking, for whoever writes to it.
fn eventfd(file: Option<File>) -> Result<Option<File>> {
    let Some(file) = file else { return Ok(None) };
    let prepare = || -> io::Result<FileType> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? | OFlags::NONBLOCK)?;
        Ok(kind)
    };
    match prepare() {
        Ok(FileType::Unknown) => Ok(Some(file)),
        Ok(other) => refuse(format!("a ring is notified by an eventfd, and the descriptor given is a {other:?}")),
        Err(error) => Err(Error::ReqHandlerError(error)),
    }
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    /// Has no meaning any more; the specification recommends to ignore it.
    fn reset_owner(&mut self) -> Result<()> {
        Ok(())
    }

    /// Back to the state after connecting, except for what front ends say once only: the memory, the protocol features, the notifiers.
    fn reset_device(&mut self) -> Result<()> {
        self.stop_all();
        for vring in &mut self.vrings {
            *vring = Vring { call: vring.call.take(), error: vring.error.take(), ..Vring::default() };
        }
        self.features = None;
        self.status = 0;
        self.show();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(OFFERED)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !OFFERED != 0 {
            return refuse(format!("features {:#x} were not offered", features & !OFFERED));
        }
        // QEMU repeats itself for every queue pair, while the first pairs run.
        if self.features != Some(features) {
            debug!(port = self.settings.name, "features {features:#x}");
            self.features = Some(features);
            self.restart_all();
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(OFFERED_PROTOCOL)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !OFFERED_PROTOCOL.bits();
        if unknown != 0 {
            return refuse(format!("protocol features {unknown:#x} were not offered"));
        }
        self.protocol_features = features;
        Ok(())
    }

    /// In queue pairs, as QEMU and DPDK count for virtio-net.
    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queues.len() as u64)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let mut memory = Memory::new();
        for (region, file) in regions.iter().zip(files) {
            memory = memory.with(region.into(), file).or_else(|error| refuse(error.to_string()))?;
        }
        self.change_memory(memory);
        Ok(None)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        let region: &VhostUserMemoryRegion = region;
        let memory = self.memory.with(region.into(), file).or_else(|error| refuse(error.to_string()))?;
        self.change_memory(memory);
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let region: &VhostUserMemoryRegion = region;
        let memory = self.memory.without(region.into()).or_else(|error| refuse(error.to_string()))?;
        self.change_memory(memory);
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        match u16::try_from(size) {
            Ok(size) if size.is_power_of_two() => self.change(index, |vring| vring.size = Some(size)),
            _ => refuse(format!("ring {index} is to have {size} entries, which is not a power of two up to 32768")),
        }
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        self.change(index, |vring| vring.addresses = Some(RingAddresses { descriptors, available, used }))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let Ok(base) = u16::try_from(base) else {
            return refuse(format!("ring {index} can't resume at {base}: an index has sixteen bits"));
        };
        self.change(index, |vring| vring.base = base)
    }

    /// Stops the ring, until the next kick descriptor.
    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.change(index, |vring| {
            vring.kicked = false;
            vring.kick = None;
        })?;
        Ok(VhostUserVringState::new(index, self.vring(index)?.base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let kick = eventfd(fd)?.map(|file| Arc::new(file.into()));
        self.change(index.into(), |vring| {
            vring.kicked = true;
            vring.kick = kick;
        })
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let call = eventfd(fd)?;
        let copy = call.as_ref().map(File::try_clone).transpose().map_err(Error::ReqHandlerError)?;
        self.vring(index.into())?.call = call;
        let place = self.queues.pair(usize::from(index) / 2);
        if is_rx(index.into()) {
            place.rx.update(|ring| ring.set_call(copy))
        } else {
            place.tx.update(|ring| ring.set_call(copy))
        };
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let error = eventfd(fd)?;
        let copy = error.as_ref().map(File::try_clone).transpose().map_err(Error::ReqHandlerError)?;
        self.vring(index.into())?.error = error;
        let place = self.queues.pair(usize::from(index) / 2);
        if is_rx(index.into()) {
            place.rx.update(|ring| ring.set_error(copy))
        } else {
            place.tx.update(|ring| ring.set_error(copy))
        };
        Ok(())
    }

    /// It may come before the features are set.
    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.vring(index)?.enabled = enable;
        self.show();
        Ok(())
    }

    // The rest belongs to protocol features that are not offered.

    fn get_config(&mut self, _offset: u32, _size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        not_offered()
    }

    fn set_config(&mut self, _offset: u32, _bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        not_offered()
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        not_offered()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        not_offered()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        not_offered()
    }
}

fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("it belongs to a protocol feature that was not offered"))
}

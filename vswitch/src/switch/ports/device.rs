//! A port over a network device: the port stays, with its queues and counters, while the device comes and goes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use datapath::Nanos;
use datapath::port::{Output, PortNo, RxQueue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Kicks, RETRY_FIRST, Retry};
use crate::config::Device;
use crate::uplink::afxdp::Watch;
use crate::uplink::{Mtu, Opened, Queues};

/// See the module.
pub struct DevicePort {
    no: PortNo,
    device: Device,
    queues: Arc<Queues>,
    kicks: Vec<Kicks>,
    mtu: Mtu,
    open: Option<Open>,
    /// Why it is not open.
    error: Option<String>,
    pub(super) retry: Retry,
}

/// An open device.
struct Open {
    /// Its number in the kernel, unless it has moved to another network namespace.
    index: Option<u32>,
    /// What workers wait for, one for each queue.
    kicks: Vec<Arc<OwnedFd>>,
    /// How its queues fare, if it is used by AF_XDP.
    watches: Vec<Watch>,
}

impl DevicePort {
    /// A port whose device is yet to be opened.
    pub fn new(no: PortNo, device: &Device) -> Self {
        let costly = matches!(device, Device::Tap(_));
        Self {
            no,
            device: device.clone(),
            queues: Queues::new(device.queues(), costly),
            kicks: Vec::new(),
            mtu: Mtu::default(),
            open: None,
            error: None,
            retry: Retry::default(),
        }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Its number in the kernel, while it is open and can be seen.
    pub fn index(&self) -> Option<u32> {
        self.open.as_ref()?.index
    }

    /// Why it is not open.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Where frames go.
    pub fn output(&self) -> Arc<dyn Output> {
        self.queues.clone()
    }

    /// The queues that workers are to serve; to be asked for once.
    pub fn rx_queues(&self) -> Vec<Box<dyn RxQueue>> {
        self.queues.rx_queues()
    }

    /// Says whom the kicks of each queue wake.
    pub fn set_kicks(&mut self, kicks: Vec<Kicks>) {
        self.kicks = kicks;
    }

    /// Takes a device that was opened into service.
    pub fn attach(&mut self, opened: &Opened, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        self.detach();
        let queues = opened.serve(descriptors, self.no, &self.mtu)?;
        let (mut kicks, mut watches) = (Vec::with_capacity(queues.len()), Vec::new());
        for (index, queue) in queues.into_iter().enumerate() {
            kicks.push(queue.kick.clone());
            watches.extend(queue.watch.clone());
            self.queues.put(index, queue);
        }
        self.open = Some(Open { index: Some(opened.index), kicks, watches });
        let open = self.open.iter().flat_map(|open| &open.kicks);
        let waited: Result<(), _> = open.zip(&self.kicks).try_for_each(|(kick, worker)| worker.add(Some(kick)));
        if let Err(error) = waited {
            self.detach();
            return Err(format!("{} {}: its frames can't be waited for: {error}", self.device.word(), self.device.name()));
        }
        self.error = None;
        Ok(())
    }

    /// The device can't be opened, or is gone; it is tried again after `pause`. True if that is news.
    pub fn failed(&mut self, error: String, pause: Nanos, now: Nanos) -> bool {
        self.detach();
        self.retry.failed(pause, now);
        let same = self.error.as_ref() == Some(&error);
        self.error = Some(error);
        !same
    }

    /// The device is gone.
    pub fn gone(&mut self, now: Nanos) {
        let error = format!("{} {}: the device is gone", self.device.word(), self.device.name());
        self.failed(error, RETRY_FIRST, now);
    }

    /// It has moved to another network namespace, where it has another number and nothing is heard of it.
    pub fn moved(&mut self) {
        if let Some(open) = &mut self.open {
            open.index = None;
            self.queues.set_up(true);
        }
    }

    /// Whether it has gone where nothing was heard of it.
    pub fn is_dead(&self) -> bool {
        let Some(Open { index: None, kicks, .. }) = &self.open else { return false };
        let mut fds: Vec<_> = kicks.iter().map(|kick| PollFd::new(kick, PollFlags::empty())).collect();
        // Errors are reported without being asked for.
        poll(&mut fds, Some(&Timespec::default())).is_ok() && fds.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
    }

    /// Says whether frames can leave the device, and how long a packet it takes.
    pub fn set_link(&self, up: bool, mtu: u32) {
        self.mtu.set(mtu);
        self.queues.set_up(up);
    }

    /// How its queues fare, if they are AF_XDP's.
    pub fn watches(&self) -> &[Watch] {
        self.open.as_ref().map_or(&[], |open| &open.watches)
    }

    /// Lets go of the device, for good.
    pub fn close(&mut self) {
        self.detach();
        self.retry = Retry::default();
    }

    fn detach(&mut self) {
        if let Some(open) = self.open.take() {
            open.kicks.iter().zip(&self.kicks).for_each(|(kick, worker)| worker.remove(Some(kick)));
            self.queues.set_up(false);
            self.queues.clear();
        }
    }
}

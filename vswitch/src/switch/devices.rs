//! The ports over network devices: what the launcher opened for them, and what the kernel says of them.

use datapath::Nanos;
use datapath::port::PortNo;
use tracing::{error, info, warn};

use super::ports::{DevicePort, SwitchPort};
use super::{Switch, clock, link};
use crate::config::Device;
use crate::event::{Interest, Kind, Token};
use crate::launcher::channel::Request;
use crate::uplink::links::{Link, LinkNews, Links};

impl Switch {
    /// Begins to listen to what the kernel says of devices.
    pub(super) fn watch_devices(&mut self) {
        self.ask(Request::WatchDevices, |switch, answered| {
            let watched = link::descriptor(answered).and_then(|socket| {
                let links = Links::from_socket(socket);
                switch.poller.add(&links, Token::only(Kind::Devices), Interest::Read).map_err(|error| error.to_string())?;
                Ok(links)
            });
            match watched {
                Ok(links) => switch.links = Some(links),
                Err(error) => warn!("network devices can't be watched ({error}): the links of ports over them stay down"),
            }
        });
    }

    /// The launcher has opened the device of a port, or could not; then the next attempt comes after `pause`.
    pub(super) fn on_device(&mut self, no: PortNo, answered: link::Answered, pause: Nanos) -> Result<(), String> {
        let Some(port) = self.ports.get_mut(&no).and_then(SwitchPort::device) else { return Ok(()) };
        let attached = answered.and_then(|given| {
            let opened = given.device.ok_or("the launcher did not say what it opened")?;
            port.attach(&opened, given.descriptors)?;
            Ok(opened)
        });
        match attached {
            Ok(opened) => {
                info!(port = self.name_of(no), "the device is open");
                opened.notes().iter().for_each(|note| info!(port = self.name_of(no), "the device: {note}"));
                // Its answer says whether the link is up.
                if let Some(Err(error)) = self.links.as_ref().map(|links| links.ask(opened.index)) {
                    warn!(port = self.name_of(no), "the kernel can't be asked about the device: {error}");
                }
                Ok(())
            }
            Err(error) => {
                if port.failed(error.clone(), pause, clock::now()) {
                    error!(port = self.name_of(no), "{error}");
                }
                Err(error)
            }
        }
    }

    /// The kernel has said something of devices.
    pub(super) fn on_devices(&mut self) {
        let news = match self.links.as_ref().map(Links::news) {
            None => return,
            Some(Ok(news)) => news,
            Some(Err(error)) => return warn!("the kernel's news of network devices can't be read: {error}"),
        };
        for news in news {
            match news {
                LinkNews::Is(link) => self.on_link(&link),
                LinkNews::Gone(index) => {
                    if let Some((no, _)) = self.port_over(index) {
                        self.on_device_gone(no);
                    }
                }
                LinkNews::Moved(index) => self.on_device_moved(index),
                LinkNews::Missed => {
                    let open: Vec<_> = self.ports.values_mut().filter_map(|port| port.device()?.index()).collect();
                    for index in open {
                        if let Some(Err(error)) = self.links.as_ref().map(|links| links.ask(index)) {
                            warn!("the kernel can't be asked about network device {index}: {error}");
                        }
                    }
                }
            }
        }
    }

    fn on_link(&mut self, link: &Link) {
        let Some((no, port)) = self.port_over(link.index) else { return };
        port.set_link(link.up, link.mtu);
        let speed = link.name.as_ref().and_then(|name| self.links.as_ref()?.speed(name));
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        let was = self.agent.tables().ports().get(no).map(|port| port.link_up);
        match self.agent.set_device(no, link.up, mtu, speed) {
            Ok(()) if was != Some(link.up) => info!(port = self.name_of(no), "the link is {}", if link.up { "up" } else { "down" }),
            Ok(()) => {}
            Err(error) => warn!("{error}"),
        }
    }

    fn on_device_gone(&mut self, no: PortNo) {
        let Some(port) = self.ports.get_mut(&no).and_then(SwitchPort::device) else { return };
        port.gone(clock::now());
        let error = port.error().unwrap_or_default().to_owned();
        error!(port = self.name_of(no), "{error}");
        let mtu = self.agent.tables().ports().get(no).map_or(0, |port| port.mtu);
        if let Err(error) = self.agent.set_device(no, false, mtu, None) {
            warn!("{error}");
        }
    }

    /// A tap in another network namespace still carries frames: it is how a container gets a leg. Other devices lose what was attached to them.
    fn on_device_moved(&mut self, index: u32) {
        let Some((no, port)) = self.port_over(index) else { return };
        if !matches!(port.device(), Device::Tap(_)) {
            return self.on_device_gone(no);
        }
        port.moved();
        info!(port = self.name_of(no), "the tap has moved to another network namespace: its link is not seen there, and is taken to be up");
        self.set_link(no, true);
    }

    /// Looks after the devices that nothing is heard from.
    pub(super) fn look_after_devices(&mut self) {
        let dead: Vec<_> = self.ports.iter_mut().filter_map(|(no, port)| port.device()?.is_dead().then_some(*no)).collect();
        dead.into_iter().for_each(|no| self.on_device_gone(no));
    }

    fn port_over(&mut self, index: u32) -> Option<(PortNo, &mut DevicePort)> {
        self.ports.iter_mut().filter_map(|(no, port)| Some((*no, port.device()?))).find(|(_, port)| port.index() == Some(index))
    }
}

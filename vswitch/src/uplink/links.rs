//! What the kernel says of network devices: a netlink socket, which the launcher opens and the switch listens to.
//!
//! The socket hears of every change of every device in its network namespace (`RTNLGRP_LINK`), and can be asked about one ([`Links::ask`]); the answer comes like any
//! other news. Of a message only what is needed is taken apart, so that what later kernels add does no harm.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage, LinkMessageBuffer};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

use super::sys;
use crate::config::DeviceName;

/// The multicast group of links, as a bit (`RTMGRP_LINK`).
const GROUP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_NEW_NETNSID: u16 = 45;
/// More than any message about one device: they have up to some kilobytes.
const MESSAGE_MAX: usize = 64 * 1024;

/// A socket that hears of network devices.
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
}

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNews {
    /// It is there, and this is how.
    Is(Link),
    /// The device with this number is not there.
    Gone(u32),
    /// The device with this number has moved to another network namespace, from where nothing is heard.
    Moved(u32),
    /// Something was missed: ask about every device that matters.
    Missed,
}

/// A device, as netlink has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name, if it is one that a SPEC can have.
    pub name: Option<DeviceName>,
    /// Whether it is up, and has a carrier.
    pub up: bool,
    /// The most bytes behind the Ethernet header of a frame.
    pub mtu: u32,
}

impl Links {
    /// Opens the socket, for which no privilege is needed.
    pub fn open() -> io::Result<OwnedFd> {
        // No protocol is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_LINK))?;
        Ok(socket)
    }

    /// The socket that the launcher opened.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Asks about the device with this number.
    pub fn ask(&self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        // A refusal repeats it.
        header.sequence_number = index;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetLink(link)));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    /// The speed of a device in Mbit/s, if it has one.
    pub fn speed(&self, name: &DeviceName) -> Option<u32> {
        sys::speed(&self.socket, name)
    }

    /// What came since it was asked last.
    pub fn news(&self) -> io::Result<Vec<LinkNews>> {
        let (mut news, mut bytes) = (Vec::new(), vec![0; MESSAGE_MAX]);
        loop {
            match recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((_, received)) => messages(&bytes[..received.min(MESSAGE_MAX)], &mut news),
                Err(Errno::AGAIN) => return Ok(news),
                Err(Errno::NOBUFS) => news.push(LinkNews::Missed),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes a datagram apart. What is malformed ends it.
fn messages(mut bytes: &[u8], news: &mut Vec<LinkNews>) {
    while let Ok(message) = NetlinkBuffer::new_checked(&bytes) {
        news.extend(one(&message));
        let next = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(next..).unwrap_or_default();
    }
}

fn one(message: &NetlinkBuffer<&&[u8]>) -> Option<LinkNews> {
    match message.message_type() {
        RTM_NEWLINK | RTM_DELLINK => {
            let link = LinkMessageBuffer::new_checked(message.payload()).ok()?;
            let index = link.link_index();
            // Messages of other families are about what a bridge or IPv6 has to do with the device.
            if link.interface_family() != 0 {
                return None;
            }
            if message.message_type() == RTM_DELLINK {
                let moved = link.attributes().any(|attribute| attribute.is_ok_and(|attribute| attribute.kind() == IFLA_NEW_NETNSID));
                return Some(if moved { LinkNews::Moved(index) } else { LinkNews::Gone(index) });
            }
            let flags = LinkFlags::from_bits_retain(link.flags());
            let (mut name, mut mtu) = (None, 0);
            for attribute in link.attributes() {
                let attribute = attribute.ok()?;
                match attribute.kind() {
                    IFLA_IFNAME => {
                        let text = attribute.value().split(|byte| *byte == 0).next().and_then(|text| std::str::from_utf8(text).ok());
                        name = text.and_then(|text| text.parse().ok());
                    }
                    IFLA_MTU => mtu = u32::from_ne_bytes(attribute.value().try_into().ok()?),
                    _ => {}
                }
            }
            Some(LinkNews::Is(Link { index, name, up: flags.contains(LinkFlags::Up | LinkFlags::Running), mtu }))
        }
        // A refusal of `ask`: there is no such device.
        NLMSG_ERROR if message.sequence_number() != 0 => Some(LinkNews::Gone(message.sequence_number())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message about device 7, with these attributes.
    fn message(kind: u16, flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = [&[0, 0, 1, 0][..], &7u32.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
        for (kind, value) in attributes {
            body.extend([(value.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        [&(body.len() as u32 + 16).to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat()
    }

    fn news(bytes: &[u8]) -> Vec<LinkNews> {
        let mut news = Vec::new();
        messages(bytes, &mut news);
        news
    }

    #[test]
    fn devices_come_change_move_and_go() {
        let attributes: [(u16, &[u8]); 3] = [(IFLA_IFNAME, b"eth0\0"), (IFLA_MTU, &1500u32.to_ne_bytes()), (60_000, &[1, 2, 3])];
        let link = |up| LinkNews::Is(Link { index: 7, name: "eth0".parse().ok(), up, mtu: 1500 });
        let up = (LinkFlags::Up | LinkFlags::Running).bits();
        let both = [message(RTM_NEWLINK, up, &attributes), message(RTM_NEWLINK, LinkFlags::Up.bits(), &attributes)].concat();
        assert_eq!(news(&both), [link(true), link(false)]);
        assert_eq!(news(&message(RTM_DELLINK, 0, &attributes)), [LinkNews::Gone(7)]);
        let moved: [(u16, &[u8]); 1] = [(IFLA_NEW_NETNSID, &[0; 4])];
        assert_eq!(news(&message(RTM_DELLINK, 0, &moved)), [LinkNews::Moved(7)]);
        // What a bridge has to say of its port.
        let mut bridge = message(RTM_DELLINK, 0, &attributes);
        bridge[16] = 7;
        assert_eq!(news(&bridge), []);
    }

    proptest! {
        #[test]
        fn anything_is_taken_apart_or_left(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 14..20u16, cut in 0..100usize) {
            news(&bytes);
            let whole = message(kind, 0, &[(IFLA_IFNAME, &bytes), (IFLA_MTU, &bytes)]);
            news(&whole[..whole.len().min(cut)]);
            news(&whole);
        }
    }
}

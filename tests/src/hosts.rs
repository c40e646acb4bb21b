//! Hosts: fake guests with as much of an IPv4 stack as it takes to ask for neighbours, to ping and to be pinged.
//!
//! One thread plays all of them: while one waits for something, the others answer ([`Hosts::until`]). Every frame that a host hears is kept, so that a
//! test can also look at what should not have come.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, IcmpEchoHeader, Icmpv4Type, Ipv4Header, LinkHeader, NetHeaders, PacketBuilder, PacketHeaders,
    TransportHeader,
};

use crate::frontend::{Guest, Options};
use crate::process::{PATIENCE, until};
use crate::switch::Switch;

/// An Ethernet address.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// The hop limit of what a host sends.
pub const TTL: u8 = 64;
/// After this long without an answer a host asks again, as real ones do after a second.
const AGAIN: Duration = Duration::from_millis(300);

/// A host on a port of the switch, in a network with a prefix of 24 bits.
#[derive(Debug)]
pub struct Host {
    /// Its card.
    pub guest: Guest,
    /// The card's address.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// Who is asked to pass on what goes to other networks.
    pub gateway: Option<Ipv4Addr>,
    /// Every frame that came, in order.
    pub heard: Vec<Vec<u8>>,
    neighbours: BTreeMap<Ipv4Addr, Mac>,
}

impl Host {
    /// Host `number` behind the switch's port `vmNUMBER`, whose link is up when this returns. The card's address is 02:00:00:00:00:NUMBER.
    pub fn connect(switch: &Switch, number: u8, address: Ipv4Addr, gateway: Option<Ipv4Addr>) -> Host {
        let port = format!("vm{number}");
        let guest = Guest::connect(&switch.path(&format!("{port}.sock")), Options::default()).expect("a guest");
        until(PATIENCE, &format!("{port}'s link is up"), || (switch.ctl_json(&["port", "show", &port])["link"] == "up").then_some(()));
        Host { guest, mac: [2, 0, 0, 0, 0, number], address, gateway, heard: Vec::new(), neighbours: BTreeMap::new() }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) {
        until(PATIENCE, "the switch takes the frame", || {
            self.guest.transmitter(0).reclaim();
            (self.guest.send(0, [frame]) == 1).then_some(())
        });
    }

    /// Asks everybody who has this address.
    pub fn send_arp_request(&mut self, address: Ipv4Addr) {
        self.send_arp(ArpOperation::REQUEST, None, address);
    }

    fn send_arp(&mut self, operation: ArpOperation, mac: Option<Mac>, address: Ipv4Addr) {
        let packet = ArpEthIpv4Packet {
            operation,
            sender_mac: self.mac,
            sender_ipv4: self.address.octets(),
            target_mac: mac.unwrap_or_default(),
            target_ipv4: address.octets(),
        };
        let frame = build(|out| PacketBuilder::ethernet2(self.mac, mac.unwrap_or(BROADCAST)).arp(packet.into()).write(out));
        self.send(&frame);
    }

    /// Sends a TCP SYN to a neighbour whose address is known.
    pub fn send_syn(&mut self, mac: Mac, to: Ipv4Addr, port: u16) {
        let ethernet = PacketBuilder::ethernet2(self.mac, mac);
        let tcp = ethernet.ipv4(self.address.octets(), to.octets(), TTL).tcp(40_000, port, 1, 1024).syn();
        self.send(&build(|out| tcp.write(out, &[])));
    }

    /// Sends an echo request by way of a neighbour.
    pub fn send_ping(&mut self, mac: Mac, to: Ipv4Addr, id: u16) {
        let ethernet = PacketBuilder::ethernet2(self.mac, mac);
        let ping = ethernet.ipv4(self.address.octets(), to.octets(), TTL).icmpv4_echo_request(id, 1);
        self.send(&build(|out| ping.write(out, &PAYLOAD)));
    }

    /// Takes what has come, and answers.
    fn run(&mut self) {
        for frame in self.guest.receive(0) {
            self.answer(&frame);
            self.heard.push(frame);
        }
    }

    fn answer(&mut self, frame: &[u8]) {
        let packet = Packet::of(frame);
        if packet.destination != self.mac && packet.destination != BROADCAST {
            return;
        }
        if let Some(arp) = packet.arp() {
            if arp.target_ipv4_addr() != self.address {
                return;
            }
            self.neighbours.insert(arp.sender_ipv4_addr(), arp.sender_mac);
            if arp.operation == ArpOperation::REQUEST {
                self.send_arp(ArpOperation::REPLY, Some(arp.sender_mac), arp.sender_ipv4_addr());
            }
        }
        if let (Some(ip), Some(Icmpv4Type::EchoRequest(echo))) = (packet.ipv4(), packet.icmp())
            && ip.destination == self.address.octets()
        {
            let ethernet = PacketBuilder::ethernet2(self.mac, packet.source);
            let reply = ethernet.ipv4(ip.destination, ip.source, TTL).icmpv4_echo_reply(echo.id, echo.seq);
            let frame = build(|out| reply.write(out, packet.headers.payload.slice()));
            self.send(&frame);
        }
    }

    /// The echo reply with this id that came, and its frame.
    fn pong(&self, id: u16) -> Option<Packet<'_>> {
        let is_reply =
            |packet: &Packet| matches!(packet.icmp(), Some(Icmpv4Type::EchoReply(IcmpEchoHeader { id: this, .. })) if *this == id);
        self.heard.iter().map(|frame| Packet::of(frame)).find(|packet| packet.destination == self.mac && is_reply(packet))
    }

    /// Who gets the frames that go to this address.
    fn next_hop(&self, to: Ipv4Addr) -> Ipv4Addr {
        if to.octets()[..3] == self.address.octets()[..3] { to } else { self.gateway.expect("the host has a gateway") }
    }
}

/// What a ping carries.
const PAYLOAD: [u8; 56] = [0x5a; 56];

/// An answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// Who sent the frame that it came in.
    pub mac: Mac,
    /// Its remaining hop limit.
    pub ttl: u8,
}

/// A frame taken apart.
#[derive(Debug)]
pub struct Packet<'a> {
    /// Who gets the frame.
    pub destination: Mac,
    /// Who sent it.
    pub source: Mac,
    headers: PacketHeaders<'a>,
}

impl<'a> Packet<'a> {
    /// Takes a frame apart.
    ///
    /// # Panics
    ///
    /// Panics if it is malformed, or its IPv4 header has a wrong checksum.
    pub fn of(frame: &'a [u8]) -> Self {
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
        let Some(LinkHeader::Ethernet2(ethernet)) = &headers.link else { panic!("no Ethernet frame: {frame:02x?}") };
        let packet = Packet { destination: ethernet.destination, source: ethernet.source, headers };
        if let Some(ip) = packet.ipv4() {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "the checksum of {frame:02x?}");
        }
        packet
    }

    /// Its ARP packet.
    pub fn arp(&self) -> Option<ArpEthIpv4Packet> {
        match &self.headers.net {
            Some(NetHeaders::Arp(packet)) => packet.try_eth_ipv4().ok(),
            _ => None,
        }
    }

    /// Its IPv4 header.
    pub fn ipv4(&self) -> Option<&Ipv4Header> {
        self.headers.net.as_ref()?.ipv4_ref().map(|(header, _)| header)
    }

    /// Its ICMP message.
    pub fn icmp(&self) -> Option<&Icmpv4Type> {
        match &self.headers.transport {
            Some(TransportHeader::Icmpv4(header)) => Some(&header.icmp_type),
            _ => None,
        }
    }

    /// The TCP port that it goes to.
    pub fn tcp_port(&self) -> Option<u16> {
        match &self.headers.transport {
            Some(TransportHeader::Tcp(header)) => Some(header.destination_port),
            _ => None,
        }
    }

    /// Its VLAN tags.
    pub fn tags(&self) -> usize {
        self.headers.link_exts.len()
    }
}

/// The hosts of a scenario.
#[derive(Debug)]
pub struct Hosts {
    /// Each of them.
    pub hosts: Vec<Host>,
    pings: u16,
}

impl Hosts {
    /// These hosts.
    pub fn new(hosts: Vec<Host>) -> Self {
        Self { hosts, pings: 0 }
    }

    /// Has all hosts take and answer what has come.
    pub fn run(&mut self) {
        self.hosts.iter_mut().for_each(Host::run);
    }

    /// Does so until `probe` says something.
    ///
    /// # Panics
    ///
    /// Panics, naming `what`, if it does not within [`PATIENCE`].
    pub fn until<T>(&mut self, what: &str, mut probe: impl FnMut(&mut [Host]) -> Option<T>) -> T {
        until(PATIENCE, what, || {
            self.run();
            probe(&mut self.hosts)
        })
    }

    /// Asks, and again from time to time, until there is an answer.
    fn ask<T>(&mut self, what: &str, asks: impl Fn(&mut [Host]), answer: impl Fn(&[Host]) -> Option<T>) -> T {
        let mut due = Instant::now();
        self.until(what, |hosts| {
            let answer = answer(hosts);
            if answer.is_none() && due <= Instant::now() {
                due = Instant::now() + AGAIN;
                asks(hosts);
            }
            answer
        })
    }

    /// The Ethernet address of `address` as host `from` knows it; it asks if it doesn't.
    pub fn resolve(&mut self, from: usize, address: Ipv4Addr) -> Mac {
        let asks = |hosts: &mut [Host]| hosts[from].send_arp_request(address);
        self.ask(&format!("host {from} finds {address}"), asks, |hosts| hosts[from].neighbours.get(&address).copied())
    }

    /// Has host `from` ping an address until it answers.
    pub fn ping(&mut self, from: usize, to: Ipv4Addr) -> Pong {
        let mac = self.resolve(from, self.hosts[from].next_hop(to));
        self.pings += 1;
        let id = self.pings;
        let asks = |hosts: &mut [Host]| hosts[from].send_ping(mac, to, id);
        self.ask(&format!("host {from} gets an answer from {to}"), asks, |hosts| {
            let packet = hosts[from].pong(id)?;
            let ip = packet.ipv4()?;
            assert_eq!((ip.source, packet.headers.payload.slice()), (to.octets(), &PAYLOAD[..]), "the answer to a ping of {to}");
            Some(Pong { mac: packet.source, ttl: ip.time_to_live })
        })
    }

    /// Has every host forget what it heard.
    pub fn forget(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.heard.clear());
    }
}

fn build<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame).expect("a vector takes all");
    frame
}

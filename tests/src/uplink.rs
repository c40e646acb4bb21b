//! Two hosts whose switches are joined by AF_XDP over a pair of veth devices, each with a guest that sends and one that counts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::frontend::{Guest, Options};
use crate::linear::correct_checksums;
use crate::namespace::Namespace;
use crate::process::{PATIENCE, until};
use crate::random::Random;
use crate::switch::Switch;

/// The devices, one for each host.
pub const DEVICES: [&str; 2] = ["up0", "up1"];
/// The most frames that are sent and have not come yet, unless as many are sent as fit: fewer than any queue on the way has room for.
const WINDOW: usize = 96;
/// The first byte of a frame's payload, behind Ethernet, IPv4 and UDP.
const PAYLOAD: usize = 42;
const FLOWS: u64 = 16;

/// A namespace with a pair of devices, and nothing else in it that says anything.
pub fn wire(mtu: u32) -> Namespace {
    let namespace = Namespace::new("wire");
    namespace.run("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]);
    lay_wire(&namespace, mtu);
    namespace
}

/// Makes the devices, in a namespace without.
pub fn lay_wire(namespace: &Namespace, mtu: u32) {
    namespace.run("ip", &["link", "add", DEVICES[0], "type", "veth", "peer", "name", DEVICES[1]]);
    for device in DEVICES {
        namespace.run("ip", &["link", "set", device, "mtu", &mtu.to_string(), "up"]);
    }
}

/// A host: its switch, and a guest whose device is `vm`. The uplink is `up`.
#[derive(Debug)]
pub struct UplinkHost {
    /// Its switch.
    pub switch: Switch,
    /// Its guest.
    pub guest: Guest,
}

impl UplinkHost {
    /// A host in `namespace` over the device `device`, with these options for its port. Guest and uplink are up when this returns.
    pub fn start(namespace: &Namespace, device: &str, options: &str, guest: Options) -> Self {
        Self::start_by(&["ip", "netns", "exec", namespace.name()], &format!("up=af-xdp:{device}{options}"), guest)
    }

    /// A host whose switch is started by another program, as [`Switch::start_by`] does, with this port for its uplink.
    pub fn start_by(starter: &[&str], uplink: &str, guest: Options) -> Self {
        let switch = Switch::start_by(starter, &["--port", uplink, "--port", "vm=vhost-user:vm.sock"]);
        let guest = Guest::connect(&switch.path("vm.sock"), guest).expect("a guest");
        let host = Self { switch, guest };
        host.wait_for_link("vm");
        host.wait_for_link("up");
        host
    }

    /// What the switch says of a port.
    pub fn port(&self, name: &str) -> Value {
        self.switch.ctl_json(&["port", "show", name])
    }

    /// Waits until a port's link is up.
    pub fn wait_for_link(&self, port: &str) {
        until(PATIENCE, &format!("the link of {port} is up"), || (self.port(port)["link"] == "up").then_some(()));
    }

    /// Makes sure that every chunk of the uplink's memory is where it can be used again: none is lost, and none with the kernel.
    ///
    /// # Panics
    ///
    /// Panics if some are not, however long they are waited for.
    pub fn check_account(&self) {
        until(PATIENCE, "all chunks of the uplink are accounted for", || {
            let port = self.port("up");
            let queues = port["af_xdp"]["queues"].as_array().expect("the uplink is open");
            let settled = queues.iter().flat_map(|queue| [&queue["rx"], &queue["tx"]]).all(|half| {
                let of = |key: &str| half[key].as_i64().expect("a number");
                of("lost") == 0 && of("in_kernel") == 0 && of("ours") + of("to_kernel") + of("from_kernel") == of("chunks")
            });
            settled.then_some(())
        });
    }

    /// Frames that were dropped at a port, for whatever reason.
    pub fn drops(&self, port: &str) -> u64 {
        let drops = &self.port(port)["drops"];
        drops.as_object().expect("an object").values().map(|count| count.as_u64().expect("a number")).sum()
    }

    /// Frames for the uplink that the kernel dropped before the switch saw them.
    pub fn dropped_by_kernel(&self) -> u64 {
        let port = self.port("up");
        let queues = port["af_xdp"]["queues"].as_array().expect("the uplink is open");
        queues.iter().map(|queue| queue["dropped_by_kernel"].as_u64().expect("a number")).sum()
    }
}

/// Sends numbered frames of random sizes in some flows, and finds out what became of them.
#[derive(Debug)]
pub struct Traffic {
    random: Random,
    longest: u64,
    serial: u64,
    sent: u64,
    received: u64,
    /// The last serial number that came, of each flow.
    last: BTreeMap<u64, u64>,
}

impl Traffic {
    /// Frames of up to `longest` bytes, from this seed.
    pub fn new(seed: u64, longest: u64) -> Self {
        Self { random: Random::new(seed), longest, serial: 0, sent: 0, received: 0, last: BTreeMap::new() }
    }

    /// How many frames were sent, and have come.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    /// Sends `count` frames from one guest to another, not more at once than every queue on the way takes; waits for each.
    ///
    /// # Panics
    ///
    /// Panics if one does not come, or comes twice, out of order, or changed.
    pub fn pass(&mut self, count: u64, from: &mut Guest, to: &mut Guest) {
        let end = self.sent + count;
        let mut moved = Instant::now();
        let (mut next, lost) = (None, self.sent - self.received);
        while self.received + lost < end {
            from.transmitter(0).reclaim();
            while self.sent < end && self.sent - self.received - lost < WINDOW as u64 {
                let frame = next.take().unwrap_or_else(|| self.frame());
                if from.send(0, [&frame[..]]) == 0 {
                    next = Some(frame);
                    break;
                }
                self.sent += 1;
            }
            if self.receive(to) > 0 {
                moved = Instant::now();
            } else {
                assert!(moved.elapsed() < PATIENCE, "{} frames were sent, of which {} came", self.sent, self.received);
                std::thread::yield_now();
            }
        }
    }

    /// Sends `count` frames as fast as the first switch takes them, and receives what comes meanwhile if `to` is a guest.
    pub fn flood(&mut self, count: u64, from: &mut Guest, mut to: Option<&mut Guest>) {
        let end = self.sent + count;
        while self.sent < end {
            let frames: Vec<_> = (0..32.min(end - self.sent)).map(|_| self.frame()).collect();
            let mut rest = &frames[..];
            while !rest.is_empty() {
                from.transmitter(0).reclaim();
                let sent = from.send(0, rest.iter().map(Vec::as_slice));
                rest = &rest[sent..];
                self.sent += sent as u64;
                if let Some(to) = to.as_deref_mut() {
                    self.receive(to);
                }
            }
        }
    }

    /// Receives until nothing has come for a while.
    pub fn drain(&mut self, to: &mut Guest) {
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(500) {
            if self.receive(to) > 0 {
                quiet = Instant::now();
            }
        }
    }

    fn receive(&mut self, to: &mut Guest) -> usize {
        let frames = to.receive(0);
        frames.iter().for_each(|frame| self.check(frame));
        frames.len()
    }

    fn frame(&mut self) -> Vec<u8> {
        let (serial, flow) = (self.serial, self.random.below(FLOWS));
        self.serial += 1;
        numbered(serial, flow, 60 + self.random.below(self.longest - 59) as usize)
    }

    fn check(&mut self, frame: &[u8]) {
        let number = |at: usize| u64::from_be_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
        let (serial, flow) = (number(PAYLOAD), u64::from(frame[35]));
        assert!(frame == numbered(serial, flow, frame.len()), "frame {serial} of {} bytes has changed", frame.len());
        let last = self.last.insert(flow, serial);
        assert!(last.is_none_or(|last| last < serial), "frame {serial} of flow {flow} came after {last:?}");
        self.received += 1;
    }
}

/// A UDP frame whose every byte follows from its serial number, its flow and its length.
pub fn numbered(serial: u64, flow: u64, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len as u64).map(|at| (at.wrapping_mul(at).wrapping_add(serial * 7)) as u8).collect();
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let [high, low] = ((len - 14) as u16).to_be_bytes();
    frame[14..34].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let [high, low] = ((len - 34) as u16).to_be_bytes();
    frame[34..42].copy_from_slice(&[0x10, flow as u8, 0x20, 0, high, low, 0, 0]);
    frame[PAYLOAD..PAYLOAD + 8].copy_from_slice(&serial.to_be_bytes());
    correct_checksums(&mut frame);
    frame
}

//! The kinds of port, and the words that each has of its own in a SPEC.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::spec::{Common, PortKind, PortSpec, SpecError, VlanSpec, number, once};
use super::words::{XdpMode, ZeroCopy};

/// A device's name has at most this many bytes (`IFNAMSIZ` is one more, for the zero).
const DEVICE_MAX: usize = 15;

/// A vhost-user port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUser {
    /// The Unix socket; relative to the run directory unless absolute.
    pub socket: PathBuf,
    /// Who listens on it.
    pub role: Role,
    /// The most queue pairs that the guest may use, 1 to [`super::QUEUES_MAX`].
    pub queues: u16,
    /// The MTU that the guest is told, in bytes, and the longest frame it is sent, without the Ethernet header and tags.
    pub mtu: Option<u16>,
}

/// Which end of a vhost-user socket the switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The switch listens, the front end connects.
    Server,
    /// The front end listens, the switch connects and keeps trying.
    Client,
}

/// A network device of the host that a port is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// One that frames are taken from by AF_XDP.
    AfXdp(AfXdp),
    /// One that another process opened for AF_XDP, and handed over.
    Handed(Handed),
    /// A tap: the host's own leg, or the one of a guest without vhost-user.
    Tap(Tap),
}

/// A network device of the host that frames are taken from by AF_XDP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AfXdp {
    /// The device.
    pub device: DeviceName,
    /// How many of its queues, from the first, 1 to [`super::QUEUES_MAX`].
    pub queues: u16,
    /// Where in the kernel frames are taken.
    pub mode: XdpMode,
    /// Whether the device itself writes to our memory.
    pub zero_copy: ZeroCopy,
    /// Which of the frames that come in are the switch's.
    pub steal: Steal,
    /// Whether workers that look for frames drive the device, rather than its interrupts.
    pub busy_poll: bool,
    /// The MTU that the device is given, in bytes; as it is, if none is given.
    pub mtu: Option<u16>,
}

/// A network device that another process, `vswitch open`, opened for AF_XDP, and handed over in a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The number of the descriptor that the switch was started with, 3 at least.
    pub descriptor: i32,
    /// How many queues it was opened with, 1 to [`super::QUEUES_MAX`].
    pub queues: u16,
}

/// Which frames that come in through a device are the switch's; the others go on to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Steal {
    /// All.
    All,
    /// None: the switch only sends.
    None,
    /// Those for this address. Those for groups, broadcasts among them, are the host's.
    Address([u8; 6]),
}

/// A tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// The device.
    pub name: DeviceName,
    /// How many queues it has, 1 to [`super::QUEUES_MAX`].
    pub queues: u16,
    /// It stays when the switch is gone.
    pub persistent: bool,
    /// The MTU that the device is given, in bytes; as it is, if none is given.
    pub mtu: Option<u16>,
}

/// The name of a network device: 1 to 15 bytes that the kernel takes, without commas, which end it in a SPEC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

impl VhostUser {
    /// What it is called in a SPEC.
    pub const WORD: &str = "vhost-user";

    /// The port at this socket.
    pub(super) fn parse<'a>(socket: &str, options: impl Iterator<Item = &'a str>) -> Result<PortSpec, SpecError> {
        if socket.is_empty() {
            return Err(SpecError::NoSocket);
        }
        let mut client = None;
        let known = "client, queues=N, mtu=N, icmp-too-big, vlan=N, trunk=A-B and ofport=N";
        let common = Common::parse(options, Self::WORD, known, |word, value| match (word, value) {
            ("client", None) => once("client", &mut client, ()).map(|()| true),
            _ => Ok(false),
        })?;
        let role = if client.is_some() { Role::Client } else { Role::Server };
        // A guest whose port has no MTU is sent what its buffers take.
        let (queues, mtu) = (common.queues(), common.mtu);
        if common.icmp_too_big() && mtu.is_none() {
            return Err(SpecError::NoMtu);
        }
        Ok(common.spec(PortKind::VhostUser(Self { socket: socket.into(), role, queues, mtu })))
    }
}

impl AfXdp {
    /// What it is called in a SPEC.
    pub const WORD: &str = "af-xdp";

    /// The port over this device.
    pub(super) fn parse<'a>(device: &str, options: impl Iterator<Item = &'a str>) -> Result<PortSpec, SpecError> {
        if let Some(descriptor) = device.strip_prefix("fd=") {
            return Handed::parse(descriptor, options);
        }
        let device = DeviceName::parse(device, "af-xdp:DEVICE")?;
        let (mut mode, mut zero_copy, mut steal, mut busy_poll) = (None, None, None, None);
        let known = "queues=N, mode=native|generic, zero-copy=auto|on|off, steal=all|none|mac=ADDRESS, busy-poll, \
                     mtu=N, icmp-too-big, vlan=N, trunk=A-B and ofport=N";
        let common = Common::parse(options, Self::WORD, known, |word, value| {
            match (word, value) {
                ("mode", Some(value)) => {
                    let word = value.parse().map_err(|source| SpecError::UnknownWord { option: "mode", source })?;
                    once("mode", &mut mode, word)?;
                }
                ("zero-copy", Some(value)) => {
                    let word = value.parse().map_err(|source| SpecError::UnknownWord { option: "zero-copy", source })?;
                    once("zero-copy", &mut zero_copy, word)?;
                }
                ("busy-poll", None) => once("busy-poll", &mut busy_poll, ())?,
                ("steal", Some(value)) => once("steal", &mut steal, value.parse()?)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (queues, mtu) = (common.queues(), common.mtu);
        let zero_copy = zero_copy.unwrap_or(ZeroCopy::Auto);
        let (mode, steal) = (mode.unwrap_or(XdpMode::Native), steal.unwrap_or(Steal::All));
        Ok(common.spec(PortKind::Device(Device::AfXdp(Self {
            device,
            queues,
            mode,
            zero_copy,
            steal,
            busy_poll: busy_poll.is_some(),
            mtu,
        }))))
    }
}

/// Takes the SPEC of a device apart that is to be opened and handed over: `af-xdp:DEVICE`, with the options that are not the port's.
pub fn parse_device(text: &str) -> Result<AfXdp, SpecError> {
    let PortSpec { kind, vlan, icmp_too_big, ofport } = text.parse()?;
    let PortKind::Device(Device::AfXdp(device)) = kind else { return Err(SpecError::NotHandedOver(text.to_owned())) };
    if vlan != VlanSpec::All || icmp_too_big || ofport.is_some() {
        return Err(SpecError::OfThePort);
    }
    Ok(device)
}

impl Handed {
    /// The port over the device in this descriptor.
    fn parse<'a>(descriptor: &str, options: impl Iterator<Item = &'a str>) -> Result<PortSpec, SpecError> {
        // The first three are for input, output and errors.
        let descriptor = number("fd", descriptor, 3, i32::MAX as u32)? as i32;
        let known = "queues=N, icmp-too-big, vlan=N, trunk=A-B and ofport=N; those of the device are for `vswitch open`";
        let common = Common::parse(options, "af-xdp:fd=N", known, |word, _| match word {
            "mtu" => Err(SpecError::UnknownOption { option: word.to_owned(), kind: "af-xdp:fd=N", known }),
            _ => Ok(false),
        })?;
        let queues = common.queues();
        Ok(common.spec(PortKind::Device(Device::Handed(Self { descriptor, queues }))))
    }
}

impl Tap {
    /// What it is called in a SPEC.
    pub const WORD: &str = "tap";

    /// The port over this tap.
    pub(super) fn parse<'a>(name: &str, options: impl Iterator<Item = &'a str>) -> Result<PortSpec, SpecError> {
        let name = DeviceName::parse(name, "tap:NAME")?;
        let mut persistent = None;
        let known = "queues=N, persistent, mtu=N, icmp-too-big, vlan=N, trunk=A-B and ofport=N";
        let common = Common::parse(options, Self::WORD, known, |word, value| match (word, value) {
            ("persistent", None) => once("persistent", &mut persistent, ()).map(|()| true),
            _ => Ok(false),
        })?;
        let (queues, mtu) = (common.queues(), common.mtu);
        Ok(common.spec(PortKind::Device(Device::Tap(Self { name, queues, persistent: persistent.is_some(), mtu }))))
    }
}

impl Device {
    /// What the kind is called in a SPEC.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::AfXdp(_) | Self::Handed(_) => AfXdp::WORD,
            Self::Tap(_) => Tap::WORD,
        }
    }

    /// The device's name, or the descriptor that it was handed over in.
    pub fn name(&self) -> String {
        match self {
            Self::AfXdp(AfXdp { device, .. }) => device.to_string(),
            Self::Handed(Handed { descriptor, .. }) => format!("fd={descriptor}"),
            Self::Tap(Tap { name, .. }) => name.to_string(),
        }
    }

    /// The number of queues.
    pub fn queues(&self) -> u16 {
        match self {
            Self::AfXdp(AfXdp { queues, .. }) | Self::Handed(Handed { queues, .. }) | Self::Tap(Tap { queues, .. }) => *queues,
        }
    }

    /// The MTU that was asked for, in bytes.
    pub fn mtu(&self) -> Option<u16> {
        match self {
            Self::AfXdp(AfXdp { mtu, .. }) | Self::Tap(Tap { mtu, .. }) => *mtu,
            Self::Handed(_) => None,
        }
    }
}

impl PortKind {
    /// The MTU that was asked for, in bytes.
    pub fn mtu(&self) -> Option<u16> {
        match self {
            Self::VhostUser(vhost_user) => vhost_user.mtu,
            Self::Device(device) => device.mtu(),
        }
    }

    /// The number of queues, or pairs of them.
    pub fn queues(&self) -> u16 {
        match self {
            Self::VhostUser(vhost_user) => vhost_user.queues,
            Self::Device(device) => device.queues(),
        }
    }
}

impl FromStr for Steal {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let address = |text: &str| {
            let bytes: Option<Vec<u8>> = text
                .split(':')
                .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2 && !byte.starts_with('+')))
                .collect();
            // A group is nobody's address.
            <[u8; 6]>::try_from(bytes?).ok().filter(|address| address[0] & 1 == 0)
        };
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            _ => text.strip_prefix("mac=").and_then(address).map(Self::Address).ok_or_else(|| SpecError::BadSteal(text.to_owned())),
        }
    }
}

impl DeviceName {
    fn parse(text: &str, form: &'static str) -> Result<Self, SpecError> {
        // '/' and ':' are the kernel's, '%' would have it choose a name of its own.
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/:%,".contains(&byte);
        let wrong = match text {
            "" => "is empty",
            _ if text.len() > DEVICE_MAX => "is longer than 15 bytes",
            _ if matches!(text, "." | "..") || !text.bytes().all(allowed) => "has a character that the kernel does not allow",
            _ => return Ok(Self(text.to_owned())),
        };
        Err(SpecError::BadDevice { name: text.to_owned(), wrong, form })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse(text, "the name of a device")
    }
}

impl TryFrom<String> for DeviceName {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

//! A port as an operator writes it: `NAME=SPEC`. What each kind of port has of its own is in [`super::kinds`].

use std::fmt;
use std::str::FromStr;

use datapath::port::PortNo;

use super::kinds::{AfXdp, Device, Tap, VhostUser};
use super::words::UnknownWord;

/// The most queues, or pairs of them, that a port can have (the ring index of vhost-user's messages has 8 bits).
pub const QUEUES_MAX: u16 = 128;
/// The smallest MTU that every IPv4 host must take (RFC 791).
pub const MTU_MIN: u16 = 68;
/// OpenFlow 1.3 gives a port's name 16 bytes with the final zero (7.2.1).
pub const NAME_MAX: usize = 15;

/// The name of a port or a switch: 1 to 15 letters, digits, dots, dashes and underscores, as a Linux interface might be called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// What a port is and how it is attached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct PortSpec {
    /// How its frames come and go.
    pub kind: PortKind,
    /// Which VLANs it is in.
    pub vlan: VlanSpec,
    /// Whether who sends it a packet longer than its MTU is told so, by ICMP.
    pub icmp_too_big: bool,
    /// The OpenFlow port number that the operator wants, 1 to `OFPP_MAX`, or [`PortNo::LOCAL`].
    pub ofport: Option<PortNo>,
}

/// How a port's frames come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A guest's virtio-net queues over vhost-user.
    VhostUser(VhostUser),
    /// A network device of the host.
    Device(Device),
}

/// Which VLANs a port is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VlanSpec {
    /// A trunk of all VLANs; untagged frames are in VLAN 0.
    All,
    /// An access port of one VLAN, 1 to 4094: its frames carry no tag.
    Access(u16),
    /// A trunk.
    Trunk {
        /// The VLANs in tags, as inclusive ranges, 1 to 4094.
        ranges: Vec<(u16, u16)>,
        /// The VLAN of untagged frames, 1 to 4094; VLAN 0 if not given.
        native: Option<u16>,
    },
}

/// What is wrong with a `NAME=SPEC`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SpecError {
    #[error("`{0}` is not NAME=SPEC; write for example vm1=vhost-user:/tmp/vm1.sock")]
    NoEquals(String),
    #[error("name `{0}` must have 1 to 15 letters, digits, dots, dashes or underscores")]
    BadName(String),
    #[error("`{0}` does not say what kind of port it is; start it with vhost-user:SOCKET, af-xdp:DEVICE or tap:NAME")]
    NoKind(String),
    #[error("there is no port kind `{0}`; use vhost-user:SOCKET, af-xdp:DEVICE or tap:NAME")]
    UnknownKind(String),
    #[error("vhost-user needs the path of a socket; write vhost-user:SOCKET")]
    NoSocket,
    #[error("`{name}` can't be the name of a network device: it {wrong}; write {form}")]
    BadDevice { name: String, wrong: &'static str, form: &'static str },
    #[error("there is no option `{option}` for a port of kind {kind}; the options are {known}")]
    UnknownOption { option: String, kind: &'static str, known: &'static str },
    #[error("{option}: {source}")]
    UnknownWord { option: &'static str, source: UnknownWord },
    #[error("steal={0} says nothing that is known; use all, none, or mac= with an Ethernet address like 02:00:00:00:00:01")]
    BadSteal(String),
    #[error("`{0}` is nothing that `vswitch open` opens; write af-xdp:DEVICE")]
    NotHandedOver(String),
    #[error("vlan, trunk, ofport and icmp-too-big are the port's, not the device's: give them to `vswitch run`, with af-xdp:fd=N")]
    OfThePort,
    #[error("ofport={0} is not a number from 1 to {max}, nor local", max = PortNo::MAX.0)]
    BadOfport(String),
    #[error("option {0} is given twice; give it once")]
    Twice(&'static str),
    #[error("{option}={value} is not a number from {least} to {most}")]
    OutOfRange { option: &'static str, value: String, least: u32, most: u32 },
    #[error("icmp-too-big tells of an MTU, and this port has none of its own; add mtu=N")]
    NoMtu,
    #[error("trunk={0} is not a VLAN or a range of VLANs A-B, from 1 to 4094 with A no greater than B")]
    BadTrunk(String),
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(allowed) {
            return Err(SpecError::BadName(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// Takes a `NAME=SPEC` apart.
pub fn parse_port(text: &str) -> Result<(Name, PortSpec), SpecError> {
    let (name, spec) = text.split_once('=').ok_or_else(|| SpecError::NoEquals(text.to_owned()))?;
    Ok((name.parse()?, spec.parse()?))
}

impl PortKind {
    /// What it is called in a SPEC.
    pub fn word(&self) -> &'static str {
        match self {
            Self::VhostUser(_) => VhostUser::WORD,
            Self::Device(device) => device.word(),
        }
    }
}

impl FromStr for PortSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| SpecError::NoKind(text.to_owned()))?;
        let (what, options) = rest.split_once(',').map_or((rest, None), |(what, options)| (what, Some(options)));
        let options = options.into_iter().flat_map(|options| options.split(','));
        match kind {
            VhostUser::WORD => VhostUser::parse(what, options),
            AfXdp::WORD => AfXdp::parse(what, options),
            Tap::WORD => Tap::parse(what, options),
            _ => Err(SpecError::UnknownKind(kind.to_owned())),
        }
    }
}

impl TryFrom<String> for PortSpec {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// The options that all kinds of port have.
#[derive(Debug, Default)]
pub(super) struct Common {
    queues: Option<u16>,
    pub mtu: Option<u16>,
    vlan: Option<u16>,
    trunk: Vec<(u16, u16)>,
    icmp_too_big: Option<()>,
    ofport: Option<PortNo>,
}

impl Common {
    /// Takes the options of a port: those that `own` knows, which answers whether it does, and the others here.
    pub fn parse<'a>(
        options: impl Iterator<Item = &'a str>,
        kind: &'static str,
        known: &'static str,
        mut own: impl FnMut(&'a str, Option<&'a str>) -> Result<bool, SpecError>,
    ) -> Result<Self, SpecError> {
        let mut common = Self::default();
        for option in options {
            let (word, value) = option.split_once('=').map_or((option, None), |(word, value)| (word, Some(value)));
            if own(word, value)? {
                continue;
            }
            if option == "icmp-too-big" {
                once("icmp-too-big", &mut common.icmp_too_big, ())?;
                continue;
            }
            let unknown = || SpecError::UnknownOption { option: option.to_owned(), kind, known };
            let value = value.ok_or_else(unknown)?;
            match word {
                "queues" => once("queues", &mut common.queues, number("queues", value, 1, u32::from(QUEUES_MAX))? as u16)?,
                "mtu" => once("mtu", &mut common.mtu, number("mtu", value, u32::from(MTU_MIN), u32::from(u16::MAX))? as u16)?,
                "vlan" => once("vlan", &mut common.vlan, number("vlan", value, 1, 4094)? as u16)?,
                "ofport" => once("ofport", &mut common.ofport, ofport(value)?)?,
                "trunk" => common.trunk.push(vlan_range(value)?),
                _ => return Err(unknown()),
            }
        }
        Ok(common)
    }

    /// The number of queues, one if none is given.
    pub fn queues(&self) -> u16 {
        self.queues.unwrap_or(1)
    }

    /// A port with these options.
    pub fn spec(self, kind: PortKind) -> PortSpec {
        let icmp_too_big = self.icmp_too_big();
        let vlan = match (self.vlan, self.trunk.is_empty()) {
            (None, true) => VlanSpec::All,
            (Some(vlan), true) => VlanSpec::Access(vlan),
            (native, false) => VlanSpec::Trunk { ranges: self.trunk, native },
        };
        PortSpec { kind, vlan, icmp_too_big, ofport: self.ofport }
    }

    /// Whether senders of packets that are too long are told so.
    pub fn icmp_too_big(&self) -> bool {
        self.icmp_too_big.is_some()
    }
}

/// Sets an option that may be given once.
pub(super) fn once<T>(option: &'static str, place: &mut Option<T>, value: T) -> Result<(), SpecError> {
    if place.replace(value).is_some() { Err(SpecError::Twice(option)) } else { Ok(()) }
}

/// A decimal number in a range.
pub(super) fn number(option: &'static str, value: &str, least: u32, most: u32) -> Result<u32, SpecError> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if plain && (least..=most).contains(&number) => Ok(number),
        _ => Err(SpecError::OutOfRange { option, value: value.to_owned(), least, most }),
    }
}

fn ofport(value: &str) -> Result<PortNo, SpecError> {
    match value {
        "local" => Ok(PortNo::LOCAL),
        _ => number("ofport", value, 1, PortNo::MAX.0).map(PortNo).map_err(|_| SpecError::BadOfport(value.to_owned())),
    }
}

fn vlan_range(text: &str) -> Result<(u16, u16), SpecError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let vlan = |text| number("trunk", text, 1, 4094).map(|vlan| vlan as u16);
    match (vlan(first), vlan(last)) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(SpecError::BadTrunk(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::{Handed, Role, Steal, parse_device};
    use super::super::words::{XdpMode, ZeroCopy};
    use super::*;

    #[test]
    fn a_plain_port_is_a_server_trunk_with_one_queue() {
        let (name, spec) = parse_port("vm1=vhost-user:/tmp/vm1.sock").expect("valid");
        assert_eq!(name.as_str(), "vm1");
        let kind = PortKind::VhostUser(VhostUser { socket: "/tmp/vm1.sock".into(), role: Role::Server, queues: 1, mtu: None });
        assert_eq!(spec, PortSpec { kind, vlan: VlanSpec::All, icmp_too_big: false, ofport: None });
    }

    #[test]
    fn every_option_is_taken() {
        let spec: PortSpec =
            "vhost-user:a=b.sock,client,queues=4,mtu=9000,icmp-too-big,trunk=10-20,trunk=30,ofport=7".parse().expect("valid");
        let kind = PortKind::VhostUser(VhostUser { socket: "a=b.sock".into(), role: Role::Client, queues: 4, mtu: Some(9000) });
        assert_eq!(
            spec,
            PortSpec {
                kind,
                vlan: VlanSpec::Trunk { ranges: vec![(10, 20), (30, 30)], native: None },
                icmp_too_big: true,
                ofport: Some(PortNo(7))
            }
        );
        let spec: PortSpec = "vhost-user:x,vlan=10".parse().expect("valid");
        assert_eq!(spec.vlan, VlanSpec::Access(10));
        let spec: PortSpec = "vhost-user:x,vlan=10,trunk=20".parse().expect("valid");
        assert_eq!(spec.vlan, VlanSpec::Trunk { ranges: vec![(20, 20)], native: Some(10) });
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| parse_port(text).expect_err(text);
        assert_eq!(error("vm1"), SpecError::NoEquals("vm1".into()));
        for name in ["", "a/b", "a b", "sixteen-letters-"] {
            assert_eq!(error(&format!("{name}=vhost-user:x")), SpecError::BadName(name.into()));
        }
        assert_eq!(error("a=/tmp/x"), SpecError::NoKind("/tmp/x".into()));
        assert_eq!(error("a=veth:x"), SpecError::UnknownKind("veth".into()));
        assert_eq!(error("a=vhost-user:"), SpecError::NoSocket);
        assert_eq!(error("a=vhost-user:,client"), SpecError::NoSocket);
        for (option, kinds) in [
            ("server", &["vhost-user:x", "tap:x", "af-xdp:x"][..]),
            ("", &["vhost-user:x", "tap:x", "af-xdp:x"]),
            ("client=1", &["vhost-user:x"]),
            ("icmp-too-big=1", &["vhost-user:x", "tap:x", "af-xdp:x"]),
            ("client", &["tap:x", "af-xdp:x"]),
            ("persistent", &["vhost-user:x", "af-xdp:x"]),
            ("steal=all", &["vhost-user:x", "tap:x"]),
        ] {
            for kind in kinds {
                let error = error(&format!("a={kind},{option}")).to_string();
                let kind = kind.trim_end_matches(":x");
                assert!(
                    error.starts_with(&format!("there is no option `{option}` for a port of kind {kind}; the options are ")),
                    "{error}"
                );
            }
        }
        assert_eq!(error("a=vhost-user:x,icmp-too-big"), SpecError::NoMtu);
        assert_eq!(error("a=tap:x,icmp-too-big,icmp-too-big"), SpecError::Twice("icmp-too-big"));
        assert_eq!(error("a=vhost-user:x,queues=1,queues=2"), SpecError::Twice("queues"));
        for value in ["0", "129", "+1", "1 ", "x", "", "4294967297"] {
            let expected = SpecError::OutOfRange { option: "queues", value: value.into(), least: 1, most: 128 };
            assert_eq!(error(&format!("a=vhost-user:x,queues={value}")), expected);
        }
        for value in ["20-10", "0-10", "1-4095", "-", "1-2-3", "5-"] {
            assert_eq!(error(&format!("a=vhost-user:x,trunk={value}")), SpecError::BadTrunk(value.into()));
        }
    }

    #[test]
    fn devices_have_options_of_their_own() {
        let kind = |text: &str| parse_port(&format!("a={text}")).expect(text).1.kind;
        let tap = |name: &str, queues, persistent, mtu| {
            PortKind::Device(Device::Tap(Tap { name: name.parse().expect("a device's name"), queues, persistent, mtu }))
        };
        assert_eq!(kind("tap:tap0"), tap("tap0", 1, false, None));
        assert_eq!(kind("tap:br-int.7,queues=4,persistent,mtu=9000,vlan=3"), tap("br-int.7", 4, true, Some(9000)));
        let plain = AfXdp {
            device: "eth0".parse().expect("a device's name"),
            queues: 1,
            mode: XdpMode::Native,
            busy_poll: false,
            zero_copy: ZeroCopy::Auto,
            steal: Steal::All,
            mtu: None,
        };
        assert_eq!(kind("af-xdp:eth0"), PortKind::Device(Device::AfXdp(plain.clone())));
        let steal = Steal::Address([2, 0, 0, 0, 0, 0xab]);
        let all = AfXdp { queues: 2, mode: XdpMode::Generic, zero_copy: ZeroCopy::Off, steal, busy_poll: true, mtu: Some(1400), ..plain };
        assert_eq!(
            kind("af-xdp:eth0,queues=2,mode=generic,zero-copy=off,steal=mac=02:00:00:00:00:aB,busy-poll,mtu=1400,trunk=1-9,ofport=3"),
            PortKind::Device(Device::AfXdp(all))
        );
        assert_eq!(kind("af-xdp:fd=7,queues=2,vlan=3"), PortKind::Device(Device::Handed(Handed { descriptor: 7, queues: 2 })));
        assert!(parse_port("a=tap:t,icmp-too-big").expect("the device has an MTU").1.icmp_too_big);
        assert_eq!(parse_port("a=tap:t,ofport=local").expect("valid").1.ofport, Some(PortNo::LOCAL));
    }

    #[test]
    fn what_is_wrong_with_a_device_is_named() {
        let error = |text: &str| parse_port(&format!("a={text}")).expect_err(text).to_string();
        for (text, says) in [
            ("tap:", "`` can't be the name of a network device: it is empty; write tap:NAME"),
            ("tap:sixteen-letters-", "it is longer than 15 bytes"),
            ("af-xdp:a/b", "it has a character that the kernel does not allow; write af-xdp:DEVICE"),
            ("tap:a b", "it has a character"),
            ("tap:tap%d", "it has a character"),
            ("tap:..", "it has a character"),
            ("tap:t,queues=200", "queues=200 is not a number from 1 to 128"),
            ("tap:t,persistent,persistent", "option persistent is given twice"),
            ("tap:t,persistent=1", "there is no option `persistent=1`"),
            ("af-xdp:e,mode=fast", "mode: `fast` is not known here; use native or generic"),
            ("af-xdp:e,zero-copy=yes", "zero-copy: `yes` is not known here; use auto, on or off"),
            ("af-xdp:e,steal=some", "steal=some says nothing that is known; use all, none, or mac="),
            ("af-xdp:e,steal=mac=02:00:00:00:00", "steal=mac=02:00:00:00:00 says nothing that is known"),
            ("af-xdp:e,steal=mac=01:00:5e:00:00:01", "steal=mac=01:00:5e:00:00:01 says nothing that is known"),
            ("af-xdp:fd=2", "fd=2 is not a number from 3 to 2147483647"),
            ("af-xdp:fd=x", "fd=x is not a number"),
            ("af-xdp:fd=3,mtu=1500", "there is no option `mtu` for a port of kind af-xdp:fd=N"),
            ("af-xdp:fd=3,steal=all", "those of the device are for `vswitch open`"),
            ("tap:t,ofport=LOCAL", "ofport=LOCAL is not a number from 1 to 4294967040, nor local"),
            ("tap:t,ofport=4294967294", "ofport=4294967294 is not a number"),
        ] {
            let error = error(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_handed_over_is_a_device_without_a_port() {
        let device = parse_device("af-xdp:eth0,queues=2,mtu=9000").expect("a device");
        assert_eq!((device.device.as_str(), device.queues, device.mtu), ("eth0", 2, Some(9000)));
        for text in ["tap:t", "af-xdp:fd=3"] {
            assert_eq!(parse_device(text), Err(SpecError::NotHandedOver(text.into())));
        }
        for option in ["vlan=1", "trunk=1-2", "ofport=3", "icmp-too-big"] {
            assert_eq!(parse_device(&format!("af-xdp:e,{option}")), Err(SpecError::OfThePort));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = parse_port(&text);
            for kind in ["vhost-user", "af-xdp", "tap"] {
                let _ = parse_port(&format!("a={kind}:{text}"));
            }
        }
    }
}

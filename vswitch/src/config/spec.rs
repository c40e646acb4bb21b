//! A port as an operator writes it: `NAME=SPEC`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The most queue pairs that a vhost-user front end can number (the ring index of its messages has 8 bits).
pub const QUEUES_MAX: u16 = 128;
/// The smallest MTU that every IPv4 host must take (RFC 791).
pub const MTU_MIN: u16 = 68;
/// OpenFlow 1.3 gives a port's name 16 bytes with the final zero (7.2.1).
pub const NAME_MAX: usize = 15;
/// `OFPP_MAX`, the highest number of an ordinary port.
const OFPORT_MAX: u32 = 0xffff_ff00;

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
    /// The OpenFlow port number that the operator wants, 1 to `OFPP_MAX`.
    pub ofport: Option<u32>,
}

/// How a port's frames come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// A guest's virtio-net queues over vhost-user.
    VhostUser(VhostUser),
}

/// A vhost-user port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUser {
    /// The Unix socket; relative to the run directory unless absolute.
    pub socket: PathBuf,
    /// Who listens on it.
    pub role: Role,
    /// The most queue pairs that the guest may use, 1 to [`QUEUES_MAX`].
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
    #[error("`{0}` does not say what kind of port it is; start it with vhost-user:SOCKET")]
    NoKind(String),
    #[error("there is no port kind `{0}`; use vhost-user:SOCKET")]
    UnknownKind(String),
    #[error("{0} ports are not available in this version; use vhost-user:SOCKET")]
    NotAvailable(&'static str),
    #[error("vhost-user needs the path of a socket; write vhost-user:SOCKET")]
    NoSocket,
    #[error("there is no option `{0}` for a vhost-user port; the options are client, queues=N, mtu=N, vlan=N, trunk=A-B and ofport=N")]
    UnknownOption(String),
    #[error("option {0} is given twice; give it once")]
    Twice(&'static str),
    #[error("{option}={value} is not a number from {least} to {most}")]
    OutOfRange { option: &'static str, value: String, least: u32, most: u32 },
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

impl FromStr for PortSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| SpecError::NoKind(text.to_owned()))?;
        match kind {
            "vhost-user" => vhost_user(rest),
            "af-xdp" => Err(SpecError::NotAvailable("af-xdp")),
            "tap" => Err(SpecError::NotAvailable("tap")),
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

fn vhost_user(text: &str) -> Result<PortSpec, SpecError> {
    let mut parts = text.split(',');
    let socket = parts.next().unwrap_or_default();
    if socket.is_empty() {
        return Err(SpecError::NoSocket);
    }
    let (mut client, mut queues, mut mtu, mut vlan, mut ofport) = (None, None, None, None, None);
    let mut trunk = Vec::new();
    for part in parts {
        match part.split_once('=') {
            None if part == "client" => once("client", &mut client, ())?,
            Some(("queues", value)) => once("queues", &mut queues, number("queues", value, 1, u32::from(QUEUES_MAX))? as u16)?,
            Some(("mtu", value)) => once("mtu", &mut mtu, number("mtu", value, u32::from(MTU_MIN), u32::from(u16::MAX))? as u16)?,
            Some(("vlan", value)) => once("vlan", &mut vlan, number("vlan", value, 1, 4094)? as u16)?,
            Some(("ofport", value)) => once("ofport", &mut ofport, number("ofport", value, 1, OFPORT_MAX)?)?,
            Some(("trunk", value)) => trunk.push(vlan_range(value)?),
            _ => return Err(SpecError::UnknownOption(part.to_owned())),
        }
    }
    let vlan = match (vlan, trunk.is_empty()) {
        (None, true) => VlanSpec::All,
        (Some(vlan), true) => VlanSpec::Access(vlan),
        (native, false) => VlanSpec::Trunk { ranges: trunk, native },
    };
    let role = if client.is_some() { Role::Client } else { Role::Server };
    Ok(PortSpec { kind: PortKind::VhostUser(VhostUser { socket: socket.into(), role, queues: queues.unwrap_or(1), mtu }), vlan, ofport })
}

fn once<T>(option: &'static str, place: &mut Option<T>, value: T) -> Result<(), SpecError> {
    if place.replace(value).is_some() { Err(SpecError::Twice(option)) } else { Ok(()) }
}

fn number(option: &'static str, value: &str, least: u32, most: u32) -> Result<u32, SpecError> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if plain && (least..=most).contains(&number) => Ok(number),
        _ => Err(SpecError::OutOfRange { option, value: value.to_owned(), least, most }),
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
    use super::*;

    #[test]
    fn a_plain_port_is_a_server_trunk_with_one_queue() {
        let (name, spec) = parse_port("vm1=vhost-user:/tmp/vm1.sock").expect("valid");
        assert_eq!(name.as_str(), "vm1");
        let kind = PortKind::VhostUser(VhostUser { socket: "/tmp/vm1.sock".into(), role: Role::Server, queues: 1, mtu: None });
        assert_eq!(spec, PortSpec { kind, vlan: VlanSpec::All, ofport: None });
    }

    #[test]
    fn every_option_is_taken() {
        let spec: PortSpec = "vhost-user:a=b.sock,client,queues=4,mtu=9000,trunk=10-20,trunk=30,ofport=7".parse().expect("valid");
        let kind = PortKind::VhostUser(VhostUser { socket: "a=b.sock".into(), role: Role::Client, queues: 4, mtu: Some(9000) });
        assert_eq!(spec, PortSpec { kind, vlan: VlanSpec::Trunk { ranges: vec![(10, 20), (30, 30)], native: None }, ofport: Some(7) });
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
        assert_eq!(error("a=tap:x"), SpecError::NotAvailable("tap"));
        assert_eq!(error("a=af-xdp:eth0"), SpecError::NotAvailable("af-xdp"));
        assert_eq!(error("a=vhost-user:"), SpecError::NoSocket);
        assert_eq!(error("a=vhost-user:,client"), SpecError::NoSocket);
        assert_eq!(error("a=vhost-user:x,server"), SpecError::UnknownOption("server".into()));
        assert_eq!(error("a=vhost-user:x,client=1"), SpecError::UnknownOption("client=1".into()));
        assert_eq!(error("a=vhost-user:x,"), SpecError::UnknownOption(String::new()));
        assert_eq!(error("a=vhost-user:x,queues=1,queues=2"), SpecError::Twice("queues"));
        for value in ["0", "129", "+1", "1 ", "x", "", "4294967297"] {
            let expected = SpecError::OutOfRange { option: "queues", value: value.into(), least: 1, most: 128 };
            assert_eq!(error(&format!("a=vhost-user:x,queues={value}")), expected);
        }
        for value in ["20-10", "0-10", "1-4095", "-", "1-2-3", "5-"] {
            assert_eq!(error(&format!("a=vhost-user:x,trunk={value}")), SpecError::BadTrunk(value.into()));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = parse_port(&text);
            let _ = parse_port(&format!("a=vhost-user:{text}"));
        }
    }
}

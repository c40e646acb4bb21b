//! OpenFlow targets, written as in Open vSwitch: where to connect to a controller, and where to listen.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// OpenFlow's port of the Internet Assigned Numbers Authority.
pub const OPENFLOW_PORT: u16 = 6653;

/// A controller to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum ControllerTarget {
    /// `tcp:HOST[:PORT]`. HOST is an address, IPv6 in brackets, or a name.
    Tcp {
        /// The address or name, without brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// `ssl:HOST[:PORT]`: the same with TLS.
    Ssl {
        /// The address or name, without brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// `unix:FILE`, relative to the run directory unless absolute.
    Unix(PathBuf),
}

/// Where controllers and tools connect to the switch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum ListenTarget {
    /// `ptcp:[PORT][:HOST]`. HOST is an address, IPv6 in brackets; without it, all IPv4 addresses.
    Tcp(SocketAddr),
    /// `pssl:[PORT][:HOST]`: the same with TLS.
    Ssl(SocketAddr),
    /// `punix:FILE`, relative to the run directory unless absolute.
    Unix(PathBuf),
}

/// What is wrong with a target.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TargetError {
    #[error("`{0}` is not a controller's target; write tcp:HOST[:PORT], ssl:HOST[:PORT] or unix:FILE")]
    NotController(String),
    #[error("`{0}` is not a target to listen on; write ptcp:[PORT][:ADDRESS], pssl:[PORT][:ADDRESS] or punix:FILE")]
    NotListen(String),
    #[error("`{0}` is not a TCP port; give a number from {1} to 65535")]
    BadPort(String, u16),
    #[error("`{0}` is not an address to listen on; give an IPv4 address or an IPv6 address in brackets")]
    BadAddress(String),
    #[error("`{0}` needs a host; write {1}:HOST[:PORT]")]
    NoHost(String, &'static str),
    #[error("`{0}` is not a host; give an address or a DNS name")]
    BadHost(String),
    #[error("`{0}` needs the path of a socket")]
    NoFile(String),
}

impl ControllerTarget {
    /// Whether it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Ssl { .. })
    }
}

impl ListenTarget {
    /// Whether it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Ssl(_))
    }
}

impl FromStr for ControllerTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let host_and_port = |rest, scheme| {
            let (host, port) = host_and_port(rest).ok_or_else(|| TargetError::NotController(text.to_owned()))?;
            if host.is_empty() {
                return Err(TargetError::NoHost(text.to_owned(), scheme));
            }
            Ok((host.to_owned(), port.map_or(Ok(OPENFLOW_PORT), |port| tcp_port(port, 1))?))
        };
        match text.split_once(':') {
            Some(("tcp", rest)) => host_and_port(rest, "tcp").map(|(host, port)| Self::Tcp { host, port }),
            Some(("ssl", rest)) => {
                let (host, port) = host_and_port(rest, "ssl")?;
                // TLS tells the controller the name by which it was called, so it must be one.
                match ServerName::try_from(host.as_str()) {
                    Ok(_) => Ok(Self::Ssl { host, port }),
                    Err(_) => Err(TargetError::BadHost(host)),
                }
            }
            Some(("unix", file)) => Ok(Self::Unix(path(text, file)?)),
            _ => Err(TargetError::NotController(text.to_owned())),
        }
    }
}

impl FromStr for ListenTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.split_once(':') {
            Some(("ptcp", rest)) => address(rest).map(Self::Tcp),
            Some(("pssl", rest)) => address(rest).map(Self::Ssl),
            Some(("punix", file)) => Ok(Self::Unix(path(text, file)?)),
            _ => Err(TargetError::NotListen(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ControllerTarget {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl TryFrom<String> for ListenTarget {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl fmt::Display for ControllerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "ssl" } else { "tcp" };
        match self {
            Self::Tcp { host, port } | Self::Ssl { host, port } if host.contains(':') => write!(f, "{scheme}:[{host}]:{port}"),
            Self::Tcp { host, port } | Self::Ssl { host, port } => write!(f, "{scheme}:{host}:{port}"),
            Self::Unix(file) => write!(f, "unix:{}", file.display()),
        }
    }
}

impl fmt::Display for ListenTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "pssl" } else { "ptcp" };
        match self {
            Self::Tcp(SocketAddr::V4(address)) | Self::Ssl(SocketAddr::V4(address)) => {
                write!(f, "{scheme}:{}:{}", address.port(), address.ip())
            }
            Self::Tcp(SocketAddr::V6(address)) | Self::Ssl(SocketAddr::V6(address)) => {
                write!(f, "{scheme}:{}:[{}]", address.port(), address.ip())
            }
            Self::Unix(file) => write!(f, "punix:{}", file.display()),
        }
    }
}

/// `[PORT][:ADDRESS]`.
fn address(text: &str) -> Result<SocketAddr, TargetError> {
    let (port, host) = text.split_once(':').unwrap_or((text, ""));
    let port = if port.is_empty() { OPENFLOW_PORT } else { tcp_port(port, 0)? };
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6).ok(),
        None if host.is_empty() => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        None => host.parse().map(IpAddr::V4).ok(),
    };
    Ok(SocketAddr::new(address.ok_or_else(|| TargetError::BadAddress(host.to_owned()))?, port))
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn host_and_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        // More than one colon: an IPv6 address without its brackets.
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

fn tcp_port(text: &str, least: u16) -> Result<u16, TargetError> {
    let port = text.parse().ok().filter(|port| *port >= least && !text.starts_with('+'));
    port.ok_or_else(|| TargetError::BadPort(text.to_owned(), least))
}

fn path(target: &str, file: &str) -> Result<PathBuf, TargetError> {
    if file.is_empty() { Err(TargetError::NoFile(target.to_owned())) } else { Ok(file.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_as_in_open_vswitch() {
        let shown = |text: &str| text.parse::<ControllerTarget>().map(|target| target.to_string());
        assert_eq!(shown("tcp:127.0.0.1"), Ok("tcp:127.0.0.1:6653".into()));
        assert_eq!(shown("tcp:control.example:6633"), Ok("tcp:control.example:6633".into()));
        assert_eq!(shown("tcp:[::1]"), Ok("tcp:[::1]:6653".into()));
        assert_eq!(shown("tcp:[::1]:1"), Ok("tcp:[::1]:1".into()));
        assert_eq!(shown("unix:c.sock"), Ok("unix:c.sock".into()));
        assert_eq!(shown("tcp:"), Err(TargetError::NoHost("tcp:".into(), "tcp")));
        assert_eq!(shown("tcp:h:0"), Err(TargetError::BadPort("0".into(), 1)));
        assert_eq!(shown("tcp:h:65536"), Err(TargetError::BadPort("65536".into(), 1)));
        assert_eq!(shown("tcp:::1"), Err(TargetError::NotController("tcp:::1".into())));
        assert_eq!(shown("tcp:[::1]x"), Err(TargetError::NotController("tcp:[::1]x".into())));
        assert_eq!(shown("ssl:h"), Ok("ssl:h:6653".into()));
        assert_eq!(shown("ssl:[::1]:6"), Ok("ssl:[::1]:6".into()));
        assert_eq!(shown("ssl:"), Err(TargetError::NoHost("ssl:".into(), "ssl")));
        assert_eq!(shown("ssl:a b"), Err(TargetError::BadHost("a b".into())));
        assert_eq!(shown("unix:"), Err(TargetError::NoFile("unix:".into())));
        assert_eq!(shown("ptcp:"), Err(TargetError::NotController("ptcp:".into())));
    }

    #[test]
    fn listeners_as_in_open_vswitch() {
        let shown = |text: &str| text.parse::<ListenTarget>().map(|target| target.to_string());
        assert_eq!(shown("ptcp:"), Ok("ptcp:6653:0.0.0.0".into()));
        assert_eq!(shown("ptcp:6633"), Ok("ptcp:6633:0.0.0.0".into()));
        assert_eq!(shown("ptcp:6653:127.0.0.1"), Ok("ptcp:6653:127.0.0.1".into()));
        assert_eq!(shown("ptcp::127.0.0.1"), Ok("ptcp:6653:127.0.0.1".into()));
        assert_eq!(shown("ptcp:0:[::1]"), Ok("ptcp:0:[::1]".into()));
        assert_eq!(shown("punix:br0.mgmt"), Ok("punix:br0.mgmt".into()));
        assert_eq!(shown("ptcp:x"), Err(TargetError::BadPort("x".into(), 0)));
        assert_eq!(shown("ptcp:1:localhost"), Err(TargetError::BadAddress("localhost".into())));
        assert_eq!(shown("pssl:"), Ok("pssl:6653:0.0.0.0".into()));
        assert_eq!(shown("pssl:0:[::1]"), Ok("pssl:0:[::1]".into()));
        assert_eq!(shown("tcp:h"), Err(TargetError::NotListen("tcp:h".into())));
    }
}

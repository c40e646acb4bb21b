//! The words that the command line and the config file share.

use std::fmt;
use std::str::FromStr;

/// A word that is not known, and those that are.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not known here; use {known}")]
pub struct UnknownWord {
    given: String,
    known: &'static str,
}

/// Declares an enum whose variants are words, parsed alike from flags and from TOML.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident($known:literal) { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// The word.
            pub const fn word(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($text => Ok(Self::$variant),)* _ => Err(UnknownWord { given: text.to_owned(), known: $known }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = UnknownWord;
            fn try_from(text: String) -> Result<Self, UnknownWord> { text.parse() }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self { word.word().to_owned() }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.word()) }
        }
    };
}

words! {
    /// What a worker without work does.
    Poll("adaptive, busy or interrupt") {
        /// Polls for a while, then sleeps until a guest notifies.
        Adaptive = "adaptive",
        /// Polls for ever.
        Busy = "busy",
        /// Sleeps at once.
        Interrupt = "interrupt",
    }
}

words! {
    /// What the switch does without a controller.
    FailMode("standalone or secure") {
        /// It is a learning switch.
        Standalone = "standalone",
        /// It does what the rules say, and nothing else.
        Secure = "secure",
    }
}

words! {
    /// Where in the kernel an XDP program sees frames.
    XdpMode("native or generic") {
        /// In the device's driver.
        Native = "native",
        /// Behind it, for drivers that have no place for a program.
        Generic = "generic",
    }
}

words! {
    /// Whether a device itself reads and writes frames in our memory.
    ZeroCopy("auto, on or off") {
        /// If its driver can.
        Auto = "auto",
        /// It must.
        On = "on",
        /// The kernel copies.
        Off = "off",
    }
}

words! {
    /// How much is logged.
    LogLevel("off, error, warn, info, debug or trace") {
        /// Nothing.
        Off = "off",
        /// What failed.
        Error = "error",
        /// What should not be.
        Warn = "warn",
        /// What an operator wants to know.
        Info = "info",
        /// What a developer wants to know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

/// A version of OpenFlow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Version {
    /// OpenFlow 1.0, wire version 1.
    V10,
    /// OpenFlow 1.3, wire version 4.
    V13,
}

/// A version that the switch can't speak.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("OpenFlow {0} is not available in this version; use {known}", known = Versions::SPOKEN)]
pub struct VersionError(String);

impl Version {
    const ALL: [Self; 2] = [Self::V10, Self::V13];

    /// What it is called.
    pub const fn word(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V13 => "1.3",
        }
    }

    /// Its number in the header of messages.
    pub const fn wire(self) -> u8 {
        match self {
            Self::V10 => 1,
            Self::V13 => 4,
        }
    }

    /// The version with this number in the header of messages.
    pub fn from_wire(wire: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.wire() == wire)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        Versions::SPOKEN.iter().find(|version| version.word() == text).ok_or_else(|| VersionError(text.to_owned()))
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A set of OpenFlow versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions(u32);

impl Versions {
    /// Those that the switch speaks, which is also what it offers unless told otherwise.
    pub const SPOKEN: Self = Self::of(&[Version::V10, Version::V13]);

    /// The set of these.
    pub const fn of(versions: &[Version]) -> Self {
        let (mut bitmap, mut at) = (0, 0);
        while at < versions.len() {
            bitmap |= 1 << versions[at].wire();
            at += 1;
        }
        Self(bitmap)
    }

    /// The highest of them; of an empty set, the lowest that there is.
    pub fn highest(self) -> Version {
        self.iter().last().unwrap_or(Version::V10)
    }

    /// As in a hello: bit N for wire version N.
    pub const fn bitmap(self) -> u32 {
        self.0
    }

    /// The members, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Version> {
        Version::ALL.into_iter().filter(move |version| self.0 >> version.wire() & 1 != 0)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().enumerate().try_for_each(|(i, version)| write!(f, "{}{version}", if i == 0 { "" } else { ", " }))
    }
}

/// An OpenFlow datapath id, not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct DatapathId(pub u64);

/// What is wrong with a datapath id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a datapath id; give 16 hexadecimal digits, not all zero")]
pub struct DatapathIdError(String);

impl FromStr for DatapathId {
    type Err = DatapathIdError;

    fn from_str(text: &str) -> Result<Self, DatapathIdError> {
        let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(id) if plain && id != 0 => Ok(Self(id)),
            _ => Err(DatapathIdError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for DatapathId {
    type Error = DatapathIdError;

    fn try_from(text: String) -> Result<Self, DatapathIdError> {
        text.parse()
    }
}

impl fmt::Display for DatapathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datapath_id_has_16_digits() {
        assert_eq!("00000000000000ab".parse(), Ok(DatapathId(0xab)));
        assert_eq!(DatapathId(0xab).to_string(), "00000000000000ab");
        for text in ["", "1", "0000000000000000", "+000000000000001", "000000000000000g", "00000000000000001"] {
            assert_eq!(text.parse::<DatapathId>(), Err(DatapathIdError(text.into())));
        }
    }

    #[test]
    fn versions_are_a_set() {
        let versions = Versions::of(&[Version::V13, Version::V10, Version::V13]);
        assert_eq!((versions.bitmap(), versions.to_string()), (0b1_0010, "1.0, 1.3".into()));
        assert_eq!([0, 1, 4, 5].map(Version::from_wire), [None, Some(Version::V10), Some(Version::V13), None]);
        for text in ["1.1", "1", "4", ""] {
            assert_eq!(text.parse::<Version>(), Err(VersionError(text.into())));
        }
    }

    #[test]
    fn unknown_words_are_answered_with_the_known_ones() {
        assert_eq!("busy".parse(), Ok(Poll::Busy));
        let error = "Busy".parse::<Poll>().expect_err("unknown");
        assert_eq!(error.to_string(), "`Busy` is not known here; use adaptive, busy or interrupt");
    }
}

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
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
        #[serde(try_from = "String")]
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
    /// OpenFlow 1.3, wire version 4.
    V13,
}

/// A version that the switch can't speak.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("OpenFlow {0} is not available in this version; use 1.3")]
pub struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        if text == "1.3" { Ok(Self::V13) } else { Err(VersionError(text.to_owned())) }
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
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
    fn unknown_words_are_answered_with_the_known_ones() {
        assert_eq!("busy".parse(), Ok(Poll::Busy));
        let error = "Busy".parse::<Poll>().expect_err("unknown");
        assert_eq!(error.to_string(), "`Busy` is not known here; use adaptive, busy or interrupt");
    }
}

//! OFPT_ERROR (OpenFlow 1.3.5, 7.4.4): every type and code of the standard, and those of experimenters that the switch answers with.
//!
//! An experimenter's errors all have the type [`EXPERIMENTER`]; their data begins with the experimenter's id.

use super::bytes::{Put, Reader};
use super::nicira::NICIRA;
use datapath::key::field::OXM_ONF;

/// `OFPET_EXPERIMENTER`: the type of an experimenter's errors.
pub const EXPERIMENTER: u16 = 0xffff;

/// How many bytes of a message in error are sent back with the error: as many as a message has room for, since a person who sees the error
/// is told what was wrong only if all of the message is there. (The standard asks for 64 at least.)
pub const ERROR_DATA: usize = 0xffff - 12;

/// Declares the error types with their codes; the doc text of a code is what the standard says of it.
macro_rules! error_types {
    ($($(#[$meta:meta])* $type:ident = $number:tt $(of $experimenter:ident)? { $($code:ident = $value:literal, $says:literal;)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            #[repr(u16)]
            pub enum $type { $(#[doc = $says] $code = $value,)* }

            impl From<$type> for ErrorCode {
                fn from(code: $type) -> Self { Self::$type(code) }
            }
        )*

        /// What went wrong, as OpenFlow says it: an error type and one of its codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[error("{}", self.says())]
        pub enum ErrorCode { $(#[allow(missing_docs)] $type($type),)* }

        impl ErrorCode {
            /// Every error that there is.
            pub const ALL: &'static [Self] = &[$($(Self::$type($type::$code),)*)*];

            /// The type and the code as numbers.
            pub fn numbers(self) -> (u16, u16) {
                match self { $(Self::$type(code) => ($number, code as u16),)* }
            }

            /// The experimenter's id, of an experimenter's error.
            pub fn experimenter(self) -> Option<u32> {
                match self { $(Self::$type(_) => [$($experimenter)?].first().copied(),)* }
            }

            /// One sentence for a person.
            pub fn says(self) -> &'static str {
                match self { $($(Self::$type($type::$code) => $says,)*)* }
            }
        }
    };
}

error_types! {
    /// OFPET_HELLO_FAILED: no common version.
    HelloFailed = 0 {
        Incompatible = 0, "No compatible version.";
        Eperm = 1, "Permissions error in the hello.";
    }
    /// OFPET_BAD_REQUEST: a message that can't be understood.
    BadRequest = 1 {
        BadVersion = 0, "The message's version is not supported.";
        BadType = 1, "The message's type is not supported.";
        BadMultipart = 2, "The multipart type is not supported.";
        BadExperimenter = 3, "The experimenter is not supported.";
        BadExpType = 4, "The experimenter's message type is not supported.";
        Eperm = 5, "Permissions error in the request.";
        BadLen = 6, "The request has the wrong length for its type.";
        BufferEmpty = 7, "The specified buffer has already been used.";
        BufferUnknown = 8, "The specified buffer does not exist.";
        BadTableId = 9, "The table id is invalid or does not exist.";
        IsSlave = 10, "Denied because the controller is a slave.";
        BadPort = 11, "The port is invalid.";
        BadPacket = 12, "The packet in the packet-out is invalid.";
        MultipartBufferOverflow = 13, "The multipart request overflowed the assigned buffer.";
    }
    /// OFPET_BAD_ACTION.
    BadAction = 2 {
        BadType = 0, "Unknown or unsupported action type.";
        BadLen = 1, "Length problem in the actions.";
        BadExperimenter = 2, "Unknown experimenter id in an action.";
        BadExpType = 3, "Unknown action for the experimenter id.";
        BadOutPort = 4, "Problem validating an output port.";
        BadArgument = 5, "Bad argument of an action.";
        Eperm = 6, "Permissions error in the actions.";
        TooMany = 7, "Too many actions.";
        BadQueue = 8, "Problem validating an output queue.";
        BadOutGroup = 9, "Invalid group id in an action.";
        MatchInconsistent = 10, "An action can't apply to this match, or a set-field misses its prerequisite.";
        UnsupportedOrder = 11, "The order of actions is not supported for the action list.";
        BadTag = 12, "An action uses an unsupported tag or encapsulation.";
        BadSetType = 13, "Unsupported type in a set-field action.";
        BadSetLen = 14, "Length problem in a set-field action.";
        BadSetArgument = 15, "Bad argument in a set-field action.";
    }
    /// OFPET_BAD_INSTRUCTION.
    BadInstruction = 3 {
        UnknownInst = 0, "Unknown instruction.";
        UnsupInst = 1, "The instruction is not supported here.";
        BadTableId = 2, "Invalid table id in an instruction.";
        UnsupMetadata = 3, "The metadata value is not supported.";
        UnsupMetadataMask = 4, "The metadata mask is not supported.";
        BadExperimenter = 5, "Unknown experimenter id in an instruction.";
        BadExpType = 6, "Unknown instruction for the experimenter id.";
        BadLen = 7, "Length problem in the instructions.";
        Eperm = 8, "Permissions error in the instructions.";
    }
    /// OFPET_BAD_MATCH.
    BadMatch = 4 {
        BadType = 0, "The match type is not supported.";
        BadLen = 1, "Length problem in the match.";
        BadTag = 2, "The match uses an unsupported tag or encapsulation.";
        BadDlAddrMask = 3, "Unsupported mask of a data link address.";
        BadNwAddrMask = 4, "Unsupported mask of a network address.";
        BadWildcards = 5, "Unsupported combination of fields masked or omitted.";
        BadField = 6, "Unsupported field in the match.";
        BadValue = 7, "Unsupported value of a field in the match.";
        BadMask = 8, "Unsupported mask of a field in the match.";
        BadPrereq = 9, "A prerequisite of a field in the match is not met.";
        DupField = 10, "A field is twice in the match.";
        Eperm = 11, "Permissions error in the match.";
    }
    /// OFPET_FLOW_MOD_FAILED.
    FlowModFailed = 5 {
        Unknown = 0, "Unspecified error.";
        TableFull = 1, "The flow was not added because the table was full.";
        BadTableId = 2, "The table does not exist.";
        Overlap = 3, "The flow overlaps another one, and CHECK_OVERLAP was asked for.";
        Eperm = 4, "Permissions error in the flow-mod.";
        BadTimeout = 5, "Unsupported idle or hard timeout.";
        BadCommand = 6, "Unsupported or unknown flow-mod command.";
        BadFlags = 7, "Unsupported or unknown flow-mod flags.";
    }
    /// OFPET_GROUP_MOD_FAILED.
    GroupModFailed = 6 {
        GroupExists = 0, "The group is there already.";
        InvalidGroup = 1, "The group id is invalid.";
        WeightUnsupported = 2, "Unequal load sharing is not supported.";
        OutOfGroups = 3, "The group table is full.";
        OutOfBuckets = 4, "The group has too many buckets.";
        ChainingUnsupported = 5, "Groups that forward to groups are not supported.";
        WatchUnsupported = 6, "The group can't watch the specified port or group.";
        Loop = 7, "The group would cause a loop.";
        UnknownGroup = 8, "The group does not exist.";
        ChainedGroup = 9, "Another group forwards to this one.";
        BadType = 10, "Unsupported or unknown group type.";
        BadCommand = 11, "Unsupported or unknown group command.";
        BadBucket = 12, "Error in a bucket.";
        BadWatch = 13, "Error in a watched port or group.";
        Eperm = 14, "Permissions error in the group-mod.";
    }
    /// OFPET_PORT_MOD_FAILED.
    PortModFailed = 7 {
        BadPort = 0, "The port does not exist.";
        BadHwAddr = 1, "The hardware address is not the port's.";
        BadConfig = 2, "The config is invalid.";
        BadAdvertise = 3, "The advertised features are invalid.";
        Eperm = 4, "Permissions error in the port-mod.";
    }
    /// OFPET_TABLE_MOD_FAILED.
    TableModFailed = 8 {
        BadTable = 0, "The table does not exist.";
        BadConfig = 1, "The config is invalid.";
        Eperm = 2, "Permissions error in the table-mod.";
    }
    /// OFPET_QUEUE_OP_FAILED.
    QueueOpFailed = 9 {
        BadPort = 0, "The port is invalid or does not exist.";
        BadQueue = 1, "The queue does not exist.";
        Eperm = 2, "Permissions error in the queue operation.";
    }
    /// OFPET_SWITCH_CONFIG_FAILED.
    SwitchConfigFailed = 10 {
        BadFlags = 0, "The flags are invalid.";
        BadLen = 1, "The miss_send_len is invalid.";
        Eperm = 2, "Permissions error in the configuration.";
    }
    /// OFPET_ROLE_REQUEST_FAILED.
    RoleRequestFailed = 11 {
        Stale = 0, "The generation id is stale.";
        Unsup = 1, "Changing the controller's role is not supported.";
        BadRole = 2, "The role is invalid.";
    }
    /// OFPET_METER_MOD_FAILED.
    MeterModFailed = 12 {
        Unknown = 0, "Unspecified error.";
        MeterExists = 1, "The meter is there already.";
        InvalidMeter = 2, "The meter id is invalid.";
        UnknownMeter = 3, "The meter does not exist.";
        BadCommand = 4, "Unsupported or unknown meter command.";
        BadFlags = 5, "The flags are not supported.";
        BadRate = 6, "The rate is not supported.";
        BadBurst = 7, "The burst size is not supported.";
        BadBand = 8, "The band is not supported.";
        BadBandValue = 9, "The band's value is not supported.";
        OutOfMeters = 10, "No more meters are available.";
        OutOfBands = 11, "The meter has too many bands.";
    }
    /// OFPET_TABLE_FEATURES_FAILED.
    TableFeaturesFailed = 13 {
        BadTable = 0, "The table does not exist.";
        BadMetadata = 1, "The metadata mask is invalid.";
        BadType = 2, "Unknown property.";
        BadLen = 3, "Length problem in the properties.";
        BadArgument = 4, "A property's value is not supported.";
        Eperm = 5, "Permissions error in the table features.";
    }
    /// Nicira's errors.
    Nicira = EXPERIMENTER of NICIRA {
        MustBeZero = 4, "A field that must be zero is not.";
        MonitorExists = 6, "There is a flow monitor of this id already.";
        BadMonitorFlags = 7, "The flow monitor's flags are not supported.";
        UnknownMonitor = 8, "There is no flow monitor of this id.";
        BadEvent = 9, "An event of a flow monitor is unknown.";
        BadConjunction = 15, "A conjunction's clause does not exist, or stands beside other actions.";
        ResumeNotSupported = 34, "Frames can't be resumed.";
    }
    /// What the ONF added to OpenFlow 1.3 from later versions.
    Onf = EXPERIMENTER of OXM_ONF {
        DupInst = 2600, "An instruction is there twice.";
        MultipartRequestTimeout = 2640, "The parts of a multipart request took too long to come.";
    }
    /// The ONF's errors of bundles (extension 230).
    BundleFailed = EXPERIMENTER of OXM_ONF {
        Unknown = 2300, "Unspecified error.";
        Eperm = 2301, "Permissions error in the bundle.";
        BadId = 2302, "The bundle does not exist.";
        BundleExist = 2303, "The bundle exists already.";
        BundleClosed = 2304, "The bundle is closed.";
        OutOfBundles = 2305, "There are too many bundles.";
        BadType = 2306, "Unknown type of a bundle's control message.";
        BadFlags = 2307, "The bundle's flags are unknown, or not those that it had before.";
        MsgBadLen = 2308, "The message for the bundle has a wrong length.";
        MsgBadXid = 2309, "The message for the bundle has another transaction id.";
        MsgUnsup = 2310, "Such a message can't be in a bundle.";
        MsgConflict = 2311, "The message can't be in a bundle with those that are there.";
        MsgTooMany = 2312, "The bundle has no room for more messages.";
        MsgFailed = 2313, "A message of the bundle failed.";
        Timeout = 2314, "The bundle took too long.";
        BundleInProgress = 2315, "Another bundle uses what this one needs.";
    }
}

impl ErrorCode {
    /// The error with these numbers, of the standard or of an experimenter, if there is one.
    pub fn from_numbers(experimenter: Option<u32>, numbers: (u16, u16)) -> Option<Self> {
        Self::ALL.iter().copied().find(|error| error.numbers() == numbers && error.experimenter() == experimenter)
    }
}

/// The body of OFPT_ERROR. The numbers are kept as such: a peer may send errors that are not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// `OFPET_*`.
    pub kind: u16,
    /// The type's code.
    pub code: u16,
    /// The message in error, or (hello failed) a text; before it, the id of an experimenter whose error it is.
    pub data: Vec<u8>,
}

impl Error {
    /// The answer to `message`: the error with the message.
    pub fn new(code: ErrorCode, message: &[u8]) -> Self {
        let mut data = code.experimenter().map_or(Vec::new(), |experimenter| experimenter.to_be_bytes().to_vec());
        data.extend_from_slice(&message[..message.len().min(ERROR_DATA - data.len())]);
        let (kind, code) = code.numbers();
        Self { kind, code, data }
    }

    /// The message that it answers, or as much of it as came.
    pub fn request(&self) -> &[u8] {
        let before = if self.kind == EXPERIMENTER { 4 } else { 0 };
        self.data.get(before..).unwrap_or_default()
    }

    /// Which error it is, if it is one of those that there are.
    pub fn error_code(&self) -> Option<ErrorCode> {
        let experimenter = self.data.first_chunk().filter(|_| self.kind == EXPERIMENTER).map(|id| u32::from_be_bytes(*id));
        ErrorCode::from_numbers(experimenter, (self.kind, self.code))
    }

    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        Ok(Self { kind: body.u16()?, code: body.u16()?, data: body.rest().to_vec() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.kind);
        out.put_u16(self.code);
        out.extend_from_slice(&self.data);
    }
}

//! OFPT_ERROR (OpenFlow 1.0, 5.4.4), and Nicira's wrapping of errors that have no code there.

use super::super::bytes::{Put, Reader};
use super::super::error::{
    self, BadAction, BadInstruction, BadMatch, BadRequest, ERROR_DATA, ErrorCode, FlowModFailed, PortModFailed, RoleRequestFailed,
    TableFeaturesFailed,
};
use super::super::{Error, NICIRA};

/// The type of an error whose data begins with a vendor, and that vendor's type and code (NXET_VENDOR, with NXVC_VENDOR_ERROR as code).
const VENDOR: (u16, u16) = (0xb0c2, 0);
/// The bytes that it begins with.
const VENDOR_LENGTH: usize = 8;

/// Type and code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    Standard(u16, u16),
    Nicira(u16, u16),
}

/// NXBRC_UNENCODABLE_ERROR: there was an error, but there is no code for it.
const UNENCODABLE: Numbers = Numbers::Nicira(1, 521);

/// What stands for an error in OpenFlow 1.0. (Where it is Nicira's, it is what Open vSwitch 3.1 sends.)
fn numbers(error: ErrorCode) -> Numbers {
    use Numbers::{Nicira, Standard};
    match error {
        ErrorCode::HelloFailed(code) => Standard(0, code as u16),
        ErrorCode::BadRequest(code) => match code {
            BadRequest::BadTableId => Nicira(1, 512),
            BadRequest::IsSlave => Standard(1, BadRequest::Eperm as u16),
            BadRequest::BadPort => Nicira(1, 514),
            BadRequest::BadPacket | BadRequest::MultipartBufferOverflow => UNENCODABLE,
            _ => Standard(1, code as u16),
        },
        ErrorCode::BadAction(code) => match code {
            BadAction::BadOutGroup => Nicira(2, 9),
            BadAction::MatchInconsistent => Nicira(1, 522),
            BadAction::UnsupportedOrder | BadAction::BadTag => UNENCODABLE,
            BadAction::BadSetType => Nicira(1, 523),
            BadAction::BadSetLen => Nicira(1, 524),
            BadAction::BadSetArgument => Nicira(1, 525),
            _ => Standard(2, code as u16),
        },
        ErrorCode::BadInstruction(BadInstruction::UnsupInst) => Nicira(2, 257),
        ErrorCode::BadMatch(code) => match code {
            BadMatch::BadWildcards => Nicira(1, 262),
            BadMatch::BadField => Nicira(0, 263),
            BadMatch::BadValue => Nicira(1, 258),
            BadMatch::BadMask => Nicira(1, 259),
            BadMatch::BadPrereq => Nicira(1, 260),
            BadMatch::DupField => Nicira(1, 261),
            _ => UNENCODABLE,
        },
        ErrorCode::FlowModFailed(code) => match code {
            FlowModFailed::TableFull => Standard(3, 0),
            FlowModFailed::Overlap => Standard(3, 1),
            FlowModFailed::Eperm => Standard(3, 2),
            FlowModFailed::BadCommand => Standard(3, 4),
            FlowModFailed::BadFlags => Nicira(3, 258),
            _ => UNENCODABLE,
        },
        ErrorCode::GroupModFailed(code) => Nicira(6, code as u16),
        ErrorCode::PortModFailed(code @ (PortModFailed::BadPort | PortModFailed::BadHwAddr)) => Standard(4, code as u16),
        ErrorCode::QueueOpFailed(code) => Standard(5, code as u16),
        ErrorCode::RoleRequestFailed(RoleRequestFailed::BadRole) => Nicira(1, 513),
        ErrorCode::TableFeaturesFailed(
            code @ (TableFeaturesFailed::BadType | TableFeaturesFailed::BadLen | TableFeaturesFailed::BadArgument),
        ) => Nicira(13, code as u16),
        ErrorCode::Nicira(code) => match code {
            error::Nicira::MustBeZero => Nicira(1, 515),
            error::Nicira::MonitorExists => Nicira(1, 517),
            error::Nicira::BadMonitorFlags => Nicira(1, 518),
            error::Nicira::UnknownMonitor => Nicira(1, 519),
            error::Nicira::BadEvent => Nicira(1, 520),
            error::Nicira::BadConjunction => Nicira(2, 526),
            error::Nicira::ResumeNotSupported => Nicira(1, 533),
        },
        _ => UNENCODABLE,
    }
}

/// Reads an error into OpenFlow 1.3's numbers, if it has any; else it stays as it is.
pub(super) fn decode(mut body: Reader) -> Result<Error, ErrorCode> {
    let (kind, code) = (body.u16()?, body.u16()?);
    let standard = (Numbers::Standard(kind, code), body);
    let (said, mut data) = if (kind, code) == VENDOR { unwrap(body).unwrap_or(standard) } else { standard };
    match ErrorCode::ALL.iter().find(|error| said != UNENCODABLE && numbers(**error) == said) {
        Some(error) => Ok(Error::new(*error, data.rest())),
        None => Ok(Error { kind, code, data: body.rest().to_vec() }),
    }
}

/// What is in Nicira's wrapping, and the data behind it.
fn unwrap(mut data: Reader) -> Option<(Numbers, Reader)> {
    let (vendor, kind, code) = (data.u32().ok()?, data.u16().ok()?, data.u16().ok()?);
    (vendor == NICIRA).then_some((Numbers::Nicira(kind, code), data))
}

/// Appends an error; numbers that are no error of OpenFlow 1.3 stay as they are.
pub(super) fn put(out: &mut Vec<u8>, error: &Error) {
    let known = error.error_code();
    let numbers = known.map_or(Numbers::Standard(error.kind, error.code), numbers);
    // In OpenFlow 1.3 an experimenter's id comes first.
    let data = &error.data[if known.is_some_and(|error| error.experimenter().is_some()) { 4 } else { 0 }..];
    let room = match numbers {
        Numbers::Standard(kind, code) => {
            out.put_u16(kind);
            out.put_u16(code);
            ERROR_DATA
        }
        Numbers::Nicira(kind, code) => {
            out.put_u16(VENDOR.0);
            out.put_u16(VENDOR.1);
            out.put_u32(NICIRA);
            out.put_u16(kind);
            out.put_u16(code);
            ERROR_DATA - VENDOR_LENGTH
        }
    };
    out.extend_from_slice(&data[..data.len().min(room)]);
}

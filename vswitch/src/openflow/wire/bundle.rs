//! Bundles: changes that are prepared and then made all at once (ONF extension 230: OpenFlow 1.4's bundles for OpenFlow 1.3, as experimenter messages).

use super::bytes::{Put, Reader};
use super::error::{BundleFailed, ErrorCode};
use super::{HEADER, Header};

// OFPBF_*
/// All of the bundle or nothing, and no frame sees a part of it. (Every bundle is like this here.)
pub const ATOMIC: u16 = 1;
/// In the order of its messages. (Every bundle is like this here.)
pub const ORDERED: u16 = 1 << 1;

/// What is asked of a bundle, or answered (`OFPBCT_*`). An answer is one more than what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs)] // the names are the standard's
pub enum BundleControlType {
    OpenRequest = 0,
    OpenReply = 1,
    CloseRequest = 2,
    CloseReply = 3,
    CommitRequest = 4,
    CommitReply = 5,
    DiscardRequest = 6,
    DiscardReply = 7,
}

impl BundleControlType {
    const ALL: [Self; 8] = [
        Self::OpenRequest,
        Self::OpenReply,
        Self::CloseRequest,
        Self::CloseReply,
        Self::CommitRequest,
        Self::CommitReply,
        Self::DiscardRequest,
        Self::DiscardReply,
    ];
}

/// The body of ONF_ET_BUNDLE_CONTROL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleControl {
    /// The bundle, by the controller's number.
    pub bundle: u32,
    /// What is to become of it.
    pub kind: BundleControlType,
    /// [`ATOMIC`] and [`ORDERED`].
    pub flags: u16,
}

impl BundleControl {
    pub(super) fn decode(mut body: Reader) -> Result<Self, ErrorCode> {
        let (bundle, kind, flags) = (body.u32()?, body.u16()?, body.u16()?);
        body.finish()?;
        let kind = BundleControlType::ALL.into_iter().find(|known| *known as u16 == kind).ok_or(BundleFailed::BadType)?;
        Ok(Self { bundle, kind, flags })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.bundle);
        out.put_u16(self.kind as u16);
        out.put_u16(self.flags);
    }
}

/// The body of ONF_ET_BUNDLE_ADD_MESSAGE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleAdd {
    /// The bundle.
    pub bundle: u32,
    /// As in [`BundleControl`].
    pub flags: u16,
    /// A whole message.
    pub message: Vec<u8>,
}

impl BundleAdd {
    /// `header` is that of the message it is in, with which the one for the bundle must agree.
    pub(super) fn decode(header: Header, mut body: Reader) -> Result<Self, ErrorCode> {
        let bundle = body.u32()?;
        body.skip(2)?;
        let flags = body.u16()?;
        let message = body.rest();
        let inner = Header::decode(message).ok_or(BundleFailed::MsgBadLen)?;
        let length = usize::from(inner.length);
        // Properties may follow; there are none but those of experimenters.
        let message = message.get(..length).filter(|_| length >= HEADER).ok_or(BundleFailed::MsgBadLen)?;
        if inner.version != header.version {
            return Err(BundleFailed::MsgUnsup.into());
        }
        if inner.xid != header.xid {
            return Err(BundleFailed::MsgBadXid.into());
        }
        Ok(Self { bundle, flags, message: message.to_vec() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.bundle);
        out.put_zeros(2);
        out.put_u16(self.flags);
        out.extend_from_slice(&self.message);
    }
}

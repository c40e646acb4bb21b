//! What the two peers of a connection agreed on about how messages are written: the version, and what Nicira's extensions leave to a controller.

use super::error::{BadRequest, ErrorCode};
use super::{ERROR, HELLO, Header, Message, v10};

/// How rules are described in OpenFlow 1.0 (NXT_SET_FLOW_FORMAT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum FlowFormat {
    /// With `struct ofp_match` (NXFF_OPENFLOW10).
    #[default]
    OpenFlow10 = 0,
    /// With Nicira's extensible match (NXFF_NXM).
    Nxm = 2,
}

impl FlowFormat {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        [Self::OpenFlow10, Self::Nxm].into_iter().find(|format| *format as u32 == number)
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The version on the wire.
    pub version: u8,
    /// In OpenFlow 1.0: how rules are described that one peer tells the other of: in a flow-mod, or when they are removed.
    pub(super) told: FlowFormat,
    /// In OpenFlow 1.0: how rules were asked for last, so that the reply describes them so.
    pub(super) asked: FlowFormat,
    /// In OpenFlow 1.0: whether the upper byte of a flow-mod's command is its table (NXT_FLOW_MOD_TABLE_ID).
    pub(super) table_ids: bool,
}

impl Dialect {
    /// That of two peers who speak this version, and have said nothing else.
    pub fn new(version: u8) -> Self {
        Self { version, told: FlowFormat::default(), asked: FlowFormat::default(), table_ids: false }
    }

    /// Reads one message, which `message` holds exactly, and goes by what it says of the messages to come. A hello or an error may be of any version.
    pub fn decode(&mut self, message: &[u8]) -> Result<Message, ErrorCode> {
        let header = Header::decode(message).filter(|header| usize::from(header.length) == message.len()).ok_or(BadRequest::BadLen)?;
        if header.version != self.version && ![HELLO, ERROR].contains(&header.kind) {
            return Err(BadRequest::BadVersion.into());
        }
        let message = match header.version {
            v10::VERSION => v10::decode(header.kind, message, self)?,
            _ => super::decode(message)?,
        };
        match message {
            Message::SetFlowFormat(format) => self.told = format,
            Message::FlowModTableId(set) => self.table_ids = set,
            _ => {}
        }
        Ok(message)
    }

    /// Appends a message, in more than one part if it is a multipart message too long for one. What the version has no words for is left out.
    pub fn encode(&self, message: &Message, xid: u32, out: &mut Vec<u8>) {
        match self.version {
            v10::VERSION => v10::encode(message, xid, self, out),
            _ => super::encode(message, xid, out),
        }
    }
}

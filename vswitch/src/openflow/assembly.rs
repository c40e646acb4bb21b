//! Puts the messages of a multipart request together (OpenFlow 1.3.5, 7.3.5).

use datapath::Nanos;

use super::wire::error::{BadRequest, Onf};
use super::wire::{ErrorCode, Message, MultipartPart};

/// The most bytes of a request: twice what describes all tables.
const MAX_BYTES: usize = 2 << 20;
/// How long the next message may take to come.
const PATIENCE: Nanos = 10_000_000_000;

/// A request of which messages are missing. A connection has one at most.
#[derive(Debug)]
pub struct Assembly {
    xid: u32,
    /// Its first message, or the start of it.
    first: Vec<u8>,
    whole: Vec<u8>,
    /// When a message came last.
    heard: Nanos,
}

impl Assembly {
    /// Takes a message that is one of several: `None` if it is not. The request comes with the last of them.
    pub fn take(this: &mut Option<Self>, xid: u32, message: &[u8], now: Nanos) -> Option<Result<Option<Message>, ErrorCode>> {
        let part = MultipartPart::of(message)?;
        let goes_on =
            this.as_ref().is_some_and(|this| this.xid == xid && MultipartPart::of(&this.first).is_some_and(|first| part.goes_with(&first)));
        if !goes_on && !part.more {
            return None;
        }
        if !goes_on && this.is_some() {
            return Some(Err(BadRequest::MultipartBufferOverflow.into()));
        }
        let first = || message[..message.len().min(64)].to_vec();
        let assembly = this.get_or_insert_with(|| Self { xid, first: first(), whole: Vec::new(), heard: now });
        if assembly.whole.len() + message.len() > MAX_BYTES {
            *this = None;
            return Some(Err(BadRequest::MultipartBufferOverflow.into()));
        }
        assembly.heard = now;
        part.append_to(&mut assembly.whole);
        if part.more {
            return Some(Ok(None));
        }
        let whole = this.take().map(|this| this.whole).unwrap_or_default();
        Some(part.request(&whole).map(|request| Some(Message::MultipartRequest(Box::new(request)))))
    }

    /// Gives up a request whose messages take too long to come: the error, the xid and the first message.
    pub fn expire(this: &mut Option<Self>, now: Nanos) -> Option<(ErrorCode, u32, Vec<u8>)> {
        let late = this.take_if(|this| now.saturating_sub(this.heard) >= PATIENCE)?;
        Some((Onf::MultipartRequestTimeout.into(), late.xid, late.first))
    }
}

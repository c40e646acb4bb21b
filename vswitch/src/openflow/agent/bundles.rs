//! Bundles (ONF extension 230): changes that a controller prepares, and that are then made all at once, or none of them.
//!
//! Messages are checked as they come, as far as they can be without looking at the tables, and kept as bytes. At the commit they are carried out, in their order,
//! on the draft; when one fails, the draft is again what it was before. So no worker sees a part of a bundle, and every bundle is atomic and ordered, whether
//! its flags ask for it or not.

use std::collections::BTreeMap;

use datapath::Nanos;

use super::changes::{Changes, is_change};
use super::{Agent, ConnectionId, Datapath};
use crate::openflow::wire::error::{BadRequest, BundleFailed};
use crate::openflow::wire::{self, ATOMIC, BundleAdd, BundleControl, BundleControlType, ErrorCode, Header, Message, ORDERED};

/// The most bundles of a connection.
const MAX_BUNDLES: usize = 16;
/// The most bytes of messages in the bundles of all connections: a million rules and more.
const MAX_BYTES: usize = 512 << 20;
/// Messages are kept in pieces of this many bytes, so that a bundle that grows is not copied again and again.
const PIECE: usize = 1 << 20;
/// After how long without a message a bundle is discarded.
const PATIENCE: Nanos = 10_000_000_000;

/// The bundles of one connection, by the controller's numbers.
#[derive(Debug, Default)]
pub(in crate::openflow) struct Bundles {
    bundles: BTreeMap<u32, Bundle>,
}

#[derive(Debug)]
struct Bundle {
    flags: u16,
    closed: bool,
    /// Whole messages, one after the other.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    /// When it was opened or a message came last.
    used: Nanos,
    /// What it was opened with, and the xid of that.
    opened: (Vec<u8>, u32),
}

impl Bundle {
    fn new(flags: u16, now: Nanos, opened: (Vec<u8>, u32)) -> Self {
        Self { flags, closed: false, pieces: Vec::new(), bytes: 0, used: now, opened }
    }

    fn push(&mut self, message: &[u8]) {
        match self.pieces.last_mut().filter(|piece| piece.capacity() - piece.len() >= message.len()) {
            Some(piece) => piece.extend_from_slice(message),
            None => {
                // A small bundle is a small piece.
                let mut piece = Vec::with_capacity(if self.pieces.is_empty() { message.len() } else { PIECE });
                piece.extend_from_slice(message);
                self.pieces.push(piece);
            }
        }
        self.bytes += message.len();
    }

    fn messages(&self) -> impl Iterator<Item = (Header, &[u8])> {
        self.pieces.iter().flat_map(|piece| {
            let mut rest = &piece[..];
            std::iter::from_fn(move || {
                let header = Header::decode(rest)?;
                let (message, others) = rest.split_at_checked(header.length.into())?;
                rest = others;
                Some((header, message))
            })
        })
    }
}

impl Bundles {
    pub fn bytes(&self) -> usize {
        self.bundles.values().map(|bundle| bundle.bytes).sum()
    }

    /// The bundle that a message with these flags is about, if there is one.
    fn get(&mut self, id: u32, flags: u16) -> Result<Option<&mut Bundle>, BundleFailed> {
        match self.bundles.get_mut(&id) {
            Some(bundle) if bundle.flags != flags => Err(BundleFailed::BadFlags),
            bundle => Ok(bundle),
        }
    }

    fn open(&mut self, id: u32, bundle: Bundle) -> Result<&mut Bundle, BundleFailed> {
        if self.bundles.len() >= MAX_BUNDLES {
            return Err(BundleFailed::OutOfBundles);
        }
        Ok(self.bundles.entry(id).or_insert(bundle))
    }

    /// Takes out the bundles that took too long, and returns what they were opened with.
    pub fn expire(&mut self, now: Nanos) -> Vec<(Vec<u8>, u32)> {
        let late = self.bundles.extract_if(.., |_, bundle| now.saturating_sub(bundle.used) >= PATIENCE);
        late.map(|(_, bundle)| bundle.opened).collect()
    }
}

impl Agent {
    /// Adds a message to a bundle, which it opens if there is none yet.
    pub(super) fn bundle_add(&mut self, id: ConnectionId, add: &BundleAdd, xid: u32, bytes: &[u8], now: Nanos) -> Result<(), ErrorCode> {
        check_flags(add.flags)?;
        match wire::decode(&add.message) {
            Ok(message) if is_change(&message) => {}
            Ok(_) | Err(ErrorCode::BadRequest(BadRequest::BadType | BadRequest::BadExperimenter | BadRequest::BadExpType)) => {
                return Err(BundleFailed::MsgUnsup.into());
            }
            Err(error) => return Err(error),
        }
        let total: usize = self.sessions.values().map(|session| session.bundles.bytes()).sum();
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let bundle = match session.bundles.get(add.bundle, add.flags)? {
            Some(bundle) if bundle.closed => return Err(BundleFailed::BundleClosed.into()),
            Some(_) => session.bundles.bundles.get_mut(&add.bundle),
            None => Some(session.bundles.open(add.bundle, Bundle::new(add.flags, now, (opening(bytes), xid)))?),
        };
        if total + add.message.len() > MAX_BYTES {
            return Err(BundleFailed::MsgTooMany.into());
        }
        if let Some(bundle) = bundle {
            bundle.push(&add.message);
            bundle.used = now;
        }
        Ok(())
    }

    pub(super) fn bundle_control(
        &mut self,
        id: ConnectionId,
        control: BundleControl,
        xid: u32,
        bytes: &[u8],
        datapath: &mut dyn Datapath,
        now: Nanos,
    ) -> Result<(), ErrorCode> {
        check_flags(control.flags)?;
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let kind = match control.kind {
            BundleControlType::OpenRequest => {
                if session.bundles.bundles.contains_key(&control.bundle) {
                    return Err(BundleFailed::BundleExist.into());
                }
                session.bundles.open(control.bundle, Bundle::new(control.flags, now, (opening(bytes), xid)))?;
                BundleControlType::OpenReply
            }
            BundleControlType::CloseRequest => {
                let bundle = session.bundles.get(control.bundle, control.flags)?.ok_or(BundleFailed::BadId)?;
                if bundle.closed {
                    return Err(BundleFailed::BundleClosed.into());
                }
                (bundle.closed, bundle.used) = (true, now);
                BundleControlType::CloseReply
            }
            BundleControlType::DiscardRequest => {
                session.bundles.bundles.remove(&control.bundle).ok_or(BundleFailed::BadId)?;
                BundleControlType::DiscardReply
            }
            BundleControlType::CommitRequest => {
                session.bundles.get(control.bundle, control.flags)?.ok_or(BundleFailed::BadId)?;
                if let Some(bundle) = session.bundles.bundles.remove(&control.bundle) {
                    self.commit_bundle(id, &bundle, xid, datapath, now)?;
                }
                BundleControlType::CommitReply
            }
            BundleControlType::OpenReply
            | BundleControlType::CloseReply
            | BundleControlType::CommitReply
            | BundleControlType::DiscardReply => return Err(BundleFailed::BadType.into()),
        };
        self.send(id, Message::BundleControl(BundleControl { kind, ..control }), xid);
        Ok(())
    }

    fn commit_bundle(
        &mut self,
        id: ConnectionId,
        bundle: &Bundle,
        xid: u32,
        datapath: &mut dyn Datapath,
        now: Nanos,
    ) -> Result<(), ErrorCode> {
        let before = self.draft.clone();
        let mut changes = Changes::default();
        for (header, message) in bundle.messages() {
            let outcome = wire::decode(message).and_then(|message| self.change(message, now, &mut changes));
            if let Err(error) = outcome {
                self.draft = before;
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.refuse(error, header.xid, message);
                }
                return Err(BundleFailed::MsgFailed.into());
            }
        }
        for packet_out in self.tell(changes, Some((id, xid))) {
            self.send_out(packet_out, datapath, now);
        }
        Ok(())
    }

    /// Discards the bundles that took too long.
    pub(super) fn expire_bundles(&mut self, now: Nanos) {
        for session in self.sessions.values_mut() {
            for (request, xid) in session.bundles.expire(now) {
                session.refuse(BundleFailed::Timeout.into(), xid, &request);
            }
        }
    }
}

fn check_flags(flags: u16) -> Result<(), BundleFailed> {
    if flags & !(ATOMIC | ORDERED) == 0 { Ok(()) } else { Err(BundleFailed::BadFlags) }
}

/// As much of a request as an error has to bring back.
fn opening(request: &[u8]) -> Vec<u8> {
    request[..request.len().min(64)].to_vec()
}

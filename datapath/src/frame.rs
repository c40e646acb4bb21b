//! Frames in the worker's hands.
//!
//! A frame has two parts. Its *head*, all that is ever parsed or changed, is copied once from the sender into the worker's own memory. Its
//! *payload*, the bytes beyond the head, stays with the sender, on loan, until an output copies it to where it goes. A short frame is all
//! head. A [`Batch`] holds the frames of one breath of one queue, and the duplicates that its actions make of them.

use std::marker::PhantomData;

use crate::drops::DropReason;
use crate::memory::{Loans, Segment};
use crate::port::PortNo;

/// The most frames that are taken from a queue at once.
pub const BATCH: usize = 32;
/// The most bytes of a frame that are copied into its head, and so the most that are parsed.
pub const HEAD_MAX: usize = 192;
/// Room before the head for tags that are pushed.
pub const HEADROOM: usize = 64;
/// The most bytes of a head to which tags were pushed.
pub const PUSHED_HEAD_MAX: usize = HEADROOM + HEAD_MAX;
/// The longest frame: 64 KiB of TCP segment to be, and its headers.
pub const FRAME_MAX: usize = 65_536 + 128;
/// The length of an Ethernet header without tags.
pub const ETHERNET_HEADER: usize = 14;

/// What is known of a frame's transport checksum (virtio 1.2, 5.1.6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: it is in the frame, and may be wrong.
    #[default]
    Unknown,
    /// It is in the frame and was verified.
    Valid,
    /// It is to be computed from `start` to the end of the frame and stored at `start + offset`, which holds the sum of the pseudo header.
    Partial {
        /// Where summing starts, from the first byte of the frame.
        start: u16,
        /// Where the sum goes, from `start`.
        offset: u16,
    },
}

/// How a frame is to be cut into segments on its way to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4 (TSO4).
    Tcp4,
    /// TCP over IPv6 (TSO6).
    Tcp6,
    /// UDP over either, each segment a datagram (USO).
    Udp,
}

/// A frame that stands for several: a TSO or USO frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// What to cut.
    pub kind: SegmentationKind,
    /// The TCP header carries CWR, which only the first segment keeps.
    pub ecn: bool,
    /// Payload bytes of each segment, not zero.
    pub size: u16,
}

/// The work on a frame that its sender left to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// Whether the frame must be cut for a receiver that can't take it whole.
    pub segmentation: Option<Segmentation>,
}

/// Where the headers lie in a frame's head, found by [`crate::key::extract`]. Zero means that there is no such header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The first byte after the Ethernet header and its VLAN tags (ARP, IP, an MPLS label).
    pub network: u16,
    /// The first byte of the transport header (TCP, UDP, SCTP, ICMP).
    pub transport: u16,
}

/// One frame: its head and what is known about it. Its payload is with the [`Batch`].
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Frame {
    storage: [u8; PUSHED_HEAD_MAX],
    start: u16,
    head_len: u16,
    len: u32,
    payload_first: u32,
    payload_count: u32,
    /// The port that the frame came in through.
    pub in_port: PortNo,
    /// Picks among queues: see [`crate::key::spread`].
    pub hash: u32,
    /// Where the headers are.
    pub layout: Layout,
    /// What the sender left undone.
    pub offload: Offload,
}

impl Frame {
    fn empty() -> Self {
        Self {
            storage: [0; PUSHED_HEAD_MAX],
            start: HEADROOM as u16,
            head_len: 0,
            len: 0,
            payload_first: 0,
            payload_count: 0,
            in_port: PortNo(0),
            hash: 0,
            layout: Layout::default(),
            offload: Offload::default(),
        }
    }

    /// The number of bytes of the whole frame, without a frame check sequence.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The first bytes: all that is parsed.
    pub fn head(&self) -> &[u8] {
        &self.storage[usize::from(self.start)..usize::from(self.start) + usize::from(self.head_len)]
    }

    /// The first bytes, to be changed.
    pub fn head_mut(&mut self) -> &mut [u8] {
        &mut self.storage[usize::from(self.start)..usize::from(self.start) + usize::from(self.head_len)]
    }

    /// Makes room for `count` bytes at `at`, by moving what is before it towards the front, and returns it. The bytes hold rubbish.
    /// `None` if `at` is beyond the head or the headroom is used up. The layout and the checksum's start move along.
    pub fn insert(&mut self, at: usize, count: usize) -> Option<&mut [u8]> {
        let start = usize::from(self.start);
        if at > usize::from(self.head_len) || count > start {
            return None;
        }
        self.storage.copy_within(start..start + at, start - count);
        self.start -= count as u16;
        self.head_len += count as u16;
        self.len += count as u32;
        self.shift(at, count as i32);
        let start = usize::from(self.start) + at;
        Some(&mut self.storage[start..start + count])
    }

    /// Takes `count` bytes out at `at`. False, and nothing done, if they do not all lie in the head.
    pub fn remove(&mut self, at: usize, count: usize) -> bool {
        if at + count > usize::from(self.head_len) {
            return false;
        }
        let start = usize::from(self.start);
        self.storage.copy_within(start..start + at, start + count);
        self.start += count as u16;
        self.head_len -= count as u16;
        self.len -= count as u32;
        self.shift(at, -(count as i32));
        true
    }

    fn shift(&mut self, at: usize, by: i32) {
        let moved = |offset: u16| {
            if usize::from(offset) >= at && offset != 0 { (i32::from(offset) + by).max(0) as u16 } else { offset }
        };
        self.layout.network = moved(self.layout.network);
        self.layout.transport = moved(self.layout.transport);
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum {
            *start = moved(*start);
        }
    }
}

/// The frames of one breath of one queue: first those that came in, then the duplicates that actions made of them.
#[derive(Debug)]
pub struct Batch {
    frames: Vec<Frame>,
    len: usize,
    loans: Loans,
    owned: Vec<Vec<u8>>,
    /// The slots of the duplicates, in their order, and those of what they are duplicates of.
    duplicates: Vec<(u16, u16)>,
    rejected: [u32; DropReason::COUNT],
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty batch with room for [`BATCH`] frames.
    pub fn new() -> Self {
        Self {
            frames: vec![Frame::empty(); BATCH],
            len: 0,
            loans: Loans::default(),
            owned: Vec::new(),
            duplicates: Vec::new(),
            rejected: [0; DropReason::COUNT],
        }
    }

    /// Forgets all frames, all loans, and what was rejected.
    pub fn clear(&mut self) {
        self.end_loans();
        self.rejected = [0; DropReason::COUNT];
    }

    /// Forgets all frames and all loans; the counts of rejected frames stay. Whoever lent payloads calls it before they go away.
    pub fn end_loans(&mut self) {
        self.len = 0;
        self.loans.clear();
        self.owned.clear();
        self.duplicates.clear();
    }

    /// The number of frames, duplicates included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no frames.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The frames, duplicates last.
    pub fn frames(&self) -> &[Frame] {
        &self.frames[..self.len]
    }

    /// The frames, duplicates last, to be changed.
    pub fn frames_mut(&mut self) -> &mut [Frame] {
        &mut self.frames[..self.len]
    }

    /// The frame in `slot`.
    pub fn frame(&self, slot: u16) -> &Frame {
        &self.frames[..self.len][usize::from(slot)]
    }

    /// The frame in `slot`, to be changed.
    pub fn frame_mut(&mut self, slot: u16) -> &mut Frame {
        &mut self.frames[..self.len][usize::from(slot)]
    }

    /// Counts one frame that came in but can't be put into the batch.
    pub fn reject(&mut self, reason: DropReason) {
        self.rejected[reason as usize] += 1;
    }

    /// Takes the last frame out again, and counts it as one that can't be put into the batch.
    pub fn reject_last(&mut self, reason: DropReason) {
        self.len = self.len.saturating_sub(1);
        self.reject(reason);
    }

    /// How many frames were rejected, by [`DropReason`].
    pub fn rejected(&self) -> &[u32; DropReason::COUNT] {
        &self.rejected
    }

    /// Adds a frame made of `segments`, in their order: as much as fits is copied into its head, the rest stays on loan.
    /// The sum of their lengths must not exceed [`FRAME_MAX`]. Returns the frame's slot.
    ///
    /// # Safety
    ///
    /// The segments' bytes must stay mapped and readable until [`Batch::clear`] or [`Batch::end_loans`] is called.
    pub unsafe fn push_loaned<'a>(&mut self, in_port: PortNo, offload: Offload, segments: impl IntoIterator<Item = Segment<'a>>) -> u16 {
        let payload_first = self.loans.len();
        if self.len == self.frames.len() {
            self.frames.push(Frame::empty());
        }
        let frame = &mut self.frames[self.len];
        let (mut head_len, mut len) = (0, 0);
        for segment in segments {
            let copied = segment.copy_to(&mut frame.storage[HEADROOM + head_len..]);
            head_len += copied;
            len += segment.len();
            if copied < segment.len() {
                // SAFETY: the caller promises what `Loans::push` asks for; `clear` clears the loans.
                unsafe { self.loans.push(segment.part(copied, segment.len())) };
            }
        }
        debug_assert!(len <= FRAME_MAX);
        frame.start = HEADROOM as u16;
        frame.head_len = head_len as u16;
        frame.len = len as u32;
        frame.payload_first = payload_first as u32;
        frame.payload_count = (self.loans.len() - payload_first) as u32;
        frame.in_port = in_port;
        frame.hash = 0;
        frame.layout = Layout::default();
        frame.offload = offload;
        self.len += 1;
        (self.len - 1) as u16
    }

    /// Adds a frame with its own copy of `bytes` (at most [`FRAME_MAX`] of them). Returns its slot.
    pub fn push_bytes(&mut self, in_port: PortNo, offload: Offload, bytes: &[u8]) -> u16 {
        let bytes = &bytes[..bytes.len().min(FRAME_MAX)];
        if bytes.len() <= HEAD_MAX {
            // SAFETY: the bytes all fit the head, so nothing is on loan.
            return unsafe { self.push_loaned(in_port, offload, [Segment::from(bytes)]) };
        }
        let owned = bytes.to_vec();
        // SAFETY: the batch keeps the vector, unchanged, until `clear` drops it together with the loans; moving a vector does not move its bytes.
        let slot = unsafe { self.push_loaned(in_port, offload, [Segment::from(&owned[..])]) };
        self.owned.push(owned);
        slot
    }

    /// Adds a frame that is the same as the one in `slot`, and shares its payload. Returns the new slot.
    pub fn duplicate(&mut self, slot: u16) -> u16 {
        let copy = self.frame(slot).clone();
        if self.len == self.frames.len() {
            self.frames.push(copy);
        } else {
            self.frames[self.len] = copy;
        }
        self.len += 1;
        let duplicate = (self.len - 1) as u16;
        self.duplicates.push((duplicate, self.origin(slot)));
        duplicate
    }

    /// The slot of the frame that came in which the one in `slot` is, or is a duplicate of.
    pub fn origin(&self, slot: u16) -> u16 {
        self.duplicates.binary_search_by_key(&slot, |(duplicate, _)| *duplicate).map_or(slot, |at| self.duplicates[at].1)
    }

    /// The part of a frame beyond its head, as it lies with its sender.
    pub fn payload(&self, slot: u16) -> &[Segment<'_>] {
        let frame = self.frame(slot);
        let first = frame.payload_first as usize;
        self.loans.get(first..first + frame.payload_count as usize)
    }

    /// All bytes of a frame: its head, then its payload.
    pub fn pieces(&self, slot: u16) -> impl Iterator<Item = Segment<'_>> {
        std::iter::once(Segment::from(self.frame(slot).head())).chain(self.payload(slot).iter().copied())
    }

    /// A copy of a frame's first bytes, `max` at most.
    pub fn to_vec(&self, slot: u16, max: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.frame(slot).len().min(max)];
        let mut filled = 0;
        for piece in self.pieces(slot) {
            filled += piece.copy_to(&mut bytes[filled..]);
        }
        bytes
    }
}

/// Fills a batch with frames of `port` that stay in memory of their sender's: nothing that `fill` pushes is on loan any more when `lend` returns.
pub fn lend<'m, M: ?Sized, R>(batch: &mut Batch, port: PortNo, _memory: &'m M, fill: impl FnOnce(&mut Lending<'_, 'm>) -> R) -> R {
    fill(&mut Lending { batch, port, memory: PhantomData })
}

/// A batch while it may hold frames on loan from the memory `'m`.
#[derive(Debug)]
pub struct Lending<'b, 'm> {
    batch: &'b mut Batch,
    port: PortNo,
    // Invariant in 'm, so that no shorter loan is taken for it.
    memory: PhantomData<fn(&'m ()) -> &'m ()>,
}

impl<'m> Lending<'_, 'm> {
    /// Adds a frame, as [`Batch::push_loaned`] does.
    #[inline(always)]
    pub fn push(&mut self, segments: impl IntoIterator<Item = Segment<'m>>) {
        // SAFETY: the segments are mapped for 'm, which outlives the call of `lend` that made `self`; before that call returns, and however it
        // does, `drop` ends all loans.
        unsafe { self.batch.push_loaned(self.port, Offload::default(), segments) };
    }

    /// The frame that was added last.
    pub fn last(&mut self) -> &mut Frame {
        self.batch.frame_mut(self.batch.len() as u16 - 1)
    }

    /// Takes the last frame out again, and counts it.
    pub fn reject_last(&mut self, reason: DropReason) {
        self.batch.reject_last(reason);
    }

    /// Counts a frame that can't be put into the batch.
    pub fn reject(&mut self, reason: DropReason) {
        self.batch.reject(reason);
    }

    /// Hands the frames to `consume`, if there are any, and returns their number. Those that were rejected count.
    pub fn consume(&mut self, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        let count = self.batch.len() + self.batch.rejected().iter().sum::<u32>() as usize;
        if count > 0 {
            consume(self.batch);
        }
        count
    }
}

impl Drop for Lending<'_, '_> {
    fn drop(&mut self) {
        self.batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_frame_keeps_all_its_bytes() {
        let bytes: Vec<u8> = (0..1500u32).map(|i| i as u8).collect();
        let mut batch = Batch::new();
        let slot = batch.push_bytes(PortNo(3), Offload::default(), &bytes);
        assert_eq!(batch.frame(slot).head(), &bytes[..HEAD_MAX]);
        assert_eq!(batch.to_vec(slot, usize::MAX), bytes);
        let twin = batch.duplicate(slot);
        let third = batch.duplicate(twin);
        assert_eq!([slot, twin, third].map(|slot| batch.origin(slot)), [slot; 3]);
        batch.frame_mut(twin).head_mut()[0] = 0xff;
        assert_eq!(batch.to_vec(slot, usize::MAX), bytes);
        assert_eq!(batch.to_vec(twin, 2), [0xff, 1]);
    }

    #[test]
    fn inserting_and_removing_move_the_layout() {
        let mut batch = Batch::new();
        let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segmentation: None };
        let slot = batch.push_bytes(PortNo(1), offload, &[7; 60]);
        let frame = batch.frame_mut(slot);
        frame.layout = Layout { network: 14, transport: 34 };
        frame.insert(12, 4).expect("there is room").copy_from_slice(&[0x81, 0, 0, 5]);
        assert_eq!(frame.len(), 64);
        assert_eq!(frame.layout, Layout { network: 18, transport: 38 });
        assert_eq!(frame.offload.checksum, Checksum::Partial { start: 38, offset: 16 });
        assert_eq!(frame.head()[12..16], [0x81, 0, 0, 5]);
        assert!(frame.remove(12, 4));
        assert_eq!(frame.layout, Layout { network: 14, transport: 34 });
        assert_eq!(batch.to_vec(slot, 100), [7; 60]);
        assert!(!batch.frame_mut(slot).remove(59, 2));
    }
}

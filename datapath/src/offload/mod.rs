//! The work that senders left undone, done for an output that does not take it over.
//!
//! A frame carries what is left to be done on it as an [`Offload`]: a partial checksum, segmentation. An output says once what its
//! receivers take over ([`Accepts`]), and passes a frame on with that, or has the rest done on the way out ([`Accepts::finish`]): a checksum is
//! summed by [`Pieces::sum`], a frame is cut by a [`Segmenter`]. The frame in the batch stays as it is, so each of its destinations gets what it takes.
//!
//! The head of a frame is our own copy; the payload may be a guest's memory, and change between being summed and being copied. Then the checksum is
//! wrong, and the guest that did it has sent a broken frame.

mod pieces;
mod segmenter;

use std::iter::once;

pub use pieces::Pieces;
pub use segmenter::{Headers, Segmenter};

use crate::drops::TxDrop;
use crate::frame::{Batch, Checksum, ETHERNET_HEADER, Frame, Offload, PUSHED_HEAD_MAX, Segmentation, SegmentationKind};
use crate::memory::Segment;

/// What the receivers behind an output take over (virtio 1.2, 5.1.3), and how long a packet they take.
#[derive(Clone, Copy, Debug)]
pub struct Accepts {
    /// Partial checksums, and word of verified ones.
    pub checksum: bool,
    /// TCP over IPv4 to be segmented; like the others below, only with `checksum`.
    pub tcp4: bool,
    /// TCP over IPv6 to be segmented.
    pub tcp6: bool,
    /// TCP to be segmented whose first segment keeps CWR.
    pub ecn: bool,
    /// UDP to be segmented.
    pub udp: bool,
    /// The most bytes from the layer 3 header on.
    pub mtu: usize,
}

/// Where finished frames are written.
pub trait Sink {
    /// Writes one frame: `len` bytes in these pieces. What is left undone on it is `left`; if it is to be segmented, its headers are `headers` bytes
    /// long. A frame that is not written leaves nothing behind.
    fn write<'p>(&mut self, left: &Offload, headers: usize, pieces: impl Iterator<Item = Segment<'p>>, len: usize) -> Result<(), TxDrop>;

    /// Makes sure that there may be room for so many more frames, before work is done for them. Returns the place reached so far.
    fn reserve(&mut self, frames: usize) -> Result<usize, TxDrop>;

    /// Takes back what was written since that place was reached.
    fn back_to(&mut self, place: usize);
}

impl Accepts {
    /// Nothing is taken over: what goes to a wire must be finished.
    pub const fn nothing(mtu: usize) -> Self {
        Self { checksum: false, tcp4: false, tcp6: false, ecn: false, udp: false, mtu }
    }

    /// Whether a frame can go out as it is.
    #[inline(always)]
    pub fn is_ready(&self, frame: &Frame) -> bool {
        let done = self.checksum || !matches!(frame.offload.checksum, Checksum::Partial { .. });
        done && frame.offload.segmentation.is_none() && frame.len() - network(frame).min(frame.len()) <= self.mtu
    }

    /// What the receiver of a frame that is not to be segmented is told.
    #[inline(always)]
    pub fn left(&self, offload: &Offload) -> Offload {
        if self.checksum { Offload { checksum: offload.checksum, segmentation: None } } else { Offload::default() }
    }

    /// Writes the frame in `slot`, after doing what is not taken over. All of it is written, or nothing.
    pub fn finish(&self, batch: &Batch, slot: u16, sink: &mut impl Sink) -> Result<(), TxDrop> {
        let frame = batch.frame(slot);
        if self.is_ready(frame) {
            return sink.write(&self.left(&frame.offload), 0, Pieces::of(batch, slot), frame.len());
        }
        if let Some(segmentation) = frame.offload.segmentation {
            return self.segment(&segmentation, batch, slot, sink);
        }
        if frame.len().saturating_sub(network(frame)) > self.mtu {
            return Err(TxDrop::TooLong);
        }
        let Checksum::Partial { start, offset } = frame.offload.checksum else { return Err(TxDrop::Offload) };
        let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
        let rest = frame.len().checked_sub(at + 2).ok_or(TxDrop::Offload)?;
        let pieces = Pieces::of(batch, slot);
        let checksum = pieces.after(start).sum(frame.len() - start).transport_checksum();
        let pieces = pieces.first(at).chain(once(Segment::from(&checksum[..]))).chain(pieces.after(at + 2).first(rest));
        sink.write(&Offload::default(), 0, pieces, frame.len())
    }

    fn segments(&self, segmentation: &Segmentation) -> bool {
        let accepted = match segmentation.kind {
            SegmentationKind::Tcp4 => self.tcp4,
            SegmentationKind::Tcp6 => self.tcp6,
            SegmentationKind::Udp => self.udp,
        };
        accepted && (self.ecn || !segmentation.ecn)
    }

    fn segment(&self, segmentation: &Segmentation, batch: &Batch, slot: u16, sink: &mut impl Sink) -> Result<(), TxDrop> {
        let frame = batch.frame(slot);
        // The frame may have been changed since its headers were checked.
        let headers = Headers::of(frame.head(), &frame.offload).ok_or(TxDrop::Offload)?;
        let packet = longest_segment(frame, &headers, segmentation);
        if packet > self.mtu {
            return Err(TxDrop::TooLong);
        }
        if headers.plain && self.segments(segmentation) {
            return sink.write(&frame.offload, headers.end, Pieces::of(batch, slot), frame.len());
        }
        if packet > usize::from(u16::MAX) || segmentation.size == 0 {
            return Err(TxDrop::Offload);
        }
        let segmenter = Segmenter::new(headers, frame.head(), frame.len(), segmentation.size);
        // No work is done for a frame that there is no room for, however small its segments.
        let place = sink.reserve(segmenter.count())?;
        self.write_segments(&segmenter, Pieces::of(batch, slot).after(headers.end), sink).inspect_err(|_| sink.back_to(place))
    }

    fn write_segments(&self, segmenter: &Segmenter, mut payload: Pieces<'_, '_>, sink: &mut impl Sink) -> Result<(), TxDrop> {
        let left = self.left(&segmenter.offload());
        let mut head = [0; PUSHED_HEAD_MAX];
        for index in 0..segmenter.count() {
            let len = segmenter.payload_len(index);
            let sum = (!self.checksum).then(|| payload.sum(len));
            let head = segmenter.headers(index, sum, &mut head);
            sink.write(&left, 0, once(Segment::from(head)).chain(payload.first(len)), head.len() + len)?;
            payload = payload.after(len);
        }
        Ok(())
    }
}

/// How long the packet in a frame is, from its layer 3 header on; of a frame that is to be segmented, the longest that is made of it. It is what must not be
/// longer than [`Accepts::mtu`]. `None` for a frame that can't be segmented as it is to be.
pub fn packet_len(frame: &Frame) -> Option<usize> {
    match &frame.offload.segmentation {
        None => Some(frame.len().saturating_sub(network(frame))),
        Some(segmentation) => Headers::of(frame.head(), &frame.offload).map(|headers| longest_segment(frame, &headers, segmentation)),
    }
}

fn longest_segment(frame: &Frame, headers: &Headers, segmentation: &Segmentation) -> usize {
    let payload = frame.len().saturating_sub(headers.end).min(segmentation.size.into());
    headers.end - network(frame).min(headers.network) + payload
}

/// Where a frame's layer 3 begins.
#[inline(always)]
fn network(frame: &Frame) -> usize {
    if frame.layout.network == 0 { ETHERNET_HEADER } else { usize::from(frame.layout.network) }
}

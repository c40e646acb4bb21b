//! The ring that a guest transmits by: frames towards the switch.
//!
//! A batch goes through three passes, each of which brings closer what the next one touches: the heads of the chains, then their first descriptors,
//! then the buffers. Most frames are one descriptor, checked in the second pass and done in the third; longer chains are walked in the third.

use std::fs::File;

use datapath::drops::DropReason;
use datapath::frame::{BATCH, Batch, ETHERNET_HEADER, FRAME_MAX, Lending, lend};
use datapath::memory::{Segment, prefetch};
use datapath::offload::Pieces;
use datapath::port::{PortNo, RxQueue};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use crate::memory::{RingMemory, read_array};
use crate::offload::Header;
use crate::ring::{Ring, RingError, RingSetup, recycle};

/// A guest's transmit queue, in service.
#[derive(Debug)]
pub struct RxRing {
    ring: Ring,
    port: PortNo,
    header_len: usize,
    /// The segments of one chain; kept for its allocation.
    segments: Vec<Segment<'static>>,
}

impl RxRing {
    /// Takes a ring into service, with notifications wanted. Its frames come in through `port`.
    pub fn start(setup: RingSetup, port: PortNo) -> Result<Self, RingError> {
        let header_len = header_len(setup.features);
        let mut ring = Ring::start(setup)?;
        ring.arm();
        Ok(Self { ring, port, header_len, segments: Vec::new() })
    }

    /// The index of the next chain to be taken (GET_VRING_BASE).
    pub fn next(&self) -> u16 {
        self.ring.next()
    }

    /// What broke the ring, if anything did.
    pub fn fault(&self) -> Option<&RingError> {
        self.ring.fault()
    }

    /// Replaces the eventfd that notifies the driver.
    pub fn set_call(&mut self, call: Option<File>) {
        self.ring.set_call(call);
    }

    /// Replaces the eventfd that tells the front end of a fault.
    pub fn set_error(&mut self, error: Option<File>) {
        self.ring.set_error(error);
    }
}

/// The length of the header before each frame, given the negotiated features (virtio 1.2, 5.1.6.1).
pub(crate) fn header_len(features: u64) -> usize {
    if features & (1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_NET_F_MRG_RXBUF) != 0 { Header::LEN } else { Header::LEGACY_LEN }
}

impl RxQueue for RxRing {
    fn serve(&mut self, batch: &mut Batch, consume: &mut dyn FnMut(&mut Batch)) -> usize {
        let count = usize::from(self.ring.available()).min(BATCH);
        if count == 0 {
            return 0;
        }
        let next = self.ring.next();
        let (memory, header_len) = (&self.ring.memory, self.header_len);

        let mut heads = [0; BATCH];
        for (i, head) in heads[..count].iter_mut().enumerate() {
            *head = memory.available_entry(next.wrapping_add(i as u16));
            memory.prefetch_descriptor(*head);
        }
        let mut wholes = [None; BATCH];
        for (whole, &head) in wholes.iter_mut().zip(&heads[..count]) {
            *whole = memory.read_whole(head);
            if let Some(segment) = whole {
                // The header and the head of a short frame.
                prefetch(segment.as_ptr());
                prefetch(segment.as_ptr().wrapping_add(64));
            }
        }

        let mut segments = recycle(std::mem::take(&mut self.segments));
        let (frames, taken, fault) = lend(batch, self.port, memory, |lending| {
            let (mut taken, mut fault) = (0, None);
            for (&head, whole) in heads[..count].iter().zip(wholes) {
                if let Some(segment) = whole {
                    take_whole(lending, header_len, segment);
                } else if let Err(error) = take_chain(lending, header_len, memory, head, &mut segments) {
                    fault = Some(error);
                    break;
                }
                taken += 1;
            }
            (lending.consume(consume), taken, fault)
        });
        self.segments = recycle(segments);

        for (i, &head) in heads[..taken].iter().enumerate() {
            memory.write_used(next.wrapping_add(i as u16), head, 0);
        }
        self.ring.complete(taken as u16);
        if let Some(fault) = fault {
            self.ring.fail(fault);
        }
        frames
    }

    fn waiting(&mut self) -> usize {
        self.ring.available().into()
    }

    fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    fn disarm(&mut self) {
        self.ring.disarm();
    }
}

/// Adds the frame in this buffer, after its header, to the batch, or counts why it is none.
#[inline(always)]
fn take_whole<'m>(lending: &mut Lending<'_, 'm>, header_len: usize, segment: Segment<'m>) {
    if let Some(header) = read_array(&segment).filter(|_| is_frame_len(segment.len(), header_len)) {
        lending.push([segment.part(header_len, usize::MAX)]);
        apply_header(lending, Header::from_bytes(&header));
    } else {
        take_segments(lending, header_len, &[segment]);
    }
}

/// Adds the frame in the chain that begins at `head`. The chain's fault is reported and returned.
#[inline(never)]
fn take_chain<'m>(
    lending: &mut Lending<'_, 'm>,
    header_len: usize,
    memory: &'m RingMemory,
    head: u16,
    segments: &mut Vec<Segment<'m>>,
) -> Result<(), RingError> {
    segments.clear();
    memory.read_chain(head, segments).inspect_err(|_| lending.reject(DropReason::BadDescriptor))?;
    take_segments(lending, header_len, segments);
    Ok(())
}

/// Adds the frame in these buffers, after its header, to the batch, or counts why it is none.
fn take_segments<'m>(lending: &mut Lending<'_, 'm>, header_len: usize, segments: &[Segment<'m>]) {
    let total: usize = segments.iter().map(Segment::len).sum();
    if !is_frame_len(total, header_len) {
        return lending.reject(match total.checked_sub(header_len) {
            None => DropReason::BadDescriptor,
            Some(len) if len > FRAME_MAX => DropReason::TooLong,
            Some(_) => DropReason::Truncated,
        });
    }
    // A legacy header is shorter than what is read here, but the frame behind it is long enough.
    let mut header = [0; Header::LEN];
    let mut filled = 0;
    for segment in segments {
        filled += segment.copy_to(&mut header[filled..]);
    }
    lending.push(Pieces::new(segments).after(header_len));
    apply_header(lending, Header::from_bytes(&header));
}

/// Whether a header of `header_len` bytes and a frame can be `total` bytes long.
#[inline(always)]
fn is_frame_len(total: usize, header_len: usize) -> bool {
    (header_len + ETHERNET_HEADER..=header_len + FRAME_MAX).contains(&total)
}

/// Sets what its header says for the last frame, or rejects it.
#[inline(always)]
fn apply_header(lending: &mut Lending<'_, '_>, header: Header) {
    if !header.is_plain() {
        let frame = lending.last();
        match header.offload(frame.head(), frame.len()) {
            Some(offload) => frame.offload = offload,
            None => lending.reject_last(DropReason::BadOffload),
        }
    }
}

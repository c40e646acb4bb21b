//! The ring that a guest transmits by: frames towards the switch.
//!
//! A batch goes through three passes, each of which brings closer what the next one touches: the heads of the chains, then their first descriptors,
//! then the buffers. Most frames are one descriptor, checked in the second pass and done in the third; longer chains are walked in the third.

use std::fs::File;

use datapath::drops::DropReason;
use datapath::frame::{BATCH, Batch, ETHERNET_HEADER, FRAME_MAX};
use datapath::memory::{Segment, prefetch};
use datapath::port::{PortNo, RxQueue};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use crate::memory::{Lending, lend, read_array};
use crate::offload::{Header, Pieces};
use crate::ring::{Chain, Ring, RingError, RingSetup, recycle};

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
        let mut chains = [Chain::Beyond; BATCH];
        for (chain, &head) in chains.iter_mut().zip(&heads[..count]) {
            *chain = memory.look_to_read(head);
            if let Chain::Whole(segment) = chain {
                // The header and the head of a short frame.
                prefetch(segment.as_ptr());
                prefetch(segment.as_ptr().wrapping_add(64));
            }
        }

        let mut segments = recycle(std::mem::take(&mut self.segments));
        let (frames, taken, fault) = lend(batch, self.port, memory, |lending| {
            let (mut taken, mut fault) = (0, None);
            for (&head, &chain) in heads[..count].iter().zip(&chains) {
                let walked = match chain {
                    Chain::Whole(segment) => {
                        take_frame(lending, header_len, &[segment]);
                        Ok(())
                    }
                    Chain::First(descriptor) => {
                        segments.clear();
                        memory.read_chain(head, descriptor, &mut segments).map(|()| take_frame(lending, header_len, &segments))
                    }
                    Chain::Beyond => Err(RingError::Index { head, index: head }),
                };
                if let Err(error) = walked {
                    lending.reject(DropReason::BadDescriptor);
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

    fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    fn disarm(&mut self) {
        self.ring.disarm();
    }
}

/// Adds the frame in these buffers, after its header, to the batch, or counts why it is none.
#[inline(always)]
fn take_frame<'m>(lending: &mut Lending<'_, 'm>, header_len: usize, segments: &[Segment<'m>]) {
    let total: usize = segments.iter().map(Segment::len).sum();
    let Some(len) = total.checked_sub(header_len) else {
        return lending.reject(DropReason::BadDescriptor);
    };
    if !(ETHERNET_HEADER..=FRAME_MAX).contains(&len) {
        return lending.reject(if len > FRAME_MAX { DropReason::TooLong } else { DropReason::Truncated });
    }
    let [first, rest @ ..] = segments else { return };
    // A header in one piece is read where it lies. (A legacy header is shorter than what is read here; the frame behind it is long enough.)
    let (header, frame) = match read_array(first) {
        Some(bytes) => (Header::from_bytes(&bytes), Pieces::new(first.part(header_len, usize::MAX), rest)),
        None => {
            let mut bytes = [0; Header::LEN];
            let mut filled = 0;
            for segment in segments {
                filled += segment.copy_to(&mut bytes[filled..]);
            }
            (Header::from_bytes(&bytes), Pieces::new(*first, rest).after(header_len))
        }
    };
    let frame = lending.push(frame);
    if !header.is_plain() {
        match header.offload(frame.head(), frame.len()) {
            Some(offload) => frame.offload = offload,
            None => lending.reject_last(DropReason::BadOffload),
        }
    }
}

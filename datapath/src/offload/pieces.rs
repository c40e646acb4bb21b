//! The bytes of a frame, wherever they lie: summed, skipped and handed on piece by piece.

use crate::frame::Batch;
use crate::memory::Segment;
use crate::wire::checksum::Sum;

/// The bytes of a frame, piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'s, 'm> {
    current: Segment<'m>,
    rest: &'s [Segment<'m>],
}

impl<'s, 'm> Pieces<'s, 'm> {
    /// The bytes of these segments.
    pub fn new(segments: &'s [Segment<'m>]) -> Self {
        Self { current: Segment::from(&[][..]), rest: segments }
    }

    /// Takes the next bytes, as many as lie together, `max` at most. `None` at the end, or if `max` is zero.
    #[inline(always)]
    pub fn up_to(&mut self, max: usize) -> Option<Segment<'m>> {
        if max == 0 {
            return None;
        }
        while self.current.is_empty() {
            (self.current, self.rest) = self.rest.split_first().map(|(first, rest)| (*first, rest))?;
        }
        let taken = self.current.part(0, max);
        self.current = self.current.part(taken.len(), usize::MAX);
        Some(taken)
    }

    /// What comes after the next `count` bytes.
    pub fn after(mut self, mut count: usize) -> Self {
        while let Some(skipped) = self.up_to(count) {
            count -= skipped.len();
        }
        self
    }

    /// The sum of the next `len` bytes.
    pub fn sum(mut self, mut len: usize) -> Sum {
        // Guest memory is never referred to: it is copied into the first-level cache, and summed there.
        let mut buffer = [0; 1024];
        let mut sum = Sum::default();
        while let Some(piece) = self.up_to(len.min(buffer.len())) {
            let copied = piece.copy_to(&mut buffer);
            sum.add(&buffer[..copied]);
            len -= copied;
        }
        sum
    }

    /// The next `count` bytes.
    pub fn first(mut self, mut count: usize) -> impl Iterator<Item = Segment<'m>> {
        std::iter::from_fn(move || {
            let piece = self.up_to(count)?;
            count -= piece.len();
            Some(piece)
        })
    }
}

impl<'m> Iterator for Pieces<'_, 'm> {
    type Item = Segment<'m>;

    #[inline(always)]
    fn next(&mut self) -> Option<Segment<'m>> {
        self.up_to(usize::MAX)
    }
}

impl<'b> Pieces<'b, 'b> {
    /// All of the frame in `slot`.
    #[inline(always)]
    pub fn of(batch: &'b Batch, slot: u16) -> Self {
        Self { current: Segment::from(batch.frame(slot).head()), rest: batch.payload(slot) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, word by word.
    fn reference(bytes: &[u8]) -> [u8; 2] {
        let mut sum: u64 = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        (!(sum as u16)).to_be_bytes()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_sum_does_not_care_where_the_pieces_are_cut(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..4000),
                                                        mut cuts in prop::collection::vec(0..4000usize, 0..8), start in 0..4000usize) {
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let segments: Vec<Segment> = cuts.windows(2).map(|cut| Segment::from(&bytes[cut[0]..cut[1]])).collect();
            let start = start.min(bytes.len());
            let sum = Pieces::new(&segments).after(start).sum(bytes.len() - start);
            prop_assert_eq!(sum.checksum(), reference(&bytes[start..]));
            let mut appended = Sum::default();
            for cut in cuts.windows(2) {
                let mut next = Sum::default();
                next.add(&bytes[cut[0]..cut[1]]);
                appended.append(next);
            }
            prop_assert_eq!(appended.checksum(), reference(&bytes));
        }
    }

    #[test]
    fn long_runs_of_ones_do_not_overflow() {
        let bytes = vec![0xff; 70_000];
        let sum = Pieces::new(&[Segment::from(&bytes[..])]).sum(bytes.len());
        assert_eq!(sum.checksum(), [0, 0]);
        assert_eq!(sum.transport_checksum(), [0xff, 0xff]);
    }
}

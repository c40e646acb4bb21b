//! Which subtables can hold the megaflow of a key, found out without looking into any of them.
//!
//! Searching subtable after subtable costs a hash and a cache line or two for each mask, and nearly all of it finds nothing. The filter excludes
//! most of them beforehand, by the bytes of the key. For each byte that some mask looks at there is a table of 256 rows, one for
//! each value; a row has a bit for each subtable, a *column*, which says whether a megaflow in that subtable agrees with this value of the
//! byte. The rows that a key selects, one in each table, are and-ed: what is left are the subtables worth a search, 64 of them per word,
//! whatever their number. (This is the bit-vector scheme of packet classification, asked for masks instead of rules.) The tables take
//! 2 KiB per byte of the key and 64 masks, whatever the number of megaflows, and so stay near.
//!
//! A filter never excludes a subtable that has the key's megaflow, and may fail to exclude others: a byte knows nothing of its neighbour. If
//! every value of every byte occurs in every subtable, nothing is excluded, and the search goes from subtable to subtable in the order of the
//! columns, which is that of their use. So the search without the filter is the worst case.
//!
//! Megaflows that are removed leave their bits behind. So the filter is made anew in the background, from the megaflows there are
//! ([`Filter::of`], [`Filter::add`] for each, then [`Filter::choose`]): that also puts the columns into order, and finds the few
//! bytes that tell subtables apart. Lookups go by these alone.

use crate::key::{FlowKey, KEY_WORDS, KeyMask};

/// The subtable of a column that is not in use.
const NOWHERE: u32 = u32::MAX;
/// The most bytes that a chosen filter goes by: as many as tell IPv4 flows apart. Each costs a load and little else, a subtable ten times that.
const BYTES_MAX: usize = 32;
/// Of the first word, only this byte counts. The port is the same in all keys of a filter, and there are few continuations: the lowest eight bits of their numbers
/// tell most of them apart.
const CONTINUATION: (usize, u32) = (0, 12);

/// See the module.
#[derive(Default)]
pub(super) struct Filter {
    /// The subtable of each column.
    columns: Vec<u32>,
    /// The columns in use, as bits.
    used: Vec<u64>,
    /// The bytes that some mask looks at, if there is more than one column. Lookups go by the first ones.
    bytes: Vec<KeyByte>,
    /// How many these are.
    chosen: usize,
}

/// A byte of the key.
struct KeyByte {
    word: usize,
    shift: u32,
    /// The columns whose masks look at it, as bits.
    looking: Vec<u64>,
    /// For each value, the columns in which it can be, as bits: 256 rows of as many words as [`Filter::used`] has.
    rows: Vec<u64>,
}

impl KeyByte {
    #[inline(always)]
    fn of(&self, key: &FlowKey) -> u8 {
        (key.0[self.word] >> self.shift) as u8
    }

    /// Writes one column of all rows, and whether its mask looks at the byte.
    fn fill(&mut self, column: usize, looks: bool) {
        let (block, bit) = place(column);
        let width = self.looking.len();
        let rows = self.rows.iter_mut().skip(block).step_by(width);
        rows.for_each(|row| if looks { *row &= !bit } else { *row |= bit });
        if looks { self.looking[block] |= bit } else { self.looking[block] &= !bit }
    }

    /// How much it tells: the columns that a value which occurs excludes, in all. Only the `used` ones count.
    fn tells(&self, used: &[u64]) -> u32 {
        let excluded = |row: &[u64]| {
            let occurs = row.iter().zip(&self.looking).zip(used).any(|((row, looking), used)| row & looking & used != 0);
            if occurs { row.iter().zip(used).map(|(row, used)| (used & !row).count_ones()).sum() } else { 0 }
        };
        self.rows.chunks(used.len()).map(excluded).sum()
    }
}

/// The word and the bit of a column.
#[inline(always)]
fn place(column: usize) -> (usize, u64) {
    (column / 64, 1 << (column % 64))
}

impl Filter {
    /// A filter for these subtables, to be searched in this order. It excludes what it was not told of with [`Filter::add`].
    pub fn of<'a>(subtables: impl Iterator<Item = (u32, &'a KeyMask)> + Clone) -> Self {
        let mut filter = Self::default();
        if subtables.clone().nth(1).is_some() {
            subtables.clone().for_each(|(_, mask)| filter.look_at(mask));
        }
        subtables.for_each(|(number, mask)| filter.add_column(number, mask));
        filter
    }

    /// Makes tables for the bytes of `mask` that have none. No column so far looks at those.
    fn look_at(&mut self, mask: &KeyMask) {
        let others = (1..KEY_WORDS).flat_map(|word| (0..64).step_by(8).map(move |shift| (word, shift)));
        for (word, shift) in std::iter::once(CONTINUATION).chain(others) {
            if mask.0[word] >> shift & 0xff != 0 && !self.bytes.iter().any(|byte| (byte.word, byte.shift) == (word, shift)) {
                self.bytes.push(KeyByte { word, shift, looking: vec![0; self.used.len()], rows: self.used.repeat(256) });
            }
        }
        self.chosen = self.bytes.len();
    }

    /// Adds a subtable, which has no megaflows yet.
    pub fn add_column(&mut self, number: u32, mask: &KeyMask) {
        if !self.is_empty() {
            // A single column goes without tables; whatever is in it passes until the filter is made anew.
            self.look_at(mask);
        }
        let column = self.columns.iter().position(|other| *other == NOWHERE).unwrap_or_else(|| {
            self.columns.push(NOWHERE);
            self.columns.len() - 1
        });
        let (block, bit) = place(column);
        if block == self.used.len() {
            self.widen();
        }
        self.columns[column] = number;
        self.used[block] |= bit;
        for byte in &mut self.bytes {
            let looks = byte.of(mask) != 0;
            byte.fill(column, looks);
        }
    }

    fn widen(&mut self) {
        let width = self.used.len();
        self.used.push(0);
        for byte in &mut self.bytes {
            byte.looking.push(0);
            byte.rows = (0..256).flat_map(|row| byte.rows[row * width..][..width].iter().copied().chain([0])).collect();
        }
    }

    /// Removes a subtable.
    pub fn remove_column(&mut self, number: u32) {
        if let Some(column) = self.column(number) {
            let (block, bit) = place(column);
            self.columns[column] = NOWHERE;
            self.used[block] &= !bit;
        }
    }

    fn column(&self, number: u32) -> Option<usize> {
        self.columns.iter().position(|other| *other == number)
    }

    /// Adds a megaflow of a subtable: `key` under its `mask`. A subtable that the filter does not know does not count.
    pub fn add(&mut self, number: u32, mask: &KeyMask, key: &FlowKey) {
        if self.bytes.is_empty() {
            return;
        }
        let Some(column) = self.column(number) else { return };
        let (block, bit) = place(column);
        let width = self.used.len();
        for byte in &mut self.bytes {
            let looked_at = byte.of(mask);
            let value = byte.of(key) & looked_at;
            // If one of the values that agree has the bit, all have.
            if byte.rows[usize::from(value) * width + block] & bit == 0 {
                let mut other = !looked_at;
                loop {
                    byte.rows[usize::from(value | other) * width + block] |= bit;
                    if other == 0 {
                        break;
                    }
                    other = (other - 1) & !looked_at;
                }
            }
        }
    }

    /// Chooses the bytes that lookups go by from now on: those that tell subtables apart, the best first, and not more than pays.
    pub fn choose(&mut self) {
        let used = &self.used;
        self.bytes.sort_by_cached_key(|byte| std::cmp::Reverse(byte.tells(used)));
        self.chosen = self.bytes.iter().take(BYTES_MAX.min(2 * self.len())).take_while(|byte| byte.tells(used) > 0).count();
    }

    /// The subtables that `key` may be in.
    #[inline]
    pub fn candidates(&self, key: &FlowKey) -> impl Iterator<Item = u32> {
        let width = self.used.len();
        (0..width).flat_map(move |block| {
            let bytes = &self.bytes[..self.chosen];
            let mut map = bytes.iter().fold(self.used[block], |map, byte| map & byte.rows[usize::from(byte.of(key)) * width + block]);
            std::iter::from_fn(move || {
                let column = block * 64 + map.trailing_zeros() as usize;
                (map != 0).then(|| {
                    map &= map - 1;
                    self.columns[column]
                })
            })
        })
    }

    /// The subtables, in the order of the columns.
    pub fn subtables(&self) -> impl Iterator<Item = u32> {
        self.columns.iter().copied().filter(|number| *number != NOWHERE)
    }

    /// The number of subtables.
    pub fn len(&self) -> usize {
        self.used.iter().map(|used| used.count_ones() as usize).sum()
    }

    /// Whether there are no subtables.
    pub fn is_empty(&self) -> bool {
        self.used.iter().all(|used| *used == 0)
    }
}

//! How often each latency was seen.

/// Each power of two of nanoseconds is divided into this many classes: a class is 3 % wide.
const PARTS: u64 = 32;
const CLASSES: usize = 2048;

/// Durations in nanoseconds, counted by classes.
#[derive(Clone, Debug)]
pub struct Histogram {
    classes: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { classes: vec![0; CLASSES], count: 0 }
    }
}

impl Histogram {
    /// Counts a duration.
    #[inline]
    pub fn add(&mut self, nanoseconds: u64) {
        self.classes[class(nanoseconds).min(CLASSES - 1)] += 1;
        self.count += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration, in nanoseconds, that this share of all did not exceed. `None` if none were counted.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = (share * self.count as f64) as u64;
        let mut below = 0;
        self.classes.iter().enumerate().find_map(|(class, &count)| {
            below += count;
            (count > 0 && below > rank.min(self.count - 1)).then(|| lowest(class as u64) as f64)
        })
    }
}

fn class(nanoseconds: u64) -> usize {
    if nanoseconds < PARTS {
        return nanoseconds as usize;
    }
    let exponent = u64::from(nanoseconds.ilog2());
    let (octave, shift) = (exponent - 4, exponent - 5);
    (octave * PARTS + (nanoseconds >> shift & (PARTS - 1))) as usize
}

/// The lowest duration of a class.
fn lowest(class: u64) -> u64 {
    match class / PARTS {
        0 => class,
        octave => (PARTS + class % PARTS) << (octave - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_narrow_and_in_order() {
        let mut last = 0;
        for nanoseconds in (0..100).chain((100..40_000_000_000).step_by(9_999_991)) {
            let class = class(nanoseconds);
            assert!(class >= last && class < CLASSES);
            last = class;
            let lowest = lowest(class as u64);
            assert!(lowest <= nanoseconds && nanoseconds - lowest <= nanoseconds / PARTS, "{nanoseconds} in {lowest}");
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (0..1000).for_each(|n| histogram.add(n * 1000));
        let close = |share: f64, expected: f64| (histogram.quantile(share).unwrap() - expected).abs() <= expected * 0.04;
        assert!(close(0.5, 500_000.0) && close(0.99, 990_000.0) && close(1.0, 999_000.0));
        assert_eq!(histogram.quantile(0.0), Some(0.0));
        assert_eq!(histogram.count(), 1000);
    }
}

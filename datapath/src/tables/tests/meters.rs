//! Meters: how much they let through.

use proptest::prelude::*;

use crate::tables::meter::*;

const SECOND: u64 = 1_000_000_000;

fn meter(flags: MeterFlags, bands: &[BandSpec]) -> Meter {
    Meter::new(1, flags, bands, 0)
}

fn drop(rate: u32, burst: u32) -> BandSpec {
    BandSpec { kind: BandKind::Drop, rate, burst }
}

fn flags(flags: &[MeterFlags]) -> MeterFlags {
    MeterFlags(flags.iter().fold(0, |all, flags| all | flags.0))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// As much passes as a bucket holds and gets, to within a frame; and what does not pass is counted.
    #[test]
    fn a_band_keeps_its_rate(rate in 1..2_000_000u32, burst in 1..10_000u32, by_frames: bool, len in 60..65_000usize,
                             pauses in prop::collection::vec(0..3_000_000u64, 1..2000)) {
        let unit = if by_frames { MeterFlags::PKTPS } else { MeterFlags::KBPS };
        let meter = meter(flags(&[unit, MeterFlags::BURST]), &[drop(rate, burst)]);
        // In frames, or in bits.
        let (cost, scale) = if by_frames { (1.0, 1.0) } else { (len as f64 * 8.0, 1000.0) };
        let (rate, burst) = (f64::from(rate) * scale, f64::from(burst) * scale);
        let (mut now, mut tokens, mut passed) = (SECOND, burst, 0u64);
        for pause in &pauses {
            now += pause;
            tokens = (tokens + rate * *pause as f64 / SECOND as f64).min(burst);
            let passes = meter.measure(len, now) == Metered::Passes;
            passed += u64::from(passes);
            // The reference is not asked where it is a matter of rounding.
            let enough = tokens >= cost || tokens >= burst;
            if (tokens - cost).abs() > burst * 1e-6 + cost * 1e-6 && (tokens - burst).abs() > burst * 1e-6 {
                prop_assert_eq!(passes, enough, "{} tokens for {}", tokens, cost);
            }
            tokens -= if passes { cost } else { 0.0 };
        }
        prop_assert_eq!(meter.frames(), pauses.len() as u64);
        prop_assert_eq!(meter.bands()[0].frames(), pauses.len() as u64 - passed);
        prop_assert_eq!(meter.bands()[0].bytes(), (pauses.len() as u64 - passed) * len as u64);
    }
}

#[test]
fn without_a_burst_size_a_tenth_of_a_second_passes_at_once() {
    let meter = meter(MeterFlags::PKTPS, &[drop(1000, 7)]);
    let passed = (0..500).filter(|_| meter.measure(100, SECOND) == Metered::Passes).count();
    assert_eq!(passed, 100);
    // Ten seconds later as many, and no more.
    let passed = (0..500).filter(|_| meter.measure(100, 11 * SECOND) == Metered::Passes).count();
    assert_eq!(passed, 100);
}

#[test]
fn the_longest_bursts_are_bursts() {
    for (rate, burst) in [(1, u32::MAX), (2, u32::MAX), (1, 1 << 30), (u32::MAX, u32::MAX)] {
        for unit in [MeterFlags::PKTPS, MeterFlags::KBPS] {
            let meter = meter(flags(&[unit, MeterFlags::BURST]), &[drop(rate, burst)]);
            // As many frames as there would be in minutes, all at once.
            let passed = (0..1_000_000).filter(|_| meter.measure(60, SECOND) == Metered::Passes).count();
            assert_eq!(passed, 1_000_000, "rate {rate}, burst {burst}");
        }
    }
}

#[test]
fn of_the_bands_that_are_exceeded_the_fastest_counts() {
    let remark = BandSpec { kind: BandKind::DscpRemark(1), rate: 10, burst: 10 };
    let meter = meter(flags(&[MeterFlags::PKTPS, MeterFlags::BURST]), &[drop(20, 20), remark]);
    let became: Vec<_> = (0..30).map(|_| meter.measure(60, SECOND)).collect();
    assert_eq!(became[..10], [Metered::Passes; 10]);
    assert_eq!(became[10..20], [Metered::Remarked(1); 10]);
    assert_eq!(became[20..], [Metered::Dropped; 10]);
    assert_eq!((meter.bands()[0].frames(), meter.bands()[1].frames()), (10, 10));
}

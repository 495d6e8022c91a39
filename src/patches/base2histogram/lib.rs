//! How often numbers of each magnitude came: what openraft asks of the crate of this name, without its tables.
//!
//! That crate keeps tables for sixteen resolutions, 26 MiB, in every process that makes a histogram. openraft makes some for
//! its statistics, which it shows only with its feature `runtime-stats`; kvorum does not have that. Here a histogram has a
//! bucket for each power of two and no table, and says of a number what its magnitude begins with.

use std::fmt;
use std::marker::PhantomData;

/// The magnitudes of 64-bit numbers: of zero, and of those whose highest bit is the first to the last.
const BUCKETS: usize = 65;

/// How often numbers of each magnitude were recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    buckets: [u64; BUCKETS],
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One that nothing was recorded in.
    pub const fn new() -> Self {
        Self { buckets: [0; BUCKETS], slots: PhantomData }
    }

    /// Counts `value`.
    pub const fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` as `count` of it.
    pub const fn record_n(&mut self, value: u64, count: u64) {
        let bucket = &mut self.buckets[(u64::BITS - value.leading_zeros()) as usize];
        *bucket = bucket.saturating_add(count);
    }

    /// How many were recorded.
    pub fn total(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The least number of the magnitude that `per_mille` of those recorded do not exceed; 0 of nothing.
    fn percentile(&self, per_mille: u64) -> u64 {
        let wanted = u128::from(self.total()) * u128::from(per_mille);
        let mut passed = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            passed += u128::from(*count) * 1000;
            if passed >= wanted && passed > 0 {
                return if bucket == 0 { 0 } else { 1 << (bucket - 1) };
            }
        }
        0
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(1),
            p1: self.percentile(10),
            p5: self.percentile(50),
            p10: self.percentile(100),
            p50: self.percentile(500),
            p90: self.percentile(900),
            p99: self.percentile(990),
            p99_9: self.percentile(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of a histogram, each named by its per cent.
#[expect(missing_docs, reason = "their names say it")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many numbers were recorded.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(f, "[samples: {samples}, P0.1: {p0_1}, P1: {p1}, P5: {p5}, P10: {p10}, ")?;
        write!(f, "P50: {p50}, P90: {p90}, P99: {p99}, P99.9: {p99_9}]")
    }
}

/// Histograms below one another, each by its percentiles.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    rows: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// Without any.
    pub const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// With a further one.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> Self {
        self.rows.push((name.to_owned(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_magnitude_has_a_bucket() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        for value in [0, 1, 2, 3, u64::MAX] {
            histogram.record(value);
        }
        assert_eq!(histogram.total(), 5);
        assert_eq!([0, 1, 2, 64].map(|bucket| histogram.buckets[bucket]), [1, 1, 2, 1]);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.p0_1, stats.p50, stats.p99_9), (0, 2, 1 << 63));
    }
}

//! Collecting the values of a tensor in bounded memory: all of them while they are few, then a fine histogram.

use crate::error::{Error, Kind, Result};

/// Up to this many values are kept as they are; a histogram has this many bins (1 MiB).
const CAPACITY: usize = 1 << 16;

/// The values seen of one tensor, fed in chunks. At most 1 MiB, whatever is fed.
///
/// The result depends on the order of [`Observation::observe`] and [`Observation::merge`] calls only in the last
/// digits of bin means; fixed orders give the same bits.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    count: u64,
    zeros: u64,
    bad: u64,
    range: Option<(f32, f32)>,
    store: Store,
}

#[derive(Debug, Clone)]
enum Store {
    Exact(Vec<f32>),
    Histogram(Histogram),
}

impl Default for Store {
    fn default() -> Self {
        Store::Exact(Vec::new())
    }
}

/// Bins of width 2^exponent; bin j holds x with floor(x / width) = first + j.
#[derive(Debug, Clone)]
struct Histogram {
    exponent: i32,
    first: i64,
    bins: Vec<Bin>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    count: u64,
    sum: f64,
}

impl Observation {
    /// Bytes of memory that it takes at most.
    pub const MOST_BYTES: u64 = (CAPACITY * size_of::<Bin>()) as u64;

    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in `values`. NaN and infinities are counted and left out; fitting a grid then fails.
    pub fn observe(&mut self, values: &[f32]) {
        if values.iter().all(|v| v.is_finite()) {
            self.add(values);
        } else {
            let finite: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
            self.bad += (values.len() - finite.len()) as u64;
            self.add(&finite);
        }
    }

    /// Takes in everything that `other` has seen.
    pub fn merge(&mut self, other: &Observation) {
        self.bad += other.bad;
        let histogram = match &other.store {
            Store::Exact(values) => return self.add(values),
            Store::Histogram(h) => h,
        };
        if let Store::Exact(values) = &self.store {
            let values = values.clone();
            let bad = self.bad;
            *self = Observation { bad, ..other.clone() };
            return self.add(&values);
        }
        self.count += other.count;
        self.zeros += other.zeros;
        self.range = join(self.range, other.range);
        let (Store::Histogram(mine), Some(range)) = (&mut self.store, self.range) else { return };
        mine.cover(range);
        // A wider bin of mine is a union of bins of theirs only if mine is not the finer one.
        if histogram.exponent > mine.exponent {
            mine.coarsen(histogram.exponent, range);
        }
        mine.absorb(histogram);
    }

    fn add(&mut self, values: &[f32]) {
        if values.is_empty() {
            return;
        }
        let chunk = values.iter().fold((values[0], values[0]), |(a, b), &v| (a.min(v), b.max(v)));
        self.range = join(self.range, Some(chunk));
        self.count += values.len() as u64;
        self.zeros += values.iter().filter(|v| **v == 0.0).count() as u64;
        let Some(range) = self.range else { return };
        match &mut self.store {
            Store::Exact(kept) if kept.len() + values.len() <= CAPACITY => kept.extend_from_slice(values),
            Store::Exact(kept) => {
                let mut histogram = Histogram::new(range);
                histogram.add(kept);
                histogram.add(values);
                self.store = Store::Histogram(histogram);
            }
            Store::Histogram(histogram) => {
                histogram.cover(range);
                histogram.add(values);
            }
        }
    }

    /// Keeps any number of values as they are, to compare with the histogram.
    #[cfg(test)]
    pub(super) fn exact_for_test(values: Vec<f32>) -> Self {
        let range = Some((values[0], values[values.len() - 1]));
        Observation { count: values.len() as u64, range, store: Store::Exact(values), ..Observation::default() }
    }

    /// How many finite values were seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of them were 0.
    pub(super) fn zeros(&self) -> u64 {
        self.zeros
    }

    /// The smallest and largest value seen; an error when there was none, or when NaN or infinities were seen.
    pub fn range(&self) -> Result<(f32, f32)> {
        if self.bad > 0 {
            return Err(Error::new(
                Kind::Numeric,
                format!("expected finite numbers, got {} NaN or infinite among {}", self.bad, self.bad + self.count),
            ));
        }
        self.range.ok_or_else(|| Error::data("no values to fit a grid to"))
    }

    /// What was seen as (value, how often), values ascending: single values, or the mean of each non-empty bin.
    pub(super) fn weighted(&self) -> Vec<(f64, u64)> {
        match &self.store {
            Store::Exact(values) => {
                let mut sorted = values.clone();
                sorted.sort_unstable_by(f32::total_cmp);
                let mut out: Vec<(f64, u64)> = Vec::new();
                for v in sorted.into_iter().map(f64::from) {
                    match out.last_mut() {
                        Some((x, n)) if *x == v => *n += 1,
                        _ => out.push((v, 1)),
                    }
                }
                out
            }
            Store::Histogram(h) => {
                h.bins.iter().filter(|b| b.count > 0).map(|b| (b.sum / b.count as f64, b.count)).collect()
            }
        }
    }
}

fn join(a: Option<(f32, f32)>, b: Option<(f32, f32)>) -> Option<(f32, f32)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

fn bin_of(x: f32, exponent: i32) -> i64 {
    (f64::from(x) * 2f64.powi(-exponent)).floor() as i64
}

impl Histogram {
    /// The finest empty histogram that covers `range`.
    fn new(range: (f32, f32)) -> Self {
        // Bins need not be finer than float32 resolves the largest value, nor finer than the smallest number.
        let largest = f64::from(range.0.abs().max(range.1.abs())).max(1e-38);
        let mut exponent = largest.log2().floor() as i32 - 30;
        while !fits(range, exponent) {
            exponent += 1;
        }
        Histogram { exponent, first: bin_of(range.0, exponent), bins: vec![Bin::default(); CAPACITY] }
    }

    /// Moves and widens the bins until `range` lies within.
    fn cover(&mut self, range: (f32, f32)) {
        let last = self.first + CAPACITY as i64;
        if self.first <= bin_of(range.0, self.exponent) && bin_of(range.1, self.exponent) < last {
            return;
        }
        let mut exponent = self.exponent;
        while !fits(range, exponent) {
            exponent += 1;
        }
        self.coarsen(exponent, range);
    }

    fn coarsen(&mut self, exponent: i32, range: (f32, f32)) {
        let empty = Histogram { exponent, first: bin_of(range.0, exponent), bins: vec![Bin::default(); CAPACITY] };
        let old = std::mem::replace(self, empty);
        self.absorb(&old);
    }

    /// Adds the bins of `other`, which are not wider and lie within these.
    fn absorb(&mut self, other: &Histogram) {
        // Beyond 63 doublings every index is its sign.
        let shift = (self.exponent - other.exponent).clamp(0, 63);
        for (j, bin) in other.bins.iter().enumerate().filter(|(_, b)| b.count > 0) {
            let k = ((other.first + j as i64) >> shift) - self.first;
            if let Some(mine) = self.bins.get_mut(k as usize) {
                mine.count += bin.count;
                mine.sum += bin.sum;
            }
        }
    }

    /// Adds values that lie within the bins.
    fn add(&mut self, values: &[f32]) {
        let (factor, first) = (2f64.powi(-self.exponent), self.first as f64);
        for &v in values {
            let v = f64::from(v);
            // Not negative, so truncation is floor; the subtraction is exact or rounds within float64's 53 bits.
            let j = (v * factor - first) as usize;
            let bin = &mut self.bins[j.min(CAPACITY - 1)];
            bin.count += 1;
            bin.sum += v;
        }
    }
}

fn fits(range: (f32, f32), exponent: i32) -> bool {
    bin_of(range.1, exponent).saturating_sub(bin_of(range.0, exponent)) < CAPACITY as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut s = seed;
        let mut next = || {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..n).map(|_| next() + next() + next() - 1.5).collect()
    }

    #[test]
    fn chunks_and_merges_see_the_same_values() {
        let values: Vec<f32> = noise(300_000, 1).iter().enumerate().map(|(i, v)| v * (1.0 + i as f32 / 1e4)).collect();
        let mut whole = Observation::new();
        whole.observe(&values);
        let (mut chunked, mut merged) = (Observation::new(), Observation::new());
        for chunk in values.chunks(7001) {
            chunked.observe(chunk);
        }
        for chunk in values.chunks(100_000) {
            let mut part = Observation::new();
            part.observe(chunk);
            merged.merge(&part);
        }
        for other in [&chunked, &merged] {
            assert_eq!(other.count(), 300_000);
            assert_eq!(other.range().unwrap(), whole.range().unwrap());
            let sum: u64 = other.weighted().iter().map(|p| p.1).sum();
            assert_eq!(sum, 300_000);
            let mean = |o: &Observation| o.weighted().iter().map(|p| p.0 * p.1 as f64).sum::<f64>();
            assert!((mean(other) - mean(&whole)).abs() < 1e-6 * 300_000.0);
            assert!(other.weighted().windows(2).all(|w| w[0].0 < w[1].0));
        }
    }

    #[test]
    fn odd_values_are_survived() {
        for v in [0.0f32, -0.0, 1e-45, -1e-45, f32::MAX, f32::MIN, 1.0] {
            let mut o = Observation::new();
            o.observe(&vec![v; 70_000]);
            assert_eq!(o.weighted(), [(f64::from(v), 70_000)]);
        }
        let mut o = Observation::new();
        o.observe(&vec![1e-45; 70_000]);
        o.observe(&[f32::MAX, f32::MIN]);
        assert_eq!(o.weighted().iter().map(|p| p.1).sum::<u64>(), 70_002);
        assert!(o.range().is_ok());
        o.observe(&[1.0, f32::NAN, f32::INFINITY]);
        assert_eq!(o.range().unwrap_err().kind(), Kind::Numeric);
        assert_eq!(Observation::new().range().unwrap_err().kind(), Kind::Data);
    }
}

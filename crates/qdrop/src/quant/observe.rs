//! Collecting the values of a tensor in bounded memory: all of them while they are few, then a fine histogram.

use crate::error::{Error, Kind, Result};

/// Up to this many values are kept as they are; a histogram has this many bins (1 MiB).
const CAPACITY: usize = 1 << 16;
/// Values that are looked at before they are sorted into bins.
const RUN: usize = 1 << 12;
/// Values whose bins are found together.
const BLOCK: usize = 64;
/// Values that are looked at side by side.
const LANES: usize = 16;
/// Bins behind the others that zeros pass through on their way.
const SPARE: usize = 8;
/// The exponent of infinities and NaN.
const INFINITE: u32 = 0x7F80_0000;

/// The values seen of one tensor, fed in chunks. At most 1 MiB, whatever is fed.
///
/// The result depends on the order of [`Observation::observe`] and [`Observation::merge`] calls only in the last
/// digits of bin means; fixed orders give the same bits.
#[derive(Debug, Clone)]
pub struct Observation {
    /// Values that are kept at most, and bins of the histogram.
    capacity: usize,
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

impl Default for Observation {
    fn default() -> Self {
        Observation { capacity: CAPACITY, count: 0, zeros: 0, bad: 0, range: None, store: Store::default() }
    }
}

impl Default for Store {
    fn default() -> Self {
        Store::Exact(Vec::new())
    }
}

/// Bins of width 2^exponent; bin j holds x with floor(x / width) = first + j. What the last [`SPARE`] hold says nothing.
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
    pub const MOST_BYTES: u64 = ((CAPACITY + SPARE) * size_of::<Bin>()) as u64;

    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing seen yet, to be kept in a sixteenth of the memory: enough to compare tensors.
    pub fn coarse() -> Self {
        Observation { capacity: CAPACITY / 16, ..Self::default() }
    }

    /// Takes in `values`. NaN and infinities are counted and left out.
    pub fn observe(&mut self, values: &[f32]) {
        // In runs, so that the second look at a value finds it in the cache.
        for run in values.chunks(RUN) {
            let summary = Summary::of(run);
            if summary.bad == 0 {
                self.add(run, &summary);
            } else {
                let finite: Vec<f32> = run.iter().copied().filter(|v| v.is_finite()).collect();
                self.bad += summary.bad;
                self.add(&finite, &Summary::of(&finite));
            }
        }
    }

    /// Takes in everything that `other` has seen.
    pub fn merge(&mut self, other: &Observation) {
        self.bad += other.bad;
        let histogram = match &other.store {
            Store::Exact(values) => return self.add_all(values),
            Store::Histogram(h) => h,
        };
        if let Store::Exact(values) = &self.store {
            let values = values.clone();
            let bad = self.bad;
            *self = Observation { bad, ..other.clone() };
            return self.add_all(&values);
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

    /// Takes in finite values.
    fn add_all(&mut self, values: &[f32]) {
        values.chunks(RUN).for_each(|run| self.add(run, &Summary::of(run)));
    }

    /// Takes in finite values that `summary` tells of.
    fn add(&mut self, values: &[f32], summary: &Summary) {
        if values.is_empty() {
            return;
        }
        self.range = join(self.range, Some(summary.range));
        self.count += values.len() as u64;
        self.zeros += summary.zeros;
        let Some(range) = self.range else { return };
        match &mut self.store {
            Store::Exact(kept) if kept.len() + values.len() <= self.capacity => kept.extend_from_slice(values),
            Store::Exact(kept) => {
                let mut histogram = Histogram::new(range, self.capacity);
                kept.chunks(RUN).for_each(|run| histogram.add(run, Summary::of(run).zeros));
                histogram.add(values, summary.zeros);
                self.store = Store::Histogram(histogram);
            }
            Store::Histogram(histogram) => {
                histogram.cover(range);
                histogram.add(values, summary.zeros);
            }
        }
    }

    /// Keeps any number of values as they are, to compare with the histogram.
    #[cfg(test)]
    pub(super) fn exact_for_test(values: Vec<f32>) -> Self {
        let range = Some((values[0], values[values.len() - 1]));
        let count = values.len();
        Observation { capacity: count, count: count as u64, range, store: Store::Exact(values), ..Self::default() }
    }

    /// How many finite values were seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of them were 0.
    pub(super) fn zeros(&self) -> u64 {
        self.zeros
    }

    /// The smallest and largest finite value seen, if any.
    pub fn bounds(&self) -> Option<(f32, f32)> {
        self.range
    }

    /// The smallest and largest finite value seen; an error when there was none.
    pub fn range(&self) -> Result<(f32, f32)> {
        self.range.ok_or_else(|| match self.bad {
            0 => Error::data("no values to fit a grid to"),
            bad => Error::new(Kind::Numeric, format!("expected finite numbers, all {bad} are NaN or infinite")),
        })
    }

    /// How many NaN and infinities were seen.
    pub fn not_finite(&self) -> u64 {
        self.bad
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
                h.used().iter().filter(|b| b.count > 0).map(|b| (b.sum / b.count as f64, b.count)).collect()
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
    fn new(range: (f32, f32), capacity: usize) -> Self {
        // Bins need not be finer than float32 resolves the largest value, nor finer than the smallest number.
        let largest = f64::from(range.0.abs().max(range.1.abs())).max(1e-38);
        let mut exponent = largest.log2().floor() as i32 - 30;
        while !fits(range, exponent, capacity) {
            exponent += 1;
        }
        Histogram { exponent, first: bin_of(range.0, exponent), bins: vec![Bin::default(); capacity + SPARE] }
    }

    fn capacity(&self) -> usize {
        self.bins.len() - SPARE
    }

    /// The bins that say something.
    fn used(&self) -> &[Bin] {
        &self.bins[..self.capacity()]
    }

    /// Moves and widens the bins until `range` lies within.
    fn cover(&mut self, range: (f32, f32)) {
        let last = self.first + self.capacity() as i64;
        if self.first <= bin_of(range.0, self.exponent) && bin_of(range.1, self.exponent) < last {
            return;
        }
        let mut exponent = self.exponent;
        while !fits(range, exponent, self.capacity()) {
            exponent += 1;
        }
        self.coarsen(exponent, range);
    }

    fn coarsen(&mut self, exponent: i32, range: (f32, f32)) {
        let bins = vec![Bin::default(); self.bins.len()];
        let empty = Histogram { exponent, first: bin_of(range.0, exponent), bins };
        let old = std::mem::replace(self, empty);
        self.absorb(&old);
    }

    /// Adds the bins of `other`, which are not wider and lie within these.
    fn absorb(&mut self, other: &Histogram) {
        // Beyond 63 doublings every index is its sign.
        let shift = (self.exponent - other.exponent).clamp(0, 63);
        for (j, bin) in other.used().iter().enumerate().filter(|(_, b)| b.count > 0) {
            let k = ((other.first + j as i64) >> shift) - self.first;
            let capacity = self.capacity();
            if let Some(mine) = self.bins[..capacity].get_mut(k as usize) {
                mine.count += bin.count;
                mine.sum += bin.sum;
            }
        }
    }

    /// Adds values that lie within the bins, `zeros` of them 0.
    fn add(&mut self, values: &[f32], zeros: u64) {
        // Adding and taking away 2^52 rounds to an integer, which then stands in the low bits.
        const ROUND: f64 = 4_503_599_627_370_496.0;
        let (factor, first) = (2f64.powi(-self.exponent), self.first as f64);
        let mut indices = [0u32; BLOCK];
        let capacity = self.capacity();
        let bins = &mut self.bins[..capacity + SPARE];
        for block in values.chunks(BLOCK) {
            for (i, (index, &v)) in indices.iter_mut().zip(block).enumerate() {
                // Not negative; the subtraction is exact or rounds within float64's 53 bits.
                let position = f64::from(v) * factor - first;
                let shifted = position + ROUND;
                let above = shifted - ROUND > position;
                let bin = (shifted.to_bits() as u32).wrapping_sub(u32::from(above)).min(capacity as u32 - 1);
                // Zeros, often every second value, would wait for each other in one bin.
                *index = if v == 0.0 { (capacity + i % SPARE) as u32 } else { bin };
            }
            for (&index, &v) in indices.iter().zip(block) {
                let bin = &mut bins[index as usize];
                bin.count += 1;
                bin.sum += f64::from(v);
            }
        }
        if zeros > 0 {
            let zero = bin_of(0.0, self.exponent) - self.first;
            self.bins[(zero as usize).min(capacity - 1)].count += zeros;
        }
    }
}

/// What one pass over values tells.
struct Summary {
    /// The smallest and the largest, where all are finite.
    range: (f32, f32),
    zeros: u64,
    /// NaN and infinities.
    bad: u64,
}

impl Summary {
    fn of(values: &[f32]) -> Self {
        // Side by side in lanes, without a branch, so that the loop becomes vector code.
        let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (mut zeros, mut bad) = ([0u32; LANES], [0u32; LANES]);
        let mut look = |l: usize, v: f32| {
            low[l] = if v < low[l] { v } else { low[l] };
            high[l] = if v > high[l] { v } else { high[l] };
            zeros[l] += u32::from(v == 0.0);
            bad[l] += u32::from(v.to_bits() & INFINITE == INFINITE);
        };
        let blocks = values.chunks_exact(LANES);
        let rest = blocks.remainder();
        for block in blocks {
            for (l, &v) in block.iter().enumerate() {
                look(l, v);
            }
        }
        for (l, &v) in rest.iter().enumerate() {
            look(l, v);
        }
        let range = (low.into_iter().fold(f32::INFINITY, f32::min), high.into_iter().fold(f32::NEG_INFINITY, f32::max));
        let sum = |lanes: [u32; LANES]| lanes.into_iter().map(u64::from).sum();
        Summary { range, zeros: sum(zeros), bad: sum(bad) }
    }
}

fn fits(range: (f32, f32), exponent: i32, capacity: usize) -> bool {
    bin_of(range.1, exponent).saturating_sub(bin_of(range.0, exponent)) < capacity as i64
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
    fn a_histogram_counts_every_value_in_its_bin() {
        // Half of them zeros, as behind a rectifier, on one side of 0 and on both.
        for shift in [0.0f32, -0.4] {
            let values: Vec<f32> = noise(200_000, 5).iter().map(|v| v.max(0.0) + shift.min(*v)).collect();
            for (mut seen, most) in [(Observation::new(), CAPACITY), (Observation::coarse(), CAPACITY / 16)] {
                values.chunks(10_007).for_each(|chunk| seen.observe(chunk));
                let Store::Histogram(h) = &seen.store else { panic!("expected a histogram") };
                assert!(h.capacity() == most && seen.zeros == values.iter().filter(|v| **v == 0.0).count() as u64);
                let mut want = vec![0u64; most];
                values.iter().for_each(|&v| want[(bin_of(v, h.exponent) - h.first) as usize] += 1);
                assert!(h.used().iter().map(|b| b.count).eq(want), "{shift}");
            }
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
        assert_eq!((o.range().is_ok(), o.not_finite()), (true, 2));
        let mut o = Observation::new();
        o.observe(&[f32::NAN]);
        assert_eq!(o.range().unwrap_err().kind(), Kind::Numeric);
        assert_eq!(Observation::new().range().unwrap_err().kind(), Kind::Data);
    }
}

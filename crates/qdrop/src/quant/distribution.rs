//! How the values of a tensor are spread, in a few KiB, for questions about grids that are asked later.

use super::{Grid, Observation};

/// Bits of a float that lead to its group: sign, exponent and 7 bits of the fraction.
const GROUP: u32 = 16;
/// Doublings below the largest value; what is smaller shares a group.
const DOUBLINGS: i32 = 16;

/// The values seen of one tensor, in groups 1/128 of their size wide; inside a group they count as evenly spread.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    zeros: u64,
    /// Ascending, without zeros.
    groups: Vec<Group>,
    count: u64,
    range: (f32, f32),
}

#[derive(Debug, Clone, Copy)]
struct Group {
    low: f32,
    high: f32,
    /// Values below the group.
    before: u64,
}

impl Distribution {
    /// Bytes of memory that it takes at most.
    pub const MOST_BYTES: u64 = ((2 << (23 - GROUP)) as u64 * DOUBLINGS as u64 + 8) * size_of::<Group>() as u64;

    /// Of what `seen` has seen; nothing where NaN or infinities were among it.
    pub fn new(seen: &Observation) -> Self {
        let Ok(range) = seen.range() else { return Self::default() };
        let (low, high) = (f64::from(range.0), f64::from(range.1));
        let least = low.abs().max(high.abs()) * 2f64.powi(-DOUBLINGS);
        let mut of = Distribution { zeros: seen.zeros(), count: seen.count(), range, ..Self::default() };
        let mut open = None;
        let (mut nonzero, mut zeros) = (0, seen.zeros());
        for (value, count) in seen.weighted() {
            // Zeros are in the first entry that is not negative, maybe with small numbers.
            let own = if value >= 0.0 { count - std::mem::take(&mut zeros).min(count) } else { count };
            if own == 0 {
                continue;
            }
            let value = value * count as f64 / own as f64;
            // The ends of the group, the one nearer to zero first.
            let (inner, outer) = if value.abs() < least {
                (0.0, least)
            } else {
                let key = (value.abs() as f32).to_bits() >> GROUP;
                (f64::from(f32::from_bits(key << GROUP)), f64::from(f32::from_bits((key + 1) << GROUP)))
            };
            let group = if value < 0.0 { (-outer, -inner) } else { (inner, outer) };
            if open != Some(group) {
                of.groups.push(Group { low: group.0.max(low) as f32, high: group.1.min(high) as f32, before: nonzero });
                open = Some(group);
            }
            nonzero += own;
        }
        of
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of them were 0.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// The smallest and the largest of them; 0 when there were none.
    pub fn range(&self) -> (f32, f32) {
        self.range
    }

    /// How many values other than 0 lie below `x`, about.
    fn below(&self, x: f64) -> f64 {
        let i = self.groups.partition_point(|g| f64::from(g.low) < x);
        let end = self.groups.get(i).map_or(self.nonzero(), |g| g.before as f64);
        let Some(group) = i.checked_sub(1).map(|i| self.groups[i]) else { return 0.0 };
        let (low, high) = (f64::from(group.low), f64::from(group.high));
        // A group of one value has no width.
        let inside = if high > low { ((x - low) / (high - low)).min(1.0) } else { 1.0 };
        group.before as f64 + (end - group.before as f64) * inside
    }

    /// How many values other than 0 lie in each of `bins` bins of equal width from `low` to `high`, about.
    pub fn histogram(&self, low: f64, high: f64, bins: usize) -> Vec<f64> {
        let at = |i: usize| self.below(low + (high - low) * i as f64 / bins as f64);
        let mut counts: Vec<f64> = (0..bins).map(|i| at(i + 1) - at(i)).collect();
        // The largest value belongs to the last bin.
        if let Some(last) = counts.last_mut() {
            *last += self.nonzero() - self.below(high) - self.outside(low, high).1;
        }
        counts
    }

    /// How many values lie below `low` and how many above `high`, about.
    pub fn outside(&self, low: f64, high: f64) -> (f64, f64) {
        // What lies at the end itself is not above it.
        let above = if f64::from(self.range.1) <= high { 0.0 } else { self.nonzero() - self.below(high) };
        (self.below(low), above)
    }

    fn nonzero(&self) -> f64 {
        (self.count - self.zeros) as f64
    }

    /// Shares of the values, 0 to 1, that a grid for the whole tensor clips: below its smallest and above its largest
    /// number by more than half a step.
    pub fn clipped(&self, grid: &Grid) -> (f64, f64) {
        let (low, high) = grid.range(0);
        let half = f64::from(grid.scale[0]) / 2.0;
        let (below, above) = self.outside(f64::from(low) - half, f64::from(high) + half);
        let all = self.count.max(1) as f64;
        (below / all, above / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32]) -> Distribution {
        let mut seen = Observation::new();
        seen.observe(values);
        Distribution::new(&seen)
    }

    #[test]
    fn shares_of_a_ramp_are_right() {
        let ramp: Vec<f32> = (0..100_000).map(|i| (i as f32 - 29_999.5) / 10_000.0).collect();
        let d = of(&ramp);
        assert_eq!((d.count(), d.zeros()), (100_000, 0));
        // From -1.25 to 6.75 with half a step.
        let (below, above) = d.clipped(&Grid::per_tensor(4, 0.5, 2).unwrap());
        assert!((below - 0.175).abs() < 1e-3 && (above - 0.025).abs() < 1e-3, "{below} {above}");
        let bins = d.histogram(-3.0, 7.0, 100);
        assert!(bins.iter().all(|b| (b - 1000.0).abs() < 5.0), "{bins:?}");
        assert!((bins.iter().sum::<f64>() - 100_000.0).abs() < 1e-6);
        assert!((d.histogram(0.0, 5.0, 10).iter().sum::<f64>() - 50_000.0).abs() < 100.0);
    }

    #[test]
    fn zeros_are_counted_apart_and_are_never_clipped() {
        let d = of(&[0.0, 0.0, -0.0, 1.0, 2.0, 4.0]);
        assert_eq!((d.count(), d.zeros(), d.range()), (6, 3, (0.0, 4.0)));
        assert_eq!(d.histogram(0.0, 4.0, 4), [0.0, 1.0, 1.0, 1.0]);
        assert_eq!(d.clipped(&Grid::per_tensor(2, 0.5, 0).unwrap()).0, 0.0);
        let (below, above) = d.clipped(&Grid::per_tensor(2, 1.0, 0).unwrap());
        assert!(below == 0.0 && (above - 1.0 / 6.0).abs() < 1e-9, "{above}");
    }

    #[test]
    fn zeros_are_told_from_small_numbers() {
        let half: Vec<f32> = (0..200_000).map(|i| if i % 2 == 0 { 0.0 } else { i as f32 * 1e-9 }).collect();
        let mut seen = Observation::new();
        seen.observe(&half);
        seen.observe(&[1.0, -1e-30, -0.0]);
        let d = Distribution::new(&seen);
        assert_eq!((d.count(), d.zeros(), d.range()), (200_003, 100_001, (-1e-30, 1.0)));
        let bins = d.histogram(-1.0, 1.0, 2);
        assert!((bins.iter().sum::<f64>() - 100_002.0).abs() < 1e-6, "{bins:?}");
    }

    #[test]
    fn odd_tensors_are_survived() {
        assert_eq!(of(&[]).histogram(0.0, 1.0, 2), [0.0, 0.0]);
        assert_eq!(of(&[]).clipped(&Grid::per_tensor(2, 1.0, 0).unwrap()), (0.0, 0.0));
        for v in [3.0f32, -3.0, f32::MAX, f32::MIN, 1e-45, 0.0] {
            let d = of(&[v; 5]);
            let (below, above) = d.clipped(&Grid::per_tensor(8, 0.5, 128).unwrap());
            assert!((0.0..=1.0).contains(&below) && (0.0..=1.0).contains(&above), "{v}: {below} {above}");
            assert_eq!(below + above, f64::from(v.abs() > 64.0), "{v}");
            let bins = d.histogram(f64::from(v) - 1.0, f64::from(v) + 1.0, 2);
            assert!(v == 0.0 || v.abs() > 1e30 || bins.iter().sum::<f64>() == 5.0, "{v}: {bins:?}");
        }
        let many: Vec<f32> = (1..60_000).flat_map(|i| [(i as f32).powi(7), -1.0 / i as f32]).collect();
        let d = of(&many);
        assert!(d.groups.len() as u64 * size_of::<Group>() as u64 <= Distribution::MOST_BYTES, "{}", d.groups.len());
    }
}

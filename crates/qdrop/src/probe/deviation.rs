//! How far the outputs of a changed network are from the float ones.

use crate::error::Result;
use crate::tensor::Rows;

/// Sums over samples of how far a network's outputs of real numbers are from the float ones.
#[derive(Debug, Clone)]
pub(crate) struct Deviation {
    /// Per output: squared error, and energy of the float one.
    sums: Vec<(f64, f64)>,
    /// Samples, and those among them that keep the place of the largest element of the first output.
    samples: (usize, usize),
}

impl Deviation {
    /// Of a network with so many outputs, before any sample.
    pub fn new(outputs: usize) -> Self {
        Deviation { sums: vec![(0.0, f64::MIN_POSITIVE); outputs], samples: (0, 0) }
    }

    /// Adds samples from `first` on: their rows, per output, instead of those of `wanted`. What is NaN there does not count.
    pub fn add(&mut self, first: usize, outputs: &[Vec<f32>], wanted: &[Rows]) -> Result<()> {
        for (i, (rows, wanted)) in outputs.iter().zip(wanted).enumerate() {
            for (sample, row) in (first..).zip(rows.chunks_exact(wanted.width().max(1))) {
                let wanted = wanted.row(sample)?;
                let (error, energy) = &mut self.sums[i];
                for (&g, &w) in row.iter().zip(&*wanted).filter(|(_, w)| !w.is_nan()) {
                    *error += f64::from(g - w) * f64::from(g - w);
                    *energy += f64::from(w) * f64::from(w);
                }
                if i == 0 {
                    self.samples.0 += 1;
                    self.samples.1 += usize::from(largest(row) == largest(&wanted));
                }
            }
        }
        Ok(())
    }

    /// Squared error as a share of the energy of the float output, summed over the outputs.
    pub fn error(&self) -> f64 {
        self.sums.iter().map(|(error, energy)| error / energy).sum()
    }

    /// Share of the samples that keep the place of the largest element of the first output, in percent.
    pub fn agreement(&self) -> f64 {
        100.0 * self.samples.1 as f64 / self.samples.0.max(1) as f64
    }
}

/// The place of the first largest element.
pub(crate) fn largest(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shares_of_energy_and_classes_are_counted() {
        let wanted = [Rows::new(3, vec![3.0, 0.0, 0.0, 4.0, 1.0, 1.0]), Rows::new(3, vec![1.0, 1.0, 1.0])];
        let mut deviation = Deviation::new(2);
        deviation.add(0, &[vec![2.0, 0.0], vec![1.0]], &wanted).unwrap();
        deviation.add(1, &[vec![0.0, 3.0, 1.0, 1.5], vec![1.0, 3.0]], &wanted).unwrap();
        assert_eq!(deviation.error(), (1.0 + 1.0 + 0.25) / 27.0 + 4.0 / 3.0);
        assert!((deviation.agreement() - 200.0 / 3.0).abs() < 1e-9, "of equal elements the first counts");
        assert_eq!(Deviation::new(1).error(), 0.0);
    }
}

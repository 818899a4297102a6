//! Grids and the plain arithmetic on them.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Step of a grid that is fitted to zeros alone.
pub const STEP_OF_ZEROS: f32 = 1e-8;

/// A uniform quantization grid, for a whole tensor (`axis` none, one entry) or per channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Step per channel, > 0, in units of the tensor.
    pub scale: Vec<f32>,
    /// Integer that stands for 0.0, per channel, within `qmin..=qmax`.
    pub zero_point: Vec<i32>,
    /// Smallest integer.
    pub qmin: i32,
    /// Largest integer.
    pub qmax: i32,
    /// Axis along which entries change; `None` for one entry for the whole tensor.
    pub axis: Option<usize>,
}

/// Index of a layer in its plan. It is here because weights say whose they are, below what knows plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(pub u32);

impl LayerId {
    /// Where its entry is in a list with one entry a layer.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A weight whose rounding is decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizedWeight {
    /// The layer, in the plan.
    pub layer: LayerId,
    /// The grid of the integers, `0..=2^bits - 1`.
    pub grid: Grid,
    /// One integer per element of the weight, row-major, on the grid's own scale (zero point not subtracted).
    pub integers: Vec<u8>,
}

impl Grid {
    /// A grid for a whole tensor on `0..=2^bits - 1`.
    pub fn per_tensor(bits: u32, scale: f32, zero_point: i32) -> Result<Self> {
        Self::new(bits, vec![scale], vec![zero_point], None)
    }

    /// A grid with one entry per channel along `axis`, on `0..=2^bits - 1`.
    pub fn per_channel(bits: u32, scale: Vec<f32>, zero_point: Vec<i32>, axis: usize) -> Result<Self> {
        Self::new(bits, scale, zero_point, Some(axis))
    }

    fn new(bits: u32, scale: Vec<f32>, zero_point: Vec<i32>, axis: Option<usize>) -> Result<Self> {
        let grid = Grid { scale, zero_point, qmin: 0, qmax: qmax_of(bits)?, axis };
        grid.check()?;
        Ok(grid)
    }

    /// Checks what the fields promise: steps finite and positive, zero points inside the grid, list lengths.
    pub fn check(&self) -> Result<()> {
        if self.qmin >= self.qmax {
            return Err(Error::internal(format!("grid from {} to {} holds no two integers", self.qmin, self.qmax)));
        }
        if self.scale.len() != self.zero_point.len() || (self.axis.is_none() && self.scale.len() != 1) {
            return Err(Error::internal(format!(
                "grid has {} scales and {} zero points for axis {:?}",
                self.scale.len(),
                self.zero_point.len(),
                self.axis
            )));
        }
        if let Some(s) = self.scale.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(Error::internal(format!("grid scale {s} is not a positive number")));
        }
        match self.zero_point.iter().find(|z| !(self.qmin..=self.qmax).contains(*z)) {
            Some(z) => Err(Error::internal(format!("zero point {z} is outside {}..={}", self.qmin, self.qmax))),
            None => Ok(()),
        }
    }

    /// Bits needed for the grid's integers: the smallest b with 2^b > qmax - qmin.
    pub fn bits(&self) -> u32 {
        32 - (self.qmax.wrapping_sub(self.qmin) as u32).leading_zeros()
    }

    /// Number of integers on the grid.
    pub fn levels(&self) -> u32 {
        self.qmax.wrapping_sub(self.qmin) as u32 + 1
    }

    /// The smallest and largest real number that channel `c` represents.
    pub fn range(&self, c: usize) -> (f32, f32) {
        let (s, z) = (self.scale[c], self.zero_point[c]);
        ((self.qmin - z) as f32 * s, (self.qmax - z) as f32 * s)
    }

    /// The channels of a tensor of `shape` that holds `numel` elements: (elements between two steps of the channel
    /// axis, number of channels).
    fn layout(&self, shape: &[usize], numel: usize) -> Result<(usize, usize)> {
        if crate::tensor::checked_numel(shape)? != numel {
            return Err(Error::internal(format!("shape {shape:?} does not hold {numel} elements")));
        }
        let Some(axis) = self.axis else { return Ok((numel.max(1), 1)) };
        match shape.get(axis) {
            Some(&n) if n == self.scale.len() => Ok((shape[axis + 1..].iter().product::<usize>().max(1), n.max(1))),
            Some(n) => {
                Err(Error::internal(format!("per-channel grid has {} entries, axis {axis} has {n}", self.scale.len())))
            }
            None => {
                Err(Error::internal(format!("per-channel grid on axis {axis} of a tensor of rank {}", shape.len())))
            }
        }
    }

    /// For each element of a tensor of `shape` the index of its entry in `scale` and `zero_point`.
    pub fn channels(&self, shape: &[usize]) -> Result<impl Iterator<Item = usize> + use<>> {
        let numel = crate::tensor::checked_numel(shape)?;
        let (inner, n) = self.layout(shape, numel)?;
        Ok((0..numel).map(move |i| i / inner % n))
    }

    /// Applies `f` to each element of `x` (row-major, of `shape`) with its step and zero point.
    pub(super) fn map_entries<T, U>(&self, shape: &[usize], x: &[T], f: impl Fn(&T, f32, i32) -> U) -> Result<Vec<U>> {
        let (inner, n) = self.layout(shape, x.len())?;
        let mut out = Vec::with_capacity(x.len());
        for (row, chunk) in x.chunks(inner).enumerate() {
            let (s, z) = (self.scale[row % n], self.zero_point[row % n]);
            out.extend(chunk.iter().map(|v| f(v, s, z)));
        }
        Ok(out)
    }

    /// Integers of the elements of `x` (row-major, of `shape`). Values outside the grid saturate, infinities too;
    /// NaN becomes the zero point.
    pub fn quantize(&self, shape: &[usize], x: &[f32]) -> Result<Vec<i32>> {
        self.map_entries(shape, x, |&v, s, z| quantize_one(v, s, z, self.qmin, self.qmax))
    }

    /// Real values of `integers` (row-major, of `shape`).
    pub fn dequantize(&self, shape: &[usize], integers: &[i32]) -> Result<Vec<f32>> {
        self.map_entries(shape, integers, |&q, s, z| (q - z) as f32 * s)
    }

    /// Real values of bytes on this grid (row-major, of `shape`).
    pub fn dequantize_u8(&self, shape: &[usize], integers: &[u8]) -> Result<Vec<f32>> {
        self.map_entries(shape, integers, |&q, s, z| (i32::from(q) - z) as f32 * s)
    }

    /// Quantize, then dequantize: the nearest representable values.
    pub fn fake_quantize(&self, shape: &[usize], x: &[f32]) -> Result<Vec<f32>> {
        self.map_entries(shape, x, |&v, s, z| (quantize_one(v, s, z, self.qmin, self.qmax) - z) as f32 * s)
    }
}

/// Largest integer of an unsigned grid of `bits`, 2 to 8, or 16 for activations.
pub fn qmax_of(bits: u32) -> Result<i32> {
    match bits {
        2..=8 | 16 => Ok((1 << bits) - 1),
        _ => Err(Error::recipe(format!("bits must be 2 to 8, or 16, got {bits}"))),
    }
}

/// clip(round(x / s) + z, qmin, qmax), half to even; infinities saturate, NaN becomes `z`.
pub fn quantize_one(x: f32, s: f32, z: i32, qmin: i32, qmax: i32) -> i32 {
    // A float-to-integer cast saturates and sends NaN to 0.
    ((x / s).round_ties_even() as i32).saturating_add(z).clamp(qmin, qmax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even_and_ends_saturate() {
        let g = Grid::per_tensor(4, 0.5, 3).unwrap();
        let x = [0.25, 0.75, -0.25, -0.75, 100.0, -100.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        assert_eq!(g.quantize(&[9], &x).unwrap(), [3, 5, 3, 1, 15, 0, 15, 0, 3]);
        assert_eq!(g.fake_quantize(&[3], &[0.3, 9.0, -9.0]).unwrap(), [0.5, 6.0, -1.5]);
        assert_eq!((g.bits(), g.levels(), g.range(0)), (4, 16, (-1.5, 6.0)));
    }

    #[test]
    fn division_is_not_multiplication_by_a_reciprocal() {
        let s = 0.1f32;
        for k in 0..100 {
            let x = (k as f32 + 0.5) * s;
            assert_eq!(quantize_one(x, s, 0, 0, 255), (x / s).round_ties_even() as i32);
        }
    }

    #[test]
    fn channels_lie_on_their_axis() {
        let g = Grid::per_channel(8, vec![1.0, 2.0, 4.0], vec![0, 1, 2], 1).unwrap();
        let x = [8.0f32; 12];
        assert_eq!(g.quantize(&[2, 3, 2], &x).unwrap(), [8, 8, 5, 5, 4, 4, 8, 8, 5, 5, 4, 4]);
        assert_eq!(g.dequantize_u8(&[3, 2][..1], &[9, 9, 9]).ok(), None);
        assert_eq!(g.channels(&[2, 3, 2]).unwrap().collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn integers_of_16_bits_are_found_exactly() {
        let g = Grid::per_tensor(16, 3.1e-4, 41_000).unwrap();
        assert_eq!((g.bits(), g.levels()), (16, 65_536));
        for q in (0..65_536).step_by(97).chain([65_535]) {
            let x = g.dequantize(&[1], &[q]).unwrap();
            assert_eq!(g.quantize(&[1], &x).unwrap(), [q]);
            assert_eq!(g.fake_quantize(&[1], &x).unwrap(), x);
        }
        let outside = [1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        assert_eq!(g.quantize(&[5], &outside).unwrap(), [65_535, 0, 65_535, 0, 41_000]);
    }

    #[test]
    fn bad_grids_are_refused() {
        assert!(Grid::per_tensor(1, 1.0, 0).is_err());
        assert!(Grid::per_tensor(9, 1.0, 0).is_err());
        assert!(Grid::per_tensor(15, 1.0, 0).is_err());
        assert!(Grid::per_tensor(16, 1.0, 65_536).is_err());
        assert!(Grid::per_tensor(4, 0.0, 0).is_err());
        assert!(Grid::per_tensor(4, f32::NAN, 0).is_err());
        assert!(Grid::per_tensor(4, 1.0, 16).is_err());
        assert!(Grid::per_channel(4, vec![1.0; 3], vec![0; 2], 0).is_err());
        let g = Grid::per_channel(4, vec![1.0; 3], vec![0; 3], 0).unwrap();
        assert!(g.quantize(&[2, 2], &[0.0; 4]).is_err());
        assert!(g.quantize(&[3, 2], &[0.0; 5]).is_err());
    }
}

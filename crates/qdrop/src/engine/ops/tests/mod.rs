//! Cases as data: gradients against finite differences, values against hand-computed and recorded ones.

mod gradients;
mod more;
mod recurrent;
mod refusals;
mod values;

use super::{Array, View, forward};
use crate::graph::{Op, Padding, Window};
use crate::tensor::DType;

/// Numbers in -1..1 from a counter, the same on every machine.
pub(super) fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// An operand of a case.
#[derive(Debug, Clone)]
pub(super) enum In {
    /// Noise in -scale..scale around an offset: shape, scale, offset.
    Noise(&'static [usize], f64, f64),
    /// Given floats.
    Floats(&'static [usize], &'static [f64]),
    /// Given int64 numbers of rank 1.
    Ints(&'static [i64]),
    /// Given values of another type.
    Typed(DType, &'static [usize], &'static [f64]),
    /// Omitted.
    Absent,
}

pub(super) fn x(shape: &'static [usize]) -> In {
    In::Noise(shape, 2.0, 0.0)
}

pub(super) fn positive(shape: &'static [usize]) -> In {
    In::Noise(shape, 0.9, 1.2)
}

/// The operands with their data.
pub(super) fn arrays(inputs: &[In]) -> Vec<Option<Array<f64>>> {
    let one = |(i, input): (usize, &In)| {
        let (dtype, shape, data) = match input {
            In::Noise(shape, scale, offset) => {
                let data = noise(i as u64 + 1, shape.iter().product());
                (DType::F64, shape.to_vec(), data.into_iter().map(|v| v * scale + offset).collect())
            }
            In::Floats(shape, data) => (DType::F64, shape.to_vec(), data.to_vec()),
            In::Ints(data) => (DType::I64, vec![data.len()], data.iter().map(|&v| v as f64).collect()),
            In::Typed(dtype, shape, data) => (*dtype, shape.to_vec(), data.to_vec()),
            In::Absent => return None,
        };
        Some(Array { dtype, shape, data })
    };
    inputs.iter().enumerate().map(one).collect()
}

pub(super) fn views(arrays: &[Option<Array<f64>>]) -> Vec<Option<View<'_, f64>>> {
    arrays.iter().map(|a| a.as_ref().map(view)).collect()
}

pub(super) fn view(a: &Array<f64>) -> View<'_, f64> {
    View { dtype: a.dtype, shape: &a.shape, data: &a.data }
}

pub(super) fn run(op: &Op, inputs: &[In], results: usize) -> Vec<Array<f64>> {
    forward(op, &views(&arrays(inputs)), results).unwrap()
}

pub(super) fn window(kernel: &[i64], strides: &[i64], dilations: &[i64], padding: Padding) -> Window {
    Window { kernel: kernel.to_vec(), strides: strides.to_vec(), dilations: dilations.to_vec(), padding }
}

pub(super) fn pads(p: &[i64]) -> Padding {
    Padding::Explicit(p.to_vec())
}

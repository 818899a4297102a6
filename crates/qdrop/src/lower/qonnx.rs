//! Quantizers as QONNX has them: `Quant` nodes on float values.
//!
//! Zero points are 0, as FINN wants: a grid whose zero point is its lower end is unsigned, one whose zero point is in
//! the middle is signed. Scales of channels have the rank of the weight, so that they broadcast along it. Weights are
//! float and lie on their grid already, so that a quantizer leaves them as they are.

use crate::error::{Error, Result};
use crate::graph::{Graph, Op, Rounding, ValueId};
use crate::quant::{Grid, QuantizedWeight};
use crate::tensor::Tensor;

/// The quantizer of a weight of `shape`, named after `name`, with its operands.
pub(super) fn weight(
    graph: &mut Graph,
    name: &str,
    shape: &[usize],
    weight: &QuantizedWeight,
) -> Result<(Op, [ValueId; 4])> {
    let real = weight.grid.dequantize_u8(shape, &weight.integers)?;
    let rounded = graph.add_constant(&format!("{name}_quantized"), Tensor::f32(shape, real));
    let mut broadcast = Vec::new();
    if let Some(axis) = weight.grid.axis {
        broadcast = vec![1; shape.len()];
        broadcast[axis] = shape[axis];
    }
    quantizer(graph, name, rounded, &weight.grid, &broadcast)
}

/// The quantizer of the value `float`, with its operands.
pub(super) fn site(graph: &mut Graph, name: &str, float: ValueId, grid: &Grid) -> Result<(Op, [ValueId; 4])> {
    quantizer(graph, name, float, grid, &[])
}

fn quantizer(graph: &mut Graph, name: &str, x: ValueId, grid: &Grid, shape: &[usize]) -> Result<(Op, [ValueId; 4])> {
    let middle = 1 << (grid.bits() - 1);
    let all = |zero: i32| grid.zero_point.iter().all(|&z| z == zero);
    let signed = match () {
        () if all(0) => false,
        () if all(middle) => true,
        () => {
            let message = format!("expected zero points 0 or {middle}, got {:?}", grid.zero_point);
            return Err(Error::internal(message));
        }
    };
    let number = |v: f32| Tensor::f32(&[], vec![v]);
    let scale = graph.add_constant(&format!("{name}_scale"), Tensor::f32(shape, grid.scale.clone()));
    let zero_point = graph.add_constant(&format!("{name}_zero_point"), number(0.0));
    let bits = graph.add_constant(&format!("{name}_bits"), number(grid.bits() as f32));
    let op = Op::Quant { signed, narrow: false, rounding: Rounding::HalfEven };
    Ok((op, [x, scale, zero_point, bits]))
}

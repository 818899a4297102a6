//! Biases of layers that run in integers.
//!
//! QLinearConv and QGemm add a bias as int32, in units of the product of the steps of operand and weight. Versions of
//! ONNX Runtime before 1.21 run a convolution in float where its bias is float, so it is written as they take it.
//!
//! With few bits those units are coarse: without more, ResNet-20 at W2A2 lost one to two points. Integers of few bits leave
//! room in int8, though. So they are multiplied by a power of two and their step is divided by it, which
//! changes no weight and makes the units of the bias as much finer.
//!
//! A bias far beyond its weights' step does not fit: channels that are dead or nearly so have tiny steps. Such a channel
//! of a convolution takes a wider step, where what its weights lose by that is far below the step of the result. Else the
//! bias becomes an addition of its own.

use super::moved::Held;
use super::ort::Form;
use super::write::node;
use crate::error::Result;
use crate::graph::{NodeId, Op, ValueId};
use crate::plan::Layer;
use crate::plan::rules::{self, PAIR_SUM};
use crate::quant::QuantizedWeight;
use crate::tensor::{DType, Tensor};

/// Most that a bias may be, in units of its step; the other half of int32 is left to the products.
const MOST: f64 = (1u32 << 30) as f64;
/// Most that a wider step may move a result, as a share of the result's step.
const NEGLIGIBLE: f64 = 1.0 / 16.0;
/// Largest integer of an operand.
const LARGEST: f64 = 255.0;

impl Form<'_> {
    /// The power of two by which the integers of `weight` are multiplied, and its steps divided: 1 where no node of `layer`
    /// has a bias, or some do not run in integers.
    pub fn finer(&self, layer: &Layer, weight: &QuantizedWeight, origins: &[Option<Held>]) -> i32 {
        let biased = |id: &NodeId| self.graph.node(*id).input(2).is_some();
        let operands: Option<Vec<(f32, i32)>> =
            layer.nodes.iter().map(|&id| self.kernel_operand(layer, id, origins)).collect();
        // Types of 4 bits have no room.
        let room = layer.nodes.iter().any(biased) && !self.native_bits(&weight.grid);
        let (Some(operands), true) = (operands, room) else { return 1 };
        let Ok(channels) = weight.grid.channels(&layer.shape) else { return 1 };
        let centered = weight.integers.iter().zip(channels).map(|(&q, c)| i32::from(q) - weight.grid.zero_point[c]);
        let most = centered.map(i32::abs).max().unwrap_or(0).max(1);
        let operand = operands.iter().map(|o| o.1).max().unwrap_or(255);
        let exact = |factor: i32| 2 * operand * most * factor <= PAIR_SUM || !self.holds(&rules::PAIR_SUMS);
        let fits = |factor: i32| most * factor <= 127 && exact(factor);
        (1..=5).map(|bits| 1 << bits).take_while(|&factor| fits(factor)).last().unwrap_or(1)
    }

    /// Writes the constant biases of the nodes of `layer` in integers where these run in integers, widening steps of
    /// `weight` where that must be; the file divides these by `finer`. The constants that are read no more.
    pub fn biases(
        &mut self,
        layer: &Layer,
        weight: &mut QuantizedWeight,
        finer: i32,
        origins: &[Option<Held>],
    ) -> Result<Vec<ValueId>> {
        let mut unread = Vec::new();
        if !self.holds(&rules::FLOAT_BIASES) {
            return Ok(unread);
        }
        for &id in &layer.nodes {
            let read = self.graph.node(id);
            let (Some(bias), Some(y)) = (read.input(2), read.output(0)) else { continue };
            let result = self.read_by.get(&y).map(|i| self.quantizers[i.0].1.scale[0]);
            let convolution = matches!(read.op, Op::Conv { .. });
            let plain = convolution || matches!(read.op, Op::Gemm { beta: 1.0, .. });
            let Some((step, _)) = self.kernel_operand(layer, id, origins).filter(|_| plain) else { continue };
            let step = step / finer as f32;
            let channels = layer.shape[usize::from(matches!(read.op, Op::Gemm { trans_b: false, .. }))];
            let Some(content) = self.graph.constant(bias) else { continue };
            let mut content = content.to_f32()?;
            let row = self.graph.constant(bias).is_some_and(|t| t.shape().last().is_none_or(|&n| n == t.len()));
            if content.len() == 1 {
                content = vec![content[0]; channels];
            }
            if !row || content.len() != channels {
                continue;
            }
            if convolution && layer.nodes.len() == 1 {
                widen(weight, layer, &content, step, result.unwrap_or(0.0))?;
            }
            let steps: Vec<f32> = weight.grid.scale.iter().map(|s| s * step).collect();
            let of = |c: usize| f64::from(steps[if steps.len() == 1 { 0 } else { c }]);
            let integers: Vec<f64> =
                content.iter().enumerate().map(|(c, &b)| (f64::from(b) / of(c)).round_ties_even()).collect();
            let normal = !self.holds(&rules::SMALL_STEPS) || steps.iter().all(|&s| s.is_normal());
            let fits = !self.holds(&rules::BIAS_RANGE) || integers.iter().all(|b| b.abs() <= MOST);
            match normal && fits {
                true => self.integer(id, bias, &integers, steps)?,
                false => self.apart(id, bias, layer)?,
            }
            unread.push(bias);
        }
        Ok(unread)
    }

    /// Makes the bias of node `id` int32.
    fn integer(&mut self, id: NodeId, bias: ValueId, integers: &[f64], steps: Vec<f32>) -> Result<()> {
        let name = self.graph.value(bias).name.clone();
        let shape: &[usize] = if steps.len() == 1 { &[] } else { &[steps.len()] };
        let content = Tensor::from_f64(DType::I32, &[integers.len()], integers)?;
        let content = self.graph.add_constant(&format!("{name}_quantized"), content);
        let zeros = Tensor::from_f64(DType::I32, shape, &vec![0.0; steps.len()])?;
        let scale = self.graph.add_constant(&format!("{name}_scale"), Tensor::f32(shape, steps));
        let zero_point = self.graph.add_constant(&format!("{name}_zero_point"), zeros);
        let fact = self.graph.value(bias).fact.clone();
        let real = self.graph.add_value(&format!("{name}_dequantized"), fact);
        let op = Op::DequantizeLinear { axis: 0, block: 0, to: None };
        let dequantize = node(&self.graph, op, &[content, scale, zero_point], real);
        self.insertions.before(id, vec![dequantize]);
        self.graph.nodes[id.0 as usize].inputs[2] = Some(real);
        Ok(())
    }

    /// Makes the constant bias of node `id` an addition after it.
    fn apart(&mut self, id: NodeId, bias: ValueId, layer: &Layer) -> Result<()> {
        let Some(add) = super::bias_apart(&mut self.graph, id, bias, layer)? else { return Ok(()) };
        self.insertions.directly_after(id, vec![add]);
        Ok(())
    }
}

/// Widens the steps of channels whose bias does not fit, where their weights' part in the result then moves by little:
/// the operand's step is `step`, the result's `result`.
fn widen(weight: &mut QuantizedWeight, layer: &Layer, bias: &[f32], step: f32, result: f32) -> Result<()> {
    let (Some(axis), shape) = (weight.grid.axis, &layer.shape) else { return Ok(()) };
    let depth = (shape.iter().product::<usize>() / shape[axis].max(1)) as f64;
    let channels: Vec<usize> = weight.grid.channels(shape)?.collect();
    for (c, &b) in bias.iter().enumerate() {
        let old = weight.grid.scale[c];
        // The product of both steps must be a number that floats hold with all their digits.
        let least = f64::from(f32::MIN_POSITIVE) * 2.0;
        let needed = (f64::from(b.abs()) / MOST * 1.001).max(least) / f64::from(step);
        if needed <= f64::from(old) {
            continue;
        }
        let zero = weight.grid.zero_point[c];
        let members = || channels.iter().enumerate().filter(|(_, of)| **of == c).map(|(i, _)| i);
        let dead = members().all(|i| i32::from(weight.integers[i]) == zero);
        // Each product moves by at most half a step of the weight times the largest operand.
        let moves = depth * 0.5 * needed * LARGEST * f64::from(step);
        if !dead && moves > NEGLIGIBLE * f64::from(result) {
            continue;
        }
        let new = needed as f32;
        for i in members().collect::<Vec<_>>() {
            let centered = f64::from(i32::from(weight.integers[i]) - zero);
            let moved = (centered * f64::from(old) / f64::from(new)).round_ties_even() as i32;
            weight.integers[i] = (moved + zero).clamp(weight.grid.qmin, weight.grid.qmax) as u8;
        }
        weight.grid.scale[c] = new;
    }
    Ok(())
}

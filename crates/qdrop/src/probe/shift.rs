//! The shift of the mean that quantization causes in the results of a layer, and the bias that takes it out (bias
//! correction: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section
//! 4.2, with measured means).
//!
//! A layer is linear: the mean of its results is its result for the mean of its operand.

use super::padding::Padding;
use crate::engine::device::{Device, Inference};
use crate::engine::facts::Facts;
use crate::engine::program::{Region, compile};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op, ValueId};
use crate::plan::Layer;
use crate::quant::Grid;
use crate::tensor::Rows;

/// A layer whose bias can take shifts of means out.
pub(crate) struct Shift<'a> {
    /// The bias.
    pub bias: ValueId,
    /// What the layer reads besides its weight, with the node and the position where it does.
    pub operand: (ValueId, NodeId, usize),
    content: &'a [f32],
    ready: Box<dyn Inference>,
    /// Shape of the operand, for one sample.
    shape: &'a [usize],
    /// Elements of one position of the result behind the axis of its channels.
    inner: usize,
    convolves: bool,
}

impl<'a> Shift<'a> {
    /// Of `layer`, which one node reads; `bias` is its bias and that one's float content. None where the bias does not
    /// have one element a channel of the result.
    pub fn new(
        graph: &Graph,
        facts: &'a Facts,
        layer: &Layer,
        bias: &'a (ValueId, Vec<f32>),
        device: &dyn Device,
    ) -> Result<Option<Self>> {
        let lost = || Error::internal(format!("`{}` has no operand or result", layer.name));
        let id = layer.nodes[0];
        let node = graph.node(id);
        let index = (0..2).find(|&i| node.input(i) != Some(layer.weight)).ok_or_else(lost)?;
        let (x, y) = node.input(index).zip(node.output(0)).ok_or_else(lost)?;
        let result = &facts.require(graph, y)?.shape[..];
        let convolves = matches!(node.op, Op::Conv { .. } | Op::ConvTranspose { .. });
        let axis = if convolves { 1 } else { result.len().saturating_sub(1) };
        if bias.1.is_empty() || result.get(axis) != Some(&bias.1.len()) {
            return Ok(None);
        }
        let (nodes, weights) = (layer.nodes.clone(), vec![layer.weight]);
        let region = Region { nodes, inputs: vec![x], outputs: vec![y], weights, ..Region::default() };
        Ok(Some(Shift {
            bias: bias.0,
            operand: (x, id, index),
            content: &bias.1,
            ready: device.inference(&compile(graph, facts, &region)?)?,
            shape: &facts.require(graph, x)?.shape,
            inner: result[axis + 1..].iter().product(),
            convolves,
        }))
    }

    /// Mean result of every channel where the weight is `weight` and the operand holds `values`, a row a sample, as
    /// `grid` quantizes them. Padding does not count.
    pub fn means(
        &self,
        weight: &[f32],
        values: &Rows,
        grid: Option<&Grid>,
        padding: Option<&Padding>,
    ) -> Result<Vec<f64>> {
        let padding = padding.filter(|_| !self.convolves);
        let operand = mean(values, self.operand.0, self.shape, grid, padding)?;
        let channels = self.content.len();
        let (mut sums, mut count) = (vec![0.0; channels], 0);
        let mut add = |_, outputs: &[Vec<f32>]| {
            count += outputs[0].len() / channels;
            outputs[0].iter().enumerate().for_each(|(i, &v)| sums[i / self.inner % channels] += f64::from(v));
            Ok(())
        };
        self.ready.run_each(&[weight], &[], &[Rows::new(1, operand)], &mut add)?;
        Ok(sums.into_iter().map(|sum: f64| sum / count.max(1) as f64).collect())
    }

    /// The bias with which every channel whose results have the means `now` has the means `wanted`.
    pub fn corrected(&self, wanted: &[f64], now: &[f64]) -> Vec<f32> {
        let shifts = wanted.iter().zip(now).map(|(wanted, now)| (wanted - now) as f32);
        self.content.iter().zip(shifts).map(|(b, s)| if s.is_finite() { b + s } else { *b }).collect()
    }
}

/// The mean sample of `value` of `shape`: of `rows`, as `grid` quantizes them, every element's mean over the samples; where
/// there is `padding`, every token's mean over all real tokens.
fn mean(
    rows: &Rows,
    value: ValueId,
    shape: &[usize],
    grid: Option<&Grid>,
    padding: Option<&Padding>,
) -> Result<Vec<f32>> {
    let width: usize = shape.iter().product();
    let padding = padding.and_then(|p| p.around(value, shape).map(|around| (p, around)));
    let [outer, length, inner] = padding.map_or([1, 1, width], |p| p.1);
    let (mut sums, mut counts) = (vec![0.0; outer * inner], vec![0u32; outer * inner]);
    for sample in 0..rows.len() {
        let row = rows.row(sample)?;
        let quantized = grid.map(|grid| grid.fake_quantize(shape, &row)).transpose()?;
        let row = quantized.as_deref().unwrap_or(&row);
        let mask = padding.map(|(p, _)| p.mask(sample)).transpose()?;
        for (i, part) in row.chunks_exact(inner.max(1)).enumerate() {
            if mask.as_ref().is_some_and(|mask| mask[i % length] == 0.0) {
                continue;
            }
            let at = i / length * inner;
            let all = sums[at..at + inner].iter_mut().zip(&mut counts[at..at + inner]).zip(part);
            all.filter(|(_, v)| v.is_finite()).for_each(|((sum, count), &v)| {
                *sum += f64::from(v);
                *count += 1;
            });
        }
    }
    let means: Vec<f32> = sums.iter().zip(&counts).map(|(sum, &n)| (sum / f64::from(n.max(1))) as f32).collect();
    Ok((0..outer * length).flat_map(|i| means[i / length * inner..][..inner].iter().copied()).collect())
}

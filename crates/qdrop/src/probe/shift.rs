//! What quantization does to the results of a layer: the shift of their mean, with the bias that takes it out, and the
//! spread that is left (bias correction: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
//! Correction", ICCV 2019, section 4.2, with measured means).

use super::padding::Padding;
use super::run;
use crate::engine::device::{Device, Inference, beside};
use crate::engine::facts::Facts;
use crate::engine::program::{Readers, Region, compile};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op, ValueId};
use crate::plan::Layer;
use crate::quant::Grid;
use crate::report::Sink;
use crate::tensor::{RowStore, Rows};
use rayon::prelude::*;
use std::borrow::Cow;

/// A layer whose bias can take shifts of means out.
pub(crate) struct Shift<'a> {
    /// The bias.
    pub bias: ValueId,
    /// What the layer reads besides its weight, with the node and the position where it does.
    pub operand: (ValueId, NodeId, usize),
    graph: &'a Graph,
    facts: &'a Facts,
    device: &'a dyn Device,
    content: &'a [f32],
    result: ValueId,
    /// Computes the result from weight and operand.
    region: Region,
    /// Axis of the channels of the result.
    axis: usize,
    /// Whether it is a convolution.
    pub convolves: bool,
}

/// What quantization does to a channel of a layer's results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelError {
    /// Mean of the float results less that of the quantized ones.
    pub mean: f64,
    /// Share of its square in the mean squared difference: 1 where all results are shifted alike, little where a few
    /// differ much.
    pub share: f64,
    /// Mean squared difference that is left when the mean is taken out.
    pub spread: f64,
}

impl<'a> Shift<'a> {
    /// Of `layer`, which one node reads; `bias` is its bias and that one's float content. None where the bias does not
    /// have one element a channel of the result.
    pub fn new(
        graph: &'a Graph,
        facts: &'a Facts,
        layer: &Layer,
        bias: &'a (ValueId, Vec<f32>),
        device: &'a dyn Device,
    ) -> Result<Option<Self>> {
        let lost = || Error::internal(format!("`{}` has no operand or result", layer.name));
        let id = layer.nodes[0];
        let node = graph.node(id);
        let index = (0..2).find(|&i| node.input(i) != Some(layer.weight)).ok_or_else(lost)?;
        let (x, y) = node.input(index).zip(node.output(0)).ok_or_else(lost)?;
        let shape = &facts.require(graph, y)?.shape[..];
        let convolves = matches!(node.op, Op::Conv { .. } | Op::ConvTranspose { .. });
        let axis = if convolves { 1 } else { shape.len().saturating_sub(1) };
        if bias.1.is_empty() || shape.get(axis) != Some(&bias.1.len()) {
            return Ok(None);
        }
        let (nodes, weights) = (layer.nodes.clone(), vec![layer.weight]);
        Ok(Some(Shift {
            bias: bias.0,
            operand: (x, id, index),
            graph,
            facts,
            device,
            content: &bias.1,
            result: y,
            region: Region { nodes, inputs: vec![x], outputs: vec![y], weights, ..Region::default() },
            axis,
            convolves,
        }))
    }

    /// Channels of the results.
    pub fn channels(&self) -> usize {
        self.content.len()
    }

    fn ready(&self, sites: Vec<(ValueId, Readers)>) -> Result<Box<dyn Inference>> {
        let region = Region { sites, ..self.region.clone() };
        self.device.inference(&compile(self.graph, self.facts, &region)?)
    }

    /// For each of `rounded` the error of every channel where the weight is this instead of `float` and the operand, which
    /// holds `values`, is quantized by `grid`. Padding does not count; `sink` may stop it.
    pub fn errors(
        &self,
        float: &[f32],
        rounded: &[&[f32]],
        values: &Rows,
        grid: Option<&Grid>,
        padding: Option<&Padding>,
        sink: &dyn Sink,
    ) -> Result<Vec<Vec<ChannelError>>> {
        let padding = padding.filter(|padding| !self.convolves || padding.is_of_images());
        let shape = &self.facts.require(self.graph, self.result)?.shape;
        let site = grid.map(|_| (self.operand.0, None));
        let ready = [self.ready(Vec::new())?, self.ready(site.into_iter().collect())?];
        let grids = grid.map(Some);
        let (channels, store) = (self.content.len(), RowStore::memory());
        let mut all: Vec<Moments> = rounded.iter().map(|_| Moments::new(channels)).collect();
        let indices: Vec<usize> = (0..values.len()).collect();
        for some in indices.chunks(run::chunk(shape.iter().product(), self.device)) {
            run::go_on(sink)?;
            let part = [values.some(some)?];
            let float = ready[0].run(&[float], &[], &part, &store)?.swap_remove(0);
            for (all, weight) in all.iter_mut().zip(rounded) {
                let quantized = ready[1].run(&[weight], grids.as_slice(), &part, &store)?.swap_remove(0);
                let one = |at: usize| {
                    let (float, quantized) = (float.row(at)?, quantized.row(at)?);
                    let real = |row| match padding {
                        Some(padding) => padding.real_part(self.result, shape, some[at], row),
                        None => Ok((Cow::Borrowed(row), Cow::Borrowed(&shape[..]))),
                    };
                    let ((float, left), (quantized, _)) = (real(&float)?, real(&quantized)?);
                    let mut moments = Moments::new(channels);
                    moments.add(&float, &quantized, left[self.axis + 1..].iter().product());
                    Ok(moments)
                };
                let of_samples: Result<Vec<Moments>> =
                    beside(self.device, || (0..some.len()).into_par_iter().map(one).collect());
                of_samples?.iter().for_each(|moments| all.merge(moments));
            }
        }
        Ok(all.iter().map(Moments::errors).collect())
    }

    /// The bias that takes the means of `errors` out of those channels where the share is `least` or more.
    pub fn corrected(&self, errors: &[ChannelError], least: f64) -> Vec<f32> {
        let taken = |error: &ChannelError| error.share >= least && error.mean.is_finite();
        let corrected = |(b, error): (&f32, &ChannelError)| if taken(error) { b + error.mean as f32 } else { *b };
        self.content.iter().zip(errors).map(corrected).collect()
    }
}

/// Sums over the elements of each channel.
struct Moments {
    count: usize,
    /// Of differences.
    sums: Vec<f64>,
    /// Of their squares.
    squares: Vec<f64>,
}

impl Moments {
    fn new(channels: usize) -> Self {
        Moments { count: 0, sums: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    /// Adds the differences of two equal numbers of results with `inner` elements behind the axis of the channels.
    fn add(&mut self, float: &[f32], quantized: &[f32], inner: usize) {
        let channels = self.sums.len();
        self.count += float.len() / channels;
        let inner = inner.max(1);
        for (i, (float, quantized)) in float.chunks_exact(inner).zip(quantized.chunks_exact(inner)).enumerate() {
            let (sum, square) = (&mut self.sums[i % channels], &mut self.squares[i % channels]);
            for (&f, &q) in float.iter().zip(quantized) {
                let difference = f64::from(f) - f64::from(q);
                *sum += difference;
                *square += difference * difference;
            }
        }
    }

    fn merge(&mut self, other: &Moments) {
        self.count += other.count;
        self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a += b);
        self.squares.iter_mut().zip(&other.squares).for_each(|(a, b)| *a += b);
    }

    fn errors(&self) -> Vec<ChannelError> {
        let count = self.count.max(1) as f64;
        let error = |(&sum, &square): (&f64, &f64)| {
            let mean = sum / count;
            let share = if square > 0.0 { mean * sum / square } else { 0.0 };
            ChannelError { mean, share, spread: (square / count - mean * mean).max(0.0) }
        };
        self.sums.iter().zip(&self.squares).map(error).collect()
    }
}

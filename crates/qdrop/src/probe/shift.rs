//! The shift of the mean that a changed weight causes in the results of its layer.

use super::forward::ForwardPass;
use super::padding::Padding;
use crate::engine::device::{Device, Inference};
use crate::engine::facts::Facts;
use crate::engine::program::{Region, compile};
use crate::error::{Error, Result};
use crate::graph::{Graph, Op, ValueId};
use crate::plan::Layer;
use crate::tensor::Rows;

/// A layer whose bias can take shifts of means out.
pub(crate) struct Shift<'a> {
    /// The bias.
    pub value: ValueId,
    bias: &'a [f32],
    ready: Box<dyn Inference>,
    inputs: &'a Rows,
    padding: Option<&'a Padding>,
    /// The layer's result, its shape, and elements of one position along the axis of the channels.
    result: ValueId,
    shape: &'a [usize],
    inner: usize,
    /// Means with the float weight.
    float: Vec<f64>,
}

impl<'a> Shift<'a> {
    /// Of `layer`, which one node reads and before which `forward` stands; `bias` is its bias and that one's float content.
    /// Padding does not count.
    pub fn new(
        graph: &Graph,
        facts: &'a Facts,
        layer: &Layer,
        bias: &'a (ValueId, Vec<f32>),
        forward: &'a ForwardPass,
        padding: Option<&'a Padding>,
        device: &dyn Device,
    ) -> Result<Self> {
        let lost = || Error::internal(format!("`{}` has no input or result", layer.name));
        let node = graph.node(layer.nodes[0]);
        let (x, y) = node.input(0).zip(node.output(0)).ok_or_else(lost)?;
        let shape = &facts.require(graph, y)?.shape[..];
        let convolves = matches!(node.op, Op::Conv { .. } | Op::ConvTranspose { .. });
        let axis = if convolves { 1 } else { shape.len() - 1 };
        let region = Region {
            nodes: layer.nodes.clone(),
            inputs: vec![x],
            outputs: vec![y],
            weights: vec![layer.weight],
            ..Region::default()
        };
        let mut shift = Shift {
            value: bias.0,
            bias: &bias.1,
            ready: device.inference(&compile(graph, facts, &region)?)?,
            inputs: forward.value(x).ok_or_else(lost)?,
            padding: padding.filter(|_| !convolves),
            result: y,
            shape,
            inner: shape[axis + 1..].iter().product(),
            float: Vec::new(),
        };
        let float = graph.constant(layer.weight).ok_or_else(lost)?.to_f32()?;
        shift.float = shift.means(&float)?;
        Ok(shift)
    }

    /// The bias with which every channel keeps its mean when the weight is `content`.
    pub fn corrected(&self, content: &[f32]) -> Result<Vec<f32>> {
        let means = self.means(content)?;
        let shifts = self.float.iter().zip(means).map(|(float, now)| (float - now) as f32);
        Ok(self.bias.iter().zip(shifts).map(|(b, s)| b + s).collect())
    }

    /// Mean result of every channel.
    fn means(&self, content: &[f32]) -> Result<Vec<f64>> {
        let channels = self.bias.len();
        let (mut sums, mut count) = (vec![0.0; channels], 0);
        let width = self.shape.iter().product::<usize>().max(1);
        let mut add = |first: usize, outputs: &[Vec<f32>]| {
            for (sample, row) in (first..).zip(outputs[0].chunks_exact(width)) {
                let real = match self.padding {
                    Some(padding) => padding.real(self.result, self.shape, sample, row)?,
                    None => row.into(),
                };
                count += real.len() / channels;
                let finite = real.iter().enumerate().filter(|(_, v)| v.is_finite());
                finite.for_each(|(i, &v)| sums[i / self.inner % channels] += f64::from(v));
            }
            Ok(())
        };
        self.ready.run_each(&[content], &[], std::slice::from_ref(self.inputs), &mut add)?;
        Ok(sums.into_iter().map(|sum: f64| sum / count.max(1) as f64).collect())
    }
}

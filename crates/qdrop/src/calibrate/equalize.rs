//! Cross-layer equalization where it is free: a depthwise convolution behind another convolution.
//!
//! Channels of one tensor share a step, although some are ten times as wide as others. f(s·x) = s·f(x) for a rectifier
//! f, so a channel may leave its layer s times as large if the next layer's weights for it are s times as small (Nagel
//! et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1). Between a
//! layer with a step per output channel and a depthwise one with a step per channel the factor moves into the weights'
//! steps and costs nothing there. Factors are powers of two, so that not a bit of what the network computes changes.

use super::range_spec;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op, Unary, ValueId};
use crate::plan::{Plan, SiteId};
use crate::quant::{Observation, fit};
use crate::tensor::{DType, Rows, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Largest exponent of a factor.
const MOST_DOUBLINGS: f32 = 6.0;

/// A site between two layers whose channels may be scaled.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPair {
    /// The site on the rectified tensor.
    pub site: SiteId,
    /// The convolution that computes it.
    before: NodeId,
    /// The depthwise convolution that alone reads it.
    after: NodeId,
    channels: usize,
    /// Where the rectifier cuts off.
    cap: Option<f32>,
}

/// All pairs of `plan`, which was made from `graph`, in the order of its sites.
pub fn layer_pairs(graph: &Graph, plan: &Plan) -> Vec<LayerPair> {
    let view = View { graph, producers: graph.producers(), consumers: graph.consumers(), plan };
    (0..plan.sites.len() as u32).filter_map(|i| view.pair(SiteId(i))).collect()
}

struct View<'a> {
    graph: &'a Graph,
    producers: Vec<Option<NodeId>>,
    consumers: Vec<Vec<(NodeId, usize)>>,
    plan: &'a Plan,
}

impl View<'_> {
    fn pair(&self, site: SiteId) -> Option<LayerPair> {
        let value = self.plan.sites[site.0 as usize].value;
        let after = self.only_reader(value)?;
        let rectifier = self.graph.node(self.producers[value.0 as usize]?);
        let cap = self.cap(&rectifier.op, &rectifier.inputs)?;
        let sum = rectifier.input(0).filter(|&v| self.only_reader(v).is_some())?;
        let before = self.producers[sum.0 as usize]?;
        let (channels, _) = self.filters(before)?;
        let (_, depth) = self.filters(after)?;
        let Op::Conv { group, .. } = self.graph.node(after).op else { return None };
        (group as usize == channels && depth == 1).then_some(LayerPair { site, before, after, channels, cap })
    }

    /// The one node that reads `value` as its first operand, where nobody else sees it.
    fn only_reader(&self, value: ValueId) -> Option<NodeId> {
        match self.consumers[value.0 as usize][..] {
            [(id, 0)] if !self.graph.outputs.contains(&value) => Some(id),
            _ => None,
        }
    }

    /// Where a rectifier cuts off; `None` if `op` is none.
    fn cap(&self, op: &Op, inputs: &[Option<ValueId>]) -> Option<Option<f32>> {
        let bound = |i: usize| match inputs.get(i).copied().flatten() {
            Some(v) => Some(Some(*self.graph.constant(v)?.to_f32().ok()?.first()?)),
            None => Some(None),
        };
        match op {
            Op::Unary(Unary::Relu) => Some(None),
            Op::Clip if bound(1)? == Some(0.0) => bound(2),
            _ => None,
        }
    }

    /// Output channels and input channels of a group of the convolution `id`, if its weight is float or has a step per
    /// output channel, and has no other reader, like its bias.
    fn filters(&self, id: NodeId) -> Option<(usize, usize)> {
        let node = self.graph.node(id);
        // Half precision has too few exponents to be scaled without loss.
        let single = |v: &ValueId| self.graph.constant(*v).is_some_and(|t| t.dtype() == DType::F32);
        let mine = |v: &ValueId| single(v) && self.consumers[v.0 as usize].len() == 1;
        let layer = self.plan.layers.iter().find(|l| l.nodes.contains(&id));
        let fits = matches!(node.op, Op::Conv { .. })
            && layer.is_none_or(|l| l.axis == Some(0))
            && node.inputs.iter().skip(1).flatten().all(mine);
        let shape = self.graph.constant(node.input(1)?)?.shape();
        fits.then(|| (shape[0], shape[1]))
    }
}

/// Exponents of the factors of two by which the channels of `pair` should grow, for `values` of its site [samples,
/// C·H·W]: toward the channel with the widest step, and no further than its rectifier allows on these values.
pub fn exponents(plan: &Plan, pair: &LayerPair, values: &Rows) -> Result<Vec<i32>> {
    let site = &plan.sites[pair.site.0 as usize];
    let plane = values.width() / pair.channels;
    let channel = |c: usize| {
        // Factors are powers of two, so that steps need not be known exactly.
        let mut seen = Observation::coarse();
        for row in values.iter() {
            seen.observe(&row?[c * plane..][..plane]);
        }
        let most = seen.range()?.1;
        Ok((if most > 0.0 { fit(&seen, &range_spec(&site.grid))?.scale[0] } else { 0.0 }, most))
    };
    let channels: Vec<(f32, f32)> = (0..pair.channels)
        .into_par_iter()
        .map(channel)
        .collect::<Result<_>>()
        .map_err(|e| e.at(format!("activation `{}`", site.name)))?;
    let widest = channels.iter().fold(0.0, |w: f32, &(step, _)| w.max(step));
    let exponent = |&(step, most): &(f32, f32)| {
        if step == 0.0 {
            return 0;
        }
        let room = pair.cap.map_or(MOST_DOUBLINGS, |cap| (cap / most).log2().floor());
        (widest / step).log2().round().min(room).clamp(0.0, MOST_DOUBLINGS) as i32
    };
    Ok(channels.iter().map(exponent).collect())
}

/// Lets each channel of `pair` grow by 2 to the power of its entry in `exponents`.
pub fn equalize(graph: &mut Graph, pair: &LayerPair, exponents: &[i32]) -> Result<()> {
    for &constant in graph.node(pair.before).inputs.clone()[1..].iter().flatten() {
        scale(graph, constant, exponents)?;
    }
    let down: Vec<i32> = exponents.iter().map(|e| -e).collect();
    graph.node(pair.after).input(1).map_or(Ok(()), |weight| scale(graph, weight, &down))
}

/// Multiplies the equal parts of a constant along its first axis, one an exponent, by powers of two.
fn scale(graph: &mut Graph, id: ValueId, exponents: &[i32]) -> Result<()> {
    let tensor = graph.constant(id).ok_or_else(|| Error::internal("a layer's weight is not constant"))?;
    let mut values = tensor.to_f64()?;
    let part = values.len() / exponents.len();
    for (part, &exponent) in values.chunks_exact_mut(part.max(1)).zip(exponents) {
        part.iter_mut().for_each(|v| *v *= f64::from(exponent).exp2());
    }
    let scaled = Tensor::from_f64(tensor.dtype(), tensor.shape(), &values)?;
    let value = graph.value_mut(id);
    (value.constant, value.origin) = (Some(Arc::new(scaled)), None);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cpu::Runner;
    use crate::engine::facts;
    use crate::engine::program::{Region, compile};
    use crate::graph::testing::{Builder, window};
    use crate::plan::{Recipe, plan};
    use crate::tensor::Shelf;

    /// Images → convolution → rectifier → depthwise → rectifier → depthwise → convolution, three channels inside.
    fn network(cap: Option<f32>, bits: u32) -> (Graph, Plan) {
        let mut b = Builder::new();
        let x = b.images(2, 4);
        let [w, dw, last] =
            [("w", [3, 2, 3, 3]), ("dw", [3, 1, 3, 3]), ("last", [2, 3, 1, 1])].map(|(n, s)| b.constant(n, &s));
        let [bias, after] = ["bias", "after"].map(|n| b.constant(n, &[3]));
        let conv = |k: i64, group| Op::Conv { window: window(vec![k / 2; 4]), group };
        let y = b.node(conv(3, 1), &[x, w, bias]);
        let r = match cap {
            None => b.node(Op::Unary(Unary::Relu), &[y]),
            Some(cap) => {
                let (low, high) = (
                    b.graph.add_constant("low", Tensor::scalar(0.0)),
                    b.graph.add_constant("high", Tensor::scalar(cap)),
                );
                b.node(Op::Clip, &[y, low, high])
            }
        };
        let z = b.node(conv(3, 3), &[r, dw, after]);
        let z = b.node(Op::Unary(Unary::Relu), &[z]);
        let z = b.node(conv(1, 1), &[z, last]);
        b.graph.outputs = vec![z];
        let facts = facts::infer(&b.graph, &[vec![1, 2, 4, 4]]).unwrap();
        let mut recipe = Recipe::default();
        recipe.weights.bits = bits;
        let plan = plan(&b.graph, &facts, &recipe).unwrap();
        (b.graph, plan)
    }

    /// By the fast device: every operation happens in f32, so factors that are powers of two leave no trace.
    fn outputs(graph: &Graph, x: &[f32]) -> Vec<f32> {
        let facts = facts::infer(graph, &[vec![1, 2, 4, 4]]).unwrap();
        let (nodes, inputs, outputs) = (graph.node_ids().collect(), graph.inputs.clone(), graph.outputs.clone());
        let region = Region { nodes, inputs, outputs, ..Region::default() };
        let runner = Runner::new(&compile(graph, &facts, &region).unwrap()).unwrap();
        let rows = runner.run(&[], &[], &[Rows::new(1, x.to_vec())], &Shelf::memory()).unwrap();
        rows[0].row(0).unwrap().into_owned()
    }

    #[test]
    fn channels_grow_and_the_network_stays() {
        for (cap, bits) in [(None, 4), (Some(6.0), 4), (None, 32)] {
            let (graph, plan) = network(cap, bits);
            let pairs = layer_pairs(&graph, &plan);
            assert_eq!(pairs.len(), 1);
            assert_eq!(pairs[0].cap, cap);
            let mut equal = graph.clone();
            equalize(&mut equal, &pairs[0], &[0, 3, 1]).unwrap();
            let x: Vec<f32> = (0..32).map(|i| ((i * 7) % 11) as f32 / 80.0 - 0.05).collect();
            assert_eq!(outputs(&equal, &x), outputs(&graph, &x));
            assert_ne!(equal, graph);
            equalize(&mut equal, &pairs[0], &[0, -3, -1]).unwrap();
            assert_eq!(equal, graph);
        }
    }

    #[test]
    fn factors_bring_steps_together_within_the_cap() {
        let (graph, plan) = network(Some(6.0), 4);
        let pair = &layer_pairs(&graph, &plan)[0];
        // Channels reach 3, 0.4 and 0; two samples of four pixels.
        let values = |tops: [f32; 3]| {
            let row = tops.iter().flat_map(|t| [0.0, t / 15.0, t / 3.0, *t]).collect::<Vec<f32>>();
            Rows::new(2, [row.clone(), row].concat())
        };
        assert_eq!(exponents(&plan, pair, &values([3.0, 0.4, 0.0])).unwrap(), [0, 3, 0]);
        assert_eq!(exponents(&plan, pair, &values([3.0, 0.4, 1e-6])).unwrap(), [0, 3, 6]);
        assert_eq!(exponents(&plan, pair, &values([8.0, 4.0, 0.1])).unwrap(), [0, 0, 5]);
        assert_eq!(exponents(&plan, pair, &values([3.0, f32::NAN, 0.4])).unwrap(), [0, 0, 3], "NaN does not count");
    }

    #[test]
    fn only_free_scaling_is_done() {
        let without = |change: &dyn Fn(&mut Graph, &mut Plan)| {
            let (mut graph, mut plan) = network(None, 4);
            change(&mut graph, &mut plan);
            layer_pairs(&graph, &plan).is_empty()
        };
        assert!(without(&|_, plan| plan.layers[0].axis = None));
        assert!(without(&|_, plan| plan.layers[1].axis = None));
        assert!(without(&|_, plan| plan.sites.clear()));
        assert!(without(&|graph, _| graph.outputs.push(graph.nodes[1].outputs[0].unwrap())));
        assert!(without(&|graph, _| graph.outputs.push(graph.nodes[0].outputs[0].unwrap())));
        assert!(without(&|graph, _| graph.nodes[2].inputs[2] = graph.nodes[0].inputs[2]));
        assert!(without(&|graph, _| graph.nodes[1].op = Op::Unary(Unary::HardSwish)));
        assert!(without(&|graph, _| {
            let weight = graph.nodes[2].inputs[1].unwrap();
            let half = Tensor::from_f64(DType::F16, &[3, 1, 3, 3], &[0.5; 27]).unwrap();
            graph.value_mut(weight).constant = Some(Arc::new(half));
        }));
        assert!(without(&|graph, _| {
            let low = graph.add_constant("low", Tensor::scalar(0.5));
            graph.nodes[1].op = Op::Clip;
            graph.nodes[1].inputs.push(Some(low));
        }));
    }
}

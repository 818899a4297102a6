//! Padding tokens of sequences: they take no part in first grids and losses.

use super::weigh::Weights;
use crate::data::Samples;
use crate::engine::channels;
use crate::engine::facts::Facts;
use crate::engine::program::around;
use crate::engine::train::LossWeights;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};
use crate::plan::{Plan, Recipe};
use crate::tensor::{DType, Rows};
use std::borrow::Cow;

/// The network input that marks padding, unless the recipe names another.
const MASK: &str = "attention_mask";

/// Elements that belong to real tokens, and their shape.
pub(crate) type RealPart<'a> = (Cow<'a, [f32]>, Cow<'a, [usize]>);

/// Which tokens of each sample are real.
#[derive(Debug, Clone)]
pub(crate) struct Padding {
    /// Per sample: 1 for a real token, 0 for padding.
    tokens: Rows,
    /// Share of the tokens that are real.
    share: f64,
    /// Per value: the axis of the tokens, if it has one.
    axes: Vec<Option<usize>>,
}

impl Padding {
    /// Reads the mask of `samples`; `None` where the network has none, or nothing is padded.
    pub fn read(graph: &Graph, facts: &Facts, recipe: &Recipe, samples: &dyn Samples) -> Result<Option<Self>> {
        let name = recipe.input.mask.as_deref();
        let named = |&&v: &&ValueId| graph.value(v).name == name.unwrap_or(MASK);
        let found = graph.inputs.iter().position(|v| named(&v)).zip(graph.inputs.iter().find(named));
        let Some((index, &input)) = found else {
            return match name {
                Some(name) => Err(Error::recipe(format!("input.mask: the network has no input `{name}`"))),
                None => Ok(None),
            };
        };
        let [1, length] = facts.get(input).map_or(&[][..], |f| &f.shape[..]) else {
            return match name {
                Some(name) => {
                    Err(Error::recipe(format!("input.mask: `{name}` is not a mask of shape [batch, tokens]")))
                }
                None => Ok(None),
            };
        };
        let mut tokens = Vec::with_capacity(samples.len() * length);
        for i in 0..samples.len() {
            tokens.extend(samples.get(i)?[index].to_f32()?.iter().map(|&v| if v > 0.0 { 1.0f32 } else { 0.0 }));
        }
        let real = tokens.iter().map(|&v| f64::from(v)).sum::<f64>();
        if real == tokens.len() as f64 || real == 0.0 {
            return Ok(None);
        }
        let share = real / tokens.len() as f64;
        let axes = channels::tokens(graph, facts, *length);
        Ok(Some(Padding { tokens: Rows::new(samples.len(), tokens), share, axes }))
    }

    /// Elements before, along and behind the token axis of a value of `shape`.
    pub fn around(&self, value: ValueId, shape: &[usize]) -> Option<[usize; 3]> {
        self.axes.get(value.0 as usize).copied().flatten().map(|axis| around(shape, axis))
    }

    /// The elements of `row`, content of `value` of `shape` in `sample`, that belong to real tokens.
    pub fn real<'a>(&self, value: ValueId, shape: &[usize], sample: usize, row: &'a [f32]) -> Result<Cow<'a, [f32]>> {
        let Some([_, length, inner]) = self.around(value, shape) else { return Ok(Cow::Borrowed(row)) };
        let mask = self.tokens.row(sample)?;
        let kept = row.chunks_exact(inner.max(1)).enumerate().filter(|(i, _)| mask[i % length] > 0.0);
        Ok(Cow::Owned(kept.flat_map(|(_, part)| part.iter().copied()).collect()))
    }

    /// The same with the shape of what is left.
    pub fn real_part<'a>(
        &self,
        value: ValueId,
        shape: &'a [usize],
        sample: usize,
        row: &'a [f32],
    ) -> Result<RealPart<'a>> {
        let real = self.real(value, shape, sample, row)?;
        let mut left = Cow::Borrowed(shape);
        if let Some(axis) = self.axes.get(value.0 as usize).copied().flatten() {
            left.to_mut()[axis] = real.len() * shape[axis] / row.len().max(1);
        }
        Ok((real, left))
    }

    /// Takes padding out of the losses of all units' outputs; the mean of what is left stays the same.
    pub fn exclude(&self, facts: &Facts, plan: &Plan, weights: &mut Weights) -> Result<()> {
        for &v in plan.units.iter().flat_map(|u| &u.outputs) {
            let Some(fact) = facts.get(v).filter(|f| f.dtype == DType::F32) else { continue };
            let Some([_, length, behind]) = self.around(v, &fact.shape) else { continue };
            let [outer, channels, inner] = around(&fact.shape, fact.channel_axis);
            if behind == inner && length == channels {
                // Channels along the tokens: no position is all padding.
                continue;
            }
            let width = outer * inner;
            let old = weights.remove(&v);
            // Positions are what is left of the shape without the axis of the channels.
            let behind = if behind > inner { behind / channels } else { behind };
            let mut positions = Vec::with_capacity(width * self.tokens.len());
            for sample in 0..self.tokens.len() {
                let mask = self.tokens.row(sample)?;
                let before = old.as_ref().map(|o| o.positions.row(sample)).transpose()?;
                let at = |i: usize| before.as_ref().map_or(1.0, |b| b[i]) * mask[i / behind % length];
                positions.extend((0..width).map(|i| at(i) / self.share as f32));
            }
            let channels = old.map_or_else(|| vec![1.0; channels], |o| o.channels);
            let positions = Rows::new(self.tokens.len(), positions);
            weights.insert(v, LossWeights { channels, positions, outer });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::facts;
    use crate::graph::testing::Builder;
    use crate::graph::{Dim, Fact, Node, NodeId, Op, Unary};
    use crate::plan::Unit;
    use crate::tensor::Tensor;

    fn padding(width: usize, tokens: &[f32], axes: &[Option<usize>]) -> Padding {
        let share = tokens.iter().map(|&v| f64::from(v)).sum::<f64>() / tokens.len() as f64;
        Padding { tokens: Rows::new(tokens.len() / width, tokens.to_vec()), share, axes: axes.to_vec() }
    }

    #[test]
    fn real_tokens_are_found_along_their_axis() {
        let p = padding(3, &[1.0, 1.0, 0.0, 1.0, 0.0, 0.0], &[Some(1), Some(2), None]);
        let row: Vec<f32> = (0..6).map(|v| v as f32).collect();
        assert_eq!(*p.real(ValueId(0), &[1, 3, 2], 0, &row).unwrap(), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(*p.real(ValueId(0), &[1, 3, 2], 1, &row).unwrap(), [0.0, 1.0]);
        assert_eq!(*p.real(ValueId(1), &[1, 2, 3, 1], 1, &row).unwrap(), [0.0, 3.0], "heads before tokens");
        let (part, left) = p.real_part(ValueId(1), &[1, 2, 3, 1], 1, &row).unwrap();
        assert_eq!((&*part, &*left), (&[0.0, 3.0][..], &[1, 2, 1, 1][..]), "with its shape");
        assert_eq!(*p.real(ValueId(2), &[1, 6], 1, &row).unwrap(), row[..], "no tokens");
    }

    /// As many tokens as heads and as features a head: only where they come from tells them apart.
    #[test]
    fn heads_and_channels_are_no_tokens() {
        let mut b = Builder::new();
        let x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(3), Dim::Known(9)]);
        let w = b.constant("w", &[9, 9]);
        let q = b.node(Op::MatMul, &[x, w]);
        let split = b.graph.add_constant("split", Tensor::i64s(vec![1, 3, 3, 3]));
        let heads = b.node(Op::Reshape { allowzero: false }, &[q, split]);
        let query = b.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[heads]);
        let key = b.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[heads]);
        let scores = b.node(Op::MatMul, &[query, key]);
        let context = b.node(Op::MatMul, &[scores, query]);
        let back = b.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context]);
        let join = b.graph.add_constant("join", Tensor::i64s(vec![1, 3, 9]));
        let y = b.node(Op::Reshape { allowzero: false }, &[back, join]);
        let turned = b.node(Op::Transpose { perm: vec![0, 2, 1] }, &[y]);
        let g = b.finish(&[turned]);
        let facts = facts::infer(&g, &[vec![1, 3, 9]]).unwrap();
        let tokens = channels::tokens(&g, &facts, 3);
        let found = [x, q, heads, query, key, scores, context, back, y, turned];
        let axis = |v: ValueId| tokens[v.0 as usize].unwrap();
        assert_eq!(found.map(axis), [1, 1, 1, 2, 3, 2, 2, 1, 1, 2]);
        let channel = |v: ValueId| facts.get(v).unwrap().channel_axis;
        assert_eq!(found.map(channel), [2, 2, 3, 3, 2, 1, 3, 3, 2, 1]);
    }

    #[test]
    fn losses_of_padding_weigh_nothing_and_the_rest_as_much_as_before() {
        let mut g = Graph { opset: 17, ..Graph::default() };
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(3), Dim::Known(2)]);
        let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape });
        let y = g.add_value("y", Fact::default());
        g.nodes = vec![Node::new("relu", Op::Unary(Unary::Relu), &[x], &[y])];
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        let facts = facts::infer(&g, &[vec![1, 3, 2]]).unwrap();
        let unit = Unit { nodes: vec![NodeId(0)], inputs: vec![x], outputs: vec![y], ..Unit::default() };
        let plan = Plan { units: vec![unit], ..Plan::default() };
        let p = padding(3, &[1.0, 1.0, 0.0, 1.0, 0.0, 0.0], &[Some(1), Some(1)]);
        let mut weights = Weights::new();
        p.exclude(&facts, &plan, &mut weights).unwrap();
        assert_eq!((&weights[&y].channels[..], weights[&y].outer), (&[1.0, 1.0][..], 3));
        assert_eq!(*weights[&y].positions.row(0).unwrap(), [2.0, 2.0, 0.0]);
        assert_eq!(*weights[&y].positions.row(1).unwrap(), [2.0, 0.0, 0.0]);
        weights.get_mut(&y).unwrap().channels = vec![3.0, 5.0];
        p.exclude(&facts, &plan, &mut weights).unwrap();
        assert_eq!(weights[&y].channels, [3.0, 5.0], "what was weighed stays");
        assert_eq!(*weights[&y].positions.row(0).unwrap(), [4.0, 4.0, 0.0]);
    }
}

//! Constants and shape arithmetic.

use super::{Context, InputShapes};
use crate::engine::facts::{Facts, infer, infer_beside, infer_briefly};
use crate::error::Result;
use crate::graph::{Fact, Graph, Node, NodeId, Op, ValueId};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Bytes by which a folded constant may exceed what it is made of.
const MAX_GROWTH: usize = 64 << 20;

/// How open sizes beside the batch are changed to see what depends on them: strides of image networks stay whole, and
/// sequences stay within their positions.
const CHANGES: [fn(usize) -> usize; 2] = [|size| size + 32, |size| (size / 2).max(1)];

/// Facts of the whole graph for one sample and for two of other sizes (the same when all sizes are fixed), where shapes
/// are known and both can be derived.
pub(super) fn facts(graph: &Graph, context: &Context) -> Result<Option<(Facts, Facts)>> {
    let Some(one) = context.shapes.concrete(graph, 1) else { return Ok(None) };
    let first = infer(graph, &one)?;
    if !InputShapes::open(graph) {
        return Ok(Some((first.clone(), first)));
    }
    // A model that declares an open size and yet holds fixed shapes inside runs with one size, or one sample, only.
    let beside = |shapes: &[Vec<usize>]| infer_beside(graph, shapes, &first).ok();
    let changed = CHANGES.iter().find_map(|change| beside(&context.shapes.changed(graph, 2, change)?));
    let two = changed.or_else(|| beside(&context.shapes.concrete(graph, 2)?));
    Ok(two.map(|second| (first, second)))
}

/// Replaces nodes whose results are the same for every batch and open size by constants. Quantized weights stay nodes.
pub(super) fn fold(graph: &mut Graph, context: &Context) -> Result<bool> {
    // What needs no input first, so that weights on which nodes work are made once.
    let first = fold_input_free(graph)?;
    let Some((one, two)) = facts(graph, context)? else { return Ok(first) };
    let second = replace(graph, |v| {
        let (one, two) = (one.get(v)?.constant.as_ref()?, two.get(v)?.constant.as_ref()?);
        (Arc::ptr_eq(one, two) || one == two).then(|| Content::Held(one.clone()))
    });
    Ok(first || second.unwrap_or(false))
}

/// Replaces nodes that depend on no input by constants.
fn fold_input_free(graph: &mut Graph) -> Result<bool> {
    let part = input_free(graph);
    // Weights that are unpacked pass through a dozen nodes: of these only what comes out in the end is kept.
    let (brief, sizes) = infer_briefly(&part, &read_elsewhere(graph, &part))?;
    let kept = |v: ValueId| brief.get(v).and_then(|f| f.constant.clone()).map(Content::Held);
    if let Some(folded) = replace(graph, |v| kept(v).or(sizes[v.0 as usize].map(Content::Gone))) {
        return Ok(folded);
    }
    drop(brief);
    let whole = infer(&part, &[])?;
    Ok(replace(graph, |v| whole.get(v)?.constant.clone().map(Content::Held)).unwrap_or(false))
}

/// Per value: whether something reads it that is not replaced by a constant together with the nodes of `part`.
fn read_elsewhere(graph: &Graph, part: &Graph) -> Vec<bool> {
    let quantized = behind_quantizer(graph);
    let mut inside = vec![false; graph.values.len()];
    for v in part.nodes.iter().flat_map(|n| n.outputs.iter().flatten()) {
        inside[v.0 as usize] = !quantized[v.0 as usize] && !graph.outputs.contains(v);
    }
    let mut read = vec![false; graph.values.len()];
    for node in &graph.nodes {
        if !node.outputs.iter().flatten().all(|v| inside[v.0 as usize]) {
            node.inputs.iter().flatten().chain(&node.captures).for_each(|v| read[v.0 as usize] = true);
        }
    }
    read
}

/// What a folded value holds.
#[derive(Clone)]
enum Content {
    Held(Arc<Tensor>),
    /// So many bytes that are not there any more.
    Gone(usize),
}

impl Content {
    fn bytes(&self) -> usize {
        match self {
            Content::Held(tensor) => bytes(tensor),
            Content::Gone(bytes) => *bytes,
        }
    }
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.len().saturating_mul(tensor.dtype().bits()) / 8
}

/// Replaces nodes all of whose results have a `content` by constants. Does nothing and returns none where a content that
/// is gone would still be read.
fn replace(graph: &mut Graph, content: impl Fn(ValueId) -> Option<Content>) -> Option<bool> {
    let quantized = behind_quantizer(graph);
    let mut folded: Vec<Option<Content>> = vec![None; graph.values.len()];
    let mut gone = vec![false; graph.nodes.len()];
    for id in graph.node_ids() {
        let node = graph.node(id);
        if matches!(node.op, Op::Opaque { .. }) || !node.captures.is_empty() {
            continue;
        }
        let results: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
        let given: usize = node
            .inputs
            .iter()
            .flatten()
            .filter_map(|&v| {
                let known = graph.constant(v).map(|t| bytes(t));
                known.or_else(|| folded[v.0 as usize].as_ref().map(Content::bytes))
            })
            .sum();
        let found: Option<Vec<Content>> = results.iter().map(|&v| content(v)).collect();
        let Some(found) = found else { continue };
        let made: usize = found.iter().map(Content::bytes).sum();
        let barred = |v: &ValueId| quantized[v.0 as usize] || graph.outputs.contains(v);
        if made > given.saturating_add(MAX_GROWTH) || results.iter().any(barred) {
            continue;
        }
        gone[id.0 as usize] = true;
        for (v, t) in results.into_iter().zip(found) {
            folded[v.0 as usize] = Some(t);
        }
    }
    let lacking = |v: &ValueId| matches!(folded[v.0 as usize], Some(Content::Gone(_)));
    let stays = |(node, gone): (&Node, &bool)| !gone && node.inputs.iter().flatten().chain(&node.captures).any(lacking);
    if graph.nodes.iter().zip(&gone).any(stays) {
        return None;
    }
    for (value, content) in graph.values.iter_mut().zip(folded) {
        if let Some(Content::Held(tensor)) = content {
            let shape = tensor.shape().iter().map(|&d| crate::graph::Dim::Known(d)).collect();
            value.fact = Fact { dtype: Some(tensor.dtype()), shape: Some(shape) };
            value.constant = Some(tensor);
            value.origin = None;
        }
    }
    graph.retain_nodes(|id, _| !gone[id.0 as usize]);
    Some(gone.contains(&true))
}

/// The part of `graph` that depends on no input.
fn input_free(graph: &Graph) -> Graph {
    let mut live = vec![false; graph.values.len()];
    for v in &graph.inputs {
        live[v.0 as usize] = true;
    }
    let mut part = Graph { inputs: Vec::new(), outputs: Vec::new(), nodes: Vec::new(), ..graph.clone() };
    for node in &graph.nodes {
        let opaque = matches!(node.op, Op::Opaque { .. }) || !node.captures.is_empty();
        if opaque || node.inputs.iter().flatten().any(|v| live[v.0 as usize]) {
            for v in node.outputs.iter().flatten() {
                live[v.0 as usize] = true;
            }
        } else {
            part.nodes.push(node.clone());
        }
    }
    part
}

/// Per value: computed by way of a quantizer.
fn behind_quantizer(graph: &Graph) -> Vec<bool> {
    let mut behind = vec![false; graph.values.len()];
    for node in &graph.nodes {
        let quantizes = matches!(node.op, Op::DequantizeLinear { .. } | Op::QuantizeLinear { .. } | Op::Quant { .. });
        if quantizes || node.inputs.iter().flatten().any(|v| behind[v.0 as usize]) {
            for v in node.outputs.iter().flatten() {
                behind[v.0 as usize] = true;
            }
        }
    }
    behind
}

/// Gives Reshape nodes whose target is computed from the batch size a constant target with `-1` (or `0`) in its place.
pub(super) fn fix_reshapes(graph: &mut Graph, context: &Context) -> Result<bool> {
    let Some((one, two)) = facts(graph, context)? else { return Ok(false) };
    let mut targets: Vec<(NodeId, Vec<i64>)> = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let (Op::Reshape { allowzero }, Some(x), Some(target)) = (&node.op, node.input(0), node.input(1)) else {
            continue;
        };
        if graph.constant(target).is_some() {
            continue;
        }
        let ints = |f: &Facts| f.get(target).and_then(|f| f.constant.as_ref()).and_then(|t| t.to_i64().ok());
        let (Some(a), Some(b)) = (ints(&one), ints(&two)) else { continue };
        let dims = |f: &Facts| f.get(x).map(|f| f.shape.clone()).unwrap_or_default();
        if let Some(target) = common_target(&a, &b, &dims(&one), &dims(&two), *allowzero) {
            targets.push((id, target));
        }
    }
    let changed = !targets.is_empty();
    for (id, target) in targets {
        let name = format!("{}_shape", graph.node_name(id));
        let constant = graph.add_constant(&name, Tensor::i64s(target));
        let node = &mut graph.nodes[id.0 as usize];
        node.inputs[1] = Some(constant);
        node.op = Op::Reshape { allowzero: false };
        node.origin = None;
    }
    Ok(changed)
}

/// One Reshape target that equals `a` for operands of shape `x` and `b` for operands of shape `y`.
fn common_target(a: &[i64], b: &[i64], x: &[usize], y: &[usize], allowzero: bool) -> Option<Vec<i64>> {
    if a.len() != b.len() || (allowzero && a.iter().chain(b).any(|&d| d == 0)) {
        return None;
    }
    let differ: Vec<usize> = (0..a.len()).filter(|&i| a[i] != b[i]).collect();
    let mut target = a.to_vec();
    for &i in &differ {
        let copies = x.get(i).is_some_and(|&d| d as i64 == a[i]) && y.get(i).is_some_and(|&d| d as i64 == b[i]);
        target[i] = match target.contains(&-1) {
            _ if copies && differ.len() > 1 => 0,
            false => -1,
            true if copies => 0,
            true => return None,
        };
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_follow_the_batch() {
        let f = |a: &[i64], b: &[i64], x: &[usize], y: &[usize]| common_target(a, b, x, y, false);
        assert_eq!(f(&[1, 512], &[2, 512], &[1, 512, 1, 1], &[2, 512, 1, 1]), Some(vec![-1, 512]));
        assert_eq!(f(&[1, -1], &[2, -1], &[1, 512, 1, 1], &[2, 512, 1, 1]), Some(vec![0, -1]));
        assert_eq!(f(&[4, -1], &[8, -1], &[1, 4, 6], &[2, 4, 6]), None);
        assert_eq!(f(&[1, 4], &[2, 4], &[4], &[8]), Some(vec![-1, 4]));
        assert_eq!(f(&[1, 4], &[1, 4, 1], &[4], &[4]), None);
    }
}

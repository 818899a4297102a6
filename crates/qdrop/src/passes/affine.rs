//! Scales and shifts per channel (BatchNormalization, multiplication and addition of constants) folded into the layer
//! before them. Computed in f64, rounded once to the weight's type.

use super::Context;
use super::edit::Editor;
use crate::error::Result;
use crate::graph::{Binary, Graph, Node, NodeId, Op, ValueId};
use crate::tensor::{Data, Tensor};
use std::sync::Arc;

/// y = scale·x + shift per channel; one entry stands for all channels.
#[derive(Debug, Clone, PartialEq)]
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    fn at(&self, channel: usize) -> (f64, f64) {
        let get = |v: &[f64]| if v.len() == 1 { v[0] } else { v[channel] };
        (get(&self.scale), get(&self.shift))
    }

    fn fits(&self, channels: usize) -> bool {
        let fits = |v: &[f64]| (v.len() == 1 || v.len() == channels) && v.iter().all(|x| x.is_finite());
        channels > 0 && fits(&self.scale) && fits(&self.shift)
    }
}

/// A node with a constant weight into which an [`Affine`] can be folded.
#[derive(Debug, Clone, Copy)]
struct Target {
    node: NodeId,
    /// The addition of a constant that serves a MatMul as bias.
    bias_add: Option<NodeId>,
    channels: usize,
    /// Rank of the result if the operator tells; a MatMul's depends on its operand.
    rank: Option<usize>,
}

/// Folds every [`Affine`] node that follows a layer. Where others read the layer's result too, a BatchNormalization
/// gets a copy of the layer, and everything else stays as it is.
pub(super) fn fold(graph: &mut Graph, _: &Context) -> Result<bool> {
    let mut editor = Editor::new(graph);
    let mut changed = false;
    for id in editor.node_ids() {
        changed |= fold_one(&mut editor, id)?;
    }
    editor.finish();
    Ok(changed)
}

fn fold_one(graph: &mut Editor, id: NodeId) -> Result<bool> {
    let node = graph.node(id);
    let candidate = matches!(node.op, Op::BatchNorm { .. } | Op::Binary(_));
    let (true, Some(result), 1) = (candidate, node.output(0), node.outputs.len()) else { return Ok(false) };
    let is_norm = matches!(node.op, Op::BatchNorm { .. });
    let Some(operand) = live_operand(graph, node) else { return Ok(false) };
    let Some(target) = target(graph, operand) else { return Ok(false) };
    let Some(affine) = affine(graph, node, &target, operand)?.filter(|a| a.fits(target.channels)) else {
        return Ok(false);
    };
    let matmul = matches!(graph.node(target.node).op, Op::MatMul);
    let shifts = affine.shift.iter().any(|&t| t != 0.0);
    if !graph.exclusive(operand) || target.bias_add.is_some_and(|_| !exclusive_bias(graph, &target)) {
        if is_norm && !matmul {
            copy_layer(graph, id, &target, &affine)?;
            return Ok(true);
        }
        return Ok(false);
    }
    if matmul && shifts && target.bias_add.is_none() {
        // The shift of a MatMul stays an addition of its own.
        if matches!(graph.node(id).op, Op::Binary(Binary::Add)) {
            return Ok(false);
        }
        scale_weight(graph, &target, &affine)?;
        add_shift(graph, id, operand, &target, &affine)?;
        return Ok(true);
    }
    if !graph.bypass(id, operand, result) {
        return Ok(false);
    }
    scale_weight(graph, &target, &affine)?;
    set_bias(graph, &target, &affine)?;
    graph.remove(id);
    Ok(true)
}

/// Makes the node `id` the addition of the shift of `affine` to `operand`.
fn add_shift(graph: &mut Editor, id: NodeId, operand: ValueId, target: &Target, affine: &Affine) -> Result<()> {
    let shift: Vec<f64> = (0..target.channels).map(|c| affine.at(c).1).collect();
    let weight = weight_of(graph, target.node)?;
    let tensor = Tensor::from_f64(weight.dtype(), &[target.channels], &shift)?;
    let name = bias_name(graph, target.node);
    let constant = graph.add_constant(&name, tensor);
    graph.change(id, |node| {
        node.op = Op::Binary(Binary::Add);
        node.inputs = vec![Some(operand), Some(constant)];
        node.origin = None;
    });
    Ok(())
}

/// Gives the BatchNormalization `id` a copy of the layer before it, folded; the layer itself stays for its other readers.
fn copy_layer(graph: &mut Editor, id: NodeId, target: &Target, affine: &Affine) -> Result<()> {
    let layer = graph.node(target.node).clone();
    graph.change(id, |norm| {
        let (name, outputs) = (std::mem::take(&mut norm.name), std::mem::take(&mut norm.outputs));
        *norm = Node { name, outputs, ..layer };
    });
    let copy = Target { node: id, ..*target };
    scale_weight(graph, &copy, affine)?;
    set_bias(graph, &copy, affine)
}

/// The operand of `node` that is not constant, when it has exactly one.
fn live_operand(graph: &Graph, node: &Node) -> Option<ValueId> {
    let mut live = node.inputs.iter().flatten().filter(|&&v| graph.constant(v).is_none());
    match (live.next(), live.next()) {
        (Some(&v), None) => Some(v),
        _ => None,
    }
}

/// The layer that computes `value`.
fn target(graph: &Editor, value: ValueId) -> Option<Target> {
    let id = graph.producer(value)?;
    let node = graph.node(id);
    let constant = |i: usize| node.input(i).and_then(|v| graph.constant(v));
    let usable = |t: &&Arc<Tensor>| t.dtype().is_float() && !matches!(t.data(), Data::Packed(..));
    match &node.op {
        Op::Conv { .. } | Op::ConvTranspose { .. } | Op::Gemm { .. } => {
            let weight = constant(1).filter(usable)?;
            let shape = weight.shape();
            if shape.len() < 2 || (node.input(2).is_some() && constant(2).is_none()) {
                return None;
            }
            let channels = match &node.op {
                Op::Conv { .. } => shape[0],
                Op::ConvTranspose { group, .. } => shape[1].checked_mul(usize::try_from(*group).ok()?)?,
                Op::Gemm { trans_b, .. } => shape[if *trans_b { 0 } else { 1 }],
                _ => return None,
            };
            if let Some(bias) = constant(2) {
                // Gemm broadcasts its third operand; one row or one number is a bias.
                let outer = bias.shape().iter().rev().skip(1).all(|&d| d == 1);
                if !(outer && (bias.len() == channels || bias.len() == 1)) {
                    return None;
                }
            }
            let rank = if matches!(node.op, Op::Gemm { .. }) { 2 } else { shape.len() };
            Some(Target { node: id, bias_add: None, channels, rank: Some(rank) })
        }
        Op::MatMul => {
            let weight = constant(1).filter(usable)?;
            let rank = graph.value(value).fact.shape.as_ref().map(|s| s.len());
            (weight.rank() == 2).then_some(Target { node: id, bias_add: None, channels: weight.shape()[1], rank })
        }
        Op::Binary(Binary::Add) => {
            let inner = live_operand(graph, node)?;
            let matmul = target(graph, inner).filter(|t| matches!(graph.node(t.node).op, Op::MatMul))?;
            let bias = node.inputs.iter().flatten().find_map(|&v| graph.constant(v))?;
            let fits = bias.rank() == 1 && bias.len() == matmul.channels;
            (fits && matmul.bias_add.is_none()).then_some(Target { bias_add: Some(id), ..matmul })
        }
        _ => None,
    }
}

/// What `node` does to the channels of the layer `target`, if that is all it does.
fn affine(graph: &Graph, node: &Node, target: &Target, operand: ValueId) -> Result<Option<Affine>> {
    let constant = |i: usize| node.input(i).and_then(|v| graph.constant(v));
    if let Op::BatchNorm { epsilon } = node.op {
        // Channels of the normalisation lie on axis 1, those of a MatMul on the last axis.
        if matches!(graph.node(target.node).op, Op::MatMul) && target.rank != Some(2) {
            return Ok(None);
        }
        let (Some(scale), Some(bias), Some(mean), Some(var)) = (constant(1), constant(2), constant(3), constant(4))
        else {
            return Ok(None);
        };
        let (scale, bias, mean, var) = (scale.to_f64()?, bias.to_f64()?, mean.to_f64()?, var.to_f64()?);
        if [&scale, &bias, &mean, &var].iter().any(|v| v.len() != target.channels) {
            return Ok(None);
        }
        let scale: Vec<f64> = scale.iter().zip(&var).map(|(s, v)| s / (v + epsilon as f64).sqrt()).collect();
        let shift = bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        return Ok(Some(Affine { scale, shift }));
    }
    let Op::Binary(op) = node.op else { return Ok(None) };
    let first = node.input(0) == Some(operand);
    let Some(tensor) = constant(if first { 1 } else { 0 }) else { return Ok(None) };
    if !is_per_channel(
        tensor.shape(),
        target,
        matches!(graph.node(target.node).op, Op::Conv { .. } | Op::ConvTranspose { .. }),
    ) || !tensor.dtype().is_float()
    {
        return Ok(None);
    }
    let c = tensor.to_f64()?;
    Ok(match (op, first) {
        (Binary::Add, _) => Some(Affine { scale: vec![1.0], shift: c }),
        (Binary::Sub, true) => Some(Affine { scale: vec![1.0], shift: c.iter().map(|x| -x).collect() }),
        (Binary::Sub, false) => Some(Affine { scale: vec![-1.0], shift: c }),
        (Binary::Mul, _) => Some(Affine { scale: c, shift: vec![0.0] }),
        (Binary::Div, true) => Some(Affine { scale: c.iter().map(|x| 1.0 / x).collect(), shift: vec![0.0] }),
        _ => None,
    })
}

/// Whether a constant of `shape`, broadcast against the layer's result, changes along the channel axis only (axis 1 of
/// images, else the last) and leaves the result's shape as it is.
fn is_per_channel(shape: &[usize], target: &Target, image: bool) -> bool {
    let Some(rank) = target.rank else {
        return shape.is_empty() || shape == [1] || shape == [target.channels];
    };
    let channel = if image { 1 } else { rank - 1 };
    shape.len() <= rank
        && shape.iter().rev().enumerate().all(|(i, &d)| d == 1 || (rank - 1 - i == channel && d == target.channels))
}

/// Whether the result of a MatMul is read by nothing but the addition of its bias.
fn exclusive_bias(graph: &Editor, target: &Target) -> bool {
    graph.node(target.node).output(0).is_some_and(|v| graph.exclusive(v))
}

fn weight_of(graph: &Graph, node: NodeId) -> Result<Arc<Tensor>> {
    let weight = graph.node(node).input(1).and_then(|v| graph.constant(v)).cloned();
    weight.ok_or_else(|| crate::error::Error::internal("layer without weight").at(graph.describe(node)))
}

/// Multiplies each output channel of the layer's weight.
fn scale_weight(graph: &mut Editor, target: &Target, affine: &Affine) -> Result<()> {
    if affine.scale == [1.0] {
        return Ok(());
    }
    let weight = weight_of(graph, target.node)?;
    let shape = weight.shape().to_vec();
    let mut w = weight.to_f64()?;
    let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let channel: Box<dyn Fn(usize) -> usize> = match &graph.node(target.node).op {
        Op::Conv { .. } => Box::new(move |i| i / inner(0)),
        Op::ConvTranspose { group, .. } => {
            // [in, out / group, ...]: input channels of one group make the group's output channels.
            let (each, per_group) = (inner(1), shape[0] / (*group).max(1) as usize);
            let (outs, block) = (shape[1], inner(0));
            Box::new(move |i| (i / block) / per_group.max(1) * outs + (i / each) % outs)
        }
        Op::Gemm { trans_b: true, .. } => Box::new(move |i| i / inner(0)),
        _ => {
            let n = shape[shape.len() - 1];
            Box::new(move |i| i % n)
        }
    };
    for (i, x) in w.iter_mut().enumerate() {
        *x *= affine.at(channel(i)).0;
    }
    drop(channel);
    let tensor = Tensor::from_f64(weight.dtype(), weight.shape(), &w)?;
    replace_operand(graph, target.node, 1, tensor, "weight")
}

/// Applies `affine` to the layer's bias, which is made where it is missing.
fn set_bias(graph: &mut Editor, target: &Target, affine: &Affine) -> Result<()> {
    let dtype = weight_of(graph, target.node)?.dtype();
    let (holder, index) = match target.bias_add {
        Some(add) => (add, (0..2).find(|&i| graph.node(add).input(i).is_some_and(|v| graph.constant(v).is_some()))),
        None if matches!(graph.node(target.node).op, Op::MatMul) => return Ok(()),
        None => (target.node, Some(2)),
    };
    let Some(index) = index else { return Ok(()) };
    let old = graph.node(holder).input(index).and_then(|v| graph.constant(v)).cloned();
    let beta = match graph.node(holder).op {
        Op::Gemm { beta, .. } => f64::from(beta),
        _ => 1.0,
    };
    if beta != 1.0 {
        graph.change(holder, |node| {
            node.origin = None;
            if let Op::Gemm { beta, .. } = &mut node.op {
                *beta = 1.0;
            }
        });
    }
    if old.is_none() && affine.shift.iter().all(|&t| t == 0.0) {
        return Ok(());
    }
    let old = old.map_or(Ok(vec![0.0]), |t| t.to_f64())?;
    let bias: Vec<f64> = (0..target.channels)
        .map(|c| {
            let (s, t) = affine.at(c);
            beta * old[if old.len() == 1 { 0 } else { c }] * s + t
        })
        .collect();
    let tensor = Tensor::from_f64(dtype, &[target.channels], &bias)?;
    replace_operand(graph, holder, index, tensor, "bias")
}

/// Gives operand `index` of `node` new content: in place, under the same name, when nobody else reads the constant.
fn replace_operand(graph: &mut Editor, node: NodeId, index: usize, tensor: Tensor, what: &str) -> Result<()> {
    let old = graph.node(node).input(index);
    if let Some(v) = old.filter(|&v| graph.exclusive(v) && !graph.is_captured(v)) {
        let value = graph.value_mut(v);
        value.fact.shape = Some(tensor.shape().iter().map(|&d| crate::graph::Dim::Known(d)).collect());
        value.constant = Some(Arc::new(tensor));
        value.origin = None;
        return Ok(());
    }
    let name = match old {
        Some(v) => format!("{}_folded", graph.value(v).name),
        None if what == "bias" => bias_name(graph, node),
        None => format!("{}_{what}", graph.node_name(node)),
    };
    let constant = graph.add_constant(&name, tensor);
    graph.change(node, |node| {
        node.inputs.resize(node.inputs.len().max(index + 1), None);
        node.inputs[index] = Some(constant);
    });
    Ok(())
}

/// A name for the bias of `node`, after its weight's.
fn bias_name(graph: &Graph, node: NodeId) -> String {
    let weight = graph.node(node).input(1).map_or("", |v| graph.value(v).name.as_str());
    match weight.strip_suffix("weight") {
        Some(stem) => format!("{stem}bias"),
        None => format!("{weight}_bias"),
    }
}

/// Moves a BatchNormalization of concatenated channels into the branches, when each is a layer that nobody else reads.
pub(super) fn split_over_concat(graph: &mut Graph, _: &Context) -> Result<bool> {
    let mut editor = Editor::new(graph);
    let mut changed = false;
    for id in editor.node_ids() {
        changed |= split_one(&mut editor, id)?;
    }
    editor.finish();
    Ok(changed)
}

fn split_one(graph: &mut Editor, id: NodeId) -> Result<bool> {
    let node = graph.node(id);
    let (Op::BatchNorm { .. }, Some(joined), Some(result)) = (&node.op, node.input(0), node.output(0)) else {
        return Ok(false);
    };
    let norm = node.clone();
    let Some(concat) = graph.producer(joined) else { return Ok(false) };
    let branches: Vec<ValueId> = match &graph.node(concat).op {
        Op::Concat { axis: 1 } => graph.node(concat).inputs.iter().flatten().copied().collect(),
        _ => return Ok(false),
    };
    let targets: Vec<Target> = branches
        .iter()
        .filter_map(|&v| target(graph, v))
        .filter(|t| !matches!(graph.node(t.node).op, Op::MatMul))
        .collect();
    let channels = targets.iter().map(|t| t.channels).sum::<usize>();
    let own = branches.len() == targets.len() && branches.iter().chain([&joined]).all(|&v| graph.exclusive(v));
    let parameters: Vec<Arc<Tensor>> =
        (1..5).filter_map(|i| norm.input(i).and_then(|v| graph.constant(v)).cloned()).collect();
    if !own || parameters.len() != 4 || parameters.iter().any(|p| p.len() != channels) || norm.outputs.len() != 1 {
        return Ok(false);
    }
    if !graph.bypass(id, joined, result) {
        return Ok(false);
    }
    graph.remove(id);
    let mut start = 0;
    for (k, (&branch, target)) in branches.iter().zip(&targets).enumerate() {
        let base = norm.inputs[1].map_or(String::new(), |v| graph.value(v).name.clone());
        let mut inputs = vec![branch];
        for p in &parameters {
            let part = p.to_f64()?[start..start + target.channels].to_vec();
            let tensor = Tensor::from_f64(p.dtype(), &[target.channels], &part)?;
            inputs.push(graph.add_constant(&format!("{base}_branch{k}"), tensor));
        }
        start += target.channels;
        let fact = graph.value(branch).fact.clone();
        let name = format!("{}_normalized", graph.value(branch).name);
        let out = graph.add_value(&name, fact);
        graph.change(concat, |concat| concat.inputs[k] = Some(out));
        graph.add_before(concat, Node::new(format!("{}_branch{k}", norm.name), norm.op.clone(), &inputs, &[out]));
    }
    Ok(true)
}

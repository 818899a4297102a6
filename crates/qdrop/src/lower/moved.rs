//! Quantized values that layers and products read through other nodes.

use crate::graph::{Binary, Graph, Interpolation, Node, NodeId, Op, PadMode, Resize, Unary, ValueId};
use std::collections::BTreeMap;

/// Index of a quantizer of an activation: those of the plan's sites, then those of its kernel sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct QuantizerIndex(pub usize);

/// Where the elements of a value come from: one quantized value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Held {
    /// Its quantizer.
    pub quantizer: QuantizerIndex,
    /// What its elements were multiplied by since.
    pub factor: f32,
    /// Whether they were cut, joined, repeated or multiplied, which runtimes do not carry quantizers through.
    pub cut: bool,
}

/// For every value of `graph` where its elements come from, if all are from one quantized value. `quantized` has the
/// quantizer of each value that stands for a quantized one.
pub(super) fn origins(graph: &Graph, quantized: &BTreeMap<ValueId, QuantizerIndex>) -> Vec<Option<Held>> {
    // Nodes come after what they read, so that one pass finds where every value comes from.
    let mut origins: Vec<Option<Held>> = vec![None; graph.values.len()];
    for (v, &quantizer) in quantized {
        origins[v.0 as usize] = Some(Held { quantizer, factor: 1.0, cut: false });
    }
    for node in &graph.nodes {
        let Some((operands, cuts, factor)) = movement(graph, node) else { continue };
        let mut from = operands.iter().map(|v| v.and_then(|v| origins[v.0 as usize]));
        let Some(Some(first)) = from.next() else { continue };
        let same = |o: Option<Held>| o.filter(|o| o.quantizer == first.quantizer && o.factor == first.factor);
        let Some(rest) = from.map(same).collect::<Option<Vec<Held>>>() else { continue };
        let cut = cuts || first.cut || rest.iter().any(|o| o.cut);
        for v in node.outputs.iter().flatten() {
            if !quantized.contains_key(v) {
                origins[v.0 as usize] = Some(Held { cut, factor: first.factor * factor, ..first });
            }
        }
    }
    origins
}

/// Operands that were moved in ways that runtimes do not follow, of nodes for which `wanted` holds: node, operand, origin;
/// in the order of the nodes.
pub(super) fn operands(
    graph: &Graph,
    origins: &[Option<Held>],
    wanted: impl Fn(NodeId) -> bool,
) -> Vec<(NodeId, ValueId, Held)> {
    let mut found = Vec::new();
    for id in graph.node_ids().filter(|&id| wanted(id)) {
        for &v in graph.node(id).inputs.iter().flatten() {
            if let Some(held) = origins[v.0 as usize].filter(|h| h.cut) {
                found.push((id, v, held));
            }
        }
    }
    found
}

/// Whether a node of this operator multiplies with a weight or another activation.
pub(super) fn multiplies(op: &Op) -> bool {
    matches!(op, Op::MatMul | Op::Gemm { .. } | Op::Conv { .. } | Op::ConvTranspose { .. })
}

/// The operands whose elements a movement hands on, whether it is one that runtimes do not carry quantizers through, and
/// what it multiplies them by.
fn movement<'a>(graph: &Graph, node: &'a Node) -> Option<(&'a [Option<ValueId>], bool, f32)> {
    let inputs = node.inputs.as_slice();
    match node.op {
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Squeeze | Op::Unsqueeze | Op::Identity | Op::MaxPool { .. } => {
            Some((inputs.get(..1)?, false, 1.0))
        }
        Op::Flatten { .. } | Op::GlobalMaxPool | Op::Unary(Unary::Relu) => Some((inputs.get(..1)?, true, 1.0)),
        Op::Resize(Resize { mode: Interpolation::Nearest(_), .. }) => Some((inputs.get(..1)?, true, 1.0)),
        Op::Pad { mode } => {
            let zero = |v: ValueId| {
                graph.constant(v).and_then(|t| t.to_f32().ok()).is_some_and(|x| x.iter().all(|&x| x == 0.0))
            };
            let held = mode != PadMode::Constant || node.input(2).is_none_or(zero);
            held.then_some((inputs.get(..1)?, true, 1.0))
        }
        Op::Slice | Op::Split { .. } | Op::Gather { .. } | Op::Expand | Op::Tile => Some((inputs.get(..1)?, true, 1.0)),
        Op::DepthToSpace { .. } | Op::SpaceToDepth { .. } => Some((inputs.get(..1)?, true, 1.0)),
        Op::Concat { .. } => Some((inputs, true, 1.0)),
        Op::Binary(Binary::Mul | Binary::Div) => {
            let number = |i: usize| {
                let tensor = graph.constant(inputs.get(i).copied().flatten()?)?;
                tensor.to_f32().ok()?.first().copied().filter(|_| tensor.len() == 1)
            };
            let (operand, factor) = match (number(0), number(1)) {
                (None, Some(x)) if node.op == Op::Binary(Binary::Mul) => (inputs.get(..1)?, x),
                (None, Some(x)) => (inputs.get(..1)?, 1.0 / x),
                (Some(x), None) if node.op == Op::Binary(Binary::Mul) => (inputs.get(1..2)?, x),
                _ => return None,
            };
            (factor.is_finite() && factor > 0.0).then_some((operand, true, factor))
        }
        _ => None,
    }
}

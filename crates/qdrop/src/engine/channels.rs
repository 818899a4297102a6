//! Which axis of a value holds its channels (features), which losses sum over; and which holds the tokens of a sequence.
//!
//! Convolutions, pooling and their like have them on axis 1, products with a weight on the last one; what works element by
//! element keeps the axis, what moves elements takes it along. Where nothing tells, three axes are a sequence
//! [batch, tokens, features], and all else is an image [batch, channels, ...].

use super::fact::{Facts, around, transposed};
use crate::graph::{Graph, Node, Op, ValueId};

/// Per value: the axis, if something tells.
pub(super) fn axes(graph: &Graph, facts: &Facts) -> Vec<Option<usize>> {
    let mut axes = vec![None; graph.values.len()];
    for node in &graph.nodes {
        for v in node.outputs.iter().flatten() {
            axes[v.0 as usize] = made(graph, facts, node, *v, &axes);
        }
    }
    // What the node that makes a value does not tell, its readers may.
    for node in &graph.nodes {
        let Some(x) = node.input(0) else { continue };
        let told = match &node.op {
            op if spatial(op) => Some(1),
            _ if weighted(graph, node) => facts.get(x).and_then(|f| f.shape.len().checked_sub(1)),
            _ => None,
        };
        let axis = &mut axes[x.0 as usize];
        *axis = axis.or(told);
    }
    axes
}

/// Operators with the channels of operand and result on axis 1.
fn spatial(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv { .. }
            | Op::ConvTranspose { .. }
            | Op::BatchNorm { .. }
            | Op::InstanceNorm { .. }
            | Op::GroupNorm { .. }
            | Op::Lrn { .. }
            | Op::MaxPool { .. }
            | Op::AveragePool { .. }
            | Op::LpPool { .. }
            | Op::GlobalAveragePool
            | Op::GlobalMaxPool
            | Op::GlobalLpPool { .. }
            | Op::DepthToSpace { .. }
            | Op::SpaceToDepth { .. }
    )
}

/// Whether a node is a product with a constant matrix on the right.
fn weighted(graph: &Graph, node: &Node) -> bool {
    let product = matches!(node.op, Op::MatMul | Op::Gemm { trans_a: false, .. });
    product && node.input(1).is_some_and(|w| graph.constant(w).is_some())
}

/// The axis of `result`, which `node` computes.
fn made(graph: &Graph, facts: &Facts, node: &Node, result: ValueId, axes: &[Option<usize>]) -> Option<usize> {
    let shape = &facts.get(result)?.shape;
    if spatial(&node.op) {
        return Some(1);
    }
    if weighted(graph, node) {
        return shape.len().checked_sub(1);
    }
    match &node.op {
        Op::Transpose { perm } => transposed(perm, shape.len(), axes[node.input(0)?.0 as usize]?),
        op if op.reshapes() => {
            let x = node.input(0)?;
            let (from, axis) = (&facts.get(x)?.shape, axes[x.0 as usize]?);
            // The axis with as many elements behind it; heads of features leave the rest of them behind.
            let behind = around(from, axis)[2];
            (0..shape.len()).find(|&a| shape[a] > 1 && around(shape, a)[2] == behind)
        }
        // Features that all positions of one side sum (shares of attention times values) stay behind.
        Op::MatMul => {
            let right = node.input(1)?;
            let last = |v: ValueId| facts.get(v).and_then(|f| f.shape.len().checked_sub(1));
            (axes[right.0 as usize] == last(right)).then(|| shape.len() - 1)
        }
        Op::Gemm { .. } | Op::Gather { .. } | Op::Einsum { .. } | Op::Attention(_) => None,
        _ => {
            let kept = |v: &ValueId| facts.get(*v).is_some_and(|f| f.shape.len() == shape.len());
            node.inputs.iter().flatten().filter(|v| kept(v)).find_map(|v| axes[v.0 as usize])
        }
    }
}

/// Per value: the axis of the `length` tokens that the second axis of inputs holds, where there is one.
pub fn tokens(graph: &Graph, facts: &Facts, length: usize) -> Vec<Option<usize>> {
    let mut axes = vec![None; graph.values.len()];
    let shape = |v: ValueId| facts.get(v).map(|f| f.shape.as_slice());
    for &v in &graph.inputs {
        axes[v.0 as usize] = shape(v).filter(|s| s.get(1) == Some(&length)).map(|_| 1);
    }
    for node in &graph.nodes {
        for &y in node.outputs.iter().flatten() {
            let Some(to) = shape(y) else { continue };
            let from = |i: usize| {
                let v = node.input(i)?;
                Some((shape(v)?, axes[v.0 as usize]?))
            };
            let axis = match &node.op {
                Op::Transpose { perm } => from(0).and_then(|(_, axis)| transposed(perm, to.len(), axis)),
                op if op.reshapes() => {
                    // As many elements as before in front of them.
                    let same = |(old, axis)| (0..to.len()).find(|&a| around(to, a)[..2] == around(old, axis)[..2]);
                    from(0).and_then(same)
                }
                Op::Gather { axis: 0 } => from(1).map(|(_, axis)| axis),
                // Rows of the left factor stay; its columns are summed.
                Op::MatMul | Op::Gemm { .. } => {
                    from(0).filter(|(old, axis)| axis + 1 < old.len()).map(|(_, axis)| axis)
                }
                _ => (0..node.inputs.len()).find_map(|i| {
                    let (old, axis) = from(i)?;
                    (axis + to.len()).checked_sub(old.len())
                }),
            };
            axes[y.0 as usize] = axis.filter(|&a| to.get(a) == Some(&length));
        }
    }
    axes
}

//! Layers that read a quantized value through movements.

use crate::graph::{Graph, Node, NodeId, Op, ValueId};
use crate::plan::Plan;
use std::collections::BTreeMap;

/// Operands of the plan's layers that hold elements of one quantized value, cut, joined or repeated: the layer's node, the
/// operand, and the site. `quantized` has the site of each value that stands for a quantized one.
pub(super) fn operands(
    graph: &Graph,
    plan: &Plan,
    quantized: &BTreeMap<ValueId, usize>,
) -> Vec<(NodeId, ValueId, usize)> {
    // Nodes come after what they read, so that one pass finds where every value comes from.
    let mut origin: Vec<Option<(usize, bool)>> = vec![None; graph.values.len()];
    for (v, &site) in quantized {
        origin[v.0 as usize] = Some((site, false));
    }
    for node in &graph.nodes {
        let Some((operands, cuts)) = movement(node) else { continue };
        let mut from = operands.iter().map(|v| v.and_then(|v| origin[v.0 as usize]));
        let Some(Some((site, cut))) = from.next() else { continue };
        let rest: Option<Vec<bool>> = from.map(|o| o.filter(|o| o.0 == site).map(|o| o.1)).collect();
        let Some(rest) = rest else { continue };
        for v in node.outputs.iter().flatten() {
            if !quantized.contains_key(v) {
                origin[v.0 as usize] = Some((site, cuts || cut || rest.contains(&true)));
            }
        }
    }
    let mut found = Vec::new();
    for &id in plan.layers.iter().flat_map(|l| &l.nodes) {
        if !matches!(graph.node(id).op, Op::MatMul | Op::Gemm { .. } | Op::Conv { .. } | Op::ConvTranspose { .. }) {
            continue;
        }
        for &v in graph.node(id).inputs.iter().take(2).flatten() {
            if let Some((site, true)) = origin[v.0 as usize] {
                found.push((id, v, site));
            }
        }
    }
    found
}

/// The operands whose elements a movement hands on, and whether it is one that runtimes do not carry quantizers through.
fn movement(node: &Node) -> Option<(&[Option<ValueId>], bool)> {
    let inputs = node.inputs.as_slice();
    match node.op {
        Op::Reshape { .. } | Op::Flatten { .. } | Op::Transpose { .. } | Op::Squeeze | Op::Unsqueeze | Op::Identity => {
            Some((inputs.get(..1)?, false))
        }
        Op::Slice | Op::Split { .. } | Op::Gather { .. } | Op::Expand | Op::Tile => Some((inputs.get(..1)?, true)),
        Op::DepthToSpace { .. } | Op::SpaceToDepth { .. } => Some((inputs.get(..1)?, true)),
        Op::Concat { .. } => Some((inputs, true)),
        _ => None,
    }
}

//! Edits that several passes share.

use super::Context;
use crate::error::Result;
use crate::graph::{Graph, NodeId, ValueId};

/// Removes nodes on which no graph output depends, and the content of constants that nobody reads.
pub(super) fn remove_dead_code(graph: &mut Graph, _: &Context) -> Result<bool> {
    let mut wanted = vec![false; graph.values.len()];
    for v in &graph.outputs {
        wanted[v.0 as usize] = true;
    }
    let mut keep = vec![false; graph.nodes.len()];
    for id in graph.node_ids().rev() {
        let node = graph.node(id);
        if node.outputs.iter().flatten().any(|v| wanted[v.0 as usize]) {
            keep[id.0 as usize] = true;
            for v in node.inputs.iter().flatten().chain(&node.captures) {
                wanted[v.0 as usize] = true;
            }
        }
    }
    graph.retain_nodes(|id, _| keep[id.0 as usize]);
    let mut changed = keep.contains(&false);
    for (value, wanted) in graph.values.iter_mut().zip(wanted) {
        if !wanted && value.constant.is_some() {
            value.constant = None;
            value.origin = None;
            changed = true;
        }
    }
    Ok(changed)
}

/// Whether a subgraph reads `value` by its name, so that it must stay.
pub(super) fn is_captured(graph: &Graph, value: ValueId) -> bool {
    graph.nodes.iter().any(|n| n.captures.contains(&value))
}

/// Makes readers of `result`, computed by `node`, read `operand` instead, which holds the same. Names of graph outputs
/// stay: where `result` is one, the node that computes `operand` computes `result` instead. The node is left without
/// a reader and its result is moved or dead. Returns false, and changes nothing, where names forbid it.
pub(super) fn bypass(graph: &mut Graph, node: NodeId, operand: ValueId, result: ValueId) -> bool {
    if is_captured(graph, result) {
        return false;
    }
    if !graph.outputs.contains(&result) {
        graph.replace_uses(result, operand);
        return true;
    }
    let producer = graph.producers()[operand.0 as usize];
    let Some(producer) = producer.filter(|_| !graph.outputs.contains(&operand) && !is_captured(graph, operand)) else {
        return false;
    };
    for v in graph.nodes[node.0 as usize].outputs.iter_mut().flatten() {
        if *v == result {
            *v = operand;
        }
    }
    for v in graph.nodes[producer.0 as usize].outputs.iter_mut().flatten() {
        if *v == operand {
            *v = result;
        }
    }
    graph.replace_uses(operand, result);
    // The bypassed node now reads `result` and writes `operand`, which nobody reads.
    true
}

//! Bodies of carried nodes in place of them, with what is known of sizes.

use crate::error::Result;
use crate::graph::{Graph, Node, NodeId, Op};
use crate::onnx;
use crate::passes::{self, InputShapes};

/// Nodes by which unfolding loops and branches may make a graph larger.
pub(super) const UNFOLDED: usize = 1000;

/// Loops and branches inside one another at most.
const NESTED: usize = 3;

/// Puts bodies in place with what is known of values.
pub(super) fn inline(graph: &mut Graph, shapes: &InputShapes) -> Result<bool> {
    if !graph.nodes.iter().any(|n| matches!(n.op, Op::Opaque { .. })) {
        return Ok(false);
    }
    let fixed = passes::fixed(graph, shapes)?;
    onnx::inline_with(graph, &|v| fixed.as_ref()?.get(v))
}

/// Unfolds the first loop or branch whose results can be computed then, to a graph of at most so many nodes.
pub(super) fn unfold(graph: &mut Graph, shapes: &InputShapes, most: usize) -> Result<bool> {
    let found: Vec<NodeId> = graph.node_ids().filter(|&id| unfolds(graph.node(id))).collect();
    for id in found {
        // What cannot be unfolded, or not be run then, is carried as it is.
        let Some(mut simple) = unfolded(graph, id, shapes, most, NESTED) else { continue };
        if passes::simplify(&mut simple, shapes).is_ok() {
            *graph = simple;
            return Ok(true);
        }
    }
    Ok(false)
}

fn unfolds(node: &Node) -> bool {
    matches!(&node.op, Op::Opaque { kind, .. } if matches!(kind.as_str(), "If" | "Loop" | "Scan"))
}

/// `graph` with node `id` unfolded, and those inside one another `depth` deep, where all of it can be computed then.
fn unfolded(graph: &Graph, id: NodeId, shapes: &InputShapes, most: usize, depth: usize) -> Option<Graph> {
    let fixed = passes::fixed(graph, shapes).ok()??;
    let mut tried = graph.clone();
    let pairs = onnx::unfold(&mut tried, id, &|v| fixed.get(v)).ok()??;
    let end = |tried: &Graph| tried.nodes.len() - (graph.nodes.len() - 1 - id.0 as usize);
    while let Some(inner) = (id.0..end(&tried) as u32).map(NodeId).find(|&inner| unfolds(tried.node(inner))) {
        if depth == 0 || tried.nodes.len() > most {
            return None;
        }
        tried = unfolded(&tried, inner, shapes, most, depth - 1)?;
    }
    let then = passes::fixed(&tried, shapes).ok()??;
    let known = graph.node(id).outputs.iter().flatten().all(|&v| then.get(v).is_some());
    (known && tried.nodes.len() <= most && pairs.into_iter().all(|pair| then.alike(pair))).then_some(tried)
}

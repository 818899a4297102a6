//! One order of the nodes, whatever the file's.

use super::Context;
use crate::error::Result;
use crate::graph::{Graph, NodeId};

/// Puts every node right behind what it reads, depth first from the outputs, operands in their order. What is planned then
/// does not depend on which of the orders in which a network can run its file has.
pub(super) fn depth_first(graph: &mut Graph, _: &Context) -> Result<bool> {
    let producers = graph.producers();
    let mut seen = vec![false; graph.nodes.len()];
    let mut order: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    // Nodes that no output needs come last.
    let roots = graph.outputs.iter().filter_map(|v| producers[v.0 as usize]).chain(graph.node_ids());
    for root in roots {
        // Nodes with the operand that is looked at next.
        let mut open = if std::mem::replace(&mut seen[root.0 as usize], true) { vec![] } else { vec![(root, 0)] };
        while let Some((id, next)) = open.last_mut() {
            let node = graph.node(*id);
            let capture = || node.captures.get(*next - node.inputs.len()).map(|&v| Some(v));
            match node.inputs.get(*next).copied().or_else(capture) {
                Some(operand) => {
                    *next += 1;
                    let before = operand.and_then(|v| producers[v.0 as usize]);
                    if let Some(b) = before.filter(|b| !std::mem::replace(&mut seen[b.0 as usize], true)) {
                        open.push((b, 0));
                    }
                }
                None => {
                    order.push(*id);
                    open.pop();
                }
            }
        }
    }
    if order.is_sorted() {
        return Ok(false);
    }
    let mut nodes: Vec<Option<_>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.iter().filter_map(|id| nodes[id.0 as usize].take()).collect();
    Ok(true)
}

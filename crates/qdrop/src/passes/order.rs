//! One order of the nodes, whatever the file's.

use super::Context;
use crate::error::Result;
use crate::graph::{Graph, NodeId};
use std::cmp::Reverse;

/// Puts every node right behind what it reads, depth first from the outputs. The operand with the longest way behind it
/// comes first, so that what joins a long way late (a lateral of a feature pyramid) stands in front of where it joins; equal
/// ones come in their order. What is planned then does not depend on which of the orders in which a network can run its file
/// has.
pub(super) fn depth_first(graph: &mut Graph, _: &Context) -> Result<bool> {
    let producers = graph.producers();
    let before = |id: NodeId| -> Vec<NodeId> {
        let node = graph.node(id);
        let operands = node.inputs.iter().flatten().chain(&node.captures);
        operands.filter_map(|v| producers[v.0 as usize]).collect()
    };
    let mut before: Vec<Vec<NodeId>> = graph.node_ids().map(before).collect();
    // Nodes that no output needs come last.
    let roots = graph.outputs.iter().filter_map(|v| producers[v.0 as usize]).chain(graph.node_ids());
    let roots: Vec<NodeId> = roots.collect();
    let mut depth = vec![0u32; before.len()];
    for id in ordered(&roots, &before) {
        let operands = before[id.0 as usize].iter().map(|b| depth[b.0 as usize] + 1);
        depth[id.0 as usize] = operands.max().unwrap_or(0);
    }
    before.iter_mut().for_each(|operands| operands.sort_by_key(|b| Reverse(depth[b.0 as usize])));
    let order = ordered(&roots, &before);
    if order.is_sorted() {
        return Ok(false);
    }
    let mut nodes: Vec<Option<_>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.iter().filter_map(|id| nodes[id.0 as usize].take()).collect();
    Ok(true)
}

/// The nodes that `roots` need and these themselves, each behind all that lie `before` it, depth first.
fn ordered(roots: &[NodeId], before: &[Vec<NodeId>]) -> Vec<NodeId> {
    let mut visited = vec![false; before.len()];
    let mut order = Vec::with_capacity(before.len());
    for &root in roots {
        // Nodes with the place of the operand that is looked at next.
        let mut open = if std::mem::replace(&mut visited[root.0 as usize], true) { vec![] } else { vec![(root, 0)] };
        while let Some((id, next)) = open.last_mut() {
            match before[id.0 as usize].get(*next) {
                Some(&operand) => {
                    *next += 1;
                    if !std::mem::replace(&mut visited[operand.0 as usize], true) {
                        open.push((operand, 0));
                    }
                }
                None => {
                    order.push(*id);
                    open.pop();
                }
            }
        }
    }
    order
}

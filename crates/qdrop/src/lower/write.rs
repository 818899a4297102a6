//! Nodes put between others without disturbing the ids that a plan speaks of.

use crate::graph::{Graph, Node, NodeId, Op, ValueId};

/// New nodes and where they go, in terms of the node ids before any insertion.
pub(super) struct Insertions {
    producers: Vec<Option<(NodeId, usize)>>,
    first: Vec<Node>,
    before: Vec<Vec<Node>>,
    after: Vec<Vec<Node>>,
}

impl Insertions {
    pub(super) fn new(graph: &Graph) -> Self {
        let mut producers = vec![None; graph.values.len()];
        for id in graph.node_ids() {
            for (i, v) in graph.node(id).outputs.iter().enumerate() {
                if let Some(v) = v {
                    producers[v.0 as usize] = Some((id, i));
                }
            }
        }
        let empty = vec![Vec::new(); graph.nodes.len()];
        Insertions { producers, first: Vec::new(), before: empty.clone(), after: empty }
    }

    /// The node that computes a value of the original graph, and as which of its results.
    pub(super) fn producer(&self, value: ValueId) -> Option<(NodeId, usize)> {
        self.producers.get(value.0 as usize).copied().flatten()
    }

    pub(super) fn first(&mut self, nodes: Vec<Node>) {
        self.first.extend(nodes);
    }

    pub(super) fn before(&mut self, id: NodeId, node: Node) {
        self.before[id.0 as usize].push(node);
    }

    pub(super) fn after(&mut self, id: NodeId, nodes: Vec<Node>) {
        self.after[id.0 as usize].extend(nodes);
    }

    /// Between a node and all that was put after it so far.
    pub(super) fn directly_after(&mut self, id: NodeId, node: Node) {
        self.after[id.0 as usize].insert(0, node);
    }

    /// The original `nodes` with the new ones in their places.
    pub(super) fn apply(self, nodes: Vec<Node>) -> Vec<Node> {
        let mut out = self.first;
        for ((node, before), after) in nodes.into_iter().zip(self.before).zip(self.after) {
            out.extend(before);
            out.push(node);
            out.extend(after);
        }
        out
    }
}

/// A node named after its kind and result.
pub(super) fn node(graph: &Graph, op: Op, inputs: &[ValueId], output: ValueId) -> Node {
    let name = format!("{}_{}", op.kind(), graph.value(output).name);
    Node::new(name, op, inputs, &[output])
}

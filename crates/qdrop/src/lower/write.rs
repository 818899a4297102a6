//! Nodes put between others without disturbing the ids that a plan speaks of.

use crate::graph::{Graph, Node, NodeId, Op, ValueId};
use crate::plan::{Target, rules};
use std::collections::{BTreeSet, HashMap, HashSet};

/// New nodes and where they go, in terms of the node ids before any insertion.
pub(super) struct Insertions {
    producers: Vec<Option<(NodeId, usize)>>,
    first: Vec<Node>,
    before: Vec<Vec<Node>>,
    after: Vec<Vec<Node>>,
    removed: BTreeSet<NodeId>,
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
        Insertions { producers, first: Vec::new(), before: empty.clone(), after: empty, removed: BTreeSet::new() }
    }

    /// The node that computes a value of the original graph, and as which of its results.
    pub(super) fn producer(&self, value: ValueId) -> Option<(NodeId, usize)> {
        self.producers.get(value.0 as usize).copied().flatten()
    }

    pub(super) fn first(&mut self, nodes: Vec<Node>) {
        self.first.extend(nodes);
    }

    pub(super) fn before(&mut self, id: NodeId, nodes: Vec<Node>) {
        self.before[id.0 as usize].extend(nodes);
    }

    pub(super) fn after(&mut self, id: NodeId, nodes: Vec<Node>) {
        self.after[id.0 as usize].extend(nodes);
    }

    /// After the node that computes `value`, or first of all where none does.
    pub(super) fn behind(&mut self, value: ValueId, nodes: Vec<Node>) {
        match self.producer(value) {
            Some((id, _)) => self.after(id, nodes),
            None => self.first(nodes),
        }
    }

    /// Between a node and all that was put after it so far.
    pub(super) fn directly_after(&mut self, id: NodeId, nodes: Vec<Node>) {
        self.after[id.0 as usize].splice(0..0, nodes);
    }

    /// Leaves node `id` out; what was put around it stays.
    pub(super) fn remove(&mut self, id: NodeId) {
        self.removed.insert(id);
    }

    /// The original `nodes` with the new ones in their places, each under a name that `target` takes.
    pub(super) fn apply(self, nodes: Vec<Node>, target: Target) -> Vec<Node> {
        let mut out = self.first;
        for (i, ((node, before), after)) in nodes.into_iter().zip(self.before).zip(self.after).enumerate() {
            out.extend(before);
            if !self.removed.contains(&NodeId(i as u32)) {
                out.push(node);
            }
            out.extend(after);
        }
        if rules::NODE_NAMES.applies(target) {
            name_apart(&mut out);
        }
        out
    }
}

/// Gives each node whose name an earlier one has a name that none has. Nodes without a name stay without.
fn name_apart(nodes: &mut [Node]) {
    let all: HashSet<String> = nodes.iter().map(|n| n.name.clone()).collect();
    let mut taken: HashSet<String> = HashSet::new();
    let mut tried: HashMap<String, usize> = HashMap::new();
    for node in nodes.iter_mut().filter(|n| !n.name.is_empty()) {
        if taken.insert(node.name.clone()) {
            continue;
        }
        let count = tried.entry(node.name.clone()).or_default();
        node.name = loop {
            *count += 1;
            let name = format!("{}_{count}", node.name);
            if !all.contains(&name) && taken.insert(name.clone()) {
                break name;
            }
        };
    }
}

/// A node named after its kind and result.
pub(super) fn node(graph: &Graph, op: Op, inputs: &[ValueId], output: ValueId) -> Node {
    let name = format!("{}_{}", op.kind(), graph.value(output).name);
    Node::new(name, op, inputs, &[output])
}

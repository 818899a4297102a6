//! What nodes read, and the order in which they can run.

use super::attrs::{describe, subgraphs};
use super::proto::{GraphProto, NodeProto};
use crate::error::{Error, Result};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Names of the outer values that a subgraph reads, in order of first use.
pub fn captures(graph: &GraphProto) -> Vec<String> {
    let mut inner: HashSet<&str> = graph.input.iter().map(|i| i.name()).collect();
    inner.extend(graph.initializer.iter().map(|t| t.name()));
    inner.extend(graph.sparse_initializer.iter().filter_map(|s| s.values.as_ref()).map(|v| v.name()));
    inner.extend(graph.node.iter().flat_map(|n| &n.output).map(|o| o.as_str()));
    let mut seen = HashSet::new();
    let outputs = graph.output.iter().map(|o| o.name().to_string());
    let names = graph.node.iter().flat_map(reads).chain(outputs);
    names.filter(|n| !n.is_empty() && !inner.contains(n.as_str()) && seen.insert(n.clone())).collect()
}

/// Names that a subgraph and those inside it define.
pub fn defined<'a>(graph: &'a GraphProto, into: &mut HashSet<&'a str>) {
    into.extend(graph.input.iter().map(|i| i.name()));
    into.extend(graph.initializer.iter().map(|t| t.name()));
    for node in &graph.node {
        into.extend(node.output.iter().map(|o| o.as_str()));
        subgraphs(node).for_each(|g| defined(g, into));
    }
}

/// Names that a node reads, its subgraphs included; omitted operands are left out.
pub fn reads(node: &NodeProto) -> Vec<String> {
    let own = node.input.iter().filter(|n| !n.is_empty()).cloned();
    own.chain(subgraphs(node).flat_map(captures)).collect()
}

/// The error for a value that nothing provides.
pub fn nobody(name: &str) -> Error {
    Error::model(format!("reads `{name}`, which no input, initializer or node provides"))
        .hint("the file is damaged; export the model again")
}

/// The nodes in an order in which everything is computed before it is read: as given where possible.
/// `reads` belongs to `nodes`; `given` are inputs and initializers.
pub fn sort(nodes: Vec<NodeProto>, reads: Vec<Vec<String>>, given: &HashSet<String>) -> Result<Vec<NodeProto>> {
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|o| !o.is_empty()) {
            if producer.insert(name, i).is_some() || given.contains(name) {
                return Err(Error::model(format!("value `{name}` is defined twice")).at(describe(node)));
            }
        }
    }
    let mut waits = vec![0usize; nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, names) in reads.iter().enumerate() {
        for name in names.iter().filter(|n| !given.contains(*n)) {
            let from = *producer.get(name.as_str()).ok_or_else(|| nobody(name).at(describe(&nodes[i])))?;
            readers[from].push(i);
            waits[i] += 1;
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..nodes.len()).filter(|&i| waits[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for &r in &readers[i] {
            waits[r] -= 1;
            if waits[r] == 0 {
                ready.push(Reverse(r));
            }
        }
    }
    if let Some(stuck) = (0..nodes.len()).find(|&i| waits[i] > 0) {
        return Err(Error::model("the node is part of a cycle or depends on one")
            .at(describe(&nodes[stuck]))
            .hint("a network must not read its own results; export the model again"));
    }
    let mut slots: Vec<Option<NodeProto>> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|i| slots[i].take()).collect())
}

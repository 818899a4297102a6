//! Edits that several passes share.

use super::Context;
use crate::error::Result;
use crate::graph::{Fact, Graph, Node, NodeId, Value, ValueId};
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::ops::Deref;

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

/// A graph while a pass edits it, with who computes and reads every value, so that no edit looks at all nodes. Nodes keep
/// their numbers until [`Editor::finish`].
pub(super) struct Editor<'g> {
    graph: &'g mut Graph,
    values: Vec<Links>,
    removed: Vec<bool>,
    /// Added nodes by the node that they stand before; the graph lists them last until it is finished.
    before: BTreeMap<NodeId, Vec<NodeId>>,
}

/// What is around a value.
#[derive(Debug, Clone, Default)]
struct Links {
    producer: Option<NodeId>,
    /// Operands that read it, among others that did.
    readers: Vec<(NodeId, usize)>,
    /// Number of operands that read it.
    reads: usize,
    /// Number of subgraphs that read it by its name.
    captures: usize,
    handed_out: bool,
}

impl Deref for Editor<'_> {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        self.graph
    }
}

impl<'g> Editor<'g> {
    /// Ready to edit `graph`.
    pub fn new(graph: &'g mut Graph) -> Self {
        let (values, nodes) = (graph.values.len(), graph.nodes.len());
        let (values, removed) = (vec![Links::default(); values], vec![false; nodes]);
        let mut editor = Editor { graph, values, removed, before: BTreeMap::new() };
        for &v in &editor.graph.outputs {
            editor.values[v.0 as usize].handed_out = true;
        }
        editor.graph.node_ids().for_each(|id| editor.link(id));
        editor
    }

    fn links(&self, value: ValueId) -> &Links {
        &self.values[value.0 as usize]
    }

    /// The node that computes `value`.
    pub fn producer(&self, value: ValueId) -> Option<NodeId> {
        self.links(value).producer
    }

    /// Whether one node reads `value`, once, and nobody outside.
    pub fn exclusive(&self, value: ValueId) -> bool {
        let links = self.links(value);
        links.reads + links.captures == 1 && !links.handed_out
    }

    /// Whether a subgraph reads `value` by its name, so that it must stay.
    pub fn is_captured(&self, value: ValueId) -> bool {
        self.links(value).captures > 0
    }

    /// Notes what the node `id` reads and computes.
    fn link(&mut self, id: NodeId) {
        let node = &self.graph.nodes[id.0 as usize];
        for (i, v) in node.inputs.iter().enumerate() {
            if let Some(v) = v {
                let links = &mut self.values[v.0 as usize];
                links.readers.push((id, i));
                links.reads += 1;
            }
        }
        node.captures.iter().for_each(|v| self.values[v.0 as usize].captures += 1);
        node.outputs.iter().flatten().for_each(|v| self.values[v.0 as usize].producer = Some(id));
    }

    /// Forgets what the node `id` reads and computes.
    fn unlink(&mut self, id: NodeId) {
        let node = &self.graph.nodes[id.0 as usize];
        node.inputs.iter().flatten().for_each(|v| self.values[v.0 as usize].reads -= 1);
        node.captures.iter().for_each(|v| self.values[v.0 as usize].captures -= 1);
        for v in node.outputs.iter().flatten() {
            let producer = &mut self.values[v.0 as usize].producer;
            *producer = producer.filter(|&p| p != id);
        }
    }

    /// Makes `change` to the node `id`.
    pub fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        self.unlink(id);
        change(&mut self.graph.nodes[id.0 as usize]);
        self.link(id);
    }

    /// Removes the node `id`.
    pub fn remove(&mut self, id: NodeId) {
        self.unlink(id);
        self.removed[id.0 as usize] = true;
    }

    /// Adds `node` before the node `other`, behind what was added there.
    pub fn add_before(&mut self, other: NodeId, node: Node) {
        let id = NodeId(self.graph.nodes.len() as u32);
        self.graph.nodes.push(node);
        self.removed.push(false);
        self.before.entry(other).or_default().push(id);
        self.link(id);
    }

    /// The value `id`, to be changed.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        self.graph.value_mut(id)
    }

    /// As [`Graph::add_value`].
    pub fn add_value(&mut self, wanted: &str, fact: Fact) -> ValueId {
        self.values.push(Links::default());
        self.graph.add_value(wanted, fact)
    }

    /// As [`Graph::add_constant`].
    pub fn add_constant(&mut self, wanted: &str, tensor: Tensor) -> ValueId {
        self.values.push(Links::default());
        self.graph.add_constant(wanted, tensor)
    }

    /// Makes readers of `result`, computed by `node`, read `operand` instead, which holds the same. Names of graph
    /// outputs stay: where `result` is one, the node that computes `operand` computes `result` instead. The node is left
    /// without a reader and its result is moved or dead. Returns false, and changes nothing, where names forbid it.
    pub fn bypass(&mut self, node: NodeId, operand: ValueId, result: ValueId) -> bool {
        if self.is_captured(result) {
            return false;
        }
        if !self.links(result).handed_out {
            self.replace_uses(result, operand);
            return true;
        }
        let free = !self.links(operand).handed_out && !self.is_captured(operand);
        let Some(producer) = self.producer(operand).filter(|_| free) else { return false };
        let rename = |from: ValueId, to: ValueId| {
            move |node: &mut Node| node.outputs.iter_mut().flatten().filter(|v| **v == from).for_each(|v| *v = to)
        };
        self.change(node, rename(result, operand));
        self.change(producer, rename(operand, result));
        self.replace_uses(operand, result);
        // The bypassed node now reads `result` and writes `operand`, which nobody reads.
        true
    }

    /// Makes every operand that reads `old` read `new`. Graph outputs and captures keep `old`.
    fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for (id, i) in std::mem::take(&mut self.values[old.0 as usize].readers) {
            let operand = self.graph.nodes[id.0 as usize].inputs.get_mut(i).filter(|v| **v == Some(old));
            let Some(operand) = operand.filter(|_| !self.removed[id.0 as usize]) else { continue };
            *operand = Some(new);
            self.values[old.0 as usize].reads -= 1;
            let links = &mut self.values[new.0 as usize];
            links.readers.push((id, i));
            links.reads += 1;
        }
    }

    /// Puts nodes in their order, without those that were removed.
    pub fn finish(self) {
        let Editor { graph, removed, mut before, .. } = self;
        let mut nodes: Vec<Option<Node>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
        nodes.iter_mut().zip(removed).filter(|(_, removed)| *removed).for_each(|(node, _)| *node = None);
        for id in (0..nodes.len() as u32).map(NodeId) {
            let added = before.remove(&id).unwrap_or_default();
            let all = added.into_iter().chain([id]);
            graph.nodes.extend(all.filter_map(|id| nodes[id.0 as usize].take()));
        }
    }
}

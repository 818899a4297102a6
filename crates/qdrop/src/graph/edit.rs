//! Verbs that read and change a graph, and the check that every change must pass.

use super::{Fact, Graph, Node, NodeId, Value, ValueId};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::collections::HashSet;
use std::sync::Arc;

impl Graph {
    /// The value `id`.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The value `id`, to be changed.
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    /// The node `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The content of `id` if it is constant.
    pub fn constant(&self, id: ValueId) -> Option<&Arc<Tensor>> {
        self.value(id).constant.as_ref()
    }

    /// All node ids in topological order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// All value ids.
    pub fn value_ids(&self) -> impl DoubleEndedIterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// How errors name a node: ``node `name` (Kind)``, by its first result when it has no name.
    pub fn describe(&self, id: NodeId) -> String {
        let node = self.node(id);
        format!("node `{}` ({})", self.node_name(id), node.op.kind())
    }

    /// A node's name, or its first result's name when it has none.
    pub fn node_name(&self, id: NodeId) -> &str {
        let node = self.node(id);
        match node.outputs.iter().flatten().next() {
            Some(&v) if node.name.is_empty() => &self.value(v).name,
            _ => &node.name,
        }
    }

    /// For each value the node that computes it.
    pub fn producers(&self) -> Vec<Option<NodeId>> {
        let mut producers = vec![None; self.values.len()];
        for id in self.node_ids() {
            for v in self.node(id).outputs.iter().flatten() {
                producers[v.0 as usize] = Some(id);
            }
        }
        producers
    }

    /// For each value the nodes that read it with the operand index, in order; captures by subgraphs count with
    /// index `usize::MAX`. Graph outputs are not listed.
    pub fn consumers(&self) -> Vec<Vec<(NodeId, usize)>> {
        let mut consumers = vec![Vec::new(); self.values.len()];
        for id in self.node_ids() {
            let node = self.node(id);
            for (i, v) in node.inputs.iter().enumerate() {
                if let Some(v) = v {
                    consumers[v.0 as usize].push((id, i));
                }
            }
            for v in &node.captures {
                consumers[v.0 as usize].push((id, usize::MAX));
            }
        }
        consumers
    }

    /// Adds a value under a name built from `wanted`.
    pub fn add_value(&mut self, wanted: &str, fact: Fact) -> ValueId {
        let name = self.names.fresh(&self.values, wanted);
        self.values.push(Value { name, fact, constant: None, origin: None });
        ValueId(self.values.len() as u32 - 1)
    }

    /// Gives the value `id` a name built from `wanted`.
    pub fn rename_value(&mut self, id: ValueId, wanted: &str) {
        let name = self.names.fresh(&self.values, wanted);
        self.names.take(&name);
        self.value_mut(id).name = name;
    }

    /// Adds a constant under a name built from `wanted`.
    pub fn add_constant(&mut self, wanted: &str, tensor: Tensor) -> ValueId {
        let fact = Fact {
            dtype: Some(tensor.dtype()),
            shape: Some(tensor.shape().iter().map(|&d| super::Dim::Known(d)).collect()),
        };
        let id = self.add_value(wanted, fact);
        self.value_mut(id).constant = Some(Arc::new(tensor));
        id
    }

    /// Makes every operand that reads `old` read `new`. Graph outputs and captures keep `old`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        for v in self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut()).flatten() {
            if *v == old {
                *v = new;
            }
        }
    }

    /// Drops nodes for which `keep` is false; node ids change, value ids do not.
    pub fn retain_nodes(&mut self, mut keep: impl FnMut(NodeId, &Node) -> bool) {
        let mut id = 0;
        self.nodes.retain(|node| {
            id += 1;
            keep(NodeId(id - 1), node)
        });
    }

    /// Checks the rules of this type: ids in range, one producer a value, operands before their readers,
    /// unique names, constants and inputs not computed, outputs available.
    pub fn check(&self) -> Result<()> {
        let n = self.values.len();
        let mut names = HashSet::with_capacity(n);
        for value in &self.values {
            if value.name.is_empty() || !names.insert(value.name.as_str()) {
                return Err(Error::model(format!("value name `{}` is empty or used twice", value.name)));
            }
        }
        let mut ready: Vec<bool> = self.values.iter().map(|v| v.constant.is_some()).collect();
        for &v in &self.inputs {
            if v.0 as usize >= n || std::mem::replace(&mut ready[v.0 as usize], true) {
                return Err(Error::model(format!("graph input {} is listed twice or also constant", v.0)));
            }
        }
        for id in self.node_ids() {
            let node = self.node(id);
            for v in node.inputs.iter().flatten().chain(&node.captures) {
                if !ready.get(v.0 as usize).copied().unwrap_or(false) {
                    let name = self.values.get(v.0 as usize).map_or("?", |v| v.name.as_str());
                    return Err(
                        Error::model(format!("reads `{name}`, which nothing before it provides")).at(self.describe(id))
                    );
                }
            }
            for v in node.outputs.iter().flatten() {
                match ready.get_mut(v.0 as usize) {
                    Some(r) if !*r => *r = true,
                    _ => return Err(Error::model("writes a value that already exists").at(self.describe(id))),
                }
            }
        }
        for v in &self.outputs {
            if !ready.get(v.0 as usize).copied().unwrap_or(false) {
                return Err(Error::model("a graph output is never computed"));
            }
        }
        Ok(())
    }
}

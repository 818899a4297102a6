//! Nodes that stand in place of one.

use super::attrs::subgraphs_mut;
use super::proto::{NodeProto, TensorProto};
#[cfg(doc)]
use crate::graph::Op;
use crate::graph::ValueId;
use crate::tensor::DType;
use std::collections::HashMap;

/// What replaces a node.
#[derive(Default)]
pub(super) struct Body {
    pub nodes: Vec<NodeProto>,
    pub initializers: Vec<TensorProto>,
    /// Names of its operands, with what the node is given for each.
    pub operands: Vec<(String, String)>,
    /// Names of its results.
    pub results: Vec<String>,
    /// How many of the last nodes are [`Op::Choice`] where they are a Where by their text.
    pub choices: usize,
}

/// What is known of values beyond what the file declares: element type, and the sizes that are the same for every batch
/// and open size.
pub type Known<'a> = &'a dyn Fn(ValueId) -> Option<(DType, Vec<Option<usize>>)>;

/// Replaces names in a node and its subgraphs.
pub(super) fn rename(node: &mut NodeProto, names: &HashMap<String, String>) {
    let swap = |name: &mut String| {
        if let Some(new) = names.get(name.as_str()) {
            name.clone_from(new);
        }
    };
    node.input.iter_mut().chain(&mut node.output).for_each(swap);
    for graph in subgraphs_mut(node) {
        graph.node.iter_mut().for_each(|n| rename(n, names));
        for info in &mut graph.output {
            info.name = info.name.take().map(|n| names.get(&n).cloned().unwrap_or(n));
        }
    }
}

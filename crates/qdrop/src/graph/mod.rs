//! The intermediate representation: values, nodes in topological order, and methods that edit them.
//!
//! A [`Graph`] has operators and shapes. It is independent of protobuf, quantization, devices and files. Operators have
//! the meaning that they have in ONNX opset 13 and later; the reader raises older models to that level. What a reader
//! cannot express here it keeps in an [`Origin`], which only the reader can interpret.

mod batch;
mod edit;
mod kind;
mod loops;
mod names;
mod op;
mod recurrent;
#[cfg(test)]
pub(crate) mod testing;

pub use loops::{LoopBodies, LoopBody};
pub use names::Names;
pub use op::*;
pub use recurrent::*;

use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Index of a value in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueId(pub u32);

/// Index of a node in its graph; changes when nodes are added or removed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u32);

/// One declared dimension of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dim {
    /// A fixed size.
    Known(usize),
    /// A named size that is the same wherever the name stands (`batch`).
    Symbol(String),
    /// Nothing is declared.
    Unknown,
}

/// What the file declares about a value; both parts may be missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Element type.
    pub dtype: Option<DType>,
    /// Dimensions.
    pub shape: Option<Vec<Dim>>,
}

/// Bytes in which a reader keeps what the IR does not express; opaque to everyone else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin(pub Arc<[u8]>);

/// A tensor flowing through the graph, or a constant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Unique, non-empty name.
    pub name: String,
    /// Declared type and shape.
    pub fact: Fact,
    /// The content when the value is constant (an initializer or a folded node).
    pub constant: Option<Arc<Tensor>>,
    /// What else the reader knew of it.
    pub origin: Option<Origin>,
}

/// An operator applied to values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Name from the file; may be empty or repeated.
    pub name: String,
    /// The operator with its attributes.
    pub op: Op,
    /// Operands; `None` for an omitted optional one.
    pub inputs: Vec<Option<ValueId>>,
    /// Results; `None` for an omitted optional one.
    pub outputs: Vec<Option<ValueId>>,
    /// Outer values that the node's subgraphs read by name.
    pub captures: Vec<ValueId>,
    /// What else the reader knew of it; must be dropped when `op` is changed.
    pub origin: Option<Origin>,
}

impl Node {
    /// A node without a history.
    pub fn new(name: impl Into<String>, op: Op, inputs: &[ValueId], outputs: &[ValueId]) -> Self {
        Node {
            name: name.into(),
            op,
            inputs: inputs.iter().map(|&v| Some(v)).collect(),
            outputs: outputs.iter().map(|&v| Some(v)).collect(),
            captures: Vec::new(),
            origin: None,
        }
    }

    /// Operand `i` if present.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// Result `i` if present.
    pub fn output(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }
}

/// A network: values, nodes in topological order, and which values enter and leave.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Name from the file.
    pub name: String,
    /// All values; ids index this list and stay valid for the life of the graph.
    pub values: Vec<Value>,
    /// All nodes in an order in which every operand is computed before it is read.
    pub nodes: Vec<Node>,
    /// Values fed from outside, constants not included.
    pub inputs: Vec<ValueId>,
    /// Values handed out.
    pub outputs: Vec<ValueId>,
    /// Version of the default operator set that `nodes` (the opaque ones above all) are written in; at least 13.
    pub opset: u64,
    /// What else the reader knew of the model.
    pub origin: Option<Origin>,
    /// Names of `values`.
    #[serde(skip)]
    pub names: Names,
}

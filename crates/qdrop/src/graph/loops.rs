//! What a Loop repeats.

use super::{Graph, NodeId, ValueId};
use std::collections::BTreeMap;

/// Bodies of Loops, by their nodes.
pub type LoopBodies = BTreeMap<NodeId, LoopBody>;

/// The body of a Loop.
#[derive(Debug, Clone)]
pub struct LoopBody {
    /// Its inputs are the number of the iteration, whether the Loop goes on, the states, and the values in `captures`. Its
    /// outputs are whether the Loop goes on, the states, and what is handed out in each iteration.
    pub graph: Graph,
    /// Values of the graph around it that it reads; constants are in `graph`.
    pub captures: Vec<ValueId>,
    /// Loops inside it.
    pub inner: LoopBodies,
}

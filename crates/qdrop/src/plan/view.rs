//! A graph as planning sees it: which nodes compute with data, which of them form one step, who reads what.

use super::Reason;
use crate::engine::facts::Facts;
use crate::graph::{Binary, Graph, Node, NodeId, Op, Reduction, Unary, ValueId, Variadic};
use std::collections::BTreeSet;

/// Longest activation function followed behind a value, in nodes.
const MAX_REGION: usize = 16;

/// A graph with the questions planning asks of it answered once.
pub(super) struct View<'a> {
    pub graph: &'a Graph,
    pub facts: &'a Facts,
    pub producers: Vec<Option<NodeId>>,
    /// Per value: who reads its content; who only asks for its shape does not count.
    pub consumers: Vec<Vec<(NodeId, usize)>>,
    /// Per value: depends on a graph input for a given batch size.
    pub live: Vec<bool>,
    /// Per value: leaves the graph.
    pub leaves: Vec<bool>,
    /// Per node: computes a live value and can be run.
    pub active: Vec<bool>,
    /// Per value: carries activations; what is computed from integers and truth values alone (masks, positions) does
    /// not, unless a table or a layer turned it into activations.
    pub signal: Vec<bool>,
    /// Per value: live, and computed from integers and truth values alone.
    pub mask: Vec<bool>,
    /// Per value: computed by way of a weight layer, a table or a product.
    pub after_layer: Vec<bool>,
    /// Per value: a weight layer or product that can be run, and is not left out, depends on it.
    pub before_layer: Vec<bool>,
    /// Layers that are left out of what is quantized.
    left_out: BTreeSet<NodeId>,
}

/// How a node enters the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Carries a constant float weight.
    Layer,
    /// Looks rows up in a constant float table (embedding).
    Table,
    /// Multiplies two activations (attention).
    Product,
    /// Combines two or more activations element by element.
    Junction,
    /// Moves or pools elements of one tensor, or joins tensors: nothing leaves the range of its operands.
    Movement,
    /// Anything else.
    Other,
}

impl<'a> View<'a> {
    /// Reads `graph`; the second result lists the nodes that cannot be run and what depends on them.
    pub fn new(graph: &'a Graph, facts: &'a Facts) -> (Self, Vec<(NodeId, Reason)>) {
        let n = graph.values.len();
        let mut view = View {
            graph,
            facts,
            producers: graph.producers(),
            consumers: graph.consumers(),
            live: vec![false; n],
            leaves: vec![false; n],
            active: vec![false; graph.nodes.len()],
            signal: vec![false; n],
            mask: vec![false; n],
            after_layer: vec![false; n],
            before_layer: vec![false; n],
            left_out: BTreeSet::new(),
        };
        let mut carried = Vec::new();
        // Per value that cannot be computed, the node for which it cannot.
        let mut unknown: Vec<Option<NodeId>> = vec![None; n];
        for &v in &graph.inputs {
            view.live[v.0 as usize] = true;
            view.signal[v.0 as usize] = view.is_float(v);
            view.mask[v.0 as usize] = !view.is_float(v);
        }
        for &v in &graph.outputs {
            view.leaves[v.0 as usize] = true;
        }
        for id in graph.node_ids() {
            let node = graph.node(id);
            let reads = |set: &[bool]| node.inputs.iter().flatten().chain(&node.captures).any(|v| set[v.0 as usize]);
            let behind = node.inputs.iter().flatten().chain(&node.captures).find_map(|v| unknown[v.0 as usize]);
            let known = |v: &ValueId| facts.get(*v).is_some();
            let open = behind.is_none() && !node.outputs.iter().flatten().all(known);
            let opaque = open || matches!(node.op, Op::Opaque { .. });
            let fed = reads(&view.live);
            let mut any = false;
            for &v in node.outputs.iter().flatten() {
                let known = facts.get(v).is_some_and(|f| f.constant.is_some());
                view.live[v.0 as usize] = (fed || opaque) && !known;
                unknown[v.0 as usize] = if opaque { Some(id) } else { behind }.filter(|_| !known);
                any |= view.live[v.0 as usize];
            }
            let reason = match behind {
                _ if matches!(node.op, Op::Opaque { .. }) => Some(Reason::Opaque),
                _ if open => Some(Reason::OpenSize),
                stop => stop.map(Reason::Behind),
            };
            carried.extend(reason.filter(|_| any).map(|reason| (id, reason)));
            view.active[id.0 as usize] = any && reason.is_none();
            let makes = opaque || view.weight(id).is_some() || view.table(id).is_some() || reads(&view.signal);
            let masks = !makes && view.operands(id).all(|v| view.mask[v.0 as usize]);
            for &v in node.outputs.iter().flatten() {
                view.signal[v.0 as usize] = makes && view.live[v.0 as usize] && view.is_float(v);
                view.mask[v.0 as usize] = masks && view.live[v.0 as usize];
            }
        }
        let View { consumers, live, .. } = &mut view;
        let computes = |id: NodeId| graph.node(id).outputs.iter().flatten().any(|v| live[v.0 as usize]);
        consumers.iter_mut().for_each(|readers| readers.retain(|&(id, _)| computes(id)));
        view.mark_layers(&carried);
        (view, carried)
    }

    fn mark_layers(&mut self, carried: &[(NodeId, Reason)]) {
        let graph = self.graph;
        let carried: BTreeSet<NodeId> = carried.iter().map(|&(id, _)| id).collect();
        let counts = |id: NodeId| matches!(self.role(id), Role::Layer | Role::Product) && !carried.contains(&id);
        let layers: Vec<bool> = graph.node_ids().map(counts).collect();
        for id in graph.node_ids().filter(|&id| self.active[id.0 as usize]) {
            let starts = layers[id.0 as usize] || self.role(id) == Role::Table;
            let fed = starts || self.operands(id).any(|v| self.after_layer[v.0 as usize]);
            for v in graph.node(id).outputs.iter().flatten() {
                self.after_layer[v.0 as usize] = fed && self.live[v.0 as usize];
            }
        }
        self.mark_before(&layers);
    }

    /// Marks the values that nodes depend on which are marked in `layers`.
    fn mark_before(&mut self, layers: &[bool]) {
        let graph = self.graph;
        self.before_layer.fill(false);
        for id in graph.node_ids().rev() {
            let node = graph.node(id);
            if layers[id.0 as usize] || node.outputs.iter().flatten().any(|v| self.before_layer[v.0 as usize]) {
                for v in node.inputs.iter().flatten().chain(&node.captures) {
                    self.before_layer[v.0 as usize] = self.live[v.0 as usize];
                }
            }
        }
    }

    /// Leaves `layers`, products behind them, and what only they read, out of what is quantized.
    pub fn leave_out(&mut self, layers: BTreeSet<NodeId>) {
        if layers.is_empty() {
            return;
        }
        self.left_out = layers;
        let products = self.behind(self.left_out.iter().copied()).into_iter();
        let products: Vec<NodeId> = products.filter(|&id| self.role(id) == Role::Product).collect();
        self.left_out.extend(products);
        let counts = |id: NodeId| {
            matches!(self.role(id), Role::Layer | Role::Product)
                && self.active[id.0 as usize]
                && !self.left_out.contains(&id)
        };
        let layers: Vec<bool> = self.graph.node_ids().map(counts).collect();
        self.mark_before(&layers);
    }

    /// Whether node `id` is a layer or product that is left out.
    pub fn is_left_out(&self, id: NodeId) -> bool {
        self.left_out.contains(&id)
    }

    /// The readers of `value` (node, operand index) that are part of what is quantized, where others are not.
    pub fn readers_within(&self, value: ValueId) -> Option<Vec<(NodeId, usize)>> {
        let within = |id: NodeId| {
            let results = || self.graph.node(id).outputs.iter().flatten().any(|v| self.before_layer[v.0 as usize]);
            !self.left_out.contains(&id) && (self.role(id) == Role::Layer || results())
        };
        let readers = &self.consumers[value.0 as usize];
        let inner: Vec<_> = readers.iter().copied().filter(|&(id, _)| within(id)).collect();
        (!self.left_out.is_empty() && inner.len() < readers.len()).then_some(inner)
    }

    /// All nodes behind `starts`.
    pub fn behind(&self, starts: impl Iterator<Item = NodeId>) -> BTreeSet<NodeId> {
        self.reached(starts, |_| true)
    }

    /// The nodes on which `ends` depend.
    pub fn before(&self, ends: &[ValueId]) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        let mut open = ends.to_vec();
        while let Some(v) = open.pop() {
            if let Some(id) = self.producers[v.0 as usize].filter(|&id| found.insert(id)) {
                open.extend(self.operands(id));
            }
        }
        found
    }

    /// The nodes behind `starts` for which `wanted` holds, and for all between.
    pub fn reached(&self, starts: impl Iterator<Item = NodeId>, wanted: fn(&Node) -> bool) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        let mut open: Vec<NodeId> = starts.collect();
        while let Some(id) = open.pop() {
            let results = self.graph.node(id).outputs.iter().flatten();
            for &(next, _) in results.flat_map(|v| &self.consumers[v.0 as usize]) {
                if wanted(self.graph.node(next)) && found.insert(next) {
                    open.push(next);
                }
            }
        }
        found
    }

    /// Whether `v` depends on a graph input.
    pub fn is_live(&self, v: ValueId) -> bool {
        self.live[v.0 as usize]
    }

    /// Live operands of a node, captures included.
    pub fn operands(&self, id: NodeId) -> impl Iterator<Item = ValueId> + '_ {
        let node = self.graph.node(id);
        node.inputs.iter().flatten().chain(&node.captures).copied().filter(|&v| self.is_live(v))
    }

    /// The constant weight of a node, with float elements.
    pub fn weight(&self, id: NodeId) -> Option<ValueId> {
        let node = self.graph.node(id);
        let weight = node.input(node.op.weight_index()?)?;
        let first = node.input(0)?;
        let float = self.graph.constant(weight).is_some_and(|t| t.dtype().is_float());
        (float && self.is_live(first)).then_some(weight)
    }

    /// The constant bias of a node with a weight: its own, or what alone reads its result adds.
    pub fn bias(&self, id: NodeId) -> Option<ValueId> {
        self.weight(id)?;
        let node = self.graph.node(id);
        let constant = |v: &ValueId| self.graph.constant(*v).is_some();
        if let Some(own) = node.input(2) {
            return Some(own).filter(constant);
        }
        let next = self.graph.node(self.only_reader(self.single_output(node)?)?);
        let added = || next.inputs.iter().flatten().copied().find(constant);
        matches!(next.op, Op::Binary(Binary::Add)).then(added).flatten()
    }

    /// The constant float table in which a node looks up rows, by indices that depend on a graph input.
    pub fn table(&self, id: NodeId) -> Option<ValueId> {
        let node = self.graph.node(id);
        let (table, indices) = (node.input(0)?, node.input(1)?);
        let lookup = matches!(node.op, Op::Gather { axis: 0 }) && self.is_live(indices);
        let matrix = self.graph.constant(table).is_some_and(|t| t.dtype().is_float() && t.rank() == 2);
        (lookup && matrix).then_some(table)
    }

    /// The role of a node.
    pub fn role(&self, id: NodeId) -> Role {
        let node = self.graph.node(id);
        if self.weight(id).is_some() {
            return Role::Layer;
        }
        if self.table(id).is_some() {
            return Role::Table;
        }
        let mut operands: Vec<ValueId> = self.operands(id).filter(|v| self.signal[v.0 as usize]).collect();
        operands.dedup();
        match &node.op {
            Op::MatMul | Op::Gemm { .. } if operands.len() > 1 => Role::Product,
            Op::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Div) if operands.len() > 1 => Role::Junction,
            Op::Variadic(Variadic::Sum | Variadic::Mean | Variadic::Max | Variadic::Min) if operands.len() > 1 => {
                Role::Junction
            }
            op if moves(op) => Role::Movement,
            _ => Role::Other,
        }
    }

    /// Whether the elements of `v` are floating point as far as known.
    pub fn is_float(&self, v: ValueId) -> bool {
        let declared = self.graph.value(v).fact.dtype;
        self.facts.get(v).map(|f| f.dtype).or(declared).is_none_or(|t| t.is_float())
    }

    /// The function of one tensor that follows `value`: the longest run of element-wise and normalising nodes that
    /// read nothing but `value`, constants, masks and each other and end in the only value anyone else reads (`x·sigmoid(x)`
    /// counts). Returns the nodes and that value (`value` itself when there are none).
    pub fn function(&self, value: ValueId) -> (Vec<NodeId>, ValueId) {
        let mut nodes: Vec<NodeId> = Vec::new();
        let mut inside: BTreeSet<ValueId> = BTreeSet::from([value]);
        let mut frontier: BTreeSet<NodeId> = self.readers(value).collect();
        let mut best = (0, value);
        while let Some(id) = frontier.pop_first() {
            let node = self.graph.node(id);
            let Some(out) = self.single_output(node) else { continue };
            if !is_function(&node.op) || !self.active[id.0 as usize] || !node.captures.is_empty() {
                continue;
            }
            if !self.operands(id).all(|v| inside.contains(&v) || self.mask[v.0 as usize]) {
                continue;
            }
            nodes.push(id);
            inside.insert(out);
            frontier.extend(self.readers(out));
            let seen = |v: &ValueId| {
                self.leaves[v.0 as usize] || self.consumers[v.0 as usize].iter().any(|(n, _)| !nodes.contains(n))
            };
            let open: Vec<ValueId> = inside.iter().copied().filter(|v| seen(v)).collect();
            if open == [out] {
                best = (nodes.len(), out);
            }
            if nodes.len() == MAX_REGION {
                break;
            }
        }
        nodes.truncate(best.0);
        (nodes, best.1)
    }

    /// Whether a node only multiplies or divides one tensor by a constant number, so that quantized elements stay on a
    /// grid.
    pub fn scales(&self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        let number = |v: Option<ValueId>| v.and_then(|v| self.graph.constant(v)).is_some_and(|t| t.len() == 1);
        match node.op {
            Op::Binary(Binary::Mul) => number(node.input(0)) || number(node.input(1)),
            Op::Binary(Binary::Div) => number(node.input(1)),
            _ => false,
        }
    }

    /// What a node divides into channels of like width: it multiplies it by a constant number above 0 for each channel, and
    /// nothing but layers read the result, perhaps moved.
    pub fn divides(&self, id: NodeId) -> Option<ValueId> {
        let node = self.graph.node(id);
        let (value, by) = (node.input(0)?, self.graph.constant(node.input(1)?)?);
        let channels = by.shape().iter().filter(|&&d| d > 1).count() == 1;
        let product = node.op == Op::Binary(Binary::Mul) && self.is_live(value) && channels;
        let same = || self.facts.get(value).is_some_and(|f| f.shape.len() == by.rank());
        let positive = || by.as_f32().is_some_and(|by| by.iter().all(|&x| x.is_finite() && x > 0.0));
        let layers = |v: ValueId| {
            let readers = &self.consumers[v.0 as usize];
            let takes = |&(id, _): &(NodeId, usize)| matches!(self.role(id), Role::Layer | Role::Movement);
            !self.leaves[v.0 as usize] && !readers.is_empty() && readers.iter().all(takes)
        };
        (product && same() && positive() && layers(self.single_output(node)?)).then_some(value)
    }

    /// What divides `value`, if something does.
    pub fn divided(&self, value: ValueId) -> Option<NodeId> {
        self.readers(value).find(|&id| self.divides(id) == Some(value))
    }

    /// Per value: none of its elements can be below 0, by the operator that makes it or by those before that only move
    /// its elements.
    pub fn nonnegative(&self) -> Vec<bool> {
        let mut found = vec![false; self.graph.values.len()];
        // Nodes come after what they read.
        for id in self.graph.node_ids() {
            let makes = self.makes_nonnegative(id, &found);
            for v in self.graph.node(id).outputs.iter().flatten() {
                found[v.0 as usize] = makes;
            }
        }
        found
    }

    /// Whether no result of a node can be below 0, where none of `operands` that are marked is.
    fn makes_nonnegative(&self, id: NodeId, operands: &[bool]) -> bool {
        let node = self.graph.node(id);
        match &node.op {
            Op::Unary(Unary::Relu | Unary::Sigmoid | Unary::HardSigmoid { .. } | Unary::Softplus) => true,
            Op::Unary(Unary::Abs | Unary::Exp | Unary::Sqrt) | Op::Softmax { log: false, .. } => true,
            Op::Clip => {
                let low = node.input(1).and_then(|low| self.graph.constant(low)).and_then(|t| t.to_f32().ok());
                low.is_some_and(|low| low.iter().all(|&l| l >= 0.0))
            }
            // Padding may be negative, and cubic interpolation overshoots.
            Op::Pad { .. } | Op::Resize(_) => false,
            _ if self.role(id) == Role::Movement => {
                let mut moved = node.inputs.iter().flatten().filter(|v| self.is_float(**v)).peekable();
                moved.peek().is_some() && moved.all(|v| operands[v.0 as usize])
            }
            _ => false,
        }
    }

    fn readers(&self, v: ValueId) -> impl Iterator<Item = NodeId> + '_ {
        self.consumers[v.0 as usize].iter().map(|&(id, _)| id)
    }

    /// The only result of a node, if it has one and it is live.
    pub fn single_output(&self, node: &Node) -> Option<ValueId> {
        let mut outputs = node.outputs.iter().flatten();
        match (outputs.next(), outputs.next()) {
            (Some(&v), None) if self.is_live(v) => Some(v),
            _ => None,
        }
    }

    /// The only node that reads `v`, if there is one and `v` does not leave the graph.
    pub fn only_reader(&self, v: ValueId) -> Option<NodeId> {
        match self.consumers[v.0 as usize].as_slice() {
            [(id, i)] if *i != usize::MAX && !self.leaves[v.0 as usize] => Some(*id),
            _ => None,
        }
    }
}

/// Element-wise and normalising operators that can belong to the layer before them.
pub(super) fn is_function(op: &Op) -> bool {
    match op {
        Op::Unary(u) => !matches!(u, Unary::Not | Unary::IsNan | Unary::IsInf { .. } | Unary::BitwiseNot),
        Op::Binary(b) => {
            matches!(b, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Pow | Binary::PRelu)
        }
        Op::Variadic(_) | Op::Clip | Op::Identity | Op::Where => true,
        Op::BatchNorm { .. } | Op::InstanceNorm { .. } | Op::LayerNorm { .. } => true,
        Op::GroupNorm { .. } | Op::RmsNorm { .. } => true,
        _ => false,
    }
}

/// Whether a node of this operator makes a linear layer non-linear.
pub(super) fn bends(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Clip | Op::Binary(Binary::PRelu | Binary::Pow) | Op::Variadic(_))
}

/// Operators whose result stays on the grid of a quantized operand when it is one-sided or clipped.
pub(super) fn rectifies(op: &Op) -> bool {
    matches!(op, Op::Unary(Unary::Relu) | Op::Clip)
}

/// Operators that normalise over part of a tensor.
pub(super) fn normalizes(op: &Op) -> bool {
    matches!(op, Op::LayerNorm { .. } | Op::InstanceNorm { .. } | Op::GroupNorm { .. } | Op::RmsNorm { .. })
}

/// Operators that move, select, repeat or average elements.
fn moves(op: &Op) -> bool {
    match op {
        Op::Reduce { kind, .. } => matches!(kind, Reduction::Mean | Reduction::Max | Reduction::Min),
        Op::MaxPool { .. } | Op::AveragePool { .. } | Op::GlobalAveragePool | Op::GlobalMaxPool => true,
        Op::Concat { .. } | Op::Split { .. } | Op::Slice | Op::Gather { .. } | Op::Pad { .. } => true,
        Op::Expand | Op::Tile | Op::Identity | Op::Cast { .. } | Op::Resize(_) => true,
        Op::Transpose { .. } | Op::DepthToSpace { .. } | Op::SpaceToDepth { .. } => true,
        Op::GatherNd { .. } | Op::ReverseSequence { .. } | Op::Compress { .. } | Op::CastLike => true,
        _ => op.reshapes(),
    }
}

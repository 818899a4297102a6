//! Which weights are quantized, and with how many bits.

use super::heads::Head;
use super::names::{matches, names_of};
use super::view::{Role, View};
use super::{GridSpec, Layer, LayerId, Override, Placement, Reason, Recipe, Target, rules};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op, ValueId};
use crate::tensor::DType;
use std::collections::{BTreeMap, BTreeSet};

/// Every weight-carrying node, quantized or not, and its place in the network.
pub(super) struct Layers {
    /// All weight-carrying nodes that can be run, in network order.
    pub nodes: Vec<NodeId>,
    /// Nodes that the network input reaches without passing another weight.
    pub first: BTreeSet<NodeId>,
    /// Nodes behind which there is no weight and no product.
    pub last: BTreeSet<NodeId>,
    /// Layers to quantize.
    pub list: Vec<Layer>,
    /// Layers that are a table or hold the same numbers as one, transposed (an embedding and the head tied to it):
    /// they are rounded to nearest, so that both stay the same.
    pub tables: BTreeSet<LayerId>,
    /// The layer of a node.
    pub of: BTreeMap<NodeId, LayerId>,
    /// Nodes that stay float.
    pub float: Vec<(NodeId, Reason)>,
}

impl Layers {
    /// Finds layers in `view` and gives them grids by `recipe`, all but those of `heads`.
    pub fn new(view: &View, heads: &BTreeMap<NodeId, Head>, recipe: &Recipe) -> Result<Self> {
        let graph = view.graph;
        let active = |id: &NodeId| view.active[id.0 as usize];
        let nodes: Vec<NodeId> = graph.node_ids().filter(active).filter(|&id| view.role(id) == Role::Layer).collect();
        let results = |id: NodeId| graph.node(id).outputs.iter().flatten();
        let first: BTreeSet<NodeId> =
            nodes.iter().copied().filter(|&id| view.operands(id).all(|v| !view.after_layer[v.0 as usize])).collect();
        let last: BTreeSet<NodeId> =
            nodes.iter().copied().filter(|&id| results(id).all(|v| !view.before_layer[v.0 as usize])).collect();
        let mut layers = Layers {
            nodes,
            first,
            last,
            list: Vec::new(),
            tables: BTreeSet::new(),
            of: BTreeMap::new(),
            float: Vec::new(),
        };
        for id in graph.node_ids().filter(active) {
            match view.role(id) {
                Role::Product => layers.float.push((id, Reason::Product)),
                Role::Layer => {}
                _ if constant_first(graph, id) => layers.float.push((id, Reason::ConstantFirst)),
                _ if graph.node(id).op.weight_index().is_some() => layers.float.push((id, Reason::NoConstantWeight)),
                _ => {}
            }
        }
        layers.assign(view, heads, recipe)?;
        layers.float.sort_by_key(|&(id, _)| id);
        Ok(layers)
    }

    fn assign(&mut self, view: &View, heads: &BTreeMap<NodeId, Head>, recipe: &Recipe) -> Result<()> {
        let (w, target) = (&recipe.weights, recipe.output.target);
        let mut readers: BTreeMap<ValueId, Vec<NodeId>> = BTreeMap::new();
        for &id in &self.nodes {
            if let Some(weight) = view.weight(id) {
                readers.entry(weight).or_default().push(id);
            }
        }
        let active = view.graph.node_ids().filter(|id| view.active[id.0 as usize]);
        for (id, table) in active.filter_map(|id| Some((id, view.table(id)?))) {
            readers.entry(table).or_default().push(id);
        }
        readers.values_mut().for_each(|nodes| nodes.sort());
        let tables: Vec<ValueId> = readers.keys().copied().filter(|&v| is_table(view, &readers[&v])).collect();
        let tied = |v: ValueId| tables.iter().any(|&t| t == v || transposed(view, t, v));
        let mut order: Vec<(ValueId, Vec<NodeId>)> = readers.into_iter().collect();
        order.sort_by_key(|(_, nodes)| nodes[0]);
        for (weight, nodes) in order {
            if let Some(&head) = nodes.iter().find_map(|id| heads.get(id)) {
                self.float.extend(nodes.iter().map(|&id| (id, Reason::Head(head))));
                continue;
            }
            let edge = nodes.iter().any(|id| self.first.contains(id) || self.last.contains(id));
            let mut bits = match () {
                () if w.bits == 32 => 32,
                () if tied(weight) => w.embedding_bits,
                () if edge => w.first_last_bits,
                () => w.bits,
            };
            let mut asked = None;
            for o in matching(view, recipe, &nodes) {
                bits = o.weight_bits.unwrap_or(bits);
                asked = o.weight_symmetric.or(asked);
            }
            if bits == 32 {
                self.float.extend(nodes.iter().map(|&id| (id, Reason::FloatWeight)));
                continue;
            }
            let Some(tensor) = view.graph.constant(weight) else { continue };
            let shape = tensor.shape().to_vec();
            if shape.contains(&0) {
                return Err(Error::model(format!("weight of shape {shape:?} has no elements"))
                    .at(view.graph.describe(nodes[0])));
            }
            if tensor.dtype() != DType::F32 {
                return Err(Error::unsupported(format!("expected float32 weights, got {:?}", tensor.dtype()))
                    .at(view.graph.describe(nodes[0]))
                    .hint("export the network in single precision"));
            }
            let axes: BTreeSet<Option<usize>> =
                nodes.iter().map(|&id| channel_axis(&view.graph.node(id).op, &shape)).collect();
            let takes = |axis: &usize| {
                // What is tied to a table has the table's steps.
                let table = tied(weight) && !takes_channels(target, &Op::Gather { axis: 0 }, 0);
                !table && nodes.iter().all(|&id| takes_channels(target, &view.graph.node(id).op, *axis))
            };
            // Nodes that disagree on the output channels of a shared weight get one step for the whole tensor.
            let stacked = rules::STACKED_STEPS.applies(target) && rules::stacked(view.graph, &nodes, &shape);
            let axis = match axes.into_iter().collect::<Vec<_>>()[..] {
                [axis] if w.per_channel && !stacked => axis.filter(takes),
                _ => None,
            };
            if tied(weight) {
                self.tables.insert(LayerId(self.list.len() as u32));
            }
            for &id in &nodes {
                self.of.insert(id, LayerId(self.list.len() as u32));
            }
            // A difference of integer and zero point fits int8 with up to 7 bits.
            let kernels = recipe.placement() == Placement::Integer && rules::CHANNEL_ZERO_POINTS.applies(target);
            let kernels = kernels && bits == 8 && !is_table(view, &nodes);
            let symmetric = w.symmetric || rules::WEIGHT_ZERO_POINTS.applies(target) || kernels;
            let symmetric = asked.unwrap_or(symmetric);
            let grid = GridSpec { bits, symmetric, observer: w.observer, percentile: w.percentile };
            let name = view.graph.node_name(nodes[0]).to_string();
            self.list.push(Layer { name, weight, nodes, grid, axis, shape });
        }
        Ok(())
    }
}

/// Whether any of `nodes` looks up rows.
fn is_table(view: &View, nodes: &[NodeId]) -> bool {
    nodes.iter().any(|&id| view.role(id) == Role::Table)
}

/// Whether a weight of `op`, with a step per index of `axis`, can have them in a file for `target`: encodings say that
/// there is a step a channel, not along which axis.
fn takes_channels(target: Target, op: &Op, axis: usize) -> bool {
    !rules::CHANNEL_AXES.applies(target)
        || match op {
            Op::ConvTranspose { .. } => axis == 1,
            Op::Conv { .. } | Op::Gemm { .. } | Op::MatMul => true,
            _ => false,
        }
}

/// Whether the constant `b` is the matrix `a` transposed.
fn transposed(view: &View, a: ValueId, b: ValueId) -> bool {
    let (Some(a), Some(b)) = (view.graph.constant(a), view.graph.constant(b)) else { return false };
    let (&[rows, cols], (Some(x), Some(y))) = (a.shape(), (a.as_f32(), b.as_f32())) else { return false };
    b.shape() == [cols, rows] && (0..rows).all(|i| (0..cols).all(|j| x[i * cols + j] == y[j * rows + i]))
}

/// Whether `exception` names any of `nodes`.
pub(super) fn names_any(view: &View, exception: &Override, nodes: &[NodeId]) -> bool {
    let pattern = exception.layer.as_str();
    !pattern.is_empty() && nodes.iter().any(|&id| names_of(view, id).any(|name| matches(pattern, name)))
}

/// Exceptions of the recipe that apply to any of `nodes`, in order.
pub(super) fn matching<'a>(
    view: &'a View,
    recipe: &'a Recipe,
    nodes: &'a [NodeId],
) -> impl Iterator<Item = &'a Override> {
    recipe.overrides.iter().filter(move |o| names_any(view, o, nodes))
}

/// Axis of a weight of `shape` along which `op` has its output channels.
fn channel_axis(op: &Op, shape: &[usize]) -> Option<usize> {
    let rank = shape.len();
    match op {
        Op::Conv { .. } => Some(0),
        // [in, out / group, ...]: with one output channel a group the groups are the channels.
        Op::ConvTranspose { group, .. } if *group > 1 && shape.get(1) == Some(&1) => Some(0),
        Op::ConvTranspose { .. } => Some(1),
        Op::Gemm { trans_b, .. } => Some(if *trans_b { 0 } else { 1 }),
        Op::MatMul if rank >= 2 => Some(rank - 1),
        // Each row of a table has its own step.
        Op::Gather { .. } => Some(0),
        _ => None,
    }
    .filter(|&a| a < rank)
}
/// Whether node `id` is a product whose first operand alone is constant.
fn constant_first(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let constant = |i: usize| node.input(i).is_some_and(|v| graph.constant(v).is_some());
    matches!(node.op, Op::MatMul) && constant(0) && !constant(1)
}

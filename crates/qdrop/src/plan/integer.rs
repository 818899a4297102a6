//! Quantizers that integer kernels need beside those of the published placement.
//!
//! ONNX Runtime computes a convolution in integers where its operand, its weight and its result are quantized; a matrix
//! product or Gemm where its operands are; a sum, an average or a join where operands and result are. The published
//! placement leaves out the network's input, what a convolution hands to a residual sum or to a gate, averages and joins.
//! Each of those gets a quantizer of 8 bits here, whatever the bits of activations, since more bits cost an integer
//! kernel nothing. Nothing learns these quantizers; their ranges are calibrated.

use super::layers::Layers;
use super::view::{Role, View, rectifies};
use super::{GridSpec, Layer, Placement, Recipe, Site, Target, rules};
use crate::graph::{Binary, Graph, Interpolation, NodeId, Op, Reduction, Unary, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Bits of these quantizers.
const BITS: u32 = 8;

/// Readers of a value (node, operand index); `None` for all of them.
type Readers = Option<BTreeSet<(NodeId, usize)>>;

/// The quantizers that the integer kernels of the target need beside `sites`, in network order, where the recipe has
/// `left_float` the values that it names.
pub(super) fn quantizers(
    view: &View,
    layers: &Layers,
    sites: &[Site],
    left_float: &[ValueId],
    recipe: &Recipe,
) -> Vec<Site> {
    if recipe.placement() != Placement::Integer || recipe.activations.bits == 32 {
        return Vec::new();
    }
    let fine = sites.iter().filter(|s| s.grid.bits > BITS).map(|s| s.value).chain(left_float.iter().copied()).collect();
    let target = recipe.output.target;
    let mut search = Search { view, layers, target, fine, held: BTreeMap::new(), found: BTreeMap::new() };
    for site in sites.iter().filter(|s| s.grid.bits <= BITS) {
        let readers = site.readers.as_ref().map(|r| r.iter().copied().collect());
        search.held.entry(site.value).or_default().push(readers);
    }
    let nodes = view.graph.node_ids().filter(|id| view.active[id.0 as usize]);
    nodes.for_each(|id| search.visit(id));
    let a = &recipe.activations;
    let grid = GridSpec { bits: BITS, symmetric: false, observer: a.observer, percentile: a.percentile };
    let position = |v: ValueId| (view.producers[v.0 as usize].map_or(0, |id| id.0 + 1), v);
    let mut found: Vec<(ValueId, Readers)> = search.found.into_iter().collect();
    found.sort_by_key(|&(v, _)| position(v));
    let site = |(value, readers): (ValueId, Readers)| Site {
        name: view.graph.value(value).name.clone(),
        value,
        readers: readers.map(|r| r.into_iter().collect()),
        grid,
    };
    found.into_iter().map(site).collect()
}

struct Search<'a> {
    view: &'a View<'a>,
    layers: &'a Layers,
    target: Target,
    /// Values with more bits than kernels take, or float by the recipe: they stay so.
    fine: BTreeSet<ValueId>,
    /// Values with quantizers, and who reads them quantized.
    held: BTreeMap<ValueId, Vec<Readers>>,
    found: BTreeMap<ValueId, Readers>,
}

impl Search<'_> {
    /// Adds what node `id` needs; the nodes before it have been visited.
    fn visit(&mut self, id: NodeId) {
        let view = self.view;
        let node = view.graph.node(id);
        let Some(out) = view.single_output(node) else { return };
        let quantized = || view.operands(id).next().is_some() && self.operands_held(id);
        match &node.op {
            Op::Conv { .. } if self.layers.of.contains_key(&id) => {
                self.operand(id, 0);
                let ends_fine = self.fine.contains(&view.function(out).1);
                if !ends_fine && self.operands_held(id) {
                    self.result(out);
                }
            }
            Op::Gemm { .. } if self.layers.of.contains_key(&id) => self.operand(id, 0),
            Op::MatMul if self.layers.of.contains_key(&id) && self.matrix(id) => self.operand(id, 0),
            Op::MatMul if view.role(id) == Role::Product => {
                self.operand(id, 0);
                self.operand(id, 1);
            }
            Op::Binary(Binary::Add) if view.role(id) == Role::Junction && quantized() => self.result(out),
            // Channels with factors would lose by a quantizer with one step in front of theirs.
            Op::Binary(Binary::Mul) if view.divided(out).is_some() => {}
            Op::Unary(Unary::Sigmoid) if self.gates_divided(out) => {}
            Op::Binary(Binary::Mul) if view.role(id) == Role::Junction && self.gates(id) => {
                self.operand(id, 0);
                self.operand(id, 1);
                self.result(out);
            }
            Op::Unary(Unary::Sigmoid | Unary::LeakyRelu { .. }) if quantized() => self.result(out),
            Op::Concat { .. } if quantized() => self.result(out),
            op if mixes(op) && quantized() => self.result(out),
            _ => {}
        }
    }

    /// Whether the weight of a MatMul is one that integer kernels take.
    fn matrix(&self, id: NodeId) -> bool {
        !rules::STACKED_WEIGHTS.applies(self.target)
            || self.view.weight(id).and_then(|w| self.view.graph.constant(w)).is_some_and(|t| t.rank() == 2)
    }

    /// Whether one of the two operands that `id` multiplies is on a grid, and a layer depends on the product.
    fn gates(&self, id: NodeId) -> bool {
        let node = self.view.graph.node(id);
        let held = |i: usize| node.input(i).is_some_and(|v| self.is_held((id, i), v));
        let wanted = node.output(0).is_some_and(|v| self.view.before_layer[v.0 as usize]);
        wanted && (held(0) || held(1))
    }

    /// Whether `value` is read only by a product of activations whose channels have factors.
    fn gates_divided(&self, value: ValueId) -> bool {
        let view = self.view;
        let product = view.only_reader(value).map(|id| view.graph.node(id));
        let product = product.filter(|n| n.op == Op::Binary(Binary::Mul));
        product.and_then(|n| view.single_output(n)).is_some_and(|v| view.divided(v).is_some())
    }

    /// Whether every operand of `id` that depends on the input is on a grid.
    fn operands_held(&self, id: NodeId) -> bool {
        let inputs = self.view.graph.node(id).inputs.iter().enumerate();
        let mut live = inputs.filter_map(|(i, v)| Some((i, v.filter(|&v| self.view.is_live(v))?)));
        live.all(|(i, v)| !self.view.is_float(v) || self.is_held((id, i), v))
    }

    /// Whether `reader` finds `value` on one grid: quantized for it, or moved from where it is.
    fn is_held(&self, mut reader: (NodeId, usize), mut value: ValueId) -> bool {
        loop {
            let quantizers = self.held.get(&value).into_iter().flatten().chain(self.found.get(&value));
            if quantizers.into_iter().any(|r| r.as_ref().is_none_or(|r| r.contains(&reader))) {
                return true;
            }
            let Some(id) = self.view.producers[value.0 as usize] else { return false };
            let node = self.view.graph.node(id);
            let moves = self.view.role(id) == Role::Movement && !mixes(&node.op);
            let moves = moves && !matches!(node.op, Op::Concat { .. });
            let keeps = moves || self.view.scales(id) || matches!(node.op, Op::Unary(Unary::Relu));
            let mut operands = node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?)));
            match operands.find(|&(_, v)| self.view.is_live(v)) {
                Some((i, moved)) if keeps => (reader, value) = ((id, i), moved),
                _ => return false,
            }
        }
    }

    /// Quantizes operand `index` of `id` where it is on no grid.
    fn operand(&mut self, id: NodeId, index: usize) {
        let Some(value) = self.view.graph.node(id).input(index) else { return };
        if !self.view.is_float(value) || self.fine.contains(&value) || self.is_held((id, index), value) {
            return;
        }
        // Others that read it, and the graph's outputs, keep the float.
        let readers = self.found.entry(value).or_insert_with(|| Some(BTreeSet::new()));
        readers.iter_mut().for_each(|r| {
            r.insert((id, index));
        });
    }

    /// Quantizes what a node makes, after the rectifier that follows it, where a layer depends on it.
    fn result(&mut self, out: ValueId) {
        let view = self.view;
        let mut value = out;
        if let Some(id) = view.only_reader(out).filter(|&id| rectifies(&view.graph.node(id).op)) {
            value = view.single_output(view.graph.node(id)).unwrap_or(out);
        }
        if view.divided(value).is_some() {
            return;
        }
        let known = |v: &ValueId| self.held.contains_key(v) || self.found.contains_key(v) || self.fine.contains(v);
        let known = [out, value].iter().any(known);
        if known || view.leaves[value.0 as usize] || !view.before_layer[value.0 as usize] || !view.is_float(value) {
            return;
        }
        self.found.insert(value, None);
    }
}

/// Whether a sum of two products with 8-bit operands can leave 16 bits: 255·(|w0| + |w1|) beyond 32767, for the two largest
/// integers of an output channel. Kernels of x86 processors without VNNI add pairs of products so, and clip them there
/// (ONNX Runtime's documentation calls the remedy `reduce_range`).
pub(super) fn may_saturate(graph: &Graph, layer: &Layer) -> bool {
    let Some(values) = graph.constant(layer.weight).and_then(|t| t.to_f32().ok()) else { return false };
    let (channels, inner) = match layer.axis {
        Some(axis) => (layer.shape[axis], layer.shape[axis + 1..].iter().product::<usize>().max(1)),
        None => (1, values.len().max(1)),
    };
    // Per channel: the least and the largest value, and the two largest distances from 0.
    let mut seen = vec![([0f32; 2], [0f32; 2]); channels.max(1)];
    for (i, &v) in values.iter().enumerate() {
        let ([low, high], [first, second]) = &mut seen[i / inner % channels.max(1)];
        (*low, *high) = (low.min(v), high.max(v));
        if v.abs() > *first {
            (*first, *second) = (v.abs(), *first);
        } else {
            *second = second.max(v.abs());
        }
    }
    let levels = f64::from(2f32.powi(layer.grid.bits as i32));
    seen.iter().any(|&([low, high], [first, second])| {
        let width = if layer.grid.symmetric { 2.0 * first } else { high - low };
        let step = f64::from(width) / (levels - f64::from(u8::from(!layer.grid.symmetric)));
        step > 0.0 && 255.0 * (f64::from(first) + f64::from(second)) / step > f64::from(rules::PAIR_SUM)
    })
}

/// Whether elements of the result are averages of an operand's, and so on no grid.
fn mixes(op: &Op) -> bool {
    match op {
        Op::AveragePool { .. } | Op::GlobalAveragePool => true,
        Op::Reduce { kind, .. } => *kind == Reduction::Mean,
        Op::Resize(resize) => !matches!(resize.mode, Interpolation::Nearest(_)),
        _ => false,
    }
}

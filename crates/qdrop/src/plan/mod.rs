//! Planning: from a [`Recipe`], which may leave options open, and a graph to a [`Plan`], which decides everything. A
//! network or recipe that cannot be quantized is refused here, before any data is read.

mod accepts;
mod atoms;
mod attention;
mod budget;
mod canvas;
mod check;
mod cost;
mod effective;
mod factors;
mod heads;
mod held;
mod input;
mod integer;
mod knapsack;
mod layers;
mod learned;
mod mixed;
mod names;
mod output;
mod recipe;
mod residual;
pub(crate) mod rules;
mod sensitivity;
mod sites;
mod size;
mod stripe;
mod sweep;
mod target;
mod task;
mod text;
mod units;
mod view;

pub use budget::{BitopsTarget, SizeTarget};
pub use canvas::{Canvas, PadPlace};
pub use cost::{Cost, cost};
pub use effective::Effective;
pub use factors::{Before, Carrier, FactorSite, Floor, Member, Pair, Reader, factor_sites, floors};
pub use input::{Color, Input, Layout};
pub(crate) use learned::{learned_biases, learned_factors, learned_steps};
pub(crate) use mixed::leave_float;
pub use mixed::{Chosen, Measure, choose, measure};
pub use names::matches;
pub use output::{EncodingsVersion, Format, Output};
pub use recipe::{
    Activations, Cache, Granularity, Method, MethodName, Mixed, Observer, Override, Part, Placement, Preset, Recipe,
    Scope, Units, Weights,
};
pub use rules::{Hit, Rule};
pub use sensitivity::{BitError, Curve, Sensitivity, Share};
pub use size::ByteSize;
pub use stripe::Stripe;
pub use sweep::{Case, Sweep, SweepRun};
pub use target::Target;
pub use task::{Answer, Task};

pub use crate::quant::LayerId;

use crate::engine::facts::Facts;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op, ValueId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use view::{Role, View};

/// All decisions about one graph. Node and value ids are those of the simplified graph from which it was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Weights to quantize, in network order.
    pub layers: Vec<Layer>,
    /// Activation quantizers, in network order.
    pub sites: Vec<Site>,
    /// Additional 8-bit quantizers that the target's integer kernels need, in network order. They belong to no unit and
    /// are not learned.
    pub kernel_sites: Vec<Site>,
    /// Units in network order; every node that depends on an input and can be run is in exactly one unit.
    pub units: Vec<Unit>,
    /// Nodes that stay float although they have a weight or are a product, and all nodes that cannot be run.
    pub float: Vec<LeftFloat>,
}

/// A node that stays float.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftFloat {
    /// Its name, or that of its first result.
    pub node: String,
    /// Why.
    pub reason: String,
    /// Whether that is another node of the list, which it depends on.
    pub behind: bool,
}

/// Index into [`Plan::sites`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SiteId(pub u32);

/// Index into [`Plan::kernel_sites`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelSiteId(pub u32);

/// The grid to be fitted to a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GridSpec {
    /// Bits: 2 to 8, or 16 for activations.
    pub bits: u32,
    /// Whether the zero point is in the middle of the grid (2^(bits-1)); the integers are 0 to 2^bits-1 in any case.
    pub symmetric: bool,
    /// How the range is found.
    pub observer: Observer,
    /// Quantile for the percentile observer, in per cent.
    pub percentile: f64,
}

/// A weight to be quantized: that of a layer, or an embedding table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// The layer's name: that of its first node.
    pub name: String,
    /// The constant.
    pub weight: ValueId,
    /// Nodes that read it; more than one if the weight is shared.
    pub nodes: Vec<NodeId>,
    /// The grid to be fitted.
    pub grid: GridSpec,
    /// Axis of the output channels for a per-channel grid; `None` for one step (scale) for the whole weight.
    pub axis: Option<usize>,
    /// Shape of the weight.
    pub shape: Vec<usize>,
}

/// An activation site: a value with an activation quantizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Name of the quantized value.
    pub name: String,
    /// The quantized value.
    pub value: ValueId,
    /// The readers (node, operand index) that see the quantized value; `None` if all do, graph outputs included.
    pub readers: Option<Vec<(NodeId, usize)>>,
    /// The grid to be fitted.
    pub grid: GridSpec,
}

/// A reconstruction unit: a part of the network that is learned at once, or only run if it has no layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Displayed name: the common prefix of its nodes' names, or the name of its first node.
    pub name: String,
    /// Its nodes in topological order.
    pub nodes: Vec<NodeId>,
    /// Values that it reads from outside (constants excluded).
    pub inputs: Vec<ValueId>,
    /// Values that it computes and that are read outside or are outputs of the graph.
    pub outputs: Vec<ValueId>,
    /// Layers whose rounding is learned here (a shared weight belongs to its first unit).
    pub layers: Vec<LayerId>,
    /// Layers that are read here but whose rounding is known: embedding tables, and layers that belong to an earlier
    /// unit.
    pub fixed: Vec<LayerId>,
    /// Sites whose step is learned here: those on values computed here, and those that only some readers see if the
    /// first of these is here.
    pub sites: Vec<SiteId>,
    /// Number of elements of weights and biases.
    pub parameters: u64,
    /// Multiply-adds per sample.
    pub multiply_adds: u64,
    /// Bytes that a calibration sample takes while this unit is learned (input twice, output once).
    pub cache_bytes: u64,
}

/// Why a node stays float.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Opaque,
    OpenSize,
    /// Behind this node, which is one of the above.
    Behind(NodeId),
    Product,
    NoConstantWeight,
    ConstantFirst,
    FloatWeight,
    Head(heads::Head),
}

impl Layer {
    /// Whether 8-bit kernels of x86 processors without VNNI may clip sums of two products of this layer, whose weight
    /// is in `graph`; `None` if files for `target` do not run in such kernels. `docs/deploy.md` says what to do about it.
    pub fn may_saturate(&self, graph: &Graph, target: Target) -> Option<bool> {
        rules::PAIR_SUMS.applies(target).then(|| integer::may_saturate(graph, self))
    }
}

impl SiteId {
    /// Where its entry is in a list with one entry a site.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Plan {
    /// A layer.
    pub fn layer(&self, id: LayerId) -> &Layer {
        &self.layers[id.index()]
    }

    /// A site.
    pub fn site(&self, id: SiteId) -> &Site {
        &self.sites[id.index()]
    }

    /// A quantizer that integer kernels need.
    pub fn kernel_site(&self, id: KernelSiteId) -> &Site {
        &self.kernel_sites[id.0 as usize]
    }

    /// All layers, in network order.
    pub fn layer_ids(&self) -> impl DoubleEndedIterator<Item = LayerId> + use<> {
        (0..self.layers.len() as u32).map(LayerId)
    }

    /// All sites, in network order.
    pub fn site_ids(&self) -> impl DoubleEndedIterator<Item = SiteId> + use<> {
        (0..self.sites.len() as u32).map(SiteId)
    }

    /// A note about layers of `graph` that stay float because of what they depend on, if there are any.
    pub fn note(&self, graph: &Graph) -> Option<String> {
        let planned = |id: NodeId| self.units.iter().any(|u| u.nodes.contains(&id));
        let behind = graph.node_ids().filter(|&id| is_layer(graph, id) && !planned(id)).count();
        let stops = [Reason::Opaque, Reason::OpenSize].map(|r| r.words(graph));
        let first = self.float.iter().find(|f| stops.contains(&f.reason) && behind > 0)?;
        let node = graph.node_ids().find(|&id| graph.node_name(id) == first.node)?;
        let stay =
            if behind == 1 { "layer stays float because it depends" } else { "layers stay float because they depend" };
        let what = match first.reason == stops[0] {
            true => "on operators that cannot be run here, the first is",
            false => "on operators whose results have sizes that depend on the data, the first is",
        };
        Some(format!("{behind} {stay} {what} {}", graph.describe(node)))
    }
}

/// Whether node `id` has a constant weight of float type, and another operand.
pub fn is_layer(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let constant = |i: usize| node.input(i).and_then(|v| graph.constant(v)).is_some_and(|t| t.dtype().is_float());
    node.op.weight_index().is_some_and(constant) && !constant(0)
}

impl Reason {
    fn words(self, graph: &Graph) -> String {
        let words = match self {
            Reason::Behind(stop) => return format!("it depends on `{}`", graph.node_name(stop)),
            Reason::Opaque => "the operator cannot be run here and is carried over unchanged",
            Reason::OpenSize => "the size of its result depends on the data",
            Reason::Product => "a product of two activations, without a weight",
            Reason::NoConstantWeight => "its weight is not a constant float tensor",
            Reason::ConstantFirst => "a constant times an activation: a weight is the second operand",
            Reason::FloatWeight => "the recipe sets 32 bits",
            Reason::Head(heads::Head::Named) => "head: the recipe names it",
            Reason::Head(heads::Head::Shared) => "head: feature maps of several sizes share its weight",
            Reason::Head(heads::Head::Twin) => "head: the same layers follow at other sizes of feature maps",
            Reason::Head(heads::Head::End) => "head: only the boxes or only the scores depend on it",
            Reason::Head(heads::Head::Behind) => "head: it lies behind other layers of a head",
        };
        words.to_string()
    }
}

/// Decides everything about the simplified `graph`, given the facts of one sample (batch 1) and the recipe.
pub fn plan(graph: &Graph, facts: &Facts, recipe: &Recipe) -> Result<Plan> {
    recipe.validate()?;
    decide(graph, facts, recipe)
}

/// Like [`plan`], but without the recipe's overrides and targets for size and bit operations.
pub fn plan_without_exceptions(graph: &Graph, facts: &Facts, recipe: &Recipe) -> Result<Plan> {
    let mixed = Mixed { size: None, bitops: None, ..recipe.mixed.clone() };
    decide(graph, facts, &Recipe { overrides: Vec::new(), mixed, ..recipe.clone() })
}

/// Like [`plan`], but bits need not be ones that the target accepts.
fn decide(graph: &Graph, facts: &Facts, recipe: &Recipe) -> Result<Plan> {
    let (mut view, carried) = View::new(graph, facts);
    let heads = heads::heads(&view, &recipe.scope)?;
    let layers = layers::Layers::new(&view, &heads, recipe)?;
    view.leave_out(heads.into_keys().collect());
    if carried.iter().any(|&(id, _)| view.role(id) == Role::Layer) {
        let training = |op: &Op| match op {
            Op::Opaque { domain, kind } if domain.is_empty() || domain == "ai.onnx" => {
                kind == "BatchNormalization" || kind == "Dropout"
            }
            _ => false,
        };
        if let Some(&(id, _)) = carried.iter().find(|c| training(&graph.node(c.0).op)) {
            return Err(Error::unsupported("the operator is in training mode, and layers to quantize depend on it")
                .at(graph.describe(id))
                .hint("export the network in evaluation mode: with PyTorch, call `model.eval()` before the export"));
        }
        if let Some(&(id, _)) = carried.iter().find(|c| !matches!(c.1, Reason::Behind(_)) && layers.nodes.is_empty()) {
            return Err(Error::unsupported("this operator cannot be run, and every layer to quantize depends on it")
                .at(graph.describe(id))
                .hint("replace it in the model, or cut the model after it"));
        }
    }
    if layers.nodes.is_empty() {
        return Err(Error::unsupported(
            "the network has no Conv, ConvTranspose, Gemm or MatMul with a constant float weight",
        )
        .hint("a network that is already quantized cannot be quantized again"));
    }
    check::overrides(&view, &layers, recipe)?;
    let (sites, left_float) = sites::sites(&view, &layers, recipe)?;
    let kernel_sites = integer::quantizers(&view, &layers, &sites, &left_float, recipe);
    let pieces = units::units(&view, &layers, recipe)?;
    let mut float: Vec<(NodeId, Reason)> = layers.float.clone();
    float.extend(carried);
    float.sort_by_key(|&(id, _)| id);
    let left = |(id, why): (NodeId, Reason)| LeftFloat {
        node: graph.node_name(id).to_string(),
        reason: why.words(graph),
        behind: matches!(why, Reason::Behind(_)),
    };
    let float = float.into_iter().map(left).collect();
    let units = assemble(&view, &layers, &sites, pieces);
    if recipe.mixed.wanted() {
        mixed::check(graph, facts, recipe)?;
    }
    Ok(Plan { layers: layers.list, sites, kernel_sites, units, float })
}

/// Fills units with what they read, write and hold.
fn assemble(view: &View, layers: &layers::Layers, sites: &[Site], pieces: Vec<(String, Vec<NodeId>)>) -> Vec<Unit> {
    let graph = view.graph;
    let mut unit_of: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (i, (_, nodes)) in pieces.iter().enumerate() {
        unit_of.extend(nodes.iter().map(|&id| (id, i)));
    }
    let mut known_layers = BTreeSet::new();
    let mut units = Vec::new();
    for (name, nodes) in pieces {
        let inside: BTreeSet<ValueId> =
            nodes.iter().flat_map(|&id| graph.node(id).outputs.iter().flatten().copied()).collect();
        let mine: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let mut inputs: Vec<ValueId> = Vec::new();
        let mut outputs = Vec::new();
        let (mut unit_layers, mut fixed) = (Vec::new(), BTreeSet::new());
        for &id in &nodes {
            for v in view.operands(id) {
                if !inside.contains(&v) && !inputs.contains(&v) {
                    inputs.push(v);
                }
            }
            for &v in graph.node(id).outputs.iter().flatten().filter(|&&v| view.is_live(v)) {
                let outside = view.consumers[v.0 as usize].iter().any(|(n, _)| !mine.contains(n));
                if outside || view.leaves[v.0 as usize] {
                    outputs.push(v);
                }
            }
            let Some(&layer) = layers.of.get(&id) else { continue };
            if layers.tables.contains(&layer) {
                known_layers.insert(layer);
            }
            if known_layers.insert(layer) {
                unit_layers.push(layer);
            } else if !unit_layers.contains(&layer) {
                fixed.insert(layer);
            }
        }
        let bytes = |v: &ValueId| view.facts.get(*v).map_or(0, |f| f.shape.iter().product::<usize>() as u64 * 4);
        let cache_bytes = 2 * inputs.iter().map(bytes).sum::<u64>() + outputs.iter().map(bytes).sum::<u64>();
        let multiply_adds = nodes.iter().map(|&id| multiply_adds(view, id)).sum();
        let parameters = parameters(view, &nodes);
        let layers = unit_layers;
        units.push(Unit {
            name,
            nodes,
            inputs,
            outputs,
            layers,
            fixed: fixed.into_iter().collect(),
            sites: Vec::new(),
            parameters,
            multiply_adds,
            cache_bytes,
        });
    }
    for (id, site) in (0..).map(SiteId).zip(sites) {
        let first_reader = || {
            let listed = site.readers.as_ref().unwrap_or(&view.consumers[site.value.0 as usize]);
            listed.iter().filter_map(|(id, _)| unit_of.get(id)).min().copied()
        };
        let producer = view.producers[site.value.0 as usize].and_then(|id| unit_of.get(&id)).copied();
        let unit = if site.readers.is_some() { first_reader() } else { producer.or_else(first_reader) };
        if let Some(unit) = unit {
            units[unit].sites.push(id);
        }
    }
    units
}

/// Elements of the float constants that `nodes` read, each constant once, single numbers excluded.
fn parameters(view: &View, nodes: &[NodeId]) -> u64 {
    let read: BTreeSet<ValueId> =
        nodes.iter().flat_map(|&id| view.graph.node(id).inputs.iter().flatten().copied()).collect();
    let constants = read.into_iter().filter_map(|v| view.graph.constant(v));
    constants.filter(|t| t.dtype().is_float() && t.rank() > 0).map(|t| t.len() as u64).sum()
}

/// Multiply-adds of one node for one sample; 0 for nodes without weight or product, and where shapes are unknown.
fn multiply_adds(view: &View, id: NodeId) -> u64 {
    let node = view.graph.node(id);
    let shape = |v: Option<ValueId>| v.and_then(|v| view.facts.get(v)).map(|f| f.shape.as_slice());
    let (Some(x), Some(w), Some(y)) = (shape(node.input(0)), shape(node.input(1)), shape(node.output(0))) else {
        return 0;
    };
    let product = |s: &[usize]| s.iter().map(|&d| d as u64).product::<u64>();
    match &node.op {
        Op::Conv { .. } => product(y) * product(w.get(1..).unwrap_or(&[])),
        Op::ConvTranspose { .. } => product(x) * product(w.get(1..).unwrap_or(&[])),
        Op::Gemm { trans_a, .. } => product(y) * x.get(if *trans_a { 0 } else { 1 }).map_or(0, |&k| k as u64),
        Op::MatMul => product(y) * x.last().map_or(0, |&k| k as u64),
        _ => 0,
    }
}

#[cfg(test)]
mod attention_tests;
#[cfg(test)]
mod factors_tests;
#[cfg(test)]
mod heads_tests;
#[cfg(test)]
mod mixed_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod sequence_tests;
#[cfg(test)]
mod tests;

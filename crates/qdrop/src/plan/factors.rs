//! Where an activation may have a factor per channel.
//!
//! One step serves all channels of a quantized activation, although some may be far wider than others. If every layer that
//! reads it is linear in each channel, channel c may be divided by a factor f_c before it is quantized while the
//! weights that meet this channel are multiplied by f_c: the network computes the same, and each channel has a step
//! of its own, s·f_c. What divides is free in the written file:
//!
//! - the layer that makes the activation, whose output channel c gets weights and bias divided by f_c (cross-layer
//!   equalization: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
//!   section 4.1), through a rectifier r with r(x·f) = r(x)·f;
//! - all layers that feed residual sums, where these join activations (`residual`);
//! - the layers in front of attention's products, where another layer multiplies again (`attention`);
//! - else a Mul in front of the quantizer.
//!
//! Where a function that is computed in float stands between a layer and the activation (SiLU), integer kernels want a
//! quantizer in front of it too. Its channels may have factors at no cost at all: the layer divides, and a Mul behind
//! the quantizer multiplies again.

use super::held::Held;
use super::view::{Role, View, normalizes};
use super::{KernelSiteId, LayerId, Plan, SiteId, Target, rules};
use crate::engine::facts::Facts;
use crate::engine::program::around;
use crate::graph::{Binary, Coordinates, Graph, NodeId, Op, PadMode, Reduction, Unary, ValueId};
use crate::tensor::{DType, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// An activation that may have a factor per channel, or several that share their factors since sums or a product join
/// them.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorSite {
    /// The activations, in the order of the plan's sites; at least one.
    pub members: Vec<Member>,
    /// How many channels each has.
    pub channels: usize,
    /// What divides them.
    pub carrier: Carrier,
    /// The product of activations that joins the two members, if one does.
    pub pair: Option<Pair>,
    /// Operands that read the activation divided, where its quantizer divides it: all that lead to layers.
    pub operands: Vec<(NodeId, usize)>,
    /// What is quantized in front of the function that makes the activation.
    pub before: Option<Before>,
    /// Values of the graph that hold the channels divided then, the activations among them where layers divide.
    pub divided: BTreeSet<ValueId>,
}

/// A quantized activation whose channels have factors.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its quantizer.
    pub site: SiteId,
    /// The activation.
    pub value: ValueId,
    /// The axes of the channels, for one sample with its batch axis; the index along the last of them runs fastest.
    pub axes: Vec<usize>,
    /// Layers that read it, whose weights are multiplied.
    pub readers: Vec<Reader>,
}

/// How a product of two activations joins the members of a site.
#[derive(Debug, Clone, PartialEq)]
pub enum Pair {
    /// It multiplies both and sums over the channels (queries and keys): the first is divided, the second multiplied.
    Sums {
        /// Weights and biases of the second's layer, each with the axis of the output channels.
        multiplied: Vec<(ValueId, usize)>,
    },
    /// It makes the second of the first, channel by channel (context of values).
    Keeps,
}

impl FactorSite {
    /// All layers whose weights are multiplied along their input channels.
    pub fn readers(&self) -> impl Iterator<Item = &Reader> {
        self.members.iter().flat_map(|m| &m.readers)
    }

    /// Weights and biases that are divided or multiplied along their output channels.
    pub fn constants(&self) -> impl Iterator<Item = ValueId> {
        let own = match &self.carrier {
            Carrier::Layer { constants, .. } => &constants[..],
            Carrier::Quantizer => &[],
        };
        let multiplied = match &self.pair {
            Some(Pair::Sums { multiplied }) => &multiplied[..],
            _ => &[],
        };
        own.iter().chain(multiplied).chain(self.before.iter().flat_map(|b| &b.constants)).map(|c| c.0)
    }
}

/// A quantized result of a layer whose channels may have factors until a function reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    /// Its quantizer.
    pub kernel_site: KernelSiteId,
    /// The result.
    pub value: ValueId,
    /// Weight and bias of its layer, each with the axis of the output channels.
    pub constants: Vec<(ValueId, usize)>,
    /// All that read it.
    pub operands: Vec<(NodeId, usize)>,
    /// Values that hold its channels divided then.
    pub divided: BTreeSet<ValueId>,
}

/// What divides the channels of an activation by their factors.
#[derive(Debug, Clone, PartialEq)]
pub enum Carrier {
    /// The layer that makes it, or the layers whose results sums join.
    Layer {
        /// Weights and biases, each with the axis of the output channels.
        constants: Vec<(ValueId, usize)>,
        /// Where the rectifier behind the layer cuts off.
        cap: Option<f32>,
    },
    /// The quantizer.
    Quantizer,
}

/// A layer that reads an activation with factors.
#[derive(Debug, Clone, PartialEq)]
pub struct Reader {
    /// Its weight.
    pub weight: ValueId,
    /// Its entry in the plan, unless it stays float.
    pub layer: Option<LayerId>,
    /// The axis of the weight along which it meets input channels, those of one group after the other's.
    pub axis: usize,
    /// Groups of output channels, along the weight's first axis, that meet input channels of their own.
    pub groups: usize,
    /// Per input channel the activation's channel that it holds, if any.
    pub channels: Vec<Option<usize>>,
}

impl Reader {
    /// For each element of the weight, of `shape`, its input channel.
    pub fn input_channels(&self, shape: &[usize]) -> impl Iterator<Item = usize> + use<> {
        let [_, along, inner] = around(shape, self.axis);
        let of_group = shape.iter().product::<usize>() / self.groups.max(1);
        let grouped = self.groups > 1;
        (0..shape.iter().product()).map(move |i: usize| {
            i / inner.max(1) % along.max(1) + if grouped { i / of_group.max(1) * along } else { 0 }
        })
    }
}

/// Every activation of `plan` that may have factors, in the order of its sites, and for the others the reason why not.
pub fn factor_sites(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    target: Target,
) -> Vec<Result<FactorSite, &'static str>> {
    let (view, _) = View::new(graph, facts);
    let layers = plan.layer_ids().map(|id| (plan.layer(id).weight, id)).collect();
    let kernel_sites = (0..plan.kernel_sites.len() as u32).map(KernelSiteId);
    let whole = kernel_sites.filter(|&id| plan.kernel_site(id).readers.is_none());
    let ends = whole.map(|id| (view.function(plan.kernel_site(id).value).1, id));
    // The first, should several functions end in one value.
    let kernel_sites = ends.filter(|&(end, id)| end != plan.kernel_site(id).value).rev().collect();
    let search = Search { view: &view, plan, target, layers, kernel_sites };
    let mut joined = BTreeSet::new();
    let mut site = |id: SiteId| {
        let reason = match search.site(id) {
            Err(reason) => reason,
            found => return found,
        };
        if joined.contains(&id) {
            return Err("it shares the factors of an activation that sums or a product join it with");
        }
        let found = search.attention(id).or_else(|| search.residual(id)).ok_or(reason)?;
        joined.extend(found.members.iter().map(|m| m.site));
        Ok(found)
    };
    plan.site_ids().map(&mut site).collect()
}

/// What the values of an activation need not be told apart below, since the one function that reads it hands on next to
/// nothing from there.
#[derive(Debug, Clone, PartialEq)]
pub struct Floor {
    /// One for all values, or one per channel.
    by: Vec<f32>,
    /// The axis of the channels.
    axis: usize,
}

impl Floor {
    /// Moves those of `values`, one sample of `shape`, that lie below it up to it, but for infinity.
    pub fn raise(&self, shape: &[usize], values: &mut [f32]) {
        let [_, _, inner] = around(shape, self.axis);
        for (i, v) in values.iter_mut().enumerate() {
            let floor = self.by[i / inner.max(1) % self.by.len()];
            *v = if *v < floor && v.is_finite() { floor } else { *v };
        }
    }
}

/// The floor of every value of `graph`, with `facts` of one sample, that has one.
pub fn floors(graph: &Graph, facts: &Facts) -> Vec<Option<Floor>> {
    let consumers = graph.consumers();
    let hidden = |v: ValueId| !graph.outputs.contains(&v);
    let function = |v: ValueId| match consumers[v.0 as usize][..] {
        // x·sigmoid(x) is within 0.003 of 0 there, x·Φ(x) within 0.000002, HardSwish is 0.
        [(id, 0)] => match graph.node(id).op {
            Op::Unary(Unary::Swish { alpha: 1.0 }) => Some(-8.0),
            Op::Unary(Unary::Gelu { .. }) => Some(-5.0),
            Op::Unary(Unary::HardSwish) => Some(-3.0),
            _ => None,
        },
        [(a, _), (b, _)] => {
            let gate = |gate: NodeId, product: NodeId| {
                let out = graph.node(gate).output(0)?;
                let sigmoid = graph.node(gate).op == Op::Unary(Unary::Sigmoid);
                let alone = matches!(consumers[out.0 as usize][..], [(id, _)] if id == product);
                let product = graph.node(product).op == Op::Binary(Binary::Mul);
                (sigmoid && alone && product && hidden(out)).then_some(-8.0)
            };
            gate(a, b).or_else(|| gate(b, a))
        }
        _ => None,
    };
    let floor = |v: ValueId| {
        if let Some(floor) = function(v).filter(|_| hidden(v)) {
            return Some(Floor { by: vec![floor], axis: 0 });
        }
        // Channels that are multiplied by their factors before the function.
        let [(id, 0)] = consumers[v.0 as usize][..] else { return None };
        let node = graph.node(id);
        let (result, factors) = (node.output(0)?, graph.constant(node.input(1)?)?);
        let floor = function(result).filter(|_| hidden(v) && hidden(result) && node.op == Op::Binary(Binary::Mul))?;
        let axis = factors.shape().iter().position(|&d| d == factors.len())?;
        let shape = &facts.get(v)?.shape;
        if factors.is_empty() || shape.len() != factors.rank() || shape[axis] != factors.len() {
            return None;
        }
        let by: Vec<f32> = factors.as_f32()?.iter().map(|f| floor / f).collect();
        by.iter().all(|f| f.is_finite() && *f < 0.0).then_some(Floor { by, axis })
    };
    graph.value_ids().map(floor).collect()
}

/// Bits that the weights of layers have at least which read one of several activations with shared factors.
const LEAST_WEIGHT_BITS: u32 = 8;
/// Most nodes that are followed from an activation to the layers that read it.
pub(super) const MOST_NODES: usize = 1000;

pub(super) struct Search<'a> {
    pub view: &'a View<'a>,
    pub plan: &'a Plan,
    target: Target,
    /// The layer of a weight.
    layers: BTreeMap<ValueId, LayerId>,
    /// The kernel site in front of the function that makes a value.
    kernel_sites: BTreeMap<ValueId, KernelSiteId>,
}

/// What becomes of an activation's channels along one way.
pub(super) enum End {
    /// Linear layers, and the values that hold the channels on the way to them.
    Layers(Vec<Reader>, Vec<ValueId>),
    /// Something that may as well read the activation as it is: a sum, a normalisation.
    Other,
    /// Something that does not take factors, but reads what is quantized.
    Stop(&'static str),
}

impl Search<'_> {
    fn site(&self, id: SiteId) -> Result<FactorSite, &'static str> {
        let view = self.view;
        let site = self.plan.site(id);
        let value = site.value;
        let fact = view.facts.get(value).ok_or("its shape is unknown")?;
        let axis = fact.channel_axis;
        let &channels = fact.shape.get(axis).ok_or("it has no channels")?;
        if view.leaves[value.0 as usize] {
            return Err("it is an output of the network");
        }
        if channels < 2 {
            return Err("it has one channel");
        }
        let own = Held::along(axis, channels);
        let (mut operands, mut readers, mut others) = (Vec::new(), Vec::new(), false);
        let mut divided = BTreeSet::new();
        for &(node, index) in &view.consumers[value.0 as usize] {
            let seen = site.readers.as_ref().is_none_or(|r| r.contains(&(node, index)));
            match self.follow(node, index, &own) {
                End::Layers(found, on_the_way) => {
                    operands.push((node, index));
                    readers.extend(found);
                    divided.extend(on_the_way);
                }
                End::Other => others = true,
                End::Stop(reason) if seen => return Err(reason),
                End::Stop(_) => others = true,
            }
        }
        if readers.is_empty() {
            return Err("no layer reads it");
        }
        let mut weights = BTreeSet::new();
        if !readers.iter().all(|r| weights.insert(r.weight)) {
            return Err("a layer reads it twice");
        }
        let (carrier, by_layer) = self.carrier(value, axis)?;
        divided.extend(by_layer);
        match &carrier {
            Carrier::Layer { .. } if others => return Err("not only layers read it"),
            Carrier::Quantizer if rules::CHANNEL_FACTORS.applies(self.target) => {
                return Err("what makes it cannot carry factors");
            }
            _ => {}
        }
        let before = self.before(value, axis).filter(|_| carrier == Carrier::Quantizer);
        let members = vec![Member { site: id, value, axes: vec![axis], readers }];
        Ok(FactorSite { members, channels, carrier, pair: None, operands, before, divided })
    }

    /// What is quantized in front of the function that makes `value`.
    fn before(&self, value: ValueId, axis: usize) -> Option<Before> {
        let view = self.view;
        let shape = |v: ValueId| view.facts.get(v).map(|f| &f.shape);
        let &kernel_site = self.kernel_sites.get(&value)?;
        let before = self.plan.kernel_site(kernel_site).value;
        if shape(before) != shape(value) {
            return None;
        }
        let operands = view.consumers[before.0 as usize].clone();
        match self.carrier(before, axis).ok()? {
            (Carrier::Layer { constants, cap: None }, divided) => {
                Some(Before { kernel_site, value: before, constants, operands, divided })
            }
            _ => None,
        }
    }

    /// What operand `index` of node `id` comes to, which holds the channels of the activation as `held` says.
    pub(super) fn follow(&self, id: NodeId, index: usize, held: &Held) -> End {
        let view = self.view;
        let (mut found, mut on_the_way) = (Vec::new(), Vec::new());
        let mut open = vec![(id, index, held.clone())];
        for step in 0.. {
            let Some((id, index, held)) = open.pop() else { break };
            let node = view.graph.node(id);
            if index == usize::MAX || !view.active[id.0 as usize] {
                return End::Stop("a part of the network that cannot be run here reads it");
            }
            if step == MOST_NODES {
                return End::Stop("too many nodes lie between it and layers");
            }
            match view.role(id) {
                Role::Layer => match self.reader(id, index, &held) {
                    Some(reader) => found.push(reader),
                    None => return End::Stop("a layer that reads it does not meet its channels one by one"),
                },
                Role::Product => return End::Stop("a product of activations reads it"),
                role if role == Role::Junction || normalizes(&node.op) => {
                    return if step == 0 { End::Other } else { End::Stop("a sum or normalisation reads it moved") };
                }
                _ => {
                    let Some(moved) = self.moved(id, index, &held) else {
                        return End::Stop("an operator that mixes its channels or bends them reads it");
                    };
                    // The first is followed first.
                    for (value, held) in moved.into_iter().rev() {
                        if view.leaves[value.0 as usize] {
                            return End::Stop("it reaches an output of the network");
                        }
                        on_the_way.push(value);
                        let readers = view.consumers[value.0 as usize].iter().rev();
                        open.extend(readers.map(|&(id, index)| (id, index, held.clone())));
                    }
                }
            }
        }
        End::Layers(found, on_the_way)
    }

    /// The results of a node that only moves or scales the channels of its operand `index`, and where they hold them.
    pub(super) fn moved(&self, id: NodeId, index: usize, held: &Held) -> Option<Vec<(ValueId, Held)>> {
        let view = self.view;
        let node = view.graph.node(id);
        let shape = |v: ValueId| view.facts.get(v).map(|f| f.shape.as_slice());
        let from = shape(node.input(index)?)?;
        let whole = |to: &[usize]| to.len() == from.len() && held.axes.iter().all(|&a| to[a] == from[a]);
        if let Op::Concat { .. } = &node.op {
            let (out, axis) = (view.single_output(node)?, held.axis()?);
            let to = shape(out)?;
            if whole(to) {
                return None; // Joined along another axis, with elements that have no such factors.
            }
            let before: usize =
                node.inputs[..index].iter().flatten().map(|&v| shape(v).map(|s| s[axis])).sum::<Option<usize>>()?;
            let mut joined = vec![None; to[axis]];
            joined.get_mut(before..before + held.channels.len())?.copy_from_slice(&held.channels);
            return Some(vec![(out, Held { axes: vec![axis], channels: joined })]);
        }
        if index != 0 && !view.scales(id) {
            return None;
        }
        let constant = |i: usize| node.input(i).and_then(|v| view.graph.constant(v)).and_then(|t| t.to_f64().ok());
        match &node.op {
            Op::Split { .. } => {
                let mut start = 0;
                let mut parts = Vec::new();
                for &v in node.outputs.iter().flatten() {
                    let to = shape(v)?;
                    if whole(to) {
                        parts.push((v, held.clone()));
                        continue;
                    }
                    let axis = held.axis()?;
                    let part = held.channels.get(start..start + to[axis])?.to_vec();
                    start += to[axis];
                    parts.push((v, Held { axes: vec![axis], channels: part }));
                }
                return Some(parts);
            }
            Op::Transpose { perm } => return Some(vec![(view.single_output(node)?, held.transposed(perm, from)?)]),
            op if op.reshapes() => {
                let out = view.single_output(node)?;
                return Some(vec![(out, held.reshaped(from, shape(out)?)?)]);
            }
            Op::Reduce { kind: Reduction::Mean | Reduction::Max | Reduction::Min, keepdims: false, .. } => {
                let last = *held.axes.last()? as f64;
                let behind = constant(1)?.iter().all(|&a| if a < 0.0 { a + from.len() as f64 } else { a } > last);
                let value = view.single_output(node).filter(|_| behind)?;
                return Some(vec![(value, held.clone())]);
            }
            _ => {}
        }
        let linear = match &node.op {
            Op::MaxPool { .. } | Op::AveragePool { .. } | Op::GlobalAveragePool | Op::GlobalMaxPool => {
                held.axis() == Some(1)
            }
            Op::Identity | Op::Unary(Unary::Relu | Unary::LeakyRelu { .. }) => true,
            Op::Resize(resize) => resize.coordinates != Coordinates::CropAndResize,
            Op::Reduce { kind: Reduction::Mean | Reduction::Max | Reduction::Min, keepdims: true, .. } => true,
            Op::Pad { mode } => *mode != PadMode::Constant || constant(2).is_none_or(|x| x.iter().all(|&x| x == 0.0)),
            Op::Slice => constant(4).is_none_or(|steps| steps.iter().all(|&s| s == 1.0)),
            _ => view.scales(id),
        };
        // Several results, such as the indices of MaxPool, must not be read.
        let out = linear.then(|| view.single_output(node)).flatten()?;
        whole(shape(out)?).then(|| vec![(out, held.clone())])
    }

    /// The layer `id` as a reader.
    pub(super) fn reader(&self, id: NodeId, index: usize, held: &Held) -> Option<Reader> {
        let (view, axis, channels) = (self.view, held.axis()?, &held.channels);
        let node = view.graph.node(id);
        let weight = view.weight(id)?;
        let tensor = view.graph.constant(weight)?;
        let rank = view.facts.get(node.input(index)?)?.shape.len();
        let alone = view.consumers[weight.0 as usize].len() == 1 && tensor.dtype() == DType::F32;
        if index != 0 || !alone {
            return None;
        }
        let (at, groups) = match node.op {
            Op::Conv { group, .. } if axis == 1 => (1, group as usize),
            Op::ConvTranspose { .. } if axis == 1 => (0, 1),
            Op::Gemm { trans_a: false, trans_b, .. } if axis == 1 => (usize::from(trans_b), 1),
            Op::MatMul if axis + 1 == rank && tensor.rank() == 2 => (0, 1),
            _ => return None,
        };
        let layer = self.layers.get(&weight).copied();
        let meets = tensor.shape().get(at)? * groups == channels.len();
        meets.then(|| Reader { weight, layer, axis: at, groups, channels: channels.clone() })
    }

    /// Whether the weight of a layer may take up factors that suit none of the activations that share them exactly: with few
    /// bits the uneven weights cost more than the activations gain.
    pub(super) fn takes_shared(&self, reader: &Reader) -> bool {
        reader.layer.is_none_or(|id| self.plan.layer(id).grid.bits >= LEAST_WEIGHT_BITS)
    }

    /// What can divide the channels of `value`, along `axis`, and the values that a layer divides.
    pub(super) fn carrier(&self, value: ValueId, axis: usize) -> Result<(Carrier, BTreeSet<ValueId>), &'static str> {
        const PRODUCER: &str = "what makes it cannot carry factors";
        let view = self.view;
        let graph = view.graph;
        let (mut at, mut cap, mut constants) = (value, None, Vec::new());
        let mut divided = BTreeSet::new();
        loop {
            divided.insert(at);
            let id = view.producers[at.0 as usize].ok_or(PRODUCER)?;
            let node = graph.node(id);
            let constant = |i: usize| node.input(i).filter(|&v| graph.constant(v).is_some());
            let number = |i: usize| -> Option<f32> { graph.constant(constant(i)?)?.to_f32().ok()?.first().copied() };
            if view.role(id) == Role::Layer {
                let carrier = self.dividing(id, axis, constants, cap);
                return Ok((carrier.ok_or("its layer has one step for the whole weight")?, divided));
            }
            let before = match &node.op {
                Op::Unary(Unary::Relu | Unary::LeakyRelu { .. }) | Op::Identity => node.input(0),
                Op::Clip if number(1) == Some(0.0) && cap.is_none() => {
                    cap = number(2);
                    node.input(0)
                }
                Op::Binary(Binary::Add) => {
                    let bias = [0, 1].into_iter().find_map(constant);
                    let last = bias.and_then(|b| graph.constant(b)).map(|t| t.rank().saturating_sub(1));
                    constants.extend(bias.zip(last));
                    bias.and(node.inputs.iter().flatten().copied().find(|&v| view.is_live(v)))
                }
                Op::Unary(_) | Op::Binary(Binary::Mul | Binary::Div) if at == value => {
                    return Ok((Carrier::Quantizer, BTreeSet::new()));
                }
                op if normalizes(op) && at == value => return Ok((Carrier::Quantizer, BTreeSet::new())),
                _ => None,
            };
            at = before.filter(|&v| view.only_reader(v).is_some()).ok_or(PRODUCER)?;
        }
    }

    /// The layer `id` as what divides, which `constants` (biases) are added behind.
    fn dividing(
        &self,
        id: NodeId,
        axis: usize,
        mut constants: Vec<(ValueId, usize)>,
        cap: Option<f32>,
    ) -> Option<Carrier> {
        let view = self.view;
        let node = view.graph.node(id);
        let weight = view.weight(id)?;
        let tensor = view.graph.constant(weight)?;
        let (at, output) = match node.op {
            Op::Conv { .. } => (0, 1),
            Op::Gemm { trans_b, .. } => (usize::from(!trans_b), 1),
            Op::MatMul if tensor.rank() == 2 => (1, view.facts.get(node.output(0)?)?.shape.len() - 1),
            _ => return None,
        };
        let outputs = tensor.shape()[at];
        constants.push((weight, at));
        constants.extend(node.input(2).map(|b| (b, view.graph.constant(b).map_or(0, |t| t.rank().saturating_sub(1)))));
        let mine = |&(v, axis): &(ValueId, usize)| {
            let single = |t: &Tensor| t.dtype() == DType::F32 && t.shape().get(axis) == Some(&outputs);
            view.graph.constant(v).is_some_and(|t| single(t)) && view.consumers[v.0 as usize].len() == 1
        };
        let layer = self.layers.get(&weight);
        let free = layer.is_none_or(|&id| self.plan.layer(id).axis == Some(at));
        (free && output == axis && constants.iter().all(mine)).then_some(Carrier::Layer { constants, cap })
    }
}

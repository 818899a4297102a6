//! The form of ONNX Runtime, which its integer kernels take in every version from 1.17.
//!
//! - Weights are int8 with zero point 0: what is stored is the integer less the zero point of its channel, which fits with
//!   up to 7 bits whatever the zero point, and with 8 bits where it is in the middle. `weights` has the rest.
//! - Activations are uint8. A grid of fewer bits has a Clip of its integers between QuantizeLinear and DequantizeLinear:
//!   a Clip of floats in front would keep the layer before it from running in integers.
//! - A Relu or Clip in front of a quantizer goes, since rounding keeps order: clipping the integers at what its bounds
//!   are rounded to comes to the same.
//! - Biases of integer layers are int32 in units of the steps of operand and weight (`bias`).

use super::moved::{self, Held, QuantizerIndex};
use super::write::{Insertions, node};
use super::{check_grid, drop_unread, grid_constants, parted, place};
use crate::error::{Error, Result};
use crate::graph::{Binary, Fact, Graph, Node, NodeId, Op, Unary, ValueId};
use crate::plan::rules::{self, Rule};
use crate::plan::{Format, Layer, Output, Plan, Site};
use crate::quant::{Grid, QuantizedWeight, quantize_one};
use crate::tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};

/// A graph on its way to this form.
pub(super) struct Form<'a> {
    pub graph: Graph,
    pub insertions: Insertions,
    /// Every quantizer of an activation.
    pub quantizers: Vec<(&'a Site, &'a Grid)>,
    /// The quantizer that reads a value.
    pub read_by: BTreeMap<ValueId, QuantizerIndex>,
    pub output: Output,
    /// Scalars that many nodes read: type, value.
    scalars: HashMap<(DType, i32), ValueId>,
}

/// `graph` with `plan` carried out. `weights` holds one entry a layer, in the plan's order, `sites` and `kernel_sites` the
/// grids of the plan's lists.
pub(super) fn lower(
    graph: &Graph,
    plan: &Plan,
    weights: &[&QuantizedWeight],
    sites: &[Grid],
    kernel_sites: &[Grid],
    output: Output,
) -> Result<Graph> {
    let quantizers = plan.sites.iter().zip(sites).chain(plan.kernel_sites.iter().zip(kernel_sites)).collect();
    let mut form = Form {
        graph: graph.clone(),
        insertions: Insertions::new(graph),
        quantizers,
        read_by: BTreeMap::new(),
        output,
        scalars: HashMap::new(),
    };
    let quantized = form.activations(graph)?;
    let origins = form.moved(&quantized)?;
    let mut unread: Vec<ValueId> = plan.layers.iter().map(|l| l.weight).collect();
    for (layer, &weight) in plan.layers.iter().zip(weights) {
        let mut weight = weight.clone();
        let finer = form.finer(layer, &weight, &origins);
        let lowered = form.biases(layer, &mut weight, finer, &origins).and_then(|unread| {
            form.weight(layer, &weight, finer, &origins)?;
            Ok(unread)
        });
        unread.extend(lowered.map_err(|e| e.at(place("layer", &layer.name)))?);
    }
    let Form { graph: mut out, insertions, .. } = form;
    out.nodes = insertions.apply(std::mem::take(&mut out.nodes), output.target);
    drop_unread(&mut out, &unread);
    out.check()?;
    Ok(out)
}

/// Operators beside layers that have integer kernels, between quantizers.
fn combines(op: &Op) -> bool {
    matches!(
        op,
        Op::Binary(Binary::Add | Binary::Mul)
            | Op::Concat { .. }
            | Op::GlobalAveragePool
            | Op::AveragePool { .. }
            | Op::Unary(Unary::Sigmoid | Unary::LeakyRelu { .. })
    )
}

/// A Relu or Clip whose work a quantizer takes over.
struct Rectifier {
    node: NodeId,
    /// What it reads.
    operand: ValueId,
    /// The integers that its bounds are rounded to.
    low: i32,
    high: i32,
}

impl Form<'_> {
    /// Quantizes the values of all quantizers of `graph`; the quantizer of each value that stands for a quantized one.
    fn activations(&mut self, graph: &Graph) -> Result<BTreeMap<ValueId, QuantizerIndex>> {
        let consumers = graph.consumers();
        let mut quantized = BTreeMap::new();
        for index in (0..self.quantizers.len()).map(QuantizerIndex) {
            let (site, grid) = self.quantizers[index.0];
            let lower = |form: &mut Self| match form.rectifier(&consumers, site, check_grid(grid)?) {
                Some(rectifier) => form.absorb(site, grid, rectifier, index),
                None => form.site(site, grid, index),
            };
            quantized.insert(lower(self).map_err(|e| e.at(place("site", &site.name)))?, index);
        }
        Ok(quantized)
    }

    /// The Relu or Clip that makes the value of `site`, where nobody else sees what it reads or makes.
    fn rectifier(&self, consumers: &[Vec<(NodeId, usize)>], site: &Site, grid: &Grid) -> Option<Rectifier> {
        let graph = &self.graph;
        let (id, _) = self.insertions.producer(site.value)?;
        let node = graph.node(id);
        let operand = node.input(0)?;
        let captured = consumers[site.value.0 as usize].iter().any(|&(_, i)| i == usize::MAX);
        // An operand that is quantized itself by now has no entry.
        let readers = consumers.get(operand.0 as usize)?;
        let alone = readers[..] == [(id, 0)] && !graph.outputs.contains(&operand);
        let float = graph.value(site.value).fact.dtype.is_none_or(|t| t == DType::F32);
        let fine = grid.bits() > 8 && self.holds(&rules::WIDE_ACTIVATIONS);
        if site.readers.is_some() || captured || !alone || !float || fine || graph.inputs.contains(&operand) {
            return None;
        }
        let integer = |x: f32| quantize_one(x, grid.scale[0], grid.zero_point[0], grid.qmin, grid.qmax);
        let bound = |i: usize, open: i32| match node.input(i) {
            None => Some(open),
            Some(v) => graph.constant(v)?.to_f32().ok()?.first().filter(|x| !x.is_nan()).map(|&x| integer(x)),
        };
        let (low, high) = match node.op {
            Op::Unary(Unary::Relu) => (integer(0.0), grid.qmax),
            Op::Clip => (bound(1, grid.qmin)?, bound(2, grid.qmax)?),
            _ => return None,
        };
        (low <= high).then_some(Rectifier { node: id, operand, low, high })
    }

    /// Quantizes the value of `site` in place of the rectifier that made it.
    fn absorb(&mut self, site: &Site, grid: &Grid, rectifier: Rectifier, index: QuantizerIndex) -> Result<ValueId> {
        let Rectifier { node, operand, low, high } = rectifier;
        let name = self.graph.value(site.value).name.clone();
        let chain = self.quantizer(&name, operand, site.value, grid, (low, high), self.native(site, grid))?;
        self.insertions.after(node, chain);
        self.insertions.remove(node);
        self.read_by.insert(operand, index);
        Ok(site.value)
    }

    /// Quantizes the value of `site`; what its readers read now.
    fn site(&mut self, site: &Site, grid: &Grid, index: QuantizerIndex) -> Result<ValueId> {
        let (float, real) = parted(&mut self.graph, &self.insertions, site)?;
        let name = self.graph.value(site.value).name.clone();
        let chain = self.quantizer(&name, float, real, grid, (grid.qmin, grid.qmax), self.native(site, grid))?;
        self.insertions.behind(site.value, chain);
        self.read_by.insert(float, index);
        Ok(real)
    }

    /// Whether `rule` is about this file.
    pub fn holds(&self, rule: &Rule) -> bool {
        rule.applies(self.output.target)
    }

    /// Whether the grid of `site` is written in a type of 4 bits, unless its integers need a Clip.
    fn native(&self, site: &Site, grid: &Grid) -> bool {
        let pooled = |n: &Node| matches!(n.op, Op::MaxPool { .. }) && n.inputs.contains(&Some(site.value));
        let pooled = self.holds(&rules::NATIVE_TYPES) && self.graph.nodes.iter().any(pooled);
        self.output.format == Format::Qdq && grid.bits() == 4 && !pooled
    }

    /// The nodes that quantize `float` into `real`, with integers from `low` to `high` of `grid`.
    fn quantizer(
        &mut self,
        name: &str,
        float: ValueId,
        real: ValueId,
        grid: &Grid,
        (low, high): (i32, i32),
        native: bool,
    ) -> Result<Vec<Node>> {
        let whole = (low, high) == (grid.qmin, grid.qmax);
        let dtype = match grid.bits() {
            16 => DType::U16,
            _ if native && whole => DType::U4,
            _ => DType::U8,
        };
        let graph = &mut self.graph;
        let (scale, zero_point) = grid_constants(graph, name, grid, dtype)?;
        let fact = Fact { dtype: Some(dtype), shape: graph.value(float).fact.shape.clone() };
        let quantized = graph.add_value(&format!("{name}_quantized"), fact.clone());
        let op = Op::QuantizeLinear { axis: 1, block: 0, to: None };
        let mut chain = vec![node(graph, op, &[float, scale, zero_point], quantized)];
        let mut integers = quantized;
        if dtype.int_range() != Some((low.into(), high.into())) {
            let (low, high) = (self.scalar(dtype, low)?, self.scalar(dtype, high)?);
            integers = self.graph.add_value(&format!("{name}_clipped"), fact);
            chain.push(node(&self.graph, Op::Clip, &[quantized, low, high], integers));
        }
        let op = Op::DequantizeLinear { axis: 1, block: 0, to: None };
        chain.push(node(&self.graph, op, &[integers, scale, zero_point], real));
        Ok(chain)
    }

    /// Puts quantizers a second time before layers and products whose operand was moved in ways that the runtime does not
    /// follow; once for all that read the operand. Where every value of the graph comes from.
    fn moved(&mut self, quantized: &BTreeMap<ValueId, QuantizerIndex>) -> Result<Vec<Option<Held>>> {
        let mut origins = moved::origins(&self.graph, quantized);
        if !self.holds(&rules::MOVED_OPERANDS) {
            return Ok(origins);
        }
        let mut done = BTreeMap::new();
        let wanted = |id: NodeId| {
            let node = self.graph.node(id);
            let read_by = |v: &ValueId| self.read_by.contains_key(v);
            moved::multiplies(&node.op) || combines(&node.op) && node.outputs.iter().flatten().any(read_by)
        };
        let operands = moved::operands(&self.graph, &origins, wanted);
        for (id, operand, held) in operands {
            let real = match done.get(&operand) {
                Some(&real) => real,
                None => {
                    let fact = self.graph.value(operand).fact.clone();
                    let name = format!("{}_again", self.graph.value(operand).name);
                    let real = self.graph.add_value(&format!("{name}_dequantized"), fact);
                    let mut grid = self.quantizers[held.quantizer.0].1.clone();
                    grid.scale.iter_mut().for_each(|s| *s *= held.factor);
                    let whole = (grid.qmin, grid.qmax);
                    let chain = self.quantizer(&name, operand, real, check_grid(&grid)?, whole, false)?;
                    self.insertions.before(id, chain);
                    origins.resize(self.graph.values.len(), None);
                    origins[real.0 as usize] = Some(Held { cut: false, ..held });
                    done.insert(operand, real);
                    real
                }
            };
            let reader = &mut self.graph.nodes[id.0 as usize];
            reader.inputs.iter_mut().filter(|v| **v == Some(operand)).for_each(|v| *v = Some(real));
        }
        origins.resize(self.graph.values.len(), None);
        Ok(origins)
    }

    /// The step and the largest integer of the first operand of node `id` of `layer`, where this runs in integers.
    pub fn kernel_operand(&self, layer: &Layer, id: NodeId, origins: &[Option<Held>]) -> Option<(f32, i32)> {
        let node = self.graph.node(id);
        let runs = match node.op {
            Op::Conv { .. } => self.quantizers[self.read_by.get(&node.output(0)?)?.0].1.bits() <= 8,
            Op::Gemm { alpha: 1.0, trans_a: false, .. } => true,
            Op::MatMul => !self.holds(&rules::STACKED_WEIGHTS) || layer.shape.len() == 2 || layer.axis.is_none(),
            _ => false,
        };
        node.input(0).filter(|_| runs).and_then(|x| self.operand(x, origins))
    }

    /// The step and the largest integer of the quantized operand `value`, where it is quantized once for all elements.
    fn operand(&self, value: ValueId, origins: &[Option<Held>]) -> Option<(f32, i32)> {
        let held = origins.get(value.0 as usize).copied().flatten().filter(|h| !h.cut)?;
        let grid = self.quantizers[held.quantizer.0].1;
        (grid.bits() <= 8).then(|| (grid.scale[0] * held.factor, grid.qmax))
    }

    /// A constant without axes that other nodes may read too.
    pub fn scalar(&mut self, dtype: DType, value: i32) -> Result<ValueId> {
        if let Some(&known) = self.scalars.get(&(dtype, value)) {
            return Ok(known);
        }
        let tensor = Tensor::from_f64(dtype, &[], &[f64::from(value)])?;
        let name = format!("{dtype:?}_{value}").to_lowercase();
        let id = self.graph.add_constant(&name, tensor);
        self.scalars.insert((dtype, value), id);
        Ok(id)
    }

    /// The first of the nodes of `layer`.
    pub fn first_node(layer: &Layer) -> Result<NodeId> {
        layer.nodes.iter().min().copied().ok_or_else(|| Error::internal("no node reads the weight"))
    }
}

//! Lowering: writes the quantization into the graph as integer initializers, QuantizeLinear, Clip and DequantizeLinear,
//! or as QONNX's Quant.
//!
//! A weight becomes an integer initializer and one DequantizeLinear, whatever reads it. A site becomes QuantizeLinear,
//! a Clip if the grid is smaller than the integer type, and DequantizeLinear, right after its value is computed.
//!
//! [`Target::Ort`] has its own form, see `ort`. With [`Target::Openvino`] the weights are int8, with
//! [`Target::Tensorrt`] everything is: a grid of b bits is shifted down by 2^(b-1), so that symmetric grids have zero
//! point 0. The module `qonnx` is for [`Target::Qonnx`], `qnn` for [`Target::Qnn`]. Activations of 16 bits are uint16;
//! their grid fills the type.
//!
//! For OpenVINO and TensorRT a separate node adds the bias of a layer with weights of fewer than 8 bits, because inside
//! the layer it may be rounded to multiples of the product of both steps, which is coarse at few bits. If the quantized
//! operand of a layer was sliced, concatenated or repeated in between (as in a window that is rolled), the same
//! quantizer is inserted a second time right before the layer; this changes no value.

mod bias;
mod encodings;
mod half;
mod moved;
mod ort;
mod qnn;
mod qonnx;
mod weights;
mod write;

#[cfg(test)]
mod ort_tests;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::graph::{Binary, Graph, Node, NodeId, Op, ValueId};
use crate::plan::{Format, Layer, Output, Plan, Site, Target, rules};
use crate::quant::{Grid, QuantizedWeight, qmax_of};
use crate::tensor::{DType, Data, Tensor};
use moved::QuantizerIndex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use write::Insertions;

pub use encodings::Encodings;
pub use qnn::lower_qnn;

/// Which part of the network an integer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Weight,
    Activation,
}

/// The integer type of targets that have one for each role.
fn container(output: Output, role: Role, bits: u32) -> DType {
    match (output.target, role, bits) {
        (Target::Openvino, Role::Activation, 16) => DType::U16,
        (Target::Tensorrt, ..) | (Target::Openvino, Role::Weight, _) => DType::I8,
        // The others decide on types in files of their own.
        (Target::Openvino | Target::Ort | Target::Qonnx | Target::Qnn, ..) => DType::U8,
    }
}

/// By how much integers of `grid` lie above those of the file in `dtype`.
fn offset(grid: &Grid, dtype: DType) -> i32 {
    if dtype == DType::I8 { 1 << (grid.bits() - 1) } else { 0 }
}

/// The lowest opset in which `output` can express `plan`: 13, or 21 with types of 4 and 16 bits.
pub fn required_opset(output: Output, plan: &Plan) -> u64 {
    let bits = |wanted: u32| plan.sites.iter().any(|s| s.grid.bits == wanted);
    let native = plan.layers.iter().any(|l| (3..=4).contains(&l.grid.bits)) || bits(4);
    match output.target {
        Target::Qonnx | Target::Qnn => 13,
        Target::Ort | Target::Openvino | Target::Tensorrt => {
            if bits(16) || output.format == Format::Qdq && native {
                21
            } else {
                13
            }
        }
    }
}

/// The graph with `plan` carried out: `weights` holds one entry per layer of the plan in any order, `sites` and
/// `kernel_sites` one grid per entry of the plan's lists, in their order. `graph` must be the one the plan was made
/// from, at [`required_opset`] or later.
///
/// A site that all readers see also stands for the graph output of its value, which keeps its name; the float value
/// gets a new one, and subgraphs, which read by name, see it quantized too. Where only some readers see it, graph
/// outputs and subgraphs keep the float. Float weights and biases that nothing reads any more lose their content. Large
/// constants that stay float are stored in half precision where the network's inputs or outputs are and no bit is lost.
pub fn lower(
    graph: &Graph,
    plan: &Plan,
    weights: &[QuantizedWeight],
    sites: &[Grid],
    kernel_sites: &[Grid],
    output: Output,
) -> Result<Graph> {
    let needed = required_opset(output, plan);
    if graph.opset < needed {
        return Err(Error::internal(format!("expected a graph of opset {needed} or later, got {}", graph.opset)));
    }
    for (grids, sites) in [(sites, &plan.sites), (kernel_sites, &plan.kernel_sites)] {
        if grids.len() != sites.len() {
            return Err(Error::internal(format!("{} grids for {} sites", grids.len(), sites.len())));
        }
    }
    let all: Vec<&Site> = plan.sites.iter().chain(&plan.kernel_sites).collect();
    for (i, site) in all.iter().enumerate() {
        let alone = |s: &&Site| s.value != site.value || (s.readers.is_some() && site.readers.is_some());
        if !all[..i].iter().all(alone) {
            let message = "a value that all readers see quantized has two sites";
            return Err(Error::internal(message).at(place("site", &site.name)));
        }
    }
    if output.target == Target::Qnn {
        return Ok(lower_qnn(graph, plan, weights, sites, output.encodings_version)?.0);
    }
    let mut by_layer: Vec<Option<&QuantizedWeight>> = vec![None; plan.layers.len()];
    for weight in weights {
        match by_layer.get_mut(weight.layer.index()) {
            Some(slot @ None) => *slot = Some(weight),
            _ => return Err(Error::internal(format!("layer {} is unknown or has two weights", weight.layer.0))),
        }
    }
    let missing = |layer: &Layer| Error::internal("no integers").at(place("layer", &layer.name));
    let weights = plan.layers.iter().zip(by_layer).map(|(layer, weight)| weight.ok_or_else(|| missing(layer)));
    let weights: Vec<&QuantizedWeight> = weights.collect::<Result<_>>()?;
    if output.target == Target::Ort {
        let mut out = ort::lower(graph, plan, &weights, sites, kernel_sites, output)?;
        half::halve(&mut out);
        return Ok(out);
    }
    let mut out = graph.clone();
    let mut insertions = Insertions::new(&out);
    for (layer, weight) in plan.layers.iter().zip(weights) {
        lower_weight(&mut out, &mut insertions, layer, weight, output)
            .map_err(|e| e.at(place("layer", &layer.name)))?;
    }
    let mut quantized = BTreeMap::new();
    let quantizers: Vec<(&Site, &Grid)> =
        plan.sites.iter().zip(sites).chain(plan.kernel_sites.iter().zip(kernel_sites)).collect();
    for (index, &(site, grid)) in (0..).map(QuantizerIndex).zip(&quantizers) {
        let real = lower_site(&mut out, &mut insertions, site, grid, output);
        quantized.insert(real.map_err(|e| e.at(place("site", &site.name)))?, index);
    }
    if rules::MOVED_OPERANDS.applies(output.target) {
        quantize_again(&mut out, &mut insertions, plan, &quantizers, &quantized, output)?;
    }
    let mut unread: Vec<ValueId> = plan.layers.iter().map(|l| l.weight).collect();
    let coarse = rules::COARSE_BIASES.applies(output.target);
    for layer in plan.layers.iter().filter(|l| coarse && l.grid.bits < 8) {
        for &id in &layer.nodes {
            let Some(bias) = out.node(id).input(2) else { continue };
            if let Some(add) = bias_apart(&mut out, id, bias, layer)? {
                insertions.directly_after(id, vec![add]);
                unread.push(bias);
            }
        }
    }
    out.nodes = insertions.apply(std::mem::take(&mut out.nodes), output.target);
    drop_unread(&mut out, &unread);
    if output.target != Target::Qonnx {
        half::halve(&mut out);
    }
    out.check()?;
    Ok(out)
}

fn place(what: &str, name: &str) -> String {
    format!("{what} `{name}`")
}

/// The grid of `weight`, which must be one of `layer`, whose float weight `graph` holds.
fn check_weight<'a>(graph: &Graph, layer: &Layer, weight: &'a QuantizedWeight) -> Result<&'a Grid> {
    let grid = check_grid(&weight.grid)?;
    let float = graph.constant(layer.weight).ok_or_else(|| Error::internal("the weight is not constant"))?;
    if float.dtype() != DType::F32 {
        return Err(Error::unsupported(format!("expected float32 weights, got {:?}", float.dtype())));
    }
    if weight.integers.len() != float.len() {
        return Err(Error::internal(format!("{} integers for {} weights", weight.integers.len(), float.len())));
    }
    if grid.axis.is_some_and(|a| float.shape().get(a) != Some(&grid.scale.len())) {
        let (n, shape) = (grid.scale.len(), float.shape());
        return Err(Error::internal(format!("{n} steps along axis {:?} of shape {shape:?}", grid.axis)));
    }
    if let Some(q) = weight.integers.iter().find(|&&q| i32::from(q) > grid.qmax) {
        return Err(Error::internal(format!("integer {q} is outside 0..={}", grid.qmax)));
    }
    Ok(grid)
}

fn lower_weight(
    graph: &mut Graph,
    insertions: &mut Insertions,
    layer: &Layer,
    weight: &QuantizedWeight,
    output: Output,
) -> Result<()> {
    let grid = check_weight(graph, layer, weight)?;
    let name = graph.value(layer.weight).name.clone();
    let fact = graph.value(layer.weight).fact.clone();
    if output.target == Target::Qonnx {
        let (op, operands) = qonnx::weight(graph, &name, &layer.shape, weight)?;
        let apart = rules::SHARED_WEIGHTS.applies(output.target);
        for readers in layer.nodes.chunks(if apart { 1 } else { layer.nodes.len().max(1) }) {
            let real = graph.add_value(&format!("{name}_dequantized"), fact.clone());
            let node = write::node(graph, op.clone(), &operands, real);
            readers.iter().try_for_each(|&id| replace_weight(graph, layer, id, real))?;
            insertions.before(readers[0], vec![node]);
        }
        return Ok(());
    }
    let dtype = container(output, Role::Weight, grid.bits());
    let offset = offset(grid, dtype);
    let content = match dtype {
        DType::I8 => Data::I8(weight.integers.iter().map(|&q| (i32::from(q) - offset) as i8).collect()),
        _ => Data::U8(weight.integers.clone()),
    };
    let quantized = graph.add_constant(&format!("{name}_quantized"), Tensor::new(layer.shape.clone(), content)?);
    let (scale, zero_point) = grid_constants(graph, &name, grid, dtype)?;
    let real = graph.add_value(&format!("{name}_dequantized"), fact);
    let op = Op::DequantizeLinear { axis: grid.axis.map_or(1, |a| a as i64), block: 0, to: None };
    let node = write::node(graph, op, &[quantized, scale, zero_point], real);
    for &id in &layer.nodes {
        replace_weight(graph, layer, id, real)?;
    }
    let first = layer.nodes.iter().min().ok_or_else(|| Error::internal("no node reads the weight"))?;
    insertions.before(*first, vec![node]);
    Ok(())
}

/// Makes node `id` read `real` in place of the layer's weight.
fn replace_weight(graph: &mut Graph, layer: &Layer, id: NodeId, real: ValueId) -> Result<()> {
    let Some(reader) = graph.nodes.get_mut(id.0 as usize) else {
        return Err(Error::internal(format!("node {} does not exist", id.0)));
    };
    let mut read = false;
    for operand in reader.inputs.iter_mut().filter(|v| **v == Some(layer.weight)) {
        *operand = Some(real);
        read = true;
    }
    if read { Ok(()) } else { Err(Error::internal("does not read the weight").at(graph.describe(id))) }
}

/// Quantizes the value of `site`; returns what its readers read now.
fn lower_site(
    graph: &mut Graph,
    insertions: &mut Insertions,
    site: &Site,
    grid: &Grid,
    output: Output,
) -> Result<ValueId> {
    let grid = check_grid(grid)?;
    if grid.axis.is_some() {
        return Err(Error::internal("activation grids have one step"));
    }
    let (float, real) = parted(graph, insertions, site)?;
    let name = graph.value(site.value).name.clone();
    let chain = if output.target == Target::Qonnx {
        let (op, operands) = qonnx::site(graph, &name, float, grid)?;
        vec![write::node(graph, op, &operands, real)]
    } else {
        quantizer(graph, &name, float, real, grid, container(output, Role::Activation, grid.bits()))?
    };
    insertions.behind(site.value, chain);
    Ok(real)
}

/// The float value that the quantizer of `site` is to read, and the value that it is to make, which the site's readers
/// read from now on.
fn parted(graph: &mut Graph, insertions: &Insertions, site: &Site) -> Result<(ValueId, ValueId)> {
    let fact = match graph.values.get(site.value.0 as usize) {
        Some(value) => value.fact.clone(),
        None => return Err(Error::internal(format!("value {} does not exist", site.value.0))),
    };
    if let Some(dtype) = fact.dtype.filter(|&t| t != DType::F32) {
        return Err(Error::unsupported(format!("expected a float32 value, got {dtype:?}")));
    }
    let name = graph.value(site.value).name.clone();
    let leaves = site.readers.is_none() && graph.outputs.contains(&site.value);
    if leaves {
        let Some((id, index)) = insertions.producer(site.value) else {
            return Err(Error::unsupported("the value is a graph output that no node computes"));
        };
        // The output keeps its value, name and readers; the producer writes a new one.
        let float = graph.add_value(&format!("{name}_float"), fact);
        graph.nodes[id.0 as usize].outputs[index] = Some(float);
        Ok((float, site.value))
    } else {
        let real = graph.add_value(&format!("{name}_dequantized"), fact);
        redirect(graph, site, real)?;
        Ok((site.value, real))
    }
}

/// Puts the quantizer of a site a second time before layers whose operand was moved in ways that runtimes do not
/// follow; once for all that read the operand.
fn quantize_again(
    graph: &mut Graph,
    insertions: &mut Insertions,
    plan: &Plan,
    quantizers: &[(&Site, &Grid)],
    quantized: &BTreeMap<ValueId, QuantizerIndex>,
    output: Output,
) -> Result<()> {
    let layers: BTreeSet<NodeId> = plan.layers.iter().flat_map(|l| l.nodes.iter().copied()).collect();
    let mut done = BTreeMap::new();
    let origins = moved::origins(graph, quantized);
    for (node, operand, held) in moved::operands(graph, &origins, |id| layers.contains(&id)) {
        if held.factor != 1.0 || !moved::multiplies(&graph.node(node).op) {
            continue;
        }
        let real = match done.get(&operand) {
            Some(&real) => real,
            None => {
                let fact = graph.value(operand).fact.clone();
                let name = format!("{}_again", graph.value(operand).name);
                let real = graph.add_value(&format!("{name}_dequantized"), fact);
                let grid = quantizers[held.quantizer.0].1;
                let dtype = container(output, Role::Activation, grid.bits());
                let chain = quantizer(graph, &name, operand, real, grid, dtype)?;
                insertions.before(node, chain);
                done.insert(operand, real);
                real
            }
        };
        let reader = &mut graph.nodes[node.0 as usize];
        reader.inputs.iter_mut().filter(|v| **v == Some(operand)).for_each(|v| *v = Some(real));
    }
    Ok(())
}

/// Makes the readers of `site` read `real`.
fn redirect(graph: &mut Graph, site: &Site, real: ValueId) -> Result<()> {
    let Some(readers) = &site.readers else {
        graph.replace_uses(site.value, real);
        return Ok(());
    };
    for &(id, index) in readers {
        match graph.nodes.get_mut(id.0 as usize).and_then(|n| n.inputs.get_mut(index)) {
            Some(operand) if *operand == Some(site.value) => *operand = Some(real),
            _ => return Err(Error::internal(format!("operand {index} of node {} does not read the value", id.0))),
        }
    }
    Ok(())
}

/// The nodes that quantize `float` into `real`.
fn quantizer(
    graph: &mut Graph,
    name: &str,
    float: ValueId,
    real: ValueId,
    grid: &Grid,
    dtype: DType,
) -> Result<Vec<Node>> {
    let (scale, zero_point) = grid_constants(graph, name, grid, dtype)?;
    let shape = graph.value(float).fact.shape.clone();
    let fact = crate::graph::Fact { dtype: Some(dtype), shape };
    let quantized = graph.add_value(&format!("{name}_quantized"), fact.clone());
    let op = Op::QuantizeLinear { axis: 1, block: 0, to: None };
    let mut chain = vec![write::node(graph, op, &[float, scale, zero_point], quantized)];
    let mut integers = quantized;
    let largest = dtype.int_range().map_or(0, |r| r.1);
    let offset = offset(grid, dtype);
    if i128::from(grid.qmax - offset) < largest {
        let low = Tensor::from_f64(dtype, &[], &[f64::from(-offset)])?;
        let high = Tensor::from_f64(dtype, &[], &[f64::from(grid.qmax - offset)])?;
        let low = graph.add_constant(&format!("{name}_clip_min"), low);
        let high = graph.add_constant(&format!("{name}_clip_max"), high);
        integers = graph.add_value(&format!("{name}_clipped"), fact);
        chain.push(write::node(graph, Op::Clip, &[quantized, low, high], integers));
    }
    let op = Op::DequantizeLinear { axis: 1, block: 0, to: None };
    chain.push(write::node(graph, op, &[integers, scale, zero_point], real));
    Ok(chain)
}

/// Scale and zero point as constants: scalars, or one entry per channel.
fn grid_constants(graph: &mut Graph, name: &str, grid: &Grid, dtype: DType) -> Result<(ValueId, ValueId)> {
    let shape: &[usize] = if grid.axis.is_some() { &[grid.scale.len()] } else { &[] };
    let offset = offset(grid, dtype);
    let zero_points: Vec<f64> = grid.zero_point.iter().map(|&z| f64::from(z - offset)).collect();
    let zero_point = Tensor::from_f64(dtype, shape, &zero_points)?;
    let scale = graph.add_constant(&format!("{name}_scale"), Tensor::f32(shape, grid.scale.clone()));
    Ok((scale, graph.add_constant(&format!("{name}_zero_point"), zero_point)))
}

/// A valid grid on 0..=2^b - 1 for some b up to 8, or 16.
fn check_grid(grid: &Grid) -> Result<&Grid> {
    grid.check()?;
    if grid.qmin != 0 || qmax_of(grid.bits()).ok() != Some(grid.qmax) {
        return Err(Error::internal(format!("expected a grid 0..=2^b - 1, got {}..={}", grid.qmin, grid.qmax)));
    }
    Ok(grid)
}

/// Makes the constant `bias` of node `id` of `layer` an addition, which is to stand after it; none where `bias` is not
/// constant or the node no convolution or plain Gemm.
fn bias_apart(graph: &mut Graph, id: NodeId, bias: ValueId, layer: &Layer) -> Result<Option<Node>> {
    let node = graph.node(id);
    // Along the channels of [N, C, spatial...], or along columns.
    let spatial = match node.op {
        Op::Conv { .. } | Op::ConvTranspose { .. } => layer.shape.len().saturating_sub(2),
        Op::Gemm { beta: 1.0, .. } => 0,
        _ => return Ok(None),
    };
    let (Some(y), Some(content)) = (node.output(0), graph.constant(bias)) else { return Ok(None) };
    let mut shape = content.shape().to_vec();
    shape.extend(std::iter::repeat_n(1, spatial));
    let content = content.as_ref().clone().reshaped(&shape)?;
    let (name, fact) = (graph.value(bias).name.clone(), graph.value(y).fact.clone());
    let added = graph.add_constant(&format!("{name}_added"), content);
    let bare = graph.add_value(&format!("{}_unbiased", graph.value(y).name), fact);
    let add = write::node(graph, Op::Binary(Binary::Add), &[bare, added], y);
    let node = &mut graph.nodes[id.0 as usize];
    node.inputs.truncate(2);
    node.outputs[0] = Some(bare);
    Ok(Some(add))
}

/// Takes the content from those of `values` that nothing reads.
fn drop_unread(graph: &mut Graph, values: &[ValueId]) {
    let readers = graph.consumers();
    for &v in values {
        if readers[v.0 as usize].is_empty() && !graph.outputs.contains(&v) {
            let value = graph.value_mut(v);
            value.constant = None::<Arc<Tensor>>;
            value.origin = None;
        }
    }
}

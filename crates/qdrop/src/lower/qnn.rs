//! The network as Qualcomm's converters take it: weights as float numbers on their grid, no quantizer in the graph, and
//! the grids beside it as [`Encodings`] by the names of the tensors.
//!
//! A converter quantizes what an encoding names for all that read it, so sites must have no readers of their own.
//! Encodings name the weights of the plan's layers, its sites, and the biases whose 32-bit step follows from both: the
//! converters that read version 2.0.0 leave a layer float whose bias has no encoding.

use super::encodings::{Encoding, Encodings};
use super::{check_grid, place, replace_weight};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, NodeId, Op, ValueId};
use crate::plan::{EncodingsVersion, Layer, LayerId, Plan, Target, rules};
use crate::quant::{Grid, QuantizedWeight};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Largest integer of a bias.
const BIAS_MOST: f64 = 2_147_483_647.0;

/// `graph` with the `weights` of `plan`'s layers on their grids, and the encodings of everything that has a grid.
/// `weights` holds one entry per layer in any order, `sites` one grid per site in the plan's order.
pub fn lower_qnn(
    graph: &Graph,
    plan: &Plan,
    weights: &[QuantizedWeight],
    sites: &[Grid],
    version: EncodingsVersion,
) -> Result<(Graph, Encodings)> {
    if sites.len() != plan.sites.len() || weights.len() != plan.layers.len() {
        let (s, w) = (plan.sites.len(), plan.layers.len());
        let message = format!("{} grids for {s} sites, {} weights for {w} layers", sites.len(), weights.len());
        return Err(Error::internal(message));
    }
    let by_layer: BTreeMap<LayerId, &QuantizedWeight> = weights.iter().map(|w| (w.layer, w)).collect();
    let mut out = graph.clone();
    let mut encodings = Encodings::new(version);
    let mut grids: BTreeMap<ValueId, &Grid> = BTreeMap::new();
    for (site, grid) in plan.sites.iter().zip(sites) {
        let grid = check_grid(grid).map_err(|e| e.at(place("site", &site.name)))?;
        if site.readers.is_some() || grid.axis.is_some() || grids.insert(site.value, grid).is_some() {
            let message = "expected one step that all readers of the value see";
            return Err(Error::internal(message).at(place("site", &site.name)));
        }
        encodings.activations.push(Encoding::activation(&graph.value(site.value).name, grid));
    }
    for (number, layer) in plan.layer_ids().zip(&plan.layers) {
        let weight =
            by_layer.get(&number).ok_or_else(|| Error::internal("no integers").at(place("layer", &layer.name)))?;
        let value = round(&mut out, layer, weight).map_err(|e| e.at(place("layer", &layer.name)))?;
        let shape = &layer.shape;
        encodings.params.push(Encoding::weight(&out.value(value).name, &weight.grid, shape.len()));
    }
    encodings.biases = biases(graph, plan, &by_layer, &grids);
    out.check()?;
    Ok((out, encodings))
}

/// Gives the nodes of `layer` its rounded weight; the value that holds it.
fn round(graph: &mut Graph, layer: &Layer, weight: &QuantizedWeight) -> Result<ValueId> {
    let grid = check_grid(&weight.grid)?;
    let middle = 1 << (grid.bits() - 1);
    if let Some(z) = grid.zero_point.iter().find(|&&z| z != middle) {
        return Err(Error::internal(format!("expected zero points {middle}, got {z}")));
    }
    let real = grid.dequantize_u8(&layer.shape, &weight.integers)?;
    let rounded = Tensor::f32(&layer.shape, real);
    let readers = &graph.consumers()[layer.weight.0 as usize];
    let alone = readers.iter().all(|(id, _)| layer.nodes.contains(id)) && !graph.outputs.contains(&layer.weight);
    if alone {
        let value = graph.value_mut(layer.weight);
        (value.constant, value.origin) = (Some(Arc::new(rounded)), None);
        return Ok(layer.weight);
    }
    let name = format!("{}_quantized", graph.value(layer.weight).name);
    let value = graph.add_constant(&name, rounded);
    for &id in &layer.nodes {
        replace_weight(graph, layer, id, value)?;
    }
    Ok(value)
}

/// Encodings of biases: 32 bits, with the step of the layer's operand times that of its weight. A bias is left out where
/// the operand has no grid, where two layers want different steps, and where its integers would not fit.
fn biases(
    graph: &Graph,
    plan: &Plan,
    weights: &BTreeMap<LayerId, &QuantizedWeight>,
    grids: &BTreeMap<ValueId, &Grid>,
) -> Vec<Encoding> {
    let producers = graph.producers();
    let mut found: BTreeMap<ValueId, Vec<f64>> = BTreeMap::new();
    let mut refused = BTreeSet::new();
    for (number, layer) in plan.layer_ids().zip(&plan.layers) {
        let Some(weight) = weights.get(&number) else { continue };
        for &id in &layer.nodes {
            let Some((bias, operand)) = bias(graph.node(id)) else { continue };
            // A third operand of one column goes along the rows, not the channels.
            let row = |t: &&Arc<Tensor>| t.shape().last().is_none_or(|&last| last == t.len());
            let Some(content) = graph.constant(bias).filter(row).and_then(|t| t.to_f32().ok()) else { continue };
            let step = grid_of(graph, &producers, grids, operand).map(|grid| {
                let s = f64::from(grid.scale[0]);
                weight.grid.scale.iter().map(|&w| s * f64::from(w)).collect::<Vec<f64>>()
            });
            let in_range = |steps: &Vec<f64>| {
                let mut biases = content.iter().enumerate();
                biases.all(|(c, &b)| f64::from(b).abs() <= steps[c % steps.len()] * BIAS_MOST)
            };
            let fits = |steps: &Vec<f64>| {
                let along = steps.len() == 1 || steps.len() == content.len();
                along && (!rules::BIAS_RANGE.applies(Target::Qnn) || in_range(steps))
            };
            match step.filter(fits) {
                Some(steps) if found.get(&bias).is_none_or(|known| *known == steps) => {
                    found.insert(bias, steps);
                }
                _ => {
                    refused.insert(bias);
                }
            }
        }
    }
    let kept = found.into_iter().filter(|(bias, _)| !refused.contains(bias));
    kept.map(|(bias, steps)| Encoding::bias(&graph.value(bias).name, steps)).collect()
}

/// Bias and operand of a node that has a bias.
fn bias(node: &Node) -> Option<(ValueId, ValueId)> {
    match node.op {
        Op::Conv { .. } | Op::ConvTranspose { .. } => {}
        Op::Gemm { alpha: 1.0, beta: 1.0, .. } => {}
        _ => return None,
    }
    Some((node.input(2)?, node.input(0)?))
}

/// The grid on which the elements of `value` lie, which movements and pooling hand on.
fn grid_of<'a>(
    graph: &Graph,
    producers: &[Option<NodeId>],
    grids: &BTreeMap<ValueId, &'a Grid>,
    mut value: ValueId,
) -> Option<&'a Grid> {
    loop {
        if let Some(grid) = grids.get(&value) {
            return Some(grid);
        }
        let node = graph.node(producers[value.0 as usize]?);
        value = match &node.op {
            Op::Transpose { .. } | Op::Identity | Op::Slice | Op::Split { .. } | Op::MaxPool { .. } => node.input(0)?,
            op if op.reshapes() => node.input(0)?,
            _ => return None,
        };
    }
}

//! Constants that can be learned beside roundings.

use super::view::View;
use super::{LayerId, Plan, SiteId};
use crate::engine::facts::Facts;
use crate::error::Result;
use crate::graph::{Binary, Graph, NodeId, Op, ValueId};

/// Those of `layers` whose constant bias can be learned, for nothing else reads it and it is no output, with the bias and its
/// float content.
pub(crate) fn learned_biases(
    graph: &Graph,
    plan: &Plan,
    layers: impl Iterator<Item = LayerId>,
) -> Result<Vec<(LayerId, ValueId, Vec<f32>)>> {
    let consumers = graph.consumers();
    let mut biases = Vec::new();
    for id in layers {
        let layer = plan.layer(id);
        let [node] = layer.nodes[..] else { continue };
        let Some(value) = graph.node(node).input(2).or_else(|| added(graph, &consumers, node)) else { continue };
        let Some(tensor) = graph.constant(value) else { continue };
        // Of a grid per channel the bias has one element a step, along the channels: one of one column goes along the rows.
        let along = |n: usize| tensor.len() == n && tensor.shape().last().is_none_or(|&last| last == n);
        let alone = consumers[value.0 as usize].len() == 1 && !graph.outputs.contains(&value);
        if alone && layer.axis.is_none_or(|a| along(layer.shape[a])) {
            biases.push((id, value, tensor.to_f32()?));
        }
    }
    Ok(biases)
}

/// Whether the steps of a layer's weight can be learned once its integers are decided: where it is multiplied, rather than
/// looked up, since what a batch does not look up has no gradient.
pub(crate) fn learned_steps(graph: &Graph, plan: &Plan, layer: LayerId) -> bool {
    plan.layer(layer).nodes.iter().all(|&n| !matches!(graph.node(n).op, Op::Gather { .. }))
}

/// The constants that divide the channels of `sites` in front of their quantizers, where nothing else reads them.
pub(crate) fn learned_factors(graph: &Graph, facts: &Facts, plan: &Plan, sites: &[SiteId]) -> Vec<ValueId> {
    let view = View::new(graph, facts).0;
    let divides = |value: ValueId| {
        let id = view.producers[value.0 as usize].filter(|&id| view.divides(id).is_some())?;
        let by = graph.node(id).input(1)?;
        (view.consumers[by.0 as usize].len() == 1 && !graph.outputs.contains(&by)).then_some(by)
    };
    sites.iter().filter_map(|&site| divides(plan.site(site).value)).collect()
}

/// The constant that alone is added to the result of a MatMul, one element a column.
fn added(graph: &Graph, consumers: &[Vec<(NodeId, usize)>], node: NodeId) -> Option<ValueId> {
    let node = graph.node(node);
    let y = node.output(0).filter(|y| node.op == Op::MatMul && !graph.outputs.contains(y))?;
    let [(reader, _)] = consumers[y.0 as usize][..] else { return None };
    let sum = graph.node(reader);
    let other = sum.inputs.iter().flatten().copied().find(|&v| v != y)?;
    let vector = graph.constant(other).is_some_and(|t| t.rank() == 1 && t.dtype().is_float());
    (sum.op == Op::Binary(Binary::Add) && vector).then_some(other)
}

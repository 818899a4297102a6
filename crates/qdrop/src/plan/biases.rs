//! Biases that can be learned.

use super::{LayerId, Plan};
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

//! Products of a matrix and a constant one in the one form that runtimes add a bias to: Gemm with factors 1.
//!
//! ONNX Runtime joins a MatMul of matrices and an Add to a Gemm by itself, but before it looks for quantizers, and the
//! bias that comes of it is float, which keeps the product from running in integers.

use super::{Context, constants};
use crate::error::Result;
use crate::graph::{Binary, Graph, NodeId, Op, ValueId};
use crate::tensor::Tensor;

/// Makes a Gemm of every MatMul of two matrices of which the second is constant, together with the constant that alone is
/// added to its result, and folds the factors of a Gemm into its constants.
pub(super) fn unify(graph: &mut Graph, context: &Context) -> Result<bool> {
    let Some((one, two)) = constants::facts(graph, context)? else { return factors(graph) };
    let matrix = |v: ValueId| [&one, &two].iter().all(|f| f.get(v).is_some_and(|f| f.shape.len() == 2));
    let mut joined = vec![false; graph.nodes.len()];
    let (consumers, mut made) = (graph.consumers(), false);
    for id in graph.node_ids() {
        let node = graph.node(id);
        let (Op::MatMul, Some(x), Some(w), Some(y)) = (&node.op, node.input(0), node.input(1), node.output(0)) else {
            continue;
        };
        let Some(columns) = graph.constant(w).filter(|t| t.rank() == 2 && t.dtype().is_float()).map(|t| t.shape()[1])
        else {
            continue;
        };
        if graph.constant(x).is_some() || !matrix(x) {
            continue;
        }
        let sum = bias_of(graph, &consumers[y.0 as usize], y, columns);
        made = true;
        let node = &mut graph.nodes[id.0 as usize];
        node.op = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
        node.origin = None;
        if let Some((add, bias)) = sum {
            let result = graph.node(add).output(0);
            let node = &mut graph.nodes[id.0 as usize];
            node.inputs.push(Some(bias));
            node.outputs = vec![result];
            joined[add.0 as usize] = true;
        }
    }
    graph.retain_nodes(|id, _| !joined[id.0 as usize]);
    Ok(factors(graph)? || made)
}

/// The node that alone reads `y` and adds a constant row to it, with that constant.
fn bias_of(graph: &Graph, readers: &[(NodeId, usize)], y: ValueId, columns: usize) -> Option<(NodeId, ValueId)> {
    let [(add, 0 | 1)] = *readers else { return None };
    if graph.outputs.contains(&y) {
        return None;
    }
    let node = graph.node(add);
    let bias = node.inputs.iter().flatten().copied().find(|&v| v != y)?;
    let content = graph.constant(bias)?;
    let row = content.shape() == [columns] || content.shape() == [1, columns];
    (node.op == Op::Binary(Binary::Add) && row && content.dtype().is_float()).then_some((add, bias))
}

/// Folds the factors of every Gemm into constant operands.
fn factors(graph: &mut Graph) -> Result<bool> {
    let mut changed = false;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Op::Gemm { alpha, beta, trans_a, trans_b } = node.op else { continue };
        let weight = node.input(1).filter(|&w| graph.constant(w).is_some_and(|t| t.dtype().is_float()));
        let bias = node.input(2);
        let fixed = |v: ValueId| graph.constant(v).is_some_and(|t| t.dtype().is_float());
        let Some(weight) = weight.filter(|_| (alpha, beta) != (1.0, 1.0) && bias.is_none_or(fixed)) else { continue };
        let weight = scaled(graph, weight, alpha)?;
        let bias = bias.map(|b| scaled(graph, b, beta)).transpose()?;
        let node = &mut graph.nodes[id.0 as usize];
        node.inputs[1] = Some(weight);
        if let Some(bias) = bias {
            node.inputs[2] = Some(bias);
        }
        node.op = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a, trans_b };
        node.origin = None;
        changed = true;
    }
    Ok(changed)
}

/// The constant `v` times `factor`, as a constant of its own where others may read `v`.
fn scaled(graph: &mut Graph, v: ValueId, factor: f32) -> Result<ValueId> {
    if factor == 1.0 {
        return Ok(v);
    }
    let Some(old) = graph.constant(v) else { return Ok(v) };
    let content: Vec<f64> = old.to_f64()?.iter().map(|x| x * f64::from(factor)).collect();
    let new = Tensor::from_f64(old.dtype(), old.shape(), &content)?;
    let name = graph.value(v).name.clone();
    Ok(graph.add_constant(&name, new))
}

//! Reading, cleaning, planning and writing: thin doors to the rooms that do it.

use super::shapes::input_shapes;
use crate::engine::facts;
use crate::error::{Error, Kind, Result};
use crate::graph::{Dim, Graph, Node, NodeId, Op};
use crate::onnx;
use crate::passes::{self, InputShapes};
use crate::plan::{self, Chosen, Cost, Plan, Recipe, Sensitivity};
use crate::tensor::{DType, Tensor};
use std::path::Path;
use std::sync::Arc;

/// Nodes by which unfolding loops and branches may make a graph larger.
const UNFOLDED: usize = 1000;

/// Loops and branches inside one another at most.
const NESTED: usize = 3;

/// Reads the ONNX file at `path` with its external data.
pub fn load(path: &Path) -> Result<Graph> {
    onnx::read(path)
}

/// Gives the input of `graph` that is called `name` the content `values` for good, one number for all its elements or one
/// each, so that samples need not hold it; or gives every size that is called `name` the one value. An error when there is
/// no such input or size, when an input's sizes beside the batch are open, or when `values` do not fit.
pub fn fix(graph: &mut Graph, name: &str, values: &[f64]) -> Result<()> {
    let place = || format!("--fix {name}");
    let Some(index) = graph.inputs.iter().position(|&v| graph.value(v).name == name) else {
        return fix_size(graph, name, values).map_err(|e| e.at(place()));
    };
    let (axis, input) = (graph.batch_axes()[index], graph.inputs[index]);
    let fact = graph.value(input).fact.clone();
    let size = |(i, dim): (usize, &Dim)| match dim {
        Dim::Known(n) => Ok(*n),
        _ if Some(i) == axis => Ok(1),
        Dim::Symbol(symbol) => {
            let error = Error::data(format!("the file leaves size {i} (`{symbol}`) of the input open"));
            Err(error.at(place()).hint(format!("fix the size before it: --fix {symbol}=1")))
        }
        Dim::Unknown => Err(Error::data(format!("the file leaves size {i} of the input open")).at(place())),
    };
    let shape: Vec<usize> = fact.shape.iter().flatten().enumerate().map(size).collect::<Result<_>>()?;
    let numel: usize = crate::tensor::checked_numel(&shape)?;
    let values = match values {
        &[value] => vec![value; numel],
        many if many.len() == numel => many.to_vec(),
        many => {
            let message = format!("expected one number or {numel}, for the shape {shape:?}, got {}", many.len());
            return Err(Error::data(message).at(place()));
        }
    };
    let tensor = Tensor::from_f64(fact.dtype.unwrap_or(DType::F32), &shape, &values).map_err(|e| e.at(place()))?;
    graph.inputs.remove(index);
    let value = graph.value_mut(input);
    value.fact.shape = Some(shape.into_iter().map(Dim::Known).collect());
    (value.constant, value.origin) = (Some(Arc::new(tensor)), None);
    Ok(())
}

/// Gives every size that is called `name` the one of `values`.
fn fix_size(graph: &mut Graph, name: &str, values: &[f64]) -> Result<()> {
    let symbols = graph.inputs.iter().flat_map(|&v| graph.value(v).fact.shape.iter().flatten());
    let mut symbols: Vec<String> =
        symbols.filter_map(|d| if let Dim::Symbol(s) = d { Some(s.clone()) } else { None }).collect();
    if !symbols.iter().any(|s| s == name) {
        let inputs = graph.inputs.iter().map(|&v| graph.value(v).name.clone());
        let mut known: Vec<String> = inputs.collect();
        known.append(&mut symbols);
        known.dedup();
        let error = Error::data(format!("the network has no input and no size `{name}`"));
        return Err(error.hint(format!("it has `{}`", known.join("`, `"))));
    }
    let size = match values {
        &[n] if n >= 1.0 && n.fract() == 0.0 && n <= f64::from(u32::MAX) => n as usize,
        _ => return Err(Error::data("expected a whole number above 0 for a size")),
    };
    for dim in graph.values.iter_mut().flat_map(|v| v.fact.shape.iter_mut().flatten()) {
        if matches!(dim, Dim::Symbol(s) if s == name) {
            *dim = Dim::Known(size);
        }
    }
    Ok(())
}

/// Writes `graph` to `path` as an ONNX file: first under another name beside it, then renamed.
pub fn save(graph: &Graph, path: &Path) -> Result<()> {
    onnx::write(graph, path)
}

/// Size in bytes of the model at `path` and of the files its external data lies in.
pub fn model_bytes(path: &Path) -> Result<u64> {
    onnx::size_on_disk(path)
}

/// A cleaned copy of `graph`: functions and decided branches in place, constants and shape arithmetic folded, BatchNorm
/// folded, identities and dead code removed. `sample_shapes` are the shapes of one sample, one per graph input, without
/// the batch axis; `None` takes what the file declares.
pub fn prepare(graph: &Graph, sample_shapes: Option<&[Vec<usize>]>) -> Result<Graph> {
    let shapes = match sample_shapes {
        None => InputShapes::declared(),
        Some(shapes) => {
            input_shapes(graph, sample_shapes)?;
            InputShapes::of_samples(shapes.iter().cloned().map(Some).collect())
        }
    };
    let mut graph = graph.clone();
    onnx::inline(&mut graph)?;
    passes::simplify(&mut graph, &shapes)?;
    let most = graph.nodes.len() + UNFOLDED;
    // A folded condition may have decided on a branch, a known size on the steps of a loop.
    while inline(&mut graph, &shapes)? || unfold(&mut graph, &shapes, most)? {
        passes::simplify(&mut graph, &shapes)?;
    }
    Ok(graph)
}

/// Puts bodies in place with what is known of values.
fn inline(graph: &mut Graph, shapes: &InputShapes) -> Result<bool> {
    if !graph.nodes.iter().any(|n| matches!(n.op, Op::Opaque { .. })) {
        return Ok(false);
    }
    let fixed = passes::fixed(graph, shapes)?;
    onnx::inline_with(graph, &|v| fixed.as_ref()?.get(v))
}

/// Unfolds the first loop or branch whose results can be computed then, to a graph of at most so many nodes.
fn unfold(graph: &mut Graph, shapes: &InputShapes, most: usize) -> Result<bool> {
    let found: Vec<NodeId> = graph.node_ids().filter(|&id| unfolds(graph.node(id))).collect();
    for id in found {
        // What cannot be unfolded, or not be run then, is carried as it is.
        let Some(mut simple) = unfolded(graph, id, shapes, most, NESTED) else { continue };
        if passes::simplify(&mut simple, shapes).is_ok() {
            *graph = simple;
            return Ok(true);
        }
    }
    Ok(false)
}

fn unfolds(node: &Node) -> bool {
    matches!(&node.op, Op::Opaque { kind, .. } if matches!(kind.as_str(), "If" | "Loop" | "Scan"))
}

/// `graph` with node `id` unfolded, and those inside one another `depth` deep, where all of it can be computed then.
fn unfolded(graph: &Graph, id: NodeId, shapes: &InputShapes, most: usize, depth: usize) -> Option<Graph> {
    let fixed = passes::fixed(graph, shapes).ok()??;
    let mut tried = graph.clone();
    let pairs = onnx::unfold(&mut tried, id, &|v| fixed.get(v)).ok()??;
    let end = |tried: &Graph| tried.nodes.len() - (graph.nodes.len() - 1 - id.0 as usize);
    while let Some(inner) = (id.0..end(&tried) as u32).map(NodeId).find(|&inner| unfolds(tried.node(inner))) {
        if depth == 0 || tried.nodes.len() > most {
            return None;
        }
        tried = unfolded(&tried, inner, shapes, most, depth - 1)?;
    }
    let then = passes::fixed(&tried, shapes).ok()??;
    let known = graph.node(id).outputs.iter().flatten().all(|&v| then.get(v).is_some());
    (known && tried.nodes.len() <= most && pairs.into_iter().all(|pair| then.alike(pair))).then_some(tried)
}

/// Plans `graph` (simplified) by `recipe`; `sample_shapes` as in [`prepare`]. An error when a layer to quantize has a
/// weight or bias that is not finite.
pub fn plan(graph: &Graph, recipe: &Recipe, sample_shapes: Option<&[Vec<usize>]>) -> Result<Plan> {
    let facts = facts::infer(graph, &input_shapes(graph, sample_shapes)?)?;
    let plan = plan::plan(graph, &facts, recipe)?;
    for &id in plan.layers.iter().flat_map(|l| &l.nodes) {
        for &v in graph.node(id).inputs.iter().flatten() {
            let Some(tensor) = graph.constant(v) else { continue };
            if let Some(i) = tensor.to_f32()?.iter().position(|x| !x.is_finite()) {
                let message = format!("element {i} of `{}` is NaN or infinite", graph.value(v).name);
                return Err(Error::new(Kind::Numeric, message).at(graph.describe(id)).hint("repair the model"));
            }
        }
    }
    Ok(plan)
}

/// Bits of `graph` (simplified) as `recipe` wants them chosen, by what was `measured`; `sample_shapes` as in [`prepare`].
pub fn choose(
    graph: &Graph,
    recipe: &Recipe,
    measured: &Sensitivity,
    sample_shapes: Option<&[Vec<usize>]>,
) -> Result<Chosen> {
    plan::choose(graph, &facts::infer(graph, &input_shapes(graph, sample_shapes)?)?, recipe, measured)
}

/// What `plan` costs, which was made from `graph` (simplified); `sample_shapes` as in [`prepare`].
pub fn cost(graph: &Graph, plan: &Plan, sample_shapes: Option<&[Vec<usize>]>) -> Result<Cost> {
    Ok(plan::cost(graph, &facts::infer(graph, &input_shapes(graph, sample_shapes)?)?, plan))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::Builder;
    use crate::graph::{Cell, Direction, Fact, Recurrent};
    use crate::plan::Recipe;

    #[test]
    fn weights_of_recurrent_operators_are_no_layers() {
        let mut b = Builder::new();
        let x = b.input("x", vec![Dim::Known(5), Dim::Symbol("n".into()), Dim::Known(3)]);
        let (w, r) = (b.constant("w", &[1, 6, 3]), b.constant("r", &[1, 6, 2]));
        let y = b.node(
            Op::Recurrent(Recurrent::new(Cell::Gru { linear_before_reset: false }, Direction::Forward)),
            &[x, w, r],
        );
        let graph = b.finish(&[y]);
        let graph = prepare(&graph, None).unwrap();
        let facts = facts::infer(&graph, &[vec![5, 1, 3]]).unwrap();
        assert_eq!(facts.get(graph.outputs[0]).unwrap().shape, [5, 1, 1, 2]);
        let error = crate::plan::plan(&graph, &facts, &Recipe::default()).unwrap_err();
        assert!(error.to_string().starts_with("the network has no Conv"), "{error}");
    }

    #[test]
    fn inputs_and_sizes_are_fixed() {
        let mut graph = Graph::default();
        for (name, dims) in [("x", vec![Dim::Symbol("n".into()), Dim::Symbol("t".into())]), ("gain", vec![])] {
            let v = graph.add_value(name, Fact { dtype: Some(DType::F32), shape: Some(dims) });
            graph.inputs.push(v);
        }
        let error = fix(&mut graph, "x", &[1.0]).unwrap_err();
        assert_eq!(error.advice(), Some("fix the size before it: --fix t=1"));
        let error = fix(&mut graph, "y", &[1.0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--fix y: the network has no input and no size `y`; it has `x`, `gain`, `n`, `t`"
        );
        fix(&mut graph, "gain", &[1.5]).unwrap();
        assert_eq!(graph.inputs.len(), 1);
        fix(&mut graph, "t", &[2.0]).unwrap();
        assert!(fix(&mut graph, "n", &[0.5]).is_err());
        assert!(fix(&mut graph, "x", &[1.0, 2.0, 3.0]).unwrap_err().message().contains("one number or 2"));
        fix(&mut graph, "x", &[1.0, 2.0]).unwrap();
        let content: Vec<_> = graph.values.iter().map(|v| v.constant.as_deref().cloned()).collect();
        assert_eq!(content, [Some(Tensor::f32(&[1, 2], vec![1.0, 2.0])), Some(Tensor::scalar(1.5))]);
    }
}

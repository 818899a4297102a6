//! Reading, cleaning, planning and writing: thin functions over the modules that do it.

use super::unfold::{UNFOLDED, inline, unfold};
use crate::engine::facts;
use crate::error::{Error, Kind, Result};
use crate::graph::Graph;
use crate::onnx;
use crate::passes::{self, InputShapes};
use crate::plan::{self, Chosen, Cost, Plan, Recipe, Sensitivity};
use crate::probe::input_shapes;
use std::path::Path;

/// Reads the ONNX file at `path` with its external data.
pub fn load(path: &Path) -> Result<Graph> {
    onnx::read(path)
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
    use crate::graph::{Cell, Dim, Direction, Op, Recurrent};
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
}

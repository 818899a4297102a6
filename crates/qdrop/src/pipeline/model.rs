//! Reading, planning and writing: thin functions over the modules that do it.

use crate::engine::facts;
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, ValueId};
use crate::onnx;
use crate::plan::{self, Chosen, Cost, FactorSite, Plan, Recipe, Sensitivity};
use crate::probe::input_shapes;
use std::collections::BTreeMap;
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

/// Plans `graph` (simplified) by `recipe`; `sample_shapes` as in [`prepare`](crate::prepare::prepare). An error when a layer to quantize has a
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

/// Bits of `graph` (simplified) as `recipe` wants them chosen, by what was `measured`; `sample_shapes` as in [`prepare`](crate::prepare::prepare).
pub fn choose(
    graph: &Graph,
    recipe: &Recipe,
    measured: &Sensitivity,
    sample_shapes: Option<&[Vec<usize>]>,
) -> Result<Chosen> {
    plan::choose(graph, &facts::infer(graph, &input_shapes(graph, sample_shapes)?)?, recipe, measured)
}

/// What `plan` costs, which was made from `graph` (simplified); `sample_shapes` as in [`prepare`](crate::prepare::prepare).
pub fn cost(graph: &Graph, plan: &Plan, sample_shapes: Option<&[Vec<usize>]>) -> Result<Cost> {
    Ok(plan::cost(graph, &facts::infer(graph, &input_shapes(graph, sample_shapes)?)?, plan))
}

/// How the channels of activations may get factors with `recipe`, or why they may not, by the quantized value; nothing
/// where it wants none.
pub fn factor_sites(
    graph: &Graph,
    recipe: &Recipe,
    sample_shapes: Option<&[Vec<usize>]>,
) -> Result<BTreeMap<ValueId, std::result::Result<FactorSite, &'static str>>> {
    if recipe.resolved().factor_samples == 0 {
        return Ok(BTreeMap::new());
    }
    let facts = facts::infer(graph, &input_shapes(graph, sample_shapes)?)?;
    let plan = plan::plan_without_exceptions(graph, &facts, recipe)?;
    let sites = plan::factor_sites(graph, &facts, &plan, recipe.output.target);
    Ok(plan.sites.iter().map(|s| s.value).zip(sites).collect())
}

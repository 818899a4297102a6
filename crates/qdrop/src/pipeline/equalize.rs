//! Channels of tensors before depthwise convolutions brought to a common width.

use super::run;
use super::unit::Cache;
use super::walk::Walk;
use crate::calibrate::{self, LayerPair};
use crate::engine::facts::Facts;
use crate::error::Result;
use crate::graph::Graph;
use crate::plan::Plan;
use crate::report::{Event, Sink, Stage};
use crate::tensor::Shelf;
use rayon::ThreadPool;

/// `graph` with `pairs` of `plan` equalized by what `inputs` show.
pub(super) fn equalize(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    pairs: &[LayerPair],
    inputs: Cache,
    pool: &ThreadPool,
    sink: &mut dyn Sink,
) -> Result<Graph> {
    let mut equal = graph.clone();
    let shelf = Shelf::memory();
    let mut walk = Walk::new(graph, facts, inputs, pool, &shelf);
    let value = |pair: &LayerPair| plan.sites[pair.site.0 as usize].value;
    let order = walk.order(pairs.iter().map(|p| (value(p), p)));
    for (done, pair) in order.iter().enumerate() {
        run::go_on(sink)?;
        if let Some(values) = walk.until(value(pair))? {
            let exponents = pool.install(|| calibrate::exponents(plan, pair, values))?;
            calibrate::equalize(&mut equal, pair, &exponents)?;
        }
        sink.event(&Event::StageProgress { stage: Stage::Equalize, done: done + 1, total: order.len() });
    }
    Ok(equal)
}

//! Channels of tensors before depthwise convolutions brought to a common width.

use super::run;
use super::unit::Cache;
use super::walk::Walk;
use crate::calibrate;
use crate::engine::facts::Facts;
use crate::error::Result;
use crate::graph::Graph;
use crate::plan::Plan;
use crate::report::{Event, Sink, Stage};
use rayon::ThreadPool;

/// `graph` with all pairs of `plan` equalized by what `inputs` show.
pub(super) fn equalize(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    inputs: Cache,
    pool: &ThreadPool,
    sink: &mut dyn Sink,
) -> Result<Graph> {
    let mut equal = graph.clone();
    let pairs = calibrate::pairs(graph, plan);
    let mut walk = Walk::new(graph, facts, inputs, pool);
    let order = walk.order(plan, pairs.iter().map(|p| p.site.0 as usize));
    for (done, &site) in order.iter().enumerate() {
        run::go_on(sink)?;
        let Some(pair) = pairs.iter().find(|p| p.site.0 as usize == site) else { continue };
        if let Some(values) = walk.until(plan.sites[site].value)? {
            let exponents = pool.install(|| calibrate::exponents(plan, pair, values))?;
            calibrate::equalize(&mut equal, pair, &exponents)?;
        }
        sink.event(&Event::StageProgress { stage: Stage::Equalize, done: done + 1, total: order.len() });
    }
    Ok(equal)
}

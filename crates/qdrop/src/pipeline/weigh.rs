//! What elements of units' outputs weigh in the losses that units are solved for.
//!
//! A squared error counts every element alike. Where a network holds rare, huge values that matter to nobody, they
//! dominate it. Here elements count as much as the float network's outputs depend on them.

use super::run;
use crate::data::Samples;
use crate::engine::cpu::{Runner, sensitivity};
use crate::engine::facts::Facts;
use crate::engine::program::{Region, compile};
use crate::engine::train::LossWeights;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::plan::Plan;
use crate::report::{Event, Sink, Stage};
use crate::tensor::{DType, Rows};
use rayon::ThreadPool;
use std::collections::BTreeMap;

/// Weights of the elements of units' outputs.
pub(super) type Weights = BTreeMap<ValueId, LossWeights>;

/// Weights of the elements of all units' outputs that outputs of real numbers depend on.
pub(super) fn weigh(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    samples: &dyn Samples,
    seed: u64,
    pool: &ThreadPool,
    sink: &mut dyn Sink,
) -> Result<Weights> {
    let inputs = run::load(graph, samples, pool)?;
    let rows: Vec<Rows> = graph.inputs.iter().map(|v| inputs[v].clone()).collect();
    let outputs = run::real_outputs(graph, facts);
    let nodes = run::behind(graph, &outputs);
    let computed = |v: &ValueId| nodes.iter().any(|&n| graph.node(n).outputs.contains(&Some(*v)));
    let real = |v: &ValueId| facts.get(*v).is_some_and(|f| f.dtype == DType::F32);
    let mut values: Vec<ValueId> = plan.units.iter().flat_map(|u| u.outputs.iter().copied()).collect();
    values.retain(|v| computed(v) && real(v));
    values.sort_unstable();
    values.dedup();
    let region = Region { nodes, inputs: graph.inputs.clone(), outputs, ..Region::default() };
    let float = Runner::new(&compile(graph, facts, &region)?)?;
    let sizes: Vec<f32> = pool.install(|| float.run(&[], &[], &rows))?.iter().map(size).collect();
    let region = Region { sites: values.iter().map(|&v| (v, None)).collect(), ..region };
    let program = compile(graph, facts, &region)?;
    let mut progress = |done| {
        sink.event(&Event::StageProgress { stage: Stage::Weigh, done, total: samples.len() });
        run::go_on(sink)
    };
    let weights = sensitivity(&program, &rows, &sizes, seed, pool, &mut progress)?;
    Ok(values.into_iter().zip(weights).filter_map(|(v, w)| Some((v, w?))).collect())
}

/// Root mean square.
fn size(rows: &Rows) -> f32 {
    let (mut energy, mut count) = (f64::MIN_POSITIVE, 0);
    for row in rows.iter() {
        energy += row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        count += row.len();
    }
    (energy / count.max(1) as f64).sqrt().max(f64::from(f32::MIN_POSITIVE)) as f32
}

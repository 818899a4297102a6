//! What elements of units' outputs weigh in the losses that units are solved for.
//!
//! A squared error counts every element alike. Where a network holds rare, huge values that matter to nobody, they
//! dominate it. Here elements count as much as the float network's outputs depend on them.

use super::reconstruct::Job;
use super::run;
use super::unit::Cache;
use crate::engine::cpu::{Runner, sensitivity};
use crate::engine::program::{Region, compile};
use crate::engine::train::LossWeights;
use crate::error::Result;
use crate::graph::ValueId;
use crate::tensor::{DType, Rows};
use std::collections::BTreeMap;

/// Weights of the elements of units' outputs.
pub(super) type Weights = BTreeMap<ValueId, LossWeights>;

impl Job<'_> {
    /// Weights of the elements of all units' outputs that outputs of real numbers depend on, for the network's `inputs`.
    pub fn weigh(&self, inputs: &Cache) -> Result<Weights> {
        let outputs = run::real_outputs(self.graph, self.facts);
        let nodes = run::behind(self.graph, &outputs);
        let rows: Vec<Rows> = self.graph.inputs.iter().map(|v| inputs[v].clone()).collect();
        let computed = |v: &ValueId| nodes.iter().any(|&n| self.graph.node(n).outputs.contains(&Some(*v)));
        let real = |v: &ValueId| self.facts.get(*v).is_some_and(|f| f.dtype == DType::F32);
        let mut values: Vec<ValueId> = self.plan.units.iter().flat_map(|u| u.outputs.iter().copied()).collect();
        values.retain(|v| computed(v) && real(v));
        values.sort_unstable();
        values.dedup();
        let region = Region { nodes, inputs: self.graph.inputs.clone(), outputs, ..Region::default() };
        let float = Runner::new(&compile(self.graph, self.facts, &region)?)?;
        let sizes: Vec<f32> = self.pool.install(|| float.run(&[], &[], &rows))?.iter().map(size).collect();
        let region = Region { sites: values.iter().map(|&v| (v, None)).collect(), ..region };
        let program = compile(self.graph, self.facts, &region)?;
        let seed = self.recipe.method.seed;
        let weights = self.pool.install(|| sensitivity(&program, &rows, &sizes, seed))?;
        Ok(values.into_iter().zip(weights).filter_map(|(v, w)| Some((v, w?))).collect())
    }
}

/// Root mean square.
fn size(rows: &Rows) -> f32 {
    let (mut energy, mut count) = (f64::MIN_POSITIVE, 0);
    for row in rows.iter() {
        energy += row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        count += row.len();
    }
    (energy / f64::from(count.max(1) as u32)).sqrt().max(f64::from(f32::MIN_POSITIVE)) as f32
}

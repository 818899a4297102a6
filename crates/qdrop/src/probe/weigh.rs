//! What elements of units' outputs weigh in the losses that units are solved for.
//!
//! A squared error counts every element alike. Where a network holds rare, huge values that matter to nobody, they
//! dominate it. Here elements count as much as the float network's outputs depend on them.

use super::run::{self, Cache};
use crate::engine::device::{Device, OutputError};
use crate::engine::facts::Facts;
use crate::engine::program::{Region, compile};
use crate::engine::train::LossWeights;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::plan::Plan;
use crate::report::{Event, Sink, Stage};
use crate::tensor::{DType, Rows};
use std::collections::BTreeMap;

/// Least root mean square of an output.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// Weights of the elements of units' outputs.
pub(crate) type Weights = BTreeMap<ValueId, LossWeights>;

/// Weights of the elements of all units' outputs that outputs of real numbers depend on, for the network's `inputs`.
/// `outputs` are what the elements of the values of [`run::ends`] weigh themselves.
pub(crate) fn weigh(
    graph: &Graph,
    facts: &Facts,
    plan: &Plan,
    (inputs, outputs): (&Cache, &[Option<LossWeights>]),
    seed: u64,
    device: &dyn Device,
    sink: &mut dyn Sink,
) -> Result<Weights> {
    let rows: Vec<Rows> = graph.inputs.iter().map(|v| inputs[v].clone()).collect();
    let region = run::whole(graph, facts);
    let computed = |v: &ValueId| region.nodes.iter().any(|&n| graph.node(n).outputs.contains(&Some(*v)));
    let real = |v: &ValueId| facts.get(*v).is_some_and(|f| f.dtype == DType::F32);
    let mut values: Vec<ValueId> = plan.units.iter().flat_map(|u| u.outputs.iter().copied()).collect();
    values.retain(|v| computed(v) && real(v));
    values.sort_unstable();
    values.dedup();
    let float = device.inference(&compile(graph, facts, &region)?)?;
    let energies = run::energies(float, &rows, (f64::MIN_POSITIVE, outputs), sink)?;
    let size = |&(energy, count): &(f64, usize)| (energy / count.max(1) as f64).sqrt().max(SMALLEST) as f32;
    let output =
        |(energy, weights): (_, &Option<LossWeights>)| OutputError { size: size(energy), weights: weights.clone() };
    let outputs: Vec<OutputError> = energies.iter().zip(outputs).map(output).collect();
    let region = Region { sites: values.iter().map(|&v| (v, None)).collect(), ..region };
    let program = compile(graph, facts, &region)?;
    let total = rows.first().map_or(0, Rows::len);
    let mut progress = |done| {
        sink.event(&Event::StageProgress { stage: Stage::Weigh, done, total });
        run::go_on(sink)
    };
    let weights = device.sensitivity(&program, &rows, &outputs, seed, &mut progress)?;
    Ok(values.into_iter().zip(weights).filter_map(|(v, w)| Some((v, w?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::processors;
    use crate::engine::facts;
    use crate::graph::{Binary, Dim, Fact, Node, NodeId, Op, Unary};
    use crate::plan::Unit;
    use crate::report::Silent;
    use crate::tensor::Tensor;

    #[test]
    fn what_the_outputs_depend_on_counts() {
        // y = relu(x)·w, and a product whose result leads nowhere.
        let mut g = Graph { opset: 17, ..Graph::default() };
        let shape = |n| Some(vec![Dim::Symbol("n".into()), Dim::Known(n)]);
        let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape: shape(3) });
        let w = g.add_constant("w", Tensor::f32(&[3, 2], vec![0.0, 0.0, 1.0, -1.0, 2.0, 2.0]));
        let [r, y, dead] = ["r", "y", "dead"].map(|n| g.add_value(n, Fact::default()));
        g.nodes = vec![
            Node::new("relu", Op::Unary(Unary::Relu), &[x], &[r]),
            Node::new("y", Op::MatMul, &[r, w], &[y]),
            Node::new("dead", Op::Binary(Binary::Mul), &[r, r], &[dead]),
        ];
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        let unit = |nodes: &[u32], outputs: &[ValueId]| Unit {
            nodes: nodes.iter().map(|&n| NodeId(n)).collect(),
            outputs: outputs.to_vec(),
            ..Unit::default()
        };
        let units = vec![unit(&[0], &[r]), unit(&[1, 2], &[y, dead])];
        let plan = Plan { units, ..Plan::default() };
        let facts = facts::infer(&g, &[vec![1, 3]]).unwrap();
        let rows = (0..2000).flat_map(|i| [60.0, (i % 8) as f32, (i % 5) as f32 + 1.0]);
        let inputs = Cache::from([(x, Rows::new(2000, rows.collect()))]);
        let weights = weigh(&g, &facts, &plan, (&inputs, &[None]), 7, &processors(1).unwrap(), &mut Silent).unwrap();
        assert_eq!(weights.keys().copied().collect::<Vec<_>>(), [r, y]);
        // Squares of the rows of w are 0, 2 and 8.
        let found = &weights[&r].channels;
        assert!(found[0] == 0.01 && (found[1] - 0.6).abs() < 0.06 && (found[2] - 2.4).abs() < 0.12, "{found:?}");
        assert_eq!(weights[&y].channels, [1.0, 1.0]);
    }
}

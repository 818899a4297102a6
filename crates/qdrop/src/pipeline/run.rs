//! Runs a whole network over samples, a few samples at a time on each thread.

use super::shapes::input_shapes;
use crate::data::Samples;
use crate::engine::facts::{self, Facts};
use crate::engine::ops::{self, View};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, Node, ValueId};
use crate::report::{Event, Sink, Stage};
use crate::tensor::{DType, Tensor};
use rayon::prelude::*;

/// Samples each thread takes between two looks at the sink.
const CHUNK: usize = 8;

/// A network ready to be run on one sample.
pub(super) struct Network<'a> {
    graph: &'a Graph,
    facts: Facts,
    /// Per value: its content as f32 when constant.
    constants: Vec<Option<Vec<f32>>>,
    /// Per node: values that nothing after it reads.
    dead: Vec<Vec<ValueId>>,
    /// Values to hand out.
    wanted: Vec<ValueId>,
}

impl<'a> Network<'a> {
    /// Prepares `graph` for samples of `shapes` (no batch axis); running it yields the values `wanted`.
    pub fn new(graph: &'a Graph, shapes: &[Vec<usize>], wanted: Vec<ValueId>) -> Result<Self> {
        let facts = facts::infer(graph, &input_shapes(graph, Some(shapes))?)?;
        let mut constants = vec![None; graph.values.len()];
        let read = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten()).chain(&wanted);
        for &v in read {
            let constant = facts.get(v).and_then(|f| f.constant.as_deref());
            if let (Some(tensor), None) = (constant, &constants[v.0 as usize]) {
                constants[v.0 as usize] = Some(tensor.to_f32()?);
            }
        }
        let mut last = vec![None; graph.values.len()];
        for id in graph.node_ids() {
            for v in graph.node(id).inputs.iter().chain(&graph.node(id).outputs).flatten() {
                last[v.0 as usize] = Some(id);
            }
        }
        let mut dead = vec![Vec::new(); graph.nodes.len()];
        for v in graph.value_ids().filter(|v| !wanted.contains(v)) {
            if let Some(id) = last[v.0 as usize] {
                dead[id.0 as usize].push(v);
            }
        }
        Ok(Network { graph, facts, constants, dead, wanted })
    }

    /// The wanted values of one sample.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Vec<f32>>> {
        let mut values: Vec<Option<Vec<f32>>> = vec![None; self.graph.values.len()];
        for (&v, tensor) in self.graph.inputs.iter().zip(inputs) {
            values[v.0 as usize] = Some(tensor.to_f32()?);
        }
        for id in self.graph.node_ids() {
            let node = self.graph.node(id);
            let computed = node.outputs.iter().flatten().any(|&v| self.constant(v).is_none());
            if computed {
                let results = self.step(node, &values).map_err(|e| e.at(self.graph.describe(id)))?;
                for (slot, result) in node.outputs.iter().zip(results) {
                    if let Some(v) = slot {
                        values[v.0 as usize] = Some(result);
                    }
                }
            }
            for v in &self.dead[id.0 as usize] {
                values[v.0 as usize] = None;
            }
        }
        let hand_out = |&v: &ValueId| match (values[v.0 as usize].take(), self.constant(v)) {
            (Some(value), _) => Ok(value),
            (None, Some(constant)) => Ok(constant.to_vec()),
            _ => Err(self.missing(v)),
        };
        self.wanted.iter().map(hand_out).collect()
    }

    fn constant(&self, v: ValueId) -> Option<&[f32]> {
        self.constants[v.0 as usize].as_deref()
    }

    fn missing(&self, v: ValueId) -> Error {
        let error = Error::unsupported(format!("value `{}` cannot be computed", self.graph.value(v).name));
        error.hint("it depends on an operator that cannot be run here")
    }

    fn step(&self, node: &Node, values: &[Option<Vec<f32>>]) -> Result<Vec<Vec<f32>>> {
        let view = |operand: &Option<ValueId>| match *operand {
            None => Ok(None),
            Some(v) => {
                let data = values[v.0 as usize].as_deref().or_else(|| self.constant(v));
                let fact = self.facts.get(v);
                match (data, fact) {
                    (Some(data), Some(fact)) => Ok(Some(View { dtype: fact.dtype, shape: &fact.shape, data })),
                    _ => Err(self.missing(v)),
                }
            }
        };
        let operands = node.inputs.iter().map(view).collect::<Result<Vec<_>>>()?;
        let results = node.outputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        Ok(ops::forward::<f32>(&node.op, &operands, results)?.into_iter().map(|a| a.data).collect())
    }
}

/// Calls `job` for every sample on `threads` threads (0: all cores) and `take` with the results in sample order on the
/// calling thread. Tells `sink` how far it is and stops when it asks to.
pub(super) fn each<T: Send>(
    samples: &dyn Samples,
    threads: usize,
    stage: Stage,
    sink: &mut dyn Sink,
    job: impl Fn(usize, Vec<Tensor>) -> Result<T> + Sync,
    mut take: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::new(Kind::Io, format!("cannot start threads: {e}")))?;
    let total = samples.len();
    let chunk = CHUNK * pool.current_num_threads();
    let mut done = 0;
    while done < total {
        if sink.cancelled() {
            return Err(Error::new(Kind::Interrupted, "stopped on request"));
        }
        let next = (done + chunk).min(total);
        let results: Vec<Result<T>> =
            pool.install(|| (done..next).into_par_iter().map(|i| job(i, samples.get(i)?)).collect());
        for (i, result) in (done..next).zip(results) {
            take(i, result?)?;
        }
        done = next;
        sink.event(&Event::StageProgress { stage, done, total });
    }
    Ok(())
}

/// Shapes of the first sample, without batch axis.
pub(super) fn shapes_of(samples: &dyn Samples) -> Result<Vec<Vec<usize>>> {
    if samples.is_empty() {
        return Err(Error::data("expected samples, got none"));
    }
    Ok(samples.get(0)?.iter().map(|t| t.shape().to_vec()).collect())
}

/// Whether values of this type can be compared as numbers.
pub(super) fn is_real(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

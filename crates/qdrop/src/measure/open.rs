//! Networks with outputs whose sizes depend on data.

use super::samples::Checked;
use crate::engine::device::{Device, beside, processors};
use crate::engine::facts::{self, Facts};
use crate::engine::ops::Array;
use crate::engine::stepwise::{Stepwise, needed};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, LoopBodies, ValueId};
use crate::onnx;
use crate::probe::{Network, each, go_on, input_shapes, shapes_of};
use crate::report::{Sink, Stage};
use crate::tensor::{DType, Tensor};
use rayon::prelude::*;

/// An output for one sample.
pub(super) struct Given {
    pub name: String,
    pub shape: Vec<usize>,
    pub integer: bool,
    pub values: Vec<f32>,
}

/// A network whose outputs may have other sizes for each sample.
pub(super) struct Open<'a> {
    /// What does not depend on data.
    network: Network,
    rest: Stepwise,
    /// Why an output is left out.
    missing: Option<Error>,
    device: &'a dyn Device,
}

impl<'a> Open<'a> {
    /// `graph` (simplified), where the sizes of some of its outputs depend on data: those of its outputs that can be computed;
    /// an error inside where none can. `shapes` are those of one sample, without the batch axis.
    pub fn new(graph: &Graph, shapes: &[Vec<usize>], device: &'a dyn Device) -> Result<Option<Result<Self>>> {
        let facts = facts::infer(graph, &input_shapes(graph, Some(shapes))?)?;
        let open = graph.outputs.iter().any(|&v| facts.get(v).is_none());
        Ok(open.then(|| {
            let (graph, facts, loops) = branched(graph, shapes)?;
            let (outputs, missing) = computed(&graph, &facts, &loops)?;
            Ok(Open { missing, ..Self::of(graph, &facts, &outputs, loops, device)? })
        }))
    }

    /// All outputs of `graph`, whatever they depend on.
    pub fn any(graph: &Graph, shapes: &[Vec<usize>], device: &'a dyn Device) -> Result<Self> {
        let (branched, facts, loops) = branched(graph, shapes)?;
        Self::of(branched, &facts, &graph.outputs, loops, device)
    }

    fn of(graph: Graph, facts: &Facts, outputs: &[ValueId], loops: LoopBodies, device: &'a dyn Device) -> Result<Self> {
        let rest = Stepwise::new(graph, facts, outputs, loops)?;
        let network = Network::of(rest.graph(), facts, rest.inputs().collect(), device)?;
        Ok(Open { network, rest, missing: None, device })
    }

    /// `error` about the outputs; where one is left out and they are not recognised, why it is.
    pub fn explain(self, error: Error) -> Error {
        self.missing.filter(|_| error.kind() == Kind::Unsupported).unwrap_or(error)
    }

    /// Samples to run at a time, at most.
    pub fn chunk(&self) -> usize {
        self.network.chunk
    }

    /// The outputs for each of `samples`, in the order of the graph's.
    pub fn run(&self, samples: &[Vec<Tensor>], sink: &dyn Sink) -> Result<Vec<Vec<Given>>> {
        let rows = self.network.run(samples, sink)?;
        let one = |sample: usize| {
            let values = rows.iter().map(|rows| rows.row(sample)).collect::<Result<Vec<_>>>()?;
            let values: Vec<&[f32]> = values.iter().map(|v| &**v).collect();
            let found = self.rest.run(&values, self.device, &|| go_on(sink))?;
            let given = |(&v, array): (&ValueId, Array<f64>)| Given {
                name: self.rest.graph().value(v).name.clone(),
                shape: array.shape,
                integer: matches!(array.dtype, DType::I32 | DType::I64),
                values: array.data.into_iter().map(|x| x as f32).collect(),
            };
            Ok(self.rest.outputs().iter().zip(found).map(given).collect())
        };
        beside(self.device, || (0..samples.len()).into_par_iter().map(one).collect())
    }
}

/// Whether outputs of `graph` (simplified) can be computed, those whose sizes depend on data among them.
pub(super) fn computes(graph: &Graph, shapes: &[Vec<usize>]) -> Result<bool> {
    let (branched, facts, loops) = branched(graph, shapes)?;
    Ok(computed(&branched, &facts, &loops).is_ok())
}

/// The outputs of `graph` that can be computed, and why another one cannot; an error where there is none.
fn computed(graph: &Graph, facts: &Facts, loops: &LoopBodies) -> Result<(Vec<ValueId>, Option<Error>)> {
    let (mut found, mut missing) = (Vec::new(), None);
    for &v in &graph.outputs {
        match needed(graph, facts, &[v], loops) {
            Ok(_) => found.push(v),
            Err(error) => missing = missing.or(Some(error)),
        }
    }
    match missing {
        Some(error) if found.is_empty() => Err(error),
        missing => Ok((found, missing)),
    }
}

/// `graph` with the branches of every If in place of it, its facts, and the bodies of its Loops.
fn branched(graph: &Graph, shapes: &[Vec<usize>]) -> Result<(Graph, Facts, LoopBodies)> {
    let mut graph = graph.clone();
    onnx::branch(&mut graph)?;
    let facts = facts::infer(&graph, &input_shapes(&graph, Some(shapes))?)?;
    let loops = onnx::loop_bodies(&graph)?;
    Ok((graph, facts, loops))
}

/// An output of a network for one sample.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its shape, without the batch axis in front.
    pub shape: &'a [usize],
    /// Its values, in row-major order.
    pub values: &'a [f32],
}

/// Which outputs of `graph` have the batch axis in front. A first size that depends on data is no batch; where it is not
/// known, what the file declares counts.
pub(super) fn batched(graph: &Graph, facts: &Facts) -> Vec<bool> {
    let declared = |v: ValueId| graph.value(v).fact.shape.as_ref()?.first();
    let mut inputs = graph.inputs.iter().zip(graph.batch_axes());
    let batch = inputs.find_map(|(&v, axis)| if axis == Some(0) { declared(v) } else { None });
    let one = |&v: &ValueId| match facts.get(v) {
        Some(fact) => fact.shape.first() == Some(&1),
        None => batch.is_some() && declared(v) == batch,
    };
    graph.outputs.iter().map(one).collect()
}

/// What `outputs`, of which some are `batched`, are to callers.
pub(super) fn answers<'a>(outputs: &'a [Given], batched: &[bool]) -> Vec<Answer<'a>> {
    let one = |(output, &batched): (&'a Given, &bool)| {
        let skipped = usize::from(batched && output.shape.first() == Some(&1));
        Answer { shape: &output.shape[skipped..], values: &output.values }
    };
    outputs.iter().zip(batched).map(one).collect()
}

/// Calls `take` with the index of every one of `samples` and all outputs of `graph` (simplified), in order. `threads` 0 takes
/// all cores.
pub fn outputs(
    graph: &Graph,
    samples: &Checked,
    threads: usize,
    sink: &mut dyn Sink,
    mut take: impl FnMut(usize, &[Answer<'_>]) -> Result<()>,
) -> Result<()> {
    let device = &processors(threads)?;
    let shapes = shapes_of(samples)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let batched = batched(graph, &facts);
    let network = Open::any(graph, &shapes, device)?;
    let job = |_, inputs: &[Vec<Tensor>], sink: &dyn Sink| network.run(inputs, sink);
    each(samples, 1..=network.chunk(), device, Stage::Evaluate, sink, job, |first, all| {
        for (index, outputs) in (first..).zip(&all) {
            take(index, &answers(outputs, &batched))?;
        }
        Ok(())
    })
}

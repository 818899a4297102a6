//! Runs a whole network over samples.

use super::shapes::input_shapes;
use super::unit::Cache;
use crate::data::Samples;
use crate::engine::cpu::Runner;
use crate::engine::facts::{self, Facts};
use crate::engine::program::{Region, compile};
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, NodeId, ValueId};
use crate::report::{Event, Sink, Stage};
use crate::tensor::{DType, Rows, RowsWriter, Shelf, Tensor};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Elements handed out between two looks at the sink, about.
const CHUNK: usize = 1 << 22;
/// Samples between two looks at the sink at most.
pub(super) const SAMPLES: usize = 64;

/// What answers for samples: a network in the engine, or a file in another runtime.
pub(super) trait Answering: Sync {
    /// Samples to run at a time.
    fn chunk(&self) -> usize;

    /// The wanted values of `samples`.
    fn run(&self, samples: &[Vec<Tensor>]) -> Result<Vec<Rows>>;
}

/// A network ready to be run.
pub(super) struct Network {
    runner: Runner,
    /// Samples to run at a time.
    pub chunk: usize,
}

impl Answering for Network {
    fn chunk(&self) -> usize {
        self.chunk
    }

    fn run(&self, samples: &[Vec<Tensor>]) -> Result<Vec<Rows>> {
        Network::run(self, samples)
    }
}

impl Network {
    /// Prepares `graph` for samples of `shapes` (no batch axis) on `threads` threads (0: all cores); running it yields
    /// the values `wanted`.
    pub fn new(graph: &Graph, shapes: &[Vec<usize>], wanted: Vec<ValueId>, threads: usize) -> Result<Self> {
        let facts = facts::infer(graph, &input_shapes(graph, Some(shapes))?)?;
        computable(graph, &facts, &wanted)?;
        let elements: usize = wanted.iter().filter_map(|&v| facts.get(v)).map(facts::ValueFact::numel).sum();
        let nodes = behind(graph, &wanted);
        let region = Region { nodes, inputs: graph.inputs.clone(), outputs: wanted, ..Region::default() };
        let runner = Runner::new(&compile(graph, &facts, &region)?)?;
        Ok(Network { chunk: chunk(elements, threads), runner })
    }

    /// The wanted values of `samples`.
    pub fn run(&self, samples: &[Vec<Tensor>]) -> Result<Vec<Rows>> {
        self.runner.run(&[], &[], &rows(samples)?, &Shelf::memory())
    }
}

/// That all of `wanted` can be computed.
pub(super) fn computable(graph: &Graph, facts: &Facts, wanted: &[ValueId]) -> Result<()> {
    match wanted.iter().find(|&&v| facts.get(v).is_none()) {
        Some(&v) => {
            let error = Error::unsupported(format!("value `{}` cannot be computed", graph.value(v).name));
            Err(error.hint("it depends on an operator that cannot be run here; try `--runtime ort`"))
        }
        None => Ok(()),
    }
}

/// Samples that are run at a time on `threads` threads, each with `elements` elements wanted.
pub(super) fn chunk(elements: usize, threads: usize) -> usize {
    let threads = if threads == 0 { rayon::current_num_threads() } else { threads };
    (CHUNK / elements.max(1)).max(threads).min(SAMPLES)
}

/// The nodes that `wanted` depend on, in order.
pub(super) fn behind(graph: &Graph, wanted: &[ValueId]) -> Vec<NodeId> {
    let mut needed: BTreeSet<ValueId> = wanted.iter().copied().collect();
    let mut nodes: Vec<NodeId> = Vec::new();
    for id in graph.node_ids().collect::<Vec<_>>().into_iter().rev() {
        let node = graph.node(id);
        if node.outputs.iter().flatten().any(|v| needed.contains(v)) {
            needed.extend(node.inputs.iter().flatten().chain(&node.captures));
            nodes.push(id);
        }
    }
    nodes.reverse();
    nodes
}

/// Samples as rows, per input.
pub(super) fn rows(samples: &[Vec<Tensor>]) -> Result<Vec<Rows>> {
    let inputs = samples.first().map_or(0, Vec::len);
    let input = |i: usize| {
        let mut data = Vec::new();
        for sample in samples {
            data.extend_from_slice(&sample[i].to_f32()?);
        }
        Ok(Rows::new(samples.len(), data))
    };
    (0..inputs).map(input).collect()
}

/// All samples, per input of the graph, on `shelf`.
pub(super) fn load(graph: &Graph, samples: &dyn Samples, pool: &rayon::ThreadPool, shelf: &Shelf) -> Result<Cache> {
    let n = samples.len();
    let mut all: Vec<RowsWriter> = Vec::new();
    let indices: Vec<usize> = (0..n).collect();
    for some in indices.chunks(SAMPLES) {
        let loaded = pool.install(|| some.par_iter().map(|&i| samples.get(i)).collect::<Result<Vec<_>>>())?;
        for sample in &loaded {
            if all.is_empty() {
                all = sample.iter().map(|t| shelf.rows(n, t.len())).collect::<Result<_>>()?;
            }
            all.iter_mut().zip(sample).try_for_each(|(to, tensor)| to.push(&tensor.to_f32()?))?;
        }
    }
    Ok(graph.inputs.iter().copied().zip(all.into_iter().map(RowsWriter::finish)).collect())
}

/// Calls `job` for `chunk` samples after the other on `threads` threads (0: all cores), each chunk with its first
/// index, and `take` with the result on the calling thread. Tells `sink` how far it is and stops when it asks to.
pub(super) fn each<T: Send>(
    samples: &dyn Samples,
    chunk: usize,
    threads: usize,
    stage: Stage,
    sink: &mut dyn Sink,
    job: impl Fn(&[Vec<Tensor>]) -> Result<T> + Sync,
    mut take: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let pool = pool(threads)?;
    let total = samples.len();
    let mut done = 0;
    while done < total {
        go_on(sink)?;
        let next = (done + chunk).min(total);
        let result = pool.install(|| {
            let loaded = (done..next).into_par_iter().map(|i| samples.get(i)).collect::<Result<Vec<_>>>()?;
            job(&loaded)
        })?;
        take(done, result)?;
        done = next;
        sink.event(&Event::StageProgress { stage, done, total });
    }
    Ok(())
}

/// An error when `sink` asks to stop.
pub(super) fn go_on(sink: &dyn Sink) -> Result<()> {
    if sink.cancelled() { Err(Error::new(Kind::Interrupted, "stopped on request")) } else { Ok(()) }
}

/// A pool of `threads` threads (0: one for each core).
pub(super) fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| Error::new(Kind::Io, format!("cannot start threads: {e}")))
}

/// Shapes of the first sample, without batch axis.
pub(super) fn shapes_of(samples: &dyn Samples) -> Result<Vec<Vec<usize>>> {
    if samples.is_empty() {
        return Err(Error::data("expected samples, got none"));
    }
    Ok(samples.get(0)?.iter().map(|t| t.shape().to_vec()).collect())
}

/// Shapes of one sample with its batch axis, per input of `graph`.
pub(super) fn input_facts(graph: &Graph, facts: &Facts) -> Vec<Vec<usize>> {
    graph.inputs.iter().filter_map(|&v| facts.get(v)).map(|f| f.shape.clone()).collect()
}

/// Where the part of `graph` that can be run ends, in values that can be compared as numbers: its outputs, and whatever
/// what cannot be run reads.
pub(super) fn ends(graph: &Graph, facts: &Facts) -> Vec<ValueId> {
    let real = |v: &ValueId| facts.get(*v).is_some_and(|f| is_real(f.dtype));
    let mut ends: Vec<ValueId> = graph.outputs.iter().copied().filter(real).collect();
    ends.extend(borders(graph, facts).into_iter().filter(|v| !graph.outputs.contains(v)));
    ends
}

/// Computed values of real numbers that an output depends on by way of what cannot be run, in order.
pub(super) fn borders(graph: &Graph, facts: &Facts) -> Vec<ValueId> {
    let unknown = |v: &&ValueId| facts.get(**v).is_none();
    let lost: Vec<ValueId> = graph.outputs.iter().filter(unknown).copied().collect();
    let mut read = BTreeSet::new();
    for id in behind(graph, &lost) {
        let node = graph.node(id);
        if node.outputs.iter().flatten().any(|v| facts.get(*v).is_none()) {
            read.extend(node.inputs.iter().flatten().chain(&node.captures).copied());
        }
    }
    let real = |v: &ValueId| facts.get(*v).is_some_and(|f| is_real(f.dtype) && f.constant.is_none());
    let made = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied());
    made.filter(|v| read.contains(v) && real(v)).collect()
}

/// Whether values of this type can be compared as numbers.
pub(super) fn is_real(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::Builder;
    use crate::graph::{Binary, Op, Unary};

    #[test]
    fn what_can_be_run_ends_at_outputs_and_before_what_cannot() {
        let opaque = || Op::Opaque { domain: "com.example".into(), kind: "Strange".into() };
        let mut b = Builder::new();
        let x = b.images(3, 4);
        let read = b.conv_relu("a", x, 3, 4, 3);
        let aside = b.conv_relu("b", read, 4, 4, 3);
        let inner = b.node(Op::Unary(Unary::Sigmoid), &[read]);
        let other = b.conv_relu("c", inner, 4, 4, 3);
        let strange = b.node(opaque(), &[read]);
        let lost = b.binary(Binary::Add, strange, other);
        let unread = b.node(opaque(), &[inner]);
        let graph = b.finish(&[lost, aside]);
        let facts = facts::infer(&graph, &[vec![1, 3, 4, 4]]).unwrap();
        assert!(facts.get(unread).is_none());
        assert_eq!(borders(&graph, &facts), [read, other]);
        assert_eq!(ends(&graph, &facts), [aside, read, other]);
        let whole = Graph { outputs: vec![aside], ..graph };
        assert_eq!(ends(&whole, &facts), [aside]);
    }
}

//! Runs a whole network over samples.

use super::shapes::input_shapes;
use crate::data::Samples;
use crate::engine::device::{Device, Inference, beside};
use crate::engine::facts::{self, Facts};
use crate::engine::program::{Region, compile};
use crate::engine::train::LossWeights;
use crate::error::{Error, Kind, Result};
use crate::graph::{Graph, NodeId, Op, ValueId};
use crate::report::{Event, Sink, Stage};
use crate::tensor::{DType, RowStore, Rows, RowsWriter, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Values of samples by what they are values of.
pub(crate) type Cache = BTreeMap<ValueId, Rows>;

/// Elements handed out between two looks at the sink, about.
const CHUNK: usize = 1 << 22;
/// Samples between two looks at the sink at most.
pub(crate) const SAMPLES: usize = 64;
/// What takes less time between two looks at the sink may take more.
const BRIEF: Duration = Duration::from_millis(200);

/// What answers for samples: a network in the engine, or a file in another runtime.
pub(crate) trait Answering: Sync {
    /// Samples to run at a time.
    fn chunk(&self) -> RangeInclusive<usize>;

    /// The wanted values of `samples`; stops when `sink` asks to.
    fn run(&self, samples: &[Vec<Tensor>], sink: &dyn Sink) -> Result<Vec<Rows>>;
}

/// A network ready to be run.
pub(crate) struct Network {
    ready: Box<dyn Inference>,
    /// Samples to run at a time, at most.
    pub chunk: usize,
}

impl Answering for Network {
    fn chunk(&self) -> RangeInclusive<usize> {
        1..=self.chunk
    }

    fn run(&self, samples: &[Vec<Tensor>], sink: &dyn Sink) -> Result<Vec<Rows>> {
        Network::run(self, samples, sink)
    }
}

impl Network {
    /// Prepares `graph` on `device` for samples of `shapes` (no batch axis); running it yields
    /// the values `wanted`.
    pub fn new(graph: &Graph, shapes: &[Vec<usize>], wanted: Vec<ValueId>, device: &dyn Device) -> Result<Self> {
        Self::of(graph, &facts::infer(graph, &input_shapes(graph, Some(shapes))?)?, wanted, device)
    }

    /// As [`Network::new`], for samples of the shapes from which the `facts` of `graph` follow.
    pub fn of(graph: &Graph, facts: &Facts, wanted: Vec<ValueId>, device: &dyn Device) -> Result<Self> {
        computable(graph, facts, &wanted)?;
        let elements: usize = wanted.iter().filter_map(|&v| facts.get(v)).map(facts::ValueFact::numel).sum();
        let nodes = behind(graph, &wanted);
        let region = Region { nodes, inputs: graph.inputs.clone(), outputs: wanted, ..Region::default() };
        let ready = device.inference(&compile(graph, facts, &region)?)?;
        Ok(Network { chunk: chunk(elements, device), ready })
    }

    /// The wanted values of `samples`; stops when `sink` asks to.
    pub fn run(&self, samples: &[Vec<Tensor>], sink: &dyn Sink) -> Result<Vec<Rows>> {
        self.run_rows(&rows(samples)?, sink)
    }

    /// As [`Network::run`], for samples as rows, per input.
    pub fn run_rows(&self, inputs: &[Rows], sink: &dyn Sink) -> Result<Vec<Rows>> {
        self.ready.run_while(&[], &[], inputs, &RowStore::memory(), &mut || go_on(sink))
    }
}

/// That all of `wanted` can be computed.
pub(crate) fn computable(graph: &Graph, facts: &Facts, wanted: &[ValueId]) -> Result<()> {
    match wanted.iter().find(|&&v| facts.get(v).is_none()) {
        Some(&v) => {
            let error = Error::unsupported(format!("value `{}` cannot be computed", graph.value(v).name));
            Err(error.hint("it depends on an operator that cannot be run here; try `--runtime ort`"))
        }
        None => Ok(()),
    }
}

/// Samples that are run at a time on `device`, each with `elements` elements wanted.
pub(crate) fn chunk(elements: usize, device: &dyn Device) -> usize {
    (CHUNK / elements.max(1)).max(device.parallel()).min(SAMPLES)
}

/// The nodes that `wanted` depend on, in order.
pub(crate) fn behind(graph: &Graph, wanted: &[ValueId]) -> Vec<NodeId> {
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

/// The part of `graph` that computes `values`, each of which is shown.
pub(crate) fn shown(graph: &Graph, values: &[ValueId]) -> Region {
    let sites = values.iter().map(|&v| (v, None)).collect();
    Region { nodes: behind(graph, values), inputs: graph.inputs.clone(), sites, ..Region::default() }
}

/// Samples as rows, per input.
pub(crate) fn rows(samples: &[Vec<Tensor>]) -> Result<Vec<Rows>> {
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

/// Some of the samples of `inputs`.
pub(crate) fn part(inputs: &Cache, samples: &[usize]) -> Result<Cache> {
    inputs.iter().map(|(&v, rows)| Ok((v, rows.some(samples)?))).collect()
}

/// All samples, per input of the graph, in `store`.
pub(crate) fn load(
    graph: &Graph,
    samples: &dyn Samples,
    device: &dyn Device,
    store: &RowStore,
    sink: &mut dyn Sink,
) -> Result<Cache> {
    let indices: Vec<usize> = (0..samples.len()).collect();
    let (_, rows) = load_rows(samples, &indices, device, store, None, sink)?;
    Ok(graph.inputs.iter().copied().zip(rows).collect())
}

/// Shapes of the tensors of a sample, and the samples at `indices`, per tensor, in `store`. Progress is that of `stage`.
pub(crate) fn load_rows(
    samples: &dyn Samples,
    indices: &[usize],
    device: &dyn Device,
    store: &RowStore,
    stage: Option<Stage>,
    sink: &mut dyn Sink,
) -> Result<(Vec<Vec<usize>>, Vec<Rows>)> {
    let (mut shapes, mut all): (Vec<Vec<usize>>, Vec<RowsWriter>) = Default::default();
    let mut done = 0;
    for some in indices.chunks(SAMPLES) {
        for sample in decode(samples, some, device, sink)? {
            if all.is_empty() {
                shapes = sample.iter().map(|t| t.shape().to_vec()).collect();
                all = sample.iter().map(|t| store.rows(indices.len(), t.len())).collect::<Result<_>>()?;
            }
            all.iter_mut().zip(&sample).try_for_each(|(to, tensor)| to.push(&tensor.to_f32()?))?;
        }
        done += some.len();
        stage.iter().for_each(|&stage| sink.event(&Event::StageProgress { stage, done, total: indices.len() }));
    }
    Ok((shapes, all.into_iter().map(RowsWriter::finish).collect()))
}

/// The samples at `indices`; `sink` is asked before each of them.
pub(crate) fn decode(
    samples: &dyn Samples,
    indices: &[usize],
    device: &dyn Device,
    sink: &dyn Sink,
) -> Result<Vec<Vec<Tensor>>> {
    let one = |&i: &usize| go_on(sink).and_then(|()| samples.get(i));
    beside(device, || indices.par_iter().map(one).collect())
}

/// Calls `job` for one chunk of samples after the other on `device`, each with its first index, and
/// `take` with that index and the result on the calling thread. Chunks have as many samples as `chunk` allows and a short time suffices
/// for, all of the same shapes. Tells `sink` how far it is and stops when it asks to.
pub(crate) fn each<T: Send>(
    samples: &dyn Samples,
    chunk: RangeInclusive<usize>,
    device: &dyn Device,
    stage: Stage,
    sink: &mut dyn Sink,
    job: impl Fn(usize, &[Vec<Tensor>], &dyn Sink) -> Result<T> + Sync,
    mut take: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let (total, most) = (samples.len(), *chunk.end());
    let least = device.parallel().clamp(*chunk.start(), most);
    let (mut done, mut size) = (0, least);
    while done < total {
        let start = Instant::now();
        let indices: Vec<usize> = (done..(done + size).min(total)).collect();
        let loaded = decode(samples, &indices, device, sink)?;
        go_on(sink)?;
        for alike in loaded.chunk_by(|a, b| shapes(a) == shapes(b)) {
            take(done, job(done, alike, sink)?)?;
            done += alike.len();
        }
        size = if start.elapsed() < BRIEF { (2 * size).min(most) } else { (size / 2).max(least) };
        sink.event(&Event::StageProgress { stage, done, total });
    }
    Ok(())
}

/// Calls `take` with the first index of a chunk of samples and what each of `networks` answers for it, chunk after chunk, as
/// [`each`] does.
pub(crate) fn answer(
    networks: &[&dyn Answering],
    samples: &dyn Samples,
    device: &dyn Device,
    sink: &mut dyn Sink,
    take: impl FnMut(usize, Vec<Vec<Rows>>) -> Result<()>,
) -> Result<()> {
    let least = networks.iter().map(|n| *n.chunk().start()).max().unwrap_or(1);
    let most = networks.iter().map(|n| *n.chunk().end()).min().unwrap_or(least).max(least);
    let job = |_, inputs: &[Vec<Tensor>], sink: &dyn Sink| networks.iter().map(|n| n.run(inputs, sink)).collect();
    each(samples, least..=most, device, Stage::Evaluate, sink, job, take)
}

/// An error when `sink` asks to stop.
pub(crate) fn go_on(sink: &dyn Sink) -> Result<()> {
    if sink.cancelled() { Err(Error::new(Kind::Interrupted, "stopped on request")) } else { Ok(()) }
}

/// Shapes of the first sample, without batch axis.
pub(crate) fn shapes_of(samples: &dyn Samples) -> Result<Vec<Vec<usize>>> {
    if samples.is_empty() {
        return Err(Error::data("expected samples, got none"));
    }
    Ok(shapes(&samples.get(0)?))
}

/// Shapes of the tensors of `sample`.
pub(crate) fn shapes(sample: &[Tensor]) -> Vec<Vec<usize>> {
    sample.iter().map(|t| t.shape().to_vec()).collect()
}

/// Shapes of one sample with its batch axis, per input of `graph`.
pub(crate) fn input_facts(graph: &Graph, facts: &Facts) -> Vec<Vec<usize>> {
    graph.inputs.iter().filter_map(|&v| facts.get(v)).map(|f| f.shape.clone()).collect()
}

/// Where the part of `graph` that can be run ends, in values that can be compared as numbers: its outputs, and whatever
/// what cannot be run reads.
pub(crate) fn ends(graph: &Graph, facts: &Facts) -> Vec<ValueId> {
    let real = |v: &ValueId| facts.get(*v).is_some_and(|f| is_real(f.dtype));
    let mut ends: Vec<ValueId> = graph.outputs.iter().copied().filter(real).collect();
    ends.extend(borders(graph, facts).into_iter().filter(|v| !graph.outputs.contains(v)));
    ends
}

/// All that the values of [`ends`] depend on.
pub(crate) fn whole(graph: &Graph, facts: &Facts) -> Region {
    let outputs = ends(graph, facts);
    Region { nodes: behind(graph, &outputs), inputs: graph.inputs.clone(), outputs, ..Region::default() }
}

/// Σ w·y² of every output that `ready` has for `rows`, added to `least`, with the number of its elements; w is what
/// `weights`, one an output, say, or else 1. What `ready` works in is free afterwards.
pub(crate) fn energies(
    ready: Box<dyn Inference>,
    rows: &[Rows],
    (least, weights): (f64, &[Option<LossWeights>]),
    sink: &dyn Sink,
) -> Result<Vec<(f64, usize)>> {
    let mut energies = Vec::new();
    let widths = ready.widths();
    let mut expanded = Vec::new();
    let square = |&v: &f32| f64::from(v) * f64::from(v);
    let mut add = |first, outputs: &[Vec<f32>]| {
        energies.resize(outputs.len(), (least, 0));
        for (i, ((energy, count), values)) in energies.iter_mut().zip(outputs).enumerate() {
            *count += values.len();
            let Some(weights) = weights.get(i).and_then(Option::as_ref) else {
                *energy += values.iter().map(square).sum::<f64>();
                continue;
            };
            for (sample, row) in (first..).zip(values.chunks_exact(widths[i].max(1))) {
                weights.expand(sample, &mut expanded)?;
                *energy += row.iter().zip(&expanded).map(|(v, &w)| square(v) * f64::from(w)).sum::<f64>();
            }
        }
        go_on(sink)
    };
    ready.run_each(&[], &[], rows, &mut add)?;
    Ok(energies)
}

/// Computed values of real numbers that an output depends on by way of what cannot be run, in order. A TopK in front of that,
/// as those that choose boxes, counts as such: behind it elements change their places with the slightest change of a score.
fn borders(graph: &Graph, facts: &Facts) -> Vec<ValueId> {
    let unknown = |v: &&ValueId| facts.get(**v).is_none();
    borders_before(graph, facts, &graph.outputs.iter().filter(unknown).copied().collect::<Vec<_>>())
}

/// As [`borders`], of the outputs that are `lost`.
pub(crate) fn borders_before(graph: &Graph, facts: &Facts, lost: &[ValueId]) -> Vec<ValueId> {
    let (mut read, mut ranked) = (BTreeSet::new(), BTreeSet::new());
    for id in behind(graph, lost) {
        let node = graph.node(id);
        let operands = || node.inputs.iter().flatten().chain(&node.captures).copied();
        let behind = matches!(node.op, Op::TopK { .. }) || operands().any(|v| ranked.contains(&v));
        if behind {
            ranked.extend(node.outputs.iter().flatten().copied());
        }
        if behind || node.outputs.iter().flatten().any(|v| facts.get(*v).is_none()) {
            read.extend(operands());
        }
    }
    let real = |v: &ValueId| facts.get(*v).is_some_and(|f| is_real(f.dtype) && f.constant.is_none());
    let made = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied());
    made.filter(|v| read.contains(v) && !ranked.contains(v) && real(v)).collect()
}

/// Outputs of `graph` with rows in the order in which a TopK puts them, such as the boxes of a detector by their scores: the
/// slightest change of a score exchanges rows. These are outputs with an axis of as many elements as the TopK finds, two or
/// more, where all values between them have one too.
pub(crate) fn ordered(graph: &Graph, facts: &Facts) -> Vec<ValueId> {
    // Per value, the lengths of such axes.
    let mut found: BTreeMap<ValueId, BTreeSet<usize>> = BTreeMap::new();
    for node in &graph.nodes {
        let mut lengths: BTreeSet<usize> = node
            .inputs
            .iter()
            .flatten()
            .chain(&node.captures)
            .filter_map(|v| found.get(v))
            .flatten()
            .copied()
            .collect();
        let shape = |v: ValueId| facts.get(v).map_or(&[][..], |f| &f.shape);
        let results = || node.outputs.iter().flatten().copied();
        if let Op::TopK { axis, .. } = node.op {
            let of = |shape: &[usize]| usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok();
            lengths.extend(results().filter_map(|v| shape(v).get(of(shape(v))?)).copied().filter(|&k| k > 1));
        }
        for v in results() {
            let kept: BTreeSet<usize> = lengths.iter().copied().filter(|k| shape(v).contains(k)).collect();
            if !kept.is_empty() {
                found.insert(v, kept);
            }
        }
    }
    graph.outputs.iter().copied().filter(|v| found.contains_key(v)).collect()
}

/// Whether values of this type can be compared as numbers.
pub(crate) fn is_real(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::Builder;
    use crate::graph::{Binary, Unary};
    use crate::tensor::Tensor;

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

    #[test]
    fn outputs_that_sum_over_what_a_topk_finds_have_no_order() {
        // The two largest of four, as weights of a sum: as in a mixture of experts.
        let mut b = Builder::new();
        let x = b.input("x", [1, 4].map(crate::graph::Dim::Known).to_vec());
        let k = b.graph.add_constant("k", Tensor::i64s(vec![2]));
        let best = b.node(Op::TopK { axis: -1, largest: true, sorted: true }, &[x, k]);
        let shares = b.node(Op::Softmax { axis: -1, log: false }, &[best]);
        let sum = b.graph.add_constant("sum", Tensor::f32(&[2, 1], vec![1.0; 2]));
        let sum = b.node(Op::MatMul, &[shares, sum]);
        let two = b.graph.add_constant("two", Tensor::f32(&[1, 2], vec![1.0; 2]));
        let classes = b.node(Op::MatMul, &[sum, two]);
        let graph = b.finish(&[classes, shares]);
        let facts = facts::infer(&graph, &[vec![1, 4]]).unwrap();
        assert_eq!(facts.get(classes).unwrap().shape, [1, 2]);
        assert_eq!(ordered(&graph, &facts), [shares]);
    }

    #[test]
    fn values_that_a_topk_puts_in_order_are_no_ends() {
        let mut b = Builder::new();
        let x = b.input("x", [6, 4].map(crate::graph::Dim::Known).to_vec());
        let [boxes, scores] = [Unary::Exp, Unary::Sigmoid].map(|op| b.node(Op::Unary(op), &[x]));
        let score = b.graph.add_constant("columns", Tensor::i64s(vec![0]));
        let score = b.node(Op::Gather { axis: 1 }, &[scores, score]);
        let k = b.graph.add_constant("k", Tensor::i64s(vec![3]));
        let best = b.node(Op::TopK { axis: 0, largest: true, sorted: true }, &[score, k]);
        let places = b.graph.add_value("places", Default::default());
        b.graph.nodes.last_mut().unwrap().outputs.push(Some(places));
        let chosen = b.node(Op::GatherNd { batch_dims: 0 }, &[boxes, places]);
        let moved = b.node(Op::Unary(Unary::Neg), &[chosen]);
        let strange = Op::Opaque { domain: "com.example".into(), kind: "Strange".into() };
        let lost = b.node(strange, &[moved, best]);
        let graph = b.finish(&[lost]);
        let facts = facts::infer(&graph, &[vec![6, 4]]).unwrap();
        assert!(facts.get(moved).is_some());
        assert_eq!(ends(&graph, &facts), [boxes, score]);
        let whole = Graph { outputs: vec![moved], ..graph };
        assert_eq!(ends(&whole, &facts), [moved], "where outputs can be computed");
        assert_eq!(
            (ordered(&whole, &facts), borders_before(&whole, &facts, &[moved])),
            (vec![moved], vec![boxes, score])
        );
    }
}

//! Answers about images that are read by the shapes of outputs: those of detectors and of segmentation.

use super::cut::Compiled;
use super::open::{Given, Open};
use crate::data::Samples;
use crate::engine::device::{Device, processors};
use crate::engine::facts::{self, Facts};
use crate::error::{Error, Result};
use crate::eval::detect::Output;
use crate::graph::{Graph, ValueId};
use crate::probe::{Answering, answer, each, go_on, input_shapes};
use crate::report::{Event, Silent, Sink, Stage};
use crate::tensor::{DType, Rows, Tensor};

/// Reads what one network answers, and holds it against the truth.
pub(super) trait Judge: Sized {
    /// What is known after the last sample.
    type Found;

    /// For a network with these outputs; an error where they are not those that the task needs.
    fn new(outputs: &[Output<'_>], samples: &dyn Samples) -> Result<Self>;

    /// Numbers of the outputs that are read, in the order in which they are.
    fn outputs(&self) -> &[usize];

    /// That every one of `samples` has what its answer is held against.
    fn check(&self, samples: &dyn Samples) -> Result<()>;

    /// Adds what `values` say about sample `index`; after the first sample, how they are read.
    fn add(&mut self, values: &[&[f32]], samples: &dyn Samples, index: usize) -> Result<Option<String>>;

    /// What is known about all that was added.
    fn finish(self) -> Result<Self::Found>;
}

/// That `graph` (simplified) puts out what `J` reads, and that `samples`, whose `shapes` are those of one without the batch
/// axis, have what its answers are held against. Where the sizes of outputs depend on data, the first sample is run.
pub(super) fn check<J: Judge>(graph: &Graph, shapes: &[Vec<usize>], samples: &dyn Samples) -> Result<()> {
    let device = &processors(0)?;
    match (samples.is_empty(), Open::new(graph, shapes, device)?) {
        (false, Some(Ok(network))) => {
            let answers = network.run(&[samples.get(0)?], &Silent)?;
            check_outputs::<J>(&answers[0], samples).map_err(|e| network.explain(e))
        }
        (_, Some(Err(error))) => of_graph::<J>(graph, shapes, samples).map_err(|_| error)?.0.check(samples),
        _ => of_graph::<J>(graph, shapes, samples)?.0.check(samples),
    }
}

/// As [`check`], of `outputs` for the first sample.
pub(super) fn check_outputs<J: Judge>(outputs: &[Given], samples: &dyn Samples) -> Result<()> {
    of_outputs::<J>(outputs, samples)?.check(samples)
}

/// What `graphs` (simplified) answer for `samples`, judged.
pub(super) fn measure_all<'a, J: Judge>(
    graphs: &[&'a Graph],
    shapes: &[Vec<usize>],
    samples: &dyn Samples,
    device: &'a dyn Device,
    sink: &mut dyn Sink,
) -> Result<Vec<J::Found>> {
    let open = graphs.iter().map(|graph| Open::new(graph, shapes, device)).collect::<Result<Vec<_>>>()?;
    if open.iter().any(|open| matches!(open, Some(Ok(_)))) {
        let whole = |(graph, open): (&&'a Graph, Option<Result<Open<'a>>>)| match open {
            Some(open) => open,
            None => Open::any(graph, shapes, device),
        };
        let networks = graphs.iter().zip(open).map(whole).collect::<Result<Vec<_>>>()?;
        return measure_open::<J>(&networks, samples, device, sink);
    }
    let (mut networks, mut judges) = (Vec::new(), Vec::new());
    for graph in graphs {
        let (judge, wanted) = of_graph::<J>(graph, shapes, samples)?;
        networks.push(Compiled::new(graph, shapes, wanted, device)?);
        judges.push(judge);
    }
    let networks: Vec<&dyn Answering> = networks.iter().map(|n| n as &dyn Answering).collect();
    let mut told = false;
    let mut notes = Vec::new();
    answer(&networks, samples, device, sink, |first, values| {
        for (judge, values) in judges.iter_mut().zip(&values) {
            for i in 0..values.first().map_or(0, Rows::len) {
                let rows = values.iter().map(|rows| rows.row(i)).collect::<Result<Vec<_>>>()?;
                let note = judge.add(&rows.iter().map(|r| &**r).collect::<Vec<_>>(), samples, first + i)?;
                notes.extend(note.filter(|_| !std::mem::replace(&mut told, true)));
            }
        }
        Ok(())
    })?;
    notes.into_iter().for_each(|message| sink.event(&Event::Note { message }));
    judges.into_iter().map(J::finish).collect()
}

/// What `networks` answer for `samples`, judged.
fn measure_open<J: Judge>(
    networks: &[Open],
    samples: &dyn Samples,
    device: &dyn Device,
    sink: &mut dyn Sink,
) -> Result<Vec<J::Found>> {
    let chunk = networks.iter().map(|n| n.chunk()).min().unwrap_or(1);
    let (mut judges, mut notes): (Vec<J>, Vec<String>) = Default::default();
    let job = |_, inputs: &[Vec<Tensor>], sink: &dyn Sink| {
        networks.iter().map(|network| network.run(inputs, sink)).collect::<Result<Vec<_>>>()
    };
    each(samples, 1..=chunk, device, Stage::Evaluate, sink, job, |first, answers| {
        for (network, answers) in answers.iter().enumerate() {
            for (index, outputs) in (first..).zip(answers) {
                if judges.len() == network {
                    judges.push(of_outputs(outputs, samples)?);
                }
                let judge = &mut judges[network];
                let values: Vec<&[f32]> = judge.outputs().iter().map(|&i| &outputs[i].values[..]).collect();
                let note = judge.add(&values, samples, index)?;
                notes.extend(note.filter(|_| network == 0));
            }
        }
        Ok(())
    })?;
    notes.into_iter().for_each(|message| sink.event(&Event::Note { message }));
    judges.into_iter().map(J::finish).collect()
}

/// Runs a network, by its number, on a sample; it ends when the sink asks to stop.
pub(super) type Run<'a> = &'a dyn Fn(usize, &[Tensor], &dyn Sink) -> Result<Vec<Given>>;

/// What `networks` networks answer for `samples`, judged; `run` runs one of them on one sample.
pub(super) fn measure_each<J: Judge>(
    networks: usize,
    samples: &dyn Samples,
    run: Run<'_>,
    sink: &mut dyn Sink,
) -> Result<Vec<J::Found>> {
    let mut judges: Vec<J> = Vec::new();
    let total = samples.len();
    for index in 0..total {
        go_on(sink)?;
        let sample = samples.get(index)?;
        for network in 0..networks {
            let outputs = run(network, &sample, sink)?;
            if judges.len() == network {
                judges.push(of_outputs(&outputs, samples)?);
            }
            let values: Vec<&[f32]> = judges[network].outputs().iter().map(|&i| &outputs[i].values[..]).collect();
            let note = judges[network].add(&values, samples, index)?;
            if let Some(message) = note.filter(|_| network == 0) {
                sink.event(&Event::Note { message });
            }
        }
        sink.event(&Event::StageProgress { stage: Stage::Evaluate, done: index + 1, total });
    }
    judges.into_iter().map(J::finish).collect()
}

fn judge<J: Judge>(outputs: &[Output<'_>], samples: &dyn Samples) -> Result<J> {
    if samples.is_empty() {
        return Err(Error::data("expected samples, got none"));
    }
    J::new(outputs, samples)
}

fn of_outputs<J: Judge>(outputs: &[Given], samples: &dyn Samples) -> Result<J> {
    let outputs = outputs.iter().map(|o| Output { name: &o.name, shape: &o.shape, integer: o.integer });
    judge(&outputs.collect::<Vec<_>>(), samples)
}

/// The judge of what `graph` puts out, with the values that it reads. Outputs that cannot be computed are left out.
fn of_graph<J: Judge>(graph: &Graph, shapes: &[Vec<usize>], samples: &dyn Samples) -> Result<(J, Vec<ValueId>)> {
    let facts = facts::infer(graph, &input_shapes(graph, Some(shapes))?)?;
    let known = known_outputs(graph, &facts);
    let outputs: Vec<Output> = known.iter().map(|k| k.1).collect();
    let judge = judge::<J>(&outputs, samples)?;
    let wanted = judge.outputs().iter().map(|&i| known[i].0).collect();
    Ok((judge, wanted))
}

/// The outputs of `graph` that can be computed.
pub(super) fn known_outputs<'a>(graph: &'a Graph, facts: &'a Facts) -> Vec<(ValueId, Output<'a>)> {
    let output = |&v: &ValueId| {
        let fact = facts.get(v)?;
        let integer = matches!(fact.dtype, DType::I32 | DType::I64);
        Some((v, Output { name: &graph.value(v).name, shape: &fact.shape, integer }))
    };
    graph.outputs.iter().filter_map(output).collect()
}

//! Values inside the float network that are no numbers: those of padding do no harm, unless they reach an output.

use super::calibration::Calibration;
use super::run::{self, Network};
use crate::data::Samples;
use crate::error::{Error, Kind, Result};
use crate::graph::ValueId;
use crate::report::{Event, Sink};
use crate::tensor::Rows;
use std::collections::BTreeSet;

/// A value some elements of which are NaN or infinite.
pub(crate) struct Strange<'a> {
    pub value: ValueId,
    /// How many elements.
    pub elements: u64,
    /// In which samples.
    pub samples: &'a BTreeSet<usize>,
}

/// What becomes of strange values.
pub(crate) struct Finite<'a> {
    calibration: &'a Calibration<'a>,
    samples: &'a dyn Samples,
    /// The network with its outputs of real numbers, once a sample needs it.
    outputs: Option<(Vec<ValueId>, Network)>,
}

impl<'a> Finite<'a> {
    /// In the float network of `calibration` on `samples`.
    pub fn new(calibration: &'a Calibration<'a>, samples: &'a dyn Samples) -> Self {
        Finite { calibration, samples, outputs: None }
    }

    fn name(&self, value: ValueId) -> &str {
        &self.calibration.graph.value(value).name
    }

    /// That nothing of what is `strange` in the samples with the rows `inputs` reaches an output of real numbers; the first
    /// of these samples has the index `before`.
    pub fn check(&mut self, before: usize, inputs: &[Rows], strange: &[Strange], sink: &dyn Sink) -> Result<()> {
        let behind = before + inputs.first().map_or(0, Rows::len);
        let indices: BTreeSet<usize> = strange.iter().flat_map(|s| s.samples.range(before..behind)).copied().collect();
        if indices.is_empty() {
            return Ok(());
        }
        let places: Vec<usize> = indices.iter().map(|index| index - before).collect();
        let rows = inputs.iter().map(|rows| rows.some(&places)).collect::<Result<Vec<_>>>()?;
        if self.outputs.is_none() {
            let Calibration { graph, facts, device, .. } = *self.calibration;
            let outputs = run::ends(graph, facts);
            self.outputs = Some((outputs.clone(), Network::of(graph, facts, outputs, device)?));
        }
        let Some((outputs, network)) = &self.outputs else { return Ok(()) };
        for (&output, found) in outputs.iter().zip(&network.run_rows(&rows, sink)?) {
            for (row, &index) in found.iter().zip(&indices) {
                if row?.iter().any(|v| !v.is_finite()) {
                    return Err(self.refused(output, index, strange));
                }
            }
        }
        Ok(())
    }

    /// The error that `output` is no number in the sample `index`, where some of what is `strange` is none either.
    fn refused(&self, output: ValueId, index: usize, strange: &[Strange]) -> Error {
        let at = strange.iter().find(|s| s.samples.contains(&index)).map_or("?", |s| self.name(s.value));
        let message = format!(
            "output `{}` is NaN or infinite, and so is activation `{at}`; expected finite numbers",
            self.name(output)
        );
        let place = format!("sample `{}`", self.samples.name(index));
        let hint = "check this sample with the float network: repair the sample, or leave it out";
        Error::new(Kind::Numeric, message).at(place).hint(hint)
    }

    /// Tells `sink` what is left out of what was seen in all samples.
    pub fn note(&self, strange: &[Strange], sink: &mut dyn Sink) {
        let indices: BTreeSet<usize> = strange.iter().flat_map(|s| s.samples).copied().collect();
        let (Some(first), Some(&index)) = (strange.iter().min_by_key(|s| s.samples.first()), indices.first()) else {
            return;
        };
        let elements: u64 = strange.iter().map(|s| s.elements).sum();
        let message = format!(
            "{elements} elements of activations are NaN or infinite in {} of {} samples and reach no output, as in \
             padding; they are ignored (the first: sample `{}`, activation `{}`)",
            indices.len(),
            self.samples.len(),
            self.samples.name(index),
            self.name(first.value)
        );
        sink.event(&Event::Note { message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Counted, samples};
    use crate::engine::device::processors;
    use crate::engine::facts;
    use crate::graph::{Dim, Fact, Graph, Node, Op, Unary};
    use crate::plan::{GridSpec, Observer, Plan, Recipe, Site};
    use crate::report::Progress;
    use crate::tensor::{DType, RowStore};

    const SAMPLES: usize = 50;

    /// Observes log(x), which is no number for every tenth sample, in a network whose output is that, or relu(x). What is
    /// noted, and how often each sample is asked for.
    fn observed(strange_output: bool) -> (Result<Vec<String>>, Vec<usize>) {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(2)]);
        let x = graph.add_value("x", Fact { dtype: Some(DType::F32), shape });
        let [log, relu] = ["log", "relu"].map(|n| graph.add_value(n, Fact::default()));
        graph.nodes = vec![
            Node::new("log", Op::Unary(Unary::Log), &[x], &[log]),
            Node::new("relu", Op::Unary(Unary::Relu), &[x], &[relu]),
        ];
        (graph.inputs, graph.outputs) = (vec![x], vec![if strange_output { log } else { relu }]);
        let grid = GridSpec { bits: 8, symmetric: false, observer: Observer::MinMax, percentile: 99.99 };
        let sites = vec![Site { name: "log".into(), value: log, readers: None, grid }];
        let (graph, plan) = (&graph, &Plan { sites, ..Plan::default() });
        let row = |i: usize| [1.0, if i % 10 == 3 { -1.0 } else { 2.0 }];
        let samples = &Counted::new(samples(&[2], (0..SAMPLES).flat_map(row).collect(), None));
        let facts = &facts::infer(graph, &[vec![1, 2]]).unwrap();
        let (recipe, device, store) = (&Recipe::default(), &processors(2).unwrap(), &RowStore::memory());
        let calibration = Calibration { graph, facts, plan, recipe, samples, device, store };
        let mut notes = Vec::new();
        let note = |event: &Event| {
            if let Event::Note { message } = event {
                notes.push(message.clone());
            }
        };
        let observed = calibration.observe(&mut Progress::new(note)).map(drop);
        (observed.map(|()| notes), samples.times())
    }

    #[test]
    fn samples_with_values_that_are_no_numbers_are_decoded_once() {
        let (notes, times) = observed(false);
        assert_eq!(
            notes.unwrap(),
            [
                "5 elements of activations are NaN or infinite in 5 of 50 samples and reach no output, as in padding; they \
              are ignored (the first: sample `row 3`, activation `log`)"
            ]
        );
        assert_eq!(times, [1; SAMPLES]);
    }

    #[test]
    fn an_output_that_is_no_number_is_refused() {
        let error = observed(true).0.unwrap_err();
        assert_eq!(
            error.to_string(),
            "sample `row 3`: output `log` is NaN or infinite, and so is activation `log`; expected finite numbers; check \
             this sample with the float network: repair the sample, or leave it out"
        );
    }
}

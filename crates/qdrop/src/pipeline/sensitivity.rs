//! Sensitivities of a network, and errors of what came of it.

use super::memory;
use crate::data::{Samples, Subset, spreads};
use crate::engine::device::processors;
use crate::engine::facts;
use crate::error::Result;
use crate::graph::{Graph, ValueId};
use crate::plan::{Measure, Mixed, Recipe, Sensitivity, Stripe};
use crate::probe::{self, Calibration, Deviation, Loaded, Network, Padding, input_shapes};
use crate::report::{Sink, Stage, timed};
use crate::tensor::{Precision, RowStore, Rows, Tensor};

/// Measures every layer and activation of `graph` (simplified) that `recipe` quantizes, or a `share` of them, with each of
/// its candidates, on [`Mixed::samples`] of `samples`. First grids are fitted to as many as the recipe says. The caller
/// names the model.
pub fn sensitivity(
    graph: &Graph,
    recipe: &Recipe,
    samples: &dyn Samples,
    share: Option<Stripe>,
    sink: &mut dyn Sink,
) -> Result<Sensitivity> {
    let mixed = Mixed { size: None, bitops: None, ..recipe.mixed.clone() };
    let recipe = &Recipe { mixed, ..recipe.clone() };
    let device = &processors(recipe.method.threads)?;
    let shapes = probe::shapes_of(samples)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let plan = &crate::plan::plan(graph, &facts, recipe)?;
    let room = memory::room(graph, &facts, plan, recipe, (samples.len(), samples.held_bytes()), device)?;
    let store = &RowStore::new(room, &std::env::temp_dir(), Precision::Single);
    let effective = recipe.resolved();
    let few = spreads(samples.len(), &[effective.factor_samples, effective.refine_samples, recipe.mixed.samples]);
    let samples = &Loaded::new(samples, &few, device, store, sink)?;
    let calibration = Calibration { graph, facts: &facts, plan, recipe, samples, device, store };
    let mut timings = Vec::new();
    let factored = calibration.factored(&mut timings, sink)?;
    let graph = factored.as_ref().map_or(graph, |f| &f.graph);
    let facts = &facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let plan = &crate::plan::plan(graph, facts, recipe)?;
    let calibration = Calibration { graph, facts, plan, ..calibration };
    let (observed, _) = timed(sink, Stage::Calibrate, None, |sink| calibration.observe(sink))?;
    let watch = observed.sites;
    let all = recipe.mixed.bits();
    let wanted = Measure { layers: vec![all.clone(); plan.layers.len()], sites: vec![all; plan.sites.len()] };
    Ok(calibration.sensitivity(&watch, &wanted, share, None, sink)?.sensitivity)
}

/// Squared error of the outputs of `written`, what `graph` (both simplified) became, as a share of their energy and summed
/// over the outputs of real numbers, on those of `samples` that sensitivities are measured on; padding does not count.
pub fn output_error(
    graph: &Graph,
    written: &Graph,
    recipe: &Recipe,
    samples: &dyn Samples,
    sink: &mut dyn Sink,
) -> Result<f64> {
    let few = Subset::spread(samples, Some(recipe.mixed.samples))?;
    let shapes = probe::shapes_of(&few)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    // Outputs keep their order, values inside their names.
    let counterpart = |v: ValueId| match graph.outputs.iter().position(|&o| o == v) {
        Some(place) => written.outputs.get(place).copied(),
        None => written.value_ids().find(|&w| written.value(w).name == graph.value(v).name),
    };
    let pairs = probe::ends(graph, &facts).into_iter().filter_map(|v| Some((v, counterpart(v)?)));
    let (float, quantized): (Vec<ValueId>, Vec<ValueId>) = pairs.unzip();
    let (device, count) = (&processors(recipe.method.threads)?, float.len());
    let networks =
        (Network::new(graph, &shapes, float.clone(), device)?, Network::new(written, &shapes, quantized, device)?);
    let mut deviation = Deviation::new(count);
    let padding = Padding::read(graph, &facts, recipe, &few)?;
    let blanked = |first: usize, wanted: Vec<Rows>| {
        let Some(padding) = &padding else { return Ok(wanted) };
        let some: Vec<usize> = (first..).take(wanted.first().map_or(0, Rows::len)).collect();
        let padding = padding.part(&some)?;
        let blank = |(&v, rows)| padding.blank(v, &facts.require(graph, v)?.shape, rows);
        float.iter().zip(wanted).map(blank).collect::<Result<Vec<_>>>()
    };
    let both =
        |_, inputs: &[Vec<Tensor>], sink: &dyn Sink| Ok((networks.0.run(inputs, sink)?, networks.1.run(inputs, sink)?));
    let chunk = networks.0.chunk.min(networks.1.chunk);
    probe::each(&few, 1..=chunk, device, Stage::Compare, sink, both, |first, (wanted, got)| {
        let rows = |rows: &Rows| rows.iter().map(|r| Ok(r?.into_owned())).collect::<Result<Vec<_>>>();
        let got = got.iter().map(|r| Ok(rows(r)?.concat())).collect::<Result<Vec<_>>>()?;
        deviation.add(0, &got, &blanked(first, wanted)?)
    })?;
    Ok(deviation.error())
}

#[cfg(test)]
mod tests {
    use super::super::{Checked, WorkDir, quantize};
    use super::*;
    use crate::data::Arrays;
    use crate::data::testing::samples;
    use crate::graph::testing::{Builder, window};
    use crate::graph::{Node, Op, Unary};
    use crate::plan::MethodName;
    use crate::report::Event;
    use crate::report::Silent;

    /// Images of noise, not around 0.
    fn noise(n: usize) -> Arrays {
        let pixel = |index: usize, i: usize| ((i * 131 + index * 977 + i * i * 7) % 211) as f32 / 100.0 - 0.4;
        samples(&[3, 6, 6], (0..n * 108).map(|i| pixel(i / 108, i % 108)).collect(), None)
    }

    /// Three convolutions with biases and a head.
    fn network() -> Graph {
        let mut b = Builder::new();
        let mut x = b.images(3, 6);
        for (i, cin) in [3, 8, 8].into_iter().enumerate() {
            let w = b.constant(&format!("conv{i}.weight"), &[8, cin, 3, 3]);
            let bias = b.constant(&format!("conv{i}.bias"), &[8]);
            let y = b.node(Op::Conv { window: window(vec![1; 4]), group: 1 }, &[x, w, bias]);
            x = b.relu(y);
        }
        let y = b.head(x, 8);
        b.finish(&[y])
    }

    fn recipe(method: MethodName) -> Recipe {
        let mut recipe = Recipe::default();
        (recipe.method.name, recipe.method.batch, recipe.method.iterations) = (method, 8, Some(5));
        recipe.method.correct_samples = Some(0);
        recipe.mixed.samples = 16;
        recipe
    }

    #[test]
    fn errors_fall_with_bits_and_shifts_of_means_are_taken_out() {
        let graph = network();
        let measured = |method| sensitivity(&graph, &recipe(method), &noise(24), None, &mut Silent).unwrap();
        let (corrected, plain) = (measured(MethodName::Qdrop), measured(MethodName::Rtn));
        assert_eq!((corrected.biases_corrected, plain.biases_corrected, corrected.samples), (true, false, 16));
        assert_eq!((corrected.layers.len(), corrected.activations.len()), (4, 3));
        for curve in corrected.layers.iter().chain(&plain.layers).chain(&corrected.activations) {
            assert_eq!(curve.errors.iter().map(|e| e.bits).collect::<Vec<_>>(), [2, 3, 4, 6, 8]);
            assert!(curve.error(2) > curve.error(4) && curve.error(4) > curve.error(8), "{curve:?}");
            assert!(curve.error(8).is_some_and(|e| e > 0.0 && e < 1e-2), "{curve:?}");
            assert!(curve.errors.iter().all(|e| e.agreement.is_some()), "a classifier");
        }
        let sum = |s: &Sensitivity| s.layers.iter().map(|l| l.error(3).unwrap()).sum::<f64>();
        assert!(sum(&corrected) < sum(&plain), "{} for {}", sum(&corrected), sum(&plain));
        // The head has no bias to correct.
        assert_eq!(corrected.layers[3], plain.layers[3]);
    }

    #[test]
    fn what_only_shifts_means_is_no_error() {
        // The outputs are means of channels.
        let mut b = Builder::new();
        let x = b.images(3, 6);
        let (w, bias) = (b.constant("conv.weight", &[8, 3, 3, 3]), b.constant("conv.bias", &[8]));
        let y = b.node(Op::Conv { window: window(vec![1; 4]), group: 1 }, &[x, w, bias]);
        let y = b.node(Op::GlobalAveragePool, &[y]);
        let graph = b.finish(&[y]);
        let error = |method| {
            let found = sensitivity(&graph, &recipe(method), &noise(24), None, &mut Silent).unwrap();
            assert!(found.layers[0].errors[0].agreement.is_none(), "no classifier");
            found.layers[0].error(2).unwrap()
        };
        let (corrected, plain) = (error(MethodName::Qdrop), error(MethodName::Rtn));
        assert!(corrected < 0.05 * plain, "{corrected} for {plain}");
    }

    #[test]
    fn threads_change_nothing() {
        let with = |threads| {
            let mut recipe = recipe(MethodName::Qdrop);
            (recipe.method.threads, recipe.mixed.candidates) = (threads, vec![3, 8]);
            sensitivity(&network(), &recipe, &noise(24), None, &mut Silent).unwrap()
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn shares_come_to_the_whole() {
        let (graph, noise) = (network(), noise(24));
        // With 8 bits alone sites are screened, and none can be judged without the others.
        for candidates in [vec![3, 8], vec![8]] {
            let mut recipe = recipe(MethodName::Qdrop);
            recipe.mixed.candidates = candidates;
            let measured = |share| sensitivity(&graph, &recipe, &noise, share, &mut Silent).unwrap();
            let whole = measured(None);
            for count in [2, 5] {
                let share = |i: usize| (i.to_string(), measured(Some(Stripe::new(i, count).unwrap())));
                assert_eq!(Sensitivity::merge((0..count).map(share).collect()).unwrap(), whole, "{count}");
            }
        }
    }

    #[test]
    fn a_network_that_ends_in_integers_cannot_be_measured() {
        let mut graph = network();
        let class = graph.add_value("class", Default::default());
        let op = Op::ArgReduce { largest: true, axis: 1, keepdims: false, select_last_index: false };
        graph.nodes.push(Node::new("argmax", op, &[graph.outputs[0]], &[class]));
        graph.outputs = vec![class];
        let error = sensitivity(&graph, &recipe(MethodName::Rtn), &noise(8), None, &mut Silent).unwrap_err();
        assert!(error.message().contains("no output of real numbers"), "{error}");
    }

    #[test]
    fn what_no_output_depends_on_is_not_measured() {
        let mut graph = network();
        // The classes alone depend on the head; the output of real numbers stands before it.
        let class = graph.add_value("class", Default::default());
        let op = Op::ArgReduce { largest: true, axis: 1, keepdims: false, select_last_index: false };
        graph.nodes.push(Node::new("argmax", op, &[graph.outputs[0]], &[class]));
        let relu = graph.nodes.iter().rfind(|n| n.op == Op::Unary(Unary::Relu)).and_then(|n| n.output(0)).unwrap();
        graph.outputs = vec![class, relu];
        let found = sensitivity(&graph, &recipe(MethodName::Rtn), &noise(8), None, &mut Silent).unwrap();
        assert!(found.layers[3].errors.is_empty() && found.layers[..3].iter().all(|l| l.errors.len() == 5));
    }

    /// Stages that began.
    #[derive(Default)]
    struct Stages(Vec<Stage>);

    impl Sink for Stages {
        fn event(&mut self, event: &Event) {
            if let Event::StageStarted { stage, .. } = event {
                self.0.push(*stage);
            }
        }
    }

    #[test]
    fn bits_are_chosen_within_the_target_and_measured_once() {
        let graph = network();
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = recipe(MethodName::Qdrop);
        recipe.mixed.bitops = Some("w3a3".parse().unwrap());
        let noise = noise(24);
        let samples = Checked::new(&graph, &[vec![3, 6, 6]], &noise).unwrap();
        let run = |recipe: &Recipe| {
            let work = WorkDir::open(dir.path()).unwrap();
            let mut stages = Stages::default();
            let done = quantize(&graph, recipe, &samples, Some(&work), &mut stages).unwrap();
            (done, stages.0.contains(&Stage::Sensitivity))
        };
        let (first, measured) = run(&recipe);
        let mixed = first.report.mixed.as_ref().unwrap();
        assert!(measured && mixed.chosen.cost.bit_operations <= mixed.chosen.most_bit_operations.unwrap());
        let shapes = [vec![1, 3, 6, 6]];
        let facts = facts::infer(&graph, &shapes).unwrap();
        assert_eq!(crate::plan::cost(&graph, &facts, &first.plan), mixed.chosen.cost);
        for (layer, weight) in first.plan.layers.iter().zip(&first.weights) {
            assert_eq!(weight.grid.bits(), layer.grid.bits);
        }
        assert!(output_error(&graph, &first.graph, &recipe, &samples, &mut Silent).unwrap() > 0.0);
        assert_eq!(output_error(&graph, &graph, &recipe, &samples, &mut Silent).unwrap(), 0.0);
        // Again: nothing is measured or learned, and the same comes out.
        let (again, measured) = run(&recipe);
        assert!(!measured && again.report.units.iter().all(|u| u.resumed));
        assert_eq!((&again.graph, &again.report.mixed), (&first.graph, &first.report.mixed));
        // The recipe with the choice repeats it.
        let (repeated, measured) = run(&recipe.with(&mixed.chosen));
        assert!(!measured && repeated.report.mixed.is_none() && repeated.graph == first.graph);
        // Other samples are another measurement.
        recipe.mixed.samples = 8;
        assert!(run(&recipe).1);
    }
}

//! How close the written file comes to the float network, on samples that the run did not learn from where there are any.

use super::compare::{Real, compare};
use super::samples::Checked;
use crate::data::{self, Prepare, Samples, Subset, Target, spreads};
use crate::engine::device::{Device, beside, processors};
use crate::engine::facts::{self, Facts};
use crate::error::{Error, Kind, Result};
use crate::eval::{Chance, Comparison, Difference};
use crate::graph::{Graph, ValueId};
use crate::plan::{Answer, Recipe, Task};
use crate::probe::{self, Network, Padding, each, input_shapes, is_real, largest};
use crate::report::{
    Loss, LossPlace, NearChance, OutputQuality, PlannedUnit, Prepared, Quality, Report, Score, Sink, Source, Stage,
    added,
};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};

/// Samples that are compared at most, and as long as there are as many at least.
const SAMPLES: (usize, usize) = (64, 8);
/// Calibration samples for each that is compared, so that it takes a small part of the run.
const SHARE: usize = 32;
/// Multiply-adds of the float network that never matter.
const CHEAP: u64 = 4_000_000_000;

/// Indices of those of `samples` calibration samples that a run by `recipe` does not look at. Methods that
/// learn look at all.
pub fn left_out(recipe: &Recipe, samples: usize) -> Vec<usize> {
    if recipe.resolved().learns {
        return Vec::new();
    }
    let mut used = spreads(samples, &recipe.few_samples());
    used.extend(spreads(samples, &[recipe.activations.samples]));
    (0..samples).filter(|i| !used.contains(i)).collect()
}

/// Measures how far the outputs of `written` are from those of `graph` (both simplified), from which `report` was made;
/// padding of the samples does not count.
/// Of `sources` the first counts that holds enough samples of those that the run did not use, else the one with the most,
/// else the calibration samples. Samples that the run did not use and that cannot be read are left out.
///
/// Errors: there is no sample, or a network cannot be run.
pub fn quality(
    graph: &Graph,
    written: &Graph,
    recipe: &Recipe,
    report: &Report,
    sources: &[(Source, &dyn Samples)],
    sink: &mut dyn Sink,
) -> Result<Quality> {
    let device = &processors(recipe.method.threads)?;
    let (source, samples) = choose(graph, sources, compared(&report.plan, report.samples), device, sink)?;
    let shapes = probe::shapes_of(&samples)?;
    let facts = facts::infer(graph, &input_shapes(graph, Some(&shapes))?)?;
    let others = facts::infer(written, &input_shapes(written, Some(&shapes))?)?;
    let ordered = probe::ordered(graph, &facts);
    let outputs = outputs(graph, written, (&facts, &others), &ordered);
    let ordered: Vec<String> = ordered.into_iter().map(|v| graph.value(v).name.clone()).collect();
    let classes = classes(graph, &facts, recipe.input.task) && outputs.first().is_some_and(|o| o.0 == graph.outputs[0]);
    let partial = graph.outputs.iter().any(|&v| facts.get(v).is_none());
    if outputs.is_empty() {
        let (samples, outputs, losses) = (samples.len(), Vec::new(), Vec::new());
        return Ok(Quality { samples, source, snr_db: None, same_top1: None, outputs, partial, ordered, losses });
    }
    let (wanted, got): (Vec<ValueId>, Vec<ValueId>) = outputs.iter().copied().unzip();
    let networks = (Network::of(graph, &facts, wanted, device)?, Network::of(written, &others, got, device)?);
    drop(others);
    let real = |v: ValueId| facts.get(v).is_some_and(|f| is_real(f.dtype));
    let mut counts: Vec<Output> = outputs.iter().map(|&(v, _)| Output::new(&graph.value(v).name, real(v))).collect();
    let padding = Padding::read(graph, &facts, recipe, &samples)?;
    let wanted: Vec<ValueId> = outputs.iter().map(|o| o.0).collect();
    let real = Real::new(padding.as_ref(), &facts, &wanted);
    let mut same = 0;
    each(
        &samples,
        // A few at a time, so that progress is seen.
        1..=SAMPLES.1.max(device.parallel()).min(networks.0.chunk).min(networks.1.chunk),
        device,
        Stage::Compare,
        sink,
        |_, inputs, sink| Ok((networks.0.run(inputs, sink)?, networks.1.run(inputs, sink)?)),
        |first, (wanted, got)| {
            for (i, (output, (x, y))) in counts.iter_mut().zip(wanted.iter().zip(&got)).enumerate() {
                for (sample, (x, y)) in (first..).zip(x.iter().zip(y.iter())) {
                    let (x, y) = (x?, y?);
                    output.add(&real.part(i, sample, &x)?, &real.part(i, sample, &y)?)?;
                    same += usize::from(i == 0 && largest(&x) == largest(&y));
                }
            }
            Ok(())
        },
    )?;
    drop(networks);
    let outputs: Vec<OutputQuality> = counts.into_iter().map(Output::finish).collect();
    let mut quality = Quality {
        samples: samples.len(),
        source,
        snr_db: outputs.iter().filter_map(|o| o.snr_db).min_by(f64::total_cmp),
        same_top1: classes.then(|| 100.0 * same as f64 / samples.len() as f64),
        outputs,
        partial,
        ordered,
        losses: Vec::new(),
    };
    if quality.is_low() {
        quality.losses = report.known_losses(quality.noise());
        if quality.losses.is_empty() {
            let few = Subset::spread(&samples, Some(SAMPLES.1))?;
            quality.losses = losses(graph, written, report, &few, recipe, sink)?;
        }
    }
    Ok(quality)
}

/// How many samples of a set [`quality`] compares at most, for a network of the units `plan` that was calibrated on
/// `calibration` samples. They are spread over the set, and more than one pass reads them.
pub fn compared(plan: &[PlannedUnit], calibration: usize) -> usize {
    most(plan.iter().map(|u| u.multiply_adds).sum(), calibration)
}

/// Samples worth comparing for a network of `macs` multiply-adds that was calibrated on `calibration` samples.
fn most(macs: u64, calibration: usize) -> usize {
    let cheap = usize::try_from(CHEAP / macs.max(1)).unwrap_or(usize::MAX);
    cheap.max(calibration / SHARE).clamp(SAMPLES.1, SAMPLES.0)
}

/// At most `most` samples of one of `sources`, all of which can be read.
fn choose<'a>(
    graph: &Graph,
    sources: &[(Source, &'a dyn Samples)],
    most: usize,
    device: &dyn Device,
    sink: &dyn Sink,
) -> Result<(Source, Subset<&'a dyn Samples>)> {
    let mut best: Option<(Source, Subset<&dyn Samples>)> = None;
    for &(source, samples) in sources.iter().filter(|s| s.0 != Source::Calibration && !s.1.is_empty()) {
        if best.as_ref().is_some_and(|b| b.1.len() >= SAMPLES.1) {
            break;
        }
        let wanted: Vec<usize> = data::spread(samples.len(), Some(most)).collect();
        let shapes = wanted.iter().find_map(|&i| samples.get(i).ok());
        let shapes: Vec<Vec<usize>> = shapes.iter().flatten().map(|t| t.shape().to_vec()).collect();
        // Nobody asked for these samples to be used, so that they may be of any kind.
        let Ok(checked) = Checked::new(graph, &shapes, samples) else { continue };
        let found = Subset::new(samples, readable(&checked, &wanted, device, sink)?)?;
        if best.as_ref().map_or(0, |b| b.1.len()) < found.len() {
            best = Some((source, found));
        }
    }
    let calibration = || {
        let found = sources.iter().find(|s| s.0 == Source::Calibration && !s.1.is_empty());
        let &(source, samples) = found.ok_or_else(|| Error::data("expected samples to compare on, got none"))?;
        Ok((source, Subset::spread(samples, Some(most))?))
    };
    best.map_or_else(calibration, Ok)
}

/// Those of the samples at `indices` that can be read.
fn readable(samples: &dyn Samples, indices: &[usize], device: &dyn Device, sink: &dyn Sink) -> Result<Vec<usize>> {
    let one = |&i: &usize| probe::go_on(sink).map(|()| samples.get(i).is_ok().then_some(i));
    let found = beside(device, || indices.par_iter().map(one).collect::<Result<Vec<_>>>())?;
    Ok(found.into_iter().flatten().collect())
}

/// Outputs of both networks that can be computed, have one shape and are not `ordered`, side by side; behind them, by name, the
/// last values that can be computed before an output that cannot, and those before one that is ordered.
fn outputs(
    graph: &Graph,
    written: &Graph,
    (facts, others): (&Facts, &Facts),
    ordered: &[ValueId],
) -> Vec<(ValueId, ValueId)> {
    let same = |&(a, b): &(ValueId, ValueId)| match (facts.get(a), others.get(b)) {
        (Some(x), Some(y)) => x.shape == y.shape,
        _ => false,
    };
    let outputs = graph.outputs.iter().copied().zip(written.outputs.iter().copied());
    let named = |v: ValueId| written.value_ids().find(|&w| written.value(w).name == graph.value(v).name);
    let lost = |v: &&ValueId| facts.get(**v).is_none() || ordered.contains(v);
    let lost: Vec<ValueId> = graph.outputs.iter().filter(lost).copied().collect();
    let borders = probe::borders_before(graph, facts, &lost).into_iter().filter_map(|v| Some((v, named(v)?)));
    outputs
        .filter(|(v, _)| !ordered.contains(v))
        .chain(borders.filter(|(v, _)| !graph.outputs.contains(v)))
        .filter(same)
        .collect()
}

/// Whether the first output of `graph` has one score per class, so far as its shape and the task tell.
fn classes(graph: &Graph, facts: &Facts, task: Option<Task>) -> bool {
    let scores = graph.outputs.first().and_then(|&v| facts.get(v));
    let scores = scores.is_some_and(|f| is_real(f.dtype) && f.shape.len() == 2 && f.shape[1] >= 2);
    scores && task.is_none_or(|t| matches!(t.answer(), Answer::Classes(_)))
}

/// What is counted of an output.
struct Output {
    comparison: Comparison,
    real: bool,
    /// Elements compared, and those among them that are equal.
    elements: (u64, u64),
    not_finite: u64,
}

impl Output {
    fn new(name: &str, real: bool) -> Self {
        Output { comparison: Comparison::new(name), real, elements: (0, 0), not_finite: 0 }
    }

    /// Adds a sample. Elements that are no number are compared as such: masked scores are minus infinity in both.
    fn add(&mut self, wanted: &[f32], got: &[f32]) -> Result<()> {
        let equal = |x: &f32, y: &f32| x == y || (x.is_nan() && y.is_nan());
        let pairs = || wanted.iter().zip(got);
        self.elements.0 += wanted.len() as u64;
        self.elements.1 += pairs().filter(|(x, y)| equal(x, y)).count() as u64;
        let strange = |x: &f32, y: &f32| !(x.is_finite() && y.is_finite());
        self.not_finite += pairs().filter(|(x, y)| strange(x, y) && !equal(x, y)).count() as u64;
        let (x, y): (Vec<f32>, Vec<f32>) = pairs().filter(|(x, y)| !strange(x, y)).unzip();
        self.comparison.add(&x, &y)
    }

    fn finish(self) -> OutputQuality {
        let Difference { name, snr_db, max_abs, .. } = self.comparison.finish();
        let equal = 100.0 * self.elements.1 as f64 / self.elements.0.max(1) as f64;
        OutputQuality {
            name,
            snr_db: snr_db.filter(|_| self.real),
            max_abs,
            equal: (!self.real).then_some(equal),
            not_finite: self.not_finite,
        }
    }
}

/// Where most is lost, by comparing value by value.
fn losses(
    graph: &Graph,
    written: &Graph,
    report: &Report,
    samples: &dyn Samples,
    recipe: &Recipe,
    sink: &mut dyn Sink,
) -> Result<Vec<Loss>> {
    let differences = match compare(graph, written, samples, recipe, sink) {
        Ok(found) => found,
        // Masks hold infinities; what has some cannot be compared value by value.
        Err(error) if error.kind() == Kind::Numeric => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let noise: Vec<f64> = differences.iter().map(|d| d.snr_db.map_or(0.0, |db| 10f64.powf(-db / 10.0))).collect();
    let places: HashMap<&str, usize> = differences.iter().enumerate().map(|(i, d)| (d.name.as_str(), i)).collect();
    let mut before = vec![Vec::new(); noise.len()];
    let mut names: Vec<(LossPlace, String)> = differences.iter().map(|d| (LossPlace::Value, d.name.clone())).collect();
    // Per value, the compared ones that it follows from, itself if it is one.
    let mut seen: HashMap<ValueId, BTreeSet<usize>> = HashMap::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let from: BTreeSet<usize> =
            node.inputs.iter().flatten().filter_map(|v| seen.get(v)).flatten().copied().collect();
        let layer = report.layers.iter().find(|l| l.name == graph.node_name(id));
        for &v in node.outputs.iter().flatten() {
            let Some(&place) = places.get(graph.value(v).name.as_str()) else {
                seen.insert(v, from.clone());
                continue;
            };
            before[place] = from.iter().copied().filter(|&b| b < place).collect();
            seen.insert(v, BTreeSet::from([place]));
            if let Some(layer) = layer {
                names[place] = (LossPlace::Layer, layer.name.clone());
            }
        }
    }
    let added = added(&noise, &before);
    Ok(Loss::worst(names.into_iter().zip(added).map(|((what, name), noise)| Loss { what, name, noise }).collect()))
}

/// That `score`, which `graph` (float, simplified) reached on `samples`, is hardly better than guessing; `None` if it is, or
/// if nobody can say.
pub fn near_chance(graph: &Graph, samples: &dyn Samples, recipe: &Recipe, score: &Score) -> Result<Option<NearChance>> {
    let count = samples.len();
    let labels = || -> Result<Vec<usize>> {
        let mut labels = Vec::new();
        for i in 0..count {
            labels.extend(match samples.target(i)? {
                Some(Target::Class(class)) => Some(class),
                _ => None,
            });
        }
        Ok(labels)
    };
    let (metric, chance) = match recipe.input.task.map(|t| (t.answer(), t.metrics().contains(&"accuracy"))) {
        None => {
            let facts = facts::infer(graph, &input_shapes(graph, Some(&probe::shapes_of(samples)?))?)?;
            let scores = graph.outputs.first().and_then(|&v| facts.get(v));
            let labels = (0..count).filter_map(|i| samples.label(i)).collect::<Vec<_>>();
            ("top1", Chance::of_classes(scores.map_or(0, |f| f.numel()), &labels))
        }
        Some((Answer::Classes(classes), true)) => ("accuracy", Chance::of_classes(classes.len(), &labels()?)),
        Some((Answer::Classes(_), false)) => ("matthews", Chance::of_correlation(count)),
        Some((Answer::Number, _)) => ("pearson", Chance::of_correlation(count)),
        Some((Answer::Span | Answer::Boxes | Answer::Pixels, _)) => return Ok(None),
    };
    let (Some(chance), Some(&float)) = (chance, score.metrics.get(metric)) else { return Ok(None) };
    let input = match recipe.input.task {
        Some(_) => Prepared::Text,
        None if Prepare::resolve(&recipe.input)?.is_identity() => Prepared::AsTheyAre,
        None => Prepared::Images,
    };
    let near = NearChance { metric: metric.to_string(), float, guessing: chance.level, input };
    Ok(chance.is_near(float).then_some(near))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Placed, corner};
    use crate::graph::testing::Builder;
    use crate::graph::{Binary, Dim, Fact, Node, Op, Unary};
    use crate::plan::MethodName;
    use crate::report::{LayerReport, PlannedUnit, Silent};
    use crate::tensor::{DType, Tensor};

    /// Rows of numbers with their labels; an empty row cannot be read.
    struct Numbers(Vec<(Vec<f32>, usize)>);

    impl Samples for Numbers {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn get(&self, index: usize) -> Result<Vec<Tensor>> {
            let row = &self.0[index].0;
            match row.is_empty() {
                true => Err(Error::data("broken")),
                false => Ok(vec![Tensor::f32(&[row.len()], row.clone())]),
            }
        }
        fn label(&self, index: usize) -> Option<usize> {
            Some(self.0[index].1)
        }
        fn name(&self, index: usize) -> String {
            format!("row {index}")
        }
    }

    fn numbers(n: usize) -> Numbers {
        Numbers((0..n).map(|i| (vec![(i % 5) as f32 - 2.0, (i % 3) as f32], i % 2)).collect())
    }

    /// y = relu(x·w + b)·v: two layers, `scale` times as large in between.
    fn graph(w: [f32; 4], v: [f32; 4], scale: f32) -> Graph {
        let mut g = Graph { opset: 13, ..Graph::default() };
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(2)]);
        let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape });
        g.inputs.push(x);
        let [a, r, y] = ["a", "r", "y"].map(|n| g.add_value(n, Fact::default()));
        let w = g.add_constant("w", Tensor::f32(&[2, 2], w.iter().map(|w| w * scale).collect()));
        let v = g.add_constant("v", Tensor::f32(&[2, 2], v.iter().map(|v| v / scale).collect()));
        g.nodes.push(Node::new("first", Op::MatMul, &[x, w], &[a]));
        g.nodes.push(Node::new("relu", Op::Unary(Unary::Relu), &[a], &[r]));
        g.nodes.push(Node::new("second", Op::MatMul, &[r, v], &[y]));
        g.outputs.push(y);
        g
    }

    const W: [f32; 4] = [1.0, -0.5, 0.25, 1.0];
    const V: [f32; 4] = [1.0, 0.5, -0.5, 1.0];

    fn report(calibration: usize) -> Report {
        let mut report = Report::new(MethodName::Rtn);
        report.samples = calibration;
        report.plan = vec![PlannedUnit { multiply_adds: 8, ..PlannedUnit::default() }];
        for name in ["first", "second"] {
            report.layers.push(LayerReport { name: name.into(), ..LayerReport::default() });
        }
        report
    }

    fn measured(graph: &Graph, written: &Graph, sources: &[(Source, &dyn Samples)]) -> Result<Quality> {
        quality(graph, written, &Recipe::default(), &report(100), sources, &mut Silent)
    }

    #[test]
    fn a_file_is_held_against_the_float_network() {
        let float = graph(W, V, 1.0);
        let set = numbers(100);
        let sources: [(Source, &dyn Samples); 1] = [(Source::LeftOut, &set)];
        let same = measured(&float, &float, &sources).unwrap();
        assert_eq!((same.samples, same.snr_db, same.same_top1), (64, None, Some(100.0)));
        assert_eq!((same.outputs[0].name.as_str(), same.outputs[0].max_abs), ("y", 0.0));
        // Ten per cent of amplitude are 20 dB.
        let near = measured(&float, &graph(W, V.map(|v| v * 1.09), 1.0), &sources).unwrap();
        assert!((near.snr_db.unwrap() + 20.0 * 0.09f64.log10()).abs() < 1e-4 && near.losses.is_empty(), "{near:?}");
        assert_eq!(near.same_top1, Some(100.0));
        let far = measured(&float, &graph(W, [0.5, 1.0, 1.0, -0.5], 1.0), &sources).unwrap();
        assert!(far.is_low() && far.same_top1.is_some_and(|s| s < 50.0), "{far:?}");
        assert_eq!((far.losses[0].what, far.losses[0].name.as_str()), (LossPlace::Layer, "second"));
    }

    #[test]
    fn rows_in_the_order_of_scores_are_not_compared_but_what_is_before_them() {
        let ranked = |v: [f32; 4]| {
            let mut g = graph(W, v, 1.0);
            let k = g.add_constant("k", Tensor::i64s(vec![2]));
            let found = ["best", "places"].map(|n| g.add_value(n, Fact::default()));
            let op = Op::TopK { axis: -1, largest: true, sorted: true };
            g.nodes.push(Node::new("rank", op, &[g.outputs[0], k], &found));
            g.outputs = vec![found[0]];
            g
        };
        let set = numbers(100);
        let written = ranked(V.map(|v| v * 1.09));
        let found = measured(&ranked(V), &written, &[(Source::LeftOut, &set)]).unwrap();
        assert_eq!((&found.ordered[..], found.partial, found.same_top1), (&["best".to_string()][..], false, None));
        assert_eq!((found.outputs.len(), found.outputs[0].name.as_str()), (1, "y"));
        assert!((found.snr_db.unwrap() + 20.0 * 0.09f64.log10()).abs() < 1e-4, "{found:?}");
        // Beside the scores themselves.
        let both = |mut g: Graph| {
            g.outputs.insert(0, g.node(g.node_ids().last().unwrap()).input(0).unwrap());
            g
        };
        let found = measured(&both(ranked(V)), &both(written), &[(Source::LeftOut, &set)]).unwrap();
        assert_eq!((found.ordered.len(), found.outputs.len(), found.same_top1), (1, 1, Some(100.0)));
    }

    /// Two networks that differ on negative values only, and images on canvases whose padding holds such.
    #[test]
    fn padding_of_images_does_not_count() {
        let graph = |op| {
            let mut b = Builder::new();
            let x = b.input("x", [1, 3, 4, 4].map(Dim::Known).to_vec());
            let y = b.node(Op::Unary(op), &[x]);
            b.finish(&[y])
        };
        let (float, written) = (graph(Unary::Relu), graph(Unary::Abs));
        // Images of 2 x 3 pixels.
        let value = |i: usize| if i / 4 % 4 < 2 && i % 4 < 3 { 1.0 + (i % 7) as f32 } else { -9.0 };
        let images = || data::testing::samples(&[3, 4, 4], (0..10 * 48).map(value).collect(), None);
        let placed = Placed { inner: images(), geometries: vec![corner(2, 3, [4, 4]); 10] };
        let found = |samples: &dyn Samples| measured(&float, &written, &[(Source::Calibration, samples)]).unwrap();
        let (inside, all) = (found(&placed), found(&images()));
        assert_eq!((inside.snr_db, inside.outputs[0].max_abs), (None, 0.0));
        assert!(all.is_low() && all.outputs[0].max_abs == 9.0, "{all:?}");
        let differ =
            |samples: &dyn Samples| compare(&float, &written, samples, &Recipe::default(), &mut Silent).unwrap();
        let (inside, all) = (differ(&placed), differ(&images()));
        assert_eq!((inside[0].max_abs, inside[0].elements), (0.0, 10 * 3 * 6));
        assert_eq!((all[0].max_abs, all[0].elements), (9.0, 10 * 48));
    }

    #[test]
    fn values_that_are_only_scaled_have_no_more_noise_than_what_is_behind_them() {
        let float = graph(W, V, 1.0);
        let set = numbers(20);
        let sources: [(Source, &dyn Samples); 1] = [(Source::Calibration, &set)];
        let found = measured(&float, &graph(W, V.map(|v| v * 0.8), 4.0), &sources).unwrap();
        let share: f64 = found.losses.iter().map(|l| l.noise).sum();
        assert!(found.is_low() && (share - 0.04).abs() < 1e-4, "{found:?}");
        assert_eq!(found.samples, 20);
    }

    #[test]
    fn the_first_set_with_enough_samples_counts() {
        let float = graph(W, V, 1.0);
        let (few, more, calib, none) = (numbers(3), numbers(40), numbers(50), numbers(0));
        let broken = Numbers(numbers(40).0.into_iter().map(|(_, label)| (vec![], label)).collect());
        let run = |sources: &[(Source, &dyn Samples)]| measured(&float, &float, sources).map(|q| (q.source, q.samples));
        use Source::{Calibration, Evaluation, LeftOut};
        assert_eq!(run(&[(LeftOut, &more), (Evaluation, &calib)]).unwrap(), (LeftOut, 40));
        assert_eq!(run(&[(LeftOut, &few), (Evaluation, &more), (Calibration, &calib)]).unwrap(), (Evaluation, 40));
        assert_eq!(run(&[(LeftOut, &few), (Calibration, &calib)]).unwrap(), (LeftOut, 3));
        assert_eq!(run(&[(LeftOut, &none), (Calibration, &calib)]).unwrap(), (Calibration, 50));
        // Samples that nobody asked to be read may be of any kind.
        assert_eq!(run(&[(LeftOut, &broken), (Calibration, &calib)]).unwrap(), (Calibration, 50));
        assert!(run(&[(LeftOut, &none)]).unwrap_err().message().contains("expected samples"));
        assert!(run(&[(Calibration, &broken)]).is_err());
    }

    #[test]
    fn what_it_costs_is_bounded() {
        let giga = 1_000_000_000;
        assert_eq!((most(0, 16), most(40_000_000, 16)), (64, 64));
        assert_eq!((most(giga, 1024), most(4 * giga, 1024), most(4 * giga, 128)), (32, 32, 8));
        assert_eq!((most(4 * giga, 100_000), most(1000 * giga, 1)), (64, 8));
    }

    #[test]
    fn samples_that_nobody_looks_at_are_left_out() {
        let mut recipe = Recipe::default();
        assert!(left_out(&recipe, 1000).is_empty(), "learning looks at all");
        recipe.method.name = MethodName::Rtn;
        (recipe.activations.samples, recipe.activations.factor_samples) = (100, Some(0));
        (recipe.activations.refine_samples, recipe.method.correct_samples) = (Some(0), Some(0));
        let left = left_out(&recipe, 1000);
        let used: Vec<usize> = data::spread(1000, Some(100)).collect();
        assert!(left.len() == 900 && used.iter().all(|i| !left.contains(i)));
        recipe.activations.refine_samples = Some(32);
        assert!(data::spread(1000, Some(32)).all(|i| !left_out(&recipe, 1000).contains(&i)));
        assert!(left_out(&recipe, 100).is_empty());
    }

    #[test]
    fn outputs_of_integers_are_counted_and_infinities_passed_over() {
        let ends = |v: [f32; 4]| {
            let mut g = graph(W, v, 1.0);
            let class = g.add_value("class", Fact::default());
            let log = g.add_value("log", Fact::default());
            let op = Op::ArgReduce { largest: true, axis: 1, keepdims: false, select_last_index: false };
            g.nodes.push(Node::new("argmax", op, &[g.outputs[0]], &[class]));
            let zero = g.add_constant("zero", Tensor::f32(&[1], vec![0.0]));
            let nothing = g.add_value("nothing", Fact::default());
            g.nodes.push(Node::new("times", Op::Binary(Binary::Mul), &[g.outputs[0], zero], &[nothing]));
            g.nodes.push(Node::new("log", Op::Unary(Unary::Log), &[nothing], &[log]));
            g.outputs = vec![class, log];
            g
        };
        let (float, set) = (ends(V), numbers(30));
        let sources: [(Source, &dyn Samples); 1] = [(Source::Evaluation, &set)];
        let found = measured(&float, &ends([0.5, 1.0, 1.0, -0.5]), &sources).unwrap();
        let [class, log] = &found.outputs[..] else { panic!("{found:?}") };
        assert!(class.equal.is_some_and(|e| e > 0.0 && e < 100.0) && class.snr_db.is_none(), "{found:?}");
        assert_eq!((log.not_finite, log.equal, found.same_top1), (0, None, None), "minus infinity in both");
        let mut output = Output::new("y", true);
        output.add(&[f32::NEG_INFINITY, 1.0, f32::NAN], &[3.0, 1.0, f32::NAN]).unwrap();
        assert_eq!(output.finish().not_finite, 1);
    }

    #[test]
    fn labels_near_chance_are_noticed() {
        let (float, set) = (graph(W, V, 1.0), numbers(400));
        let mut recipe = Recipe::default();
        let near = |recipe: &Recipe, top1| {
            near_chance(&float, &set, recipe, &Score::new(400, [("top1", top1), ("top5", 100.0)])).unwrap()
        };
        let found = near(&recipe, 52.0).unwrap();
        assert_eq!((found.metric.as_str(), found.guessing, found.input), ("top1", 50.0, Prepared::AsTheyAre));
        assert_eq!(near(&recipe, 90.0), None);
        recipe.input.preset = Some("imagenet".into());
        assert_eq!(near(&recipe, 50.0).unwrap().input, Prepared::Images);
        recipe.input.task = Some(Task::Sst2);
        let text = |metric, value| near_chance(&float, &set, &recipe, &Score::new(400, [(metric, value)])).unwrap();
        assert_eq!(text("accuracy", 50.5).unwrap().input, Prepared::Text);
        assert_eq!(text("accuracy", 91.0), None);
        recipe.input.task = Some(Task::Cola);
        let cola = |value| near_chance(&float, &set, &recipe, &Score::new(400, [("matthews", value)])).unwrap();
        assert!(cola(3.0).is_some() && cola(55.0).is_none());
    }
}

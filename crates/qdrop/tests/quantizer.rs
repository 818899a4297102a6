//! The library's face: a network, samples, a quantizer.

use qdrop::data::{Arrays, Subset};
use qdrop::plan::{MethodName, Preset, Recipe, Sensitivity};
use qdrop::report::{Event, Progress, Silent, Source, Stage};
use qdrop::tensor::{DType, Tensor};
use qdrop::{CalibrationSet, Dataset, Kind, Model, Quantizer, Samples, WorkDir};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const NETWORK: &[u8] = include_bytes!("../examples/network.onnx");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/samples.npz");

fn model() -> Model {
    Model::from_bytes(NETWORK).unwrap()
}

fn samples(model: &Model) -> Dataset {
    Dataset::open(SAMPLES, model, &Recipe::default(), None, &Silent).unwrap()
}

fn short(model: &Model) -> Quantizer<'_> {
    Quantizer::new(model).preset(Preset::Fast).configure(|recipe| recipe.method.iterations = Some(20))
}

#[test]
fn a_file_and_memory_hold_the_same() {
    let model = model();
    let samples = samples(&model);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.onnx");
    let written = short(&model).evaluate_on(&samples).quantize_to(&samples, &path).unwrap();
    let held = short(&model).evaluate_on(&samples).quantize(&samples).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), held.to_bytes().unwrap());
    assert_eq!(written.report().accuracy, held.report().accuracy);
    assert_eq!(written.report().quality, held.report().quality);
    assert_eq!(written.report().bytes_after, Some(held.to_bytes().unwrap().len() as u64));
    assert_eq!(written.report().output, Some(path.display().to_string()));
    let copy = dir.path().join("copy.onnx");
    held.save(&copy).unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(&path).unwrap());
    // What the report says is what the file reaches.
    let recipe = Recipe::default();
    let score = Model::open(&path).unwrap().evaluate(&samples, &recipe, &mut Silent).unwrap();
    assert_eq!(score, written.report().accuracy.as_ref().unwrap().result);
    assert_eq!(
        model.evaluate(&samples, &recipe, &mut Silent).unwrap(),
        written.report().accuracy.as_ref().unwrap().float
    );
}

#[test]
fn known_scores_are_not_measured_again() {
    let model = model();
    let samples = samples(&model);
    let known = qdrop::report::Score::new(1, [("top1", 12.5), ("top5", 50.0)]);
    let quantizer = short(&model).evaluate_on(&samples).float_score(known.clone()).measure_nearest(false);
    let accuracy = quantizer.quantize(&samples).unwrap().into_report().accuracy.unwrap();
    assert_eq!((accuracy.float, accuracy.nearest), (known, None));
    assert!(accuracy.result.metrics["top1"] > 90.0);
}

#[test]
fn quality_is_measured_on_unseen_samples_where_there_are_any() {
    let model = model();
    let all = samples(&model);
    let half = |of: usize| Subset::new(&all, (0..all.len()).filter(|i| i % 2 == of).collect()).unwrap();
    let (even, odd) = (half(0), half(1));
    let source = |quantizer: Quantizer| quantizer.quantize(&even).unwrap().into_report().quality.unwrap().source;
    assert_eq!(source(short(&model)), Source::Calibration);
    assert_eq!(source(short(&model).unseen(&odd)), Source::LeftOut);
    // Both halves come from one file, so that neither is of another set.
    assert_eq!(source(short(&model).evaluate_on(&odd)), Source::Calibration);
    let arrays = || {
        let data = (0..all.len()).flat_map(|i| all.get(i).unwrap()[0].as_f32().unwrap().to_vec()).collect();
        let labels = (0..all.len()).map(|i| all.label(i).unwrap()).collect();
        Arrays::new(vec![("image".into(), Tensor::f32(&[all.len(), 3, 12, 12], data))], Some(labels)).unwrap()
    };
    assert_eq!(source(short(&model).evaluate_on(&arrays())), Source::Evaluation);
}

#[test]
fn a_run_tells_what_it_does_and_stops() {
    let model = model();
    let samples = samples(&model);
    let (stop, mut stages) = (AtomicBool::new(false), Vec::new());
    let mut progress = Progress::new(|event: &Event| {
        if let Event::StageStarted { stage, .. } = event {
            stages.push(*stage);
            if *stage == Stage::Reconstruct {
                stop.store(true, Ordering::Relaxed);
            }
        }
    })
    .stopped_by(&stop);
    let error = short(&model).progress(&mut progress).quantize(&samples).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(stages.starts_with(&[Stage::Simplify]) && stages.ends_with(&[Stage::Reconstruct]), "{stages:?}");
}

#[test]
fn a_run_goes_on_from_its_work_directory() {
    let model = model();
    let samples = samples(&model);
    let dir = tempfile::tempdir().unwrap();
    let work = WorkDir::open(&dir.path().join("work")).unwrap();
    let run = || short(&model).work_dir(&work).quantize(&samples).unwrap();
    let (first, second) = (run(), run());
    assert!(first.report().units.iter().all(|u| !u.resumed));
    assert!(second.report().units.iter().all(|u| u.resumed));
    assert_eq!(first.to_bytes().unwrap(), second.to_bytes().unwrap());
}

#[test]
fn tuning_moves_the_steps_of_weights_and_leaves_their_integers() {
    let model = model();
    let samples = samples(&model);
    let run = |learn: bool| {
        let learned = short(&model).weights(2).activations(4).configure(|recipe| {
            recipe.method.iterations = Some(100);
            recipe.method.learn_weight_scales = Some(learn);
        });
        let found = learned.quantize(&samples).unwrap();
        let graph = qdrop::onnx::read_bytes(&found.to_bytes().unwrap(), None).unwrap();
        let constants = graph.values.into_iter().filter_map(|v| Some((v.name, v.constant?)));
        let (floats, integers): (Vec<_>, Vec<_>) = constants.partition(|(_, c)| c.dtype() == DType::F32);
        let network = found.report().units.last().unwrap().clone();
        assert_eq!((network.name.as_str(), network.reverted), ("network", false));
        // Biases are integers in units of steps.
        let weights = integers.into_iter().filter(|(_, c)| c.dtype() != DType::I32).collect::<Vec<_>>();
        (floats, weights, network.loss_before, network.loss_after)
    };
    let (with, without) = (run(true), run(false));
    assert!(with.1 == without.1 && with.1.iter().any(|(_, c)| c.rank() == 4));
    let moved = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| a != b);
    let steps = |of: &[(String, Arc<Tensor>)]| {
        of.iter().filter(|(_, c)| c.rank() == 1 && c.len() > 1).map(|(_, c)| c.to_f32().unwrap()).collect::<Vec<_>>()
    };
    let (a, b) = (steps(&with.0), steps(&without.0));
    assert!(a.len() > 2 && a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| moved(a, b)), "{a:?}, {b:?}");
    assert_eq!(with.2, without.2, "both begin with what the units leave");
    assert!(with.3 < 0.97 * without.3, "{} with steps, {} without", with.3, without.3);
}

#[test]
fn answers_are_those_that_accuracy_counts() {
    let model = model();
    let samples = samples(&model);
    let (mut right, mut next) = (0, 0);
    let best = |s: &[f32]| s.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    model
        .answers(&samples, 1, &mut Silent, |index, outputs| {
            assert_eq!((index, outputs.len(), outputs[0].shape), (next, 1, &[4][..]));
            next += 1;
            right += usize::from(samples.label(index) == Some(best(outputs[0].values)));
            Ok(())
        })
        .unwrap();
    assert_eq!(next, samples.len());
    let score = model.evaluate(&samples, &Recipe::default(), &mut Silent).unwrap();
    assert_eq!(score.metrics["top1"], 100.0 * right as f64 / next as f64);
}

#[test]
fn networks_are_compared_planned_and_measured() {
    let model = model();
    let samples = samples(&model);
    let recipe = Recipe::default();
    let quantized = short(&model).weights(8).activations(8).method(MethodName::Rtn).quantize(&samples).unwrap();
    let values = model.compare(&quantized.to_model().unwrap(), &samples, &recipe, &mut Silent).unwrap();
    let scores = values.iter().find(|v| v.name == "scores").unwrap();
    assert!(scores.snr_db.unwrap() > 25.0, "{scores:?}");
    assert_eq!(model.compare(&model, &samples, &recipe, &mut Silent).unwrap()[0].max_abs, 0.0);

    let planned = model.plan(&recipe, None, None, 64).unwrap();
    assert_eq!(planned.plan.layers.len(), 3);
    assert_eq!(planned.memory.samples, 64);
    assert_eq!(model.multiply_adds(None).unwrap(), planned.plan.units.iter().map(|u| u.multiply_adds).sum::<u64>());
    model.check(&recipe).unwrap();

    let few = Subset::first(&samples, 8);
    let measured: Sensitivity = model.sensitivity(&few, &recipe, None, &mut Silent).unwrap();
    assert_eq!(measured.layers.len(), 3);
    let mut wanted = recipe.clone();
    wanted.mixed.size = Some("w4".parse().unwrap());
    let chosen = model.plan(&wanted, Some(&measured), None, 64).unwrap();
    assert!(chosen.chosen.is_some() && chosen.cost.weight_bytes <= planned.cost.weight_bytes);
    let run = short(&model).recipe(wanted).method(MethodName::Rtn).sensitivity(measured).quantize(&samples).unwrap();
    assert_eq!(run.weight_bytes(), chosen.cost.weight_bytes);
    assert_eq!(run.recipe().overrides, chosen.recipe.overrides);
}

#[test]
fn calibration_sets_keep_what_is_left() {
    let model = model();
    let mut recipe = Recipe::default();
    recipe.input.samples = Some(32);
    let set = CalibrationSet::open(SAMPLES, &model, &recipe, &Silent).unwrap();
    let (used, rest) = (set.used().unwrap(), set.left_out().unwrap());
    assert_eq!((used.len(), used.len() + rest.len()), (32, samples(&model).len()));
    let names = |s: &dyn Samples| (0..s.len()).map(|i| s.name(i)).collect::<Vec<_>>();
    assert!(names(&used).iter().all(|n| !names(&*rest).contains(n)));
}

#[test]
fn errors_have_kind_place_and_advice() {
    let model = model();
    let all = samples(&model);
    let error = Quantizer::new(&model).quantize(&Subset::first(&all, 3)).unwrap_err();
    assert_eq!((error.kind(), error.places()), (Kind::Data, &[SAMPLES.to_string()][..]));
    assert!(error.message().contains("got 3") && error.advice().is_some(), "{error}");
    assert_eq!(Quantizer::new(&model).weights(1).quantize(&all).unwrap_err().kind(), Kind::Recipe);
    let wrong = Arrays::new(vec![("image".into(), Tensor::f32(&[64, 3, 9, 9], vec![0.0; 64 * 243]))], None).unwrap();
    assert_eq!(Quantizer::new(&model).quantize(&wrong).unwrap_err().kind(), Kind::Data);
    assert_eq!(Model::from_bytes(b"no model").unwrap_err().kind(), Kind::Model);
    assert_eq!(Model::open("nothing.onnx").unwrap_err().kind(), Kind::Io);
    let unlabelled = Arrays::new(vec![("image".into(), Tensor::f32(&[1, 3, 12, 12], vec![0.0; 432]))], None).unwrap();
    let error = model.evaluate(&unlabelled, &Recipe::default(), &mut Silent).unwrap_err();
    assert!(error.message().contains("label"), "{error}");
}

#[test]
fn open_sizes_are_fixed_once() {
    let fixed = model().fix("batch", &[1.0]).unwrap();
    assert!(fixed.clone().fix("batch", &[1.0]).is_err());
    assert!(fixed.fix_known("batch", &[1.0]).is_ok());
    assert!(model().fix("nothing", &[1.0]).unwrap_err().to_string().contains("nothing"));
}

#[test]
fn the_stages_told_before_are_those_of_the_run() {
    let model = model();
    let samples = samples(&model);
    for (method, size) in [
        (MethodName::Rtn, None),
        (MethodName::Rtn, Some("w4")),
        (MethodName::Adaround, None),
        (MethodName::Brecq, None),
        (MethodName::Qdrop, None),
        (MethodName::Qdrop, Some("w4")),
    ] {
        let quantizer = short(&model).method(method).configure(|recipe| {
            recipe.method.iterations = Some(5);
            recipe.mixed.size = size.map(|s| s.parse().unwrap());
        });
        let quantizer = quantizer.evaluate_on(&samples);
        let (told, mut seen) = (quantizer.stages(), Vec::new());
        let mut progress = Progress::new(|event: &Event| match event {
            Event::StageStarted { stage, .. } if !seen.contains(stage) => seen.push(*stage),
            _ => {}
        });
        quantizer.progress(&mut progress).quantize(&samples).unwrap();
        assert_eq!(seen, told, "{method} {size:?}");
    }
}

#[test]
fn the_recipe_of_chosen_bits_gives_the_same_network_again() {
    let model = model();
    let samples = samples(&model);
    for (weights, activations, size) in [(8, 8, "w8"), (4, 4, "w4")] {
        let quantizer = short(&model).weights(weights).activations(activations).method(MethodName::Rtn);
        let quantizer = quantizer.configure(|recipe| recipe.mixed.size = Some(size.parse().unwrap()));
        let chosen = quantizer.quantize(&samples).unwrap();
        let again = Quantizer::new(&model).recipe(chosen.recipe().clone()).quantize(&samples).unwrap();
        assert!(chosen.to_bytes().unwrap() == again.to_bytes().unwrap(), "W{weights}A{activations}, {size}");
    }
}

#[test]
fn samples_to_measure_on_are_checked_too() {
    /// Images of which one is transposed.
    struct Turned;
    impl Samples for Turned {
        fn len(&self) -> usize {
            8
        }
        fn get(&self, index: usize) -> qdrop::Result<Vec<Tensor>> {
            let shape = if index == 5 { [12, 3, 12] } else { [3, 12, 12] };
            Ok(vec![Tensor::f32(&shape, vec![0.5; 432])])
        }
        fn label(&self, _: usize) -> Option<usize> {
            Some(0)
        }
        fn name(&self, index: usize) -> String {
            format!("picture {index}")
        }
    }
    let model = model();
    let samples = samples(&model);
    let rtn = || Quantizer::new(&model).method(MethodName::Rtn);
    let error = rtn().evaluate_on(&Turned).quantize(&samples).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("picture 5")), (Kind::Data, true), "{error}");
    // What cannot be read of unseen samples is left out.
    let quality = rtn().unseen(&Turned).quantize(&samples).unwrap().into_report().quality.unwrap();
    assert!(quality.samples > 0);
}

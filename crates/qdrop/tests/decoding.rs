//! Every sample is decoded once, however many passes of a call read it.

use qdrop::data::{Subset, Target};
use qdrop::plan::{Cache, MethodName, Recipe};
use qdrop::report::{Silent, Source};
use qdrop::runtime::Library;
use qdrop::tensor::Tensor;
use qdrop::{Dataset, Model, Quantizer, Result, Samples};
use std::sync::atomic::{AtomicUsize, Ordering};

const NETWORK: &[u8] = include_bytes!("../examples/network.onnx");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/samples.npz");

/// Counts how often each sample is asked for: a source that decodes does so every time.
struct Counted {
    samples: Subset<Dataset>,
    asked: Vec<AtomicUsize>,
}

impl Counted {
    /// Every second of the samples, from `first` on.
    fn new(model: &Model, first: usize) -> Self {
        let all = Dataset::open(SAMPLES, model, &Recipe::default(), None, &Silent).unwrap();
        let indices: Vec<usize> = (first..all.len()).step_by(2).collect();
        let asked = indices.iter().map(|_| AtomicUsize::new(0)).collect();
        Counted { samples: Subset::new(all, indices).unwrap(), asked }
    }

    /// That every sample was asked for once since the last time.
    fn once(&self, what: &str) {
        let times: Vec<usize> = self.asked.iter().map(|n| n.swap(0, Ordering::Relaxed)).collect();
        assert!(!times.is_empty() && times.iter().all(|&n| n == 1), "{what}: {times:?}");
    }
}

impl Samples for Counted {
    fn len(&self) -> usize {
        self.samples.len()
    }
    fn get(&self, index: usize) -> Result<Vec<Tensor>> {
        self.asked[index].fetch_add(1, Ordering::Relaxed);
        self.samples.get(index)
    }
    fn label(&self, index: usize) -> Option<usize> {
        self.samples.label(index)
    }
    fn target(&self, index: usize) -> Result<Option<Target>> {
        self.samples.target(index)
    }
    fn name(&self, index: usize) -> String {
        self.samples.name(index)
    }
}

fn short(model: &Model, method: MethodName) -> Quantizer<'_> {
    let few = |recipe: &mut Recipe| (recipe.method.iterations, recipe.method.batch) = (Some(4), 8);
    Quantizer::new(model).method(method).configure(few)
}

#[test]
fn a_run_decodes_every_sample_once() {
    let model = Model::from_bytes(NETWORK).unwrap();
    let (calibration, evaluation) = (Counted::new(&model, 0), Counted::new(&model, 1));
    for method in [MethodName::Rtn, MethodName::Qdrop] {
        let report = short(&model, method).quantize(&calibration).unwrap().into_report();
        assert_eq!(report.quality.unwrap().source, Source::Calibration);
        calibration.once("compared on what it was calibrated on");

        let run = short(&model, method).evaluate_on(&evaluation);
        let report = run.quantize(&calibration).unwrap().into_report();
        assert_eq!(report.quality.unwrap().source, Source::Evaluation);
        calibration.once("calibration");
        evaluation.once("compared, and three networks measured");

        short(&model, method).unseen(&evaluation).quantize(&calibration).unwrap();
        calibration.once("calibration beside unseen samples");
        evaluation.once("unseen samples");
    }
    let half = short(&model, MethodName::Qdrop).configure(|recipe| recipe.method.cache = Cache::F16);
    half.quantize(&calibration).unwrap();
    calibration.once("learned from in half precision");
    let mixed = short(&model, MethodName::Qdrop).configure(|r| r.mixed.bitops = Some("w4a4".parse().unwrap()));
    mixed.quantize(&calibration).unwrap();
    calibration.once("bits chosen by measuring");
}

#[test]
fn measuring_and_comparing_decode_every_sample_once() {
    let (model, recipe) = (Model::from_bytes(NETWORK).unwrap(), Recipe::default());
    let samples = Counted::new(&model, 0);
    model.evaluate(&samples, &recipe, &mut Silent).unwrap();
    samples.once("evaluate");
    model.answers(&samples, 0, &mut Silent, |_, _| Ok(())).unwrap();
    samples.once("answers");
    model.compare(&model, &samples, &recipe, &mut Silent).unwrap();
    samples.once("compare");
    model.sensitivity(&samples, &recipe, None, &mut Silent).unwrap();
    samples.once("sensitivity");
}

#[test]
fn a_runtime_is_fed_samples_that_are_decoded_once() {
    let Some(library) = qdrop_testing::onnxruntime() else { return };
    let library = Library::load(&library).unwrap();
    let (model, recipe) = (Model::from_bytes(NETWORK).unwrap(), Recipe::default());
    let (calibration, evaluation) = (Counted::new(&model, 0), Counted::new(&model, 1));
    let run = short(&model, MethodName::Rtn).evaluate_on(&evaluation).runtime(&library);
    let report = run.quantize(&calibration).unwrap().into_report();
    assert!(report.accuracy.is_some() && report.latency.is_some());
    calibration.once("calibration, one of them for latency");
    evaluation.once("compared, and three files measured");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.onnx");
    std::fs::write(&path, NETWORK).unwrap();
    let model = Model::open(&path).unwrap();
    let file = model.deploy(&library, 1).unwrap();
    model.evaluate_deployed(&file, &evaluation, &recipe, &mut Silent).unwrap();
    evaluation.once("evaluate");
    model.compare_deployed(&file, &evaluation, &recipe, &mut Silent).unwrap();
    evaluation.once("compare");
}

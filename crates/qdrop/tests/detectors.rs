//! Small detectors as exporters write them (`scripts/detector_networks.py`): their plans, what those with a last part that
//! depends on data compute against ONNX Runtime, and what quantizing them gives.
//!
//! `QDROP_UPDATE_DETECTORS=1` writes the plans anew (`tests/fixtures/detectors/plans.txt`): units, sites and layers that stay
//! float, of whole networks and with their heads left out. Read them before you commit them.

mod record;

use qdrop::data::Arrays;
use qdrop::eval::Difference;
use qdrop::graph::{Fact, Graph, Node, Op, ValueId};
use qdrop::plan::{MethodName, Part, Recipe};
use qdrop::report::Silent;
use qdrop::runtime::Library;
use qdrop::tensor::Tensor;
use qdrop::{Answer, Dataset, Model, Quantizer, Samples};
use record::record;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Height and width of images.
const SIDE: usize = 64;
/// Networks whose last part depends on data.
const OPEN: [&str; 5] = ["retinanet", "faster_rcnn", "ultralytics", "yolov7", "pasted"];
/// Those of them that put out detections.
const DETECTORS: &[&str] = OPEN.split_at(4).0;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/detectors").join(name)
}

fn open(name: &str) -> Model {
    Model::open(fixture(&format!("{name}.onnx"))).unwrap()
}

/// The images of the script for these seeds.
fn images(seeds: impl IntoIterator<Item = usize>) -> Arrays {
    let n = 3 * SIDE * SIDE;
    let image = |seed: usize| (0..n).map(move |i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0);
    let values: Vec<f32> = seeds.into_iter().flat_map(image).collect();
    let shape = [values.len() / n, 3, SIDE, SIDE];
    Arrays::new(vec![("images".into(), Tensor::f32(&shape, values))], None).unwrap()
}

/// All outputs for one image.
fn outputs(model: &Model, seed: usize) -> Vec<Vec<f32>> {
    let mut found = Vec::new();
    let take = |_, outputs: &[Answer<'_>]| {
        found = outputs.iter().map(|o| o.values.to_vec()).collect();
        Ok(())
    };
    model.answers(&images([seed]), 1, &mut Silent, take).unwrap();
    found
}

#[test]
fn plans_are_as_recorded() {
    let mut text = String::new();
    for name in ["yolox", "nanodet", "retinanet", "faster_rcnn"] {
        for (part, what) in [(Part::Network, "the whole network"), (Part::BackboneNeck, "backbone and neck")] {
            let mut recipe = Recipe::default();
            (recipe.weights.bits, recipe.activations.bits, recipe.scope.part) = (4, 4, part);
            let planned = open(name).plan(&recipe, None, None, 64).unwrap();
            writeln!(text, "# {name}, {what}").unwrap();
            writeln!(text, "{}", record(&planned.graph, &planned.plan)).unwrap();
        }
    }
    let file = fixture("plans.txt");
    if std::env::var_os("QDROP_UPDATE_DETECTORS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap().replace("\r\n", "\n");
    assert_eq!(text, recorded, "QDROP_UPDATE_DETECTORS=1 writes it anew");
}

#[test]
fn parts_that_depend_on_data_compute_what_onnx_runtime_does() {
    let file = std::fs::read(fixture("answers.json")).unwrap();
    let answers: Vec<serde_json::Value> = serde_json::from_slice(&file).unwrap();
    assert_eq!(answers.len(), 3 * OPEN.len());
    for answer in &answers {
        let network = answer["network"].as_str().unwrap();
        let seed = answer["seed"].as_u64().unwrap() as usize;
        let found = outputs(&Model::open(fixture(network)).unwrap(), seed);
        for (found, want) in found.iter().zip(answer["outputs"].as_array().unwrap()) {
            let values: Vec<f64> = want["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            assert_eq!(found.len(), values.len(), "{network}, {seed}: {}", want["name"]);
            for (i, (&found, want)) in found.iter().zip(values).enumerate() {
                assert!((f64::from(found) - want).abs() < 2e-3 * want.abs().max(1.0), "{network}, {seed}: {i}");
            }
        }
    }
}

/// YOLOv8's network with the twenty rows of highest score of its first class as output, as files with a fixed number of rows
/// have them.
fn ranked() -> Graph {
    let mut g = qdrop::onnx::read(&fixture("yolov8.onnx")).unwrap();
    let node = |g: &mut Graph, name: &str, op: Op, inputs: &[ValueId]| {
        let y = g.add_value(name, Fact::default());
        g.nodes.push(Node::new(format!("{name}.node"), op, inputs, &[y]));
        y
    };
    let [zero, two, class, k] = [("zero", 0), ("two", 2), ("class", 4), ("k", 20)]
        .map(|(name, i)| g.add_constant(&format!("ranked.{name}"), Tensor::i64s(vec![i])));
    let output = g.outputs[0];
    let rows = node(&mut g, "rows", Op::Transpose { perm: vec![0, 2, 1] }, &[output]);
    let scores = node(&mut g, "scores", Op::Gather { axis: 2 }, &[rows, class]);
    let scores = node(&mut g, "flat", Op::Squeeze, &[scores, two]);
    let best = node(&mut g, "best", Op::TopK { axis: 1, largest: true, sorted: true }, &[scores, k]);
    let places = g.add_value("places", Fact::default());
    g.nodes.last_mut().unwrap().outputs.push(Some(places));
    let [rows, places, _] = [("every", rows), ("found", places), ("highest", best)]
        .map(|(name, v)| node(&mut g, name, Op::Squeeze, &[v, zero]));
    let found = node(&mut g, "chosen", Op::Gather { axis: 0 }, &[rows, places]);
    g.outputs = vec![node(&mut g, "boxes", Op::Unsqueeze, &[found, zero])];
    g.check().unwrap();
    g
}

/// Noise exchanges rows in the order of scores: they say nothing about a file that is close to the float network.
#[test]
fn rows_in_the_order_of_scores_do_not_count_against_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let [float, path] = ["float.onnx", "q.onnx"].map(|name| dir.path().join(name));
    qdrop::onnx::write(&ranked(), &float).unwrap();
    let model = Model::open(&float).unwrap();
    let run = Quantizer::new(&model).weights(8).activations(8).method(MethodName::Rtn).seed(1);
    let quantized = run.quantize(&images(10..26)).unwrap();
    let quality = quantized.report().quality.clone().unwrap();
    assert_eq!((&quality.ordered[..], quality.partial), (&["boxes".to_string()][..], false));
    let names: Vec<&str> = quality.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["flat", "every"], "by what is chosen, and from what");
    assert!(quality.snr_db.is_some_and(|snr| snr > 30.0), "{quality:?}");
    let Some(library) = qdrop_testing::onnxruntime().map(|path| Library::load(&path).unwrap()) else { return };
    std::fs::write(&path, quantized.to_bytes().unwrap()).unwrap();
    let written = Model::open(&path).unwrap();
    let file = written.deploy(&library, 1).unwrap();
    let found = model.compare_deployed(&file, &images([1, 2]), &Recipe::default(), &mut Silent).unwrap();
    let snr = |name: &str| found.values.iter().chain(&found.outputs).find(|v| v.name == name).and_then(|v| v.snr_db);
    assert!(["every", "flat"].iter().all(|name| snr(name).is_some_and(|snr| snr > 30.0)), "{found:?}");
    assert!(snr("boxes").is_some_and(|snr| snr < 20.0), "rows keep their places: {found:?}");
}

#[test]
fn quantized_files_keep_their_last_part_and_answer_as_in_onnx_runtime() {
    let library = qdrop_testing::onnxruntime().map(|path| Library::load(&path).unwrap());
    let calibration = images(10..26);
    for name in OPEN {
        for (bits, method) in [(8, MethodName::Rtn), (4, MethodName::Qdrop)] {
            let model = open(name);
            let run =
                Quantizer::new(&model).weights(bits).activations(bits).method(method).seed(1).configure(|recipe| {
                    recipe.method.iterations = Some(20);
                    recipe.method.batch = 4;
                    recipe.method.threads = 1;
                });
            let quantized = run.quantize(&calibration).unwrap();
            let report = quantized.report();
            let quality = report.quality.clone().unwrap();
            assert!(
                quality.partial && quality.snr_db.is_some_and(|snr| snr > if bits == 8 { 15.0 } else { 0.0 }),
                "{name}: {quality:?}"
            );
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("q.onnx");
            std::fs::write(&path, quantized.to_bytes().unwrap()).unwrap();
            let written = Model::open(&path).unwrap();
            let found = outputs(&written, 1);
            assert!(!found[0].is_empty(), "{name}: nothing is found");
            let Some(library) = &library else { continue };
            let file = written.deploy(library, 1).unwrap();
            let divergence = written.compare_deployed(&file, &images([1, 2]), &Recipe::default(), &mut Silent).unwrap();
            // What lies in front of the choice among boxes; behind it they may change their places.
            let ends = |v: &&Difference| quality.outputs.iter().any(|o| o.name == v.name);
            let worst = divergence.values.iter().filter(ends).filter_map(|v| v.snr_db).fold(f64::INFINITY, f64::min);
            assert!(worst > 30.0, "{name} W{bits}A{bits}: {worst} dB in ONNX Runtime");
        }
    }
}

/// Every layer behind the part that depends on data is named with the node that it depends on.
#[test]
fn layers_behind_stay_float_and_are_told() {
    let planned = open("faster_rcnn").plan(&Recipe::default(), None, None, 64).unwrap();
    let dense: Vec<_> = planned.plan.float.iter().filter(|f| f.node.starts_with("Gemm")).collect();
    assert_eq!(dense.len(), 4);
    assert!(dense.iter().all(|f| f.reason.starts_with("it depends on `NonZero_")), "{dense:?}");
    let note = planned.plan.note(&planned.graph).unwrap();
    assert!(
        note.starts_with(
            "4 layers stay float because they depend on operators whose results have sizes that depend on the data"
        ),
        "{note}"
    );
}

/// Detections of a network with a last part that depends on data, in the engine and in ONNX Runtime.
#[test]
fn detections_are_those_of_onnx_runtime() {
    let Some(library) = qdrop_testing::onnxruntime() else { return };
    let library = Library::load(&library).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut listed, mut objects) = (Vec::new(), Vec::new());
    for id in 1..=4 {
        let pixel =
            |x: u32, y: u32| image::Rgb([(x * 37 + y * 11 + id * 50) as u8, (x * 3 + y * 29) as u8, (x * y) as u8]);
        image::RgbImage::from_fn(64, 48, pixel).save(dir.path().join(format!("{id}.png"))).unwrap();
        listed.push(format!(r#"{{"id": {id}, "file_name": "{id}.png"}}"#));
        objects.push(format!(
            r#"{{"id": {id}, "image_id": {id}, "category_id": 1, "bbox": [4, 4, 20, 30], "area": 600, "iscrowd": 0}}"#
        ));
    }
    let categories: Vec<String> = (0..=4).map(|c| format!(r#"{{"id": {c}, "name": "class {c}"}}"#)).collect();
    let (listed, objects, categories) = (listed.join(", "), objects.join(", "), categories.join(", "));
    let set = format!(r#"{{"images": [{listed}], "annotations": [{objects}], "categories": [{categories}]}}"#);
    let path = dir.path().join("val.json");
    std::fs::write(&path, set).unwrap();
    for name in DETECTORS {
        let model = open(name);
        let mut recipe = Recipe::default();
        (recipe.input.task, recipe.input.preset) = (Some(qdrop::plan::Task::Coco), Some("yolov5".into()));
        let samples = Dataset::open(&path, &model, &recipe, None, &Silent).unwrap();
        let here = model.detect(&samples, &recipe, &mut Silent).unwrap();
        let file = model.deploy(&library, 1).unwrap();
        let there = model.detect_deployed(&file, &samples, &mut Silent).unwrap();
        assert_eq!((here.found.len(), here.score.samples), (there.found.len(), samples.len()), "{name}");
        assert!(here.found.len() > 20, "{name}: {}", here.found.len());
        for (here, there) in here.found.iter().zip(&there.found) {
            assert_eq!((here.image, here.category), (there.image, there.category), "{name}");
            let near = here.bbox.iter().zip(there.bbox).all(|(a, b)| (a - b).abs() < 0.05);
            assert!(near && (here.score - there.score).abs() < 1e-4, "{name}: {here:?} against {there:?}");
        }
    }
}

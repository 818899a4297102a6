//! Files in a real ONNX Runtime against this library's own engine.
//!
//! The shared library is the one that `ORT_DYLIB_PATH` names, else that of the environment of `QDROP_PYTHON` (demanded by
//! `QDROP_REQUIRE_PYTHON=1`). Where there is none, tests print that they are skipped.

use qdrop::Kind;
use qdrop::data::{Arrays, Samples};
use qdrop::graph::{Dim, Fact, Graph, Node, Op, Padding, Unary, ValueId, Window};
use qdrop::pipeline::{self, Deployed};
use qdrop::plan::Recipe;
use qdrop::report::{Event, Silent, Sink};
use qdrop::runtime::Library;
use qdrop::tensor::{DType, Tensor};
use std::path::Path;

/// Classes of the test networks.
const CLASSES: usize = 3;
/// Elements of a sample.
const WIDTH: usize = 4;
/// Largest difference of an output: the two sum in different orders.
const TOLERANCE: f64 = 1e-5;
/// The same behind a BatchNorm that is folded into the weights, where sums are of ten and more.
const FOLDED: f64 = 1e-4;

fn library() -> Option<Library> {
    qdrop_testing::onnxruntime().map(|path| Library::load(&path).unwrap())
}

/// `n` samples of `shape`, each with its number and that of an element made a `value`.
fn samples(n: usize, shape: &[usize], labels: Option<Vec<usize>>, value: impl Fn(usize, usize) -> f32) -> Arrays {
    let width = shape.iter().product::<usize>();
    let values = (0..n * width).map(|i| value(i / width, i % width)).collect();
    Arrays::new(vec![("x".into(), Tensor::f32(&[&[n], shape].concat(), values))], labels).unwrap()
}

/// Rows of numbers; the label is `class` of the row's number.
fn rows(n: usize, class: impl Fn(usize) -> usize) -> Arrays {
    let value = |index: usize, k: usize| ((index * 31 + k * 17) % 23) as f32 / 11.0 - 1.0;
    samples(n, &[WIDTH], Some((0..n).map(class).collect()), value)
}

fn numbers(n: usize) -> Arrays {
    rows(n, |index| index % CLASSES)
}

/// Notes that are told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Sink for Notes {
    fn event(&mut self, event: &Event) {
        if let Event::Note { message } = event {
            self.0.push(message.clone());
        }
    }
}

fn node(graph: &mut Graph, name: &str, op: Op, inputs: &[ValueId]) -> ValueId {
    let y = graph.add_value(name, Fact::default());
    graph.nodes.push(Node::new(name, op, inputs, &[y]));
    y
}

/// relu(x · w), activated by `middle`, then classes; samples along an axis of `batch`.
fn network(batch: Dim, middle: Op) -> Graph {
    let mut g = Graph { opset: 17, ..Graph::default() };
    let fact = |width| Fact { dtype: Some(DType::F32), shape: Some(vec![batch.clone(), Dim::Known(width)]) };
    let x = g.add_value("x", fact(WIDTH));
    let weights = |n: usize, seed: usize| (0..n).map(|i| ((i * 7 + seed) % 13) as f32 / 6.0 - 1.0).collect();
    let first = g.add_constant("w1", Tensor::f32(&[WIDTH, WIDTH], weights(WIDTH * WIDTH, 1)));
    let last = g.add_constant("w2", Tensor::f32(&[WIDTH, CLASSES], weights(WIDTH * CLASSES, 5)));
    let a = node(&mut g, "product", Op::MatMul, &[x, first]);
    let b = node(&mut g, "middle", middle, &[a]);
    let y = node(&mut g, "scores", Op::MatMul, &[b, last]);
    g.values[y.0 as usize].fact = fact(CLASSES);
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    g
}

fn open(library: &Library, dir: &Path, graph: &Graph) -> Deployed {
    let path = dir.join("model.onnx");
    qdrop::onnx::write(graph, &path).unwrap();
    Deployed::open(library, &path, 1).unwrap()
}

#[test]
fn accuracy_is_the_engines_whatever_the_batch() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    // 70 samples are no whole number of runs.
    let samples = numbers(70);
    let relu = || Op::Unary(Unary::Relu);
    let want = pipeline::measure(&network(Dim::Symbol("n".into()), relu()), &samples, None, 1, &mut Silent).unwrap();
    assert!(want.metrics["top1"] > 0.0 && want.metrics["top1"] < 100.0, "a constant answer would prove nothing");
    for batch in [Dim::Symbol("n".into()), Dim::Unknown, Dim::Known(1), Dim::Known(16)] {
        let file = open(&library, dir.path(), &network(batch.clone(), relu()));
        let mut notes = Notes::default();
        file.check(&samples, None).unwrap();
        assert_eq!(file.measure(&samples, None, &mut notes).unwrap(), want, "{batch:?}");
        assert!(notes.0.is_empty(), "{:?}", notes.0);
    }
}

#[test]
fn a_file_that_lies_about_its_batch_runs_one_by_one() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut graph = network(Dim::Symbol("n".into()), Op::Unary(Unary::Relu));
    // The classes of one sample only.
    let shape = graph.add_constant("shape", Tensor::i64s(vec![1, CLASSES as i64]));
    let scores = graph.outputs[0];
    let y = node(&mut graph, "one", Op::Reshape { allowzero: false }, &[scores, shape]);
    graph.outputs = vec![y];
    let want = pipeline::measure(&graph, &numbers(20), None, 1, &mut Silent).unwrap();
    let file = open(&library, dir.path(), &graph);
    let mut notes = Notes::default();
    assert_eq!(file.measure(&numbers(20), None, &mut notes).unwrap(), want);
    let [note] = &notes.0[..] else { panic!("{:?}", notes.0) };
    assert!(note.contains("can only run one sample at a time"), "{note}");
}

#[test]
fn operators_that_the_engine_lacks_are_measured() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let gelu = Op::Opaque { domain: "com.microsoft".into(), kind: "QuickGelu".into() };
    let graph = network(Dim::Symbol("n".into()), gelu);
    assert!(pipeline::measure(&graph, &numbers(10), None, 1, &mut Silent).is_err());
    let file = open(&library, dir.path(), &graph);
    let face = file.face();
    assert_eq!(face.value(face.inputs[0]).name, "x");
    file.check(&numbers(10), None).unwrap();
    assert_eq!(file.measure(&numbers(10), None, &mut Silent).unwrap().samples, 10);
}

#[test]
fn labels_beyond_the_classes_are_refused_before_all_samples_run() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = open(&library, dir.path(), &network(Dim::Symbol("n".into()), Op::Unary(Unary::Relu)));
    let error = file.check(&rows(2, |index| index * CLASSES), None).unwrap_err();
    assert_eq!(error.to_string(), "sample `row 1`: label 3 is out of range, the network has 3 classes (0 to 2)");
}

#[test]
fn every_value_is_compared_and_the_outputs_of_the_file_as_it_is() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let graph = network(Dim::Symbol("n".into()), Op::Unary(Unary::Relu));
    let file = open(&library, dir.path(), &graph);
    let found = pipeline::divergence(&graph, &file, &numbers(9), &Recipe::default(), &mut Silent).unwrap();
    let names = |all: &[qdrop::eval::Difference]| all.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found.values), ["product", "middle", "scores"]);
    assert_eq!(names(&found.outputs), ["scores"]);
    for d in found.values.iter().chain(&found.outputs) {
        assert!(d.max_abs <= TOLERANCE, "{d:?}");
    }
    assert_eq!(found.values[1].operator, "Relu");

    // A file that computes something else in its middle.
    let other = open(&library, dir.path(), &network(Dim::Known(1), Op::Unary(Unary::Neg)));
    let found = pipeline::divergence(&graph, &other, &numbers(9), &Recipe::default(), &mut Silent).unwrap();
    assert!(found.values[0].max_abs <= TOLERANCE && found.values[1].max_abs > 0.1, "{:?}", found.values);
    assert!(found.outputs[0].max_abs > 0.1);
}

#[test]
fn values_of_a_layer_with_a_folded_batch_norm_are_the_same() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut g = Graph { opset: 17, ..Graph::default() };
    let shape = vec![Dim::Symbol("n".into()), Dim::Known(WIDTH), Dim::Known(2), Dim::Known(2)];
    let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape: Some(shape) });
    let weights = (0..WIDTH * WIDTH).map(|i| (i % 7) as f32 / 3.0 - 1.0).collect();
    let w = g.add_constant("w", Tensor::f32(&[WIDTH, WIDTH, 1, 1], weights));
    let window = Window { kernel: vec![], strides: vec![], dilations: vec![], padding: Padding::Explicit(vec![0; 4]) };
    let conv = node(&mut g, "conv", Op::Conv { window, group: 1 }, &[x, w]);
    let part = |g: &mut Graph, name: &str, value: f32| g.add_constant(name, Tensor::f32(&[WIDTH], vec![value; WIDTH]));
    let parts = [("scale", 3.0), ("shift", 0.5), ("mean", -1.0), ("variance", 0.2)].map(|(n, v)| part(&mut g, n, v));
    let norm = node(&mut g, "norm", Op::BatchNorm { epsilon: 1e-5 }, &[&[conv][..], &parts].concat());
    let y = node(&mut g, "relu", Op::Unary(Unary::Relu), &[norm]);
    (g.inputs, g.outputs) = (vec![x], vec![y]);

    let squares = samples(3, &[WIDTH, 2, 2], None, |index, i| ((i + index) % 5) as f32 - 2.0);
    let file = open(&library, dir.path(), &g);
    let reference = pipeline::prepare(&g, Some(&[vec![WIDTH, 2, 2]])).unwrap();
    let found = pipeline::divergence(&reference, &file, &squares, &Recipe::default(), &mut Silent).unwrap();
    assert!(found.values.len() >= 2, "{:?}", found.values);
    for d in found.values.iter().chain(&found.outputs) {
        assert!(d.max_abs <= FOLDED, "{d:?}");
    }
}

/// ONNX Runtime from 1.21 on rounds float weights between quantizers to 8 bits, with one step for all channels.
#[test]
fn weights_of_transposed_convolutions_are_those_that_were_written() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut g = Graph { opset: 17, ..Graph::default() };
    let shape = vec![Dim::Symbol("n".into()), Dim::Known(2), Dim::Known(5), Dim::Known(5)];
    let x = g.add_value("x", Fact { dtype: Some(DType::F32), shape: Some(shape) });
    // Output channels of very different size.
    let weight = |g: &mut Graph, name: &str, shape: [usize; 4], axis: usize| {
        let inner: usize = shape[axis + 1..].iter().product();
        let size = |i: usize| [1.0, 0.01, 30.0, 0.2][i / inner % shape[axis] % 4];
        let values = (0..shape.iter().product()).map(|i| (((i * 7 + 3) % 13) as f32 / 6.0 - 1.0) * size(i)).collect();
        g.add_constant(name, Tensor::f32(&shape, values))
    };
    let window = |kernel: i64, stride: i64| Window {
        kernel: vec![kernel; 2],
        strides: vec![stride; 2],
        dilations: vec![],
        padding: Padding::Explicit(vec![0; 4]),
    };
    let first = weight(&mut g, "first", [4, 2, 1, 1], 0);
    let second = weight(&mut g, "second", [4, 4, 2, 2], 1);
    let third = weight(&mut g, "third", [3, 4, 1, 1], 0);
    let y = node(&mut g, "a", Op::Conv { window: window(1, 1), group: 1 }, &[x, first]);
    let y = node(&mut g, "b", Op::Unary(Unary::Relu), &[y]);
    let up = Op::ConvTranspose { window: window(2, 2), group: 1, output_padding: vec![], output_shape: vec![] };
    let y = node(&mut g, "c", up, &[y, second]);
    let y = node(&mut g, "d", Op::Unary(Unary::Relu), &[y]);
    let y = node(&mut g, "e", Op::Conv { window: window(1, 1), group: 1 }, &[y, third]);
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    let value = |index: usize, k: usize| ((index * 31 + k * 17 + k * k) % 23) as f32 / 11.0 - 1.0;
    let images = samples(8, &[2, 5, 5], None, value);
    let float = pipeline::prepare(&g, Some(&[vec![2, 5, 5]])).unwrap();
    let mut recipe = Recipe::default();
    recipe.method.name = qdrop::plan::MethodName::Rtn;
    recipe.activations.factor_samples = Some(0);
    for bits in [4, 8] {
        (recipe.weights.bits, recipe.activations.bits) = (bits, bits);
        let done = pipeline::quantize(&float, &recipe, &images, None, &mut Silent).unwrap();
        let file = open(&library, dir.path(), &done.graph);
        let found = pipeline::divergence(&done.graph, &file, &images, &Recipe::default(), &mut Silent).unwrap();
        let decibels = found.outputs[0].snr_db.unwrap_or(f64::INFINITY);
        assert!(decibels >= 60.0, "{bits} bits: {decibels} dB");
    }
}

#[test]
fn runs_are_timed_in_turn() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = open(&library, dir.path(), &network(Dim::Symbol("n".into()), Op::Unary(Unary::Relu)));
    let inputs = file.noise(None).unwrap();
    assert_eq!(inputs[0].shape(), [1, WIDTH]);
    assert_eq!(file.noise(Some(&[vec![5, WIDTH]])).unwrap()[0].shape(), [5, WIDTH]);
    let error = file.noise(Some(&[vec![5, WIDTH + 1]])).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Data, "the shape [5, 5] does not fit what the file declares"));
    let sample = file.batch_of(&numbers(1).get(0).unwrap()).unwrap();
    let paces = pipeline::pace(&[(&file, &inputs), (&file, &sample)], &mut Silent).unwrap();
    for pace in &paces {
        let [least, median] = pace.wall_ms;
        assert!(pace.runs >= 20 && least > 0.0 && least <= median, "{pace:?}");
        assert_eq!(pace.threads, 1);
    }
    struct Stop;
    impl Sink for Stop {
        fn event(&mut self, _: &Event) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    assert_eq!(pipeline::pace(&[(&file, &inputs)], &mut Stop).unwrap_err().kind(), Kind::Interrupted);
}

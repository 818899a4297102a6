//! Real networks and images from end to end: accuracy, the written file against the decisions, ONNX Runtime as judge.
//!
//! Networks and images come from the shared data (`QDROP_SHARED`, else `../shared`; demanded by
//! `QDROP_REQUIRE_SHARED=1`), ONNX Runtime from the interpreter that `QDROP_PYTHON` names (demanded by
//! `QDROP_REQUIRE_PYTHON=1`), OpenVINO and qonnx from that or from those that `QDROP_OPENVINO` and `QDROP_QONNX` name
//! (`QDROP_REQUIRE_OPENVINO=1`, `QDROP_REQUIRE_QONNX=1`), and so AIMET (`QDROP_AIMET`, `QDROP_REQUIRE_AIMET=1`). What is
//! missing is printed as skipped.

use qdrop::data::{self, Prepare, Samples, Subset};
use qdrop::graph::{Binary, Graph, NodeId, Op, ValueId};
use qdrop::pipeline::{self, Quantized};
use qdrop::plan::{EncodingsVersion, Format, MethodName, Placement, Recipe, Target};
use qdrop::report::Silent;
use qdrop::tensor::{DType, RowStore, Rows, Tensor};
use qdrop_testing::{npy, python, python_with, shared};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest distance between the outputs of two engines, relative to their size (root of the mean square). A sum that
/// one engine leaves just above and the other just below a tie becomes two integers, and deep networks of few bits
/// carry such a step on. How far two settings of ONNX Runtime itself lie apart is printed beside it. On ResNet-20 a bias
/// that ONNX Runtime rounds inside its layer shows as 0.12 and more.
const DISTANCE: f64 = 0.08;
/// The same for MobileNetV2 with 8-bit activations (0.04 measured): it is far deeper, its sums pass no ReLU, and at 4 bits
/// a few ties grow to a third of the output.
const DISTANCE_DEEP: f64 = 0.1;
/// Largest difference in top-1 between ONNX Runtime and the engine here, in points.
const TOP1: f64 = 0.2;

/// What the judge `script` prints, a line of JSON.
fn judge(python: Option<PathBuf>, script: &str, arguments: &[&str]) -> Option<serde_json::Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/judge").join(script);
    let out = Command::new(python?).arg(script).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(serde_json::from_slice(&out.stdout).unwrap())
}

type Images = Box<dyn Samples + Send + Sync>;

fn images(path: &Path, preset: &str) -> Images {
    data::open(path, &Prepare::resolve(&named(preset)).unwrap(), &data::Limits::default()).unwrap()
}

fn named(preset: &str) -> qdrop::plan::Input {
    let mut input = qdrop::plan::Input::default();
    input.preset = Some(preset.into());
    input
}

fn recipe(method: MethodName, weights: u32, activations: u32, iterations: usize) -> Recipe {
    let mut recipe = Recipe::default();
    (recipe.weights.bits, recipe.activations.bits) = (weights, activations);
    (recipe.method.name, recipe.method.iterations, recipe.method.seed) = (method, Some(iterations), 0);
    recipe
}

fn simplified(path: &Path, samples: &dyn Samples) -> Graph {
    let shapes = vec![samples.get(0).unwrap()[0].shape().to_vec()];
    pipeline::prepare(&pipeline::load(path).unwrap(), Some(&shapes)).unwrap()
}

fn top1(graph: &Graph, samples: &dyn Samples) -> f64 {
    pipeline::measure(graph, samples, None, 0, &mut Silent).unwrap().metrics["top1"]
}

/// Every integer, scale and zero point in the file at `path` is the one decided. A channel of zeros may have a wider step,
/// since its bias is written in units of it.
fn file_holds_the_decisions(path: &Path, done: &Quantized, names: &Graph, samples: &dyn Samples) {
    let written = pipeline::load(path).unwrap();
    let find = |name: &str| written.values.iter().find(|v| v.name == name).and_then(|v| v.constant.clone());
    let content = |name: String| find(&name).unwrap_or_else(|| panic!("no initializer {name}"));
    for (site, grid) in done.plan.sites.iter().zip(&done.grids) {
        // What is divided by channel has a name of its own in the file.
        let float = &names.value(site.value).name;
        let divided = format!("{float}_divided");
        let name = if find(&format!("{divided}_scale")).is_some() { &divided } else { float };
        assert_eq!(content(format!("{name}_scale")).as_f32().unwrap(), grid.scale, "{name}");
        let zero_point = content(format!("{name}_zero_point")).to_i64().unwrap();
        assert_eq!(zero_point, grid.zero_point.iter().map(|&z| i64::from(z)).collect::<Vec<_>>(), "{name}");
    }
    // What runtimes do when they load the file: packed integers are unpacked.
    let loaded = simplified(path, samples);
    let producers = loaded.producers();
    for (layer, weight) in done.plan.layers.iter().zip(&done.weights) {
        let (name, grid) = (&layer.name, &weight.grid);
        let node = loaded.nodes.iter().find(|n| n.name == *name).unwrap_or_else(|| panic!("no node {name}"));
        let read = node.input(1).unwrap();
        let channels: Vec<usize> = grid.channels(&layer.shape).unwrap().collect();
        let Some(dequantize) = producers[read.0 as usize].map(|id| loaded.node(id)) else {
            let real = grid.dequantize_u8(&layer.shape, &weight.integers).unwrap();
            // Where ONNX Runtime would round a float weight once more, it is halved and its operand doubled.
            let factor = if doubled(&loaded, node.input(0).unwrap(), &producers) { 0.5 } else { 1.0 };
            let real: Vec<f32> = real.into_iter().map(|w| w * factor).collect();
            assert_eq!(loaded.constant(read).unwrap().as_f32().unwrap(), real, "{name}");
            continue;
        };
        let constant = |i: usize| loaded.constant(dequantize.input(i).unwrap()).unwrap();
        let (integers, steps) = (constant(0).to_i64().unwrap(), constant(1).as_f32().unwrap());
        // Types of 4 bits have zero points, int8 has not.
        let centered = constant(0).dtype() == DType::I8;
        for ((&q, &c), &found) in weight.integers.iter().zip(&channels).zip(&integers) {
            let zero = if centered { i64::from(grid.zero_point[c]) } else { 0 };
            // Steps are divided by a power of two where integers leave room, for the sake of the bias.
            let finer = grid.scale[c] / steps[c];
            let dead = found == 0 && i64::from(q) == zero;
            assert!(dead || finer.log2().fract() == 0.0 && finer >= 1.0, "{name}: channel {c}");
            assert!(dead || found == (i64::from(q) - zero) * finer as i64, "{name}: channel {c}");
        }
    }
}

/// Whether `value` is a product by 2.
fn doubled(graph: &Graph, value: ValueId, producers: &[Option<NodeId>]) -> bool {
    producers[value.0 as usize].map(|id| graph.node(id)).is_some_and(|n| {
        let factor = n.input(1).and_then(|v| graph.constant(v)).and_then(|t| t.as_f32());
        matches!(n.op, Op::Binary(Binary::Mul)) && factor.is_some_and(|f| f == [2.0])
    })
}

/// Outputs of the file at `path` for the first `count` samples by the judge `script`, with what else it prints.
fn judged(
    python: Option<PathBuf>,
    script: &str,
    more: &[&str],
    path: &Path,
    samples: &dyn Samples,
    count: usize,
) -> Option<(Vec<f32>, serde_json::Value)> {
    let dir = tempfile::tempdir().unwrap();
    let first: Vec<Tensor> = (0..count).map(|i| samples.get(i).unwrap().remove(0)).collect();
    let all: Vec<f32> = first.iter().flat_map(|t| t.as_f32().unwrap().to_vec()).collect();
    let shape: Vec<usize> = std::iter::once(count).chain(first[0].shape().iter().copied()).collect();
    let input = dir.path().join("input.npy");
    npy(&input, "<f4", &shape, &all.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    let out = dir.path().join("out");
    let words = [path, &out, &input].map(|p| p.to_str().unwrap());
    let said = judge(python, script, &[&words[..], more].concat())?;
    let found =
        data::open(&out.join("0.npy"), &Prepare::resolve(&named("none")).unwrap(), &data::Limits::default()).unwrap();
    Some(((0..count).flat_map(|i| found.get(i).unwrap()[0].as_f32().unwrap().to_vec()).collect(), said))
}

/// Outputs of the file by ONNX Runtime and by the engine here, on the first `count` samples. Where a value lies halfway
/// between two integers, a last bit decides, and at few bits that carries far: ONNX Runtime's own levels part there too.
fn outputs_agree(path: &Path, samples: &dyn Samples, count: usize, level: &str, allowed: f64) {
    let theirs = |level: &str| judged(python(), "ort_outputs.py", &["--level", level], path, samples, count);
    let (Some((judged, _)), Some((plain, _))) = (theirs(level), theirs("none")) else { return };
    let ours = outputs(&simplified(path, samples), samples, count);
    assert_eq!(ours.len(), judged.len());
    let far = distance(&ours, &judged);
    let name = path.file_name().unwrap().display();
    let apart = distance(&plain, &judged);
    println!("{name}: {far:.2e} from ONNX Runtime, whose levels lie {apart:.2e} apart");
    assert!(far <= allowed.max(1.5 * apart), "{name}: outputs lie {far} apart");
}

/// Root of the mean square of a - b, relative to that of b.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let (error, size) = a.iter().zip(b).fold((0.0, 0.0), |(e, s), (&a, &b)| (e + square(a - b), s + square(b)));
    (error / size).sqrt()
}

/// The first output of `graph` for the first `count` samples.
fn outputs(graph: &Graph, samples: &dyn Samples, count: usize) -> Vec<f32> {
    use qdrop::engine::device::{Device, processors};
    use qdrop::engine::program::{Region, compile};
    let shapes = vec![samples.get(0).unwrap()[0].shape().to_vec()];
    let facts = qdrop::engine::facts::infer(graph, &pipeline::input_shapes(graph, Some(&shapes)).unwrap()).unwrap();
    let region = Region {
        nodes: graph.node_ids().collect(),
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
        ..Region::default()
    };
    let runner = processors(1).unwrap().inference(&compile(graph, &facts, &region).unwrap()).unwrap();
    let data = (0..count).flat_map(|i| samples.get(i).unwrap()[0].as_f32().unwrap().to_vec()).collect();
    let rows = runner.run(&[], &[], &[Rows::new(count, data)], &RowStore::memory()).unwrap();
    rows[0].iter().flat_map(|row| row.unwrap().into_owned()).collect()
}

#[test]
fn resnet20_learns_and_onnx_runtime_agrees_with_the_written_file() {
    let Some(dir) = shared("data/cifar10") else { return };
    let (model, all) = (dir.join("resnet20.onnx"), images(&dir.join("calib"), "imagenet-norm"));
    let (calib, test) = (Subset::first(&all, 256), images(&dir.join("test"), "imagenet-norm"));
    let graph = simplified(&model, &calib);
    let float = top1(&graph, &test);
    assert!((float - 91.64).abs() < 0.1, "float top-1 is {float}");

    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("w2a4.onnx");
    let done = pipeline::quantize(&graph, &recipe(MethodName::Qdrop, 2, 4, 200), &calib, None, &mut Silent).unwrap();
    pipeline::save(&done.graph, &path).unwrap();
    file_holds_the_decisions(&path, &done, &graph, &calib);
    let (nearest, learned) = (top1(&done.nearest, &test), top1(&simplified(&path, &test), &test));
    println!("W2A4: nearest {nearest:.2}, learned {learned:.2}");
    // The official code: 17.21 with nearest rounding, 87.61 after 1000 iterations.
    assert!((nearest - 17.21).abs() < 4.0, "nearest rounding reaches {nearest}");
    assert!(learned > 60.0, "200 iterations reach {learned}");

    outputs_agree(&path, &test, 64, "all", DISTANCE);
    let data = dir.join("test");
    let words = [path.to_str().unwrap(), data.to_str().unwrap(), "--input", "imagenet-norm"];
    if let Some(theirs) = judge(python(), "ort_eval.py", &words) {
        let theirs = theirs["top1"].as_f64().unwrap();
        assert!((theirs - learned).abs() <= TOP1, "ONNX Runtime: {theirs}, here: {learned}");
    }
}

#[test]
fn every_format_and_placement_means_the_same_to_onnx_runtime() {
    let Some(dir) = shared("data/cifar10") else { return };
    let (model, all) = (dir.join("resnet20.onnx"), images(&dir.join("calib"), "imagenet-norm"));
    let calib = Subset::first(&all, 64);
    let graph = simplified(&model, &calib);
    let out = tempfile::tempdir().unwrap();
    for (format, placement, symmetric, weights, activations, level) in [
        (Format::Qcdq, Placement::Integer, false, 8, 8, "all"),
        (Format::Qcdq, Placement::Integer, false, 4, 4, "all"),
        (Format::Qcdq, Placement::Integer, false, 2, 3, "all"),
        (Format::Qcdq, Placement::Producer, false, 4, 4, "all"),
        (Format::Qcdq, Placement::Producer, false, 8, 8, "all"),
        (Format::Qcdq, Placement::Producer, true, 8, 8, "all"),
        (Format::Qcdq, Placement::Consumer, false, 4, 4, "all"),
        (Format::Qcdq, Placement::Consumer, true, 4, 16, "all"),
        (Format::Qcdq, Placement::Producer, false, 8, 16, "all"),
        (Format::Qdq, Placement::Producer, false, 4, 8, "all"),
        (Format::Qdq, Placement::Integer, false, 4, 4, "all"),
        (Format::Qdq, Placement::Producer, false, 2, 2, "all"),
        (Format::Qdq, Placement::Producer, false, 3, 32, "all"),
    ] {
        let mut recipe = recipe(MethodName::Rtn, weights, activations, 1);
        (recipe.output.format, recipe.activations.placement) = (format, Some(placement));
        (recipe.weights.symmetric, recipe.activations.symmetric) = (symmetric, symmetric);
        let done = pipeline::quantize(&graph, &recipe, &calib, None, &mut Silent).unwrap();
        let path = out.path().join(format!("{format:?}.{placement:?}.w{weights}a{activations}.onnx"));
        pipeline::save(&done.graph, &path).unwrap();
        file_holds_the_decisions(&path, &done, &graph, &calib);
        outputs_agree(&path, &calib, 16, level, DISTANCE);
    }
}

/// Quantizes ResNet-20 to `bits` by nearest rounding for `target` and writes it into `dir`.
fn for_target(dir: &Path, target: Target, bits: u32, placement: Placement) -> Option<(PathBuf, Images)> {
    let shared = shared("data/cifar10")?;
    let all = images(&shared.join("calib"), "imagenet-norm");
    let calib = Subset::first(&all, 64);
    let graph = simplified(&shared.join("resnet20.onnx"), &calib);
    let mut recipe = recipe(MethodName::Rtn, bits, bits, 1);
    if bits < 4 {
        // With corrected biases a value of these samples lies halfway between two integers, and a last bit decides.
        recipe.method.correct_samples = Some(0);
    }
    (recipe.output.target, recipe.activations.placement) = (target, Some(placement));
    let done = pipeline::quantize(&graph, &recipe, &calib, None, &mut Silent).unwrap();
    let path = dir.join(format!("{target}.{placement:?}.w{bits}a{bits}.onnx"));
    pipeline::save(&done.graph, &path).unwrap();
    Some((path, all))
}

/// The type and the zero points of every QuantizeLinear and DequantizeLinear of the file: weights, then activations.
fn zero_points(path: &Path) -> [Vec<(DType, Vec<i64>)>; 2] {
    let graph = pipeline::load(path).unwrap();
    let mut found = [Vec::new(), Vec::new()];
    for node in &graph.nodes {
        if matches!(node.op, Op::QuantizeLinear { .. } | Op::DequantizeLinear { .. }) {
            let zero = graph.constant(node.input(2).unwrap()).unwrap();
            let activation = graph.constant(node.input(0).unwrap()).is_none();
            found[usize::from(activation)].push((zero.dtype(), zero.to_i64().unwrap()));
        }
    }
    found
}

/// Nothing here can run TensorRT: its rules are checked, and ONNX Runtime says what the file means.
#[test]
fn files_for_tensorrt_keep_its_rules() {
    let out = tempfile::tempdir().unwrap();
    for placement in [Placement::Producer, Placement::Consumer] {
        let Some((path, samples)) = for_target(out.path(), Target::Tensorrt, 8, placement) else { return };
        let [weights, activations] = zero_points(&path);
        assert!(weights.len() == 20 && activations.len() > 36);
        for (dtype, zeros) in weights.iter().chain(&activations) {
            assert_eq!((*dtype, zeros.iter().all(|&z| z == 0)), (DType::I8, true));
        }
        assert!(activations.iter().all(|(_, zeros)| zeros.len() == 1), "activations have one step");
        let graph = pipeline::load(&path).unwrap();
        assert!(graph.nodes.iter().all(|n| !matches!(n.op, Op::Clip | Op::Opaque { .. } | Op::Quant { .. })));
        let biases = graph.nodes.iter().filter(|n| n.op.weight_index().is_some()).map(|n| n.input(2).unwrap());
        assert!(biases.map(|b| graph.constant(b).unwrap().dtype()).all(|t| t == DType::F32));
        // At the default level ONNX Runtime's kernels for signed weights saturate on machines without VNNI.
        outputs_agree(&path, &samples, 16, "none", DISTANCE);
    }
}

#[test]
fn openvino_runs_its_files_in_8_bits_and_agrees() {
    let out = tempfile::tempdir().unwrap();
    for (bits, placement) in
        [(8, Placement::Producer), (8, Placement::Consumer), (4, Placement::Producer), (2, Placement::Producer)]
    {
        let Some((path, samples)) = for_target(out.path(), Target::Openvino, bits, placement) else { return };
        let [weights, activations] = zero_points(&path);
        assert!(weights.iter().all(|(t, zeros)| *t == DType::I8 && zeros.iter().all(|&z| z == 0)));
        assert!(activations.iter().all(|(t, _)| *t == DType::U8));
        outputs_agree(&path, &samples, 16, if bits == 8 { "none" } else { "all" }, DISTANCE);
        let Some((theirs, said)) = judged(python_with("openvino"), "openvino_outputs.py", &[], &path, &samples, 16)
        else {
            continue;
        };
        let ours = outputs(&simplified(&path, &samples), &samples, 16);
        let (far, name) = (distance(&ours, &theirs), path.file_name().unwrap().display());
        println!("{name}: {far:.2e} from OpenVINO, layers {}", said["layers"]);
        assert!(far <= DISTANCE, "{name}: outputs lie {far} apart");
        // The first layer reads a float input unless that is quantized too.
        let float = said["layers"]["f32"].as_u64().unwrap_or(0);
        assert_eq!(float, u64::from(placement == Placement::Producer), "{name}: {}", said["layers"]);
    }
}

#[test]
fn qonnx_runs_its_files_and_agrees() {
    let out = tempfile::tempdir().unwrap();
    for (bits, placement) in
        [(8, Placement::Producer), (8, Placement::Consumer), (4, Placement::Producer), (3, Placement::Producer)]
    {
        let Some((path, samples)) = for_target(out.path(), Target::Qonnx, bits, placement) else { return };
        let graph = pipeline::load(&path).unwrap();
        for node in graph.nodes.iter().filter(|n| matches!(n.op, Op::Quant { .. })) {
            let Op::Quant { signed, narrow: false, .. } = node.op else { panic!("{:?}", node.op) };
            assert_eq!(graph.constant(node.input(2).unwrap()).unwrap().as_f32().unwrap(), [0.0]);
            // FINN takes no signed quantizer behind a Relu, and no unsigned one on inputs, results of layers and sums.
            let maker = graph.nodes.iter().find(|n| n.outputs.contains(&node.inputs[0]));
            match maker.map_or("", |n| n.op.kind()) {
                "Relu" => assert!(!signed, "{}", node.name),
                "" | "Conv" | "Add" => assert!(signed, "{}", node.name),
                _ => {}
            }
        }
        let Some((theirs, said)) = judged(python_with("qonnx"), "qonnx_outputs.py", &[], &path, &samples, 16) else {
            continue;
        };
        let ours = outputs(&simplified(&path, &samples), &samples, 16);
        let (far, name) = (distance(&ours, &theirs), path.file_name().unwrap().display());
        println!("{name}: {far:.2e} from qonnx");
        assert!(far <= DISTANCE, "{name}: outputs lie {far} apart");
        assert_eq!((&said["convertible"], said["operators"]["Conv"].as_u64()), (&true.into(), Some(19)));
        assert!(said["operators"]["Quant"].as_u64() >= Some(39) && said["operators"].get("Clip").is_none());
    }
}

/// Largest distance of AIMET's outputs at 16 bits of activations, where ties are 257 times as fine.
const DISTANCE_FINE: f64 = 1e-3;

#[test]
fn aimet_simulates_its_encodings_and_agrees() {
    let Some(dir) = shared("data/cifar10") else { return };
    let all = images(&dir.join("calib"), "imagenet-norm");
    let calib = Subset::first(&all, 64);
    let graph = simplified(&dir.join("resnet20.onnx"), &calib);
    let out = tempfile::tempdir().unwrap();
    for (weights, activations, placement, version) in [
        (8, 8, Placement::Consumer, EncodingsVersion::V1_0_0),
        (4, 8, Placement::Producer, EncodingsVersion::V0_6_1),
        (4, 16, Placement::Consumer, EncodingsVersion::V2_0_0),
        (8, 16, Placement::Producer, EncodingsVersion::V1_0_0),
    ] {
        let mut recipe = recipe(MethodName::Rtn, weights, activations, 1);
        (recipe.output.target, recipe.output.encodings_version) = (Target::Qnn, version);
        recipe.activations.placement = Some(placement);
        let done = pipeline::quantize(&graph, &recipe, &calib, None, &mut Silent).unwrap();
        let path = out.path().join(format!("w{weights}a{activations}.onnx"));
        done.save(&path).unwrap();
        let encodings = pipeline::encodings_path(&path);
        let written = pipeline::load(&path).unwrap();
        assert!(written.nodes.iter().all(|n| !matches!(n.op, Op::QuantizeLinear { .. } | Op::DequantizeLinear { .. })));
        let more = ["--encodings", encodings.to_str().unwrap()];
        let judged = judged(python_with("aimet_onnx"), "aimet_outputs.py", &more, &path, &all, 16);
        let Some((theirs, said)) = judged else { return };
        let shapes = vec![all.get(0).unwrap()[0].shape().to_vec()];
        let simulated = pipeline::load_with(&path, Some(&encodings)).unwrap();
        let ours = outputs(&pipeline::prepare(&simulated, Some(&shapes)).unwrap(), &all, 16);
        let far = distance(&ours, &theirs);
        println!("W{weights}A{activations} {placement:?} {version}: {far:.2e} from AIMET, {said}");
        let allowed = if activations == 16 { DISTANCE_FINE } else { DISTANCE };
        assert!(far <= allowed, "outputs lie {far} apart");
        // Without quantizers the file answers something else, so the encodings matter.
        let bare = distance(&outputs(&simplified(&path, &all), &all, 16), &theirs);
        assert!(bare > far, "{bare} without encodings, {far} with them");
        let of = |what: &str| said[what].as_u64().unwrap() as usize;
        assert_eq!((of("weights"), of("activations")), (20, done.plan.sites.len()));
        // The first layer reads a quantized input with placement consumer alone.
        let biases = if version == EncodingsVersion::V2_0_0 { 20 } else { 0 };
        assert_eq!((of("biases"), &said["version"]), (biases, &version.to_string().into()));
    }
}

#[test]
fn mobilenetv2_written_with_4_bit_weights_means_the_same_to_onnx_runtime() {
    let Some(dir) = shared("data/imagenet") else { return };
    let (model, all) = (dir.join("mobilenetv2.onnx"), images(&dir.join("calib.csv"), "imagenet"));
    let calib = Subset::first(&all, 32);
    let graph = simplified(&model, &calib);
    let done = pipeline::quantize(&graph, &recipe(MethodName::Qdrop, 4, 8, 2), &calib, None, &mut Silent).unwrap();
    // 20 units and the whole network.
    assert_eq!(done.report.units.len(), 21);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("mobilenetv2.w4a8.onnx");
    pipeline::save(&done.graph, &path).unwrap();
    file_holds_the_decisions(&path, &done, &graph, &calib);
    outputs_agree(&path, &calib, 8, "all", DISTANCE_DEEP);
}

//! ONNX's own operator tests, written as files by `scripts/dump_node_tests.py`, evaluated by the f64 specification:
//! all operands are made constants, so deriving the facts of the graph computes its results.
//!
//! Runs when the environment variable `QDROP_NODE_TESTS` names the directory of the files.

use qdrop::engine::facts;
use qdrop::graph::{Graph, ValueId};
use qdrop::onnx;
use qdrop::tensor::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Tests whose expected result is knowingly not met, with the reason.
const DIFFERENT: &[(&str, &str)] = &[
    ("test_dynamicquantizelinear_expanded", "a tie in f32 that is none in f64"),
    ("test_resize_downsample_scales_linear_align_corners", ALIGN),
    ("test_resize_downsample_scales_cubic_align_corners", ALIGN),
];

const ALIGN: &str =
    "corners are aligned by the whole size of the result, as the specification says and ONNX Runtime does";

/// What became of one test.
enum Outcome {
    Passed,
    /// An operator in it is carried, not run.
    Unclaimed(String),
    /// An element type, an attribute or a version is said to be unsupported.
    Unsupported,
    /// Refused as if the model were wrong.
    Refused(String),
    Wrong(String),
}

fn refused(error: qdrop::Error) -> Outcome {
    match error.kind() {
        qdrop::Kind::Unsupported => Outcome::Unsupported,
        _ => Outcome::Refused(error.to_string()),
    }
}

fn load(path: &Path) -> qdrop::Result<Graph> {
    let bytes = std::fs::read(path).map_err(|e| qdrop::Error::io(path, e))?;
    onnx::read_bytes(&bytes, None)
}

/// The tensors `prefix_0`, `prefix_1`, ... of a data file.
fn tensors(data: &Graph, prefix: &str) -> Vec<Arc<Tensor>> {
    let find = |name: String| data.values.iter().find(|v| v.name == name).and_then(|v| v.constant.clone());
    (0..).map_while(|i| find(format!("{prefix}_{i}"))).collect()
}

fn compare(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Err(format!("{:?} {:?} instead of {:?} {:?}", got.dtype(), got.shape(), want.dtype(), want.shape()));
    }
    let (Ok(a), Ok(b)) = (got.to_f64(), want.to_f64()) else {
        return if got == want { Ok(()) } else { Err("other content".into()) };
    };
    let relative = if matches!(want.dtype(), DType::F16 | DType::BF16) { 1e-2 } else { 1e-3 };
    let near = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 + relative * b.abs();
    match a.iter().zip(&b).position(|(&a, &b)| !near(a, b)) {
        Some(i) => Err(format!("element {i} is {} instead of {}", a[i], b[i])),
        None => Ok(()),
    }
}

fn run(model: &Path, data: &Path) -> Outcome {
    let (mut graph, data) = match (load(model), load(data)) {
        (Ok(g), Ok(d)) => (g, d),
        (Err(e), _) | (_, Err(e)) => return refused(e),
    };
    if let Some(node) = graph.nodes.iter().find(|n| matches!(n.op, qdrop::graph::Op::Opaque { .. })) {
        return Outcome::Unclaimed(node.op.kind().to_string());
    }
    for (&id, tensor) in graph.inputs.clone().iter().zip(tensors(&data, "input")) {
        graph.value_mut(id).constant = Some(tensor);
    }
    graph.inputs.clear();
    if graph.values.iter().any(|v| v.constant.as_ref().is_some_and(|t| t.dtype() == DType::String)) {
        return Outcome::Unsupported;
    }
    let facts = match facts::infer(&graph, &[]) {
        Ok(f) => f,
        Err(e) => return refused(e),
    };
    let constant = |v: ValueId| facts.get(v).and_then(|f| f.constant.clone());
    for (&output, want) in graph.outputs.iter().zip(tensors(&data, "output")) {
        match constant(output).map(|got| compare(&got, &want)) {
            Some(Ok(())) => {}
            Some(Err(what)) => return Outcome::Wrong(what),
            None => return Outcome::Refused("result is not computed".into()),
        }
    }
    Outcome::Passed
}

#[test]
fn onnx_operator_tests() {
    let Some(dir) = std::env::var_os("QDROP_NODE_TESTS") else {
        println!("skipped: QDROP_NODE_TESTS does not name a directory written by scripts/dump_node_tests.py");
        return;
    };
    let dir = Path::new(&dir);
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str().and_then(|n| n.strip_suffix(".model.onnx")).map(str::to_string))
        .collect();
    names.sort();
    let (mut passed, mut unsupported, mut failures) = (0, 0, Vec::new());
    let mut carried = BTreeMap::<String, usize>::new();
    for name in &names {
        match run(&dir.join(format!("{name}.model.onnx")), &dir.join(format!("{name}.data.onnx"))) {
            Outcome::Passed => passed += 1,
            Outcome::Unclaimed(kind) => *carried.entry(kind).or_default() += 1,
            Outcome::Unsupported => unsupported += 1,
            Outcome::Refused(why) => failures.push((name, format!("refused: {why}"))),
            Outcome::Wrong(what) => failures.push((name, format!("wrong: {what}"))),
        }
    }
    println!("carried, not run: {carried:?}");
    let claimed = names.len() - carried.values().sum::<usize>();
    println!("{passed} passed, {claimed} claimed ({unsupported} refused as unsupported), {} in all", names.len());
    let mut unexpected = 0;
    for (name, what) in &failures {
        match DIFFERENT.iter().find(|(n, _)| n == name) {
            Some((_, reason)) => println!("{name}: as expected ({reason}): {what}"),
            None => {
                println!("{name}: {what}");
                unexpected += 1;
            }
        }
    }
    assert_eq!(unexpected, 0, "tests failed without a known reason");
    assert!(passed > 0, "no tests found in {}", dir.display());
}

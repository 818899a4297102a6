//! ONNX's own operator tests, written as files by `scripts/dump_node_tests.py`, evaluated twice: by the f64
//! specification, where all operands are made constants and deriving the facts of the graph computes its results, and by
//! the fast engine, which is fed the operands that are f32 or f64.
//!
//! Runs when the environment variable `QDROP_NODE_TESTS` names the directory of the files, and checks that the table
//! `docs/operators.md` is fresh; `QDROP_UPDATE_OPERATORS=1` writes it anew.

use qdrop::engine::device::Inference;
use qdrop::engine::{cpu, facts, ops, program};
use qdrop::graph::{Graph, Op, ValueId};
use qdrop::onnx;
use qdrop::tensor::{DType, RowStore, Rows, Tensor};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Tests whose expected result is knowingly not met, with the reason.
const DIFFERENT: &[(&str, &str)] = &[
    ("test_attention_4d_causal_bf16_expanded", "intermediate results are rounded to bf16 in other places"),
    ("test_dynamicquantizelinear_expanded", "a tie in f32 that is none in f64"),
    ("test_resize_downsample_scales_linear_align_corners", ALIGN),
    ("test_resize_downsample_scales_cubic_align_corners", ALIGN),
];

const ALIGN: &str =
    "corners are aligned by the whole size of the result, as the specification says and ONNX Runtime does";

/// Tests whose result by the fast engine differs knowingly, with the reason.
const DIFFERENT_CPU: &[(&str, &str)] = &[];

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
    /// The fast engine has nothing to be fed, or nothing to compute.
    Fixed,
}

/// Tests and how many of them passed.
#[derive(Default, Clone, Copy)]
struct Count {
    passed: usize,
    judged: usize,
    all: usize,
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
    near(&a, &b, if matches!(want.dtype(), DType::F16 | DType::BF16) { 1e-2 } else { 1e-3 })
}

fn near(a: &[f64], b: &[f64], relative: f64) -> Result<(), String> {
    let near = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-6 + relative * b.abs();
    if a.len() != b.len() {
        return Err(format!("{} elements instead of {}", a.len(), b.len()));
    }
    match a.iter().zip(b).position(|(&a, &b)| !near(a, b)) {
        Some(i) => Err(format!("element {i} is {} instead of {}", a[i], b[i])),
        None => Ok(()),
    }
}

fn run(mut graph: Graph, data: &Graph) -> Outcome {
    for (&id, tensor) in graph.inputs.clone().iter().zip(tensors(data, "input")) {
        graph.value_mut(id).constant = Some(tensor);
    }
    graph.inputs.clear();
    if let Err(e) = onnx::inline(&mut graph) {
        return refused(e);
    }
    if let Some(node) = graph.nodes.iter().find(|n| matches!(n.op, Op::Opaque { .. })) {
        return Outcome::Unclaimed(node.op.kind().to_string());
    }
    if graph.values.iter().any(|v| v.constant.as_ref().is_some_and(|t| t.dtype() == DType::String)) {
        return Outcome::Unsupported;
    }
    let facts = match facts::infer(&graph, &[]) {
        Ok(f) => f,
        Err(e) => return refused(e),
    };
    let constant = |v: ValueId| facts.get(v).and_then(|f| f.constant.clone());
    for (&output, want) in graph.outputs.iter().zip(tensors(data, "output")) {
        match constant(output).map(|got| compare(&got, &want)) {
            Some(Ok(())) => {}
            Some(Err(what)) => return Outcome::Wrong(what),
            None => return Outcome::Refused("result is not computed".into()),
        }
    }
    Outcome::Passed
}

/// The fast engine, fed the f32 and f64 operands of `feed`; the others are constants.
fn run_cpu(mut graph: Graph, data: &Graph, feed: impl Fn(usize) -> bool) -> qdrop::Result<Outcome> {
    let wide = |t: DType| matches!(t, DType::F32 | DType::F64);
    let (mut inputs, mut rows, mut shapes) = (Vec::new(), Vec::new(), Vec::new());
    for (i, (&id, tensor)) in graph.inputs.clone().iter().zip(tensors(data, "input")).enumerate() {
        match tensor.to_f32().ok().filter(|x| feed(i) && !x.is_empty() && wide(tensor.dtype())) {
            Some(x) => {
                inputs.push(id);
                rows.push(Rows::new(1, x));
                shapes.push(tensor.shape().to_vec());
                graph.value_mut(id).fact.dtype = Some(tensor.dtype());
                graph.value_mut(id).fact.shape = None;
            }
            None => graph.value_mut(id).constant = Some(tensor),
        }
    }
    graph.inputs.clone_from(&inputs);
    onnx::inline(&mut graph)?;
    let facts = facts::infer(&graph, &shapes)?;
    let outputs = graph.outputs.clone();
    for &v in &outputs {
        facts.require(&graph, v)?;
    }
    let nodes = graph.node_ids().collect();
    let region = program::Region { nodes, inputs, outputs: outputs.clone(), ..Default::default() };
    let program = program::compile(&graph, &facts, &region)?;
    if rows.is_empty() || program.steps.is_empty() {
        return Ok(Outcome::Fixed);
    }
    let found = cpu::CpuInference::new(&program)?.run(&[], &[], &rows, &RowStore::memory())?;
    for ((&v, got), want) in outputs.iter().zip(found).zip(tensors(data, "output")) {
        let fact = facts.require(&graph, v)?;
        if fact.dtype != want.dtype() || fact.shape != want.shape() {
            let (got, want) = ((fact.dtype, &fact.shape), (want.dtype(), want.shape()));
            return Ok(Outcome::Wrong(format!("{got:?} instead of {want:?}")));
        }
        let got: Vec<f64> = got.row(0)?.iter().map(|&x| f64::from(x)).collect();
        if let Err(what) = near(&got, &want.to_f64()?, 1e-3) {
            return Ok(Outcome::Wrong(what));
        }
    }
    Ok(Outcome::Passed)
}

/// As many operands as can be: all, the first, those behind it.
fn judge_cpu(graph: &Graph, data: &Graph) -> Outcome {
    let feeds: [fn(usize) -> bool; 3] = [|_| true, |i| i == 0, |i| i > 0];
    let mut last = Outcome::Fixed;
    for feed in feeds {
        match run_cpu(graph.clone(), data, feed) {
            Ok(Outcome::Fixed) => {}
            Ok(outcome) => return outcome,
            Err(e) => last = refused(e),
        }
    }
    last
}

/// The operator that a test is about: that of its only node.
fn subject(graph: &Graph) -> Option<&Op> {
    match graph.nodes.as_slice() {
        [node] => Some(&node.op),
        _ => None,
    }
}

/// The page on operators, from what was counted for each.
fn page(counts: &BTreeMap<String, [Count; 2]>, seen: &BTreeMap<String, Op>) -> String {
    let mut page = "# Operators\n\n".to_string();
    let mut rest = Vec::new();
    page += "This page lists the operators that qdrop runs, their opsets, whether gradients pass through them, and\n\
             how many of ONNX's own tests of a single node pass, out of all such tests. The tests are run by the f64\n\
             specification and by the fast engine, by the latter only where operands are f32 or f64. A quantizable\n\
             operator can have an integer weight. A node with an attribute or element type that is not implemented\n\
             is carried over unchanged. The page is written by\n\
             `QDROP_UPDATE_OPERATORS=1 cargo test -p qdrop --test onnx_node_tests`.\n\n";
    page += "| operator | opsets | gradient | quantizable | specification | fast engine |\n|---|---|---|---|---|---|\n";
    for (name, since, op) in onnx::operators() {
        let op = op.as_ref().filter(|op| !matches!(op, Op::Opaque { .. })).or(seen.get(name));
        let Some(op) = op else {
            rest.push(name);
            continue;
        };
        let [naive, fast] = counts.get(name).copied().unwrap_or_default();
        let yes = |b: bool| if b { "yes" } else { "" };
        let of = |passed, all| if all == 0 { String::new() } else { format!("{passed}/{all}") };
        let opsets = format!("{}-{}", since.max(7), onnx::NEWEST_OPSET);
        let (gradient, weight) = (yes(ops::has_gradient(op)), yes(op.weight_index().is_some()));
        let (naive, fast) = (of(naive.passed, naive.all), of(fast.passed, fast.judged));
        writeln!(page, "| {name} | {opsets} | {gradient} | {weight} | {naive} | {fast} |").unwrap();
    }
    page += "\nConstant nodes are read as constants, Dropout as Identity, Upsample as Resize, and Scatter as\n\
             ScatterElements. A Loop or Scan of known length is unrolled into its steps, and an If whose condition\n\
             depends on data becomes both branches and a choice between them, if that makes the network at most 1000\n\
             nodes larger. Of the domain `ai.onnx.ml`, Scaler, Normalizer, Binarizer, Imputer, FeatureVectorizer and\n\
             LinearRegressor become arithmetic.\n\n\
             The following operators, like those of other domains, are carried over unchanged, and layers that\n\
             depend on them stay float:\n\n";
    let rest = rest.into_iter().filter(|n| !["Constant", "Dropout", "Upsample", "Scatter"].contains(n));
    let mut line = String::new();
    for name in rest {
        if line.len() + name.len() > 116 {
            page += &format!("{}\n", line.trim_end());
            line.clear();
        }
        line += &format!("{name}, ");
    }
    page + line.trim_end_matches(", ") + ".\n"
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
    let mut carried = BTreeMap::<String, usize>::new();
    let (mut counts, mut seen) = (BTreeMap::<String, [Count; 2]>::new(), BTreeMap::<String, Op>::new());
    let mut totals = [Count::default(); 2];
    let (mut unsupported, mut failures) = ([0; 2], Vec::new());
    let whole = |(name, path): (&String, &str)| load(&dir.join(format!("{name}.{path}.onnx")));
    for name in &names {
        let (graph, data) = match (whole((name, "model")), whole((name, "data"))) {
            (Ok(g), Ok(d)) => (g, d),
            (Err(e), _) | (_, Err(e)) => {
                match refused(e) {
                    Outcome::Refused(why) => failures.push((0, name, format!("refused: {why}"))),
                    _ => unsupported[0] += 1,
                }
                totals[0].judged += 1;
                continue;
            }
        };
        let first = run(graph.clone(), &data);
        let second = match first {
            Outcome::Unclaimed(_) => Outcome::Fixed,
            _ => judge_cpu(&graph, &data),
        };
        let claimed = !matches!(first, Outcome::Unclaimed(_));
        for (engine, outcome) in [first, second].into_iter().enumerate() {
            let mut count = Count { passed: 0, judged: 1, all: 1 };
            match outcome {
                Outcome::Passed => count.passed = 1,
                Outcome::Unclaimed(kind) => {
                    *carried.entry(kind).or_default() += 1;
                    count.judged = 0;
                }
                Outcome::Fixed => count.judged = 0,
                Outcome::Unsupported => unsupported[engine] += 1,
                Outcome::Refused(why) => failures.push((engine, name, format!("refused: {why}"))),
                Outcome::Wrong(what) => failures.push((engine, name, format!("wrong: {what}"))),
            }
            let add = |to: &mut Count| {
                to.passed += count.passed;
                to.judged += count.judged;
                to.all += count.all;
            };
            add(&mut totals[engine]);
            if let Some(op) = subject(&graph).filter(|op| claimed == !matches!(op, Op::Opaque { .. })) {
                add(&mut counts.entry(op.kind().to_string()).or_default()[engine]);
                if claimed {
                    seen.entry(op.kind().to_string()).or_insert_with(|| op.clone());
                }
            }
        }
    }
    println!("carried, not run: {carried:?}");
    for (engine, what) in ["naive", "cpu"].into_iter().enumerate() {
        let Count { passed, judged, .. } = totals[engine];
        let refused = unsupported[engine];
        println!(
            "{what}: {passed} passed, {judged} claimed ({refused} refused as unsupported), {} in all",
            names.len()
        );
    }
    let mut unexpected = 0;
    for (engine, name, what) in &failures {
        let (which, known) = [("naive", DIFFERENT), ("cpu", DIFFERENT_CPU)][*engine];
        let name = name.as_str();
        match known.iter().chain(DIFFERENT).find(|(n, _)| *n == name) {
            Some((_, reason)) => println!("{which} {name}: as expected ({reason}): {what}"),
            None => {
                println!("{which} {name}: {what}");
                unexpected += 1;
            }
        }
    }
    assert_eq!(unexpected, 0, "tests failed without a known reason");
    assert!(totals[0].passed > 0 && totals[1].passed > 0, "no tests found in {}", dir.display());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operators.md");
    let page = page(&counts, &seen);
    if std::env::var_os("QDROP_UPDATE_OPERATORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        return std::fs::write(path, page).unwrap();
    }
    let old = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(old == page, "docs/operators.md is stale: run this test with QDROP_UPDATE_OPERATORS=1");
}

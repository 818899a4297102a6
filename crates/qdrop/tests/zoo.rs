//! Many architectures from end to end: float outputs as PyTorch's, units and sites as recorded, learning, ONNX Runtime.
//!
//! `QDROP_ZOO` names the folder that `scripts/zoo.py` writes. Each file `tests/zoo/NAME.txt` holds the units of a network
//! by both exporters; `QDROP_UPDATE_ZOO=1` writes them anew. `QDROP_ZOO_ONLY=NAME,...` takes some networks alone.
//! ONNX Runtime judges where `QDROP_PYTHON` names an interpreter.

mod record;

use qdrop::data::{self, InputSpec, Prepare, Samples};
use qdrop::engine::device::{Device, processors};
use qdrop::engine::facts::infer;
use qdrop::engine::program::{Region, compile};
use qdrop::graph::Graph;
use qdrop::pipeline::{self, input_shapes};
use qdrop::plan::{Input, Recipe};
use qdrop::report::Silent;
use qdrop::tensor::{RowStore, Rows};
use record::record;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Largest distance from PyTorch's float outputs, relative to the largest of them.
const DISTANCE: f64 = 1e-4;

type Images = Box<dyn Samples + Send + Sync>;

/// What is found out about one file.
#[derive(Default)]
struct Found {
    nodes: usize,
    units: usize,
    layers: usize,
    sites: usize,
    /// Distance from PyTorch's float outputs, and of ONNX Runtime's quantized outputs from those here.
    float: Option<f64>,
    judge: Option<f64>,
    record: String,
    refused: bool,
}

/// Reads the arrays of `path` as samples, in the order of `names` where they are given.
fn samples(path: &Path, specs: Option<&[InputSpec]>) -> Images {
    let mut none = Input::default();
    none.preset = Some("none".into());
    let found = data::open(path, &Prepare::resolve(&none).unwrap(), &data::Limits::default()).unwrap();
    match specs {
        Some(specs) => Box::new(data::fit(found, specs).unwrap()),
        None => found,
    }
}

fn specs(graph: &Graph) -> Vec<InputSpec> {
    let spec = |&v| {
        let value = graph.value(v);
        let rank = value.fact.shape.as_ref().unwrap().len();
        InputSpec::new(&value.name, value.fact.dtype.unwrap(), vec![None; rank - 1])
    };
    graph.inputs.iter().map(spec).collect()
}

fn shapes(samples: &dyn Samples) -> Vec<Vec<usize>> {
    samples.get(0).unwrap().iter().map(|t| t.shape().to_vec()).collect()
}

/// Outputs of `graph` for all samples, each output's samples one after the other; `None` where an operator that is only
/// carried stands before them.
fn outputs(graph: &Graph, samples: &dyn Samples) -> qdrop::Result<Option<Vec<Vec<f32>>>> {
    let facts = infer(graph, &input_shapes(graph, Some(&shapes(samples)))?)?;
    if graph.outputs.iter().any(|&v| facts.get(v).is_none()) {
        return Ok(None);
    }
    let region = Region {
        nodes: graph.node_ids().collect(),
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
        ..Region::default()
    };
    let runner = processors(0)?.inference(&compile(graph, &facts, &region)?)?;
    let rows = runner.run(&[], &[], &all(samples, graph.inputs.len()), &RowStore::memory())?;
    Ok(Some(rows.iter().map(|r| r.iter().flat_map(|row| row.unwrap().into_owned()).collect()).collect()))
}

/// All samples, per tensor.
fn all(samples: &dyn Samples, tensors: usize) -> Vec<Rows> {
    let row = |i: usize, k: usize| samples.get(i).unwrap()[k].to_f32().unwrap();
    (0..tensors).map(|k| Rows::new(samples.len(), (0..samples.len()).flat_map(|i| row(i, k)).collect())).collect()
}

/// Largest difference of any output, relative to that output's largest element.
fn distance(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "outputs");
    let one = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        assert_eq!(a.len(), b.len(), "elements of an output");
        let size = b.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        // A difference that is no number counts as the largest.
        f64::from(far.fold(0.0f32, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) })) / f64::from(size)
    };
    ours.iter().zip(theirs).map(one).fold(0.0, f64::max)
}

/// Arrays of an `.npz` with names `0`, `1`, ...
fn answers(path: &Path, count: usize) -> Vec<Vec<f32>> {
    let found = samples(path, None);
    let names = found.input_names().unwrap();
    let rows = all(&found, count);
    let of = |k: usize| names.iter().position(|n| *n == k.to_string()).unwrap();
    (0..count).map(|k| rows[of(k)].iter().flat_map(|row| row.unwrap().into_owned()).collect()).collect()
}

/// Takes the network in `file` through everything; what was found so far is left in `found` where it fails.
fn visit(file: &Path, name: &str, out: &Path, found: &mut Found) -> Result<(), String> {
    let text = |e: qdrop::Error| e.to_string();
    let folder = file.parent().unwrap();
    let loaded = pipeline::load(file).map_err(text)?;
    found.nodes = loaded.nodes.len();
    let inputs = folder.join(format!("{name}.in.npz"));
    let samples = samples(&inputs, Some(&specs(&loaded)));
    let shapes = shapes(&samples);
    let graph = pipeline::prepare(&loaded, Some(&shapes)).map_err(text)?;
    let mut recipe = Recipe::default();
    (recipe.weights.bits, recipe.activations.bits) = (4, 4);
    (recipe.method.iterations, recipe.method.batch) = (Some(20), 4);
    let plan = match pipeline::plan(&graph, &recipe, Some(&shapes)) {
        Ok(plan) => plan,
        Err(error) => {
            found.refused = true;
            found.record = format!("refused: {error}\n");
            return Ok(());
        }
    };
    (found.units, found.layers, found.sites) = (plan.units.len(), plan.layers.len(), plan.sites.len());
    found.record = record(&graph, &plan);

    let theirs = |count| answers(&folder.join(format!("{name}.out.npz")), count);
    found.float = outputs(&graph, &samples).map_err(text)?.map(|ours| distance(&ours, &theirs(ours.len())));
    let done = pipeline::quantize(&graph, &recipe, &samples, None, &mut Silent).map_err(text)?;
    let path = out.join(file.file_name().unwrap());
    pipeline::save(&done.graph, &path).map_err(text)?;
    let written = pipeline::prepare(&pipeline::load(&path).map_err(text)?, Some(&shapes)).map_err(text)?;
    let ours = outputs(&written, &samples).map_err(text)?;
    if let Some(python) = std::env::var_os("QDROP_PYTHON") {
        let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/judge/ort_outputs.py");
        let answer = out.join("answer");
        let output = Command::new(python).arg(judge).args([&path, &answer, &inputs]).output().unwrap();
        if !output.status.success() {
            return Err(format!("ONNX Runtime: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let array = |k: usize| -> Vec<f32> {
            let rows = all(&self::samples(&answer.join(format!("{k}.npy")), None), 1);
            rows[0].iter().flat_map(|row| row.unwrap().into_owned()).collect()
        };
        found.judge = ours.map(|ours| distance(&ours, &(0..ours.len()).map(array).collect::<Vec<_>>()));
    }
    match found.float {
        Some(float) if float > DISTANCE => Err(format!("float outputs lie {float:.1e} from PyTorch's")),
        _ => Ok(()),
    }
}

fn files(folder: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let only = std::env::var("QDROP_ZOO_ONLY").ok();
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some((name, _)) = file.strip_suffix(".onnx").and_then(|f| f.split_once('.')) else { continue };
        if only.as_ref().is_none_or(|only| only.split(',').any(|n| n == name)) {
            found.entry(name.into()).or_default().push(path);
        }
    }
    // TorchScript first.
    found.values_mut().for_each(|paths| paths.sort_by(|a, b| b.cmp(a)));
    found
}

#[test]
fn every_architecture_passes() {
    let Some(folder) = std::env::var_os("QDROP_ZOO").map(PathBuf::from) else {
        println!("skipped: QDROP_ZOO names no folder written by scripts/zoo.py");
        return;
    };
    let update = std::env::var_os("QDROP_UPDATE_ZOO").is_some();
    let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zoo");
    let out = tempfile::tempdir().unwrap();
    let number = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.1e}"));
    println!(
        "{:<20} {:<8} {:>5} {:>5} {:>6} {:>5} {:>8} {:>8} {:>7}  result",
        "network", "exporter", "nodes", "units", "layers", "sites", "float", "judge", "seconds"
    );
    let mut wrong = Vec::new();
    for (name, paths) in files(&folder) {
        let mut text = String::new();
        for path in paths {
            let exporter = path.file_stem().unwrap().to_string_lossy().rsplit('.').next().unwrap().to_string();
            let (start, mut found) = (Instant::now(), Found::default());
            let result = catch_unwind(AssertUnwindSafe(|| visit(&path, &name, out.path(), &mut found)));
            let result = result.unwrap_or_else(|_| Err("panic".into()));
            if !text.is_empty() {
                text.push('\n');
            }
            write!(text, "# {exporter}\n{}", found.record).unwrap();
            let word = match &result {
                Err(error) => error,
                Ok(()) if found.refused => "refused",
                Ok(()) => "ok",
            };
            println!(
                "{name:<20} {exporter:<8} {:>5} {:>5} {:>6} {:>5} {:>8} {:>8} {:>7.1}  {word}",
                found.nodes,
                found.units,
                found.layers,
                found.sites,
                number(found.float),
                number(found.judge),
                start.elapsed().as_secs_f64()
            );
            wrong.extend(result.err().map(|error| format!("{name}.{exporter}: {error}")));
        }
        let file = records.join(format!("{name}.txt"));
        if update {
            std::fs::create_dir_all(&records).unwrap();
            std::fs::write(&file, &text).unwrap();
            continue;
        }
        let want = std::fs::read_to_string(&file).unwrap_or_default().replace("\r\n", "\n");
        if text != want {
            wrong.push(format!("{}\n--- recorded\n{want}\n--- now\n{text}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

//! The units of real exports are the blocks of the networks' papers.
//!
//! Networks: `tests/fixtures/NAME*.onnx` (torchvision exports, any exporter, weights replaced by small ones) and the
//! shared data, found by `QDROP_SHARED` or beside the workspace. What is missing is printed as skipped;
//! `QDROP_REQUIRE_SHARED=1` makes missing shared data an error.

use qdrop::engine::facts::infer;
use qdrop::graph::Graph;
use qdrop::passes::{InputShapes, simplify};
use qdrop::plan::{Plan, Recipe, Unit, plan};
use qdrop_testing::shared;
use std::path::{Path, PathBuf};

/// A unit with layers: its operators in alphabetical order.
fn operators(graph: &Graph, unit: &Unit) -> String {
    let mut kinds: Vec<&str> = unit.nodes.iter().map(|&n| graph.node(n).op.kind()).collect();
    kinds.sort_unstable();
    kinds.join(" ")
}

fn load(path: &Path) -> (Graph, Plan) {
    let mut graph = qdrop::onnx::read(path).unwrap();
    simplify(&mut graph, &InputShapes::declared()).unwrap();
    let shapes = InputShapes::declared().concrete(&graph, 1).unwrap();
    let facts = infer(&graph, &shapes).unwrap();
    let plan = plan(&graph, &facts, &Recipe::default()).unwrap();
    (graph, plan)
}

/// Exports of `name` among the fixtures.
fn fixtures(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .filter(|p| p.file_name().is_some_and(|f| f.to_string_lossy().starts_with(name)))
        .collect();
    found.sort();
    if found.is_empty() {
        println!("skipped: no export of {name} in tests/fixtures");
    }
    found
}

fn data(file: &str) -> Vec<PathBuf> {
    shared(&format!("data/{file}")).into_iter().collect()
}

/// What a unit with layers should be: its operators, and the number of its activation quantizers.
type Want = (String, usize);

/// A unit of so many convolutions and activation functions, with a sum or without.
fn unit(convs: usize, function: &str, functions: usize, sum: bool) -> Want {
    let mut kinds = vec!["Conv"; convs];
    kinds.extend(vec![function; functions]);
    kinds.extend(sum.then_some("Add"));
    kinds.sort_unstable();
    // One quantizer behind each function, and one on the output where it is linear.
    (kinds.join(" "), functions + (functions < convs) as usize)
}

fn classifier() -> Want {
    ("Gemm".to_string(), 0)
}

/// Residual blocks with `convs` convolutions on the main path and a function behind the sum; the first block of each
/// stage has a projection where `projected` says so.
fn residual(convs: usize, stages: &[usize], projected: &[bool]) -> Vec<Want> {
    let mut want = vec![unit(1, "Relu", 1, false)];
    for (&blocks, &projected) in stages.iter().zip(projected) {
        for block in 0..blocks {
            let projection = (block == 0 && projected) as usize;
            let (kinds, _) = unit(convs + projection, "Relu", convs, true);
            want.push((kinds, convs));
        }
    }
    want.push(classifier());
    want
}

/// Checks units and sites of each file; the last site and the outer layers have 8 bits, everything else 4.
fn check(paths: Vec<PathBuf>, want: &[Want]) {
    for path in paths {
        let (graph, plan) = load(&path);
        let layered: Vec<&Unit> = plan.units.iter().filter(|u| !u.layers.is_empty()).collect();
        let got: Vec<Want> = layered.iter().map(|u| (operators(&graph, u), u.sites.len())).collect();
        assert_eq!(got, want, "{}", path.display());
        for unit in layered {
            assert_eq!((unit.inputs.len(), unit.outputs.len()), (1, 1), "unit {} of {}", unit.name, path.display());
        }
        assert_eq!(plan.sites.len(), want.iter().map(|w| w.1).sum::<usize>());
        let outer = |bits: Vec<u32>| (bits[0], bits[1..bits.len() - 1].iter().all(|&b| b == 4), bits[bits.len() - 1]);
        assert_eq!(outer(plan.sites.iter().map(|s| s.grid.bits).collect()), (4, true, 8));
        assert_eq!(outer(plan.layers.iter().map(|l| l.grid.bits).collect()), (8, true, 8));
        assert_eq!(plan.float, []);
    }
}

#[test]
fn resnet18() {
    check(fixtures("resnet18"), &residual(2, &[2, 2, 2, 2], &[false, true, true, true]));
}

#[test]
fn resnet50() {
    check(fixtures("resnet50"), &residual(3, &[3, 4, 6, 3], &[true; 4]));
}

#[test]
fn regnet_x_600mf() {
    check(fixtures("regnet_x_600mf"), &residual(3, &[1, 3, 5, 7], &[true; 4]));
}

/// Inverted residuals: per stage the number of blocks; all but a stage's first have a shortcut.
fn inverted(function: &str, stages: &[usize]) -> Vec<Want> {
    let blocks = stages.iter().flat_map(|&blocks| (0..blocks).map(|block| unit(3, function, 2, block > 0)));
    let last = [unit(1, function, 1, false), classifier()];
    blocks.chain(last).collect()
}

fn mobilenet_v2_units() -> Vec<Want> {
    let mut want = vec![unit(1, "Clip", 1, false), unit(2, "Clip", 1, false)];
    want.extend(inverted("Clip", &[2, 3, 4, 3, 3, 1]));
    want
}

#[test]
fn mobilenet_v2() {
    check(fixtures("mobilenet_v2"), &mobilenet_v2_units());
    check(data("imagenet/mobilenetv2.onnx"), &mobilenet_v2_units());
}

#[test]
fn mnasnet1_0() {
    // Convolution, depthwise and pointwise convolution of the stem stand alone.
    let mut want = vec![unit(1, "Relu", 1, false), unit(1, "Relu", 1, false), unit(1, "Relu", 0, false)];
    want.extend(inverted("Relu", &[3, 3, 3, 2, 4, 1]));
    check(fixtures("mnasnet1_0"), &want);
}

#[test]
fn cifar_resnets() {
    for (file, blocks) in [("cifar10/resnet20.onnx", 3), ("cifar10/resnet56.onnx", 9)] {
        let mut want = residual(2, &[blocks; 3], &[false; 3]);
        // The shortcuts that halve the image are slices padded with zeros.
        for stage in 1..3 {
            want[1 + stage * blocks].0 = "Add Conv Conv Pad Relu Relu Slice Slice".to_string();
        }
        check(data(file), &want);
    }
}

//! Files for other runtimes than ONNX Runtime, through the command line.

mod common;

use common::{both, json, ok, run};
use qdrop::graph::{Graph, Op};
use qdrop::tensor::DType;
use qdrop_testing::python;
use std::path::Path;
use std::process::Command;

/// Learns W`bits`A`bits` for `target` on the little network; the written graph, and what is told of the target.
fn quantized(dir: &Path, target: &str, bits: u32) -> (Graph, Vec<String>) {
    let line = format!(
        "quantize model.onnx --calib images --eval list.csv --recipe short.toml --target {target} -w {bits} -a {bits} --format json"
    );
    let (report, told) = both(dir, &line);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let file = format!("model.w{bits}a{bits}.{target}.onnx");
    assert_eq!(report["output"], file.as_str());
    // The file measures as reported, so it is read back as what it means.
    let measured = json(dir, &format!("eval {file} --data list.csv"));
    assert_eq!(measured["top1"], report["accuracy"]["result"]["top1"], "{target}");
    ok(dir, &format!("compare model.onnx {file} --data images"));
    if let Some(python) = python() {
        let code = "import sys, onnx; onnx.checker.check_model(sys.argv[1], full_check=True)";
        let out = Command::new(python).current_dir(dir).args(["-c", code, &file]).output().unwrap();
        assert!(out.status.success(), "{target}: {}", String::from_utf8_lossy(&out.stderr));
    }
    let notes = told.lines().filter(|l| l.starts_with(&format!("note: {target} "))).map(str::to_string).collect();
    (qdrop::onnx::read(&dir.join(file)).unwrap(), notes)
}

fn count(graph: &Graph, kind: &str) -> usize {
    graph.nodes.iter().filter(|n| n.op.kind() == kind).count()
}

/// Types and zero points of integer initializers that are dequantized, or of quantized activations.
fn zeros(graph: &Graph, weights: bool) -> Vec<(DType, i64)> {
    let chosen = graph.nodes.iter().filter(|n| match n.op {
        Op::DequantizeLinear { .. } => weights && graph.constant(n.input(0).unwrap()).is_some(),
        Op::QuantizeLinear { .. } => !weights,
        _ => false,
    });
    let zero = |n: &qdrop::graph::Node| {
        let zero = graph.constant(n.input(2).unwrap()).unwrap();
        zero.to_i64().unwrap().into_iter().map(|z| (zero.dtype(), z)).collect::<Vec<_>>()
    };
    chosen.flat_map(zero).collect()
}

#[test]
fn tensorrt_gets_signed_8_bits_with_zero_points_0() {
    let dir = common::folder();
    let (graph, notes) = quantized(dir.path(), "tensorrt", 8);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!((count(&graph, "QuantizeLinear"), count(&graph, "DequantizeLinear"), count(&graph, "Clip")), (3, 7, 0));
    let all = [zeros(&graph, true), zeros(&graph, false)].concat();
    assert!(all.iter().all(|z| *z == (DType::I8, 0)), "{all:?}");
}

#[test]
fn openvino_gets_signed_weights_and_unsigned_activations_of_any_bits() {
    let dir = common::folder();
    for (bits, clips, told) in [(8, 0, 0), (3, 2, 1)] {
        let (graph, notes) = quantized(dir.path(), "openvino", bits);
        assert_eq!((count(&graph, "Clip"), notes.len()), (clips, told), "{notes:?}");
        assert!(zeros(&graph, true).iter().all(|z| *z == (DType::I8, 0)));
        assert!(zeros(&graph, false).iter().all(|z| *z == (DType::U8, 0)), "all are behind a Relu");
    }
}

#[test]
fn qonnx_gets_quantizers_on_float_weights() {
    let dir = common::folder();
    let (graph, notes) = quantized(dir.path(), "qonnx", 2);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!((count(&graph, "Quant"), count(&graph, "QuantizeLinear"), graph.nodes.len()), (7, 0, 17));
    for node in graph.nodes.iter().filter(|n| n.op.kind() == "Quant") {
        let weight = graph.constant(node.input(0).unwrap());
        assert_eq!(matches!(node.op, Op::Quant { signed: true, .. }), weight.is_some(), "{}", node.name);
    }
    // It is quantized, and said to be.
    let (_, _, text) = run(dir.path(), "plan model.w2a2.qonnx.onnx");
    assert!(text.contains("a network that is already quantized cannot be quantized again"), "{text}");
}

#[test]
fn qnn_gets_a_float_network_with_encodings_beside_it() {
    let dir = common::folder();
    let path = |name: &str| dir.path().join(name);
    let line = "quantize model.onnx --calib images --eval list.csv --recipe short.toml --target qnn -w 4 -a 16";
    let (report, told) = both(dir.path(), &format!("{line} --format json"));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["encodings"]["file"], "model.w4a16.qnn.encodings.json");
    let written = std::fs::read(path("model.w4a16.qnn.encodings.json")).unwrap();
    assert_eq!(report["encodings"]["bytes"], written.len());
    assert_eq!(told.lines().filter(|l| l.starts_with("note: qnn ")).count(), 1, "{told}");

    let graph = qdrop::onnx::read(&path("model.w4a16.qnn.onnx")).unwrap();
    for kind in ["QuantizeLinear", "DequantizeLinear", "Clip", "Quant"] {
        assert_eq!(count(&graph, kind), 0, "{kind}");
    }
    let file: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(file["version"], "1.0.0");
    let values: std::collections::BTreeMap<&str, _> = graph.values.iter().map(|v| (v.name.as_str(), v)).collect();
    let (weights, sites) =
        (file["param_encodings"].as_array().unwrap(), file["activation_encodings"].as_array().unwrap());
    assert_eq!((weights.len(), sites.len()), (4, 3));
    for entry in weights {
        let tensor = values[entry["name"].as_str().unwrap()].constant.as_ref().unwrap();
        let scales: Vec<f64> = entry["scale"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
        let (half, bits) = (2f64.powi(entry["bw"].as_i64().unwrap() as i32 - 1), entry["bw"].as_u64().unwrap());
        assert!(matches!(bits, 4 | 8) && entry["offset"][0].as_f64().unwrap() == -half, "{entry}");
        let inner = tensor.len() / scales.len();
        for (i, v) in tensor.to_f32().unwrap().into_iter().enumerate() {
            let integer = f64::from(v) / scales[i / inner];
            let whole = (integer - integer.round()).abs() < 1e-4;
            assert!(whole && (-half..half).contains(&integer.round()), "{integer} in {}", entry["name"]);
        }
    }
    for entry in sites {
        assert!(values[entry["name"].as_str().unwrap()].constant.is_none());
        assert_eq!((entry["bw"].as_u64(), entry["is_sym"].as_bool()), (Some(16), Some(false)));
    }

    // Both files together measure as reported.
    let pair = "model.w4a16.qnn.onnx --encodings model.w4a16.qnn.encodings.json";
    let measured = json(dir.path(), &format!("eval {pair} --data list.csv"));
    assert_eq!(measured["top1"], report["accuracy"]["result"]["top1"]);
    let apart = json(dir.path(), &format!("compare model.w4a16.qnn.onnx {pair} --data images"));
    assert!(apart["first_difference"].is_string(), "{apart}");

    // The same run gives the same bytes; another version says the same otherwise; the terminal names the file.
    let text = ok(dir.path(), line);
    assert!(text.contains("model.w4a16.qnn.encodings.json"), "{text}");
    assert_eq!(std::fs::read(path("model.w4a16.qnn.encodings.json")).unwrap(), written);
    ok(dir.path(), &format!("{line} --encodings-version 2.0.0 -o other.onnx"));
    let other: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path("other.encodings.json")).unwrap()).unwrap();
    let other = other["encodings"].as_array().unwrap();
    assert!(other.iter().any(|e| e["output_dtype"] == "int4") && other.iter().any(|e| e["output_dtype"] == "int32"));
    let pair = "other.onnx --encodings other.encodings.json";
    let measured = json(dir.path(), &format!("eval {pair} --data list.csv"));
    assert_eq!(measured["top1"], report["accuracy"]["result"]["top1"]);
}

#[test]
fn encodings_overwrite_nothing_that_the_run_reads() {
    let dir = common::folder();
    let path = |name: &str| dir.path().join(name);
    let refused = |line: &str| {
        let (code, _, said) = run(dir.path(), line);
        assert_eq!(code, Some(2), "{line}");
        said
    };
    std::fs::create_dir(path("sub")).unwrap();
    std::fs::create_dir(path("sub/net.encodings.json")).unwrap();
    let text = refused("quantize model.onnx --calib images --target qnn -w 8 -a 8 -o sub/net.onnx");
    assert!(text.contains("expected a file name for the output, got a directory"), "{text}");
    std::fs::hard_link(path("short.toml"), path("sub/other.encodings.json")).unwrap();
    let text =
        refused("quantize model.onnx --calib images --target qnn -w 8 -a 8 --recipe short.toml -o sub/other.onnx");
    assert!(text.contains("output and input `short.toml` are the same file"), "{text}");
    let text =
        refused("quantize model.onnx --calib images --target qnn -w 8 -a 8 -o sub/a.onnx --report sub/a.encodings");
    assert!(text.contains("sub/a.encodings.json` are the same file"), "{text}");
    assert_eq!(std::fs::read_dir(path("sub")).unwrap().count(), 2, "nothing was written");
}

#[test]
fn refusals_leave_no_file() {
    let dir = common::folder();
    std::fs::write(dir.path().join("target.toml"), "[output]\ntarget = \"tensorrt\"\n").unwrap();
    let (code, _, text) = run(dir.path(), "quantize model.onnx --calib images --recipe target.toml");
    assert_eq!(code, Some(2));
    assert!(text.contains("weights.bits: target tensorrt accepts 8 bits"), "{text}");
    assert!(!text.contains("load samples"), "refused before data: {text}");
    let left = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|n| n.starts_with("model.")).collect::<Vec<_>>(), ["model.onnx"]);
}

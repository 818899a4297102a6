//! Files in a real ONNX Runtime, through the command line.

mod common;

use qdrop_testing::onnxruntime;
use serde_json::Value;

/// Largest difference in top-1 between the runtime and the engine on 40 samples, in points: one sample.
const TOP1: f64 = 2.5;
/// Least signal to noise between the two on a float network, in dB.
const SAME: f64 = 80.0;

#[test]
fn a_runtime_measures_what_the_engine_does() {
    let Some(library) = onnxruntime() else { return };
    let library = library.to_str().unwrap();
    let dir = common::folder();
    let run = |line: &str| common::json(dir.path(), line);
    let in_runtime = |line: &str| run(&format!("{line} --runtime ort --runtime-library {library}"));

    let engine = run("eval model.onnx --data list.csv");
    let runtime = in_runtime("eval model.onnx --data list.csv");
    assert_eq!(runtime["samples"], 40);
    let difference = runtime["top1"].as_f64().unwrap() - engine["top1"].as_f64().unwrap();
    assert!(difference.abs() <= TOP1, "{runtime} {engine}");
    assert!(runtime["runtime"]["name"].as_str().unwrap().starts_with("ONNX Runtime 1."));
    assert!(engine.get("runtime").is_none());

    let found = in_runtime("compare model.onnx --data images --samples 8");
    let values = found["values"].as_array().unwrap();
    assert!(values.iter().any(|v| v["name"] == "block.sum"), "{found}");
    assert_eq!(found["outputs"][0]["name"], "logits");
    for value in values.iter().chain(found["outputs"].as_array().unwrap()) {
        assert!(value["snr_db"].as_f64().is_none_or(|snr| snr > SAME), "{value}");
    }

    let bench = in_runtime("bench model.onnx");
    let threads: Vec<&Value> = bench["paces"].as_array().unwrap().iter().map(|p| &p["threads"]).collect();
    assert_eq!(threads, [&Value::from(1), &Value::from(0)]);
    assert_eq!(bench["shapes"][0], serde_json::json!([1, 3, common::SIDE, common::SIDE]));
    assert_eq!(in_runtime("bench model.onnx --threads 1 --shape 4,3,8,8")["shapes"][0][0], 4);

    let report = in_runtime("quantize model.onnx --calib images --eval list.csv --method rtn -w 8 -a 8 -o out.onnx");
    let written = in_runtime("eval out.onnx --data list.csv");
    assert_eq!(report["accuracy"]["result"]["top1"], written["top1"]);
    assert_eq!(report["accuracy"]["float"]["top1"], runtime["top1"]);
    assert!(report["accuracy"]["nearest"]["top1"].is_number());
    let latency = &report["latency"];
    assert_eq!(latency["runtime"], runtime["runtime"]["name"]);
    assert!(latency["float_ms"].as_f64().unwrap() > 0.0 && latency["result_ms"].as_f64().unwrap() > 0.0);
    let line = format!("eval out.onnx --data list.csv --runtime ort --runtime-library {library}");
    assert!(common::ok(dir.path(), &line).contains("In ONNX Runtime 1."));
}

#[test]
fn a_damaged_file_is_refused_in_the_runtimes_words() {
    let Some(library) = onnxruntime() else { return };
    let dir = common::folder();
    for file in ["truncated.onnx", "text.onnx", "empty.onnx", "absurd.onnx", "unknown.onnx"] {
        let words = ["eval", file, "--data", "list.csv", "--runtime", "ort", "--runtime-library"];
        let output = common::qdrop(dir.path(), &[&words[..], &[library.to_str().unwrap()]].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{file}: {told}");
        assert!(
            told.lines().last().is_some_and(|l| l.starts_with(&format!("error: {file}: ONNX Runtime 1."))),
            "{told}"
        );
    }
}

#[test]
fn a_missing_library_is_told_with_the_places_before_any_work() {
    let dir = common::folder();
    let bin = dir.path().join("empty-bin");
    std::fs::create_dir(&bin).unwrap();
    for line in [
        "eval model.onnx --data list.csv --runtime ort",
        "compare model.onnx --data images --runtime ort",
        "bench model.onnx --runtime ort",
        "quantize model.onnx --calib images --runtime ort",
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_qdrop"))
            .current_dir(dir.path())
            .args(line.split(' '))
            .env("PATH", &bin)
            .env("HOME", dir.path())
            .env("VIRTUAL_ENV", dir.path().join("venv"))
            .env_remove("ORT_DYLIB_PATH")
            .env_remove("CONDA_PREFIX")
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {told}");
        assert!(told.contains("error: found no shared library of ONNX Runtime; looked at ORT_DYLIB_PATH (not set), "));
        assert!(told.contains("venv (no package onnxruntime)"), "{told}");
        assert!(told.contains("hint: pip install onnxruntime in the active Python environment, or name the library"));
    }
    assert!(!dir.path().join("model.w4a4.onnx").exists());
}

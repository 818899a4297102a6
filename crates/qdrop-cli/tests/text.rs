//! Text tasks through the command line, on a small network that looks its words up in a table.
#![cfg(feature = "text")]

mod common;

use common::{json, run};
use serde_json::Value;
use std::path::Path;

/// Fills `dir` with a network of two classes, sentences and a recipe.
fn world(dir: &Path) {
    common::world(dir);
    let word = |i: usize| common::WORDS[4 + i % 9];
    let line = |i: usize| format!("{} {} {}\t{}\n", word(i), word(i / 2), word(i / 3), i % 2);
    let lines: String = (0..40).map(line).collect();
    std::fs::write(dir.join("dev.tsv"), format!("sentence\tlabel\n{lines}")).unwrap();
    std::fs::write(dir.join("short.tsv"), "sentence\tlabel\na b\t1\nc\n").unwrap();
    std::fs::write(dir.join("pairs.tsv"), "sentence1\tsentence2\tscore\na\tb\t2.5\n").unwrap();
    std::fs::write(dir.join("task.toml"), "[input]\ntask = \"CoLA\"\nmax_length = 9\n").unwrap();
}

/// Standard error without progress.
fn refusal(dir: &Path, line: &str) -> String {
    let (code, _, text) = run(dir, line);
    assert_eq!(code, Some(2), "{line}");
    let lines = text.lines().filter(|l| l.starts_with("error:") || l.starts_with("hint:"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_report_shows_the_tasks_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    world(dir);
    let quantize = "quantize table.onnx --calib dev.tsv --eval dev.tsv --task sst2 --method rtn -o q.onnx";
    let report = json(dir, quantize);
    let accuracy = &report["accuracy"];
    for network in ["float", "nearest", "result"] {
        let keys: Vec<&String> = accuracy[network].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["accuracy", "samples"], "{network}");
    }
    assert_eq!((&report["samples"], &accuracy["result"]["samples"]), (&40.into(), &40.into()));
    let eval = json(dir, "eval q.onnx --data dev.tsv --task sst2");
    assert_eq!(eval["accuracy"], accuracy["result"]["accuracy"], "the file measures as reported");
    let text = run(dir, quantize).1;
    assert!(text.contains("Accuracy on 40 samples") && text.contains("accuracy %"), "{text}");
    let learned = "quantize table.onnx --calib dev.tsv --task sst2 --iters 20 --batch 8 --samples 16 -o l.onnx";
    let report = json(dir, learned);
    assert_eq!((&report["samples"], &report["accuracy"]), (&16.into(), &Value::Null));
}

#[test]
fn thresholds_hold_for_any_metric_and_flags_override_the_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    world(dir);
    let code = |line: &str| run(dir, line).0;
    assert_eq!(code("eval table.onnx --data dev.tsv --task mrpc --min accuracy=0"), Some(2), "no pairs");
    assert_eq!(code("eval table.onnx --data dev.tsv --task sst2 --min accuracy=0"), Some(0));
    assert_eq!(code("eval table.onnx --data dev.tsv --task sst2 --min accuracy=100"), Some(1));
    // The recipe's length does not fit the network, its task reads files without a header too.
    assert!(refusal(dir, "eval table.onnx --data dev.tsv --recipe task.toml").contains("samples have 9 tokens"));
    let view = json(dir, "eval table.onnx --data dev.tsv --recipe task.toml --max-length 8");
    assert!(view["matthews"].is_number() && view["top1"].is_null(), "{view}");
    let view = json(dir, "eval table.onnx --data dev.tsv --recipe task.toml --max-length 8 --task SST-2");
    assert!(view["accuracy"].is_number(), "{view}");
}

#[test]
fn bad_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    world(dir);
    for (line, want) in [
        (
            "eval table.onnx --data short.tsv --task sst2",
            "error: short.tsv: line 3: expected 2 columns, got 1\nhint: columns are separated by tabs",
        ),
        (
            "eval table.onnx --data pairs.tsv --task stsb",
            "error: pairs.tsv: task `stsb` needs one number per sample, the network has outputs of 2\n\
             hint: give the task that the network was trained for",
        ),
        (
            "eval table.onnx --data dev.tsv --task sst2 --tokenizer none.json",
            "error: none.json: no such tokenizer\nhint: give the network's tokenizer.json with --tokenizer",
        ),
        (
            "eval table.onnx --data dev.tsv --task sst2 --min f1=3",
            "error: the metric `f1` is not measured here, only accuracy",
        ),
        (
            "eval table.onnx --data dev.tsv --task sst2 --max-length 3",
            "error: input.max_length: expected at least 8, got 3",
        ),
        (
            "quantize table.onnx --calib dev.tsv --eval pairs.tsv --task sst2 --method rtn -o q.onnx",
            "error: pairs.tsv: line 1: expected a column `sentence` or `text`, got `sentence1`, `sentence2`, `score`\n\
             hint: the file must be one of task `sst2`",
        ),
    ] {
        assert_eq!(refusal(dir, line), want, "{line}");
    }
    let text = refusal(dir, "eval table.onnx --data dev.tsv --task sst2 --tokenizer dev.tsv");
    assert!(text.starts_with("error: dev.tsv: expected a tokenizer, got another file: "), "{text}");
    std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
    assert_eq!(
        refusal(dir, "eval table.onnx --data dev.tsv --task sst2"),
        "error: task `sst2` needs a tokenizer, found no tokenizer.json next to the model or the samples\n\
         hint: give the network's tokenizer.json with --tokenizer"
    );
}

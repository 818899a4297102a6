//! Ctrl-C is heard within a second, whatever the program does.
#![cfg(unix)]

mod common;

use qdrop_testing::{npy, onnxruntime};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Time from Ctrl-C to the end of the program: a second, and as much again and more on a machine that runs other tests.
const SOON: Duration = Duration::from_secs(4);
/// Side of the images, so that a pass over all of them takes seconds.
const SIDE: usize = 96;
const IMAGES: usize = 256;

/// A network for larger images, and images for it.
fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    qdrop::onnx::write(&common::network_of(SIDE, &[]), &dir.path().join("model.onnx")).unwrap();
    let images: Vec<u8> = (0..IMAGES * 3 * SIDE * SIDE).map(|i| (i * 7919 % 251) as u8).collect();
    let floats: Vec<u8> = images.iter().flat_map(|&v| (f32::from(v) / 250.0 - 0.5).to_le_bytes()).collect();
    npy(&dir.path().join("images.npy"), "<f4", &[IMAGES, 3, SIDE, SIDE], &floats);
    let recipe = format!("[activations]\nrefine_samples = {IMAGES}\nfactor_samples = 0\n");
    std::fs::write(dir.path().join("recipe.toml"), recipe).unwrap();
    dir
}

/// Stops the program by Ctrl-C when it says something with `stage` in it. Only what was there before is there then.
fn stops(dir: &Path, line: &str, stage: &str) {
    let before = common::files(dir);
    let mut child = common::start(dir, line);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|l| l.starts_with(stage)), "{line}: `{stage}` never began");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let start = Instant::now();
    let rest: Vec<String> = lines.collect();
    let code = child.wait().unwrap().code();
    assert!(kill.success() && code == Some(130), "{line}: {code:?} {rest:?}");
    assert!(rest.iter().any(|l| l == "error: stopped on request"), "{line}: {rest:?}");
    assert!(start.elapsed() < SOON, "{line}: stopped after {:?}", start.elapsed());
    assert_eq!(common::files(dir), before, "{line}");
}

#[test]
fn ctrl_c_is_heard_while_steps_are_refined_and_bits_measured() {
    let dir = world();
    let line = "quantize model.onnx --calib images.npy --recipe recipe.toml --method rtn -w 4 -a 4 -o out.onnx";
    stops(dir.path(), line, "refine steps");
    stops(dir.path(), "sensitivity model.onnx --calib images.npy -o out.json", "measure sensitivity");
}

#[test]
fn ctrl_c_is_heard_while_a_runtime_runs() {
    let Some(library) = onnxruntime() else { return };
    let dir = world();
    let more = format!("--data images.npy --runtime ort --runtime-library {} --threads 1", library.display());
    stops(dir.path(), &format!("compare model.onnx {more}"), "compare");
}

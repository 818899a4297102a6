//! Memory that is promised and kept.

mod common;

use common::{json, run};
use qdrop_testing::shared;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn what_does_not_fit_lies_in_files_and_changes_no_byte() {
    let dir = common::folder();
    let dir = dir.path();
    let line = "quantize model.onnx --calib images --recipe short.toml -w 2 -a 2 -q";
    assert_eq!(run(dir, &format!("{line} -o free.onnx")).0, Some(0));

    let (code, _, said) = run(dir, &format!("{line} -o small.onnx --memory 1MiB"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a memory limit of 1MiB is too small, "), "{said}");
    assert!(!dir.join("small.onnx").exists());

    // Of what it needs at least, almost nothing is left for values of samples.
    let needed = said.split("too small, ").nth(1).and_then(|s| s.split(" MiB").next()).unwrap();
    let memory = format!("{}MiB", needed.parse::<f64>().unwrap() + 0.1);
    let plan = json(dir, &format!("plan model.onnx --recipe short.toml --samples 40 --memory {memory}"));
    assert!(plan["predicted_memory"]["files"].as_u64().unwrap() > 0, "{plan}");
    let (code, _, said) = run(dir, &format!("{line} -o small.onnx --memory {memory}"));
    assert_eq!(code, Some(0), "{said}");
    let bytes = |name: &str| std::fs::read(dir.join(name)).unwrap();
    assert!(bytes("small.onnx") == bytes("free.onnx"));
}

/// Peak resident memory of a run, in bytes.
#[cfg(target_os = "linux")]
fn peak(dir: &Path, line: &str) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qdrop"));
    let mut child =
        command.current_dir(dir).args(line.split_whitespace()).stdout(Stdio::null()).spawn().expect("it starts");
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success(), "{line}");
    most
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_takes_what_the_plan_says() {
    let Some(data) = shared("data/cifar10") else { return };
    let dir = tempfile::tempdir().unwrap();
    let model = data.join("resnet20.onnx");
    let model = model.display();
    let mut values = Vec::new();
    for memory in ["", "--cache f16", "--memory 150MiB"] {
        let more = format!("--input imagenet-norm --iters 4 --samples 1024 --threads 2 {memory}");
        let plan = json(dir.path(), &format!("plan {model} {more}"));
        let predicted = plan["predicted_memory"]["total"].as_u64().unwrap();
        let calib = data.join("calib");
        let peak = peak(dir.path(), &format!("quantize {model} --calib {} -q -o o.onnx {more}", calib.display()));
        let ratio = peak as f64 / predicted as f64;
        assert!((0.9..=1.1).contains(&ratio), "{memory}: {peak} bytes taken, {predicted} predicted");
        assert_eq!(memory.contains("MiB"), plan["predicted_memory"]["files"] != 0, "{plan}");
        values.push(plan["predicted_memory"]["caches"].as_u64().unwrap());
    }
    assert_eq!(values[0], 2 * values[1]);
}

#[cfg(target_os = "linux")]
#[test]
fn other_networks_take_what_the_plan_says() {
    let Some(data) = shared("data") else { return };
    let dir = tempfile::tempdir().unwrap();
    let images = "--input imagenet --samples 8 --refine-samples 0 --factor-samples 2";
    let texts = "--task sst2 --samples 8 --refine-samples 0 --factor-samples 2";
    let cases = [
        ("imagenet/mobilenetv2.onnx", "imagenet/calib", images),
        ("text/minilm_sst2.onnx", "text/SST-2/dev.tsv", texts),
    ];
    for (model, calib, more) in cases {
        let (model, calib) = (data.join(model), data.join(calib));
        let line = format!("{} --calib {} {more} --method rtn -w 8 -a 8 --threads 2", model.display(), calib.display());
        let plan = json(dir.path(), &format!("plan {line}"));
        let predicted = plan["predicted_memory"]["total"].as_u64().unwrap();
        let peak = peak(dir.path(), &format!("quantize {line} -q -o o.onnx"));
        let ratio = peak as f64 / predicted as f64;
        assert!((0.9..=1.1).contains(&ratio), "{line}: {peak} bytes taken, {predicted} predicted");
    }
}

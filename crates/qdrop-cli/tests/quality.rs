//! What a run says about the file that it wrote: how close it is to the float network, and what is likely wrong.

mod common;

use common::{both, ok};
use serde_json::Value;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

/// The report of a run, and what it said.
fn json(dir: &Path, line: &str) -> (Value, String) {
    let (printed, said) = both(dir, &format!("{line} --format json"));
    (serde_json::from_str(&printed).unwrap(), said)
}

/// The demo's network with its pictures, made once: `demo.onnx`, `calib/` and `test/`.
fn demo() -> &'static Path {
    static DEMO: OnceLock<TempDir> = OnceLock::new();
    let dir = DEMO.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        ok(dir.path(), "demo --iters 1 --output-dir .");
        // A tenth of the pictures is enough.
        for class in std::fs::read_dir(dir.path().join("test")).unwrap() {
            let mut files: Vec<_> =
                std::fs::read_dir(class.unwrap().path()).unwrap().map(|e| e.unwrap().path()).collect();
            files.sort();
            files.iter().skip(10).for_each(|path| std::fs::remove_file(path).unwrap());
        }
        dir
    });
    dir.path()
}

/// `text` with every run of spaces and line ends as one space.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_run_ends_with_the_distance_to_the_float_network() {
    let dir = common::folder();
    let dir = dir.path();
    let text = ok(dir, "quantize model.onnx --calib images --method rtn -w 8 -a 8 -o a.onnx");
    assert!(text.contains("\nQuality on 40 calibration samples that the run also used\n"), "{text}");
    assert!(text.contains("same top-1") && text.contains("  logits") && !text.contains("warning:"), "{text}");
    let (report, said) = json(dir, "quantize model.onnx --calib images --method rtn -w 8 -a 8 -o a.onnx");
    let quality = &report["quality"];
    assert_eq!((&quality["source"], &quality["samples"]), (&"calibration".into(), &40.into()), "{quality}");
    let db = quality["snr_db"].as_f64().unwrap();
    assert!(db > 20.0 && quality["outputs"][0]["snr_db"] == quality["snr_db"], "{quality}");
    assert!(quality["same_top1"].as_f64().unwrap() > 90.0 && quality["losses"] == Value::Array(vec![]), "{quality}");
    assert!(!said.contains("warning") && report["near_chance"].is_null(), "{said}");
    // The same figure, measured by another command on the same samples.
    let (view, _) = json(dir, "compare model.onnx a.onnx --data images");
    let last = view["values"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["name"], &last["snr_db"]), (&"logits".into(), &quality["snr_db"]));
    // The page opens with it.
    let page = std::fs::read_to_string(dir.join("a.report.html")).unwrap();
    let (verdict, summary) = (page.find("On 40 calibration samples").unwrap(), page.find("weights of").unwrap());
    assert!(verdict < summary && page.contains(&format!("{db:.1} dB")), "{page}");
}

#[test]
fn samples_that_the_run_did_not_use_come_first() {
    let dir = common::folder();
    let dir = dir.path();
    let from = |more: &str| {
        let line = format!("quantize model.onnx --method rtn -w 8 -a 8 -o a.onnx --no-report {more}");
        let (report, _) = json(dir, &line);
        let quality = &report["quality"];
        (quality["source"].as_str().unwrap().to_string(), quality["samples"].as_u64().unwrap())
    };
    assert_eq!(from("--calib images --samples 25"), ("left_out".into(), 15));
    assert_eq!(from("--calib good.npy --samples 30 --eval list.csv"), ("left_out".into(), 10));
    assert_eq!(from("--calib good.npy --eval list.csv"), ("evaluation".into(), 40));
    assert_eq!(from("--calib list.csv --eval ./list.csv"), ("calibration".into(), 40));
    // Two images are not many, and a broken one is none.
    assert_eq!(from("--calib images --samples 38"), ("left_out".into(), 2));
    std::fs::create_dir(dir.join("last")).unwrap();
    for i in 0..8 {
        common::image(&dir.join(format!("last/{i}.bmp")), i, common::SIDE);
    }
    std::fs::write(dir.join("last/8.bmp"), &std::fs::read(dir.join("last/7.bmp")).unwrap()[..80]).unwrap();
    assert_eq!(from("--calib last --samples 1"), ("left_out".into(), 7));
    // With learning, all samples are used, and the result does not depend on what is measured.
    let learn = "quantize model.onnx --calib images --recipe short.toml -w 3 -a 3";
    let one = json(dir, &format!("{learn} -o one.onnx")).0;
    assert_eq!(one["quality"]["source"], "calibration");
    let text = ok(dir, "quantize model.onnx --calib images --recipe short.toml -w 3 -a 3 -o two.onnx");
    assert!(text.contains("Quality on 40 calibration samples that the run also learned from"), "{text}");
}

#[test]
fn low_quality_names_what_loses_most() {
    let dir = demo();
    let line = "quantize demo.onnx --calib calib --input imagenet-norm --method rtn -w 2 -a 2 -o low.onnx";
    let text = ok(dir, &format!("{line} -q"));
    assert!(text.contains("Quality on 64 calibration samples that the run did not use"), "{text}");
    let warning = plain(text.split("\n\n").find(|part| part.starts_with("warning: ")).expect("there is a warning"));
    assert!(warning.contains("signal-to-noise ratio of") && warning.contains("dB, below 20 dB"), "{warning}");
    assert!(warning.contains("--method qdrop"), "{warning}");
    let (report, said) = json(dir, line);
    let losses = report["quality"]["losses"].as_array().unwrap();
    assert!((2..=3).contains(&losses.len()), "{losses:?}");
    let named = |list: &str| -> Vec<String> {
        report[list].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_string()).collect()
    };
    let (sites, layers) = (named("sites"), named("layers"));
    for loss in losses {
        let name = loss["name"].as_str().unwrap().to_string();
        let known = if loss["what"] == "layer" { &layers } else { &sites };
        assert!(known.contains(&name) && warning.contains(&format!("`{name}`")), "{loss}: {warning}");
    }
    assert!(said.contains("note: the outputs have "), "{said}");
    assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
    let page = std::fs::read_to_string(dir.join("low.report.html")).unwrap();
    assert!(page.contains("<b>warning: </b>the outputs have "), "{page}");
}

#[test]
fn without_steps_held_against_the_outputs_layers_are_found_by_comparing() {
    let dir = demo();
    let line = "quantize demo.onnx --calib calib --input imagenet-norm --method rtn -w 2 -a 8 --refine-samples 0";
    let (report, _) = json(dir, &format!("{line} -o layers.onnx"));
    let losses = report["quality"]["losses"].as_array().unwrap();
    let layers: Vec<&str> = report["layers"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap()).collect();
    assert!(!losses.is_empty() && losses.len() <= 3, "{losses:?}");
    let named = losses.iter().filter(|l| l["what"] == "layer" && layers.contains(&l["name"].as_str().unwrap()));
    assert!(named.count() > 0, "{losses:?}");
}

#[test]
fn wrongly_prepared_samples_are_noticed() {
    let dir = demo();
    let line = "quantize demo.onnx --calib calib --method rtn -w 8 -a 8 --eval test -o wrong.onnx";
    let (text, said) = both(dir, line);
    let note = plain(text.split("\n\n").find(|part| part.starts_with("note: ")).expect("there is a note"));
    assert!(note.starts_with("note: top-1 of the float network is "), "{note}");
    assert!(note.contains("hardly above guessing (5.00 %); no preparation is set"), "{note}");
    assert!(["--input", "--layout", "--color", "labels"].iter().all(|cause| note.contains(cause)), "{note}");
    assert!(text.lines().all(|l| l.chars().count() <= 100) && !said.contains("top-1"), "{text}\n{said}");
    let (report, said) = json(dir, line);
    assert_eq!((&report["near_chance"]["metric"], &report["near_chance"]["guessing"]), (&"top1".into(), &5.0.into()));
    assert!(said.contains("note: top-1 of the float network is "), "{said}");
    let quiet = common::qdrop(dir, &format!("{line} --format json -q").split(' ').collect::<Vec<_>>());
    assert!(quiet.stderr.is_empty(), "{}", String::from_utf8_lossy(&quiet.stderr));
    let page = std::fs::read_to_string(dir.join("wrong.report.html")).unwrap();
    assert!(page.contains("<b>note: </b>top-1 of the float network is "), "{page}");
    let text = ok(dir, &line.replace("--method", "--input imagenet-norm --method"));
    assert!(!text.contains("note: ") && text.contains("Quality on 64 calibration samples"), "{text}");
}

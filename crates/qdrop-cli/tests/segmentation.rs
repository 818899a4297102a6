//! `qdrop eval` and `qdrop quantize --eval` on images with label maps.

mod common;

use common::{both, json, ok, refused, run, segmented};
use qdrop_testing::onnxruntime;
use serde_json::Value;

/// Largest error of a figure, in per cent.
const ROUNDING: f64 = 1e-9;

/// Of 256 pixels 128 are found red, 64 green and 64 blue; 112 are red and 80 green.
const WANT: [(&str, f64); 3] =
    [("miou", 100.0 * (0.875 + 0.8 + 1.0) / 3.0), ("pixel_accuracy", 93.75), ("mean_accuracy", 100.0 * 2.8 / 3.0)];

const LINE: &str = "eval fcn.onnx --task segmentation --data photos --labels maps";

fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    segmented(dir.path());
    dir
}

fn check(score: &Value) {
    for (metric, want) in WANT {
        assert!((score[metric].as_f64().unwrap() - want).abs() < ROUNDING, "{metric}: {score}");
    }
    let classes: Vec<(u64, u64)> = score["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["class"].as_u64().unwrap(), c["pixels"].as_u64().unwrap()))
        .collect();
    assert_eq!(classes, [(0, 112), (1, 80), (2, 64)]);
    assert_eq!(score["samples"], 4);
    assert!((score["classes"][1]["iou"].as_f64().unwrap() - 80.0).abs() < ROUNDING, "{score}");
}

#[test]
fn networks_are_measured_on_label_maps() {
    let dir = world();
    let dir = dir.path();
    check(&json(dir, LINE));
    check(&json(dir, "eval fcn.onnx --task segmentation --data maps.csv"));
    let (printed, said) = both(dir, &format!("{LINE} --verbose"));
    assert!(said.contains("output `out` is read as scores of 3 classes for 4 x 4 cells"), "{said}");
    for row in ["fcn.onnx 4 93.33 89.17 93.75 0", "1 80.00 80.00 80", "0 87.50 100.00 112"] {
        let words: Vec<&str> = row.split(' ').collect();
        let holds = |line: &str| line.split_whitespace().collect::<Vec<_>>().starts_with(&words);
        assert!(printed.lines().any(holds), "{row} in {printed}");
    }
    assert!(!ok(dir, LINE).contains("Classes"));
    // A number that is ignored is left out of pixels and means.
    let ignored = json(dir, &format!("{LINE} --ignore-label 1"));
    assert!((ignored["miou"].as_f64().unwrap() - 100.0).abs() < ROUNDING, "{ignored}");
    let (code, _, said) = run(dir, &format!("{LINE} --min miou=90"));
    assert!(code == Some(1) && said.contains("mIoU 89.17 % is below the threshold of 90 %"), "{said}");
    assert_eq!(run(dir, &format!("{LINE} --min miou=89 --min pixel_accuracy=93.75")).0, Some(0));
}

#[test]
fn a_runtime_measures_what_the_engine_does() {
    let Some(library) = onnxruntime() else { return };
    let dir = world();
    check(&json(dir.path(), &format!("{LINE} --runtime ort --runtime-library {}", library.display())));
}

#[test]
fn written_files_are_measured() {
    let dir = world();
    let line =
        "quantize fcn.onnx --task segmentation --calib photos --eval photos --labels maps --method rtn -w 8 -a 8";
    let report = json(dir.path(), line);
    check(&report["accuracy"]["float"]);
    check(&report["accuracy"]["result"]);
    // Calibration needs no label maps.
    ok(dir.path(), "quantize fcn.onnx --task segmentation --calib photos --method rtn -w 8 -a 8 -o other.onnx");
}

#[test]
fn mistakes_are_told() {
    let dir = world();
    let dir = dir.path();
    let said = refused(dir, "eval fcn.onnx --task segmentation --data photos");
    assert!(said.contains("task `segmentation` needs label maps") && said.contains("--labels"), "{said}");
    assert!(refused(dir, &LINE.replace("maps", "nowhere")).contains("nowhere: --labels: no such folder"));
    let said = refused(dir, &format!("{LINE} --min top1=1"));
    assert!(said.contains("`top1` is not measured here, only miou, pixel_accuracy, mean_accuracy"), "{said}");
    image::GrayImage::from_pixel(8, 8, image::Luma([9])).save(dir.join("maps/2.png")).unwrap();
    let said = refused(dir, LINE);
    assert!(said.contains("2.png`: the label map has class 9 at row 0, column 0, the network has 3 classes"), "{said}");
    ok(dir, &format!("{LINE} --ignore-label 9"));
    image::GrayImage::new(8, 4).save(dir.join("maps/2.png")).unwrap();
    assert!(refused(dir, LINE).contains("the label map has 4 x 8 pixels, the image 8 x 8"));
    std::fs::remove_file(dir.join("maps/2.png")).unwrap();
    assert!(refused(dir, LINE).contains("found no label map `2.png` in `maps`"));
}

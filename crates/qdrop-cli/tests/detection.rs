//! `qdrop eval` on annotated images and on detections that were made elsewhere.

mod common;

use common::{json, ok, run};
use std::path::Path;

const TRUTH: &str = r#"{
  "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
  "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
  "annotations": [
    {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0},
    {"id": 2, "image_id": 2, "category_id": 5, "bbox": [0, 0, 20, 30], "area": 600, "iscrowd": 0}
  ]
}"#;

/// The cat is found exactly, the dog by three quarters.
const FOUND: &str = r#"[
  {"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9},
  {"image_id": 2, "category_id": 5, "bbox": [0, 0, 15, 30], "score": 0.5}
]"#;

fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("val.json"), TRUTH).unwrap();
    std::fs::write(dir.path().join("found.json"), FOUND).unwrap();
    dir
}

const LINE: &str = "eval --detections found.json --data val.json --task coco";

#[test]
fn detections_made_elsewhere_are_measured() {
    let dir = world();
    let printed = ok(dir.path(), LINE);
    for row in
        ["detections  found.json", "AP %              80.00", "AP50 %           100.00", "AR small %        60.00"]
    {
        let words: Vec<&str> = row.split_whitespace().collect();
        assert!(printed.lines().any(|l| l.split_whitespace().eq(words.iter().copied())), "{row} in {printed}");
    }
    assert!(!printed.contains("large"), "no object is large: {printed}");
    let read = json(dir.path(), LINE);
    assert_eq!((read["detections"].as_str(), read["samples"].as_u64()), (Some("found.json"), Some(2)));
    assert!(
        (read["ap"].as_f64().unwrap() - 80.0).abs() < 1e-9 && read.get("model").is_none() && read.get("ap_l").is_none()
    );
}

#[test]
fn thresholds_decide_the_exit_status() {
    let dir = world();
    let status = |min: &str| {
        let (code, _, said) = run(dir.path(), &format!("{LINE} {min}"));
        (code, said)
    };
    assert_eq!(status("--min ap=79 --min ap75=100").0, Some(0));
    let (code, said) = status("--min ap=81");
    assert!(code == Some(1) && said.contains("AP 80.00 % is below the threshold of 81 %"), "{said}");
    let (code, said) = status("--min ap_l=1");
    assert!(
        code == Some(2) && said.contains("the metric `ap_l` was not measured: the set has no such object"),
        "{said}"
    );
    let (code, said) = status("--min top1=1");
    assert!(code == Some(2) && said.contains("the metric `top1` is not measured here, only ap, ap50, "), "{said}");
}

fn refused(dir: &Path, line: &str) -> String {
    let (code, _, said) = run(dir, line);
    assert_eq!(code, Some(2), "{line}: {said}");
    said
}

#[test]
fn mistakes_are_told() {
    let dir = world();
    let dir = dir.path();
    assert!(refused(dir, "eval --data val.json --task coco").contains("<MODEL>"));
    assert!(refused(dir, "eval --detections found.json --data val.json").contains("--task"));
    let said = refused(dir, "eval --detections found.json --data val.json --task squad");
    assert!(said.contains("--detections: only task `coco` has detections"), "{said}");
    assert!(refused(dir, &format!("{LINE} --samples 1")).contains("--samples"));
    assert!(refused(dir, &format!("{LINE} --detector yolo")).contains("expected one of the families yolox, "));
    let said = refused(dir, "eval --detections val.json --data val.json --task coco");
    assert!(said.contains("val.json: expected a list of detections"), "{said}");
    let said = refused(dir, "eval --detections found.json --data found.json --task coco");
    assert!(said.contains("found.json: expected an object with the lists `images`"), "{said}");
    std::fs::write(dir.join("found.json"), FOUND.replace("\"category_id\": 5", "\"category_id\": 2")).unwrap();
    let said = refused(dir, LINE);
    assert!(said.contains("found.json: detections[1]: no category has the id 2"), "{said}");
}

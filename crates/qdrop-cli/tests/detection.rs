//! `qdrop eval` on annotated images and on detections that were made elsewhere.

mod common;

use common::{json, ok, refused, run};
use qdrop::report::Report;

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

/// Measures the small detector on annotated images.
const NETWORK: &str = "eval yolox.onnx --data val.json --task coco --input yolox --detector yolox";

#[test]
fn what_a_network_detects_can_be_kept() {
    let dir = common::folder();
    let dir = dir.path();
    common::annotated(dir);
    let direct = json(dir, &format!("{NETWORK} --save-detections kept.json"));
    let scored = json(dir, "eval --detections kept.json --data val.json --task coco");
    for figure in qdrop::eval::coco::FIGURES {
        assert_eq!(direct.get(figure), scored.get(figure), "{figure}");
    }
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("kept.json")).unwrap()).unwrap();
    let row = &kept[0];
    assert!(row["bbox"].as_array().is_some_and(|b| b.len() == 4) && row["score"].as_f64().is_some(), "{row}");
    assert!(row["image_id"].is_i64() && row["category_id"].is_i64(), "{row}");

    let said = refused(dir, "eval model.onnx --data list.csv --save-detections kept2.json");
    assert!(said.contains("--save-detections: only task `coco` has detections"), "{said}");
    let said = refused(dir, &format!("{NETWORK} --save-detections val.json"));
    assert!(said.contains("val.json: output and input `val.json` are the same file"), "{said}");
    let said = refused(dir, &format!("{NETWORK} --save-detections nowhere/kept.json"));
    assert!(said.contains("the directory `nowhere` does not exist"), "{said}");
    let said = refused(dir, &format!("{LINE} --save-detections kept.json"));
    assert!(said.contains("cannot be used with"), "{said}");
}

#[test]
fn what_a_network_detects_can_be_drawn() {
    let dir = common::folder();
    let dir = dir.path();
    common::annotated(dir);
    let line = format!("{NETWORK} --draw drawn --draw-images 3 --draw-above 0");
    ok(dir, &line);
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(dir.join("drawn"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let drawn = names();
    assert!(drawn.len() == 4 && drawn[3] == "index.html", "{drawn:?}");
    let picture = std::fs::read_to_string(dir.join("drawn").join(&drawn[0])).unwrap();
    assert!(picture.contains("href=\"data:image/jpeg;base64,") && picture.contains("stroke-dasharray"), "{picture}");
    assert!(picture.contains(">cat 0.") || picture.contains(">dog 0."), "{picture}");
    let page = std::fs::read_to_string(dir.join("drawn/index.html")).unwrap();
    assert!(page.matches("<svg").count() == 3 && page.contains(&format!("href=\"{}\"", drawn[0])), "{page}");
    // Drawn again, without boxes that are not sure enough, but not among other files.
    ok(dir, &line.replace("above 0", "above 1"));
    assert!(names() == drawn && !std::fs::read_to_string(dir.join("drawn").join(&drawn[0])).unwrap().contains(" 0."));
    std::fs::write(dir.join("drawn/mine.svg"), "mine").unwrap();
    let said = refused(dir, &line);
    assert!(said.contains("mine.svg: the folder for pictures of detections contains another file"), "{said}");
    assert!(refused(dir, &format!("{NETWORK} --draw model.onnx")).contains("model.onnx"));
    let said = refused(dir, "eval model.onnx --data list.csv --draw other");
    assert!(said.contains("--draw: only task `coco` has detections") && !dir.join("other").exists(), "{said}");
    assert!(refused(dir, &format!("{NETWORK} --draw-images 3")).contains("--draw <DIR>"));
}

#[test]
fn detections_made_elsewhere_can_be_drawn() {
    let dir = world();
    let dir = dir.path();
    std::fs::create_dir(dir.join("val")).unwrap();
    for (name, width, height) in [("a.png", 64, 60), ("b.png", 24, 36)] {
        image::RgbImage::from_pixel(width, height, image::Rgb([90; 3])).save(dir.join("val").join(name)).unwrap();
    }
    let line = format!("{LINE} --draw drawn");
    assert_eq!(json(dir, &line)["ap"], json(dir, LINE)["ap"]);
    let read = |name: &str| std::fs::read_to_string(dir.join("drawn").join(name)).unwrap();
    let (cat, dog, page) = (read("1.svg"), read("2.svg"), read("index.html"));
    assert!(cat.contains(">cat 0.9") && cat.contains("stroke-dasharray") && !cat.contains("dog"), "{cat}");
    assert!(dog.contains(">dog 0.5") && dog.contains("width=\"24\"") && dog.contains("data:image/jpeg"), "{dog}");
    assert!(page.contains("found.json") && page.matches("<svg").count() == 2, "{page}");
    ok(dir, &format!("{line} --draw-above 0.6"));
    assert!(read("1.svg").contains(">cat 0.9") && !read("2.svg").contains(">dog 0.5"));
    // Nothing is drawn where the detections cannot be read, or the images.
    std::fs::remove_dir_all(dir.join("drawn")).unwrap();
    std::fs::write(dir.join("val/b.png"), "no image").unwrap();
    let said = refused(dir, &line);
    assert!(said.contains("b.png") && !dir.join("drawn").exists(), "{said}");
    let said = refused(dir, &format!("{line} --images nowhere"));
    assert!(said.contains("nowhere: --images: no such folder"), "{said}");
}

/// Annotations of the kinds that `scripts/to_coco.py` takes, of the same objects as in [`TRUTH`].
#[test]
fn annotations_of_voc_and_yolo_become_those_of_coco() {
    let Some(python) = qdrop_testing::python_with("PIL") else { return };
    let dir = world();
    let dir = dir.path();
    for folder in ["images", "voc", "yolo"] {
        std::fs::create_dir(dir.join(folder)).unwrap();
    }
    let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).unwrap();
    let voc = |file: &str, [width, height]: [u32; 2], name: &str, [left, top, right, bottom]: [u32; 4]| {
        format!(
            "<annotation><filename>{file}</filename><size><width>{width}</width><height>{height}</height></size><object>\
             <name>{name}</name><difficult>0</difficult><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>\
             <ymax>{bottom}</ymax></bndbox></object></annotation>"
        )
    };
    for (name, width, height) in [("a.png", 100, 80), ("b.png", 40, 50), ("c.png", 8, 8)] {
        image::RgbImage::new(width, height).save(dir.join("images").join(name)).unwrap();
    }
    write("voc/a.xml", &voc("a.png", [100, 80], "cat", [11, 11, 50, 50]));
    write("voc/b.xml", &voc("b.png", [40, 50], "dog", [1, 1, 20, 30]));
    write("yolo/a.txt", "0 0.3 0.375 0.4 0.5\n");
    write("yolo/b.txt", "4 0 0 0.5 0 0.5 0.6 0 0.6\n");
    write("names.txt", "cat\nemu\nfox\ngnu\ndog\n");
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/to_coco.py");
    let convert = |line: &str| {
        let mut command = std::process::Command::new(&python);
        let out = command.arg(&script).args(line.split(' ')).current_dir(dir).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    for line in ["voc v.json voc --names names.txt", "yolo y.json images yolo --names names.txt"] {
        let (ok, said) = convert(line);
        let (file, images) = if line.starts_with("voc") { ("v.json", 2) } else { ("y.json", 3) };
        assert!(ok && said.starts_with(&format!("{file}: {images} images, 2 objects of 5 classes")), "{said}");
        assert_eq!(json(dir, &LINE.replace("val.json", file))["ap"], json(dir, LINE)["ap"], "{line}");
    }
    write("yolo/b.txt", "5 0.5 0.5 1 1\n");
    let (ok, said) = convert("yolo y.json images yolo --names names.txt");
    assert!(!ok && said.contains("b.txt, line 1: class 5, but there are 5 names"), "{said}");
    write("voc/b.xml", "<annotation>");
    let (ok, said) = convert("voc v.json voc");
    assert!(!ok && said.contains("b.xml: "), "{said}");
}

#[test]
fn a_report_shows_what_was_detected() {
    let dir = common::folder();
    let dir = dir.path();
    common::annotated(dir);
    let line = "quantize yolox.onnx --task coco --calib val.json --samples 4 --eval val.json --input yolox \
                --detector yolox -w 8 -a 8 --method rtn -o q.onnx";
    ok(dir, line);
    let report = Report::from_json(&std::fs::read(dir.join("q.report.json")).unwrap()).unwrap();
    assert_eq!(report.pictures.len(), 6);
    for picture in &report.pictures {
        assert!(picture.jpeg.is_some() && picture.float.is_some() && picture.truth.len() == 1, "{picture:?}");
        assert_eq!((picture.width, picture.height, &picture.truth[0].bbox), (8, 8, &[1.0, 1.0, 4.0, 5.0]));
    }
    let page = std::fs::read_to_string(dir.join("q.report.html")).unwrap();
    assert_eq!((page.matches("data:image/jpeg;base64,").count(), page.matches("class=\"picture\"").count()), (6, 12));
    let figures = ["float %", "nearest rounding %", "result %", "AR large %"];
    // No object is large.
    assert!(figures[..3].iter().all(|f| page.contains(f)) && !page.contains(figures[3]), "{page}");
    ok(dir, "report q.report.json -o again.html");
    assert_eq!(std::fs::read_to_string(dir.join("again.html")).unwrap(), page);
}

#[test]
fn plan_names_the_family_of_a_detector() {
    let dir = common::folder();
    let dir = dir.path();
    common::annotated(dir);
    let printed = ok(dir, "plan yolox.onnx");
    let line = printed.lines().find(|l| l.starts_with("Detector ")).unwrap_or_else(|| panic!("{printed}"));
    assert!(line.starts_with("Detector yolox: `output` [1, 21, 7] with a box (in pixels or not: "), "{line}");
    assert!(line.ends_with("; --detector gives another family"), "{line}");
    let read = json(dir, "plan yolox.onnx");
    assert_eq!(read["detector"]["family"], "yolox");
    assert_eq!(
        json(dir, "plan yolox.onnx --detector yolox-decoded --task coco")["detector"]["family"],
        "yolox-decoded"
    );
    let said = refused(dir, "plan yolox.onnx --detector detr --task coco");
    assert!(said.contains("the outputs are not those of family `detr`"), "{said}");
    assert!(json(dir, "plan model.onnx").get("detector").is_none());
}

/// Nodes without a weight that lie behind others are told in one line, however many the others are; layers are named.
#[test]
fn plan_lists_what_stays_float_briefly() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../qdrop/tests/fixtures/detectors");
    let left = |name: &str| {
        let printed = ok(&fixtures, &format!("plan {name}.onnx"));
        let table = printed.split("Left float").nth(1).and_then(|t| t.split("\n\n").next()).unwrap().to_string();
        let words = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
        table.lines().skip(2).map(words).collect::<Vec<String>>()
    };
    assert_eq!(
        left("retinanet"),
        [
            "NonZero_87 and 4 others the size of its result depends on the data",
            "Squeeze_88 and 54 others it depends on another node of this list",
            "If_335 the operator cannot be run here and is carried over unchanged",
        ]
    );
    let layers: Vec<String> = left("faster_rcnn").into_iter().filter(|l| l.starts_with("Gemm_")).collect();
    assert!(layers.len() == 4 && layers.iter().all(|l| l.contains(" it depends on `NonZero_")), "{layers:?}");
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

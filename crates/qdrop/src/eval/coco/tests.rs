use super::*;
use crate::error::Result;

/// A detection of category 1 in image 1.
fn found(score: f64, bbox: [f64; 4]) -> Detection {
    Detection { image: 1, category: 1, score, bbox }
}

/// An object of category 1 in image 1, as large as its box.
fn object(bbox: [f64; 4]) -> Annotation {
    Annotation { image: 1, category: 1, bbox, area: bbox[2] * bbox[3], crowd: false }
}

fn truth(annotations: Vec<Annotation>) -> Truth {
    let images = [1, 2].map(|id| Image { id, file_name: String::new() }).to_vec();
    let categories = [2, 1].map(|id| Category { id, name: String::new() }).to_vec();
    Truth::new(images, categories, annotations).unwrap()
}

fn figure(name: &str, objects: Vec<Annotation>, detections: &[Detection]) -> Option<f64> {
    truth(objects).figures(&[1, 2], detections).unwrap().get(name)
}

fn near(found: Option<f64>, want: f64) {
    assert!(found.is_some_and(|f| (f - want).abs() < 1e-9), "{found:?}, expected {want}");
}

const A: [f64; 4] = [0.0, 0.0, 40.0, 40.0];
const B: [f64; 4] = [100.0, 0.0, 40.0, 40.0];

#[test]
fn what_is_found_is_100() {
    let figures = truth(vec![object(A)]).figures(&[1], &[found(0.3, A)]).unwrap();
    let want = ["ap", "ap50", "ap75", "ap_m", "ar1", "ar10", "ar100", "ar_m"].map(|name| (name, 100.0));
    assert_eq!(figures.iter().collect::<Vec<_>>(), want);
    assert_eq!(figures.get("top1"), None);
    assert!(figures.to_string().starts_with("ap 100.00 %, ap50 100.00 %"), "{figures}");
}

#[test]
fn precision_is_the_best_at_a_recall_or_a_larger_one() {
    // Right, wrong, right: precision 1 up to recall 1/2, then 2/3 up to 1; 51 and 50 of the 101 recalls.
    let far = [300.0, 300.0, 40.0, 40.0];
    let detections = [found(0.9, A), found(0.8, far), found(0.7, B)];
    near(figure("ap50", vec![object(A), object(B)], &detections), 100.0 * (51.0 + 50.0 * 2.0 / 3.0) / 101.0);
    // Wrong first: 1/2 everywhere up to recall 1/2.
    near(figure("ap50", vec![object(A), object(B)], &[found(0.9, far), found(0.7, B)]), 100.0 * 51.0 / 2.0 / 101.0);
    near(figure("ar1", vec![object(A), object(B)], &detections), 50.0);
}

#[test]
fn an_object_is_found_once() {
    // The second detection of the same object is wrong.
    near(figure("ap50", vec![object(A), object(B)], &[found(0.9, A), found(0.8, A), found(0.7, B)]), {
        100.0 * (51.0 + 50.0 * 2.0 / 3.0) / 101.0
    });
    // Of two objects that fit, a detection takes the one that it overlaps more.
    let shifted = [2.0, 0.0, 40.0, 40.0];
    near(figure("ap", vec![object(shifted), object(A)], &[found(0.9, A), found(0.8, shifted)]), 100.0);
}

#[test]
fn overlaps_decide_at_which_thresholds_a_detection_is_right() {
    // 40 x 30 of 40 x 40: 0.75 exactly, which counts at 0.75.
    let detections = [found(0.9, [0.0, 0.0, 40.0, 30.0])];
    near(figure("ap", vec![object(A)], &detections), 60.0);
    near(figure("ap75", vec![object(A)], &detections), 100.0);
    near(figure("ar100", vec![object(A)], &detections), 60.0);
}

#[test]
fn crowds_make_nothing_wrong_and_are_no_objects() {
    let crowd = Annotation { crowd: true, ..object([0.0, 0.0, 400.0, 400.0]) };
    // Both small boxes lie in the crowd; the object that counts goes first.
    let detections = [found(0.9, [200.0, 200.0, 20.0, 20.0]), found(0.8, [250.0, 200.0, 20.0, 20.0]), found(0.7, B)];
    near(figure("ap", vec![crowd.clone(), object(B)], &detections), 100.0);
    assert_eq!(figure("ap", vec![crowd], &detections), None);
}

#[test]
fn sizes_are_by_area_and_what_lies_outside_is_ignored() {
    // A box of 40 x 40 whose outline is small.
    let small = Annotation { area: 1024.0, ..object(A) };
    let medium = Annotation { area: 1024.5, ..object(B) };
    let detections = [found(0.9, B), found(0.8, A), found(0.7, [300.0, 300.0, 200.0, 200.0])];
    let objects = vec![small.clone(), medium.clone()];
    near(figure("ap_s", objects.clone(), &detections), 100.0);
    near(figure("ap_m", objects.clone(), &detections), 100.0);
    assert_eq!((figure("ap_l", objects.clone(), &detections), figure("ar_l", objects, &detections)), (None, None));
    // An unmatched detection counts in the range of its own box: this one is large.
    let detections = [found(0.95, [300.0, 300.0, 200.0, 200.0]), found(0.9, B), found(0.8, A)];
    near(figure("ap_s", vec![small, medium], &detections), 100.0);
}

#[test]
fn equal_scores_keep_their_order() {
    let far = [300.0, 300.0, 40.0, 40.0];
    near(figure("ap50", vec![object(A)], &[found(0.5, A), found(0.5, far)]), 100.0);
    near(figure("ap50", vec![object(A)], &[found(0.5, far), found(0.5, A)]), 50.0);
}

#[test]
fn only_the_images_that_were_looked_at_count() {
    let elsewhere = Annotation { image: 2, ..object(A) };
    let truth = truth(vec![object(A), elsewhere]);
    near(truth.figures(&[1], &[found(0.9, A)]).unwrap().get("ap"), 100.0);
    near(truth.figures(&[1, 2], &[found(0.9, A)]).unwrap().get("ap"), 100.0 * 51.0 / 101.0);
    assert_eq!(truth.figures(&[1], &[Detection { image: 2, ..found(0.9, A) }]).unwrap().get("ap"), Some(0.0));
    assert_eq!(truth.annotations(2).len(), 1);
    assert!(truth.figures(&[3], &[]).unwrap_err().to_string().starts_with("no image has the id 3; images and"));
}

const IMAGES: &str = r#""images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 3, "name": "cat"}]"#;

fn parsed(annotations: &str) -> Result<Truth> {
    Truth::parse(format!("{{{IMAGES}, \"annotations\": [{annotations}]}}").as_bytes())
}

#[test]
fn files_are_read_whatever_else_is_in_them() {
    let one =
        r#"{"id": 5.0, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3.5, 4], "area": 9, "segmentation": [[1, 2]]}"#;
    let truth = parsed(one).unwrap();
    let want = Annotation { image: 1, category: 3, bbox: [1.0, 2.0, 3.5, 4.0], area: 9.0, crowd: false };
    assert_eq!(truth.annotations(1), [want]);
    assert_eq!((truth.images()[0].file_name.as_str(), truth.categories()[0].name.as_str()), ("a.jpg", "cat"));
    let text = format!("\u{feff} {{\"info\": {{}}, {IMAGES}, \"annotations\": []}} ");
    assert!(Truth::parse(text.as_bytes()).unwrap().annotations(1).is_empty());
    let found = truth.detections(br#"[{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]"#).unwrap();
    assert_eq!(found, [Detection { image: 1, category: 3, score: 1.0, bbox: [1.0, 2.0, 3.0, 4.0] }]);
    assert_eq!(truth.detections(b" [] ").unwrap(), []);
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    let object = |fields: &str| format!("{{\"id\": 5, {fields}}}");
    let good = r#""image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 9"#;
    for (annotations, want) in [
        (object(&good.replace("\"area\": 9", "\"x\": 9")), "annotations[0]: the field `area` is missing"),
        (object(&good.replace("area\": 9", "area\": -9")), "annotations[0]: expected an area of 0 or more, got -9"),
        (object(&good.replace("image_id\": 1", "image_id\": 2")), "annotations[0]: no image has the id 2; images and"),
        (object(&good.replace("category_id\": 3", "category_id\": 0")), "annotations[0]: no category has the id 0; "),
        (object(&good.replace("3, 4]", "-3, 4]")), "annotations[0]: expected a box of finite numbers with a width"),
        (
            object(&good.replace("3, 4]", "3]")),
            "annotations[0]: expected four numbers (left, top, width, height) in the field `bbox`, got [1,2,3]",
        ),
        (object(&good.replace("4]", "null]")), "annotations[0]: expected four numbers"),
        (object(&good.replace("4]", "NaN]")), "cannot read the file: expected value at line 1 column"),
        (object(&good.replace("4]", "1e999]")), "cannot read the file: number out of range at line 1 column"),
        (
            object(&good.replace("image_id\": 1", "image_id\": \"1\"")),
            "annotations[0]: expected an integer in the field `image_id`, got \"1\"",
        ),
        (object(&format!("{good}, \"iscrowd\": 2")), "annotations[0]: expected 0 or 1 in the field `iscrowd`, got 2"),
        (format!("{}, {}", object(good), object(good)), "annotations[1]: the id 5 is used twice"),
        (format!("{}, 7", object(good)), "annotations[1]: expected an object, got a number"),
        ("[1, [2]]".into(), "annotations[0]: expected an object, got a list"),
    ] {
        let error = parsed(&annotations).unwrap_err().to_string();
        assert!(error.starts_with(want), "{annotations}: {error}");
    }
    for (file, want) in [
        ("", "expected an object with the lists `images`, `categories`, `annotations`; give an annotation file"),
        ("[]", "expected an object with the lists"),
        ("{", "cannot read the file: EOF while parsing"),
        (r#"{"images": [], "annotations": []}"#, "the list `categories` is missing; give an annotation file of COCO"),
        (r#"{"images": [], "categories": [], "annotations": []}"#, "the set has no categories"),
        (r#"{"images": 5}"#, "cannot read the file: invalid type: integer `5`, expected a list of objects in `images`"),
        (
            r#"{"images": [{"id": 1}, {"id": 1}], "categories": [{"id": 1}], "annotations": []}"#,
            "images[1]: the id 1 is used twice",
        ),
    ] {
        let error = Truth::parse(file.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(want), "{file}: {error}");
    }
}

#[test]
fn detections_must_fit_the_set() {
    let truth = parsed("").unwrap();
    let refused = |file: &str| truth.detections(file.as_bytes()).unwrap_err().to_string();
    let good = r#"{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}"#;
    for (file, want) in [
        ("{}".to_string(), "expected a list of detections; a file of results of COCO is a list of objects with"),
        (format!("[{good}, null]"), "detections[1]: expected an object, got null"),
        (format!("[{good}, {}]", good.replace("score", "conf")), "detections[1]: the field `score` is missing"),
        (
            format!("[{good}, {}]", good.replace("0.5", "\"high\"")),
            "detections[1]: expected a number in the field `score`",
        ),
        (
            format!("[{}]", good.replace("3, \"bbox", "0, \"bbox")),
            "detections[0]: no category has the id 0; images and",
        ),
        (format!("[{good}"), "cannot read the file: EOF while parsing a list"),
    ] {
        let error = refused(&file);
        assert!(error.starts_with(want), "{file}: {error}");
    }
    let error = truth.figures(&[1], &[Detection { category: 3, ..found(f64::NAN, A) }]).unwrap_err();
    assert_eq!(error.to_string(), "detections[0]: expected a finite score, got NaN");
}

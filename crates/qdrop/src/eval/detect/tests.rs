use super::*;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest difference of a coordinate, in pixels: sums and exponentials are single precision.
const PIXELS: f32 = 2e-3;
/// Largest difference of a score.
const SCORE: f32 = 2e-5;

#[derive(Deserialize)]
struct Recorded {
    name: String,
    family: String,
    canvas: (usize, usize),
    classes: usize,
    outputs: Vec<Values>,
    found: Vec<[f32; 6]>,
}

#[derive(Deserialize)]
struct Values {
    name: String,
    shape: Vec<usize>,
    integer: bool,
    values: Vec<f32>,
}

impl Recorded {
    fn outputs(&self) -> Vec<Output<'_>> {
        self.outputs.iter().map(|o| Output { name: &o.name, shape: &o.shape, integer: o.integer }).collect()
    }

    fn recognise(&self, classes: Option<usize>, family: Option<Family>) -> Result<Detector> {
        Detector::recognise(&self.outputs(), self.canvas, classes, family)
    }

    fn values(&self, detector: &Detector) -> Vec<&[f32]> {
        detector.outputs().iter().map(|&i| &self.outputs[i].values[..]).collect()
    }

    /// That `detector` finds what was recorded.
    fn compare(&self, detector: &Detector) {
        let found = detector.decode(&self.values(detector)).unwrap();
        assert_eq!(found.len(), self.found.len(), "{}", self.name);
        for (i, (found, &[left, top, right, bottom, class, score])) in found.iter().zip(&self.found).enumerate() {
            let near = found.bbox.iter().zip([left, top, right, bottom]).all(|(a, b)| (a - b).abs() < PIXELS);
            let same = found.class == class as usize && (found.score - score).abs() < SCORE;
            assert!(near && same, "{}: detection {i} is {found:?}, expected {:?}", self.name, self.found[i]);
        }
    }
}

fn recorded() -> Vec<Recorded> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/detect.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn named(name: &str) -> Recorded {
    recorded().into_iter().find(|r| r.name == name).unwrap()
}

#[test]
fn every_family_is_recognised_and_decoded_as_recorded() {
    let mut seen = Vec::new();
    for one in recorded() {
        let family: Family = one.family.parse().unwrap();
        let mut detector = one.recognise(Some(one.classes), None).unwrap();
        // Undecided or not, the values tell.
        one.compare(&detector);
        detector.settle(&one.values(&detector)).unwrap();
        assert_eq!(detector.family(), family, "{}: {detector}", one.name);
        one.compare(&detector);
        // The same when asked for.
        one.compare(&one.recognise(Some(one.classes), Some(family)).unwrap());
        if detector.classes().is_some() {
            assert_eq!(detector.classes(), Some(one.classes), "{}", one.name);
        }
        seen.push(family);
    }
    assert!(Family::ALL.iter().all(|f| seen.contains(f)), "{seen:?}");
}

#[test]
fn every_element_has_the_best_score_of_its_cell() {
    for recorded in recorded() {
        let mut detector = recorded.recognise(Some(recorded.classes), None).unwrap();
        let values = recorded.values(&detector);
        detector.settle(&values).unwrap();
        let scores = detector.scores(&values).unwrap();
        if detector.family() == Family::EndToEnd {
            assert!(scores.is_empty(), "{}", recorded.name);
            continue;
        }
        assert!(scores.iter().map(Vec::len).eq(values.iter().map(|v| v.len())), "{}", recorded.name);
        let best = scores.iter().flatten().copied().fold(0.0, f32::max);
        let first = detector.decode(&values).unwrap()[0];
        // FCOS multiplies scores by how central a cell is.
        let central = detector.family() == Family::Fcos && best >= first.score * first.score;
        assert!(central || (best - first.score).abs() < SCORE, "{}: {best}, found {}", recorded.name, first.score);
        // All cells have equally many elements.
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        scores.iter().flatten().for_each(|s| *counts.entry(s.to_bits()).or_default() += 1);
        let each = *counts.values().min().unwrap();
        assert!(each > 4 && counts.values().all(|n| n % each == 0), "{}: {counts:?}", recorded.name);
        if detector.family() == Family::Fcos {
            continue;
        }
        // The best box is made of the elements with the best score.
        let moved: Vec<Vec<f32>> = values
            .iter()
            .zip(&scores)
            .map(|(v, s)| v.iter().zip(s).map(|(&v, &s)| if s == best { v * 0.9 } else { v }).collect())
            .collect();
        let moved = detector.decode(&moved.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        assert!(!moved.contains(&first), "{}: {first:?}", recorded.name);
    }
}

#[test]
fn cells_are_told_from_pixels_by_where_boxes_lie() {
    for (name, raw) in [("yolox", true), ("yolox decoded", false)] {
        let one = named(name);
        let mut detector = one.recognise(None, None).unwrap();
        let told = detector.to_string();
        assert!(
            told.starts_with("yolox: `output` [1, 126, 8] with a box (in pixels or not: the values tell), "),
            "{told}"
        );
        detector.settle(&one.values(&detector)).unwrap();
        let want = if raw {
            "yolox: `output` [1, 126, 8] with offsets, objectness and 3 scores for each cell"
        } else {
            "yolox-decoded: `output`"
        };
        assert!(detector.to_string().starts_with(want), "{detector}");
        // A family that was asked for stays, whatever the values are.
        for family in [Family::Yolox, Family::YoloxDecoded] {
            let mut asked = one.recognise(None, Some(family)).unwrap();
            asked.settle(&one.values(&asked)).unwrap();
            assert_eq!(asked.family(), family);
        }
    }
}

#[test]
fn coefficients_of_masks_are_no_scores() {
    const MASKS: usize = 2;
    for name in ["yolov5", "yolov8", "yolov8 by row", "ultralytics end to end"] {
        let mut one = named(name);
        let [_, rows, columns] = one.outputs[0].shape[..] else { panic!("{name}") };
        let by_channel = name == "yolov8";
        let extra = |values: &[f32], n: usize| [values, &vec![7.0; n]].concat();
        let output = &mut one.outputs[0];
        if by_channel {
            output.values = extra(&output.values, MASKS * columns);
            output.shape = vec![1, rows + MASKS, columns];
        } else {
            output.values = output.values.chunks(columns).flat_map(|row| extra(row, MASKS)).collect();
            output.shape = vec![1, rows, columns + MASKS];
        }
        let shape = vec![1, MASKS, one.canvas.0 / 4, one.canvas.1 / 4];
        one.outputs.push(Values { name: "prototypes".into(), shape, integer: false, values: Vec::new() });
        let detector = one.recognise(Some(one.classes), None).unwrap();
        assert!(detector.to_string().contains("2 coefficients of masks, which are not read, for "), "{detector}");
        assert_eq!(detector.family(), one.family.parse().unwrap());
        one.compare(&detector);
    }
}

#[test]
fn channels_that_are_no_scores_are_refused() {
    let mut one = named("yolov8");
    let cells = one.outputs[0].shape[2];
    // The angle of a box behind its scores.
    one.outputs[0].values.extend((0..cells).map(|i| -0.7 + i as f32 / cells as f32));
    one.outputs[0].shape[1] += 1;
    let detector = one.recognise(None, None).unwrap();
    let error = detector.decode(&one.values(&detector)).unwrap_err().to_string();
    let want = "outputs of family `yolov8`: expected scores from 0 to 1 behind a box, got -0.7 in channel 7; channels that hold";
    assert!(error.starts_with(want), "{error}");
}

fn family(shapes: &[&[usize]], canvas: usize, classes: Option<usize>) -> Result<String> {
    let outputs: Vec<Output> = shapes.iter().map(|s| Output { name: "o", shape: s, integer: false }).collect();
    Detector::recognise(&outputs, (canvas, canvas), classes, None).map(|d| d.family().to_string())
}

#[test]
fn files_as_they_are_exported_are_told_apart() {
    let retina: Vec<[usize; 3]> = [100, 50, 25, 13, 7].map(|n| [1, 9 * n * n, 91]).to_vec();
    let boxes: Vec<[usize; 3]> = retina.iter().map(|s| [1, s[1], 4]).collect();
    let by_level: Vec<&[usize]> = retina.iter().chain(&boxes).map(|s| &s[..]).collect();
    let all: usize = retina.iter().map(|s| s[1]).sum();
    let (scores, all_boxes, points) = ([1, all, 91], [1, all, 4], all / 9);
    let pico =
        [3600usize, 900, 225, 64].map(|n| if n == 64 { [[1, 64, 80], [1, 64, 32]] } else { [[1, n, 80], [1, n, 32]] });
    let pico: Vec<[usize; 3]> = pico.iter().map(|p| p[0]).chain(pico.iter().map(|p| p[1])).collect();
    let pico: Vec<&[usize]> = pico.iter().map(|s| &s[..]).collect();
    let cases: [(&[&[usize]], usize, &str); 19] = [
        (&[&[1, 3549, 85]], 416, "yolox"),
        (&[&[1, 8400, 85]], 640, "yolox"),
        (&[&[1, 25200, 85]], 640, "yolov5"),
        (&[&[1, 25200, 85], &[1, 3, 80, 80, 85], &[1, 3, 40, 40, 85], &[1, 3, 20, 20, 85]], 640, "yolov5"),
        (&[&[1, 102000, 85]], 1280, "yolov5"),
        (&[&[1, 84, 8400]], 640, "yolov8"),
        (&[&[1, 8400, 84]], 640, "yolov8"),
        (&[&[1, 2100, 112]], 320, "nanodet"),
        (&[&[1, 3598, 112]], 416, "nanodet"),
        (&pico, 480, "picodet"),
        (&[&scores, &all_boxes], 800, "retinanet"),
        (&by_level, 800, "retinanet"),
        (&[&[1, points, 91], &[1, points, 4], &[1, points, 1]], 800, "fcos"),
        (&[&[1, 100, 92], &[1, 100, 4]], 800, "detr"),
        (&[&[1, 300, 4], &[1, 300, 80]], 640, "rt-detr"),
        (&[&[1, 300, 91], &[1, 300, 4]], 800, "rt-detr"),
        (&[&[1, 300, 84]], 640, "rt-detr"),
        (&[&[1, 300, 6]], 640, "end-to-end"),
        (&[&[0, 7]], 640, "end-to-end"),
    ];
    for (shapes, canvas, want) in cases {
        let found = family(shapes, canvas, Some(80));
        assert_eq!(found.as_deref().unwrap_or("none"), want, "{shapes:?}");
        // Without a set most are told all the same.
        if !shapes.iter().any(|s| s.ends_with(&[8400, 84]) || s.ends_with(&[300, 84])) {
            assert_eq!(family(shapes, canvas, None).unwrap(), want, "{shapes:?}");
        }
    }
}

#[test]
fn what_is_no_detector_is_refused_with_what_was_found() {
    let error = family(&[&[1, 1000]], 224, Some(80)).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(
        error.message(),
        "the outputs are those of no known family of detectors for an input of 224 x 224: `o` [1, 1000]"
    );
    assert!(Family::ALL.iter().all(|f| text.contains(&format!("{f}: "))) && text.contains("--detections"), "{text}");
    // Maps of heads that nothing decodes.
    for shapes in [
        [&[1, 255, 80, 80][..], &[1, 255, 40, 40], &[1, 255, 20, 20]],
        [&[1, 3, 80, 80, 85][..], &[1, 3, 40, 40, 85], &[1, 3, 20, 20, 85]],
    ] {
        let error = family(&shapes, 640, Some(80)).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "the outputs are maps of heads, whose anchors and scales the file does not tell: `o` [1, "
            )
        );
        assert!(error.ends_with("give it with --detections"), "{error}");
    }
    assert!(!family(&[&[1, 21, 640, 640]], 640, None).unwrap_err().message().contains("maps of heads"));
    // The rows of another canvas.
    assert!(family(&[&[1, 3549, 85]], 640, Some(80)).is_err());
    let outputs = [Output { name: "o", shape: &[1, 3549, 85], integer: false }];
    let error = Detector::recognise(&outputs, (416, 416), Some(80), Some(Family::Detr)).unwrap_err().to_string();
    let want = "the outputs are not those of family `detr` for an input of 416 x 416: `o` [1, 3549, 85]; expected detr: [1, queries, C+1]";
    assert!(error.starts_with(want), "{error}");
    assert!(Detector::recognise(&[], (416, 416), None, None).unwrap_err().message().ends_with(": none"));
    // No size is too odd to look at.
    for shape in [&[1, 0, 0][..], &[], &[0], &[1, 1, usize::MAX], &[1, usize::MAX, 7]] {
        for canvas in [(0, 0), (1, 1), (32, 0)] {
            for family in Family::ALL.map(Some).into_iter().chain([None]) {
                let outputs = [Output { name: "o", shape, integer: false }; 3];
                let _ = Detector::recognise(&outputs, canvas, Some(2), family);
            }
        }
    }
    let names = "yolo".parse::<Family>().unwrap_err().to_string();
    assert!(
        names.starts_with("expected one of the families yolox, yolox-decoded, yolov5, ")
            && names.ends_with("got `yolo`")
    );
    assert_eq!(("YOLOv7".parse().unwrap(), "RT_DETR".parse().unwrap()), (Family::Yolov5, Family::RtDetr));
}

#[test]
fn bad_values_are_refused_and_huge_boxes_left_out() {
    let one = named("yolox");
    let detector = one.recognise(Some(3), None).unwrap();
    let mut values = one.outputs[0].values.clone();
    let error = detector.decode(&[&values[1..]]).unwrap_err().to_string();
    assert_eq!(error, "outputs of family `yolox`: expected outputs of [1008] elements, got [1007]");
    assert!(detector.decode(&[]).is_err());
    values[7] = f32::NAN;
    assert_eq!(detector.decode(&[&values]).unwrap_err().kind(), Kind::Numeric);
    let all = detector.decode(&[&one.outputs[0].values]).unwrap();
    values.copy_from_slice(&one.outputs[0].values);
    values.chunks_mut(8).for_each(|row| row[2] = 1000.0);
    assert!(detector.decode(&[&values]).unwrap().is_empty() && !all.is_empty());
}

#[test]
fn classes_name_categories() {
    // COCO has 80 categories with numbers up to 90, with gaps.
    let coco: Vec<i64> = (1..=90).filter(|n| ![12, 26, 29, 30, 45, 66, 68, 69, 71, 83].contains(n)).collect();
    let of = |shapes: &[&[usize]], canvas: usize, categories: &[i64]| {
        let outputs: Vec<Output> =
            shapes.iter().map(|s| Output { name: "label", shape: s, integer: s.len() == 1 }).collect();
        let detector = Detector::recognise(&outputs, (canvas, canvas), Some(categories.len()), None).unwrap();
        Numbering::new(&detector, categories.iter().rev().copied())
    };
    let yolo = of(&[&[1, 3549, 85]], 416, &coco).unwrap();
    assert_eq!([0, 11, 79, 80].map(|c| yolo.category(c)), [Some(1), Some(13), Some(90), None]);
    let detr = of(&[&[1, 100, 92], &[1, 100, 4]], 800, &coco).unwrap();
    assert_eq!([0, 1, 12, 90].map(|c| detr.category(c)), [None, Some(1), None, Some(90)]);
    let rows = of(&[&[1, 300, 6]], 640, &coco).unwrap();
    assert_eq!(rows.category(79), Some(90));
    // Two categories behind a background.
    let cells = 8 * 8 + 4 * 4 + 2 * 2 + 1 + 1;
    let three = of(&[&[1, 9 * cells, 3], &[1, 9 * cells, 4]], 64, &[500, 7]).unwrap();
    assert_eq!([0, 1, 2].map(|c| three.category(c)), [None, Some(7), Some(500)]);
    let error = of(&[&[1, 3549, 25]], 416, &coco).unwrap_err().to_string();
    assert!(
        error.starts_with("the network tells 20 classes apart, the set has 80 categories with numbers up to 90"),
        "{error}"
    );
}

#[test]
fn torchvisions_labels_are_numbers_of_categories() {
    let one = named("torchvision");
    let detector = one.recognise(None, None).unwrap();
    assert!(detector.names_categories() && detector.classes().is_none());
    let numbering = Numbering::new(&detector, [1, 18]).unwrap();
    assert_eq!([1, 2, 18].map(|c| numbering.category(c)), [Some(1), None, Some(18)]);
    let mut detector = named("rt-detr end to end").recognise(None, None).unwrap();
    assert!(!detector.names_categories() && !detector.clips());
    // Final boxes may be any number, none included.
    detector.settle(&[&[], &[], &[]]).unwrap();
    assert!(detector.decode(&[&[], &[], &[]]).unwrap().is_empty());
    assert!(detector.decode(&[&[0.0; 4], &[], &[]]).is_err());
}

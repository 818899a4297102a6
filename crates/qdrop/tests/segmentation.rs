//! The figures of segmentation against numpy, on label maps as Pillow writes and reads them.
//!
//! `QDROP_PYTHON` names the interpreter; without it this test is skipped, or fails when `QDROP_REQUIRE_PYTHON=1`.

use qdrop::graph::{Dim, Fact, Graph, Node, Op, Padding, Window};
use qdrop::plan::{Canvas, PadPlace, Task};
use qdrop::report::{Score, Silent};
use qdrop::tensor::{DType, Tensor};
use qdrop::{Dataset, Model, Recipe, onnx};
use qdrop_testing::python;
use std::path::Path;
use std::process::Command;

/// Largest difference of a figure, in per cent.
const TOLERANCE: f64 = 1e-9;
/// Side of the network's input, and pixels per cell of its output.
const SIDE: usize = 32;
const STRIDE: i64 = 2;
const CLASSES: usize = 5;

/// Whole numbers, so that scores and what is interpolated between them are exact; every class has the largest score somewhere.
fn weights() -> Vec<f32> {
    [[2, -1, -1], [-1, 2, -1], [-1, -1, 2], [1, -2, 1], [1, 1, -2]]
        .concat()
        .into_iter()
        .map(|w: i8| f32::from(w))
        .collect()
}

fn network() -> Graph {
    let mut g = Graph { opset: 17, ..Graph::default() };
    let shape = [1, 3, SIDE, SIDE].map(Dim::Known).to_vec();
    let x = g.add_value("input", Fact { dtype: Some(DType::F32), shape: Some(shape) });
    let weight = g.add_constant("weight", Tensor::f32(&[CLASSES, 3, 1, 1], weights()));
    let y = g.add_value("scores", Fact::default());
    let window = Window {
        kernel: vec![1; 2],
        strides: vec![STRIDE; 2],
        dilations: vec![1; 2],
        padding: Padding::Explicit(vec![0; 4]),
    };
    g.nodes.push(Node::new("conv", Op::Conv { window, group: 1 }, &[x, weight], &[y]));
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    g
}

/// Writes images of several shapes, and their label maps in every form.
const DRAW: &str = r#"
import pathlib, sys
import numpy as np
from PIL import Image
out, side, classes = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for name in ["images", "labels"]:
    (out / name).mkdir()
voc = np.zeros((256, 3), np.uint8)
for i in range(256):
    c = i
    for j in range(8):
        for k in range(3):
            voc[i, k] |= ((c >> k) & 1) << (7 - j)
        c >>= 3
rng = np.random.default_rng(5)
sizes = [(side, side), (side - 8, side), (side, side - 8), (side - 16, side), (side, side)]
for i, (h, w) in enumerate(sizes):
    Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(out / f"images/{i}.png")
    truth = rng.integers(0, classes + 1, (h, w)).astype(np.uint8)
    truth[truth == classes] = 255
    path = out / f"labels/{i}.png"
    if i == 0 or i == 3:
        image = Image.fromarray(np.minimum(truth, 15) if i == 3 else truth)
        image = image.convert("L"); image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(voc[:16 if i == 3 else 256].tobytes())
        image.save(path, **({"bits": 4} if i == 3 else {}))
    elif i == 1:
        Image.fromarray(truth).save(path)
    elif i == 2:
        Image.fromarray(truth.astype(np.uint16)).save(path)
    else:
        Image.fromarray(voc[truth]).save(path)
"#;

/// The figures of the network's classes, by one confusion matrix: the scores of the part that shows the image are upsampled
/// as torch.nn.functional.interpolate(mode="bilinear") does.
const JUDGE: &str = r#"
import json, pathlib, sys
import numpy as np
from PIL import Image
out, side, stride, classes = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:5])
weights = np.array(json.loads(sys.argv[5])).reshape(classes, 3)
ignored = json.loads(sys.argv[6])
colors = {}
for i in range(256):
    color, c = [0, 0, 0], i
    for j in range(8):
        for k in range(3):
            color[k] |= ((c >> k) & 1) << (7 - j)
        c >>= 3
    colors[tuple(color)] = i
def along(x, n):
    at = np.clip((np.arange(n) + .5) * x.shape[1] / n - .5, 0, None)
    a = np.floor(at).astype(int)
    b = np.minimum(a + 1, x.shape[1] - 1)
    t = (at - a)[None, :, None]
    return x[:, a] * (1 - t) + x[:, b] * t
matrix = np.zeros((classes, classes), np.int64)
for path in sorted((out / "images").iterdir()):
    image = np.array(Image.open(path)).astype(np.float64)
    label = Image.open(out / "labels" / path.name)
    truth = np.array(label)
    if label.mode == "RGB":
        truth = np.array([[colors[tuple(p)] for p in row] for row in truth.tolist()])
    h, w = truth.shape
    canvas = np.zeros((side, side, 3))
    top, left = (side - h) // 2, (side - w) // 2
    canvas[top:top + h, left:left + w] = image
    scores = (canvas[::stride, ::stride] @ weights.T).transpose(2, 0, 1)
    scores = scores[:, top // stride:(top + h) // stride, left // stride:(left + w) // stride]
    scores = along(along(scores, h).transpose(0, 2, 1), w).transpose(0, 2, 1)
    predicted = scores.argmax(0)
    counted = (truth != 255) & ~np.isin(truth, ignored)
    np.add.at(matrix, (truth[counted], predicted[counted]), 1)
both, rows, columns = np.diag(matrix), matrix.sum(1), matrix.sum(0)
kept = [c for c in range(classes) if c not in ignored and rows[c] + columns[c] > 0]
iou = {c: float(100 * both[c] / (rows[c] + columns[c] - both[c])) for c in kept}
recall = [100 * both[c] / rows[c] for c in kept if rows[c]]
print(json.dumps([float(np.mean(list(iou.values()))), float(100 * both.sum() / matrix.sum()), float(np.mean(recall)), list(iou.items())]))
"#;

fn run(python: &Path, script: &str, arguments: &[&str]) -> String {
    let out = Command::new(python).arg("-c").arg(script).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn measured(dir: &Path, ignored: &[u16]) -> Score {
    let model = Model::open(dir.join("network.onnx")).unwrap();
    let mut recipe = Recipe::default();
    recipe.input.task = Some(Task::Segmentation);
    recipe.input.labels = Some(dir.join("labels").display().to_string());
    recipe.input.ignore_labels = ignored.to_vec();
    recipe.input.letterbox = Some(Canvas::Network);
    recipe.input.pad_place = Some(PadPlace::Center);
    let samples = Dataset::open(dir.join("images"), &model, &recipe, None, &Silent).unwrap();
    model.evaluate(&samples, &recipe, &mut Silent).unwrap()
}

#[test]
fn numpy_agrees_on_the_same_files() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    onnx::write(&network(), &dir.join("network.onnx")).unwrap();
    let (out, weights) = (dir.display().to_string(), serde_json::to_string(&weights()).unwrap());
    let [side, stride, classes] = [SIDE, STRIDE as usize, CLASSES].map(|n| n.to_string());
    run(&python, DRAW, &[&out, &side, &classes]);
    // What stands for "no class" in 4 bits.
    for ignored in [&[15][..], &[15, 2]] {
        let numbers = serde_json::to_string(ignored).unwrap();
        let told = run(&python, JUDGE, &[&out, &side, &stride, &classes, &weights, &numbers]);
        type Told = (f64, f64, f64, Vec<(usize, f64)>);
        let (miou, pixel_accuracy, mean_accuracy, classes): Told = serde_json::from_str(&told).unwrap();
        let found = measured(dir, ignored);
        for (metric, want) in [("miou", miou), ("pixel_accuracy", pixel_accuracy), ("mean_accuracy", mean_accuracy)] {
            assert!((found.metrics[metric] - want).abs() < TOLERANCE, "{metric}: {found:?}, by numpy {want}");
        }
        assert_eq!(found.samples, 5);
        assert_eq!(
            found.classes.iter().map(|c| c.class).collect::<Vec<_>>(),
            classes.iter().map(|c| c.0).collect::<Vec<_>>()
        );
        assert!(found.classes.iter().zip(classes).all(|(c, want)| (c.iou - want.1).abs() < TOLERANCE), "{found:?}");
    }
}

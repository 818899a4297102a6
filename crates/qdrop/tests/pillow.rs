//! Images as Pillow, torchvision and OpenCV read and prepare them, judged by a Python interpreter with Pillow, numpy and,
//! for the detectors that use it, OpenCV.
//!
//! `QDROP_PYTHON` names the interpreter; without it these tests are skipped, or fail when `QDROP_REQUIRE_PYTHON=1`.
//! Photographs come from the shared data (`QDROP_SHARED`, else `../shared`), demanded by `QDROP_REQUIRE_SHARED=1`.

use qdrop::data::{self, Prepare, Samples, Subset};
use qdrop::plan::Canvas;
use qdrop_testing::{python, python_with, shared};
use std::path::Path;
use std::process::Command;

fn run(python: &Path, script: &str, arguments: &[&Path]) {
    let out = Command::new(python).arg("-c").arg(script).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn values(samples: &dyn Samples, index: usize) -> Vec<f32> {
    samples.get(index).unwrap()[0].to_f32().unwrap()
}

/// Writes images of every mode, and what Pillow makes of them.
const MODES: &str = r#"
import sys, pathlib, numpy as np
from PIL import Image
out = pathlib.Path(sys.argv[1]); images = out / "images"; images.mkdir()
rng = np.random.default_rng(0)
h, w = 61, 47
rgb = Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
a = Image.fromarray(rng.integers(0, 256, (h, w), dtype=np.uint8))
rgba = rgb.copy(); rgba.putalpha(a)
la = rgb.convert("L"); la.putalpha(a)
wide = Image.fromarray(rng.integers(0, 700, (h, w), dtype=np.uint16))
palette = rgb.quantize(17)
for name, image, options in [
    ("bmp_l.bmp", a, {}), ("bmp_p.bmp", palette, {}), ("bmp_rgb.bmp", rgb, {}),
    ("png_1.png", a.convert("1"), {}), ("png_i16.png", wide, {}), ("png_l.png", a, {}), ("png_la.png", la, {}),
    ("png_p.png", palette, {}), ("png_p2.png", rgb.quantize(3), {}), ("png_pt.png", palette, {"transparency": 3}),
    ("png_rgb.png", rgb, {}), ("png_rgba.png", rgba, {}), ("png_rgbt.png", rgb, {"transparency": (1, 2, 3)}),
    ("jpg_cmyk.jpg", rgb.convert("CMYK"), {"quality": 90}), ("jpg_l.jpg", a, {}), ("jpg_420.jpg", rgb, {}),
    ("jpg_422.jpg", rgb, {"subsampling": 1, "quality": 30}), ("jpg_444.jpg", rgb, {"subsampling": 0, "quality": 98}),
    ("jpg_progressive.jpg", rgb, {"progressive": True}), ("jpg_restart.jpg", rgb, {"restart_marker_blocks": 3}),
    ("jpg_rgb.jpg", rgb, {"keep_rgb": True}),
    ("webp_rgb.webp", rgb, {"lossless": True}), ("webp_rgba.webp", rgba, {"lossless": True, "exact": True}),
]:
    image.save(images / name, **options)
def crop(image, side):
    w, h = image.size
    return image.crop((round((w - side) / 2), round((h - side) / 2), round((w - side) / 2) + side, round((h - side) / 2) + side))
mean = np.array([.485, .456, .406], np.float32); std = np.array([.229, .224, .225], np.float32)
raw, gray, net = [], [], []
for path in sorted(images.iterdir()):
    image = Image.open(path)
    raw.append(np.array(image.convert("RGB")).transpose(2, 0, 1))
    gray.append(np.array(image.convert("L"))[None])
    small = crop(image.convert("RGB").resize((38, 38 * h // w), Image.BILINEAR), 32)
    net.append(((np.array(small).astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1))
for name, rows in [("raw", raw), ("gray", gray), ("net", net)]:
    np.save(out / f"{name}.npy", np.stack(rows))
"#;

#[test]
fn every_mode_equals_pillow() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    run(&python, MODES, &[dir.path()]);
    let raw = Prepare::default();
    let gray = Prepare { color: qdrop::plan::Color::Gray, ..raw.clone() };
    let net = Prepare { resize: Some(38), crop: Some(32), ..Prepare::preset("imagenet").unwrap() };
    for (name, prepare) in [("raw", &raw), ("gray", &gray), ("net", &net)] {
        let ours = data::open(&dir.path().join("images"), prepare, &data::Limits::default()).unwrap();
        let theirs = data::open(&dir.path().join(format!("{name}.npy")), &raw, &data::Limits::default()).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for i in 0..ours.len() {
            let (a, b) = (values(&ours, i), values(&theirs, i));
            assert_eq!(a.len(), b.len(), "{name}: {}", ours.name(i));
            let differ = a.iter().zip(&b).filter(|(a, b)| a != b).count();
            assert_eq!(differ, 0, "{name}: {} of {} elements of {} differ", differ, a.len(), ours.name(i));
        }
    }
}

/// A CMYK photograph whose channels are stored with fewer pixels, which the decoder does not read as Pillow does.
const SUBSAMPLED: &str = r#"
import sys, numpy as np
from PIL import Image
rgb = Image.fromarray((np.arange(33 * 47 * 3) * 7 % 251).astype(np.uint8).reshape(33, 47, 3))
rgb.convert("CMYK").save(sys.argv[1], subsampling=2)
assert [c[1:3] for c in Image.open(sys.argv[1]).layer] == [(2, 2), (1, 1), (1, 1), (1, 1)]
"#;

#[test]
fn subsampled_cmyk_is_refused() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cmyk.jpg");
    run(&python, SUBSAMPLED, &[&file]);
    let opened = data::open(dir.path(), &Prepare::default(), &data::Limits::default());
    let error = opened.and_then(|samples| samples.get(0).map(drop)).unwrap_err().to_string();
    assert!(
        error.contains("cmyk.jpg: ") && error.contains("it is CMYK with channels of fewer pixels; save it as RGB"),
        "{error}"
    );
}

/// Photographs as Pillow decodes, resizes and cuts them.
const PHOTOS: &str = r#"
import sys, pathlib, numpy as np
from PIL import Image
out, folder = map(pathlib.Path, sys.argv[1:3])
net = []
for path in sorted(folder.iterdir())[:64]:
    image = Image.open(path).convert("RGB")
    w, h = image.size
    size = (128, 128 * h // w) if w <= h else (128 * w // h, 128)
    small = image.resize(size, Image.BILINEAR)
    left, top = round((size[0] - 112) / 2), round((size[1] - 112) / 2)
    net.append(np.array(small.crop((left, top, left + 112, top + 112))).transpose(2, 0, 1))
np.save(out / "net.npy", np.stack(net))
"#;

#[test]
fn photographs_equal_pillow() {
    let (Some(python), Some(folder)) = (python(), shared("data/imagenet/calib")) else { return };
    let dir = tempfile::tempdir().unwrap();
    run(&python, PHOTOS, &[dir.path(), &folder]);
    let net = Prepare { resize: Some(128), crop: Some(112), ..Prepare::default() };
    let ours = Subset::first(data::open(&folder, &net, &data::Limits::default()).unwrap(), 64);
    let theirs = data::open(&dir.path().join("net.npy"), &Prepare::default(), &data::Limits::default()).unwrap();
    for i in 0..theirs.len() {
        let (a, b) = (values(&ours, i), values(&theirs, i));
        let differ = a.iter().zip(&b).filter(|(a, b)| a != b).count();
        assert_eq!((a.len(), differ), (b.len(), 0), "{}", ours.name(i));
    }
}

#[test]
fn shared_sets_load() {
    let Some(folder) = shared("data/cifar10/test") else { return };
    let cifar = data::open(&folder, &Prepare::preset("imagenet-norm").unwrap(), &data::Limits::default()).unwrap();
    assert_eq!((cifar.len(), cifar.label(0), cifar.label(1016)), (1017, Some(0), Some(9)));
    assert_eq!(cifar.get(1016).unwrap()[0].shape(), [3, 32, 32]);
    for list in ["calib", "eval"] {
        let Some(path) = shared(&format!("data/imagenet/{list}.csv")) else { return };
        let start = std::time::Instant::now();
        let images = data::open(&path, &Prepare::preset("imagenet").unwrap(), &data::Limits::default()).unwrap();
        let headers = start.elapsed();
        assert_eq!(images.len(), 1000);
        assert!((0..1000).all(|i| images.label(i).is_some_and(|l| l < 1000)));
        let start = std::time::Instant::now();
        for i in 0..100 {
            assert_eq!(images.get(i).unwrap()[0].shape(), [3, 224, 224]);
        }
        println!("{list}: headers {headers:.2?}, 100 images on one thread {:.2?}", start.elapsed());
    }
}

/// Side of the canvas in the tests of detectors.
const CANVAS: usize = 96;
/// Padding that is 0 after the normalization is so but for the rounding of float32.
const ROUNDING: f32 = 1e-6;

/// Writes images of several sizes, and what the presets of detectors make of them, with Pillow's filter: sizes, places and
/// values are those of the projects' own preparation for inference.
const DETECTORS: &str = r#"
import sys, pathlib, numpy as np
from PIL import Image
out = pathlib.Path(sys.argv[1]); side = int(sys.argv[2]); images = out / "images"; images.mkdir()
rng = np.random.default_rng(1)
sizes = [(61, 47), (47, 61), (200, 133), (133, 200), (96, 96), (300, 31), (7, 160)]
for i, (h, w) in enumerate(sizes):
    Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(images / f"{i}.png")
f = np.float32
mean, std = np.array([.485, .456, .406], f), np.array([.229, .224, .225], f)
bgr_mean, bgr_std = np.array([103.53, 116.28, 123.675], f), np.array([57.375, 57.12, 58.395], f)
def resize(image, w, h):
    return np.array(image.resize((w, h), Image.BILINEAR))
def letterbox(image, pad, centre):
    w, h = image.size
    r = min(side / h, side / w)
    nw, nh = (int(round(w * r)), int(round(h * r))) if centre else (int(w * r), int(h * r))
    top, left = (int(round((side - nh) / 2 - .1)), int(round((side - nw) / 2 - .1))) if centre else (0, 0)
    canvas = np.full((side, side, 3), pad, np.uint8)
    canvas[top:top + nh, left:left + nw] = resize(image, nw, nh)
    return canvas
def shorter(image):
    # 48 at least, 80 at most.
    w, h = image.size
    short, long = 48, 48 * max(w, h) // min(w, h)
    if long > 80: short, long = 80 * min(w, h) // max(w, h), 80
    return resize(image, *((short, long) if w <= h else (long, short)))
def pad(image, h, w):
    canvas = np.zeros((h, w, 3), f); canvas[:image.shape[0], :image.shape[1]] = image
    return canvas
results = {name: [] for name in ["yolox", "yolov5", "nanodet", "nanodet-plus", "torchvision-detection", "detr"]}
all = [Image.open(path) for path in sorted(images.iterdir())]
small = [shorter(image) for image in all]
most = [max(s.shape[axis] for s in small) for axis in (0, 1)]
for image, s in zip(all, small):
    results["yolox"].append(letterbox(image, 114, False)[..., ::-1].astype(f))
    results["yolov5"].append(letterbox(image, 114, True).astype(f) / f(255))
    results["nanodet"].append((letterbox(image, 0, True)[..., ::-1].astype(f) - bgr_mean) / bgr_std)
    results["nanodet-plus"].append((resize(image, side, side)[..., ::-1].astype(f) - bgr_mean) / bgr_std)
    results["torchvision-detection"].append(pad(s.astype(f) / f(255), *[-(-m // 32) * 32 for m in most]))
    results["detr"].append(pad((s.astype(f) / f(255) - mean) / std, *most))
for name, rows in results.items():
    np.save(out / f"{name}.npy", np.stack(rows).transpose(0, 3, 1, 2))
"#;

#[test]
fn detectors_see_what_pillow_makes_of_images() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    run(&python, DETECTORS, &[dir.path(), Path::new(&CANVAS.to_string())]);
    let limits = data::Limits::default();
    for name in ["yolox", "yolov5", "nanodet", "nanodet-plus", "torchvision-detection", "detr"] {
        let preset = Prepare::preset(name).unwrap();
        let canvas = |wanted: Option<Canvas>| wanted.map(|_| Canvas::square(CANVAS));
        let (letterbox, stretch) = (canvas(preset.letterbox), canvas(preset.stretch));
        let (resize, max_size) = (preset.resize.map(|_| 48), preset.max_size.map(|_| 80));
        let prepare = Prepare { letterbox, stretch, resize, max_size, antialias: true, ..preset };
        let ours = data::open(&dir.path().join("images"), &prepare, &limits).unwrap();
        let theirs = data::open(&dir.path().join(format!("{name}.npy")), &Prepare::default(), &limits).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for i in 0..ours.len() {
            let (a, b) = (ours.get(i).unwrap().remove(0), theirs.get(i).unwrap().remove(0));
            assert_eq!(a.shape(), b.shape(), "{name}: {}", ours.name(i));
            let ([rows, columns], width) = (ours.geometry(i).unwrap().shown(), a.shape()[2]);
            let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
            let pixel =
                |at: usize| rows.contains(&(at / width % (a.len() / 3 / width))) && columns.contains(&(at % width));
            let same = |at: usize| a[at] == b[at] || (!pixel(at) && (a[at] - b[at]).abs() < ROUNDING);
            let differ = (0..a.len()).filter(|&at| !same(at)).count();
            assert_eq!(differ, 0, "{name}: {differ} of {} elements of {} differ", a.len(), ours.name(i));
        }
    }
}

/// Photographs as OpenCV letterboxes them, for YOLOX, at the sides of a canvas that are given.
const OPENCV: &str = r#"
import sys, pathlib, numpy as np, cv2
out, folder = map(pathlib.Path, sys.argv[1:3])
found = [cv2.imread(str(path)) for path in sorted(folder.iterdir())[:16]]
for side in map(int, sys.argv[3:]):
    rows = []
    for image in found:
        h, w = image.shape[:2]
        r = min(side / h, side / w)
        canvas = np.full((side, side, 3), 114, np.uint8)
        small = cv2.resize(image, (int(w * r), int(h * r)), interpolation=cv2.INTER_LINEAR)
        canvas[:int(h * r), :int(w * r)] = small
        rows.append(canvas.transpose(2, 0, 1).astype(np.float32))
    np.save(out / f"{side}.npy", np.stack(rows))
"#;

#[test]
fn letterboxed_photographs_are_those_of_opencv() {
    let (Some(python), Some(folder)) = (python_with("cv2"), shared("data/coco/val")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let sides = ["416", "768", "97", "320"];
    let arguments: Vec<&Path> = [dir.path(), &folder].into_iter().chain(sides.map(Path::new)).collect();
    run(&python, OPENCV, &arguments);
    let limits = data::Limits::default();
    for side in sides {
        let canvas = Canvas::square(side.parse().unwrap());
        let prepare = Prepare { letterbox: Some(canvas), ..Prepare::preset("yolox").unwrap() };
        let ours = Subset::first(data::open(&folder, &prepare, &limits).unwrap(), 16);
        let theirs = data::open(&dir.path().join(format!("{side}.npy")), &Prepare::default(), &limits).unwrap();
        for i in 0..theirs.len() {
            let (a, b) = (values(&ours, i), values(&theirs, i));
            let differ = a.iter().zip(&b).filter(|(a, b)| a != b).count();
            assert_eq!((a.len(), differ), (b.len(), 0), "{side}: {}", ours.name(i));
        }
    }
}

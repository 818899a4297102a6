//! The files that the documentation speaks of, small: networks of a few thousand weights under the names of real ones,
//! images of 8 pixels, and what `qdrop demo` leaves behind.

use crate::common::{self, SIDE};
use qdrop::graph::{Dim, Fact, Graph, Node, Op};
use qdrop::tensor::{DType, Tensor};
use qdrop_testing::npy;
use std::path::Path;

/// Side of the images that the preset `imagenet` makes.
const IMAGENET: usize = 224;

/// Files that stand for real ones, and what they hold.
///
/// | named | here |
/// |---|---|
/// | `resnet20.onnx` | a residual block for images of 8 pixels |
/// | `mobilenetv2.onnx`, `efficientnet_lite0.onnx`, `model.onnx` | the same for images of 224 pixels |
/// | `detector.onnx`, `keras.onnx` | the same for 416 pixels, and for channels on the last axis |
/// | `minilm_sst2.onnx`, `bert.onnx` | a table of words and a classifier of two classes |
/// | `minilm_squad.onnx` | a table of words and two scores a token |
/// | `calib/`, `images/`, `test/`, `imagenet/calib/`, `coco/calib/`, `calib.csv`, `eval.csv` | 40 images of 4 classes |
/// | `SST-2/`, `MRPC/`, `squad/` | a few sentences |
/// | `yolox.onnx`, `val.json`, `val/`, `detections.json` | a detector for 32 pixels, 8 images with boxes of two kinds |
/// | `train.json`, `train/` | 40 images without boxes |
/// | `yolov8n.onnx`, `yolov8n_nms.onnx`, `retinanet.onnx`, `fasterrcnn.onnx` | detectors for 64 pixels with random weights |
/// | `fcn.onnx`, `photos/`, `maps/`, `maps.csv` | a network that tells colours, 4 images of squares with label maps |
/// | `apart.toml` | a recipe whose units can be solved apart |
/// | `sensitivity.json` | what `qdrop sensitivity` measures about `resnet20.onnx` |
pub fn fill(dir: &Path) {
    common::world(dir);
    let at = |name: &str| dir.join(name);
    let copy = |from: &str, to: &str| assert!(std::fs::copy(at(from), at(to)).is_ok(), "{from}");
    let write = |name: &str, text: String| std::fs::write(at(name), text).unwrap();
    for (name, side, strides) in [
        ("resnet20", SIDE, &[][..]),
        ("model", IMAGENET, &[8, 8]),
        ("mobilenetv2", IMAGENET, &[8, 8]),
        ("efficientnet_lite0", IMAGENET, &[8, 8]),
        ("detector", 416, &[16, 16]),
    ] {
        qdrop::onnx::write(&common::network_of(side, strides), &at(&format!("{name}.onnx"))).unwrap();
    }
    qdrop::onnx::write(&channels_last(common::network_of(IMAGENET, &[8, 8])), &at("keras.onnx")).unwrap();
    for name in ["bert.onnx", "minilm_sst2.onnx"] {
        copy("table.onnx", name);
    }
    qdrop::onnx::write(&answers(common::WORDS.len(), 4), &at("minilm_squad.onnx")).unwrap();
    for folder in ["calib", "test", "imagenet/calib", "coco/calib"] {
        for class in 0..common::CLASSES {
            let inner = format!("{folder}/class{class}");
            std::fs::create_dir_all(at(&inner)).unwrap();
            (0..10).for_each(|i| copy(&format!("images/class{class}/{i}.bmp"), &format!("{inner}/{i}.bmp")));
        }
    }
    ["calib.csv", "eval.csv"].iter().for_each(|name| copy("list.csv", name));
    npy(&at("samples.npy"), "<f4", &[32, 3, IMAGENET, IMAGENET], &vec![0x3f; 32 * 3 * IMAGENET * IMAGENET * 4]);
    write("w2a4.toml", "[weights]\nbits = 2\n".into());
    write("apart.toml", "[method]\nname = \"brecq\"\ninput_keep = 0.0\n".into());
    let line =
        "sensitivity resnet20.onnx --calib calib/ --input imagenet-norm --sensitivity-samples 8 -o sensitivity.json";
    assert!(common::qdrop(dir, &line.split(' ').collect::<Vec<_>>()).status.success(), "{line}");

    common::annotated(dir);
    std::fs::create_dir_all(at("train")).unwrap();
    let mut images = Vec::new();
    for i in 0..40 {
        copy(&format!("images/class{}/{}.bmp", i % common::CLASSES, i / common::CLASSES), &format!("train/{i}.bmp"));
        images.push(format!(r#"{{"id": {i}, "file_name": "{i}.bmp"}}"#));
    }
    let categories = r#"[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]"#;
    let images = images.join(", ");
    write("train.json", format!(r#"{{"images": [{images}], "categories": {categories}, "annotations": []}}"#));
    let detectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qdrop/tests/fixtures/detectors");
    for (from, to) in [
        ("yolov8", "yolov8n"),
        ("ultralytics", "yolov8n_nms"),
        ("retinanet", "retinanet"),
        ("faster_rcnn", "fasterrcnn"),
    ] {
        let from = detectors.join(format!("{from}.onnx"));
        assert!(std::fs::copy(&from, at(&format!("{to}.onnx"))).is_ok(), "{}", from.display());
    }
    common::segmented(dir);
    let word = |i: usize| common::WORDS[4 + i % 9];
    for folder in ["SST-2", "MRPC", "squad"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    let single: String = (0..40).map(|i| format!("{} {}\t{}\n", word(i), word(i / 2), i % 2)).collect();
    let pairs: String = (0..40).map(|i| format!("{}\t0\t0\t{}\t{}\n", i % 2, word(i), word(i / 3))).collect();
    for part in ["train", "dev"] {
        write(&format!("SST-2/{part}.tsv"), format!("sentence\tlabel\n{single}"));
        write(&format!("MRPC/{part}.tsv"), format!("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n{pairs}"));
        let asked: Vec<String> = (0..40)
            .map(|i| {
                let (question, answer) = (word(i), word(i / 2));
                format!(r#"{{"id":"{i}","question":"{question}","answers":[{{"text":"{answer}","answer_start":0}}]}}"#)
            })
            .collect();
        let text = format!(r#"{{"context":"a b c d good bad film plot dull","qas":[{}]}}"#, asked.join(","));
        write(&format!("squad/{part}-v1.1.json"), format!(r#"{{"data":[{{"paragraphs":[{text}]}}]}}"#));
    }
}

/// `graph` with its input's channels on the last axis.
fn channels_last(mut graph: Graph) -> Graph {
    let input = graph.inputs[0];
    let fact = graph.value(input).fact.clone();
    let mut dims = fact.shape.clone().unwrap();
    dims[1..].rotate_left(1);
    graph.value_mut(input).fact.shape = Some(dims);
    let inner = graph.add_value("input.first", fact);
    graph.replace_uses(input, inner);
    graph.nodes.insert(0, Node::new("transpose", Op::Transpose { perm: vec![0, 3, 1, 2] }, &[input], &[inner]));
    graph.check().expect("the test network is sound");
    graph
}

/// Looks words up in a table of `words` rows of `width` numbers; every token has a score as begin and one as end of an
/// answer.
fn answers(words: usize, width: usize) -> Graph {
    let mut g = Graph { name: "answers".into(), opset: 17, ..Graph::default() };
    let dims = || vec![Dim::Symbol("N".into()), Dim::Symbol("tokens".into())];
    let x = g.add_value("input_ids", Fact { dtype: Some(DType::I64), shape: Some(dims()) });
    g.inputs.push(x);
    let numbers = |n: usize| (0..n).map(|i| ((i * 7919) % 97) as f32 / 97.0 - 0.5).collect::<Vec<_>>();
    let rows = g.add_constant("table", Tensor::f32(&[words, width], numbers(words * width)));
    let found = g.add_value("found", Fact::default());
    g.nodes.push(Node::new("look-up", Op::Gather { axis: 0 }, &[rows, x], &[found]));
    let weight = g.add_constant("hidden.weight", Tensor::f32(&[width, width], numbers(width * width)));
    let hidden = g.add_value("hidden", Fact::default());
    g.nodes.push(Node::new("hidden", Op::MatMul, &[found, weight], &[hidden]));
    for (name, shift) in [("start", 1), ("end", 2)] {
        let weight = numbers(width + shift)[shift..].to_vec();
        let weight = g.add_constant(&format!("{name}.weight"), Tensor::f32(&[width, 1], weight));
        let mut shape = dims();
        shape.push(Dim::Known(1));
        let y = g.add_value(&format!("{name}_logits"), Fact { dtype: Some(DType::F32), shape: Some(shape) });
        g.nodes.push(Node::new(name, Op::MatMul, &[hidden, weight], &[y]));
        g.outputs.push(y);
    }
    g.check().expect("the test network is sound");
    g
}

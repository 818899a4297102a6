//! Files the command-line tests work on, made afresh in a temporary directory, and running the program on them.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

use qdrop::graph::{Dim, Fact, Graph, Node, Op, Padding, Unary, ValueId, Window};
use qdrop::tensor::{DType, Tensor};
use qdrop_testing::npy;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use tempfile::TempDir;

/// Side of the test images and of the network's input, in pixels.
pub const SIDE: usize = 8;
/// Classes the test network tells apart.
pub const CLASSES: usize = 4;

/// Runs the program in `directory` with `arguments`.
pub fn qdrop(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qdrop"))
        .current_dir(directory)
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("COLUMNS")
        .output()
        .expect("the program starts")
}

/// Exit status, standard output and standard error of the program on the words of `line`.
pub fn run(dir: &Path, line: &str) -> (Option<i32>, String, String) {
    let output = qdrop(dir, &line.split_whitespace().collect::<Vec<_>>());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Standard output and standard error of a line that must succeed.
pub fn both(dir: &Path, line: &str) -> (String, String) {
    let (code, printed, said) = run(dir, line);
    assert_eq!(code, Some(0), "{line}: {said}");
    (printed, said)
}

/// Standard error of a line that must be refused.
pub fn refused(dir: &Path, line: &str) -> String {
    let (code, _, said) = run(dir, line);
    assert_eq!(code, Some(2), "{line}: {said}");
    said
}

/// Standard output of a line that must succeed.
pub fn ok(dir: &Path, line: &str) -> String {
    both(dir, line).0
}

/// What a line that must succeed prints as JSON.
pub fn json(dir: &Path, line: &str) -> Value {
    serde_json::from_str(&ok(dir, &format!("{line} --format json"))).unwrap()
}

/// Starts the program on a line; only what it says is kept.
pub fn start(dir: &Path, line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qdrop"));
    command.current_dir(dir).args(line.split_whitespace());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A run that has begun to learn, and what it says from then on.
pub fn learning(dir: &Path, line: &str) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut child = start(dir, line);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|l| l.contains("iteration")), "learning never began");
    (child, lines)
}

/// Every file below `dir`.
pub fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path)),
        }
    }
    found
}

/// Numbers between -0.5 and 0.5 that look random.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(next).collect()
}

fn float(shape: &[Dim]) -> Fact {
    Fact { dtype: Some(DType::F32), shape: Some(shape.to_vec()) }
}

fn conv(graph: &mut Graph, name: &str, x: ValueId, [from, to]: [usize; 2], strides: &[i64], relu: bool) -> ValueId {
    let (kernel, padding) = (vec![3, 3], Padding::Explicit(vec![1; 4]));
    let window = Window { kernel, strides: strides.to_vec(), dilations: vec![], padding };
    let seed = graph.values.len() as u64;
    let weight =
        graph.add_constant(&format!("{name}.weight"), Tensor::f32(&[to, from, 3, 3], noise(seed, to * from * 9)));
    let bias = graph.add_constant(&format!("{name}.bias"), Tensor::f32(&[to], noise(seed + 1, to)));
    let y = graph.add_value(&format!("{name}.out"), Fact::default());
    graph.nodes.push(Node::new(name, Op::Conv { window, group: 1 }, &[x, weight, bias], &[y]));
    if !relu {
        return y;
    }
    let z = graph.add_value(&format!("{name}.relu"), Fact::default());
    graph.nodes.push(Node::new(format!("{name}/relu"), Op::Unary(Unary::Relu), &[y], &[z]));
    z
}

/// A stem, one residual block and a classifier.
pub fn network() -> Graph {
    network_of(SIDE, &[])
}

/// The same for images of `side` pixels, whose stem has `strides`.
pub fn network_of(side: usize, strides: &[i64]) -> Graph {
    let mut g = Graph { name: "tiny".into(), opset: 17, ..Graph::default() };
    let batch = Dim::Symbol("N".into());
    let x = g.add_value("input", float(&[batch.clone(), Dim::Known(3), Dim::Known(side), Dim::Known(side)]));
    g.inputs.push(x);
    let stem = conv(&mut g, "stem", x, [3, 8], strides, true);
    let a = conv(&mut g, "block/conv1", stem, [8, 8], &[], true);
    let b = conv(&mut g, "block/conv2", a, [8, 8], &[], false);
    let sum = g.add_value("block.sum", Fact::default());
    g.nodes.push(Node::new("block/add", Op::Binary(qdrop::graph::Binary::Add), &[b, stem], &[sum]));
    let relu = g.add_value("block.relu", Fact::default());
    g.nodes.push(Node::new("block/relu", Op::Unary(Unary::Relu), &[sum], &[relu]));
    let pooled = g.add_value("pooled", Fact::default());
    g.nodes.push(Node::new("pool", Op::GlobalAveragePool, &[relu], &[pooled]));
    let flat = g.add_value("flat", Fact::default());
    g.nodes.push(Node::new("flatten", Op::Flatten { axis: 1 }, &[pooled], &[flat]));
    let weight = g.add_constant("head.weight", Tensor::f32(&[CLASSES, 8], noise(99, CLASSES * 8)));
    let bias = g.add_constant("head.bias", Tensor::f32(&[CLASSES], vec![0.0; CLASSES]));
    let y = g.add_value("logits", float(&[batch, Dim::Known(CLASSES)]));
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    g.nodes.push(Node::new("head", gemm, &[flat, weight, bias], &[y]));
    g.outputs.push(y);
    g.check().expect("the test network is sound");
    g
}

/// Words that the tokenizer of the tests knows, in the order of their numbers.
pub const WORDS: [&str; 13] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "good", "bad", "film", "plot", "dull"];

/// A tokenizer of [`WORDS`].
fn tokenizer() -> String {
    let vocab: Vec<String> = WORDS.iter().enumerate().map(|(i, w)| format!("\"{w}\":{i}")).collect();
    format!(
        r#"{{"version":"1.0","added_tokens":[],"pre_tokenizer":{{"type":"Whitespace"}},
        "post_processor":{{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]}},
        "model":{{"type":"WordLevel","unk_token":"[UNK]","vocab":{{{}}}}}}}"#,
        vocab.join(",")
    )
}

/// Looks `length` words up in a table of `words` rows; two classes.
fn table(words: usize, length: usize) -> Graph {
    let mut g = Graph { name: "table".into(), opset: 17, ..Graph::default() };
    let (batch, width) = (Dim::Symbol("N".into()), 4);
    let shape = vec![batch.clone(), Dim::Known(length)];
    let x = g.add_value("input_ids", Fact { dtype: Some(DType::I64), shape: Some(shape) });
    g.inputs.push(x);
    let rows = g.add_constant("table", Tensor::f32(&[words, width], noise(7, words * width)));
    let found = g.add_value("found", Fact::default());
    g.nodes.push(Node::new("look-up", Op::Gather { axis: 0 }, &[rows, x], &[found]));
    let flat = g.add_value("flat", Fact::default());
    g.nodes.push(Node::new("flatten", Op::Flatten { axis: 1 }, &[found], &[flat]));
    let weight = g.add_constant("head.weight", Tensor::f32(&[2, length * width], noise(8, 2 * length * width)));
    let y = g.add_value("logits", float(&[batch, Dim::Known(2)]));
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    g.nodes.push(Node::new("head", gemm, &[flat, weight], &[y]));
    g.outputs.push(y);
    g.check().expect("the test network is sound");
    g
}

/// Writes a 24-bit BMP of noise.
pub fn image(path: &Path, seed: u64, side: usize) {
    let row = (side * 3).next_multiple_of(4);
    let mut bytes = vec![b'B', b'M'];
    bytes.extend(((54 + row * side) as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(54u32.to_le_bytes());
    bytes.extend(40u32.to_le_bytes());
    bytes.extend((side as u32).to_le_bytes());
    bytes.extend((side as u32).to_le_bytes());
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    let pixels = noise(seed, row * side);
    bytes.extend(pixels.iter().map(|x| ((x + 0.5) * 255.0) as u8));
    std::fs::write(path, bytes).unwrap();
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A folder with every file the tests name.
pub fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    world(dir.path());
    dir
}

/// Fills `dir` with every file the tests name.
pub fn world(dir: &Path) {
    let at = |name: &str| dir.join(name);
    let write = |name: &str, bytes: &[u8]| std::fs::write(at(name), bytes).unwrap();

    let graph = network();
    qdrop::onnx::write(&graph, &at("model.onnx")).unwrap();
    qdrop::onnx::write(&table(16, 8), &at("table.onnx")).unwrap();
    let bytes = std::fs::read(at("model.onnx")).unwrap();
    write("empty.onnx", b"");
    write("truncated.onnx", &bytes[..bytes.len() / 2]);
    write("text.onnx", b"this is no model\n");
    write("checkpoint.pt", b"PK\x03\x04 archive/data.pkl");
    write("pointer.onnx", b"version https://git-lfs.github.com/spec/v1\n");
    // Field 7 (the graph) claims 2^60 bytes.
    write("absurd.onnx", &[0x08, 0x08, 0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
    let mut unknown = bytes.clone();
    while let Some(i) = unknown.windows(4).position(|w| w == b"Conv") {
        unknown[i..i + 4].copy_from_slice(b"Conx");
    }
    write("unknown.onnx", &unknown);
    let mut bad = graph.clone();
    let weight = bad.value_ids().find(|&v| bad.value(v).name == "block/conv1.weight").unwrap();
    let mut values = noise(1, 8 * 8 * 9);
    values[5] = f32::NAN;
    bad.value_mut(weight).constant = Some(std::sync::Arc::new(Tensor::f32(&[8, 8, 3, 3], values)));
    qdrop::onnx::write(&bad, &at("nan.onnx")).unwrap();

    for class in 0..CLASSES {
        let folder = at("images").join(format!("class{class}"));
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..10 {
            image(&folder.join(format!("{i}.bmp")), (class * 10 + i) as u64, SIDE);
        }
    }
    for (folder, n, side) in [("few", 3, SIDE), ("corrupt", 40, SIDE), ("large", 40, SIDE + 2), ("none", 0, SIDE)] {
        std::fs::create_dir_all(at(folder)).unwrap();
        for i in 0..n {
            image(&at(folder).join(format!("{i:02}.bmp")), i, side);
        }
    }
    write("corrupt/07.bmp", b"BM no image");
    let lines = |label: &dyn Fn(usize) -> usize| -> String {
        let line = |i| format!("images/class{}/{}.bmp,{}\n", i / 10, i % 10, label(i));
        format!("file,label\n{}", (0..40).map(line).collect::<String>())
    };
    write("list.csv", lines(&|i| i / 10).as_bytes());
    write("bare.csv", b"images/class0/0.bmp,0\n");
    write("labels.csv", lines(&|i| if i == 12 { 400 } else { i / 10 }).as_bytes());
    write("missing.csv", format!("{}images/class9/0.bmp,1\n", lines(&|i| i / 10)).as_bytes());

    let pixels = 3 * SIDE * SIDE;
    let mut values = noise(3, 40 * pixels);
    npy(&at("good.npy"), "<f4", &[40, 3, SIDE, SIDE], &floats(&values));
    npy(&at("shape.npy"), "<f4", &[40, 3, SIDE, SIDE / 2], &floats(&values[..20 * pixels]));
    npy(&at("dtype.npy"), "<i8", &[40, 3, SIDE, SIDE], &vec![0; 40 * pixels * 8]);
    npy(&at("short.npy"), "<f4", &[40, 3, SIDE, SIDE], &floats(&values[..7]));
    values[5 * pixels + 17] = f32::INFINITY;
    npy(&at("infinite.npy"), "<f4", &[40, 3, SIDE, SIDE], &floats(&values));

    write("tokenizer.json", tokenizer().as_bytes());
    write("unknown.toml", b"[method]\niteration = 10\n");
    write("bits.toml", b"[weights]\nbits = 1\n");
    write("type.toml", b"[weights]\nbits = \"four\"\n");
    write("short.toml", b"[method]\niterations = 20\nbatch = 8\n");
}

/// A detector of two classes (`yolox.onnx`), images with boxes (`val.json`), and what might be found in them
/// (`detections.json`), in a folder with images.
pub fn annotated(dir: &Path) {
    qdrop::onnx::write(&detector(32, 2), &dir.join("yolox.onnx")).unwrap();
    std::fs::create_dir_all(dir.join("val")).unwrap();
    let (mut images, mut objects, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..8 {
        let class = i % CLASSES;
        assert!(
            std::fs::copy(dir.join(format!("images/class{class}/{i}.bmp")), dir.join(format!("val/{i}.bmp"))).is_ok()
        );
        images.push(format!(r#"{{"id": {i}, "file_name": "{i}.bmp"}}"#));
        let object = format!(r#""image_id": {i}, "category_id": {}, "bbox": [1, 1, 4, 5]"#, 1 + i % 2);
        objects.push(format!(r#"{{"id": {}, {object}, "area": 20, "iscrowd": 0}}"#, i + 1));
        found.push(format!(r#"{{{object}, "score": 0.5}}"#));
    }
    let categories = r#"[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]"#;
    let (images, objects) = (images.join(", "), objects.join(", "));
    let set = format!(r#"{{"images": [{images}], "categories": {categories}, "annotations": [{objects}]}}"#);
    std::fs::write(dir.join("val.json"), set).unwrap();
    std::fs::write(dir.join("detections.json"), format!("[{}]", found.join(", "))).unwrap();
}

/// A backbone of three layers, and a row of a box, objectness and `classes` scores for every cell of strides 8, 16 and 32
/// of `side` pixels by a head of one layer for each.
fn detector(side: usize, classes: usize) -> Graph {
    const CHANNELS: usize = 4;
    let mut g = Graph { name: "detector".into(), opset: 17, ..Graph::default() };
    let dims = |dims: &[usize]| dims.iter().map(|&d| Dim::Known(d)).collect();
    let fact = |shape: &[usize]| Fact { dtype: Some(DType::F32), shape: Some(dims(shape)) };
    let mut x = g.add_value("images", fact(&[1, 3, side, side]));
    g.inputs.push(x);
    let conv = |g: &mut Graph, name: &str, x, [to, from, kernel]: [usize; 3], [least, scale]: [f32; 2]| {
        let number = |i: usize| (((i * 7919) % 97) as f32 / 97.0 + least) * scale;
        let numbers = (0..to * from * kernel * kernel).map(number).collect();
        let weight = g.add_constant(&format!("{name}.weight"), Tensor::f32(&[to, from, kernel, kernel], numbers));
        let kernel = vec![kernel as i64; 2];
        let padding = Padding::Explicit(vec![]);
        let window = Window { strides: kernel.clone(), kernel, dilations: vec![1; 2], padding };
        let map = g.add_value(name, Fact::default());
        g.nodes.push(Node::new(format!("{name}.conv"), Op::Conv { window, group: 1 }, &[x, weight], &[map]));
        map
    };
    let width = 5 + classes;
    let mut levels = Vec::new();
    for (from, stride, step) in [(3, 8usize, 8), (CHANNELS, 16, 2), (CHANNELS, 32, 2)] {
        let map =
            conv(&mut g, &format!("backbone{stride}"), x, [CHANNELS, from, step], [-0.3, 1.0 / (step * step) as f32]);
        x = g.add_value(&format!("map{stride}"), Fact::default());
        g.nodes.push(Node::new(format!("relu{stride}"), Op::Unary(Unary::Relu), &[map], &[x]));
        let map = conv(&mut g, &format!("head{stride}"), x, [width, CHANNELS, 1], [0.0, 1.0 / 256.0]);
        let shape = g.add_constant(&format!("shape{stride}"), Tensor::i64s(vec![1, width as i64, -1]));
        let level = g.add_value(&format!("level{stride}"), Fact::default());
        g.nodes.push(Node::new(format!("flat{stride}"), Op::Reshape { allowzero: false }, &[map, shape], &[level]));
        levels.push(level);
    }
    let joined = g.add_value("joined", Fact::default());
    g.nodes.push(Node::new("join", Op::Concat { axis: 2 }, &levels, &[joined]));
    let y = g.add_value("output", Fact::default());
    g.nodes.push(Node::new("rows", Op::Transpose { perm: vec![0, 2, 1] }, &[joined], &[y]));
    g.outputs.push(y);
    g.check().expect("the test network is sound");
    g
}

/// Writes `fcn.onnx`, whose classes are the red, green and blue of half as many pixels, images of squares in these colours
/// (`photos`), and their label maps (`maps`, and `maps.csv` with both), of which the first calls a red square green.
pub fn segmented(dir: &Path) {
    let mut g = Graph { name: "fcn".into(), opset: 17, ..Graph::default() };
    let batch = Dim::Symbol("N".into());
    let x = g.add_value("input", float(&[batch.clone(), Dim::Known(3), Dim::Known(SIDE), Dim::Known(SIDE)]));
    g.inputs.push(x);
    let mut last = x;
    for (name, strides) in [("stem", vec![2; 2]), ("head", vec![1; 2])] {
        let window = Window { kernel: vec![1; 2], strides, dilations: vec![], padding: Padding::Explicit(vec![0; 4]) };
        let same = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0].to_vec();
        let weight = g.add_constant(&format!("{name}.weight"), Tensor::f32(&[3, 3, 1, 1], same));
        let y = g.add_value(if name == "head" { "out" } else { "features" }, Fact::default());
        g.nodes.push(Node::new(name, Op::Conv { window, group: 1 }, &[last, weight], &[y]));
        last = y;
    }
    g.outputs.push(last);
    g.check().expect("the test network is sound");
    qdrop::onnx::write(&g, &dir.join("fcn.onnx")).unwrap();
    for folder in ["photos", "maps"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let half = SIDE as u32 / 2;
    let square = |x: u32, y: u32| ([0u8, 1, 2, 0][(x / half + 2 * (y / half)) as usize], x < half && y < half);
    let mut list = "file,labels\n".to_string();
    for i in 0..4 {
        let color =
            |x, y| image::Rgb(std::array::from_fn(|c| if c == usize::from(square(x, y).0) { 200 + i } else { 10 }));
        let side = SIDE as u32;
        image::RgbImage::from_fn(side, side, color).save(dir.join(format!("photos/{i}.png"))).unwrap();
        let class = |x, y| image::Luma([if i == 0 && square(x, y).1 { 1 } else { square(x, y).0 }]);
        image::GrayImage::from_fn(side, side, class).save(dir.join(format!("maps/{i}.png"))).unwrap();
        list.push_str(&format!("photos/{i}.png,maps/{i}.png\n"));
    }
    std::fs::write(dir.join("maps.csv"), list).unwrap();
}

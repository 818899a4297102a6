//! Small valid inputs that mutations begin with.

use crate::mutate::Seeds;
use crate::targets::Target;
use qdrop::graph::{Binary, Cell, Dim, Direction, Fact, Graph, Node, Op, Padding, Recurrent, Unary, ValueId, Window};
use qdrop::onnx;
use qdrop::plan::Recipe;
use qdrop::tensor::{DType, Tensor};
use qdrop_testing::{npy_bytes, shared};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

/// Largest file that becomes a seed, in bytes.
const LARGEST: u64 = 1 << 16;

/// Seeds of `target`: some made here, with those of the shared files and of ONNX's operator tests (`QDROP_NODE_TESTS`)
/// that are small, in a fixed order.
pub fn seeds(target: Target) -> Seeds {
    match target {
        Target::Reader | Target::Plan => {
            let own =
                [convolutions(), attention(), recurrent()].map(|g| onnx::to_bytes(&g).expect("a model of the seeds"));
            let onnx = |p: &Path| p.extension().is_some_and(|e| e == "onnx");
            let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qdrop/tests/fixtures");
            let found = [shared("cases"), Some(fixtures)].into_iter().flat_map(|folder| files(folder, onnx));
            own.into_iter().chain(found).chain(operators()).collect()
        }
        Target::Arrays => {
            let array = |p: &Path| p.extension().is_some_and(|e| e == "npz" || e == "npy" || e == "safetensors");
            arrays().into_iter().chain(files(shared("cases"), array)).chain(files(shared("golden"), array)).collect()
        }
        Target::Recipe => recipes(),
        Target::Tokenizer => {
            let json = |p: &Path| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("tokenizer"));
            tokenizers().into_iter().chain(files(shared("cases/hostile"), json)).collect()
        }
        Target::Coco => annotated(),
    }
}

/// Contents of the small files under `folder` that `wanted` takes, in the order of their paths.
fn files(folder: Option<PathBuf>, wanted: impl Fn(&Path) -> bool) -> Seeds {
    paths(folder, wanted).iter().filter_map(|p| std::fs::read(p).ok()).collect()
}

fn paths(folder: Option<PathBuf>, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folder.into_iter().collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.metadata() {
                Ok(m) if m.is_dir() => open.push(path),
                Ok(m) if m.len() <= LARGEST && wanted(&path) => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// ONNX's operator tests: each as it is, with its integers as constants, and with all its operands as constants, so that
/// shapes and content are derived from them.
fn operators() -> Seeds {
    let folder = std::env::var_os("QDROP_NODE_TESTS").map(PathBuf::from);
    let mut all = Seeds::new();
    for path in paths(folder, |p| p.to_string_lossy().ends_with(".model.onnx")) {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let data = PathBuf::from(path.to_string_lossy().replace(".model.onnx", ".data.onnx"));
        if let (Ok(graph), Ok(data)) = (onnx::read_bytes(&bytes, None), onnx::read(&data)) {
            let float = |kind: DType| matches!(kind, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
            all.extend(with_constants(&graph, &data, |kind| !float(kind)));
            all.extend(with_constants(&graph, &data, |_| true));
        }
        all.push(bytes);
    }
    all
}

/// `graph` with its inputs of `wanted` types as constants, whose content `data` holds as `input_0`, `input_1`, ...
fn with_constants(graph: &Graph, data: &Graph, wanted: impl Fn(DType) -> bool) -> Option<Vec<u8>> {
    let mut graph = graph.clone();
    let inputs = std::mem::take(&mut graph.inputs);
    for (i, v) in inputs.into_iter().enumerate() {
        let content = data.values.iter().find(|d| d.name == format!("input_{i}"))?.constant.clone()?;
        if wanted(content.dtype()) {
            graph.value_mut(v).constant = Some(content);
        } else {
            graph.inputs.push(v);
        }
    }
    onnx::to_bytes(&graph).ok().filter(|bytes| bytes.len() as u64 <= LARGEST)
}

/// A network that grows node by node.
struct Network(Graph);

impl Network {
    fn new() -> Self {
        Network(Graph { opset: 17, ..Graph::default() })
    }

    fn input(&mut self, shape: &[usize]) -> ValueId {
        let dims = [Dim::Symbol("n".into())].into_iter().chain(shape.iter().map(|&n| Dim::Known(n))).collect();
        let input = self.0.add_value("x", Fact { dtype: Some(DType::F32), shape: Some(dims) });
        self.0.inputs.push(input);
        input
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let values = (0..shape.iter().product()).map(|i: usize| (i * 37 % 101) as f32 / 50.0 + 0.1).collect();
        self.0.add_constant("w", Tensor::f32(shape, values))
    }

    fn node(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        let result = self.0.add_value("v", Fact::default());
        self.0.nodes.push(Node::new("", op, operands, &[result]));
        result
    }

    fn finish(mut self, output: ValueId) -> Graph {
        self.0.outputs.push(output);
        self.0
    }
}

/// Convolutions with a norm, a residual sum and a head.
pub(crate) fn convolutions() -> Graph {
    let mut n = Network::new();
    let x = n.input(&[3, 8, 8]);
    let conv = |n: &mut Network, x, inputs: usize, outputs: usize| {
        let window =
            Window { kernel: vec![], strides: vec![], dilations: vec![], padding: Padding::Explicit(vec![1; 4]) };
        let (w, b) = (n.constant(&[outputs, inputs, 3, 3]), n.constant(&[outputs]));
        n.node(Op::Conv { window, group: 1 }, &[x, w, b])
    };
    let a = conv(&mut n, x, 3, 4);
    let [scale, bias, mean, variance] = [(); 4].map(|()| n.constant(&[4]));
    let a = n.node(Op::BatchNorm { epsilon: 1e-5 }, &[a, scale, bias, mean, variance]);
    let a = n.node(Op::Unary(Unary::Relu), &[a]);
    let b = conv(&mut n, a, 4, 4);
    let sum = n.node(Op::Binary(Binary::Add), &[a, b]);
    let pooled = n.node(Op::GlobalAveragePool, &[sum]);
    let to = n.0.add_constant("to", Tensor::i64s(vec![0, -1]));
    let flat = n.node(Op::Reshape { allowzero: false }, &[pooled, to]);
    let (w, b) = (n.constant(&[5, 4]), n.constant(&[5]));
    let head = n.node(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[flat, w, b]);
    n.finish(head)
}

/// Products of activations, as in attention.
fn attention() -> Graph {
    let mut n = Network::new();
    let x = n.input(&[6, 8]);
    let [q, k] = [(); 2].map(|()| {
        let w = n.constant(&[8, 8]);
        n.node(Op::MatMul, &[x, w])
    });
    let k = n.node(Op::Transpose { perm: vec![0, 2, 1] }, &[k]);
    let scores = n.node(Op::MatMul, &[q, k]);
    let weights = n.node(Op::Softmax { axis: -1, log: false }, &[scores]);
    let mixed = n.node(Op::MatMul, &[weights, x]);
    let (scale, bias) = (n.constant(&[8]), n.constant(&[8]));
    let normed = n.node(Op::LayerNorm { axis: -1, epsilon: 1e-5 }, &[mixed, scale, bias]);
    n.finish(normed)
}

/// An LSTM behind a dense layer.
fn recurrent() -> Graph {
    let mut n = Network::new();
    let x = n.input(&[5, 4]);
    let w = n.constant(&[4, 3]);
    let y = n.node(Op::MatMul, &[x, w]);
    let turned = n.node(Op::Transpose { perm: vec![1, 0, 2] }, &[y]);
    let (w, r) = (n.constant(&[1, 8, 3]), n.constant(&[1, 8, 2]));
    let cell = Recurrent::new(Cell::Lstm { input_forget: false }, Direction::Forward);
    let y = n.node(Op::Recurrent(cell), &[turned, w, r]);
    n.finish(y)
}

fn arrays() -> Seeds {
    let bytes: Vec<u8> = (0..96u8).collect();
    let kinds: [(&str, &[usize]); 6] = [
        ("<f4", &[4, 2, 3]),
        ("<i8", &[4]),
        ("|u1", &[2, 4, 4, 3]),
        (">f8", &[3, 4]),
        ("<f2", &[6, 1, 8]),
        ("|b1", &[96]),
    ];
    let mut all: Seeds = kinds
        .iter()
        .map(|(kind, shape)| {
            let length = shape.iter().product::<usize>() * kind[2..].parse::<usize>().unwrap_or(1);
            npy_bytes(kind, shape, &bytes[..length])
        })
        .collect();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in [("x.npy", &all[0]), ("labels.npy", &all[1])] {
        let packed = zip::write::SimpleFileOptions::default();
        zip.start_file(name, packed).expect("an entry of the archive");
        zip.write_all(array).expect("an entry of the archive");
    }
    all.push(zip.finish().expect("an archive").into_inner());
    let header = br#"{"x":{"dtype":"F32","shape":[4,3],"data_offsets":[0,48]},"y":{"dtype":"I64","shape":[4],"data_offsets":[48,80]}}"#;
    all.push([&(header.len() as u64).to_le_bytes(), &header[..], &bytes[..80]].concat());
    all
}

fn recipes() -> Seeds {
    let own = [
        "weights.bits = 2\nactivations.bits = 4\nmethod.name = \"brecq\"\nunits.granularity = \"layer\"\n",
        "[method]\npreset = \"paper\"\niterations = 100\nseed = 7\n[output]\ntarget = \"qonnx\"\n",
        "[mixed]\nsize = \"128KiB\"\ncandidates = [2, 4, 8]\n[[override]]\nlayer = \"w\"\nweight_bits = 8\n",
        "[[override]]\nlayer = \"*\"\nactivation = \"v*\"\nactivation_bits = 8\nactivation_symmetric = true\n[input]\npreset = \"imagenet-norm\"\n",
        "model = \"demo.onnx\"\ncalib = \"calib\"\neval = \"test\"\n[recipe]\nmethod.preset = \"fast\"\n[[axis]]\nname = \"bits\"\n\
         case = [{ name = \"a\", weights.bits = 4 }, { name = \"b\", weights.bits = 2 }]\n[[axis]]\nname = \"seed\"\n\
         key = \"method.seed\"\nvalues = [0, 1]\n",
    ];
    let default = Recipe::default_toml().expect("the default recipe");
    own.iter().map(|t| t.as_bytes().to_vec()).chain([default.into_bytes()]).collect()
}

/// One tokenizer of each kind, with a few tokens.
fn tokenizers() -> Seeds {
    let tokens =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b", "good", "bad", "ab", "d", "g", "o", "Ġa", "▁a", "4"];
    let vocabulary: serde_json::Map<_, _> = tokens.iter().enumerate().map(|(i, t)| (t.to_string(), i.into())).collect();
    let scored: Vec<_> = tokens.iter().enumerate().map(|(i, t)| serde_json::json!([t, -(i as f64)])).collect();
    let word = serde_json::json!({"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocabulary});
    let piece = serde_json::json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocabulary});
    let pairs = serde_json::json!({"type": "BPE", "dropout": null, "unk_token": "[UNK]", "fuse_unk": false,
        "byte_fallback": false, "vocab": vocabulary, "merges": [["a", "b"]]});
    let unigram = serde_json::json!({"type": "Unigram", "unk_id": 1, "vocab": scored, "byte_fallback": false});
    let template = serde_json::json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
            "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}});
    let bert = serde_json::json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]});
    let roberta = serde_json::json!({"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2],
        "trim_offsets": true, "add_prefix_space": true});
    let lower = serde_json::json!({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"},
        {"type": "StripAccents"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}]});
    let clean = serde_json::json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": true});
    let prepend = serde_json::json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
        {"type": "Strip", "strip_left": true, "strip_right": true}]});
    let bytes =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let meta = serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let split = serde_json::json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[a-z]+|\\d"}, "behavior": "Isolated", "invert": false},
        {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Isolated"}]});
    let padding = serde_json::json!({"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    let added = serde_json::json!([{"id": 2, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": true,
        "normalized": false, "special": true}]);
    let white = serde_json::json!({"type": "Whitespace"});
    let none = serde_json::Value::Null;
    [
        (word, &lower, &white, &template, &none),
        (piece, &clean, &serde_json::json!({"type": "BertPreTokenizer"}), &bert, &padding),
        (pairs, &none, &bytes, &roberta, &none),
        (unigram, &prepend, &meta, &template, &padding),
        (serde_json::json!({"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocabulary}), &none, &split, &none, &padding),
    ]
    .into_iter()
    .map(|(model, normalizer, splitter, around, padding)| {
        let file = serde_json::json!({"version": "1.0", "truncation": null, "padding": padding, "added_tokens": added,
            "normalizer": normalizer, "pre_tokenizer": splitter, "post_processor": around, "decoder": null, "model": model});
        file.to_string().into_bytes()
    })
    .collect()
}

/// Sets of one image and of several, with objects of all sizes, crowds, and detections that hit and miss.
fn annotated() -> Seeds {
    let bbox =
        |i: usize| [(i % 3) as f64 * 9.5, (i % 5) as f64 * 7.0, 4.0 + 30.0 * (i % 4) as f64, 6.5 * (1 + i % 4) as f64];
    let set = |images: usize, objects: usize, found: usize| {
        let image =
            |i: usize| serde_json::json!({"id": 10 + i, "file_name": format!("{i}.png"), "width": 64, "height": 48});
        let object = |i: usize| {
            let [_, _, width, height] = bbox(i);
            serde_json::json!({"id": i + 1, "image_id": 10 + i % images, "category_id": 1 + 4 * (i % 2), "bbox": bbox(i),
                "area": width * height, "iscrowd": usize::from(i % 5 == 4), "segmentation": [[0, 0, 1, 1]]})
        };
        let detection = |i: usize| {
            let mut bbox = bbox(i / 2);
            bbox[2] += (i % 2) as f64;
            serde_json::json!({"image_id": 10 + i / 2 % images, "category_id": 1 + 4 * (i / 2 % 2), "bbox": bbox,
                "score": 1.0 / (1 + i % 7) as f64})
        };
        let list = |n: usize, make: &dyn Fn(usize) -> serde_json::Value| (0..n).map(make).collect::<Vec<_>>();
        let categories =
            serde_json::json!([{"id": 1, "name": "cat"}, {"id": 5, "name": "dog", "supercategory": "animal"}]);
        let root = serde_json::json!({"info": {"year": 2017}, "images": list(images, &image), "categories": categories,
            "annotations": list(objects, &object), "found": list(found, &detection)});
        root.to_string().into_bytes()
    };
    vec![set(1, 1, 1), set(3, 12, 20), set(2, 0, 3), set(2, 6, 0), set(4, 40, 60)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_accepted() {
        for target in Target::ALL {
            let all = match target {
                Target::Reader | Target::Plan => {
                    [convolutions(), attention(), recurrent()].iter().map(|g| onnx::to_bytes(g).unwrap()).collect()
                }
                Target::Arrays => arrays(),
                Target::Recipe => recipes(),
                Target::Tokenizer => tokenizers(),
                Target::Coco => annotated(),
            };
            for (i, seed) in all.iter().enumerate() {
                target.run(seed).unwrap_or_else(|e| panic!("{target}: seed {i}: {e}"));
            }
        }
    }
}

//! What is fuzzed.

use qdrop::data::{self, InputSpec, Limits, Prepare, Samples, Text};
use qdrop::eval::coco::{Detection, Truth};
use qdrop::graph::{Dim, Graph};
use qdrop::plan::{Recipe, Sweep, Task};
use qdrop::tensor::DType;
use qdrop::{Error, Kind, Result, onnx, pipeline};
use serde_json::Value;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

/// Size where a model leaves one open.
const OPEN: usize = 8;
/// Tokens of a sample of text.
const TOKENS: usize = 16;

/// Something that reads files from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// An ONNX model: read, written, read again.
    Reader,
    /// An ONNX model: read, simplified, planned, written.
    Plan,
    /// Arrays in `.npy`, `.npz` or `.safetensors`, by how the bytes begin.
    Arrays,
    /// Recipes and sweeps.
    Recipe,
    /// `tokenizer.json`.
    Tokenizer,
    /// Annotations of COCO, with a list `found` of detections beside them.
    Coco,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Reader => "reader",
            Target::Plan => "plan",
            Target::Arrays => "arrays",
            Target::Recipe => "recipe",
            Target::Tokenizer => "tokenizer",
            Target::Coco => "coco",
        })
    }
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 6] =
        [Target::Reader, Target::Plan, Target::Arrays, Target::Recipe, Target::Tokenizer, Target::Coco];

    /// The target of that name.
    pub fn named(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|t| t.to_string() == name)
    }

    /// Ending of the files that it takes.
    pub fn extension(self) -> &'static str {
        match self {
            Target::Reader | Target::Plan => "onnx",
            Target::Arrays => "arrays",
            Target::Recipe => "toml",
            Target::Tokenizer | Target::Coco => "json",
        }
    }

    /// Gives it `bytes`, which it may refuse.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn run(self, bytes: &[u8]) -> Result<()> {
        let result = match self {
            Target::Reader => reader(bytes),
            Target::Plan => plan(bytes),
            Target::Arrays => arrays(bytes),
            Target::Recipe => recipe(bytes),
            Target::Tokenizer => tokenizer(bytes),
            Target::Coco => coco(bytes),
        };
        match result {
            Err(e) if e.kind() == Kind::Internal => panic!("{e:?}"),
            other => other,
        }
    }
}

/// An error in what must not fail.
fn broken(what: &str) -> impl FnOnce(Error) -> Error + '_ {
    move |e| Error::internal(format!("{what}: {e}"))
}

/// What can be read can be written and read again, and then stays the same.
fn reader(bytes: &[u8]) -> Result<()> {
    let graph = onnx::read_bytes(bytes, None)?;
    graph.check().map_err(broken("a graph that was read is broken"))?;
    let written = onnx::to_bytes(&graph)?;
    let again = onnx::read_bytes(&written, None).map_err(broken("a written model cannot be read"))?;
    assert!(onnx::to_bytes(&again)? == written, "a model changes when it is read and written again");
    Ok(())
}

fn plan(bytes: &[u8]) -> Result<()> {
    let graph = onnx::read_bytes(bytes, None)?;
    let shapes = pipeline::declared_shapes(&graph).unwrap_or_else(|| assumed(&graph));
    let graph = pipeline::prepare(&graph, Some(&shapes))?;
    let written = onnx::to_bytes(&graph)?;
    onnx::read_bytes(&written, None).map_err(broken("a simplified model cannot be read"))?;
    let plan = pipeline::plan(&graph, &Recipe::default(), Some(&shapes))?;
    pipeline::cost(&graph, &plan, Some(&shapes))?;
    Ok(())
}

/// Shapes of a sample where the model leaves sizes open.
fn assumed(graph: &Graph) -> Vec<Vec<usize>> {
    let axes = graph.batch_axes();
    let one = |(&v, axis): (_, &Option<usize>)| {
        let shape = graph.value(v).fact.shape.as_deref().unwrap_or(&[Dim::Unknown, Dim::Unknown]);
        let size = |(i, dim): (usize, &Dim)| match dim {
            _ if Some(i) == *axis => None,
            Dim::Known(n) => Some(*n),
            _ => Some(OPEN),
        };
        shape.iter().enumerate().filter_map(size).collect()
    };
    graph.inputs.iter().zip(&axes).map(one).collect()
}

/// `bytes` in the file `name` of a folder of its own.
fn file<T>(name: &str, bytes: &[u8], read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let folder = tempfile::tempdir().expect("a folder for the input");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file for the input");
    read(&path)
}

/// The first and the last sample.
fn ends(samples: &dyn Samples) -> Result<()> {
    let Some(last) = samples.len().checked_sub(1) else { return Ok(()) };
    for i in [0, last] {
        samples.get(i)?;
        samples.target(i)?;
        samples.label(i);
        samples.name(i);
    }
    samples.held_bytes();
    samples.input_names();
    Ok(())
}

fn arrays(bytes: &[u8]) -> Result<()> {
    let kind = match bytes {
        [b'P', b'K', ..] => "x.npz",
        [0x93, ..] => "x.npy",
        _ => "x.safetensors",
    };
    let images = Prepare { resize: Some(6), crop: Some(4), ..Prepare::default() };
    let limits = Limits { memory: 256 << 20, ..Limits::default() };
    file(kind, bytes, |path| {
        ends(&data::open(path, &Prepare::default(), &limits)?)?;
        ends(&data::open(path, &images, &limits)?)
    })
}

/// What can be read can be written and read again; every recipe gives a plan or an error.
fn recipe(bytes: &[u8]) -> Result<()> {
    static NETWORK: OnceLock<Graph> = OnceLock::new();
    let text = String::from_utf8_lossy(bytes);
    if let Ok(sweep) = Sweep::from_toml(&text) {
        sweep.runs(Path::new("folder"))?;
        return Ok(());
    }
    let recipe = Recipe::from_toml(&text)?;
    let written = recipe.to_toml()?;
    let again = Recipe::from_toml(&written).map_err(broken("a written recipe cannot be read"))?;
    assert_eq!(again, recipe, "a recipe changes when it is written and read");
    recipe.resolved();
    let network = NETWORK.get_or_init(|| {
        pipeline::prepare(&crate::seeds::convolutions(), None).expect("the network of the seeds is simplified")
    });
    let plan = pipeline::plan(network, &recipe, None)?;
    pipeline::cost(network, &plan, None)?;
    Ok(())
}

fn tokenizer(bytes: &[u8]) -> Result<()> {
    let inputs = ["input_ids", "attention_mask", "token_type_ids"];
    let inputs = inputs.map(|name| InputSpec::new(name, DType::I64, [None]));
    let question = r#"{"data":[{"paragraphs":[{"context":"A bad day, and 4 good ones: été. 好 a b c d e f g h a b c d",
        "qas":[{"id":"1","question":"good?","answers":[{"text":"a"}]}]}]}]}"#;
    file("tokenizer.json", bytes, |tokenizer| {
        for (task, name, content) in [
            (Task::Mrpc, "dev.jsonl", r#"{"sentence1":"a good été 好","sentence2":"Bad, a  b\n#42", "label":1}"#),
            (Task::Squad, "dev.json", question),
        ] {
            let path = tokenizer.with_file_name(name);
            std::fs::write(&path, content).expect("a file of texts");
            let text = Text { task, tokenizer: tokenizer.into(), max_length: Some(TOKENS), doc_stride: 2 };
            ends(&data::open_text(&path, &text, &inputs, None, &data::Limits::default())?)?;
        }
        Ok(())
    })
}

/// Whatever detections can be read have figures from 0 to 100, and are the same when they are written and read again.
fn coco(bytes: &[u8]) -> Result<()> {
    let truth = Truth::parse(bytes)?;
    let root: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let found = truth.detections(root["found"].to_string().as_bytes())?;
    let images: Vec<i64> = truth.images().iter().map(|image| image.id).collect();
    let figures = truth.figures(&images, &found)?;
    for (name, figure) in figures.iter() {
        assert!((0.0..=100.0).contains(&figure), "{name} is {figure}");
    }
    let written = Detection::results(&found).map_err(broken("detections cannot be written"))?;
    let again = truth.detections(written.as_bytes()).map_err(broken("written detections cannot be read"))?;
    assert!(again == found, "detections change when they are written and read again");
    Ok(())
}

//! ModelProto to [`Graph`].

use super::attrs::{Attrs, describe, is_default, set, string, subgraphs};
use super::facts::{ValueOrigin, fact, keep};
use super::parse;
use super::proto::*;
use super::raise::{Raiser, import};
use super::{external, order, qonnx, schema, tensor};
use crate::error::{Error, Result};
use crate::graph::*;
use crate::tensor::{Data, Tensor};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// The newest IR version that the messages cover.
const NEWEST_IR: i64 = 14;
/// The level of the IR: older models are raised to it.
const LEVEL: u64 = 13;

/// The message of an encoded model, of an IR version whose fields are known.
pub fn decode(bytes: Bytes) -> Result<ModelProto> {
    let what = "give an ONNX model, usually a file that ends in .onnx";
    if bytes.is_empty() {
        return Err(Error::model("the file is empty").hint(what));
    }
    if let Some((found, advice)) = foreign(&bytes) {
        return Err(Error::model(format!("expected an ONNX model, got {found}")).hint(advice));
    }
    let model = ModelProto::decode(bytes).map_err(|e| {
        Error::model(format!("not a readable ONNX model: {e}"))
            .hint("the file is truncated, damaged, or of another type")
    })?;
    let (Some(ir), Some(_)) = (model.ir_version, &model.graph) else {
        return Err(Error::model("not an ONNX model: it has no IR version or no graph").hint(what));
    };
    if !(3..=NEWEST_IR).contains(&ir) {
        return Err(Error::unsupported(format!("IR version {ir}, expected 3 to {NEWEST_IR}"))
            .hint("convert the model with a matching release of onnx"));
    }
    Ok(model)
}

/// What a file that is no ONNX model is by its first bytes, and what to do with it.
fn foreign(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let torch = "load it in PyTorch and export the network: torch.onnx.export(model, example, \"model.onnx\")";
    let convert = "convert it to ONNX first, for instance with tf2onnx";
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    let page = |word: &[u8]| bytes.len() >= word.len() && bytes[..word.len()].eq_ignore_ascii_case(word);
    Some(match () {
        () if begins(b"version https://git-lfs") => {
            ("a Git LFS pointer instead of the file", "fetch the file itself with `git lfs pull`")
        }
        () if begins(b"PK\x03\x04") => ("a zip archive, as PyTorch's checkpoints are", torch),
        () if bytes.len() > 2 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) => {
            ("a Python pickle, as PyTorch's older checkpoints are", torch)
        }
        () if begins(b"\x89HDF") => ("an HDF5 file, as Keras writes", convert),
        () if bytes.get(4..8) == Some(b"TFL3") => ("a TensorFlow Lite model", convert),
        () if begins(b"\x1f\x8b") => ("a gzip archive", "unpack it first"),
        () if bytes.get(8..10) == Some(b"{\"") => ("weights in the safetensors format, without a network", torch),
        () if page(b"<!doctype html") || page(b"<html") => {
            ("an HTML page", "download the file itself, not the page about it")
        }
        () => return None,
    })
}

/// The graph of an encoded model whose external data lies in `dirs`.
pub fn read(bytes: Bytes, dirs: &[PathBuf]) -> Result<Graph> {
    let mut model = decode(bytes)?;
    external::load(&mut model, dirs)?;
    let opset = opset(&model)?;
    known(&model, opset)?;
    if opset < LEVEL {
        Raiser::new(opset, LEVEL).model(&mut model)?;
    }
    Builder::default().build(model, opset.max(LEVEL))
}

/// An error where a node is newer than the operator set that the model declares.
fn known(model: &ModelProto, opset: u64) -> Result<()> {
    let own = |n: &NodeProto| model.functions.iter().any(|f| f.domain() == n.domain() && f.name() == n.op_type());
    for node in model.graph.iter().flat_map(|g| &g.node).filter(|n| is_default(n.domain())) {
        let since = schema::history(node.op_type()).map(|h| h.0);
        if let Some(since) = since.filter(|&s| s > opset && !own(node)) {
            let message = format!("operator {} exists since opset {since}, the model declares {opset}", node.op_type());
            return Err(Error::model(message).at(describe(node)).hint("export the model again with a newer opset"));
        }
    }
    Ok(())
}

fn opset(model: &ModelProto) -> Result<u64> {
    let versions: HashSet<i64> =
        model.opset_import.iter().filter(|i| is_default(i.domain())).map(|i| i.version()).collect();
    if versions.len() > 1 {
        return Err(Error::model("two versions of the default operator set are imported"));
    }
    let nodes = model.graph.iter().flat_map(|g| &g.node);
    match import(&model.opset_import) {
        Some(v) if (7..=schema::NEWEST).contains(&v) => Ok(v),
        Some(v) => Err(Error::unsupported(format!("opset {v}, expected 7 to {}", schema::NEWEST))
            .hint("convert the model with onnx.version_converter or export it again")),
        None => match nodes.into_iter().find(|n| is_default(n.domain())) {
            Some(node) => Err(Error::model("the model imports no default operator set").at(describe(node))),
            None => Ok(LEVEL),
        },
    }
}

/// A graph in the making.
#[derive(Default)]
pub(super) struct Builder {
    pub graph: Graph,
    pub ids: HashMap<String, ValueId>,
    /// Names that some node, subgraph or the graph's outputs read.
    pub read: HashSet<String>,
    /// Per name: how many others were built from it.
    pub built: HashMap<String, usize>,
    /// Operators defined by the model itself.
    pub functions: HashSet<(String, String)>,
}

impl Builder {
    /// The graph of `model`, whose operators are those of `opset`.
    pub fn build(mut self, mut model: ModelProto, opset: u64) -> Result<Graph> {
        let mut proto = model.graph.take().unwrap_or_default();
        self.graph.name = proto.name.take().unwrap_or_default();
        self.graph.opset = opset;
        self.functions = model.functions.iter().map(|f| (f.domain().into(), f.name().into())).collect();
        let mut infos: HashMap<String, ValueInfoProto> = HashMap::new();
        // Of several declarations of one name the first holds.
        for info in std::mem::take(&mut proto.value_info) {
            infos.entry(info.name().to_string()).or_insert(info);
        }
        let outputs = std::mem::take(&mut proto.output);
        for info in outputs.iter().chain(&proto.input) {
            infos.insert(info.name().to_string(), info.clone());
        }
        self.read.extend(outputs.iter().map(|o| o.name().to_string()));
        let mut nodes = std::mem::take(&mut proto.node);
        let reads: Vec<Vec<String>> = nodes.iter().map(order::reads).collect();
        self.read.extend(reads.iter().flatten().cloned());
        let given = self.leaves(&mut proto)?;
        nodes = order::sort(nodes, reads, &given)?;
        for node in nodes {
            let place = describe(&node);
            self.node(node).map_err(|e| e.at(place))?;
        }
        for info in &outputs {
            let id = self.ids.get(info.name()).ok_or_else(|| {
                Error::model(format!("graph output `{}` is never computed", info.name())).hint("the file is damaged")
            })?;
            self.graph.outputs.push(*id);
        }
        self.declare(&mut infos)?;
        // Declarations of names that are not there are kept in the order of the names.
        let mut loose: Vec<ValueInfoProto> = infos.into_values().collect();
        loose.sort_by(|a, b| a.name().cmp(b.name()));
        proto.value_info = loose;
        model.graph = Some(proto);
        self.graph.origin = Some(keep(&model));
        self.graph.check()?;
        Ok(self.graph)
    }

    /// Adds graph inputs and initializers; afterwards `proto` keeps the inputs' names only.
    fn leaves(&mut self, proto: &mut GraphProto) -> Result<HashSet<String>> {
        let mut listed = HashSet::new();
        for info in &mut proto.input {
            if !listed.insert(info.name().to_string()) {
                return Err(Error::model(format!("graph input `{}` is listed twice", info.name())));
            }
        }
        let mut constants: HashMap<String, (Tensor, ValueOrigin)> = HashMap::new();
        let mut names = Vec::new();
        for mut t in std::mem::take(&mut proto.initializer) {
            let name = t.name.take().unwrap_or_default();
            let extra = TensorProto {
                doc_string: t.doc_string.take(),
                metadata_props: std::mem::take(&mut t.metadata_props),
                ..Default::default()
            };
            let tensor = tensor::decode(TensorProto { name: Some(name.clone()), ..t })?;
            let origin =
                ValueOrigin { tensor: Some(extra).filter(|e| *e != TensorProto::default()), ..Default::default() };
            names.push(name.clone());
            if constants.insert(name.clone(), (tensor, origin)).is_some() {
                return Err(twice(&name));
            }
        }
        for sparse in std::mem::take(&mut proto.sparse_initializer) {
            let name = sparse.values.as_ref().map_or("", |v| v.name()).to_string();
            let tensor = tensor::densify(&sparse)?;
            let origin = ValueOrigin { sparse: Some(sparse), ..Default::default() };
            names.push(name.clone());
            if constants.insert(name.clone(), (tensor, origin)).is_some() {
                return Err(twice(&name));
            }
        }
        for info in &proto.input {
            if !constants.contains_key(info.name()) {
                let id = self.define(info.name())?;
                self.graph.inputs.push(id);
            }
        }
        for name in &names {
            if let Some((tensor, mut origin)) = constants.remove(name) {
                origin.listed = listed.contains(name);
                origin.unread = !self.read.contains(name);
                let id = self.constant(name, tensor)?;
                self.graph.value_mut(id).origin =
                    Some(origin).filter(|o| *o != ValueOrigin::default()).map(|o| keep(&o));
            }
        }
        for info in &mut proto.input {
            *info = ValueInfoProto { name: info.name.take(), ..Default::default() };
        }
        Ok(self.ids.keys().cloned().collect())
    }

    fn define(&mut self, name: &str) -> Result<ValueId> {
        if name.is_empty() {
            return Err(Error::model("a graph input or initializer has an empty name").hint("export the model again"));
        }
        let id = u32::try_from(self.graph.values.len()).map_err(|_| Error::unsupported("too many values"))?;
        if self.ids.insert(name.to_string(), ValueId(id)).is_some() {
            return Err(twice(name));
        }
        let value = Value { name: name.to_string(), fact: Fact::default(), constant: None, origin: None };
        self.graph.values.push(value);
        Ok(ValueId(id))
    }

    /// Adds a constant.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> Result<ValueId> {
        let id = self.define(name)?;
        let value = self.graph.value_mut(id);
        let shape = tensor.shape().iter().map(|&d| Dim::Known(d)).collect();
        value.fact = Fact { dtype: Some(tensor.dtype()), shape: Some(shape) };
        value.constant = Some(Arc::new(tensor));
        Ok(id)
    }

    /// Gives values what the file declares of them; what is left in `infos` declares nothing that exists.
    fn declare(&mut self, infos: &mut HashMap<String, ValueInfoProto>) -> Result<()> {
        for value in &mut self.graph.values {
            let Some(mut info) = infos.remove(&value.name) else { continue };
            if value.constant.is_none() {
                value.fact = fact(&info);
                let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 1 };
                let sizes: Vec<usize> = value.fact.shape.iter().flatten().map(size).collect();
                tensor::addressable(&sizes).map_err(|e| e.at(format!("value `{}`", value.name)))?;
            }
            let mut origin: ValueOrigin = super::facts::kept(&value.origin)?;
            info.name = None;
            origin.info = Some(info);
            value.origin = Some(keep(&origin));
        }
        Ok(())
    }

    /// Adds a node whose operands are there.
    pub fn node(&mut self, mut node: NodeProto) -> Result<()> {
        let modelled = is_default(node.domain()) || qonnx::is_quant(&node);
        let ours = !modelled || self.functions.contains(&(node.domain().to_string(), node.op_type().to_string()));
        if !ours && node.op_type() == "Constant" {
            let name = node.output.first().cloned().unwrap_or_default();
            let tensor = constant_node(&node)?;
            self.constant(&name, tensor)?;
            return Ok(());
        }
        let mut captures = Vec::new();
        for name in subgraphs(&node).flat_map(order::captures) {
            let id = self.lookup(&name)?;
            if !captures.contains(&id) {
                captures.push(id);
            }
        }
        // Before opset 21 scale and bias were per group.
        let ours = ours || (node.op_type() == "GroupNormalization" && self.graph.opset < 21);
        let op = if ours {
            Op::Opaque { domain: node.domain().to_string(), kind: node.op_type().to_string() }
        } else {
            self.normalise(&mut node)?;
            parse::op(&node)?
        };
        let inputs = node
            .input
            .iter()
            .map(|name| if name.is_empty() { Ok(None) } else { self.lookup(name).map(Some) })
            .collect::<Result<Vec<_>>>()?;
        let outputs = node
            .output
            .iter()
            .map(|name| if name.is_empty() { Ok(None) } else { self.define(name).map(Some) })
            .collect::<Result<Vec<_>>>()?;
        let name = node.name.take().unwrap_or_default();
        node.input.clear();
        node.output.clear();
        self.graph.nodes.push(Node { name, op, inputs, outputs, captures, origin: Some(keep(&node)) });
        Ok(())
    }

    /// The value of a name.
    pub fn lookup(&self, name: &str) -> Result<ValueId> {
        self.ids.get(name).copied().ok_or_else(|| order::nobody(name))
    }

    /// Brings a node that the IR models to its form: operands as of opset 18, no results that nobody reads where
    /// operators have optional ones, Dropout at inference as Identity, newer names as the older ones.
    fn normalise(&mut self, node: &mut NodeProto) -> Result<()> {
        let kind = node.op_type().to_string();
        if matches!(kind.as_str(), "Dropout" | "MaxPool" | "BatchNormalization" | "LayerNormalization" | "Attention") {
            while node.output.len() > 1 && node.output.last().is_some_and(|o| !self.read.contains(o)) {
                node.output.pop();
            }
        }
        if kind == "IntQuant" {
            node.op_type = Some("Quant".to_string());
        }
        if parse::reduction(&kind).is_some()
            && let Some(axes) = Attrs::new(node).opt_ints("axes")?
        {
            node.attribute.retain(|a| a.name() != "axes");
            let base = node.output.first().cloned().unwrap_or_default();
            let mut name = format!("{base}/axes");
            while self.ids.contains_key(&name) || self.read.contains(&name) {
                name.push('_');
            }
            self.constant(&name, Tensor::i64s(axes))?;
            node.input.truncate(1);
            node.input.push(name);
        }
        if kind == "RoiAlign" && self.graph.opset < 16 {
            set(node, string("coordinate_transformation_mode", "output_half_pixel"));
        }
        if kind == "Split" {
            node.attribute.retain(|a| a.name() != "num_outputs");
        }
        if kind == "Dropout" && node.output.len() == 1 {
            let training = node.input.get(2).filter(|n| !n.is_empty());
            let off = |n: &String| {
                let id = self.ids.get(n)?;
                matches!(self.graph.constant(*id)?.data(), Data::Bool(v) if v == &[false]).then_some(())
            };
            if training.is_none_or(|n| off(n).is_some()) {
                node.op_type = Some("Identity".to_string());
                node.attribute.clear();
                node.input.truncate(1);
            }
        }
        Ok(())
    }
}

fn twice(name: &str) -> Error {
    Error::model(format!("value `{name}` is defined twice"))
        .hint("names of values must be unique; export the model again")
}

/// The content of a Constant node.
fn constant_node(node: &NodeProto) -> Result<Tensor> {
    let a = Attrs::new(node);
    if let Some(t) = a.tensor("value")? {
        return tensor::decode(t.clone());
    }
    let find = |name: &str| node.attribute.iter().find(|x| x.name() == name);
    if let Some(s) = find("sparse_value").and_then(|x| x.sparse_tensor.as_ref()) {
        return tensor::densify(s);
    }
    let scalar = |data| Tensor::new(Vec::new(), data);
    if let Some(v) = find("value_float") {
        return scalar(Data::F32(vec![v.f()]));
    }
    if let Some(v) = find("value_int") {
        return scalar(Data::I64(vec![v.i()]));
    }
    if let Some(v) = find("value_string") {
        return scalar(Data::String(vec![v.s.clone().unwrap_or_default()]));
    }
    if let Some(v) = a.opt_floats("value_floats")? {
        return Tensor::new(vec![v.len()], Data::F32(v));
    }
    if let Some(v) = a.opt_ints("value_ints")? {
        return Ok(Tensor::i64s(v));
    }
    if let Some(v) = find("value_strings") {
        return Tensor::new(vec![v.strings.len()], Data::String(v.strings.clone()));
    }
    Err(Error::model("a Constant has no value"))
}

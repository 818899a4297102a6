//! Faithful reading and writing of ONNX files, from and to a [`Graph`].
//!
//! What the graph does not model (operators that are only carried, metadata, functions, documentation, types other than
//! tensors) is kept in [`Origin`](crate::graph::Origin)s and written again. Models of opset 7 to 12 are raised to 13 on
//! reading; newer ones keep their opset. In the graph operands always have the form of opset 18, in which the axes of
//! reductions are operands; the writer gives each node the form of [`Graph::opset`].
//!
//! Three things differ after a round trip: Constant nodes become initializers, Dropout at inference becomes Identity,
//! and tensors are stored as raw bytes. External data is loaded, and written as such only if the model is too large for
//! one message.
//!
//! If [`Node::op`](crate::graph::Node::op) of a node is changed, its origin must be removed; a node without an origin
//! is written from its operator. Unused constants are not written.

mod attrs;
mod body;
mod emit;
mod external;
mod facts;
mod inline;
mod loops;
mod ml;
mod order;
mod parse;
mod proto;
mod qonnx;
mod raise;
mod reader;
mod recurrent;
mod schema;
mod steps;
#[cfg(test)]
mod steps_tests;
mod tensor;

#[cfg(test)]
mod tests;
mod writer;

pub use body::Known;
pub use inline::{branch, inline, inline_with, unfold};
pub use loops::loop_bodies;

use crate::error::{Error, Result};
use crate::graph::{Graph, Op};
use prost::Message as _;
use prost::bytes::Bytes;
use std::path::{Path, PathBuf};

/// The newest version of the default operator set that can be read and written.
pub const NEWEST_OPSET: u64 = schema::NEWEST;

/// Reads the model at `path` with its external data.
///
/// Errors name the file and the node, tensor or value at fault.
pub fn read(path: &Path) -> Result<Graph> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e).hint("give the path of an ONNX model"))?;
    reader::read(bytes.into(), &directories(path)).map_err(|e| e.at(format!("file {}", path.display())))
}

/// The files that the model at `path` takes: its own, and those with external data that it names.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e).hint("give the path of an ONNX model"))?;
    let place = |e: Error| e.at(format!("file {}", path.display()));
    let mut model = reader::decode(bytes.into()).map_err(place)?;
    let external = external::files(&mut model, &directories(path)).map_err(place)?;
    Ok([path.to_path_buf()].into_iter().chain(external).collect())
}

/// Bytes that the [`files`] of the model at `path` take.
pub fn size_on_disk(path: &Path) -> Result<u64> {
    let size = |file: &PathBuf| std::fs::metadata(file).map(|m| m.len()).map_err(|e| Error::io(file, e));
    files(path)?.iter().map(size).sum()
}

/// The operators of the default set: name, the version that introduced it in the form that is read, and the operator
/// without attributes, where it needs none; one that is carried is [`Op::Opaque`].
pub fn operators() -> impl Iterator<Item = (&'static str, u64, Option<Op>)> {
    schema::all().map(|(name, since)| {
        let since = if name == "GroupNormalization" { 21 } else { since };
        let node = proto::NodeProto { op_type: Some(name.to_string()), ..Default::default() };
        (name, since, parse::op(&node).ok())
    })
}

/// Where external data of the model at `path` may lie.
fn directories(path: &Path) -> Vec<PathBuf> {
    let parent = |p: &Path| match p.parent() {
        Some(d) if !d.as_os_str().is_empty() => d.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut dirs = vec![parent(path)];
    // A model reached through a link may have its data beside the real file.
    dirs.extend(path.canonicalize().ok().map(|p| parent(&p)));
    dirs
}

/// Reads an encoded model; external data is looked for in `dir` and refused without one.
pub fn read_bytes(bytes: &[u8], dir: Option<&Path>) -> Result<Graph> {
    reader::read(Bytes::copy_from_slice(bytes), &dir.map(Path::to_path_buf).into_iter().collect::<Vec<_>>())
}

/// Writes `graph` to `path`: to a temporary file beside it that is then renamed, so that no partial file is ever seen,
/// and the disk has all of it afterwards. A model too large for one message (2 GiB) gets its data in `<name>.data`
/// beside it.
pub fn write(graph: &Graph, path: &Path) -> Result<()> {
    write_with_threshold(graph, path, writer::THRESHOLD)
}

/// As [`write()`], with external data when all constants together take more than `threshold` bytes.
pub fn write_with_threshold(graph: &Graph, path: &Path, threshold: u64) -> Result<()> {
    writer::write(graph, path, threshold)
}

/// The encoded model with all data inside; an error when it would be larger than 2 GiB.
pub fn to_bytes(graph: &Graph) -> Result<Vec<u8>> {
    writer::to_bytes(graph)
}

/// Raises the default operator set of `graph` to `target` (13 to [`NEWEST_OPSET`]); nothing happens when it is there
/// already. An error names the carried node that cannot be raised, and leaves the graph as it was.
pub fn raise_opset(graph: &mut Graph, target: u64) -> Result<()> {
    if !(13..=NEWEST_OPSET).contains(&target) {
        return Err(Error::unsupported(format!("opset {target}, expected 13 to {NEWEST_OPSET}")));
    }
    if target <= graph.opset {
        return Ok(());
    }
    let mut raiser = raise::Raiser::new(graph.opset, target);
    for value in &graph.values {
        raiser.note_value(&value.name, value.fact.dtype, None);
    }
    let mut model: proto::ModelProto = facts::kept(&graph.origin)?;
    raiser.model(&mut model)?;
    let mut raised = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        // Operators that the IR models stand in the newest form already.
        if !matches!(&node.op, Op::Opaque { domain, .. } if attrs::is_default(domain)) {
            continue;
        }
        let mut proto: proto::NodeProto =
            if node.origin.is_some() { facts::kept(&node.origin)? } else { emit::node(&node.op) };
        let name = |v: &Option<_>| v.map_or(String::new(), |v| graph.value(v).name.clone());
        proto.name = Some(node.name.clone());
        proto.input = node.inputs.iter().map(name).collect();
        proto.output = node.outputs.iter().map(name).collect();
        let mut list = vec![proto];
        raiser.nodes(&mut list)?;
        raised.push((id, list));
    }
    for (id, list) in raised {
        for mut proto in list {
            if proto.op_type() == "Constant" {
                let value = proto.attribute.pop().and_then(|a| a.t).unwrap_or_default();
                graph.add_constant(&proto.output.concat(), tensor::decode(value)?);
                continue;
            }
            let find = |n: &String| graph.value_ids().find(|&v| graph.value(v).name == *n);
            let inputs = proto.input.iter().map(find).collect();
            proto.name = None;
            proto.input.clear();
            proto.output.clear();
            let op = Op::Opaque { domain: proto.domain().to_string(), kind: proto.op_type().to_string() };
            let node = &mut graph.nodes[id.0 as usize];
            (node.op, node.inputs, node.origin) = (op, inputs, Some(facts::keep(&proto)));
        }
    }
    if graph.origin.is_some() {
        graph.origin = Some(crate::graph::Origin(model.encode_to_vec().into()));
    }
    graph.opset = target;
    Ok(())
}

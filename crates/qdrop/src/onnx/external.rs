//! Tensor data kept in files beside the model.

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use super::tensor;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// TensorProto.DataLocation.EXTERNAL.
pub const EXTERNAL: i32 = 1;

/// Loads external data of every tensor of `model` that lies in `dirs` (the model's own directory first);
/// a file is only opened inside one of them.
pub fn load(model: &mut ModelProto, dirs: &[PathBuf]) -> Result<()> {
    each_in_model(model, &mut |t| if t.data_location() == EXTERNAL { fetch(t, dirs) } else { Ok(()) })
}

/// The files with external data that `model` names, each once.
pub fn files(model: &mut ModelProto, dirs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    each_in_model(model, &mut |t| {
        if t.data_location() == EXTERNAL {
            files.insert(locate(entry(t, "location").unwrap_or(""), dirs).map_err(|e| e.at(tensor::describe(t)))?);
        }
        Ok(())
    })?;
    Ok(files)
}

fn each_in_model(model: &mut ModelProto, visit: Visit) -> Result<()> {
    if let Some(graph) = &mut model.graph {
        each_in_graph(graph, visit)?;
    }
    for training in &mut model.training_info {
        for graph in training.initialization.iter_mut().chain(&mut training.algorithm) {
            each_in_graph(graph, visit)?;
        }
    }
    for function in &mut model.functions {
        each_in_nodes(&mut function.node, visit)?;
        each_in_attributes(&mut function.attribute_proto, visit)?;
    }
    Ok(())
}

type Visit<'a> = &'a mut dyn FnMut(&mut TensorProto) -> Result<()>;

fn each_in_graph(graph: &mut GraphProto, visit: Visit) -> Result<()> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    graph.sparse_initializer.iter_mut().try_for_each(|s| each_in_sparse(s, visit))?;
    each_in_nodes(&mut graph.node, visit)
}

fn each_in_nodes(nodes: &mut [NodeProto], visit: Visit) -> Result<()> {
    nodes.iter_mut().try_for_each(|node| each_in_attributes(&mut node.attribute, visit))
}

fn each_in_attributes(attributes: &mut [AttributeProto], visit: Visit) -> Result<()> {
    for a in attributes {
        a.t.iter_mut().chain(&mut a.tensors).try_for_each(&mut *visit)?;
        a.sparse_tensor.iter_mut().chain(&mut a.sparse_tensors).try_for_each(|s| each_in_sparse(s, visit))?;
        for graph in a.g.iter_mut().chain(&mut a.graphs) {
            each_in_graph(graph, visit)?;
        }
    }
    Ok(())
}

fn each_in_sparse(sparse: &mut SparseTensorProto, visit: Visit) -> Result<()> {
    sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(visit)
}

/// Moves the bytes of one tensor from its file into `raw_data`.
fn fetch(proto: &mut TensorProto, dirs: &[PathBuf]) -> Result<()> {
    let place = tensor::describe(proto);
    read_external(proto, dirs).map_err(|e| e.at(place))
}

fn entry<'a>(proto: &'a TensorProto, key: &str) -> Option<&'a str> {
    proto.external_data.iter().find(|e| e.key() == key).map(|e| e.value())
}

fn read_external(proto: &mut TensorProto, dirs: &[PathBuf]) -> Result<()> {
    let number = |key: &str| -> Result<Option<u64>> {
        let bad = |v: &str| Error::model(format!("external data has {key} `{v}`, expected a number of bytes"));
        entry(proto, key).map(|v| v.trim().parse::<u64>().map_err(|_| bad(v))).transpose()
    };
    let location = entry(proto, "location").unwrap_or("").to_string();
    let path = locate(&location, dirs)?;
    let (dtype, shape) = tensor::declared(proto)?;
    let want = tensor::packed_bytes(dtype, &shape)?;
    let at_file = |e: Error| e.at(format!("external file {}", path.display()));
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(want as u64));
    if length != want as u64 {
        let what = format!("shape {shape:?} of {dtype:?} takes {want} bytes, external data has length {length}");
        return Err(at_file(Error::model(what)));
    }
    let mut file = File::open(&path).map_err(|e| Error::io(&path, e))?;
    let size = file.metadata().map_err(|e| Error::io(&path, e))?.len();
    if offset.checked_add(length).is_none_or(|end| end > size) {
        let what = format!("needs bytes {offset} to {offset}+{length}, the file has {size}");
        return Err(at_file(Error::model(what).hint("the file is truncated or belongs to another model")));
    }
    let mut bytes = vec![0u8; want];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(|e| Error::io(&path, e))?;
    proto.raw_data = Some(bytes.into());
    proto.data_location = None;
    proto.external_data.clear();
    Ok(())
}

/// The file that `location` names, refused when it leads out of the directories.
fn locate(location: &str, dirs: &[PathBuf]) -> Result<PathBuf> {
    let Some(base) = dirs.first() else {
        return Err(Error::model(format!(
            "data is in the external file `{location}`, but the model's directory is unknown"
        ))
        .hint("read the model from its file"));
    };
    let relative = Path::new(location);
    let inside = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !inside || location.contains('\0') {
        return Err(Error::model(format!("external data location `{location}` is outside the model's directory"))
            .hint("store the data next to the model"));
    }
    let path = base.join(relative);
    let real = path
        .canonicalize()
        .map_err(|e| Error::io(&path, e).hint("external data is missing; copy it next to the model file"))?;
    let allowed = dirs.iter().filter_map(|d| d.canonicalize().ok()).any(|d| real.starts_with(d));
    if !allowed {
        return Err(Error::model(format!(
            "external data location `{location}` is a link to a file outside the model's directory"
        ))
        .hint("store the data next to the model"));
    }
    if !real.is_file() {
        return Err(Error::model(format!("external data location `{location}` is not a file")));
    }
    Ok(real)
}

//! [`Graph`] to ModelProto, and to files.

use super::attrs::subgraphs;
use super::facts::{ValueOrigin, declare, fact, kept};
use super::proto::*;
use super::raise::set_import;
use super::{emit, external, order, tensor};
use crate::disk;
use crate::error::{Error, Result};
use crate::graph::*;
use crate::tensor::Tensor;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

/// Most bytes one protobuf message can have.
const LIMIT: usize = i32::MAX as usize;
/// Bytes of constants from which a file gets external data; leaves room for everything else.
pub const THRESHOLD: u64 = 2_000_000_000;
/// Smaller tensors stay in the model.
const SMALL: usize = 1024;
/// Offsets in the data file are multiples of this, so that it can be mapped into memory.
const PAGE: u64 = 4096;

/// Where the bytes of an initializer go.
type Store<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<TensorProto>;

/// The encoded model, all data inside.
pub fn to_bytes(graph: &Graph) -> Result<Vec<u8>> {
    encode(&model(graph, &mut |name, t| Ok(tensor::encode(name, t)))?)
}

fn encode(model: &ModelProto) -> Result<Vec<u8>> {
    let size = model.encoded_len();
    if size > LIMIT {
        return Err(Error::unsupported(format!("the model has {size} bytes, one message can have at most {LIMIT}"))
            .hint("write it to a file with external data"));
    }
    Ok(model.encode_to_vec())
}

/// Writes the model to `path`; with more than `threshold` bytes of constants these go to `<name>.data` beside it.
pub fn write(graph: &Graph, path: &Path, threshold: u64) -> Result<()> {
    let bytes: u64 = graph
        .values
        .iter()
        .filter_map(|v| v.constant.as_ref())
        .map(|t| tensor::packed_bytes(t.dtype(), t.shape()).map(|n| n as u64))
        .sum::<Result<u64>>()?;
    let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| {
        Error::new(crate::Kind::Io, "the output path has no file name").at(path.display()).hint("give a file name")
    })?;
    let dir = disk::folder(path);
    if bytes <= threshold {
        let mut file = temporary(dir)?;
        file.write_all(&to_bytes(graph)?).map_err(|e| Error::io(path, e))?;
        return disk::put_in_place(file, path).map_err(|e| Error::io(path, e));
    }
    let data_name = format!("{name}.data");
    let data_path = dir.join(&data_name);
    let mut data = std::io::BufWriter::new(temporary(dir)?);
    let mut end = 0u64;
    let model = model(graph, &mut |name, t| {
        let Some(bytes) = t.to_le_bytes().filter(|b| b.len() >= SMALL) else {
            return Ok(tensor::encode(name, t));
        };
        let offset = end.next_multiple_of(PAGE);
        let pad = vec![0u8; (offset - end) as usize];
        data.write_all(&pad).and_then(|()| data.write_all(&bytes)).map_err(|e| Error::io(&data_path, e))?;
        end = offset + bytes.len() as u64;
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        Ok(TensorProto {
            data_location: Some(external::EXTERNAL),
            external_data: vec![
                entry("location", data_name.clone()),
                entry("offset", offset.to_string()),
                entry("length", bytes.len().to_string()),
            ],
            ..tensor::header(name, t)
        })
    })?;
    let mut file = temporary(dir)?;
    file.write_all(&encode(&model)?).map_err(|e| Error::io(path, e))?;
    let data = data.into_inner().map_err(|e| Error::io(&data_path, e.into_error()))?;
    disk::put_in_place(data, &data_path).map_err(|e| Error::io(&data_path, e))?;
    disk::put_in_place(file, path).map_err(|e| Error::io(path, e))
}

fn temporary(dir: &Path) -> Result<NamedTempFile> {
    disk::temporary_file(dir).map_err(|e| Error::io(dir, e).hint("give an output path that can be written"))
}

/// The least IR version whose release has `opset`.
fn ir_version(opset: u64) -> i64 {
    const FIRST: &[(u64, i64)] =
        &[(28, 14), (25, 13), (24, 12), (23, 11), (21, 10), (19, 9), (15, 8), (12, 7), (11, 6)];
    FIRST.iter().find(|f| opset >= f.0).map_or(5, |f| f.1)
}

/// The message of a graph; `store` decides where tensors go.
fn model(graph: &Graph, store: Store) -> Result<ModelProto> {
    graph.check()?;
    let mut model: ModelProto = kept(&graph.origin)?;
    model.ir_version = Some(model.ir_version().max(ir_version(graph.opset)));
    set_import(&mut model.opset_import, graph.opset);
    if graph.origin.is_none() {
        model.producer_name = Some(env!("CARGO_PKG_NAME").to_string());
        model.producer_version = Some(env!("CARGO_PKG_VERSION").to_string());
    }
    let mut proto = model.graph.take().unwrap_or_default();
    // The checker wants a name.
    proto.name = Some(if graph.name.is_empty() { "graph".to_string() } else { graph.name.clone() });
    let origins = graph.values.iter().map(|v| kept(&v.origin)).collect::<Result<Vec<ValueOrigin>>>()?;
    let bare = graph
        .nodes
        .iter()
        .map(|n| if n.origin.is_some() { kept(&n.origin) } else { Ok(emit::node(&n.op)) })
        .collect::<Result<Vec<NodeProto>>>()?;
    let names = names(graph, &bare);
    let by_name: HashMap<&str, ValueId> = graph.value_ids().map(|v| (names[v.0 as usize].as_str(), v)).collect();
    let name_of = |v: &Option<ValueId>| v.map_or(String::new(), |v| names[v.0 as usize].clone());
    let mut used: HashSet<&str> = HashSet::new();
    for (id, mut node) in graph.node_ids().zip(bare) {
        let ours = graph.node(id);
        if node.op_type() != ours.op.kind() {
            return Err(Error::internal(format!("the origin is of another operator ({})", node.op_type()))
                .at(graph.describe(id)));
        }
        node.name = Some(ours.name.clone()).filter(|n| !n.is_empty());
        node.input =
            ours.inputs.iter().map(|v| v.filter(|&v| !left_out(graph, &ours.op, v))).map(|v| name_of(&v)).collect();
        node.output = ours.outputs.iter().map(name_of).collect();
        let integers = |name: &str| by_name.get(name).and_then(|&v| graph.constant(v)).and_then(|t| t.to_i64().ok());
        emit::fit(&mut node, graph.opset, integers).map_err(|e| e.at(graph.describe(id)))?;
        import_domain(&mut model.opset_import, node.domain());
        used.extend(node.input.iter().filter_map(|n| by_name.get_key_value(n.as_str()).map(|e| *e.0)));
        used.extend(ours.captures.iter().map(|v| names[v.0 as usize].as_str()));
        proto.node.push(node);
    }
    used.extend(graph.outputs.iter().map(|v| names[v.0 as usize].as_str()));
    let edge: HashSet<ValueId> = graph.inputs.iter().chain(&graph.outputs).copied().collect();
    let computed: HashSet<ValueId> = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten()).copied().collect();
    let mut listed: HashMap<&str, ValueInfoProto> = HashMap::new();
    for (id, origin) in graph.value_ids().zip(origins) {
        let (value, name) = (graph.value(id), names[id.0 as usize].as_str());
        let Some(constant) = &value.constant else {
            if computed.contains(&id) && !edge.contains(&id) && (origin.info.is_some() || value.fact.dtype.is_some()) {
                proto.value_info.push(declare(name, &value.fact, origin.info));
            }
            continue;
        };
        if !(used.contains(name) || origin.unread) {
            continue;
        }
        let info = origin.info.map(|info| {
            let shape = constant.shape().iter().map(|&d| Dim::Known(d)).collect();
            let exact = Fact { dtype: Some(constant.dtype()), shape: Some(shape) };
            let loose = fact(&info);
            declare(name, if agrees(&loose, &exact) { &loose } else { &exact }, Some(info))
        });
        match info {
            Some(info) if origin.listed => drop(listed.insert(name, info)),
            Some(info) if !edge.contains(&id) => proto.value_info.push(info),
            _ => {}
        }
        match origin.sparse {
            Some(sparse) if tensor::densify(&sparse).is_ok_and(|t| t == **constant) => {
                proto.sparse_initializer.push(sparse);
            }
            _ => {
                let mut t = store(name, constant)?;
                if let Some(extra) = origin.tensor {
                    (t.doc_string, t.metadata_props) = (extra.doc_string, extra.metadata_props);
                }
                proto.initializer.push(t);
            }
        }
    }
    let declared = |v: &ValueId| -> Result<ValueInfoProto> {
        let value = graph.value(*v);
        Ok(declare(&names[v.0 as usize], &value.fact, kept::<ValueOrigin>(&value.origin)?.info))
    };
    // Constants that are listed as inputs keep their places among the inputs.
    let mut inputs = graph.inputs.iter();
    for old in std::mem::take(&mut proto.input) {
        match listed.remove(old.name()) {
            Some(info) => proto.input.push(info),
            None if by_name.get(old.name()).is_some_and(|v| graph.constant(*v).is_some()) => {}
            None => proto.input.extend(inputs.next().map(declared).transpose()?),
        }
    }
    for v in inputs {
        proto.input.push(declared(v)?);
    }
    proto.output = graph.outputs.iter().map(declared).collect::<Result<_>>()?;
    model.graph = Some(proto);
    Ok(model)
}

/// Whether a declaration allows what is known exactly.
fn agrees(loose: &Fact, exact: &Fact) -> bool {
    let same = |(a, b): (&Dim, &Dim)| a == b || !matches!(a, Dim::Known(_));
    loose.dtype == exact.dtype
        && match (&loose.shape, &exact.shape) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(same),
            _ => true,
        }
}

/// The name of each value in the file. A value that no declaration fixes steps aside where a subgraph already uses
/// its name for something else.
fn names(graph: &Graph, nodes: &[NodeProto]) -> Vec<String> {
    let mut inner = HashSet::new();
    for body in nodes.iter().flat_map(subgraphs) {
        order::defined(body, &mut inner);
    }
    let mut names: Vec<String> = graph.values.iter().map(|v| v.name.clone()).collect();
    if inner.is_empty() {
        return names;
    }
    let mut taken: HashSet<String> = names.iter().cloned().chain(inner.iter().map(|s| s.to_string())).collect();
    let fixed: HashSet<ValueId> =
        graph.nodes.iter().flat_map(|n| &n.captures).chain(&graph.inputs).chain(&graph.outputs).copied().collect();
    for id in graph.value_ids() {
        let name = &mut names[id.0 as usize];
        if !inner.contains(name.as_str()) || fixed.contains(&id) || graph.value(id).origin.is_some() {
            continue;
        }
        let mut fresh = format!("{name}_outer");
        while !taken.insert(fresh.clone()) {
            fresh.push('_');
        }
        *name = fresh;
    }
    names
}

/// Whether `operand` of `op` stands for nothing: older files give Resize an empty `scales` beside `sizes`, which newer opsets
/// take for a second request (`plan::rules`, EMPTY_SCALES).
fn left_out(graph: &Graph, op: &Op, operand: ValueId) -> bool {
    matches!(op, Op::Resize(_)) && graph.constant(operand).is_some_and(|t| t.is_empty())
}

/// Imports an operator set that a new node needs.
fn import_domain(imports: &mut Vec<OperatorSetIdProto>, domain: &str) {
    if !super::attrs::is_default(domain) && !imports.iter().any(|i| i.domain() == domain) {
        imports.push(OperatorSetIdProto { domain: Some(domain.to_string()), version: Some(1) });
    }
}

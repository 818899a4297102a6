//! Brings nodes of an older default operator set to a newer one, at the level of the file's messages.
//!
//! `schema` says at which versions an operator changed its form or meaning; [`Raiser::change`] holds one rule for each.
//! Anything else only widened its types and is carried as it is.

use super::attrs::{self, describe, is_default, set, subgraphs, subgraphs_mut, take};
use super::proto::*;
use super::{schema, tensor};
use crate::error::{Error, Result};
use crate::tensor::{DType, Data, Tensor};
use half::f16;
use std::collections::{HashMap, HashSet};

/// What raising needs to know of a model.
pub struct Raiser {
    from: u64,
    to: u64,
    /// Every value name in use, so that new ones are new.
    taken: HashSet<String>,
    /// Operators defined by the model itself: domain and name.
    functions: HashSet<(String, String)>,
    /// Declared element types and shapes of values; sizes that are not fixed are -1.
    types: HashMap<String, (Option<DType>, Option<Vec<i64>>)>,
    /// The integers or numbers of small constants.
    scales: HashMap<String, Vec<f32>>,
}

impl Raiser {
    /// A raiser of nodes from opset `from` to `to`, both between 7 and the newest.
    pub fn new(from: u64, to: u64) -> Self {
        Raiser {
            from,
            to,
            taken: HashSet::new(),
            functions: HashSet::new(),
            types: HashMap::new(),
            scales: HashMap::new(),
        }
    }

    /// Raises the main graph, training graphs, and functions of a model, and its import of the default operator set.
    pub fn model(&mut self, model: &mut ModelProto) -> Result<()> {
        for f in &model.functions {
            self.functions.insert((f.domain().to_string(), f.name().to_string()));
            self.note_nodes(&f.node);
            self.taken.extend(f.input.iter().cloned());
        }
        let training = model.training_info.iter().flat_map(|t| t.initialization.iter().chain(&t.algorithm));
        model.graph.iter().chain(training).for_each(|g| self.note_graph(g));
        let training = model.training_info.iter_mut().flat_map(|t| t.initialization.iter_mut().chain(&mut t.algorithm));
        for graph in model.graph.iter_mut().chain(training) {
            self.nodes(&mut graph.node)?;
        }
        set_import(&mut model.opset_import, self.to);
        let (from, to) = (self.from, self.to);
        for function in &mut model.functions {
            let Some(version) = import(&function.opset_import) else { continue };
            if version < to {
                self.from = version;
                let place = format!("function `{}`", function.name());
                self.nodes(&mut function.node).map_err(|e| e.at(place))?;
                set_import(&mut function.opset_import, to);
            }
        }
        self.from = from;
        Ok(())
    }

    /// Learns names, types and small constants of a graph and its subgraphs.
    pub fn note_graph(&mut self, graph: &GraphProto) {
        for info in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
            self.taken.insert(info.name().to_string());
            if let Some(TypeValue::Tensor(t)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
                let size = |d: &Dimension| match d.value {
                    Some(DimensionValue::DimValue(n)) => n,
                    _ => -1,
                };
                let shape = t.shape.as_ref().map(|s| s.dim.iter().map(size).collect());
                self.types.insert(info.name().to_string(), (tensor::dtype_from(t.elem_type()), shape));
            }
        }
        for t in &graph.initializer {
            self.note_tensor(t.name(), t);
        }
        self.note_nodes(&graph.node);
    }

    fn note_tensor(&mut self, name: &str, t: &TensorProto) {
        self.taken.insert(name.to_string());
        self.types.insert(name.to_string(), (tensor::dtype_from(t.data_type()), Some(t.dims.clone())));
        let small = matches!(t.dims.as_slice(), [n] if (0..=16).contains(n));
        if let Some(Ok(values)) = small.then(|| tensor::decode(t.clone()).and_then(|t| t.to_f32())) {
            self.scales.insert(name.to_string(), values);
        }
    }

    fn note_nodes(&mut self, nodes: &[NodeProto]) {
        for node in nodes {
            self.taken.extend(node.input.iter().chain(&node.output).cloned());
            let value = node.attribute.iter().find(|a| a.name() == "value").and_then(|a| a.t.as_ref());
            if let ("Constant", Some(t), Some(out)) = (node.op_type(), value, node.output.first()) {
                self.note_tensor(out, t);
            }
            subgraphs(node).for_each(|g| self.note_graph(g));
        }
    }

    /// Learns the type and shape of one value.
    pub fn note_value(&mut self, name: &str, dtype: Option<DType>, shape: Option<Vec<i64>>) {
        self.taken.insert(name.to_string());
        self.types.insert(name.to_string(), (dtype, shape));
    }

    /// Raises a list of nodes, with their subgraphs, in place.
    pub fn nodes(&mut self, nodes: &mut Vec<NodeProto>) -> Result<()> {
        for mut node in std::mem::take(nodes) {
            let place = describe(&node);
            for graph in subgraphs_mut(&mut node) {
                self.nodes(&mut graph.node).map_err(|e| e.at(&place))?;
            }
            let old_outputs = node.output.clone();
            let raised = self
                .node(node)
                .map_err(|e| e.at(&place).hint(format!("export the model with opset {} or newer", self.to)))?;
            let start = nodes.len();
            nodes.extend(raised);
            self.guess_types(&nodes[start..], &old_outputs);
        }
        Ok(())
    }

    /// Carries element types (and the rank where it is certain) from operands to results that declare none.
    fn guess_types(&mut self, nodes: &[NodeProto], outputs: &[String]) {
        for node in nodes {
            let cast = node.attribute.iter().find(|a| a.name() == "to").map(|a| tensor::dtype_from(a.i() as i32));
            let of = |i: usize| node.input.get(i).and_then(|n| self.types.get(n)).and_then(|t| t.0);
            let dtype = match node.op_type() {
                "Cast" => cast.flatten(),
                "Shape" | "Size" | "NonZero" | "NonMaxSuppression" | "ArgMax" | "ArgMin" => Some(DType::I64),
                "Equal" | "Less" | "Greater" | "Not" | "And" | "Or" | "Xor" => Some(DType::Bool),
                "Where" => of(1).or(of(2)),
                _ => of(0).or(of(1)),
            };
            let shape = matches!(node.op_type(), "Gemm" | "Flatten").then(|| vec![-1, -1]);
            for name in node.output.iter().chain(outputs).filter(|n| !n.is_empty()) {
                let entry = self.types.entry(name.clone()).or_default();
                entry.0 = entry.0.or(dtype);
                if entry.1.is_none() && node.output.contains(name) {
                    entry.1.clone_from(&shape);
                }
            }
        }
    }

    /// The nodes that stand for `node` at the new opset; the last one carries its name.
    pub fn node(&mut self, node: NodeProto) -> Result<Vec<NodeProto>> {
        let own = (node.domain().to_string(), node.op_type().to_string());
        if !is_default(node.domain()) || self.functions.contains(&own) {
            return Ok(vec![node]);
        }
        let Some((_, changes)) = schema::history(node.op_type()) else {
            return Err(Error::unsupported(format!(
                "operator {} is not known, so it cannot be raised from opset {} to {}",
                node.op_type(),
                self.from,
                self.to
            )));
        };
        let mut before = Vec::new();
        let mut node = node;
        let mut done = self.from;
        // A rule may rename the operator, after which the new name's history counts.
        let mut changes = changes;
        while let Some(&version) = changes.iter().find(|&&v| v > done && v <= self.to) {
            let replaced = self.change(&mut node, version, &mut before)?;
            if let Some(nodes) = replaced {
                before.extend(nodes);
                return Ok(before);
            }
            done = version;
            changes = schema::history(node.op_type()).map_or(&[], |h| h.1);
        }
        before.push(node);
        Ok(before)
    }

    /// One rule: what became of `node` at `version`. Nodes that must come before it go to `before`; a list that
    /// replaces the node altogether is returned.
    fn change(
        &mut self,
        node: &mut NodeProto,
        version: u64,
        before: &mut Vec<NodeProto>,
    ) -> Result<Option<Vec<NodeProto>>> {
        let kind = node.op_type().to_string();
        let refuse = |why: &str| Err(Error::unsupported(format!("{kind} of opset {} {why}", self.from)));
        match (kind.as_str(), version) {
            ("BatchNormalization", 9) => match take(node, "spatial")? {
                Some(a) if a.i() == 0 => return refuse("with spatial = 0 has no later form"),
                _ => {}
            },
            ("BatchNormalization", 14) => {
                if node.output.iter().skip(1).any(|o| !o.is_empty()) {
                    return refuse("in training form cannot be raised");
                }
                node.output.truncate(1);
            }
            ("Clip", 11) => {
                for (i, name) in ["min", "max"].into_iter().enumerate() {
                    if let Some(a) = take(node, name)? {
                        let value = self.like(node, a.f())?;
                        self.operand(node, i + 1, name, value, before);
                    }
                }
            }
            ("Pad", 11) => {
                let pads = take(node, "pads")?.map_or(Vec::new(), |a| a.ints);
                let value = take(node, "value")?.map_or(0.0, |a| a.f());
                self.operand(node, 1, "pads", Tensor::i64s(pads), before);
                if value != 0.0 {
                    let value = self.like(node, value)?;
                    self.operand(node, 2, "value", value, before);
                }
            }
            ("DFT", 20) => {
                let axis = take(node, "axis")?.map_or(1, |a| a.i());
                let axis = Tensor::new(Vec::new(), Data::I64(vec![axis]))?;
                self.operand(node, 2, "axis", axis, before);
            }
            ("Dropout", 12) => {
                take(node, "ratio")?;
            }
            ("GridSample", 20) => {
                if let Some(mode) = node.attribute.iter_mut().find(|a| a.name() == "mode") {
                    match mode.s.as_deref() {
                        Some(b"bilinear") => mode.s = Some(b"linear".to_vec()),
                        Some(b"bicubic") => mode.s = Some(b"cubic".to_vec()),
                        _ => {}
                    }
                }
            }
            ("GroupNormalization", 21) => return refuse("has a scale per group, later ones have it per channel"),
            ("Scan", 9) => return refuse("has no later form"),
            ("Scatter", 11) => node.op_type = Some("ScatterElements".to_string()),
            ("RoiAlign", 16) => set(node, attrs::string("coordinate_transformation_mode", "output_half_pixel")),
            ("Slice", 10) => {
                for (i, name) in ["starts", "ends", "axes"].into_iter().enumerate() {
                    if let Some(a) = take(node, name)? {
                        self.operand(node, i + 1, name, Tensor::i64s(a.ints), before);
                    }
                }
            }
            ("TopK", 10) => {
                let k = take(node, "k")?.map_or(0, |a| a.i());
                self.operand(node, 1, "k", Tensor::i64s(vec![k]), before);
            }
            ("Split", 13) => self.attribute_to_operand(node, "split", before)?,
            ("Split", 18) => {
                if node.input.get(1).is_none_or(|n| n.is_empty()) {
                    set(node, attrs::int("num_outputs", node.output.len() as i64));
                }
            }
            ("Squeeze" | "Unsqueeze" | "ReduceSum", 13) => self.attribute_to_operand(node, "axes", before)?,
            (_, 18) if kind.starts_with("Reduce") => {
                self.attribute_to_operand(node, "axes", before)?;
            }
            ("Softmax" | "LogSoftmax" | "Hardmax", 13) => return self.softmax(node, &kind),
            ("Upsample", 9) => {
                let scales = take(node, "scales")?.map_or(Vec::new(), |a| a.floats);
                let scales = Tensor::new(vec![scales.len()], Data::F32(scales))?;
                self.operand(node, 1, "scales", scales, before);
            }
            ("Upsample", 10) => node.op_type = Some("Resize".to_string()),
            ("Resize", 11) => {
                let shrinks = |v: &Vec<f32>| v.iter().all(|&s| s <= 1.0) && v.iter().any(|&s| s < 1.0);
                let scales = node.input.get(1).and_then(|n| self.scales.get(n));
                let nearest = if scales.is_some_and(shrinks) { "ceil" } else { "floor" };
                node.input.insert(node.input.len().min(1), String::new());
                let linear = node.attribute.iter().find(|a| a.name() == "mode").and_then(|a| a.s.as_deref());
                match linear {
                    Some(b"linear" | b"bilinear") => set(node, attrs::string("mode", "linear")),
                    _ => set(node, attrs::string("nearest_mode", nearest)),
                }
                set(node, attrs::string("coordinate_transformation_mode", "asymmetric"));
            }
            ("Resize", 13) => {
                let mode = node.attribute.iter().find(|a| a.name() == "coordinate_transformation_mode");
                if mode.is_some_and(|a| a.s.as_deref() == Some(b"tf_half_pixel_for_nn")) {
                    return refuse("with tf_half_pixel_for_nn has no later form");
                }
            }
            _ => return refuse(&format!("changed at opset {version} in a way that cannot be expressed")),
        }
        Ok(None)
    }

    /// Softmax before opset 13 worked on its operand flattened to two dimensions at `axis`.
    fn softmax(&mut self, node: &mut NodeProto, kind: &str) -> Result<Option<Vec<NodeProto>>> {
        let axis = take(node, "axis")?.map_or(1, |a| a.i());
        let x = node.input.first().cloned().unwrap_or_default();
        if let Some((_, Some(shape))) = self.types.get(&x) {
            let rank = shape.len() as i64;
            let at = if axis < 0 { axis + rank } else { axis };
            // Equal where nothing but ones follows the axis.
            if at >= 0 && at < rank && shape[at as usize + 1..].iter().all(|&d| d == 1) {
                set(node, attrs::int("axis", at));
                return Ok(None);
            }
        }
        let y = node.output.first().cloned().unwrap_or_default();
        let names = ["shape", "flat", "norm"].map(|suffix| self.fresh(&y, suffix));
        let make = |kind: &str, input: &[&String], output: &String, attribute: Vec<AttributeProto>| NodeProto {
            op_type: Some(kind.to_string()),
            name: Some(format!("{}/{kind}", node.name())),
            input: input.iter().map(|s| s.to_string()).collect(),
            output: vec![output.clone()],
            attribute,
            ..Default::default()
        };
        let mut last = make("Reshape", &[&names[2], &names[0]], &y, Vec::new());
        last.name = node.name.clone();
        last.metadata_props = node.metadata_props.clone();
        last.doc_string = node.doc_string.clone();
        Ok(Some(vec![
            make("Shape", &[&x], &names[0], Vec::new()),
            make("Flatten", &[&x], &names[1], vec![attrs::int("axis", axis)]),
            make(kind, &[&names[1]], &names[2], vec![attrs::int("axis", 1)]),
            last,
        ]))
    }

    /// Turns an attribute that lists integers into operand 1.
    pub fn attribute_to_operand(
        &mut self,
        node: &mut NodeProto,
        name: &'static str,
        before: &mut Vec<NodeProto>,
    ) -> Result<()> {
        if let Some(a) = take(node, name)? {
            self.operand(node, 1, name, Tensor::i64s(a.ints), before);
        }
        Ok(())
    }

    /// Makes operand `index` of `node` a new constant.
    fn operand(
        &mut self,
        node: &mut NodeProto,
        index: usize,
        suffix: &str,
        value: Tensor,
        before: &mut Vec<NodeProto>,
    ) {
        let base = node.output.iter().find(|o| !o.is_empty()).cloned().unwrap_or_default();
        let name = self.fresh(&base, suffix);
        if let Ok(values) = value.to_f32() {
            self.scales.insert(name.clone(), values);
        }
        let content = TensorProto { name: None, ..tensor::encode("", &value) };
        before.push(NodeProto {
            op_type: Some("Constant".to_string()),
            output: vec![name.clone()],
            attribute: vec![attrs::tensor("value", content)],
            ..Default::default()
        });
        if node.input.len() <= index {
            node.input.resize(index + 1, String::new());
        }
        node.input[index] = name;
    }

    /// A scalar of the element type of the first operand (float32 where nothing declares it).
    fn like(&self, node: &NodeProto, value: f32) -> Result<Tensor> {
        let dtype = node.input.first().and_then(|n| self.types.get(n)).and_then(|t| t.0).unwrap_or(DType::F32);
        match dtype {
            DType::F16 => Tensor::new(Vec::new(), Data::F16(vec![f16::from_f32(value)])),
            _ => Tensor::from_f64(dtype, &[], &[value as f64]),
        }
    }

    fn fresh(&mut self, base: &str, suffix: &str) -> String {
        let wanted = format!("{base}/{suffix}");
        let mut name = wanted.clone();
        let mut i = 0;
        while !self.taken.insert(name.clone()) {
            i += 1;
            name = format!("{wanted}_{i}");
        }
        name
    }
}

/// The version of the default operator set among `imports`.
pub fn import(imports: &[OperatorSetIdProto]) -> Option<u64> {
    imports.iter().find(|i| is_default(i.domain())).map(|i| i.version().max(0) as u64)
}

/// Sets the version of the default operator set, under both of its names where the model imports it twice.
pub fn set_import(imports: &mut Vec<OperatorSetIdProto>, version: u64) {
    imports.iter_mut().filter(|i| is_default(i.domain())).for_each(|i| i.version = Some(version as i64));
    if import(imports).is_none() {
        imports.push(OperatorSetIdProto { domain: Some(String::new()), version: Some(version as i64) });
    }
}

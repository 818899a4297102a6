//! Grids by the names of tensors, in the JSON of AIMET that Qualcomm's converters read.
//!
//! Version 1.0.0 has a list of activations and one of parameters; an offset is a zero point of the unsigned grid with
//! the sign turned. Version 0.6.1 has an object by name with a list of one entry a channel, and the range of each. In
//! version 2.0.0 all entries stand in one list and mean what ONNX's QuantizeLinear means: signed integers for weights,
//! zero points as they are, the axis of the channels.

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::plan::{EncodingsVersion, GridSpec, Observer, Plan, Site};
use crate::quant::Grid;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes that a file of encodings may have.
const LONGEST: usize = 1 << 30;

/// The grids of a network's weights, activations and biases, by the names of their tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Encodings {
    /// How they are written.
    pub version: EncodingsVersion,
    pub(super) params: Vec<Encoding>,
    pub(super) activations: Vec<Encoding>,
    pub(super) biases: Vec<Encoding>,
}

/// The grid of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Encoding {
    name: String,
    bits: u32,
    /// Whether integers are signed and stand for 0 at 0.
    signed: bool,
    scale: Vec<f64>,
    /// Of the unsigned grid; empty where `signed`.
    zero_point: Vec<i32>,
    axis: Option<usize>,
}

impl Encoding {
    /// Of a weight of `rank` axes on a symmetric grid.
    pub(super) fn weight(name: &str, grid: &Grid, rank: usize) -> Self {
        let axis = grid.axis.filter(|&a| a < rank);
        let scale = grid.scale.iter().map(|&s| f64::from(s)).collect();
        Encoding { name: name.into(), bits: grid.bits(), signed: true, scale, zero_point: Vec::new(), axis }
    }

    /// Of an activation.
    pub(super) fn activation(name: &str, grid: &Grid) -> Self {
        let scale = grid.scale.iter().map(|&s| f64::from(s)).collect();
        let zero_point = grid.zero_point.clone();
        Encoding { name: name.into(), bits: grid.bits(), signed: false, scale, zero_point, axis: None }
    }

    /// Of a bias with one step or one an element.
    pub(super) fn bias(name: &str, scale: Vec<f64>) -> Self {
        let axis = (scale.len() > 1).then_some(0);
        Encoding { name: name.into(), bits: 32, signed: true, scale, zero_point: Vec::new(), axis }
    }

    /// Offsets as versions before 2.0.0 have them: what is added to an unsigned integer before it is multiplied.
    fn offsets(&self) -> Vec<i64> {
        match self.signed {
            true => vec![-(1 << (self.bits - 1)); self.scale.len()],
            false => self.zero_point.iter().map(|&z| -i64::from(z)).collect(),
        }
    }

    fn v0_6_1(&self) -> Value {
        let most = ((1i64 << self.bits) - 1) as f64;
        let one = |(&scale, offset): (&f64, i64)| {
            json!({
                "bitwidth": self.bits,
                "dtype": "int",
                "is_symmetric": if self.signed { "True" } else { "False" },
                "max": scale * (offset as f64 + most),
                "min": scale * offset as f64,
                "offset": offset,
                "scale": scale,
            })
        };
        self.scale.iter().zip(self.offsets()).map(one).collect()
    }

    fn v1_0_0(&self) -> Value {
        json!({
            "name": self.name,
            "bw": self.bits,
            "dtype": "INT",
            "enc_type": if self.axis.is_some() { "PER_CHANNEL" } else { "PER_TENSOR" },
            "is_sym": self.signed,
            "offset": self.offsets(),
            "scale": self.scale,
        })
    }

    fn v2_0_0(&self) -> Value {
        let sign = if self.signed { "" } else { "u" };
        let mut entry = json!({ "name": self.name, "output_dtype": format!("{sign}int{}", self.bits) });
        match self.axis {
            Some(axis) => {
                entry["axis"] = json!(axis);
                entry["y_scale"] = json!(self.scale);
            }
            None => entry["y_scale"] = json!(self.scale[0]),
        }
        if !self.signed {
            entry["y_zero_point"] = json!(self.zero_point[0]);
        }
        entry
    }
}

impl Encodings {
    pub(super) fn new(version: EncodingsVersion) -> Self {
        Encodings { version, params: Vec::new(), activations: Vec::new(), biases: Vec::new() }
    }

    /// The JSON text. Biases stand in version 2.0.0 alone: converters give them 32 bits by themselves when they read the
    /// older ones.
    pub fn to_json(&self) -> Result<String> {
        let by_name = |list: &[Encoding]| list.iter().map(|e| (e.name.clone(), e.v0_6_1())).collect::<Map<_, _>>();
        let mut file = match self.version {
            EncodingsVersion::V0_6_1 => json!({
                "activation_encodings": by_name(&self.activations),
                "param_encodings": by_name(&self.params),
            }),
            EncodingsVersion::V1_0_0 => json!({
                "activation_encodings": self.activations.iter().map(Encoding::v1_0_0).collect::<Vec<_>>(),
                "param_encodings": self.params.iter().map(Encoding::v1_0_0).collect::<Vec<_>>(),
            }),
            EncodingsVersion::V2_0_0 => {
                let all = self.activations.iter().chain(&self.params).chain(&self.biases);
                json!({ "encodings": all.map(Encoding::v2_0_0).collect::<Vec<_>>() })
            }
        };
        file["version"] = json!(self.version.to_string());
        file["producer"] = json!({ "package": "qdrop", "version": env!("CARGO_PKG_VERSION") });
        let mut text = serde_json::to_string_pretty(&file)
            .map_err(|e| Error::internal(format!("cannot write encodings as JSON: {e}")))?;
        text.push('\n');
        Ok(text)
    }

    /// The plan and the grids that put quantizers on the activations which the encodings in `text` name, so that `graph`
    /// can be run as a device would. Weights lie on their grids already. An error where the text is no file of encodings,
    /// or where it names a tensor that the network does not have.
    pub fn read(text: &str, graph: &Graph) -> Result<(Plan, Vec<Grid>)> {
        if text.len() > LONGEST {
            return Err(refuse(format!("expected at most {LONGEST} bytes, got {}", text.len())));
        }
        let file: Value = serde_json::from_str(text).map_err(|e| refuse(format!("expected JSON: {e}")))?;
        let version = file["version"].as_str().unwrap_or("none");
        let entries: Vec<(String, &Value)> = match version {
            "0.6.1" => {
                let all = file["activation_encodings"]
                    .as_object()
                    .ok_or_else(|| refuse("expected activations, got none".into()))?;
                all.iter().map(|(name, list)| (name.clone(), &list[0])).collect()
            }
            "1.0.0" => named(&file["activation_encodings"])?,
            "2.0.0" => named(&file["encodings"])?,
            other => return Err(refuse(format!("expected version 0.6.1, 1.0.0 or 2.0.0, got {other}"))),
        };
        let values: BTreeMap<&str, _> = graph.value_ids().map(|v| (graph.value(v).name.as_str(), v)).collect();
        let (mut plan, mut grids, mut seen) = (Plan::default(), Vec::new(), BTreeSet::new());
        for (name, entry) in entries {
            let at = |e: Error| e.at(format!("tensor `{name}`"));
            let Some(&value) = values.get(name.as_str()) else {
                let error = refuse("the network has no such tensor".into());
                return Err(at(error).hint("use the network that was written together with the encodings"));
            };
            if graph.constant(value).is_some() {
                continue;
            }
            if !seen.insert(value) {
                return Err(at(refuse("expected one encoding per tensor, got two".into())));
            }
            let grid = activation(entry, version).map_err(at)?;
            let spec = GridSpec { bits: grid.bits(), symmetric: false, observer: Observer::MinMax, percentile: 100.0 };
            plan.sites.push(Site { name, value, readers: None, grid: spec });
            grids.push(grid);
        }
        Ok((plan, grids))
    }
}

fn refuse(message: String) -> Error {
    Error::data(format!("encodings: {message}"))
}

/// Entries of a list by the names in them.
fn named(list: &Value) -> Result<Vec<(String, &Value)>> {
    let list = list.as_array().ok_or_else(|| refuse("expected a list of entries, got none".into()))?;
    let name = |entry: &Value| entry["name"].as_str().map(str::to_string);
    let with = |entry| Ok((name(entry).ok_or_else(|| refuse("an entry has no name".into()))?, entry));
    list.iter().map(with).collect()
}

/// The grid of an activation: one step, unsigned integers of 8 or 16 bits.
fn activation(entry: &Value, version: &str) -> Result<Grid> {
    let first = |key: &str| match &entry[key] {
        Value::Array(all) if all.len() == 1 => all[0].as_f64(),
        other => other.as_f64(),
    };
    let (bits, scale, zero) = match version {
        "0.6.1" => (entry["bitwidth"].as_u64(), first("scale"), first("offset").map(|o| -o)),
        "1.0.0" => (entry["bw"].as_u64(), first("scale"), first("offset").map(|o| -o)),
        _ => {
            let bits = entry["output_dtype"].as_str().and_then(|t| t.strip_prefix("uint")?.parse().ok());
            (bits, first("y_scale"), first("y_zero_point").or(Some(0.0)))
        }
    };
    let whole = |z: &f64| (0.0..65_536.0).contains(z) && z.fract() == 0.0;
    match (bits, scale, zero.filter(whole)) {
        (Some(bits @ (8 | 16)), Some(scale), Some(zero)) if scale > 0.0 && (scale as f32).is_finite() => {
            let grid = Grid::per_tensor(bits as u32, scale as f32, zero as i32);
            grid.map_err(|e| refuse(format!("no grid: {}", e.message())))
        }
        _ => Err(refuse(format!("expected one step of unsigned integers of 8 or 16 bits, got {entry}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Fact, Node, Op};
    use crate::tensor::Tensor;

    /// y = x·w + b.
    fn network() -> Graph {
        let mut g = Graph { opset: 13, ..Graph::default() };
        let x = g.add_value("x", Fact::default());
        let w = g.add_constant("w", Tensor::f32(&[2, 2], vec![1.0, -1.0, 0.5, 0.0]));
        let b = g.add_constant("b", Tensor::f32(&[2], vec![1.0, -1.0]));
        let y = g.add_value("y", Fact::default());
        let op = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        g.nodes = vec![Node::new("n", op, &[x, w, b], &[y])];
        (g.inputs, g.outputs) = (vec![x], vec![y]);
        g
    }

    fn encodings(version: EncodingsVersion) -> Encodings {
        let w = Grid::per_channel(4, vec![0.25, 0.5], vec![8, 8], 0).unwrap();
        let x = Grid::per_tensor(16, 0.125, 40_000).unwrap();
        let y = Grid::per_tensor(8, 2.0, 3).unwrap();
        Encodings {
            version,
            params: vec![Encoding::weight("w", &w, 2)],
            activations: vec![Encoding::activation("x", &x), Encoding::activation("y", &y)],
            biases: vec![Encoding::bias("b", vec![0.03125, 0.0625])],
        }
    }

    fn written(version: EncodingsVersion) -> Value {
        serde_json::from_str(&encodings(version).to_json().unwrap()).unwrap()
    }

    #[test]
    fn version_1_has_offsets_of_unsigned_grids() {
        let file = written(EncodingsVersion::V1_0_0);
        assert_eq!((&file["version"], &file["producer"]["package"]), (&json!("1.0.0"), &json!("qdrop")));
        let w = json!({ "name": "w", "bw": 4, "dtype": "INT", "enc_type": "PER_CHANNEL", "is_sym": true,
            "offset": [-8, -8], "scale": [0.25, 0.5] });
        assert_eq!(file["param_encodings"], json!([w]));
        let x = json!({ "name": "x", "bw": 16, "dtype": "INT", "enc_type": "PER_TENSOR", "is_sym": false,
            "offset": [-40_000], "scale": [0.125] });
        assert_eq!(file["activation_encodings"][0], x);
    }

    #[test]
    fn version_0_6_1_has_an_entry_a_channel_with_its_range() {
        let file = written(EncodingsVersion::V0_6_1);
        let w = file["param_encodings"]["w"].as_array().unwrap();
        let second = json!({ "bitwidth": 4, "dtype": "int", "is_symmetric": "True", "max": 3.5, "min": -4.0,
            "offset": -8, "scale": 0.5 });
        assert_eq!((w.len(), &w[1]), (2, &second));
        let y = json!([{ "bitwidth": 8, "dtype": "int", "is_symmetric": "False", "max": 504.0, "min": -6.0,
            "offset": -3, "scale": 2.0 }]);
        assert_eq!(file["activation_encodings"]["y"], y);
    }

    #[test]
    fn version_2_means_what_quantize_linear_means_and_has_biases() {
        let file = written(EncodingsVersion::V2_0_0);
        let want = json!([
            { "name": "x", "output_dtype": "uint16", "y_scale": 0.125, "y_zero_point": 40_000 },
            { "name": "y", "output_dtype": "uint8", "y_scale": 2.0, "y_zero_point": 3 },
            { "name": "w", "output_dtype": "int4", "y_scale": [0.25, 0.5], "axis": 0 },
            { "name": "b", "output_dtype": "int32", "y_scale": [0.03125, 0.0625], "axis": 0 },
        ]);
        assert_eq!(file["encodings"], want);
    }

    #[test]
    fn every_version_reads_back_as_the_same_grids() {
        let graph = network();
        for version in [EncodingsVersion::V0_6_1, EncodingsVersion::V1_0_0, EncodingsVersion::V2_0_0] {
            let (plan, grids) = Encodings::read(&encodings(version).to_json().unwrap(), &graph).unwrap();
            let found: Vec<_> = plan.sites.iter().map(|s| s.name.as_str()).zip(grids).collect();
            let want = [("x", Grid::per_tensor(16, 0.125, 40_000)), ("y", Grid::per_tensor(8, 2.0, 3))];
            let want: Vec<_> = want.into_iter().map(|(name, grid)| (name, grid.unwrap())).collect();
            assert_eq!(found, want, "{version}");
            assert!(plan.sites.iter().all(|s| s.readers.is_none()));
        }
    }

    #[test]
    fn files_that_are_no_encodings_are_refused() {
        let graph = network();
        let refusal = |text: &str| Encodings::read(text, &graph).unwrap_err().to_string();
        let entry = |fields: &str| {
            let entry = format!("{{\"name\": \"x\", {fields}}}");
            refusal(&format!("{{\"version\": \"2.0.0\", \"encodings\": [{entry}]}}"))
        };
        assert!(refusal("no").starts_with("encodings: expected JSON: "));
        assert!(refusal("{}").starts_with("encodings: expected version 0.6.1, 1.0.0 or 2.0.0, got none"));
        assert!(refusal("{\"version\": \"1.0.0\"}").starts_with("encodings: expected a list of entries, got none"));
        assert!(refusal("{\"version\": \"0.6.1\"}").starts_with("encodings: expected activations"));
        for fields in
            ["", "\"output_dtype\": \"int8\", \"y_scale\": 1.0", "\"output_dtype\": \"uint8\", \"y_scale\": -1.0"]
        {
            let fields = if fields.is_empty() { "\"other\": 1" } else { fields };
            assert!(entry(fields).contains("expected one step of unsigned integers"), "{fields}");
        }
        assert!(entry("\"output_dtype\": \"uint8\", \"y_scale\": 1.0, \"y_zero_point\": 300").contains("no grid"));
        assert!(entry("\"output_dtype\": \"uint16\", \"y_scale\": [1.0, 2.0]").contains("one step"));
        let unknown = "{\"version\": \"1.0.0\", \"activation_encodings\": [{\"name\": \"z\"}]}";
        assert!(refusal(unknown).contains("tensor `z`"), "{}", refusal(unknown));
        let twice = encodings(EncodingsVersion::V1_0_0).to_json().unwrap().replace("\"y\"", "\"x\"");
        assert!(refusal(&twice).contains("got two"));
    }
}

//! `qdrop inspect`: shows what a model file contains.

use crate::args::{Inspect, Print};
use crate::{Outcome, checks, out};
use qdrop::Result;
use qdrop::graph::{Dim, Fact, Graph, ValueId};
use qdrop::report::{Table, bytes, count};
use serde::Serialize;
use std::collections::BTreeMap;

/// The printed result; also its JSON.
#[derive(Debug, Serialize)]
struct Summary {
    model: String,
    bytes: u64,
    opset: u64,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    nodes: usize,
    operators: Vec<Operator>,
    /// Elements of all constants with a float type.
    parameters: u64,
    /// Of one sample; null when shapes are open or the network cannot be planned, with the reason below.
    multiply_adds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multiply_adds_unknown: Option<String>,
}

/// An input or output.
#[derive(Debug, Serialize)]
struct Port {
    name: String,
    dtype: String,
    /// Sizes as text, names where they are symbolic, `?` where open.
    shape: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Operator {
    kind: String,
    count: usize,
}

/// Runs the command.
pub fn run(args: &Inspect) -> Result<Outcome> {
    checks::readable_file(&args.model)?;
    let model = args.shape.fix.load(&args.model)?;
    let graph = model.graph();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *kinds.entry(node.op.kind().to_string()).or_default() += 1;
    }
    let mut operators: Vec<Operator> = kinds.into_iter().map(|(kind, count)| Operator { kind, count }).collect();
    operators.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.kind.cmp(&b.kind)));
    let shapes = args.shape.of_samples(&model)?;
    let work = model.multiply_adds(shapes.as_deref());
    let summary = Summary {
        model: model.name(),
        bytes: model.size(),
        opset: graph.opset,
        inputs: ports(graph, &graph.inputs),
        outputs: ports(graph, &graph.outputs),
        nodes: graph.nodes.len(),
        operators,
        parameters: parameters(graph),
        multiply_adds: work.as_ref().ok().copied(),
        multiply_adds_unknown: work.err().map(|e| e.to_string()),
    };
    match args.format {
        Print::Json => out::json(&summary)?,
        Print::Text => out::print(&text(&summary))?,
    }
    Ok(Outcome::Done)
}

fn parameters(graph: &Graph) -> u64 {
    let constants = graph.values.iter().filter_map(|v| v.constant.as_ref());
    constants.filter(|t| t.dtype().is_float()).map(|t| t.len() as u64).sum()
}

fn ports(graph: &Graph, ids: &[ValueId]) -> Vec<Port> {
    let port = |&id: &ValueId| {
        let Fact { dtype, shape } = &graph.value(id).fact;
        let size = |dim: &Dim| match dim {
            Dim::Known(n) => n.to_string(),
            Dim::Symbol(name) => name.clone(),
            Dim::Unknown => "?".into(),
        };
        Port {
            name: graph.value(id).name.clone(),
            dtype: dtype.map_or_else(|| "?".into(), |t| format!("{t:?}").to_lowercase()),
            shape: shape.as_ref().map(|dims| dims.iter().map(size).collect()),
        }
    };
    ids.iter().map(port).collect()
}

fn text(s: &Summary) -> String {
    let mut facts = Table::new(&s.model, "property|value");
    facts.row(["file size".into(), bytes(s.bytes)]);
    facts.row(["opset".into(), s.opset.to_string()]);
    facts.row(["nodes".into(), s.nodes.to_string()]);
    facts.row(["parameters".into(), count(s.parameters)]);
    let work = match (&s.multiply_adds, &s.multiply_adds_unknown) {
        (Some(n), _) => count(*n),
        (None, reason) => format!("unknown: {}", reason.as_deref().unwrap_or("?")),
    };
    facts.row(["multiply-adds".into(), work]);
    let mut ends = Table::new("Inputs and outputs", "|name|type|shape");
    for (what, list) in [("in", &s.inputs), ("out", &s.outputs)] {
        for p in list {
            let shape = p.shape.as_ref().map_or_else(|| "?".into(), |d| format!("[{}]", d.join(", ")));
            ends.row([what.to_string(), p.name.clone(), p.dtype.clone(), shape]);
        }
    }
    let mut operators = Table::new("Operators", "operator|>nodes");
    for op in &s.operators {
        operators.row([op.kind.clone(), op.count.to_string()]);
    }
    out::draw(&[facts, ends, operators])
}

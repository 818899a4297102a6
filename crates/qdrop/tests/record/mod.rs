//! Plans as text.
//!
//! A recorded unit is a line `name [inputs > outputs] operators`, operators in the order of running: `Conv:4` has a
//! weight of 4 bits, `Relu|4` makes a tensor that is quantized to 4 bits.

use qdrop::graph::Graph;
use qdrop::plan::{Plan, is_layer};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Widest line of a record.
const WIDTH: usize = 120;

/// The units of `plan` as text.
pub fn record(graph: &Graph, plan: &Plan) -> String {
    let weights: BTreeMap<_, _> = plan.layers.iter().flat_map(|l| l.nodes.iter().map(|&n| (n, l.grid.bits))).collect();
    let sites: BTreeMap<_, _> = plan.sites.iter().map(|s| (s.value, s.grid.bits)).collect();
    let mut text = String::new();
    for unit in &plan.units {
        let mut line = format!("{} [{} > {}]", unit.name, unit.inputs.len(), unit.outputs.len());
        for &id in &unit.nodes {
            let node = graph.node(id);
            let mut word = node.op.kind().to_string();
            if let Some(bits) = weights.get(&id) {
                write!(word, ":{bits}").unwrap();
            }
            for bits in node.outputs.iter().flatten().filter_map(|v| sites.get(v)) {
                write!(word, "|{bits}").unwrap();
            }
            if line.len() + word.len() >= WIDTH {
                text.push_str(&line);
                text.push('\n');
                line = "   ".into();
            }
            line.push(' ');
            line.push_str(&word);
        }
        text.push_str(&line);
        text.push('\n');
    }
    let layers: Vec<&str> = graph.node_ids().filter(|&id| is_layer(graph, id)).map(|id| graph.node_name(id)).collect();
    // Of what lies behind a node that stays float only layers.
    for float in plan.float.iter().filter(|f| !f.behind || layers.contains(&&*f.node)) {
        writeln!(text, "float: {}: {}", float.node, float.reason).unwrap();
    }
    text
}

//! What a Loop or a Scan computes step after step, and both branches of an If with a choice between them.

use super::attrs::{self, Attrs};
use super::body::{Body, Known, rename};
use super::proto::*;
use super::tensor;
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, Node, ValueId};
use crate::tensor::{Data, Tensor};
use std::collections::HashMap;

/// Most nodes that take the place of one.
const LIMIT: usize = 1000;

/// What takes the place of `node` of operator `kind`, whose attributes are in `proto`.
pub fn body(graph: &Graph, node: &Node, kind: &str, proto: &NodeProto, known: Known) -> Result<Option<Body>> {
    match kind {
        "If" => branches(graph, node, proto),
        "Loop" => loops(graph, node, proto),
        "Scan" => scan(graph, node, proto, known),
        _ => Ok(None),
    }
}

/// The subgraph that attribute `name` holds, where it is of a plain kind.
pub fn subgraph<'a>(proto: &'a NodeProto, name: &str) -> Result<Option<&'a GraphProto>> {
    let found = proto.attribute.iter().find(|a| a.name() == name).and_then(|a| a.g.as_ref());
    let graph = found.ok_or_else(|| Error::model(format!("a {} without `{name}`", proto.op_type())))?;
    Ok(Some(graph).filter(|g| g.sparse_initializer.is_empty()))
}

fn operator(kind: &str, input: &[&str], output: String) -> NodeProto {
    let input = input.iter().map(|n| n.to_string()).collect();
    NodeProto { op_type: Some(kind.to_string()), input, output: vec![output], ..Default::default() }
}

fn names(infos: &[ValueInfoProto]) -> Vec<String> {
    infos.iter().map(|i| i.name().to_string()).collect()
}

/// Nodes and constants of `graph` with all its own names changed, given new names of its inputs; what its outputs became.
fn copy(body: &mut Body, graph: &GraphProto, inputs: &[String], suffix: &str, shared: bool) -> Vec<String> {
    let mut new: HashMap<String, String> = names(&graph.input).into_iter().zip(inputs.iter().cloned()).collect();
    let own = |name: &str| format!("{name}@{suffix}");
    new.extend(graph.node.iter().flat_map(|n| &n.output).filter(|o| !o.is_empty()).map(|o| (o.clone(), own(o))));
    if !shared {
        for t in &graph.initializer {
            new.insert(t.name().to_string(), own(t.name()));
            body.initializers.push(TensorProto { name: Some(own(t.name())), ..t.clone() });
        }
    }
    for node in &graph.node {
        let mut node = node.clone();
        rename(&mut node, &new);
        node.name = node.name.filter(|n| !n.is_empty()).map(|n| own(&n));
        body.nodes.push(node);
    }
    names(&graph.output).into_iter().map(|o| new.get(&o).cloned().unwrap_or(o)).collect()
}

/// Elements of all constants among `tensors`.
fn elements(tensors: &[TensorProto]) -> u64 {
    let size = |t: &TensorProto| t.dims.iter().fold(1u64, |n, &d| n.saturating_mul(d.max(0) as u64));
    tensors.iter().map(size).fold(0, u64::saturating_add)
}

/// Both branches and a Where between their results, where they are not most of the network.
pub fn branches(graph: &Graph, node: &Node, proto: &NodeProto) -> Result<Option<Body>> {
    let (Some(yes), Some(no)) = (subgraph(proto, "then_branch")?, subgraph(proto, "else_branch")?) else {
        return Ok(None);
    };
    let Some(condition) = node.input(0) else { return Ok(None) };
    let inside = elements(&yes.initializer) + elements(&no.initializer);
    let outside: usize = graph.values.iter().filter_map(|v| v.constant.as_ref()).map(|t| t.len()).sum();
    let plain = yes.input.is_empty() && no.input.is_empty() && yes.output.len() == no.output.len();
    if !plain || yes.node.len() + no.node.len() > LIMIT || inside > outside as u64 {
        return Ok(None);
    }
    let mut body = Body::default();
    // A condition is one element of any shape.
    body.nodes.push(operator("Squeeze", &[&graph.value(condition).name], "condition".into()));
    let yes = copy(&mut body, yes, &[], "then", false);
    let no = copy(&mut body, no, &[], "else", false);
    for (k, (yes, no)) in yes.iter().zip(&no).enumerate() {
        body.nodes.push(operator("Where", &["condition", yes, no], format!("chosen_{k}")));
        body.results.push(format!("chosen_{k}"));
    }
    Ok(Some(body))
}

/// The content of a constant of one element.
fn number(graph: &Graph, value: Option<ValueId>) -> Result<Option<f64>> {
    let content = value.and_then(|v| graph.constant(v)).map(|t| t.to_f64()).transpose()?;
    Ok(content.filter(|c| c.len() == 1).map(|c| c[0]))
}

/// Whether the first output of the body of a Loop is true as long as its second input is.
fn goes_on(body: &GraphProto) -> Result<bool> {
    let Some(mut name) = body.output.first().map(|o| o.name().to_string()) else { return Ok(false) };
    for node in body.node.iter().rev() {
        if node.output.first() == Some(&name) {
            match (node.op_type(), node.input.first()) {
                ("Identity" | "Cast", Some(input)) => name.clone_from(input),
                ("Constant", _) => {
                    let value = Attrs::new(node).tensor("value")?.cloned();
                    return truth(value);
                }
                _ => return Ok(false),
            }
        }
    }
    if body.input.get(1).is_some_and(|i| i.name() == name) {
        return Ok(true);
    }
    truth(body.initializer.iter().find(|t| t.name() == name).cloned())
}

fn truth(tensor: Option<TensorProto>) -> Result<bool> {
    let content = tensor.map(|t| tensor::decode(t)?.to_f64()).transpose()?;
    Ok(content.is_some_and(|c| c == [1.0]))
}

/// A constant in a body, by its name.
fn constant(body: &mut Body, name: String, content: Tensor) -> String {
    body.initializers.push(tensor::encode(&name, &content));
    name
}

/// What steps handed out, along a new axis.
fn stacked(body: &mut Body, k: usize, values: &[String], axis: i64) -> String {
    let axes = constant(body, format!("axis_{k}"), Tensor::i64s(vec![axis]));
    let mut parts = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let part = format!("part_{k}@{i}");
        body.nodes.push(operator("Unsqueeze", &[value, &axes], part.clone()));
        parts.push(part);
    }
    let result = format!("stacked_{k}");
    let mut joined = operator("Concat", &parts.iter().map(String::as_str).collect::<Vec<_>>(), result.clone());
    joined.attribute.push(attrs::int("axis", axis));
    body.nodes.push(joined);
    result
}

/// The steps of a Loop of a constant number of them.
fn loops(graph: &Graph, node: &Node, proto: &NodeProto) -> Result<Option<Body>> {
    let Some(step) = subgraph(proto, "body")? else { return Ok(None) };
    let Some(count) = number(graph, node.input(0))? else { return Ok(None) };
    let open = node.input(1).is_none() || number(graph, node.input(1))?.is_some_and(|c| c != 0.0);
    let count = count.max(0.0) as usize;
    let fits = count.saturating_mul(step.node.len() + step.output.len()) <= LIMIT;
    let states = node.inputs.len().saturating_sub(2);
    let plain = step.input.len() == states + 2 && step.output.len() > states;
    if !open || !fits || !plain || count == 0 || !goes_on(step)? {
        return Ok(None);
    }
    let Some(mut now) = given(graph, &node.inputs[2..]) else { return Ok(None) };
    let mut body = Body { initializers: step.initializer.clone(), ..Body::default() };
    let condition = constant(&mut body, "open".into(), Tensor::new(Vec::new(), Data::Bool(vec![true]))?);
    let mut handed = vec![Vec::new(); step.output.len() - 1 - states];
    for i in 0..count {
        let index = Tensor::new(Vec::new(), Data::I64(vec![i as i64]))?;
        let index = constant(&mut body, format!("step@{i}"), index);
        let inputs: Vec<String> = [index, condition.clone()].into_iter().chain(now).collect();
        let mut results = copy(&mut body, step, &inputs, &i.to_string(), true).into_iter().skip(1);
        now = results.by_ref().take(states).collect();
        handed.iter_mut().zip(results).for_each(|(list, value)| list.push(value));
    }
    body.results = now;
    for (k, values) in handed.iter().enumerate() {
        let result = stacked(&mut body, k, values, 0);
        body.results.push(result);
    }
    Ok(Some(body))
}

/// Names of values that must all be there.
fn given(graph: &Graph, values: &[Option<ValueId>]) -> Option<Vec<String>> {
    values.iter().map(|v| v.map(|v| graph.value(v).name.clone())).collect()
}

/// The steps of a Scan along an axis of known size.
fn scan(graph: &Graph, node: &Node, proto: &NodeProto, known: Known) -> Result<Option<Body>> {
    let Some(step) = subgraph(proto, "body")? else { return Ok(None) };
    let a = Attrs::new(proto);
    let scanned = usize::try_from(a.int("num_scan_inputs", 0)?).unwrap_or(0);
    let states = node.inputs.len().saturating_sub(scanned);
    let plain = scanned > 0 && step.input.len() == node.inputs.len() && step.output.len() >= states;
    let Some(operands) = given(graph, &node.inputs).filter(|o| plain && o.len() >= scanned) else { return Ok(None) };
    let handed = step.output.len() - states;
    let list = |name: &'static str, len: usize| -> Result<Option<Vec<i64>>> {
        Ok(Some(a.opt_ints(name)?.unwrap_or_else(|| vec![0; len])).filter(|l| l.len() == len))
    };
    let (Some(axes), Some(back)) = (list("scan_input_axes", scanned)?, list("scan_input_directions", scanned)?) else {
        return Ok(None);
    };
    let (Some(to), Some(to_back)) = (list("scan_output_axes", handed)?, list("scan_output_directions", handed)?) else {
        return Ok(None);
    };
    let size = |(v, &axis): (&Option<ValueId>, &i64)| -> Option<usize> {
        let declared =
            |dims: &Vec<Dim>| dims.iter().map(|d| if let Dim::Known(n) = d { Some(*n) } else { None }).collect();
        let at = |dims: Vec<Option<usize>>| {
            let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
            usize::try_from(axis).ok().and_then(|a| dims.get(a).copied().flatten())
        };
        let v = (*v)?;
        graph.value(v).fact.shape.as_ref().map(declared).and_then(at).or_else(|| at(known(v)?.1))
    };
    let sizes: Option<Vec<usize>> = node.inputs[states..].iter().zip(&axes).map(size).collect();
    let Some(count) = sizes.and_then(|s| s.first().copied().filter(|n| s.iter().all(|m| m == n))) else {
        return Ok(None);
    };
    if count == 0 || count.saturating_mul(step.node.len() + scanned + handed) > LIMIT {
        return Ok(None);
    }
    let mut body = Body { initializers: step.initializer.clone(), ..Body::default() };
    let mut now = operands[..states].to_vec();
    let mut lists = vec![Vec::new(); handed];
    for i in 0..count {
        let mut inputs = now;
        for k in 0..scanned {
            let at = if back[k] == 0 { i } else { count - 1 - i };
            let at = Tensor::new(Vec::new(), Data::I64(vec![at as i64]))?;
            let index = constant(&mut body, format!("index_{k}@{i}"), at);
            let mut slice = operator("Gather", &[&operands[states + k], &index], format!("slice_{k}@{i}"));
            slice.attribute.push(attrs::int("axis", axes[k]));
            body.nodes.push(slice);
            inputs.push(format!("slice_{k}@{i}"));
        }
        let mut results = copy(&mut body, step, &inputs, &i.to_string(), true).into_iter();
        now = results.by_ref().take(states).collect();
        lists.iter_mut().zip(results).for_each(|(list, value)| list.push(value));
    }
    body.results = now;
    for (k, list) in lists.iter_mut().enumerate() {
        if to_back[k] != 0 {
            list.reverse();
        }
        let result = stacked(&mut body, k, list, to[k]);
        body.results.push(result);
    }
    Ok(Some(body))
}

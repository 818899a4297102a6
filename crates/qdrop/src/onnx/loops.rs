//! Bodies of Loops as graphs of their own, to be run.

use super::attrs::is_default;
use super::facts::kept;
use super::inline::{branch, inline};
use super::proto::*;
use super::reader::Builder;
use super::steps;
use crate::error::Result;
use crate::graph::*;
use std::sync::Arc;

/// Most Loops inside one another.
const DEPTH: usize = 8;

/// The bodies of the Loops of `graph`, with branches and functions in place. A Loop whose body is of no plain kind is left out.
pub fn loop_bodies(graph: &Graph) -> Result<LoopBodies> {
    bodies(graph, 0)
}

fn bodies(graph: &Graph, depth: usize) -> Result<LoopBodies> {
    let mut found = LoopBodies::new();
    for id in graph.node_ids().filter(|_| depth < DEPTH) {
        let node = graph.node(id);
        let is_loop = matches!(&node.op, Op::Opaque { domain, kind } if is_default(domain) && kind == "Loop");
        if !is_loop || node.origin.is_none() {
            continue;
        }
        let body = body(graph, node, depth).map_err(|e| e.at(graph.describe(id)))?;
        found.extend(body.map(|body| (id, body)));
    }
    Ok(found)
}

fn body(graph: &Graph, node: &Node, depth: usize) -> Result<Option<LoopBody>> {
    let proto: NodeProto = kept(&node.origin)?;
    let Some(step) = steps::subgraph(&proto, "body")? else { return Ok(None) };
    let states = node.inputs.len().saturating_sub(2);
    let formal = states + 2;
    let results = step.output.len().saturating_sub(1);
    let plain = step.input.len() == formal && results >= states && node.outputs.len() <= results;
    if !plain || node.inputs.iter().skip(2).any(Option::is_none) {
        return Ok(None);
    }
    let named = |v: &ValueId| ValueInfoProto { name: Some(graph.value(*v).name.clone()), ..Default::default() };
    let mut step = step.clone();
    step.input.extend(node.captures.iter().map(named));
    let model: ModelProto = kept(&graph.origin)?;
    let whole = ModelProto { graph: Some(step), ..model };
    let mut inner = Builder::default().build(whole, graph.opset)?;
    if inner.inputs.len() != formal + node.captures.len() {
        return Ok(None);
    }
    let given = inner.inputs.split_off(formal);
    let mut captures = Vec::new();
    for (&outer, own) in node.captures.iter().zip(given) {
        match &graph.value(outer).constant {
            Some(constant) => inner.value_mut(own).constant = Some(Arc::clone(constant)),
            None => {
                captures.push(outer);
                inner.inputs.push(own);
            }
        }
    }
    inline(&mut inner)?;
    branch(&mut inner)?;
    let deeper = bodies(&inner, depth + 1)?;
    Ok(Some(LoopBody { graph: inner, captures, inner: deeper }))
}

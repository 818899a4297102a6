//! Carried nodes replaced by what they stand for: an `If` whose condition is constant by its branch, a call of a
//! function of the model by the function's body, arithmetic of ai.onnx.ml by arithmetic.

use super::attrs::{describe, is_default, subgraphs_mut};
use super::body::{Body, Known, rename};
use super::facts::kept;
use super::proto::*;
use super::raise::{Raiser, import};
use super::reader::Builder;
use super::{ml, order, steps, tensor};
use crate::error::{Error, Result};
use crate::graph::*;
use std::collections::{HashMap, HashSet};

/// Most nodes a graph may have after it.
const LIMIT: usize = 1 << 20;

/// Most nodes replaced.
const REPLACED: usize = 1 << 14;

/// Most bodies inside one another; functions that call themselves end there.
const DEPTH: usize = 32;

/// Replaces what can be replaced, bodies of bodies included, and says whether anything was. What does not apply (a
/// function of a newer opset than the graph's, attributes that are missing) stays carried.
pub fn inline(graph: &mut Graph) -> Result<bool> {
    inline_with(graph, &|_| None)
}

/// The same, with what is `known`.
pub fn inline_with(graph: &mut Graph, known: Known) -> Result<bool> {
    if !graph.nodes.iter().any(carried) {
        return Ok(false);
    }
    let model: ModelProto = kept(&graph.origin)?;
    let functions: HashMap<(&str, &str, &str), &FunctionProto> =
        model.functions.iter().map(|f| ((f.domain(), f.name(), f.overload()), f)).collect();
    replace(graph, &model, &|graph, node| body(graph, &functions, node, known))
}

/// Puts both branches of every If in place of it, with an [`Op::Choice`] between their results, and says whether there was
/// one. Such a graph is run, not written.
pub fn branch(graph: &mut Graph) -> Result<bool> {
    if !graph.nodes.iter().any(carried) {
        return Ok(false);
    }
    let model: ModelProto = kept(&graph.origin)?;
    replace(graph, &model, &|graph, node| match &node.op {
        Op::Opaque { domain, kind } if is_default(domain) && kind == "If" => {
            let body = steps::branches(graph, node, &kept(&node.origin)?)?;
            Ok(body.map(|body| Body { choices: body.results.len(), ..body }))
        }
        _ => Ok(None),
    })
}

/// Whether a node is known by its text alone.
fn carried(node: &Node) -> bool {
    matches!(node.op, Op::Opaque { .. }) && node.origin.is_some()
}

/// Replaces nodes by the bodies that `body` has for them, and those in bodies in turn.
fn replace(
    graph: &mut Graph,
    model: &ModelProto,
    body: &dyn Fn(&Graph, &Node) -> Result<Option<Body>>,
) -> Result<bool> {
    let mut builder = builder(graph, model);
    let nodes = std::mem::take(&mut builder.graph.nodes);
    let mut waiting: Vec<(Node, usize)> = nodes.into_iter().rev().map(|n| (n, 0)).collect();
    let mut replaced = 0;
    while let Some((node, depth)) = waiting.pop() {
        let body = if carried(&node) { body(&builder.graph, &node)? } else { None };
        let Some(body) = body else {
            builder.graph.nodes.push(node);
            continue;
        };
        replaced += 1;
        if depth == DEPTH || replaced > REPLACED || builder.graph.nodes.len() + waiting.len() > LIMIT {
            return Err(Error::unsupported("functions and branches of the model unfold to too many nodes"));
        }
        let place = format!("node `{}` ({})", node.name, node.op.kind());
        let kept = builder.graph.nodes.len();
        splice(&mut builder, &node, body).map_err(|e| e.at(place))?;
        // The new nodes may be replaced in turn.
        waiting.extend(builder.graph.nodes.drain(kept..).rev().map(|n| (n, depth + 1)));
    }
    *graph = builder.graph;
    graph.check()?;
    Ok(replaced > 0)
}

/// Replaces the node `id`, a Loop or Scan of known length or an If that data decides, by what it computes; nothing happens
/// where that is not known or too much. The result lists the pairs of values that the condition of an If chooses between:
/// it is right only where both of each have one shape.
pub fn unfold(graph: &mut Graph, id: NodeId, known: Known) -> Result<Option<Vec<[ValueId; 2]>>> {
    let node = graph.node(id).clone();
    let Op::Opaque { domain, kind } = &node.op else { return Ok(None) };
    if !is_default(domain) || node.origin.is_none() {
        return Ok(None);
    }
    let Some(mut body) = steps::body(graph, &node, kind, &kept(&node.origin)?, known)? else { return Ok(None) };
    let model: ModelProto = kept(&graph.origin)?;
    let mut builder = builder(graph, &model);
    for (i, old) in std::mem::take(&mut builder.graph.nodes).into_iter().enumerate() {
        match i == id.0 as usize {
            true => splice(&mut builder, &node, std::mem::take(&mut body))?,
            false => builder.graph.nodes.push(old),
        }
    }
    *graph = builder.graph;
    graph.check()?;
    let producers = graph.producers();
    let made = |v: ValueId| producers[v.0 as usize].map(|id| graph.node(id));
    let mut pairs = Vec::new();
    for v in node.outputs.iter().flatten().filter(|_| kind == "If") {
        let handed = made(*v).filter(|n| n.op == Op::Identity).and_then(|n| n.input(0));
        if let Some(chosen) = made(handed.unwrap_or(*v)).filter(|n| n.op == Op::Where)
            && let (Some(a), Some(b)) = (chosen.input(1), chosen.input(2))
        {
            pairs.push([a, b]);
        }
    }
    Ok(Some(pairs))
}

/// A builder that goes on with `graph`, which is left empty.
fn builder(graph: &mut Graph, model: &ModelProto) -> Builder {
    let mut builder = Builder { graph: std::mem::take(graph), ..Default::default() };
    builder.functions = model.functions.iter().map(|f| (f.domain().to_string(), f.name().to_string())).collect();
    builder.ids = builder.graph.value_ids().map(|v| (builder.graph.value(v).name.clone(), v)).collect();
    builder
}

/// What replaces `node`, if it is known.
fn body(
    graph: &Graph,
    functions: &HashMap<(&str, &str, &str), &FunctionProto>,
    node: &Node,
    known: Known,
) -> Result<Option<Body>> {
    let Op::Opaque { domain, kind } = &node.op else { return Ok(None) };
    let proto: NodeProto = kept(&node.origin)?;
    if let Some(function) = functions.get(&(domain.as_str(), kind.as_str(), proto.overload())) {
        return call(graph, function, node, &proto);
    }
    if domain == ml::DOMAIN {
        let given = |v: &Option<ValueId>| {
            let value = graph.value((*v)?);
            Some((value.name.clone(), value.fact.dtype.or_else(|| known((*v)?).map(|k| k.0))))
        };
        let given: Option<Vec<_>> = node.inputs.iter().map(given).collect();
        return given.map_or(Ok(None), |given| ml::body(&proto, &given));
    }
    if !is_default(domain) || kind != "If" {
        return Ok(None);
    }
    let condition = node.input(0).and_then(|v| graph.constant(v)).map(|t| t.to_f64()).transpose()?;
    let Some([condition]) = condition.as_deref() else { return Ok(None) };
    let name = if *condition != 0.0 { "then_branch" } else { "else_branch" };
    let branch = proto.attribute.iter().find(|a| a.name() == name).and_then(|a| a.g.clone());
    let Some(branch) = branch else {
        return Err(Error::model(format!("an If without `{name}`")));
    };
    if !branch.sparse_initializer.is_empty() || !branch.input.is_empty() {
        return Ok(None);
    }
    let results = branch.output.iter().map(|o| o.name().to_string()).collect();
    Ok(Some(Body { nodes: branch.node, initializers: branch.initializer, results, ..Body::default() }))
}

/// The body of `function` for the call `node`, whose attributes are in `proto`.
fn call(graph: &Graph, function: &FunctionProto, node: &Node, proto: &NodeProto) -> Result<Option<Body>> {
    let mut nodes = function.node.clone();
    let given = |name: &str| {
        let own = proto.attribute.iter().find(|a| a.name() == name);
        own.or_else(|| function.attribute_proto.iter().find(|a| a.name() == name))
    };
    if proto.attribute.iter().any(|a| !a.ref_attr_name().is_empty()) {
        return Ok(None);
    }
    nodes.iter_mut().for_each(|n| resolve(n, &given));
    let version = import(&function.opset_import).unwrap_or(graph.opset);
    if version > graph.opset {
        return Ok(None);
    }
    if version < graph.opset {
        let mut raiser = Raiser::new(version.max(7), graph.opset);
        let whole = GraphProto { node: nodes.clone(), ..Default::default() };
        raiser.note_graph(&whole);
        raiser.nodes(&mut nodes)?;
    }
    let name = |i: usize| node.input(i).map_or(String::new(), |v| graph.value(v).name.clone());
    let operands = function.input.iter().enumerate().map(|(i, formal)| (formal.clone(), name(i))).collect();
    Ok(Some(Body { nodes, operands, results: function.output.clone(), ..Body::default() }))
}

/// Gives attributes that refer to a function's attributes their content; those that have none are dropped.
fn resolve<'a>(node: &mut NodeProto, given: &impl Fn(&str) -> Option<&'a AttributeProto>) {
    let attributes = std::mem::take(&mut node.attribute);
    node.attribute.extend(attributes.into_iter().filter_map(|a| match a.ref_attr_name() {
        "" => Some(a),
        other => given(other).map(|content| AttributeProto { name: a.name.clone(), ..content.clone() }),
    }));
    subgraphs_mut(node).for_each(|g| g.node.iter_mut().for_each(|n| resolve(n, given)));
}

/// Puts the nodes of `body` at the end of the graph in place of `node`.
fn splice(builder: &mut Builder, node: &Node, mut body: Body) -> Result<()> {
    let mut names: HashMap<String, String> = body.operands.drain(..).collect();
    let mut taken: HashSet<String> = HashSet::new();
    let own = body.initializers.iter().map(|t| t.name().to_string());
    let own: Vec<String> = own.chain(body.nodes.iter().flat_map(|n| n.output.iter().cloned())).collect();
    for name in own.into_iter().filter(|n| !n.is_empty()) {
        let wanted = if node.name.is_empty() { name.clone() } else { format!("{}/{name}", node.name) };
        let mut new = name.clone();
        while builder.ids.contains_key(&new) || taken.contains(&new) {
            let count = builder.built.entry(wanted.clone()).or_default();
            new = if *count == 0 { wanted.clone() } else { format!("{wanted}_{count}") };
            *count += 1;
        }
        taken.insert(new.clone());
        if names.insert(name.clone(), new).is_some() {
            return Err(Error::model(format!("value `{name}` is defined twice")));
        }
    }
    let results: Vec<String> = body.results.iter().map(|r| names.get(r).unwrap_or(r).clone()).collect();
    body.nodes.iter_mut().for_each(|n| rename(n, &names));
    builder.read.extend(body.nodes.iter().flat_map(order::reads).chain(results.iter().cloned()));
    for mut t in body.initializers {
        let name = names.get(t.name()).cloned().unwrap_or_default();
        t.name = Some(name.clone());
        let content = tensor::decode(t)?;
        builder.constant(&name, content)?;
    }
    let first = builder.graph.nodes.len();
    for mut inner in body.nodes {
        let place = describe(&inner);
        if !node.name.is_empty() {
            inner.name = Some(format!("{}/{}", node.name, inner.name()));
        }
        builder.node(inner).map_err(|e| e.at(place))?;
    }
    let choices = builder.graph.nodes.len() - body.choices;
    builder.graph.nodes[choices..].iter_mut().for_each(|n| n.op = Op::Choice);
    // Results take the place of the node's own; one that the body does not compute is handed on.
    let mut swapped: HashMap<ValueId, ValueId> = HashMap::new();
    let mut handed = Vec::new();
    let made = builder.graph.nodes[first..].iter().flat_map(|n| n.outputs.iter().flatten().copied());
    let computed: HashSet<ValueId> = made.collect();
    for (outer, name) in node.outputs.iter().zip(&results) {
        let Some(outer) = *outer else { continue };
        let inner = builder.lookup(name)?;
        if computed.contains(&inner) && !swapped.contains_key(&inner) {
            swapped.insert(inner, outer);
        } else {
            handed.push((inner, outer));
        }
    }
    if node.outputs.len() > results.len() {
        return Err(Error::model(format!("{} results for {} of its body", node.outputs.len(), results.len())));
    }
    let captured = |n: &Node| n.captures.iter().any(|v| swapped.contains_key(v));
    let caught = builder.graph.nodes[first..].iter().any(captured);
    if caught {
        // Subgraphs read by name, so that such results keep theirs.
        handed.extend(swapped.drain());
    }
    for n in &mut builder.graph.nodes[first..] {
        for v in n.inputs.iter_mut().chain(&mut n.outputs).flatten() {
            *v = swapped.get(v).copied().unwrap_or(*v);
        }
    }
    for (inner, outer) in handed {
        let inner = swapped.get(&inner).copied().unwrap_or(inner);
        builder.graph.nodes.push(Node::new("", Op::Identity, &[inner], &[outer]));
    }
    Ok(())
}

//! Heads of detectors: the layers behind backbone and neck.
//!
//! They are found by the structure of the network, since exporters rename weights. A head is run on feature maps of several
//! sizes, either with one set of weights, which then several nodes read, or with one set for each size. Layers of the second
//! kind are twins: they, and everything behind them up to where the sizes meet, have the same operators, attributes,
//! kernels and output channels. The sizes meet where maps are reshaped, transposed or joined along another axis than the
//! channels. A layer is part of the head if it has twins at another size and everything between it and that place is part
//! of the head. Layers behind a head belong to it.
//!
//! A detector whose decoder is a transformer has nothing of that kind. Its outputs, or what is joined to one, are boxes and
//! scores of the same rows, and its heads are the layers on which only the boxes or only the scores depend.

use super::names::{matches, names_of};
use super::recipe::{Part, Scope};
use super::view::{Role, View};
use crate::error::{Error, Result};
use crate::graph::{Node, NodeId, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Why a layer is part of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// The recipe names it.
    Named,
    /// Several sizes of feature maps share its weight.
    Shared,
    /// It has twins at other sizes.
    Twin,
    /// Of the outputs, only boxes or only scores depend on it.
    End,
    /// It lies behind others.
    Behind,
}

/// Most layer names that an error lists.
const LISTED: usize = 12;

/// The layers of heads that `scope` leaves out; none where it takes in the whole network. An error where no head is found.
pub(super) fn heads(view: &View, scope: &Scope) -> Result<BTreeMap<NodeId, Head>> {
    if scope.part == Part::Network {
        return Ok(BTreeMap::new());
    }
    let active = view.graph.node_ids().filter(|id| view.active[id.0 as usize]);
    let layers: Vec<NodeId> = active.filter(|&id| view.role(id) == Role::Layer).collect();
    let mut found = if scope.heads.is_empty() { by_structure(view, &layers) } else { by_name(view, &layers, scope)? };
    if found.is_empty() {
        let ends: Vec<&str> = layers.iter().rev().take(LISTED).map(|&id| view.graph.node_name(id)).collect();
        let message = "no head was found: no layers are repeated at several sizes of feature maps, \
             and no outputs are boxes and scores of the same rows";
        return Err(Error::recipe(message).at("scope.part").hint(format!(
            "name the first layers of the heads in `scope.heads` (--heads PATTERN); the last layers are {}",
            ends.join(", ")
        )));
    }
    let behind = view.behind(found.keys().copied());
    for id in layers.iter().filter(|id| behind.contains(id)) {
        found.entry(*id).or_insert(Head::Behind);
    }
    if found.len() == layers.len() {
        return Err(Error::recipe("every layer is part of a head or lies behind one").at("scope.heads"));
    }
    Ok(found)
}

/// Layers that match a pattern; an error for a pattern that none matches.
fn by_name(view: &View, layers: &[NodeId], scope: &Scope) -> Result<BTreeMap<NodeId, Head>> {
    let mut found = BTreeMap::new();
    for pattern in &scope.heads {
        let named = |&id: &NodeId| names_of(view, id).any(|name| matches(pattern, name));
        let before = found.len();
        found.extend(layers.iter().copied().filter(named).map(|id| (id, Head::Named)));
        if found.len() == before {
            return Err(Error::recipe(format!("scope.heads: no layer matches `{pattern}`"))
                .hint("`qdrop plan` lists the names of layers"));
        }
    }
    Ok(found)
}

fn by_structure(view: &View, layers: &[NodeId]) -> BTreeMap<NodeId, Head> {
    let mut readers: BTreeMap<ValueId, Vec<NodeId>> = BTreeMap::new();
    for &id in layers {
        if let Some(weight) = view.weight(id) {
            readers.entry(weight).or_default().push(id);
        }
    }
    let shared: Vec<NodeId> = readers.into_values().filter(|nodes| several_sizes(view, nodes)).flatten().collect();
    if !shared.is_empty() {
        return shared.into_iter().map(|id| (id, Head::Shared)).collect();
    }
    let forms = forms(view);
    let mut twins: BTreeMap<u64, Vec<NodeId>> = BTreeMap::new();
    for &id in layers {
        twins.entry(forms[&id]).or_default().push(id);
    }
    let twins = twins.into_values().filter(|nodes| several_sizes(view, nodes)).flatten();
    let twins: BTreeSet<NodeId> = twins.collect();
    let mut found = BTreeMap::new();
    for &id in layers.iter().rev().filter(|id| twins.contains(id)) {
        let next =
            view.reached([id].into_iter(), |node| !meets(node)).into_iter().filter(|&n| view.role(n) == Role::Layer);
        if next.into_iter().all(|n| found.contains_key(&n)) {
            found.insert(id, Head::Twin);
        }
    }
    // Heads end a network: where more follows than they hold, what was found is no head.
    let rest = view.behind(found.keys().copied());
    let rest = layers.iter().filter(|id| rest.contains(id) && !found.contains_key(id)).count();
    if found.is_empty() || rest > found.len() { by_outputs(view, layers) } else { found }
}

/// The layers on which only the boxes or only the scores depend, where outputs are boxes and scores of the same rows and most
/// layers serve both.
fn by_outputs(view: &View, layers: &[NodeId]) -> BTreeMap<NodeId, Head> {
    let shape = |v: ValueId| view.facts.get(v).map(|f| &f.shape[..]).filter(|s| s.len() > 1 && view.is_float(v));
    let is_boxes = |v: ValueId| shape(v).and_then(|s| s.last()) == Some(&4);
    let joined = |&v: &ValueId| match view.producers[v.0 as usize].map(|id| view.graph.node(id)) {
        Some(node @ Node { op: Op::Concat { axis }, .. })
            if !is_boxes(v) && shape(v).is_some_and(|s| *axis == -1 || usize::try_from(*axis) == Ok(s.len() - 1)) =>
        {
            node.inputs.iter().flatten().copied().collect()
        }
        _ => vec![v],
    };
    let ends: BTreeSet<ValueId> = view.graph.outputs.iter().flat_map(joined).collect();
    let rows = |v: ValueId| shape(v).map(|s| &s[..s.len() - 1]);
    let Some(boxes) = ends.iter().copied().find(|&v| is_boxes(v)) else { return BTreeMap::new() };
    let (boxes, others): (Vec<ValueId>, Vec<ValueId>) =
        ends.into_iter().filter(|&v| rows(v) == rows(boxes)).partition(|&v| is_boxes(v));
    let [boxes, others] = [boxes, others].map(|ends| view.before(&ends));
    let serves = |set: &BTreeSet<NodeId>| layers.iter().filter(|id| set.contains(id)).count();
    let both = layers.iter().filter(|id| boxes.contains(id) && others.contains(id)).count();
    let (boxes_only, others_only) = (serves(&boxes) - both, serves(&others) - both);
    if boxes_only == 0 || others_only == 0 || both < boxes_only + others_only {
        return BTreeMap::new();
    }
    let one = |id: &&NodeId| boxes.contains(id) != others.contains(id);
    layers.iter().filter(one).map(|&id| (id, Head::End)).collect()
}

/// Whether feature maps that `nodes` make have more than one size.
fn several_sizes(view: &View, nodes: &[NodeId]) -> bool {
    let size = |&id: &NodeId| {
        let shape = &view.facts.get(view.graph.node(id).output(0)?)?.shape;
        (shape.len() > 2).then(|| shape[2..].to_vec())
    };
    nodes.iter().filter_map(size).collect::<BTreeSet<_>>().len() > 1
}

/// A number for each node that stands for it and everything behind it up to where sizes meet; twins have the same.
fn forms(view: &View) -> BTreeMap<NodeId, u64> {
    let mut forms: BTreeMap<NodeId, u64> = BTreeMap::new();
    for id in view.graph.node_ids().rev() {
        let node = view.graph.node(id);
        let mut hasher = DefaultHasher::new();
        if meets(node) {
            "meets".hash(&mut hasher);
        } else {
            own_form(view, node).hash(&mut hasher);
            for &v in node.outputs.iter().flatten() {
                view.leaves[v.0 as usize].hash(&mut hasher);
                let readers = view.consumers[v.0 as usize].iter();
                let mut behind: Vec<(usize, Option<u64>)> = readers.map(|(n, i)| (*i, forms.get(n).copied())).collect();
                behind.sort_unstable();
                behind.hash(&mut hasher);
            }
        }
        forms.insert(id, hasher.finish());
    }
    forms
}

/// Operator, attributes and shapes of constants, of a weight without its input channels.
fn own_form(view: &View, node: &Node) -> (String, Vec<Vec<usize>>) {
    let constant = |(i, v): (usize, &Option<ValueId>)| {
        let mut shape = view.graph.constant((*v)?)?.shape().to_vec();
        let inputs = match node.op {
            Op::Conv { .. } => Some(1),
            Op::ConvTranspose { .. } => Some(0),
            _ => None,
        };
        if let Some(axis) = inputs.filter(|&axis| Some(i) == node.op.weight_index() && axis < shape.len()) {
            shape.remove(axis);
        }
        Some(shape)
    };
    (format!("{:?}", node.op), node.inputs.iter().enumerate().filter_map(constant).collect())
}

/// Whether a node brings feature maps of several sizes into one tensor, or into the form for that.
fn meets(node: &Node) -> bool {
    match node.op {
        Op::Concat { axis } => axis != 1,
        Op::Transpose { .. } => true,
        _ => node.op.reshapes(),
    }
}

//! Which activations are quantized.
//!
//! Placement `producer`: the tensor that a layer, a product of activations or a junction (residual sum, gating
//! product) makes, after its activation function; what only feeds a junction is left to the junction, what a layer makes
//! for a normalisation alone is left to that, and what only feeds a softmax (scores of attention, masked or not) stays
//! float. Where other arithmetic (normalisation, softmax) stands before a layer, its result is quantized too, unless it
//! only scales by a number. Only tensors behind a layer or a table and before another one
//! count, so neither the network input nor the last layer's output has a site.
//!
//! Placement `consumer`: every activation operand of a layer, a product or a residual sum.
//!
//! Placement `integer`: as `producer`; `integer.rs` adds quantizers of 8 bits to it.

use super::layers::{Layers, names_any};
use super::view::{Role, View, is_function, normalizes, rectifies};
use super::{GridSpec, Placement, Recipe, Site, check, rules};
use crate::error::Result;
use crate::graph::{Binary, NodeId, Op, ValueId, Variadic};
use std::collections::{BTreeMap, BTreeSet};

/// A site before its grid is decided.
#[derive(Default)]
struct Draft {
    /// Layers (and other nodes) whose exceptions apply: producers, or readers with placement `consumer`.
    owners: Vec<NodeId>,
    readers: Option<Vec<(NodeId, usize)>>,
    last: bool,
    first: bool,
}

/// All sites by the recipe, in network order, and the values that would be sites if the recipe did not leave them float.
pub(super) fn sites(view: &View, layers: &Layers, recipe: &Recipe) -> Result<(Vec<Site>, Vec<ValueId>)> {
    let a = &recipe.activations;
    let drafts = match recipe.placement() {
        _ if a.bits == 32 => BTreeMap::new(),
        Placement::Producer | Placement::Integer => by_producer(view, layers),
        Placement::Consumer => by_consumer(view, layers),
    };
    // Recipes name values as the network does, before channels are divided.
    let name = |v: ValueId| {
        let undivided = view.producers[v.0 as usize].and_then(|id| view.divides(id));
        view.graph.value(undivided.unwrap_or(v)).name.as_str()
    };
    let names: Vec<&str> = drafts.keys().map(|&v| name(v)).collect();
    check::activations(&names, recipe)?;
    let position = |v: ValueId| (view.producers[v.0 as usize].map_or(0, |id| id.0 + 1), v);
    let mut drafts: Vec<(ValueId, Draft)> = drafts.into_iter().collect();
    drafts.sort_by_key(|&(v, _)| position(v));
    let nonnegative = view.nonnegative();
    let target = recipe.output.target;
    let (mut sites, mut float) = (Vec::new(), Vec::new());
    for (value, draft) in drafts {
        let mut bits = match () {
            () if draft.last => a.last(),
            () if draft.first && a.first_output_8bit => a.bits.max(8),
            () => a.bits,
        };
        let mut symmetric = a.symmetric;
        let name = name(value).to_string();
        let exceptions = recipe.overrides.iter().filter(|o| names_any(view, o, &draft.owners) || o.names(&name));
        for o in exceptions {
            bits = o.activation_bits.unwrap_or(bits);
            symmetric = o.activation_symmetric.unwrap_or(symmetric);
        }
        if bits == 32 {
            float.push(value);
            continue;
        }
        let symmetric = match () {
            () if rules::ACTIVATION_ZERO_POINTS.applies(target) => true,
            () if rules::ACTIVATION_SIGNS.applies(target) => !nonnegative[value.0 as usize],
            () => symmetric,
        };
        let grid = GridSpec { bits, symmetric, observer: a.observer, percentile: a.percentile };
        let readers = draft.readers.or_else(|| view.readers_within(value));
        let readers = readers.filter(|_| !rules::WHOLE_VALUES.applies(target));
        sites.push(Site { name, value, readers, grid });
    }
    Ok((sites, float))
}

/// The value on which what `value` holds is quantized: after the function that follows it, and after the junctions
/// that alone read it.
fn tail(view: &View, value: ValueId) -> ValueId {
    let mut value = view.function(value).1;
    while let Some(id) = view.only_reader(value) {
        let junction = view.role(id) == Role::Junction && view.active[id.0 as usize];
        match view.single_output(view.graph.node(id)) {
            Some(out) if junction => value = view.function(out).1,
            _ => break,
        }
    }
    // Where channels are divided, their quantizer stands behind that.
    view.divided(value).and_then(|id| view.single_output(view.graph.node(id))).unwrap_or(value)
}

/// Whether nodes for which `wanted` holds alone read `value`, perhaps moved or through functions.
fn only(view: &View, value: ValueId, wanted: fn(&View, NodeId) -> bool) -> bool {
    let mut open = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        let readers = &view.consumers[value.0 as usize];
        if view.leaves[value.0 as usize] || readers.is_empty() {
            return false;
        }
        for &(id, _) in readers.iter().filter(|r| !wanted(view, r.0)) {
            let node = view.graph.node(id);
            let passes = match view.role(id) {
                Role::Movement => true,
                Role::Other => is_function(&node.op) && !normalizes(&node.op),
                _ => false,
            };
            let results = node.outputs.iter().flatten().copied().filter(|&v| view.is_live(v));
            let before = open.len();
            open.extend(results);
            if !passes || open.len() == before {
                return false;
            }
        }
    }
    true
}

/// Whether `value`, which a node of `role` makes, is left to what reads it.
fn left(view: &View, value: ValueId, role: Role) -> bool {
    let softmax = |view: &View, id: NodeId| matches!(view.graph.node(id).op, Op::Softmax { .. });
    let norm = |view: &View, id: NodeId| normalizes(&view.graph.node(id).op);
    let junction = |view: &View, id: NodeId| view.role(id) == Role::Junction && view.active[id.0 as usize];
    only(view, value, softmax) || role != Role::Junction && (only(view, value, norm) || only(view, value, junction))
}

fn by_producer(view: &View, layers: &Layers) -> BTreeMap<ValueId, Draft> {
    let mut drafts: BTreeMap<ValueId, Draft> = BTreeMap::new();
    let graph = view.graph;
    for id in graph.node_ids().filter(|id| view.active[id.0 as usize]) {
        let role = view.role(id);
        if !matches!(role, Role::Layer | Role::Product | Role::Junction) {
            continue;
        }
        let Some(out) = view.single_output(graph.node(id)) else { continue };
        let tail = tail(view, out);
        let i = tail.0 as usize;
        if left(view, tail, role) {
            continue;
        }
        if view.after_layer[i] && view.before_layer[i] && view.is_float(tail) {
            let draft = drafts.entry(tail).or_default();
            draft.owners.push(id);
            draft.first |= layers.first.contains(&id);
        }
    }
    for (id, value) in layer_operands(view) {
        cover(view, value, &mut drafts);
        if layers.last.contains(&id) {
            mark_last(view, value, &mut drafts);
        }
    }
    drafts
}

/// Nodes with a weight or a product, each with an activation operand.
fn layer_operands<'v>(view: &'v View) -> impl Iterator<Item = (NodeId, ValueId)> + 'v {
    view.graph
        .node_ids()
        .filter(|id| view.active[id.0 as usize])
        .filter(|&id| matches!(view.role(id), Role::Layer | Role::Product) && !view.is_left_out(id))
        .flat_map(|id| {
            let node = view.graph.node(id);
            node.inputs.iter().take(2).flatten().map(move |&v| (id, v))
        })
        .filter(|&(_, v)| view.is_live(v))
}

/// Adds sites until `value` is made of quantized elements only.
fn cover(view: &View, value: ValueId, drafts: &mut BTreeMap<ValueId, Draft>) {
    let mut open = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(value) = open.pop() {
        if drafts.contains_key(&value) || !view.after_layer[value.0 as usize] || !seen.insert(value) {
            continue;
        }
        let Some(id) = view.producers[value.0 as usize] else { continue };
        let mut operands: Vec<ValueId> = view.operands(id).collect();
        if view.role(id) == Role::Movement || view.scales(id) {
            // The first is covered first.
            operands.reverse();
            open.append(&mut operands);
        } else if view.is_float(value) && !(rectifies(&view.graph.node(id).op) && covered(view, operands[0], drafts)) {
            drafts.entry(value).or_default().owners.push(id);
        }
    }
}

/// Whether a node keeps quantized elements on a grid.
pub(super) fn hands_on(view: &View, id: NodeId) -> bool {
    view.role(id) == Role::Movement || view.scales(id) || rectifies(&view.graph.node(id).op)
}

/// Whether `value` consists of quantized elements already.
fn covered(view: &View, value: ValueId, drafts: &BTreeMap<ValueId, Draft>) -> bool {
    let mut open = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(v) = open.pop() {
        if drafts.contains_key(&v) || !seen.insert(v) {
            continue;
        }
        match view.producers[v.0 as usize] {
            Some(id) if hands_on(view, id) => {
                open.extend(view.operands(id));
            }
            _ => return false,
        }
    }
    true
}

/// Marks the sites that `value` is made of as those of the tensor that reaches the last layer.
fn mark_last(view: &View, value: ValueId, drafts: &mut BTreeMap<ValueId, Draft>) {
    let mut open = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(value) = open.pop() {
        if !seen.insert(value) {
            continue;
        }
        if let Some(draft) = drafts.get_mut(&value) {
            draft.last = true;
            continue;
        }
        if let Some(id) = view.producers[value.0 as usize].filter(|&id| hands_on(view, id)) {
            open.extend(view.operands(id));
        }
    }
}

fn by_consumer(view: &View, layers: &Layers) -> BTreeMap<ValueId, Draft> {
    let mut drafts: BTreeMap<ValueId, Draft> = BTreeMap::new();
    let sum = |op: &Op| matches!(op, Op::Binary(Binary::Add) | Op::Variadic(Variadic::Sum));
    for v in view.graph.value_ids().filter(|&v| view.is_live(v) && view.is_float(v)) {
        let all = &view.consumers[v.0 as usize];
        let mut draft = Draft::default();
        let mut readers = Vec::new();
        for &(id, i) in all {
            let node = view.graph.node(id);
            let wanted = view.active[id.0 as usize]
                && !view.is_left_out(id)
                && match view.role(id) {
                    Role::Layer | Role::Product => i < 2,
                    Role::Junction => {
                        let inner = |v: &ValueId| view.before_layer[v.0 as usize] && view.after_layer[v.0 as usize];
                        sum(&node.op) && node.outputs.iter().flatten().any(inner)
                    }
                    _ => false,
                };
            if wanted {
                readers.push((id, i));
                draft.owners.push(id);
                // The network input is held as finely as what reaches the last layer.
                draft.last |= layers.last.contains(&id) || view.graph.inputs.contains(&v);
            }
        }
        if let Some(id) = view.producers[v.0 as usize] {
            draft.first = layers.first.iter().any(|&f| {
                f == id || view.single_output(view.graph.node(f)).is_some_and(|out| view.function(out).0.contains(&id))
            });
        }
        if !readers.is_empty() {
            draft.readers = (readers.len() < all.len() || view.leaves[v.0 as usize]).then_some(readers);
            drafts.insert(v, draft);
        }
    }
    drafts
}

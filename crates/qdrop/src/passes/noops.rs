//! Nodes that hand on what they are given.

use super::edit::Editor;
use super::{Context, constants};
use crate::engine::facts::Facts;
use crate::error::Result;
use crate::graph::{Graph, Node, Op, PadMode, ValueId};

/// Removes identities: Identity and Dropout, conversions to the same type, reshapes to the same shape, transposes
/// without effect, concatenations of one tensor, padding by nothing.
pub(super) fn remove(graph: &mut Graph, context: &Context) -> Result<bool> {
    let facts = constants::facts(graph, context)?;
    let mut changed = false;
    let mut editor = Editor::new(graph);
    for id in editor.node_ids() {
        let node = editor.node(id);
        if !hands_on(&editor, facts.as_ref(), node) {
            continue;
        }
        let others = node.outputs.iter().skip(1).flatten().count();
        if let (Some(x), Some(y), 0) = (node.input(0), node.output(0), others) {
            changed |= editor.bypass(id, x, y);
        }
    }
    editor.finish();
    // What was bypassed is dead now; a bypassed node in front of a graph output reads its own successor until then.
    let wanted = graph.consumers();
    let outputs = graph.outputs.clone();
    let dead = |node: &Node| {
        node.captures.is_empty()
            && node.outputs.iter().flatten().all(|v| wanted[v.0 as usize].is_empty() && !outputs.contains(v))
    };
    graph.retain_nodes(|_, node| !dead(node));
    Ok(changed)
}

fn hands_on(graph: &Graph, facts: Option<&(Facts, Facts)>, node: &Node) -> bool {
    let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { return false };
    let dtype = |v: ValueId| facts.and_then(|f| f.0.get(v)).map(|f| f.dtype).or(graph.value(v).fact.dtype);
    let same_shape = || {
        facts.is_some_and(|(one, two)| {
            [one, two].iter().all(|f| matches!((f.get(x), f.get(y)), (Some(a), Some(b)) if a.shape == b.shape))
        })
    };
    match &node.op {
        Op::Identity => true,
        Op::Cast { to } => dtype(x) == Some(*to),
        Op::Expand | Op::Tile => same_shape(),
        op if op.reshapes() => same_shape(),
        Op::Transpose { perm } => !perm.is_empty() && perm.iter().enumerate().all(|(i, &p)| p == i as i64),
        Op::Concat { .. } => node.inputs.len() == 1,
        Op::Pad { mode: PadMode::Constant } => {
            let pads = node.input(1).and_then(|v| graph.constant(v)).and_then(|t| t.to_i64().ok());
            pads.is_some_and(|p| p.iter().all(|&n| n == 0))
        }
        _ => false,
    }
}

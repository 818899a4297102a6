//! Padding by zeros in front of a convolution becomes the convolution's own.

use super::Context;
use crate::error::Result;
use crate::graph::{Graph, Node, Op, PadMode, Padding, ValueId};

/// Moves constant zero padding of spatial axes into the convolutions that read it.
pub(super) fn fold(graph: &mut Graph, _: &Context) -> Result<bool> {
    let producers = graph.producers();
    let mut changed = false;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Op::Conv { window, .. } = &node.op else { continue };
        let Padding::Explicit(own) = &window.padding else { continue };
        let Some(pad) = node.input(0).and_then(|v| producers[v.0 as usize]) else { continue };
        let Some((x, extra)) = zero_pads(graph, graph.node(pad)) else { continue };
        let mut pads = if own.is_empty() { vec![0; extra.len()] } else { own.clone() };
        let sums: Option<Vec<i64>> = match pads.len() == extra.len() {
            true => pads.iter().zip(&extra).map(|(a, b)| a.checked_add(*b)).collect(),
            false => None,
        };
        let Some(sums) = sums else { continue };
        pads = sums;
        let node = &mut graph.nodes[id.0 as usize];
        if let Op::Conv { window, .. } = &mut node.op {
            window.padding = Padding::Explicit(pads);
        }
        node.inputs[0] = Some(x);
        node.origin = None;
        changed = true;
    }
    Ok(changed)
}

/// The operand of a Pad node that adds zeros around spatial axes only, and how many: begins, then ends.
fn zero_pads(graph: &Graph, node: &Node) -> Option<(ValueId, Vec<i64>)> {
    if !matches!(node.op, Op::Pad { mode: PadMode::Constant }) {
        return None;
    }
    let constant = |i: usize| node.input(i).and_then(|v| graph.constant(v));
    if let Some(value) = node.input(2) {
        let value = graph.constant(value)?.to_f64().ok()?;
        if value.iter().any(|&x| x != 0.0) {
            return None;
        }
    }
    let pads = constant(1)?.to_i64().ok()?;
    // Axes may be chosen by a fourth operand; then the rank is not known here.
    if node.input(3).is_some() || pads.len() % 2 != 0 || pads.len() < 6 {
        return None;
    }
    let rank = pads.len() / 2;
    let (begin, end) = pads.split_at(rank);
    let outer = begin[..2].iter().chain(&end[..2]);
    if outer.clone().any(|&n| n != 0) || pads.iter().any(|&n| n < 0) {
        return None;
    }
    Some((node.input(0)?, [&begin[2..], &end[2..]].concat()))
}

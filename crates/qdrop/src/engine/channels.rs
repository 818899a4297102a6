//! Which axis of a value holds its channels (features), which losses sum over; and which holds the tokens of a sequence, or
//! the rows of an image.
//!
//! Convolutions, pooling and their like have them on axis 1, products with a weight on the last one; what works element by
//! element keeps the axis, what moves elements takes it along. Where nothing tells, three axes are a sequence
//! [batch, tokens, features], and all else is an image [batch, channels, ...].

use super::fact::{Facts, around, transposed};
use crate::graph::{Graph, Node, Op, ValueId};

/// Per value: the axis, if something tells.
pub(super) fn axes(graph: &Graph, facts: &Facts) -> Vec<Option<usize>> {
    let mut axes = vec![None; graph.values.len()];
    for node in &graph.nodes {
        for v in node.outputs.iter().flatten() {
            axes[v.0 as usize] = made(graph, facts, node, *v, &axes);
        }
    }
    // What the node that makes a value does not tell, its readers may.
    for node in &graph.nodes {
        let Some(x) = node.input(0) else { continue };
        let told = match &node.op {
            op if spatial(op) => Some(1),
            _ if weighted(graph, node) => facts.get(x).and_then(|f| f.shape.len().checked_sub(1)),
            _ => None,
        };
        let axis = &mut axes[x.0 as usize];
        *axis = axis.or(told);
    }
    axes
}

/// Operators with the channels of operand and result on axis 1.
fn spatial(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv { .. }
            | Op::ConvTranspose { .. }
            | Op::BatchNorm { .. }
            | Op::InstanceNorm { .. }
            | Op::GroupNorm { .. }
            | Op::Lrn { .. }
            | Op::MaxPool { .. }
            | Op::AveragePool { .. }
            | Op::LpPool { .. }
            | Op::GlobalAveragePool
            | Op::GlobalMaxPool
            | Op::GlobalLpPool { .. }
            | Op::DepthToSpace { .. }
            | Op::SpaceToDepth { .. }
    )
}

/// Whether a node is a product with a constant matrix on the right.
fn weighted(graph: &Graph, node: &Node) -> bool {
    let product = matches!(node.op, Op::MatMul | Op::Gemm { trans_a: false, .. });
    product && node.input(1).is_some_and(|w| graph.constant(w).is_some())
}

/// The axis of `result`, which `node` computes.
fn made(graph: &Graph, facts: &Facts, node: &Node, result: ValueId, axes: &[Option<usize>]) -> Option<usize> {
    let shape = &facts.get(result)?.shape;
    if spatial(&node.op) {
        return Some(1);
    }
    if weighted(graph, node) {
        return shape.len().checked_sub(1);
    }
    match &node.op {
        Op::Transpose { perm } => transposed(perm, shape.len(), axes[node.input(0)?.0 as usize]?),
        op if op.reshapes() => {
            let x = node.input(0)?;
            let (from, axis) = (&facts.get(x)?.shape, axes[x.0 as usize]?);
            // The axis with as many elements behind it; heads of features leave the rest of them behind.
            let behind = around(from, axis)[2];
            (0..shape.len()).find(|&a| shape[a] > 1 && around(shape, a)[2] == behind)
        }
        // Features that all positions of one side sum (shares of attention times values) stay behind.
        Op::MatMul => {
            let right = node.input(1)?;
            let last = |v: ValueId| facts.get(v).and_then(|f| f.shape.len().checked_sub(1));
            (axes[right.0 as usize] == last(right)).then(|| shape.len() - 1)
        }
        Op::Gemm { .. } | Op::Gather { .. } | Op::Einsum { .. } | Op::Attention(_) => None,
        _ => {
            let kept = |v: &ValueId| facts.get(*v).is_some_and(|f| f.shape.len() == shape.len());
            node.inputs.iter().flatten().filter(|v| kept(v)).find_map(|v| axes[v.0 as usize])
        }
    }
}

/// Per value: the axis of the `length` tokens that the second axis of inputs holds, where there is one.
pub fn tokens(graph: &Graph, facts: &Facts, length: usize) -> Vec<Option<usize>> {
    let mut axes = vec![None; graph.values.len()];
    let shape = |v: ValueId| facts.get(v).map(|f| f.shape.as_slice());
    for &v in &graph.inputs {
        axes[v.0 as usize] = shape(v).filter(|s| s.get(1) == Some(&length)).map(|_| 1);
    }
    for node in &graph.nodes {
        for &y in node.outputs.iter().flatten() {
            let Some(to) = shape(y) else { continue };
            let from = |i: usize| {
                let v = node.input(i)?;
                Some((shape(v)?, axes[v.0 as usize]?))
            };
            let axis = match &node.op {
                Op::Transpose { perm } => from(0).and_then(|(_, axis)| transposed(perm, to.len(), axis)),
                op if op.reshapes() => {
                    // As many elements as before in front of them.
                    let same = |(old, axis)| (0..to.len()).find(|&a| around(to, a)[..2] == around(old, axis)[..2]);
                    from(0).and_then(same)
                }
                Op::Gather { axis: 0 } => from(1).map(|(_, axis)| axis),
                // Rows of the left factor stay; its columns are summed.
                Op::MatMul | Op::Gemm { .. } => {
                    from(0).filter(|(old, axis)| axis + 1 < old.len()).map(|(_, axis)| axis)
                }
                _ => (0..node.inputs.len()).find_map(|i| {
                    let (old, axis) = from(i)?;
                    (axis + to.len()).checked_sub(old.len())
                }),
            };
            axes[y.0 as usize] = axis.filter(|&a| to.get(a) == Some(&length));
        }
    }
    axes
}

/// Where the rows and columns of an image lie in a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The rows along an axis, the columns along the one behind it.
    Map(usize),
    /// Both along one axis, that of one map or of several one behind the other.
    Flat(usize, Vec<Piece>),
}

/// A map along one axis: its rows and columns, as often as `before` says, each cell as often as `behind` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// How often the whole map follows.
    pub before: usize,
    /// Height and width.
    pub size: [usize; 2],
    /// How often each cell follows.
    pub behind: usize,
}

impl Piece {
    fn len(&self) -> usize {
        self.before * self.size[0] * self.size[1] * self.behind
    }
}

/// Per value: where the image lies that `input` holds along `rows` and, behind it, its columns; `None` where a value's rows
/// and columns, however many, are not that image from edge to edge.
pub fn rows(graph: &Graph, facts: &Facts, input: ValueId, rows: usize) -> Vec<Option<Place>> {
    let mut places: Vec<Option<Place>> = vec![None; graph.values.len()];
    places[input.0 as usize] = Some(Place::Map(rows));
    for node in &graph.nodes {
        for &y in node.outputs.iter().flatten() {
            let Some(to) = facts.get(y).map(|f| f.shape.as_slice()) else { continue };
            let from = |i: usize| {
                let v = node.input(i)?;
                Some((facts.get(v)?.shape.as_slice(), places[v.0 as usize].as_ref()?))
            };
            places[y.0 as usize] = place(graph, node, to, &from);
        }
    }
    places
}

/// Where the image lies in a result of the shape `to`; `from` tells shape and place of the operands.
fn place<'p>(
    graph: &Graph,
    node: &Node,
    to: &[usize],
    from: &dyn Fn(usize) -> Option<(&'p [usize], &'p Place)>,
) -> Option<Place> {
    let first = || (0..node.inputs.len()).find_map(from);
    match &node.op {
        op if resizes(op) => from(0).filter(|&(old, p)| *p == Place::Map(2) && old.len() == 4).map(|_| Place::Map(2)),
        Op::Transpose { perm } => match from(0)?.1 {
            Place::Map(axis) => {
                let [rows, columns] = [*axis, axis + 1].map(|axis| transposed(perm, to.len(), axis));
                rows.filter(|rows| Some(rows + 1) == columns).map(Place::Map)
            }
            Place::Flat(axis, pieces) => Some(Place::Flat(transposed(perm, to.len(), *axis)?, pieces.clone())),
        },
        op if op.reshapes() => reshaped(from(0)?, to),
        Op::Concat { axis } | Op::Split { axis } => {
            let along = axis.rem_euclid(to.len().max(1) as i64) as usize;
            match first()?.1 {
                Place::Map(axis) => (along != *axis && along != axis + 1).then_some(Place::Map(*axis)),
                Place::Flat(axis, pieces) if along != *axis => Some(Place::Flat(*axis, pieces.clone())),
                Place::Flat(axis, _) if matches!(node.op, Op::Concat { .. }) => {
                    let pieces = |i: usize| match from(i)?.1 {
                        Place::Flat(own, pieces) if own == axis => Some(pieces.clone()),
                        _ => None,
                    };
                    let all: Option<Vec<Vec<Piece>>> = (0..node.inputs.len()).map(pieces).collect();
                    Some(Place::Flat(*axis, all?.concat()))
                }
                Place::Flat(..) => None,
            }
        }
        Op::Slice => {
            let (old, place) = from(0)?;
            let kept = match place {
                Place::Map(axis) => whole(graph, node, old, to, *axis),
                Place::Flat(axis, _) => old.len() == to.len() && old[*axis] == to[*axis],
            };
            kept.then(|| place.clone())
        }
        op if mixes(op) => None,
        _ => (0..node.inputs.len()).find_map(|i| {
            let (old, place) = from(i)?;
            let axes = match place {
                Place::Map(axis) => *axis..axis + 2,
                Place::Flat(axis, _) => *axis..axis + 1,
            };
            (old.len() == to.len() && old.get(axes.clone()) == to.get(axes)).then(|| place.clone())
        }),
    }
}

/// Where the image lies after a reshape to `to`.
fn reshaped((old, place): (&[usize], &Place), to: &[usize]) -> Option<Place> {
    match place {
        Place::Map(axis) => {
            let size = [old[*axis], old[axis + 1]];
            let same = |&a: &usize| to.get(a..a + 2) == Some(&size[..]) && around(to, a)[0] == around(old, *axis)[0];
            let flat = |a: usize| {
                let (outer, inner) = (around(old, *axis)[0], around(old, axis + 1)[2]);
                let [before, length, behind] = around(to, a);
                let (before, behind) = (outer.checked_div(before)?, inner.checked_div(behind)?);
                let piece = Piece { before, size, behind };
                let fits =
                    piece.len() == length && before * around(to, a)[0] == outer && behind * around(to, a)[2] == inner;
                fits.then(|| Place::Flat(a, vec![piece]))
            };
            (0..to.len()).find(same).map(Place::Map).or_else(|| (0..to.len()).find_map(flat))
        }
        Place::Flat(axis, pieces) => {
            let same = |&a: &usize| around(to, a) == around(old, *axis);
            (0..to.len()).find(same).map(|a| Place::Flat(a, pieces.clone()))
        }
    }
}

/// Operators whose results show the same image as their operands `[N, C, H, W]`, in another resolution.
fn resizes(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv { .. }
            | Op::ConvTranspose { .. }
            | Op::MaxPool { .. }
            | Op::AveragePool { .. }
            | Op::LpPool { .. }
            | Op::Pad { .. }
            | Op::Resize(_)
            | Op::DepthToSpace { .. }
            | Op::SpaceToDepth { .. }
    )
}

/// Operators whose results may show something else even where sizes stay.
fn mixes(op: &Op) -> bool {
    matches!(
        op,
        Op::MatMul
            | Op::Gemm { .. }
            | Op::Einsum { .. }
            | Op::Attention(_)
            | Op::Recurrent(_)
            | Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::GatherNd { .. }
            | Op::ScatterElements { .. }
            | Op::ScatterNd { .. }
            | Op::Compress { .. }
            | Op::TopK { .. }
            | Op::ReverseSequence { .. }
            | Op::GridSample { .. }
            | Op::RoiAlign { .. }
            | Op::Choice
            | Op::Opaque { .. }
    )
}

/// Whether a Slice of `from` takes every row and every column behind the axis `rows`, or every second, third and so on.
fn whole(graph: &Graph, node: &Node, from: &[usize], to: &[usize], rows: usize) -> bool {
    let constant = |i: usize| node.input(i).map(|v| graph.constant(v).and_then(|t| t.to_i64().ok()));
    let Some(Some(starts)) = constant(1) else { return false };
    let (Some(axes), Some(steps)) = (
        constant(3).unwrap_or_else(|| Some((0..starts.len() as i64).collect())),
        constant(4).unwrap_or_else(|| Some(vec![1; starts.len()])),
    ) else {
        return false;
    };
    [rows, rows + 1].iter().all(|&axis| {
        let named = axes.iter().position(|a| a.rem_euclid(from.len() as i64) as usize == axis);
        let Some(at) = named else { return true };
        let (Some(&start), Some(&step)) = (starts.get(at), steps.get(at)) else { return false };
        (0..step.min(from[axis] as i64)).contains(&start)
            && to.get(axis) == Some(&(from[axis] - start as usize).div_ceil(step as usize))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::facts;
    use crate::graph::testing::Builder;
    use crate::graph::{Dim, Unary};
    use crate::tensor::Tensor;

    #[test]
    fn rows_of_an_image_are_followed_from_edge_to_edge() {
        let mut b = Builder::new();
        let x = b.input("x", [1, 3, 8, 12].map(Dim::Known).to_vec());
        let ints = |b: &mut Builder, name: &str, values: Vec<i64>| b.graph.add_constant(name, Tensor::i64s(values));
        let slice = |b: &mut Builder, name: &str, lists: [Vec<i64>; 4]| {
            let mut operands = vec![x];
            operands.extend(lists.into_iter().enumerate().map(|(i, list)| ints(b, &format!("{name}.{i}"), list)));
            b.node(Op::Slice, &operands)
        };
        let most = i64::MAX;
        let even = slice(&mut b, "even", [vec![0, 1], vec![most, most], vec![2, -1], vec![2, 2]]);
        let half = slice(&mut b, "half", [vec![0], vec![4], vec![2], vec![1]]);
        let turned = slice(&mut b, "turned", [vec![-1], vec![i64::MIN], vec![3], vec![-1]]);
        let channels = slice(&mut b, "channels", [vec![1], vec![3], vec![1], vec![1]]);
        let joined = b.node(Op::Concat { axis: 1 }, &[even, even]);
        let below = b.node(Op::Concat { axis: -2 }, &[even, even]);
        let groups = ints(&mut b, "groups", vec![1, 2, 3, 4, 6]);
        let split = b.node(Op::Reshape { allowzero: false }, &[joined, groups]);
        let shuffled = b.node(Op::Transpose { perm: vec![0, 2, 1, 3, 4] }, &[split]);
        let last = b.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[joined]);
        let crossed = b.node(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[joined]);
        let flat = ints(&mut b, "flat", vec![1, 6, 24]);
        let tokens = b.node(Op::Reshape { allowzero: false }, &[joined, flat]);
        let relu = b.node(Op::Unary(Unary::Relu), &[last]);
        let pooled = b.node(Op::GlobalAveragePool, &[joined]);
        let ends = [half, turned, channels, below, shuffled, crossed, tokens, relu, pooled];
        let g = b.finish(&ends);
        let facts = facts::infer(&g, &[vec![1, 3, 8, 12]]).unwrap();
        let axes = rows(&g, &facts, x, 2);
        let place = |v: ValueId| axes[v.0 as usize].clone();
        let map = |axis: usize| Some(Place::Map(axis));
        assert_eq!([x, even, joined, channels, split, shuffled].map(place), [2, 2, 2, 2, 3, 3].map(map));
        assert_eq!([last, relu].map(place), [1, 1].map(map));
        assert_eq!([half, turned, below, crossed, pooled].map(place), [const { None }; 5]);
        let piece = Piece { before: 1, size: [4, 6], behind: 1 };
        assert_eq!(place(tokens), Some(Place::Flat(2, vec![piece])));
    }

    #[test]
    fn maps_side_by_side_are_followed_along_one_axis() {
        let mut b = Builder::new();
        let x = b.input("x", [1, 4, 8, 12].map(Dim::Known).to_vec());
        let ints = |b: &mut Builder, name: &str, values: Vec<i64>| b.graph.add_constant(name, Tensor::i64s(values));
        let steps = ["starts", "ends", "axes", "steps"].map(|n| {
            let values = if n == "starts" { vec![0, 0] } else { vec![if n == "ends" { 99 } else { 2 }; 2] };
            ints(&mut b, n, if n == "axes" { vec![2, 3] } else { values })
        });
        let small = b.node(Op::Slice, &[x, steps[0], steps[1], steps[2], steps[3]]);
        let shape = ints(&mut b, "shape", vec![1, 4, -1]);
        let [one, two] = [x, small].map(|v| b.node(Op::Reshape { allowzero: false }, &[v, shape]));
        let both = b.node(Op::Concat { axis: 2 }, &[one, two]);
        let turned = b.node(Op::Transpose { perm: vec![0, 2, 1] }, &[both]);
        let nothing = b.graph.add_constant("nothing", Tensor::f32(&[1, 4, 3], vec![0.0; 12]));
        let strange = b.node(Op::Concat { axis: 2 }, &[both, nothing]);
        // Two anchors of two numbers a cell, in front of the cells and behind them.
        let anchors = ints(&mut b, "anchors", vec![1, 2, 2, 8, 12]);
        let apart = b.node(Op::Reshape { allowzero: false }, &[x, anchors]);
        let moved = b.node(Op::Transpose { perm: vec![0, 1, 3, 4, 2] }, &[apart]);
        let flat = ints(&mut b, "flat", vec![1, -1, 2]);
        let front = b.node(Op::Reshape { allowzero: false }, &[moved, flat]);
        let last = b.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[x]);
        let behind = b.node(Op::Reshape { allowzero: false }, &[last, flat]);
        let g = b.finish(&[turned, strange, front, behind]);
        let facts = facts::infer(&g, &[vec![1, 4, 8, 12]]).unwrap();
        let places = rows(&g, &facts, x, 2);
        let piece = |before, size, behind| Piece { before, size, behind };
        let pair = vec![piece(1, [8, 12], 1), piece(1, [4, 6], 1)];
        assert_eq!(places[both.0 as usize], Some(Place::Flat(2, pair.clone())));
        assert_eq!(places[turned.0 as usize], Some(Place::Flat(1, pair)));
        assert_eq!(places[strange.0 as usize], None);
        assert_eq!(places[front.0 as usize], Some(Place::Flat(1, vec![piece(2, [8, 12], 1)])));
        assert_eq!(places[behind.0 as usize], Some(Place::Flat(1, vec![piece(1, [8, 12], 2)])));
    }
}

//! Plans of networks on sequences: embeddings, attention with a mask, feed-forward parts, heads.

use super::tests::{check, units};
use super::*;
use crate::engine::facts::infer;
use crate::graph::testing::Builder;
use crate::graph::{Binary, Dim, Fact, Node, Unary};
use crate::tensor::{DType, Tensor};

/// Tokens and features.
pub(super) const SIZES: (usize, usize) = (6, 8);

fn tokens(b: &mut Builder, name: &str) -> ValueId {
    let shape = vec![Dim::Symbol("n".into()), Dim::Known(SIZES.0)];
    let v = b.graph.add_value(name, Fact { dtype: Some(DType::I64), shape: Some(shape) });
    b.graph.inputs.push(v);
    v
}

fn linear(b: &mut Builder, name: &str, x: ValueId, from: usize, to: usize) -> ValueId {
    b.linear(name, x, from, to)
}

fn norm(b: &mut Builder, name: &str, x: ValueId) -> ValueId {
    let (scale, bias) = (b.constant(&format!("{name}.s"), &[SIZES.1]), b.constant(&format!("{name}.b"), &[SIZES.1]));
    b.node(Op::LayerNorm { axis: -1, epsilon: 1e-5 }, &[x, scale, bias])
}

fn heads(b: &mut Builder, name: &str, x: ValueId, perm: [i64; 4]) -> ValueId {
    b.heads(name, x, [SIZES.0, 2, 4], perm)
}

/// An encoder layer as BERT has it: normalised after each sum.
fn encoder(b: &mut Builder, name: &str, x: ValueId, mask: ValueId) -> ValueId {
    let [q, k, v] = ["q", "k", "v"].map(|n| linear(b, &format!("{name}.{n}"), x, SIZES.1, SIZES.1));
    let q = heads(b, &format!("{name}.q"), q, [0, 2, 1, 3]);
    let k = heads(b, &format!("{name}.k"), k, [0, 2, 3, 1]);
    let v = heads(b, &format!("{name}.v"), v, [0, 2, 1, 3]);
    let scores = b.node(Op::MatMul, &[q, k]);
    let scores = b.binary(Binary::Add, scores, mask);
    let shares = b.node(Op::Softmax { axis: -1, log: false }, &[scores]);
    let context = b.node(Op::MatMul, &[shares, v]);
    let context = b.node(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context]);
    let shape = b.graph.add_constant(&format!("{name}.joined"), Tensor::i64s(vec![0, SIZES.0 as i64, 8]));
    let context = b.node(Op::Reshape { allowzero: false }, &[context, shape]);
    let out = linear(b, &format!("{name}.out"), context, SIZES.1, SIZES.1);
    let sum = b.binary(Binary::Add, out, x);
    let x = norm(b, &format!("{name}.n1"), sum);
    let inner = linear(b, &format!("{name}.up"), x, SIZES.1, 12);
    let inner = b.node(Op::Unary(Unary::Gelu { tanh: false }), &[inner]);
    let out = linear(b, &format!("{name}.down"), inner, 12, SIZES.1);
    let sum = b.binary(Binary::Add, out, x);
    norm(b, &format!("{name}.n2"), sum)
}

/// Embeddings, two encoder layers, a head tied to the table where `tied`, else of its own.
pub(super) fn network(tied: bool) -> Graph {
    let mut b = Builder::new();
    let (ids, mask) = (tokens(&mut b, "ids"), tokens(&mut b, "mask"));
    let table = b.constant("table", &[20, SIZES.1]);
    let x = b.node(Op::Gather { axis: 0 }, &[table, ids]);
    let x = norm(&mut b, "n0", x);
    let mask = b.node(Op::Cast { to: DType::F32 }, &[mask]);
    let least = b.graph.add_constant("least", Tensor::scalar(-1e4));
    let one = b.graph.add_constant("one", Tensor::scalar(1.0));
    let mask = b.binary(Binary::Sub, one, mask);
    let mask = b.binary(Binary::Mul, mask, least);
    let axes = b.graph.add_constant("axes", Tensor::i64s(vec![1, 2]));
    let mask = b.node(Op::Unsqueeze, &[mask, axes]);
    let x = encoder(&mut b, "l0", x, mask);
    let x = encoder(&mut b, "l1", x, mask);
    let y = if tied {
        let values = b.graph.constant(table).unwrap().to_f32().unwrap();
        let transposed = (0..SIZES.1).flat_map(|j| (0..20).map(move |i| (i, j))).map(|(i, j)| values[i * SIZES.1 + j]);
        let head = b.graph.add_constant("head.weight", Tensor::f32(&[SIZES.1, 20], transposed.collect()));
        b.node(Op::MatMul, &[x, head])
    } else {
        linear(&mut b, "head", x, SIZES.1, 3)
    };
    b.finish(&[y])
}

pub(super) fn planned(graph: &Graph, recipe: &Recipe) -> Plan {
    let facts = infer(graph, &[vec![1, SIZES.0], vec![1, SIZES.0]]).unwrap();
    let plan = plan(graph, &facts, recipe).unwrap();
    check(graph, &plan);
    plan
}

#[test]
fn attention_and_feed_forward_are_units_and_masks_are_no_activations() {
    let graph = network(false);
    let plan = planned(&graph, &Recipe::default());
    let layers: Vec<(usize, usize)> = plan.units.iter().map(|u| (u.layers.len(), u.fixed.len())).collect();
    assert_eq!(layers, [(0, 1), (4, 0), (2, 0), (4, 0), (2, 0), (1, 0)], "{:?}", units(&graph, &plan));
    let name = |v: &ValueId| graph.value(*v).name.as_str();
    let producer = |v: ValueId| graph.producers()[v.0 as usize].map_or("input", |n| graph.node(n).op.kind());
    // Of each encoder layer: queries, keys, values, shares, what they select, both normalised sums, GELU.
    let kinds: Vec<&str> = plan.sites.iter().map(|s| producer(s.value)).collect();
    let encoder = ["Add", "Add", "Add", "Softmax", "MatMul", "LayerNormalization", "Gelu", "LayerNormalization"];
    assert_eq!(kinds[0], "LayerNormalization", "of the embeddings");
    assert_eq!((&kinds[1..9], &kinds[9..]), (&encoder[..], &encoder[..]));
    let scores = |n: &&Node| n.op == Op::Softmax { axis: -1, log: false };
    for softmax in graph.nodes.iter().filter(scores) {
        let scores = softmax.input(0).unwrap();
        assert!(plan.sites.iter().all(|s| s.value != scores), "{} is quantized", name(&scores));
    }
    let bits: Vec<u32> = plan.layers.iter().map(|l| l.grid.bits).collect();
    assert_eq!((bits[0], &bits[1..13], bits[13]), (8, &[4; 12][..], 8), "table, layers, head");
    assert_eq!(plan.layers[0].axis, Some(0), "each row of the table has its step");
    assert_eq!(plan.sites.last().map(|s| s.grid.bits), Some(8), "what reaches the head");
    let attention = &plan.units[1];
    assert_eq!((attention.inputs.len(), attention.outputs.len()), (2, 1), "activations and the mask");
}

#[test]
fn blocks_can_be_joined() {
    let graph = network(false);
    let mut recipe = Recipe::default();
    recipe.units.blocks = 2;
    let plan = planned(&graph, &recipe);
    assert_eq!(plan.units.iter().map(|u| u.layers.len()).collect::<Vec<_>>(), [0, 6, 6, 1]);
    recipe.units.max_layers = 5;
    assert_eq!(planned(&graph, &recipe).units.len(), 6, "too large to be joined");
    recipe.units.max_layers = 12;
    recipe.units.cut_after = vec!["n20".into()];
    assert!(planned(&graph, &recipe).units.len() > 4);
}

#[test]
fn a_head_tied_to_the_table_is_rounded_like_it() {
    let graph = network(true);
    let mut recipe = Recipe::default();
    recipe.weights.embedding_bits = 6;
    let plan = planned(&graph, &recipe);
    let (table, head) = (&plan.layers[0], plan.layers.last().unwrap());
    assert_eq!((table.grid.bits, head.grid.bits), (6, 6));
    assert_eq!((table.axis, head.axis), (Some(0), Some(1)));
    assert_eq!(plan.units.last().unwrap().fixed, [LayerId(plan.layers.len() as u32 - 1)]);
}

#[test]
fn tables_stay_float_when_asked() {
    let mut recipe = Recipe::default();
    recipe.weights.embedding_bits = 32;
    let plan = planned(&network(false), &recipe);
    assert!(plan.units[0].fixed.is_empty() && plan.layers.len() == 13);
}

#[test]
fn recurrent_operators_stay_float_between_units() {
    use crate::graph::{Cell, Direction, Recurrent};
    let mut b = Builder::new();
    let x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(SIZES.0), Dim::Known(SIZES.1)]);
    let y = linear(&mut b, "first", x, SIZES.1, SIZES.1);
    let y = b.relu(y);
    let y = linear(&mut b, "second", y, SIZES.1, SIZES.1);
    let y = b.node(Op::Transpose { perm: vec![1, 0, 2] }, &[y]);
    let (w, r) = (b.constant("w", &[1, 4 * SIZES.1, SIZES.1]), b.constant("r", &[1, 4 * SIZES.1, SIZES.1]));
    let lstm = Recurrent::new(Cell::Lstm { input_forget: false }, Direction::Forward);
    let y = b.node(Op::Recurrent(lstm), &[y, w, r]);
    let axes = b.graph.add_constant("axes", Tensor::i64s(vec![1]));
    let y = b.node(Op::Squeeze, &[y, axes]);
    let y = linear(&mut b, "third", y, SIZES.1, SIZES.1);
    let y = b.relu(y);
    let y = linear(&mut b, "last", y, SIZES.1, 2);
    let graph = b.finish(&[y]);
    let facts = infer(&graph, &[vec![1, SIZES.0, SIZES.1]]).unwrap();
    let plan = super::plan(&graph, &facts, &Recipe::default()).unwrap();
    check(&graph, &plan);
    assert_eq!(plan.layers.len(), 4);
    let found = units(&graph, &plan);
    assert!(found.iter().any(|u| u.contains("LSTM") && !u.contains("MatMul")), "{found:?}");
    // Behind both layers in front, the operator itself and the layer behind it.
    assert_eq!(plan.sites.len(), 4);
}

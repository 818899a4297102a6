//! Which operands of attention's products have factors.

use super::factors::*;
use super::{Placement, Plan, Recipe, SiteId, Target, plan};
use crate::engine::facts;
use crate::graph::testing::Builder;
use crate::graph::{Binary, Dim, Graph, Node, Op, Unary, ValueId};
use crate::tensor::Tensor;

/// Tokens, heads and features a head.
const SIZES: [usize; 3] = [5, 2, 3];
const WIDTH: usize = SIZES[1] * SIZES[2];
const ROWS: [i64; 4] = [0, 2, 1, 3];
const COLUMNS: [i64; 4] = [0, 2, 3, 1];

/// What is done to each operand, by its name, in front of the heads and behind them.
type Change<'a> = &'a dyn Fn(&mut Builder, &str, ValueId) -> ValueId;

fn unchanged(_: &mut Builder, _: &str, v: ValueId) -> ValueId {
    v
}

/// A layer, attention, and the layer behind its own; queries, keys and values are what three layers make.
fn network(front: Change, behind: Change) -> Graph {
    let mut b = Builder::new();
    let shape = vec![Dim::Symbol("n".into()), Dim::Known(SIZES[0]), Dim::Known(WIDTH)];
    let x = b.input("x", shape);
    let x = b.linear("first", x, WIDTH, WIDTH);
    let operands = [("q", ROWS), ("k", COLUMNS), ("v", ROWS)].map(|(name, perm)| {
        let y = b.linear(name, x, WIDTH, WIDTH);
        let y = front(&mut b, name, y);
        let y = b.heads(name, y, SIZES, perm);
        behind(&mut b, name, y)
    });
    let y = b.attend(operands, SIZES);
    let y = b.node(Op::Unary(Unary::Gelu { tanh: false }), &[y]);
    let y = b.linear("last", y, WIDTH, 2);
    let outputs = b.graph.outputs.clone();
    b.finish(&[&outputs[..], &[y]].concat())
}

/// `v`, divided by the root of the features a head.
fn divided(b: &mut Builder, v: ValueId) -> ValueId {
    let root = b.graph.add_constant("root", Tensor::scalar((SIZES[2] as f32).sqrt()));
    b.binary(Binary::Div, v, root)
}

/// Weights of `bits`.
fn recipe(bits: u32) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.weights.bits = bits;
    recipe
}

fn planned(graph: &Graph, recipe: &Recipe) -> (Plan, Vec<Result<FactorSite, &'static str>>) {
    let facts = facts::infer(graph, &[vec![1, SIZES[0], WIDTH]]).unwrap();
    let plan = plan(graph, &facts, recipe).unwrap();
    let found = factor_sites(graph, &facts, &plan, Target::Ort);
    (plan, found)
}

/// The pairs of activations that products join.
fn pairs(graph: &Graph, recipe: &Recipe) -> Vec<FactorSite> {
    let (_, found) = planned(graph, recipe);
    found.into_iter().flatten().filter(|s| s.pair.is_some()).collect()
}

/// Of each pair that is found with weights of 8 bits: whether its product sums over the channels.
fn kinds(front: Change, behind: Change) -> Vec<bool> {
    let found = pairs(&network(front, behind), &recipe(8));
    found.iter().map(|s| matches!(s.pair, Some(Pair::Sums { .. }))).collect()
}

#[test]
fn queries_and_keys_values_and_context_have_factors_in_pairs() {
    let scaled = |b: &mut Builder, name: &str, v: ValueId| if name == "q" { divided(b, v) } else { v };
    for (front, behind) in [(&unchanged as Change, &unchanged as Change), (&scaled, &unchanged), (&unchanged, &scaled)]
    {
        let graph = network(front, behind);
        let (plan, found) = planned(&graph, &recipe(8));
        let pairs: Vec<&FactorSite> = found.iter().flatten().filter(|s| s.pair.is_some()).collect();
        let [scores, context] = pairs[..] else { panic!("{found:?}") };
        let names = |s: &FactorSite| s.constants().map(|v| graph.value(v).name.clone()).collect::<Vec<_>>();
        assert_eq!(names(scores), ["q.bias", "q.weight", "k.bias", "k.weight"]);
        assert_eq!(names(context), ["v.bias", "v.weight"]);
        assert_eq!((scores.readers().count(), context.readers().count()), (0, 1));
        assert_eq!(graph.value(context.members[1].readers[0].weight).name, "out.weight");
        let axes = |s: &FactorSite| s.members.iter().map(|m| m.axes.clone()).collect::<Vec<_>>();
        assert_eq!((axes(scores), axes(context)), (vec![vec![2]; 2], vec![vec![2], vec![1, 3]]));
        assert_eq!((scores.channels, context.channels), (WIDTH, WIDTH));
        for s in [scores, context] {
            let at = |id: SiteId| plan.site_ids().position(|other| other == id).unwrap();
            let [first, second] = [0, 1].map(|i| &found[at(s.members[i].site)]);
            assert!(first.is_ok() && second.as_ref().is_err_and(|e| e.contains("shares")), "{first:?} {second:?}");
            assert!(s.members.iter().all(|m| s.divided.contains(&m.value)));
        }
    }
}

#[test]
fn operands_may_be_quantized_behind_the_heads() {
    let mut recipe = recipe(8);
    recipe.activations.placement = Some(Placement::Consumer);
    let found = pairs(&network(&unchanged, &unchanged), &recipe);
    let axes: Vec<&[usize]> = found.iter().flat_map(|s| &s.members).map(|m| &m.axes[..]).collect();
    assert_eq!(axes, [&[1, 3][..], &[1, 2], &[1, 3], &[2]]);
}

#[test]
fn what_else_reads_an_operand_or_mixes_its_channels_leaves_none() {
    assert_eq!(kinds(&unchanged, &unchanged), [true, false]);
    let leaves = |b: &mut Builder, name: &str, v: ValueId| {
        if name == "k" {
            b.graph.outputs.push(v);
        }
        v
    };
    assert_eq!(kinds(&leaves, &unchanged), [false], "keys are an output");
    assert_eq!(kinds(&unchanged, &leaves), [false], "keys are an output, with heads");
    let read = |b: &mut Builder, name: &str, v: ValueId| {
        if name == "v" {
            let other = b.node(Op::Unary(Unary::Tanh), &[v]);
            b.graph.outputs.push(other);
        }
        v
    };
    assert_eq!(kinds(&read, &unchanged), [true], "something else reads values");
    let turned = |b: &mut Builder, name: &str, v: ValueId| match name {
        "q" => {
            let by = b.constant("cosines", &[1, 1, SIZES[0], SIZES[2]]);
            b.binary(Binary::Mul, v, by)
        }
        _ => v,
    };
    assert_eq!(kinds(&unchanged, &turned), [false], "positions turn queries");
    let bent = |b: &mut Builder, name: &str, v: ValueId| match name {
        "q" => v,
        _ => b.node(Op::Unary(Unary::Tanh), &[v]),
    };
    assert!(kinds(&bent, &unchanged).is_empty());
}

#[test]
fn heads_that_several_queries_share_have_no_factors_of_their_own() {
    let mut b = Builder::new();
    let x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(SIZES[0]), Dim::Known(WIDTH)]);
    let x = b.linear("first", x, WIDTH, WIDTH);
    let q = b.linear("q", x, WIDTH, WIDTH);
    let q = b.heads("q", q, SIZES, ROWS);
    let [k, v] = [("k", COLUMNS), ("v", ROWS)].map(|(name, perm)| {
        let y = b.linear(name, x, WIDTH, SIZES[2]);
        b.heads(name, y, [SIZES[0], 1, SIZES[2]], perm)
    });
    let y = b.attend([q, k, v], SIZES);
    let y = b.linear("last", y, WIDTH, 2);
    let found = pairs(&b.finish(&[y]), &recipe(8));
    let [values] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&values.pair, values.channels), (&Some(Pair::Keeps), SIZES[2]));
    let all_heads: Vec<Option<usize>> = (0..WIDTH).map(|c| Some(c % SIZES[2])).collect();
    assert_eq!(values.members[1].readers[0].channels, all_heads, "one factor for a channel of all heads");
    let repeated = |b: &mut Builder, name: &str, v: ValueId| match name {
        "q" => v,
        _ => {
            let parts = [0, 1].map(|i| b.graph.add_value(&format!("{name} {i}"), Default::default()));
            b.graph.nodes.push(Node::new(format!("split {name}"), Op::Split { axis: 1 }, &[v], &parts));
            b.node(Op::Concat { axis: 1 }, &[parts[0], parts[0]])
        }
    };
    assert!(kinds(&unchanged, &repeated).is_empty());
}

#[test]
fn one_layer_for_all_three_leaves_none() {
    let mut b = Builder::new();
    let x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(SIZES[0]), Dim::Known(WIDTH)]);
    let x = b.linear("first", x, WIDTH, WIDTH);
    let all = b.linear("qkv", x, WIDTH, 3 * WIDTH);
    let parts = ["q", "k", "v"].map(|name| b.graph.add_value(name, Default::default()));
    b.graph.nodes.push(Node::new("split", Op::Split { axis: 2 }, &[all], &parts));
    let [q, k, v] = parts;
    let operands = [b.heads("q", q, SIZES, ROWS), b.heads("k", k, SIZES, COLUMNS), b.heads("v", v, SIZES, ROWS)];
    let y = b.attend(operands, SIZES);
    let y = b.linear("last", y, WIDTH, 2);
    assert!(pairs(&b.finish(&[y]), &recipe(8)).is_empty());
}

#[test]
fn a_weight_with_one_step_cannot_be_divided() {
    let mut recipe = recipe(8);
    recipe.weights.per_channel = false;
    assert!(pairs(&network(&unchanged, &unchanged), &recipe).is_empty());
}

#[test]
fn few_bits_of_the_layer_behind_leave_queries_and_keys_alone() {
    let found = pairs(&network(&unchanged, &unchanged), &recipe(4));
    assert!(matches!(&found[..], [FactorSite { pair: Some(Pair::Sums { .. }), .. }]), "{found:?}");
}

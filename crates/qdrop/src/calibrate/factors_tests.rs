use super::factors::*;
use crate::engine::device::{Device, processors};
use crate::engine::facts::{self, Facts};
use crate::engine::program::{Region, compile};
use crate::graph::testing::{Builder, window};
use crate::graph::{Binary, Dim, Graph, Op, Unary, ValueId};
use crate::plan::{Carrier, FactorSite, Plan, Recipe, Target, factor_sites, plan};
use crate::tensor::{RowStore, Rows, Tensor};

/// What is lost where a network computes the same by other numbers.
const ROUNDING: f32 = 1e-5;

/// Planned for ONNX Runtime with weights and activations of `bits`.
fn planned(graph: &Graph, shape: &[usize], bits: u32) -> (Facts, Plan) {
    let facts = facts::infer(graph, &[shape.to_vec()]).unwrap();
    let mut recipe = Recipe::default();
    (recipe.weights.bits, recipe.activations.bits, recipe.activations.last_bits) = (bits, bits, Some(bits));
    let plan = plan(graph, &facts, &recipe).unwrap();
    (facts, plan)
}

fn sites(graph: &Graph, facts: &Facts, plan: &Plan, target: Target) -> Vec<FactorSite> {
    factor_sites(graph, facts, plan, target).into_iter().flatten().collect()
}

fn outputs(graph: &Graph, shape: &[usize]) -> Vec<f32> {
    let facts = facts::infer(graph, &[shape.to_vec()]).unwrap();
    let (nodes, inputs, outputs) = (graph.node_ids().collect(), graph.inputs.clone(), graph.outputs.clone());
    let region = Region { nodes, inputs, outputs, ..Region::default() };
    let runner = processors(1).unwrap().inference(&compile(graph, &facts, &region).unwrap()).unwrap();
    let x: Vec<f32> = (0..shape.iter().product()).map(|i: usize| ((i * 7) % 11) as f32 / 20.0 - 0.2).collect();
    runner.run(&[], &[], &[Rows::new(1, x)], &RowStore::memory()).unwrap()[0].row(0).unwrap().into_owned()
}

/// Uneven factors, at most 1.
fn uneven(count: usize) -> Vec<f32> {
    (0..count).map(|c| [1.0, 0.3, 0.75, 0.9][c % 4]).collect()
}

/// That `graph` has a site for each of `wanted`, in order, and computes the same with factors at all of them.
fn check(graph: &Graph, shape: &[usize], wanted: &[(ValueId, bool)]) -> Graph {
    check_at(4, graph, shape, wanted)
}

/// The same, planned with so many `bits`.
fn check_at(bits: u32, graph: &Graph, shape: &[usize], wanted: &[(ValueId, bool)]) -> Graph {
    let (facts, plan) = planned(graph, shape, bits);
    let found = sites(graph, &facts, &plan, Target::Ort);
    let kinds: Vec<(ValueId, bool)> =
        found.iter().map(|s| (s.members[0].value, s.carrier == Carrier::Quantizer)).collect();
    assert_eq!(kinds, wanted);
    let mut equal = graph.clone();
    let factors: Vec<Factors> = found
        .iter()
        .map(|s| Factors { own: uneven(s.channels), before: s.before.as_ref().map(|_| uneven(s.channels)) })
        .collect();
    let chosen: Vec<(&FactorSite, Factors)> = found.iter().zip(factors).collect();
    chosen.iter().for_each(|(site, factors)| fold(&mut equal, site, factors).unwrap());
    insert(&mut equal, &facts, &chosen).unwrap();
    let (want, got) = (outputs(graph, shape), outputs(&equal, shape));
    let largest = want.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
    for (a, b) in want.iter().zip(&got) {
        assert!((a - b).abs() <= ROUNDING * largest, "{a} {b}");
    }
    assert_ne!(&equal, graph);
    // The quantizers are those of before, by name, each behind what divides.
    let (_, again) = planned(&equal, shape, bits);
    let names = |p: &Plan| p.sites.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&again), names(&plan));
    let kernels = |p: &Plan| p.kernel_sites.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert!(kernels(&again).iter().all(|k| kernels(&plan).contains(k)));
    assert_eq!(again.units.len(), plan.units.len());
    let muls: Vec<ValueId> =
        found.iter().filter(|s| s.carrier == Carrier::Quantizer).map(|s| s.members[0].value).collect();
    for (site, now) in plan.sites.iter().zip(&again.sites) {
        assert_eq!(muls.contains(&site.value), site.value != now.value, "{}", site.name);
    }
    equal
}

fn dims(shape: &[usize]) -> Vec<Dim> {
    std::iter::once(Dim::Symbol("n".into())).chain(shape.iter().map(|&d| Dim::Known(d))).collect()
}

fn conv(b: &mut Builder, x: ValueId, name: &str, shape: [usize; 4], group: i64) -> ValueId {
    let w = b.constant(&format!("{name}.weight"), &shape);
    let bias = b.constant(&format!("{name}.bias"), &[shape[0]]);
    let pad = (shape[2] / 2) as i64;
    b.node(Op::Conv { window: window(vec![pad; 4]), group }, &[x, w, bias])
}

fn clip(b: &mut Builder, x: ValueId, cap: f32) -> ValueId {
    let low = b.graph.add_constant("low", Tensor::scalar(0.0));
    let high = b.graph.add_constant("high", Tensor::scalar(cap));
    b.node(Op::Clip, &[x, low, high])
}

#[test]
fn layers_divide_through_rectifiers() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let y = conv(&mut b, x, "a", [4, 2, 3, 3], 1);
    let first = b.relu(y);
    let y = conv(&mut b, first, "depthwise", [4, 1, 3, 3], 4);
    let second = clip(&mut b, y, 1e3);
    let y = conv(&mut b, second, "grouped", [6, 2, 1, 1], 2);
    let third = b.node(Op::Unary(Unary::LeakyRelu { alpha: 0.1 }), &[y]);
    let y = conv(&mut b, third, "last", [2, 6, 1, 1], 1);
    let graph = b.finish(&[y]);
    let equal = check(&graph, &[1, 2, 4, 4], &[(first, false), (second, false), (third, false)]);
    assert_eq!(equal.nodes.len(), graph.nodes.len(), "nothing is added");
}

#[test]
fn quantizers_divide_behind_gates_and_layers_before() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let u = conv(&mut b, x, "a", [4, 2, 3, 3], 1);
    let gate = b.node(Op::Unary(Unary::Sigmoid), &[u]);
    let v = b.binary(Binary::Mul, u, gate);
    let y = conv(&mut b, v, "b", [3, 4, 1, 1], 1);
    let graph = b.finish(&[y]);
    let equal = check(&graph, &[1, 2, 4, 4], &[(v, true)]);
    assert_eq!(equal.nodes.len(), graph.nodes.len() + 2);
    let (facts, plan) = planned(&graph, &[1, 2, 4, 4], 4);
    for target in [Target::Openvino, Target::Tensorrt, Target::Qonnx, Target::Qnn] {
        assert!(sites(&graph, &facts, &plan, target).is_empty(), "{target} has no Mul in front of quantizers");
    }
    let (_, plan) = planned(&equal, &[1, 2, 4, 4], 8);
    let kernels: Vec<ValueId> = plan.kernel_sites.iter().map(|k| k.value).collect();
    assert_eq!(kernels, [x, u], "gate and product stay float");
}

#[test]
fn channels_are_followed_through_what_moves_them() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let y = conv(&mut b, x, "a", [3, 2, 1, 1], 1);
    let left = b.relu(y);
    let y = conv(&mut b, x, "b", [2, 2, 1, 1], 1);
    let right = b.relu(y);
    let pooled = b.node(Op::MaxPool { window: kernel(2), ceil_mode: false }, &[left]);
    let other = b.node(Op::MaxPool { window: kernel(2), ceil_mode: false }, &[right]);
    let joined = b.node(Op::Concat { axis: 1 }, &[pooled, other]);
    let moved = b.node(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[joined]);
    let flat = b.node(Op::Flatten { axis: 1 }, &[moved]);
    let w = b.constant("fc", &[7, 20]);
    let y = b.node(Op::Gemm { alpha: 0.5, beta: 1.0, trans_a: false, trans_b: true }, &[flat, w]);
    let y = b.relu(y);
    let last = b.constant("last", &[7, 3]);
    let y = b.node(Op::MatMul, &[y, last]);
    let relu = b.graph.nodes[b.graph.nodes.len() - 2].outputs[0].unwrap();
    let graph = b.finish(&[y]);
    check(&graph, &[1, 2, 4, 4], &[(left, false), (right, false), (relu, false)]);
}

fn kernel(side: i64) -> crate::graph::Window {
    crate::graph::Window { kernel: vec![side; 2], strides: vec![side; 2], ..window(vec![0; 4]) }
}

#[test]
fn what_a_sum_reads_as_well_is_divided_for_layers_alone() {
    let mut b = Builder::new();
    let x = b.input("x", dims(&[5, 4]));
    let [w, wide, narrow] = [("w", [4, 4]), ("wide", [4, 6]), ("narrow", [6, 4])].map(|(n, s)| b.constant(n, &s));
    let [scale, bias] = ["scale", "shift"].map(|n| b.constant(n, &[4]));
    let y = b.node(Op::MatMul, &[x, w]);
    let norm = Op::LayerNorm { axis: -1, epsilon: 1e-5 };
    let normal = b.node(norm.clone(), &[y, scale, bias]);
    let y = b.node(Op::MatMul, &[normal, wide]);
    let inner = b.node(Op::Unary(Unary::Gelu { tanh: false }), &[y]);
    let y = b.node(Op::MatMul, &[inner, narrow]);
    let y = b.binary(Binary::Add, y, normal);
    let y = b.node(norm, &[y, scale, bias]);
    let last = b.constant("last", &[4, 2]);
    let y = b.node(Op::MatMul, &[y, last]);
    let end = b.graph.nodes[b.graph.nodes.len() - 2].outputs[0].unwrap();
    let graph = b.finish(&[y]);
    check(&graph, &[1, 5, 4], &[(normal, true), (inner, true), (end, true)]);
}

/// A residual block with a rectifier inside, and with `outer` one behind the sum; the block's input and its sum.
fn block(b: &mut Builder, x: ValueId, name: &str, outer: bool) -> [ValueId; 2] {
    let y = conv(b, x, &format!("{name}.wide"), [6, 4, 1, 1], 1);
    let inner = b.relu(y);
    let y = conv(b, inner, &format!("{name}.narrow"), [4, 6, 3, 3], 1);
    let sum = b.binary(Binary::Add, x, y);
    [inner, if outer { b.relu(sum) } else { sum }]
}

#[test]
fn sums_share_the_factors_of_all_that_they_join() {
    for outer in [false, true] {
        let mut b = Builder::new();
        let x = b.images(2, 4);
        let y = conv(&mut b, x, "first", [4, 2, 3, 3], 1);
        let start = if outer { b.relu(y) } else { y };
        let [one, sum] = block(&mut b, start, "a", outer);
        let [two, end] = block(&mut b, sum, "b", outer);
        let pooled = b.node(Op::GlobalAveragePool, &[end]);
        let y = conv(&mut b, pooled, "last", [2, 4, 1, 1], 1);
        let graph = b.finish(&[y]);
        let equal = check_at(8, &graph, &[1, 2, 4, 4], &[(start, false), (one, false), (two, false)]);
        assert_eq!(equal.nodes.len(), graph.nodes.len(), "nothing is added");
        check(&graph, &[1, 2, 4, 4], &[(one, false), (two, false)]);
        let (facts, plan) = planned(&graph, &[1, 2, 4, 4], 8);
        let group = &sites(&graph, &facts, &plan, Target::Ort)[0];
        let members: Vec<ValueId> = group.members.iter().map(|m| m.value).collect();
        assert_eq!(members, [start, sum, end]);
        assert_eq!(group.readers().count(), 3);
    }
}

#[test]
fn one_vector_of_factors_serves_all_that_sums_join() {
    let mut b = Builder::new();
    let x = b.images(2, 8);
    let y = conv(&mut b, x, "first", [4, 2, 3, 3], 1);
    let y = conv(&mut b, y, "second", [4, 1, 1, 1], 4);
    let [start, y] = [y, conv(&mut b, y, "depthwise", [4, 1, 3, 3], 4)];
    let sum = b.binary(Binary::Add, start, y);
    let y = conv(&mut b, sum, "last", [4, 1, 1, 1], 4);
    let graph = b.finish(&[y]);
    let (facts, plan) = planned(&graph, &[1, 2, 8, 8], 8);
    let found = sites(&graph, &facts, &plan, Target::Ort);
    let group = found.iter().find(|s| s.members.len() == 2).unwrap();
    let chosen = |first: [f32; 4], second: [f32; 4]| {
        factors(&graph, &plan, group, &[seen(&first), seen(&second)], None).unwrap().map(|f| f.own)
    };
    let both = chosen([8.0, 1.0, 0.1, 1.0], [4.0, 0.5, 0.05, 0.5]).unwrap();
    assert!(both[0] > 4.0 && both[2] < 0.2, "{both:?}");
    assert_eq!(chosen([8.0, 1.0, 1.0, 1.0], [0.125, 1.0, 1.0, 1.0]), None, "what one gains the other loses");
}

#[test]
fn what_mixes_channels_or_bends_them_has_none() {
    let reason = |change: &dyn Fn(&mut Builder, ValueId) -> ValueId, target: Target| {
        let mut b = Builder::new();
        let x = b.images(2, 4);
        let y = conv(&mut b, x, "a", [4, 2, 3, 3], 1);
        let site = b.relu(y);
        let y = change(&mut b, site);
        let graph = b.finish(&[y]);
        let (facts, plan) = planned(&graph, &[1, 2, 4, 4], 4);
        let at = plan.sites.iter().position(|s| s.value == site).unwrap();
        factor_sites(&graph, &facts, &plan, target)[at].clone().err()
    };
    let last = |b: &mut Builder, v: ValueId| conv(b, v, "last", [2, 4, 1, 1], 1);
    assert_eq!(reason(&last, Target::Ort), None);
    assert_eq!(reason(&last, Target::Openvino), None, "layers carry factors anywhere");
    let bent = |b: &mut Builder, v: ValueId| {
        let y = b.node(Op::Unary(Unary::Tanh), &[v]);
        let first = last(b, y);
        let w = b.constant("again", &[2, 4, 1, 1]);
        let second = b.conv_with(v, w, 1);
        b.binary(Binary::Add, first, second)
    };
    assert!(reason(&bent, Target::Ort).unwrap().contains("bends"));
    let summed_with = |b: &mut Builder, v: ValueId| {
        let first = conv(b, v, "inner", [4, 4, 3, 3], 1);
        b.binary(Binary::Add, first, v)
    };
    let summed = |b: &mut Builder, v: ValueId| {
        let y = summed_with(b, v);
        last(b, y)
    };
    assert_eq!(reason(&summed, Target::Ort), Some("not only layers read it"), "weights of 4 bits");
    let ends = |b: &mut Builder, v: ValueId| {
        let y = summed_with(b, v);
        b.node(Op::Unary(Unary::Tanh), &[y])
    };
    let bent = |b: &mut Builder, v: ValueId| {
        let y = ends(b, v);
        last(b, y)
    };
    assert_eq!(reason(&bent, Target::Ort), Some("not only layers read it"));
    let shared = |b: &mut Builder, v: ValueId| {
        let w = b.constant("shared", &[4, 4, 1, 1]);
        let y = b.conv_with(v, w, 1);
        b.conv_with(y, w, 1)
    };
    assert!(reason(&shared, Target::Ort).unwrap().contains("one by one"));
    let joined = |b: &mut Builder, v: ValueId| {
        let y = b.node(Op::Concat { axis: 2 }, &[v, v]);
        last(b, y)
    };
    assert!(reason(&joined, Target::Ort).is_some());
}

/// Tokens, heads and features a head.
const SIZES: [usize; 3] = [5, 2, 2];

/// Attention between two layers; what the first of them, that of queries and that of values make.
fn attention() -> (Graph, [ValueId; 3]) {
    let width = SIZES[1] * SIZES[2];
    let mut b = Builder::new();
    let x = b.input("x", dims(&[SIZES[0], width]));
    let x = b.linear("first", x, width, width);
    let [q, k, v] = ["q", "k", "v"].map(|name| b.linear(name, x, width, width));
    let rows = [0, 2, 1, 3];
    let root = b.graph.add_constant("root", Tensor::scalar(0.7));
    let scaled = b.heads("q", q, SIZES, rows);
    let scaled = b.binary(Binary::Mul, scaled, root);
    let operands = [scaled, b.heads("k", k, SIZES, [0, 2, 3, 1]), b.heads("v", v, SIZES, rows)];
    let y = b.attend(operands, SIZES);
    let y = b.node(Op::Unary(Unary::Sigmoid), &[y]);
    let y = b.linear("last", y, width, 2);
    (b.finish(&[y]), [x, q, v])
}

#[test]
fn layers_around_products_of_attention_divide_and_multiply() {
    let (graph, [x, q, v]) = attention();
    let end = graph.nodes[graph.nodes.len() - 3].outputs[0].unwrap();
    let equal = check_at(8, &graph, &[1, 5, 4], &[(x, false), (q, false), (v, false), (end, true)]);
    assert_eq!(equal.nodes.len(), graph.nodes.len() + 1, "the one in front of the last layer");
}

/// The factors of queries and keys, or of values and context, whose channels reach `first` and `second`.
fn of_pair(which: usize, first: [f32; 4], second: [f32; 4]) -> Option<Vec<f32>> {
    let (graph, at) = attention();
    let (facts, plan) = planned(&graph, &[1, 5, 4], 8);
    let found = sites(&graph, &facts, &plan, Target::Ort);
    let site = found.iter().find(|s| s.members[0].value == at[1 + which]).unwrap();
    factors(&graph, &plan, site, &[seen(&first), seen(&second)], None).unwrap().map(|f| f.own)
}

#[test]
fn queries_give_what_keys_take() {
    let found = of_pair(0, [8.0, 1.0, 0.1, 1.0], [0.125, 1.0, 10.0, 1.0]).unwrap();
    for (f, want) in found.iter().zip([8.0, 1.0, 0.1, 1.0]) {
        assert!((f / want - 1.0).abs() < 0.05, "both are even then: {found:?}");
    }
    assert_eq!(of_pair(0, [8.0, 1.0, 0.1, 1.0], [8.0, 1.0, 0.1, 1.0]), None, "what one gains the other loses");
    assert_eq!(of_pair(0, [1.0; 4], [1.0; 4]), None);
    assert_eq!(of_pair(0, [1.0; 4], [0.0; 4]), None, "keys that were never seen");
}

#[test]
fn values_and_context_are_divided_alike() {
    let found = of_pair(1, [8.0, 1.0, 0.1, 1.0], [4.0, 0.5, 0.05, 0.5]).unwrap();
    assert!(found[0] > 2.0 && found[2] < 0.5, "{found:?}");
    assert_eq!(of_pair(1, [8.0, 1.0, 1.0, 1.0], [0.125, 1.0, 1.0, 1.0]), None, "what one gains the other loses");
}

/// Two samples of 64 pixels whose channels reach `tops`.
fn seen(tops: &[f32]) -> Channels {
    seen_in_turn([tops, tops])
}

/// Two samples of 64 pixels; the channels of each reach its `tops`.
fn seen_in_turn(tops: [&[f32]; 2]) -> Channels {
    let mut channels = Channels::new(tops[0].len());
    for tops in tops {
        let row: Vec<f32> = tops.iter().flat_map(|t| (0..64).map(move |i| t * (i * i) as f32 / 3969.0)).collect();
        channels.observe(&row, 64, 2);
    }
    channels
}

#[test]
fn factors_are_chosen_where_they_lower_the_error() {
    let of = |seen: Channels, cap: Option<f32>, group: i64| {
        let mut b = Builder::new();
        let x = b.images(2, 8);
        let y = conv(&mut b, x, "a", [4, 2, 3, 3], 1);
        let y = match cap {
            Some(cap) => clip(&mut b, y, cap),
            None => b.relu(y),
        };
        let y = conv(&mut b, y, "next", [4, 4 / group as usize, 1, 1], group);
        let y = b.relu(y);
        let y = conv(&mut b, y, "last", [2, 4, 1, 1], 1);
        let graph = b.finish(&[y]);
        let (facts, plan) = planned(&graph, &[1, 2, 8, 8], 4);
        let site = &sites(&graph, &facts, &plan, Target::Ort)[0];
        factors(&graph, &plan, site, &[seen], None).unwrap().map(|f| f.own)
    };
    let chosen = |tops: [f32; 4], cap, group| of(seen(&tops), cap, group);
    // A depthwise layer takes all of the difference.
    let found = chosen([8.0, 1.0, 0.1, 1.0], None, 4).unwrap();
    for (f, want) in found.iter().zip([8.0, 1.0, 0.1, 1.0]) {
        assert!((f / want - 1.0).abs() < 0.05, "{found:?}");
    }
    // Other layers some of it, since their weights differ then.
    let found = chosen([8.0, 1.0, 0.1, 1.0], None, 1).unwrap();
    assert!(found[0] > 1.5 && found[0] < 8.0 && found[2] < 0.7, "{found:?}");
    assert_eq!(chosen([1.0; 4], None, 4), None);
    assert_eq!(chosen([1.0, 0.0, 0.0, 0.0], None, 4), None, "one channel at work");
    let dead = chosen([8.0, 0.0, 0.1, 1.0], None, 4).unwrap();
    assert_eq!(dead[1], 1.0, "a channel that was never seen");
    // Nothing that was seen is cut off, and the widest channel is cut off where it was.
    let capped = chosen([6.0, 1.0, 0.1, 5.9], Some(6.0), 4).unwrap();
    assert!(capped[0] == 1.0 && capped[3] >= 5.9 / 6.0 && capped[2] >= 0.1 / 6.0, "{capped:?}");
    let dead = chosen([6.0, 0.0, 0.1, 1.0], Some(6.0), 4).unwrap();
    assert_eq!(dead[1], 1.0, "what was never seen may come close to the cap");
    // Factors that keep what every other sample shows below the cap are judged by what they cut off of the rest.
    let shown = [6.0, 0.5, 0.5, 0.5];
    assert!(of(seen(&shown), Some(6.0), 4).is_some());
    assert_eq!(of(seen_in_turn([&shown, &[6.0, 5.9, 5.9, 5.9]]), Some(6.0), 4), None);
}

#[test]
fn what_lies_below_0_is_weighed_by_the_room_that_it_takes() {
    let mut b = Builder::new();
    let x = b.images(2, 8);
    let y = conv(&mut b, x, "a", [4, 2, 3, 3], 1);
    let z = conv(&mut b, y, "next", [4, 1, 1, 1], 4);
    let graph = b.finish(&[z]);
    let (facts, plan) = planned(&graph, &[1, 2, 8, 8], 4);
    let mut seen = Channels::new(4);
    // As behind x·sigmoid(x): every channel reaches as far down, and each its own way up.
    let ramp = |top: f32| (0..64).map(move |i| -0.28 + (top + 0.28) * i as f32 / 63.0);
    let row: Vec<f32> = [8.0, 0.04, 0.04, 0.04].into_iter().flat_map(ramp).collect();
    (0..2).for_each(|_| seen.observe(&row, 64, 2));
    let site = &sites(&graph, &facts, &plan, Target::Ort)[0];
    let found = factors(&graph, &plan, site, &[seen], None).unwrap().unwrap().own;
    // By widths alone, 0.32 of 8.28, half of the common range would be below 0 for three channels' sake.
    assert!(found[1] / found[0] > 2.0 * 0.32 / 8.28 && found[1] / found[0] < 0.5, "{found:?}");
}

#[test]
fn odd_numbers_neither_count_nor_end_the_run() {
    let chosen = |odd: &[f32], weight: f32| {
        let mut b = Builder::new();
        let x = b.images(2, 8);
        let y = conv(&mut b, x, "a", [4, 2, 3, 3], 1);
        let y = b.relu(y);
        let w = b.graph.add_constant("depthwise", Tensor::f32(&[4, 1, 1, 1], vec![0.5, -0.5, weight, 0.25]));
        let y = b.node(Op::Conv { window: window(vec![0; 4]), group: 4 }, &[y, w]);
        let graph = b.finish(&[y]);
        let (facts, plan) = planned(&graph, &[1, 2, 8, 8], 4);
        let mut seen = seen(&[8.0, 1.0, 0.1, 1.0]);
        seen.observe(odd, 1, 2);
        factors(&graph, &plan, &sites(&graph, &facts, &plan, Target::Ort)[0], &[seen], None).unwrap()
    };
    let plain = chosen(&[], 1.0);
    assert!(plain.is_some());
    assert_eq!(chosen(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN], 1.0), plain);
    assert_eq!(chosen(&[], 1e36), None, "no weight that could become infinite is scaled");
}

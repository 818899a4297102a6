//! Each pass on a small graph; numbers are compared with the unsimplified graph.

use super::*;
use crate::graph::testing::{Builder, window};
use crate::graph::*;
use crate::tensor::Tensor;

fn kinds(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|n| n.op.kind()).collect()
}

/// Simplifies a copy, checks that outputs keep names and values, and returns it.
fn simplified(graph: &Graph) -> Graph {
    let mut small = graph.clone();
    simplify(&mut small, &InputShapes::declared()).unwrap();
    let names = |g: &Graph| g.outputs.iter().map(|&v| g.value(v).name.clone()).collect::<Vec<_>>();
    assert_eq!(names(graph), names(&small));
    let (a, b) = (run(graph), run(&small));
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(b) {
            assert!((x - y).abs() <= 1e-5 * x.abs().max(1.0), "{x} {y}");
        }
    }
    small
}

/// Evaluates a graph on one fixed sample.
fn run(graph: &Graph) -> Vec<Vec<f64>> {
    use crate::engine::ops::{Array, View, forward};
    let shapes = InputShapes::declared().concrete(graph, 1).unwrap();
    let mut values: Vec<Option<Array<f64>>> = graph
        .values
        .iter()
        .map(|v| {
            v.constant.as_ref().map(|t| Array {
                dtype: t.dtype(),
                shape: t.shape().to_vec(),
                data: t.to_f64().unwrap(),
            })
        })
        .collect();
    for (&v, shape) in graph.inputs.iter().zip(shapes) {
        let n = shape.iter().product::<usize>();
        let data = (0..n).map(|i| ((i * 29 + 7) % 83) as f64 / 40.0 - 1.0).collect();
        values[v.0 as usize] = Some(Array { dtype: crate::tensor::DType::F32, shape, data });
    }
    for node in &graph.nodes {
        let operands: Vec<Option<View<f64>>> = node
            .inputs
            .iter()
            .map(|v| {
                v.map(|v| {
                    let a = values[v.0 as usize].as_ref().unwrap();
                    View { dtype: a.dtype, shape: &a.shape, data: &a.data }
                })
            })
            .collect();
        let results = forward(&node.op, &operands, node.outputs.len()).unwrap();
        for (v, r) in node.outputs.iter().zip(results) {
            if let Some(v) = v {
                values[v.0 as usize] = Some(r);
            }
        }
    }
    graph.outputs.iter().map(|v| values[v.0 as usize].clone().unwrap().data).collect()
}

#[test]
fn normalisation_folds_into_the_convolution_before_it() {
    let mut b = Builder::new();
    let x = b.images(3, 5);
    let y = b.conv("a", x, 3, 4, 3);
    let y = b.norm("bn", y, 4);
    let y = b.relu(y);
    let small = simplified(&b.finish(&[y]));
    assert_eq!(kinds(&small), ["Conv", "Relu"]);
    let conv = &small.nodes[0];
    assert_eq!(small.value(conv.input(1).unwrap()).name, "a.weight");
    assert_eq!(small.value(conv.input(2).unwrap()).name, "a.bias");
}

#[test]
fn a_chain_of_scales_folds_and_an_output_keeps_its_name() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let y = b.conv("a", x, 2, 3, 1);
    let y = b.norm("bn", y, 3);
    let m = b.constant("m", &[3, 1, 1]);
    let y = b.node(Op::Binary(Binary::Mul), &[m, y]);
    let s = b.constant("s", &[1, 3, 1, 1]);
    let y = b.node(Op::Binary(Binary::Sub), &[y, s]);
    let y = b.node(Op::Identity, &[y]);
    assert_eq!(kinds(&simplified(&b.finish(&[y]))), ["Conv"]);
}

#[test]
fn a_convolution_with_other_readers_is_copied_for_the_normalisation() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let c = b.conv("a", x, 2, 3, 3);
    let n = b.norm("bn", c, 3);
    let r = b.relu(c);
    let y = b.node(Op::Binary(Binary::Add), &[n, r]);
    let small = simplified(&b.finish(&[y]));
    assert_eq!(kinds(&small), ["Conv", "Relu", "Conv", "Add"]);
    let convs = small.nodes.iter().filter(|n| n.op.kind() == "Conv");
    let weights: Vec<_> = convs.map(|n| small.value(n.input(1).unwrap()).name.as_str()).collect();
    assert_eq!(weights, ["a.weight", "a.weight_folded"]);
}

#[test]
fn a_shared_weight_gets_a_folded_copy() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let w = b.constant("w", &[2, 2, 3, 3]);
    let y = b.conv_with(x, w, 3);
    let y = b.norm("bn1", y, 2);
    let y = b.conv_with(y, w, 3);
    let y = b.norm("bn2", y, 2);
    let y = b.conv_with(y, w, 3);
    let small = simplified(&b.finish(&[y]));
    assert_eq!(kinds(&small), ["Conv", "Conv", "Conv"]);
    let names: Vec<_> = small.nodes.iter().map(|n| small.value(n.input(1).unwrap()).name.as_str()).collect();
    assert_eq!(names, ["w_folded", "w_folded_1", "w"]);
}

#[test]
fn normalisation_of_joined_branches_folds_into_each() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let p = b.conv("p", x, 2, 3, 1);
    let q = b.conv("q", x, 2, 2, 3);
    let j = b.node(Op::Concat { axis: 1 }, &[p, q]);
    let y = b.norm("bn", j, 5);
    assert_eq!(kinds(&simplified(&b.finish(&[y]))), ["Conv", "Conv", "Concat"]);
}

#[test]
fn normalisation_stays_where_it_cannot_fold() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let p = b.conv("p", x, 2, 3, 1);
    let p = b.relu(p);
    let y = b.norm("bn", p, 3);
    assert_eq!(kinds(&simplified(&b.finish(&[y]))), ["Conv", "Relu", "BatchNormalization"]);
}

#[test]
fn transposed_grouped_convolution_gemm_and_matmul_fold() {
    let mut b = Builder::new();
    let x = b.images(4, 3);
    let w = b.constant("t.weight", &[4, 3, 2, 2]);
    let op = Op::ConvTranspose { window: window(vec![]), group: 2, output_padding: vec![], output_shape: vec![] };
    let y = b.node(op, &[x, w]);
    let y = b.norm("bn", y, 6);
    let y = b.node(Op::GlobalAveragePool, &[y]);
    let y = b.node(Op::Flatten { axis: 1 }, &[y]);
    let (w, c) = (b.constant("g.weight", &[6, 5]), b.constant("g.bias", &[5]));
    let y = b.node(Op::Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: false }, &[y, w, c]);
    let y = b.norm("bn2", y, 5);
    let w = b.constant("m.weight", &[5, 4]);
    let y = b.node(Op::MatMul, &[y, w]);
    let c = b.constant("m.bias", &[4]);
    let y = b.node(Op::Binary(Binary::Add), &[c, y]);
    let s = b.constant("scale", &[4]);
    let y = b.node(Op::Binary(Binary::Div), &[y, s]);
    let small = simplified(&b.finish(&[y]));
    assert_eq!(kinds(&small), ["ConvTranspose", "GlobalAveragePool", "Flatten", "Gemm", "Gemm"]);
}

#[test]
fn shape_arithmetic_becomes_a_constant_reshape() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let y = b.conv("a", x, 2, 3, 1);
    let shape = b.node(Op::Shape { start: 0, end: None }, &[y]);
    let zero = b.graph.add_constant("zero", Tensor::i64s(vec![0]));
    let n = b.node(Op::Gather { axis: 0 }, &[shape, zero]);
    let rest = b.graph.add_constant("rest", Tensor::i64s(vec![48]));
    let target = b.node(Op::Concat { axis: 0 }, &[n, rest]);
    let y = b.node(Op::Reshape { allowzero: false }, &[y, target]);
    let small = simplified(&b.finish(&[y]));
    assert_eq!(kinds(&small), ["Conv", "Reshape"]);
    let target = small.constant(small.nodes[1].input(1).unwrap()).unwrap();
    assert_eq!(target.to_i64().unwrap(), [-1, 48]);
}

#[test]
fn zero_padding_joins_the_convolution_and_dead_code_goes() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let pads = b.graph.add_constant("pads", Tensor::i64s(vec![0, 0, 1, 2, 0, 0, 0, 1]));
    let p = b.node(Op::Pad { mode: PadMode::Constant }, &[x, pads]);
    let y = b.conv("a", p, 2, 3, 3);
    b.relu(y);
    let small = simplified(&b.finish(&[y]));
    assert_eq!(kinds(&small), ["Conv"]);
    assert!(small.values.iter().all(|v| v.name != "pads" || v.constant.is_none()));
}

#[test]
fn dequantized_weights_stay() {
    let mut b = Builder::new();
    let x = b.images(2, 4);
    let q = b.graph.add_constant(
        "q",
        Tensor::from_f64(crate::tensor::DType::I8, &[3, 2, 1, 1], &[1.0, -2.0, 3.0, 4.0, -5.0, 6.0]).unwrap(),
    );
    let s = b.graph.add_constant("s", Tensor::scalar(0.1));
    let w = b.node(Op::DequantizeLinear { axis: 0, block: 0, to: None }, &[q, s]);
    let y = b.conv_with(x, w, 1);
    assert_eq!(kinds(&simplified(&b.finish(&[y]))), ["DequantizeLinear", "Conv"]);
}

#[test]
fn open_sizes_stay_open() {
    let mut b = Builder::new();
    let dims = vec![Dim::Symbol("n".into()), Dim::Symbol("tokens".into()), Dim::Known(8)];
    let x = b.input("x", dims);
    let shape = b.node(Op::Shape { start: 0, end: Some(2) }, &[x]);
    let heads = b.graph.add_constant("heads", Tensor::i64s(vec![2, 4]));
    let target = b.node(Op::Concat { axis: 0 }, &[shape, heads]);
    let y = b.node(Op::Reshape { allowzero: false }, &[x, target]);
    let length = b.node(Op::Shape { start: 1, end: Some(2) }, &[x]);
    let graph = b.finish(&[y, length]);
    let mut small = graph.clone();
    simplify(&mut small, &InputShapes::of_samples(vec![Some(vec![6, 8])])).unwrap();
    assert_eq!(kinds(&small), ["Reshape", "Shape"], "a length is no constant");
    let target = small.constant(small.nodes[0].input(1).unwrap()).unwrap();
    assert_eq!(target.to_i64().unwrap(), [0, 0, 2, 4]);
}

/// y = lateral(a) + deep(a), where the short way is the first operand.
#[test]
fn a_short_way_stands_in_front_of_where_it_joins_the_long_one() {
    let mut b = Builder::new();
    let x = b.input("x", vec![Dim::Symbol("n".into()), Dim::Known(3), Dim::Known(6), Dim::Known(6)]);
    let w = b.constant("w", &[3, 3, 1, 1]);
    let conv = |b: &mut Builder, x| b.node(Op::Conv { window: window(vec![0; 4]), group: 1 }, &[x, w]);
    let a = conv(&mut b, x);
    let lateral = conv(&mut b, a);
    let mut deep = a;
    for _ in 0..3 {
        deep = conv(&mut b, deep);
    }
    let y = b.node(Op::Binary(Binary::Add), &[lateral, deep]);
    let small = simplified(&b.finish(&[y]));
    let at = small.nodes.iter().position(|n| n.outputs.contains(&Some(lateral))).unwrap();
    assert_eq!((at, small.nodes.len()), (4, 6));
}

/// A chain of convolutions of one channel, each with its normalisation and a scale.
fn chain(length: usize) -> Graph {
    let mut b = Builder::new();
    let mut x = b.images(1, 1);
    for i in 0..length {
        x = b.conv(&format!("conv{i}"), x, 1, 1, 1);
        x = b.norm(&format!("norm{i}"), x, 1);
        let scale = b.constant(&format!("scale{i}"), &[1, 1, 1]);
        x = b.binary(Binary::Mul, x, scale);
    }
    b.finish(&[x])
}

#[test]
fn long_chains_are_folded_whole() {
    const LENGTH: usize = 4096;
    let (mut graph, context) = (chain(LENGTH), Context { shapes: InputShapes::declared() });
    assert!(affine::fold(&mut graph, &context).unwrap());
    assert_eq!(graph.nodes.len(), LENGTH);
}

//! Constants that are learned beside roundings: biases, steps of decided weights, what divides channels.

use super::{Net, check};
use crate::engine::train::{Problem, Scaled, Weight};
use crate::graph::{Binary, Op};
use crate::quant::LayerId;

/// Biases of a convolution, a depthwise one, a dense layer, and one that runs by its specification.
#[test]
fn biases() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.conv(x, [6, 4, 3, 3], 1, [1, 1, 1, 1], 1, 1);
    net.learn_bias(a);
    let a = net.relu(a);
    let a = net.site(a);
    let c = net.conv(a, [6, 1, 3, 3], 2, [1, 1, 1, 1], 1, 6);
    net.learn_bias(c);
    let c = net.relu(c);
    let c = net.op(Op::Flatten { axis: 1 }, &[c]);
    let (w, bias) = (net.constant(&[7, 6 * 4 * 3]), net.constant(&[7]));
    net.weights.push((w, Some(0)));
    let y = net.op(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[c, w, bias]);
    net.learn_bias(y);
    let (w, bias) = (net.constant(&[7, 5]), net.constant(&[5]));
    net.weights.push((w, Some(1)));
    let z = net.op(Op::Gemm { alpha: 0.5, beta: 1.0, trans_a: false, trans_b: false }, &[y, w, bias]);
    net.learn_bias(z);
    let problem = net.problem(&[&[1, 4, 7, 6]], &[z], 6);
    assert_eq!(problem.biases.len(), 4);
    check(&problem);
}

#[test]
fn biases_and_steps_around_fixed_weights() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.conv(x, [6, 4, 3, 3], 1, [1, 1, 1, 1], 1, 1);
    let a = net.relu(a);
    let a = net.site(a);
    let b = net.conv(a, [6, 1, 3, 3], 1, [1, 1, 1, 1], 1, 6);
    let b = net.site(b);
    let c = net.conv(b, [5, 6, 1, 1], 1, [0, 0, 0, 0], 1, 1);
    let c = net.op(Op::Flatten { axis: 1 }, &[c]);
    let (w, bias) = (net.constant(&[7, 5 * 30]), net.constant(&[7]));
    let y = net.op(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[c, w, bias]);
    net.weights.clear();
    let biases = net.graph.nodes.iter().filter_map(|n| n.input(2)).collect::<Vec<_>>();
    net.biases = biases.into_iter().map(|b| (LayerId(0), b)).collect();
    let problem = net.problem(&[&[1, 4, 5, 6]], &[y], 6);
    assert_eq!(problem.biases.len(), 4);
    check(&problem);
}

/// `problem` whose weights are decided, so that their steps are learned instead; it has no learned biases.
fn decided(mut problem: Problem) -> Problem {
    assert!(problem.biases.is_empty());
    let scaled = |w: Weight| {
        let base = w.grid.quantize(&w.shape, &w.float).unwrap().into_iter().zip(w.grid.channels(&w.shape).unwrap());
        let base = base.map(|(q, c)| (q - w.grid.zero_point[c]) as f32).collect();
        Scaled { base, shape: w.shape, axis: w.grid.axis, scale: w.grid.scale }
    };
    problem.scaled = std::mem::take(&mut problem.weights).into_iter().map(scaled).collect();
    problem
}

/// Convolutions of every kind of kernel, in tiles too, what divides channels, and dense layers with steps along either axis.
#[test]
fn steps_of_decided_weights() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.conv(x, [32, 32, 3, 3], 1, [1, 1, 1, 1], 1, 1);
    let a = net.relu(a);
    let by = net.constant(&[1, 32, 1, 1]);
    net.weights.push((by, Some(1)));
    let a = net.op(Op::Binary(Binary::Mul), &[a, by]);
    let a = net.site(a);
    let b = net.conv(a, [32, 1, 3, 3], 2, [1, 1, 1, 1], 1, 32);
    let b = net.conv(b, [8, 16, 2, 1], 1, [0, 0, 0, 0], 1, 2);
    let b = net.site(b);
    let c = net.op(Op::Flatten { axis: 1 }, &[b]);
    let w = net.constant(&[72, 10]);
    net.weights.push((w, Some(1)));
    let c = net.op(Op::MatMul, &[c, w]);
    let v = net.constant(&[10, 4]);
    net.weights.push((v, None));
    let y = net.op(Op::MatMul, &[c, v]);
    let problem = decided(net.problem(&[&[1, 32, 7, 6]], &[y], 7));
    assert_eq!(problem.scaled.iter().map(|c| c.scale.len()).collect::<Vec<_>>(), [32, 32, 32, 8, 10, 1]);
    check(&problem);
}

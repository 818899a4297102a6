//! Single geometries that kernels of this device once got wrong, or refused.

use super::{Net, check};
use crate::graph::{Op, Padding, ValueId, Window};
use crate::tensor::Tensor;

/// A convolution with a bias over as many axes as `shape` has behind the channels.
fn convolution(net: &mut Net, x: ValueId, shape: &[usize], pads: &[i64], group: i64) -> ValueId {
    let (w, b) = (net.constant(shape), net.constant(&shape[..1]));
    net.weights.push((w, Some(0)));
    let padding = Padding::Explicit(pads.to_vec());
    let window = Window { kernel: vec![], strides: vec![], dilations: vec![], padding };
    net.op(Op::Conv { window, group }, &[x, w, b])
}

fn reshaped(net: &mut Net, x: ValueId, to: &[i64]) -> ValueId {
    let name = format!("shape {}", net.graph.values.len());
    let shape = net.graph.add_constant(&name, Tensor::i64s(to.to_vec()));
    net.op(Op::Reshape { allowzero: false }, &[x, shape])
}

/// Five frames of a video as a batch inside the network, by a plain, a grouped and a depthwise convolution.
#[test]
fn frames_in_the_batch_axis() {
    let mut net = Net::new();
    let x = net.input();
    let frames = reshaped(&mut net, x, &[5, 4, 6, 6]);
    let a = convolution(&mut net, frames, &[8, 4, 3, 3], &[1; 4], 1);
    let a = net.relu(a);
    let a = net.site(a);
    let b = convolution(&mut net, a, &[8, 1, 3, 3], &[1; 4], 8);
    let c = convolution(&mut net, b, &[6, 4, 1, 1], &[0; 4], 2);
    net.learn_bias(c);
    let y = reshaped(&mut net, c, &[1, 5, 6, 6, 6]);
    check(&net.problem(&[&[1, 5, 4, 6, 6]], &[y], 4));
}

#[test]
fn convolutions_over_one_and_three_axes() {
    let mut net = Net::new();
    let x = net.input();
    let a = convolution(&mut net, x, &[6, 4, 3], &[1, 2], 1);
    let a = net.relu(a);
    let a = net.site(a);
    let b = convolution(&mut net, a, &[6, 1, 5], &[2, 2], 6);
    net.learn_bias(b);
    let y = convolution(&mut net, b, &[3, 6, 1], &[0, 0], 1);
    check(&net.problem(&[&[1, 4, 11]], &[y], 7));

    let mut net = Net::new();
    let x = net.input();
    let a = convolution(&mut net, x, &[6, 2, 2, 3, 3], &[1, 1, 0, 0, 1, 2], 1);
    let a = net.relu(a);
    let a = net.site(a);
    let y = convolution(&mut net, a, &[6, 1, 3, 1, 3], &[1, 0, 1, 1, 0, 1], 6);
    net.learn_bias(y);
    check(&net.problem(&[&[1, 2, 4, 5, 4]], &[y], 5));
}

/// Rates of a pyramid of dilated convolutions on a small image: kernel elements that meet nothing but padding.
#[test]
fn padding_wider_than_the_output() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.conv(x, [4, 3, 3, 3], 1, [12; 4], 12, 1);
    let a = net.relu(a);
    let a = net.site(a);
    let b = net.conv(a, [4, 1, 3, 3], 1, [18; 4], 18, 4);
    let y = net.conv(b, [5, 4, 3, 3], 3, [9, 2, 0, 7], 2, 1);
    check(&net.problem(&[&[1, 3, 4, 5]], &[y], 5));
    let mut net = Net::new();
    let x = net.input();
    let y = net.conv(x, [32, 32, 3, 3], 1, [9, 7, 5, 11], 1, 1);
    net.site(x);
    check(&net.problem(&[&[1, 32, 3, 4]], &[y], 3));
}

/// As many rows as columns: only the shape of the third operand says which way it goes.
#[test]
fn gemm_with_a_column() {
    let mut net = Net::new();
    let x = net.input();
    let rows = reshaped(&mut net, x, &[6, 4]);
    let (w, c) = (net.constant(&[6, 4]), net.constant(&[6, 1]));
    net.weights.push((w, Some(0)));
    let y = net.op(Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true }, &[rows, w, c]);
    net.site(y);
    check(&net.problem(&[&[1, 6, 4]], &[y], 5));
}

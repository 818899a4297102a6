//! Every backward against central finite differences of its forward, in f64.

use super::super::{backward, forward};
use super::*;
use crate::graph::*;

const STEP: f64 = 1e-6;
const TOLERANCE: f64 = 1e-6;

/// A case: operator, operands, number of results.
pub(super) type Case = (Op, Vec<In>, usize);

fn conv(w: Window, group: i64) -> Op {
    Op::Conv { window: w, group }
}

fn transposed(w: Window, group: i64, output_padding: &[i64], output_shape: &[i64]) -> Op {
    let (output_padding, output_shape) = (output_padding.to_vec(), output_shape.to_vec());
    Op::ConvTranspose { window: w, group, output_padding, output_shape }
}

fn convolutions() -> Vec<Case> {
    let plain = || window(&[], &[], &[], pads(&[]));
    let strided = || window(&[3, 2], &[2, 1], &[], pads(&[1, 0, 2, 1]));
    vec![
        (conv(plain(), 1), vec![x(&[2, 3, 4, 5]), x(&[4, 3, 1, 1]), x(&[4])], 1),
        (conv(strided(), 1), vec![x(&[2, 3, 6, 5]), x(&[2, 3, 3, 2]), x(&[2])], 1),
        (conv(window(&[], &[], &[2, 2], pads(&[2, 2, 2, 2])), 2), vec![x(&[1, 4, 5, 5]), x(&[6, 2, 3, 3])], 1),
        (conv(window(&[], &[2, 2], &[], Padding::SameUpper), 3), vec![x(&[1, 3, 5, 6]), x(&[3, 1, 3, 3])], 1),
        (conv(window(&[], &[3], &[2], Padding::SameLower), 1), vec![x(&[2, 2, 8]), x(&[3, 2, 4]), x(&[3])], 1),
        (
            conv(window(&[], &[1, 2, 1], &[], pads(&[1, 1, 0, 0, 1, 1])), 1),
            vec![x(&[1, 2, 3, 4, 3]), x(&[2, 2, 2, 3, 2])],
            1,
        ),
        (transposed(plain(), 1, &[], &[]), vec![x(&[2, 3, 3, 4]), x(&[3, 2, 3, 2]), x(&[2])], 1),
        (
            transposed(window(&[], &[2, 3], &[], pads(&[1, 0, 1, 1])), 2, &[1, 0], &[]),
            vec![x(&[1, 4, 3, 3]), x(&[4, 2, 3, 3]), x(&[4])],
            1,
        ),
        (transposed(window(&[], &[2], &[2], Padding::SameUpper), 1, &[], &[]), vec![x(&[1, 2, 4]), x(&[2, 3, 3])], 1),
        (
            transposed(window(&[], &[3, 2], &[], pads(&[])), 1, &[], &[10, 8]),
            vec![x(&[1, 1, 3, 3]), x(&[1, 2, 3, 3])],
            1,
        ),
    ]
}

fn products() -> Vec<Case> {
    let gemm = |alpha, beta, trans_a, trans_b| Op::Gemm { alpha, beta, trans_a, trans_b };
    vec![
        (gemm(1.0, 1.0, false, false), vec![x(&[3, 4]), x(&[4, 2])], 1),
        (gemm(0.5, 2.0, true, false), vec![x(&[4, 3]), x(&[4, 2]), x(&[2])], 1),
        (gemm(1.5, 0.5, false, true), vec![x(&[3, 4]), x(&[2, 4]), x(&[3, 1])], 1),
        (gemm(1.5, 1.0, true, true), vec![x(&[4, 3]), x(&[2, 4]), x(&[])], 1),
        (Op::MatMul, vec![x(&[3, 4]), x(&[4, 2])], 1),
        (Op::MatMul, vec![x(&[4]), x(&[4])], 1),
        (Op::MatMul, vec![x(&[4]), x(&[2, 4, 3])], 1),
        (Op::MatMul, vec![x(&[2, 3, 4]), x(&[4])], 1),
        (Op::MatMul, vec![x(&[2, 1, 3, 4]), x(&[5, 4, 2])], 1),
        (Op::MatMul, vec![x(&[3, 4]), x(&[2, 2, 4, 3])], 1),
    ]
}

fn normalizations() -> Vec<Case> {
    let lrn = |size| Op::Lrn { alpha: 0.3, beta: 0.75, bias: 1.5, size };
    vec![
        (Op::BatchNorm { epsilon: 1e-3 }, vec![x(&[2, 3, 2, 2]), x(&[3]), x(&[3]), x(&[3]), positive(&[3])], 1),
        (Op::InstanceNorm { epsilon: 1e-3 }, vec![x(&[2, 3, 2, 2]), x(&[3]), x(&[3])], 1),
        (Op::LayerNorm { axis: -1, epsilon: 1e-3 }, vec![x(&[2, 3, 4]), x(&[4]), x(&[4])], 1),
        (Op::LayerNorm { axis: 1, epsilon: 1e-3 }, vec![x(&[2, 3, 4]), x(&[3, 4])], 1),
        (lrn(3), vec![x(&[2, 5, 2])], 1),
        (lrn(4), vec![x(&[1, 6, 2, 2])], 1),
    ]
}

fn elementwise() -> Vec<Case> {
    use Unary::*;
    let mut cases: Vec<Case> = [
        Relu,
        Sigmoid,
        Tanh,
        Exp,
        Neg,
        Abs,
        Floor,
        Ceil,
        Round,
        Sign,
        Erf,
        HardSwish,
        Softplus,
        Softsign,
        Mish,
        Sin,
        Cos,
        Atan,
        Sinh,
        Cosh,
        Asinh,
        Shrink { bias: 0.3, lambd: 0.5 },
        Swish { alpha: 1.5 },
        LeakyRelu { alpha: 0.1 },
        Elu { alpha: 0.7 },
        Celu { alpha: 0.7 },
        Selu { alpha: 1.6, gamma: 1.05 },
        ThresholdedRelu { alpha: 0.4 },
        HardSigmoid { alpha: 0.3, beta: 0.5 },
        Gelu { tanh: false },
        Gelu { tanh: true },
    ]
    .into_iter()
    .map(|u| (Op::Unary(u), vec![In::Noise(&[20], 4.0, 0.0)], 1))
    .collect();
    cases.extend([Log, Sqrt, Reciprocal].map(|u| (Op::Unary(u), vec![positive(&[7])], 1)));
    cases.extend([Tan, Asin, Acos, Atanh].map(|u| (Op::Unary(u), vec![In::Noise(&[9], 0.9, 0.0)], 1)));
    cases.push((Op::Unary(Acosh), vec![In::Noise(&[9], 0.9, 2.0)], 1));
    cases.push((Op::CastLike, vec![x(&[3]), In::Typed(DType::F64, &[1], &[0.0])], 1));
    for b in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::PRelu] {
        cases.push((Op::Binary(b), vec![x(&[2, 3, 4]), x(&[3, 1])], 1));
        cases.push((Op::Binary(b), vec![x(&[4]), x(&[2, 1, 4])], 1));
        cases.push((Op::Binary(b), vec![x(&[5]), x(&[5])], 1));
    }
    cases.push((Op::Binary(Binary::Pow), vec![positive(&[2, 3]), x(&[3])], 1));
    for fmod in [true, false] {
        cases.push((Op::Binary(Binary::Mod { fmod }), vec![In::Noise(&[9], 5.0, 0.1), positive(&[9])], 1));
    }
    for v in [Variadic::Min, Variadic::Max, Variadic::Sum, Variadic::Mean] {
        cases.push((Op::Variadic(v), vec![x(&[2, 3]), x(&[3]), x(&[2, 1])], 1));
        cases.push((Op::Variadic(v), vec![x(&[4])], 1));
    }
    cases.push((Op::Clip, vec![x(&[9]), In::Floats(&[], &[-0.5]), In::Floats(&[], &[1.25])], 1));
    cases.push((Op::Clip, vec![x(&[9]), In::Absent, In::Floats(&[], &[0.3])], 1));
    let condition = In::Typed(DType::Bool, &[2, 1, 3], &[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    cases.push((Op::Where, vec![condition, x(&[4, 1]), x(&[3])], 1));
    cases.push((Op::Cast { to: DType::F64 }, vec![x(&[3])], 1));
    cases.push((Op::Identity, vec![x(&[3])], 1));
    cases
}

fn reductions() -> Vec<Case> {
    use Reduction::*;
    let mut cases = Vec::new();
    for kind in [Sum, Mean, Max, Min, Prod, L1, L2, SumSquare, LogSum, LogSumExp] {
        for (keepdims, axes) in [(true, In::Ints(&[1])), (false, In::Ints(&[0, -1])), (true, In::Absent)] {
            let input = if kind == LogSum { positive(&[2, 3, 4]) } else { x(&[2, 3, 4]) };
            cases.push((Op::Reduce { kind, keepdims, noop_with_empty_axes: false }, vec![input, axes], 1));
        }
    }
    let noop = Op::Reduce { kind: SumSquare, keepdims: true, noop_with_empty_axes: true };
    cases.push((noop, vec![x(&[2, 3])], 1));
    let with_zeros = In::Floats(&[3, 3], &[1.0, 0.0, 2.0, 0.0, 0.0, 3.0, 1.5, -2.0, 0.5]);
    cases.push((
        Op::Reduce { kind: Prod, keepdims: false, noop_with_empty_axes: false },
        vec![with_zeros, In::Ints(&[1])],
        1,
    ));
    for (axis, log) in [(-1, false), (1, false), (0, true), (2, true)] {
        cases.push((Op::Softmax { axis, log }, vec![x(&[2, 3, 4])], 1));
    }
    cases
}

fn pools() -> Vec<Case> {
    let average = |w, ceil_mode, count_include_pad| Op::AveragePool { window: w, ceil_mode, count_include_pad };
    let max = |w, ceil_mode| Op::MaxPool { window: w, ceil_mode };
    vec![
        (max(window(&[3, 3], &[2, 2], &[], pads(&[1, 1, 1, 1])), false), vec![x(&[2, 2, 6, 7])], 1),
        (max(window(&[2, 3], &[2, 2], &[2, 1], pads(&[])), true), vec![x(&[1, 2, 6, 6])], 1),
        (max(window(&[2], &[2], &[], Padding::SameUpper), false), vec![x(&[1, 2, 5])], 1),
        (average(window(&[3, 3], &[2, 2], &[], pads(&[1, 1, 1, 1])), false, true), vec![x(&[2, 2, 6, 7])], 1),
        (average(window(&[3, 3], &[2, 2], &[], pads(&[1, 1, 0, 1])), true, false), vec![x(&[1, 2, 6, 6])], 1),
        (average(window(&[3, 2], &[2, 2], &[], pads(&[1, 1, 1, 1])), true, true), vec![x(&[1, 1, 6, 6])], 1),
        (average(window(&[2, 2, 2], &[1, 1, 2], &[1, 2, 1], pads(&[])), false, false), vec![x(&[1, 1, 3, 4, 4])], 1),
        (Op::GlobalAveragePool, vec![x(&[2, 3, 2, 3])], 1),
        (Op::GlobalMaxPool, vec![x(&[2, 3, 2, 3])], 1),
    ]
}

fn movements() -> Vec<Case> {
    let mut cases = vec![
        (Op::Concat { axis: 1 }, vec![x(&[2, 1, 3]), x(&[2, 2, 3]), x(&[2, 4, 3])], 1),
        (Op::Split { axis: -1 }, vec![x(&[2, 5])], 2),
        (Op::Split { axis: 0 }, vec![x(&[4, 2]), In::Ints(&[1, 0, 3])], 3),
        (
            Op::Slice,
            vec![
                x(&[4, 5]),
                In::Ints(&[1, -1]),
                In::Ints(&[i64::MAX, i64::MIN]),
                In::Ints(&[0, 1]),
                In::Ints(&[2, -2]),
            ],
            1,
        ),
        (Op::Reshape { allowzero: false }, vec![x(&[2, 3, 4]), In::Ints(&[0, -1])], 1),
        (Op::Flatten { axis: 2 }, vec![x(&[2, 3, 4])], 1),
        (Op::Transpose { perm: vec![2, 0, 1] }, vec![x(&[2, 3, 4])], 1),
        (Op::Transpose { perm: vec![] }, vec![x(&[2, 3])], 1),
        (Op::Squeeze, vec![x(&[1, 3, 1])], 1),
        (Op::Unsqueeze, vec![x(&[3]), In::Ints(&[0, -1])], 1),
        (Op::Expand, vec![x(&[3, 1]), In::Ints(&[2, 1, 4])], 1),
        (Op::Tile, vec![x(&[2, 3]), In::Ints(&[2, 3])], 1),
        (Op::Gather { axis: 1 }, vec![x(&[2, 4, 3]), In::Typed(DType::I64, &[2, 2], &[0.0, -1.0, 2.0, 0.0])], 1),
        (Op::Gather { axis: 0 }, vec![x(&[4, 3]), In::Typed(DType::I64, &[], &[2.0])], 1),
        (Op::GatherElements { axis: 1 }, vec![x(&[2, 3]), In::Typed(DType::I64, &[2, 2], &[0.0, -1.0, 2.0, 2.0])], 1),
        (Op::DepthToSpace { block: 2, dcr: true }, vec![x(&[1, 8, 2, 3])], 1),
        (Op::DepthToSpace { block: 2, dcr: false }, vec![x(&[1, 8, 2, 3])], 1),
        (Op::SpaceToDepth { block: 2 }, vec![x(&[2, 2, 4, 6])], 1),
    ];
    for mode in [PadMode::Constant, PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
        cases.push((Op::Pad { mode }, vec![x(&[3, 4]), In::Ints(&[1, -1, 2, 3])], 1));
    }
    cases.push((Op::Pad { mode: PadMode::Constant }, vec![x(&[3, 4]), In::Ints(&[1, 2]), x(&[]), In::Ints(&[-1])], 1));
    cases
}

fn resizes() -> Vec<Case> {
    let cubic = |exclude_outside| Interpolation::Cubic { coeff_a: -0.75, exclude_outside };
    let modes = [Interpolation::Nearest(Nearest::RoundPreferFloor), Interpolation::Linear, cubic(false), cubic(true)];
    let coordinates = [
        Coordinates::HalfPixel,
        Coordinates::HalfPixelSymmetric,
        Coordinates::PytorchHalfPixel,
        Coordinates::AlignCorners,
        Coordinates::Asymmetric,
    ];
    let mut cases = Vec::new();
    for mode in modes {
        for coordinates in coordinates {
            let op = || Op::Resize(Resize::new(mode, coordinates));
            cases.push((op(), vec![x(&[1, 2, 4, 3]), In::Absent, In::Absent, In::Ints(&[1, 2, 7, 2])], 1));
            let scales = In::Floats(&[4], &[1.0, 1.0, 0.6, 2.0]);
            cases.push((op(), vec![x(&[1, 2, 4, 3]), In::Absent, scales], 1));
        }
    }
    cases
}

/// Sum of all result elements, each with its own weight.
fn objective(op: &Op, operands: &[Option<Array<f64>>], results: usize, weights: &[Vec<f64>]) -> f64 {
    let y = forward(op, &views(operands), results).unwrap();
    y.iter().zip(weights).flat_map(|(y, w)| y.data.iter().zip(w)).map(|(y, w)| y * w).sum()
}

pub(super) fn check((op, inputs, results): &Case) {
    let place = format!("{} {inputs:?} {op:?}", op.kind());
    let mut operands = arrays(inputs);
    let y = forward(op, &views(&operands), *results).unwrap_or_else(|e| panic!("{place}: {e}"));
    let weights: Vec<Vec<f64>> = y.iter().enumerate().map(|(k, y)| noise(100 + k as u64, y.data.len())).collect();
    let gradients: Vec<Option<&[f64]>> = weights.iter().map(|w| Some(&w[..])).collect();
    let found = {
        let y: Vec<_> = y.iter().map(view).collect();
        backward(op, &views(&operands), &y, &gradients, &vec![true; operands.len()]).unwrap()
    };
    let mut compared = 0;
    for (i, input) in inputs.iter().enumerate() {
        if !matches!(input, In::Noise(..) | In::Floats(..)) || (matches!(op, Op::Resize(_)) && i > 0) {
            assert!(found[i].as_ref().is_none_or(|_| false), "{place}: operand {i} has a gradient");
            continue;
        }
        let gradient = found[i].as_ref().unwrap_or_else(|| panic!("{place}: operand {i} has no gradient"));
        for k in 0..gradient.len() {
            let mut at = |shift: f64| {
                let data = &mut operands[i].as_mut().unwrap().data;
                let keep = data[k];
                data[k] += shift;
                let value = objective(op, &operands, *results, &weights);
                operands[i].as_mut().unwrap().data[k] = keep;
                value
            };
            let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            // |x| and the norms have kinks at 0, where the forward is symmetric: the difference is 0 there too.
            let error = (slope - gradient[k]).abs() / slope.abs().max(1.0);
            assert!(error < TOLERANCE, "{place}: operand {i} element {k}: {} against {slope}", gradient[k]);
            compared += 1;
        }
    }
    assert!(compared > 0, "{place}: nothing compared");
}

#[test]
fn convolution_gradients() {
    convolutions().iter().for_each(check);
}

#[test]
fn product_gradients() {
    products().iter().for_each(check);
}

#[test]
fn normalization_gradients() {
    normalizations().iter().for_each(check);
}

#[test]
fn elementwise_gradients() {
    elementwise().iter().for_each(check);
}

#[test]
fn reduction_gradients() {
    reductions().iter().for_each(check);
}

#[test]
fn pool_gradients() {
    pools().iter().for_each(check);
}

#[test]
fn movement_gradients() {
    movements().iter().for_each(check);
}

#[test]
fn resize_gradients() {
    resizes().iter().for_each(check);
}

/// Only what is wanted is computed, and nothing comes through integers.
#[test]
fn gradients_only_where_they_exist() {
    let operands = arrays(&[x(&[3]), x(&[3])]);
    let y = forward(&Op::Binary(Binary::Mul), &views(&operands), 1).unwrap();
    let g = [1.0; 3];
    let found =
        backward(&Op::Binary(Binary::Mul), &views(&operands), &[view(&y[0])], &[Some(&g)], &[false, true]).unwrap();
    assert!(found[0].is_none() && found[1].as_deref() == Some(&operands[0].as_ref().unwrap().data[..]));
    let less = Op::Binary(Binary::Less);
    let y = forward(&less, &views(&operands), 1).unwrap();
    let found = backward(&less, &views(&operands), &[view(&y[0])], &[Some(&g)], &[true, true]).unwrap();
    assert_eq!(found, [None, None]);
    let split = Op::Split { axis: 0 };
    let operands = arrays(&[x(&[3])]);
    let y = forward(&split, &views(&operands), 2).unwrap();
    let y: Vec<_> = y.iter().map(view).collect();
    let found = backward(&split, &views(&operands), &y, &[None, Some(&[5.0])], &[true]).unwrap();
    assert_eq!(found, [Some(vec![0.0, 0.0, 5.0])]);
}

/// At ties and kinks the conventions that the documentation states.
#[test]
fn kinks_follow_the_stated_conventions() {
    let gradient = |op: Op, inputs: &[In]| {
        let operands = arrays(inputs);
        let y = forward(&op, &views(&operands), 1).unwrap();
        let g = vec![1.0; y[0].data.len()];
        backward(&op, &views(&operands), &[view(&y[0])], &[Some(&g)], &vec![true; inputs.len()]).unwrap()
    };
    let kink = In::Floats(&[3], &[-1.0, 0.0, 6.0]);
    assert_eq!(gradient(Op::Unary(Unary::Relu), std::slice::from_ref(&kink))[0], Some(vec![0.0, 0.0, 1.0]));
    let clip = gradient(Op::Clip, &[kink, In::Floats(&[], &[0.0]), In::Floats(&[], &[6.0])]);
    assert_eq!(clip[0], Some(vec![0.0, 1.0, 1.0]));
    let equal = In::Floats(&[2], &[2.0, 2.0]);
    let max = gradient(Op::Variadic(Variadic::Max), &[equal.clone(), equal]);
    assert_eq!(max, [Some(vec![0.5, 0.5]), Some(vec![0.5, 0.5])]);
    let plateau = In::Floats(&[1, 1, 2, 2], &[3.0; 4]);
    let pool = Op::MaxPool { window: window(&[2, 2], &[], &[], pads(&[])), ceil_mode: false };
    assert_eq!(gradient(pool, &[plateau])[0], Some(vec![1.0, 0.0, 0.0, 0.0]));
}

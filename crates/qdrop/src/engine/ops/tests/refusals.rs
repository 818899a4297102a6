//! Shape derivation refuses what makes no sense, and never panics.

use super::super::{Known, infer};
use super::*;
use crate::graph::*;
use crate::tensor::Tensor;
use std::sync::Arc;

/// Derives shapes of float operands given by shape, followed by integer constants.
fn shapes(op: &Op, floats: &[&[usize]], ints: &[&[i64]]) -> crate::Result<Vec<(DType, Vec<usize>)>> {
    let tensors: Vec<Tensor> = ints.iter().map(|v| Tensor::i64s(v.to_vec())).collect();
    let mut operands: Vec<Option<Known>> =
        floats.iter().map(|&shape| Some(Known { dtype: DType::F32, shape, constant: None })).collect();
    operands.extend(tensors.iter().map(|t| Some(Known { dtype: t.dtype(), shape: t.shape(), constant: Some(t) })));
    infer(op, &operands, 1)
}

fn conv(kernel: &[i64], strides: &[i64], padding: Padding, group: i64) -> Op {
    Op::Conv { window: window(kernel, strides, &[], padding), group }
}

/// An operator, the shapes of its float operands, the values of its integer operands.
type Case<'a> = (Op, Vec<&'a [usize]>, Vec<&'a [i64]>);

#[test]
fn nonsense_is_refused() {
    let max = |kernel: &[i64], p: &[i64]| Op::MaxPool { window: window(kernel, &[], &[], pads(p)), ceil_mode: false };
    let none = || pads(&[]);
    let x4: &[usize] = &[1, 4, 5, 5];
    let w4: &[usize] = &[4, 4, 3, 3];
    let cases: Vec<Case> = vec![
        (conv(&[], &[], none(), 0), vec![x4, w4], vec![]),
        (conv(&[], &[], none(), -1), vec![x4, w4], vec![]),
        (conv(&[], &[], none(), 3), vec![x4, w4], vec![]),
        (conv(&[], &[], none(), i64::MIN), vec![x4, w4], vec![]),
        (conv(&[2, 2], &[], none(), 1), vec![x4, w4], vec![]),
        (conv(&[], &[0, 1], none(), 1), vec![x4, w4], vec![]),
        (conv(&[], &[1], none(), 1), vec![x4, w4], vec![]),
        (conv(&[], &[], pads(&[-1, 0, 0, 0]), 1), vec![x4, w4], vec![]),
        (conv(&[], &[], pads(&[i64::MAX; 4]), 1), vec![x4, w4], vec![]),
        (conv(&[], &[], none(), 1), vec![&[1, 4, 2, 2], w4], vec![]),
        (conv(&[], &[], none(), 1), vec![x4], vec![]),
        (conv(&[], &[], none(), 1), vec![x4, &[4, 4]], vec![]),
        (conv(&[], &[], none(), 1), vec![x4, w4, &[3]], vec![]),
        (conv(&[], &[], none(), 1), vec![&[usize::MAX, 4, 5, 5], w4], vec![]),
        (max(&[], &[]), vec![x4], vec![]),
        (max(&[i64::MAX, 1], &[]), vec![x4], vec![]),
        (max(&[7, 7], &[]), vec![x4], vec![]),
        (max(&[2, 2], &[]), vec![&[1, 4]], vec![]),
        (Op::GlobalAveragePool, vec![&[1]], vec![]),
        (Op::MatMul, vec![&[2, 3], &[2, 3]], vec![]),
        (Op::MatMul, vec![&[], &[2, 3]], vec![]),
        (Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false }, vec![&[2], &[2, 3]], vec![]),
        (Op::Softmax { axis: 2, log: false }, vec![&[2, 3]], vec![]),
        (Op::Softmax { axis: i64::MIN, log: false }, vec![&[2, 3]], vec![]),
        (Op::Binary(Binary::Add), vec![&[2], &[3]], vec![]),
        (Op::Unary(Unary::Not), vec![&[2]], vec![]),
        (Op::Concat { axis: 0 }, vec![&[2, 3], &[2, 4]], vec![]),
        (Op::Concat { axis: 0 }, vec![&[usize::MAX], &[2]], vec![]),
        (Op::Reshape { allowzero: false }, vec![&[2, 3]], vec![&[4, -1]]),
        (Op::Reshape { allowzero: false }, vec![&[2, 3]], vec![&[-1, -1]]),
        (Op::Reshape { allowzero: false }, vec![&[2, 3]], vec![&[-2, 3]]),
        (Op::Reshape { allowzero: false }, vec![&[2, 3]], vec![&[i64::MAX, i64::MAX]]),
        (Op::Reshape { allowzero: false }, vec![&[2, 3]], vec![&[1, 1, 0]]),
        (Op::Slice, vec![&[2, 3]], vec![&[0], &[1], &[0], &[0]]),
        (Op::Slice, vec![&[2, 3]], vec![&[0], &[1, 2]]),
        (Op::Transpose { perm: vec![0, 0] }, vec![&[2, 3]], vec![]),
        (Op::Transpose { perm: vec![0] }, vec![&[2, 3]], vec![]),
        (Op::Squeeze, vec![&[2, 1]], vec![&[0]]),
        (Op::Unsqueeze, vec![&[2, 1]], vec![&[0, 0]]),
        (Op::Expand, vec![&[2]], vec![&[i64::MAX, 2]]),
        (Op::Expand, vec![&[2]], vec![&[-1]]),
        (Op::Tile, vec![&[2, 2]], vec![&[i64::MAX, i64::MAX]]),
        (Op::Tile, vec![&[2, 2]], vec![&[-1, 1]]),
        (Op::Pad { mode: PadMode::Constant }, vec![&[2]], vec![&[i64::MAX, i64::MAX]]),
        (Op::Pad { mode: PadMode::Constant }, vec![&[2]], vec![&[-3, 0]]),
        (Op::Pad { mode: PadMode::Reflect }, vec![&[0]], vec![&[1, 1]]),
        (Op::DepthToSpace { block: i64::MAX, dcr: true }, vec![x4], vec![]),
        (Op::DepthToSpace { block: 0, dcr: true }, vec![x4], vec![]),
        (Op::SpaceToDepth { block: 2 }, vec![x4], vec![]),
        (Op::Lrn { alpha: 1.0, beta: 1.0, bias: 1.0, size: 0 }, vec![x4], vec![]),
        (Op::BatchNorm { epsilon: 0.0 }, vec![x4, &[4], &[4], &[4], &[3]], vec![]),
        (Op::ConstantOfShape { value: Arc::new(Tensor::scalar(1.0)) }, vec![], vec![&[1 << 30, 1 << 30]]),
        (Op::ConstantOfShape { value: Arc::new(Tensor::scalar(1.0)) }, vec![], vec![&[-1]]),
        (Op::Range, vec![], vec![&[0], &[9], &[0]]),
        (Op::Range, vec![], vec![&[0], &[i64::MAX], &[1]]),
        (Op::QuantizeLinear { axis: 1, block: 0, to: None }, vec![x4, &[5, 5]], vec![]),
        (Op::QuantizeLinear { axis: 1, block: 0, to: None }, vec![x4, &[3]], vec![]),
        (Op::Opaque { domain: String::new(), kind: "Loop".into() }, vec![x4], vec![]),
        (lstm(), vec![&[5, 1, 3], &[1, 8, 4], &[1, 8, 2]], vec![]),
        (lstm(), vec![&[5, 1, 3], &[2, 8, 3], &[2, 8, 2]], vec![]),
        (lstm(), vec![&[5, 3], &[1, 8, 3], &[1, 8, 2]], vec![]),
        (lstm(), vec![&[5, 1, 3], &[1, 8, 3], &[1, 8, 2], &[1, 8]], vec![]),
    ];
    for (op, floats, ints) in cases {
        let found = shapes(&op, &floats, &ints);
        assert!(found.is_err(), "{op:?} {floats:?} {ints:?} gives {found:?}");
    }
}

fn lstm() -> Op {
    Op::Recurrent(Recurrent::new(Cell::Lstm { input_forget: false }, Direction::Forward))
}

/// No operator panics on missing operands, scalars, empty tensors or hostile integers.
#[test]
fn any_operands_give_shapes_or_errors() {
    let w = || window(&[2, 2], &[1, 1], &[1, 1], pads(&[1, 1, 1, 1]));
    let cubic = Interpolation::Cubic { coeff_a: -0.5, exclude_outside: true };
    let ops = [
        Op::Conv { window: w(), group: 1 },
        Op::ConvTranspose { window: w(), group: 1, output_padding: vec![], output_shape: vec![] },
        Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true },
        Op::MatMul,
        Op::BatchNorm { epsilon: 1e-5 },
        Op::InstanceNorm { epsilon: 1e-5 },
        Op::LayerNorm { axis: -1, epsilon: 1e-5 },
        Op::Lrn { alpha: 1.0, beta: 1.0, bias: 1.0, size: 3 },
        lstm(),
        Op::Unary(Unary::Relu),
        Op::Binary(Binary::Add),
        Op::Variadic(Variadic::Max),
        Op::Clip,
        Op::Softmax { axis: -1, log: false },
        Op::MaxPool { window: w(), ceil_mode: true },
        Op::AveragePool { window: w(), ceil_mode: true, count_include_pad: true },
        Op::GlobalAveragePool,
        Op::GlobalMaxPool,
        Op::Reduce { kind: Reduction::LogSumExp, keepdims: true, noop_with_empty_axes: false },
        Op::ArgReduce { largest: true, axis: 0, keepdims: false, select_last_index: true },
        Op::Concat { axis: 0 },
        Op::Split { axis: 0 },
        Op::Slice,
        Op::Reshape { allowzero: false },
        Op::Reshape { allowzero: true },
        Op::Flatten { axis: 1 },
        Op::Transpose { perm: vec![] },
        Op::Squeeze,
        Op::Unsqueeze,
        Op::Expand,
        Op::Tile,
        Op::Gather { axis: 0 },
        Op::GatherElements { axis: 0 },
        Op::Shape { start: -9, end: Some(i64::MIN) },
        Op::Size,
        Op::ConstantOfShape { value: Arc::new(Tensor::scalar(1.0)) },
        Op::Range,
        Op::Where,
        Op::Identity,
        Op::Cast { to: DType::I4 },
        Op::Cast { to: DType::String },
        Op::Pad { mode: PadMode::Reflect },
        Op::Pad { mode: PadMode::Wrap },
        Op::Resize(Resize::new(cubic, Coordinates::HalfPixelSymmetric)),
        Op::DepthToSpace { block: 2, dcr: true },
        Op::SpaceToDepth { block: 2 },
        Op::QuantizeLinear { axis: 0, block: 0, to: None },
        Op::Quant { signed: true, narrow: false, rounding: Rounding::HalfEven },
        Op::DequantizeLinear { axis: 0, block: 0, to: None },
        Op::GroupNorm { groups: 2, epsilon: 1e-5 },
        Op::RmsNorm { axis: -1, epsilon: 1e-5 },
        Op::LpNorm { axis: 0, p: 2 },
        Op::MeanVarianceNorm { axes: vec![0, 2, 3] },
        Op::Hardmax { axis: 0 },
        Op::Cumulate { product: true, exclusive: true, reverse: false },
        Op::LpPool { window: w(), ceil_mode: true, p: 2 },
        Op::GlobalLpPool { p: 3 },
        Op::GatherNd { batch_dims: 0 },
        Op::GatherNd { batch_dims: 1 },
        Op::ScatterElements { axis: 0, reduction: Scatter::Replace },
        Op::ScatterNd { reduction: Scatter::Add },
        Op::Compress { axis: None },
        Op::Compress { axis: Some(0) },
        Op::NonZero,
        Op::OneHot { axis: -1 },
        Op::TopK { axis: -1, largest: true, sorted: true },
        Op::Trilu { upper: true },
        Op::EyeLike { k: i64::MIN, to: None },
        Op::ReverseSequence { batch_axis: 0, time_axis: 1 },
        Op::Det,
        Op::Einsum { equation: "a...,b...->ab...".into() },
        Op::Einsum { equation: "i,i,i".into() },
        Op::Einsum { equation: "-> ..,->".into() },
        Op::GridSample { mode: Sampling::Cubic, padding: Outside::Reflection, align_corners: true },
        Op::RoiAlign { size: [2, 2], sampling_ratio: 0, spatial_scale: 1.0, max: false, half_pixel: true },
        Op::Attention(Attention {
            causal: true,
            q_heads: 1,
            kv_heads: 1,
            scale: None,
            softcap: 0.0,
            product: 0,
            window: [0, i64::MAX],
        }),
        Op::RotaryEmbedding { interleaved: true, heads: 1, dim: 0 },
        Op::CastLike,
        Op::Binary(Binary::BitShift { left: true }),
        Op::Unary(Unary::BitwiseNot),
    ];
    let pool = [
        In::Absent,
        In::Floats(&[], &[0.5]),
        In::Floats(&[0], &[]),
        In::Noise(&[2], 1.0, 0.0),
        In::Noise(&[4, 4, 2, 2], 1.0, 0.0),
        In::Noise(&[0, 2, 3, 3], 1.0, 0.0),
        In::Noise(&[1, 2, 0, 3], 1.0, 0.0),
        In::Ints(&[]),
        In::Ints(&[0]),
        In::Ints(&[-1, 2]),
        In::Ints(&[1, 1, 3, 3]),
        In::Ints(&[i64::MAX, i64::MIN]),
        In::Typed(DType::U8, &[4], &[3.0, 0.0, 255.0, 7.0]),
        In::Typed(DType::Bool, &[2], &[1.0, 0.0]),
    ];
    let mut ran = 0;
    for op in &ops {
        for a in &pool {
            for b in &pool {
                for c in &pool {
                    let operands = arrays(&[a.clone(), b.clone(), c.clone()]);
                    let views = views(&operands);
                    let Ok(y) = forward(op, &views, 1) else { continue };
                    ran += 1;
                    let results: Vec<_> = y.iter().map(view).collect();
                    let g: Vec<Option<&[f64]>> = y.iter().map(|y| Some(&y.data[..])).collect();
                    super::super::backward(op, &views, &results, &g, &[true; 3]).unwrap();
                }
            }
        }
    }
    assert!(ran > 5000, "only {ran} combinations ran");
}

#[test]
fn windows_far_larger_than_their_input_take_no_time() {
    let huge = || window(&[1 << 24; 3], &[], &[], Padding::SameUpper);
    let x = In::Floats(&[1, 1, 2, 1, 2], &[1.0, 2.0, 3.0, 5.0]);
    let average = |count_include_pad| Op::AveragePool { window: huge(), ceil_mode: false, count_include_pad };
    for (op, want) in [
        (Op::MaxPool { window: huge(), ceil_mode: false }, 5.0),
        (Op::LpPool { window: huge(), ceil_mode: false, p: 1 }, 11.0),
        (average(false), 2.75),
    ] {
        // Every window covers the whole input.
        assert_eq!(run(&op, std::slice::from_ref(&x), 1)[0].data, [want; 4], "{op:?}");
    }
    assert!(run(&average(true), &[x], 1)[0].data.iter().all(|y| (0.0..1e-6).contains(y)));
}

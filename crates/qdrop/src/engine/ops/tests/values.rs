//! Results worked out by hand: conventions that the recorded cases may not reach, and element types.

use super::super::{Known, infer};
use super::*;
use crate::graph::*;

fn data(op: Op, inputs: &[In]) -> Vec<f64> {
    run(&op, inputs, 1).remove(0).data
}

#[test]
fn rounding_is_half_to_even() {
    let ties = In::Floats(&[6], &[0.5, 1.5, 2.5, -0.5, -1.5, 2.4999]);
    assert_eq!(data(Op::Unary(Unary::Round), &[ties]), [0.0, 2.0, 2.0, 0.0, -2.0, 2.0]);
}

#[test]
fn quantizing_saturates_and_rounds_half_to_even() {
    let x = In::Floats(&[6], &[0.0, 0.25, 0.75, -100.0, 1000.0, 0.5]);
    let zero = In::Typed(DType::U8, &[], &[3.0]);
    let y = run(&Op::QuantizeLinear { axis: 1, block: 0, to: None }, &[x.clone(), In::Floats(&[], &[0.5]), zero], 1)
        .remove(0);
    assert_eq!((y.dtype, y.data), (DType::U8, vec![3.0, 3.0, 5.0, 0.0, 255.0, 4.0]));
    let zero = In::Typed(DType::I4, &[], &[0.0]);
    let y = run(&Op::QuantizeLinear { axis: 1, block: 0, to: None }, &[x, In::Floats(&[], &[0.5]), zero], 1).remove(0);
    assert_eq!((y.dtype, y.data), (DType::I4, vec![0.0, 0.0, 2.0, -8.0, 7.0, 1.0]));
}

#[test]
fn dequantizing_per_axis_and_in_blocks() {
    let x = || In::Typed(DType::I8, &[2, 4], &[1.0, 2.0, 3.0, 4.0, -1.0, -2.0, -3.0, -4.0]);
    let op = |axis| Op::DequantizeLinear { axis, block: 0, to: None };
    let zero = In::Typed(DType::I8, &[2], &[1.0, -1.0]);
    let y = data(op(0), &[x(), In::Floats(&[2], &[0.5, 2.0]), zero]);
    assert_eq!(y, [0.0, 0.5, 1.0, 1.5, 0.0, -2.0, -4.0, -6.0]);
    let y = data(op(1), &[x(), In::Floats(&[2, 2], &[1.0, 10.0, 2.0, 20.0])]);
    assert_eq!(y, [1.0, 2.0, 30.0, 40.0, -2.0, -4.0, -60.0, -80.0]);
}

#[test]
fn blocks_may_end_early() {
    let x = || In::Typed(DType::I4, &[1, 5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    let op = |block| Op::DequantizeLinear { axis: 1, block, to: None };
    assert_eq!(data(op(2), &[x(), In::Floats(&[1, 3], &[1.0, 10.0, 100.0])]), [1.0, 2.0, 30.0, 40.0, 500.0]);
    let scale = In::Floats(&[1, 3], &[1.0, 10.0, 100.0]);
    assert!(forward(&op(3), &views(&arrays(&[x(), scale])), 1).is_err());
    let q = Op::QuantizeLinear { axis: 1, block: 2, to: Some(DType::U2) };
    let y = run(&q, &[In::Floats(&[1, 3], &[1.4, 9.0, 4.0]), In::Floats(&[1, 2], &[1.0, 2.0])], 1).remove(0);
    assert_eq!((y.dtype, y.data), (DType::U2, vec![1.0, 3.0, 2.0]));
}

/// Numbers from QONNX's own executor (qonnx 1.0.0).
#[test]
fn quant_of_qonnx() {
    let quant = |signed, narrow, rounding, bits: f64, zero: f64| {
        let x = In::Floats(&[8], &[0.25, 0.75, -0.25, -0.8, 100.0, -100.0, 1.25, f64::NAN]);
        let single = |v: f64| In::Typed(DType::F32, &[], Vec::leak(vec![v]));
        let op = Op::Quant { signed, narrow, rounding };
        data(op, &[x, single(0.5), single(zero), single(bits)])
    };
    let half_even = |signed, narrow, bits, zero| quant(signed, narrow, Rounding::HalfEven, bits, zero)[..7].to_vec();
    assert_eq!(half_even(true, false, 4.0, 0.0), [0.0, 1.0, 0.0, -1.0, 3.5, -4.0, 1.0]);
    assert_eq!(half_even(true, true, 4.0, 0.0), [0.0, 1.0, 0.0, -1.0, 3.5, -3.5, 1.0]);
    assert_eq!(half_even(false, false, 2.0, 0.0), [0.0, 1.0, 0.0, 0.0, 1.5, 0.0, 1.0]);
    assert_eq!(half_even(false, true, 3.0, 0.0), [0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 1.0]);
    // Ties are those of x / scale + zero point.
    assert_eq!(half_even(false, false, 8.0, 3.0), [0.5, 0.5, -0.5, -1.0, 100.0, -1.5, 1.5]);
    let mode = |rounding| quant(true, false, rounding, 8.0, 0.0)[..4].to_vec();
    assert_eq!(mode(Rounding::HalfUp), [0.5, 1.0, -0.5, -1.0]);
    assert_eq!(mode(Rounding::HalfDown), [0.0, 0.5, 0.0, -1.0]);
    assert_eq!(mode(Rounding::Ceil), [0.5, 1.0, 0.0, -0.5]);
    assert_eq!(mode(Rounding::Floor), [0.0, 0.5, -0.5, -1.0]);
    assert_eq!(mode(Rounding::Up), [0.5, 1.0, -0.5, -1.0]);
    assert_eq!(mode(Rounding::Down), [0.0, 0.5, 0.0, -0.5]);
    assert!(quant(true, false, Rounding::HalfEven, 4.0, 0.0)[7].is_nan());
}

#[test]
fn quant_of_qonnx_broadcasts_its_operands() {
    let op = Op::Quant { signed: true, narrow: false, rounding: Rounding::HalfEven };
    let x = || In::Floats(&[2, 3], &[1.0, 2.0, 9.0, 1.0, 2.0, 90.0]);
    let (scale, zero) = (In::Floats(&[2, 1], &[1.0, 10.0]), In::Floats(&[1], &[0.0]));
    let y = data(op.clone(), &[x(), scale.clone(), zero.clone(), In::Floats(&[1, 3], &[2.0, 3.0, 4.0])]);
    assert_eq!(y, [1.0, 2.0, 7.0, 0.0, 0.0, 70.0]);
    for bits in [1.0, 2.5, 33.0, f64::NAN] {
        let bits = In::Floats(&[], Vec::leak(vec![bits]));
        let refused = forward(&op, &views(&arrays(&[x(), scale.clone(), zero.clone(), bits])), 1).unwrap_err();
        assert!(refused.to_string().starts_with("expected a whole number of bits from 2 to 32, got "), "{refused}");
    }
    let wide = In::Floats(&[2, 2, 3], &[1.0; 12]);
    assert!(forward(&op, &views(&arrays(&[x(), wide, zero.clone(), zero])), 1).is_err());
}

#[test]
fn integer_arithmetic_truncates_and_wraps() {
    let typed = |d: &'static [f64]| In::Typed(DType::I8, &[3], d);
    let y = data(Op::Binary(Binary::Div), &[typed(&[-7.0, 7.0, 5.0]), typed(&[2.0, -2.0, 0.0])]);
    assert_eq!(y, [-3.0, -3.0, 0.0]);
    let y = data(Op::Binary(Binary::Add), &[typed(&[127.0, -128.0, 1.0]), typed(&[1.0, -1.0, 1.0])]);
    assert_eq!(y, [-128.0, 127.0, 2.0]);
    let y = data(Op::Binary(Binary::Mod { fmod: false }), &[typed(&[-7.0, 7.0, 6.0]), typed(&[3.0, -3.0, 3.0])]);
    assert_eq!(y, [2.0, -2.0, 0.0]);
}

#[test]
fn casts() {
    let x = || In::Floats(&[5], &[-1.9, 300.7, f64::NAN, 0.0, 1e-8]);
    assert_eq!(data(Op::Cast { to: DType::U8 }, &[x()]), [0.0, 255.0, 0.0, 0.0, 0.0]);
    assert_eq!(data(Op::Cast { to: DType::Bool }, &[x()]), [1.0, 1.0, 1.0, 0.0, 1.0]);
    assert_eq!(
        data(Op::Cast { to: DType::F16 }, &[In::Floats(&[2], &[0.1, 70000.0])]),
        [0.0999755859375, f64::INFINITY]
    );
    let ints = In::Typed(DType::I32, &[2], &[300.0, -1.0]);
    assert_eq!(data(Op::Cast { to: DType::U8 }, &[ints]), [44.0, 255.0]);
}

#[test]
fn average_pool_divides_as_told() {
    let x = || In::Floats(&[1, 1, 3], &[1.0, 2.0, 3.0]);
    let op = |count_include_pad, ceil_mode| Op::AveragePool {
        window: window(&[2], &[2], &[], pads(&[1, 0])),
        ceil_mode,
        count_include_pad,
    };
    assert_eq!(data(op(false, false), &[x()]), [1.0, 2.5]);
    assert_eq!(data(op(true, false), &[x()]), [0.5, 2.5]);
    let overhang =
        Op::AveragePool { window: window(&[2], &[2], &[], pads(&[])), ceil_mode: true, count_include_pad: true };
    assert_eq!(data(overhang, &[x()]), [1.5, 3.0]);
}

#[test]
fn convolution_by_hand() {
    let x = In::Floats(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let w = In::Floats(&[1, 1, 2], &[1.0, 10.0]);
    let op = |p| Op::Conv { window: window(&[], &[2], &[], p), group: 1 };
    assert_eq!(data(op(pads(&[])), &[x.clone(), w.clone(), In::Floats(&[1], &[0.5])]), [21.5, 43.5]);
    assert_eq!(data(op(pads(&[1, 0])), &[x.clone(), w.clone()]), [10.0, 32.0]);
    let t = Op::ConvTranspose {
        window: window(&[], &[2], &[], pads(&[])),
        group: 1,
        output_padding: vec![1],
        output_shape: vec![],
    };
    assert_eq!(data(t, &[x, w]), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0, 0.0]);
}

#[test]
fn result_types() {
    let operand = |dtype, shape| Some(Known { dtype, shape, constant: None });
    let pair = |a, b, op: Op| infer(&op, &[operand(a, &[2][..]), operand(b, &[2][..])], 1);
    assert_eq!(pair(DType::F32, DType::F32, Op::Binary(Binary::Less)).unwrap()[0].0, DType::Bool);
    assert_eq!(pair(DType::F32, DType::I64, Op::Binary(Binary::Pow)).unwrap()[0].0, DType::F32);
    assert!(pair(DType::F32, DType::I64, Op::Binary(Binary::Add)).is_err());
    let arg = Op::ArgReduce { largest: true, axis: 0, keepdims: false, select_last_index: false };
    assert_eq!(infer(&arg, &[operand(DType::F16, &[2])], 1).unwrap(), [(DType::I64, vec![])]);
    let q = Op::QuantizeLinear { axis: 1, block: 0, to: None };
    assert_eq!(infer(&q, &[operand(DType::F32, &[2]), operand(DType::F32, &[])], 1).unwrap()[0].0, DType::U8);
    let unknown = infer(&Op::Reshape { allowzero: false }, &[operand(DType::F32, &[2]), operand(DType::I64, &[1])], 1);
    assert!(unknown.unwrap_err().to_string().contains("operand 1 decides the result's shape"));
}

#[test]
fn f32_and_f64_agree() {
    let operands = arrays(&[x(&[1, 3, 6, 6]), x(&[4, 3, 3, 3]), x(&[4])]);
    let op = Op::Conv { window: window(&[], &[2, 1], &[], pads(&[1, 1, 1, 1])), group: 1 };
    let wide = forward(&op, &views(&operands), 1).unwrap().remove(0);
    let narrow: Vec<Vec<f32>> = operands.iter().flatten().map(|a| a.data.iter().map(|&v| v as f32).collect()).collect();
    let narrow: Vec<Option<View<f32>>> = operands
        .iter()
        .flatten()
        .zip(&narrow)
        .map(|(a, data)| Some(View { dtype: a.dtype, shape: &a.shape, data }))
        .collect();
    let narrow = forward(&op, &narrow, 1).unwrap().remove(0);
    assert_eq!(wide.shape, narrow.shape);
    assert!(wide.data.iter().zip(&narrow.data).all(|(a, &b)| (a - b as f64).abs() < 1e-4));
}

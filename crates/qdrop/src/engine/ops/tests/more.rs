//! Gradients of normalisations, scatters, selections, einsums, samples and attention against finite differences.

use super::gradients::{Case, check};
use super::*;
use crate::graph::*;

fn typed(shape: &'static [usize], data: &'static [f64]) -> In {
    In::Typed(DType::I64, shape, data)
}

fn norms() -> Vec<Case> {
    vec![
        (Op::GroupNorm { groups: 2, epsilon: 1e-3 }, vec![x(&[2, 4, 3]), x(&[4]), x(&[4])], 1),
        (Op::RmsNorm { axis: -1, epsilon: 1e-3 }, vec![x(&[2, 3, 4]), x(&[4])], 1),
        (Op::RmsNorm { axis: 1, epsilon: 1e-3 }, vec![x(&[2, 3, 4]), x(&[3, 4])], 1),
        (Op::LpNorm { axis: 1, p: 2 }, vec![x(&[2, 3, 4])], 1),
        (Op::LpNorm { axis: -1, p: 1 }, vec![x(&[2, 5])], 1),
        (Op::MeanVarianceNorm { axes: vec![0, 2] }, vec![x(&[2, 3, 4])], 1),
    ]
}

fn running() -> Vec<Case> {
    let mut cases = Vec::new();
    for (product, exclusive, reverse) in
        [(false, false, false), (false, true, false), (false, true, true), (true, false, true), (true, true, false)]
    {
        let op = Op::Cumulate { product, exclusive, reverse };
        cases.push((op, vec![x(&[2, 4, 2]), typed(&[], &[1.0])], 1));
    }
    cases
}

fn norm_pools() -> Vec<Case> {
    let pool = |p| Op::LpPool { window: window(&[2, 3], &[1, 2], &[], pads(&[0, 1, 1, 1])), ceil_mode: false, p };
    vec![
        (pool(1), vec![x(&[1, 2, 4, 5])], 1),
        (pool(2), vec![x(&[1, 2, 4, 5])], 1),
        (pool(3), vec![x(&[1, 2, 4, 5])], 1),
        (Op::GlobalLpPool { p: 2 }, vec![x(&[2, 3, 2, 2])], 1),
    ]
}

fn placed() -> Vec<Case> {
    let mut cases = vec![
        (Op::GatherNd { batch_dims: 0 }, vec![x(&[2, 3, 2]), typed(&[3, 2], &[0.0, 1.0, 1.0, -1.0, 0.0, 1.0])], 1),
        (Op::GatherNd { batch_dims: 1 }, vec![x(&[2, 3, 2]), typed(&[2, 1], &[2.0, 0.0])], 1),
        (Op::Compress { axis: Some(1) }, vec![x(&[2, 3]), In::Typed(DType::Bool, &[3], &[1.0, 0.0, 1.0])], 1),
        (Op::Compress { axis: None }, vec![x(&[2, 3]), In::Typed(DType::Bool, &[4], &[0.0, 1.0, 1.0, 1.0])], 1),
        (Op::TopK { axis: 1, largest: true, sorted: true }, vec![x(&[2, 5, 2]), In::Ints(&[3])], 1),
        (Op::TopK { axis: -1, largest: false, sorted: true }, vec![x(&[2, 5]), In::Ints(&[2])], 1),
        (Op::Trilu { upper: true }, vec![x(&[2, 3, 4]), typed(&[], &[1.0])], 1),
        (Op::Trilu { upper: false }, vec![x(&[3, 3])], 1),
        (Op::ReverseSequence { batch_axis: 0, time_axis: 1 }, vec![x(&[2, 3, 2]), In::Ints(&[3, 2])], 1),
        (Op::ReverseSequence { batch_axis: 1, time_axis: 0 }, vec![x(&[3, 2]), In::Ints(&[1, 3])], 1),
    ];
    for reduction in [Scatter::Replace, Scatter::Add, Scatter::Mul, Scatter::Max, Scatter::Min] {
        let op = Op::ScatterElements { axis: 1, reduction };
        cases.push((op, vec![x(&[2, 4]), typed(&[2, 3], &[0.0, 1.0, 1.0, -1.0, 3.0, 0.0]), x(&[2, 3])], 1));
        let op = Op::ScatterNd { reduction };
        cases.push((op, vec![x(&[3, 2, 2]), typed(&[3, 1], &[2.0, 0.0, 2.0]), x(&[3, 2, 2])], 1));
    }
    cases
}

fn sums_of_products() -> Vec<Case> {
    let op = |equation: &str| Op::Einsum { equation: equation.to_string() };
    vec![
        (op("ij, jk -> ik"), vec![x(&[2, 3]), x(&[3, 4])], 1),
        (op("bhqd,bhkd->bhqk"), vec![x(&[1, 2, 3, 2]), x(&[1, 2, 4, 2])], 1),
        (op("...ij,...jk"), vec![x(&[2, 1, 2, 3]), x(&[4, 3, 2])], 1),
        (op("ii->i"), vec![x(&[3, 3])], 1),
        (op("ij,ij,j->"), vec![x(&[2, 3]), x(&[2, 3]), x(&[3])], 1),
        (Op::Det, vec![x(&[2, 3, 3])], 1),
    ]
}

fn samples() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [Sampling::Linear, Sampling::Cubic] {
        for padding in [Outside::Zeros, Outside::Border, Outside::Reflection] {
            for align_corners in [false, true] {
                let op = Op::GridSample { mode, padding, align_corners };
                cases.push((op, vec![x(&[2, 2, 4, 3]), In::Noise(&[2, 2, 3, 2], 1.4, 0.1)], 1));
            }
        }
    }
    let op = Op::GridSample { mode: Sampling::Linear, padding: Outside::Zeros, align_corners: false };
    cases.push((op, vec![x(&[1, 1, 2, 3, 2]), In::Noise(&[1, 1, 2, 2, 3], 0.9, 0.0)], 1));
    let rois = || In::Typed(DType::F32, &[2, 4], &[0.0, 0.0, 3.0, 2.5, 1.0, 0.5, 4.0, 4.0]);
    for (max, half_pixel) in [(false, true), (true, false)] {
        let op = Op::RoiAlign { size: [2, 2], sampling_ratio: 2, spatial_scale: 0.9, max, half_pixel };
        cases.push((op, vec![x(&[2, 2, 5, 5]), rois(), In::Ints(&[1, 0])], 1));
    }
    cases
}

fn attentions() -> Vec<Case> {
    let plain =
        Attention { causal: false, q_heads: 0, kv_heads: 0, scale: None, softcap: 0.0, product: 0, window: [-1, -1] };
    let q = || x(&[2, 4, 3, 2]);
    let with = |change: &dyn Fn(&mut Attention)| {
        let mut a = plain.clone();
        change(&mut a);
        Op::Attention(a)
    };
    let (k, v) = (|| x(&[2, 2, 5, 2]), || x(&[2, 2, 5, 3]));
    vec![
        (Op::Attention(plain.clone()), vec![q(), k(), v()], 1),
        (with(&|a| (a.softcap, a.scale) = (1.5, Some(0.7))), vec![q(), k(), v(), x(&[4, 3, 5])], 1),
        (with(&|a| (a.causal, a.window) = (true, [1, 0])), vec![q(), k(), v(), x(&[3, 4])], 1),
        (
            with(&|a| (a.q_heads, a.kv_heads, a.causal) = (2, 1, true)),
            vec![x(&[1, 3, 4]), x(&[1, 2, 2]), x(&[1, 2, 2]), In::Absent, x(&[1, 1, 2, 2]), x(&[1, 1, 2, 2])],
            3,
        ),
    ]
}

fn rotations() -> Vec<Case> {
    let op = |interleaved, heads, dim| Op::RotaryEmbedding { interleaved, heads, dim };
    vec![
        (op(false, 0, 0), vec![x(&[2, 2, 3, 4]), x(&[2, 3, 2]), x(&[2, 3, 2])], 1),
        (op(true, 2, 2), vec![x(&[1, 3, 8]), x(&[5, 1]), x(&[5, 1]), typed(&[1, 3], &[4.0, 0.0, 4.0])], 1),
    ]
}

#[test]
fn more_normalization_gradients() {
    norms().iter().chain(&running()).for_each(check);
}

#[test]
fn norm_pool_gradients() {
    norm_pools().iter().for_each(check);
}

#[test]
fn gradients_of_elements_at_named_places() {
    placed().iter().for_each(check);
}

#[test]
fn einsum_and_determinant_gradients() {
    sums_of_products().iter().for_each(check);
}

#[test]
fn sample_gradients() {
    samples().iter().for_each(check);
}

#[test]
fn attention_gradients() {
    attentions().iter().chain(&rotations()).for_each(check);
}

//! How the samples of a batch may be put together around an operator. A program describes one sample; a device that
//! runs several at once decides by this how far an operator may see them as one array.

use crate::graph::Op;

/// How samples may be put together around an operator. A device may always do less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batching {
    /// Element by element: the elements of all samples in one array, in any order that is the same for all operands and
    /// results. Each operand that all samples share is a single number that is not learned.
    Elements,
    /// Samples one after the other along axis 0, each with as many elements of it as a sample has (mostly 1): operands
    /// stacked so give results stacked so, to the bit. Operands that all samples share stay as they are.
    Stacked,
    /// One sample after the other.
    Single,
}

/// An operand, as the rules see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'a> {
    /// Dimensions for one sample.
    pub shape: &'a [usize],
    /// Whether all samples have one content.
    pub shared: bool,
    /// Whether a gradient must reach it.
    pub learned: bool,
    /// Its content, if known.
    pub constant: Option<&'a [f32]>,
}

/// Channels of a value of one sample that a device may keep in front of the samples: axis 1 of images and volumes
/// (rank 4 or more, 1 along axis 0), else a single one.
pub(super) fn channels_in_front(shape: &[usize]) -> usize {
    if shape.len() >= 4 && shape[0] == 1 { shape[1].max(1) } else { 1 }
}

/// The rule for `op` with these operands and results, given by their shapes for one sample.
pub(super) fn batching(op: &Op, operands: &[Option<Operand>], results: &[Option<&[usize]>]) -> Batching {
    let call = Call { operands, results };
    if maps(op) && call.element_by_element() {
        return Batching::Elements;
    }
    if call.axis_0_stays() && call.stacks(op) { Batching::Stacked } else { Batching::Single }
}

/// Whether every element of the result comes from one element of each operand, up to broadcasting.
fn maps(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Clip
            | Op::Cast { .. }
            | Op::Identity
            | Op::QuantizeLinear { .. }
            | Op::DequantizeLinear { .. }
            | Op::Quant { .. }
    )
}

/// An operator's operands and results.
struct Call<'a> {
    operands: &'a [Option<Operand<'a>>],
    results: &'a [Option<&'a [usize]>],
}

impl<'a> Call<'a> {
    fn operand(&self, i: usize) -> Option<Operand<'a>> {
        self.operands.get(i).copied().flatten()
    }

    /// Operands that differ from sample to sample.
    fn own(&self) -> impl Iterator<Item = Operand<'a>> {
        self.operands.iter().copied().flatten().filter(|o| !o.shared)
    }

    /// Whether only operand 0 differs from sample to sample.
    fn only_first(&self) -> bool {
        self.operand(0).is_some_and(|x| !x.shared) && self.own().count() == 1
    }

    /// Each operand in the result's shape, or a shared number that is not learned.
    fn element_by_element(&self) -> bool {
        let (Some(x), [Some(y)]) = (self.operand(0), self.results) else { return false };
        let fits = |o: &Operand| match o.shared {
            true => o.shape.iter().product::<usize>() == 1 && !o.learned,
            false => o.shape == x.shape,
        };
        !x.shared && *y == x.shape && self.operands.iter().flatten().all(fits)
    }

    /// Whether all results, and all operands that are not shared, have as many elements along axis 0.
    fn axis_0_stays(&self) -> bool {
        let firsts = self.own().map(|o| o.shape.first());
        let mut all = firsts.chain(self.results.iter().flatten().map(|y| y.first()));
        match all.next() {
            Some(Some(first)) if self.own().count() > 0 => all.all(|other| other == Some(first)),
            _ => false,
        }
    }

    /// Whether no operand is broadcast along axis 0 except those that all samples share.
    fn broadcasts_behind_axis_0(&self) -> bool {
        let [Some(y)] = self.results else { return false };
        let fits = |o: &Operand| match o.shared {
            true => o.shape.len() < y.len() || (o.shape.len() == y.len() && o.shape[0] == 1),
            false => o.shape.len() == y.len(),
        };
        self.operands.iter().flatten().all(fits)
    }

    /// Whether `axis` of operand `i` exists and is not axis 0.
    fn behind(&self, i: usize, axis: i64) -> bool {
        let rank = self.operand(i).map_or(0, |o| o.shape.len() as i64);
        (1..rank).contains(&if axis < 0 { axis + rank } else { axis })
    }

    /// The known integers of a shared operand.
    fn integers(&self, i: usize) -> Option<Vec<i64>> {
        self.operand(i).filter(|o| o.shared)?.constant.map(|c| c.iter().map(|&v| v as i64).collect())
    }

    /// Whether operand `i` lists axes of operand 0, none of which is axis 0.
    fn lists_axes_behind(&self, i: usize) -> bool {
        self.integers(i).is_some_and(|axes| !axes.is_empty() && axes.iter().all(|&a| self.behind(0, a)))
    }

    /// The rule of each operator whose axis 0 stays as it is.
    fn stacks(&self, op: &Op) -> bool {
        let one = self.results.len() == 1;
        match op {
            Op::Conv { .. } | Op::ConvTranspose { .. } => self.only_first(),
            Op::MatMul | Op::Gemm { .. } => self.product_stacks(op),
            Op::BatchNorm { .. } | Op::InstanceNorm { .. } | Op::GroupNorm { .. } | Op::Lrn { .. } => {
                self.only_first() && one
            }
            Op::LayerNorm { axis, .. } | Op::RmsNorm { axis, .. } => {
                let scales = self.operands.iter().flatten().skip(1);
                let rank = self.operand(0).map_or(0, |x| x.shape.len());
                self.only_first() && one && self.behind(0, *axis) && scales.into_iter().all(|s| s.shape.len() < rank)
            }
            Op::LpNorm { axis, .. } | Op::Softmax { axis, .. } | Op::Hardmax { axis } | Op::ArgReduce { axis, .. } => {
                self.behind(0, *axis)
            }
            Op::MeanVarianceNorm { axes } => !axes.is_empty() && axes.iter().all(|&a| self.behind(0, a)),
            Op::Cumulate { .. } | Op::Reduce { .. } | Op::Squeeze => self.only_first() && self.lists_axes_behind(1),
            // The second result of MaxPool counts through all images.
            Op::MaxPool { .. } | Op::AveragePool { .. } | Op::LpPool { .. } => one,
            Op::GlobalAveragePool | Op::GlobalMaxPool | Op::GlobalLpPool { .. } => true,
            Op::Binary(_) | Op::Variadic(_) | Op::Where | Op::Clip => self.broadcasts_behind_axis_0(),
            _ => self.movement_stacks(op),
        }
    }

    fn product_stacks(&self, op: &Op) -> bool {
        let (Some(a), Some(b)) = (self.operand(0), self.operand(1)) else { return false };
        let ranks = (a.shape.len(), b.shape.len());
        match op {
            Op::Gemm { trans_a, .. } => {
                let row = |c: Operand| c.shape.len() < 2 || c.shape[0] == 1;
                !trans_a && self.only_first() && self.operand(2).is_none_or(row)
            }
            _ => match (a.shared, b.shared) {
                (false, true) => ranks.0 >= 2 && ranks.1 == 2,
                (true, false) => ranks.0 == 2 && ranks.1 >= 3,
                (false, false) => ranks.0 == ranks.1 && ranks.0 >= 3,
                (true, true) => false,
            },
        }
    }

    /// Operators that move elements.
    fn movement_stacks(&self, op: &Op) -> bool {
        let all_own = self.operands.iter().flatten().all(|o| !o.shared);
        match op {
            Op::Concat { axis } => all_own && self.behind(0, *axis),
            Op::Split { axis } => self.only_first() && self.behind(0, *axis),
            Op::Transpose { perm } => perm.first() == Some(&0),
            Op::Slice => self.only_first() && self.lists_axes_behind(3),
            // Target 0 takes the size of the operand.
            Op::Reshape { allowzero } => {
                !allowzero && self.only_first() && self.integers(1).is_some_and(|to| to.first() == Some(&0))
            }
            Op::Flatten { axis } => *axis == 1,
            Op::Unsqueeze => {
                self.only_first() && self.integers(1).is_some_and(|axes| axes.iter().all(|&axis| axis > 0))
            }
            Op::Gather { axis } => match (self.operand(0), self.operand(1)) {
                (Some(data), Some(indices)) if !data.shared => indices.shared && self.behind(0, *axis),
                (Some(_), Some(indices)) => !indices.shared && *axis == 0,
                _ => false,
            },
            Op::GatherElements { axis } => all_own && self.behind(0, *axis),
            Op::DepthToSpace { .. } | Op::SpaceToDepth { .. } => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::{self, Array, View};
    use crate::engine::philox::Stream;
    use crate::graph::testing::window;
    use crate::graph::{Binary, PadMode, Reduction, Unary, Variadic};
    use crate::tensor::DType;

    /// Samples that are put together.
    const SAMPLES: usize = 3;

    /// An operand of a case.
    enum In {
        /// Noise, other in every sample, of this shape.
        Own(&'static [usize]),
        /// Indices below the first number, other in every sample, of this shape.
        Indices(usize, &'static [usize]),
        /// Booleans, other in every sample, of this shape.
        Bools(&'static [usize]),
        /// Noise that all samples share.
        Shared(&'static [usize]),
        /// The same, and a gradient must reach it.
        Learned(&'static [usize]),
        /// Integers that all samples share.
        Integers(&'static [i64]),
    }
    use In::*;

    /// The operand with the number `i` for every sample.
    fn arrays(i: usize, input: &In) -> Vec<Array<f32>> {
        let one = |sample: usize| {
            let noise = |n: usize, own: usize| Stream::new(7, i as u32, own as u32, 0).below(n, 1 << 20);
            let float = |shape: &[usize], own: usize| {
                let data = noise(shape.iter().product(), own).into_iter().map(|v| v as f32 / (1 << 19) as f32 - 0.9);
                Array { dtype: DType::F32, shape: shape.to_vec(), data: data.collect() }
            };
            match input {
                Own(shape) => float(shape, sample),
                Indices(bound, shape) => {
                    let data = noise(shape.iter().product(), sample).into_iter().map(|v| (v % bound) as f32);
                    Array { dtype: DType::I64, shape: shape.to_vec(), data: data.collect() }
                }
                Bools(shape) => {
                    let data = noise(shape.iter().product(), sample).into_iter().map(|v| (v % 2) as f32);
                    Array { dtype: DType::Bool, shape: shape.to_vec(), data: data.collect() }
                }
                Shared(shape) | Learned(shape) => float(shape, 0),
                Integers(list) => {
                    let data = list.iter().map(|&v| v as f32).collect();
                    Array { dtype: DType::I64, shape: vec![list.len()], data }
                }
            }
        };
        (0..SAMPLES).map(one).collect()
    }

    fn shared(input: &In) -> bool {
        !matches!(input, Own(_) | Indices(..) | Bools(_))
    }

    fn view(a: &Array<f32>) -> View<'_, f32> {
        View { dtype: a.dtype, shape: &a.shape, data: &a.data }
    }

    /// All samples as one array: stacked, or, `flat`, as one axis in which the order of samples is reversed.
    fn together(samples: &[Array<f32>], flat: bool) -> Array<f32> {
        let mut all = samples[0].clone();
        let data = samples.iter().map(|a| a.data.clone());
        all.data = if flat { data.rev().collect::<Vec<_>>() } else { data.collect() }.concat();
        match flat {
            true => all.shape = vec![all.data.len()],
            false => all.shape[0] *= SAMPLES,
        }
        all
    }

    /// Results, and gradients to the operands that are not shared for gradients of the results that are made of results.
    fn run(op: &Op, operands: &[Array<f32>], own: &[bool], count: usize) -> (Vec<Array<f32>>, Vec<Option<Vec<f32>>>) {
        let views: Vec<_> = operands.iter().map(|a| Some(view(a))).collect();
        let results = ops::forward(op, &views, count).unwrap();
        let up: Vec<Vec<f32>> = results.iter().map(|r| r.data.iter().map(|v| v * 0.7 + 0.1).collect()).collect();
        let up: Vec<Option<&[f32]>> =
            up.iter().zip(&results).map(|(g, r)| r.dtype.is_float().then_some(g.as_slice())).collect();
        let seen: Vec<_> = results.iter().map(view).collect();
        let gradients = match ops::has_gradient(op) {
            true => ops::backward(op, &views, &seen, &up, own).unwrap(),
            false => Vec::new(),
        };
        (results, gradients)
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    /// Compares `op` on all samples at once with one after the other, as its rule, which is `want`, allows.
    fn check(op: Op, inputs: &[In], count: usize, want: Batching) {
        let samples: Vec<Vec<Array<f32>>> = inputs.iter().enumerate().map(|(i, input)| arrays(i, input)).collect();
        let own: Vec<bool> = inputs.iter().map(|i| !shared(i)).collect();
        let each: Vec<_> = (0..SAMPLES)
            .map(|sample| run(&op, &samples.iter().map(|s| s[sample].clone()).collect::<Vec<_>>(), &own, count))
            .collect();
        let operands: Vec<_> = (inputs.iter().zip(&samples))
            .map(|(input, s)| {
                let constant = (shared(input) && !matches!(input, Learned(_))).then_some(s[0].data.as_slice());
                let learned = matches!(input, Learned(_) | Own(_));
                Some(Operand { shape: &s[0].shape, shared: shared(input), learned, constant })
            })
            .collect();
        let results: Vec<_> = each[0].0.iter().map(|r| Some(r.shape.as_slice())).collect();
        let rule = batching(&op, &operands, &results);
        assert_eq!(rule, want, "{op:?}");
        let flat = match rule {
            Batching::Elements => true,
            Batching::Stacked => false,
            Batching::Single => return,
        };
        let all: Vec<_> = (inputs.iter().zip(&samples))
            .map(|(input, s)| if shared(input) { s[0].clone() } else { together(s, flat) })
            .collect();
        let (got, slopes) = run(&op, &all, &own, count);
        for (k, got) in got.iter().enumerate() {
            let want: Vec<_> = each.iter().map(|e| e.0[k].clone()).collect();
            let want = together(&want, flat);
            assert_eq!((&got.shape, bits(&got.data)), (&want.shape, bits(&want.data)), "{op:?}");
        }
        for (k, got) in slopes.iter().enumerate() {
            let Some(got) = got else { continue };
            let parts = each.iter().map(|e| e.1[k].clone().unwrap());
            let want = if flat { parts.rev().collect::<Vec<_>>() } else { parts.collect() }.concat();
            assert_eq!(bits(got), bits(&want), "gradient {k} of {op:?}");
        }
    }

    #[test]
    fn elements_in_any_order() {
        let same = &[Own(&[1, 3, 2, 2]), Own(&[1, 3, 2, 2])];
        for op in [Binary::Add, Binary::Mul, Binary::Div, Binary::PRelu, Binary::Less] {
            check(Op::Binary(op), same, 1, Batching::Elements);
        }
        for op in [Unary::Relu, Unary::Exp, Unary::Gelu { tanh: true }, Unary::Round] {
            check(Op::Unary(op), &[Own(&[1, 5, 2])], 1, Batching::Elements);
        }
        check(Op::Binary(Binary::Sub), &[Own(&[1, 6]), Shared(&[])], 1, Batching::Elements);
        check(Op::Clip, &[Own(&[2, 4]), Shared(&[]), Shared(&[])], 1, Batching::Elements);
        check(Op::Cast { to: DType::I32 }, &[Own(&[1, 4])], 1, Batching::Elements);
        check(Op::Identity, &[Own(&[1, 4])], 1, Batching::Elements);
        // The gradient of a single number is a sum over each sample.
        check(Op::Binary(Binary::Mul), &[Own(&[1, 6]), Learned(&[1])], 1, Batching::Stacked);
    }

    #[test]
    fn products_are_stacked_with_shared_weights() {
        let conv = || Op::Conv { window: window(vec![1; 4]), group: 1 };
        check(conv(), &[Own(&[1, 2, 5, 4]), Learned(&[3, 2, 3, 3]), Shared(&[3])], 1, Batching::Stacked);
        check(conv(), &[Own(&[4, 2, 5, 4]), Shared(&[3, 2, 3, 3])], 1, Batching::Stacked);
        check(conv(), &[Own(&[1, 2, 5, 4]), Own(&[3, 2, 3, 3])], 1, Batching::Single);
        let transposed =
            Op::ConvTranspose { window: window(vec![1; 4]), group: 1, output_padding: vec![], output_shape: vec![] };
        check(transposed, &[Own(&[1, 2, 5, 4]), Shared(&[2, 3, 3, 3])], 1, Batching::Stacked);
        check(Op::MatMul, &[Own(&[1, 4]), Learned(&[4, 3])], 1, Batching::Stacked);
        check(Op::MatMul, &[Own(&[2, 3, 4]), Shared(&[4, 3])], 1, Batching::Stacked);
        check(Op::MatMul, &[Own(&[2, 3, 4]), Own(&[2, 4, 3])], 1, Batching::Stacked);
        check(Op::MatMul, &[Shared(&[3, 4]), Own(&[2, 4, 3])], 1, Batching::Stacked);
        check(Op::MatMul, &[Own(&[3, 4]), Own(&[4, 3])], 1, Batching::Single);
        check(Op::MatMul, &[Own(&[1, 4]), Shared(&[2, 4, 3])], 1, Batching::Single);
        let gemm = |trans_a| Op::Gemm { alpha: 1.0, beta: 0.5, trans_a, trans_b: true };
        check(gemm(false), &[Own(&[1, 4]), Shared(&[3, 4]), Shared(&[3])], 1, Batching::Stacked);
        check(gemm(false), &[Own(&[2, 4]), Shared(&[3, 4]), Shared(&[2, 3])], 1, Batching::Single);
        check(gemm(true), &[Own(&[4, 4]), Shared(&[3, 4]), Shared(&[3])], 1, Batching::Single);
    }

    #[test]
    fn what_works_within_an_element_of_axis_0_is_stacked() {
        let image = || Own(&[1, 4, 4, 6]);
        let pool = |count_include_pad| Op::AveragePool { window: sized(), ceil_mode: false, count_include_pad };
        check(pool(true), &[image()], 1, Batching::Stacked);
        check(pool(false), &[image()], 1, Batching::Stacked);
        check(Op::MaxPool { window: sized(), ceil_mode: true }, &[image()], 1, Batching::Stacked);
        check(Op::MaxPool { window: sized(), ceil_mode: true }, &[image()], 2, Batching::Single);
        check(Op::GlobalAveragePool, &[image()], 1, Batching::Stacked);
        check(Op::GlobalMaxPool, &[image()], 1, Batching::Stacked);
        check(Op::InstanceNorm { epsilon: 1e-3 }, &[image(), Shared(&[4]), Shared(&[4])], 1, Batching::Stacked);
        let norm = Op::GroupNorm { groups: 2, epsilon: 1e-3 };
        check(norm, &[image(), Shared(&[4]), Shared(&[4])], 1, Batching::Stacked);
        check(Op::Lrn { alpha: 0.3, beta: 0.75, bias: 1.5, size: 3 }, &[image()], 1, Batching::Stacked);
        check(Op::DepthToSpace { block: 2, dcr: true }, &[image()], 1, Batching::Stacked);
        check(Op::SpaceToDepth { block: 2 }, &[image()], 1, Batching::Stacked);
        let tokens = || Own(&[2, 3, 4]);
        let norm = |axis| Op::LayerNorm { axis, epsilon: 1e-3 };
        check(norm(-1), &[tokens(), Learned(&[4]), Shared(&[4])], 1, Batching::Stacked);
        check(norm(1), &[tokens(), Shared(&[3, 4])], 1, Batching::Stacked);
        check(norm(0), &[tokens(), Shared(&[2, 3, 4])], 1, Batching::Single);
        check(Op::RmsNorm { axis: -1, epsilon: 1e-3 }, &[tokens(), Shared(&[4])], 1, Batching::Stacked);
        check(Op::LpNorm { axis: 1, p: 2 }, &[tokens()], 1, Batching::Stacked);
        check(Op::MeanVarianceNorm { axes: vec![1, -1] }, &[tokens()], 1, Batching::Stacked);
        check(Op::MeanVarianceNorm { axes: vec![0, 2] }, &[tokens()], 1, Batching::Single);
        for (axis, rule) in [(-1, Batching::Stacked), (1, Batching::Stacked), (-3, Batching::Single)] {
            check(Op::Softmax { axis, log: axis == 1 }, &[tokens()], 1, rule);
            check(Op::Hardmax { axis }, &[tokens()], 1, rule);
            let arg = Op::ArgReduce { largest: true, axis, keepdims: true, select_last_index: false };
            check(arg, &[tokens()], 1, rule);
        }
        let sum = |keepdims| Op::Reduce { kind: Reduction::Sum, keepdims, noop_with_empty_axes: false };
        check(sum(false), &[tokens(), Integers(&[1, -1])], 1, Batching::Stacked);
        check(sum(true), &[tokens(), Integers(&[2])], 1, Batching::Stacked);
        check(sum(true), &[tokens(), Integers(&[0, 2])], 1, Batching::Single);
        check(sum(true), &[tokens()], 1, Batching::Single);
        let cumulate = Op::Cumulate { product: false, exclusive: true, reverse: false };
        check(cumulate, &[tokens(), Integers(&[1])], 1, Batching::Stacked);
    }

    #[test]
    fn operands_are_broadcast_behind_axis_0() {
        let tokens = || Own(&[2, 3, 4]);
        check(Op::Binary(Binary::Add), &[tokens(), Learned(&[4])], 1, Batching::Stacked);
        check(Op::Binary(Binary::Mul), &[tokens(), Own(&[2, 1, 4])], 1, Batching::Stacked);
        check(Op::Binary(Binary::Mul), &[tokens(), Shared(&[1, 3, 1])], 1, Batching::Stacked);
        check(Op::Binary(Binary::Mul), &[tokens(), Shared(&[2, 3, 1])], 1, Batching::Single);
        check(Op::Binary(Binary::Add), &[tokens(), Own(&[3, 4])], 1, Batching::Single);
        check(Op::Binary(Binary::Add), &[tokens(), Own(&[1, 3, 4])], 1, Batching::Single);
        check(Op::Variadic(Variadic::Mean), &[tokens(), Own(&[2, 1, 1]), Shared(&[4])], 1, Batching::Stacked);
        check(Op::Where, &[Bools(&[2, 3, 1]), tokens(), Shared(&[4])], 1, Batching::Stacked);
    }

    #[test]
    fn movements_that_leave_axis_0_are_stacked() {
        let tokens = || Own(&[2, 3, 4]);
        check(Op::Concat { axis: -1 }, &[tokens(), Own(&[2, 3, 1])], 1, Batching::Stacked);
        check(Op::Concat { axis: 0 }, &[tokens(), tokens()], 1, Batching::Single);
        check(Op::Split { axis: 2 }, &[tokens()], 2, Batching::Stacked);
        check(Op::Transpose { perm: vec![0, 2, 1] }, &[tokens()], 1, Batching::Stacked);
        check(Op::Transpose { perm: vec![] }, &[tokens()], 1, Batching::Single);
        let slice = |axis| [tokens(), Integers(&[0]), Integers(&[2]), Integers(axis)];
        check(Op::Slice, &slice(&[1]), 1, Batching::Stacked);
        check(Op::Slice, &slice(&[0]), 1, Batching::Single);
        let reshape = || Op::Reshape { allowzero: false };
        check(reshape(), &[tokens(), Integers(&[0, -1])], 1, Batching::Stacked);
        check(reshape(), &[tokens(), Integers(&[-1, 4])], 1, Batching::Single);
        check(Op::Flatten { axis: 1 }, &[tokens()], 1, Batching::Stacked);
        check(Op::Squeeze, &[Own(&[1, 1, 3]), Integers(&[1])], 1, Batching::Stacked);
        check(Op::Unsqueeze, &[tokens(), Integers(&[2])], 1, Batching::Stacked);
        check(Op::Gather { axis: 1 }, &[tokens(), Integers(&[2, 0])], 1, Batching::Stacked);
        check(Op::Gather { axis: 0 }, &[Learned(&[5, 2]), Indices(5, &[1, 3])], 1, Batching::Stacked);
        check(Op::Gather { axis: 1 }, &[tokens(), Indices(3, &[2, 2])], 1, Batching::Single);
        check(Op::GatherElements { axis: 1 }, &[tokens(), Indices(3, &[2, 2, 4])], 1, Batching::Stacked);
        let pad = Op::Pad { mode: PadMode::Constant };
        check(pad, &[tokens(), Integers(&[0, 1, 0, 0, 0, 0])], 1, Batching::Single);
    }

    /// A window of 2 by 2.
    fn sized() -> crate::graph::Window {
        crate::graph::Window { kernel: vec![2, 2], strides: vec![2, 2], ..window(vec![0; 4]) }
    }

    #[test]
    fn images_may_have_their_channels_in_front() {
        assert_eq!(channels_in_front(&[1, 5, 4, 4]), 5);
        assert_eq!(channels_in_front(&[2, 5, 4, 4]), 1);
        assert_eq!(channels_in_front(&[1, 5, 4]), 1);
        assert_eq!(channels_in_front(&[1, 0, 4, 4]), 1);
    }
}

//! The fused form of a program: its steps as the few operations that a device has kernels for. Convolutions, products
//! with a weight, and passes (sum, activation function, fake quantization and dropping in one) are recognised; every
//! other step stays as it is. Nothing here depends on a device.

use super::batching::{Batching, Operand, batching, channels_in_front};
use super::ops::conv::geometry;
use super::ops::window::Axis;
use super::program::{Program, ProgramSite, Step};
use crate::error::Result;
use crate::graph::{Binary, Op, Unary};

/// What runs in place of one step or several. Numbers are slots unless said otherwise; `w` and `bias` are shared by all
/// samples, all other slots are not.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// y = conv(x, w) + bias, x: [frames, groups·IC, ...], w: [groups·OC, IC, ...].
    Convolution { conv: Convolution, frames: usize, x: usize, w: usize, bias: Option<usize>, y: usize },
    /// The same of one filter a channel over rows and columns, x: [frames, C, ...], w: [C, 1, ...].
    Depthwise { axes: [Axis; 2], frames: usize, x: usize, w: usize, bias: Option<usize>, y: usize },
    /// y = x·w + bias for x of `rows` rows of `k` elements a sample; w is [k, n], or [n, k] when `transposed`.
    Dense { rows: usize, k: usize, n: usize, transposed: bool, x: usize, w: usize, bias: Option<usize>, y: usize },
    /// y = drop(quantize(act(x + other))), element by element.
    Pass { act: Act, site: Option<ProgramSite>, x: usize, other: Option<usize>, y: usize, mask: MaskIndex },
    /// The operator of a step of the program, as [`super::ops`] defines it.
    Node { step: usize, batching: Batching },
}

/// Sizes of a grouped convolution over up to three axes; one of fewer axes has [`Axis::ONE`] in front.
#[derive(Debug, Clone)]
pub(super) struct Convolution {
    /// Depth, rows and columns.
    pub axes: [Axis; 3],
    pub groups: usize,
    /// Input channels of a group.
    pub ic: usize,
    /// Output channels of a group.
    pub oc: usize,
}

impl Convolution {
    /// Elements of the kernel.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.kernel).product()
    }

    /// Elements of one channel of one image: input, output.
    pub fn planes(&self) -> (usize, usize) {
        (self.axes.iter().map(|a| a.input).product(), self.axes.iter().map(|a| a.output).product())
    }

    /// Whether it is a product of the weight with x itself.
    pub fn pointwise(&self) -> bool {
        self.axes.iter().all(|a| a.kernel == 1 && a.stride == 1 && a.begin == 0 && a.end == 0)
    }

    /// Multiply-adds of the forward pass of one image.
    pub fn multiply_adds(&self) -> f64 {
        (self.groups * self.oc * self.ic * self.taps() * self.planes().1) as f64
    }
}

/// Activation function of a pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Act {
    None,
    /// max(x, 0).
    Relu,
    /// x between two bounds.
    Clip(f32, f32),
}

impl Act {
    /// NaN stays NaN.
    #[inline(always)]
    pub fn apply(self, v: f32) -> f32 {
        let least = |v: f32, low: f32| if low > v { low } else { v };
        match self {
            Act::None => v,
            Act::Relu => least(v, 0.0),
            Act::Clip(low, high) => match least(v, low) {
                v if high < v => high,
                v => v,
            },
        }
    }

    /// Whether the gradient passes at v.
    #[inline(always)]
    pub fn open(self, v: f32) -> bool {
        match self {
            Act::None => true,
            Act::Relu => v > 0.0,
            Act::Clip(low, high) => (v >= low) & (v <= high),
        }
    }
}

/// Number of a pass among the passes: each has a mask, with a site or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MaskIndex(pub usize);

/// A program in fused form.
#[derive(Debug)]
pub(super) struct Fused<'a> {
    pub program: &'a Program,
    /// In the order in which they run; the backward pass takes them in reverse.
    pub operations: Vec<Operation>,
}

impl<'a> Fused<'a> {
    /// Recognises the operations of `program`.
    pub fn new(program: &'a Program) -> Result<Self> {
        let mut builder = Builder {
            program,
            readers: program.readers(),
            reader: reader(program),
            sums: sums(program),
            waiting: vec![None; program.slots.len()],
            operations: vec![],
            passes: 0,
        };
        for i in 0..program.steps.len() {
            builder.step(i)?;
        }
        Ok(Fused { program, operations: builder.operations })
    }

    /// Elements of the mask of every pass, for one sample.
    pub fn masks(&self) -> Vec<usize> {
        let of = |operation: &Operation| match operation {
            Operation::Pass { y, .. } => Some(self.program.slots[*y].numel()),
            _ => None,
        };
        self.operations.iter().filter_map(of).collect()
    }

    /// Slots that an operation reads and writes for every sample by itself.
    pub fn touched(&self, operation: &Operation) -> (Vec<usize>, Vec<usize>) {
        let (mut reads, mut writes) = match operation {
            Operation::Convolution { x, y, .. } | Operation::Depthwise { x, y, .. } | Operation::Dense { x, y, .. } => {
                (vec![*x], vec![*y])
            }
            Operation::Pass { x, other, y, .. } => (std::iter::once(*x).chain(*other).collect(), vec![*y]),
            Operation::Node { step, .. } => match &self.program.steps[*step] {
                Step::Node { operands, results, .. } => {
                    (operands.iter().flatten().copied().collect(), results.iter().flatten().copied().collect())
                }
                Step::Site { .. } => (vec![], vec![]),
            },
        };
        reads.retain(|&s| !self.program.shared(s));
        writes.retain(|&s| !self.program.shared(s));
        (reads, writes)
    }

    /// [`Device::operations`](super::device::Device::operations): of convolutions and dense products.
    pub fn products(&self) -> f64 {
        let slots = &self.program.slots;
        let passes = |x: usize, w: usize| {
            let learned = |slot: usize| f64::from(u8::from(slots[slot].learned));
            1.0 + learned(x) + learned(w)
        };
        let one = |operation: &Operation| match operation {
            Operation::Convolution { conv, frames, x, w, .. } => *frames as f64 * conv.multiply_adds() * passes(*x, *w),
            Operation::Depthwise { axes, x, w, y, .. } => {
                let taps: usize = axes.iter().map(|a| a.kernel).product();
                (slots[*y].numel() * taps) as f64 * passes(*x, *w)
            }
            Operation::Dense { rows, k, n, x, w, .. } => (rows * k * n) as f64 * passes(*x, *w),
            _ => 0.0,
        };
        2.0 * self.operations.iter().map(one).sum::<f64>()
    }
}

/// A step that reads each slot.
fn reader(program: &Program) -> Vec<Option<usize>> {
    let mut reader = vec![None; program.slots.len()];
    for (i, step) in program.steps.iter().enumerate() {
        match step {
            Step::Node { operands, .. } => operands.iter().flatten().for_each(|&s| reader[s] = Some(i)),
            Step::Site { x, .. } => reader[*x] = Some(i),
        }
    }
    reader
}

/// Whether a sum of two gives each slot.
fn sums(program: &Program) -> Vec<bool> {
    let mut sums = vec![false; program.slots.len()];
    for step in &program.steps {
        if let Step::Node { op: Op::Binary(Binary::Add), results, .. } = step {
            results.first().copied().flatten().into_iter().for_each(|s| sums[s] = true);
        }
    }
    sums
}

/// How samples may be put together around a step's operator.
fn rule(program: &Program, op: &Op, operands: &[Option<usize>], results: &[Option<usize>]) -> Batching {
    let operand = |s: usize| {
        let slot = &program.slots[s];
        let constant = slot.constant.as_deref();
        Operand { shape: &slot.shape, shared: program.shared(s), learned: slot.learned, constant }
    };
    let operands: Vec<_> = operands.iter().map(|s| s.map(operand)).collect();
    let results: Vec<_> = results.iter().map(|s| s.map(|s| program.slots[s].shape.as_slice())).collect();
    batching(op, &operands, &results)
}

struct Builder<'a> {
    program: &'a Program,
    readers: Vec<usize>,
    reader: Vec<Option<usize>>,
    sums: Vec<bool>,
    /// Per slot: the sum or activation that gives it, if its only reader may take it over.
    waiting: Vec<Option<Partial>>,
    operations: Vec<Operation>,
    passes: usize,
}

/// A pass before its end is known.
#[derive(Debug, Clone, Copy)]
struct Partial {
    act: Act,
    x: usize,
    other: Option<usize>,
}

/// A node's operands, its one result, and how samples may be put together around it.
struct Node<'a> {
    operands: &'a [Option<usize>],
    y: usize,
    batching: Batching,
}

impl Node<'_> {
    fn operand(&self, i: usize) -> Option<usize> {
        self.operands.get(i).copied().flatten()
    }
}

impl Builder<'_> {
    fn scalar(&self, slot: Option<usize>, default: f32) -> Option<f32> {
        match slot {
            None => Some(default),
            Some(s) => match self.program.slots[s].constant.as_deref() {
                Some([v]) => Some(*v),
                _ => None,
            },
        }
    }

    fn step(&mut self, index: usize) -> Result<()> {
        let program = self.program;
        match &program.steps[index] {
            &Step::Site { site, x, y } => {
                let partial = self.waiting[x].take();
                let partial = partial.unwrap_or(Partial { act: Act::None, x, other: None });
                self.pass(partial, Some(site), y);
            }
            Step::Node { op, operands, results, .. } => {
                let batching = rule(program, op, operands, results);
                if let [Some(y)] = results[..] {
                    let node = Node { operands, y, batching };
                    if self.activation(op, &node) || self.convolution(op, &node)? || self.dense(op, &node) {
                        return Ok(());
                    }
                }
                self.operations.push(Operation::Node { step: index, batching });
            }
        }
        Ok(())
    }

    /// Sums and activation functions become passes; one whose result has a single reader waits for it.
    fn activation(&mut self, op: &Op, node: &Node) -> bool {
        let (Some(x), y) = (node.operand(0), node.y) else { return false };
        if self.program.shared(x) || !self.program.slots[x].dtype.is_float() {
            return false;
        }
        let partial = match op {
            Op::Binary(Binary::Add) => {
                let Some(other) = node.operand(1) else { return false };
                let same = self.program.slots[x].shape == self.program.slots[other].shape;
                if !same || self.program.shared(other) || other == x {
                    return false;
                }
                // The operand that nothing else reads may be overwritten.
                let (x, other) = if self.readers[x] > 1 && self.readers[other] == 1 { (other, x) } else { (x, other) };
                Partial { act: Act::None, x, other: Some(other) }
            }
            Op::Unary(Unary::Relu) => self.after(x, Act::Relu),
            Op::Clip => {
                let low = self.scalar(node.operand(1), f32::NEG_INFINITY);
                match (low, self.scalar(node.operand(2), f32::INFINITY)) {
                    (Some(low), Some(high)) if low <= high => self.after(x, Act::Clip(low, high)),
                    _ => return false,
                }
            }
            _ => return false,
        };
        if self.readers[y] == 1 && !self.program.outputs.contains(&y) && self.taken_over(y) {
            self.waiting[y] = Some(partial);
        } else {
            self.pass(partial, None, y);
        }
        true
    }

    /// The pass that applies `act` to `x`, with the sum that gives `x` where it waits.
    fn after(&mut self, x: usize, act: Act) -> Partial {
        match self.waiting[x].take() {
            Some(sum) => Partial { act, ..sum },
            None => Partial { act, x, other: None },
        }
    }

    /// Whether the only reader of `slot` is a site, or an activation function of a plain sum.
    fn taken_over(&self, slot: usize) -> bool {
        match self.reader[slot].map(|i| &self.program.steps[i]) {
            Some(Step::Site { .. }) => true,
            Some(Step::Node { op, operands, .. }) => {
                let scalar = |i: usize| self.scalar(operands.get(i).copied().flatten(), 0.0).is_some();
                let clip = matches!(op, Op::Clip) && scalar(1) && scalar(2);
                let function = clip || matches!(op, Op::Unary(Unary::Relu));
                function && self.sums[slot] && operands.first() == Some(&Some(slot))
            }
            None => false,
        }
    }

    fn pass(&mut self, partial: Partial, site: Option<ProgramSite>, y: usize) {
        let Partial { act, x, other } = partial;
        let mask = MaskIndex(self.passes);
        self.passes += 1;
        self.operations.push(Operation::Pass { act, site, x, other, y, mask });
    }

    fn convolution(&mut self, op: &Op, node: &Node) -> Result<bool> {
        let Op::Conv { .. } = op else { return Ok(false) };
        let (Some(x), Some(w)) = (node.operand(0), node.operand(1)) else { return Ok(false) };
        let (y, bias, slots) = (node.y, node.operand(2), &self.program.slots);
        let (xs, ws) = (&slots[x].shape, &slots[w].shape);
        if !(3..=5).contains(&xs.len()) || node.batching != Batching::Stacked {
            return Ok(false);
        }
        let (given, groups, outputs) = geometry(op, xs, ws)?;
        if slots[x].numel() == 0 || slots[y].numel() == 0 {
            return Ok(false);
        }
        let mut axes = [Axis::ONE; 3];
        axes[3 - given.len()..].copy_from_slice(&given);
        let frames = xs[0];
        self.operations.push(if groups == xs[1] && groups == outputs && groups > 1 && given.len() < 3 {
            Operation::Depthwise { axes: [axes[1], axes[2]], frames, x, w, bias, y }
        } else {
            let conv = Convolution { axes, groups, ic: xs[1] / groups, oc: outputs / groups };
            Operation::Convolution { conv, frames, x, w, bias, y }
        });
        Ok(true)
    }

    fn dense(&mut self, op: &Op, node: &Node) -> bool {
        let transposed = match op {
            Op::MatMul => false,
            Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b } => *trans_b,
            _ => return false,
        };
        let (Some(x), Some(w)) = (node.operand(0), node.operand(1)) else { return false };
        let (y, bias, slots) = (node.y, node.operand(2), &self.program.slots);
        let (xs, ws) = (&slots[x].shape, &slots[w].shape);
        if node.batching != Batching::Stacked || !self.program.shared(w) || ws.len() != 2 {
            return false;
        }
        // Rows of channels that may lie in front of the samples are no rows of one product.
        if channels_in_front(xs) != 1 || channels_in_front(&slots[y].shape) != 1 {
            return false;
        }
        let (k, n) = if transposed { (ws[1], ws[0]) } else { (ws[0], ws[1]) };
        // One element a column: a bias of one column has one a row.
        let plain = |b: usize| {
            let shape = &slots[b].shape;
            slots[b].numel() == n && shape.last().is_none_or(|&last| last == n)
        };
        if xs.last() != Some(&k) || k == 0 || !bias.is_none_or(plain) {
            return false;
        }
        let rows = slots[x].numel() / k;
        self.operations.push(Operation::Dense { rows, k, n, transposed, x, w, bias, y });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::facts;
    use crate::engine::program::{Region, compile};
    use crate::graph::ValueId;
    use crate::graph::testing::{Builder as Net, window};

    /// The operations of a network for one image of 4 channels and 6 by 6 elements, in short.
    fn operations(build: impl FnOnce(&mut Net, ValueId) -> (ValueId, Vec<ValueId>)) -> Vec<String> {
        let mut net = Net::new();
        let x = net.images(4, 6);
        let (y, sites) = build(&mut net, x);
        let facts = facts::infer(&net.graph, &[vec![1, 4, 6, 6]]).unwrap();
        let region = Region {
            nodes: net.graph.node_ids().collect(),
            inputs: vec![x],
            outputs: vec![y],
            sites: sites.into_iter().map(|s| (s, None)).collect(),
            ..Region::default()
        };
        let program = compile(&net.graph, &facts, &region).unwrap();
        let short = |operation: &Operation| match operation {
            Operation::Convolution { conv, .. } => format!("conv {} to {}", conv.ic, conv.oc),
            Operation::Depthwise { axes, .. } => format!("depthwise {}", axes[0].kernel),
            Operation::Dense { rows, k, n, .. } => format!("dense {rows} {k} {n}"),
            Operation::Pass { act, site, other, .. } => {
                format!("pass {act:?}{}{}", other.map_or("", |_| " sum"), site.map_or("", |_| " site"))
            }
            Operation::Node { batching, .. } => format!("{batching:?}"),
        };
        Fused::new(&program).unwrap().operations.iter().map(short).collect()
    }

    #[test]
    fn a_residual_block_is_convolutions_and_passes() {
        let found = operations(|net, x| {
            let a = net.conv_relu("a", x, 4, 4, 3);
            let b = net.conv("b", a, 4, 4, 3);
            let sum = net.binary(Binary::Add, b, x);
            let y = net.relu(sum);
            (y, vec![a, y])
        });
        assert_eq!(found, ["conv 4 to 4", "pass Relu site", "conv 4 to 4", "pass Relu sum site"]);
    }

    #[test]
    fn a_sum_with_two_readers_is_a_pass_of_its_own() {
        let found = operations(|net, x| {
            let a = net.conv("a", x, 4, 4, 1);
            let sum = net.binary(Binary::Add, a, x);
            let y = net.relu(sum);
            (net.binary(Binary::Mul, sum, y), vec![])
        });
        assert_eq!(found, ["conv 4 to 4", "pass None sum", "pass Relu", "Elements"]);
    }

    #[test]
    fn products_with_weights_are_dense_unless_channels_may_lie_in_front() {
        let found = operations(|net, x| {
            let w = net.constant("d.weight", &[4, 1, 3, 3]);
            let y = net.node(Op::Conv { window: window(vec![1; 4]), group: 4 }, &[x, w]);
            let w = net.constant("w", &[6, 5]);
            let y = net.node(Op::MatMul, &[y, w]);
            (net.head(y, 4), vec![])
        });
        assert_eq!(found, ["depthwise 3", "Stacked", "Stacked", "Stacked", "dense 1 4 10"]);
    }
}

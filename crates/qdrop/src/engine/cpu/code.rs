//! A program compiled for this device: kernels in order, and buffers planned so that values whose lives do not overlap
//! share memory.

use super::buffers::{Lives, Planner, Request, What};
use super::conv::Conv;
use super::depthwise::Depthwise;
use super::direct::Direct;
use super::pass::{Act, MaskIndex};
use super::winograd::{TILES, Winograd};
use crate::engine::ops::conv::geometry;
use crate::engine::ops::window::Axis;
use crate::engine::program::{Program, ProgramSite, Step};
use crate::error::Result;
use crate::graph::{Binary, Op, Unary};

/// Columns of a convolution's product below which samples are put together.
const COLUMNS: usize = 512;
/// Samples put together at most.
const GROUP: usize = 16;
/// Elements of all buffers of a group above which no further samples are put together.
const FRAME: usize = 1 << 22;

/// Where a slot's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Per sample, in a buffer of the frame.
    Buffer(usize),
    /// In the program, one for all samples.
    Constant,
    /// Among the learned weights, one for all samples.
    Weight(usize),
}

/// What runs. Numbers are slots unless said otherwise.
#[derive(Debug, Clone)]
pub(super) enum Kernel {
    Conv {
        conv: Conv,
        /// The same in tiles, when learning.
        tiled: Option<Winograd>,
        /// Elements of the batch axis inside a sample.
        frames: usize,
        x: usize,
        w: usize,
        bias: Option<usize>,
        y: usize,
    },
    Depthwise {
        conv: Depthwise,
        /// Elements of the batch axis inside a sample.
        frames: usize,
        x: usize,
        w: usize,
        bias: Option<usize>,
        y: usize,
    },
    /// y = x·w + bias for x of `rows` rows a sample; w is [k, n], or [n, k] when `transposed`.
    Dense { rows: usize, k: usize, n: usize, transposed: bool, x: usize, w: usize, bias: Option<usize>, y: usize },
    /// y = drop(quantize(act(x + other))).
    Pass {
        act: Act,
        site: Option<ProgramSite>,
        x: usize,
        other: Option<usize>,
        y: usize,
        /// Buffer of the trace; x's own when nothing else reads x.
        trace: usize,
        mask: MaskIndex,
    },
    /// A frequent operator of sequence networks: one sample, or, where it maps element by element, all at once.
    Direct { direct: Direct, step: usize, flat: bool },
    /// Any operator, by its specification: one sample after the other, or, where it maps element by element, all at
    /// once (`flat`).
    Node { step: usize, flat: bool },
}

/// Channels and elements inside a channel of one sample: element (c, i) of sample g lies at
/// `(c · samples + g) · inner + i`. Values of images and volumes have the channels of axis 1, all others one channel, so
/// that each sample is contiguous.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub channels: usize,
    pub inner: usize,
}

impl Layout {
    pub fn numel(&self) -> usize {
        self.channels * self.inner
    }
}

#[derive(Debug)]
pub(super) struct Code {
    pub program: Program,
    pub kernels: Vec<Kernel>,
    pub places: Vec<Place>,
    pub layouts: Vec<Layout>,
    /// Per slot: the buffer of its gradient.
    pub gradients: Vec<Option<usize>>,
    /// Per buffer: elements a sample.
    pub buffers: Vec<usize>,
    /// Per mask: elements a sample.
    pub masks: Vec<usize>,
    /// Samples that run together at most.
    pub group: usize,
}

impl Code {
    /// Compiles `program`, for learning or for inference alone.
    pub fn new(program: &Program, learn: bool) -> Result<Self> {
        let layouts = program.slots.iter().map(|s| layout(&s.shape)).collect();
        let mut builder = Builder {
            program,
            layouts,
            readers: readers(program),
            reader: reader(program),
            sums: sums(program),
            fused: vec![None; program.slots.len()],
            kernels: vec![],
            masks: vec![],
            sequence: sequence(program),
            learn,
        };
        for i in 0..program.steps.len() {
            builder.step(i)?;
        }
        Ok(builder.finish())
    }
}

/// Whether `program` has the operators that networks on sequences are made of.
fn sequence(program: &Program) -> bool {
    let shared = |s: &usize| program.slots[*s].constant.is_some() || program.weights.contains(s);
    program.steps.iter().any(|step| match step {
        Step::Node { op: Op::MatMul, operands, .. } => !operands.iter().flatten().any(shared),
        Step::Node { op: Op::Softmax { .. } | Op::LayerNorm { .. }, .. } => true,
        _ => false,
    })
}

fn layout(shape: &[usize]) -> Layout {
    let numel: usize = shape.iter().product();
    let channels = if shape.len() >= 4 && shape[0] == 1 { shape[1].max(1) } else { 1 };
    Layout { channels, inner: numel / channels }
}

/// How often each slot is read, by steps and as an output.
fn readers(program: &Program) -> Vec<usize> {
    let mut readers = vec![0; program.slots.len()];
    for step in &program.steps {
        match step {
            Step::Node { operands, .. } => operands.iter().flatten().for_each(|&s| readers[s] += 1),
            Step::Site { x, .. } => readers[*x] += 1,
        }
    }
    program.outputs.iter().for_each(|&s| readers[s] += 1);
    readers
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

struct Builder<'a> {
    program: &'a Program,
    layouts: Vec<Layout>,
    readers: Vec<usize>,
    reader: Vec<Option<usize>>,
    sums: Vec<bool>,
    /// Per slot: the sum or activation that gives it, if its only reader may take it over.
    fused: Vec<Option<Partial>>,
    kernels: Vec<Kernel>,
    masks: Vec<usize>,
    /// Whether samples run one by one, so that each is contiguous.
    sequence: bool,
    learn: bool,
}

/// A pass before its end is known.
#[derive(Debug, Clone, Copy)]
struct Partial {
    act: Act,
    x: usize,
    other: Option<usize>,
}

impl Builder<'_> {
    fn shared(&self, slot: usize) -> bool {
        self.program.slots[slot].constant.is_some() || self.program.weights.contains(&slot)
    }

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
        match &self.program.steps[index] {
            &Step::Site { site, x, y } => {
                let partial = self.fused[x].take();
                let partial = partial.unwrap_or(Partial { act: Act::None, x, other: None });
                self.pass(partial, Some(site), y);
            }
            Step::Node { op, operands, results, .. } => {
                let (operands, results) = (operands.clone(), results.clone());
                if self.activation(op, &operands, &results)
                    || self.convolution(op, &operands, &results)?
                    || self.dense(op, &operands, &results)
                {
                    return Ok(());
                }
                let flat = self.is_flat(op, &operands, &results);
                self.kernels.push(match self.direct(op, &operands, &results) {
                    Some(direct) if flat || self.sequence => Kernel::Direct { direct, step: index, flat },
                    _ => Kernel::Node { step: index, flat },
                });
            }
        }
        Ok(())
    }

    /// The direct form of an operator whose constants have no gradient that it cannot give.
    fn direct(&self, op: &Op, operands: &[Option<usize>], results: &[Option<usize>]) -> Option<Direct> {
        let [Some(y)] = *results else { return None };
        let slots = &self.program.slots;
        let learned = |i: usize| operands.get(i).copied().flatten().is_some_and(|s| slots[s].learned);
        if matches!(op, Op::LayerNorm { .. }) && (learned(1) || learned(2)) {
            return None;
        }
        let shape = |s: &Option<usize>| s.map(|s| (slots[s].shape.as_slice(), slots[s].dtype.is_float()));
        let shapes: Vec<_> = operands.iter().map(shape).collect();
        Direct::of(op, &shapes, &slots[y].shape).filter(|_| slots[y].dtype.is_float())
    }

    /// Sums and activation functions become passes; one whose result has a single reader waits for it.
    fn activation(&mut self, op: &Op, operands: &[Option<usize>], results: &[Option<usize>]) -> bool {
        let (Some(Some(x)), [Some(y)]) = (operands.first().copied(), results) else { return false };
        if self.shared(x) || !self.program.slots[x].dtype.is_float() {
            return false;
        }
        let get = |i: usize| operands.get(i).copied().flatten();
        let partial = match op {
            Op::Binary(Binary::Add) => {
                let Some(other) = get(1) else { return false };
                let same = self.program.slots[x].shape == self.program.slots[other].shape;
                if !same || self.shared(other) || other == x {
                    return false;
                }
                // The operand that nothing else reads may be overwritten.
                let (x, other) = if self.readers[x] > 1 && self.readers[other] == 1 { (other, x) } else { (x, other) };
                Partial { act: Act::None, x, other: Some(other) }
            }
            Op::Unary(Unary::Relu) => self.after(x, Act::Relu),
            Op::Clip => {
                let (low, high) = (self.scalar(get(1), f32::NEG_INFINITY), self.scalar(get(2), f32::INFINITY));
                match (low, high) {
                    (Some(low), Some(high)) if low <= high => self.after(x, Act::Clip(low, high)),
                    _ => return false,
                }
            }
            _ => return false,
        };
        if self.readers[*y] == 1 && !self.program.outputs.contains(y) && self.taken_over(*y) {
            self.fused[*y] = Some(partial);
        } else {
            self.pass(partial, None, *y);
        }
        true
    }

    /// The pass that applies `act` to `x`, with the sum that gives `x` where it waits.
    fn after(&mut self, x: usize, act: Act) -> Partial {
        match self.fused[x].take() {
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
        let mask = MaskIndex(self.masks.len());
        self.masks.push(self.layouts[y].numel());
        self.kernels.push(Kernel::Pass { act, site, x, other, y, trace: usize::MAX, mask });
    }

    fn convolution(&mut self, op: &Op, operands: &[Option<usize>], results: &[Option<usize>]) -> Result<bool> {
        let Op::Conv { .. } = op else { return Ok(false) };
        let (Some(Some(x)), Some(Some(w)), [Some(y)]) = (operands.first(), operands.get(1), results) else {
            return Ok(false);
        };
        let (x, w, y, bias) = (*x, *w, *y, operands.get(2).copied().flatten());
        let (xs, ws) = (&self.program.slots[x].shape, &self.program.slots[w].shape);
        let bias_moves = bias.is_some_and(|b| !self.shared(b));
        if !(3..=5).contains(&xs.len()) || !self.shared(w) || self.shared(x) || bias_moves {
            return Ok(false);
        }
        let (given, groups, outputs) = geometry(op, xs, ws)?;
        if self.layouts[x].numel() == 0 || self.layouts[y].numel() == 0 {
            return Ok(false);
        }
        let mut axes = [Axis::ONE; 3];
        axes[3 - given.len()..].copy_from_slice(&given);
        let frames = xs[0];
        self.kernels.push(if groups == xs[1] && groups == outputs && groups > 1 && given.len() < 3 {
            Kernel::Depthwise { conv: Depthwise { axes: [axes[1], axes[2]] }, frames, x, w, bias, y }
        } else {
            let conv = Conv { axes, groups, ic: xs[1] / groups, oc: outputs / groups };
            let learned = self.learn && self.program.weights.contains(&w);
            Kernel::Conv { tiled: Winograd::of(&conv).filter(|_| learned), conv, frames, x, w, bias, y }
        });
        Ok(true)
    }

    fn dense(&mut self, op: &Op, operands: &[Option<usize>], results: &[Option<usize>]) -> bool {
        let transposed = match op {
            Op::MatMul => false,
            Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b } => *trans_b,
            _ => return false,
        };
        let (Some(Some(x)), Some(Some(w)), [Some(y)]) = (operands.first(), operands.get(1), results) else {
            return false;
        };
        let (x, w, y, bias) = (*x, *w, *y, operands.get(2).copied().flatten());
        let (xs, ws) = (&self.program.slots[x].shape, &self.program.slots[w].shape);
        if self.shared(x) || !self.shared(w) || ws.len() != 2 || xs.len() < 2 || self.layouts[x].channels != 1 {
            return false;
        }
        let (k, n) = if transposed { (ws[1], ws[0]) } else { (ws[0], ws[1]) };
        // One element a column: a bias of one column has one a row.
        let plain = |b: usize| {
            let shape = &self.program.slots[b].shape;
            self.shared(b) && shape.iter().product::<usize>() == n && shape.last().is_none_or(|&last| last == n)
        };
        if xs[xs.len() - 1] != k || k == 0 || self.layouts[y].channels != 1 || !bias.is_none_or(plain) {
            return false;
        }
        let rows = self.layouts[x].inner / k;
        self.kernels.push(Kernel::Dense { rows, k, n, transposed, x, w, bias, y });
        true
    }

    /// Whether the operator maps element by element, each other operand a scalar or of x's shape in x's layout.
    fn is_flat(&self, op: &Op, operands: &[Option<usize>], results: &[Option<usize>]) -> bool {
        let (Some(Some(x)), [Some(y)]) = (operands.first(), results) else { return false };
        let mapping = matches!(
            op,
            Op::Unary(_)
                | Op::Binary(_)
                | Op::Clip
                | Op::Cast { .. }
                | Op::Identity
                | Op::QuantizeLinear { .. }
                | Op::DequantizeLinear { .. }
                | Op::Quant { .. }
        );
        let shape = &self.program.slots[*x].shape;
        let fits = |s: &usize| {
            let slot = &self.program.slots[*s];
            if self.shared(*s) {
                slot.shape.iter().product::<usize>() == 1 && !slot.learned
            } else {
                slot.shape == *shape
            }
        };
        mapping && !self.shared(*x) && self.program.slots[*y].shape == *shape && operands.iter().flatten().all(fits)
    }

    fn finish(mut self) -> Code {
        let program = self.program;
        let count = self.kernels.len();
        let nothing = vec![None; program.slots.len()];
        let mut lives = Lives { value: nothing.clone(), gradient: nothing };
        let mut traces = Vec::new();
        let mut by_product = vec![false; program.slots.len()];
        for t in 0..count {
            let back = 2 * count + 1 - t;
            let (reads, writes) = self.touched(t);
            reads.iter().chain(&writes).for_each(|&s| lives.touch(s, t + 1));
            if !self.learn {
                continue;
            }
            match &self.kernels[t] {
                Kernel::Conv { x, w, y, .. } | Kernel::Depthwise { x, w, y, .. } | Kernel::Dense { x, w, y, .. } => {
                    by_product[*y] = true;
                    if program.slots[*w].learned {
                        lives.touch(*x, back);
                    }
                }
                Kernel::Pass { x, y, .. } => {
                    if program.slots[*y].learned {
                        let numel = self.layouts[*y].numel();
                        // The pass may overwrite x where it alone reads it, and what gives x does not need it again.
                        if self.readers[*x] == 1 && by_product[*x] {
                            lives.touch(*x, back);
                        } else {
                            traces.push((t, numel, t + 1, back));
                        }
                    }
                }
                Kernel::Node { .. } | Kernel::Direct { .. } => {
                    if writes.iter().any(|&s| program.slots[s].learned) {
                        reads.iter().chain(&writes).for_each(|&s| lives.touch(s, back));
                    }
                }
            }
        }
        program.inputs.iter().for_each(|&s| lives.touch(s, 0));
        program.outputs.iter().filter(|&&s| !self.shared(s)).for_each(|&s| lives.touch(s, count + 1));
        if self.learn {
            self.gradient_lives(&mut lives, count);
        }
        let shared = self.in_place(&mut lives, count);
        let mut planner = Planner::default();
        let mut requests: Vec<Request> = Vec::new();
        for (slot, layout) in self.layouts.iter().enumerate() {
            let size = layout.numel();
            if let Some((birth, death)) = lives.value[slot] {
                requests.push(Request { birth, death, size, what: What::Value(slot) });
            }
            if let Some((birth, death)) = lives.gradient[slot] {
                requests.push(Request { birth, death, size, what: What::Gradient(slot) });
            }
        }
        for &(kernel, size, birth, death) in &traces {
            requests.push(Request { birth, death, size, what: What::Trace(kernel) });
        }
        requests.sort_by_key(|r| r.birth);
        let mut places: Vec<Place> = vec![Place::Constant; program.slots.len()];
        for (i, &w) in program.weights.iter().enumerate() {
            places[w] = Place::Weight(i);
        }
        let mut gradients = vec![None; program.slots.len()];
        for r in requests {
            let buffer = planner.place(&r);
            match r.what {
                What::Value(s) => places[s] = Place::Buffer(buffer),
                What::Gradient(s) => gradients[s] = Some(buffer),
                What::Trace(t) => {
                    if let Kernel::Pass { trace, .. } = &mut self.kernels[t] {
                        *trace = buffer;
                    }
                }
            }
        }
        for (x, y) in shared {
            gradients[x] = gradients[y];
        }
        for kernel in &mut self.kernels {
            if let Kernel::Pass { x, trace, .. } = kernel
                && let (usize::MAX, Place::Buffer(own)) = (*trace, places[*x])
            {
                *trace = own;
            }
        }
        let mut code = Code {
            program: program.clone(),
            kernels: self.kernels,
            places,
            layouts: self.layouts,
            gradients,
            buffers: planner.sizes,
            masks: self.masks,
            group: 1,
        };
        code.group = group(&code);
        code
    }

    /// Per-sample slots that kernel `t` reads and writes.
    fn touched(&self, t: usize) -> (Vec<usize>, Vec<usize>) {
        let (mut reads, mut writes) = match &self.kernels[t] {
            Kernel::Conv { x, y, .. } | Kernel::Depthwise { x, y, .. } | Kernel::Dense { x, y, .. } => {
                (vec![*x], vec![*y])
            }
            Kernel::Pass { x, other, y, .. } => (std::iter::once(*x).chain(*other).collect(), vec![*y]),
            Kernel::Node { step, .. } | Kernel::Direct { step, .. } => match &self.program.steps[*step] {
                Step::Node { operands, results, .. } => {
                    (operands.iter().flatten().copied().collect(), results.iter().flatten().copied().collect())
                }
                Step::Site { .. } => (vec![], vec![]),
            },
        };
        reads.retain(|&s| !self.shared(s));
        writes.retain(|&s| !self.shared(s));
        (reads, writes)
    }

    /// Pairs (x, y) of passes that turn the gradient of y into that of x where it lies, y first in order.
    fn in_place(&self, lives: &mut Lives, count: usize) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        let mut root: Vec<usize> = (0..self.program.slots.len()).collect();
        for (t, kernel) in self.kernels.iter().enumerate().rev() {
            let Kernel::Pass { x, y, .. } = *kernel else { continue };
            let (Some((birth, death)), Some(_)) = (lives.gradient[x], lives.gradient[root[y]]) else { continue };
            if birth != 2 * count + 1 - t {
                continue;
            }
            root[x] = root[y];
            lives.gradient[x] = None;
            if let Some((_, end)) = &mut lives.gradient[root[y]] {
                *end = death.max(*end);
            }
            pairs.push((x, y));
        }
        pairs
    }

    /// A gradient lives from its first contribution to the backward step of what gives the value.
    fn gradient_lives(&self, lives: &mut Lives, count: usize) {
        let life = &mut lives.gradient;
        for &s in &self.program.outputs {
            if self.program.slots[s].learned {
                life[s] = Some((count + 1, count + 1));
            }
        }
        for t in (0..count).rev() {
            let back = 2 * count + 1 - t;
            let (reads, writes) = self.touched(t);
            let arrives = writes.iter().any(|&s| life[s].is_some());
            for s in writes {
                if let Some((_, death)) = &mut life[s] {
                    *death = back;
                }
            }
            if !arrives {
                continue;
            }
            for s in reads.into_iter().filter(|&s| self.program.slots[s].learned) {
                life[s] = Some((life[s].map_or(back, |(birth, _)| birth), back));
            }
        }
    }
}

/// Samples that run together: enough columns for the narrowest product, within the caches. The products of a tiled
/// convolution want [`TILES`] columns where others want [`COLUMNS`].
fn group(code: &Code) -> usize {
    if code.kernels.iter().any(|k| matches!(k, Kernel::Direct { flat: false, .. })) {
        return 1;
    }
    let columns = code.kernels.iter().filter_map(|k| match k {
        Kernel::Conv { tiled: Some(tiled), frames, .. } => Some(frames * tiled.columns_of_a_sample() * COLUMNS / TILES),
        Kernel::Conv { conv, frames, .. } => Some(frames * conv.planes().1),
        Kernel::Dense { rows, .. } => Some(*rows),
        _ => None,
    });
    let narrowest = columns.min().unwrap_or(COLUMNS).max(1);
    let total: usize = code.buffers.iter().sum::<usize>().max(1);
    let mut group = 1;
    while group < GROUP && group * narrowest < COLUMNS && 2 * group * total <= FRAME {
        group *= 2;
    }
    group
}

//! A program compiled for this device: a kernel for each operation of its fused form, and buffers planned so that values
//! whose lives do not overlap share memory.

use super::buffers::{Planner, Request, What};
use super::conv::Conv;
use super::depthwise::Depthwise;
use super::direct::Direct;
use super::winograd::{TILES, Winograd};
use crate::engine::batching::{Batching, channels_in_front};
use crate::engine::fused::{Act, Fused, MaskIndex, Operation};
use crate::engine::lives::Lives;
use crate::engine::program::{Program, ProgramSite, Step};
use crate::error::Result;
use crate::graph::Op;

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
        let fused = Fused::new(program)?;
        let lives = Lives::new(&fused, learn);
        let layouts: Vec<Layout> = program.slots.iter().map(|s| layout(&s.shape)).collect();
        let sequence = sequence(program);
        let kernel = |operation: &Operation| kernel(program, operation, learn, sequence);
        let mut code = Code {
            kernels: fused.operations.iter().map(kernel).collect(),
            masks: fused.masks(),
            places: vec![Place::Constant; program.slots.len()],
            gradients: vec![None; program.slots.len()],
            buffers: vec![],
            group: 1,
            layouts,
            program: program.clone(),
        };
        code.place(&lives);
        code.group = group(&code);
        Ok(code)
    }

    /// Gives everything that lives a buffer.
    fn place(&mut self, lives: &Lives) {
        let mut requests: Vec<Request> = Vec::new();
        for (slot, layout) in self.layouts.iter().enumerate() {
            let size = layout.numel();
            if let Some(life) = lives.values[slot] {
                requests.push(Request { life, size, what: What::Value(slot) });
            }
            if let Some(life) = lives.gradients[slot] {
                requests.push(Request { life, size, what: What::Gradient(slot) });
            }
        }
        for &(kernel, life) in &lives.traces {
            if let Kernel::Pass { y, .. } = self.kernels[kernel] {
                requests.push(Request { life, size: self.layouts[y].numel(), what: What::Trace(kernel) });
            }
        }
        requests.sort_by_key(|r| r.life.0);
        for (i, &w) in self.program.weights.iter().enumerate() {
            self.places[w] = Place::Weight(i);
        }
        let mut planner = Planner::default();
        for r in requests {
            let buffer = planner.place(&r);
            match r.what {
                What::Value(s) => self.places[s] = Place::Buffer(buffer),
                What::Gradient(s) => self.gradients[s] = Some(buffer),
                What::Trace(t) => {
                    if let Kernel::Pass { trace, .. } = &mut self.kernels[t] {
                        *trace = buffer;
                    }
                }
            }
        }
        self.buffers = planner.sizes;
        for &(x, y) in &lives.in_place {
            self.gradients[x] = self.gradients[y];
        }
        for kernel in &mut self.kernels {
            if let Kernel::Pass { x, trace, .. } = kernel
                && let (usize::MAX, Place::Buffer(own)) = (*trace, self.places[*x])
            {
                *trace = own;
            }
        }
    }
}

/// The kernel that runs `operation`; in a `sequence` network operators have direct forms.
fn kernel(program: &Program, operation: &Operation, learn: bool, sequence: bool) -> Kernel {
    match *operation {
        Operation::Convolution { ref conv, frames, x, w, bias, y } => {
            let conv = Conv(conv.clone());
            let learned = learn && program.weights.contains(&w);
            Kernel::Conv { tiled: Winograd::of(&conv).filter(|_| learned), conv, frames, x, w, bias, y }
        }
        Operation::Depthwise { axes, frames, x, w, bias, y } => {
            Kernel::Depthwise { conv: Depthwise { axes }, frames, x, w, bias, y }
        }
        Operation::Dense { rows, k, n, transposed, x, w, bias, y } => {
            Kernel::Dense { rows, k, n, transposed, x, w, bias, y }
        }
        Operation::Pass { act, site, x, other, y, mask } => {
            Kernel::Pass { act, site, x, other, y, trace: usize::MAX, mask }
        }
        Operation::Node { step, batching } => {
            let flat = batching == Batching::Elements;
            match direct(program, step) {
                Some(direct) if flat || sequence => Kernel::Direct { direct, step, flat },
                _ => Kernel::Node { step, flat },
            }
        }
    }
}

/// The direct form of the operator of `step` whose constants have no gradient that it cannot give.
fn direct(program: &Program, step: usize) -> Option<Direct> {
    let Step::Node { op, operands, results, .. } = &program.steps[step] else { return None };
    let [Some(y)] = results[..] else { return None };
    let slots = &program.slots;
    let learned = |i: usize| operands.get(i).copied().flatten().is_some_and(|s| slots[s].learned);
    if matches!(op, Op::LayerNorm { .. }) && (learned(1) || learned(2)) {
        return None;
    }
    let shape = |s: &Option<usize>| s.map(|s| (slots[s].shape.as_slice(), slots[s].dtype.is_float()));
    let shapes: Vec<_> = operands.iter().map(shape).collect();
    Direct::of(op, &shapes, &slots[y].shape).filter(|_| slots[y].dtype.is_float())
}

/// Whether `program` has the operators that networks on sequences are made of.
fn sequence(program: &Program) -> bool {
    program.steps.iter().any(|step| match step {
        Step::Node { op: Op::MatMul, operands, .. } => !operands.iter().flatten().any(|&s| program.shared(s)),
        Step::Node { op: Op::Softmax { .. } | Op::LayerNorm { .. }, .. } => true,
        _ => false,
    })
}

fn layout(shape: &[usize]) -> Layout {
    let numel: usize = shape.iter().product();
    let channels = channels_in_front(shape);
    Layout { channels, inner: numel / channels }
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

//! Random networks: this device against the specification, forward and backward.
//!
//! Every network follows from its number alone. `QDROP_RANDOM=FIRST..LAST` tries others than the few of each test run.

use super::{Net, distance};
use crate::engine::cpu::{CpuInference, CpuTrainer};
use crate::engine::device::Inference;
use crate::engine::facts;
use crate::engine::naive::{self, NaiveTrainer, Slopes};
use crate::engine::philox::philox;
use crate::engine::program::ProgramSite;
use crate::engine::train::{Problem, RandomDraws, Trainer};
use crate::graph::{Binary, Coordinates, Interpolation, Nearest, Op, Padding, Reduction, Resize, Unary};
use crate::graph::{NodeId, PadMode, ValueId, Window};
use crate::quant::Grid;
use crate::tensor::{RowStore, Tensor};
use rayon::prelude::*;

/// Networks of every test run.
const NETWORKS: std::ops::Range<u32> = 0..600;
/// Largest number of elements of a value.
const LARGEST: usize = 700;
const SAMPLES: usize = 3;
/// Largest difference of outputs, as a share of the largest output.
const TOLERANCE: f32 = 2e-4;
/// Largest difference of gradients, as a share of their length.
const SLOPES: f64 = 5e-3;
/// How many times as far as the specification in single precision they may be.
const SINGLE: f64 = 5.0;

/// Random choices of one network.
struct Dice {
    key: [u32; 2],
    count: u32,
}

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.count += 1;
        ((u64::from(philox(self.key, [self.count, 0, 0, 0])[0]) * n as u64) >> 32) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A network that grows.
struct Growing {
    net: Net,
    dice: Dice,
    /// Shapes of the inputs.
    inputs: Vec<Vec<usize>>,
    /// Values that operators may read, with their shapes.
    values: Vec<(ValueId, Vec<usize>)>,
}

fn growing(number: u32) -> Growing {
    let mut dice = Dice { key: [number, 77], count: 0 };
    let shapes: [&[usize]; 10] = [
        &[1, 4, 6, 5],
        &[1, 2, 3, 4, 5],
        &[1, 3, 4, 6, 6],
        &[1, 5, 8],
        &[1, 4, 9],
        &[1, 6],
        &[1, 1, 7, 7],
        &[1, 6, 4, 3],
        &[1, 2, 4, 4],
        &[1, 4, 4],
    ];
    let mut g = Growing { net: Net::new(), inputs: vec![], values: vec![], dice: Dice { key: [0; 2], count: 0 } };
    let first = dice.one(&shapes).to_vec();
    g.dice = dice;
    g.input(first);
    let wanted = 2 + g.dice.below(11);
    for _ in 0..6 * wanted {
        if g.net.graph.nodes.len() >= wanted {
            break;
        }
        g.step();
    }
    g
}

impl Growing {
    fn input(&mut self, shape: Vec<usize>) -> ValueId {
        let v = self.net.input();
        self.inputs.push(shape.clone());
        self.add(v, shape);
        v
    }

    fn add(&mut self, v: ValueId, shape: Vec<usize>) {
        self.values.push((v, shape));
        if self.dice.once_in(3) {
            self.net.site(v);
        }
    }

    /// Adds a node with `results` results where it fits; else takes it back.
    fn node(&mut self, op: Op, operands: &[ValueId], results: usize) -> bool {
        let results: Vec<ValueId> = (0..results).map(|_| self.net.value()).collect();
        self.net.graph.nodes.push(crate::graph::Node::new("", op, operands, &results));
        let facts = facts::infer(&self.net.graph, &self.inputs);
        let shapes = facts.ok().and_then(|f| {
            let shape = |v: &ValueId| f.get(*v).map(|f| f.shape.clone());
            let fits = |s: &Vec<usize>| (1..=LARGEST).contains(&s.iter().product());
            results.iter().map(shape).collect::<Option<Vec<_>>>().filter(|all| all.iter().all(fits))
        });
        let Some(shapes) = shapes else {
            self.net.graph.nodes.pop();
            return false;
        };
        results.into_iter().zip(shapes).for_each(|(v, shape)| self.add(v, shape));
        true
    }

    fn one(&mut self, op: Op, operands: &[ValueId]) -> bool {
        self.node(op, operands, 1)
    }

    /// A value that was made lately, or any.
    fn pick(&mut self) -> (ValueId, Vec<usize>) {
        let n = self.values.len();
        let at = if self.dice.once_in(2) { n - 1 } else { self.dice.below(n) };
        self.values[at].clone()
    }

    fn integers(&mut self, values: Vec<i64>) -> ValueId {
        let name = format!("i{}", self.net.graph.values.len());
        self.net.graph.add_constant(&name, Tensor::i64s(values))
    }

    /// A weight that is learned, most of the time.
    fn weight(&mut self, shape: &[usize], axis: Option<usize>) -> ValueId {
        let w = self.net.constant(shape);
        if !self.dice.once_in(6) {
            self.net.weights.push((w, axis));
        }
        w
    }

    fn step(&mut self) -> bool {
        let (x, shape) = self.pick();
        let rank = shape.len();
        if rank == 0 {
            return self.one(Op::Unary(Unary::Tanh), &[x]);
        }
        let axis = self.dice.below(rank);
        match self.dice.below(26) {
            0..=4 => self.convolution(x, &shape),
            5 if rank >= 2 => {
                let w = self.weight_of_columns(shape[rank - 1]);
                self.one(Op::MatMul, &[x, w])
            }
            6 | 7 => self.gemm(x, &shape),
            8 => self.one(Op::Unary(Unary::Relu), &[x]),
            9 => {
                let (low, high) = (self.net.scalar(-0.5), self.net.scalar(1.0));
                self.one(Op::Clip, &[x, low, high])
            }
            10 => {
                let alpha = 0.1;
                let all = [
                    Unary::Sigmoid,
                    Unary::Tanh,
                    Unary::HardSwish,
                    Unary::Gelu { tanh: false },
                    Unary::Neg,
                    Unary::LeakyRelu { alpha },
                    Unary::Erf,
                    Unary::Softplus,
                ];
                let unary = self.dice.one(&all);
                self.one(Op::Unary(unary), &[x])
            }
            11 | 12 => {
                let (y, _) = self.pick();
                let op = self.dice.one(&[Binary::Add, Binary::Add, Binary::Sub, Binary::Mul]);
                self.one(Op::Binary(op), &[x, y])
            }
            13 => {
                let same: Vec<ValueId> = self.values.iter().filter(|v| v.1 == shape).map(|v| v.0).collect();
                let y = self.dice.one(&same);
                self.one(Op::Binary(Binary::Add), &[x, y])
            }
            14 => {
                let keep = self.dice.below(rank + 1);
                let thin = self.dice.once_in(2);
                let dims = |(i, &d): (usize, &usize)| if thin && i != axis { 1 } else { d };
                let dims: Vec<usize> = shape.iter().enumerate().skip(keep).map(dims).collect();
                let c = self.net.constant(&dims);
                let op = self.dice.one(&[Binary::Add, Binary::Mul, Binary::Sub]);
                let operands = if self.dice.once_in(2) { [x, c] } else { [c, x] };
                self.one(Op::Binary(op), &operands)
            }
            15 | 16 => self.reshape(x, &shape),
            17 => {
                let mut perm: Vec<i64> = (0..rank as i64).collect();
                (1..rank).for_each(|i| perm.swap(i, self.dice.below(i + 1)));
                self.one(Op::Transpose { perm }, &[x])
            }
            18 => {
                let (y, _) = self.pick();
                self.one(Op::Concat { axis: axis as i64 }, &[x, y])
            }
            19 => self.cut(x, &shape, axis),
            20 => self.pool(x, rank),
            21 => match self.dice.below(3) {
                0 => self.one(Op::Softmax { axis: axis as i64, log: false }, &[x]),
                1 => {
                    let (scale, bias) = (self.net.constant(&shape[rank - 1..]), self.net.constant(&shape[rank - 1..]));
                    self.one(Op::LayerNorm { axis: -1, epsilon: 0.1 }, &[x, scale, bias])
                }
                _ => {
                    let kind = self.dice.one(&[Reduction::Mean, Reduction::Sum, Reduction::Max]);
                    let axes = self.integers(vec![axis as i64]);
                    let keepdims = self.dice.once_in(2);
                    self.one(Op::Reduce { kind, keepdims, noop_with_empty_axes: false }, &[x, axes])
                }
            },
            22 => self.spread(x, &shape, axis),
            23 if rank >= 2 => {
                let mut perm: Vec<i64> = (0..rank as i64).collect();
                perm.swap(rank - 1, rank - 2);
                self.one(Op::Transpose { perm }, &[x]) && {
                    let (y, _) = self.values[self.values.len() - 1].clone();
                    self.one(Op::MatMul, &[x, y])
                }
            }
            24 if rank >= 2 && self.inputs.len() < 3 => {
                let (y, _) = (self.input(shape), ());
                self.one(Op::Binary(Binary::Add), &[x, y])
            }
            _ => false,
        }
    }

    fn weight_of_columns(&mut self, k: usize) -> ValueId {
        let n = 1 + self.dice.below(6);
        self.weight(&[k, n], Some(1))
    }

    fn gemm(&mut self, x: ValueId, shape: &[usize]) -> bool {
        let &[m, k] = shape else { return self.reshape(x, shape) };
        // Often as many columns as rows.
        let n = if self.dice.once_in(2) { m } else { 1 + self.dice.below(6) };
        let trans_b = self.dice.once_in(2);
        let w = if trans_b { self.weight(&[n, k], Some(0)) } else { self.weight(&[k, n], Some(1)) };
        let alpha = self.dice.one(&[1.0, 1.0, 0.5]);
        let op = Op::Gemm { alpha, beta: 1.0, trans_a: false, trans_b };
        let c: [&[usize]; 5] = [&[n], &[1, n], &[m, 1], &[1], &[m, n]];
        match self.dice.below(6) {
            5 => self.one(op, &[x, w]),
            i => {
                let c = self.net.constant(c[i]);
                let made = self.one(op, &[x, w, c]);
                self.learn_bias(made && i < 2)
            }
        }
    }

    /// Learns the bias of the last node now and then.
    fn learn_bias(&mut self, made: bool) -> bool {
        let node = self.net.graph.nodes.last();
        if let Some(node) = node.filter(|_| made)
            && let (Some(w), Some(b)) = (node.input(1), node.input(2))
            && self.net.weights.last().is_some_and(|l| l.0 == w)
            && self.dice.once_in(2)
        {
            self.net.learn(b);
        }
        made
    }

    fn convolution(&mut self, x: ValueId, shape: &[usize]) -> bool {
        let rank = shape.len();
        if !(3..=5).contains(&rank) {
            return self.reshape(x, shape);
        }
        let n = rank - 2;
        let divisors: Vec<usize> = (1..=shape[1]).filter(|g| shape[1].is_multiple_of(*g)).collect();
        let groups = if self.dice.once_in(3) { shape[1] } else { self.dice.one(&divisors) };
        let outputs = groups * if groups > 1 { 1 + self.dice.below(2) } else { 1 + self.dice.below(6) };
        let kernel: Vec<usize> = (0..n).map(|_| 1 + self.dice.below(3)).collect();
        let ones = |g: &mut Self, most: usize| (0..n).map(|_| 1 + g.dice.below(most) as i64).collect::<Vec<_>>();
        let strides = if self.dice.once_in(2) { ones(self, 3) } else { vec![] };
        let dilations = if self.dice.once_in(3) { ones(self, 4) } else { vec![] };
        let wide = self.dice.one(&[1, 2, 3, 9]);
        let pads = (0..2 * n).map(|_| self.dice.below(wide) as i64).collect();
        let padding = match self.dice.below(8) {
            0 => Padding::SameUpper,
            1 => Padding::SameLower,
            _ => Padding::Explicit(pads),
        };
        let window = Window { kernel: vec![], strides, dilations, padding };
        if self.dice.once_in(10) {
            let w = self.weight(&[&[shape[1], 2], &kernel[..]].concat(), None);
            let op = Op::ConvTranspose { window, group: 1, output_padding: vec![], output_shape: vec![] };
            return self.one(op, &[x, w]);
        }
        let w = self.weight(&[&[outputs, shape[1] / groups], &kernel[..]].concat(), Some(0));
        let op = Op::Conv { window, group: groups as i64 };
        if self.dice.once_in(3) {
            return self.one(op, &[x, w]);
        }
        let b = self.net.constant(&[outputs]);
        let made = self.one(op, &[x, w, b]);
        self.learn_bias(made)
    }

    /// Joins, splits or swaps axes, so that the batch axis may come to hold more than one element.
    fn reshape(&mut self, x: ValueId, shape: &[usize]) -> bool {
        let mut to = shape.to_vec();
        let at = self.dice.below(shape.len());
        match self.dice.below(4) {
            0 if at + 1 < to.len() => {
                let next = to.remove(at + 1);
                to[at] *= next;
            }
            1 => {
                let parts: Vec<usize> = (1..=to[at]).filter(|d| to[at].is_multiple_of(*d)).collect();
                let part = self.dice.one(&parts);
                to[at] /= part;
                to.insert(at, part);
            }
            2 if to.len() > 1 => {
                // [1, C, ...] to [C, 1, ...]: every channel an image.
                to.swap(0, 1);
            }
            3 => to.insert(at, 1),
            _ => return false,
        }
        if to.len() > 5 {
            return false;
        }
        let to = self.integers(to.iter().map(|&d| d as i64).collect());
        self.one(Op::Reshape { allowzero: false }, &[x, to])
    }

    fn cut(&mut self, x: ValueId, shape: &[usize], axis: usize) -> bool {
        let size = shape[axis];
        if size < 2 {
            return false;
        }
        let at = 1 + self.dice.below(size - 1) as i64;
        match self.dice.below(3) {
            0 => {
                let [starts, ends, axes] = [at, size as i64, axis as i64].map(|v| self.integers(vec![v]));
                self.one(Op::Slice, &[x, starts, ends, axes])
            }
            1 => {
                let sizes = self.integers(vec![at, size as i64 - at]);
                self.node(Op::Split { axis: axis as i64 }, &[x, sizes], 2)
            }
            _ => {
                let indices = self.integers(vec![0, at]);
                self.one(Op::Gather { axis: axis as i64 }, &[x, indices])
            }
        }
    }

    fn pool(&mut self, x: ValueId, rank: usize) -> bool {
        if !(3..=5).contains(&rank) {
            return false;
        }
        let n = rank - 2;
        let window = Window {
            kernel: vec![2; n],
            strides: vec![1 + self.dice.below(2) as i64; n],
            dilations: vec![],
            padding: Padding::Explicit(vec![self.dice.below(2) as i64; 2 * n]),
        };
        let op = match self.dice.below(3) {
            0 => Op::MaxPool { window, ceil_mode: self.dice.once_in(2) },
            1 => Op::AveragePool { window, ceil_mode: false, count_include_pad: self.dice.once_in(2) },
            _ => Op::GlobalAveragePool,
        };
        self.one(op, &[x])
    }

    fn spread(&mut self, x: ValueId, shape: &[usize], axis: usize) -> bool {
        let rank = shape.len();
        match self.dice.below(4) {
            0 => {
                let mut pads = vec![0; 2 * rank];
                (pads[axis], pads[rank + axis]) = (self.dice.below(3) as i64, 1);
                let (pads, value) = (self.integers(pads), self.net.scalar(0.25));
                self.one(Op::Pad { mode: PadMode::Constant }, &[x, pads, value])
            }
            1 => {
                let mut times = vec![1; rank];
                times[axis] = 2;
                let times = self.integers(times);
                self.one(Op::Tile, &[x, times])
            }
            2 if rank == 4 => {
                let sizes = [shape[0], shape[1], 2 * shape[2], shape[3] + 1].map(|d| d as i64);
                let sizes = self.integers(sizes.to_vec());
                let mode = Interpolation::Nearest(Nearest::Floor);
                let (roi, scales) = (self.net.constant(&[0]), self.net.constant(&[0]));
                self.one(Op::Resize(Resize::new(mode, Coordinates::Asymmetric)), &[x, roi, scales, sizes])
            }
            3 if rank >= 3 => {
                let mut constant = || self.net.constant(&shape[1..2]);
                let (scale, bias, mean) = (constant(), constant(), constant());
                let name = format!("var{}", self.net.graph.values.len());
                let var = self.net.graph.add_constant(&name, Tensor::f32(&shape[1..2], vec![0.7; shape[1]]));
                self.one(Op::BatchNorm { epsilon: 1e-3 }, &[x, scale, bias, mean, var])
            }
            _ => false,
        }
    }

    /// The whole as a problem: outputs are all that nothing reads, and a few others.
    fn problem(mut self) -> Option<Problem> {
        let consumers = self.net.graph.consumers();
        let made = |v: ValueId| self.net.graph.nodes.iter().any(|n| n.outputs.contains(&Some(v)));
        let unread = |v: &&(ValueId, Vec<usize>)| consumers[v.0.0 as usize].is_empty() && made(v.0);
        let mut outputs: Vec<ValueId> = self.values.iter().filter(unread).map(|v| v.0).collect();
        if self.dice.once_in(3) {
            let (more, _) = self.values[self.dice.below(self.values.len())];
            let more = Some(more).filter(|v| !outputs.contains(v) && made(*v));
            outputs.extend(more);
        }
        let used = |v: &ValueId| !consumers[v.0 as usize].is_empty();
        if outputs.is_empty() || !self.net.graph.inputs.iter().all(used) {
            return None;
        }
        self.shuffle();
        let shapes: Vec<&[usize]> = self.inputs.iter().map(Vec::as_slice).collect();
        let mut problem = self.net.problem(&shapes, &outputs, SAMPLES);
        // With one step everywhere, means of grid values would lie in the middle of two integers.
        for (i, grid) in problem.grids.iter_mut().enumerate() {
            grid.scale[0] = 0.25 + 0.0371 * i as f32;
        }
        Some(problem)
    }

    /// Brings the nodes into another order in which they can run.
    fn shuffle(&mut self) {
        let graph = &mut self.net.graph;
        let mut left: Vec<NodeId> = graph.node_ids().collect();
        let producers = graph.producers();
        let mut order = Vec::new();
        while !left.is_empty() {
            let ready = |id: &NodeId| {
                let mut before = graph.node(*id).inputs.iter().flatten().filter_map(|v| producers[v.0 as usize]);
                before.all(|p| order.contains(&p))
            };
            let ready: Vec<NodeId> = left.iter().copied().filter(ready).collect();
            let next = self.dice.one(&ready);
            left.retain(|id| *id != next);
            order.push(next);
        }
        graph.nodes = order.iter().map(|id| graph.node(*id).clone()).collect();
    }
}

/// Whether a value in front of a site lies so close to the middle of two integers that single precision may take the
/// other one.
fn tie(problem: &Problem, tape: &naive::Tape<f64>) -> bool {
    (0..).map(ProgramSite).zip(&problem.grids).any(|(site, grid)| {
        let steps = tape.site(&problem.program, site).iter().map(|v| v / f64::from(grid.scale[0]));
        steps.into_iter().any(|t| ((t - t.floor()) - 0.5).abs() < 1e-4 * (1.0 + t.abs()))
    })
}

/// What differs in inference, if anything.
fn inference(problem: &Problem) -> Option<String> {
    let runner = CpuInference::new(&problem.program).unwrap();
    let biases = problem.biases.iter().map(|b| b.float.as_slice());
    let weights: Vec<&[f32]> = problem.weights.iter().map(|w| w.float.as_slice()).chain(biases).collect();
    let exact: Vec<Vec<f64>> = weights.iter().map(|w| w.iter().map(|&v| f64::from(v)).collect()).collect();
    for on in [false, true] {
        let grids: Vec<Option<&Grid>> = problem.grids.iter().map(|g| on.then_some(g)).collect();
        let got = runner.run(&weights, &grids, &problem.float_inputs, &RowStore::memory()).unwrap();
        let keep = vec![on.then(Vec::new); problem.grids.len()];
        for sample in 0..SAMPLES {
            let inputs =
                problem.float_inputs.iter().map(|r| r.row(sample).unwrap().iter().map(|&v| v.into()).collect());
            let settings = naive::Settings { weights: &exact, grids: &problem.grids, keep: &keep };
            let tape = naive::forward::<f64>(&problem.program, settings, inputs.collect()).unwrap();
            if on && tie(problem, &tape) {
                continue;
            }
            for (i, (rows, want)) in got.iter().zip(tape.outputs(&problem.program)).enumerate() {
                let want: Vec<f32> = want.iter().map(|&v| v as f32).collect();
                let d = distance(&rows.row(sample).unwrap(), &want);
                if d.is_nan() || d > TOLERANCE {
                    return Some(format!("output {i} of sample {sample} (sites {on}) deviates by {d}"));
                }
            }
        }
    }
    None
}

/// What differs in the first step of learning, if anything.
fn learning(problem: &Problem, keep: f64) -> Option<String> {
    let mut cpu = CpuTrainer::new(problem).unwrap();
    let naive = NaiveTrainer::<f64>::new(problem).unwrap();
    let draws = RandomDraws { seed: 3, unit: 1, batch: 3, samples: SAMPLES, input_keep: keep, activation_keep: keep };
    let step = super::step(1, draws, 0.0);
    let want = naive.gradients(&step).unwrap();
    cpu.step(&step).unwrap();
    let got = cpu.losses().unwrap()[0].reconstruction;
    let (weights, scales) = cpu.gradients();
    if (got - want.loss).abs() > 1e-3 * want.loss.abs() {
        return Some(format!("keep {keep}: loss {got} instead of {}", want.loss));
    }
    let far = |a: &[f64], b: &[f64]| {
        let length = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
        let difference = length(&mut a.iter().zip(b).map(|(a, b)| a - b));
        difference / (length(&mut b.iter().copied()) + 1e-3 * want.loss)
    };
    let wide = |v: &Vec<f32>| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let got: Vec<f64> =
        weights.iter().map(wide).chain([scales]).enumerate().map(|(i, g)| far(&g, want.of(i))).collect();
    if got.iter().all(|d| *d <= SLOPES) {
        return None;
    }
    // Where terms cancel, single precision is as far off by the specification.
    let single = NaiveTrainer::<f32>::new(problem).unwrap().gradients(&step).unwrap();
    for (i, d) in got.iter().enumerate() {
        let own = single.weights.get(i).map_or_else(|| single.scales.clone(), wide);
        if d.is_nan() || *d > SLOPES.max(SINGLE * far(&own, want.of(i))) {
            return Some(format!("keep {keep}: gradient {i} of {} deviates by {d}", got.len()));
        }
    }
    None
}

impl Slopes<f64> {
    /// Gradient of weight `i`, or of all steps behind the last one.
    fn of(&self, i: usize) -> &[f64] {
        self.weights.get(i).unwrap_or(&self.scales)
    }
}

/// What differs on network `number`; nothing either where the number gives none.
fn difference(number: u32) -> Option<String> {
    let problem = growing(number).problem()?;
    // Kinks and ties of single elements depend on the samples, defects do not.
    let mut found = None;
    for attempt in 0..3 {
        let mut problem = problem.clone();
        let shift = |rows: &crate::tensor::Rows| {
            let all: Vec<f32> = (0..SAMPLES).flat_map(|s| rows.row(s).unwrap().to_vec()).collect();
            let all = all.iter().map(|v| v * (1.0 + 0.013 * attempt as f32) + 0.0071 * attempt as f32).collect();
            crate::tensor::Rows::new(SAMPLES, all)
        };
        problem.float_inputs = problem.float_inputs.iter().map(shift).collect();
        problem.quantized_inputs = problem.quantized_inputs.iter().map(shift).collect();
        let compare = || inference(&problem).or_else(|| [0.0, 0.5, 1.0].iter().find_map(|&k| learning(&problem, k)));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare));
        found = Some(match caught {
            Ok(None) => return None,
            Ok(Some(difference)) => difference,
            Err(_) => "a panic".to_string(),
        });
    }
    let nodes: Vec<String> = (problem.program.steps.iter()).map(|s| format!("{s:?}")).collect();
    found.map(|f| format!("network {number}: {f}\n  {}", nodes.join("\n  ")))
}

#[test]
fn random_networks_agree_with_the_specification() {
    let range = std::env::var("QDROP_RANDOM").ok().map(|text| {
        let (first, last) = text.split_once("..").unwrap();
        first.parse().unwrap()..last.parse().unwrap()
    });
    let range = range.unwrap_or(NETWORKS);
    let made = range.clone().into_par_iter().filter(|&n| growing(n).problem().is_some()).count();
    assert!(2 * made > range.len(), "{made} networks of {range:?}");
    let found: Vec<String> = range.into_par_iter().filter_map(difference).collect();
    for text in found.iter().take(8) {
        eprintln!("{}", text.chars().take(3000).collect::<String>());
    }
    let numbers: Vec<&str> = found.iter().filter_map(|f| f.split(':').next()).collect();
    assert!(found.is_empty(), "{} differ: {numbers:?}", found.len());
}

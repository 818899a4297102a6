//! The device against the specification: the same random network, batches and masks on both.

mod constants;
mod geometry;
mod random;

use super::influence::influence;
use super::sensitivity::sensitivity;
use super::{CpuInference, CpuTrainer, Threads};
use crate::engine::device::{Inference, OutputError};
use crate::engine::facts;
use crate::engine::naive::{self, NaiveTrainer};
use crate::engine::philox::Stream;
use crate::engine::program::{Program, Region, compile};
use crate::engine::train::{Bias, Choices, LossWeights, Problem, RandomDraws, Step, Trainer, Weight};
use crate::graph::{Attention, Binary, Fact, Graph, Node, Op, Padding, Unary, ValueId, Window};
use crate::quant::{Grid, LayerId, RangeSpec, Search, fit_weight};
use crate::tensor::{DType, RowStore, Rows, Tensor};

/// Builds a graph and the region that covers it.
struct Net {
    graph: Graph,
    weights: Vec<(ValueId, Option<usize>)>,
    /// Learned biases, with the number of their weight.
    biases: Vec<(LayerId, ValueId)>,
    sites: Vec<ValueId>,
    count: u32,
}

fn random(purpose: u32, n: usize) -> Vec<f32> {
    Stream::new(5, 0, purpose, 0).below(n, 1 << 20).iter().map(|&v| v as f32 / (1 << 19) as f32 - 1.0).collect()
}

impl Net {
    fn new() -> Self {
        Net { graph: Graph { opset: 17, ..Graph::default() }, weights: vec![], biases: vec![], sites: vec![], count: 0 }
    }

    fn value(&mut self) -> ValueId {
        self.count += 1;
        self.graph.add_value(&format!("v{}", self.count), Fact { dtype: Some(DType::F32), shape: None })
    }

    fn input(&mut self) -> ValueId {
        let v = self.value();
        self.graph.inputs.push(v);
        v
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        self.count += 1;
        let data = random(self.count, shape.iter().product());
        self.graph.add_constant(&format!("c{}", self.count), Tensor::f32(shape, data))
    }

    fn op(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        let y = self.value();
        self.graph.nodes.push(Node::new("", op, operands, &[y]));
        y
    }

    fn scalar(&mut self, value: f32) -> ValueId {
        self.count += 1;
        self.graph.add_constant(&format!("s{}", self.count), Tensor::scalar(value))
    }

    fn site(&mut self, v: ValueId) -> ValueId {
        self.sites.push(v);
        v
    }

    /// Learns the bias of the layer that gives `y`, whose weight is the last one so far.
    fn learn_bias(&mut self, y: ValueId) {
        let layer = self.graph.nodes.iter().find(|n| n.outputs == [Some(y)]).unwrap();
        self.learn(layer.input(2).unwrap());
    }

    /// Learns `bias` with the last weight so far.
    fn learn(&mut self, bias: ValueId) {
        self.biases.push((LayerId(self.weights.len() as u32 - 1), bias));
    }

    #[allow(clippy::too_many_arguments)]
    fn conv(
        &mut self,
        x: ValueId,
        shape: [usize; 4],
        stride: i64,
        pads: [i64; 4],
        dilation: i64,
        group: i64,
    ) -> ValueId {
        let (w, b) = (self.constant(&shape), self.constant(&shape[..1]));
        self.weights.push((w, Some(0)));
        let (strides, dilations) = (vec![stride; 2], vec![dilation; 2]);
        let window = Window { kernel: vec![], strides, dilations, padding: Padding::Explicit(pads.to_vec()) };
        self.op(Op::Conv { window, group }, &[x, w, b])
    }

    fn relu(&mut self, x: ValueId) -> ValueId {
        self.op(Op::Unary(Unary::Relu), &[x])
    }

    fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.op(Op::Binary(Binary::Add), &[a, b])
    }

    /// Compiles everything for inputs of `shapes` and makes a problem of `samples` random samples.
    fn problem(mut self, shapes: &[&[usize]], outputs: &[ValueId], samples: usize) -> Problem {
        self.graph.outputs = outputs.to_vec();
        self.graph.check().unwrap();
        let shapes: Vec<Vec<usize>> = shapes.iter().map(|s| s.to_vec()).collect();
        let facts = facts::infer(&self.graph, &shapes).unwrap();
        let region = Region {
            nodes: self.graph.node_ids().collect(),
            inputs: self.graph.inputs.clone(),
            outputs: outputs.to_vec(),
            weights: self.weights.iter().map(|w| w.0).chain(self.biases.iter().map(|b| b.1)).collect(),
            sites: self.sites.iter().map(|&s| (s, None)).collect(),
        };
        let program = compile(&self.graph, &facts, &region).unwrap();
        let weight = |(layer, &(v, axis)): (LayerId, &(ValueId, Option<usize>))| {
            let tensor = self.graph.constant(v).unwrap();
            let (float, shape) = (tensor.to_f32().unwrap(), tensor.shape().to_vec());
            let spec = RangeSpec { bits: 3, symmetric: false, search: Search::MinMax };
            let grid = fit_weight(&float, &shape, axis, &spec).unwrap();
            Weight { layer, float, shape, grid }
        };
        let bias = |&(layer, v): &(LayerId, ValueId)| {
            let float = self.graph.constant(v).unwrap().to_f32().unwrap();
            Bias { layer, step: random(900, float.len()).iter().map(|r| r.abs()).collect(), float }
        };
        let rows = |purpose: u32, slot: usize| {
            let n: usize = program.slots[slot].shape.iter().product();
            Rows::new(samples, random(purpose, samples * n))
        };
        let of = |base: u32, slots: &[usize]| slots.iter().zip(base..).map(|(&s, p)| rows(p, s)).collect();
        Problem {
            weights: (0..).map(LayerId).zip(&self.weights).map(weight).collect(),
            biases: self.biases.iter().map(bias).collect(),
            scaled: Vec::new(),
            grids: self.sites.iter().map(|_| Grid::per_tensor(3, 0.31, 2).unwrap()).collect(),
            scale_rates: (0..self.sites.len()).map(|i| 1.0 + i as f64 / 2.0).collect(),
            float_inputs: of(1000, &program.inputs),
            quantized_inputs: of(1100, &program.inputs),
            loss_weights: vec![None; outputs.len()],
            targets: of(1200, &program.outputs),
            program,
        }
    }
}

/// Largest difference over the largest magnitude.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size
}

/// Rounding of activations may differ where two orders of summation meet a tie; networks here are small enough that
/// none does.
const TOLERANCE: f32 = 2e-5;

fn check_inference(problem: &Problem) {
    let runner = CpuInference::new(&problem.program).unwrap();
    let biases = problem.biases.iter().map(|b| b.float.as_slice());
    let scaled: Vec<Vec<f32>> = problem.scaled.iter().map(|c| c.content(&c.scale)).collect();
    let weights = problem.weights.iter().map(|w| w.float.as_slice()).chain(biases);
    let weights: Vec<&[f32]> = weights.chain(scaled.iter().map(Vec::as_slice)).collect();
    let naive_weights: Vec<Vec<f64>> = weights.iter().map(|w| w.iter().map(|&v| f64::from(v)).collect()).collect();
    for on in [false, true] {
        let grids: Vec<Option<&Grid>> = problem.grids.iter().map(|g| on.then_some(g)).collect();
        let got = runner.run(&weights, &grids, &problem.float_inputs, &RowStore::memory()).unwrap();
        let keep = vec![on.then(Vec::new); problem.grids.len()];
        for sample in 0..problem.samples() {
            let inputs =
                problem.float_inputs.iter().map(|r| r.row(sample).unwrap().iter().map(|&v| f64::from(v)).collect());
            let settings = naive::Settings { weights: &naive_weights, grids: &problem.grids, keep: &keep };
            let tape = naive::forward::<f64>(&problem.program, settings, inputs.collect()).unwrap();
            for (rows, want) in got.iter().zip(tape.outputs(&problem.program)) {
                let want: Vec<f32> = want.iter().map(|&v| v as f32).collect();
                let d = distance(&rows.row(sample).unwrap(), &want);
                assert!(d < TOLERANCE, "inference (sites {on}) of sample {sample} deviates by {d}");
            }
        }
    }
}

/// A step as these tests take it.
fn step(iteration: usize, draws: RandomDraws, lambda: f64) -> Step<'static> {
    Step {
        iteration,
        choices: Choices::Drawn(draws),
        lambda,
        beta: 7.5,
        rounding_lr: 1e-2,
        bias_lr: 2e-2,
        scale_lr: 1e-3,
        scaled_lr: 1e-3,
        settled_below: None,
    }
}

fn check_learning(problem: &Problem, keep: f64) {
    let mut cpu = CpuTrainer::new(problem).unwrap();
    let mut naive = NaiveTrainer::<f64>::new(problem).unwrap();
    let samples = problem.samples();
    let draws = RandomDraws { seed: 3, unit: 1, batch: 5, samples, input_keep: keep, activation_keep: keep };
    for iteration in 1..=4 {
        let lambda = if iteration > 2 { 0.05 } else { 0.0 };
        let step = step(iteration, draws, lambda);
        cpu.step(&step).unwrap();
        naive.step(&step).unwrap();
        let (a, b) = (cpu.losses().unwrap()[0], naive.losses().unwrap()[0]);
        assert!((a.reconstruction / b.reconstruction - 1.0).abs() < 1e-4, "{iteration}: {a:?} against {b:?}");
        assert!((a.total / b.total - 1.0).abs() < 1e-4, "{iteration}: {a:?} against {b:?}");
    }
    for (i, (a, b)) in cpu.alpha().iter().zip(naive.alpha()).enumerate() {
        // Adam turns a gradient near 0 into a whole step of either sign.
        let far = a.iter().zip(&b).filter(|(a, b)| (**a - **b).abs() > 1e-3 * b.abs().max(1.0)).count();
        assert!(far * 100 <= a.len(), "weight {i}: {far} of {} rounding variables differ", a.len());
    }
    for (i, (a, b)) in cpu.biases().iter().zip(naive.biases()).enumerate() {
        assert!(distance(a, &b) < 1e-4 && *a != problem.biases[i].float, "bias {i}: {a:?} against {b:?}");
    }
    for (i, (a, b)) in cpu.scaled().iter().zip(naive.scaled()).enumerate() {
        assert!(distance(a, &b) < 1e-5 && *a != problem.scaled[i].scale, "constant {i}: {a:?} against {b:?}");
    }
    for (i, (a, b)) in cpu.grids().iter().zip(naive.grids()).enumerate() {
        assert!((a.scale[0] / b.scale[0] - 1.0).abs() < 1e-4, "site {i}: {a:?} against {b:?}");
    }
}

fn check(problem: &Problem) {
    check_inference(problem);
    for keep in [0.0, 0.5, 1.0] {
        check_learning(problem, keep);
    }
    let mut weighed = problem.clone();
    for (i, &slot) in problem.program.outputs.iter().enumerate() {
        let slot = &problem.program.slots[slot];
        let [outer, count, inner] = slot.around_channels();
        let (n, width) = (problem.samples(), outer * inner);
        let positive = |purpose, n| random(purpose, n).iter().map(|v| v.abs() + 0.1).collect::<Vec<f32>>();
        let (channels, positions) = (positive(1300 + i as u32, count), positive(1400 + i as u32, n * width));
        weighed.loss_weights[i] = Some(LossWeights { channels, positions: Rows::new(n, positions), outer });
    }
    check_learning(&weighed, 0.5);
}

#[test]
fn sensitivity_is_the_diagonal_of_the_squared_jacobian() {
    // y = m·(W·x), m per position: x at channel c, position p is felt as Σ W[o, c]² · m[p]².
    let mut net = Net::new();
    let x = net.input();
    let m = net.constant(&[1, 1, 2, 2]);
    let y = net.conv(x, [5, 3, 1, 1], 1, [0; 4], 1, 1);
    let y = net.op(Op::Binary(Binary::Mul), &[y, m]);
    net.site(x);
    let w = net.graph.constant(net.weights.remove(0).0).unwrap().to_f32().unwrap();
    let m = net.graph.constant(m).unwrap().to_f32().unwrap();
    let problem = net.problem(&[&[1, 3, 2, 2]], &[y], 4000);
    let threads = Threads::default();
    let mut done = 0;
    let mut progress = |n| {
        done = n;
        Ok(())
    };
    let whole = OutputError { size: 1.0, weights: None };
    let found = sensitivity(&threads, &problem.program, &problem.float_inputs, &[whole], 3, &mut progress).unwrap();
    assert_eq!(done, 4000);
    let found = found[0].as_ref().unwrap();
    let near = |got: &[f32], want: &[f32]| {
        let mean = want.iter().sum::<f32>() / want.len() as f32;
        for (g, w) in got.iter().zip(want) {
            assert!(
                (g - (w / mean).max(0.01)).abs() < 0.05 * (w / mean).max(0.2),
                "{got:?} instead of {want:?} / {mean}"
            );
        }
    };
    near(&found.channels, &[0, 1, 2].map(|c| (0..5).map(|o| w[o * 3 + c] * w[o * 3 + c]).sum()));
    let all = |p: usize| found.positions.iter().map(|row| row.unwrap()[p]).sum::<f32>() / 4000.0;
    near(&[0, 1, 2, 3].map(all), &[0, 1, 2, 3].map(|p: usize| m[p] * m[p]));
    let mut row = Vec::new();
    found.expand(7, &mut row).unwrap();
    assert_eq!(row[6], found.channels[1] * found.positions.row(7).unwrap()[2]);
}

/// Two outputs, a site that only one of them reads, one that none does, and weights of elements in both of their forms.
#[test]
fn influence_is_that_of_the_specification() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.conv(x, [6, 4, 3, 3], 1, [1, 1, 1, 1], 1, 1);
    let a = net.op(Op::Unary(Unary::Sigmoid), &[a]);
    let b = net.conv(a, [5, 6, 3, 3], 2, [1, 1, 1, 1], 1, 1);
    let c = net.relu(b);
    let dead = net.op(Op::Binary(Binary::Mul), &[c, c]);
    for v in [x, a, c, dead] {
        net.site(v);
    }
    // Nothing is learned.
    (net.weights, net.biases) = (vec![], vec![]);
    let n = 9;
    let Problem { program, float_inputs: inputs, .. } = net.problem(&[&[1, 4, 6, 8]], &[a, c], n);
    let mask = |width: usize, real: usize| {
        let one = |i: usize| if i % width < real + i / width % 3 { 1.0 } else { 0.0 };
        Rows::new(n, (0..n * width).map(one).collect())
    };
    let by_position = LossWeights { channels: vec![1.0, 0.5, 2.0, 1.0, 1.0, 3.0], positions: mask(48, 20), outer: 1 };
    let by_element = LossWeights { channels: vec![1.0], positions: mask(60, 31), outer: 1 };
    let output = |size, weights| OutputError { size, weights };
    let all = [output(0.7, None), output(2.0, None)];
    let some = [output(0.7, Some(by_position)), output(2.0, Some(by_element))];
    let none =
        [output(0.7, None), output(2.0, Some(LossWeights { channels: vec![1.0], positions: mask(60, 0), outer: 1 }))];
    let grids = vec![[0.1, 0.4].map(|s| Grid::per_tensor(4, s, 7).unwrap()).to_vec(); 4];
    let mut found = Vec::new();
    for outputs in [&all, &some, &none] {
        let got = influence(&Threads::default(), &program, &inputs, outputs, &grids, 3, &mut |_| Ok(())).unwrap();
        let want = naive::influence::<f64>(&program, &inputs, outputs, &grids, 3).unwrap();
        assert!(got[3].is_none() && want[3].is_none());
        for (got, want) in got.iter().flatten().flatten().zip(want.iter().flatten().flatten()) {
            assert!((got - want).abs() <= 1e-4 * want, "{got} against {want}");
        }
        found.push(want[2].clone().unwrap()[1]);
    }
    assert!(found[1] < 0.9 * found[0] && found[2] < 0.1 * found[0], "{found:?}");
}

#[test]
fn residual_block_with_downsample() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.conv(x, [6, 4, 3, 3], 2, [1, 1, 1, 1], 1, 1);
    let a = net.relu(a);
    let a = net.site(a);
    let b = net.conv(a, [6, 6, 3, 3], 1, [1, 1, 1, 1], 1, 1);
    let side = net.conv(x, [6, 4, 1, 1], 2, [0, 0, 0, 0], 1, 1);
    let y = net.add(b, side);
    let y = net.relu(y);
    net.site(y);
    check(&net.problem(&[&[1, 4, 9, 7]], &[y], 7));
}

#[test]
fn convolutions_in_tiles() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.conv(x, [32, 32, 3, 3], 1, [1, 1, 1, 1], 1, 1);
    let a = net.relu(a);
    let a = net.site(a);
    let b = net.conv(a, [40, 32, 3, 3], 1, [1, 1, 0, 2], 1, 1);
    net.site(b);
    check(&net.problem(&[&[1, 32, 7, 6]], &[b], 7));
}

#[test]
fn convolutions_of_every_geometry() {
    let mut net = Net::new();
    let x = net.input();
    let a = net.conv(x, [8, 6, 1, 1], 1, [0, 0, 0, 0], 1, 1);
    let a = net.site(a);
    let b = net.conv(a, [8, 1, 3, 3], 2, [1, 0, 2, 1], 1, 8);
    let b = net.relu(b);
    let b = net.site(b);
    let c = net.conv(b, [12, 4, 3, 2], 1, [2, 1, 2, 1], 2, 2);
    let d = net.conv(c, [12, 1, 5, 5], 1, [2, 2, 2, 2], 1, 12);
    let (low, high) = (net.scalar(-0.5), net.scalar(1.5));
    let d = net.op(Op::Clip, &[d, low, high]);
    let d = net.site(d);
    let e = net.conv(d, [4, 12, 2, 3], 3, [0, 1, 1, 0], 1, 1);
    check(&net.problem(&[&[1, 6, 11, 13]], &[e], 6));
}

#[test]
fn values_that_are_read_several_times_and_several_outputs() {
    let mut net = Net::new();
    let (x, z) = (net.input(), net.input());
    let x = net.site(x);
    let a = net.conv(x, [5, 5, 3, 3], 1, [1, 1, 1, 1], 1, 1);
    let r = net.relu(a);
    let r = net.site(r);
    let s = net.op(Op::Unary(Unary::Sigmoid), &[a]);
    let m = net.op(Op::Binary(Binary::Mul), &[r, s]);
    let b = net.conv(m, [5, 5, 1, 1], 1, [0, 0, 0, 0], 1, 1);
    let y = net.add(b, r);
    let y = net.add(y, z);
    let pooled = net.op(Op::GlobalAveragePool, &[y]);
    let gated = net.op(Op::Binary(Binary::Mul), &[y, pooled]);
    let twice = net.add(gated, gated);
    net.site(twice);
    check(&net.problem(&[&[1, 5, 6, 6], &[1, 5, 6, 6]], &[twice, r], 5));
}

#[test]
fn dense_layers_on_vectors_and_sequences() {
    let mut net = Net::new();
    let x = net.input();
    let w = net.constant(&[10, 14]);
    net.weights.push((w, Some(1)));
    let a = net.op(Op::MatMul, &[x, w]);
    let bias = net.constant(&[14]);
    let a = net.add(a, bias);
    let a = net.relu(a);
    let a = net.site(a);
    let v = net.constant(&[14, 10]);
    net.weights.push((v, None));
    let b = net.op(Op::MatMul, &[a, v]);
    let y = net.add(b, x);
    net.site(y);
    check(&net.problem(&[&[1, 6, 10]], &[y], 9));

    let mut net = Net::new();
    let x = net.input();
    let x = net.op(Op::Flatten { axis: 1 }, &[x]);
    let (w, b) = (net.constant(&[7, 32]), net.constant(&[7]));
    net.weights.push((w, Some(0)));
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let y = net.op(gemm, &[x, w, b]);
    check(&net.problem(&[&[1, 8, 2, 2]], &[y], 40));
}

/// Two heads of attention with a mask, residual sums, layer normalisation and a feed-forward part with GELU.
#[test]
fn attention_and_feed_forward() {
    const TOKENS: i64 = 6;
    let mut net = Net::new();
    let (x, mask) = (net.input(), net.input());
    let x = net.site(x);
    let linear = |net: &mut Net, x: ValueId, from: usize, to: usize, learn: bool| {
        let w = net.constant(&[from, to]);
        net.weights.push((w, Some(1)));
        let y = net.op(Op::MatMul, &[x, w]);
        let bias = net.constant(&[to]);
        if learn {
            net.learn(bias);
        }
        net.add(bias, y)
    };
    let heads = |net: &mut Net, x: ValueId, perm: [i64; 4]| {
        let name = format!("split {}", net.graph.values.len());
        let shape = net.graph.add_constant(&name, Tensor::i64s(vec![1, TOKENS, 2, 4]));
        let x = net.op(Op::Reshape { allowzero: false }, &[x, shape]);
        net.op(Op::Transpose { perm: perm.to_vec() }, &[x])
    };
    let norm = |net: &mut Net, x: ValueId| {
        let (scale, bias) = (net.constant(&[8]), net.constant(&[8]));
        net.op(Op::LayerNorm { axis: -1, epsilon: 1e-5 }, &[x, scale, bias])
    };
    // The bias of keys adds the same to all scores of a row: its gradient is 0, or noise.
    let [q, k, v] = [true, false, true].map(|learn| linear(&mut net, x, 8, 8, learn));
    let [q, k, v] = [q, k, v].map(|a| net.site(a));
    let (q, k, v) =
        (heads(&mut net, q, [0, 2, 1, 3]), heads(&mut net, k, [0, 2, 3, 1]), heads(&mut net, v, [0, 2, 1, 3]));
    let scores = net.op(Op::MatMul, &[q, k]);
    let two = net.scalar(2.0);
    let scores = net.op(Op::Binary(Binary::Div), &[scores, two]);
    let scores = net.add(scores, mask);
    let shares = net.op(Op::Softmax { axis: -1, log: false }, &[scores]);
    let shares = net.site(shares);
    let context = net.op(Op::MatMul, &[shares, v]);
    let context = net.op(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context]);
    let shape = net.graph.add_constant("joined", Tensor::i64s(vec![1, TOKENS, 8]));
    let context = net.op(Op::Reshape { allowzero: false }, &[context, shape]);
    let context = net.site(context);
    let out = linear(&mut net, context, 8, 8, true);
    let sum = net.add(out, x);
    let a = norm(&mut net, sum);
    let a = net.site(a);
    let inner = linear(&mut net, a, 8, 12, true);
    let (root, one, half) = (net.scalar(std::f32::consts::SQRT_2), net.scalar(1.0), net.scalar(0.5));
    let e = net.op(Op::Binary(Binary::Div), &[inner, root]);
    let e = net.op(Op::Unary(Unary::Erf), &[e]);
    let e = net.add(e, one);
    let e = net.op(Op::Binary(Binary::Mul), &[inner, e]);
    let e = net.op(Op::Binary(Binary::Mul), &[e, half]);
    let e = net.site(e);
    let out = linear(&mut net, e, 12, 8, true);
    let sum = net.add(out, a);
    let y = norm(&mut net, sum);
    let y = net.site(y);
    let tokens = TOKENS as usize;
    check(&net.problem(&[&[1, tokens, 8], &[1, 1, tokens, tokens]], &[y], 7));
}

#[test]
fn attention_between_norms_and_sums_of_products() {
    let mut net = Net::new();
    let x = net.input();
    let scale = net.constant(&[8]);
    let a = net.op(Op::RmsNorm { axis: -1, epsilon: 1e-5 }, &[x, scale]);
    let heads = [0, 1].map(|_| {
        let w = net.constant(&[8, 8]);
        net.weights.push((w, Some(1)));
        net.op(Op::MatMul, &[a, w])
    });
    let attention =
        Attention { causal: true, q_heads: 2, kv_heads: 2, scale: None, softcap: 0.0, product: 0, window: [-1, -1] };
    let y = net.op(Op::Attention(attention), &[heads[0], heads[1], x]);
    let y = net.op(Op::Einsum { equation: "bld,bmd->blm".into() }, &[y, x]);
    let y = net.op(Op::Trilu { upper: false }, &[y]);
    let w = net.constant(&[6, 4]);
    net.weights.push((w, Some(1)));
    let y = net.op(Op::MatMul, &[y, w]);
    check(&net.problem(&[&[1, 6, 8]], &[y], 5));

    let mut net = Net::new();
    let x = net.input();
    let y = net.conv(x, [6, 4, 3, 3], 1, [1, 1, 1, 1], 1, 1);
    let (scale, bias) = (net.constant(&[6]), net.constant(&[6]));
    let y = net.op(Op::GroupNorm { groups: 2, epsilon: 1e-3 }, &[y, scale, bias]);
    let y = net.op(Op::Unary(Unary::Swish { alpha: 1.0 }), &[y]);
    let y = net.op(Op::LpNorm { axis: 1, p: 2 }, &[y]);
    check(&net.problem(&[&[1, 4, 5, 4]], &[y], 6));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let mut net = Net::new();
        let x = net.input();
        let a = net.conv(x, [16, 8, 3, 3], 1, [1, 1, 1, 1], 1, 1);
        let a = net.relu(a);
        let a = net.site(a);
        let b = net.conv(a, [8, 16, 3, 3], 1, [1, 1, 1, 1], 1, 1);
        let y = net.add(b, x);
        net.site(y);
        let problem = net.problem(&[&[1, 8, 20, 20]], &[y], 24);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut trainer = CpuTrainer::new(&problem).unwrap();
            let draws = RandomDraws { seed: 3, unit: 1, batch: 24, samples: 24, input_keep: 0.5, activation_keep: 0.5 };
            (1..=3).for_each(|i| trainer.step(&step(i, draws, 0.01)).unwrap());
            (trainer.losses().unwrap(), trainer.alpha(), trainer.grids())
        })
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(3), one);
}

#[test]
fn buffers_are_shared_by_values_whose_lives_do_not_overlap() {
    let mut net = Net::new();
    let mut x = net.input();
    for _ in 0..10 {
        x = net.conv(x, [4, 4, 3, 3], 1, [1, 1, 1, 1], 1, 1);
        x = net.relu(x);
    }
    let problem = net.problem(&[&[1, 4, 8, 8]], &[x], 1);
    let program: &Program = &problem.program;
    assert!(super::code::Code::new(program, false).unwrap().buffers.len() <= 3);
    assert!(super::code::Code::new(program, true).unwrap().buffers.len() <= 34);
}

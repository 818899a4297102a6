//! `cargo bench`: an iteration of typical units, inference, and what finds first grids: channel factors, observing, the
//! search for a grid, refining; what is done once for a graph. Whole networks: `qdrop bench`.

use divan::Bencher;
use divan::counter::ItemsCount;
use qdrop::calibrate::{self, Channels};
use qdrop::engine::cpu::{Cpu, CpuInference, CpuTrainer};
use qdrop::engine::device::{Device, Inference, OutputError, Values};
use qdrop::engine::facts;
use qdrop::engine::program::{Program, ProgramSite, Region, compile};
use qdrop::engine::train::{Choices, RandomDraws, Step, Trainer};
use qdrop::graph::{Binary, Dim, Fact, Graph, Node, Op, Padding, Unary, ValueId, Window};
use qdrop::passes::{InputShapes, simplify};
use qdrop::plan::{Recipe, Target, factor_sites, plan};
use qdrop::quant::{Grid, LayerId, Observation, RangeSpec, Search, fit};
use qdrop::recon::{Problem, Weight};
use qdrop::tensor::{DType, RowStore, Rows, Tensor};
use std::sync::Mutex;

/// Samples an iteration.
const BATCH: usize = 32;

fn main() {
    divan::main();
}

/// Numbers between -0.5 and 0.5 that look random.
fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(next).collect()
}

/// A unit under construction: its graph, where weights and quantizers are.
struct Unit {
    graph: Graph,
    x: ValueId,
    shape: [usize; 3],
    weights: Vec<(ValueId, Vec<usize>)>,
    sites: Vec<ValueId>,
}

impl Unit {
    fn new(shape: [usize; 3]) -> Self {
        let mut graph = Graph { opset: 17, ..Graph::default() };
        let dims = [1, shape[0], shape[1], shape[2]].map(Dim::Known).to_vec();
        let x = graph.add_value("x", Fact { dtype: Some(DType::F32), shape: Some(dims) });
        graph.inputs.push(x);
        Unit { graph, x, shape, weights: Vec::new(), sites: Vec::new() }
    }

    fn push(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let name = format!("v{}", self.graph.values.len());
        let y = self.graph.add_value(&name, Fact::default());
        self.graph.nodes.push(Node::new(name, op, inputs, &[y]));
        y
    }

    /// A convolution with as many outputs as `to`, `kernel` square, from `from` channels in `group` groups.
    fn conv(&mut self, x: ValueId, [from, to, kernel, group]: [usize; 4]) -> ValueId {
        let shape = vec![to, from / group, kernel, kernel];
        let n = shape.iter().product();
        let content = Tensor::f32(&shape, noise(self.weights.len() as u64 + 1, n));
        let w = self.graph.add_constant(&format!("w{}", self.weights.len()), content);
        self.weights.push((w, shape));
        let padding = Padding::Explicit(vec![kernel as i64 / 2; 4]);
        let window = Window { kernel: vec![kernel as i64; 2], strides: vec![], dilations: vec![], padding };
        self.push(Op::Conv { window, group: group as i64 }, &[x, w])
    }

    fn quantized(&mut self, x: ValueId) -> ValueId {
        let y = self.push(Op::Unary(Unary::Relu), &[x]);
        self.sites.push(y);
        y
    }

    /// The network with its weights as they are.
    fn float(mut self, y: ValueId) -> Float {
        self.graph.outputs.push(y);
        let facts = facts::infer(&self.graph, &[[1].iter().chain(&self.shape).copied().collect()]).unwrap();
        let region = Region {
            nodes: self.graph.node_ids().collect(),
            inputs: vec![self.x],
            outputs: vec![y],
            sites: self.sites.iter().map(|&s| (s, None)).collect(),
            ..Region::default()
        };
        let program = compile(&self.graph, &facts, &region).unwrap();
        let numel = self.shape.iter().product::<usize>();
        let images = Rows::new(BATCH, noise(7, BATCH * numel));
        Float { graph: self.graph, facts, program, images }
    }

    fn finish(mut self, y: ValueId) -> (Program, Problem) {
        self.graph.outputs.push(y);
        let facts = facts::infer(&self.graph, &[[1].iter().chain(&self.shape).copied().collect()]).unwrap();
        let region = Region {
            nodes: self.graph.node_ids().collect(),
            inputs: vec![self.x],
            outputs: vec![y],
            weights: self.weights.iter().map(|w| w.0).collect(),
            sites: self.sites.iter().map(|&s| (s, None)).collect(),
        };
        let program = compile(&self.graph, &facts, &region).unwrap();
        let weight = |(layer, (w, shape)): (LayerId, &(ValueId, Vec<usize>))| {
            let float = self.graph.constant(*w).unwrap().to_f32().unwrap();
            let grid = Grid::per_tensor(4, 1.0 / 15.0, 8).unwrap();
            Weight { layer, float, shape: shape.clone(), grid }
        };
        let rows = |seed: u64, slot: usize| {
            let width = program.slots[slot].shape.iter().product::<usize>();
            Rows::new(BATCH, noise(seed, BATCH * width))
        };
        let problem = Problem {
            weights: (0..).map(LayerId).zip(&self.weights).map(weight).collect(),
            biases: Vec::new(),
            scaled: Vec::new(),
            grids: vec![Grid::per_tensor(4, 0.1, 0).unwrap(); self.sites.len()],
            scale_rates: vec![1.0; self.sites.len()],
            float_inputs: vec![rows(7, program.inputs[0])],
            quantized_inputs: vec![rows(8, program.inputs[0])],
            targets: vec![rows(9, program.outputs[0])],
            loss_weights: vec![None],
            program: program.clone(),
        };
        (program, problem)
    }
}

/// Two 3×3 convolutions with a shortcut.
fn basic(channels: usize, side: usize) -> (Program, Problem) {
    let mut u = Unit::new([channels, side, side]);
    let a = u.conv(u.x, [channels, channels, 3, 1]);
    let a = u.quantized(a);
    let b = u.conv(a, [channels, channels, 3, 1]);
    let sum = u.push(Op::Binary(Binary::Add), &[b, u.x]);
    let y = u.quantized(sum);
    u.finish(y)
}

/// A network before anything is quantized, and images for it.
struct Float {
    graph: Graph,
    facts: facts::Facts,
    program: Program,
    images: Rows,
}

/// Expansion by 6, depthwise 3×3, projection.
fn expanded(channels: usize, side: usize) -> (Unit, ValueId) {
    let (mut u, inner) = (Unit::new([channels, side, side]), 6 * channels);
    let a = u.conv(u.x, [channels, inner, 1, 1]);
    let a = u.quantized(a);
    let b = u.conv(a, [inner, inner, 3, inner]);
    let b = u.quantized(b);
    let y = u.conv(b, [inner, channels, 1, 1]);
    (u, y)
}

fn inverted(channels: usize, side: usize) -> (Program, Problem) {
    let (u, y) = expanded(channels, side);
    u.finish(y)
}

fn iterate(bencher: Bencher, (_, problem): (Program, Problem)) {
    let draws = RandomDraws { seed: 1, unit: 0, batch: BATCH, samples: BATCH, input_keep: 0.5, activation_keep: 0.5 };
    let mut trainer = CpuTrainer::new(&problem).unwrap();
    let mut iteration = 0;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        iteration += 1;
        let (rounding_lr, bias_lr, scale_lr) = (1e-3, 1e-3, 4e-5);
        let (choices, lambda, beta, settled_below) = (Choices::Drawn(draws), 0.01, 10.0, None);
        let step =
            Step { iteration, choices, lambda, beta, rounding_lr, bias_lr, scale_lr, scaled_lr: 0.0, settled_below };
        trainer.step(&step).unwrap();
        trainer.losses().unwrap()
    });
}

/// Channels and side of ResNet-18's stages.
#[divan::bench(args = [(64, 56), (128, 28), (256, 14), (512, 7)])]
fn basic_block(bencher: Bencher, (channels, side): (usize, usize)) {
    iterate(bencher, basic(channels, side));
}

/// Channels and side of some of MobileNetV2's blocks.
#[divan::bench(args = [(24, 56), (64, 14), (160, 7)])]
fn inverted_residual(bencher: Bencher, (channels, side): (usize, usize)) {
    iterate(bencher, inverted(channels, side));
}

#[divan::bench(args = [(64, 56), (512, 7)])]
fn inference(bencher: Bencher, (channels, side): (usize, usize)) {
    let (program, problem) = basic(channels, side);
    let runner = CpuInference::new(&program).unwrap();
    let weights: Vec<&[f32]> = problem.weights.iter().map(|w| w.float.as_slice()).collect();
    let grids: Vec<Option<&Grid>> = problem.grids.iter().map(Some).collect();
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench(|| runner.run(&weights, &grids, &problem.float_inputs, &RowStore::memory()).unwrap());
}

/// Activations watched for first grids: channels and side of some of MobileNetV2's blocks.
#[divan::bench(args = [(24, 56), (64, 14), (160, 7)])]
fn observing(bencher: Bencher, (channels, side): (usize, usize)) {
    let (u, y) = expanded(channels, side);
    let Float { program, images, .. } = u.float(y);
    let runner = CpuInference::new(&program).unwrap();
    bencher.counter(ItemsCount::new(BATCH)).bench(|| {
        let seen: Vec<Mutex<Observation>> = program.sites.iter().map(|_| Mutex::default()).collect();
        let see = |site: ProgramSite, _: usize, group: Values| {
            seen[site.0].lock().unwrap().observe(group.all());
            Ok(())
        };
        runner.watch(std::slice::from_ref(&images), &see).unwrap();
        seen
    });
}

/// Activations screened for first grids that are worth refining at 8 bits, seven grids each.
#[divan::bench(args = [(24, 56), (64, 14), (160, 7)])]
fn refining(bencher: Bencher, (channels, side): (usize, usize)) {
    let (u, y) = expanded(channels, side);
    let Float { program, images, .. } = u.float(y);
    let grids: Vec<Grid> = (1..8).map(|i| Grid::per_tensor(8, 0.002 * i as f32, 0).unwrap()).collect();
    let grids = vec![grids; program.sites.len()];
    let cpu = Cpu::new(0).unwrap();
    let rows = [images];
    let outputs = [OutputError { size: 1.0, weights: None }];
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench(|| cpu.influence(&program, &rows, &outputs, &grids, 1, &mut |_| Ok(())).unwrap());
}

/// Scales behind as many convolutions folded into them: time in proportion to their number.
#[divan::bench(args = [256, 1024, 4096])]
fn simplifying(bencher: Bencher, layers: usize) {
    let mut u = Unit::new([1, 1, 1]);
    let mut x = u.x;
    for _ in 0..layers {
        let y = u.conv(x, [1, 1, 1, 1]);
        let scale = u.graph.add_constant("scale", Tensor::f32(&[1, 1, 1], vec![0.5]));
        x = u.push(Op::Binary(Binary::Mul), &[y, scale]);
    }
    u.graph.outputs.push(x);
    let graph = &u.graph;
    bencher
        .counter(ItemsCount::new(layers))
        .with_inputs(|| graph.clone())
        .bench_refs(|graph| simplify(graph, &InputShapes::declared()).unwrap());
}

/// Factors of the channels before a depthwise layer.
#[divan::bench(args = [(24, 56), (64, 14), (160, 7)])]
fn channel_factors(bencher: Bencher, (channels, side): (usize, usize)) {
    let (u, y) = expanded(channels, side);
    let Float { graph, facts, .. } = u.float(y);
    let plan = plan(&graph, &facts, &Recipe::default()).unwrap();
    let site = factor_sites(&graph, &facts, &plan, Target::Ort).into_iter().flatten().next().unwrap();
    let width = 6 * channels * side * side;
    let values: Vec<f32> = noise(5, BATCH * width).into_iter().map(|v| v.max(0.0)).collect();
    bencher.counter(ItemsCount::new(BATCH)).bench(|| {
        let mut seen = Channels::new(6 * channels);
        values.chunks_exact(width).for_each(|row| seen.observe(row, side * side, BATCH));
        calibrate::factors(&graph, &plan, &site, std::slice::from_ref(&seen), None).unwrap()
    });
}

/// Bits of the grid; the values are two-sided, so that scale and zero point are searched.
#[divan::bench(args = [2, 4, 8])]
fn first_grid(bencher: Bencher, bits: u32) {
    let mut seen = Observation::new();
    seen.observe(&noise(3, 1 << 20));
    let spec = RangeSpec { bits, symmetric: false, search: Search::Mse };
    bencher.bench(|| fit(&seen, &spec).unwrap());
}

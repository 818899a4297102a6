//! Whole reconstructions of one block against arrays recorded from the official code: every batch and mask is replayed.

use qdrop::engine::cpu::CpuTrainer;
use qdrop::engine::facts;
use qdrop::engine::naive::NaiveTrainer;
use qdrop::engine::program::{ProgramSite, Region, compile};
use qdrop::engine::train::{Draws, Keep, Purpose, Trainer};
use qdrop::graph::{Fact, Graph, Node, Op, Padding, Unary, ValueId, Window};
use qdrop::quant::{Grid, LayerId};
use qdrop::recon::{Choices, Problem, Settings, Weight, solve};
use qdrop::tensor::{DType, Rows, Tensor};
use qdrop_testing::shared;
use safetensors::SafeTensors;

struct Recorded(Vec<u8>);

impl Recorded {
    fn raw(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap_or_else(|_| panic!("no {name} in {:?}", file.names()));
        (view.shape().to_vec(), view.data().to_vec())
    }
    fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, data) = self.raw(name);
        (shape, data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }
    fn grid(&self, site: &str, bits: u32, axis: Option<usize>) -> Grid {
        let scale = self.f32(&format!("init.{site}.scale")).1;
        let zero_point = self.raw(&format!("init.{site}.zero_point_i32")).1;
        let zero_point = zero_point.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
        Grid { scale, zero_point, qmin: 0, qmax: (1 << bits) - 1, axis }
    }
    fn rows(&self, name: &str) -> Vec<Rows> {
        let (shape, data) = self.f32(name);
        vec![Rows::new(shape[0], data)]
    }
    fn metadata(&self) -> std::collections::HashMap<String, String> {
        SafeTensors::read_metadata(&self.0).unwrap().1.metadata().clone().unwrap()
    }
}

/// The recorded batches and masks.
struct Replayed {
    batch: usize,
    samples: Vec<usize>,
    /// Mask of the input, then of the sites; none when nothing was dropped.
    masks: Vec<(usize, Vec<u8>)>,
}

impl Draws for Replayed {
    fn batch(&self, iteration: usize) -> Vec<usize> {
        self.samples[(iteration - 1) * self.batch..iteration * self.batch].to_vec()
    }

    fn keep(&self, iteration: usize, purpose: Purpose, position: usize, mask: &mut [u8]) -> Keep {
        let number = match purpose {
            Purpose::Input(_) => 0,
            Purpose::Site(ProgramSite(i)) => i + 1,
        };
        let Some((width, data)) = self.masks.get(number) else { return Keep::All };
        assert_eq!(mask.len() * self.batch, *width);
        mask.copy_from_slice(&data[(iteration - 1) * width + position * mask.len()..][..mask.len()]);
        Keep::Masked
    }
}

/// One convolution: its float arrays, its site in the recorded file, stride, padding, groups.
struct Conv {
    float: &'static str,
    site: &'static str,
    input: usize,
    stride: i64,
    pad: i64,
    group: i64,
}

/// A block as a list of convolutions and the recorded names of its activation quantizers.
struct Block {
    convs: Vec<Conv>,
    inner: Vec<(usize, &'static str)>,
    /// Conv whose output is the shortcut; `None` for the block's input.
    shortcut: Option<usize>,
    clip: bool,
    relu_at_end: bool,
}

fn build(r: &Recorded, block: &Block) -> (Graph, Vec<ValueId>, Vec<ValueId>, ValueId, ValueId) {
    let mut g = Graph { opset: 17, ..Graph::default() };
    let real = Fact { dtype: Some(DType::F32), shape: None };
    let x = g.add_value("x", real.clone());
    g.inputs.push(x);
    let six = g.add_constant("six", Tensor::scalar(6.0));
    let zero = g.add_constant("zero", Tensor::scalar(0.0));
    let (mut weights, mut outs, mut sites) = (vec![], vec![], vec![]);
    for (i, c) in block.convs.iter().enumerate() {
        let (shape, data) = r.f32(&format!("float.{}.weight", c.float));
        let w = g.add_constant("w", Tensor::f32(&shape, data));
        let (shape, data) = r.f32(&format!("float.{}.bias", c.float));
        let b = g.add_constant("b", Tensor::f32(&shape, data));
        let from = if c.input == 0 { x } else { outs[c.input - 1] };
        let mut y = g.add_value("y", real.clone());
        let padding = Padding::Explicit(vec![c.pad; 4]);
        let window = Window { kernel: vec![], strides: vec![c.stride; 2], dilations: vec![], padding };
        g.nodes.push(Node::new("", Op::Conv { window, group: c.group }, &[from, w, b], &[y]));
        if block.inner.iter().any(|s| s.0 == i) {
            let a = g.add_value("a", real.clone());
            let node = if block.clip {
                Node::new("", Op::Clip, &[y, zero, six], &[a])
            } else {
                Node::new("", Op::Unary(Unary::Relu), &[y], &[a])
            };
            g.nodes.push(node);
            y = a;
            sites.push(a);
        }
        weights.push(w);
        outs.push(y);
    }
    let main = if block.shortcut.is_some() { outs[outs.len() - 2] } else { outs[outs.len() - 1] };
    let side = block.shortcut.map_or(x, |i| outs[i]);
    let mut y = g.add_value("sum", real.clone());
    g.nodes.push(Node::new("", Op::Binary(qdrop::graph::Binary::Add), &[main, side], &[y]));
    if block.relu_at_end {
        let a = g.add_value("end", real);
        g.nodes.push(Node::new("", Op::Unary(Unary::Relu), &[y], &[a]));
        y = a;
    }
    sites.push(y);
    g.outputs.push(y);
    g.check().unwrap();
    (g, weights, sites, x, y)
}

fn replay(name: &str, bits: (u32, u32), block: &Block) {
    let Some(dir) = shared("golden") else { return };
    let r = Recorded(std::fs::read(dir.join(format!("{name}.safetensors"))).unwrap());
    let meta = r.metadata();
    let number = |key: &str| meta[key].parse::<f64>().unwrap();
    let (g, weights, sites, x, y) = build(&r, block);
    let mut shape = r.f32("fp_inp").0;
    shape[0] = 1;
    let facts = facts::infer(&g, &[shape]).unwrap();
    let region = Region {
        nodes: g.node_ids().collect(),
        inputs: vec![x],
        outputs: vec![y],
        weights,
        sites: sites.iter().map(|&s| (s, None)).collect(),
    };
    let program = compile(&g, &facts, &region).unwrap();
    let names: Vec<String> = (block.inner.iter().map(|s| format!("{}.layer_post_act_fake_quantize", s.1)))
        .chain(["block_post_act_fake_quantize".to_string()])
        .collect();
    let weight = |(layer, c): (LayerId, &Conv)| {
        let (shape, float) = r.f32(&format!("float.{}.weight", c.float));
        Weight { layer, float, shape, grid: r.grid(&format!("{}.module.weight_fake_quant", c.site), bits.0, Some(0)) }
    };
    let problem = Problem {
        weights: (0..).map(LayerId).zip(&block.convs).map(weight).collect(),
        biases: Vec::new(),
        scaled: Vec::new(),
        grids: names.iter().map(|n| r.grid(n, bits.1, None)).collect(),
        scale_rates: vec![1.0; names.len()],
        float_inputs: r.rows("fp_inp"),
        quantized_inputs: r.rows("q_inp"),
        loss_weights: vec![None],
        targets: r.rows("fp_out"),
        program,
    };
    let settings = Settings {
        stop_settled: false,
        iterations: number("iters") as usize,
        rounding_lr: number("weight_lr"),
        bias_lr: 0.0,
        scale_lr: number("scale_lr"),
        scaled_lr: 0.0,
        lambda: number("reg_weight"),
        warmup: number("warm_up"),
        beta_start: 20.0,
        beta_end: 2.0,
    };
    let index = r.raw("batch_index_i64").1;
    let mask = |j: usize| {
        let (shape, data) = r.raw(&format!("keep_mask{j}_u8"));
        (shape[1], data)
    };
    let dropped = number("drop_prob") < 1.0;
    let draws = Replayed {
        batch: number("batch_size") as usize,
        samples: index.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize).collect(),
        masks: if dropped { (0..=names.len()).map(mask).collect() } else { vec![] },
    };
    let naive = &mut NaiveTrainer::<f32>::new(&problem).unwrap() as &mut dyn Trainer;
    let cpu = &mut CpuTrainer::new(&problem).unwrap() as &mut dyn Trainer;
    for (device, trainer) in [("naive", naive), ("cpu", cpu)] {
        compare(&format!("{name} on {device}"), &r, block, &names, &problem, &settings, trainer, &draws);
    }
}

#[allow(clippy::too_many_arguments)]
fn compare(
    name: &str,
    r: &Recorded,
    block: &Block,
    names: &[String],
    problem: &Problem,
    settings: &Settings,
    trainer: &mut dyn Trainer,
    draws: &Replayed,
) {
    let solution = solve(problem, settings, trainer, Choices::Replayed(draws), &mut |_, _| true).unwrap();
    let losses = r.f32("losses").1;
    let worst = solution
        .losses
        .iter()
        .flat_map(|l| [l.reconstruction, l.total])
        .zip(&losses)
        .map(|(a, &b)| (a / f64::from(b) - 1.0).abs());
    let worst = worst.fold(0.0, f64::max);
    let (mut same, mut all) = (0, 0);
    for (alpha, c) in solution.alpha.iter().zip(&block.convs) {
        let want = r.f32(&format!("final.{}.module.weight_fake_quant.alpha", c.site)).1;
        same += alpha.iter().zip(&want).filter(|(a, b)| (**a >= 0.0) == (**b >= 0.0)).count();
        all += want.len();
    }
    println!("{name}: worst loss deviation {worst:.2e}, rounding equal on {same} of {all}");
    assert!(worst < 1e-3, "{name}: loss deviates by {worst:.2e}");
    assert!(same as f64 >= 0.999 * all as f64, "{name}: rounding equal on {same} of {all}");
    for (grid, site) in solution.grids.iter().zip(names) {
        let want = r.f32(&format!("final.{site}.scale")).1[0];
        assert!((grid.scale[0] / want - 1.0).abs() < 1e-4, "{name}: {site}: {} instead of {want}", grid.scale[0]);
    }
}

fn basic() -> Block {
    Block {
        convs: vec![
            Conv { float: "conv1", site: "conv1_relu", input: 0, stride: 1, pad: 1, group: 1 },
            Conv { float: "conv2", site: "conv2", input: 1, stride: 1, pad: 1, group: 1 },
        ],
        inner: vec![(0, "conv1_relu")],
        shortcut: None,
        clip: false,
        relu_at_end: true,
    }
}

#[test]
fn basic_block_at_two_bits_with_dropping() {
    replay("block_basic_w2a2_drop", (2, 2), &basic());
}

#[test]
fn basic_block_at_four_bits_without_dropping() {
    replay("block_basic_w4a4_nodrop", (4, 4), &basic());
}

#[test]
fn inverted_block_at_three_bits_with_dropping() {
    let block = Block {
        convs: vec![
            Conv { float: "conv.0", site: "conv.0", input: 0, stride: 1, pad: 0, group: 1 },
            Conv { float: "conv.3", site: "conv.1", input: 1, stride: 1, pad: 1, group: 24 },
            Conv { float: "conv.6", site: "conv.2", input: 2, stride: 1, pad: 0, group: 1 },
        ],
        inner: vec![(0, "conv.0"), (1, "conv.1")],
        shortcut: None,
        clip: true,
        relu_at_end: false,
    };
    replay("block_inverted_w3a3_drop", (3, 3), &block);
}

#[test]
fn block_with_downsample_at_two_and_four_bits_with_dropping() {
    let block = Block {
        convs: vec![
            Conv { float: "conv1", site: "conv1_relu", input: 0, stride: 2, pad: 1, group: 1 },
            Conv { float: "conv2", site: "conv2", input: 1, stride: 1, pad: 1, group: 1 },
            Conv { float: "downsample.0", site: "downsample", input: 0, stride: 2, pad: 0, group: 1 },
        ],
        inner: vec![(0, "conv1_relu")],
        shortcut: Some(2),
        clip: false,
        relu_at_end: true,
    };
    replay("block_downsample_w2a4_drop", (2, 4), &block);
}

use super::*;
use crate::engine::device::{Device, processors};
use crate::graph::{Dim, Fact, Unary};
use crate::passes::{InputShapes, simplify};
use crate::plan::{EncodingsVersion, GridSpec, LayerId, Observer};

const ORT: Output = Output { target: Target::Ort, format: Format::Qcdq, encodings_version: EncodingsVersion::V1_0_0 };

fn spec(bits: u32) -> GridSpec {
    GridSpec { bits, symmetric: false, observer: Observer::Mse, percentile: 99.99 }
}

fn site(g: &Graph, value: ValueId, bits: u32) -> Site {
    Site { name: g.value(value).name.clone(), value, readers: None, grid: spec(bits) }
}

fn float(shape: &[usize]) -> Fact {
    Fact { dtype: Some(DType::F32), shape: Some(shape.iter().map(|&d| Dim::Known(d)).collect()) }
}

fn kinds(g: &Graph) -> Vec<&str> {
    g.nodes.iter().map(|n| n.op.kind()).collect()
}

/// y = function(x·wᵀ + b) as Gemm or Conv of one pixel, both ends quantized: the graph, its plan and the grids of the two
/// sites. `function` takes the constants after its first operand.
fn layer(convolution: bool, w: Tensor, b: &[f32], function: Option<(Op, &[f32])>) -> (Graph, Plan, [Grid; 2]) {
    let mut g = Graph { opset: 13, ..Graph::default() };
    let (out, depth) = (w.shape()[0], w.shape()[1]);
    let tail: &[usize] = if convolution { &[1, 1] } else { &[] };
    let shape = |channels: usize| [&[1, channels], tail].concat();
    let x = g.add_value("x", float(&shape(depth)));
    let w = w.reshaped(&[&[out, depth], tail].concat()).unwrap();
    let shape_of_weight = w.shape().to_vec();
    let w = g.add_constant("w", w);
    let b = g.add_constant("b", Tensor::f32(&[out], b.to_vec()));
    let h = g.add_value("h", float(&shape(out)));
    let op = match convolution {
        true => Op::Conv { group: 1, window: crate::graph::testing::window(vec![]) },
        false => Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true },
    };
    g.nodes.push(Node::new("layer", op, &[x, w, b], &[h]));
    let mut y = h;
    if let Some((op, bounds)) = function {
        y = g.add_value("y", float(&shape(out)));
        let mut operands = vec![h];
        operands.extend(bounds.iter().map(|&v| g.add_constant("bound", Tensor::scalar(v))).collect::<Vec<_>>());
        g.nodes.push(Node::new("function", op, &operands, &[y]));
    }
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    let layers = vec![Layer {
        name: "layer".into(),
        weight: w,
        nodes: vec![NodeId(0)],
        grid: spec(4),
        axis: Some(0),
        shape: shape_of_weight,
    }];
    let sites = vec![site(&g, x, 8), site(&g, y, 4)];
    let grids = [Grid::per_tensor(8, 0.5, 128).unwrap(), Grid::per_tensor(4, 0.5, 0).unwrap()];
    (g, Plan { layers, sites, ..Plan::default() }, grids)
}

fn weights(bits: u32, zeros: Vec<i32>, integers: Vec<u8>) -> QuantizedWeight {
    let grid = Grid::per_channel(bits, vec![0.25; zeros.len()], zeros, 0).unwrap();
    QuantizedWeight { layer: LayerId(0), grid, integers }
}

fn content<'a>(g: &'a Graph, name: &str) -> Option<&'a Tensor> {
    g.values.iter().find(|v| v.name == name).and_then(|v| v.constant.as_deref())
}

#[test]
fn integers_of_any_width_come_out_of_their_bytes() {
    // An odd number of elements, so that the last byte is not full.
    let (out, depth) = (91, 101);
    for bits in 2..=8u32 {
        let zeros: Vec<i32> = (0..out).map(|c| if bits == 8 { 128 } else { c % (1 << bits) }).collect();
        let integers: Vec<u8> = (0..out as usize * depth).map(|i| (i * i / 7 % (1 << bits)) as u8).collect();
        let (g, mut plan, grids) =
            layer(false, Tensor::f32(&[out as usize, depth], vec![0.5; integers.len()]), &[0.0; 91], None);
        plan.layers[0].grid.bits = bits;
        let weight = weights(bits, zeros.clone(), integers.clone());
        let mut lowered = lower(&g, &plan, &[weight], &grids, &[], ORT).unwrap();
        let bytes: usize =
            lowered.values.iter().filter_map(|v| v.constant.as_ref()).map(|t| t.len() * t.dtype().bits() / 8).sum();
        let packed = integers.len() * bits as usize / 8;
        assert!((packed..packed + 4000).contains(&bytes), "{bits} bits take {bytes} bytes");
        assert_eq!(required_opset(ORT, &plan), 13);
        simplify(&mut lowered, &InputShapes::declared()).unwrap();
        let dequantize =
            lowered.nodes.iter().find(|n| lowered.constant(n.inputs[0].unwrap()).is_some_and(|t| t.rank() == 2));
        let found = lowered.constant(dequantize.unwrap().inputs[0].unwrap()).unwrap();
        // The bias has finer units where integers leave room.
        let finer = (0.25 / content(&lowered, "w_scale").unwrap().as_f32().unwrap()[0]) as i64;
        assert_eq!(finer > 1, bits < 6, "{bits} bits: {finer}");
        let want: Vec<i64> =
            integers.iter().enumerate().map(|(i, &q)| finer * (i64::from(q) - i64::from(zeros[i / depth]))).collect();
        assert_eq!((found.dtype(), found.to_i64().unwrap()), (DType::I8, want), "{bits} bits");
    }
}

#[test]
fn rectifiers_become_bounds_of_integers() {
    let clip = |low: f32, high: f32| Some((Op::Clip, vec![low, high]));
    let relu = Some((Op::Unary(Unary::Relu), vec![]));
    // Bits, zero point, rectifier, and the integers that are left of 0..=255.
    for (bits, zero, function, want) in [
        (8, 0, relu.clone(), None),
        (4, 0, relu.clone(), Some((0, 15))),
        (8, 100, relu, Some((100, 255))),
        (4, 0, clip(0.0, 6.0), Some((0, 12))),
        (4, 0, clip(0.0, 600.0), Some((0, 15))),
        (8, 128, clip(-1.0, 1.0), Some((126, 130))),
    ] {
        let (op, bounds) = function.unwrap();
        let w = Tensor::f32(&[1, 2], vec![1.0, -1.0]);
        let (g, plan, mut grids) = layer(true, w, &[0.0], Some((op, &bounds)));
        grids[1] = Grid::per_tensor(bits, 0.5, zero).unwrap();
        let out = lower(&g, &plan, &[weights(4, vec![8], vec![12, 4])], &grids, &[], ORT).unwrap();
        let mut chain = vec!["Conv", "QuantizeLinear"];
        chain.extend(want.map(|_| "Clip"));
        chain.push("DequantizeLinear");
        assert_eq!(kinds(&out)[kinds(&out).len() - chain.len()..], chain);
        let last = &out.nodes[out.nodes.len() - 1];
        assert_eq!(out.value(last.output(0).unwrap()).name, "y", "the output keeps its name");
        let node = &out.nodes[out.nodes.len() - 2];
        let bound = |i: usize| out.constant(node.input(i).unwrap()).unwrap().to_i64().unwrap()[0];
        assert_eq!((node.op == Op::Clip).then(|| (bound(1), bound(2))), want);
    }
}

#[test]
fn biases_are_integers_in_units_of_both_steps() {
    for convolution in [false, true] {
        let w = Tensor::f32(&[2, 2], vec![1.0, -1.0, 0.5, 0.0]);
        let (g, plan, grids) = layer(convolution, w, &[0.5, -1.03], None);
        let out = lower(&g, &plan, &[weights(4, vec![8, 0], vec![12, 4, 2, 0])], &grids, &[], ORT).unwrap();
        let bias = content(&out, "b_quantized").unwrap();
        // 4 is the largest integer: 16 times as much fits int8, and pairs of products 16 bits.
        assert_eq!((bias.dtype(), bias.to_i64().unwrap()), (DType::I32, vec![64, -132]));
        assert_eq!(content(&out, "b_scale").unwrap().as_f32().unwrap(), [0.125 / 16.0; 2]);
        assert_eq!(content(&out, "b"), None);
        assert_eq!(content(&out, "w_quantized").unwrap().to_i64().unwrap(), [64, -64, 32, 0]);
    }
}

#[test]
fn biases_that_do_not_fit_widen_dead_channels_or_stand_apart() {
    // The first channel is dead, the second is not.
    let w = || Tensor::f32(&[2, 2], vec![0.0, 0.0, 1.0, -1.0]);
    let weight = |first: f32, second: f32| {
        let grid = Grid::per_channel(4, vec![first, second], vec![8, 8], 0).unwrap();
        QuantizedWeight { layer: LayerId(0), grid, integers: vec![8, 8, 12, 4] }
    };
    let (g, plan, grids) = layer(true, w(), &[3.0, 1.0], None);
    let out = lower(&g, &plan, &[weight(1e-12, 0.25)], &grids, &[], ORT).unwrap();
    let (steps, integers) = (content(&out, "b_scale").unwrap(), content(&out, "b_quantized").unwrap());
    let real = f64::from(steps.as_f32().unwrap()[0]) * integers.to_f64().unwrap()[0];
    assert!((real - 3.0).abs() < 1e-6 && content(&out, "w_scale").unwrap().as_f32().unwrap()[0] > 1e-12, "{real}");

    // What the living channel would lose shows in a fine result.
    let (g, plan, mut grids) = layer(true, w(), &[0.0, 1e6], None);
    grids[1] = Grid::per_tensor(8, 1e-6, 0).unwrap();
    let out = lower(&g, &plan, &[weight(0.25, 1e-6)], &grids, &[], ORT).unwrap();
    assert!(content(&out, "b_quantized").is_none() && kinds(&out).contains(&"Add"));
    let (g, plan, grids) = layer(false, w(), &[0.0, 1e6], None);
    let out = lower(&g, &plan, &[weight(0.25, 1e-6)], &grids, &[], ORT).unwrap();
    assert!(content(&out, "b_quantized").is_none() && kinds(&out).contains(&"Add"));
    assert_eq!(content(&out, "w_scale").unwrap().as_f32().unwrap(), [0.25 / 16.0, 1e-6 / 16.0], "no step is widened");
}

#[test]
fn layers_that_do_not_run_in_integers_have_float_weights_once_loaded() {
    let w = Tensor::f32(&[2, 2], vec![1.0, -1.0, 0.5, 0.0]);
    let weight = weights(8, vec![3, 200], vec![0, 255, 2, 0]);
    let (g, plan, grids) = layer(true, w, &[0.5, -1.0], None);
    // The distance 255 - 3 does not fit int8; without a quantizer behind it a convolution is float.
    let far = lower(&g, &plan, std::slice::from_ref(&weight), &grids, &[], ORT).unwrap();
    let mut open = plan.clone();
    open.sites.truncate(1);
    let open = lower(&g, &open, &[weights(4, vec![8, 0], vec![12, 4, 2, 0])], &grids[..1], &[], ORT).unwrap();
    // Between quantizers half the weight meets twice the operand, so that it is not rounded again.
    for (mut out, doubled, want) in [(far, true, [-0.375, 31.5, -24.75, -25.0]), (open, false, [1.0, -1.0, 0.5, 0.0])] {
        simplify(&mut out, &InputShapes::declared()).unwrap();
        let conv = out.nodes.iter().find(|n| matches!(n.op, Op::Conv { .. })).unwrap();
        let product = out.nodes.iter().find(|n| n.outputs[0] == conv.input(0)).map(|n| n.op.kind());
        assert_eq!(product == Some("Mul"), doubled, "{product:?}");
        assert_eq!(out.constant(conv.input(1).unwrap()).unwrap().as_f32().unwrap(), want);
    }
}

#[test]
fn tables_are_looked_up_in_integers() {
    for (zeros, dtype) in [(vec![8, 3, 0], DType::I8), (vec![0, 255, 7], DType::U8)] {
        let bits = if dtype == DType::I8 { 4 } else { 8 };
        let mut g = Graph { opset: 13, ..Graph::default() };
        let ids = g.add_value("ids", Fact { dtype: Some(DType::I64), shape: Some(vec![Dim::Known(1), Dim::Known(3)]) });
        let table = g.add_constant("table", Tensor::f32(&[3, 2], vec![0.0; 6]));
        let y = g.add_value("y", float(&[1, 3, 2]));
        g.nodes = vec![Node::new("look", Op::Gather { axis: 0 }, &[table, ids], &[y])];
        (g.inputs, g.outputs) = (vec![ids], vec![y]);
        let (weight, nodes, shape) = (table, vec![NodeId(0)], vec![3, 2]);
        let layers = vec![Layer { name: "look".into(), weight, nodes, grid: spec(bits), axis: Some(0), shape }];
        let integers = vec![15, 1, 2, 3, 4, 5];
        let plan = Plan { layers, ..Plan::default() };
        let out = lower(&g, &plan, &[weights(bits, zeros.clone(), integers.clone())], &[], &[], ORT).unwrap();
        assert_eq!(out.nodes[0].op.kind(), "Gather");
        assert_eq!(out.constant(out.nodes[0].input(0).unwrap()).unwrap().dtype(), dtype);
        assert_eq!(out.outputs, [y]);
        let shapes = InputShapes::declared().concrete(&out, 1).unwrap();
        let facts = crate::engine::facts::infer(&out, &shapes).unwrap();
        let nodes = out.node_ids().collect();
        let (inputs, outputs) = (out.inputs.clone(), out.outputs.clone());
        let region = crate::engine::program::Region { nodes, inputs, outputs, ..Default::default() };
        let runner =
            processors(1).unwrap().inference(&crate::engine::program::compile(&out, &facts, &region).unwrap()).unwrap();
        let rows = crate::tensor::Rows::new(1, vec![2.0, 0.0, 1.0]);
        let found = runner.run(&[], &[], &[rows], &crate::tensor::RowStore::memory()).unwrap();
        let real = |row: usize, column: usize| {
            let q = i32::from(integers[row * 2 + column]);
            (q - zeros[row]) as f32 * 0.25
        };
        let want = [real(2, 0), real(2, 1), real(0, 0), real(0, 1), real(1, 0), real(1, 1)];
        assert_eq!(found[0].row(0).unwrap().to_vec(), want);
    }
}

#[test]
fn names_of_nodes_differ() {
    let w = Tensor::f32(&[2, 2], vec![1.0, -1.0, 0.5, 0.0]);
    let (mut g, plan, grids) = layer(true, w, &[0.5, -1.0], Some((Op::Unary(Unary::Relu), &[])));
    // As the program names its own.
    g.nodes[0].name = "QuantizeLinear_x_quantized".into();
    g.nodes[1].name = "DequantizeLinear_w_dequantized".into();
    let out = lower(&g, &plan, &[weights(4, vec![8, 0], vec![12, 4, 2, 0])], &grids, &[], ORT).unwrap();
    let names: Vec<&str> = out.nodes.iter().map(|n| n.name.as_str()).filter(|n| !n.is_empty()).collect();
    let apart: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(apart.len(), names.len(), "{names:?}");
}

#[test]
fn stacks_of_matrices_have_float_weights_for_onnx_runtime() {
    let mut g = Graph { opset: 13, ..Graph::default() };
    let x = g.add_value("x", float(&[2, 1, 2]));
    let w = g.add_constant("w", Tensor::f32(&[2, 2, 2], vec![0.5; 8]));
    let y = g.add_value("y", float(&[2, 1, 2]));
    g.nodes = vec![Node::new("stack", Op::MatMul, &[x, w], &[y])];
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    let layer = Layer {
        name: "stack".into(),
        weight: w,
        nodes: vec![NodeId(0)],
        grid: spec(8),
        axis: Some(2),
        shape: vec![2, 2, 2],
    };
    let sites = vec![site(&g, x, 8)];
    let mut plan = Plan { layers: vec![layer], sites, ..Plan::default() };
    let grids = [Grid::per_tensor(8, 0.5, 128).unwrap()];
    let product = |plan: &Plan, grid: Grid| {
        let weight = QuantizedWeight { layer: LayerId(0), grid, integers: vec![130; 8] };
        let out = lower(&g, plan, &[weight], &grids, &[], ORT).unwrap();
        let read = out.nodes.iter().find(|n| n.op == Op::MatMul).unwrap().input(1);
        out.nodes.iter().find(|n| n.outputs[0] == read).unwrap().op.kind().to_string()
    };
    assert_eq!(product(&plan, Grid::per_channel(8, vec![0.25; 2], vec![128; 2], 2).unwrap()), "Mul");
    plan.layers[0].axis = None;
    assert_eq!(product(&plan, Grid::per_tensor(8, 0.25, 128).unwrap()), "DequantizeLinear");
}

#[test]
fn steps_of_biases_are_normal_numbers() {
    let w = Tensor::f32(&[2, 2], vec![1.0, -1.0, 0.5, 0.0]);
    for (step, apart) in [(0.25, false), (1e-38, true)] {
        let (g, plan, grids) = layer(false, w.clone(), &[0.0, 0.0], None);
        let grid = Grid::per_channel(4, vec![0.25, step], vec![8, 8], 0).unwrap();
        let weight = QuantizedWeight { layer: LayerId(0), grid, integers: vec![12, 4, 10, 8] };
        let out = lower(&g, &plan, &[weight], &grids, &[], ORT).unwrap();
        let steps = content(&out, "b_scale").map(|t| t.as_f32().unwrap().iter().all(|s| s.is_normal()));
        assert_eq!((steps, kinds(&out).contains(&"Add")), (if apart { None } else { Some(true) }, apart));
    }
}

#[test]
fn native_types_are_left_out_before_max_pool_and_behind_clip() {
    let output = Output { format: Format::Qdq, ..ORT };
    let clip = |high: f32| Some((Op::Clip, vec![0.0, high]));
    for (high, pooled, native) in [(600.0, false, true), (6.0, false, false), (600.0, true, false)] {
        let (op, bounds) = clip(high).unwrap();
        let w = Tensor::f32(&[1, 2], vec![1.0, -1.0]);
        let (mut g, plan, grids) = layer(true, w, &[0.0], Some((op, &bounds)));
        g.opset = 21;
        if pooled {
            let y = g.outputs[0];
            let z = g.add_value("z", float(&[1, 1, 1, 1]));
            let mut window = crate::graph::testing::window(vec![]);
            window.kernel = vec![1, 1];
            g.nodes.push(Node::new("pool", Op::MaxPool { window, ceil_mode: false }, &[y], &[z]));
            g.outputs = vec![z];
        }
        let out = lower(&g, &plan, &[weights(4, vec![8], vec![12, 4])], &grids, &[], output).unwrap();
        let dtype = content(&out, "y_zero_point").unwrap().dtype();
        assert_eq!(dtype, if native { DType::U4 } else { DType::U8 });
        assert_eq!(kinds(&out).contains(&"Clip"), !native);
    }
}

#[test]
fn sixteen_bits_keep_their_rectifier_and_get_no_kernels() {
    let w = Tensor::f32(&[1, 2], vec![1.0, -1.0]);
    let (mut g, mut plan, mut grids) = layer(true, w, &[0.5], Some((Op::Unary(Unary::Relu), &[])));
    g.opset = 21;
    plan.sites[1].grid.bits = 16;
    grids[1] = Grid::per_tensor(16, 0.5, 0).unwrap();
    let out = lower(&g, &plan, &[weights(4, vec![8], vec![12, 4])], &grids, &[], ORT).unwrap();
    let tail = kinds(&out);
    assert_eq!(tail[tail.len() - 3..], ["Relu", "QuantizeLinear", "DequantizeLinear"]);
    assert!(content(&out, "b_quantized").is_none(), "the convolution runs in float");
    let mut recipe = crate::plan::Recipe::default();
    assert_eq!(recipe.placement(), crate::plan::Placement::Integer);
    recipe.activations.bits = 16;
    assert_eq!(recipe.placement(), crate::plan::Placement::Producer);
}

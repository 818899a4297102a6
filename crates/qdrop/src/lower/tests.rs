use super::*;
use crate::graph::{Binary, Fact, NodeId, Unary};
use crate::plan::{EncodingsVersion, GridSpec, LayerId, Observer};
use crate::tensor::Data;

const QCDQ: Output = Output { target: Target::Ort, format: Format::Qcdq, encodings_version: EncodingsVersion::V1_0_0 };
const PLAIN: Output = Output { target: Target::Openvino, ..QCDQ };
const QDQ: Output = Output { format: Format::Qdq, ..QCDQ };

fn spec(bits: u32) -> GridSpec {
    GridSpec { bits, symmetric: false, observer: Observer::Mse, percentile: 99.99 }
}

/// m1 = x·w; r = relu(m1); m2 = r·w; y = m2 + r, with y the output and w shared. Nodes 0 to 3.
fn network(opset: u64) -> (Graph, Plan) {
    let mut g = Graph { opset, ..Graph::default() };
    let float = || Fact { dtype: Some(DType::F32), shape: None };
    let x = g.add_value("x", float());
    let w = g.add_constant("w", Tensor::f32(&[2, 2], vec![1.0, -1.0, 0.5, 0.0]));
    let [m1, r, m2, y] = ["m1", "r", "m2", "y"].map(|n| g.add_value(n, float()));
    g.nodes = vec![
        Node::new("n0", Op::MatMul, &[x, w], &[m1]),
        Node::new("n1", Op::Unary(Unary::Relu), &[m1], &[r]),
        Node::new("n2", Op::MatMul, &[r, w], &[m2]),
        Node::new("n3", Op::Binary(Binary::Add), &[m2, r], &[y]),
    ];
    (g.inputs, g.outputs) = (vec![x], vec![y]);
    let layer = Layer {
        name: "n0".into(),
        weight: w,
        nodes: vec![NodeId(0), NodeId(2)],
        grid: spec(3),
        axis: Some(1),
        shape: vec![2, 2],
    };
    let site = |name: &str, value, readers, bits| Site { name: name.into(), value, readers, grid: spec(bits) };
    let sites = vec![site("r", r, Some(vec![(NodeId(2), 0)]), 4), site("y", y, None, 2)];
    (g, Plan { layers: vec![layer], sites, ..Plan::default() })
}

fn weight() -> QuantizedWeight {
    let grid = Grid::per_channel(3, vec![0.25, 0.5], vec![0, 4], 1).unwrap();
    QuantizedWeight { layer: LayerId(0), grid, integers: vec![4, 2, 2, 4] }
}

fn grids() -> [Grid; 2] {
    [Grid::per_tensor(4, 0.1, 0).unwrap(), Grid::per_tensor(2, 0.5, 1).unwrap()]
}

fn kinds(g: &Graph) -> Vec<&str> {
    g.nodes.iter().map(|n| n.op.kind()).collect()
}

fn content<'a>(g: &'a Graph, name: &str) -> Option<&'a Tensor> {
    g.values.iter().find(|v| v.name == name).and_then(|v| v.constant.as_deref())
}

#[test]
fn weights_are_integers_less_their_zero_points() {
    let (g, plan) = network(13);
    assert_eq!(required_opset(QCDQ, &plan), 13);
    let out = lower(&g, &plan, &[weight()], &grids(), &[], QCDQ).unwrap();
    let chain = ["QuantizeLinear", "Clip", "DequantizeLinear"];
    // The first product reads the float input: its weight is float once the file is loaded.
    let mut want = vec!["Cast", "Mul", "MatMul", "Relu"];
    want.extend(chain);
    want.extend(["DequantizeLinear", "MatMul", "Add"]);
    want.extend(chain);
    assert_eq!(kinds(&out), want);

    assert_eq!(content(&out, "w"), None);
    assert_eq!(content(&out, "w_quantized").unwrap().data(), &Data::I8(vec![4, -2, 2, 0]));
    assert_eq!(content(&out, "w_zero_point").unwrap().data(), &Data::I8(vec![0, 0]));
    assert_eq!(content(&out, "w_scale").unwrap().as_f32().unwrap(), [0.25, 0.5]);
    assert_eq!(out.constant(out.nodes[5].input(2).unwrap()).unwrap().data(), &Data::U8(vec![15]));
    assert_eq!(out.nodes[7].op, Op::DequantizeLinear { axis: 1, block: 0, to: None });
    assert_eq!(out.nodes[8].input(1), out.nodes[7].output(0));
    assert_eq!(out.nodes[2].input(1), out.nodes[1].output(0));

    // Only the listed reader of r sees it quantized.
    assert_eq!(out.nodes[8].input(0), out.nodes[6].output(0));
    assert_eq!(out.nodes[9].input(1), out.nodes[3].output(0));

    // The graph output keeps its name and is the quantized value.
    assert_eq!(out.value(out.outputs[0]).name, "y");
    assert_eq!(out.nodes[12].output(0), Some(out.outputs[0]));
    assert_eq!(out.value(out.nodes[9].output(0).unwrap()).name, "y_float");
    assert_eq!(out.inputs, g.inputs);
}

#[test]
fn native_types_stand_where_runtimes_take_them() {
    let (g, plan) = network(21);
    assert_eq!(required_opset(QDQ, &plan), 21);
    let out = lower(&g, &plan, &[weight()], &grids(), &[], QDQ).unwrap();
    // 4 bits fill their type, 2 bits have none that is widely taken.
    let mut want = vec!["DequantizeLinear", "MatMul", "Relu", "QuantizeLinear", "DequantizeLinear"];
    want.extend(["MatMul", "Add", "QuantizeLinear", "Clip", "DequantizeLinear"]);
    assert_eq!(kinds(&out), want);
    assert_eq!(content(&out, "w_quantized").unwrap().dtype(), DType::U4);
    assert_eq!(content(&out, "w_quantized").unwrap().to_i64().unwrap(), [4, 2, 2, 4]);
    assert_eq!(content(&out, "r_zero_point").unwrap().dtype(), DType::U4);
    assert_eq!(content(&out, "y_zero_point").unwrap().dtype(), DType::U8);
}

/// The grids of [`network`] with their zero points in the middle or at 0.
fn symmetric() -> (QuantizedWeight, [Grid; 2]) {
    let grid = Grid::per_channel(3, vec![0.25, 0.5], vec![4, 4], 1).unwrap();
    let sites = [Grid::per_tensor(4, 0.1, 0).unwrap(), Grid::per_tensor(2, 0.5, 2).unwrap()];
    (QuantizedWeight { layer: LayerId(0), grid, integers: vec![7, 0, 4, 4] }, sites)
}

#[test]
fn openvino_has_signed_weights_and_unsigned_activations() {
    let (g, plan) = network(13);
    let output = Output { target: Target::Openvino, ..QCDQ };
    assert_eq!(required_opset(output, &plan), 13);
    let (weight, sites) = symmetric();
    let out = lower(&g, &plan, &[weight], &sites, &[], output).unwrap();
    let chain = ["QuantizeLinear", "Clip", "DequantizeLinear"];
    let mut want = vec!["DequantizeLinear", "MatMul", "Relu"];
    want.extend(chain);
    want.extend(["MatMul", "Add"]);
    want.extend(chain);
    assert_eq!(kinds(&out), want);
    assert_eq!(content(&out, "w_quantized").unwrap().data(), &Data::I8(vec![3, -4, 0, 0]));
    assert_eq!(content(&out, "w_zero_point").unwrap().data(), &Data::I8(vec![0, 0]));
    for (name, integer) in [("r_zero_point", 0), ("r_clip_max", 15), ("y_zero_point", 2), ("y_clip_max", 3)] {
        assert_eq!(content(&out, name).unwrap().data(), &Data::U8(vec![integer]), "{name}");
    }
}

#[test]
fn tensorrt_has_signed_integers_everywhere() {
    let (g, mut plan) = network(13);
    plan.sites[1].grid = spec(8);
    let sites = [Grid::per_tensor(4, 0.1, 8).unwrap(), Grid::per_tensor(8, 0.5, 128).unwrap()];
    let out = lower(&g, &plan, &[symmetric().0], &sites, &[], Output { target: Target::Tensorrt, ..QCDQ }).unwrap();
    assert_eq!(kinds(&out).iter().filter(|k| **k == "Clip").count(), 1, "8 bits fill the type");
    for (name, want) in [
        ("w_quantized", vec![3, -4, 0, 0]),
        ("w_zero_point", vec![0, 0]),
        ("r_zero_point", vec![0]),
        ("r_clip_min", vec![-8]),
        ("r_clip_max", vec![7]),
        ("y_zero_point", vec![0]),
    ] {
        assert_eq!(content(&out, name).unwrap().data(), &Data::I8(want), "{name}");
    }
}

#[test]
fn qonnx_has_one_quantizer_a_reader_and_zero_points_0() {
    let (g, plan) = network(13);
    let output = Output { target: Target::Qonnx, ..QCDQ };
    let (weight, sites) = symmetric();
    let out = lower(&g, &plan, std::slice::from_ref(&weight), &sites, &[], output).unwrap();
    assert_eq!(kinds(&out), ["Quant", "MatMul", "Relu", "Quant", "Quant", "MatMul", "Add", "Quant"]);
    let quant = |node: usize| {
        let Op::Quant { signed, narrow: false, rounding: crate::graph::Rounding::HalfEven } = out.nodes[node].op else {
            panic!("{:?}", out.nodes[node].op)
        };
        let constants = out.nodes[node].inputs[1..].iter().map(|v| out.constant(v.unwrap()).unwrap());
        (signed, constants.map(|t| (t.shape().to_vec(), t.as_f32().unwrap().to_vec())).collect::<Vec<_>>())
    };
    let channels = (true, vec![(vec![1, 2], vec![0.25, 0.5]), (vec![], vec![0.0]), (vec![], vec![3.0])]);
    let [first, second] = [0, 4].map(|node: usize| out.nodes[node].input(0));
    assert_eq!((quant(0), quant(4), first), (channels.clone(), channels, second));
    assert_eq!(quant(3), (false, vec![(vec![], vec![0.1]), (vec![], vec![0.0]), (vec![], vec![4.0])]));
    assert_eq!(quant(7), (true, vec![(vec![], vec![0.5]), (vec![], vec![0.0]), (vec![], vec![2.0])]));
    assert_eq!(content(&out, "w_quantized").unwrap().as_f32().unwrap(), [0.75, -2.0, 0.0, 0.0]);

    let shifted = [sites[0].clone(), Grid::per_tensor(2, 0.5, 1).unwrap()];
    let error = lower(&g, &plan, &[weight], &shifted, &[], output).unwrap_err().to_string();
    assert!(error.contains("expected zero points 0 or 2, got [1]"), "{error}");
}

#[test]
fn a_site_on_the_input_and_names_already_taken() {
    let (mut g, mut plan) = network(13);
    g.add_value("x_scale", Fact::default());
    let x = g.inputs[0];
    plan.sites = vec![Site { name: "x".into(), value: x, readers: None, grid: spec(8) }];
    let out = lower(&g, &plan, &[weight()], &[Grid::per_tensor(8, 0.1, 128).unwrap()], &[], QCDQ).unwrap();
    assert_eq!(
        kinds(&out)[..4],
        ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul"],
        "{:?}",
        kinds(&out)
    );
    assert!(content(&out, "x_scale_1").is_some());
}

#[test]
fn a_weight_with_other_readers_stays_beside_its_integers() {
    let (g, mut plan) = network(13);
    plan.layers[0].nodes = vec![NodeId(2)];
    let out = lower(&g, &plan, &[weight()], &grids(), &[], QCDQ).unwrap();
    assert!(content(&out, "w").is_some() && content(&out, "w_quantized").is_some());
}

#[test]
fn biases_beside_few_bits_are_added_by_nodes_of_their_own() {
    let (mut g, mut plan) = network(13);
    let b = g.add_constant("b", Tensor::f32(&[2], vec![0.5, -0.5]));
    let gemm = Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: false };
    (g.nodes[0].op, g.nodes[0].inputs) = (gemm, vec![g.nodes[0].input(0), g.nodes[0].input(1), Some(b)]);
    // A site on the very output of the layer.
    plan.sites.push(Site { name: "m1".into(), value: g.nodes[0].output(0).unwrap(), readers: None, grid: spec(8) });
    let sites = [grids().to_vec(), vec![Grid::per_tensor(8, 0.1, 0).unwrap()]].concat();
    let out = lower(&g, &plan, &[weight()], &sites, &[], PLAIN).unwrap();
    assert_eq!(kinds(&out)[..6], ["DequantizeLinear", "Gemm", "Add", "QuantizeLinear", "DequantizeLinear", "Relu"]);
    assert_eq!(out.nodes[1].inputs.len(), 2);
    assert_eq!(out.nodes[3].input(0), out.nodes[2].output(0));
    assert_eq!(out.value(out.nodes[2].output(0).unwrap()).name, "m1");
    assert_eq!(content(&out, "b"), None);
    assert_eq!(content(&out, "b_added").unwrap().as_f32().unwrap(), [0.5, -0.5]);

    plan.layers[0].grid.bits = 8;
    let grid = Grid::per_channel(8, vec![0.25, 0.5], vec![0, 4], 1).unwrap();
    let out = lower(&g, &plan, &[QuantizedWeight { grid, ..weight() }], &sites, &[], PLAIN).unwrap();
    assert_eq!(out.nodes[1].input(2), Some(b), "8 bits keep the bias where it is");
}

#[test]
fn subgraphs_keep_the_float() {
    let (mut g, mut plan) = network(13);
    let r = plan.sites[0].value;
    g.nodes[3].captures = vec![r];
    plan.sites[0].readers = None;
    let out = lower(&g, &plan, &[weight()], &grids(), &[], QCDQ).unwrap();
    let sum = out.nodes.iter().find(|n| n.op == Op::Binary(Binary::Add)).unwrap();
    assert_eq!(sum.captures, [r]);
    assert_ne!(sum.input(1), Some(r));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (g, plan) = network(13);
    let run = |g: &Graph, plan: &Plan, w: &[QuantizedWeight], s: &[Grid]| lower(g, plan, w, s, &[], QCDQ).is_err();
    assert!(run(&g, &plan, &[], &grids()));
    assert!(run(&g, &plan, &[weight(), weight()], &grids()));
    assert!(run(&g, &plan, &[weight()], &grids()[..1]));
    assert!(run(&g, &plan, &[QuantizedWeight { integers: vec![8; 4], ..weight() }], &grids()));
    assert!(run(&g, &plan, &[QuantizedWeight { integers: vec![1; 3], ..weight() }], &grids()));
    assert!(lower(&g, &plan, &[weight()], &grids(), &[], QDQ).is_err());
    let mut twice = plan.clone();
    twice.sites[0] = twice.sites[1].clone();
    assert!(run(&g, &twice, &[weight()], &grids()));
}

#[test]
fn operands_that_were_cut_are_quantized_again() {
    let (mut g, mut plan) = network(13);
    let (r, w) = (plan.sites[0].value, plan.layers[0].weight);
    // r rolled by its halves, before the second layer.
    let [a, b, rolled] = ["a", "b", "rolled"].map(|n| g.add_value(n, g.value(r).fact.clone()));
    let split = Node::new("split", Op::Split { axis: 1 }, &[r], &[a, b]);
    let join = Node::new("join", Op::Concat { axis: 1 }, &[b, a], &[rolled]);
    g.nodes.splice(2..2, [split, join]);
    g.nodes[4].inputs = vec![Some(rolled), Some(w)];
    plan.layers[0].nodes[1] = NodeId(4);
    plan.sites[0].readers = Some(vec![(NodeId(2), 0)]);
    let out = lower(&g, &plan, &[weight()], &grids(), &[], PLAIN).unwrap();
    let chain = ["QuantizeLinear", "Clip", "DequantizeLinear"];
    let mut want = vec!["DequantizeLinear", "MatMul", "Relu"];
    want.extend(chain);
    want.extend(["Split", "Concat"]);
    want.extend(chain);
    want.extend(["MatMul", "Add"]);
    want.extend(chain);
    assert_eq!(kinds(&out), want);
    assert_eq!(out.nodes[11].input(0), out.nodes[10].output(0));
    assert_eq!(content(&out, "rolled_again_scale").unwrap().as_f32().unwrap(), [0.1]);

    // Two readers share it.
    let (mut twice, mut both) = (g.clone(), plan.clone());
    let other = twice.add_value("other", g.value(r).fact.clone());
    twice.nodes.insert(5, Node::new("other", Op::MatMul, &[rolled, w], &[other]));
    both.layers[0].nodes.insert(0, NodeId(5));
    let out = lower(&twice, &both, &[weight()], &grids(), &[], PLAIN).unwrap();
    want.insert(12, "MatMul");
    assert_eq!(kinds(&out), want);
    assert_eq!([11, 12].map(|i| out.nodes[i].input(0)), [out.nodes[10].output(0); 2]);

    // A part that comes from elsewhere is on no one grid.
    g.nodes[3].inputs = vec![Some(b), Some(g.inputs[0])];
    let out = lower(&g, &plan, &[weight()], &grids(), &[], PLAIN).unwrap();
    assert_eq!(kinds(&out)[8..10], ["MatMul", "Add"]);
}

//! Recurrent operators, loops, branches and arithmetic of ai.onnx.ml: what is read, and what takes the place of carried
//! nodes, computed.

use super::proto::*;
use super::*;
use crate::engine::facts::infer;
use crate::graph::*;
use crate::tensor::Tensor;
use std::sync::Arc;

fn node(kind: &str, domain: &str, input: &[&str], output: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    NodeProto {
        name: Some(format!("{kind}_{}", output[0])),
        op_type: Some(kind.into()),
        domain: Some(domain.into()),
        input: own(input),
        output: own(output),
        attribute,
        ..Default::default()
    }
}

fn plain(kind: &str, input: &[&str], output: &str) -> NodeProto {
    node(kind, "", input, &[output], Vec::new())
}

fn infos(names: &[&str]) -> Vec<ValueInfoProto> {
    names.iter().map(|n| ValueInfoProto { name: Some(n.to_string()), ..Default::default() }).collect()
}

fn body(name: &str, nodes: Vec<NodeProto>, input: &[&str], output: &[&str], own: Vec<TensorProto>) -> AttributeProto {
    let g = GraphProto {
        name: Some(name.into()),
        node: nodes,
        input: infos(input),
        output: infos(output),
        initializer: own,
        ..Default::default()
    };
    AttributeProto { name: Some(name.into()), g: Some(g), r#type: Some(5), ..Default::default() }
}

/// A model of `nodes` with float input `x` of `shape`.
fn graph(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, shape: &[i64], outputs: &[&str]) -> Graph {
    let size = |&n: &i64| Dimension { value: Some(DimensionValue::DimValue(n)), denotation: None };
    let shape = TensorShapeProto { dim: shape.iter().map(size).collect() };
    let kind = TypeProtoTensor { elem_type: Some(1), shape: Some(shape) };
    let kind = TypeProto { value: Some(TypeValue::Tensor(kind)), denotation: None };
    let input = ValueInfoProto { name: Some("x".into()), r#type: Some(kind), ..Default::default() };
    let import = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![import("", 17), import("ai.onnx.ml", 3)],
        graph: Some(GraphProto {
            node: nodes,
            input: vec![input],
            output: infos(outputs),
            initializer: constants,
            ..Default::default()
        }),
        ..Default::default()
    };
    read_bytes(&prost::Message::encode_to_vec(&model), None).unwrap()
}

/// What `graph` computes of `x`.
fn computed(graph: &Graph, x: Tensor) -> Vec<Vec<f32>> {
    let mut graph = graph.clone();
    let input = graph.inputs[0];
    graph.value_mut(input).constant = Some(Arc::new(x));
    graph.inputs.clear();
    let facts = infer(&graph, &[]).unwrap();
    let content = |v: &ValueId| facts.get(*v).and_then(|f| f.constant.as_ref()).map(|t| t.to_f32().unwrap());
    graph.outputs.iter().map(|v| content(v).unwrap_or_default()).collect()
}

/// `graph` with its first carried node unfolded.
fn unfolded(mut graph: Graph, known: Known) -> Option<Graph> {
    let id = graph.node_ids().find(|&id| matches!(graph.node(id).op, Op::Opaque { .. })).unwrap();
    unfold(&mut graph, id, known).unwrap().map(|_| graph)
}

fn numbers(name: &str, shape: &[usize], values: &[f32]) -> TensorProto {
    tensor::encode(name, &Tensor::f32(shape, values.to_vec()))
}

fn integers(name: &str, shape: &[usize], values: &[i64]) -> TensorProto {
    let t = Tensor::new(shape.to_vec(), crate::tensor::Data::I64(values.to_vec())).unwrap();
    tensor::encode(name, &t)
}

#[test]
fn settings_of_recurrent_operators_survive() {
    let plain = |cell, direction| Recurrent::new(cell, direction);
    let lstm = Cell::Lstm { input_forget: true };
    let mut other = plain(lstm, Direction::Bidirectional);
    (other.hidden, other.clip, other.batch_first) = (7, Some(0.5), true);
    other.activations[1] = Activation::Affine { alpha: 0.25, beta: -1.0 };
    other.activations[4] = Activation::Unary(Unary::LeakyRelu { alpha: 0.125 });
    other.activations[5] = Activation::ScaledTanh { alpha: 2.0, beta: 0.5 };
    for r in [
        plain(Cell::Rnn, Direction::Forward),
        plain(Cell::Gru { linear_before_reset: true }, Direction::Reverse),
        plain(Cell::Lstm { input_forget: false }, Direction::Bidirectional),
        other,
    ] {
        let op = Op::Recurrent(r);
        assert_eq!(parse::op(&emit::node(&op)).unwrap(), op);
    }
    let strange = node("GRU", "", &["x", "w", "r"], &["y"], vec![attrs::strings("activations", &["Strange", "Tanh"])]);
    assert!(matches!(parse::op(&strange).unwrap(), Op::Opaque { .. }));
}

#[test]
fn a_loop_of_known_length_becomes_its_steps() {
    let step = |go_on: NodeProto| {
        let nodes = vec![go_on, plain("Mul", &["s", "half"], "t"), plain("Identity", &["t"], "out")];
        body("body", nodes, &["i", "c", "s"], &["d", "t", "out"], vec![numbers("half", &[], &[0.5])])
    };
    let model = |count: &[i64], go_on| {
        let nodes = vec![node("Loop", "", &["count", "", "x"], &["y", "all"], vec![step(go_on)])];
        graph(nodes, vec![integers("count", &[], count)], &[2], &["y", "all"])
    };
    let keeps = || plain("Identity", &["c"], "d");
    let found = unfolded(model(&[3], keeps()), &|_| None).unwrap();
    let x = || Tensor::f32(&[2], vec![8.0, 16.0]);
    assert_eq!(computed(&found, x()), [vec![1.0, 2.0], vec![4.0, 8.0, 2.0, 4.0, 1.0, 2.0]]);
    // Too long, without a step, or ended by what it computes.
    assert!(unfolded(model(&[10_000], keeps()), &|_| None).is_none());
    assert!(unfolded(model(&[0], keeps()), &|_| None).is_none());
    assert!(unfolded(model(&[3], plain("Not", &["c"], "d")), &|_| None).is_none());
}

#[test]
fn a_scan_along_a_known_axis_becomes_its_steps() {
    let nodes = vec![plain("Add", &["s", "part"], "t"), plain("Neg", &["t"], "out")];
    let attributes = vec![
        body("body", nodes, &["s", "part"], &["t", "out"], Vec::new()),
        attrs::int("num_scan_inputs", 1),
        attrs::ints("scan_input_axes", &[1]),
        attrs::ints("scan_input_directions", &[1]),
        attrs::ints("scan_output_axes", &[-1]),
    ];
    let scan = node("Scan", "", &["zero", "x"], &["y", "all"], attributes);
    let model = |shape: &[i64]| graph(vec![scan.clone()], vec![numbers("zero", &[1], &[0.0])], shape, &["y", "all"]);
    let x = || Tensor::f32(&[1, 3], vec![1.0, 2.0, 4.0]);
    let want = [vec![7.0], vec![-4.0, -6.0, -7.0]];
    assert_eq!(computed(&unfolded(model(&[1, 3]), &|_| None).unwrap(), x()), want);
    // A size that the file leaves open may be known otherwise.
    assert!(unfolded(model(&[1, -1]), &|_| None).is_none());
    let known = |_| Some((crate::tensor::DType::F32, vec![Some(1), Some(3)]));
    assert_eq!(computed(&unfolded(model(&[1, -1]), &known).unwrap(), x()), want);
}

#[test]
fn branches_are_both_computed_where_data_decides() {
    let yes = body("then_branch", vec![plain("Mul", &["x", "two"], "a")], &[], &["a"], Vec::new());
    let no = body("else_branch", vec![plain("Neg", &["x"], "a")], &[], &["a"], Vec::new());
    let nodes = vec![
        plain("ReduceMax", &["x"], "most"),
        plain("Greater", &["most", "two"], "c"),
        node("If", "", &["c"], &["y"], vec![yes, no]),
    ];
    let model = graph(nodes, vec![numbers("two", &[], &[2.0])], &[1, 2], &["y"]);
    let found = unfolded(model, &|_| None).unwrap();
    assert_eq!(computed(&found, Tensor::f32(&[1, 2], vec![1.0, 3.0])), [[2.0, 6.0]]);
    assert_eq!(computed(&found, Tensor::f32(&[1, 2], vec![1.0, 2.0])), [[-1.0, -2.0]]);
}

/// A branch inside another is laid out too, and what they read outside stays.
#[test]
fn branches_of_different_sizes_become_a_choice() {
    let inner = |name| body(name, vec![plain("Neg", &["x"], name)], &[], &[name], Vec::new());
    let nested = node("If", "", &["c"], &["b"], vec![inner("then_branch"), inner("else_branch")]);
    let yes = body("then_branch", vec![plain("NonZero", &["x"], "a")], &[], &["a"], Vec::new());
    let no = body("else_branch", vec![nested], &[], &["b"], Vec::new());
    let nodes = vec![
        plain("ReduceMax", &["x"], "most"),
        plain("Greater", &["most", "two"], "c"),
        node("If", "", &["c"], &["y"], vec![yes, no]),
    ];
    let mut graph = graph(nodes, vec![numbers("two", &[], &[2.0])], &[1, 2], &["y"]);
    assert!(branch(&mut graph).unwrap() && !branch(&mut graph).unwrap());
    let choices: Vec<&Node> = graph.nodes.iter().filter(|n| n.op == Op::Choice).collect();
    let kinds: Vec<&str> = graph.nodes.iter().map(|n| n.op.kind()).collect();
    assert_eq!(choices.len(), 2, "{kinds:?}");
    assert_eq!(choices[1].outputs, [Some(graph.outputs[0])]);
    assert_eq!(kinds.iter().filter(|k| **k == "Neg").count(), 2);
}

/// A file may call an operator of its own as it likes.
#[test]
fn no_operator_of_a_file_is_a_choice() {
    let own = |domain: &str| node("Choice", domain, &["c", "x", "x"], &["y"], Vec::new());
    for domain in ["qdrop", "com.example"] {
        let nodes = vec![plain("ReduceMax", &["x"], "c"), own(domain)];
        let mut found = graph(nodes, Vec::new(), &[1, 2], &["y"]);
        branch(&mut found).unwrap();
        let last = &found.nodes.last().unwrap().op;
        assert!(matches!(last, Op::Opaque { domain: d, .. } if d == domain), "{last:?}");
    }
}

#[test]
fn bodies_of_loops_are_graphs() {
    let strange = node("Strange", "com.example", &["s", "two", "x"], &["t"], Vec::new());
    let on = || plain("Identity", &["open"], "on");
    let step = body("body", vec![strange, on()], &["i", "open", "s"], &["on", "t"], Vec::new());
    let inner = node("Loop", "", &["i", "", "s"], &["t"], vec![step]);
    let outer = body("body", vec![inner, on()], &["i", "open", "s"], &["on", "t", "t"], Vec::new());
    let nodes = vec![plain("Size", &["x"], "n"), node("Loop", "", &["n", "", "x"], &["y", "z"], vec![outer])];
    let graph = graph(nodes, vec![numbers("two", &[], &[2.0])], &[1, 2], &["y"]);
    let found = super::loop_bodies(&graph).unwrap();
    let (id, body) = found.first_key_value().unwrap();
    assert_eq!((found.len(), graph.node(*id).op.kind()), (1, "Loop"));
    assert_eq!((body.captures.as_slice(), body.graph.inputs.len()), (&graph.inputs[..], 4));
    let inner = &body.inner.first_key_value().unwrap().1;
    assert_eq!((inner.captures.len(), inner.graph.inputs.len(), inner.graph.outputs.len()), (1, 4, 2));
    let constant = inner.graph.values.iter().find(|v| v.name == "two").unwrap();
    assert_eq!(constant.constant.as_ref().unwrap().to_f64().unwrap(), [2.0]);
}

#[test]
fn arithmetic_of_ai_onnx_ml_is_put_in_place() {
    let run = |kind: &str, attributes: Vec<AttributeProto>| {
        let node = node(kind, "ai.onnx.ml", &["x"], &["y"], attributes);
        let mut graph = graph(vec![node], Vec::new(), &[2, 2], &["y"]);
        inline(&mut graph).unwrap();
        assert!(graph.nodes.iter().all(|n| !matches!(n.op, Op::Opaque { .. })), "{kind}");
        computed(&graph, Tensor::f32(&[2, 2], vec![3.0, -4.0, 0.0, 0.0])).remove(0)
    };
    let floats = |name, v: &[f32]| attrs::floats(name, v);
    let scaler = vec![floats("offset", &[1.0, 2.0]), floats("scale", &[2.0, 0.5])];
    assert_eq!(run("Scaler", scaler), [4.0, -3.0, -2.0, -1.0]);
    assert_eq!(run("Scaler", vec![floats("scale", &[2.0])]), [6.0, -8.0, 0.0, 0.0]);
    let norm = |name| vec![attrs::string("norm", name)];
    assert_eq!(run("Normalizer", norm("L2")), [0.6, -0.8, 0.0, 0.0]);
    assert_eq!(run("Normalizer", norm("L1")), [3.0 / 7.0, -4.0 / 7.0, 0.0, 0.0]);
    assert_eq!(run("Normalizer", norm("MAX")), [1.0, -4.0 / 3.0, 0.0, 0.0]);
    assert_eq!(run("Binarizer", vec![attrs::float("threshold", -1.0)]), [1.0, 0.0, 1.0, 1.0]);
    let imputer = vec![floats("imputed_value_floats", &[5.0, 6.0]), attrs::float("replaced_value_float", 0.0)];
    assert_eq!(run("Imputer", imputer), [3.0, -4.0, 5.0, 6.0]);
    assert_eq!(run("FeatureVectorizer", vec![attrs::ints("inputdimensions", &[2])]), [3.0, -4.0, 0.0, 0.0]);
    let linear = vec![floats("coefficients", &[1.0, 2.0]), floats("intercepts", &[0.5])];
    assert_eq!(run("LinearRegressor", linear), [-4.5, 0.5]);
}

#[test]
fn other_operators_of_ai_onnx_ml_stay() {
    let node = node("TreeEnsembleRegressor", "ai.onnx.ml", &["x"], &["y"], Vec::new());
    let mut graph = graph(vec![node], Vec::new(), &[2, 2], &["y"]);
    assert!(!inline(&mut graph).unwrap());
}

#[test]
fn only_what_can_be_computed_whole_is_unfolded_before_planning() {
    let carried = |g: &Graph| g.nodes.iter().filter(|n| matches!(n.op, Op::Opaque { .. })).count();
    let chosen = |no: NodeProto, x: &str| {
        let yes = body("then_branch", vec![plain("Mul", &[x, "two"], "a")], &[], &["a"], Vec::new());
        let no = body("else_branch", vec![no], &[], &["a"], Vec::new());
        let most = plain("ReduceMax", &[x], "most");
        vec![most, plain("Greater", &["most", "two"], "c"), node("If", "", &["c"], &["y"], vec![yes, no])]
    };
    let two = || vec![numbers("two", &[], &[2.0])];
    let prepared = |nodes| crate::pipeline::prepare(&graph(nodes, two(), &[2, 2], &["y"]), None).unwrap();
    assert_eq!(carried(&prepared(chosen(plain("Neg", &["x"], "a"), "x"))), 0);
    assert_eq!(carried(&prepared(chosen(plain("ReduceSum", &["x"], "a"), "x"))), 1, "branches of two shapes");
    assert_eq!(carried(&prepared(chosen(node("Strange", "com.example", &["x"], &["a"], Vec::new()), "x"))), 1);

    // A branch inside a loop: doubled where an element is above 2, else negated.
    let mut inner = chosen(plain("Neg", &["s"], "a"), "s");
    inner.push(plain("Identity", &["open"], "on"));
    let step = body("body", inner, &["i", "open", "s"], &["on", "y"], Vec::new());
    let nodes = vec![node("Loop", "", &["count", "", "x"], &["z"], vec![step])];
    let constants = two().into_iter().chain([integers("count", &[], &[2])]).collect();
    let nested = crate::pipeline::prepare(&graph(nodes, constants, &[1, 2], &["z"]), None).unwrap();
    assert_eq!(carried(&nested), 0);
    assert_eq!(computed(&nested, Tensor::f32(&[1, 2], vec![3.0, 1.0])), [[12.0, 4.0]]);
    assert_eq!(computed(&nested, Tensor::f32(&[1, 2], vec![1.0, 1.0])), [[1.0, 1.0]]);
    assert_eq!(computed(&nested, Tensor::f32(&[1, 2], vec![-3.0, 1.0])), [[6.0, -2.0]]);
}

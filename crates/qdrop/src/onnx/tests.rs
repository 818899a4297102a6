//! Round trips, judged by Python's onnx and onnxruntime where QDROP_PYTHON names an interpreter that has them, and
//! files that must be refused.

use super::proto::*;
use super::*;
use crate::graph::*;
use qdrop_testing::{python, shared};
use std::process::Command;

fn script(python: &Path, command: &str, dir: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/onnx_models.py");
    let out = Command::new(python).args([script, command]).arg(dir).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    eprintln!("{text}");
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
}

fn models(dir: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            paths.extend(models(&path));
        } else if path.extension().is_some_and(|e| e == "onnx") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

/// Reads `path` and writes it to `out` as it is, from operators alone with external data, and raised.
fn rewrite(path: &Path, out: &Path) {
    let name = path.file_stem().unwrap().to_str().unwrap().to_string();
    let graph = read(path).unwrap();
    assert!(graph.opset >= 13);
    write(&graph, &out.join(format!("{name}.onnx"))).unwrap();
    let again = read(&out.join(format!("{name}.onnx"))).unwrap();
    assert_eq!(again.nodes.len(), graph.nodes.len());
    let mut bare = graph.clone();
    for node in bare.nodes.iter_mut().filter(|n| !matches!(n.op, Op::Opaque { .. })) {
        node.origin = None;
    }
    write_with_threshold(&bare, &out.join(format!("{name}@bare.onnx")), 0).unwrap();
    for target in [18, 21, 23] {
        let mut raised = graph.clone();
        raise_opset(&mut raised, target).unwrap();
        write(&raised, &out.join(format!("{name}@{target}.onnx"))).unwrap();
    }
}

#[test]
fn python_agrees_with_what_is_written() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    script(&python, "make", dir.path());
    let paths = models(dir.path());
    std::fs::create_dir(&out).unwrap();
    let every = std::fs::read(dir.path().join("every_field.bin")).unwrap();
    let message = ModelProto::decode(&*every).unwrap();
    std::fs::write(out.join("every_field.bin"), message.encode_to_vec()).unwrap();
    paths.iter().for_each(|p| rewrite(p, &out));
    script(&python, "judge", dir.path());
}

/// The networks of the shared data, and those in the folder that QDROP_MODELS names.
#[test]
fn real_networks_survive() {
    let Some(data) = shared("data") else { return };
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let more = std::env::var("QDROP_MODELS").map(|d| models(Path::new(&d))).unwrap_or_default();
    for path in models(&data).iter().chain(&more) {
        let here = dir.path().join(path.file_name().unwrap());
        std::fs::copy(path, &here).unwrap();
        let data = path.with_extension("onnx.data");
        if data.exists() {
            std::fs::copy(&data, dir.path().join(data.file_name().unwrap())).unwrap();
        }
        rewrite(&here, &out);
    }
    script(&python, "judge", dir.path());
}

fn node(kind: &str, input: &[&str], output: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(kind.into()),
        name: Some(format!("my_{kind}")),
        input: input.iter().map(|s| s.to_string()).collect(),
        output: output.iter().map(|s| s.to_string()).collect(),
        ..Default::default()
    }
}

fn info(name: &str) -> ValueInfoProto {
    facts::declare(name, &Fact { dtype: Some(crate::tensor::DType::F32), shape: Some(vec![Dim::Known(2)]) }, None)
}

fn weight(name: &str) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(1),
        dims: vec![2],
        float_data: vec![1.0, 2.0],
        ..Default::default()
    }
}

fn model(opset: i64, nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> ModelProto {
    let output = nodes.last().map_or("x".to_string(), |n| n.output[0].clone());
    let graph = GraphProto {
        name: Some("g".into()),
        node: nodes,
        initializer: weights,
        input: vec![info("x")],
        output: vec![info(&output)],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(opset) }],
        graph: Some(graph),
        ..Default::default()
    }
}

fn refused(model: &ModelProto, parts: &[&str]) {
    let error = read_bytes(&model.encode_to_vec(), None).unwrap_err().to_string();
    assert!(parts.iter().all(|p| error.contains(p)), "{error}");
}

#[test]
fn damaged_models_are_refused_by_name() {
    let at = |m: &[u8]| read_bytes(m, None).unwrap_err().to_string();
    assert!(at(b"").contains("empty"));
    assert!(at(b"hello, this is no model").contains("ONNX model"));
    assert!(at(&[0x08, 0x07]).contains("no graph"));
    let relu = || node("Relu", &["x"], &["y"]);
    refused(&model(6, vec![relu()], vec![]), &["opset 6"]);
    refused(&model(999, vec![relu()], vec![]), &["opset 999"]);
    refused(&ModelProto { ir_version: Some(99), ..model(17, vec![relu()], vec![]) }, &["IR version 99"]);
    refused(&ModelProto { opset_import: vec![], ..model(17, vec![relu()], vec![]) }, &["my_Relu", "operator set"]);
    refused(&model(17, vec![node("Relu", &["z"], &["y"])], vec![]), &["my_Relu", "`z`"]);
    refused(&model(17, vec![relu(), node("Abs", &["x"], &["y"])], vec![]), &["my_Abs", "`y`", "twice"]);
    refused(&model(17, vec![relu()], vec![weight("w"), weight("w")]), &["`w`", "twice"]);
    refused(&model(17, vec![relu()], vec![weight("")]), &["empty name"]);
    let cycle = vec![node("Relu", &["b"], &["a"]), node("Abs", &["a"], &["b"])];
    refused(&model(17, cycle, vec![]), &["my_Relu", "cycle"]);
    let mut lost = model(17, vec![relu()], vec![]);
    lost.graph.as_mut().unwrap().output.push(info("nowhere"));
    refused(&lost, &["`nowhere`"]);
    let huge = TensorProto { dims: vec![1 << 40, 1 << 40], ..weight("w") };
    refused(&model(17, vec![relu()], vec![huge]), &["tensor `w`"]);
    let wrong = NodeProto { attribute: vec![attrs::string("axis", "one")], ..node("Softmax", &["x"], &["y"]) };
    refused(&model(17, vec![wrong], vec![]), &["my_Softmax", "`axis`"]);
    let group = NodeProto { attribute: vec![attrs::int("axis", 0)], ..node("Scan", &["x"], &["y"]) };
    refused(&model(8, vec![group], vec![]), &["my_Scan", "export the model"]);
    refused(&model(9, vec![node("NoSuchOp", &["x"], &["y"])], vec![]), &["my_NoSuchOp"]);
}

#[test]
fn unsorted_nodes_are_sorted() {
    let nodes = vec![node("Abs", &["h"], &["y"]), node("Relu", &["x"], &["h"])];
    let mut m = model(17, nodes, vec![]);
    m.graph.as_mut().unwrap().output = vec![info("y")];
    let graph = read_bytes(&m.encode_to_vec(), None).unwrap();
    assert_eq!(graph.nodes[0].op, Op::Unary(Unary::Relu));
}

#[test]
fn unknown_operators_are_carried() {
    let own =
        NodeProto { domain: Some("own".into()), attribute: vec![attrs::int("k", 3)], ..node("Thing", &["x"], &["h"]) };
    let m = model(17, vec![own.clone(), node("NoSuchOp", &["h"], &["y"])], vec![]);
    let mut graph = read_bytes(&m.encode_to_vec(), None).unwrap();
    let written = ModelProto::decode(&*to_bytes(&graph).unwrap()).unwrap();
    assert_eq!(written.graph.unwrap().node, m.graph.unwrap().node);
    assert!(raise_opset(&mut graph, 21).unwrap_err().to_string().contains("my_NoSuchOp"));
    assert_eq!(graph.opset, 17);
}

#[test]
fn stale_origins_and_new_operators_at_old_opsets_are_refused() {
    let mut graph = read_bytes(&model(17, vec![node("Relu", &["x"], &["y"])], vec![]).encode_to_vec(), None).unwrap();
    graph.nodes[0].op = Op::Unary(Unary::Gelu { tanh: false });
    assert!(to_bytes(&graph).unwrap_err().to_string().contains("origin"));
    graph.nodes[0].origin = None;
    assert!(to_bytes(&graph).unwrap_err().to_string().contains("since opset 20"));
    raise_opset(&mut graph, 20).unwrap();
    to_bytes(&graph).unwrap();
}

#[test]
fn constants_that_became_unused_are_not_written() {
    let m = model(17, vec![node("Add", &["x", "w"], &["y"])], vec![weight("w"), weight("spare")]);
    let mut graph = read_bytes(&m.encode_to_vec(), None).unwrap();
    graph.nodes[0] = Node { origin: None, ..graph.nodes[0].clone() };
    graph.nodes[0].op = Op::Unary(Unary::Relu);
    graph.nodes[0].inputs.truncate(1);
    let names =
        |g: &Graph| g.values.iter().filter(|v| v.constant.is_some()).map(|v| v.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&read_bytes(&to_bytes(&graph).unwrap(), None).unwrap()), ["spare"]);
}

#[test]
fn external_data_is_confined_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("w.bin"), [0u8; 12]).unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let try_with = |location: &str, offset: &str, length: &str| {
        let entry = |k: &str, v: &str| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
        let external_data = vec![entry("location", location), entry("offset", offset), entry("length", length)];
        let w = TensorProto { data_location: Some(1), external_data, float_data: vec![], ..weight("w") };
        read_bytes(
            &model(17, vec![node("Add", &["x", "w"], &["y"])], vec![w]).encode_to_vec(),
            Some(&dir.path().join("in/..")),
        )
    };
    assert!(try_with("w.bin", "4", "8").is_ok());
    for (location, offset, length, part) in [
        ("../w.bin", "0", "8", "is outside"),
        ("/etc/passwd", "0", "8", "is outside"),
        ("", "0", "8", "is outside"),
        ("none.bin", "0", "8", "missing"),
        ("in", "0", "8", "not a file"),
        ("w.bin", "8", "8", "has 12"),
        ("w.bin", "18446744073709551615", "8", "has 12"),
        ("w.bin", "-1", "8", "offset `-1`"),
        ("w.bin", "0", "4", "length 4"),
    ] {
        let error = try_with(location, offset, length).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("tensor `w`"), "{error}");
    }
    let error = read_bytes(&to_external(), None).unwrap_err().to_string();
    assert!(error.contains("directory is unknown"), "{error}");
    #[cfg(unix)]
    {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), [0u8; 12]).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
        assert!(try_with("link", "0", "8").unwrap_err().to_string().contains("is a link to a file outside"));
    }
}

fn to_external() -> Vec<u8> {
    let w = TensorProto { data_location: Some(1), float_data: vec![], ..weight("w") };
    model(17, vec![node("Add", &["x", "w"], &["y"])], vec![w]).encode_to_vec()
}

#[test]
fn large_models_are_written_beside_their_data() {
    let dir = tempfile::tempdir().unwrap();
    let w = TensorProto { dims: vec![2, 300], float_data: (0..600).map(|i| i as f32).collect(), ..weight("w") };
    let mut graph =
        read_bytes(&model(17, vec![node("Add", &["x", "w"], &["y"])], vec![w]).encode_to_vec(), None).unwrap();
    let path = dir.path().join("m.onnx");
    write_with_threshold(&graph, &path, 100).unwrap();
    let data = std::fs::metadata(dir.path().join("m.onnx.data")).unwrap().len();
    assert_eq!(data, 2400);
    assert_eq!(size_on_disk(&path).unwrap(), std::fs::metadata(&path).unwrap().len() + data);
    let mut again = read(&path).unwrap();
    again.origin.clone_from(&graph.origin);
    graph.values.iter_mut().chain(&mut again.values).for_each(|v| v.origin = None);
    assert_eq!(again, graph);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    let error = write(&graph, &dir.path().join("none/m.onnx")).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Io);
}

/// A small generator, so that the damage is the same in every run.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as usize
}

#[test]
fn damage_never_panics() {
    let mut nodes = vec![
        NodeProto {
            attribute: vec![attrs::ints("pads", &[1, 1]), attrs::int("group", 1)],
            ..node("Conv", &["x", "w"], &["a"])
        },
        NodeProto { attribute: vec![attrs::ints("axes", &[0])], ..node("Unsqueeze", &["a"], &["b"]) },
        NodeProto { attribute: vec![attrs::float("max", 6.0)], ..node("Clip", &["b"], &["c"]) },
        NodeProto { attribute: vec![attrs::int("axis", 1)], ..node("Softmax", &["c"], &["d"]) },
    ];
    let body =
        GraphProto { node: vec![node("Add", &["d", "w"], &["t"])], output: vec![info("t")], ..Default::default() };
    let branch =
        AttributeProto { name: Some("then_branch".into()), r#type: Some(5), g: Some(body), ..Default::default() };
    nodes.push(NodeProto { attribute: vec![branch], ..node("If", &["x"], &["y"]) });
    let bytes = model(9, nodes, vec![weight("w")]).encode_to_vec();
    read_bytes(&bytes, None).unwrap();
    let mut state = 1;
    let attempt = |bytes: &[u8]| {
        if let Ok(graph) = read_bytes(bytes, None) {
            let _ = to_bytes(&graph);
        }
    };
    (0..bytes.len()).for_each(|n| attempt(&bytes[..n]));
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..=random(&mut state) % 3 {
            let at = random(&mut state) % damaged.len();
            damaged[at] = random(&mut state) as u8;
        }
        attempt(&damaged);
    }
    for _ in 0..2_000 {
        let noise: Vec<u8> = (0..random(&mut state) % 200).map(|_| random(&mut state) as u8).collect();
        attempt(&noise);
    }
}

fn named(kind: &str, domain: &str, input: &[&str], output: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(kind.into()),
        domain: Some(domain.into()),
        name: Some(format!("{kind}_{}", output.concat())),
        input: input.iter().map(|s| s.to_string()).collect(),
        output: output.iter().map(|s| s.to_string()).collect(),
        ..Default::default()
    }
}

fn value(name: &str) -> ValueInfoProto {
    let shape =
        TensorShapeProto { dim: vec![Dimension { value: Some(DimensionValue::DimValue(2)), denotation: None }] };
    let tensor = TypeProtoTensor { elem_type: Some(1), shape: Some(shape) };
    let r#type = Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None });
    ValueInfoProto { name: Some(name.into()), r#type, ..Default::default() }
}

/// y = relu(If(true, leaky(x) + x, x)), where `leaky` is a function that calls another.
fn branching(condition: bool) -> ModelProto {
    let import = |domain: &str, v| OperatorSetIdProto { domain: Some(domain.into()), version: Some(v) };
    let mut slope = attrs::float("alpha", 0.0);
    (slope.f, slope.ref_attr_name) = (None, Some("slope".into()));
    let mut inner = named("LeakyRelu", "", &["a"], &["b"]);
    inner.attribute = vec![slope];
    let function = |name: &str, node: Vec<NodeProto>, attribute: &[&str]| FunctionProto {
        name: Some(name.into()),
        domain: Some("local".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: attribute.iter().map(|s| s.to_string()).collect(),
        node,
        opset_import: vec![import("", 17), import("local", 1)],
        ..Default::default()
    };
    let mut call = named("leaky", "local", &["a"], &["b"]);
    call.attribute = vec![attrs::float("slope", 0.25)];
    let functions = vec![function("leaky", vec![inner], &["slope"]), function("outer", vec![call], &[])];
    let branch = |node: Vec<NodeProto>, output: &str| GraphProto {
        name: Some("branch".into()),
        node,
        output: vec![value(output)],
        ..Default::default()
    };
    let then = branch(vec![named("outer", "local", &["x"], &["t"]), named("Add", "", &["t", "x"], &["s"])], "s");
    let graph_attribute =
        |name: &str, g| AttributeProto { name: Some(name.into()), r#type: Some(5), g: Some(g), ..Default::default() };
    let mut choice = named("If", "", &["c"], &["z"]);
    choice.attribute = vec![
        graph_attribute("then_branch", then),
        graph_attribute("else_branch", branch(vec![named("Identity", "", &["x"], &["e"])], "e")),
    ];
    let c = crate::tensor::Tensor::new(vec![], crate::tensor::Data::Bool(vec![condition])).unwrap();
    let graph = GraphProto {
        name: Some("main".into()),
        node: vec![choice, named("Relu", "", &["z"], &["y"])],
        initializer: vec![tensor::encode("c", &c)],
        input: vec![value("x")],
        output: vec![value("y")],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![import("", 17), import("local", 1)],
        graph: Some(graph),
        functions,
        ..Default::default()
    }
}

#[test]
fn decided_branches_and_functions_are_put_in_place() {
    for (condition, want) in [(true, vec!["LeakyRelu", "Add", "Relu"]), (false, vec!["Identity", "Relu"])] {
        let mut graph = read_bytes(&branching(condition).encode_to_vec(), None).unwrap();
        assert_eq!(graph.nodes[0].op.kind(), "If");
        let kept = to_bytes(&graph).unwrap();
        assert!(inline(&mut graph).unwrap());
        let kinds: Vec<&str> = graph.nodes.iter().map(|n| n.op.kind()).collect();
        assert_eq!(kinds, want);
        if condition {
            assert_eq!(graph.nodes[0].op, Op::Unary(Unary::LeakyRelu { alpha: 0.25 }));
        }
        assert!(!inline(&mut graph).unwrap());
        // Reading alone changes nothing.
        assert_eq!(read_bytes(&kept, None).unwrap().nodes[0].op.kind(), "If");
        let again = read_bytes(&to_bytes(&graph).unwrap(), None).unwrap();
        assert_eq!(again.nodes.len(), graph.nodes.len());
    }
}

#[test]
fn functions_that_call_themselves_are_refused() {
    let mut model = branching(true);
    model.functions[0].node = vec![named("outer", "local", &["a"], &["b"])];
    let mut graph = read_bytes(&model.encode_to_vec(), None).unwrap();
    assert!(inline(&mut graph).unwrap_err().to_string().contains("too many nodes"));
}

fn quant(kind: &str, domain: &str, rounding: &str) -> ModelProto {
    let mut quant = named(kind, domain, &["x", "s", "z", "b"], &["y"]);
    let (int, string) = (super::attrs::int, super::attrs::string);
    quant.attribute = vec![int("signed", 0), int("narrow", 1), string("rounding_mode", rounding)];
    let mut model = model(13, vec![quant], ["s", "z", "b"].map(weight).to_vec());
    let import = OperatorSetIdProto { domain: Some(domain.into()), version: Some(1) };
    model.opset_import.push(import);
    let graph = model.graph.as_mut().unwrap();
    (graph.input, graph.output) = (vec![value("x")], vec![value("y")]);
    model
}

#[test]
fn quant_of_qonnx_is_read_under_all_its_names_and_keeps_its_domain() {
    for (kind, domain) in [
        ("Quant", "qonnx.custom_op.general"),
        ("IntQuant", "qonnx.custom_op.general"),
        ("Quant", "finn.custom_op.general"),
        ("Quant", "onnx.brevitas"),
    ] {
        let graph = read_bytes(&quant(kind, domain, "floor").encode_to_vec(), None).unwrap();
        let want = Op::Quant { signed: false, narrow: true, rounding: Rounding::Floor };
        assert_eq!(graph.nodes[0].op, want, "{kind} of {domain}");
        let written = ModelProto::decode(&*to_bytes(&graph).unwrap()).unwrap();
        let node = &written.graph.as_ref().unwrap().node[0];
        assert_eq!((node.op_type(), node.domain(), node.attribute.len()), ("Quant", domain, 3));
        assert_eq!(written.opset_import.iter().filter(|i| i.domain() == domain).count(), 1);
        // Made from the operator alone it has the newest domain.
        let mut bare = graph.clone();
        (bare.nodes[0].origin, bare.origin) = (None, None);
        let bytes = to_bytes(&bare).unwrap();
        let written = ModelProto::decode(&*bytes).unwrap();
        assert_eq!(written.graph.as_ref().unwrap().node[0].domain(), "qonnx.custom_op.general");
        assert!(written.opset_import.iter().any(|i| i.domain() == "qonnx.custom_op.general" && i.version() == 1));
        assert_eq!(read_bytes(&bytes, None).unwrap().nodes[0].op, want);
    }
    for (kind, domain, rounding) in [
        ("Quant", "qonnx.custom_op.general", "STOCHASTIC"),
        ("Quant", "elsewhere", "ROUND"),
        ("Trunc", "onnx.brevitas", "ROUND"),
    ] {
        let graph = read_bytes(&quant(kind, domain, rounding).encode_to_vec(), None).unwrap();
        assert!(matches!(graph.nodes[0].op, Op::Opaque { .. }), "{kind} of {domain}, {rounding}");
    }
}

#[test]
fn the_default_operator_set_may_be_imported_under_both_names() {
    let mut model = model(11, vec![node("Relu", &["x"], &["y"])], vec![]);
    model.opset_import.push(OperatorSetIdProto { domain: Some("ai.onnx".into()), version: Some(11) });
    let graph = read_bytes(&model.encode_to_vec(), None).unwrap();
    let written = to_bytes(&graph).unwrap();
    assert_eq!(to_bytes(&read_bytes(&written, None).unwrap()).unwrap(), written);
}

#[test]
fn of_several_declarations_of_one_name_the_first_holds() {
    let mut model = model(13, vec![node("Relu", &["w"], &["h"]), node("Abs", &["h"], &["y"])], vec![weight("w")]);
    let told = |name: &str, text: &str| ValueInfoProto { doc_string: Some(text.into()), ..info(name) };
    let names = ["w", "h", "y", "", "gone"];
    let declared = names.iter().flat_map(|n| ["first", "second", "third"].map(|text| told(n, text)));
    model.graph.as_mut().unwrap().value_info = declared.collect();
    let written = to_bytes(&read_bytes(&model.encode_to_vec(), None).unwrap()).unwrap();
    let infos = ModelProto::decode(&*written).unwrap().graph.unwrap().value_info;
    assert!(!infos.is_empty() && infos.iter().all(|i| i.doc_string.as_deref() == Some("first")), "{infos:?}");
    assert_eq!(to_bytes(&read_bytes(&written, None).unwrap()).unwrap(), written);
}

#[test]
fn empty_scales_beside_sizes_are_left_out() {
    let integers = |name: &str, values: Vec<i64>| TensorProto {
        name: Some(name.into()),
        data_type: Some(7),
        dims: vec![values.len() as i64],
        int64_data: values,
        ..Default::default()
    };
    let none = |name: &str| TensorProto { dims: vec![0], float_data: Vec::new(), ..weight(name) };
    let resize = node("Resize", &["x", "roi", "scales", "sizes"], &["y"]);
    let model = model(11, vec![resize], vec![none("roi"), none("scales"), integers("sizes", vec![4])]);
    let written = to_bytes(&read_bytes(&model.encode_to_vec(), None).unwrap()).unwrap();
    let graph = ModelProto::decode(&*written).unwrap().graph.unwrap();
    assert_eq!(graph.node[0].input[2..], ["", "sizes"]);
}

//! The runtime's door, against a real library.

use super::*;
use crate::error::Kind;
use crate::graph::{Dim, Fact, Graph, Node, Op, Unary};
use crate::onnx;
use crate::tensor::{DType, Data, Tensor};
use half::f16;

fn library() -> Option<Library> {
    qdrop_testing::onnxruntime().map(|path| Library::load(&path).unwrap())
}

/// The identity of one input for each of `types`, of shape `[n, 2]`.
fn identities(types: &[DType]) -> Graph {
    let mut graph = Graph { opset: 17, ..Graph::default() };
    for (i, &dtype) in types.iter().enumerate() {
        let fact = || Fact { dtype: Some(dtype), shape: Some(vec![Dim::Symbol("n".into()), Dim::Known(2)]) };
        let (x, y) = (graph.add_value(&format!("x{i}"), fact()), graph.add_value(&format!("y{i}"), fact()));
        graph.nodes.push(Node::new(format!("node{i}"), Op::Identity, &[x], &[y]));
        graph.inputs.push(x);
        graph.outputs.push(y);
    }
    graph
}

fn session(library: &Library, graph: &Graph) -> Session {
    let bytes = onnx::to_bytes(graph).unwrap();
    Session::new(library, &bytes[..], &Options { threads: 1, ..Options::default() }).unwrap()
}

#[test]
fn tensors_of_every_type_go_in_and_come_out() {
    let Some(library) = library() else { return };
    let data = [
        Data::F32(vec![1.5, f32::MIN]),
        Data::F64(vec![0.1, -0.0]),
        Data::F16(vec![f16::from_f32(0.5), f16::MAX]),
        Data::I8(vec![-128, 127]),
        Data::U8(vec![0, 255]),
        Data::I16(vec![i16::MIN, 1]),
        Data::U16(vec![0, u16::MAX]),
        Data::I32(vec![i32::MIN, 7]),
        Data::U32(vec![u32::MAX, 7]),
        Data::I64(vec![i64::MIN, i64::MAX]),
        Data::U64(vec![0, u64::MAX]),
        Data::Bool(vec![true, false]),
    ];
    let tensors = data.map(|d| Tensor::new(vec![1, 2], d).unwrap());
    let types: Vec<DType> = tensors.iter().map(Tensor::dtype).collect();
    let session = session(&library, &identities(&types));
    for (port, dtype) in session.inputs().iter().zip(&types) {
        let shape = Some(vec![Dim::Symbol("n".into()), Dim::Known(2)]);
        assert_eq!(port.fact, Fact { dtype: Some(*dtype), shape });
    }
    let names: Vec<String> = (0..tensors.len()).map(|i| format!("x{i}")).collect();
    // The order in which inputs are named does not matter.
    let named: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&tensors).rev().collect();
    assert_eq!(session.run(&named).unwrap(), tensors);
    let some = session.run_for(&named, &["y3", "y1"]).unwrap();
    assert_eq!(some, [tensors[3].clone(), tensors[1].clone()]);
    assert_eq!(session.outputs()[2].name, "y2");
    assert!(session.library().name().starts_with("ONNX Runtime 1."), "{}", session.library().name());
}

#[test]
fn empty_tensors_pass() {
    let Some(library) = library() else { return };
    let session = session(&library, &identities(&[DType::F32]));
    let none = Tensor::f32(&[0, 2], vec![]);
    assert_eq!(session.run(&[("x0", &none)]).unwrap(), [none]);
}

#[test]
fn a_session_runs_on_several_threads_at_once() {
    let Some(library) = library() else { return };
    let mut graph = identities(&[DType::F32]);
    graph.nodes[0].op = Op::Unary(Unary::Neg);
    let session = session(&library, &graph);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let session = &session;
            scope.spawn(move || {
                for i in 0..50 {
                    let x = (thread * 50 + i) as f32;
                    let y = session.run(&[("x0", &Tensor::f32(&[1, 2], vec![x, 1.0]))]).unwrap();
                    assert_eq!(y[0].as_f32(), Some(&[-x, -1.0][..]));
                }
            });
        }
    });
}

#[test]
fn what_the_runtime_refuses_is_told() {
    let Some(library) = library() else { return };
    let options = Options::default();
    let bytes = onnx::to_bytes(&identities(&[DType::F32])).unwrap();
    let error = Session::new(&library, &bytes[..bytes.len() / 2], &options).unwrap_err();
    assert_eq!((error.kind(), error.places()), (Kind::Model, &[library.name()][..]), "{error}");
    let missing = std::path::Path::new("no/such.onnx");
    let error = Session::new(&library, missing, &options).unwrap_err();
    assert_eq!(error.kind(), Kind::Io, "{error}");
    assert!(error.to_string().starts_with("no/such.onnx: ONNX Runtime 1."), "{error}");

    let session = session(&library, &identities(&[DType::F32]));
    let refusal = |name: &str, tensor: &Tensor| session.run(&[(name, tensor)]).unwrap_err().to_string();
    let wrong = refusal("x0", &Tensor::f32(&[1, 3], vec![0.0; 3]));
    assert!(wrong.contains("x0") && wrong.contains("Expected: 2"), "{wrong}");
    assert!(refusal("x0", &Tensor::i64s(vec![1, 2])).contains("int64"));
    assert!(refusal("x1", &Tensor::f32(&[1, 2], vec![0.0; 2])).contains("x1"));
    let text = Tensor::new(vec![1], Data::String(vec![b"a".to_vec()])).unwrap();
    assert!(refusal("x0", &text).starts_with("input `x0`: elements of type String cannot be passed to ONNX Runtime"));
}

#[test]
fn files_that_are_no_runtime_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("libonnxruntime.so");
    std::fs::write(&file, b"this is no library").unwrap();
    let error = Library::load(&file).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.message().starts_with("cannot be loaded: "), "{error}");
    assert!(error.advice().is_some_and(|a| a.starts_with("name the shared library of ONNX Runtime")));
    assert_eq!(Library::find(Some(&dir.path().join("none.so"))).unwrap_err().message(), "no such file");
}

#[cfg(target_os = "linux")]
#[test]
fn a_library_without_the_interface_is_refused() {
    let Some(runtime) = qdrop_testing::onnxruntime() else { return };
    // It lies beside the runtime's own.
    let other = runtime.with_file_name("libonnxruntime_providers_shared.so");
    let error = Library::load(&other).unwrap_err();
    assert_eq!(error.message(), "expected a library of ONNX Runtime, got one without OrtGetApiBase");
}

#[test]
fn processor_time_grows_with_work() {
    let Some(start) = processor_seconds() else {
        println!("skipped: the system does not tell processor time");
        return;
    };
    let mut sum = 0u64;
    while processor_seconds().unwrap() - start < 0.01 {
        sum = std::hint::black_box(sum.wrapping_mul(3).wrapping_add(1));
    }
}

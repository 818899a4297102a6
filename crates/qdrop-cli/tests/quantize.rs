//! The main job through the command line: what it writes, that it can be repeated, and what is left when it fails.

mod common;

use common::{json, ok, run};
use qdrop::graph::{Fact, Node, Op};

#[test]
fn the_same_seed_writes_the_same_bytes_on_any_number_of_threads() {
    let dir = common::folder();
    let dir = dir.path();
    let run = |name: &str, more: &str| {
        ok(dir, &format!("quantize model.onnx --calib images --recipe short.toml -w 2 -a 2 -o {name} {more}"));
        std::fs::read(dir.join(name)).unwrap()
    };
    let one = run("one.onnx", "--threads 1 --seed 3");
    for (name, more) in
        [("two", "--threads 2 --seed 3"), ("again", "--threads 1 --seed 3"), ("three", "--threads 3 --seed 3")]
    {
        assert!(run(&format!("{name}.onnx"), more) == one, "{more}");
    }
    assert!(run("other.onnx", "--threads 1 --seed 4") != one, "the seed changes nothing");
}

#[test]
fn reports_are_json_and_learning_lowers_the_loss() {
    let dir = common::folder();
    let dir = dir.path();
    let line = "quantize model.onnx --calib images --eval list.csv --batch 8 --iters 300 -w 2 -a 3 -o a.onnx";
    let report = json(dir, line);
    assert_eq!((&report["weight_bits"], &report["activation_bits"]), (&2.into(), &3.into()));
    let units = report["units"].as_array().unwrap();
    assert_eq!(
        units.iter().map(|u| u["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["stem", "block", "head", "network"]
    );
    let loss = |u: &serde_json::Value, key: &str| u[key].as_f64().unwrap();
    assert!(loss(&units[1], "loss_after") < loss(&units[1], "loss_before"), "{report}");
    assert!(loss(&units[3], "loss_after") < loss(&units[3], "loss_before"), "{report}");
    assert_eq!(
        (&units[3]["iterations"], units[3]["layers"].as_array().map(Vec::len)),
        (&150.into(), Some(4)),
        "{report}"
    );
    assert_eq!(report["accuracy"]["result"]["samples"], 40);
    assert!(report["estimate"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
    let eval = json(dir, "eval a.onnx --data list.csv");
    assert_eq!(eval["top1"], report["accuracy"]["result"]["top1"], "the file measures as reported");
}

/// The last stage learns against outputs of real numbers; here there are none, or they do not see the last layer.
#[test]
fn networks_that_end_in_integers_are_quantized() {
    for with_real in [false, true] {
        let dir = common::folder();
        let dir = dir.path();
        let mut graph = common::network();
        let class = graph.add_value("class", Fact::default());
        let op = Op::ArgReduce { largest: true, axis: 1, keepdims: false, select_last_index: false };
        graph.nodes.push(Node::new("argmax", op, &[graph.outputs[0]], &[class]));
        graph.outputs = vec![class];
        if with_real {
            graph.outputs.extend(graph.value_ids().find(|&v| graph.value(v).name == "flat"));
        }
        qdrop::onnx::write(&graph, &dir.join("class.onnx")).unwrap();
        let line = "quantize class.onnx --calib images --batch 8 --iters 4 -w 2 -a 3 -o a.onnx";
        let report = json(dir, line);
        let last = report["units"].as_array().unwrap().last().unwrap()["name"].clone();
        assert_eq!(last, if with_real { "network" } else { "head" });
    }
}

#[test]
fn without_a_name_the_file_is_named_after_model_and_bits() {
    let dir = common::folder();
    ok(dir.path(), "quantize model.onnx --calib images --method rtn -w 3 -a 8");
    assert!(dir.path().join("model.w3a8.onnx").is_file());
}

#[test]
fn unreadable_images_are_counted_when_asked() {
    let dir = common::folder();
    let text = ok(dir.path(), "quantize model.onnx --calib corrupt --skip-bad --method rtn -o out.onnx");
    assert!(text.contains("1 samples skipped because they could not be read"), "{text}");
}

#[test]
fn every_option_of_the_recipe_is_printed_and_read_back() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::write(dir.join("default.toml"), ok(dir, "recipe")).unwrap();
    let run = |name: &str, recipe: &str| {
        ok(dir, &format!("quantize model.onnx --calib images {recipe} --iters 10 --batch 8 -o {name}"));
        std::fs::read(dir.join(name)).unwrap()
    };
    assert!(run("a.onnx", "") == run("b.onnx", "--recipe default.toml"));
}

#[cfg(unix)]
#[test]
fn presets_set_what_is_left_out() {
    let dir = common::folder();
    let dir = dir.path();
    let iterations = |more: &str| {
        let report = json(dir, &format!("quantize model.onnx --calib images --batch 8 -o a.onnx {more}"));
        let units = report["units"].as_array().unwrap().len();
        (report["iterations"].as_u64().unwrap(), units)
    };
    assert_eq!(iterations("--preset fast"), (300, 4));
    assert_eq!(iterations("--preset paper --iters 60"), (60, 3), "the paper does not tune the whole network");
}

#[test]
fn an_interrupted_run_leaves_no_file() {
    use std::process::Command;
    let dir = common::folder();
    let line = "quantize model.onnx --calib images --batch 8 --iters 100000000 -o out.onnx";
    let (mut child, lines) = common::learning(dir.path(), line);
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|l| l.starts_with("error:") && l.contains("stopped on request")), "{rest:?}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().contains("out.onnx") || n.to_string_lossy().starts_with(".")));
}

#[test]
fn the_demo_writes_what_it_lists() {
    let dir = tempfile::tempdir().unwrap();
    let view = json(dir.path(), "demo --iters 3 --output-dir d");
    let results = view["results"].as_array().unwrap();
    assert_eq!(results.len(), 8);
    for row in results {
        let path = dir.path().join(row["file"].as_str().unwrap());
        assert_eq!(std::fs::metadata(path).unwrap().len(), row["bytes"].as_u64().unwrap());
    }
    assert!(view["float_top1"].as_f64().unwrap() > 85.0);
    // What it advises next works as written.
    ok(dir.path(), "plan d/demo.onnx -w 2 -a 2");
    let next = "quantize d/demo.onnx --calib d/calib --input imagenet-norm -w 3 -a 3 --iters 3 --eval d/test";
    ok(dir.path(), next);
    ok(dir.path(), "compare d/demo.onnx d/demo.w2a2.qdrop.onnx --data d/test --input imagenet-norm --samples 64");
}

#[test]
fn bench_measures_every_unit() {
    let dir = common::folder();
    let dir = dir.path();
    let bench = json(dir, "bench model.onnx -w 2 -a 2 --batch 8 --threads 2");
    assert_eq!((&bench["batch"], &bench["threads"]), (&8.into(), &2.into()), "{bench}");
    let units = bench["units"].as_array().unwrap();
    assert_eq!(units.iter().map(|u| u["name"].as_str().unwrap()).collect::<Vec<_>>(), ["stem", "block", "head"]);
    let number = |v: &serde_json::Value, key: &str| v[key].as_f64().unwrap();
    for unit in units {
        let shares = number(unit, "forward") + number(unit, "backward") + number(unit, "update");
        assert!(
            (shares - 1.0).abs() < 1e-9 && number(unit, "seconds") > 0.0 && number(unit, "gflops") > 0.0,
            "{bench}"
        );
    }
    assert!(number(&bench, "ceiling_gflops") > 0.0 && number(&bench, "calibrate") > 0.0, "{bench}");
    let table = ok(dir, "bench model.onnx --batch 8");
    assert!(table.contains("One iteration of 8 samples") && table.contains("of ceiling"), "{table}");
    let (code, _, said) = run(dir, "bench model.onnx --method rtn");
    assert!(code == Some(2) && said.contains("expected a method that learns"), "{said}");
}

#[test]
fn a_unit_never_ends_worse_than_it_began() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::write(dir.join("wild.toml"), "[method]\nbatch = 8\niterations = 3\nrounding_lr = 10.0\n").unwrap();
    let words = "quantize model.onnx --calib images --recipe wild.toml -w 3 -a 8 -o a.onnx --format json";
    let (_, printed, said) = run(dir, words);
    assert!(said.contains("note: unit `block`: learning raised the loss, so nearest rounding is kept"), "{said}");
    let report: serde_json::Value = serde_json::from_str(&printed).unwrap();
    for unit in report["units"].as_array().unwrap() {
        assert!(unit["loss_after"].as_f64() <= unit["loss_before"].as_f64(), "{report}");
    }
}

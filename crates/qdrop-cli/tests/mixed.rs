//! Bits chosen layer by layer through the command line.

mod common;

use common::{json, ok, run};
use qdrop_testing::npy;
use std::path::Path;

/// Bytes that the weights of the quantized file at `path` take at the bits that each output channel's integers need. The
/// file may hold the integers less their zero points, times a power of two.
fn bytes_of_weights(path: &Path) -> f64 {
    let graph = qdrop::onnx::read(path).unwrap();
    let weights = graph.values.iter().filter_map(|v| Some((&v.name, v.constant.as_ref()?)));
    let weights = weights.filter(|(name, t)| name.contains("weight") && t.rank() > 1 && !t.dtype().is_float());
    let bits = |t: &qdrop::tensor::Tensor| {
        let integers: Vec<i32> = t.to_f32().unwrap().iter().map(|&q| q as i32).collect();
        let power = integers.iter().filter(|&&q| q != 0).map(|q| q.trailing_zeros()).min().unwrap();
        let span = |channel: &[i32]| (channel.iter().max().unwrap() - channel.iter().min().unwrap()) >> power;
        let most = integers.chunks(t.len() / t.shape()[0]).map(span).max().unwrap();
        f64::from(most + 1).log2().ceil() * t.len() as f64
    };
    weights.map(|(_, t)| bits(t)).sum::<f64>() / 8.0
}

#[test]
fn the_file_meets_the_target_and_its_recipe_repeats_it() {
    let dir = common::folder();
    let dir = dir.path();
    let line = "quantize model.onnx --calib images --recipe short.toml --sensitivity-samples 16 -a 4";
    let report = json(dir, &format!("{line} --target-size w3 --save-recipe chosen.toml -o a.onnx"));
    let mixed = &report["mixed"];
    let most = mixed["chosen"]["most_weight_bytes"].as_u64().unwrap();
    let size = mixed["chosen"]["cost"]["weight_bytes"].as_u64().unwrap();
    // 3 bits in both layers of the block, 8 bits in the first layer and in the head.
    assert_eq!(most, (2 * 8 * 8 * 9 * 3 + (3 * 8 * 9 + 32) * 8) / 8);
    let written = bytes_of_weights(&dir.join("a.onnx"));
    assert!(size <= most && written <= size as f64, "{written} bytes, {report}");
    assert!(
        mixed["reached_error"].as_f64().unwrap() > 0.0 && mixed["chosen"]["predicted_error"].as_f64().unwrap() > 0.0
    );
    assert_eq!(mixed["sensitivity"]["layers"].as_array().unwrap().len(), 4);

    let bytes = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let recipe = std::fs::read_to_string(dir.join("chosen.toml")).unwrap();
    assert_eq!(recipe.matches("weight_bits = ").count(), 4, "{recipe}");
    let report = json(dir, "quantize model.onnx --calib images --recipe chosen.toml -o b.onnx");
    assert!(report["mixed"].is_null() && bytes("b.onnx") == bytes("a.onnx"));
    // What another command measured leads to the same choice.
    ok(dir, "sensitivity model.onnx --calib images --recipe short.toml --sensitivity-samples 16 -o s.json");
    let text = ok(dir, &format!("{line} --target-size w3 --sensitivity s.json -o c.onnx"));
    assert!(text.contains("Bits chosen") && text.contains("error of outputs, measured"), "{text}");
    assert!(bytes("c.onnx") == bytes("a.onnx"));
    let plan = json(dir, "plan model.onnx --target-size w3 --sensitivity s.json");
    assert_eq!(plan["cost"]["weight_bytes"].as_u64(), Some(size));
    assert_eq!(plan["chosen"]["exceptions"].as_array().unwrap().len(), 4);
}

#[test]
fn bit_operations_choose_activations_too() {
    let dir = common::folder();
    let dir = dir.path();
    let line = "quantize model.onnx --calib images --method rtn --sensitivity-samples 8 --candidates 2,4,8 -o a.onnx";
    let report = json(dir, &format!("{line} --target-bitops w4a4"));
    let chosen = &report["mixed"]["chosen"];
    assert!(chosen["cost"]["bit_operations"].as_u64() <= chosen["most_bit_operations"].as_u64());
    let exceptions = chosen["exceptions"].as_array().unwrap();
    assert!(exceptions.iter().any(|e| e["activation_bits"].is_u64()), "{report}");
    assert!(ok(dir, &format!("{line} --target-bitops w4a4")).contains("activations of"), "{report}");
    let plain = json(dir, "plan model.onnx");
    assert_eq!(plain["cost"]["bit_operations"], chosen["most_bit_operations"], "w4a4 is what uniform bits take");
}

#[test]
fn sensitivities_are_tables_json_and_csv() {
    let dir = common::folder();
    let dir = dir.path();
    let line = "sensitivity model.onnx --calib images --sensitivity-samples 8 --candidates 2,8";
    let table = ok(dir, line);
    let title = "Weights, one at a time: signal to noise of the outputs in dB, 8 samples";
    for title in [title, "Activations, one at a time: ", "2 bit  8 bit"] {
        assert!(table.contains(title), "{table}");
    }
    let rows: Vec<&str> = table.lines().filter(|l| l.contains("stem ") || l.contains("head")).collect();
    assert!(rows.len() == 2 && rows[0].contains("stem"), "{table}");
    let found = json(dir, &format!("{line} -o s.csv --sort error"));
    let csv = std::fs::read_to_string(dir.join("s.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "kind,name,value,elements,bits,error,snr_db,agreement");
    let curves = |key: &str| found[key].as_array().unwrap().len();
    assert_eq!(lines.len(), 1 + 2 * (curves("layers") + curves("activations")));
    let error = found["layers"][0]["errors"][0]["error"].as_f64().unwrap();
    assert!(lines[1].starts_with(&format!("weight,stem,stem.weight,216,2,{error},")), "{}", lines[1]);
    // By error the worst of each table comes first.
    let sorted = ok(dir, &format!("{line} --sort error"));
    let snr: Vec<f64> = sorted
        .lines()
        .skip(2)
        .take_while(|l| !l.is_empty())
        .map(|l| l.split_whitespace().rev().nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(snr.len() == 4 && snr.is_sorted(), "{sorted}");
    // A table of rows is a layer too.
    let ids: Vec<u8> = (0..64i64).flat_map(|i| (i * 5 % 16).to_le_bytes()).collect();
    npy(&dir.join("tokens.npy"), "<i8", &[8, 8], &ids);
    let table = ok(dir, "sensitivity table.onnx --calib tokens.npy --sensitivity-samples 8 --method rtn");
    assert!(table.contains("look-up") && table.contains("head"), "{table}");
}

#[cfg(unix)]
#[test]
fn a_stopped_run_finds_the_same_bits() {
    let dir = common::folder();
    let dir = dir.path();
    let line =
        "quantize model.onnx --calib images --batch 8 --iters 3000 --target-size w3 --sensitivity-samples 16 -a 3";
    ok(dir, &format!("{line} -o whole.onnx"));
    let (mut child, _lines) = common::learning(dir, &format!("{line} -o out.onnx"));
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = |ending: &str| {
        let files = std::fs::read_dir(dir.join("out.onnx.work")).unwrap();
        files.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == ending)).count()
    };
    assert_eq!(kept("sensitivity"), 1);
    let (code, _, said) = run(dir, &format!("{line} -o out.onnx"));
    assert!(code == Some(0) && !said.contains("measure sensitivity"), "{said}");
    assert!(std::fs::read(dir.join("out.onnx")).unwrap() == std::fs::read(dir.join("whole.onnx")).unwrap());
    assert!(!dir.join("out.onnx.work").exists());
}

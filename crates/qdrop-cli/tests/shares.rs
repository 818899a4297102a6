//! What several runs do at once: units that they solve and sensitivities that they measure.

mod common;

use common::{both, ok, refused, run};
use std::path::Path;

const RECIPE: &str = "[method]\ninput_keep = 0.0\niterations = 30\nbatch = 8\nseed = 3\n[weights]\nbits = 2\n";

/// Files that a directory of finished units holds.
fn units(dir: &Path, work: &str) -> Vec<Vec<u8>> {
    let files = common::files(&dir.join(work)).into_iter().filter(|f| f.extension().is_some_and(|e| e == "unit"));
    files.map(|f| std::fs::read(f).unwrap()).collect()
}

#[test]
fn shares_of_the_units_come_to_what_one_run_does() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::write(dir.join("apart.toml"), RECIPE).unwrap();
    // AdaRound solves four layers; BRECQ three blocks, and their steps in a second pass.
    for (method, solutions) in [("adaround", 4), ("brecq", 6)] {
        let line = format!("quantize model.onnx --calib images --recipe apart.toml --method {method}");
        let share = |i: usize| {
            let line = format!("{line} --units {i}/2 --work-dir {method} -o {method}.onnx");
            (common::start(dir, &line), line)
        };
        for (child, line) in [share(0), share(1)] {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(!dir.join(format!("{method}.onnx")).exists(), "a share writes no network");
        let solved = units(dir, method);
        assert_eq!(solved.len(), solutions);
        let (_, said) = both(dir, &format!("{line} --work-dir {method} -o {method}.onnx"));
        let kept = said.lines().filter(|l| l.contains("kept from an earlier run")).count();
        assert_eq!(kept, solutions, "{said}");
        both(dir, &format!("{line} --work-dir alone -o alone.onnx"));
        let file = |name: &str| std::fs::read(dir.join(name)).unwrap();
        assert!(file("alone.onnx") == file(&format!("{method}.onnx")), "{method}");
        assert!(units(dir, "alone") == solved, "{method}");
        std::fs::remove_dir_all(dir.join("alone")).unwrap();
    }
}

#[test]
fn a_share_tells_what_it_solved_and_what_it_lacks_is_learned() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::write(dir.join("apart.toml"), RECIPE).unwrap();
    let line = "quantize model.onnx --calib images --recipe apart.toml --method adaround --work-dir work";
    let (table, _) = both(dir, &format!("{line} --units 1/2"));
    assert!(table.contains("block/conv1") && table.contains("head") && !table.contains("stem"), "{table}");
    assert!(table.contains("30 iterations") && table.contains("without --units"), "{table}");
    let again = common::json(dir, &format!("{line} --units 1/2"));
    assert_eq!((again.as_array().unwrap().len(), &again[0]["resumed"]), (2, &true.into()));
    let (_, said) = both(dir, line);
    assert_eq!(said.lines().filter(|l| l.contains("kept from an earlier run")).count(), 2, "{said}");
}

#[test]
fn units_that_depend_on_others_are_not_solved_apart() {
    let dir = common::folder();
    let line = "quantize model.onnx --calib images --units 0/2";
    for (more, want) in [
        ("--work-dir work", "the quantized units before it"),
        ("--work-dir work --method brecq", "input_keep = 1"),
        ("--work-dir work --method rtn", "learns nothing"),
        ("", "--work-dir"),
    ] {
        let (code, _, error) = run(dir.path(), &format!("{line} {more}"));
        assert!(code == Some(2) && error.contains(want), "{more}: {error}");
        assert!(!dir.path().join("work").exists(), "{more}");
    }
}

#[test]
fn shares_of_the_sensitivities_come_to_what_one_run_measures() {
    let dir = common::folder();
    let dir = dir.path();
    let line = "sensitivity model.onnx --calib images --sensitivity-samples 8 --candidates 2,8";
    ok(dir, &format!("{line} -o whole.json"));
    let table = ok(dir, &format!("{line} --stripe 1/2 --threads 1 -o b.json"));
    assert!(
        table.contains("Weights (share 1/2)") && table.contains("\n  4  head ") && !table.contains("stem "),
        "{table}"
    );
    ok(dir, &format!("{line} --stripe 0/2 -o a.json"));
    let merged = ok(dir, "sensitivity --merge b.json a.json -o merged.json");
    let bytes = |name: &str| std::fs::read(dir.join(name)).unwrap();
    assert!(bytes("merged.json") == bytes("whole.json"));
    assert_eq!(merged, ok(dir, line));
    ok(dir, "sensitivity --merge a.json b.json --sort error -o merged.csv");

    // A share is no measurement to choose bits by, and only shares of one measurement fit together.
    for line in ["plan model.onnx", "quantize model.onnx --calib images -o out.onnx"] {
        let error = refused(dir, &format!("{line} --target-size w3 --candidates 2,8 --sensitivity a.json"));
        assert!(error.contains("a.json: ") && error.contains("share 0/2") && error.contains("--merge"), "{error}");
    }
    for (name, other) in [
        ("samples", line.replace("--sensitivity-samples 8", "--sensitivity-samples 9")),
        ("recipe", format!("{line} --method rtn --correct-samples 0")),
        ("network", line.replace("model.onnx --calib images", "table.onnx --calib tokens.npy")),
    ] {
        let ids: Vec<u8> = (0..64i64).flat_map(|i| (i * 5 % 16).to_le_bytes()).collect();
        qdrop_testing::npy(&dir.join("tokens.npy"), "<i8", &[8, 8], &ids);
        ok(dir, &format!("{other} --stripe 1/2 -o {name}.json"));
        let error = refused(dir, &format!("sensitivity --merge a.json {name}.json -o out.json"));
        assert!(error.contains(&format!("`a.json` and `{name}.json` are shares of different measurements")), "{error}");
    }
    for (line, want) in [
        ("--merge a.json -o out.json", "share 1/2 is missing"),
        ("--merge a.json a.json -o out.json", "`a.json` and `a.json` are both share 0/2"),
        ("--merge a.json whole.json -o out.json", "whole.json: expected a share"),
        ("--merge a.json list.csv -o out.json", "list.csv: expected sensitivities in JSON"),
        ("--merge a.json b.json -o b.json", "are the same file"),
        ("--merge a.json --stripe 0/2", "cannot be used with"),
        ("--merge a.json --candidates 2", "cannot be used with"),
        ("--merge a.json --input none", "no effect"),
        ("--merge a.json --labels maps", "no effect"),
        ("model.onnx", "--calib"),
        ("model.onnx --calib images --stripe 0/2 -o out.csv", "ends in .json"),
        ("model.onnx --calib images --stripe 2/2", "from 0 to 1"),
    ] {
        let error = refused(dir, &format!("sensitivity {line}"));
        assert!(error.contains(want) && !dir.join("out.json").exists(), "{line}: {error}");
    }
}

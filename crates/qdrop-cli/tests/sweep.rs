//! Grids of runs: what they leave, what is not run again, one run alone, a run that fails.

mod common;

use common::{json, ok, run};

const SWEEP: &str = r#"
model = "model.onnx"
calib = "images"
eval = "list.csv"
[recipe]
method.iterations = 5
method.batch = 8
[[axis]]
name = "bits"
case = [{ name = "W2A2", weights.bits = 2, activations.bits = 2 }, { name = "W4A4" }]
[[axis]]
name = "method"
key = "method.name"
values = ["rtn", "qdrop"]
[[axis]]
name = "seed"
key = "method.seed"
values = [0, 1]
"#;

#[test]
fn a_grid_runs_once_and_one_by_one() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::write(dir.join("grid.toml"), SWEEP).unwrap();
    let runs = json(dir, "sweep grid.toml --list");
    assert_eq!(runs.as_array().unwrap().len(), 8);
    assert_eq!((&runs[5]["name"], &runs[5]["done"]), (&"W4A4_rtn_1".into(), &false.into()));
    assert!(!dir.join("grid.sweep").exists(), "a list leaves nothing behind");

    let one = json(dir, "sweep grid.toml --index 3 --keep-models");
    assert_eq!((one.as_array().unwrap().len(), &one[0]["name"]), (1, &"W2A2_qdrop_1".into()));
    let page = |name: &str| std::fs::read_to_string(dir.join("grid.sweep").join(name)).unwrap();
    assert!(page("sweep.html").contains("7 not done yet"));
    let kept = std::fs::read(dir.join("grid.sweep/runs/W2A2_qdrop_1.onnx")).unwrap();
    let same = "quantize model.onnx --calib images --eval list.csv -w 2 -a 2 --iters 5 --batch 8 --seed 1 -o b.onnx";
    let report = json(dir, same);
    assert!(std::fs::read(dir.join("b.onnx")).unwrap() == kept, "a run is what quantize does");
    assert_eq!(report["accuracy"]["result"], one[0]["result"]);

    let first = json(dir, "sweep grid.toml");
    assert_eq!(first.as_array().unwrap().len(), 8);
    assert_eq!(first[3], one[0], "what is done is not run again");
    assert_eq!(first, json(dir, "sweep grid.toml"));
    assert_eq!(page("sweep.csv").lines().count(), 9);
    let names: Vec<_> = std::fs::read_dir(dir.join("grid.sweep/runs")).unwrap().map(|e| e.unwrap().path()).collect();
    let float = |n: &&std::path::PathBuf| n.file_name().unwrap().to_string_lossy().starts_with("float-");
    assert_eq!(names.iter().filter(float).count(), 1, "the float network was measured once: {names:?}");
    assert_eq!(names.len(), 10, "results, that score, and the one network that was kept: {names:?}");
    let text = ok(dir, "sweep grid.toml");
    assert_eq!(text.lines().filter(|l| l.contains("W2A2") || l.contains("W4A4")).count(), 4, "{text}");

    // A run's page comes from its result.
    ok(dir, "report grid.sweep/runs/W2A2_qdrop_1.json -o one.html");
    let one = std::fs::read_to_string(dir.join("one.html")).unwrap();
    assert!(["top-1", "block/conv1", "seed 1", "qdrop sweep grid.toml"].iter().all(|w| one.contains(w)), "{one}");

    // Another option is another run; those of nearest rounding do not follow from it, but their recipe does.
    std::fs::write(dir.join("grid.toml"), SWEEP.replace("iterations = 5", "iterations = 6")).unwrap();
    let runs = json(dir, "sweep grid.toml --list");
    assert!(runs.as_array().unwrap().iter().all(|r| r["done"] == false));
}

#[test]
fn shares_run_at_once_and_measure_the_float_network_once() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::write(dir.join("grid.toml"), SWEEP.replace("\"rtn\", \"qdrop\"", "\"rtn\"")).unwrap();
    let share = |i: usize| common::start(dir, &format!("sweep grid.toml -o shared --stripe {i}/3 --keep-models -v"));
    let said: Vec<String> = (0..3)
        .map(share)
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{said}");
            said
        })
        .collect();
    // Every run measures its own network, and one of them the float network too.
    let measured = said.iter().flat_map(|s| s.lines()).filter(|l| l.starts_with("evaluate: took")).count();
    assert_eq!(measured, 5, "{said:?}");
    assert_eq!(
        common::json(dir, "sweep grid.toml -o shared --list")
            .as_array()
            .unwrap()
            .iter()
            .filter(|r| r["done"] == true)
            .count(),
        4
    );
    ok(dir, "sweep grid.toml -o alone --keep-models");
    for name in ["W2A2_rtn_0", "W2A2_rtn_1", "W4A4_rtn_0", "W4A4_rtn_1"] {
        let file = |folder: &str| std::fs::read(dir.join(format!("{folder}/runs/{name}.onnx"))).unwrap();
        assert!(file("shared") == file("alone"), "{name}");
    }
    // Where the sweep's file lies, and from where it is named, makes no difference.
    let absolute = dir.join("grid.toml");
    let listed =
        json(&std::env::temp_dir(), &format!("sweep {} -o {} --list", absolute.display(), dir.join("alone").display()));
    assert!(listed.as_array().unwrap().iter().all(|r| r["done"] == true), "{listed}");
    // Samples that changed are measured anew.
    let list = std::fs::read_to_string(dir.join("list.csv")).unwrap();
    std::fs::write(dir.join("list.csv"), list.lines().take(21).collect::<Vec<_>>().join("\n")).unwrap();
    std::fs::remove_file(dir.join("alone/runs/W2A2_rtn_0.json")).unwrap();
    let again = json(dir, "sweep grid.toml -o alone --index 0");
    assert_eq!((&again[0]["float"]["samples"], &again[1]["float"]["samples"]), (&20.into(), &40.into()));
    for (share, want) in [("3/3", "0 to 2"), ("1", "INDEX/COUNT")] {
        let (code, _, error) = run(dir, &format!("sweep grid.toml --stripe {share}"));
        assert!(code == Some(2) && error.contains(want), "{error}");
    }
}

#[test]
fn a_run_that_fails_leaves_the_others() {
    let dir = common::folder();
    let dir = dir.path();
    let text = SWEEP.replace("{ name = \"W4A4\" }", "{ name = \"bad\", calib = \"corrupt\" }");
    std::fs::write(dir.join("grid.toml"), &text).unwrap();
    let (code, table, error) = run(dir, "sweep grid.toml -o out");
    assert!(code != Some(0) && error.contains("07.bmp") && error.contains("run `bad_"), "{error}");
    assert!(table.contains("W2A2") && table.contains("4 runs are missing"), "{table}");
    for (line, want) in [
        ("sweep grid.toml --index 8", "0 to 7"),
        ("sweep short.toml", "unknown field `method`"),
        ("sweep none.toml", "none.toml"),
    ] {
        let (code, _, error) = run(dir, line);
        assert!(code != Some(0) && error.contains(want), "{line}: {error}");
    }
    std::fs::write(dir.join("grid.toml"), text.replace("corrupt", "nowhere")).unwrap();
    let (code, _, error) = run(dir, "sweep grid.toml -o elsewhere");
    assert!(code != Some(0) && error.contains("nowhere") && !dir.join("elsewhere").exists(), "{error}");
}

#[cfg(unix)]
#[test]
fn results_never_take_the_place_of_what_is_read() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::create_dir_all(dir.join("out/runs")).unwrap();
    let refused = |text: &str, output: &str| {
        std::fs::write(dir.join("grid.toml"), text).unwrap();
        let (code, _, error) = run(dir, "sweep grid.toml -o out");
        assert!(code != Some(0) && error.contains(output) && error.contains("are the same file"), "{error}");
        assert!(error.contains("--output-dir"), "{error}");
    };
    // A model where a run would put its own, reached by a link.
    std::fs::copy(dir.join("model.onnx"), dir.join("out/runs/W2A2_rtn_0.onnx")).unwrap();
    std::os::unix::fs::symlink("out/runs/W2A2_rtn_0.onnx", dir.join("link.onnx")).unwrap();
    refused(&SWEEP.replace("model.onnx", "link.onnx"), "W2A2_rtn_0.onnx");
    // A list of samples under the name of the table.
    std::fs::copy(dir.join("list.csv"), dir.join("out/sweep.csv")).unwrap();
    refused(&SWEEP.replace("list.csv", "out/sweep.csv"), "sweep.csv");
    assert!(std::fs::read(dir.join("out/sweep.csv")).unwrap() == std::fs::read(dir.join("list.csv")).unwrap());
}

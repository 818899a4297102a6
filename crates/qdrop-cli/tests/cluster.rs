//! Sweeps on clusters, as the book describes them: a job array of a real Slurm, one of whose tasks is cancelled and
//! submitted again, and tasks of a real Ray, one of whose workers is killed. Both on this machine alone.
#![cfg(target_os = "linux")]

mod common;

use qdrop_testing::{npy, programs, python_with};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Twelve runs; those with seed 2 that learn take seconds.
const SWEEP: &str = r#"
model = "model.onnx"
calib = "images"
eval = "list.csv"
[recipe]
method.iterations = 20
method.batch = 8
method.stop_settled = false
[[axis]]
name = "bits"
case = [{ name = "W4A4" }, { name = "W2A2", weights.bits = 2, activations.bits = 2 }]
[[axis]]
name = "method"
key = "method.name"
values = ["rtn", "qdrop"]
[[axis]]
name = "seed"
case = [
  { name = "0", method.seed = 0 },
  { name = "1", method.seed = 1 },
  { name = "2", method.seed = 2, method.iterations = 4000 },
]
"#;
/// The first of the long ones.
const LONG: (usize, &str) = (5, "W4A4_qdrop_2");
const RUNS: usize = 12;
/// Longest that anything here takes, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(240);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A folder of tests with the sweep in it.
fn world() -> tempfile::TempDir {
    let dir = common::folder();
    std::fs::write(dir.path().join("grid.toml"), SWEEP).unwrap();
    dir
}

/// The block of `language` in `docs/sweep.md` that holds `word`.
fn block(language: &str, word: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/sweep.md")).unwrap();
    let mut blocks = page.split("```").skip(1).step_by(2).filter_map(|b| b.strip_prefix(language));
    blocks.find(|b| b.contains(word)).unwrap_or_else(|| panic!("no block of {language} with {word}")).trim().to_string()
}

/// `text` with each of `changes` made once.
fn changed(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in:\n{text}");
        text.replace(from, to)
    })
}

/// The path with the program under test in front.
fn path() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_qdrop")).parent().unwrap().to_path_buf();
    let old = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([program].into_iter().chain(std::env::split_paths(&old))).unwrap().into_string().unwrap()
}

/// Waits until `what` holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Standard output of a command that must succeed.
fn output(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{command:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// What the runs of the sweep in `folder` came to: their networks, and their scores.
fn results(folder: &Path) -> BTreeMap<String, (Vec<u8>, Value, Value)> {
    let mut found = BTreeMap::new();
    for path in common::files(&folder.join("runs")) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|e| e == "onnx") {
            let trial = std::fs::read_to_string(path.with_extension("json")).unwrap();
            let trial: Value = serde_json::from_str(&trial).unwrap();
            found.insert(name, (std::fs::read(path).unwrap(), trial["float"].clone(), trial["result"].clone()));
        }
    }
    found
}

/// That the sweep in `folder` of `dir` is complete, came to the same as one on this machine, and measured the float network
/// once.
fn same_as_alone(dir: &Path, folder: &str) {
    let listed = common::json(dir, &format!("sweep grid.toml -o {folder} --list"));
    assert!(listed.as_array().unwrap().iter().all(|r| r["done"] == true), "{listed}");
    common::ok(dir, "sweep grid.toml -o alone --keep-models --threads 2");
    let (cluster, alone) = (results(&dir.join(folder)), results(&dir.join("alone")));
    assert_eq!((cluster.len(), alone.len()), (RUNS, RUNS));
    for (name, run) in &alone {
        assert!(cluster[name] == *run, "{name} differs");
    }
    let scores = common::files(&dir.join(folder).join("runs"));
    let scores = scores.iter().filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("float-"));
    assert_eq!(scores.count(), 1, "the float network is measured once");
}

/// A Slurm of this test alone, which ends with it.
struct Slurm {
    dir: tempfile::TempDir,
    configuration: String,
}

impl Slurm {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = root().join("scripts/cluster/slurm_loopback");
        let said = output(Command::new(script).arg("start").arg(dir.path()).arg("2"));
        let configuration = said.trim().strip_prefix("export SLURM_CONF=").unwrap().to_string();
        Slurm { dir, configuration }
    }

    fn command(&self, program: &str, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(dir).env("SLURM_CONF", &self.configuration).env("PATH", path());
        command
    }

    /// Submits `script` in `dir`; the number of its job.
    fn submit(&self, dir: &Path, script: &str) -> String {
        std::fs::write(dir.join("array.sh"), script).unwrap();
        output(self.command("sbatch", dir).args(["--parsable", "array.sh"])).trim().to_string()
    }

    /// Waits until no job is left.
    fn finish(&self, dir: &Path) {
        until("the queue is empty", || output(self.command("squeue", dir).arg("--noheader")).trim().is_empty());
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let script = root().join("scripts/cluster/slurm_loopback");
        let stopped = Command::new(script).arg("stop").arg(self.dir.path()).status();
        assert!(std::thread::panicking() || stopped.is_ok_and(|s| s.success()), "the cluster does not stop");
    }
}

#[test]
fn an_array_of_slurm_comes_to_what_one_machine_does() {
    if !programs("slurm", &["munged", "munge", "slurmctld", "slurmd", "sbatch", "srun"]) {
        return;
    }
    let world = world();
    let dir = world.path();
    let slurm = Slurm::start();
    let changes = [
        ("/shared/grid.sweep", "cluster"),
        ("--cpus-per-task=4", "--cpus-per-task=1"),
        ("--threads 4", "--threads 1 --keep-models"),
    ];
    let script = changed(&block("sh", "#SBATCH --array"), &changes);
    assert!(script.contains("--array=0-11"), "as many tasks as runs: {script}");
    let job = slurm.submit(dir, &script);
    let units = dir.join(format!("cluster/runs/{}.work", LONG.1));
    let unit = || units.is_dir() && common::files(&units).iter().any(|f| f.extension().is_some_and(|e| e == "unit"));
    until("a long run has finished a unit", unit);
    output(slurm.command("scancel", dir).arg(format!("{job}_{}", LONG.0)));
    slurm.finish(dir);
    let log = |job: &str| std::fs::read_to_string(dir.join(format!("slurm-{job}_{}.out", LONG.0))).unwrap();
    assert!(log(&job).contains("stopped on request"), "{}", log(&job));
    let listed = common::json(dir, "sweep grid.toml -o cluster --list");
    let open: Vec<&Value> = listed.as_array().unwrap().iter().filter(|r| r["done"] == false).collect();
    assert_eq!((open.len(), &open[0]["name"]), (1, &LONG.1.into()), "{listed}");

    let job = slurm.submit(dir, &changed(&script, &[("--array=0-11", &format!("--array={}", LONG.0))]));
    slurm.finish(dir);
    assert!(log(&job).contains("kept from an earlier run"), "{}", log(&job));
    same_as_alone(dir, "cluster");
}

/// A number of `/proc/PID/stat`, or 0 where there is no such process any more.
fn parent(process: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    behind_name.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(0)
}

/// Processes of the program in or below `dir` whose words hold `option` and its `value`.
fn doing(dir: &Path, option: &str, value: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let does = |process: &u32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line.split(|&b| b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        words[0].ends_with("qdrop")
            && std::fs::read_link(format!("/proc/{process}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
            && words.windows(2).any(|w| w[0] == option && w[1] == value)
    };
    processes.filter(does).collect()
}

/// A Python program of `scripts/cluster` on the words of `line`, in `dir`.
fn script(python: &Path, name: &str, dir: &Path, line: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(root().join("scripts/cluster").join(name)).args(line.split_whitespace());
    command.current_dir(dir).env("PATH", path());
    // The start of a cluster on a busy machine takes longer than Ray waits by default.
    command.env("RAY_raylet_start_wait_time_s", "400").env("RAY_gcs_server_request_timeout_seconds", "300");
    command.env("RAY_AUTH_MODE", "disabled").env("RAY_USAGE_STATS_ENABLED", "0");
    command
}

/// Kills the worker of a cluster whose program has these words, and waits until the program is gone too.
fn kill_worker(dir: &Path, option: &str, value: &str) {
    let mut found = Vec::new();
    until("the program runs", || {
        found = doing(dir, option, value);
        !found.is_empty()
    });
    let [program] = found[..] else { panic!("one worker alone has it: {found:?}") };
    let worker = parent(program);
    assert!(parent(worker) > 1, "the worker is a process of the cluster");
    output(Command::new("kill").args(["-KILL", &worker.to_string()]));
    until("the program went with its worker", || !doing(dir, option, value).contains(&program));
}

#[test]
fn tasks_of_ray_come_to_what_one_machine_does() {
    let Some(python) = python_with("ray") else { return };
    let world = world();
    let dir = &world.path().canonicalize().unwrap();
    let said = std::fs::File::create(dir.join("said")).unwrap();
    let line = "sweep grid.toml -o cluster --local-cpus 2 --keep-models";
    let mut command = script(&python, "qdrop_ray.py", dir, line);
    let mut driver = command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
    let said = || std::fs::read_to_string(dir.join("said")).unwrap();
    let units = dir.join(format!("cluster/runs/{}.work", LONG.1));
    let unit = || units.is_dir() && common::files(&units).iter().any(|f| f.extension().is_some_and(|e| e == "unit"));
    until("a long run has finished a unit", || {
        assert!(driver.try_wait().unwrap().is_none(), "{}", said());
        unit()
    });
    kill_worker(dir, "--index", &LONG.0.to_string());
    until("all runs are done", || driver.try_wait().unwrap().is_some());
    assert!(driver.wait().unwrap().success(), "{}", said());
    assert!(said().contains("kept from an earlier run"), "{}", said());
    same_as_alone(dir, "cluster");

    // An error of a run is told, and leaves the others.
    std::fs::write(
        dir.join("grid.toml"),
        changed(SWEEP, &[("{ name = \"W4A4\" }", "{ name = \"bad\", calib = \"corrupt\" }")]),
    )
    .unwrap();
    let failed = script(&python, "qdrop_ray.py", dir, "sweep grid.toml -o cluster --local-cpus 2").output().unwrap();
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(2) && text.contains("07.bmp"), "{text}");
}

#[test]
fn shares_on_ray_come_to_what_one_machine_measures() {
    let Some(python) = python_with("ray") else { return };
    let world = world();
    let dir = &world.path().canonicalize().unwrap();
    // Large enough that a share takes seconds.
    let (side, images) = (96, 256);
    qdrop::onnx::write(&common::network_of(side, &[]), &dir.join("large.onnx")).unwrap();
    let values = (0..images * 3 * side * side).flat_map(|i| ((i * 7919 % 251) as f32 / 250.0 - 0.5).to_le_bytes());
    npy(&dir.join("large.npy"), "<f4", &[images, 3, side, side], &values.collect::<Vec<_>>());
    let words = "large.onnx --calib large.npy --sensitivity-samples 256";
    let line = format!("sensitivity -o ray.json --shares 3 --local-cpus 2 -- {words}");
    let said = std::fs::File::create(dir.join("said")).unwrap();
    let mut driver =
        script(&python, "qdrop_ray.py", dir, &line).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
    let said = || std::fs::read_to_string(dir.join("said")).unwrap();
    kill_worker(dir, "--stripe", "0/3");
    until("all shares are measured", || driver.try_wait().unwrap().is_some());
    assert!(driver.wait().unwrap().success(), "{}", said());
    common::ok(dir, &format!("sensitivity {words} -o alone.json"));
    let bytes = |name: &str| std::fs::read(dir.join(name)).unwrap();
    assert!(bytes("ray.json") == bytes("alone.json"));

    // An error of a share is told.
    let line = "sensitivity -o none.json --shares 2 --local-cpus 2 -- large.onnx --calib corrupt";
    let failed = script(&python, "qdrop_ray.py", dir, line).output().unwrap();
    let text = String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(2) && text.contains("07.bmp") && !dir.join("none.json").exists(), "{text}");
}

#[test]
fn optuna_searches_settings() {
    let Some(python) = python_with("optuna") else { return };
    let world = common::folder();
    let line = "model.onnx --calib images --eval list.csv --trials 3 -- --iters 20 --batch 8 -w 2 -a 2 --seed 0";
    let found: Value =
        serde_json::from_str(&output(&mut script(&python, "optuna_search.py", world.path(), line))).unwrap();
    assert_eq!(found["trials"], 3);
    let (lambda, keep) = (&found["options"]["lambda"], &found["options"]["keep-probability"]);
    // The command line alone comes to the same.
    let number = |v: &Value| output(Command::new(&python).args(["-c", &format!("print(f'{{{v}:g}}', end='')")]));
    let line = format!(
        "quantize model.onnx --calib images --eval list.csv --iters 20 --batch 8 -w 2 -a 2 --seed 0 --lambda {} \
         --keep-probability {}",
        number(lambda),
        number(keep)
    );
    assert_eq!(common::json(world.path(), &line)["accuracy"]["result"]["top1"], found["top1"]);
    // A search goes on where it was.
    let line = line.split(" --lambda").next().unwrap().strip_prefix("quantize ").unwrap().replacen(
        "--iters",
        "--trials 1 -- --iters",
        1,
    );
    let more: Value =
        serde_json::from_str(&output(&mut script(&python, "optuna_search.py", world.path(), &line))).unwrap();
    assert_eq!(more["trials"], 4);
}

#[test]
fn the_manifest_for_kubernetes_fits_the_schema_and_the_program() {
    let manifest = root().join("deploy/kubernetes-sweep.yaml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    // Options that pods give are options of the program, and there are as many pods as runs of the page's sweep.
    let world = world();
    assert_eq!(common::json(world.path(), "sweep grid.toml --list").as_array().unwrap().len(), RUNS);
    assert!(text.contains(&format!("completions: {RUNS}\n")), "{text}");
    let words = text.lines().skip_while(|l| l.trim() != "command:").skip(1);
    let words: Vec<String> = words
        .map_while(|l| l.trim().strip_prefix("- "))
        .map(|w| w.trim_matches('"').replace("$(JOB_COMPLETION_INDEX)", "0"))
        .collect();
    assert_eq!(words[0], "/usr/bin/qdrop");
    common::ok(world.path(), &words[1..].join(" "));
    assert!(world.path().join("grid.sweep/runs/W4A4_rtn_0.json").is_file());

    let Some(python) = python_with("kubernetes") else { return };
    let check = |path: &Path| {
        Command::new(&python).arg(root().join("scripts/cluster/check_manifest.py")).arg(path).output().unwrap()
    };
    let checked = check(&manifest);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    for (from, to) in [("backoffLimitPerIndex", "backoffLimitPerRun"), ("completions: 12", "completions: twelve")] {
        let wrong = world.path().join("wrong.yaml");
        std::fs::write(&wrong, changed(&text, &[(from, to)])).unwrap();
        assert!(!check(&wrong).status.success(), "{to} is no field of the schema");
    }
}

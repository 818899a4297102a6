//! Runs that are killed, stopped or meet damage, and go on by the same command to the same bytes.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A real run, some seconds long: the demo's network on 64 of its pictures.
const RUN: &str = "quantize demo.onnx --calib pictures --input imagenet-norm -w 2 -a 2 --recipe run.toml";
const RECIPE: &str = "[method]\nbatch = 16\niterations = 200\n";

fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    common::ok(dir.path(), "demo --draw 64 --output-dir pictures");
    let network = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo.onnx");
    std::fs::copy(network, dir.path().join("demo.onnx")).unwrap();
    std::fs::write(dir.path().join("run.toml"), RECIPE).unwrap();
    dir
}

fn start(dir: &Path, more: &str) -> Child {
    common::start(dir, &format!("{RUN} {more}"))
}

/// Runs to the end: what it said on stderr, and the file.
fn finish(dir: &Path, name: &str, more: &str) -> (String, Vec<u8>) {
    let output = start(dir, &format!("-o {name} {more}")).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (said, std::fs::read(dir.join(name)).unwrap())
}

fn solutions(work: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(work).into_iter().flatten().map(|e| e.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "unit")).collect();
    found.sort();
    found
}

#[test]
fn killed_at_random_moments_a_run_goes_on_to_the_same_bytes() {
    let dir = world();
    let dir = dir.path();
    let began = Instant::now();
    let (_, wanted) = finish(dir, "whole.onnx", "--threads 1");
    let whole = began.elapsed();
    assert!(!dir.join("whole.onnx.work").exists(), "a finished run tidies up");

    let (mut kills, mut state) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    while kills < 24 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Every second moment is early, so that units are lost again and again.
        let most = if kills % 2 == 0 { whole } else { whole / 4 };
        let mut child = start(dir, "-o out.onnx");
        std::thread::sleep(most.mul_f64((state >> 40) as f64 / (1u64 << 24) as f64));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait_with_output().unwrap();
        if let Ok(bytes) = std::fs::read(dir.join("out.onnx")) {
            assert!(bytes == wanted, "after {kills} kills the file differs");
            std::fs::remove_file(dir.join("out.onnx")).unwrap();
        }
    }
    // However busy the machine is, one kill comes after a unit.
    let mut child = start(dir, "-o out.onnx");
    while solutions(&dir.join("out.onnx.work")).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the run kept nothing");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (said, bytes) = finish(dir, "out.onnx", "");
    assert!(said.contains("kept from an earlier run") && bytes == wanted, "the last run differs: {said}");
    assert!(!dir.join("out.onnx.work").exists());
}

#[test]
fn a_named_work_directory_serves_again_and_damage_is_mended() {
    let dir = world();
    let dir = dir.path();
    let (_, wanted) = finish(dir, "a.onnx", "--work-dir work");
    let kept = solutions(&dir.join("work"));
    assert_eq!(kept.len(), 6, "five units and the whole network: {kept:?}");

    let (said, bytes) = finish(dir, "b.onnx", "--work-dir work --threads 2");
    assert_eq!((said.matches("kept from an earlier run").count(), bytes == wanted), (6, true), "{said}");

    let content = std::fs::read(&kept[2]).unwrap();
    std::fs::write(&kept[2], &content[..content.len() / 2]).unwrap();
    let mut content = std::fs::read(&kept[4]).unwrap();
    *content.last_mut().unwrap() ^= 1;
    std::fs::write(&kept[4], content).unwrap();
    std::fs::write(&kept[5], "").unwrap();
    std::fs::write(dir.join("work/.qdrop-half"), "half").unwrap();
    // A whole file under the name of another unit.
    std::fs::copy(&kept[0], &kept[1]).unwrap();
    let (said, bytes) = finish(dir, "c.onnx", "--work-dir work");
    assert_eq!((said.matches("is damaged").count(), bytes == wanted), (3, true), "{said}");
    assert_eq!(said.matches("belongs to another problem").count(), 1, "{said}");
    assert!(!dir.join("work/.qdrop-half").exists(), "what is half-written goes");

    // Another seed is another problem.
    let (said, _) = finish(dir, "d.onnx", "--work-dir work --seed 7");
    assert!(!said.contains("kept from an earlier run"), "{said}");
}

#[test]
fn units_are_kept_until_the_report_is_there() {
    let dir = world();
    let (dir, reports) = (dir.path(), dir.path().join("reports"));
    let work = dir.join("out.onnx.work");
    std::fs::create_dir(&reports).unwrap();
    let mut child = start(dir, "-o out.onnx --report reports/r");
    while solutions(&work).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before its folder of reports was gone");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::remove_dir(&reports).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), solutions(&work).len()), (Some(2), 6), "{said}");
    let wanted = std::fs::read(dir.join("out.onnx")).unwrap();

    std::fs::create_dir(&reports).unwrap();
    let (said, bytes) = finish(dir, "out.onnx", "--report reports/r");
    assert_eq!((said.matches("kept from an earlier run").count(), bytes == wanted), (6, true), "{said}");
    assert!(reports.join("r.json").exists() && !work.exists());
}

#[test]
fn two_runs_do_not_share_a_work_directory() {
    let dir = world();
    let mut first = start(dir.path(), "-o a.onnx --work-dir work --iters 100000000");
    while !dir.path().join("work/lock").exists() {
        assert!(first.try_wait().unwrap().is_none(), "the first run ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = start(dir.path(), "-o b.onnx --work-dir work").wait_with_output().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert!(said.contains("another run is using this directory"), "{said}");
}

#[cfg(unix)]
#[test]
fn stopping_says_what_is_kept_and_how_to_go_on() {
    let dir = world();
    let mut child = start(dir.path(), "-o out.onnx");
    let work = dir.path().join("out.onnx.work");
    while solutions(&work).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped on request"), "{said}");
    assert!(said.contains("kept in `out.onnx.work`; the same command continues from there"), "{said}");
    assert!(!dir.path().join("out.onnx").exists() && !solutions(&work).is_empty());
}

/// A full disk, where the system has one to lend: a file system of 128 KiB in memory.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_stops_with_its_name_and_leaves_nothing_half_written() {
    let dir = world();
    let line = "mount -t tmpfs -o size=128k tmpfs small && \"$0\" \"$@\"; s=$?; ls -A small; exit $s";
    std::fs::create_dir(dir.path().join("small")).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.current_dir(dir.path()).args(["--user", "--map-root-user", "--mount", "sh", "-c", line]).args(words);
        command.output()
    };
    if !run(&["true"]).is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: file systems cannot be mounted here");
        return;
    }
    let mut words = vec![env!("CARGO_BIN_EXE_qdrop")];
    words.extend(RUN.split_whitespace());
    words.extend(["-o", "out.onnx", "--work-dir", "small"]);
    let output = run(&words).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("No space left on device") && said.contains("small/"), "{said}");
    assert!(said.contains("continues after the last kept unit"), "{said}");
    let left = String::from_utf8_lossy(&output.stdout);
    assert!(left.lines().all(|l| l == "lock" || l.ends_with(".unit")) && left.contains(".unit"), "{left}");
    assert!(!dir.path().join("out.onnx").exists());
}

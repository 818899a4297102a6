//! Every target on thousands of damaged inputs: no panic, no abort, no endless loop, no unbounded memory.
//!
//! `QDROP_FUZZ=FIRST..LAST` tries other inputs than those of each test run, and `QDROP_FUZZ_TARGET=NAME` those of one
//! target alone. An input that does harm is written to a file under `target/tmp`.

use qdrop_fuzz::{Target, mutated, seeds};
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Longest time for one input.
const TIME: Duration = Duration::from_secs(10);
/// Most memory that the process may ask for, in KiB.
const MEMORY: u64 = 4 << 20;
/// Harmful inputs of a target after which it is left.
const ENOUGH: usize = 12;

/// Inputs of each test run.
fn inputs(target: Target) -> Range<u64> {
    0..match target {
        Target::Reader => 4000,
        Target::Plan => 3000,
        Target::Arrays => 4000,
        Target::Recipe => 3000,
        Target::Tokenizer => 1500,
        Target::Coco => 6000,
    }
}

/// How a child ended.
#[derive(Debug, PartialEq)]
enum End {
    /// Well, with its last line.
    Done(String),
    /// Badly: the number of the input, and what was said.
    Harm(u64, String),
}

/// Runs `command`, which prints the number of each input before it runs it.
fn watch(command: &mut Command, time: Duration) -> End {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the child starts");
    let (Some(out), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
        panic!("pipes of the child")
    };
    let said = std::thread::spawn(move || {
        let mut text = Vec::new();
        errors.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let (sender, lines) = channel();
    std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
    let mut last = String::new();
    let late = loop {
        match lines.recv_timeout(time) {
            Ok(line) => last = line,
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if late {
        child.kill().expect("the child is stopped");
    }
    let status = child.wait().expect("the child ends");
    let said = said.join().expect("what the child said").unwrap_or_default();
    match last.parse() {
        Ok(number) if late => End::Harm(number, format!("took longer than {time:?}")),
        Ok(number) => End::Harm(number, format!("{status}: {}", said.trim_end())),
        Err(_) if status.success() => End::Done(last),
        Err(_) => panic!("the child failed before its first input, {status}: {said}"),
    }
}

/// The program at its inputs `numbers` of `target`, where the system can with a limit on its memory.
fn program(target: Target, numbers: &Range<u64>) -> Command {
    let own = env!("CARGO_BIN_EXE_qdrop-fuzz");
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\""), own]);
        shell
    } else {
        Command::new(own)
    };
    // Every thread takes addresses.
    command.env("RAYON_NUM_THREADS", "2");
    command.args(["run", &target.to_string(), &format!("{}..{}", numbers.start, numbers.end)]);
    command
}

/// What harm the inputs `numbers` of `target` do, each with the file that holds it.
fn harm(target: Target, mut numbers: Range<u64>) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < ENOUGH && !numbers.is_empty() {
        let (number, said) = match watch(&mut program(target, &numbers), TIME) {
            End::Done(accepted) => {
                println!("{target}: inputs up to {}, {accepted}", numbers.end);
                break;
            }
            End::Harm(number, said) => (number, said),
        };
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}-{number}.{}", target.extension()));
        std::fs::write(&path, mutated(target, &seeds(target), number)).expect("a file for the input");
        let again = format!("run it again with `qdrop-fuzz run {target} {}`", path.display());
        println!("{target}: input {number}: {said}\n  {again}");
        found.push(format!("{target}: input {number}: {said}\n  {again}"));
        numbers.start = number + 1;
    }
    found
}

#[test]
fn no_input_does_harm() {
    let chosen = std::env::var("QDROP_FUZZ").ok().map(|text| {
        let range = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
        range.unwrap_or_else(|| panic!("QDROP_FUZZ is `{text}`, expected FIRST..LAST"))
    });
    let only = std::env::var("QDROP_FUZZ_TARGET").ok().map(|name| {
        Target::named(&name)
            .unwrap_or_else(|| panic!("QDROP_FUZZ_TARGET is `{name}`, expected one of {:?}", Target::ALL))
    });
    let wanted = Target::ALL.into_iter().filter(|t| only.is_none_or(|o| o == *t));
    let found: Vec<String> = wanted.flat_map(|t| harm(t, chosen.clone().unwrap_or(inputs(t)))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[cfg(unix)]
#[test]
fn harm_is_seen() {
    let shell = |script: &str| watch(Command::new("sh").args(["-c", script]), Duration::from_millis(300));
    assert_eq!(shell("echo 1; echo accepted 1"), End::Done("accepted 1".into()));
    assert_eq!(shell("echo 1; echo 2; exec sleep 5"), End::Harm(2, "took longer than 300ms".into()));
    let End::Harm(3, said) = shell("echo 3; echo why >&2; exit 101") else { panic!("the end is not seen") };
    assert!(said.ends_with("why") && said.contains("101"), "{said}");
    let End::Harm(4, said) = shell("echo 4; kill -ABRT $$") else { panic!("the end is not seen") };
    assert!(said.contains("signal"), "{said}");
}

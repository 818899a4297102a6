//! Whole transcripts: each file in `tests/transcripts` lists commands with all they print and their exit status.
//! `QDROP_UPDATE_TRANSCRIPTS=1 cargo test` writes them anew. No command in them may leave a file behind.

mod common;

use common::files;
use std::path::{Path, PathBuf};

/// What running `line` looks like.
fn transcript(dir: &Path, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let output = common::qdrop(dir, &words);
    let mut text = format!("$ {line}\n");
    text.push_str(&String::from_utf8_lossy(&output.stdout));
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        // Names of stages are progress: which of them appear depends on the clock.
        if line.starts_with("error:") || line.starts_with("hint:") || !line.starts_with(char::is_lowercase) {
            text.push_str(&format!("! {line}\n"));
        }
    }
    match output.status.code() {
        Some(code) => text.push_str(&format!("[exit {code}]\n")),
        None => text.push_str("[killed]\n"),
    }
    text
}

#[test]
fn transcripts_are_as_recorded() {
    let dir = common::folder();
    let before = files(dir.path());
    let update = std::env::var_os("QDROP_UPDATE_TRANSCRIPTS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut recorded: Vec<PathBuf> = files(&folder).into_iter().collect();
    recorded.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    assert!(!recorded.is_empty());
    let mut wrong = Vec::new();
    for path in recorded {
        let want = std::fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
        let mut got = String::new();
        for line in want.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                if !got.is_empty() {
                    got.push('\n');
                }
                got.push_str(&transcript(dir.path(), command));
                assert_eq!(files(dir.path()), before, "`{command}` left files behind");
            } else if line.starts_with('#') {
                if !got.is_empty() {
                    got.push('\n');
                }
                got.push_str(line);
            }
        }
        if update {
            std::fs::write(&path, &got).unwrap();
        } else if got != want {
            wrong.push(format!("{}\n--- recorded\n{want}\n--- now\n{got}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

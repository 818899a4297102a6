//! Files that once ended in a panic, an abort or a late refusal end in order or in a clear error.

use qdrop_testing::{npy, shared};
use std::path::Path;
use std::process::Command;

/// Exit status and what was printed.
fn run(dir: &Path, words: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_qdrop")).current_dir(dir).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn hostile_files_do_no_harm() {
    let Some(files) = shared("cases/hostile") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| files.join(name).display().to_string();
    for name in ["nested_functions.onnx", "chain_1000_relu.onnx"] {
        let (code, told) = run(dir.path(), &["plan", &path(name)]);
        assert_eq!(code, Some(0), "{told}");
    }
    let (code, told) = run(dir.path(), &["plan", &path("escape_sequences_in_names.onnx")]);
    assert!(code == Some(0) && !told.contains('\u{1b}') && told.contains("\\u{1b}"), "{told:?}");
    let (code, told) = run(dir.path(), &["plan", &path("hardswish_in_opset13.onnx")]);
    assert!(code == Some(2) && told.contains("HardSwish exists since opset 14"), "{told}");

    if qdrop::engine::heap::installed().is_none_or(|bytes| bytes > 100 << 30) {
        println!("skipped: this machine may hold the values of a network that others cannot hold");
        return;
    }
    let bytes: Vec<u8> = (0..4 * 192).flat_map(|i| (i as f32 / 100.0).to_le_bytes()).collect();
    npy(&dir.path().join("x.npy"), "<f4", &[4, 3, 8, 8], &bytes);
    let resize = path("resize_512_gib.onnx");
    let (code, told) = run(dir.path(), &["quantize", &resize, "--calib", "x.npy", "--method", "rtn", "-o", "y.onnx"]);
    assert!(code == Some(2) && told.contains("this machine has") && !dir.path().join("y.onnx").exists(), "{told}");
}

#[cfg(feature = "text")]
#[test]
fn hostile_tokenizers_and_texts_do_no_harm() {
    let (Some(files), Some(text)) = (shared("cases/hostile"), shared("data/text")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |folder: &Path, name: &str| folder.join(name).display().to_string();
    let model = path(&text, "minilm_sst2.onnx");
    std::fs::write(dir.path().join("dev.tsv"), "sentence\tlabel\nfine\t1\n").unwrap();
    let tokenizer = path(&files, "tokenizer_20_bytes.json");
    let words = ["eval", &model, "--task", "sst2", "--data", "dev.tsv", "--tokenizer", &tokenizer];
    let (code, told) = run(dir.path(), &words);
    assert!(code == Some(2) && told.contains("tokenizer_20_bytes.json: expected a tokenizer"), "{told}");
}

//! The examples, run as a user runs them.

use std::path::PathBuf;
use std::process::Command;

/// What the example called `name` prints. `cargo test` builds examples beside the tests.
fn printed(name: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(built.exists(), "{} is missing: `cargo test` without --test builds it", built.display());
    let output = Command::new(&built).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The number behind `label` in `text`.
fn number(text: &str, label: &str) -> f64 {
    let rest = text.split_once(label).unwrap_or_else(|| panic!("no `{label}` in {text}")).1;
    let digits: String = rest.trim_start().chars().take_while(|c| c.is_ascii_digit() || ".-".contains(*c)).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind `{label}` in {text}"))
}

#[test]
fn examples_run_and_say_what_they_promise() {
    let text = printed("quantize_in_memory");
    assert!(text.contains(": loss "), "{text}");
    let sizes = text.lines().find(|line| line.contains("bytes became")).unwrap();
    assert!(number(sizes, "bytes became ") < number(sizes, "") && number(&text, "outputs: ") > 10.0, "{text}");
    let text = printed("custom_samples");
    assert!(text.contains("conv1: 8 bits") && number(&text, "outputs: ") > 15.0, "{text}");
    let text = printed("custom_metric");
    let [float, eight, three] =
        ["float:", "W8A8, nearest rounding:", "W3A3, nearest rounding:"].map(|l| number(&text, l));
    assert!((float - eight).abs() < 0.1 * float && three < eight, "{text}");
    let text = printed("read_report");
    assert!(text.starts_with("QDrop at W3A3") && number(&text, "top1: ") > 80.0, "{text}");
}

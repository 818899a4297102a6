//! The examples, run as a user runs them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the example called `name` prints.
fn printed(name: &str) -> String {
    printed_with(name, &[])
}

/// What the example called `name` prints for `arguments`. `cargo test` builds examples beside the tests.
fn printed_with(name: &str, arguments: &[&Path]) -> String {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(built.exists(), "{} is missing: `cargo test` without --test builds it", built.display());
    let output = Command::new(&built).args(arguments).output().unwrap();
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

/// Cells of every row of the Markdown tables in `text` whose first cell is one of `first`.
fn rows<'a>(text: &'a str, first: &[&str]) -> Vec<Vec<&'a str>> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells.filter(|cells| first.contains(&cells[0])).collect()
}

#[test]
fn the_pages_of_sweeps_show_the_figures_of_the_book() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let pages = tempfile::tempdir().unwrap();
    let printed = printed_with("sweep_pages", &[&docs.join("ablations"), pages.path()]);
    assert_eq!(printed.lines().count(), 5, "{printed}");
    let text = std::fs::read_to_string(docs.join("ablations.md")).unwrap();
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    for (section, (name, runs)) in
        sections.iter().zip([("cases", 12), ("keep", 15), ("methods", 16), ("samples", 12), ("data", 18)])
    {
        let page = std::fs::read_to_string(pages.path().join(format!("{name}.html"))).unwrap();
        assert!(page.contains(&format!("<p>{runs} runs</p>")), "{name}: results are missing");
        let first = ["case 1", "case 2", "case 3", "drop", "0", "0.25", "0.5", "0.75", "1", "64", "256", "1024"];
        let rows = rows(section, &[&first[..], &["W4A4", "W3A3", "W2A4", "W2A2"]].concat());
        assert!(rows.len() >= 3, "{name}: {rows:?}");
        let figure = |cell: &&&str| cell.split_once('.').is_some_and(|(_, decimals)| decimals.len() == 2);
        for cell in rows.iter().flat_map(|row| &row[1..]).filter(figure) {
            assert!(page.contains(&format!(">{cell}<")), "{name} shows no {cell}");
        }
    }
}

//! The documentation does what it says. Every command in the pages in the root and below `docs/` is run, and what is shown
//! of its output compared; examples in the help of commands stand in `docs/commands.md`. Messages that are quoted are in
//! the source, options and commands that are named exist, links lead somewhere.
//!
//! Commands stand behind `$ ` in blocks of the language `console`; blocks of other languages hold none of this program's.
//! In what is shown of an output, `…` stands for any characters of a line, or alone for any lines. As networks are learned
//! in few iterations here, and some are not those that are named, any number stands for any other, but for what `plan`,
//! `inspect` and `recipe` print. Commands run in the order of the page in a folder with the files of [`world::fill`], which stand for real ones, and of
//! `qdrop demo`. They run as they stand but for [`shortened`]; those that run files in ONNX Runtime are told where its library
//! is, and left out where there is none.

#![cfg(feature = "text")]

#[path = "../common/mod.rs"]
mod common;
mod page;
mod world;

use common::files;
use page::{Page, Shown, alike, pages, root};
use qdrop::plan::{Recipe, Sweep};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

/// Iterations of commands that learn, so that all commands together run for less than a minute.
const ITERATIONS: &str = "3";
/// Pictures of each class of the demo that are left to be measured on.
const PICTURES: usize = 5;

/// `command` as it is run: commands that learn take few iterations.
fn shortened(command: &str) -> String {
    let mut words: Vec<&str> = command.split_whitespace().collect();
    if matches!(words.get(1), Some(&("quantize" | "demo"))) {
        match words.iter().position(|w| *w == "--iters") {
            Some(at) => words[at + 1] = ITERATIONS,
            None => words.extend(["--iters", ITERATIONS]),
        }
    }
    words.join(" ")
}

/// The folder with the files that commands and blocks of Python read, and what `qdrop demo` printed there. It is made once a run
/// and stays, for the tests of the Python package (`python/tests/test_documents.py`).
fn filled() -> &'static (PathBuf, String) {
    static FILLED: OnceLock<(PathBuf, String)> = OnceLock::new();
    FILLED.get_or_init(|| {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let making = tempfile::tempdir_in(tmp).unwrap();
        let dir = making.path();
        world::fill(dir);
        let demo = run(dir, "qdrop demo");
        assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
        for file in files(&dir.join("qdrop-demo/test")) {
            let number: usize = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            if number >= 20 * PICTURES {
                std::fs::remove_file(file).unwrap();
            }
        }
        // Whole or not at all.
        let place = tmp.join("documents");
        if place.exists() {
            std::fs::remove_dir_all(&place).unwrap();
        }
        std::fs::rename(making.keep(), &place).unwrap();
        (place, String::from_utf8(demo.stdout).unwrap())
    })
}

/// Copies the folder `from` into the folder `to`.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => {
                std::fs::create_dir(&to).unwrap();
                copy(&from, &to);
            }
            false => assert!(std::fs::copy(&from, &to).is_ok(), "{}", from.display()),
        }
    }
}

/// The folder that commands run in.
struct World {
    dir: tempfile::TempDir,
    /// What `qdrop demo` printed.
    demo: &'static str,
    before: BTreeSet<PathBuf>,
    /// The library of ONNX Runtime.
    runtime: Option<PathBuf>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let (filled, demo) = filled();
        copy(filled, dir.path());
        for (name, bits) in [("resnet20", 2), ("mobilenetv2", 4), ("model", 4)] {
            let input = if name == "resnet20" { "imagenet-norm" } else { "imagenet" };
            let more = format!("--calib calib --input {input} -w {bits} -a 4 --method rtn --samples 4");
            let output = run(dir.path(), &format!("qdrop quantize {name}.onnx {more}"));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        // Sweeps are those that pages show and that lie beside the page on ablations, with few iterations.
        let grid = pages().into_iter().find(|p| p.name == "docs/sweep.md").expect("a page on sweeps");
        let grid = grid.fences.iter().find(|f| f.language == "toml").expect("a sweep is shown");
        let grid: String = grid.lines.iter().map(|(_, l)| format!("{l}\n")).collect();
        let mut sweeps = vec![("qdrop-demo/grid.toml".to_string(), grid.clone())];
        sweeps.push(("sweep.toml".into(), grid.replace("demo.onnx", "resnet20.onnx")));
        for file in files(&root().join("docs/ablations")).into_iter().filter(|f| f.extension() == Some("toml".as_ref()))
        {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            sweeps.push((name, std::fs::read_to_string(file).unwrap()));
        }
        for (name, text) in sweeps {
            let text = text.replace("method.iterations = 300", "method.iterations = 3");
            let text = text.replace("method.preset = \"fast\"", "method.iterations = 3");
            // Images here are smaller.
            let side = common::SIDE.to_string();
            let text = text
                .replace("resize = 32", &format!("resize = {side}"))
                .replace("crop = 32", &format!("crop = {side}"));
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let before = files(dir.path());
        World { dir, demo, before, runtime: qdrop_testing::onnxruntime() }
    }

    /// Takes away what commands made.
    fn tidy(&self) {
        for file in files(self.dir.path()).difference(&self.before) {
            std::fs::remove_file(file).unwrap();
        }
    }

    /// What is wrong with `shown` as it stands in `page`.
    fn try_out(&self, page: &str, shown: &Shown) -> Result<(), String> {
        let Shown { at, command, output } = shown;
        let place = |what: &str| format!("{page}, line {at}: `{command}`: {what}");
        let Some((program, rest)) = command.split_once(' ').filter(|(p, _)| *p == "qdrop") else {
            return Err(place("expected a command that begins with qdrop"));
        };
        let (words, file) = rest.split_once(" > ").map_or((rest, None), |(words, file)| (words, Some(file)));
        if words.contains(['|', '>', '<', '&', ';', '*', '$', '~', '"', '\'', '#']) {
            return Err(place("expected plain words"));
        }
        let mut command = format!("{program} {words}");
        if words.split(' ').any(|word| word == "--runtime") {
            let Some(library) = &self.runtime else { return Ok(()) };
            command.push_str(&format!(" --runtime-library {}", library.display()));
        }
        // The demo has run once.
        let (code, printed, said) = if command == "qdrop demo" {
            (Some(0), self.demo.to_string(), String::new())
        } else {
            let output = run(self.dir.path(), &command);
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        let refused = output.iter().any(|l| l.starts_with("error: "));
        let expected = match code {
            Some(2) => refused,
            Some(1) => command.contains(" --min"),
            code => code == Some(0) && !refused,
        };
        if !expected {
            return Err(place(&format!("exit status {code:?}\n{printed}\n{said}")));
        }
        if let Some(file) = file {
            std::fs::write(self.dir.path().join(file), printed).unwrap();
            return Ok(());
        }
        let told = |line: &&str| ["error: ", "hint: "].iter().any(|start| line.starts_with(start));
        let lines: Vec<&str> = printed.lines().chain(said.lines().filter(told)).collect();
        let exact = ["plan", "inspect", "recipe"].iter().any(|c| words.split(' ').next() == Some(c));
        if !output.is_empty() && !alike(output, &lines, exact || refused) {
            return Err(place(&format!("shown\n{}\nnow\n{}", output.join("\n"), lines.join("\n"))));
        }
        Ok(())
    }
}

fn run(dir: &Path, command: &str) -> Output {
    let command = shortened(command);
    common::qdrop(dir, &command.split(' ').skip(1).collect::<Vec<_>>())
}

/// What `qdrop` prints about `arguments`.
fn printed(arguments: &[&str]) -> String {
    String::from_utf8(common::qdrop(Path::new("."), arguments).stdout).unwrap()
}

/// Names of the commands.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|l| l.strip_prefix("  ")).filter_map(|l| l.split(' ').next());
    names.filter(|n| !n.is_empty() && *n != "help").map(str::to_string).collect()
}

#[test]
fn every_command_does_what_is_shown() {
    let world = World::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        let shown = page.commands();
        count += shown.len();
        wrong.extend(shown.iter().filter_map(|s| world.try_out(&page.name, s).err()));
        world.tidy();
    }
    assert!(wrong.is_empty(), "{} of {count} commands:\n\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(count > 50, "only {count} commands were found");
}

#[test]
fn a_folder_is_left_for_the_blocks_of_python() {
    assert!(filled().0.join("resnet20.onnx").exists());
}

#[test]
fn no_command_hides_where_it_is_not_run() {
    for page in pages() {
        let others = page.fences.iter().filter(|f| f.language != "console").flat_map(|f| &f.lines);
        let indented = page.prose.iter().filter(|(_, l)| l.starts_with("    "));
        for (at, line) in others.chain(indented) {
            let words = line.trim_start().trim_start_matches("$ ");
            assert!(!words.starts_with("qdrop "), "{}, line {at}: `{line}` is not run", page.name);
        }
    }
}

#[test]
fn recipes_that_are_shown_are_recipes() {
    for page in pages() {
        for fence in page.fences.iter().filter(|f| f.language == "toml") {
            let text: String = fence.lines.iter().map(|(_, l)| format!("{l}\n")).collect();
            let read = match text.contains("[[axis]]") {
                true => Sweep::from_toml(&text).and_then(|s| s.runs(Path::new(""))).map(drop),
                false => Recipe::from_toml(&text).map(drop),
            };
            assert!(read.is_ok(), "{}: {}\n{text}", page.name, read.unwrap_err());
        }
    }
}

#[test]
fn commands_and_options_that_are_named_exist() {
    let names = commands();
    let mut options: BTreeSet<String> = BTreeSet::new();
    for name in &names {
        options.extend(long_options(&printed(&[name, "--help"])));
    }
    // Of cargo and of trtexec.
    let others = ["--no-default-features", "--release", "--test", "--int8", "--stronglyTyped"];
    options.extend(others.map(str::to_string));
    for page in pages() {
        for (at, code) in page.inline_code() {
            if let Some(word) = code.strip_prefix("qdrop ").and_then(|rest| rest.split(' ').next()) {
                let known = names.iter().any(|n| n == word) || word == "help" || word.starts_with('-');
                assert!(known, "{}, line {at}: there is no command `{word}`", page.name);
            }
            for option in long_options(&code) {
                assert!(options.contains(&option), "{}, line {at}: there is no option `{option}`", page.name);
            }
        }
    }
}

/// Words that begin with `--` and a letter.
fn long_options(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words
        .filter(|w| w.strip_prefix("--").is_some_and(|w| w.starts_with(char::is_alphabetic)))
        .map(String::from)
        .collect()
}

#[test]
fn messages_that_are_quoted_are_in_the_source() {
    let mut source = String::new();
    for folder in ["crates/qdrop/src", "crates/qdrop-cli/src"] {
        for file in files(&root().join(folder)) {
            // Pieces of one literal stand in several lines.
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<&str> = text.split("\\\n").map(str::trim_start).collect();
            source.push_str(&lines.concat());
        }
    }
    let mut quoted = 0;
    for page in pages() {
        let fenced = page.fences.iter().filter(|f| f.language == "text").flat_map(|f| &f.lines);
        let starts = ["error: ", "hint: ", "note: ", "warning: "];
        let fenced = fenced.filter_map(|(at, l)| Some((at, starts.iter().find_map(|s| l.strip_prefix(s))?)));
        // Tables of messages say so in the header.
        let mut listed = Vec::new();
        let mut inside = false;
        for (at, line) in &page.prose {
            let cell = line.strip_prefix("| ").and_then(|rest| rest.split(" | ").next());
            match cell {
                Some("message") => inside = true,
                Some(cell) if inside => listed.push((at, cell)),
                _ => inside &= line.starts_with('|'),
            }
        }
        for (at, message) in fenced.chain(listed) {
            quoted += 1;
            for part in message.split('…').map(|p| p.trim_matches([' ', ':', ',', ';', '`', '[', ']', '(', ')'])) {
                assert!(source.contains(part), "{}, line {at}: `{part}` is in no message", page.name);
            }
        }
    }
    assert!(quoted > 20, "only {quoted} messages were found");
}

/// Whether the book has `target`: it lies in the repository, or is the page of a sweep whose results do.
fn exists(target: &str) -> bool {
    let page = target.strip_prefix("docs/ablations/").and_then(|name| name.strip_suffix(".html"));
    match page {
        Some(name) => root().join(format!("docs/ablations/{name}.json")).exists(),
        None => root().join(target).exists(),
    }
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let by_name: BTreeMap<&str, &Page> = pages.iter().map(|p| (p.name.as_str(), p)).collect();
    for page in &pages {
        let folder = page.name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (at, link) in page.links() {
            let place = format!("{}, line {at}: `{link}`", page.name);
            assert!(!link.contains("://"), "{place}: links stay in the repository");
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(f, a)| (f, Some(a)));
            let target = match (file, folder) {
                ("", _) => page.name.clone(),
                (file, "") => file.to_string(),
                (file, folder) => format!("{folder}/{file}"),
            };
            assert!(!target.contains(".."), "{place}: leads out of the book");
            assert!(exists(&target), "{place}: there is no such file");
            if let Some(anchor) = anchor {
                let there = by_name.get(target.as_str()).is_some_and(|p| p.anchors().iter().any(|a| a == anchor));
                assert!(there, "{place}: there is no such heading");
            }
        }
    }
}

#[test]
fn every_page_is_in_the_summary() {
    let pages = pages();
    let summary = pages.iter().find(|p| p.name == "docs/SUMMARY.md").expect("a book has a summary");
    let listed: BTreeSet<String> = summary.links().into_iter().map(|(_, link)| format!("docs/{link}")).collect();
    let there: BTreeSet<String> = pages
        .iter()
        .filter(|p| p.name.starts_with("docs/") && p.name != summary.name)
        .map(|p| p.name.clone())
        .collect();
    assert_eq!(listed, there);
}

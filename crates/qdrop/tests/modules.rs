//! The rules of `ARCHITECTURE.md`, read off the source: who may import whom, where `unsafe`, matrix libraries and
//! printing may stand, how long a file may be. Test code is free to import what it needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Module, and the modules it may import. `error` may be imported everywhere; the crate root and `pipeline` may import all modules.
/// `ARCHITECTURE.md` shows the same table.
const TABLE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("disk", &[]),
    ("tensor", &[]),
    ("graph", &["tensor"]),
    ("onnx", &["disk", "graph", "tensor"]),
    ("quant", &["tensor"]),
    ("engine", &["graph", "quant", "tensor"]),
    ("passes", &["engine", "graph", "tensor"]),
    ("plan", &["engine", "graph", "quant", "tensor"]),
    ("eval", &["engine", "graph", "tensor"]),
    ("data", &["eval", "plan", "tensor"]),
    ("calibrate", &["engine", "graph", "plan", "quant", "tensor"]),
    ("lower", &["graph", "plan", "quant", "tensor"]),
    ("report", &["plan"]),
    ("runtime", &["graph", "tensor"]),
    ("work", &["disk", "report", "tensor"]),
    ("probe", &["calibrate", "data", "engine", "graph", "plan", "quant", "report", "tensor", "work"]),
    ("recon", &["engine", "graph", "plan", "probe", "quant", "report", "tensor", "work"]),
    ("prepare", &["graph", "onnx", "passes", "probe", "tensor"]),
    (
        "measure",
        &["data", "disk", "engine", "eval", "graph", "onnx", "plan", "prepare", "probe", "report", "runtime", "tensor"],
    ),
    (
        "pipeline",
        &[
            "calibrate",
            "data",
            "disk",
            "engine",
            "eval",
            "graph",
            "lower",
            "measure",
            "onnx",
            "passes",
            "plan",
            "prepare",
            "probe",
            "quant",
            "recon",
            "report",
            "runtime",
            "tensor",
            "work",
        ],
    ),
    (
        "quantizer",
        &[
            "data", "disk", "engine", "eval", "graph", "onnx", "pipeline", "plan", "probe", "report", "runtime",
            "tensor", "work",
        ],
    ),
];

/// Crates that multiply matrices or address vector units; only `engine` may use them.
const KERNEL_CRATES: &[&str] = &["gemm", "pulp"];

/// Modules that may hold `unsafe`: the engine, and the door to a C library.
const UNSAFE: &[&str] = &["engine", "runtime"];

/// Longest file, in lines.
const LONGEST: usize = 600;

/// A source file with comments, strings and test modules blanked out; line breaks stay.
struct Source {
    path: PathBuf,
    module: String,
    code: String,
    lines: usize,
}

fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Blanks comments, string and character literals.
fn blanked(text: &str) -> String {
    let t: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let (mut i, n) = (0, t.len());
    let keep = |c: char| if c == '\n' { '\n' } else { ' ' };
    let at = |i: usize, s: &str| s.chars().enumerate().all(|(k, c)| t.get(i + k) == Some(&c));
    while i < n {
        let start = i;
        let word_before = i > 0 && (t[i - 1].is_alphanumeric() || t[i - 1] == '_');
        if at(i, "//") {
            while i < n && t[i] != '\n' {
                i += 1;
            }
        } else if at(i, "/*") {
            let mut depth = 0;
            while i < n {
                if at(i, "/*") {
                    (depth, i) = (depth + 1, i + 2);
                } else if at(i, "*/") {
                    (depth, i) = (depth - 1, i + 2);
                    if depth == 0 {
                        break;
                    }
                } else {
                    i += 1;
                }
            }
        } else if t[i] == 'r' && !word_before && (at(i + 1, "\"") || at(i + 1, "#")) {
            let hashes = t[i + 1..].iter().take_while(|&&c| c == '#').count();
            if t.get(i + 1 + hashes) != Some(&'"') {
                out.push(t[i]);
                i += 1;
                continue;
            }
            let end = format!("\"{}", "#".repeat(hashes));
            i += 2 + hashes;
            while i < n && !at(i, &end) {
                i += 1;
            }
            i += end.len();
        } else if t[i] == '"' {
            i += 1;
            while i < n && t[i] != '"' {
                i += if t[i] == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if t[i] == '\'' && (at(i + 1, "\\") || t.get(i + 2) == Some(&'\'')) {
            // A character, not a lifetime.
            i += if t.get(i + 1) == Some(&'\\') { 3 } else { 2 };
            while i < n && t[i] != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            out.push(t[i]);
            i += 1;
            continue;
        }
        out.extend(t[start..i.min(n)].iter().map(|&c| keep(c)));
    }
    out
}

/// End of the item that starts at `start`: behind its `;`, or behind the brace that closes it.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (k, c) in code[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return start + k + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return start + k + 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanks items under `#[cfg(test)]`; names of modules among them that have their own file go to `modules`.
fn without_tests(code: &str, text: &str, modules: &mut Vec<String>) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_string();
    while let Some(start) = out.find(MARK) {
        let end = item_end(&out, start);
        let item = &out[start + MARK.len()..end];
        let words: Vec<&str> =
            item.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty()).collect();
        if item.ends_with(';')
            && let Some(k) = words.iter().position(|&w| w == "mod")
        {
            modules.push(words[k + 1].to_string());
            // `#[path = "file.rs"]`: the literal is blanked in the code, so it is read from the text.
            if let Some(literal) = text[start..end].split('"').nth(1) {
                modules.push(literal.trim_end_matches(".rs").to_string());
            }
        }
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

fn sources() -> Vec<Source> {
    let root = library();
    let mut paths = Vec::new();
    rust_files(&root, &mut paths);
    let mut tests = BTreeSet::new();
    let mut all = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap();
        // Offsets of text and code agree only where every character is one byte.
        let text: String = text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        let mut modules = Vec::new();
        let code = without_tests(&blanked(&text), &text, &mut modules);
        let parent = match path.file_stem().unwrap().to_str() {
            Some("mod" | "lib") => path.parent().unwrap().to_path_buf(),
            _ => path.with_extension(""),
        };
        for module in modules {
            tests.insert(parent.join(&module));
            tests.insert(path.parent().unwrap().join(module));
        }
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        let module = first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_string();
        all.push(Source { path: path.clone(), module, code, lines: text.lines().count() });
    }
    let is_test = |p: &Path| p.with_extension("").ancestors().any(|a| tests.contains(a));
    all.retain(|s| !is_test(&s.path));
    assert!(all.len() > 30, "the source is not where this test looks");
    all
}

/// Names that follow `path` in code, groups in braces included: `crate::{a::B, c}` names `a` and `c` behind `crate::`.
fn names_behind(path: &str, code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (start, found) in code.match_indices(path) {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = code[start + found.len()..].trim_start();
        let mut push = |s: &str| {
            let name: String = s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                names.insert(name);
            }
        };
        let Some(group) = rest.strip_prefix('{') else {
            push(rest);
            continue;
        };
        let (mut depth, mut part) = (0, 0);
        for (k, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    push(&group[part..k]);
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    push(&group[part..k]);
                    part = k + 1;
                }
                _ => {}
            }
        }
    }
    names
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(k, _)| !code[..k].ends_with(part) && !code[k + word.len()..].starts_with(part))
}

/// Prints all broken rules at once.
fn none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}\n", broken.join("\n  "));
}

#[test]
fn imports_follow_the_table() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| s.module != "lib") {
        let Some((_, allowed)) = TABLE.iter().find(|(module, _)| *module == source.module) else {
            broken.push(format!("module `{}` is not in the table", source.module));
            continue;
        };
        for name in names_behind("crate::", &source.code) {
            let module = TABLE.iter().any(|(module, _)| *module == name);
            if module && name != source.module && name != "error" && !allowed.contains(&name.as_str()) {
                broken.push(format!("{}: `{}` may not import `{name}`", source.path.display(), source.module));
            }
        }
    }
    none("imports that the table forbids", broken);
}

#[test]
fn arrows_never_turn_back() {
    // Each row may name only modules of earlier rows.
    for (i, (module, allowed)) in TABLE.iter().enumerate() {
        for other in *allowed {
            assert!(TABLE[..i].iter().any(|(r, _)| r == other), "`{module}` imports `{other}`, which stands behind it");
        }
    }
}

/// Files of a module may be put in an order in which each reads only files before it.
#[test]
fn no_module_is_a_circle() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|s| s.module.as_str()).collect();
    let mut broken = Vec::new();
    for module in modules {
        let folder = library().join(module);
        let file = |s: &&Source| s.path.parent() == Some(&folder) && !s.path.ends_with("mod.rs");
        let name = |s: &Source| s.path.file_stem().unwrap().to_str().unwrap().to_string();
        let mut left: Vec<(String, BTreeSet<String>)> =
            sources.iter().filter(file).map(|s| (name(s), names_behind("super::", &s.code))).collect();
        loop {
            let names: BTreeSet<String> = left.iter().map(|f| f.0.clone()).collect();
            let before = left.len();
            left.retain(|(own, read)| read.iter().any(|r| r != own && names.contains(r)));
            if left.len() == before {
                break;
            }
        }
        if !left.is_empty() {
            let names: Vec<&str> = left.iter().map(|f| f.0.as_str()).collect();
            broken.push(format!("{module}: {}", names.join(", ")));
        }
    }
    none("files of a module are in no circle", broken);
}

#[test]
fn the_table_is_the_one_in_the_architecture() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (module, allowed) in TABLE {
        let names: Vec<String> = allowed.iter().map(|r| format!("`{r}`")).collect();
        let want = if *module == "pipeline" { "all of them".to_string() } else { names.join(", ") };
        let want = if want.is_empty() { "-".to_string() } else { want };
        let row = page.lines().find(|l| l.starts_with(&format!("| `{module}` |")));
        let row = row.unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for `{module}`"));
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        assert_eq!(cell, want, "imports of `{module}` in ARCHITECTURE.md");
    }
}

#[test]
fn unsafe_and_matrix_libraries_stay_in_their_modules() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| s.module != "engine") {
        if !UNSAFE.contains(&source.module.as_str()) && has_word(&source.code, "unsafe") {
            broken.push(format!("{}: unsafe", source.path.display()));
        }
        for name in KERNEL_CRATES {
            let path = format!("{name}::");
            let inside = |k: usize| source.code[..k].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if source.code.match_indices(&path).any(|(k, _)| !inside(k)) {
                broken.push(format!("{}: uses {name}", source.path.display()));
            }
        }
    }
    none("other modules do this", broken);
}

#[test]
fn no_module_but_the_engine_knows_a_device() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| s.module != "engine") {
        for word in ["cpu", "naive", "ThreadPool", "ThreadPoolBuilder"].iter().filter(|w| has_word(&source.code, w)) {
            broken.push(format!("{} names `{word}`", source.path.display()));
        }
    }
    none("devices are known by their interface", broken);
}

#[test]
fn the_library_does_not_print() {
    let mut broken = Vec::new();
    for source in sources() {
        for name in ["println!", "print!", "eprintln!", "eprint!", "dbg!"] {
            if has_word(&source.code, name) {
                broken.push(format!("{}: {name}", source.path.display()));
            }
        }
    }
    none("printing belongs to the command line", broken);
}

/// Only `disk::put_in_place` waits until the disk has what it names.
#[test]
fn files_get_their_names_in_one_place() {
    let mut paths = Vec::new();
    [library(), Path::new(env!("CARGO_MANIFEST_DIR")).join("../qdrop-cli/src")]
        .iter()
        .for_each(|f| rust_files(f, &mut paths));
    let names = |p: &PathBuf| blanked(&std::fs::read_to_string(p).unwrap()).matches(".persist(").count();
    let found: Vec<String> = paths.iter().filter(|p| names(p) > 0).map(|p| p.display().to_string()).collect();
    assert!(found.len() == 1 && found[0].ends_with("src/disk.rs"), "temporary files are named in {found:?}");
}

/// The README's first command names no program: `cargo run` must find one alone.
#[test]
fn cargo_run_means_the_command_line() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let told = std::process::Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let list = |v: &serde_json::Value| v.as_array().cloned().unwrap_or_default();
    let default = list(&told["workspace_default_members"]);
    let packages = list(&told["packages"]).into_iter().filter(|p| default.contains(&p["id"]));
    let targets = packages.flat_map(|p| list(&p["targets"]));
    let programs = targets.filter(|t| list(&t["kind"]).iter().any(|k| k == "bin"));
    let names: Vec<String> = programs.map(|t| t["name"].as_str().unwrap_or_default().to_string()).collect();
    assert_eq!(names, ["qdrop"]);
}

#[test]
fn files_are_short() {
    let mut paths = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "../qdrop-cli/src", "../qdrop-cli/tests"] {
        if root.join(folder).is_dir() {
            rust_files(&root.join(folder), &mut paths);
        }
    }
    let lines = |p: &PathBuf| std::fs::read_to_string(p).unwrap().lines().count();
    let long = paths.iter().filter(|p| lines(p) > LONGEST).map(|p| format!("{}: {} lines", p.display(), lines(p)));
    none("files longer than 600 lines", long.collect());
    // The count of the scanner is the file's.
    assert!(sources().iter().all(|s| s.lines <= LONGEST));
}

#[test]
fn the_reader_of_source_reads_well() {
    let code = r##"
        use crate::{tensor::Tensor, graph::{Op, self}, Result};
        // use crate::onnx;
        let s = "crate::plan"; let r = r#"crate::eval "quoted" "#; let c = '"'; let l: &'static str = "x";
        fn f() { crate::quant::round(1.0); $crate::report::x(); }
        #[cfg(test)]
        mod tests { use crate::passes; fn g() { if true { unsafe {} } } }
        #[cfg(test)]
        mod elsewhere;
    "##;
    let mut modules = Vec::new();
    let seen = without_tests(&blanked(code), code, &mut modules);
    let names: Vec<String> = names_behind("crate::", &seen).into_iter().collect();
    assert_eq!(names, ["Result", "graph", "quant", "tensor"]);
    assert_eq!(modules, ["elsewhere"]);
    assert!(!has_word(&seen, "unsafe") && has_word("unsafe {", "unsafe") && !has_word("unsafe_code", "unsafe"));
    assert_eq!(seen.len(), code.len());
}

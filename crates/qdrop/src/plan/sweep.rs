//! A sweep: options that all runs share, and axes with cases; every combination of cases is a run.

use super::recipe::Recipe;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Most runs of a sweep; more are taken for a mistake.
const MOST: usize = 100_000;
/// Keys of a run that are no options of a recipe.
const FILES: [&str; 3] = ["model", "calib", "eval"];

/// A sweep, read from a TOML file.
///
/// ```toml
/// model = "resnet20.onnx"      # paths are relative to this file
/// calib = "calib"
/// eval = "test"
/// average = ["seed"]           # axes over which tables show the mean; default: axes of method.seed
///
/// [recipe]                     # options that all runs share, as `qdrop recipe` prints them
/// method.preset = "fast"
///
/// [[axis]]
/// name = "bits"
/// case = [
///   { name = "W2A2", weights.bits = 2, activations.bits = 2 },
///   { name = "W4A4", weights.bits = 4, activations.bits = 4 },
/// ]
///
/// [[axis]]
/// name = "seed"
/// key = "method.seed"
/// values = [0, 1, 2]
/// ```
///
/// A case may set any option of the recipe, and `model`, `calib` and `eval`. If several axes set the same option, the
/// later one wins.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    model: Option<String>,
    calib: Option<String>,
    eval: Option<String>,
    average: Option<Vec<String>>,
    #[serde(default)]
    recipe: Table,
    axis: Vec<Axis>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Axis {
    name: String,
    key: Option<String>,
    #[serde(default)]
    values: Vec<Value>,
    #[serde(default)]
    case: Vec<Table>,
}

/// The case that a run has on one axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Name of the axis.
    pub axis: String,
    /// Name of the case, unique along the axis.
    pub name: String,
    /// Whether tables show the mean over this axis.
    pub averaged: bool,
}

impl Case {
    /// The position of the case on a chart, if its name is a number.
    pub fn number(&self) -> Option<f64> {
        self.name.parse().ok().filter(|x: &f64| x.is_finite())
    }
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepRun {
    /// Its name, made of the names of its cases: unique in the sweep, and valid as a file name.
    pub name: String,
    /// One case per axis, in the order of the file.
    pub cases: Vec<Case>,
    /// The folder of the sweep's file, to which all paths are relative unless the sweep gives them from the root.
    pub folder: PathBuf,
    /// The float network.
    pub model: PathBuf,
    /// Calibration samples.
    pub calib: PathBuf,
    /// Labelled samples that the written file is measured on.
    pub eval: PathBuf,
    /// Everything else.
    pub recipe: Recipe,
}

impl Sweep {
    /// Reads a sweep from TOML text; unknown keys are refused.
    pub fn from_toml(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
            Error::recipe(e.message().trim().to_string()).at(format!("line {line}")).hint(
                "a sweep has model, calib, eval, average, [recipe] and [[axis]] with name and case, or key and values",
            )
        })
    }

    /// All runs, the last axis changing fastest; relative paths begin at `folder`. Errors name the axis or the run.
    pub fn runs(&self, folder: &Path) -> Result<Vec<SweepRun>> {
        let axes = self.axis.iter().map(|axis| self.cases(axis)).collect::<Result<Vec<_>>>()?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.axis.iter().find(|a| !seen.insert(&a.name)) {
            return Err(Error::recipe("two axes have the same name").at(axis_place(&twice.name)));
        }
        if let Some(name) = self.average.iter().flatten().find(|n| !seen.contains(n)) {
            return Err(Error::recipe(format!("`average` names the axis `{name}`, which the sweep does not have")));
        }
        let count = axes.iter().try_fold(1usize, |n, cases| n.checked_mul(cases.len()));
        let Some(count) = count.filter(|&n| n <= MOST) else {
            return Err(Error::recipe(format!("expected at most {MOST} runs")).hint("leave out axes or cases"));
        };
        let mut names = BTreeSet::new();
        let mut runs = Vec::with_capacity(count);
        for index in 0..count {
            let mut rest = index;
            let mut chosen: Vec<&(Case, Table)> = Vec::with_capacity(axes.len());
            for cases in axes.iter().rev() {
                chosen.push(&cases[rest % cases.len()]);
                rest /= cases.len();
            }
            chosen.reverse();
            let run = self.run(folder, &chosen)?;
            if !names.insert(run.name.to_lowercase()) {
                let error =
                    Error::recipe("two runs would have files with the same name").at(format!("run `{}`", run.name));
                return Err(error.hint("give cases names that differ in letters, digits or dots"));
            }
            runs.push(run);
        }
        Ok(runs)
    }

    /// The cases of `axis` with what each sets.
    fn cases(&self, axis: &Axis) -> Result<Vec<(Case, Table)>> {
        let refuse = |message: &str| Err(Error::recipe(message).at(axis_place(&axis.name)));
        let settings: Vec<(String, Table)> = match (&axis.key, axis.values.is_empty(), axis.case.is_empty()) {
            (Some(key), false, true) => axis.values.iter().map(|v| (plain(v), at_key(key, v))).collect(),
            (None, true, false) => {
                let mut cases = Vec::new();
                for case in &axis.case {
                    let mut settings = case.clone();
                    match settings.remove("name") {
                        Some(Value::String(name)) => cases.push((name, settings)),
                        _ => return refuse("expected a `name` in each case"),
                    }
                }
                cases
            }
            _ => return refuse("expected either `key` and `values` or `case`, with at least one entry"),
        };
        let mut seen = BTreeSet::new();
        if let Some((name, _)) = settings.iter().find(|s| !seen.insert(&s.0)) {
            return refuse(&format!("two cases have the name `{name}`"));
        }
        let averaged = match &self.average {
            Some(names) => names.contains(&axis.name),
            None => axis.key.as_deref() == Some("method.seed"),
        };
        let case = |name: String| Case { axis: axis.name.clone(), name, averaged };
        Ok(settings.into_iter().map(|(name, settings)| (case(name), settings)).collect())
    }

    fn run(&self, folder: &Path, chosen: &[&(Case, Table)]) -> Result<SweepRun> {
        let words: Vec<String> = chosen.iter().map(|(case, _)| word(&case.name)).collect();
        let name = words.join("_");
        let place = || format!("run `{name}`");
        let mut all = Table::new();
        merge(&mut all, &self.recipe);
        for (key, value) in FILES.iter().zip([&self.model, &self.calib, &self.eval]) {
            if let Some(value) = value {
                all.insert((*key).to_string(), Value::String(value.clone()));
            }
        }
        chosen.iter().for_each(|(_, settings)| merge(&mut all, settings));
        let mut file = |key: &str| match all.remove(key) {
            Some(Value::String(path)) => Ok(folder.join(path)),
            Some(_) => Err(Error::recipe(format!("`{key}` is not a path")).at(place())),
            None => Err(Error::recipe(format!("`{key}` is missing")).at(place())),
        };
        let (model, calib, eval) = (file("model")?, file("calib")?, file("eval")?);
        let text = toml::to_string(&all).map_err(|e| Error::recipe(e.to_string()).at(place()))?;
        let mut recipe = Recipe::from_toml(&text).map_err(|e| e.at(place()))?;
        for path in recipe.input.paths_mut() {
            *path = folder.join(&*path).to_string_lossy().into_owned();
        }
        let cases = chosen.iter().map(|(case, _)| case.clone()).collect();
        Ok(SweepRun { name, cases, folder: folder.to_path_buf(), model, calib, eval, recipe })
    }
}

fn axis_place(name: &str) -> String {
    format!("axis `{name}`")
}

/// `settings` over `into`, tables entry by entry.
fn merge(into: &mut Table, settings: &Table) {
    for (key, value) in settings {
        match (into.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// `value` under the dotted `key`.
fn at_key(key: &str, value: &Value) -> Table {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let inner = rest.map_or_else(|| value.clone(), |rest| Value::Table(at_key(rest, value)));
    Table::from_iter([(first.to_string(), inner)])
}

/// A value as people write it: strings without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// `name` in characters that every file system takes.
fn word(name: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || ".-+".contains(c) { c } else { '-' };
    let word: String = name.chars().map(keep).collect();
    if word.trim_matches('.').is_empty() { "-".into() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::MethodName;

    const TEXT: &str = r#"
        model = "net.onnx"
        calib = "calib"
        eval = "/data/test"
        [recipe]
        method.iterations = 7
        weights.bits = 8
        [[axis]]
        name = "bits"
        case = [
          { name = "W2A2", weights.bits = 2, activations.bits = 2 },
          { name = "W3/A4", weights.bits = 3, model = "other.onnx" },
        ]
        [[axis]]
        name = "method"
        key = "method.name"
        values = ["rtn", "qdrop"]
        [[axis]]
        name = "seed"
        key = "method.seed"
        values = [0, 1, 2]
    "#;

    #[test]
    fn every_combination_is_a_run() {
        let runs = Sweep::from_toml(TEXT).unwrap().runs(Path::new("/home")).unwrap();
        assert_eq!(runs.len(), 12);
        let (first, last) = (&runs[0], &runs[11]);
        assert_eq!((first.name.as_str(), last.name.as_str()), ("W2A2_rtn_0", "W3-A4_qdrop_2"));
        assert_eq!(first.model, Path::new("/home/net.onnx"));
        assert_eq!((last.model.as_path(), last.eval.as_path()), ("/home/other.onnx".as_ref(), "/data/test".as_ref()));
        assert_eq!((first.recipe.weights.bits, first.recipe.activations.bits), (2, 2));
        assert_eq!((last.recipe.weights.bits, last.recipe.activations.bits), (3, 4));
        assert_eq!((last.recipe.method.name, last.recipe.method.iterations), (MethodName::Qdrop, Some(7)));
        assert_eq!(last.cases.iter().map(|c| c.averaged).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!((last.cases[2].number(), last.cases[1].number()), (Some(2.0), None));
    }

    #[test]
    fn all_paths_begin_at_the_folder() {
        let inputs = "input.images = \"val\"\ninput.labels = \"/maps\"\ninput.tokenizer = \"../t.json\"\n[[axis]]";
        let text = TEXT.replacen("[[axis]]", inputs, 1);
        let input = &Sweep::from_toml(&text).unwrap().runs(Path::new("/home/a")).unwrap()[0].recipe.input;
        let paths = [&input.images, &input.labels, &input.tokenizer].map(Option::as_deref);
        assert_eq!(paths, [Some("/home/a/val"), Some("/maps"), Some("/home/a/../t.json")]);
    }

    #[test]
    fn mistakes_are_named() {
        let refusal = |from: &str, to: &str| {
            let text = TEXT.replace(from, to);
            assert_ne!(text, TEXT);
            Sweep::from_toml(&text).and_then(|s| s.runs(Path::new(""))).unwrap_err().to_string()
        };
        for (from, to, want) in [
            ("model = \"net.onnx\"", "modle = \"net.onnx\"", "modle"),
            ("model = \"net.onnx\"", "", "`model` is missing"),
            ("eval = \"/data/test\"", "eval = 3", "string"),
            ("method.seed", "method.sed", "sed"),
            ("[0, 1, 2]", "[0, 0]", "two cases have the name `0`"),
            ("[0, 1, 2]", "[]", "at least one entry"),
            ("[0, 1, 2]", "[-1]", "run `W2A2_rtn_-1`"),
            ("W3/A4", "w2a2", "two runs would have files with the same name"),
            ("name = \"seed\"", "name = \"bits\"", "two axes have the same name"),
            ("name = \"W2A2\", ", "", "expected a `name` in each case"),
            ("[recipe]", "average = [\"sed\"]\n[recipe]", "`average` names the axis `sed`"),
            ("weights.bits = 8", "weights.bits = 9", "bits"),
        ] {
            // The first axis overrides bits, so that the shared value alone cannot be wrong there.
            let error = match to {
                "weights.bits = 9" => {
                    let text = TEXT.replace("weights.bits = 2, ", "").replace(from, to);
                    Sweep::from_toml(&text).and_then(|s| s.runs(Path::new(""))).unwrap_err().to_string()
                }
                _ => refusal(from, to),
            };
            assert!(error.contains(want), "{to}: {error}");
        }
    }
}

//! Makes the page of every sweep in a folder: of `NAME.toml`, which `qdrop sweep` runs, and `NAME.json`, its results.
//! Without a second argument the pages lie beside them.
//!
//!     cargo run --release --example sweep_pages docs/ablations [target/book/ablations]

use qdrop::plan::{MethodName, Sweep, SweepRun};
use qdrop::report::{Report, Score, Trial};
use qdrop::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The results of runs that differ only in averaged axes: a row of the sweep's table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// Names of their cases, by axis.
    cases: BTreeMap<String, String>,
    /// Accuracy of the float network in per cent, by metric.
    float: BTreeMap<String, f64>,
    /// Accuracies of the written files, one a run in ascending order.
    result: BTreeMap<String, Vec<f64>>,
    /// Size of all weights in bytes.
    weight_bytes: u64,
    /// Time of a run in seconds, on average.
    seconds: f64,
}

impl Row {
    /// Whether it is that of `run`.
    fn holds(&self, run: &SweepRun) -> bool {
        let mut shown = run.cases.iter().filter(|case| !case.averaged);
        shown.all(|case| self.cases.get(&case.axis) == Some(&case.name))
    }

    /// The result at `position`, as that of `run`.
    fn trial(&self, run: &SweepRun, position: usize) -> Option<Trial> {
        let known = self.result.iter().filter_map(|(name, values)| Some((name.as_str(), *values.get(position)?)));
        let result = Score::new(0, known);
        (!result.metrics.is_empty()).then(|| Trial {
            schema: Trial::SCHEMA,
            key: String::new(),
            name: run.name.clone(),
            cases: run.cases.clone(),
            float: Score { metrics: self.float.clone(), ..Score::new(0, []) },
            result,
            weight_bytes: self.weight_bytes,
            seconds: self.seconds,
            report: Report::new(MethodName::Qdrop),
        })
    }
}

/// The page of the sweep `text` called `name`, whose results are `rows`.
fn page(name: &str, text: &str, rows: &[Row]) -> Result<String> {
    let (mut trials, mut missing) = (Vec::new(), Vec::new());
    let mut taken = vec![0; rows.len()];
    for run in Sweep::from_toml(text)?.runs(Path::new(""))? {
        let row = rows.iter().position(|row| row.holds(&run));
        match row.and_then(|row| rows[row].trial(&run, taken[row])) {
            Some(trial) => trials.push(trial),
            None => missing.push(run.name.clone()),
        }
        row.iter().for_each(|&row| taken[row] += 1);
    }
    Ok(Trial::page(name, &trials, text, &format!("qdrop sweep {name}.toml"), &missing))
}

/// Makes the page of the sweep in `path`, where results lie beside it.
fn convert(path: &Path, pages: &Path) -> Result<()> {
    let results = path.with_extension("json");
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    if !results.exists() {
        return Ok(());
    }
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Error::io(path, e));
    let rows: Vec<Row> =
        serde_json::from_str(&read(&results)?).map_err(|e| Error::data(e.to_string()).at(results.display()))?;
    let page = page(&name, &read(path)?, &rows).map_err(|e| e.at(path.display()))?;
    let output = pages.join(format!("{name}.html"));
    std::fs::write(&output, page).map_err(|e| Error::io(&output, e))?;
    println!("{}", output.display());
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().ok_or_else(|| Error::data("expected a folder with sweeps and their results"))?;
    let pages = arguments.next().unwrap_or_else(|| folder.clone());
    std::fs::create_dir_all(&pages).map_err(|e| Error::io(&pages, e))?;
    let entries = std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))?;
    let mut sweeps: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    sweeps.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    sweeps.sort();
    sweeps.iter().try_for_each(|sweep| convert(sweep, &pages))
}

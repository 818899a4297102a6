//! `qdrop sweep`: performs all runs of a grid one after the other, or a single one, and compares them.

use crate::args::{Print, Sweep as Args};
use crate::progress::Detail;
use crate::{Outcome, checks, out, progress};
use qdrop::disk;
use qdrop::plan::{Sweep, SweepRun};
use qdrop::report::{Event, Score, Sink, Stage, Table, Trial, duration, timed};
use qdrop::{CalibrationSet, Dataset, Error, Kind, Model, Quantizer, Result, Samples, WorkDir};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Most bytes that a sweep's file may have.
const LONGEST: u64 = 1 << 20;

/// What a stopped sweep is told.
const CONTINUES: &str = "the same command continues the run that was stopped";

/// Runs the command.
pub fn run(args: &Args, detail: Detail) -> Result<Outcome> {
    let (text, mut runs) = read(&args.sweep)?;
    if let Some(threads) = args.threads {
        runs.iter_mut().for_each(|run| run.recipe.method.threads = threads);
    }
    let folder = args.output_dir.clone().unwrap_or_else(|| default_folder(&args.sweep));
    let place = Place { folder: folder.clone(), sweep: text, file: args.sweep.clone(), title: title(&args.sweep) };
    let keys = qdrop::run_keys(&runs).map_err(|e| e.at(args.sweep.display()))?;
    if args.list {
        return list(&runs, &keys, &place, args.format);
    }
    let chosen: Vec<usize> = match (args.index, args.stripe) {
        (None, stripe) => (0..runs.len()).filter(|&i| stripe.is_none_or(|s| s.contains(i))).collect(),
        (Some(index), _) if index < runs.len() => vec![index],
        (Some(index), _) => {
            let error = Error::data(format!("--index: expected 0 to {}, got {index}", runs.len() - 1));
            return Err(error.at(args.sweep.display()).hint("`qdrop sweep --list` lists the runs"));
        }
    };
    for run in chosen.iter().map(|&i| &runs[i]) {
        [&run.model, &run.calib, &run.eval]
            .into_iter()
            .try_for_each(|path| checks::exists(path))
            .map_err(|e| e.at(format!("run `{}`", run.name)))?;
    }
    place.check(chosen.iter().map(|&i| &runs[i]))?;
    std::fs::create_dir_all(place.runs()).map_err(|e| Error::io(&place.runs(), e))?;

    progress::on_leaving(|error| error.hint(CONTINUES));
    let mut sink = progress::sink(detail);
    let sink = sink.as_mut();
    let mut done = place.all(&runs, &keys);
    let open: Vec<usize> = chosen.into_iter().filter(|&i| done[i].is_none()).collect();
    let (start, mut failed) = (Instant::now(), Vec::new());
    for (n, &i) in open.iter().enumerate() {
        let run = &runs[i];
        let left = match n {
            0 => String::new(),
            _ => {
                let each = start.elapsed().as_secs_f64() / n as f64;
                format!(", about {} left", duration(each * (open.len() - n) as f64))
            }
        };
        sink.event(&Event::Note { message: format!("run {} of {}: {}{left}", n + 1, open.len(), run.name) });
        match perform(run, &keys[i], &place, args.keep_models, sink) {
            Ok((trial, work)) => {
                place.keep(&trial)?;
                work.map_or(Ok(()), WorkDir::remove)?;
                done[i] = Some(trial);
            }
            Err(error) if error.kind() == Kind::Interrupted => {
                return Err(error.hint(CONTINUES));
            }
            Err(error) => {
                sink.event(&Event::Note { message: format!("run {} failed: {error}", run.name) });
                failed.push((run.name.clone(), error));
            }
        }
        place.write(&runs, &done)?;
    }
    // Others may have run in the meantime.
    let trials = place.write(&runs, &place.all(&runs, &keys))?;
    match args.format {
        Print::Json => out::json(&trials)?,
        Print::Text => {
            let page = place.folder.join("sweep.html");
            let text = out::draw(&[Trial::table(&trials)]);
            let missing = runs.len() - trials.len();
            let missing = if missing > 0 { format!("\n{missing} runs are missing\n") } else { String::new() };
            out::print(&format!("{text}{missing}\nPage with charts: {}", page.display()))?;
        }
    }
    let Some((name, error)) = failed.pop() else { return Ok(Outcome::Done) };
    let others = failed.len();
    Err(error.at(format!("run `{name}`{}", if others > 0 { format!(" and {others} more") } else { String::new() })))
}

/// The text of the sweep in `path` and its runs.
fn read(path: &Path) -> Result<(String, Vec<SweepRun>)> {
    checks::readable_file(path)?;
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > LONGEST {
        let message = format!("expected a sweep of at most {LONGEST} bytes, got a file of {size}");
        return Err(Error::recipe(message).at(path.display()));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::recipe("expected TOML, got bytes that are not UTF-8").at(path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let runs = Sweep::from_toml(&text).and_then(|s| s.runs(folder)).map_err(|e| e.at(path.display()))?;
    Ok((text, runs))
}

fn title(sweep: &Path) -> String {
    sweep.file_stem().map_or_else(|| "sweep".into(), |s| s.to_string_lossy().into_owned())
}

/// Where results go when the user names no directory: in the current one, named after the sweep's file.
fn default_folder(sweep: &Path) -> PathBuf {
    PathBuf::from(format!("{}.sweep", title(sweep)))
}

/// Where results lie.
struct Place {
    folder: PathBuf,
    /// Text of the sweep.
    sweep: String,
    file: PathBuf,
    title: String,
}

impl Place {
    fn runs(&self) -> PathBuf {
        self.folder.join("runs")
    }

    fn of(&self, run: &str, extension: &str) -> PathBuf {
        self.runs().join(format!("{run}.{extension}"))
    }

    /// That nothing which `runs` write is a file that they read.
    fn check<'a>(&self, runs: impl Iterator<Item = &'a SweepRun>) -> Result<()> {
        let mut written = ["sweep.csv", "sweep.html"].map(|name| self.folder.join(name)).to_vec();
        // Runs share most of what they read.
        let (mut reads, mut seen) = (vec![self.file.clone()], HashSet::new());
        for run in runs {
            let model = self.of(&run.name, "onnx");
            written.push(self.of(&run.name, "json"));
            written.extend(qdrop::encodings_beside(&model, &run.recipe));
            written.push(model);
            if seen.insert((&run.model, &run.calib, &run.eval, &run.recipe.input.tokenizer)) {
                reads.extend(checks::run_files(&run.model, [&run.calib, &run.eval], &run.recipe));
            }
        }
        checks::apart(&written, &reads, "--output-dir")
    }

    /// The result of `run`, if it is there and follows from what the run says today.
    fn find(&self, run: &SweepRun, key: &str) -> Option<Trial> {
        let text = std::fs::read_to_string(self.of(&run.name, "json")).ok()?;
        let mut trial: Trial = serde_json::from_str(&text).ok()?;
        // Names of axes, and which are averaged, may change without another result.
        trial.cases.clone_from(&run.cases);
        (trial.key == key && trial.schema == Trial::SCHEMA).then_some(trial)
    }

    fn keep(&self, trial: &Trial) -> Result<()> {
        let text = serde_json::to_string(trial).map_err(|e| Error::internal(format!("no JSON: {e}")))?;
        out::file(&self.of(&trial.name, "json"), &text)
    }

    /// What is there of each run.
    fn all(&self, runs: &[SweepRun], keys: &[String]) -> Vec<Option<Trial>> {
        runs.iter().zip(keys).map(|(run, key)| self.find(run, key)).collect()
    }

    /// Writes table and page of the runs that are `done`, and returns these.
    fn write(&self, runs: &[SweepRun], done: &[Option<Trial>]) -> Result<Vec<Trial>> {
        let trials: Vec<Trial> = done.iter().flatten().cloned().collect();
        let missing = runs.iter().zip(done).filter(|(_, trial)| trial.is_none());
        let missing: Vec<String> = missing.map(|(run, _)| run.name.clone()).collect();
        out::file(&self.folder.join("sweep.csv"), &Trial::csv(&trials)?)?;
        let command = format!("qdrop sweep {}", self.file.file_name().unwrap_or_default().to_string_lossy());
        let page = Trial::page(&self.title, &trials, &self.sweep, &command, &missing);
        out::file(&self.folder.join("sweep.html"), &page)?;
        Ok(trials)
    }
}

/// One run, from the model's file to what is measured on the written one, and the finished units, which are needed until
/// that is kept.
fn perform(
    run: &SweepRun,
    key: &str,
    place: &Place,
    keep_model: bool,
    sink: &mut dyn Sink,
) -> Result<(Trial, Option<WorkDir>)> {
    let recipe = &run.recipe;
    let model = Model::open(&run.model)?;
    let calibration = CalibrationSet::open(&run.calib, &model, recipe, sink)?;
    let eval = Dataset::open(&run.eval, &model, recipe, None, sink)?;
    let float = float_score(run, place, (&model, &eval), sink)?;
    let (used, rest) = (calibration.used()?, calibration.left_out()?);
    let work = match recipe.resolved().learns {
        true => Some(WorkDir::open(&place.of(&run.name, "work"))?),
        false => None,
    };
    let output = place.of(&run.name, "onnx");
    let mut quantizer = Quantizer::new(&model).recipe(recipe.clone()).unseen(&*rest);
    quantizer = quantizer.evaluate_on(&eval).float_score(float.clone()).measure_nearest(false);
    if let Some(work) = &work {
        quantizer = quantizer.work_dir(work);
    }
    let done = quantizer.progress(sink).quantize_to(&used, &output)?;
    if !keep_model {
        let both = [Some(output.clone()), qdrop::encodings_beside(&output, recipe)];
        both.iter().flatten().try_for_each(|f| std::fs::remove_file(f).map_err(|e| Error::io(f, e)))?;
    }
    let weight_bytes = done.weight_bytes();
    let mut report = done.into_report();
    report.command = crate::reports::command_line();
    if !keep_model {
        (report.output, report.encodings) = (None, None);
    }
    let seconds = report.quantizing_seconds();
    let result = report.accuracy.take();
    let result =
        result.ok_or_else(|| Error::unsupported("the outputs that accuracy is measured on cannot be computed"));
    let trial = Trial {
        schema: Trial::SCHEMA,
        key: key.to_string(),
        name: run.name.clone(),
        cases: run.cases.clone(),
        float,
        result: result?.result,
        weight_bytes,
        seconds,
        report,
    };
    Ok((trial, work))
}

/// What the float network of `run` reaches: measured by one of the runs that share the network and the samples, in
/// whatever process, and read by the others, which wait for it.
fn float_score(run: &SweepRun, place: &Place, known: (&Model, &Dataset), sink: &mut dyn Sink) -> Result<Score> {
    let input = &run.recipe.input;
    let sets =
        [Some(run.eval.clone()), input.images.as_ref().map(PathBuf::from), input.labels.as_ref().map(PathBuf::from)];
    let mut files: Vec<PathBuf> = sets.iter().flatten().flat_map(|set| checks::sample_files(set)).collect();
    files.sort();
    let path = place.of(&format!("float-{}", qdrop::float_key(run, &files)?), "json");
    let kept = || serde_json::from_str(&std::fs::read_to_string(&path).ok()?).ok();
    if let Some(score) = kept() {
        return Ok(score);
    }
    let lock = path.with_extension("lock");
    let turn = disk::Turn::wait(&lock, &|| !sink.cancelled()).map_err(|e| Error::io(&lock, e))?;
    if turn.is_none() {
        return Err(Error::new(Kind::Interrupted, "stopped on request"));
    }
    if let Some(score) = kept() {
        return Ok(score);
    }
    let evaluate = |sink: &mut dyn Sink| known.0.evaluate(known.1, &run.recipe, sink);
    let (score, _) = timed(sink, Stage::Evaluate, Some(known.1.len()), evaluate)?;
    let text = serde_json::to_string(&score).map_err(|e| Error::internal(format!("no JSON: {e}")))?;
    out::file(&path, &text)?;
    Ok(score)
}

fn list(runs: &[SweepRun], keys: &[String], place: &Place, format: Print) -> Result<Outcome> {
    let done: Vec<bool> = place.all(runs, keys).iter().map(Option::is_some).collect();
    if format == Print::Json {
        let view = |(i, (run, done)): (usize, (&SweepRun, &bool))| serde_json::json!({ "index": i, "name": run.name, "cases": run.cases, "done": done });
        out::json(&runs.iter().zip(&done).enumerate().map(view).collect::<Vec<_>>())?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new("Runs", ">index|run|done");
    for (i, (run, done)) in runs.iter().zip(&done).enumerate() {
        table.row([i.to_string(), run.name.clone(), if *done { "yes" } else { "" }.to_string()]);
    }
    out::print(&out::draw(&[table]))?;
    Ok(Outcome::Done)
}

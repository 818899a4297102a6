//! `qdrop eval`: measures the accuracy of a file on labelled samples.

use crate::args::{Eval, Print};
use crate::progress::Detail;
use crate::{Outcome, checks, drawings, flags, out, progress, runtime};
use qdrop::eval::coco::Detection;
use qdrop::plan::{Recipe, Task};
use qdrop::report::{Score, Sink, Stage, Table, duration, metric, timed};
use qdrop::{Dataset, Detected, Drawing, Error, Model, Result, Samples};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The printed result; also its JSON.
#[derive(Debug, Serialize)]
struct View {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// The file of detections that was measured instead of a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    detections: Option<String>,
    /// The runtime that ran it, unless that was this program's own engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<runtime::View>,
    #[serde(flatten)]
    score: Score,
    skipped: usize,
    seconds: f64,
}

/// Metrics that stand in one row; more of them stand one below the other.
const ABREAST: usize = 4;

/// Runs the command.
pub fn run(args: &Eval, detail: Detail) -> Result<Outcome> {
    args.model.iter().chain(&args.detections).try_for_each(|path| checks::readable_file(path))?;
    checks::exists(&args.data)?;
    let mut recipe = flags::read(args.run.recipe.as_deref())?;
    flags::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    let least = thresholds(args, recipe.input.task)?;
    writable(args, recipe.input.task)?;
    let view = match (&args.model, &args.detections) {
        (_, Some(detections)) => measure_detections(args, detections, &recipe)?,
        (Some(model), None) => measure_model(args, model, recipe, detail)?,
        (None, None) => return Err(Error::recipe("expected a model, or detections (--detections)")),
    };
    match args.format {
        Print::Json => out::json(&view)?,
        Print::Text => {
            let classes = (detail == Detail::Stages).then(|| classes(&view.score)).flatten();
            let tables: Vec<Table> = [table(&view)].into_iter().chain(classes).collect();
            out::print(&out::draw(&tables))?;
        }
    }
    let mut outcome = Outcome::Done;
    for (name, least) in &least {
        let Some(value) = view.score.metrics.get(name) else {
            let message = format!("the metric `{name}` was not measured: the set has no such object");
            return Err(Error::data(message).at(args.data.display()));
        };
        if value < least {
            out::tell(&format!("{} {value:.2} % is below the threshold of {least} %", metric(name)));
            outcome = Outcome::Missed;
        }
    }
    Ok(outcome)
}

fn measure_model(args: &Eval, path: &Path, mut recipe: Recipe, detail: Detail) -> Result<View> {
    let library = runtime::library(&args.runtime)?;
    args.encodings.as_deref().map_or(Ok(()), checks::readable_file)?;
    if let (Some(_), Some(path)) = (&library, &args.encodings) {
        let error = Error::data("--encodings: a runtime does not apply encodings").at(path.display());
        return Err(error.hint("leave out --runtime: qdrop's own engine applies them"));
    }
    let mut sink = progress::sink(detail);
    let sink = sink.as_mut();
    recipe.method.threads = args.run.threads;
    // A runtime measures files that this program cannot read, too.
    let file = library.as_ref().map(|library| args.run.fix.open(library, path, args.run.threads)).transpose()?;
    let model = match &file {
        Some(file) => Model::declared_by(file),
        None => args.run.fix.apply_known(Model::open_with(path, args.encodings.as_deref())?)?,
    };
    let data = Dataset::open(&args.data, &model, &recipe, args.run.samples, sink)?;
    if let Some(dir) = &args.draw {
        drawings::check(dir, &data, args.draw_images)?;
    }
    let evaluate = |sink: &mut dyn Sink| match (&file, detects(args)) {
        (Some(file), true) => model.detect_deployed(file, &data, sink).map(|d| (d.score.clone(), Some(d))),
        (None, true) => model.detect(&data, &recipe, sink).map(|d| (d.score.clone(), Some(d))),
        (Some(file), false) => model.evaluate_deployed(file, &data, &recipe, sink).map(|score| (score, None)),
        (None, false) => model.evaluate(&data, &recipe, sink).map(|score| (score, None)),
    };
    let ((score, detected), timing) = timed(sink, Stage::Evaluate, Some(data.len()), evaluate)?;
    if let (Some(file), Some(detected)) = (&args.save_detections, &detected) {
        out::file(file, &Detection::results(&detected.found)?)?;
    }
    if let Some(detected) = &detected {
        draw(args, path, detected, &data)?;
    }
    let (skipped, seconds) = (data.skipped(), timing.seconds);
    let runtime = library.as_ref().map(runtime::View::of);
    Ok(View { model: Some(path.display().to_string()), detections: None, runtime, score, skipped, seconds })
}

/// Draws what was `detected` in `samples`, by the network or as it stands in the file at `path`, if that is wanted.
fn draw(args: &Eval, path: &Path, detected: &Detected, samples: &dyn Samples) -> Result<()> {
    let Some(dir) = &args.draw else { return Ok(()) };
    let drawing = Drawing { side: drawings::SIDE, above: args.draw_above };
    let title = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    drawings::write(dir, &title, &detected.pictures(samples, args.draw_images, drawing)?)
}

/// Whether the detections themselves are wanted.
fn detects(args: &Eval) -> bool {
    args.save_detections.is_some() || args.draw.is_some()
}

/// That what is to be written is of detections, and can be written.
fn writable(args: &Eval, task: Option<Task>) -> Result<()> {
    if detects(args) && task != Some(Task::Coco) {
        let option = if args.draw.is_some() { "--draw" } else { "--save-detections" };
        let error = Error::recipe(format!("{option}: only task `coco` has detections"));
        return Err(error.hint("give --task coco"));
    }
    let Some(path) = &args.save_detections else { return Ok(()) };
    let mut reads = args.model.as_deref().map(checks::model_files).unwrap_or_default();
    reads.extend([&args.run.recipe, &args.encodings].into_iter().flatten().cloned());
    reads.push(args.data.clone());
    let reads: Vec<&Path> = reads.iter().map(PathBuf::as_path).collect();
    checks::writable(path, &reads, "--save-detections")
}

fn measure_detections(args: &Eval, path: &Path, recipe: &Recipe) -> Result<View> {
    if recipe.input.task != Some(Task::Coco) {
        return Err(Error::recipe("--detections: only task `coco` has detections").hint("give --task coco"));
    }
    let start = Instant::now();
    let images = args.draw.as_ref().map(|_| Dataset::annotated(&args.data, recipe)).transpose()?;
    if let (Some(dir), Some(images)) = (&args.draw, &images) {
        drawings::check(dir, images, args.draw_images)?;
    }
    let detected = Detected::read(path, &args.data)?;
    if let Some(images) = &images {
        draw(args, path, &detected, images)?;
    }
    let (detections, seconds) = (Some(path.display().to_string()), start.elapsed().as_secs_f64());
    Ok(View { model: None, detections, runtime: None, score: detected.score, skipped: 0, seconds })
}

fn table(view: &View) -> Table {
    let Score { samples, metrics, .. } = &view.score;
    let title = view.runtime.as_ref().map_or(String::new(), |r| format!("In {}", r.name));
    let (what, name) = match (&view.model, &view.detections) {
        (_, Some(detections)) => ("detections", detections),
        (Some(model), None) => ("model", model),
        (None, None) => ("model", &String::new()),
    };
    let rows = [(what, name.clone()), ("samples", samples.to_string())];
    let after = [("skipped", view.skipped.to_string()), ("time", duration(view.seconds))];
    if metrics.len() <= ABREAST {
        let columns: String = metrics.keys().map(|m| format!("|>{} %", metric(m))).collect();
        let mut table = Table::new(title, &format!("{what}|>samples{columns}|>skipped|>time"));
        let values = metrics.values().map(|v| format!("{v:.2}"));
        table.row(rows.into_iter().map(|r| r.1).chain(values).chain(after.into_iter().map(|r| r.1)));
        return table;
    }
    let mut table = Table::new(title, "|>");
    for (name, value) in rows.into_iter().chain(after) {
        table.row([name.to_string(), value]);
    }
    for (name, value) in view.score.ordered() {
        table.row([format!("{} %", metric(name)), format!("{value:.2}")]);
    }
    table
}

/// The figures of each class alone, where there are any.
fn classes(score: &Score) -> Option<Table> {
    if score.classes.is_empty() {
        return None;
    }
    let mut table = Table::new("Classes", "class|>IoU %|>recall %|>pixels");
    for class in &score.classes {
        let recall = class.recall.map_or("–".to_string(), |recall| format!("{recall:.2}"));
        table.row([class.class.to_string(), format!("{:.2}", class.iou), recall, class.pixels.to_string()]);
    }
    Some(table)
}

/// Least values of metrics, all of them measured.
fn thresholds(args: &Eval, task: Option<Task>) -> Result<Vec<(String, f64)>> {
    let known = task.map_or(&["top1", "top5"][..], Task::metrics);
    let top1 = args.min_top1.map(|least| ("top1".to_string(), least));
    let all: Vec<(String, f64)> = args.min.iter().cloned().chain(top1).collect();
    match all.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => {
            let message = format!("the metric `{name}` is not measured here, only {}", known.join(", "));
            Err(Error::recipe(message))
        }
        None => Ok(all),
    }
}

//! `qdrop eval`: measures the accuracy of a file on labelled samples.

use crate::args::{Eval, Print};
use crate::progress::Detail;
use crate::{Outcome, checks, flags, out, progress, runtime};
use qdrop::plan::Task;
use qdrop::report::{Score, Sink, Stage, Table, duration, metric, timed};
use qdrop::{Dataset, Error, Model, Result, Samples};
use serde::Serialize;

/// The printed result; also its JSON.
#[derive(Debug, Serialize)]
struct View {
    model: String,
    /// The runtime that ran it, unless that was this program's own engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<runtime::View>,
    #[serde(flatten)]
    score: Score,
    skipped: usize,
    seconds: f64,
}

/// Runs the command.
pub fn run(args: &Eval, detail: Detail) -> Result<Outcome> {
    checks::readable_file(&args.model)?;
    checks::exists(&args.data)?;
    let mut recipe = flags::read(args.run.recipe.as_deref())?;
    flags::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    let least = thresholds(args, recipe.input.task)?;
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
    let file = library.as_ref().map(|library| args.run.fix.open(library, &args.model, args.run.threads)).transpose()?;
    let model = match &file {
        Some(file) => Model::declared_by(file),
        None => args.run.fix.apply_known(Model::open_with(&args.model, args.encodings.as_deref())?)?,
    };
    let data = Dataset::open(&args.data, &model, &recipe, args.run.samples, sink)?;
    let evaluate = |sink: &mut dyn Sink| match &file {
        Some(file) => model.evaluate_deployed(file, &data, &recipe, sink),
        None => model.evaluate(&data, &recipe, sink),
    };
    let (score, timing) = timed(sink, Stage::Evaluate, Some(data.len()), evaluate)?;
    let (skipped, seconds) = (data.skipped(), timing.seconds);
    let runtime = library.as_ref().map(runtime::View::of);
    let view = View { model: args.model.display().to_string(), runtime, score, skipped, seconds };
    match args.format {
        Print::Json => out::json(&view)?,
        Print::Text => {
            let Score { samples, metrics } = &view.score;
            let columns: String = metrics.keys().map(|m| format!("|>{} %", metric(m))).collect();
            let title = view.runtime.as_ref().map_or(String::new(), |r| format!("In {}", r.name));
            let mut table = Table::new(title, &format!("model|>samples{columns}|>skipped|>time"));
            let before = [view.model.clone(), samples.to_string()];
            let after = [view.skipped.to_string(), duration(view.seconds)];
            table.row(before.into_iter().chain(metrics.values().map(|v| format!("{v:.2}"))).chain(after));
            out::print(&out::draw(&[table]))?;
        }
    }
    let mut outcome = Outcome::Done;
    for (name, least) in &least {
        let value = view.score.metrics[name];
        if value < *least {
            out::tell(&format!("{} {value:.2} % is below the threshold of {least} %", metric(name)));
            outcome = Outcome::Missed;
        }
    }
    Ok(outcome)
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

//! `qdrop eval`: accuracy of a file on labelled samples.

use crate::args::{Eval, Print};
use crate::{Outcome, checks, out, progress, samples, wish};
use qdrop::Result;
use qdrop::data::Samples;
use qdrop::pipeline::{self, Checked};
use qdrop::report::{Stage, Table, duration, timed};
use serde::Serialize;

/// The printed result; also its JSON.
#[derive(Debug, Serialize)]
struct View {
    model: String,
    samples: usize,
    top1: f64,
    top5: f64,
    skipped: usize,
    seconds: f64,
}

/// Runs the command.
pub fn run(args: &Eval, quiet: bool) -> Result<Outcome> {
    checks::readable_file(&args.model)?;
    checks::exists(&args.data)?;
    let mut recipe = wish::read(args.run.recipe.as_deref())?;
    wish::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    let read = pipeline::load(&args.model)?;
    let data = samples::open(&args.data, &recipe, &read, args.run.samples)?;
    let shapes = samples::shapes(&data)?;
    let graph = pipeline::prepare(&read, Some(&shapes))?;
    pipeline::check_labels(&graph, &shapes, &data).map_err(|e| e.at(args.data.display()))?;
    let mut sink = progress::sink(quiet);
    let checked = Checked::new(&graph, &shapes, &data)?;
    let (metrics, timing) = timed(sink.as_mut(), Stage::Evaluate, Some(data.len()), |sink| {
        pipeline::evaluate(&graph, &checked, args.run.threads, sink)
    })?;
    let view = View {
        model: args.model.display().to_string(),
        samples: metrics.samples,
        top1: metrics.top1,
        top5: metrics.top5,
        skipped: data.skipped(),
        seconds: timing.seconds,
    };
    match args.format {
        Print::Json => out::json(&view)?,
        Print::Text => {
            let mut table = Table::new("", "model|>samples|>top-1 %|>top-5 %|>skipped|>time");
            table.row([
                view.model.clone(),
                view.samples.to_string(),
                format!("{:.2}", view.top1),
                format!("{:.2}", view.top5),
                view.skipped.to_string(),
                duration(view.seconds),
            ]);
            out::print(&out::draw(&[table]))?;
        }
    }
    Ok(match args.min_top1 {
        Some(least) if view.top1 < least => {
            out::tell(&format!("top-1 {:.2} % is below the stated {least} %", view.top1));
            Outcome::Missed
        }
        _ => Outcome::Done,
    })
}

//! `qdrop bench`: how fast this machine solves a network's units.

use super::plan::without_batch;
use crate::args::{self, Print};
use crate::{Outcome, checks, out, progress, wish};
use qdrop::Result;
use qdrop::pipeline::{self, Bench};
use qdrop::report::{Stage, Table, bytes, timed};

/// Runs the command.
pub fn run(args: &args::Bench, quiet: bool) -> Result<Outcome> {
    checks::readable_file(&args.model)?;
    let mut recipe = wish::read(args.wish.recipe.as_deref())?;
    wish::apply(&mut recipe, &args.wish);
    recipe.validate()?;
    let read = pipeline::load(&args.model)?;
    let shapes = (!args.shape.shapes.is_empty()).then(|| without_batch(&args.shape.shapes));
    let at_model = |e: qdrop::Error| e.at(args.model.display());
    let graph = pipeline::prepare(&read, shapes.as_deref()).map_err(at_model)?;
    let mut sink = progress::sink(quiet);
    let (bench, _) = timed(sink.as_mut(), Stage::Bench, None, |sink| {
        pipeline::bench(&graph, &recipe, shapes.as_deref(), sink).map_err(at_model)
    })?;
    match args.format {
        Print::Json => out::json(&bench)?,
        Print::Text => out::print(&text(&bench))?,
    }
    Ok(Outcome::Done)
}

fn text(bench: &Bench) -> String {
    let title = format!("An iteration of {} samples on {} threads", bench.batch, bench.threads);
    let mut units = Table::new(title, "unit|>layers|>time|>forward|>backward|>roundings|>GFLOP/s|>of ceiling");
    let (time, share) = (|s: f64| format!("{:.1} ms", s * 1e3), |x: f64| format!("{:.0} %", x * 100.0));
    for u in &bench.units {
        units.row([
            u.name.clone(),
            u.layers.to_string(),
            time(u.seconds),
            share(u.forward),
            share(u.backward),
            share(u.update),
            format!("{:.0}", u.gflops),
            share(u.gflops / bench.ceiling_gflops),
        ]);
    }
    let all = |f: fn(&pipeline::UnitSpeed) -> f64| {
        share(bench.units.iter().map(|u| f(u) * u.seconds).sum::<f64>() / bench.seconds)
    };
    let gflops = bench.units.iter().map(|u| u.gflops * u.seconds).sum::<f64>() / bench.seconds;
    units.row([
        "all".into(),
        bench.units.iter().map(|u| u.layers).sum::<usize>().to_string(),
        time(bench.seconds),
        all(|u| u.forward),
        all(|u| u.backward),
        all(|u| u.update),
        format!("{gflops:.0}"),
        share(gflops / bench.ceiling_gflops),
    ]);
    let mut rest = Table::new("Beside it", "what|>figure");
    rest.row([
        "ceiling: one large product on every thread".to_string(),
        format!("{:.0} GFLOP/s", bench.ceiling_gflops),
    ]);
    rest.row(["calibrate".to_string(), format!("{:.1} samples/s", bench.calibrate)]);
    rest.row(["advance both streams through all units".to_string(), format!("{:.1} samples/s", bench.advance)]);
    if let Some(peak) = bench.peak_bytes {
        rest.row(["peak memory of this measurement".to_string(), bytes(peak)]);
    }
    out::draw(&[units, rest])
}

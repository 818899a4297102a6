//! `qdrop bench`: measures how fast this machine learns a network's units, or runs a file in a runtime.

use crate::args::{self, Print};
use crate::progress::Detail;
use crate::{Outcome, checks, flags, out, progress, runtime};
use qdrop::report::{Sink, Stage, Table, bytes, figure, timed};
use qdrop::runtime::Library;
use qdrop::{Bench, Pace, Result, UnitSpeed};
use serde::Serialize;

/// Runs the command.
pub fn run(args: &args::Bench, detail: Detail) -> Result<Outcome> {
    checks::readable_file(&args.model)?;
    let mut recipe = flags::read(args.flags.recipe.as_deref())?;
    flags::apply(&mut recipe, &args.flags);
    recipe.validate()?;
    if let Some(library) = runtime::library(&args.runtime)? {
        return in_runtime(args, &library, progress::sink(detail).as_mut());
    }
    let model = args.shape.fix.load(&args.model)?;
    let shapes = args.shape.of_samples(&model)?;
    let mut sink = progress::sink(detail);
    let measure = |sink: &mut dyn Sink| model.bench(&recipe, shapes.as_deref(), sink);
    let (bench, _) = timed(sink.as_mut(), Stage::Bench, None, measure)?;
    match args.format {
        Print::Json => out::json(&bench)?,
        Print::Text => out::print(&text(&bench))?,
    }
    Ok(Outcome::Done)
}

/// Speed of a file in a runtime, as it is printed; also its JSON.
#[derive(Debug, Serialize)]
struct View {
    model: String,
    runtime: runtime::View,
    /// Shapes of the inputs, batch axis first.
    shapes: Vec<Vec<usize>>,
    paces: Vec<Pace>,
}

fn in_runtime(args: &args::Bench, library: &Library, sink: &mut dyn Sink) -> Result<Outcome> {
    let threads = args.flags.threads.map_or_else(|| vec![1, 0], |n| vec![n]);
    let given = (!args.shape.shapes.is_empty()).then_some(&args.shape.shapes[..]);
    let mut shapes = Vec::new();
    let (paces, _) = timed(sink, Stage::Bench, None, |sink| -> Result<Vec<Pace>> {
        let mut paces = Vec::new();
        for &threads in &threads {
            let file = args.shape.fix.open(library, &args.model, threads)?;
            let inputs = file.noise(given)?;
            shapes = inputs.iter().map(|t| t.shape().to_vec()).collect();
            paces.append(&mut qdrop::pace(&[(&file, &inputs)], sink)?);
        }
        Ok(paces)
    })?;
    let view = View { model: args.model.display().to_string(), runtime: runtime::View::of(library), shapes, paces };
    match args.format {
        Print::Json => out::json(&view)?,
        Print::Text => {
            let shapes: Vec<String> = view.shapes.iter().map(|s| format!("{s:?}")).collect();
            let shapes = shapes.join(", ");
            let title = format!("Time of one run of {} in {}, input {shapes}", view.model, view.runtime.name);
            let columns = "threads|>runs|>processor ms, least|>median|>wall-clock ms, least|>median";
            let mut table = Table::new(title, columns);
            for p in &view.paces {
                let threads = if p.threads == 0 { "all".to_string() } else { p.threads.to_string() };
                let times = p.processor_ms.iter().chain(&p.wall_ms).map(|&t| figure(t));
                table.row([threads, p.runs.to_string()].into_iter().chain(times));
            }
            out::print(&out::draw(&[table]))?;
        }
    }
    Ok(Outcome::Done)
}

fn text(bench: &Bench) -> String {
    let title = format!("One iteration of {} samples on {} threads", bench.batch, bench.threads);
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
    let all =
        |f: fn(&UnitSpeed) -> f64| share(bench.units.iter().map(|u| f(u) * u.seconds).sum::<f64>() / bench.seconds);
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
    let mut rest = Table::new("Other measurements", "what|>figure");
    rest.row([
        "ceiling: one large matrix product on every thread".to_string(),
        format!("{:.0} GFLOP/s", bench.ceiling_gflops),
    ]);
    rest.row(["calibrate".to_string(), format!("{:.1} samples/s", bench.calibrate)]);
    rest.row([
        "pass samples through all units, float and quantized".to_string(),
        format!("{:.1} samples/s", bench.advance),
    ]);
    if let Some(peak) = bench.peak_bytes {
        rest.row(["peak memory of this measurement".to_string(), bytes(peak)]);
    }
    out::draw(&[units, rest])
}

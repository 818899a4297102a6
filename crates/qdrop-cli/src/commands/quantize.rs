//! `qdrop quantize`: the main job.

use crate::args::{Fix, Print, Quantize};
use crate::quality::{self, Sets};
use crate::reports::Place;
use crate::{Outcome, bits, checks, flags, out, progress, runtime, samples};
use qdrop::data::Samples;
use qdrop::graph::Graph;
use qdrop::pipeline::{self, Checked, Deployed, WorkDir};
use qdrop::plan::{Recipe, Target, Task};
use qdrop::report::{Accuracy, Event, Latency, MixedReport, Report, Sink, Stage, Timing, timed};
use qdrop::runtime::Library;
use qdrop::{Error, Result};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(args: &Quantize, quiet: bool) -> Result<Outcome> {
    let mut recipe = flags::read(args.flags.recipe.as_deref())?;
    flags::apply(&mut recipe, &args.flags);
    flags::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    let output = args.output.clone().unwrap_or_else(|| checks::default_output(&args.model, &recipe));
    checks::readable_file(&args.model)?;
    checks::exists(&args.calib)?;
    args.eval.as_deref().map_or(Ok(()), checks::exists)?;
    let files = checks::run_files(&args.model, [&args.calib].into_iter().chain(&args.eval), &recipe);
    let mut reads: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    reads.extend(args.flags.recipe.as_deref());
    checks::writable(&output, &reads, "-o")?;
    let place = match &args.report {
        Some(name) => Some(Place::named(name)),
        None => (!args.no_report).then(|| Place::beside(&output)),
    };
    reads.push(&output);
    reads.extend(args.bits.sensitivity.as_deref());
    let encodings = pipeline::encodings_beside(&output, &recipe);
    if let Some(path) = &encodings {
        checks::writable(path, &reads, "-o")?;
        reads.push(path);
    }
    place.iter().try_for_each(|p| p.check(&reads))?;
    reads.extend(place.iter().flat_map(Place::files));
    bits::check(&args.bits, &recipe, &reads)?;
    let measured = bits::measured(&args.bits)?;
    let library = runtime::library(&args.runtime)?;
    if library.is_some() && recipe.output.target == Target::Qnn {
        let error = Error::recipe(
            "--runtime: a runtime measures a file alone, and target qnn quantizes by encodings beside it",
        );
        return Err(error.hint("leave --runtime out: qdrop's own engine applies the encodings"));
    }
    // A file that the runtime refuses is known before any work.
    library.iter().try_for_each(|library| args.fix.open(library, &args.model, 1).map(drop))?;

    let mut sink = progress::sink(quiet);
    let sink = sink.as_mut();
    let mut timings = Vec::new();
    let (read, t) = timed(sink, Stage::Read, None, |_| args.fix.load(&args.model))?;
    timings.push(t);
    // Refusals come before data where the file says how large its inputs are.
    if pipeline::declared_shapes(&read).is_some() && !pipeline::several_at_once(&read) {
        let ((), t) =
            timed(sink, Stage::Plan, None, |_| refuse(&read, &recipe).map_err(|e| e.at(args.model.display())))?;
        timings.push(t);
    }
    let (calibration, t) =
        timed(sink, Stage::Load, None, |sink| samples::calibration(&args.calib, &recipe, &args.model, &read, sink))?;
    timings.push(t);
    let calib = calibration.used()?;
    checks::enough(calib.len(), &recipe, &args.calib)?;
    let shapes = samples::shapes(&calib)?;
    let (graph, t) = timed(sink, Stage::Simplify, None, |_| pipeline::prepare(&read, Some(&shapes)))?;
    timings.push(t);
    let mixed = match measured {
        Some(sensitivity) => {
            let chosen = bits::choose(&graph, &mut recipe, &sensitivity, Some(&shapes))?;
            Some(MixedReport { chosen, sensitivity, reached_error: None })
        }
        None => None,
    };
    let eval = match &args.eval {
        Some(path) => {
            let labelled = samples::open(path, &recipe, &args.model, &read, None, sink)?;
            match (pipeline::unknown_answer(&graph, &shapes, recipe.input.task)?, &library) {
                (None, _) => {
                    samples::check(&graph, &shapes, &labelled, &recipe).map_err(|e| e.at(path.display()))?;
                    Some(labelled)
                }
                (Some(_), Some(library)) => {
                    let file = Deployed::open(library, &args.model, 1)?;
                    file.check(&labelled, recipe.input.task).map_err(|e| e.at(path.display()))?;
                    Some(labelled)
                }
                (Some(name), None) => {
                    let message = format!(
                        "accuracy is not measured: output `{name}` depends on an operator that cannot be run here; try \
                         `--runtime ort`"
                    );
                    sink.event(&Event::Note { message });
                    None
                }
            }
        }
        None => None,
    };

    let checked = Checked::new(&graph, &shapes, &calib)?;
    // Samples to evaluate on are of another set only where they lie elsewhere.
    let elsewhere = args.eval.as_ref().is_some_and(|path| !checks::same_file(path, &args.calib));
    let others = eval.as_ref().filter(|_| elsewhere).map(|eval| eval as &dyn Samples);
    let sets = Sets::new(&recipe, &calibration, &checked, others)?;
    let dir = args.work_dir.clone().unwrap_or_else(|| checks::default_work(&output));
    let work = if recipe.resolved().learns { Some(WorkDir::open(&dir)?) } else { None };
    let finish = || -> Result<()> {
        let done = pipeline::quantize(&graph, &recipe, &checked, work.as_ref(), sink)?;
        let mut report = done.report.clone();
        if let Some(measured_now) = &report.mixed {
            recipe = recipe.with(&measured_now.chosen);
        }
        report.mixed = report.mixed.or(mixed);
        bits::save(&args.bits, &recipe)?;
        let ((), t) = timed(sink, Stage::Write, None, |_| done.save(&output))?;
        for timing in std::mem::take(&mut report.timings) {
            // Samples were opened before, and read then.
            match timings.iter_mut().find(|t: &&mut Timing| t.stage == timing.stage) {
                Some(before) => before.seconds += timing.seconds,
                None => timings.push(timing),
            }
        }
        timings.push(t);
        // What is measured is what was written.
        let written = pipeline::prepare(&pipeline::load_with(&output, encodings.as_deref())?, Some(&shapes))?;
        let ((), t) = timed(sink, Stage::Compare, None, |sink| -> Result<()> {
            if let Some(mixed) = &mut report.mixed {
                mixed.reached_error = Some(pipeline::output_error(&graph, &written, &recipe, &checked, sink)?);
            }
            sets.measure(&graph, &written, &recipe, &mut report, sink)
        })?;
        timings.push(t);
        if let Some(eval) = &eval {
            let (task, threads) = (recipe.input.task, recipe.method.threads);
            let accuracy = timed(sink, Stage::Evaluate, None, |sink| -> Result<Accuracy> {
                if let Some(library) = &library {
                    return measured_in(
                        library,
                        &args.fix,
                        [&args.model, &output],
                        &done.nearest,
                        (eval, task),
                        threads,
                        sink,
                    )
                    .map_err(after_writing);
                }
                let networks = [&graph, &done.nearest, &written];
                let [float, nearest, result] = pipeline::measure_all(networks, eval, task, threads, sink)?;
                Ok(Accuracy { float, nearest: Some(nearest), result })
            })?;
            report.near_chance = pipeline::near_chance(&graph, eval, &recipe, &accuracy.0.float)?;
            report.accuracy = Some(accuracy.0);
            timings.push(accuracy.1);
        }
        if let Some(library) = &library {
            let (latency, t) = timed(sink, Stage::Bench, None, |sink| {
                latency_in(library, &args.fix, [&args.model, &output], &checked, sink)
            })
            .map_err(after_writing)?;
            report.latency = Some(latency);
            timings.push(t);
        }
        report.model = args.model.display().to_string();
        if let Some(mixed) = &mut report.mixed {
            mixed.sensitivity.model.clone_from(&report.model);
        }
        report.output = Some(output.display().to_string());
        report.encodings = encodings.as_deref().map(crate::reports::encodings).transpose()?;
        report.bytes_before = Some(pipeline::model_bytes(&args.model)?);
        report.bytes_after = Some(pipeline::model_bytes(&output)?);
        report.timings = timings;
        report.skipped = calib.skipped() + eval.as_ref().map_or(0, Samples::skipped);
        report.command = crate::reports::command_line();
        place.iter().try_for_each(|p| p.write(&report))?;
        print(&report, place.as_ref(), args.format, sink)
    };
    if let Err(error) = finish() {
        return Err(kept(error, work, args.work_dir.is_some()));
    }
    // Nothing is left to be done that would need them.
    if let (Some(work), None) = (work, &args.work_dir) {
        work.remove()?;
    }
    Ok(Outcome::Done)
}

/// Accuracy in a runtime of the float file, the network rounded to `nearest`, and the written file.
fn measured_in(
    library: &Library,
    fix: &Fix,
    [float, result]: [&Path; 2],
    nearest: &Graph,
    (eval, task): (&dyn Samples, Option<Task>),
    threads: usize,
    sink: &mut dyn Sink,
) -> Result<Accuracy> {
    let mut measure = |file: Deployed| file.measure(eval, task, sink);
    Ok(Accuracy {
        float: measure(fix.open(library, float, threads)?)?,
        nearest: Some(measure(Deployed::of_graph(library, nearest, "the network rounded to nearest", threads)?)?),
        result: measure(Deployed::open(library, result, threads)?)?,
    })
}

/// Latency in a runtime of the float file and the written one, on one thread and the first of `samples`.
fn latency_in(
    library: &Library,
    fix: &Fix,
    [float, result]: [&Path; 2],
    samples: &dyn Samples,
    sink: &mut dyn Sink,
) -> Result<Latency> {
    const THREADS: usize = 1;
    let files = [fix.open(library, float, THREADS)?, Deployed::open(library, result, THREADS)?];
    let sample = samples.get(0)?;
    let inputs = [files[0].batch_of(&sample)?, files[1].batch_of(&sample)?];
    let paces = pipeline::pace(&[(&files[0], &inputs[0]), (&files[1], &inputs[1])], sink)?;
    Ok(Latency {
        runtime: library.name(),
        threads: THREADS,
        batch: inputs[0].first().and_then(|t| t.shape().first()).copied().unwrap_or(1),
        float_ms: paces[0].processor_ms[0],
        result_ms: paces[1].processor_ms[0],
    })
}

/// `error` of a runtime, told when the file is there.
fn after_writing(error: Error) -> Error {
    let hint = "the file is written; `qdrop eval` without --runtime measures it in qdrop's own engine";
    if error.advice().is_none() { error.hint(hint) } else { error }
}

/// `error` with what is left of the run; a directory that holds nothing goes, unless the user named it.
fn kept(error: Error, work: Option<WorkDir>, named: bool) -> Error {
    let Some(work) = work else { return error };
    let units = match work.solutions() {
        0 if work.measured() => "what was measured is".to_string(),
        0 if named => return error,
        // It holds nothing, and the error that matters is already there.
        0 => {
            let _ = work.remove();
            return error;
        }
        1 => "1 finished unit is".to_string(),
        n => format!("{n} finished units are"),
    };
    let hint = format!("{units} kept in `{}`; the same command goes on from there", work.path().display());
    if error.advice().is_none() { error.hint(hint) } else { error }
}

/// Plans `read` for its errors only.
fn refuse(read: &Graph, recipe: &Recipe) -> Result<()> {
    pipeline::plan(&pipeline::prepare(read, None)?, recipe, None).map(drop)
}

fn print(report: &Report, place: Option<&Place>, format: Print, sink: &mut dyn Sink) -> Result<()> {
    let remarks = quality::remarks(report, format, sink);
    match format {
        Print::Json => out::json(report),
        Print::Text => {
            let mut tables = report.tables();
            tables.extend(place.map(Place::table));
            let mut text = out::draw(&tables);
            if report.skipped > 0 {
                text.push_str(&format!("\n{} samples left out because they could not be read\n", report.skipped));
            }
            text.push_str(&remarks);
            out::print(&text)
        }
    }
}

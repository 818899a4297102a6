//! `qdrop quantize`: quantizes a network and writes it, its report and what was measured.

use crate::args::{Print, Quantize};
use crate::progress::Detail;
use crate::reports::Place;
use crate::{Outcome, bits, checks, flags, out, progress, quality, runtime};
use qdrop::plan::{Stripe, Target};
use qdrop::report::{Report, Sink, Stage, Table, UnitReport, duration, figure, timed};
use qdrop::{CalibrationSet, Dataset, Error, Quantizer, Result, WorkDir};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(args: &Quantize, detail: Detail) -> Result<Outcome> {
    let mut recipe = flags::read(args.flags.recipe.as_deref())?;
    flags::apply(&mut recipe, &args.flags);
    flags::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    if args.units.is_some() {
        recipe.solvable_apart().map_err(|e| e.at("--units"))?;
    }
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
    let encodings = qdrop::encodings_beside(&output, &recipe);
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
        let error =
            Error::recipe("--runtime: a runtime runs the file without its encodings, by which target qnn quantizes");
        return Err(error.hint("leave out --runtime: qdrop's own engine applies the encodings"));
    }
    // A file that the runtime refuses is known before any work.
    library.iter().try_for_each(|library| args.fix.open(library, &args.model, 1).map(drop))?;

    let mut sink = progress::sink(detail);
    let sink = sink.as_mut();
    let mut timings = Vec::new();
    let (model, timing) = timed(sink, Stage::Read, None, |_| args.fix.load(&args.model))?;
    timings.push(timing);
    // Refusals come before data where the file says how large its inputs are.
    let ((), timing) = timed(sink, Stage::Plan, None, |_| model.check(&recipe))?;
    timings.push(timing);
    let open = |sink: &mut dyn Sink| CalibrationSet::open(&args.calib, &model, &recipe, sink);
    let (calibration, timing) = timed(sink, Stage::Load, None, open)?;
    timings.push(timing);
    let (used, rest) = (calibration.used()?, calibration.left_out()?);
    if let Some(share) = args.units {
        let dir = args.work_dir.clone().unwrap_or_else(|| checks::default_work(&output));
        let work = WorkDir::open_shared(&dir)?;
        let left = work.clone();
        progress::on_leaving(move |error| kept(error, Some(left), true));
        let mut quantizer = Quantizer::new(&model).recipe(recipe);
        if let Some(measured) = measured {
            quantizer = quantizer.sensitivity(measured);
        }
        return match quantizer.progress(&mut *sink).solve_share(&used, &work, share) {
            Ok(units) => print_share(&units, share, &dir, args.format).map(|()| Outcome::Done),
            Err(error) => Err(kept(error, Some(work), true)),
        };
    }
    let eval = args.eval.as_ref().map(|path| Dataset::open(path, &model, &recipe, None, sink)).transpose()?;
    let dir = args.work_dir.clone().unwrap_or_else(|| checks::default_work(&output));
    let work = if recipe.resolved().learns { Some(WorkDir::open(&dir)?) } else { None };
    let (kept_work, named) = (work.clone(), args.work_dir.is_some());
    progress::on_leaving(move |error| kept(error, kept_work, named));

    let finish = || -> Result<()> {
        let mut quantizer = Quantizer::new(&model).recipe(recipe).unseen(&*rest).after(timings);
        if let Some(measured) = measured {
            quantizer = quantizer.sensitivity(measured);
        }
        if let Some(eval) = &eval {
            quantizer = quantizer.evaluate_on(eval);
        }
        if let Some(library) = &library {
            quantizer = quantizer.runtime(library);
        }
        if let Some(work) = &work {
            quantizer = quantizer.work_dir(work);
        }
        let quantized = quantizer.progress(&mut *sink).quantize_to(&used, &output)?;
        bits::save(&args.bits, quantized.recipe())?;
        let mut report = quantized.into_report();
        report.command = crate::reports::command_line();
        place.iter().try_for_each(|p| p.write(&report))?;
        print(&report, place.as_ref(), args.format, sink)
    };
    if let Err(error) = finish() {
        return Err(kept(error, work, named));
    }
    // Nothing is left to be done that would need them.
    if let (Some(work), None) = (work, &args.work_dir) {
        work.remove()?;
    }
    Ok(Outcome::Done)
}

/// `error` with what is left of the run; a directory that holds nothing goes, unless the user named it.
fn kept(error: Error, work: Option<WorkDir>, named: bool) -> Error {
    let Some(work) = work else { return error };
    let units = match work.solutions() {
        0 if work.measured() => "the measurements are".to_string(),
        0 if named => return error,
        // It holds nothing, and the error that matters is already there.
        0 => {
            let _ = work.remove();
            return error;
        }
        1 => "1 finished unit is".to_string(),
        n => format!("{n} finished units are"),
    };
    let hint = format!("{units} kept in `{}`; the same command continues from there", work.path().display());
    if error.advice().is_none() { error.hint(hint) } else { error }
}

/// Prints what was solved of a share of the units.
fn print_share(units: &[UnitReport], share: Stripe, dir: &Path, format: Print) -> Result<()> {
    if format == Print::Json {
        return out::json(&units);
    }
    let mut table = Table::new(format!("Share {share} of the units"), "unit|>loss before|>loss after|how");
    for unit in units {
        let how = match unit.resumed {
            true => "kept from an earlier run".to_string(),
            false => format!("{} iterations in {}", unit.iterations, duration(unit.seconds)),
        };
        table.row([unit.name.clone(), figure(unit.loss_before), figure(unit.loss_after), how]);
    }
    let text = out::draw(&[table]);
    out::print(&format!("{text}\nKept in {}; the same command without --units takes them from there", dir.display()))
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
                text.push_str(&format!("\n{} samples skipped because they could not be read\n", report.skipped));
            }
            text.push_str(&remarks);
            out::print(&text)
        }
    }
}

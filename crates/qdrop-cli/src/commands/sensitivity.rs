//! `qdrop sensitivity`: measures the effect that the bits of each layer and activation alone have on the outputs.

use crate::args::{self, Print, Sort};
use crate::progress::Detail;
use crate::{Outcome, bits, checks, flags, out, progress};
use qdrop::data::Subset;
use qdrop::plan::{Curve, Sensitivity};
use qdrop::report::{Table, count};
use qdrop::{Dataset, Error, Result, Samples};
use std::path::{Path, PathBuf};

/// Form of the written file.
#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Csv,
    Html,
}

/// Runs the command.
pub fn run(args: &args::Sensitivity, detail: Detail) -> Result<Outcome> {
    let form = args.output.as_deref().map(|path| form(path, args.stripe.is_some())).transpose()?;
    let (found, skipped) = match (&args.model, &args.calib) {
        (Some(model), Some(calib)) => measure(args, model, calib, detail)?,
        _ => (merge(args)?, 0),
    };
    if let (Some(path), Some(form)) = (&args.output, form) {
        let text = match form {
            Form::Json => serde_json::to_string_pretty(&found).map_err(|e| Error::internal(format!("no JSON: {e}")))?,
            Form::Csv => csv(&found),
            Form::Html => found.html(),
        };
        out::file(path, &text)?;
    }
    match args.format {
        Print::Json => out::json(&found)?,
        Print::Text => {
            let mut text = out::draw(&tables(&found, args.sort));
            if skipped > 0 {
                text.push_str(&format!("\n{skipped} samples skipped because they could not be read\n"));
            }
            out::print(&text)?;
        }
    }
    Ok(Outcome::Done)
}

/// What the command line asks for, and the number of samples that could not be read.
fn measure(args: &args::Sensitivity, model: &Path, calib: &PathBuf, detail: Detail) -> Result<(Sensitivity, usize)> {
    let mut recipe = flags::read(args.flags.recipe.as_deref())?;
    flags::apply(&mut recipe, &args.flags);
    flags::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    checks::readable_file(model)?;
    checks::exists(calib)?;
    if let Some(path) = &args.output {
        let files = checks::run_files(model, [calib], &recipe);
        let reads: Vec<&Path> = files.iter().map(PathBuf::as_path).chain(args.flags.recipe.as_deref()).collect();
        checks::writable(path, &reads, "-o")?;
    }
    let mut sink = progress::sink(detail);
    let model = args.fix.load(model)?;
    let limit = recipe.input.samples;
    let calib = Dataset::open(calib, &model, &recipe, limit, sink.as_ref())?;
    let calib = Subset::spread(calib, limit)?;
    let found = model.sensitivity(&calib, &recipe, args.stripe, sink.as_mut())?;
    Ok((found, calib.skipped()))
}

/// The shares in the files that were named, as one.
fn merge(args: &args::Sensitivity) -> Result<Sensitivity> {
    if args.input != args::Input::default() {
        let error = Error::recipe("--merge: options of samples have no effect where nothing is measured");
        return Err(error.hint("leave them out"));
    }
    if let Some(path) = &args.output {
        let reads: Vec<&Path> = args.merge.iter().map(PathBuf::as_path).collect();
        checks::writable(path, &reads, "-o")?;
    }
    let named = |path: &PathBuf| Ok((path.display().to_string(), bits::read(path)?));
    Sensitivity::merge(args.merge.iter().map(named).collect::<Result<_>>()?)
}

fn form(path: &Path, share: bool) -> Result<Form> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => Ok(Form::Json),
        _ if share => {
            let error = Error::recipe("expected a file name that ends in .json for a share").at(path.display());
            Err(error.hint("`qdrop sensitivity --merge` writes .csv and .html when it has joined the shares"))
        }
        Some("csv") => Ok(Form::Csv),
        Some("html") => Ok(Form::Html),
        _ => Err(Error::recipe("expected a file name that ends in .json, .csv or .html").at(path.display())),
    }
}

/// Rows in order of `sort`.
pub fn tables(found: &Sensitivity, sort: Sort) -> Vec<Table> {
    let bits = found.bits();
    let columns: String = bits.iter().map(|b| format!("|>{b} bit")).collect();
    let kinds = [("Weights", "layer", &found.layers), ("Activations", "value", &found.activations)];
    let table = |(title, what, curves): (&str, &str, &Vec<Curve>)| {
        let on = match title {
            "Weights" if found.biases_corrected => ", mean shifts removed",
            _ => "",
        };
        let of = found.share.as_ref().map_or_else(String::new, |s| format!(" (share {})", s.stripe));
        let title =
            format!("{title}{of}, one at a time: signal to noise of the outputs in dB, {} samples{on}", found.samples);
        let mut table = Table::new(title, &format!(">#|{what}|>elements{columns}"));
        let mut rows: Vec<(usize, &Curve)> = curves.iter().enumerate().collect();
        if sort == Sort::Error {
            let error = |c: &Curve| bits.first().and_then(|&b| c.error(b)).unwrap_or(0.0);
            rows.sort_by(|a, b| error(b.1).total_cmp(&error(a.1)));
        }
        for (i, curve) in rows {
            let snr = |&bits: &u32| {
                let found = curve.errors.iter().find(|e| e.bits == bits);
                found.map_or_else(|| "-".into(), |e| format!("{:.1}", e.snr()))
            };
            let first = [(found.position(i) + 1).to_string(), curve.name.clone(), count(curve.elements)];
            table.row(first.into_iter().chain(bits.iter().map(snr)));
        }
        table
    };
    kinds.into_iter().filter(|kind| !kind.2.is_empty()).map(table).collect()
}

/// One line for each layer or activation and its bits.
pub fn csv(found: &Sensitivity) -> String {
    let quoted = |name: &str| match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_string(),
    };
    let mut text = String::from("kind,name,value,elements,bits,error,snr_db,agreement\n");
    for (kind, curves) in [("weight", &found.layers), ("activation", &found.activations)] {
        for curve in curves {
            for e in &curve.errors {
                let agreement = e.agreement.map_or_else(String::new, |a| a.to_string());
                let (name, value) = (quoted(&curve.name), quoted(&curve.value));
                let (elements, snr) = (curve.elements, e.snr());
                text.push_str(&format!("{kind},{name},{value},{elements},{},{},{snr},{agreement}\n", e.bits, e.error));
            }
        }
    }
    text
}

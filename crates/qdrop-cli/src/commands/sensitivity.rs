//! `qdrop sensitivity`: measures the effect that the bits of each layer and activation alone have on the outputs.

use crate::args::{self, Print, Sort};
use crate::progress::Detail;
use crate::{Outcome, checks, flags, out, progress};
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
    let mut recipe = flags::read(args.flags.recipe.as_deref())?;
    flags::apply(&mut recipe, &args.flags);
    flags::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    checks::readable_file(&args.model)?;
    checks::exists(&args.calib)?;
    let form = args.output.as_deref().map(form).transpose()?;
    if let Some(path) = &args.output {
        let files = checks::run_files(&args.model, [&args.calib], &recipe);
        let reads: Vec<&Path> = files.iter().map(PathBuf::as_path).chain(args.flags.recipe.as_deref()).collect();
        checks::writable(path, &reads, "-o")?;
    }
    let mut sink = progress::sink(detail);
    let model = args.fix.load(&args.model)?;
    let limit = recipe.input.samples;
    let calib = Dataset::open(&args.calib, &model, &recipe, limit, sink.as_ref())?;
    let calib = Subset::spread(calib, limit)?;
    let found = model.sensitivity(&calib, &recipe, sink.as_mut())?;
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
            let mut text = out::draw(&tables(&found, &recipe.mixed.bits(), args.sort));
            if calib.skipped() > 0 {
                text.push_str(&format!("\n{} samples skipped because they could not be read\n", calib.skipped()));
            }
            out::print(&text)?;
        }
    }
    Ok(Outcome::Done)
}

fn form(path: &Path) -> Result<Form> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => Ok(Form::Json),
        Some("csv") => Ok(Form::Csv),
        Some("html") => Ok(Form::Html),
        _ => Err(Error::recipe("expected a file name that ends in .json, .csv or .html").at(path.display())),
    }
}

/// Rows for `bits`, in order of `sort`.
pub fn tables(found: &Sensitivity, bits: &[u32], sort: Sort) -> Vec<Table> {
    let columns: String = bits.iter().map(|b| format!("|>{b} bit")).collect();
    let kinds = [("Weights", "layer", &found.layers), ("Activations", "value", &found.activations)];
    let table = |(title, what, curves): (&str, &str, &Vec<Curve>)| {
        let on = match title {
            "Weights" if found.biases_corrected => ", mean shifts removed",
            _ => "",
        };
        let title =
            format!("{title}, one at a time: signal to noise of the outputs in dB, {} samples{on}", found.samples);
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
            let first = [(i + 1).to_string(), curve.name.clone(), count(curve.elements)];
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

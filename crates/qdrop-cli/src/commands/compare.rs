//! `qdrop compare`: distance between two networks, value by value.

use crate::args::{Compare, Print};
use crate::{Outcome, checks, out, progress, samples, wish};
use qdrop::data::Samples;
use qdrop::pipeline::{self, Checked};
use qdrop::report::{Table, figure};
use qdrop::{Error, Result};
use serde::Serialize;

/// The printed result; also its JSON.
#[derive(Debug, Serialize)]
struct View {
    a: String,
    b: String,
    samples: usize,
    values: Vec<qdrop::eval::Difference>,
}

/// Runs the command.
pub fn run(args: &Compare, quiet: bool) -> Result<Outcome> {
    checks::readable_file(&args.a)?;
    checks::readable_file(&args.b)?;
    checks::exists(&args.data)?;
    let mut recipe = wish::read(args.run.recipe.as_deref())?;
    wish::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    let (a, b) = (pipeline::load(&args.a)?, pipeline::load(&args.b)?);
    let data = samples::open(&args.data, &recipe, &args.a, &a, args.run.samples)?;
    let shapes = samples::shapes(&data)?;
    let (a, b) = (pipeline::prepare(&a, Some(&shapes))?, pipeline::prepare(&b, Some(&shapes))?);
    let checked = Checked::new(&a, &shapes, &data)?;
    let mut sink = progress::sink(quiet);
    let values = pipeline::compare(&a, &b, &checked, args.run.threads, sink.as_mut())?;
    if values.is_empty() {
        let message = format!("`{}` and `{}` share no computed value", args.a.display(), args.b.display());
        return Err(Error::unsupported(message).hint("compare files made from one export"));
    }
    let view = View { a: args.a.display().to_string(), b: args.b.display().to_string(), samples: data.len(), values };
    match args.format {
        Print::Json => out::json(&view)?,
        Print::Text => {
            let mut table = Table::new(
                format!("{} against {} on {} samples", view.b, view.a, view.samples),
                "value|>signal to noise dB|>largest difference|>cosine",
            );
            for v in &view.values {
                let snr = v.snr_db.map_or_else(|| "-".into(), |x| format!("{x:.1}"));
                table.row([v.name.clone(), snr, figure(v.max_abs), format!("{:.5}", v.cosine)]);
            }
            out::print(&out::draw(&[table]))?;
        }
    }
    Ok(Outcome::Done)
}

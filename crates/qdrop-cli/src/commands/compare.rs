//! `qdrop compare`: compares two networks value by value.

use crate::args::{Compare, Print};
use crate::progress::Detail;
use crate::{Outcome, checks, flags, out, progress, runtime};
use qdrop::data::Subset;
use qdrop::eval::Difference;
use qdrop::graph::ValueId;
use qdrop::report::{Event, Table, figure};
use qdrop::{Dataset, Error, Model, Result, Samples};
use serde::Serialize;

/// Signal-to-noise ratio, in dB, below which two values count as diverged: the error has a tenth of the amplitude.
const APART: f64 = 20.0;

/// The printed result; also its JSON.
#[derive(Debug, Serialize)]
pub struct View {
    a: String,
    b: String,
    /// The runtime that ran `b`, unless that was this program's own engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<runtime::View>,
    samples: usize,
    /// Name of the first value, in the order of computing, that differs at all.
    first_difference: Option<String>,
    /// Name of the first value whose signal to noise is below [`APART`].
    first_divergence: Option<String>,
    values: Vec<Difference>,
    /// Outputs of the unchanged file in the runtime: `values` are made outputs, which keeps it from fusing operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Vec<Difference>>,
}

/// Runs the command.
pub fn run(args: &Compare, detail: Detail) -> Result<Outcome> {
    checks::readable_file(&args.a)?;
    let path_b = args.b.as_ref().unwrap_or(&args.a);
    checks::readable_file(path_b)?;
    checks::exists(&args.data)?;
    args.encodings.as_deref().map_or(Ok(()), checks::readable_file)?;
    let mut recipe = flags::read(args.run.recipe.as_deref())?;
    flags::apply_input(&mut recipe, &args.input);
    recipe.validate()?;
    let library = runtime::library(&args.runtime)?;
    let (limit, threads) = (args.run.samples, args.run.threads);
    recipe.method.threads = threads;
    let a = args.run.fix.load(&args.a)?;
    let npz = path_b.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"));
    let mut sink = progress::sink(detail);
    let sink = sink.as_mut();
    let recorded = npz.then(|| Dataset::recorded(path_b)).transpose()?;
    let data = Dataset::open(&args.data, &a, &recipe, if npz { None } else { limit }, sink)?;
    // Of a longer set, the recorded values are those of the first samples.
    let known = recorded.as_ref().map_or(data.len(), Samples::len);
    if known > data.len() {
        let message = format!("expected values of at most {} samples, got {known}", data.len());
        let error = Error::data(message).at(path_b.display());
        return Err(error.hint("record the values of the same samples"));
    }
    let data = Subset::spread(Subset::first(data, known), if npz { limit } else { None })?;
    if args.encodings.is_some() && (npz || library.is_some()) {
        let error = Error::data("--encodings: expected a network that qdrop's own engine runs");
        return Err(error.at(path_b.display()).hint("leave out --encodings"));
    }
    let (values, outputs) = if let Some(library) = &library {
        let b = args.run.fix.open(library, path_b, threads)?;
        let found = a.compare_deployed(&b, &data, &recipe, sink)?;
        (found.values, Some(found.outputs))
    } else if let Some(recorded) = recorded {
        let recorded = Subset::spread(recorded, limit)?;
        let found = a.compare_recorded(&recorded, &data, &recipe, sink);
        (found.map_err(|e| e.at(path_b.display()))?, None)
    } else {
        let b = args.run.fix.apply_known(Model::open_with(path_b, args.encodings.as_deref())?)?;
        (a.compare(&b, &data, &recipe, sink)?, None)
    };
    let graph = a.graph();
    let integer = |v: &&ValueId| graph.value(**v).fact.dtype.is_some_and(|t| !t.is_float());
    let integers: Vec<&str> = graph.outputs.iter().filter(integer).map(|&v| graph.value(v).name.as_str()).collect();
    if !integers.is_empty() {
        let names = integers.join("`, `");
        let message =
            format!("the outputs `{names}` hold integers and are not compared; `qdrop eval` measures classes");
        sink.event(&Event::Note { message });
    }
    if values.is_empty() && outputs.as_ref().is_none_or(Vec::is_empty) {
        let message = format!("`{}` and `{}` share no computed value", args.a.display(), path_b.display());
        let hint = match npz {
            true => "name the arrays after the network's values",
            false => "compare files made from the same export",
        };
        return Err(Error::unsupported(message).hint(hint));
    }
    let runtime = library.as_ref().map(runtime::View::of);
    let names = (args.a.display().to_string(), path_b.display().to_string());
    let view = View { runtime, outputs, ..View::new(names, data.len(), values) };
    match args.format {
        Print::Json => out::json(&view)?,
        Print::Text => out::print(&view.text())?,
    }
    Ok(Outcome::Done)
}

impl View {
    /// What is shown of the `values` of the network `b` compared with those of `a` on so many `samples`.
    pub fn new((a, b): (String, String), samples: usize, values: Vec<Difference>) -> Self {
        let first = |of: &dyn Fn(&Difference) -> bool| values.iter().find(|v| of(v)).map(|v| v.name.clone());
        let first_difference = first(&|v| v.max_abs > 0.0);
        let first_divergence = first(&|v| v.snr_db.map_or(v.max_abs > 0.0, |snr| snr < APART));
        View { a, b, runtime: None, samples, first_difference, first_divergence, values, outputs: None }
    }

    /// As tables.
    pub fn text(&self) -> String {
        let place = self.runtime.as_ref().map_or(String::new(), |r| format!(" in {}", r.name));
        let title = format!("{}{place} against {} on {} samples", self.b, self.a, self.samples);
        let mut tables = vec![table(title, &self.values)];
        if let Some(outputs) = self.outputs.as_ref().filter(|o| !o.is_empty()) {
            tables[0].title.push_str(", with all values as outputs, which prevents operators from being fused");
            tables.push(table(format!("Outputs of {}{place} unchanged, operators fused as usual", self.b), outputs));
        }
        let first = match (&self.first_difference, &self.first_divergence) {
            (None, _) => "No value differs.".to_string(),
            (Some(first), None) => format!("First difference: {first}. All values stay above {APART} dB."),
            (Some(first), Some(apart)) => {
                format!("First difference: {first}. First value below {APART} dB: {apart}.")
            }
        };
        format!("{}\n{first}", out::draw(&tables))
    }
}

fn table(title: String, values: &[Difference]) -> Table {
    let mut table = Table::new(title, "value|by|>signal to noise dB|>largest difference|>cosine");
    for v in values {
        let snr = v.snr_db.map_or_else(|| "-".into(), |x| format!("{x:.1}"));
        table.row([v.name.clone(), v.operator.clone(), snr, figure(v.max_abs), format!("{:.5}", v.cosine)]);
    }
    table
}

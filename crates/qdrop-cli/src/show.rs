//! Results as the commands print them, for other faces of the library.

use crate::args::Sort;
use crate::commands::{compare, plan, sensitivity};
use crate::{out, quality};
use qdrop::eval::Difference;
use qdrop::plan::Sensitivity;
use qdrop::report::{Event, Report};
use qdrop::{Error, Model, Planned, Recipe, Result};
use serde::Serialize;

/// A result as the tables that a command prints, and as its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Tables, in lines of about a hundred characters.
    pub text: String,
    /// One JSON document.
    pub json: String,
}

/// The report of a run as `qdrop quantize` prints it.
pub fn report(report: &Report) -> String {
    out::draw(&report.tables()) + &quality::text(report)
}

/// What was `planned` for `model` by `recipe`, as `qdrop plan` prints it.
pub fn planned(model: &Model, recipe: Recipe, planned: &Planned) -> Result<Shown> {
    let view = plan::View::new(model, recipe, planned);
    Ok(Shown { text: view.text(), json: json(&view)? })
}

/// Sensitivities, as `qdrop sensitivity` prints them.
pub fn sensitivities(found: &Sensitivity) -> Result<Shown> {
    Ok(Shown { text: out::draw(&sensitivity::tables(found, Sort::Network)), json: json(found)? })
}

/// Sensitivities as the lines of a CSV file.
pub fn sensitivities_csv(found: &Sensitivity) -> String {
    sensitivity::csv(found)
}

/// How the `values` of the network called `names.1` differ from those of `names.0` on so many `samples`, as `qdrop compare`
/// prints it.
pub fn compared(names: (String, String), samples: usize, values: Vec<Difference>) -> Result<Shown> {
    let view = compare::View::new(names, samples, values);
    Ok(Shown { text: view.text(), json: json(&view)? })
}

/// Progress as lines of text, as the program prints it where no terminal shows bars.
#[derive(Debug, Default)]
pub struct Lines(crate::progress::Lines);

impl Lines {
    /// The line to print for `event`, if any.
    pub fn line(&mut self, event: &Event) -> Option<String> {
        let (label, line) = self.0.line(event)?;
        Some(if label.is_some() { format!("note: {line}") } else { line })
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal(format!("no JSON: {e}")))
}

//! `qdrop report`: makes the HTML page of a report that was written earlier.

use crate::{Outcome, args, checks, out};
use qdrop::report::Report;
use qdrop::{Error, Result};

/// Runs the command.
pub fn run(args: &args::Report) -> Result<Outcome> {
    checks::readable_file(&args.report)?;
    let output = args.output.clone().unwrap_or_else(|| args.report.with_extension("html"));
    checks::writable(&output, &[&args.report], "-o")?;
    let bytes = std::fs::read(&args.report).map_err(|e| Error::io(&args.report, e))?;
    let report = Report::from_json(&bytes).map_err(|e| e.at(args.report.display()))?;
    out::file(&output, &report.html())?;
    out::print(&format!("{}", output.display()))?;
    Ok(Outcome::Done)
}

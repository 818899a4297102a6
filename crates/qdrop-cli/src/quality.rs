//! How good a written file is: which samples that is measured on, and how it is said.

use crate::args::Print;
use crate::out;
use crate::samples::Calibration;
use qdrop::Result;
use qdrop::data::{Samples, Subset};
use qdrop::graph::Graph;
use qdrop::pipeline::{self, Checked};
use qdrop::plan::Recipe;
use qdrop::report::{Event, Report, Sink, Source};

/// Columns of a terminal.
const WIDTH: usize = 100;

/// The samples that the quality of a file may be measured on.
pub struct Sets<'a> {
    /// Those of the calibration set that the user left out.
    rest: Box<dyn Samples + 'a>,
    calib: &'a Checked<'a>,
    /// Those of `calib` that the method does not look at.
    unused: Vec<usize>,
    eval: Option<&'a dyn Samples>,
}

impl<'a> Sets<'a> {
    /// For a run by `recipe` on `calib`, which are the `calibration` samples; `eval` are samples of another set.
    pub fn new(
        recipe: &Recipe,
        calibration: &'a Calibration,
        calib: &'a Checked<'a>,
        eval: Option<&'a dyn Samples>,
    ) -> Result<Self> {
        Ok(Sets { rest: calibration.left_out()?, calib, unused: pipeline::left_out(recipe, calib.len()), eval })
    }

    /// Measures `written`, which `graph` became, and puts it into `report`.
    pub fn measure(
        &self,
        graph: &Graph,
        written: &Graph,
        recipe: &Recipe,
        report: &mut Report,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let unused = Subset::new(self.calib, self.unused.clone())?;
        let mut sources: Vec<(Source, &dyn Samples)> = vec![(Source::LeftOut, &*self.rest), (Source::LeftOut, &unused)];
        sources.extend(self.eval.map(|eval| (Source::Evaluation, eval)));
        sources.push((Source::Calibration, self.calib));
        report.quality = Some(pipeline::quality(graph, written, recipe, report, &sources, sink)?);
        Ok(())
    }
}

/// What should be known about the result, as it stands below the tables; in front of JSON it is told to `sink`.
pub fn remarks(report: &Report, format: Print, sink: &mut dyn Sink) -> String {
    let mut text = String::new();
    for remark in report.remarks() {
        let line = format!("{}: {}", remark.kind(), remark.text);
        match format {
            Print::Json => sink.event(&Event::Note { message: remark.text }),
            Print::Text => text.push_str(&format!("\n{}\n", out::wrapped(&line, WIDTH))),
        }
    }
    text
}

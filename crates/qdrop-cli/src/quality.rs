//! How the quality of a written file is told.

use crate::args::Print;
use crate::out;
use qdrop::report::{Event, Report, Sink};

/// What should be known about the result, as it stands below the tables; in front of JSON it is told to `sink`.
pub fn remarks(report: &Report, format: Print, sink: &mut dyn Sink) -> String {
    let mut text = String::new();
    for remark in report.remarks() {
        let line = format!("{}: {}", remark.kind(), remark.text);
        match format {
            Print::Json => sink.event(&Event::Note { message: remark.text }),
            Print::Text => text.push_str(&format!("\n{}\n", out::wrapped(&line, out::WIDTH))),
        }
    }
    text
}

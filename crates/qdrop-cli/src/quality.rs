//! How the quality of a written file is told.

use crate::args::Print;
use crate::out;
use qdrop::report::{Event, Report, Sink};

/// What should be known about the result, as it stands below the tables; in front of JSON it is told to `sink`.
pub fn remarks(report: &Report, format: Print, sink: &mut dyn Sink) -> String {
    match format {
        Print::Text => text(report),
        Print::Json => {
            report.remarks().into_iter().for_each(|r| sink.event(&Event::Note { message: r.text }));
            String::new()
        }
    }
}

/// What should be known about the result, as it stands below the tables.
pub fn text(report: &Report) -> String {
    let line = |kind: &str, text: &str| format!("\n{}\n", out::wrapped(&format!("{kind}: {text}"), out::WIDTH));
    report.remarks().iter().map(|remark| line(remark.kind(), &remark.text)).collect()
}

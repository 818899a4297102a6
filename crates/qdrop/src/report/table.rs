//! A report as tables of text.

use super::Report;
use crate::plan::{Chosen, Override};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Rows of text under a header; every row has as many cells as the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What the table shows; may be empty.
    pub title: String,
    /// Column names.
    pub header: Vec<String>,
    /// Rows of cells.
    pub rows: Vec<Vec<String>>,
    /// Columns with numbers, which are aligned right.
    pub right: Vec<usize>,
    /// Columns that may be left out if there is not enough room.
    pub optional: Vec<usize>,
}

impl Table {
    /// An empty table. In `header` columns are separated by `|`; `>` in front of a name aligns the column right, `?`
    /// allows it to be left out if there is not enough room.
    pub fn new(title: impl Into<String>, header: &str) -> Self {
        let columns: Vec<&str> = header.split('|').collect();
        Table {
            title: visible(&title.into(), true).into_owned(),
            header: columns.iter().map(|c| c.trim_start_matches(['>', '?']).to_string()).collect(),
            rows: Vec::new(),
            right: (0..columns.len()).filter(|&i| columns[i].starts_with('>')).collect(),
            optional: (0..columns.len()).filter(|&i| columns[i].starts_with('?')).collect(),
        }
    }

    /// Adds a row, which is cut or filled with empty cells to the length of the header.
    pub fn row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(|c| visible(&c.to_string(), false).into_owned()).collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
        self
    }
}

/// `text` for display: control characters, and those that change the direction of writing, are escaped, so that names
/// from a file cannot control a terminal. Line ends are kept if `lines` is true.
pub fn visible(text: &str, lines: bool) -> Cow<'_, str> {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    let strange = |c: char| (c.is_control() && !(lines && c == '\n')) || turns(c);
    if !text.contains(strange) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !strange(c) => shown.push(c),
            c => shown.extend(c.escape_default()),
        }
    }
    Cow::Owned(shown)
}

/// A size in bytes with a unit: `512 B`, `1.5 KiB`, `26.7 MiB`.
pub fn bytes(n: u64) -> String {
    let (mut value, mut unit) = (n as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// A duration in seconds with units: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".into();
    }
    let whole = seconds.round() as u64;
    match whole {
        0..=9 => format!("{seconds:.1} s"),
        10..=59 => format!("{whole} s"),
        60..=3599 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A count with a unit: `512`, `1.50 k`, `40.8 M`, `1.81 G`.
pub fn count(n: u64) -> String {
    let (mut value, mut unit) = (n as f64, "");
    for next in [" k", " M", " G", " T"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    match unit {
        "" => n.to_string(),
        _ if value < 10.0 => format!("{value:.2}{unit}"),
        _ => format!("{value:.1}{unit}"),
    }
}

/// A loss or distance with four significant digits: `0.01234`, `1.234e-6`.
pub fn figure(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 || !x.is_finite() {
        format!("{x}")
    } else if !(1e-4..1e6).contains(&size) {
        format!("{x:.3e}")
    } else {
        let decimals = (3 - size.log10().floor() as i32).max(0) as usize;
        format!("{x:.decimals$}")
    }
}

/// The displayed name of a metric: `top-1` for `top1`.
pub fn metric(name: &str) -> String {
    match name {
        "top1" => "top-1".into(),
        "top5" => "top-5".into(),
        "f1" => "F1".into(),
        "matthews" => "Matthews".into(),
        "pearson" => "Pearson".into(),
        "spearman" => "Spearman".into(),
        "ap" => "AP".into(),
        "ap50" => "AP50".into(),
        "ap75" => "AP75".into(),
        "ap_s" => "AP small".into(),
        "ap_m" => "AP medium".into(),
        "ap_l" => "AP large".into(),
        "ar1" => "AR1".into(),
        "ar10" => "AR10".into(),
        "ar100" => "AR100".into(),
        "ar_s" => "AR small".into(),
        "ar_m" => "AR medium".into(),
        "ar_l" => "AR large".into(),
        "miou" => "mIoU".into(),
        other => other.replace('_', " "),
    }
}

/// A signal-to-noise ratio; a dash if there is no noise.
pub(super) fn decibels(snr: Option<f64>) -> String {
    snr.map_or_else(|| "-".into(), |x| format!("{x:.1} dB"))
}

/// A share from 0 to 1 in per cent, with more digits for small shares.
pub(super) fn share(x: f64) -> String {
    match x * 100.0 {
        0.0 => "0 %".into(),
        p if p.abs() < 0.001 => format!("{p:.0e} %"),
        p if p.abs() < 0.1 => format!("{p:.3} %"),
        p if p.abs() < 10.0 => format!("{p:.2} %"),
        p => format!("{p:.1} %"),
    }
}

/// Bits of a grid; 32 means float.
pub(super) fn bits(n: u32) -> String {
    if n == 32 { "float".into() } else { format!("{n} bits") }
}

/// A shape: `64×3×3×3`.
pub(super) fn shape(dims: &[usize]) -> String {
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// The `chosen` bits with their cost, the predicted error, and the error that was `reached`.
pub fn chosen_bits(chosen: &Chosen, reached: Option<f64>) -> Table {
    let mut table = Table::new("Bits chosen", "what|>figure|>target");
    let target = |most: Option<String>| most.unwrap_or_else(|| "-".into());
    let Chosen { cost, most_weight_bytes, most_bit_operations, predicted_error, exceptions } = chosen;
    let of = |bits: fn(&Override) -> Option<u32>| {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        exceptions.iter().filter_map(bits).for_each(|b| *counts.entry(b).or_default() += 1);
        counts
    };
    for (what, counts) in [("layers", of(|o| o.weight_bits)), ("activations", of(|o| o.activation_bits))] {
        for (bits, count) in counts {
            table.row([format!("{what} of {bits} bits"), count.to_string()]);
        }
    }
    table.row(["weights".to_string(), bytes(cost.weight_bytes), target(most_weight_bytes.map(bytes))]);
    table.row(["bit operations".to_string(), count(cost.bit_operations), target(most_bit_operations.map(count))]);
    let error = |error: f64| format!("{} ({:.1} dB)", figure(error), -10.0 * error.log10());
    table.row(["error of outputs, predicted".to_string(), error(*predicted_error)]);
    if let Some(reached) = reached {
        table.row(["error of outputs, measured".to_string(), error(reached)]);
    }
    table
}

impl Report {
    /// The report as tables: units, chosen bits, file sizes, accuracy and quality (if measured), and times.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = Vec::new();
        if !self.units.is_empty() {
            let mut t = Table::new("Units", "unit|>layers|>loss before|>loss after|>iterations|>time");
            for u in &self.units {
                t.row([
                    u.name.clone(),
                    u.layers.len().to_string(),
                    figure(u.loss_before),
                    figure(u.loss_after),
                    u.iterations.to_string(),
                    if u.resumed { "kept".into() } else { duration(u.seconds) },
                ]);
            }
            tables.push(t);
        }
        if let Some(mixed) = &self.mixed {
            tables.push(chosen_bits(&mixed.chosen, mixed.reached_error));
        }
        if let (Some(before), Some(after)) = (self.bytes_before, self.bytes_after) {
            let mut t = Table::new("File", "file|>size|>of float");
            let share = if before > 0 { format!("{:.1} %", after as f64 / before as f64 * 100.0) } else { "".into() };
            t.row([self.model.clone(), bytes(before), "".into()]);
            t.row([self.output.clone().unwrap_or_default(), bytes(after), share]);
            if let Some(encodings) = &self.encodings {
                t.row([encodings.file.clone(), bytes(encodings.bytes), "".into()]);
            }
            tables.push(t);
        }
        if let Some(a) = &self.accuracy {
            let place = self.latency.as_ref().map_or(String::new(), |l| format!(" in {}", l.runtime));
            let title = format!("Accuracy on {} samples{place}", a.result.samples);
            let columns: String = a.result.metrics.keys().map(|m| format!("|>{} %", metric(m))).collect();
            let mut t = Table::new(title, &format!("network{columns}"));
            for (name, score) in a.rows() {
                t.row([name.to_string()].into_iter().chain(score.metrics.values().map(|v| format!("{v:.2}"))));
            }
            tables.push(t);
        }
        tables.extend(self.quality_table());
        if let Some(l) = &self.latency {
            let samples = if l.batch == 1 { "a sample".into() } else { format!("{} samples", l.batch) };
            let threads = if l.threads == 1 { "one thread".into() } else { format!("{} threads", l.threads) };
            let title = format!("Latency of {samples} in {} on {threads}", l.runtime);
            let mut t = Table::new(title, "network|>ms|>of float");
            t.row(["float".to_string(), figure(l.float_ms)]);
            t.row(["result".to_string(), figure(l.result_ms), share(l.result_ms / l.float_ms)]);
            tables.push(t);
        }
        if !self.timings.is_empty() {
            let mut t = Table::new("Time", "stage|>time");
            for timing in &self.timings {
                t.row([timing.stage.to_string(), duration(timing.seconds)]);
            }
            t.row(["total".into(), duration(self.timings.iter().map(|t| t.seconds).sum())]);
            if let Some(seconds) = self.estimate {
                t.row(["estimate".into(), duration(seconds)]);
            }
            tables.push(t);
        }
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Accuracy, Latency, Score};
    use super::*;
    use crate::plan::MethodName;

    #[test]
    fn numbers_read_well() {
        assert_eq!((bytes(512), bytes(1536), bytes(28_000_000)), ("512 B".into(), "1.5 KiB".into(), "26.7 MiB".into()));
        assert_eq!(
            (duration(0.42), duration(65.0), duration(7800.0)),
            ("0.4 s".into(), "1 min 5 s".into(), "2 h 10 min".into())
        );
        assert_eq!(duration(f64::NAN), "?");
        assert_eq!((count(999), count(1500), count(40_810_000)), ("999".into(), "1.50 k".into(), "40.8 M".into()));
        assert_eq!(
            (figure(0.012341), figure(123.456), figure(1.2e-9)),
            ("0.01234".into(), "123.5".into(), "1.200e-9".into())
        );
    }

    #[test]
    fn names_command_no_terminal() {
        assert!(matches!(visible("plain, µ and 图", false), Cow::Borrowed(_)));
        assert_eq!(visible("a\u{1b}[2Jb\r\nc\u{202e}", false), "a\\u{1b}[2Jb\\r\\nc\\u{202e}");
        assert_eq!(visible("a\nb\u{7}\u{9b}", true), "a\nb\\u{7}\\u{9b}");
        let mut table = Table::new("t", "name");
        table.row(["x\u{1b}]0;y\u{7}"]);
        assert_eq!(table.rows, [["x\\u{1b}]0;y\\u{7}"]]);
    }

    #[test]
    fn tables_hold_what_is_known() {
        let mut report = Report::new(MethodName::Rtn);
        assert!(report.tables().is_empty());
        let score = Score::new(4, [("top1", 75.0), ("top5", 100.0)]);
        assert_eq!(serde_json::to_string(&score).unwrap(), r#"{"samples":4,"top1":75.0,"top5":100.0}"#);
        report.accuracy = Some(Accuracy { float: score.clone(), nearest: Some(score.clone()), result: score });
        (report.bytes_before, report.bytes_after) = (Some(1000), Some(250));
        let tables = report.tables();
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].rows[1][2], "25.0 %");
        assert_eq!(tables[1].header, ["network", "top-1 %", "top-5 %"]);
        assert_eq!(tables[1].rows[2], ["result", "75.00", "100.00"]);
        assert_eq!(tables[1].right, [1, 2]);
        let runtime = "ONNX Runtime 1.32.0".to_string();
        report.latency = Some(Latency { runtime, threads: 1, batch: 1, float_ms: 8.0, result_ms: 5.0 });
        let tables = report.tables();
        assert_eq!(tables[1].title, "Accuracy on 4 samples in ONNX Runtime 1.32.0");
        assert_eq!(tables[2].title, "Latency of a sample in ONNX Runtime 1.32.0 on one thread");
        assert_eq!(tables[2].rows, [["float", "8.000", ""], ["result", "5.000", "62.5 %"]]);
    }
}

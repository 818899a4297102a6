//! Sentences and labels of GLUE tasks: the original TSV files, CSV and JSON Lines.

use super::super::files::extension;
use crate::error::{Error, Result};
use crate::plan::{Answer, Task};
use serde_json::{Map, Value};
use std::path::Path;

/// What a record says of its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Label {
    Class(usize),
    Number(f64),
}

/// One sample before it is tokenised.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub first: String,
    pub second: Option<String>,
    pub label: Option<Label>,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// Names under which the parts of a record are found, the task's own first.
struct Columns {
    first: &'static [&'static str],
    second: &'static [&'static str],
    label: &'static [&'static str],
}

/// Columns of `task`; no names for a second sentence where there is none.
fn columns(task: Task) -> Columns {
    let (first, second): (&[&str], &[&str]) = match task {
        Task::Sst2 | Task::Cola => (&["sentence", "text"], &[]),
        Task::Qnli => (&["question", "sentence1"], &["sentence", "sentence2"]),
        Task::Qqp => (&["question1", "sentence1"], &["question2", "sentence2"]),
        Task::Mrpc => (&["#1 String", "sentence1"], &["#2 String", "sentence2"]),
        _ => (&["sentence1", "premise"], &["sentence2", "hypothesis"]),
    };
    Columns { first, second, label: &["gold_label", "is_duplicate", "Quality", "score", "label", "labels"] }
}

/// Records of `task` in `path`, and how many were left out because the benchmark leaves them out.
pub(super) fn read(path: &Path, task: Task) -> Result<(Vec<Record>, usize)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        Error::data("expected text in UTF-8, got other bytes").at(format!("line {line}")).at(path.display())
    })?;
    let text = text.trim_start_matches('\u{feff}');
    let reader = Reader { task, columns: columns(task), skipped: 0, records: Vec::new() };
    let read = match extension(path).as_str() {
        "tsv" | "txt" => reader.tsv(text),
        "csv" => reader.csv(text),
        "jsonl" | "json" | "ndjson" => reader.json(text),
        other => Err(Error::data(format!("cannot read task `{task}` from a file of type `{other}`"))
            .hint("give a .tsv, .csv or .jsonl file")),
    };
    let Reader { records, skipped, .. } = read.map_err(|e| e.at(path.display()))?;
    if records.is_empty() {
        return Err(Error::data("the file has no records").at(path.display()));
    }
    Ok((records, skipped))
}

struct Reader {
    task: Task,
    columns: Columns,
    records: Vec<Record>,
    skipped: usize,
}

/// Positions of a record's parts in a line.
struct Places {
    first: usize,
    second: Option<usize>,
    label: Option<usize>,
}

impl Reader {
    /// Lines of columns, without quoting.
    fn tsv(mut self, text: &str) -> Result<Self> {
        let mut lines = text.split('\n').map(|l| l.trim_end_matches('\r')).enumerate().filter(|(_, l)| !l.is_empty());
        let mut places = None;
        // CoLA's files have no header, but its test file does.
        if self.task == Task::Cola && !text.lines().next().unwrap_or_default().split('\t').any(|c| c == "sentence") {
            places = Some((Places { first: 3, second: None, label: Some(1) }, 4));
        }
        let (places, width) = match places {
            Some(places) => places,
            None => {
                let header: Vec<&str> = lines.next().map(|(_, l)| l.split('\t').collect()).unwrap_or_default();
                (self.places(&header)?, header.len())
            }
        };
        for (at, line) in lines {
            let at = at + 1;
            let fields: Vec<&str> = line.split('\t').collect();
            let need = [Some(places.first), places.second, places.label].into_iter().flatten().max().unwrap_or(0) + 1;
            if fields.len() < need {
                // Some lines of QQP are cut off; the benchmark's readers pass over them.
                if self.task == Task::Qqp {
                    self.skipped += 1;
                    continue;
                }
                let message = format!("expected {width} columns, got {}", fields.len());
                return Err(Error::data(message).at(format!("line {at}")).hint("columns are separated by tabs"));
            }
            let second = places.second.map(|i| fields[i].to_string());
            self.add(at, fields[places.first].to_string(), second, places.label.map(|i| fields[i]))?;
        }
        Ok(self)
    }

    /// Comma-separated values with a header and quoting.
    fn csv(mut self, text: &str) -> Result<Self> {
        let bad = |e: csv::Error| Error::data(format!("cannot read the file: {e}"));
        let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
        let header: Vec<String> = reader.headers().map_err(bad)?.iter().map(|h| h.trim().to_string()).collect();
        let places = self.places(&header.iter().map(String::as_str).collect::<Vec<_>>())?;
        for record in reader.records() {
            let record = record.map_err(bad)?;
            let line = record.position().map_or(0, |p| p.line() as usize);
            let field = |i: usize| record.get(i).unwrap_or_default();
            let second = places.second.map(|i| field(i).to_string());
            self.add(line, field(places.first).to_string(), second, places.label.map(field))?;
        }
        Ok(self)
    }

    /// One JSON object a line.
    fn json(mut self, text: &str) -> Result<Self> {
        for (at, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let at = at + 1;
            let place = |e: Error| e.at(format!("line {at}"));
            let object: Map<String, Value> = serde_json::from_str(line)
                .map_err(|e| place(Error::data(format!("expected a JSON object in one line: {e}"))))?;
            let field = |names: &[&str]| names.iter().find_map(|n| object.get(*n));
            let text = |names: &'static [&'static str]| match field(names) {
                Some(Value::String(s)) => Ok(s.clone()),
                _ => Err(place(Error::data(format!("expected a text `{}`", names.join("` or `"))))),
            };
            let (first, second) = (text(self.columns.first)?, self.columns.second);
            let second = if second.is_empty() { None } else { Some(text(second)?) };
            let label = match field(self.columns.label) {
                None | Some(Value::Null) => None,
                Some(Value::String(s)) => Some(s.clone()),
                Some(other) => Some(other.to_string()),
            };
            self.add(at, first, second, label.as_deref())?;
        }
        Ok(self)
    }

    fn places(&self, header: &[&str]) -> Result<Places> {
        let find = |names: &[&str]| names.iter().find_map(|n| header.iter().position(|h| h == n));
        let must = |names: &[&str]| {
            find(names).ok_or_else(|| {
                let message = format!("expected a column `{}`, got `{}`", names.join("` or `"), header.join("`, `"));
                Error::data(message).at("line 1").hint(format!("the file must be one of task `{}`", self.task))
            })
        };
        let second = self.columns.second;
        Ok(Places {
            first: must(self.columns.first)?,
            second: if second.is_empty() { None } else { Some(must(second)?) },
            label: find(self.columns.label),
        })
    }

    fn add(&mut self, line: usize, first: String, second: Option<String>, label: Option<&str>) -> Result<()> {
        let label = match label.map(str::trim) {
            // Annotators of MNLI did not agree.
            Some("-") if self.task == Task::Mnli => {
                self.skipped += 1;
                return Ok(());
            }
            // Files without labels mark them by -1.
            None | Some("" | "-1") => None,
            Some(text) => Some(self.label(text).map_err(|e| e.at(format!("line {line}")))?),
        };
        self.records.push(Record { first, second, label, line });
        Ok(())
    }

    fn label(&self, text: &str) -> Result<Label> {
        match self.task.answer() {
            Answer::Classes(classes) => {
                let named = classes.iter().position(|c| *c == text);
                // Tools write classes as real numbers.
                let plain = text.strip_suffix(".0").unwrap_or(text);
                let class = named.or_else(|| plain.parse().ok().filter(|&c: &usize| c < classes.len()));
                class
                    .map(Label::Class)
                    .ok_or_else(|| Error::data(format!("unknown label `{text}`, expected one of {}", choices(classes))))
            }
            _ => match text.parse::<f64>() {
                Ok(x) if x.is_finite() => Ok(Label::Number(x)),
                _ => Err(Error::data(format!("label `{text}` is not a finite number"))),
            },
        }
    }
}

/// Classes by number, and by name where they have names.
fn choices(classes: &[&str]) -> String {
    let show = |(i, class): (usize, &&str)| match i.to_string() {
        number if number == **class => number,
        number => format!("{class} ({number})"),
    };
    classes.iter().enumerate().map(show).collect::<Vec<_>>().join(", ")
}

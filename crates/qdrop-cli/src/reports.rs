//! The files of a report: one for programs, one for people.

use crate::{checks, out};
use qdrop::Result;
use qdrop::report::{Report, Table};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where a report goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    json: PathBuf,
    html: PathBuf,
}

impl Place {
    /// Beside the model `output`: `out.report.json` and `out.report.html` of `out.onnx`.
    pub fn beside(output: &Path) -> Self {
        let stem = output.file_stem().map_or_else(|| "model".into(), |s| s.to_os_string());
        let mut name = stem;
        name.push(".report");
        Self::named(&output.with_file_name(name))
    }

    /// `name.json` and `name.html`; `name` may end in either already.
    pub fn named(name: &Path) -> Self {
        let ending = name.extension().filter(|e| *e == "json" || *e == "html");
        let stem = if ending.is_some() { name.with_extension("") } else { name.to_path_buf() };
        let with = |ending: &str| {
            let mut name = stem.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        Place { json: with(".json"), html: with(".html") }
    }

    /// Both files.
    pub fn files(&self) -> [&Path; 2] {
        [&self.json, &self.html]
    }

    /// That both files can be written and are none of the files `taken`.
    pub fn check(&self, taken: &[&Path]) -> Result<()> {
        self.files().into_iter().try_for_each(|p| checks::writable(p, taken, "--report"))
    }

    /// Writes both files.
    pub fn write(&self, report: &Report) -> Result<()> {
        out::file(&self.json, &report.to_json()?)?;
        out::file(&self.html, &report.html())
    }

    /// Names both files.
    pub fn table(&self) -> Table {
        let mut table = Table::new("Report", "file|what");
        table.row([self.html.display().to_string(), "page to read".into()]);
        table.row([self.json.display().to_string(), "the same for programs".into()]);
        table
    }
}

/// The words that the program was started by.
static WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Remembers the words `args` that the program was started by, its name first.
pub fn started_by(args: &[OsString]) {
    let words = args.iter().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    *WORDS.lock().unwrap_or_else(PoisonError::into_inner) = words;
}

/// The command line that the program was started by, under its name.
pub fn command_line() -> Vec<String> {
    let words = WORDS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    std::iter::once("qdrop".to_string()).chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_predictable() {
        let place = |json: &str, html: &str| Place { json: json.into(), html: html.into() };
        assert_eq!(Place::beside(Path::new("a/n.w4a4.onnx")), place("a/n.w4a4.report.json", "a/n.w4a4.report.html"));
        assert_eq!(Place::beside(Path::new("model")), place("model.report.json", "model.report.html"));
        for name in ["b/run.v2", "b/run.v2.json", "b/run.v2.html"] {
            assert_eq!(Place::named(Path::new(name)), place("b/run.v2.json", "b/run.v2.html"));
        }
    }
}

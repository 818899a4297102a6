//! Results on stdout: tables or JSON. A reader that went away is no error.

use comfy_table::{CellAlignment, ContentArrangement, presets};
use qdrop::disk;
use qdrop::report::{Table, visible};
use qdrop::{Error, Result};
use std::io::Write;
use std::path::Path;

/// Writes `text` and a line end to stdout.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", visible(text.trim_end(), true)).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io(Path::new("stdout"), e)),
        _ => Ok(()),
    }
}

/// Writes a line to stderr, control characters spelt out. When stderr is closed nobody is there to be told, and the result
/// does not depend on it.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(line, false));
}

/// Writes `value` as indented JSON.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::internal(format!("no JSON: {e}")))?;
    print(&text)
}

/// Writes `text` into the file at `path`, which is whole or not there.
pub fn file(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = disk::temporary_file(disk::folder(path))?;
        file.write_all(text.as_bytes())?;
        disk::put_in_place(file, path)
    };
    write().map_err(|e| Error::io(path, e))
}

/// Draws `tables` one below the other, each under its title.
pub fn draw(tables: &[Table]) -> String {
    let mut text = String::new();
    for table in tables {
        if !text.is_empty() {
            text.push('\n');
        }
        if !table.title.is_empty() {
            text.push_str(&table.title);
            text.push('\n');
        }
        let mut drawn = comfy_table::Table::new();
        drawn.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        drawn.set_header(table.header.iter());
        for row in &table.rows {
            drawn.add_row(row.iter());
        }
        for &i in &table.right {
            if let Some(column) = drawn.column_mut(i) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in drawn.to_string().lines() {
            text.push(' ');
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// `text` in lines of at most `width` characters, but for words that are longer.
pub fn wrapped(text: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.into()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.html");
        for text in ["long before", "after"] {
            file(&path, text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(file(&dir.path().join("none/r.html"), "").is_err());
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree");
        assert_eq!(wrapped("a longer_than_all b", 8), "a\nlonger_than_all\nb");
        assert_eq!(wrapped("", 8), "");
    }

    #[test]
    fn tables_are_plain_text() {
        let mut table = Table::new("Units", "unit|>loss");
        table.row(["a", "0.5"]).row(["longer", "12"]);
        assert_eq!(draw(&[table]), "Units\n  unit    loss\n  a        0.5\n  longer    12\n");
    }
}

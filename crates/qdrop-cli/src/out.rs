//! Results on stdout: tables or JSON. A reader that went away is no error.

use anstyle::AnsiColor;
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

/// What a line on stderr is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    Error,
    Hint,
    Note,
}

/// Writes `text` to stderr as one line behind its label, which has a colour where stderr is a terminal that wants any
/// (`NO_COLOR` is heard).
pub fn tell_as(label: Label, text: &str) {
    let (word, colour) = match label {
        Label::Error => ("error", AnsiColor::Red),
        Label::Hint => ("hint", AnsiColor::Cyan),
        Label::Note => ("note", AnsiColor::Yellow),
    };
    let style = colour.on_default().bold();
    let text = visible(&text.replace('\n', " "), false).into_owned();
    let _ = writeln!(anstream::stderr(), "{style}{word}:{style:#} {text}");
}

/// Writes `value` as indented JSON.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::internal(format!("no JSON: {e}")))?;
    print(&text)
}

/// Writes `text` into the file at `path`, which is whole or not there.
pub fn file(path: &Path, text: &str) -> Result<()> {
    disk::write(path, &[text.as_bytes()]).map_err(|e| Error::io(path, e))
}

/// Characters of a line that tables take at most.
pub const WIDTH: usize = 100;
/// Characters that a column keeps at least.
const NARROWEST: usize = 12;

/// `table` in at most `width` characters where that can be: without columns that may be left out, from the last on, then
/// with long names shortened and other long text wrapped.
fn fitted(table: &Table, width: usize) -> Table {
    let mut table = table.clone();
    // A space in front of the line, one on either side of a cell.
    let total = |widths: &[usize]| 1 + widths.iter().map(|w| w + 2).sum::<usize>();
    let widths = |table: &Table| -> Vec<usize> {
        let length = |text: &String| text.lines().map(|l| l.chars().count()).max().unwrap_or(0);
        let column = |i: usize| table.rows.iter().map(|r| length(&r[i])).chain([length(&table.header[i])]).max();
        (0..table.header.len()).map(|i| column(i).unwrap_or(0)).collect()
    };
    while total(&widths(&table)) > width
        && let Some(last) = table.optional.pop()
    {
        table.header.remove(last);
        table.rows.iter_mut().for_each(|row| drop(row.remove(last)));
        table.right = table.right.iter().filter(|&&i| i != last).map(|&i| i - usize::from(i > last)).collect();
    }
    let mut now = widths(&table);
    // Names of columns stay whole.
    let least: Vec<usize> = table.header.iter().map(|name| name.chars().count().max(NARROWEST)).collect();
    while total(&now) > width {
        let wide = (0..now.len()).filter(|&i| !table.right.contains(&i) && now[i] > least[i]);
        let Some(widest) = wide.max_by_key(|&i| now[i]) else { break };
        now[widest] -= 1;
    }
    for row in &mut table.rows {
        for (cell, &most) in row.iter_mut().zip(&now).filter(|(cell, most)| cell.chars().count() > **most) {
            let words: Vec<String> = cell.split_whitespace().map(|word| shortened(word, most)).collect();
            *cell = wrapped(&words.join(" "), most);
        }
    }
    table
}

/// `word` in at most `most` characters. Parts of a path that have no digit are cut to their first letter, one after the other,
/// until the rest fits; they are what names have in common. Where that does not suffice, the middle is left out.
pub fn shortened(word: &str, most: usize) -> String {
    let mut parts: Vec<String> = word.split('/').map(str::to_string).collect();
    let length = |parts: &[String]| parts.iter().map(|p| p.chars().count() + 1).sum::<usize>() - 1;
    for i in 0..parts.len().saturating_sub(1) {
        if length(&parts) <= most {
            break;
        }
        if !parts[i].contains(|c: char| c.is_ascii_digit()) {
            let first = parts[i].chars().next().map_or(0, char::len_utf8);
            parts[i].truncate(first);
        }
    }
    if length(&parts) <= most {
        return parts.join("/");
    }
    let all: Vec<char> = word.chars().collect();
    let kept = most.saturating_sub(1);
    let (begin, end) = (kept / 3, kept - kept / 3);
    all[..begin].iter().chain(&['…']).chain(&all[all.len() - end..]).collect()
}

/// Draws `tables` one below the other, each under its title.
pub fn draw(tables: &[Table]) -> String {
    let mut text = String::new();
    for table in tables.iter().map(|table| fitted(table, WIDTH)) {
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

    #[test]
    fn wide_tables_lose_what_they_can_do_without() {
        let mut table = Table::new("", "?inputs|unit|>loss|why");
        let (unit, why) =
            (format!("/encoder/{}/dense", "x".repeat(150)), "it reads what cannot be computed ".repeat(5));
        table.row([&"i".repeat(40), &unit, "0.125", why.as_str()]);
        let drawn = draw(std::slice::from_ref(&table));
        assert!(drawn.lines().all(|l| l.chars().count() <= WIDTH), "{drawn}");
        assert!(!drawn.contains("iii") && drawn.contains("0.125") && drawn.contains("x/dense"), "{drawn}");
        let words = drawn.split_whitespace().filter(|w| *w == "computed").count();
        assert_eq!(words, 5, "{drawn}");
        // Where there is room, nothing changes.
        assert_eq!(fitted(&table, 1000), table);
        assert_eq!(shortened("abcdefghij", 7), "ab…ghij");
        assert_eq!(shortened("abcdefg", 7), "abcdefg");
        assert_eq!(shortened("/bert/encoder/layer.0/self/query/MatMul", 29), "/b/e/layer.0/s/query/MatMul");
        assert_eq!(shortened("/bert/layer.0/MatMul", 9), "/b…MatMul");
    }
}

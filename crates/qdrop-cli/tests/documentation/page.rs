//! A page of Markdown, as far as the tests look at it: code, headings, links.

use std::path::{Path, PathBuf};

/// A page of the documentation.
pub struct Page {
    /// From the root of the repository, with `/`.
    pub name: String,
    /// Lines outside fenced code, with their numbers from 1.
    pub prose: Vec<(usize, String)>,
    /// Fenced code.
    pub fences: Vec<Fence>,
}

/// A block of code between fences.
pub struct Fence {
    /// What stands behind the opening fence.
    pub language: String,
    /// Its lines with their numbers from 1.
    pub lines: Vec<(usize, String)>,
}

/// A command and what is shown of its output.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// The line it stands in, from 1.
    pub at: usize,
    /// The command without its prompt, in one line.
    pub command: String,
    /// Lines up to the next command.
    pub output: Vec<String>,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All pages: those in the root and those of the book, in the order of their names.
pub fn pages() -> Vec<Page> {
    let mut names = Vec::new();
    for folder in ["", "docs/"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                names.push(format!("{folder}{name}"));
            }
        }
    }
    names.sort();
    names.into_iter().map(Page::read).collect()
}

impl Page {
    fn read(name: String) -> Page {
        let text = std::fs::read_to_string(root().join(&name)).unwrap();
        Page::parse(name, &text)
    }

    pub fn parse(name: String, text: &str) -> Page {
        let (mut prose, mut fences) = (Vec::new(), Vec::<Fence>::new());
        let (mut open, mut indent): (Option<Fence>, &str) = (None, "");
        for (at, line) in (1..).zip(text.lines()) {
            let inner = line.trim_start();
            let line = line.strip_prefix(indent).unwrap_or(line);
            match (inner.strip_prefix("```"), open.take()) {
                (Some(language), None) => {
                    indent = &line[..line.len() - inner.len()];
                    open = Some(Fence { language: language.trim().into(), lines: Vec::new() });
                }
                (Some(_), Some(fence)) => {
                    indent = "";
                    fences.push(fence);
                }
                (None, Some(mut fence)) => {
                    fence.lines.push((at, line.into()));
                    open = Some(fence);
                }
                (None, None) => prose.push((at, line.into())),
            }
        }
        assert!(open.is_none(), "{name}: code without end");
        Page { name, prose, fences }
    }

    /// Commands in blocks of the language `console`.
    pub fn commands(&self) -> Vec<Shown> {
        self.fences.iter().filter(|f| f.language == "console").flat_map(Fence::commands).collect()
    }

    /// What links can name behind `#`: headings in small letters, without punctuation, with `-` between words.
    pub fn anchors(&self) -> Vec<String> {
        let heading = |line: &str| Some(line.trim_start_matches('#').strip_prefix(' ')?.trim().to_string());
        let headings = self.prose.iter().filter(|(_, l)| l.starts_with('#')).filter_map(|(_, l)| heading(l));
        let part = |c: char| match c {
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_lowercase().collect::<String>()),
            c if c.is_whitespace() => Some("-".into()),
            _ => None,
        };
        headings.map(|h| h.chars().filter_map(part).collect()).collect()
    }

    /// Targets of links with the lines they stand in; images count as links, code does not.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (at, line) in &self.prose {
            let plain: String = line.split('`').step_by(2).collect();
            for (_, rest) in plain.match_indices("](").map(|(i, _)| plain.split_at(i + 2)) {
                let target = rest.split(')').next().unwrap_or_default();
                links.push((*at, target.to_string()));
            }
        }
        links
    }

    /// Code inside lines of prose, with the lines it stands in.
    pub fn inline_code(&self) -> Vec<(usize, String)> {
        let code = |(at, line): &(usize, String)| {
            line.split('`').skip(1).step_by(2).map(|c| (*at, c.to_string())).collect::<Vec<_>>()
        };
        self.prose.iter().flat_map(code).collect()
    }
}

impl Fence {
    fn commands(&self) -> Vec<Shown> {
        let mut found: Vec<Shown> = Vec::new();
        for (at, line) in &self.lines {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push(Shown { at: *at, command: command.into(), output: Vec::new() }),
                (None, Some(last)) if last.command.ends_with('\\') => {
                    last.command.pop();
                    last.command.push_str(line.trim_start());
                }
                (None, Some(last)) => last.output.push(line.clone()),
                (None, None) => panic!("line {at}: expected a command behind `$ `, got `{line}`"),
            }
        }
        for shown in &mut found {
            while shown.output.last().is_some_and(|l| l.trim().is_empty()) {
                shown.output.pop();
            }
        }
        found
    }
}

/// Whether `lines` are as `shown`: a `…` stands for any characters of a line, or alone for any lines; runs of spaces
/// count as one. Unless `exact`, a number stands for any number, and a duration for any duration.
pub fn alike(shown: &[String], lines: &[&str], exact: bool) -> bool {
    match shown.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=lines.len()).any(|skip| alike(rest, &lines[skip..], exact))
        }
        Some((first, rest)) => {
            lines.first().is_some_and(|line| fits(&plain(first, exact), &plain(line, exact)))
                && alike(rest, &lines[1..], exact)
        }
    }
}

/// `line` with single spaces and, unless `exact`, without the values of its numbers.
fn plain(line: &str, exact: bool) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let number = !exact && word.trim_end_matches(',').parse::<f64>().is_ok();
        // The first part of `1 min 5 s`.
        if !exact && ["h", "min"].contains(&word) && words.last() == Some(&"0") {
            words.pop();
        } else {
            words.push(if number { "0" } else { word });
        }
    }
    words.join(" ")
}

fn fits(shown: &str, line: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').map(str::trim).collect();
    let Some(mut rest) = line.strip_prefix(parts[0]) else { return false };
    for (i, part) in parts.iter().enumerate().skip(1) {
        let last = i + 1 == parts.len();
        let found = if last { rest.rfind(part) } else { rest.find(part) };
        match found {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[test]
fn pages_are_taken_apart() {
    let text = "# What — and `how`\nSee [a](b.md#c) and `[no](link)`.\n  ```console\n  $ qdrop a \\\n      b\n  out …\n\n  $ qdrop c\n  ```\n";
    let page = Page::parse("p.md".into(), text);
    let shown = |at, command: &str, output: &[&str]| Shown {
        at,
        command: command.into(),
        output: output.iter().map(|s| s.to_string()).collect(),
    };
    assert_eq!(page.commands(), [shown(4, "qdrop a b", &["out …"]), shown(8, "qdrop c", &[])]);
    assert_eq!(page.anchors(), ["what--and-how"]);
    assert_eq!(page.links(), [(2, "b.md#c".to_string())]);
    assert_eq!(page.inline_code(), [(1, "how".to_string()), (2, "[no](link)".to_string())]);
}

#[test]
fn what_is_left_out_fits_anything() {
    let like = |shown: &str, lines: &str| {
        let shown: Vec<String> = shown.lines().map(str::to_string).collect();
        alike(&shown, &lines.lines().collect::<Vec<_>>(), false)
    };
    assert!(like("a 1 min 5 s x", "a   0.3 s x") && like("loss 0.5 -> 1e-7, 3 it", "loss 2 -> 0.1, 20 it"));
    assert!(!alike(&["a 1".to_string()], &["a 2"], true) && alike(&["a 1".to_string()], &["a 1"], true));
    assert!(like("a … c\n…\nend", "a   1.5 b c\nx\ny\nend"));
    assert!(like("a …", "a 1") && like("… b", "1 b") && like("a", "a  "));
    assert!(!like("a … c", "a b") && !like("a", "a b") && !like("a\n…", "b\na") && !like("a … b", "a b c"));
}

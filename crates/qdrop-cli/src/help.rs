//! Parses the text after the options in a command's help: examples and notes.

use clap::Command;

/// An example in a command's help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// One command; a line that ends in a backslash continues in the next.
    pub command: String,
    /// The remark after it; may be empty.
    pub remark: String,
}

/// The examples of `command`, and the paragraphs after them. Examples are the indented lines after `Examples:` up to an
/// empty line; a remark is separated from its command by two or more spaces.
pub fn behind_options(command: &Command) -> (Vec<Example>, Vec<String>) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (head, notes) = match text.strip_prefix("Examples:\n") {
        Some(rest) => rest.split_once("\n\n").unwrap_or((rest, "")),
        None => ("", text.as_str()),
    };
    let mut examples: Vec<Example> = Vec::new();
    for line in head.lines() {
        match examples.last_mut().filter(|e| e.command.ends_with('\\')) {
            Some(open) => open.command.push_str(&format!("\n{line}")),
            None => {
                let (command, remark) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
                examples.push(Example { command: command.into(), remark: remark.trim().into() });
            }
        }
    }
    (examples, notes.split("\n\n").filter(|n| !n.is_empty()).map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    #[test]
    fn examples_are_told_from_notes() {
        let text = "Examples:\n  a b \\\n      c\n  a d   why\n\nOne\nnote.\n\nAnother.";
        let (examples, notes) = behind_options(&Command::new("a").after_help(text));
        let example = |command: &str, remark: &str| Example { command: command.into(), remark: remark.into() };
        assert_eq!(examples, [example("a b \\\n      c", ""), example("a d", "why")]);
        assert_eq!(notes, ["One\nnote.", "Another."]);
        assert_eq!(behind_options(&Command::new("a").after_help("A note.")), (vec![], vec!["A note.".to_string()]));
    }

    #[test]
    fn every_command_has_an_example_of_itself() {
        for command in Cli::command().get_subcommands() {
            let start = format!("qdrop {}", command.get_name());
            let (examples, _) = behind_options(command);
            assert!(!examples.is_empty(), "{start}");
            assert!(examples.iter().all(|e| e.command.starts_with(&start)), "{start}: {examples:?}");
        }
    }

    /// The terminal breaks the lines of a paragraph; what is broken in the source must fit as it is.
    #[test]
    fn broken_lines_of_notes_fit() {
        const COLUMNS: usize = 100;
        for command in Cli::command().get_subcommands() {
            for note in behind_options(command).1.iter().filter(|note| note.contains('\n')) {
                let long = note.lines().find(|line| line.chars().count() > COLUMNS);
                assert_eq!(long, None, "qdrop {}", command.get_name());
            }
        }
    }
}

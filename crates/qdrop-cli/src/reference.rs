//! Writes the book's pages on commands and recipes from the program itself. `QDROP_UPDATE_REFERENCE=1 cargo test -p
//! qdrop-cli reference` writes them; without the variable the test fails if a page is stale.

use crate::args::Cli;
use crate::help;
use clap::{Arg, Command, CommandFactory};
use qdrop::plan::Recipe;
use std::fmt::Write;
use std::path::Path;

/// `text` as Markdown: characters that it would take for itself are escaped, options are code.
fn plain(text: &str) -> String {
    let escape = |c: char| if "<>*|".contains(c) { format!("\\{c}") } else { c.to_string() };
    let word = |word: &str| {
        let end = word.len() - word.chars().rev().take_while(|c| ",.;:)".contains(*c)).count();
        let start = word.find(|c| c != '(').unwrap_or(end);
        match word.get(start..end) {
            Some(option) if option.starts_with("--") => format!("{}`{option}`{}", &word[..start], &word[end..]),
            _ => word.chars().map(escape).collect(),
        }
    };
    // What stands between quotes of code is taken as it is.
    let parts = text.split('`').enumerate().map(|(i, part)| match i % 2 {
        0 => part.split(' ').map(word).collect::<Vec<_>>().join(" "),
        _ => part.to_string(),
    });
    parts.collect::<Vec<String>>().join("`")
}

/// `text` with a capital in front.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `-w, --weight-bits <BITS>`.
fn spelled(arg: &Arg) -> String {
    let short = arg.get_short().map(|c| format!("-{c}"));
    let long = arg.get_long().map(|l| format!("--{l}"));
    let name = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    if !arg.get_action().takes_values() {
        return name;
    }
    let values =
        arg.get_value_names().unwrap_or_default().iter().map(|v| format!("<{v}>")).collect::<Vec<_>>().join(" ");
    match (arg.is_positional(), arg.is_required_set(), arg.is_require_equals_set()) {
        (true, true, _) => values,
        (true, false, _) => format!("[{}]", values.trim_matches(['<', '>'])),
        (false, _, true) => format!("{name}[={values}]"),
        (false, ..) => format!("{name} {values}"),
    }
}

/// A line of a list.
fn option(arg: &Arg) -> String {
    let meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = format!("- `{}`: {}", spelled(arg), plain(&meaning));
    let values = arg.get_possible_values();
    let values: Vec<String> =
        values.iter().filter(|v| !v.is_hide_set()).map(|v| format!("`{}`", v.get_name())).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        let _ = write!(text, " ({})", values.join(", "));
    }
    let default: Vec<String> = arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if arg.get_action().takes_values() && !default.is_empty() {
        let _ = write!(text, " [default: {}]", default.join(", "));
    }
    text.push('\n');
    text
}

/// Options that all commands share which have any under a title, with these commands.
struct Shared {
    title: String,
    /// As lines of a list.
    options: String,
    commands: Vec<String>,
}

/// Arguments of `command` that its section tells of, under their titles.
fn titled(command: &Command) -> Vec<(&str, Vec<&Arg>)> {
    let mut groups: Vec<(&str, Vec<&Arg>)> = Vec::new();
    let everywhere = ["help", "version", "quiet", "verbose"];
    let told = |a: &&Arg| !a.is_hide_set() && !everywhere.contains(&a.get_id().as_str());
    for arg in command.get_arguments().filter(told) {
        let title = arg.get_help_heading().unwrap_or(if arg.is_positional() { "Arguments" } else { OWN });
        match groups.iter_mut().find(|g| g.0 == title) {
            Some(group) => group.1.push(arg),
            None => groups.push((title, vec![arg])),
        }
    }
    groups
}

/// Title of options that a command does not share.
const OWN: &str = "Options";

fn shared(program: &Command) -> Vec<Shared> {
    let mut found: Vec<(&str, Vec<String>, Vec<String>)> = Vec::new();
    for command in program.get_subcommands() {
        for (title, args) in titled(command).into_iter().filter(|g| ![OWN, "Arguments"].contains(&g.0)) {
            let lines: Vec<String> = args.into_iter().map(option).collect();
            let name = command.get_name().to_string();
            match found.iter_mut().find(|s| s.0 == title) {
                Some((_, common, commands)) => {
                    common.retain(|line| lines.contains(line));
                    commands.push(name);
                }
                None => found.push((title, lines, vec![name])),
            }
        }
    }
    let several = found.into_iter().filter(|(_, options, commands)| commands.len() > 1 && !options.is_empty());
    several
        .map(|(title, options, commands)| Shared { title: title.into(), options: options.concat(), commands })
        .collect()
}

fn command(text: &mut String, command: &Command, shared: &[Shared]) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut usage = command.clone();
    let usage = usage.render_usage().to_string();
    let _ = write!(text, "\n## {name}\n\n{}.\n\nUsage: `{}`\n", plain(&about), usage.trim_start_matches("Usage: "));
    let mut elsewhere = Vec::new();
    for (title, args) in titled(command) {
        let mut lines: Vec<String> = args.into_iter().map(option).collect();
        if let Some(shared) = shared.iter().find(|s| s.title == title) {
            lines.retain(|line| !shared.options.contains(line));
            elsewhere.push(format!("[{title}](#{})", title.to_lowercase().replace(' ', "-")));
        }
        if !lines.is_empty() {
            let _ = write!(text, "\n**{title}**\n\n{}", lines.concat());
        }
    }
    if !elsewhere.is_empty() {
        let _ = write!(text, "\nOptions shared with other commands: {}.\n", elsewhere.join(", "));
    }
    let (examples, notes) = help::behind_options(command);
    if !examples.is_empty() {
        text.push_str("\n**Examples**\n");
    }
    shown(text, &examples);
    for note in notes {
        // What is indented is a file as it is written.
        let file: Option<Vec<&str>> = note.lines().map(|line| line.strip_prefix("  ")).collect();
        let _ = match file {
            Some(lines) => write!(text, "\n```toml\n{}\n```\n", lines.join("\n")),
            None => write!(text, "\n{}\n", plain(&note)),
        };
    }
}

fn shown(text: &mut String, examples: &[help::Example]) {
    for help::Example { command, remark } in examples {
        if !remark.is_empty() {
            let _ = write!(text, "\n{}:\n", capital(&plain(remark)));
        }
        let _ = write!(text, "\n```console\n$ {command}\n```\n");
    }
}

fn commands() -> String {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut text = String::from(
        "# Commands\n\n\
        All commands and their options, with meanings and defaults. Options that [several commands \
        share](#options-of-several-commands) are at the end. The program writes this page itself, and a test keeps it \
        up to date; `qdrop help COMMAND` and the manual pages of `qdrop man` have the same text.\n\n\
        Results go to stdout, progress to stderr; every command accepts `-q` (`--quiet`), which turns progress off, \
        and `-v` (`--verbose`), which adds how long each stage took. \
        Exit status: 0 success, 1 below a given threshold, 2 error, 130 interrupted.\n",
    );
    shown(&mut text, &help::behind_options(&program).0);
    let shared = shared(&program);
    program.get_subcommands().for_each(|c| command(&mut text, c, &shared));
    text.push_str("\n## Options of several commands\n");
    for Shared { title, options, commands } in &shared {
        let commands: Vec<String> = commands.iter().map(|c| format!("`qdrop {c}`")).collect();
        let _ = write!(text, "\n### {title}\n\nFor {}.\n\n{options}", commands.join(", "));
    }
    text
}

fn recipe() -> String {
    let mut text = String::from(
        "# Recipes\n\n\
        All options of a recipe, with their defaults. A recipe is a TOML file; it may leave out any option, and \
        options on the command line override it. `qdrop recipe` prints a recipe to start from, and `--recipe` passes \
        one to a command. Unknown keys are refused. The program writes this page itself, and a test keeps it up to \
        date.\n",
    );
    let toml = Recipe::default_toml().unwrap();
    let (mut about, mut rows) = (Vec::new(), 0);
    for line in toml.lines().skip(1) {
        let (set, rest) = line.strip_prefix("# ").map_or((true, line), |rest| (false, rest));
        let word = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if let Some((key, value)) = rest.split_once(" = ").filter(|(key, _)| word(key)) {
            if rows == 0 {
                text.push_str("\n| option | default | meaning |\n|---|---|---|\n");
            }
            rows += 1;
            let value = if set { format!("`{value}`") } else { format!("not set (example: `{value}`)") };
            let _ = writeln!(text, "| `{key}` | {value} | {} |", plain(&about.join(" ")));
            about.clear();
        } else if rest.starts_with('[') {
            let about = std::mem::take(&mut about).join(" ");
            let _ = writeln!(text, "\n## `{rest}`");
            // Some sections say no more than their name.
            if !about.trim_end_matches('.').eq_ignore_ascii_case(rest.trim_matches(['[', ']'])) {
                let _ = write!(text, "\n{}\n", plain(&about));
            }
            rows = 0;
        } else if !rest.is_empty() {
            about.push(rest.to_string());
        }
    }
    text
}

#[test]
fn pages_are_as_the_program_says() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (name, text) in [("commands.md", commands()), ("recipe.md", recipe())] {
        let path = docs.join(name);
        if std::env::var_os("QDROP_UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let old = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        assert!(old == text, "docs/{name} is stale: run this test with QDROP_UPDATE_REFERENCE=1");
    }
}

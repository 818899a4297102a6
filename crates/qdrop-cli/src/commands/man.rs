//! `qdrop man`: prints or writes the help of every command as manual pages.

use crate::args::{Cli, Man};
use crate::{Outcome, help, out};
use clap::{Command, CommandFactory};
use clap_mangen::roff::{Roff, roman};
use qdrop::{Error, Result};

/// Runs the command.
pub fn run(args: &Man) -> Result<Outcome> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let Some(dir) = &args.dir else {
        out::print(&page(&program)?)?;
        return Ok(Outcome::Done);
    };
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let commands: Vec<&Command> = std::iter::once(&program).chain(program.get_subcommands()).collect();
    for command in &commands {
        let path = dir.join(format!("{}.1", name(command)));
        out::file(&path, &page(command)?)?;
    }
    out::print(&format!("{} manual pages written to {}", commands.len(), dir.display()))?;
    Ok(Outcome::Done)
}

/// Name of a command's page: `qdrop-quantize`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

/// The page of `command`, which must be built, in roff.
fn page(command: &Command) -> Result<String> {
    let mut command = command.clone();
    let usage = command.render_usage().to_string();
    let command = command.override_usage(usage.trim_start_matches("Usage: ").to_string());
    let (examples, notes) = help::behind_options(&command);
    let has_commands = command.has_subcommands();
    let version = format!("qdrop {}", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command).source(version);
    let mut text = Vec::new();
    let render = |text: &mut Vec<u8>| {
        man.render_title(text)?;
        man.render_name_section(text)?;
        man.render_synopsis_section(text)?;
        man.render_options_section(text)?;
        if has_commands {
            man.render_subcommands_section(text)?;
        }
        let mut rest = Roff::new();
        if !examples.is_empty() {
            rest.control("SH", ["EXAMPLES"]).control("nf", []);
        }
        for example in &examples {
            if !example.remark.is_empty() {
                rest.text([roman(format!("# {}", example.remark))]);
            }
            for line in example.command.lines() {
                rest.text([roman(line)]);
            }
        }
        if !examples.is_empty() {
            rest.control("fi", []);
        }
        if !notes.is_empty() {
            rest.control("SH", ["NOTES"]);
        }
        for note in &notes {
            rest.text([roman(note.as_str())]).control("PP", []);
        }
        rest.to_writer(text)
    };
    render(&mut text).map_err(|e: std::io::Error| Error::internal(format!("cannot make the manual page: {e}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_usage_options_and_examples() {
        let mut program = Cli::command();
        program.build();
        let quantize = program.find_subcommand("quantize").unwrap();
        assert_eq!(name(quantize), "qdrop-quantize");
        let page = page(quantize).unwrap();
        for part in
            [".TH qdrop-quantize 1", "[OPTIONS] \\-\\-calib", ".SH QUANTIZATION", ".SH EXAMPLES\n.nf\nqdrop quantize"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("Examples:"), "{page}");
    }
}

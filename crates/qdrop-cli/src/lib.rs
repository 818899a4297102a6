//! The `qdrop` command line as a library: arguments in, tables or JSON out, an exit status that says how it went. The program
//! `qdrop` and the script of the Python package both call [`run`]; [`show`] prints results for other faces of the library.

mod args;
mod bits;
mod checks;
mod commands;
pub mod demo;
mod drawings;
mod flags;
mod help;
mod model;
mod out;
mod progress;
mod quality;
#[cfg(test)]
mod reference;
mod reports;
mod runtime;
pub mod show;

use args::{Cli, Command};
use clap::Parser;
use out::Label;
use progress::Detail;
use qdrop::plan::Recipe;
use qdrop::{Error, Kind, Result};
use std::ffi::OsString;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All is well.
    Done,
    /// The result is there, but misses a threshold the user stated.
    Missed,
}

/// Runs the command line `args`, whose first word is the name of the program, and returns the exit status: 0 done, 1 a metric
/// below a given threshold, 2 an error, 130 an interruption. It prints, takes over Ctrl-C, and ends the process itself where
/// work does not end soon after Ctrl-C: it is for the `main` of a program.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    // So that a run takes the memory it was said to take.
    qdrop::engine::heap::give_back_large_blocks();
    let args: Vec<OsString> = args.into_iter().collect();
    reports::started_by(&args);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(asked) => {
            // A reader that went away is no error.
            let _ = asked.print();
            return if asked.use_stderr() { 2 } else { 0 };
        }
    };
    // A panic becomes an error with a place and a hint; where it arose is for those who look for its cause.
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|v| v == "0") {
        std::panic::set_hook(Box::new(|_| {}));
    }
    match Error::caught(|| perform(cli)) {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::Missed) => 1,
        Err(error) => {
            complain(&error);
            if error.kind() == Kind::Interrupted { 130 } else { 2 }
        }
    }
}

fn perform(cli: Cli) -> Result<Outcome> {
    let detail = Detail::of(cli.quiet, cli.verbose);
    match cli.command {
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Quantize(args) => commands::quantize::run(&args, detail),
        Command::Sensitivity(args) => commands::sensitivity::run(&args, detail),
        Command::Eval(args) => commands::eval::run(&args, detail),
        Command::Bench(args) => commands::bench::run(&args, detail),
        Command::Compare(args) => commands::compare::run(&args, detail),
        Command::Sweep(args) => commands::sweep::run(&args, detail),
        Command::Demo(args) => commands::demo::run(&args, detail),
        Command::Completions(args) => commands::completions::run(&args),
        Command::Man(args) => commands::man::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Recipe => out::print(&Recipe::default_toml()?).map(|()| Outcome::Done),
    }
}

/// Prints `error` on stderr: one line with the places, and a line with what to do.
fn complain(error: &Error) {
    let mut line = String::new();
    for place in error.places().iter().rev() {
        line.push_str(place);
        line.push_str(": ");
    }
    line.push_str(error.message());
    out::tell_as(Label::Error, &line);
    if let Some(advice) = error.advice() {
        out::tell_as(Label::Hint, advice);
    }
}

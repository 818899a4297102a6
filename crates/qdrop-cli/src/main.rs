//! The `qdrop` command line: arguments in, tables or JSON out, an exit status that says how it went.

mod args;
mod bits;
mod checks;
mod commands;
mod demo;
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

use args::{Cli, Command};
use clap::Parser;
use out::Label;
use progress::Detail;
use qdrop::plan::Recipe;
use qdrop::{Error, Kind, Result};
use std::process::ExitCode;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All is well.
    Done,
    /// The result is there, but misses a threshold the user stated.
    Missed,
}

fn main() -> ExitCode {
    // So that a run takes the memory it was said to take.
    qdrop::engine::heap::give_back_large_blocks();
    let cli = Cli::parse();
    // A panic becomes an error with a place and a hint; where it arose is for those who look for its cause.
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|v| v == "0") {
        std::panic::set_hook(Box::new(|_| {}));
    }
    match Error::caught(|| run(cli)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Missed) => ExitCode::from(1),
        Err(error) => {
            complain(&error);
            ExitCode::from(if error.kind() == Kind::Interrupted { 130 } else { 2 })
        }
    }
}

fn run(cli: Cli) -> Result<Outcome> {
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

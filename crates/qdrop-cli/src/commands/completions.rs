//! `qdrop completions`: what a shell needs to complete this program's words.

use crate::args::{Cli, Completions};
use crate::{Outcome, out};
use clap::CommandFactory;
use qdrop::Result;

/// Runs the command.
pub fn run(args: &Completions) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "qdrop", &mut script);
    out::print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}

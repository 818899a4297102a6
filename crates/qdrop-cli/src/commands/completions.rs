//! `qdrop completions`: what a shell needs to complete this program's words.

use crate::args::{Cli, Completions};
use crate::{Outcome, out};
use clap::CommandFactory;
use clap_complete::Shell;
use qdrop::Result;

/// Runs the command.
pub fn run(args: &Completions) -> Result<Outcome> {
    out::print(&script(args.shell))?;
    Ok(Outcome::Done)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "qdrop", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_learns_commands_options_and_values() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(["quantize", "calib", "preset"].iter().all(|w| script.contains(w)), "{shell}: {script}");
            let completes_values = matches!(shell, Shell::Bash | Shell::Fish | Shell::Zsh);
            assert!(!completes_values || script.contains("balanced"), "{shell}: {script}");
        }
    }
}

//! The program `qdrop`.

fn main() -> std::process::ExitCode {
    qdrop_cli::run(std::env::args_os()).into()
}

//! Runs the fuzz targets on inputs of their own, on one file, or writes the seeds.

use qdrop_fuzz::{Seeds, Target, mutated, seeds};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

const USAGE: &str =
    "usage: qdrop-fuzz run TARGET FIRST..LAST    the inputs of these numbers, each number printed before
       qdrop-fuzz run TARGET FILE           one input
       qdrop-fuzz corpus FOLDER             writes the seeds to FOLDER/TARGET, for cargo-fuzz
targets: reader, plan, arrays, recipe, tokenizer, coco";

/// What the last panic said.
static SAID: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["run", target, what] => Target::named(target).map(|target| match range(what) {
            Some(numbers) => run(target, &seeds(target), numbers),
            None => one(target, Path::new(what)),
        }),
        ["corpus", folder] => Some(corpus(Path::new(folder))),
        _ => None,
    };
    match done {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn range(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.split_once("..")?;
    Some(first.parse().ok()?..last.parse().ok()?)
}

/// What `target` says to `bytes`; nothing where it panics, and then the panic is printed.
fn taken(target: Target, bytes: &[u8]) -> Option<qdrop::Result<()>> {
    // Some panics are caught by the library and come out as errors: only those that are not speak.
    std::panic::set_hook(Box::new(|info| *SAID.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string()));
    let accepted = catch_unwind(AssertUnwindSafe(|| target.run(bytes))).ok();
    if accepted.is_none() {
        eprintln!("{}", SAID.lock().unwrap_or_else(PoisonError::into_inner));
    }
    accepted
}

fn run(target: Target, seeds: &Seeds, numbers: Range<u64>) -> bool {
    let mut accepted = 0;
    for number in numbers {
        println!("{number}");
        match taken(target, &mutated(target, seeds, number)) {
            Some(Ok(())) => accepted += 1,
            Some(Err(_)) => {}
            None => return false,
        }
    }
    println!("accepted {accepted}");
    true
}

fn one(target: Target, path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    match taken(target, &bytes) {
        Some(Ok(())) => println!("accepted"),
        Some(Err(e)) => println!("refused: {e}"),
        None => return false,
    }
    true
}

fn corpus(folder: &Path) -> bool {
    for target in Target::ALL {
        let folder = folder.join(target.to_string());
        std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let seeds = seeds(target);
        for (i, seed) in seeds.iter().enumerate() {
            let path = folder.join(format!("seed{i:04}.{}", target.extension()));
            std::fs::write(&path, seed).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        println!("{}: {} seeds", folder.display(), seeds.len());
    }
    true
}

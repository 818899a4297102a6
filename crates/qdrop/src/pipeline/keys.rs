//! What the runs of a sweep follow from.

use crate::error::{Error, Result};
use crate::onnx;
use crate::plan::{Input, SweepRun};
use crate::work::{REVISION, encode};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// For each run of a sweep, the hash of everything that determines its result: the version, the recipe without options
/// that affect only the speed, the bytes of the model and of its external data, and the paths of the samples as the sweep
/// gives them.
pub fn run_keys(runs: &[SweepRun]) -> Result<Vec<String>> {
    let mut models: HashMap<&Path, blake3::Hash> = HashMap::new();
    let mut keys = Vec::with_capacity(runs.len());
    for run in runs {
        if !models.contains_key(run.model.as_path()) {
            models.insert(&run.model, hash_of_model(&run.model)?);
        }
        let mut recipe = run.recipe.clone();
        (recipe.method.threads, recipe.method.memory) = (0, None);
        recipe.input = input(run);
        let mut hasher = blake3::Hasher::new();
        hasher.update(REVISION).update(models[run.model.as_path()].as_bytes()).update(&encode(&recipe)?);
        hasher.update(&encode(&(named(run, &run.calib), named(run, &run.eval)))?);
        keys.push(hasher.finalize().to_hex()[..32].to_string());
    }
    Ok(keys)
}

/// The hash of everything that determines the score of the float network of `run`: the version, the bytes of the model and
/// of its external data, how samples become network input, and the path of the evaluation samples with the sizes and the
/// times of change of their `files`. Runs that share it need not measure the network again.
pub fn float_key(run: &SweepRun, files: &[PathBuf]) -> Result<String> {
    // How many calibration samples there are changes nothing here.
    let input = Input { samples: None, ..input(run) };
    let mut hasher = blake3::Hasher::new();
    hasher.update(REVISION).update(hash_of_model(&run.model)?.as_bytes());
    hasher.update(&encode(&(named(run, &run.eval), input))?);
    for file in files {
        let stated = std::fs::metadata(file).and_then(|m| Ok((m.len(), m.modified()?))).ok();
        let age = stated.and_then(|(_, time)| time.duration_since(UNIX_EPOCH).ok());
        hasher.update(&encode(&(named(run, file), stated.map(|s| s.0), age))?);
    }
    Ok(hasher.finalize().to_hex()[..32].to_string())
}

/// `path` as the sweep names it, wherever the sweep's file lies.
fn named<'a>(run: &SweepRun, path: &'a Path) -> Cow<'a, str> {
    path.strip_prefix(&run.folder).unwrap_or(path).to_string_lossy()
}

/// How samples become network input, with files as the sweep names them.
fn input(run: &SweepRun) -> Input {
    let mut input = run.recipe.input.clone();
    for path in input.paths_mut() {
        *path = named(run, Path::new(&*path)).into_owned();
    }
    input
}

fn hash_of_model(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for file in onnx::files(path)? {
        let open = File::open(&file).map_err(|e| Error::io(&file, e))?;
        hasher.update_reader(open).map_err(|e| Error::io(&file, e))?;
    }
    Ok(hasher.finalize())
}
